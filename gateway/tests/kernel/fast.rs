//! Past the node's stack: what goes that way, how it looks afterwards, and what is left to the stack.

use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use gateway::egress::attach::Program;
use gateway::egress::tables::uplink::Way;
use gateway::workload::Mac;
use policy::reason::Reason::*;

use super::frames::*;
use super::live::{Net, bulk, carries, connect, listen, udp as socket};
use super::world::*;

const LONG: Duration = Duration::from_secs(10);
pub(crate) const REDIRECT: i32 = 7;
pub(crate) const UNSPEC: i32 = -1;
pub(crate) const NEXT: Mac = Mac([2, 0, 0, 0, 0, 0x99]);
pub(crate) const OURS: Mac = Mac([2, 0, 0, 0, 0, 0x98]);

pub(crate) fn way(node: &Node, which: Way) -> u64 {
    node.tables.ways().unwrap().into_iter().find(|(way, _)| *way == which).unwrap().1
}

/// Packets that went past the stack, out and in.
pub(crate) fn past(node: &Node) -> (u64, u64) {
    (way(node, Way::Out) + way(node, Way::OutAgain), way(node, Way::In) + way(node, Way::InAgain))
}

/// The one way that `work` was counted as.
fn counted(node: &Node, work: impl FnOnce()) -> Way {
    let before = node.tables.ways().unwrap();
    work();
    let after = node.tables.ways().unwrap();
    let moved: Vec<_> = before.iter().zip(&after).filter(|(b, a)| b.1 != a.1).map(|(_, a)| a.0).collect();
    assert_eq!(moved.len(), 1, "{moved:?}");
    moved[0]
}

/// A workload on bridge `br0`, and FAR beyond the uplink `out0`, by a next hop whose MAC is known.
pub(crate) fn routed() -> Node {
    routed_by(Node::new())
}

pub(crate) fn routed_by(mut node: Node) -> Node {
    for key in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        std::fs::write(format!("/proc/sys/net/{key}"), "1").unwrap();
    }
    ip(&format!("link add br0 address {GATEWAY_MAC} type bridge"));
    ip("link set br0 up");
    ip("link add out0 type veth peer name out0p");
    ip(&format!("link set out0 address {OURS} up"));
    ip("link set out0p up");
    for (device, own) in [("br0", [GATEWAY4, GATEWAY6]), ("out0", ["10.9.0.1", "fd00:9::1"])] {
        ip(&format!("addr add {}/24 dev {device}", own[0]));
        ip(&format!("addr add {}/64 dev {device} nodad", own[1]));
    }
    for far in [FAR4, FAR6] {
        ip(&format!("neigh add {far} lladdr {NEXT} dev out0 nud permanent"));
    }
    node.entry.bridge = Some(ifindex("br0"));
    node.switch();
    node.own(&node.entry, node.device, 1);
    node.tables.set_uplink(Some(ifindex("out0"))).unwrap();
    node
}

