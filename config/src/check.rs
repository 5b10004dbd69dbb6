//! What only the whole set of resources shows.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use ipnetwork::IpNetwork;

use crate::names::Name;
use crate::problem::Problem;
use crate::resource::{Adopt, Gateway, Kind, Network, Resource, ResourceKey, SetName};
use crate::set::Resources;
use crate::uses::{SetUse, set_uses};
use crate::wording::closest;

/// Whether the resources fit together. A problem names file and line where the resource came from a file of this apply
/// (see [`Resources::insert_parsed`]), else the resource.
///
/// A Network or Namespace that was taken out while others need it shows as their problem.
pub fn check(resources: &Resources) -> Vec<Problem> {
    let mut problems = Vec::new();
    vlans(resources, &mut problems);
    adopted(resources, &mut problems);
    subnets(resources, &mut problems);
    egress_addresses(resources, &mut problems);
    owners(resources, &mut problems);
    sets(resources, &mut problems);
    hosts(resources, &mut problems);
    problems.sort();
    problems
}

/// One VLAN of one trunk is one segment: two networks on it would be one.
fn vlans(resources: &Resources, problems: &mut Vec<Problem>) {
    let mut first: BTreeMap<_, &Network> = BTreeMap::new();
    for network in resources.networks() {
        let Some(vlan) = &network.vlan else { continue };
        let Some(other) = first.insert((&vlan.parent, vlan.protocol, vlan.id), network) else { continue };
        let what = |_: &Network, other: &Network| {
            format!("VLAN {} on `{}` is that of Network `{}` already", vlan.id, vlan.parent, other.name)
        };
        let mend = "use another id, or one Network for both";
        problems.push(clash(resources, [(network, "spec.vlan.id"), (other, "spec.vlan.id")], what, mend));
    }
}

/// Others' interfaces are one network's.
fn adopted(resources: &Resources, problems: &mut Vec<Problem>) {
    let mut first: BTreeMap<&Adopt, &Network> = BTreeMap::new();
    for network in resources.networks() {
        let Some(other) = network.adopt.as_ref().and_then(|adopt| first.insert(adopt, network)) else { continue };
        let what = |_: &Network, other: &Network| format!("Network `{}` adopts the same", other.name);
        let mend = "one Network may have several Namespaces";
        problems.push(clash(resources, [(network, "spec.adopt"), (other, "spec.adopt")], what, mend));
    }
}

/// The node has one routing table, so what it routes must not overlap. Networks with a router of their own may.
fn subnets(resources: &Resources, problems: &mut Vec<Problem>) {
    let routed = resources.networks().filter(|network| network.gateway == Gateway::Node);
    let mut routed: Vec<(IpNetwork, &Network, usize)> = routed
        .flat_map(|network| network.subnets.iter().enumerate().map(move |(i, subnet)| (subnet.cidr, network, i)))
        .collect();
    routed.sort_by_key(|(cidr, network, _)| (cidr.network(), cidr.prefix(), &network.name));
    // Prefixes overlap only by one holding the other, and the holder sorts first: the holders of the next are a stack.
    let mut holders: Vec<(IpNetwork, &Network, usize)> = Vec::new();
    for (cidr, network, i) in routed {
        while holders.last().is_some_and(|(holder, _, _)| !holder.contains(cidr.network())) {
            holders.pop();
        }
        if let Some((holder, other, j)) = holders.iter().rev().find(|(_, other, _)| other.name != network.name) {
            let keys = [format!("spec.subnets[{i}].cidr"), format!("spec.subnets[{j}].cidr")];
            let what = |own: &Network, other: &Network| {
                let (own, theirs) = if own.name == network.name { (&cidr, holder) } else { (holder, &cidr) };
                format!("{own} overlaps {theirs} of Network `{}`, and this node routes both", other.name)
            };
            let mend = "use another block, or `gateway: External` where a router of the VLAN routes";
            problems.push(clash(resources, [(network, &keys[0]), (other, &keys[1])], what, mend));
        }
        holders.push((cidr, network, i));
    }
}

