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

/// Whether the interface of the calling thread's namespace is up with a carrier, so that frames are taken.
///
/// # Errors
/// When there is no such interface.
pub fn is_running(interface: &str) -> io::Result<bool> {
    let flags = flags(libc::SIOCGIFFLAGS, interface, 0)?;
    Ok(libc::c_int::from(flags) & libc::IFF_RUNNING != 0)
}

/// Sets `lo` of the calling thread's namespace up.
fn loopback_up() -> io::Result<()> {
    flags(libc::SIOCSIFFLAGS, "lo", libc::IFF_UP as libc::c_short).map(drop)
}

/// Reads or writes an interface's flags (netdevice(7)).
fn flags(request: libc::Ioctl, interface: &str, flags: libc::c_short) -> io::Result<libc::c_short> {
    // SAFETY: socket takes numbers only.
    let raw = check(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: the descriptor is fresh and owned by nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    // SAFETY: an all-zero ifreq is valid.
    let mut message: libc::ifreq = unsafe { std::mem::zeroed() };
    let name = interface.as_bytes();
    if name.len() >= message.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in message.ifr_name.iter_mut().zip(name) {
        *to = from.cast_signed();
    }
    message.ifr_ifru.ifru_flags = flags;
    // SAFETY: both requests take a live ifreq with a NUL-terminated name, and touch nothing but it.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), request, ptr::from_mut(&mut message)) })?;
    // SAFETY: flags were written above, and by the kernel when they were asked for.
    Ok(unsafe { message.ifr_ifru.ifru_flags })
}
