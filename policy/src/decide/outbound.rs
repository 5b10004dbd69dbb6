//! What a workload sends.

use std::net::IpAddr;

use config::names::DnsName;
use config::resource::{CidrRule, NameRule, Namespace, NetworkPolicy};

use super::sentence::{self, Service};
use super::{Decision, Outbound, Target};
use crate::model::{self, Model, Rule};
use crate::peers;
use crate::reason::Reason;
use crate::tables::{RuleList, RuleName};

const DNS_PORT: u16 = 53;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const SCTP: u8 = 132;

/// The verdict on a new flow from a workload. Steps that look at frames rather than at flows (spoofing, known flows,
/// the segment's control) are the kernel's alone; their numbers are kept.
///
/// 0. A workload without a namespace is sealed.
/// 1. An address that must not be on a wire → drop.
/// 4. Multicast and broadcast, beyond the segment's control → drop.
/// 5. Port 53, UDP or TCP, whatever the server → service namespace.
///    Then the node's own addresses: closed but for edge listeners, which are ordinary destinations.
/// 7. The namespace's deny rules, by address.
/// 8. Its allow rules: by address first, `egress` rules of network policies among them, then by learned name.
/// 9. The default.
pub(super) fn decide(model: &Model<'_>, flow: &Outbound<'_>) -> Decision {
    let Target { address, protocol, port } = flow.to;
    let Some(namespace) = model.namespace(flow.from) else {
        return sentence::sealed(flow.from); // 0
    };
    if off_wire(address) {
        return sentence::off_wire(address); // 1
    }
    if multicast(address) {
        return sentence::multicast(address); // 4
    }
    if port == DNS_PORT && (protocol == TCP || protocol == UDP) {
        return Decision::allow(Reason::Dns, "DNS, whatever the server, is answered by the gateway itself"); // 5
    }
    if model.node().addresses.contains(&address) && !model.node().listens(address, protocol, port) {
        return sentence::node_address(flow.to); // 5
    }

    let selected = model.selected(flow.from);
    let rules: Vec<(RuleName, Rule<'_>)> = selected.iter().flat_map(|policy| model::rules(policy)).collect();
    if let Some((name, rule)) = first_cidr(&rules, flow.to, |rule| matches!(rule, Rule::Deny(_))) {
        return sentence::denied_by(name, rule, flow.to); // 7
    }
    if let Some((name, rule)) = first_cidr(&rules, flow.to, |rule| matches!(rule, Rule::Allow(_))) {
        let text = format!("rule `{name}` allows {} of {}", Service { protocol, port }, covering(rule, address));
        return Decision::allow(Reason::AllowedByCidr, text).by(name.clone()); // 8
    }
    let network_policies = model.network_policies(flow.from);
    if let Some(name) = first_peer_rule(model, &network_policies, flow) {
        let text = format!("rule `{name}` allows {} of {address}", Service { protocol, port });
        return Decision::allow(Reason::AllowedByCidr, text).by(name); // 8
    }
    if !model::isolated(namespace, &selected, &network_policies) {
        let text = format!("no policy isolates the workload, and `egressDefault` of `{}` is Allow", namespace.name);
        return Decision::allow(Reason::AllowedByDefault, text); // 9
    }
    let mut live = flow.resolved.iter().filter(|resolved| flow.now < resolved.expires);
    if let Some((asked, rule)) = live.find_map(|resolved| by_name(&rules, &resolved.name, flow.to)) {
        let text = format!("rule `{rule}` allows {asked}, which this workload resolved to {address}");
        return Decision::allow(Reason::AllowedByName, text).by(rule.clone()).named(asked); // 8
    }
    let mut stale = flow.resolved.iter().filter(|resolved| flow.now >= resolved.expires);
    if let Some((asked, rule)) = stale.find_map(|resolved| by_name(&rules, &resolved.name, flow.to)) {
        return sentence::name_expired(asked, rule, address); // 9
    }
    let isolating = network_policies.iter().filter(|policy| policy.types.egress).count();
    let peer = nearest_peer_rule(model, &network_policies, flow);
    by_default(namespace, selected.len() + isolating, &rules, peer, flow) // 9
}

/// The first rule by address of the wanted kind that covers the target.
fn first_cidr<'r, 'a>(
    rules: &'r [(RuleName, Rule<'a>)],
    to: Target,
    wanted: impl Fn(&Rule<'_>) -> bool,
) -> Option<(&'r RuleName, &'a CidrRule)> {
    rules.iter().filter(|(_, rule)| wanted(rule)).find_map(|(name, rule)| match rule {
        Rule::Deny(rule) | Rule::Allow(rule) => {
            let meant = covers(rule, to.address) && model::holds(&rule.ports, to.protocol, to.port);
            meant.then_some((name, *rule))
        }
        Rule::Names(_) | Rule::Resolve(_) => None,
    })
}