/// An address of its own is one network's, and lies in nobody's subnet: the node answers for it at the uplink.
fn egress_addresses(resources: &Resources, problems: &mut Vec<Problem>) {
    let mut first: BTreeMap<_, &Network> = BTreeMap::new();
    for network in resources.networks() {
        for address in network.snat.own() {
            if let Some(other) = first.insert(address, network) {
                let what = |_: &Network, other: &Network| {
                    format!("{address} is Network `{}`'s own address already", other.name)
                };
                let mend = "use another, or `snat: Masquerade` for both to leave with the node's";
                problems.push(clash(resources, [(network, SNAT), (other, SNAT)], what, mend));
            }
            for holder in resources.networks() {
                let holds = |subnet: &crate::resource::Subnet| subnet.cidr.contains(address);
                let Some(i) = holder.subnets.iter().position(holds) else { continue };
                let subnet = holder.subnets[i].cidr;
                let what = |own: &Network, _: &Network| match own.name == network.name {
                    true => format!("{address} lies in {subnet} of Network `{}`", holder.name),
                    false => format!("{subnet} holds {address}, with which Network `{}` leaves", network.name),
                };
                let mend = "use an address of the uplink's subnet, or one that is routed to this node";
                let key = format!("spec.subnets[{i}].cidr");
                problems.push(clash(resources, [(network, SNAT), (holder, &key)], what, mend));
            }
        }
    }
}

const SNAT: &str = "spec.egress.snat";

/// Two networks that cannot both be: told of the one that this apply brings, else of the first.
fn clash(
    resources: &Resources,
    sides: [(&Network, &str); 2],
    what: impl Fn(&Network, &Network) -> String,
    mend: &str,
) -> Problem {
    let keys = sides.map(|(network, _)| ResourceKey::network(network.name.clone()));
    let told = usize::from(resources.origin(&keys[0]).is_none() && resources.origin(&keys[1]).is_some());
    problem(resources, &keys[told], sides[told].1, what(sides[told].0, sides[1 - told].0), mend)
}

/// Every namespace has its network, every policy and app its namespace.
fn owners(resources: &Resources, problems: &mut Vec<Problem>) {
    let networks = || resources.networks().map(|network| network.name.as_str());
    for namespace in resources.namespaces().filter(|namespace| resources.network(&namespace.network).is_none()) {
        let key = ResourceKey::namespace(namespace.name.clone());
        let what = format!("there is no Network `{}`", namespace.network);
        let mend = missing(Kind::Network, &namespace.network, networks());
        problems.push(problem(resources, &key, "spec.network", what, mend));
    }
    let namespaces = || resources.namespaces().map(|namespace| namespace.name.as_str());
    for resource in
        Kind::ALL.into_iter().filter(|kind| kind.scope().has_namespaces()).flat_map(|kind| resources.of_kind(kind))
    {
        let key = resource.key();
        let Some(namespace) = key.namespace.as_ref().filter(|name| resources.namespace(name).is_none()) else {
            continue;
        };
        let what = format!("there is no Namespace `{namespace}`");
        let mend = missing(Kind::Namespace, namespace, namespaces());
        problems.push(problem(resources, &key, "metadata.namespace", what, mend));
    }
}

fn missing<'n>(kind: Kind, name: &Name, known: impl Iterator<Item = &'n str>) -> String {
    match closest(name.as_str(), known) {
        Some(close) => format!("did you mean `{close}`?"),
        None => format!("apply the {kind} first, or with this"),
    }
}

/// Every set that a rule names is there.
fn sets(resources: &Resources, problems: &mut Vec<Problem>) {
    for SetUse { policy, path, set: wanted, .. } in set_uses(resources) {
        if resources.get(&wanted).is_some() {
            continue;
        }
        let admins = ResourceKey { namespace: None, ..wanted.clone() };
        let place = match &wanted.namespace {
            Some(namespace) => format!("in namespace `{namespace}`"),
            None => "of the administrators".to_owned(),
        };
        let beside = resources.address_sets().filter(|set| set.namespace == wanted.namespace);
        let mend = match resources.get(&admins) {
            Some(_) => format!("write `{}` for the one of the administrators", SetName::Admin(wanted.name.clone())),
            None => missing(Kind::AddressSet, &wanted.name, beside.map(|set| set.name.as_str())),
        };
        let what = format!("there is no AddressSet `{}` {place}", wanted.name);
        problems.push(problem(resources, &policy, &path, what, mend));
    }
}

