//! A frame, read plainly from the RFCs: Ethernet, ARP (826), IPv4 (791), IPv6 (8200), TCP (9293), UDP (768), SCTP (9260), ICMP (792),
//! ICMPv6 (4443). What breaks them, and what the header comment of `tidegate.bpf.c` says is not spoken, is an error.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use gateway::workload::Mac;
use policy::reason::Reason;

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const SCTP: u8 = 132;
pub(crate) const ICMP: u8 = 1;
pub(crate) const ICMPV6: u8 = 58;

pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const ACK: u8 = 16;
pub(crate) const URG: u8 = 32;

#[derive(Debug)]
pub(crate) struct Reading<'a> {
    pub(crate) to: Mac,
    pub(crate) from: Mac,
    pub(crate) content: Content<'a>,
}

#[derive(Debug)]
pub(crate) enum Content<'a> {
    /// The message, and what may follow it.
    Arp(&'a [u8]),
    Ip(Packet<'a>),
}

#[derive(Debug)]
pub(crate) struct Packet<'a> {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) hops: u8,
    pub(crate) protocol: u8,
    pub(crate) piece: Piece,
    pub(crate) transport: Transport<'a>,
    /// Where the transport header begins in the frame.
    pub(crate) at: usize,
    /// Octets behind the transport header, of TCP and UDP.
    pub(crate) data: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Whole,
    First(u32),
    Later(u32),
}

#[derive(Debug)]
pub(crate) enum Transport<'a> {
    Tcp {
        source: u16,
        destination: u16,
        flags: u8,
        sequence: u32,
        acknowledged: u32,
    },
    Udp {
        source: u16,
        destination: u16,
    },
    Sctp {
        source: u16,
        destination: u16,
    },
    Icmp(Icmp<'a>),
    /// A protocol without ports.
    Other,
    /// A later fragment has no header.
    Headless,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Icmp<'a> {
    pub(crate) kind: u8,
    pub(crate) code: u8,
    /// Of an echo.
    pub(crate) id: u16,
    /// The message, header included, no longer than its packet says.
    pub(crate) message: &'a [u8],
    pub(crate) meaning: Meaning,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    Asks,
    Answers,
    Error,
    Discovery,
    Listeners,
    Redirect,
    Other,
}

pub(crate) fn read(frame: &[u8]) -> Result<Reading<'_>, Reason> {
    let (header, rest) = frame.split_first_chunk::<14>().ok_or(Reason::Malformed)?;
    let [a, b, c, d, e, f, g, h, i, j, k, l, ..] = *header;
    let (to, from) = (Mac([a, b, c, d, e, f]), Mac([g, h, i, j, k, l]));
    let content = match u16::from_be_bytes([header[12], header[13]]) {
        0x0806 => Content::Arp(rest),
        0x0800 => Content::Ip(read_ipv4(rest)?),
        0x86dd => Content::Ip(read_ipv6(rest)?),
        0x8100 | 0x88a8 | 0x9100 => return Err(Reason::Tagged),
        _ => return Err(Reason::Unsupported),
    };
    Ok(Reading { to, from, content })
}

impl Packet<'_> {
    /// Whether the address, or the frame, is for more than one.
    pub(crate) fn is_for_many(&self, frame_to: Mac) -> bool {
        let address = match self.destination {
            IpAddr::V4(ip) => ip.is_multicast() || ip.is_broadcast(),
            IpAddr::V6(ip) => ip.is_multicast(),
        };
        address || frame_to.0[0] & 1 == 1
    }

    pub(crate) fn icmp(&self) -> Option<Icmp<'_>> {
        match self.transport {
            Transport::Icmp(icmp) => Some(icmp),
            _ => None,
        }
    }

    /// Ports of a UDP header, whole or of a first fragment.
    pub(crate) fn udp(&self) -> Option<(u16, u16)> {
        match self.transport {
            Transport::Udp { source, destination } => Some((source, destination)),
            _ => None,
        }
    }
}

