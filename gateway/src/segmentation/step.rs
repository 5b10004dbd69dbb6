//! One step towards what shall be, as plain values: printable, and (nearly all) with a step that takes it back.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;

use config::names::InterfaceName;
use config::resource::VlanProtocol;
use ipnetwork::IpNetwork;

use super::guard::Guard;
use super::ruleset::Ruleset;
use crate::sys::netlink::{PortFlags, VlanTag};
use crate::sys::sysctl::Sysctl;
use crate::workload::{Mac, Workload, WorkloadId};

/// One thing to do. Links are meant by name: some are made by an earlier step. `was` is what it takes to go back.
#[expect(missing_docs, reason = "each variant's line says what its fields are")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make a bridge, down.
    AddBridge { link: InterfaceName, mac: Mac, mtu: u32 },
    /// Make a VLAN sub-interface, down.
    AddVlan { link: InterfaceName, parent: InterfaceName, tag: VlanTag, mtu: u32 },
    /// Make a workload's pair, both ends down.
    AddPair { link: InterfaceName, mac: Mac, mtu: u32, inside: Box<Inside> },
    /// Mark a link as ours.
    Mark { link: InterfaceName, mark: String, was: Option<String> },
    /// Delete a link of ours.
    DeleteLink { link: InterfaceName, mark: Option<String> },
    /// Set a link's Ethernet address.
    SetMac { link: InterfaceName, to: Mac, was: Option<Mac> },
    /// Set a link's MTU.
    SetMtu { link: InterfaceName, to: u32, was: u32 },
    /// Turn a bridge's spanning tree and multicast snooping off.
    QuietenBridge { link: InterfaceName },
    /// Make a link a port of a bridge.
    SetMaster { link: InterfaceName, bridge: Option<InterfaceName>, was: Option<InterfaceName> },
    /// Set how a port behaves.
    SetPort { link: InterfaceName, to: PortFlags, was: Option<PortFlags> },
    /// Set a link up, or down.
    SetUp { link: InterfaceName, up: bool },
    /// Write a setting of the network stack.
    Write { key: Sysctl, to: i32, was: Option<i32> },
    /// Add an address.
    AddAddress { link: InterfaceName, address: IpNetwork },
    /// Take an address away.
    DeleteAddress { link: InterfaceName, address: IpNetwork },
    /// Add a network's own egress address, with our mark.
    AddOwnAddress { link: InterfaceName, address: IpAddr },
    /// Take it away.
    DeleteOwnAddress { link: InterfaceName, address: IpAddr },
    /// Put the route to an address's subnet back.
    AddRoute { link: InterfaceName, address: IpNetwork },
    /// Add a static forwarding entry.
    AddForwarding { link: InterfaceName, mac: Mac },
    /// Take a static forwarding entry away.
    DeleteForwarding { link: InterfaceName, mac: Mac },
    /// Add a permanent neighbour.
    AddNeighbour { link: InterfaceName, address: IpAddr, mac: Mac },
    /// Take a permanent neighbour away.
    DeleteNeighbour { link: InterfaceName, address: IpAddr, mac: Mac },
    /// Set a workload's interface up inside its namespace.
    Configure { inside: Box<Inside> },
    /// Close a workload's host side by the kernel programs, before it comes up.
    Seal { link: InterfaceName, workload: Box<Workload>, bridge_mac: Mac },
    /// Close an interface of others by the kernel programs: nothing passes until it is sealed for a workload.
    Close { link: InterfaceName },
    /// Take the kernel programs from an interface of others.
    Open { link: InterfaceName },
    /// Fill table `bridge tidegate`.
    PutGuard { to: Guard, was: Option<Guard> },
    /// Delete it.
    DeleteGuard { was: Option<Guard> },
    /// Fill table `inet tidegate`.
    PutTable { ruleset: Arc<Ruleset>, was: Option<Arc<Ruleset>> },
    /// Lets workloads in table `inet tidegate` come and go.
    ChangeTable { to: Arc<Ruleset>, was: Arc<Ruleset> },
    /// Delete it.
    DeleteTable { was: Option<Arc<Ruleset>> },
}

/// What a workload finds inside its namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inside {
    /// Whose.
    pub workload: WorkloadId,
    /// Where.
    pub netns: PathBuf,
    /// Its interface.
    pub link: InterfaceName,
    /// Its Ethernet address.
    pub mac: Mac,
    /// In bytes.
    pub mtu: u32,
    /// Without the link-local one, which comes from the MAC.
    pub addresses: Vec<IpNetwork>,
    /// At most one a family.
    pub gateways: Vec<IpAddr>,
    /// Theirs, where this node is the router: nobody has to ask for it, which on a bridge with many ports all would hear.
    pub gateway_mac: Option<Mac>,
    /// Reached without a router: the edge's address where nothing else leads to it.
    pub on_link: Option<Ipv4Addr>,
    /// Whether a router on the segment advertises itself.
    pub router_advertisements: bool,
}

