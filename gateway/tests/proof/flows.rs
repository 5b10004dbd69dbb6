//! The flow table as the documents tell it: a list of open flows with a clock that is an argument.

use std::collections::BTreeMap;
use std::net::IpAddr;

use config::names::DnsName;
use gateway::egress::tables::flows::Origin;
use policy::Decision;
use policy::reason::Reason;
use policy::tables::RuleName;

use crate::held::{Fate, Hold};
use crate::reading::{
    ACK, FIN, Icmp, Meaning, Packet, Piece, RST, SCTP, SYN, TCP, Transport, UDP, echo_id, meaning, number, quoted,
};
use crate::sight::{self, Seen};
use crate::world::SECOND;

/// Idle times of the test's tables, in seconds; a closed connection's is the door's own.
pub(crate) const TCP_IDLE: u32 = 80;
pub(crate) const OTHER_IDLE: u32 = 40;
pub(crate) const CLOSED_IDLE: u32 = 10;
/// How long Linux, and so the programs, wait for the rest of a fragmented packet.
pub(crate) const FRAGMENT_LIFE: u32 = 30;
/// The real clock goes on while a case runs, the model's does not: this near to an idle time nothing is said.
const UNSURE: u64 = 3 * SECOND;

/// A flow's ends, from the workload's view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ends {
    pub(crate) workload: usize,
    pub(crate) protocol: u8,
    pub(crate) local: IpAddr,
    pub(crate) remote: IpAddr,
    pub(crate) ports: Ports,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ports {
    None,
    Pair { local: u16, remote: u16 },
    AskedHere(u16),
    AskedThere(u16),
}

/// What `netctl flows` tells of a flow, without its times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) origin: Origin,
    pub(crate) reason: Reason,
    pub(crate) rule: Option<RuleName>,
    pub(crate) name: Option<DnsName>,
    /// Frames and bytes.
    pub(crate) sent: (u64, u64),
    pub(crate) received: (u64, u64),
}

#[derive(Clone, Debug)]
struct Flow {
    told: Told,
    epoch: u32,
    opened: u64,
    seen: u64,
    life: Life,
    hold: Hold,
    /// The later it was opened, the higher.
    number: u64,
    /// Where the stream that is read begins, and whether the far end has agreed to it; of TCP.
    first: u32,
    agreed: bool,
}

/// What a connection has gone through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Life {
    answered: bool,
    /// The opener went on after an answer.
    confirmed: bool,
    opener_closed: bool,
    answerer_closed: bool,
    /// The last packet was a reset.
    reset: bool,
}

/// A packet as its flow sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Passage {
    /// The workload sends it.
    pub(crate) out: bool,
    pub(crate) flags: Option<u8>,
    pub(crate) bytes: u64,
    /// It is counted, and keeps the flow alive: an ICMP error does not.
    pub(crate) counts: bool,
    /// It carries more than headers.
    pub(crate) data: bool,
    /// It is no fragment.
    pub(crate) whole: bool,
    /// Of TCP, in the workload's stream: where the segment begins, or what one to it acknowledges.
    pub(crate) number: u32,
    /// Of a whole TCP segment, how much it carries, and what that is known by.
    pub(crate) length: u32,
    pub(crate) octets: u64,
}

/// What the table knows of a packet.
pub(crate) enum Known {
    No,
    /// Of the present epoch: what becomes of it.
    Current(Reason),
    /// To be decided again: who opened it, by which name, and what its handshake has to do with it.
    Old(Origin, Option<DnsName>, Hold),
}

/// The clocks are too near to an idle time to say.
#[derive(Debug)]
pub(crate) struct Unsure;

/// The flow that a packet belongs to.
pub(crate) fn ends_of(packet: &Packet<'_>, workload: usize, out: bool) -> Ends {
    let (local, remote) = if out { (packet.source, packet.destination) } else { (packet.destination, packet.source) };
    let ports = match packet.transport {
        Transport::Tcp { source, destination, .. }
        | Transport::Udp { source, destination }
        | Transport::Sctp { source, destination }
            if out =>
        {
            Ports::Pair { local: source, remote: destination }
        }
        Transport::Tcp { source, destination, .. }
        | Transport::Udp { source, destination }
        | Transport::Sctp { source, destination } => Ports::Pair { local: destination, remote: source },
        Transport::Icmp(icmp) if (icmp.meaning == Meaning::Asks) == out => Ports::AskedHere(icmp.id),
        Transport::Icmp(icmp) => Ports::AskedThere(icmp.id),
        Transport::Other | Transport::Headless => Ports::None,
    };
    Ends { workload, protocol: packet.protocol, local, remote, ports }
}

