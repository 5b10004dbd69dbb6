//! Sources: the rules of one policy for one direction, as parts.
//!
//! A part is what some addresses may do on some ports. A rule of an EgressPolicy, of either tier, is one part. One of a
//! NetworkPolicy is a part for each `ipBlock` (`except` narrows its own block only), one for all workloads that it
//! selects, and one for each set of ports that a named port is.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use config::Prefixes;
use config::names::{DomainPattern, Name};
use config::resource::{
    AddressSet, CidrRule, DeniedNames, NameRule, NamedPort, NetworkPolicy, Peer, PeerPort, PeerRule, PortRange, Ports,
    selects,
};
use ipnetwork::IpNetwork;

use super::groups::{GroupId, Groups, Selected};
use super::lines::Line;
use super::residents::{Place, Residents};
use super::rule_ids::RuleIds;
use crate::model::{self, Model};
use crate::peers;
use crate::tables::{Action, RuleId, RuleList, RuleName};
use crate::tiers::{Policy, Rule, Tier};

/// What makes one source another than the next, in the order in which rules are named. A policy lies in a namespace, and
/// that in one view.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SourceKey {
    Egress(Tier, Option<Name>, Name),
    To(Name, Name),
    From(Name, Name, BTreeSet<NamedPort>),
}

/// A policy's rules for one direction, before they are parts.
#[derive(Clone, Debug)]
pub(super) enum Draft<'a> {
    /// `deny`, `allow` and `pass`
    Egress(Policy<'a>),
    /// `egress`, seen from a view.
    To(&'a NetworkPolicy, Place),
    /// `ingress`, seen from a view; its named ports are these of the subject.
    From(&'a NetworkPolicy, Place, BTreeSet<NamedPort>),
}

/// A policy's rules for one direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) parts: Vec<Part>,
    /// The rule of a network policy that lets every name be looked up.
    pub(super) dns: Option<RuleId>,
    /// A rule of the admin tier allows names.
    pub(super) admin_names: bool,
    /// Where the workloads are whose names of ports it uses.
    pub(super) called_at: Option<Place>,
    /// Every rule, those without any part too.
    rules: Vec<RuleId>,
}

/// A part of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) id: RuleId,
    pub(super) tier: Tier,
    /// Its denies are recorded only.
    pub(super) audited: bool,
    pub(super) what: What,
}

/// What a part says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// Addresses that are in any of these groups and not in the other, on some ports.
    Addresses { action: Action, any_of: Vec<GroupId>, none_of: Option<GroupId>, ports: Ports },
    /// Learned names that are allowed on some ports.
    Names(NameRule),
    /// Names that are denied.
    Denied(Arc<DeniedNames>),
    /// Names that may be looked up, and open nothing.
    Resolve(Vec<DomainPattern>),
    /// The isolation by an audited policy.
    Isolation,
}

/// A list of this many prefixes at most is a group for each of them: policies that share some share their classes.
const FEW: usize = 4;

impl SourceKey {
    pub(super) fn of(draft: &Draft<'_>) -> Self {
        match draft {
            Draft::Egress(policy) => {
                let (tier, namespace, name) = policy.key();
                Self::Egress(tier, namespace.cloned(), name.clone())
            }
            Draft::To(policy, _) => Self::To(policy.namespace.clone(), policy.name.clone()),
            Draft::From(policy, _, ports) => Self::From(policy.namespace.clone(), policy.name.clone(), ports.clone()),
        }
    }
}

impl Draft<'_> {
    /// Whether it speaks of workloads, whose addresses mean others in other views.
    pub(super) fn means_workloads(&self) -> bool {
        let by_selector = |rule: &PeerRule| rule.peers.iter().any(|peer| matches!(peer, Peer::Workloads { .. }));
        match self {
            Self::Egress(_) => false,
            Self::To(policy, _) => policy.egress.iter().any(|rule| by_selector(rule) || by_name(rule)),
            Self::From(policy, _, _) => policy.ingress.iter().any(by_selector),
        }
    }
}

/// Makes sources of drafts.
pub(super) struct Maker<'m, 'a> {
    pub(super) model: &'m Model<'a>,
    pub(super) residents: &'m Residents,
    pub(super) groups: &'m mut Groups,
    pub(super) ids: &'m mut RuleIds,
}

