//! JSON to the same trees, without lines. A key that stands twice stays there twice, so that it is refused.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::{Entry, Node, Value};

/// A text that is JSON and nothing else. Most JSON is read as YAML, with its lines; tabs behind a colon and some
/// escapes are not YAML, and come here.
pub(super) fn read(text: &str) -> Option<Node> {
    let mut node = serde_json::from_str(text).ok()?;
    set_line(&mut node, 1);
    Some(node)
}

/// The tree of a JSON value.
pub(crate) fn node(json: &serde_json::Value) -> Result<Node, serde_json::Error> {
    Node::deserialize(json)
}

fn set_line(node: &mut Node, line: u32) {
    node.line = line;
    match &mut node.value {
        Value::List(items) => items.iter_mut().for_each(|item| set_line(item, line)),
        Value::Map(entries) => entries.iter_mut().for_each(|entry| {
            entry.line = line;
            set_line(&mut entry.value, line);
        }),
        Value::Null | Value::Bool(_) | Value::Number(..) | Value::Text(_) | Value::Refused => {}
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(ValueVisitor).map(|value| Self { line: 0, value })
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, yes: bool) -> Result<Value, E> {
        Ok(Value::Bool(yes))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Number(Some(number), number.to_string()))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Number(i64::try_from(number).ok(), number.to_string()))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Value, E> {
        Ok(Value::Number(None, number.to_string()))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Value, E> {
        Ok(Value::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = items.next_element()? {
            nodes.push(node);
        }
        Ok(Value::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some((key, value)) = map.next_entry()? {
            entries.push(Entry { key, line: 0, value });
        }
        Ok(Value::Map(entries))
    }
}
