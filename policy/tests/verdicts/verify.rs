//! `verify` and names under `deny`, case by case: what waits for its handshake, and what the handshake then decides.

use config::resource::{ClusterEgressPolicy, Default as Fallback, EgressPolicy, Mode};
use policy::reason::Reason;
use policy::tables::{Action, PolicyId};
use policy::{Grounds, Model, Node, Resolve, Shown, Unshown, compile};

use crate::semantics::shown_under;
use crate::text::{admin, dns, namespace, policy, subject};

/// Checks lines of `target | names | shown | verdict | rule`. Shown is nothing (not read yet), a name, or `!no-name`; a
/// verdict that waits has `holds` behind it.
fn check(admin: &[ClusterEgressPolicy], fallback: Fallback, policies: &[EgressPolicy], cases: &str) {
    for case in cases.lines().map(str::trim).filter(|case| !case.is_empty()) {
        let columns: Vec<&str> = case.split('|').map(str::trim).collect();
        let [to, names, shown, verdict, rule] = columns[..] else { panic!("five columns: {case}") };
        let name = (!shown.is_empty() && !shown.starts_with('!')).then(|| dns(shown));
        let shown = match (shown, &name) {
            (_, Some(name)) => Shown::Name(name),
            ("", None) => Shown::NotYet,
            (nothing, None) => Shown::Nothing(unshown(nothing)),
        };
        let said = shown_under(admin, fallback, policies, to, names, shown);
        let told = format!("{}{}", said.reason.word(), if said.holds { " holds" } else { "" });
        assert_eq!(told, verdict, "{case}: {}", said.text);
        assert_eq!(said.rule.as_ref().map(ToString::to_string).unwrap_or_default(), rule, "{case}: {}", said.text);
        assert_eq!(said.allowed, said.reason.passes(), "{case}");
        assert_eq!(said.mend.is_some(), !said.allowed || said.reason == Reason::Audited, "{case}");
    }
}

fn unshown(word: &str) -> Unshown {
    match word {
        "!no-name" => Unshown::NoName,
        "!not-tls" => Unshown::NotTls,
        "!unreadable" => Unshown::Unreadable,
        other => panic!("{other}"),
    }
}

#[test]
fn a_verifying_rule_allows_the_name_that_is_shown_and_was_resolved() {
    let rules = policy("shop", "p", "", "allow a.example b.example @usual");
    check(
        &[],
        Fallback::Deny,
        &[rules],
        "tcp 203.0.113.1 443  | a.example@101               |             | allowed-by-name holds | shop/p allow[0]
         udp 203.0.113.1 443  | a.example@101               |             | allowed-by-name holds | shop/p allow[0]
         tcp 203.0.113.1 80   | a.example@101               |             | allowed-by-name       | shop/p allow[0]
         sctp 203.0.113.1 443 | a.example@101               |             | allowed-by-name       | shop/p allow[0]
         icmp 203.0.113.1     | a.example@101               |             | allowed-by-name       | shop/p allow[0]
         tcp 203.0.113.1 443  | a.example@101               | A.Example   | allowed-by-name       | shop/p allow[0]
         tcp 203.0.113.1 443  | a.example@101               | b.example   | sni-mismatch          | shop/p allow[0]
         tcp 203.0.113.1 443  | a.example@101               | c.example   | sni-mismatch          | shop/p allow[0]
         tcp 203.0.113.1 443  | a.example@101               | !no-name    | no-sni                | shop/p allow[0]
         tcp 203.0.113.1 443  | a.example@101               | !not-tls    | not-tls               | shop/p allow[0]
         tcp 203.0.113.1 443  | a.example@101               | !unreadable | unreadable-hello      | shop/p allow[0]
         tcp 203.0.113.1 443  | a.example@101 b.example@101 | b.example   | allowed-by-name       | shop/p allow[0]
         tcp 203.0.113.1 443  | a.example@101 b.example@100 | b.example   | name-expired          | shop/p allow[0]
         tcp 203.0.113.1 443  | a.example@100               |             | name-expired          | shop/p allow[0]
         tcp 203.0.113.1 443  |                             | a.example   | denied-by-default     |",
    );
    let everywhere = policy("shop", "p", "", "allow a.example @tls");
    check(
        &[],
        Fallback::Deny,
        &[everywhere],
        "tcp 203.0.113.1 8443 | a.example@101 |           | allowed-by-name holds | shop/p allow[0]
         udp 203.0.113.1 1    | a.example@101 |           | allowed-by-name holds | shop/p allow[0]
         sctp 203.0.113.1 443 | a.example@101 |           | allowed-by-name       | shop/p allow[0]
         tcp 203.0.113.1 8443 | a.example@101 | b.example | sni-mismatch          | shop/p allow[0]",
    );
}

