//! Rules to numbers that survive recompiling and restarts: flows and events keep them.

use std::collections::{BTreeMap, BTreeSet};

use crate::tables::{RuleId, RuleName};

/// The numbers of rules in use. A number is the hash of the name; where another rule has it, or it is the default's 0, the
/// name is hashed again with a count behind it.
#[derive(Clone, Debug, Default)]
pub(super) struct RuleIds {
    ids: BTreeMap<RuleName, RuleId>,
    names: BTreeMap<RuleId, RuleName>,
}

impl RuleIds {
    /// The rule's number, the same as long as it is known.
    pub(super) fn number(&mut self, name: &RuleName) -> RuleId {
        if let Some(known) = self.ids.get(name) {
            return *known;
        }
        let text = name.to_string();
        let mut id = RuleId(hash(text.as_bytes()));
        let mut count = 0u32;
        while id == RuleId::DEFAULT || self.names.contains_key(&id) {
            count += 1;
            id = RuleId(hash(format!("{text}#{count}").as_bytes()));
        }
        self.ids.insert(name.clone(), id);
        self.names.insert(id, name.clone());
        id
    }

    /// The name of a known rule.
    pub(super) fn name(&self, id: RuleId) -> Option<&RuleName> {
        self.names.get(&id)
    }

    /// Every known rule.
    pub(super) fn names(&self) -> &BTreeMap<RuleId, RuleName> {
        &self.names
    }

    /// Forgets every rule but these.
    pub(super) fn retain(&mut self, used: &BTreeSet<RuleId>) {
        self.names.retain(|id, _| used.contains(id));
        self.ids.retain(|_, id| used.contains(id));
    }
}

/// FNV-1a with 64 bits, folded to 32 as its authors advise.
fn hash(bytes: &[u8]) -> u32 {
    let full = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325u64, |state, byte| (state ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    (full >> 32) as u32 ^ full as u32
}

#[cfg(test)]
mod tests {
    use config::resource::Kind;

    use super::*;
    use crate::tables::RuleList;

    fn name(index: u32) -> RuleName {
        let namespace = Some(format!("n{}", index % 97));
        RuleName {
            kind: Kind::EgressPolicy,
            namespace,
            policy: format!("p{}", index / 97),
            list: RuleList::Allow,
            index,
        }
    }

    #[test]
    fn numbers_are_stable_and_different() {
        let names: BTreeSet<RuleName> = (0..200_000).map(name).collect();
        let number = |ids: &mut RuleIds| names.iter().map(|name| ids.number(name)).collect::<Vec<_>>();
        let mut known = RuleIds::default();
        let ids = number(&mut known);
        let different: BTreeSet<RuleId> = ids.iter().copied().collect();
        assert_eq!((different.len(), different.contains(&RuleId::DEFAULT)), (names.len(), false));
        assert_eq!(number(&mut known), ids);
        assert_eq!(number(&mut RuleIds::default()), ids);
        let alone = names.iter().map(|name| RuleIds::default().number(name));
        let moved = alone.zip(ids).filter(|(alone, among)| alone != among).count();
        assert!((1..100).contains(&moved), "{moved} hashes met another: their rules alone have other numbers");
    }
}
