//! Text to trees of values that remember their lines.
//!
//! [`load`] reads YAML (and with it JSON) event by event within fixed bounds; [`json`] turns a JSON value into the same
//! tree. Scalars follow the core schema of YAML 1.2 (`yes` is text, `0x10` and `010` are refused where a number is
//! meant). [`field`] and
//! [`fields`] are how the decoder reads a tree: they know the key's path and note problems in the [`report`]. [`walk`]
//! looks at a tree as a whole.

pub(crate) mod field;
pub(crate) mod fields;
pub(crate) mod json;
pub(crate) mod load;
pub(crate) mod report;
mod scalar;
mod walk;

/// A value and where it stands.
#[derive(Debug)]
pub(crate) struct Node {
    /// From 1; 0 where the value has no text.
    pub(crate) line: u32,
    pub(crate) value: Value,
}

/// A value as written.
#[derive(Debug)]
pub(crate) enum Value {
    /// `null`, `~`, or nothing at all.
    Null,
    Bool(bool),
    /// The whole number, if it is written in plain decimal, and the text.
    Number(Option<i64>, String),
    Text(String),
    List(Vec<Node>),
    /// In the order of the text; keys may repeat.
    Map(Vec<Entry>),
    /// Already reported; whatever it was meant to be.
    Refused,
}

/// A key and its value.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    /// Line of the key.
    pub(crate) line: u32,
    pub(crate) value: Node,
}
