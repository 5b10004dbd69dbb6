//! The socket in its private folder.
//!
//! `gateway.lock` is held by flock as long as the daemon lives, and by nobody after it died however it died: so a
//! socket beside a free lock is a dead daemon's. The lock's descriptor is close-on-exec; a child must exec.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

/// Why the admin socket could not be made.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Another daemon lives.
    #[error("{runtime_dir} belongs to the running daemon{pid}; stop that one, or give this one another [node] runtime_dir", runtime_dir = .runtime_dir.display(), pid = .pid.map(|pid| format!(" with pid {pid}")).unwrap_or_default())]
    AlreadyRunning {
        /// The folder.
        runtime_dir: PathBuf,
        /// Its process, when the lock tells.
        pid: Option<u32>,
    },
    /// The folder could be changed by somebody else.
    #[error("{path} is no folder of the daemon's user; remove it, or set [node] runtime_dir to a folder of its own", path = .0.display())]
    NotOurs(PathBuf),
    /// The operating system refused.
    #[error("{doing} {path}: {source}; let the daemon's user own the folder, and keep its path below 100 bytes", path = .path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The bound socket; its file goes away when this is dropped.
#[derive(Debug)]
pub struct AdminSocket {
    pub(super) listener: UnixListener,
    /// The user that made it; root apart, the only one that is served.
    pub(super) owner: u32,
    path: PathBuf,
    _lock: File,
}

impl AdminSocket {
    /// Makes `gateway.sock` in the folder. Needs a tokio runtime.
    pub fn bind(runtime_dir: &Path) -> Result<Self, AdminError> {
        let owner = own_folder(runtime_dir)?;
        let lock = lock(runtime_dir)?;
        let path = runtime_dir.join("gateway.sock");
        let failed = |doing| move |source| AdminError::Io { doing, path: runtime_dir.join("gateway.sock"), source };
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("replacing")(error)),
            _ => {}
        }
        let listener = UnixListener::bind(&path).map_err(failed("making"))?;
        fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(failed("making private"))?;
        Ok(Self { listener, owner, path, _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Makes the folder private, and answers its owner. A folder of another user, or a link, is refused.
fn own_folder(dir: &Path) -> Result<u32, AdminError> {
    let failed = |doing| move |source| AdminError::Io { doing, path: dir.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed("making"))?;
    let found = fs::symlink_metadata(dir).map_err(failed("looking at"))?;
    // The owner of our own entry in /proc is the effective user of this process.
    let own = fs::metadata("/proc/self").map_err(failed("asking /proc for the owner of"))?.uid();
    if !found.is_dir() || found.uid() != own {
        return Err(AdminError::NotOurs(dir.to_owned()));
    }
    fs::set_permissions(dir, Permissions::from_mode(0o700)).map_err(failed("making private"))?;
    Ok(own)
}

fn lock(dir: &Path) -> Result<File, AdminError> {
    let path = dir.join("gateway.lock");
    let failed = |source| AdminError::Io { doing: "locking", path: path.clone(), source };
    let mut file = OpenOptions::new()
        .create(true)
        .read(true)
        .write(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            let pid = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
            return Err(AdminError::AlreadyRunning { runtime_dir: dir.to_owned(), pid });
        }
        Err(TryLockError::Error(source)) => return Err(failed(source)),
    }
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(failed)?;
    Ok(file)
}
