//! Who gets which address: what is excluded, reserved for labels, and held for who comes again.

use std::net::Ipv4Addr;
use std::time::Duration;

use integration::Site;
use integration::manifests::namespace;
use integration::wait::wait_until;

/// Addresses .1 to .7: the gateway, one excluded, one reserved, and four.
fn network(hold: &str) -> String {
    format!(
        "---\napiVersion: tidegate.dev/v1alpha1\nkind: Network\nmetadata: {{ name: small }}\nspec:\n  subnets:\n    \
         - {{ cidr: 10.7.0.0/29, gateway: 10.7.0.1, exclude: [ 10.7.0.2 ] }}\n  \
         reservations:\n    - {{ selector: {{ matchLabels: {{ app: db }} }}, addresses: [ 10.7.0.3 ] }}\n{hold}"
    )
}

fn stage(hold: &str) -> Site {
    let site = Site::start();
    site.netctl().apply(&(network(hold) + &namespace("shop", "small")));
    site
}

fn attached(site: &Site, name: &str, role: &str, labels: &[&str]) -> (Ipv4Addr, String) {
    let inside = site.world.namespace(role, None);
    let pod = site.attach_in("shop", name, inside, labels, &[]);
    (pod.v4, pod.mac.to_string())
}

fn shown(site: &Site, what: &str) -> u64 {
    site.netctl().json(&["get", "network", "small"])["status"][what].as_u64().expect("a number")
}

#[test]
fn a_workload_that_comes_again_has_its_address_again() {
    let mut site = stage("  leases: { hold: 1h }\n");
    let first = attached(&site, "web-1", "a", &[]);
    assert_eq!(first.0, Ipv4Addr::new(10, 7, 0, 4), "what is excluded and reserved is left out");
    let database = attached(&site, "db", "b", &["app=db"]);
    assert_eq!(database.0, Ipv4Addr::new(10, 7, 0, 3));
    let detach = |site: &Site, name: &str| drop(site.netctl().ok(&["detach", name, "-n", "shop"]));
    detach(&site, "web-1");
    assert_eq!((shown(&site, "used"), shown(&site, "held"), shown(&site, "total")), (1, 1, 4));

    // Others come meanwhile, and the daemon dies.
    let second = attached(&site, "web-2", "c", &[]);
    site.daemon.kill();
    site.daemon.restart();
    let third = attached(&site, "web-3", "d", &[]);
    assert_eq!((second.0, third.0), (Ipv4Addr::new(10, 7, 0, 5), Ipv4Addr::new(10, 7, 0, 6)));
    assert_eq!(attached(&site, "web-1", "e", &[]), first, "with its Ethernet address, which others remember");
    assert_eq!(shown(&site, "held"), 0);

    // Held addresses are given before nobody gets one, those that are held longest first.
    detach(&site, "web-3");
    detach(&site, "web-2");
    assert_eq!(attached(&site, "web-4", "f", &[]).0, third.0);
    assert_eq!(attached(&site, "web-2", "g", &[]), second);
    let full = site.netctl().run(&["attach", "web-5", "-n", "shop", "--netns", "/run/netns/none"]);
    assert!(full.stderr.contains("no free IPv4 address"), "{}", full.stderr);

    // What is reserved stays so, for as many as there are.
    let more = site.world.namespace("h", None);
    let path = more.path().to_str().expect("a path of the world is text");
    let said = site.netctl().run(&["attach", "db-2", "-n", "shop", "--netns", path, "--label", "app=db"]);
    assert!(said.stderr.contains("1 IPv4 addresses reserved, and all are used"), "{}", said.stderr);
    detach(&site, "db");
    let said = site.netctl().run(&["attach", "web-6", "-n", "shop", "--netns", path, "--address", "10.7.0.3"]);
    assert!(said.stderr.contains("reserved for other workloads"), "{}", said.stderr);
    let said = site.netctl().run(&["attach", "web-6", "-n", "shop", "--netns", path, "--address", "10.7.0.2"]);
    assert!(said.stderr.contains("it is excluded"), "{}", said.stderr);
    assert_eq!(attached(&site, "db-2", "i", &["app=db"]).0, database.0);
}

#[test]
fn what_is_held_is_over_in_time_and_with_its_network() {
    let site = stage("  leases: { hold: 1s }\n");
    attached(&site, "web-1", "a", &[]);
    site.netctl().ok(&["detach", "web-1", "-n", "shop"]);
    wait_until("its time is over", Duration::from_secs(15), || shown(&site, "held") == 0);
    site.netctl().apply(&network("  leases: { hold: 1h }\n"));
    let first = attached(&site, "web-1", "b", &[]);
    site.netctl().ok(&["detach", "web-1", "-n", "shop"]);
    assert_eq!(shown(&site, "held"), 1);
    site.netctl().apply(&network(""));
    wait_until("nothing is held any longer", Duration::from_secs(15), || shown(&site, "held") == 0);
    assert_ne!(attached(&site, "web-1", "c", &[]).0, first.0);
}
