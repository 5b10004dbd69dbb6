//! AF_PACKET: raw Ethernet frames in and out of one interface (packet(7)).

use std::ffi::CString;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;
use std::time::Duration;

use super::{check, check_length};

/// Frames sent by one system call of [`PacketSocket::send_burst`].
pub const BURST: usize = 64;

const FRAME_MAX: usize = 65_550;

/// A raw socket bound to one interface of the namespace that it was made in.
#[derive(Debug)]
pub struct PacketSocket {
    descriptor: OwnedFd,
}

/// A frame as it came: the tag, which the kernel takes out of the frame, stands beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Ethernet header and payload, without the VLAN tag.
    pub bytes: Vec<u8>,
    /// The tag's VLAN id.
    pub vlan: Option<u16>,
    /// Whether this host sent it.
    pub outgoing: bool,
}

impl PacketSocket {
    /// Opens a socket on the interface; `receive` says whether frames are to come in.
    ///
    /// # Errors
    /// When there is no such interface in the calling thread's namespace.
    pub fn open(interface: &str, receive: bool) -> io::Result<Self> {
        let name = CString::new(interface).map_err(io::Error::other)?;
        // SAFETY: the name is NUL-terminated and outlives the call.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        if index == 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: socket takes numbers only.
        let raw = check(unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) })?;
        // SAFETY: the descriptor is fresh and owned by nobody else.
        let socket = Self { descriptor: unsafe { OwnedFd::from_raw_fd(raw) } };
        socket.option(libc::PACKET_AUXDATA, 1)?;
        socket.bind(index, if receive { libc::ETH_P_ALL } else { 0 })?;
        Ok(socket)
    }

    /// Lets frames go straight to the device, past the queueing discipline and past taps.
    ///
    /// # Errors
    /// When the kernel refuses the option.
    pub fn bypass_queue(&self) -> io::Result<()> {
        self.option(libc::PACKET_QDISC_BYPASS, 1)
    }

    /// Sends one frame, Ethernet header first.
    ///
    /// # Errors
    /// When the interface is down or its queue full.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        // SAFETY: the pointer and the length are those of a live slice.
        let sent = unsafe { libc::send(self.descriptor.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        check_length(sent).map(drop)
    }

    /// Sends up to [`BURST`] frames by one call; answers how many went out.
    ///
    /// # Errors
    /// When none went out.
    pub fn send_burst(&self, frames: &[Vec<u8>]) -> io::Result<usize> {
        let count = frames.len().min(BURST);
        // SAFETY: all-zero iovec and mmsghdr are valid: null pointers with zero lengths.
        let mut vectors: [libc::iovec; BURST] = unsafe { mem::zeroed() };
        // SAFETY: as above.
        let mut messages: [libc::mmsghdr; BURST] = unsafe { mem::zeroed() };
        for ((frame, vector), message) in frames.iter().zip(&mut vectors).zip(&mut messages) {
            *vector = libc::iovec { iov_base: frame.as_ptr().cast_mut().cast(), iov_len: frame.len() };
            message.msg_hdr.msg_iov = ptr::from_mut(vector);
            message.msg_hdr.msg_iovlen = 1;
        }
        let descriptor = self.descriptor.as_raw_fd();
        // SAFETY: `count` headers are filled, each with one vector over a live slice that sendmmsg only reads.
        let sent = check(unsafe { libc::sendmmsg(descriptor, messages.as_mut_ptr(), count as libc::c_uint, 0) })?;
        Ok(sent.unsigned_abs() as usize)
    }

    /// The next frame, or `None` when none comes within `bound`.
    ///
    /// # Errors
    /// When the interface went away.
    pub fn receive(&self, bound: Duration) -> io::Result<Option<Received>> {
        let mut poll = libc::pollfd { fd: self.descriptor.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let milliseconds = libc::c_int::try_from(bound.as_millis()).unwrap_or(libc::c_int::MAX);
        // SAFETY: one live pollfd.
        if check(unsafe { libc::poll(&raw mut poll, 1, milliseconds) })? == 0 {
            return Ok(None);
        }
        let mut buffer = vec![0u8; FRAME_MAX];
        let mut control = [0u64; 16];
        let mut vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        // SAFETY: all-zero is a valid sockaddr_ll and a valid msghdr.
        let mut from: libc::sockaddr_ll = unsafe { mem::zeroed() };
        // SAFETY: as above.
        let mut message: libc::msghdr = unsafe { mem::zeroed() };
        message.msg_name = (&raw mut from).cast();
        message.msg_namelen = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        message.msg_iov = &raw mut vector;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control);
        // SAFETY: name, vector and control point at live buffers of the lengths given.
        let length = check_length(unsafe { libc::recvmsg(self.descriptor.as_raw_fd(), &raw mut message, 0) })?;
        buffer.truncate(length);
        let outgoing = from.sll_pkttype == libc::PACKET_OUTGOING;
        Ok(Some(Received { bytes: buffer, vlan: tag(&message), outgoing }))
    }

    fn option(&self, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
        let length = size_of::<libc::c_int>() as libc::socklen_t;
        let value = (&raw const value).cast();
        // SAFETY: the value is a live int of the length given.
        check(unsafe { libc::setsockopt(self.descriptor.as_raw_fd(), libc::SOL_PACKET, name, value, length) }).map(drop)
    }

    fn bind(&self, index: u32, protocol: libc::c_int) -> io::Result<()> {
        // SAFETY: an all-zero sockaddr_ll is valid.
        let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_ifindex = libc::c_int::try_from(index).map_err(io::Error::other)?;
        address.sll_protocol = (protocol as u16).to_be();
        let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: the address is a live sockaddr_ll of the length given.
        check(unsafe { libc::bind(self.descriptor.as_raw_fd(), (&raw const address).cast(), length) }).map(drop)
    }
}

fn tag(message: &libc::msghdr) -> Option<u16> {
    // SAFETY: the header's control buffer is live and its length is what recvmsg wrote.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !header.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR give null or a whole header inside the buffer.
        let (level, kind) = unsafe { ((*header).cmsg_level, (*header).cmsg_type) };
        if level == libc::SOL_PACKET && kind == libc::PACKET_AUXDATA {
            // SAFETY: the kernel writes a whole tpacket_auxdata for this type; it may be unaligned.
            let data: libc::tpacket_auxdata = unsafe { ptr::read_unaligned(libc::CMSG_DATA(header).cast()) };
            let valid = data.tp_status & libc::TP_STATUS_VLAN_VALID != 0;
            return valid.then_some(data.tp_vlan_tci & 0x0fff);
        }
        // SAFETY: as for CMSG_FIRSTHDR.
        header = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
    None
}
