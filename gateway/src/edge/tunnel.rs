//! Bytes both ways between a client and a backend, unread: passthrough and WebSocket.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional_with_sizes};

use super::activity::Activity;
use super::outcome::Outcome;
use super::reason::Reason;
use super::shared::{Phase, Shared};

const BUFFER: usize = 16 * 1024;

/// Copies until both sides have ended (one may end before the other), nothing moves for the idle time, `revoked` returns,
/// or the edge ends.
pub(super) async fn run<C, B>(
    client: C,
    backend: B,
    outcome: Outcome,
    shared: &Shared,
    revoked: impl Future<Output = ()>,
) where
    C: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (activity, traffic) = (Activity::new(), outcome.traffic());
    let mut client = Side { stream: client, read: &traffic.up, activity: &activity, broke: false };
    let mut backend = Side { stream: backend, read: &traffic.down, activity: &activity, broke: false };
    let cut = tokio::select! {
        _ = copy_bidirectional_with_sizes(&mut client, &mut backend, BUFFER, BUFFER) => None,
        () = activity.idle(shared.timeouts.idle) => Some(Reason::Idle),
        () = revoked => Some(Reason::Revoked),
        () = shared.reaches(Phase::Ended) => Some(Reason::Stopped),
    };
    outcome.end(match cut {
        Some(reason) => reason,
        None if client.broke => Reason::ClientGone,
        None if backend.broke => Reason::BackendBroke,
        None => Reason::Served,
    });
}

/// One side, counted as it is read.
struct Side<'a, S> {
    stream: S,
    read: &'a AtomicU64,
    activity: &'a Activity,
    broke: bool,
}

impl<S> Side<'_, S> {
    fn note<T>(&mut self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match &result {
            Poll::Ready(Ok(_)) => self.activity.touch(),
            Poll::Ready(Err(_)) => self.broke = true,
            Poll::Pending => {}
        }
        result
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Side<'_, S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.read.fetch_add((buf.filled().len() - before) as u64, Ordering::Relaxed);
        self.note(result)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Side<'_, S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.note(result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
