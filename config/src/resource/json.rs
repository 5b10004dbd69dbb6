//! A resource in its Kubernetes form, every default written out. [`parse`](crate::parse) and
//! [`from_json`](crate::from_json) read it back to the same value.

use serde_json::{Map, Value, json};

use super::{
    AddressSet, Adopt, AllowRule, Backend, CidrRule, ClusterEgressPolicy, Default, DenyRule, DnsVia, EgressPolicy,
    ExposedApp, Expression, Gateway, Mode, Namespace, Network, NetworkPolicy, OnDeny, Peer, PeerPort, PeerRule,
    PortRange, Ports, Requirement, Reservation, Resource, Selector, SetSource, Snat, Subnet, Tls, TlsVersion, Verify,
    VlanProtocol, WorkloadTraffic,
};
use crate::names::DomainPattern;

impl Resource {
    /// `apiVersion`, `kind`, `metadata` and `spec`.
    pub fn to_json(&self) -> Value {
        let key = self.key();
        let mut metadata = object([("name", json!(key.name))]);
        if let Some(namespace) = &key.namespace {
            metadata.insert("namespace".to_owned(), json!(namespace));
        }
        let spec = match self {
            Self::Network(it) => network(it),
            Self::Namespace(it) => {
                metadata.insert("labels".to_owned(), json!(it.labels));
                namespace(it)
            }
            Self::AddressSet(it) => address_set(it),
            Self::ClusterEgressPolicy(it) => cluster_egress_policy(it),
            Self::EgressPolicy(it) => egress_policy(it),
            Self::NetworkPolicy(it) => network_policy(it),
            Self::ExposedApp(it) => exposed_app(it),
        };
        json!({ "apiVersion": key.kind.api_version(), "kind": key.kind.as_str(), "metadata": metadata, "spec": spec })
    }
}

