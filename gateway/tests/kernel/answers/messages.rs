//! Questions, answers, and what the kernel is to make of them.

use std::net::IpAddr;

use gateway::egress::tables::answers::Kept;

use crate::frames::{UDP, out, plain};
use crate::world::addr;

pub(crate) const A: u16 = 1;
pub(crate) const AAAA: u16 = 28;
pub(crate) const HTTPS: u16 = 65;
pub(crate) const RD: u16 = 0x0100;
const SOA: u16 = 6;

/// A question by UDP, and what of it a test changes.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) id: u16,
    pub(crate) flags: u16,
    pub(crate) name: &'static str,
    pub(crate) kind: u16,
    /// The payload that an OPT record offers, and its flags.
    pub(crate) opt: Option<(u16, u16)>,
}

impl Default for Ask {
    fn default() -> Self {
        Self { id: 0x1234, flags: RD, name: "api.example.com", kind: A, opt: None }
    }
}

pub(crate) fn labels(name: &str) -> Vec<u8> {
    let mut octets = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        octets.push(label.len() as u8);
        octets.extend(label.as_bytes());
    }
    octets.push(0);
    octets
}

impl Ask {
    pub(crate) fn named(name: &'static str) -> Self {
        Self { name, ..Self::default() }
    }

    pub(crate) fn message(&self) -> Vec<u8> {
        let words = [self.id, self.flags, 1, 0, 0, u16::from(self.opt.is_some())];
        let mut message: Vec<u8> = words.into_iter().flat_map(u16::to_be_bytes).collect();
        message.extend(labels(self.name));
        message.extend([self.kind, 1].into_iter().flat_map(u16::to_be_bytes));
        if let Some((payload, flags)) = self.opt {
            message.extend([0, 0, 41]);
            message.extend(payload.to_be_bytes());
            message.extend([0, 0]);
            message.extend(flags.to_be_bytes());
            message.extend([0, 0]);
        }
        message
    }

    /// What a server says: these addresses behind an alias, each with its own TTL; that there are none, if none are given.
    pub(crate) fn answer(&self, addresses: &[&str], ttl: u32) -> Vec<u8> {
        let records = if addresses.is_empty() { 0 } else { 1 + addresses.len() as u16 };
        let code = if addresses.is_empty() { 3 } else { 0 };
        let words =
            [self.id, 0x8080 | self.flags | code, 1, records, u16::from(records == 0), u16::from(self.opt.is_some())];
        let mut message: Vec<u8> = words.into_iter().flat_map(u16::to_be_bytes).collect();
        message.extend(labels(self.name));
        message.extend([self.kind, 1].into_iter().flat_map(u16::to_be_bytes));
        if records > 0 {
            let alias = labels("edge.cdn.net");
            let target = (message.len() + 12) as u16;
            record(&mut message, 0xc00c, 5, ttl + 600, &alias);
            for (number, address) in addresses.iter().enumerate() {
                let data = match addr(address) {
                    IpAddr::V4(address) => address.octets().to_vec(),
                    IpAddr::V6(address) => address.octets().to_vec(),
                };
                record(&mut message, 0xc000 | target, self.kind, ttl + number as u32, &data);
            }
        } else {
            let times: Vec<u8> = [1u32, 3600, 600, 86400, ttl + 900].into_iter().flat_map(u32::to_be_bytes).collect();
            record(&mut message, 0xc00c, SOA, ttl, &[labels("ns.x"), labels("who.x"), times].concat());
        }
        if self.opt.is_some() {
            // An extended error: its octets in the place of a TTL are none.
            message.extend([0, 0, 41, 4, 0xd0, 0, 0, 0x80, 0, 0, 6, 0, 15, 0, 2, 0, 3]);
        }
        message
    }
}

fn record(message: &mut Vec<u8>, name: u16, kind: u16, ttl: u32, data: &[u8]) {
    message.extend([name, kind, 1].into_iter().flat_map(u16::to_be_bytes));
    message.extend(ttl.to_be_bytes());
    message.extend((data.len() as u16).to_be_bytes());
    message.extend(data);
}

/// What the kernel is to answer: the client's own id and question, all else as it was kept, with these seconds as TTLs.
pub(crate) fn reply(question: &[u8], kept: &Kept, seconds: u32) -> Vec<u8> {
    let end = 12 + kept.asked.name.len() + 4;
    let mut tail = kept.tail.to_vec();
    kept.ttls.iter().for_each(|at| tail[usize::from(*at)..][..4].copy_from_slice(&seconds.to_be_bytes()));
    let [answers, authorities, additionals] = kept.counts;
    let words = [kept.flags, 1, answers, authorities, additionals].map(u16::to_be_bytes).concat();
    [&question[..2], &words, &question[12..end], &tail].concat()
}

/// Ones' complement of the sum (RFC 1071): 0 if the octets have their checksum.
pub(crate) fn residue(octets: &[u8]) -> u16 {
    let words = octets.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The pseudo-header of a datagram of this length (RFC 768; RFC 8200, 8.1).
pub(crate) fn pseudo(from: &str, to: &str, length: usize) -> Vec<u8> {
    let octets = |ip: &str| match addr(ip) {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    [octets(from), octets(to), (length as u32).to_be_bytes().to_vec(), vec![0, 0, 0, UDP]].concat()
}

/// A whole datagram to port 53, checksum included.
pub(crate) fn datagram(from: &str, to: &str, message: &[u8]) -> Vec<u8> {
    let length = 8 + message.len();
    let mut datagram = [4000u16, 53, length as u16, 0].map(u16::to_be_bytes).concat();
    datagram.extend(message);
    let sum = residue(&[pseudo(from, to, length), datagram.clone()].concat());
    datagram[6..8].copy_from_slice(&if sum == 0 { 0xffff } else { sum }.to_be_bytes());
    datagram
}

/// The frame of the workload that carries it.
pub(crate) fn frame(from: &str, to: &str, message: &[u8]) -> Vec<u8> {
    out(&plain(from, to, UDP, &datagram(from, to, message)))
}
