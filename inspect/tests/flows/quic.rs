//! QUIC: one connection, one verdict, however its packets come.

use inspect::{Hello, Inspection, MAX_HELD, Progress, Unreadable};
use rustls::quic::Version;

use crate::initial::{Initial, crypto, two_bytes};
use crate::random::Random;
use crate::{hellos, shown};

const NAME: &str = "api.example.com";
const MID_CONNECTION: Progress = Progress::Failed(Unreadable::QuicMidConnection);
const CONFLICT: Progress = Progress::Failed(Unreadable::ConflictingSegments);
const MALFORMED: Progress = Progress::Failed(Unreadable::MalformedHello);
const TOO_LONG: Progress = Progress::Failed(Unreadable::HelloTooLong);

/// Pushes the datagrams; once decided, the verdict must not change.
fn verdict(datagrams: &[Vec<u8>]) -> Progress {
    let mut flow = Inspection::udp();
    let mut last = Progress::More;
    for datagram in datagrams {
        let now = flow.push(0, datagram);
        assert!(last == Progress::More || last == now, "{last:?} became {now:?}");
        assert!(flow.held() <= MAX_HELD && (!matches!(now, Progress::Failed(_)) || flow.held() == 0));
        last = now;
    }
    assert_eq!(flow.progress(), last);
    last
}

/// The packet with this number and these bytes of the message.
fn part(initial: Initial<'_>, number: u64, message: &[u8], range: std::ops::Range<usize>) -> Vec<u8> {
    Initial { number, ..initial }.seal(&crypto(range.start, &message[range]))
}

fn whole(initial: Initial<'_>, message: &[u8]) -> Vec<u8> {
    part(initial, 0, message, 0..message.len())
}

/// A packet with a long header that is not read, with these type bits (RFC 9000 §17.2 table 5).
fn beside(version: u32, kind: u8) -> Vec<u8> {
    let id = Initial::default().destination;
    let header = [&[0xc0 | kind << 4][..], &version.to_be_bytes(), &[8], id, &[0]].concat();
    [&header, &two_bytes(100)[..], &[0x5a; 100]].concat()
}

#[test]
fn real_clients() {
    for version in [Version::V1, Version::V2] {
        let initial = Initial { version, ..Initial::default() };
        let message = hellos::of_quic(NAME, false);
        assert_eq!(verdict(&[whole(initial, &message)]), shown(NAME));
        let message = hellos::of_quic(NAME, true);
        let end = message.len();
        assert!(end > 1_200, "{end} bytes do not fit one datagram");
        assert_eq!(verdict(&[part(initial, 0, &message, 0..1100), part(initial, 1, &message, 1100..end)]), shown(NAME));
        let of_tls = |flight: Vec<u8>| verdict(&[whole(initial, &flight[5..])]);
        assert_eq!(of_tls(hellos::nameless()), Progress::Shown(Hello { server_name: None, ech: false }));
        let name = Some(NAME.parse().unwrap());
        assert_eq!(of_tls(hellos::encrypted(NAME)), Progress::Shown(Hello { server_name: name, ech: true }));
        assert_eq!(of_tls(hellos::with_name(b"192.0.2.1")), MALFORMED);
    }
}

/// Recorded from aioquic: a hello in one datagram, and one of 2 KB in two, which are sent again when no answer comes.
#[test]
fn a_recorded_client() {
    let v1 = include_bytes!("../../../fuzz/corpus/quic_initial/aioquic-v1").to_vec();
    let v2 = include_bytes!("../../../fuzz/corpus/quic_initial/aioquic-v2").to_vec();
    assert_eq!((verdict(&[v1]), verdict(&[v2])), (shown(NAME), shown(NAME)));
    let first = include_bytes!("../../../fuzz/corpus/quic_initial/aioquic-long-1").to_vec();
    let second = include_bytes!("../../../fuzz/corpus/quic_initial/aioquic-long-2").to_vec();
    let first_again = include_bytes!("../../../fuzz/corpus/quic_initial/aioquic-long-again-1").to_vec();
    let second_again = include_bytes!("../../../fuzz/corpus/quic_initial/aioquic-long-again-2").to_vec();
    for first in [&first, &first_again] {
        for second in [&second, &second_again] {
            assert_eq!(verdict(&[first.clone(), second.clone()]), shown(NAME));
            assert_eq!(verdict(&[second.clone(), first.clone()]), shown(NAME));
        }
    }
    assert_eq!(verdict(&[first.clone(), first_again, first]), Progress::More);
    assert_eq!(verdict(&[second.clone(), second_again, second]), Progress::More);
}

