//! Prefixes to classes: an address's class is the set of rules that mean it.
//!
//! The prefixes are sorted so that a covering one comes right before what it covers, and walked with a stack. Each
//! prefix adds its own claims to what its covering prefix already has, so that the longest match is the whole answer.
//! What has been added to what is remembered: ten thousand prefixes of one rule make one set, not ten thousand.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};

use crate::tables::ClassId;

/// A rule names a prefix.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    pub(super) network: IpNetwork,
    /// The rule's order.
    pub(super) rule: u32,
    pub(super) kind: Kind,
}

/// How a rule names a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    /// `cidrs`
    Covered,
    /// `except`: the rule does not mean it, nor anything inside.
    Left,
}

/// The classes made so far: views share them.
pub(super) struct Classes(States);

impl Classes {
    pub(super) fn new() -> Self {
        Self(States::new())
    }

    /// The rules of each class, ascending; that of class 0 is empty.
    pub(super) fn sets(&self) -> &[Vec<u32>] {
        &self.0.sets
    }

    /// The prefixes of one view: sorted, each once; one whose class is that of its covering prefix is left out.
    pub(super) fn classify(&mut self, claims: Vec<Claim>) -> Vec<(IpNetwork, ClassId)> {
        prefixes(&mut self.0, claims)
    }
}

fn prefixes(states: &mut States, claims: Vec<Claim>) -> Vec<(IpNetwork, ClassId)> {
    let mut claims: Vec<(Block, u32, Kind)> =
        claims.into_iter().map(|claim| (Block::new(claim.network), claim.rule, claim.kind)).collect();
    claims.sort_unstable();
    claims.dedup();

    let mut prefixes = Vec::new();
    let mut covering: Vec<(Block, StateId)> = Vec::new();
    for own in claims.chunk_by(|left, right| left.0 == right.0) {
        let block = own[0].0;
        while covering.last().is_some_and(|(above, _)| !above.covers(block)) {
            covering.pop();
        }
        let above = covering.last().map_or(StateId::NONE, |(_, state)| *state);
        let state = states.add(above, own.iter().map(|(_, rule, kind)| (*rule, *kind)).collect());
        covering.push((block, state));
        if states.class(state) != states.class(above) {
            prefixes.push((block.network(), states.class(state)));
        }
    }
    prefixes
}

/// A prefix whose bits stand left-aligned, so that both families compare alike. A covering prefix sorts before all it
/// covers, and nothing else stands between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Block {
    family: Family,
    bits: u128,
    length: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Family {
    V4,
    V6,
}

impl Block {
    fn new(network: IpNetwork) -> Self {
        let length = network.prefix();
        let (family, bits) = match network {
            IpNetwork::V4(v4) => (Family::V4, u128::from(u32::from(v4.network())) << 96),
            IpNetwork::V6(v6) => (Family::V6, u128::from(v6.network())),
        };
        Self { family, bits, length }
    }

    fn covers(self, inner: Self) -> bool {
        let mask = !u128::MAX.checked_shr(u32::from(self.length)).unwrap_or(0);
        self.family == inner.family && self.length <= inner.length && (self.bits ^ inner.bits) & mask == 0
    }

    fn network(self) -> IpNetwork {
        match self.family {
            Family::V4 => {
                let address = Ipv4Addr::from((self.bits >> 96) as u32);
                IpNetwork::V4(
                    Ipv4Network::new_checked(address, self.length).unwrap_or_else(|| Ipv4Network::from(address)),
                )
            }
            Family::V6 => {
                let address = Ipv6Addr::from(self.bits);
                IpNetwork::V6(
                    Ipv6Network::new_checked(address, self.length).unwrap_or_else(|| Ipv6Network::from(address)),
                )
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct StateId(u32);

impl StateId {
    /// No rule has named it.
    const NONE: Self = Self(0);
}

/// What rules have said of an address, from the widest prefix down: rule to kind, ascending. A rule that once leaves
/// an address out leaves it out for good.
type State = Vec<(u32, Kind)>;

/// Every state and every set of rules once.
struct States {
    states: Vec<State>,
    known: HashMap<State, StateId>,
    added: HashMap<(StateId, State), StateId>,
    classes: Vec<ClassId>,
    sets: Vec<Vec<u32>>,
    known_sets: HashMap<Vec<u32>, ClassId>,
}

impl States {
    fn new() -> Self {
        Self {
            states: vec![State::new()],
            known: HashMap::from([(State::new(), StateId::NONE)]),
            added: HashMap::new(),
            classes: vec![ClassId::ANY],
            sets: vec![Vec::new()],
            known_sets: HashMap::from([(Vec::new(), ClassId::ANY)]),
        }
    }

    fn class(&self, state: StateId) -> ClassId {
        self.classes[state.0 as usize]
    }

    fn add(&mut self, above: StateId, own: State) -> StateId {
        let step = (above, own);
        if let Some(&known) = self.added.get(&step) {
            return known;
        }
        let mut state = self.states[above.0 as usize].clone();
        state.extend(&step.1);
        state.sort_unstable();
        state.dedup_by(|later, kept| {
            let same = later.0 == kept.0;
            if same {
                kept.1 = kept.1.max(later.1);
            }
            same
        });
        let id = match self.known.get(&state) {
            Some(&id) => id,
            None => self.insert(state),
        };
        self.added.insert(step, id);
        id
    }

    fn insert(&mut self, state: State) -> StateId {
        let set: Vec<u32> = state.iter().filter(|(_, kind)| *kind == Kind::Covered).map(|(rule, _)| *rule).collect();
        let next = ClassId(self.sets.len() as u32);
        let class = *self.known_sets.entry(set.clone()).or_insert(next);
        if class == next {
            self.sets.push(set);
        }
        let id = StateId(self.states.len() as u32);
        self.states.push(state.clone());
        self.classes.push(class);
        self.known.insert(state, id);
        id
    }
}
