//! Labels, and what a selector makes of them.

use std::collections::{BTreeMap, BTreeSet};

use crate::names::NameError;
use crate::wording::{quoted, wrong};

/// Labels of a namespace or workload.
pub type Labels = BTreeMap<String, String>;

/// The label that every namespace carries, with its own name as value (as in Kubernetes).
pub const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// A selector of labels, as Kubernetes has it; an empty one selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector {
    /// `matchLabels`: labels that must all be there.
    pub labels: Labels,
    /// `matchExpressions`, all of which must hold.
    pub expressions: Vec<Expression>,
}

/// One of `matchExpressions`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Expression {
    /// The label's key.
    pub key: String,
    /// What must be so of it.
    pub requirement: Requirement,
}

/// `operator`, with `values` where it takes some (at least one).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Requirement {
    /// It is there, with one of these values.
    In(BTreeSet<String>),
    /// It has none of these values; one that is not there has none.
    NotIn(BTreeSet<String>),
    /// It is there.
    Exists,
    /// It is not there.
    DoesNotExist,
}

/// Whether something with these labels is selected.
pub fn selects(selector: &Selector, labels: &Labels) -> bool {
    let there = selector.labels.iter().all(|(key, value)| labels.get(key) == Some(value));
    there && selector.expressions.iter().all(|expression| expression.holds(labels))
}

impl Selector {
    /// Whether it selects everything.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.expressions.is_empty()
    }
}

impl From<Labels> for Selector {
    /// By `matchLabels` alone.
    fn from(labels: Labels) -> Self {
        Self { labels, expressions: Vec::new() }
    }
}

impl Expression {
    fn holds(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        match &self.requirement {
            Requirement::In(values) => value.is_some_and(|value| values.contains(value)),
            Requirement::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            Requirement::Exists => value.is_some(),
            Requirement::DoesNotExist => value.is_none(),
        }
    }
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

    fn by_labels(pairs: &[(&str, &str)]) -> Selector {
        labels(pairs).into()
    }

    fn by_expression(key: &str, requirement: Requirement) -> Selector {
        Selector { labels: Labels::new(), expressions: vec![Expression { key: key.to_owned(), requirement }] }
    }

    #[test]
    fn an_empty_selector_selects_everything() {
        assert!(selects(&Selector::default(), &Labels::new()));
        assert!(selects(&Selector::default(), &labels(&[("app", "web")])));
    }

    #[test]
    fn every_label_of_the_selector_must_be_there() {
        let own = labels(&[("app", "web"), ("tier", "front")]);
        assert!(selects(&by_labels(&[("app", "web")]), &own));
        assert!(!selects(&by_labels(&[("app", "db")]), &own));
        assert!(!selects(&by_labels(&[("app", "web"), ("zone", "a")]), &own));
        assert!(!selects(&by_labels(&[("zone", "")]), &own), "an empty value is a value");
    }

    #[test]
    fn expressions_speak_of_labels_that_are_not_there_too() {
        let (web, db, none) = (labels(&[("app", "web")]), labels(&[("app", "db")]), labels(&[("tier", "front")]));
        let values = || BTreeSet::from(["web".to_owned(), "jobs".to_owned()]);
        for (requirement, selected) in [
            (Requirement::In(values()), [true, false, false]),
            (Requirement::NotIn(values()), [false, true, true]),
            (Requirement::Exists, [true, true, false]),
            (Requirement::DoesNotExist, [false, false, true]),
        ] {
            let selector = by_expression("app", requirement);
            assert_eq!([&web, &db, &none].map(|own| selects(&selector, own)), selected, "{selector:?}");
            let both = Selector { labels: labels(&[("tier", "front")]), ..selector };
            assert!(!selects(&both, &web), "labels and expressions must both hold");
        }
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
