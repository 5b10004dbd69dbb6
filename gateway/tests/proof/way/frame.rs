//! What may be changed in a frame, done plainly, and what a changed frame is compared by: every octet but the checksums, and
//! those by sums over the whole, before and after.

use std::net::IpAddr;

use gateway::workload::Mac;

use crate::packets::{checksum, transport_checksum};
use crate::reading::{Content, ICMP, ICMPV6, Packet, Piece, SCTP, TCP, Transport, UDP, quoted, read};

/// What is written over a packet's own fields.
#[derive(Clone, Debug, Default)]
pub(crate) struct Change {
    /// Destination and source.
    pub(crate) macs: Option<(Mac, Mac)>,
    /// The hop limit is one less.
    pub(crate) hop: bool,
    /// Address, and port or id.
    pub(crate) source: Option<(IpAddr, Option<u16>)>,
    pub(crate) destination: Option<(IpAddr, Option<u16>)>,
    /// The same in the packet that an ICMP error quotes.
    pub(crate) quoted_source: Option<(IpAddr, Option<u16>)>,
    pub(crate) quoted_destination: Option<(IpAddr, Option<u16>)>,
}

/// Whether `after` is `before` with this change and nothing else.
pub(crate) fn compare(before: &[u8], after: &[u8], change: &Change) -> Result<(), String> {
    let Ok(Content::Ip(packet)) = read(before).map(|frame| frame.content) else {
        return Err("what could not be read was changed".to_owned());
    };
    let wanted = changed(before, &packet, change);
    if wanted.len() != after.len() {
        return Err(format!("{} octets became {}", wanted.len(), after.len()));
    }
    let sums = sums(before, &packet);
    let mut blank = [wanted.clone(), after.to_vec()];
    for at in sums.iter().map(|sum| sum.at) {
        blank.iter_mut().for_each(|frame| frame[at..at + 2].fill(0));
    }
    if let Some(at) = (0..wanted.len()).find(|at| blank[0][*at] != blank[1][*at]) {
        return Err(format!("octet {at} is {:#04x}, should be {:#04x}; {change:?}", after[at], wanted[at]));
    }
    for sum in sums {
        let (was, is) = (residue(before, &sum), residue(after, &sum));
        if was != is {
            return Err(format!("checksum at {}: a residue of {was:?} became {is:?}; {change:?}", sum.at));
        }
    }
    Ok(())
}

/// The frame with this change; its checksums are what they were.
pub(crate) fn with(frame: &[u8], change: &Change) -> Vec<u8> {
    match read(frame).map(|frame| frame.content) {
        Ok(Content::Ip(packet)) => changed(frame, &packet, change),
        _ => frame.to_vec(),
    }
}

fn changed(frame: &[u8], packet: &Packet<'_>, change: &Change) -> Vec<u8> {
    let mut frame = frame.to_vec();
    if let Some((to, from)) = change.macs {
        frame[..6].copy_from_slice(&to.0);
        frame[6..12].copy_from_slice(&from.0);
    }
    let six = packet.source.is_ipv6();
    if change.hop {
        frame[if six { 21 } else { 22 }] -= 1;
    }
    let protocol = packet.protocol;
    for (new, side) in [(change.source, 0), (change.destination, 1)] {
        put(&mut frame, 14, packet.at, protocol, side, six, new);
    }
    if change.quoted_source.is_some() || change.quoted_destination.is_some() {
        let (inner, at, protocol) = quote_place(packet);
        for (new, side) in [(change.quoted_source, 0), (change.quoted_destination, 1)] {
            put(&mut frame, inner, at, protocol, side, six, new);
        }
    }
    frame
}

/// Writes an address, and a port where there is one, of side 0 (source) or 1.
fn put(
    frame: &mut [u8],
    header: usize,
    transport: usize,
    protocol: u8,
    side: usize,
    six: bool,
    new: Option<(IpAddr, Option<u16>)>,
) {
    let Some((address, port)) = new else { return };
    match address {
        IpAddr::V4(ip) if !six => {
            frame[header + 12 + 4 * side..header + 16 + 4 * side].copy_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) if six => {
            frame[header + 8 + 16 * side..header + 24 + 16 * side].copy_from_slice(&ip.octets());
        }
        other => panic!("{other} in a packet of the other family"),
    }
    let at = match (protocol, port) {
        (TCP | UDP | SCTP, Some(_)) => transport + 2 * side,
        (ICMP | ICMPV6, Some(_)) => transport + 4,
        _ => return,
    };
    frame[at..at + 2].copy_from_slice(&port.unwrap_or(0).to_be_bytes());
}

/// Where the quoted packet begins and its transport, and what that is.
fn quote_place(packet: &Packet<'_>) -> (usize, usize, u8) {
    let icmp = packet.icmp().unwrap();
    let quote = quoted(icmp, packet.source.is_ipv6()).unwrap();
    let inner = packet.at + 8;
    let at = match packet.source {
        IpAddr::V4(_) => inner + 20,
        IpAddr::V6(_) if icmp.message[8 + 6] == 44 => inner + 48,
        IpAddr::V6(_) => inner + 40,
    };
    (inner, at, quote.protocol)
}

/// A checksum in a frame.
#[derive(Clone, Debug)]
struct Sum {
    at: usize,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    /// Of an IPv4 header there.
    Header(usize),
    /// Of a transport that begins and ends there, of the packet whose header begins there.
    Transport { header: usize, begin: usize, end: usize, protocol: u8 },
}

fn sums(frame: &[u8], packet: &Packet<'_>) -> Vec<Sum> {
    let six = packet.source.is_ipv6();
    let mut all = Vec::new();
    let mut add = |header: usize, begin: usize, end: usize, protocol: u8| {
        if !six {
            all.push(Sum { at: header + 10, kind: Kind::Header(header) });
        }
        let offset = match protocol {
            TCP => 16,
            UDP => 6,
            ICMP | ICMPV6 => 2,
            _ => return,
        };
        let at = begin + offset;
        let left_out = protocol == UDP && frame.get(at..at + 2) == Some(&[0, 0]);
        if at + 2 <= end && !left_out {
            all.push(Sum { at, kind: Kind::Transport { header, begin, end, protocol } });
        }
    };
    let length = |at: usize| usize::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
    let end = if six { 54 + length(18) } else { 14 + length(16) };
    let headless = matches!(packet.piece, Piece::Later(_));
    add(14, packet.at, if headless { packet.at } else { end }, packet.protocol);
    if let Transport::Icmp(icmp) = packet.transport
        && icmp.meaning == crate::reading::Meaning::Error
        && quoted(icmp, six).is_some()
    {
        let (inner, at, protocol) = quote_place(packet);
        add(inner, at, end, protocol);
    }
    all
}

/// What the sum over everything comes to: the same for a packet and its translation, whether it was right, whole, or not.
fn residue(frame: &[u8], sum: &Sum) -> u16 {
    match sum.kind {
        Kind::Header(at) => checksum(&frame[at..at + 20]),
        Kind::Transport { header, begin, end, protocol } => {
            let address = |at: usize| -> IpAddr {
                match frame[header] >> 4 {
                    4 => <[u8; 4]>::try_from(&frame[header + 12 + 4 * at..header + 16 + 4 * at]).unwrap().into(),
                    _ => <[u8; 16]>::try_from(&frame[header + 8 + 16 * at..header + 24 + 16 * at]).unwrap().into(),
                }
            };
            transport_checksum(address(0), address(1), protocol, &frame[begin..end])
        }
    }
}
