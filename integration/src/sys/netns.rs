//! Making, holding, entering and leaving network namespaces, as `ip netns` does it: `ip netns exec NAME` works on them.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::ptr;
use std::thread;

use super::{check, mount};

/// Makes a network namespace with `lo` up, held open by a mount on `path`.
///
/// # Errors
/// Without CAP_SYS_ADMIN, or when the path exists already.
pub fn create(path: &Path) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    File::create_new(path)?;
    let hold = || {
        // SAFETY: unshare touches no memory; the calling thread was made for this and ends after it.
        check(unsafe { libc::unshare(libc::CLONE_NEWNET) })?;
        loopback_up()?;
        mount::bind(Path::new("/proc/thread-self/ns/net"), path)
    };
    thread::scope(|scope| scope.spawn(hold).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
}

/// Lets go of a namespace that [`create`] made: it ends with its last process and socket.
///
/// # Errors
/// When nothing is mounted there, or the file cannot be removed.
pub fn release(path: &Path) -> io::Result<()> {
    mount::detach(path)?;
    fs::remove_file(path)
}

/// Moves the calling thread into the network namespace (setns(2)). It does not come back: use a thread of its own.
///
/// # Errors
/// Without CAP_SYS_ADMIN, or when the file is no network namespace.
pub fn enter(namespace: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open for as long as `namespace` is borrowed; setns touches no memory of ours.
    check(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) }).map(drop)
}

/// Sets `lo` of the calling thread's namespace up (netdevice(7)).
fn loopback_up() -> io::Result<()> {
    // SAFETY: socket takes numbers only.
    let raw = check(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: the descriptor is fresh and owned by nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    // SAFETY: an all-zero ifreq is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads a live ifreq with a NUL-terminated name.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, ptr::from_ref(&request)) }).map(drop)
}
