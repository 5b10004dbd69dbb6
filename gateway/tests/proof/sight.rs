//! ClientHellos that the program reads by itself, as the head of `sight.h` tells it.

use std::hash::{DefaultHasher, Hash, Hasher};

use config::names::DnsName;
use gateway::egress::attach::Program;
use inspect::client_hello::Reader;
use policy::reason::Reason;
use policy::{Resolved, Shown};

use crate::draw::Draw;
use crate::flows::{Ends, Passage};
use crate::frames::GATEWAY;
use crate::held::Met;
use crate::packets::Wire;
use crate::reading::{ACK, FIN, Packet, Piece, RST, SYN, TCP, Transport, URG};
use crate::reference::{Member, Reference, Rules, target};
use crate::scenario::{Device, Entrance, Shot};
use crate::world::{World, any_name};

/// What the program reads at most, and at least.
const LENGTH: std::ops::RangeInclusive<usize> = 44..=2048;
/// Names of an address that the kernel has.
pub(crate) const SLOTS: usize = 4;

/// What was read of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The number behind it.
    pub(crate) end: u32,
    octets: u64,
}

impl Seen {
    pub(crate) fn of(passage: Passage) -> Self {
        Self { end: passage.number.wrapping_add(passage.length), octets: passage.octets }
    }

    /// Whether the packet carries the same, and nothing else.
    pub(crate) fn is(self, passage: Passage, first: u32) -> bool {
        passage.number == first && self == Self::of(passage)
    }
}

/// A hello by some name: most are as they should be.
pub(crate) fn hello(draw: &mut Draw) -> Vec<u8> {
    let name = any_name(draw).to_string();
    let name = if draw.one_in(4) { name.to_uppercase() } else { name };
    let name = [&[0][..], &vector(name.as_bytes())].concat();
    let shown = [&[0, 0][..], &vector(&vector(&name))].concat();
    let other = [&[0x2a, draw.below(2) as u8][..], &vector(&[7; 9])].concat();
    let extensions = match draw.below(8) {
        0 => other,
        1 => [&shown[..], &shown].concat(),
        2 => [&shown[..], &other].concat(),
        _ => [&other[..], &shown].concat(),
    };
    let mut record = record(&extensions);
    match draw.below(12) {
        0 => record.truncate(draw.below(record.len() as u64) as usize),
        1 => record.push(0),
        2 => {
            let at = draw.below(record.len() as u64) as usize;
            record[at] = draw.below(256) as u8;
        }
        _ => {}
    }
    record
}

/// A workload visits what it looked up: a handshake, what it shows, and what both sides send then.
pub(crate) fn visit(draw: &mut Draw, world: &World, members: &[Member]) -> Vec<Shot> {
    let Some(lookup) = (!world.lookups.is_empty()).then(|| draw.of(&world.lookups)) else { return Vec::new() };
    let index = lookup.workload as usize;
    let own = &members[index];
    let (local, remote) = (own.own[usize::from(lookup.address.is_ipv6())].0, lookup.address);
    let ports = [50_000 + draw.below(200) as u16, draw.of(&[443, 443, 80, 8000])];
    let said = if draw.one_in(3) { hello(draw) } else { hello_by(&lookup.name) };
    let end = 2 + said.len() as u32;
    let segment = |out: bool, flags: u8, [sequence, acknowledged]: [u32; 2], carried: &[u8]| {
        let (from, to) = if out { (ports[0], ports[1]) } else { (ports[1], ports[0]) };
        let (mut wire, program) = match out {
            true => (Wire::new(local, remote, own.mac, GATEWAY), Program::FromWorkload),
            false => (Wire::new(remote, local, GATEWAY, own.mac), Program::ToWorkload),
        };
        wire.protocol = TCP;
        wire.payload = [&from.to_be_bytes()[..], &to.to_be_bytes(), &sequence.to_be_bytes()].concat();
        wire.payload.extend([&acknowledged.to_be_bytes()[..], &[0x50, flags, 1, 0, 0, 0, 0, 0], carried].concat());
        Shot { program, device: Device::Workload(index), entered_by: Entrance::Stranger, frame: wire.frame(true) }
    };
    let mut all = vec![
        segment(true, SYN, [1, 0], &[]),
        segment(false, SYN | ACK, [8, 2], &[]),
        segment(true, ACK, [2, 9], &said),
    ];
    for _ in 0..draw.below(6) {
        let number = draw.of(&[2, 1, 3, end, end - 1, end + 1]);
        all.push(match draw.below(9) {
            0 | 1 => segment(true, ACK, [2, 9], &said),
            2 => segment(true, draw.of(&[ACK, SYN | ACK, URG | ACK, FIN | ACK, RST]), [number, 9], &said),
            3 => segment(true, draw.of(&[ACK, SYN, RST, FIN | ACK]), [number, 9], &[]),
            4 => segment(true, ACK, [number, 9], b"more"),
            5 => segment(true, ACK, [2, 9], &hello(draw)),
            6 => segment(false, draw.of(&[ACK, RST | ACK, SYN | ACK]), [9, number], &[]),
            7 => segment(false, ACK, [9, number], b"answer"),
            _ => segment(false, ACK, [9, end], &[]),
        });
    }
    all
}