/// A host belongs to one app: the edge chooses by name.
fn hosts(resources: &Resources, problems: &mut Vec<Problem>) {
    let mut first: BTreeMap<_, (ResourceKey, usize)> = BTreeMap::new();
    for app in resources.apps() {
        let key = Resource::from(app.clone()).key();
        for (i, host) in app.hosts.iter().enumerate() {
            match first.entry(host) {
                Entry::Vacant(place) => {
                    place.insert((key.clone(), i));
                }
                Entry::Occupied(taken) => {
                    let (other, j) = taken.get();
                    let sides = [(&key, i), (other, *j)];
                    let told = usize::from(resources.origin(&key).is_none() && resources.origin(other).is_some());
                    let (own, i) = sides[told];
                    let what = format!("`{host}` is exposed by {} already", sides[1 - told].0);
                    let mend = "expose a host in one app, with a route for each path";
                    problems.push(problem(resources, own, &format!("spec.hosts[{i}]"), what, mend));
                }
            }
        }
    }
}

fn problem(
    resources: &Resources,
    of: &ResourceKey,
    key: &str,
    what: impl Into<String>,
    mend: impl Into<String>,
) -> Problem {
    let origin = resources.origin(of);
    Problem {
        file: origin.map_or_else(|| of.to_string(), |origin| origin.file.to_string()),
        line: origin.and_then(|origin| origin.line(key)),
        key: key.to_owned(),
        what: what.into(),
        mend: mend.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;

    const BASE: &str = "
{ apiVersion: tidegate.dev/v1alpha1, kind: Network, metadata: { name: a }, spec: { vlan: { parent: t, id: 7 }, subnets: [ { cidr: 10.0.0.0/24, gateway: 10.0.0.1 } ] } }
---
{ apiVersion: tidegate.dev/v1alpha1, kind: Namespace, metadata: { name: shop }, spec: { network: a } }
---
{ apiVersion: tidegate.dev/v1alpha1, kind: EgressPolicy, metadata: { name: p, namespace: shop }, spec: { selector: {} } }
---
{ apiVersion: tidegate.dev/v1alpha1, kind: ExposedApp, metadata: { name: web, namespace: shop }, spec: { hosts: [ a.example.com ], tls: { mode: Passthrough }, routes: [ { path: /, backends: [ { selector: {}, port: 443 } ] } ] } }
";

    /// The stored set, and then a file on top of it.
    fn told(file: &str) -> Vec<String> {
        let mut set: Resources = parse("", BASE).unwrap().into_iter().map(|parsed| parsed.resource).collect();
        for parsed in parse("new.yaml", file).unwrap() {
            set.insert_parsed(parsed);
        }
        check(&set).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_whole_set_is_clean() {
        assert!(told("").is_empty());
    }

    #[test]
    fn what_the_apply_brings_is_told_with_its_line() {
        // `0` sorts before the stored `a`, and `web` of namespace `a` before that of `shop`.
        let told = told(
            "
apiVersion: tidegate.dev/v1alpha1
kind: Network
metadata: { name: '0' }
spec:
  vlan: { parent: t, id: 7 }
  subnets: [ { cidr: 10.0.0.0/25, gateway: 10.0.0.2 } ]
---
apiVersion: tidegate.dev/v1alpha1
kind: ExposedApp
metadata: { name: web, namespace: lab }
spec:
  hosts: [ b.example.com, a.example.com ]
  tls: { mode: Passthrough }
  routes: [ { path: /, backends: [ { selector: {}, port: 443 } ] } ]
",
        );
        assert_eq!(
            told,
            [
                "new.yaml:6: spec.vlan.id: VLAN 7 on `t` is that of Network `a` already; use another id, or one Network for both",
                "new.yaml:7: spec.subnets[0].cidr: 10.0.0.0/25 overlaps 10.0.0.0/24 of Network `a`, and this node routes both; use another block, or `gateway: External` where a router of the VLAN routes",
                "new.yaml:11: metadata.namespace: there is no Namespace `lab`; apply the Namespace first, or with this",
                "new.yaml:13: spec.hosts[1]: `a.example.com` is exposed by exposedapp/shop/web already; expose a host in one app, with a route for each path",
            ]
        );
    }

    #[test]
    fn what_is_taken_out_is_missed_by_what_needs_it() {
        let mut set: Resources = parse("", BASE).unwrap().into_iter().map(|parsed| parsed.resource).collect();
        set.remove(&ResourceKey::network("a".parse().unwrap()));
        let told = |set: &Resources| check(set).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(
            told(&set),
            ["namespace/shop: spec.network: there is no Network `a`; apply the Network first, or with this"]
        );
        set.remove(&ResourceKey::namespace("shop".parse().unwrap()));
        assert_eq!(
            told(&set),
            ["egresspolicy/shop/p", "exposedapp/shop/web"].map(|key| format!(
                "{key}: metadata.namespace: there is no Namespace `shop`; apply the Namespace first, or with this"
            ))
        );
    }

    #[test]
    fn only_what_this_node_routes_must_not_overlap() {
        let external = "
apiVersion: tidegate.dev/v1alpha1
kind: Network
metadata: { name: b }
spec: { gateway: External, vlan: { parent: t, id: 8 }, subnets: [ { cidr: 10.0.0.0/24 } ] }
";
        assert!(told(external).is_empty());
        let routed = external.replace("External", "Node").replace("/24 }", "/24, gateway: 10.0.0.1 }");
        assert_eq!(told(&routed).len(), 1);
        let other_trunk = external.replace("parent: t, id: 8", "parent: u, id: 7");
        assert!(told(&other_trunk).is_empty());
        let other_tag = external.replace("id: 8", "id: 7, protocol: 802.1ad");
        assert!(told(&other_tag).is_empty());
    }

    #[test]
    fn an_own_address_is_one_networks_and_in_no_subnet() {
        let network = |name: &str, snat: &str| {
            format!(
                "{{ apiVersion: tidegate.dev/v1alpha1, kind: Network, metadata: {{ name: {name} }}, spec: {{ subnets: [ {{ cidr: 10.7.{}.0/24, gateway: 10.7.{}.1 }} ], egress: {{ snat: {snat} }} }} }}\n---\n",
                name.len(),
                name.len()
            )
        };
        assert!(told(&(network("x", "192.0.2.7") + &network("yy", "192.0.2.8"))).is_empty());
        let clashing = network("x", "192.0.2.7") + &network("yy", "192.0.2.7") + &network("zzz", "10.0.0.9");
        assert_eq!(
            told(&(clashing + &network("wwww", "10.7.4.9"))),
            [
                "new.yaml:3: spec.egress.snat: 192.0.2.7 is Network `x`'s own address already; use another, or `snat: Masquerade` for both to leave with the node's",
                "new.yaml:5: spec.egress.snat: 10.0.0.9 lies in 10.0.0.0/24 of Network `a`; use an address of the uplink's subnet, or one that is routed to this node",
                "new.yaml:7: spec.egress.snat: 10.7.4.9 lies in 10.7.4.0/24 of Network `wwww`; use an address of the uplink's subnet, or one that is routed to this node",
            ]
        );
        // the subnet comes later than the address
        let mut set: Resources =
            parse("", &network("x", "10.8.0.9")).unwrap().into_iter().map(|p| p.resource).collect();
        for parsed in parse("new.yaml", &network("yy", "None").replace("10.7.2.", "10.8.0.")).unwrap() {
            set.insert_parsed(parsed);
        }
        let told: Vec<String> = check(&set).iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "new.yaml:1: spec.subnets[0].cidr: 10.8.0.0/24 holds 10.8.0.9, with which Network `x` leaves; use an address of the uplink's subnet, or one that is routed to this node"
            ]
        );
    }

    #[test]
    fn a_holder_is_found_behind_a_sibling() {
        let network = |name: &str, cidr: &str| {
            let (base, _) = cidr.split_once("0/").unwrap();
            format!(
                "{{ apiVersion: tidegate.dev/v1alpha1, kind: Network, metadata: {{ name: {name} }}, spec: {{ subnets: [ {{ cidr: {cidr}, gateway: {base}1 }} ] }} }}\n---\n"
            )
        };
        let text = [("x", "10.8.0.0/13"), ("y", "10.9.1.0/24"), ("z", "10.9.2.0/24"), ("w", "10.16.0.0/24")];
        let text: String = text.iter().map(|(name, cidr)| network(name, cidr)).collect();
        let told = told(&text);
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told.iter().all(|line| line.contains("overlaps 10.8.0.0/13 of Network `x`")), "{told:?}");
    }
}
