//! How things stand, for `status`, the composition and the watch.

use std::collections::{BTreeMap, BTreeSet};

use config::names::Name;

use super::adoption::{FoundPort, bridge_of, gateway_mac, is_closable};
use super::desired::Desired;
use super::names;
use super::observe::Observed;
use super::plan::{Refusal, Sight, Subject};
use crate::workload::{Mac, Workload, WorkloadId};

/// How things stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// How the namespace helper ended; it should not have.
    pub helper_ended: Option<String>,
    /// What of the desired state cannot be done.
    pub refusals: Vec<Refusal>,
    /// What failed when it was tried last.
    pub errors: Vec<String>,
    /// Workloads whose namespace is gone: to be detached, and their leases freed.
    pub gone: BTreeSet<WorkloadId>,
    /// Host sides of the workloads.
    pub ports: Vec<Port>,
    /// VLAN sub-interfaces, and what else leads to other hosts of a network.
    pub segments: Vec<Segment>,
    /// Ports of adopted bridges that are no workloads; they pass nothing.
    pub found: Vec<FoundPort>,
    /// Why a new port of an adopted bridge is open until it is seen: what the kernel said to the table that would guard it.
    pub unguarded: Option<String>,
    /// Steps taken to put back what others had changed, since the start.
    pub repairs: u64,
}

/// The host side of a workload, at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    /// Whose.
    pub workload: WorkloadId,
    /// The link's index.
    pub ifindex: u32,
    /// What the workload sees as its gateway.
    pub bridge_mac: Mac,
}

/// A network's side towards other hosts, at present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The network.
    pub network: Name,
    /// Index of the link.
    pub ifindex: u32,
}

/// Indexes of the links that are ours, and what each is for.
pub(super) fn own(desired: &Desired, observed: &Observed) -> BTreeMap<u32, Subject> {
    let marked = |alias: &String| names::is_ours(alias);
    let marked = observed.links.iter().filter(|link| link.alias.as_ref().is_some_and(marked));
    let mut own: BTreeMap<u32, Subject> = marked.map(|link| (link.index, Subject::Leftover)).collect();
    let sight = Sight::of(observed);
    for network in desired.networks.keys() {
        for link in [names::bridge(network), names::vlan(network)].iter().filter_map(|name| sight.link(name)) {
            own.entry(link.index).and_modify(|subject| *subject = Subject::Network(network.clone()));
        }
    }
    for network in desired.networks.values() {
        if let Some(bridge) = bridge_of(network).and_then(|bridge| sight.link(bridge)) {
            own.insert(bridge.index, Subject::Network(network.name.clone()));
        }
    }
    for port in ports(desired, observed) {
        own.insert(port.ifindex, Subject::Workload(port.workload));
    }
    own
}

/// Host sides that are there.
pub(super) fn ports(desired: &Desired, observed: &Observed) -> Vec<Port> {
    let sight = Sight::of(observed);
    let port = |workload: &Workload| {
        let link = sight.link(&workload.host_interface)?;
        if workload.adopted {
            let sealed = observed.closed.get(&link.index)?.workload == Some(workload.id);
            let bridge_mac = gateway_mac(link, &observed.links)?;
            return sealed.then_some(Port { workload: workload.id, ifindex: link.index, bridge_mac });
        }
        let bridge_mac = names::link_mac(&desired.node.seed, &names::bridge(&workload.network));
        (link.alias == Some(names::workload_mark(workload))).then_some(Port {
            workload: workload.id,
            ifindex: link.index,
            bridge_mac,
        })
    };
    desired.workloads.values().filter_map(port).collect()
}

/// VLAN sub-interfaces that are there, and what leads from adopted bridges to other nodes.
pub(super) fn segments(desired: &Desired, observed: &Observed) -> Vec<Segment> {
    let adopted = desired.networks.values().filter_map(|network| {
        let bridge = observed.link(bridge_of(network)?)?.index;
        Some((network, bridge))
    });
    let beyond = adopted.flat_map(|(network, bridge)| {
        let ports = observed.links.iter().filter(move |link| link.master == Some(bridge) && !is_closable(link));
        ports.map(|port| Segment { network: network.name.clone(), ifindex: port.index })
    });
    let segment = |network: &config::resource::Network| {
        let link = network.vlan.as_ref().and_then(|_| observed.link(&names::vlan(&network.name)))?;
        Some(Segment { network: network.name.clone(), ifindex: link.index })
    };
    desired.networks.values().filter_map(segment).chain(beyond).collect()
}
