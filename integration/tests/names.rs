//! Names: what a workload may look up, and what a lookup opens, for whom and until when.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use integration::manifests::{name_rule, network, policy, two_tenants};
use integration::peers::query::{Carrier, Kind, ask};
use integration::site::{API, CDN, DNS, ECHO, FORBIDDEN, MANY, Web};
use integration::sys::process::Signal;
use integration::traffic::Target;
use integration::wait::{patience, wait_until};
use integration::{Pod, Site, kernel};

const ECHO_PORT: u16 = 7;
const TCP_ECHO: &str = "[ { protocol: TCP, port: 7 }, { protocol: TCP, port: 9 } ]";
const NO_SUCH_NAME: u8 = 3;
const SERVER_FAILURE: u8 = 2;

/// `shop` may reach the API, the CDN by its alias, and everything below `many`, on the echo ports.
fn shop_policy() -> String {
    let names = ["api.example.com", "cdn.example.com", "*.many.example.com", "big.example.com", "brief.example.com"];
    policy(
        "shop",
        "shop-egress",
        &format!("  allow:\n{}    - resolve: [\"alias.example.com\"]\n", name_rule(&names, TCP_ECHO)),
    )
}

fn site_with_pod() -> (Site, Pod) {
    let site = Site::start();
    site.netctl().apply(&(two_tenants() + &shop_policy()));
    let web = site.attach("shop", "web-1", &["app=web"]);
    (site, web)
}

#[test]
fn an_allowed_name_opens_its_addresses_and_its_ports() {
    let (_site, web) = site_with_pod();
    for (kind, address) in [(Kind::A, API.v4()), (Kind::Aaaa, API.v6())] {
        web.must_not_reach(Target::new("tcp", address, ECHO_PORT));
        assert_eq!(web.look_up(DNS.v4(), "api.example.com", kind), address);
        web.must_reach(Target::new("tcp", address, ECHO_PORT));
        web.must_not_reach(Target::new("udp", address, ECHO_PORT));
        web.must_not_reach(Target::new("tcp", address, 80));
    }
}

#[test]
fn another_name_of_the_address_is_no_help_and_names_below_an_apex_are_not_the_apex() {
    let (_site, web) = site_with_pod();
    for name in ["shared.example.com", "blocked.example.com", "many.example.com", "nothing.example.com"] {
        let answer = web.ask(DNS.v4(), name, Kind::A, Carrier::Udp).expect("an answer");
        assert_eq!((answer.code, answer.addresses.len()), (NO_SUCH_NAME, 0), "{name}");
    }
    web.must_not_reach(Target::new("tcp", API.v4(), ECHO_PORT));
    // May be looked up, opens nothing; and an alias of a name that is not allowed is answered, since the alias is.
    let resolved = web.look_up(DNS.v4(), "alias.example.com", Kind::A);
    assert_eq!(resolved, FORBIDDEN.v4());
    web.must_not_reach(Target::new("tcp", resolved, ECHO_PORT));
}

#[test]
fn a_refused_name_is_prohibited_and_the_search_list_goes_on() {
    let (site, web) = site_with_pod();
    for carrier in ["+notcp", "+tcp"] {
        let said = web.ok(&format!("dig @{} blocked.example.com {carrier} +time=3 +tries=1", DNS.v4()));
        assert!(said.contains("status: NXDOMAIN"), "{said}");
        assert!(said.contains("EDE: 18 (Prohibited)"), "{said}");
        assert!(said.contains("SOA"), "a negative answer says how long it may be kept: {said}");
    }
    // ndots:5 tries the search list first; a refusal there must not end the walk.
    let resolv_conf = format!("nameserver {}\nsearch corp.invalid internal.invalid\noptions ndots:5\n", DNS.v4());
    std::fs::write(std::path::Path::new("/etc/netns").join(web.name()).join("resolv.conf"), resolv_conf).unwrap();
    let said = web.ok("getent ahostsv4 api.example.com");
    assert!(said.starts_with(&API.v4().to_string()), "{said}");
    let asked = site.internet.unbound.questions();
    assert!(!asked.iter().any(|line| line.contains("blocked") || line.contains("invalid")), "never left: {asked:?}");
}

#[test]
fn aliases_are_followed_whole() {
    let (_site, web) = site_with_pod();
    assert_eq!(web.look_up(DNS.v4(), "cdn.example.com", Kind::A), CDN.v4());
    web.must_reach(Target::new("tcp", CDN.v4(), ECHO_PORT));
    let said = web.ok(&format!("dig @{} cdn.example.com +noall +answer", DNS.v4()));
    assert!(said.contains("edge.cdn-provider.net.") && said.contains("pop1.cdn-provider.net."), "{said}");
    let direct = web.ask(DNS.v4(), "pop1.cdn-provider.net", Kind::A, Carrier::Udp).expect("an answer");
    assert_eq!(direct.code, NO_SUCH_NAME, "the target of an alias is not itself allowed");
}

