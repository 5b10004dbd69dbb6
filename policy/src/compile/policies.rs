//! Policies: sets of sources that some workload has, each under a number that stays as long as its rules do, with the
//! lines of every class that they speak of.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use config::resource::DeniedNames;

use super::classes::{Classes, FIRST_OF_NAMES};
use super::groups::GroupId;
use super::lines::{self, Line, Standing};
use super::names::{NameClasses, PatternIndex};
use super::sources::{Part, Source, What};
use crate::tables::{Action, ClassId, PolicyId, RuleEntry};
use crate::tiers::Tier;

/// A source in use.
#[derive(Clone, Debug)]
pub(super) struct Made {
    /// Never used for a source with other rules.
    pub(super) number: u32,
    pub(super) source: Source,
    pub(super) patterns: PatternIndex,
}

/// What makes one policy another than the next.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PolicyKey {
    pub(super) direction: Direction,
    /// Numbers of its sources, in the order in which their rules are named.
    pub(super) sources: Vec<u32>,
    /// What is answered where no rule by address speaks.
    pub(super) otherwise: Action,
    /// Nothing isolates but audited policies: the first of them.
    pub(super) audited: Option<u32>,
}

/// Whom a policy judges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Direction {
    Egress,
    Ingress,
}

/// The policies in use.
#[derive(Clone, Debug)]
pub(super) struct Policies {
    by_key: BTreeMap<PolicyKey, PolicyId>,
    pub(super) policies: BTreeMap<PolicyId, Policy>,
    of_group: HashMap<GroupId, BTreeSet<PolicyId>>,
    lines: BTreeMap<(PolicyId, ClassId), Vec<RuleEntry>>,
    /// Made, and without lines so far.
    unlined: Vec<PolicyId>,
    pub(super) next: PolicyId,
    pub(super) next_name_class: ClassId,
}

/// One policy.
#[derive(Clone, Debug)]
pub(super) struct Policy {
    key: PolicyKey,
    pub(super) sources: Vec<Arc<Made>>,
    /// The order of each source's first part.
    pub(super) starts: Vec<u32>,
    pub(super) standing: Standing,
    /// The lines of [`ClassId::ANY`].
    default: Vec<RuleEntry>,
    /// Orders of the parts that mean a group.
    meant: BTreeMap<GroupId, Vec<u32>>,
    /// Those and the groups that parts leave out.
    pub(super) groups: BTreeSet<GroupId>,
    pub(super) names: NameClasses,
}

impl Policies {
    /// None; the first will have this number.
    pub(super) fn new(first: PolicyId) -> Self {
        Self {
            by_key: BTreeMap::new(),
            policies: BTreeMap::new(),
            of_group: HashMap::new(),
            lines: BTreeMap::new(),
            unlined: Vec::new(),
            next: first,
            next_name_class: FIRST_OF_NAMES,
        }
    }

    /// The policy of these sources, which are those of the key.
    pub(super) fn policy(&mut self, key: PolicyKey, sources: Vec<Arc<Made>>) -> PolicyId {
        if let Some(known) = self.by_key.get(&key) {
            return *known;
        }
        let id = self.next;
        self.next = PolicyId(id.0.wrapping_add(1));
        let policy = Policy::new(id, key.clone(), sources);
        for group in &policy.groups {
            self.of_group.entry(*group).or_default().insert(id);
        }
        self.by_key.insert(key, id);
        self.policies.insert(id, policy);
        self.unlined.push(id);
        id
    }

    /// Nobody has it any more; answers its sources and its lines.
    pub(super) fn remove(&mut self, id: PolicyId) -> (Vec<Arc<Made>>, Vec<RuleEntry>) {
        let Some(policy) = self.policies.remove(&id) else { return (Vec::new(), Vec::new()) };
        self.by_key.remove(&policy.key);
        self.unlined.retain(|own| *own != id);
        for group in &policy.groups {
            if let Some(policies) = self.of_group.get_mut(group) {
                policies.remove(&id);
                if policies.is_empty() {
                    self.of_group.remove(group);
                }
            }
        }
        let mut gone = policy.all_name_lines(id);
        let own: Vec<_> = self.lines.range((id, ClassId(0))..=(id, ClassId(u32::MAX))).map(|(key, _)| *key).collect();
        gone.extend(own.iter().filter_map(|key| self.lines.remove(key)).flatten());
        (policy.sources, gone)
    }

    /// The policies that name a group.
    pub(super) fn of_group(&self, group: GroupId) -> impl Iterator<Item = PolicyId> {
        self.of_group.get(&group).into_iter().flatten().copied()
    }