#[test]
fn what_the_same_tier_allows_without_a_look_does_not_wait() {
    let rules = policy(
        "shop",
        "p",
        "",
        "allow a.example tcp/443 @tls
         allow b.example tcp/443
         allow 10.0.0.0/8 tcp/443
         allow *.example tcp/1-65535",
    );
    check(
        &[],
        Fallback::Deny,
        &[rules],
        "tcp 10.0.0.1 443    | a.example@101               |           | allowed-by-cidr | shop/p allow[2]
         tcp 203.0.113.1 443 | a.example@101               |           | allowed-by-name | shop/p allow[3]
         tcp 203.0.113.1 443 | a.example@102 b.example@101 |           | allowed-by-name | shop/p allow[3]
         tcp 203.0.113.1 443 | b.example@101               | c.example | allowed-by-name | shop/p allow[1]",
    );
    let own = [policy("shop", "p", "", "allow b.example\nallow 10.0.0.0/8")];
    let base = [admin("base", "", "", "allow a.example @usual")];
    check(
        &base,
        Fallback::Deny,
        &own,
        "tcp 10.0.0.1 443    | a.example@101               |           | allowed-by-name holds | base allow[0]
         tcp 10.0.0.1 443    | a.example@101               | a.example | allowed-by-name       | base allow[0]
         tcp 10.0.0.1 443    | a.example@101               | c.example | allowed-by-cidr       | shop/p allow[1]
         tcp 203.0.113.1 443 | b.example@102 a.example@101 |           | allowed-by-name holds | base allow[0]
         tcp 203.0.113.1 443 | b.example@102 a.example@101 | c.example | allowed-by-name       | shop/p allow[0]
         tcp 203.0.113.1 443 | a.example@101               | c.example | sni-mismatch          | base allow[0]",
    );
}

#[test]
fn a_denied_name_is_refused_by_what_is_shown_and_by_what_was_looked_up() {
    let rules = policy(
        "shop",
        "p",
        "",
        "deny ads.example *.ads.example
         deny b.example tcp/8443 sctp/8443
         allow 10.0.0.0/8
         allow *.example tcp/80 tcp/443 tcp/8443 sctp/8443",
    );
    check(
        &[],
        Fallback::Deny,
        &[rules],
        "tcp 10.0.0.1 443     |                   |               | allowed-by-cidr holds | shop/p allow[0]
         tcp 10.0.0.1 443     |                   | a.example     | allowed-by-cidr       | shop/p allow[0]
         tcp 10.0.0.1 443     |                   | x.ads.example | denied-by-name        | shop/p deny[0]
         tcp 10.0.0.1 443     |                   | b.example     | allowed-by-cidr       | shop/p allow[0]
         tcp 10.0.0.1 443     |                   | !no-name      | allowed-by-cidr       | shop/p allow[0]
         tcp 10.0.0.1 443     |                   | !unreadable   | allowed-by-cidr       | shop/p allow[0]
         tcp 10.0.0.1 80      |                   |               | allowed-by-cidr       | shop/p allow[0]
         udp 10.0.0.1 443     |                   |               | allowed-by-cidr holds | shop/p allow[0]
         udp 10.0.0.1 8443    |                   |               | allowed-by-cidr       | shop/p allow[0]
         tcp 10.0.0.1 8443    |                   |               | allowed-by-cidr holds | shop/p allow[0]
         tcp 10.0.0.1 8443    |                   | b.example     | denied-by-name        | shop/p deny[1]
         tcp 10.0.0.1 8443    |                   | ads.example   | denied-by-name        | shop/p deny[0]
         sctp 10.0.0.1 8443   |                   |               | allowed-by-cidr       | shop/p allow[0]
         tcp 203.0.113.1 443  | a.example@101     |               | allowed-by-name holds | shop/p allow[1]
         tcp 203.0.113.1 443  | a.example@101     | c.example     | allowed-by-name       | shop/p allow[1]
         tcp 203.0.113.1 443  | a.example@101     | ads.example   | denied-by-name        | shop/p deny[0]
         tcp 203.0.113.1 80   | ads.example@101   |               | denied-by-name        | shop/p deny[0]
         tcp 203.0.113.1 22   | ads.example@101   |               | denied-by-name        | shop/p deny[0]
         tcp 203.0.113.1 80   | b.example@101     |               | allowed-by-name       | shop/p allow[1]
         sctp 203.0.113.1 8443 | b.example@101    |               | denied-by-name        | shop/p deny[1]
         tcp 203.0.113.1 22   | a.example@101     |               | denied-by-default     |",
    );
    let denies = policy("shop", "p", "", "deny ads.example");
    check(
        &[],
        Fallback::Allow,
        &[denies],
        "tcp 203.0.113.1 443 |                 |             | allowed-by-default holds |
         tcp 203.0.113.1 443 |                 | ads.example | denied-by-name           | shop/p deny[0]
         tcp 203.0.113.1 443 |                 | !not-tls    | allowed-by-default       |
         tcp 203.0.113.1 22  | ads.example@101 |             | allowed-by-default       |",
    );
}