#[test]
fn whatever_server_is_asked_by_whatever_carrier_the_gateway_answers() {
    let (_site, web) = site_with_pod();
    let servers: [IpAddr; 5] =
        [DNS.v4(), DNS.v6(), "8.8.8.8".parse().unwrap(), "10.100.0.1".parse().unwrap(), "2620:fe::fe".parse().unwrap()];
    for server in servers {
        for carrier in [Carrier::Udp, Carrier::Tcp] {
            let answer = web.ask(server, "api.example.com", Kind::A, carrier);
            assert_eq!(answer.unwrap_or_else(|| panic!("{server} by {carrier:?}")).addresses, [API.v4()]);
        }
    }
    let big = |carrier| web.ask(DNS.v4(), "big.example.com", Kind::A, carrier).expect("an answer");
    let datagram = big(Carrier::Udp);
    assert!(datagram.truncated && datagram.length <= 1232, "{datagram:?}");
    let whole = big(Carrier::Tcp);
    assert_eq!(whole.addresses.len(), 120);
    web.must_reach(Target::new("tcp", whole.addresses[119], 9));
}

#[test]
fn another_pods_lookup_opens_nothing() {
    let (site, web) = site_with_pod();
    let web_2 = site.attach("shop", "web-2", &["app=web"]);
    let target = Target::new("tcp", web.look_up(DNS.v4(), "api.example.com", Kind::A), ECHO_PORT);
    web.must_reach(target);
    web_2.must_not_reach(target);
    web_2.look_up(DNS.v4(), "api.example.com", Kind::A);
    web_2.must_reach(target);
}

#[test]
fn each_lookup_followed_at_once_by_a_connection_loses_no_syn() {
    let (_site, web) = site_with_pod();
    let count = if std::env::var_os("TIDEGATE_LONG").is_some() { 254 } else { 120 };
    let [a, b, c] = MANY;
    let before = web.counter("TcpExt", "TCPSynRetrans");
    web.enter(|| {
        for number in 1..=count {
            let answer =
                ask(DNS.v4(), &format!("n{number}.many.example.com"), Kind::A, Carrier::Udp).expect("an answer");
            assert_eq!(answer.addresses, [IpAddr::from([a, b, c, number])]);
            let to = SocketAddr::new(answer.addresses[0], 9);
            TcpStream::connect_timeout(&to, Duration::from_secs(5) * patience()).expect("a connection");
        }
    });
    assert_eq!(web.counter("TcpExt", "TCPSynRetrans"), before, "SYNs were lost");
}

#[test]
fn a_dead_upstream_is_a_server_failure_and_cuts_nothing() {
    let (site, web) = site_with_pod();
    web.look_up(DNS.v4(), "api.example.com", Kind::A);
    let mut connection = web.open((API.v4(), ECHO_PORT).into());
    connection.must_echo();
    site.internet.unbound.process().signal(Signal::Stop);
    let mut code = None;
    wait_until("an answer although the upstream is dead", Duration::from_secs(30), || {
        code = web.ask(DNS.v4(), "n1.many.example.com", Kind::A, Carrier::Udp).map(|answer| answer.code);
        code.is_some()
    });
    assert_eq!(code, Some(SERVER_FAILURE));
    connection.must_echo();
    web.must_reach(Target::new("tcp", API.v4(), ECHO_PORT));
    site.internet.unbound.process().signal(Signal::Continue);
}

#[test]
fn a_name_taken_out_of_the_policy_ends_its_flows_and_its_addresses() {
    let (site, web) = site_with_pod();
    web.look_up(DNS.v4(), "api.example.com", Kind::A);
    web.look_up(DNS.v4(), "cdn.example.com", Kind::A);
    let mut cut = web.open((API.v4(), ECHO_PORT).into());
    let mut spared = web.open((CDN.v4(), ECHO_PORT).into());
    cut.must_echo();
    spared.must_echo();
    site.netctl().apply(&policy(
        "shop",
        "shop-egress",
        &format!("  allow:\n{}", name_rule(&["cdn.example.com"], TCP_ECHO)),
    ));
    assert!(!cut.echoes_within(Duration::from_millis(600)), "a flow outlives the name that allowed it");
    spared.must_echo();
    web.must_not_reach(Target::new("tcp", API.v4(), ECHO_PORT));
    web.must_reach(Target::new("tcp", CDN.v4(), ECHO_PORT));
}

#[test]
fn a_flow_outlives_its_answer_and_new_flows_do_not() {
    let (_site, web) = site_with_pod();
    assert_eq!(web.look_up(DNS.v4(), "brief.example.com", Kind::A), ECHO.v4());
    let mut connection = web.open((ECHO.v4(), ECHO_PORT).into());
    connection.must_echo();
    let bound = Duration::from_secs(90);
    wait_until("the answer's time is over", bound, || {
        web.attempt(Target::new("tcp", ECHO.v4(), ECHO_PORT), Duration::from_millis(500))
            == integration::traffic::Outcome::Refused
    });
    connection.must_echo();
}

