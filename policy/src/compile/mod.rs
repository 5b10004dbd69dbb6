//! The same verdicts as [`decide`](mod@crate::decide), as tables for the kernel.
//!
//! 1. Subjects with the same rules share a [`PolicyId`]; only rules that select a subject of this node are compiled.
//! 2. `rule_ids`: every rule gets its number.
//! 3. `classes`: prefixes of all rules to classes, covering prefixes folded in.
//! 4. `lines`: each (policy, class) to port prefixes, with tier over tier and deny over allow resolved and one rule named.
//! 5. `names`: names that the workloads look up become classes when they are first learned.
//!
//! How the kernel asks: the lines of (policy, class) first. Only if none matches, those of (policy, [`ClassId::ANY`]).
//! If none matches there either, the answer is [`Action::Undecided`]. So a class that has any line of a policy has
//! its answer for every packet (one line without protocol), and a class that answers like [`ClassId::ANY`] has none.
//!
//! Sizes: prefixes are at most those of the rules; the lines grow with the classes that a policy's own rules touch, and
//! with the port ranges in them. Name classes are at most the patterns of a policy, whatever is looked up.

use std::collections::{BTreeMap, BTreeSet};

use config::names::DnsName;
use config::resource::Default as Fallback;

use self::classes::{Claim, Kind};
use self::lines::{Line, Standing};
use self::names::Names;
use crate::decide::name::{Grounds, Resolve};
use crate::model::{self, Model, Subject};
use crate::tables::{Action, ClassId, Generation, PolicyId, PolicyRef, RuleEntry, RuleId, RuleName};
use crate::tiers::{Policy, Rule, Tier};

mod classes;
mod lines;
mod names;
mod print;
mod rule_ids;

/// One generation, and what is needed to bring learned names into it.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// The kernel's tables.
    pub generation: Generation,
    /// Each subject's policies. A subject whose namespace does not exist is missing here: its workloads stay sealed.
    pub policies: BTreeMap<Subject, PolicyRef>,
    /// The first number that the next compilation may use.
    pub next_policy: PolicyId,
    names: Names,
}

/// The class of a name under a policy. The kernel asks for it by (policy, name): it is to be written before a slot
/// mentions the name for a workload with this policy, and for the names of open flows before a workload is switched to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameClass {
    /// For the kernel's table of names.
    pub class: ClassId,
    /// Lines to write before the name is: none if they were handed out before.
    pub new_rules: Vec<RuleEntry>,
}

/// The tables for these subjects. `first_policy` and what follows must never have been used before on this node.
pub fn compile(model: &Model<'_>, subjects: &BTreeSet<Subject>, generation: u32, first_policy: PolicyId) -> Compiled {
    let plan = Plan::new(model, subjects, first_policy);
    let rules = RuleTable::new(&plan.sources);
    let classes = classes::classify(rules.claims());
    let entries = plan.entries(&rules, &classes.sets);
    let names = Names::new(ClassId(u32::try_from(classes.sets.len()).unwrap_or(u32::MAX)), &rules, &plan);
    let generation =
        Generation { number: generation, prefixes: classes.prefixes, rules: entries, rule_names: rules.names() };
    Compiled { generation, policies: plan.policies, next_policy: plan.next_policy, names }
}

impl Compiled {
    /// Whether a workload with this egress policy may look the name up. An unknown policy refuses.
    pub fn may_resolve(&self, policy: PolicyId, asked: &DnsName) -> Resolve {
        match self.names.resolving_rule(policy, asked) {
            Some(rule) => match self.generation.rule_names.get(&rule) {
                Some(name) => Resolve::Allowed { by: Grounds::Rule(name.clone()) },
                None => Resolve::Refused,
            },
            None if self.names.isolated(policy) == Some(false) => Resolve::Allowed { by: Grounds::NotIsolated },
            None => Resolve::Refused,
        }
    }