impl Passage {
    /// Of a packet of the flow itself.
    pub(crate) fn of(packet: &Packet<'_>, out: bool, frame: &[u8]) -> Self {
        let whole = packet.piece == Piece::Whole;
        let number = match packet.transport {
            Transport::Tcp { sequence, acknowledged, .. } => {
                if out {
                    sequence
                } else {
                    acknowledged
                }
            }
            _ => 0,
        };
        let payload = sight::payload(packet, frame);
        Self {
            out,
            flags: flags_of(packet),
            bytes: frame.len() as u64,
            counts: true,
            data: packet.data > 0,
            whole,
            number,
            length: payload.len() as u32,
            octets: sight::known_by(payload),
        }
    }

    /// Of an ICMP error about one.
    pub(crate) fn of_error(out: bool, bytes: u64) -> Self {
        Self { out, flags: None, bytes, counts: false, data: false, whole: true, number: 0, length: 0, octets: 0 }
    }
}

pub(crate) fn flags_of(packet: &Packet<'_>) -> Option<u8> {
    match packet.transport {
        Transport::Tcp { flags, .. } => Some(flags),
        Transport::Udp { .. }
        | Transport::Sctp { .. }
        | Transport::Icmp(_)
        | Transport::Other
        | Transport::Headless => None,
    }
}

/// The flow that an ICMP error speaks of, if it goes to who sent the packet that it quotes.
pub(crate) fn quoted_ends(packet: &Packet<'_>, icmp: Icmp<'_>, workload: usize, out: bool) -> Option<Ends> {
    let six = packet.source.is_ipv6();
    let quote = quoted(icmp, six)?;
    if quote.source != packet.destination || out && quote.destination != packet.source {
        return None;
    }
    let (local, remote) = if out { (quote.destination, quote.source) } else { (quote.source, quote.destination) };
    let (first, second) = (number(&quote.head, 0), number(&quote.head, 2));
    let ports = match quote.protocol {
        TCP | UDP | SCTP if out => Ports::Pair { local: second, remote: first },
        TCP | UDP | SCTP => Ports::Pair { local: first, remote: second },
        same if same == packet.protocol => match (meaning(quote.head[0], six), out) {
            (Meaning::Asks, false) | (Meaning::Answers, true) => Ports::AskedHere(echo_id(&quote.head)),
            (Meaning::Asks, true) | (Meaning::Answers, false) => Ports::AskedThere(echo_id(&quote.head)),
            _ => return None,
        },
        _ => Ports::None,
    };
    Some(Ends { workload, protocol: quote.protocol, local, remote, ports })
}

#[derive(Debug, Default)]
pub(crate) struct Flows {
    open: BTreeMap<Ends, Flow>,
    opened: u64,
    fragments: BTreeMap<Fragment, (u64, u32)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Fragment {
    pub(crate) workload: usize,
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) protocol: u8,
    pub(crate) id: u32,
}

pub(crate) fn is_over(age: u64, limit_s: u32) -> Result<bool, Unsure> {
    let limit = u64::from(limit_s) * SECOND;
    if age <= limit && age + UNSURE > limit { Err(Unsure) } else { Ok(age > limit) }
}

impl Flow {
    fn is_closed(&self) -> bool {
        self.life.reset || self.life.opener_closed && self.life.answerer_closed
    }

    fn idle_limit(&self, protocol: u8) -> u32 {
        match protocol {
            _ if matches!(self.hold, Hold::Denied(_)) => CLOSED_IDLE,
            TCP if self.is_closed() => CLOSED_IDLE,
            TCP if self.life.confirmed => TCP_IDLE,
            _ => OTHER_IDLE,
        }
    }

    fn is_from_opener(&self, passage: Passage) -> bool {
        (self.told.origin == Origin::Egress) == passage.out
    }

    fn is_inspected(&self, protocol: u8, passage: Passage) -> bool {
        self.fate(protocol, passage) == Fate::Inspected
    }

    /// What becomes of a packet of it. An ICMP error is none of its own, and passes as long as the flow is not
    /// denied; one of the workload's, once the handshake was read.
    fn pass(&mut self, protocol: u8, passage: Passage, now: u64) -> Reason {
        if !passage.counts {
            return match self.hold {
                Hold::Denied(reason) => reason,
                Hold::Awaits if passage.out => Reason::NotVerified,
                Hold::Never | Hold::Awaits | Hold::Verified(_) | Hold::Shown(..) => Reason::KnownFlow,
            };
        }
        if !self.is_inspected(protocol, passage) {
            self.carry(passage, now);
        }
        let fate = self.fate(protocol, passage);
        let agrees = passage.flags.is_some_and(|flags| flags & (SYN | ACK | RST) == SYN | ACK);
        self.agreed |= agrees && !passage.out && self.hold == Hold::Awaits && fate == Fate::Is(Reason::Held);
        self.acknowledge(passage);
        fate.reason(Reason::KnownFlow)
    }

