//! Groups: what a rule's part names, under a number that is never used for anything else.
//!
//! | what is named | the group | how it changes |
//! |---|---|---|
//! | `cidrs`, `except`, an `ipBlock` | what has the same prefixes is the same group, whoever names it | never |
//! | workloads by selector | one for each view, namespace and list of selectors | with workloads that come and go |
//! | an AddressSet | one for each | with its prefixes |
//!
//! Where a change of resources changes what a selector or a set means, that is another group: the policies before the
//! change must not see it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use config::Prefixes;
use config::names::Name;
use config::resource::{ResourceKey, Selector};
use ipnetwork::IpNetwork;

use super::block::Block;
use super::residents::Place;

/// A group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct GroupId(u32);

/// Workloads that selectors of one rule mean.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Selected {
    pub(super) place: Place,
    /// The policy's.
    pub(super) namespace: Name,
    /// `namespaceSelector` and `podSelector` of each peer.
    pub(super) peers: Vec<(Option<Selector>, Option<Selector>)>,
}

/// The groups in use.
#[derive(Clone, Debug, Default)]
pub(super) struct Groups {
    next: u32,
    groups: BTreeMap<GroupId, Group>,
    fixed: HashMap<Arc<[Block]>, GroupId>,
    standing: Standing,
}

/// What groups with a changing content stand for at present.
#[derive(Clone, Debug, Default)]
pub(super) struct Standing {
    selected: BTreeMap<Selected, GroupId>,
    sets: BTreeMap<ResourceKey, GroupId>,
}

#[derive(Clone, Debug)]
struct Group {
    content: Content,
    /// Sources that name it.
    holders: usize,
}

/// A change of an address set's group.
pub(super) struct ChangedSet {
    pub(super) group: GroupId,
    pub(super) former: Prefixes,
    pub(super) added: Vec<Block>,
    pub(super) removed: Vec<Block>,
}

#[derive(Clone, Debug)]
enum Content {
    Fixed(Arc<[Block]>),
    Selected(Selected, BTreeSet<Block>),
    Set(ResourceKey, Prefixes),
}

impl Groups {
    /// The group of these prefixes.
    pub(super) fn fixed(&mut self, networks: &[IpNetwork]) -> GroupId {
        let mut blocks: Vec<Block> = networks.iter().copied().map(Block::new).collect();
        blocks.sort_unstable();
        blocks.dedup();
        let blocks: Arc<[Block]> = blocks.into();
        if let Some(known) = self.fixed.get(&blocks) {
            return *known;
        }
        let id = self.allot(Content::Fixed(Arc::clone(&blocks)));
        self.fixed.insert(blocks, id);
        id
    }

    /// The group of these workloads, with these addresses at present.
    pub(super) fn selected(&mut self, key: Selected, members: BTreeSet<Block>) -> GroupId {
        if let Some(known) = self.standing.selected.get(&key)
            && let Some(Group { content: Content::Selected(_, present), .. }) = self.groups.get(known)
            && *present == members
        {
            return *known;
        }
        let id = self.allot(Content::Selected(key.clone(), members));
        self.standing.selected.insert(key, id);
        id
    }

    /// The group of an address set with these prefixes.
    pub(super) fn set(&mut self, key: ResourceKey, prefixes: &Prefixes) -> GroupId {
        if let Some(known) = self.standing.sets.get(&key)
            && let Some(Group { content: Content::Set(_, present), .. }) = self.groups.get_mut(known)
            && present.difference(prefixes).is_empty()
        {
            // The next policy that names the set is compared with the very same list, which takes no time.
            *present = prefixes.clone();
            return *known;
        }
        let id = self.allot(Content::Set(key.clone(), prefixes.clone()));
        self.standing.sets.insert(key, id);
        id
    }

    /// An address set that a rule names has these prefixes now. Answers its group, its former prefixes, and what comes and
    /// what goes.
    pub(super) fn change_set(&mut self, key: &ResourceKey, next: &Prefixes) -> Option<ChangedSet> {
        let group = *self.standing.sets.get(key)?;
        let Some(Group { content: Content::Set(_, present), .. }) = self.groups.get_mut(&group) else { return None };
        let difference = present.difference(next);
        let former = std::mem::replace(present, next.clone());
        let blocks = |networks: Vec<IpNetwork>| networks.into_iter().map(Block::new).collect();
        Some(ChangedSet { group, former, added: blocks(difference.added), removed: blocks(difference.removed) })
    }

    /// The key of an address set's group.
    pub(super) fn set_key(&self, group: GroupId) -> Option<ResourceKey> {
        match &self.groups.get(&group)?.content {
            Content::Set(key, _) => Some(key.clone()),
            Content::Fixed(_) | Content::Selected(..) => None,
        }
    }

    /// Every group of workloads in its present state.
    pub(super) fn all_selected(&self) -> impl Iterator<Item = (&Selected, GroupId)> {
        self.standing.selected.iter().map(|(key, id)| (key, *id))
    }

    /// The addresses of a workload that the selectors mean come or go; answers those that are news.
    pub(super) fn members(&mut self, id: GroupId, blocks: &[Block], come: bool) -> Vec<Block> {
        let Some(Group { content: Content::Selected(_, members), .. }) = self.groups.get_mut(&id) else {
            return Vec::new();
        };
        let news = |block: &Block| if come { members.insert(*block) } else { members.remove(block) };
        blocks.iter().copied().filter(news).collect()
    }

    /// Its prefixes, ascending.
    pub(super) fn blocks(&self, id: GroupId) -> Vec<Block> {
        match self.groups.get(&id).map(|group| &group.content) {
            Some(Content::Fixed(blocks)) => blocks.to_vec(),
            Some(Content::Selected(_, blocks)) => blocks.iter().copied().collect(),
            Some(Content::Set(_, prefixes)) => prefixes.iter().map(Block::new).collect(),
            None => Vec::new(),
        }
    }

    /// A source names it.
    pub(super) fn hold(&mut self, id: GroupId) {
        if let Some(group) = self.groups.get_mut(&id) {
            group.holders += 1;
        }
    }

    /// A source that named it is gone, and with the last of them the group.
    pub(super) fn release(&mut self, id: GroupId) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        group.holders = group.holders.saturating_sub(1);
        if group.holders > 0 {
            return;
        }
        match self.groups.remove(&id).map(|group| group.content) {
            Some(Content::Fixed(blocks)) => drop(self.fixed.remove(&blocks)),
            Some(Content::Selected(key, _)) if self.standing.selected.get(&key) == Some(&id) => {
                self.standing.selected.remove(&key);
            }
            Some(Content::Set(key, _)) if self.standing.sets.get(&key) == Some(&id) => {
                self.standing.sets.remove(&key);
            }
            Some(Content::Selected(..) | Content::Set(..)) | None => {}
        }
    }

    /// What selectors and sets stand for, so that [`Self::stand_for`] brings it back.
    pub(super) fn standing(&self) -> Standing {
        self.standing.clone()
    }

    /// Brings back what selectors and sets stood for.
    pub(super) fn stand_for(&mut self, former: Standing) {
        self.standing = former;
    }

    fn allot(&mut self, content: Content) -> GroupId {
        let id = GroupId(self.next);
        self.next += 1;
        self.groups.insert(id, Group { content, holders: 0 });
        id
    }
}
