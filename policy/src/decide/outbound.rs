//! What a workload sends.

use std::net::IpAddr;

use config::names::{DnsName, Name};
use config::resource::{NameRule, Namespace, NetworkPolicy};

use super::addresses::{Addresses, Covering};
use super::sentence::{self, Isolating, Named, Service};
use super::{Decision, Outbound, Target};
use crate::model::{self, Model};
use crate::peers;
use crate::reason::Reason;
use crate::tables::{RuleList, RuleName};
use crate::tiers::{Policy, Reading, Rule, Tier};

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
/// 6. The admin tier: its deny rules by address, then its allow rules, by address first, then by learned name.
/// 7. The namespace's deny rules, by address.
/// 8. Its allow rules: by address first, `egress` rules of network policies among them, then by learned name.
/// 9. The default.
///
/// From 6 on the verdict is read twice: as applied, where a policy with `mode: Audit` denies and isolates nothing, and
/// as if it were enforced. What passes only in the first reading is audited.
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
    let own = model.node().addresses.contains(&address) && !model.node().listens(address, protocol, port);
    if own || model::EDGE_ADDRESSES.contains(&address) {
        return sentence::node_address(flow.to); // 5
    }

    let selected = model.selected(flow.from);
    let applied = by_policies(model, namespace, &selected, Reading::Applied, flow);
    let strict = by_policies(model, namespace, &selected, Reading::Strict, flow);
    match (applied.allowed, strict.allowed) {
        (true, false) => sentence::audited(applied, strict, isolation(&selected)),
        (true, true) => strict,
        (false, _) => applied,
    }
}

