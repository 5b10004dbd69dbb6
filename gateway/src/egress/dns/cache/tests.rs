use std::str::FromStr;

use hickory_resolver::proto::op::{Edns, OpCode, Query, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, CNAME, SOA};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};

use super::super::question::{Read, read};
use super::*;

fn view(server: &str, device: Option<&str>) -> View {
    View { servers: [server.parse().unwrap()].into(), device: device.map(|device| device.parse().unwrap()), link: 0 }
}

fn node_view() -> View {
    view("192.0.2.53", None)
}

/// A question as a workload sends it, changed before it is sent.
fn asked_with(name: &str, kind: RecordType, change: impl FnOnce(&mut Message)) -> Question {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    change(&mut message);
    match read(&message.to_vec().unwrap()) {
        Read::Question(question) => question,
        other => panic!("{other:?}"),
    }
}

fn asked(name: &str) -> Question {
    asked_with(name, RecordType::A, |_| ())
}

fn key(name: &str) -> Arc<Key> {
    Arc::new(node_view().key(&asked(name)))
}

fn record(name: &str, ttl: u32, data: RData) -> Record {
    Record::from_rdata(Name::from_str(name).unwrap(), ttl, data)
}

fn a(name: &str, ttl: u32) -> Record {
    record(name, ttl, RData::A(A::new(203, 0, 113, 10)))
}

fn cname(name: &str, ttl: u32, target: &str) -> Record {
    record(name, ttl, RData::CNAME(CNAME(Name::from_str(target).unwrap())))
}

fn soa(ttl: u32, minimum: u32) -> Record {
    let [server, person] = ["ns.example.com.", "admin.example.com."].map(|name| Name::from_str(name).unwrap());
    record("example.com.", ttl, RData::SOA(SOA::new(server, person, 1, 3600, 600, 86400, minimum)))
}

fn message(name: &str, code: ResponseCode, answers: Vec<Record>, authority: Vec<Record>) -> Message {
    let mut message = Message::error_msg(7, OpCode::Query, code);
    message.add_query(asked(name).query);
    message.answers = answers;
    message.authorities = authority;
    message
}

fn came(message: &Message) -> Came {
    Ok(message.to_vec().unwrap().into())
}

fn address(name: &str, ttl: u32) -> Came {
    came(&message(name, ResponseCode::NoError, vec![a(name, ttl)], vec![]))
}

fn asker(number: u8) -> IpAddr {
    [198, 18, 0, number].into()
}

fn seconds(of: &Came) -> Option<u64> {
    life(of, RecordType::A.into()).map(|life| life.as_secs())
}

/// The names of what is kept, and that every account agrees with it.
fn check(cache: &Cache) {
    assert!(cache.bytes() <= cache.room, "{} of {}", cache.bytes(), cache.room);
    assert_eq!(cache.unused.len(), cache.entries.len());
    let holders: BTreeSet<_> = cache.entries.values().map(|entry| entry.holder).collect();
    assert_eq!(holders, cache.holders.keys().copied().collect());
    assert_eq!(cache.by_size, cache.holders.iter().map(|(asker, held)| (*held, *asker)).collect());
    let costs: usize = cache.entries.values().map(|entry| entry.cost).sum();
    assert_eq!(cache.bytes(), costs + holders.len() * HOLDER);
    for (key, entry) in &cache.entries {
        assert_eq!(cache.unused.get(&(entry.holder, entry.used)), Some(key));
        let answer = entry.came.as_ref().map_or(0, |bytes| bytes.len());
        assert!(entry.cost >= answer + key.name.len() + size_of::<Entry>() + size_of::<Key>());
    }
}

/// `www.example.com A`: a CNAME whose target is compressed, an address whose owner points into that, an NS record, an OPT
/// record in the middle whose "TTL" is the DO bit, and one more address.
const COMPRESSED: &[u8] = b"\x00\x07\x81\x80\x00\x01\x00\x02\x00\x01\x00\x02\
\x03WWW\x07example\x03com\x00\x00\x01\x00\x01\
\xc0\x0c\x00\x05\x00\x01\x00\x00\x01\x2c\x00\x06\x03cdn\xc0\x10\
\xc0\x2d\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xcb\x00\x71\x0a\
\xc0\x10\x00\x02\x00\x01\x00\x09\x3a\x80\x00\x05\x02ns\xc0\x10\
\x00\x00\x29\x04\xd0\x00\x00\x80\x00\x00\x00\
\x02ns\xc0\x10\x00\x01\x00\x01\x00\x00\x00\x64\x00\x04\xcb\x00\x71\x35";

