//! tg0: only answers of the DNS server and the edge's connections leave, and only to whom they are for.

use gateway::egress::attach::Program;
use gateway::workload::{Mac, WorkloadId};
use policy::reason::Reason::*;

use super::frames::*;
use super::world::*;

const HANDLE4: &str = "198.18.0.1";
const HANDLE6: &str = "fd74:6769::1:1";

#[test]
fn only_what_is_meant_to_leaves_the_service_namespace() {
    let mut node = Node::new();
    for (handle, resolver, edge) in [(HANDLE4, "8.8.8.8", GATEWAY4), (HANDLE6, "2001:db8::53", GATEWAY6)] {
        assert_eq!(node.serves(&into(&plain(resolver, handle, UDP, &udp(53, 4000)))), Dns);
        assert_eq!(node.serves(&into(&plain(resolver, handle, TCP, &tcp(53, 4000, ACK)))), Dns);
        let connect = into(&plain(edge, handle, TCP, &tcp(40000, 8080, SYN)));
        assert_eq!(node.serves(&connect), NotExposed);
        node.tables.set_exposed(&[(WorkloadId(1), 8080, 6)].into()).unwrap();
        assert_eq!(node.serves(&connect), Edge);
        assert_eq!(node.serves(&into(&plain(edge, handle, TCP, &tcp(40000, 8081, SYN)))), NotExposed);
        assert_eq!(node.serves(&into(&plain(edge, handle, UDP, &udp(40000, 8080)))), NotExposed);
        node.tables.set_exposed(&[].into()).unwrap();
        assert_eq!(node.serves(&connect), NotExposed, "taken back");
    }
    assert_eq!(node.serves(&into(&plain("8.8.8.8", "198.18.9.9", UDP, &udp(53, 4000)))), UnknownDevice);
    assert_eq!(node.serves(&into(&plain("8.8.8.8", OWN4, UDP, &udp(53, 4000)))), UnknownDevice, "no handle");
    assert_eq!(node.serves(&into(&plain("8.8.8.8", HANDLE4, ICMP, &echo(8, 1)))), Unsupported);
    assert_eq!(node.serves(&into_multicast(&nd("fe80::1", "ff02::2", &icmp(133, 0, &[0; 4])))), Unsupported);
    node.change(|e| e.sealed = true);
    assert_eq!(node.serves(&into(&plain("8.8.8.8", HANDLE4, UDP, &udp(53, 4000)))), Sealed);
    node.change(|e| (e.sealed, e.id) = (false, WorkloadId(2)));
    assert_eq!(
        node.serves(&into(&plain("8.8.8.8", HANDLE4, UDP, &udp(53, 4000)))),
        UnknownDevice,
        "another workload there"
    );
}

#[test]
fn address_and_handle_are_exchanged_and_nothing_else() {
    let node = Node::new();
    node.tables.set_service(ifindex("w1p"), Mac([2, 7, 7, 7, 7, 7])).unwrap();
    for (own, handle, far, at) in [(OWN4, HANDLE4, "8.8.8.8", 26..34), (OWN6, HANDLE6, "2001:db8::53", 22..54)] {
        let question = out(&plain(own, far, UDP, &udp(4000, 53)));
        let answer = node.tables.try_frame(Program::FromWorkload, &question, node.device, 0).unwrap();
        assert_eq!(answer.action, 7, "redirected");
        let expected = plain(handle, far, UDP, &udp(4000, 53));
        assert_eq!(answer.packet[at.clone()], ethernet(MAC, MAC, 0, &expected)[at.clone()]);
        assert_eq!(answer.packet[..6], [2, 7, 7, 7, 7, 7]);

        let reply = into(&plain(far, handle, UDP, &udp(53, 4000)));
        let answer = node.tables.try_frame(Program::FromService, &reply, 0, 0).unwrap();
        assert_eq!(answer.action, 7);
        let expected = plain(far, own, UDP, &udp(53, 4000));
        assert_eq!(answer.packet[at.clone()], ethernet(MAC, MAC, 0, &expected)[at]);
        assert_eq!(answer.packet[..12], [MAC.0, GATEWAY_MAC.0].concat());
    }
}

