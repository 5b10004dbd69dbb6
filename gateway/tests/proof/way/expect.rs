//! One packet at a time: what the documents say becomes of it, and whether it did.

use std::net::IpAddr;

use gateway::egress::attach::Program;
use policy::reason::Reason;

use super::frame::{Change, compare};
use super::nat::{Passing, Source, Terms, Tuple, has_port_pair};
use super::scenario::HOSTS;
use super::uplink::{NEXT, OURS, Route, fits_link, route};
use super::{Trial, What, otherwise};
use crate::flows::{ends_of, flags_of, quoted_ends};
use crate::frames::GATEWAY;
use crate::reading::{
    Content, Meaning, Packet, Piece, Reading, SCTP, TCP, Transport, UDP, meaning, number, quoted, read,
};
use crate::reference::{Action, Member, Rules};
use crate::scenario::{Device, Entrance, Shot};
use crate::trial::check_frame;
use gateway::egress::tables::flows::Origin;

/// What is known besides the packet.
pub(super) struct Expect<'a> {
    pub(super) rules: &'a Rules<'a>,
    pub(super) terms: &'a Terms,
    /// Whether packets skip the stack.
    pub(super) fast: bool,
}

/// What a workload sends or hears of by a frame that is not padding, a tag or ARP.
fn packet_in<'r, 'f>(frame: &'r Reading<'f>) -> Option<&'r Packet<'f>> {
    match &frame.content {
        Content::Ip(packet) => Some(packet),
        Content::Arp(_) => None,
    }
}

impl Expect<'_> {
    /// The number of the network whose source this is, if that network is translated.
    fn network(&self, source: IpAddr) -> Option<u32> {
        let member = self.member(source).map(|(_, member)| member);
        let number = match member {
            Some(member) => member.translated.then_some(member.network as u32 + 1),
            None => {
                let of = |hosts: &[&str; 2]| hosts.iter().any(|host| host.parse() == Ok(source));
                HOSTS.iter().position(of).map(|network| network as u32 + 1)
            }
        };
        number.filter(|number| self.terms.translates(*number))
    }

    fn member(&self, address: IpAddr) -> Option<(usize, &Member)> {
        self.rules.members.iter().enumerate().find(|(_, member)| member.has(address))
    }

    /// Whether an allowed packet of a workload skips the stack.
    fn skips(&self, frame: &Reading<'_>, packet: &Packet<'_>, own: &Member, size: usize) -> bool {
        let by_uplink = match route(packet.destination) {
            Route::Uplink(mtu) => size <= mtu,
            Route::Elsewhere => false,
        };
        own.routed
            && self.fast
            && frame.to == GATEWAY
            && !on_the_link(packet.source)
            && !on_the_link(packet.destination)
            && packet.hops > 1
            && by_uplink
    }

    fn passing(&self, packet: &Packet<'_>) -> Passing {
        Passing { flags: flags_of(packet), noted: true, now: self.rules.now }
    }
}

