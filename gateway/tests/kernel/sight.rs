//! ClientHellos that the kernel's program reads by itself (`bpf/sight.h`): which, what it makes of them, and that the
//! inspector's reader says the same of all of them.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use config::names::DnsName;
use gateway::egress::tables::flows::{Flow, Hold};
use gateway::egress::tables::hold::{HeldFlow, Read, Settled, Verdict};
use inspect::client_hello::Reader;
use policy::reason::Reason::*;
use policy::tables::{Action, ClassId, NameId, Step};

use super::attaching::{quiet, send};
use super::frames::*;
use super::hold::{self, CLASS, FAR, OTHER, VERIFIED, acknowledging, held, line, segment, shake};
use super::live::{Net, connect, listen};
use super::world::*;

const MINUTE: Duration = Duration::from_secs(60);
const SERVER_NAME: u16 = 0;

/// [`hold::node`], whose name is this.
fn node(name: &str) -> Node {
    let node = hold::node();
    calls(&node, NAME, name);
    node
}

fn calls(node: &Node, number: NameId, name: &str) {
    node.tables.write_name(number, &DnsName::try_from(name.to_owned()).unwrap()).unwrap();
}

fn vector(length: usize, octets: &[u8]) -> Vec<u8> {
    [&octets.len().to_be_bytes()[8 - length..], octets].concat()
}

fn extension(kind: u16, data: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &vector(2, data)].concat()
}

fn server_name(name: &str) -> Vec<u8> {
    extension(SERVER_NAME, &vector(2, &[&[0][..], &vector(2, name.as_bytes())].concat()))
}

/// A ClientHello with these extensions, in one record (RFC 8446, 4.1.2).
fn hello_of(extensions: &[Vec<u8>]) -> Vec<u8> {
    let body = [&[3, 3][..], &[7; 32], &vector(1, &[9; 32]), &vector(2, &[0x13, 1]), &vector(1, &[0])].concat();
    let message = [&[1][..], &vector(3, &[body, vector(2, &extensions.concat())].concat())].concat();
    [&[22, 3, 1][..], &vector(2, &message)].concat()
}

/// The same as clients have it: the name is among others.
fn hello(name: &str) -> Vec<u8> {
    hello_of(&[extension(0x1a1a, &[]), server_name(name), extension(43, &[4, 3, 4, 3, 3])])
}

fn flow(node: &Node, far: &str) -> Flow {
    node.tables.flows().unwrap().into_iter().find(|flow| flow.remote == addr(far)).unwrap()
}

fn sights(node: &Node) -> u64 {
    node.tables.verified_at_sight().unwrap()
}

/// Why the first segment of a new connection of IPv4 passes, or not: this, behind the handshake.
fn shows(node: &Node, payload: &[u8]) -> policy::reason::Reason {
    let (own, far) = FAR[0];
    shake(node, own, far, 100);
    let reason = node.sends(&out(&plain(own, far, TCP, &segment(ACK, 100, payload))));
    assert_eq!(node.sends(&out(&plain(own, far, TCP, &segment(RST, 100, &[])))) == KnownFlow, reason == AllowedByName);
    reason
}

