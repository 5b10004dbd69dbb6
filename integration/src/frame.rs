//! Ethernet frames by hand, for what no well-behaved socket sends.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Everybody.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// A locally administered unicast address ending in these bytes, not used by anybody else in a world.
    pub const fn made_up(last: [u8; 2]) -> Self {
        Self([0x02, 0xfa, 0xce, 0, last[0], last[1]])
    }

    /// The multicast address of an IPv6 group (RFC 2464, section 7).
    pub const fn of_group(group: Ipv6Addr) -> Self {
        let [.., a, b, c, d] = group.octets();
        Self([0x33, 0x33, a, b, c, d])
    }
}

impl FromStr for Mac {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let mut bytes = [0u8; 6];
        let mut parts = text.trim().split(':');
        for byte in &mut bytes {
            let part = parts.next().ok_or_else(|| format!("`{text}` is not a MAC"))?;
            *byte = u8::from_str_radix(part, 16).map_err(|error| format!("`{text}`: {error}"))?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// An Ethernet frame.
pub fn ethernet(to: Mac, from: Mac, kind: u16, payload: &[u8]) -> Vec<u8> {
    [&to.0[..], &from.0, &kind.to_be_bytes(), payload].concat()
}

/// The frame with an 802.1Q tag inside, as a workload would send it that tags by itself.
pub fn tagged(frame: &[u8], vlan: u16) -> Vec<u8> {
    [&frame[..12], &[0x81, 0], &vlan.to_be_bytes(), &frame[12..]].concat()
}

/// An ARP message (RFC 826) in a broadcast frame. `operation` is 1 to ask, 2 to tell.
pub fn arp(operation: u16, sender: (Mac, Ipv4Addr), target: (Mac, Ipv4Addr), frame_from: Mac) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4];
    let payload =
        [&head[..], &operation.to_be_bytes(), &sender.0.0, &sender.1.octets(), &target.0.0, &target.1.octets()]
            .concat();
    ethernet(Mac::BROADCAST, frame_from, 0x0806, &payload)
}

/// A UDP datagram in its IP packet, of the family of the two addresses.
pub fn udp(from: (IpAddr, u16), to: (IpAddr, u16), payload: &[u8]) -> Vec<u8> {
    let length = (8 + payload.len()) as u16;
    let (source, destination) = (from.1.to_be_bytes(), to.1.to_be_bytes());
    let segment = [&source[..], &destination, &length.to_be_bytes(), &[0, 0], payload].concat();
    packet(from.0, to.0, 17, 64, segment, 6)
}

/// A TCP segment without data in its IP packet, of the family of the two addresses; `flags` as in the header (SYN is 2).
pub fn tcp(from: (IpAddr, u16), to: (IpAddr, u16), flags: u8) -> Vec<u8> {
    let ports = [from.1.to_be_bytes(), to.1.to_be_bytes()].concat();
    let segment = [&ports[..], &[0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]].concat();
    packet(from.0, to.0, 6, 64, segment, 16)
}

/// The IPv4 packet with these options, a multiple of four bytes (RFC 791, section 3.1).
pub fn with_options(packet: &[u8], options: &[u8]) -> Vec<u8> {
    let mut header = [&packet[..20], options].concat();
    header[0] = 0x40 | (header.len() / 4) as u8;
    let total = (packet.len() + options.len()) as u16;
    header[2..4].copy_from_slice(&total.to_be_bytes());
    [&sealed(header)[..], &packet[20..]].concat()
}

/// The IPv6 packet with an extension header of this kind before its payload; `body` is a multiple of eight bytes, whose
/// first two are replaced by what follows and the length (RFC 8200, section 4).
pub fn with_extension(packet: &[u8], kind: u8, body: &[u8]) -> Vec<u8> {
    let mut extension = body.to_vec();
    extension[0] = packet[6];
    // of a fragment header these bits are reserved
    extension[1] = (body.len() / 8 - 1) as u8;
    let mut header = packet[..40].to_vec();
    header[6] = kind;
    let length = (packet.len() - 40 + body.len()) as u16;
    header[4..6].copy_from_slice(&length.to_be_bytes());
    [&header[..], &extension, &packet[40..]].concat()
}

/// The bytes `part` of a packet's payload as a fragment of it, of either family; `part` begins at a multiple of eight.
pub fn fragment(packet: &[u8], id: u16, part: std::ops::Range<usize>, more: bool) -> Vec<u8> {
    let begin = part.start as u16;
    if packet[0] >> 4 == 4 {
        let mut header = packet[..20].to_vec();
        header[2..4].copy_from_slice(&(20 + part.len() as u16).to_be_bytes());
        header[4..6].copy_from_slice(&id.to_be_bytes());
        header[6..8].copy_from_slice(&((begin / 8) | if more { 0x2000 } else { 0 }).to_be_bytes());
        return [&sealed(header)[..], &packet[20..][part]].concat();
    }
    let whole = [&packet[..40], &packet[40..][part]].concat();
    let place = (begin | u16::from(more)).to_be_bytes();
    with_extension(&whole, 44, &[0, 0, place[0], place[1], 0, 0, id.to_be_bytes()[0], id.to_be_bytes()[1]])
}

