//! The handle of this flow: applying networks, attaching and detaching workloads.

use std::sync::{Arc, RwLock};

use config::names::{InterfaceName, Name};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;

use super::Seal;
use super::adoption::FoundGuest;
use super::apply::ApplyError;
use super::departure::Departures;
use super::desired::Desired;
use super::keeper::{Keeper, ROUNDS};
use super::observe::ObserveError;
use super::plan::{self, Plan, Refusal, Subject, forbidden_changes};
use super::status::{Status, ports};
use crate::sys::namespace_helper::NamespaceHelper;
use crate::sys::netlink::watch::Watch;
use crate::sys::netlink::{Netlink, NetlinkError};
use crate::sys::netns::Netns;
use crate::sys::nft::Nft;
use crate::workload::{Mac, Workload, WorkloadId};

/// Segmentation of this node. Dropping it stops the watching and leaves every link as it is.
pub struct Segmentation {
    keeper: Arc<Keeper>,
    watcher: JoinHandle<()>,
    departing: JoinHandle<()>,
    closing: JoinHandle<()>,
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

impl Segmentation {
    /// For the network namespace of the calling thread, inside a tokio runtime. Touches nothing until
    /// [`Segmentation::restore`] or [`Segmentation::apply`] says what shall be.
    pub fn open(helper: NamespaceHelper, seal: Arc<dyn Seal>) -> Result<Self, Error> {
        let keeper = Arc::new(Keeper {
            netlink: Netlink::open().map_err(ObserveError::from)?,
            helper,
            nft: Nft::default(),
            seal,
            node: Netns::current().map_err(Error::Watch)?.identity(),
            state: Mutex::default(),
            status: watch::Sender::default(),
            own: RwLock::default(),
            adopted: RwLock::default(),
            departures: Departures::default(),
            look: watch::Sender::default(),
        });
        let notices = Watch::open().map_err(Error::Watch)?;
        let (for_concerns, for_look) = (Arc::clone(&keeper), Arc::clone(&keeper));
        let asked = keeper.look.subscribe();
        let watching = super::watch::run(
            notices,
            move |notice| for_concerns.concerns(notice),
            async move |named| match named {
                Some(notices) if for_look.is_well(&notices).await => false,
                named => {
                    tracing::debug!(?named, "a look at everything");
                    for_look.look().await;
                    true
                }
            },
            asked,
        );
        let by_itself = Netlink::open().map_err(ObserveError::from)?;
        let departing = tokio::spawn(Arc::clone(&keeper).see_off(by_itself));
        let (notices, by_itself) =
            (Watch::of_links().map_err(Error::Watch)?, Netlink::open().map_err(ObserveError::from)?);
        let closing = tokio::spawn(Arc::clone(&keeper).close_at_sight(notices, by_itself));
        Ok(Self { watcher: tokio::spawn(watching), departing, closing, keeper })
    }

    /// Whether this kernel can make VLAN sub-interfaces; for `check` and `doctor`.
    pub async fn supports_vlan(&self) -> Result<bool, NetlinkError> {
        self.keeper.netlink.supports_vlan().await
    }

    /// What it would take; changes nothing.
    pub async fn plan(&self, desired: &Desired) -> Result<Plan, Error> {
        let mut state = self.keeper.state.lock().await;
        let observed = self.keeper.observe(&mut state, desired, None).await?;
        let mut plan = Plan::new(desired, &observed);
        if let Some(old) = &state.desired {
            plan.refusals.extend(forbidden_changes(old, desired));
        }
        Ok(plan)
    }

    /// Takes a desired state over as it is, as after a restart, and does what can be done of it now. What cannot is in
    /// the status, and is tried again with every look.
    pub async fn restore(&self, desired: Desired) -> Status {
        self.keeper.state.lock().await.desired = Some(Arc::new(desired));
        self.keeper.learn_homes().await;
        self.keeper.look().await;
        self.status()
    }

    /// Brings a desired state about, all of it or nothing: refused if something new in it cannot be done.
    pub async fn apply(&self, desired: &Desired) -> Result<(), Error> {
        let mut state = self.keeper.state.lock().await;
        let old = state.desired.clone().unwrap_or_default();
        let observed = self.keeper.observe(&mut state, desired, None).await?;
        let known = Plan::new(&old, &observed).refusals;
        let mut refusals = Plan::new(desired, &observed).refusals;
        refusals.retain(|refusal| !known.contains(refusal));
        refusals.extend(forbidden_changes(&old, desired));
        if !refusals.is_empty() {
            return Err(Error::Refused(refusals));
        }
        self.keeper.bring_about(&mut state, desired, None, |_| true).await?;
        state.desired = Some(Arc::new(desired.clone()));
        drop(state);
        self.keeper.look.send_modify(|number| *number += 1);
        Ok(())
    }

