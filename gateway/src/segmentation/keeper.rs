//! Bringing a desired state about and keeping it: looking, planning, taking steps, and saying how things stand. What
//! concerns one workload alone is in `near`.
//!
//! Whoever plans holds the lock of [`State`] until the steps are taken, so that attaching, applying and repairing never
//! overlap. [`Status`] is a `watch` channel: a level, not a queue; nothing piles up when nobody reads it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;

use tokio::sync::{Mutex, watch};

use super::Seal;
use super::adoption::Closed;
use super::apply::{ApplyError, Executor, Memory};
use super::departure::Departures;
use super::desired::Desired;
use super::guard::{GuardMemory, GuardState};
use super::observe::{self, Homes, ObserveError, Observed};
use super::plan::{Plan, Sight, Subject};
use super::reconcile::Error;
use super::status::{Status, own, ports, segments};
use super::step::Step;
use super::table::TableMemory;
use crate::sys::namespace_helper::{NamespaceHelper, OpenError};
use crate::sys::netlink::Netlink;
use crate::sys::netlink::watch::Notice;
use crate::sys::netns::Identity;
use crate::sys::nft::Nft;
use crate::telemetry::metrics;
use crate::workload::{Workload, WorkloadId};

/// How often a plan is made again when, after all its steps, there are still some to take.
pub(super) const ROUNDS: usize = 3;

/// What the handle and the watching task share.
pub(super) struct Keeper {
    pub(super) netlink: Netlink,
    pub(super) helper: NamespaceHelper,
    pub(super) nft: Nft,
    pub(super) seal: Arc<dyn Seal>,
    pub(super) node: Identity,
    pub(super) state: Mutex<State>,
    pub(super) status: watch::Sender<Status>,
    /// Indexes of our links, and what each is for: notices name links by index.
    pub(super) own: RwLock<BTreeMap<u32, Subject>>,
    /// Indexes of adopted bridges.
    pub(super) adopted: RwLock<BTreeSet<u32>>,
    /// Links that nobody waits for any longer.
    pub(super) departures: Departures,
    /// Moved on when a look is wanted at once.
    pub(super) look: watch::Sender<u64>,
}

#[derive(Default)]
pub(super) struct State {
    /// `None` until it is said for the first time: until then nothing is touched.
    pub(super) desired: Option<Arc<Desired>>,
    pub(super) table: TableMemory,
    pub(super) guard: GuardMemory,
    pub(super) homes: Homes,
    /// Interfaces of others that this process has closed, by index.
    pub(super) closed: BTreeMap<u32, Closed>,
}

impl Keeper {
    /// Looks at the node; `fresh` is a workload that is being attached, whose namespace is as its path says.
    pub(super) async fn observe(
        &self,
        state: &mut State,
        desired: &Desired,
        fresh: Option<WorkloadId>,
    ) -> Result<Observed, ObserveError> {
        let mut observed = Observed::take(&self.netlink).await?;
        observed.links.retain(|link| !self.departures.contains(link.index));
        observed.table = state.table.look(&self.nft).await?;
        let sight = Sight::of(&observed);
        let made = |workload: &&Workload| Some(workload.id) != fresh && !workload.adopted;
        let others = desired.workloads.values().filter(made);
        let without: Vec<&Workload> =
            others.filter(|workload| sight.link(&workload.host_interface).is_none()).collect();
        for workload in without {
            if self.is_gone(workload, &state.homes).await {
                observed.gone.insert(workload.id);
            }
        }
        self.look_at_adopted(state, desired, &mut observed).await?;
        Ok(observed)
    }

    /// Whether the namespace at a workload's path is not (or, after a restart, not certainly) the one it was attached in.
    pub(super) async fn is_gone(&self, workload: &Workload, homes: &Homes) -> bool {
        let netns = match self.helper.open_namespace(&workload.netns).await {
            Ok(netns) => netns,
            Err(OpenError::Path(error)) => return error.is_gone(),
            // A process that is not there is told by the helper's words only.
            Err(OpenError::Helper(_)) => return observe::is_reusable(&workload.netns),
        };
        match homes.get(&workload.id) {
            None => observe::is_reusable(&workload.netns),
            Some(&cookie) => match self.helper.netlink_inside(&netns).await {
                Ok(inside) => inside.cookie() != cookie,
                Err(_) => false,
            },
        }
    }

    /// After a restart: finds out which namespaces the workloads are in that are connected already.
    pub(super) async fn learn_homes(&self) {
        let mut state = self.state.lock().await;
        let workloads: Vec<Workload> = state.desired.iter().flat_map(|d| d.workloads.values().cloned()).collect();
        for workload in workloads {
            if !matches!(self.netlink.link(&workload.host_interface).await, Ok(Some(_))) {
                continue;
            }
            let Ok(netns) = self.helper.open_namespace(&workload.netns).await else { continue };
            let Ok(inside) = self.helper.netlink_inside(&netns).await else { continue };
            if let Ok(Some(guest)) = inside.link(&workload.guest_interface).await
                && guest.mac == Some(workload.mac)
            {
                state.homes.insert(workload.id, inside.cookie());
            }
        }
    }