/// An ICMPv6 message in its packet with hop limit 255, as neighbour discovery wants it (RFC 4861).
pub fn icmpv6(from: Ipv6Addr, to: Ipv6Addr, message: Vec<u8>) -> Vec<u8> {
    packet(from.into(), to.into(), 58, 255, message, 2)
}

/// A neighbour advertisement (RFC 4861, section 4.4), unsolicited, overriding, with the target's link-layer address.
pub fn neighbour_advertisement(target: Ipv6Addr, mac: Mac) -> Vec<u8> {
    [&[136, 0, 0, 0, 0x20, 0, 0, 0][..], &target.octets(), &[2, 1], &mac.0].concat()
}

/// A router advertisement (RFC 4861, section 4.2) with a lifetime of 1800 s and the router's link-layer address.
pub fn router_advertisement(mac: Mac) -> Vec<u8> {
    [&[134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1][..], &mac.0].concat()
}

/// The EtherType of an address's family.
pub const fn ether_type(address: IpAddr) -> u16 {
    match address {
        IpAddr::V4(_) => 0x0800,
        IpAddr::V6(_) => 0x86dd,
    }
}

/// Whether `frame` holds these bytes anywhere.
pub fn holds(frame: &[u8], marker: &[u8]) -> bool {
    frame.windows(marker.len()).any(|window| window == marker)
}

/// A packet whose transport checksum stands at `checksum_at` of the segment and is computed over the pseudo header.
fn packet(from: IpAddr, to: IpAddr, protocol: u8, hops: u8, mut segment: Vec<u8>, checksum_at: usize) -> Vec<u8> {
    let length = segment.len() as u16;
    let (header, pseudo) = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let total = (20 + length).to_be_bytes();
            let mut header =
                [&[0x45, 0][..], &total, &[0, 0, 0, 0, hops, protocol, 0, 0], &from.octets(), &to.octets()].concat();
            let sum = checksum(&header).to_be_bytes();
            header[10..12].copy_from_slice(&sum);
            (header, [&from.octets()[..], &to.octets(), &[0, protocol], &length.to_be_bytes()].concat())
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let addresses = [from.octets(), to.octets()].concat();
            let header = [&[0x60, 0, 0, 0][..], &length.to_be_bytes(), &[protocol, hops], &addresses].concat();
            (header, [&addresses[..], &u32::from(length).to_be_bytes(), &[0, 0, 0, protocol]].concat())
        }
        _ => panic!("{from} and {to} are not of one family"),
    };
    let sum = checksum(&[&pseudo[..], &segment].concat()).to_be_bytes();
    segment[checksum_at..checksum_at + 2].copy_from_slice(&sum);
    [header, segment].concat()
}

/// An IPv4 header with its checksum.
fn sealed(mut header: Vec<u8>) -> Vec<u8> {
    header[10..12].fill(0);
    let sum = checksum(&header).to_be_bytes();
    header[10..12].copy_from_slice(&sum);
    header
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_is_that_of_rfc_1071() {
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
    }

    #[test]
    fn a_packet_verifies_against_its_own_checksum() {
        let bytes = udp((Ipv4Addr::LOCALHOST.into(), 1), (Ipv4Addr::LOCALHOST.into(), 2), b"abc");
        assert_eq!(checksum(&bytes[..20]), 0);
        assert_eq!(bytes.len(), 31);
    }

    #[test]
    fn options_extensions_and_fragments_are_well_formed() {
        let (four, six) = (Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into());
        let routed = with_options(&udp((four, 1), (four, 2), b"abc"), &[131, 3, 4, 0]);
        assert_eq!((routed[0], checksum(&routed[..24]), routed.len()), (0x46, 0, 35));
        let second = fragment(&udp((four, 1), (four, 2), b"abcdefgh"), 7, 8..16, false);
        assert_eq!((checksum(&second[..20]), &second[4..8], &second[20..]), (0, &[0, 7, 0, 1][..], &b"abcdefgh"[..]));
        let first = fragment(&udp((six, 1), (six, 2), b"abcdefgh"), 7, 0..8, true);
        assert_eq!((first[5], first[6], &first[40..48]), (16, 44, &[17, 0, 0, 1, 0, 0, 0, 7][..]));
    }

    #[test]
    fn mac_round_trips() {
        let mac = Mac::made_up([1, 0xab]);
        assert_eq!(mac.to_string().parse(), Ok(mac));
        assert!("02:fa:ce".parse::<Mac>().is_err());
    }
}
