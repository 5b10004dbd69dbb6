//! Groups that come into a view as a whole, or leave it, portion by portion.

use std::collections::{BTreeMap, VecDeque};

use super::Compiled;
use super::block::Block;
use super::groups::GroupId;
use super::space::Claim;
use crate::tables::Step;

/// What no step has taken over so far.
#[derive(Clone, Debug)]
pub(super) struct Backlog {
    groups: VecDeque<Whole>,
    /// Prefixes in a portion.
    portion: usize,
}

#[derive(Clone, Debug)]
struct Whole {
    view: u32,
    group: GroupId,
    comes: bool,
    /// Ascending, which is the quickest for a trie.
    left: std::vec::IntoIter<Block>,
}

impl Backlog {
    pub(super) fn new(portion: usize) -> Self {
        Self { groups: VecDeque::new(), portion: portion.max(1) }
    }

    pub(super) fn push(&mut self, view: u32, group: GroupId, comes: bool, blocks: Vec<Block>) {
        self.groups.push_back(Whole { view, group, comes, left: blocks.into_iter() });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.groups.clear();
    }

    /// Moves a portion to the claims.
    pub(super) fn claim(&mut self, claims: &mut BTreeMap<u32, Vec<Claim>>) {
        let mut room = self.portion;
        while let Some(Whole { view, group, comes, left }) = self.groups.front_mut() {
            let (group, comes) = (*group, *comes);
            let portion = left.by_ref().take(room).map(|block| Claim { block, group, comes });
            let own = claims.entry(*view).or_default();
            let before = own.len();
            own.extend(portion);
            room -= own.len() - before;
            if left.len() > 0 {
                return;
            }
            self.groups.pop_front();
        }
    }
}

impl Compiled {
    /// What is left of this half of a change, as far as one portion goes: to be asked for, and written, until there is no
    /// more. Meanwhile the present policies answer as ever, and names may be learned; another change has to wait.
    pub fn more(&mut self) -> Option<Step> {
        (!self.backlog.is_empty()).then(|| self.step(Vec::new(), Default::default()))
    }

    /// All that is left, for nobody.
    pub(super) fn drain(&mut self) {
        while self.more().is_some() {}
    }
}
