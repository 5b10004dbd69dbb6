//! What concerns a tree as a whole: keys that stand twice, and the lines of all keys.

use std::collections::BTreeMap;

use super::Value;
use super::field::Field;
use super::fields::Fields;

impl Field<'_> {
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