#[test]
fn only_ttls_and_the_spelling_change_through_compression() {
    let mut bytes = COMPRESSED.to_vec();
    let parsed = Message::from_vec(&bytes).unwrap();
    assert_eq!((parsed.answers.len(), parsed.authorities.len(), parsed.additionals.len()), (2, 1, 1));
    assert_eq!(wire::life(&bytes, 1), Some(Duration::from_secs(60)));
    let spelling = wire::spelling(&Name::from_ascii("wWw.eXample.com.").unwrap());
    wire::hand_out(&mut bytes, &spelling, Duration::from_millis(7_900));
    let aged = Message::from_vec(&bytes).unwrap();
    let ttls = |records: &[Record]| records.iter().map(|record| record.ttl).collect::<Vec<_>>();
    assert_eq!(ttls(&aged.answers), [293, 53]);
    assert_eq!(ttls(&aged.authorities), [86_393], "a week is cut to a day");
    assert_eq!(ttls(&aged.additionals), [93]);
    assert!(aged.edns.as_ref().unwrap().flags().dnssec_ok, "an OPT record has no TTL");
    let changed: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != COMPRESSED[*at]).collect();
    assert_eq!(changed, [13, 15, 18, 42, 60, 74, 75, 76, 107], "the name's capitals, and the last bytes of TTLs");
}

#[test]
fn no_bytes_do_harm() {
    let spelling = wire::spelling(&Name::from_str("www.example.com.").unwrap());
    for length in 0..COMPRESSED.len() {
        let mut cut = COMPRESSED[..length].to_vec();
        assert_eq!(wire::life(&cut, 1), None, "{length}");
        wire::hand_out(&mut cut, &spelling, Duration::from_secs(1));
    }
    for at in 0..COMPRESSED.len() {
        for value in [0, 1, 0x3f, 0x7f, 0xc0, 0xff] {
            let mut bent = COMPRESSED.to_vec();
            bent[at] = value;
            let _any = wire::life(&bent, 1);
            wire::hand_out(&mut bent, &spelling, Duration::from_secs(1));
            assert_eq!(bent.len(), COMPRESSED.len());
        }
    }
}

#[test]
fn the_spelling_is_the_clients_and_only_of_its_own_question() {
    let answer = address("www.example.com.", 60);
    let response = reply(answer.clone(), &asked("WwW.ExAmPlE.cOm."), Duration::ZERO).unwrap();
    assert_eq!(&response.bytes[12..29], b"\x03WwW\x07ExAmPlE\x03cOm\0");
    let untouched = reply(answer.clone(), &asked("other.example.com."), Duration::ZERO).unwrap();
    assert_eq!(&*untouched.bytes, &*answer.unwrap());
}

#[test]
fn negative_answers_are_kept_as_their_soa_says() {
    let negative = |code, answers, authority| seconds(&came(&message("www.example.com.", code, answers, authority)));
    let (none, no_error) = (ResponseCode::NXDomain, ResponseCode::NoError);
    assert_eq!(negative(none, vec![], vec![soa(300, 60)]), Some(60));
    assert_eq!(negative(none, vec![], vec![soa(30, 60)]), Some(30));
    assert_eq!(negative(no_error, vec![], vec![soa(300, 60)]), Some(60), "no data");
    assert_eq!(negative(none, vec![], vec![]), None, "nobody says how long");
    assert_eq!(negative(no_error, vec![], vec![]), None);
    let alias = || vec![cname("www.example.com.", 20, "gone.example.com.")];
    assert_eq!(negative(none, alias(), vec![soa(300, 60)]), Some(20), "an alias of a name that is not there");
    assert_eq!(negative(no_error, alias(), vec![]), None, "an alias, and nobody says what of");

    let missing = message("www.example.com.", none, vec![], vec![soa(300, 60)]);
    let response = reply(came(&missing), &asked("www.example.com."), Duration::from_secs(10)).unwrap();
    assert_eq!(response.message.authorities[0].ttl, 50, "the SOA's TTL is what counts (RFC 2308, 5)");
}

