use hickory_resolver::proto::rr::RData;
use hickory_resolver::proto::rr::rdata::svcb::{Mandatory, SVCB, SvcParamKey, SvcParamValue};

use super::*;
use crate::egress::dns::edit;

#[path = "../../../../../fuzz/invariants/dns_answer.rs"]
mod invariants;

const NO_ECH: Cuts<'_> = Cuts { ech: true, glue: &[] };
const SOA: u16 = 6;
const MX: u16 = 15;
const OPT: u16 = 41;
const IN: u16 = 1;
/// What an `ech` has here: bytes that look like pointers too.
const CONFIG: &[u8] = &[0, 8, 0xc0, 0x0c, 0xc0, 0x20, 3, b'w', b'w', b'w'];

/// A message that is put together record by record.
struct Wire(Vec<u8>);

impl Wire {
    /// An answer with AD set, to a question for `www.example.com HTTPS`.
    fn new() -> Self {
        let mut bytes = vec![0x12, 0x34, 0x81, 0xa0, 0, 1, 0, 0, 0, 0, 0, 0];
        bytes.extend(name("WWW.example.com"));
        bytes.extend([0, 65, 0, 1]);
        Self(bytes)
    }

    /// Adds a record; answers where its data is.
    fn add(&mut self, section: usize, owner: &[u8], kind: u16, data: &[u8]) -> usize {
        self.0[COUNTS[section] + 1] += 1;
        self.0.extend(owner);
        for word in [kind, IN, 0, 300, data.len() as u16] {
            self.0.extend(word.to_be_bytes());
        }
        self.0.extend(data);
        self.0.len() - data.len()
    }

    fn without_ad(mut self) -> Vec<u8> {
        self.0[3] &= !0x20;
        self.0
    }
}

