//! What a workload may send and what may reach it: by address, port, protocol and family, both directions.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use integration::manifests::{allow_cidrs, cidr_rule, policy, two_tenants};
use integration::site::{API, ECHO, FORBIDDEN, Host, NODE4, NODE6, OTHER};
use integration::traffic::Target;
use integration::wait::wait_until;
use integration::{Pod, Site};

const ECHO_PORT: u16 = 7;

fn cidrs(host: Host) -> [String; 2] {
    [format!("{}/32", host.v4()), format!("{}/128", host.v6())]
}

fn refs(texts: &[String]) -> Vec<&str> {
    texts.iter().map(String::as_str).collect()
}

/// Both families of a target.
fn both(protocol: &str, host: Host, port: u16) -> [Target; 2] {
    host.both().map(|address| Target::new(protocol, address, port))
}

/// `shop` may reach the echo host on port 7 by TCP and UDP, `api`'s address by everything, and not port 80 of it.
fn shop_policy() -> String {
    let deny = format!("  deny:\n{}", cidr_rule(&refs(&cidrs(API)), "[ { protocol: TCP, port: 80 } ]"));
    let ports = "[ { protocol: TCP, port: 7 }, { protocol: UDP, port: 7 } ]";
    let allow = allow_cidrs(&refs(&cidrs(ECHO)), ports) + &cidr_rule(&refs(&cidrs(API)), "");
    policy("shop", "shop-egress", &(deny + &allow))
}

#[test]
fn only_what_is_named_is_reached_in_both_families() {
    let site = Site::start();
    site.netctl().apply(&(two_tenants() + &shop_policy()));
    let web = site.attach("shop", "web-1", &["app=web"]);
    let ledger = site.attach("bank", "ledger-1", &[]);

    for protocol in ["tcp", "udp"] {
        for target in both(protocol, ECHO, ECHO_PORT).into_iter().chain(both(protocol, API, ECHO_PORT)) {
            web.must_reach(target);
            ledger.must_not_reach(target);
        }
        for target in both(protocol, ECHO, 70).into_iter().chain(both(protocol, OTHER, ECHO_PORT)) {
            web.must_not_reach(target);
        }
    }
    // A rule with ports speaks of TCP and UDP; one without speaks of every protocol.
    for target in both("ping", API, 0) {
        web.must_reach(target);
        ledger.must_not_reach(target);
    }
    for target in both("ping", ECHO, 0).into_iter().chain(both("tcp", API, 80)) {
        web.must_not_reach(target);
    }

    let denied = site.netctl().flows(&["--verdict", "denied", "-n", "shop"]);
    let of_rule =
        |rule: &str| denied.iter().any(|flow| flow["rule"].as_str().is_some_and(|found| found.contains(rule)));
    assert!(of_rule("shop-egress deny[0]"), "a denied flow names its rule: {denied:#?}");
    assert!(denied.iter().any(|flow| flow["reason"] == "denied-by-default"), "{denied:#?}");
}

#[test]
fn echo_is_allowed_by_itself() {
    let site = Site::start();
    let ports = "[ { protocol: ICMP, type: 8, code: 0 }, { protocol: ICMPv6 } ]";
    let rules = allow_cidrs(&refs(&cidrs(ECHO)), ports);
    site.netctl().apply(&(two_tenants() + &policy("shop", "shop-egress", &rules)));
    let web = site.attach("shop", "web-1", &[]);
    for target in both("ping", ECHO, 0) {
        web.must_reach(target);
    }
    for target in both("tcp", ECHO, ECHO_PORT).into_iter().chain(both("ping", OTHER, 0)) {
        web.must_not_reach(target);
    }
    let explain = |to: IpAddr| {
        let to = to.to_string();
        site.netctl().run(&["explain", "--from", "shop/web-1", "--to", &to, "--proto", "icmp"]).status
    };
    assert_eq!(ECHO.both().map(explain), [0, 0]);
    assert_eq!(OTHER.both().map(explain), [3, 3]);
}

