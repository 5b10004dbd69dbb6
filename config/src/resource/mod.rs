//! The resources, as validated values. Their YAML is the contract of README's reference; the decoder is `decode`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::names::{DnsName, DomainPattern, InterfaceName, Name, VlanId};

/// Labels of a namespace or workload.
pub type Labels = BTreeMap<String, String>;

/// `kind: Network`: a tenant's layer-2 segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Its name; networks are node-wide.
    pub name: Name,
    /// `spec.vlan`; `None` is a node-local segment.
    pub vlan: Option<Vlan>,
    /// `spec.subnets`, at least one, at most one gateway each.
    pub subnets: Vec<Subnet>,
    /// Who routes.
    pub gateway: Gateway,
    /// `spec.egress.snat`
    pub snat: Snat,
    /// `spec.workloadTraffic`
    pub workload_traffic: WorkloadTraffic,
    /// `spec.dns`; `None` is the node's.
    pub dns: Option<NetworkDns>,
    /// `spec.mtu` in bytes, 1280–65535; `None` takes the parent's (1500 without one).
    pub mtu: Option<u16>,
}

/// `spec.vlan`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vlan {
    /// The trunk.
    pub parent: InterfaceName,
    /// The tag.
    pub id: VlanId,
    /// Its EtherType.
    pub protocol: VlanProtocol,
}

/// The tag's EtherType.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum VlanProtocol {
    /// 0x8100
    Dot1q,
    /// 0x88a8
    Dot1ad,
}

/// One of `spec.subnets`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// Network address and prefix length; host bits are zero.
    pub cidr: IpNetwork,
    /// Inside `cidr`, of its family.
    pub gateway: Option<IpAddr>,
    /// First and last address to hand out; default: all but network, broadcast and gateway.
    pub range: Option<(IpAddr, IpAddr)>,
}

/// `spec.gateway`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gateway {
    /// This node routes for the network.
    Node,
    /// A router on the VLAN does.
    External,
}

/// `spec.egress.snat`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Snat {
    /// To the node's address.
    Masquerade,
    /// Addresses stay.
    None,
}

/// `spec.workloadTraffic`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkloadTraffic {
    /// Workloads of the network may open connections to each other (as far as their egress policies let them).
    Open,
    /// They may not.
    Isolated,
}

/// `spec.dns`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkDns {
    /// Servers, asked at port 53.
    pub upstreams: Vec<IpAddr>,
    /// The way to them.
    pub via: DnsVia,
}

/// `spec.dns.via`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DnsVia {
    /// By the node's own routes.
    Node,
    /// Through the tenant's segment.
    Network,
}

/// `kind: Namespace`: a tenant's group of workloads on one network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Its name.
    pub name: Name,
    /// Labels, with `kubernetes.io/metadata.name` always there.
    pub labels: Labels,
    /// `spec.network`
    pub network: Name,
    /// What a workload may send where no policy isolates it.
    pub egress_default: Default,
    /// What may reach a workload where no policy isolates it.
    pub ingress_default: Default,
}

/// `egressDefault`, `ingressDefault`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Default {
    /// Everything that no rule denies.
    Allow,
    /// Nothing but what a rule allows.
    Deny,
}

/// `kind: EgressPolicy`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressPolicy {
    /// Namespace.
    pub namespace: Name,
    /// Name.
    pub name: Name,
    /// `spec.selector.matchLabels`; empty selects every workload of the namespace.
    pub selector: Labels,
    /// `spec.deny`, by address.
    pub deny: Vec<CidrRule>,
    /// `spec.allow`, in the order of the file.
    pub allow: Vec<AllowRule>,
}

/// One of `spec.allow`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowRule {
    /// `resolve`: may be looked up; opens nothing.
    Resolve(Vec<DomainPattern>),
    /// `cidrs`
    Cidrs(CidrRule),
    /// `dnsNames` with `verify: None`
    Names(NameRule),
}

/// Addresses and ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CidrRule {
    /// Prefixes, host bits zero.
    pub cidrs: Vec<IpNetwork>,
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

/// Ports `first..=last` of a protocol, host byte order, 1–65535.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    /// Protocol.
    pub protocol: Protocol,
    /// `port`
    pub first: u16,
    /// `endPort`, or `port`
    pub last: u16,
}

/// A transport protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// 6
    Tcp,
    /// 17
    Udp,
}

impl Protocol {
    /// IP protocol number (IANA).
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

/// `kind: ExposedApp`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExposedApp {
    /// Namespace.
    pub namespace: Name,
    /// Name.
    pub name: Name,
    /// `spec.hosts`: exact names.
    pub hosts: Vec<DnsName>,
    /// `spec.tls`
    pub tls: Tls,
    /// `spec.routes`; exactly one, with path `/`, under passthrough.
    pub routes: Vec<Route>,
}

/// `spec.tls`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tls {
    /// Terminated here.
    Edge {
        /// PEM chain and key, relative to the namespace's folder of `[node] files_dir`.
        certificate: Certificate,
        /// `minVersion`, default 1.2.
        min_version: TlsVersion,
        /// `clientAuth.caFile`: a client certificate is then required.
        client_ca: Option<String>,
    },
    /// Sent on by SNI, unread.
    Passthrough,
}

/// `spec.tls.certificate`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// PEM, leaf first.
    pub cert_file: String,
    /// PEM, PKCS#8, PKCS#1 or SEC1.
    pub key_file: String,
}

/// `spec.tls.minVersion`
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// "1.2"
    Tls12,
    /// "1.3"
    Tls13,
}

/// One of `spec.routes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// A path prefix of whole segments, beginning with `/`.
    pub path: String,
    /// At least one.
    pub backends: Vec<Backend>,
}

/// Workloads of the app's namespace, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// `selector.matchLabels`
    pub selector: Labels,
    /// TCP port, 1–65535.
    pub port: u16,
}
