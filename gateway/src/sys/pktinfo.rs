//! Datagrams with their local address: `IP_PKTINFO` and `IPV6_PKTINFO` (ip(7), RFC 3542), received and sent.
//!
//! A wildcard socket that answers for addresses which are not its own must say from which one an answer comes.

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};

/// Where a datagram came from and where it was sent to; an answer takes the same way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// The far end.
    pub peer: SocketAddr,
    /// The address that was asked.
    pub local: IpAddr,
    /// The interface it came in by.
    pub ifindex: u32,
}

/// One received datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Bytes in the buffer.
    pub length: usize,
    /// The datagram was longer than the buffer.
    pub truncated: bool,
    /// Its addresses.
    pub way: Way,
}

/// Room for one control message of either family, aligned as the kernel wants it.
#[repr(align(8))]
struct Control([u8; 128]);

/// Takes one datagram from a socket that [`super::socket::want_pktinfo`] was set on; `WouldBlock` if there is none.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Received> {
    let mut name = MaybeUninit::<libc::sockaddr_storage>::zeroed();
    let mut control = Control([0; 128]);
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: all-zero is a valid msghdr (null pointers with zero lengths).
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_name = name.as_mut_ptr().cast();
    message.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control.0.len();
    // SAFETY: every pointer in `message` leads to live memory of the length that stands beside it.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the storage was zeroed, and the kernel wrote a whole address over it.
    let peer = peer_of(unsafe { name.assume_init_ref() })?;
    // SAFETY: `message` is as recvmsg left it, and `control` lives.
    let (local, ifindex) =
        unsafe { local_of(&message) }.ok_or_else(|| invalid("a datagram without its local address"))?;
    Ok(Received { length, truncated: message.msg_flags & libc::MSG_TRUNC != 0, way: Way { peer, local, ifindex } })
}

/// Sends one datagram back the way another came; `WouldBlock` if the socket's buffer is full.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], way: &Way) -> io::Result<()> {
    let mut control = Control([0; 128]);
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: all-zero is a valid msghdr and a valid socket address.
    let (mut message, mut v4, mut v6): (libc::msghdr, libc::sockaddr_in, libc::sockaddr_in6) =
        unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control.0.len();
    match (way.peer, way.local) {
        (SocketAddr::V4(peer), IpAddr::V4(local)) => {
            v4.sin_family = libc::AF_INET as libc::sa_family_t;
            v4.sin_port = peer.port().to_be();
            v4.sin_addr.s_addr = u32::from_ne_bytes(peer.ip().octets());
            message.msg_name = (&raw mut v4).cast();
            message.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
            let info = libc::in_pktinfo {
                ipi_ifindex: way.ifindex as libc::c_int,
                ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(local.octets()) },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            // SAFETY: `message` has 128 bytes of zeroed control room.
            unsafe { put(&mut message, libc::IPPROTO_IP, libc::IP_PKTINFO, info) };
        }
        (SocketAddr::V6(peer), IpAddr::V6(local)) => {
            v6.sin6_family = libc::AF_INET6 as libc::sa_family_t;
            v6.sin6_port = peer.port().to_be();
            v6.sin6_addr.s6_addr = peer.ip().octets();
            v6.sin6_scope_id = peer.scope_id();
            message.msg_name = (&raw mut v6).cast();
            message.msg_namelen = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
            let info =
                libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: local.octets() }, ipi6_ifindex: way.ifindex };
            // SAFETY: `message` has 128 bytes of zeroed control room.
            unsafe { put(&mut message, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info) };
        }
        (SocketAddr::V4(_), IpAddr::V6(_)) | (SocketAddr::V6(_), IpAddr::V4(_)) => {
            return Err(invalid("a way of two address families"));
        }
    }
    // SAFETY: every pointer in `message` leads to live memory of the length that stands beside it.
    let sent =
        unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn peer_of(name: &libc::sockaddr_storage) -> io::Result<SocketAddr> {
    match i32::from(name.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says which structure this is, and the storage is large enough for it.
            let v4 = unsafe { &*(&raw const *name).cast::<libc::sockaddr_in>() };
            Ok(SocketAddrV4::new(Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes()), u16::from_be(v4.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let v6 = unsafe { &*(&raw const *name).cast::<libc::sockaddr_in6>() };
            Ok(SocketAddrV6::new(Ipv6Addr::from(v6.sin6_addr.s6_addr), u16::from_be(v6.sin6_port), 0, v6.sin6_scope_id)
                .into())
        }
        family => Err(invalid(&format!("a datagram of address family {family}"))),
    }
}

/// # Safety
/// `message` must be as recvmsg left it, with its control buffer still alive.
unsafe fn local_of(message: &libc::msghdr) -> Option<(IpAddr, u32)> {
    // SAFETY: the macros walk the control buffer within the length that recvmsg wrote into `message`; the data of a
    // PKTINFO message is the kernel's structure, read unaligned.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(message);
        while !header.is_null() {
            match ((*header).cmsg_level, (*header).cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info = libc::CMSG_DATA(header).cast::<libc::in_pktinfo>().read_unaligned();
                    return Some((Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes()).into(), info.ipi_ifindex as u32));
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info = libc::CMSG_DATA(header).cast::<libc::in6_pktinfo>().read_unaligned();
                    return Some((Ipv6Addr::from(info.ipi6_addr.s6_addr).into(), info.ipi6_ifindex));
                }
                _ => header = libc::CMSG_NXTHDR(message, header),
            }
        }
        None
    }
}

/// # Safety
/// `message`'s control buffer must be zeroed and hold at least `CMSG_SPACE(size_of::<T>())` bytes.
unsafe fn put<T>(message: &mut libc::msghdr, level: libc::c_int, kind: libc::c_int, info: T) {
    let size = size_of::<T>() as libc::c_uint;
    // SAFETY: the caller gives room for one header and `T`; CMSG_FIRSTHDR is then not null.
    unsafe {
        message.msg_controllen = libc::CMSG_SPACE(size) as usize;
        let header = libc::CMSG_FIRSTHDR(message);
        (*header).cmsg_level = level;
        (*header).cmsg_type = kind;
        (*header).cmsg_len = libc::CMSG_LEN(size) as usize;
        libc::CMSG_DATA(header).cast::<T>().write_unaligned(info);
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what.to_owned())
}
