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
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use config::names::{DnsName, InterfaceName};
use config::resource::{DnsVia, Gateway, Network, WorkloadTraffic};
use policy::ledger::{Changes, Ledger};
use policy::tables::{ClassId, PolicyId};
use policy::{Compiled, Node, Subject};

use super::desired::Desired;
use super::endpoints;
use crate::egress::tables::{Tables, TablesError, WorkloadEntry, WorkloadFlags};
use crate::store::Counters;
use crate::sys::clock;
use crate::workload::{Mac, Workload, WorkloadId};

/// The door from desired state to the kernel's tables.
pub(crate) struct Enforcement {
    pub(super) tables: Arc<Tables>,
    state: Mutex<State>,
    flow_quota: u32,
}

pub(super) struct State {
    pub(super) compiled: Compiled,
    pub(super) ledger: Ledger,
    /// By handle.
    pub(super) askers: HashMap<IpAddr, Asker>,
    node: Node,
    /// The first numbers that were never used.
    next: Counters,
}

/// Who stands behind a handle.
#[derive(Clone, Debug)]
pub(super) struct Asker {
    pub(super) workload: WorkloadId,
    pub(super) policy: PolicyId,
    /// The tenant's own resolvers, with the device that leads to them; `None` asks the node's.
    pub(super) dns: Option<(Arc<[SocketAddr]>, Option<InterfaceName>)>,
}

/// Where a workload's host side is, and its bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) ifindex: u32,
    pub(crate) bridge: u32,
    pub(crate) bridge_mac: Mac,
}

/// Ports by workload.
pub(crate) type Ports = BTreeMap<WorkloadId, Port>;