fn udp_between(source: &str, destination: &str, ports: (u16, u16), hops: u8) -> Vec<u8> {
    let mut packet = packet(source, destination, UDP, Knobs { hops, ..Knobs::default() }, &udp(ports.0, ports.1));
    if packet[0] >> 4 == 4 {
        let sum = header_sum(&packet[..20]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    packet
}

/// RFC 1071, with whatever stands in the checksum's place: 0 for a header whose checksum is right.
pub(crate) fn header_sum(header: &[u8]) -> u16 {
    let mut sum: u32 = header.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

pub(crate) fn send(node: &Node, frame: &[u8]) -> gateway::sys::bpf_test_run::Answer {
    node.tables.try_frame(Program::FromWorkload, frame, node.device, 0).unwrap()
}

pub(crate) fn arrive(node: &Node, frame: &[u8]) -> gateway::sys::bpf_test_run::Answer {
    let up = ifindex("out0");
    node.tables.try_frame(Program::FromUplink, frame, up, up).unwrap()
}

pub(crate) fn from_up(packet: &[u8]) -> Vec<u8> {
    ethernet(NEXT, OURS, if packet[0] >> 4 == 4 { 0x0800 } else { 0x86dd }, packet)
}

/// MACs and hop limit, and a header checksum that is right.
#[track_caller]
fn assert_forwarded(frame: &[u8], to: Mac, from: Mac, hops: u8) {
    assert_eq!((&frame[..6], &frame[6..12]), (&to.0[..], &from.0[..]), "MACs");
    let ipv4 = frame[14] >> 4 == 4;
    assert_eq!(frame[if ipv4 { 22 } else { 21 }], hops, "hop limit");
    if ipv4 {
        assert_eq!(header_sum(&frame[14..34]), 0, "the header's checksum");
    }
}

#[test]
fn an_allowed_packet_leaves_as_the_stack_would_forward_it() {
    let node = routed();
    for (own, far) in [(OWN4, FAR4), (OWN6, FAR6)] {
        let frame = out(&udp_between(own, far, (4000, 5000), 64));
        assert_eq!(counted(&node, || assert_eq!(send(&node, &frame).action, REDIRECT)), Way::Resolved);
        let mut sent = None;
        assert_eq!(counted(&node, || sent = Some(send(&node, &frame))), Way::Out);
        let sent = sent.unwrap();
        assert_eq!(sent.action, REDIRECT);
        assert_forwarded(&sent.packet, NEXT, OURS, 63);
        // also where the sum runs over
        for id in 0..=0xffff_u16 {
            if own == OWN6 || id % 251 != 0 {
                continue;
            }
            let mut packet = udp_between(own, far, (4000, 5000), 64);
            packet[4..6].copy_from_slice(&id.to_be_bytes());
            packet[10..12].fill(0);
            let sum = header_sum(&packet[..20]);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
            assert_forwarded(&send(&node, &out(&packet)).packet, NEXT, OURS, 63);
        }
    }
}

#[test]
fn an_allowed_packet_comes_in_as_the_stack_would_forward_it() {
    let node = routed();
    for (own, far) in [(OWN4, FAR4), (OWN6, FAR6)] {
        let frame = from_up(&udp_between(far, own, (4000, 5000), 64));
        let before = node.counts();
        let mut came = None;
        assert_eq!(counted(&node, || came = Some(arrive(&node, &frame))), Way::In);
        let came = came.unwrap();
        assert_eq!(came.action, REDIRECT);
        assert_forwarded(&came.packet, MAC, GATEWAY_MAC, 63);
        assert_eq!(node.counts()[&(AllowedByCidr as u8)], before[&(AllowedByCidr as u8)] + 1);
        // its answer is one of a known flow, and the next hop is the one that was found for the way in
        let answer = out(&udp_between(own, far, (5000, 4000), 64));
        assert_eq!(counted(&node, || assert_forwarded(&send(&node, &answer).packet, NEXT, OURS, 63)), Way::Out);
    }
}

#[test]
fn what_is_denied_is_dropped_at_the_uplink_and_told() {
    let mut node = routed();
    node.change(|e| (e.open, e.probes) = (true, true));
    for (own, far, near, banned) in [(OWN4, FAR4, "10.1.0.3", "10.9.66.1"), (OWN6, FAR6, "fd00:1::3", "fd00:9:66::1")] {
        let denied = |source: &str, port: u16| from_up(&plain(source, own, TCP, &tcp(4000, port, SYN)));
        let reason = |frame: &[u8]| {
            let before = node.counts();
            let answer = arrive(&node, frame);
            let after = node.counts();
            let moved = after.iter().find(|(reason, n)| before[reason] != **n).map(|(reason, _)| *reason);
            (answer.action, moved)
        };
        assert_eq!(reason(&denied(far, 9999)), (2, Some(DeniedByDefault as u8)));
        ip(&format!("route add {banned} via {far}"));
        node.tables.ask_again().unwrap();
        assert_eq!(reason(&denied(banned, 8080)), (2, Some(DeniedByCidr as u8)));
        // an address of the network's own, from outside: never its neighbour, never the node itself
        assert_eq!(reason(&denied(near, 22)), (UNSPEC, None), "the reverse path is not the uplink's: the stack's");
    }
}

#[test]
fn what_needs_the_stack_takes_it_unchanged() {
    let node = routed();
    ip("link add other type veth peer name otherp");
    ip("link set other up");
    ip("route add 10.9.7.0/24 dev other");
    ip("-6 route add fd00:9:7::/64 dev other");
    ip("route add blackhole 10.9.8.0/24");
    ip("-6 route add blackhole fd00:9:8::/64");
    for (own, far, other, hole) in [(OWN4, FAR4, "10.9.7.7", "10.9.8.8"), (OWN6, FAR6, "fd00:9:7::7", "fd00:9:8::8")] {
        let cases = [
            ("the last hop", out(&udp_between(own, far, (4000, 5000), 1)), Way::LastHop),
            ("another device", out(&udp_between(own, other, (4000, 5000), 64)), Way::OtherDevice),
            ("another device, again", out(&udp_between(own, other, (4000, 5000), 64)), Way::OtherDevice),
            ("a blackhole", out(&udp_between(own, hole, (4000, 5000), 64)), Way::NotRouted),
            ("too big", out(&plain(own, far, UDP, &[&udp(4000, 5000)[..], &[0; 1600]].concat())), Way::TooBig),
        ];
        for (what, frame, expected) in cases {
            let mut sent = None;
            assert_eq!(counted(&node, || sent = Some(send(&node, &frame))), expected, "{what}");
            let sent = sent.unwrap();
            assert_eq!((sent.action, sent.packet == frame), (UNSPEC, true), "{what}");
        }
        let last = from_up(&udp_between(far, own, (4000, 5000), 1));
        assert_eq!(counted(&node, || assert_eq!(arrive(&node, &last).action, UNSPEC)), Way::LastHop);
        let big = from_up(&plain(far, own, UDP, &[&udp(4000, 5000)[..], &[0; 1600]].concat()));
        assert_eq!(counted(&node, || assert_eq!(arrive(&node, &big).action, UNSPEC)), Way::TooBig);
        let elsewhere = from_up(&udp_between(other, own, (4000, 5000), 64));
        assert_eq!(counted(&node, || assert_eq!(arrive(&node, &elsewhere).action, UNSPEC)), Way::OtherDevice);
        let piece = packet(far, own, UDP, Knobs { fragment: Some((0, true)), ..Knobs::default() }, &udp(4000, 5000));
        assert_eq!(counted(&node, || assert_eq!(arrive(&node, &from_up(&piece)).action, UNSPEC)), Way::Fragment);
    }
}

#[test]
fn nothing_else_at_the_uplink_is_looked_at() {
    let mut node = routed();
    let before = (node.counts(), node.tables.ways().unwrap());
    let untouched = |node: &Node, frame: &[u8]| {
        let answer = arrive(node, frame);
        assert_eq!((answer.action, answer.packet == frame), (UNSPEC, true));
    };
    for (own, far, node_own) in [(OWN4, FAR4, "10.9.0.1"), (OWN6, FAR6, "fd00:9::1")] {
        untouched(&node, &from_up(&udp_between(far, node_own, (4000, 5000), 64)));
        let packet = udp_between(far, own, (4000, 5000), 64);
        let kind = if own == OWN4 { 0x0800 } else { 0x86dd };
        untouched(&node, &ethernet(NEXT, Mac([2, 0, 0, 0, 0, 0x77]), kind, &packet)); // for another station
        untouched(&node, &ethernet(NEXT, OURS, 0x88cc, &packet));
    }
    assert_eq!((node.counts(), node.tables.ways().unwrap()), before);
    // a workload whose network another router routes is not known there
    node.change(|e| e.bridge = None);
    node.own(&node.entry, node.device, 1);
    untouched(&node, &from_up(&udp_between(FAR4, OWN4, (4000, 5000), 64)));
    untouched(&node, &from_up(&udp_between(FAR6, OWN6, (4000, 5000), 64)));
}

#[test]
fn only_what_goes_to_the_gateway_of_a_routed_network_is_forwarded() {
    let mut node = routed();
    let to_neighbour = ethernet(MAC, NEXT, 0x0800, &udp_between(OWN4, FAR4, (4000, 5000), 64));
    let frame = out(&udp_between(OWN4, FAR4, (4000, 5000), 64));
    let none = |node: &Node, frame: &[u8]| {
        let before = node.tables.ways().unwrap();
        let sent = send(node, frame);
        assert_eq!((sent.action, node.tables.ways().unwrap()), (UNSPEC, before));
    };
    none(&node, &to_neighbour);
    node.tables.set_uplink(None).unwrap();
    none(&node, &frame);
    node.tables.set_uplink(Some(ifindex("out0"))).unwrap();
    assert_eq!(send(&node, &frame).action, REDIRECT);
    node.change(|e| e.bridge = None);
    none(&node, &frame);
}

#[test]
fn a_next_hop_is_used_until_something_changes_and_half_a_second_at_most() {
    let node = routed();
    let frame = out(&udp_between(OWN4, FAR4, (4000, 5000), 64));
    assert_eq!(counted(&node, || drop(send(&node, &frame))), Way::Resolved);
    assert_eq!(counted(&node, || drop(send(&node, &frame))), Way::Out);
    ip(&format!("neigh replace {FAR4} lladdr {GATEWAY_MAC} dev out0 nud permanent"));
    node.tables.ask_again().unwrap();
    assert_eq!(counted(&node, || drop(send(&node, &frame))), Way::Resolved);
    assert_forwarded(&send(&node, &frame).packet, GATEWAY_MAC, OURS, 63);

    // nobody tells of this one
    ip(&format!("neigh replace {FAR4} lladdr {NEXT} dev out0 nud permanent"));
    let begin = Instant::now();
    wait_until("the next hop is asked for anew", || send(&node, &frame).packet[..6] == NEXT.0);
    assert!(begin.elapsed() < Duration::from_secs(5));

    // without an answer to ARP the kernel's neighbour table keeps the packet
    ip(&format!("neigh del {FAR4} dev out0"));
    node.tables.ask_again().unwrap();
    assert_eq!(counted(&node, || assert_eq!(send(&node, &frame).action, REDIRECT)), Way::Resolved);
    assert_eq!(counted(&node, || assert_eq!(send(&node, &frame).action, REDIRECT)), Way::Resolved);
}

#[test]
fn a_routes_own_mtu_is_kept_to() {
    let node = routed();
    ip("route replace 10.9.0.9/32 dev out0 mtu lock 1000");
    ip("-6 route replace fd00:9::9/128 dev out0 mtu lock 1300");
    node.tables.ask_again().unwrap();
    for (own, far, limit) in [(OWN4, FAR4, 1000), (OWN6, FAR6, 1300)] {
        let sized = |size: usize| {
            let headers = if own == OWN4 { 20 } else { 40 };
            let mut packet = plain(own, far, UDP, &[&udp(4000, 5000)[..8], &vec![0; size - headers - 8]].concat());
            let length = (size - headers) as u16;
            packet[headers + 4..headers + 6].copy_from_slice(&length.to_be_bytes());
            out(&packet)
        };
        assert_eq!(counted(&node, || drop(send(&node, &sized(limit + 1)))), Way::TooBig, "asked for");
        assert_eq!(counted(&node, || drop(send(&node, &sized(limit)))), Way::Resolved);
        assert_eq!(counted(&node, || drop(send(&node, &sized(limit)))), Way::Out);
        assert_eq!(counted(&node, || drop(send(&node, &sized(limit + 1)))), Way::TooBig, "known");
    }
}

/// The world of [`Net`] with its far device as the uplink, and a firewall of others that forwards nothing.
pub(crate) fn closed_to_the_stack() -> Net {
    let mut net = Net::new();
    net.node.entry.bridge = Some(ifindex("br0"));
    net.node.switch();
    net.node.own(&net.node.entry, net.node.device, 1);
    net.node.tables.attach_uplink(ifindex("far")).unwrap();
    net.node.tables.set_uplink(Some(ifindex("far"))).unwrap();
    let rules = "table inet others { chain f { type filter hook forward priority 0; policy drop; }; }";
    let mut nft = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    nft.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
    assert!(nft.wait().unwrap().success(), "nft");
    net
}

pub(crate) fn at(ip: &str, port: u16) -> std::net::SocketAddr {
    std::net::SocketAddr::new(addr(ip), port)
}

const PAIRS: [(&str, &str); 2] = [(OWN4, FAR4), (OWN6, FAR6)];

#[test]
fn flows_run_where_the_nodes_firewall_forwards_nothing() {
    let net = closed_to_the_stack();
    for (own, far) in PAIRS {
        let open = listen(&net.far, at(far, 80));
        let mut here = connect(&net.workload, at(far, 80), LONG).unwrap();
        let (mut there, _) = open.accept().unwrap();
        assert!(carries(&mut here, &mut there) && carries(&mut there, &mut here));
        let before = past(&net.node);
        bulk(&mut here, &mut there);
        bulk(&mut there, &mut here);
        let after = past(&net.node);
        assert!(after.0 > before.0 + 20 && after.1 > before.1 + 20);
        assert_eq!(way(&net.node, Way::TooBig), 0, "segments fit");
        let short = (way(&net.node, Way::OutAgain), way(&net.node, Way::InAgain));
        assert!(short.0 > 10 && short.1 > 10, "{short:?}");

        let inbound = listen(&net.workload, at(own, 8080));
        let mut outside = connect(&net.far, at(own, 8080), LONG).unwrap();
        let (mut inside, _) = inbound.accept().unwrap();
        bulk(&mut outside, &mut inside);
        assert!(carries(&mut inside, &mut outside));
    }
    // the same firewall ends what takes the stack
    net.node.tables.set_uplink(None).unwrap();
    let _open = listen(&net.far, at(FAR4, 81));
    assert!(connect(&net.workload, at(FAR4, 81), Duration::from_millis(300)).is_err());
}

fn hop_limit(socket: &std::net::UdpSocket, hops: libc::c_int) {
    let ipv4 = socket.local_addr().unwrap().is_ipv4();
    let (level, name) =
        if ipv4 { (libc::IPPROTO_IP, libc::IP_TTL) } else { (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS) };
    let (value, length) = ((&raw const hops).cast(), size_of::<libc::c_int>() as u32);
    // SAFETY: a live int of the length given.
    assert_eq!(unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, value, length) }, 0);
}

#[test]
fn time_exceeded_and_too_big_are_told_although_the_firewall_forwards_nothing() {
    let net = closed_to_the_stack();
    let told = |net: &Net| net.node.counts()[&(IcmpErrorOfFlow as u8)];
    for (own, far) in PAIRS {
        let (a, b) = (socket(&net.workload, at(own, 4000)), socket(&net.far, at(far, 5000)));
        let mut buffer = [0; 2000];
        hop_limit(&a, 1);
        let before = told(&net);
        a.send_to(b"ask", at(far, 5000)).unwrap();
        wait_until("time exceeded comes", || told(&net) > before);
        hop_limit(&a, 2);
        a.send_to(b"ask", at(far, 5000)).unwrap();
        wait_until("one hop is one hop", || b.recv(&mut buffer).is_ok_and(|length| length == 3));
    }
    ip("link set far mtu 1300");
    net.far.ip("link set eth0 mtu 1300");
    net.node.tables.ask_again().unwrap();
    for (own, far) in PAIRS {
        let (a, b) = (socket(&net.workload, at(own, 4001)), socket(&net.far, at(far, 5000)));
        let before = told(&net);
        a.send_to(&[7; 1400], at(far, 5000)).unwrap();
        wait_until("too big comes", || told(&net) > before);
        let mut buffer = [0; 2000];
        b.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        wait_until("the datagram arrives in pieces", || {
            let _ = a.send_to(&[7; 1400], at(far, 5000));
            b.recv(&mut buffer).is_ok_and(|length| length == 1400)
        });
    }
}

#[test]
fn a_workloads_smaller_mtu_is_told_to_who_sends_from_outside() {
    let net = closed_to_the_stack();
    ip("link set br0 mtu 1300");
    ip("link set w1 mtu 1300");
    net.workload.ip("link set eth0 mtu 1300");
    net.node.tables.ask_again().unwrap();
    for (own, far) in PAIRS {
        let (a, b) = (socket(&net.workload, at(own, 5000)), socket(&net.far, at(far, 4000)));
        a.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let mut buffer = [0; 2000];
        b.send_to(&[7; 1200], at(own, 5000)).unwrap();
        wait_until("what fits arrives", || a.recv(&mut buffer).is_ok_and(|length| length == 1200));
        let before = way(&net.node, Way::TooBig);
        b.send_to(&[7; 1400], at(own, 5000)).unwrap();
        wait_until("the stack takes it", || way(&net.node, Way::TooBig) > before);
        // the node's answer makes the sender's kernel remember the path's MTU
        wait_until("the sender knows the path's MTU", || {
            net.far.run(|| ip(&format!("route get {own}"))).contains("mtu 1300")
        });
    }
}

#[test]
fn a_next_hop_that_silently_changes_its_mac_is_found_again() {
    let net = closed_to_the_stack();
    for (family, own, far) in [("ipv4", OWN4, FAR4), ("ipv6", OWN6, FAR6)] {
        for (key, value) in
            [("base_reachable_time_ms", "500"), ("delay_first_probe_time", "1"), ("retrans_time_ms", "100")]
        {
            std::fs::write(format!("/proc/sys/net/{family}/neigh/far/{key}"), value).unwrap();
        }
        let (a, b) = (socket(&net.workload, at(own, 4000)), socket(&net.far, at(far, 5000)));
        b.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let mut buffer = [0; 8];
        let mut arrives = || {
            a.send_to(b"ask", at(far, 5000)).unwrap();
            b.recv(&mut buffer).is_ok()
        };
        wait_until("the first arrives", &mut arrives);
        let mac = if family == "ipv4" { "02:00:00:00:00:aa" } else { "02:00:00:00:00:bb" };
        net.far.ip(&format!("link set eth0 address {mac}"));
        wait_until("packets arrive again", &mut arrives);
    }
}
