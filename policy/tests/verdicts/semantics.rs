//! What the design says of policies, case by case.

use std::collections::BTreeMap;

use config::resource::{
    ClusterEgressPolicy, Default as Fallback, EgressPolicy, Gateway, Network, Protocol, Snat, WorkloadTraffic,
};
use policy::reason::Reason;
use policy::{
    Decision, Grounds, Inbound, Listener, Model, Node, Origin, Outbound, Probes, Query, Resolve, Resolved, Shown,
    Target,
};

use crate::text::{app, dns, name, namespace, policy, subject};

/// The verdict for `shop`'s workload `app=web` under these policies; at time 100, with names as `name@expiry`.
fn egress(fallback: Fallback, policies: &[EgressPolicy], to: &str, names: &str) -> Decision {
    egress_under(&[], fallback, policies, to, names)
}

/// The same with policies of the admin tier.
pub(crate) fn egress_under(
    admin: &[ClusterEgressPolicy],
    fallback: Fallback,
    policies: &[EgressPolicy],
    to: &str,
    names: &str,
) -> Decision {
    shown_under(admin, fallback, policies, to, names, Shown::NotYet)
}

/// The same after its handshake was read.
pub(crate) fn shown_under(
    admin: &[ClusterEgressPolicy],
    fallback: Fallback,
    policies: &[EgressPolicy],
    to: &str,
    names: &str,
    shown: Shown<'_>,
) -> Decision {
    let shop = namespace("shop", fallback, Fallback::Deny);
    let node = node();
    let model = Model::new([&shop], [], policies, [], &node).with_cluster_policies(admin);
    let resolved: Vec<Resolved> = names
        .split_whitespace()
        .map(|word| word.split_once('@').unwrap())
        .map(|(name, expires)| Resolved { name: dns(name), expires: expires.parse().unwrap() })
        .collect();
    let from = subject("shop", "app=web");
    policy::decide(&model, &Query::From(Outbound { from: &from, to: target(to), resolved: &resolved, shown, now: 100 }))
}

pub(crate) fn node() -> Node {
    Node {
        addresses: ["10.100.0.1".parse().unwrap(), "192.0.2.1".parse().unwrap(), "fd00::1".parse().unwrap()].into(),
        listeners: [
            Listener { address: Some("192.0.2.1".parse().unwrap()), protocol: Protocol::Tcp, port: 443 },
            Listener { address: None, protocol: Protocol::Tcp, port: 8443 },
        ]
        .into(),
        probes: Probes::Never,
    }
}

/// `tcp 10.0.0.1 443`
fn target(text: &str) -> Target {
    let mut words = text.split_whitespace();
    let protocol = match words.next().unwrap() {
        "tcp" => 6,
        "udp" => 17,
        "sctp" => 132,
        "icmp" => 1,
        "icmpv6" => 58,
        other => other.parse().unwrap(),
    };
    let address = words.next().unwrap().parse().unwrap();
    let echo = match protocol {
        1 => Protocol::Icmp.echo(),
        58 => Protocol::Icmpv6.echo(),
        _ => None,
    };
    let port = words.next().map(|port| port.parse().unwrap());
    Target { address, protocol, port: echo.or(port).unwrap_or(0) }
}

/// Checks lines of `target | names | reason | rule`.
fn check(fallback: Fallback, policies: &[EgressPolicy], cases: &str) {
    check_under(&[], fallback, policies, cases);
}

/// The same with policies of the admin tier.
pub(crate) fn check_under(admin: &[ClusterEgressPolicy], fallback: Fallback, policies: &[EgressPolicy], cases: &str) {
    for case in cases.lines().map(str::trim).filter(|case| !case.is_empty()) {
        let columns: Vec<&str> = case.split('|').map(str::trim).collect();
        let [to, names, reason, rule] = columns[..] else { panic!("four columns: {case}") };
        let decision = egress_under(admin, fallback, policies, to, names);
        assert_eq!(decision.reason.word(), reason, "{case}: {}", decision.text);
        assert_eq!(decision.rule.as_ref().map(ToString::to_string).unwrap_or_default(), rule, "{case}");
        assert_eq!(decision.allowed, decision.reason.passes(), "{case}");
        let mended = !decision.allowed || decision.reason == Reason::Audited;
        assert_eq!(decision.mend.is_some(), mended, "{case}");
    }
}