impl Maker<'_, '_> {
    pub(super) fn source(&mut self, draft: &Draft<'_>) -> Source {
        let mut source =
            Source { parts: Vec::new(), dns: None, admin_names: false, called_at: None, rules: Vec::new() };
        match draft {
            Draft::Egress(policy) => {
                let (_, namespace, _) = policy.key();
                for (name, rule) in policy.rules() {
                    source.admin_names |= policy.tier() == Tier::Admin && matches!(rule, Rule::Names(_));
                    let parts = self.own(namespace, rule).into_iter().collect();
                    self.add(&mut source, &name, policy.is_audited(), parts);
                }
            }
            Draft::To(policy, place) => {
                source.called_at = policy.egress.iter().any(by_name).then(|| place.clone());
                for (name, rule) in model::peer_rules(policy, RuleList::Egress) {
                    let parts = self.to(policy, place, rule);
                    self.add(&mut source, &name, false, parts);
                }
                source.dns = peers::dns_rule(policy).and_then(|index| source.rules.get(index).copied());
            }
            Draft::From(policy, place, own) => {
                for (name, rule) in model::peer_rules(policy, RuleList::Ingress) {
                    let mut ranges = numbers(rule);
                    ranges.extend(called(rule, own));
                    let parts = self.everyone(policy, place, rule, ports(rule, ranges));
                    self.add(&mut source, &name, false, parts);
                }
            }
        }
        source
    }

    fn add(&mut self, source: &mut Source, name: &RuleName, audited: bool, parts: Vec<What>) {
        let (id, tier) = (self.ids.number(name), name.tier());
        source.rules.push(id);
        source.parts.extend(parts.into_iter().map(|what| Part { id, tier, audited, what }));
    }

    fn own(&mut self, namespace: Option<&Name>, rule: Rule<'_>) -> Option<What> {
        Some(match rule {
            Rule::Deny(own) => self.by_address(Action::Deny, namespace, own),
            Rule::Allow(own) => self.by_address(Action::Allow, namespace, own),
            Rule::DenyNames(own) => What::Denied(Arc::new(own.clone())),
            Rule::Names(own) => What::Names(own.clone()),
            Rule::Resolve(patterns) => What::Resolve(patterns.to_vec()),
            Rule::Isolation => What::Isolation,
            Rule::Pass(_) => return None,
        })
    }

    /// The policy's namespace is `None` in the admin tier. A set that is not there has no prefixes.
    fn by_address(&mut self, action: Action, namespace: Option<&Name>, rule: &CidrRule) -> What {
        let mut what = self.addresses(action, &rule.cidrs, &rule.except, rule.ports.clone());
        if let What::Addresses { any_of, .. } = &mut what {
            any_of.extend(rule.sets.iter().map(|meant| {
                let key = AddressSet::key(namespace, meant);
                let none = Prefixes::new();
                let prefixes = self.model.set(&key).unwrap_or(&none);
                self.groups.set(key, prefixes)
            }));
        }
        what
    }

    fn addresses(&mut self, action: Action, networks: &[IpNetwork], except: &[IpNetwork], ports: Ports) -> What {
        let any_of = match networks {
            few if few.len() <= FEW => few.iter().map(|one| self.groups.fixed(std::slice::from_ref(one))).collect(),
            many => vec![self.groups.fixed(many)],
        };
        let none_of = (!except.is_empty()).then(|| self.groups.fixed(except));
        What::Addresses { action, any_of, none_of, ports }
    }

    /// Ports by name are those of the workload at the far end.
    fn to(&mut self, policy: &NetworkPolicy, place: &Place, rule: &PeerRule) -> Vec<What> {
        let mut parts = self.everyone(policy, place, rule, ports(rule, numbers(rule)));
        let mut by_ports: BTreeMap<Vec<PortRange>, Vec<IpNetwork>> = BTreeMap::new();
        if by_name(rule) {
            for (address, resident) in self.residents.at(place) {
                let ranges = called(rule, &resident.ports);
                let meant = |peer| self.model.is_peer(policy, peer, address, Some(resident));
                if !ranges.is_empty() && (rule.peers.is_empty() || rule.peers.iter().any(meant)) {
                    by_ports.entry(ranges).or_default().push(IpNetwork::from(address));
                }
            }
        }
        let named = by_ports.into_iter();
        parts.extend(named.map(|(ranges, networks)| What::Addresses {
            action: Action::Allow,
            any_of: vec![self.groups.fixed(&networks)],
            none_of: None,
            ports: Ports::Some(ranges),
        }));
        parts
    }

