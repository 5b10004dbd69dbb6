//! A network's own egress address: what it leaves with, and what ends with it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use policy::reason::Reason::*;

use super::fast::{REDIRECT, UNSPEC, arrive, from_up};
use super::frames::*;
use super::nat::error;
use super::nat_frames::*;
use super::world::*;

const OWN_WIRE4: &str = "10.9.0.77";
const OWN_WIRE6: &str = "fd00:9::77";
const NEIGHBOUR: u32 = 8;

/// As [`masqueraded`], the workload's network with addresses of its own, and the upper half of the hosts in another
/// network, which has none.
fn with_own(ports: u16) -> Node {
    let node = masqueraded(ports);
    let mut sources = sources(NETWORK);
    sources.insert("10.1.0.64/26".parse().unwrap(), NEIGHBOUR);
    node.tables.set_masqueraded(&sources).unwrap();
    know(&node, &[OWN_WIRE4, OWN_WIRE6]);
    node.tables.set_own_addresses(&own(&[OWN_WIRE4, OWN_WIRE6])).unwrap();
    node
}

fn know(node: &Node, more: &[&str]) {
    let addresses = [GATEWAY4, GATEWAY6, WIRE4, WIRE6].iter().chain(more).map(|text| addr(text));
    node.tables.set_node_addresses(&addresses.collect()).unwrap();
}

fn own(addresses: &[&str]) -> BTreeMap<u32, Vec<IpAddr>> {
    [(NETWORK, addresses.iter().map(|text| addr(text)).collect())].into()
}

#[test]
fn a_network_leaves_with_its_own_address_and_its_neighbour_with_the_nodes() {
    let node = with_own(10_000);
    for (source, far, wire) in [(OWN4, FAR4, OWN_WIRE4), (OWN6, FAR6, OWN_WIRE6)] {
        let left = leaves(&node, &summed(plain(source, far, UDP, &udp(4000, 5000))));
        assert_sums(&left);
        assert_eq!(ends(&left), (addr(wire), addr(far)));
        let back = comes(&node, &summed(plain(far, wire, UDP, &udp(5000, ports(&left).0))));
        assert_sums(&back);
        assert_eq!((ends(&back), ports(&back)), ((addr(far), addr(source)), (5000, 4000)));
        // what nobody asked for is the node's own business
        let unasked = from_up(&summed(plain(far, wire, UDP, &udp(5001, ports(&left).0))));
        assert_eq!(arrive(&node, &unasked).packet, unasked);
    }
    let neighbour = by_stack(&node, &out(&summed(plain(HOSTS[0], FAR4, UDP, &udp(4000, 5000)))));
    assert_eq!(ends(&unframed(&neighbour)).0, addr(WIRE4));
}

/// Nobody else has ports of the address.
#[test]
fn it_may_take_every_port_of_its_address() {
    let node = with_own(64);
    let opens = |source: &str, port: u16| {
        by_stack(&node, &out(&summed(plain(source, FAR4, UDP, &udp(port, 5000))))).action == UNSPEC
    };
    let taken = (1..=400).filter(|port| opens(OWN4, *port)).count();
    assert_eq!(taken, 64);
    assert_eq!(refused(&node, &out(&summed(plain(OWN4, FAR4, UDP, &udp(999, 5000))))), NatExhausted);
    assert!(opens(HOSTS[0], 1), "the node's ports are others");
}

#[test]
fn nothing_leaves_with_an_address_that_the_node_has_not() {
    let node = with_own(10_000);
    know(&node, &[]);
    for (source, far) in [(OWN4, FAR4), (OWN6, FAR6)] {
        let sent = summed(plain(source, far, UDP, &udp(4000, 5000)));
        assert_eq!(node.sends(&out(&sent)), NatNoAddress);
        assert_eq!(refused(&node, &out(&sent)), NatNoAddress);
    }
    assert!(node.tables.mappings().unwrap().is_empty());
}

#[test]
fn mappings_end_when_the_address_changes_its_network_or_the_network_its_address() {
    let node = with_own(10_000);
    let other = "10.9.0.78";
    know(&node, &[OWN_WIRE4, OWN_WIRE6, other]);
    let sent = summed(plain(OWN4, FAR4, UDP, &udp(4000, 5000)));
    let six = summed(plain(OWN6, FAR6, UDP, &udp(4000, 5000)));
    let wire = |packet: &[u8]| (ends(&leaves(&node, packet)).0, ports(&leaves(&node, packet)).0);
    let (first, kept) = (wire(&sent), wire(&six));
    let answer = |to: (IpAddr, u16)| from_up(&summed(plain(FAR4, &to.0.to_string(), UDP, &udp(5000, to.1))));
    assert_eq!(arrive(&node, &answer(first)).action, REDIRECT);

    // another address of its own: the open flow has it from its next packet on, and nothing comes by the old one
    node.tables.set_own_addresses(&own(&[other, OWN_WIRE6])).unwrap();
    assert_eq!(arrive(&node, &answer(first)).packet, answer(first));
    let second = wire(&sent);
    assert_eq!(second.0, addr(other));
    assert_eq!(wire(&six), kept, "the other family's stays");

    // the node's, and the address is a neighbour's now, so that it stays on the node
    let neighbours = [(NEIGHBOUR, vec![addr(other)]), (NETWORK, vec![addr(OWN_WIRE6)])].into();
    node.tables.set_own_addresses(&neighbours).unwrap();
    assert_eq!(arrive(&node, &answer(second)).packet, answer(second));
    let third = wire(&sent);
    assert_eq!(third.0, addr(WIRE4));
    let neighbour = by_stack(&node, &out(&summed(plain(HOSTS[0], FAR4, UDP, &udp(4000, 5000)))));
    assert_eq!(ends(&unframed(&neighbour)).0, addr(other));

    // and back: what has the node's address ends as well
    node.tables.set_own_addresses(&own(&[other, OWN_WIRE6])).unwrap();
    assert_eq!(arrive(&node, &answer(third)).packet, answer(third));
    assert_eq!(wire(&sent).0, addr(other));
    assert_eq!(wire(&six), kept);
}

#[test]
fn errors_fragments_and_echoes_have_the_own_address_too() {
    let node = with_own(10_000);
    for (source, far, wire, router) in [(OWN4, FAR4, OWN_WIRE4, "10.9.0.254"), (OWN6, FAR6, OWN_WIRE6, "fd00:9::254")] {
        let left = leaves(&node, &summed(plain(source, far, UDP, &udp(4000, 5000))));
        let told = comes(&node, &error(router, wire, &left, true));
        assert_sums(&told);
        assert_eq!(ends(&told), (addr(router), addr(source)));
        let (protocol, asks) = if source == OWN4 { (ICMP, 8) } else { (ICMPV6, 128) };
        let left = leaves(&node, &summed(plain(source, far, protocol, &echo(asks, 7))));
        assert_eq!(ends(&left).0, addr(wire));
    }
    let fragment = |offset: u16, more: bool| {
        let knobs = Knobs { fragment: Some((offset, more)), ..Knobs::default() };
        packet(OWN4, FAR4, UDP, knobs, &udp(4001, 5000))
    };
    for (offset, more) in [(0, true), (24, false)] {
        let left = by_stack(&node, &out(&fragment(offset, more)));
        assert_eq!(ends(&unframed(&left)).0, addr(OWN_WIRE4), "the piece at {offset}");
    }
}
