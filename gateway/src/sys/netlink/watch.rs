//! Notice that something changed in a network namespace.
//!
//! Two sockets: rtnetlink's groups for links, addresses, routes, rules, neighbours and tc, and nf_tables' group. Messages
//! are hardly decoded: a notice says which sort of thing changed and where, and whoever cares looks there. When the
//! kernel had to drop messages because nobody read them, the notice is [`Notice::Lost`]. Queues: the sockets' own
//! buffers.

use std::io;
use std::net::IpAddr;

use rtnetlink::MulticastGroup;
use rtnetlink::sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use rtnetlink::sys::{Socket, SocketAddr};
use tokio::io::unix::AsyncFd;

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Notice {
    /// A link was made, changed or deleted.
    Link {
        /// The link.
        index: u32,
    },
    /// An address of this link came or went.
    Address {
        /// The link.
        index: u32,
    },
    /// A route went.
    RouteGone {
        /// The kernel made it for the subnet of an address.
        connected: bool,
    },
    /// A route came or was replaced, or a rule changed.
    Route,
    /// A neighbour or forwarding entry of this link changed.
    Neighbour {
        /// The link; of a forwarding entry the port.
        index: u32,
        /// Whose; `None` for a forwarding entry.
        address: Option<IpAddr>,
        /// It is, or was, permanent.
        permanent: bool,
    },
    /// A tc filter or queueing discipline of this link went.
    TrafficControl {
        /// The link.
        index: u32,
    },
    /// Something in nf_tables changed.
    Netfilter,
    /// The kernel dropped notices; anything may have changed.
    Lost,
}

/// The sockets.
#[derive(Debug)]
pub struct Watch {
    route: AsyncFd<Socket>,
    netfilter: AsyncFd<Socket>,
}

impl Watch {
    /// Listens in the calling thread's network namespace, from now on.
    pub fn open() -> io::Result<Self> {
        use MulticastGroup::{Ipv4Ifaddr, Ipv4Route, Ipv4Rule, Ipv6Ifaddr, Ipv6Route, Ipv6Rule, Link, Neigh, Tc};
        /// `NFNLGRP_NFTABLES` of `linux/netfilter/nfnetlink.h`.
        const NFTABLES: u32 = 7;
        let groups = [Link, Ipv4Ifaddr, Ipv6Ifaddr, Ipv4Route, Ipv6Route, Ipv4Rule, Ipv6Rule, Neigh, Tc];
        let groups = groups.map(|group| group as u32);
        Ok(Self { route: listen(NETLINK_ROUTE, &groups)?, netfilter: listen(NETLINK_NETFILTER, &[NFTABLES])? })
    }

    /// The same for links alone.
    pub fn of_links() -> io::Result<Self> {
        let links = MulticastGroup::Link as u32;
        Ok(Self { route: listen(NETLINK_ROUTE, &[links])?, netfilter: listen(NETLINK_NETFILTER, &[])? })
    }

    /// Waits for changes; at least one notice. Dropping the future loses nothing.
    pub async fn changed(&mut self) -> io::Result<Vec<Notice>> {
        loop {
            let (notices, mut ready) = tokio::select! {
                ready = self.route.readable() => {
                    let ready = ready?;
                    (drain(ready.get_inner(), route_notices), ready)
                }
                ready = self.netfilter.readable() => {
                    let ready = ready?;
                    (drain(ready.get_inner(), |_, notices| notices.push(Notice::Netfilter)), ready)
                }
            };
            let (mut notices, emptied) = notices?;
            if emptied {
                ready.clear_ready();
            }
            notices.dedup();
            if !notices.is_empty() {
                return Ok(notices);
            }
        }
    }
}

fn listen(protocol: isize, groups: &[u32]) -> io::Result<AsyncFd<Socket>> {
    let mut socket = Socket::new(protocol)?;
    socket.set_non_blocking(true)?;
    socket.bind(&SocketAddr::new(0, 0))?;
    for &group in groups {
        socket.add_membership(group)?;
    }
    // SAFETY: the descriptor inside the socket stays the same and open until the value is dropped.
    unsafe { AsyncFd::register(socket) }.map_err(io::Error::from)
}

/// Reads what is there, at most a bounded number of messages; whether the socket is empty now.
fn drain(socket: &Socket, look: fn(&[u8], &mut Vec<Notice>)) -> io::Result<(Vec<Notice>, bool)> {
    const MOST: usize = 256;
    let mut notices = Vec::new();
    let mut buffer = bytes::BytesMut::with_capacity(32 * 1024);
    for _ in 0..MOST {
        buffer.clear();
        match socket.recv(&mut buffer, 0) {
            Ok(_) => look(&buffer, &mut notices),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok((notices, true)),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => notices.push(Notice::Lost),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok((notices, false))
}

/// Looks at the fixed headers of `linux/rtnetlink.h` only; a message that is cut short counts as [`Notice::Lost`].
fn route_notices(mut rest: &[u8], notices: &mut Vec<Notice>) {
    const HEADER: usize = 16;
    const RTPROT_KERNEL: u8 = 2;
    const NUD_PERMANENT: u16 = 0x80;
    while rest.len() >= HEADER {
        let length = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
        let kind = u16::from_ne_bytes([rest[4], rest[5]]);
        let Some(body) = rest.get(HEADER..length) else { return notices.push(Notice::Lost) };
        let index = body.get(4..8).map_or(0, |b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
        match kind {
            libc::RTM_NEWLINK | libc::RTM_DELLINK => notices.push(Notice::Link { index }),
            libc::RTM_NEWADDR | libc::RTM_DELADDR => notices.push(Notice::Address { index }),
            libc::RTM_DELROUTE => {
                notices.push(Notice::RouteGone { connected: body.get(5) == Some(&RTPROT_KERNEL) });
            }
            libc::RTM_NEWROUTE | libc::RTM_NEWRULE | libc::RTM_DELRULE => notices.push(Notice::Route),
            libc::RTM_NEWNEIGH | libc::RTM_DELNEIGH => {
                let state = body.get(8..10).map_or(0, |b| u16::from_ne_bytes([b[0], b[1]]));
                let permanent = state & NUD_PERMANENT != 0;
                notices.push(Notice::Neighbour { index, address: neighbour_in(body), permanent });
            }
            libc::RTM_DELTFILTER | libc::RTM_DELQDISC => {
                notices.push(Notice::TrafficControl { index });
            }
            _ => {}
        }
        rest = rest.get((length + 3) & !3..).unwrap_or_default();
    }
}

/// `NDA_DST` of a neighbour of either family, behind the 12 bytes of `struct ndmsg` (`linux/neighbour.h`).
fn neighbour_in(body: &[u8]) -> Option<IpAddr> {
    const HEADER: usize = 12;
    const DESTINATION: u16 = 1;
    let family = i32::from(*body.first()?);
    let mut rest = body.get(HEADER..)?;
    while let [a, b, c, d, values @ ..] = rest {
        let length = usize::from(u16::from_ne_bytes([*a, *b]));
        let value = values.get(..length.checked_sub(4)?)?;
        if u16::from_ne_bytes([*c, *d]) == DESTINATION {
            return match family {
                libc::AF_INET => <[u8; 4]>::try_from(value).ok().map(IpAddr::from),
                libc::AF_INET6 => <[u8; 16]>::try_from(value).ok().map(IpAddr::from),
                _ => None,
            };
        }
        rest = rest.get((length + 3) & !3..)?;
    }
    None
}
