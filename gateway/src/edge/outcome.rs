//! One record a request or connection, consumed once: by whoever knows how it ended, else by `Drop`, which means that the
//! client went away. It gives one line at target `access` and is counted: each request, to its last byte; of connections
//! those passed through, and those that came to no request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hyper::StatusCode;
use tokio::time::Instant;

use super::reason::Reason;
use super::upstream::Upstream;
use crate::telemetry::metrics;

/// Bytes of content that have moved.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    /// From the client.
    pub(super) up: AtomicU64,
    /// To the client.
    pub(super) down: AtomicU64,
}

/// What is known of a request or connection before it ends.
pub(super) struct Outcome {
    open: bool,
    app: Arc<str>,
    client: SocketAddr,
    host: String,
    request: Option<Line>,
    upstream: Option<Arc<Upstream>>,
    status: Option<StatusCode>,
    traffic: Arc<Traffic>,
    began: Instant,
}

/// A request's line, without the query: it may hold secrets.
struct Line {
    method: String,
    path: String,
    version: &'static str,
}

impl Outcome {
    /// Of a connection.
    pub(super) fn connection(client: SocketAddr) -> Self {
        Self {
            open: true,
            app: Arc::from("-"),
            client,
            host: "-".to_owned(),
            request: None,
            upstream: None,
            status: None,
            traffic: Arc::default(),
            began: Instant::now(),
        }
    }

    /// Of a request on a connection to `app`.
    pub(super) fn request<B>(client: SocketAddr, app: Arc<str>, host: &str, request: &hyper::Request<B>) -> Self {
        let version = if request.version() == hyper::Version::HTTP_2 { "h2" } else { "h1" };
        let line = Line { method: request.method().to_string(), path: request.uri().path().to_owned(), version };
        let mut outcome = Self::connection(client);
        outcome.of(app, host);
        outcome.request = Some(line);
        outcome
    }

    /// The app and host are known.
    pub(super) fn of(&mut self, app: Arc<str>, host: &str) {
        self.app = app;
        host.clone_into(&mut self.host);
    }

    /// That endpoint is tried.
    pub(super) fn tries(&mut self, upstream: &Arc<Upstream>) {
        self.upstream = Some(upstream.clone());
    }

    /// The answer begins with this status.
    pub(super) fn answers(&mut self, status: StatusCode) {
        self.status = Some(status);
    }

    /// Where its bytes are counted.
    pub(super) fn traffic(&self) -> Arc<Traffic> {
        self.traffic.clone()
    }

    /// It has ended.
    pub(super) fn end(mut self, reason: Reason) {
        self.record(reason);
    }

    /// It needs no record of its own: its parts had theirs.
    pub(super) fn dismiss(mut self) {
        self.open = false;
    }

    fn record(&mut self, reason: Reason) {
        if !std::mem::take(&mut self.open) {
            return;
        }
        let time = self.began.elapsed();
        let seconds = time.as_secs_f64();
        let up = self.traffic.up.load(Ordering::Relaxed);
        let down = self.traffic.down.load(Ordering::Relaxed);
        let workload = self.upstream.as_ref().map_or("-", |upstream| &upstream.endpoint.workload);
        let endpoint = self.upstream.as_ref().map(|upstream| tracing::field::display(upstream.endpoint.address));
        match &self.request {
            Some(line) => {
                // 499 is what nginx's users know for a client that left before an answer began.
                let code = self.status.map_or(499, |status| status.as_u16());
                metrics::edge_request(&self.app, code, time);
                tracing::info!(
                    target: "access",
                    app = %self.app, client = %self.client, host = self.host, method = line.method, path = line.path,
                    version = line.version, code, reason = reason.text(), workload, endpoint, up, down, seconds,
                    "request",
                );
            }
            None => {
                metrics::edge_connection(&self.app, reason.word());
                tracing::info!(
                    target: "access",
                    app = %self.app, client = %self.client, host = self.host, reason = reason.text(), workload, endpoint,
                    up, down, seconds,
                    "connection",
                );
            }
        }
    }
}

impl Drop for Outcome {
    fn drop(&mut self) {
        self.record(Reason::ClientGone);
    }
}
