use super::*;
use crate::resource::ResourceKey;

#[test]
fn times_are_written_and_read() {
    for (millis, text) in [
        (0, "1970-01-01T00:00:00.000Z"),
        (951_782_399_999, "2000-02-28T23:59:59.999Z"),
        (951_782_400_000, "2000-02-29T00:00:00.000Z"),
        (1_735_689_599_123, "2024-12-31T23:59:59.123Z"),
        (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
    ] {
        assert_eq!(Timestamp::from_millis(millis).to_string(), text);
        assert_eq!(text.parse::<Timestamp>().unwrap().millis(), millis);
    }
    assert_eq!("2025-03-01T12:00:00Z".parse::<Timestamp>().unwrap().to_string(), "2025-03-01T12:00:00.000Z");
    assert_eq!("2025-03-01T12:00:00.5Z".parse::<Timestamp>().unwrap().to_string(), "2025-03-01T12:00:00.500Z");
}

#[test]
fn every_day_of_the_range_comes_back() {
    for day in (0..2_932_896).step_by(17) {
        let time = Timestamp::from_millis(day * 86_400_000 + 1);
        assert_eq!(time.to_string().parse::<Timestamp>().unwrap(), time);
    }
}

#[test]
fn wrong_times_are_refused() {
    for text in [
        "",
        "Z",
        "2025-02-29T00:00:00Z",
        "2025-13-01T00:00:00Z",
        "2025-00-01T00:00:00Z",
        "2025-01-00T00:00:00Z",
        "2025-01-01T24:00:00Z",
    ] {
        assert!(text.parse::<Timestamp>().is_err(), "{text}");
    }
    for text in [
        "2025-01-01T00:00:00",
        "1969-12-31T23:59:59Z",
        "2025-1-1T00:00:00Z",
        "2025-01-01T00:00:00.Z",
        "2025-01-01T00:00:00.1é2Z",
    ] {
        assert!(text.parse::<Timestamp>().is_err(), "{text}");
    }
}

#[test]
fn targets_are_read_as_users_write_them() {
    for (text, shown) in [
        ("api.example.com", "api.example.com"),
        ("API.example.com.:443", "api.example.com:443"),
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1:80", "192.0.2.1:80"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:443", "[2001:db8::1]:443"),
    ] {
        assert_eq!(text.parse::<Target>().unwrap().to_string(), shown);
    }
    for text in ["", ":443", "host:", "host:0", "host:70000", "a b:1", "1.2.3:x"] {
        assert!(text.parse::<Target>().is_err(), "{text}");
    }
}

#[test]
fn kinds_are_named_as_kubectl_users_type_them() {
    let mut words = std::collections::BTreeSet::new();
    for kind in Kind::ALL {
        for word in [kind.singular(), kind.plural(), kind.short(), kind.as_str()] {
            assert_eq!(word.parse(), Ok(kind));
            assert_eq!(word.to_uppercase().parse(), Ok(kind));
        }
        assert!(words.insert(kind.singular()) && words.insert(kind.plural()) && words.insert(kind.short()));
    }
    let told = |word: &str| word.parse::<Kind>().unwrap_err().to_string();
    assert_eq!(told("netwrok"), "`netwrok` is no kind; did you mean `network`?");
    assert_eq!(
        told("pods"),
        "`pods` is no kind; use `networks`, `namespaces`, `addresssets`, `clusteregresspolicies`, `egresspolicies`, `networkpolicies`, `exposedapps` or `workloads`"
    );
}

#[test]
fn resource_names_come_back() {
    for text in [
        "network/tenant-a",
        "addressset/feed",
        "addressset/shop/feed",
        "clusteregresspolicy/base",
        "egresspolicy/shop/shop-egress",
        "workload/shop/web-1",
    ] {
        assert_eq!(text.parse::<ResourceName>().unwrap().to_string(), text);
    }
    for text in ["", "network", "network/", "network/a/b", "egp/a/b/c", "egresspolicy/shop/", "app/shop/Web", "pod/x"] {
        assert!(text.parse::<ResourceName>().is_err(), "{text}");
    }
}

#[test]
fn names_of_resources_become_keys_and_come_back() {
    let key = |text: &str| ResourceKey::try_from(text.parse::<ResourceName>().unwrap());
    for text in [
        "network/tenant-a",
        "namespace/shop",
        "addressset/feed",
        "addressset/shop/feed",
        "egresspolicy/shop/shop-egress",
        "exposedapp/shop/web",
    ] {
        let key = key(text).unwrap();
        assert_eq!(key.to_string(), text);
        assert_eq!(ResourceName::from(key), text.parse().unwrap());
    }
    let refused = |text: &str| key(text).unwrap_err().to_string();
    assert_eq!(refused("egp/x"), "`egresspolicy/x` is not complete; write egresspolicy/NAMESPACE/NAME");
    assert_eq!(
        refused("wl/shop/x"),
        "`workload/shop/x` is no resource of a manifest; workloads are made by `netctl attach` and end by `netctl detach`"
    );
    let name = |text: &str| text.parse().unwrap();
    let within = ResourceName { kind: Kind::Network, namespace: Some(name("shop")), name: name("a") };
    assert!(ResourceKey::try_from(within).is_err());
    let mut keys =
        ["egp/b/a", "egp/a/z", "cegp/z", "namespace/z", "namespace/a", "network/z"].map(|text| key(text).unwrap());
    keys.sort();
    assert_eq!(
        keys.map(|key| key.to_string()),
        ["network/z", "namespace/a", "namespace/z", "clusteregresspolicy/z", "egresspolicy/a/z", "egresspolicy/b/a"]
    );
}

#[test]
fn a_problem_without_a_line_has_no_line() {
    let problem = Problem {
        file: "network/a".to_owned(),
        line: None,
        key: String::new(),
        what: "it is wrong".to_owned(),
        mend: "mend it".to_owned(),
    };
    let text = r#"{"file":"network/a","key":"","what":"it is wrong","mend":"mend it"}"#;
    assert_eq!(serde_json::to_string(&problem).unwrap(), text);
    assert_eq!(serde_json::from_str::<Problem>(text).unwrap(), problem);
    assert_eq!(problem.to_string(), "network/a: it is wrong; mend it");
}

#[test]
fn requests_refuse_unknown_fields_and_answers_pass_over_them() {
    assert!(serde_json::from_str::<ApplyRequest>(r#"{"files":[],"force":true}"#).is_err());
    assert!(serde_json::from_str::<ApplyResponse>(r#"{"changes":[],"later":1}"#).is_ok());
}

#[test]
fn watch_events_have_a_type_and_an_object() {
    let event = WatchEvent::Added(serde_json::json!({"kind": "Network"}));
    assert_eq!(serde_json::to_string(&event).unwrap(), r#"{"type":"ADDED","object":{"kind":"Network"}}"#);
    assert_eq!(serde_json::to_string(&WatchEvent::Synced).unwrap(), r#"{"type":"SYNCED"}"#);
}
