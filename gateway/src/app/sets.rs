//! Address sets: their files are read when they are applied and whenever they change, and single prefixes of the others
//! come and go. Neither touches the node's links or the edge.
//!
//! A file counts as changed when its stamp is another, and is read when it has held still for [`STILL`], so that one that
//! is being written is not taken by halves. A bad file changes nothing: what was read last stays in force, and a
//! condition names the lines.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use config::api::{ConditionState, PatchSetRequest, PatchSetResponse, ResourceName, Timestamp};
use config::prefixes::Difference;
use config::resource::{AddressSet, Kind, Resource, ResourceKey, SetName, SetSource};
use config::{Prefixes, feed};
use ipnetwork::IpNetwork;
use tokio::time::{MissedTickBehavior, interval};

use super::desired::{Desired, set_key};
use super::gate::Gate;
use super::loading;
use super::manifests::Merged;
use super::reload::in_place;
use crate::admin::ControlError;
use crate::files::{FilesDir, Stamp};
use crate::store::Change;

/// Between two looks at the files.
const LOOK: Duration = Duration::from_millis(250);
/// As long as this nothing was written to a file that is read.
const STILL: Duration = Duration::from_secs(1);
/// What the kernel did not take is tried again after this.
const AGAIN: Duration = Duration::from_secs(10);
/// Bytes that a file may have for each prefix, comments included.
const BYTES_EACH: u64 = 256;
/// Changes of a set by more than one part in this many are stored as the whole set.
const PART: usize = 8;

/// The file of a set as it was read last.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    pub(crate) prefixes: Prefixes,
    /// `None`: these prefixes are those that the store kept.
    pub(crate) stamp: Option<Stamp>,
    /// When; `None` for those that the store kept.
    pub(crate) at: Option<Timestamp>,
}

/// Reads the files of sets that are new or name another file, and holds every new set against its limit.
pub(crate) fn load(gate: &Gate, merged: &mut Merged) -> Result<(), ControlError> {
    let before = gate.now();
    let mut problems = Vec::new();
    let mut files = BTreeMap::new();
    for set in merged.next.resources.address_sets() {
        let key = set_key(set);
        if before.resources.get(&key) == Some(&Resource::AddressSet(set.clone())) {
            files.extend(before.files.get(&key).map(|loaded| (key, loaded.clone())));
            continue;
        }
        match &set.source {
            SetSource::Cidrs(prefixes) => {
                let too_many = feed::too_many(prefixes.len(), most(gate));
                problems.extend(too_many.map(|(what, mend)| format!("{}: {what}; {mend}", name_of(set))));
            }
            SetSource::File(file) => match read(gate, set, file) {
                Ok(loaded) => {
                    merged.commit.push(Change::Prefixes(name_of(set), loaded.prefixes.clone()));
                    drop(files.insert(key, loaded));
                }
                Err(error) => problems.push(format!("{}: {error}", name_of(set))),
            },
        }
    }
    merged.next.files = files;
    if problems.is_empty() {
        return Ok(());
    }
    Err(ControlError::refused(problems.join("\n"), "mend the files and apply again; nothing was changed"))
}

fn read(gate: &Gate, set: &AddressSet, file: &str) -> Result<Loaded, String> {
    let most = most(gate);
    let bytes = BYTES_EACH.saturating_mul(most as u64);
    let bound = (bytes, "list fewer prefixes, or raise `set_prefixes` under `[limits]` of the node's settings");
    let found = FilesDir(gate.settings.node.files_dir.clone()).read(folder(set), file, bound);
    let found = found.map_err(|error| error.to_string())?;
    let prefixes = feed::parse(file, &found.bytes, most)
        .map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
    Ok(Loaded { prefixes, stamp: Some(found.stamp), at: Some(SystemTime::now().into()) })
}

fn most(gate: &Gate) -> usize {
    gate.settings.limits.set_prefixes as usize
}

fn folder(set: &AddressSet) -> &str {
    set.namespace.as_ref().map_or(SetName::ADMIN, |namespace| namespace.as_str())
}

fn name_of(set: &AddressSet) -> ResourceName {
    ResourceName::from(set_key(set))
}

