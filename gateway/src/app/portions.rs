//! Writing a change, portion by portion, and taking out what it left behind.
//!
//! A group of a million prefixes takes seconds. Nobody's answer depends on it before the workloads are switched, or after
//! that ([`Compiled::more`](policy::Compiled::more)); so between its portions the lock goes to whoever waits for it: DNS,
//! upkeep, `status`. No other change is among these, as changes take turns (`changing` of the [`Gate`](super::gate::Gate)).
//! A host side that is made meanwhile stays sealed until the change is over, and what would have open flows decided again
//! comes after it ([`Meanwhile`]).

use std::collections::BTreeSet;

use parking_lot::MutexGuard;
use policy::tables::Step;

use super::enforcement::{Enforcement, Held, State};
use super::placing::Anew;
use crate::egress::tables::TableError;
use crate::workload::{Workload, WorkloadId};

/// What comes after the change that is under way.
#[derive(Debug, Default)]
pub(super) struct Meanwhile {
    /// The lock is another's, and will be the change's again.
    midway: bool,
    /// Their host sides were made.
    pub(super) sealed: BTreeSet<WorkloadId>,
    /// All open flows are to be decided again.
    anew: bool,
}

impl Enforcement {
    /// Writes a step and what follows it; all that died is in the step.
    pub(super) fn write_all(&self, state: &mut Held<'_>, step: &mut Step) -> Result<(), TableError> {
        self.tables.apply(step)?;
        while let Some(more) = state.compiled.more() {
            step.dead.extend_from_slice(&more.dead);
            self.tables.apply(&more)?;
            state.meanwhile.midway = true;
            MutexGuard::bump(state);
            state.meanwhile.midway = false;
        }
        self.tables.note_prefixes(state.compiled.prefixes_held());
        Ok(())
    }

    /// What was written of a change that cannot be prepared goes again.
    pub(super) fn take_back(&self, state: &mut Held<'_>, step: Step) -> Result<(), TableError> {
        bury(state, step);
        let mut back = state.compiled.take_back();
        let written = self.write_all(state, &mut back);
        bury(state, back);
        written
    }

    /// The tables are known, and what waited for that is done.
    pub(super) fn finish(&self, state: &mut State) -> Result<(), TableError> {
        state.unknown_past = false;
        let Meanwhile { sealed, anew, .. } = std::mem::take(&mut state.meanwhile);
        if anew {
            self.decide_again(state)?;
        } else if !sealed.is_empty() {
            let desired = state.desired.clone();
            let workloads = desired.workloads.values().map(|workload| &**workload);
            let sealed = workloads.filter(|workload: &&Workload| sealed.contains(&workload.id));
            self.switch(state, &desired, sealed, &Anew::Under(&BTreeSet::new()))?;
        }
        self.give_answers(state)
    }

    /// All open flows are decided again at their next packet, by the present policies and what is known of the node now.
    pub(super) fn decide_again(&self, state: &mut State) -> Result<(), TableError> {
        if state.meanwhile.midway {
            state.meanwhile.anew = true;
            return Ok(());
        }
        let desired = state.desired.clone();
        let all = desired.workloads.values().map(|workload| &**workload);
        self.switch(state, &desired, all, &Anew::All)
    }

    /// Takes out what died before the last call: packets that met it are long through. Called once a second.
    pub(super) fn take_out_dead(&self, state: &mut State) -> Result<(), TableError> {
        if state.unknown_past {
            return Ok(());
        }
        self.tables.remove_rules(&state.dead[1].rules)?;
        self.tables.remove_name_classes(&state.dead[1].names)?;
        let [latest, before] = &mut state.dead;
        *before = std::mem::take(latest);
        Ok(())
    }
}

/// What a step left behind goes later.
pub(super) fn bury(state: &mut State, step: Step) {
    let dead = &mut state.dead[0];
    dead.rules.extend(step.dead);
    for policy in step.gone {
        let names = state.named.remove(&policy).unwrap_or_default();
        dead.names.extend(names.into_iter().map(|name| (policy, name)));
    }
}
