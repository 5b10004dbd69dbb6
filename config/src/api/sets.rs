//! Single changes of an address set.

use serde::{Deserialize, Serialize};

use super::is_false;
use crate::names::Name;

/// `POST /v1/patch/addressset`: prefixes in and out of a set that lists its `cidrs`, without sending the others. The
/// answer comes when the kernel obeys and the change is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PatchSetRequest {
    /// Its namespace; `None` for one of the administrators'.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Name>,
    /// Its name.
    pub name: Name,
    /// Prefixes, or addresses alone, that shall be in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<String>,
    /// Those that shall not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
    /// Check and answer, change nothing.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dry_run: bool,
}

/// Answer to a change of a set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PatchSetResponse {
    /// Its namespace; `None` for one of the administrators'.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Name>,
    /// Its name.
    pub name: Name,
    /// Prefixes in it now, or that would be.
    pub prefixes: u64,
    /// Came in.
    pub added: u64,
    /// Went out.
    pub removed: u64,
    /// Asked to come in, and there already.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub already_there: Vec<String>,
    /// Asked to go out, and not there; what covers such a prefix, or lies in it, stays.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_there: Vec<String>,
}
