//! The list "To a workload", frame by frame.

use gateway::workload::{Mac, WorkloadId};
use policy::reason::Reason::{self, *};

use super::frames::*;
use super::world::*;

fn check(node: &Node, cases: Vec<(&str, Vec<u8>, Reason)>) {
    for (what, frame, reason) in cases {
        assert_eq!(node.receives(&frame), reason, "{what}");
    }
}

#[test]
fn replies_pass_and_nothing_else_does() {
    let node = Node::new();
    for (own, far, icmp, asks, answers) in [(OWN4, FAR4, ICMP, 8, 0), (OWN6, FAR6, ICMPV6, 128, 129)] {
        let reply = into(&plain(far, own, TCP, &tcp(80, 4000, SYN | ACK)));
        assert_eq!(node.receives(&reply), DeniedByDefault, "a reply to nothing");
        assert_eq!(node.sends(&out(&plain(own, far, TCP, &tcp(4000, 80, SYN)))), AllowedByCidr);
        assert_eq!(node.receives(&reply), KnownFlow);
        assert_eq!(node.receives(&into(&plain(far, own, TCP, &tcp(80, 4001, ACK)))), DeniedByDefault, "another port");
        assert_eq!(
            node.receives(&into(&plain(far, own, TCP, &tcp(80, 4000, SYN)))),
            DeniedByDefault,
            "a connection back"
        );
        assert_eq!(node.sends(&out(&plain(own, far, UDP, &udp(4000, 5000)))), AllowedByCidr);
        assert_eq!(node.receives(&into(&plain(far, own, UDP, &udp(5000, 4000)))), KnownFlow);
        assert_eq!(node.sends(&out(&plain(own, far, icmp, &echo(asks, 9)))), AllowedByCidr);
        assert_eq!(node.receives(&into(&plain(far, own, icmp, &echo(answers, 9)))), KnownFlow);
        assert_eq!(node.receives(&into(&plain(far, own, icmp, &echo(answers, 8)))), Unsupported, "another echo");
        assert_eq!(node.receives(&into(&plain(far, own, icmp, &echo(asks, 9)))), DeniedByDefault, "an echo back");
    }
}

#[test]
fn ingress_policy_decides() {
    let node = Node::new();
    for (own, far, banned) in [(OWN4, FAR4, "10.9.66.1"), (OWN6, FAR6, "fd00:9:66::1")] {
        let from = |source, port| into(&plain(source, own, TCP, &tcp(4000, port, SYN)));
        assert_eq!(node.receives(&from(far, 8080)), AllowedByCidr);
        assert_eq!(node.sends(&out(&plain(own, far, TCP, &tcp(8080, 4000, SYN | ACK)))), KnownFlow, "its reply");
        assert_eq!(node.receives(&from(far, 8081)), DeniedByDefault);
        assert_eq!(node.receives(&from(banned, 8080)), DeniedByCidr);
    }
}

#[test]
fn what_is_not_its_own_is_dropped() {
    let node = Node::new();
    let packet = plain(FAR4, OWN4, TCP, &tcp(4000, 8080, SYN));
    check(
        &node,
        vec![
            ("another MAC", ethernet(GATEWAY_MAC, Mac([2, 9, 9, 9, 9, 9]), 0x0800, &packet), Misdirected),
            ("another address", into(&plain(FAR4, "10.1.0.3", TCP, &tcp(4000, 8080, SYN))), Misdirected),
            ("its own as source", into(&plain(OWN4, OWN4, TCP, &tcp(4000, 8080, SYN))), SpoofedAddress),
            ("no source", into(&plain("0.0.0.0", OWN4, UDP, &udp(4000, 5000))), SpoofedAddress),
            ("no source, IPv6", into(&plain("::", OWN6, UDP, &udp(4000, 5000))), SpoofedAddress),
            ("from loopback", into(&plain("127.0.0.1", OWN4, UDP, &udp(4000, 5000))), Malformed),
            ("tag", ethernet(GATEWAY_MAC, MAC, 0x8100, &packet), Tagged),
            ("LLDP", ethernet(GATEWAY_MAC, MAC, 0x88cc, &packet), Unsupported),
            ("multicast", into_multicast(&plain(FAR4, "224.0.0.251", UDP, &udp(5353, 5353))), Multicast),
            ("redirect", into(&plain(GATEWAY4, OWN4, ICMP, &icmp(5, 1, &[0; 32]))), RogueServer),
            ("IPv6 redirect", into(&nd("fe80::1", OWN6, &icmp(137, 0, &[0; 36]))), RogueServer),
            ("timestamp request", into(&plain(FAR4, OWN4, ICMP, &icmp(13, 0, &[0; 16]))), Unsupported),
        ],
    );
}