#[test]
fn a_whole_hello_by_an_allowed_name_needs_no_inspector() {
    let node = node("a.example");
    for (turn, (own, far)) in (1..).zip(FAR) {
        let out = |payload: &[u8]| out(&plain(own, far, TCP, payload));
        let into = |number, payload: &[u8]| into(&plain(far, own, TCP, &acknowledging(number, ACK, payload)));
        shake(&node, own, far, 100);
        let whole = hello("A.Example");
        let end = 100 + whole.len() as u32;
        assert_eq!(node.sends(&out(&segment(ACK, 100, &whole))), AllowedByName);
        assert_eq!(sights(&node), turn);
        let flow = flow(&node, far);
        assert_eq!(
            (flow.hold, flow.name, flow.rule, flow.reason),
            (Hold::Verified, Some(NAME), VERIFIED, AllowedByName)
        );
        assert_eq!(flow.sent, (2, node_bytes(&[&out(&segment(SYN, 99, &[])), &out(&segment(ACK, 100, &whole))])));

        assert_eq!(node.sends(&out(&segment(ACK, 100, &whole))), KnownFlow, "the same again");
        let mut other = whole.clone();
        other[20] ^= 1;
        assert_eq!(node.sends(&out(&segment(ACK, 100, &other))), Held, "by the same name, and not the same");
        assert_eq!(node.sends(&out(&segment(ACK, 100, &whole[..60]))), Held, "a piece of it");
        assert_eq!(node.sends(&out(&segment(ACK, 101, &whole[1..]))), Held, "and another");
        assert_eq!(node.sends(&out(&segment(ACK, end, b"more"))), NotVerified, "not before the far end has it");
        assert_eq!(node.receives(&into(end, b"answer")), KnownFlow);
        assert_eq!(node.sends(&out(&segment(ACK, end, b"more"))), KnownFlow);
        assert_eq!(sights(&node), turn, "each flow counts once");
    }
}

/// A frame may be made of pages that its sender has too (sendfile(2)), and changes once it is on its way.
#[test]
fn what_was_read_leaves_whatever_becomes_of_the_pages_that_it_was_in() {
    let mut net = Net::new();
    let (_, far) = FAR[0];
    hold::verifies(&mut net.node, &[far]);
    net.far.ip(&format!("addr add {far}/32 dev lo"));
    ip(&format!("route add {far} via {FAR4}"));
    calls(&net.node, NAME, "a.example");
    let (allowed, other) = (hello("a.example"), hello("b.example"));
    let path = std::env::temp_dir().join(format!("tidegate-hello-{}", std::process::id()));
    fs::write(&path, &allowed).unwrap();
    let listener = listen(&net.far, (addr(far), 443).into());
    let here = connect(&net.workload, (addr(far), 443).into(), MINUTE).unwrap();
    let (mut there, _) = listener.accept().unwrap();
    let file = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    // SAFETY: two open descriptors; the place in the file is its own.
    let sent = unsafe { libc::sendfile(here.as_raw_fd(), file.as_raw_fd(), std::ptr::null_mut(), allowed.len()) };
    assert_eq!(sent as usize, allowed.len());
    wait_until("it is read at sight", || sights(&net.node) == 1);
    file.write_all_at(&other, 0).unwrap();
    fs::remove_file(&path).unwrap();
    let mut came = vec![0; allowed.len()];
    there.read_exact(&mut came).unwrap();
    assert_eq!(came, allowed, "and not what is in the pages now");
}

fn node_bytes(frames: &[&[u8]]) -> u64 {
    frames.iter().map(|frame| frame.len() as u64).sum()
}

#[test]
fn the_inspector_knows_again_what_the_program_has_read() {
    let node = node("a.example");
    let (own, far) = FAR[0];
    let whole = hello("a.example");
    shake(&node, own, far, 100);
    assert_eq!(node.sends(&out(&plain(own, far, TCP, &segment(ACK, 100, &whole)))), AllowedByName);
    let (_, flow) = held(&node, &out(&plain(own, far, TCP, &segment(ACK, 100, &whole[..50]))), TCP);
    let says = |reason, shown| {
        let read = Some(Read { end: 999, shown });
        node.tables.settle(&flow, &Verdict { reason, name: Some(NAME), read }).unwrap()
    };
    assert_eq!(says(AllowedByName, node.tables.fingerprint(&whole)), Settled::Before);
    assert_eq!(says(AllowedByName, node.tables.fingerprint(&whole[..50])), Settled::ByAnother);
    assert_eq!(says(SniMismatch, 0), Settled::ByAnother);
    assert_eq!(says(AllowedByName, 0), Settled::ByAnother);
    let flow = HeldFlow { opened_ns: flow.opened_ns + 1, ..flow };
    let gone = Verdict { reason: SniMismatch, name: None, read: None };
    assert_eq!(node.tables.settle(&flow, &gone).unwrap(), Settled::Gone);
    assert_eq!(node.tables.flows().unwrap().len(), 1);
    assert_eq!(super::sight::flow(&node, far).hold, Hold::Verified, "none of it has changed anything");
}