    /// The lines that these new classes need, and those of policies that have none so far.
    pub(super) fn line_up(&mut self, classes: &Classes, fresh: &[ClassId]) -> Vec<RuleEntry> {
        let mut made = Vec::new();
        for class in fresh {
            let set = classes.set(*class);
            let concerned: BTreeSet<PolicyId> = set.iter().flat_map(|group| self.of_group(*group)).collect();
            for policy in concerned {
                self.line(policy, *class, set, &mut made);
            }
        }
        for id in std::mem::take(&mut self.unlined) {
            let Some(policy) = self.policies.get(&id) else { continue };
            if !policy.default.is_empty() {
                made.extend_from_slice(&policy.default);
                self.lines.insert((id, ClassId::ANY), policy.default.clone());
            }
            let met: BTreeSet<ClassId> = policy.meant.keys().flat_map(|group| classes.within(*group)).collect();
            for class in met {
                self.line(id, class, classes.set(class), &mut made);
            }
        }
        made
    }

    /// The lines of a class that is no more.
    pub(super) fn drop_class(&mut self, class: ClassId, set: &[GroupId]) -> Vec<RuleEntry> {
        let concerned: BTreeSet<PolicyId> = set.iter().flat_map(|group| self.of_group(*group)).collect();
        concerned.into_iter().filter_map(|policy| self.lines.remove(&(policy, class))).flatten().collect()
    }

    /// Whether any port of an address of this class is open, whatever names lead there.
    pub(super) fn opens(&self, policy: PolicyId, class: Option<ClassId>) -> bool {
        let own = class.and_then(|class| self.lines.get(&(policy, class)));
        let lines = own.or_else(|| self.lines.get(&(policy, ClassId::ANY)));
        lines.into_iter().flatten().any(|line| line.action == Action::Allow)
    }

    /// Every line of classes of addresses.
    pub(super) fn all_lines(&self) -> impl Iterator<Item = &RuleEntry> {
        self.lines.values().flatten()
    }

    fn line(&mut self, id: PolicyId, class: ClassId, set: &[GroupId], made: &mut Vec<RuleEntry>) {
        let Some(policy) = self.policies.get(&id).filter(|_| !self.lines.contains_key(&(id, class))) else { return };
        let lines = policy.lines(id, class, set);
        if !lines.is_empty() {
            made.extend_from_slice(&lines);
            self.lines.insert((id, class), lines);
        }
    }
}

impl Policy {
    fn new(id: PolicyId, key: PolicyKey, sources: Vec<Arc<Made>>) -> Self {
        let mut starts = Vec::with_capacity(sources.len());
        let mut meant: BTreeMap<GroupId, Vec<u32>> = BTreeMap::new();
        let mut reads: Vec<(Tier, Arc<DeniedNames>)> = Vec::new();
        let mut next = 0u32;
        for made in &sources {
            starts.push(next);
            for part in &made.source.parts {
                match &part.what {
                    What::Addresses { any_of, .. } => {
                        any_of.iter().for_each(|group| meant.entry(*group).or_default().push(next));
                    }
                    What::Denied(rule) => {
                        if !reads.iter().any(|(tier, own)| *tier == part.tier && own.ports == rule.ports) {
                            reads.push((part.tier, Arc::clone(rule)));
                        }
                    }
                    What::Names(_) | What::Resolve(_) | What::Isolation => {}
                }
                next += 1;
            }
        }
        let audited = sources.iter().find(|made| Some(made.number) == key.audited);
        let standing = Standing {
            otherwise: key.otherwise,
            admin_names: sources.iter().any(|made| made.source.admin_names),
            isolation: audited.and_then(|made| made.source.isolation()),
            reads,
            verifies: key.otherwise != Action::Allow,
        };
        let default = lines::default_lines(id, &standing);
        let groups = sources.iter().flat_map(|made| made.source.groups()).collect();
        Self { key, sources, starts, standing, default, meant, groups, names: NameClasses::default() }
    }

    /// By its order among all parts.
    pub(super) fn part(&self, order: u32) -> Option<&Part> {
        let source = self.starts.partition_point(|start| *start <= order).checked_sub(1)?;
        // A source without parts begins where the next one does: the last of them has the part.
        self.sources[source].source.parts.get((order - self.starts[source]) as usize)
    }

    fn lines(&self, id: PolicyId, class: ClassId, set: &[GroupId]) -> Vec<RuleEntry> {
        let orders: BTreeSet<u32> = if set.len() < self.meant.len() {
            set.iter().filter_map(|group| self.meant.get(group)).flatten().copied().collect()
        } else {
            let within = |(group, _): &(&GroupId, &Vec<u32>)| set.binary_search(group).is_ok();
            self.meant.iter().filter(within).flat_map(|(_, orders)| orders).copied().collect()
        };
        let own: Vec<Line<'_>> = orders.into_iter().filter_map(|order| self.part(order)?.line(order, set)).collect();
        if own.is_empty() {
            return Vec::new();
        }
        lines::unless_default(lines::lines(id, class, &own, &self.standing), &self.default)
    }
}
