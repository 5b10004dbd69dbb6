//! NetworkPolicies as Kubernetes has them, by real connections between workloads of one node: the well-known recipes.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use integration::capture::Capture;
use integration::frame::{Mac, ethernet, udp};
use integration::manifests::{network, network_policy, open_namespace};
use integration::peers::query::{Carrier, Kind};
use integration::site::{DNS, ECHO};
use integration::traffic::Target;
use integration::wait::wait_until;
use integration::{Pod, Site};

const PATIENCE: Duration = Duration::from_secs(10);

/// Two namespaces, one network each, routed by the node; everything is open.
fn open_site() -> Site {
    let site = Site::start();
    site.netctl().apply(
        &(network("tenant-a", 100, "")
            + &network("tenant-b", 200, "")
            + &open_namespace("shop", "tenant-a")
            + &open_namespace("bank", "tenant-b")),
    );
    site
}

fn echoes(pod: &Pod, port: u16) -> [SocketAddr; 2] {
    both(pod).map(|address| SocketAddr::new(address, port))
}

fn both(pod: &Pod) -> [IpAddr; 2] {
    [pod.v4.into(), pod.v6.into()]
}

fn must(from: &Pod, to: &Pod, protocol: &str, port: u16) {
    both(to).into_iter().for_each(|address| from.must_reach(Target::new(protocol, address, port)));
}

fn must_not(from: &Pod, to: &Pod, protocol: &str, port: u16) {
    both(to).into_iter().for_each(|address| from.must_not_reach(Target::new(protocol, address, port)));
}

#[test]
fn ingress_is_opened_by_selectors_and_named_ports_and_ends_with_its_peers() {
    let site = open_site();
    let namespace = site.world.namespace("shop-web-1", Some(&DNS.v4().to_string()));
    let web = site.attach_in("shop", "web-1", namespace, &["app=web"], &["http=8080/TCP"]);
    let jobs = site.attach("shop", "jobs-1", &["app=jobs"]);
    let monitor = site.attach("bank", "monitor-1", &["type=monitoring"]);
    let vault = site.attach("bank", "vault-1", &[]);
    let listeners: Vec<_> = [8080, 9000].into_iter().flat_map(|port| echoes(&web, port)).collect();
    let _servers = web.echo_server(&listeners);
    must(&jobs, &web, "tcp", 9000);
    must(&vault, &web, "tcp", 9000);
    for address in both(&web) {
        site.node.must_not_reach(Target::new("tcp", address, 9000));
    }

    // Deny all to web; then jobs by the port's name, and monitoring of another namespace.
    site.netctl().apply(&network_policy("shop", "web-deny-all", "  podSelector: { matchLabels: { app: web } }\n"));
    must_not(&jobs, &web, "tcp", 9000);
    must_not(&jobs, &web, "udp", 9000);
    must(&web, &jobs, "ping", 0);
    site.netctl().apply(&network_policy(
        "shop",
        "web-allow",
        "  podSelector: { matchLabels: { app: web } }
  ingress:
    - from: [ { podSelector: { matchExpressions: [ { key: app, operator: In, values: [ jobs, admin ] } ] } } ]
      ports: [ { port: http } ]
    - from:
        - namespaceSelector: { matchLabels: { kubernetes.io/metadata.name: bank } }
          podSelector: { matchLabels: { type: monitoring } }
      ports: [ { port: 9000 } ]
",
    ));
    must(&jobs, &web, "tcp", 8080);
    must_not(&jobs, &web, "tcp", 9000);
    must(&monitor, &web, "tcp", 9000);
    must_not(&monitor, &web, "tcp", 8080);
    must_not(&vault, &web, "tcp", 9000);
    // The kubelet's probes, as Kubernetes expects.
    for address in both(&web) {
        site.node.must_reach(Target::new("tcp", address, 9000));
    }

    let from = |pod: &Pod, port: u16| {
        let to = format!("{}:{port}", web.v4);
        site.netctl().run(&["explain", "--from", &pod.full_name(), "--to", &to])
    };
    let said = from(&jobs, 8080);
    assert!(said.success(), "{said:?}");
    let said = from(&vault, 9000);
    let text = &said.stdout;
    assert!(
        !said.success() && text.contains("the NetworkPolicies `web-allow`, `web-deny-all` isolate the workload"),
        "{text}"
    );

    // A peer that goes takes what it had with it: a newcomer of another sort does not inherit it.
    let mut open = monitor.open(SocketAddr::new(web.v4.into(), 9000));
    open.must_echo();
    site.netctl().ok(&["detach", "jobs-1", "-n", "shop"]);
    let other = site.attach("shop", "other-1", &["app=other"]);
    must_not(&other, &web, "tcp", 8080);
    open.must_echo();
    site.netctl().ok(&["delete", "networkpolicy", "web-allow", "-n", "shop"]);
    wait_until("the open connection ended", PATIENCE, || !open.echoes_within(Duration::from_millis(500)));
}

