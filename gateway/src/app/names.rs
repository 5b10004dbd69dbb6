//! DNS meets policy: who may look up what, and an answer in the kernel before it leaves.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::names::DnsName;
use config::query_type::QueryType;
use config::upstream::Upstream;
use policy::ledger::LearnError;
use policy::tables::NameId;
use policy::{Resolve, Resolved};

use super::enforcement::{Asker, Enforcement, State, now};
use super::explain::Memory;
use super::rebinding::misled;
use crate::egress::dns::{Permit, Resolution};
use crate::egress::tables::TableError;
use crate::egress::tables::answers::Kept;
use crate::workload::WorkloadId;

/// How long a workload that was held back is spoken of.
const HELD_BACK: Duration = Duration::from_secs(60);

/// What the DNS server asks.
pub(crate) struct Names {
    pub(crate) enforcement: Arc<Enforcement>,
    /// The node's own servers.
    pub(crate) upstreams: Arc<[Upstream]>,
}

impl Names {
    fn ask(&self, asker: &Asker) -> Permit {
        match &asker.dns {
            Some((upstreams, device)) => Permit::Allowed { upstreams: Arc::clone(upstreams), device: device.clone() },
            None => Permit::Allowed { upstreams: Arc::clone(&self.upstreams), device: None },
        }
    }
}

impl Resolution for Names {
    fn account(&self, asker: IpAddr) -> Option<u32> {
        Some(self.enforcement.state().askers.get(&asker)?.workload.0)
    }

    fn held_back(&self, account: u32) {
        self.enforcement.hold_back(WorkloadId(account));
    }

    fn permit(&self, asker: IpAddr, name: &DnsName, qtype: u16) -> Permit {
        let state = self.enforcement.state();
        let Some(asker) = state.askers.get(&asker) else { return Permit::Unknown };
        if let Some(refused) = asker.refuses(qtype) {
            return refused;
        }
        match state.compiled.may_resolve(asker.policy.egress, name) {
            Resolve::Allowed { .. } => self.ask(asker),
            Resolve::Refused => Permit::Refused { why: format!("no policy lets this workload look up {name}") },
        }
    }

    fn permit_unnamed(&self, asker: IpAddr, qtype: u16) -> Permit {
        let state = self.enforcement.state();
        let Some(asker) = state.askers.get(&asker) else { return Permit::Unknown };
        if let Some(refused) = asker.refuses(qtype) {
            return refused;
        }
        match state.compiled.resolves_everything(asker.policy.egress) {
            true => self.ask(asker),
            false => Permit::Refused { why: "no policy can name this".to_owned() },
        }
    }

    fn reads_handshakes(&self, asker: IpAddr, name: Option<&DnsName>) -> bool {
        let state = self.enforcement.state();
        // Who is gone gets no more than anybody.
        let Some(asker) = state.askers.get(&asker) else { return true };
        state.compiled.reads_handshakes(asker.policy.egress, name)
    }

    fn misled(&self, asker: IpAddr, addresses: &[IpAddr]) -> Option<String> {
        if addresses.is_empty() {
            return None; // the lock is everybody's
        }
        let state = self.enforcement.state();
        let asker = state.askers.get(&asker)?;
        addresses.iter().find_map(|address| misled(&state, asker, *address))
    }

    fn learn(&self, asker: IpAddr, name: &DnsName, answers: &[(IpAddr, u32)]) -> Result<(), String> {
        self.enforcement.learn(asker, name, answers)
    }

    fn rules(&self) -> Option<NonZeroU64> {
        self.enforcement.rules()
    }

    fn keep(&self, asker: IpAddr, rules: NonZeroU64, name: &DnsName, addresses: &[(IpAddr, u32)], kept: &Kept) {
        if let Err(error) = self.enforcement.keep_answer(asker, rules, name, addresses, kept) {
            tracing::debug!(%error, "an answer is not kept in the kernel: the daemon gives it");
        }
    }
}

impl Asker {
    fn refuses(&self, qtype: u16) -> Option<Permit> {
        let kind = QueryType(qtype);
        let types = self.query_types.as_ref().filter(|types| !types.contains(&kind))?;
        let known: Vec<String> = types.iter().map(ToString::to_string).collect();
        let why = format!("this namespace's queryTypes are {}, and not {kind}", known.join(", "));
        Some(Permit::RefusedType { why })
    }
}

impl Enforcement {
    /// The kernel knows the addresses when this returns, or the answer must not leave.
    fn learn(&self, asker: IpAddr, name: &DnsName, answers: &[(IpAddr, u32)]) -> Result<(), String> {
        let state = &mut *self.state();
        let asker = state.askers.get(&asker).cloned().ok_or("the workload is gone")?;
        let present = now();
        let changes = match self.learn_as(state, &asker, present, name, answers) {
            Err(LearnError::Names(_)) => {
                let unused = self.unused(state.ledger.idle_names());
                unused.and_then(|unused| self.release(state, unused)).map_err(|error| error.to_string())?;
                self.learn_as(state, &asker, present, name, answers)
            }
            other => other,
        };
        let changes = changes.map_err(|error| error.to_string())?;
        self.write(state, &changes).map_err(|error| error.to_string())
    }

