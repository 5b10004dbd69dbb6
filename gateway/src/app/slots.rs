//! Learned names through a change of policy: the kernel's slots, and what names are in each policy.

use std::collections::BTreeSet;
use std::time::Duration;

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

    /// What a name is in a policy, with the rules of that class before it.
    fn write_class(&self, state: &mut State, policy: PolicyId, id: NameId) -> Result<(), TableError> {
        let Some(name) = state.ledger.name(id) else { return Ok(()) };
        let Some(class) = state.compiled.name_class(policy, name) else { return Ok(()) };
        let written = self.tables.write_rules(&class.new_rules);
        if written.is_err() {
            state.compiled.name_rules_lost(policy, class.class);
        }
        written?;
        state.named.entry(policy).or_default().insert(id);
        self.tables.write_name_class(policy, id, Some(class.class))
    }
}