#[test]
fn egress_is_what_rules_say_and_dns_is_a_port() {
    let site = open_site();
    let foo = site.attach("shop", "foo-1", &["app=foo"]);
    let vault = site.attach("bank", "vault-1", &["app=vault"]);
    let _server = vault.echo_server(&echoes(&vault, 7).into_iter().chain(echoes(&vault, 8)).collect::<Vec<_>>());
    let looks_up = |name: &str| foo.ask(DNS.v4(), name, Kind::A, Carrier::Udp).is_some_and(|answer| answer.code == 0);
    foo.must_reach(Target::new("tcp", ECHO.v4(), 7));
    assert!(looks_up("api.example.com"));

    let deny = "  podSelector: { matchLabels: { app: foo } }\n  policyTypes: [ Egress ]\n";
    site.netctl().apply(&network_policy("shop", "foo-deny-egress", deny));
    ECHO.both().into_iter().for_each(|address| foo.must_not_reach(Target::new("tcp", address, 7)));
    must_not(&foo, &vault, "tcp", 7);
    must(&vault, &foo, "ping", 0);
    assert!(!looks_up("api.example.com"), "a lookup is a connection too");

    let rules = "  egress:
    - ports: [ { port: 53, protocol: UDP }, { port: 53, protocol: TCP } ]
    - to: [ { namespaceSelector: {}, podSelector: { matchLabels: { app: vault } } } ]
      ports: [ { port: 7 }, { port: 7, protocol: UDP } ]
";
    site.netctl().apply(&network_policy("shop", "foo-deny-egress", &format!("{deny}{rules}")));
    assert!(looks_up("api.example.com"));
    must(&foo, &vault, "tcp", 7);
    must(&foo, &vault, "udp", 7);
    must_not(&foo, &vault, "tcp", 8);
    ECHO.both().into_iter().for_each(|address| foo.must_not_reach(Target::new("tcp", address, 7)));
    let names = site.netctl().ok(&["get", "networkpolicies", "-A", "-o", "name"]);
    assert_eq!(names.trim(), "networkpolicy/shop/foo-deny-egress");
    let rule = "networkpolicy/shop/foo-deny-egress egress[1]";
    let flows = site.netctl().flows(&["-n", "shop"]);
    assert!(flows.iter().any(|flow| flow["rule"] == rule), "{flows:?}");
}

#[test]
fn a_peers_address_from_elsewhere_is_no_peer() {
    let site = open_site();
    let web = site.attach("shop", "web-1", &["app=web"]);
    let jobs = site.attach("shop", "jobs-1", &["app=jobs"]);
    site.netctl().apply(&network_policy(
        "shop",
        "web-from-jobs",
        "  podSelector: { matchLabels: { app: web } }
  ingress:
    - from:
        - podSelector: { matchLabels: { app: jobs } }
        - ipBlock: { cidr: 203.0.113.0/24 }
        - ipBlock: { cidr: \"2001:db8:113::/64\" }
",
    ));
    let internet = &site.internet.namespace;
    let uplink = site.node.ip_json("link show dev eth0")[0]["address"].as_str().and_then(|text| text.parse().ok());
    let uplink: Mac = uplink.expect("the uplink's MAC");
    let seen = Capture::start(&web, Pod::INTERFACE);
    let honest = [ECHO.v4(), ECHO.v6()];
    for ((to, peer), host) in both(&web).into_iter().zip(both(&jobs)).zip(honest) {
        let kind = if to.is_ipv4() { 0x0800 } else { 0x86dd };
        let send = |from: IpAddr, marker: &str| {
            let packet = udp((from, 4000), (to, 9000), marker.as_bytes());
            internet.send_frame("eth0", &ethernet(uplink, Mac([2, 0, 0, 0, 9, 9]), kind, &packet));
        };
        send(host, &format!("from-a-block-{kind:x}"));
        seen.must_see(format!("from-a-block-{kind:x}").as_bytes());
        send(peer, &format!("as-a-peer-{kind:x}"));
        seen.must_not_see(format!("as-a-peer-{kind:x}").as_bytes(), Duration::from_millis(400));
    }
}
