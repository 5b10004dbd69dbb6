//! `netctl explain`: the pure verdict on a flow that a workload would open, and on its way into the other end.
//!
//! 1. A name: what the workload resolved it to, and if nothing yet, what the name alone would open.
//! 2. An address: the verdict on leaving the workload, with the names it resolved to that address.
//! 3. If the address is another workload's of this node, the verdict on entering that one too: both must allow.

use std::net::IpAddr;

use config::api::{Answer, Explanation, Host, Protocol};
use config::names::DnsName;
use config::resource;
use policy::decide::name;
use policy::{Decision, Inbound, Model, Origin, Outbound, Query, Resolve, Resolved, Shown, Subject, Target};

use super::desired::Desired;
use crate::workload::{Workload, is_link_local};

/// The port that is asked about where none is given: HTTPS, over TCP or QUIC.
const USUAL_PORT: u16 = 443;

/// What this workload was answered by DNS, as far as it is still known.
pub(crate) trait Memory {
    /// Names with this address, whether they are over or not.
    fn names(&self, address: IpAddr) -> Vec<Resolved>;
    /// Addresses of this name with the time they are over.
    fn addresses(&self, name: &DnsName) -> Vec<(IpAddr, u64)>;
}

/// Everything that the answer depends on.
pub(crate) struct Question<'a> {
    pub(crate) desired: &'a Desired,
    pub(crate) model: &'a Model<'a>,
    pub(crate) from: &'a Workload,
    pub(crate) host: &'a Host,
    pub(crate) port: Option<u16>,
    pub(crate) protocol: Protocol,
    pub(crate) memory: &'a dyn Memory,
    /// CLOCK_BOOTTIME in nanoseconds.
    pub(crate) now: u64,
}

/// The answer, with the steps that led to it.
pub(crate) fn explain(question: &Question<'_>) -> Explanation {
    match question.host {
        Host::Address(address) => question.by_address(*address, Vec::new()),
        Host::Name(name) => question.by_name(name),
    }
}

impl Question<'_> {
    fn by_name(&self, asked: &DnsName) -> Explanation {
        let subject = self.from.subject();
        let mut steps = vec![match name::may_resolve(self.model, &subject, asked) {
            Resolve::Allowed { by: policy::Grounds::Rule(rule) } => {
                format!("{asked} may be looked up, by rule `{}`", rule.qualified())
            }
            Resolve::Allowed { by: policy::Grounds::NotIsolated } => {
                format!("{asked} may be looked up: no policy isolates the workload")
            }
            Resolve::Refused => {
                format!("{asked} is answered as if there were no such name (NXDOMAIN, extended error 18)")
            }
        }];
        let answers = self.memory.addresses(asked);
        let listed: Vec<Answer> = answers
            .iter()
            .map(|(address, expires)| Answer {
                address: *address,
                expires_in_s: expires.saturating_sub(self.now) / 1_000_000_000,
            })
            .collect();
        let alive = answers.iter().filter(|(_, expires)| *expires > self.now).map(|(address, _)| *address).min();
        let Some(address) = alive else {
            steps.push(format!("{}/{} has no live answer for it yet", self.from.namespace, self.from.name));
            let (protocol, port) = self.service(IpAddr::from([0, 0, 0, 0]), &mut steps);
            let decision = name::decide(self.model, &subject, asked, protocol, port);
            return Explanation { answers: listed, ..explanation(decision, steps) };
        };
        steps.push(format!("{}/{} resolved it to {address}", self.from.namespace, self.from.name));
        Explanation { answers: listed, ..self.by_address(address, steps) }
    }

    fn by_address(&self, address: IpAddr, mut steps: Vec<String>) -> Explanation {
        let (protocol, port) = self.service(address, &mut steps);
        let subject = self.from.subject();
        let resolved = self.memory.names(address);
        let target = Target { address, protocol, port };
        let out = policy::decide(
            self.model,
            &Query::From(Outbound {
                from: &subject,
                to: target,
                resolved: &resolved,
                shown: Shown::NotYet,
                now: self.now,
            }),
        );
        steps.push(format!("leaving {}/{}: {}", self.from.namespace, self.from.name, out.text));
        let other = self.desired.workload_at(self.from, address);
        let met = other.filter(|_| out.allowed).zip(self.source(address));
        let Some((other, remote)) = met else { return explanation(out, steps) };
        let entering = Inbound { to: &other.subject(), from: self.origin(other), remote, protocol, port };
        let into = policy::decide(self.model, &Query::To(entering));
        steps.push(format!("entering {}/{}: {}", other.namespace, other.name, into.text));
        explanation(if into.allowed { out } else { into }, steps)
    }

    fn origin(&self, other: &Workload) -> Origin<'_> {
        if other.network == self.from.network {
            Origin::Segment { network: &self.from.network }
        } else {
            Origin::Outside
        }
    }

    /// The address from which the workload would reach another.
    fn source(&self, address: IpAddr) -> Option<IpAddr> {
        let alike = |own: &IpAddr| own.is_ipv4() == address.is_ipv4() && is_link_local(*own) == is_link_local(address);
        self.from.addresses.iter().map(|own| own.address).find(alike)
    }

    /// IP protocol number and port.
    fn service(&self, address: IpAddr, steps: &mut Vec<String>) -> (u8, u16) {
        let protocol = match (self.protocol, address) {
            (Protocol::Tcp, _) => 6,
            (Protocol::Udp, _) => 17,
            (Protocol::Sctp, _) => 132,
            (Protocol::Icmp, IpAddr::V4(_)) => return echo(resource::Protocol::Icmp),
            (Protocol::Icmp, IpAddr::V6(_)) => return echo(resource::Protocol::Icmpv6),
        };
        let port = self.port.unwrap_or_else(|| {
            steps.push(format!("no port was given: port {USUAL_PORT} is meant"));
            USUAL_PORT
        });
        (protocol, port)
    }
}

/// What a ping is to the rules: protocol number, and type and code in a port's place.
fn echo(protocol: resource::Protocol) -> (u8, u16) {
    (protocol.number(), protocol.echo().unwrap_or(0))
}

fn explanation(decision: Decision, steps: Vec<String>) -> Explanation {
    Explanation {
        allowed: decision.allowed,
        verdict: decision.text,
        reason: decision.reason.word().to_owned(),
        rule: decision.rule.map(|rule| rule.qualified()),
        name: decision.name.map(String::from),
        answers: Vec::new(),
        steps,
        mend: decision.mend.unwrap_or_default(),
    }
}

impl Workload {
    /// What policies see of it.
    pub fn subject(&self) -> Subject {
        Subject { namespace: self.namespace.clone(), labels: self.labels.clone(), ports: self.ports.clone() }
    }
}
