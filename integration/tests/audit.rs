//! `mode: Audit` with real sockets: what an audited policy would deny passes, and is told with the rule.

use std::time::Duration;

use integration::Site;
use integration::manifests::{allow_cidrs, cidr_rule, cluster_policy, name_rule, network, policy};
use integration::peers::query::{Carrier, Kind};
use integration::site::{API, DNS, ECHO, Host, OTHER};
use integration::traffic::Target;
use integration::wait::wait_until;
use serde_json::Value;

const PORT: u16 = 7;
const TCP_7: &str = "[ { protocol: TCP, port: 7 } ]";

fn tcp(host: Host) -> Target {
    Target::new("tcp", host.v4(), PORT)
}

/// `shop`, where what no policy isolates may leave.
fn open_tenant() -> String {
    network("tenant-a", 100, "")
        + "---\napiVersion: tidegate.dev/v1alpha1\nkind: Namespace\nmetadata: { name: shop }\n\
           spec: { network: tenant-a, egressDefault: Allow }\n"
}

/// The tried policy: `echo`'s TCP 7 and a name, nothing else.
fn tried(mode: &str) -> String {
    let allow = allow_cidrs(&[&format!("{}/32", ECHO.v4())], TCP_7) + &name_rule(&["api.example.com"], TCP_7);
    policy("shop", "tried", &format!("  mode: {mode}\n{allow}"))
}

fn explained(site: &Site, to: &str) -> Value {
    let said = site.netctl().run(&["explain", "--from", "shop/web-1", "--to", to, "-o", "json"]);
    serde_json::from_str(&said.stdout).unwrap_or_else(|_| panic!("{to}: {}", said.stderr))
}

#[test]
fn isolation_is_recorded_and_then_applied() {
    let site = Site::start();
    site.netctl().apply(&(open_tenant() + &tried("Audit")));
    let web = site.attach("shop", "web-1", &[]);
    web.must_reach(tcp(ECHO));
    web.must_reach(tcp(OTHER));
    web.must_reach(Target::new("udp", ECHO.v4(), PORT));
    // Names resolve as for a workload that is not isolated; the one that the policy allows is not recorded.
    let other = web.ask(DNS.v4(), "blocked.example.com", Kind::A, Carrier::Udp).expect("an answer");
    assert!(!other.addresses.is_empty(), "not isolated, so every name resolves");
    assert_eq!(web.look_up(DNS.v4(), "api.example.com", Kind::A), API.v4());
    web.must_reach(tcp(API));

    let audited = site.netctl().flows(&["-n", "shop", "--verdict", "audited"]);
    let to = |host: Host| audited.iter().any(|flow| flow["remote"]["address"] == host.v4().to_string());
    assert!(to(OTHER) && to(ECHO) && !to(API), "{audited:#?}");
    assert!(audited.iter().all(|flow| flow["rule"] == "egresspolicy/shop/tried isolation"), "{audited:#?}");
    assert!(audited.iter().all(|flow| flow["reason"] == "audited"), "{audited:#?}");
    let metrics = || site.node.ok("curl -sS --max-time 5 http://127.0.0.1:9464/metrics");
    let counted = |line: &str| line.starts_with("tidegate_flows_total") && line.contains("audited");
    wait_until("audited flows are counted", Duration::from_secs(10), || metrics().lines().any(counted));
    let said = explained(&site, &format!("{}:7", OTHER.v4()));
    assert_eq!((&said["allowed"], &said["reason"]), (&true.into(), &"audited".into()), "{said:#}");
    assert_eq!(said["rule"], "egresspolicy/shop/tried isolation", "{said:#}");
    let listed = site.netctl().ok(&["get", "egresspolicies", "-n", "shop"]);
    assert!(listed.contains("Audit"), "{listed}");

    let mut connection = web.open((OTHER.v4(), PORT).into());
    connection.must_echo();
    site.netctl().apply(&tried("Enforce"));
    assert!(!connection.echoes_within(Duration::from_secs(2)), "what was recorded is now denied");
    web.must_not_reach(tcp(OTHER));
    web.must_reach(tcp(ECHO));
    web.must_reach(tcp(API));
}

#[test]
fn denies_of_both_tiers_are_recorded_and_what_is_enforced_holds() {
    let site = Site::start();
    let address = |host: Host| format!("{}/32", host.v4());
    let deny = |hosts: &[Host]| {
        let cidrs: Vec<String> = hosts.iter().map(|host| address(*host)).collect();
        let cidrs: Vec<&str> = cidrs.iter().map(String::as_str).collect();
        format!("  deny:\n{}", cidr_rule(&cidrs, ""))
    };
    let admin = cluster_policy("base", "{}", &format!("  mode: Audit\n{}", deny(&[ECHO, OTHER])));
    let tried = policy("shop", "tried", &format!("  mode: Audit\n{}", deny(&[API])));
    let enforced = policy("shop", "own", &deny(&[OTHER]));
    site.netctl().apply(&(open_tenant() + &admin + &tried + &enforced));
    let web = site.attach("shop", "web-1", &[]);
    web.must_reach(tcp(ECHO));
    web.must_reach(tcp(API));
    web.must_not_reach(tcp(OTHER));

    let flows = site.netctl().flows(&["-n", "shop"]);
    let told = |rule: &str, verdict: &str| flows.iter().any(|flow| flow["rule"] == rule && flow["verdict"] == verdict);
    assert!(told("clusteregresspolicy/base deny[0]", "audited"), "{flows:#?}");
    assert!(told("egresspolicy/shop/tried deny[0]", "audited"), "{flows:#?}");
    assert!(told("egresspolicy/shop/own deny[0]", "denied"), "{flows:#?}");
    let said = explained(&site, &format!("{}:7", ECHO.v4()));
    assert_eq!((&said["reason"], &said["rule"]), (&"audited".into(), &"clusteregresspolicy/base deny[0]".into()));
}
