//! One network: its VLAN sub-interface, its bridge, and this node's addresses on it.
//!
//! The bridge of a network that is routed here has the gateways' addresses and answers ARP for no others
//! (`arp_ignore` 1). The bridge of a network with an External router has no address at all, answers nobody
//! (`arp_ignore` 8) and speaks no IPv6: else it would take addresses and routes from the tenant's router. So do the
//! links that are mere ports.

use std::collections::BTreeMap;

use config::names::{InterfaceName, Name};
use config::resource::{Gateway, Network};
use ipnetwork::IpNetwork;

use super::refusal::Refusal;
use super::{Sight, is_ours, names};
use crate::segmentation::desired::{Desired, Shape};
use crate::segmentation::step::Step;
use crate::sys::netlink::{Kind, Link, LinkSettings, PortFlags, VlanTag};
use crate::sys::sysctl::Sysctl;
use crate::workload::Mac;

/// A network's bridge, as the workloads' steps need it.
pub(super) struct Bridge {
    pub(super) network: Name,
    pub(super) link: InterfaceName,
    /// `None` if it is still to be made.
    pub(super) index: Option<u32>,
    pub(super) mac: Mac,
    /// It has another Ethernet address still.
    pub(super) is_renumbered: bool,
    pub(super) mtu: u32,
}

const DEFAULT_MTU: u32 = 1500;

/// The VLAN side of a bridge: whoever is out there is learned and heard.
const TRUNK_PORT: PortFlags = PortFlags {
    learning: true,
    unicast_flood: true,
    multicast_flood: true,
    broadcast_flood: true,
    isolated: false,
    hairpin: false,
};

type Found = Result<(Bridge, Vec<Step>), Refusal>;

/// Every network's steps, or why it has none.
pub(super) fn all(desired: &Desired, observed: &Sight<'_>) -> Vec<(Name, Found)> {
    let mut names_taken: BTreeMap<InterfaceName, Name> = BTreeMap::new();
    let mut found = Vec::new();
    for network in desired.networks.values().filter(|network| network.adopt.is_none()) {
        let link = names::bridge(&network.name);
        let result = match names_taken.get(&link) {
            Some(other) => Err(Refusal::SameBridge { network: network.name.clone(), other: other.clone(), link }),
            None => {
                names_taken.insert(link, network.name.clone());
                steps(network, &desired.node.seed, observed)
            }
        };
        found.push((network.name.clone(), result));
    }
    found
}

fn steps(network: &Network, seed: &str, observed: &Sight<'_>) -> Found {
    let mut steps = Vec::new();
    if network.gateway == Gateway::Node {
        leaves_the_node_alone(network, observed)?;
    }
    let mtu = mtu(network, observed)?;
    let bridge = bridge(network, seed, mtu, observed, &mut steps)?;
    if network.vlan.is_some() {
        vlan(network, &bridge, observed, &mut steps)?;
    } else if let Some(link) = observed.link(&names::vlan(&network.name)) {
        // The network had a VLAN before; as a leftover it would go last, and be heard until then.
        if link.alias.as_deref() == Some(&names::network_mark(&network.name)) && link.master.is_some() {
            steps.push(Step::SetMaster { link: link.name.clone(), bridge: None, was: Some(bridge.link.clone()) });
        }
    }
    Ok((bridge, steps))
}

/// A gateway address in a subnet that the node is in already would take its neighbours, or its own router, away from it.
fn leaves_the_node_alone(network: &Network, observed: &Sight<'_>) -> Result<(), Refusal> {
    for there in &observed.addresses {
        let Some(link) = observed.link_at(there.index) else { continue };
        if link.alias.as_deref().is_some_and(names::is_ours) || link.name == names::bridge(&network.name) {
            continue;
        }
        let overlaps = |own: IpNetwork| own.contains(there.address.ip()) || there.address.contains(own.network());
        if let Some(subnet) = network.subnets.iter().find(|subnet| overlaps(subnet.cidr)) {
            return Err(Refusal::SubnetTaken {
                network: network.name.clone(),
                subnet: subnet.cidr,
                link: link.name.clone(),
                address: there.address,
            });
        }
    }
    Ok(())
}

