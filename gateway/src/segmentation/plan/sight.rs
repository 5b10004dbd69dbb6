//! One look at the node, indexed: a plan of many workloads asks for each link, port and neighbour.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::ops::Deref;

use config::names::InterfaceName;

use crate::segmentation::observe::Observed;
use crate::sys::netlink::{ForwardingEntry, Link};
use crate::workload::Mac;

/// What is, found by name and number.
pub(in crate::segmentation) struct Sight<'a> {
    observed: &'a Observed,
    names: HashMap<&'a InterfaceName, &'a Link>,
    numbers: HashMap<u32, &'a Link>,
    neighbours: HashSet<(u32, IpAddr, Mac)>,
    forwarding: HashMap<u32, Vec<ForwardingEntry>>,
}

impl<'a> Sight<'a> {
    pub(in crate::segmentation) fn of(observed: &'a Observed) -> Self {
        let mut forwarding: HashMap<u32, Vec<ForwardingEntry>> = HashMap::new();
        for entry in &observed.forwarding {
            forwarding.entry(entry.port).or_default().push(*entry);
        }
        Self {
            observed,
            names: observed.links.iter().map(|link| (&link.name, link)).collect(),
            numbers: observed.links.iter().map(|link| (link.index, link)).collect(),
            neighbours: observed.neighbours.iter().map(|it| (it.index, it.address, it.mac)).collect(),
            forwarding,
        }
    }

    /// The link of that name.
    pub(in crate::segmentation) fn link(&self, name: &InterfaceName) -> Option<&'a Link> {
        self.names.get(name).copied()
    }

    /// The link of that index.
    pub(super) fn link_at(&self, index: u32) -> Option<&'a Link> {
        self.numbers.get(&index).copied()
    }

    /// Whether there is this permanent neighbour.
    pub(super) fn has_neighbour(&self, index: u32, address: IpAddr, mac: Mac) -> bool {
        self.neighbours.contains(&(index, address, mac))
    }

    /// Static forwarding entries of a port.
    pub(super) fn forwarding_at(&self, port: Option<u32>) -> &[ForwardingEntry] {
        port.and_then(|port| self.forwarding.get(&port)).map_or(&[], Vec::as_slice)
    }
}

impl Deref for Sight<'_> {
    type Target = Observed;
    fn deref(&self) -> &Observed {
        self.observed
    }
}
