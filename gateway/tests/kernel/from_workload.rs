//! The list "From a workload", frame by frame.

use std::collections::BTreeSet;
use std::time::Duration;

use gateway::egress::tables::node::Listener;
use gateway::workload::Mac;
use policy::reason::Reason::{self, *};

use super::frames::*;
use super::world::*;

const OTHER: Mac = Mac([2, 0, 0, 0, 0, 0x99]);

fn check(node: &Node, cases: Vec<(&str, Vec<u8>, Reason)>) {
    for (what, frame, reason) in cases {
        assert_eq!(node.sends(&frame), reason, "{what}");
    }
}

fn broken(packet: &[u8], at: usize, byte: u8) -> Vec<u8> {
    let mut packet = packet.to_vec();
    packet[at] = byte;
    out(&packet)
}

#[test]
fn an_unknown_or_sealed_device_passes_nothing() {
    let mut node = Node::new();
    let allowed = out(&plain(OWN4, FAR4, TCP, &tcp(4000, 80, SYN)));
    let arp = ethernet(MAC, BROADCAST, 0x0806, &arp(1, MAC, OWN4, GATEWAY4));
    node.change(|e| e.sealed = true);
    for frame in [&allowed, &arp, &out(&plain(OWN4, FAR4, UDP, &udp(4000, 53)))] {
        assert_eq!(node.sends(frame), Sealed);
        assert_eq!(node.receives(&into(&frame[14..])), Sealed);
    }
    let other = ifindex("w1p");
    use gateway::egress::attach::Program::{FromWorkload, ToWorkload};
    for program in [FromWorkload, ToWorkload] {
        assert_eq!(node.reason_at(program, &allowed, other, 0), UnknownDevice);
    }
}

#[test]
fn what_cannot_be_read_is_dropped() {
    let node = Node::new();
    let good = plain(OWN4, FAR4, TCP, &tcp(4000, 80, SYN));
    let good6 = plain(OWN6, FAR6, TCP, &tcp(4000, 80, SYN));
    let fragment = |source, to, protocol, offset, more, payload: &[u8]| {
        out(&packet(source, to, protocol, Knobs { fragment: Some((offset, more)), ..Knobs::default() }, payload))
    };
    check(
        &node,
        vec![
            ("IPv4 options", broken(&good, 0, 0x46), Unsupported),
            ("header too short", broken(&good, 0, 0x44), Malformed),
            ("longer than the frame", broken(&good, 2, 0x20), Malformed),
            ("shorter than its header", broken(&good, 3, 10), Malformed),
            ("reserved flag", broken(&good, 6, 0x80), Malformed),
            ("TCP header too short", broken(&good, 32, 0x40), Malformed),
            ("TCP header cut", out(&plain(OWN4, FAR4, TCP, &tcp(1, 80, SYN)[..16])), Malformed),
            ("UDP header cut", out(&plain(OWN4, FAR4, UDP, &[0; 6])), Malformed),
            ("from loopback", out(&plain("127.0.0.1", FAR4, UDP, &udp(1, 5000))), Malformed),
            ("to loopback", out(&plain(OWN4, "127.0.0.1", UDP, &udp(1, 5000))), Malformed),
            ("from a group", out(&plain("224.0.0.5", FAR4, UDP, &udp(1, 5000))), Malformed),
            ("from broadcast", out(&plain("255.255.255.255", FAR4, UDP, &udp(1, 5000))), Malformed),
            ("to class E", out(&plain(OWN4, "240.0.0.1", UDP, &udp(1, 5000))), Malformed),
            ("to 0/8", out(&plain(OWN4, "0.1.2.3", UDP, &udp(1, 5000))), Malformed),
            ("ICMPv6 in IPv4", out(&plain(OWN4, FAR4, ICMPV6, &echo(128, 1))), Malformed),
            ("first fragment without ports", fragment(OWN4, FAR4, TCP, 0, true, &tcp(1, 80, SYN)[..8]), Malformed),
            ("fragment into the TCP header", fragment(OWN4, FAR4, TCP, 8, false, &[0; 16]), Malformed),
            ("version 4 in IPv6", broken(&good6, 0, 0x40), Malformed),
            ("IPv6 longer than the frame", broken(&good6, 4, 0x20), Malformed),
            ("IPv4-mapped source", out(&plain("::ffff:10.1.0.2", FAR6, TCP, &tcp(1, 80, SYN))), Malformed),
            ("IPv4-mapped destination", out(&plain(OWN6, "::ffff:10.9.0.9", TCP, &tcp(1, 80, SYN))), Malformed),
            ("from ::1", out(&plain("::1", FAR6, TCP, &tcp(1, 80, SYN))), Malformed),
            ("to ::1", out(&plain(OWN6, "::1", TCP, &tcp(1, 80, SYN))), Malformed),
            ("to ::", out(&plain(OWN6, "::", TCP, &tcp(1, 80, SYN))), Malformed),
            ("from an IPv6 group", out(&plain("ff02::1", FAR6, TCP, &tcp(1, 80, SYN))), Malformed),
            ("interface-local group", out(&plain(OWN6, "ff01::1", UDP, &udp(1, 5000))), Malformed),
            ("routing header", broken(&good6, 6, 43), Unsupported),
            ("destination options", broken(&good6, 6, 60), Unsupported),
            ("authentication header", broken(&good6, 6, 51), Unsupported),
            ("nothing follows", broken(&good6, 6, 59), Unsupported),
            (
                "hop-by-hop before TCP",
                out(&plain(OWN6, FAR6, 0, &[&[TCP, 0, 1, 4, 0, 0, 0, 0], &tcp(1, 80, SYN)[..]].concat())),
                Unsupported,
            ),
            ("hop-by-hop too long", out(&plain(OWN6, FAR6, 0, &[&[TCP, 1, 1, 4, 0, 0, 0, 0][..]].concat())), Malformed),
            ("TCP in IPv6 cut", out(&plain(OWN6, FAR6, TCP, &tcp(1, 80, SYN)[..12])), Malformed),
            ("tag in the frame", ethernet(MAC, GATEWAY_MAC, 0x8100, &good), Tagged),
            ("service tag", ethernet(MAC, GATEWAY_MAC, 0x88a8, &good), Tagged),
            ("LLDP", ethernet(MAC, GATEWAY_MAC, 0x88cc, &good), Unsupported),
            ("a length, as spanning tree has it", ethernet(MAC, GATEWAY_MAC, 38, &good), Unsupported),
            ("RARP", ethernet(MAC, BROADCAST, 0x8035, &good), Unsupported),
        ],
    );
}

