//! Packets as bytes, with the checksums that senders make (RFC 1071).

use std::net::IpAddr;

use gateway::workload::Mac;

use crate::reading::{ICMP, ICMPV6, TCP, UDP};

/// One packet in its frame; the fields that may lie are public.
#[derive(Clone, Debug)]
pub(crate) struct Wire {
    pub(crate) from: Mac,
    pub(crate) to: Mac,
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) hops: u8,
    pub(crate) id: u16,
    /// Byte offset, and whether more follow.
    pub(crate) fragment: Option<(u16, bool)>,
    /// Of IPv4.
    pub(crate) options: Vec<u8>,
    /// Of IPv6: kind and size.
    pub(crate) extensions: Vec<(u8, usize)>,
    pub(crate) protocol: u8,
    pub(crate) payload: Vec<u8>,
    /// The length of the payload as the header says it.
    pub(crate) claimed: Option<u16>,
    /// Another EtherType and what it carries.
    pub(crate) raw: Option<(u16, Vec<u8>)>,
}

impl Wire {
    pub(crate) fn new(source: IpAddr, destination: IpAddr, from: Mac, to: Mac) -> Self {
        Self {
            from,
            to,
            source,
            destination,
            hops: 64,
            id: 0,
            fragment: None,
            options: Vec::new(),
            extensions: Vec::new(),
            protocol: UDP,
            payload: Vec::new(),
            claimed: None,
            raw: None,
        }
    }

    /// The frame goes to the group that the packet goes to (RFC 1112, RFC 2464).
    pub(crate) fn group_mac(&mut self) {
        match self.destination {
            IpAddr::V4(ip) if ip.is_broadcast() => self.to = Mac([0xff; 6]),
            IpAddr::V4(ip) if ip.is_multicast() => {
                let [_, b, c, d] = ip.octets();
                self.to = Mac([1, 0, 0x5e, b & 0x7f, c, d]);
            }
            IpAddr::V6(ip) if ip.is_multicast() => {
                let [.., a, b, c, d] = ip.octets();
                self.to = Mac([0x33, 0x33, a, b, c, d]);
            }
            _ => {}
        }
    }

    pub(crate) fn packet(&self) -> Vec<u8> {
        let mut payload = self.payload.clone();
        if self.fragment.is_none() {
            put_checksum(self.source, self.destination, self.protocol, &mut payload);
        }
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let (offset, more) = self.fragment.unwrap_or((0, false));
                let header = 20 + self.options.len();
                let total = self.claimed.unwrap_or(payload.len() as u16) + header as u16;
                let fragment = (offset / 8) | if more { 0x2000 } else { 0 };
                let mut h = vec![0x40 | (header / 4) as u8, 0];
                h.extend([total, self.id, fragment].map(u16::to_be_bytes).concat());
                h.extend([self.hops, self.protocol, 0, 0]);
                h.extend([source.octets(), destination.octets()].concat());
                h.extend(&self.options);
                let sum = checksum(&h).to_be_bytes();
                h[10..12].copy_from_slice(&sum);
                [h, payload].concat()
            }
            _ => {
                let mut next = self.protocol;
                if let Some((offset, more)) = self.fragment {
                    let mut h = vec![next, 0];
                    h.extend((offset | u16::from(more)).to_be_bytes());
                    h.extend(u32::from(self.id).to_be_bytes());
                    payload = [h, payload].concat();
                    next = 44;
                }
                for (kind, size) in self.extensions.iter().rev() {
                    let mut h = vec![0; *size];
                    (h[0], h[1]) = (next, (size / 8 - 1) as u8);
                    h[2..6].copy_from_slice(&[5, 2, 0, 0]); // router alert (RFC 2711)
                    (payload, next) = ([h, payload].concat(), *kind);
                }
                let mut h = vec![0x60, 0, 0, 0];
                h.extend(self.claimed.unwrap_or(payload.len() as u16).to_be_bytes());
                h.extend([next, self.hops]);
                h.extend([octets(self.source), octets(self.destination)].concat());
                [h, payload].concat()
            }
        }
    }

    /// With padding to the shortest frame that Ethernet has, if wanted.
    pub(crate) fn frame(&self, padded: bool) -> Vec<u8> {
        let (kind, payload) = match &self.raw {
            Some((kind, payload)) => (*kind, payload.clone()),
            None => {
                let packet = self.packet();
                (if packet[0] >> 4 == 4 { 0x0800 } else { 0x86dd }, packet)
            }
        };
        let mut frame = [&self.to.0[..], &self.from.0, &kind.to_be_bytes(), &payload].concat();
        if padded {
            frame.resize(frame.len().max(60), 0);
        }
        frame
    }
}

/// In IPv6 terms: an IPv4 address as mapped.
fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

fn put_checksum(source: IpAddr, destination: IpAddr, protocol: u8, payload: &mut [u8]) {
    let at = match protocol {
        TCP => 16,
        UDP => 6,
        ICMP | ICMPV6 => 2,
        _ => return,
    };
    if payload.len() < at + 2 {
        return;
    }
    let sum = transport_checksum(source, destination, protocol, payload).to_be_bytes();
    payload[at..at + 2].copy_from_slice(&sum);
}

/// What the checksum field must hold: over the payload as if that field were zero. Zero over all if it holds it already.
pub(crate) fn transport_checksum(source: IpAddr, destination: IpAddr, protocol: u8, payload: &[u8]) -> u16 {
    let length = (payload.len() as u32).to_be_bytes();
    let pseudo = match (source, destination) {
        _ if protocol == ICMP => Vec::new(),
        (IpAddr::V4(from), IpAddr::V4(to)) => [&from.octets()[..], &to.octets(), &[0, protocol], &length[2..]].concat(),
        (from, to) => [&octets(from)[..], &octets(to), &length, &[0, 0, 0, protocol]].concat(),
    };
    checksum(&[&pseudo[..], payload].concat())
}

pub(crate) fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
