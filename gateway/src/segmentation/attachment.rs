//! What a new workload is to be, worked out before anything is touched: pure, but for what the caller says is taken.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;

use config::api::Attachment;
use config::names::{InterfaceName, Name};
use config::resource::{Labels, NamedPort, Network};
use ipnetwork::{Ipv4Network, Ipv6Network};

use super::ipam::{self, Cursor, IpamError};
use super::names;
use crate::workload::{Mac, Workload, WorkloadId};

/// Who is to be attached, and where.
#[derive(Clone, Debug)]
pub struct Request {
    /// Never used before.
    pub id: WorkloadId,
    /// Its namespace.
    pub namespace: Name,
    /// Its name.
    pub name: Name,
    /// Its labels.
    pub labels: Labels,
    /// What it calls its ports.
    pub ports: BTreeSet<NamedPort>,
    /// Where its network namespace is held open.
    pub netns: PathBuf,
    /// How its interface is to be called inside; `None` is `eth0`.
    pub guest_interface: Option<InterfaceName>,
    /// Addresses that it is to have, at most one of each family.
    pub wanted: Vec<IpAddr>,
    /// Addresses that one of its name had, and that wait for it.
    pub former: Vec<IpAddr>,
    /// The Ethernet address that it is to have.
    pub mac: Option<Mac>,
    /// What a container engine knows it by.
    pub cni: Option<Attachment>,
}

/// Who is behind an interface that others made.
#[derive(Clone, Debug)]
pub struct Adopted {
    /// Its namespace.
    pub namespace: Name,
    /// Its name.
    pub name: Name,
    /// Its labels.
    pub labels: Labels,
    /// What it calls its ports.
    pub ports: BTreeSet<NamedPort>,
    /// The network that adopts it.
    pub network: Name,
    /// Where its network namespace is held open; empty where nobody said.
    pub netns: PathBuf,
    /// Its side of the node.
    pub host_interface: InterfaceName,
    /// Its side inside.
    pub guest_interface: InterfaceName,
    /// Its Ethernet address.
    pub mac: Mac,
    /// All addresses that it may use, link-local ones included.
    pub addresses: Vec<IpAddr>,
    /// What a container engine knows it by.
    pub cni: Option<Attachment>,
}

impl Adopted {
    /// Whether it is this workload.
    pub fn is(&self, there: &Workload) -> bool {
        there.adopted
            && (&there.namespace, &there.name, &there.network) == (&self.namespace, &self.name, &self.network)
            && (&there.labels, &there.ports, &there.cni) == (&self.labels, &self.ports, &self.cni)
            && (&there.host_interface, there.mac) == (&self.host_interface, self.mac)
            && there.addresses.len() == self.addresses.len()
            && there.addresses.iter().all(|own| self.addresses.contains(&own.address))
    }
}

/// Gives it handles.
pub fn adopt<'a>(
    id: WorkloadId,
    adopted: Adopted,
    others: impl Iterator<Item = &'a Workload>,
    handles: (Ipv4Network, Ipv6Network),
    cursor: &mut Cursor,
) -> Result<Workload, IpamError> {
    let used: BTreeSet<IpAddr> = others.flat_map(|other| &other.addresses).map(|own| own.handle).collect();
    let addresses = ipam::allocate_handles(&adopted.addresses, handles, &used, cursor)?;
    Ok(Workload {
        id,
        namespace: adopted.namespace,
        name: adopted.name,
        labels: adopted.labels,
        ports: adopted.ports,
        network: adopted.network,
        netns: adopted.netns,
        host_interface: adopted.host_interface,
        guest_interface: adopted.guest_interface,
        mac: adopted.mac,
        addresses,
        cni: adopted.cni,
        adopted: true,
        left: None,
    })
}

/// Works out MAC, addresses (the link-local one last) and handles. `others` are all workloads of the node.
pub fn prepare<'a>(
    request: Request,
    network: &Network,
    others: impl Iterator<Item = &'a Workload>,
    seed: &str,
    handles: (Ipv4Network, Ipv6Network),
    cursor: &mut Cursor,
) -> Result<Workload, IpamError> {
    // A set of all at once takes a fraction of what it takes one by one.
    let others: Vec<&Workload> = others.collect();
    let macs: BTreeSet<Mac> = others.iter().map(|other| other.mac).collect();
    let used: BTreeSet<IpAddr> = others.iter().flat_map(|other| &other.addresses).map(|own| own.handle).collect();
    let neighbours = others.iter().filter(|other| other.network == network.name);
    let addresses: BTreeSet<IpAddr> = neighbours.flat_map(|other| &other.addresses).map(|own| own.address).collect();
    let mut moved = cursor.clone();
    let claim = ipam::Claim {
        namespace: &request.namespace,
        labels: &request.labels,
        wanted: &request.wanted,
        former: &request.former,
    };
    let given = ipam::allocate(network, &addresses, claim, &mut moved)?;
    let mac = match request.mac {
        Some(mac) if macs.contains(&mac) => return Err(IpamError::MacTaken(mac)),
        Some(mac) => mac,
        None => free_mac(seed, request.id, &macs),
    };
    let mut workload = Workload {
        id: request.id,
        namespace: request.namespace,
        name: request.name,
        labels: request.labels,
        ports: request.ports,
        network: network.name.clone(),
        netns: request.netns,
        host_interface: names::host(request.id),
        guest_interface: request.guest_interface.unwrap_or_else(|| "eth0".parse().expect("a literal name")),
        mac,
        addresses: Vec::new(),
        cni: request.cni,
        adopted: false,
        left: None,
    };
    let all: Vec<IpAddr> = given.into_iter().chain([IpAddr::V6(workload.link_local())]).collect();
    workload.addresses = ipam::allocate_handles(&all, handles, &used, &mut moved)?;
    *cursor = moved;
    Ok(workload)
}

fn free_mac(seed: &str, id: WorkloadId, taken: &BTreeSet<Mac>) -> Mac {
    let mut attempt = 0;
    loop {
        let mac = names::workload_mac(seed, id, attempt);
        if !taken.contains(&mac) {
            return mac;
        }
        attempt += 1;
    }
}
