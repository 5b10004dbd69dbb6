//! The handle of this flow: one desired state, brought about and kept.
//!
//! One lock: whoever plans holds it until the steps are taken, so that attaching, applying and repairing never overlap.
//! [`Status`] is a `watch` channel: a level, not a queue; nothing piles up when nobody reads it.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use config::names::Name;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;

use super::apply::{ApplyError, Executor, Loaded};
use super::desired::Desired;
use super::observe::{self, Homes, ObserveError, Observed, Table};
use super::plan::{self, Plan, Refusal, Subject, forbidden_changes};
use super::{Seal, names, ruleset};
use crate::sys::namespace_helper::{NamespaceHelper, OpenError};
use crate::sys::netlink::watch::{Notice, Watch};
use crate::sys::netlink::{Netlink, NetlinkError};
use crate::sys::netns::{Identity, Netns};
use crate::sys::nft::Nft;
use crate::telemetry::metrics;
use crate::workload::{Mac, Workload, WorkloadId};

/// How often a plan is made again when, after all its steps, there are still some to take.
const ROUNDS: usize = 3;

/// Segmentation of this node. Dropping it stops the watching and leaves every link as it is.
pub struct Segmentation {
    shared: Arc<Shared>,
    watcher: JoinHandle<()>,
}

/// Why something was not done. Nothing is left of what was begun.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be done.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Refused(Vec<Refusal>),
    /// A step failed.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The node cannot be looked at.
    #[error(transparent)]
    Observe(#[from] ObserveError),
    /// Steps come up again and again.
    #[error(
        "done, but not as it should be after {ROUNDS} rounds: `{0}` is needed again and again; another program is changing the same links"
    )]
    Unsettled(String),
    /// The workload is attached already.
    #[error("workload {0} is attached already; detach it first")]
    Attached(String),
    /// There is no such workload.
    #[error("no workload with number {} is attached", .0.0)]
    NotAttached(WorkloadId),
    /// There is no such network.
    #[error("workload {workload}: there is no network {network}; apply it first")]
    NoNetwork {
        /// NAMESPACE/NAME
        workload: String,
        /// Its network.
        network: Name,
    },
    /// The namespace helper is dead.
    #[error("the namespace helper is dead ({0}): restart the gateway to attach workloads")]
    Helper(String),
    /// The watch cannot be set up.
    #[error("cannot watch the node's links: {0}; the process needs CAP_NET_ADMIN")]
    Watch(#[source] std::io::Error),
}

/// A workload that is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Index of its host side.
    pub host_ifindex: u32,
    /// What it sees as its gateway.
    pub bridge_mac: Mac,
}

/// How things stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// How the namespace helper ended; it should not have.
    pub helper_ended: Option<String>,
    /// What of the desired state cannot be done.
    pub refusals: Vec<Refusal>,
    /// What failed when it was tried last.
    pub errors: Vec<String>,
    /// Workloads whose namespace is gone: to be detached, and their leases freed.
    pub gone: BTreeSet<WorkloadId>,
    /// Host sides of the workloads.
    pub ports: Vec<Port>,
    /// VLAN sub-interfaces.
    pub segments: Vec<Segment>,
    /// Steps taken to put back what others had changed, since the start.
    pub repairs: u64,
}

/// The host side of a workload, at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    /// Whose.
    pub workload: WorkloadId,
    /// The link's index.
    pub ifindex: u32,
    /// What the workload sees as its gateway.
    pub bridge_mac: Mac,
}

/// The VLAN side of a network, at present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The network.
    pub network: Name,
    /// Index of the VLAN sub-interface.
    pub ifindex: u32,
}

struct Shared {
    netlink: Netlink,
    helper: NamespaceHelper,
    nft: Nft,
    seal: Arc<dyn Seal>,
    node: Identity,
    state: Mutex<State>,
    status: watch::Sender<Status>,
    /// Indexes of our links, for the watch to know its neighbours.
    own: RwLock<BTreeSet<u32>>,
    /// Moved on when a look is wanted at once.
    look: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    /// `None` until it is said for the first time: until then nothing is touched.
    desired: Option<Desired>,
    table: Option<Loaded>,
    homes: Homes,
}

impl Segmentation {
    /// For the network namespace of the calling thread, inside a tokio runtime. Touches nothing until
    /// [`Segmentation::restore`] or [`Segmentation::apply`] says what shall be.
    pub fn open(helper: NamespaceHelper, seal: Arc<dyn Seal>) -> Result<Self, Error> {
        let shared = Arc::new(Shared {
            netlink: Netlink::open().map_err(ObserveError::from)?,
            helper,
            nft: Nft::default(),
            seal,
            node: Netns::current().map_err(Error::Watch)?.identity(),
            state: Mutex::default(),
            status: watch::Sender::default(),
            own: RwLock::default(),
            look: watch::Sender::default(),
        });
        let notices = Watch::open().map_err(Error::Watch)?;
        let (for_concerns, for_look) = (Arc::clone(&shared), Arc::clone(&shared));
        let asked = shared.look.subscribe();
        let watching = super::watch::run(
            notices,
            move |notice| for_concerns.concerns(notice),
            async move || for_look.look().await,
            asked,
        );
        Ok(Self { watcher: tokio::spawn(watching), shared })
    }

