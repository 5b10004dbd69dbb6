//! Interfaces that others made: closed, sealed, given back.
//!
//! The table that guards adopted bridges is put first, as far as it closes; ports are listed there when they are closed.

use std::collections::BTreeSet;

use config::names::InterfaceName;
use config::resource::Network;

use super::Sight;
use super::refusal::Refusal;
use super::workload::Found;
use crate::segmentation::adoption::{bridge_of, gateway_mac, is_closable};
use crate::segmentation::desired::Desired;
use crate::segmentation::guard::{Guard, GuardState};
use crate::segmentation::step::Step;
use crate::sys::netlink::{Kind, Link};
use crate::workload::Workload;

/// Closes the ports of an adopted bridge that are not closed yet.
pub(super) fn network(network: &Network, observed: &Sight<'_>) -> Result<Vec<Step>, Refusal> {
    let Some(bridge) = bridge_of(network) else { return Ok(Vec::new()) };
    match observed.link(bridge) {
        None => Err(Refusal::BridgeMissing { network: network.name.clone(), bridge: bridge.clone() }),
        Some(link) if !matches!(link.kind, Kind::Bridge { .. }) => {
            Err(Refusal::NoBridge { network: network.name.clone(), link: bridge.clone() })
        }
        Some(link) => {
            let ports = ports(observed, link).filter(|port| is_closable(port));
            let open = ports.filter(|port| !observed.closed.contains_key(&port.index));
            Ok(open.map(|port| Step::Close { link: port.name.clone() }).collect())
        }
    }
}

/// Seals a workload's interface.
pub(super) fn workload(workload: &Workload, observed: &Sight<'_>) -> Found {
    let link = observed.link(&workload.host_interface).filter(|_| !observed.gone.contains(&workload.id));
    let Some(link) = link else { return Found::Gone };
    let sealed = observed.closed.get(&link.index).and_then(|closed| closed.workload);
    let steps = match gateway_mac(link, &observed.links) {
        Some(bridge_mac) if sealed != Some(workload.id) => {
            vec![Step::Seal { link: link.name.clone(), workload: Box::new(workload.clone()), bridge_mac }]
        }
        _ => Vec::new(),
    };
    Found::Steps(steps)
}

/// Ports whose bridge is adopted no longer.
pub(super) fn released(desired: &Desired, observed: &Sight<'_>) -> Vec<Step> {
    let adopted = bridges(desired);
    let users: BTreeSet<&InterfaceName> =
        desired.workloads.values().filter(|workload| workload.adopted).map(|own| &own.host_interface).collect();
    let ours = observed.closed.iter().filter(|(_, closed)| !closed.chained).map(|(index, _)| *index);
    let links = ours.filter_map(|index| observed.link_at(index));
    let still = |link: &&Link| {
        let bridge = link.master.and_then(|index| observed.link_at(index));
        users.contains(&link.name) || bridge.is_some_and(|bridge| adopted.contains(&bridge.name))
    };
    links.filter(|link| !still(link)).map(|link| Step::Open { link: link.name.clone() }).collect()
}

/// What the guard needs before ports are closed, and after.
pub(super) fn guard(desired: &Desired, observed: &Sight<'_>) -> (Vec<Step>, Vec<Step>) {
    let was = match &observed.guard {
        GuardState::Unsupported(_) => return (Vec::new(), Vec::new()),
        GuardState::As(guard) => Some(guard.clone()),
        GuardState::Absent | GuardState::Other => None,
    };
    let bridges = bridges(desired);
    if bridges.is_empty() {
        let gone = observed.guard == GuardState::Absent;
        return (Vec::new(), if gone { Vec::new() } else { vec![Step::DeleteGuard { was }] });
    }
    let there = bridges.iter().filter_map(|bridge| observed.link(bridge));
    let all: Vec<&Link> = there.flat_map(|bridge| ports(observed, bridge)).collect();
    let is_closed = |port: &&&Link| !is_closable(port) || observed.closed.contains_key(&port.index);
    let now = Guard { ports: all.iter().filter(is_closed).map(|port| port.index).collect(), bridges };
    let then = Guard { ports: all.iter().map(|port| port.index).collect(), bridges: now.bridges.clone() };
    if was.as_ref() == Some(&then) {
        return (Vec::new(), Vec::new());
    }
    let is_closing =
        was.as_ref().is_none_or(|was| !was.bridges.is_superset(&now.bridges) || !was.ports.is_subset(&now.ports));
    let put = |to: &Guard, was: Option<Guard>| vec![Step::PutGuard { to: to.clone(), was }];
    match (is_closing, now == then) {
        (true, true) => (put(&now, was), Vec::new()),
        (true, false) => (put(&now, was), put(&then, Some(now))),
        (false, _) => (Vec::new(), put(&then, was)),
    }
}

fn bridges(desired: &Desired) -> BTreeSet<InterfaceName> {
    desired.networks.values().filter_map(bridge_of).cloned().collect()
}

fn ports<'a>(observed: &'a Sight<'_>, bridge: &Link) -> impl Iterator<Item = &'a Link> {
    let index = bridge.index;
    observed.links.iter().filter(move |link| link.master == Some(index))
}

#[cfg(test)]
mod tests {
    use config::resource::{Adopt, Gateway, Snat};

    use super::super::tests::{bare, desired, link, network as made, workload as web};
    use super::super::{Plan, Subject};
    use super::*;
    use crate::segmentation::adoption::Closed;
    use crate::segmentation::observe::Observed;
    use crate::workload::WorkloadId;

