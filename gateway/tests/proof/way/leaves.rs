//! What leaves: a workload's packet by its own program and by the uplink's, others' by the uplink's alone.

use gateway::egress::attach::Program;
use gateway::egress::tables::flows::Origin;
use gateway::workload::Mac;
use policy::reason::Reason;

use super::expect::{
    Expect, given_port, icmp_of, on_the_link, packet_in, quoted_pair, rewritten, service_of, tuple_out, unsupported,
};
use super::frame::{Change, compare};
use super::nat::{Mapping, Passing, Source, Tuple};
use super::uplink::{NEXT, OURS, Route, route};
use super::{Trial, What, otherwise};
use crate::flows::{ends_of, flags_of, quoted_ends};
use crate::frames::GATEWAY;
use crate::held;
use crate::reading::{Meaning, Packet, Piece, TCP, read};
use crate::reference::{Action, Member};
use crate::scenario::Shot;
use crate::trial::check_frame;

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
        let sent = held::as_it_leaves(shot, reason);
        if reason == Reason::SegmentControl {
            return self.stays(shot, reason, action, expect);
        }
        if !expect.skips(frame, packet, own, shot.frame.len() - 14) {
            self.stays(shot, reason, action, expect)?;
            let leaves = own.routed && packet.hops > 1 && matches!(route(packet.destination), Route::Uplink(_));
            if leaves && !on_the_link(packet.source) && frame.to == GATEWAY {
                self.note(What::LeftToStack);
                return self.leaves(&sent, expect);
            }
            return Ok(());
        }
        let outside = reason == Reason::KnownFlow && opener.is_some_and(|opener| opener != Origin::Egress);
        let ordinary = packet.piece == Piece::Whole && matches!(icmp_of(packet), None | Some(Meaning::Asks));
        if !own.translated || !ordinary || outside {
            let done = self.programs.try_shot(&mut self.run, shot, reason)?;
            otherwise((Some(reason), Action::Redirect), (Some(done.reason), done.action))?;
            let macs = self.known_hop(&sent, &done.frame);
            self.took_shortcut();
            compare(&sent, &done.frame, &Change { macs, hop: true, ..Change::default() })?;
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
        let mut before = self.nat.mappings.get(&tuple).cloned();
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
                // what was at hand is over, even if an answer has found the next hop again meanwhile
                self.at_hand.remove(&(tuple, service_of(&shot.frame)));
                before = None;
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
        compare(&held::as_it_leaves(shot, reason), &done.frame, &change)?;
        self.leaves(&done.frame, expect)
    }

    /// What is dropped, refused, or left to the stack as it is.
    fn stays(&mut self, shot: &Shot, reason: Reason, action: Action, expect: &Expect<'_>) -> Result<(), String> {
        let done = self.programs.try_shot(&mut self.run, shot, reason)?;
        otherwise((Some(reason), action), (Some(done.reason), done.action))?;
        check_frame(shot, &done, expect.rules.members)
    }

    /// The MACs that a frame has to have which took a next hop that was known; else they are as they were.
    fn known_hop(&mut self, before: &[u8], after: &[u8]) -> Option<(Mac, Mac)> {
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
        before: Option<Mapping>,
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
}