/// As [`site_with_pod`], where a router of the segment routes.
fn external_site_with_pod() -> (Site, Pod) {
    let site = Site::start();
    let external = network("tenant-a", 100, "")
        .replace("gateway: Node", "gateway: External")
        .replace("10.100.0.1", "10.100.0.254");
    let namespace = integration::manifests::namespace("shop", "tenant-a");
    site.netctl().apply(&(external + &namespace + &shop_policy()));
    let web = site.attach("shop", "web-1", &[]);
    (site, web)
}

#[test]
fn a_verified_flow_goes_on_to_the_segments_own_router() {
    let (site, web) = external_site_with_pod();
    let _router = router_on_the_bridge(&site);
    let servers = Web::start(&site.world, &site.internet.namespace);
    let verified = "  allow:\n    - dnsNames: [api.example.com]\n      ports: [ { protocol: TCP, port: 443 } ]\n";
    site.netctl().apply(&policy("shop", "verified", verified));
    let authority = servers.authority.certificate();
    let curl = |words: &str| web.run(&format!("curl -sS -4 --max-time 15 --cacert {} {words}", authority.display()));
    let said = curl("https://api.example.com/");
    assert!(said.success(), "{said:?}");
    let other = curl(&format!("--resolve shared.example.com:443:{} https://shared.example.com/", API.v4()));
    assert!(!other.success() && other.stderr.contains("reset"), "{other:?}");
}

#[test]
fn dns_works_where_a_router_of_the_segment_routes_and_the_bridge_has_no_address() {
    let (site, web) = external_site_with_pod();
    let router = router_on_the_bridge(&site);
    for server in [DNS.v4(), DNS.v6()] {
        for carrier in [Carrier::Udp, Carrier::Tcp] {
            let answer = web.ask(server, "api.example.com", Kind::A, carrier);
            assert_eq!(answer.unwrap_or_else(|| panic!("{server} by {carrier:?}")).addresses, [API.v4()]);
        }
    }
    web.must_reach(Target::new("tcp", API.v4(), ECHO_PORT));
    web.must_not_reach(Target::new("tcp", FORBIDDEN.v4(), ECHO_PORT));
    let bridge = bridge_of(&site);
    let addresses = site.node.ip_json(&format!("-4 addr show dev {bridge}"));
    let has_address =
        addresses.as_array().is_some_and(|links| links.iter().any(|link| link["addr_info"][0].is_object()));
    assert!(!has_address, "the bridge of an External network has no address: {addresses}");
    drop(router);
}

#[test]
fn dns_works_with_bridge_netfilter_strict_reverse_paths_and_a_foreign_firewall() {
    if !kernel::has_bridge_netfilter() {
        return kernel::skip(
            "dns_works_with_bridge_netfilter_strict_reverse_paths_and_a_foreign_firewall",
            "no br_netfilter",
        );
    }
    let (site, web) = site_with_pod();
    for family in ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables", "bridge-nf-call-arptables"] {
        site.node.sysctl(&format!("bridge/{family}"), "1");
    }
    site.node.sysctl("ipv4/conf/all/rp_filter", "1");
    let rules = "table inet foreign { chain input { type filter hook input priority -10; udp dport 53 drop; tcp dport 53 drop; }; }";
    let said = integration::process::output_with_input(site.node.command("nft").args(["-f", "-"]), rules);
    assert!(said.success(), "{}", said.stderr);
    for carrier in [Carrier::Udp, Carrier::Tcp] {
        for kind in [Kind::A, Kind::Aaaa] {
            let answer = web.ask(DNS.v4(), "api.example.com", kind, carrier);
            assert_eq!(answer.unwrap_or_else(|| panic!("by {carrier:?}")).addresses.len(), 1);
        }
    }
    API.both().into_iter().for_each(|address| web.must_reach(Target::new("tcp", address, ECHO_PORT)));
}

/// The one bridge of the node.
fn bridge_of(site: &Site) -> String {
    let bridges = site.node.ip_json("link show type bridge");
    bridges[0]["ifname"].as_str().expect("a bridge of the network").to_owned()
}

/// A router of the segment, plugged into the node's bridge as the switch's port would be, with the internet behind it.
fn router_on_the_bridge(site: &Site) -> integration::namespace::Namespace {
    let router = site.world.namespace("router", None);
    site.world.link((&router, "segment"), (&site.node, "foreign0"));
    site.node.ip(&format!("link set foreign0 master {}", bridge_of(site)));
    site.world.link((&router, "uplink"), (&site.internet.namespace, "router0"));
    router.ip_lines([
        "addr add 10.100.0.254/24 dev segment",
        "addr add fd00:100::1/64 dev segment nodad",
        "addr add 192.0.3.2/24 dev uplink",
        "addr add 2001:db8:fe::2/64 dev uplink nodad",
        "route add default via 192.0.3.1",
        "route add default via 2001:db8:fe::1",
    ]);
    router.sysctl("ipv4/ip_forward", "1");
    router.sysctl("ipv6/conf/all/forwarding", "1");
    site.internet.namespace.ip_lines([
        "addr add 192.0.3.1/24 dev router0",
        "addr add 2001:db8:fe::1/64 dev router0 nodad",
        "route add 10.100.0.0/24 via 192.0.3.2",
        "route add fd00:100::/64 via 2001:db8:fe::2",
    ]);
    router
}
