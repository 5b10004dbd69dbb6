//! What goes up to DNS servers and comes back: how names are spelt there, of which types records may be, and how much of it
//! one workload may cause.

use std::time::{Duration, Instant};

use integration::daemon::Settings;
use integration::manifests::{name_rule, policy, two_tenants};
use integration::peers::query::{Carrier, Kind};
use integration::site::{API, DNS, KINDS};
use integration::sys::process::Signal;
use integration::traffic::Target;
use integration::wait::wait_until;
use integration::world::World;
use integration::{Pod, Site};

const SERVER_FAILURE: u8 = 2;
const NO_SUCH_NAME: u8 = 3;
/// Lookups a second; four seconds' worth may come at once.
const RATE: usize = 5;

fn stage() -> (Site, Pod) {
    let more = format!("[limits]\ndns_lookups_per_second = {RATE}\n");
    let site = Site::with(World::new(), Settings { more, ..Site::settings() });
    let names = name_rule(&["api.example.com", "*.many.example.com"], "[ { protocol: TCP, port: 7 } ]");
    site.netctl().apply(&(two_tenants() + &policy("shop", "shop-egress", &format!("  allow:\n{names}"))));
    let web = site.attach("shop", "web-1", &[]);
    (site, web)
}

fn code(pod: &Pod, name: &str) -> u8 {
    pod.ask(DNS.v4(), name, Kind::A, Carrier::Udp).expect("an answer").code
}

#[test]
fn a_workload_that_makes_servers_be_asked_too_often_is_held_back_and_no_other() {
    let (site, web) = stage();
    let other = site.attach("shop", "web-2", &[]);
    assert_eq!(web.look_up(DNS.v4(), "api.example.com", Kind::A), API.v4());
    let begin = Instant::now();
    let codes: Vec<u8> = (0..60).map(|number| code(&web, &format!("n{number}.many.example.com"))).collect();
    let seconds = begin.elapsed().as_secs() as usize + 1;
    let held = codes.iter().filter(|code| **code == SERVER_FAILURE).count();
    let passed = codes.len() - held;
    assert!((4 * RATE - 1..=(4 + seconds) * RATE).contains(&passed), "{passed} in {seconds} s: {codes:?}");
    assert!(held > 0, "sixty took {seconds} s");

    // a slow machine gives some back between two questions: it is spent again first, and few tries are far from a budget
    let mut numbers = 100..;
    let mut spend = || {
        let spent = |number: i32| code(&web, &format!("n{number}.many.example.com")) == SERVER_FAILURE;
        assert!(numbers.by_ref().take(6 * RATE).any(spent), "it is never spent");
    };
    let mut late = (0..RATE).map(|number| {
        spend();
        web.ok(&format!("dig @{} late{number}.many.example.com +time=3 +tries=1", DNS.v4()))
    });
    let refused = |said: &String| said.contains("SERVFAIL") && said.contains("too many questions a second");
    assert!(late.any(|said| refused(&said)));
    drop(late);
    assert_eq!(web.look_up(DNS.v4(), "api.example.com", Kind::A), API.v4(), "what is kept costs no server anything");
    assert_eq!(code(&other, "other.many.example.com"), NO_SUCH_NAME, "another workload has its own budget");
    let status = site.netctl().ok(&["status"]);
    assert!(status.contains("rate-limited"), "{status}");
    assert!(status.contains("too many names: shop/web-1\n"), "and nobody else: {status}");
    let mut by_ipv6 = (0..RATE).map(|number| {
        spend();
        web.ask(DNS.v6(), &format!("sixth{number}.many.example.com"), Kind::A, Carrier::Udp).expect("an answer").code
    });
    assert!(by_ipv6.any(|code| code == SERVER_FAILURE), "one budget for both families");
}

#[test]
fn what_tunnels_are_made_of_costs_more() {
    let (_site, web) = stage();
    let dig = |name: &str, kind: &str| {
        let said = web.ok(&format!("dig @{} {name} {kind} +time=3 +tries=1", DNS.v4()));
        said.contains("SERVFAIL")
    };
    let long = "x".repeat(60);
    assert!(!dig("a.many.example.com", "TXT"));
    assert!(!dig(&format!("{long}.many.example.com"), "A"));
    assert!(dig("b.many.example.com", "TXT") || dig("c.many.example.com", "NULL"), "twenty at once, each counts ten");
}

#[test]
fn records_of_every_type_pass_as_they_are_and_open_nothing() {
    let site = Site::start();
    let names = name_rule(&["*.example.com"], "[ { protocol: TCP, port: 7 } ]");
    site.netctl().apply(&(two_tenants() + &policy("shop", "shop-egress", &format!("  allow:\n{names}"))));
    let web = site.attach("shop", "web-1", &[]);
    for (kind, data) in KINDS {
        for carrier in ["+notcp", "+tcp"] {
            let said = web.ok(&format!("dig @{} kinds.example.com {kind} {carrier} +short +time=3 +tries=1", DNS.v4()));
            assert_eq!(said.trim(), data, "{kind} {carrier}");
        }
    }
    assert_eq!(site.netctl().json(&["status"])["dns"]["learned"], 0);
    web.must_not_reach(Target::new("tcp", API.v4(), 7));
    web.look_up(DNS.v4(), "api.example.com", Kind::A);
    web.must_reach(Target::new("tcp", API.v4(), 7));
}