/// What the two sides compute is the same, whatever the length's remainder: else the program would not know it again.
#[test]
fn fingerprints_are_those_of_the_library() {
    let node = node("a.example");
    let (own, far) = FAR[0];
    for filling in 0..17 {
        let whole = hello_of(&[server_name("a.example"), extension(21, &vec![0xa5; filling])]);
        shake(&node, own, far, 100);
        let frame = out(&plain(own, far, TCP, &segment(ACK, 100, &whole)));
        assert_eq!(node.sends(&frame), AllowedByName);
        let (_, flow) = held(&node, &out(&plain(own, far, TCP, &segment(ACK, 101, &whole[1..]))), TCP);
        let read = Some(Read { end: 0, shown: node.tables.fingerprint(&whole) });
        let verdict = Verdict { reason: AllowedByName, name: Some(NAME), read };
        assert_eq!(node.tables.settle(&flow, &verdict).unwrap(), Settled::Before, "{} octets", whole.len());
        node.sends(&out(&plain(own, far, TCP, &segment(RST, 100, &[]))));
    }
}

#[test]
fn whatever_else_there_is_to_say_the_inspector_says() {
    let node = node("a.example");
    calls(&node, OTHER, "b.example");
    let named = |name: &str| extension(SERVER_NAME, &vector(2, &[&[0][..], &vector(2, name.as_bytes())].concat()));
    let whole = hello("a.example");
    assert_eq!(shows(&node, &whole), AllowedByName, "or what follows shows nothing");
    let bent = |at: usize, by: u8| {
        let mut bent = whole.clone();
        bent[at] = bent[at].wrapping_add(by);
        bent
    };
    let cases = [
        ("another name", hello("b.example")),
        ("a name that nobody knows", hello("c.example")),
        ("a longer name", hello("a.example.org")),
        ("a name below it", hello("x.a.example")),
        ("a shorter one", hello("a.exampl")),
        ("one octet", hello("a")),
        ("an octet of zero behind it", hello("a.example\0")),
        ("more behind an octet of zero", hello("a.example\0.org")),
        ("a last dot", hello("a.example.")),
        ("an empty name", hello("")),
        ("a name of 300 octets", hello(&"a".repeat(300))),
        ("no name", hello_of(&[extension(43, &[4, 3, 4, 3, 3])])),
        ("no extensions", hello_of(&[])),
        ("two of them", hello_of(&[named("a.example"), named("a.example")])),
        ("a second one that is another", hello_of(&[named("a.example"), named("b.example")])),
        ("a list of two", {
            let entry = [&[0][..], &vector(2, b"a.example")].concat();
            hello_of(&[extension(SERVER_NAME, &vector(2, &[&entry[..], &entry].concat()))])
        }),
        ("another type of name", {
            hello_of(&[extension(SERVER_NAME, &vector(2, &[&[1][..], &vector(2, b"a.example")].concat()))])
        }),
        ("more than so many extensions", {
            let all = (0..70).map(|number| extension(0x2a00 + number, &[])).collect::<Vec<_>>();
            hello_of(&[vec![named("a.example")], all].concat())
        }),
        ("not a handshake", bent(0, 1)),
        ("not TLS", bent(1, 1)),
        ("not a ClientHello", bent(5, 1)),
        ("a longer record", bent(4, 1)),
        ("a shorter record", bent(4, 255)),
        ("a longer message", bent(8, 1)),
        ("a shorter message", bent(8, 255)),
        ("a longer session", bent(43, 1)),
        ("a longer list of suites", bent(77, 2)),
        ("an odd list of suites", bent(77, 1)),
        ("no compression method", bent(80, 255)),
        ("longer extensions", bent(83, 1)),
        ("less than all of it", whole[..whole.len() - 1].to_vec()),
        ("more than it", [&whole[..], &[0]].concat()),
        ("two records", {
            let (first, second) = whole[5..].split_at(40);
            let record = |piece: &[u8]| [&[22, 3, 1][..], &vector(2, piece)].concat();
            [record(first), record(second)].concat()
        }),
        ("more than 2 KiB", hello_of(&[named("a.example"), extension(21, &[0; 2048])])),
        ("nothing that long", vec![22, 3, 1]),
    ];
    let before = sights(&node);
    for (what, payload) in cases {
        assert_eq!(shows(&node, &payload), Held, "{what}");
    }
    assert_eq!(sights(&node), before);
    assert_eq!(shows(&node, &whole), AllowedByName);
}