/// The first `egress` rule that allows the target.
fn first_peer_rule(model: &Model<'_>, policies: &[&NetworkPolicy], flow: &Outbound<'_>) -> Option<RuleName> {
    let Target { address, protocol, port } = flow.to;
    let view = model.view(flow.from);
    policies.iter().find_map(|policy| {
        let meant = |rule| {
            model.means(policy, rule, view, address)
                && peers::opens(rule, model.resident(view, address), protocol, port)
        };
        model::peer_rules(policy, RuleList::Egress).find(|(_, rule)| meant(rule)).map(|(name, _)| name)
    })
}

/// The first `egress` rule that means the address, and not the port.
fn nearest_peer_rule(model: &Model<'_>, policies: &[&NetworkPolicy], flow: &Outbound<'_>) -> Option<String> {
    let Target { address, protocol, port } = flow.to;
    let view = model.view(flow.from);
    let name = policies.iter().find_map(|policy| {
        let mut rules = model::peer_rules(policy, RuleList::Egress);
        rules.find(|(_, rule)| model.means(policy, rule, view, address)).map(|(name, _)| name)
    })?;
    Some(format!("rule `{name}` means {address}, but not {}", Service { protocol, port }))
}

/// The first rule that allows the target to this name.
fn by_name<'r, 'n>(
    rules: &'r [(RuleName, Rule<'_>)],
    asked: &'n DnsName,
    to: Target,
) -> Option<(&'n DnsName, &'r RuleName)> {
    rules.iter().find_map(|(name, rule)| match rule {
        Rule::Names(rule) => {
            let meant = matches(rule, asked) && model::holds(&rule.ports, to.protocol, to.port);
            meant.then_some((asked, name))
        }
        Rule::Deny(_) | Rule::Allow(_) | Rule::Resolve(_) => None,
    })
}

/// Nothing spoke for it: say what came nearest.
fn by_default(
    namespace: &Namespace,
    policies: usize,
    rules: &[(RuleName, Rule<'_>)],
    peer: Option<String>,
    flow: &Outbound<'_>,
) -> Decision {
    let Target { address, protocol, port } = flow.to;
    let service = Service { protocol, port };
    let live: Vec<&DnsName> =
        flow.resolved.iter().filter(|resolved| flow.now < resolved.expires).map(|resolved| &resolved.name).collect();
    let nearest = rules.iter().find_map(|(name, rule)| match rule {
        Rule::Allow(rule) if covers(rule, address) => Some(format!("rule `{name}` lists {address}, but not {service}")),
        Rule::Allow(rule) if rule.cidrs.iter().any(|cidr| cidr.contains(address)) => {
            Some(format!("rule `{name}` leaves {address} out by `except`"))
        }
        Rule::Names(rule) => {
            let asked = live.iter().find(|asked| matches(rule, asked))?;
            Some(format!("rule `{name}` allows {asked}, but not {service}"))
        }
        Rule::Allow(_) | Rule::Deny(_) | Rule::Resolve(_) => None,
    });
    sentence::egress_default(namespace, policies, flow.to, nearest.or(peer), live.first().copied())
}

/// Whether the rule means the address. `except` narrows this rule only.
fn covers(rule: &CidrRule, address: IpAddr) -> bool {
    rule.cidrs.iter().any(|cidr| cidr.contains(address)) && !rule.except.iter().any(|cidr| cidr.contains(address))
}

/// The rule's narrowest prefix around the address, as text.
pub(super) fn covering(rule: &CidrRule, address: IpAddr) -> String {
    let around = rule.cidrs.iter().filter(|cidr| cidr.contains(address));
    around.max_by_key(|cidr| cidr.prefix()).map_or_else(|| address.to_string(), ToString::to_string)
}

/// Whether one of the rule's patterns means the name.
pub(super) fn matches(rule: &NameRule, asked: &DnsName) -> bool {
    rule.names.iter().any(|pattern| pattern.matches(asked))
}

/// RFC 6890: "this network", loopback, and IPv4 inside IPv6 where no such packet may be.
fn off_wire(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.octets()[0] == 0,
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unspecified() || v6.to_ipv4_mapped().is_some(),
    }
}

fn multicast(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_multicast() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_multicast(),
    }
}