/// Recorded from Chromium, which cuts its hello into pieces in a random order over two datagrams.
#[test]
fn a_recorded_browser() {
    let first = include_bytes!("../../../fuzz/corpus/quic_initial/chromium-1").to_vec();
    let second = include_bytes!("../../../fuzz/corpus/quic_initial/chromium-2").to_vec();
    let name = Some(NAME.parse().unwrap());
    let shown = Progress::Shown(Hello { server_name: name, ech: true });
    assert_eq!(verdict(&[first.clone(), second.clone()]), shown);
    assert_eq!(verdict(&[second.clone(), first.clone()]), shown);
    assert_eq!(verdict(&[first.clone(), first]), Progress::More);
    assert_eq!(verdict(&[second]), Progress::More);
}

#[test]
fn split_in_two_anywhere() {
    let message = hellos::of_quic(NAME, false);
    let end = message.len();
    for at in 1..end {
        let initial = Initial { at_least: 0, version: [Version::V1, Version::V2][at % 2], ..Initial::default() };
        let front = part(initial, 0, &message, 0..at);
        let back = part(initial, 1, &message, at..end);
        let over = part(initial, 2, &message, at.saturating_sub(9).max(1)..end);
        let orders: [&[&Vec<u8>]; 5] =
            [&[&front, &back], &[&back, &front], &[&front, &front, &back], &[&over, &back, &front], &[&front, &over]];
        for (number, order) in orders.into_iter().enumerate() {
            let datagrams: Vec<Vec<u8>> = order.iter().map(|datagram| (*datagram).clone()).collect();
            assert_eq!(verdict(&datagrams), shown(NAME), "at {at}, order {number}");
            assert_eq!(verdict(&datagrams[..order.len() - 1]), Progress::More, "at {at}, order {number}");
        }
        assert_eq!(verdict(&[[front, back].concat()]), shown(NAME), "at {at}, in one datagram");
    }
}

#[test]
fn split_at_random() {
    let mut random = Random::new(3);
    let message = hellos::of_quic(NAME, true);
    for round in 0..100 {
        let longest = message.len().div_ceil(30) + random.below(300);
        let pieces = random.pieces(message.len(), longest);
        let mut datagrams = vec![Vec::new()];
        let mut packet = Vec::new();
        for (number, piece) in pieces.iter().enumerate() {
            // PING, CRYPTO, ACK and PADDING in one packet, packets in one datagram, as it comes.
            packet.extend([&[1][..], &crypto(piece.start, &message[piece.clone()]), &[2, 0, 0, 0, 0, 0]].concat());
            let is_last = number == pieces.len() - 1;
            if is_last || random.below(3) > 0 {
                let number_length = 1 + random.below(4);
                let initial = Initial { number: number as u64, number_length, at_least: 0, ..Initial::default() };
                datagrams.last_mut().unwrap().extend(initial.seal(&packet));
                packet.clear();
                if !is_last && random.below(3) > 0 {
                    datagrams.push(Vec::new());
                }
            }
        }
        random.shuffle(&mut datagrams);
        assert_eq!(verdict(&datagrams), shown(NAME), "round {round}");
    }
}

#[test]
fn numbers_tokens_and_retries() {
    let message = hellos::of_quic(NAME, false);
    for number_length in 1..=4 {
        for number in [0, 1, 200] {
            let initial = Initial { number_length, number, ..Initial::default() };
            assert_eq!(verdict(&[initial.seal(&crypto(0, &message))]), shown(NAME), "{number} in {number_length}");
        }
    }
    // Numbers of one byte go on past 255.
    let initial = Initial { at_least: 0, ..Initial::default() };
    let far = [
        Initial { number: 250, number_length: 2, ..initial }.seal(&crypto(0, &message[..9])),
        Initial { number: 260, ..initial }.seal(&crypto(9, &message[9..])),
    ];
    assert_eq!(verdict(&far), shown(NAME));
    for length in [1, 63, 64, 900] {
        let token = vec![7; length];
        assert_eq!(verdict(&[whole(Initial { token: &token, ..initial }, &message)]), shown(NAME), "{length}");
    }
    assert_eq!(verdict(&[whole(Initial { is_greased: true, ..initial }, &message)]), shown(NAME));
    // After a Retry the client begins anew, with the server's ID and its token.
    let first = whole(initial, &message);
    for id in [&b""[..], &[1], &[9; 20]] {
        let again = whole(Initial { destination: id, token: b"token", number: 1, ..initial }, &message);
        assert_eq!(verdict(std::slice::from_ref(&again)), shown(NAME));
        assert_eq!(verdict(&[first.clone(), again.clone()]), shown(NAME));
        assert_eq!(verdict(&[[first.clone(), again].concat()]), shown(NAME));
    }
}