#[test]
fn the_tiers_denies_hold_downwards() {
    let own = [policy("shop", "p", "", "deny time.example\nallow *.example\nallow 10.0.0.0/8")];
    let base = [admin("base", "", "", "deny ads.example tcp/8443\nallow time.example\nallow 192.0.2.0/24")];
    check(
        &base,
        Fallback::Deny,
        &own,
        "tcp 203.0.113.1 443  | time.example@101 |              | allowed-by-name       | base allow[0]
         tcp 203.0.113.1 8443 | time.example@101 |              | allowed-by-name holds | base allow[0]
         tcp 203.0.113.1 8443 | time.example@101 | ads.example  | denied-by-name        | base deny[0]
         tcp 203.0.113.1 8443 | ads.example@101  |              | denied-by-name        | base deny[0]
         tcp 203.0.113.1 8444 | ads.example@101  |              | allowed-by-name       | shop/p allow[0]
         tcp 192.0.2.7 443    |                  |              | allowed-by-cidr       | base allow[1]
         tcp 192.0.2.7 8443   |                  |              | allowed-by-cidr holds | base allow[1]
         tcp 10.0.0.1 443     |                  |              | allowed-by-cidr holds | shop/p allow[1]
         tcp 10.0.0.1 443     |                  | time.example | denied-by-name        | shop/p deny[0]
         tcp 10.0.0.1 8443    |                  | ads.example  | denied-by-name        | base deny[0]",
    );
}

#[test]
fn audited_names_wait_and_pass() {
    let tried =
        EgressPolicy { mode: Mode::Audit, ..policy("shop", "tried", "", "deny ads.example\nallow c.example @usual") };
    let own = policy("shop", "p", "", "allow 10.0.0.0/8\nallow *.example tcp/80");
    check(
        &[],
        Fallback::Deny,
        &[tried.clone(), own],
        "tcp 10.0.0.1 443   |                 |             | allowed-by-cidr holds | shop/p allow[0]
         tcp 10.0.0.1 443   |                 | ads.example | audited               | shop/tried deny[0]
         tcp 10.0.0.1 443   |                 | a.example   | allowed-by-cidr       | shop/p allow[0]
         tcp 203.0.113.1 80 | ads.example@101 |             | audited               | shop/tried deny[0]
         tcp 203.0.113.1 80 | a.example@101   |             | allowed-by-name       | shop/p allow[1]",
    );
    // Nothing but the audited policy isolates: what its names would ask for is recorded where it is read anyway.
    check(
        &[],
        Fallback::Allow,
        &[tried],
        "tcp 203.0.113.1 443  |               |             | audited holds         | shop/tried isolation
         tcp 203.0.113.1 443  | c.example@101 |             | allowed-by-name holds | shop/tried allow[0]
         tcp 203.0.113.1 443  | c.example@101 | c.example   | allowed-by-name       | shop/tried allow[0]
         tcp 203.0.113.1 443  | c.example@101 | a.example   | audited               | shop/tried isolation
         tcp 203.0.113.1 443  | c.example@101 | ads.example | audited               | shop/tried deny[0]",
    );
    let only_names = EgressPolicy { mode: Mode::Audit, ..policy("shop", "tried", "", "allow c.example @usual") };
    check(
        &[],
        Fallback::Allow,
        &[only_names],
        "tcp 203.0.113.1 443 | c.example@101 |           | allowed-by-name | shop/tried allow[0]
         tcp 203.0.113.1 443 | c.example@101 | a.example | audited         | shop/tried isolation",
    );
}

