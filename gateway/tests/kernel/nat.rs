//! Source NAT at the uplink: what the world sees of a masqueraded network, and how its answers find their way back.

use gateway::egress::tables::Tables;
use gateway::egress::tables::nat::Translation;
use gateway::settings::Limits;
use policy::reason::Reason::*;

use super::fast::{REDIRECT, UNSPEC, arrive, from_up, send};
use super::frames::*;
use super::nat_frames::*;
use super::world::*;

#[test]
fn what_leaves_has_the_nodes_address_and_its_answer_comes_back() {
    let node = masqueraded(10_000);
    for (own, far, wire) in ENDS {
        for protocol in [TCP, UDP] {
            let (payload, service) = if protocol == TCP { (tcp(4000, 80, SYN), 80) } else { (udp(4000, 5000), 5000) };
            let sent = summed(plain(own, far, protocol, &payload));
            let first = leaves(&node, &sent);
            assert_sums(&first);
            assert_eq!(ends(&first), (addr(wire), addr(far)));
            let (port, to) = ports(&first);
            assert!((50_000..60_000).contains(&port) && to == service, "{port} {to}");
            // the same flow again: the same port, next hop and mapping known by now
            let again = leaves(&node, &sent);
            assert_eq!(ports(&again), (port, to));
            assert_sums(&again);

            let answer = match protocol {
                TCP => tcp(service, port, SYN | ACK),
                _ => udp(service, port),
            };
            let came = comes(&node, &summed(plain(far, wire, protocol, &answer)));
            assert_sums(&came);
            assert_eq!((ends(&came), ports(&came)), ((addr(far), addr(own)), (service, 4000)));
        }
    }
    assert_eq!((node.tables.mappings().unwrap().len(), node.tables.mappings_of(NETWORK).unwrap()), (4, 4));
}

#[test]
fn what_comes_from_the_stack_leaves_the_same_way() {
    let node = masqueraded(10_000);
    for ((own, far, wire), host) in ENDS.into_iter().zip(HOSTS) {
        for source in [own, host] {
            let sent = summed(plain(source, far, UDP, &udp(4000, 5000)));
            let left = by_stack(&node, &out(&sent));
            assert_eq!(left.action, UNSPEC);
            let left = unframed(&left);
            assert_sums(&left);
            assert_eq!(ends(&left), (addr(wire), addr(far)));
            let answer = from_up(&summed(plain(far, wire, UDP, &udp(5000, ports(&left).0))));
            let came = arrive(&node, &answer);
            let back = unframed(&came);
            assert_sums(&back);
            // a host without a program is the stack's; the workload never opened the flow: its policy speaks
            match source == host {
                true => assert_eq!(
                    (came.action, ends(&back), ports(&back)),
                    (UNSPEC, (addr(far), addr(host)), (5000, 4000))
                ),
                false => assert_eq!(came.action, 2),
            }
        }
        // a workload's flow that its program knows
        assert_eq!(send(&node, &out(&summed(plain(own, far, UDP, &udp(4001, 5000))))).action, REDIRECT);
        let left = unframed(&by_stack(&node, &out(&summed(plain(own, far, UDP, &udp(4001, 5000))))));
        let came = comes(&node, &summed(plain(far, wire, UDP, &udp(5000, ports(&left).0))));
        assert_eq!((ends(&came), ports(&came)), ((addr(far), addr(own)), (5000, 4001)));
    }
}

#[test]
fn a_datagram_without_checksum_stays_without() {
    let node = masqueraded(10_000);
    let mut sent = summed(plain(OWN4, FAR4, UDP, &udp(4000, 5000)));
    sent[26..28].fill(0);
    let left = leaves(&node, &sent);
    assert_eq!(&left[26..28], &[0, 0]);
    let mut answer = summed(plain(FAR4, WIRE4, UDP, &udp(5000, ports(&left).0)));
    answer[26..28].fill(0);
    let came = comes(&node, &answer);
    assert_eq!((&came[26..28], ports(&came).1), (&[0, 0][..], 4000));
}

