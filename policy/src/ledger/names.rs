//! Names and their numbers. A number goes up with each new name and is used again only after it was released, which
//! takes that no address has it, and the word of the caller that no flow has.

use std::collections::{BTreeMap, BTreeSet};

use config::names::DnsName;

use crate::tables::NameId;

/// Every name with a number. Bounded by [`super::Limits::names`], which the ledger checks before it adds one.
#[derive(Clone, Debug, Default)]
pub(super) struct NameTable {
    by_text: BTreeMap<DnsName, NameId>,
    by_id: BTreeMap<NameId, Numbered>,
    idle: BTreeSet<NameId>,
    unwritten: BTreeSet<NameId>,
    last: u32,
}

#[derive(Clone, Debug)]
struct Numbered {
    text: DnsName,
    /// Pairs of workload and address that have it.
    references: usize,
}

impl NameTable {
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn has(&self, id: NameId) -> bool {
        self.by_id.contains_key(&id)
    }

    pub(super) fn id(&self, text: &DnsName) -> Option<NameId> {
        self.by_text.get(text).copied()
    }

    pub(super) fn text(&self, id: NameId) -> Option<&DnsName> {
        self.by_id.get(&id).map(|name| &name.text)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (NameId, &DnsName)> {
        self.by_id.iter().map(|(id, name)| (*id, &name.text))
    }

    pub(super) fn idle(&self) -> impl Iterator<Item = NameId> {
        self.idle.iter().copied()
    }

    /// The number of a name; a new one is idle until it is referred to.
    pub(super) fn number(&mut self, text: &DnsName) -> NameId {
        if let Some(id) = self.id(text) {
            return id;
        }
        let mut id = NameId(self.last.wrapping_add(1));
        while id.0 == 0 || self.has(id) {
            id = NameId(id.0.wrapping_add(1));
        }
        self.last = id.0;
        self.insert(id, text.clone());
        self.unwritten.insert(id);
        id
    }

    pub(super) fn refer(&mut self, id: NameId) {
        if let Some(name) = self.by_id.get_mut(&id) {
            name.references += 1;
            self.idle.remove(&id);
        }
    }

    pub(super) fn drop_reference(&mut self, id: NameId) {
        if let Some(name) = self.by_id.get_mut(&id) {
            name.references = name.references.saturating_sub(1);
            if name.references == 0 {
                self.idle.insert(id);
            }
        }
    }

    /// Forgets a name if nothing refers to it.
    pub(super) fn release(&mut self, id: NameId) -> bool {
        if !self.idle.remove(&id) {
            return false;
        }
        self.unwritten.remove(&id);
        if let Some(name) = self.by_id.remove(&id)
            && self.by_text.get(&name.text) == Some(&id)
        {
            self.by_text.remove(&name.text);
        }
        true
    }

    pub(super) fn unwritten(&mut self, id: NameId) {
        if self.has(id) {
            self.unwritten.insert(id);
        }
    }

    /// The text of a name that the kernel does not have yet; from now on it has.
    pub(super) fn take_unwritten(&mut self, id: NameId) -> Option<DnsName> {
        if self.unwritten.remove(&id) { self.text(id).cloned() } else { None }
    }

    fn insert(&mut self, id: NameId, text: DnsName) {
        self.by_text.entry(text.clone()).or_insert(id);
        self.by_id.insert(id, Numbered { text, references: 0 });
        self.idle.insert(id);
    }
}

impl FromIterator<(NameId, DnsName)> for NameTable {
    /// Names that the kernel has.
    fn from_iter<T: IntoIterator<Item = (NameId, DnsName)>>(names: T) -> Self {
        let mut table = Self::default();
        for (id, text) in names {
            table.last = table.last.max(id.0);
            table.insert(id, text);
        }
        table
    }
}