#[test]
fn nobody_reaches_a_workload_unasked() {
    let site = Site::start();
    let everything = allow_cidrs(&["0.0.0.0/0", "::/0"], "");
    let policies = policy("shop", "all", &everything) + &policy("bank", "all", &everything);
    site.netctl().apply(&(two_tenants() + &policies));
    let web = site.attach("shop", "web-1", &[]);
    let web_2 = site.attach("shop", "web-2", &[]);
    let ledger = site.attach("bank", "ledger-1", &[]);
    let addresses = [IpAddr::from(web.v4), IpAddr::from(web.v6)];
    let _server = web.echo_server(&addresses.map(|address| SocketAddr::new(address, ECHO_PORT)));

    for address in addresses {
        for protocol in ["tcp", "udp", "ping"] {
            let target = Target::new(protocol, address, ECHO_PORT);
            ledger.must_not_reach(target);
            site.internet.namespace.must_not_reach(target);
            site.node.must_not_reach(target);
            // `workloadTraffic: Open` is the network's default.
            web_2.must_reach(target);
        }
    }
    // Its own flows' answers do come.
    both("tcp", ECHO, ECHO_PORT).into_iter().for_each(|target| web.must_reach(target));
}

#[test]
fn workloads_of_an_isolated_network_do_not_meet() {
    let site = Site::start();
    let network = integration::manifests::network("tenant-a", 100, "  workloadTraffic: Isolated\n");
    let namespace = integration::manifests::namespace("shop", "tenant-a");
    let policies = policy("shop", "all", &allow_cidrs(&["0.0.0.0/0", "::/0"], ""));
    site.netctl().apply(&(network + &namespace + &policies));
    let web = site.attach("shop", "web-1", &[]);
    let web_2 = site.attach("shop", "web-2", &[]);
    let _server = web.echo_server(&[(web.v4, ECHO_PORT).into(), (web.v6, ECHO_PORT).into()]);
    for address in [IpAddr::from(web.v4), web.v6.into()] {
        web_2.must_not_reach(Target::new("tcp", address, ECHO_PORT));
        web_2.must_not_reach(Target::new("ping", address, 0));
    }
    both("tcp", ECHO, ECHO_PORT).into_iter().for_each(|target| web_2.must_reach(target));
}

#[test]
fn the_nodes_own_addresses_are_closed() {
    let site = Site::start();
    site.netctl().apply(&(two_tenants() + &policy("shop", "all", &allow_cidrs(&["0.0.0.0/0", "::/0"], ""))));
    let web = site.attach("shop", "web-1", &[]);
    let gateways: [IpAddr; 2] = ["10.100.0.1".parse().unwrap(), "fd00:100::1".parse().unwrap()];
    let other_gateways: [IpAddr; 2] = ["10.200.0.1".parse().unwrap(), "fd00:200::1".parse().unwrap()];
    let _server = site.node.echo_server(&[([0u16; 8], ECHO_PORT).into()]);
    for address in [IpAddr::from(NODE4), NODE6.into()].into_iter().chain(gateways).chain(other_gateways) {
        web.must_not_reach(Target::new("tcp", address, ECHO_PORT));
    }
    // What passes through the node is not what is of the node.
    both("tcp", ECHO, ECHO_PORT).into_iter().for_each(|target| web.must_reach(target));
}

#[test]
fn probes_open_workloads_to_their_own_node_only() {
    let mut settings = Site::settings();
    settings.probes = Some(true);
    let site = Site::with(integration::world::World::new(), settings);
    site.netctl().apply(&two_tenants());
    let web = site.attach("shop", "web-1", &[]);
    let _server = web.echo_server(&[(web.v4, ECHO_PORT).into(), (web.v6, ECHO_PORT).into()]);
    for address in [IpAddr::from(web.v4), web.v6.into()] {
        site.node.must_reach(Target::new("tcp", address, ECHO_PORT));
        site.internet.namespace.must_not_reach(Target::new("tcp", address, ECHO_PORT));
    }
}

