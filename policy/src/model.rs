//! What the verdicts are made from: a view of the validated resources, and of the node.
//!
//! The view sorts by namespace and name, so that nothing depends on the order in which resources were given.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use config::Prefixes;
use config::names::Name;
use config::resource::{
    AddressSet, CidrRule, ClusterEgressPolicy, Default as Fallback, EgressPolicy, ExposedApp, Kind, Labels, NamedPort,
    Namespace, Network, NetworkPolicy, PeerRule, Protocol, ResourceKey, SetName, WorkloadTraffic, selects,
};

use crate::peers::Residents;
use crate::tables::{RuleList, RuleName};
use crate::tiers::{Policy, Reading};

/// The resources and the node's own facts that decide.
#[derive(Clone, Debug)]
pub struct Model<'a> {
    namespaces: BTreeMap<&'a Name, &'a Namespace>,
    networks: BTreeMap<&'a Name, &'a Network>,
    cluster_policies: BTreeMap<&'a Name, &'a ClusterEgressPolicy>,
    policies: BTreeMap<&'a Name, BTreeMap<&'a Name, &'a EgressPolicy>>,
    sets: BTreeMap<ResourceKey, &'a Prefixes>,
    network_policies: BTreeMap<&'a Name, BTreeMap<&'a Name, &'a NetworkPolicy>>,
    apps: BTreeMap<&'a Name, BTreeMap<&'a Name, &'a ExposedApp>>,
    node: &'a Node,
    pub(crate) residents: Residents<'a>,
}

/// Where a workload of an External network sees the edge. Nobody on the segment has them, and nothing listens there.
pub const EDGE_ADDRESSES: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(169, 254, 77, 1)), IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x77))];

/// What verdicts need to know of the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its own addresses: closed to workloads, as [`EDGE_ADDRESSES`] are. Gateway addresses of networks are among them.
    pub addresses: BTreeSet<IpAddr>,
    /// Edge listeners on them: ordinary destinations.
    pub listeners: BTreeSet<Listener>,
    /// `[node] probes`
    pub probes: Probes,
}

/// `[node] probes`: the workloads to which the node itself may open connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Probes {
    /// Those that a NetworkPolicy selects, as Kubernetes expects: where nothing is set.
    #[default]
    Selected,
    /// `true`
    All,
    /// `false`
    Never,
}

/// Where the edge listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listener {
    /// One of the node's addresses; `None` is every one.
    pub address: Option<IpAddr>,
    /// Protocol.
    pub protocol: Protocol,
    /// Port.
    pub port: u16,
}

/// What policies see of a workload.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subject {
    /// Its namespace.
    pub namespace: Name,
    /// Its labels.
    pub labels: Labels,
    /// What it calls its ports.
    pub ports: BTreeSet<NamedPort>,
}

impl<'a> Model<'a> {
    /// A view of these resources; `networks` and `apps` matter only for what comes to a workload.
    pub fn new(
        namespaces: impl IntoIterator<Item = &'a Namespace>,
        networks: impl IntoIterator<Item = &'a Network>,
        policies: impl IntoIterator<Item = &'a EgressPolicy>,
        apps: impl IntoIterator<Item = &'a ExposedApp>,
        node: &'a Node,
    ) -> Self {
        let mut model = Self {
            namespaces: namespaces.into_iter().map(|namespace| (&namespace.name, namespace)).collect(),
            networks: networks.into_iter().map(|network| (&network.name, network)).collect(),
            cluster_policies: BTreeMap::new(),
            policies: BTreeMap::new(),
            sets: BTreeMap::new(),
            network_policies: BTreeMap::new(),
            residents: Residents::default(),
            apps: BTreeMap::new(),
            node,
        };
        for policy in policies {
            model.policies.entry(&policy.namespace).or_default().insert(&policy.name, policy);
        }
        for app in apps {
            model.apps.entry(&app.namespace).or_default().insert(&app.name, app);
        }
        model
    }

    /// The same with these policies of the admin tier.
    pub fn with_cluster_policies(self, policies: impl IntoIterator<Item = &'a ClusterEgressPolicy>) -> Self {
        let cluster_policies = policies.into_iter().map(|policy| (&policy.name, policy)).collect();
        Self { cluster_policies, ..self }
    }

    /// The same with these address sets, by key. A set that a rule names and that is not here has no prefixes.
    pub fn with_sets(self, sets: impl IntoIterator<Item = (ResourceKey, &'a Prefixes)>) -> Self {
        Self { sets: sets.into_iter().collect(), ..self }
    }

    /// The same with these network policies.
    pub fn with_network_policies(mut self, policies: impl IntoIterator<Item = &'a NetworkPolicy>) -> Self {
        for policy in policies {
            self.network_policies.entry(&policy.namespace).or_default().insert(&policy.name, policy);
        }
        self
    }

    /// The node's own facts.
    pub fn node(&self) -> &'a Node {
        self.node
    }

