//! A change on trial (`netctl apply --confirm-within`): in force, and taken back as a whole unless somebody confirms it in time.
//!
//! It is not stored before: a daemon that dies meanwhile starts with what was. While it lasts no other change of resources is
//! taken, files of address sets are left alone, and nobody is attached to a network that it made or changed, who would be in the
//! way back.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use config::api::{self, Action, ConditionState, Timestamp};
use config::names::Name;
use tokio::time::{Instant, sleep, sleep_until};

use super::desired::Desired;
use super::gate::Gate;
use super::reload;
use crate::admin::ControlError;
use crate::store;

/// The longest that one may wait for its confirmation, seconds.
pub(crate) const LONGEST: u32 = 3600;
/// Between two tries to take back what cannot be taken back.
const AGAIN: Duration = Duration::from_secs(5);
const CONDITION: &str = "confirmation";

/// A change that waits for its confirmation.
#[derive(Clone, Debug)]
pub(crate) struct Trial {
    /// Resources, and files of address sets, as they were.
    before: Arc<Desired>,
    /// What its confirmation stores.
    commit: Vec<store::Change>,
    changes: Vec<api::Change>,
    ends: Instant,
    until: Timestamp,
}

/// From now on the change that has just been put in force is on trial. Answers until when.
pub(crate) fn begin(
    gate: &Arc<Gate>,
    before: Arc<Desired>,
    (changes, commit): (Vec<api::Change>, Vec<store::Change>),
    within: Duration,
) -> Timestamp {
    let (ends, until) = (Instant::now() + within, Timestamp::from(SystemTime::now() + within));
    let trial = Arc::new(Trial { before, commit, changes, ends, until });
    *gate.trial() = Some(Arc::clone(&trial));
    let text = format!("a change is on trial: it is taken back at {until} unless it is confirmed");
    gate.raise(
        CONDITION,
        ConditionState::Notice,
        text,
        "`netctl confirm` keeps it, `netctl rollback` takes it back now",
    );
    tokio::spawn(watch(Arc::clone(gate), trial));
    until
}

async fn watch(gate: Arc<Gate>, trial: Arc<Trial>) {
    sleep_until(trial.ends).await;
    loop {
        {
            let _applying = gate.applying.lock().await;
            if !gate.trial().as_ref().is_some_and(|now| Arc::ptr_eq(now, &trial)) {
                return;
            }
            match take_back(&gate, &trial).await {
                Ok(()) => return tracing::warn!("nobody confirmed a change in time: it is taken back"),
                Err(error) => {
                    let text = format!("nobody confirmed a change, and it cannot be taken back: {error}");
                    let mend = "mend what is in the way; it is tried again. `netctl confirm` keeps the change";
                    gate.raise(CONDITION, ConditionState::Failed, text, mend);
                }
            }
        }
        sleep(AGAIN).await;
    }
}

/// Stores the change on trial. Who calls holds `applying`.
pub(crate) fn confirm(gate: &Gate) -> Result<Vec<api::Change>, ControlError> {
    let trial = present(gate)?;
    reload::in_place(|| gate.store.commit(&trial.commit)).map_err(|error| {
        ControlError::failed(error.to_string(), "the change stays on trial; try again before its time is over")
    })?;
    end(gate);
    Ok(trial.changes.clone())
}

/// Takes the change on trial back now. Who calls holds `applying`.
pub(crate) async fn roll_back(gate: &Gate) -> Result<Vec<api::Change>, ControlError> {
    let trial = present(gate)?;
    take_back(gate, &trial).await?;
    let back = |change: &api::Change| api::Change {
        action: match change.action {
            Action::Created => Action::Deleted,
            Action::Deleted => Action::Created,
            other => other,
        },
        ..change.clone()
    };
    Ok(trial.changes.iter().rev().map(back).collect())
}

async fn take_back(gate: &Gate, trial: &Trial) -> Result<(), ControlError> {
    let _turn = gate.changing.lock().await;
    let next = Desired { workloads: Arc::clone(&gate.now().workloads), ..Desired::clone(&trial.before) };
    reload::bring_about(gate, next, &[]).await?;
    end(gate);
    Ok(())
}

fn end(gate: &Gate) {
    *gate.trial() = None;
    gate.clear(CONDITION);
}

fn present(gate: &Gate) -> Result<Arc<Trial>, ControlError> {
    gate.trial().clone().ok_or_else(|| {
        ControlError::not_found(
            "no change waits for its confirmation",
            "`netctl apply --confirm-within 60s -f …` makes one",
        )
    })
}

/// Another change of resources waits until this one is decided.
pub(crate) fn refuse_others(gate: &Gate) -> Result<(), ControlError> {
    match gate.trial().as_ref() {
        None => Ok(()),
        Some(trial) => Err(ControlError::conflict(
            format!("a change is on trial until {}", trial.until),
            "first `netctl confirm`, which keeps it, or `netctl rollback`, which takes it back",
        )),
    }
}

/// Who is attached now must not be in the way back.
pub(crate) fn refuse_newcomer(gate: &Gate, namespace: &Name) -> Result<(), ControlError> {
    let Some(trial) = gate.trial().clone() else { return Ok(()) };
    if trial.before.resources.network_of(namespace) == gate.now().resources.network_of(namespace) {
        return Ok(());
    }
    Err(ControlError::conflict(
        format!("the network of namespace {namespace} is on trial until {}", trial.until),
        "first `netctl confirm` the change",
    ))
}
