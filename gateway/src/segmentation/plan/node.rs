//! The node as a whole: table `inet tidegate`, and forwarding where this node routes for a network.
//!
//! Forwarding is turned on and never off again: other programs may count on it by then. With IPv6 forwarding the kernel
//! stops heeding router advertisements where `accept_ra` is 1, and forgets the routes it had from them; links that had 1
//! get 2 first, which means "nevertheless".

use std::sync::Arc;

use config::names::InterfaceName;

use super::{Sight, names};
use crate::segmentation::desired::{Desired, Shape};
use crate::segmentation::observe::Table;
use crate::segmentation::ruleset::Ruleset;
use crate::segmentation::step::Step;
use crate::sys::netlink::Link;
use crate::sys::sysctl::Sysctl;

/// What comes before the networks.
pub(super) fn before(desired: &Desired, observed: &Sight<'_>) -> Vec<Step> {
    let mut steps = Vec::new();
    if !desired.networks.is_empty() {
        let ruleset = Arc::new(Ruleset::of(desired));
        match &observed.table {
            Table::As(present) if *present == ruleset => {}
            Table::As(present) if present.rules == ruleset.rules => {
                steps.push(Step::ChangeTable { to: ruleset, was: present.clone() });
            }
            Table::As(present) => steps.push(Step::PutTable { ruleset, was: Some(present.clone()) }),
            Table::Absent => steps.push(Step::PutTable { ruleset, was: None }),
            // An earlier daemon's, most likely: not to be deleted when this is taken back, since it may close something.
            Table::Other => steps.push(Step::PutTable { was: Some(ruleset.clone()), ruleset }),
        }
    }
    let routes = |ipv4| desired.networks.values().any(|network| network.routes(ipv4));
    if let Some(was) = observed.ipv4_forward.filter(|&on| routes(true) && on == 0) {
        steps.push(Step::Write { key: Sysctl::ipv4_forward(), to: 1, was: Some(was) });
    }
    if let Some(was) = observed.ipv6_forward.filter(|&on| routes(false) && on == 0) {
        let heeds = |link: &&Link| link.settings.accept_ra == Some(1) && !is_own_or_lo(&link.name);
        for link in observed.links.iter().filter(heeds) {
            steps.push(Step::Write { key: Sysctl::ipv6(&link.name, "accept_ra"), to: 2, was: Some(1) });
        }
        steps.push(Step::Write { key: Sysctl::ipv6_forward(), to: 1, was: Some(was) });
    }
    steps
}

/// What comes when the last network is gone.
pub(super) fn after(desired: &Desired, observed: &Sight<'_>) -> Vec<Step> {
    match (&observed.table, desired.networks.is_empty()) {
        (Table::As(was), true) => vec![Step::DeleteTable { was: Some(was.clone()) }],
        (Table::Other, true) => vec![Step::DeleteTable { was: None }],
        (Table::Absent, _) | (Table::As(_) | Table::Other, false) => Vec::new(),
    }
}

fn is_own_or_lo(link: &InterfaceName) -> bool {
    let name = link.as_str();
    name == "lo" || name.starts_with(names::BRIDGE_PREFIX) || name.starts_with("tgv") || name.starts_with("tgw")
}
