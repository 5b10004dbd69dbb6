//! Queries by datagram: read on the service namespace's thread, answered from the address that was asked.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::UdpSocket;
use tracing::debug;

use super::PORT;
use super::answer;
use super::outcome::Outcome;
use super::question::{self, Read};
use super::resolve::Resolver;
use crate::sys::pktinfo::{self, Way};
use crate::sys::socket;

/// After an error of the system (no memory) that would come again at once.
const PAUSE: Duration = Duration::from_millis(5);
/// Longest query read, in bytes; a longer one is malformed.
const LONGEST: usize = 4096;
/// Bytes of queries that wait in the kernel: a burst of some thousand.
const ROOM: i32 = 4 << 20;

/// A socket on the wildcard address that is told each datagram's local one. For the current thread's namespace and runtime.
pub(super) fn bind(ipv6: bool) -> io::Result<UdpSocket> {
    let socket = socket::udp_wildcard(ipv6, PORT)?;
    socket::want_pktinfo(socket.as_fd(), ipv6)?;
    socket::receive_room(socket.as_fd(), ROOM)?;
    UdpSocket::from_std(socket)
}

/// Serves until aborted.
pub(super) async fn serve(socket: UdpSocket, resolver: Arc<Resolver>) {
    let socket = Arc::new(socket);
    let mut buffer = vec![0; LONGEST];
    loop {
        match socket.async_io(Interest::READABLE, || pktinfo::receive(socket.as_fd(), &mut buffer)).await {
            Ok(received) if received.truncated => Outcome::Malformed.count(),
            Ok(received) => take(&socket, &resolver, &buffer[..received.length], received.way).await,
            Err(error) => {
                debug!(%error, "a datagram could not be received");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn take(socket: &Arc<UdpSocket>, resolver: &Arc<Resolver>, bytes: &[u8], way: Way) {
    match question::read(bytes) {
        Read::Drop => Outcome::Malformed.count(),
        Read::Answer(answer, outcome) => {
            outcome.count();
            send(socket, &answer, &way).await;
        }
        Read::Question(question) => {
            let asker = way.peer.ip();
            let Some(turn) = resolver.admit(asker) else { return };
            match resolver.at_once(asker, &question) {
                Ok(None) => {}
                Ok(Some(answer)) => send(socket, &answer::fit_udp(&question, answer), &way).await,
                Err(asking) => {
                    let socket = Arc::clone(socket);
                    resolver.start(asker, question, turn, asking, async move |question, answer| {
                        send(&socket, &answer::fit_udp(&question, answer), &way).await;
                    });
                }
            }
        }
    }
}

async fn send(socket: &UdpSocket, bytes: &[u8], way: &Way) {
    if let Err(error) = socket.async_io(Interest::WRITABLE, || pktinfo::send(socket.as_fd(), bytes, way)).await {
        debug!(%error, peer = %way.peer, "an answer could not be sent");
    }
}
