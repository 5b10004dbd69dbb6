//! Past the node's stack: workloads with and without source NAT, where the node's own firewall forwards nothing.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use integration::manifests::{allow_cidrs, namespace, network, policy};
use integration::process::output_with_input;
use integration::site::{ECHO, OTHER};
use integration::traffic::{Connection, Target};
use integration::wait::wait_until;
use integration::world::World;
use integration::{Pod, Site};

const ECHO_PORT: u16 = 7;
const BOUND: Duration = Duration::from_secs(10);

/// `shop` without source NAT, `bank` with it; both may reach ECHO. Others' rules drop whatever is forwarded.
fn stage() -> (Site, Pod) {
    let site = Site::start();
    let networks = network("tenant-a", 100, "  egress: { snat: None }\n") + &network("tenant-b", 200, "");
    let namespaces = namespace("shop", "tenant-a") + &namespace("bank", "tenant-b");
    let echo = allow_cidrs(&["203.0.113.30/32", "2001:db8:113::30/128"], "");
    let policies = policy("shop", "echo", &echo) + &policy("bank", "echo", &echo);
    site.netctl().apply(&(networks + &namespaces + &policies));
    let web = site.attach("shop", "web-1", &[]);
    forward_nothing(&site);
    (site, web)
}

fn forward_nothing(site: &Site) {
    let rules = "table inet others { chain f { type filter hook forward priority 0; policy drop; }; }";
    let said = output_with_input(site.node.command("nft").args(["-f", "-"]), rules);
    assert!(said.success(), "nft: {}", said.stderr);
}

fn everything_runs(site: &Site, web: &Pod) {
    for protocol in ["tcp", "udp", "ping"] {
        for address in ECHO.both() {
            web.must_reach(Target::new(protocol, address, ECHO_PORT));
        }
    }
    OTHER.both().into_iter().for_each(|address| web.must_not_reach(Target::new("tcp", address, ECHO_PORT)));
    for address in [IpAddr::from(web.v4), web.v6.into()] {
        site.internet.namespace.must_not_reach(Target::new("ping", address, 0));
    }
}

fn open(web: &Pod) -> Vec<Connection> {
    ECHO.both().map(|address| web.open(SocketAddr::new(address, ECHO_PORT))).into()
}

#[test]
fn a_network_without_nat_needs_nothing_of_the_nodes_firewall() {
    let (site, web) = stage();
    everything_runs(&site, &web);
    let ledger = site.attach("bank", "ledger-1", &[]);
    ECHO.both().into_iter().for_each(|address| ledger.must_reach(Target::new("tcp", address, ECHO_PORT)));

    let status = site.netctl().json(&["status"]);
    let told = status["fastPath"].as_str().unwrap_or_default();
    assert!(told.contains("FORWARD rules") && told.contains("eth0"), "{status:#}");
    let doctor = site.netctl().run(&["doctor"]);
    assert!(doctor.stdout.contains("fast path: packets go past"), "{}", doctor.stdout);
    wait_until("the ways are counted", BOUND, || {
        let text = site.node.ok("curl -sS --max-time 5 http://127.0.0.1:9464/metrics");
        ["out", "in", "resolved"].iter().all(|way| {
            let line = format!("tidegate_fast_path_packets_total{{stack=\"skipped\",way=\"{way}\"}} ");
            text.lines().any(|found| found.strip_prefix(&line).is_some_and(|count| count != "0"))
        })
    });
}

#[test]
fn switched_off_it_is_the_nodes_firewall_that_decides() {
    let settings =
        integration::daemon::Settings { more: "[egress]\nfast_path = false\n".to_owned(), ..Site::settings() };
    let site = Site::with(World::new(), settings);
    let more = network("tenant-a", 100, "  egress: { snat: None }\n") + &namespace("shop", "tenant-a");
    let echo = policy("shop", "echo", &allow_cidrs(&["203.0.113.30/32", "2001:db8:113::30/128"], ""));
    site.netctl().apply(&(more + &echo));
    let web = site.attach("shop", "web-1", &[]);
    ECHO.both().into_iter().for_each(|address| web.must_reach(Target::new("tcp", address, ECHO_PORT)));
    forward_nothing(&site);
    ECHO.both().into_iter().for_each(|address| web.must_not_reach(Target::new("tcp", address, ECHO_PORT)));
    assert_eq!(site.netctl().json(&["status"])["fastPath"], "off by `[egress] fast_path`");
}

