//! ICMP errors: of a known flow, to its sender, or not at all.

use policy::reason::Reason::*;

use super::frames::*;
use super::world::*;

/// An error of the family, with the head of `inner`.
pub(super) fn error(source: &str, destination: &str, inner: &[u8]) -> Vec<u8> {
    let six = source.contains(':');
    let body = [&[0; 4], &inner[..inner.len().min(100)]].concat();
    let payload = if six { icmp(2, 0, &body) } else { icmp(3, 4, &body) };
    plain(source, destination, if six { ICMPV6 } else { ICMP }, &payload)
}

#[test]
fn errors_of_a_known_flow_reach_the_workload() {
    let node = Node::new();
    for (own, far, router, icmp_number, asks) in
        [(OWN4, FAR4, "172.16.0.1", ICMP, 8), (OWN6, FAR6, "2001:db8::1", ICMPV6, 128)]
    {
        let sent = plain(own, far, TCP, &tcp(4000, 80, SYN));
        assert_eq!(node.receives(&into(&error(router, own, &sent))), IcmpErrorUnknown, "of no flow");
        assert_eq!(node.sends(&out(&sent)), AllowedByCidr);
        assert_eq!(node.receives(&into(&error(router, own, &sent))), IcmpErrorOfFlow);
        let other = plain(own, far, TCP, &tcp(4001, 80, SYN));
        assert_eq!(node.receives(&into(&error(router, own, &other))), IcmpErrorUnknown, "another port");

        let echo = plain(own, far, icmp_number, &echo(asks, 5));
        assert_eq!(node.sends(&out(&echo)), AllowedByCidr);
        assert_eq!(node.receives(&into(&error(router, own, &echo))), IcmpErrorOfFlow);
        let foreign = plain(far, own, TCP, &tcp(80, 4000, ACK));
        assert_eq!(node.receives(&into(&error(router, own, &foreign))), IcmpErrorUnknown, "not what it sent");
        let cut = into(&plain(router, own, icmp_number, &icmp(if icmp_number == ICMP { 3 } else { 1 }, 1, &[0; 12])));
        assert_eq!(node.receives(&cut), IcmpErrorUnknown);
        let mut short = error(router, own, &sent);
        let length = if icmp_number == ICMP { 2..4 } else { 4..6 };
        short[length].copy_from_slice(&if icmp_number == ICMP { 28u16 } else { 8 }.to_be_bytes());
        assert_eq!(node.receives(&into(&short)), IcmpErrorUnknown, "its quote stands behind the packet");
    }
    let udp = plain(OWN6, FAR6, UDP, &udp(4000, 5000));
    assert_eq!(node.sends(&out(&udp)), AllowedByCidr);
    let first = packet(OWN6, FAR6, UDP, Knobs { fragment: Some((0, true)), ..Knobs::default() }, &udp[40..]);
    assert_eq!(node.receives(&into(&error("2001:db8::1", OWN6, &first))), IcmpErrorOfFlow, "of a first fragment");
    let later = packet(OWN6, FAR6, UDP, Knobs { fragment: Some((64, true)), ..Knobs::default() }, &udp[40..]);
    assert_eq!(node.receives(&into(&error("2001:db8::1", OWN6, &later))), IcmpErrorUnknown, "of a later one");
}

#[test]
fn errors_of_the_workload_go_to_whom_they_are_for() {
    let node = Node::new();
    for (own, far, elsewhere) in [(OWN4, FAR4, "10.9.0.10"), (OWN6, FAR6, "fd00:9::10")] {
        let received = plain(far, own, UDP, &udp(4000, 5000));
        assert_eq!(node.sends(&out(&error(own, far, &received))), IcmpErrorUnknown, "of no flow");
        assert_eq!(node.receives(&into(&received)), AllowedByCidr);
        assert_eq!(node.sends(&out(&error(own, far, &received))), IcmpErrorOfFlow);
        assert_eq!(node.sends(&out(&error(own, elsewhere, &received))), IcmpErrorUnknown, "to someone else");
        let forged = plain(elsewhere, own, UDP, &udp(4000, 5000));
        assert_eq!(node.sends(&out(&error(own, elsewhere, &forged))), IcmpErrorUnknown, "of a packet that never came");
    }
}

#[test]
fn an_error_of_a_flow_that_policy_ended_ends_it() {
    let mut node = Node::new();
    let sent = plain(OWN4, FAR4, TCP, &tcp(4000, 80, SYN));
    assert_eq!(node.sends(&out(&sent)), AllowedByCidr);
    node.tables.write_generation(&nothing(2)).unwrap();
    node.change(|e| (e.generation, e.egress_policy) = (2, policy::tables::PolicyId(110)));
    assert_eq!(node.receives(&into(&error("172.16.0.1", OWN4, &sent))), Revoked);
    assert_eq!(node.tables.flows().unwrap(), vec![]);
}
