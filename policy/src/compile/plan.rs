//! Which policies are to be made: one for each set of sources that some subject has.

use std::collections::{BTreeMap, BTreeSet};

use config::names::Name;
use config::resource::{Default as Fallback, NamedPort, NetworkPolicy, Peer, PeerPort, PeerRule};

use super::lines::Standing;
use super::rules::RuleTable;
use crate::model::{self, Model, Subject};
use crate::peers::View;
use crate::tables::{Action, PolicyId, PolicyRef};
use crate::tiers::{Policy, Reading, Rule, Tier};

/// Which policies are to be made, and what each subject has of them.
pub(super) struct Plan<'a> {
    /// Every policy that selects a subject, for one direction: rules are named in this order.
    pub(super) sources: Vec<Source<'a>>,
    /// For what subjects send.
    pub(super) egress: Vec<PolicyPlan>,
    /// For what is sent to them.
    pub(super) ingress: Vec<PolicyPlan>,
    /// Where prefixes are made for: the routed view first, then those that need their own; each with its sources.
    pub(super) views: Vec<(View<'a>, BTreeSet<u32>)>,
    pub(super) policies: BTreeMap<Subject, PolicyRef>,
    pub(super) next_policy: PolicyId,
}

/// One policy to be made.
pub(super) struct PolicyPlan {
    pub(super) id: PolicyId,
    /// Indices into [`Plan::sources`], ascending.
    pub(super) sources: Vec<u32>,
    /// What is answered where no rule by address speaks.
    pub(super) otherwise: Action,
    /// A rule of the admin tier allows names.
    admin_names: bool,
    /// Nothing isolates but audited policies: the first of them.
    audited: Option<u32>,
}

/// A policy's rules for one direction.
#[derive(Clone, Debug)]
pub(super) enum Source<'a> {
    /// `deny`, `allow` and `pass`
    Egress(Policy<'a>),
    /// `egress`, seen from a view.
    To(&'a NetworkPolicy, View<'a>),
    /// `ingress`, seen from a view; its named ports are these of the subject.
    From(&'a NetworkPolicy, View<'a>, BTreeSet<NamedPort>),
}

/// What makes one source another than the next, in the order in which rules are named. A policy lies in a namespace, and
/// that in one view.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum SourceKey<'a> {
    Egress(Tier, Option<&'a Name>, &'a Name),
    To(&'a Name, &'a Name),
    From(&'a Name, &'a Name, BTreeSet<NamedPort>),
}

/// A subject with the policies that select it.
struct Known<'a, 's> {
    subject: &'s Subject,
    isolated: bool,
    /// Nothing isolates but audited policies: the first of them.
    audited: Option<SourceKey<'a>>,
    /// What is answered where no ingress rule speaks.
    arriving: Action,
    egress: Vec<SourceKey<'a>>,
    ingress: Vec<SourceKey<'a>>,
}

impl<'a> Plan<'a> {
    /// Views get the numbers from `generation` on, policies those from `first` on.
    pub(super) fn new(model: &Model<'a>, subjects: &BTreeSet<Subject>, generation: u32, first: PolicyId) -> Self {
        let mut sources = BTreeMap::new();
        let known: Vec<_> = subjects.iter().filter_map(|subject| known(model, subject, &mut sources)).collect();
        let positions: BTreeMap<SourceKey<'a>, u32> = sources.keys().cloned().zip(0..).collect();
        let sources: Vec<Source<'a>> = sources.into_values().collect();

        let mut next = first;
        let mut allot = || {
            let id = next;
            next = PolicyId(id.0.wrapping_add(1));
            id
        };
        let mut egress = BTreeMap::new();
        let mut ingress = BTreeMap::new();
        let mut views = vec![(View::Routed, BTreeSet::new())];
        let mut policies = BTreeMap::new();
        for Known { subject, isolated, audited, arriving, egress: sending, ingress: receiving } in known {
            let of = |keys: Vec<SourceKey<'a>>| -> Vec<u32> { keys.iter().map(|key| positions[key]).collect() };
            let audited = audited.map(|key| positions[&key]);
            let (sending, receiving) = (of(sending), of(receiving));
            let leaving = if isolated { Action::Undecided } else { Action::Allow };
            let own: Vec<u32> = sending.iter().chain(&receiving).copied().collect();
            let personal = own.iter().any(|source| sources[*source as usize].means_workloads());
            let view = if personal { model.view(subject) } else { View::Routed };
            let place = views.iter().position(|(known, _)| *known == view).unwrap_or_else(|| {
                views.push((view, BTreeSet::new()));
                views.len() - 1
            });
            views[place].1.extend(own);
            policies.insert(
                subject.clone(),
                PolicyRef {
                    generation: generation.wrapping_add(place as u32),
                    egress: *egress.entry((sending, leaving, audited)).or_insert_with(&mut allot),
                    ingress: *ingress.entry((receiving, arriving, None)).or_insert_with(&mut allot),
                    open: model.is_open(subject),
                    probes: model.may_probe(subject),
                },
            );
        }
        let (egress, ingress) = (plans(egress, &sources), plans(ingress, &sources));
        Self { sources, egress, ingress, views, policies, next_policy: next }
    }
}

