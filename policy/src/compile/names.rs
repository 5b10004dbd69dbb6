//! Names as classes: the set of a policy's name rules that mean a name, made a class when it is first learned.
//!
//! Patterns are looked up label by label, so that ten thousand of them cost no more than one. Which rules mean a name is
//! fixed by its longest pattern, so there are never more classes than patterns, however many names are learned.

use std::collections::{BTreeMap, BTreeSet};

use config::names::{DnsName, DomainPattern};
use config::resource::Ports;

use super::NameClass;
use super::lines::{self, Line, Standing};
use super::plan::{Plan, PolicyPlan, Source};
use super::rules::{RuleTable, What};
use crate::model;
use crate::peers;
use crate::tables::{Action, ClassId, PolicyId, RuleEntry, RuleId, RuleList};
use crate::tiers::{Rule, Tier};

/// The name rules of all policies, and the classes made so far.
#[derive(Clone, Debug)]
pub(super) struct Names {
    /// One index for each egress policy of the model.
    sources: Vec<PatternIndex>,
    /// What a rule number stands for.
    rules: BTreeMap<u32, NamedRule>,
    policies: BTreeMap<PolicyId, PolicyNames>,
    classes: BTreeMap<(PolicyId, Vec<u32>), ClassId>,
    handed_out: BTreeSet<(PolicyId, ClassId)>,
    next: ClassId,
}

#[derive(Clone, Debug)]
struct PolicyNames {
    sources: Vec<u32>,
    isolated: bool,
    /// The rule of a network policy that lets every name be looked up.
    dns: Option<RuleId>,
}

#[derive(Clone, Debug)]
struct NamedRule {
    id: RuleId,
    tier: Tier,
    /// `None`: may be looked up, opens nothing.
    ports: Option<Ports>,
}

impl Names {
    pub(super) fn new(first: ClassId, table: &RuleTable<'_>, plan: &Plan<'_>) -> Self {
        let mut sources = vec![PatternIndex::default(); plan.sources.len()];
        let mut rules = BTreeMap::new();
        for (order, part) in (0u32..).zip(&table.parts) {
            let (patterns, ports) = match &part.what {
                What::Own(Rule::Names(rule), _) => (rule.names.as_slice(), Some(rule.ports.clone())),
                What::Own(Rule::Resolve(patterns), _) => (*patterns, None),
                What::Own(Rule::Deny(_) | Rule::Allow(_) | Rule::Pass(_) | Rule::Isolation, _) | What::Peers(_) => {
                    continue;
                }
            };
            for pattern in patterns {
                sources[part.source as usize].insert(pattern, order);
            }
            rules.insert(order, NamedRule { id: part.id, tier: part.tier, ports });
        }
        let dns = |source: &u32| match &plan.sources[*source as usize] {
            Source::To(policy, _) => {
                let index = peers::dns_rule(policy)?;
                table.id(&model::peer_rules(policy, RuleList::Egress).nth(index)?.0)
            }
            Source::Egress(_) | Source::From(..) => None,
        };
        let policy = |own: &PolicyPlan| PolicyNames {
            sources: own.sources.clone(),
            isolated: own.otherwise != Action::Allow,
            dns: own.sources.iter().find_map(dns),
        };
        let policies = plan.egress.iter().map(|own| (own.id, policy(own))).collect();
        Self { sources, rules, policies, classes: BTreeMap::new(), handed_out: BTreeSet::new(), next: first }
    }

    pub(super) fn isolated(&self, policy: PolicyId) -> Option<bool> {
        self.policies.get(&policy).map(|policy| policy.isolated)
    }

    /// The rule of a network policy that lets every name be looked up.
    pub(super) fn dns_rule(&self, policy: PolicyId) -> Option<RuleId> {
        self.policies.get(&policy)?.dns
    }

    /// The first rule that lets the name be looked up.
    pub(super) fn resolving_rule(&self, policy: PolicyId, asked: &DnsName) -> Option<RuleId> {
        let order = *self.matching(policy, asked).first()?;
        self.rules.get(&order).map(|rule| rule.id)
    }

    pub(super) fn class(&mut self, policy: PolicyId, asked: &DnsName) -> Option<NameClass> {
        let mut set: Vec<u32> = self.matching(policy, asked).into_iter().collect();
        set.retain(|order| self.rules.get(order).is_some_and(|rule| rule.ports.is_some()));
        if set.is_empty() {
            return None;
        }
        let next = self.next;
        let class = *self.classes.entry((policy, set.clone())).or_insert(next);
        if class == next {
            self.next = ClassId(next.0.wrapping_add(1));
        }
        let first = self.handed_out.insert((policy, class));
        let new_rules = if first { self.lines(policy, class, &set) } else { Vec::new() };
        Some(NameClass { class, new_rules })
    }

    pub(super) fn lost(&mut self, policy: PolicyId, class: ClassId) {
        self.handed_out.remove(&(policy, class));
    }

    /// Every line of every class made so far.
    pub(super) fn all_lines(&self) -> Vec<RuleEntry> {
        self.classes.iter().flat_map(|((policy, set), class)| self.lines(*policy, *class, set)).collect()
    }

    fn lines(&self, policy: PolicyId, class: ClassId, set: &[u32]) -> Vec<RuleEntry> {
        let own: Vec<Line<'_>> = set.iter().filter_map(|order| self.line(*order)).collect();
        lines::lines(policy, class, &own, Standing::new(Action::Undecided))
    }

    fn matching(&self, policy: PolicyId, asked: &DnsName) -> BTreeSet<u32> {
        let sources = self.policies.get(&policy).into_iter().flat_map(|policy| &policy.sources);
        sources.flat_map(|&source| self.sources[source as usize].matching(asked)).collect()
    }

    fn line(&self, order: u32) -> Option<Line<'_>> {
        let rule = self.rules.get(&order)?;
        let ports = rule.ports.as_ref()?;
        Some(Line { action: Action::Allow, tier: rule.tier, audited: false, order, rule: rule.id, ports })
    }
}

/// The patterns of one egress policy, with the rules that list them.
#[derive(Clone, Debug, Default)]
struct PatternIndex {
    exact: BTreeMap<String, Vec<u32>>,
    below: BTreeMap<String, Vec<u32>>,
}

impl PatternIndex {
    fn insert(&mut self, pattern: &DomainPattern, rule: u32) {
        match pattern {
            DomainPattern::Exact(name) => self.exact.entry(name.as_str().to_owned()).or_default().push(rule),
            DomainPattern::Below(apex) => self.below.entry(apex.as_str().to_owned()).or_default().push(rule),
        }
    }

    fn matching<'a>(&'a self, asked: &'a DnsName) -> impl Iterator<Item = u32> + 'a {
        let text = asked.as_str();
        let above = text.match_indices('.').map(move |(dot, _)| &text[dot + 1..]);
        let below = above.filter_map(|apex| self.below.get(apex));
        self.exact.get(text).into_iter().chain(below).flatten().copied()
    }
}
