//! A known packet's shortcut (`bpf/shortcut.h`): it does what the lists would do, and ends with what it was made of.

use gateway::egress::attach::Program;
use gateway::egress::tables::uplink::Way;
use gateway::egress::tables::workloads::PortAddresses;
use gateway::sys::bpf_test_run::Answer;
use gateway::workload::{Address, Mac};
use policy::reason::Reason::*;

use super::fast::{NEXT, REDIRECT, UNSPEC, arrive, from_up, routed, send, way};
use super::frames::*;
use super::nat_frames::*;
use super::world::*;

fn taken(node: &Node) -> u64 {
    way(node, Way::OutAgain) + way(node, Way::InAgain)
}

/// On one CPU, as a cache is of each.
pub(super) fn on_one_cpu() {
    // SAFETY: a zeroed set with one bit, of its own size, for this thread.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(libc::sched_getcpu() as usize, &mut set);
        assert_eq!(libc::sched_setaffinity(0, size_of_val(&set), &raw const set), 0);
    }
}

/// What became of a frame.
type End = (i32, Vec<u8>);

/// What became of it, and whether a shortcut said so.
fn asked(node: &Node, run: impl FnOnce() -> Answer) -> (End, bool) {
    let before = taken(node);
    let answer = run();
    ((answer.action, answer.packet), taken(node) != before)
}

/// What the lists make of it, as soon as the next hop is known.
fn by_lists(node: &Node, run: impl Fn() -> Answer) -> End {
    node.tables.ask_again().unwrap();
    let all: Vec<_> = (0..8).map(|_| asked(node, &run)).take_while(|(_, shortcut)| !shortcut).collect();
    all.into_iter().next_back().expect("the lists' answer").0
}

/// Sends until a shortcut answers: the flow is opened, the next hop found, the shortcut made.
fn warm(node: &Node, run: impl Fn() -> Answer) -> End {
    let mut tries = (0..8).map(|_| asked(node, &run));
    tries.find(|(_, shortcut)| *shortcut).expect("a shortcut").0
}

/// A flow of the workload that is open in both directions: what it sends, and what it gets.
fn open(node: &Node, (own, far, wire): (&str, &str, &str), protocol: u8, port: u16) -> (Vec<u8>, Vec<u8>) {
    let transport = |ports: (u16, u16), flags| match protocol {
        TCP => tcp(ports.0, ports.1, flags),
        _ => udp(ports.0, ports.1),
    };
    let to = if protocol == TCP { 80 } else { 5000 };
    let sends = |flags| out(&summed(plain(own, far, protocol, &transport((port, to), flags))));
    let first = send(node, &sends(SYN));
    assert_eq!(first.action, REDIRECT);
    let wire = if node.entry.masqueraded { wire } else { own };
    let given = ports(&unframed(&first)).0;
    let gets = |flags| from_up(&summed(plain(far, wire, protocol, &transport((to, given), flags))));
    assert_eq!(arrive(node, &gets(SYN | ACK)).action, REDIRECT);
    assert_eq!(send(node, &sends(ACK)).action, REDIRECT);
    (sends(ACK), gets(ACK))
}

#[test]
fn a_known_packet_becomes_what_the_lists_would_make_of_it() {
    on_one_cpu();
    for masqueraded in [false, true] {
        let node = if masqueraded { super::nat_frames::masqueraded(10_000) } else { routed() };
        for (number, ends) in ENDS.into_iter().enumerate() {
            for (protocol, port) in [(TCP, 4000), (UDP, 4001)] {
                let port = port + 10 * number as u16;
                let (sent, came) = open(&node, ends, protocol, port);
                for (frame, by) in [(&sent, send as fn(&Node, &[u8]) -> Answer), (&came, arrive)] {
                    let short = warm(&node, || by(&node, frame));
                    let flow =
                        || node.tables.flows().unwrap().into_iter().find(|flow| flow.local_port == port).unwrap();
                    let before = flow();
                    let (again, shortcut) = asked(&node, || by(&node, frame));
                    assert!(shortcut && again == short);
                    let after = flow();
                    let more = |after: (u64, u64), before: (u64, u64)| (after.0 - before.0, after.1 - before.1);
                    let moved = [more(after.sent, before.sent), more(after.received, before.received)];
                    let one = (1, frame.len() as u64);
                    assert_eq!(moved, if frame == &sent { [one, (0, 0)] } else { [(0, 0), one] });

                    assert_eq!(by_lists(&node, || by(&node, frame)), short);
                }
            }
        }
    }
}

/// One thing after the other is changed in a known frame: what a shortcut makes of it, the lists make of it too.
#[test]
fn no_frame_gets_more_by_a_shortcut_than_by_the_lists() {
    on_one_cpu();
    for masqueraded in [false, true] {
        let node = if masqueraded { super::nat_frames::masqueraded(10_000) } else { routed() };
        for (number, ends) in ENDS.into_iter().enumerate() {
            let (sent, came) = open(&node, ends, TCP, 4000 + number as u16);
            for (frame, by) in [(&sent, send as fn(&Node, &[u8]) -> Answer), (&came, arrive)] {
                warm(&node, || by(&node, frame));
                let (mut hits, head) = (0, if number == 0 { 54 } else { 74 });
                for (octet, bit) in (0..head).flat_map(|octet| (0..8).map(move |bit| (octet, bit))) {
                    let mut changed = frame.clone();
                    changed[octet] ^= 1 << bit;
                    let (short, shortcut) = asked(&node, || by(&node, &changed));
                    if !shortcut {
                        // what it was may have ended the flow
                        by(&node, frame);
                        if !asked(&node, || by(&node, frame)).1 {
                            let reopened = open(&node, ends, TCP, 4000 + number as u16);
                            assert_eq!((&reopened.0, &reopened.1), (&sent, &came), "octet {octet}, bit {bit}");
                            warm(&node, || by(&node, frame));
                        }
                        continue;
                    }
                    hits += 1;
                    assert_eq!(by_lists(&node, || by(&node, &changed)), short, "octet {octet}, bit {bit}");
                    warm(&node, || by(&node, frame));
                }
                // sequence numbers and the like are nobody's business
                assert!(hits > 100, "{hits}");
            }
        }
    }
}

