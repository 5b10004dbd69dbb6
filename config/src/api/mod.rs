//! The admin API: JSON over HTTP/1.1 on the daemon's Unix socket, and what `netctl … -o json` prints. Stable: fields
//! are added, never renamed or given another meaning.
//!
//! Keys are camelCase, times are RFC 3339 in UTC ([`Timestamp`]), sizes are bytes. Resources travel in their
//! Kubernetes form (`apiVersion`, `kind`, `metadata`, `spec`, `status`); [`resources`] says what stands in `status`.
//! Unknown fields of a request are refused, so that an older daemon cannot pass over what a newer `netctl` asks;
//! unknown fields of an answer are passed over.
//!
//! A refused request is answered with an HTTP status of 400 or above and an [`ErrorBody`]. Problems *in manifests* are
//! no refusal of the request: they come with status 200 in `problems`, all at once, and nothing was changed then.
//!
//! 1. [`kind`]: the kinds, and the words for them on the command line.
//! 2. [`change`]: manifests in, changes out: apply, diff, plan, delete.
//! 3. [`resources`]: list, get, watch; the workload.
//! 4. [`sets`]: single changes of an address set.
//! 5. [`explain`]: would it pass, by which rule, how to mend.
//! 6. [`flow`]: open flows and events.
//! 7. [`status`]: status and doctor.
//! 8. [`cni`]: what the CNI plugin asks.
//! 9. [`time`]: the timestamp.

pub mod change;
pub mod cni;
pub mod explain;
pub mod flow;
pub mod kind;
pub mod resources;
pub mod sets;
pub mod status;
pub mod time;

use serde::{Deserialize, Serialize};

pub use change::{
    Action, ApplyRequest, ApplyResponse, Change, DeleteRequest, DiffResponse, Difference, File, FilesRequest,
    PlanResponse, TrialRequest,
};
pub use cni::{Attachment, CniAddRequest, CniGcRequest, CniStatusRequest, Connected, ConnectedAddress};
pub use explain::{Answer, ExplainRequest, Explanation, Host, Protocol, Target, WorkloadName};
pub use flow::{Direction, Endpoint, Flow, FlowEvent, FlowList, FlowQuery, Verdict};
pub use kind::{Kind, ResourceName};
pub use resources::{
    AttachRequest, DetachRequest, ResourceList, ResourceQuery, WatchEvent, Workload, WorkloadMetadata, WorkloadSpec,
    WorkloadStatus,
};
pub use sets::{PatchSetRequest, PatchSetResponse};
pub use status::{
    Check, Condition, ConditionState, DnsFailure, DnsServer, DnsStatus, Doctor, EdgeApp, EdgeStatus, MapFill,
    NetworkStatus, Segment, SegmentState, Status,
};
pub use time::Timestamp;

pub use crate::problem::Problem;
pub use crate::resource::API_VERSION;

/// Where the daemon listens when nothing else is said.
pub const DEFAULT_SOCKET: &str = "/run/tidegate/gateway.sock";

/// The largest request body, bytes. Larger sets of manifests are applied in parts.
pub const MAX_BODY: usize = 16 * 1024 * 1024;

/// The body of an answer with an HTTP status of 400 or above.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ErrorBody {
    /// What is wrong, for the user.
    pub message: String,
    /// What to do about it; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mend: String,
}

fn is_false(value: &bool) -> bool {
    !*value
}

#[cfg(test)]
mod tests;
