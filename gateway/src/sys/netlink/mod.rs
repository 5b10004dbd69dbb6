//! The one door to rtnetlink: links, addresses, routes and neighbours of one network namespace.
//!
//! - [`Netlink`] is a socket and the lock around it: one request at a time, because a dump that overlaps with changes
//!   is interrupted. A request that the kernel calls busy or a dump that it calls inconsistent is asked again a few
//!   times ([`ATTEMPTS`]); every request has a [`DEADLINE`].
//! - A socket belongs to the namespace it was opened in, for good: [`Netlink::from_fd`] takes one that the namespace
//!   helper has opened in a workload's namespace, and works there from here.
//! - Failures are [`NetlinkError`]: what was being done, the kernel's words, and the mend.
//! - [`watch`] tells that something changed.
//! - [`ipsec_policies`] asks another family of sockets for one number.
//! - `raw` is for the service namespace's pair, whose messages are built where they are asked for.
//!
//! Queues: the connection's channels hold the messages of the one request under way; the channel for messages that
//! nobody asked for has no receiver, so they are dropped.

mod address;
mod error;
mod ipsec;
mod link;
mod neighbour;
mod port;
pub(crate) mod raw;
mod route;
pub mod watch;

use std::os::fd::{AsFd, FromRawFd, IntoRawFd, OwnedFd};
use std::time::Duration;

use futures_util::StreamExt;
use rtnetlink::Handle;
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::sys::{AsyncSocket, TokioSocket, protocols::NETLINK_ROUTE};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

pub use address::LinkAddress;
pub use error::NetlinkError;
pub use ipsec::ipsec_policies;
pub use link::{FarEnd, Guest, Kind, Link, LinkSettings, VlanTag};
pub use neighbour::{ForwardingEntry, Neighbour};
pub use port::PortFlags;
pub(crate) use route::subnet_of;
pub use route::{ConnectedRoute, DefaultRoute};

/// How long one request may take, its repetitions included.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// How often a request is asked when the kernel is busy or interrupts the dump.
pub const ATTEMPTS: u32 = 6;

/// A route socket of one namespace. Made inside a tokio runtime, dropped with its connection.
#[derive(Debug)]
pub struct Netlink {
    handle: Mutex<Handle>,
    connection: JoinHandle<()>,
    cookie: u64,
}

impl Netlink {
    /// For the calling thread's network namespace.
    pub fn open() -> Result<Self, NetlinkError> {
        let socket = TokioSocket::new(NETLINK_ROUTE).map_err(NetlinkError::Open)?;
        Self::over(socket)
    }

    /// Over a socket that was opened elsewhere: it works in the namespace where it was opened.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, NetlinkError> {
        // SAFETY: the descriptor is open and given away here; the socket closes it.
        Self::over(unsafe { TokioSocket::from_raw_fd(fd.into_raw_fd()) })
    }

    /// The number of the namespace (`SO_NETNS_COOKIE`), never used twice while the node is up.
    pub fn cookie(&self) -> u64 {
        self.cookie
    }

    fn over(socket: TokioSocket) -> Result<Self, NetlinkError> {
        let plain = socket.socket_ref();
        let cookie = super::netns::cookie(plain.as_fd()).map_err(NetlinkError::Open)?;
        plain.set_ext_ack(true).map_err(NetlinkError::Open)?;
        plain.set_cap_ack(true).map_err(NetlinkError::Open)?;
        plain.set_netlink_get_strict_chk(true).map_err(NetlinkError::Open)?;
        let (connection, handle, _) = rtnetlink::from_socket(socket);
        Ok(Self { handle: Mutex::new(handle), connection: tokio::spawn(connection), cookie })
    }

    /// Asks for a change and waits for the kernel's word. `flags` come on top of REQUEST and ACK.
    async fn change(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
        doing: impl Fn() -> String,
    ) -> Result<(), NetlinkError> {
        self.ask(message, NLM_F_REQUEST | NLM_F_ACK | flags, doing).await.map(|_| ())
    }

    /// Asks for a whole table.
    async fn dump(
        &self,
        message: RouteNetlinkMessage,
        doing: impl Fn() -> String,
    ) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        self.ask(message, NLM_F_REQUEST | NLM_F_DUMP, doing).await
    }

    async fn ask(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
        doing: impl Fn() -> String,
    ) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        let work = async {
            let mut handle = self.handle.lock().await;
            let mut attempt = 1;
            loop {
                match once(&mut handle, message.clone(), flags, &doing).await {
                    Err(error) if error.is_passing() && attempt < ATTEMPTS => {
                        tokio::time::sleep(Duration::from_millis(5) * attempt).await;
                        attempt += 1;
                    }
                    result => return result,
                }
            }
        };
        match tokio::time::timeout(DEADLINE, work).await {
            Ok(result) => result,
            Err(_) => Err(NetlinkError::Late { doing: doing() }),
        }
    }
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

async fn once(
    handle: &mut Handle,
    message: RouteNetlinkMessage,
    flags: u16,
    doing: &impl Fn() -> String,
) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
    let mut request = NetlinkMessage::from(message);
    request.header.flags = flags;
    let mut answers = handle.request(request).map_err(|_| NetlinkError::Closed { doing: doing() })?;
    let mut result = Ok(Vec::new());
    while let Some(answer) = answers.next().await {
        if answer.header.flags & NLM_F_DUMP_INTR != 0 && flags & NLM_F_DUMP == NLM_F_DUMP {
            result = Err(NetlinkError::Interrupted { doing: doing() });
        }
        match answer.payload {
            NetlinkPayload::InnerMessage(inner) => {
                if let Ok(found) = &mut result {
                    found.push(inner);
                }
            }
            NetlinkPayload::Error(error) if error.code.is_some() => {
                result = Err(NetlinkError::from_kernel(doing(), &error));
            }
            NetlinkPayload::Overrun(_) => result = Err(NetlinkError::Interrupted { doing: doing() }),
            _ => {}
        }
    }
    result
}
