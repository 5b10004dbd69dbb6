//! How the node is, and what its kernel can do.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::time::Timestamp;
use crate::names::Name;

/// Answer to `GET /v1/status`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The daemon's version.
    pub version: String,
    /// The kernel's release.
    pub kernel: String,
    /// When the daemon started.
    pub started: Timestamp,
    /// Whether everything that was applied is in force.
    pub ready: bool,
    /// Counts commits of desired state.
    pub generation: u64,
    /// What falls short or was restored; empty when all is well.
    #[serde(default)]
    pub conditions: Vec<Condition>,
    /// The networks.
    #[serde(default)]
    pub networks: Vec<NetworkStatus>,
    /// Attached workloads.
    pub workloads: u64,
    /// The kernel's tables.
    #[serde(default)]
    pub maps: Vec<MapFill>,
    /// Which packets skip the node's stack, or why none do.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub fast_path: String,
    /// DNS for workloads.
    pub dns: DnsStatus,
    /// The TLS edge.
    pub edge: EdgeStatus,
    /// Links, rules and filters put back because someone else removed or changed them; since the daemon started.
    #[serde(default)]
    pub repairs: u64,
    /// Packets dropped, by the reason's word; since the tables were made.
    #[serde(default)]
    pub drops: BTreeMap<String, u64>,
}

/// Something that somebody should know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What it is about: `network/tenant-a`, `kernel tables`, `store`.
    pub what: String,
    /// How bad.
    pub state: ConditionState,
    /// Since when.
    pub since: Timestamp,
    /// What is so.
    pub text: String,
    /// What to do.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mend: String,
}

/// How bad a [`Condition`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConditionState {
    /// Good to know.
    Notice,
    /// Something falls short.
    Degraded,
    /// Something does not work, and is closed.
    Failed,
}

/// One network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkStatus {
    /// Its name.
    pub name: Name,
    /// `eth1.100`; `None` for a node-local one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<String>,
    /// Whether its VLAN is there; `None` for a node-local one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segment: Option<Segment>,
    /// Leased addresses of the family that `total` counts.
    pub used: u64,
    /// Addresses of its IPv4 ranges, or of its IPv6 ranges where it has no IPv4; saturates.
    pub total: u64,
    /// Attached workloads.
    pub workloads: u64,
    /// Whether its links are as they should be.
    pub ready: bool,
}

/// Whether a network's VLAN is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Segment {
    /// What is known.
    pub state: SegmentState,
    /// Of whom, in words; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// What is known of a VLAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SegmentState {
    /// It is new.
    Asking,
    /// Somebody is there, or a switch says that it carries it.
    Seen,
    /// Nobody is heard: nobody else is there, or the switch does not carry it to this node.
    Silent,
    /// Another host has an address of this node or of one of its workloads.
    Conflict,
}

/// One kernel table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MapFill {
    /// Its name.
    pub name: String,
    /// Entries in it.
    pub entries: u64,
    /// Entries it can take.
    pub max: u64,
}

/// DNS for workloads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DnsStatus {
    /// Servers asked.
    #[serde(default)]
    pub upstreams: Vec<String>,
    /// How those do that were asked, and the networks' own.
    #[serde(default)]
    pub servers: Vec<DnsServer>,
    /// Learned (workload, address) pairs that are alive.
    #[serde(default)]
    pub learned: u64,
    /// Queries by outcome; since the daemon started, `answered-in-kernel` since its tables were made.
    #[serde(default)]
    pub queries: BTreeMap<String, u64>,
    /// Workloads, `namespace/name`, that asked for too many names within the last minute and were held back.
    #[serde(default)]
    pub held_back: Vec<String>,
}

/// A DNS server that was asked since the daemon started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DnsServer {
    /// With its port, and how it is asked if not by datagrams.
    pub address: String,
    /// The device it is reached by, where it is asked from within a network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Its last answer; `None`: it never gave one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered: Option<Timestamp>,
    /// `None` while it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing: Option<DnsFailure>,
}

/// Questions that a DNS server did not answer, one after another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DnsFailure {
    /// The first of them.
    pub since: Timestamp,
    /// The last.
    pub last: Timestamp,
    /// How many there were.
    pub times: u64,
    /// What went wrong with the last.
    pub why: String,
}

/// The TLS edge.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EdgeStatus {
    /// Where it listens.
    #[serde(default)]
    pub listeners: Vec<SocketAddr>,
    /// What it serves.
    #[serde(default)]
    pub apps: Vec<EdgeApp>,
}

/// One exposed app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EdgeApp {
    /// Its namespace.
    pub namespace: Name,
    /// Its name.
    pub name: Name,
    /// The hosts it serves.
    pub hosts: Vec<String>,
    /// `Edge` or `Passthrough`.
    pub tls: String,
    /// Backends that could be asked.
    pub backends: u64,
    /// Backends of these that answer.
    pub ready_backends: u64,
    /// End of its certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_expires: Option<Timestamp>,
}

/// Answer to `GET /v1/doctor`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Doctor {
    /// Every check, good ones included.
    pub checks: Vec<Check>,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// What was checked.
    pub name: String,
    /// Whether it is as it should be.
    pub ok: bool,
    /// Whether the gateway cannot run, or something applied is not in force, unless it is `ok`; else only a part falls
    /// short. `netctl doctor` fails by required checks only.
    pub required: bool,
    /// What was found, and what falls short by it.
    pub found: String,
    /// What to do; empty when all is well.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mend: String,
}

impl fmt::Display for ConditionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Notice => "notice",
            Self::Degraded => "degraded",
            Self::Failed => "failed",
        })
    }
}
