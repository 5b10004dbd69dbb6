//! The words of a verdict: the grounds, and what to change. Keys and kinds are written as in the manifests, so that a
//! reader can search for them.

use std::fmt;
use std::net::IpAddr;

use config::names::DnsName;
use config::resource::{Kind, NAMESPACE_NAME_LABEL, Namespace, Network, NetworkPolicy};

use super::addresses::Covering;
use super::outbound::{SCTP, TCP, UDP};
use super::{Decision, Target, Unshown};
use crate::model::{Probes, Subject};
use crate::reason::Reason;
use crate::tables::{RuleList, RuleName};
use crate::tiers::{Policy, Reading, Tier};

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// Protocol and port as people say them.
#[derive(Clone, Copy)]
pub(super) struct Service {
    pub(super) protocol: u8,
    pub(super) port: u16,
}

impl Service {
    pub(super) const fn of(to: Target) -> Self {
        Self { protocol: to.protocol, port: to.port }
    }
}

/// A rule as people say it.
#[derive(Clone, Copy)]
pub(super) struct Named<'a>(pub(super) &'a RuleName);

/// How many policies of the namespace select a workload.
#[derive(Clone, Copy)]
pub(super) struct Isolating {
    /// Those that count.
    enforced: usize,
    audited: usize,
}

impl Isolating {
    pub(super) fn of(selected: &[Policy<'_>], network_policies: &[&NetworkPolicy], reading: Reading) -> Self {
        let own = || selected.iter().filter(|policy| policy.tier() == Tier::Namespace);
        let counting = own().filter(|policy| policy.counts(reading)).count();
        let isolating = network_policies.iter().filter(|policy| policy.types.egress).count();
        Self { enforced: counting + isolating, audited: own().count() - counting }
    }
}

/// What is applied lets it pass, and what is audited would not: by this rule, or by the isolation of a policy.
pub(super) fn audited(applied: Decision, strict: Decision, by: Option<RuleName>) -> Decision {
    let isolation = by.as_ref().filter(|rule| rule.list == RuleList::Isolation);
    let isolation = isolation.map(|rule| format!("{} would deny it: ", Named(rule)));
    let text = format!("{}, but audited {}{}", applied.text, isolation.unwrap_or_default(), strict.text);
    Decision { reason: Reason::Audited, rule: by, text, mend: strict.mend, ..applied }
}

pub(super) fn sealed(subject: &Subject) -> Decision {
    Decision::deny(
        Reason::Sealed,
        format!("there is no Namespace `{}`, so the workload is sealed", subject.namespace),
        format!("apply a Namespace `{}`", subject.namespace),
    )
}

pub(super) fn off_wire(address: IpAddr) -> Decision {
    let text = format!("{address} is an address that must not be on a wire");
    Decision::deny(Reason::Malformed, text, "use the peer's own address")
}

pub(super) fn multicast(address: IpAddr) -> Decision {
    let text = format!("{address} is multicast or broadcast, which does not leave a workload");
    Decision::deny(Reason::Multicast, text, "use the peer's unicast address")
}

pub(super) fn node_address(to: Target) -> Decision {
    Decision::deny(
        Reason::NodeAddress,
        format!("{} is the node's own, and workloads reach only its edge listeners", to.address),
        "serve it from a workload, or from another host that a rule allows",
    )
}

pub(super) fn denied_by(tier: Tier, name: &RuleName, prefix: Covering<'_>, to: Target) -> Decision {
    let (service, wins) = (Service::of(to), wins(tier));
    let narrowed = if prefix.set.is_some() { "sets" } else { "cidrs" };
    Decision::deny(
        Reason::DeniedByCidr,
        format!("{} denies {service} of {prefix}; {wins}", Named(name)),
        format!("add {} to `except` of {}, or narrow its `{narrowed}` or `ports`", host(to.address), Named(name)),
    )
    .by(name.clone())
}

/// `how`: what the name has to do with the flow, as a clause.
pub(super) fn denied_name(tier: Tier, rule: &RuleName, name: &DnsName, service: Service, how: &str) -> Decision {
    let named = Named(rule);
    Decision::deny(
        Reason::DeniedByName,
        format!("{named} denies {service} of {name}, {how}; {}", wins(tier)),
        format!("take the pattern that means {name} out of `dnsNames` of {named}, or narrow its `ports`"),
    )
    .by(rule.clone())
    .named(name)
}

fn wins(tier: Tier) -> &'static str {
    match tier {
        Tier::Admin => "no namespace can allow it",
        Tier::Namespace => "a deny wins over every allow",
    }
}

/// What the handshake is waited for, if it is.
pub(super) fn waits(verifies: bool, reading: Option<&RuleName>) -> Option<String> {
    match (verifies, reading) {
        (true, Some(denying)) => {
            Some(format!("the handshake must name it, and nothing that {} denies", Named(denying)))
        }
        (true, None) => Some("the handshake must name it".to_owned()),
        (false, Some(denying)) => Some(format!("the handshake must name nothing that {} denies", Named(denying))),
        (false, None) => None,
    }
}

