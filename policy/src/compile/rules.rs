//! Rules to parts: what some addresses may do on some ports.
//!
//! A rule of an EgressPolicy, of either tier, is one part. One of a NetworkPolicy is a part for each `ipBlock` (`except` narrows its own
//! block only), one for all workloads that it selects, and one for each set of ports that a named port is.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use config::Prefixes;
use config::resource::{CidrRule, NamedPort, NetworkPolicy, Peer, PeerPort, PeerRule, PortRange, Ports};
use ipnetwork::IpNetwork;

use super::classes::{Claim, Kind};
use super::lines::Line;
use super::plan::Source;
use super::rule_ids;
use crate::model::{self, Model};
use crate::peers::View;
use crate::tables::{Action, RuleId, RuleList, RuleName};
use crate::tiers::{Rule, Tier};

/// Every rule of the sources as parts; a part's index is its order.
pub(super) struct RuleTable<'a> {
    pub(super) parts: Vec<Part<'a>>,
    ids: BTreeMap<RuleName, RuleId>,
}

/// A part of a rule.
pub(super) struct Part<'a> {
    pub(super) id: RuleId,
    pub(super) tier: Tier,
    /// Its denies are recorded only.
    pub(super) audited: bool,
    /// Index into the plan's sources.
    pub(super) source: u32,
    pub(super) what: What<'a>,
}

/// What a part says.
pub(super) enum What<'a> {
    /// A rule of an EgressPolicy, with the sets that it names.
    Own(Rule<'a>, Vec<&'a Prefixes>),
    Peers(PeerPart),
}

/// Some addresses, on some ports.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PeerPart {
    networks: Vec<IpNetwork>,
    except: Vec<IpNetwork>,
    ports: Ports,
}

impl<'a> RuleTable<'a> {
    pub(super) fn new(model: &Model<'a>, sources: &[Source<'a>]) -> Self {
        let named: Vec<(u32, RuleName, Vec<What<'a>>)> = (0..)
            .zip(sources)
            .flat_map(|(number, source)| {
                rules(model, source).into_iter().map(move |(name, parts)| (number, name, parts))
            })
            .collect();
        let names: BTreeSet<&RuleName> = named.iter().map(|(_, name, _)| name).collect();
        let numbers = rule_ids::number(names.iter().copied());
        let ids: BTreeMap<RuleName, RuleId> = names.into_iter().cloned().zip(numbers).collect();
        let part = |(source, name, parts): (u32, RuleName, Vec<What<'a>>)| {
            let (id, tier, audited) = (ids[&name], name.tier(), sources[source as usize].is_audited());
            parts.into_iter().map(move |what| Part { id, tier, audited, source, what })
        };
        Self { parts: named.into_iter().flat_map(part).collect(), ids }
    }

    /// Every prefix that a rule of these sources names or leaves out.
    pub(super) fn claims(&self, sources: &BTreeSet<u32>) -> Vec<Claim> {
        let mut claims = Vec::new();
        for (rule, part) in (0..).zip(&self.parts).filter(|(_, part)| sources.contains(&part.source)) {
            let (networks, except) = match &part.what {
                What::Own(Rule::Deny(own) | Rule::Allow(own), sets) => {
                    let listed = sets.iter().flat_map(|set| set.iter());
                    claims.extend(listed.map(|network| Claim { network, rule, kind: Kind::Covered }));
                    (&own.cidrs, &own.except)
                }
                What::Own(Rule::Names(_) | Rule::Resolve(_) | Rule::Pass(_) | Rule::Isolation, _) => continue,
                What::Peers(own) => (&own.networks, &own.except),
            };
            claims.extend(networks.iter().map(|&network| Claim { network, rule, kind: Kind::Covered }));
            claims.extend(except.iter().map(|&network| Claim { network, rule, kind: Kind::Left }));
        }
        claims
    }

    /// What a part by address says of ports.
    pub(super) fn line(&self, order: u32) -> Option<Line<'_>> {
        let part = &self.parts[order as usize];
        let line = |action, ports| {
            let audited = part.audited && action == Action::Deny;
            Some(Line { action, tier: part.tier, audited, order, rule: part.id, ports })
        };
        match &part.what {
            What::Own(Rule::Deny(CidrRule { ports, .. }), _) => line(Action::Deny, ports),
            What::Own(Rule::Allow(CidrRule { ports, .. }), _) => line(Action::Allow, ports),
            What::Own(Rule::Names(_) | Rule::Resolve(_) | Rule::Pass(_) | Rule::Isolation, _) => None,
            What::Peers(own) => line(Action::Allow, &own.ports),
        }
    }

    /// Every rule by its number, those without any part too.
    pub(super) fn names(&self) -> BTreeMap<RuleId, RuleName> {
        self.ids.iter().map(|(name, id)| (*id, name.clone())).collect()
    }

    /// What stands for the isolation by an audited source.
    pub(super) fn isolation_of(&self, source: u32) -> Option<RuleId> {
        let own = |part: &&Part<'_>| part.source == source && matches!(part.what, What::Own(Rule::Isolation, _));
        self.parts.iter().find(own).map(|part| part.id)
    }

    /// The number of a rule of the sources.
    pub(super) fn id(&self, name: &RuleName) -> Option<RuleId> {
        self.ids.get(name).copied()
    }
}

