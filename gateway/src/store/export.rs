//! The last good export, `desired.json`: JSON documents one after the other. The first is the whole state,
//! `{"format", "checksum", "state"}`, written to a temporary file with fsync, then renamed and the folder synced. Behind it
//! stands a line for each commit since, `{"checksum", "change"}`, so that a commit costs what it changes and not what there
//! is; lines that would be longer than the whole become a new whole. A line counts once it has its end. The checksums are
//! FNV-1a (64 bits) over the compact JSON of `state` and `change`: they find a bad disk, they do not keep anyone from
//! editing the file.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use config::api::{Kind, ResourceName};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::StoreError;
use super::contents::{Change, Contents, Counters, Kept};
use super::sets;
use crate::workload::{Workload, WorkloadId};

/// The export's name in the state folder.
pub(super) const FILE: &str = "desired.json";
const TEMPORARY: &str = "desired.json.new";
const FORMAT: u64 = 1;
/// Bytes of lines that a whole may have behind it, however short it is.
const LINES: u64 = 64 * 1024;

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

#[derive(Serialize, Deserialize)]
struct Line {
    checksum: String,
    change: Value,
}

/// What one commit made different; `null` is a resource that is gone.
#[derive(Serialize, Deserialize)]
struct Delta {
    generation: u64,
    counters: Counters,
    resources: BTreeMap<String, Option<Kept<Value>>>,
    attached: Vec<Kept<Workload>>,
    detached: Vec<WorkloadId>,
}

/// The export's file as far as it counts.
#[derive(Debug)]
pub(super) struct Export {
    path: PathBuf,
    /// Bytes of the whole; 0: the file is not to be relied on, and is written anew.
    whole: u64,
    /// Bytes of the whole and of the lines behind it.
    length: u64,
}

/// A written export that does not count yet; dropped, it is taken away.
pub(super) struct Prepared {
    path: PathBuf,
    part: Part,
    published: bool,
}

enum Part {
    /// Of that many bytes, under another name.
    Whole(u64),
    /// Without its end, from and to these bytes of the file.
    Line(File, u64, u64),
}

impl Export {
    /// None that could be relied on.
    pub(super) fn unusable(dir: &Path) -> Self {
        Self { path: dir.join(FILE), whole: 0, length: 0 }
    }

    /// Whether the next one is a whole because the file is not to be relied on.
    pub(super) fn is_unusable(&self) -> bool {
        self.whole == 0
    }

    /// Writes what the changes made of the contents, such that it does not count yet.
    pub(super) fn prepare(&self, next: &Contents, changes: &[Change]) -> Result<Prepared, StoreError> {
        let failed = |source| StoreError::Io { doing: "writing", path: self.path.clone(), source };
        if self.is_unusable() {
            return self.prepare_whole(next);
        }
        let line = line(next, changes).map_err(|error| failed(error.into()))?;
        let end = self.length + line.len() as u64;
        if end - self.whole > self.whole.max(LINES) {
            return self.prepare_whole(next);
        }
        let file = OpenOptions::new().write(true).open(&self.path).map_err(failed)?;
        let prepared = Prepared { path: self.path.clone(), part: Part::Line(file, self.length, end), published: false };
        if let Part::Line(file, ..) = &prepared.part {
            // What an earlier change may have left there.
            file.set_len(self.length).and_then(|()| file.write_all_at(line.as_bytes(), self.length)).map_err(failed)?;
        }
        Ok(prepared)
    }

    /// The same, all of it anew.
    pub(super) fn prepare_whole(&self, contents: &Contents) -> Result<Prepared, StoreError> {
        let path = self.path.with_file_name(TEMPORARY);
        let failed = |source| StoreError::Io { doing: "writing", path: path.clone(), source };
        let text = render(contents).map_err(|error| failed(error.into()))?;
        let part = Part::Whole(text.len() as u64);
        let prepared = Prepared { path: self.path.clone(), part, published: false };
        let mut file =
            OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&path).map_err(failed)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
        Ok(prepared)
    }

    /// Lets it count. After an error the next one is a whole.
    pub(super) fn publish(&mut self, mut prepared: Prepared) -> io::Result<()> {
        let whole = std::mem::take(&mut self.whole);
        match &prepared.part {
            Part::Whole(length) => {
                fs::rename(self.path.with_file_name(TEMPORARY), &self.path)?;
                prepared.published = true;
                sync_dir(self.path.parent().unwrap_or(Path::new("/")))?;
                (self.whole, self.length) = (*length, *length);
            }
            Part::Line(file, _, end) => {
                file.write_all_at(b"\n", *end)?;
                prepared.published = true;
                file.sync_data()?;
                (self.whole, self.length) = (whole, end + 1);
            }
        }
        Ok(())
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        if self.published {
            return;
        }
        match &self.part {
            Part::Whole(_) => drop(fs::remove_file(self.path.with_file_name(TEMPORARY))),
            Part::Line(file, start, _) => drop(file.set_len(*start)),
        }
    }
}

