//! The kernel's view of an address: at most four names, one for each class.
//!
//! Names of one class open the same, so the one that lives longest speaks for all of them. Of more than four classes the
//! soonest to expire find no slot.

use std::collections::BTreeMap;

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

/// One name for each class, and how many live classes found no slot.
pub(super) fn choose<C: Ord>(
    now: u64,
    names: impl Iterator<Item = (NameId, u64)>,
    mut class_of: impl FnMut(NameId) -> Option<C>,
) -> (Slots, u64) {
    let mut best: BTreeMap<C, Slot> = BTreeMap::new();
    for (name, expires_ns) in names {
        let Some(class) = class_of(name) else { continue };
        let slot = Slot { name, expires_ns };
        best.entry(class).and_modify(|best| *best = later(*best, slot)).or_insert(slot);
    }
    let mut chosen: Vec<Slot> = best.into_values().collect();
    chosen.sort_by_key(|slot| (std::cmp::Reverse(slot.expires_ns), slot.name));
    let dropped = chosen.iter().skip(SLOTS).filter(|slot| now < slot.expires_ns).count();
    (from_sorted(&chosen), dropped as u64)
}

/// The first four.
pub(super) fn from_sorted(slots: &[Slot]) -> Slots {
    std::array::from_fn(|index| slots.get(index).copied())
}

/// The lower number of two that expire together, so that a slot does not change without need.
fn later(left: Slot, right: Slot) -> Slot {
    let key = |slot: Slot| (slot.expires_ns, std::cmp::Reverse(slot.name));
    if key(left) >= key(right) { left } else { right }
}