/// A rule would have allowed the flow to the name that it went by, and the handshake shows another. `elsewhere` allows that
/// one, at addresses that the workload resolves it to.
pub(super) fn mismatch(
    namespace: &Namespace,
    shown: &DnsName,
    elsewhere: Option<&RuleName>,
    (asked, wanted): (&DnsName, &RuleName),
    to: Target,
) -> Decision {
    let (address, service) = (to.address, Service::of(to));
    let (text, mend) = match elsewhere {
        Some(rule) => (
            format!(
                "the handshake names {shown}, which {} allows, but this workload did not resolve it to {address}",
                Named(rule)
            ),
            format!("let the workload look {shown} up before it connects, and use the addresses of the answer"),
        ),
        None => (
            format!(
                "the handshake names {shown}, which no rule allows; {} allows {asked}, which this workload resolved to {address}",
                Named(wanted)
            ),
            add_names(namespace, shown, service),
        ),
    };
    Decision::deny(Reason::SniMismatch, text, mend).by(wanted.clone()).named(asked)
}

/// The same where the handshake shows no name.
pub(super) fn unshown(why: Unshown, (asked, wanted): (&DnsName, &RuleName), to: Target) -> Decision {
    let named = Named(wanted);
    let (reason, what, client) = match why {
        Unshown::NoName => (Reason::NoSni, "the handshake names no host", "let the client name the host (SNI)"),
        Unshown::NotTls => {
            (Reason::NotTls, "the flow begins with no handshake of TLS or QUIC", "let the client speak TLS")
        }
        Unshown::Unreadable => (
            Reason::UnreadableHello,
            "the handshake could not be read",
            "let the client send a smaller ClientHello at once",
        ),
    };
    Decision::deny(
        reason,
        format!("{what}, and {named} wants it to name {asked}, which this workload resolved to {}", to.address),
        format!("{client}, or write `verify: None` in {named}"),
    )
    .by(wanted.clone())
    .named(asked)
}

pub(super) fn not_isolated(namespace: &Namespace) -> Decision {
    let text = format!("no policy isolates the workload, and `egressDefault` of `{}` is Allow", namespace.name);
    Decision::allow(Reason::AllowedByDefault, text)
}

pub(super) fn name_expired(asked: &DnsName, rule: &RuleName, address: IpAddr) -> Decision {
    Decision::deny(
        Reason::NameExpired,
        format!("{} allows {asked}, but the answer that gave {address} has expired", Named(rule)),
        format!("let the workload look {asked} up again: it uses the answer longer than its TTL"),
    )
    .by(rule.clone())
    .named(asked)
}

pub(super) fn egress_default(
    namespace: &Namespace,
    isolating: Isolating,
    to: Target,
    nearest: Option<String>,
    asked: Option<&DnsName>,
) -> Decision {
    let mut text = format!("no rule allows {to}, and {}", isolation(namespace, isolating));
    if let Some(nearest) = nearest {
        text = format!("{text}; {nearest}");
    }
    let service = Service::of(to);
    let mend = match asked {
        Some(name) => add_names(namespace, name, service),
        None => add_rule(namespace, &format!("`cidrs: [{}]`", cidr(to.address)), service),
    };
    Decision::deny(Reason::DeniedByDefault, text, mend)
}

pub(super) fn name_default(
    namespace: &Namespace,
    isolating: Isolating,
    asked: &DnsName,
    service: Service,
    nearest: Option<String>,
) -> Decision {
    let mut text = format!("no rule allows {service} of {asked}, and {}", isolation(namespace, isolating));
    if let Some(nearest) = nearest {
        text = format!("{text}; {nearest}");
    }
    Decision::deny(Reason::DeniedByDefault, text, add_names(namespace, asked, service))
}

pub(super) fn not_exposed(namespace: &Namespace, service: Service) -> Decision {
    Decision::deny(
        Reason::NotExposed,
        format!("no ExposedApp of `{}` exposes {service} of this workload", namespace.name),
        "add a backend with this port, and a selector that fits the workload, to an ExposedApp",
    )
}

pub(super) fn edge_only(namespace: &Namespace, service: Service) -> Decision {
    Decision::deny(
        Reason::EdgeOnly,
        format!("an ExposedApp of `{}` exposes {service}, and from then on only the edge opens it", namespace.name),
        "ask for the app's host at the edge, or let the workload serve others on another port",
    )
}

pub(super) fn no_probes(probes: Probes) -> Decision {
    let why = match probes {
        Probes::Never | Probes::All => "to its workloads (`[node] probes = false`)",
        Probes::Selected => "to a workload that no NetworkPolicy selects (`[node] probes` is not set)",
    };
    Decision::deny(
        Reason::DeniedByDefault,
        format!("the node itself may not open connections {why}"),
        "set `probes = true` under `[node]` in the node's settings",
    )
}

