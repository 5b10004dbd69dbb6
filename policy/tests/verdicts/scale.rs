//! Long lists compile in time that grows with their length.

use std::time::Instant;

use config::resource::{
    AllowRule, CidrRule, Default as Fallback, DenyRule, NetworkPolicy, Peer, PeerRule, PolicyTypes, Ports, Selector,
};
use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use policy::tables::PolicyId;
use policy::{Model, Node, Resident, compile};

use crate::draw::Draw;
use crate::text::{namespace, policy, subject};

const PREFIXES: usize = 100_000;

#[test]
fn a_hundred_thousand_prefixes() {
    let mut draw = Draw(1);
    let mut cidrs: Vec<IpNetwork> = (0..PREFIXES)
        .map(|_| {
            if draw.one_in(4) {
                let bits = u128::from(draw.next()) << 64;
                return Ipv6Network::new((0x2001u128 << 112 | bits >> 16).into(), 128).unwrap().into();
            }
            let length = 22 + draw.below(11) as u8;
            let address = (draw.next() as u32 & (u32::MAX << (32 - length))).into();
            Ipv4Network::new(address, length).unwrap().into()
        })
        .collect();
    cidrs.sort();
    cidrs.dedup();
    let mut policies: Vec<_> = (0..20)
        .map(|own| policy("shop", &format!("p{own}"), &format!("app=a{own}"), "allow 0.0.0.0/0 tcp/443"))
        .collect();
    for index in 0..20 {
        let cidrs = cidrs.iter().copied().skip(index).step_by(20).collect();
        let rule = CidrRule { cidrs, sets: Vec::new(), except: Vec::new(), ports: Ports::All };
        policies[index].deny.push(DenyRule::Cidrs(rule.clone()));
        policies[19 - index].allow.push(AllowRule::Cidrs(rule));
    }
    let shop = namespace("shop", Fallback::Deny, Fallback::Deny);
    let node = Node::default();
    let model = Model::new([&shop], [], &policies, [], &node);
    let subjects = (0..20).map(|own| subject("shop", &format!("app=a{own}"))).collect();
    let start = Instant::now();
    let compiled = compile(&model, &subjects, 1, PolicyId(1));
    let generation = compiled.generation();
    println!("{} prefixes, {} lines in {:?}", generation.prefixes.len(), generation.rules.len(), start.elapsed());
    assert!(generation.prefixes.len() <= cidrs.len() + 1);
    assert!(generation.rules.len() < 50_000, "{} lines", generation.rules.len());
}

/// Ports in disjoint pieces, and prefixes in a chain: the two ways to make many answers of few lines.
#[test]
fn many_ports_and_a_chain() {
    let ports: String = (0..2_000).map(|index| format!(" tcp/{}", 1_000 + index * 2)).collect();
    let chain: String = (0..=32).map(|length| format!("allow 0.0.0.0/{length} udp/{}\n", 100 + length)).collect();
    let rules = format!("allow 10.0.0.0/8{ports}\n{chain}");
    let own = [policy("shop", "p", "", &rules)];
    let shop = namespace("shop", Fallback::Deny, Fallback::Deny);
    let node = Node::default();
    let model = Model::new([&shop], [], &own, [], &node);
    let compiled = compile(&model, &[subject("shop", "")].into(), 1, PolicyId(1));
    assert_eq!(compiled.generation().prefixes.len(), 34);
    assert!(compiled.generation().rules.len() < 3_000, "{} lines", compiled.generation().rules.len());
}

/// A thousand workloads in twenty namespaces, and two hundred policies whose peers are all of them.
#[test]
fn many_peers() {
    let (spaces, each) = (20, 50);
    let namespaces: Vec<_> =
        (0..spaces).map(|own| namespace(&format!("n{own}"), Fallback::Allow, Fallback::Allow)).collect();
    let resident = |number: usize| {
        let own = subject(&format!("n{}", number % spaces), &format!("app=a{} own=w{number}", number % 10));
        let v4 = std::net::IpAddr::from([10, 0, (number / 250) as u8, (number % 250) as u8 + 1]);
        let v6 = std::net::IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, number as u16 + 1]);
        Resident { subject: own, addresses: vec![v4, v6] }
    };
    let residents: Vec<Resident> = (0..spaces * each).map(resident).collect();
    let policies: Vec<NetworkPolicy> = (0..200)
        .map(|number| {
            let peer = |app: usize| Peer::Workloads {
                namespaces: Some(Selector::default()),
                workloads: Some(crate::text::labels(&format!("app=a{}", app % 10)).into()),
            };
            let rule = PeerRule { peers: vec![peer(number), peer(number + 1)], ports: Vec::new() };
            NetworkPolicy {
                namespace: crate::text::name(&format!("n{}", number % spaces)),
                name: crate::text::name(&format!("p{number}")),
                selector: crate::text::labels(&format!("app=a{}", number / spaces)).into(),
                types: PolicyTypes { ingress: true, egress: true },
                ingress: vec![rule.clone()],
                egress: vec![rule],
            }
        })
        .collect();
    let node = Node::default();
    let subjects = residents.iter().map(|own| own.subject.clone()).collect();
    let start = Instant::now();
    let model = Model::new(&namespaces, [], [], [], &node).with_network_policies(&policies).with_residents(residents);
    let compiled = compile(&model, &subjects, 1, PolicyId(1));
    let generation = compiled.generation();
    println!("{} prefixes, {} lines in {:?}", generation.prefixes.len(), generation.rules.len(), start.elapsed());
    assert_eq!(generation.prefixes.len(), 2 * spaces * each, "each address once");
    assert!(generation.rules.len() < 2_000, "{} lines", generation.rules.len());
}