/// Looks at the files, for as long as the daemon runs.
pub(crate) async fn watch(gate: Arc<Gate>) {
    let mut tick = interval(LOOK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut watched = BTreeMap::new();
    loop {
        tick.tick().await;
        look(&gate, &mut watched).await;
    }
}

/// What is known of a file beside what was loaded of it.
#[derive(Default)]
struct Watched {
    /// At the last look, and at the first that found it so; `None` is no file.
    seen: Option<(Option<Stamp>, Instant)>,
    /// The state that could not be taken, and when it is worth another try.
    refused: Option<(Option<Stamp>, Option<Instant>)>,
}

async fn look(gate: &Gate, watched: &mut BTreeMap<ResourceKey, Watched>) {
    if gate.trial().is_some() {
        return; // what is read now would be stored, and the change on trial is not
    }
    let desired = gate.now();
    let of_files: Vec<(&AddressSet, &str)> = desired
        .resources
        .address_sets()
        .filter_map(|set| match &set.source {
            SetSource::File(file) => Some((set, file.as_str())),
            SetSource::Cidrs(_) => None,
        })
        .collect();
    let present: BTreeSet<ResourceKey> = of_files.iter().map(|(set, _)| set_key(set)).collect();
    watched.retain(|key, own| {
        let stays = present.contains(key);
        if !stays && own.refused.is_some() {
            gate.clear(&ResourceName::from(key.clone()).to_string());
        }
        stays
    });
    for (set, file) in of_files {
        let key = set_key(set);
        let known = desired.files.get(&key).and_then(|loaded| loaded.stamp);
        let own = watched.entry(key).or_default();
        let now = in_place(|| FilesDir(gate.settings.node.files_dir.clone()).stamp(folder(set), file));
        if own.seen.is_none_or(|(stamp, _)| stamp != now) {
            own.seen = Some((now, Instant::now()));
        }
        if now.is_some() && now == known {
            if own.refused.take().is_some() {
                gate.clear(&name_of(set).to_string());
            }
            continue;
        }
        let tried =
            own.refused.is_some_and(|(stamp, again)| stamp == now && again.is_none_or(|at| Instant::now() < at));
        let still = own.seen.is_some_and(|(_, since)| since.elapsed() >= STILL)
            || now.is_some_and(|stamp| stamp.is_still_for(STILL));
        if tried || !still {
            continue;
        }
        own.refused = match reload(gate, set, file).await {
            Ok(Taken::Whole) => {
                gate.clear(&name_of(set).to_string());
                None
            }
            Ok(Taken::NotYet) => own.refused.take(),
            Err(refusal) => {
                let mend = "the prefixes loaded before stay in force; mend the file: it is read again when it changes";
                gate.raise(&name_of(set).to_string(), ConditionState::Degraded, refusal.text, mend);
                Some((now, refusal.again.then(|| Instant::now() + AGAIN)))
            }
        };
    }
}

/// What became of a file that could be read.
enum Taken {
    /// It is in force.
    Whole,
    /// It, or the set, was changed meanwhile: the next looks will tell.
    NotYet,
}

/// Why a changed file is not in force.
struct Refusal {
    text: String,
    /// Nothing is wrong with the file: the same may do later.
    again: bool,
}

async fn reload(gate: &Gate, set: &AddressSet, file: &str) -> Result<Taken, Refusal> {
    let loaded = in_place(|| read(gate, set, file)).map_err(|text| Refusal { text, again: false })?;
    if in_place(|| FilesDir(gate.settings.node.files_dir.clone()).stamp(folder(set), file)) != loaded.stamp {
        return Ok(Taken::NotYet);
    }
    let _applying = gate.applying.lock().await;
    let turn = gate.changing.lock().await;
    let before = gate.now();
    let Some(Resource::AddressSet(present)) = before.resources.get(&set_key(set)) else { return Ok(Taken::NotYet) };
    if present != set {
        return Ok(Taken::NotYet);
    }
    let difference = before.prefixes(set).difference(&loaded.prefixes);
    let mut next = Desired::clone(&before);
    let prefixes = loaded.prefixes.clone();
    next.files.insert(set_key(set), loaded);
    if difference.is_empty() {
        gate.desired.send_replace(Arc::new(next));
        return Ok(Taken::Whole);
    }
    tracing::info!(set = %name_of(set), added = difference.added.len(), removed = difference.removed.len(), "its file has changed");
    let change = stored_as(set, prefixes, difference);
    let put = loading::put_in_force(gate, turn, next, &[change]).await;
    put.map_err(|error| Refusal { text: error.to_string(), again: true })?;
    Ok(Taken::Whole)
}

fn stored_as(set: &AddressSet, prefixes: Prefixes, difference: Difference) -> Change {
    let changed = difference.added.len() + difference.removed.len();
    match changed > prefixes.len() / PART {
        true => Change::Prefixes(name_of(set), prefixes),
        false => Change::PatchPrefixes(name_of(set), prefixes, difference),
    }
}

/// Adds and removes prefixes of a set that lists its own.
pub(crate) async fn patch(gate: &Gate, request: PatchSetRequest) -> Result<PatchSetResponse, ControlError> {
    let turn = gate.changing.lock().await;
    let (response, change) = in_place(|| patched(gate, request))?;
    if let Some((next, change)) = change {
        loading::put_in_force(gate, turn, next, &[change]).await?;
    }
    Ok(response)
}

/// The state with a changed set, if it is another and not only tried.
type Patched = (PatchSetResponse, Option<(Desired, Change)>);

fn patched(gate: &Gate, request: PatchSetRequest) -> Result<Patched, ControlError> {
    let key = ResourceKey { kind: Kind::AddressSet, namespace: request.namespace.clone(), name: request.name.clone() };
    let name = ResourceName::from(key.clone());
    let before = gate.now();
    let Some(Resource::AddressSet(set)) = before.resources.get(&key) else {
        return Err(ControlError::not_found(
            format!("there is no {name}"),
            "`netctl get addresssets -A` lists what is there",
        ));
    };
    let prefixes = match &set.source {
        SetSource::Cidrs(prefixes) => prefixes,
        SetSource::File(file) => {
            let place = format!("{}/{file} below `files_dir`", folder(set));
            let mend = format!("change that file, {place}: it is read again when it changes");
            return Err(ControlError::refused(format!("the prefixes of {name} come from its file"), mend));
        }
    };
    let (add, remove) = (parsed(&request.add)?, parsed(&request.remove)?);
    if let Some(both) = add.iter().find(|prefix| remove.contains(prefix)) {
        return Err(ControlError::bad_request(format!("{both} shall both come in and go out"), "write it once"));
    }
    let next_prefixes =
        prefixes.changed(&add.iter().copied().collect::<Vec<_>>(), &remove.iter().copied().collect::<Vec<_>>());
    if let Some((what, mend)) = feed::too_many(next_prefixes.len(), most(gate)) {
        return Err(ControlError::refused(format!("{name}: {what}"), mend));
    }
    let difference = prefixes.difference(&next_prefixes);
    let response = PatchSetResponse {
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        prefixes: next_prefixes.len() as u64,
        added: difference.added.len() as u64,
        removed: difference.removed.len() as u64,
        already_there: add.iter().filter(|prefix| prefixes.contains(prefix)).map(ToString::to_string).collect(),
        not_there: remove.iter().filter(|prefix| !prefixes.contains(prefix)).map(ToString::to_string).collect(),
    };
    if request.dry_run || difference.is_empty() {
        return Ok((response, None));
    }
    let mut next = Desired::clone(&before);
    next.resources.insert(AddressSet { source: SetSource::Cidrs(next_prefixes.clone()), ..set.clone() });
    let change = stored_as(set, next_prefixes, difference);
    Ok((response, Some((next, change))))
}

fn parsed(texts: &[String]) -> Result<BTreeSet<IpNetwork>, ControlError> {
    let prefixes = texts.iter().map(|text| feed::prefix(text));
    prefixes.collect::<Result<_, _>>().map_err(|error| ControlError::bad_request(error.problem, error.mend))
}
