//! Kept answers: to whom they are given while the upstream is dead, what they open, and what is never kept.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use integration::daemon::Settings;
use integration::manifests::{name_rule, namespace, network, policy, two_tenants};
use integration::peers::dns::{Unbound, Zones};
use integration::peers::query::{Answer, Carrier, Kind};
use integration::site::{API, DNS, FORBIDDEN, Host, MANY, OTHER};
use integration::sys::process::Signal;
use integration::traffic::Target;
use integration::wait::wait_until;
use integration::world::World;
use integration::{Pod, Site};

const ECHO_PORT: u16 = 7;
const TCP_ECHO: &str = "[ { protocol: TCP, port: 7 }, { protocol: TCP, port: 9 } ]";
const BOUND: Duration = Duration::from_secs(20);
const SERVER_FAILURE: u8 = 2;
const NO_SUCH_NAME: u8 = 3;

const NAMES: [&str; 4] = ["api.example.com", "*.many.example.com", "big.example.com", "brief.example.com"];

fn allow(tenant: &str, names: &[&str]) -> String {
    policy(tenant, &format!("{tenant}-egress"), &format!("  allow:\n{}", name_rule(names, TCP_ECHO)))
}

fn site_with_pod(limits: &str) -> (Site, Pod) {
    let more = format!("[limits]\n{limits}");
    let site = Site::with(World::new(), Settings { more, ..Site::settings() });
    site.netctl().apply(&(two_tenants() + &allow("shop", &NAMES)));
    let web = site.attach("shop", "web-1", &["app=web"]);
    (site, web)
}

fn ask(pod: &Pod, name: &str) -> Answer {
    pod.ask(DNS.v4(), name, Kind::A, Carrier::Udp).expect("an answer")
}

