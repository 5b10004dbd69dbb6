//! Mounting the bpf file system where it is not.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::bpf::is_bpffs;

/// Why there is no bpf file system.
#[derive(Debug, thiserror::Error)]
#[error("cannot mount a bpf file system at {path}: {source}; mount it (`mount -t bpf bpf {path}`) before the gateway starts")]
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
    let target = CString::new(parent.as_os_str().as_bytes()).map_err(|error| failed(error.into()))?;
    // SAFETY: all strings are NUL-terminated and outlive the call; the bpf file system takes no data here.
    let done = unsafe { libc::mount(c"bpf".as_ptr(), target.as_ptr(), c"bpf".as_ptr(), 0, std::ptr::null()) };
    if done < 0 { Err(failed(io::Error::last_os_error())) } else { Ok(()) }
}
