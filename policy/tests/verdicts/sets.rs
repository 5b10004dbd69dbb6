//! Rules that name address sets: which set a name means, and how the grounds and the mend name it.

use config::Prefixes;
use config::names::Name;
use config::resource::{ClusterEgressPolicy, Default as Fallback, EgressPolicy, Kind, ResourceKey};
use ipnetwork::IpNetwork;
use policy::reason::Reason;
use policy::tables::PolicyId;
use policy::{Decision, Model, Node, Outbound, Query, Shown, Target, compile, decide};

use crate::text::{admin, name, namespace, policy, subject};

/// `feed: 10.0.0.0/8 …` of the administrators, `shop/feed: …` of a namespace; a line each.
struct Sets(Vec<(ResourceKey, Prefixes)>);

impl Sets {
    fn new(lines: &str) -> Self {
        let set = |line: &str| {
            let (key, prefixes) = line.split_once(':').unwrap();
            let (namespace, own): (Option<Name>, Name) = match key.split_once('/') {
                Some((namespace, own)) => (Some(name(namespace)), name(own)),
                None => (None, name(key)),
            };
            let prefixes = prefixes.split_whitespace().map(|text| text.parse::<IpNetwork>().unwrap()).collect();
            (ResourceKey { kind: Kind::AddressSet, namespace, name: own }, prefixes)
        };
        Self(lines.lines().map(str::trim).filter(|line| !line.is_empty()).map(set).collect())
    }

    fn ask(&self, admin: &[ClusterEgressPolicy], policies: &[EgressPolicy], to: &str) -> Decision {
        let (shop, node) = (namespace("shop", Fallback::Deny, Fallback::Deny), Node::default());
        let model = Model::new([&shop], [], policies, [], &node)
            .with_cluster_policies(admin)
            .with_sets(self.0.iter().map(|(key, prefixes)| (key.clone(), prefixes)));
        let from = subject("shop", "app=web");
        let to = Target { address: to.parse().unwrap(), protocol: 6, port: 443 };
        decide(&model, &Query::From(Outbound { from: &from, to, resolved: &[], shown: Shown::NotYet, now: 100 }))
    }
}

const SETS: &str = "
    drop: 203.0.113.0/24 2001:db8:bad::/48
    shop/drop: 198.51.100.0/24
    shop/partners: 192.0.2.0/24 192.0.2.128/25 203.0.113.7/32 2001:db8::/32
    bank/partners: 10.0.0.0/8
";

#[test]
fn a_name_means_the_policys_own_set_unless_it_says_admin() {
    let own = [policy("shop", "web", "", "deny $_admin/drop\ndeny $drop\nallow $partners !192.0.2.9/32 tcp/443")];
    let sets = Sets::new(SETS);
    for (to, reason, text, mend) in [
        (
            "192.0.2.1",
            Reason::AllowedByCidr,
            "rule `shop/web allow[0]` allows TCP 443 of 192.0.2.0/24 of AddressSet `partners`",
            None,
        ),
        (
            "192.0.2.200",
            Reason::AllowedByCidr,
            "rule `shop/web allow[0]` allows TCP 443 of 192.0.2.128/25 of AddressSet `partners`",
            None,
        ),
        (
            "2001:db8::7",
            Reason::AllowedByCidr,
            "rule `shop/web allow[0]` allows TCP 443 of 2001:db8::/32 of AddressSet `partners`",
            None,
        ),
        (
            "203.0.113.7",
            Reason::DeniedByCidr,
            "rule `shop/web deny[0]` denies TCP 443 of 203.0.113.0/24 of AddressSet `_admin/drop`; a deny wins over every allow",
            Some("add 203.0.113.7/32 to `except` of rule `shop/web deny[0]`, or narrow its `sets` or `ports`"),
        ),
        (
            "198.51.100.1",
            Reason::DeniedByCidr,
            "rule `shop/web deny[1]` denies TCP 443 of 198.51.100.0/24 of AddressSet `drop`; a deny wins over every allow",
            Some("add 198.51.100.1/32 to `except` of rule `shop/web deny[1]`, or narrow its `sets` or `ports`"),
        ),
        (
            "192.0.2.9",
            Reason::DeniedByDefault,
            "no rule allows TCP 443 at 192.0.2.9, and the policy that selects the workload isolates it; rule `shop/web allow[0]` leaves 192.0.2.9 out by `except`",
            Some(
                "add `cidrs: [192.0.2.9/32]` with `ports: [{ protocol: TCP, port: 443 }]` under `allow` of an EgressPolicy of `shop` that selects the workload",
            ),
        ),
        (
            "10.0.0.1",
            Reason::DeniedByDefault,
            "no rule allows TCP 443 at 10.0.0.1, and the policy that selects the workload isolates it",
            Some(
                "add `cidrs: [10.0.0.1/32]` with `ports: [{ protocol: TCP, port: 443 }]` under `allow` of an EgressPolicy of `shop` that selects the workload",
            ),
        ),
    ] {
        let told = sets.ask(&[], &own, to);
        assert_eq!((told.reason, told.text.as_str(), told.mend.as_deref()), (reason, text, mend), "{to}");
    }
}

#[test]
fn the_admin_tier_has_the_administrators_sets_under_both_names() {
    let sets = Sets::new(SETS);
    let own = [policy("shop", "web", "", "allow 0.0.0.0/0")];
    for rule in ["deny $drop", "deny $_admin/drop"] {
        let told = sets.ask(&[admin("base", "", "", rule)], &own, "203.0.113.9");
        assert_eq!((told.reason, told.allowed), (Reason::DeniedByCidr, false), "{rule}");
        assert!(
            told.text.starts_with("admin rule `base deny[0]` denies TCP 443 of 203.0.113.0/24 of AddressSet `"),
            "{told:?}"
        );
        assert!(sets.ask(&[admin("base", "", "", rule)], &own, "198.51.100.1").allowed, "{rule}");
    }
}

#[test]
fn an_own_prefix_is_named_before_an_equal_one_of_a_set() {
    let sets = Sets::new("shop/a: 10.0.0.0/8\nshop/b: 10.0.0.0/8 10.1.0.0/16");
    let own = [policy("shop", "web", "", "allow 10.0.0.0/8 $a $b")];
    assert!(sets.ask(&[], &own, "10.2.0.1").text.ends_with(" of 10.0.0.0/8"));
    assert!(sets.ask(&[], &own, "10.1.0.1").text.ends_with(" of 10.1.0.0/16 of AddressSet `b`"));
    let own = [policy("shop", "web", "", "allow $a $b")];
    assert!(sets.ask(&[], &own, "10.2.0.1").text.ends_with(" of 10.0.0.0/8 of AddressSet `a`"));
}

#[test]
fn one_set_is_one_class_however_many_prefixes_and_rules() {
    let listed: String = (0..=255).map(|low| format!(" 10.0.{low}.0/24")).collect();
    let sets = Sets::new(&format!("shop/feed:{listed}"));
    let (shop, node) = (namespace("shop", Fallback::Deny, Fallback::Deny), Node::default());
    let own = [policy("shop", "web", "", "allow $feed tcp/443"), policy("shop", "all", "", "deny $feed udp/53")];
    let model = Model::new([&shop], [], &own, [], &node).with_sets(sets.0.iter().map(|(key, own)| (key.clone(), own)));
    let compiled = compile(&model, &[subject("shop", "")].into(), 1, PolicyId(1));
    assert_eq!(compiled.generation().prefixes.len(), 256);
    assert!(compiled.generation().rules.len() < 10, "{}", compiled.generation());
}
