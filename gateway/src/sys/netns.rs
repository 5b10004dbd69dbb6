//! Network namespaces (`man 7 network_namespaces`): the files that hold them open (nsfs), entering them, and holding one by
//! a bind mount.
//!
//! A namespace belongs to a thread. Enter one on a thread of your own, never on a runtime's worker.

use std::fs::{self, File};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{check, mount};

/// The calling thread's.
const OWN: &str = "/proc/thread-self/ns/net";
/// `NSFS_MAGIC` of `linux/magic.h`.
const NSFS: u64 = 0x6e73_6673;

/// An open network namespace. While this value lives, so does the namespace: keep it for one piece of work only.
#[derive(Debug)]
pub struct Netns {
    file: File,
    identity: Identity,
}

/// Which namespace a file stands for, as long as that namespace lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    device: u64,
    inode: u64,
}

/// Why a namespace could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// The path cannot be opened.
    #[error("cannot open the network namespace {}: {source}; give a path such as /run/netns/NAME or /proc/PID/ns/net of a running process", path.display())]
    Open {
        /// As given.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Something else lies at that path.
    #[error("{} is not a network namespace; give a path such as /run/netns/NAME or /proc/PID/ns/net", path.display())]
    Other {
        /// As given.
        path: PathBuf,
    },
}

impl NetnsError {
    /// Whether the namespace is certainly not there (any more), other than merely closed to us.
    pub fn is_gone(&self) -> bool {
        match self {
            Self::Open { source, .. } => {
                matches!(source.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::ESRCH))
            }
            Self::Other { .. } => true,
        }
    }

    /// Whether the file is there and its opening was forbidden.
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Open { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
    }
}

impl Netns {
    /// Opens the namespace that lies at `path`.
    pub fn open(path: &Path) -> Result<Self, NetnsError> {
        let file = File::open(path).map_err(|source| NetnsError::Open { path: path.to_owned(), source })?;
        Self::from_file(file).map_err(|_| NetnsError::Other { path: path.to_owned() })
    }

    /// The namespace of the calling thread.
    pub fn current() -> io::Result<Self> {
        Self::from_file(File::open(OWN)?)
    }

    /// Takes a file that came from elsewhere; `InvalidInput` if it is not a network namespace.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        Self::from_file(File::from(fd))
    }

    /// Which namespace this is.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Moves the calling thread into this namespace (setns(2); CAP_SYS_ADMIN). Whatever runs on it afterwards runs there.
    pub fn enter(&self) -> io::Result<()> {
        // SAFETY: takes a file descriptor that `self` keeps open, and a flag.
        check(unsafe { libc::setns(self.file.as_raw_fd(), libc::CLONE_NEWNET) })
    }

    fn from_file(file: File) -> io::Result<Self> {
        if !is_network_namespace(&file)? {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        let metadata = file.metadata()?;
        Ok(Self { file, identity: Identity { device: metadata.dev(), inode: metadata.ino() } })
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Puts the calling thread into a new, empty network namespace (unshare(2); CAP_SYS_ADMIN).
pub fn unshare() -> io::Result<()> {
    // SAFETY: takes a flag only.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET) })
}

/// Whether a namespace is bind-mounted at `path`; false where there is nothing.
pub fn is_held(path: &Path) -> io::Result<bool> {
    match mount::magic(path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(false),
        magic => Ok(magic? == NSFS),
    }
}

/// Bind-mounts the calling thread's namespace at `path`, which is made if it is missing (CAP_SYS_ADMIN).
pub fn hold(path: &Path) -> io::Result<()> {
    File::options().create(true).append(true).open(path)?;
    mount::bind(Path::new(OWN), path)
}

/// Undoes [`hold`]: unmounts and removes the file. Nothing there is success (CAP_SYS_ADMIN).
pub fn release(path: &Path) -> io::Result<()> {
    while is_held(path)? {
        mount::unmount(path)?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// `SO_NETNS_COOKIE` (Linux 5.14) of a socket: the number of its namespace, never used twice while the node is up.
pub fn cookie(socket: BorrowedFd<'_>) -> io::Result<u64> {
    const SO_NETNS_COOKIE: libc::c_int = 71;
    let mut cookie = 0u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `cookie`, which is that long.
    let done = unsafe {
        let to = std::ptr::from_mut(&mut cookie).cast();
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, SO_NETNS_COOKIE, to, &mut length)
    };
    check(done).map(|()| cookie)
}

fn is_network_namespace(file: &File) -> io::Result<bool> {
    /// `NS_GET_NSTYPE` of `linux/nsfs.h`: `_IO(0xb7, 0x3)`.
    const NS_GET_NSTYPE: libc::c_ulong = 0xb703;
    let mut system = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: the kernel fills the whole structure when it answers 0, and only then is it read.
    let system = unsafe {
        check(libc::fstatfs(file.as_raw_fd(), system.as_mut_ptr()))?;
        system.assume_init()
    };
    if system.f_type as u64 != NSFS {
        return Ok(false);
    }
    // SAFETY: this request takes no argument and writes nowhere.
    Ok(unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_NSTYPE as _) } == libc::CLONE_NEWNET)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_namespace_is_one_and_other_files_are_none() {
        let own = Netns::current().unwrap();
        assert_eq!(own.identity(), Netns::open(Path::new(OWN)).unwrap().identity());
        let other = Netns::open(Path::new("/proc/self/ns/mnt")).unwrap_err();
        assert!(matches!(other, NetnsError::Other { .. }), "{other}");
        assert!(Netns::open(Path::new("/etc/hostname")).unwrap_err().is_gone());
        assert!(Netns::open(Path::new("/run/netns/there-is-none")).unwrap_err().is_gone());
    }
}
