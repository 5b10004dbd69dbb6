//! Files that resources name: opened below their namespace's folder only, bounded, and stamped so that a change is seen.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::sys::beneath;

/// The folder that resources' file names are relative to (`[node] files_dir`): one folder for each namespace, and
/// `_admin` for what is in none.
#[derive(Clone, Debug)]
pub struct FilesDir(pub PathBuf);

/// A file as it was read.
pub(crate) struct Found {
    /// All of it.
    pub(crate) bytes: Vec<u8>,
    /// Which state of the file that was.
    pub(crate) stamp: Stamp,
    /// Whether group or others may read it.
    pub(crate) open_to_others: bool,
}

/// Tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    /// The folder of all files, or the namespace's in it.
    #[error("cannot open the folder {folder}: {error}; make it, readable to the daemon, and put the files there")]
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
    /// Longer than such a file has reason to be.
    #[error("{file} in {folder} is longer than {most} bytes; {mend}")]
    TooLong {
        /// As in the resource.
        file: String,
        /// The namespace's folder.
        folder: String,
        /// How long it may be.
        most: u64,
        /// What to do.
        mend: &'static str,
    },
}

impl Stamp {
    /// Whether nothing was written to the file for so long.
    pub(crate) fn is_still_for(&self, time: Duration) -> bool {
        let (seconds, nanoseconds) = self.modified;
        let written = Duration::new(u64::try_from(seconds).unwrap_or(0), u32::try_from(nanoseconds).unwrap_or(0));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        now.checked_sub(written).is_some_and(|still| still >= time)
    }
}

impl FilesDir {
    /// Reads a file of a namespace's folder, if it has no more bytes than `bound` says beside what to do then.
    pub(crate) fn read(&self, namespace: &str, file: &str, bound: (u64, &'static str)) -> Result<Found, FileError> {
        let (most, mend) = bound;
        let mut opened = self.open(namespace, file)?;
        let (stamp, mode) = stamp(&opened).map_err(|error| self.unreadable(namespace, file, error))?;
        let mut bytes = Vec::new();
        let read = Read::by_ref(&mut opened).take(most + 1).read_to_end(&mut bytes);
        read.map_err(|error| self.unreadable(namespace, file, error))?;
        if bytes.len() as u64 > most {
            return Err(FileError::TooLong { file: file.to_owned(), folder: self.folder(namespace), most, mend });
        }
        Ok(Found { bytes, stamp, open_to_others: mode & 0o044 != 0 })
    }

    /// The state of a file of a namespace's folder; `None` if it cannot be opened.
    pub(crate) fn stamp(&self, namespace: &str, file: &str) -> Option<Stamp> {
        self.open(namespace, file).ok().and_then(|file| stamp(&file).ok()).map(|(stamp, _)| stamp)
    }

    fn open(&self, namespace: &str, file: &str) -> Result<File, FileError> {
        let root = beneath::open_directory(&self.0)
            .map_err(|error| FileError::Folder { folder: self.0.display().to_string(), error })?;
        let folder = beneath::open_folder(root.as_fd(), namespace)
            .map_err(|error| FileError::Folder { folder: self.folder(namespace), error })?;
        beneath::open_file(folder.as_fd(), Path::new(file)).map_err(|error| self.unreadable(namespace, file, error))
    }

    fn unreadable(&self, namespace: &str, file: &str, error: io::Error) -> FileError {
        let (file, folder) = (file.to_owned(), self.folder(namespace));
        if error.raw_os_error() == Some(libc::EXDEV) {
            return FileError::Outside { file, folder };
        }
        FileError::Unreadable { file, folder, error }
    }

    fn folder(&self, namespace: &str) -> String {
        self.0.join(namespace).display().to_string()
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
