//! Who stands behind a device: its entry, its addresses and their handles, its exposed ports.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use policy::tables::PolicyId;

use super::layout as l;
use super::{InTable, TableError, Tables, next_stamp};
use crate::workload::{Address, Mac, WorkloadId, is_link_local};

/// All that the programs know of a workload. Written whole, in one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkloadEntry {
    /// Its number.
    pub id: WorkloadId,
    /// The number of its network, the same for all workloads of one.
    pub network: u32,
    /// Goes up with each change that may end flows: then every open flow is decided again at its next packet.
    pub epoch: u32,
    /// The generation of prefixes it is judged by.
    pub generation: u32,
    /// Its compiled policy for what it sends.
    pub egress_policy: PolicyId,
    /// Its compiled policy for what it receives.
    pub ingress_policy: PolicyId,
    /// Nothing passes, in either direction.
    pub sealed: bool,
    /// A router on the VLAN routes: RA and DHCP come from it, and the edge's address is answered for.
    pub external: bool,
    /// `workloadTraffic: Open`
    pub open: bool,
    /// The node may open connections to it.
    pub probes: bool,
    /// `onDeny: Reject`
    pub rejects: bool,
    /// Flows it may have open.
    pub flow_quota: u32,
    /// Its Ethernet address.
    pub mac: Mac,
    /// Whom it sees as sender of frames from the service namespace: the bridge.
    pub gateway_mac: Mac,
    /// Device of the bridge, if this node routes for its network: then its packets may skip the node's stack.
    pub bridge: Option<u32>,
    /// What it sends leaves the node by the uplink with the node's address.
    pub masqueraded: bool,
}

/// The addresses of a device.
#[derive(Clone, Copy, Debug)]
pub struct PortAddresses<'a> {
    /// The workload's host side.
    pub ifindex: u32,
    /// Its entry.
    pub entry: WorkloadEntry,
    /// The workload's own addresses and their handles.
    pub addresses: &'a [Address],
}

const SEALED: u32 = 1;
const EXTERNAL: u32 = 2;
const OPEN: u32 = 4;
const PROBES: u32 = 8;
const REJECTS: u32 = 16;
const MASQUERADED: u32 = 32;

impl Tables {
    /// Puts a workload's entry at a device, or another in its place. A device without entry passes nothing.
    pub fn switch(&self, ifindex: u32, entry: &WorkloadEntry) -> Result<(), TableError> {
        self.workloads.set(&ifindex, &to_kernel(entry)).in_table("workloads")
    }

    /// The same for many devices, one after the other.
    pub fn switch_all(&self, entries: &BTreeMap<u32, WorkloadEntry>) -> Result<(), TableError> {
        let entries: Vec<_> = entries.iter().map(|(ifindex, entry)| (*ifindex, to_kernel(entry))).collect();
        self.workloads.set_all(&entries).in_table("workloads")
    }

    /// The entry of a device.
    pub fn workload(&self, ifindex: u32) -> Result<Option<WorkloadEntry>, TableError> {
        Ok(self.workloads.get(&ifindex).in_table("workloads")?.map(from_kernel))
    }

    /// All entries, by device.
    pub fn workloads(&self) -> Result<BTreeMap<u32, WorkloadEntry>, TableError> {
        let all = self.workloads.dump().in_table("workloads")?;
        Ok(all.into_iter().map(|(ifindex, entry)| (ifindex, from_kernel(entry))).collect())
    }

    /// The addresses of each device, with their handles.
    pub fn addresses(&self) -> Result<BTreeMap<u32, Vec<Address>>, TableError> {
        let mut all: BTreeMap<u32, Vec<Address>> = BTreeMap::new();
        for (key, handle) in self.addresses.dump().in_table("addresses")? {
            let own = Address { address: l::ip(key.address), handle: l::ip(handle) };
            all.entry(key.ifindex).or_default().push(own);
        }
        Ok(all)
    }

    /// Removes a device's entry and its addresses: from then on nothing passes there. The workload's flows, and what it
    /// learned, stay for its other device.
    pub fn forget_device(&self, ifindex: u32) -> Result<(), TableError> {
        self.workloads.remove(&ifindex).in_table("workloads")?;
        self.addresses.become_exactly(&BTreeMap::new(), |key, _| key.ifindex == ifindex).in_table("addresses")?;
        self.routed.become_exactly(&BTreeMap::new(), |_, device| *device == ifindex).in_table("routed")?;
        self.handles.become_exactly(&BTreeMap::new(), |_, h| h.ifindex == ifindex).in_table("handles")
    }

