//! Answers that the kernel gives while nobody else could: the daemon is stopped, or dead. And what of them a change ends.

use std::net::IpAddr;
use std::time::Duration;

use integration::daemon::Settings;
use integration::manifests::{name_rule, namespace, network, policy, two_tenants};
use integration::peers::dns::{Unbound, Zones};
use integration::peers::query::{Answer, Carrier, Kind};
use integration::site::{API, CDN, DNS, ECHO, Host, OTHER};
use integration::sys::process::Signal;
use integration::traffic::Target;
use integration::wait::wait_until;
use integration::world::World;
use integration::{Pod, Site};

const ECHO_PORT: u16 = 7;
const TCP_ECHO: &str = "[ { protocol: TCP, port: 7 }, { protocol: TCP, port: 9 } ]";
const BOUND: Duration = Duration::from_secs(25);
const NO_SUCH_NAME: u8 = 3;
const NAMES: [&str; 4] = ["api.example.com", "cdn.example.com", "*.many.example.com", "short.example.com"];

fn allow(names: &[&str]) -> String {
    policy("shop", "shop-egress", &format!("  allow:\n{}", name_rule(names, TCP_ECHO)))
}

fn site_with_pod(limits: &str) -> (Site, Pod) {
    let more = format!("[limits]\n{limits}");
    let site = Site::with(World::new(), Settings { more, ..Site::settings() });
    site.netctl().apply(&(two_tenants() + &allow(&NAMES)));
    let web = site.attach("shop", "web-1", &["app=web"]);
    (site, web)
}

fn ask(pod: &Pod, name: &str, kind: Kind) -> Option<Answer> {
    pod.ask(DNS.v4(), name, kind, Carrier::Udp)
}

/// As often as it takes for the kernel to have the answer.
fn ask_twice(pod: &Pod, name: &str, kind: Kind) {
    (0..2).for_each(|_| assert!(ask(pod, name, kind).is_some(), "{name}"));
}

fn pause<T>(site: &Site, work: impl FnOnce() -> T) -> T {
    let daemon = site.daemon.process().expect("a daemon");
    daemon.signal(Signal::Stop);
    let done = work();
    daemon.signal(Signal::Continue);
    done
}

