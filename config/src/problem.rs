//! What is wrong with a resource, where, and the mend.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One thing to mend, in a manifest or between resources. As text `shop.yaml:12: spec.allow[1].ports[0].port: what; mend`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Problem {
    /// The file's name as it was given, or the resource (`network/tenant-a`) where no file is known.
    pub file: String,
    /// Line in the file, from 1; `None`, and absent in JSON, where no file is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Path of the key, as `spec.allow[1].ports[0].port`; empty for the whole document.
    pub key: String,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub mend: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        f.write_str(": ")?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "{}; {}", self.what, self.mend)
    }
}

impl std::error::Error for Problem {}