#[test]
fn nobody_else_can_be_played() {
    let node = Node::new();
    let packet4 = plain(OWN4, FAR4, TCP, &tcp(4000, 80, SYN));
    let option = |o| Some((o, MAC));
    let to_all = |payload: &[u8], source: &str| out_multicast(&nd(source, "ff02::1", payload));
    check(
        &node,
        vec![
            ("another MAC", ethernet(OTHER, GATEWAY_MAC, 0x0800, &packet4), SpoofedMac),
            ("another IPv4 address", out(&plain("10.1.0.3", FAR4, TCP, &tcp(1, 80, SYN))), SpoofedAddress),
            ("the gateway's", out(&plain(GATEWAY4, FAR4, TCP, &tcp(1, 80, SYN))), SpoofedAddress),
            ("another IPv6 address", out(&plain("fd00:1::3", FAR6, TCP, &tcp(1, 80, SYN))), SpoofedAddress),
            ("0.0.0.0", out(&plain("0.0.0.0", FAR4, UDP, &udp(68, 5000))), SpoofedAddress),
            (":: with TCP", out(&plain("::", FAR6, TCP, &tcp(1, 80, SYN))), SpoofedAddress),
            (":: with echo", out(&plain("::", FAR6, ICMPV6, &echo(128, 1))), SpoofedAddress),
            (
                "ARP with another MAC inside",
                ethernet(MAC, BROADCAST, 0x0806, &arp(1, OTHER, OWN4, GATEWAY4)),
                SpoofedMac,
            ),
            ("ARP for another address", ethernet(MAC, BROADCAST, 0x0806, &arp(2, MAC, GATEWAY4, OWN4)), SpoofedAddress),
            ("ARP reply from nobody", ethernet(MAC, BROADCAST, 0x0806, &arp(2, MAC, "0.0.0.0", OWN4)), SpoofedAddress),
            ("ARP for IPv6 or so", ethernet(MAC, BROADCAST, 0x0806, &[0u8; 28]), Malformed),
            (
                "advertisement of another",
                to_all(&neighbour(136, 0x20, GATEWAY6, option(2)), OWN_LINK_LOCAL),
                SpoofedAddress,
            ),
            ("advertisement with another MAC", to_all(&neighbour(136, 0x20, OWN6, Some((2, OTHER))), OWN6), SpoofedMac),
            ("advertisement as router", to_all(&neighbour(136, 0xa0, OWN6, option(2)), OWN6), RogueServer),
            ("solicitation with another MAC", to_all(&neighbour(135, 0, GATEWAY6, Some((1, OTHER))), OWN6), SpoofedMac),
            ("DAD for another", to_all(&neighbour(135, 0, GATEWAY6, None), "::"), SpoofedAddress),
            (
                "option of no length",
                to_all(&[neighbour(135, 0, GATEWAY6, None), vec![14, 0, 0, 0, 0, 0, 0, 0]].concat(), OWN6),
                Malformed,
            ),
            (
                "option cut",
                to_all(&[neighbour(135, 0, GATEWAY6, None), vec![14, 2, 0, 0, 0, 0, 0, 0]].concat(), OWN6),
                Malformed,
            ),
            ("ND from afar", out(&plain(OWN6, FAR6, ICMPV6, &neighbour(135, 0, GATEWAY6, None))), Malformed),
            ("ND off the link", out(&nd(OWN6, FAR6, &neighbour(135, 0, FAR6, option(1)))), Unsupported),
            ("router advertisement", to_all(&icmp(134, 0, &[0; 12]), OWN_LINK_LOCAL), RogueServer),
            ("redirect", out(&nd(OWN_LINK_LOCAL, OWN6, &icmp(137, 0, &[0; 36]))), RogueServer),
            ("IPv4 redirect", out(&plain(OWN4, FAR4, ICMP, &icmp(5, 1, &[0; 32]))), RogueServer),
            (
                "DHCP offer",
                ethernet(MAC, BROADCAST, 0x0800, &plain(OWN4, "255.255.255.255", UDP, &udp(67, 68))),
                RogueServer,
            ),
            ("DHCPv6 advertise", out(&plain(OWN_LINK_LOCAL, "fe80::9", UDP, &udp(547, 546))), RogueServer),
            (
                "MLD query",
                out_multicast(&packet(
                    OWN_LINK_LOCAL,
                    "ff02::1",
                    ICMPV6,
                    Knobs { hops: 1, ..Knobs::default() },
                    &icmp(130, 0, &[0; 20]),
                )),
                RogueServer,
            ),
        ],
    );
}

