//! Sockets as the standard library does not make them: ICMP echo as datagrams, connections that are reset.

use std::io;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

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

/// Opens a connection that is reset when it is dropped (`SO_LINGER` of zero, see socket(7)): neither side keeps TIME_WAIT.
///
/// # Errors
/// Those of connecting.
pub fn connect_resetting(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(to)?;
    reset_when_dropped(&stream)?;
    Ok(stream)
}

/// The same for one that is open.
///
/// # Errors
/// When the kernel has no memory for it.
pub fn reset_when_dropped(stream: &TcpStream) -> io::Result<()> {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let length = size_of_val(&linger) as libc::socklen_t;
    let value = std::ptr::from_ref(&linger).cast();
    // SAFETY: the option's value is a live `linger` of that length.
    check(unsafe { libc::setsockopt(stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, value, length) })?;
    Ok(())
}