impl Step {
    /// The link it is about, where it is about one.
    pub fn link(&self) -> Option<&InterfaceName> {
        match self {
            Self::AddBridge { link, .. }
            | Self::AddVlan { link, .. }
            | Self::AddPair { link, .. }
            | Self::Mark { link, .. }
            | Self::DeleteLink { link, .. }
            | Self::SetMac { link, .. }
            | Self::SetMtu { link, .. }
            | Self::QuietenBridge { link }
            | Self::SetMaster { link, .. }
            | Self::SetPort { link, .. }
            | Self::SetUp { link, .. }
            | Self::AddAddress { link, .. }
            | Self::DeleteAddress { link, .. }
            | Self::AddOwnAddress { link, .. }
            | Self::DeleteOwnAddress { link, .. }
            | Self::AddRoute { link, .. }
            | Self::AddForwarding { link, .. }
            | Self::DeleteForwarding { link, .. }
            | Self::AddNeighbour { link, .. }
            | Self::DeleteNeighbour { link, .. }
            | Self::Seal { link, .. }
            | Self::Close { link }
            | Self::Open { link } => Some(link),
            Self::Write { .. }
            | Self::Configure { .. }
            | Self::PutTable { .. }
            | Self::ChangeTable { .. }
            | Self::DeleteTable { .. }
            | Self::PutGuard { .. }
            | Self::DeleteGuard { .. } => None,
        }
    }

