//! Other prefixes of address sets, put in force portion by portion.
//!
//! A portion is a change of its own: behind it the kernel, the compiler and [`Gate::desired`] agree, so that workloads come
//! and go between two of them, and DNS, `status` and upkeep find every lock free. Portions are of address order, and none
//! ends within a prefix that changes: each address goes from its old sets to its new ones in one of them, and meets no
//! mixture of both. The resources as such, and the store, change with the last one; a portion that fails takes the others
//! back.

use std::sync::Arc;

use config::Prefixes;
use config::resource::{AddressSet, Resource, ResourceKey};
use ipnetwork::IpNetwork;
use tokio::sync::MutexGuard;

use super::desired::{Desired, set_key};
use super::enforcement::InstallError;
use super::gate::Gate;
use super::reload::{in_place, not_stored};
use crate::admin::ControlError;
use crate::store::Change;

/// Prefixes that come or go in one portion: some hundredths of a second.
const PORTION: usize = 8_192;

/// One prefix comes into a set, or goes; by the set's place in a list.
type Move = (IpNetwork, usize, bool);

/// What a set shall have.
type Target<'a> = (&'a ResourceKey, &'a Prefixes);

/// A set that policies name, on its way.
struct Moving {
    key: ResourceKey,
    former: Prefixes,
    next: Prefixes,
}

/// Puts `next` in force, in which only address sets differ from the present state; then the store commits. Nobody else
/// changes resources meanwhile ([`Gate::applying`]); the turn is given away between portions.
pub(super) async fn put_in_force(
    gate: &Gate,
    turn: MutexGuard<'_, ()>,
    next: Desired,
    commit: &[Change],
) -> Result<(), ControlError> {
    let before = gate.now();
    let sets = in_place(|| moving(&before, &next));
    let forwards: Vec<Target<'_>> = sets.iter().map(|set| (&set.key, &set.next)).collect();
    let (turn, led) = all_but_the_last(gate, turn, &forwards).await;
    let failure = match led.map_err(|error| not_written(&error)) {
        Ok(()) => match in_place(|| last(gate, &next, &sets, commit)) {
            Ok(()) => return Ok(()),
            Err(failure) => failure,
        },
        Err(failure) => failure,
    };
    let backwards: Vec<Target<'_>> = sets.iter().map(|set| (&set.key, &set.former)).collect();
    let (_turn, led) = all_but_the_last(gate, turn, &backwards).await;
    let undone = led.map_err(|error| not_written(&error)).and_then(|()| in_place(|| last(gate, &before, &sets, &[])));
    if let Err(error) = undone {
        tracing::error!(%error, "the earlier prefixes could not be written again; what is in the kernel is no more open than either state");
    }
    Err(failure)
}

/// The sets that differ, as far as a rule names them: the kernel has no others.
fn moving(before: &Desired, next: &Desired) -> Vec<Moving> {
    let differs = |set: &AddressSet| {
        let key = set_key(set);
        let (former, prefixes) = (prefixes_of(before, &key)?, next.prefixes(set));
        let same = former.difference(prefixes).is_empty();
        let used = !same && config::set_uses(&next.resources).any(|own| own.set == key);
        used.then(|| Moving { key, former: former.clone(), next: prefixes.clone() })
    };
    next.resources.address_sets().filter_map(differs).collect()
}

fn prefixes_of<'a>(desired: &'a Desired, key: &ResourceKey) -> Option<&'a Prefixes> {
    match desired.resources.get(key) {
        Some(Resource::AddressSet(set)) => Some(desired.prefixes(set)),
        _ => None,
    }
}

/// Brings these sets near to what they shall be: one portion is left.
async fn all_but_the_last<'g>(
    gate: &'g Gate,
    mut turn: MutexGuard<'g, ()>,
    sets: &[Target<'_>],
) -> (MutexGuard<'g, ()>, Result<(), InstallError>) {
    let moves = in_place(|| moves(&gate.now(), sets));
    let mut rest = moves.as_slice();
    loop {
        let (portion, behind) = rest.split_at(end_of_portion(rest, PORTION));
        if behind.is_empty() {
            return (turn, Ok(()));
        }
        rest = behind;
        if let Err(error) = in_place(|| one(gate, sets, portion)) {
            return (turn, Err(error));
        }
        drop(turn);
        turn = gate.changing.lock().await;
    }
}

