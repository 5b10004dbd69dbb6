//! What the admin server asks of the composition.

use std::pin::Pin;

use config::api::{
    ApplyRequest, ApplyResponse, AttachRequest, Attachment, CniAddRequest, CniGcRequest, CniStatusRequest, Connected,
    DeleteRequest, DetachRequest, DiffResponse, Doctor, ExplainRequest, Explanation, FilesRequest, Flow, FlowList,
    FlowQuery, PatchSetRequest, PatchSetResponse, PlanResponse, ResourceList, ResourceQuery, Status, TrialRequest,
    WatchEvent, Workload,
};
use tokio::sync::mpsc;

/// An answer in the making.
pub type Reply<'a, T> = Pin<Box<dyn Future<Output = Result<T, ControlError>> + Send + 'a>>;

/// The daemon, as its admin socket drives it: one method a verb. Implemented with `Box::pin(async move { … })`.
///
/// Problems in manifests are answers (`problems`), not errors. A future is never dropped before it is done.
/// Of a stream, the sender ends it by dropping its side, and sees the client leave by `send` failing.
pub trait Control: Send + Sync + 'static {
    /// Puts the manifests in force, all or none.
    fn apply(&self, request: ApplyRequest) -> Reply<'_, ApplyResponse>;
    /// Keeps the change that is on trial.
    fn confirm(&self, request: TrialRequest) -> Reply<'_, ApplyResponse>;
    /// Takes it back now.
    fn rollback(&self, request: TrialRequest) -> Reply<'_, ApplyResponse>;
    /// What `apply` would change in the resources.
    fn diff(&self, request: FilesRequest) -> Reply<'_, DiffResponse>;
    /// What `apply` would do to the node.
    fn plan(&self, request: FilesRequest) -> Reply<'_, PlanResponse>;
    /// Resources of a kind, ordered; an unknown name gives an empty list.
    fn list(&self, query: ResourceQuery) -> Reply<'_, ResourceList>;
    /// The same, and what happens to them from then on.
    fn watch(&self, query: ResourceQuery) -> Reply<'_, mpsc::Receiver<WatchEvent>>;
    /// Deletes resources, all or none.
    fn delete(&self, request: DeleteRequest) -> Reply<'_, ApplyResponse>;
    /// Adds and removes prefixes of an address set.
    fn patch_set(&self, request: PatchSetRequest) -> Reply<'_, PatchSetResponse>;
    /// Attaches a workload; the same request again is answered with the workload that is there.
    fn attach(&self, request: AttachRequest) -> Reply<'_, Workload>;
    /// Detaches a workload.
    fn detach(&self, request: DetachRequest) -> Reply<'_, ()>;
    /// Attaches what a container engine adds.
    fn cni_add(&self, request: CniAddRequest) -> Reply<'_, Connected>;
    /// Detaches it; done, where it is not there.
    fn cni_del(&self, attachment: Attachment) -> Reply<'_, ()>;
    /// Looks whether it still is as it was made.
    fn cni_check(&self, attachment: Attachment) -> Reply<'_, Connected>;
    /// Detaches what its engine knows no more.
    fn cni_gc(&self, request: CniGcRequest) -> Reply<'_, ()>;
    /// Whether something could be added.
    fn cni_status(&self, request: CniStatusRequest) -> Reply<'_, ()>;
    /// Would it pass.
    fn explain(&self, request: ExplainRequest) -> Reply<'_, Explanation>;
    /// Open flows and recent events.
    fn flows(&self, query: FlowQuery) -> Reply<'_, FlowList>;
    /// Events from now on.
    fn follow_flows(&self, query: FlowQuery) -> Reply<'_, mpsc::Receiver<Flow>>;
    /// How the node is.
    fn status(&self) -> Reply<'_, Status>;
    /// What the node can do.
    fn doctor(&self) -> Reply<'_, Doctor>;
}

/// A refused or failed request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}; {mend}")]
pub struct ControlError {
    /// HTTP status, 400–599.
    pub status: u16,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub mend: String,
}

impl ControlError {
    /// 400: the request makes no sense.
    pub fn bad_request(message: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { status: 400, message: message.into(), mend: mend.into() }
    }

    /// 404: no such thing.
    pub fn not_found(message: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { status: 404, message: message.into(), mend: mend.into() }
    }

    /// 409: it contradicts what is there.
    pub fn conflict(message: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { status: 409, message: message.into(), mend: mend.into() }
    }

    /// 422: a part of the node refuses it, as a kernel without a feature.
    pub fn refused(message: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { status: 422, message: message.into(), mend: mend.into() }
    }

    /// 500: it failed, and the last good state stays.
    pub fn failed(message: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { status: 500, message: message.into(), mend: mend.into() }
    }
}
