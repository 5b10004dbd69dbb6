//! Accept, check the peer, serve.

use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::control::Control;
use super::socket::AdminSocket;
use super::{MAX_CONNECTIONS, REQUEST_TIME, SHUTDOWN_TIME, routes};

/// Before accepting again when the process has no descriptor left.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

impl AdminSocket {
    /// Serves until `shutdown` is done, then ends open requests. The socket's file and the lock go when it returns.
    pub async fn serve(self, control: Arc<dyn Control>, shutdown: impl Future<Output = ()> + Send) {
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let graceful = GracefulShutdown::new();
        let mut connections = JoinSet::new();
        tokio::pin!(shutdown);
        loop {
            let accepted = tokio::select! {
                () = &mut shutdown => break,
                accepted = accept(&self, &slots) => accepted,
                Some(_) = connections.join_next() => continue,
            };
            let (stream, slot) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "the admin socket cannot accept; close some connections");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                    continue;
                }
            };
            if !may_ask(&stream, self.owner) {
                continue;
            }
            let control = Arc::clone(&control);
            let service = service_fn(move |request| routes::answer(Arc::clone(&control), request));
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(REQUEST_TIME)
                .serve_connection(TokioIo::new(stream), service);
            let connection = graceful.watch(connection);
            connections.spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "an admin connection ended early");
                }
                drop(slot);
            });
        }
        if tokio::time::timeout(SHUTDOWN_TIME, graceful.shutdown()).await.is_err() {
            connections.shutdown().await;
        }
    }
}

async fn accept(
    socket: &AdminSocket,
    slots: &Arc<Semaphore>,
) -> std::io::Result<(UnixStream, tokio::sync::OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, _) = socket.listener.accept().await?;
    Ok((stream, slot))
}

/// The file's mode says the same; this holds when somebody widens the mode or passes a descriptor on.
fn may_ask(stream: &UnixStream, owner: u32) -> bool {
    match stream.peer_cred() {
        Ok(peer) if peer.uid() == 0 || peer.uid() == owner => true,
        Ok(peer) => {
            tracing::warn!(
                uid = peer.uid(),
                pid = peer.pid(),
                "a user who may not use the admin socket was turned away"
            );
            false
        }
        Err(error) => {
            tracing::warn!(%error, "the kernel does not tell who asks on the admin socket; turned away");
            false
        }
    }
}
