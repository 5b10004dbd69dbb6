//! Classes: each set of groups that some address is in, under a number that is never used for another set.
//!
//! What has been added to what is remembered: a million prefixes of one group make one set, not a million. A class dies
//! with its last entry, and its number with it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::groups::GroupId;
use crate::tables::ClassId;

/// Groups, ascending.
pub(super) type Set = Arc<[GroupId]>;

/// What a prefix itself is in, apart from what covers it. Never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct OwnId(u32);

/// The classes of all views.
#[derive(Clone, Debug)]
pub(super) struct Classes {
    by_set: HashMap<Set, ClassId>,
    classes: HashMap<ClassId, Class>,
    of_group: HashMap<GroupId, BTreeSet<ClassId>>,
    next: ClassId,
    owns: Owns,
    sums: HashMap<(ClassId, OwnId), ClassId>,
    last_sum: Option<((ClassId, OwnId), ClassId)>,
    /// Made, or without entries now, and not settled yet.
    unsettled: BTreeSet<ClassId>,
}

#[derive(Clone, Debug)]
struct Class {
    set: Set,
    /// Prefixes of this class, in all views.
    entries: usize,
    /// Its lines are made.
    lined: bool,
}

/// Names' classes begin here, so that they are no address's.
pub(super) const FIRST_OF_NAMES: ClassId = ClassId(1 << 31);

/// Sums remembered beyond four for each class.
const SUMS: usize = 1 << 16;

impl Classes {
    pub(super) fn new() -> Self {
        Self {
            by_set: HashMap::new(),
            classes: HashMap::new(),
            of_group: HashMap::new(),
            next: ClassId(1),
            owns: Owns::default(),
            sums: HashMap::new(),
            last_sum: None,
            unsettled: BTreeSet::new(),
        }
    }

    /// The groups of a class; none of [`ClassId::ANY`].
    pub(super) fn set(&self, class: ClassId) -> &[GroupId] {
        self.classes.get(&class).map_or(&[], |class| &class.set)
    }

    /// The classes whose lines are made, that lie in a group.
    pub(super) fn within(&self, group: GroupId) -> impl Iterator<Item = ClassId> {
        let all = self.of_group.get(&group).into_iter().flatten().copied();
        all.filter(|class| self.classes.get(class).is_some_and(|class| class.lined))
    }

    /// The class of a prefix that is in `own`, under one of the class `above`.
    pub(super) fn sum(&mut self, above: ClassId, own: OwnId) -> ClassId {
        let step = (above, own);
        if let Some((_, sum)) = self.last_sum.filter(|(last, sum)| *last == step && self.classes.contains_key(sum)) {
            return sum;
        }
        let known = self.sums.get(&step).copied().filter(|sum| self.classes.contains_key(sum));
        let sum = known.unwrap_or_else(|| {
            let mut set = self.set(above).to_vec();
            set.extend_from_slice(self.owns.set(own));
            set.sort_unstable();
            set.dedup();
            let sum = self.intern(set.into());
            if self.sums.len() > SUMS + 4 * self.classes.len() {
                self.sums.clear();
            }
            self.sums.insert(step, sum);
            sum
        });
        self.last_sum = Some((step, sum));
        sum
    }

    /// What a prefix itself is in, after it came into groups (`true`) or left them; `None` is nothing any more.
    pub(super) fn own(&mut self, before: Option<OwnId>, steps: &[(GroupId, bool)]) -> Option<OwnId> {
        self.owns.after(before, steps)
    }

    /// A prefix has another class.
    pub(super) fn moved(&mut self, before: Option<ClassId>, after: Option<ClassId>) {
        if let Some(class) = after.and_then(|id| self.classes.get_mut(&id)) {
            class.entries += 1;
        }
        let Some((id, class)) = before.and_then(|id| Some((id, self.classes.get_mut(&id)?))) else { return };
        class.entries -= 1;
        if class.entries == 0 {
            self.unsettled.insert(id);
        }
    }

