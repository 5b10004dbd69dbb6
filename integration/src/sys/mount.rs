//! Mounts: the bpf file system, and the private view of `/etc/resolv.conf` that a pod's commands get.

use std::ffi::{CStr, CString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

use super::check;

/// Mounts a bpf file system on an existing folder.
///
/// # Errors
/// Without CAP_SYS_ADMIN, or when the kernel has no bpf file system.
pub fn bpf(on: &Path) -> io::Result<()> {
    let on = path(on)?;
    // SAFETY: all strings are NUL-terminated and outlive the call; no data is passed.
    check(unsafe { libc::mount(c"bpf".as_ptr(), on.as_ptr(), c"bpf".as_ptr(), 0, ptr::null()) }).map(drop)
}

/// Mounts a file over another.
///
/// # Errors
/// Without CAP_SYS_ADMIN, or when one of the two is missing.
pub fn bind(file: &Path, on: &Path) -> io::Result<()> {
    let (file, on) = (path(file)?, path(on)?);
    // SAFETY: both strings are NUL-terminated and outlive the call; a bind mount reads no type and no data.
    check(unsafe { libc::mount(file.as_ptr(), on.as_ptr(), ptr::null(), libc::MS_BIND, ptr::null()) }).map(drop)
}

/// Detaches a mount, however busy it is.
///
/// # Errors
/// When nothing is mounted there.
pub fn detach(on: &Path) -> io::Result<()> {
    let on = path(on)?;
    // SAFETY: the string is NUL-terminated and outlives the call.
    check(unsafe { libc::umount2(on.as_ptr(), libc::MNT_DETACH) }).map(drop)
}

/// Gives the calling process its own view of the mounts, with `file` in the place of `instead_of`.
///
/// # Errors
/// Without CAP_SYS_ADMIN, or when one of the two files is missing.
pub(super) fn overlay_file(file: &CStr, instead_of: &CStr) -> io::Result<()> {
    // SAFETY: unshare touches no memory of ours; between fork and exec there is one thread.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
    let slave = libc::MS_REC | libc::MS_SLAVE;
    // SAFETY: the strings are NUL-terminated literals; source, type and data are not read for a change of propagation.
    check(unsafe { libc::mount(ptr::null(), c"/".as_ptr(), ptr::null(), slave, ptr::null()) })?;
    // SAFETY: both strings are NUL-terminated and outlive the call; a bind mount reads no type and no data.
    check(unsafe { libc::mount(file.as_ptr(), instead_of.as_ptr(), ptr::null(), libc::MS_BIND, ptr::null()) })?;
    Ok(())
}

/// A path as the kernel takes it.
pub(super) fn path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}