fn known<'a, 's>(
    model: &Model<'a>,
    subject: &'s Subject,
    sources: &mut BTreeMap<SourceKey<'a>, Source<'a>>,
) -> Option<Known<'a, 's>> {
    let namespace = model.namespace(subject)?;
    let (selected, network_policies) = (model.selected(subject), model.network_policies(subject));
    let view = model.view(subject);
    let mut keys = |key: SourceKey<'a>, source: Source<'a>| {
        sources.entry(key.clone()).or_insert(source);
        key
    };
    let mut egress: Vec<_> = selected
        .iter()
        .map(|policy| {
            let (tier, namespace, name) = policy.key();
            keys(SourceKey::Egress(tier, namespace, name), Source::Egress(*policy))
        })
        .collect();
    let to = network_policies.iter().filter(|policy| policy.types.egress);
    egress.extend(to.map(|policy| keys(SourceKey::To(&policy.namespace, &policy.name), Source::To(policy, view))));
    let from = network_policies.iter().filter(|policy| policy.types.ingress);
    let ingress: Vec<_> = from
        .map(|policy| {
            let by_name =
                policy.ingress.iter().flat_map(|rule| &rule.ports).any(|it| matches!(it, PeerPort::Named(..)));
            let ports = if by_name { subject.ports.clone() } else { BTreeSet::new() };
            let key = SourceKey::From(&policy.namespace, &policy.name, ports.clone());
            keys(key, Source::From(policy, view, ports))
        })
        .collect();
    let arriving = match namespace.ingress_default {
        Fallback::Allow if ingress.is_empty() => Action::Allow,
        Fallback::Allow | Fallback::Deny => Action::Undecided,
    };
    let isolates = |reading| model::isolated(namespace, &selected, &network_policies, reading);
    let isolated = isolates(Reading::Applied);
    let isolating = selected.iter().find(|policy| policy.isolates());
    let audited = isolating.filter(|_| !isolated && isolates(Reading::Strict)).map(|policy| {
        let (tier, namespace, name) = policy.key();
        SourceKey::Egress(tier, namespace, name)
    });
    Some(Known { subject, isolated, audited, arriving, egress, ingress })
}

/// Sources, what is answered beside them, and the source whose isolation is audited.
type Kind = (Vec<u32>, Action, Option<u32>);

fn plans(made: BTreeMap<Kind, PolicyId>, all: &[Source<'_>]) -> Vec<PolicyPlan> {
    let plan = |((sources, otherwise, audited), id): (Kind, PolicyId)| {
        let admin_names = sources.iter().any(|source| all[*source as usize].has_admin_names());
        PolicyPlan { id, sources, otherwise, admin_names, audited }
    };
    let mut plans: Vec<PolicyPlan> = made.into_iter().map(plan).collect();
    plans.sort_by_key(|plan| plan.id);
    plans
}

impl PolicyPlan {
    /// What is answered beside the rules by address.
    pub(super) fn standing(&self, rules: &RuleTable<'_>) -> Standing {
        let isolation = self.audited.and_then(|source| rules.isolation_of(source));
        Standing { otherwise: self.otherwise, admin_names: self.admin_names, isolation }
    }
}

impl Source<'_> {
    /// Whether what it denies is recorded only.
    pub(super) fn is_audited(&self) -> bool {
        match self {
            Self::Egress(policy) => policy.is_audited(),
            Self::To(..) | Self::From(..) => false,
        }
    }

    /// Whether a rule of the admin tier allows names.
    fn has_admin_names(&self) -> bool {
        match self {
            Self::Egress(policy @ Policy::Admin(_)) => policy.rules().any(|(_, rule)| matches!(rule, Rule::Names(_))),
            Self::Egress(Policy::Namespace(_)) | Self::To(..) | Self::From(..) => false,
        }
    }

    /// Whether it speaks of workloads, whose addresses mean others in other views.
    fn means_workloads(&self) -> bool {
        let by_selector = |rule: &PeerRule| rule.peers.iter().any(|peer| matches!(peer, Peer::Workloads { .. }));
        let by_name = |rule: &PeerRule| rule.ports.iter().any(|port| matches!(port, PeerPort::Named(..)));
        match self {
            Self::Egress(_) => false,
            Self::To(policy, _) => policy.egress.iter().any(|rule| by_selector(rule) || by_name(rule)),
            Self::From(policy, _, _) => policy.ingress.iter().any(by_selector),
        }
    }
}
