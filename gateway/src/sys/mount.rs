//! Mounts: what lies at a path, the bpf file system where it is not, and files bound over others.

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr::null;

use super::check;

/// `BPF_FS_MAGIC` of `linux/magic.h`.
const BPF_FS: u64 = 0xcafe_4a11;

/// Why there is no bpf file system.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot mount a bpf file system at {path}: {source}; mount it (`mount -t bpf bpf {path}`) before the gateway starts"
)]
pub struct MountError {
    path: PathBuf,
    source: io::Error,
}

/// Sees to it that `folder` can be made on a bpf file system: its nearest parent that exists is on one, or `folder`'s own
/// parent becomes the mount point. Needs CAP_SYS_ADMIN if it has to mount.
pub fn bpf_file_system(folder: &Path) -> Result<(), MountError> {
    let parent = folder.parent().unwrap_or(folder);
    let failed = |source| MountError { path: parent.to_owned(), source };
    let there = folder.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(parent);
    if is_bpffs(there).map_err(failed)? {
        return Ok(());
    }
    if !parent.exists() {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    let target = c_path(parent).map_err(failed)?;
    // SAFETY: all strings are NUL-terminated and outlive the call; the bpf file system takes no data here.
    check(unsafe { libc::mount(c"bpf".as_ptr(), target.as_ptr(), c"bpf".as_ptr(), 0, null()) }).map_err(failed)
}

/// Whether `path` lies on a mounted bpf file system.
pub fn is_bpffs(path: &Path) -> io::Result<bool> {
    Ok(magic(path)? == BPF_FS)
}

/// The number of the kind of file system that `path` lies on (`linux/magic.h`).
pub(super) fn magic(path: &Path) -> io::Result<u64> {
    let path = c_path(path)?;
    let mut stat = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: `path` ends with NUL, and `stat` is as large as what the kernel writes.
    check(unsafe { libc::statfs(path.as_ptr(), stat.as_mut_ptr()) })?;
    // SAFETY: statfs succeeded, so it filled the structure.
    Ok(unsafe { stat.assume_init() }.f_type as u64)
}

/// Binds `what` over the file `path` (mount(2); CAP_SYS_ADMIN).
pub(super) fn bind(what: &Path, path: &Path) -> io::Result<()> {
    let (what, path) = (c_path(what)?, c_path(path)?);
    // SAFETY: both paths end with NUL; a bind mount reads neither type nor data, which may be null.
    check(unsafe { libc::mount(what.as_ptr(), path.as_ptr(), null(), libc::MS_BIND, null()) })
}

/// Takes away what is mounted at `path` (umount2(2); CAP_SYS_ADMIN).
pub(super) fn unmount(path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    // SAFETY: `path` ends with NUL.
    check(unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) })
}

fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}
