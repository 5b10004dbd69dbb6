//! The running daemon as one value: what the flows have in common, and who may touch it.
//!
//! | lock or channel | guards | held |
//! |---|---|---|
//! | `applying` | one change of resources at a time | for a whole change, across awaits; `changing` is taken inside it |
//! | `changing` | one change of desired state at a time | for a whole change, across awaits; for a portion of a long address set |
//! | `looking` | one look at the uplink at a time | for a whole look, across awaits; `changing` is taken inside it |
//! | `desired` (watch) | the state in force; readers take a snapshot | for a pointer's copy |
//! | `trial` | the change that waits for its confirmation | for one copy or replacement |
//! | `conditions` | what `status` names | for one insert or removal |
//! | `announced` | egress addresses that the uplink's segment was told of | for one replacement |
//! | `segments` | who is heard on networks' VLANs | for a pointer's copy |
//! | `uplink` | the way past the stack, where addresses are translated, the default routes | for one copy |

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::SystemTime;

use config::api::{Condition, ConditionState, Segment, Timestamp};
use config::names::{InterfaceName, Name};
use config::upstream::Upstream;
use tokio::sync::watch;

use super::desired::Desired;
use super::enforcement::Enforcement;
use super::history::History;
use super::trial::Trial;
use super::uplink::FastPath;
use super::upstreams;
use crate::edge::Edge;
use crate::egress::dns;
use crate::segmentation::ipam::Cursor;
use crate::segmentation::{self, Segmentation};
use crate::service::Service;
use crate::settings::Settings;
use crate::store::Store;
use crate::sys::netlink::DefaultRoute;

/// The running daemon.
pub(crate) struct Gate {
    pub(crate) settings: Settings,
    pub(crate) started: Timestamp,
    pub(crate) store: Store,
    pub(crate) enforcement: Arc<Enforcement>,
    pub(crate) segmentation: Segmentation,
    pub(crate) edge: Edge,
    pub(crate) service: Arc<Service>,
    pub(crate) history: History,
    /// The node's own DNS servers.
    pub(crate) upstreams: Arc<[Upstream]>,
    /// How DNS servers do, from the moment on that they are asked.
    pub(crate) upstream_health: OnceLock<dns::Health>,
    pub(crate) segmentation_node: segmentation::Node,
    /// Whether the kernel makes VLAN interfaces.
    pub(crate) vlan: bool,
    /// Where the next free address is looked for.
    pub(crate) cursor: Mutex<Cursor>,
    pub(crate) applying: tokio::sync::Mutex<()>,
    pub(crate) changing: tokio::sync::Mutex<()>,
    pub(crate) looking: tokio::sync::Mutex<()>,
    pub(crate) desired: watch::Sender<Arc<Desired>>,
    conditions: Mutex<BTreeMap<String, Condition>>,
    trial: Mutex<Option<Arc<Trial>>>,
    uplink: Mutex<Uplink>,
    announced: Mutex<BTreeSet<(u32, IpAddr)>>,
    segments: Mutex<Arc<BTreeMap<Name, Segment>>>,
    /// Another device may be the default route's now.
    pub(crate) routes_moved: AtomicBool,
    /// When the inspector's thread went round last, in milliseconds since the node started; 0: it reads nothing.
    pub(crate) inspected_ms: AtomicU64,
}

/// What was found of the uplink last.
#[derive(Debug, Default)]
struct Uplink {
    fast_path: FastPath,
    nat: Option<(InterfaceName, u32)>,
    device: Option<u32>,
    default_routes: Vec<DefaultRoute>,
}

/// Parts of a [`Gate`], made by `start`.
pub(crate) struct Parts {
    pub(crate) settings: Settings,
    pub(crate) store: Store,
    pub(crate) enforcement: Arc<Enforcement>,
    pub(crate) segmentation: Segmentation,
    pub(crate) edge: Edge,
    pub(crate) service: Arc<Service>,
    pub(crate) segmentation_node: segmentation::Node,
    pub(crate) upstreams: Arc<[Upstream]>,
    pub(crate) vlan: bool,
}

