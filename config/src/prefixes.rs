//! A set of prefixes, of any length up to millions: cheap to copy, cheap to change in one place, and cheap to compare
//! with what it was before.
//!
//! It is a sorted list in pieces. A change copies the pieces that it touches and the list of pieces; all others are
//! shared, so that a difference skips them. Prefixes are ordered by family, address and length: one that covers others
//! comes right before them, and nothing else stands between.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;

/// Most prefixes in a piece. Half of them are there after a piece was cut in two. A change walks one piece, and counts one
/// reference more of each: of a million prefixes about a thousand of either.
const PIECE: usize = 2048;

/// Prefixes, each once, host bits zero. Sets are equal when their prefixes are.
#[derive(Clone, Default)]
pub struct Prefixes {
    /// Never empty ones.
    pieces: Arc<Vec<Arc<[IpNetwork]>>>,
    len: usize,
}

/// What makes one set of another; both lists are sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// In the other set only.
    pub added: Vec<IpNetwork>,
    /// In the first set only.
    pub removed: Vec<IpNetwork>,
}

impl Difference {
    /// Whether the sets are equal.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty()
    }
}

impl Prefixes {
    /// No prefix.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many prefixes.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether this very prefix is one of the set.
    pub fn contains(&self, prefix: &IpNetwork) -> bool {
        self.piece_of(prefix).is_some_and(|piece| piece.binary_search(prefix).is_ok())
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = IpNetwork> + '_ {
        self.pieces.iter().flat_map(|piece| piece.iter()).copied()
    }

    /// Those that lie in the prefix, itself included, in order.
    pub fn within(&self, prefix: IpNetwork) -> impl Iterator<Item = IpNetwork> + '_ {
        let pieces = &self.pieces[self.place_of(&prefix)..];
        let before = pieces.first().map_or(0, |piece| piece.partition_point(|own| *own < prefix));
        let rest = pieces.iter().flat_map(|piece| piece.iter()).copied();
        rest.skip(before).take_while(move |own| prefix.contains(own.network()))
    }

    /// The narrowest prefix around the address.
    pub fn around(&self, address: IpAddr) -> Option<IpNetwork> {
        let full = if address.is_ipv4() { 32 } else { 128 };
        (0..=full).rev().find_map(|length| {
            let block = IpNetwork::new(IpNetwork::new(address, length).ok()?.network(), length).ok()?;
            self.contains(&block).then_some(block)
        })
    }

    /// The same set with and without these; what is in both lists is taken out.
    #[must_use]
    pub fn changed(&self, added: &[IpNetwork], removed: &[IpNetwork]) -> Self {
        let removed: BTreeSet<IpNetwork> = removed.iter().copied().collect();
        let added: BTreeSet<IpNetwork> = added.iter().copied().filter(|prefix| !removed.contains(prefix)).collect();
        let (mut added, mut removed) = (added.into_iter().peekable(), removed.into_iter().peekable());
        let mut pieces = Vec::with_capacity(self.pieces.len() + 1);
        let mut done = 0;
        while let Some(first) = added.peek().into_iter().chain(removed.peek()).min() {
            // What belongs behind the last of one piece and before the next one goes into the next one; behind all, into the last.
            let index = self.place_of(first).min(self.pieces.len().saturating_sub(1));
            let Some(piece) = self.pieces.get(index) else { break };
            pieces.extend_from_slice(&self.pieces[done..index]);
            done = index + 1;
            let last = (done < self.pieces.len()).then(|| piece.last().copied()).flatten();
            let here = |prefix: &IpNetwork| last.is_none_or(|last| *prefix <= last);
            let more: Vec<IpNetwork> = std::iter::from_fn(|| added.next_if(here)).collect();
            let less: BTreeSet<IpNetwork> = std::iter::from_fn(|| removed.next_if(here)).collect();
            let mut own: Vec<IpNetwork> = piece.iter().copied().filter(|own| !less.contains(own)).chain(more).collect();
            own.sort(); // two sorted lists, one behind the other: it merges them
            own.dedup();
            cut(&own, &mut pieces);
        }
        pieces.extend_from_slice(&self.pieces[done..]);
        cut(&added.collect::<Vec<_>>(), &mut pieces);
        Self::of(pieces)
    }

    /// What makes `next` of this set. Where `next` came of this set by a few changes, the time is that of these.
    pub fn difference(&self, next: &Self) -> Difference {
        let mut found = Difference::default();
        if Arc::ptr_eq(&self.pieces, &next.pieces) {
            return found;
        }
        let (mut old, mut new) = (Place::new(&self.pieces), Place::new(&next.pieces));
        loop {
            if let (Some(one), Some(other)) = (old.whole_piece(), new.whole_piece())
                && Arc::ptr_eq(one, other)
            {
                old.skip_piece();
                new.skip_piece();
                continue;
            }
            let order = match (old.here(), new.here()) {
                (None, None) => return found,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(one), Some(other)) => one.cmp(&other),
            };
            if order != Ordering::Greater {
                let own = old.step();
                found.removed.extend(own.filter(|_| order == Ordering::Less));
            }
            if order != Ordering::Less {
                let own = new.step();
                found.added.extend(own.filter(|_| order == Ordering::Greater));
            }
        }
    }

    fn piece_of(&self, prefix: &IpNetwork) -> Option<&Arc<[IpNetwork]>> {
        self.pieces.get(self.place_of(prefix))
    }

    /// The number of the first piece that does not end before the prefix.
    fn place_of(&self, prefix: &IpNetwork) -> usize {
        self.pieces.partition_point(|piece| piece.last().is_some_and(|last| last < prefix))
    }

    fn of(pieces: Vec<Arc<[IpNetwork]>>) -> Self {
        let len = pieces.iter().map(|piece| piece.len()).sum();
        Self { pieces: Arc::new(pieces), len }
    }
}