#[test]
fn the_segments_own_control_passes() {
    let node = Node::new();
    let mld = [&[ICMPV6, 0, 5, 2, 0, 0, 1, 0][..], &icmp(143, 0, &[0; 24])].concat();
    let mld = |source| out_multicast(&packet(source, "ff02::16", 0, Knobs { hops: 1, ..Knobs::default() }, &mld));
    let dad = [neighbour(135, 0, OWN6, None), vec![14, 1, 1, 2, 3, 4, 5, 6]].concat();
    check(
        &node,
        vec![
            ("ARP request", ethernet(MAC, BROADCAST, 0x0806, &arp(1, MAC, OWN4, GATEWAY4)), SegmentControl),
            ("ARP probe", ethernet(MAC, BROADCAST, 0x0806, &arp(1, MAC, "0.0.0.0", OWN4)), SegmentControl),
            ("ARP reply", ethernet(MAC, GATEWAY_MAC, 0x0806, &arp(2, MAC, OWN4, GATEWAY4)), SegmentControl),
            (
                "solicitation",
                out_multicast(&nd(OWN6, "ff02::1:ff00:1", &neighbour(135, 0, GATEWAY6, Some((1, MAC))))),
                SegmentControl,
            ),
            (
                "unicast probe on the link",
                out(&nd(OWN6, GATEWAY6, &neighbour(135, 0, GATEWAY6, Some((1, MAC))))),
                SegmentControl,
            ),
            (
                "unicast probe from link-local",
                out(&nd(OWN_LINK_LOCAL, FAR6, &neighbour(135, 0, FAR6, None))),
                SegmentControl,
            ),
            ("advertisement", out(&nd(OWN6, GATEWAY6, &neighbour(136, 0x60, OWN6, Some((2, MAC))))), SegmentControl),
            ("DAD with nonce", out_multicast(&nd("::", "ff02::1:ff00:2", &dad)), SegmentControl),
            (
                "router solicitation",
                out_multicast(&nd(OWN_LINK_LOCAL, "ff02::2", &icmp(133, 0, &[&[0; 4][..], &[1, 1], &MAC.0].concat()))),
                SegmentControl,
            ),
            ("MLD report", mld(OWN_LINK_LOCAL), SegmentControl),
            ("MLD report before any address", mld("::"), SegmentControl),
            (
                "DHCP discover",
                ethernet(MAC, BROADCAST, 0x0800, &plain("0.0.0.0", "255.255.255.255", UDP, &udp(68, 67))),
                SegmentControl,
            ),
            ("DHCPv6 solicit", out_multicast(&plain(OWN_LINK_LOCAL, "ff02::1:2", UDP, &udp(546, 547))), SegmentControl),
            ("no other multicast", out_multicast(&plain(OWN_LINK_LOCAL, "ff02::fb", UDP, &udp(5353, 5353))), Multicast),
            ("nor IPv4's", out(&plain(OWN4, "224.0.0.251", UDP, &udp(5353, 5353))), Multicast),
            (
                "nor unicast in a broadcast frame",
                ethernet(MAC, BROADCAST, 0x0800, &plain(OWN4, "10.9.255.255", UDP, &udp(1, 5000))),
                Multicast,
            ),
            (
                "ND to a wider group",
                out_multicast(&nd(OWN6, "ff05::1", &neighbour(135, 0, GATEWAY6, None))),
                Unsupported,
            ),
            ("a DHCP client that would be routed", out(&plain(OWN4, FAR4, UDP, &udp(68, 67))), DeniedByDefault),
        ],
    );
}

