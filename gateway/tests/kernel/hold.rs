//! Flows that pass only under a certain name: held, judged, and given back.

use std::net::SocketAddr;
use std::time::Duration;

use gateway::egress::attach::Program;
use gateway::egress::tables::hold::{HEAD, Head, HeldFlow, Read, Settled, Verdict};
use gateway::egress::tables::names::LearnedSlot;
use gateway::egress::tables::workloads::WorkloadEntry;
use gateway::sys::bpf::boot_time;
use gateway::workload::{Mac, WorkloadId};
use policy::reason::Reason::{self, *};
use policy::tables::{Action, ClassId, NameId, RuleEntry, RuleId, Step};

use super::frames::*;
use super::world::*;

const HOUR: Duration = Duration::from_secs(3600);
const SHOT: i32 = 2;
pub(crate) const REDIRECT: i32 = 7;
/// Rule lines whose names are to be verified: of a class of their own.
pub(crate) const CLASS: ClassId = ClassId(60);
pub(crate) const VERIFIED: RuleId = RuleId(21);
pub(crate) const OTHER: NameId = NameId(6);
pub(crate) const FAR: [(&str, &str); 2] = [(OWN4, "1.2.3.4"), (OWN6, "2001:db8::1")];

pub(crate) fn line(class: ClassId, protocol: u8, action: Action, number: RuleId) -> RuleEntry {
    RuleEntry {
        verify: true,
        shown: action == Action::Allow,
        ..rule(EGRESS, class, Some(protocol), (443, 16), action, number)
    }
}

/// The workload has resolved a name to both addresses that it may reach at port 443 once it has shown it.
pub(crate) fn node() -> Node {
    let mut node = Node::new();
    verifies(&mut node, &FAR.map(|(_, far)| far));
    node
}

/// The same of a node that is there, and these addresses.
pub(crate) fn verifies(node: &mut Node, resolved: &[&str]) {
    let lines = [TCP, UDP].map(|protocol| line(CLASS, protocol, Action::Allow, VERIFIED));
    node.tables.apply(&Step { lines: lines.to_vec(), ..Step::default() }).unwrap();
    node.tables.write_name_class(EGRESS, NAME, Some(CLASS)).unwrap();
    resolved.iter().for_each(|far| node.learn(far, Duration::from_secs(60)));
    node.tables.set_inspector(Some(node.device)).unwrap();
    node.change(|entry| entry.rejects = true);
}

pub(crate) fn segment(flags: u8, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let mut h = tcp(4000, 443, flags);
    h[4..8].copy_from_slice(&sequence.to_be_bytes());
    [h, payload.to_vec()].concat()
}

fn back(flags: u8, payload: &[u8]) -> Vec<u8> {
    acknowledging(0, flags, payload)
}

pub(crate) fn acknowledging(number: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut h = tcp(443, 4000, flags);
    h[8..12].copy_from_slice(&number.to_be_bytes());
    [h, payload.to_vec()].concat()
}

/// A handshake, up to the far end's consent to the stream that begins at `first`.
pub(crate) fn shake(node: &Node, own: &str, far: &str, first: u32) {
    assert_eq!(node.sends(&out(&plain(own, far, TCP, &segment(SYN, first - 1, &[])))), Held);
    assert_eq!(node.receives(&into(&plain(far, own, TCP, &acknowledging(first, SYN | ACK, &[])))), Held);
}

/// What the inspector gives back.
pub(crate) fn returns(node: &Node, frame: &[u8]) -> Reason {
    let before = node.counts();
    node.tables.try_returned(frame, node.device).unwrap();
    diff(&before, &node.counts())[0]
}

