//! `kind: NetworkPolicy` of `networking.k8s.io/v1`: what may reach the selected workloads, and what they may reach.

use std::fmt;
use std::str::FromStr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::names::{Name, NameError};
use crate::resource::{PortRange, Protocol, Selector};
use crate::wording::{quoted, wrong};

/// `kind: NetworkPolicy`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkPolicy {
    /// Namespace; `default` where the file names none.
    pub namespace: Name,
    /// Name.
    pub name: Name,
    /// `spec.podSelector`; an empty one selects every workload of the namespace.
    pub selector: Selector,
    /// `spec.policyTypes`, its default worked out.
    pub types: PolicyTypes,
    /// `spec.ingress`; without effect unless `types` has it.
    pub ingress: Vec<PeerRule>,
    /// `spec.egress`; without effect unless `types` has it.
    pub egress: Vec<PeerRule>,
}

/// The directions in which a [`NetworkPolicy`] isolates what it selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyTypes {
    /// `Ingress`
    pub ingress: bool,
    /// `Egress`
    pub egress: bool,
}

/// One of `ingress` or `egress`: what some peers may do on some ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerRule {
    /// `from` or `to`; empty means everybody.
    pub peers: Vec<Peer>,
    /// `ports`; empty means every port of every protocol.
    pub ports: Vec<PeerPort>,
}

/// One of `from` or `to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// `ipBlock`; it means workloads too.
    Block {
        /// `cidr`, host bits cleared.
        cidr: IpNetwork,
        /// `except`, strictly within `cidr`.
        except: Vec<IpNetwork>,
    },
    /// Workloads, by `podSelector`, `namespaceSelector` or both.
    Workloads {
        /// `namespaceSelector`; `None` is the policy's own namespace.
        namespaces: Option<Selector>,
        /// `podSelector`; `None` is every workload there.
        workloads: Option<Selector>,
    },
}

/// One of `ports`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerPort {
    /// By number. A protocol without `port` is the range 0–65535.
    Range(PortRange),
    /// What the receiving workload calls so.
    Named(Protocol, PortName),
}

/// The name of a port, as Kubernetes has it: 1–15 of `a-z0-9-`, a letter among them (RFC 6335, section 5.1).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PortName(String);

/// A port that a workload gives a name; several may have one name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NamedPort {
    /// Its name.
    pub name: PortName,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its number, 1–65535.
    pub port: u16,
}

impl NetworkPolicy {
    /// The rules for what is sent to the selected workloads; `None` where it says nothing of that.
    pub fn ingress_rules(&self) -> Option<&[PeerRule]> {
        self.types.ingress.then_some(&self.ingress)
    }

    /// The rules for what they send; `None` where it says nothing of that.
    pub fn egress_rules(&self) -> Option<&[PeerRule]> {
        self.types.egress.then_some(&self.egress)
    }
}

impl PortName {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for PortName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let body = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        let lettered = text.bytes().any(|b| b.is_ascii_lowercase());
        let dashes = text.starts_with('-') || text.ends_with('-') || text.contains("--");
        if body && lettered && !dashes && text.len() <= 15 {
            return Ok(Self(text.to_owned()));
        }
        let mend = "use a number without quotes, or a name of 1–15 of a-z, 0-9 and single -, with a letter, as `http`";
        Err(wrong(format!("{} is not the name of a port", quoted(text)), mend))
    }
}

impl TryFrom<String> for PortName {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<PortName> for String {
    fn from(name: PortName) -> Self {
        name.0
    }
}

impl fmt::Display for NamedPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}/{}", self.name, self.port, self.protocol.as_str())
    }
}

impl FromStr for NamedPort {
    type Err = NameError;

    /// `http=8080/TCP`, or `http=8080` for TCP; the protocol in any case.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let form = || {
            let mend = "write NAME=NUMBER/PROTOCOL, as `http=8080/TCP`, with TCP, UDP or SCTP";
            wrong(format!("{} is not a port with its name", quoted(text)), mend)
        };
        let (name, rest) = text.split_once('=').ok_or_else(form)?;
        let (number, protocol) = rest.split_once('/').unwrap_or((rest, "TCP"));
        let protocol = Protocol::ALL.into_iter().find(|own| own.as_str().eq_ignore_ascii_case(protocol));
        let port = number.parse().ok().filter(|port| *port != 0).ok_or_else(form)?;
        Ok(Self { name: name.parse()?, protocol: protocol.ok_or_else(form)?, port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_names_are_those_of_kubernetes() {
        for text in ["http", "serve-80-tcp", "0a", "fifteen-letters"] {
            assert!(text.parse::<PortName>().is_ok(), "{text}");
        }
        for text in ["", "80", "-a", "a-", "a--b", "HTTP", "a_b", "sixteen-letters-", "!@#$"] {
            assert!(text.parse::<PortName>().is_err(), "{text}");
        }
    }

    #[test]
    fn ports_are_named_on_the_command_line() {
        let named = |text: &str| text.parse::<NamedPort>().map(|port| port.to_string());
        assert_eq!(named("http=8080"), Ok("http=8080/TCP".to_owned()));
        assert_eq!(named("dns=53/udp"), Ok("dns=53/UDP".to_owned()));
        assert_eq!(named("s1=36412/SCTP"), Ok("s1=36412/SCTP".to_owned()));
        for text in ["http", "http=", "http=0", "http=65536", "80=80", "http=80/ICMP", "http=80/", "=80"] {
            assert!(named(text).is_err(), "{text}");
        }
    }
}
