//! TLS over TCP: one stream, one verdict, however its segments come.

use inspect::{Followed, Hello, Inspection, MAX_HELD, Progress, Unreadable};

use crate::random::Random;
use crate::{hellos, shown};

const NAME: &str = "api.example.com";
/// The numbers wrap around within each of the hellos.
const FIRST: u32 = u32::MAX - 100;

/// Hellos of every kind, and what each shows.
fn streams() -> Vec<(&'static str, Vec<u8>, Progress)> {
    let hidden = |ech| Progress::Shown(Hello { server_name: Some(NAME.parse().unwrap()), ech });
    let nobody = Progress::Shown(Hello { server_name: None, ech: false });
    let long = hellos::post_quantum(NAME);
    vec![
        ("ordinary", hellos::ordinary(NAME), shown(NAME)),
        ("in records", hellos::in_records(&long, 300), shown(NAME)),
        ("post-quantum", long, shown(NAME)),
        ("TLS 1.2", hellos::tls12_only(NAME), shown(NAME)),
        ("nameless", hellos::nameless(), nobody),
        ("encrypted", hellos::encrypted(NAME), hidden(true)),
        ("openssl", include_bytes!("../../../fuzz/corpus/client_hello/openssl-tls12").to_vec(), shown(NAME)),
        // GREASE, a pretended ECH, X25519MLKEM768, extensions in a random order
        ("chromium", include_bytes!("../../../fuzz/corpus/client_hello/chromium").to_vec(), hidden(true)),
        ("not TLS", b"GET / HTTP/1.1\r\nHost: api.example.com\r\n\r\n".to_vec(), failed(Unreadable::NotTls)),
        ("an address", hellos::with_name(b"192.0.2.1"), failed(Unreadable::MalformedHello)),
    ]
}

fn failed(unreadable: Unreadable) -> Progress {
    Progress::Failed(unreadable)
}

/// Pushes pieces of the stream in this order; the verdict must be there after the last and not change with one more.
fn verdict(first_seq: Option<u32>, stream: &[u8], pieces: &[std::ops::Range<usize>]) -> Progress {
    let mut flow = Inspection::tcp(first_seq);
    let mut last = Progress::More;
    for piece in pieces {
        let now = flow.push(FIRST.wrapping_add(piece.start as u32), &stream[piece.clone()]);
        assert!(last == Progress::More || last == now, "{last:?} became {now:?}");
        assert!(flow.held() <= MAX_HELD && (!matches!(now, Progress::Failed(_)) || flow.held() == 0));
        last = now;
    }
    assert_eq!(flow.progress(), last);
    last
}

/// The verdict on a stream in one segment.
fn whole(stream: &[u8]) -> Progress {
    Inspection::tcp(Some(FIRST)).push(FIRST, stream)
}

#[test]
fn split_in_two_anywhere() {
    for (what, stream, expected) in streams() {
        let end = stream.len();
        for at in 1..end {
            let orders: [&[_]; 5] = [
                &[0..at, at..end],
                &[at..end, 0..at],
                &[0..at, 0..at, at..end, at..end],
                &[0..end.min(at + 7), at..end],
                &[at.saturating_sub(7)..end, 0..at],
            ];
            for pieces in orders {
                assert_eq!(verdict(Some(FIRST), &stream, pieces), expected, "{what}: {pieces:?}");
            }
        }
    }
}

#[test]
fn split_at_random() {
    let mut random = Random::new(1);
    for (what, stream, expected) in streams() {
        for round in 0..200 {
            let longest = stream.len().div_ceil(30) + random.below(200);
            let mut pieces = random.pieces(stream.len(), longest);
            assert_eq!(verdict(Some(FIRST), &stream, &pieces), expected, "{what}, {round}: {pieces:?}");
            // Without the SYN too, once everything is there, unless it fails: that may be the middle of something.
            let expected = if matches!(expected, Progress::Failed(_)) { Progress::More } else { expected.clone() };
            assert_eq!(verdict(None, &stream, &pieces), expected, "{what}, {round}: {pieces:?}");
            pieces.sort_by_key(|piece| piece.start);
            assert_eq!(verdict(None, &stream, &pieces), expected, "{what}, {round}: {pieces:?}");
        }
    }
}

/// A stream whose later part looks like a hello of its own, and comes first.
#[test]
fn a_hello_in_the_middle_is_not_the_streams() {
    let (real, bait) = (hellos::ordinary("evil.example.com"), hellos::ordinary("good.example.com"));
    let bait_at = FIRST.wrapping_add(real.len() as u32);

    let mut flow = Inspection::tcp(Some(FIRST));
    assert_eq!(flow.push(bait_at, &bait), Progress::More);
    assert_eq!(flow.push(FIRST, &real), shown("evil.example.com"));

    let mut flow = Inspection::tcp(None);
    assert_eq!(flow.push(bait_at, &bait), shown("good.example.com"));
    assert_eq!(flow.begins_at(), Some(bait_at), "the verdict says from where on it is true");
    assert_eq!(flow.push(FIRST, &real), shown("good.example.com"));
    assert_eq!(flow.begins_at(), Some(bait_at));
}

