//! Learned names through a change of policy: the kernel's slots, and what names are in each policy.

use std::collections::BTreeSet;
use std::time::Duration;

use config::names::DnsName;
use policy::ledger::Changes;
use policy::tables::{ClassId, NameId, PolicyId};

use super::enforcement::{Enforcement, State, now};
use crate::egress::tables::TableError;
use crate::egress::tables::names::LearnedSlot;
use crate::workload::WorkloadId;

impl Enforcement {
    /// Makes every name known to a policy that a workload with open flows is about to be switched to.
    pub(super) fn teach(&self, state: &mut State, policy: PolicyId) -> Result<(), TableError> {
        let names: Vec<NameId> = state.ledger.names().map(|(id, _)| id).collect();
        names.into_iter().try_for_each(|id| self.write_class(state, policy, id))
    }

    /// Chooses the kernel's slots for a workload's names: one for each class under its policy, or, on the way from one
    /// policy to another, for each pair of classes under both.
    pub(super) fn reslot(
        &self,
        state: &mut State,
        workload: WorkloadId,
        policies: &[PolicyId],
    ) -> Result<(), TableError> {
        let State { compiled, ledger, .. } = state;
        let mut handed_out = BTreeSet::new();
        let changes = ledger.reslot(now(), workload.0, |name| {
            let classes = policies.iter().map(|policy| {
                let class = compiled.name_class(*policy, name)?;
                if !class.new_rules.is_empty() {
                    handed_out.insert((*policy, class.class));
                }
                Some(class.class)
            });
            let classes: Vec<Option<ClassId>> = classes.collect();
            classes.iter().any(Option::is_some).then_some(classes)
        });
        // They were asked for to compare classes; they are written with the name's class.
        handed_out.into_iter().for_each(|(policy, class)| compiled.name_rules_lost(policy, class));
        for id in changes.slots.iter().flat_map(|write| write.slots.iter().flatten()).map(|slot| slot.name) {
            for policy in policies {
                self.write_class(state, *policy, id)?;
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
                if let Some(policy) = policy {
                    self.write_class(state, policy, slot.name)?;
                }
                slots.push(LearnedSlot { name: slot.name, expires: Duration::from_nanos(slot.expires_ns) });
            }
            self.tables.learn(workload, write.address, &slots)?;
        }
        Ok(())
    }

    /// The number of the name that a flow of the workload was opened under, for the kernel to decide by. It is to be
    /// [given back](policy::ledger::Ledger::give_back) once the flow has it.
    pub(super) fn lend(&self, workload: WorkloadId, name: &DnsName) -> Result<NameId, String> {
        let state = &mut *self.state();
        let (id, text) = state.ledger.lend(name).map_err(|error| error.to_string())?;
        let known = |policy: &PolicyId| state.named.get(policy).is_some_and(|names| names.contains(&id));
        let policy = state.policies.get(&workload).copied().filter(|policy| !known(policy));
        let mut written = text.map_or(Ok(()), |text| {
            let written = self.tables.write_name(id, &text);
            if written.is_err() {
                state.ledger.unwritten(id);
            }
            written
        });
        if let (Ok(()), Some(policy)) = (&written, policy) {
            written = self.write_class(state, policy, id);
        }
        if let Err(error) = written {
            state.ledger.give_back(id);
            return Err(error.to_string());
        }
        Ok(id)
    }

    /// What a name is in a policy, with the rules of that class before it: flows that showed it may be open, even where it
    /// is denied now.
    fn write_class(&self, state: &mut State, policy: PolicyId, id: NameId) -> Result<(), TableError> {
        let Some(name) = state.ledger.name(id) else { return Ok(()) };
        let Some(class) = state.compiled.shown_class(policy, name) else { return Ok(()) };
        let written = self.tables.write_rules(&class.new_rules);
        if written.is_err() {
            state.compiled.name_rules_lost(policy, class.class);
        }
        written?;
        state.named.entry(policy).or_default().insert(id);
        self.tables.write_name_class(policy, id, Some(class.class))
    }
}