/// The flow that a frame was held of, as the inspector would say it.
pub(crate) fn held(node: &Node, frame: &[u8], protocol: u8) -> (Head, HeldFlow) {
    let before = node.counts();
    let answer = node.tables.try_frame(Program::FromWorkload, frame, node.device, 0).unwrap();
    assert_eq!(answer.action, REDIRECT, "{:?}", diff(&before, &node.counts()));
    let (head, inner) = Head::split(&answer.packet).expect("a head in front of the frame");
    assert_eq!(inner, frame, "behind it the frame as it was");
    assert_eq!(answer.packet.len(), frame.len() + HEAD);
    let opened = Duration::from_nanos(head.opened_ns);
    let flow = node.tables.flows().unwrap().into_iter().find(|f| f.protocol == protocol && f.opened == opened);
    let flow = flow.expect("the flow that the frame is of");
    assert_eq!((head.ifindex, head.workload), (node.device, WorkloadId(1)));
    assert!(head.held_ns >= head.opened_ns);
    let flow = HeldFlow {
        workload: flow.workload,
        local: SocketAddr::new(flow.local, flow.local_port),
        remote: SocketAddr::new(flow.remote, flow.remote_port),
        protocol,
        opened_ns: head.opened_ns,
    };
    (head, flow)
}

fn diff(before: &std::collections::BTreeMap<u8, u64>, after: &std::collections::BTreeMap<u8, u64>) -> Vec<Reason> {
    after.iter().filter(|(k, n)| before[k] != **n).filter_map(|(k, _)| Reason::from_number(*k)).collect()
}

pub(crate) fn says(node: &Node, flow: &HeldFlow, reason: Reason, name: Option<NameId>) -> bool {
    let read = (flow.protocol == TCP).then_some(Read { end: 105, shown: 7 });
    node.tables.settle(flow, &Verdict { reason, name, read }).unwrap() == Settled::Now
}

#[test]
fn the_handshake_passes_and_no_payload_of_either_side_before_the_verdict() {
    let node = node();
    for (own, far) in FAR {
        let out = |payload: &[u8]| out(&plain(own, far, TCP, payload));
        let into = |payload: &[u8]| into(&plain(far, own, TCP, payload));
        assert_eq!(node.sends(&out(&segment(SYN, 99, &[]))), Held);
        assert_eq!(node.sends(&out(&segment(ACK, 100, b"hello"))), NotVerified, "nobody has agreed to that number");
        assert_eq!(node.receives(&into(&acknowledging(9, SYN | ACK, &[]))), NotVerified, "nor has this one");
        assert_eq!(node.receives(&into(&acknowledging(100, SYN | ACK, &[]))), Held);
        assert_eq!(node.sends(&out(&segment(ACK, 100, &[]))), Held);
        assert_eq!(node.receives(&into(&back(ACK, b"220 first"))), NotVerified, "a server that speaks first");
        let (head, flow) = held(&node, &out(&segment(ACK, 100, b"hello")), TCP);
        assert_eq!(head.first, 100, "the stream's first octet, by the SYN");
        assert_eq!(held(&node, &out(&segment(ACK, 105, b"more")), TCP).0.first, 100);
        assert_eq!(node.receives(&into(&acknowledging(100, ACK, &[]))), Held, "no shortcut is made of it");
        assert_eq!(node.receives(&into(&back(ACK, b"answer"))), NotVerified);
        let quoting = super::frames::out(&super::errors::error(own, far, &plain(far, own, TCP, &back(ACK, &[]))));
        assert_eq!(node.sends(&quoting), NotVerified, "what it quotes would be payload");

        assert!(says(&node, &flow, AllowedByName, Some(NAME)));
        assert!(!says(&node, &flow, SniMismatch, None), "one verdict a flow");
        assert_eq!(returns(&node, &out(&segment(ACK, 100, b"hello"))), KnownFlow);
        assert_eq!(node.receives(&into(&acknowledging(104, ACK, b""))), KnownFlow);
        held(&node, &out(&segment(ACK, 104, b"o, another")), TCP);
        assert_eq!(
            node.sends(&out(&segment(ACK, 105, b"more"))),
            NotVerified,
            "not before the far end has what was read"
        );
        assert_eq!(node.sends(&out(&segment(ACK, 300, &[]))), NotVerified, "another stream");
        assert_eq!(node.receives(&into(&acknowledging(105, ACK, b"answer"))), KnownFlow, "the far end has it");
        assert_eq!(node.sends(&out(&segment(ACK, 105, b"more"))), KnownFlow);
        assert_eq!(node.sends(&quoting), IcmpErrorOfFlow);
        assert_eq!(node.sends(&out(&segment(ACK, 100, b"hullo"))), KnownFlow, "and takes nothing else for it");
        let flow = node.tables.flows().unwrap().into_iter().find(|f| f.remote == addr(far)).unwrap();
        assert_eq!((flow.name, flow.rule, flow.reason), (Some(NAME), VERIFIED, AllowedByName));
        assert_eq!(flow.sent.0, 8, "each frame counts once, whatever its way, and whether it passes or not");
        assert_eq!(node.sends(&out(&segment(RST, 105, &[]))), KnownFlow);
    }
}