#[test]
fn policy_decides_by_address_port_and_protocol() {
    let node = Node::new();
    let four = |to, protocol, payload: &[u8]| out(&plain(OWN4, to, protocol, payload));
    let six = |to, protocol, payload: &[u8]| out(&plain(OWN6, to, protocol, payload));
    check(
        &node,
        vec![
            ("block of ports, first", four(FAR4, TCP, &tcp(4000, 80, SYN)), AllowedByCidr),
            ("again", four(FAR4, TCP, &tcp(4000, 80, ACK)), KnownFlow),
            ("last", four(FAR4, TCP, &tcp(4000, 87, SYN)), AllowedByCidr),
            ("one after", four(FAR4, TCP, &tcp(4000, 88, SYN)), DeniedByDefault),
            ("one before", four(FAR4, TCP, &tcp(4000, 79, SYN)), DeniedByDefault),
            ("other protocol", four(FAR4, UDP, &udp(4000, 80)), DeniedByDefault),
            ("UDP", four(FAR4, UDP, &udp(4000, 5000)), AllowedByCidr),
            ("echo", four(FAR4, ICMP, &echo(8, 9)), AllowedByCidr),
            ("other ICMP", four(FAR4, ICMP, &icmp(13, 0, &[0; 16])), Unsupported),
            ("banned", four("10.9.66.1", TCP, &tcp(4000, 80, SYN)), DeniedByCidr),
            ("elsewhere", four("10.8.0.1", TCP, &tcp(4000, 80, SYN)), DeniedByDefault),
            ("GRE", four(FAR4, 47, &[0; 16]), DeniedByDefault),
            ("IPv6", six(FAR6, TCP, &tcp(4000, 443, SYN)), AllowedByCidr),
            ("IPv6 again", six(FAR6, TCP, &tcp(4000, 443, ACK)), KnownFlow),
            ("IPv6 port", six(FAR6, TCP, &tcp(4000, 444, SYN)), DeniedByDefault),
            ("IPv6 UDP", six(FAR6, UDP, &udp(4000, 5000)), AllowedByCidr),
            ("IPv6 echo", six(FAR6, ICMPV6, &echo(128, 9)), AllowedByCidr),
            ("IPv6 banned", six("fd00:9:66::1", TCP, &tcp(4000, 443, SYN)), DeniedByCidr),
            ("IPv6 elsewhere", six("fd00:8::1", TCP, &tcp(4000, 443, SYN)), DeniedByDefault),
            ("DNS, UDP", four("8.8.8.8", UDP, &udp(4000, 53)), Reason::KernelError),
            ("the node", four("192.168.9.1", TCP, &tcp(4000, 80, SYN)), NodeAddress),
            ("the gateway", four(GATEWAY4, ICMP, &echo(8, 1)), NodeAddress),
            ("the gateway, IPv6", six(GATEWAY6, TCP, &tcp(4000, 22, SYN)), NodeAddress),
            ("where the edge is seen", four("169.254.77.1", TCP, &tcp(4000, 80, SYN)), NodeAddress),
            (
                "where the edge is seen, IPv6",
                out(&plain(OWN_LINK_LOCAL, "fe80::77", TCP, &tcp(4000, 80, SYN))),
                NodeAddress,
            ),
        ],
    );
    // a KernelError above: there is no service namespace yet
    node.tables.set_service(ifindex("w1p"), Mac([2; 6])).unwrap();
    check(
        &node,
        vec![
            ("DNS, UDP", four("8.8.8.8", UDP, &udp(4000, 53)), Dns),
            ("DNS, TCP", four("8.8.8.8", TCP, &tcp(4000, 53, SYN)), Dns),
            ("DNS to the gateway", four(GATEWAY4, UDP, &udp(4000, 53)), Dns),
            ("DNS, IPv6", six("2001:4860:4860::8888", UDP, &udp(4000, 53)), Dns),
            ("DNS, link-local", out(&plain(OWN_LINK_LOCAL, "fe80::1", UDP, &udp(4000, 53))), Dns),
            ("DNS is UDP and TCP", four(FAR4, 132, &udp(4000, 53)), DeniedByDefault),
        ],
    );
}