    /// Whether this kernel can make VLAN sub-interfaces; for `check` and `doctor`.
    pub async fn supports_vlan(&self) -> Result<bool, NetlinkError> {
        self.shared.netlink.supports_vlan().await
    }

    /// What it would take; changes nothing.
    pub async fn plan(&self, desired: &Desired) -> Result<Plan, Error> {
        let mut state = self.shared.state.lock().await;
        let observed = self.shared.observe(&mut state, desired, None).await?;
        let mut plan = Plan::new(desired, &observed);
        if let Some(old) = &state.desired {
            plan.refusals.extend(forbidden_changes(old, desired));
        }
        Ok(plan)
    }

    /// Takes a desired state over as it is, as after a restart, and does what can be done of it now. What cannot is in
    /// the status, and is tried again with every look.
    pub async fn restore(&self, desired: Desired) -> Status {
        self.shared.state.lock().await.desired = Some(desired);
        self.shared.learn_homes().await;
        self.shared.look().await;
        self.status()
    }

    /// Brings a desired state about, all of it or nothing: refused if something new in it cannot be done.
    pub async fn apply(&self, desired: &Desired) -> Result<(), Error> {
        let mut state = self.shared.state.lock().await;
        let old = state.desired.clone().unwrap_or_default();
        let observed = self.shared.observe(&mut state, desired, None).await?;
        let known = Plan::new(&old, &observed).refusals;
        let mut refusals = Plan::new(desired, &observed).refusals;
        refusals.retain(|refusal| !known.contains(refusal));
        refusals.extend(forbidden_changes(&old, desired));
        if !refusals.is_empty() {
            return Err(Error::Refused(refusals));
        }
        self.shared.bring_about(&mut state, desired, None, |_| true).await?;
        state.desired = Some(desired.clone());
        drop(state);
        self.shared.look.send_modify(|number| *number += 1);
        Ok(())
    }

    /// Connects a workload: its pair, addresses, routes, seal and port. Undone as a whole if anything fails.
    pub async fn attach(&self, workload: &Workload) -> Result<Attached, Error> {
        if let Some(how) = self.shared.helper.ended() {
            return Err(Error::Helper(how));
        }
        let mut state = self.shared.state.lock().await;
        let mut desired = state.desired.clone().unwrap_or_default();
        let label = plan::label(workload);
        if desired.workloads.values().any(|other| other.id == workload.id || plan::label(other) == label) {
            return Err(Error::Attached(label));
        }
        if !desired.networks.contains_key(&workload.network) {
            return Err(Error::NoNetwork { workload: label, network: workload.network.clone() });
        }
        desired.workloads.insert(workload.id, workload.clone());
        let observed = self.shared.observe(&mut state, &desired, Some(workload.id)).await?;
        let mut refusals = Plan::new(&desired, &observed).refusals;
        refusals.retain(|refusal| refusal.hinders(&workload.network, &label));
        if !refusals.is_empty() {
            return Err(Error::Refused(refusals));
        }
        let concerned = |subject: &Subject| match subject {
            Subject::Node => true,
            Subject::Network(network) => *network == workload.network,
            Subject::Workload(id) => *id == workload.id,
            Subject::Leftover => false,
        };
        let observed = self.shared.bring_about(&mut state, &desired, Some(workload.id), concerned).await?;
        let port = ports(&desired, &observed).into_iter().find(|port| port.workload == workload.id);
        let port = port.ok_or_else(|| Error::Unsettled(format!("add pair {}", workload.host_interface)))?;
        state.desired = Some(desired);
        drop(state);
        self.shared.look.send_modify(|number| *number += 1);
        Ok(Attached { host_ifindex: port.ifindex, bridge_mac: port.bridge_mac })
    }

    /// Disconnects a workload, whether its namespace still is there or not.
    pub async fn detach(&self, id: WorkloadId) -> Result<(), Error> {
        let mut state = self.shared.state.lock().await;
        let mut desired = state.desired.clone().unwrap_or_default();
        let workload = desired.workloads.remove(&id).ok_or(Error::NotAttached(id))?;
        let observed = self.shared.observe(&mut state, &desired, None).await?;
        let index = observed.link(&workload.host_interface).map(|link| link.index);
        let concerned = |subject: &Subject| match subject {
            Subject::Network(network) => *network == workload.network,
            Subject::Leftover => true,
            Subject::Node | Subject::Workload(_) => false,
        };
        self.shared.bring_about(&mut state, &desired, None, concerned).await?;
        if let Some(index) = index {
            self.shared.seal.unseal(index, &workload);
        }
        state.homes.remove(&id);
        state.desired = Some(desired);
        drop(state);
        self.shared.look.send_modify(|number| *number += 1);
        Ok(())
    }

