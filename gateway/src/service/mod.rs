//! The service namespace: where the daemon's own sockets meet workloads.
//!
//! A network namespace that the daemon owns, joined to the node by the veth pair `tg0` (node) and `tg1` (inside). The
//! kernel programs move a workload's packets to and from `tg0`, rewriting the workload's address to its *handle*; so
//! inside, a peer address says who, and AnyIP routes let ordinary wildcard sockets see whom they asked.
//!
//! 1. [`Service::start`] runs on the node's side while CAP_SYS_ADMIN is still held. It starts one thread for good
//!    ([`thread`]), which opens a netlink socket on the node's side and then moves into the namespace: the one that
//!    an earlier daemon left at `<runtime_dir>/netns/service`, or a new one that is then held there ([`namespace`]).
//! 2. The thread makes the links, addresses, routes and sysctls, or puts right what differs ([`links`], [`addresses`]).
//!    A pair that is already right is left alone, so that `tg0`'s index, and what is attached to it, outlive the daemon.
//!    On `tg0` the node's stack neither forwards nor speaks IPv6, so that nothing leaks while no program is attached to it.
//! 3. Whatever needs sockets in the namespace runs on that thread ([`Service::spawn`]), or has one made there and
//!    handed over ([`Service::dial`], file [`dial`]).
//! 4. [`Service::ensure`] is step 2 again: the composition calls it when links change, and on a timer. It needs CAP_NET_ADMIN only.
//!    Links, addresses and routes are asked for through `sys::netlink::raw`.
//! 5. [`remove`] takes everything away, for uninstalling.
//!
//! Bounded things: [`Service`] owns the semaphore of [`DIALS`] connections being made (a dial past it waits within its
//! own deadline) and the lock that lets one `ensure` run at a time. What [`Service::spawn`] is given bounds itself.

mod addresses;
mod dial;
mod links;
mod namespace;
mod thread;

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ipnetwork::{Ipv4Network, Ipv6Network};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use crate::sys::sysctl::SysctlError;
use crate::workload::Mac;

pub use addresses::{EDGE_V4, EDGE_V6, service_v4, service_v6};
pub use links::{Ensured, TG0, TG0_MAC, TG1, TG1_MAC};
pub use namespace::remove;

/// Connections being made at one time.
pub const DIALS: usize = 1024;

/// What the service namespace depends on.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[node] runtime_dir`; the namespace is held at `netns/service` below it.
    pub runtime_dir: PathBuf,
    /// `[node] handles_v4`
    pub handles_v4: Ipv4Network,
    /// `[node] handles_v6`
    pub handles_v6: Ipv6Network,
}

/// The running service namespace. Dropping it ends the thread; the namespace and its links stay for the next daemon.
#[derive(Debug)]
pub struct Service {
    thread: thread::Thread,
    links: Arc<Mutex<links::Links>>,
    tg0: AtomicU32,
    dials: Arc<Semaphore>,
}

/// Why the service namespace is not there.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The namespace could not be made, entered or removed.
    #[error(
        "cannot {doing} {path}: {source}; start the gateway as root with CAP_SYS_ADMIN and a runtime directory it may write"
    )]
    Namespace {
        /// The step.
        doing: &'static str,
        /// Its file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The runtime directory holds the node's own namespace.
    #[error("{path} is the node's own network namespace; unmount it (`umount {path}`) and start again")]
    NodesOwn {
        /// Its file.
        path: PathBuf,
    },
    /// A device of that name belongs to somebody else.
    #[error("the node has a device `{TG0}` that is not Tidegate's; rename it (`ip link set {TG0} name …`)")]
    Foreign,
    /// A netlink request failed.
    #[error("cannot {doing}: {source}; see `gateway check` for kernel features and capabilities (veth, CAP_NET_ADMIN)")]
    Netlink {
        /// The step.
        doing: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A sysctl could not be written.
    #[error("for the service namespace's links: {0}")]
    Sysctl(#[from] SysctlError),
    /// The thread could not be started.
    #[error(
        "cannot start the service namespace's thread: {0}; look at the process's limits (`ulimit -u`, `ulimit -n`)"
    )]
    Thread(io::Error),
    /// The thread has ended.
    #[error("the service namespace's thread has ended; restart the gateway")]
    Stopped,
}

impl Service {
    /// Makes or takes over the namespace. The node's side is the namespace of the calling thread. Blocks while it
    /// waits for the kernel: call it outside of a runtime, or on a thread of your own. Needs CAP_SYS_ADMIN and CAP_NET_ADMIN.
    pub fn start(config: &Config) -> Result<Self, ServiceError> {
        let (thread, links, ensured) = thread::start(config)?;
        addresses::quieten_node_side()?;
        Ok(Self {
            thread,
            links: Arc::new(Mutex::new(links)),
            tg0: AtomicU32::new(ensured.tg0_ifindex),
            dials: Arc::new(Semaphore::new(DIALS)),
        })
    }

    /// Puts right whatever of links, addresses, routes and sysctls is not as it should be.
    /// After [`Ensured::remade`] `tg0` is a new device: programs must be attached to it again. For a runtime of the node's namespace.
    pub async fn ensure(&self) -> Result<Ensured, ServiceError> {
        let links = Arc::clone(&self.links);
        let mut ensured =
            self.spawn(async move { links.lock().await.ensure().await }).await.map_err(|_| ServiceError::Stopped)??;
        ensured.mended |= addresses::quieten_node_side()?;
        self.tg0.store(ensured.tg0_ifindex, Ordering::Relaxed);
        Ok(ensured)
    }

    /// A TCP connection from `source` to a handle, made in the namespace and registered on the caller's runtime.
    /// `source` may be any address; a link-local one is of `tg1`. `TimedOut` past the deadline.
    pub async fn dial(&self, source: IpAddr, to: SocketAddr, deadline: Duration) -> io::Result<TcpStream> {
        let until = Instant::now() + deadline;
        let late = |_| dial::timed_out(to, deadline);
        let turn = timeout_at(until, Arc::clone(&self.dials).acquire_owned())
            .await
            .map_err(late)?
            .map_err(io::Error::other)?;
        let made = self.spawn(async move {
            let _turn = turn;
            timeout_at(until, dial::connect(source, to)).await
        });
        let stream = made.await.map_err(|_| io::Error::other(ServiceError::Stopped))?.map_err(late)??;
        TcpStream::from_std(stream)
    }

    /// Runs a future on the namespace's thread; sockets it makes belong to the namespace. It must not block.
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.thread.spawn(future)
    }

    /// The index of `tg0` in the node's namespace.
    pub fn tg0_ifindex(&self) -> u32 {
        self.tg0.load(Ordering::Relaxed)
    }

    /// The MAC that frames for the namespace must have as destination.
    pub fn tg1_mac(&self) -> Mac {
        TG1_MAC
    }
}
