//! What all connections share. The locks, channels and watches of the edge:
//! - `table`: a watch of what is served. Swapped whole; connections follow it so that what is no longer served ends.
//! - `phase`: a watch of the way to the end.
//! - `connections`: a watch of how many client connections there are, at most [`MAX_CONNECTIONS`]: at that number nothing
//!   is accepted until one ends, and clients wait in the kernel's backlog.
//! - `lingering`: how many closed connections still wait for their client to read the end (see [`client_stream`]).
//!
//! [`client_stream`]: super::client_stream

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::crypto::CryptoProvider;
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::activity::Count;
use super::config::Timeouts;
use super::table::Table;
use crate::files::FilesDir;
use crate::telemetry::metrics;

/// Client connections at one time.
pub(super) const MAX_CONNECTIONS: usize = 16_384;

/// Opens connections to workloads: through the service namespace in the daemon.
pub trait Dial: Send + Sync {
    /// Connects to `to` from the address `source`.
    fn dial(&self, source: IpAddr, to: SocketAddr) -> Dialling;
}

/// A connection under way.
pub type Dialling = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>;

/// How far the edge is on its way to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Accepts and serves.
    Serving,
    /// Accepts nothing; HTTP connections end after the requests they have.
    Draining,
    /// Everything is cut.
    Ended,
}

/// What all connections share.
pub(super) struct Shared {
    pub(super) dial: Arc<dyn Dial>,
    pub(super) files: FilesDir,
    pub(super) provider: Arc<CryptoProvider>,
    pub(super) timeouts: Timeouts,
    pub(super) table: watch::Sender<Arc<Table>>,
    pub(super) phase: watch::Sender<Phase>,
    pub(super) connections: watch::Sender<usize>,
    lingering: Count,
}

impl AsRef<Count> for Arc<Shared> {
    fn as_ref(&self) -> &Count {
        &self.lingering
    }
}

impl Shared {
    /// Serving nothing yet.
    pub(super) fn new(dial: Arc<dyn Dial>, files: FilesDir, timeouts: Timeouts) -> Self {
        Self {
            dial,
            files,
            provider: Arc::new(rustls::crypto::aws_lc_rs::default_provider()),
            timeouts,
            table: watch::Sender::new(Arc::default()),
            phase: watch::Sender::new(Phase::Serving),
            connections: watch::Sender::new(0),
            lingering: Count::default(),
        }
    }

    /// What is served now.
    pub(super) fn table(&self) -> Arc<Table> {
        self.table.borrow().clone()
    }

    /// Returns once the edge is at `phase` or further.
    pub(super) async fn reaches(&self, phase: Phase) {
        // The sender is in `self`: the watch cannot close while this is awaited.
        let _ = self.phase.subscribe().wait_for(|now| *now >= phase).await;
    }

    /// Returns once `wrong` is true of what is served.
    pub(super) async fn becomes(&self, wrong: impl Fn(&Table) -> bool) {
        let _ = self.table.subscribe().wait_for(|table| wrong(table)).await;
    }
}

/// One of the client connections; dropping it makes room for another.
pub(super) struct Place(Arc<Shared>);

impl Place {
    /// One more connection.
    pub(super) fn take(shared: &Arc<Shared>) -> Self {
        shared.connections.send_modify(|count| *count += 1);
        metrics::edge_connection_begins();
        Self(shared.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.connections.send_modify(|count| *count -= 1);
        metrics::edge_connection_ends();
    }
}

/// Seconds since 1970.
pub(super) fn unix_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