/// What is read must be what the far end gets: the stream of the SYN that it has agreed to, every octet of it.
#[test]
fn no_other_stream_than_the_one_that_is_read_reaches_the_far_end() {
    const URG: u8 = 32;
    let node = node();
    for (own, far) in FAR {
        let out = |payload: &[u8]| out(&plain(own, far, TCP, payload));
        let sends = |flags, number, payload: &[u8]| node.sends(&out(&segment(flags, number, payload)));
        for flags in [ACK, SYN | ACK, SYN | FIN, FIN] {
            assert_eq!(sends(flags, 100, b"hello"), NotVerified, "{flags:x} opens nothing");
        }
        assert!(node.tables.flows().unwrap().iter().all(|flow| flow.remote != addr(far)));
        let knobs = Knobs { fragment: Some((0, true)), ..Knobs::default() };
        assert_eq!(node.sends(&super::frames::out(&packet(own, far, TCP, knobs, &segment(SYN, 5, &[])))), NotVerified);

        shake(&node, own, far, 100);
        assert_eq!(sends(SYN | FIN, 99, &[]), NotVerified);
        assert_eq!(sends(ACK, 5000, &[]), NotVerified, "SYN cookies: another stream would begin here");
        assert_eq!(sends(ACK, 99, &[]), Held, "a keepalive");
        assert_eq!(sends(ACK | URG, 100, &[]), NotVerified, "an octet of what follows would be taken out");
        assert_eq!(sends(ACK | URG, 100, b"hello"), NotVerified);
        let (_, first) = held(&node, &out(&segment(ACK, 100, b"hello")), TCP);
        assert_eq!(sends(SYN, 7000, &[]), Held, "a new connection, of which nothing was read");
        assert!(!says(&node, &first, AllowedByName, Some(NAME)));
        assert_eq!(sends(ACK, 7001, b"hello"), NotVerified, "to which nobody has agreed");

        shake(&node, own, far, 100);
        let (_, flow) = held(&node, &out(&segment(ACK, 100, b"hello")), TCP);
        assert!(says(&node, &flow, AllowedByName, Some(NAME)));
        assert_eq!(returns(&node, &out(&segment(ACK, 100, b"hello"))), KnownFlow);
        assert_eq!(sends(ACK | URG, 100, &[]), NotVerified);
        assert_eq!(sends(ACK | URG, 100, b"hello"), NotVerified);
        assert_eq!(node.receives(&into(&plain(far, own, TCP, &acknowledging(9000, SYN | ACK, &[])))), KnownFlow);
        assert_eq!(sends(ACK, 8999, b"other"), NotVerified, "a SYN's acknowledgement is not one of what was read");
    }
}

#[test]
fn a_denied_flow_stays_denied_and_both_ends_are_told() {
    let node = node();
    for (own, far) in FAR {
        let out = |payload: &[u8]| out(&plain(own, far, TCP, payload));
        shake(&node, own, far, 100);
        let (_, flow) = held(&node, &out(&segment(ACK, 100, b"hello")), TCP);
        assert!(says(&node, &flow, SniMismatch, None));
        let before = node.counts();
        let told = node.tables.try_frame(Program::FromWorkload, &out(&segment(ACK, 100, b"hello")), node.device, 0);
        let told = told.unwrap();
        assert_eq!(diff(&before, &node.counts()), [SniMismatch]);
        let transport = if addr(own).is_ipv4() { 34 } else { 54 };
        assert_eq!((told.action, told.packet[transport + 13] & RST), (REDIRECT, RST), "the workload is reset");
        assert_eq!(node.sends(&out(&segment(ACK, 100, &[]))), SniMismatch);
        assert_eq!(node.receives(&into(&plain(far, own, TCP, &back(ACK, b"answer")))), SniMismatch);
        assert_eq!(node.sends(&out(&segment(RST | ACK, 100, b"x"))), SniMismatch, "no payload under a reset");
        assert_eq!(node.sends(&out(&segment(RST | ACK, 100, &[]))), KnownFlow, "the far end is reset");
        assert_eq!(node.sends(&out(&segment(SYN, 9, &[]))), Held, "a new connection is judged anew");
    }
}