#[test]
fn packets_beside_are_skipped() {
    let message = hellos::of_quic(NAME, false);
    let initial = Initial { at_least: 0, ..Initial::default() };
    let (front, back) = (part(initial, 0, &message, 0..90), part(initial, 1, &message, 90..message.len()));
    let (zero_rtt, handshake, short) = (beside(1, 1), beside(1, 2), vec![0x41; 60]);
    let orders = [
        vec![[&front[..], &zero_rtt, &handshake, &back, &short].concat()],
        vec![[&zero_rtt[..], &front].concat(), [&handshake[..], &back].concat()],
        vec![[&front[..], &[0; 300]].concat(), zero_rtt.clone(), short.clone(), handshake.clone(), back.clone()],
        vec![front.clone(), beside(1, 3), back.clone()],
    ];
    for (number, order) in orders.iter().enumerate() {
        assert_eq!(verdict(order), shown(NAME), "order {number}");
    }
    let of_2 = Initial { version: Version::V2, ..initial };
    let datagram = [&beside(0x6b33_43cf, 2)[..], &beside(0x6b33_43cf, 3), &whole(of_2, &message)].concat();
    assert_eq!(verdict(&[datagram]), shown(NAME));
}

#[test]
fn what_begins_no_connection() {
    let message = hellos::of_quic(NAME, false);
    let good = whole(Initial::default(), &message);
    for packet in [vec![0x41; 60], beside(1, 1), beside(1, 2), beside(1, 3), beside(0x6b33_43cf, 0), beside(0, 0)] {
        assert_eq!(verdict(&[packet.clone(), good.clone()]), MID_CONNECTION, "{:x?}", &packet[..5]);
    }
    let under_way = Initial { keys_of: Some(b"the first ID"), ..Initial::default() };
    assert_eq!(verdict(&[whole(under_way, &message)]), MID_CONNECTION);
    for version in [2, 0xff00_001d, 0x1a2a_3a4a, 0x709a_50c4] {
        assert_eq!(verdict(&[beside(version, 0), good.clone()]), Progress::Failed(Unreadable::UnknownQuicVersion));
    }
    let others: [&[u8]; 5] =
        [&[22, 254, 253, 0, 0], b"\x12\x34\x01\x00\x00\x01", &[0x80, 0x60, 1, 2, 3, 4], &[0], &[0xc0]];
    for bytes in others {
        assert_eq!(verdict(&[bytes.to_vec(), good.clone()]), Progress::Failed(Unreadable::NotTls), "{bytes:x?}");
    }
    let mut flow = Inspection::udp();
    assert_eq!(flow.push(0, b""), Progress::More);
    assert_eq!(flow.push(0, &good), shown(NAME));
}

/// What a server may take otherwise than it is read here is not passed for the better of the two.
#[test]
fn two_truths_are_denied() {
    let (good, evil) = (hellos::with_name(b"good.example.com"), hellos::with_name(b"evil.example.com"));
    let (good, evil) = (&good[5..], &evil[5..]);
    let at = good.iter().zip(evil).position(|(a, b)| a != b).unwrap();
    let end = good.len();
    let initial = Initial { at_least: 0, ..Initial::default() };
    let other = Initial { destination: b"other ID", ..initial };

    let front = part(initial, 0, good, 0..at + 1);
    assert_eq!(verdict(&[front.clone(), part(initial, 1, evil, at..end)]), CONFLICT, "CRYPTO bytes that differ");

    let front = part(initial, 0, good, 0..at);
    let same_number = [front.clone(), part(initial, 0, good, at..end)];
    assert_eq!(verdict(&same_number), CONFLICT, "a packet number used twice");

    let half = part(other, 0, evil, 0..at);
    assert_eq!(verdict(&[half.clone(), whole(initial, good)]), Progress::More, "a second connection's half");
    assert_eq!(verdict(&[[whole(initial, good), half.clone()].concat()]), Progress::More);
    let rest = part(other, 1, evil, at..end);
    assert_eq!(verdict(&[half.clone(), whole(initial, good), rest]), CONFLICT, "two connections, two names");
    assert_eq!(verdict(&[half, whole(initial, good), part(other, 1, good, at..end)]), shown("good.example.com"));

    let unopened = whole(Initial { keys_of: Some(b"another"), ..initial }, evil);
    assert_eq!(verdict(&[front.clone(), unopened]), MID_CONNECTION, "a packet that does not open");
    assert_eq!(verdict(&[front.clone(), beside(9, 0)]), Progress::Failed(Unreadable::UnknownQuicVersion));
    let of_2 = part(Initial { version: Version::V2, ..initial }, 1, evil, at..end);
    assert_eq!(verdict(&[front, of_2]), Progress::More, "another version is another connection");
}