/// The audited isolation that is named.
pub(super) fn isolation(selected: &[Policy<'_>]) -> Option<RuleName> {
    let mut rules = selected.iter().flat_map(|policy| policy.rules());
    rules.find_map(|(name, rule)| matches!(rule, Rule::Isolation).then_some(name))
}

/// 6 to 9.
fn by_policies(
    model: &Model<'_>,
    namespace: &Namespace,
    selected: &[Policy<'_>],
    reading: Reading,
    flow: &Outbound<'_>,
) -> Decision {
    let rules = Rules::of(model, selected, reading);
    if let Some(decision) = by_tier(&rules, Tier::Admin, flow).or_else(|| by_live_name(&rules, Tier::Admin, flow)) {
        return decision; // 6
    }
    let decision = by_namespace(model, namespace, selected, reading, &rules, flow);
    match rules.by_address(Tier::Admin, flow.to, |rule| matches!(rule, Rule::Pass(_))) {
        Some((passing, _)) => decision.and(&format!("{} leaves it to the namespace", Named(passing))),
        None => decision,
    }
}

fn by_namespace(
    model: &Model<'_>,
    namespace: &Namespace,
    selected: &[Policy<'_>],
    reading: Reading,
    rules: &Rules<'_>,
    flow: &Outbound<'_>,
) -> Decision {
    if let Some(decision) = by_tier(rules, Tier::Namespace, flow) {
        return decision; // 7, 8
    }
    let Target { address, protocol, port } = flow.to;
    let network_policies = model.network_policies(flow.from);
    if let Some(name) = first_peer_rule(model, &network_policies, flow) {
        let text = format!("{} allows {} of {address}", Named(&name), Service { protocol, port });
        return Decision::allow(Reason::AllowedByCidr, text).by(name); // 8
    }
    if !model::isolated(namespace, selected, &network_policies, reading) {
        let text = format!("no policy isolates the workload, and `egressDefault` of `{}` is Allow", namespace.name);
        return Decision::allow(Reason::AllowedByDefault, text); // 9
    }
    if let Some(decision) = by_live_name(rules, Tier::Namespace, flow) {
        return decision; // 8
    }
    let mut stale = flow.resolved.iter().filter(|resolved| flow.now >= resolved.expires);
    let expired = stale.find_map(|resolved| {
        let by = |tier| rules.by_name(tier, &resolved.name, flow.to);
        by(Tier::Admin).or_else(|| by(Tier::Namespace)).map(|rule| (&resolved.name, rule))
    });
    if let Some((asked, rule)) = expired {
        return sentence::name_expired(asked, rule, flow.to.address); // 9
    }
    let isolating = Isolating::of(selected, &network_policies, reading);
    let peer = nearest_peer_rule(model, &network_policies, flow);
    by_default(namespace, isolating, rules, peer, flow) // 9
}

/// What a tier's rules by address say: its denies, then its allows.
fn by_tier(rules: &Rules<'_>, tier: Tier, flow: &Outbound<'_>) -> Option<Decision> {
    if let Some((name, prefix)) = rules.by_address(tier, flow.to, |rule| matches!(rule, Rule::Deny(_))) {
        return Some(sentence::denied_by(tier, name, prefix, flow.to));
    }
    let (name, prefix) = rules.by_address(tier, flow.to, |rule| matches!(rule, Rule::Allow(_)))?;
    let service = Service { protocol: flow.to.protocol, port: flow.to.port };
    let text = format!("{} allows {service} of {prefix}", Named(name));
    Some(Decision::allow(Reason::AllowedByCidr, text).by(name.clone()))
}

fn by_live_name(rules: &Rules<'_>, tier: Tier, flow: &Outbound<'_>) -> Option<Decision> {
    let mut live = flow.resolved.iter().filter(|resolved| flow.now < resolved.expires);
    let (asked, rule) = live.find_map(|resolved| {
        let rule = rules.by_name(tier, &resolved.name, flow.to)?;
        Some((&resolved.name, rule))
    })?;
    let named = Named(rule);
    let text = format!("{named} allows {asked}, which this workload resolved to {}", flow.to.address);
    Some(Decision::allow(Reason::AllowedByName, text).by(rule.clone()).named(asked))
}

/// Every rule that counts of the policies that select a workload, in the order in which they are named.
struct Rules<'a>(Vec<(Tier, RuleName, Rule<'a>, Option<Addresses<'a>>)>);

impl<'a> Rules<'a> {
    fn of(model: &Model<'a>, selected: &[Policy<'a>], reading: Reading) -> Self {
        let rules = selected.iter().flat_map(|policy| {
            let ((tier, namespace, _), counts) = (policy.key(), policy.counts(reading));
            let rules = policy.rules().filter(move |(_, rule)| counts || !matches!(rule, Rule::Deny(_)));
            rules.map(move |(name, rule)| (tier, name, rule, addresses(model, namespace, rule)))
        });
        Self(rules.collect())
    }

    fn of_tier(&self, tier: Tier) -> impl Iterator<Item = &(Tier, RuleName, Rule<'a>, Option<Addresses<'a>>)> {
        self.0.iter().filter(move |(own, ..)| *own == tier)
    }

    /// The tier's first rule by address of the wanted kind that covers the target, and its narrowest prefix around it.
    fn by_address(
        &self,
        tier: Tier,
        to: Target,
        wanted: impl Fn(&Rule<'_>) -> bool,
    ) -> Option<(&RuleName, Covering<'a>)> {
        let mut wanted = self.of_tier(tier).filter(|(_, _, rule, _)| wanted(rule));
        wanted.find_map(|(_, name, _, addresses)| {
            let addresses = addresses.as_ref()?;
            let holds = model::holds(&addresses.rule.ports, to.protocol, to.port);
            addresses.meaning(to.address).filter(|_| holds).map(|prefix| (name, prefix))
        })
    }

    /// The tier's first rule that allows the target to this name.
    fn by_name(&self, tier: Tier, asked: &DnsName, to: Target) -> Option<&RuleName> {
        self.of_tier(tier).find_map(|(_, name, rule, _)| match rule {
            Rule::Names(rule) => {
                let meant = matches(rule, asked) && model::holds(&rule.ports, to.protocol, to.port);
                meant.then_some(name)
            }
            Rule::Deny(_) | Rule::Allow(_) | Rule::Resolve(_) | Rule::Pass(_) | Rule::Isolation => None,
        })
    }
}

fn addresses<'a>(model: &Model<'a>, namespace: Option<&Name>, rule: Rule<'a>) -> Option<Addresses<'a>> {
    match rule {
        Rule::Deny(rule) | Rule::Allow(rule) | Rule::Pass(rule) => Some(Addresses::of(model, namespace, rule)),
        Rule::Names(_) | Rule::Resolve(_) | Rule::Isolation => None,
    }
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
    Some(format!("{} means {address}, but not {}", Named(&name), Service { protocol, port }))
}

/// Nothing spoke for it: say what came nearest.
fn by_default(
    namespace: &Namespace,
    isolating: Isolating,
    rules: &Rules<'_>,
    peer: Option<String>,
    flow: &Outbound<'_>,
) -> Decision {
    let Target { address, protocol, port } = flow.to;
    let service = Service { protocol, port };
    let live: Vec<&DnsName> =
        flow.resolved.iter().filter(|resolved| flow.now < resolved.expires).map(|resolved| &resolved.name).collect();
    let nearest = rules.0.iter().find_map(|(_, name, rule, addresses)| {
        let named = Named(name);
        match rule {
            Rule::Allow(_) => {
                let addresses = addresses.as_ref()?;
                addresses.listing(address)?;
                Some(match addresses.meaning(address) {
                    Some(_) => format!("{named} lists {address}, but not {service}"),
                    None => format!("{named} leaves {address} out by `except`"),
                })
            }
            Rule::Names(rule) => {
                let asked = live.iter().find(|asked| matches(rule, asked))?;
                Some(format!("{named} allows {asked}, but not {service}"))
            }
            Rule::Deny(_) | Rule::Resolve(_) | Rule::Pass(_) | Rule::Isolation => None,
        }
    });
    sentence::egress_default(namespace, isolating, flow.to, nearest.or(peer), live.first().copied())
}

/// Whether one of the rule's patterns means the name.
pub(super) fn matches(rule: &NameRule, asked: &DnsName) -> bool {
    rule.names.iter().any(|pattern| pattern.matches(asked))
}

/// RFC 6890: "this network", loopback, the reserved block, and IPv4 inside IPv6 where no such packet may be; RFC 4291
/// and 7346: groups that stay inside an interface.
fn off_wire(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let first = v4.octets()[0];
            v4.is_loopback() || first == 0 || (first >= 240 && !v4.is_broadcast())
        }
        IpAddr::V6(v6) => {
            let narrow = v6.is_multicast() && v6.segments()[0] & 0xf < 2;
            v6.is_loopback() || v6.is_unspecified() || v6.to_ipv4_mapped().is_some() || narrow
        }
    }
}

fn multicast(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_multicast() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_multicast(),
    }
}
