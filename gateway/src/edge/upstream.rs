//! One endpoint as the edge keeps it across reloads: its idle connections, how many are in use, and whether it is set aside.
//!
//! Bounds: [`MAX_IN_USE`] connections in use (more are a 503), [`MAX_IDLE`] idle ones (more are closed). Idle connections
//! end with the endpoint, when it closes them, or when `sweep` finds them unused for [`Timeouts::pooled`].
//!
//! [`Timeouts::pooled`]: super::config::Timeouts::pooled

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::activity::{Count, Counted};
use super::bodies::Upload;
use super::config::Endpoint;
use super::shared::Shared;

const MAX_IN_USE: usize = 1024;
const MAX_IDLE: usize = 64;
const MAX_HEADERS: usize = 128;
const MAX_BUFFER: usize = 256 * 1024;
/// How long a connection whose answer has ended may take to be ready for the next request.
const SETTLE: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// An endpoint.
pub(super) struct Upstream {
    pub(super) endpoint: Endpoint,
    in_use: Count,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    idle: Vec<Idle>,
    failures: u32,
    set_aside_until: Option<Instant>,
}

struct Idle {
    sender: SendRequest<Upload>,
    since: Instant,
}

/// A backend connection of one request.
pub(super) struct Lease {
    pub(super) sender: SendRequest<Upload>,
    /// Whether an earlier request has used it: the backend may be closing it at this moment.
    pub(super) reused: bool,
    place: Counted<Arc<Upstream>>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("all of its {MAX_IN_USE} connections are in use")]
    Busy,
    #[error("it does not accept connections: {0}")]
    Failed(#[from] io::Error),
    #[error("it did not accept the connection in time")]
    TimedOut,
    #[error("its connection could not be set up: {0}")]
    Http(#[from] hyper::Error),
}

impl AsRef<Count> for Arc<Upstream> {
    fn as_ref(&self) -> &Count {
        &self.in_use
    }
}

impl Upstream {
    /// An endpoint nothing is known of yet.
    pub(super) fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, in_use: Count::default(), kept: Mutex::default() }
    }

    /// Whether it is not set aside after failed connects.
    pub(super) fn available(&self, now: Instant) -> bool {
        self.kept().set_aside_until.is_none_or(|until| until <= now)
    }

    /// Idle connections, and those in use.
    pub(super) fn connections(&self) -> (usize, usize) {
        (self.kept().idle.len(), self.in_use.now())
    }

    /// Closes what has been idle for longer than `age`.
    pub(super) fn sweep(&self, age: Duration) {
        self.kept().idle.retain(|idle| idle.since.elapsed() < age && !idle.sender.is_closed());
    }

    /// A place among the connections in use.
    pub(super) fn place(self: &Arc<Self>) -> Result<Counted<Arc<Self>>, ConnectError> {
        Counted::below(MAX_IN_USE, self.clone()).ok_or(ConnectError::Busy)
    }

    /// A connection for a request: an idle one unless `fresh`, else a new one.
    pub(super) async fn lease(self: &Arc<Self>, shared: &Shared, fresh: bool) -> Result<Lease, ConnectError> {
        let place = self.place()?;
        if !fresh && let Some(sender) = self.take_idle(shared.timeouts.pooled) {
            return Ok(Lease { sender, reused: true, place });
        }
        let stream = self.connect(shared).await?;
        let (sender, connection) = http1::Builder::new()
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_BUFFER)
            .handshake(TokioIo::new(stream))
            .await?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "a backend connection ended");
            }
        });
        Ok(Lease { sender, reused: false, place })
    }

    /// A new TCP connection. Failures set the endpoint aside, each for twice as long as the one before.
    pub(super) async fn connect(&self, shared: &Shared) -> Result<TcpStream, ConnectError> {
        let dialled =
            timeout(shared.timeouts.connect, shared.dial.dial(self.endpoint.source, self.endpoint.address)).await;
        let result = match dialled {
            Ok(Ok(stream)) => stream.set_nodelay(true).map(|()| stream).map_err(ConnectError::Failed),
            Ok(Err(error)) => Err(ConnectError::Failed(error)),
            Err(_) => Err(ConnectError::TimedOut),
        };
        let mut kept = self.kept();
        if result.is_ok() {
            (kept.failures, kept.set_aside_until) = (0, None);
        } else {
            let pause = FIRST_PAUSE.saturating_mul(1 << kept.failures.min(5)).min(LONGEST_PAUSE);
            kept.set_aside_until = Some(Instant::now() + pause);
            kept.failures = kept.failures.saturating_add(1);
            kept.idle.clear();
        }
        result
    }

    fn take_idle(&self, age: Duration) -> Option<SendRequest<Upload>> {
        let mut kept = self.kept();
        while let Some(idle) = kept.idle.pop() {
            if idle.sender.is_ready() && idle.since.elapsed() < age {
                return Some(idle.sender);
            }
        }
        None
    }

    fn keep(&self, sender: SendRequest<Upload>) {
        let mut kept = self.kept();
        if kept.idle.len() < MAX_IDLE {
            kept.idle.push(Idle { sender, since: Instant::now() });
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
    /// Where it leads.
    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.place.owner().endpoint
    }

    /// Gives the connection back once its answer has been read to the end. It is kept when it is ready for another
    /// request, and closed when it is not within [`SETTLE`].
    pub(super) fn release(mut self) {
        if self.sender.is_ready() {
            return self.place.owner().keep(self.sender);
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            if matches!(timeout(SETTLE, self.sender.ready()).await, Ok(Ok(()))) {
                self.place.owner().keep(self.sender);
            }
        });
    }
}
