//! The keys of a mapping: which are there, which are missing.

use super::field::Field;
use super::{Entry, Value};
use crate::decode::later::Later;
use crate::wording::{all_of, closest, quoted};

/// A mapping.
pub(crate) struct Fields<'n> {
    of: Field<'n>,
    entries: &'n [Entry],
    /// Known keys that unknown ones were probably meant to be: reported already, so not missing.
    meant: Vec<String>,
}

impl<'n> Fields<'n> {
    pub(super) fn new(of: &Field<'n>, entries: &'n [Entry]) -> Self {
        Self { of: of.clone(), entries, meant: Vec::new() }
    }

    /// Reports keys that are not known, and those that wait for a later release.
    pub(super) fn refuse_unknown(&mut self, known: &[&str], later: &[(&str, Later)]) {
        for entry in self.entries {
            let field = self.field(entry);
            if let Some((_, later)) = later.iter().find(|(key, _)| *key == entry.key) {
                field.later(*later);
            } else if !known.contains(&entry.key.as_str()) {
                let mend = match closest(&entry.key, known.iter().copied()) {
                    Some(close) => {
                        self.meant.push(close.to_owned());
                        format!("did you mean `{close}`?")
                    }
                    None if known.len() == 1 => format!("the only field here is {}", all_of(known)),
                    None => format!("the fields here are {}", all_of(known)),
                };
                field.problem(format!("unknown field {}", quoted(&entry.key)), mend);
            }
        }
    }

    /// The field, if it is there. One without a value is refused: it would be read as if it were not there.
    pub(crate) fn optional(&self, key: &str) -> Option<Field<'n>> {
        let field = self.optional_or_null(key)?;
        if matches!(field.node.value, Value::Null) {
            field.problem("the field has no value", "write one, or leave the field out");
            return None;
        }
        Some(field)
    }

    /// The field, if it is there with a value.
    pub(crate) fn optional_with_value(&self, key: &str) -> Option<Field<'n>> {
        self.optional_or_null(key).filter(|field| !matches!(field.node.value, Value::Null))
    }

    /// The field; where it is missing, `mend` says what to write.
    pub(crate) fn required(&self, key: &str, mend: &str) -> Option<Field<'n>> {
        match self.optional_or_null(key) {
            None if self.has(key) => {}
            None => self.of.problem(format!("`{key}` is missing"), mend),
            Some(field) if matches!(field.node.value, Value::Null) => field.problem("the field has no value", mend),
            Some(field) => return Some(field),
        }
        None
    }

    /// Whether the field is there, or was meant to be.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|entry| entry.key == key) || self.meant.iter().any(|meant| meant == key)
    }

    /// Every key with its value.
    pub(crate) fn each(&self) -> impl Iterator<Item = (&'n str, Field<'n>)> {
        self.entries.iter().map(|entry| (entry.key.as_str(), self.field(entry)))
    }

    fn optional_or_null(&self, key: &str) -> Option<Field<'n>> {
        self.entries.iter().find(|entry| entry.key == key).map(|entry| self.field(entry))
    }

    pub(super) fn field(&self, entry: &'n Entry) -> Field<'n> {
        let plain =
            !entry.key.is_empty() && entry.key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        let key = match (plain && entry.key.len() <= 40, self.of.key.is_empty()) {
            (true, true) => entry.key.clone(),
            (true, false) => format!("{}.{}", self.of.key, entry.key),
            (false, _) => format!("{}[{}]", self.of.key, quoted(&entry.key).replace('`', "\"")),
        };
        Field { node: &entry.value, key, line: entry.line, report: self.of.report }
    }
}
