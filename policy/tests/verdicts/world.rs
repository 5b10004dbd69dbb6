//! Small random worlds, crowded so that rules overlap, and their shrinking.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use config::Prefixes;
use config::names::{DnsName, DomainPattern, Name};
use config::resource::{
    AddressSet, AllowRule, CidrRule, ClusterEgressPolicy, Default as Fallback, DeniedNames, DenyRule, EgressPolicy,
    ExposedApp, Expression, Gateway, Mode, NameRule, NamedPort, Namespace, Network, NetworkPolicy, PortName, PortRange,
    Ports, Protocol, Requirement, Resource, ResourceKey, Selector, SetName, SetSource, Snat, Verify, WorkloadTraffic,
    selects,
};
use ipnetwork::IpNetwork;
use policy::model::Node;
use policy::tiers::Rule;
use policy::{Listener, Model, Probes, Resident, Subject, Target};

use crate::draw::Draw;
use crate::peers;
use crate::text::{dns, name, namespace, subject};

pub(crate) const SECOND: u64 = 1_000_000_000;

#[derive(Clone, Debug)]
pub(crate) struct World {
    /// That of `shop` and that of `bank`: with a router of its own, it has the addresses of the other.
    pub(crate) networks: [Network; 2],
    pub(crate) namespaces: Vec<Namespace>,
    pub(crate) sets: Vec<AddressSet>,
    pub(crate) cluster_policies: Vec<ClusterEgressPolicy>,
    pub(crate) policies: Vec<EgressPolicy>,
    pub(crate) network_policies: Vec<NetworkPolicy>,
    pub(crate) apps: Vec<ExposedApp>,
    pub(crate) node: Node,
    pub(crate) lookups: Vec<Lookup>,
    pub(crate) subjects: Vec<Subject>,
}

/// A workload (by the number of its subject) got an answer.
#[derive(Clone, Debug)]
pub(crate) struct Lookup {
    pub(crate) at: u64,
    pub(crate) workload: u32,
    pub(crate) name: DnsName,
    pub(crate) address: IpAddr,
    pub(crate) ttl: u32,
}

fn subjects(draw: &mut Draw) -> Vec<Subject> {
    let of = |space: &'static str| ["", "app=web", "app=web tier=front"].map(|own| subject(space, own));
    let all = ["shop", "bank"].into_iter().flat_map(of).chain([subject("nowhere", "")]);
    let named =
        |draw: &mut Draw| NamedPort { name: port_name(draw), protocol: protocol(draw), port: port(draw).max(1) };
    all.map(|own| Subject { ports: draw.some(3, named).into_iter().collect(), ..own }).collect()
}

impl World {
    pub(crate) fn draw(draw: &mut Draw) -> Self {
        let mut spaces = ["shop", "bank"].map(|space| {
            let side = [Fallback::Allow, Fallback::Deny, Fallback::Deny];
            let mut made = namespace(space, draw.of(&side), draw.of(&side));
            made.labels = crate::text::labels(if space == "shop" { "app=web" } else { "tier=front" });
            made
        });
        spaces[1].network = name("tenant-b");
        let mut policies = Vec::new();
        for own in ["b", "a", "c", "a-0"] {
            if !draw.one_in(3) {
                policies.push(any_policy(draw, own));
            }
        }
        let mut cluster_policies = Vec::new();
        for own in ["y", "x"] {
            if draw.one_in(3) {
                cluster_policies.push(any_cluster_policy(draw, own));
            }
        }
        let mut apps = draw.some(3, |draw| {
            let selector = draw.of(&["", "app=web", "tier=front"]);
            crate::text::app(draw.of(&["shop", "bank"]), selector, port(draw))
        });
        for (app, own) in apps.iter_mut().zip(["a", "b", "c"]) {
            app.name = name(own);
        }
        let listener = |draw: &mut Draw| Listener {
            address: if draw.one_in(2) { None } else { Some(address(draw)) },
            protocol: Protocol::Tcp,
            port: port(draw),
        };
        let node = Node {
            addresses: draw.some(2, address).into_iter().collect(),
            listeners: draw.some(2, listener).into_iter().collect(),
            probes: draw.of(&[Probes::Selected, Probes::All, Probes::Never]),
        };
        let traffic = draw.of(&[WorkloadTraffic::Open, WorkloadTraffic::Isolated]);
        let lookups = draw.some(20, |draw| Lookup {
            at: draw.below(200) * SECOND,
            workload: draw.below(6) as u32,
            name: any_name(draw),
            address: address(draw),
            ttl: draw.below(100) as u32,
        });
        let mut networks = ["tenant-a", "tenant-b"].map(|own| network(own, traffic));
        if draw.one_in(2) {
            networks[1].gateway = Gateway::External;
        }
        let mut network_policies = Vec::new();
        for own in ["n", "m", "a"] {
            if draw.one_in(2) {
                network_policies.push(peers::any_policy(draw, own));
            }
        }
        let sets = sets(draw);
        let (namespaces, subjects) = (spaces.to_vec(), subjects(draw));
        Self { networks, namespaces, sets, cluster_policies, policies, network_policies, apps, node, lookups, subjects }
    }

