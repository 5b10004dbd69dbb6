//! Questions that the kernel answers, octet by octet, and those that it leaves to the daemon.

mod messages;
mod random;
mod sockets;

use std::num::NonZeroU64;
use std::time::Duration;

use gateway::egress::attach::Program;
use gateway::egress::dns;
use gateway::egress::tables::answers::{Answered, Kept, Opened};
use gateway::egress::tables::names::LearnedSlot;
use gateway::sys::bpf::boot_time;
use gateway::workload::{Mac, WorkloadId};
use policy::tables::{ClassId, NameId};

use self::messages::*;
use super::frames::{UDP, out, packet, plain, *};
use super::world::*;

const REDIRECT: i32 = 7;
const TG1_MAC: Mac = Mac([2, 0, 0, 0, 0x77, 1]);
const RULES: NonZeroU64 = NonZeroU64::new(77).unwrap();
const SERVER4: &str = "8.8.8.8";
const SERVER6: &str = "2001:db8::53";
const TTL: u64 = 60;
const BOTH: [(&str, &str); 2] = [(OWN4, SERVER4), (OWN6, SERVER6)];

/// A node with a service namespace, which the frames for the daemon leave to, under [`RULES`].
fn node() -> Node {
    let node = Node::new();
    ip("link add tg0 type veth peer name tg1");
    node.tables.set_service(ifindex("tg0"), TG1_MAC).unwrap();
    node.tables.set_answer_rules(Some(RULES)).unwrap();
    node
}

/// What the daemon would have the kernel keep of this answer.
fn kept(ask: &Ask, addresses: &[&str]) -> Kept {
    let asked = dns::asked(&ask.message()).expect("a plain question");
    let answer = ask.answer(addresses, TTL as u32);
    dns::kept(&asked, &answer, Duration::from_secs(50), boot_time()).expect("an answer that can be kept")
}

fn opened(addresses: &[&str], until: Duration) -> Opened {
    let addresses = addresses.iter().map(|address| addr(address)).collect();
    Opened { class: NAME_CLASS, addresses, until }
}

fn keep(node: &Node, kept: &Kept, opened: Option<&Opened>) {
    node.tables.keep_answer(WorkloadId(1), RULES, kept, opened).unwrap();
}

/// Keeps an answer that opens nothing.
fn keep_closed(node: &Node, ask: &Ask, addresses: &[&str]) -> Kept {
    let kept = kept(ask, addresses);
    keep(node, &kept, None);
    kept
}

/// The kernel's answer to a frame; `None` where it goes to the daemon, as it came but for who sends it.
fn answered(node: &Node, frame: &[u8]) -> Option<Vec<u8>> {
    let before = node.tables.answered().unwrap();
    let answer = node.tables.try_frame(Program::FromWorkload, frame, node.device, 0).unwrap();
    let after = node.tables.answered().unwrap();
    assert_eq!((answer.action, after.failed), (REDIRECT, before.failed));
    if after.sent > before.sent {
        assert_eq!(answer.packet[..12], [MAC.0, GATEWAY_MAC.0].concat(), "from whom it was sent to, back");
        return Some(answer.packet);
    }
    assert_eq!(answer.packet[..6], TG1_MAC.0);
    let head = 14 + if frame[14] >> 4 == 4 { 20 } else { 40 };
    assert_eq!(answer.packet[head + 8..], frame[head + 8..], "the question goes on as it is");
    None
}

/// The message in an answer from `server` to `own`, every field around it checked.
fn message<'a>(frame: &'a [u8], own: &str, server: &str) -> &'a [u8] {
    let head = if addr(own).is_ipv4() { 20 } else { 40 };
    let (ip, datagram) = frame[14..].split_at(head);
    let expected = packet(server, own, UDP, Knobs::default(), datagram);
    if head == 20 {
        assert_eq!((&ip[..4], &ip[6..10], &ip[12..]), (&expected[..4], &[0x40, 0, 64, UDP][..], &expected[12..20]));
        assert_eq!(residue(ip), 0, "IPv4's checksum");
    } else {
        assert_eq!(*ip, expected[..40]);
    }
    assert_eq!(datagram[..6], [53, 4000, datagram.len() as u16].map(u16::to_be_bytes).concat());
    assert_eq!(residue(&[pseudo(server, own, datagram.len()), datagram.to_vec()].concat()), 0, "UDP's checksum");
    &datagram[8..]
}

