//! One view's prefixes, kept between changes: what each is in itself, and its class with all that covers it.
//!
//! A change recomputes the prefixes that it names and what they cover, and nothing else. What has changed is written to
//! the kernel one prefix after the other, in the order of [`Writes::ordered`]: first what comes or has another class, from
//! the most specific to the least, then what goes, from the least specific to the most. So every address has its old or
//! its new class after each write. While the first half is written, the longest match of an address is either written
//! already, and then all that is longer is too, so that it is the new answer; or it is not, and all old prefixes are still
//! there, so that it is the old one. In the second half every new prefix is there, and of the old ones the longest of an
//! address goes last.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use super::block::Block;
use super::classes::{Classes, OwnId};
use super::groups::GroupId;
use crate::tables::{ClassId, PrefixWrite};

/// A prefix comes into a group, or leaves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Claim {
    pub(super) block: Block,
    pub(super) group: GroupId,
    pub(super) comes: bool,
}

/// Where claims are more than one in so many prefixes, all these are walked; elsewhere each claim is looked for.
const DENSE: usize = 8;

/// The prefixes of one view.
#[derive(Clone, Debug)]
pub(super) struct Space {
    nodes: BTreeMap<Block, Node>,
    /// How many there are of each length, so that covering prefixes are looked for only where there are some.
    lengths: [[u32; Block::LENGTHS]; Block::FAMILIES],
}

#[derive(Clone, Copy, Debug)]
struct Node {
    own: OwnId,
    class: ClassId,
}

/// A prefix with another class than before; `None` is not there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Changed {
    block: Block,
    after: Option<ClassId>,
}

impl Space {
    pub(super) fn new() -> Self {
        Self { nodes: BTreeMap::new(), lengths: [[0; Block::LENGTHS]; Block::FAMILIES] }
    }

    /// Every prefix with its class, covering ones first.
    pub(super) fn prefixes(&self) -> impl Iterator<Item = (Block, ClassId)> {
        self.nodes.iter().map(|(block, node)| (*block, node.class))
    }

    /// How many there are of each family.
    pub(super) fn held(&self) -> [usize; Block::FAMILIES] {
        self.lengths.map(|own| own.iter().map(|count| *count as usize).sum())
    }

    /// Takes these claims over; answers what has another class now.
    pub(super) fn change(&mut self, classes: &mut Classes, mut claims: Vec<Claim>) -> Vec<Changed> {
        claims.sort_unstable();
        claims.dedup();
        if claims.len() > self.nodes.len() / DENSE {
            return self.change_much(classes, &claims);
        }
        let mut changed = Vec::new();
        if let Some(range) = self.dense_range(&claims) {
            self.change_range(classes, range, &claims, &mut changed);
            return changed;
        }
        let mut rest = claims.as_slice();
        while let Some(first) = rest.first() {
            let top = first.block;
            let below = rest.partition_point(|claim| top.covers(claim.block));
            let (own, behind) = rest.split_at(below);
            rest = behind;
            let from = changed.len();
            self.change_range(classes, top..=top.end(), own, &mut changed);
            debug_assert!(changed[from..].iter().all(|own| top.covers(own.block)), "only what the top covers");
        }
        changed
    }

    /// From the first of many claims to the end of the last, if not much more than these lies there.
    fn dense_range(&self, claims: &[Claim]) -> Option<RangeInclusive<Block>> {
        let first = claims.first().filter(|_| claims.len() > DENSE)?.block;
        let range = first..=claims.iter().map(|claim| claim.block.end()).max()?;
        let most = claims.len() * DENSE;
        (self.nodes.range(range.clone()).take(most + 1).count() <= most).then_some(range)
    }

    /// The claims all lie in the range, with all that they cover.
    fn change_range(
        &mut self,
        classes: &mut Classes,
        range: RangeInclusive<Block>,
        claims: &[Claim],
        changed: &mut Vec<Changed>,
    ) {
        let outer = self.around(*range.start());
        let there: Vec<(Block, Node)> = self.nodes.range(range).map(|(block, node)| (*block, *node)).collect();
        for (block, before, after) in walk(classes, &there, claims, outer, changed) {
            self.put(block, before, after);
        }
    }

    /// The same, walking all there is once.
    fn change_much(&mut self, classes: &mut Classes, claims: &[Claim]) -> Vec<Changed> {
        let there: Vec<(Block, Node)> = std::mem::take(&mut self.nodes).into_iter().collect();
        let mut changed = Vec::with_capacity(claims.len());
        let lengths = &mut self.lengths;
        let all = walk(classes, &there, claims, Vec::new(), &mut changed);
        let count = |lengths: &mut [[u32; Block::LENGTHS]; Block::FAMILIES], block: Block, before, after| {
            count(lengths, block, before, after);
            after
        };
        self.nodes = all
            .into_iter()
            .filter_map(|(block, before, after)| Some((block, count(lengths, block, before, after)?)))
            .collect();
        changed
    }

