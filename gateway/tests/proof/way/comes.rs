//! What comes by the uplink.

use std::net::IpAddr;

use gateway::egress::attach::Program;

use super::expect::{Expect, icmp_of, on_the_link, packet_in, ports_of, quoted_pair, rewritten};
use super::frame::{Change, compare};
use super::nat::{Passing, Tuple};
use super::uplink::{OURS, Route, fits_link, route};
use super::{Trial, What, otherwise};
use crate::frames::GATEWAY;
use crate::reading::{Meaning, Packet, Piece, read};
use crate::reference::Action;
use crate::scenario::{Device, Entrance, Shot};

impl Trial<'_> {
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
}
