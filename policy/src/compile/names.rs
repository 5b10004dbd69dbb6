//! Names as classes: the set of a policy's name rules that mean a name, made a class when it is first learned. A name that
//! is denied wherever it is allowed is not learned, as it would take a slot of its address and open nothing; it has a class
//! once a handshake may show it.
//!
//! Patterns are looked up label by label, so that ten thousand of them cost no more than one. Which rules mean a name is
//! fixed by its longest pattern, so there are never more classes than patterns, however many names are learned.

use std::collections::{BTreeMap, BTreeSet};

use config::names::{DnsName, DomainPattern};

use super::NameClass;
use super::lines::{self, Line};
use super::policies::{Policies, Policy};
use super::sources::{Part, Source, What};
use crate::tables::{Action, ClassId, PolicyId, RuleEntry, RuleId};
use crate::tiers::Tier;

/// The classes that one policy has for names.
#[derive(Clone, Debug, Default)]
pub(super) struct NameClasses {
    by_rules: BTreeMap<Vec<u32>, Known>,
    handed_out: BTreeSet<ClassId>,
}

/// What is known of the names that the same rules mean.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// Some port is allowed.
    opens: bool,
    /// Some port is denied.
    denies: bool,
    /// Once it was asked for.
    class: Option<ClassId>,
}

/// The patterns of one source, with the parts that list them.
#[derive(Clone, Debug, Default)]
pub(super) struct PatternIndex {
    exact: BTreeMap<String, Vec<u32>>,
    below: BTreeMap<String, Vec<u32>>,
}

/// What the rules by name say of looking a name up.
pub(super) enum Lookup {
    /// A deny refuses it.
    Refused,
    /// The first rule that lets it be looked up.
    Allowed(RuleId),
    /// None speaks of it.
    Unsaid,
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

    /// What the rules by name say of looking it up; `None` if the policy is not known.
    pub(super) fn lookup(&self, policy: PolicyId, asked: &DnsName) -> Option<Lookup> {
        let policy = self.policies.get(&policy)?;
        let matching = policy.matching(asked);
        for tier in [Tier::Admin, Tier::Namespace] {
            let own = || matching.iter().filter_map(|order| policy.part(*order)).filter(|part| part.tier == tier);
            let refuses = |part: &Part| match &part.what {
                What::Denied(rule) => !part.audited && rule.refuses_lookups(),
                What::Names(_) | What::Resolve(_) | What::Addresses { .. } | What::Isolation => false,
            };
            let allows = |part: &&Part| match part.what {
                What::Names(_) | What::Resolve(_) => true,
                What::Denied(_) | What::Addresses { .. } | What::Isolation => false,
            };
            if own().any(refuses) {
                return Some(Lookup::Refused);
            }
            if let Some(part) = own().find(allows) {
                return Some(Lookup::Allowed(part.id));
            }
        }
        Some(Lookup::Unsaid)
    }

    /// Whether an enforced rule refuses lookups of all names below one.
    pub(super) fn refuses_below(&self, policy: PolicyId) -> bool {
        let sources = self.policies.get(&policy).into_iter().flat_map(|policy| &policy.sources);
        let mut enforced = sources.flat_map(|made| &made.source.parts).filter(|part| !part.audited);
        enforced.any(|part| match &part.what {
            What::Denied(rule) => {
                rule.refuses_lookups() && rule.names.iter().any(|it| matches!(it, DomainPattern::Below(_)))
            }
            What::Names(_) | What::Resolve(_) | What::Addresses { .. } | What::Isolation => false,
        })
    }

    /// Whether the name in a handshake decides over connections to a name; `None` if the policy is not known. Of a service
    /// at a port, `_8443._https.api.example` (RFC 9460, 2.3), it is the host that a handshake names.
    pub(super) fn reads_handshakes(&self, id: PolicyId, asked: Option<&DnsName>) -> Option<bool> {
        let policy = self.policies.get(&id)?;
        let host = asked.and_then(host);
        let verified = |name: &DnsName| {
            let set: Vec<u32> = policy.matching(name).into_iter().collect();
            policy.name_lines(id, ClassId::ANY, &set).iter().any(|line| line.verify)
        };
        Some(!policy.standing.reads.is_empty() || asked.into_iter().chain(&host).any(verified))
    }

    /// The class of a name; `None` if it opens nothing.
    pub(super) fn name_class(&mut self, id: PolicyId, asked: &DnsName) -> Option<NameClass> {
        self.class_where(id, asked, |known| known.opens)
    }

    /// The class of a name that a handshake may show; `None` if it neither opens nor denies anything.
    pub(super) fn shown_class(&mut self, id: PolicyId, shown: &DnsName) -> Option<NameClass> {
        self.class_where(id, shown, |known| known.opens || known.denies)
    }

    fn class_where(&mut self, id: PolicyId, asked: &DnsName, wanted: impl Fn(Known) -> bool) -> Option<NameClass> {
        let next = self.next_name_class;
        let policy = self.policies.get_mut(&id)?;
        let mut set: Vec<u32> = policy.matching(asked).into_iter().collect();
        set.retain(|order| policy.name_line(*order).is_some());
        let known = match policy.names.by_rules.get(&set) {
            Some(known) => *known,
            None => {
                let lines = policy.name_lines(id, next, &set);
                let any = |action| lines.iter().any(|line| line.action == action);
                let known = Known { opens: any(Action::Allow), denies: any(Action::Deny), class: None };
                policy.names.by_rules.insert(set.clone(), known);
                known
            }
        };
        if !wanted(known) {
            return None;
        }
        let class = match known.class {
            Some(class) => class,
            None => {
                policy.names.by_rules.insert(set.clone(), Known { class: Some(next), ..known });
                self.next_name_class = ClassId(next.0 + 1);
                next
            }
        };
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
        let classes = self.names.by_rules.iter().filter_map(|(set, known)| Some((set, known.class?)));
        classes.flat_map(|(set, class)| self.name_lines(id, class, set)).collect()
    }

    fn name_lines(&self, id: PolicyId, class: ClassId, set: &[u32]) -> Vec<RuleEntry> {
        let own: Vec<Line<'_>> = set.iter().filter_map(|order| self.name_line(*order)).collect();
        lines::lines(id, class, &own, &self.standing.of_names())
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
        let (action, ports, verifies) = match &part.what {
            What::Names(rule) => (Action::Allow, &rule.ports, Some(rule)),
            What::Denied(rule) => (Action::Deny, &rule.ports, None),
            What::Resolve(_) | What::Addresses { .. } | What::Isolation => return None,
        };
        let audited = part.audited && action == Action::Deny;
        Some(Line { action, tier: part.tier, audited, order, rule: part.id, ports, verifies })
    }
}

/// What is behind the labels that begin with an underscore, if there are any.
fn host(asked: &DnsName) -> Option<DnsName> {
    let mut rest = asked.as_str();
    while rest.starts_with('_') {
        rest = rest.split_once('.')?.1;
    }
    if rest.len() < asked.as_str().len() { DnsName::try_from(rest.to_owned()).ok() } else { None }
}

impl PatternIndex {
    pub(super) fn of(source: &Source) -> Self {
        let mut index = Self::default();
        for (part, own) in (0u32..).zip(&source.parts) {
            let patterns: &[DomainPattern] = match &own.what {
                What::Names(rule) => &rule.names,
                What::Denied(rule) => &rule.names,
                What::Resolve(patterns) => patterns,
                What::Addresses { .. } | What::Isolation => &[],
            };
            patterns.iter().for_each(|pattern| index.insert(pattern, part));
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