#[test]
fn addresses_and_ports() {
    let rules = policy(
        "shop",
        "p",
        "",
        "deny 169.254.169.254/32
         deny 10.9.8.0/24 tcp/22
         allow 10.9.0.0/16 !10.9.9.0/24 tcp/443 udp/8000-8010
         allow 10.9.9.7/32
         allow fd00:9::/32 tcp/443 sctp/3868",
    );
    check(
        Fallback::Deny,
        &[rules],
        "tcp 10.9.0.1 443        | | allowed-by-cidr   | shop/p allow[0]
         tcp 10.9.0.1 444        | | denied-by-default |
         udp 10.9.0.1 443        | | denied-by-default |
         sctp 10.9.0.1 443       | | denied-by-default |
         sctp fd00:9::1 3868     | | allowed-by-cidr   | shop/p allow[2]
         tcp fd00:9::1 3868      | | denied-by-default |
         udp 10.9.0.1 7999       | | denied-by-default |
         udp 10.9.0.1 8000       | | allowed-by-cidr   | shop/p allow[0]
         udp 10.9.0.1 8010       | | allowed-by-cidr   | shop/p allow[0]
         udp 10.9.0.1 8011       | | denied-by-default |
         icmp 10.9.0.1           | | denied-by-default |
         tcp 10.9.9.1 443        | | denied-by-default |
         tcp 10.9.9.7 443        | | allowed-by-cidr   | shop/p allow[1]
         icmp 10.9.9.7           | | allowed-by-cidr   | shop/p allow[1]
         47 10.9.9.7             | | allowed-by-cidr   | shop/p allow[1]
         tcp 10.9.8.1 22         | | denied-by-cidr    | shop/p deny[1]
         tcp 10.9.8.1 443        | | allowed-by-cidr   | shop/p allow[0]
         icmp 169.254.169.254    | | denied-by-cidr    | shop/p deny[0]
         tcp fd00:9::1 443       | | allowed-by-cidr   | shop/p allow[2]
         tcp fd00:8::1 443       | | denied-by-default |
         tcp 10.10.0.1 443       | | denied-by-default |",
    );
}

#[test]
fn echo() {
    let rules = policy(
        "shop",
        "p",
        "",
        "deny 10.9.9.0/24 icmp/echo
         allow 10.9.0.0/16 icmp/echo tcp/80
         allow fd00:9::/32 icmpv6/echo
         allow ping.example icmp/echo",
    );
    check(
        Fallback::Deny,
        &[rules],
        "icmp 10.9.1.1      |                  | allowed-by-cidr   | shop/p allow[0]
         icmp 10.9.9.1      |                  | denied-by-cidr    | shop/p deny[0]
         tcp 10.9.9.1 80    |                  | allowed-by-cidr   | shop/p allow[0]
         tcp 10.9.1.1 2048  |                  | denied-by-default |
         icmpv6 fd00:9::1   |                  | allowed-by-cidr   | shop/p allow[1]
         tcp fd00:9::1 80   |                  | denied-by-default |
         icmp 203.0.113.1   | ping.example@101 | allowed-by-name   | shop/p allow[2]
         icmp 203.0.113.1   |                  | denied-by-default |
         47 10.9.1.1        |                  | denied-by-default |",
    );
}

#[test]
fn names() {
    let rules = policy(
        "shop",
        "p",
        "",
        "deny 203.0.113.9/32
         resolve *.corp.example
         allow api.example.com *.cdn.example.com tcp/443
         allow *.example.com tcp/80",
    );
    check(
        Fallback::Deny,
        &[rules],
        "tcp 203.0.113.1 443 | api.example.com@101                        | allowed-by-name   | shop/p allow[1]
         tcp 203.0.113.1 80  | api.example.com@101                        | allowed-by-name   | shop/p allow[2]
         tcp 203.0.113.1 443 | a.b.cdn.example.com@101                    | allowed-by-name   | shop/p allow[1]
         tcp 203.0.113.1 443 | cdn.example.com@101                        | denied-by-default |
         tcp 203.0.113.1 443 | api.example.com@100                        | name-expired      | shop/p allow[1]
         tcp 203.0.113.1 443 | api.example.com@100 x.cdn.example.com@101  | allowed-by-name   | shop/p allow[1]
         tcp 203.0.113.1 443 | x.corp.example@101                         | denied-by-default |
         tcp 203.0.113.1 22  | api.example.com@101                        | denied-by-default |
         tcp 203.0.113.9 443 | api.example.com@101                        | denied-by-cidr    | shop/p deny[0]
         tcp 203.0.113.1 443 |                                            | denied-by-default |",
    );
}

#[test]
fn several_policies_add_up_and_the_first_is_named() {
    let policies = [
        policy("shop", "b", "", "allow 10.0.0.0/8 tcp/443"),
        policy("shop", "a", "", "allow 10.0.0.0/8 tcp/80\nallow 10.1.0.0/16 tcp/443"),
        policy("shop", "c", "app=db", "deny 10.0.0.0/8"),
        policy("shop", "d", "app=web", "deny 10.2.0.0/16"),
        policy("bank", "e", "", "deny 0.0.0.0/0"),
    ];
    check(
        Fallback::Deny,
        &policies,
        "tcp 10.1.0.1 443 | | allowed-by-cidr   | shop/a allow[1]
         tcp 10.3.0.1 443 | | allowed-by-cidr   | shop/b allow[0]
         tcp 10.3.0.1 80  | | allowed-by-cidr   | shop/a allow[0]
         tcp 10.2.0.1 443 | | denied-by-cidr    | shop/d deny[0]
         tcp 10.2.0.1 22  | | denied-by-cidr    | shop/d deny[0]
         tcp 10.3.0.1 22  | | denied-by-default |",
    );
}

