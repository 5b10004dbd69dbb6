//! `decide` against the documents' precedence, written once more as plainly as it can be: over the resources themselves,
//! with bits and strings, and nothing of the crate but its answers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use config::names::{DnsName, DomainPattern};
use config::resource::{
    AllowRule, CidrRule, Default as Fallback, DenyRule, EgressPolicy, Gateway, Labels, Mode, NameRule, Namespace,
    Network, NetworkPolicy, Peer, PeerPort, PeerRule, Ports, Protocol, Requirement, Selector, SetName, Verify,
    WorkloadTraffic,
};
use ipnetwork::IpNetwork;
use policy::reason::Reason;
use policy::{Inbound, Origin, Outbound, Probes, Query, Resolved, Shown, Subject, Target, Unshown, decide};

use crate::draw::Draw;
use crate::text::name;
use crate::world::{self, SECOND, World, prefixes};

const WORLDS: u64 = 6_000;
const FLOWS_EACH: u64 = 50;

#[test]
fn decide_says_what_the_documents_say() {
    let (mut seen, mut held) = (BTreeMap::new(), 0);
    for seed in 0..WORLDS {
        let mut draw = Draw(seed ^ 0xdec1de);
        let world = World::draw(&mut draw);
        let model = world.model();
        for _ in 0..FLOWS_EACH {
            let who = draw.below(world.subjects.len() as u64) as usize;
            let target = if !draw.one_in(4) { world.named_target(&mut draw, who) } else { world.target(&mut draw) };
            let now = (100 + draw.below(200)) * SECOND;
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
                (decide(&model, &Query::To(flow)), (receives(&world, who, origin, target), false))
            } else {
                let resolved = resolved(&world, who, target.address);
                let any = world::any_name(&mut draw);
                let known = resolved.get(draw.below(4) as usize).map_or(&any, |own| &own.name);
                let shown = match draw.below(8) {
                    0 => Shown::Name(&any),
                    1 => Shown::Name(known),
                    2..=4 => Shown::Nothing(draw.of(&[Unshown::NoName, Unshown::NotTls, Unshown::Unreadable])),
                    _ => Shown::NotYet,
                };
                let flow = Outbound { from: &world.subjects[who], to: target, resolved: &resolved, shown, now };
                let asked = Asked { to: target, resolved: &resolved, shown, now };
                (decide(&model, &Query::From(flow)), sends(&world, who, &asked))
            };
            let (naive, holds) = naive;
            held += u64::from(holds);
            assert_eq!(
                (said.reason, said.holds),
                (naive, holds),
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
        Reason::DeniedByName,
        Reason::SniMismatch,
        Reason::NoSni,
        Reason::NotTls,
        Reason::UnreadableHello,
        Reason::Sealed,
    ] {
        assert!(seen.get(&reason).is_some_and(|count| *count > 100), "{reason:?} came too seldom: {seen:?}");
    }
    assert!(held > 1_000, "{held} flows held");
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

/// A flow from a workload.
struct Asked<'a> {
    to: Target,
    resolved: &'a [Resolved],
    shown: Shown<'a>,
    now: u64,
}

/// Why it passes or does not, and whether it waits for its handshake.
fn sends(world: &World, who: usize, flow: &Asked<'_>) -> (Reason, bool) {
    let to = flow.to;
    let Some(space) = space_of(world, &world.subjects[who]) else { return (Reason::Sealed, false) };
    if to.port == 53 && [6, 17].contains(&to.protocol) {
        return (Reason::Dns, false);
    }
    let listens = world.node.listeners.iter().any(|listener| {
        number(listener.protocol) == to.protocol
            && listener.port == to.port
            && (listener.address.is_none() || listener.address == Some(to.address))
    });
    if world.node.addresses.contains(&to.address) && !listens {
        return (Reason::NodeAddress, false);
    }
    let (applied, waits) = by_policies(world, space, who, flow, false);
    let (strict, _) = by_policies(world, space, who, flow, true);
    match (applied.passes(), strict.passes()) {
        (true, false) => (Reason::Audited, waits),
        (true, true) => (strict, waits),
        (false, _) => (applied, false),
    }
}

/// `strict`: as if nothing were audited.
fn by_policies(world: &World, space: &Namespace, who: usize, flow: &Asked<'_>, strict: bool) -> (Reason, bool) {
    let (subject, to) = (&world.subjects[who], flow.to);
    let counts = |mode: Mode| strict || mode == Mode::Enforce;
    let admin: Vec<_> = world
        .cluster_policies
        .iter()
        .filter(|own| chosen(&own.namespace_selector, &space.labels) && chosen(&own.selector, &subject.labels))
        .collect();
    let own: Vec<&EgressPolicy> = world
        .policies
        .iter()
        .filter(|own| own.namespace == space.name && chosen(&own.selector, &subject.labels))
        .collect();
    let peers: Vec<_> = network_policies(world, subject).into_iter().filter(|own| own.types.egress).collect();

    // Lists of the tiers: 0 is the administrators'.
    let denies: [Vec<(Mode, &DenyRule)>; 2] = [
        admin.iter().flat_map(|it| it.deny.iter().map(|rule| (it.mode, rule))).collect(),
        own.iter().flat_map(|it| it.deny.iter().map(|rule| (it.mode, rule))).collect(),
    ];
    let allows: [Vec<&AllowRule>; 2] =
        [admin.iter().flat_map(|it| &it.allow).collect(), own.iter().flat_map(|it| &it.allow).collect()];
    let spaces = [None, Some(space)];

    let denied_address = |tier: usize| {
        denies[tier].iter().any(|(mode, rule)| {
            counts(*mode) && matches!(rule, DenyRule::Cidrs(rule) if covers(world, spaces[tier], rule, to))
        })
    };
    let denied_name = |tier: usize, name: &DnsName| {
        denies[tier].iter().any(|(mode, rule)| match rule {
            DenyRule::Names(rule) => counts(*mode) && spelled(&rule.names, name) && has(&rule.ports, to),
            DenyRule::Cidrs(_) => false,
        })
    };
    let denied_here_or_above = |tier: usize, name: &DnsName| (0..=tier).any(|tier| denied_name(tier, name));
    let allowed_address = |tier: usize| {
        let fits = |rule: &&AllowRule| matches!(rule, AllowRule::Cidrs(rule) if covers(world, spaces[tier], rule, to));
        allows[tier].iter().any(fits)
    };
    // Whether a rule opens the name: at once, or after a look at the handshake.
    let opens_name = |tier: usize, name: &DnsName, looked: bool| {
        !denied_here_or_above(tier, name)
            && allows[tier].iter().any(|rule| match rule {
                AllowRule::Names(rule) => {
                    spelled(&rule.names, name) && has(&rule.ports, to) && verified(rule, to) == looked
                }
                AllowRule::Cidrs(_) | AllowRule::Resolve(_) => false,
            })
    };
    let fits = |name: &DnsName| match flow.shown {
        Shown::NotYet => true,
        Shown::Name(shown) => shown.to_string() == name.to_string(),
        Shown::Nothing(_) => false,
    };
    let some = |live: bool, wanted: &dyn Fn(&DnsName) -> bool| {
        flow.resolved.iter().any(|own| (flow.now < own.expires) == live && wanted(&own.name))
    };
    // Whether what a deny by name may find in the handshake is still to be seen, for what this tier lets pass.
    let read = |tier: usize| {
        let looks = |rule: &DenyRule| match rule {
            DenyRule::Cidrs(_) => false,
            DenyRule::Names(rule) => match &rule.ports {
                Ports::All => [6, 17].contains(&to.protocol) && to.port == 443,
                Ports::Some(_) => [6, 17].contains(&to.protocol) && has(&rule.ports, to),
            },
        };
        flow.shown == Shown::NotYet && (0..=tier).any(|tier| denies[tier].iter().any(|(_, rule)| looks(rule)))
    };
    let shown_and_denied = |tier: usize| matches!(flow.shown, Shown::Name(shown) if denied_name(tier, shown));
    let by_name = |tier: usize| {
        let at_once = some(true, &|name| opens_name(tier, name, false));
        let looked = some(true, &|name| opens_name(tier, name, true) && fits(name));
        (at_once || looked).then(|| (Reason::AllowedByName, read(tier) || (!at_once && flow.shown == Shown::NotYet)))
    };

    if denied_address(0) {
        return (Reason::DeniedByCidr, false);
    }
    if shown_and_denied(0) {
        return (Reason::DeniedByName, false);
    }
    if allowed_address(0) {
        return (Reason::AllowedByCidr, read(0));
    }
    if let Some(found) = by_name(0) {
        return found;
    }
    if denied_address(1) {
        return (Reason::DeniedByCidr, false);
    }
    if shown_and_denied(1) {
        return (Reason::DeniedByName, false);
    }
    if allowed_address(1) {
        return (Reason::AllowedByCidr, read(1));
    }
    let far = resident(world, who, to.address);
    let opened = |policy: &&NetworkPolicy| {
        policy.egress.iter().any(|rule| means(world, policy, rule, to.address, far) && opens(rule, far, to))
    };
    if peers.iter().any(opened) {
        return (Reason::AllowedByCidr, read(1));
    }
    let isolates = |it: &&EgressPolicy| counts(it.mode) && (it.deny.is_empty() || !it.allow.is_empty());
    if space.egress_default == Fallback::Allow && peers.is_empty() && !own.iter().any(isolates) {
        return (Reason::AllowedByDefault, read(1));
    }
    if let Some(found) = by_name(1) {
        return found;
    }
    let usable = |name: &DnsName| {
        (0..2).any(|tier| opens_name(tier, name, false) || (opens_name(tier, name, true) && fits(name)))
    };
    let verifiable = some(true, &|name| (0..2).any(|tier| opens_name(tier, name, true)));
    let shown_is_over = matches!(flow.shown, Shown::Name(_)) && some(false, &|name| fits(name) && usable(name));
    let reason = match flow.shown {
        Shown::Name(_) if shown_is_over => Reason::NameExpired,
        Shown::Name(_) if verifiable => Reason::SniMismatch,
        Shown::Nothing(Unshown::NoName) if verifiable => Reason::NoSni,
        Shown::Nothing(Unshown::NotTls) if verifiable => Reason::NotTls,
        Shown::Nothing(Unshown::Unreadable) if verifiable => Reason::UnreadableHello,
        _ if some(true, &|name| denied_here_or_above(1, name)) => Reason::DeniedByName,
        _ if some(false, &usable) => Reason::NameExpired,
        _ => Reason::DeniedByDefault,
    };
    (reason, false)
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

fn spelled(patterns: &[DomainPattern], asked: &DnsName) -> bool {
    let asked = asked.to_string();
    patterns.iter().any(|pattern| match pattern {
        DomainPattern::Exact(name) => asked == name.to_string(),
        DomainPattern::Below(name) => asked.ends_with(&format!(".{name}")),
    })
}

fn verified(rule: &NameRule, to: Target) -> bool {
    let (tls, usual) = ([6, 17].contains(&to.protocol), to.port == 443);
    match rule.verify {
        Some(Verify::None) => false,
        Some(Verify::Tls) => tls,
        None => tls && usual,
    }
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
