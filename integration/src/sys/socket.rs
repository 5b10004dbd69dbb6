//! Sockets that the standard library does not make: ICMP echo as datagrams.

use std::io;
use std::net::UdpSocket;
use std::os::fd::{FromRawFd, OwnedFd};

use super::check;

/// A datagram socket for ICMP echo, in the family asked for (see icmp(7)); the kernel fills identifier and checksum.
/// It is a `UdpSocket` in that `connect`, `send` and `recv` do the same.
///
/// # Errors
/// When `net.ipv4.ping_group_range` does not hold the caller's group.
pub fn icmp_echo(v6: bool) -> io::Result<UdpSocket> {
    let (family, protocol) =
        if v6 { (libc::AF_INET6, libc::IPPROTO_ICMPV6) } else { (libc::AF_INET, libc::IPPROTO_ICMP) };
    // SAFETY: socket takes numbers only.
    let descriptor = check(unsafe { libc::socket(family, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, protocol) })?;
    // SAFETY: the descriptor is fresh and owned by nobody else.
    Ok(UdpSocket::from(unsafe { OwnedFd::from_raw_fd(descriptor) }))
}
