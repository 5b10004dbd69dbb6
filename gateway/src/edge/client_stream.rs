//! The client's socket: its first bytes, which have been read for the server name, come again; and its end lingers.
//!
//! Closing a socket that holds unread bytes makes the kernel send a reset, and a reset makes the client forget what it was
//! told last (an alert, a 413). So the last words are followed by FIN, and the socket is read for at most [`LINGER`] more.
//! At most [`MAX_LINGERING`] sockets do so; beyond that they are just closed.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::activity::Counted;
use super::shared::Shared;

const LINGER: Duration = Duration::from_secs(2);
const MAX_LINGERING: usize = 1024;

/// The client's socket.
pub(super) struct ClientStream {
    first: Vec<u8>,
    read: usize,
    /// `None` only while dropping.
    stream: Option<TcpStream>,
    /// The client has closed its side, or the socket is broken: nothing is left to linger for.
    ended: bool,
    shared: Arc<Shared>,
}

impl ClientStream {
    /// `first` is read before what is left in the socket.
    pub(super) fn new(first: Vec<u8>, stream: TcpStream, shared: Arc<Shared>) -> Self {
        Self { first, read: 0, stream: Some(stream), ended: false, shared }
    }

    fn stream(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        self.stream.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn note<T>(&mut self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.ended |= matches!(&result, Poll::Ready(Err(_)));
        result
    }
}

impl Drop for ClientStream {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let (Some(mut stream), Ok(runtime)) = (self.stream.take(), Handle::try_current()) else { return };
        let Some(place) = Counted::below(MAX_LINGERING, self.shared.clone()) else { return };
        runtime.spawn(async move {
            let _place = place;
            let _ = timeout(LINGER, async {
                stream.shutdown().await?;
                let mut bytes = vec![0; 16 * 1024];
                while stream.read(&mut bytes).await? > 0 {}
                io::Result::Ok(())
            })
            .await;
        });
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            let before = buf.filled().len();
            let result = self.stream()?.poll_read(cx, buf);
            self.ended |= matches!(result, Poll::Ready(Ok(()))) && buf.filled().len() == before && buf.remaining() > 0;
            return self.note(result);
        }
        let rest = &self.first[self.read..];
        let length = rest.len().min(buf.remaining());
        buf.put_slice(&rest[..length]);
        self.read += length;
        if self.read == self.first.len() {
            self.first = Vec::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = self.stream()?.poll_write(cx, bytes);
        self.note(result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = self.stream()?.poll_write_vectored(cx, pieces);
        self.note(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(TcpStream::is_write_vectored)
    }
}
