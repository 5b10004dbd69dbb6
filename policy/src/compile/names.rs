//! Names as classes: the set of a policy's name rules that mean a name, made a class when it is first learned.
//!
//! Patterns are looked up label by label, so that ten thousand of them cost no more than one. Which rules mean a name is
//! fixed by its longest pattern, so there are never more classes than patterns, however many names are learned.

use std::collections::{BTreeMap, BTreeSet};

use config::names::{DnsName, DomainPattern};
use config::resource::Ports;

use super::lines::{self, Line, Standing};
use super::{NameClass, Plan, RuleTable};
use crate::tables::{Action, ClassId, PolicyId, RuleEntry, RuleId};
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
        for ((order, (id, name, rule)), source) in (0u32..).zip(&table.rules).zip(&table.source_of) {
            let (patterns, ports) = match rule {
                Rule::Names(rule) => (rule.names.as_slice(), Some(rule.ports.clone())),
                Rule::Resolve(patterns) => (*patterns, None),
                Rule::Deny(_) | Rule::Allow(_) | Rule::Pass(_) => continue,
            };
            for pattern in patterns {
                sources[*source as usize].insert(pattern, order);
            }
            rules.insert(order, NamedRule { id: *id, tier: name.tier(), ports });
        }
        let policy = |sources: &[u32], isolated| PolicyNames { sources: sources.to_vec(), isolated };
        let policies = plan.egress.iter().map(|own| (own.id, policy(&own.sources, own.isolated))).collect();
        Self { sources, rules, policies, classes: BTreeMap::new(), handed_out: BTreeSet::new(), next: first }
    }

    pub(super) fn isolated(&self, policy: PolicyId) -> Option<bool> {
        self.policies.get(&policy).map(|policy| policy.isolated)
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
        Some(Line { action: Action::Allow, tier: rule.tier, order, rule: rule.id, ports: rule.ports.as_ref()? })
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