/// The only one that passes of a denied flow is a reset: it must not open a way for what follows it.
#[test]
fn no_reset_of_a_denied_flow_lets_more_out() {
    super::shortcut::on_one_cpu();
    let node = super::fast::routed_by(node());
    ip(&format!("route add 1.2.3.4 via {FAR4} dev out0"));
    ip(&format!("route add 2001:db8::1 via {FAR6} dev out0"));
    for (own, far) in FAR {
        let sends = |flags, payload: &[u8]| out(&plain(own, far, TCP, &segment(flags, 100, payload)));
        shake(&node, own, far, 101);
        let (_, flow) = held(&node, &sends(ACK, b"hello"), TCP);
        assert!(says(&node, &flow, SniMismatch, None));
        for _ in 0..8 {
            assert_eq!(node.sends(&sends(RST, &[])), KnownFlow);
        }
        for _ in 0..4 {
            assert_eq!(node.sends(&sends(ACK, b"hello")), SniMismatch, "{own}: by a shortcut");
        }
        let piece = |offset, more, payload: &[u8]| {
            let knobs = Knobs { fragment: Some((offset, more)), ..Knobs::default() };
            out(&packet(own, far, TCP, knobs, payload))
        };
        assert_eq!(node.sends(&piece(0, true, &segment(RST, 100, &[]))), SniMismatch, "{own}: more of it follows");
        assert_eq!(node.sends(&piece(24, false, b"hello")), FragmentUnknown);
        let came = plain(far, own, TCP, &back(ACK, b"answer"));
        assert_eq!(node.sends(&out(&super::errors::error(own, far, &came))), SniMismatch, "{own}: an error's quote");
        let sent = plain(own, far, TCP, &segment(ACK, 100, b"hello"));
        assert_eq!(node.receives(&into(&super::errors::error(far, own, &sent))), SniMismatch);
    }
}

#[test]
fn a_verdict_is_for_one_flow_only() {
    let node = node();
    let (own, far) = FAR[0];
    let out = |payload: &[u8]| out(&plain(own, far, TCP, payload));
    shake(&node, own, far, 100);
    let (_, first) = held(&node, &out(&segment(ACK, 100, b"hello")), TCP);
    assert_eq!(node.sends(&out(&segment(RST, 105, &[]))), Held);
    shake(&node, own, far, 100); // another connection in its place
    assert!(!says(&node, &first, AllowedByName, Some(NAME)), "the verdict on the first is nothing to it");
    let (_, second) = held(&node, &out(&segment(ACK, 100, b"other")), TCP);
    assert_ne!(first.opened_ns, second.opened_ns);
    assert!(says(&node, &second, AllowedByName, Some(NAME)));
    let elsewhere = HeldFlow { remote: SocketAddr::new(addr("9.9.9.9"), 443), ..second };
    assert!(!says(&node, &elsewhere, AllowedByName, Some(NAME)));
}

#[test]
fn the_kernel_decides_again_by_the_name_that_was_shown() {
    let mut node = node();
    let (own, far) = FAR[0];
    let out = |payload: &[u8]| out(&plain(own, far, TCP, payload));
    let open = |node: &Node, name| {
        shake(node, own, far, 100);
        let (_, flow) = held(node, &out(&segment(ACK, 100, b"hello")), TCP);
        assert!(says(node, &flow, AllowedByName, name));
        let reason = returns(node, &out(&segment(ACK, 100, b"hello")));
        node.sends(&out(&segment(RST, 105, &[])));
        reason
    };
    assert_eq!(open(&node, Some(NAME)), KnownFlow);
    assert_eq!(open(&node, Some(OTHER)), Revoked, "a name that no rule allows, whatever the inspector says");
    assert_eq!(open(&node, None), Revoked, "or none");

    shake(&node, own, far, 100);
    let (_, flow) = held(&node, &out(&segment(ACK, 100, b"hello")), TCP);
    assert!(says(&node, &flow, AllowedByName, Some(NAME)));
    node.change(|_| ());
    assert_eq!(returns(&node, &out(&segment(ACK, 100, b"hello"))), KnownFlow, "a change that leaves it as it is");
    let acknowledged = into(&plain(far, own, TCP, &acknowledging(105, ACK, &[])));
    assert_eq!(node.receives(&acknowledged), KnownFlow);
    node.learn(far, Duration::ZERO);
    node.change(|_| ());
    assert_eq!(node.sends(&out(&segment(ACK, 105, b"more"))), KnownFlow, "it needs no live address");
    node.tables.write_name_class(EGRESS, NAME, None).unwrap();
    node.change(|_| ());
    assert_eq!(node.sends(&out(&segment(ACK, 105, b"more"))), Revoked, "its name is no more allowed");
}

