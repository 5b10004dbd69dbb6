//! The prefixes of address sets. They are not in the resources' JSON: a million of them must not be written again when one
//! changes.
//!
//! In the database, table `sets`: (name, 0) has all prefixes as they were written last, (name, 1) and on the changes since
//! then, at most [`CHANGES`]. Beside it, for the day on which the database cannot be read, `sets/` has a readable file
//! for each set: all prefixes below a checksum of these lines, and behind them a line for each change, as
//! `13 +10.1.0.0/16 -10.0.0.0/8` (the commit's generation first; a line that was cut short counts for nothing).

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use config::Prefixes;
use config::api::ResourceName;
use config::prefixes::Difference;
use config::resource::SetName;
use ipnetwork::IpNetwork;
use redb::{ReadableTable, TableDefinition};

use super::StoreError;
use super::contents::{Change, Contents};
use super::export::sync_dir;

pub(super) const TABLE: TableDefinition<'_, (&str, u64), &[u8]> = TableDefinition::new("sets");
/// The folder of the readable files.
const FOLDER: &str = "sets";
/// Changes kept beside what was written as a whole; then it is written anew.
const CHANGES: u64 = 4_096;
/// Added to the first byte of an IPv6 prefix.
const V6: u8 = 64;

type Table<'t> = redb::Table<'t, (&'static str, u64), &'static [u8]>;

/// Brings the rows of one set to what `next` has, by the change where there is one.
pub(super) fn write(
    table: &mut Table<'_>,
    name: &ResourceName,
    next: &Contents,
    change: Option<&Difference>,
) -> Result<(), redb::Error> {
    let text = name.to_string();
    let last = table.range((text.as_str(), 0)..=(text.as_str(), u64::MAX))?.next_back();
    let last = last.transpose()?.map(|(key, _)| key.value().1);
    if let (Some(change), Some(last)) = (change, last.filter(|last| *last < CHANGES)) {
        let mut bytes = u32::try_from(change.added.len()).unwrap_or(u32::MAX).to_le_bytes().to_vec();
        change.added.iter().chain(&change.removed).for_each(|prefix| encode(*prefix, &mut bytes));
        table.insert((text.as_str(), last + 1), bytes.as_slice())?;
        return Ok(());
    }
    for number in 0..=last.unwrap_or(0) {
        table.remove((text.as_str(), number))?;
    }
    if let Some(prefixes) = next.sets.get(name) {
        let mut bytes = Vec::with_capacity(prefixes.len() * 5);
        prefixes.iter().for_each(|prefix| encode(prefix, &mut bytes));
        table.insert((text.as_str(), 0), bytes.as_slice())?;
    }
    Ok(())
}

/// Every set of the table.
pub(super) fn read(
    table: &impl ReadableTable<(&'static str, u64), &'static [u8]>,
) -> Result<BTreeMap<ResourceName, Prefixes>, String> {
    let text = |error: redb::StorageError| error.to_string();
    let mut sets = BTreeMap::new();
    for entry in table.iter().map_err(text)? {
        let (key, value) = entry.map_err(text)?;
        let (name, number) = key.value();
        let name: ResourceName = name.parse().map_err(|error| format!("a set's name: {error}"))?;
        let torn = || format!("{name}: row {number} of its prefixes is torn");
        match number {
            0 => drop(sets.insert(name.clone(), decode(value.value()).ok_or_else(torn)?.into_iter().collect())),
            _ => {
                let (count, rest) = value.value().split_first_chunk().ok_or_else(torn)?;
                let all = decode(rest).ok_or_else(torn)?;
                let (added, removed) = all.split_at_checked(u32::from_le_bytes(*count) as usize).ok_or_else(torn)?;
                let before: &mut Prefixes = sets.get_mut(&name).ok_or_else(torn)?;
                *before = before.changed(added, removed);
            }
        }
    }
    Ok(sets)
}

fn encode(prefix: IpNetwork, into: &mut Vec<u8>) {
    match prefix {
        IpNetwork::V4(v4) => {
            into.push(v4.prefix());
            into.extend(v4.network().octets());
        }
        IpNetwork::V6(v6) => {
            into.push(V6 + v6.prefix());
            into.extend(v6.network().octets());
        }
    }
}

fn decode(mut bytes: &[u8]) -> Option<Vec<IpNetwork>> {
    let mut prefixes = Vec::with_capacity(bytes.len() / 5);
    while let Some((first, rest)) = bytes.split_first() {
        let (address, length) = if *first < V6 {
            let (octets, rest) = rest.split_first_chunk::<4>()?;
            bytes = rest;
            (IpAddr::from(*octets), *first)
        } else {
            let (octets, rest) = rest.split_first_chunk::<16>()?;
            bytes = rest;
            (IpAddr::from(*octets), *first - V6)
        };
        prefixes.push(IpNetwork::new(address, length).ok()?);
    }
    Some(prefixes)
}

/// Readable files that do not bear their names yet; dropped, they are removed.
pub(super) struct Prepared {
    folder: PathBuf,
    written: Vec<PathBuf>,
}

/// Writes the files of these sets beside the present ones.
pub(super) fn prepare<'n>(
    dir: &Path,
    contents: &Contents,
    names: impl Iterator<Item = &'n ResourceName>,
) -> Result<Prepared, StoreError> {
    let folder = dir.join(FOLDER);
    let mut prepared = Prepared { folder: folder.clone(), written: Vec::new() };
    for (name, prefixes) in names.filter_map(|name| Some((name, contents.sets.get(name)?))) {
        let path = temporary(&folder, name);
        let failed = |source| StoreError::Io { doing: "writing", path: path.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(failed)?;
        prepared.written.push(path.clone());
        write_whole(&path, name, contents.generation, prefixes).map_err(failed)?;
    }
    Ok(prepared)
}

impl Prepared {
    /// Gives them their names, and removes the files of sets that are gone.
    pub(super) fn publish(mut self, contents: &Contents) -> io::Result<()> {
        for path in std::mem::take(&mut self.written) {
            fs::rename(&path, path.with_extension("txt"))?;
        }
        match fs::read_dir(&self.folder) {
            Ok(entries) => {
                let known: Vec<PathBuf> = contents.sets.keys().map(|name| place(&self.folder, name)).collect();
                for path in entries.flatten().map(|entry| entry.path()).filter(|path| !known.contains(path)) {
                    fs::remove_file(path)?;
                }
                sync_dir(&self.folder)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        for path in &self.written {
            let _ = fs::remove_file(path);
        }
    }
}

/// Adds a line to the readable file of each set that was changed.
pub(super) fn append(dir: &Path, generation: u64, changes: &[Change]) -> io::Result<()> {
    for change in changes {
        let Change::PatchPrefixes(name, _, change) = change else { continue };
        let mut line = generation.to_string();
        change.added.iter().for_each(|prefix| line.push_str(&format!(" +{prefix}")));
        change.removed.iter().for_each(|prefix| line.push_str(&format!(" -{prefix}")));
        line.push('\n');
        let mut file = OpenOptions::new().append(true).open(place(&dir.join(FOLDER), name))?;
        file.write_all(line.as_bytes()).and_then(|()| file.sync_data())?;
    }
    Ok(())
}

/// The sets of the readable files, with the latest generation that one of them names.
pub(super) fn read_files<'n>(
    dir: &Path,
    names: impl Iterator<Item = &'n ResourceName>,
) -> Result<(BTreeMap<ResourceName, Prefixes>, u64), String> {
    let (mut sets, mut latest) = (BTreeMap::new(), 0);
    for name in names {
        let path = place(&dir.join(FOLDER), name);
        let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let (prefixes, generation) = read_text(&text).ok_or_else(|| format!("{} is torn", path.display()))?;
        latest = latest.max(generation);
        sets.insert(name.clone(), prefixes);
    }
    Ok((sets, latest))
}

fn read_text(text: &str) -> Option<(Prefixes, u64)> {
    let (head, rest) = text.split_once('\n')?;
    let mut words = head.rsplit(' ');
    let (mut generation, checksum): (u64, &str) = (words.next()?.parse().ok()?, words.next()?);
    let whole = rest.find(' ').map_or(rest.len(), |space| rest[..space].rfind('\n').map_or(0, |at| at + 1));
    let (listed, changes) = rest.split_at(whole);
    if checksum_of(listed.as_bytes()) != checksum {
        return None;
    }
    let prefixes: Option<Vec<IpNetwork>> = listed.lines().map(|line| line.parse().ok()).collect();
    let mut prefixes: Prefixes = prefixes?.into_iter().collect();
    for line in changes.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
        let mut words = line.split(' ');
        generation = words.next()?.parse().ok()?;
        let (mut added, mut removed) = (Vec::new(), Vec::new());
        for word in words {
            match word.split_at_checked(1)? {
                ("+", prefix) => added.push(prefix.parse().ok()?),
                ("-", prefix) => removed.push(prefix.parse().ok()?),
                _ => return None,
            }
        }
        prefixes = prefixes.changed(&added, &removed);
    }
    Some((prefixes, generation))
}

fn write_whole(path: &Path, name: &ResourceName, generation: u64, prefixes: &Prefixes) -> io::Result<()> {
    let mut text = String::with_capacity(prefixes.len() * 18);
    for prefix in prefixes.iter() {
        text.push_str(&prefix.to_string());
        text.push('\n');
    }
    let file: File = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path)?;
    let mut file = BufWriter::new(file);
    writeln!(file, "# {name} as it was put in force {} {generation}", checksum_of(text.as_bytes()))?;
    file.write_all(text.as_bytes())?;
    file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

/// `sets/shop.feed.txt`, `sets/_admin.feed.txt`: no name has a dot.
fn place(folder: &Path, name: &ResourceName) -> PathBuf {
    let namespace = name.namespace.as_ref().map_or(SetName::ADMIN, |namespace| namespace.as_str());
    folder.join(format!("{namespace}.{}.txt", name.name))
}

fn temporary(folder: &Path, name: &ResourceName) -> PathBuf {
    place(folder, name).with_extension("new")
}

fn checksum_of(bytes: &[u8]) -> String {
    format!("fnv1a64:{:016x}", super::export::fnv(bytes.iter().copied()))
}