fn mtu(network: &Network, observed: &Sight<'_>) -> Result<u32, Refusal> {
    let wanted = network.mtu.map(u32::from);
    let Some(vlan) = &network.vlan else { return Ok(wanted.unwrap_or(DEFAULT_MTU)) };
    let name = || network.name.clone();
    if !observed.vlans {
        return Err(Refusal::NoVlans { network: name() });
    }
    let Some(parent) = observed.link(&vlan.parent) else {
        return Err(Refusal::ParentMissing { network: name(), parent: vlan.parent.clone() });
    };
    match wanted {
        Some(mtu) if mtu > parent.mtu => {
            Err(Refusal::MtuTooLarge { network: name(), mtu, parent: parent.name.clone(), carries: parent.mtu })
        }
        Some(mtu) => Ok(mtu),
        None => Ok(parent.mtu),
    }
}

fn bridge(
    network: &Network,
    seed: &str,
    mtu: u32,
    observed: &Sight<'_>,
    steps: &mut Vec<Step>,
) -> Result<Bridge, Refusal> {
    let link = names::bridge(&network.name);
    let mark = names::network_mark(&network.name);
    let mac = names::link_mac(seed, &link);
    let found = observed.link(&link);
    if let Some(found) = found {
        if !is_ours(found, &mark, seed) || !matches!(found.kind, Kind::Bridge { .. }) {
            return Err(Refusal::NameTaken { what: format!("network {}", network.name), link });
        }
    } else {
        steps.push(Step::AddBridge { link: link.clone(), mac, mtu });
    }
    mark_if_needed(&link, found, mark, steps);
    if let Some(found) = found {
        if found.kind != (Kind::Bridge { stp: false, snooping: false }) {
            steps.push(Step::QuietenBridge { link: link.clone() });
        }
        if found.mac != Some(mac) {
            steps.push(Step::SetMac { link: link.clone(), to: mac, was: found.mac });
        }
        if found.mtu != mtu {
            steps.push(Step::SetMtu { link: link.clone(), to: mtu, was: found.mtu });
        }
    }
    bridge_settings(network, &link, found.map(|found| found.settings), steps);
    if !found.is_some_and(|found| found.up) {
        steps.push(Step::SetUp { link: link.clone(), up: true });
    }
    bridge_addresses(network, &link, found, observed, steps);
    let is_renumbered = found.is_some_and(|found| found.mac != Some(mac));
    Ok(Bridge { network: network.name.clone(), link, index: found.map(|found| found.index), mac, is_renumbered, mtu })
}

fn bridge_settings(network: &Network, link: &InterfaceName, was: Option<LinkSettings>, steps: &mut Vec<Step>) {
    let fresh = was.is_none();
    let was = was.unwrap_or_default();
    let mut set = |key: Sysctl, to: i32, was: Option<i32>| {
        if fresh || was.is_some_and(|was| was != to) {
            steps.push(Step::Write { key, to, was });
        }
    };
    set(Sysctl::ipv4(link, "arp_ignore"), if network.is_routed_here() { 1 } else { 8 }, was.arp_ignore);
    if network.routes(false) {
        set(Sysctl::ipv6(link, "accept_ra"), 0, was.accept_ra);
        set(Sysctl::ipv6(link, "autoconf"), 0, was.autoconf);
        set(Sysctl::ipv6(link, "accept_dad"), 0, was.accept_dad);
        set(Sysctl::ipv6(link, "disable_ipv6"), 0, was.disable_ipv6);
    } else {
        set(Sysctl::ipv6(link, "disable_ipv6"), 1, was.disable_ipv6);
    }
}

fn bridge_addresses(
    network: &Network,
    link: &InterfaceName,
    found: Option<&Link>,
    observed: &Sight<'_>,
    steps: &mut Vec<Step>,
) {
    let wanted = network.bridge_addresses();
    let index = found.map(|found| found.index);
    let present: Vec<IpNetwork> =
        observed.addresses.iter().filter(|a| Some(a.index) == index).map(|a| a.address).collect();
    let routed = |address: &IpNetwork| {
        let of = |subnet: &IpNetwork| subnet.prefix() == address.prefix() && subnet.contains(address.ip());
        observed.routes.iter().any(|route| Some(route.index) == index && of(&route.subnet))
    };
    let alone = |address: &IpNetwork| address.prefix() == if address.is_ipv4() { 32 } else { 128 };
    for &address in &wanted {
        if !present.contains(&address) {
            steps.push(Step::AddAddress { link: link.clone(), address });
        } else if !alone(&address) && !routed(&address) {
            steps.push(Step::AddRoute { link: link.clone(), address });
        }
    }
    let link_local = |address: &IpNetwork| matches!(address, IpNetwork::V6(v6) if v6.ip().is_unicast_link_local());
    for address in present.into_iter().filter(|address| !wanted.contains(address)) {
        // With IPv6 switched off the kernel removes its own; with it on, the bridge has and needs one.
        if !link_local(&address) {
            steps.push(Step::DeleteAddress { link: link.clone(), address });
        }
    }
}

