//! `kind: EgressPolicy`: what the selected workloads of a namespace may reach.

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::names::{DomainPattern, Name};
use crate::resource::{Selector, SetName};

/// `kind: EgressPolicy`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressPolicy {
    /// Namespace.
    pub namespace: Name,
    /// Name.
    pub name: Name,
    /// `spec.selector`; an empty one selects every workload of the namespace.
    pub selector: Selector,
    /// `spec.mode`
    pub mode: Mode,
    /// `spec.deny`, by address.
    pub deny: Vec<CidrRule>,
    /// `spec.allow`, in the order of the file.
    pub allow: Vec<AllowRule>,
}

/// `spec.mode`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// The policy decides.
    #[default]
    Enforce,
    /// What it allows is allowed; what it denies, and the isolation that it causes, is recorded and not applied.
    Audit,
}

/// One of `spec.allow`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowRule {
    /// `resolve`: may be looked up; opens nothing.
    Resolve(Vec<DomainPattern>),
    /// `cidrs`, `sets` or both
    Cidrs(CidrRule),
    /// `dnsNames` with `verify: None`
    Names(NameRule),
}

/// Addresses and ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CidrRule {
    /// Prefixes, host bits zero.
    pub cidrs: Vec<IpNetwork>,
    /// Sets whose prefixes it means too.
    pub sets: Vec<SetName>,
    /// Prefixes that this rule leaves out; it denies nothing.
    pub except: Vec<IpNetwork>,
    /// Empty in the file means every port of every protocol, here `Ports::All`.
    pub ports: Ports,
}

/// Names and ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameRule {
    /// Patterns, at least one.
    pub names: Vec<DomainPattern>,
    /// As in [`CidrRule`].
    pub ports: Ports,
}

/// The ports of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ports {
    /// Every protocol and port.
    All,
    /// These, at least one.
    Some(Vec<PortRange>),
}

/// Ports `first..=last` of a protocol, host byte order, 1–65535; 0–65535 is the whole protocol. Of ICMP, type
/// and code take a port's place, the type in the upper byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    /// Protocol.
    pub protocol: Protocol,
    /// `port`
    pub first: u16,
    /// `endPort`, or `port`
    pub last: u16,
}

/// A protocol that a rule can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// 6
    Tcp,
    /// 17
    Udp,
    /// 132
    Sctp,
    /// 1
    Icmp,
    /// 58
    #[serde(rename = "ICMPv6")]
    Icmpv6,
}

impl Protocol {
    /// Those with ports.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// Every one.
    pub const WITH_ICMP: [Self; 5] = [Self::Tcp, Self::Udp, Self::Sctp, Self::Icmp, Self::Icmpv6];

    /// As in manifests.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
            Self::Icmp => "ICMP",
            Self::Icmpv6 => "ICMPv6",
        }
    }

    /// IP protocol number (IANA).
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
            Self::Icmp => 1,
            Self::Icmpv6 => 58,
        }
    }

    /// Type and code of the only message of ICMP that opens a flow, as [`PortRange`] has them: an echo request (RFC 792,
    /// RFC 4443). `None` for a protocol with ports.
    pub const fn echo(self) -> Option<u16> {
        match self {
            Self::Tcp | Self::Udp | Self::Sctp => None,
            Self::Icmp => Some(8 << 8),
            Self::Icmpv6 => Some(128 << 8),
        }
    }
}
