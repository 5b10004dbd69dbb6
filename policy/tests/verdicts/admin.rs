//! The admin tier, case by case.

use config::resource::{Default as Fallback, EgressPolicy};
use policy::{Grounds, Model, Resolve};

use crate::semantics::{check_under, egress_under, node};
use crate::text::{admin, dns, namespace, policy, subject};

#[test]
fn tier_before_tier() {
    let base = admin(
        "base",
        "",
        "",
        "deny 10.0.0.0/8 !10.0.9.0/24 tcp/25
         deny 169.254.169.254/32
         allow 10.1.0.0/16 tcp/443
         allow time.example udp/123
         pass 10.2.0.0/16",
    );
    let own = policy(
        "shop",
        "p",
        "",
        "deny 10.1.0.0/16
         deny 203.0.113.0/24
         allow 10.0.0.0/8
         allow 169.254.0.0/16
         allow time.example tcp/80",
    );
    check_under(
        &[base],
        Fallback::Deny,
        &[own],
        "tcp 10.3.0.1 25         |                  | denied-by-cidr    | base deny[0]
         tcp 10.0.9.1 25         |                  | allowed-by-cidr   | shop/p allow[0]
         tcp 169.254.169.254 80  |                  | denied-by-cidr    | base deny[1]
         tcp 169.254.1.1 80      |                  | allowed-by-cidr   | shop/p allow[1]
         tcp 10.1.0.1 443        |                  | allowed-by-cidr   | base allow[0]
         tcp 10.1.0.1 80         |                  | denied-by-cidr    | shop/p deny[0]
         tcp 10.1.0.1 25         |                  | denied-by-cidr    | base deny[0]
         tcp 10.2.0.1 25         |                  | denied-by-cidr    | base deny[0]
         tcp 10.2.0.1 80         |                  | allowed-by-cidr   | shop/p allow[0]
         udp 203.0.113.1 123     | time.example@101 | allowed-by-name   | base allow[1]
         udp 203.0.113.1 123     | time.example@100 | denied-by-cidr    | shop/p deny[1]
         tcp 203.0.113.1 80      | time.example@101 | denied-by-cidr    | shop/p deny[1]
         udp 10.2.0.1 123        | time.example@101 | allowed-by-name   | base allow[1]
         udp 169.254.169.254 123 | time.example@101 | denied-by-cidr    | base deny[1]
         udp 198.51.100.1 123    | time.example@100 | name-expired      | base allow[1]
         tcp 198.51.100.1 80     | time.example@101 | allowed-by-name   | shop/p allow[2]
         tcp 198.51.100.1 443    | time.example@101 | denied-by-default |",
    );
}

#[test]
fn it_never_isolates_and_denies_whoever_is_not_isolated() {
    let base = admin("base", "", "", "deny 10.0.0.0/8\nallow 192.0.2.0/24");
    check_under(
        &[base, admin("nothing", "", "", "")],
        Fallback::Allow,
        &[],
        "tcp 198.51.100.1 80 | | allowed-by-default |
         tcp 10.0.0.1 80     | | denied-by-cidr     | base deny[0]
         tcp 192.0.2.9 80    | | allowed-by-cidr    | base allow[0]",
    );
}

#[test]
fn it_selects_by_namespace_and_by_workload() {
    let to = "tcp 10.0.0.1 80";
    for (namespaces, workloads, meant) in [
        ("", "", true),
        ("kind=shop", "app=web", true),
        ("kubernetes.io/metadata.name=shop", "", true),
        ("kind=bank", "", false),
        ("kind=shop", "app=db", false),
        ("kind=shop other=label", "", false),
    ] {
        let denies = [admin("base", namespaces, workloads, "deny 10.0.0.0/8")];
        let decision = egress_under(&denies, Fallback::Allow, &[], to, "");
        assert_eq!(decision.allowed, !meant, "{namespaces} {workloads}");
    }
}

#[test]
fn several_name_the_first() {
    let both = [admin("b", "", "", "deny 10.0.0.0/8"), admin("a", "", "", "allow 10.0.0.0/8\ndeny 10.1.0.0/16")];
    check_under(
        &both,
        Fallback::Deny,
        &[],
        "tcp 10.1.0.1 80 | | denied-by-cidr | a deny[0]
         tcp 10.2.0.1 80 | | denied-by-cidr | b deny[0]",
    );
}

#[test]
fn looking_up() {
    let (shop, node) = (namespace("shop", Fallback::Deny, Fallback::Deny), node());
    let base = [admin("base", "", "", "resolve *.corp.example\nallow time.example udp/123")];
    let own: [EgressPolicy; 1] = [policy("shop", "p", "", "allow *.example tcp/80")];
    let model = Model::new([&shop], [], &own, [], &node).with_cluster_policies(&base);
    let ask = |asked: &str| match policy::decide::name::may_resolve(&model, &subject("shop", ""), &dns(asked)) {
        Resolve::Allowed { by: Grounds::Rule(rule) } => rule.qualified(),
        Resolve::Allowed { by: Grounds::NotIsolated } => "not isolated".to_owned(),
        Resolve::Refused => "refused".to_owned(),
    };
    assert_eq!(ask("x.corp.example"), "clusteregresspolicy/base allow[0]");
    assert_eq!(ask("time.example"), "clusteregresspolicy/base allow[1]");
    assert_eq!(ask("api.example"), "egresspolicy/shop/p allow[0]");
    assert_eq!(ask("api.test"), "refused");
}

#[test]
fn sentences() {
    let base =
        [admin("base", "", "", "deny 10.0.0.0/8 tcp/25\nallow 10.1.0.0/16\nallow time.example\npass 10.2.0.0/16")];
    let own = [policy("shop", "p", "", "deny 10.2.0.0/16 tcp/80\nallow 10.2.0.0/16")];
    let mut page = String::new();
    for (to, names) in [
        ("tcp 10.9.0.1 25", ""),
        ("tcp 10.1.0.1 80", ""),
        ("tcp 10.2.0.1 80", ""),
        ("tcp 10.2.0.1 443", ""),
        ("tcp 10.2.0.1 80", "time.example@101"),
        ("tcp 198.51.100.1 80", "time.example@99"),
        ("tcp 198.51.100.1 80", ""),
    ] {
        let decision = egress_under(&base, Fallback::Deny, &own, to, names);
        page += &format!("{to} {names}\n  {}: {}\n", decision.reason.word(), decision.text);
        page += &decision.mend.map(|mend| format!("  mend: {mend}\n")).unwrap_or_default();
    }
    crate::golden::compare("admin-sentences.txt", &page);
}
