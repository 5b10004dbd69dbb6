//! Walking a tree: values that know their key's path and report what is wrong with them.
//!
//! Every reader answers `None` when it has reported a problem, so that the decoder goes on to the next field and all
//! problems of a file come out at once.

use std::ops::RangeInclusive;
use std::str::FromStr;

use super::fields::Fields;
use super::report::Report;
use super::{Node, Value};
use crate::decode::later::Later;
use crate::names::NameError;
use crate::wording::{closest, one_of, quoted};

/// A value, its key's path, and where to report.
#[derive(Clone)]
pub(crate) struct Field<'n> {
    pub(super) node: &'n Node,
    pub(super) key: String,
    pub(super) line: u32,
    pub(super) report: &'n Report,
}

impl<'n> Field<'n> {
    /// A whole document, or an item of a list of resources.
    pub(crate) fn root(node: &'n Node, report: &'n Report) -> Self {
        Self { node, key: String::new(), line: node.line, report }
    }

    /// The same value with its path beginning here.
    pub(crate) fn as_root(&self) -> Self {
        Self { key: String::new(), ..self.clone() }
    }

    pub(crate) fn line(&self) -> u32 {
        self.line
    }

    pub(crate) fn report(&self) -> &'n Report {
        self.report
    }

    /// Notes a problem of this value.
    pub(crate) fn problem(&self, what: impl Into<String>, mend: impl Into<String>) {
        self.report.add(self.line, &self.key, what, mend);
    }

    /// Notes that this value waits for a later release.
    pub(crate) fn later(&self, later: Later) {
        self.problem(later.what(), later.mend());
    }

    /// The text, if it is one; reports nothing.
    pub(crate) fn peek(&self) -> Option<&'n str> {
        match &self.node.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn is_list(&self) -> bool {
        matches!(self.node.value, Value::List(_))
    }

    pub(crate) fn is_map(&self) -> bool {
        matches!(self.node.value, Value::Map(_))
    }

    /// The mapping, after its keys were compared with the known ones and those of later releases.
    pub(crate) fn fields(&self, known: &[&str], later: &[(&str, Later)]) -> Option<Fields<'n>> {
        let mut fields = self.any_fields()?;
        fields.refuse_unknown(known, later);
        Some(fields)
    }

    /// The mapping, whatever its keys are.
    pub(crate) fn any_fields(&self) -> Option<Fields<'n>> {
        match &self.node.value {
            Value::Map(entries) => Some(Fields::new(self, entries)),
            _ => self.wrong_type("a mapping"),
        }
    }

    /// The items of a list.
    pub(crate) fn items(&self) -> Option<Vec<Field<'n>>> {
        match &self.node.value {
            Value::List(nodes) => Some(
                nodes
                    .iter()
                    .enumerate()
                    .map(|(i, node)| Field { node, key: format!("{}[{i}]", self.key), line: node.line, ..self.clone() })
                    .collect(),
            ),
            _ => self.wrong_type("a list"),
        }
    }

    /// The items of a list that must not be empty.
    pub(crate) fn some_items(&self, what: &str) -> Option<Vec<Field<'n>>> {
        let items = self.items()?;
        if items.is_empty() {
            self.problem("the list is empty", format!("write at least one {what}"));
            return None;
        }
        Some(items)
    }

    /// Each item read; `None` if one of them could not be.
    pub(crate) fn all<T>(items: &[Field<'n>], read: impl Fn(&Field<'n>) -> Option<T>) -> Option<Vec<T>> {
        let read: Vec<Option<T>> = items.iter().map(read).collect();
        read.into_iter().collect()
    }

    /// Text. Numbers and booleans need quotes to be text.
    pub(crate) fn text(&self) -> Option<&'n str> {
        match &self.node.value {
            Value::Text(text) => Some(text),
            _ => self.wrong_type("text"),
        }
    }

    /// Text that parses.
    pub(crate) fn parse<T: FromStr<Err = NameError>>(&self) -> Option<T> {
        self.read(str::parse)
    }

    /// Text that `read` takes.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&'n str) -> Result<T, NameError>) -> Option<T> {
        match read(self.text()?) {
            Ok(value) => Some(value),
            Err(NameError { problem, mend }) => {
                self.problem(problem, mend);
                None
            }
        }
    }

    /// A whole number of the range. `what` begins the message, as `a port`.
    pub(crate) fn integer<T: TryFrom<i64>>(&self, what: &str, range: RangeInclusive<i64>) -> Option<T> {
        let Value::Number(number, text) = &self.node.value else {
            return self.wrong_type("a number");
        };
        let value = number.filter(|n| range.contains(n)).and_then(|n| T::try_from(n).ok());
        if value.is_none() {
            let mend = format!("write a whole number from {} to {}", range.start(), range.end());
            self.problem(format!("{} is not {what}", quoted(text)), mend);
        }
        value
    }

    /// One of the words.
    pub(crate) fn choice<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        let text = self.text()?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.not_one_of(text, &known);
        }
        found
    }

    /// One of the words, some of which wait for a later release.
    pub(crate) fn choice_or_later<T: Copy>(&self, words: &[(&str, Result<T, Later>)]) -> Option<T> {
        let text = self.text()?;
        for (word, choice) in words {
            match choice {
                Ok(value) if *word == text => return Some(*value),
                Err(later) if word.eq_ignore_ascii_case(text) => {
                    self.later(*later);
                    return None;
                }
                Ok(_) | Err(_) => {}
            }
        }
        let known: Vec<&str> = words.iter().filter(|(_, choice)| choice.is_ok()).map(|(word, _)| *word).collect();
        self.not_one_of(text, &known);
        None
    }

    fn not_one_of(&self, text: &str, known: &[&str]) {
        let mend = match closest(text, known.iter().copied()) {
            Some(close) => format!("did you mean `{close}`?"),
            None => format!("write {}", one_of(known)),
        };
        self.problem(format!("{} is not {}", quoted(text), one_of(known)), mend);
    }

    fn wrong_type<T>(&self, expected: &str) -> Option<T> {
        let found = match &self.node.value {
            Value::Refused => return None,
            Value::Null => "nothing".to_owned(),
            Value::Bool(yes) => format!("the boolean `{yes}`"),
            Value::Number(_, text) => format!("the number {}", quoted(text)),
            Value::Text(text) => format!("the text {}", quoted(text)),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a mapping".to_owned(),
        };
        let mend = match (&self.node.value, expected) {
            (Value::Bool(yes), "text") => format!("put it in quotes: \"{yes}\""),
            (Value::Number(_, text), "text") => format!("put it in quotes: \"{text}\""),
            (Value::Text(text), "a number") if text.parse::<i64>().is_ok() => format!("leave the quotes out: {text}"),
            (_, "a mapping") => "write `key: value`".to_owned(),
            (_, "a list") => "write `[ … ]`, or a line that begins with `-` for each item".to_owned(),
            _ => format!("write {expected}"),
        };
        self.problem(format!("expected {expected}, found {found}"), mend);
        None
    }
}