    /// The class of a name under an egress policy; `None` if it opens nothing there. Every name that the same rules
    /// mean has the same class. The new lines are handed out once: if they cannot be written, say so with
    /// [`Compiled::name_rules_lost`].
    pub fn name_class(&mut self, policy: PolicyId, asked: &DnsName) -> Option<NameClass> {
        self.names.class(policy, asked)
    }

    /// The lines of this class did not reach the kernel: hand them out again.
    pub fn name_rules_lost(&mut self, policy: PolicyId, class: ClassId) {
        self.names.lost(policy, class);
    }

    /// The lines of all name classes so far: they are not in [`Generation::rules`], and go when the generation goes.
    pub fn name_rules(&self) -> Vec<RuleEntry> {
        self.names.all_lines()
    }

    /// Whether only what a rule allows may leave a workload with this egress policy. An unknown policy isolates.
    pub fn is_isolated(&self, policy: PolicyId) -> bool {
        self.names.isolated(policy) != Some(false)
    }

    /// The rule of a number that this generation or its name classes use.
    pub fn rule_name(&self, rule: RuleId) -> Option<&RuleName> {
        self.generation.rule_names.get(&rule)
    }
}

/// Which policies are to be made.
struct Plan<'a> {
    /// Every egress policy that selects a subject, the admin tier's first: rules are named in this order.
    sources: Vec<Policy<'a>>,
    egress: Vec<EgressPlan>,
    /// What an ingress policy answers before there are rules: `ingressDefault`.
    ingress: Vec<(PolicyId, Action)>,
    policies: BTreeMap<Subject, PolicyRef>,
    next_policy: PolicyId,
}

/// One egress policy to be made.
struct EgressPlan {
    id: PolicyId,
    /// Indices into `sources`, ascending.
    sources: Vec<u32>,
    isolated: bool,
    /// A rule of the admin tier allows names.
    admin_names: bool,
}

/// Every rule of the sources, in the order in which they are named; a rule's index here is its order.
struct RuleTable<'a> {
    rules: Vec<(RuleId, RuleName, Rule<'a>)>,
    /// The source of each rule.
    source_of: Vec<u32>,
}

impl<'a> Plan<'a> {
    fn new(model: &Model<'a>, subjects: &BTreeSet<Subject>, first: PolicyId) -> Self {
        let known: Vec<_> = subjects
            .iter()
            .filter_map(|subject| Some((subject, model.namespace(subject)?, model.selected(subject))))
            .collect();
        let sources: BTreeMap<_, Policy<'a>> =
            known.iter().flat_map(|(_, _, selected)| selected).map(|policy| (policy.key(), *policy)).collect();
        let positions: BTreeMap<_, u32> = sources.keys().copied().zip(0..).collect();

        let mut next = first;
        let mut allot = || {
            let id = next;
            next = PolicyId(id.0.wrapping_add(1));
            id
        };
        let mut egress: BTreeMap<(Vec<u32>, bool), PolicyId> = BTreeMap::new();
        let mut ingress: BTreeMap<Action, PolicyId> = BTreeMap::new();
        let mut policies = BTreeMap::new();
        for (subject, namespace, selected) in known {
            let own = selected.iter().map(|policy| positions[&policy.key()]).collect();
            let isolated = model::isolated(namespace, &selected);
            let arriving = match namespace.ingress_default {
                Fallback::Allow => Action::Allow,
                Fallback::Deny => Action::Undecided,
            };
            let egress = *egress.entry((own, isolated)).or_insert_with(&mut allot);
            let ingress = *ingress.entry(arriving).or_insert_with(&mut allot);
            policies.insert(subject.clone(), PolicyRef { egress, ingress });
        }
        let sources: Vec<Policy<'a>> = sources.into_values().collect();
        let mut egress: Vec<_> =
            egress.into_iter().map(|((own, isolated), id)| EgressPlan::new(id, own, isolated, &sources)).collect();
        egress.sort_by_key(|plan| plan.id);
        Self {
            sources,
            egress,
            ingress: ingress.into_iter().map(|(action, id)| (id, action)).collect(),
            policies,
            next_policy: next,
        }
    }