fn read_ipv4(bytes: &[u8]) -> Result<Packet<'_>, Reason> {
    let header = bytes.first_chunk::<20>().ok_or(Reason::Malformed)?;
    let words = header[0] & 15;
    if header[0] >> 4 != 4 || words < 5 {
        return Err(Reason::Malformed);
    }
    if words > 5 {
        return Err(Reason::Unsupported);
    }
    let total = usize::from(number(header, 2));
    if total < 20 || total > bytes.len() || header[6] & 0x80 != 0 {
        return Err(Reason::Malformed);
    }
    let source = Ipv4Addr::new(header[12], header[13], header[14], header[15]);
    let destination = Ipv4Addr::new(header[16], header[17], header[18], header[19]);
    let this_network = |ip: Ipv4Addr| ip.octets()[0] == 0;
    let reserved = |ip: Ipv4Addr| ip.octets()[0] >= 240;
    let no_source = source.is_loopback()
        || source.is_multicast()
        || reserved(source)
        || this_network(source) && !source.is_unspecified();
    let no_destination =
        destination.is_loopback() || this_network(destination) || reserved(destination) && !destination.is_broadcast();
    if no_source || no_destination {
        return Err(Reason::Malformed);
    }
    let (more, offset) = (header[6] & 0x20 != 0, (number(header, 6) & 0x1fff) * 8);
    let id = u32::from(number(header, 4));
    let piece = match (offset, more) {
        (0, false) => Piece::Whole,
        (0, true) => Piece::First(id),
        _ => Piece::Later(id),
    };
    let (protocol, payload) = (header[9], &bytes[20..total]);
    if protocol == ICMPV6 && !matches!(piece, Piece::Later(_)) {
        return Err(Reason::Malformed);
    }
    let transport = read_transport(protocol, payload, piece, offset, piece != Piece::Whole)?;
    let (source, destination, data) = (source.into(), destination.into(), data_behind(&transport, payload));
    Ok(Packet { source, destination, hops: header[8], protocol, piece, transport, at: 34, data })
}

fn read_ipv6(bytes: &[u8]) -> Result<Packet<'_>, Reason> {
    let header = bytes.first_chunk::<40>().ok_or(Reason::Malformed)?;
    let length = usize::from(number(header, 4));
    if header[0] >> 4 != 6 || 40 + length > bytes.len() {
        return Err(Reason::Malformed);
    }
    let address = |at: usize| Ipv6Addr::from(*header[at..].first_chunk::<16>().unwrap());
    let (source, destination) = (address(8), address(24));
    let off_wire = |ip: Ipv6Addr| ip.is_loopback() || ip.to_ipv4_mapped().is_some();
    let group_of_nobody = destination.is_multicast() && destination.segments()[0] & 0xf < 2;
    if off_wire(source)
        || off_wire(destination)
        || source.is_multicast()
        || destination.is_unspecified()
        || group_of_nobody
    {
        return Err(Reason::Malformed);
    }

    let (mut next, mut payload) = (header[6], &bytes[40..40 + length]);
    let mut options_seen = false;
    if next == 0 {
        let [following, words, ..] = *payload.first_chunk::<8>().ok_or(Reason::Malformed)?;
        let size = (usize::from(words) + 1) * 8;
        if size > 64 {
            return Err(Reason::Unsupported);
        }
        payload = payload.get(size..).ok_or(Reason::Malformed)?;
        (next, options_seen) = (following, true);
    }
    let (mut piece, mut offset, mut fragmented) = (Piece::Whole, 0, false);
    if next == 44 {
        let (fragment, rest) = payload.split_first_chunk::<8>().ok_or(Reason::Malformed)?;
        let id = u32::from_be_bytes([fragment[4], fragment[5], fragment[6], fragment[7]]);
        offset = number(fragment, 2) & 0xfff8;
        piece = match (offset, fragment[3] & 1) {
            (0, 0) => Piece::Whole, // RFC 6946
            (0, _) => Piece::First(id),
            _ => Piece::Later(id),
        };
        (next, payload, fragmented) = (fragment[0], rest, true);
    }
    if [0, 43, 44, 51, 59, 60, 135, 139, 140].contains(&next) {
        return Err(Reason::Unsupported);
    }
    if next == ICMP && !matches!(piece, Piece::Later(_)) {
        return Err(Reason::Malformed);
    }
    let transport = read_transport(next, payload, piece, offset, fragmented)?;
    let listeners = matches!(transport, Transport::Icmp(Icmp { meaning: Meaning::Listeners, .. }));
    if options_seen && !listeners {
        return Err(Reason::Unsupported);
    }
    let at = 14 + 40 + length - payload.len();
    let (source, destination, data) = (source.into(), destination.into(), data_behind(&transport, payload));
    Ok(Packet { source, destination, hops: header[7], protocol: next, piece, transport, at, data })
}

