//! Random network policies, and their shrinking.

use config::resource::{NetworkPolicy, Peer, PeerPort, PeerRule, PolicyTypes, PortRange};

use crate::draw::Draw;
use crate::text::name;
use crate::world::{port, port_name, prefix, protocol, selector};

pub(crate) fn any_policy(draw: &mut Draw, own: &str) -> NetworkPolicy {
    NetworkPolicy {
        namespace: name(draw.of(&["shop", "shop", "bank"])),
        name: name(own),
        selector: selector(draw),
        types: draw
            .of(&[(true, false), (false, true), (true, true)].map(|(ingress, egress)| PolicyTypes { ingress, egress })),
        ingress: draw.some(3, rule),
        egress: draw.some(3, rule),
    }
}

fn rule(draw: &mut Draw) -> PeerRule {
    PeerRule { peers: draw.some(2, peer), ports: draw.some(2, peer_port) }
}

fn peer(draw: &mut Draw) -> Peer {
    let maybe = |draw: &mut Draw| if draw.one_in(2) { Some(selector(draw)) } else { None };
    match draw.one_in(3) {
        true => Peer::Block { cidr: prefix(draw), except: draw.some(2, prefix) },
        false => Peer::Workloads { namespaces: maybe(draw), workloads: maybe(draw) },
    }
}

fn peer_port(draw: &mut Draw) -> PeerPort {
    let range = |protocol, first, last| PeerPort::Range(PortRange { protocol, first, last });
    let (protocol, one, other) = (protocol(draw), port(draw).max(1), port(draw).max(1));
    match draw.below(5) {
        0 => range(protocol, 0, u16::MAX),
        1 | 2 => range(protocol, one, one),
        3 => range(protocol, one.min(other), one.max(other)),
        _ => PeerPort::Named(protocol, port_name(draw)),
    }
}

/// Every policy that lacks one thing of this one.
pub(crate) fn smaller(policy: &NetworkPolicy) -> Vec<NetworkPolicy> {
    let mut smaller = Vec::new();
    let lists: [fn(&mut NetworkPolicy) -> &mut Vec<PeerRule>; 2] =
        [|policy| &mut policy.ingress, |policy| &mut policy.egress];
    for list in lists {
        let rules = list(&mut policy.clone()).clone();
        let mut keep = |change: &dyn Fn(&mut Vec<PeerRule>)| {
            let mut own = policy.clone();
            change(list(&mut own));
            smaller.push(own);
        };
        for (index, rule) in rules.iter().enumerate() {
            keep(&|rules| drop(rules.remove(index)));
            for peer in 0..rule.peers.len() {
                keep(&|rules| drop(rules[index].peers.remove(peer)));
            }
            for port in 0..rule.ports.len() {
                keep(&|rules| drop(rules[index].ports.remove(port)));
            }
        }
    }
    smaller
}
