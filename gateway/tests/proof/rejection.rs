//! Who is told that a packet is denied, and what: a reset (RFC 9293, 3.10.7.1) or ICMP's "administratively prohibited"
//! (RFC 1812, RFC 4443).

use gateway::egress::attach::Program;
use policy::reason::Reason;

use crate::packets::{checksum, transport_checksum};
use crate::reading::{ACK, Content, FIN, ICMP, ICMPV6, Meaning, Packet, Piece, RST, SYN, Transport, read};
use crate::reference::Member;
use crate::scenario::{Entrance, Shot};

/// Octets of the packet behind its IP header that are quoted.
const QUOTED: usize = 8;

pub(crate) fn is_told(shot: &Shot, reason: Reason, members: &[Member]) -> bool {
    let by_policy = matches!(
        reason,
        Reason::NodeAddress
            | Reason::DeniedByCidr
            | Reason::DeniedByDefault
            | Reason::NameExpired
            | Reason::Revoked
            | Reason::EdgeOnly
            | Reason::DeniedByName
            | Reason::SniMismatch
            | Reason::NoSni
            | Reason::NotTls
            | Reason::UnreadableHello
    );
    let Some(own) = shot.device.workload().map(|index| &members[index]) else { return false };
    let Ok(frame) = read(&shot.frame) else { return false };
    let Content::Ip(packet) = &frame.content else { return false };
    let inside = match (shot.program, shot.entered_by) {
        (Program::FromWorkload, _) => true,
        (Program::ToWorkload, Entrance::Workload(other)) => {
            members[other].network == own.network && members[other].mac == frame.from
        }
        (
            Program::ToWorkload
            | Program::FromService
            | Program::FromUplink
            | Program::ToUplink
            | Program::FromTap
            | Program::FromTrunk,
            _,
        ) => false,
    };
    let ends_something = match packet.transport {
        Transport::Tcp { flags, .. } => flags & RST != 0,
        Transport::Icmp(icmp) => icmp.meaning == Meaning::Error,
        Transport::Udp { .. } | Transport::Sctp { .. } | Transport::Other | Transport::Headless => false,
    };
    let plain = packet.piece == Piece::Whole && packet.at == 14 + header(packet);
    by_policy
        && own.rejects
        && inside
        && plain
        && !ends_something
        && !packet.is_for_many(frame.to)
        && !packet.source.is_unspecified()
        && end(&shot.frame, packet) >= packet.at + QUOTED
}

/// Whether `answer` is what tells the sender of `denied`.
pub(crate) fn check(denied: &[u8], answer: &[u8]) -> Result<(), String> {
    let (before, after) = match (read(denied), read(answer)) {
        (Ok(before), Ok(after)) => (before, after),
        (_, other) => return Err(format!("no answer: {other:?}")),
    };
    let (Content::Ip(sent), Content::Ip(told)) = (&before.content, &after.content) else {
        return Err("no packet".to_owned());
    };
    let all = [
        ("MACs", (after.from, after.to) == (before.to, before.from)),
        ("addresses", (told.source, told.destination) == (sent.destination, sent.source)),
        ("hop limit", told.hops == 64),
        ("length", end(answer, told) == answer.len()),
        ("IPv4's checksum", told.source.is_ipv6() || checksum(&answer[14..34]) == 0),
        ("checksum", transport_checksum(told.source, told.destination, told.protocol, &answer[told.at..]) == 0),
    ];
    if let Some((what, _)) = all.iter().find(|(_, right)| !right) {
        return Err(format!("wrong: {what}"));
    }
    let right = match (&sent.transport, &told.transport) {
        (
            Transport::Tcp { source, destination, flags, .. },
            Transport::Tcp { source: from, destination: to, flags: own, .. },
        ) => {
            (from, to) == (destination, source)
                && numbers(denied, sent, *flags) == (*own, word(answer, told, 4), word(answer, told, 8))
        }
        (Transport::Tcp { .. }, _) => false,
        (_, Transport::Icmp(error)) => {
            let kind = if told.protocol == ICMP { (3, 13) } else { (1, 1) };
            let quote = &denied[14..sent.at + QUOTED];
            [ICMP, ICMPV6].contains(&told.protocol) && (error.kind, error.code) == kind && error.message[8..] == *quote
        }
        (_, _) => false,
    };
    if right { Ok(()) } else { Err("no reset and no error for this packet".to_owned()) }
}

/// Flags, sequence number and acknowledgement of the reset.
fn numbers(denied: &[u8], sent: &Packet<'_>, flags: u8) -> (u8, u32, u32) {
    if flags & ACK != 0 {
        return (RST, word(denied, sent, 8), 0);
    }
    let data = end(denied, sent) - sent.at - usize::from(denied[sent.at + 12] >> 4) * 4;
    let length = data as u32 + u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
    (RST | ACK, 0, word(denied, sent, 4).wrapping_add(length))
}

fn word(frame: &[u8], packet: &Packet<'_>, at: usize) -> u32 {
    let octets = &frame[packet.at + at..][..4];
    octets.iter().fold(0, |word, octet| word << 8 | u32::from(*octet))
}

fn header(packet: &Packet<'_>) -> usize {
    if packet.source.is_ipv4() { 20 } else { 40 }
}

/// Where the packet ends in its frame.
fn end(frame: &[u8], packet: &Packet<'_>) -> usize {
    let said = |at: usize| usize::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
    if packet.source.is_ipv4() { 14 + said(16) } else { 54 + said(18) }
}
