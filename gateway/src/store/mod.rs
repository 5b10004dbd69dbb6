//! Desired state, kept through crashes: the resources as applied, the attached workloads with their addresses (their
//! leases), and the counters whose numbers must never be used twice. What a workload learned from DNS is not here: it
//! is rebuilt from the pinned kernel tables, so that no name waits for a disk.
//!
//! In `[node] state_dir`:
//!
//! | file | what |
//! |---|---|
//! | `state.redb` | the database, one transaction a commit, every page checked when it is opened |
//! | `desired.json` | the last good export: the same contents, readable, with checksums; changes are added as lines |
//! | `sets/*.txt` | beside it, the prefixes of each address set, readable, with a checksum; changes are added as lines |
//! | `store.lock` | held by the daemon that uses the folder |
//! | `*.broken-N` | what could not be read, moved aside; the newest [`KEEP_BROKEN`] of each |
//!
//! 1. `contents.rs`: what is kept, and the changes to it. Pure.
//! 2. `database.rs`: contents to and from redb.
//! 3. `export.rs`: contents to and from `desired.json`.
//! 4. `sets.rs`: the prefixes of address sets to and from both.
//! 5. `recover.rs`: which of the two is believed when the daemon starts.
//! 6. [`Store::commit`]: the export's next line without its end (or a whole beside the old one), transaction, the line's
//!    end. An error before or in the transaction leaves the last state in force and in the export.
//!
//! Two locks. The writer's is held through the fsyncs of a commit, so commits come from a thread that may block. The
//! contents' is held to clone or replace an `Arc`: reading never waits for a disk.

mod contents;
mod database;
mod export;
mod recover;
mod sets;

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

pub use contents::{Change, Contents, Counters, Kept};
pub use recover::Opened;

use crate::telemetry::metrics;
use database::Database;
use export::Export;

/// How many files of each kind that could not be read are kept.
pub const KEEP_BROKEN: usize = 3;

/// Why the store could not be opened or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another daemon has it.
    #[error("{0} is in use by another daemon; stop that one, or give this one another [node] state_dir")]
    InUse(PathBuf),
    /// The operating system refused. The last state stays.
    #[error("{doing} {path}: {source}; {mend}", mend = mend_of(source), path = path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Written by a later release.
    #[error("{path} has format {found}, and this release knows {known}; install the release that wrote it, or move the file away", path = path.display())]
    LaterFormat {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u64,
        /// Ours.
        known: u64,
    },
    /// redb refused for a reason that is none of the above. The last state stays.
    #[error("{doing} {path}: {text}; the last state stays; restart the daemon to have the file checked and mended", path = path.display())]
    Database {
        /// What was being done.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What redb said.
        text: String,
    },
}

fn mend_of(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "the last state stays; free some space on that file system and try again"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            "the last state stays; mount that file system writable, or set [node] state_dir to a place that is"
        }
        io::ErrorKind::PermissionDenied => {
            "let the daemon's user own the folder, or set [node] state_dir to one that it owns"
        }
        _ => "the last state stays; see the kernel's log for the disk below it",
    }
}

/// The open store of one node.
#[derive(Debug)]
pub struct Store {
    contents: Mutex<Arc<Contents>>,
    files: Mutex<Files>,
    dir: PathBuf,
    _lock: File,
}

#[derive(Debug)]
struct Files {
    /// `None` after a commit failed: the next one writes the file anew.
    database: Option<Database>,
    export: Export,
}

impl Store {
    /// Opens the store in `dir`, making it when there is none, and mends what a crash or a bad disk left behind.
    /// [`Opened`] says what was found. Blocks for reading the whole database.
    pub fn open(dir: &Path) -> Result<(Self, Opened), StoreError> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|source| StoreError::Io {
            doing: "making",
            path: dir.to_owned(),
            source,
        })?;
        let lock = lock(dir)?;
        let (contents, database, export, opened) = recover::open(dir)?;
        let files = Mutex::new(Files { database: Some(database), export });
        Ok((Self { contents: Mutex::new(Arc::new(contents)), files, dir: dir.to_owned(), _lock: lock }, opened))
    }

    /// What is kept now.
    pub fn contents(&self) -> Arc<Contents> {
        Arc::clone(&held(&self.contents))
    }

    /// Makes the changes, all or none, and answers the new contents. When it returns, they outlive a power cut. After an
    /// error the last state stays, on the disk too as far as the disk can still be written. Blocks for some fsyncs.
    pub fn commit(&self, changes: &[Change]) -> Result<Arc<Contents>, StoreError> {
        let committed = self.commit_uncounted(changes);
        metrics::store_commit(committed.is_ok());
        committed
    }

    fn commit_uncounted(&self, changes: &[Change]) -> Result<Arc<Contents>, StoreError> {
        let Files { database, export } = &mut *held(&self.files);
        let current = self.contents();
        let next = Arc::new(current.with(changes, SystemTime::now().into()));
        let prepared = self.prepare(export, &next, changes)?;
        match database.take() {
            Some(mut open) => match open.write(&next, changes) {
                Ok(()) => *database = Some(open),
                Err(error) => {
                    // The transaction may have reached the disk all the same; the last state is put back over it.
                    drop(open);
                    *database = Database::rebuild(&self.dir, &current).ok();
                    return Err(error);
                }
            },
            None => *database = Some(Database::rebuild(&self.dir, &next)?),
        }
        if let Err(error) = self.publish(export, prepared, &next, changes) {
            *export = Export::unusable(&self.dir);
            tracing::warn!(%error, "the state is committed, and its export is older than it; the next commit writes it again");
        }
        *held(&self.contents) = Arc::clone(&next);
        Ok(next)
    }

    /// What the export needs beside a set's lines, and the sets that are written as a whole: all, where the export is not
    /// to be relied on.
    fn prepare(
        &self,
        export: &Export,
        next: &Contents,
        changes: &[Change],
    ) -> Result<Option<(export::Prepared, sets::Prepared)>, StoreError> {
        if export.is_unusable() {
            let whole = sets::prepare(&self.dir, next, next.sets.keys())?;
            return Ok(Some((export.prepare(next, changes)?, whole)));
        }
        if changes.iter().all(|change| matches!(change, Change::PatchPrefixes(..))) {
            return Ok(None);
        }
        let whole = changes.iter().filter_map(|change| match change {
            Change::Prefixes(name, _) => Some(name),
            Change::Put(..)
            | Change::Remove(_)
            | Change::PatchPrefixes(..)
            | Change::Attach(_)
            | Change::Detach(_)
            | Change::Count(_) => None,
        });
        let whole = sets::prepare(&self.dir, next, whole)?;
        Ok(Some((export.prepare(next, changes)?, whole)))
    }

    fn publish(
        &self,
        export: &mut Export,
        prepared: Option<(export::Prepared, sets::Prepared)>,
        next: &Contents,
        changes: &[Change],
    ) -> io::Result<()> {
        let anew = export.is_unusable();
        if let Some((state, whole)) = prepared {
            // A folder of sets is walked and synced only where some of them may be others.
            if anew || changes.iter().any(|change| matches!(change, Change::Prefixes(..) | Change::Remove(_))) {
                whole.publish(next)?;
            }
            export.publish(state)?;
        }
        if anew { Ok(()) } else { sets::append(&self.dir, next.generation, changes) }
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn lock(dir: &Path) -> Result<File, StoreError> {
    let path = dir.join("store.lock");
    let failed = |source| StoreError::Io { doing: "locking", path: path.clone(), source };
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse(dir.to_owned())),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}