#[test]
fn echo_gets_an_id_of_the_range_and_keeps_apart_who_asked() {
    let node = masqueraded(10_000);
    for ((own, far, wire), asks, answers) in [(ENDS[0], 8, 0), (ENDS[1], 128, 129)] {
        let protocol = if asks == 8 { ICMP } else { ICMPV6 };
        for id in [7, 0, 0xffff] {
            let left = leaves(&node, &summed(plain(own, far, protocol, &echo(asks, id))));
            assert_sums(&left);
            assert_eq!(ends(&left), (addr(wire), addr(far)));
            let given = echo_id(&left);
            assert!((50_000..60_000).contains(&given));
            let came = comes(&node, &summed(plain(far, wire, protocol, &echo(answers, given))));
            assert_sums(&came);
            assert_eq!((ends(&came), echo_id(&came)), ((addr(far), addr(own)), id));
        }
        let nobodys = from_up(&summed(plain(far, wire, protocol, &echo(answers, 49_999))));
        assert_eq!((arrive(&node, &nobodys).action, arrive(&node, &nobodys).packet == nobodys), (UNSPEC, true));
    }
}

#[test]
fn sctp_keeps_its_port_and_its_sum() {
    let node = masqueraded(10_000);
    for ((own, far, wire), host) in ENDS.into_iter().zip(HOSTS) {
        let sent = summed(plain(own, far, SCTP, &sctp(4000, 3868)));
        let left = leaves(&node, &sent);
        assert_eq!((ends(&left), ports(&left)), ((addr(wire), addr(far)), (4000, 3868)));
        let l4 = if own == OWN4 { 20 } else { 40 };
        assert_eq!(left[l4..], sent[l4..]);
        let came = comes(&node, &summed(plain(far, wire, SCTP, &sctp(3868, 4000))));
        assert_eq!((ends(&came), ports(&came)), ((addr(far), addr(own)), (3868, 4000)));
        // another host's association from the same port to the same far end has no port of its own
        assert_eq!(refused(&node, &out(&summed(plain(host, far, SCTP, &sctp(4000, 3868))))), NatExhausted);
    }
}

#[test]
fn what_is_the_nodes_own_is_not_touched() {
    let node = masqueraded(10_000);
    let untouched = |answer: gateway::sys::bpf_test_run::Answer, frame: &[u8]| {
        assert_eq!((answer.action, answer.packet == frame), (UNSPEC, true));
    };
    for (_, far, wire) in ENDS {
        for (from, to) in [(5000, 50_001), (5000, 22)] {
            let came = from_up(&summed(plain(far, wire, UDP, &udp(from, to))));
            untouched(arrive(&node, &came), &came);
        }
        let sent = out(&summed(plain(wire, far, UDP, &udp(55_555, 5000))));
        untouched(by_stack(&node, &sent), &sent);
        // another address of the node, and one that is none of ours
        let other = if wire == WIRE4 { "192.168.9.1" } else { "fd00:77::1" };
        let sent = out(&summed(plain(other, far, UDP, &udp(4000, 5000))));
        untouched(by_stack(&node, &sent), &sent);
        let came = from_up(&summed(plain(far, other, UDP, &udp(5000, 50_001))));
        untouched(arrive(&node, &came), &came);
    }
    let untagged = out(&summed(plain(OWN4, FAR4, UDP, &udp(4000, 5000))));
    let tagged = [&untagged[..12], &[0x81, 0, 0, 100], &untagged[12..]].concat();
    untouched(by_stack(&node, &tagged), &tagged);
    node.tables.set_translation(&Default::default()).unwrap();
    untouched(by_stack(&node, &untagged), &untagged);
}

