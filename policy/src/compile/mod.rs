//! The same verdicts as [`decide`](mod@crate::decide), as tables for the kernel, kept between changes.
//!
//! 1. `plan`: what each subject needs; subjects with the same sources share a [`PolicyId`] (`policies`). Only policies that
//!    select a subject of this node are compiled.
//! 2. `sources`: a policy's rules as parts, each with its number (`rule_ids`). What a part names is a *group* of prefixes
//!    (`groups`): the same prefixes are the same group, whoever names them; workloads that selectors mean (`residents`)
//!    are a group whose content changes as they come and go, and so is an AddressSet.
//! 3. `space`: one ordered map for each view, prefix to its own groups and to its *class*, which is the set of all groups
//!    that it is in (`classes`). Once for all networks that this node routes, and once more for each other network whose
//!    policies speak of workloads: its addresses may be another's.
//! 4. `lines`: each (policy, class) to port prefixes, with tier over tier and deny over allow resolved and one rule named.
//!    Only classes that lie in a group of the policy's own rules have any.
//! 5. `names`: names that the workloads look up become classes when they are first learned.
//!
//! Numbers of groups, classes and policies are never used for anything else, so that what is in the kernel means the same
//! until it is gone. A change has two halves ([`Compiled::advance`], [`Compiled::join`], [`Compiled::leave`],
//! [`Compiled::change_sets`], then [`Compiled::settle`]), and each answers a [`Step`] for the kernel:
//! - first what the next policies need is added: their groups come into the space, so that addresses get classes of old
//!   and new groups; the lines of those classes, for old and new policies, come before. The old policies answer as ever;
//! - then, with every workload switched, what nobody refers to goes: policies, and groups from the space.
//!
//! A policy whose sources, rules and groups stay keeps its number, and its workloads are not switched.
//!
//! A group that comes into a view, or leaves it, may be long. Nobody's answer depends on it meanwhile, so that it comes in
//! portions: behind each half, [`Compiled::more`] answers what is left of it.
//!
//! How the kernel asks: the lines of (policy, class) first. Only if none matches, those of (policy, [`ClassId::ANY`]).
//! If none matches there either, the answer is [`Action::Undecided`](crate::tables::Action::Undecided). So a class that
//! has any line of a policy has its answer for every packet (one line without protocol), and a class that answers like
//! [`ClassId::ANY`] has none.
//!
//! Costs: a change of a group's content costs the prefixes that come and go and what they cover; a workload that comes,
//! one test for each group of workloads, and its own policies. Prefixes are at most those of the rules and one for each
//! address of a workload that is a peer; the lines grow with the classes that a policy's own groups lie in, and with the
//! port ranges in them. Name classes are at most the patterns of a policy, whatever is looked up.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use config::Prefixes;
use config::names::DnsName;

use self::classes::Classes;
use self::groups::{GroupId, Groups, Standing};
use self::names::Lookup;
use self::policies::{Direction, Made, Policies, PolicyKey};
use self::portions::Backlog;
use self::residents::{Place, Residents};
use self::rule_ids::RuleIds;
use self::sources::{Draft, Maker, SourceKey};
use self::space::{Claim, Space};
use crate::decide::name::{Grounds, Resolve};
use crate::model::{Model, Subject};
use crate::peers::Resident;
use crate::tables::{ClassId, Generation, PolicyId, PolicyRef, RuleEntry, RuleId, RuleName, View};

mod block;
mod change;
mod classes;
mod groups;
mod lines;
mod names;
mod plan;
mod policies;
mod portions;
mod print;
mod residents;
mod rule_ids;
mod sources;
mod space;