/// Pieces of a sorted list, none longer than [`PIECE`].
fn cut(sorted: &[IpNetwork], into: &mut Vec<Arc<[IpNetwork]>>) {
    if sorted.len() <= PIECE {
        into.extend((!sorted.is_empty()).then(|| Arc::from(sorted)));
    } else {
        into.extend(sorted.chunks(PIECE / 2 + 1).map(Arc::from));
    }
}

/// Where a walk over the pieces stands.
struct Place<'a> {
    pieces: &'a [Arc<[IpNetwork]>],
    within: usize,
}

impl<'a> Place<'a> {
    fn new(pieces: &'a [Arc<[IpNetwork]>]) -> Self {
        Self { pieces, within: 0 }
    }

    fn here(&self) -> Option<IpNetwork> {
        self.pieces.first().map(|piece| piece[self.within])
    }

    /// The next prefix, which is stepped over.
    fn step(&mut self) -> Option<IpNetwork> {
        let here = self.here()?;
        self.within += 1;
        if self.within == self.pieces[0].len() {
            self.skip_piece();
        }
        Some(here)
    }

    /// The piece at whose first prefix the walk stands.
    fn whole_piece(&self) -> Option<&'a Arc<[IpNetwork]>> {
        self.pieces.first().filter(|_| self.within == 0)
    }

    fn skip_piece(&mut self) {
        (self.pieces, self.within) = (&self.pieces[1..], 0);
    }
}

impl FromIterator<IpNetwork> for Prefixes {
    fn from_iter<I: IntoIterator<Item = IpNetwork>>(prefixes: I) -> Self {
        let mut sorted: Vec<IpNetwork> = prefixes.into_iter().collect();
        sorted.sort_unstable();
        sorted.dedup();
        let mut pieces = Vec::new();
        cut(&sorted, &mut pieces);
        Self::of(pieces)
    }
}

impl PartialEq for Prefixes {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && (Arc::ptr_eq(&self.pieces, &other.pieces) || self.iter().eq(other.iter()))
    }
}

impl Eq for Prefixes {}