    fn acknowledge(&mut self, passage: Passage) {
        let answers = passage.flags.is_some_and(|flags| flags & (SYN | ACK) == ACK) && !passage.out;
        if let Hold::Shown(name, seen) = &self.hold
            && answers
            && passage.number.wrapping_sub(seen.end) as i32 >= 0
        {
            self.hold = Hold::Verified(Some(name.clone()));
        }
    }

    fn fate(&self, protocol: u8, passage: Passage) -> Fate {
        self.hold.fate(protocol, passage, self.first, self.agreed)
    }

    fn carry(&mut self, passage: Passage, now: u64) {
        let side = if passage.out { &mut self.told.sent } else { &mut self.told.received };
        *side = (side.0 + 1, side.1 + passage.bytes);
        self.seen = now;
        let opener = self.is_from_opener(passage);
        let flags = passage.flags.unwrap_or(0);
        self.life.reset = flags & RST != 0;
        if opener {
            self.life.confirmed |= self.life.answered && flags & (SYN | RST) == 0;
            self.life.opener_closed |= flags & FIN != 0;
        } else {
            self.life.answered = true;
            self.life.answerer_closed |= flags & FIN != 0;
        }
    }
}

impl Flows {
    /// Looks a packet up. A flow that is past its idle time is gone; so is one whose opener asks for a new connection,
    /// unless that is the first SYN again.
    ///
    /// A closed connection waits for late segments, but past half of the quota it goes with the last: what follows both
    /// FINs, or a reset that the workload believes (RFC 5961: one from afar, only before the handshake is done).
    pub(crate) fn find(
        &mut self,
        ends: &Ends,
        epoch: u32,
        quota: usize,
        passage: Passage,
        now: u64,
    ) -> Result<Known, Unsure> {
        let used = self.of(ends.workload);
        let Some(flow) = self.open.get_mut(ends) else { return Ok(Known::No) };
        if is_over(now - flow.seen, flow.idle_limit(ends.protocol))? {
            self.open.remove(ends);
            return Ok(Known::No);
        }
        let opens = passage.flags.is_some_and(|flags| flags & (SYN | ACK | RST | FIN) == SYN);
        if passage.counts && opens {
            let again = flow.is_from_opener(passage)
                && flow.life == Life::default()
                && (flow.hold == Hold::Never || passage.whole && passage.number.wrapping_add(1) == flow.first)
                && !is_over(now - flow.opened, OTHER_IDLE)?;
            if !again {
                if flow.is_from_opener(passage) || flow.is_closed() {
                    self.open.remove(ends);
                }
                return Ok(Known::No);
            }
        }
        if flow.epoch != epoch {
            if matches!(flow.hold, Hold::Denied(_)) {
                self.open.remove(ends);
                return Ok(Known::No);
            }
            return Ok(Known::Old(flow.told.origin, flow.told.name.clone(), flow.hold.clone()));
        }
        let reason = flow.pass(ends.protocol, passage, now);
        if passage.counts && !flow.is_inspected(ends.protocol, passage) {
            let flags = passage.flags.unwrap_or(0);
            let believed = flags & RST == 0 || passage.out || !flow.life.confirmed;
            let last = ends.protocol == TCP && flow.is_closed() && flags & FIN == 0 && believed;
            if last && used > quota / 2 {
                self.open.remove(ends);
            }
        }
        Ok(Known::Current(reason))
    }

    /// The flow goes on under the present epoch, by this decision; what was shown stays its name. What becomes of the packet.
    pub(crate) fn renew(&mut self, ends: &Ends, epoch: u32, decision: Decision, passage: Passage, now: u64) -> Reason {
        let Some(flow) = self.open.get_mut(ends) else { panic!("{ends:?} was just found") };
        if !matches!(flow.hold, Hold::Verified(_) | Hold::Shown(..)) {
            flow.hold = Hold::of(&decision);
            flow.told.name = decision.name;
        }
        (flow.told.reason, flow.told.rule, flow.epoch) = (decision.reason, decision.rule, epoch);
        flow.pass(ends.protocol, passage, now)
    }