#[test]
fn a_node_with_ipsec_policies_keeps_its_packets_in_the_stack() {
    let site = Site::start();
    let more = network("tenant-a", 100, "  egress: { snat: None }\n") + &namespace("shop", "tenant-a");
    site.netctl()
        .apply(&(more + &policy("shop", "echo", &allow_cidrs(&["203.0.113.30/32", "2001:db8:113::30/128"], ""))));
    let web = site.attach("shop", "web-1", &[]);
    let told = |part: &str| {
        let status = site.netctl().json(&["status"]);
        status["fastPath"].as_str().is_some_and(|told| told.contains(part))
    };
    web.must_reach(Target::new("tcp", ECHO.v4(), ECHO_PORT));
    assert!(told("to and from eth0"));
    site.node.ip("xfrm policy add src 10.100.0.0/24 dst 203.0.113.0/24 dir out action block");
    wait_until("the fast path is off", BOUND, || told("IPsec"));
    web.must_not_reach(Target::new("tcp", ECHO.v4(), ECHO_PORT));
    web.must_reach(Target::new("tcp", ECHO.v6(), ECHO_PORT));
    site.node.ip("xfrm policy flush");
    wait_until("the fast path is on", BOUND, || told("to and from eth0"));
    web.must_reach(Target::new("tcp", ECHO.v4(), ECHO_PORT));
}

#[test]
fn a_killed_daemon_leaves_it_running_and_nothing_stale() {
    let (mut site, web) = stage();
    let mut flows = open(&web);
    flows.iter_mut().for_each(Connection::must_echo);
    site.daemon.kill();
    flows.iter_mut().for_each(Connection::must_echo);
    everything_runs(&site, &web);
    let retransmitted = web.counter("Tcp", "RetransSegs");
    site.daemon.restart();
    flows.iter_mut().for_each(Connection::must_echo);
    assert_eq!(web.counter("Tcp", "RetransSegs"), retransmitted, "segments of open flows were lost");

    // the next hop moves to another MAC while nobody watches, and says so as a taking-over router does
    site.daemon.kill();
    another_mac(&site);
    flows.iter_mut().for_each(Connection::must_echo);
    everything_runs(&site, &web);
}

/// The internet's router gets another MAC and announces it.
fn another_mac(site: &Site) {
    let internet = &site.internet.namespace;
    internet.sysctl("ipv4/conf/eth0/arp_notify", "1");
    internet.sysctl("ipv6/conf/eth0/ndisc_notify", "1");
    internet.ip("link set eth0 address 02:fa:ce:00:00:99");
    // what the kernel announces only when the link comes up
    internet.ip("link set eth0 down");
    internet.ip("link set eth0 up");
    internet.ip("-6 addr replace 2001:db8:ff::1/64 dev eth0 nodad");
    internet.ip("route replace 10.0.0.0/8 via 192.0.2.2");
    internet.ip("-6 route replace fd00::/8 via 2001:db8:ff::2");
}

#[test]
fn it_follows_routes_and_next_hops() {
    let (site, web) = stage();
    let mut flows = open(&web);
    flows.iter_mut().for_each(Connection::must_echo);
    another_mac(&site);
    flows.iter_mut().for_each(Connection::must_echo);

    // by another device the node's firewall has its say, and it forwards nothing
    site.world.link((&site.internet.namespace, "side0"), (&site.node, "side0"));
    site.internet.namespace.ip_lines(["addr add 192.0.3.1/24 dev side0"]);
    site.node.ip_lines(["addr add 192.0.3.2/24 dev side0", "route add 203.0.113.30/32 via 192.0.3.1"]);
    assert!(!flows[0].echoes_within(Duration::from_millis(600)), "it goes on by the old route");
    flows[1].must_echo();
    site.node.ip("route del 203.0.113.30/32");
    web.must_reach(Target::new("tcp", ECHO.v4(), ECHO_PORT));

    // no way at all is said to the workload by ICMP, as a router does
    site.node.ip("route add unreachable 203.0.113.30/32");
    wait_until("unreachable is told", BOUND, || {
        let target = Target::new("tcp", ECHO.v4(), ECHO_PORT);
        web.attempt(target, Duration::from_millis(300)) == integration::traffic::Outcome::Prohibited
    });
}

#[test]
fn what_somebody_takes_from_the_uplink_is_put_back() {
    let (site, web) = stage();
    everything_runs(&site, &web);
    let pins = site.world.bpffs().join("v5/links");
    let pin = std::fs::read_dir(&pins).into_iter().flatten().flatten().map(|entry| entry.path());
    match pin.into_iter().find(|path| path.to_string_lossy().ends_with("from_uplink")) {
        Some(pin) => std::fs::remove_file(pin).expect("a pin can be removed"),
        None => drop(site.node.ok("tc qdisc del dev eth0 clsact")),
    }
    wait_until("it runs again", BOUND, || {
        let target = Target::new("tcp", ECHO.v4(), ECHO_PORT);
        web.attempt(target, Duration::from_millis(300)) == integration::traffic::Outcome::Reached
    });
    everything_runs(&site, &web);
}
