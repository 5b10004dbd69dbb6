//! List, get and watch resources; attach and detach workloads.
//!
//! Every resource carries `metadata.creationTimestamp` ([`Timestamp`]). The daemon adds a `status`, which
//! applying passes over:
//!
//! | kind | `status` |
//! |---|---|
//! | Network | `bridge` text, `segment` of one with a VLAN ([`Segment`](super::Segment)), `used` and `total` (IPv4 addresses; IPv6 where there is no IPv4), `held` for workloads that left, `workloads` count, `ready` bool, `message` text when not ready |
//! | Namespace | `workloads` count, `ready` bool, `message` |
//! | AddressSet | `prefixes` count in force, `policies` that name it, `loaded` timestamp of a file, `ready` bool, `message` |
//! | ClusterEgressPolicy | `workloads` count of those it selects, `ready` bool, `message` |
//! | EgressPolicy | `workloads` count of those it selects, `ready` bool, `message` |
//! | NetworkPolicy | `workloads` count of those it selects, `ready` bool, `message` |
//! | ExposedApp | `backends` and `readyBackends` counts, `ready` bool, `message`, `certificateExpires` timestamp |
//! | Workload | [`WorkloadStatus`] |

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::cni::Attachment;
use super::kind::Kind;
use super::time::Timestamp;
use crate::names::{InterfaceName, Name};
use crate::resource::NamedPort;

/// What to list: `GET /v1/resources/<kind>?namespace=…&name=…&brief=true`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceQuery {
    /// The kind.
    pub kind: Kind,
    /// Only this namespace; `None` is all of them.
    pub namespace: Option<Name>,
    /// Only this one.
    pub name: Option<Name>,
    /// Without the prefixes that address sets list, of which there may be a million.
    pub brief: bool,
}

/// Answer to a list, ordered by namespace and name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceList {
    /// Resources in their Kubernetes form.
    pub items: Vec<Value>,
}

/// One line of `GET /v1/resources/<kind>?watch=true`: first every resource that is there as `Added`, then `Synced`
/// once, then what happens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "object", rename_all = "UPPERCASE")]
pub enum WatchEvent {
    /// New.
    Added(Value),
    /// Changed, `status` included.
    Modified(Value),
    /// Gone; as it was last.
    Deleted(Value),
    /// Everything that was there has been sent.
    Synced,
}

/// `POST /v1/attach`, answered with the [`Workload`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AttachRequest {
    /// An existing namespace.
    pub namespace: Name,
    /// Unique in it.
    pub name: Name,
    /// Absolute path where the workload's network namespace is held open.
    pub netns: PathBuf,
    /// Labels for selectors.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Names of its ports, for rules that name ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<NamedPort>,
    /// Interface to make inside; `None` is `eth0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<InterfaceName>,
    /// Addresses that it is to have, at most one of each family; others are chosen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
    /// The Ethernet address that it is to have; `None`: one is made for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Whether its namespace may have other interfaces, which nobody polices.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub beside_others: bool,
}

/// `POST /v1/detach`, answered with an empty object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DetachRequest {
    /// Its namespace.
    pub namespace: Name,
    /// Its name.
    pub name: Name,
}

/// An attached workload in its Kubernetes form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Workload {
    /// [`super::API_VERSION`]
    pub api_version: String,
    /// `Workload`
    pub kind: Kind,
    /// Name, namespace, labels.
    pub metadata: WorkloadMetadata,
    /// As asked when attaching.
    pub spec: WorkloadSpec,
    /// What became of it.
    pub status: WorkloadStatus,
}

/// `metadata` of a [`Workload`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadMetadata {
    /// Namespace.
    pub namespace: Name,
    /// Name.
    pub name: Name,
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// When it was attached; `None` when that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creation_timestamp: Option<Timestamp>,
}

/// `spec` of a [`Workload`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadSpec {
    /// Path of its network namespace; empty where nobody said, as of a port of an adopted bridge.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub netns: PathBuf,
    /// Interface inside.
    pub interface: InterfaceName,
    /// Whether others made its interface.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub adopted: bool,
    /// Names of its ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<NamedPort>,
    /// What the container engine knows it by, where one attached it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cni: Option<Attachment>,
}

fn is_empty(path: &std::path::Path) -> bool {
    path.as_os_str().is_empty()
}

/// `status` of a [`Workload`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadStatus {
    /// Its number in the kernel's tables.
    pub id: u32,
    /// Its network.
    pub network: Name,
    /// Its addresses without link-local ones.
    pub addresses: Vec<IpAddr>,
    /// Its Ethernet address.
    pub mac: String,
    /// Host side of its veth.
    pub host_interface: InterfaceName,
    /// Whether its policy is in force and its interface is up.
    pub ready: bool,
    /// Why not, or what falls short.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Names of its namespace's egress policies that select it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<Name>,
    /// Names of the admin tier's policies that select it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cluster_policies: Vec<Name>,
    /// Names of the network policies that select it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub network_policies: Vec<Name>,
    /// Flows it has open.
    #[serde(default)]
    pub flows: u64,
}
