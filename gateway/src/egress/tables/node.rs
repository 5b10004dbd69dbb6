//! The node around the workloads: its own addresses, the networks' segments, the way into the service namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::layout as l;
use super::steps::prefix;
use super::{InTable, TableError, Tables};
use crate::workload::Mac;

/// Where the edge listens on the node: an ordinary destination for workloads, if their policy allows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listener {
    /// `None` is every address of the node.
    pub address: Option<IpAddr>,
    /// Port.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
}

impl Tables {
    /// The addresses of the node, gateway and link-local ones included: closed to workloads, apart from listeners.
    /// Flows that are open to a new one end when their workload's epoch goes up.
    pub fn set_node_addresses(&self, addresses: &BTreeSet<IpAddr>) -> Result<(), TableError> {
        let wanted = addresses.iter().map(|a| (l::address(*a), 1)).collect();
        self.node_addresses.become_exactly(&wanted, |_, _| true).in_table("node_addresses")?;
        self.ask_again()
    }

    /// The edge's listeners on the node. Flows to a former one end when their workload's epoch goes up.
    pub fn set_node_listeners(&self, listeners: &BTreeSet<Listener>) -> Result<(), TableError> {
        let key = |listener: &Listener| l::ListenerKey {
            address: listener.address.filter(|a| !a.is_unspecified()).map_or([0; 16], l::address),
            port: listener.port.to_be_bytes(),
            protocol: listener.protocol,
            pad: 0,
        };
        let wanted = listeners.iter().map(|listener| (key(listener), 1)).collect();
        self.node_listeners.become_exactly(&wanted, |_, _| true).in_table("node_listeners")
    }

    /// Which devices lead to the segment of a network (its VLAN sub-interface): ifindex to network number.
    pub fn set_segments(&self, segments: &BTreeMap<u32, u32>) -> Result<(), TableError> {
        let key = |(ifindex, network): (&u32, &u32)| l::SegmentKey { ifindex: *ifindex, network: *network };
        let wanted = segments.iter().map(|segment| (key(segment), 1)).collect();
        self.segments.become_exactly(&wanted, |_, _| true).in_table("segments")
    }

    /// The subnets of each network. Who comes by a segment from such an address is of the same network, and ND to such
    /// an address stays on the link; a network without any has neither.
    pub fn set_subnets(&self, subnets: &BTreeMap<u32, Vec<IpNetwork>>) -> Result<(), TableError> {
        let key = |network: u32, subnet: &IpNetwork| {
            let (prefix_length, address) = prefix(subnet);
            l::SubnetKey { prefix_length, network, address }
        };
        let wanted = subnets.iter().flat_map(|(network, all)| all.iter().map(|subnet| (key(*network, subnet), 1)));
        self.subnets.become_exactly(&wanted.collect(), |_, _| true).in_table("subnets")
    }

    /// Where DNS and the edge's replies are sent. Until this is set, they are dropped.
    pub fn set_service(&self, tg0_ifindex: u32, tg1_mac: Mac) -> Result<(), TableError> {
        let mut settings = self.read_settings()?;
        settings.tg0_ifindex = tg0_ifindex;
        settings.tg1_mac = tg1_mac.0;
        self.settings.set(&0, &settings).in_table("settings")
    }

    /// The node's end of the veth into the service namespace, as last set.
    pub fn tg0_ifindex(&self) -> Option<u32> {
        self.read_settings().ok().map(|s| s.tg0_ifindex).filter(|ifindex| *ifindex != 0)
    }
}