#[test]
fn control_of_the_segment_passes_and_the_routers_from_its_side_only() {
    let mut node = Node::new();
    let other = Mac([2, 0, 0, 0, 0, 3]);
    let router = into_multicast(&nd("fe80::1", "ff02::1", &icmp(134, 0, &[0; 12])));
    let dhcp = ethernet(GATEWAY_MAC, BROADCAST, 0x0800, &plain(GATEWAY4, "255.255.255.255", UDP, &udp(67, 68)));
    let dhcp6 = into(&plain("fe80::1", OWN_LINK_LOCAL, UDP, &udp(547, 546)));
    check(
        &node,
        vec![
            ("ARP request", ethernet(other, BROADCAST, 0x0806, &arp(1, other, GATEWAY4, OWN4)), SegmentControl),
            ("ARP for its address", ethernet(other, BROADCAST, 0x0806, &arp(2, other, OWN4, GATEWAY4)), SpoofedAddress),
            (
                "solicitation",
                into_multicast(&nd(GATEWAY6, "ff02::1:ff00:2", &neighbour(135, 0, OWN6, Some((1, other))))),
                SegmentControl,
            ),
            (
                "advertisement",
                into(&nd(GATEWAY6, OWN6, &neighbour(136, 0xe0, GATEWAY6, Some((2, other))))),
                SegmentControl,
            ),
            (
                "routed ND",
                into(&plain(GATEWAY6, OWN6, ICMPV6, &neighbour(136, 0xe0, GATEWAY6, Some((2, other))))),
                Malformed,
            ),
            ("router solicitation", into_multicast(&nd("fe80::9", "ff02::2", &icmp(133, 0, &[0; 4]))), Multicast),
            ("router advertisement", router.clone(), RogueServer),
            ("DHCP offer", dhcp.clone(), RogueServer),
            ("DHCPv6 advertise", dhcp6.clone(), RogueServer),
        ],
    );
    let segment = ifindex("w1p");
    node.tables.set_segments(&[(segment, NETWORK)].into()).unwrap();
    for frame in [&router, &dhcp, &dhcp6] {
        assert_eq!(node.receives_by(frame, segment), RogueServer, "the node routes");
    }
    node.change(|e| e.external = true);
    for frame in [&router, &dhcp, &dhcp6] {
        assert_eq!(node.receives_by(frame, segment), SegmentControl);
        assert_eq!(node.receives_by(frame, 1), RogueServer, "not from the segment");
    }
    let global = into_multicast(&nd(GATEWAY6, "ff02::1", &icmp(134, 0, &[0; 12])));
    assert_eq!(node.receives_by(&global, segment), RogueServer, "routers have link-local addresses");
}

#[test]
fn nobody_claims_a_workloads_address_by_nd() {
    let node = Node::new();
    let other = Mac([2, 0, 0, 0, 0, 3]);
    let to_all = |source, payload: &[u8]| into_multicast(&nd(source, "ff02::1", payload));
    let advertisement = neighbour(136, 0x20, OWN6, Some((2, other)));
    check(
        &node,
        vec![
            ("advertisement of its address", to_all("fe80::9", &advertisement), SpoofedAddress),
            ("unicast", into(&nd("fe80::9", OWN6, &advertisement)), SpoofedAddress),
            ("DAD for it", to_all("::", &neighbour(135, 0, OWN6, None)), SpoofedAddress),
            ("from it", to_all(OWN6, &neighbour(135, 0, GATEWAY6, None)), SpoofedAddress),
            ("DAD for another", to_all("::", &neighbour(135, 0, "fd00:1::9", None)), SegmentControl),
            ("a question for it", to_all("fe80::9", &neighbour(135, 0, OWN6, Some((1, other)))), SegmentControl),
        ],
    );
}

#[test]
fn a_dhcp_servers_port_opens_the_clients_port_only() {
    let mut node = Node::new();
    let segment = ifindex("w1p");
    node.tables.set_segments(&[(segment, NETWORK)].into()).unwrap();
    node.change(|e| e.external = true);
    for (far, own, server, client) in [(FAR4, OWN4, 67, 68), (FAR6, OWN6, 547, 546)] {
        let from = |source, to| into(&plain(far, own, UDP, &udp(source, to)));
        assert_eq!(node.receives_by(&from(server, client), segment), SegmentControl);
        assert_eq!(node.receives_by(&from(server, 5001), segment), RogueServer, "no policy allows that port");
        assert_eq!(node.receives_by(&from(4000, client), segment), RogueServer);
    }
}

#[test]
fn who_asks_an_echo_is_told_apart_whatever_its_id() {
    let node = Node::new();
    for (own, far, icmp, asks, answers) in [(OWN4, FAR4, ICMP, 8, 0), (OWN6, FAR6, ICMPV6, 128, 129)] {
        assert_eq!(node.sends(&out(&plain(own, far, icmp, &echo(asks, 0)))), AllowedByCidr);
        assert_eq!(node.receives(&into(&plain(far, own, icmp, &echo(asks, 0)))), DeniedByDefault, "an echo back");
        assert_eq!(node.receives(&into(&plain(far, own, icmp, &echo(answers, 0)))), KnownFlow);
        let quote = plain(own, far, icmp, &echo(asks, 0));
        let kind = if icmp == ICMP { 3 } else { 1 };
        let error = into(&plain(far, own, icmp, &super::frames::icmp(kind, 0, &[&[0; 4], &quote[..]].concat())));
        assert_eq!(node.receives(&error), IcmpErrorOfFlow);
    }
}

