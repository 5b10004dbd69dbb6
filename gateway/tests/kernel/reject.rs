//! Who sent what is denied is told, if it is inside: the answers octet by octet.

use std::time::Duration;

use gateway::egress::attach::Program;
use gateway::egress::tables::fill::Rejection;
use gateway::workload::{Mac, WorkloadId};

use super::frames::{echo, ethernet, icmp, into, out, packet, plain, tcp, udp, *};
use super::world::*;

const SHOT: i32 = 2;
const REDIRECT: i32 = 7;

fn node() -> Node {
    let mut node = Node::new();
    node.change(|entry| entry.rejects = true);
    node
}

/// What the workload is told; `None` if the frame is dropped without a word.
fn told(node: &Node, frame: &[u8]) -> Option<Vec<u8>> {
    let answer = node.tables.try_frame(Program::FromWorkload, frame, node.device, 0).unwrap();
    match answer.action {
        REDIRECT => Some(answer.packet),
        SHOT => None,
        other => panic!("it passes: {other}"),
    }
}

fn count(node: &Node, which: Rejection) -> u64 {
    node.tables.rejections().unwrap().into_iter().find(|(outcome, _)| *outcome == which).unwrap().1
}

/// The Internet checksum (RFC 1071) over these octets is right if this is 0.
fn residue(parts: &[&[u8]]) -> u16 {
    let octets = parts.concat();
    let words = octets.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The payload of an answer from `from` to `to`, with all its checksums right.
fn payload<'a>(frame: &'a [u8], (from, to): (&str, &str), protocol: u8) -> &'a [u8] {
    assert_eq!(frame[..12], [MAC.0, GATEWAY_MAC.0].concat(), "from whom it was sent to, back");
    let head = if addr(from).is_ipv4() { 20 } else { 40 };
    let (ip, rest) = frame[14..].split_at(head);
    let empty = packet(from, to, protocol, Knobs { id: 0, ..Knobs::default() }, rest);
    let length = (rest.len() as u32).to_be_bytes();
    let pseudo = if head == 20 {
        assert_eq!(ip[..6], empty[..6], "length");
        assert_eq!((ip[8], ip[9], &ip[12..]), (64, protocol, &empty[12..20]));
        assert_eq!(residue(&[ip]), 0, "IPv4's checksum");
        [&ip[12..], &length, &[0, 0, 0, protocol]].concat()
    } else {
        assert_eq!(*ip, empty[..40]);
        [&ip[8..], &length, &[0, 0, 0, protocol]].concat()
    };
    let pseudo = if protocol == ICMP { Vec::new() } else { pseudo };
    assert_eq!(residue(&[&pseudo, rest]), 0, "checksum of protocol {protocol}");
    rest
}

/// A TCP segment with sequence numbers and some data.
fn segment(flags: u8, sequence: u32, acknowledged: u32, data: usize) -> Vec<u8> {
    let mut segment = tcp(4000, 9999, flags);
    segment[4..8].copy_from_slice(&sequence.to_be_bytes());
    segment[8..12].copy_from_slice(&acknowledged.to_be_bytes());
    segment.resize(20 + data, 7);
    segment
}

#[test]
fn tcp_is_reset_as_a_closed_port_would() {
    let node = node();
    let cases = [
        (SYN, 0xffff_ffff, 0, 0, (0, 0u32, RST | ACK)),
        (SYN, 7, 0, 100, (0, 108, RST | ACK)),
        (FIN, 7, 0, 3, (0, 11, RST | ACK)),
        (ACK, 7, 900, 1400, (900, 0, RST)),
        (ACK | FIN, 7, 901, 0, (901, 0, RST)),
    ];
    for (own, far) in [(OWN4, FAR4), (OWN6, FAR6)] {
        for (flags, sequence, acknowledged, data, (expected, expected_ack, kind)) in cases {
            let before = count(&node, Rejection::Reset);
            let frame = out(&plain(own, far, TCP, &segment(flags, sequence, acknowledged, data)));
            let answer = told(&node, &frame).expect("a reset");
            let reset = payload(&answer, (far, own), TCP);
            assert_eq!(reset.len(), 20);
            assert_eq!(reset[..4], [9999u16.to_be_bytes(), 4000u16.to_be_bytes()].concat());
            assert_eq!(reset[4..8], u32::to_be_bytes(expected), "sequence");
            assert_eq!(reset[8..12], expected_ack.to_be_bytes(), "acknowledgement");
            assert_eq!(reset[12..14], [0x50, kind]);
            assert_eq!(count(&node, Rejection::Reset), before + 1);
        }
        assert_eq!(told(&node, &out(&plain(own, far, TCP, &segment(RST, 7, 0, 0)))), None, "a reset of a reset");
    }
}

#[test]
fn everything_else_is_prohibited_by_icmp() {
    let node = node();
    for (own, far, family, kind, asks) in [(OWN4, FAR4, ICMP, [3, 13], 8), (OWN6, FAR6, ICMPV6, [1, 1], 128)] {
        let denied = if family == ICMP { "10.9.66.1" } else { "fd00:9:66::1" };
        let long = [udp(4000, 9999), vec![5; 1300]].concat();
        for (to, protocol, body) in [
            (far, UDP, udp(4000, 9999)),
            (far, UDP, long),
            (far, SCTP, sctp(1, 2)),
            (denied, family, echo(asks, 3)),
            (far, 47, vec![0; 8]),
        ] {
            let sent = plain(own, to, protocol, &body);
            let answer = told(&node, &out(&sent)).expect("an ICMP error");
            let message = payload(&answer, (to, own), family);
            assert_eq!(message[..2], kind);
            assert_eq!(message[4..8], [0; 4]);
            let head = if family == ICMP { 20 } else { 40 };
            assert_eq!(message[8..], sent[..head + 8], "the packet's own head");
        }
    }
    assert_eq!(count(&node, Rejection::Icmp), 10);
    assert_eq!(count(&node, Rejection::Failed), 0);
}