    pub(crate) fn model(&self) -> Model<'_> {
        Model::new(&self.namespaces, &self.networks, &self.policies, &self.apps, &self.node)
            .with_cluster_policies(&self.cluster_policies)
            .with_network_policies(&self.network_policies)
            .with_sets(sets_of(self))
            .with_residents(self.residents())
    }

    pub(crate) fn network_of(&self, subject: usize) -> &Name {
        let of_bank = self.subjects[subject].namespace.as_str() == "bank";
        &self.networks[usize::from(of_bank)].name
    }

    /// Two addresses for each subject. What a router of its own routes has the addresses of others.
    pub(crate) fn residents(&self) -> Vec<Resident> {
        let overlap = self.networks[1].gateway == Gateway::External;
        let own = |(number, subject): (u8, &Subject)| {
            let low = if overlap { number % 3 } else { number } + 1;
            let addresses =
                vec![IpAddr::from([10, 0, 0, low]), IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(low)])];
            Resident { subject: subject.clone(), addresses }
        };
        (0..).zip(&self.subjects).map(own).collect()
    }

    /// Every exposed port, by the number of the workload's subject.
    pub(crate) fn exposed(&self) -> Vec<(u32, u16)> {
        let of = |app: &ExposedApp| {
            let backends: Vec<_> = app.routes.iter().flat_map(|route| &route.backends).cloned().collect();
            let own = self.subjects.iter().zip(0..).filter(|(subject, _)| subject.namespace == app.namespace);
            let chosen = own.flat_map(|(subject, id)| {
                let fitting = backends.iter().filter(|backend| selects(&backend.selector, &subject.labels));
                fitting.map(move |backend| (id, backend.port))
            });
            chosen.collect::<Vec<_>>()
        };
        self.apps.iter().flat_map(of).collect()
    }

    /// A flow that is likely to meet a rule or its edge.
    pub(crate) fn target(&self, draw: &mut Draw) -> Target {
        let address = match self.lookups.as_slice() {
            [] => address(draw),
            lookups if draw.one_in(3) => draw.of(lookups).address,
            _ => address(draw),
        };
        let protocol = draw.of(&[6, 6, 17, 17, 132, 1, 58, 47]);
        let port = match protocol {
            6 | 17 | 132 => port(draw),
            1 => Protocol::Icmp.echo().unwrap(),
            58 => Protocol::Icmpv6.echo().unwrap(),
            _ => 0,
        };
        Target { address, protocol, port }
    }

    /// A flow of a workload to an address that it looked up, if it looked any up, at a port that has handshakes.
    pub(crate) fn named_target(&self, draw: &mut Draw, workload: usize) -> Target {
        let own: Vec<_> = self.lookups.iter().filter(|lookup| lookup.workload as usize == workload).collect();
        let target = self.target(draw);
        match own.as_slice() {
            [] => target,
            own => {
                let port = draw.of(&[443, 443, 443, 80, 8000, 8005]);
                Target { address: draw.of(own).address, protocol: draw.of(&[6, 6, 17]), port }
            }
        }
    }

    /// Every world that lacks one thing of this one.
    pub(crate) fn smaller(&self) -> Vec<Self> {
        let mut worlds = Vec::new();
        let mut keep = |change: &dyn Fn(&mut Self)| {
            let mut world = self.clone();
            change(&mut world);
            worlds.push(world);
        };
        for index in 0..self.lookups.len() {
            keep(&|world| drop(world.lookups.remove(index)));
        }
        for index in 0..self.apps.len() {
            keep(&|world| drop(world.apps.remove(index)));
        }
        for index in 0..self.policies.len() {
            keep(&|world| drop(world.policies.remove(index)));
        }
        for index in 0..self.cluster_policies.len() {
            keep(&|world| drop(world.cluster_policies.remove(index)));
        }
        for index in 0..self.network_policies.len() {
            keep(&|world| drop(world.network_policies.remove(index)));
            for smaller in peers::smaller(&self.network_policies[index]) {
                keep(&|world| world.network_policies[index] = smaller.clone());
            }
        }
        for index in 0..self.sets.len() {
            keep(&|world| drop(world.sets.remove(index)));
            for prefix in prefixes(&self.sets[index]).iter() {
                keep(&|world| {
                    let fewer = prefixes(&world.sets[index]).changed(&[], &[prefix]);
                    world.sets[index].source = SetSource::Cidrs(fewer);
                });
            }
        }
        keep(&|world| world.node = Node { probes: world.node.probes, ..Node::default() });
        for (at, policy) in self.cluster_policies.iter().enumerate() {
            for index in 0..policy.deny.len() {
                keep(&|world| drop(world.cluster_policies[at].deny.remove(index)));
            }
            for index in 0..policy.allow.len() {
                keep(&|world| drop(world.cluster_policies[at].allow.remove(index)));
            }
        }
        for (at, policy) in self.policies.iter().enumerate() {
            for index in 0..policy.deny.len() {
                keep(&|world| drop(world.policies[at].deny.remove(index)));
                if let DenyRule::Cidrs(rule) = &policy.deny[index] {
                    for smaller in smaller_cidrs(rule) {
                        keep(&|world| world.policies[at].deny[index] = DenyRule::Cidrs(smaller.clone()));
                    }
                }
            }
            for (index, rule) in policy.allow.iter().enumerate() {
                keep(&|world| drop(world.policies[at].allow.remove(index)));
                if let AllowRule::Cidrs(rule) = rule {
                    for smaller in smaller_cidrs(rule) {
                        keep(&|world| world.policies[at].allow[index] = AllowRule::Cidrs(smaller.clone()));
                    }
                }
            }
        }
        worlds.retain(|world| format!("{world:?}").len() < format!("{self:?}").len());
        worlds
    }
}