    /// All peers of a rule, on the same ports; nothing without ports.
    fn everyone(&mut self, policy: &NetworkPolicy, place: &Place, rule: &PeerRule, ports: Option<Ports>) -> Vec<What> {
        let Some(ports) = ports else { return Vec::new() };
        if rule.peers.is_empty() {
            return vec![self.addresses(Action::Allow, &everybody(), &[], ports)];
        }
        let mut parts = Vec::new();
        let mut selectors = Vec::new();
        for peer in &rule.peers {
            match peer {
                Peer::Block { cidr, except } => {
                    parts.push(self.addresses(Action::Allow, &[*cidr], except, ports.clone()));
                }
                Peer::Workloads { namespaces, workloads } => selectors.push((namespaces.clone(), workloads.clone())),
            }
        }
        if !selectors.is_empty() {
            selectors.sort();
            let key = Selected { place: place.clone(), namespace: policy.namespace.clone(), peers: selectors };
            let meant = self.residents.at(place).filter(|(_, resident)| key.means(self.model, resident));
            let members = meant.map(|(address, _)| super::block::Block::of(address)).collect();
            let any_of = vec![self.groups.selected(key, members)];
            parts.push(What::Addresses { action: Action::Allow, any_of, none_of: None, ports });
        }
        parts
    }
}

impl Selected {
    /// Whether one of its selectors means the workload.
    pub(super) fn means(&self, model: &Model<'_>, resident: &model::Subject) -> bool {
        let mut peers = self.peers.iter();
        peers.any(|(namespaces, workloads)| match namespaces {
            // The policy's own namespace needs no look at its labels.
            None if resident.namespace != self.namespace => false,
            None => workloads.as_ref().is_none_or(|selector| selects(selector, &resident.labels)),
            Some(_) => model.is_selected(&self.namespace, namespaces.as_ref(), workloads.as_ref(), resident),
        })
    }
}

impl Source {
    /// Every group that its parts name.
    pub(super) fn groups(&self) -> BTreeSet<GroupId> {
        let of = |part: &Part| match &part.what {
            What::Addresses { any_of, none_of, .. } => any_of.iter().chain(none_of).copied().collect(),
            What::Names(_) | What::Denied(_) | What::Resolve(_) | What::Isolation => Vec::new(),
        };
        self.parts.iter().flat_map(of).collect()
    }

    /// The numbers of its rules.
    pub(super) fn rules(&self) -> &[RuleId] {
        &self.rules
    }

    /// What stands for the isolation by it.
    pub(super) fn isolation(&self) -> Option<RuleId> {
        self.parts.iter().find(|part| part.what == What::Isolation).map(|part| part.id)
    }
}

impl Part {
    /// What it says of the ports of addresses in these groups, ascending.
    pub(super) fn line(&self, order: u32, set: &[GroupId]) -> Option<Line<'_>> {
        let What::Addresses { action, any_of, none_of, ports } = &self.what else { return None };
        let within = |group: &GroupId| set.binary_search(group).is_ok();
        if none_of.as_ref().is_some_and(within) || !any_of.iter().any(within) {
            return None;
        }
        let audited = self.audited && *action == Action::Deny;
        Some(Line { action: *action, tier: self.tier, audited, order, rule: self.id, ports, verifies: None })
    }
}

fn by_name(rule: &PeerRule) -> bool {
    rule.ports.iter().any(|port| matches!(port, PeerPort::Named(..)))
}

fn everybody() -> Vec<IpNetwork> {
    let all = [IpAddr::from([0u8; 4]), IpAddr::from([0u8; 16])];
    all.into_iter().filter_map(|address| IpNetwork::new(address, 0).ok()).collect()
}

/// The rule's ports by number.
fn numbers(rule: &PeerRule) -> Vec<PortRange> {
    let range = |port: &PeerPort| match port {
        PeerPort::Range(range) => Some(*range),
        PeerPort::Named(..) => None,
    };
    rule.ports.iter().filter_map(range).collect()
}

/// What the rule's ports by name are where ports are called so.
fn called(rule: &PeerRule, own: &BTreeSet<NamedPort>) -> Vec<PortRange> {
    let ranges = |port: &PeerPort| -> Vec<PortRange> {
        match port {
            PeerPort::Range(_) => Vec::new(),
            PeerPort::Named(protocol, name) => {
                let fitting = own.iter().filter(|own| own.name == *name && own.protocol == *protocol);
                fitting.map(|own| PortRange { protocol: own.protocol, first: own.port, last: own.port }).collect()
            }
        }
    };
    rule.ports.iter().flat_map(ranges).collect()
}

/// `None`: the rule lists ports, and none of them is one here.
fn ports(rule: &PeerRule, ranges: Vec<PortRange>) -> Option<Ports> {
    match (rule.ports.is_empty(), ranges.is_empty()) {
        (true, _) => Some(Ports::All),
        (false, false) => Some(Ports::Some(ranges)),
        (false, true) => None,
    }
}