#[test]
fn names_go_up_in_a_random_spelling_and_come_back_in_the_clients() {
    let (site, web) = stage();
    for name in ["api.example.com", "n1.many.example.com", "n2.many.example.com", "n3.many.example.com"] {
        web.ask(DNS.v4(), name, Kind::A, Carrier::Udp).expect("an answer");
        let said = web.ok(&format!("dig @{} {name} +noall +question +time=3 +tries=1", DNS.v4()));
        assert!(said.contains(&format!(";{name}.")), "{said}");
    }
    let unbound = &site.internet.unbound;
    let plain = unbound.questions().iter().filter(|line| line.contains(".example.com.")).count();
    let as_written = unbound.spellings().iter().filter(|line| line.contains(".example.com.")).count();
    assert!(plain >= 4, "{:?}", unbound.questions());
    assert!(as_written < plain, "{:?}", unbound.spellings());
}

#[test]
fn a_dead_upstream_is_said_and_so_is_that_it_is_back() {
    let (site, web) = stage();
    assert_eq!(web.look_up(DNS.v4(), "api.example.com", Kind::A), API.v4());
    let dns = || site.netctl().json(&["status"])["dns"]["servers"].clone();
    let servers = dns();
    assert_eq!(servers.as_array().map(Vec::len), Some(1), "{servers}");
    assert!(servers[0]["answered"].is_string() && servers[0]["failing"].is_null(), "{servers}");

    let condition = || {
        let status = site.netctl().json(&["status"]);
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        conditions.into_iter().find(|condition| condition["what"] == "dns")
    };
    let dead = site.internet.unbound.process();
    dead.signal(Signal::Stop);
    assert_eq!(code(&web, "n1.many.example.com"), SERVER_FAILURE);
    assert_eq!(dns()[0]["failing"]["times"], 1, "{}", dns());
    assert_eq!(condition(), None, "one failure may be that name's");
    for name in ["n2.many.example.com", "n3.many.example.com"] {
        assert_eq!(code(&web, name), SERVER_FAILURE);
    }
    let said = condition().expect("a condition");
    assert_eq!((said["state"].as_str(), said["mend"].is_string()), (Some("degraded"), true), "{said}");
    let status = site.netctl().ok(&["status"]);
    assert!(status.contains(" is not ready") && status.contains(":53 does not answer for "), "{status}");

    dead.signal(Signal::Continue);
    wait_until("it is asked again", Duration::from_secs(20), || {
        web.ask(DNS.v4(), "n4.many.example.com", Kind::A, Carrier::Udp).is_some_and(|answer| answer.code == 0)
    });
    assert_eq!((condition(), &dns()[0]["failing"]), (None, &serde_json::Value::Null));
}

#[test]
fn only_the_types_that_the_namespace_says_are_asked_for() {
    let site = Site::start();
    let names = name_rule(&["api.example.com"], "[ { protocol: TCP, port: 7 } ]");
    let types = |types: &str| two_tenants().replace("network: tenant-a }", &format!("network: tenant-a{types} }}"));
    let rules = policy("shop", "shop-egress", &format!("  allow:\n{names}"));
    site.netctl().apply(&(types(", queryTypes: [ AAAA, TYPE1 ]") + &rules));
    let web = site.attach("shop", "web-1", &[]);
    let dig = |words: &str| web.ok(&format!("dig @{} {words} +time=3 +tries=1", DNS.v4()));
    for carrier in ["", "+tcp"] {
        let refused = dig(&format!("{carrier} api.example.com TXT"));
        assert!(refused.contains("status: NOERROR") && refused.contains("ANSWER: 0"), "{refused}");
        assert!(refused.contains("queryTypes are A, AAAA, and not TXT"), "{refused}");
        let unnamed = dig(&format!("{carrier} . NS"));
        assert!(unnamed.contains("ANSWER: 0") && unnamed.contains("and not NS"), "{unnamed}");
    }
    assert_eq!(web.look_up(DNS.v4(), "api.example.com", Kind::A), API.v4(), "other types of the name are not touched");
    assert_eq!(web.look_up(DNS.v4(), "api.example.com", Kind::Aaaa), API.v6());
    web.must_reach(Target::new("tcp", API.v4(), 7));
    assert!(site.netctl().ok(&["get", "namespace", "shop", "-o", "yaml"]).contains("queryTypes"));

    site.netctl().apply(&types(", queryTypes: [ TXT ]"));
    assert!(dig("api.example.com A").contains("and not A"), "what was kept before is not given out");
    site.netctl().apply(&types(""));
    let all = dig("api.example.com TXT");
    assert!(!all.contains("queryTypes") && all.contains("status: NOERROR"), "{all}");
}
