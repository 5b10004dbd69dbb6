//! What cannot be done, and what to do instead.

use config::names::{InterfaceName, Name, VlanId};
use config::resource::Network;
use ipnetwork::IpNetwork;

use crate::segmentation::desired::{Desired, Shape};
use crate::workload::Workload;

/// Why a network or workload has no steps.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The trunk is not there.
    #[error(
        "network {network}: its VLAN parent `{parent}` does not exist on this node; plug it in, or name another in spec.vlan.parent (see `ip link`)"
    )]
    ParentMissing {
        /// The network.
        network: Name,
        /// `spec.vlan.parent`
        parent: InterfaceName,
    },
    /// The bridge to be adopted is not there.
    #[error(
        "network {network}: there is no bridge `{bridge}` to adopt on this node; start what makes it (see `ip link show type bridge`), or name another in spec.adopt.bridge"
    )]
    BridgeMissing {
        /// The network.
        network: Name,
        /// `spec.adopt.bridge`
        bridge: InterfaceName,
    },
    /// What is to be adopted is no bridge.
    #[error("network {network}: `{link}` is no bridge; name one in spec.adopt.bridge (see `ip link show type bridge`)")]
    NoBridge {
        /// The network.
        network: Name,
        /// `spec.adopt.bridge`
        link: InterfaceName,
    },
    /// The kernel lacks VLANs.
    #[error(
        "network {network}: this kernel lacks 8021q (VLAN sub-interfaces); load it with `modprobe 8021q`, boot a kernel that has it, or leave spec.vlan out for a node-local network"
    )]
    NoVlans {
        /// The network.
        network: Name,
    },
    /// Another program has made that VLAN.
    #[error(
        "network {network}: VLAN {id} on {parent} is already taken by link `{link}`, which is not Tidegate's; delete it (`ip link delete {link}`) or use another VLAN id"
    )]
    VlanTaken {
        /// The network.
        network: Name,
        /// The trunk.
        parent: InterfaceName,
        /// The tag.
        id: VlanId,
        /// Who has it.
        link: InterfaceName,
    },
    /// The node itself is in that subnet.
    #[error(
        "network {network}: the node has {address} on `{link}`, so that it cannot route {subnet} for workloads as well; use another subnet, or write `gateway: External` if a router of that segment serves them"
    )]
    SubnetTaken {
        /// The network.
        network: Name,
        /// The subnet.
        subnet: IpNetwork,
        /// The node's link.
        link: InterfaceName,
        /// The node's address there.
        address: IpNetwork,
    },
    /// Another program's link has our name.
    #[error(
        "{what}: the link `{link}` exists and is not Tidegate's; rename it (`ip link set {link} name …`) or delete it"
    )]
    NameTaken {
        /// Network or workload.
        what: String,
        /// The name.
        link: InterfaceName,
    },
    /// Two networks would have the same bridge.
    #[error("network {network}: its bridge would be `{link}`, which network {other} has; rename one of the two")]
    SameBridge {
        /// The network.
        network: Name,
        /// The earlier one.
        other: Name,
        /// The name.
        link: InterfaceName,
    },
    /// The trunk cannot carry frames of that size.
    #[error(
        "network {network}: MTU {mtu} does not fit its VLAN parent {parent} with MTU {carries}; lower spec.mtu, or `ip link set {parent} mtu {mtu}`"
    )]
    MtuTooLarge {
        /// The network.
        network: Name,
        /// `spec.mtu`
        mtu: u32,
        /// The trunk.
        parent: InterfaceName,
        /// The trunk's MTU.
        carries: u32,
    },
    /// Workloads are attached to a network that is to go.
    #[error("network {network}: {} still attached; detach them first (`netctl detach NAME -n NAMESPACE`)", list(.workloads))]
    NetworkInUse {
        /// The network.
        network: Name,
        /// NAMESPACE/NAME
        workloads: Vec<String>,
    },
    /// A change that running workloads would not notice.
    #[error("network {network}: {what} cannot change while workloads are attached ({}); detach them, apply, and attach them again", list(.workloads))]
    ChangeInUse {
        /// The network.
        network: Name,
        /// The field.
        what: &'static str,
        /// NAMESPACE/NAME
        workloads: Vec<String>,
    },
    /// A network's own egress address is the node's already.
    #[error(
        "network {network}: {address}, with which it is to leave, is on {link} already and not Tidegate's; take it from there (`ip address del {address} dev {link}`), use another, or write `snat: Masquerade` to share the node's address"
    )]
    EgressAddressTaken {
        /// The network.
        network: Name,
        /// `spec.egress.snat`
        address: std::net::IpAddr,
        /// The node's link.
        link: InterfaceName,
    },
    /// There is nowhere to put a network's own egress address.
    #[error(
        "network {network}: there is no uplink to have {address} on; set `[node] uplink`, or add the node's default route"
    )]
    NoUplink {
        /// The network.
        network: Name,
        /// `spec.egress.snat`
        address: std::net::IpAddr,
    },
    /// A workload's address is in no subnet.
    #[error(
        "workload {workload}: its address {address} lies in no subnet of network {network}; put the subnet back, or detach the workload and attach it again"
    )]
    AddressOutside {
        /// NAMESPACE/NAME
        workload: String,
        /// The address.
        address: std::net::IpAddr,
        /// Its network.
        network: Name,
    },
}