#[test]
fn what_leaves_carries_the_nodes_address() {
    let site = Site::start();
    site.netctl().apply(&(two_tenants() + &shop_policy()));
    let web = site.attach("shop", "web-1", &[]);
    let capture = integration::capture::Capture::start(&site.internet.namespace, "eth0");
    let mut connection = web.open((ECHO.v4(), ECHO_PORT).into());
    connection.must_echo();
    let from = |address: [u8; 4]| capture.frames().iter().any(|seen| !seen.outgoing && seen.bytes[26..30] == address);
    wait_until("frames leave with the node's address", Duration::from_secs(5), || from(NODE4.octets()));
    assert!(!from(web.v4.octets()), "no frame leaves with the workload's address");
}

#[test]
fn a_narrowed_policy_ends_open_flows_and_spares_others() {
    let site = Site::start();
    site.netctl().apply(&(two_tenants() + &shop_policy()));
    let web = site.attach("shop", "web-1", &[]);
    let mut cut: Vec<_> = ECHO.both().map(|address| web.open((address, ECHO_PORT).into())).into();
    let mut spared: Vec<_> = API.both().map(|address| web.open((address, ECHO_PORT).into())).into();
    cut.iter_mut().chain(&mut spared).for_each(|connection| connection.must_echo());

    let narrowed = policy("shop", "shop-egress", &allow_cidrs(&refs(&cidrs(API)), ""));
    site.netctl().apply(&narrowed);

    for connection in &mut cut {
        assert!(
            !connection.echoes_within(Duration::from_millis(600)),
            "an open flow outlives the rule that allowed it"
        );
    }
    spared.iter_mut().for_each(|connection| connection.must_echo());
    wait_until("the end of a flow is told", Duration::from_secs(5), || {
        site.netctl().flows(&["-n", "shop"]).iter().any(|flow| flow["reason"] == "revoked")
    });
}

#[test]
fn a_widened_policy_opens_at_once_and_an_allow_default_needs_no_rule() {
    let site = Site::start();
    site.netctl().apply(&two_tenants());
    let web = site.attach("shop", "web-1", &[]);
    web.must_not_reach(Target::new("tcp", ECHO.v4(), ECHO_PORT));
    site.netctl().apply(&shop_policy());
    web.must_reach(Target::new("tcp", ECHO.v4(), ECHO_PORT));

    let open =
        integration::manifests::namespace("shop", "tenant-a").replace("tenant-a }", "tenant-a, egressDefault: Allow }");
    site.netctl().apply(&open);
    // A policy isolates, whatever the default.
    web.must_not_reach(Target::new("tcp", FORBIDDEN.v4(), ECHO_PORT));
    site.netctl().ok(&["delete", "egresspolicy", "shop-egress", "-n", "shop"]);
    web.must_reach(Target::new("tcp", FORBIDDEN.v4(), ECHO_PORT));
}

#[test]
fn a_selector_speaks_for_its_own_workloads_only() {
    let site = Site::start();
    let selected = integration::manifests::policy_for(
        "shop",
        "web-only",
        "{ matchLabels: { app: web } }",
        &allow_cidrs(&refs(&cidrs(ECHO)), ""),
    );
    site.netctl().apply(&(two_tenants() + &selected));
    let pods: [Pod; 2] = [site.attach("shop", "web-1", &["app=web"]), site.attach("shop", "job-1", &["app=job"])];
    both("tcp", ECHO, ECHO_PORT).into_iter().for_each(|target| {
        pods[0].must_reach(target);
        pods[1].must_not_reach(target);
    });
}

#[test]
fn a_detached_workload_leaves_nothing_to_the_next() {
    let site = Site::start();
    site.netctl().apply(&(two_tenants() + &shop_policy()));
    let before = site.node.ip_json("link");
    let web = site.attach("shop", "web-1", &["app=web"]);
    web.must_reach(Target::new("tcp", ECHO.v4(), ECHO_PORT));
    site.netctl().ok(&["detach", "web-1", "-n", "shop"]);
    let names = |links: &serde_json::Value| -> Vec<String> {
        let links = links.as_array().cloned().unwrap_or_default();
        links.iter().map(|link| link["ifname"].to_string()).collect()
    };
    wait_until("its link is gone", Duration::from_secs(5), || names(&site.node.ip_json("link")) == names(&before));
    let flows = site.netctl().flows(&["-n", "shop"]);
    assert!(!flows.iter().any(|flow| flow["event"] == "open"), "{flows:#?}");
}
