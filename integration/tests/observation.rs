//! What an operator sees: metrics, flows, status, explain.

use std::time::Duration;

use integration::Site;
use integration::manifests::{allow_cidrs, name_rule, policy, two_tenants};
use integration::peers::query::{Carrier, Kind};
use integration::site::{API, DNS, ECHO, FORBIDDEN};
use integration::traffic::Target;
use integration::wait::wait_until;

/// The sum of a metric's samples whose line has all these words.
fn metric(site: &Site, name: &str, words: &[&str]) -> f64 {
    let text = site.node.ok("curl -sS --max-time 5 http://127.0.0.1:9464/metrics");
    let samples = text.lines().filter(|line| line.starts_with(name) && words.iter().all(|word| line.contains(word)));
    samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

#[test]
fn traffic_is_counted_and_told() {
    let site = Site::start();
    let rules =
        allow_cidrs(&["203.0.113.30/32"], "") + &name_rule(&["api.example.com"], "[ { protocol: TCP, port: 7 } ]");
    site.netctl().apply(&(two_tenants() + &policy("shop", "shop-egress", &rules)));
    let web = site.attach("shop", "web-1", &["app=web"]);
    let mut connection = web.open((ECHO.v4(), 7).into());
    connection.must_echo();
    web.look_up(DNS.v4(), "api.example.com", Kind::A);
    web.must_reach(Target::new("tcp", API.v4(), 7));
    web.ask(DNS.v4(), "blocked.example.com", Kind::A, Carrier::Udp);
    web.must_not_reach(Target::new("tcp", FORBIDDEN.v4(), 7));

    let bound = Duration::from_secs(10);
    for (name, words) in [
        ("tidegate_flows_total", &["allowed"][..]),
        ("tidegate_flows_total", &["denied-by-default"]),
        ("tidegate_dns_queries_total", &[]),
        ("tidegate_dns_learned_addresses", &[]),
        ("tidegate_map_max_entries", &[]),
        ("tidegate_reconcile_steps_total", &[]),
        ("tidegate_workloads", &[]),
    ] {
        wait_until(&format!("{name} {words:?} is above 0"), bound, || metric(&site, name, words) > 0.0);
    }

    let flows = site.netctl().flows(&["-n", "shop"]);
    let open = flows.iter().find(|flow| {
        flow["event"] == "open" && flow["remote"]["port"] == 7 && flow["remote"]["address"] == "203.0.113.30"
    });
    let open = open.unwrap_or_else(|| panic!("the open flow is listed: {flows:#?}"));
    assert_eq!((&open["verdict"], &open["workload"]), (&"allowed".into(), &"web-1".into()), "{open:#}");
    assert!(open["packets"].as_u64() > Some(0) && open["bytes"].as_u64() > Some(0), "{open:#}");
    let by_name = flows.iter().any(|flow| flow["name"] == "api.example.com" && flow["verdict"] == "allowed");
    assert!(by_name, "a flow allowed by name says so: {flows:#?}");
    drop(connection);
}

#[test]
fn explain_agrees_with_what_happens_and_names_the_mend() {
    let site = Site::start();
    let rules = allow_cidrs(&["203.0.113.30/32"], "[ { protocol: TCP, port: 7 } ]");
    site.netctl().apply(&(two_tenants() + &policy("shop", "shop-egress", &rules)));
    let web = site.attach("shop", "web-1", &["app=web"]);
    let explain = |to: &str, protocol: &str| {
        site.netctl().run(&["explain", "--from", "shop/web-1", "--to", to, "--proto", protocol, "-o", "json"])
    };
    for (to, protocol, target) in [
        ("203.0.113.30:7", "tcp", Target::new("tcp", ECHO.v4(), 7)),
        ("203.0.113.30:70", "tcp", Target::new("tcp", ECHO.v4(), 70)),
        ("203.0.113.30:7", "udp", Target::new("udp", ECHO.v4(), 7)),
        ("203.0.113.30", "icmp", Target::Ping(ECHO.v4())),
        ("192.0.2.2:22", "tcp", Target::new("tcp", integration::site::NODE4.into(), 22)),
    ] {
        let said = explain(to, protocol);
        let explained: serde_json::Value =
            serde_json::from_str(&said.stdout).unwrap_or_else(|_| panic!("{to}: {}", said.stderr));
        if explained["allowed"] == true {
            assert_eq!(said.status, 0);
            web.must_reach(target);
        } else {
            assert_eq!(said.status, 3);
            web.must_not_reach(target);
            assert!(explained["mend"].as_str().is_some_and(|mend| !mend.is_empty()), "{to}: {explained:#}");
        }
    }
    assert_eq!(explain("203.0.113.30:7", "tcp").status, 0);
}

#[test]
fn status_is_ready_and_tells_what_falls_short() {
    let site = Site::start();
    site.netctl().apply(&two_tenants());
    let status = site.netctl().json(&["status"]);
    assert_eq!(status["ready"], true, "{status:#}");
    assert_eq!(status["networks"].as_array().map(Vec::len), Some(2), "{status:#}");
    assert!(status["maps"].as_array().is_some_and(|maps| maps.iter().any(|map| map["name"] == "flows")), "{status:#}");
    site.internet.unbound.process().signal(integration::sys::process::Signal::Stop);
    let text = site.netctl().ok(&["status"]);
    assert!(text.contains("203.0.113.53"), "the upstreams are named: {text}");
    site.internet.unbound.process().signal(integration::sys::process::Signal::Continue);
}
