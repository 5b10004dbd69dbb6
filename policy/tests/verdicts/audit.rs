//! `mode: Audit`, case by case: recorded, and not applied.

use config::resource::{ClusterEgressPolicy, Default as Fallback, EgressPolicy, Mode};
use policy::{Grounds, Model, Resolve};

use crate::semantics::{check_under, egress_under, node};
use crate::text::{self, dns, namespace, policy, subject};

fn audited(rules: &str) -> EgressPolicy {
    EgressPolicy { mode: Mode::Audit, ..policy("shop", "tried", "", rules) }
}

fn admin(rules: &str) -> ClusterEgressPolicy {
    ClusterEgressPolicy { mode: Mode::Audit, ..text::admin("tried", "", "", rules) }
}

#[test]
fn denies_are_recorded_and_what_others_deny_stays_denied() {
    let enforced = policy("shop", "p", "", "deny 10.2.0.0/16\nallow 10.0.0.0/8");
    check_under(
        &[],
        Fallback::Deny,
        &[audited("deny 10.1.0.0/16\ndeny 10.2.0.0/16\nallow 198.51.100.0/24"), enforced],
        "tcp 10.1.0.1 80    | | audited           | shop/tried deny[0]
         tcp 10.2.0.1 80    | | denied-by-cidr    | shop/p deny[0]
         tcp 10.3.0.1 80    | | allowed-by-cidr   | shop/p allow[0]
         tcp 198.51.100.1 80 | | allowed-by-cidr   | shop/tried allow[0]
         tcp 203.0.113.1 80 | | denied-by-default |",
    );
}

#[test]
fn isolation_is_recorded_and_names_pass_as_if_there_were_none() {
    let tried = audited("allow 10.0.0.0/8\nallow api.example tcp/443\ndeny 10.9.0.0/16");
    check_under(
        &[],
        Fallback::Allow,
        std::slice::from_ref(&tried),
        "tcp 10.0.0.1 80      |                 | allowed-by-cidr   | shop/tried allow[0]
         tcp 10.9.0.1 80      |                 | audited           | shop/tried deny[0]
         tcp 198.51.100.1 443 |                 | audited           | shop/tried isolation
         tcp 198.51.100.1 443 | api.example@101 | allowed-by-name   | shop/tried allow[1]
         tcp 198.51.100.1 443 | api.example@100 | audited           | shop/tried isolation
         tcp 198.51.100.1 80  | api.example@101 | audited           | shop/tried isolation",
    );
    let enforced = policy("shop", "p", "", "allow 172.16.0.0/12");
    check_under(
        &[],
        Fallback::Allow,
        &[tried.clone(), enforced],
        "tcp 198.51.100.1 443 | | denied-by-default |
         tcp 172.16.0.1 80 | | allowed-by-cidr   | shop/p allow[0]",
    );
    check_under(&[], Fallback::Deny, &[tried], "tcp 198.51.100.1 80 | | denied-by-default |");
    let nothing = audited("");
    check_under(&[], Fallback::Allow, &[nothing], "tcp 198.51.100.1 80 | | audited | shop/tried isolation");
    let denies = audited("deny 10.0.0.0/8");
    check_under(&[], Fallback::Allow, &[denies], "tcp 198.51.100.1 80 | | allowed-by-default |");
}

#[test]
fn the_admin_tiers_denies_are_recorded_above_everything_that_lets_pass() {
    let own = policy("shop", "p", "", "deny 10.2.0.0/16\nallow 10.0.0.0/8\nallow api.example");
    let enforced = text::admin("base", "", "", "allow time.example\nallow 10.3.0.0/16\ndeny 10.4.0.0/16");
    check_under(
        &[admin("deny 10.0.0.0/8"), enforced],
        Fallback::Deny,
        &[own],
        "tcp 10.1.0.1 80  |                  | audited           | tried deny[0]
         tcp 10.2.0.1 80  |                  | denied-by-cidr    | shop/p deny[0]
         tcp 10.2.0.1 80  | time.example@101 | audited           | tried deny[0]
         tcp 10.3.0.1 80  |                  | audited           | tried deny[0]
         tcp 10.4.0.1 80  | time.example@101 | denied-by-cidr    | base deny[0]
         tcp 198.51.100.1 80 | time.example@101 | allowed-by-name   | base allow[0]
         tcp 198.51.100.1 80 | api.example@101  | allowed-by-name   | shop/p allow[1]
         tcp 198.51.100.1 80 |                  | denied-by-default |",
    );
}

#[test]
fn a_name_of_the_admin_tier_stands_above_an_audited_deny_of_the_namespace() {
    let base = text::admin("base", "", "", "allow time.example");
    check_under(
        &[base],
        Fallback::Deny,
        &[audited("deny 10.0.0.0/8\nallow api.example")],
        "tcp 10.0.0.1 80 | time.example@101 | allowed-by-name   | base allow[0]
         tcp 10.0.0.1 80 | api.example@101  | audited           | shop/tried deny[0]
         tcp 10.0.0.1 80 |                  | denied-by-default |",
    );
}

#[test]
fn where_only_an_audited_policy_isolates_every_name_is_looked_up() {
    let node = node();
    let ask = |fallback, own: &[EgressPolicy], asked: &str| {
        let shop = namespace("shop", fallback, Fallback::Deny);
        let model = Model::new([&shop], [], own, [], &node);
        match policy::decide::name::may_resolve(&model, &subject("shop", ""), &dns(asked)) {
            Resolve::Allowed { by: Grounds::Rule(rule) } => rule.to_string(),
            Resolve::Allowed { by: Grounds::NotIsolated } => "not isolated".to_owned(),
            Resolve::Refused => "refused".to_owned(),
        }
    };
    let tried = audited("allow api.example");
    assert_eq!(ask(Fallback::Allow, std::slice::from_ref(&tried), "api.example"), "shop/tried allow[0]");
    assert_eq!(ask(Fallback::Allow, std::slice::from_ref(&tried), "other.example"), "not isolated");
    assert_eq!(ask(Fallback::Deny, std::slice::from_ref(&tried), "other.example"), "refused");
    let enforced = policy("shop", "p", "", "allow 10.0.0.0/8");
    assert_eq!(ask(Fallback::Allow, &[tried, enforced], "other.example"), "refused");
}

#[test]
fn sentences() {
    let tried = [audited("allow 10.0.0.0/8\nallow api.example tcp/443\ndeny 10.9.0.0/16")];
    let mut page = String::new();
    let mut tell = |to: &str, decision: policy::Decision| {
        page += &format!("{to}\n  {}: {}\n", decision.reason.word(), decision.text);
        page += &decision.mend.map(|mend| format!("  mend: {mend}\n")).unwrap_or_default();
    };
    for to in ["tcp 10.9.0.1 80", "tcp 198.51.100.1 443"] {
        tell(to, egress_under(&[], Fallback::Allow, &tried, to, ""));
    }
    tell("tcp 198.51.100.1 443", egress_under(&[], Fallback::Deny, &tried, "tcp 198.51.100.1 443", ""));
    let (shop, node) = (namespace("shop", Fallback::Allow, Fallback::Deny), node());
    let model = Model::new([&shop], [], &tried, [], &node);
    for asked in ["api.example", "other.example"] {
        tell(asked, policy::decide::name::decide(&model, &subject("shop", ""), &dns(asked), 6, 443));
    }
    crate::golden::compare("audit-sentences.txt", &page);
}