fn seconds_left(kept: &Kept) -> u32 {
    kept.expires.saturating_sub(boot_time()).as_secs() as u32
}

/// The kernel answers, and with what is to be expected.
fn answers(node: &Node, ask: &Ask, kept: &Kept) {
    for (own, server) in BOTH {
        let question = ask.message();
        let most = seconds_left(kept);
        let frame = answered(node, &frame(own, server, &question)).unwrap_or_else(|| panic!("{ask:?} is kept"));
        let (given, least) = (message(&frame, own, server), seconds_left(kept));
        assert!((least..=most).any(|seconds| given == reply(&question, kept, seconds)), "{given:?}\nof {kept:?}");
    }
}

fn leaves(node: &Node, ask: &Ask, why: &str) {
    for (own, server) in BOTH {
        assert_eq!(answered(node, &frame(own, server, &ask.message())), None, "{why}");
    }
}

#[test]
fn what_was_asked_before_is_answered_in_the_clients_own_words() {
    let node = node();
    let opt = |payload, flags| Ask { opt: Some((payload, flags)), ..Ask::default() };
    let asks = [
        Ask::default(),
        Ask { kind: AAAA, ..Ask::default() },
        Ask { kind: HTTPS, ..Ask::default() },
        Ask { flags: 0x0130, ..Ask::default() },
        opt(1232, 0),
        opt(4096, 0x8000),
        Ask::named("a.io"),
        Ask::named("xn--bcher-kva_-9.example.com"),
        Ask { name: "gone.example.com", ..opt(512, 0) },
    ];
    for ask in asks {
        let addresses: &[&str] = match (ask.kind, ask.name) {
            (HTTPS, _) | (_, "gone.example.com") => &[],
            (AAAA, _) => &["2001:db8::1", "2001:db8::2", "2001:db8::3"],
            _ => &["192.0.2.1"],
        };
        leaves(&node, &ask, "nothing is kept yet");
        let kept = keep_closed(&node, &ask, addresses);
        assert_eq!(kept.ttls.len(), addresses.len() + 1, "an OPT record's octets are no TTL");
        answers(&node, &ask, &kept);
        answers(&node, &Ask { id: 0xfffe, ..ask.clone() }, &kept);
    }
    let kept = keep_closed(&node, &Ask::default(), &["192.0.2.1"]);
    answers(&node, &Ask::named("aPI.eXAMPLE.cOM"), &kept);
    assert_eq!(node.tables.answered().unwrap(), Answered { sent: 38, failed: 0 });
}

#[test]
fn only_the_workloads_own_question_is_answered() {
    let node = node();
    let ask = Ask { opt: Some((1232, 0)), ..Ask::default() };
    let found = kept(&ask, &["192.0.2.1"]);
    node.tables.keep_answer(WorkloadId(2), RULES, &found, None).unwrap();
    leaves(&node, &ask, "another workload asked");
    keep(&node, &found, None);
    answers(&node, &ask, &found);
    for (what, other) in [
        ("another type", Ask { kind: AAAA, ..ask.clone() }),
        ("ANY", Ask { kind: 255, ..ask.clone() }),
        ("another name", Ask { name: "apj.example.com", ..ask.clone() }),
        ("a longer name", Ask { name: "api.example.com.de", ..ask.clone() }),
        ("a shorter name", Ask { name: "api.example", ..ask.clone() }),
        ("RD is not set", Ask { flags: 0, ..ask.clone() }),
        ("AD is", Ask { flags: RD | 0x20, ..ask.clone() }),
        ("CD is", Ask { flags: RD | 0x10, ..ask.clone() }),
        ("no OPT record", Ask { opt: None, ..ask.clone() }),
        ("DO is set", Ask { opt: Some((1232, 0x8000)), ..ask.clone() }),
    ] {
        leaves(&node, &other, what);
    }
    answers(&node, &ask, &found);
}