#[test]
fn the_edges_listeners_are_ordinary_destinations() {
    let mut node = Node::new();
    let to = |address, port| out(&plain(OWN4, address, TCP, &tcp(4000, port, SYN)));
    node.tables.set_node_addresses(&["10.9.0.1", "192.168.9.1"].map(addr).into()).unwrap();
    let listeners =
        |address: Option<&str>| BTreeSet::from([Listener { address: address.map(addr), port: 443, protocol: 6 }]);
    node.tables.set_node_listeners(&listeners(None)).unwrap();
    assert_eq!(node.sends(&to("10.9.0.1", 443)), AllowedByCidr);
    assert_eq!(node.sends(&to("10.9.0.1", 80)), NodeAddress);
    assert_eq!(node.sends(&to("192.168.9.1", 443)), DeniedByDefault, "a listener, but no rule");
    node.tables.set_node_listeners(&listeners(Some("192.168.9.1"))).unwrap();
    node.change(|_| ());
    assert_eq!(node.sends(&out(&plain(OWN4, "10.9.0.1", TCP, &tcp(4000, 443, ACK)))), Revoked, "the listener went");
    assert_eq!(node.sends(&to("10.9.0.1", 443)), NodeAddress);
}

#[test]
fn learned_names_open_what_the_policy_gives_them() {
    let node = Node::new();
    let to = |port| out(&plain(OWN4, "1.2.3.4", TCP, &tcp(4000, port, SYN)));
    assert_eq!(node.sends(&to(443)), DeniedByDefault);
    node.learn("1.2.3.4", Duration::from_secs(60));
    assert_eq!(node.sends(&to(443)), DeniedByDefault, "learned, but no policy speaks of the name");
    node.tables.write_name_class(EGRESS, NAME, Some(NAME_CLASS)).unwrap();
    assert_eq!(node.sends(&to(443)), AllowedByName);
    assert_eq!(node.sends(&to(80)), DeniedByDefault, "another port");
    assert_eq!(
        node.sends(&out(&plain(OWN4, "1.2.3.5", TCP, &tcp(4000, 443, SYN)))),
        DeniedByDefault,
        "another address"
    );

    node.learn("10.9.66.6", Duration::from_secs(60));
    assert_eq!(node.sends(&out(&plain(OWN4, "10.9.66.6", TCP, &tcp(4000, 443, SYN)))), DeniedByCidr, "denies win");
    node.learn("2001:db8::1", Duration::from_secs(60));
    assert_eq!(node.sends(&out(&plain(OWN6, "2001:db8::1", TCP, &tcp(4000, 443, SYN)))), AllowedByName);

    node.learn("1.2.3.4", Duration::ZERO);
    assert_eq!(node.sends(&out(&plain(OWN4, "1.2.3.4", TCP, &tcp(4001, 443, SYN)))), NameExpired);
    assert_eq!(node.sends(&out(&plain(OWN4, "1.2.3.4", TCP, &tcp(4000, 443, ACK)))), KnownFlow, "an open flow goes on");
    let flow = node.tables.flows().unwrap().into_iter().find(|f| f.remote == addr("1.2.3.4")).unwrap();
    assert_eq!((flow.name, flow.rule, flow.reason), (Some(NAME), BY_NAME, AllowedByName));
}