    /// Interfaces in a workload's namespace that are up, apart from loopback. None where the namespace cannot be opened:
    /// attaching says why.
    pub async fn interfaces_inside(&self, workload: &Workload) -> Result<Vec<InterfaceName>, NetlinkError> {
        let helper = &self.keeper.helper;
        let Ok(netns) = helper.open_namespace(&workload.netns).await else { return Ok(Vec::new()) };
        let Ok(netlink) = helper.netlink_inside(&netns).await else { return Ok(Vec::new()) };
        let others = async || -> Result<Vec<InterfaceName>, NetlinkError> {
            let links = netlink.links().await?.into_iter();
            Ok(links.filter(|link| link.up && link.name.as_str() != "lo").map(|link| link.name).collect())
        };
        match others().await? {
            none if none.is_empty() => Ok(none),
            _ => {
                self.keeper.departures.over(|_| true).await; // one of them may be what was here before
                others().await
            }
        }
    }

    /// Connects a workload: its pair, addresses, routes, seal and port. Undone as a whole if anything fails.
    pub async fn attach(&self, workload: &Workload) -> Result<Attached, Error> {
        if let Some(how) = self.keeper.helper.ended() {
            return Err(Error::Helper(how));
        }
        let in_the_way =
            |other: &Workload| !workload.adopted && (other.netns == workload.netns || other.mac == workload.mac);
        self.keeper.departures.over(in_the_way).await;
        let mut state = self.keeper.state.lock().await;
        let label = plan::label(workload);
        let present = state.desired.get_or_insert_default();
        let same = |other: &Workload| (&other.namespace, &other.name) == (&workload.namespace, &workload.name);
        if present.workloads.contains_key(&workload.id) || present.workloads.values().any(same) {
            return Err(Error::Attached(label));
        }
        if !present.networks.contains_key(&workload.network) {
            return Err(Error::NoNetwork { workload: label, network: workload.network.clone() });
        }
        if let Some(port) = self.keeper.connect(&mut state, workload).await? {
            drop(state);
            return Ok(Attached { host_ifindex: port.ifindex, bridge_mac: port.bridge_mac });
        }
        let mut desired = Desired::clone(state.desired.get_or_insert_default());
        desired.workloads.insert(workload.id, workload.clone());
        let observed = self.keeper.observe(&mut state, &desired, Some(workload.id)).await?;
        let mut refusals = Plan::new(&desired, &observed).refusals;
        refusals.retain(|refusal| refusal.hinders(&workload.network, &label));
        if !refusals.is_empty() {
            return Err(Error::Refused(refusals));
        }
        let concerned = |subject: &Subject| match subject {
            Subject::Node => true,
            Subject::Network(network) => *network == workload.network,
            Subject::Workload(id) => *id == workload.id,
            Subject::Leftover | Subject::Egress => false,
        };
        let observed = self.keeper.bring_about(&mut state, &desired, Some(workload.id), concerned).await?;
        let port = ports(&desired, &observed).into_iter().find(|port| port.workload == workload.id);
        let port = port.ok_or_else(|| Error::Unsettled(format!("add pair {}", workload.host_interface)))?;
        state.desired = Some(Arc::new(desired));
        drop(state);
        self.keeper.look.send_modify(|number| *number += 1);
        Ok(Attached { host_ifindex: port.ifindex, bridge_mac: port.bridge_mac })
    }

    /// Disconnects a workload, whether its namespace still is there or not. Its link may be there for a moment
    /// ([`Segmentation::departed`]), on an error until a later look: the workload is no longer wanted.
    pub async fn detach(&self, id: WorkloadId) -> Result<(), Error> {
        let mut state = self.keeper.state.lock().await;
        let desired = Arc::make_mut(state.desired.get_or_insert_default());
        let workload = desired.workloads.remove(&id).ok_or(Error::NotAttached(id))?;
        state.homes.remove(&id);
        let disconnected = self.keeper.disconnect(&mut state, &workload).await;
        drop(state);
        if disconnected.is_err() {
            self.keeper.look.send_modify(|number| *number += 1);
        }
        disconnected
    }

    /// Waits until nothing is left of a workload that was detached.
    pub async fn departed(&self, id: WorkloadId) {
        self.keeper.departures.over(|workload| workload.id == id).await;
    }

    /// Whether the network namespace that a workload was attached in is gone, and its link with it.
    pub async fn is_gone(&self, workload: &Workload) -> bool {
        let state = self.keeper.state.lock().await;
        matches!(self.keeper.netlink.link(&workload.host_interface).await, Ok(None))
            && (workload.adopted || self.keeper.is_gone(workload, &state.homes).await)
    }

    /// The interface of a container that others made: its side of the node, and what it has inside.
    pub async fn made_by_others(
        &self,
        netns: &std::path::Path,
        interface: &InterfaceName,
    ) -> Result<(InterfaceName, FoundGuest), String> {
        self.keeper.made_by_others(netns, interface).await
    }

    /// Calls for a look at everything, soon.
    pub fn look_again(&self) {
        self.keeper.look.send_modify(|number| *number += 1);
    }

    /// Whether a workload is connected as it was made, inside too; what is not so, in words.
    pub async fn verify(&self, workload: &Workload) -> Result<(), String> {
        self.keeper.verify(workload).await
    }

    /// How things stand now.
    pub fn status(&self) -> Status {
        self.keeper.status.borrow().clone()
    }

    /// Tells when the status changes.
    pub fn subscribe(&self) -> watch::Receiver<Status> {
        self.keeper.status.subscribe()
    }
}

impl Drop for Segmentation {
    fn drop(&mut self) {
        self.watcher.abort();
        self.departing.abort();
        self.closing.abort();
    }
}
