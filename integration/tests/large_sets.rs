//! Others are served while a set of very many prefixes is put in force: by another file, and by the first policy that names
//! it. What is asked of the gateway meanwhile waits for a portion, not for the whole.

use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use integration::manifests::{allow_cidrs, name_rule, policy, two_tenants};
use integration::peers::query::Kind;
use integration::site::{API, DNS, ECHO, OTHER};
use integration::traffic::Target;
use integration::wait::patience;
use integration::{Pod, Site};

/// Debug builds take two seconds or more for them.
const PREFIXES: u32 = 300_000;
const PORT: u16 = 7;

fn tcp(address: IpAddr) -> Target {
    Target::new("tcp", address, PORT)
}

fn set(name: &str, spec: &str) -> String {
    format!("---\napiVersion: tidegate.dev/v1alpha1\nkind: AddressSet\nmetadata: {{ name: {name} }}\nspec: {spec}\n")
}

fn large_feed(site: &Site) {
    let mut text = String::from("203.0.113.30\n");
    for number in 0..PREFIXES {
        writeln!(text, "{}", IpAddr::from((0x0b00_0000 + number * 37).to_be_bytes())).expect("a line");
    }
    fs::write(site.files("_admin").join("large.txt"), text).expect("a feed's file");
}

/// How long single requests took while something else was under way.
#[derive(Debug, Default)]
struct Beside {
    whole: Duration,
    lookups: Vec<Duration>,
    statuses: Vec<Duration>,
    attached: Vec<(Pod, Duration)>,
}

/// Does `work`, and asks for names, `status` and new workloads until it is done.
fn beside(site: &Site, web: &Pod, attach: bool, work: impl FnOnce() + Send) -> Beside {
    let mut seen = Beside::default();
    let begin = Instant::now();
    thread::scope(|scope| {
        let under_way = scope.spawn(work);
        let mut number = 0;
        while !under_way.is_finished() {
            number += 1;
            let asked = Instant::now();
            let address = web.look_up(DNS.v4(), &format!("n{number}.many.example.com"), Kind::A);
            seen.lookups.push(asked.elapsed());
            assert!(
                web.enter(|| std::net::TcpStream::connect((address, 9)).is_ok()),
                "{address} is open when it is known"
            );
            let asked = Instant::now();
            site.netctl().json(&["status"]);
            seen.statuses.push(asked.elapsed());
            if attach && seen.attached.len() < 3 {
                let asked = Instant::now();
                let pod = site.attach("shop", &format!("late-{number}"), &[]);
                seen.attached.push((pod, asked.elapsed()));
            }
        }
        under_way.join().expect("what was under way");
    });
    seen.whole = begin.elapsed();
    seen
}

impl Beside {
    /// Nobody waited for the end of it.
    fn must_be_short(&self) {
        let worst = |all: &[Duration]| all.iter().max().copied().unwrap_or_default();
        let (lookups, statuses) = (worst(&self.lookups), worst(&self.statuses));
        let attached = self.attached.iter().map(|(_, took)| *took).max().unwrap_or_default();
        println!(
            "{:?} for all; at most {lookups:?} for each of {} lookups, {statuses:?} for `status`, {attached:?} to attach",
            self.whole,
            self.lookups.len()
        );
        let bound = (self.whole / 3).min(Duration::from_millis(600) * patience());
        assert!(lookups < bound && statuses < bound, "waited for a part of {bound:?} or more");
        assert!(attached < self.whole / 2, "attaching waited for the set");
        assert!(self.lookups.len() > 3, "too little was asked meanwhile");
    }
}

#[test]
fn others_are_served_while_a_large_set_is_put_in_force() {
    let site = Site::start();
    let rules = format!("  allow:\n    - sets: [ _admin/feed ]\n{}", name_rule(&["*.many.example.com"], ""));
    let other = policy("bank", "own", "  allow:\n    - sets: [ _admin/small ]\n");
    let few = set("feed", "{ cidrs: [ 203.0.113.31/32 ] }") + &set("small", "{ cidrs: [] }");
    site.netctl().apply(&(two_tenants() + &few + &policy("shop", "web", &rules) + &other));
    let (web, bank) = (site.attach("shop", "web-1", &[]), site.attach("bank", "one", &[]));
    web.must_reach(tcp(OTHER.v4()));
    large_feed(&site);

    let seen = beside(&site, &web, true, || {
        thread::scope(|scope| {
            scope.spawn(|| site.netctl().apply(&set("feed", "{ file: large.txt }")));
            // A change that comes in the middle is not lost.
            scope.spawn(|| site.netctl().ok(&["patch", "addressset", "small", "--add", "203.0.113.10/32"]));
        });
    });
    seen.must_be_short();
    for pod in seen.attached.iter().map(|(pod, _)| pod).chain([&web]) {
        pod.must_reach(tcp(ECHO.v4()));
        pod.must_not_reach(tcp(OTHER.v4()));
    }
    bank.must_reach(tcp(API.v4()));
    let shown = site.netctl().json(&["get", "addressset", "feed"]);
    assert_eq!(shown["status"]["prefixes"], PREFIXES + 1);
    let fill = site.netctl().json(&["status"])["maps"].clone();
    let tries = fill.as_array().and_then(|all| all.iter().find(|one| one["name"] == "classes4").cloned());
    assert_eq!(tries.map(|one| one["entries"].clone()), Some((PREFIXES + 2).into()), "{fill:#}");

    // All of it goes again, and what is asked meanwhile does not wait either.
    beside(&site, &web, false, || drop(site.netctl().apply(&set("feed", "{ cidrs: [ 203.0.113.31/32 ] }"))))
        .must_be_short();
    web.must_reach(tcp(OTHER.v4()));
    web.must_not_reach(tcp(ECHO.v4()));
}

#[test]
fn others_are_served_while_the_first_policy_names_a_large_set() {
    let site = Site::start();
    large_feed(&site);
    let names = format!("  allow:\n{}", name_rule(&["*.many.example.com"], ""));
    site.netctl().apply(&(two_tenants() + &set("feed", "{ file: large.txt }") + &policy("shop", "names", &names)));
    let web = site.attach("shop", "web-1", &[]);
    let mut open = web.open((web.look_up(DNS.v4(), "n200.many.example.com", Kind::A), 9).into());
    open.must_echo();
    web.must_not_reach(tcp(ECHO.v4()));

    let named = policy("shop", "feed", "  allow:\n    - sets: [ _admin/feed ]\n");
    beside(&site, &web, false, || drop(site.netctl().apply(&named))).must_be_short();
    web.must_reach(tcp(ECHO.v4()));
    open.must_echo();
    let without = policy("shop", "feed", &allow_cidrs(&["203.0.113.31/32"], ""));
    beside(&site, &web, false, || drop(site.netctl().apply(&without))).must_be_short();
    web.must_reach(tcp(OTHER.v4()));
    web.must_not_reach(tcp(ECHO.v4()));
    open.must_echo();
}