/// `fragmented`: there is a fragment header, be it of a whole packet.
fn read_transport(
    protocol: u8,
    payload: &[u8],
    piece: Piece,
    offset: u16,
    fragmented: bool,
) -> Result<Transport<'_>, Reason> {
    if let Piece::Later(_) = piece {
        // RFC 1858: it would write over the first's header
        let overlaps = (protocol == TCP && offset < 20) || (protocol == SCTP && offset < 12);
        return if overlaps { Err(Reason::Malformed) } else { Ok(Transport::Headless) };
    }
    let needs = |size: usize| if payload.len() < size { Err(Reason::Malformed) } else { Ok(()) };
    match protocol {
        TCP => {
            needs(20)?;
            let header = usize::from(payload[12] >> 4) * 4;
            if header < 20 || piece == Piece::Whole && header > payload.len() {
                return Err(Reason::Malformed);
            }
            let long = |at| u32::from(number(payload, at)) << 16 | u32::from(number(payload, at + 2));
            let (source, destination) = (number(payload, 0), number(payload, 2));
            Ok(Transport::Tcp { source, destination, flags: payload[13], sequence: long(4), acknowledged: long(8) })
        }
        UDP => {
            needs(8)?;
            Ok(Transport::Udp { source: number(payload, 0), destination: number(payload, 2) })
        }
        SCTP => {
            needs(12)?;
            Ok(Transport::Sctp { source: number(payload, 0), destination: number(payload, 2) })
        }
        ICMP | ICMPV6 => {
            needs(8)?;
            let meaning = if protocol == ICMP { meaning4(payload[0]) } else { meaning6(payload[0]) };
            let meaning = match meaning {
                Meaning::Asks | Meaning::Answers if payload[1] != 0 => Meaning::Other, // echo has code 0
                other => other,
            };
            // what is judged by its inside must be whole (RFC 6980)
            if fragmented && !matches!(meaning, Meaning::Asks | Meaning::Answers) {
                return Err(Reason::Malformed);
            }
            let (kind, code, id) = (payload[0], payload[1], echo_id(payload));
            Ok(Transport::Icmp(Icmp { kind, code, id, message: payload, meaning }))
        }
        _ => Ok(Transport::Other),
    }
}

fn data_behind(transport: &Transport<'_>, payload: &[u8]) -> usize {
    let header = match transport {
        Transport::Tcp { .. } => usize::from(payload[12] >> 4) * 4,
        Transport::Udp { .. } => 8,
        Transport::Sctp { .. } | Transport::Icmp(_) | Transport::Other | Transport::Headless => return 0,
    };
    payload.len().saturating_sub(header)
}

/// As flows have it: 65535 stands for 0.
pub(crate) fn echo_id(message: &[u8]) -> u16 {
    match number(message, 4) {
        0 => 65535,
        id => id,
    }
}

fn meaning4(kind: u8) -> Meaning {
    match kind {
        8 => Meaning::Asks,
        0 => Meaning::Answers,
        3 | 11 | 12 => Meaning::Error,
        5 => Meaning::Redirect,
        _ => Meaning::Other,
    }
}

fn meaning6(kind: u8) -> Meaning {
    match kind {
        128 => Meaning::Asks,
        129 => Meaning::Answers,
        1..=4 => Meaning::Error,
        130..=132 | 143 => Meaning::Listeners,
        133..=136 => Meaning::Discovery,
        137 => Meaning::Redirect,
        _ => Meaning::Other,
    }
}

/// What an ICMP error quotes: the sender, the receiver, the protocol, and the first eight bytes of what it carried.
pub(crate) struct Quoted {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) protocol: u8,
    pub(crate) head: [u8; 8],
}

pub(crate) fn quoted(error: Icmp<'_>, six: bool) -> Option<Quoted> {
    let bytes = error.message.get(8..)?;
    if !six {
        let header = bytes.first_chunk::<20>()?;
        if header[0] != 0x45 || number(header, 6) & 0x1fff != 0 {
            return None;
        }
        let source = Ipv4Addr::new(header[12], header[13], header[14], header[15]).into();
        let destination = Ipv4Addr::new(header[16], header[17], header[18], header[19]).into();
        return Some(Quoted { source, destination, protocol: header[9], head: *bytes[20..].first_chunk()? });
    }
    let header = bytes.first_chunk::<40>()?;
    if header[0] >> 4 != 6 {
        return None;
    }
    let address = |at: usize| IpAddr::from(Ipv6Addr::from(*header[at..].first_chunk::<16>().unwrap()));
    let (mut protocol, mut rest) = (header[6], &bytes[40..]);
    if protocol == 44 {
        let (fragment, further) = rest.split_first_chunk::<8>()?;
        if number(fragment, 2) & 0xfff8 != 0 {
            return None;
        }
        (protocol, rest) = (fragment[0], further);
    }
    Some(Quoted { source: address(8), destination: address(24), protocol, head: *rest.first_chunk()? })
}

pub(crate) fn meaning(kind: u8, six: bool) -> Meaning {
    if six { meaning6(kind) } else { meaning4(kind) }
}

/// A big-endian number of two bytes.
pub(crate) fn number(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}