/// Whether an audited policy of the subject denies names: the kernel then only knows whether a flow passes, and waits.
pub(crate) fn audits_denied_names(model: &Model<'_>, subject: &Subject) -> bool {
    let selected = model.selected(subject);
    let mut audited = selected.iter().filter(|policy| policy.is_audited()).flat_map(|policy| policy.rules());
    audited.any(|(_, rule)| matches!(rule, Rule::DenyNames(_)))
}

/// Every set of a world with its prefixes.
pub(crate) fn sets_of(world: &World) -> impl Iterator<Item = (ResourceKey, &Prefixes)> {
    world.sets.iter().map(|set| (Resource::from(set.clone()).key(), prefixes(set)))
}

pub(crate) fn any_name(draw: &mut Draw) -> DnsName {
    dns(draw.of(&["example", "a.example", "b.example", "x.a.example", "y.x.a.example", "ba.example", "test", "a.test"]))
}

/// Half of all lie in 10.0.0.0/28, the rest around it; IPv6 alike.
pub(crate) fn address(draw: &mut Draw) -> IpAddr {
    let low = if draw.one_in(2) { draw.below(16) } else { draw.of(&[0, 15, 16, 31, 255, 256, 0x1_0000, 0x00ff_ffff]) };
    if draw.one_in(2) {
        IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + low as u32))
    } else {
        IpAddr::V6(Ipv6Addr::from((0xfd00u128 << 112) + u128::from(low)))
    }
}