fn name(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in text.split('.').filter(|label| !label.is_empty()) {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

fn to(place: usize) -> Vec<u8> {
    (0xc000 | place as u16).to_be_bytes().to_vec()
}

fn labels_to(text: &str, place: usize) -> Vec<u8> {
    let mut bytes = name(text);
    bytes.pop();
    [bytes, to(place)].concat()
}

/// The data of an HTTPS or SVCB record.
fn service(priority: u16, target: &[u8], parameters: &[(u16, &[u8])]) -> Vec<u8> {
    let mut bytes = [&priority.to_be_bytes(), target].concat();
    for (key, value) in parameters {
        bytes.extend(key.to_be_bytes());
        bytes.extend((value.len() as u16).to_be_bytes());
        bytes.extend(*value);
    }
    bytes
}

fn signature(covered: u16, signer: &[u8]) -> Vec<u8> {
    [&covered.to_be_bytes()[..], &[13, 3, 0, 0, 1, 44, 0, 0, 0, 9, 0, 0, 0, 1, 7, 7], signer, &[0x55; 64]].concat()
}

/// A message of many kinds of records, with ECH or as it must be without.
fn varied(with: bool) -> Vec<u8> {
    let mut wire = Wire::new();
    let (www, example) = (HEADER, HEADER + 4);
    let ech = |parameters: &[(u16, &[u8])]| -> Vec<u8> {
        service(
            1,
            &name("pool.example.com"),
            &parameters.iter().copied().filter(|(key, _)| with || *key != ECH).collect::<Vec<_>>(),
        )
    };
    let first = ech(&[
        (MANDATORY, if with { &[0, 1, 0, 5] } else { &[0, 1] }),
        (1, b"\x02h2\x02h3"),
        (3, &[1, 187]),
        (ECH, CONFIG),
        (6, &[0x20; 16]),
        (65280, &[0xc0, 0x0c]),
    ]);
    let pool = wire.add(0, &to(www), HTTPS, &first) + 2;
    let only = if with { ech(&[(MANDATORY, &[0, 5]), (1, b"\x02h2"), (ECH, CONFIG)]) } else { ech(&[(1, b"\x02h2")]) };
    wire.add(0, &to(www), HTTPS, &only);
    wire.add(0, &name("plain.example.com"), HTTPS, &service(0, &name("alias.test"), &[]));
    if with {
        wire.add(0, &to(www), RRSIG, &signature(HTTPS, &name("example.com")));
    }
    let mx = wire.add(0, &to(pool), MX, &[&[0, 10][..], &labels_to("mail", example)].concat()) + 2;
    wire.add(0, &to(mx), A, &[192, 0, 2, 1]);
    wire.add(0, &to(www), RRSIG, &signature(A, &name("example.com")));
    wire.add(0, &to(pool), RRSIG, &signature(HTTPS, &name("example.com")));
    let soa = [labels_to("ns", example), labels_to("admin", mx), vec![1; 20]].concat();
    let admin = wire.add(1, &to(example), SOA, &soa) + 5;
    wire.add(1, &labels_to("_dns", admin), SVCB, &ech(&[(1, b"\x03dot"), (ECH, &[])]));
    // A type that nobody here knows: what looks like a pointer is none.
    wire.add(2, &to(admin), 65399, &to(0x100));
    wire.add(2, &name("late.test"), HTTPS, &ech(&[(ECH, CONFIG), (65281, b"x")]));
    // Two options, one of them unknown.
    wire.0[COUNTS[2] + 1] += 1;
    wire.0.extend([0, 0, OPT as u8, 4, 208, 0, 0, 0x80, 0, 0, 14]);
    wire.0.extend([0, 15, 0, 2, 0, 3, 0xff, 0xfe, 0, 4, 0xc0, 0x0c, 9, 9]);
    if with { wire.0 } else { wire.without_ad() }
}

#[test]
fn every_record_loses_its_parameter_and_nothing_else_changes() {
    let edited = without(&varied(true), NO_ECH).unwrap().unwrap();
    assert_eq!(edited, varied(false));
    assert_eq!(without(&edited, NO_ECH), Ok(None));
    assert!(may_have_ech(&Message::from_vec(&edited).unwrap()));
}

#[test]
fn an_answer_without_it_stays_as_it_is() {
    let mut wire = Wire::new();
    wire.add(0, &to(HEADER), A, &[192, 0, 2, 1]);
    assert!(!may_have_ech(&Message::from_vec(&wire.0).unwrap()));
    wire.add(0, &to(HEADER), HTTPS, &service(1, &[0], &[(MANDATORY, &[0, 5]), (1, b"\x02h2")]));
    wire.add(0, &to(HEADER), RRSIG, &signature(HTTPS, &name("example.com")));
    assert_eq!(without(&wire.0, NO_ECH), Ok(None));
}

#[test]
fn names_that_pointed_to_a_signature_that_is_gone_are_written_out_once() {
    let build = |with: bool| {
        let mut wire = Wire::new();
        let parameters: &[(u16, &[u8])] = if with { &[(ECH, CONFIG)] } else { &[] };
        wire.add(0, &name("www.other.test"), HTTPS, &service(1, &[0], parameters));
        let mut owner = 0;
        if with {
            owner = wire.0.len();
            wire.add(0, &name("www.other.test"), RRSIG, &signature(HTTPS, &name("other.test")));
        }
        let gone = owner + 4;
        let written = wire.0.len();
        wire.add(2, &if with { labels_to("a", gone) } else { name("a.other.test") }, A, &[192, 0, 2, 1]);
        let place = if with { gone } else { written + 2 };
        wire.add(2, &to(place), A, &[192, 0, 2, 2]);
        // To the signer within the data, and a pointer to a pointer.
        let signer = owner + 16 + 10 + 18;
        let b = wire.0.len();
        wire.add(2, &if with { labels_to("b", signer) } else { name("b.other.test") }, A, &[192, 0, 2, 3]);
        wire.add(2, &to(b + 2), A, &[192, 0, 2, 4]);
        if with { wire.0 } else { wire.without_ad() }
    };
    assert_eq!(without(&build(true), NO_ECH).unwrap().unwrap(), build(false));
}

#[test]
fn glue_is_gone_with_its_signature_and_ech_stays_where_it_may() {
    let build = |with: bool| {
        let mut wire = Wire::new();
        let closed = IpAddr::from([192, 0, 2, 7]);
        let octets = [192, 0, 2, 7];
        wire.add(0, &to(HEADER), HTTPS, &service(1, &[0], &[(IPV4_HINT, &octets), (ECH, CONFIG)]));
        wire.add(0, &to(HEADER), A, &octets);
        wire.add(0, &to(HEADER), RRSIG, &signature(A, &name("example.com")));
        let ns = wire.add(1, &to(HEADER + 4), 2, &name("ns.other.test"));
        if with {
            wire.add(2, &to(ns), A, &octets);
        }
        wire.add(2, &to(ns), AAAA, &[0x20; 16]);
        if with {
            wire.add(2, &to(ns), A, &[192, 0, 2, 8]);
            wire.add(2, &to(ns), RRSIG, &signature(A, &name("other.test")));
            wire.add(
                2,
                &name("hints.test"),
                SVCB,
                &service(1, &[0], &[(IPV4_HINT, &[[192, 0, 2, 9], octets].concat())]),
            );
        } else {
            wire.add(2, &to(ns), A, &[192, 0, 2, 8]);
        }
        wire.add(2, &to(ns), MX, &[&[0, 1][..], &to(ns + 3)].concat());
        (if with { wire.0 } else { wire.without_ad() }, closed)
    };
    let (bytes, closed) = build(true);
    assert_eq!(without(&bytes, Cuts { ech: false, glue: &[closed] }).unwrap().unwrap(), build(false).0);
    assert_eq!(without(&bytes, Cuts { ech: false, glue: &[] }), Ok(None));
    assert_eq!(without(&bytes, Cuts { ech: false, glue: &[IpAddr::from([192, 0, 2, 70])] }), Ok(None));
    let sixth = IpAddr::from([0x20; 16]);
    let both = without(&bytes, Cuts { ech: true, glue: &[closed, sixth] }).unwrap().unwrap();
    let read = Message::from_vec(&both).unwrap();
    assert!(!has_ech(&read));
    assert_eq!((read.answers.len(), read.authorities.len(), read.additionals.len()), (3, 1, 2));
}

#[test]
fn what_cannot_be_read_is_not_edited() {
    let data = |parameters: &[u8]| {
        let mut wire = Wire::new();
        wire.add(0, &to(HEADER), HTTPS, &[&[0, 1, 0][..], parameters].concat());
        without(&wire.0, NO_ECH)
    };
    assert!(matches!(data(&[0, 5, 0, 1, 7]), Ok(Some(_))));
    for (parameters, what) in [
        (&[0, 5, 0, 2, 7][..], "longer than the record"),
        (&[0, 5, 0], "no length"),
        (&[0, 5, 0, 0, 9], "bytes behind"),
        (&[0, 0, 0, 3, 0, 5, 0, 0, 5, 0, 0], "half a key in `mandatory`"),
    ] {
        assert_eq!(data(parameters), Err(Uneditable), "{what}");
    }
    let owner = |owner: &[u8]| {
        let mut wire = Wire::new();
        wire.add(0, &to(HEADER), HTTPS, &service(1, &[0], &[(ECH, CONFIG)]));
        wire.add(2, owner, A, &[192, 0, 2, 1]);
        without(&wire.0, NO_ECH)
    };
    let behind = Wire::new().0.len() + 12 + 3 + 4 + CONFIG.len();
    assert!(matches!(owner(&to(HEADER)), Ok(Some(_))));
    for (bytes, what) in [
        (to(behind), "itself"),
        (to(behind + 20), "forward"),
        (labels_to("a", behind), "a loop"),
        (vec![0x41, 0], "another kind of label"),
        ([name(&vec!["a"; 128].join(".")), vec![]].concat(), "too long"),
    ] {
        assert_eq!(owner(&bytes), Err(Uneditable), "{what}");
    }
    let whole = varied(true);
    for length in 0..whole.len() {
        assert_eq!(without(&whole[..length], NO_ECH), Err(Uneditable), "cut to {length}");
    }
}

/// A record as the library reads it, as it must be in the answer.
fn told(record: &hickory_resolver::proto::rr::Record) -> Option<String> {
    let mut record = record.clone();
    let service = match &mut record.data {
        RData::HTTPS(https) => &mut https.0,
        RData::SVCB(svcb) => svcb,
        // Data that it does not read, and where names may be compressed.
        RData::Unknown { code, .. }
            if matches!(u16::from(*code), 3 | 4 | 7..=9 | 14 | 17 | 18 | 21 | 24 | 26 | 30 | 36 | 39) =>
        {
            return Some(format!("{} {code}", record.name));
        }
        RData::Unknown { code, .. } if u16::from(*code) == RRSIG => return None,
        _ => return Some(format!("{record:?}")),
    };
    let had = service.svc_params.len();
    service.svc_params.retain(|(key, _)| *key != SvcParamKey::EchConfigList);
    if service.svc_params.len() < had {
        for (_, value) in &mut service.svc_params {
            if let SvcParamValue::Mandatory(Mandatory(keys)) = value {
                keys.retain(|key| *key != SvcParamKey::EchConfigList);
            }
        }
        service
            .svc_params
            .retain(|(_, value)| !matches!(value, SvcParamValue::Mandatory(Mandatory(keys)) if keys.is_empty()));
    }
    Some(format!("{record:?}"))
}

fn all(message: &Message) -> Vec<Option<String>> {
    let sections = [&message.answers, &message.authorities, &message.additionals];
    sections.into_iter().flatten().map(told).filter(Option::is_some).collect()
}

fn has_ech(message: &Message) -> bool {
    let sections = [&message.answers, &message.authorities, &message.additionals];
    sections.into_iter().flatten().any(|record| match &record.data {
        RData::HTTPS(https) => keys(&https.0).contains(&SvcParamKey::EchConfigList),
        RData::SVCB(svcb) => keys(svcb).contains(&SvcParamKey::EchConfigList),
        _ => false,
    })
}

fn keys(service: &SVCB) -> Vec<SvcParamKey> {
    service.svc_params.iter().map(|(key, _)| *key).collect()
}

#[test]
fn whatever_changes_on_the_way_no_ech_is_left_and_all_else_reads_the_same() {
    let whole = varied(true);
    let (mut state, mut edited, mut refused) = (7u64, 0, 0);
    let mut draw = |below: usize| {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (state >> 33) as usize % below
    };
    for round in 0..20_000 {
        let mut bytes = whole.clone();
        for _change in 0..=draw(4) {
            let at = 4 + draw(bytes.len() - 4);
            bytes[at] = match draw(4) {
                0 => bytes[at] ^ 1 << draw(8),
                1 => 0xc0,
                2 => draw(256) as u8,
                _ => bytes[draw(whole.len())],
            };
        }
        let result = without(&bytes, NO_ECH);
        let _infallible = without(&bytes, Cuts { ech: false, glue: &[IpAddr::from([192, 0, 2, 1])] });
        let Ok(before) = Message::from_vec(&bytes) else { continue };
        match result {
            Err(Uneditable) => refused += 1,
            Ok(None) => assert!(!has_ech(&before), "round {round}: {before:?}"),
            Ok(Some(bytes)) => {
                edited += 1;
                let after = Message::from_vec(&bytes).unwrap();
                assert!(!has_ech(&after), "round {round}");
                assert_eq!(all(&after), all(&before), "round {round}");
                assert_eq!(after.queries, before.queries, "round {round}");
                assert_eq!(format!("{:?}", after.edns), format!("{:?}", before.edns), "round {round}");
                assert!(!after.metadata.authentic_data, "round {round}");
            }
        }
    }
    assert!(edited > 2_000 && refused > 0, "{edited} edited, {refused} refused");
}

/// What the fuzz target asserts, of its corpus, on a toolchain that does not fuzz: every file, and every file with one byte
/// changed here and there.
#[test]
fn the_corpus_holds() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/dns_answer");
    let files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() > 3, "{} is empty", folder.display());
    for file in files {
        let bytes = std::fs::read(&file).unwrap();
        invariants::check(&bytes);
        for at in (0..bytes.len()).step_by(7) {
            let mut changed = bytes.clone();
            changed[at] = !changed[at];
            invariants::check(&changed);
        }
    }
}
