//! The TLS edge for exposed apps.
//!
//! 1. [`config`] says what is served, as plain values. [`check`] loads every certificate ([`files`], [`certificate`],
//!    [`x509`], [`identity`]) before anything is committed, and builds the [`table`] that [`Edge::install`] swaps in.
//!    [`watch`] loads certificate files that change; a bad set keeps the old one.
//! 2. [`accept`] takes a client, reads its ClientHello ([`inspect::client_hello`]) and finds the app by the server name. No
//!    name, or one that no app has, ends in an alert ([`client_stream`] sees that it arrives).
//! 3. A passthrough app's bytes go on to the backend unread ([`tunnel`]).
//! 4. Else TLS ends here, and [`http`] serves HTTP/2 or HTTP/1.1 until the connection ends, drains, or its terms change.
//! 5. [`proxy`] takes each request: the host must be one of the app's ([`target`]), the path finds a route ([`routes`]), the
//!    fields of one hop are replaced ([`headers`]), and an endpoint is leased ([`upstream`]).
//! 6. [`bodies`] stream both ways, trailers included. A WebSocket becomes a [`tunnel`].
//! 7. Every request and connection ends in one record ([`outcome`], [`reason`]): an access line and metrics.
//! 8. [`Edge::shutdown`] stops accepting, lets requests end (GOAWAY on HTTP/2), and cuts what is left at its deadline.
//!
//! Listeners are bound once and outlive every reload. A reload ends only connections that are no longer served: of an app,
//! a host or an endpoint that has gone, or under other terms (oldest TLS version, client authorities) than now.
//! What is shared, and its bounds, is listed in [`shared`]; an endpoint's in [`upstream`].

mod accept;
mod activity;
mod bodies;
mod certificate;
mod check;
mod client_stream;
pub mod config;
mod headers;
mod http;
mod identity;
mod outcome;
mod proxy;
mod reason;
mod routes;
mod shared;
mod status;
mod table;
mod target;
mod tunnel;
mod upstream;
mod watch;
mod x509;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

pub use self::check::{EdgeProblem, Prepared};
pub use self::config::{App, EdgeConfig, Endpoint, Mode, Route, Timeouts};
pub use self::shared::{Dial, Dialling};
pub use self::status::{AppStatus, CertificateStatus, EdgeStatus, EndpointStatus};
pub use crate::files::FilesDir;

use self::shared::{Phase, Shared};
use self::table::Ends;
use crate::sys::listener;
use crate::telemetry::metrics;

/// After the drain's deadline, connections may take this long to be gone.
const CUT: Duration = Duration::from_secs(1);

/// The running edge. Dropping it cuts everything.
pub struct Edge {
    shared: Arc<Shared>,
    addresses: Vec<SocketAddr>,
    _watch: watch::Watch,
}

/// Why the edge does not start.
#[derive(Debug, thiserror::Error)]
pub enum EdgeError {
    /// A listening socket.
    #[error("cannot listen on {address}: {error}; free the address, or set another one in `[edge] listen`")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the kernel said.
        error: io::Error,
    },
    /// The thread for files.
    #[error("cannot start the thread that watches certificate files: {0}; raise the limit of processes")]
    Watch(io::Error),
}

impl Edge {
    /// Listens, and serves nothing until [`Edge::install`]. Must be called inside a tokio runtime, which carries all of it.
    pub fn start(listen: &[SocketAddr], dial: Arc<dyn Dial>, files: FilesDir) -> Result<Self, EdgeError> {
        Self::start_with(listen, dial, files, Timeouts::default())
    }

    /// As [`Edge::start`], with other timeouts.
    pub fn start_with(
        listen: &[SocketAddr],
        dial: Arc<dyn Dial>,
        files: FilesDir,
        timeouts: Timeouts,
    ) -> Result<Self, EdgeError> {
        let mut listeners = Vec::with_capacity(listen.len());
        let mut addresses = Vec::with_capacity(listen.len());
        for &address in listen {
            let failed = |error| EdgeError::Listen { address, error };
            let listener = listener::listen(address).map_err(failed)?;
            addresses.push(listener.local_addr().map_err(failed)?);
            listeners.push(listener);
        }
        let shared = Arc::new(Shared::new(dial, files, timeouts));
        let watch = watch::Watch::start(shared.clone()).map_err(EdgeError::Watch)?;
        for listener in listeners {
            tokio::spawn(accept::accept(listener, shared.clone()));
        }
        Ok(Self { shared, addresses, _watch: watch })
    }

    /// Where it listens.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Loads what a configuration needs, without serving it yet. Reads files: a matter of milliseconds, but it may block.
    ///
    /// # Errors
    /// All problems: files that are missing, unreadable, outside the namespace's folder, or no pair; a host in two apps.
    pub fn check(&self, config: &EdgeConfig) -> Result<Prepared, Vec<EdgeProblem>> {
        match check::prepare(&self.shared, config) {
            (prepared, problems) if problems.is_empty() => Ok(prepared),
            (_, problems) => Err(problems),
        }
    }

    /// As [`Edge::check`], for a configuration that was accepted earlier (after a restart): an app with a problem is closed,
    /// and opens by itself once its files are mended; the others are served.
    pub fn check_accepted(&self, config: &EdgeConfig) -> (Prepared, Vec<EdgeProblem>) {
        check::prepare(&self.shared, config)
    }

    /// Serves it from now on.
    pub fn install(&self, prepared: Prepared) {
        for app in prepared.table.apps() {
            if let Ends::Here(identity) = &app.ends
                && let Some(loaded) = identity.loaded()
            {
                metrics::edge_certificate(&app.label, loaded.not_after);
            }
        }
        self.shared.table.send_replace(Arc::new(prepared.table));
    }

    /// Apps, certificates, endpoints, connections.
    pub fn status(&self) -> EdgeStatus {
        status::of(&self.shared)
    }

    /// Stops accepting, lets requests end, and cuts what is left after `deadline`; returns how many connections that were.
    pub async fn shutdown(&self, deadline: Duration) -> usize {
        let mut connections = self.shared.connections.subscribe();
        self.shared.phase.send_replace(Phase::Draining);
        let left = match tokio::time::timeout(deadline, connections.wait_for(|count| *count == 0)).await {
            Ok(_) => 0,
            Err(_) => *self.shared.connections.borrow(),
        };
        self.shared.phase.send_replace(Phase::Ended);
        let _ = tokio::time::timeout(CUT, connections.wait_for(|count| *count == 0)).await;
        left
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        self.shared.phase.send_replace(Phase::Ended);
    }
}
