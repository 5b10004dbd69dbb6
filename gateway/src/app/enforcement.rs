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
use config::resource::{DnsVia, Gateway, Network, Protocol, WorkloadTraffic};
use policy::ledger::{Changes, Ledger};
use policy::tables::{ClassId, PolicyId, PolicyRef};
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
    pub(super) state: Mutex<State>,
    flow_quota: u32,
}

pub(super) struct State {
    pub(super) compiled: Compiled,
    pub(super) ledger: Ledger,
    /// By handle.
    pub(super) askers: HashMap<IpAddr, Asker>,
    pub(super) node: Node,
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

impl Enforcement {
    /// Takes over what the tables hold. `next` are numbers that no earlier daemon used.
    pub(crate) fn new(tables: Arc<Tables>, ledger: Ledger, node: Node, next: Counters, flow_quota: u32) -> Self {
        let nothing = Desired::default();
        let compiled = policy::compile(&nothing.model(&node), &BTreeSet::new(), 0, PolicyId(next.policy));
        let state = State { compiled, ledger, askers: HashMap::new(), node, next };
        Self { tables, state: Mutex::new(state), flow_quota }
    }

    /// What is known of the node.
    pub(crate) fn node(&self) -> Node {
        self.state().node.clone()
    }

    /// Puts the policies of this state in force for the workloads at these ports; others stay as they are.
    pub(crate) fn install(&self, desired: &Desired, ports: &BTreeMap<WorkloadId, Port>) -> Result<(), TablesError> {
        let state = &mut *self.state();
        let subjects: BTreeSet<Subject> = desired.workloads.values().map(Workload::subject).collect();
        let next = policy::compile(
            &desired.model(&state.node),
            &subjects,
            state.next.tables,
            PolicyId(state.next.policy),
        );
        state.next.tables += 1;
        state.next.policy = next.next_policy.0;
        let mut next = next;
        if let Err(error) = self.prepare(state, &mut next, desired, ports) {
            self.tables.retire(&next.generation);
            return Err(error);
        }
        for workload in desired.workloads.values() {
            if let Some(port) = ports.get(&workload.id) {
                self.switch(desired, workload, *port, &next)?;
            }
        }
        let old = std::mem::replace(&mut state.compiled, next);
        state.askers = askers(desired, &state.compiled);
        for workload in desired.workloads.values() {
            let changes = state.reslot(workload, &mut |_, new| new);
            self.write(state, &changes)?;
        }
        self.tables.retire(&old.generation);
        Ok(())
    }

    /// Steps 1 and 2: everything that the switch will refer to.
    fn prepare(
        &self,
        state: &mut State,
        next: &mut Compiled,
        desired: &Desired,
        ports: &BTreeMap<WorkloadId, Port>,
    ) -> Result<(), TablesError> {
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
        self.tables.set_exposed(&endpoints::exposed_ports(desired))?;
        let _ = ports;
        Ok(())
    }
}
