//! One held frame: whose it is, what it carries, and what it becomes on its way back. The kernel's program has judged it
//! before (`bpf/parse.h`): it is whole, of TCP or UDP, and no fragment.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::egress::tables::hold::{HEAD, Head, HeldFlow};
use crate::sys::tap::VNET;

const ETHERNET: usize = 14;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const HOP_BY_HOP: u8 = 0;
const FRAGMENT: u8 = 44;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
const URG: u8 = 0x20;
const RST_ACK: u8 = 0x14;
/// `struct virtio_net_hdr` (VIRTIO 1.2, section 5.1.6): the checksum is to be finished from `csum_start` on.
const NEEDS_CHECKSUM: u8 = 1;
const HEADERS_AT: usize = 2;
const SIZE_AT: usize = 4;
const CHECKSUM_FROM: usize = 6;
const CHECKSUM_AT: usize = 8;

/// A frame as it can be given back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    vnet: [u8; VNET],
    frame: Vec<u8>,
}

/// What was read of a frame.
#[derive(Debug)]
pub(super) struct Held<'a> {
    pub(super) head: Head,
    pub(super) flow: HeldFlow,
    /// TCP's sequence number of the payload's first octet; `None` of UDP.
    pub(super) sequence: Option<u32>,
    pub(super) payload: &'a [u8],
    /// Of TCP: an octet of it is urgent, which the far end's application may not get in its place (RFC 6093).
    pub(super) urgent: bool,
    vnet: [u8; VNET],
    frame: &'a [u8],
    ip: usize,
    transport: usize,
}

impl<'a> Held<'a> {
    /// Reads what came from the TAP; `None` for what is not a held frame.
    pub(super) fn read(bytes: &'a [u8]) -> Option<Self> {
        let (vnet, rest) = bytes.split_first_chunk::<VNET>()?;
        let (head, frame) = Head::split(rest)?;
        let ip = ETHERNET;
        let (protocol, addresses, transport, end) = match u16::from_be_bytes(array(frame, 12)?) {
            IPV4 => ipv4(frame, ip)?,
            IPV6 => ipv6(frame, ip)?,
            _ => return None,
        };
        let segment = frame.get(transport..end)?;
        let ports = (u16::from_be_bytes(array(segment, 0)?), u16::from_be_bytes(array(segment, 2)?));
        let (sequence, header) = match protocol {
            TCP => (Some(u32::from_be_bytes(array(segment, 4)?)), usize::from(segment.get(12)? >> 4) * 4),
            UDP => (None, 8),
            _ => return None,
        };
        let flow = HeldFlow {
            workload: head.workload,
            local: SocketAddr::new(addresses.0, ports.0),
            remote: SocketAddr::new(addresses.1, ports.1),
            protocol,
            opened_ns: head.opened_ns,
        };
        let urgent = protocol == TCP && segment.get(13)? & URG != 0;
        // A checksum that is finished later is written where these say: it must not be elsewhere in what is read here.
        let place = |at: usize| usize::from(u16::from_ne_bytes([vnet[at], vnet[at + 1]]));
        let right = (HEAD + transport, if protocol == TCP { 16 } else { 6 });
        if vnet[0] & NEEDS_CHECKSUM != 0 && (place(CHECKSUM_FROM), place(CHECKSUM_AT)) != right {
            return None;
        }
        Some(Self { head, flow, sequence, payload: segment.get(header..)?, urgent, vnet: *vnet, frame, ip, transport })
    }

    /// What the far end gets by itself: of UDP the datagrams that the frame is to become (UDP_SEGMENT, udp(7)).
    pub(super) fn payloads(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let size = usize::from(u16::from_ne_bytes([self.vnet[SIZE_AT], self.vnet[SIZE_AT + 1]]));
        let cut = self.flow.protocol == UDP && self.vnet[1] != 0 && size > 0;
        self.payload.chunks(if cut { size } else { self.payload.len().max(1) })
    }

    /// Whether all its datagrams are of the same QUIC connection, if they are of one.
    pub(super) fn is_of_one_connection(&self) -> bool {
        let mut ids = self.payloads().map(inspect::destination_id);
        let first = ids.next();
        self.flow.protocol != UDP || ids.all(|id| Some(id) == first)
    }

