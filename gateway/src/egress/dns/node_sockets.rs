//! Sockets of the node's namespace for a thread of another: the thread that reads workloads' questions asks the servers itself,
//! as each change of threads costs more than the rest of a lookup.
//!
//! Only making a socket depends on the thread's namespace. That is done on the node's runtime, for datagrams some ahead of time:
//! each question leaves by one of its own, from a port of its own, which is closed with it. Owns two lists of at most [`AHEAD`].

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use config::names::InterfaceName;
use tokio::runtime::Handle;

use crate::sys::{interface, socket};

/// Sockets of one family that are made before they are asked for.
const AHEAD: usize = 64;
/// With so few left, more are made.
const FEW: usize = 32;

/// Makes sockets on a runtime whose threads live in the node's namespace.
#[derive(Debug)]
pub(super) struct NodeSockets {
    node: Handle,
    v4: Spare,
    v6: Spare,
}

#[derive(Debug, Default)]
struct Spare {
    made: Mutex<Vec<OwnedFd>>,
    filling: AtomicBool,
}

impl NodeSockets {
    pub(super) fn new(node: Handle) -> Arc<Self> {
        Arc::new(Self { node, v4: Spare::default(), v6: Spare::default() })
    }

    /// An unbound UDP socket.
    pub(super) async fn udp(self: &Arc<Self>, ipv6: bool) -> io::Result<OwnedFd> {
        let spare = self.spare(ipv6);
        let (next, left) = {
            let mut made = spare.made();
            (made.pop(), made.len())
        };
        if left < FEW && !spare.filling.swap(true, Relaxed) {
            let all = Arc::clone(self);
            self.node.spawn(async move { all.spare(ipv6).fill(ipv6) });
        }
        match next {
            Some(next) => Ok(next),
            None => self.there(move || socket::udp(ipv6)).await,
        }
    }

    /// An unbound TCP socket.
    pub(super) async fn tcp(&self, ipv6: bool) -> io::Result<OwnedFd> {
        self.there(move || socket::tcp(ipv6)).await
    }

    /// The node's number of an interface.
    pub(super) async fn number_of(&self, device: InterfaceName) -> io::Result<u32> {
        self.there(move || interface::index(device.as_str())).await
    }

    async fn there<T: Send + 'static>(&self, work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
        self.node.spawn(async move { work() }).await.map_err(io::Error::other)?
    }

    fn spare(&self, ipv6: bool) -> &Spare {
        if ipv6 { &self.v6 } else { &self.v4 }
    }
}

impl Spare {
    /// Where none can be made, who asks for one is told why.
    fn fill(&self, ipv6: bool) {
        let wanted = AHEAD.saturating_sub(self.made().len());
        let more: Vec<OwnedFd> = std::iter::from_fn(|| socket::udp(ipv6).ok()).take(wanted).collect();
        self.made().extend(more);
        self.filling.store(false, Relaxed);
    }

    /// A panic elsewhere cannot leave the list half-written.
    fn made(&self) -> MutexGuard<'_, Vec<OwnedFd>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::os::fd::AsRawFd;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn each_is_given_once_and_more_are_made() {
        let sockets = NodeSockets::new(Handle::current());
        let mut given = Vec::new();
        for number in 0..3 * AHEAD {
            given.push(sockets.udp(number % 2 == 0).await.unwrap());
        }
        assert_eq!(given.iter().map(AsRawFd::as_raw_fd).collect::<BTreeSet<_>>().len(), 3 * AHEAD);
        assert!(sockets.v4.made().len() <= AHEAD && sockets.v6.made().len() <= AHEAD);
    }
}
