//! `decide` against the documents' precedence, written once more as plainly as it can be: over the resources themselves,
//! with bits and strings, and nothing of the crate but its answers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use config::names::{DnsName, DomainPattern};
use config::resource::{
    AllowRule, CidrRule, Default as Fallback, Gateway, Labels, Mode, NameRule, Namespace, Network, NetworkPolicy, Peer,
    PeerPort, PeerRule, Ports, Protocol, Requirement, Selector, SetName, WorkloadTraffic,
};
use ipnetwork::IpNetwork;
use policy::reason::Reason;
use policy::{Inbound, Origin, Outbound, Probes, Query, Resolved, Subject, Target, decide};

use crate::draw::Draw;
use crate::text::name;
use crate::world::{SECOND, World, prefixes};

const WORLDS: u64 = 6_000;
const FLOWS_EACH: u64 = 50;

#[test]
fn decide_says_what_the_documents_say() {
    let mut seen = BTreeMap::new();
    for seed in 0..WORLDS {
        let mut draw = Draw(seed ^ 0xdec1de);
        let world = World::draw(&mut draw);
        let model = world.model();
        for _ in 0..FLOWS_EACH {
            let who = draw.below(world.subjects.len() as u64) as usize;
            let (target, now) = (world.target(&mut draw), (190 + draw.below(200)) * SECOND);
            let (said, naive) = if draw.one_in(3) {
                let origin = draw.below(3);
                let other = name("tenant-x");
                let from = match origin {
                    0 => Origin::Node,
                    1 => Origin::Segment { network: world.network_of(who) },
                    _ => Origin::Segment { network: &other },
                };
                let flow = Inbound {
                    to: &world.subjects[who],
                    from,
                    remote: target.address,
                    protocol: target.protocol,
                    port: target.port,
                };
                (decide(&model, &Query::To(flow)), receives(&world, who, origin, target))
            } else {
                let resolved = resolved(&world, who, target.address);
                let flow = Outbound { from: &world.subjects[who], to: target, resolved: &resolved, now };
                (decide(&model, &Query::From(flow)), sends(&world, who, target, &resolved, now))
            };
            assert_eq!(
                said.reason, naive,
                "seed {seed}, {} to {target}\n{said:#?}\n{world:#?}",
                world.subjects[who].namespace
            );
            assert_eq!(said.allowed, naive.passes());
            *seen.entry(naive).or_insert(0u64) += 1;
        }
    }
    for reason in [
        Reason::AllowedByCidr,
        Reason::AllowedByName,
        Reason::AllowedByDefault,
        Reason::Audited,
        Reason::Dns,
        Reason::EdgeOnly,
        Reason::NodeAddress,
        Reason::Probe,
        Reason::SameNetwork,
        Reason::DeniedByCidr,
        Reason::DeniedByDefault,
        Reason::NameExpired,
        Reason::Sealed,
    ] {
        assert!(seen.get(&reason).is_some_and(|count| *count > 100), "{reason:?} came too seldom: {seen:?}");
    }
}

/// What the workload was answered, each name until its last answer's end, which is late enough to be seen.
fn resolved(world: &World, who: usize, address: IpAddr) -> Vec<Resolved> {
    let own = world.lookups.iter().filter(|own| own.workload as usize == who && own.address == address);
    let mut ends: BTreeMap<DnsName, u64> = BTreeMap::new();
    for lookup in own {
        let end = ends.entry(lookup.name.clone()).or_default();
        *end = (*end).max(lookup.at + 4 * u64::from(lookup.ttl) * SECOND);
    }
    ends.into_iter().map(|(name, expires)| Resolved { name, expires }).collect()
}

fn sends(world: &World, who: usize, to: Target, resolved: &[Resolved], now: u64) -> Reason {
    let Some(space) = space_of(world, &world.subjects[who]) else { return Reason::Sealed };
    if to.port == 53 && [6, 17].contains(&to.protocol) {
        return Reason::Dns;
    }
    let listens = world.node.listeners.iter().any(|listener| {
        number(listener.protocol) == to.protocol
            && listener.port == to.port
            && (listener.address.is_none() || listener.address == Some(to.address))
    });
    if world.node.addresses.contains(&to.address) && !listens {
        return Reason::NodeAddress;
    }
    let applied = by_policies(world, space, who, to, resolved, now, false);
    let strict = by_policies(world, space, who, to, resolved, now, true);
    match (applied.passes(), strict.passes()) {
        (true, false) => Reason::Audited,
        (true, true) => strict,
        (false, _) => applied,
    }
}