    fn adopting() -> Network {
        let adopt = Some(Adopt::Bridge("docker0".parse().unwrap()));
        Network { adopt, vlan: None, subnets: Vec::new(), gateway: Gateway::External, snat: Snat::None, ..made() }
    }

    fn found(id: u32, port: &str) -> Workload {
        Workload { adopted: true, host_interface: port.parse().unwrap(), ..web(id, &adopting()) }
    }

    /// Docker's bridge with two containers, a tunnel to other nodes and a TAP; a pair of somebody else.
    fn node() -> Observed {
        let mut observed = bare();
        observed.links.push(link(20, "docker0", Kind::Bridge { stp: false, snooping: true }));
        observed.links.push(link(30, "stranger", Kind::Veth));
        let ports = [
            (21, "veth1", Kind::Veth),
            (22, "veth2", Kind::Veth),
            (23, "vxlan0", Kind::Other),
            (24, "tap0", Kind::Tap),
        ];
        for (index, name, kind) in ports {
            let mut port = link(index, name, kind);
            port.master = Some(20);
            observed.links.push(port);
        }
        observed
    }

    fn steps(desired: &Desired, observed: &Observed) -> Vec<String> {
        let plan = Plan::new(desired, observed);
        let own = plan.steps().map(ToString::to_string);
        own.filter(|step| step != "put nft table inet tidegate" && !step.starts_with("write ")).collect()
    }

    #[test]
    fn ports_are_closed_between_two_puts_of_the_guard_and_nothing_else_is_touched() {
        let desired = desired(&[adopting()], &[]);
        let mut observed = node();
        let wanted = [
            "put nft table bridge tidegate: 1 ports of docker0",
            "close veth1",
            "close veth2",
            "close tap0",
            "put nft table bridge tidegate: 4 ports of docker0",
        ];
        assert_eq!(steps(&desired, &observed), wanted);
        observed.guard = GuardState::Unsupported("no".to_owned());
        assert_eq!(steps(&desired, &observed), wanted[1..4]);

        let closed = [21, 22, 24].map(|index| (index, Closed { workload: None, chained: false }));
        observed.closed = closed.into();
        let ports = BTreeSet::from([21, 22, 23, 24]);
        observed.guard = GuardState::As(Guard { bridges: ["docker0".parse().unwrap()].into(), ports: ports.clone() });
        assert_eq!(steps(&desired, &observed), [""; 0]);
        let mut port = link(25, "veth3", Kind::Veth);
        port.master = Some(20);
        observed.links.push(port);
        assert_eq!(steps(&desired, &observed), ["close veth3", "put nft table bridge tidegate: 5 ports of docker0"]);
        let more = ports.into_iter().chain([30]).collect();
        observed.guard = GuardState::As(Guard { bridges: ["docker0".parse().unwrap()].into(), ports: more });
        assert_eq!(steps(&desired, &observed).len(), 3, "who is listed and should not be goes first");
    }

    #[test]
    fn a_workload_is_sealed_once_and_gone_with_its_port() {
        let desired = desired(&[adopting()], &[found(1, "veth1"), found(2, "veth9")]);
        let mut observed = node();
        observed.guard = GuardState::Unsupported("no".to_owned());
        let plan = Plan::new(&desired, &observed);
        assert_eq!(plan.gone, BTreeSet::from([WorkloadId(2)]));
        assert!(steps(&desired, &observed).contains(&"seal veth1 for shop/web-1".to_owned()));
        observed.closed = [21, 22, 24].map(|index| (index, Closed { workload: None, chained: false })).into();
        observed.closed.insert(21, Closed { workload: Some(WorkloadId(1)), chained: false });
        assert_eq!(steps(&desired, &observed), [""; 0]);
        observed.gone.insert(WorkloadId(1));
        assert!(Plan::new(&desired, &observed).gone.contains(&WorkloadId(1)), "another container has that port now");
    }

    #[test]
    fn what_is_adopted_no_longer_is_opened_and_what_a_chain_made_stays_closed() {
        let mut observed = node();
        observed.closed.insert(21, Closed { workload: None, chained: false });
        observed.closed.insert(30, Closed { workload: None, chained: true });
        observed.guard = GuardState::As(Guard { bridges: ["docker0".parse().unwrap()].into(), ports: [21].into() });
        assert_eq!(steps(&desired(&[], &[]), &observed), ["delete nft table bridge tidegate", "open veth1"]);
        let plan = Plan::new(&desired(&[], &[found(1, "veth1")]), &observed);
        assert_eq!(plan.refusals, [], "who was found goes with the network");
        assert!(plan.only(|subject| matches!(subject, Subject::Workload(_))).is_empty());
    }

    #[test]
    fn what_is_no_bridge_is_refused() {
        let mut observed = node();
        observed.links.retain(|link| link.name.as_str() != "docker0");
        let wanted = desired(&[adopting()], &[]);
        let refusal = &Plan::new(&wanted, &observed).refusals[0];
        assert!(matches!(refusal, Refusal::BridgeMissing { .. }), "{refusal}");
        observed.links.push(link(20, "docker0", Kind::Other));
        let refusal = &Plan::new(&wanted, &observed).refusals[0];
        assert!(matches!(refusal, Refusal::NoBridge { .. }), "{refusal}");
    }
}
