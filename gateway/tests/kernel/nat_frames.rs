//! A node that masquerades its workload's network at the uplink `out0`, and frames with right checksums.

use std::collections::BTreeMap;
use std::net::IpAddr;

use gateway::egress::attach::Program;
use gateway::egress::tables::nat::Translation;
use gateway::sys::bpf_test_run::Answer;
use policy::reason::Reason;

use super::fast::{REDIRECT, arrive, from_up, header_sum, routed_by, send};
use super::frames::*;
use super::world::*;

pub(crate) const WIRE4: &str = "10.9.0.1";
pub(crate) const WIRE6: &str = "fd00:9::1";
/// Own address, the far end's, the uplink's.
pub(crate) const ENDS: [(&str, &str, &str); 2] = [(OWN4, FAR4, WIRE4), (OWN6, FAR6, WIRE6)];
/// Another host of the network, which is no workload.
pub(crate) const HOSTS: [&str; 2] = ["10.1.0.77", "fd00:1::77"];

/// [`routed_by`], masqueraded with this many ports from 50000 on.
pub(crate) fn masqueraded(ports: u16) -> Node {
    masqueraded_by(Node::new(), ports)
}

pub(crate) fn masqueraded_by(node: Node, ports: u16) -> Node {
    let mut node = routed_by(node);
    node.tables.set_node_addresses(&[GATEWAY4, GATEWAY6, WIRE4, WIRE6].map(addr).into()).unwrap();
    node.tables.set_masqueraded(&sources(NETWORK)).unwrap();
    node.tables.set_translation(&translation(ports)).unwrap();
    node.change(|entry| entry.masqueraded = true);
    node
}

pub(crate) fn sources(network: u32) -> BTreeMap<ipnetwork::IpNetwork, u32> {
    ["10.1.0.0/24", "fd00:1::/64"].map(|subnet| (subnet.parse().unwrap(), network)).into()
}

pub(crate) fn translation(ports: u16) -> Translation {
    Translation {
        ifindex: Some(ifindex("out0")),
        ports: Some(50_000..=49_999 + ports),
        addresses: [("0.0.0.0/0", WIRE4), ("::/0", WIRE6)].map(|(to, own)| (to.parse().unwrap(), addr(own))).into(),
    }
}

/// The packet with right checksums of IPv4 and of its TCP, UDP, ICMP or ICMPv6, which is not fragmented.
pub(crate) fn summed(mut packet: Vec<u8>) -> Vec<u8> {
    let (l4, at) = sum_place(&packet);
    if packet[0] >> 4 == 4 {
        packet[10..12].fill(0);
        let sum = header_sum(&packet[..20]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    if let Some(at) = at {
        packet[at..at + 2].fill(0);
        let sum = transport_sum(&packet, l4);
        packet[at..at + 2].copy_from_slice(&if sum == 0 { 0xffff } else { sum }.to_be_bytes());
    }
    packet
}

/// Where the transport begins, and where its checksum is.
fn sum_place(packet: &[u8]) -> (usize, Option<usize>) {
    let (l4, protocol) = if packet[0] >> 4 == 4 { (20, packet[9]) } else { (40, packet[6]) };
    let at = match protocol {
        TCP => Some(16),
        UDP => Some(6),
        ICMP | ICMPV6 => Some(2),
        _ => None,
    };
    (l4, at.map(|at| l4 + at))
}

/// With whatever stands in the checksum's place: 0 where it is right.
fn transport_sum(packet: &[u8], l4: usize) -> u16 {
    let (addresses, protocol) = if l4 == 20 { (&packet[12..20], packet[9]) } else { (&packet[8..40], packet[6]) };
    let length = if l4 == 20 {
        usize::from(u16::from_be_bytes([packet[2], packet[3]])) - 20
    } else {
        usize::from(u16::from_be_bytes([packet[4], packet[5]]))
    };
    let mut all = Vec::new();
    if protocol != ICMP {
        all.extend(addresses);
        all.extend((length as u32).to_be_bytes());
        all.extend(u32::from(protocol).to_be_bytes());
    }
    all.extend(&packet[l4..l4 + length]);
    if all.len() % 2 == 1 {
        all.push(0);
    }
    header_sum(&all)
}

#[track_caller]
pub(crate) fn assert_sums(packet: &[u8]) {
    let (l4, at) = sum_place(packet);
    if l4 == 20 {
        assert_eq!(header_sum(&packet[..20]), 0, "IPv4's checksum");
    }
    if at.is_some() {
        assert_eq!(transport_sum(packet, l4), 0, "the transport's checksum");
    }
}

/// Source and destination.
pub(crate) fn ends(packet: &[u8]) -> (IpAddr, IpAddr) {
    let six = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&packet[at..at + 16]).unwrap());
    let four = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&packet[at..at + 4]).unwrap());
    if packet[0] >> 4 == 4 { (four(12), four(16)) } else { (six(8), six(24)) }
}

/// Of TCP, UDP and SCTP.
pub(crate) fn ports(packet: &[u8]) -> (u16, u16) {
    let (l4, _) = sum_place(packet);
    let port = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
    (port(l4), port(l4 + 2))
}

pub(crate) fn echo_id(packet: &[u8]) -> u16 {
    let (l4, _) = sum_place(packet);
    u16::from_be_bytes([packet[l4 + 4], packet[l4 + 5]])
}

/// A frame's packet, without what pads it.
pub(crate) fn unframed(answer: &Answer) -> Vec<u8> {
    let packet = &answer.packet[14..];
    let length = if packet[0] >> 4 == 4 {
        usize::from(u16::from_be_bytes([packet[2], packet[3]]))
    } else {
        40 + usize::from(u16::from_be_bytes([packet[4], packet[5]]))
    };
    packet[..length].to_vec()
}

/// What the workload sends, as it leaves by the uplink: through both programs that it meets.
#[track_caller]
pub(crate) fn leaves(node: &Node, packet: &[u8]) -> Vec<u8> {
    let sent = send(node, &out(packet));
    assert_eq!(sent.action, REDIRECT, "it takes the fast path");
    let left = by_stack(node, &sent.packet);
    assert_ne!(left.action, 2, "dropped at the uplink");
    unframed(&left)
}

/// A frame at the uplink's egress.
pub(crate) fn by_stack(node: &Node, frame: &[u8]) -> Answer {
    let up = ifindex("out0");
    node.tables.try_frame(Program::ToUplink, frame, up, 0).unwrap()
}

/// What comes by the uplink and goes into the workload.
#[track_caller]
pub(crate) fn comes(node: &Node, packet: &[u8]) -> Vec<u8> {
    let came = arrive(node, &from_up(packet));
    assert_eq!(came.action, REDIRECT, "it goes into the workload");
    unframed(&came)
}

/// The reason that one packet was dropped for at the uplink's egress.
pub(crate) fn refused(node: &Node, frame: &[u8]) -> Reason {
    node.reason_at(Program::ToUplink, frame, ifindex("out0"), 0)
}
