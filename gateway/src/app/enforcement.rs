//! Policy in the kernel: one generation after the other.
//!
//! Owns one lock, around [`State`]: a change of policy and an answer of DNS ([`super::names`]) exclude each other, so that
//! no answer is learned for rules that are on their way out. It is held for table writes, never across an await.
//!
//! A change ([`Enforcement::install`]):
//! 1. the next generation is written beside the present one;
//! 2. names that workloads resolved get their classes under the new policies, and slots that serve both;
//! 3. each workload is switched by one write of its entry, with a new epoch: open flows are decided again;
//! 4. slots are chosen for the new policies alone, and the old generation goes.
//!
//! At no instant is a workload under a mixture: a write that fails before 3 leaves the old state in force.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use config::names::{DnsName, InterfaceName, Name};
use config::resource::{DnsVia, Gateway, Network, OnDeny, Snat};
use policy::ledger::{Changes, Ledger};
use policy::tables::{ClassId, NameId, PolicyId};
use policy::{Compiled, Node, Subject};

use super::desired::Desired;
use super::endpoints;
use super::numbers::Numbers;
use crate::egress::tables::names::LearnedSlot;
use crate::egress::tables::workloads::{PortAddresses, WorkloadEntry};
use crate::egress::tables::{TableError, Tables};
use crate::settings::Settings;
use crate::store::{Store, StoreError};
use crate::workload::{Mac, Workload, WorkloadId};

/// Why policies are not in force.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InstallError {
    /// A table.
    #[error(transparent)]
    Table(#[from] TableError),
    /// Numbers that were never used before are reserved there.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The door from desired state to the kernel's tables.
pub(crate) struct Enforcement {
    pub(super) tables: Tables,
    state: Mutex<State>,
    pub(super) repairs: AtomicU64,
    flow_quota: u32,
}

pub(super) struct State {
    pub(super) compiled: Compiled,
    pub(super) ledger: Ledger,
    /// By handle.
    pub(super) askers: HashMap<IpAddr, Asker>,
    /// The egress policy that each workload was switched to.
    policies: HashMap<WorkloadId, PolicyId>,
    pub(super) ports: BTreeMap<WorkloadId, Port>,
    /// What was installed last.
    pub(super) desired: Desired,
    pub(super) node: Node,
    pub(super) numbers: Numbers,
    /// The tables may have other policies and generations than the present ones: of an earlier daemon, or of a change
    /// that failed half way.
    pub(super) unknown_past: bool,
}

/// Who stands behind a handle.
#[derive(Clone, Debug)]
pub(super) struct Asker {
    pub(super) workload: WorkloadId,
    pub(super) policy: PolicyId,
    /// The tenant's own resolvers, with the device that leads to them; `None` asks the node's.
    pub(super) dns: Option<(Arc<[SocketAddr]>, Option<InterfaceName>)>,
}

/// A workload's host side, and whom the workload sees as its gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Port {
    pub(super) ifindex: u32,
    pub(super) bridge_mac: Mac,
}