    /// Makes these the addresses of their devices, with their handles, and no others: one walk through the tables,
    /// however many devices.
    pub fn set_addresses(&self, ports: &[PortAddresses<'_>]) -> Result<(), TableError> {
        let mut wanted = Owned::default();
        ports.iter().for_each(|port| wanted.add(port));
        let Owned { addresses, handles, routed } = wanted;
        let devices: BTreeSet<u32> = ports.iter().map(|port| port.ifindex).collect();
        let workloads: BTreeSet<u32> = ports.iter().map(|port| port.entry.id.0).collect();
        let on_them = |key: &l::PortAddress, _: &_| devices.contains(&key.ifindex);
        self.addresses.become_exactly(&addresses, on_them).in_table("addresses")?;
        self.routed.become_exactly(&routed, |_, device| devices.contains(device)).in_table("routed")?;
        let theirs = |_: &_, h: &l::Handle| devices.contains(&h.ifindex) || workloads.contains(&h.workload);
        self.handles.become_exactly(&handles, theirs).in_table("handles")?;
        self.ask_again()
    }

    /// The same for one device of which the tables have `former`, without a walk.
    pub fn move_addresses(
        &self,
        former: Option<PortAddresses<'_>>,
        port: &PortAddresses<'_>,
    ) -> Result<(), TableError> {
        let (mut before, mut wanted) = (Owned::default(), Owned::default());
        former.iter().for_each(|former| before.add(former));
        wanted.add(port);
        for (key, handle) in &wanted.addresses {
            self.addresses.set(key, handle).in_table("addresses")?;
        }
        for (address, device) in &wanted.routed {
            self.routed.set(address, device).in_table("routed")?;
        }
        for (key, handle) in &wanted.handles {
            self.handles.set(key, handle).in_table("handles")?;
        }
        for key in before.addresses.keys().filter(|key| !wanted.addresses.contains_key(*key)) {
            self.addresses.remove(key).in_table("addresses")?;
        }
        for address in before.routed.keys().filter(|address| !wanted.routed.contains_key(*address)) {
            self.routed.remove(address).in_table("routed")?;
        }
        for key in before.handles.keys().filter(|key| !wanted.handles.contains_key(*key)) {
            self.handles.remove(key).in_table("handles")?;
        }
        let stay = before.addresses.keys().all(|key| wanted.addresses.contains_key(key));
        if stay { Ok(()) } else { self.ask_again() }
    }

    /// Only the edge may connect to these ports of a workload that has no others: port and IP protocol.
    pub fn expose(&self, id: WorkloadId, ports: &BTreeSet<(u16, u8)>) -> Result<(), TableError> {
        for (port, protocol) in ports {
            let key = l::PortKey { workload: id.0, port: port.to_be_bytes(), protocol: *protocol, pad: 0 };
            self.exposed.set(&key, &1).in_table("exposed")?;
        }
        Ok(())
    }

    /// Makes these the ports that the edge may connect to, and nobody else: workload, port and IP protocol.
    pub fn set_exposed(&self, ports: &BTreeSet<(WorkloadId, u16, u8)>) -> Result<(), TableError> {
        let key = |&(workload, port, protocol): &(WorkloadId, u16, u8)| l::PortKey {
            workload: workload.0,
            port: port.to_be_bytes(),
            protocol,
            pad: 0,
        };
        let wanted = ports.iter().map(|port| (key(port), 1)).collect();
        self.exposed.become_exactly(&wanted, |_, _| true).in_table("exposed")
    }

    /// Whose handle it is: the workload and its address.
    pub fn handle(&self, handle: IpAddr) -> Result<Option<(WorkloadId, IpAddr)>, TableError> {
        let found = self.handles.get(&l::address(handle)).in_table("handles")?;
        Ok(found.map(|h| (WorkloadId(h.workload), l::ip(h.address))))
    }

    /// Removes all that is known of a workload, its entry first: from then on its device passes nothing.
    pub fn forget_workload(&self, id: WorkloadId) -> Result<(), TableError> {
        let number = id.0;
        let devices = self.workloads.dump().in_table("workloads")?;
        let devices: Vec<u32> =
            devices.into_iter().filter(|(_, w)| w.id == number).map(|(ifindex, _)| ifindex).collect();
        self.workloads.remove_all(&devices).in_table("workloads")?;
        let none = BTreeMap::new();
        self.addresses.become_exactly(&none, |key, _| devices.contains(&key.ifindex)).in_table("addresses")?;
        self.routed.become_exactly(&BTreeMap::new(), |_, device| devices.contains(device)).in_table("routed")?;
        self.handles.become_exactly(&BTreeMap::new(), |_, h| h.workload == number).in_table("handles")?;
        self.exposed.become_exactly(&BTreeMap::new(), |key, _| key.workload == number).in_table("exposed")?;
        self.learned.become_exactly(&BTreeMap::new(), |key, _| key.workload == number).in_table("learned")?;
        self.flows.become_exactly(&BTreeMap::new(), |key, _| key.workload == number).in_table("flows")?;
        let service = &self.service_flows;
        service.become_exactly(&BTreeMap::new(), |key, _| key.workload == number).in_table("service_flows")?;
        self.fragments.become_exactly(&BTreeMap::new(), |key, _| key.workload == number).in_table("fragments")?;
        self.budgets.remove(&number).in_table("budgets")?;
        self.usage.remove(&number).in_table("usage")?;
        Ok(())
    }
}

/// What the tables have of devices' addresses.
#[derive(Default)]
struct Owned {
    addresses: BTreeMap<l::PortAddress, l::Address>,
    handles: BTreeMap<l::Address, l::Handle>,
    routed: BTreeMap<l::Address, u32>,
}

impl Owned {
    fn add(&mut self, port: &PortAddresses<'_>) {
        let PortAddresses { ifindex, entry, addresses } = port;
        for a in *addresses {
            let key = l::PortAddress { ifindex: *ifindex, address: l::address(a.address) };
            let (workload, mac, gateway_mac) = (entry.id.0, entry.mac.0, entry.gateway_mac.0);
            let handle = l::Handle { ifindex: *ifindex, workload, address: key.address, mac, gateway_mac };
            self.addresses.insert(key, l::address(a.handle));
            self.handles.insert(l::address(a.handle), handle);
            if entry.bridge.is_some() && !is_link_local(a.address) {
                self.routed.insert(key.address, *ifindex);
            }
        }
    }
}

fn to_kernel(entry: &WorkloadEntry) -> l::Workload {
    let flag = |set: bool, bit: u32| if set { bit } else { 0 };
    let stamp = next_stamp();
    l::Workload {
        stamp,
        id: entry.id.0,
        network: entry.network,
        epoch: entry.epoch,
        generation: entry.generation,
        egress_policy: entry.egress_policy.0,
        ingress_policy: entry.ingress_policy.0,
        flags: flag(entry.sealed, SEALED)
            | flag(entry.external, EXTERNAL)
            | flag(entry.open, OPEN)
            | flag(entry.probes, PROBES)
            | flag(entry.rejects, REJECTS)
            | flag(entry.masqueraded, MASQUERADED),
        flow_quota: entry.flow_quota,
        mac: entry.mac.0,
        gateway_mac: entry.gateway_mac.0,
        bridge: entry.bridge.unwrap_or(0),
        stamp_again: stamp,
    }
}

fn from_kernel(entry: l::Workload) -> WorkloadEntry {
    WorkloadEntry {
        id: WorkloadId(entry.id),
        network: entry.network,
        epoch: entry.epoch,
        generation: entry.generation,
        egress_policy: PolicyId(entry.egress_policy),
        ingress_policy: PolicyId(entry.ingress_policy),
        sealed: entry.flags & SEALED != 0,
        external: entry.flags & EXTERNAL != 0,
        open: entry.flags & OPEN != 0,
        probes: entry.flags & PROBES != 0,
        masqueraded: entry.flags & MASQUERADED != 0,
        rejects: entry.flags & REJECTS != 0,
        flow_quota: entry.flow_quota,
        mac: Mac(entry.mac),
        gateway_mac: Mac(entry.gateway_mac),
        bridge: Some(entry.bridge).filter(|ifindex| *ifindex != 0),
    }
}
