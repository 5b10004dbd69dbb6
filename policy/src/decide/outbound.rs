//! What a workload sends.

use std::net::IpAddr;

use config::names::DnsName;
use config::resource::{Namespace, NetworkPolicy};

use super::rules::{Rules, means};
use super::sentence::{self, Isolating, Named, Service};
use super::{Decision, Outbound, Shown, Target};
use crate::model::{self, Model};
use crate::peers;
use crate::reason::Reason;
use crate::tables::{RuleList, RuleName};
use crate::tiers::{Policy, Reading, Rule, Tier};

const DNS_PORT: u16 = 53;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const SCTP: u8 = 132;

/// The verdict on a flow from a workload. Steps that look at frames rather than at flows (spoofing, known flows, the
/// segment's control) are the kernel's alone; their numbers are kept.
///
/// 0. A workload without a namespace is sealed.
/// 1. An address that must not be on a wire → drop.
/// 4. Multicast and broadcast, beyond the segment's control → drop.
/// 5. Port 53, UDP or TCP, whatever the server → service namespace.
///    Then the node's own addresses: closed but for edge listeners, which are ordinary destinations.
/// 6. The admin tier: its deny rules by address and by the handshake's name, then its allow rules, by address first, then
///    by learned name.
/// 7. The namespace's deny rules, by address and by the handshake's name.
/// 8. Its allow rules: by address first, `egress` rules of network policies among them, then by learned name.
/// 9. The default.
///
/// By learned name: names in their order, those that need no look at the handshake before the others. No name is allowed
/// that a deny rule of the same tier, or of the one above, means at this port. Where a rule verifies, only the name that
/// the handshake shows is. While none was read, what such a rule would allow holds, and so does all that passes where a
/// deny by name, of the tier that decides or of the one above, reads handshakes. A handshake that shows no name is judged
/// by address, and by the rules that verify nothing.
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
    let by = |reading| by_policies(model, namespace, &selected, reading, flow);
    both_readings(by(Reading::Applied), by(Reading::Strict), &selected)
}

/// A verdict, and what the handshake is waited for, if it is.
pub(super) struct Judged {
    decision: Decision,
    waits: Option<String>,
}

impl From<Decision> for Judged {
    fn from(decision: Decision) -> Self {
        Self { decision, waits: None }
    }
}

