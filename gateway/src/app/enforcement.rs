//! Policy in the kernel, change by change.
//!
//! Owns one lock, around [`State`]: a change of policy and an answer of DNS ([`super::names`]) exclude each other, so that
//! no answer is learned for rules that are on their way out. It is held for table writes, never across an await, and handed
//! to whoever waits for it between the portions of a long change ([`super::portions`]).
//!
//! A change ([`Enforcement::install`] of resources, [`Enforcement::join`] and [`Enforcement::leave`] of a workload,
//! [`Enforcement::change_sets`] of address sets) writes what it changes, and nothing else:
//! 1. the compiler ([`policy::compile`]) answers what the next policies need: lines of new policies and classes, then
//!    prefixes one by one. It comes into the tables that are in use; the present policies answer as ever;
//! 2. names that workloads resolved get their classes under the new policies, and slots that serve both ([`super::slots`]);
//! 3. the workloads whose policies are others, or whose peers are, are switched by one write of their entries each, with
//!    a new epoch: their open flows are decided again ([`super::placing`]). The others are left alone;
//! 4. slots are chosen for the new policies alone, and what nobody refers to any more leaves the prefixes. Its lines go
//!    two upkeeps later, when no packet can be on its way to them.
//!
//! At no instant is a workload under a mixture: a write that fails before 3 leaves the old state in force, and what was
//! written is taken back. After a restart, or a change that failed behind that point, nobody knows what the tables have:
//! everything is compiled anew under fresh numbers beside it, and then all else goes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use config::names::{InterfaceName, Name};
use config::query_type::QueryType;
use config::resource::{AddressSet, DnsVia, Network};
use config::upstream::Upstream;
use ipnetwork::IpNetwork;
use parking_lot::{Mutex, MutexGuard};
use policy::compile::Compiled;
use policy::ledger::Ledger;
use policy::tables::{NameId, PolicyId, PolicyRef, RuleEntry, Step};
use policy::{Node, Resident};

use super::desired::{Desired, set_key};
use super::endpoints;
use super::numbers::Numbers;
use super::placing::{Anew, Placed};
use super::portions::{Meanwhile, bury};
use super::rebinding::Territory;
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
    /// Workloads that asked for too many names, and when last.
    pub(super) held_back: Mutex<BTreeMap<WorkloadId, Instant>>,
    pub(super) flow_quota: u32,
    /// Under which rules the kernel answers, 0 if it does not ([`super::answers`]); changed under the lock.
    pub(super) answer_rules: AtomicU64,
}

pub(super) struct State {
    pub(super) compiled: Compiled,
    pub(super) ledger: Ledger,
    /// By handle.
    pub(super) askers: HashMap<IpAddr, Asker>,
    /// Where names lead to a tenant.
    pub(super) tenants: Territory,
    /// The egress policy that each workload was switched to.
    pub(super) policies: HashMap<WorkloadId, PolicyId>,
    pub(super) ports: BTreeMap<WorkloadId, Port>,
    pub(super) placed: Placed,
    /// The names that have a class in a policy.
    pub(super) named: BTreeMap<PolicyId, BTreeSet<NameId>>,
    /// What was installed last.
    pub(super) desired: Desired,
    pub(super) node: Node,
    /// The tables may have another node: putting it there failed half way.
    pub(super) node_unknown: bool,
    pub(super) numbers: Numbers,
    /// The tables may have other policies than the present ones: of an earlier daemon, or of a change that failed half way.
    pub(super) unknown_past: bool,
    /// What others wanted while the lock was theirs in the middle of a change.
    pub(super) meanwhile: Meanwhile,
    /// What no entry and no prefix mentions any more: of this second, and of the one before.
    pub(super) dead: [Dead; 2],
}

/// The lock, held.
pub(super) type Held<'a> = MutexGuard<'a, State>;

/// What is still to be taken out of the tables.
#[derive(Debug, Default)]
pub(super) struct Dead {
    pub(super) rules: Vec<RuleEntry>,
    pub(super) names: Vec<(PolicyId, NameId)>,
}

/// Who stands behind a handle.
#[derive(Clone, Debug)]
pub(super) struct Asker {
    pub(super) workload: WorkloadId,
    pub(super) policy: PolicyRef,
    /// Those of its network.
    pub(super) subnets: Arc<[IpNetwork]>,
    /// The tenant's own resolvers, with the device that leads to them; `None` asks the node's.
    pub(super) dns: Option<(Arc<[Upstream]>, Option<InterfaceName>)>,
    /// What it may ask for, where its namespace says it.
    pub(super) query_types: Option<Arc<BTreeSet<QueryType>>>,
}