#[test]
fn an_answer_is_given_for_its_time_and_under_its_rules() {
    let node = node();
    let ask = Ask::default();
    let found = keep_closed(&node, &ask, &["192.0.2.1"]);
    answers(&node, &ask, &found);
    let change = |change: fn(&mut Kept)| {
        let mut other = found.clone();
        change(&mut other);
        keep(&node, &other, None);
    };
    change(|kept| kept.ask = boot_time());
    leaves(&node, &ask, "it is time to ask the daemon");
    change(|kept| (kept.ask, kept.expires) = (boot_time() + Duration::from_secs(9), boot_time()));
    leaves(&node, &ask, "its TTL is over");
    change(|kept| kept.ask = boot_time() + Duration::from_millis(200));
    let mut given = 0;
    wait_until("its time comes", || {
        let left = answered(&node, &frame(OWN4, SERVER4, &ask.message())).is_none();
        given += u32::from(!left);
        left
    });
    assert!(given > 0, "and not before");

    keep(&node, &found, None);
    answers(&node, &ask, &found);
    for rules in [None, NonZeroU64::new(78)] {
        node.tables.set_answer_rules(rules).unwrap();
        leaves(&node, &ask, "the rules have changed");
    }
    let next = node.tables.next_answer_rules().unwrap();
    let ahead = next.saturating_add(1 << 40); // a clock that stands still
    node.tables.set_answer_rules(Some(ahead)).unwrap();
    node.tables.set_answer_rules(None).unwrap();
    let next = node.tables.next_answer_rules().unwrap();
    assert!(next > ahead && next > RULES, "none is given twice, held or not");
    node.tables.keep_answer(WorkloadId(1), next, &found, None).unwrap();
    leaves(&node, &ask, "rules to come");
    node.tables.set_answer_rules(Some(next)).unwrap();
    answers(&node, &ask, &found);
}

#[test]
fn seconds_run_down() {
    let node = node();
    let ask = Ask::default();
    let mut found = kept(&ask, &["192.0.2.1"]);
    found.expires = boot_time() + Duration::from_millis(10_300);
    keep(&node, &found, None);
    answers(&node, &ask, &found);
    assert_eq!(seconds_left(&found), 10);
    wait_until("a second less is given", || {
        let frame = answered(&node, &frame(OWN4, SERVER4, &ask.message())).unwrap();
        message(&frame, OWN4, SERVER4) == reply(&ask.message(), &found, 9)
    });
}

#[test]
fn nothing_leaves_whose_addresses_are_not_open() {
    let node = node();
    let ask = Ask::default();
    let addresses = ["192.0.2.1", "192.0.2.2"];
    let found = kept(&ask, &addresses);
    let until = found.expires + Duration::from_secs(28);
    let long = until - boot_time() + Duration::from_secs(1);
    node.tables.write_name_class(EGRESS, NAME, Some(NAME_CLASS)).unwrap();
    keep(&node, &found, Some(&opened(&addresses, until)));
    leaves(&node, &ask, "nothing is learned");
    node.learn(addresses[0], long);
    leaves(&node, &ask, "not of all");
    node.learn(addresses[1], long);
    answers(&node, &ask, &found);
    node.learn(addresses[1], long - Duration::from_secs(2));
    leaves(&node, &ask, "it would close too early");
    let [another, same_class, of_no_rule] = [6, 7, 8].map(NameId);
    node.learn_all(addresses[1], &[another], long);
    leaves(&node, &ask, "the name was displaced");
    node.tables.write_name_class(EGRESS, another, Some(ClassId(51))).unwrap();
    leaves(&node, &ask, "by one that opens something else");
    node.learn(addresses[1], long);
    answers(&node, &ask, &found);
    node.tables.write_name_class(EGRESS, NAME, Some(ClassId(52))).unwrap();
    leaves(&node, &ask, "its number is another name's now");
    node.tables.write_name_class(EGRESS, NAME, Some(NAME_CLASS)).unwrap();
    node.tables.write_name_class(EGRESS, same_class, Some(NAME_CLASS)).unwrap();
    node.learn_all(addresses[1], &[another, of_no_rule, same_class], long);
    answers(&node, &ask, &found);
    let short = |name| LearnedSlot { name, expires: until - Duration::from_secs(1) };
    let slots = [short(same_class), short(another), LearnedSlot { name: NAME, expires: until }];
    node.tables.learn(WorkloadId(1), addr(addresses[1]), &slots).unwrap();
    answers(&node, &ask, &found);
    node.tables.learn(WorkloadId(1), addr(addresses[1]), &[]).unwrap();
    leaves(&node, &ask, "it is forgotten");

    let eight = [1, 2, 3, 4, 5, 6, 7, 8].map(|last| format!("198.51.100.{last}"));
    let eight: Vec<&str> = eight.iter().map(String::as_str).collect();
    let found = kept(&ask, &eight);
    keep(&node, &found, Some(&opened(&eight, until)));
    eight.iter().for_each(|address| node.learn(address, long));
    answers(&node, &ask, &found);
    node.tables.learn(WorkloadId(1), addr(eight[7]), &[]).unwrap();
    leaves(&node, &ask, "the last of eight");
    let nine = [&eight[..], &["198.51.100.9"]].concat();
    let refused = node.tables.keep_answer(WorkloadId(1), RULES, &found, Some(&opened(&nine, until))).unwrap_err();
    assert_eq!(refused.source.kind(), std::io::ErrorKind::InvalidInput);
}