#[test]
fn isolation_under_a_default_of_allow() {
    let far = "tcp 198.51.100.1 22";
    let denies = policy("shop", "denies", "", "deny 10.0.0.0/8");
    check(Fallback::Allow, &[], &format!("{far} | | allowed-by-default |"));
    check(
        Fallback::Allow,
        std::slice::from_ref(&denies),
        &format!("{far} | | allowed-by-default |\ntcp 10.0.0.1 22 | | denied-by-cidr | shop/denies deny[0]"),
    );
    for isolating in
        ["", "allow 10.0.0.0/8", "resolve a.example", "allow a.example tcp/80", "deny 10.0.0.0/8\nresolve a.example"]
    {
        let isolates = policy("shop", "isolates", "", isolating);
        check(Fallback::Allow, &[isolates, denies.clone()], &format!("{far} | | denied-by-default |"));
        let other = policy("shop", "other", "app=db", isolating);
        check(Fallback::Allow, &[other], &format!("{far} | | allowed-by-default |"));
    }
    check(Fallback::Deny, &[denies], &format!("{far} | | denied-by-default |"));
}

#[test]
fn what_comes_before_policies() {
    let open = policy("shop", "open", "", "allow 0.0.0.0/0 ::/0");
    check(
        Fallback::Deny,
        &[open],
        "udp 10.100.0.1 53    | | dns             |
         tcp 198.51.100.1 53  | | dns             |
         tcp fd00::1 53       | | dns             |
         46 198.51.100.1 53   | | allowed-by-cidr | shop/open allow[0]
         tcp 10.100.0.1 22    | | node-address    |
         icmp 10.100.0.1      | | node-address    |
         tcp fd00::1 443      | | node-address    |
         tcp 192.0.2.1 443    | | allowed-by-cidr | shop/open allow[0]
         udp 192.0.2.1 443    | | node-address    |
         tcp 10.100.0.1 8443  | | allowed-by-cidr | shop/open allow[0]
         udp 224.0.0.251 5353 | | multicast       |
         udp 255.255.255.255 9| | multicast       |
         udp ff02::fb 5353    | | multicast       |
         tcp 127.0.0.1 80     | | malformed       |
         tcp ::1 80           | | malformed       |
         tcp ::ffff:10.0.0.1 80 | | malformed     |
         tcp 240.0.0.1 80     | | malformed       |
         udp ff01::1 5353     | | malformed       |
         tcp 169.254.77.1 8443 | | node-address   |
         tcp fe80::77 8443    | | node-address    |",
    );
    check(Fallback::Deny, &[], "tcp 192.0.2.1 443 | | denied-by-default |");
}

#[test]
fn to_a_workload() {
    let own = namespace("shop", Fallback::Deny, Fallback::Deny);
    let lax = namespace("lax", Fallback::Deny, Fallback::Allow);
    let apps = ["shop", "lax"].map(|space| app(space, "app=web", 8080));
    let tenant = name("tenant-a");
    let foreign = name("tenant-b");
    for (traffic, probes) in [(WorkloadTraffic::Open, Probes::All), (WorkloadTraffic::Isolated, Probes::Selected)] {
        let network = Network {
            name: tenant.clone(),
            adopt: None,
            reservations: Vec::new(),
            hold: None,
            vlan: None,
            subnets: Vec::new(),
            gateway: Gateway::Node,
            snat: Snat::None,
            workload_traffic: traffic,
            dns: None,
            mtu: None,
        };
        let node = Node { probes, ..node() };
        let model = Model::new([&own, &lax], [&network], [], &apps, &node);
        let open = traffic == WorkloadTraffic::Open;
        let same = Origin::Segment { network: &tenant };
        let other = Origin::Segment { network: &foreign };
        let near = |other| if open { Reason::SameNetwork } else { other };
        let cases = BTreeMap::from([
            (("shop", "app=web", 8080), [Reason::Edge, Reason::EdgeOnly, Reason::EdgeOnly]),
            (("shop", "app=db", 8080), [Reason::NotExposed, near(Reason::DeniedByDefault), Reason::DeniedByDefault]),
            (("shop", "app=web", 80), [Reason::NotExposed, near(Reason::DeniedByDefault), Reason::DeniedByDefault]),
            (("lax", "app=web", 8081), [Reason::NotExposed, near(Reason::AllowedByDefault), Reason::AllowedByDefault]),
            (("lax", "app=web", 8080), [Reason::Edge, Reason::EdgeOnly, Reason::EdgeOnly]),
            (("gone", "", 80), [Reason::Sealed; 3]),
        ]);
        for ((space, own, port), [edge, near, far]) in cases {
            let to = subject(space, own);
            let ask = |from: &Origin<'_>, protocol| {
                let remote = "10.9.0.9".parse().unwrap();
                let flow = Inbound { to: &to, from: from.clone(), remote, protocol, port };
                policy::decide(&model, &Query::To(flow)).reason
            };
            let probe = if probes == Probes::All { Reason::Probe } else { Reason::DeniedByDefault };
            assert_eq!(ask(&Origin::Edge, 6), edge, "{space} {own} {port} {open}");
            assert!(!ask(&Origin::Edge, 17).passes(), "{space} {own} {port} {open}");
            assert_eq!(ask(&same, 6), near, "{space} {own} {port} {open}");
            assert_eq!(ask(&other, 6), far, "{space} {own} {port} {open}");
            assert_eq!(ask(&Origin::Outside, 6), far, "{space} {own} {port} {open}");
            assert_ne!(ask(&Origin::Outside, 17), Reason::EdgeOnly, "an app is served over TCP");
            assert_eq!(
                ask(&Origin::Node, 6),
                if space == "gone" { Reason::Sealed } else { probe },
                "{space} {own} {port}"
            );
        }
    }
}

