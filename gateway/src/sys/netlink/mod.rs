//! The one door to rtnetlink: links, addresses, routes and neighbours of one network namespace.
//!
//! - [`Netlink`] is a socket and the lock around it: one request at a time, because a dump that overlaps with changes
//!   is interrupted. A request that the kernel calls busy or a dump that it calls inconsistent is asked again a few
//!   times ([`ATTEMPTS`]).
//! - The kernel does what a request says while it is being sent, and fills a dump while it is being read
//!   (`netlink_rcv_skb`, `netlink_dump` in net/netlink/af_netlink.c): the answer is there when it is looked for. So the
//!   calling thread sends and reads by itself; two threads that wake each other for each request cost more than the
//!   request. [`DEADLINE`] bounds each answer all the same.
//! - A socket belongs to the namespace it was opened in, for good: [`Netlink::from_fd`] takes one that the namespace
//!   helper has opened in a workload's namespace, and works there from here.
//! - Failures are [`NetlinkError`]: what was being done, the kernel's words, and the mend.
//! - [`watch`] tells that something changed.
//! - [`ipsec_policies`] asks another family of sockets for one number.
//! - `raw` is for the service namespace's pair, whose messages are built where they are asked for.
//!
//! Queues: the socket's own buffer holds the answers to the one request under way.

mod address;
mod error;
mod ipsec;
mod link;
mod neighbour;
mod port;
pub(crate) mod raw;
mod route;
pub mod watch;

use std::io;
use std::os::fd::{AsFd, FromRawFd, IntoRawFd, OwnedFd};
use std::time::Duration;

use bytes::BytesMut;
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use tokio::sync::Mutex;
use tokio::task::coop::consume_budget;

pub use address::LinkAddress;
pub use error::NetlinkError;
pub use ipsec::ipsec_policies;
pub use link::{FarEnd, Guest, Kind, Link, LinkSettings, VlanTag};
pub use neighbour::{ForwardingEntry, Neighbour};
pub use port::PortFlags;
pub(crate) use route::subnet_of;
pub use route::{ConnectedRoute, DefaultRoute};

/// How long the kernel may take for one answer.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// How often a request is asked when the kernel is busy or interrupts the dump.
pub const ATTEMPTS: u32 = 6;

/// Parts of a dump have at most half of it, unless one message alone is larger (`netlink_dump`).
const ROOM: usize = 64 * 1024;

/// A route socket of one namespace.
#[derive(Debug)]
pub struct Netlink {
    line: Mutex<Line>,
    cookie: u64,
}

/// The socket, and what one request at a time needs beside it.
#[derive(Debug)]
struct Line {
    socket: Socket,
    sequence: u32,
    buffer: BytesMut,
}

impl Netlink {
    /// For the calling thread's network namespace.
    pub fn open() -> Result<Self, NetlinkError> {
        Self::over(Socket::new(NETLINK_ROUTE).map_err(NetlinkError::Open)?)
    }

    /// Over a socket that was opened elsewhere: it works in the namespace where it was opened.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, NetlinkError> {
        // SAFETY: the descriptor is open and given away here; the socket closes it.
        Self::over(unsafe { Socket::from_raw_fd(fd.into_raw_fd()) })
    }

    /// The number of the namespace (`SO_NETNS_COOKIE`), never used twice while the node is up.
    pub fn cookie(&self) -> u64 {
        self.cookie
    }

    fn over(socket: Socket) -> Result<Self, NetlinkError> {
        let cookie = super::netns::cookie(socket.as_fd()).map_err(NetlinkError::Open)?;
        let prepare = || {
            socket.set_ext_ack(true)?;
            socket.set_cap_ack(true)?;
            socket.set_netlink_get_strict_chk(true)?;
            socket.set_non_blocking(false)?;
            super::socket::receive_within(socket.as_fd(), DEADLINE)
        };
        prepare().map_err(NetlinkError::Open)?;
        let line = Line { socket, sequence: 0, buffer: BytesMut::with_capacity(ROOM) };
        Ok(Self { line: Mutex::new(line), cookie })
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
        let mut line = self.line.lock().await;
        let mut attempt = 1;
        loop {
            match line.ask(message.clone(), flags, &doing).await {
                Err(error) if error.is_passing() && attempt < ATTEMPTS => {
                    tokio::time::sleep(Duration::from_millis(5) * attempt).await;
                    attempt += 1;
                }
                result => return result,
            }
        }
    }
}

impl Line {
    /// Dropping the future leaves answers behind, which the next request passes over by their number.
    async fn ask(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        doing: &impl Fn() -> String,
    ) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        let failed = |error| NetlinkError::from_socket(doing(), error);
        self.send(message, flags).map_err(failed)?;
        let own = self.sequence;
        // Who asks for one thing, without an acknowledgement, gets that one thing or an error.
        let single = flags & (NLM_F_ACK | NLM_F_DUMP) == 0;
        let mut result = Ok(Vec::new());
        loop {
            let mut rest = self.receive().map_err(failed)?;
            while !rest.is_empty() {
                let Ok(answer) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest) else {
                    tracing::debug!(doing = doing(), "a message of the kernel's that is not understood");
                    rest = after(rest);
                    if single {
                        return result;
                    }
                    continue;
                };
                rest = after(rest);
                if answer.header.sequence_number != own {
                    continue;
                }
                if answer.header.flags & NLM_F_DUMP_INTR != 0 && flags & NLM_F_DUMP == NLM_F_DUMP {
                    result = Err(NetlinkError::Interrupted { doing: doing() });
                }
                match answer.payload {
                    NetlinkPayload::InnerMessage(inner) => {
                        if let Ok(found) = &mut result {
                            found.push(inner);
                        }
                        if single {
                            return result;
                        }
                    }
                    NetlinkPayload::Error(error) if error.code.is_some() => {
                        return Err(NetlinkError::from_kernel(doing(), &error));
                    }
                    NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return result,
                    NetlinkPayload::Overrun(_) => result = Err(NetlinkError::Interrupted { doing: doing() }),
                    _ => {}
                }
            }
            consume_budget().await;
        }
    }

    fn send(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut request = NetlinkMessage::from(message);
        request.header.flags = flags;
        request.header.sequence_number = self.sequence;
        request.finalize();
        self.buffer.clear();
        self.buffer.resize(request.buffer_len(), 0);
        request.serialize(&mut self.buffer);
        self.socket.send_to(&self.buffer, &SocketAddr::new(0, 0), 0).map(drop)
    }

    fn receive(&mut self) -> io::Result<&[u8]> {
        loop {
            self.buffer.clear();
            self.buffer.reserve(ROOM);
            match self.socket.recv(&mut self.buffer, libc::MSG_TRUNC) {
                Ok(length) if length > self.buffer.len() => return Err(io::ErrorKind::FileTooLarge.into()),
                Ok(_) => return Ok(&self.buffer),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// What follows the first message; nothing where its length is not one.
fn after(messages: &[u8]) -> &[u8] {
    const HEADER: usize = 16;
    let length = messages.first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes) as usize);
    messages.get((length.max(HEADER) + 3) & !3..).unwrap_or_default()
}