impl Enforcement {
    /// Takes over what the tables hold. `next` are numbers that no earlier daemon used.
    pub(crate) fn new(tables: Arc<Tables>, ledger: Ledger, node: Node, next: Counters, flow_quota: u32) -> Self {
        let nothing = Desired::default();
        let compiled = policy::compile(&nothing.model(&node), &BTreeSet::new(), 0, PolicyId(next.policy));
        let state = State { compiled, ledger, askers: HashMap::new(), node, next };
        Self { tables, state: Mutex::new(state), flow_quota }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of the node.
    pub(crate) fn node(&self) -> Node {
        self.state().node.clone()
    }

    /// The numbers to store, so that no later daemon uses them again.
    pub(crate) fn counters(&self) -> Counters {
        self.state().next
    }

    /// The node has these addresses now.
    pub(crate) fn set_node(&self, node: Node) -> Result<(), TablesError> {
        let mut state = self.state();
        if state.node == node {
            return Ok(());
        }
        self.tables.set_node_addresses(&node.addresses)?;
        self.tables.set_node_listeners(&node.listeners)?;
        state.node = node;
        Ok(())
    }

    /// Puts the policies of this state in force for the workloads at these ports. A workload without a port is gone.
    pub(crate) fn install(&self, desired: &Desired, ports: &Ports) -> Result<(), TablesError> {
        let state = &mut *self.state();
        let subjects: BTreeSet<Subject> = desired.workloads.values().map(Workload::subject).collect();
        let model = desired.model(&state.node);
        let mut next = policy::compile(&model, &subjects, state.next.tables, PolicyId(state.next.policy));
        state.next.tables += 1;
        state.next.policy = next.next_policy.0;
        if let Err(error) = self.prepare(state, &mut next, desired) {
            self.tables.retire(&next.generation);
            return Err(error);
        }
        for workload in desired.workloads.values() {
            if let Some(port) = ports.get(&workload.id) {
                self.tables.switch(port.ifindex, self.entry(desired, workload, *port, &next))?;
            }
        }
        let old = std::mem::replace(&mut state.compiled, next);
        state.askers = askers(desired, &state.compiled);
        for workload in desired.workloads.values() {
            self.reslot(state, workload, None)?;
        }
        self.tables.retire(&old.generation);
        Ok(())
    }

    /// Steps 1 and 2: everything that the switch will refer to.
    fn prepare(&self, state: &mut State, next: &mut Compiled, desired: &Desired) -> Result<(), TablesError> {
        self.tables.write_generation(&next.generation)?;
        let policies: BTreeSet<PolicyId> = next.policies.values().map(|policy| policy.egress).collect();
        let names: Vec<_> = state.ledger.names().map(|(id, name)| (id, name.clone())).collect();
        for policy in policies {
            for (id, name) in &names {
                if let Some(class) = next.name_class(policy, name) {
                    self.tables.write_rules(&class.new_rules)?;
                    self.tables.write_name_class(policy, *id, class.class)?;
                }
            }
        }
        for workload in desired.workloads.values() {
            self.reslot(state, workload, Some(next))?;
        }
        self.tables.set_exposed(&endpoints::exposed_ports(desired))
    }

    /// Chooses the kernel's slots for this workload's names: one for each class under the present policy, or, on the
    /// way to `next`, for each pair of the present class and the next.
    fn reslot(&self, state: &mut State, workload: &Workload, next: Option<&mut Compiled>) -> Result<(), TablesError> {
        let subject = workload.subject();
        let State { compiled, ledger, .. } = state;
        let now = clock::boottime();
        let mut new_rules = Vec::new();
        let mut class = |compiled: &mut Compiled, name: &DnsName| -> Option<ClassId> {
            let policy = compiled.policies.get(&subject)?.egress;
            let class = compiled.name_class(policy, name)?;
            new_rules.extend(class.new_rules);
            Some(class.class)
        };
        let changes = match next {
            None => ledger.reslot(now, workload.id.0, |name| class(compiled, name)),
            Some(next) => ledger.reslot(now, workload.id.0, |name| {
                let pair = (class(compiled, name), class(next, name));
                (pair != (None, None)).then_some(pair)
            }),
        };
        self.tables.write_rules(&new_rules)?;
        self.write(state, &changes)
    }

    /// Carries the ledger's changes to the kernel; what fails comes again with the next ones.
    pub(super) fn write(&self, state: &mut State, changes: &Changes) -> Result<(), TablesError> {
        let written = self.try_write(state, changes);
        if written.is_err() {
            state.ledger.failed(changes);
        }
        written
    }

    fn try_write(&self, state: &mut State, changes: &Changes) -> Result<(), TablesError> {
        for (workload, address) in &changes.removed {
            self.tables.unlearn(WorkloadId(*workload), *address)?;
        }
        let policies: BTreeSet<PolicyId> = state.compiled.policies.values().map(|policy| policy.egress).collect();
        for (id, name) in &changes.names {
            self.tables.write_name(*id, name)?;
            for policy in &policies {
                if let Some(class) = state.compiled.name_class(*policy, name) {
                    self.tables.write_rules(&class.new_rules)?;
                    self.tables.write_name_class(*policy, *id, class.class)?;
                }
            }
        }
        for write in &changes.slots {
            self.tables.learn(WorkloadId(write.workload), write.address, &write.slots)?;
        }
        Ok(())
    }

    fn entry(&self, desired: &Desired, workload: &Workload, port: Port, compiled: &Compiled) -> WorkloadEntry {
        let policy = compiled.policies.get(&workload.subject()).copied();
        let network = desired.resources.network(&workload.network);
        let mut flags = WorkloadFlags::empty();
        if policy.is_none() {
            flags |= WorkloadFlags::SEALED;
        }
        if network.is_some_and(|network| network.gateway == Gateway::External) {
            flags |= WorkloadFlags::EXTERNAL;
        }
        if network.is_some_and(|network| network.workload_traffic == WorkloadTraffic::Open) {
            flags |= WorkloadFlags::OPEN;
        }
        WorkloadEntry {
            id: workload.id,
            network: port.bridge,
            generation: compiled.generation.number,
            policy,
            flags,
            flow_quota: self.flow_quota,
            mac: workload.mac,
            gateway_mac: port.bridge_mac,
        }
    }
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