#[test]
fn what_must_not_be_kept() {
    let of = |ttl| seconds(&address("www.example.com.", ttl));
    assert_eq!((of(0), of(1), of(604_800)), (None, Some(1), Some(86_400)));
    assert_eq!((of(0x7fff_ffff), of(0x8000_0000)), (Some(86_400), None), "31 bits");
    let changed = |change: fn(&mut Message)| {
        let mut message = message("www.example.com.", ResponseCode::NoError, vec![a("www.example.com.", 60)], vec![]);
        change(&mut message);
        seconds(&came(&message))
    };
    assert_eq!(changed(|_| ()), Some(60));
    assert_eq!(changed(|message| message.metadata.truncation = true), None);
    assert_eq!(changed(|message| message.metadata.op_code = OpCode::Notify), None);
    assert_eq!(changed(|message| message.metadata.response_code = ResponseCode::FormErr), None);
    assert_eq!(changed(|message| message.metadata.response_code = ResponseCode::ServFail), Some(5));
    assert_eq!(seconds(&Err(Unanswered::Silent)), Some(5));
    assert_eq!(seconds(&Err(Unanswered::NoServer)), None);
}

#[test]
fn what_was_asked_for_is_part_of_the_key() {
    let opt = |dnssec_ok| {
        move |message: &mut Message| {
            let mut edns = Edns::new();
            edns.set_dnssec_ok(dnssec_ok);
            message.set_edns(edns);
        }
    };
    let name = "www.example.com.";
    let of = |question: &Question| node_view().key(question);
    let keys = [
        of(&asked(name)),
        of(&asked("other.example.com.")),
        of(&asked_with(name, RecordType::AAAA, |_| ())),
        of(&asked_with(name, RecordType::A, opt(false))),
        of(&asked_with(name, RecordType::A, opt(true))),
        of(&asked_with(name, RecordType::A, |message| message.metadata.checking_disabled = true)),
        of(&asked_with(name, RecordType::A, |message| message.metadata.authentic_data = true)),
        of(&asked_with(name, RecordType::A, |message| message.metadata.recursion_desired = false)),
        view("192.0.2.54", None).key(&asked(name)),
        view("192.0.2.53", Some("tgb-a")).key(&asked(name)),
        view("192.0.2.53", Some("tgb-b")).key(&asked(name)),
        View { link: 7, ..view("192.0.2.53", Some("tgb-b")) }.key(&asked(name)),
    ];
    let mut cache = Cache::new(1 << 20);
    let now = Instant::now();
    for (index, key) in keys.iter().enumerate() {
        assert!(cache.look_up(key, now, true).is_none(), "{index} is another question");
        cache.keep(&Arc::new(key.clone()), asker(1), &address(name, 60), now);
    }
    check(&cache);
    assert_eq!(of(&asked("WWW.example.COM.")), keys[0], "spelling is not");
}

#[test]
fn an_answer_ages_and_ends() {
    let mut cache = Cache::new(1 << 20);
    let (start, key) = (Instant::now(), key("www.example.com."));
    cache.keep(&key, asker(1), &address("www.example.com.", 60), start);
    for (after, left) in [(0, Some(60)), (999, Some(60)), (30_500, Some(30)), (59_999, Some(1)), (60_000, None)] {
        let hit = cache.look_up(&key, start + Duration::from_millis(after), false);
        let ttl = hit.map(|hit| {
            let response = reply(hit.came, &asked("www.example.com."), hit.age).unwrap();
            response.message.answers[0].ttl
        });
        assert_eq!(ttl, left, "after {after} ms");
    }
    check(&cache);
    assert_eq!(cache.bytes(), 0, "what is over takes no room once it was looked for");
}

#[test]
fn a_failure_is_kept_for_seconds_and_replaces_no_answer() {
    let mut cache = Cache::new(1 << 20);
    let (start, key) = (Instant::now(), key("www.example.com."));
    let after = |seconds| start + Duration::from_secs(seconds);
    let failures = [
        Err(Unanswered::Network("unreachable".to_owned())),
        came(&message("www.example.com.", ResponseCode::ServFail, vec![], vec![])),
    ];
    for failure in failures {
        cache.keep(&key, asker(1), &failure, start);
        let hit = cache.look_up(&key, after(4), true).unwrap();
        assert_eq!((hit.came.is_err(), hit.due), (failure.is_err(), false));
        assert!(!cache.look_up(&key, after(4), true).unwrap().due, "never ahead of time");
        assert!(cache.look_up(&key, after(5), true).is_none());

        cache.keep(&key, asker(1), &address("www.example.com.", 60), after(6));
        cache.keep(&key, asker(1), &failure, after(64));
        let hit = cache.look_up(&key, after(65), true).unwrap();
        assert_eq!(hit.age, Duration::from_secs(59), "the answer is still good");
        cache.keep(&key, asker(1), &failure, after(66));
        assert_eq!(cache.look_up(&key, after(66), true).unwrap().age, Duration::ZERO, "and now it is not");
        assert!(cache.look_up(&key, after(71), true).is_none());
    }
    check(&cache);
}