/// A workload's host side, and whom the workload sees as its gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Port {
    pub(super) ifindex: u32,
    pub(super) bridge_mac: Mac,
}

impl Enforcement {
    /// Takes over what the tables hold.
    pub(crate) fn new(
        tables: Tables,
        ledger: Ledger,
        numbers: Numbers,
        settings: &Settings,
    ) -> Result<Self, TableError> {
        let state = State {
            compiled: Compiled::new(numbers.next.tables, PolicyId(numbers.next.policy)),
            ledger,
            askers: HashMap::new(),
            tenants: Territory::default(),
            policies: HashMap::new(),
            ports: BTreeMap::new(),
            placed: Placed::of(&tables)?,
            named: BTreeMap::new(),
            desired: Desired::default(),
            node: Node { probes: settings.node.probes(), ..Node::default() },
            node_unknown: false,
            numbers,
            unknown_past: true,
            meanwhile: Meanwhile::default(),
            dead: Default::default(),
        };
        Ok(Self {
            tables,
            state: Mutex::new(state),
            repairs: AtomicU64::new(0),
            held_back: Mutex::default(),
            flow_quota: settings.limits.flows_per_workload,
            answer_rules: AtomicU64::new(0),
        })
    }

    pub(super) fn state(&self) -> Held<'_> {
        self.state.lock()
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
        let state = &mut self.state();
        if !state.unknown_past && state.desired.differs_in_sets_only(desired) {
            let sets: Vec<&AddressSet> = desired.resources.address_sets().collect();
            return Ok(self.put_sets(state, desired, &sets)?);
        }
        reserve(state, desired, store)?;
        self.hold_answers()?;
        let rebuilding = std::mem::replace(&mut state.unknown_past, true);
        let retired = if rebuilding { Some(self.tables.former()?) } else { None };
        let former = rebuilding.then(|| {
            let next = state.numbers.next;
            std::mem::replace(&mut state.compiled, Compiled::new(next.tables, PolicyId(next.policy)))
        });
        let subjects = desired.workloads.values().map(|workload| workload.subject());
        let State { compiled, node, .. } = &mut **state;
        let mut step = compiled.advance(&desired.model(node), subjects);
        let all: Vec<&Workload> = desired.workloads.values().map(|workload| &**workload).collect();
        let prepared = self.prepare(state, &mut step, &all, None).and_then(|()| {
            self.tables.set_subnets(&subnets(desired))?;
            self.tables.set_masqueraded(&masqueraded(desired))?;
            self.tables.set_own_addresses(&super::nat::own_addresses(desired))?;
            let exposed = endpoints::exposed_ports(desired);
            self.tables.set_exposed(&exposed.into_iter().map(|(id, port)| (id, port, TCP)).collect())
        });
        if let Err(error) = prepared {
            self.take_back(state, step)?;
            match former {
                Some(former) => state.compiled = former,
                None => self.finish(state)?,
            }
            return Err(error.into());
        }
        // Flows that are open to a port that is the edge's now, or that came from a network's own subnet, know no policy.
        let elsewhere = around(&state.desired) != around(desired);
        let anew = if rebuilding || elsewhere { Anew::All } else { Anew::Under(&BTreeSet::new()) };
        self.switch(state, desired, all.iter().copied(), &anew)?;
        if rebuilding {
            self.readdress_all(state, desired)?;
        }
        state.tenants = Territory::of(desired.resources.networks());
        state.askers = all.iter().flat_map(|workload| asker(state, desired, workload)).collect();
        self.settle(state, desired, &all, step)?;
        if let Some(retired) = retired {
            let known = state.compiled.policy_numbers();
            self.tables.retire_former(&retired, &known)?;
            state.dead = Default::default();
            state.named.retain(|policy, _| known.contains(policy));
        }
        Ok(self.finish(state)?)
    }

    /// Puts address sets in force that have other prefixes in this state, in which nothing else has changed: it costs what
    /// comes and goes of them.
    pub(crate) fn change_sets(
        &self,
        desired: &Desired,
        sets: &[&AddressSet],
        store: &Store,
    ) -> Result<(), InstallError> {
        if self.state().unknown_past {
            return self.install(desired, store);
        }
        Ok(self.put_sets(&mut self.state(), desired, sets)?)
    }

    fn put_sets(&self, state: &mut Held<'_>, desired: &Desired, sets: &[&AddressSet]) -> Result<(), TableError> {
        self.hold_answers()?;
        state.unknown_past = true;
        let keys: Vec<_> = sets.iter().map(|set| (set_key(set), desired.prefixes(set))).collect();
        let mut step = state.compiled.change_sets(keys.iter().map(|(key, prefixes)| (key, *prefixes)));
        if let Err(error) = self.write_all(state, &mut step) {
            self.take_back(state, step)?;
            self.finish(state)?;
            return Err(error);
        }
        self.switch(state, desired, [], &Anew::Under(&step.touched))?;
        self.settle(state, desired, &[], step)?;
        self.finish(state)
    }

    /// Puts the policies of a workload in force that is new in this state, in which nothing else is.
    pub(crate) fn join(&self, desired: &Desired, workload: &Workload, store: &Store) -> Result<(), InstallError> {
        if self.state().unknown_past {
            return self.install(desired, store);
        }
        let state = &mut self.state();
        reserve(state, desired, store)?;
        self.hold_answers()?;
        state.unknown_past = true;
        let State { compiled, node, .. } = &mut **state;
        let mut step = compiled.join(&desired.resources_model(node), &resident(workload));
        let concerned = concerned(desired, &step, Some(workload));
        let prepared = self.prepare(state, &mut step, &concerned, Some(workload.id)).and_then(|()| {
            let exposed = endpoints::exposed_ports_of(desired, workload);
            self.tables.expose(workload.id, &exposed.into_iter().map(|port| (port, TCP)).collect())
        });
        if let Err(error) = prepared {
            self.take_back(state, step)?;
            self.finish(state)?;
            return Err(error.into());
        }
        Ok(self.follow(state, desired, &concerned, step)?)
    }

    /// A workload is gone that is no more in this state, in which nothing else has changed: nothing that it had is left in
    /// the tables, and nothing of its policies.
    pub(crate) fn leave(&self, desired: &Desired, workload: &Workload, store: &Store) -> Result<(), InstallError> {
        {
            let state = &mut *self.state();
            self.hold_answers()?;
            state.ports.remove(&workload.id);
            state.policies.remove(&workload.id);
            for address in &workload.addresses {
                state.askers.remove(&address.handle);
            }
            state.placed.forget_workload(workload.id);
            self.tables.forget_workload(workload.id)?;
            self.tables.end_mappings(&workload.addresses.iter().map(|own| own.address).collect())?;
            let changes = state.ledger.forget(workload.id.0);
            self.write(state, &changes)?;
        }
        if self.state().unknown_past {
            return self.install(desired, store);
        }
        let state = &mut self.state();
        if !state.desired.workloads.values().any(|own| own.id == workload.id) {
            return Ok(self.give_answers(state)?);
        }
        reserve(state, desired, store)?;
        self.hold_answers()?; // between the two, the node's addresses may have changed, which gives them
        state.unknown_past = true;
        let State { compiled, node, .. } = &mut **state;
        let mut step = compiled.leave(&desired.resources_model(node), &resident(workload));
        let concerned = concerned(desired, &step, None);
        self.prepare(state, &mut step, &concerned, None)?;
        Ok(self.follow(state, desired, &concerned, step)?)
    }

    /// Steps 3 and 4 for the workloads that a newcomer or a leaver concerns.
    fn follow(
        &self,
        state: &mut Held<'_>,
        desired: &Desired,
        concerned: &[&Workload],
        step: Step,
    ) -> Result<(), TableError> {
        self.switch(state, desired, concerned.iter().copied(), &Anew::Under(&step.touched))?;
        for workload in concerned {
            let own: Vec<_> = asker(state, desired, workload).collect();
            state.askers.extend(own);
        }
        self.settle(state, desired, concerned, step)?;
        self.finish(state)
    }

    /// Steps 1 and 2: everything that the switch will refer to.
    fn prepare(
        &self,
        state: &mut Held<'_>,
        step: &mut Step,
        workloads: &[&Workload],
        newcomer: Option<WorkloadId>,
    ) -> Result<(), TableError> {
        let (tables, PolicyId(policy)) = state.compiled.next_numbers();
        (state.numbers.next.tables, state.numbers.next.policy) = (tables, policy);
        self.write_all(state, step)?;
        let mut moved = Vec::new();
        for workload in workloads {
            let Some(new) = state.compiled.policy(&workload.subject()).map(|policy| policy.egress) else { continue };
            match state.policies.get(&workload.id) {
                Some(old) if *old != new => moved.push((workload.id, vec![*old, new])),
                // Of an earlier daemon's policies nothing is known; one that just came has no flows and no names.
                None if Some(workload.id) != newcomer => moved.push((workload.id, vec![new])),
                Some(_) | None => {}
            }
        }
        for policy in moved.iter().filter_map(|(_, policies)| policies.last()).copied().collect::<BTreeSet<_>>() {
            self.teach(state, policy)?;
        }
        moved.into_iter().try_for_each(|(id, policies)| self.reslot(state, id, &policies))
    }

    /// Step 4.
    fn settle(
        &self,
        state: &mut Held<'_>,
        desired: &Desired,
        workloads: &[&Workload],
        step: Step,
    ) -> Result<(), TableError> {
        bury(state, step);
        for workload in workloads {
            let present = state.compiled.policy(&workload.subject()).map(|policy| policy.egress);
            let former = match present {
                Some(policy) => state.policies.insert(workload.id, policy),
                None => state.policies.remove(&workload.id),
            };
            if let Some(policy) = present.filter(|_| former != present) {
                self.reslot(state, workload.id, &[policy])?;
            }
        }
        state.desired = desired.clone();
        let mut step = state.compiled.settle();
        let written = self.write_all(state, &mut step);
        bury(state, step);
        written
    }
}

