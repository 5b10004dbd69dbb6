//! The doors to the kernel: the only place of this crate with `unsafe`, one function a call.

pub mod bpf;
pub mod mount;
pub mod netns;
pub mod packet;
pub mod process;
pub mod socket;

use std::io;

/// Turns a C return value into a result.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// As [`check`], for calls that return a length.
fn check_length(result: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}