    /// Takes the steps of all parts that are `concerned`, until there are none.
    pub(super) async fn bring_about(
        &self,
        state: &mut State,
        desired: &Desired,
        fresh: Option<WorkloadId>,
        concerned: impl Fn(&Subject) -> bool,
    ) -> Result<Observed, Error> {
        let mut done = Vec::new();
        let mut again = String::new();
        for _ in 0..=ROUNDS {
            let observed = match self.observe(state, desired, fresh).await {
                Ok(observed) => observed,
                Err(error) => {
                    self.executor(state).take_back(&done).await;
                    return Err(error.into());
                }
            };
            let plan = Plan::new(desired, &observed).only(&concerned);
            let Some(first) = plan.steps().next() else { return Ok(observed) };
            again = first.to_string();
            self.run(state, &plan, &mut done).await?;
        }
        self.executor(state).take_back(&done).await;
        Err(Error::Unsettled(again))
    }

    /// One look: whatever is not as it shall be is put right, part by part; a part that fails does not hinder others.
    pub(super) async fn look(&self) {
        let mut state = self.state.lock().await;
        let Some(desired) = state.desired.clone() else { return };
        let (mut errors, since) = (Vec::new(), Instant::now());
        let observed = match self.observe(&mut state, &desired, None).await {
            Ok(observed) => observed,
            Err(error) => {
                metrics::reconcile_run(0, since.elapsed(), true);
                return self.note(Err(error.to_string()));
            }
        };
        let plan = Plan::new(&desired, &observed);
        let mut repairs = 0;
        for part in &plan.parts {
            let steps: Vec<String> = part.steps.iter().map(ToString::to_string).collect();
            let (mut done, since) = (Vec::new(), Instant::now());
            let taken = self.executor(&mut state).run(std::slice::from_ref(part), &mut done).await;
            metrics::reconcile_run(done.len() as u64, since.elapsed(), taken.is_err());
            match taken {
                Ok(()) => {
                    tracing::info!(subject = ?part.subject, ?steps, "segmentation put right");
                    repairs += done.len() as u64;
                }
                Err(error) => {
                    tracing::warn!(subject = ?part.subject, %error, "segmentation cannot be put right");
                    errors.push(error.to_string());
                }
            }
        }
        let observed = match repairs + errors.len() as u64 {
            0 => observed,
            _ => self.observe(&mut state, &desired, None).await.unwrap_or(observed),
        };
        let ports = ports(&desired, &observed);
        for port in &ports {
            match self.seal.keep(port.ifindex, &desired.workloads[&port.workload]) {
                Ok(repaired) => repairs += u64::from(repaired),
                Err(error) => errors.push(error),
            }
        }
        for (index, _) in observed.closed.iter().filter(|(_, closed)| closed.workload.is_none()) {
            if let Err(error) = self.seal.close(*index) {
                errors.push(error);
            }
        }
        metrics::reconcile_repairs(repairs);
        *self.own_mut() = own(&desired, &observed);
        let status = Status {
            helper_ended: self.helper.ended(),
            refusals: plan.refusals,
            errors,
            gone: observed.gone.clone(),
            ports,
            segments: segments(&desired, &observed),
            unguarded: match observed.guard {
                GuardState::Unsupported(words) => Some(words),
                GuardState::Absent | GuardState::As(_) | GuardState::Other => None,
            },
            found: observed.found,
            repairs,
        };
        self.note(Ok(status));
    }

    fn note(&self, found: Result<Status, String>) {
        self.status.send_if_modified(|status| {
            let before = status.clone();
            match found {
                Ok(found) => {
                    *status = found;
                    status.repairs += before.repairs;
                }
                Err(error) => status.errors = vec![error],
            }
            *status != before
        });
    }

    /// Takes a plan's steps, and counts them.
    pub(super) async fn run(&self, state: &mut State, plan: &Plan, done: &mut Vec<Step>) -> Result<(), ApplyError> {
        let (before, since) = (done.len(), Instant::now());
        let taken = self.executor(state).run(&plan.parts, done).await;
        metrics::reconcile_run((done.len() - before) as u64, since.elapsed(), taken.is_err());
        taken
    }

    pub(super) fn executor<'a>(&'a self, state: &'a mut State) -> Executor<'a> {
        let State { table, guard, homes, closed, .. } = state;
        let memory = Memory { table, guard, homes, closed };
        Executor::new(&self.netlink, &self.helper, &self.nft, &*self.seal, self.node, memory)
    }

    pub(super) fn own(&self) -> RwLockReadGuard<'_, BTreeMap<u32, Subject>> {
        self.own.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn own_mut(&self) -> RwLockWriteGuard<'_, BTreeMap<u32, Subject>> {
        self.own.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn concerns(&self, notice: &Notice) -> bool {
        match notice {
            Notice::Link { index } | Notice::Address { index } => !self.departures.contains(*index),
            Notice::Netfilter | Notice::Lost => true,
            Notice::RouteGone { connected } => *connected,
            Notice::Route => false,
            Notice::Neighbour { index, .. } | Notice::TrafficControl { index } => self.own().contains_key(index),
        }
    }
}
