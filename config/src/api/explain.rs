//! Would it pass, by which rule, which answer, how to mend.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::names::{DnsName, Name, NameError};

/// `POST /v1/explain`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExplainRequest {
    /// Who would open the connection.
    pub from: WorkloadName,
    /// Whom to.
    pub to: Target,
    /// By which protocol.
    pub protocol: Protocol,
}

/// `shop/web-1`
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct WorkloadName {
    /// Namespace.
    pub namespace: Name,
    /// Name in it.
    pub name: Name,
}

/// `api.example.com:443`, `192.0.2.1`, `[2001:db8::1]:443`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Target {
    /// The other side.
    pub host: Host,
    /// Its port; `None` asks for any port.
    pub port: Option<u16>,
}

/// The other side of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// By name: what this workload resolved counts.
    Name(DnsName),
    /// By address.
    Address(IpAddr),
}

/// A protocol to ask about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// 6
    Tcp,
    /// 17
    Udp,
    /// 132
    Sctp,
    /// 1 for IPv4, 58 for IPv6; has no port.
    Icmp,
}

/// Answer to explain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Whether it would pass now.
    pub allowed: bool,
    /// The verdict in a sentence.
    pub verdict: String,
    /// The reason's word, as in flows and metrics.
    pub reason: String,
    /// The rule that decided: `egresspolicy/shop/shop-egress allow[2]`, `clusteregresspolicy/base deny[0]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The DNS name by which it passes or fell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What this workload was answered for the name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<Answer>,
    /// How the verdict fell, in the order of precedence.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<String>,
    /// What to change to let it pass; empty when it passes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mend: String,
}

/// One learned address of a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// The address.
    pub address: IpAddr,
    /// Seconds that new flows may still go there by this name; 0 is over.
    pub expires_in_s: u64,
}

impl fmt::Display for WorkloadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl FromStr for WorkloadName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let (namespace, name) = text.split_once('/').ok_or_else(|| NameError {
            problem: format!("`{text}` has no namespace"),
            mend: "write NAMESPACE/WORKLOAD, as shop/web-1".to_owned(),
        })?;
        Ok(Self { namespace: namespace.parse()?, name: name.parse()? })
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "{name}"),
            Self::Address(address) => write!(f, "{address}"),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.host, self.port) {
            (Host::Address(IpAddr::V6(address)), Some(port)) => write!(f, "[{address}]:{port}"),
            (host, Some(port)) => write!(f, "{host}:{port}"),
            (host, None) => write!(f, "{host}"),
        }
    }
}

impl FromStr for Target {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        if let Ok(address) = text.trim_matches(['[', ']']).parse() {
            return Ok(Self { host: Host::Address(address), port: None });
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(parse_port(text, port)?)),
            None => (text, None),
        };
        let host = match host.trim_matches(['[', ']']).parse() {
            Ok(address) => Host::Address(address),
            Err(_) => Host::Name(host.parse()?),
        };
        Ok(Self { host, port })
    }
}

fn parse_port(text: &str, port: &str) -> Result<u16, NameError> {
    port.parse().ok().filter(|port| *port != 0).ok_or_else(|| NameError {
        problem: format!("`{text}` ends in no port"),
        mend: "write NAME, ADDRESS, NAME:PORT, 192.0.2.1:PORT or [2001:db8::1]:PORT, with a port of 1–65535".to_owned(),
    })
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
            Self::Icmp => "icmp",
        })
    }
}

impl FromStr for Protocol {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.to_ascii_lowercase().as_str() {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "sctp" => Ok(Self::Sctp),
            "icmp" => Ok(Self::Icmp),
            _ => Err(NameError {
                problem: format!("`{text}` is not a protocol"),
                mend: "use tcp, udp, sctp or icmp".to_owned(),
            }),
        }
    }
}

macro_rules! by_text {
    ($($type:ty),*) => {$(
        impl TryFrom<String> for $type {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> { text.parse() }
        }
        impl From<$type> for String {
            fn from(value: $type) -> Self { value.to_string() }
        }
    )*};
}
by_text!(WorkloadName, Target);
