//! One workload: its pair, the inside, the seal, its port.
//!
//! A host side that is up in its bridge was completed once, and only what can drift is compared. Anything else (not
//! there, half made by a process that died, taken out or set down by others) goes through the whole order again, every
//! step of which may be repeated: inside first, then the seal, then the bridge, and up last.
//!
//! Flooding at the port: no frame for an unknown address ever goes to a workload, nothing is learned from it, and its own
//! address is a sticky entry that nobody moves who sends from it elsewhere. Broadcast
//! and multicast (ARP, ND, router advertisements) go there only where somebody else than this node must find it: on
//! a segment with a VLAN, with an External router, or open between its workloads. This node needs neither: it has the
//! workload as permanent neighbour.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use config::resource::{Gateway, Network, WorkloadTraffic};
use ipnetwork::IpNetwork;

use super::network::{Bridge, mark_if_needed, no_ipv6, port};
use super::refusal::{Refusal, label};
use super::{Sight, is_ours, names};
use crate::segmentation::desired::{Desired, Shape};
use crate::segmentation::step::{Inside, Step};
use crate::sys::netlink::{Kind, PortFlags};
use crate::workload::{Workload, WorkloadId};

/// From where a workload sees the edge's connections on a network with an External router.
const EDGE_SOURCE: Ipv4Addr = Ipv4Addr::new(169, 254, 77, 1);

/// What is to be done for a workload.
pub(super) enum Found {
    /// These, or nothing.
    Steps(Vec<Step>),
    /// Its namespace is gone.
    Gone,
}

pub(super) fn steps(
    workload: &Workload,
    network: &Network,
    bridge: &Bridge,
    desired: &Desired,
    observed: &Sight<'_>,
) -> Result<Found, Refusal> {
    let link = &workload.host_interface;
    let mark = names::workload_mark(workload);
    let seed = &desired.node.seed;
    let found = observed.link(link);
    if found.is_none() && observed.gone.contains(&workload.id) {
        return Ok(Found::Gone);
    }
    if found.is_some_and(|found| found.kind != Kind::Veth || !is_ours(found, &mark, seed)) {
        return Err(Refusal::NameTaken { what: format!("workload {}", label(workload)), link: link.clone() });
    }
    let inside = inside(workload, network, bridge)?;
    let complete = found.is_some_and(|found| found.up && found.master.is_some() && found.master == bridge.index);
    let mut steps = Vec::new();
    if found.is_none() {
        let inside = Box::new(inside.clone());
        steps.push(Step::AddPair { link: link.clone(), mac: names::link_mac(seed, link), mtu: bridge.mtu, inside });
    }
    mark_if_needed(link, found, mark, &mut steps);
    no_ipv6(link, found, &mut steps);
    let resized = found.filter(|found| found.mtu != bridge.mtu);
    if let Some(found) = resized {
        steps.push(Step::SetMtu { link: link.clone(), to: bridge.mtu, was: found.mtu });
    }
    if !complete || resized.is_some() || bridge.is_renumbered {
        steps.push(Step::Configure { inside: Box::new(inside) });
    }
    if !complete {
        let workload = Box::new(workload.clone());
        steps.push(Step::Seal { link: link.clone(), workload, bridge_mac: bridge.mac });
    }
    port(link, bridge, found, port_flags(network), observed, &mut steps);
    forwarding(workload, found.map(|found| found.index), complete, observed, &mut steps);
    if !complete {
        steps.push(Step::SetUp { link: link.clone(), up: true });
    }
    neighbours(workload, network, bridge, observed, &mut steps);
    Ok(Found::Steps(steps))
}

/// Permanent neighbours of a bridge that are no workload's.
pub(super) fn stale_neighbours(
    bridge: &Bridge,
    desired: &Desired,
    observed: &Sight<'_>,
    gone: &BTreeSet<WorkloadId>,
) -> Vec<Step> {
    let Some(index) = bridge.index else { return Vec::new() };
    let known: BTreeSet<IpAddr> = desired
        .attached(&bridge.network)
        .filter(|workload| !gone.contains(&workload.id))
        .flat_map(|workload| workload.addresses.iter().map(|address| address.address))
        .collect();
    let stale = observed.neighbours.iter().filter(|n| n.index == index && !known.contains(&n.address));
    let delete = |n: &crate::sys::netlink::Neighbour| Step::DeleteNeighbour {
        link: bridge.link.clone(),
        address: n.address,
        mac: n.mac,
    };
    stale.map(delete).collect()
}

fn inside(workload: &Workload, network: &Network, bridge: &Bridge) -> Result<Inside, Refusal> {
    let external = network.gateway == Gateway::External;
    let (mut addresses, mut gateways): (Vec<IpNetwork>, Vec<IpAddr>) = (Vec::new(), Vec::new());
    for address in workload.addresses.iter().map(|address| address.address).filter(|a| !is_link_local(a)) {
        let subnet = network.subnets.iter().find(|subnet| subnet.cidr.contains(address));
        let (Some(subnet), Some(with_length)) = (subnet, network.with_subnet(address)) else {
            let network = network.name.clone();
            return Err(Refusal::AddressOutside { workload: label(workload), address, network });
        };
        addresses.push(with_length);
        if let Some(gateway) = subnet.gateway.filter(|g| !gateways.iter().any(|other| other.is_ipv4() == g.is_ipv4())) {
            gateways.push(gateway);
        }
    }
    let has_v4 = addresses.iter().any(|address| address.is_ipv4());
    let unrouted = has_v4 && !gateways.iter().any(|gateway| gateway.is_ipv4());
    Ok(Inside {
        workload: workload.id,
        netns: workload.netns.clone(),
        link: workload.guest_interface.clone(),
        mac: workload.mac,
        mtu: bridge.mtu,
        addresses,
        gateways,
        gateway_mac: (!external).then_some(bridge.mac),
        on_link: (external && unrouted).then_some(EDGE_SOURCE),
        router_advertisements: external,
    })
}

fn port_flags(network: &Network) -> PortFlags {
    let isolated = network.workload_traffic == WorkloadTraffic::Isolated;
    let found_by_others = network.vlan.is_some() || network.gateway == Gateway::External || !isolated;
    PortFlags {
        learning: false,
        unicast_flood: false,
        multicast_flood: found_by_others,
        broadcast_flood: found_by_others,
        isolated,
        hairpin: false,
    }
}

fn forwarding(workload: &Workload, index: Option<u32>, complete: bool, observed: &Sight<'_>, steps: &mut Vec<Step>) {
    let link = &workload.host_interface;
    let present = observed.forwarding_at(index);
    // Taking a link out of its bridge drops its entries.
    if !complete || !present.iter().any(|entry| entry.mac == workload.mac && entry.sticky) {
        steps.push(Step::AddForwarding { link: link.clone(), mac: workload.mac });
    }
    for entry in present.iter().filter(|entry| complete && entry.mac != workload.mac) {
        steps.push(Step::DeleteForwarding { link: link.clone(), mac: entry.mac });
    }
}

fn neighbours(workload: &Workload, network: &Network, bridge: &Bridge, observed: &Sight<'_>, steps: &mut Vec<Step>) {
    for address in workload.addresses.iter().map(|address| address.address) {
        if !network.routes(address.is_ipv4()) {
            continue;
        }
        if !bridge.index.is_some_and(|index| observed.has_neighbour(index, address, workload.mac)) {
            steps.push(Step::AddNeighbour { link: bridge.link.clone(), address, mac: workload.mac });
        }
    }
}

fn is_link_local(address: &IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}
