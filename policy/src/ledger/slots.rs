//! The kernel's view of an address: at most four names.
//!
//! Names of one class open the same, so the one that lives longest speaks for all of them. Of more than four classes the
//! soonest to expire find no slot. Slots that are left have the other names that live longest: a handshake for a name in a
//! slot is read in the kernel, and an answer for it given there.

use std::cmp::Reverse;

use crate::tables::NameId;

/// How many names the kernel holds for one address.
pub const SLOTS: usize = 4;

/// A name that opens an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The name.
    pub name: NameId,
    /// From then on it opens nothing: CLOCK_BOOTTIME in nanoseconds.
    pub expires_ns: u64,
}

/// The slots of an address, used ones first.
pub type Slots = [Option<Slot>; SLOTS];

/// A name of the address, with the class that it has now.
pub(super) struct Candidate<C> {
    pub(super) class: Option<C>,
    pub(super) slot: Slot,
}

/// A name that has to go.
pub(super) struct Victim {
    pub(super) slot: Slot,
    /// No other name speaks for its class.
    pub(super) lasting: bool,
}

/// Takes out the name that is missed least, as long as there are more than `bound`; never `new`.
pub(super) fn victim<C: Ord>(names: &mut Vec<Candidate<C>>, bound: usize, new: Option<NameId>) -> Option<Victim> {
    if names.len() <= bound {
        return None;
    }
    sort(names);
    let lasting = |at: usize| names[at].class.is_some() && (at == 0 || names[at - 1].class != names[at].class);
    let old = (0..names.len()).filter(|at| Some(names[*at].slot.name) != new);
    let (lasting, _, _, at) = old.map(|at| (lasting(at), names[at].slot.expires_ns, names[at].slot.name, at)).min()?;
    Some(Victim { slot: names.remove(at).slot, lasting })
}

/// One name for each class, other names as far as there is room, and how many live classes found no slot.
pub(super) fn choose<C: Ord>(now: u64, mut names: Vec<Candidate<C>>) -> (Slots, u64) {
    names.retain(|name| name.class.is_some());
    sort(&mut names);
    let (mut chosen, mut others) = (Vec::new(), Vec::new());
    for (at, name) in names.iter().enumerate() {
        let speaks = at == 0 || names[at - 1].class != name.class;
        if speaks { &mut chosen } else { &mut others }.push(name.slot);
    }
    chosen.sort_by_key(|slot| order(*slot));
    let dropped = chosen.iter().skip(SLOTS).filter(|slot| now < slot.expires_ns).count();
    others.sort_by_key(|slot| order(*slot));
    chosen.extend(others.into_iter().take(SLOTS.saturating_sub(chosen.len())));
    (from_sorted(&chosen), dropped as u64)
}

/// The first four.
pub(super) fn from_sorted(slots: &[Slot]) -> Slots {
    std::array::from_fn(|index| slots.get(index).copied())
}

/// Class by class, and in each the name first that speaks for it.
fn sort<C: Ord>(names: &mut [Candidate<C>]) {
    names.sort_by(|left, right| left.class.cmp(&right.class).then_with(|| order(left.slot).cmp(&order(right.slot))));
}

/// The latest first; of two that expire together the lower number, so that a slot does not change without need.
fn order(slot: Slot) -> (Reverse<u64>, NameId) {
    (Reverse(slot.expires_ns), slot.name)
}