#[test]
fn a_popular_answer_is_due_once_at_the_end_of_its_life() {
    let mut cache = Cache::new(1 << 20);
    let (start, key) = (Instant::now(), key("www.example.com."));
    let after = |seconds| start + Duration::from_secs(seconds);
    let answer = address("www.example.com.", 100);
    let due = |cache: &mut Cache, seconds, may| cache.look_up(&key, after(seconds), may).map(|hit| hit.due);
    cache.keep(&key, asker(1), &answer, start);
    assert_eq!(due(&mut cache, 95, true), Some(false), "asked for once");

    cache.keep(&key, asker(1), &answer, start);
    for seconds in [1, 50, 89] {
        assert_eq!(due(&mut cache, seconds, true), Some(false), "not yet: {seconds}");
    }
    assert_eq!(due(&mut cache, 90, false), Some(false), "not now");
    assert_eq!(due(&mut cache, 91, true), Some(true));
    assert_eq!(due(&mut cache, 92, true), Some(false), "it is on its way");
    cache.keep(&key, asker(1), &answer, after(99));
    assert_eq!(due(&mut cache, 190, true), Some(false), "a new life");
    assert_eq!([191, 199].map(|seconds| due(&mut cache, seconds, true)), [Some(true), None]);
}

#[test]
fn bytes_are_bounded_and_the_unused_goes_first() {
    let mut cache = Cache::new(64 << 10);
    let now = Instant::now();
    let popular = key("popular.example.com.");
    cache.keep(&popular, asker(1), &address("popular.example.com.", 60), now);
    let mut evicted = 0;
    for number in 0..2_000 {
        let name = format!("n{number}.example.com.");
        evicted += cache.keep(&key(&name), asker(1), &address(&name, 60), now);
        assert!(cache.bytes() <= 64 << 10);
        assert!(cache.look_up(&popular, now, true).is_some(), "{number}");
    }
    check(&cache);
    assert_eq!(evicted as usize + cache.entries.len(), 2_001);
    assert!(cache.look_up(&key("n1999.example.com."), now, true).is_some());
    assert!(cache.look_up(&key("n0.example.com."), now, true).is_none());

    let large = Ok(vec![0; 60 << 10].into());
    assert_eq!(cache.keep(&key("large.example.com."), asker(1), &large, now), 0, "no message, not kept");
    let many = (0..3_000).map(|_| a("many.example.com.", 60)).collect();
    let many = came(&message("many.example.com.", ResponseCode::NoError, many, vec![]));
    cache.keep(&key("many.example.com."), asker(1), &many, now);
    check(&cache);
    let mut small = Cache::new(4 << 10);
    assert_eq!(small.keep(&key("many.example.com."), asker(1), &many, now), 0, "larger than all the room there is");
    assert_eq!(small.bytes(), 0);
}

#[test]
fn one_askers_names_push_out_its_own() {
    let mut cache = Cache::new(256 << 10);
    let now = Instant::now();
    let names = |who: u8| (0..20).map(move |number| format!("n{number}.of{who}.example.com."));
    for who in 1..=10 {
        for name in names(who) {
            assert_eq!(cache.keep(&key(&name), asker(who), &address(&name, 60), now), 0);
        }
    }
    for number in 0..20_000 {
        let name = format!("random{number}.example.com.");
        cache.keep(&key(&name), asker(99), &address(&name, 60), now);
    }
    check(&cache);
    for who in 1..=10 {
        for name in names(who) {
            assert!(cache.look_up(&key(&name), now, true).is_some(), "{name}");
        }
    }
    // A newcomer gets room from whoever has most, up to an equal share.
    for number in 0..1_000 {
        let name = format!("late{number}.example.com.");
        cache.keep(&key(&name), asker(100), &address(&name, 60), now);
    }
    check(&cache);
    let (before, after) = (cache.holders[&asker(99)], cache.holders[&asker(100)]);
    assert!(after.abs_diff(before) < 4 << 10, "{before} {after}");
    assert_eq!(cache.entries.values().filter(|entry| entry.holder == asker(3)).count(), 20);
}
