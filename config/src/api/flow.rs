//! Open flows, and what happened to flows.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::time::Timestamp;
use crate::names::{Name, NameError};

/// What to show: `GET /v1/flows?namespace=…&verdict=…&limit=…`, and `follow=true` for a stream of [`Flow`] lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowQuery {
    /// Only workloads of this namespace.
    pub namespace: Option<Name>,
    /// Only this verdict.
    pub verdict: Option<Verdict>,
    /// At most this many, the newest; `None` is the daemon's bound.
    pub limit: Option<u32>,
}

/// Answer without `follow`: open flows and the recent events that the daemon keeps, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FlowList {
    /// The flows.
    pub flows: Vec<Flow>,
    /// Events that were lost because the ring was full; since the daemon started.
    #[serde(default)]
    pub lost: u64,
}

/// One open flow, or one event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Flow {
    /// When it happened; of an open flow, when its last packet passed.
    pub time: Timestamp,
    /// What this line is.
    pub event: FlowEvent,
    /// The verdict.
    pub verdict: Verdict,
    /// The reason's word, as in metrics: `denied-by-default`.
    pub reason: String,
    /// The rule that decided, of an audited flow the one that would deny it: `egresspolicy/shop/shop-egress allow[2]`, `clusteregresspolicy/base deny[0]`; none for defaults and drops before any rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The workload's namespace; `None` when the frame came from no known workload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Name>,
    /// The workload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<Name>,
    /// Seen from the workload.
    pub direction: Direction,
    /// `tcp`, `udp`, `sctp`, `icmp`, `icmpv6`, or the IP protocol's number.
    pub protocol: String,
    /// The workload's side.
    pub local: Endpoint,
    /// The other side.
    pub remote: Endpoint,
    /// The DNS name by which it passed or fell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The name that its handshake asked for; of flows that were held until it was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sni: Option<String>,
    /// Bytes of both directions, IP headers included.
    #[serde(default)]
    pub bytes: u64,
    /// Packets of both directions.
    #[serde(default)]
    pub packets: u64,
}

/// What a [`Flow`] tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FlowEvent {
    /// It is open.
    Open,
    /// It was opened at `time`.
    Opened,
    /// Its packet was dropped at `time`.
    Dropped,
    /// It was open, and a changed policy ended it.
    Revoked,
    /// It ended.
    Closed,
}

/// Passed or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Passed, and no policy would deny it.
    Allowed,
    /// Passed, and a policy with `mode: Audit` would deny it.
    Audited,
    /// Did not.
    Denied,
}

/// Who opened it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// The workload.
    Egress,
    /// The other side.
    Ingress,
}

/// An address, and a port where the protocol has ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// The address.
    pub address: IpAddr,
    /// The port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}", SocketAddr::new(self.address, port)),
            None => write!(f, "{}", self.address),
        }
    }
}

impl fmt::Display for FlowEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Opened => "opened",
            Self::Dropped => "dropped",
            Self::Revoked => "revoked",
            Self::Closed => "closed",
        })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allowed => "allowed",
            Self::Audited => "audited",
            Self::Denied => "denied",
        })
    }
}

impl FromStr for Verdict {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        match text {
            "allowed" => Ok(Self::Allowed),
            "audited" => Ok(Self::Audited),
            "denied" => Ok(Self::Denied),
            _ => Err(NameError {
                problem: format!("`{text}` is not a verdict"),
                mend: "use allowed, audited or denied".to_owned(),
            }),
        }
    }
}