    /// The subject's namespace; without one it is sealed.
    pub fn namespace(&self, subject: &Subject) -> Option<&'a Namespace> {
        self.namespaces.get(&subject.namespace).copied()
    }

    /// The network of a namespace.
    pub fn network(&self, namespace: &Namespace) -> Option<&'a Network> {
        self.networks.get(&namespace.network).copied()
    }

    /// The egress policies that select the subject: those of the admin tier by name, then those of its namespace.
    pub fn selected(&self, subject: &Subject) -> Vec<Policy<'a>> {
        let Some(namespace) = self.namespace(subject) else { return Vec::new() };
        let admin = self.cluster_policies.values().copied().filter(|it| it.selects(namespace, &subject.labels));
        let own = self.policies.get(&subject.namespace).into_iter().flat_map(BTreeMap::values).copied();
        let own = own.filter(|policy| selects(&policy.selector, &subject.labels));
        admin.map(Policy::Admin).chain(own.map(Policy::Namespace)).collect()
    }

    /// The sets that a rule of a policy names, in its order. The policy's namespace is `None` in the admin tier.
    pub fn sets_of(
        &self,
        namespace: Option<&Name>,
        rule: &'a CidrRule,
    ) -> impl Iterator<Item = (&'a SetName, &'a Prefixes)> {
        let set = move |meant| Some((meant, *self.sets.get(&AddressSet::key(namespace, meant))?));
        rule.sets.iter().filter_map(set)
    }

    /// The prefixes of an address set.
    pub(crate) fn set(&self, key: &ResourceKey) -> Option<&'a Prefixes> {
        self.sets.get(key).copied()
    }

    /// The network policies that select the subject, by name.
    pub fn network_policies(&self, subject: &Subject) -> Vec<&'a NetworkPolicy> {
        let own = self.network_policies.get(&subject.namespace);
        let own = own.into_iter().flat_map(BTreeMap::values).copied();
        own.filter(|policy| selects(&policy.selector, &subject.labels)).collect()
    }

    /// A network policy by name.
    pub(crate) fn network_policy(&self, namespace: &Name, name: &Name) -> Option<&'a NetworkPolicy> {
        self.network_policies.get(namespace)?.get(name).copied()
    }

    /// Whether the subject's whole network may reach it. A network policy that isolates it wins over the network.
    pub fn is_open(&self, subject: &Subject) -> bool {
        let network = self.namespace(subject).and_then(|namespace| self.network(namespace));
        let open = network.is_some_and(|network| match network.workload_traffic {
            WorkloadTraffic::Open => true,
            WorkloadTraffic::Isolated => false,
        });
        open && !self.network_policies(subject).iter().any(|policy| policy.types.ingress)
    }

    /// Whether the node itself may open connections to the subject.
    pub fn may_probe(&self, subject: &Subject) -> bool {
        match self.node.probes {
            Probes::Selected => !self.network_policies(subject).is_empty(),
            Probes::All => true,
            Probes::Never => false,
        }
    }

    /// Whether an app exposes this TCP port of the subject.
    pub fn exposes(&self, subject: &Subject, port: u16) -> bool {
        let own = self.apps.get(&subject.namespace).into_iter().flat_map(BTreeMap::values);
        let mut backends = own.flat_map(|app| &app.routes).flat_map(|route| &route.backends);
        backends.any(|backend| backend.port == port && selects(&backend.selector, &subject.labels))
    }
}

impl Node {
    /// Whether the edge listens there.
    pub fn listens(&self, address: IpAddr, protocol: u8, port: u16) -> bool {
        self.listeners
            .iter()
            .any(|listener| listener.port == port && listener.protocol.number() == protocol && listener.is_at(address))
    }
}

impl Listener {
    /// Whether it listens on this address of the node.
    pub fn is_at(&self, address: IpAddr) -> bool {
        self.address.is_none_or(|own| own == address)
    }
}

/// Whether only what a rule allows may leave a workload with these policies.
pub fn isolated(
    namespace: &Namespace,
    selected: &[Policy<'_>],
    network_policies: &[&NetworkPolicy],
    reading: Reading,
) -> bool {
    match namespace.egress_default {
        Fallback::Deny => true,
        Fallback::Allow => {
            selected.iter().any(|policy| policy.counts(reading) && policy.isolates())
                || network_policies.iter().any(|policy| policy.types.egress)
        }
    }
}

/// The rules of a network policy's list in their order; none of the lists of other kinds.
pub fn peer_rules(policy: &NetworkPolicy, list: RuleList) -> impl Iterator<Item = (RuleName, &PeerRule)> {
    let rules = match list {
        RuleList::Ingress => policy.ingress_rules(),
        RuleList::Egress => policy.egress_rules(),
        RuleList::Deny | RuleList::Allow | RuleList::Pass | RuleList::Isolation => None,
    };
    let named = move |(index, rule)| {
        let (namespace, name) = (Some(policy.namespace.to_string()), policy.name.to_string());
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        (RuleName { kind: Kind::NetworkPolicy, namespace, policy: name, list, index }, rule)
    };
    rules.unwrap_or_default().iter().enumerate().map(named)
}