/// What comes into these sets and what goes, in the order of the addresses: a prefix before those that it covers.
fn moves(present: &Desired, sets: &[Target<'_>]) -> Vec<Move> {
    let mut moves = Vec::new();
    for (place, (key, next)) in sets.iter().enumerate() {
        let Some(difference) = prefixes_of(present, key).map(|own| own.difference(next)) else { continue };
        moves.extend(difference.added.into_iter().map(|prefix| (prefix, place, true)));
        moves.extend(difference.removed.into_iter().map(|prefix| (prefix, place, false)));
    }
    moves.sort_unstable();
    moves
}

/// Where a portion of at least `most` moves may end: not within a prefix that moves itself.
fn end_of_portion(moves: &[Move], most: usize) -> usize {
    let Some(((first, _, _), _)) = moves.split_first() else { return 0 };
    let mut outer = *first;
    for (index, (prefix, _, _)) in moves.iter().enumerate() {
        if !outer.contains(prefix.network()) {
            if index >= most {
                return index;
            }
            outer = *prefix;
        }
    }
    moves.len()
}

/// One portion: the present state with these moves.
fn one(gate: &Gate, sets: &[Target<'_>], portion: &[Move]) -> Result<(), InstallError> {
    let mut next = Desired::clone(&gate.now());
    for (place, (key, _)) in sets.iter().enumerate() {
        let of = |comes| portion.iter().filter(move |own| (own.1, own.2) == (place, comes)).map(|own| own.0);
        let (added, removed): (Vec<IpNetwork>, Vec<IpNetwork>) = (of(true).collect(), of(false).collect());
        if let Some(present) = prefixes_of(&next, key) {
            let changed = present.changed(&added, &removed);
            next.set_prefixes(key, changed);
        }
    }
    change(gate, &next, sets.iter().map(|(key, _)| *key))?;
    gate.desired.send_replace(Arc::new(next));
    Ok(())
}

/// The last portion, with everything else that differs.
fn last(gate: &Gate, next: &Desired, sets: &[Moving], commit: &[Change]) -> Result<(), ControlError> {
    let mut next = next.clone();
    next.workloads.clone_from(&gate.now().workloads);
    change(gate, &next, sets.iter().map(|set| &set.key)).map_err(|error| not_written(&error))?;
    if !commit.is_empty() {
        gate.store.commit(commit).map_err(|error| not_stored(&error))?;
    }
    gate.desired.send_replace(Arc::new(next));
    Ok(())
}

fn change<'k>(gate: &Gate, next: &Desired, keys: impl Iterator<Item = &'k ResourceKey>) -> Result<(), InstallError> {
    let set = |key: &ResourceKey| match next.resources.get(key) {
        Some(Resource::AddressSet(set)) => Some(set),
        _ => None,
    };
    let sets: Vec<&AddressSet> = keys.filter_map(set).collect();
    if sets.is_empty() { Ok(()) } else { gate.enforcement.change_sets(next, &sets, &gate.store) }
}

fn not_written(error: &InstallError) -> ControlError {
    ControlError::failed(
        format!("the kernel's tables were not written: {error}"),
        "the earlier prefixes stay in force; `netctl status` shows how full the tables are",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Move {
        (text.parse().unwrap(), 0, true)
    }

    #[test]
    fn a_portion_never_ends_within_a_prefix_that_moves() {
        let moves: Vec<Move> =
            ["10.0.0.0/8", "10.0.0.0/9", "10.1.0.0/16", "10.1.2.3/32", "11.0.0.0/8", "12.0.0.1/32", "::/0", "fd00::/8"]
                .map(at)
                .to_vec();
        assert!(moves.is_sorted());
        let ends = |most| {
            let (mut rest, mut ends) = (moves.as_slice(), Vec::new());
            while !rest.is_empty() {
                let end = end_of_portion(rest, most);
                ends.push(end);
                rest = &rest[end..];
            }
            ends
        };
        assert_eq!(ends(1), [4, 1, 1, 2]);
        assert_eq!(ends(2), [4, 2, 2]);
        assert_eq!(ends(5), [5, 3]);
        assert_eq!(ends(100), [8]);
        assert_eq!(end_of_portion(&[], 1), 0);
    }
}
