//! What a rule by address means: its own prefixes and those of the sets that it names, without what it leaves out.

use std::fmt;
use std::net::IpAddr;

use config::Prefixes;
use config::names::Name;
use config::resource::{CidrRule, SetName};
use ipnetwork::IpNetwork;

use crate::model::Model;

/// A rule by address with its sets.
#[derive(Clone, Debug)]
pub(super) struct Addresses<'a> {
    pub(super) rule: &'a CidrRule,
    sets: Vec<(&'a SetName, &'a Prefixes)>,
}

/// The narrowest prefix around an address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Covering<'a> {
    prefix: IpNetwork,
    /// Where it is listed, if not in the rule itself.
    pub(super) set: Option<&'a SetName>,
}

impl<'a> Addresses<'a> {
    /// The rule is one of a policy of this namespace; `None` of the admin tier.
    pub(super) fn of(model: &Model<'a>, namespace: Option<&Name>, rule: &'a CidrRule) -> Self {
        Self { rule, sets: model.sets_of(namespace, rule).collect() }
    }

    /// The narrowest listed prefix, if the rule means the address. `except` narrows this rule only.
    pub(super) fn meaning(&self, address: IpAddr) -> Option<Covering<'a>> {
        let left_out = self.rule.except.iter().any(|prefix| prefix.contains(address));
        self.listing(address).filter(|_| !left_out)
    }

    /// The same, left out or not.
    pub(super) fn listing(&self, address: IpAddr) -> Option<Covering<'a>> {
        let own = self.rule.cidrs.iter().filter(|prefix| prefix.contains(address));
        let own = own.map(|prefix| Covering { prefix: *prefix, set: None });
        let of_set = |(name, set): &(&'a SetName, &'a Prefixes)| {
            set.around(address).map(|prefix| Covering { prefix, set: Some(name) })
        };
        // Of equals the last is taken: the rule's own prefix, then the first set.
        self.sets.iter().rev().filter_map(of_set).chain(own).max_by_key(|found| found.prefix.prefix())
    }
}

impl fmt::Display for Covering<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.set {
            Some(set) => write!(f, "{} of AddressSet `{set}`", self.prefix),
            None => write!(f, "{}", self.prefix),
        }
    }
}
