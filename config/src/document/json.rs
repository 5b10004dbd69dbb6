//! JSON values to the same trees, without lines.

use serde_json::Value as Json;

use super::{Entry, Node, Value};

/// A text that is JSON and nothing else. Most JSON is read as YAML, with its lines; tabs behind a colon and some
/// escapes are not YAML, and come here.
pub(super) fn read(text: &str) -> Option<Node> {
    serde_json::from_str(text).ok().map(|json: Json| node(&json, 1))
}

/// The tree of a JSON value.
pub(crate) fn node(json: &Json, line: u32) -> Node {
    let value = match json {
        Json::Null => Value::Null,
        Json::Bool(yes) => Value::Bool(*yes),
        Json::Number(number) => Value::Number(number.as_i64(), number.to_string()),
        Json::String(text) => Value::Text(text.clone()),
        Json::Array(items) => Value::List(items.iter().map(|item| node(item, line)).collect()),
        Json::Object(entries) => Value::Map(
            entries.iter().map(|(key, value)| Entry { key: key.clone(), line, value: node(value, line) }).collect(),
        ),
    };
    Node { line, value }
}