/// Where the kernel or a device is to finish a checksum, it writes octets: not into what was read.
#[test]
fn a_hello_that_a_checksum_would_be_written_into_is_the_inspectors() {
    let node = node("a.example");
    ["w1", "w1p"].into_iter().for_each(quiet);
    node.tables.attach(node.device).unwrap();
    let whole = hello("a.example");
    for (own, far) in FAR {
        let frame = out(&plain(own, far, TCP, &segment(ACK, 100, &whole)));
        let segment = (frame.len() - whole.len() - 20) as u16;
        let places = [
            (Some((segment, 16)), AllowedByName),
            (None, AllowedByName),
            (Some((segment, 14)), Held),
            (Some((segment, 60)), Held),
            (Some((segment + 20, 16)), Held),
        ];
        for (place, reason) in places {
            shake(&node, own, far, 100);
            let half = |value: u16| value.to_ne_bytes();
            let (from, at) = place.unwrap_or_default();
            let flags = [u8::from(place.is_some()), 0];
            let head = [&flags[..], &half(0), &half(0), &half(from), &half(at)].concat();
            let before = node.counts();
            send(&[&head[..], &frame].concat(), true);
            let count = |counts: std::collections::BTreeMap<u8, u64>| [AllowedByName, Held].map(|r| counts[&(r as u8)]);
            wait_until("the frame is counted", || count(node.counts()) != count(before.clone()));
            let [allowed, held] = count(node.counts());
            assert_eq!(if allowed > count(before)[0] { AllowedByName } else { Held }, reason, "{place:?}, {held}");
            node.sends(&out(&plain(own, far, TCP, &hold::segment(RST, 100, &[]))));
        }
    }
}