    /// The step that takes this one back, where that is possible and needed: what hangs on a new link goes with it.
    pub fn undo(&self) -> Option<Self> {
        Some(match self.clone() {
            Self::AddBridge { link, .. } | Self::AddVlan { link, .. } | Self::AddPair { link, .. } => {
                Self::DeleteLink { link, mark: None }
            }
            Self::Mark { link, mark, was } => Self::Mark { link, mark: was.unwrap_or_default(), was: Some(mark) },
            Self::SetMac { link, to, was } => Self::SetMac { link, to: was?, was: Some(to) },
            Self::SetMtu { link, to, was } => Self::SetMtu { link, to: was, was: to },
            Self::SetMaster { link, bridge, was } => Self::SetMaster { link, bridge: was, was: bridge },
            Self::SetPort { link, to, was } => Self::SetPort { link, to: was?, was: Some(to) },
            Self::SetUp { link, up } => Self::SetUp { link, up: !up },
            Self::Write { key, to, was } => Self::Write { key, to: was?, was: Some(to) },
            Self::AddAddress { link, address } => Self::DeleteAddress { link, address },
            Self::DeleteAddress { link, address } => Self::AddAddress { link, address },
            Self::AddOwnAddress { link, address } => Self::DeleteOwnAddress { link, address },
            Self::DeleteOwnAddress { link, address } => Self::AddOwnAddress { link, address },
            Self::AddForwarding { link, mac } => Self::DeleteForwarding { link, mac },
            Self::DeleteForwarding { link, mac } => Self::AddForwarding { link, mac },
            Self::AddNeighbour { link, address, mac } => Self::DeleteNeighbour { link, address, mac },
            Self::DeleteNeighbour { link, address, mac } => Self::AddNeighbour { link, address, mac },
            Self::PutTable { ruleset, was: Some(was) } => Self::PutTable { ruleset: was, was: Some(ruleset) },
            Self::PutTable { ruleset, was: None } => Self::DeleteTable { was: Some(ruleset) },
            Self::ChangeTable { to, was } => Self::ChangeTable { to: was, was: to },
            Self::DeleteTable { was } => Self::PutTable { ruleset: was?, was: None },
            Self::Close { link } => Self::Open { link },
            Self::Open { link } => Self::Close { link },
            Self::PutGuard { to, was: Some(was) } => Self::PutGuard { to: was, was: Some(to) },
            Self::PutGuard { to, was: None } => Self::DeleteGuard { was: Some(to) },
            Self::DeleteGuard { was } => Self::PutGuard { to: was?, was: None },
            Self::DeleteLink { .. }
            | Self::QuietenBridge { .. }
            | Self::AddRoute { .. }
            | Self::Configure { .. }
            | Self::Seal { .. } => return None,
        })
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddBridge { link, mac, mtu } => write!(f, "add bridge {link} mac {mac} mtu {mtu}"),
            Self::AddVlan { link, parent, tag, mtu } => {
                let protocol = match tag.protocol {
                    VlanProtocol::Dot1q => "802.1Q",
                    VlanProtocol::Dot1ad => "802.1ad",
                };
                write!(f, "add vlan {link} on {parent} id {} {protocol} mtu {mtu}", tag.id)
            }
            Self::AddPair { link, mac, mtu, inside } => {
                let Inside { netns, link: guest, mac: guest_mac, .. } = &**inside;
                write!(f, "add pair {link} mac {mac} mtu {mtu} to {guest} mac {guest_mac} in {}", netns.display())
            }
            Self::Mark { link, mark, .. } => write!(f, "mark {link} \"{mark}\""),
            Self::DeleteLink { link, .. } => write!(f, "delete link {link}"),
            Self::SetMac { link, to, .. } => write!(f, "set {link} mac {to}"),
            Self::SetMtu { link, to, was } => write!(f, "set {link} mtu {to} (was {was})"),
            Self::QuietenBridge { link } => write!(f, "set {link} stp off, multicast snooping off"),
            Self::SetMaster { link, bridge: Some(bridge), .. } => write!(f, "put {link} into {bridge}"),
            Self::SetMaster { link, bridge: None, .. } => write!(f, "take {link} out of its bridge"),
            Self::SetPort { link, to, .. } => {
                let on = |flag| if flag { "on" } else { "off" };
                write!(
                    f,
                    "set port {link} learning {}, flood unicast {} multicast {} broadcast {}, isolated {}",
                    on(to.learning),
                    on(to.unicast_flood),
                    on(to.multicast_flood),
                    on(to.broadcast_flood),
                    on(to.isolated)
                )
            }
            Self::SetUp { link, up } => write!(f, "set {link} {}", if *up { "up" } else { "down" }),
            Self::Write { key, to, was: Some(was) } => write!(f, "write {key} = {to} (was {was})"),
            Self::Write { key, to, was: None } => write!(f, "write {key} = {to}"),
            Self::AddAddress { link, address } => write!(f, "add {address} to {link}"),
            Self::DeleteAddress { link, address } => write!(f, "take {address} from {link}"),
            Self::AddOwnAddress { link, address } => write!(f, "add egress address {address} to {link}"),
            Self::DeleteOwnAddress { link, address } => write!(f, "take egress address {address} from {link}"),
            Self::AddRoute { link, address } => write!(f, "put the route of {address} back on {link}"),
            Self::AddForwarding { link, mac } => write!(f, "add forwarding entry {mac} to {link}"),
            Self::DeleteForwarding { link, mac } => write!(f, "take forwarding entry {mac} from {link}"),
            Self::AddNeighbour { link, address, mac } => write!(f, "add neighbour {address} {mac} to {link}"),
            Self::DeleteNeighbour { link, address, .. } => write!(f, "take neighbour {address} from {link}"),
            Self::Configure { inside } => write!(f, "{inside}"),
            Self::Seal { link, workload, .. } => write!(f, "seal {link} for {}/{}", workload.namespace, workload.name),
            Self::Close { link } => write!(f, "close {link}"),
            Self::Open { link } => write!(f, "open {link}"),
            Self::PutGuard { to, .. } => {
                let bridges: Vec<&str> = to.bridges.iter().map(InterfaceName::as_str).collect();
                write!(f, "put nft table bridge tidegate: {} ports of {}", to.ports.len(), bridges.join(", "))
            }
            Self::DeleteGuard { .. } => write!(f, "delete nft table bridge tidegate"),
            Self::PutTable { .. } => write!(f, "put nft table inet tidegate"),
            Self::ChangeTable { .. } => write!(f, "change elements of nft table inet tidegate"),
            Self::DeleteTable { .. } => write!(f, "delete nft table inet tidegate"),
        }
    }
}

impl fmt::Display for Inside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "set {} up in {}:", self.link, self.netns.display())?;
        let list = |f: &mut fmt::Formatter<'_>, before: &str, items: Vec<String>| match items.is_empty() {
            true => Ok(()),
            false => write!(f, " {before}{}", items.join(", ")),
        };
        list(f, "", self.addresses.iter().map(ToString::to_string).collect())?;
        list(f, "default via ", self.gateways.iter().map(ToString::to_string).collect())?;
        if let Some(mac) = self.gateway_mac.filter(|_| !self.gateways.is_empty()) {
            write!(f, " at {mac}")?;
        }
        list(f, "on link ", self.on_link.iter().map(ToString::to_string).collect())?;
        write!(f, " router advertisements {}", if self.router_advertisements { "on" } else { "off" })
    }
}
