//! The system calls of the measurements: entering a namespace for a thread's life, and sending raw frames.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

/// Moves the calling thread into the network namespace held open at `path`, for the rest of its life.
pub(crate) fn enter(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    // SAFETY: setns takes a descriptor that is open for the call and touches no memory of ours.
    check(unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) }).map(|_| ())
}

/// Keeps the calling thread on one processor.
pub(crate) fn pin(processor: usize) -> io::Result<()> {
    // SAFETY: an all-zero cpu_set_t is a valid, empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: CPU_SET writes inside `set` for indices below CPU_SETSIZE.
    unsafe { libc::CPU_SET(processor % libc::CPU_SETSIZE as usize, &mut set) };
    // SAFETY: `set` is initialised and its true size is given.
    check(unsafe { libc::sched_setaffinity(0, size_of_val(&set), &set) }).map(|_| ())
}

/// A packet socket that writes whole frames to one device, past its queueing discipline (packet(7)).
pub(crate) struct FrameSocket(OwnedFd);

impl FrameSocket {
    /// Binds to the device with this index in the thread's namespace.
    pub(crate) fn open(ifindex: u32) -> io::Result<Self> {
        // SAFETY: no pointers.
        let fd = check(unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) })?;
        // SAFETY: the descriptor is new and owned by nobody else.
        let socket = Self(unsafe { OwnedFd::from_raw_fd(fd) });
        let one: libc::c_int = 1;
        // SAFETY: the option's value points to an int of the stated size.
        check(unsafe {
            libc::setsockopt(fd, libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, (&raw const one).cast(), size_of_val(&one) as u32)
        })?;
        // SAFETY: an all-zero sockaddr_ll is valid.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_ifindex = ifindex as i32;
        // SAFETY: the address is initialised and its true size is given.
        check(unsafe { libc::bind(fd, (&raw const address).cast(), size_of_val(&address) as u32) })?;
        Ok(socket)
    }

    /// Sends the frames once each and answers how many went out.
    pub(crate) fn send(&self, frames: &[[u8; 60]]) -> usize {
        let mut parts: Vec<libc::iovec> =
            frames.iter().map(|f| libc::iovec { iov_base: f.as_ptr().cast_mut().cast(), iov_len: f.len() }).collect();
        let mut messages: Vec<libc::mmsghdr> = parts
            .iter_mut()
            .map(|part| {
                // SAFETY: an all-zero mmsghdr is a valid, empty message.
                let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
                message.msg_hdr.msg_iov = part;
                message.msg_hdr.msg_iovlen = 1;
                message
            })
            .collect();
        // SAFETY: every message points to a part, every part to a frame; all of them outlive the call.
        let sent = unsafe { libc::sendmmsg(self.0.as_raw_fd(), messages.as_mut_ptr(), messages.len() as u32, 0) };
        usize::try_from(sent).unwrap_or(0)
    }
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