pub(super) fn ingress_isolated(
    namespace: &Namespace,
    policies: &[String],
    remote: IpAddr,
    resident: Option<&Subject>,
    service: Service,
    nearest: Option<String>,
) -> Decision {
    let isolated = match policies {
        [only] => format!("NetworkPolicy `{only}`, which selects the workload, isolates it"),
        several => format!("the NetworkPolicies {} isolate the workload", all_of(several)),
    };
    let mut text = format!("no rule allows {service} from {remote}, and {isolated}");
    if let Some(nearest) = nearest {
        text = format!("{text}; {nearest}");
    }
    let peer = match resident {
        Some(subject) if !subject.labels.is_empty() => workload_peer(namespace, subject),
        // A selector without labels would open it to the whole namespace.
        Some(_) | None => format!("{{ ipBlock: {{ cidr: {} }} }}", cidr(remote)),
    };
    let place = format!("under `ingress` of a NetworkPolicy of `{}` that selects the workload", namespace.name);
    let mend = format!("add `from: [{peer}]`{} {place}", ports(service));
    Decision::deny(Reason::DeniedByDefault, text, mend)
}

/// A peer that means workloads like this one, as it is written in a policy of the namespace.
fn workload_peer(namespace: &Namespace, subject: &Subject) -> String {
    let pairs = subject.labels.iter().map(|(key, value)| format!("{key}: \"{value}\"")).collect::<Vec<_>>();
    let own = format!("podSelector: {{ matchLabels: {{ {} }} }}", pairs.join(", "));
    if subject.namespace == namespace.name {
        return format!("{{ {own} }}");
    }
    let space = format!("{NAMESPACE_NAME_LABEL}: {}", subject.namespace);
    format!("{{ namespaceSelector: {{ matchLabels: {{ {space} }} }}, {own} }}")
}

fn all_of(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

pub(super) fn ingress_default(namespace: &Namespace, shared: Option<&Network>, service: Service) -> Decision {
    let isolated = shared.map(|network| format!(", `workloadTraffic` of network `{}` is Isolated", network.name));
    let text = format!(
        "nothing allows {service} to the workload{}, and `ingressDefault` of `{}` is Deny",
        isolated.unwrap_or_default(),
        namespace.name
    );
    let mend = match shared {
        Some(network) => format!("set `workloadTraffic: Open` on Network `{}`", network.name),
        None => "expose the port with an ExposedApp".to_owned(),
    };
    let mend = format!("{mend}, or set `ingressDefault: Allow` on Namespace `{}`", namespace.name);
    Decision::deny(Reason::DeniedByDefault, text, mend)
}

fn isolation(namespace: &Namespace, isolating: Isolating) -> String {
    match isolating {
        Isolating { enforced: 0, audited } => {
            let policy = if audited == 0 { "policy" } else { "enforced policy" };
            format!("no {policy} selects the workload while `egressDefault` of `{}` is Deny", namespace.name)
        }
        Isolating { enforced: 1, .. } => "the policy that selects the workload isolates it".to_owned(),
        Isolating { enforced, .. } => format!("the {enforced} policies that select the workload isolate it"),
    }
}

fn add_names(namespace: &Namespace, asked: &DnsName, service: Service) -> String {
    add_rule(namespace, &format!("`dnsNames: [{asked}]`"), service)
}

fn add_rule(namespace: &Namespace, what: &str, service: Service) -> String {
    let place = format!("under `allow` of an EgressPolicy of `{}` that selects the workload", namespace.name);
    let ports = match service.protocol {
        ICMP => " with `ports: [{ protocol: ICMP }]`".to_owned(),
        ICMPV6 => " with `ports: [{ protocol: ICMPv6 }]`".to_owned(),
        _ => ports(service),
    };
    format!("add {what}{ports} {place}")
}

/// As a NetworkPolicy has them too, which knows no ICMP.
fn ports(service: Service) -> String {
    match service.protocol {
        TCP => format!(" with `ports: [{{ protocol: TCP, port: {} }}]`", service.port),
        UDP => format!(" with `ports: [{{ protocol: UDP, port: {} }}]`", service.port),
        SCTP => format!(" with `ports: [{{ protocol: SCTP, port: {} }}]`", service.port),
        _ => " without `ports`".to_owned(),
    }
}

fn cidr(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => format!("{v4}/32"),
        IpAddr::V6(v6) => format!("\"{v6}/128\""),
    }
}

fn host(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => format!("{v4}/32"),
        IpAddr::V6(v6) => format!("{v6}/128"),
    }
}

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.kind {
            _ if self.0.list == RuleList::Isolation => write!(f, "`{}`", self.0),
            Kind::ClusterEgressPolicy => write!(f, "admin rule `{}`", self.0),
            Kind::EgressPolicy
            | Kind::NetworkPolicy
            | Kind::Network
            | Kind::Namespace
            | Kind::AddressSet
            | Kind::ExposedApp => {
                write!(f, "rule `{}`", self.0)
            }
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.protocol {
            TCP => write!(f, "TCP {}", self.port),
            UDP => write!(f, "UDP {}", self.port),
            SCTP => write!(f, "SCTP {}", self.port),
            ICMP => f.write_str("ICMP echo"),
            ICMPV6 => f.write_str("ICMPv6 echo"),
            other => write!(f, "IP protocol {other}"),
        }
    }
}
