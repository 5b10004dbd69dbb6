//! Names as classes: the set of a policy's name rules that mean a name, made a class when it is first learned.
//!
//! Patterns are looked up label by label, so that ten thousand of them cost no more than one. Which rules mean a name is
//! fixed by its longest pattern, so there are never more classes than patterns, however many names are learned.

use std::collections::{BTreeMap, BTreeSet};

use config::names::{DnsName, DomainPattern};

use super::NameClass;
use super::lines::{self, Line, Standing};
use super::policies::{Policies, Policy};
use super::sources::{Source, What};
use crate::tables::{Action, ClassId, PolicyId, RuleEntry, RuleId};

/// The classes that one policy has for names.
#[derive(Clone, Debug, Default)]
pub(super) struct NameClasses {
    by_rules: BTreeMap<Vec<u32>, ClassId>,
    handed_out: BTreeSet<ClassId>,
}

/// The patterns of one source, with the parts that list them.
#[derive(Clone, Debug, Default)]
pub(super) struct PatternIndex {
    exact: BTreeMap<String, Vec<u32>>,
    below: BTreeMap<String, Vec<u32>>,
}

impl Policies {
    /// Whether only what a rule allows may leave; `None` if the policy is not known.
    pub(super) fn isolated(&self, policy: PolicyId) -> Option<bool> {
        self.policies.get(&policy).map(|policy| policy.standing.otherwise != Action::Allow)
    }

    /// The rule of a network policy that lets every name be looked up.
    pub(super) fn dns_rule(&self, policy: PolicyId) -> Option<RuleId> {
        self.policies.get(&policy)?.sources.iter().find_map(|made| made.source.dns)
    }

    /// The first rule that lets the name be looked up.
    pub(super) fn resolving_rule(&self, policy: PolicyId, asked: &DnsName) -> Option<RuleId> {
        let policy = self.policies.get(&policy)?;
        let order = policy.matching(asked).into_iter().next()?;
        policy.part(order).map(|part| part.id)
    }

    /// The class of a name; `None` if it opens nothing.
    pub(super) fn name_class(&mut self, id: PolicyId, asked: &DnsName) -> Option<NameClass> {
        let next = self.next_name_class;
        let policy = self.policies.get_mut(&id)?;
        let mut set: Vec<u32> = policy.matching(asked).into_iter().collect();
        set.retain(|order| policy.name_line(*order).is_some());
        if set.is_empty() {
            return None;
        }
        let class = *policy.names.by_rules.entry(set.clone()).or_insert(next);
        if class == next {
            self.next_name_class = ClassId(next.0 + 1);
        }
        let first = policy.names.handed_out.insert(class);
        let new_rules = if first { policy.name_lines(id, class, &set) } else { Vec::new() };
        Some(NameClass { class, new_rules })
    }

    /// The lines of this class did not reach the kernel.
    pub(super) fn name_rules_lost(&mut self, policy: PolicyId, class: ClassId) {
        if let Some(policy) = self.policies.get_mut(&policy) {
            policy.names.handed_out.remove(&class);
        }
    }

    /// Every line of every class of names made so far.
    pub(super) fn name_rules(&self) -> Vec<RuleEntry> {
        self.policies.iter().flat_map(|(id, policy)| policy.all_name_lines(*id)).collect()
    }
}

impl Policy {
    /// The lines of its names' classes.
    pub(super) fn all_name_lines(&self, id: PolicyId) -> Vec<RuleEntry> {
        self.names.by_rules.iter().flat_map(|(set, class)| self.name_lines(id, *class, set)).collect()
    }

    fn name_lines(&self, id: PolicyId, class: ClassId, set: &[u32]) -> Vec<RuleEntry> {
        let own: Vec<Line<'_>> = set.iter().filter_map(|order| self.name_line(*order)).collect();
        lines::lines(id, class, &own, Standing::new(Action::Undecided))
    }

    /// By order.
    fn matching(&self, asked: &DnsName) -> BTreeSet<u32> {
        let of = |(made, start): (&std::sync::Arc<super::policies::Made>, &u32)| -> Vec<u32> {
            made.patterns.matching(asked).map(|part| start + part).collect()
        };
        self.sources.iter().zip(&self.starts).flat_map(of).collect()
    }

    fn name_line(&self, order: u32) -> Option<Line<'_>> {
        let part = self.part(order)?;
        match &part.what {
            What::Names { ports: Some(ports), .. } => {
                Some(Line { action: Action::Allow, tier: part.tier, audited: false, order, rule: part.id, ports })
            }
            What::Names { ports: None, .. } | What::Addresses { .. } | What::Isolation => None,
        }
    }
}

impl PatternIndex {
    pub(super) fn of(source: &Source) -> Self {
        let mut index = Self::default();
        for (part, own) in (0u32..).zip(&source.parts) {
            if let What::Names { patterns, .. } = &own.what {
                patterns.iter().for_each(|pattern| index.insert(pattern, part));
            }
        }
        index
    }

    fn insert(&mut self, pattern: &DomainPattern, part: u32) {
        match pattern {
            DomainPattern::Exact(name) => self.exact.entry(name.as_str().to_owned()).or_default().push(part),
            DomainPattern::Below(apex) => self.below.entry(apex.as_str().to_owned()).or_default().push(part),
        }
    }

    fn matching<'a>(&'a self, asked: &'a DnsName) -> impl Iterator<Item = u32> + 'a {
        let text = asked.as_str();
        let above = text.match_indices('.').map(move |(dot, _)| &text[dot + 1..]);
        let below = above.filter_map(|apex| self.below.get(apex));
        self.exact.get(text).into_iter().chain(below).flatten().copied()
    }
}