#[test]
fn a_flow_from_outside_to_the_own_address_keeps_it() {
    let node = masqueraded(10_000);
    for ((own, far, _), host) in ENDS.into_iter().zip(HOSTS) {
        let came = comes(&node, &summed(plain(far, own, UDP, &udp(4000, 5000))));
        assert_eq!(ends(&came), (addr(far), addr(own)));
        let left = leaves(&node, &summed(plain(own, far, UDP, &udp(5000, 4000))));
        assert_eq!((ends(&left), ports(&left)), ((addr(own), addr(far)), (5000, 4000)));

        let knock = from_up(&summed(plain(far, host, TCP, &tcp(4000, 22, SYN))));
        assert_eq!(arrive(&node, &knock).action, UNSPEC);
        let answer = out(&summed(plain(host, far, TCP, &tcp(22, 4000, SYN | ACK))));
        assert_eq!(by_stack(&node, &answer).packet, answer);
    }
    assert_eq!(node.tables.mappings().unwrap(), []);
    let (far, host) = (FAR4, HOSTS[0]);
    assert_eq!(arrive(&node, &from_up(&summed(plain(far, host, ICMP, &echo(8, 9))))).action, UNSPEC);
    let answer = out(&summed(plain(host, far, ICMP, &echo(0, 9))));
    assert_eq!(by_stack(&node, &answer).packet, answer);
    assert_eq!(refused(&node, &out(&summed(plain(host, far, ICMP, &echo(0, 10))))), Unsupported, "nobody asked");
}

#[test]
fn fragments_follow_their_first() {
    let node = masqueraded(10_000);
    for (own, far, wire) in ENDS {
        let piece = |from: &str, to: &str, offset: u16, id: u16, payload: &[u8]| {
            let mut packet =
                packet(from, to, UDP, Knobs { fragment: Some((offset, offset == 0)), id, ..Knobs::default() }, payload);
            if packet[0] >> 4 == 4 {
                let sum = super::fast::header_sum(&packet[..20]);
                packet[10..12].copy_from_slice(&sum.to_be_bytes());
            }
            packet
        };
        let l4 = if own == OWN4 { 20 } else { 48 };
        let port = |packet: &[u8], at: usize| u16::from_be_bytes([packet[l4 + at], packet[l4 + at + 1]]);
        assert_eq!(refused(&node, &out(&piece(own, far, 8, 5, &[9; 8]))), FragmentUnknown);
        // also where the flow's mapping is at hand beside its next hop
        for _ in 0..3 {
            leaves(&node, &summed(plain(own, far, UDP, &udp(4000, 5000))));
        }
        let first = leaves(&node, &piece(own, far, 0, 5, &udp(4000, 5000)));
        assert_eq!(ends(&first), (addr(wire), addr(far)));
        let later = leaves(&node, &piece(own, far, 16, 5, &[9; 8]));
        assert_eq!((ends(&later), &later[l4..]), ((addr(wire), addr(far)), &[9; 8][..]));

        let given = port(&first, 0);
        for (offset, payload) in [(0, udp(5000, given)), (16, vec![9; 8])] {
            let came = arrive(&node, &from_up(&piece(far, wire, offset, 6, &payload)));
            assert_eq!(came.action, UNSPEC, "the stack puts it together");
            let came = unframed(&came);
            assert_eq!(ends(&came), (addr(far), addr(own)));
            if offset == 0 {
                assert_eq!((port(&came, 0), port(&came, 2)), (5000, 4000));
            }
        }
        let stranger = from_up(&piece(far, wire, 16, 7, &[9; 8]));
        assert_eq!(arrive(&node, &stranger).packet, stranger);
    }
}

/// An error that quotes `inner`, of the family; too big, or a port that is unreachable.
pub(crate) fn error(source: &str, destination: &str, inner: &[u8], too_big: bool) -> Vec<u8> {
    let quote = &inner[..inner.len().min(100)];
    let payload = match (source.contains(':'), too_big) {
        (false, true) => icmp(3, 4, &[&[0, 0, 5, 0], quote].concat()),
        (false, false) => icmp(3, 3, &[&[0; 4], quote].concat()),
        (true, true) => icmp(2, 0, &[&[0, 0, 5, 0], quote].concat()),
        (true, false) => icmp(1, 4, &[&[0; 4], quote].concat()),
    };
    summed(plain(source, destination, if source.contains(':') { ICMPV6 } else { ICMP }, &payload))
}