fn rules<'a>(model: &Model<'a>, source: &Source<'a>) -> Vec<(RuleName, Vec<What<'a>>)> {
    match source {
        Source::Egress(policy) => {
            let (_, namespace, _) = policy.key();
            let sets = |rule| match rule {
                Rule::Deny(own) | Rule::Allow(own) => model.sets_of(namespace, own).map(|(_, set)| set).collect(),
                Rule::Names(_) | Rule::Resolve(_) | Rule::Pass(_) | Rule::Isolation => Vec::new(),
            };
            policy.rules().map(|(name, rule)| (name, vec![What::Own(rule, sets(rule))])).collect()
        }
        Source::To(policy, view) => peer_rules(policy, RuleList::Egress, |rule| to(model, policy, *view, rule)),
        Source::From(policy, view, own) => {
            peer_rules(policy, RuleList::Ingress, |rule| from(model, policy, *view, own, rule))
        }
    }
}

fn peer_rules<'a>(
    policy: &NetworkPolicy,
    list: RuleList,
    parts: impl Fn(&PeerRule) -> Vec<PeerPart>,
) -> Vec<(RuleName, Vec<What<'a>>)> {
    let named = model::peer_rules(policy, list);
    named.map(|(name, rule)| (name, parts(rule).into_iter().map(What::Peers).collect())).collect()
}

/// Ports by name are those of the workload itself.
fn from(
    model: &Model<'_>,
    policy: &NetworkPolicy,
    view: View<'_>,
    own: &BTreeSet<NamedPort>,
    rule: &PeerRule,
) -> Vec<PeerPart> {
    let mut ranges = numbers(rule);
    ranges.extend(called(rule, own));
    ports(rule, ranges).map(|ports| everyone(model, policy, view, rule, &ports)).unwrap_or_default()
}

/// Ports by name are those of the workload at the far end.
fn to(model: &Model<'_>, policy: &NetworkPolicy, view: View<'_>, rule: &PeerRule) -> Vec<PeerPart> {
    let mut parts =
        ports(rule, numbers(rule)).map(|ports| everyone(model, policy, view, rule, &ports)).unwrap_or_default();
    let mut by_ports: BTreeMap<Vec<PortRange>, Vec<IpNetwork>> = BTreeMap::new();
    if rule.ports.iter().any(|port| matches!(port, PeerPort::Named(..))) {
        for (address, resident) in model.residents_of(view) {
            let ranges = called(rule, &resident.ports);
            if !ranges.is_empty() && model.means(policy, rule, view, address) {
                by_ports.entry(ranges).or_default().push(IpNetwork::from(address));
            }
        }
    }
    let named = by_ports.into_iter();
    parts.extend(named.map(|(ranges, networks)| PeerPart { networks, except: Vec::new(), ports: Ports::Some(ranges) }));
    parts
}

/// All peers of a rule, on the same ports.
fn everyone(
    model: &Model<'_>,
    policy: &NetworkPolicy,
    view: View<'_>,
    rule: &PeerRule,
    ports: &Ports,
) -> Vec<PeerPart> {
    let part = |networks, except| PeerPart { networks, except, ports: ports.clone() };
    if rule.peers.is_empty() {
        return vec![part(everybody(), Vec::new())];
    }
    let mut parts = Vec::new();
    let (mut selectors, mut workloads) = (Vec::new(), Vec::new());
    for peer in &rule.peers {
        match peer {
            Peer::Block { cidr, except } => parts.push(part(vec![*cidr], except.clone())),
            Peer::Workloads { .. } => selectors.push(peer),
        }
    }
    if !selectors.is_empty() {
        for (address, resident) in model.residents_of(view) {
            if selectors.iter().any(|peer| model.is_peer(policy, peer, address, Some(resident))) {
                workloads.push(IpNetwork::from(address));
            }
        }
        parts.push(part(workloads, Vec::new()));
    }
    parts
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