    fn put(&mut self, block: Block, before: Option<Node>, after: Option<Node>) {
        match count(&mut self.lengths, block, before, after) {
            Some(node) => drop(self.nodes.insert(block, node)),
            None => drop(self.nodes.remove(&block)),
        }
    }

    /// The class of an address; `None` where no prefix has it.
    pub(super) fn class_of(&self, address: IpAddr) -> Option<ClassId> {
        let own = Block::of(address);
        self.nodes.get(&own).map(|node| node.class).or_else(|| self.around(own).last().map(|(_, class)| *class))
    }

    /// The prefixes that cover this one, with their classes, the widest first.
    fn around(&self, block: Block) -> Vec<(Block, ClassId)> {
        let counts = &self.lengths[block.family()];
        let lengths = (0..block.length()).filter(|length| counts[usize::from(*length)] > 0);
        let outer = lengths.map(|length| block.above(length));
        outer.filter_map(|outer| Some((outer, self.nodes.get(&outer)?.class))).collect()
    }
}

/// Takes a node's coming or going into account; hands on what is there after.
fn count(
    lengths: &mut [[u32; Block::LENGTHS]; Block::FAMILIES],
    block: Block,
    before: Option<Node>,
    after: Option<Node>,
) -> Option<Node> {
    let length = &mut lengths[block.family()][usize::from(block.length())];
    match (before.is_some(), after.is_some()) {
        (false, true) => *length += 1,
        (true, false) => *length -= 1,
        (true, true) | (false, false) => {}
    }
    after
}

/// What was there and what is, block by block.
type Step = (Block, Option<Node>, Option<Node>);

/// Merges what is there with the claims, both sorted, under what covers the first of them.
fn walk(
    classes: &mut Classes,
    there: &[(Block, Node)],
    claims: &[Claim],
    mut covering: Vec<(Block, ClassId)>,
    changed: &mut Vec<Changed>,
) -> Vec<Step> {
    let mut steps = Vec::with_capacity(there.len() + claims.len());
    let mut groups = Vec::new();
    let (mut there, mut claims) = (there.iter().copied().peekable(), claims);
    while let Some(block) =
        [there.peek().map(|(block, _)| *block), claims.first().map(|claim| claim.block)].into_iter().flatten().min()
    {
        let before = there.next_if(|(own, _)| *own == block).map(|(_, node)| node);
        let (own, behind) = claims.split_at(claims.iter().take_while(|claim| claim.block == block).count());
        claims = behind;
        let former = before.map(|node| node.own);
        groups.clear();
        groups.extend(own.iter().map(|claim| (claim.group, claim.comes)));
        let own = classes.own(former, &groups);
        while covering.last().is_some_and(|(outer, _)| !outer.covers(block)) {
            covering.pop();
        }
        let outer = covering.last().map_or(ClassId::ANY, |(_, class)| *class);
        let after = own.map(|own| Node { own, class: classes.sum(outer, own) });
        let (was, is) = (before.map(|node| node.class), after.map(|node| node.class));
        if let Some(class) = is {
            covering.push((block, class));
        }
        if former != own {
            classes.owned(former, own);
        }
        if was != is {
            classes.moved(was, is);
            changed.push(Changed { block, after: is });
        }
        steps.push((block, before, after));
    }
    steps
}

/// What the kernel's tries are to be told.
#[derive(Debug, Default)]
pub(super) struct Writes(Vec<(u32, Changed)>);

impl Writes {
    pub(super) fn add(&mut self, view: u32, changed: Vec<Changed>) {
        self.0.extend(changed.into_iter().map(|changed| (view, changed)));
    }

    /// In the order in which no address has a class that is neither its old nor its new one.
    pub(super) fn ordered(self) -> Vec<PrefixWrite> {
        let mut all = self.0;
        let place = |changed: &Changed| match changed.after {
            Some(_) => Block::LENGTHS - 1 - usize::from(changed.block.length()),
            None => Block::LENGTHS + usize::from(changed.block.length()),
        };
        // Within a length the order is that of the addresses, which is the quickest for a trie.
        all.sort_by_key(|(_, changed)| place(changed));
        let write = |(view, changed): (u32, Changed)| PrefixWrite {
            view,
            network: changed.block.network(),
            class: changed.after,
        };
        all.into_iter().map(write).collect()
    }
}