/// What is applied decides, and whether it waits; what is audited is only told.
pub(super) fn both_readings(applied: Judged, strict: Judged, selected: &[Policy<'_>]) -> Decision {
    let decision = match (applied.decision.allowed, strict.decision.allowed) {
        (true, false) => {
            let denying = strict.decision.rule.clone().filter(|rule| is_audited(selected, rule));
            let by = denying.or_else(|| isolation(selected));
            sentence::audited(applied.decision, strict.decision, by)
        }
        (true, true) => strict.decision,
        (false, _) => applied.decision,
    };
    match applied.waits {
        Some(waits) => decision.holding(&waits),
        None => decision,
    }
}

/// Whether an audited policy has the rule among its denies.
fn is_audited(selected: &[Policy<'_>], rule: &RuleName) -> bool {
    let mut audited = selected.iter().filter(|policy| policy.is_audited()).flat_map(|policy| policy.rules());
    rule.list == RuleList::Deny && audited.any(|(name, _)| name == *rule)
}

/// The audited isolation that is named.
fn isolation(selected: &[Policy<'_>]) -> Option<RuleName> {
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
) -> Judged {
    let rules = Rules::of(model, selected, reading);
    if let Some(judged) = by_tier(&rules, Tier::Admin, flow).or_else(|| by_live_name(&rules, Tier::Admin, true, flow)) {
        return judged; // 6
    }
    let Judged { decision, waits } = by_namespace(model, namespace, selected, reading, &rules, flow);
    let decision = match rules.by_address(Tier::Admin, flow.to, |rule| matches!(rule, Rule::Pass(_))) {
        Some((passing, _)) => decision.and(&format!("{} leaves it to the namespace", Named(passing))),
        None => decision,
    };
    Judged { decision, waits }
}

fn by_namespace(
    model: &Model<'_>,
    namespace: &Namespace,
    selected: &[Policy<'_>],
    reading: Reading,
    rules: &Rules<'_>,
    flow: &Outbound<'_>,
) -> Judged {
    if let Some(judged) = by_tier(rules, Tier::Namespace, flow) {
        return judged; // 7, 8
    }
    let (address, service) = (flow.to.address, Service::of(flow.to));
    let network_policies = model.network_policies(flow.from);
    if let Some(name) = first_peer_rule(model, &network_policies, flow) {
        let text = format!("{} allows {service} of {address}", Named(&name));
        let decision = Decision::allow(Reason::AllowedByCidr, text).by(name);
        return waiting(decision, false, rules, Tier::Namespace, service, flow.shown); // 8
    }
    if !model::isolated(namespace, selected, &network_policies, reading) {
        let decision = sentence::not_isolated(namespace);
        return waiting(decision, false, rules, Tier::Namespace, service, flow.shown); // 9
    }
    // What passes without the name, because only audited policies isolate, need not wait for it.
    let needed = model::isolated(namespace, selected, &network_policies, Reading::Applied);
    if let Some(judged) = by_live_name(rules, Tier::Namespace, needed, flow) {
        return judged; // 8
    }
    if let Some(decision) = by_lacking_name(namespace, rules, flow) {
        return decision.into(); // 9
    }
    let isolating = Isolating::of(selected, &network_policies, reading);
    let peer = nearest_peer_rule(model, &network_policies, flow);
    by_default(namespace, isolating, rules, peer, flow).into() // 9
}

/// What a tier's rules by address say, and by the handshake's name: its denies, then its allows.
fn by_tier(rules: &Rules<'_>, tier: Tier, flow: &Outbound<'_>) -> Option<Judged> {
    if let Some((name, prefix)) = rules.by_address(tier, flow.to, |rule| matches!(rule, Rule::Deny(_))) {
        return Some(sentence::denied_by(tier, name, prefix, flow.to).into());
    }
    let service = Service::of(flow.to);
    if let Shown::Name(shown) = flow.shown
        && let Some(rule) = rules.denying(tier, shown, service)
    {
        return Some(sentence::denied_name(tier, rule, shown, service, "which the handshake names").into());
    }
    let (name, prefix) = rules.by_address(tier, flow.to, |rule| matches!(rule, Rule::Allow(_)))?;
    let text = format!("{} allows {service} of {prefix}", Named(name));
    let decision = Decision::allow(Reason::AllowedByCidr, text).by(name.clone());
    Some(waiting(decision, false, rules, tier, service, flow.shown))
}

/// Names in their order, that of the handshake first; the first that need not wait, else the first. `needed`: without the
/// name it would not pass.
fn by_live_name(rules: &Rules<'_>, tier: Tier, needed: bool, flow: &Outbound<'_>) -> Option<Judged> {
    let service = Service::of(flow.to);
    let mut live: Vec<&DnsName> = live(flow).collect();
    live.sort_by_key(|name| flow.shown != Shown::Name(name));
    let allowed = live.into_iter().filter_map(|asked| {
        let allowing = rules.allowing(tier, asked, service, flow.shown)?;
        let shown = match flow.shown {
            Shown::Name(shown) if shown == asked => "the handshake names and ",
            Shown::Name(_) | Shown::NotYet | Shown::Nothing(_) => "",
        };
        let named = Named(allowing.rule);
        let text = format!("{named} allows {asked}, which {shown}this workload resolved to {}", flow.to.address);
        let decision = Decision::allow(Reason::AllowedByName, text).by(allowing.rule.clone()).named(asked);
        Some(waiting(decision, allowing.verifies && needed, rules, tier, service, flow.shown))
    });
    let mut held = None;
    for judged in allowed {
        if judged.waits.is_none() {
            return Some(judged);
        }
        held = held.or(Some(judged));
    }
    held
}

/// What a tier lets pass waits where its rule verifies the name, and where a deny by name reads handshakes.
pub(super) fn waiting(
    decision: Decision,
    verifies: bool,
    rules: &Rules<'_>,
    tier: Tier,
    service: Service,
    shown: Shown<'_>,
) -> Judged {
    let waits = match shown {
        Shown::NotYet => sentence::waits(verifies, rules.reading(tier, service)),
        Shown::Name(_) | Shown::Nothing(_) => None,
    };
    Judged { decision, waits }
}

/// Names that would have opened it, and did not: the handshake shows another or none, they are denied, or their time is over.
fn by_lacking_name(namespace: &Namespace, rules: &Rules<'_>, flow: &Outbound<'_>) -> Option<Decision> {
    let service = Service::of(flow.to);
    let allowing = |asked: &DnsName, shown: Shown<'_>| {
        let mut tiers = [Tier::Admin, Tier::Namespace].into_iter();
        tiers.find_map(|tier| rules.allowing(tier, asked, service, shown))
    };
    let stale = || flow.resolved.iter().filter(|own| flow.now >= own.expires).map(|own| &own.name);
    let expired = |asked: &DnsName| {
        let rule = allowing(asked, flow.shown)?.rule;
        Some(sentence::name_expired(asked, rule, flow.to.address))
    };
    if let Shown::Name(shown) = flow.shown
        && let Some(decision) = stale().filter(|asked| *asked == shown).find_map(expired)
    {
        return Some(decision);
    }
    let unverified = live(flow).find_map(|asked| Some((asked, allowing(asked, Shown::NotYet)?.rule)));
    match (flow.shown, unverified) {
        (Shown::Name(shown), Some(wanted)) => {
            let elsewhere = allowing(shown, flow.shown).map(|own| own.rule);
            return Some(sentence::mismatch(namespace, shown, elsewhere, wanted, flow.to));
        }
        (Shown::Nothing(why), Some(wanted)) => return Some(sentence::unshown(why, wanted, flow.to)),
        // While nothing was read, each of them would have opened it.
        (Shown::NotYet, _) | (_, None) => {}
    }
    let denied = live(flow).find_map(|asked| Some((asked, rules.denying_from(Tier::Namespace, asked, service)?)));
    if let Some((asked, (tier, rule))) = denied {
        let how = format!("which this workload resolved to {}", flow.to.address);
        return Some(sentence::denied_name(tier, rule, asked, service, &how));
    }
    stale().find_map(expired)
}

fn live<'f>(flow: &Outbound<'f>) -> impl Iterator<Item = &'f DnsName> {
    let now = flow.now;
    flow.resolved.iter().filter(move |own| now < own.expires).map(|own| &own.name)
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
    let nearest = rules.all().find_map(|own| {
        let named = Named(&own.name);
        match own.rule {
            Rule::Allow(_) => {
                let addresses = own.addresses.as_ref()?;
                addresses.listing(address)?;
                Some(match addresses.meaning(address) {
                    Some(_) => format!("{named} lists {address}, but not {service}"),
                    None => format!("{named} leaves {address} out by `except`"),
                })
            }
            Rule::Names(rule) => {
                let asked = live(flow).find(|asked| means(&rule.names, asked))?;
                Some(format!("{named} allows {asked}, but not {service}"))
            }
            Rule::Deny(_) | Rule::DenyNames(_) | Rule::Resolve(_) | Rule::Pass(_) | Rule::Isolation => None,
        }
    });
    sentence::egress_default(namespace, isolating, flow.to, nearest.or(peer), live(flow).next())
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