/// `strict`: as if nothing were audited.
fn by_policies(
    world: &World,
    space: &Namespace,
    who: usize,
    to: Target,
    resolved: &[Resolved],
    now: u64,
    strict: bool,
) -> Reason {
    let subject = &world.subjects[who];
    let counts = |mode: Mode| strict || mode == Mode::Enforce;
    let live = |rule: &NameRule| resolved.iter().any(|own| now < own.expires && names(rule, &own.name, to));
    let stale = |rule: &NameRule| resolved.iter().any(|own| now >= own.expires && names(rule, &own.name, to));
    let admin: Vec<_> = world
        .cluster_policies
        .iter()
        .filter(|own| chosen(&own.namespace_selector, &space.labels) && chosen(&own.selector, &subject.labels))
        .collect();
    let own: Vec<_> = world
        .policies
        .iter()
        .filter(|own| own.namespace == space.name && chosen(&own.selector, &subject.labels))
        .collect();
    let peers: Vec<_> = network_policies(world, subject).into_iter().filter(|own| own.types.egress).collect();
    let any_cidr = |rules: &[AllowRule], of: Option<&Namespace>| {
        rules.iter().any(|rule| matches!(rule, AllowRule::Cidrs(rule) if covers(world, of, rule, to)))
    };
    let any_name = |rules: &[AllowRule], wanted: &dyn Fn(&NameRule) -> bool| {
        rules.iter().any(|rule| matches!(rule, AllowRule::Names(rule) if wanted(rule)))
    };

    if admin.iter().any(|it| counts(it.mode) && it.deny.iter().any(|rule| covers(world, None, rule, to))) {
        return Reason::DeniedByCidr;
    }
    if admin.iter().any(|it| any_cidr(&it.allow, None)) {
        return Reason::AllowedByCidr;
    }
    if admin.iter().any(|it| any_name(&it.allow, &live)) {
        return Reason::AllowedByName;
    }
    if own.iter().any(|it| counts(it.mode) && it.deny.iter().any(|rule| covers(world, Some(space), rule, to))) {
        return Reason::DeniedByCidr;
    }
    if own.iter().any(|it| any_cidr(&it.allow, Some(space))) {
        return Reason::AllowedByCidr;
    }
    let far = resident(world, who, to.address);
    let opened = |policy: &&NetworkPolicy| {
        policy.egress.iter().any(|rule| means(world, policy, rule, to.address, far) && opens(rule, far, to))
    };
    if peers.iter().any(opened) {
        return Reason::AllowedByCidr;
    }
    let isolates =
        |it: &&config::resource::EgressPolicy| counts(it.mode) && (it.deny.is_empty() || !it.allow.is_empty());
    if space.egress_default == Fallback::Allow && peers.is_empty() && !own.iter().any(isolates) {
        return Reason::AllowedByDefault;
    }
    if own.iter().any(|it| any_name(&it.allow, &live)) {
        return Reason::AllowedByName;
    }
    let expired =
        admin.iter().any(|it| any_name(&it.allow, &stale)) || own.iter().any(|it| any_name(&it.allow, &stale));
    if expired { Reason::NameExpired } else { Reason::DeniedByDefault }
}

/// `origin`: 0 the node, 1 the workload's own network, 2 elsewhere.
fn receives(world: &World, who: usize, origin: u64, from: Target) -> Reason {
    let subject = &world.subjects[who];
    let Some(space) = space_of(world, subject) else { return Reason::Sealed };
    let selecting = network_policies(world, subject);
    if origin == 0 {
        let may = match world.node.probes {
            Probes::All => true,
            Probes::Selected => !selecting.is_empty(),
            Probes::Never => false,
        };
        return if may { Reason::Probe } else { Reason::DeniedByDefault };
    }
    let backends = world.apps.iter().filter(|app| app.namespace == subject.namespace);
    let mut backends = backends.flat_map(|app| &app.routes).flat_map(|route| &route.backends);
    if from.protocol == 6 && backends.any(|it| it.port == from.port && chosen(&it.selector, &subject.labels)) {
        return Reason::EdgeOnly;
    }
    let isolating: Vec<_> = selecting.into_iter().filter(|own| own.types.ingress).collect();
    let far = resident(world, who, from.address);
    let opened = |policy: &&NetworkPolicy| {
        let meant = |rule: &&PeerRule| means(world, policy, rule, from.address, far);
        policy.ingress.iter().filter(meant).any(|rule| opens(rule, Some(subject), from))
    };
    if isolating.iter().any(opened) {
        return Reason::AllowedByCidr;
    }
    if !isolating.is_empty() {
        return Reason::DeniedByDefault;
    }
    if origin == 1 && network(world, space).workload_traffic == WorkloadTraffic::Open {
        return Reason::SameNetwork;
    }
    match space.ingress_default {
        Fallback::Allow => Reason::AllowedByDefault,
        Fallback::Deny => Reason::DeniedByDefault,
    }
}

fn space_of<'a>(world: &'a World, subject: &Subject) -> Option<&'a Namespace> {
    world.namespaces.iter().find(|space| space.name == subject.namespace)
}

fn network<'a>(world: &'a World, space: &Namespace) -> &'a Network {
    world.networks.iter().find(|network| network.name == space.network).unwrap()
}