#[test]
fn only_what_the_workload_resolved_and_a_rule_allows_is_verified() {
    let mut node = node("a.example");
    let (_, far) = FAR[0];
    let whole = hello("a.example");
    calls(&node, OTHER, "b.example");
    // a name that verifies nothing opens the flow, and is not the one that is asked for
    node.learn_all(far, &[OTHER], MINUTE);
    node.tables.write_name_class(EGRESS, OTHER, Some(CLASS)).unwrap();
    assert_eq!(shows(&node, &whole), Held, "resolved to another address only");
    assert_eq!(shows(&node, &hello("b.example")), AllowedByName);

    node.learn_all(far, &[OTHER, NAME], MINUTE);
    assert_eq!(shows(&node, &whole), AllowedByName, "in whichever slot");
    node.tables.write_name_class(EGRESS, NAME, None).unwrap();
    assert_eq!(shows(&node, &whole), Held, "no rule speaks of it");
    let denies = ClassId(61);
    let lines = vec![line(denies, TCP, Action::Deny, DENY)];
    node.tables.apply(&Step { lines, ..Step::default() }).unwrap();
    node.tables.write_name_class(EGRESS, NAME, Some(denies)).unwrap();
    assert_eq!(shows(&node, &whole), Held, "a rule denies it");
    node.tables.write_name_class(EGRESS, NAME, Some(CLASS)).unwrap();
    assert_eq!(shows(&node, &whole), AllowedByName);

    let slots = [(OTHER, MINUTE), (NAME, Duration::ZERO)].map(|(name, left)| {
        let expires = gateway::sys::bpf::boot_time() + left;
        gateway::egress::tables::names::LearnedSlot { name, expires }
    });
    node.tables.learn(gateway::workload::WorkloadId(1), addr(far), &slots).unwrap();
    assert_eq!(shows(&node, &whole), Held, "its time is over");

    node.learn_all(far, &[NAME], MINUTE);
    node.tables.remove_names(&BTreeSet::from([NAME])).unwrap();
    node.tables.write_name_class(EGRESS, NAME, Some(CLASS)).unwrap();
    assert_eq!(shows(&node, &whole), Held, "its number has no text");
    calls(&node, NAME, "a.example");
    node.change(|entry| entry.rejects = false);
    assert_eq!(shows(&node, &whole), AllowedByName);
}

/// The random octets of one seed (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ z >> 31) % limit as u64) as usize
    }

    fn bend(&mut self, octets: &mut Vec<u8>) {
        match self.below(6) {
            0..=2 => {
                let at = self.below(octets.len());
                octets[at] = self.below(256) as u8;
            }
            3 => {
                let at = self.below(octets.len());
                octets[at] ^= 1 << self.below(8);
            }
            4 => octets.truncate(1 + self.below(octets.len())),
            _ => {
                let (from, to) = (self.below(octets.len()), self.below(octets.len()));
                let piece = octets[from.min(to)..from.max(to).min(from.min(to) + 40)].to_vec();
                let at = self.below(octets.len());
                octets.splice(at..at, piece);
            }
        }
    }
}

/// Whatever the program takes for a hello by that name is one to the inspector's reader: real clients' hellos, bent.
#[test]
fn it_reads_nothing_that_the_inspector_would_not() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/client_hello");
    let mut real: Vec<Vec<u8>> =
        fs::read_dir(folder).unwrap().map(|file| fs::read(file.unwrap().path()).unwrap()).collect();
    real.push(hello("a.example"));
    let name = |octets: &[u8]| Reader::default().push(octets).ok().flatten().and_then(|hello| hello.server_name);
    let seed = std::env::var("TIDEGATE_SEED").map_or(7, |seed| seed.parse().unwrap());
    let mut random = Random(seed);
    let (mut taken, mut left, mut both) = (0, 0, 0);
    for octets in real.iter().filter(|octets| name(octets).is_some()) {
        let own = name(octets).unwrap();
        let node = node(&own);
        let one_record = usize::from(u16::from_be_bytes([octets[3], octets[4]])) + 5 == octets.len();
        let fits = one_record && octets.len() <= 2048;
        assert_eq!(shows(&node, octets) == AllowedByName, fits, "{own}, {} octets", octets.len());
        for _ in 0..if fits { 1_000 } else { 0 } {
            let mut bent = octets.clone();
            (0..1 + random.below(3)).for_each(|_| random.bend(&mut bent));
            let said = name(&bent).filter(|said| said.eq_ignore_ascii_case(&own));
            match (shows(&node, &bent), said) {
                (AllowedByName, Some(_)) => taken += 1,
                (AllowedByName, None) => panic!("seed {seed}: the program takes {bent:02x?} for {own}"),
                (Held, Some(_)) => both += 1,
                (Held, None) => left += 1,
                (other, _) => panic!("{other:?}"),
            }
        }
    }
    println!("{taken} taken, {left} left, of {both} more the inspector reads the name");
    assert!(taken > 500 && left > 500 && both > 0);
}
