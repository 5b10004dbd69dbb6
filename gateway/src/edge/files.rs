//! Certificate files: opened below their namespace's folder only, bounded, and stamped so that a change is seen.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use config::names::Name;

use super::config::FilesDir;
use crate::sys::beneath;

/// A PEM file may be this long.
const MAX_BYTES: u64 = 1 << 20;

/// A file as it was read.
pub(super) struct Found {
    /// All of it.
    pub(super) bytes: Vec<u8>,
    /// Which state of the file that was.
    pub(super) stamp: Stamp,
    /// Whether group or others may read it.
    pub(super) open_to_others: bool,
}

/// Tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    /// The folder of all files, or the namespace's in it.
    #[error("cannot open the folder {folder}: {error}; make it, readable to the daemon, and put the app's files there")]
    Folder {
        /// Path.
        folder: String,
        /// What the kernel said.
        error: io::Error,
    },
    /// The name leads out of the folder.
    #[error("{file} leads out of {folder}; name a file inside it (symbolic links may not leave it either)")]
    Outside {
        /// As in the resource.
        file: String,
        /// The namespace's folder.
        folder: String,
    },
    /// Anything else.
    #[error("cannot read {file} in {folder}: {error}; put the file there, readable to the daemon")]
    Unreadable {
        /// As in the resource.
        file: String,
        /// The namespace's folder.
        folder: String,
        /// What the kernel said.
        error: io::Error,
    },
    /// Longer than a PEM file has reason to be.
    #[error("{file} in {folder} is longer than 1 MiB; a PEM file is meant")]
    TooLong {
        /// As in the resource.
        file: String,
        /// The namespace's folder.
        folder: String,
    },
}

impl FilesDir {
    /// Reads a file of a namespace.
    pub(super) fn read(&self, namespace: &Name, file: &str) -> Result<Found, FileError> {
        let mut opened = self.open(namespace, file)?;
        let (stamp, mode) = stamp(&opened).map_err(|error| self.unreadable(namespace, file, error))?;
        let mut bytes = Vec::new();
        let read = Read::by_ref(&mut opened).take(MAX_BYTES + 1).read_to_end(&mut bytes);
        read.map_err(|error| self.unreadable(namespace, file, error))?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(FileError::TooLong { file: file.to_owned(), folder: self.folder(namespace) });
        }
        Ok(Found { bytes, stamp, open_to_others: mode & 0o044 != 0 })
    }

    /// The state of a file of a namespace; `None` if it cannot be opened.
    pub(super) fn stamp(&self, namespace: &Name, file: &str) -> Option<Stamp> {
        self.open(namespace, file).ok().and_then(|file| stamp(&file).ok()).map(|(stamp, _)| stamp)
    }

    fn open(&self, namespace: &Name, file: &str) -> Result<File, FileError> {
        let root = beneath::open_directory(&self.0)
            .map_err(|error| FileError::Folder { folder: self.0.display().to_string(), error })?;
        let folder = beneath::open_folder(root.as_fd(), namespace.as_str())
            .map_err(|error| FileError::Folder { folder: self.folder(namespace), error })?;
        beneath::open_file(folder.as_fd(), Path::new(file)).map_err(|error| self.unreadable(namespace, file, error))
    }

    fn unreadable(&self, namespace: &Name, file: &str, error: io::Error) -> FileError {
        let (file, folder) = (file.to_owned(), self.folder(namespace));
        if error.raw_os_error() == Some(libc::EXDEV) {
            return FileError::Outside { file, folder };
        }
        FileError::Unreadable { file, folder, error }
    }

    fn folder(&self, namespace: &Name) -> String {
        self.0.join(namespace.as_str()).display().to_string()
    }
}

fn stamp(file: &File) -> io::Result<(Stamp, u32)> {
    let data = file.metadata()?;
    let stamp = Stamp {
        device: data.dev(),
        inode: data.ino(),
        size: data.size(),
        modified: (data.mtime(), data.mtime_nsec()),
        changed: (data.ctime(), data.ctime_nsec()),
    };
    Ok((stamp, data.mode()))
}