/// What is compiled, and what is needed to change it and to bring learned names into it.
#[derive(Clone, Debug)]
pub struct Compiled {
    places: BTreeMap<Place, u32>,
    spaces: BTreeMap<u32, Space>,
    next_view: u32,
    classes: Classes,
    groups: Groups,
    ids: RuleIds,
    sources: BTreeMap<SourceKey, Arc<Made>>,
    /// Policies that have a source, by its number.
    holders: BTreeMap<u32, usize>,
    next_source: u32,
    policies: Policies,
    residents: Residents,
    subjects: BTreeMap<Subject, Held>,
    /// Subjects that have a policy, by view.
    uses: BTreeMap<(u32, PolicyId), usize>,
    /// Policies that name a group, by view.
    in_view: BTreeMap<(u32, GroupId), usize>,
    /// Not taken over by the spaces so far.
    claims: BTreeMap<u32, Vec<Claim>>,
    backlog: Backlog,
    pending: Pending,
}

/// What a subject has, and how many workloads have it.
#[derive(Clone, Copy, Debug)]
struct Held {
    policy: PolicyRef,
    workloads: usize,
}

/// Between the two halves of a change.
#[derive(Clone, Debug, Default)]
struct Pending {
    /// What subjects took on in the first half; they leave it if the change is taken back.
    acquired: Vec<PolicyRef>,
    /// What subjects leave in the second half.
    leaving: Vec<PolicyRef>,
    /// What came into groups of workloads (`true`) or left them.
    moved: Vec<(GroupId, Vec<block::Block>, bool)>,
    /// What address sets were.
    sets: Vec<(GroupId, Prefixes)>,
    /// Who joined.
    joined: Option<Resident>,
    /// What was before, where more than that changed.
    former: Option<Box<Former>>,
}

#[derive(Clone, Debug)]
struct Former {
    subjects: BTreeMap<Subject, Held>,
    sources: BTreeMap<SourceKey, Arc<Made>>,
    standing: Standing,
    residents: Residents,
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

/// The tables for these subjects, from nothing. `first_view` and `first_policy`, and what follows on each, must never have
/// been used before on this node: at most one view for each network and one more, and two policies for each subject.
pub fn compile(model: &Model<'_>, subjects: &BTreeSet<Subject>, first_view: u32, first_policy: PolicyId) -> Compiled {
    let mut compiled = Compiled::new(first_view, first_policy);
    compiled.advance(model, subjects.iter().cloned());
    compiled.drain();
    compiled.settle();
    compiled.drain();
    compiled
}

/// Prefixes of groups as a whole that one step takes over: some hundredths of a second of writes.
const PORTION: usize = 8_192;

impl Compiled {
    /// No policies, for nobody. Views and policies get the numbers from these on, which must never have been used before
    /// on this node; see [`Self::next_numbers`].
    pub fn new(first_view: u32, first_policy: PolicyId) -> Self {
        Self {
            places: BTreeMap::from([(Place::Routed, first_view)]),
            spaces: BTreeMap::from([(first_view, Space::new())]),
            next_view: first_view.wrapping_add(1),
            classes: Classes::new(),
            groups: Groups::default(),
            ids: RuleIds::default(),
            sources: BTreeMap::new(),
            holders: BTreeMap::new(),
            next_source: 0,
            policies: Policies::new(first_policy),
            residents: Residents::default(),
            subjects: BTreeMap::new(),
            uses: BTreeMap::new(),
            in_view: BTreeMap::new(),
            claims: BTreeMap::new(),
            backlog: Backlog::new(PORTION),
            pending: Pending::default(),
        }
    }

    /// The same, with other portions than usual.
    #[must_use]
    pub fn in_portions_of(mut self, prefixes: usize) -> Self {
        self.backlog = Backlog::new(prefixes);
        self
    }

    /// The first numbers of views and policies that were not used so far.
    pub fn next_numbers(&self) -> (u32, PolicyId) {
        (self.next_view, self.policies.next)
    }

    /// A subject's policies. One whose namespace does not exist has none: its workloads stay sealed.
    pub fn policy(&self, subject: &Subject) -> Option<PolicyRef> {
        self.subjects.get(subject).map(|held| held.policy)
    }