#[test]
fn what_is_denied_is_not_looked_up() {
    let node = Node::default();
    let ask = |fallback, tier: &[ClusterEgressPolicy], own: &[EgressPolicy], asked: &str| {
        let shop = namespace("shop", fallback, Fallback::Deny);
        let model = Model::new([&shop], [], own, [], &node).with_cluster_policies(tier);
        let web = subject("shop", "app=web");
        let said = policy::decide::name::may_resolve(&model, &web, &dns(asked));
        let compiled = compile(&model, &[web.clone()].into(), 1, PolicyId(1));
        let policy = compiled.policy(&web).unwrap().egress;
        assert_eq!(compiled.may_resolve(policy, &dns(asked)), said, "{asked}");
        match said {
            Resolve::Allowed { by: Grounds::Rule(rule) } => rule.to_string(),
            Resolve::Allowed { by: Grounds::NotIsolated } => "not isolated".to_owned(),
            Resolve::Refused => "refused".to_owned(),
        }
    };
    let own = [
        policy("shop", "a", "", "allow *.example\nresolve *.test"),
        policy("shop", "b", "", "deny ads.example x.test\ndeny b.example tcp/443"),
    ];
    for (asked, said) in [
        ("ads.example", "refused"),
        ("x.test", "refused"),
        ("b.example", "shop/a allow[0]"),
        ("x.ads.example", "shop/a allow[0]"),
        ("y.test", "shop/a allow[1]"),
    ] {
        assert_eq!(ask(Fallback::Deny, &[], &own, asked), said, "{asked}");
    }
    let denies = [policy("shop", "b", "", "deny ads.example")];
    assert_eq!(ask(Fallback::Allow, &[], &denies, "ads.example"), "refused");
    assert_eq!(ask(Fallback::Allow, &[], &denies, "b.example"), "not isolated");
    let audited = [EgressPolicy { mode: Mode::Audit, ..denies[0].clone() }];
    assert_eq!(ask(Fallback::Allow, &[], &audited, "ads.example"), "not isolated");
    let allows = [admin("base", "", "", "allow ads.example tcp/443")];
    assert_eq!(ask(Fallback::Allow, &allows, &denies, "ads.example"), "base allow[0]");
    let forbids = [admin("base", "", "", "allow *.example\ndeny ads.example")];
    assert_eq!(ask(Fallback::Deny, &forbids, &own[..1], "ads.example"), "refused");
    assert_eq!(ask(Fallback::Deny, &forbids, &own[..1], "b.example"), "base allow[0]");
}

#[test]
fn what_no_policy_can_name_is_not_looked_up_where_a_wildcard_is_denied() {
    let node = Node::default();
    let everything = |fallback, rules: &str, mode| {
        let (shop, web) = (namespace("shop", fallback, Fallback::Deny), subject("shop", ""));
        let own = [EgressPolicy { mode, ..policy("shop", "p", "", rules) }];
        let compiled = compile(&Model::new([&shop], [], &own, [], &node), &[web.clone()].into(), 1, PolicyId(1));
        compiled.resolves_everything(compiled.policy(&web).unwrap().egress)
    };
    assert!(everything(Fallback::Allow, "deny 10.0.0.0/8", Mode::Enforce));
    assert!(everything(Fallback::Allow, "deny ads.example", Mode::Enforce));
    assert!(!everything(Fallback::Allow, "deny *.ads.example", Mode::Enforce));
    assert!(everything(Fallback::Allow, "deny *.ads.example tcp/443", Mode::Enforce));
    assert!(everything(Fallback::Allow, "deny *.ads.example", Mode::Audit));
    assert!(!everything(Fallback::Deny, "deny 10.0.0.0/8", Mode::Enforce));
}

#[test]
fn handshakes_are_read_of_names_that_are_verified_and_where_names_are_denied() {
    let (node, web) = (Node::default(), subject("shop", "app=web"));
    let read = |fallback, tier: &[ClusterEgressPolicy], rules: &str, mode, asked: Option<&str>| {
        let shop = namespace("shop", fallback, Fallback::Deny);
        let own = [EgressPolicy { mode, ..policy("shop", "p", "", rules) }];
        let model = Model::new([&shop], [], &own, [], &node).with_cluster_policies(tier);
        let compiled = compile(&model, &[web.clone()].into(), 1, PolicyId(1));
        compiled.reads_handshakes(compiled.policy(&web).unwrap().egress, asked.map(dns).as_ref())
    };
    let rules = "allow a.example @usual
         allow *.b.example @tls
         allow c.example
         allow d.example tcp/1-1024 @usual
         allow d.example tcp/443
         allow e.example tcp/80 @usual
         resolve *.example";
    for (asked, reads) in [
        ("a.example", true),
        ("x.b.example", true),
        ("_8443._https.a.example", true),
        ("_8443._https.x.b.example", true),
        ("_8443._https.c.example", false),
        ("c.example", false),
        ("d.example", false),
        ("e.example", false),
        ("f.example", false),
        ("_tcp", false),
    ] {
        assert_eq!(read(Fallback::Deny, &[], rules, Mode::Enforce, Some(asked)), reads, "{asked}");
    }
    assert!(!read(Fallback::Deny, &[], rules, Mode::Enforce, None));
    // Nothing but the audited policy isolates: nothing waits for its names.
    assert!(!read(Fallback::Allow, &[], rules, Mode::Audit, Some("a.example")));
    assert!(!read(Fallback::Allow, &[], "deny 10.0.0.0/8", Mode::Enforce, Some("a.example")));
    for asked in [Some("a.example"), None] {
        assert!(read(Fallback::Allow, &[], "deny ads.example", Mode::Enforce, asked));
        assert!(read(Fallback::Allow, &[], "deny ads.example tcp/8443", Mode::Audit, asked));
    }
    let base = [admin("base", "", "", "allow c.example @usual")];
    assert!(read(Fallback::Deny, &base, rules, Mode::Enforce, Some("c.example")));
    assert!(!read(Fallback::Deny, &base, "allow *.example", Mode::Enforce, Some("x.example")));
    let (model, unknown) = (Model::new([], [], &[], [], &node), PolicyId(77));
    assert!(compile(&model, &[].into(), 1, PolicyId(1)).reads_handshakes(unknown, None), "an unknown policy");
}