#[test]
fn nobody_else_is_told() {
    let mut node = node();
    let far = |payload: &[u8]| plain(OWN4, FAR4, UDP, payload);
    let mut spoofed = out(&far(&udp(4000, 9999)));
    spoofed[6] ^= 2;
    let fragment = |at| packet(OWN4, FAR4, UDP, Knobs { fragment: Some(at), ..Knobs::default() }, &[0; 64]);
    let atomic = packet(OWN6, FAR6, UDP, Knobs { fragment: Some((0, false)), ..Knobs::default() }, &udp(4000, 9999));
    for (what, frame) in [
        ("another's MAC", spoofed),
        ("another's address", out(&plain("10.1.0.99", FAR4, UDP, &udp(4000, 9999)))),
        ("a first fragment", out(&fragment((0, true)))),
        ("a later fragment", out(&fragment((64, false)))),
        ("an atomic fragment", out(&atomic)),
        ("a group", out_multicast(&plain(OWN4, "224.0.0.9", UDP, &udp(4000, 9999)))),
        ("an error", out(&plain(OWN4, FAR4, ICMP, &icmp(3, 1, &[0; 32])))),
        ("an answer that nobody asked for", out(&plain(OWN4, FAR4, ICMP, &echo(0, 3)))),
    ] {
        assert_eq!(told(&node, &frame), None, "{what}");
    }
    let denied = out(&far(&udp(4000, 9999)));
    assert!(told(&node, &denied).is_some());
    node.change(|entry| entry.sealed = true);
    assert_eq!(told(&node, &denied), None, "sealed");
    node.change(|entry| (entry.sealed, entry.rejects) = (false, false));
    assert_eq!(told(&node, &denied), None, "onDeny: Drop");
}

#[test]
fn a_flow_that_a_change_ends_is_told_with_its_next_packet() {
    let mut node = node();
    let open = out(&plain(OWN4, FAR4, TCP, &tcp(4000, 443, SYN)));
    assert_eq!(node.sends(&open), policy::reason::Reason::AllowedByCidr);
    node.tables.write_generation(&nothing(2)).unwrap();
    node.change(|entry| (entry.generation, entry.egress_policy) = (2, policy::tables::PolicyId(110)));
    let mut next = tcp(4000, 443, ACK);
    next[8..12].copy_from_slice(&77u32.to_be_bytes());
    let answer = told(&node, &out(&plain(OWN4, FAR4, TCP, &next))).expect("a reset");
    assert_eq!(payload(&answer, (FAR4, OWN4), TCP)[4..8], 77u32.to_be_bytes());
}

#[test]
fn a_neighbour_is_told_and_a_stranger_is_not() {
    let node = node();
    ip("link add w2 type veth peer name w2p");
    let other = ifindex("w2");
    let mac = Mac([2, 0, 0, 0, 0, 2]);
    let mut neighbour = entry(2);
    (neighbour.id, neighbour.mac) = (WorkloadId(2), mac);
    node.tables.switch(other, &neighbour).unwrap();
    let hears = |frame: &[u8], by: u32| {
        let answer = node.tables.try_frame(Program::ToWorkload, frame, node.device, by).unwrap();
        (answer.action == REDIRECT).then_some(answer.packet)
    };
    let sent = ethernet(mac, MAC, 0x0800, &plain("10.1.0.3", OWN4, TCP, &tcp(4000, 9999, SYN)));
    let answer = hears(&sent, other).expect("a reset");
    assert_eq!(answer[..12], [mac.0, MAC.0].concat());
    assert_eq!((answer[23], answer[47]), (TCP, RST | ACK));
    assert_eq!(hears(&sent, 1), None, "from a device that is nobody's");
    assert_eq!(hears(&into(&plain("10.1.0.3", OWN4, TCP, &tcp(4000, 9999, SYN))), other), None, "a router's frame");
    let mut elsewhere = neighbour;
    elsewhere.network = NETWORK + 1;
    node.tables.switch(other, &elsewhere).unwrap();
    assert_eq!(hears(&sent, other), None, "another tenant");
}

#[test]
fn a_flood_is_told_so_many_times_a_second() {
    let node = node();
    let denied = out(&plain(OWN4, FAR4, UDP, &udp(4000, 9999)));
    let begin = gateway::sys::bpf::boot_time();
    for _ in 0..5_000 {
        node.tables.try_frame(Program::FromWorkload, &denied, node.device, 0).unwrap();
    }
    let seconds = (gateway::sys::bpf::boot_time() - begin + Duration::from_secs(2)).as_secs();
    let (sent, kept) = (count(&node, Rejection::Icmp), count(&node, Rejection::OverBudget));
    assert_eq!(sent + kept, 5_000);
    assert!(sent >= 1_000 && sent <= 1_000 * seconds, "{sent} in {seconds} s");
}