/// The number of prefixes, and the first few: a million would fill the log.
impl fmt::Debug for Prefixes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 20;
        write!(f, "{} prefixes ", self.len)?;
        f.debug_list().entries(self.iter().take(SHOWN).map(|prefix| prefix.to_string())).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(index: u32) -> IpNetwork {
        IpNetwork::new(IpAddr::from((0x0a00_0000 + index * 7).to_be_bytes()), 32).unwrap()
    }

    fn shared(one: &Prefixes, other: &Prefixes) -> usize {
        let same = |piece: &&Arc<[IpNetwork]>| other.pieces.iter().any(|own| Arc::ptr_eq(own, piece));
        one.pieces.iter().filter(same).count()
    }

    #[test]
    fn changes_are_those_of_a_tree_and_share_what_they_do_not_touch() {
        let mut model: BTreeSet<IpNetwork> = (0..20_000).map(v4).collect();
        let mut own: Prefixes = model.iter().copied().collect();
        let pieces = own.pieces.len();
        let mut state = 1u64;
        for round in 0..200 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (one, other) = (v4((state >> 33) as u32 % 40_000), v4((state >> 17) as u32 % 40_000));
            let before = own.clone();
            let was = model.clone();
            own = own.changed(&[one], &[other]);
            if one != other {
                model.insert(one);
            }
            model.remove(&other);
            let found = before.difference(&own);
            assert_eq!(found.added, model.difference(&was).copied().collect::<Vec<_>>(), "round {round}");
            assert_eq!(found.removed, was.difference(&model).copied().collect::<Vec<_>>(), "round {round}");
            assert!(shared(&before, &own) + 2 >= before.pieces.len(), "a change touches two pieces at most");
        }
        assert!(own.iter().eq(model.iter().copied()));
        assert_eq!(own.len(), model.len());
        assert!(own.pieces.len() < 4 * pieces, "{} pieces of {pieces}", own.pieces.len());
        assert!(own.pieces.iter().all(|piece| (1..=PIECE).contains(&piece.len())));
        let apart: Prefixes = model.iter().copied().collect();
        assert_eq!((own == apart, own.difference(&apart)), (true, Difference::default()));
    }

    #[test]
    fn everything_can_go_and_come_at_once() {
        let all: Vec<IpNetwork> = (0..5_000).map(v4).collect();
        let full: Prefixes = all.iter().copied().collect();
        let none = full.changed(&[], &all);
        assert!(none.is_empty() && none.pieces.is_empty());
        let again = none.changed(&all, &[]);
        assert_eq!(again, full);
        assert_eq!(none.difference(&full).added, all);
        assert_eq!(full.difference(&none).removed, all);
        assert_eq!(full.changed(&all[..10], &all[..10]).len(), 4_990, "what is in both lists is taken out");
    }

    #[test]
    fn the_narrowest_prefix_is_found_and_all_that_lie_in_one() {
        let texts = ["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.0.0/24", "10.1.2.3/32", "::/0", "fd00::/8"];
        let own: Prefixes = texts.iter().map(|text| text.parse::<IpNetwork>().unwrap()).collect();
        for (address, found) in [
            ("10.1.2.3", Some("10.1.2.3/32")),
            ("10.1.2.4", Some("10.1.0.0/16")),
            ("10.2.0.0", Some("10.0.0.0/8")),
            ("192.0.2.1", Some("0.0.0.0/0")),
            ("fd00::1", Some("fd00::/8")),
            ("2001:db8::1", Some("::/0")),
        ] {
            assert_eq!(own.around(address.parse().unwrap()), found.map(|text| text.parse().unwrap()), "{address}");
        }
        assert_eq!(Prefixes::new().around("10.0.0.1".parse().unwrap()), None);
        let within: Vec<String> = own.within("10.1.0.0/16".parse().unwrap()).map(|it| it.to_string()).collect();
        assert_eq!(within, ["10.1.0.0/16", "10.1.0.0/24", "10.1.2.3/32"]);
        assert_eq!(own.within("11.0.0.0/8".parse().unwrap()).count(), 0);
    }
}