#[test]
fn a_name_that_is_denied_wherever_it_is_allowed_takes_no_slot() {
    let (shop, node) = (namespace("shop", Fallback::Deny, Fallback::Deny), Node::default());
    let own = [policy(
        "shop",
        "p",
        "",
        "deny ads.example\ndeny b.example tcp/443\nallow *.example tcp/443\nallow b.example udp/1",
    )];
    let model = Model::new([&shop], [], &own, [], &node);
    let web = subject("shop", "");
    let mut compiled = compile(&model, &[web.clone()].into(), 1, PolicyId(1));
    let policy = compiled.policy(&web).unwrap().egress;
    for (asked, opens) in [("ads.example", false), ("b.example", true), ("c.example", true), ("c.test", false)] {
        assert_eq!(compiled.name_class(policy, &dns(asked)).is_some(), opens, "{asked}");
    }
    // what shows it may be open from before
    let denied = compiled.shown_class(policy, &dns("ads.example")).unwrap();
    assert!(denied.new_rules.iter().any(|line| line.action == Action::Deny));
    assert!(compiled.name_class(policy, &dns("ads.example")).is_none(), "it takes no slot for that");
    assert_eq!(compiled.shown_class(policy, &dns("ads.example")).unwrap().class, denied.class);
    assert!(compiled.shown_class(policy, &dns("c.test")).is_none());
}

#[test]
fn sentences() {
    let own = [policy(
        "shop",
        "p",
        "",
        "deny ads.example
         allow a.example b.example tcp/443 @usual
         allow 10.0.0.0/8
         allow old.example tcp/8443 @tls",
    )];
    let mut page = String::new();
    let mut tell = |to: &str, names: &str, shown: &str| {
        let name = (!shown.is_empty() && !shown.starts_with('!')).then(|| dns(shown));
        let as_shown = match (shown, &name) {
            (_, Some(name)) => Shown::Name(name),
            ("", None) => Shown::NotYet,
            (nothing, None) => Shown::Nothing(unshown(nothing)),
        };
        let said = shown_under(&[], Fallback::Deny, &own, to, names, as_shown);
        page += &format!("{to} {names} {shown}\n  {}: {}\n", said.reason.word(), said.text);
        page += &said.mend.map(|mend| format!("  mend: {mend}\n")).unwrap_or_default();
    };
    let to = "tcp 203.0.113.1 443";
    for shown in ["", "a.example", "b.example", "c.example", "ads.example", "!no-name", "!not-tls", "!unreadable"] {
        tell(to, "a.example@101", shown);
    }
    tell("tcp 203.0.113.1 8443", "old.example@101", "");
    tell("tcp 10.0.0.1 443", "", "");
    tell("tcp 10.0.0.1 443", "", "ads.example");
    tell(to, "ads.example@101", "");
    let (shop, node) = (namespace("shop", Fallback::Deny, Fallback::Deny), Node::default());
    let model = Model::new([&shop], [], &own, [], &node);
    for (asked, port) in [("a.example", 443), ("old.example", 8443), ("ads.example", 443), ("c.example", 443)] {
        let said = policy::decide::name::decide(&model, &subject("shop", ""), &dns(asked), 6, port);
        page += &format!("{asked} {port}\n  {}: {}\n", said.reason.word(), said.text);
        page += &said.mend.map(|mend| format!("  mend: {mend}\n")).unwrap_or_default();
    }
    crate::golden::compare("verify-sentences.txt", &page);
}