#[test]
fn a_flow_that_was_not_read_ends_where_it_would_have_to_be() {
    let mut node = node();
    let out = |flags| out(&plain(OWN4, FAR4, TCP, &tcp(4000, 443, flags)));
    assert_eq!(node.sends(&out(SYN)), AllowedByCidr);
    let near = line(ClassId(1), TCP, Action::Allow, ALLOW);
    node.tables.apply(&Step { lines: vec![near], ..Step::default() }).unwrap();
    node.change(|_| ());
    assert_eq!(node.sends(&out(ACK)), Revoked, "a name is denied there now");
    shake(&node, OWN4, FAR4, 2);
    let (_, flow) = held(&node, &super::frames::out(&plain(OWN4, FAR4, TCP, &segment(ACK, 2, b"x"))), TCP);
    assert!(says(&node, &flow, AllowedByCidr, Some(OTHER)));
    assert_eq!(node.sends(&out(ACK)), KnownFlow);
    let denied = ClassId(61);
    let deny = line(denied, TCP, Action::Deny, DENY);
    node.tables.apply(&Step { lines: vec![deny], ..Step::default() }).unwrap();
    node.tables.write_name_class(EGRESS, OTHER, Some(denied)).unwrap();
    node.change(|_| ());
    assert_eq!(node.sends(&out(ACK)), Revoked, "the name that it showed is denied");
}

#[test]
fn fast_open_is_taken_out_and_a_syn_carries_nothing() {
    let node = node();
    for (own, far) in FAR {
        let out = |payload: &[u8]| out(&plain(own, far, TCP, payload));
        assert_eq!(node.sends(&out(&segment(SYN, 99, b"early"))), NotVerified);
        let cookie: &[u8] = &[1, 34, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 3, 3, 7, 0];
        let none: &[u8] = &[1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 3, 3, 7, 0];
        let asked: &[u8] = &[2, 4, 5, 0xb4, 34, 2, 1, 1];
        let not: &[u8] = &[2, 4, 5, 0xb4, 1, 1, 1, 1];
        let old: &[u8] = &[254, 4, 0xf9, 0x89];
        let other: &[u8] = &[254, 4, 0xe2, 0xd4];
        for (options, becomes) in [(cookie, none), (asked, not), (old, &[1, 1, 1, 1]), (other, other), (not, not)] {
            let syn = |options: &[u8]| {
                let mut h = segment(SYN, 99, options);
                h[12] = ((20 + options.len()) as u8 / 4) << 4;
                h[16..18].copy_from_slice(&0xffffu16.to_be_bytes());
                h
            };
            let at = if addr(own).is_ipv4() { 34 } else { 54 };
            let answer = node.tables.try_frame(Program::FromWorkload, &out(&syn(options)), node.device, 0).unwrap();
            assert_ne!(answer.action, SHOT);
            let after = &answer.packet[at..at + 20 + options.len()];
            assert_eq!(&after[20..], becomes, "{options:?}");
            // what the sum was before, less the old octets and more the new ones
            assert_eq!(sum(after), sum(&syn(options)), "the checksum follows");
        }
    }
}

/// One's complement sum of the segment, its checksum included: the same before and after a right update.
fn sum(octets: &[u8]) -> u16 {
    let mut sum: u32 = octets.chunks(2).map(|two| u32::from(two[0]) << 8 | u32::from(two[1])).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    if sum == 0xffff { 0 } else { sum as u16 }
}