#[test]
fn replies_to_the_edge_find_their_way_back() {
    let node = Node::new();
    node.tables.set_service(ifindex("w1p"), Mac([2; 6])).unwrap();
    node.tables.set_exposed(&[(WorkloadId(1), 8080, 6)].into()).unwrap();
    for (own, handle, edge) in [(OWN4, HANDLE4, "169.254.77.1"), (OWN6, HANDLE6, GATEWAY6), (OWN4, HANDLE4, GATEWAY4)] {
        let reply = out(&plain(own, edge, TCP, &tcp(8080, 40000, SYN | ACK)));
        assert_eq!(node.sends(&reply), NodeAddress, "before the edge sent anything");
        assert_eq!(node.serves(&into(&plain(edge, handle, TCP, &tcp(40000, 8080, SYN)))), Edge);
        assert_eq!(node.sends(&reply), Edge);
        assert_eq!(node.sends(&out(&plain(own, edge, TCP, &tcp(8080, 40001, SYN | ACK)))), NodeAddress);
    }
}

#[test]
fn arp_and_nd_for_the_edges_address_are_answered_on_external_networks() {
    let mut node = Node::new();
    let ask = ethernet(MAC, BROADCAST, 0x0806, &arp(1, MAC, OWN4, "169.254.77.1"));
    let solicit = out_multicast(&nd(OWN_LINK_LOCAL, "ff02::1:ff00:77", &neighbour(135, 0, "fe80::77", Some((1, MAC)))));
    let dad = out_multicast(&nd("::", "ff02::1:ff00:77", &neighbour(135, 0, "fe80::77", None)));
    let run = |node: &Node, frame: &[u8]| node.tables.try_frame(Program::FromWorkload, frame, node.device, 0).unwrap();
    assert_eq!(run(&node, &ask).action, -1, "the node's networks have a gateway that answers");
    node.change(|e| e.external = true);

    let answer = run(&node, &ask);
    assert_eq!(answer.action, 7);
    assert_eq!(answer.packet[..14], [&MAC.0[..], &GATEWAY_MAC.0, &[8, 6]].concat());
    let body = &answer.packet[14..42];
    assert_eq!(body[6..8], [0, 2]);
    assert_eq!(body[8..18], [&GATEWAY_MAC.0[..], &[169, 254, 77, 1]].concat());
    assert_eq!(body[18..28], [&MAC.0[..], &[10, 1, 0, 2]].concat());

    for (question, to, flags) in [(&solicit, OWN_LINK_LOCAL, 0x60), (&dad, "ff02::1", 0x20)] {
        let answer = run(&node, question);
        assert_eq!(answer.action, 7);
        let mut expected = nd("fe80::77", to, &neighbour(136, flags, "fe80::77", Some((2, GATEWAY_MAC))));
        expected[42..44].copy_from_slice(&answer.packet[56..58]);
        assert_eq!(answer.packet[14..], expected);
        assert_eq!(checksum(&answer.packet[14..]), 0xffff);
        assert_eq!(node.receives(&answer.packet), SegmentControl, "it passes the program on its way back");
    }
}

/// Ones' complement sum over the pseudo header and the message (RFC 4443, 2.3); 0xffff is right.
fn checksum(packet: &[u8]) -> u16 {
    let payload = packet.len() as u32 - 40;
    let bytes = [&packet[8..40], &payload.to_be_bytes(), &[0, 0, 0, 58], &packet[40..]].concat();
    let sum: u32 = bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    (sum % 0xffff) as u16 | if sum.is_multiple_of(0xffff) { 0xffff } else { 0 }
}