    /// A prefix is itself in other groups.
    pub(super) fn owned(&mut self, before: Option<OwnId>, after: Option<OwnId>) {
        self.owns.moved(before, after);
    }

    /// The classes that need lines now, and those that died with their lines.
    pub(super) fn settle(&mut self) -> (Vec<ClassId>, Vec<(ClassId, Set)>) {
        let (mut fresh, mut dead) = (Vec::new(), Vec::new());
        for id in std::mem::take(&mut self.unsettled) {
            let Some(class) = self.classes.get_mut(&id) else { continue };
            if class.entries > 0 {
                if !std::mem::replace(&mut class.lined, true) {
                    fresh.push(id);
                }
                continue;
            }
            let Some(class) = self.classes.remove(&id) else { continue };
            self.by_set.remove(&class.set);
            for group in class.set.iter() {
                if let Some(classes) = self.of_group.get_mut(group) {
                    classes.remove(&id);
                    if classes.is_empty() {
                        self.of_group.remove(group);
                    }
                }
            }
            if class.lined {
                dead.push((id, class.set));
            }
        }
        (fresh, dead)
    }

    fn intern(&mut self, set: Set) -> ClassId {
        if let Some(known) = self.by_set.get(&set) {
            return *known;
        }
        let id = self.next;
        self.next = ClassId(id.0 + 1);
        for group in set.iter() {
            self.of_group.entry(*group).or_default().insert(id);
        }
        self.by_set.insert(Arc::clone(&set), id);
        self.classes.insert(id, Class { set, entries: 0, lined: false });
        self.unsettled.insert(id);
        id
    }
}

/// What prefixes themselves are in, each set once.
#[derive(Clone, Debug, Default)]
struct Owns {
    by_set: HashMap<Set, OwnId>,
    owns: HashMap<OwnId, (Set, usize)>,
    next: u32,
    last_step: Option<(OneStep, Option<OwnId>)>,
}

/// A prefix that was in these groups comes into another, or leaves one.
type OneStep = (Option<OwnId>, (GroupId, bool));

impl Owns {
    fn set(&self, own: OwnId) -> &[GroupId] {
        self.owns.get(&own).map_or(&[], |(set, _)| set)
    }

    fn after(&mut self, before: Option<OwnId>, steps: &[(GroupId, bool)]) -> Option<OwnId> {
        let only = match steps {
            [] => return before,
            [one] => Some((before, *one)),
            _ => None,
        };
        let alive = |own: Option<OwnId>| own.is_none_or(|own| self.owns.contains_key(&own));
        if let Some((_, after)) = self.last_step.filter(|(last, after)| Some(*last) == only && alive(*after)) {
            return after;
        }
        let mut set = before.map_or(&[][..], |own| self.set(own)).to_vec();
        for (group, comes) in steps {
            match (set.binary_search(group), comes) {
                (Err(place), true) => set.insert(place, *group),
                (Ok(place), false) => drop(set.remove(place)),
                (Ok(_), true) | (Err(_), false) => {}
            }
        }
        let after = (!set.is_empty()).then(|| self.intern(set.into()));
        self.last_step = only.map(|step| (step, after));
        after
    }

    fn intern(&mut self, set: Set) -> OwnId {
        if let Some(known) = self.by_set.get(&set) {
            return *known;
        }
        let id = OwnId(self.next);
        self.next += 1;
        self.by_set.insert(Arc::clone(&set), id);
        self.owns.insert(id, (set, 0));
        id
    }

    fn moved(&mut self, before: Option<OwnId>, after: Option<OwnId>) {
        if let Some((_, prefixes)) = after.and_then(|id| self.owns.get_mut(&id)) {
            *prefixes += 1;
        }
        let Some(id) = before else { return };
        let Some((_, prefixes)) = self.owns.get_mut(&id) else { return };
        *prefixes -= 1;
        if *prefixes == 0
            && let Some((set, _)) = self.owns.remove(&id)
        {
            self.by_set.remove(&set);
        }
    }
}
