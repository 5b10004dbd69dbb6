//! Walking a tree: values that know their key's path and report what is wrong with them.
//!
//! Every reader answers `None` when it has reported a problem, so that the decoder goes on to the next field and all
//! problems of a file come out at once.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::str::FromStr;

use super::report::Report;
use super::{Entry, Node, Value};
use crate::decode::later::Later;
use crate::names::NameError;
use crate::wording::{all_of, closest, one_of, quoted};

/// A value, its key's path, and where to report.
#[derive(Clone)]
pub(crate) struct Field<'n> {
    node: &'n Node,
    key: String,
    line: u32,
    report: &'n Report,
}

/// A mapping.
pub(crate) struct Fields<'n> {
    of: Field<'n>,
    entries: &'n [Entry],
    /// Known keys that unknown ones were probably meant to be: reported already, so not missing.
    meant: Vec<String>,
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

    pub(crate) fn is_map(&self) -> bool {
        matches!(self.node.value, Value::Map(_))
    }

    /// The mapping, after its keys were compared with the known ones and those of later releases.
    pub(crate) fn fields(&self, known: &[&str], later: &[(&str, Later)]) -> Option<Fields<'n>> {
        let mut fields = self.any_fields()?;
        for entry in fields.entries {
            let field = fields.field(entry);
            if let Some((_, later)) = later.iter().find(|(key, _)| *key == entry.key) {
                field.later(*later);
            } else if !known.contains(&entry.key.as_str()) {
                let mend = match closest(&entry.key, known.iter().copied()) {
                    Some(close) => {
                        fields.meant.push(close.to_owned());
                        format!("did you mean `{close}`?")
                    }
                    None if known.len() == 1 => format!("the only field here is {}", all_of(known)),
                    None => format!("the fields here are {}", all_of(known)),
                };
                field.problem(format!("unknown field {}", quoted(&entry.key)), mend);
            }
        }
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

    /// Reports every key that stands twice in one mapping, at any depth.
    pub(crate) fn refuse_repeated_keys(&self) {
        match &self.node.value {
            Value::Map(entries) => {
                let mut first = BTreeMap::new();
                let fields = Fields::new(self, entries);
                for entry in entries {
                    let field = fields.field(entry);
                    if let Some(line) = first.insert(entry.key.as_str(), entry.line) {
                        let what = format!("the key stands here again after line {line}");
                        field.problem(what, "keep one of them");
                    }
                    field.refuse_repeated_keys();
                }
            }
            Value::List(_) => self.items().iter().flatten().for_each(Self::refuse_repeated_keys),
            Value::Null | Value::Bool(_) | Value::Number(..) | Value::Text(_) | Value::Refused => {}
        }
    }

    /// The line of every key below this value.
    pub(crate) fn lines(&self, into: &mut BTreeMap<String, u32>) {
        into.insert(self.key.clone(), self.line);
        match &self.node.value {
            Value::Map(entries) => {
                let fields = Fields::new(self, entries);
                entries.iter().for_each(|entry| fields.field(entry).lines(into));
            }
            Value::List(_) => self.items().iter().flatten().for_each(|item| item.lines(into)),
            Value::Null | Value::Bool(_) | Value::Number(..) | Value::Text(_) | Value::Refused => {}
        }
    }
}

impl<'n> Fields<'n> {
    fn new(of: &Field<'n>, entries: &'n [Entry]) -> Self {
        Self { of: of.clone(), entries, meant: Vec::new() }
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

    /// The mapping itself.
    pub(crate) fn itself(&self) -> &Field<'n> {
        &self.of
    }

    /// Every key with its value.
    pub(crate) fn each(&self) -> impl Iterator<Item = (&'n str, Field<'n>)> {
        self.entries.iter().map(|entry| (entry.key.as_str(), self.field(entry)))
    }

    fn optional_or_null(&self, key: &str) -> Option<Field<'n>> {
        self.entries.iter().find(|entry| entry.key == key).map(|entry| self.field(entry))
    }

    fn field(&self, entry: &'n Entry) -> Field<'n> {
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
