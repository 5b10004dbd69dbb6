//! The last good export, `desired.json`: `{"format", "checksum", "state"}`. Written to a temporary file with fsync,
//! then renamed and the folder synced, so that the name always holds a whole file. The checksum is FNV-1a (64 bits)
//! over the compact JSON of `state`: it finds a bad disk, it does not keep anyone from editing the file.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use config::api::{Kind, ResourceName};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::StoreError;
use super::contents::{Contents, Counters, Kept};
use super::sets;
use crate::workload::Workload;

/// The export's name in the state folder.
pub(super) const FILE: &str = "desired.json";
const TEMPORARY: &str = "desired.json.new";
const FORMAT: u64 = 1;

#[derive(Serialize, Deserialize)]
struct Document {
    format: u64,
    checksum: String,
    state: Value,
}

#[derive(Serialize, Deserialize)]
struct State {
    generation: u64,
    counters: Counters,
    resources: BTreeMap<String, Kept<Value>>,
    workloads: Vec<Kept<Workload>>,
}

/// A written export that does not bear its name yet; dropped, it is removed.
pub(super) struct Prepared {
    dir: PathBuf,
    published: bool,
}

/// Writes the contents beside the present export.
pub(super) fn prepare(dir: &Path, contents: &Contents) -> Result<Prepared, StoreError> {
    let path = dir.join(TEMPORARY);
    let failed = |source| StoreError::Io { doing: "writing", path: path.clone(), source };
    let text = render(contents).map_err(|error| failed(error.into()))?;
    let prepared = Prepared { dir: dir.to_owned(), published: false };
    let mut file =
        OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&path).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    Ok(prepared)
}

impl Prepared {
    /// Gives it its name.
    pub(super) fn publish(mut self) -> io::Result<()> {
        fs::rename(self.dir.join(TEMPORARY), self.dir.join(FILE))?;
        self.published = true;
        sync_dir(&self.dir)
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        if !self.published {
            let _ = fs::remove_file(self.dir.join(TEMPORARY));
        }
    }
}

/// The export's contents; `Ok(None)` without an export, `Err` with the reason when it cannot be believed.
pub(super) fn read(dir: &Path) -> Result<Option<Contents>, String> {
    let bytes = match fs::read(dir.join(FILE)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let document: Document = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    if document.format != FORMAT {
        return Err(format!("it has format {}, and this release knows {FORMAT}", document.format));
    }
    if checksum(&document.state) != document.checksum {
        return Err("its checksum does not match".to_owned());
    }
    let state: State = serde_json::from_value(document.state).map_err(|error| error.to_string())?;
    let mut contents = Contents { generation: state.generation, counters: state.counters, ..Contents::default() };
    let mut resources = BTreeMap::new();
    for (name, kept) in state.resources {
        resources.insert(name.parse().map_err(|error| format!("{error}"))?, kept);
    }
    let (read, latest) =
        sets::read_files(dir, resources.keys().filter(|name: &&ResourceName| name.kind == Kind::AddressSet))?;
    contents.sets = read;
    contents.generation = contents.generation.max(latest);
    contents.resources = resources.into();
    contents.workloads = Arc::new(state.workloads.into_iter().map(|kept| (kept.value.id, kept)).collect());
    Ok(Some(contents))
}

/// Makes a rename in the folder outlive a power cut.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn render(contents: &Contents) -> Result<String, serde_json::Error> {
    let state = State {
        generation: contents.generation,
        counters: contents.counters,
        resources: contents.resources.iter().map(|(name, kept)| (name.to_string(), kept.clone())).collect(),
        workloads: contents.workloads.values().cloned().collect(),
    };
    let state = serde_json::to_value(state)?;
    let mut text = serde_json::to_string_pretty(&Document { format: FORMAT, checksum: checksum(&state), state })?;
    text.push('\n');
    Ok(text)
}

fn checksum(state: &Value) -> String {
    format!("fnv1a64:{:016x}", fnv(state.to_string().bytes()))
}

pub(super) fn fnv(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
