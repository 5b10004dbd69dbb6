use super::*;

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
fn kinds_have_three_words_each_and_no_two_share_one() {
    let mut words = std::collections::BTreeSet::new();
    for kind in Kind::ALL {
        for word in [kind.word(), kind.plural(), kind.short(), kind.text()] {
            assert_eq!(word.parse::<Kind>().unwrap(), *kind);
        }
        assert!(words.insert(kind.word()) && words.insert(kind.plural()) && words.insert(kind.short()));
    }
    assert!("pod".parse::<Kind>().unwrap_err().to_string().contains("networks, namespaces"));
}

#[test]
fn resource_names_come_back() {
    for text in ["network/tenant-a", "egresspolicy/shop/shop-egress", "workload/shop/web-1"] {
        assert_eq!(text.parse::<ResourceName>().unwrap().to_string(), text);
    }
    for text in ["network", "network/a/b", "egresspolicy/shop/", "pod/x"] {
        assert!(text.parse::<ResourceName>().is_err(), "{text}");
    }
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
