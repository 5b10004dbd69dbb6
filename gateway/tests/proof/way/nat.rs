//! Source NAT as the documents tell it: a list of mappings, each of one flow, with a clock that is an argument. Which port
//! a new flow gets is the program's choice; here it is held against what a port may be.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use policy::reason::Reason;

use crate::flows::{CLOSED_IDLE, FRAGMENT_LIFE, OTHER_IDLE, TCP_IDLE, Unsure, is_over};
use crate::reading::{ACK, FIN, RST, SCTP, SYN, TCP, UDP};

/// How long a closed connection's port is nobody else's: as TIME_WAIT lasts, and no longer than an idle flow.
const HOLD: u32 = if OTHER_IDLE < 60 { OTHER_IDLE } else { 60 };
/// Mappings that one network may have.
pub(crate) const QUOTA: usize = 24;

/// A flow, from this node's side: address and port, or id of an echo that this side asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tuple {
    pub(crate) protocol: u8,
    pub(crate) own: (IpAddr, u16),
    pub(crate) far: (IpAddr, u16),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    pub(crate) wire: (IpAddr, u16),
    pub(crate) network: u32,
    life: Life,
    seen: u64,
    /// Its address is another network's, or its network's is another.
    ended: bool,
}

/// What a connection has gone through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Life {
    answered: bool,
    confirmed: bool,
    closed_here: bool,
    closed_there: bool,
    /// The last packet was a reset.
    reset: bool,
}

/// What a network leaves with, by family: IPv4, IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leaves {
    AsItIs,
    WithTheNodes,
    With([IpAddr; 2]),
}

/// What is translated, and to what.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    /// By number of network.
    pub(crate) networks: BTreeMap<u32, Leaves>,
    /// The uplink's address of each family, if it has one.
    pub(crate) main: [Option<IpAddr>; 2],
    /// From 50000 on.
    pub(crate) ports: u16,
}

pub(crate) const FIRST_PORT: u16 = 50_000;

/// What becomes of the source of a packet that leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Wire((IpAddr, u16)),
    /// A flow without a mapping gets one of this address.
    New(IpAddr),
    Refused(Reason),
}

/// A packet of a flow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Passing {
    pub(crate) flags: Option<u8>,
    /// An ICMP error, and a packet whose mapping was at hand, are not noted.
    pub(crate) noted: bool,
    pub(crate) now: u64,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Nat {
    pub(crate) mappings: BTreeMap<Tuple, Mapping>,
    /// Flows of other hosts that were opened from outside to their own address.
    direct: BTreeMap<Tuple, u64>,
    /// First fragments, and the address of this side that later ones have.
    pieces: BTreeMap<Piece, (u64, IpAddr)>,
}

/// A fragmented packet: source, destination, protocol and number.
pub(crate) type Piece = (IpAddr, IpAddr, u8, u32);

impl Mapping {
    fn is_closed(&self) -> bool {
        self.life.reset || self.life.closed_here && self.life.closed_there
    }

    fn limit(&self, protocol: u8) -> u32 {
        match protocol {
            TCP if self.is_closed() => HOLD,
            TCP if self.life.confirmed => TCP_IDLE,
            _ => OTHER_IDLE,
        }
    }

    fn is_idle(&self, protocol: u8, now: u64) -> bool {
        self.ended || is_over(now - self.seen, self.limit(protocol)).unwrap_or(true)
    }

    /// Whether another flow may have its port, when nothing else is free.
    fn gives_way(&self, protocol: u8, now: u64) -> bool {
        let closed = protocol == TCP && self.is_closed();
        self.is_idle(protocol, now) || closed && is_over(now - self.seen, CLOSED_IDLE).unwrap_or(true)
    }

    pub(crate) fn is_confirmed(&self) -> bool {
        self.life.confirmed
    }