/// The packet that an error quotes, with checksums that are right, as far as it is whole.
fn quote(error: &[u8]) -> Vec<u8> {
    error[if error[0] >> 4 == 4 { 28 } else { 48 }..].to_vec()
}

#[test]
fn errors_from_the_world_speak_of_the_flow_itself() {
    let node = masqueraded(10_000);
    for ((own, far, wire), router) in ENDS.into_iter().zip(["10.9.0.200", "fd00:9::200"]) {
        let icmp = if own == OWN4 { (ICMP, 8) } else { (ICMPV6, 128) };
        let packets =
            [(TCP, tcp(4000, 80, SYN)), (UDP, udp(4000, 5000)), (icmp.0, echo(icmp.1, 7)), (SCTP, sctp(4000, 3868))];
        for (protocol, payload) in packets {
            let sent = summed(plain(own, far, protocol, &payload));
            let left = leaves(&node, &sent);
            let before = node.counts()[&(IcmpErrorOfFlow as u8)];
            let came = comes(&node, &error(router, wire, &left, true));
            assert_eq!(node.counts()[&(IcmpErrorOfFlow as u8)], before + 1);
            assert_sums(&came);
            assert_eq!(ends(&came), (addr(router), addr(own)));
            let quoted = quote(&came);
            assert_sums(&quoted);
            assert_eq!(ends(&quoted), (addr(own), addr(far)));
            match protocol {
                TCP | UDP | SCTP => assert_eq!(ports(&quoted), ports(&sent)),
                _ => assert_eq!(echo_id(&quoted), 7),
            }
        }
        // of what the node itself sent, and of nobody's flow
        for source in [4000, 50_500] {
            let own = summed(plain(wire, far, UDP, &udp(source, 5000)));
            let nodes = from_up(&error(router, wire, &own, true));
            assert_eq!(arrive(&node, &nodes).packet, nodes);
        }
        // RFC 792 has eight octets of the quoted packet's payload: a TCP checksum is not among them
        let left = leaves(&node, &summed(plain(own, far, TCP, &tcp(4000, 80, SYN))));
        let cut = left[..left.len() - 12].to_vec();
        let came = comes(&node, &error(router, wire, &cut, true));
        assert_sums(&came);
        assert_eq!(ports(&quote(&came)), (4000, 80));
    }
}

#[test]
fn errors_of_the_workload_and_of_the_node_tell_the_world_nothing_of_its_addresses() {
    let node = masqueraded(10_000);
    for ((own, far, wire), gateway) in ENDS.into_iter().zip([GATEWAY4, GATEWAY6]) {
        let left = leaves(&node, &summed(plain(own, far, UDP, &udp(4000, 5000))));
        let came = comes(&node, &summed(plain(far, wire, UDP, &udp(5000, ports(&left).0))));
        for source in [own, gateway, wire] {
            let told = error(source, far, &came, source != own);
            let said = match source == own {
                true => leaves(&node, &told),
                false => unframed(&by_stack(&node, &out(&told))),
            };
            assert_sums(&said);
            assert_eq!(ends(&said), (addr(wire), addr(far)), "{source}");
            let quoted = quote(&said);
            assert_sums(&quoted);
            assert_eq!((ends(&quoted), ports(&quoted)), ((addr(far), addr(wire)), (5000, ports(&left).0)));
        }
        let foreign = summed(plain(far, own, UDP, &udp(5001, 4000)));
        assert_eq!(refused(&node, &out(&error(own, far, &foreign, false))), IcmpErrorUnknown);
        // about a flow that came to the own address
        comes(&node, &summed(plain(far, own, UDP, &udp(4100, 5000))));
        let direct = out(&error(own, far, &summed(plain(far, own, UDP, &udp(4100, 5000))), false));
        assert_eq!(by_stack(&node, &direct).packet, direct);
    }
}