fn object<const N: usize>(entries: [(&str, Value); N]) -> Map<String, Value> {
    entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn network(network: &Network) -> Map<String, Value> {
    let mut spec = match &network.adopt {
        Some(adopt) => object([("adopt", adopted(adopt))]),
        None => made(network),
    };
    let workload_traffic = match network.workload_traffic {
        WorkloadTraffic::Open => "Open",
        WorkloadTraffic::Isolated => "Isolated",
    };
    spec.insert("workloadTraffic".to_owned(), json!(workload_traffic));
    if let Some(dns) = &network.dns {
        let via = match dns.via {
            DnsVia::Node => "Node",
            DnsVia::Network => "Network",
        };
        spec.insert("dns".to_owned(), json!({ "upstreams": dns.upstreams, "via": via }));
    }
    spec
}

fn adopted(adopt: &Adopt) -> Value {
    match adopt {
        Adopt::Bridge(bridge) => json!({ "bridge": bridge }),
        Adopt::CniNetwork(network) => json!({ "cniNetwork": network }),
    }
}

/// What only a network has that the daemon makes.
fn made(network: &Network) -> Map<String, Value> {
    let mut spec = object([
        ("subnets", network.subnets.iter().map(subnet).collect()),
        (
            "gateway",
            json!(match network.gateway {
                Gateway::Node => "Node",
                Gateway::External => "External",
            }),
        ),
        ("egress", json!({ "snat": snat(network.snat) })),
    ]);
    if let Some(vlan) = &network.vlan {
        let protocol = match vlan.protocol {
            VlanProtocol::Dot1q => "802.1Q",
            VlanProtocol::Dot1ad => "802.1ad",
        };
        spec.insert("vlan".to_owned(), json!({ "parent": vlan.parent, "id": vlan.id, "protocol": protocol }));
    }
    if !network.reservations.is_empty() {
        spec.insert("reservations".to_owned(), network.reservations.iter().map(reservation).collect());
    }
    if let Some(hold) = network.hold {
        spec.insert("leases".to_owned(), json!({ "hold": crate::decode::leases::shown(hold) }));
    }
    if let Some(mtu) = network.mtu {
        spec.insert("mtu".to_owned(), json!(mtu));
    }
    spec
}

fn snat(snat: Snat) -> Value {
    match snat {
        Snat::Masquerade => json!("Masquerade"),
        Snat::None => json!("None"),
        Snat::Own(_) => match snat.own().collect::<Vec<_>>()[..] {
            [only] => json!(only),
            ref both => json!(both),
        },
    }
}

fn span((first, last): &(std::net::IpAddr, std::net::IpAddr)) -> Value {
    json!(if first == last { first.to_string() } else { format!("{first}-{last}") })
}

fn reservation(reservation: &Reservation) -> Value {
    let mut spec = object([
        ("selector", selector(&reservation.selector)),
        ("addresses", reservation.addresses.iter().map(span).collect()),
    ]);
    if let Some(namespace) = &reservation.namespace {
        spec.insert("namespace".to_owned(), json!(namespace));
    }
    Value::Object(spec)
}

fn subnet(subnet: &Subnet) -> Value {
    let mut spec = object([("cidr", json!(subnet.cidr.to_string()))]);
    if let Some(gateway) = subnet.gateway {
        spec.insert("gateway".to_owned(), json!(gateway));
    }
    if let Some((first, last)) = subnet.range {
        spec.insert("range".to_owned(), json!(format!("{first}-{last}")));
    }
    if !subnet.exclude.is_empty() {
        spec.insert("exclude".to_owned(), subnet.exclude.iter().map(span).collect());
    }
    Value::Object(spec)
}

fn namespace(namespace: &Namespace) -> Map<String, Value> {
    let word = |default: Default| match default {
        Default::Allow => "Allow",
        Default::Deny => "Deny",
    };
    let on_deny = match namespace.on_deny {
        OnDeny::Reject => "Reject",
        OnDeny::Drop => "Drop",
    };
    let mut spec = object([
        ("network", json!(namespace.network)),
        ("egressDefault", json!(word(namespace.egress_default))),
        ("ingressDefault", json!(word(namespace.ingress_default))),
        ("onDeny", json!(on_deny)),
    ]);
    if let Some(types) = &namespace.query_types {
        spec.insert("queryTypes".to_owned(), json!(types));
    }
    spec
}

fn address_set(set: &AddressSet) -> Map<String, Value> {
    match &set.source {
        SetSource::Cidrs(prefixes) => {
            object([("cidrs", prefixes.iter().map(|prefix| json!(prefix.to_string())).collect())])
        }
        SetSource::File(file) => object([("file", json!(file))]),
    }
}

fn selector(selector: &Selector) -> Value {
    let mut shown = Map::new();
    if !selector.labels.is_empty() {
        shown.insert("matchLabels".to_owned(), json!(selector.labels));
    }
    if !selector.expressions.is_empty() {
        shown.insert("matchExpressions".to_owned(), selector.expressions.iter().map(expression).collect());
    }
    Value::Object(shown)
}

fn expression(expression: &Expression) -> Value {
    let with = |operator: &str, values| json!({ "key": expression.key, "operator": operator, "values": values });
    let without = |operator: &str| json!({ "key": expression.key, "operator": operator });
    match &expression.requirement {
        Requirement::In(values) => with("In", values),
        Requirement::NotIn(values) => with("NotIn", values),
        Requirement::Exists => without("Exists"),
        Requirement::DoesNotExist => without("DoesNotExist"),
    }
}

fn cluster_egress_policy(policy: &ClusterEgressPolicy) -> Map<String, Value> {
    object([
        ("namespaceSelector", selector(&policy.namespace_selector)),
        ("selector", selector(&policy.selector)),
        ("mode", mode(policy.mode)),
        ("deny", deny_rules(&policy.deny)),
        ("allow", allow_rules(&policy.allow)),
        ("pass", cidr_rules(&policy.pass)),
    ])
}

fn egress_policy(policy: &EgressPolicy) -> Map<String, Value> {
    object([
        ("selector", selector(&policy.selector)),
        ("mode", mode(policy.mode)),
        ("deny", deny_rules(&policy.deny)),
        ("allow", allow_rules(&policy.allow)),
    ])
}

fn mode(mode: Mode) -> Value {
    json!(match mode {
        Mode::Enforce => "Enforce",
        Mode::Audit => "Audit",
    })
}

fn allow_rules(rules: &[AllowRule]) -> Value {
    rules.iter().map(|rule| Value::Object(allow_rule(rule))).collect()
}

fn cidr_rules(rules: &[CidrRule]) -> Value {
    rules.iter().map(|rule| Value::Object(cidr_rule(rule))).collect()
}

fn deny_rules(rules: &[DenyRule]) -> Value {
    rules.iter().map(|rule| Value::Object(deny_rule(rule))).collect()
}

fn allow_rule(rule: &AllowRule) -> Map<String, Value> {
    match rule {
        AllowRule::Resolve(patterns) => object([("resolve", texts(patterns))]),
        AllowRule::Cidrs(rule) => cidr_rule(rule),
        AllowRule::Names(rule) => {
            let mut spec = object([("dnsNames", texts(&rule.names))]);
            if let Some(verify) = rule.verify {
                let word = match verify {
                    Verify::None => "None",
                    Verify::Tls => "TLS",
                };
                spec.insert("verify".to_owned(), json!(word));
            }
            insert_ports(&mut spec, &rule.ports);
            spec
        }
    }
}

fn deny_rule(rule: &DenyRule) -> Map<String, Value> {
    match rule {
        DenyRule::Cidrs(rule) => cidr_rule(rule),
        DenyRule::Names(rule) => {
            let mut spec = object([("dnsNames", texts(&rule.names))]);
            insert_ports(&mut spec, &rule.ports);
            spec
        }
    }
}

fn texts(patterns: &[DomainPattern]) -> Value {
    patterns.iter().map(|it| json!(it.to_string())).collect()
}

fn cidr_rule(rule: &CidrRule) -> Map<String, Value> {
    let texts = |prefixes: &[ipnetwork::IpNetwork]| prefixes.iter().map(|it| json!(it.to_string())).collect();
    let mut spec = Map::new();
    if !rule.cidrs.is_empty() {
        spec.insert("cidrs".to_owned(), texts(&rule.cidrs));
    }
    if !rule.sets.is_empty() {
        spec.insert("sets".to_owned(), rule.sets.iter().map(|it| json!(it.to_string())).collect());
    }
    if !rule.except.is_empty() {
        spec.insert("except".to_owned(), texts(&rule.except));
    }
    insert_ports(&mut spec, &rule.ports);
    spec
}

fn insert_ports(spec: &mut Map<String, Value>, ports: &Ports) {
    match ports {
        Ports::All => {}
        Ports::Some(ranges) => {
            spec.insert("ports".to_owned(), ranges.iter().map(port_range).collect());
        }
    }
}

fn network_policy(policy: &NetworkPolicy) -> Map<String, Value> {
    let types = [(policy.types.ingress, "Ingress"), (policy.types.egress, "Egress")];
    let types = types.into_iter().filter(|(isolates, _)| *isolates).map(|(_, word)| json!(word)).collect();
    let rules = |rules: &[PeerRule], peers: &str| rules.iter().map(|rule| peer_rule(rule, peers)).collect();
    object([
        ("podSelector", selector(&policy.selector)),
        ("policyTypes", types),
        ("ingress", rules(&policy.ingress, "from")),
        ("egress", rules(&policy.egress, "to")),
    ])
}

fn peer_rule(rule: &PeerRule, peers: &str) -> Value {
    let mut spec = Map::new();
    if !rule.peers.is_empty() {
        spec.insert(peers.to_owned(), rule.peers.iter().map(peer).collect());
    }
    if !rule.ports.is_empty() {
        spec.insert("ports".to_owned(), rule.ports.iter().map(peer_port).collect());
    }
    Value::Object(spec)
}

fn peer(peer: &Peer) -> Value {
    match peer {
        Peer::Block { cidr, except } => {
            let mut block = object([("cidr", json!(cidr.to_string()))]);
            if !except.is_empty() {
                block.insert("except".to_owned(), except.iter().map(|it| json!(it.to_string())).collect());
            }
            json!({ "ipBlock": block })
        }
        Peer::Workloads { namespaces, workloads } => {
            let both = [("namespaceSelector", namespaces), ("podSelector", workloads)];
            let given = both.into_iter().filter_map(|(key, it)| Some((key.to_owned(), selector(it.as_ref()?))));
            Value::Object(given.collect())
        }
    }
}

fn peer_port(port: &PeerPort) -> Value {
    match port {
        PeerPort::Range(range) if (range.first, range.last) == (0, u16::MAX) => json!({ "protocol": range.protocol }),
        PeerPort::Range(range) => port_range(range),
        PeerPort::Named(protocol, name) => json!({ "protocol": protocol, "port": name }),
    }
}

fn port_range(range: &PortRange) -> Value {
    let mut spec = object([("protocol", json!(range.protocol))]);
    if range.protocol.echo().is_some() {
        let [kind, code] = range.first.to_be_bytes();
        spec.insert("type".to_owned(), json!(kind));
        spec.insert("code".to_owned(), json!(code));
        return Value::Object(spec);
    }
    spec.insert("port".to_owned(), json!(range.first));
    if range.last != range.first {
        spec.insert("endPort".to_owned(), json!(range.last));
    }
    Value::Object(spec)
}

fn exposed_app(app: &ExposedApp) -> Map<String, Value> {
    let routes = app.routes.iter();
    let routes = routes.map(|route| json!({ "path": route.path, "backends": backends(&route.backends) })).collect();
    object([("hosts", json!(app.hosts)), ("tls", tls(&app.tls)), ("routes", routes)])
}

fn tls(tls: &Tls) -> Value {
    match tls {
        Tls::Passthrough => json!({ "mode": "Passthrough" }),
        Tls::Edge { certificate, min_version, client_ca } => {
            let version = match min_version {
                TlsVersion::Tls12 => "1.2",
                TlsVersion::Tls13 => "1.3",
            };
            let files = json!({ "certFile": certificate.cert_file, "keyFile": certificate.key_file });
            let mut spec = object([("mode", json!("Edge")), ("certificate", files), ("minVersion", json!(version))]);
            if let Some(file) = client_ca {
                spec.insert("clientAuth".to_owned(), json!({ "caFile": file }));
            }
            Value::Object(spec)
        }
    }
}

fn backends(backends: &[Backend]) -> Value {
    backends.iter().map(|it| json!({ "selector": selector(&it.selector), "port": it.port })).collect()
}
