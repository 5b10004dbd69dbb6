//! Labels, and what a selector makes of them.

use std::collections::BTreeMap;

use crate::names::NameError;
use crate::wording::{quoted, wrong};

/// Labels of a namespace or workload; as a selector, the labels that must all be there.
pub type Labels = BTreeMap<String, String>;

/// The label that every namespace carries, with its own name as value (as in Kubernetes).
pub const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// Whether a workload with these labels is selected. An empty selector selects every workload.
pub fn selects(selector: &Labels, labels: &Labels) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// Checks one label by the rules of Kubernetes, so that manifests can move there.
///
/// # Errors
/// The key is not `[prefix/]name`, or the value is not empty and not a word of 1–63 bytes.
pub fn check_label(key: &str, value: &str) -> Result<(), NameError> {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    if !is_word(name) || prefix.is_some_and(|prefix| !is_subdomain(prefix)) {
        return Err(wrong(
            format!("{} is not a label key", quoted(key)),
            "use 1–63 of a-z, A-Z, 0-9, - _ and ., if you like behind a DNS name and /, as `team` or `example.com/team`",
        ));
    }
    if !value.is_empty() && !is_word(value) {
        return Err(wrong(
            format!("{} is not a label value", quoted(value)),
            "use up to 63 of a-z, A-Z, 0-9, - _ and ., with a letter or digit at both ends",
        ));
    }
    Ok(())
}

fn is_word(text: &str) -> bool {
    let inside = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    let ends = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    inside && text.len() <= 63 && ends(text.bytes().next()) && ends(text.bytes().next_back())
}

fn is_subdomain(text: &str) -> bool {
    let label = |l: &str| {
        !l.is_empty()
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn an_empty_selector_selects_everything() {
        assert!(selects(&Labels::new(), &Labels::new()));
        assert!(selects(&Labels::new(), &labels(&[("app", "web")])));
    }

    #[test]
    fn every_label_of_the_selector_must_be_there() {
        let own = labels(&[("app", "web"), ("tier", "front")]);
        assert!(selects(&labels(&[("app", "web")]), &own));
        assert!(!selects(&labels(&[("app", "db")]), &own));
        assert!(!selects(&labels(&[("app", "web"), ("zone", "a")]), &own));
    }

    #[test]
    fn labels_follow_the_rules_of_kubernetes() {
        for (key, value) in [("app", "web"), ("example.com/team", "A_b.c-9"), ("a", ""), (NAMESPACE_NAME_LABEL, "shop")]
        {
            assert!(check_label(key, value).is_ok(), "{key}={value}");
        }
        let long = "x".repeat(64);
        for (key, value) in [
            ("", "web"),
            ("-app", "web"),
            ("a/b/c", "web"),
            ("/team", "web"),
            ("Example.com/team", "web"),
            ("app", "two words"),
            ("app", "-web"),
            ("app", &long),
            (&long, "web"),
        ] {
            assert!(check_label(key, value).is_err(), "{key}={value}");
        }
    }
}
