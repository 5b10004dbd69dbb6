//! Bringing a desired state about and keeping it: looking, planning, taking steps, and saying how things stand.
//!
//! Whoever plans holds the lock of [`State`] until the steps are taken, so that attaching, applying and repairing never
//! overlap. [`Status`] is a `watch` channel: a level, not a queue; nothing piles up when nobody reads it.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use tokio::sync::{Mutex, watch};

use super::Seal;
use super::apply::Executor;
use super::desired::{Desired, Shape};
use super::observe::{self, Homes, ObserveError, Observed};
use super::plan::{Plan, Subject};
use super::reconcile::Error;
use super::status::{Port, Status, own, ports, segments};
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
    /// Indexes of our links, for the watch to know its neighbours.
    pub(super) own: RwLock<BTreeSet<u32>>,
    /// Moved on when a look is wanted at once.
    pub(super) look: watch::Sender<u64>,
}

#[derive(Default)]
pub(super) struct State {
    /// `None` until it is said for the first time: until then nothing is touched.
    pub(super) desired: Option<Desired>,
    pub(super) table: TableMemory,
    pub(super) homes: Homes,
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
        observed.table = state.table.look(&self.nft).await?;
        for workload in desired.workloads.values().filter(|workload| Some(workload.id) != fresh) {
            if observed.link(&workload.host_interface).is_none() && self.is_gone(workload, &state.homes).await {
                observed.gone.insert(workload.id);
            }
        }
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
            let (before, since) = (done.len(), Instant::now());
            let taken = self.executor(state).run(&plan.parts, &mut done).await;
            metrics::reconcile_run((done.len() - before) as u64, since.elapsed(), taken.is_err());
            taken?;
        }
        self.executor(state).take_back(&done).await;
        Err(Error::Unsettled(again))
    }

    /// Connects a workload to a network that is in place, at a cost that does not grow with the others. `None`, with
    /// nothing done, where that cannot be; a look at the whole node then tells what is missing.
    pub(super) async fn connect(&self, state: &mut State, workload: &Workload) -> Result<Option<Port>, Error> {
        let Some(desired) = state.desired.as_mut() else { return Ok(None) };
        desired.workloads.insert(workload.id, workload.clone());
        let mut done = Vec::new();
        let connected = self.try_connect(state, workload, &mut done).await;
        match &connected {
            Ok(Some(port)) => {
                self.own.write().unwrap_or_else(PoisonError::into_inner).insert(port.ifindex);
                self.status.send_modify(|status| status.ports.push(*port));
            }
            Ok(None) | Err(_) => {
                if let Some(desired) = state.desired.as_mut() {
                    desired.workloads.remove(&workload.id);
                }
            }
        }
        connected
    }

    async fn try_connect(
        &self,
        state: &mut State,
        workload: &Workload,
        done: &mut Vec<Step>,
    ) -> Result<Option<Port>, Error> {
        let mut again = String::new();
        for round in 0..=ROUNDS {
            let (plan, observed) = match self.near(state, workload, round > 0).await {
                Ok(Some(found)) => found,
                Ok(None) if done.is_empty() => return Ok(None),
                Ok(None) => break,
                Err(error) => {
                    self.executor(state).take_back(done).await;
                    return Err(error.into());
                }
            };
            if round == 0 && !plan.refusals.is_empty() {
                return Err(Error::Refused(plan.refusals));
            }
            let Some(first) = plan.steps().next() else {
                let own = Desired {
                    workloads: [(workload.id, workload.clone())].into(),
                    node: state.desired.iter().map(|desired| desired.node.clone()).next().unwrap_or_default(),
                    ..Desired::default()
                };
                return Ok(ports(&own, &observed).pop());
            };
            again = first.to_string();
            let (before, since) = (done.len(), Instant::now());
            let taken = self.executor(state).run(&plan.parts, done).await;
            metrics::reconcile_run((done.len() - before) as u64, since.elapsed(), taken.is_err());
            taken?;
        }
        self.executor(state).take_back(done).await;
        Err(Error::Unsettled(again))
    }

    /// A look at a workload's surroundings, and what is to be done there; `None` where more must be looked at.
    async fn near(
        &self,
        state: &mut State,
        workload: &Workload,
        made: bool,
    ) -> Result<Option<(Plan, Observed)>, ObserveError> {
        let Some(network) = state.desired.as_ref().and_then(|desired| desired.networks.get(&workload.network)) else {
            return Ok(None);
        };
        let Some(mut observed) = Observed::near(&self.netlink, network, workload, made).await? else {
            return Ok(None);
        };
        // Turning IPv6 forwarding on concerns every link.
        if observed.ipv6_forward == Some(0) && network.routes(false) {
            return Ok(None);
        }
        observed.table = state.table.look(&self.nft).await?;
        let Some(desired) = &state.desired else { return Ok(None) };
        Ok(Some((Plan::near(desired, workload, &observed), observed)))
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
        metrics::reconcile_repairs(repairs);
        *self.own.write().unwrap_or_else(PoisonError::into_inner) = own(&observed);
        let status = Status {
            helper_ended: self.helper.ended(),
            refusals: plan.refusals,
            errors,
            gone: observed.gone.clone(),
            ports,
            segments: segments(&desired, &observed),
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

    fn executor<'a>(&'a self, state: &'a mut State) -> Executor<'a> {
        let memory = (&mut state.table, &mut state.homes);
        Executor::new(&self.netlink, &self.helper, &self.nft, &*self.seal, self.node, memory)
    }

    pub(super) fn concerns(&self, notice: &Notice) -> bool {
        match notice {
            Notice::Link | Notice::Address | Notice::Netfilter | Notice::Lost => true,
            Notice::RouteGone { connected } => *connected,
            Notice::Route => false,
            Notice::Neighbour { index } | Notice::TrafficControl { index } => {
                self.own.read().unwrap_or_else(PoisonError::into_inner).contains(index)
            }
        }
    }
}