#[test]
fn a_network_never_takes_all_ports_to_one_far_end() {
    let node = masqueraded(64);
    let neighbour: std::collections::BTreeMap<_, _> =
        [("10.1.0.64/26", 8), ("10.1.0.0/26", NETWORK)].map(|(net, number)| (net.parse().unwrap(), number)).into();
    node.tables.set_masqueraded(&neighbour).unwrap();
    let opens = |source: &str, far: &str, port: u16| {
        by_stack(&node, &out(&summed(plain(source, far, UDP, &udp(port, 5000))))).action == UNSPEC
    };
    let own = (1..=200).filter(|port| opens("10.1.0.50", FAR4, *port)).count();
    assert!((32..=60).contains(&own), "{own} of 64");
    assert_eq!(refused(&node, &out(&summed(plain("10.1.0.50", FAR4, UDP, &udp(999, 5000))))), NatExhausted);
    let others = (1..=200).filter(|port| opens("10.1.0.77", FAR4, *port)).count();
    assert!((1..=32).contains(&others), "{others} are left for another network");
    // and every port serves another far end, or another protocol, again
    assert!((1..=32).all(|port| opens("10.1.0.50", "10.9.0.10", port)));
    let mappings = node.tables.mappings().unwrap();
    let mut wires: Vec<_> = mappings.iter().map(|m| (m.remote, m.wire, m.protocol)).collect();
    wires.sort_unstable();
    wires.dedup();
    assert_eq!(wires.len(), mappings.len(), "no two flows look alike to the world");
}

#[test]
fn a_networks_quota_is_its_own() {
    let limits = Limits { nat_mappings_per_network: 5, flows: 4096, learned: 1024, ..Limits::default() };
    let node = masqueraded_by(Node::with(limits), 10_000);
    let two = [("10.1.0.64/26", 8), ("10.1.0.0/26", NETWORK)];
    node.tables.set_masqueraded(&two.map(|(net, number)| (net.parse().unwrap(), number)).into()).unwrap();
    let sent = |source: &str, port: u16| out(&summed(plain(source, FAR4, UDP, &udp(port, 5000))));
    for port in 1..=5 {
        assert_eq!(by_stack(&node, &sent(OWN4, port)).action, UNSPEC);
    }
    assert_eq!(refused(&node, &sent(OWN4, 6)), NatQuota);
    assert_eq!(by_stack(&node, &sent(OWN4, 5)).action, UNSPEC, "what is open goes on");
    assert_eq!(by_stack(&node, &sent("10.1.0.77", 1)).action, UNSPEC);
    // on the fast path it is the workload's own program that says so
    assert_eq!(node.sends(&sent(OWN4, 7)), NatQuota);
    assert_eq!((node.tables.mappings_of(NETWORK).unwrap(), node.tables.mappings_of(8).unwrap()), (5, 1));
}

#[test]
fn idle_mappings_are_taken_away_without_anybody() {
    let mut node = masqueraded(10_000);
    for id in 0..50 {
        leaves(&node, &summed(plain(OWN4, FAR4, UDP, &udp(4000 + id, 5000))));
    }
    assert_eq!(node.tables.mappings_of(NETWORK).unwrap(), 50);
    reopened(&mut node, |limits| limits.other_idle_s = 1);
    wait_until("they are swept", || node.tables.mappings().unwrap().is_empty());
    assert_eq!(node.tables.mappings_of(NETWORK).unwrap(), 0);
}

/// The daemon starts again with other limits.
fn reopened(node: &mut Node, change: impl FnOnce(&mut Limits)) {
    change(&mut node.limits);
    node.tables = Tables::open(&node.limits, &node.bpffs.path()).unwrap();
}