    /// One of the flows that wait for their handshake to be read, with so many that are newer if there are, and when it
    /// was opened.
    pub(crate) fn awaiting(&self, newer: usize) -> Option<(Ends, u64)> {
        let mut waiting: Vec<_> = self.open.iter().filter(|(_, flow)| flow.hold == Hold::Awaits).collect();
        waiting.sort_by_key(|(_, flow)| flow.number);
        let (ends, flow) = waiting.get(waiting.len().saturating_sub(1 + newer))?;
        Some((**ends, flow.opened))
    }

    /// When a flow was opened of which this packet is to be read.
    pub(crate) fn readable(&self, ends: &Ends, passage: Passage) -> Option<u64> {
        let flow = self.open.get(ends)?;
        let begins = ends.protocol == TCP && passage.number == flow.first && flow.hold == Hold::Awaits;
        (begins && flow.is_inspected(ends.protocol, passage)).then_some(flow.opened)
    }

    /// The program has read it: the packet passes.
    pub(crate) fn shown(&mut self, ends: &Ends, decision: Decision, name: DnsName, passage: Passage, now: u64) {
        let Some(flow) = self.open.get_mut(ends) else { panic!("{ends:?} was just found") };
        (flow.told.reason, flow.told.rule, flow.told.name) = (decision.reason, decision.rule, decision.name);
        flow.hold = Hold::Shown(name, Seen::of(passage));
        flow.carry(passage, now);
    }

    /// Whether the far end has not acknowledged what the program read of it.
    pub(crate) fn is_shown(&self, ends: &Ends) -> bool {
        self.open.get(ends).is_some_and(|flow| matches!(flow.hold, Hold::Shown(..)))
    }

    /// Its handshake was judged. What passes is decided again at its next packet.
    pub(crate) fn judged(&mut self, ends: &Ends, reason: Reason, hold: Hold) {
        let Some(flow) = self.open.get_mut(ends) else { panic!("{ends:?} was just found") };
        flow.told.reason = reason;
        flow.told.name = match &hold {
            Hold::Verified(name) => name.clone(),
            Hold::Never | Hold::Awaits | Hold::Denied(_) | Hold::Shown(..) => None,
        };
        if matches!(hold, Hold::Verified(_)) {
            flow.epoch = u32::MAX;
        }
        flow.hold = hold;
    }

    pub(crate) fn end(&mut self, ends: &Ends) {
        self.open.remove(ends);
    }

    pub(crate) fn told(&self) -> BTreeMap<Ends, Told> {
        self.open.iter().map(|(ends, flow)| (*ends, flow.told.clone())).collect()
    }

    /// Who opened the flow, if it is open.
    pub(crate) fn opener(&self, ends: &Ends) -> Option<Origin> {
        self.open.get(ends).map(|flow| flow.told.origin)
    }

    pub(crate) fn of(&self, workload: usize) -> usize {
        self.open.keys().filter(|ends| ends.workload == workload).count()
    }

    /// A new flow. One that is open already, which a SYN of the other side asks for again, stays as it is. What becomes of
    /// the packet.
    pub(crate) fn begin(
        &mut self,
        ends: Ends,
        origin: Origin,
        epoch: u32,
        decision: Decision,
        passage: Passage,
        now: u64,
    ) -> Reason {
        let hold = Hold::of(&decision);
        let first = passage.number.wrapping_add(1);
        let fate = hold.fate(ends.protocol, passage, first, false);
        let one = if fate == Fate::Inspected { (0, 0) } else { (1, passage.bytes) };
        let (sent, received) = if passage.out { (one, (0, 0)) } else { ((0, 0), one) };
        let Decision { reason, rule, name, holds: decision_holds, .. } = decision;
        let told = Told { origin, reason, rule, name, sent, received };
        let flow = Flow {
            told,
            epoch,
            opened: now,
            seen: now,
            life: Life::default(),
            hold,
            first,
            agreed: false,
            number: self.opened,
        };
        self.opened += 1;
        if decision_holds && self.open.contains_key(&ends) {
            return Reason::NotVerified;
        }
        self.open.entry(ends).or_insert(flow);
        fate.reason(reason)
    }

    pub(crate) fn remember_first(&mut self, fragment: Fragment, epoch: u32, now: u64) {
        self.fragments.insert(fragment, (now, epoch));
    }

    pub(crate) fn follows_first(&self, fragment: &Fragment, epoch: u32, now: u64) -> Result<bool, Unsure> {
        match self.fragments.get(fragment) {
            Some((seen, first)) if *first == epoch => Ok(!is_over(now - seen, FRAGMENT_LIFE)?),
            Some(_) | None => Ok(false),
        }
    }
}
