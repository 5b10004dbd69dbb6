//! Names before there is an address: may a workload look one up, and what would it then reach.

use config::names::DnsName;
use config::resource::Namespace;
use serde::Serialize;

use super::Decision;
use super::outbound::{isolation, matches};
use super::sentence::{self, Isolating, Named, Service};
use crate::model::{self, Model, Subject};
use crate::peers;
use crate::reason::Reason;
use crate::tables::{RuleList, RuleName};
use crate::tiers::{Policy, Reading, Rule};

/// Whether a workload may look a name up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Resolve {
    /// The query goes upstream.
    Allowed {
        /// On what grounds.
        by: Grounds,
    },
    /// It is answered as if there were no such name.
    Refused,
}

/// Why a name may be looked up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Grounds {
    /// The first `dnsNames` or `resolve` rule that means it, of either tier, or a network policy's `egress` rule for port
    /// 53.
    Rule(RuleName),
    /// A workload that is not isolated resolves every name.
    NotIsolated,
}

/// Whether the workload may look the name up.
///
/// 0. A workload without a namespace is sealed.
/// 1. The first `dnsNames` or `resolve` rule that means the name allows it.
/// 2. A workload that is not isolated, or by audited policies only, resolves every name.
/// 3. The first `egress` rule of a network policy that opens port 53 allows every name: to that policy a lookup is a
///    connection, and whatever server is asked, it is answered here.
/// 4. Anything else is refused.
pub fn may_resolve(model: &Model<'_>, subject: &Subject, asked: &DnsName) -> Resolve {
    let Some(namespace) = model.namespace(subject) else {
        return Resolve::Refused; // 0
    };
    let selected = model.selected(subject);
    let mut rules = selected.iter().flat_map(|policy| policy.rules());
    let meant = rules.find_map(|(name, rule)| match rule {
        Rule::Names(rule) => matches(rule, asked).then_some(name),
        Rule::Resolve(patterns) => patterns.iter().any(|pattern| pattern.matches(asked)).then_some(name),
        Rule::Deny(_) | Rule::Allow(_) | Rule::Pass(_) | Rule::Isolation => None,
    });
    let network_policies = model.network_policies(subject);
    match meant {
        Some(rule) => Resolve::Allowed { by: Grounds::Rule(rule) }, // 1
        None if !model::isolated(namespace, &selected, &network_policies, Reading::Applied) => {
            Resolve::Allowed { by: Grounds::NotIsolated } // 2
        }
        None => match network_policies.iter().find_map(|policy| {
            let index = peers::dns_rule(policy)?;
            model::peer_rules(policy, RuleList::Egress).nth(index)
        }) {
            Some((rule, _)) => Resolve::Allowed { by: Grounds::Rule(rule) }, // 3
            None => Resolve::Refused,                                        // 4
        },
    }
}

/// What a name alone would open, once resolved, at an address that no rule by address speaks of. An address that one
/// denies stays denied.
pub fn decide(model: &Model<'_>, subject: &Subject, asked: &DnsName, protocol: u8, port: u16) -> Decision {
    let Some(namespace) = model.namespace(subject) else {
        return sentence::sealed(subject);
    };
    let service = Service { protocol, port };
    let selected = model.selected(subject);
    let allowing =
        rules_for(&selected, asked).find(|(_, ports)| ports.is_some_and(|p| model::holds(p, protocol, port)));
    if let Some((rule, _)) = allowing {
        let text =
            format!("{} allows {service} of {asked} at the addresses that the workload resolves it to", Named(&rule));
        return Decision::allow(Reason::AllowedByName, text).by(rule).named(asked);
    }
    let network_policies = model.network_policies(subject);
    let text = format!("no policy isolates the workload, and `egressDefault` of `{}` is Allow", namespace.name);
    let open = Decision::allow(Reason::AllowedByDefault, text);
    let isolated = |reading| model::isolated(namespace, &selected, &network_policies, reading);
    let denied = |reading| {
        let isolating = Isolating::of(&selected, &network_policies, reading);
        denied(namespace, &selected, isolating, asked, service)
    };
    match (isolated(Reading::Applied), isolated(Reading::Strict)) {
        (false, false) => open,
        (false, true) => sentence::audited(open, denied(Reading::Strict), isolation(&selected)),
        (true, _) => denied(Reading::Applied),
    }
}

fn denied(
    namespace: &Namespace,
    selected: &[Policy<'_>],
    isolating: Isolating,
    asked: &DnsName,
    service: Service,
) -> Decision {
    let nearest = rules_for(selected, asked).next().map(|(rule, ports)| match ports {
        Some(_) => format!("{} allows {asked}, but not {service}", Named(&rule)),
        None => format!("{} lets the name be looked up, which opens nothing", Named(&rule)),
    });
    sentence::name_default(namespace, isolating, asked, service, nearest)
}

/// The rules that mean the name, with the ports they open; `None` opens nothing.
fn rules_for<'a>(
    selected: &[Policy<'a>],
    asked: &DnsName,
) -> impl Iterator<Item = (RuleName, Option<&'a config::resource::Ports>)> {
    let rules = selected.iter().flat_map(|policy| policy.rules());
    rules.filter_map(move |(name, rule)| match rule {
        Rule::Names(rule) => matches(rule, asked).then_some((name, Some(&rule.ports))),
        Rule::Resolve(patterns) => patterns.iter().any(|pattern| pattern.matches(asked)).then_some((name, None)),
        Rule::Deny(_) | Rule::Allow(_) | Rule::Pass(_) | Rule::Isolation => None,
    })
}
