//! Contents to and from redb. Four tables: `resources` (name → JSON), `workloads` (number → JSON), `sets`
//! ([`super::sets`]), `meta` (format, generation and counters). The page cache is bounded by [`CACHE`].

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{Builder, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition};

use super::StoreError;
use super::contents::{Change, Contents, Counters};
use super::export::sync_dir;
use crate::workload::WorkloadId;

/// The database's name in the state folder.
pub(super) const FILE: &str = "state.redb";
/// Bytes of pages that redb may cache.
const CACHE: usize = 8 * 1024 * 1024;
/// Of the tables below.
const FORMAT: u64 = 1;

const RESOURCES: TableDefinition<'_, &str, &str> = TableDefinition::new("resources");
const WORKLOADS: TableDefinition<'_, u32, &str> = TableDefinition::new("workloads");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// The open database.
#[derive(Debug)]
pub(super) struct Database {
    redb: redb::Database,
    path: PathBuf,
}

/// What was found in the file.
pub(super) enum Found {
    /// No file.
    Absent,
    /// Everything could be read; an unfinished commit was rolled back.
    Sound { database: Database, contents: Contents },
    /// Torn, altered or not ours.
    Broken(String),
}

impl Database {
    /// Opens the file, checks every page and reads all of it.
    pub(super) fn open(dir: &Path) -> Result<Found, StoreError> {
        let path = dir.join(FILE);
        match path.try_exists() {
            Ok(false) => return Ok(Found::Absent),
            Ok(true) => {}
            Err(source) => return Err(StoreError::Io { doing: "opening", path, source }),
        }
        // A debug build of redb asserts where a release build answers "corrupted"; both mean the same here.
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let redb = Builder::new().set_cache_size(CACHE).set_check_integrity_on_open(true).open(&path)?;
            let contents = read(&redb);
            Ok((redb, contents))
        }));
        let (redb, contents) = match opened {
            Ok(Ok(opened)) => opened,
            Ok(Err(error)) => return broken_or_refused(error, &path),
            Err(_) => return Ok(Found::Broken("its pages contradict each other".to_owned())),
        };
        match contents {
            Ok(Read::Contents(contents)) => Ok(Found::Sound { database: Self { redb, path }, contents: *contents }),
            Ok(Read::Format(found)) => Err(StoreError::LaterFormat { path, found, known: FORMAT }),
            Err(why) => Ok(Found::Broken(why)),
        }
    }

    /// Makes a new file with these contents and puts it in the place of the old one.
    pub(super) fn rebuild(dir: &Path, contents: &Contents) -> Result<Self, StoreError> {
        let (path, fresh) = (dir.join(FILE), dir.join("state.redb.new"));
        let failed = |doing| move |source| StoreError::Io { doing, path: dir.join(FILE), source };
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("replacing")(error)),
            _ => {}
        }
        let redb =
            Builder::new().set_cache_size(CACHE).create(&fresh).map_err(|error| refused(error, "making", &fresh))?;
        let mut database = Self { redb, path };
        database.write_all(contents)?;
        File::open(&fresh).and_then(|file| file.sync_all()).map_err(failed("writing"))?;
        fs::rename(&fresh, &database.path).map_err(failed("replacing"))?;
        sync_dir(dir).map_err(failed("replacing"))?;
        Ok(database)
    }

    /// One transaction: the changes, as they stand in `next`.
    pub(super) fn write(&mut self, next: &Contents, changes: &[Change]) -> Result<(), StoreError> {
        self.transact(next, |Tables { resources, workloads, sets }| {
            for change in changes {
                match change {
                    Change::Put(name, _) | Change::Remove(name) => match next.resources.get(name) {
                        Some(kept) => drop(resources.insert(name.to_string().as_str(), json(&**kept)?.as_str())?),
                        None => {
                            resources.remove(name.to_string().as_str())?;
                            super::sets::write(sets, name, next, None)?;
                        }
                    },
                    Change::Prefixes(name, _) => super::sets::write(sets, name, next, None)?,
                    Change::PatchPrefixes(name, _, change) => super::sets::write(sets, name, next, Some(change))?,
                    Change::Attach(workload) => put_workload(workloads, workload.id, next)?,
                    Change::Detach(id) => put_workload(workloads, *id, next)?,
                    Change::Count(_) => {}
                }
            }
            Ok(())
        })
    }

    fn write_all(&mut self, next: &Contents) -> Result<(), StoreError> {
        self.transact(next, |Tables { resources, workloads, sets }| {
            for (name, kept) in next.resources.iter() {
                resources.insert(name.to_string().as_str(), json(&**kept)?.as_str())?;
            }
            for id in next.workloads.keys() {
                put_workload(workloads, *id, next)?;
            }
            for name in next.sets.keys() {
                super::sets::write(sets, name, next, None)?;
            }
            Ok(())
        })
    }

    fn transact(
        &mut self,
        next: &Contents,
        body: impl FnOnce(&mut Tables<'_>) -> Result<(), redb::Error>,
    ) -> Result<(), StoreError> {
        let run = || -> Result<(), redb::Error> {
            let transaction = self.redb.begin_write()?;
            {
                body(&mut Tables {
                    resources: transaction.open_table(RESOURCES)?,
                    workloads: transaction.open_table(WORKLOADS)?,
                    sets: transaction.open_table(super::sets::TABLE)?,
                })?;
                let mut meta = transaction.open_table(META)?;
                for (key, value) in meta_of(next) {
                    meta.insert(key, value)?;
                }
            }
            transaction.commit()?;
            Ok(())
        };
        run().map_err(|error| match error {
            redb::Error::Io(source) => StoreError::Io { doing: "writing", path: self.path.clone(), source },
            other => StoreError::Database { doing: "writing", path: self.path.clone(), text: other.to_string() },
        })
    }
}

