//! Messages with at most one file descriptor over a `SOCK_SEQPACKET` pair (`man 7 unix`, SCM_RIGHTS).

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Longest message; both sides refuse a longer one.
pub(super) const LONGEST: usize = 8192;

/// Room for one control message with one descriptor, aligned for its header.
#[repr(C, align(8))]
struct Control([u8; 64]);

/// Two connected ends, both closed on exec.
pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: the kernel writes two descriptors to `ends`; on success they are open and nobody else's.
    unsafe {
        if libc::socketpair(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0, ends.as_mut_ptr()) < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok((OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])))
    }
}

/// Sends one whole message.
pub(super) fn send(socket: BorrowedFd<'_>, body: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    if body.len() > LONGEST {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let mut part = libc::iovec { iov_base: body.as_ptr().cast_mut().cast(), iov_len: body.len() };
    let mut control = Control([0; 64]);
    let mut message = empty_message(&mut part);
    if let Some(fd) = fd {
        message.msg_control = control.0.as_mut_ptr().cast();
        // SAFETY: CMSG_SPACE and CMSG_LEN only compute; the buffer is larger than the space of one descriptor and
        // aligned, so CMSG_FIRSTHDR is inside it, and its data has room for the descriptor.
        unsafe {
            message.msg_controllen = libc::CMSG_SPACE(size_of::<RawFd>() as u32) as _;
            let header = libc::CMSG_FIRSTHDR(&message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(size_of::<RawFd>() as u32) as _;
            libc::CMSG_DATA(header).cast::<RawFd>().write_unaligned(fd.as_raw_fd());
        }
    }
    // SAFETY: `message` points to `part`, `control` and `body`, all alive, and the kernel only reads them.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &message, libc::MSG_NOSIGNAL) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Takes one whole message; an empty one means that the other end is closed.
pub(super) fn receive(socket: BorrowedFd<'_>) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
    let mut body = vec![0u8; LONGEST];
    let mut part = libc::iovec { iov_base: body.as_mut_ptr().cast(), iov_len: body.len() };
    let mut control = Control([0; 64]);
    let mut message = empty_message(&mut part);
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control.0.len() as _;
    // SAFETY: `message` points to `part`, `control` and `body`, all alive and as long as it says.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &mut message, libc::MSG_CMSG_CLOEXEC) };
    if length < 0 {
        return Err(io::Error::last_os_error());
    }
    let fds = received_fds(&message);
    if message.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0 || fds.len() > 1 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message is longer than the protocol allows"));
    }
    body.truncate(length as usize);
    Ok((body, fds.into_iter().next()))
}

fn received_fds(message: &libc::msghdr) -> Vec<OwnedFd> {
    let mut fds = Vec::new();
    // SAFETY: the kernel has written whole control messages; CMSG_FIRSTHDR and CMSG_NXTHDR stay inside them. Each
    // descriptor in SCM_RIGHTS is new in this process and owned by nobody yet.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(message);
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
                let bytes = (*header).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                let data = libc::CMSG_DATA(header).cast::<RawFd>();
                fds.extend((0..bytes / size_of::<RawFd>()).map(|i| OwnedFd::from_raw_fd(data.add(i).read_unaligned())));
            }
            header = libc::CMSG_NXTHDR(message, header);
        }
    }
    fds
}

fn empty_message(part: &mut libc::iovec) -> libc::msghdr {
    // SAFETY: all zeroes is a valid msghdr: null pointers of length 0.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_iov = part;
    message.msg_iovlen = 1;
    message
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_message_and_its_descriptor_arrive_whole() {
        let (near, far) = pair().unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        send(near.as_fd(), b"with", Some(file.as_fd())).unwrap();
        send(near.as_fd(), b"without", None).unwrap();
        let (body, fd) = receive(far.as_fd()).unwrap();
        assert_eq!((body.as_slice(), fd.is_some()), (b"with".as_slice(), true));
        let (body, fd) = receive(far.as_fd()).unwrap();
        assert_eq!((body.as_slice(), fd.is_some()), (b"without".as_slice(), false));
        drop(near);
        assert!(receive(far.as_fd()).unwrap().0.is_empty());
    }

    #[test]
    fn a_long_message_is_refused() {
        let (near, _far) = pair().unwrap();
        assert!(send(near.as_fd(), &[0; LONGEST + 1], None).is_err());
    }
}
