//! Manifests in, changes out.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::is_false;
use super::kind::{Kind, ResourceName};
use super::time::Timestamp;
use crate::names::Name;
use crate::problem::Problem;

/// One manifest as the user has it. The daemon parses it, so that there is one decoder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct File {
    /// For messages only: the path as the user wrote it, or `stdin`.
    pub name: String,
    /// YAML, several documents, or JSON.
    pub text: String,
}

/// `POST /v1/apply`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApplyRequest {
    /// The manifests.
    pub files: Vec<File>,
    /// Check and answer, change nothing.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dry_run: bool,
    /// Delete every resource that the files do not hold.
    #[serde(default, skip_serializing_if = "is_false")]
    pub prune: bool,
    /// Take it all back unless it is confirmed within so many seconds, 1–3600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm_within: Option<u32>,
}

/// `POST /v1/confirm`, `POST /v1/rollback`: keep the change that is on trial, or take it back now. Answered as apply is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrialRequest {}

/// `POST /v1/diff`, `POST /v1/plan`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FilesRequest {
    /// The manifests.
    pub files: Vec<File>,
}

/// `POST /v1/delete`: the named resources and those that the files hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeleteRequest {
    /// By name.
    #[serde(default)]
    pub names: Vec<ResourceName>,
    /// By manifest; only kind, namespace and name count.
    #[serde(default)]
    pub files: Vec<File>,
    /// Check and answer, change nothing.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dry_run: bool,
}

/// What happened to one resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; `None` for node-wide kinds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Name>,
    /// Its name.
    pub name: Name,
    /// What was done, or would be.
    pub action: Action,
}

impl Change {
    /// The resource's name.
    pub fn resource(&self) -> ResourceName {
        ResourceName { kind: self.kind, namespace: self.namespace.clone(), name: self.name.clone() }
    }
}

/// What was done to a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It was not there.
    Created,
    /// It was there, and is another now.
    Configured,
    /// It was there as it is.
    Unchanged,
    /// It is gone.
    Deleted,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Created => "created",
            Self::Configured => "configured",
            Self::Unchanged => "unchanged",
            Self::Deleted => "deleted",
        })
    }
}

/// Answer to apply and to delete. With problems nothing was changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApplyResponse {
    /// In the order of the files; pruned resources last.
    pub changes: Vec<Change>,
    /// Everything wrong with the files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
    /// The netlink and table steps taken, or that would be taken; may be left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<String>,
    /// Until when it is on trial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm_by: Option<Timestamp>,
}

/// Answer to diff.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DiffResponse {
    /// One entry for each resource of the files that differs.
    pub differences: Vec<Difference>,
    /// Everything wrong with the files; no differences then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
}

/// A resource as it is and as it would be, both without `status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// Which.
    pub resource: ResourceName,
    /// As it is; `None` when it is not there.
    pub current: Option<Value>,
    /// As it would be.
    pub new: Option<Value>,
}

/// Answer to plan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanResponse {
    /// In the order in which they would be taken; empty when the node is as the files want it.
    pub steps: Vec<String>,
    /// Everything wrong with the files; no steps then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
}
