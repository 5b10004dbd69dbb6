//! Rules to numbers that survive recompiling and restarts: flows and events keep them.

use std::collections::BTreeSet;

use crate::tables::{RuleId, RuleName};

/// A number for each name, in the same order. It is the hash of the name; a rule whose hash is taken, or is the
/// default's 0, is hashed again with a count behind it. The names come in their own order, so that the same set of
/// rules always gets the same numbers.
pub(super) fn number<'a>(names: impl Iterator<Item = &'a RuleName>) -> Vec<RuleId> {
    let mut taken = BTreeSet::from([RuleId::DEFAULT]);
    names
        .map(|name| {
            let text = name.to_string();
            let mut id = RuleId(hash(text.as_bytes()));
            let mut count = 0u32;
            while !taken.insert(id) {
                count += 1;
                id = RuleId(hash(format!("{text}#{count}").as_bytes()));
            }
            id
        })
        .collect()
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
        let ids = number(names.iter());
        let different: BTreeSet<RuleId> = ids.iter().copied().collect();
        assert_eq!((different.len(), different.contains(&RuleId::DEFAULT)), (names.len(), false));
        assert_eq!(number(names.iter()), ids);
        let alone = names.iter().map(|name| number(std::iter::once(name))[0]);
        let moved = alone.zip(ids).filter(|(alone, among)| alone != among).count();
        assert!((1..100).contains(&moved), "{moved} hashes met another: their rules alone have other numbers");
    }
}