#[test]
fn packets_that_break_the_format() {
    let message = hellos::of_quic(NAME, false);
    let good = crypto(0, &message);
    let initial = Initial::default();
    assert_eq!(verdict(&[Initial { reserved_bits: 1, ..initial }.seal(&good)]), MALFORMED);
    assert_eq!(verdict(&[initial.seal(&[&good[..], &[8]].concat())]), MALFORMED, "a STREAM frame");
    let empty = Initial { at_least: 0, number_length: 4, ..initial };
    assert_eq!(verdict(&[empty.seal(&[])]), MALFORMED, "no frame");
    assert_eq!(verdict(&[initial.seal(&crypto(0, &[2, 0, 0, 9]))]), MALFORMED, "a ServerHello");
    let long_id = Initial { destination: &[1; 21], ..initial };
    assert_eq!(verdict(&[long_id.seal(&good)]), MALFORMED);
    let whole = initial.seal(&good);
    for length in 5..whole.len() {
        assert_eq!(verdict(&[whole[..length].to_vec()]), MALFORMED, "{length} bytes");
    }
}

#[test]
fn bounds_hold() {
    let initial = Initial { at_least: 0, ..Initial::default() };
    assert_eq!(verdict(&[initial.seal(&crypto(0, &[1, 1, 0, 0]))]), TOO_LONG, "a message of 64 KiB");
    let pings: Vec<_> = (0..300).map(|number| Initial { number, number_length: 2, ..initial }.seal(&[1; 9])).collect();
    assert_eq!(verdict(&pings), TOO_LONG, "packets without a hello");
    let gaps: Vec<u8> = (0..70).flat_map(|gap| crypto(10 + gap * 2, b"x")).collect();
    assert_eq!(verdict(&[initial.seal(&gaps)]), TOO_LONG, "pieces");
    let ids: Vec<[u8; 8]> = (0..5).map(|id| [id; 8]).collect();
    let halves = |count: usize| -> Vec<_> {
        ids[..count].iter().map(|id| Initial { destination: id, ..initial }.seal(&crypto(0, &[1, 0]))).collect()
    };
    assert_eq!((verdict(&halves(4)), verdict(&halves(5))), (Progress::More, TOO_LONG), "connections");
    let bulk: Vec<_> = (0..70)
        .map(|number| {
            let id = &ids[number % 4];
            let packet = Initial { number: number as u64, destination: id, ..initial };
            packet.seal(&crypto(1 + number / 4 * 1000, &[0; 1000]))
        })
        .collect();
    assert_eq!((verdict(&bulk[..65]), verdict(&bulk)), (Progress::More, TOO_LONG), "bytes of all connections");
    let far = initial.seal(&crypto(1 << 29, b"far"));
    assert_eq!(verdict(&[far]), Progress::More);
}

#[test]
fn what_was_decided_stays() {
    let (good, evil) = (hellos::of_quic(NAME, false), hellos::of_quic("evil.example.com", false));
    let other = Initial { destination: b"other ID", ..Initial::default() };
    assert_eq!(verdict(&[whole(Initial::default(), &good), whole(other, &evil)]), shown(NAME));
}

#[test]
fn no_bytes_panic() {
    let mut random = Random::new(4);
    let message = hellos::of_quic(NAME, false);
    let good = Initial { at_least: 0, ..Initial::default() }.seal(&crypto(0, &message));
    for _ in 0..3_000 {
        let length = 1 + random.below(200);
        let mut bytes = random.bytes(length);
        verdict(std::slice::from_ref(&bytes));
        bytes.splice(..length.min(5), [0xc3, 0, 0, 0, 1]);
        verdict(std::slice::from_ref(&bytes));
        // Frames that open.
        let frames = random.bytes(length);
        verdict(&[Initial { at_least: 0, number_length: 4, ..Initial::default() }.seal(&frames)]);
        let mut changed = good.clone();
        for _ in 0..=random.below(3) {
            let at = random.below(changed.len());
            changed[at] = random.below(256) as u8;
        }
        let read = verdict(std::slice::from_ref(&changed));
        assert!(changed == good || matches!(read, Progress::Failed(_)), "{read:?}");
    }
}
