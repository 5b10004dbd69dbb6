//! Entering a network namespace.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use super::check;

/// Moves the calling thread into the network namespace (setns(2)). It does not come back: use a thread of its own.
///
/// # Errors
/// Without CAP_SYS_ADMIN, or when the file is no network namespace.
pub fn enter(namespace: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open for as long as `namespace` is borrowed; setns touches no memory of ours.
    check(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) }).map(drop)
}