    /// Each subject's policies.
    pub fn policies(&self) -> impl Iterator<Item = (&Subject, PolicyRef)> {
        self.subjects.iter().map(|(subject, held)| (subject, held.policy))
    }

    /// Every policy that is in the tables, those that are on their way out too.
    pub fn policy_numbers(&self) -> BTreeSet<PolicyId> {
        self.policies.policies.keys().copied().collect()
    }

    /// Prefixes that the tables have, IPv4 and IPv6.
    pub fn prefixes_held(&self) -> [usize; 2] {
        let sum = |sum: [usize; 2], own: [usize; 2]| [sum[0] + own[0], sum[1] + own[1]];
        self.spaces.values().map(Space::held).fold([0; 2], sum)
    }

    /// All that the kernel's tables have of it, apart from the classes of names.
    pub fn generation(&self) -> Generation {
        let prefixes = |number: u32| {
            let all = self.spaces.get(&number).into_iter().flat_map(Space::prefixes);
            all.map(|(block, class)| (block.network(), class)).collect()
        };
        let routed = self.places.get(&Place::Routed).copied().unwrap_or_default();
        let own = self.spaces.keys().copied().filter(|number| *number != routed);
        Generation {
            number: routed,
            prefixes: prefixes(routed),
            views: own.map(|number| View { number, prefixes: prefixes(number) }).collect(),
            rules: self.policies.all_lines().copied().collect(),
            rule_names: self.ids.names().clone(),
        }
    }

    /// Whether a workload with this egress policy may look the name up. An unknown policy refuses.
    pub fn may_resolve(&self, policy: PolicyId, asked: &DnsName) -> Resolve {
        let by_rule = |rule: RuleId| match self.ids.name(rule) {
            Some(name) => Resolve::Allowed { by: Grounds::Rule(name.clone()) },
            None => Resolve::Refused,
        };
        match self.policies.lookup(policy, asked) {
            None | Some(Lookup::Refused) => Resolve::Refused,
            Some(Lookup::Allowed(rule)) => by_rule(rule),
            Some(Lookup::Unsaid) if self.policies.isolated(policy) == Some(false) => {
                Resolve::Allowed { by: Grounds::NotIsolated }
            }
            Some(Lookup::Unsaid) => self.policies.dns_rule(policy).map_or(Resolve::Refused, by_rule),
        }
    }

    /// Whether a workload with this egress policy may look up every name that no rule denies, those that no policy can
    /// name too. These it may not where a pattern with a wildcard refuses lookups: they may lie below it.
    pub fn resolves_everything(&self, policy: PolicyId) -> bool {
        (self.policies.isolated(policy) == Some(false) || self.policies.dns_rule(policy).is_some())
            && !self.policies.refuses_below(policy)
    }

    /// Whether the name in the handshake decides over a workload's connections to a name, on whatever port: the rule that
    /// lets them pass verifies it, or a rule denies names, any of which could be behind another's address. So it does under
    /// an unknown policy. `None` is a name that no policy can name.
    pub fn reads_handshakes(&self, policy: PolicyId, asked: Option<&DnsName>) -> bool {
        self.policies.reads_handshakes(policy, asked).unwrap_or(true)
    }

    /// Whether a workload with this policy may open a connection to any port of the address without a name that led it
    /// there: a rule by address allows it, or the default does.
    pub fn opens(&self, policy: PolicyRef, address: IpAddr) -> bool {
        let class = self.spaces.get(&policy.generation).and_then(|space| space.class_of(address));
        self.policies.opens(policy.egress, class)
    }

    /// The class of a name under an egress policy; `None` if it opens nothing there. Every name that the same rules
    /// mean has the same class. The new lines are handed out once: if they cannot be written, say so with
    /// [`Compiled::name_rules_lost`].
    pub fn name_class(&mut self, policy: PolicyId, asked: &DnsName) -> Option<NameClass> {
        self.policies.name_class(policy, asked)
    }