    fn note(&mut self, protocol: u8, passing: Passing, leaves: bool) {
        if !passing.noted {
            return;
        }
        self.seen = passing.now;
        let Some(flags) = passing.flags.filter(|_| protocol == TCP) else { return };
        if leaves && self.is_closed() && flags & (SYN | ACK | RST) == SYN {
            self.life = Life::default(); // a new connection in the place of a closed one
        }
        self.life.reset = flags & RST != 0;
        if leaves {
            self.life.confirmed |= self.life.answered && flags & (SYN | RST) == 0;
            self.life.closed_here |= flags & FIN != 0;
        } else {
            self.life.answered = true;
            self.life.closed_there |= flags & FIN != 0;
        }
    }
}

impl Nat {
    /// Whether some clock is too near to an idle time for any word on the next packet.
    pub(crate) fn is_unsure(&self, now: u64) -> Result<(), Unsure> {
        for (tuple, mapping) in &self.mappings {
            is_over(now - mapping.seen, mapping.limit(tuple.protocol))?;
            if tuple.protocol == TCP && mapping.is_closed() {
                is_over(now - mapping.seen, CLOSED_IDLE)?;
            }
        }
        for (tuple, seen) in &self.direct {
            is_over(now - seen, if tuple.protocol == TCP { TCP_IDLE } else { OTHER_IDLE })?;
        }
        self.pieces.values().try_for_each(|(seen, _)| is_over(now - seen, FRAGMENT_LIFE).map(|_| ()))
    }

    /// Other terms: what has an address that is not its network's any more ends, its place is given back later.
    pub(crate) fn follow(&mut self, terms: &Terms) {
        let own: BTreeSet<IpAddr> = terms.networks.values().flat_map(|leaves| leaves.own()).collect();
        for (tuple, mapping) in &mut self.mappings {
            let leaves = terms.networks.get(&mapping.network);
            let wanted = leaves.and_then(|leaves| leaves.own().find(|ip| ip.is_ipv4() == tuple.own.0.is_ipv4()));
            mapping.ended |= match wanted {
                Some(address) => address != mapping.wire.0,
                None => own.contains(&mapping.wire.0),
            };
        }
    }

    /// What a flow's packet leaves with.
    pub(crate) fn leaving(&mut self, tuple: &Tuple, network: u32, terms: &Terms, passing: Passing) -> Source {
        if let Some(wire) = self.known(tuple, passing) {
            return Source::Wire(wire);
        }
        let Some(address) = terms.address(network, tuple.far.0) else { return Source::Refused(Reason::NatNoAddress) };
        if self.of(network) >= QUOTA {
            return Source::Refused(Reason::NatQuota);
        }
        Source::New(address)
    }

    /// The flow's mapping, which ends here if it is over.
    pub(crate) fn known(&mut self, tuple: &Tuple, passing: Passing) -> Option<(IpAddr, u16)> {
        let mapping = self.mappings.get_mut(tuple)?;
        if mapping.is_idle(tuple.protocol, passing.now) {
            self.mappings.remove(tuple);
            return None;
        }
        mapping.note(tuple.protocol, passing, true);
        Some(mapping.wire)
    }

    /// Takes note of the port that the program gave to a new flow, or says why it may not have it.
    pub(crate) fn learn(
        &mut self,
        tuple: Tuple,
        (wire, network): ((IpAddr, u16), u32),
        terms: &Terms,
        passing: Passing,
    ) -> Result<(), String> {
        let chosen = has_ports(tuple.protocol);
        if chosen && !(FIRST_PORT..FIRST_PORT + terms.ports).contains(&wire.1) {
            return Err(format!("port {} is not of the range", wire.1));
        }
        if !chosen && wire.1 != tuple.own.1 {
            return Err(format!("port {} instead of its own", wire.1));
        }
        if let Some(holder) = self.holder(tuple.protocol, wire, tuple.far) {
            if !self.mappings[&holder].gives_way(tuple.protocol, passing.now) {
                return Err(format!("{wire:?} is {holder:?}'s already, towards the same far end"));
            }
            self.mappings.remove(&holder);
        }
        let life = Life::default();
        let mut mapping = Mapping { wire, network, life, seen: passing.now, ended: false };
        mapping.note(tuple.protocol, Passing { noted: true, ..passing }, true);
        self.mappings.insert(tuple, mapping);
        Ok(())
    }