impl Refusal {
    /// Whether it keeps a workload of that network, called `NAMESPACE/NAME`, from being attached.
    pub(crate) fn hinders(&self, its_network: &Name, its_label: &str) -> bool {
        match self {
            Self::ParentMissing { network, .. }
            | Self::BridgeMissing { network, .. }
            | Self::NoBridge { network, .. }
            | Self::NoVlans { network }
            | Self::VlanTaken { network, .. }
            | Self::SubnetTaken { network, .. }
            | Self::SameBridge { network, .. }
            | Self::MtuTooLarge { network, .. }
            | Self::NetworkInUse { network, .. }
            | Self::ChangeInUse { network, .. } => network == its_network,
            Self::EgressAddressTaken { .. } | Self::NoUplink { .. } => false,
            Self::NameTaken { what, .. } => {
                *what == format!("network {its_network}") || *what == format!("workload {its_label}")
            }
            Self::AddressOutside { workload, .. } => workload == its_label,
        }
    }
}

/// How a workload is called in messages.
pub(crate) fn label(workload: &Workload) -> String {
    format!("{}/{}", workload.namespace, workload.name)
}

/// Changes of networks that workloads inside their namespaces would have to follow, and cannot: their routes and
/// settings were written when they were attached.
pub fn forbidden_changes(old: &Desired, new: &Desired) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    for (name, before) in &old.networks {
        let workloads: Vec<&Workload> = new.attached(name).filter(|workload| !workload.is_found()).collect();
        let Some(after) = new.networks.get(name) else { continue };
        if workloads.is_empty() {
            continue;
        }
        let mut refuse = |what| {
            let workloads = workloads.iter().map(|workload| label(workload)).collect();
            refusals.push(Refusal::ChangeInUse { network: name.clone(), what, workloads });
        };
        if before.adopt != after.adopt {
            refuse("spec.adopt");
        }
        if before.gateway != after.gateway {
            refuse("spec.gateway");
        }
        if workloads.iter().any(|workload| gateways_seen(workload, before) != gateways_seen(workload, after)) {
            refuse("the gateway of a subnet");
        }
        if workloads.iter().any(|workload| subnets_seen(workload, before) != subnets_seen(workload, after)) {
            refuse("the prefix length of a subnet");
        }
    }
    refusals
}

fn gateways_seen(workload: &Workload, network: &Network) -> Vec<Option<std::net::IpAddr>> {
    let gateway = |address| network.subnets.iter().find(|subnet| subnet.cidr.contains(address))?.gateway;
    workload.addresses.iter().map(|address| gateway(address.address)).collect()
}

fn subnets_seen(workload: &Workload, network: &Network) -> Vec<Option<u8>> {
    let length = |address| network.with_subnet(address).map(|found| found.prefix());
    let inside = |address: &&crate::workload::Address| network.with_subnet(address.address).is_some();
    workload.addresses.iter().filter(inside).map(|address| length(address.address)).collect()
}

fn list(workloads: &[String]) -> String {
    const SHOWN: usize = 5;
    let shown = workloads.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    match workloads.len().checked_sub(SHOWN) {
        Some(more) if more > 0 => format!("workloads {shown} and {more} more"),
        _ if workloads.len() == 1 => format!("workload {shown}"),
        _ => format!("workloads {shown}"),
    }
}
