//! Bodies on their way: each counts, tells the connection that something moves, and ends its request's record.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

use super::activity::Activity;
use super::http::Connection;
use super::outcome::{Outcome, Traffic};
use super::reason::Reason;
use super::upstream::Lease;

/// How far a request's body has come, for whoever waits for the answer.
pub(super) struct Progress {
    /// The last move.
    pub(super) activity: Activity,
    waits_for_client: AtomicBool,
}

impl Progress {
    /// Nothing has moved yet.
    pub(super) fn new() -> Self {
        Self { activity: Activity::new(), waits_for_client: AtomicBool::new(false) }
    }

    /// Whether the next step is the client's: the backend has taken all that came.
    pub(super) fn waits_for_client(&self) -> bool {
        self.waits_for_client.load(Ordering::Relaxed)
    }
}

/// A request's body.
pub(super) struct Upload {
    inner: Incoming,
    progress: Arc<Progress>,
    traffic: Arc<Traffic>,
    connection: Arc<Connection>,
}

impl Upload {
    /// From the client.
    pub(super) fn new(
        inner: Incoming,
        progress: Arc<Progress>,
        traffic: Arc<Traffic>,
        connection: Arc<Connection>,
    ) -> Self {
        Self { inner, progress, traffic, connection }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        self.progress.waits_for_client.store(polled.is_pending(), Ordering::Relaxed);
        let frame = ready!(polled);
        if let Some(Ok(frame)) = &frame {
            let length = frame.data_ref().map_or(0, Bytes::len);
            self.traffic.up.fetch_add(length as u64, Ordering::Relaxed);
        }
        self.progress.activity.touch();
        self.connection.activity.touch();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// An answer's body.
pub(super) enum Download {
    /// The backend's.
    Backend(Relay),
    /// The edge's own words; `None` once said.
    Own {
        /// What is said.
        text: Option<Bytes>,
        /// Whose answer it is, and why.
        outcome: Option<(Outcome, Reason)>,
    },
}

/// The backend's answer on its way to the client.
pub(super) struct Relay {
    inner: Incoming,
    lease: Option<Lease>,
    outcome: Option<Outcome>,
    traffic: Arc<Traffic>,
    connection: Arc<Connection>,
    idle: Duration,
    /// Runs while the client could take more and the backend gives nothing.
    deadline: Option<Pin<Box<Sleep>>>,
}

/// Why an answer ends before its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum RelayError {
    #[error("the backend broke its answer off: {0}")]
    Backend(#[from] hyper::Error),
    #[error("the backend stopped in the middle of its answer")]
    Stalled,
}

impl Relay {
    /// From the backend, on a connection to give back at the end.
    pub(super) fn new(inner: Incoming, lease: Lease, outcome: Outcome, connection: Arc<Connection>) -> Self {
        let (traffic, idle) = (outcome.traffic(), connection.shared.timeouts.idle);
        let mut relay =
            Self { inner, lease: Some(lease), outcome: Some(outcome), traffic, connection, idle, deadline: None };
        if relay.inner.is_end_stream() {
            relay.release();
        }
        relay
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, RelayError>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) else {
            let idle = self.idle;
            let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(idle)));
            if deadline.deadline() <= Instant::now() || deadline.as_mut().poll(cx).is_ready() {
                self.end(Reason::BackendStalled);
                return Poll::Ready(Some(Err(RelayError::Stalled)));
            }
            return Poll::Pending;
        };
        self.deadline = None;
        self.connection.activity.touch();
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                let length = frame.data_ref().map_or(0, Bytes::len);
                self.traffic.down.fetch_add(length as u64, Ordering::Relaxed);
                if self.inner.is_end_stream() {
                    self.release();
                }
                Some(Ok(frame))
            }
            Some(Err(error)) => {
                self.end(Reason::BackendBroke);
                Some(Err(error.into()))
            }
            None => {
                self.release();
                self.end(Reason::Served);
                None
            }
        })
    }

    /// The answer has been read to its end.
    fn release(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.release();
        }
    }

    fn end(&mut self, reason: Reason) {
        if let Some(outcome) = self.outcome.take() {
            outcome.end(reason);
        }
    }
}

impl Drop for Relay {
    /// A body of known length is dropped by its sender after the last byte, without being asked for the end.
    fn drop(&mut self) {
        self.end(if self.inner.is_end_stream() { Reason::Served } else { Reason::ClientGone });
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = RelayError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, RelayError>>> {
        match self.get_mut() {
            Self::Backend(relay) => relay.poll(cx),
            Self::Own { text, .. } => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Backend(relay) => relay.inner.is_end_stream(),
            Self::Own { text, .. } => text.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Backend(relay) => relay.inner.size_hint(),
            Self::Own { text, .. } => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
        }
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        if let Self::Own { outcome, .. } = self
            && let Some((outcome, reason)) = outcome.take()
        {
            outcome.end(reason);
        }
    }
}