fn hello_by(name: &DnsName) -> Vec<u8> {
    let name = [&[0][..], &vector(name.as_str().as_bytes())].concat();
    let shown = [&[0, 0][..], &vector(&vector(&name))].concat();
    record(&shown)
}

fn record(extensions: &[u8]) -> Vec<u8> {
    let body = [&[3, 3][..], &[7; 32], &[0, 0, 2, 0x13, 1, 1, 0], &vector(extensions)].concat();
    let message = [&[1, 0][..], &vector(&body)].concat();
    [&[22, 3, 1][..], &vector(&message)].concat()
}

fn vector(octets: &[u8]) -> Vec<u8> {
    [&(octets.len() as u16).to_be_bytes(), octets].concat()
}

/// What a whole segment carries.
pub(crate) fn payload<'a>(packet: &Packet<'_>, frame: &'a [u8]) -> &'a [u8] {
    if packet.piece != Piece::Whole || !matches!(packet.transport, Transport::Tcp { .. }) {
        return &[];
    }
    let begin = packet.at + usize::from(frame[packet.at + 12] >> 4) * 4;
    &frame[begin..begin + packet.data]
}

pub(crate) fn known_by(payload: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    payload.hash(&mut hasher);
    hasher.finish()
}

/// Who is asked for by what is one record, and all of a segment.
pub(crate) fn named(payload: &[u8]) -> Option<DnsName> {
    let one_record =
        payload.len() > 5 && usize::from(u16::from_be_bytes([payload[3], payload[4]])) == payload.len() - 5;
    if !one_record || !LENGTH.contains(&payload.len()) {
        return None;
    }
    let hello = Reader::default().push(payload).ok()??;
    DnsName::try_from(hello.server_name?).ok()
}

impl Reference {
    /// The flow of a packet that was for the inspector is verified by it, and by a name that the workload resolved.
    pub(crate) fn at_sight(
        &mut self,
        ends: &Ends,
        payload: &[u8],
        passage: Passage,
        rules: &Rules<'_>,
    ) -> Option<Reason> {
        let name = named(payload)?;
        let opened = self.flows.readable(ends, passage)?;
        let known = rules.ledger.resolved(rules.ids[ends.workload], ends.remote);
        known.iter().find(|own| own.name == name && own.expires > opened)?;
        let own = Resolved { name: name.clone(), expires: u64::MAX };
        let resolved: Vec<_> = [own].into_iter().chain(known).collect();
        let decision = rules.sends_by(ends.workload, target(ends), &resolved, Shown::Name(&name));
        if decision.reason != Reason::AllowedByName || decision.name.as_ref() != Some(&name) {
            return None;
        }
        self.note(Met::AtSight);
        self.flows.shown(ends, decision, name, passage, rules.now);
        Some(Reason::AllowedByName)
    }
}
