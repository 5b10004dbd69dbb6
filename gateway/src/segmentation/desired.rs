//! What shall be: the networks and workloads of this node, as plain values.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use config::names::Name;
use config::resource::{Gateway, Network};
use ipnetwork::IpNetwork;

use crate::workload::{Workload, WorkloadId};

/// Everything that segmentation brings about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// By name.
    pub networks: BTreeMap<Name, Network>,
    /// By number; a workload's network must be among `networks`.
    pub workloads: BTreeMap<WorkloadId, Workload>,
    /// The node itself.
    pub node: Node,
}

/// What of the node's settings matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Keeps the Ethernet addresses of two nodes apart, see [`super::names`].
    pub seed: String,
    /// Where the edge listens: tenants may reach the node there, and nowhere else.
    pub edge: Vec<SocketAddr>,
    /// Index of the device where others translate what masqueraded networks send: the table leaves it alone there. A name
    /// could go to another device before anybody hears of it.
    pub nat: Option<u32>,
    /// Index of the device towards the world, where networks' own egress addresses stand; `None` while there is none.
    pub uplink: Option<u32>,
}

impl Desired {
    /// The workloads of a network.
    pub fn attached<'a>(&'a self, network: &'a Name) -> impl Iterator<Item = &'a Workload> {
        self.workloads.values().filter(move |workload| workload.network == *network)
    }
}

/// What a network's shape asks of its links.
pub(super) trait Shape {
    /// Whether this node routes for it.
    fn is_routed_here(&self) -> bool;
    /// Whether this node routes that family for it.
    fn routes(&self, ipv4: bool) -> bool;
    /// This node's addresses on the bridge: the gateways of a network that is routed here.
    fn bridge_addresses(&self) -> Vec<IpNetwork>;
    /// An address of a workload with the length of its subnet; `None` if it lies in none.
    fn with_subnet(&self, address: std::net::IpAddr) -> Option<IpNetwork>;
}

impl Shape for Network {
    fn is_routed_here(&self) -> bool {
        self.gateway == Gateway::Node
    }

    fn routes(&self, ipv4: bool) -> bool {
        self.is_routed_here() && self.subnets.iter().any(|subnet| subnet.cidr.is_ipv4() == ipv4)
    }

    fn bridge_addresses(&self) -> Vec<IpNetwork> {
        if !self.is_routed_here() {
            return Vec::new();
        }
        let gateway = |subnet: &config::resource::Subnet| IpNetwork::new(subnet.gateway?, subnet.cidr.prefix()).ok();
        self.subnets.iter().filter_map(gateway).collect()
    }

    fn with_subnet(&self, address: std::net::IpAddr) -> Option<IpNetwork> {
        let subnet = self.subnets.iter().find(|subnet| subnet.cidr.contains(address))?;
        IpNetwork::new(address, subnet.cidr.prefix()).ok()
    }
}