    /// The frame as the workload sent it, on its way back into its device.
    pub(super) fn keep(&self) -> Kept {
        let mut vnet = self.vnet;
        lower(&mut vnet, HEADERS_AT);
        if vnet[0] & NEEDS_CHECKSUM != 0 {
            lower(&mut vnet, CHECKSUM_FROM);
        }
        let mut frame = self.frame.to_vec();
        frame[6..12].copy_from_slice(&self.head.return_mac());
        Kept { vnet, frame }
    }

    /// What tells the other side of a TCP connection that there will be no more of it: a reset at its first octet of
    /// payload, which is `first`.
    pub(super) fn reset(&self, first: u32) -> Kept {
        let mut frame = self.frame[..self.transport].to_vec();
        frame[6..12].copy_from_slice(&self.head.return_mac());
        let mut segment = [0u8; 20];
        segment[..4].copy_from_slice(&self.frame[self.transport..self.transport + 4]);
        segment[4..8].copy_from_slice(&first.to_be_bytes());
        segment[8..12].copy_from_slice(&self.frame[self.transport + 8..self.transport + 12]);
        segment[12] = 5 << 4;
        segment[13] = RST_ACK;
        let length = frame.len() - self.ip;
        let pseudo = match self.flow.local {
            SocketAddr::V4(_) => {
                set(&mut frame, self.ip + 2, (length + segment.len()) as u16);
                set(&mut frame, self.ip + 10, 0);
                let sum = folded(sum(&frame[self.ip..self.transport]));
                set(&mut frame, self.ip + 10, sum);
                sum_of(&frame[self.ip + 12..self.ip + 20], segment.len())
            }
            SocketAddr::V6(_) => {
                set(&mut frame, self.ip + 4, (length - 40 + segment.len()) as u16);
                sum_of(&frame[self.ip + 8..self.ip + 40], segment.len())
            }
        };
        let check = folded(pseudo + sum(&segment));
        set(&mut segment, 16, check);
        frame.extend_from_slice(&segment);
        Kept { vnet: [0; VNET], frame }
    }
}

impl Kept {
    /// The head and the frame, as the TAP takes them.
    pub(super) fn parts(&self) -> (&[u8; VNET], &[u8]) {
        (&self.vnet, &self.frame)
    }

    /// Octets that are kept.
    pub(super) fn bytes(&self) -> usize {
        self.frame.len()
    }
}

/// Protocol, both addresses, where the transport begins, and where the packet ends.
type Packet = (u8, (IpAddr, IpAddr), usize, usize);

fn ipv4(frame: &[u8], at: usize) -> Option<Packet> {
    let header = usize::from(frame.get(at)? & 0xf) * 4;
    let length = usize::from(u16::from_be_bytes(array(frame, at + 2)?));
    let address = |offset| Some(IpAddr::V4(Ipv4Addr::from(array::<4>(frame, at + offset)?)));
    Some((*frame.get(at + 9)?, (address(12)?, address(16)?), at + header, at + length))
}

fn ipv6(frame: &[u8], at: usize) -> Option<Packet> {
    let length = usize::from(u16::from_be_bytes(array(frame, at + 4)?));
    let address = |offset| Some(IpAddr::V6(Ipv6Addr::from(array::<16>(frame, at + offset)?)));
    let (mut next, mut transport) = (*frame.get(at + 6)?, at + 40);
    while next == HOP_BY_HOP || next == FRAGMENT {
        let header = if next == FRAGMENT { 8 } else { (usize::from(*frame.get(transport + 1)?) + 1) * 8 };
        next = *frame.get(transport)?;
        transport += header;
    }
    Some((next, (address(8)?, address(24)?), transport, at + 40 + length))
}

/// The head of this device's own is gone from the front of the frame.
fn lower(vnet: &mut [u8; VNET], at: usize) {
    let before = u16::from_ne_bytes([vnet[at], vnet[at + 1]]);
    vnet[at..at + 2].copy_from_slice(&before.saturating_sub(HEAD as u16).to_ne_bytes());
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

fn set(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// RFC 1071; the octets are even in number.
fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks_exact(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum()
}

/// With TCP's pseudo header.
fn sum_of(addresses: &[u8], length: usize) -> u32 {
    sum(addresses) + u32::from(TCP) + length as u32
}

fn folded(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    !(((sum & 0xffff) + (sum >> 16)) as u16)
}

#[cfg(test)]
mod tests;
