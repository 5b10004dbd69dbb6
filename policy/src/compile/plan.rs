//! What each subject needs: the policies that select it, for both directions, and the view it is judged in.

use std::collections::BTreeSet;

use config::resource::{Default as Fallback, PeerPort};

use super::residents::Place;
use super::sources::{Draft, SourceKey};
use crate::model::{self, Model, Subject};
use crate::tables::Action;
use crate::tiers::Reading;

/// A subject with the policies that select it.
pub(super) struct Needs<'a> {
    /// Where its addresses are looked up.
    pub(super) place: Place,
    pub(super) egress: Vec<Draft<'a>>,
    pub(super) ingress: Vec<Draft<'a>>,
    /// What is answered where no egress rule by address speaks.
    pub(super) leaving: Action,
    /// What is answered where no ingress rule speaks.
    pub(super) arriving: Action,
    /// Nothing isolates but audited policies: the first of them.
    pub(super) audited: Option<SourceKey>,
    /// Whether its whole network may reach it.
    pub(super) open: bool,
    /// Whether the node itself may open connections to it.
    pub(super) probes: bool,
}

impl<'a> Needs<'a> {
    /// `None`: it has no namespace, and is sealed.
    pub(super) fn of(model: &Model<'a>, subject: &Subject) -> Option<Self> {
        let namespace = model.namespace(subject)?;
        let (selected, network_policies) = (model.selected(subject), model.network_policies(subject));
        let own: Place = model.view(subject).into();
        let mut egress: Vec<Draft<'a>> = selected.iter().map(|policy| Draft::Egress(*policy)).collect();
        let to = network_policies.iter().filter(|policy| policy.types.egress);
        egress.extend(to.map(|policy| Draft::To(policy, own.clone())));
        let from = network_policies.iter().filter(|policy| policy.types.ingress);
        let ingress: Vec<Draft<'a>> = from
            .map(|policy| {
                let by_name =
                    policy.ingress.iter().flat_map(|rule| &rule.ports).any(|it| matches!(it, PeerPort::Named(..)));
                let ports = if by_name { subject.ports.clone() } else { BTreeSet::new() };
                Draft::From(policy, own.clone(), ports)
            })
            .collect();
        let arriving = match namespace.ingress_default {
            Fallback::Allow if ingress.is_empty() => Action::Allow,
            Fallback::Allow | Fallback::Deny => Action::Undecided,
        };
        let isolates = |reading| model::isolated(namespace, &selected, &network_policies, reading);
        let isolated = isolates(Reading::Applied);
        let isolating = selected.iter().find(|policy| policy.isolates());
        let audited = isolating.filter(|_| !isolated && isolates(Reading::Strict));
        let personal = egress.iter().chain(&ingress).any(Draft::means_workloads);
        Some(Self {
            place: if personal { own } else { Place::Routed },
            egress,
            ingress,
            leaving: if isolated { Action::Undecided } else { Action::Allow },
            arriving,
            audited: audited.map(|policy| SourceKey::of(&Draft::Egress(*policy))),
            open: model.is_open(subject),
            probes: model.may_probe(subject),
        })
    }
}