/// The tables of a transaction that writes.
struct Tables<'t> {
    resources: redb::Table<'t, &'static str, &'static str>,
    workloads: redb::Table<'t, u32, &'static str>,
    sets: redb::Table<'t, (&'static str, u64), &'static [u8]>,
}

fn put_workload(
    table: &mut redb::Table<'_, u32, &'static str>,
    id: WorkloadId,
    next: &Contents,
) -> Result<(), redb::Error> {
    match next.workloads.get(&id) {
        Some(kept) => drop(table.insert(id.0, json(&**kept)?.as_str())?),
        None => drop(table.remove(id.0)?),
    }
    Ok(())
}

fn json(value: &impl serde::Serialize) -> Result<String, redb::Error> {
    serde_json::to_string(value).map_err(|error| redb::Error::Io(error.into()))
}

fn meta_of(contents: &Contents) -> [(&'static str, u64); 5] {
    let Counters { workload, policy, tables } = contents.counters;
    [
        ("format", FORMAT),
        ("generation", contents.generation),
        ("next-workload", workload.into()),
        ("next-policy", policy.into()),
        ("next-tables", tables.into()),
    ]
}

enum Read {
    Contents(Box<Contents>),
    Format(u64),
}

fn read(redb: &redb::Database) -> Result<Read, String> {
    let text = |error: redb::Error| error.to_string();
    let transaction = redb.begin_read().map_err(|error| text(error.into()))?;
    let meta = transaction.open_table(META).map_err(|error| text(error.into()))?;
    let number = |key: &str| -> Result<u64, String> {
        let value = meta.get(key).map_err(|error| text(error.into()))?;
        value.map(|value| value.value()).ok_or_else(|| format!("`{key}` is missing"))
    };
    let counter = |key: &str| number(key)?.try_into().map_err(|_| format!("`{key}` is out of range"));
    let format = number("format")?;
    if format > FORMAT {
        return Ok(Read::Format(format));
    }
    let counters = Counters {
        workload: counter("next-workload")?,
        policy: counter("next-policy")?,
        tables: counter("next-tables")?,
    };
    let mut contents = Contents { generation: number("generation")?, counters, ..Contents::default() };
    let resources = transaction.open_table(RESOURCES).map_err(|error| text(error.into()))?;
    let mut found = BTreeMap::new();
    for entry in resources.iter().map_err(|error| text(error.into()))? {
        let (key, value) = entry.map_err(|error| text(error.into()))?;
        let name = key.value().parse().map_err(|error| format!("a resource's name: {error}"))?;
        let kept = serde_json::from_str(value.value()).map_err(|error| format!("{name}: {error}"))?;
        found.insert(name, Arc::new(kept));
    }
    contents.resources = found.into();
    let workloads = transaction.open_table(WORKLOADS).map_err(|error| text(error.into()))?;
    let mut found = BTreeMap::new();
    for entry in workloads.iter().map_err(|error| text(error.into()))? {
        let (key, value) = entry.map_err(|error| text(error.into()))?;
        let id = WorkloadId(key.value());
        let kept = serde_json::from_str(value.value()).map_err(|error| format!("workload {}: {error}", id.0))?;
        found.insert(id, Arc::new(kept));
    }
    contents.workloads = found.into();
    match transaction.open_table(super::sets::TABLE) {
        Ok(table) => contents.sets = super::sets::read(&table)?,
        // No set was ever written.
        Err(redb::TableError::TableDoesNotExist(_)) => {}
        Err(error) => return Err(text(error.into())),
    }
    Ok(Read::Contents(Box::new(contents)))
}

/// A refusal of the system is an error and nothing is moved; everything else means that the file is not what we wrote.
fn broken_or_refused(error: DatabaseError, path: &Path) -> Result<Found, StoreError> {
    match error {
        DatabaseError::Storage(StorageError::Io(source)) if !file_is_wrong(&source) => {
            Err(StoreError::Io { doing: "opening", path: path.to_owned(), source })
        }
        error @ (DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch) => {
            Err(refused(error, "opening", path))
        }
        other => Ok(Found::Broken(other.to_string())),
    }
}

/// What reading a torn file gives, and what a bad disk gives (EIO): the export may do better.
fn file_is_wrong(error: &io::Error) -> bool {
    const EIO: i32 = 5;
    matches!(
        error.kind(),
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput | io::ErrorKind::Other
    ) || error.raw_os_error() == Some(EIO)
}

fn refused(error: DatabaseError, doing: &'static str, path: &Path) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => StoreError::InUse(path.to_owned()),
        DatabaseError::Storage(StorageError::Io(source)) => StoreError::Io { doing, path: path.to_owned(), source },
        other => StoreError::Database { doing, path: path.to_owned(), text: other.to_string() },
    }
}
