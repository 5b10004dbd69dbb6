//! The same verdicts as [`decide`](mod@crate::decide), as tables for the kernel.
//!
//! 1. `plan`: subjects with the same rules share a [`PolicyId`]; only rules that select a subject of this node are
//!    compiled.
//! 2. `rules`: every rule gets its number (`rule_ids`); peers of a NetworkPolicy become the addresses of workloads.
//! 3. `classes`: prefixes of all rules to classes, covering prefixes folded in. Once for all networks that this node
//!    routes, and once more for each other network whose policies speak of workloads: its addresses may be another's.
//! 4. `lines`: each (policy, class) to port prefixes, with tier over tier and deny over allow resolved and one
//!    rule named.
//! 5. `names`: names that the workloads look up become classes when they are first learned.
//!
//! How the kernel asks: the lines of (policy, class) first. Only if none matches, those of (policy, [`ClassId::ANY`]).
//! If none matches there either, the answer is [`Action::Undecided`]. So a class that has any line of a policy has
//! its answer for every packet (one line without protocol), and a class that answers like [`ClassId::ANY`] has none.
//!
//! Sizes: prefixes are at most those of the rules and one for each address of a workload that is a peer; the lines grow with the classes that a policy's own rules touch, and
//! with the port ranges in them. Name classes are at most the patterns of a policy, whatever is looked up.

use std::collections::{BTreeMap, BTreeSet};

use config::names::DnsName;

use self::classes::Classes;
use self::lines::{Line, Standing};
use self::names::Names;
use self::plan::{Plan, PolicyPlan};
use self::rules::RuleTable;
use crate::decide::name::{Grounds, Resolve};
use crate::model::{Model, Subject};
use crate::tables::{ClassId, Generation, PolicyId, PolicyRef, RuleEntry, RuleId, RuleName, View};

mod classes;
mod lines;
mod names;
mod plan;
mod print;
mod rule_ids;
mod rules;

/// One generation, and what is needed to bring learned names into it.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// The kernel's tables.
    pub generation: Generation,
    /// Each subject's policies. A subject whose namespace does not exist is missing here: its workloads stay sealed.
    pub policies: BTreeMap<Subject, PolicyRef>,
    /// The first number that the next compilation may use.
    pub next_policy: PolicyId,
    /// The first generation that the next compilation may use.
    pub next_generation: u32,
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

/// The tables for these subjects. `generation` and `first_policy`, and what follows on each, must never have been used
/// before on this node: at most one generation for each network and one more, and two policies for each subject.
pub fn compile(model: &Model<'_>, subjects: &BTreeSet<Subject>, generation: u32, first_policy: PolicyId) -> Compiled {
    let plan = Plan::new(model, subjects, generation, first_policy);
    let rules = RuleTable::new(model, &plan.sources);
    let mut classes = Classes::new();
    let mut tries = plan.views.iter().map(|(_, sources)| classes.classify(rules.claims(sources)));
    let prefixes = tries.next().unwrap_or_default();
    let views = (generation.wrapping_add(1)..).zip(tries).map(|(number, prefixes)| View { number, prefixes }).collect();
    let entries = entries(&plan, &rules, classes.sets());
    let names = Names::new(ClassId(u32::try_from(classes.sets().len()).unwrap_or(u32::MAX)), &rules, &plan);
    let generation = Generation { number: generation, prefixes, views, rules: entries, rule_names: rules.names() };
    let next_generation = generation.tries().map(|(number, _)| number).max().unwrap_or_default().wrapping_add(1);
    Compiled { generation, policies: plan.policies, next_policy: plan.next_policy, next_generation, names }
}

impl Compiled {
    /// Whether a workload with this egress policy may look the name up. An unknown policy refuses.
    pub fn may_resolve(&self, policy: PolicyId, asked: &DnsName) -> Resolve {
        let by_rule = |rule: RuleId| match self.generation.rule_names.get(&rule) {
            Some(name) => Resolve::Allowed { by: Grounds::Rule(name.clone()) },
            None => Resolve::Refused,
        };
        match self.names.resolving_rule(policy, asked) {
            Some(rule) => by_rule(rule),
            None if self.names.isolated(policy) == Some(false) => Resolve::Allowed { by: Grounds::NotIsolated },
            None => self.names.dns_rule(policy).map_or(Resolve::Refused, by_rule),
        }
    }

    /// Whether a workload with this egress policy may look up every name, those that no policy can name too.
    pub fn resolves_everything(&self, policy: PolicyId) -> bool {
        self.names.isolated(policy) == Some(false) || self.names.dns_rule(policy).is_some()
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

    /// The rule of a number that this generation or its name classes use.
    pub fn rule_name(&self, rule: RuleId) -> Option<&RuleName> {
        self.generation.rule_names.get(&rule)
    }
}

/// The lines of all policies, by policy and class.
fn entries(plan: &Plan<'_>, rules: &RuleTable<'_>, sets: &[Vec<u32>]) -> Vec<RuleEntry> {
    let all = || plan.egress.iter().chain(&plan.ingress);
    let mut makers: Vec<Vec<&PolicyPlan>> = vec![Vec::new(); plan.sources.len()];
    let mut entries = Vec::new();
    for own in all() {
        entries.extend(lines::default_line(own.id, own.standing(rules)));
        own.sources.iter().for_each(|source| makers[*source as usize].push(own));
    }
    for (class, set) in (0..).map(ClassId).zip(sets) {
        let mut by_policy: BTreeMap<PolicyId, (Standing, Vec<Line<'_>>)> = BTreeMap::new();
        for &order in set {
            for own in &makers[rules.parts[order as usize].source as usize] {
                let of_policy = by_policy.entry(own.id).or_insert_with(|| (own.standing(rules), Vec::new()));
                of_policy.1.extend(rules.line(order));
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
