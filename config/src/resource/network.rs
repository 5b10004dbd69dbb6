//! `kind: Network`: a tenant's layer-2 segment, its subnets, who routes and who resolves.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipnetwork::IpNetwork;

use super::labels::{Labels, Selector, selects};
use crate::names::{InterfaceName, Name, VlanId};
use crate::upstream::Upstream;

/// `kind: Network`: a tenant's layer-2 segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Its name; networks are node-wide.
    pub name: Name,
    /// `spec.adopt`; `None` is a segment that the daemon makes.
    pub adopt: Option<Adopt>,
    /// `spec.vlan`; `None` is a node-local segment.
    pub vlan: Option<Vlan>,
    /// `spec.subnets`, at least one, at most one gateway each; none where `adopt` is.
    pub subnets: Vec<Subnet>,
    /// Who routes.
    pub gateway: Gateway,
    /// `spec.egress.snat`
    pub snat: Snat,
    /// `spec.workloadTraffic`
    pub workload_traffic: WorkloadTraffic,
    /// `spec.dns`; `None` is the node's.
    pub dns: Option<NetworkDns>,
    /// `spec.reservations`
    pub reservations: Vec<Reservation>,
    /// `spec.leases.hold`: how long the addresses of a workload that is gone wait for one of the same namespace and name; `None`
    /// is not at all.
    pub hold: Option<Duration>,
    /// `spec.mtu` in bytes, 1280–65535; `None` takes the parent's (1500 without one).
    pub mtu: Option<u16>,
}

/// `spec.adopt`: whose interfaces become workloads, though others made them and route for them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Adopt {
    /// `bridge`: every port of it that leads into a network namespace.
    Bridge(InterfaceName),
    /// `cniNetwork`: containers of the CNI network of this name, where `tidegate-cni` is chained behind the plugin that made
    /// their interface.
    CniNetwork(String),
}

/// `spec.vlan`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vlan {
    /// The trunk.
    pub parent: InterfaceName,
    /// The tag.
    pub id: VlanId,
    /// Its EtherType.
    pub protocol: VlanProtocol,
}

/// The tag's EtherType.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum VlanProtocol {
    /// 0x8100
    Dot1q,
    /// 0x88a8
    Dot1ad,
}

/// One of `spec.subnets`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// Network address and prefix length; host bits are zero.
    pub cidr: IpNetwork,
    /// Inside `cidr`, of its family.
    pub gateway: Option<IpAddr>,
    /// First and last address to hand out; default: all but network, broadcast and gateway.
    pub range: Option<(IpAddr, IpAddr)>,
    /// First and last addresses of what no workload may have: others of the segment do.
    pub exclude: Vec<(IpAddr, IpAddr)>,
}

/// One of `spec.reservations`: addresses for certain workloads, which have no others of that family, and nobody else these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// Whose labels match.
    pub selector: Selector,
    /// In this namespace only; `None` is every one on the network.
    pub namespace: Option<Name>,
    /// First and last addresses, inside the subnets.
    pub addresses: Vec<(IpAddr, IpAddr)>,
}

impl Reservation {
    /// Whether a workload has these addresses.
    pub fn is_for(&self, namespace: &Name, labels: &Labels) -> bool {
        self.namespace.as_ref().is_none_or(|own| own == namespace) && selects(&self.selector, labels)
    }
}

/// `spec.gateway`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gateway {
    /// This node routes for the network.
    Node,
    /// A router on the VLAN does.
    External,
}

/// `spec.egress.snat`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Snat {
    /// To the node's address.
    Masquerade,
    /// To addresses that are this network's alone; the node has them on its uplink.
    Own(OwnAddresses),
    /// Addresses stay.
    None,
}

impl Snat {
    /// The network's own addresses; none unless it has some.
    pub fn own(self) -> impl Iterator<Item = IpAddr> {
        let own = match self {
            Self::Own(own) => own,
            Self::Masquerade | Self::None => OwnAddresses::default(),
        };
        own.ipv4.map(IpAddr::from).into_iter().chain(own.ipv6.map(IpAddr::from))
    }

    /// Whether what leaves has another source than the workload's.
    pub fn translates(self) -> bool {
        match self {
            Self::Masquerade | Self::Own(_) => true,
            Self::None => false,
        }
    }
}

/// `spec.egress.snat` as addresses: one for each family that the network has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnAddresses {
    /// Of IPv4.
    pub ipv4: Option<Ipv4Addr>,
    /// Of IPv6.
    pub ipv6: Option<Ipv6Addr>,
}

/// `spec.workloadTraffic`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkloadTraffic {
    /// Workloads of the network may open connections to each other (as far as their egress policies let them).
    Open,
    /// They may not.
    Isolated,
}

/// `spec.dns`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkDns {
    /// Its servers.
    pub upstreams: Vec<Upstream>,
    /// The way to them.
    pub via: DnsVia,
}

/// `spec.dns.via`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DnsVia {
    /// By the node's own routes.
    Node,
    /// Through the tenant's segment.
    Network,
}
