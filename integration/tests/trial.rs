//! `netctl apply --confirm-within`: what nobody confirms is taken back as a whole.

use std::collections::BTreeSet;
use std::time::Duration;

use integration::Site;
use integration::manifests::{allow_cidrs, namespace, network, policy, two_tenants};
use integration::process::Said;
use integration::site::ECHO;
use integration::traffic::Target;
use integration::wait::wait_until;

/// Longer than a test takes.
const LONG: &str = "10m";
const BOUND: Duration = Duration::from_secs(15);

fn on_trial(site: &Site, manifests: &str, within: &str) -> Said {
    site.netctl().with_file(manifests, |file| site.netctl().run(&["apply", "-f", file, "--confirm-within", within]))
}

/// A third tenant, and more than before for the first.
fn change() -> String {
    let rules = policy("shop", "echo", &allow_cidrs(&[&format!("{}/32", ECHO.v4())], ""));
    network("tenant-c", 77, "") + &namespace("lab", "tenant-c") + &rules
}

fn target() -> Target {
    Target::new("tcp", ECHO.v4(), 7)
}

fn names(site: &Site, kind: &str) -> BTreeSet<String> {
    let list = site.netctl().json(&["get", kind, "-A"]);
    let items = list["items"].as_array().cloned().unwrap_or_default();
    items.iter().filter_map(|item| item["metadata"]["name"].as_str().map(str::to_owned)).collect()
}

fn links(site: &Site) -> BTreeSet<String> {
    let links = site.node.ip_json("link");
    links.as_array().into_iter().flatten().filter_map(|link| link["ifname"].as_str().map(str::to_owned)).collect()
}

fn waits(site: &Site) -> bool {
    site.netctl().json(&["status"])["conditions"].to_string().contains("\"confirmation\"")
}

#[test]
fn what_nobody_confirms_is_taken_back() {
    let site = Site::start();
    site.netctl().apply(&two_tenants());
    let web = site.attach("shop", "web-1", &[]);
    web.must_not_reach(target());
    let before = links(&site);

    let said = on_trial(&site, &change(), "4s");
    assert!(said.success() && said.stdout.contains("netctl confirm"), "{}{}", said.stdout, said.stderr);
    assert!(waits(&site));
    web.must_reach(target());
    assert_eq!(links(&site).difference(&before).collect::<Vec<_>>(), ["tgb-tenant-c"]);
    let inside = site.world.namespace("early", None);
    let refused = |words: &[&str]| {
        let said = site.netctl().run(words);
        assert!(!said.success() && said.stderr.contains("on trial"), "{words:?}: {}", said.stderr);
    };
    refused(&["attach", "early", "-n", "lab", "--netns", inside.path().to_str().unwrap()]);
    refused(&["delete", "namespaces", "bank"]);
    assert!(site.netctl().try_apply(&two_tenants()).stderr.contains("on trial"));
    // who comes and goes elsewhere does so
    site.attach("bank", "db-1", &[]);

    wait_until("it is taken back", BOUND, || !waits(&site));
    web.must_not_reach(target());
    assert_eq!(names(&site, "networks"), BTreeSet::from(["tenant-a", "tenant-b"].map(str::to_owned)));
    assert_eq!(names(&site, "egresspolicies"), BTreeSet::new());
    assert_eq!(names(&site, "workloads"), BTreeSet::from(["web-1", "db-1"].map(str::to_owned)));
    assert!(!links(&site).contains("tgb-tenant-c"));
    let said = site.netctl().run(&["confirm"]);
    assert!(said.stderr.contains("no change waits"), "{}", said.stderr);
    site.netctl().apply(&change());
    web.must_reach(target());
}

#[test]
fn what_is_confirmed_stays_and_what_is_rolled_back_goes_at_once() {
    let mut site = Site::start();
    site.netctl().apply(&two_tenants());
    let web = site.attach("shop", "web-1", &[]);
    assert!(on_trial(&site, &change(), LONG).success());
    let said = site.netctl().ok(&["rollback"]);
    assert!(said.contains("network/tenant-c deleted"), "{said}");
    web.must_not_reach(target());
    assert!(!links(&site).contains("tgb-tenant-c"));

    assert!(on_trial(&site, &change(), "3s").success());
    let said = site.netctl().ok(&["confirm"]);
    assert!(said.contains("network/tenant-c created"), "{said}");
    assert!(!waits(&site));
    site.daemon.kill();
    site.daemon.restart();
    web.must_reach(target());
    assert!(names(&site, "networks").contains("tenant-c"));
    let again = on_trial(&site, &change(), LONG);
    assert!(again.success() && !again.stdout.contains("confirm"), "nothing to be on trial: {}", again.stdout);
    assert!(!waits(&site));
}

#[test]
fn a_daemon_that_dies_meanwhile_starts_with_what_was() {
    let mut site = Site::start();
    site.netctl().apply(&two_tenants());
    let web = site.attach("shop", "web-1", &[]);
    for graceful in [false, true] {
        assert!(on_trial(&site, &change(), LONG).success());
        web.must_reach(target());
        match graceful {
            true => assert_eq!(site.daemon.terminate(), Some(0)),
            false => site.daemon.kill(),
        }
        site.daemon.restart();
        web.must_not_reach(target());
        assert!(!names(&site, "networks").contains("tenant-c"));
        wait_until("its links are gone", BOUND, || !links(&site).contains("tgb-tenant-c"));
    }
}

#[test]
fn a_network_that_would_cut_the_node_off_is_taken_back() {
    let site = Site::start();
    site.netctl().apply(&two_tenants());
    let web = site.attach("shop", "web-1", &[]);
    let (links, routes) = (links(&site), site.node.ok("ip route"));
    // the subnet of the node's DNS server, which its default route leads to
    let takes = network("tenant-d", 9, "").replace("10.9.0.", "203.0.113.");
    let said = site.netctl().try_apply(&takes);
    assert!(!said.success() && said.stderr.contains("no longer reach 203.0.113.53"), "{}", said.stderr);
    assert_eq!((self::links(&site), site.node.ok("ip route")), (links, routes));
    assert!(!names(&site, "networks").contains("tenant-d"));
    site.netctl().apply(&change());
    web.must_reach(target());
}