    /// The lines of all policies, by policy and class.
    fn entries(&self, rules: &RuleTable<'_>, sets: &[Vec<u32>]) -> Vec<RuleEntry> {
        let mut makers: Vec<Vec<&EgressPlan>> = vec![Vec::new(); self.sources.len()];
        for plan in &self.egress {
            for &source in &plan.sources {
                makers[source as usize].push(plan);
            }
        }
        let mut entries: Vec<RuleEntry> =
            self.ingress.iter().flat_map(|&(id, action)| lines::default_line(id, Standing::new(action))).collect();
        for plan in &self.egress {
            entries.extend(lines::default_line(plan.id, plan.standing()));
        }
        for (class, set) in (0..).map(ClassId).zip(sets) {
            let mut by_policy: BTreeMap<PolicyId, (Standing, Vec<Line<'_>>)> = BTreeMap::new();
            for &rule in set {
                for plan in &makers[rules.source_of[rule as usize] as usize] {
                    let own = by_policy.entry(plan.id).or_insert_with(|| (plan.standing(), Vec::new()));
                    own.1.extend(rules.line(rule));
                }
            }
            for (policy, (standing, own)) in by_policy {
                let made = lines::lines(policy, class, &own, standing);
                entries.extend(lines::unless_default(made, standing));
            }
        }
        entries.sort_by_key(|entry| (entry.policy, entry.class, entry.protocol, entry.ports.port, entry.ports.length));
        entries
    }
}

impl EgressPlan {
    fn new(id: PolicyId, own: Vec<u32>, isolated: bool, sources: &[Policy<'_>]) -> Self {
        let mut admin = own.iter().map(|&source| sources[source as usize]).filter(|it| it.tier() == Tier::Admin);
        let admin_names = admin.any(|policy| policy.rules().any(|(_, rule)| matches!(rule, Rule::Names(_))));
        Self { id, sources: own, isolated, admin_names }
    }

    fn standing(&self) -> Standing {
        let otherwise = if self.isolated { Action::Undecided } else { Action::Allow };
        Standing { otherwise, admin_names: self.admin_names }
    }
}

impl<'a> RuleTable<'a> {
    fn new(sources: &[Policy<'a>]) -> Self {
        let named: Vec<(u32, RuleName, Rule<'a>)> = (0..)
            .zip(sources)
            .flat_map(|(source, policy)| policy.rules().map(move |(name, rule)| (source, name, rule)))
            .collect();
        let ids = rule_ids::number(named.iter().map(|(_, name, _)| name));
        let source_of = named.iter().map(|(source, _, _)| *source).collect();
        let rules = named.into_iter().zip(ids).map(|((_, name, rule), id)| (id, name, rule)).collect();
        Self { rules, source_of }
    }

    /// Every prefix that a rule names or leaves out.
    fn claims(&self) -> Vec<Claim> {
        let mut claims = Vec::new();
        for (order, (_, _, rule)) in (0..).zip(&self.rules) {
            match rule {
                Rule::Deny(rule) | Rule::Allow(rule) => {
                    claims.extend(rule.cidrs.iter().map(|&network| Claim {
                        network,
                        rule: order,
                        kind: Kind::Covered,
                    }));
                    claims.extend(rule.except.iter().map(|&network| Claim { network, rule: order, kind: Kind::Left }));
                }
                Rule::Names(_) | Rule::Resolve(_) | Rule::Pass(_) => {}
            }
        }
        claims
    }

    /// What a rule by address says of ports.
    fn line(&self, order: u32) -> Option<Line<'a>> {
        let (id, name, rule) = &self.rules[order as usize];
        let (action, ports) = match rule {
            Rule::Deny(rule) => (Action::Deny, &rule.ports),
            Rule::Allow(rule) => (Action::Allow, &rule.ports),
            Rule::Names(_) | Rule::Resolve(_) | Rule::Pass(_) => return None,
        };
        Some(Line { action, tier: name.tier(), order, rule: *id, ports })
    }

    fn names(&self) -> BTreeMap<RuleId, RuleName> {
        self.rules.iter().map(|(id, name, _)| (*id, name.clone())).collect()
    }
}
