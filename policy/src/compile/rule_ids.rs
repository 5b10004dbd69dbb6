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
