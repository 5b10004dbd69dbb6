//! Who is behind an address: the workloads of this node as the rules of NetworkPolicies see them.
//!
//! A selector is resolved to the workloads of this node. An address means one workload in one *view* only: the networks
//! that this node routes do not overlap and are one view; a network with a router of its own may have the addresses of
//! another, so that it is a view of its own.

use std::collections::BTreeMap;
use std::net::IpAddr;

use config::names::Name;
use config::resource::{Gateway, NetworkPolicy, Peer, PeerPort, PeerRule, Protocol, Selector, selects};

use crate::model::{Model, Subject};

/// A workload of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resident {
    /// What policies see of it.
    pub subject: Subject,
    /// Its addresses, link-local ones included.
    pub addresses: Vec<IpAddr>,
}

/// Where an address means one and the same workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum View<'a> {
    /// The networks that this node routes.
    Routed,
    /// One network that a router of its own routes.
    Own(&'a Name),
}

/// The workloads of this node by view.
#[derive(Clone, Debug, Default)]
pub(crate) struct Residents<'a> {
    all: Vec<Resident>,
    views: BTreeMap<View<'a>, BTreeMap<IpAddr, usize>>,
}

impl<'a> Model<'a> {
    /// The same with the workloads of this node, whom peers and named ports resolve to. One without a namespace is
    /// nobody's peer.
    pub fn with_residents(mut self, residents: impl IntoIterator<Item = Resident>) -> Self {
        for resident in residents {
            if self.namespace(&resident.subject).is_none() {
                continue;
            }
            let view = self.view(&resident.subject);
            let of_view = self.residents.views.entry(view).or_default();
            of_view.extend(resident.addresses.iter().map(|address| (*address, self.residents.all.len())));
            self.residents.all.push(resident);
        }
        self
    }

    /// The view of the subject's network.
    pub fn view(&self, subject: &Subject) -> View<'a> {
        match self.namespace(subject).and_then(|namespace| self.network(namespace)) {
            Some(network) if network.gateway == Gateway::External => View::Own(&network.name),
            Some(_) | None => View::Routed,
        }
    }

    /// The workload that has this address in a view.
    pub fn resident(&self, view: View<'_>, address: IpAddr) -> Option<&Subject> {
        let index = *self.residents.views.get(&view)?.get(&address)?;
        Some(&self.residents.all[index].subject)
    }

    /// Every workload that may be a peer.
    pub(crate) fn residents(&self) -> &[Resident] {
        &self.residents.all
    }

    /// Whether a rule of this policy means the address.
    pub fn means(&self, policy: &NetworkPolicy, rule: &PeerRule, view: View<'_>, address: IpAddr) -> bool {
        let resident = self.resident(view, address);
        rule.peers.is_empty() || rule.peers.iter().any(|peer| self.is_peer(policy, peer, address, resident))
    }

    /// Whether a peer of this policy is the address, behind which the resident is.
    pub(crate) fn is_peer(
        &self,
        policy: &NetworkPolicy,
        peer: &Peer,
        address: IpAddr,
        resident: Option<&Subject>,
    ) -> bool {
        match peer {
            Peer::Block { cidr, except } => {
                cidr.contains(address) && !except.iter().any(|left_out| left_out.contains(address))
            }
            Peer::Workloads { namespaces, workloads } => {
                let selected = |own| self.is_selected(&policy.namespace, namespaces.as_ref(), workloads.as_ref(), own);
                resident.is_some_and(selected)
            }
        }
    }

    /// Whether a peer of a policy in this namespace means the workload.
    pub(crate) fn is_selected(
        &self,
        policy: &Name,
        namespaces: Option<&Selector>,
        workloads: Option<&Selector>,
        subject: &Subject,
    ) -> bool {
        let there = match namespaces {
            Some(selector) => self.namespace(subject).is_some_and(|own| selects(selector, &own.labels)),
            None => subject.namespace == *policy,
        };
        there && workloads.is_none_or(|selector| selects(selector, &subject.labels))
    }
}

/// Whether the rule opens this port; `receiver` is who gives a named port its number, where it is a workload of this
/// node.
pub fn opens(rule: &PeerRule, receiver: Option<&Subject>, protocol: u8, port: u16) -> bool {
    rule.ports.is_empty()
        || rule.ports.iter().any(|own| match own {
            PeerPort::Range(range) => range.protocol.number() == protocol && (range.first..=range.last).contains(&port),
            PeerPort::Named(of, name) => receiver.is_some_and(|receiver| {
                let mut called = receiver.ports.iter().filter(|own| own.name == *name && own.protocol == *of);
                called.any(|own| own.protocol.number() == protocol && own.port == port)
            }),
        })
}

/// The first `egress` rule that lets a workload ask DNS, which here is answered whatever server is asked: one that names
/// port 53, or opens it to everybody. One that opens a span of ports to some peers does not speak of DNS.
pub fn dns_rule(policy: &NetworkPolicy) -> Option<usize> {
    const DNS: u16 = 53;
    let everybody = |rule: &PeerRule| {
        let all = |peer: &Peer| matches!(peer, Peer::Block { cidr, except } if cidr.prefix() == 0 && except.is_empty());
        rule.peers.is_empty() || rule.peers.iter().any(all)
    };
    let of_dns = |protocol: Protocol| matches!(protocol, Protocol::Tcp | Protocol::Udp);
    let names_it = |port: &PeerPort| matches!(port, PeerPort::Range(range) if of_dns(range.protocol) && (range.first, range.last) == (DNS, DNS));
    let opens_it =
        |rule: &PeerRule| [Protocol::Tcp, Protocol::Udp].iter().any(|it| opens(rule, None, it.number(), DNS));
    let rules = policy.egress_rules().unwrap_or_default();
    rules.iter().position(|rule| rule.ports.iter().any(names_it) || (everybody(rule) && opens_it(rule)))
}