#[test]
fn of_udp_the_first_datagram_is_held() {
    let node = node();
    for (own, far) in FAR {
        let ask = out(&plain(own, far, UDP, &udp(4000, 443)));
        let answer = into(&plain(far, own, UDP, &udp(443, 4000)));
        assert_eq!(node.receives(&answer), DeniedByDefault);
        held(&node, &ask, UDP);
        assert_eq!(node.receives(&answer), NotVerified);
        let (_, flow) = held(&node, &ask, UDP);
        assert!(says(&node, &flow, AllowedByName, Some(NAME)));
        assert_eq!(node.sends(&ask), KnownFlow);
        assert_eq!(node.receives(&answer), KnownFlow);
        for (first, again) in [(0xc3, true), (0xd0, true), (0xe0, false), (0x43, false)] {
            let mut datagram = udp(4000, 443);
            datagram[8] = first;
            let datagram = out(&plain(own, far, UDP, &datagram));
            assert_eq!(node.sends(&datagram) == Held, again, "{first:x}: what may begin another connection is read");
            assert_eq!(returns(&node, &datagram), KnownFlow);
        }
        let knobs = Knobs { fragment: Some((0, true)), ..Knobs::default() };
        let first = out(&packet(own, far, UDP, knobs, &[udp(4001, 443), vec![0; 52]].concat()));
        assert_eq!(node.sends(&first), NotVerified, "pieces are not put together");
        let knobs = Knobs { fragment: Some((0, true)), ..Knobs::default() };
        let header = out(&packet(own, far, UDP, knobs, &udp(4000, 443)[..8]));
        assert_eq!(
            node.sends(&header),
            NotVerified,
            "of a verified flow either: what follows would be another's hello"
        );
    }
}

#[test]
fn what_comes_back_from_the_inspector_is_the_workloads_own() {
    let node = node();
    let (own, far) = FAR[0];
    let frame = out(&plain(own, far, TCP, &segment(ACK, 100, b"hello")));
    let (head, _) = {
        shake(&node, own, far, 100);
        held(&node, &frame, TCP)
    };
    let mut marked = frame.clone();
    marked[6..12].copy_from_slice(&head.return_mac());
    let answer = node.tables.try_frame(Program::FromTap, &marked, node.device, 0).unwrap();
    assert_eq!((answer.action, &answer.packet), (REDIRECT, &frame));
    let unmarked = node.tables.try_frame(Program::FromTap, &frame, node.device, 0).unwrap();
    assert_eq!(unmarked.action, SHOT, "nothing else gets in that way");
    let stranger = Head { ifindex: 1, ..head };
    marked[6..12].copy_from_slice(&stranger.return_mac());
    assert_eq!(node.tables.try_frame(Program::FromTap, &marked, node.device, 0).unwrap().action, SHOT);
}

#[test]
fn one_workload_has_its_share_of_the_queue_and_no_more() {
    let mut node = node();
    node.change(|entry| entry.flow_quota = 4_000);
    ip("link add w2 type veth peer name w2p");
    let (device, other) = (ifindex("w2"), WorkloadEntry { mac: Mac([2, 0, 0, 0, 0, 2]), ..entry(2) });
    node.tables.switch(device, &other).unwrap();
    node.own(&other, device, 2);
    let far = FAR[0].1;
    node.tables.learn(WorkloadId(2), addr(far), &[LearnedSlot { name: NAME, expires: boot_time() + HOUR }]).unwrap();
    let flood = |port: u16| out(&plain(OWN4, far, UDP, &udp(port, 443)));
    let before = node.counts()[&(HoldFull as u8)];
    for frame in (0..90).flat_map(|_| (5000..5060).map(flood)) {
        node.tables.try_frame(Program::FromWorkload, &frame, node.device, 0).unwrap();
    }
    assert!(node.counts()[&(HoldFull as u8)] > before, "5 400 frames in a few windows of 256 each");
    let neighbours = ethernet(other.mac, GATEWAY_MAC, 0x0800, &plain("10.1.0.3", far, UDP, &udp(4000, 443)));
    assert_eq!(node.reason_at(Program::FromWorkload, &neighbours, device, 0), Held, "its neighbour is not touched");
    node.tables.set_inspector(None).unwrap();
    assert_eq!(node.reason_at(Program::FromWorkload, &neighbours, device, 0), NoInspector);
}
