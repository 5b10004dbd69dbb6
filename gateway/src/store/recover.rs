//! Which file is believed when the daemon starts.
//!
//! 1. A sound database that is as new as the export, or newer (a crash between transaction and rename): the database.
//! 2. A database that is broken, missing, or older than the export (redb rolled back a torn commit that had been
//!    acknowledged): the export. The database is moved aside and made anew.
//! 3. Neither, though there was one: empty, said loudly. Neither, and there never was one: a new node.
//!
//! Restoring an older state skips counters far ahead, so that no number of a lost commit is used again.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::contents::{Contents, Counters};
use super::database::{self, Database, Found};
use super::export::Export;
use super::{KEEP_BROKEN, StoreError, export, sets};

/// What opening found. Display is a sentence for log and `status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// Nothing was there: a new node.
    Fresh,
    /// All that was committed is there, whether the last daemon closed it or was killed.
    Sound,
    /// The database could not be used; the export stands in for it.
    Restored {
        /// The export's generation.
        generation: u64,
        /// Where the database went; `None` when it was missing.
        aside: Option<PathBuf>,
        /// What was wrong with it.
        why: String,
    },
    /// Neither could be used: no resource and no workload is known.
    Lost {
        /// Where they went.
        aside: Vec<PathBuf>,
        /// What was wrong.
        why: String,
    },
}

impl Opened {
    /// Whether somebody should look: the state may be older than what was last applied.
    pub fn needs_attention(&self) -> bool {
        match self {
            Self::Fresh | Self::Sound => false,
            Self::Restored { .. } | Self::Lost { .. } => true,
        }
    }
}

impl fmt::Display for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fresh => write!(f, "no stored state: a new node"),
            Self::Sound => write!(f, "the stored state is sound"),
            Self::Restored { generation, aside, why } => {
                write!(
                    f,
                    "the store could not be used ({why}); restored generation {generation} from {}",
                    export::FILE
                )?;
                if let Some(aside) = aside {
                    write!(f, ", the old file is {}", aside.display())?;
                }
                write!(f, "; apply your manifests again, and look at the disk")
            }
            Self::Lost { aside, why } => {
                write!(f, "the stored state is lost ({why}); no resource and no workload is known now")?;
                for aside in aside {
                    write!(f, ", {} is kept", aside.display())?;
                }
                write!(f, "; apply your manifests again, attach the workloads again, and look at the disk")
            }
        }
    }
}

/// Opens or rebuilds the database, and leaves an export that is as new.
pub(super) fn open(dir: &Path) -> Result<(Contents, Database, Export, Opened), StoreError> {
    let exported = export::read(dir);
    let (why, missing) = match Database::open(dir)? {
        Found::Sound { contents, .. } if older_than(&contents, &exported) => {
            (format!("it fell back to generation {}", contents.generation), false)
        }
        Found::Sound { database, contents } => {
            let export = match exported {
                Ok(Some((state, export))) if state == contents => export,
                Ok(_) | Err(_) => refresh(dir, &contents),
            };
            return Ok((contents, database, export, Opened::Sound));
        }
        Found::Broken(why) => (why, false),
        Found::Absent => (format!("{} is missing", database::FILE), true),
    };
    let (mut contents, opened) = match exported {
        Ok(Some((contents, _))) => {
            let aside = if missing { None } else { Some(move_aside(dir, database::FILE)?) };
            let generation = contents.generation;
            (contents, Opened::Restored { generation, aside, why })
        }
        Ok(None) if missing => (Contents::default(), Opened::Fresh),
        Ok(None) => {
            let aside = vec![move_aside(dir, database::FILE)?];
            (Contents::default(), Opened::Lost { aside, why: format!("{why}; there is no {}", export::FILE) })
        }
        Err(also) => {
            let mut aside = vec![move_aside(dir, export::FILE)?];
            if !missing {
                aside.push(move_aside(dir, database::FILE)?);
            }
            (Contents::default(), Opened::Lost { aside, why: format!("{why}; {}: {also}", export::FILE) })
        }
    };
    if opened.needs_attention() {
        contents.counters = Counters::skip(contents.counters);
        contents.generation += 1;
    }
    let database = Database::rebuild(dir, &contents)?;
    let export = refresh(dir, &contents);
    Ok((contents, database, export, opened))
}

fn older_than(contents: &Contents, exported: &Result<Option<(Contents, Export)>, String>) -> bool {
    matches!(exported, Ok(Some((state, _))) if state.generation > contents.generation)
}

/// An export that cannot be written now is written at the next commit, and keeps nothing from starting.
fn refresh(dir: &Path, contents: &Contents) -> Export {
    let mut export = Export::unusable(dir);
    let mut write = || -> Result<(), String> {
        let whole = sets::prepare(dir, contents, contents.sets.keys()).map_err(|error| error.to_string())?;
        let state = export.prepare(contents, &[]).map_err(|error| error.to_string())?;
        whole.publish(contents).and_then(|()| export.publish(state)).map_err(|error| error.to_string())
    };
    if let Err(error) = write() {
        tracing::warn!(error, "the export of the stored state could not be written");
    }
    export
}

fn move_aside(dir: &Path, file: &str) -> Result<PathBuf, StoreError> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let failed = |source| StoreError::Io { doing: "moving aside", path: dir.join(file), source };
    let free = |number: &u64| !dir.join(format!("{file}.broken-{number}")).exists();
    let aside = dir.join(format!("{file}.broken-{}", (seconds..).find(free).unwrap_or(seconds)));
    fs::rename(dir.join(file), &aside).map_err(failed)?;
    export::sync_dir(dir).map_err(failed)?;
    forget_oldest(dir, &format!("{file}.broken-"));
    Ok(aside)
}

fn forget_oldest(dir: &Path, prefix: &str) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    let number = |path: &PathBuf| path.file_name()?.to_str()?.strip_prefix(prefix)?.parse::<u64>().ok();
    let mut broken: Vec<_> =
        entries.flatten().map(|entry| entry.path()).filter_map(|path| Some((number(&path)?, path))).collect();
    broken.sort();
    for (_, path) in broken.iter().rev().skip(KEEP_BROKEN) {
        let _ = fs::remove_file(path);
    }
}