#[test]
fn an_answer_fits_what_the_client_takes() {
    let node = node();
    let many: Vec<String> = (1..=15).map(|last| format!("2001:db8::{last}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let name = "a-name-by-which-an-answer-is-a-little-longer-than-512-octets.example.com";
    let ask = |opt| Ask { kind: AAAA, name, opt, ..Ask::default() };
    let large = kept(&ask(Some((1232, 0))), &many);
    let length = ask(Some((1232, 0))).answer(&many, 60).len() as u16;
    for (opt, fits) in [
        (None, false),
        (Some((0, 0)), false),
        (Some((512, 0)), false),
        (Some((length - 1, 0)), false),
        (Some((length, 0)), true),
        (Some((1232, 0)), true),
        (Some((65_535, 0x8000)), true),
    ] {
        let ask = ask(opt);
        assert!(ask.answer(&many, 60).len() > 512);
        // The daemon would not keep it for who sends no OPT record.
        let found = Kept { asked: dns::asked(&ask.message()).unwrap(), ..large.clone() };
        keep(&node, &found, None);
        match fits {
            true => answers(&node, &ask, &found),
            false => leaves(&node, &ask, "too long for this client"),
        }
    }
}

#[test]
fn whatever_is_no_plain_question_is_the_daemons_as_it_came() {
    let node = node();
    let ask = Ask { opt: Some((1232, 0)), ..Ask::default() };
    let plain_ask = Ask::default();
    for ask in [&ask, &plain_ask] {
        keep_closed(&node, ask, &["192.0.2.1"]);
        answers(&node, ask, &kept(ask, &["192.0.2.1"]));
    }
    let long = "a23456789.b23456789.c23456789.d23456789.e23456789.f23456789.g23456789.h23456789.i23456789.j23456789.k23456789.l23456789.mmmmmmm";
    let change = |ask: &Ask, change: fn(&mut Vec<u8>)| {
        let mut message = ask.message();
        change(&mut message);
        message
    };
    let odd = [
        ("an answer", change(&ask, |m| m[2] |= 0x80)),
        ("opcode 1", change(&ask, |m| m[2] |= 0x08)),
        ("AA", change(&ask, |m| m[2] |= 0x04)),
        ("TC", change(&ask, |m| m[2] |= 0x02)),
        ("RA", change(&ask, |m| m[3] |= 0x80)),
        ("Z", change(&ask, |m| m[3] |= 0x40)),
        ("a code", change(&ask, |m| m[3] |= 3)),
        ("no question", change(&ask, |m| m[5] = 0)),
        ("two questions", change(&ask, |m| m[5] = 2)),
        ("256 questions", change(&ask, |m| m[4] = 1)),
        ("an answer section", change(&ask, |m| m[7] = 1)),
        ("an authority section", change(&ask, |m| m[9] = 1)),
        ("two additional records", change(&ask, |m| m[11] = 2)),
        ("an OPT record that is not there", change(&plain_ask, |m| m[11] = 1)),
        ("one that is not counted", change(&ask, |m| m[11] = 0)),
        ("an octet more", change(&ask, |m| m.push(0))),
        ("an octet less", change(&ask, |m| m.truncate(m.len() - 1))),
        ("an octet more without OPT", change(&plain_ask, |m| m.push(0))),
        ("an octet less without OPT", change(&plain_ask, |m| m.truncate(m.len() - 1))),
        ("a zero inside of the name's padding", change(&plain_ask, |m| m.splice(29..29, [0, 0]).for_each(drop))),
        ("a pointer for a name", change(&plain_ask, |m| drop(m.splice(12..29, [0xc0, 12])))),
        ("a pointer in the name", change(&plain_ask, |m| drop(m.splice(16..29, [0xc0, 12])))),
        ("class CH", change(&plain_ask, |m| m[32] = 3)),
        ("class 256 + IN", change(&plain_ask, |m| m[31] = 1)),
        ("an OPT record with a name", change(&ask, |m| m[33] = 1)),
        ("another record than OPT", change(&ask, |m| m[35] = 42)),
        ("an extended code", change(&ask, |m| m[38] = 1)),
        ("version 1", change(&ask, |m| m[39] = 1)),
        ("another flag than DO", change(&ask, |m| m[41] = 1)),
        ("options that are not there", change(&ask, |m| m[43] = 4)),
        (
            "a cookie",
            change(&ask, |m| {
                m[43] = 12;
                m.extend([0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8]);
            }),
        ),
        ("the root", Ask::named("").message()),
        ("a header alone", ask.message()[..12].to_vec()),
        ("less than a header", ask.message()[..11].to_vec()),
        ("nothing", Vec::new()),
        ("a name of 129 octets", Ask::named(long).message()),
    ];
    assert_eq!(labels(long).len(), 129);
    for (what, message) in odd {
        for (own, server) in BOTH {
            assert_eq!(answered(&node, &frame(own, server, &message)), None, "{what}");
        }
        assert_eq!(dns::asked(&message).filter(|asked| asked.name.starts_with(b"\x03api")), None, "{what}");
    }
    let whole = datagram(OWN4, SERVER4, &ask.message());
    let mut cut = whole.clone();
    cut[5] -= 1;
    assert_eq!(answered(&node, &out(&plain(OWN4, SERVER4, UDP, &cut))), None, "a datagram shorter than its packet");
    let atomic = Knobs { fragment: Some((0, false)), ..Knobs::default() };
    let atomic = packet(OWN6, SERVER6, UDP, atomic, &datagram(OWN6, SERVER6, &ask.message()));
    node.tables.try_frame(Program::FromWorkload, &out(&atomic), node.device, 0).unwrap();
    let before = node.tables.answered().unwrap();
    let mut segment = tcp(4000, 53, ACK);
    segment.extend(ask.message());
    let go_on = [
        packet(OWN4, SERVER4, UDP, Knobs { fragment: Some((0, true)), ..Knobs::default() }, &whole),
        plain(OWN4, SERVER4, TCP, &segment),
        plain("10.1.0.99", SERVER4, UDP, &datagram("10.1.0.99", SERVER4, &ask.message())),
    ];
    for packet in go_on {
        node.tables.try_frame(Program::FromWorkload, &out(&packet), node.device, 0).unwrap();
    }
    assert_eq!(node.tables.answered().unwrap(), before, "a fragment, a segment, another's address");
    let name = "a23456789.b23456789.c23456789.d23456789.e23456789.f23456789.g23456789.h23456789.i23456789.j23456789.k23456789.l23456789.mmmmmm";
    let longest = Ask::named(name);
    assert_eq!(labels(name).len(), 128);
    answers(&node, &longest, &keep_closed(&node, &longest, &["192.0.2.1"]));
}

#[test]
fn a_checksum_that_is_missing_or_wrong_stays_so() {
    let node = node();
    let ask = Ask::default();
    let found = keep_closed(&node, &ask, &["192.0.2.1"]);
    let mut none = datagram(OWN4, SERVER4, &ask.message());
    none[6..8].fill(0);
    let given = answered(&node, &out(&plain(OWN4, SERVER4, UDP, &none))).unwrap();
    assert_eq!(given[40..42], [0, 0], "IPv4 may do without");
    let mut wrong = datagram(OWN4, SERVER4, &ask.message());
    wrong[7] ^= 1;
    let given = answered(&node, &out(&plain(OWN4, SERVER4, UDP, &wrong))).unwrap();
    assert_ne!(residue(&[pseudo(SERVER4, OWN4, given.len() - 34), given[34..].to_vec()].concat()), 0);
    answers(&node, &ask, &found);
}

#[test]
fn a_sealed_workload_gets_none() {
    let mut node = node();
    let ask = Ask::default();
    keep_closed(&node, &ask, &["192.0.2.1"]);
    node.change(|entry| entry.sealed = true);
    let answer =
        node.tables.try_frame(Program::FromWorkload, &frame(OWN4, SERVER4, &ask.message()), node.device, 0).unwrap();
    assert_eq!((answer.action, node.tables.answered().unwrap().sent), (2, 0));
}
