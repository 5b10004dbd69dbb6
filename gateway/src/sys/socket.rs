//! Socket options and kinds that std and tokio do not offer.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use super::check;

/// A non-blocking UDP socket that is bound to nothing. It is, and stays, of the calling thread's network namespace: whoever
/// binds or connects it does so there (`sock_net`, include/net/sock.h).
pub fn udp(ipv6: bool) -> io::Result<OwnedFd> {
    unbound(ipv6, libc::SOCK_DGRAM)
}

/// The same for TCP.
pub fn tcp(ipv6: bool) -> io::Result<OwnedFd> {
    unbound(ipv6, libc::SOCK_STREAM)
}

fn unbound(ipv6: bool, kind: libc::c_int) -> io::Result<OwnedFd> {
    let family = if ipv6 { libc::AF_INET6 } else { libc::AF_INET };
    // SAFETY: socket takes numbers only.
    let raw = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// A non-blocking UDP socket bound to the wildcard address, for one family only.
pub fn udp_wildcard(ipv6: bool, port: u16) -> io::Result<UdpSocket> {
    let socket = UdpSocket::from(udp(ipv6)?);
    let fd = socket.as_fd();
    if ipv6 {
        only_ipv6(fd)?;
        free_bind(fd)?;
        let any = libc::sockaddr_in6 {
            sin6_family: libc::AF_INET6 as libc::sa_family_t,
            sin6_port: port.to_be(),
            sin6_flowinfo: 0,
            sin6_addr: libc::in6_addr { s6_addr: Ipv6Addr::UNSPECIFIED.octets() },
            sin6_scope_id: 0,
        };
        bind(fd, &any)?;
    } else {
        let any = libc::sockaddr_in {
            sin_family: libc::AF_INET as libc::sa_family_t,
            sin_port: port.to_be(),
            sin_addr: libc::in_addr { s_addr: u32::from(Ipv4Addr::UNSPECIFIED) },
            sin_zero: [0; 8],
        };
        bind(fd, &any)?;
    }
    Ok(socket)
}

/// IPv4 is not served by this IPv6 socket.
pub fn only_ipv6(socket: BorrowedFd<'_>) -> io::Result<()> {
    set(socket, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1)
}

/// Lets an IPv6 socket bind to, and send from, an address that no interface has.
pub fn free_bind(socket: BorrowedFd<'_>) -> io::Result<()> {
    set(socket, libc::IPPROTO_IPV6, libc::IPV6_FREEBIND, 1)
}

/// A bind to port 0 leaves the port to connect(2), which then only has to find one free for that far end.
pub fn bind_without_port(socket: BorrowedFd<'_>) -> io::Result<()> {
    set(socket, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)
}

/// Asks for each datagram's local address ([`super::pktinfo`]).
pub fn want_pktinfo(socket: BorrowedFd<'_>, ipv6: bool) -> io::Result<()> {
    if ipv6 {
        set(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)
    } else {
        set(socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)
    }
}

/// Room for datagrams that wait to be read, in bytes; above `net.core.rmem_max` with CAP_NET_ADMIN.
pub fn receive_room(socket: BorrowedFd<'_>, bytes: libc::c_int) -> io::Result<()> {
    set(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, bytes)
        .or_else(|_| set(socket, libc::SOL_SOCKET, libc::SO_RCVBUF, bytes))
}

/// Reading gives up with `WouldBlock` after this time, to the microsecond.
pub fn receive_within(socket: BorrowedFd<'_>, time: Duration) -> io::Result<()> {
    let time = libc::timeval {
        tv_sec: time.as_secs() as libc::time_t,
        tv_usec: libc::suseconds_t::from(time.subsec_micros()),
    };
    set(socket, libc::SOL_SOCKET, libc::SO_RCVTIMEO, time)
}

/// Takes one datagram, or the error that waits on the socket; `WouldBlock` if there is neither.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the kernel writes at most `buffer.len()` bytes into `buffer`.
    let length =
        unsafe { libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_DONTWAIT) };
    usize::try_from(length).map_err(|_| io::Error::last_os_error())
}

/// `V` is what the kernel takes for this option.
fn set<V>(socket: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int, value: V) -> io::Result<()> {
    let size = size_of::<V>() as libc::socklen_t;
    // SAFETY: the kernel reads `size` bytes from `value`, which lives through the call.
    check(unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), size) })
}

/// `A` is one of the kernel's socket addresses.
fn bind<A>(socket: BorrowedFd<'_>, address: &A) -> io::Result<()> {
    // SAFETY: `address` is a whole socket address of the size given.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const *address).cast(), size_of::<A>() as libc::socklen_t) })
}