impl Gate {
    /// Nothing is desired yet.
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { settings, store, enforcement, segmentation, segmentation_node, edge, service, upstreams, vlan } =
            parts;
        Self {
            settings,
            started: SystemTime::now().into(),
            store,
            enforcement,
            segmentation,
            edge,
            service,
            history: History::new(),
            upstreams,
            upstream_health: OnceLock::new(),
            segmentation_node,
            vlan,
            cursor: Mutex::default(),
            applying: tokio::sync::Mutex::new(()),
            changing: tokio::sync::Mutex::new(()),
            looking: tokio::sync::Mutex::new(()),
            desired: watch::Sender::new(Arc::new(Desired::default())),
            conditions: Mutex::default(),
            trial: Mutex::default(),
            uplink: Mutex::default(),
            announced: Mutex::default(),
            segments: Mutex::default(),
            routes_moved: AtomicBool::new(true),
            inspected_ms: AtomicU64::new(0),
        }
    }

    /// The state in force.
    pub(crate) fn now(&self) -> Arc<Desired> {
        Arc::clone(&self.desired.borrow())
    }

    fn uplink(&self) -> MutexGuard<'_, Uplink> {
        self.uplink.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Egress addresses that the uplink's segment was told of, by device.
    pub(crate) fn announced(&self) -> MutexGuard<'_, BTreeSet<(u32, IpAddr)>> {
        self.announced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who is heard on networks' VLANs.
    pub(crate) fn segments(&self) -> Arc<BTreeMap<Name, Segment>> {
        Arc::clone(&self.segments.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes note of it.
    pub(crate) fn set_segments(&self, segments: BTreeMap<Name, Segment>) {
        *self.segments.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(segments);
    }

    /// The way past the node's stack.
    pub(crate) fn fast_path(&self) -> FastPath {
        self.uplink().fast_path.clone()
    }

    /// Takes note of it; whether that is news.
    pub(crate) fn set_fast_path(&self, now: FastPath) -> bool {
        std::mem::replace(&mut self.uplink().fast_path, now.clone()) != now
    }

    /// Where the kernel programs translate addresses; on all other devices the node's own masquerade does.
    pub(crate) fn nat_device(&self) -> Option<(InterfaceName, u32)> {
        self.uplink().nat.clone()
    }

    /// Takes note of it.
    pub(crate) fn set_nat_device(&self, device: Option<(InterfaceName, u32)>) {
        self.uplink().nat = device;
    }

    /// The device towards the world, whoever translates there.
    pub(crate) fn uplink_device(&self) -> Option<u32> {
        self.uplink().device
    }

    /// Takes note of it.
    pub(crate) fn set_uplink_device(&self, device: Option<u32>) {
        self.uplink().device = device;
    }

    /// As they were found when they last changed.
    pub(crate) fn default_routes(&self) -> Vec<DefaultRoute> {
        self.uplink().default_routes.clone()
    }

    /// Takes note of them.
    pub(crate) fn set_default_routes(&self, routes: Vec<DefaultRoute>) {
        self.uplink().default_routes = routes;
    }

    /// Somebody should know. The same text again keeps its time.
    pub(crate) fn raise(&self, what: &str, state: ConditionState, text: String, mend: &str) {
        let mut conditions = self.conditions.lock().unwrap_or_else(PoisonError::into_inner);
        if conditions.get(what).is_some_and(|known| known.text == text && known.state == state) {
            return;
        }
        tracing::warn!(what, %state, "{text}; {mend}");
        let since = SystemTime::now().into();
        let condition = Condition { what: what.to_owned(), state, since, text, mend: mend.to_owned() };
        conditions.insert(what.to_owned(), condition);
    }

    /// It is well again.
    pub(crate) fn clear(&self, what: &str) {
        self.conditions.lock().unwrap_or_else(PoisonError::into_inner).remove(what);
    }

    /// The change that waits for its confirmation.
    pub(crate) fn trial(&self) -> MutexGuard<'_, Option<Arc<Trial>>> {
        self.trial.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What falls short now.
    pub(crate) fn conditions(&self) -> Vec<Condition> {
        let raised = self.conditions.lock().unwrap_or_else(PoisonError::into_inner).clone();
        raised.into_values().chain(upstreams::condition(self)).collect()
    }

    /// Network and workload conditions by name, for their `status`.
    pub(crate) fn broken(&self) -> BTreeMap<String, String> {
        self.conditions().into_iter().map(|condition| (condition.what, condition.text)).collect()
    }
}