/// What decides about packets beside policies: ports of the edge, and networks' subnets.
fn around(desired: &Desired) -> impl PartialEq + use<> {
    (endpoints::exposed_ports(desired), subnets(desired), masqueraded(desired))
}

/// Numbers for one change: two policies for each workload at most, and a view for each network and one more. A number past
/// what is reserved could come again after a crash.
fn reserve(state: &mut State, desired: &Desired, store: &Store) -> Result<(), StoreError> {
    let policies = 2 * desired.workloads.len() + 2;
    state.numbers.top_up(store, policies, 1 + desired.resources.networks().count())
}

/// The workloads that have other policies after a step, and the one that it is about.
fn concerned<'a>(desired: &'a Desired, step: &Step, own: Option<&'a Workload>) -> Vec<&'a Workload> {
    let mut all: Vec<&Workload> = own.into_iter().collect();
    if !step.moved.is_empty() {
        let moved = |workload: &&Workload| {
            own.is_none_or(|own| own.id != workload.id) && step.moved.contains(&workload.subject())
        };
        all.extend(desired.workloads.values().map(|workload| &**workload).filter(moved));
    }
    all
}

/// A workload as peers see it.
pub(super) fn resident(workload: &Workload) -> Resident {
    Resident { subject: workload.subject(), addresses: workload.addresses.iter().map(|own| own.address).collect() }
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

fn subnets(desired: &Desired) -> BTreeMap<u32, Vec<ipnetwork::IpNetwork>> {
    let network = |network: &Network| (network_number(&network.name), network.subnets.iter().map(|s| s.cidr).collect());
    desired.resources.networks().map(network).collect()
}

pub(super) fn masqueraded(desired: &Desired) -> BTreeMap<ipnetwork::IpNetwork, u32> {
    let networks = desired.resources.networks().filter(|network| network.snat.translates());
    let subnets = |network: &Network| {
        let number = network_number(&network.name);
        network.subnets.iter().map(move |subnet| (subnet.cidr, number)).collect::<Vec<_>>()
    };
    networks.flat_map(subnets).collect()
}

fn asker(state: &State, desired: &Desired, workload: &Workload) -> impl Iterator<Item = (IpAddr, Asker)> {
    let policy = state.compiled.policy(&workload.subject());
    let network = desired.resources.network(&workload.network);
    let namespace = desired.resources.namespace(&workload.namespace);
    let asker = policy.map(|policy| Asker {
        workload: workload.id,
        policy,
        subnets: network.into_iter().flat_map(|network| &network.subnets).map(|subnet| subnet.cidr).collect(),
        dns: network.and_then(own_dns),
        query_types: namespace.and_then(|namespace| namespace.query_types.clone()).map(Arc::new),
    });
    let own = asker
        .into_iter()
        .flat_map(|asker| workload.addresses.iter().map(move |address| (address.handle, asker.clone())));
    own.collect::<Vec<_>>().into_iter()
}

fn own_dns(network: &Network) -> Option<(Arc<[Upstream]>, Option<InterfaceName>)> {
    let dns = network.dns.as_ref()?;
    let upstreams = dns.upstreams.iter().cloned().collect();
    let device = match dns.via {
        DnsVia::Node => None,
        DnsVia::Network => Some(crate::segmentation::names::bridge(&network.name)),
    };
    Some((upstreams, device))
}