pub(crate) fn port_name(draw: &mut Draw) -> PortName {
    draw.of(&["http", "dns", "nobody"]).parse().unwrap()
}

pub(crate) fn protocol(draw: &mut Draw) -> Protocol {
    draw.of(&[Protocol::Tcp, Protocol::Tcp, Protocol::Udp, Protocol::Sctp])
}

pub(crate) fn port(draw: &mut Draw) -> u16 {
    draw.of(&[0, 1, 2, 53, 79, 80, 81, 443, 8000, 8005, 8010, 8011, 65534, 65535])
}

pub(crate) fn prefix(draw: &mut Draw) -> IpNetwork {
    let address = address(draw);
    let length = match address {
        IpAddr::V4(_) => draw.of(&[0, 1, 8, 16, 24, 27, 28, 29, 30, 31, 32]),
        IpAddr::V6(_) => draw.of(&[0, 1, 64, 100, 112, 120, 123, 124, 126, 127, 128]),
    };
    let exact = IpNetwork::new(address, length).unwrap();
    IpNetwork::new(exact.network(), length).unwrap()
}

fn ports(draw: &mut Draw) -> Ports {
    if draw.one_in(3) {
        return Ports::All;
    }
    let range = |draw: &mut Draw| {
        if draw.one_in(5) {
            let protocol = draw.of(&[Protocol::Icmp, Protocol::Icmpv6]);
            let echo = protocol.echo().unwrap();
            return PortRange { protocol, first: echo, last: echo };
        }
        let (one, other) = (port(draw).max(1), port(draw).max(1));
        let last = if draw.one_in(2) { one } else { one.max(other) };
        PortRange { protocol: protocol(draw), first: one.min(last), last }
    };
    let mut ranges = draw.some(3, range);
    ranges.push(range(draw));
    Ports::Some(ranges)
}

fn cidr_rule(draw: &mut Draw) -> CidrRule {
    let mut cidrs = draw.some(3, prefix);
    cidrs.push(prefix(draw));
    let sets = if draw.one_in(2) { Vec::new() } else { draw.some(2, set_name) };
    if !sets.is_empty() && draw.one_in(2) {
        cidrs.clear();
    }
    CidrRule { cidrs, sets, except: draw.some(2, prefix), ports: ports(draw) }
}

/// Two of the administrators and one of each namespace, under the same names; some are missing.
fn sets(draw: &mut Draw) -> Vec<AddressSet> {
    let all = [(None, "feed"), (None, "drop"), (Some("shop"), "feed"), (Some("bank"), "drop")];
    all.into_iter()
        .filter_map(|(space, own)| {
            let listed: Prefixes = draw.some(6, prefix).into_iter().collect();
            let source = SetSource::Cidrs(listed);
            (!draw.one_in(4)).then(|| AddressSet { namespace: space.map(name), name: name(own), source })
        })
        .collect()
}

fn set_name(draw: &mut Draw) -> SetName {
    let own = name(draw.of(&["feed", "drop"]));
    if draw.one_in(3) { SetName::Admin(own) } else { SetName::Own(own) }
}

pub(crate) fn prefixes(set: &AddressSet) -> &Prefixes {
    match &set.source {
        SetSource::Cidrs(prefixes) => prefixes,
        SetSource::File(file) => panic!("no world has files, and {file} is one"),
    }
}

fn any_policy(draw: &mut Draw, own: &str) -> EgressPolicy {
    EgressPolicy {
        namespace: name(draw.of(&["shop", "shop", "bank"])),
        name: name(own),
        selector: selector(draw),
        mode: mode(draw),
        deny: if draw.one_in(2) { Vec::new() } else { draw.some(3, deny_rule) },
        allow: draw.some(4, allow_rule),
    }
}