#[test]
fn without_the_syn_a_middle_proves_nothing() {
    let stream = hellos::post_quantum(NAME);
    for at in [1, 2, 5, 6, 100, stream.len() - 1] {
        let mut flow = Inspection::tcp(None);
        assert_eq!(flow.push(FIRST.wrapping_add(at as u32), &stream[at..]), Progress::More, "from {at}");
        assert_eq!(flow.push(FIRST, &stream[..at]), shown(NAME), "from {at}");
    }
    let mut flow = Inspection::tcp(None);
    for number in 0..70 {
        let before_last = number < 65;
        let progress = flow.push(FIRST.wrapping_add(number * 1000), &[b'x'; 1000]);
        assert_eq!(progress, if before_last { Progress::More } else { failed(Unreadable::NotTls) }, "after {number}");
    }
}

#[test]
fn copies_that_differ_are_denied() {
    let good = hellos::with_name(b"good.example.com");
    let evil = hellos::with_name(b"evil.example.com");
    let at = good.iter().zip(&evil).position(|(a, b)| a != b).unwrap();
    for first_seq in [None, Some(FIRST)] {
        for cut in at + 1..good.len() {
            let mut flow = Inspection::tcp(first_seq);
            assert_eq!(flow.push(FIRST, &good[..cut]), Progress::More);
            let contradiction = flow.push(FIRST, &evil);
            assert_eq!(contradiction, failed(Unreadable::ConflictingSegments), "cut at {cut}");
            assert_eq!(flow.push(FIRST, &good), contradiction);
        }
        let mut flow = Inspection::tcp(first_seq);
        flow.push(FIRST.wrapping_add(at as u32), &evil[at..]);
        assert_eq!(flow.push(FIRST, &good), failed(Unreadable::ConflictingSegments), "the later part came first");
    }
}

#[test]
fn names_that_are_none() {
    let read = |name: &[u8]| whole(&hellos::with_name(name));
    assert_eq!(read(b"API.Example.COM"), shown(NAME));
    assert_eq!(read(b"api.example.com."), shown(NAME));
    let bad: [&[u8]; 9] =
        [b"192.0.2.1", b"192.0.2.1.", b"2001:db8::1", b"[::1]", b"a b", b"a..b", b".", b"api.example.com\0.x", b"\xff"];
    for name in bad {
        assert_eq!(read(name), failed(Unreadable::MalformedHello), "{}", name.escape_ascii());
    }
    assert_eq!(read("bücher.example".as_bytes()), failed(Unreadable::MalformedHello));
    assert_eq!(read(&[b'a'; 64]), failed(Unreadable::MalformedHello));
}

#[test]
fn an_encrypted_hello_without_a_name() {
    let stream = hellos::with_extension(0xfe0d, &[1]);
    let expected = Progress::Shown(Hello { server_name: None, ech: true });
    assert_eq!(whole(&stream), expected);
}

#[test]
fn bounds_hold() {
    let endless = hellos::in_records(&[&[0; 5][..], &[1, 0, 0xff, 0], &[0; 60_000]].concat(), 4);
    let pieces: Vec<_> = (0..endless.len()).step_by(1000).map(|at| at..(at + 1000).min(endless.len())).collect();
    assert_eq!(verdict(Some(FIRST), &endless, &pieces), failed(Unreadable::HelloTooLong));

    let announced = [22, 3, 1, 0, 4, 1, 1, 0, 0];
    assert_eq!(whole(&announced), failed(Unreadable::HelloTooLong));

    let stream = hellos::post_quantum(NAME);
    let every_other: Vec<_> = (0..70).map(|piece| piece * 2 + 1..piece * 2 + 2).collect();
    assert_eq!(verdict(Some(FIRST), &stream, &every_other), failed(Unreadable::HelloTooLong));
}

#[test]
fn what_was_decided_stays() {
    let (good, evil) = (hellos::ordinary(NAME), hellos::ordinary("evil.example.com"));
    let mut flow = Inspection::tcp(Some(FIRST));
    assert_eq!(flow.push(FIRST, &good), shown(NAME));
    assert_eq!(flow.push(FIRST, &evil), shown(NAME));
    assert_eq!(flow.follow(FIRST, &evil), Followed::Failed(Unreadable::ConflictingSegments));
    assert_eq!(flow.push(FIRST.wrapping_add(good.len() as u32), b"\x17\x03\x03"), shown(NAME));

    let mut flow = Inspection::tcp(Some(FIRST));
    assert_eq!(flow.push(FIRST, b"SSH-2.0"), failed(Unreadable::NotTls));
    assert_eq!(flow.push(FIRST, &good), failed(Unreadable::NotTls));
}

#[test]
fn segments_without_payload_say_nothing() {
    let stream = hellos::ordinary(NAME);
    let mut flow = Inspection::tcp(None);
    assert_eq!(flow.push(FIRST.wrapping_sub(1), b""), Progress::More);
    assert_eq!(flow.begins_at(), None);
    assert_eq!(flow.push(FIRST, &stream), shown(NAME));
}

#[test]
fn no_bytes_panic() {
    let mut random = Random::new(2);
    for round in 0..2_000 {
        let first_seq = (round % 2 == 0).then_some(FIRST);
        let mut flow = Inspection::tcp(first_seq);
        let mut stream = hellos::with_name(NAME.as_bytes());
        for _ in 0..random.below(4) {
            let at = random.below(stream.len());
            stream[at] = random.below(256) as u8;
        }
        let mut last = Progress::More;
        for _ in 0..20 {
            let from = random.below(stream.len());
            let to = from + random.below(stream.len() - from + 1);
            let seq =
                if random.below(20) == 0 { random.below(1 << 31) as u32 * 2 } else { FIRST.wrapping_add(from as u32) };
            let now = flow.push(seq, &stream[from..to]);
            assert!(last == Progress::More || last == now);
            assert!(flow.held() <= MAX_HELD);
            last = now;
        }
    }
}
