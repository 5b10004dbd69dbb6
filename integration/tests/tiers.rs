//! The admin tier above the namespaces' own policies, with real sockets.

use std::time::Duration;

use integration::Site;
use integration::manifests::{allow_cidrs, cidr_rule, cluster_policy, name_rule, policy, two_tenants};
use integration::peers::query::Kind;
use integration::site::{API, DNS, ECHO, OTHER};
use integration::traffic::Target;

const PORT: u16 = 7;
const TCP_7: &str = "[ { protocol: TCP, port: 7 } ]";

fn tcp(host: integration::site::Host) -> Target {
    Target::new("tcp", host.v4(), PORT)
}

#[test]
fn what_the_admin_tier_says_no_namespace_changes() {
    let site = Site::start();
    // Each namespace allows everything but the host that the admin tier allows.
    let deny = format!("  deny:\n{}", cidr_rule(&["203.0.113.30/32", "203.0.113.10/32"], ""));
    let everything = deny + &allow_cidrs(&["0.0.0.0/0", "::/0"], "");
    let own = policy("shop", "open", &everything) + &policy("bank", "open", &everything);
    let deny = format!("  deny:\n{}", cidr_rule(&[&format!("{}/32", OTHER.v4())], TCP_7));
    let allow = allow_cidrs(&[&format!("{}/32", ECHO.v4())], TCP_7) + &name_rule(&["api.example.com"], TCP_7);
    let shop_only = "{ matchLabels: { kubernetes.io/metadata.name: shop } }";
    site.netctl().apply(&(two_tenants() + &own + &cluster_policy("base", shop_only, &(deny + &allow))));
    let web = site.attach("shop", "web-1", &[]);
    let ledger = site.attach("bank", "ledger-1", &[]);

    web.must_not_reach(tcp(OTHER));
    web.must_reach(Target::new("udp", OTHER.v4(), PORT));
    web.must_reach(tcp(ECHO));
    web.must_not_reach(Target::new("udp", ECHO.v4(), PORT));
    ledger.must_reach(tcp(OTHER));
    ledger.must_not_reach(tcp(ECHO));

    // By name above a deny by address, and only for who looked it up.
    web.must_not_reach(tcp(API));
    assert_eq!(web.look_up(DNS.v4(), "api.example.com", Kind::A), API.v4());
    web.must_reach(tcp(API));
    ledger.must_not_reach(tcp(API));

    let flows = site.netctl().flows(&["-n", "shop"]);
    let told = |rule: &str, verdict: &str| flows.iter().any(|flow| flow["rule"] == rule && flow["verdict"] == verdict);
    assert!(told("clusteregresspolicy/base deny[0]", "denied"), "{flows:#?}");
    assert!(told("clusteregresspolicy/base allow[0]", "allowed"), "{flows:#?}");
    assert!(told("clusteregresspolicy/base allow[1]", "allowed"), "{flows:#?}");

    let explain = |to: &str| {
        let said = site.netctl().run(&["explain", "--from", "shop/web-1", "--to", to, "-o", "json"]);
        serde_json::from_str::<serde_json::Value>(&said.stdout).unwrap_or_else(|_| panic!("{to}: {}", said.stderr))
    };
    for (to, allowed, rule) in [
        (format!("{}:7", OTHER.v4()), false, "clusteregresspolicy/base deny[0]"),
        (format!("{}:7", ECHO.v4()), true, "clusteregresspolicy/base allow[0]"),
        ("api.example.com:7".to_owned(), true, "clusteregresspolicy/base allow[1]"),
        (format!("{}:8", ECHO.v4()), false, "egresspolicy/shop/open deny[0]"),
    ] {
        let said = explain(&to);
        assert_eq!((&said["allowed"], &said["rule"]), (&allowed.into(), &rule.into()), "{to}: {said:#}");
    }
}

#[test]
fn a_change_of_the_tier_reaches_open_flows() {
    let site = Site::start();
    let everything = allow_cidrs(&["0.0.0.0/0"], "");
    site.netctl().apply(&(two_tenants() + &policy("shop", "open", &everything)));
    let web = site.attach("shop", "web-1", &["app=web"]);
    let mut connection = web.open((ECHO.v4(), PORT).into());
    connection.must_echo();

    let deny = format!("  deny:\n{}", cidr_rule(&[&format!("{}/32", ECHO.v4())], ""));
    site.netctl().apply(&cluster_policy("base", "{}", &deny));
    assert!(!connection.echoes_within(Duration::from_secs(2)), "an admin deny ends open flows");
    web.must_not_reach(tcp(ECHO));
    let listed = site.netctl().ok(&["get", "clusteregresspolicies", "-o", "wide"]);
    assert!(listed.contains("base") && listed.contains("<all>"), "{listed}");
    let workload = site.netctl().ok(&["describe", "clusteregresspolicy", "base"]);
    assert!(workload.contains("web-1"), "the workloads that it selects: {workload}");

    // It never isolates: without it and the namespace's own policy the default holds.
    site.netctl().ok(&["delete", "egresspolicy", "open", "-n", "shop"]);
    site.netctl().apply(&cluster_policy("base", "{}", ""));
    web.must_not_reach(tcp(ECHO));
    site.netctl().ok(&["delete", "cegp", "base"]);
    site.netctl().apply(&policy("shop", "open", &everything));
    web.must_reach(tcp(ECHO));
}
