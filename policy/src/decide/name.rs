//! Names before there is an address: may a workload look one up, and what would it then reach.

use config::names::DnsName;
use config::resource::Namespace;
use serde::Serialize;

use super::outbound::{Judged, both_readings, waiting};
use super::rules::{Allowing, Rules, means};
use super::sentence::{self, Isolating, Named, Service};
use super::{Decision, Shown};
use crate::model::{self, Model, Subject};
use crate::peers;
use crate::reason::Reason;
use crate::tables::{RuleList, RuleName};
use crate::tiers::{Policy, Reading, Rule, Tier};

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
/// 1. The admin tier: a deny rule without `ports` that means the name refuses it, then the first `dnsNames` or `resolve`
///    rule of `allow` that does allows it. One with `ports` lets it be looked up, and so does an audited one.
/// 2. The namespace's rules, the same.
/// 3. A workload that is not isolated, or by audited policies only, resolves every name.
/// 4. The first `egress` rule of a network policy that opens port 53 allows every name: to that policy a lookup is a
///    connection, and whatever server is asked, it is answered here.
/// 5. Anything else is refused.
pub fn may_resolve(model: &Model<'_>, subject: &Subject, asked: &DnsName) -> Resolve {
    let Some(namespace) = model.namespace(subject) else {
        return Resolve::Refused; // 0
    };
    let selected = model.selected(subject);
    for tier in [Tier::Admin, Tier::Namespace] {
        let own = || selected.iter().filter(|policy| policy.tier() == tier);
        let mut denies = own().filter(|policy| !policy.is_audited()).flat_map(|policy| policy.rules());
        let refused = denies.any(|(_, rule)| match rule {
            Rule::DenyNames(rule) => rule.refuses_lookups() && means(&rule.names, asked),
            Rule::Deny(_) | Rule::Allow(_) | Rule::Names(_) | Rule::Resolve(_) | Rule::Pass(_) | Rule::Isolation => {
                false
            }
        });
        if refused {
            return Resolve::Refused; // 1, 2
        }
        let mut allows = own().flat_map(|policy| policy.rules());
        if let Some((rule, _)) = allows.find(|(_, rule)| lets_look_up(rule, asked)) {
            return Resolve::Allowed { by: Grounds::Rule(rule) }; // 1, 2
        }
    }
    let network_policies = model.network_policies(subject);
    if !model::isolated(namespace, &selected, &network_policies, Reading::Applied) {
        return Resolve::Allowed { by: Grounds::NotIsolated }; // 3
    }
    let dns = network_policies.iter().find_map(|policy| {
        let index = peers::dns_rule(policy)?;
        model::peer_rules(policy, RuleList::Egress).nth(index)
    });
    match dns {
        Some((rule, _)) => Resolve::Allowed { by: Grounds::Rule(rule) }, // 4
        None => Resolve::Refused,                                        // 5
    }
}

fn lets_look_up(rule: &Rule<'_>, asked: &DnsName) -> bool {
    match rule {
        Rule::Names(rule) => means(&rule.names, asked),
        Rule::Resolve(patterns) => means(patterns, asked),
        Rule::Deny(_) | Rule::DenyNames(_) | Rule::Allow(_) | Rule::Pass(_) | Rule::Isolation => false,
    }
}

/// What a name alone would open, once resolved, at an address that no rule by address speaks of. An address that one
/// denies stays denied.
pub fn decide(model: &Model<'_>, subject: &Subject, asked: &DnsName, protocol: u8, port: u16) -> Decision {
    let Some(namespace) = model.namespace(subject) else {
        return sentence::sealed(subject);
    };
    let selected = model.selected(subject);
    let question =
        Question { model, subject, namespace, selected: &selected, asked, service: Service { protocol, port } };
    both_readings(question.judge(Reading::Applied), question.judge(Reading::Strict), &selected)
}

struct Question<'q> {
    model: &'q Model<'q>,
    subject: &'q Subject,
    namespace: &'q Namespace,
    selected: &'q [Policy<'q>],
    asked: &'q DnsName,
    service: Service,
}

impl Question<'_> {
    fn judge(&self, reading: Reading) -> Judged {
        let Self { namespace, asked, service, .. } = *self;
        let rules = Rules::of(self.model, self.selected, reading);
        let network_policies = self.model.network_policies(self.subject);
        let isolated = |reading| model::isolated(namespace, self.selected, &network_policies, reading);
        for tier in [Tier::Admin, Tier::Namespace] {
            if let Some(rule) = rules.denying(tier, asked, service) {
                return sentence::denied_name(tier, rule, asked, service, "wherever it leads").into();
            }
            if let Some(Allowing { rule, verifies }) = rules.allowing(tier, asked, service, Shown::NotYet) {
                let text = format!(
                    "{} allows {service} of {asked} at the addresses that the workload resolves it to",
                    Named(rule)
                );
                let decision = Decision::allow(Reason::AllowedByName, text).by(rule.clone()).named(asked);
                let needed = tier == Tier::Admin || isolated(Reading::Applied);
                return waiting(decision, verifies && needed, &rules, tier, service, Shown::NotYet);
            }
        }
        if !isolated(reading) {
            let open = sentence::not_isolated(namespace);
            return waiting(open, false, &rules, Tier::Namespace, service, Shown::NotYet);
        }
        let isolating = Isolating::of(self.selected, &network_policies, reading);
        let nearest = rules.all().filter(|own| lets_look_up(&own.rule, asked)).find_map(|own| match own.rule {
            Rule::Resolve(_) => Some(format!("{} lets the name be looked up, which opens nothing", Named(&own.name))),
            Rule::Names(_) => Some(format!("{} allows {asked}, but not {service}", Named(&own.name))),
            Rule::Deny(_) | Rule::DenyNames(_) | Rule::Allow(_) | Rule::Pass(_) | Rule::Isolation => None,
        });
        sentence::name_default(namespace, isolating, asked, service, nearest).into()
    }
}