fn any_cluster_policy(draw: &mut Draw, own: &str) -> ClusterEgressPolicy {
    ClusterEgressPolicy {
        name: name(own),
        namespace_selector: crate::text::labels(draw.of(&[
            "",
            "",
            "kind=shop",
            "kind=shop kubernetes.io/metadata.name=shop",
        ]))
        .into(),
        selector: selector(draw),
        mode: mode(draw),
        deny: if draw.one_in(2) { Vec::new() } else { draw.some(2, deny_rule) },
        allow: draw.some(2, allow_rule),
        pass: draw.some(1, cidr_rule),
    }
}

fn mode(draw: &mut Draw) -> Mode {
    draw.of(&[Mode::Enforce, Mode::Enforce, Mode::Audit])
}

fn patterns(draw: &mut Draw) -> Vec<DomainPattern> {
    let pattern = |draw: &mut Draw| {
        let name = any_name(draw);
        if draw.one_in(2) { DomainPattern::Below(name) } else { DomainPattern::Exact(name) }
    };
    let mut patterns = draw.some(2, pattern);
    patterns.push(pattern(draw));
    patterns
}

fn allow_rule(draw: &mut Draw) -> AllowRule {
    match draw.below(5) {
        0 => AllowRule::Resolve(patterns(draw)),
        1 | 2 => {
            let verify = draw.of(&[None, Some(Verify::None), Some(Verify::Tls)]);
            AllowRule::Names(NameRule { names: patterns(draw), ports: ports(draw), verify })
        }
        _ => AllowRule::Cidrs(cidr_rule(draw)),
    }
}

fn deny_rule(draw: &mut Draw) -> DenyRule {
    if draw.one_in(3) {
        DenyRule::Names(DeniedNames { names: patterns(draw), ports: ports(draw) })
    } else {
        DenyRule::Cidrs(cidr_rule(draw))
    }
}

/// Of workloads; half of them by labels alone.
pub(crate) fn selector(draw: &mut Draw) -> Selector {
    let labels = crate::text::labels(draw.of(&["", "", "app=web", "tier=front"]));
    let expression = |draw: &mut Draw| {
        let values = ["web", "front", ""].into_iter().filter(|_| draw.one_in(2)).map(str::to_owned);
        let mut values: std::collections::BTreeSet<String> = values.collect();
        values.insert(draw.of(&["web", "db"]).to_owned());
        let requirement = match draw.below(4) {
            0 => Requirement::In(values),
            1 => Requirement::NotIn(values),
            2 => Requirement::Exists,
            _ => Requirement::DoesNotExist,
        };
        Expression { key: draw.of(&["app", "tier", "zone"]).to_owned(), requirement }
    };
    let expressions = if draw.one_in(2) { Vec::new() } else { draw.some(2, expression) };
    Selector { labels, expressions }
}

fn network(own: &str, workload_traffic: WorkloadTraffic) -> Network {
    Network {
        name: name(own),
        adopt: None,
        reservations: Vec::new(),
        hold: None,
        vlan: None,
        subnets: Vec::new(),
        gateway: Gateway::Node,
        snat: Snat::Masquerade,
        workload_traffic,
        dns: None,
        mtu: None,
    }
}

fn smaller_cidrs(rule: &CidrRule) -> Vec<CidrRule> {
    let mut smaller = Vec::new();
    for index in 0..rule.cidrs.len() {
        let mut one = rule.clone();
        one.cidrs.remove(index);
        smaller.push(one);
    }
    for index in 0..rule.sets.len() {
        let mut one = rule.clone();
        one.sets.remove(index);
        smaller.push(one);
    }
    for index in 0..rule.except.len() {
        let mut one = rule.clone();
        one.except.remove(index);
        smaller.push(one);
    }
    if let Ports::Some(ranges) = &rule.ports {
        for index in (0..ranges.len()).filter(|_| ranges.len() > 1) {
            let mut fewer = ranges.clone();
            fewer.remove(index);
            smaller.push(CidrRule { ports: Ports::Some(fewer), ..rule.clone() });
        }
    }
    smaller
}
