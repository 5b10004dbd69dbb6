//! Who has this address? Asked without having one: an ARP probe (RFC 5227, section 2.1.1), a neighbour solicitation of
//! duplicate address detection (RFC 4862, section 5.4.2). Whoever has it answers; nobody learns anything from the question.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::super::egress_address::internet_checksum;
use crate::workload::Mac;

/// The frame that asks.
pub(super) fn frame(sender: Mac, address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => arp(sender, address),
        IpAddr::V6(address) => solicitation(sender, address),
    }
}

fn arp(sender: Mac, address: Ipv4Addr) -> Vec<u8> {
    const REQUEST: [u8; 8] = [0, 1, 8, 0, 6, 4, 0, 1];
    let head = [&[0xff; 6][..], &sender.0, &[8, 6], &REQUEST].concat();
    [&head[..], &sender.0, &[0; 4], &[0; 6], &address.octets()].concat()
}

fn solicitation(sender: Mac, address: Ipv6Addr) -> Vec<u8> {
    const ICMPV6: u8 = 58;
    let target = address.octets();
    // RFC 4291, section 2.7.1
    let [.., a, b, c] = target;
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]));
    let message = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &target].concat();
    let length = [0, 24];
    let pseudo = [&[0; 16][..], &group.octets(), &[0, 0], &length, &[0, 0, 0, ICMPV6], &message].concat();
    let header = [&[0x60, 0, 0, 0][..], &length, &[ICMPV6, 255], &[0; 16], &group.octets()].concat();
    let mut frame = [&[0x33, 0x33, 0xff, a, b, c][..], &sender.0, &[0x86, 0xdd], &header, &message].concat();
    let checksum = 14 + 40 + 2;
    frame[checksum..checksum + 2].copy_from_slice(&internet_checksum(&pseudo).to_be_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 7]);

    #[test]
    fn a_probe_names_no_sender() {
        let frame = frame(MAC, "192.0.2.7".parse().unwrap());
        assert_eq!((frame.len(), &frame[28..32], &frame[38..42]), (42, &[0; 4][..], &[192, 0, 2, 7][..]));
    }

    #[test]
    fn a_solicitation_goes_to_the_group_of_its_target_with_a_right_checksum() {
        let frame = frame(MAC, "2001:db8:ffff:ffff:ffff:ffff:ffff:fff7".parse().unwrap());
        assert_eq!(frame.len(), 14 + 40 + 24);
        assert_eq!(frame[..6], [0x33, 0x33, 0xff, 0xff, 0xff, 0xf7]);
        let pseudo = [&frame[22..54], &[0, 0, 0, 24, 0, 0, 0, 58], &frame[54..]].concat();
        assert_eq!(internet_checksum(&pseudo), 0);
    }
}