#[test]
fn looking_up() {
    let node = node();
    let rules = policy("shop", "p", "", "resolve *.corp.example\nallow api.example.com tcp/80");
    let ask = |fallback, policies: &[EgressPolicy], asked: &str| {
        let shop = namespace("shop", fallback, Fallback::Deny);
        let model = Model::new([&shop], [], policies, [], &node);
        match policy::decide::name::may_resolve(&model, &subject("shop", ""), &dns(asked)) {
            Resolve::Allowed { by: Grounds::Rule(rule) } => rule.to_string(),
            Resolve::Allowed { by: Grounds::NotIsolated } => "not isolated".to_owned(),
            Resolve::Refused => "refused".to_owned(),
        }
    };
    let own = [rules];
    assert_eq!(ask(Fallback::Deny, &own, "x.corp.example"), "shop/p allow[0]");
    assert_eq!(ask(Fallback::Deny, &own, "api.example.com"), "shop/p allow[1]");
    assert_eq!(ask(Fallback::Deny, &own, "corp.example"), "refused");
    assert_eq!(ask(Fallback::Allow, &own, "corp.example"), "refused");
    assert_eq!(ask(Fallback::Allow, &[], "corp.example"), "not isolated");
    assert_eq!(ask(Fallback::Allow, &[policy("shop", "p", "", "deny 10.0.0.0/8")], "corp.example"), "not isolated");
    assert_eq!(ask(Fallback::Deny, &[], "corp.example"), "refused");
}

#[test]
fn sentences() {
    let rules = [policy(
        "shop",
        "p",
        "",
        "deny 10.9.8.0/24
         resolve *.corp.example
         allow 10.9.0.0/16 !10.9.9.0/24 tcp/443
         allow api.example.com tcp/443",
    )];
    let cases = [
        ("tcp 10.9.1.1 443", ""),
        ("tcp 10.9.1.1 22", ""),
        ("tcp 10.9.9.1 443", ""),
        ("icmp 10.9.8.1", ""),
        ("tcp 203.0.113.1 443", "api.example.com@101"),
        ("tcp 203.0.113.1 443", "api.example.com@99"),
        ("tcp 203.0.113.1 80", "api.example.com@101"),
        ("udp fd00:5::1 123", ""),
        ("tcp 10.100.0.1 22", ""),
    ];
    let mut page = String::new();
    for (to, names) in cases {
        let decision = egress(Fallback::Deny, &rules, to, names);
        page += &format!("{to} {names}\n  {}: {}\n", decision.reason.word(), decision.text);
        page += &decision.mend.map(|mend| format!("  mend: {mend}\n")).unwrap_or_default();
    }
    let shop = namespace("shop", Fallback::Deny, Fallback::Deny);
    let node = node();
    let model = Model::new([&shop], [], &rules, [], &node);
    for (asked, port) in
        [("api.example.com", 443), ("api.example.com", 80), ("x.corp.example", 443), ("ads.example", 443)]
    {
        let decision = policy::decide::name::decide(&model, &subject("shop", ""), &dns(asked), 6, port);
        page += &format!("{asked} {port}\n  {}: {}\n", decision.reason.word(), decision.text);
        page += &decision.mend.map(|mend| format!("  mend: {mend}\n")).unwrap_or_default();
    }
    crate::golden::compare("sentences.txt", &page);
}
