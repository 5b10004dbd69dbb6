use super::*;

const NAME_OCTETS: &[u8] = b"\x03aPi\x07example\x03com\x00";
const NOW: Duration = Duration::from_secs(1_000);
const LONG: Duration = Duration::from_secs(86_400);

fn question(kind: u16, opt: &[u8]) -> Vec<u8> {
    let head = [7u16, 0x0100, 1, 0, 0, u16::from(!opt.is_empty())].map(u16::to_be_bytes).concat();
    [&head, NAME_OCTETS, &kind.to_be_bytes(), &[0, 1], opt].concat()
}

fn record(kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let fixed = [0xc00c, kind, 1].map(u16::to_be_bytes).concat();
    [&fixed, &ttl.to_be_bytes()[..], &(data.len() as u16).to_be_bytes(), data].concat()
}

fn answer(flags: u16, kind: u16, sections: [&[Vec<u8>]; 3]) -> Vec<u8> {
    let counts = sections.map(|section| (section.len() as u16).to_be_bytes()).concat();
    let head = [[0, 7], flags.to_be_bytes(), [0, 1]].concat();
    let records = sections.iter().flat_map(|section| section.iter()).flatten().copied().collect::<Vec<_>>();
    [&head, &counts, NAME_OCTETS, &kind.to_be_bytes(), &[0, 1], &records].concat()
}

fn soa(ttl: u32, least: u32) -> Vec<u8> {
    let times = [1, 2, 3, 4, least].map(u32::to_be_bytes).concat();
    record(6, ttl, &[&[0, 0][..], &times].concat())
}

fn keeps(message: &[u8], kind: u16, quiet: Duration) -> Option<Kept> {
    kept(&asked(&question(kind, &[])).unwrap(), message, quiet, NOW)
}

#[test]
fn a_question_is_read_in_lower_case_with_what_its_answer_depends_on() {
    let plain = asked(&question(28, &[])).unwrap();
    assert_eq!((&*plain.name, plain.kind, plain.flags), (&b"\x03api\x07example\x03com\x00"[..], 28, 0x0100));
    let opt = |dnssec| [0, 0, 41, 16, 0, 0, 0, dnssec, 0, 0, 0];
    for (octets, dnssec_ok) in [(&[][..], None), (&opt(0)[..], Some(false)), (&opt(0x80)[..], Some(true))] {
        assert_eq!(asked(&question(1, octets)).unwrap().dnssec_ok, dnssec_ok);
    }
    let message = question(1, &opt(0));
    assert!((0..message.len()).all(|end| asked(&message[..end]).is_none()), "cut anywhere");
}

#[test]
fn an_answer_is_kept_until_the_daemon_is_to_be_asked() {
    let two = [record(1, 300, &[192, 0, 2, 1]), record(1, 60, &[192, 0, 2, 2])];
    let found = keeps(&answer(0x8180, 1, [&two, &[], &[]]), 1, LONG).unwrap();
    assert_eq!((found.flags, found.counts), (0x8180, [2, 0, 0]));
    assert_eq!(*found.tail, *two.concat());
    assert_eq!(found.ttls, [6, 22]);
    assert_eq!(found.expires, NOW + Duration::from_secs(60), "the least of them");
    assert_eq!(found.ask, NOW + Duration::from_secs(55), "what the daemon learns lasts for 5 s at least");
    let found = keeps(&answer(0x8180, 1, [&two, &[], &[]]), 1, Duration::from_secs(20)).unwrap();
    assert_eq!(found.ask, NOW + Duration::from_secs(20));

    let missing = keeps(&answer(0x8583, 1, [&[], &[soa(900, 30)], &[]]), 1, LONG).unwrap();
    assert_eq!((missing.flags, missing.expires), (0x8583, NOW + Duration::from_secs(30)), "as the SOA record says");
    assert_eq!(keeps(&answer(0x8180, 1, [&[], &[soa(40, 90)], &[]]), 1, LONG).unwrap().counts, [0, 1, 0]);
}

#[test]
fn what_must_not_be_given_again_is_not_kept() {
    let address = |ttl| [record(1, ttl, &[192, 0, 2, 1])];
    let good = answer(0x8180, 1, [&address(60), &[], &[]]);
    assert!(keeps(&good, 1, LONG).is_some());
    for (what, flags) in [
        ("a question", 0x0180),
        ("another operation", 0x8980),
        ("cut", 0x8380),
        ("failed", 0x8182),
        ("refused", 0x8185),
        ("not there, and there", 0x8184),
    ] {
        assert_eq!(keeps(&answer(flags, 1, [&address(60), &[], &[]]), 1, LONG), None, "{what}");
    }
    let many = |count: u8, size: usize| (0..count).map(|_| record(1, 60, &vec![0; size])).collect::<Vec<_>>();
    assert!(keeps(&answer(0x8180, 1, [&many(16, 4), &[], &[]]), 1, LONG).is_some());
    let [longest, more] = [TAIL - 12, TAIL - 11].map(|size| answer(0x8180, 1, [&many(1, size), &[], &[]]));
    let by_edns = asked(&question(1, &[0, 0, 41, 16, 0, 0, 0, 0, 0, 0, 0])).unwrap();
    assert!(kept(&by_edns, &longest, LONG, NOW).is_some());
    assert_eq!(kept(&by_edns, &more, LONG, NOW), None, "too long");
    let fits = PLAIN - HEADER - NAME_OCTETS.len() - TYPE_CLASS - 12;
    assert!(keeps(&answer(0x8180, 1, [&many(1, fits), &[], &[]]), 1, LONG).is_some());
    for (what, message) in [
        ("17 TTLs", answer(0x8180, 1, [&many(17, 4), &[], &[]])),
        ("longer than who sends no OPT record takes", answer(0x8180, 1, [&many(1, fits + 1), &[], &[]])),
        ("about to end", answer(0x8180, 1, [&address(5), &[], &[]])),
        ("nobody says for how long", answer(0x8180, 1, [&[], &[], &[]])),
        ("no answer to that", answer(0x8180, 1, [&[record(5, 60, &[0])], &[], &[]])),
        ("another type", answer(0x8180, 28, [&[record(28, 60, &[0; 16])], &[], &[]])),
        ("an end that is missing", good[..good.len() - 1].to_vec()),
        ("another name", {
            let mut other = good.clone();
            other[14] ^= 1;
            other
        }),
    ] {
        assert_eq!(keeps(&message, 1, LONG), None, "{what}");
    }
    assert_eq!(keeps(&good, 1, Duration::from_millis(900)), None, "servers are asked soon");
    assert_eq!(keeps(&answer(0x8180, 255, [&address(60), &[], &[]]), 255, LONG), None, "ANY");
}
