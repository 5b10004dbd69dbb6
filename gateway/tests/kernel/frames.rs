//! Ethernet frames, built from the inside out. Checksums are left zero: the programs leave them to the stack.

use super::world::{GATEWAY_MAC, MAC, addr};
use gateway::workload::Mac;
use std::net::IpAddr;

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMP: u8 = 1;
pub(crate) const SCTP: u8 = 132;
pub(crate) const ICMPV6: u8 = 58;
pub(crate) const SYN: u8 = 2;
pub(crate) const ACK: u8 = 16;
pub(crate) const RST: u8 = 4;
pub(crate) const FIN: u8 = 1;

pub(crate) fn ethernet(from: Mac, to: Mac, kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame: Vec<u8> = [to.0, from.0].concat();
    frame.extend(kind.to_be_bytes());
    frame.extend(payload);
    frame.resize(frame.len().max(60), 0);
    frame
}

pub(crate) fn tcp(source: u16, destination: u16, flags: u8) -> Vec<u8> {
    let mut h = [source.to_be_bytes(), destination.to_be_bytes()].concat();
    h.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 1, 0, 0, 0, 0, 0]);
    h
}

pub(crate) fn udp(source: u16, destination: u16) -> Vec<u8> {
    let mut h = [source.to_be_bytes(), destination.to_be_bytes(), 12u16.to_be_bytes()].concat();
    h.extend([0, 0, 1, 2, 3, 4]);
    h
}

/// The common header (RFC 9260, section 3.1) and a chunk.
pub(crate) fn sctp(source: u16, destination: u16) -> Vec<u8> {
    let mut h = [source.to_be_bytes(), destination.to_be_bytes()].concat();
    h.extend([0, 0, 0, 7, 0, 0, 0, 0, 1, 0, 0, 4]);
    h
}

/// Type, code, then what follows the checksum.
pub(crate) fn icmp(kind: u8, code: u8, rest: &[u8]) -> Vec<u8> {
    [&[kind, code, 0, 0], rest].concat()
}

pub(crate) fn echo(kind: u8, id: u16) -> Vec<u8> {
    icmp(kind, 0, &[id.to_be_bytes(), [0, 1]].concat())
}

/// One header's knobs; `Default` is an ordinary packet.
#[derive(Clone, Copy)]
pub(crate) struct Knobs {
    pub(crate) hops: u8,
    /// Byte offset and whether more follow.
    pub(crate) fragment: Option<(u16, bool)>,
    pub(crate) id: u16,
}

impl Default for Knobs {
    fn default() -> Self {
        Self { hops: 64, fragment: None, id: 0x77 }
    }
}

/// An IP packet of the addresses' family.
pub(crate) fn packet(source: &str, destination: &str, protocol: u8, knobs: Knobs, payload: &[u8]) -> Vec<u8> {
    match (addr(source), addr(destination)) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let (offset, more) = knobs.fragment.unwrap_or((0, false));
            let fragment = (offset / 8) | if more { 0x2000 } else { 0 };
            let mut h = vec![0x45, 0];
            h.extend((20 + payload.len() as u16).to_be_bytes());
            h.extend(knobs.id.to_be_bytes());
            h.extend(fragment.to_be_bytes());
            h.extend([knobs.hops, protocol, 0, 0]);
            h.extend(source.octets());
            h.extend(destination.octets());
            [&h, payload].concat()
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let mut inner = payload.to_vec();
            let mut next = protocol;
            if let Some((offset, more)) = knobs.fragment {
                let mut h = vec![protocol, 0];
                h.extend((offset | u16::from(more)).to_be_bytes());
                h.extend(u32::from(knobs.id).to_be_bytes());
                inner = [&h[..], payload].concat();
                next = 44;
            }
            let mut h = vec![0x60, 0, 0, 0];
            h.extend((inner.len() as u16).to_be_bytes());
            h.extend([next, knobs.hops]);
            h.extend(source.octets());
            h.extend(destination.octets());
            [h, inner].concat()
        }
        _ => panic!("two families"),
    }
}

fn ether_type(packet: &[u8]) -> u16 {
    if packet[0] >> 4 == 4 { 0x0800 } else { 0x86dd }
}

/// From the workload to its gateway.
pub(crate) fn out(packet: &[u8]) -> Vec<u8> {
    ethernet(MAC, GATEWAY_MAC, ether_type(packet), packet)
}

/// To the workload.
pub(crate) fn into(packet: &[u8]) -> Vec<u8> {
    ethernet(GATEWAY_MAC, MAC, ether_type(packet), packet)
}

/// From the workload to a group.
pub(crate) fn out_multicast(packet: &[u8]) -> Vec<u8> {
    ethernet(MAC, Mac([0x33, 0x33, 0, 0, 0, 1]), ether_type(packet), packet)
}

pub(crate) fn into_multicast(packet: &[u8]) -> Vec<u8> {
    ethernet(GATEWAY_MAC, Mac([0x33, 0x33, 0, 0, 0, 1]), ether_type(packet), packet)
}

pub(crate) fn plain(source: &str, destination: &str, protocol: u8, payload: &[u8]) -> Vec<u8> {
    packet(source, destination, protocol, Knobs::default(), payload)
}

/// What a segment's ND is made of: hop limit 255.
pub(crate) fn nd(source: &str, destination: &str, payload: &[u8]) -> Vec<u8> {
    packet(source, destination, ICMPV6, Knobs { hops: 255, ..Knobs::default() }, payload)
}

/// Solicitation (135) or advertisement (136) of a target, with a link-layer option of type 1 or 2.
pub(crate) fn neighbour(kind: u8, flags: u8, target: &str, option: Option<(u8, Mac)>) -> Vec<u8> {
    let IpAddr::V6(target) = addr(target) else { panic!("IPv6 only") };
    let mut body = vec![flags, 0, 0, 0];
    body.extend(target.octets());
    if let Some((option, mac)) = option {
        body.extend([option, 1]);
        body.extend(mac.0);
    }
    icmp(kind, 0, &body)
}

pub(crate) fn arp(operation: u16, sender_mac: Mac, sender: &str, target: &str) -> Vec<u8> {
    let octets = |text: &str| match addr(text) {
        IpAddr::V4(ip) => ip.octets(),
        IpAddr::V6(_) => panic!("IPv4 only"),
    };
    let mut body = vec![0, 1, 8, 0, 6, 4];
    body.extend(operation.to_be_bytes());
    body.extend(sender_mac.0);
    body.extend(octets(sender));
    body.extend([0; 6]);
    body.extend(octets(target));
    body
}

pub(crate) const BROADCAST: Mac = Mac([0xff; 6]);