fn vlan(network: &Network, bridge: &Bridge, observed: &Sight<'_>, steps: &mut Vec<Step>) -> Result<(), Refusal> {
    let Some(vlan) = &network.vlan else { return Ok(()) };
    let Some(parent) = observed.link(&vlan.parent) else { return Ok(()) };
    let tag = VlanTag { id: vlan.id, protocol: vlan.protocol };
    let kind = Kind::Vlan { parent: parent.index, tag };
    let link = names::vlan(&network.name);
    let mark = names::network_mark(&network.name);
    let mut found = observed.link(&link);
    if found.is_some_and(|found| !matches!(found.kind, Kind::Vlan { .. }) || !is_ours_vlan(found, &mark)) {
        return Err(Refusal::NameTaken { what: format!("network {}", network.name), link });
    }
    let other = |l: &&Link| l.kind == kind && l.name != link && !l.alias.as_ref().is_some_and(|a| names::is_ours(a));
    if let Some(other) = observed.links.iter().find(other) {
        let (parent, other) = (parent.name.clone(), other.name.clone());
        return Err(Refusal::VlanTaken { network: network.name.clone(), parent, id: vlan.id, link: other });
    }
    if let Some(old) = found.filter(|found| found.kind != kind) {
        steps.push(Step::DeleteLink { link: link.clone(), mark: old.alias.clone() });
        found = None;
    }
    if !parent.up {
        steps.push(Step::SetUp { link: parent.name.clone(), up: true });
    }
    if found.is_none() {
        steps.push(Step::AddVlan { link: link.clone(), parent: parent.name.clone(), tag, mtu: bridge.mtu });
    }
    mark_if_needed(&link, found, mark, steps);
    if let Some(found) = found.filter(|found| found.mtu != bridge.mtu) {
        steps.push(Step::SetMtu { link: link.clone(), to: bridge.mtu, was: found.mtu });
    }
    no_ipv6(&link, found, steps);
    port(&link, bridge, found, TRUNK_PORT, observed, steps);
    if !found.is_some_and(|found| found.up) {
        steps.push(Step::SetUp { link, up: true });
    }
    Ok(())
}

/// As `is_ours`, for links whose Ethernet address is their parent's.
fn is_ours_vlan(link: &Link, mark: &str) -> bool {
    link.alias.as_deref().map_or(!link.up && link.master.is_none(), |alias| alias == mark)
}

pub(super) fn mark_if_needed(link: &InterfaceName, found: Option<&Link>, mark: String, steps: &mut Vec<Step>) {
    let was = found.and_then(|found| found.alias.clone());
    if was.as_ref() != Some(&mark) {
        steps.push(Step::Mark { link: link.clone(), mark, was });
    }
}

pub(super) fn no_ipv6(link: &InterfaceName, found: Option<&Link>, steps: &mut Vec<Step>) {
    let was = found.and_then(|found| found.settings.disable_ipv6);
    if found.is_none() || was == Some(0) {
        steps.push(Step::Write { key: Sysctl::ipv6(link, "disable_ipv6"), to: 1, was });
    }
}

pub(super) fn port(
    link: &InterfaceName,
    bridge: &Bridge,
    found: Option<&Link>,
    flags: PortFlags,
    observed: &Sight<'_>,
    steps: &mut Vec<Step>,
) {
    let master = found.and_then(|found| found.master);
    let in_place = bridge.index.is_some() && master == bridge.index;
    if !in_place {
        let was = master.and_then(|index| observed.link_at(index)).map(|link| link.name.clone());
        steps.push(Step::SetMaster { link: link.clone(), bridge: Some(bridge.link.clone()), was });
    }
    let was = found.and_then(|found| found.port).filter(|_| in_place);
    if was != Some(flags) {
        steps.push(Step::SetPort { link: link.clone(), to: flags, was });
    }
}