fn on_the_link(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

fn icmp_of(packet: &Packet<'_>) -> Option<Meaning> {
    packet.icmp().map(|icmp| icmp.meaning)
}

/// Ports of a packet, and the raw id of an echo on the side that asks.
fn ports_of(packet: &Packet<'_>) -> (u16, u16) {
    match packet.transport {
        Transport::Tcp { source, destination, .. }
        | Transport::Udp { source, destination }
        | Transport::Sctp { source, destination } => (source, destination),
        Transport::Icmp(icmp) => match icmp.meaning {
            Meaning::Asks => (number(icmp.message, 4), 0),
            Meaning::Answers => (0, number(icmp.message, 4)),
            _ => (0, 0),
        },
        Transport::Other | Transport::Headless => (0, 0),
    }
}

/// The flow of a packet that leaves.
fn tuple_out(packet: &Packet<'_>) -> Tuple {
    let (own, far) = ports_of(packet);
    Tuple { protocol: packet.protocol, own: (packet.source, own), far: (packet.destination, far) }
}

/// What is written over a packet for an address and a port.
fn rewritten(protocol: u8, (address, port): (IpAddr, u16)) -> Option<(IpAddr, Option<u16>)> {
    let has_port = has_port_pair(protocol) || protocol == 1 || protocol == 58;
    Some((address, has_port.then_some(port)))
}

/// Address, and port or id.
type End = (IpAddr, u16);

/// Protocol and both ends of a packet that an ICMP error quotes: its source's, its destination's.
fn quoted_pair(packet: &Packet<'_>) -> Option<(u8, End, End)> {
    let six = packet.source.is_ipv6();
    let quote = quoted(packet.icmp()?, six)?;
    let (first, second) = (number(&quote.head, 0), number(&quote.head, 2));
    let ports = match quote.protocol {
        TCP | UDP | SCTP => (first, second),
        same if same == packet.protocol => match meaning(quote.head[0], six) {
            Meaning::Asks => (number(&quote.head, 4), 0),
            Meaning::Answers => (0, number(&quote.head, 4)),
            _ => return None,
        },
        _ => (0, 0),
    };
    Some((quote.protocol, (quote.source, ports.0), (quote.destination, ports.1)))
}

impl Trial<'_> {
    /// A workload sends: its own program, and what leaves goes through the uplink's, too.
    pub(super) fn sends(&mut self, shot: &Shot, expect: &Expect<'_>) -> Result<(), String> {
        let index = shot.device.workload();
        let reading = read(&shot.frame);
        let packet = reading.as_ref().ok().and_then(packet_in);
        let opener =
            index.zip(packet).and_then(|(index, packet)| self.reference.flows.opener(&ends_of(packet, index, true)));
        let Ok((reason, action)) = self.reference.judge(shot, expect.rules) else { return Ok(()) };
        let (Some(index), Some(packet), Ok(frame), Action::Pass) = (index, packet, &reading, action) else {
            return self.stays(shot, reason, action, expect);
        };
        let own = &expect.rules.members[index];
        if reason == Reason::SegmentControl {
            return self.stays(shot, reason, action, expect);
        }
        if !expect.skips(frame, packet, own, shot.frame.len() - 14) {
            self.stays(shot, reason, action, expect)?;
            let leaves = own.routed && packet.hops > 1 && matches!(route(packet.destination), Route::Uplink(_));
            if leaves && !on_the_link(packet.source) && frame.to == GATEWAY {
                self.note(What::LeftToStack);
                return self.leaves(&shot.frame, expect);
            }
            return Ok(());
        }
        let outside = reason == Reason::KnownFlow && opener.is_some_and(|opener| opener != Origin::Egress);
        let ordinary = packet.piece == Piece::Whole && matches!(icmp_of(packet), None | Some(Meaning::Asks));
        if !own.translated || !ordinary || outside {
            let done = self.programs.try_shot(&mut self.run, shot, reason)?;
            otherwise((Some(reason), Action::Redirect), (Some(done.reason), done.action))?;
            let macs = self.known_hop(&shot.frame, &done.frame);
            self.took_shortcut();
            compare(&shot.frame, &done.frame, &Change { macs, hop: true, ..Change::default() })?;
            return self.leaves(&done.frame, expect);
        }
        self.sends_translated(shot, packet, own, reason, expect)
    }

    fn sends_translated(
        &mut self,
        shot: &Shot,
        packet: &Packet<'_>,
        own: &Member,
        reason: Reason,
        expect: &Expect<'_>,
    ) -> Result<(), String> {
        let (tuple, network) = (tuple_out(packet), own.network as u32 + 1);
        if let Some(refused) = unsupported(packet.protocol) {
            let done = self.programs.try_shot(&mut self.run, shot, refused)?;
            return otherwise((Some(refused), Action::Drop), (Some(done.reason), done.action));
        }
        // what the model has before this packet counts where the mapping was at hand, and was not looked at
        let before = self.nat.mappings.get(&tuple).cloned();
        let source = self.nat.leaving(&tuple, network, expect.terms, expect.passing(packet));
        let wanted = if let Source::Refused(refused) = source { refused } else { reason };
        let done = self.programs.try_shot(&mut self.run, shot, wanted)?;
        let found = (Some(done.reason), done.action);
        let wire = match source {
            Source::Refused(refused) => {
                self.note_refusal(refused);
                return otherwise((Some(refused), Action::Drop), found);
            }
            Source::New(address) if done.reason == Reason::NatExhausted => {
                self.note(What::Exhausted);
                let may = self.nat.may_be_exhausted(&tuple, address, expect.terms, expect.rules.now);
                return if may { Ok(()) } else { Err(format!("ports are left for {tuple:?}")) };
            }
            Source::New(address) => {
                otherwise((Some(reason), Action::Redirect), found)?;
                let wire = (address, given_port(&done.frame));
                self.nat.learn(tuple, (wire, network), expect.terms, expect.passing(packet))?;
                self.note(What::New);
                wire
            }
            Source::Wire(wire) => {
                otherwise((Some(reason), Action::Redirect), found)?;
                self.note(What::Known);
                wire
            }
        };
        let macs = self.known_hop(&shot.frame, &done.frame);
        if self.took_shortcut() {
            self.nat.mappings.extend(before.map(|before| (tuple, before)));
        } else {
            self.follow_cache(&tuple, service_of(&shot.frame), packet, macs.is_some(), before);
        }
        let change = Change { macs, hop: true, source: rewritten(tuple.protocol, wire), ..Change::default() };
        compare(&shot.frame, &done.frame, &change)?;
        self.leaves(&done.frame, expect)
    }

    /// What is dropped, refused, or left to the stack as it is.
    fn stays(&mut self, shot: &Shot, reason: Reason, action: Action, expect: &Expect<'_>) -> Result<(), String> {
        let done = self.programs.try_shot(&mut self.run, shot, reason)?;
        otherwise((Some(reason), action), (Some(done.reason), done.action))?;
        check_frame(shot, &done, expect.rules.members)
    }

    /// The MACs that a frame has to have which took a next hop that was known; else they are as they were.
    fn known_hop(&mut self, before: &[u8], after: &[u8]) -> Option<(gateway::workload::Mac, gateway::workload::Mac)> {
        let known = before[..12] != after[..12];
        self.note(if known { What::Out } else { What::Resolved });
        known.then_some((NEXT, OURS))
    }

    /// A settled flow's mapping is kept beside its next hop, and then not looked at by packets that change nothing of it.
    fn follow_cache(
        &mut self,
        tuple: &Tuple,
        service: u8,
        packet: &Packet<'_>,
        known_hop: bool,
        before: Option<super::nat::Mapping>,
    ) {
        let key = (*tuple, service);
        let changes = flags_of(packet).is_some_and(|flags| flags & 7 != 0);
        if known_hop && self.at_hand.contains(&key) && !changes {
            if let Some(before) = before {
                self.nat.mappings.insert(*tuple, before);
            }
            return;
        }
        if !known_hop {
            self.at_hand.remove(&key);
        }
        let settled = tuple.protocol != TCP || self.nat.mappings[tuple].is_confirmed();
        if before.is_some() && settled && packet.icmp().is_none() {
            self.at_hand.insert(key);
        }
    }

    /// A packet at the uplink's egress, wherever it came from.
    pub(super) fn leaves(&mut self, frame: &[u8], expect: &Expect<'_>) -> Result<(), String> {
        let Ok(reading) = read(frame) else { return Ok(()) };
        let Some(packet) = packet_in(&reading) else { return Ok(()) };
        let (network, now) = (expect.network(packet.source), expect.rules.now);
        if icmp_of(packet) == Some(Meaning::Error) {
            return self.error_leaves(frame, packet, network, expect);
        }
        let Some(network) = network else { return self.untouched(Program::ToUplink, frame) };
        let refuse = |this: &mut Self, reason: Reason| {
            this.note_refusal(reason);
            let (counted, action, _) = this.at_uplink(Program::ToUplink, frame, Some(reason))?;
            otherwise((Some(reason), Action::Drop), (counted, action))
        };
        let piece = match packet.piece {
            Piece::Later(id) | Piece::First(id) => Some((packet.source, packet.destination, packet.protocol, id)),
            Piece::Whole => None,
        };
        if let (Piece::Later(_), Some(piece)) = (packet.piece, piece) {
            let Some(address) = self.nat.piece(&piece, now) else {
                return refuse(self, Reason::FragmentUnknown);
            };
            self.note(What::Piece);
            let change = Change { source: Some((address, None)), ..Change::default() };
            return self.becomes(Program::ToUplink, frame, &change);
        }
        let tuple = tuple_out(packet);
        match icmp_of(packet) {
            Some(Meaning::Answers) if self.is_direct(packet, &tuple, expect) => {
                return self.untouched(Program::ToUplink, frame);
            }
            None | Some(Meaning::Asks) => {}
            Some(_) => return refuse(self, Reason::Unsupported),
        }
        if let Some(reason) = unsupported(packet.protocol) {
            return refuse(self, reason);
        }
        let passing = expect.passing(packet);
        let wire = match self.nat.known(&tuple, passing) {
            Some(wire) => {
                self.note(What::Known);
                wire
            }
            None if self.is_direct(packet, &tuple, expect) => {
                if let Some(piece) = piece {
                    self.nat.remember_piece(piece, packet.source, now);
                }
                return self.untouched(Program::ToUplink, frame);
            }
            None => {
                let address = match self.nat.leaving(&tuple, network, expect.terms, passing) {
                    Source::New(address) => address,
                    Source::Refused(reason) => return refuse(self, reason),
                    Source::Wire(_) => unreachable!("it was not known"),
                };
                let (counted, action, after) = self.at_uplink(Program::ToUplink, frame, None)?;
                if counted == Some(Reason::NatExhausted) {
                    self.note(What::Exhausted);
                    let may = self.nat.may_be_exhausted(&tuple, address, expect.terms, now);
                    return if may { Ok(()) } else { Err(format!("ports are left for {tuple:?}")) };
                }
                otherwise((None, Action::Pass), (counted, action))?;
                let wire = (address, given_port(&after));
                self.nat.learn(tuple, (wire, network), expect.terms, passing)?;
                self.note(What::New);
                if let Some(piece) = piece {
                    self.nat.remember_piece(piece, wire.0, now);
                }
                let change = Change { source: rewritten(tuple.protocol, wire), ..Change::default() };
                return compare(frame, &after, &change);
            }
        };
        if let Some(piece) = piece {
            self.nat.remember_piece(piece, wire.0, now);
        }
        let change = Change { source: rewritten(tuple.protocol, wire), ..Change::default() };
        self.becomes(Program::ToUplink, frame, &change)
    }

    /// An error about what came for a flow speaks of what the far end knows, and of nobody else.
    fn error_leaves(
        &mut self,
        frame: &[u8],
        packet: &Packet<'_>,
        network: Option<u32>,
        expect: &Expect<'_>,
    ) -> Result<(), String> {
        let quiet = Passing { flags: None, noted: false, now: expect.rules.now };
        let told = quoted_pair(packet);
        let tuple = told.map(|(protocol, from, to)| Tuple { protocol, own: to, far: from });
        if let Some((tuple, wire)) = tuple.and_then(|tuple| Some((tuple, self.nat.known(&tuple, quiet)?))) {
            self.note(What::ErrorOut);
            let change = Change {
                quoted_destination: rewritten(tuple.protocol, wire),
                source: network.map(|_| (wire.0, None)),
                ..Change::default()
            };
            return self.becomes(Program::ToUplink, frame, &change);
        }
        if network.is_none() {
            return self.untouched(Program::ToUplink, frame);
        }
        let direct = match expect.member(packet.source) {
            Some((index, _)) => {
                let icmp = packet.icmp().unwrap();
                let ends = quoted_ends(packet, icmp, index, true);
                ends.and_then(|ends| self.reference.flows.opener(&ends)).is_some_and(|by| by != Origin::Egress)
            }
            None => tuple.is_some_and(|tuple| self.nat.is_direct(&tuple, expect.rules.now)),
        };
        if direct {
            return self.untouched(Program::ToUplink, frame);
        }
        let (counted, action, _) = self.at_uplink(Program::ToUplink, frame, Some(Reason::IcmpErrorUnknown))?;
        otherwise((Some(Reason::IcmpErrorUnknown), Action::Drop), (counted, action))
    }

    /// Whether the packet's flow was opened from outside to the address that it has here.
    fn is_direct(&mut self, packet: &Packet<'_>, tuple: &Tuple, expect: &Expect<'_>) -> bool {
        match expect.member(packet.source) {
            Some((index, _)) => {
                let opener = self.reference.flows.opener(&ends_of(packet, index, true));
                opener.is_some_and(|opener| opener != Origin::Egress)
            }
            None => self.nat.is_direct(tuple, expect.rules.now),
        }
    }

    /// A packet at the uplink's ingress.
    pub(super) fn comes(&mut self, frame: &[u8], expect: &Expect<'_>) -> Result<(), String> {
        let reading = read(frame);
        let (Ok(reading), Some(packet)) = (&reading, reading.as_ref().ok().and_then(packet_in)) else {
            return self.untouched(Program::FromUplink, frame);
        };
        if reading.to != OURS {
            return self.untouched(Program::FromUplink, frame);
        }
        let routed = |address: IpAddr| expect.member(address).filter(|(_, member)| member.routed);
        let nat = self.nat.clone();
        let change = match routed(packet.destination) {
            Some(_) => Change::default(),
            None => match self.translated_back(packet, expect) {
                Some(change) => change,
                None => {
                    self.note_direct(packet, expect);
                    self.note(What::Untouched);
                    return self.untouched(Program::FromUplink, frame);
                }
            },
        };
        let own = change.destination.map_or(packet.destination, |(address, _)| address);
        let Some((index, member)) = routed(own).filter(|_| self.is_forwarded(packet, frame, own, expect)) else {
            self.note(What::PassedOn);
            return self.becomes(Program::FromUplink, frame, &change);
        };
        // what the workload's list is asked
        let seen = Shot {
            program: Program::ToWorkload,
            device: Device::Workload(index),
            entered_by: Entrance::Stranger,
            frame: super::frame::with(frame, &Change { macs: Some((member.mac, reading.from)), ..change.clone() }),
        };
        let Ok((reason, _)) = self.reference.judge(&seen, expect.rules) else {
            self.nat = nat;
            return Ok(());
        };
        let (counted, action, after) = self.at_uplink(Program::FromUplink, frame, Some(reason))?;
        if !reason.passes() {
            return otherwise((Some(reason), Action::Drop), (counted, action));
        }
        otherwise((Some(reason), Action::Redirect), (counted, action))?;
        self.note(What::In);
        if self.took_shortcut() {
            self.nat = nat;
        }
        compare(frame, &after, &Change { macs: Some((member.mac, GATEWAY)), hop: true, ..change })
    }

    /// Whether the stack would forward it to that workload, and nothing but the stack must do it.
    fn is_forwarded(&self, packet: &Packet<'_>, frame: &[u8], own: IpAddr, expect: &Expect<'_>) -> bool {
        expect.fast
            && !on_the_link(packet.source)
            && !on_the_link(own)
            && !matches!(icmp_of(packet), Some(Meaning::Discovery | Meaning::Listeners))
            && packet.hops > 1
            && packet.piece == Piece::Whole
            && fits_link(frame)
            && matches!(route(packet.source), Route::Uplink(_))
    }

    /// What a packet becomes that answers a translated flow, or tells of an error of one.
    fn translated_back(&mut self, packet: &Packet<'_>, expect: &Expect<'_>) -> Option<Change> {
        let now = expect.rules.now;
        let piece = match packet.piece {
            Piece::Later(id) | Piece::First(id) => Some((packet.source, packet.destination, packet.protocol, id)),
            Piece::Whole => None,
        };
        if let (Piece::Later(_), Some(piece)) = (packet.piece, piece) {
            let address = self.nat.piece(&piece, now)?;
            self.note(What::Piece);
            return Some(Change { destination: Some((address, None)), ..Change::default() });
        }
        match icmp_of(packet) {
            Some(Meaning::Error) => {
                let (protocol, wire, far) = quoted_pair(packet).filter(|(_, wire, _)| wire.0 == packet.destination)?;
                let own = self.nat.coming(protocol, far, wire, Passing { flags: None, noted: false, now })?;
                self.note(What::ErrorIn);
                let destination = Some((own.0, None));
                return Some(Change { destination, quoted_source: rewritten(protocol, own), ..Change::default() });
            }
            None | Some(Meaning::Answers) => {}
            Some(_) => return None,
        }
        let (from, to) = ports_of(packet);
        let (far, wire) = ((packet.source, from), (packet.destination, to));
        let own = self.nat.coming(packet.protocol, far, wire, expect.passing(packet))?;
        if let Some(piece) = piece {
            self.nat.remember_piece(piece, own.0, now);
        }
        self.note(What::Back);
        Some(Change { destination: rewritten(packet.protocol, own), ..Change::default() })
    }

    /// From the world to a host of a translated network, at its own address: what it answers keeps that.
    fn note_direct(&mut self, packet: &Packet<'_>, expect: &Expect<'_>) {
        let asks = matches!(icmp_of(packet), None | Some(Meaning::Asks));
        if !matches!(packet.piece, Piece::Later(_)) && asks && expect.network(packet.destination).is_some() {
            let (from, to) = ports_of(packet);
            let echo = icmp_of(packet).is_some();
            let (own, far) = if echo { (0, from) } else { (to, from) };
            let tuple = Tuple { protocol: packet.protocol, own: (packet.destination, own), far: (packet.source, far) };
            self.nat.note_direct(tuple, expect.rules.now);
        }
    }

    fn at_uplink(
        &mut self,
        program: Program,
        frame: &[u8],
        expected: Option<Reason>,
    ) -> Result<(Option<Reason>, Action, Vec<u8>), String> {
        self.uplink.try_frame(self.programs, &mut self.run, program, frame, expected)
    }

    fn untouched(&mut self, program: Program, frame: &[u8]) -> Result<(), String> {
        let (counted, action, after) = self.at_uplink(program, frame, None)?;
        otherwise((None, Action::Pass), (counted, action))?;
        if after == frame { Ok(()) } else { Err(format!("{program:?} changed the frame to {after:?}")) }
    }

    fn becomes(&mut self, program: Program, frame: &[u8], change: &Change) -> Result<(), String> {
        let (counted, action, after) = self.at_uplink(program, frame, None)?;
        otherwise((None, Action::Pass), (counted, action))?;
        compare(frame, &after, change)
    }
}

/// Their checksums cover the addresses, and are not ours to mend: DCCP, UDP-Lite.
fn unsupported(protocol: u8) -> Option<Reason> {
    matches!(protocol, 33 | 136).then_some(Reason::Unsupported)
}

/// The port, or id, that a frame left with.
fn given_port(frame: &[u8]) -> u16 {
    let Ok(reading) = read(frame) else { return 0 };
    packet_in(&reading).map_or(0, |packet| ports_of(packet).0)
}

/// IPv4's type of service, IPv6's traffic class.
fn service_of(frame: &[u8]) -> u8 {
    if frame[14] >> 4 == 4 { frame[15] } else { frame[14] << 4 | frame[15] >> 4 }
}