#[test]
fn fragments_follow_their_first() {
    let node = Node::new();
    let piece = |id, offset, more, payload: &[u8], six: bool| {
        let (source, to) = if six { (OWN6, FAR6) } else { (OWN4, FAR4) };
        out(&packet(source, to, UDP, Knobs { fragment: Some((offset, more)), id, ..Knobs::default() }, payload))
    };
    for six in [false, true] {
        assert_eq!(node.sends(&piece(1, 64, false, &[0; 32], six)), FragmentUnknown, "before its first");
        let first = [udp(4000, 5000), vec![0; 52]].concat();
        assert_eq!(node.sends(&piece(1, 0, true, &first, six)), AllowedByCidr);
        assert_eq!(node.sends(&piece(1, 64, false, &[0; 32], six)), KnownFlow);
        assert_eq!(node.sends(&piece(2, 64, false, &[0; 32], six)), FragmentUnknown, "of another packet");
        let denied = [udp(4000, 5001), vec![0; 52]].concat();
        assert_eq!(node.sends(&piece(3, 0, true, &denied, six)), DeniedByDefault);
        assert_eq!(node.sends(&piece(3, 64, false, &[0; 32], six)), FragmentUnknown, "of a denied first");
    }
    assert_eq!(node.sends(&piece(4, 0, false, &udp(4000, 5000), true)), KnownFlow, "an atomic fragment is a packet");
    let nd = packet(
        OWN6,
        "ff02::1",
        ICMPV6,
        Knobs { fragment: Some((0, false)), hops: 255, ..Knobs::default() },
        &neighbour(135, 0, GATEWAY6, None),
    );
    assert_eq!(node.sends(&out_multicast(&nd)), Malformed, "ND is never fragmented");
    let dns = [udp(4000, 53), vec![0; 52]].concat();
    assert_eq!(node.sends(&piece(5, 0, true, &dns, false)), Unsupported, "nor is DNS");

    let ping = |offset, payload: &[u8]| {
        let knobs = Knobs { fragment: Some((offset, false)), id: 6, ..Knobs::default() };
        out(&packet(OWN6, FAR6, ICMPV6, knobs, payload))
    };
    assert_eq!(node.sends(&ping(0, &echo(128, 9))), AllowedByCidr, "a whole echo with a fragment header");
    assert_eq!(node.sends(&ping(64, &[0; 32])), FragmentUnknown, "nothing follows a whole packet");
}

#[test]
fn sctp_is_judged_by_its_ports() {
    let node = Node::new();
    for (own, far) in [(OWN4, FAR4), (OWN6, FAR6)] {
        let to = |port| out(&plain(own, far, SCTP, &sctp(4000, port)));
        let from = |port| into(&plain(far, own, SCTP, &sctp(port, 4000)));
        assert_eq!(node.sends(&to(3869)), DeniedByDefault);
        assert_eq!(node.receives(&from(3868)), DeniedByDefault, "nobody has asked yet");
        assert_eq!(node.sends(&to(3868)), AllowedByCidr);
        assert_eq!(node.sends(&to(3868)), KnownFlow);
        assert_eq!(node.receives(&from(3868)), KnownFlow, "its answer");
        assert_eq!(node.receives(&from(3869)), DeniedByDefault, "another association");
        assert_eq!(node.receives(&into(&plain(far, own, SCTP, &sctp(4001, 3868)))), AllowedByCidr);
        let tcp_there = out(&plain(own, far, TCP, &tcp(4000, 3868, SYN)));
        assert_eq!(node.sends(&tcp_there), DeniedByDefault, "the rule is for SCTP");
        let short = out(&plain(own, far, SCTP, &sctp(4000, 3868)[..11]));
        assert_eq!(node.sends(&short), Malformed, "a header cut short");
        let fragment = |offset, more, payload: &[u8]| {
            let knobs = Knobs { fragment: Some((offset, more)), ..Knobs::default() };
            out(&packet(own, far, SCTP, knobs, payload))
        };
        assert_eq!(node.sends(&fragment(8, false, &[0; 16])), Malformed, "it reaches into the first's header");
        assert_eq!(node.sends(&fragment(0, true, &sctp(4000, 3868))), KnownFlow);
        assert_eq!(node.sends(&fragment(16, false, &[0; 16])), KnownFlow);
    }
}