fn network_policies<'a>(world: &'a World, subject: &Subject) -> Vec<&'a NetworkPolicy> {
    let own = world.network_policies.iter().filter(|own| own.namespace == subject.namespace);
    own.filter(|own| chosen(&own.selector, &subject.labels)).collect()
}

/// Whom the workload means by an address: those of networks that this node routes know each other, those of a network with
/// a router of its own only themselves.
fn resident(world: &World, who: usize, address: IpAddr) -> Option<&Subject> {
    let apart = |subject: &Subject| {
        let network = network(world, space_of(world, subject)?);
        Some((network.gateway == Gateway::External).then_some(&network.name))
    };
    let own = apart(&world.subjects[who])?;
    let mut all = world.residents().into_iter().zip(&world.subjects);
    all.find(|(resident, subject)| resident.addresses.contains(&address) && apart(subject) == Some(own)).map(|it| it.1)
}

fn means(world: &World, policy: &NetworkPolicy, rule: &PeerRule, address: IpAddr, far: Option<&Subject>) -> bool {
    rule.peers.is_empty()
        || rule.peers.iter().any(|peer| match peer {
            Peer::Block { cidr, except } => within(cidr, address) && !except.iter().any(|own| within(own, address)),
            Peer::Workloads { namespaces, workloads } => far.is_some_and(|far| {
                let space = match namespaces {
                    None => far.namespace == policy.namespace,
                    Some(selector) => space_of(world, far).is_some_and(|space| chosen(selector, &space.labels)),
                };
                space && workloads.as_ref().is_none_or(|selector| chosen(selector, &far.labels))
            }),
        })
}

/// A port by name is what the receiver calls so.
fn opens(rule: &PeerRule, receiver: Option<&Subject>, flow: Target) -> bool {
    rule.ports.is_empty()
        || rule.ports.iter().any(|port| match port {
            PeerPort::Range(it) => {
                number(it.protocol) == flow.protocol && it.first <= flow.port && flow.port <= it.last
            }
            PeerPort::Named(protocol, called) => receiver.is_some_and(|receiver| {
                let fits = |own: &&config::resource::NamedPort| {
                    own.name == *called && own.protocol == *protocol && own.port == flow.port
                };
                number(*protocol) == flow.protocol && receiver.ports.iter().any(|own| fits(&own))
            }),
        })
}

/// Whether a rule by address, of a policy of this namespace, speaks of the target.
fn covers(world: &World, space: Option<&Namespace>, rule: &CidrRule, to: Target) -> bool {
    let of_set = |meant: &SetName| {
        let (of, called) = match meant {
            SetName::Own(called) => (space.map(|space| &space.name), called),
            SetName::Admin(called) => (None, called),
        };
        let mut found = world.sets.iter().filter(|set| set.namespace.as_ref() == of && set.name == *called);
        found.any(|set| prefixes(set).iter().any(|prefix| within(&prefix, to.address)))
    };
    let listed = rule.cidrs.iter().any(|prefix| within(prefix, to.address)) || rule.sets.iter().any(of_set);
    listed && !rule.except.iter().any(|prefix| within(prefix, to.address)) && has(&rule.ports, to)
}

fn names(rule: &NameRule, asked: &DnsName, to: Target) -> bool {
    let asked = asked.to_string();
    let meant = rule.names.iter().any(|pattern| match pattern {
        DomainPattern::Exact(name) => asked == name.to_string(),
        DomainPattern::Below(name) => asked.ends_with(&format!(".{name}")),
    });
    meant && has(&rule.ports, to)
}

fn has(ports: &Ports, to: Target) -> bool {
    match ports {
        Ports::All => true,
        Ports::Some(ranges) => {
            ranges.iter().any(|it| number(it.protocol) == to.protocol && it.first <= to.port && to.port <= it.last)
        }
    }
}

/// Protocol numbers of IANA.
fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Icmp => 1,
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Icmpv6 => 58,
        Protocol::Sctp => 132,
    }
}

fn within(prefix: &IpNetwork, address: IpAddr) -> bool {
    let (net, own, spare) = match (prefix, address) {
        (IpNetwork::V4(net), IpAddr::V4(own)) => {
            (u128::from(u32::from(net.ip())), u128::from(u32::from(own)), 32 - net.prefix())
        }
        (IpNetwork::V6(net), IpAddr::V6(own)) => (u128::from(net.ip()), u128::from(own), 128 - net.prefix()),
        _ => return false,
    };
    spare == 128 || net >> spare == own >> spare
}

fn chosen(selector: &Selector, labels: &Labels) -> bool {
    let all: BTreeSet<(&String, &String)> = labels.iter().collect();
    selector.labels.iter().all(|pair| all.contains(&pair))
        && selector.expressions.iter().all(|expression| {
            let value = labels.get(&expression.key);
            match &expression.requirement {
                Requirement::Exists => value.is_some(),
                Requirement::DoesNotExist => value.is_none(),
                Requirement::In(values) => values.iter().any(|own| value == Some(own)),
                Requirement::NotIn(values) => !values.iter().any(|own| value == Some(own)),
            }
        })
}