#[test]
fn the_same_network_passes_where_it_is_open() {
    let mut node = Node::new();
    ip("link add w2 type veth peer name w2p");
    let (neighbour, segment) = (ifindex("w2"), ifindex("w2p"));
    let second = entry(2);
    node.tables.switch(neighbour, &second).unwrap();
    node.tables.set_segments(&[(segment, NETWORK)].into()).unwrap();
    let from = |source, port| into(&plain(source, OWN4, TCP, &tcp(4000, port, SYN)));
    assert_eq!(node.receives_by(&from("10.1.0.3", 22), neighbour), DeniedByDefault);
    node.change(|e| e.open = true);
    assert_eq!(node.receives_by(&from("10.1.0.3", 22), neighbour), SameNetwork);
    assert_eq!(node.receives_by(&from("10.1.0.4", 22), segment), SameNetwork);
    assert_eq!(node.receives_by(&from(FAR4, 23), segment), DeniedByDefault, "by the router, from elsewhere");
    assert_eq!(node.receives_by(&from("10.1.0.3", 23), 1), DeniedByDefault, "by another device");
    node.tables.switch(neighbour, &gateway::egress::tables::workloads::WorkloadEntry { network: 8, ..second }).unwrap();
    assert_eq!(node.receives_by(&from("10.1.0.3", 24), neighbour), DeniedByDefault, "another network");
    node.change(|e| e.open = false);
    assert_eq!(node.receives_by(&into(&plain("10.1.0.3", OWN4, TCP, &tcp(4000, 22, ACK))), neighbour), Revoked);
}

#[test]
fn an_exposed_port_is_the_edges_alone() {
    let mut node = Node::new();
    node.change(|e| e.open = true);
    node.tables.set_segments(&[(ifindex("w1p"), NETWORK)].into()).unwrap();
    for (near, far, own) in [("10.1.0.4", FAR4, OWN4), ("fd00:1::4", FAR6, OWN6)] {
        let ask = |node: &Node, source, port, flags| {
            node.receives_by(&into(&plain(source, own, TCP, &tcp(4000, port, flags))), ifindex("w1p"))
        };
        assert_eq!(ask(&node, near, 8080, SYN), SameNetwork);
        node.tables.set_exposed(&[(WorkloadId(1), 8080, 6)].into()).unwrap();
        node.change(|e| e.open = true);
        assert_eq!(ask(&node, near, 8080, ACK), Revoked, "an open flow too");
        assert_eq!(ask(&node, near, 8080, SYN), EdgeOnly);
        assert_eq!(ask(&node, far, 8080, SYN), EdgeOnly);
        assert_eq!(ask(&node, near, 8081, SYN), SameNetwork, "its other ports are as before");
        let datagram = into(&plain(near, own, UDP, &udp(4000, 8080)));
        assert_eq!(node.receives_by(&datagram, ifindex("w1p")), SameNetwork, "UDP is not exposed");
        node.change(|e| e.probes = true);
        let probe = into(&plain(far, own, TCP, &tcp(4001, 8080, SYN)));
        assert_eq!(node.receives_by(&probe, 0), Probe, "the node itself, if it probes");
        node.change(|e| e.probes = false);
        node.tables.set_exposed(&[].into()).unwrap();
        assert_eq!(ask(&node, near, 8080, SYN), SameNetwork, "taken back");
    }
}

#[test]
fn the_node_itself_passes_if_it_probes() {
    let mut node = Node::new();
    let probe = |port| into(&plain(GATEWAY4, OWN4, TCP, &tcp(4000, port, SYN)));
    assert_eq!(node.receives_by(&probe(22), 0), DeniedByDefault);
    node.change(|e| e.probes = true);
    assert_eq!(node.receives_by(&probe(22), 0), Probe);
    assert_eq!(node.sends(&out(&plain(OWN4, GATEWAY4, TCP, &tcp(22, 4000, SYN | ACK)))), KnownFlow, "its reply");
    assert_eq!(node.sends(&out(&plain(OWN4, GATEWAY4, TCP, &tcp(22, 4001, SYN)))), NodeAddress, "no way back");
    assert_eq!(node.receives_by(&into(&plain(GATEWAY4, OWN4, ICMP, &echo(8, 7))), 0), Probe);
    assert_eq!(node.sends(&out(&plain(OWN4, GATEWAY4, ICMP, &echo(0, 7)))), KnownFlow);
    node.change(|e| e.probes = false);
    assert_eq!(node.receives_by(&into(&plain(GATEWAY4, OWN4, TCP, &tcp(4000, 22, ACK))), 0), Revoked);
}
