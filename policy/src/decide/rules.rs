//! The rules that count for a workload, and the questions that a verdict asks them.

use config::names::{DnsName, DomainPattern, Name};
use config::resource::DeniedNames;

use super::addresses::{Addresses, Covering};
use super::sentence::Service;
use super::{Shown, Target};
use crate::model::Model;
use crate::tables::RuleName;
use crate::tiers::{Policy, Reading, Rule, Tier};

/// Every rule that counts of the policies that select a workload, in the order in which they are named.
pub(super) struct Rules<'a> {
    counting: Vec<Counting<'a>>,
    /// Every deny by name, those that are only recorded too.
    denied: Vec<(Tier, RuleName, &'a DeniedNames)>,
}

/// A rule that counts.
pub(super) struct Counting<'a> {
    tier: Tier,
    pub(super) name: RuleName,
    pub(super) rule: Rule<'a>,
    pub(super) addresses: Option<Addresses<'a>>,
}

/// A rule that allows a name.
#[derive(Clone, Copy)]
pub(super) struct Allowing<'r> {
    pub(super) rule: &'r RuleName,
    /// The handshake must name it.
    pub(super) verifies: bool,
}

impl<'a> Rules<'a> {
    pub(super) fn of(model: &Model<'a>, selected: &[Policy<'a>], reading: Reading) -> Self {
        let mut rules = Self { counting: Vec::new(), denied: Vec::new() };
        for policy in selected {
            let ((tier, namespace, _), denies) = (policy.key(), policy.counts(reading));
            for (name, rule) in policy.rules() {
                if let Rule::DenyNames(own) = rule {
                    rules.denied.push((tier, name.clone(), own));
                }
                if denies || !matches!(rule, Rule::Deny(_) | Rule::DenyNames(_)) {
                    let addresses = addresses(model, namespace, rule);
                    rules.counting.push(Counting { tier, name, rule, addresses });
                }
            }
        }
        rules
    }

    /// All of them.
    pub(super) fn all(&self) -> impl Iterator<Item = &Counting<'a>> {
        self.counting.iter()
    }

    fn of_tier(&self, tier: Tier) -> impl Iterator<Item = &Counting<'a>> {
        self.counting.iter().filter(move |own| own.tier == tier)
    }

    /// The tier's first rule by address of the wanted kind that covers the target, and its narrowest prefix around it.
    pub(super) fn by_address(
        &self,
        tier: Tier,
        to: Target,
        wanted: impl Fn(&Rule<'_>) -> bool,
    ) -> Option<(&RuleName, Covering<'a>)> {
        let mut wanted = self.of_tier(tier).filter(|own| wanted(&own.rule));
        wanted.find_map(|own| {
            let addresses = own.addresses.as_ref()?;
            let holds = addresses.rule.ports.hold(to.protocol, to.port);
            addresses.meaning(to.address).filter(|_| holds).map(|prefix| (&own.name, prefix))
        })
    }

    /// The tier's first rule that denies this name there.
    pub(super) fn denying(&self, tier: Tier, asked: &DnsName, at: Service) -> Option<&RuleName> {
        self.of_tier(tier).find_map(|own| match own.rule {
            Rule::DenyNames(rule) => {
                let meant = means(&rule.names, asked) && rule.ports.hold(at.protocol, at.port);
                meant.then_some(&own.name)
            }
            Rule::Deny(_) | Rule::Allow(_) | Rule::Names(_) | Rule::Resolve(_) | Rule::Pass(_) | Rule::Isolation => {
                None
            }
        })
    }

    /// The first rule that denies this name there, of the tier or of one above it.
    pub(super) fn denying_from(&self, tier: Tier, asked: &DnsName, at: Service) -> Option<(Tier, &RuleName)> {
        let tiers = [Tier::Admin, Tier::Namespace].into_iter().filter(|own| *own <= tier);
        tiers.into_iter().find_map(|own| Some((own, self.denying(own, asked, at)?)))
    }

    /// The tier's rule that allows this name there, after what was shown: the first that asks for no handshake, else the
    /// first that does. None allows a name that the tier, or one above it, denies.
    pub(super) fn allowing(&self, tier: Tier, asked: &DnsName, at: Service, shown: Shown<'_>) -> Option<Allowing<'_>> {
        if self.denying_from(tier, asked, at).is_some() {
            return None;
        }
        let mut verifying = None;
        for own in self.of_tier(tier) {
            let Rule::Names(rule) = own.rule else { continue };
            if !means(&rule.names, asked) || !rule.ports.hold(at.protocol, at.port) {
                continue;
            }
            if !rule.verifies(at.protocol, at.port) {
                return Some(Allowing { rule: &own.name, verifies: false });
            }
            verifying = verifying.or(Some(Allowing { rule: &own.name, verifies: true }));
        }
        verifying.filter(|_| match shown {
            Shown::NotYet => true,
            Shown::Name(shown) => shown == asked,
            Shown::Nothing(_) => false,
        })
    }

    /// The first deny by name, of the tier or of one above it, that what a handshake there names is compared with.
    pub(super) fn reading(&self, tier: Tier, at: Service) -> Option<&RuleName> {
        let mut reading = self.denied.iter().filter(|(own, _, rule)| *own <= tier && rule.reads(at.protocol, at.port));
        reading.next().map(|(_, name, _)| name)
    }
}

/// Whether one of the patterns means the name.
pub(super) fn means(patterns: &[DomainPattern], asked: &DnsName) -> bool {
    patterns.iter().any(|pattern| pattern.matches(asked))
}

fn addresses<'a>(model: &Model<'a>, namespace: Option<&Name>, rule: Rule<'a>) -> Option<Addresses<'a>> {
    match rule {
        Rule::Deny(rule) | Rule::Allow(rule) | Rule::Pass(rule) => Some(Addresses::of(model, namespace, rule)),
        Rule::DenyNames(_) | Rule::Names(_) | Rule::Resolve(_) | Rule::Isolation => None,
    }
}
