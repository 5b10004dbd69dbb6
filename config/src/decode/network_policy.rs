//! `kind: NetworkPolicy` of `networking.k8s.io/v1`, as the API server takes it: a field without value counts as left
//! out, and what the API server would refuse is refused here, as there may be none in front.

use ipnetwork::IpNetwork;

use super::address::{covers, prefix};
use super::selector;
use crate::document::field::Field;
use crate::document::fields::Fields;
use crate::names::{Name, NameError};
use crate::resource::{NetworkPolicy, Peer, PeerPort, PeerRule, PolicyTypes, PortRange, Protocol, Selector};

pub(super) fn read(namespace: Option<Name>, name: Option<Name>, spec: &Field<'_>) -> Option<NetworkPolicy> {
    let fields = spec.fields(&["podSelector", "policyTypes", "ingress", "egress"], &[])?;
    let selector = match fields.optional_with_value("podSelector") {
        Some(field) => selector::read_as_kubernetes(&field),
        None => Some(Selector::default()),
    };
    let rules = |key: &str, peers: &str| match fields.optional_with_value(key) {
        Some(field) => field.items().and_then(|items| Field::all(&items, |item| rule(item, peers))),
        None => Some(Vec::new()),
    };
    let (ingress, egress) = (rules("ingress", "from"), rules("egress", "to"));
    let types = policy_types(&fields, egress.as_ref().is_some_and(|rules| !rules.is_empty()));
    Some(NetworkPolicy {
        namespace: namespace?,
        name: name?,
        selector: selector?,
        types: types?,
        ingress: ingress?,
        egress: egress?,
    })
}

/// Without types, Ingress is meant, and Egress too where there are rules for it.
fn policy_types(fields: &Fields<'_>, has_egress: bool) -> Option<PolicyTypes> {
    let Some(field) = fields.optional_with_value("policyTypes") else {
        return Some(PolicyTypes { ingress: true, egress: has_egress });
    };
    let items = field.items()?;
    if items.is_empty() {
        return Some(PolicyTypes { ingress: true, egress: has_egress });
    }
    if items.len() > 2 {
        field.problem("there are more than two types", "write `Ingress`, `Egress` or both");
        return None;
    }
    let mut types = PolicyTypes { ingress: false, egress: false };
    for is_ingress in Field::all(&items, |item| item.choice(&[("Ingress", true), ("Egress", false)]))? {
        if is_ingress { types.ingress = true } else { types.egress = true }
    }
    Some(types)
}

fn rule(item: &Field<'_>, peers_key: &str) -> Option<PeerRule> {
    let fields = item.fields(&[peers_key, "ports"], &[])?;
    let list = |key: &str| match fields.optional_with_value(key) {
        Some(field) => field.items(),
        None => Some(Vec::new()),
    };
    let peers = list(peers_key).and_then(|items| Field::all(&items, peer));
    let ports = list("ports").and_then(|items| Field::all(&items, port));
    Some(PeerRule { peers: peers?, ports: ports? })
}

fn peer(item: &Field<'_>) -> Option<Peer> {
    let fields = item.fields(&["podSelector", "namespaceSelector", "ipBlock"], &[])?;
    let [workloads, namespaces, block] =
        ["podSelector", "namespaceSelector", "ipBlock"].map(|key| fields.optional_with_value(key));
    match (block, workloads, namespaces) {
        (Some(block), None, None) => ip_block(&block),
        (Some(_), _, _) => {
            item.problem("`ipBlock` stands beside a selector", "make a peer of each");
            None
        }
        (None, None, None) => {
            let mend =
                "write `podSelector`, `namespaceSelector`, both, or `ipBlock`; everybody is a rule without peers";
            item.problem("the peer names nobody", mend);
            None
        }
        (None, workloads, namespaces) => {
            let read = |field: Option<Field<'_>>| match field {
                Some(field) => selector::read_as_kubernetes(&field).map(Some),
                None => Some(None),
            };
            let (workloads, namespaces) = (read(workloads), read(namespaces));
            Some(Peer::Workloads { namespaces: namespaces?, workloads: workloads? })
        }
    }
}

fn ip_block(field: &Field<'_>) -> Option<Peer> {
    let fields = field.fields(&["cidr", "except"], &[])?;
    let cidr = fields.required("cidr", "write the block, as `10.0.0.0/8`").and_then(|field| field.read(block));
    let except = match fields.optional_with_value("except") {
        Some(field) => field.items(),
        None => Some(Vec::new()),
    };
    let except = except.and_then(|items| {
        Field::all(&items, |item| {
            let left_out = item.read(block)?;
            if let Some(cidr) = cidr
                && (cidr.prefix() >= left_out.prefix() || !covers(cidr, left_out))
            {
                item.problem(format!("{left_out} does not lie strictly within {cidr}"), "leave it out, or narrow it");
            }
            Some(left_out)
        })
    });
    Some(Peer::Block { cidr: cidr?, except: except? })
}

/// A block; host bits are passed over, as the API server does.
fn block(text: &str) -> Result<IpNetwork, NameError> {
    let cleared = text.parse::<IpNetwork>().ok().filter(|_| text.contains('/'));
    let cleared = cleared.and_then(|block| IpNetwork::new(block.network(), block.prefix()).ok());
    prefix(&cleared.map_or_else(|| text.to_owned(), |block| block.to_string()))
}

fn port(item: &Field<'_>) -> Option<PeerPort> {
    let fields = item.fields(&["protocol", "port", "endPort"], &[])?;
    let protocol = match fields.optional_with_value("protocol") {
        Some(field) => field.choice(&Protocol::ALL.map(|protocol| (protocol.as_str(), protocol))),
        None => Some(Protocol::Tcp),
    };
    let end = fields.optional_with_value("endPort");
    let Some(first) = fields.optional_with_value("port") else {
        if let Some(end) = end {
            end.problem("`endPort` without `port`", "write the first port under `port`");
            return None;
        }
        return Some(PeerPort::Range(PortRange { protocol: protocol?, first: 0, last: u16::MAX }));
    };
    if first.peek().is_some() {
        if let Some(end) = end {
            end.problem("`endPort` behind a port by name", "write the first port as a number, or leave `endPort` out");
            return None;
        }
        let name = first.parse();
        return Some(PeerPort::Named(protocol?, name?));
    }
    let number = |field: &Field<'_>| field.integer::<u16>("a port", 1..=65535);
    let first = number(&first);
    let last = match &end {
        Some(end) => number(end),
        None => first,
    };
    if let (Some(first), Some(last), Some(end)) = (first, last, &end)
        && last < first
    {
        end.problem(format!("{last} is below `port`, {first}"), "write the higher port here");
    }
    Some(PeerPort::Range(PortRange { protocol: protocol?, first: first?, last: last? }))
}
