//! Opening files that must lie below a folder: `openat2(2)` with `RESOLVE_BENEATH`.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Opens the folder `path` for use with [`open_file`]. `path` is the operator's and is followed wherever it leads.
pub fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    let file = File::open(path)?;
    if !file.metadata()?.is_dir() {
        return Err(io::Error::from(io::ErrorKind::NotADirectory));
    }
    Ok(file.into())
}

/// Opens a folder directly inside `directory`; a symbolic link is refused (`ELOOP`).
pub fn open_folder(directory: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    openat2(directory, Path::new(name), libc::O_DIRECTORY, libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS)
}

/// Opens a regular file below `directory` for reading. Symbolic links are followed as long as they stay below it (a
/// Kubernetes secret is mounted as such links); a path that leaves it gives `EXDEV`.
pub fn open_file(directory: BorrowedFd<'_>, path: &Path) -> io::Result<File> {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = File::from(openat2(directory, path, flags, libc::RESOLVE_BENEATH | libc::RESOLVE_NO_MAGICLINKS)?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok(file)
}

fn openat2(directory: BorrowedFd<'_>, path: &Path, flags: i32, resolve: u64) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: `open_how` is plain integers, for which zero is a valid value; the kernel asks for unused fields to be zero.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (flags | libc::O_RDONLY | libc::O_CLOEXEC) as u64;
    how.resolve = resolve;
    // SAFETY: the path is NUL-terminated and `how` is a whole `open_how` of the size given; both outlive the call.
    let fd = unsafe {
        libc::syscall(libc::SYS_openat2, directory.as_raw_fd(), path.as_ptr(), &raw const how, size_of_val(&how))
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = i32::try_from(fd).map_err(|_| io::Error::other("openat2 gave no file descriptor"))?;
    // SAFETY: the kernel has just given us this descriptor and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_may_stay_inside_and_never_leave() {
        let root = std::env::temp_dir().join(format!("tidegate-beneath-{}", std::process::id()));
        std::fs::create_dir_all(root.join("shop/..data")).unwrap();
        std::fs::create_dir_all(root.join("other")).unwrap();
        std::fs::write(root.join("shop/..data/key.pem"), "inside").unwrap();
        std::fs::write(root.join("other/key.pem"), "secret").unwrap();
        symlink("..data/key.pem", root.join("shop/key.pem")).unwrap();
        symlink("../other/key.pem", root.join("shop/up.pem")).unwrap();
        symlink(root.join("other/key.pem"), root.join("shop/absolute.pem")).unwrap();
        symlink("other", root.join("alias")).unwrap();

        let files = open_directory(&root).unwrap();
        let shop = open_folder(files.as_fd(), "shop").unwrap();
        let error = |path: &str| open_file(shop.as_fd(), Path::new(path)).unwrap_err();
        assert_eq!(std::io::read_to_string(open_file(shop.as_fd(), Path::new("key.pem")).unwrap()).unwrap(), "inside");
        for outside in ["../other/key.pem", "up.pem", "absolute.pem", "/etc/passwd"] {
            assert_eq!(error(outside).raw_os_error(), Some(libc::EXDEV), "{outside}");
        }
        assert_eq!(error("none.pem").kind(), io::ErrorKind::NotFound);
        assert_eq!(error("..data").kind(), io::ErrorKind::InvalidInput);
        assert_eq!(open_folder(files.as_fd(), "alias").unwrap_err().raw_os_error(), Some(libc::ELOOP));
        std::fs::remove_dir_all(root).unwrap();
    }
}