    /// The class of a name that a handshake may show: one that opens nothing and is denied has one, too, so that what
    /// shows it ends when it is denied.
    pub fn shown_class(&mut self, policy: PolicyId, shown: &DnsName) -> Option<NameClass> {
        self.policies.shown_class(policy, shown)
    }

    /// The lines of this class did not reach the kernel: hand them out again.
    pub fn name_rules_lost(&mut self, policy: PolicyId, class: ClassId) {
        self.policies.name_rules_lost(policy, class);
    }

    /// The lines of all name classes so far: they are not in [`Generation::rules`], and go when their policy goes.
    pub fn name_rules(&self) -> Vec<RuleEntry> {
        self.policies.name_rules()
    }

    /// The rule of a number that the tables use.
    pub fn rule_name(&self, rule: RuleId) -> Option<&RuleName> {
        self.ids.name(rule)
    }

    /// The source of a draft: the present one if it says the same.
    fn source(&mut self, model: &Model<'_>, draft: &Draft<'_>) -> Arc<Made> {
        let key = SourceKey::of(draft);
        if let Some(known) = self.sources.get(&key) {
            return Arc::clone(known);
        }
        let former = self.pending.former.as_ref().and_then(|former| former.sources.get(&key)).cloned();
        let made = self.make(model, draft, former);
        self.sources.insert(key, Arc::clone(&made));
        made
    }

    fn make(&mut self, model: &Model<'_>, draft: &Draft<'_>, former: Option<Arc<Made>>) -> Arc<Made> {
        let Self { residents, groups, ids, .. } = self;
        let source = Maker { model, residents, groups, ids }.source(draft);
        if let Some(former) = former.filter(|former| former.source == source) {
            return former;
        }
        let patterns = names::PatternIndex::of(&source);
        let number = self.next_source;
        self.next_source += 1;
        Arc::new(Made { number, source, patterns })
    }

    /// The policy of these sources, and who holds it.
    fn policy_of(&mut self, key: PolicyKey, sources: Vec<Arc<Made>>) -> PolicyId {
        let first_new = self.policies.next;
        let id = self.policies.policy(key, sources.clone());
        if id == first_new {
            for made in &sources {
                let holders = self.holders.entry(made.number).or_default();
                *holders += 1;
                if *holders == 1 {
                    made.source.groups().into_iter().for_each(|group| self.groups.hold(group));
                }
            }
        }
        id
    }

    /// What the subject gets, acquired; `None` is sealed.
    fn place(&mut self, model: &Model<'_>, subject: &Subject) -> Option<PolicyRef> {
        let needs = plan::Needs::of(model, subject)?;
        let mut of =
            |drafts: &[Draft<'_>]| -> Vec<Arc<Made>> { drafts.iter().map(|draft| self.source(model, draft)).collect() };
        let (egress, ingress) = (of(&needs.egress), of(&needs.ingress));
        let numbers = |made: &[Arc<Made>]| made.iter().map(|made| made.number).collect();
        let audited = needs.audited.and_then(|key| self.sources.get(&key)).map(|made| made.number);
        let leaving =
            PolicyKey { direction: Direction::Egress, sources: numbers(&egress), otherwise: needs.leaving, audited };
        let arriving = PolicyKey {
            direction: Direction::Ingress,
            sources: numbers(&ingress),
            otherwise: needs.arriving,
            audited: None,
        };
        let generation = self.view(needs.place);
        let (egress, ingress) = (self.policy_of(leaving, egress), self.policy_of(arriving, ingress));
        let policy = PolicyRef { generation, egress, ingress, open: needs.open, probes: needs.probes };
        self.acquire(policy);
        Some(policy)
    }

    fn view(&mut self, place: Place) -> u32 {
        let next = self.next_view;
        let number = *self.places.entry(place).or_insert(next);
        if number == next {
            self.next_view = next.wrapping_add(1);
            self.spaces.insert(number, Space::new());
        }
        number
    }
}
