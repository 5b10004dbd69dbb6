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
    /// `spec.deny`, in the order of the file.
    pub deny: Vec<DenyRule>,
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
    /// `dnsNames`
    Names(NameRule),
}

/// One of `spec.deny`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DenyRule {
    /// `cidrs`, `sets` or both
    Cidrs(CidrRule),
    /// `dnsNames`
    Names(DeniedNames),
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

/// Names that may be reached, and ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameRule {
    /// Patterns, at least one.
    pub names: Vec<DomainPattern>,
    /// As in [`CidrRule`].
    pub ports: Ports,
    /// `verify`; `None` is left out in the file, see [`Self::verifies`].
    pub verify: Option<Verify>,
}

/// `verify`: what shows that a connection to an address of a name is meant for that name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// That this workload resolved the name to the address.
    None,
    /// Beside that, the server name in the handshake of TLS, or of QUIC over UDP.
    Tls,
}

/// Names that must not be reached, and ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeniedNames {
    /// Patterns, at least one.
    pub names: Vec<DomainPattern>,
    /// Without ports the names may not be looked up either.
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

impl NameRule {
    /// Whether the handshake must name the name at this port, if it is one of the rule's: where `verify` is left out, on
    /// TCP and UDP 443; where it is TLS, at all ports of both.
    pub const fn verifies(&self, protocol: u8, port: u16) -> bool {
        match self.verify {
            None => has_handshake(protocol) && port == HTTPS,
            Some(Verify::None) => false,
            Some(Verify::Tls) => has_handshake(protocol),
        }
    }
}

impl DeniedNames {
    /// Whether the names may not be looked up either.
    pub const fn refuses_lookups(&self) -> bool {
        match self.ports {
            Ports::All => true,
            Ports::Some(_) => false,
        }
    }

    /// Whether what a handshake at this port names is compared with the rule, so that the flow waits for it: without
    /// ports on TCP and UDP 443, else at all ports of both that the rule lists.
    pub fn reads(&self, protocol: u8, port: u16) -> bool {
        has_handshake(protocol)
            && match &self.ports {
                Ports::All => port == HTTPS,
                Ports::Some(_) => self.ports.hold(protocol, port),
            }
    }
}

impl Ports {
    /// Whether this port is one of them, or type and code of ICMP. A protocol without either is in [`Ports::All`] only.
    pub fn hold(&self, protocol: u8, port: u16) -> bool {
        match self {
            Self::All => true,
            Self::Some(ranges) => ranges
                .iter()
                .any(|range| range.protocol.number() == protocol && (range.first..=range.last).contains(&port)),
        }
    }
}

/// The port on which names are compared with handshakes unless a rule says otherwise.
pub const HTTPS: u16 = 443;

/// TLS over TCP, QUIC over UDP.
const fn has_handshake(protocol: u8) -> bool {
    protocol == Protocol::Tcp.number() || protocol == Protocol::Udp.number()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::Resource;

    fn policy(rules: &str) -> EgressPolicy {
        let text = format!(
            "apiVersion: tidegate.dev/v1alpha1\nkind: EgressPolicy\nmetadata: {{ name: p, namespace: shop }}\nspec:\n  selector: {{}}\n{rules}"
        );
        match crate::parse("p.yaml", &text).unwrap().remove(0).resource {
            Resource::EgressPolicy(policy) => policy,
            other => panic!("{other:?}"),
        }
    }

    const TCP: u8 = 6;
    const UDP: u8 = 17;
    const SCTP: u8 = 132;
    const ICMP: u8 = 1;

    #[test]
    fn names_are_verified_on_443_unless_the_rule_says_otherwise() {
        for (verify, verified) in [
            ("", [true, true, false, false, false, false]),
            (", verify: None", [false; 6]),
            (", verify: TLS", [true, true, true, true, false, false]),
        ] {
            let policy = policy(&format!("  allow:\n    - {{ dnsNames: [ a.example ]{verify} }}\n"));
            let AllowRule::Names(rule) = &policy.allow[0] else { panic!("{policy:?}") };
            let asked = [(TCP, 443), (UDP, 443), (TCP, 8443), (UDP, 1), (SCTP, 443), (ICMP, 8 << 8)];
            assert_eq!(asked.map(|(protocol, port)| rule.verifies(protocol, port)), verified, "{verify}");
        }
    }

    #[test]
    fn handshakes_are_read_where_a_deny_has_ports_else_on_443() {
        let read = |ports: &str| {
            let policy = policy(&format!("  deny:\n    - {{ dnsNames: [ a.example ]{ports} }}\n"));
            let DenyRule::Names(rule) = &policy.deny[0] else { panic!("{policy:?}") };
            let asked = [(TCP, 443), (UDP, 443), (TCP, 8443), (UDP, 8443), (SCTP, 8443), (ICMP, 8 << 8)];
            (rule.refuses_lookups(), asked.map(|(protocol, port)| rule.reads(protocol, port)))
        };
        assert_eq!(read(""), (true, [true, true, false, false, false, false]));
        let ports = ", ports: [ { port: 8443 }, { protocol: SCTP, port: 8443 }, { protocol: ICMP } ]";
        assert_eq!(read(ports), (false, [false, false, true, false, false, false]));
    }

    #[test]
    fn verify_and_denied_names_are_written_as_they_were_read() {
        let rules = "  deny:\n    - { dnsNames: [ ads.example, \"*.ads.example\" ] }\n    - { dnsNames: [ b.example ], ports: [ { port: 8443 } ] }\n  allow:\n    - { dnsNames: [ a.example ] }\n    - { dnsNames: [ a.example ], verify: None }\n    - { dnsNames: [ a.example ], verify: TLS, ports: [ { port: 8443 } ] }\n";
        let read = Resource::EgressPolicy(policy(rules));
        let written = read.to_json();
        let verify: Vec<_> = (0..3).map(|at| &written["spec"]["allow"][at]["verify"]).collect();
        assert_eq!(verify, [&serde_json::Value::Null, &"None".into(), &"TLS".into()]);
        assert_eq!(crate::from_json("p", &written).unwrap(), read);
    }
}