#[test]
fn a_closed_connections_port_waits_and_then_is_free() {
    let mut node = masqueraded(64);
    let sent = |port: u16, flags: u8| summed(plain(OWN4, FAR4, TCP, &tcp(port, 80, flags)));
    let first = ports(&leaves(&node, &sent(4000, SYN))).0;
    comes(&node, &summed(plain(FAR4, WIRE4, TCP, &tcp(80, first, SYN | ACK))));
    leaves(&node, &sent(4000, ACK));
    leaves(&node, &sent(4000, FIN | ACK));
    comes(&node, &summed(plain(FAR4, WIRE4, TCP, &tcp(80, first, FIN | ACK))));
    leaves(&node, &sent(4000, ACK));
    // its own next connection has the same port, another one never
    assert_eq!(ports(&leaves(&node, &sent(4000, SYN))).0, first);
    comes(&node, &summed(plain(FAR4, WIRE4, TCP, &tcp(80, first, RST | ACK))));
    for port in 4001..4200 {
        let Some(given) = opened(&node, &sent(port, SYN)) else { break };
        assert_ne!(given, first);
    }
    assert_eq!(opened(&node, &sent(4999, SYN)), None, "exhausted");
    // once late segments are gone, and nothing else is free
    reopened(&mut node, |limits| limits.other_idle_s = 1);
    wait_until("a port comes free", || opened(&node, &sent(4999, SYN)).is_some());
}

/// The port that a new flow gets.
fn opened(node: &Node, packet: &[u8]) -> Option<u16> {
    let left = by_stack(node, &out(packet));
    (left.action == UNSPEC).then(|| ports(&unframed(&left)).0)
}

#[test]
fn mappings_end_with_their_address_and_with_their_workload() {
    let node = masqueraded(10_000);
    let sent = summed(plain(OWN4, FAR4, UDP, &udp(4000, 5000)));
    let first = leaves(&node, &sent);
    let answer = from_up(&summed(plain(FAR4, WIRE4, UDP, &udp(5000, ports(&first).0))));
    assert_eq!(arrive(&node, &answer).action, REDIRECT);
    node.tables.end_mappings(&[addr(OWN4)].into()).unwrap();
    assert_eq!(arrive(&node, &answer).packet, answer, "nobody's");
    node.tables.ask_again().unwrap();
    assert_ne!(leaves(&node, &sent), first);

    // the uplink has another address
    node.tables.set_node_addresses(&[GATEWAY4, GATEWAY6, "10.9.0.2"].map(addr).into()).unwrap();
    let other = [("0.0.0.0/0".parse().unwrap(), addr("10.9.0.2"))].into();
    node.tables.set_translation(&Translation { addresses: other, ..translation(10_000) }).unwrap();
    node.tables.ask_again().unwrap();
    assert_eq!(ends(&leaves(&node, &sent)).0, addr("10.9.0.2"));
    let six = out(&summed(plain(OWN6, FAR6, UDP, &udp(4000, 5000))));
    assert_eq!(node.sends(&six), NatNoAddress);
    assert_eq!(node.tables.mappings().unwrap().len(), 1);
}

#[test]
fn each_destination_has_the_address_of_its_prefix() {
    let node = masqueraded(10_000);
    let mut two = translation(10_000);
    two.addresses.insert("10.9.0.0/29".parse().unwrap(), addr("192.168.9.1"));
    node.tables.set_translation(&two).unwrap();
    node.tables.set_node_addresses(&[GATEWAY4, GATEWAY6, WIRE4, WIRE6, "192.168.9.1"].map(addr).into()).unwrap();
    let sent = |far: &str| summed(plain(HOSTS[0], far, UDP, &udp(4000, 5000)));
    let left = |far: &str| unframed(&by_stack(&node, &out(&sent(far))));
    assert_eq!(ends(&left(FAR4)).0, addr(WIRE4));
    let other = left("10.9.0.6");
    assert_eq!(ends(&other).0, addr("192.168.9.1"));
    // its answers come back, too
    let came = arrive(&node, &from_up(&summed(plain("10.9.0.6", "192.168.9.1", UDP, &udp(5000, ports(&other).0)))));
    assert_eq!(ends(&unframed(&came)).1, addr(HOSTS[0]));
}