fn metric(site: &Site, name: &str) -> f64 {
    let text = site.node.ok("curl -sS --max-time 5 http://127.0.0.1:9464/metrics");
    let samples = text.lines().filter(|line| line.starts_with(name));
    samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// How often a name went up.
fn asked(unbound: &Unbound, name: &str) -> usize {
    unbound.questions().iter().filter(|line| line.contains(&format!(" {name}. "))).count()
}

#[test]
fn a_kept_answer_needs_no_upstream_and_opens_for_its_own_asker() {
    let (site, web) = site_with_pod("");
    let web_2 = site.attach("shop", "web-2", &["app=web"]);
    let dig = |pod: &Pod| {
        let said = pod.ok(&format!("dig @{} ApI.eXample.com +noall +question +answer +time=3 +tries=1", DNS.v4()));
        assert!(said.contains(";ApI.eXample.com."), "the client's spelling: {said}");
        let answer = said.lines().find(|line| !line.starts_with(';') && line.contains(&API.v4().to_string()));
        let ttl = answer.and_then(|line| line.split_whitespace().nth(1)?.parse::<u32>().ok());
        ttl.unwrap_or_else(|| panic!("an answer with its TTL: {said}"))
    };
    assert_eq!(web.look_up(DNS.v4(), "api.example.com", Kind::A), API.v4());
    assert_eq!(web.look_up(DNS.v4(), "api.example.com", Kind::Aaaa), API.v6());
    assert_eq!(ask(&web, "gone.many.example.com").code, NO_SUCH_NAME);
    assert_eq!(web.ask(DNS.v4(), "big.example.com", Kind::A, Carrier::Tcp).map(|big| big.addresses.len()), Some(120));
    dig(&web);

    site.internet.unbound.process().signal(Signal::Stop);
    let target = Target::new("tcp", API.v4(), ECHO_PORT);
    web_2.must_not_reach(target);
    assert_eq!(web_2.look_up(DNS.v6(), "API.example.com", Kind::A), API.v4());
    web_2.must_reach(target);
    web_2.must_not_reach(Target::new("tcp", API.v6(), ECHO_PORT));
    assert_eq!(web_2.look_up(DNS.v4(), "api.example.com", Kind::Aaaa), API.v6());
    web_2.must_reach(Target::new("tcp", API.v6(), ECHO_PORT));
    assert_eq!(ask(&web_2, "gone.many.example.com").code, NO_SUCH_NAME, "kept too");
    let big = |carrier| web_2.ask(DNS.v4(), "big.example.com", Kind::A, carrier).expect("an answer");
    let [a, b, c] = MANY;
    web_2.must_not_reach(Target::new("tcp", IpAddr::from([a, b, c, 120]), 9));
    assert!(big(Carrier::Udp).truncated, "cut for this client");
    assert_eq!(big(Carrier::Tcp).addresses.len(), 120);
    web_2.must_reach(Target::new("tcp", IpAddr::from([a, b, c, 120]), 9));

    let first = dig(&web_2);
    wait_until("the TTL falls", BOUND, || dig(&web) < first);
    assert!(metric(&site, "tidegate_dns_cache_lookups_total{result=\"hit\"}") >= 8.0);
    assert!(metric(&site, "tidegate_dns_cache_bytes") > 0.0);
    site.internet.unbound.process().signal(Signal::Continue);
}

#[test]
fn tenants_with_other_servers_never_see_each_others_answers() {
    let site = Site::start();
    let second = Host(54);
    site.internet.namespace.ip(&format!("addr add {}/32 dev lo", second.v4()));
    let mut zones = Zones::default();
    zones.add("example.com", "api", &format!("60 A {}", OTHER.v4()));
    zones.add("example.com", "n1.many", &format!("60 A {}", OTHER.v4()));
    let folder = site.world.folder().join("unbound-2");
    let theirs = Unbound::start(&site.internet.namespace, &folder, &[second.v4()], &zones);
    let dns = format!("  dns: {{ upstreams: [{}] }}\n", second.v4());
    site.netctl().apply(
        &(network("tenant-a", 100, "")
            + &network("tenant-b", 200, &dns)
            + &namespace("shop", "tenant-a")
            + &namespace("bank", "tenant-b")
            + &allow("shop", &NAMES)
            + &allow("bank", &NAMES)),
    );
    let (web, vault) = (site.attach("shop", "web-1", &[]), site.attach("bank", "vault-1", &[]));
    let [a, b, c] = MANY;
    let both = [
        ("api.example.com", [&web, &vault], [API.v4(), OTHER.v4()]),
        ("n1.many.example.com", [&vault, &web], [OTHER.v4(), IpAddr::from([a, b, c, 1])]),
    ];
    let right = || {
        for (name, pods, addresses) in both {
            for (pod, address) in pods.into_iter().zip(addresses) {
                assert_eq!(pod.look_up(DNS.v4(), name, Kind::A), address, "{name} for {}", pod.full_name());
            }
        }
    };
    right();
    for unbound in [&site.internet.unbound, &theirs] {
        unbound.process().signal(Signal::Stop);
    }
    right();
    web.must_not_reach(Target::new("tcp", OTHER.v4(), ECHO_PORT));
    vault.must_reach(Target::new("tcp", OTHER.v4(), ECHO_PORT));
    for unbound in [&site.internet.unbound, &theirs] {
        unbound.process().signal(Signal::Continue);
    }
}

#[test]
fn a_policy_is_asked_before_what_is_kept() {
    let (site, web) = site_with_pod("");
    let target = Target::new("tcp", FORBIDDEN.v4(), ECHO_PORT);
    let wide = allow("shop", &["blocked.example.com"]);
    let went_up = || asked(&site.internet.unbound, "blocked.example.com");
    let mut once = 0;
    for round in 1..=2 {
        assert_eq!(ask(&web, "blocked.example.com").code, NO_SUCH_NAME, "refused, whatever is kept");
        web.must_not_reach(target);
        site.netctl().apply(&wide);
        assert_eq!(ask(&web, "blocked.example.com").addresses, [FORBIDDEN.v4()], "a refusal is not kept");
        web.must_reach(target);
        match round {
            1 => wait_until("unbound tells what it was asked", BOUND, || went_up() > 0),
            _ => assert_eq!(went_up(), once, "kept meanwhile"),
        }
        once = went_up();
        site.netctl().apply(&allow("shop", &NAMES));
    }
}

#[test]
fn a_kept_answer_is_judged_for_each_asker() {
    let site = Site::start();
    let names = ["neighbour.example.com"];
    site.netctl().apply(&(two_tenants() + &allow("shop", &names) + &allow("bank", &names)));
    let (web, vault) = (site.attach("shop", "web-1", &[]), site.attach("bank", "vault-1", &[]));
    assert_eq!(ask(&web, names[0]).code, NO_SUCH_NAME, "it leads into another network");
    site.internet.unbound.process().signal(Signal::Stop);
    assert_eq!(
        ask(&vault, names[0]).addresses,
        ["10.200.0.2".parse::<IpAddr>().expect("an address")],
        "its own network"
    );
    assert_eq!(ask(&web, names[0]).code, NO_SUCH_NAME);
    site.internet.unbound.process().signal(Signal::Continue);
}

#[test]
fn a_killed_daemon_loses_what_was_kept_and_nothing_else() {
    let (mut site, web) = site_with_pod("");
    web.look_up(DNS.v4(), "api.example.com", Kind::A);
    let target = Target::new("tcp", API.v4(), ECHO_PORT);
    let mut connection = web.open(SocketAddr::new(API.v4(), ECHO_PORT));
    connection.must_echo();
    site.internet.unbound.process().signal(Signal::Stop);
    site.daemon.kill();
    site.daemon.restart();
    connection.must_echo();
    web.must_reach(target);
    wait_until("nothing is kept", BOUND, || {
        let answer = web.ask(DNS.v4(), "api.example.com", Kind::A, Carrier::Udp);
        answer.is_some_and(|answer| answer.code == SERVER_FAILURE)
    });
    web.must_reach(target);
    site.internet.unbound.process().signal(Signal::Continue);
    wait_until("a failure is kept for seconds only", BOUND, || {
        web.ask(DNS.v4(), "api.example.com", Kind::A, Carrier::Udp).is_some_and(|answer| answer.addresses == [API.v4()])
    });
    connection.must_echo();
}

#[test]
fn one_workloads_names_leave_the_others_theirs_within_the_bound() {
    const ROOM: f64 = 65_536.0;
    let (site, web) = site_with_pod("dns_cache = 65536\n");
    let web_2 = site.attach("shop", "web-2", &["app=web"]);
    web_2.look_up(DNS.v4(), "api.example.com", Kind::A);
    for number in 1..=254 {
        web.look_up(DNS.v4(), &format!("n{number}.many.example.com"), Kind::A);
    }
    assert!(metric(&site, "tidegate_dns_cache_evictions_total") > 0.0);
    let bytes = metric(&site, "tidegate_dns_cache_bytes");
    assert!(bytes > ROOM / 2.0 && bytes <= ROOM, "{bytes}");
    site.internet.unbound.process().signal(Signal::Stop);
    assert_eq!(web_2.look_up(DNS.v4(), "api.example.com", Kind::A), API.v4());
    site.internet.unbound.process().signal(Signal::Continue);
}

#[test]
fn a_popular_name_is_asked_for_ahead_and_its_askers_wait_for_nobody() {
    let (site, web) = site_with_pod("");
    wait_until("a popular answer is asked for again", BOUND, || {
        assert_eq!(ask(&web, "brief.example.com").code, 0);
        metric(&site, "tidegate_dns_cache_prefetches_total") > 0.0 || {
            (0..20).for_each(|_| assert_eq!(ask(&web, "brief.example.com").code, 0));
            false
        }
    });
}

#[test]
fn without_room_every_question_goes_up() {
    let (site, web) = site_with_pod("dns_cache = 0\n");
    for count in 1..=2 {
        web.look_up(DNS.v4(), "api.example.com", Kind::A);
        wait_until("unbound tells what it was asked", BOUND, || {
            asked(&site.internet.unbound, "api.example.com") >= count
        });
    }
    assert_eq!(metric(&site, "tidegate_dns_cache_lookups_total"), 0.0);
}
