//! What the CNI plugin asks (Container Network Interface specification, version 1.1.0).
//!
//! An engine knows a container's interface by three words, an [`Attachment`], and asks with nothing else when the container is
//! gone; the daemon keeps them with the workload.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use super::AttachRequest;
use crate::names::{InterfaceName, Name};

/// One interface of one container on one network of the engine's (section 2, "CNI_CONTAINERID").
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Attachment {
    /// `name` of the network configuration.
    pub network: String,
    /// `CNI_CONTAINERID`
    pub container: String,
    /// `CNI_IFNAME`
    pub interface: InterfaceName,
}

/// `POST /v1/cni/add`, answered with [`Connected`]; the same again with what is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CniAddRequest {
    /// What the engine will ask by.
    pub attachment: Attachment,
    /// The workload that it becomes; its `interface` is the attachment's.
    pub workload: AttachRequest,
    /// Whether other plugins made the interface before, in the same chain: then it is closed and sealed, and no more.
    #[serde(default)]
    pub chained: bool,
}

/// How a container is connected: what a result says. `POST /v1/cni/check` with an [`Attachment`] is answered with it too, or
/// refused where the node is not as it says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Connected {
    /// Where the container's network namespace is held open.
    pub netns: PathBuf,
    /// Of the interface inside.
    pub mac: String,
    /// Host side of its pair, and its Ethernet address.
    pub host: (InterfaceName, String),
    /// The network's bridge, and its Ethernet address; `None` where others made the interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<(InterfaceName, String)>,
    /// Its addresses without link-local ones, with the length of their subnet.
    pub addresses: Vec<ConnectedAddress>,
}

/// One address of a [`Connected`] container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectedAddress {
    /// With the length of its subnet.
    pub address: IpNetwork,
    /// The subnet's gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
}

/// `POST /v1/cni/gc`: whoever was attached by this network and is not among these is detached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CniGcRequest {
    /// `name` of the network configuration.
    pub network: String,
    /// All that the engine knows of.
    pub valid: Vec<Attachment>,
}

/// `POST /v1/cni/status`: whether a container could be attached now. Answered with an empty object, or refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CniStatusRequest {
    /// The namespace whose workloads they would be; `None` where each container names its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Name>,
}

/// Where a plugin that finds no daemon leaves the [`Attachment`]s that engines are done with, a file of JSON each, beside the
/// daemon's socket. The next daemon detaches them.
pub fn released(socket: &Path) -> PathBuf {
    socket.with_file_name("released")
}