/// The export's contents and its file; `Ok(None)` without an export, `Err` with the reason when it cannot be believed.
pub(super) fn read(dir: &Path) -> Result<Option<(Contents, Export)>, String> {
    let path = dir.join(FILE);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let mut documents = serde_json::Deserializer::from_slice(&bytes).into_iter::<Document>();
    let document = documents.next().ok_or("it is empty")?.map_err(|error| error.to_string())?;
    let whole = documents.byte_offset() + b"\n".len();
    if document.format != FORMAT {
        return Err(format!("it has format {}, and this release knows {FORMAT}", document.format));
    }
    believe(&document.checksum, &document.state)?;
    let state: State = serde_json::from_value(document.state).map_err(|error| error.to_string())?;
    let mut contents = Contents { generation: state.generation, counters: state.counters, ..Contents::default() };
    let mut resources = BTreeMap::new();
    for (name, kept) in state.resources {
        resources.insert(name.parse().map_err(|error| format!("{error}"))?, Arc::new(kept));
    }
    let mut workloads: BTreeMap<WorkloadId, _> =
        state.workloads.into_iter().map(|kept| (kept.value.id, Arc::new(kept))).collect();
    let mut length = whole;
    for text in bytes.get(whole..).unwrap_or_default().split_inclusive(|byte| *byte == b'\n') {
        let Some(text) = text.strip_suffix(b"\n") else { break };
        let line: Line = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        believe(&line.checksum, &line.change)?;
        let delta: Delta = serde_json::from_value(line.change).map_err(|error| error.to_string())?;
        (contents.generation, contents.counters) = (delta.generation, delta.counters);
        for (name, kept) in delta.resources {
            let name: ResourceName = name.parse().map_err(|error| format!("{error}"))?;
            match kept {
                Some(kept) => drop(resources.insert(name, Arc::new(kept))),
                None => drop(resources.remove(&name)),
            }
        }
        workloads.extend(delta.attached.into_iter().map(|kept| (kept.value.id, Arc::new(kept))));
        workloads.retain(|id, _| !delta.detached.contains(id));
        length += text.len() + b"\n".len();
    }
    let (read, latest) =
        sets::read_files(dir, resources.keys().filter(|name: &&ResourceName| name.kind == Kind::AddressSet))?;
    contents.sets = read;
    contents.generation = contents.generation.max(latest);
    contents.resources = resources.into();
    contents.workloads = workloads.into();
    Ok(Some((contents, Export { path, whole: whole as u64, length: length as u64 })))
}

/// Makes a rename in the folder outlive a power cut.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn render(contents: &Contents) -> Result<String, serde_json::Error> {
    let state = State {
        generation: contents.generation,
        counters: contents.counters,
        resources: contents.resources.iter().map(|(name, kept)| (name.to_string(), Kept::clone(kept))).collect(),
        workloads: contents.workloads.values().map(|kept| Kept::clone(kept)).collect(),
    };
    let state = serde_json::to_value(state)?;
    let mut text = serde_json::to_string_pretty(&Document { format: FORMAT, checksum: checksum(&state), state })?;
    text.push('\n');
    Ok(text)
}

/// Without its end.
fn line(next: &Contents, changes: &[Change]) -> Result<String, serde_json::Error> {
    let mut delta = Delta {
        generation: next.generation,
        counters: next.counters,
        resources: BTreeMap::new(),
        attached: Vec::new(),
        detached: Vec::new(),
    };
    for change in changes {
        match change {
            Change::Put(name, _) | Change::Remove(name) => {
                let kept = next.resources.get(name).map(|kept| Kept::clone(kept));
                delta.resources.insert(name.to_string(), kept);
            }
            Change::Attach(workload) => match next.workloads.get(&workload.id) {
                Some(kept) => delta.attached.push(Kept::clone(kept)),
                None => delta.detached.push(workload.id),
            },
            Change::Detach(id) => match next.workloads.get(id) {
                Some(kept) => delta.attached.push(Kept::clone(kept)),
                None => delta.detached.push(*id),
            },
            Change::Prefixes(..) | Change::PatchPrefixes(..) | Change::Count(_) => {}
        }
    }
    let change = serde_json::to_value(delta)?;
    serde_json::to_string(&Line { checksum: checksum(&change), change })
}

fn believe(written: &str, value: &Value) -> Result<(), String> {
    if checksum(value) == written { Ok(()) } else { Err("its checksum does not match".to_owned()) }
}

fn checksum(value: &Value) -> String {
    format!("fnv1a64:{:016x}", fnv(value.to_string().bytes()))
}

pub(super) fn fnv(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