fn metric(site: &Site, name: &str) -> f64 {
    let text = site.node.ok("curl -sS --max-time 5 http://127.0.0.1:9464/metrics");
    let samples = text.lines().filter(|line| line.starts_with(name));
    samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

#[test]
fn what_was_asked_for_twice_is_the_kernels_to_answer() {
    let (site, web) = site_with_pod("");
    let web_2 = site.attach("shop", "web-2", &["app=web"]);
    let dig = || {
        let said = web.ok(&format!("dig @{} ApI.eXample.com +nocookie +time=3 +tries=1", DNS.v4()));
        assert!(said.contains(";ApI.eXample.com.") && said.contains("status: NOERROR"), "{said}");
        let answer = said.lines().find(|line| !line.starts_with(';') && line.contains(&API.v4().to_string()));
        let ttl = answer.and_then(|line| line.split_whitespace().nth(1)?.parse::<u32>().ok());
        ttl.unwrap_or_else(|| panic!("an answer with its TTL: {said}"))
    };
    for (name, kind) in [("api", Kind::A), ("api", Kind::Aaaa), ("cdn", Kind::A), ("gone.many", Kind::Aaaa)] {
        ask_twice(&web, &format!("{name}.example.com"), kind);
    }
    ask_twice(&web, "refused.example.com", Kind::A);
    ask(&web, "n1.many.example.com", Kind::A);
    let first = (dig(), dig()).1;
    pause(&site, || {
        for server in [DNS.v4(), DNS.v6(), "8.8.8.8".parse().expect("an address")] {
            assert_eq!(web.look_up(server, "api.example.com", Kind::A), API.v4());
            assert_eq!(web.look_up(server, "API.EXAMPLE.COM", Kind::Aaaa), API.v6());
        }
        assert_eq!(web.look_up(DNS.v4(), "cdn.example.com", Kind::A), CDN.v4());
        assert_eq!(ask(&web, "gone.many.example.com", Kind::Aaaa).map(|answer| answer.code), Some(NO_SUCH_NAME));
        for address in [API.v4(), API.v6(), CDN.v4()] {
            web.must_reach(Target::new("tcp", address, ECHO_PORT));
        }
        wait_until("the TTL falls", BOUND, || dig() < first);
        assert_eq!(ask(&web_2, "api.example.com", Kind::A), None, "another workload has not asked");
        assert_eq!(ask(&web, "n1.many.example.com", Kind::A), None, "asked for once");
        assert_eq!(ask(&web, "refused.example.com", Kind::A), None, "a refusal is the daemon's to say");
    });
    let counted = || metric(&site, "tidegate_dns_queries_total{outcome=\"answered-in-kernel\"}");
    wait_until("they are counted", BOUND, || counted() >= 9.0);
    assert_eq!(metric(&site, "tidegate_dns_queries_total{outcome=\"failed-in-kernel\"}"), 0.0);
    assert!(site.netctl().json(&["status"])["dns"]["queries"]["answered-in-kernel"].as_u64() >= Some(9));
}

#[test]
fn a_change_is_in_force_at_the_next_question() {
    let (site, web) = site_with_pod("");
    let target = Target::new("tcp", API.v4(), ECHO_PORT);
    for _ in 0..2 {
        ask_twice(&web, "api.example.com", Kind::A);
        pause(&site, || assert_eq!(web.look_up(DNS.v4(), "api.example.com", Kind::A), API.v4()));
        site.netctl().apply(&allow(&["cdn.example.com"]));
        let refused = ask(&web, "api.example.com", Kind::A).expect("an answer");
        assert_eq!((refused.code, refused.addresses.len()), (NO_SUCH_NAME, 0));
        web.must_not_reach(target);
        site.netctl().apply(&allow(&NAMES));
        assert_eq!(web.look_up(DNS.v4(), "api.example.com", Kind::A), API.v4());
        web.must_reach(target);
    }
    let second = Host(54);
    site.internet.namespace.ip(&format!("addr add {}/32 dev lo", second.v4()));
    let mut zones = Zones::default();
    zones.add("example.com", "api", &format!("60 A {}", OTHER.v4()));
    let _theirs =
        Unbound::start(&site.internet.namespace, &site.world.folder().join("unbound-2"), &[second.v4()], &zones);
    ask_twice(&web, "api.example.com", Kind::A);
    let dns = format!("  dns: {{ upstreams: [{}] }}\n", second.v4());
    site.netctl().apply(&network("tenant-a", 100, &dns));
    assert_eq!(web.look_up(DNS.v4(), "api.example.com", Kind::A), OTHER.v4(), "another server's answer");
    web.must_reach(Target::new("tcp", OTHER.v4(), ECHO_PORT));
}

/// A site whose `short.example.com` has this TTL.
fn short(seconds: u32) -> (Site, Pod, Unbound) {
    let site = Site::start();
    let server = Host(54);
    site.internet.namespace.ip(&format!("addr add {}/32 dev lo", server.v4()));
    let mut zones = Zones::default();
    zones.add("example.com", "short", &format!("{seconds} A {}", ECHO.v4()));
    let unbound =
        Unbound::start(&site.internet.namespace, &site.world.folder().join("unbound-2"), &[server.v4()], &zones);
    let dns = format!("  dns: {{ upstreams: [{}] }}\n", server.v4());
    site.netctl().apply(&(network("tenant-a", 100, &dns) + &namespace("shop", "tenant-a") + &allow(&NAMES)));
    let web = site.attach("shop", "web-1", &[]);
    (site, web, unbound)
}

#[test]
fn names_outlive_a_killed_daemon_for_their_time() {
    let (mut site, web, _unbound) = short(15);
    let target = Target::new("tcp", ECHO.v4(), ECHO_PORT);
    ask_twice(&web, "short.example.com", Kind::A);
    site.daemon.kill();
    assert_eq!(web.look_up(DNS.v4(), "short.example.com", Kind::A), ECHO.v4());
    web.must_reach(target);
    wait_until("its time is over", BOUND, || ask(&web, "short.example.com", Kind::A).is_none());
    web.must_reach(target);
    site.daemon.restart();
    wait_until("the daemon answers", BOUND, || ask(&web, "short.example.com", Kind::A).is_some());
    // What it finds of the node in its first seconds is a change, too.
    wait_until("the kernel answers again", BOUND, || {
        ask_twice(&web, "short.example.com", Kind::A);
        pause(&site, || ask(&web, "short.example.com", Kind::A)).is_some_and(|answer| answer.addresses == [ECHO.v4()])
    });
    web.must_reach(target);
}

#[test]
fn a_popular_name_that_the_kernel_answers_is_asked_for_ahead() {
    let (site, web, unbound) = short(12);
    wait_until("it is asked for again", BOUND, || {
        let addresses: Vec<IpAddr> = vec![ECHO.v4()];
        (0..50).for_each(|_| {
            assert_eq!(ask(&web, "short.example.com", Kind::A).map(|it| it.addresses), Some(addresses.clone()))
        });
        metric(&site, "tidegate_dns_cache_prefetches_total") > 0.0
    });
    assert!(metric(&site, "tidegate_dns_cache_lookups_total{result=\"kernel\"}") > 0.0);
    unbound.process().signal(Signal::Stop);
    ask_twice(&web, "short.example.com", Kind::A);
    unbound.process().signal(Signal::Continue);
}

#[test]
fn without_room_for_answers_the_kernel_has_none() {
    let (site, web) = site_with_pod("dns_cache = 0\n");
    ask_twice(&web, "api.example.com", Kind::A);
    pause(&site, || assert_eq!(ask(&web, "api.example.com", Kind::A), None));
}
