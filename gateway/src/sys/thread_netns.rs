//! The calling thread's network namespace: which it is, changing it for good, and holding one open by a bind mount.
//!
//! A namespace belongs to a thread. Call the functions that change it on a thread of your own, never on a runtime's worker.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

const OWN: &str = "/proc/thread-self/ns/net";

/// The calling thread's network namespace, held open.
pub fn own() -> io::Result<File> {
    File::open(OWN)
}

/// Whether both are the same namespace.
pub fn same(one: &File, other: &File) -> io::Result<bool> {
    let (one, other) = (one.metadata()?, other.metadata()?);
    Ok((one.dev(), one.ino()) == (other.dev(), other.ino()))
}

/// Moves the calling thread into a namespace (setns(2); CAP_SYS_ADMIN).
pub fn enter(namespace: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the descriptor is open for the length of the call; setns touches no memory of ours.
    done(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) })
}

/// Moves the calling thread into a new, empty namespace (unshare(2); CAP_SYS_ADMIN).
pub fn enter_new() -> io::Result<()> {
    // SAFETY: unshare takes flags only; CLONE_NEWNET concerns the calling thread alone.
    done(unsafe { libc::unshare(libc::CLONE_NEWNET) })
}

/// Whether a namespace is bind-mounted at `path`; false where there is nothing.
pub fn is_held(path: &Path) -> io::Result<bool> {
    let path = c_path(path)?;
    let mut stat = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: `path` ends with NUL, and `stat` is large enough for what the kernel writes.
    match done(unsafe { libc::statfs(path.as_ptr(), stat.as_mut_ptr()) }) {
        // SAFETY: statfs succeeded, so it filled the structure.
        Ok(()) => Ok(unsafe { stat.assume_init() }.f_type == libc::NSFS_MAGIC),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Bind-mounts the calling thread's namespace at `path`, which is made if it is missing (mount(2); CAP_SYS_ADMIN).
pub fn hold(path: &Path) -> io::Result<()> {
    File::options().create(true).append(true).open(path)?;
    let (own, path) = (c_path(Path::new(OWN))?, c_path(path)?);
    let none = std::ptr::null();
    // SAFETY: both paths end with NUL; a bind mount reads neither type nor data, which may be null.
    done(unsafe { libc::mount(own.as_ptr(), path.as_ptr(), none, libc::MS_BIND, none.cast()) })
}

/// Undoes [`hold`]: unmounts and removes the file. Nothing there is success (umount2(2); CAP_SYS_ADMIN).
pub fn release(path: &Path) -> io::Result<()> {
    while is_held(path)? {
        let path = c_path(path)?;
        // SAFETY: `path` ends with NUL.
        done(unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) })?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Writes one of the calling thread's namespace's `/proc/sys/net/<key>`; false if it had that value already.
pub fn set_sysctl(key: &str, value: &str) -> io::Result<bool> {
    let path = Path::new("/proc/sys/net").join(key);
    if fs::read_to_string(&path)?.trim() == value {
        return Ok(false);
    }
    fs::write(&path, value).map(|()| true)
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a path with a NUL byte"))
}

fn done(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