#[test]
fn it_ends_with_the_workloads_entry_its_addresses_its_flow_and_the_routes() {
    on_one_cpu();
    let fresh = || {
        let node = masqueraded(10_000);
        let (sent, came) = open(&node, ENDS[0], TCP, 4000);
        warm(&node, || send(&node, &sent));
        warm(&node, || arrive(&node, &came));
        (node, sent, came)
    };
    let at_uplink = |node: &Node, frame: &[u8]| {
        let up = ifindex("out0");
        node.reason_at(Program::FromUplink, frame, up, up)
    };

    let (mut node, sent, came) = fresh();
    node.change(|entry| entry.sealed = true);
    assert_eq!((node.sends(&sent), at_uplink(&node, &came)), (Sealed, Sealed));

    let (mut node, sent, came) = fresh();
    node.tables.write_generation(&nothing(2)).unwrap();
    node.change(|entry| {
        entry.egress_policy.0 += 10;
        entry.generation = 2;
    });
    assert_eq!(node.sends(&sent), Revoked);
    assert_eq!(at_uplink(&node, &came), DeniedByDefault);

    let (node, sent, _) = fresh();
    let address = |ip: &str, handle: &str| Address { address: addr(ip), handle: addr(handle) };
    let before = [address(OWN4, "198.18.0.1")];
    let after = [address("10.1.0.9", "198.18.0.1")];
    let port = |addresses| PortAddresses { ifindex: node.device, entry: node.entry, addresses };
    node.tables.move_addresses(Some(port(&before)), &port(&after)).unwrap();
    assert_eq!(node.sends(&sent), SpoofedAddress);

    let (node, sent, came) = fresh();
    node.tables.end_mappings(&[addr(OWN4)].into()).unwrap();
    let answer = arrive(&node, &came);
    assert_eq!((answer.action, answer.packet == came), (UNSPEC, true), "nobody's answer any more");
    assert_eq!(node.sends(&sent), KnownFlow);

    let (node, sent, came) = fresh();
    ip(&format!("neigh replace {FAR4} lladdr 02:00:00:00:00:77 dev out0 nud permanent"));
    node.tables.ask_again().unwrap();
    send(&node, &sent);
    assert_eq!(send(&node, &sent).packet[..6], Mac([2, 0, 0, 0, 0, 0x77]).0);
    node.tables.forget_device(node.device).unwrap();
    assert_eq!(node.sends(&sent), UnknownDevice);
    assert_eq!(arrive(&node, &came).action, UNSPEC);
}

#[test]
fn it_ends_with_its_flow_where_another_is_opened_in_the_same_place() {
    on_one_cpu();
    let node = masqueraded(10_000);
    for (own, far, wire) in ENDS {
        let (sent, _) = open(&node, (own, far, wire), TCP, 8080);
        let translated = warm(&node, || send(&node, &sent));
        assert_ne!(ports(&translated.1[14..]).0, 8080, "a port of the node's");
        send(&node, &out(&summed(plain(own, far, TCP, &tcp(8080, 80, RST | ACK)))));
        // now from outside to its own address, which its answers keep
        let comes = from_up(&summed(plain(far, own, TCP, &tcp(80, 8080, SYN))));
        assert_eq!(arrive(&node, &comes).action, REDIRECT);
        let (end, shortcut) = asked(&node, || send(&node, &sent));
        assert_eq!((ports(&end.1[14..]).0, shortcut), (8080, false), "{own}");
        let again = warm(&node, || send(&node, &sent));
        assert_eq!(ports(&again.1[14..]).0, 8080, "{own}, by its own shortcut");
    }
}

#[test]
fn the_end_of_a_connection_and_all_that_is_not_ordinary_are_for_the_lists() {
    on_one_cpu();
    let node = routed();
    let (sent, _) = open(&node, ENDS[0], TCP, 4000);
    assert_eq!(warm(&node, || send(&node, &sent)).1[..6], NEXT.0);
    let with = |flags| out(&summed(plain(OWN4, FAR4, TCP, &tcp(4000, 80, flags))));
    assert!(!asked(&node, || send(&node, &with(FIN | ACK))).1);
    assert!(asked(&node, || send(&node, &sent)).1, "the other side may still speak");
    assert!(!asked(&node, || send(&node, &with(RST))).1);
    assert!(!asked(&node, || send(&node, &sent)).1, "it is over");

    let (sent, _) = open(&node, ENDS[0], UDP, 4001);
    warm(&node, || send(&node, &sent));
    let packet = |knobs| summed(packet(OWN4, FAR4, UDP, knobs, &udp(4001, 5000)));
    for (hops, action) in [(2, REDIRECT), (1, UNSPEC)] {
        let (answer, shortcut) = asked(&node, || send(&node, &out(&packet(Knobs { hops, ..Knobs::default() }))));
        assert_eq!((answer.0, shortcut), (action, action == REDIRECT));
    }
    let fragment = out(&packet(Knobs { fragment: Some((0, true)), ..Knobs::default() }));
    assert!(!asked(&node, || send(&node, &fragment)).1);
    let large = [udp(4001, 5000), vec![0; 1500]].concat();
    let large = out(&summed(plain(OWN4, FAR4, UDP, &large)));
    assert_eq!(asked(&node, || send(&node, &large)).0.0, UNSPEC);
}