    fn learn_as(
        &self,
        state: &mut State,
        asker: &Asker,
        now: u64,
        name: &DnsName,
        answers: &[(IpAddr, u32)],
    ) -> Result<policy::ledger::Changes, LearnError> {
        let State { compiled, ledger, .. } = state;
        let policy = asker.policy.egress;
        let mut handed_out = Vec::new();
        let changes = ledger.learn(now, asker.workload.0, name, answers, |name| {
            let class = compiled.name_class(policy, name)?;
            if !class.new_rules.is_empty() {
                handed_out.push(class.class);
            }
            Some(class.class)
        });
        // They were asked for to compare classes; they are written with the name's class, and handed out again there.
        handed_out.into_iter().for_each(|class| compiled.name_rules_lost(policy, class));
        changes
    }

    /// Forgets what has long expired, and what the policies left behind. Called once a second.
    pub(crate) fn sweep(&self) -> Result<(), TableError> {
        let state = &mut *self.state();
        let changes = state.ledger.sweep(now());
        self.write(state, &changes)?;
        self.take_out_dead(state)
    }

    /// Notes a workload that asks for too many names, and says so, now and then.
    fn hold_back(&self, workload: WorkloadId) {
        let now = Instant::now();
        let mut all = self.held_back.lock();
        if let Some(last) = all.get_mut(&workload).filter(|last| now.duration_since(**last) < HELD_BACK) {
            *last = now;
            return;
        }
        all.retain(|_, last| now.duration_since(*last) < HELD_BACK);
        all.insert(workload, now);
        drop(all);
        let state = self.state();
        let name = state.desired.workloads.values().find(|own| own.id == workload);
        let name = name.map(|own| format!("{}/{}", own.namespace, own.name));
        tracing::warn!(
            workload = name,
            "asks for too many names in a second and is held back; see `[limits] dns_lookups_per_second`"
        );
    }

    /// What a workload resolved to an address.
    pub(crate) fn resolved(&self, workload: WorkloadId, address: IpAddr) -> Vec<Resolved> {
        self.state().ledger.resolved(workload.0, address)
    }

    /// A lent number is a flow's now.
    pub(super) fn give_back(&self, id: NameId) {
        self.state().ledger.give_back(id);
    }

    /// Workloads that were held back within the last minute.
    pub(crate) fn held_back(&self) -> Vec<WorkloadId> {
        let all = self.held_back.lock();
        all.iter().filter(|(_, last)| last.elapsed() < HELD_BACK).map(|(workload, _)| *workload).collect()
    }

    /// Frees the numbers of names that neither an address nor a flow has. The flows are read without the lock, for which DNS
    /// would wait: a name that has no address when they are read opens none, as what is learned lives for longer.
    pub(crate) fn release_names(&self) -> Result<(), TableError> {
        let idle = self.state().ledger.idle_names();
        let unused = self.unused(idle)?;
        self.release(&mut self.state(), unused)
    }

    fn unused(&self, idle: Vec<NameId>) -> Result<Vec<NameId>, TableError> {
        if idle.is_empty() {
            return Ok(idle);
        }
        let used: BTreeSet<_> = self.tables.flows()?.into_iter().filter_map(|flow| flow.name).collect();
        Ok(idle.into_iter().filter(|name| !used.contains(name)).collect())
    }

    fn release(&self, state: &mut State, unused: Vec<NameId>) -> Result<(), TableError> {
        let free: BTreeSet<_> = state.ledger.release(unused).into_iter().collect();
        if free.is_empty() {
            return Ok(());
        }
        state.named.values_mut().for_each(|names| names.retain(|name| !free.contains(name)));
        self.tables.remove_names(&free)
    }

    /// What a workload resolved, for `explain`.
    pub(crate) fn memory_of(&self, workload: WorkloadId) -> WorkloadMemory<'_> {
        WorkloadMemory { enforcement: self, workload }
    }
}

/// One workload's lookups.
pub(crate) struct WorkloadMemory<'a> {
    enforcement: &'a Enforcement,
    workload: WorkloadId,
}

impl Memory for WorkloadMemory<'_> {
    fn names(&self, address: IpAddr) -> Vec<Resolved> {
        self.enforcement.resolved(self.workload, address)
    }

    fn addresses(&self, name: &DnsName) -> Vec<(IpAddr, u64)> {
        self.enforcement.state().ledger.addresses_of(self.workload.0, name)
    }
}