    /// Whether it may be that nothing is free: an own address must be used up, of a shared one at least a quarter.
    pub(crate) fn may_be_exhausted(&self, tuple: &Tuple, address: IpAddr, terms: &Terms, now: u64) -> bool {
        if !has_ports(tuple.protocol) {
            let holder = self.holder(tuple.protocol, (address, tuple.own.1), tuple.far);
            return holder.is_some_and(|holder| !self.mappings[&holder].is_idle(tuple.protocol, now));
        }
        let busy = |(other, mapping): &(&Tuple, &Mapping)| {
            (other.protocol, other.far, mapping.wire.0) == (tuple.protocol, tuple.far, address)
                && !mapping.gives_way(tuple.protocol, now)
        };
        let taken = self.mappings.iter().filter(busy).count();
        let own = terms.networks.values().any(|leaves| leaves.own().any(|own| own == address));
        taken == usize::from(terms.ports) || !own && taken * 4 >= usize::from(terms.ports)
    }

    fn holder(&self, protocol: u8, wire: (IpAddr, u16), far: (IpAddr, u16)) -> Option<Tuple> {
        let same =
            |(tuple, mapping): &(&Tuple, &Mapping)| (tuple.protocol, tuple.far, mapping.wire) == (protocol, far, wire);
        self.mappings.iter().find(same).map(|(tuple, _)| *tuple)
    }

    /// Whom a packet from there to here answers.
    pub(crate) fn coming(
        &mut self,
        protocol: u8,
        far: (IpAddr, u16),
        wire: (IpAddr, u16),
        passing: Passing,
    ) -> Option<(IpAddr, u16)> {
        let tuple = self.holder(protocol, wire, far)?;
        let mapping = self.mappings.get_mut(&tuple)?;
        if mapping.is_idle(protocol, passing.now) {
            return None;
        }
        mapping.note(protocol, passing, false);
        Some(tuple.own)
    }

    /// How many mappings count against a network's quota.
    pub(crate) fn of(&self, network: u32) -> usize {
        self.mappings.values().filter(|mapping| mapping.network == network).count()
    }

    pub(crate) fn note_direct(&mut self, tuple: Tuple, now: u64) {
        self.direct.insert(tuple, now);
    }

    /// Whether the flow of a host without programs was opened from outside; then it goes on.
    pub(crate) fn is_direct(&mut self, tuple: &Tuple, now: u64) -> bool {
        let Some(seen) = self.direct.get_mut(tuple) else { return false };
        let over = is_over(now - *seen, if tuple.protocol == TCP { TCP_IDLE } else { OTHER_IDLE }).unwrap_or(true);
        if !over {
            *seen = now;
        }
        !over
    }

    pub(crate) fn remember_piece(&mut self, piece: Piece, address: IpAddr, now: u64) {
        self.pieces.insert(piece, (now, address));
    }

    pub(crate) fn piece(&self, piece: &Piece, now: u64) -> Option<IpAddr> {
        let (seen, address) = self.pieces.get(piece)?;
        (!is_over(now - seen, FRAGMENT_LIFE).unwrap_or(true)).then_some(*address)
    }
}

impl Leaves {
    pub(crate) fn own(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let own = match self {
            Self::With(own) => Some(*own),
            Self::AsItIs | Self::WithTheNodes => None,
        };
        own.into_iter().flatten()
    }
}

impl Terms {
    fn address(&self, network: u32, far: IpAddr) -> Option<IpAddr> {
        let alike = |ip: &IpAddr| ip.is_ipv4() == far.is_ipv4();
        self.networks[&network].own().find(alike).or(self.main[usize::from(far.is_ipv6())])
    }

    /// Whether this network is translated at all.
    pub(crate) fn translates(&self, network: u32) -> bool {
        self.networks.get(&network).is_some_and(|leaves| *leaves != Leaves::AsItIs)
    }
}

/// Whether a flow gets a port of the range; the others' is theirs, or they have none.
fn has_ports(protocol: u8) -> bool {
    matches!(protocol, TCP | UDP | 1 | 58)
}

/// Whether its ports are its transport's first four octets.
pub(crate) fn has_port_pair(protocol: u8) -> bool {
    matches!(protocol, TCP | UDP | SCTP)
}