impl Enforcement {
    /// Takes over what the tables hold.
    pub(crate) fn new(tables: Tables, ledger: Ledger, numbers: Numbers, settings: &Settings) -> Self {
        let (nothing, node) = (Desired::default(), Node { probes: settings.node.probes(), ..Node::default() });
        let compiled = no_policies(PolicyId(numbers.next.policy));
        let state = State {
            compiled,
            ledger,
            askers: HashMap::new(),
            policies: HashMap::new(),
            ports: BTreeMap::new(),
            desired: nothing,
            node,
            numbers,
            unknown_past: true,
        };
        Self {
            tables,
            state: Mutex::new(state),
            repairs: AtomicU64::new(0),
            flow_quota: settings.limits.flows_per_workload,
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A workload's number that was never used before.
    pub(crate) fn next_workload(&self, store: &Store) -> Result<WorkloadId, StoreError> {
        let numbers = &mut self.state().numbers;
        numbers.top_up(store, 0, 0)?;
        let id = WorkloadId(numbers.next.workload);
        numbers.next.workload += 1;
        Ok(id)
    }

    /// Puts the policies of this state in force for the workloads that have a port.
    pub(crate) fn install(&self, desired: &Desired, store: &Store) -> Result<(), InstallError> {
        let state = &mut *self.state();
        let subjects: BTreeSet<Subject> = desired.workloads.values().map(Workload::subject).collect();
        // Two policies for each subject at most, and a generation for each network and one more. A number past what is
        // reserved could come again after a crash.
        state.numbers.top_up(store, 2 * subjects.len(), 1 + desired.resources.networks().count())?;
        let next = &state.numbers.next;
        let mut compiled = policy::compile(&desired.model(&state.node), &subjects, next.tables, PolicyId(next.policy));
        state.numbers.next.tables = compiled.next_generation;
        state.numbers.next.policy = compiled.next_policy.0;
        // Until the end is reached, nobody knows what of two generations is in the tables.
        let unknown_past = std::mem::replace(&mut state.unknown_past, true);
        if let Err(error) = self.prepare(state, &mut compiled, desired) {
            self.retire(&compiled)?;
            state.unknown_past = unknown_past;
            return Err(error.into());
        }
        self.switch_all(&state.ports, desired, &compiled)?;
        let old = std::mem::replace(&mut state.compiled, compiled);
        state.askers = askers(desired, &state.compiled);
        state.policies = state.askers.values().map(|asker| (asker.workload, asker.policy)).collect();
        state.desired = desired.clone();
        for workload in desired.workloads.values() {
            self.reslot(state, workload, None)?;
        }
        if unknown_past {
            let generations = state.compiled.generation.tries().map(|(number, _)| number).collect();
            self.tables.retire_all_but(&generations, &policies(&state.compiled))?;
        } else {
            self.retire(&old)?;
        }
        state.unknown_past = false;
        Ok(())
    }

    /// Steps 1 and 2: everything that the switch will refer to.
    fn prepare(&self, state: &mut State, next: &mut Compiled, desired: &Desired) -> Result<(), TableError> {
        self.tables.write_generation(&next.generation)?;
        let names: Vec<_> = state.ledger.names().map(|(id, name)| (id, name.clone())).collect();
        for policy in next.policies.values().map(|policy| policy.egress).collect::<BTreeSet<_>>() {
            for (id, name) in &names {
                self.write_class(next, policy, *id, name)?;
            }
        }
        for workload in desired.workloads.values() {
            self.reslot(state, workload, Some(next))?;
        }
        self.tables.set_subnets(&subnets(desired))?;
        self.tables.set_masqueraded(&masqueraded(desired))?;
        let exposed = endpoints::exposed_ports(desired);
        self.tables.set_exposed(&exposed.into_iter().map(|(id, port)| (id, port, TCP)).collect())
    }

    /// Chooses the kernel's slots for this workload's names: one for each class under the present policy, or, on the
    /// way to `next`, for each pair of the present class and the next.
    fn reslot(&self, state: &mut State, workload: &Workload, next: Option<&mut Compiled>) -> Result<(), TableError> {
        let subject = workload.subject();
        let State { compiled, ledger, .. } = state;
        let mut new_rules = Vec::new();
        let mut class = |compiled: &mut Compiled, name: &DnsName| -> Option<ClassId> {
            let policy = compiled.policies.get(&subject)?.egress;
            let class = compiled.name_class(policy, name)?;
            new_rules.extend(class.new_rules);
            Some(class.class)
        };
        let Some(next) = next else {
            let changes = ledger.reslot(now(), workload.id.0, |name| class(compiled, name));
            self.tables.write_rules(&new_rules)?;
            return self.write(state, &changes);
        };
        let changes = ledger.reslot(now(), workload.id.0, |name| {
            let pair = (class(compiled, name), class(next, name));
            (pair != (None, None)).then_some(pair)
        });
        self.tables.write_rules(&new_rules)?;
        // The next policy must know these names before a packet meets them under it.
        if let Some(policy) = next.policies.get(&subject).map(|policy| policy.egress) {
            for id in changes.slots.iter().flat_map(|write| write.slots.iter().flatten()).map(|slot| slot.name) {
                if let Some(name) = state.ledger.name(id).cloned() {
                    self.write_class(next, policy, id, &name)?;
                }
            }
        }
        self.write(state, &changes)
    }

    /// Carries the ledger's changes to the kernel; what fails comes again with the next ones.
    pub(super) fn write(&self, state: &mut State, changes: &Changes) -> Result<(), TableError> {
        let written = self.try_write(state, changes);
        if written.is_err() {
            state.ledger.failed(changes);
        }
        written
    }

    /// Room first, then what a slot refers to, then the slot.
    fn try_write(&self, state: &mut State, changes: &Changes) -> Result<(), TableError> {
        for (workload, address) in &changes.removed {
            self.tables.learn(WorkloadId(*workload), *address, &[])?;
        }
        for (id, name) in &changes.names {
            self.tables.write_name(*id, name)?;
        }
        for write in &changes.slots {
            let workload = WorkloadId(write.workload);
            let policy = state.policies.get(&workload).copied();
            let mut slots = Vec::new();
            for slot in write.slots.iter().flatten() {
                if let Some((policy, name)) = policy.zip(state.ledger.name(slot.name).cloned()) {
                    self.write_class(&mut state.compiled, policy, slot.name, &name)?;
                }
                slots.push(LearnedSlot { name: slot.name, expires: Duration::from_nanos(slot.expires_ns) });
            }
            self.tables.learn(workload, write.address, &slots)?;
        }
        Ok(())
    }

    /// What a name is in a policy, with the rules of that class before it.
    fn write_class(
        &self,
        compiled: &mut Compiled,
        policy: PolicyId,
        id: NameId,
        name: &DnsName,
    ) -> Result<(), TableError> {
        let Some(class) = compiled.name_class(policy, name) else { return Ok(()) };
        let written = self.tables.write_rules(&class.new_rules);
        if written.is_err() {
            compiled.name_rules_lost(policy, class.class);
        }
        written?;
        self.tables.write_name_class(policy, id, Some(class.class))
    }

    /// Switches every workload that has a port. Addresses come after the entries: until they are there, everything that a
    /// workload sends counts as spoofed.
    pub(super) fn switch_all(
        &self,
        ports: &BTreeMap<WorkloadId, Port>,
        desired: &Desired,
        compiled: &Compiled,
    ) -> Result<(), TableError> {
        let mut switched = Vec::new();
        for workload in desired.workloads.values() {
            if let Some(port) = ports.get(&workload.id) {
                let entry = self.switch(workload, *port, desired, compiled)?;
                switched.push(PortAddresses { ifindex: port.ifindex, entry, addresses: &workload.addresses });
            }
        }
        self.tables.set_addresses(&switched)
    }

    /// Writes a workload's entry, with an epoch that no flow of it has. Sealed where its policies are not compiled.
    pub(super) fn switch(
        &self,
        workload: &Workload,
        port: Port,
        desired: &Desired,
        compiled: &Compiled,
    ) -> Result<WorkloadEntry, TableError> {
        let epoch = self.latest_epoch(workload.id, port.ifindex)?.wrapping_add(1);
        let network = desired.resources.network(&workload.network);
        let namespace = desired.resources.namespace(&workload.namespace);
        let policy = compiled.policies.get(&workload.subject());
        let entry = WorkloadEntry {
            id: workload.id,
            network: network_number(&workload.network),
            epoch,
            generation: policy.map_or(compiled.generation.number, |policy| policy.generation),
            egress_policy: policy.map_or(PolicyId(0), |policy| policy.egress),
            ingress_policy: policy.map_or(PolicyId(0), |policy| policy.ingress),
            sealed: policy.is_none(),
            external: network.is_some_and(|network| network.gateway == Gateway::External),
            open: policy.is_some_and(|policy| policy.open),
            probes: policy.is_some_and(|policy| policy.probes),
            rejects: namespace.is_some_and(|namespace| namespace.on_deny == OnDeny::Reject),
            flow_quota: self.flow_quota,
            mac: workload.mac,
            gateway_mac: port.bridge_mac,
            bridge: network.and_then(super::uplink::bridge_of),
            masqueraded: network.is_some_and(|network| network.snat == Snat::Masquerade),
        };
        self.tables.switch(port.ifindex, &entry)?;
        Ok(entry)
    }

    /// The highest epoch that flows of this workload can have: they outlive its host side, and so do their verdicts.
    fn latest_epoch(&self, workload: WorkloadId, ifindex: u32) -> Result<u32, TableError> {
        if let Some(entry) = self.tables.workload(ifindex)?.filter(|entry| entry.id == workload) {
            return Ok(entry.epoch);
        }
        Ok(self.tables.devices_of(workload)?.into_values().map(|entry| entry.epoch).max().unwrap_or(0))
    }

    /// A workload that is gone: nothing that it had is left in the tables.
    pub(crate) fn forget(&self, workload: &Workload) -> Result<(), TableError> {
        let state = &mut *self.state();
        state.ports.remove(&workload.id);
        state.askers.retain(|_, asker| asker.workload != workload.id);
        self.tables.forget_workload(workload.id)?;
        self.tables.end_mappings(&workload.addresses.iter().map(|own| own.address).collect())?;
        let changes = state.ledger.forget(workload.id.0);
        self.write(state, &changes)
    }

    /// All open flows are decided again at their next packet, by the present policies and what is known of the node now.
    pub(super) fn decide_again(&self, state: &State) -> Result<(), TableError> {
        self.switch_all(&state.ports, &state.desired, &state.compiled)
    }

    fn retire(&self, old: &Compiled) -> Result<(), TableError> {
        self.tables.retire(&old.generation, &policies(old))
    }
}

/// Under which every workload is sealed.
pub(super) fn no_policies(first: PolicyId) -> Compiled {
    policy::compile(&Desired::default().model(&Node::default()), &BTreeSet::new(), 0, first)
}

/// IP protocol number.
const TCP: u8 = 6;

/// CLOCK_BOOTTIME in nanoseconds, as the tables have it.
pub(crate) fn now() -> u64 {
    u64::try_from(crate::sys::bpf::boot_time().as_nanos()).unwrap_or(u64::MAX)
}

/// A network's number in the kernel: FNV-1a of its name, so that it is the same after a restart. Two names with one
/// number are refused when they are applied ([`super::manifests`]).
pub(crate) fn network_number(name: &Name) -> u32 {
    name.as_str().bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// Every policy of a generation, for both directions.
fn policies(compiled: &Compiled) -> BTreeSet<PolicyId> {
    compiled.policies.values().flat_map(|policy| [policy.egress, policy.ingress]).collect()
}

fn subnets(desired: &Desired) -> BTreeMap<u32, Vec<ipnetwork::IpNetwork>> {
    let network = |network: &Network| (network_number(&network.name), network.subnets.iter().map(|s| s.cidr).collect());
    desired.resources.networks().map(network).collect()
}

/// The subnets that are translated at the uplink, with the number of their network.
pub(super) fn masqueraded(desired: &Desired) -> BTreeMap<ipnetwork::IpNetwork, u32> {
    let networks = desired.resources.networks().filter(|network| network.snat == Snat::Masquerade);
    let subnets = |network: &Network| {
        let number = network_number(&network.name);
        network.subnets.iter().map(move |subnet| (subnet.cidr, number)).collect::<Vec<_>>()
    };
    networks.flat_map(subnets).collect()
}

fn askers(desired: &Desired, compiled: &Compiled) -> HashMap<IpAddr, Asker> {
    let mut askers = HashMap::new();
    for workload in desired.workloads.values() {
        let Some(policy) = compiled.policies.get(&workload.subject()) else { continue };
        let dns = desired.resources.network(&workload.network).and_then(own_dns);
        let asker = Asker { workload: workload.id, policy: policy.egress, dns };
        askers.extend(workload.addresses.iter().map(|address| (address.handle, asker.clone())));
    }
    askers
}

fn own_dns(network: &Network) -> Option<(Arc<[SocketAddr]>, Option<InterfaceName>)> {
    let dns = network.dns.as_ref()?;
    let upstreams = dns.upstreams.iter().map(|address| SocketAddr::new(*address, 53)).collect();
    let device = match dns.via {
        DnsVia::Node => None,
        DnsVia::Network => Some(crate::segmentation::names::bridge(&network.name)),
    };
    Some((upstreams, device))
}