    /// How things stand now.
    pub fn status(&self) -> Status {
        self.shared.status.borrow().clone()
    }

    /// Tells when the status changes.
    pub fn subscribe(&self) -> watch::Receiver<Status> {
        self.shared.status.subscribe()
    }
}

impl Drop for Segmentation {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}

impl Shared {
    /// Looks at the node; `fresh` is a workload that is being attached, whose namespace is as its path says.
    async fn observe(
        &self,
        state: &mut State,
        desired: &Desired,
        fresh: Option<WorkloadId>,
    ) -> Result<Observed, ObserveError> {
        let mut observed = Observed::take(&self.netlink).await?;
        observed.table = match self.nft.list(ruleset::FAMILY, ruleset::TABLE).await? {
            None => Table::Absent,
            Some(listing) => match &state.table {
                Some(loaded) if loaded.listing == listing => Table::As(loaded.ruleset.clone()),
                _ => Table::Other,
            },
        };
        for workload in desired.workloads.values().filter(|workload| Some(workload.id) != fresh) {
            if observed.link(&workload.host_interface).is_none() && self.is_gone(workload, &state.homes).await {
                observed.gone.insert(workload.id);
            }
        }
        Ok(observed)
    }

    /// Whether the namespace at a workload's path is not (or, after a restart, not certainly) the one it was attached in.
    async fn is_gone(&self, workload: &Workload, homes: &Homes) -> bool {
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
    async fn learn_homes(&self) {
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
    async fn bring_about(
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
            count(done.len() - before, since, taken.is_err());
            taken?;
        }
        self.executor(state).take_back(&done).await;
        Err(Error::Unsettled(again))
    }

    /// One look: whatever is not as it shall be is put right, part by part; a part that fails does not hinder others.
    async fn look(&self) {
        let mut state = self.state.lock().await;
        let Some(desired) = state.desired.clone() else { return };
        let mut errors = Vec::new();
        let observed = match self.observe(&mut state, &desired, None).await {
            Ok(observed) => observed,
            Err(error) => return self.note(Err(error.to_string())),
        };
        let plan = Plan::new(&desired, &observed);
        let mut repairs = 0;
        for part in &plan.parts {
            let steps: Vec<String> = part.steps.iter().map(ToString::to_string).collect();
            let (mut done, since) = (Vec::new(), Instant::now());
            let taken = self.executor(&mut state).run(std::slice::from_ref(part), &mut done).await;
            count(done.len(), since, taken.is_err());
            match taken {
                Ok(()) => {
                    tracing::info!(subject = ?part.subject, ?steps, "segmentation put right");
                    repairs += done.len() as u64;
                    metrics::reconcile_repairs(done.len() as u64);
                }
                Err(error) => {
                    tracing::warn!(subject = ?part.subject, %error, "segmentation cannot be put right");
                    errors.push(error.to_string());
                }
            }
        }
        let observed = match repairs {
            0 => observed,
            _ => self.observe(&mut state, &desired, None).await.unwrap_or(observed),
        };
        *self.own.write().unwrap_or_else(PoisonError::into_inner) = own(&observed);
        let status = Status {
            helper_ended: self.helper.ended(),
            refusals: plan.refusals,
            errors,
            gone: observed.gone.clone(),
            ports: ports(&desired, &observed),
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

    fn concerns(&self, notice: &Notice) -> bool {
        match notice {
            Notice::Link | Notice::Address | Notice::Netfilter | Notice::Lost => true,
            Notice::RouteGone { connected } => *connected,
            Notice::Neighbour { index } => self.own.read().unwrap_or_else(PoisonError::into_inner).contains(index),
            // The kernel programs are looked after by the egress flow.
            Notice::TrafficControl { .. } => false,
        }
    }
}

fn own(observed: &Observed) -> BTreeSet<u32> {
    let marked = |alias: &String| names::is_ours(alias);
    observed.links.iter().filter(|link| link.alias.as_ref().is_some_and(marked)).map(|link| link.index).collect()
}

fn ports(desired: &Desired, observed: &Observed) -> Vec<Port> {
    let port = |workload: &Workload| {
        let link = observed.link(&workload.host_interface)?;
        let bridge_mac = names::link_mac(&desired.node.seed, &names::bridge(&workload.network));
        (link.alias == Some(names::workload_mark(workload))).then_some(Port {
            workload: workload.id,
            ifindex: link.index,
            bridge_mac,
        })
    };
    desired.workloads.values().filter_map(port).collect()
}

fn segments(desired: &Desired, observed: &Observed) -> Vec<Segment> {
    let segment = |network: &config::resource::Network| {
        let link = network.vlan.as_ref().and_then(|_| observed.link(&names::vlan(&network.name)))?;
        Some(Segment { network: network.name.clone(), ifindex: link.index })
    };
    desired.networks.values().filter_map(segment).collect()
}

fn count(steps: usize, since: Instant, failed: bool) {
    metrics::reconcile_run(steps as u64, since.elapsed(), failed);
}
