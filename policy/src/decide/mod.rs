//! The verdict, written to be read: slow, without tables, and the judge of everything fast.
//!
//! `netctl explain` prints what comes out of here, and the tests hold the compiled tables against it.
//!
//! 1. `outbound`: what a workload sends, by address, with the names it has resolved.
//! 2. `inbound`: what is sent to a workload.
//! 3. [`name`](mod@name): what a workload would reach by a name, before it has asked for it.
//! 4. `rules`: the rules that count, and the questions asked of them; `addresses`: what a rule by address means, its sets
//!    included.
//! 5. `sentence`: the words.
//!
//! A flow whose allowance depends on the name in its handshake is judged twice: before anything of it was read
//! ([`Shown::NotYet`], [`Decision::holds`]), and anew, from the beginning, with what the handshake showed.

use std::fmt;
use std::net::IpAddr;

use config::names::{DnsName, Name};
use serde::Serialize;

use crate::model::{Model, Subject};
use crate::reason::Reason;
use crate::tables::RuleName;

mod addresses;
mod inbound;
pub mod name;
mod outbound;
mod rules;
mod sentence;

/// One new flow to be judged.
#[derive(Clone, Debug)]
pub enum Query<'a> {
    /// From a workload.
    From(Outbound<'a>),
    /// To a workload.
    To(Inbound<'a>),
}

/// A new flow that a workload opens.
#[derive(Clone, Debug)]
pub struct Outbound<'a> {
    /// Who sends.
    pub from: &'a Subject,
    /// Where to.
    pub to: Target,
    /// The names that this workload resolved to the target's address, in the kernel's order where it matters which of
    /// several is named.
    pub resolved: &'a [Resolved],
    /// What its handshake showed.
    pub shown: Shown<'a>,
    /// The present, on the clock of [`Resolved::expires`].
    pub now: u64,
}

/// The server name of a flow, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown<'a> {
    /// Nothing of the flow was read.
    NotYet,
    /// The handshake names it.
    Name(&'a DnsName),
    /// What was read has no usable name: the flow is judged without one.
    Nothing(Unshown),
}

/// Why there is no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unshown {
    /// The handshake names no host.
    NoName,
    /// It is no handshake of TLS or QUIC.
    NotTls,
    /// It is one, and could not be read to its end; or what it names is no name of DNS.
    Unreadable,
}

/// A new flow that somebody opens to a workload.
#[derive(Clone, Debug)]
pub struct Inbound<'a> {
    /// Who receives.
    pub to: &'a Subject,
    /// Who sends.
    pub from: Origin<'a>,
    /// From which address.
    pub remote: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// The workload's port; of ICMP type and code, the type in the upper byte; 0 for a protocol without either.
    pub port: u16,
}

/// Who opens a flow to a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin<'a> {
    /// The edge, through the service namespace.
    Edge,
    /// The node itself.
    Node,
    /// A workload, or any other host of the segment.
    Segment {
        /// Its network.
        network: &'a Name,
    },
    /// Anybody behind a router.
    Outside,
}

/// The far end of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// Address.
    pub address: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// Port; of ICMP type and code, the type in the upper byte; 0 for a protocol without either.
    pub port: u16,
}

/// A name that the workload looked up, and that had the address in its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The name asked for.
    pub name: DnsName,
    /// From then on it opens nothing: CLOCK_BOOTTIME in nanoseconds.
    pub expires: u64,
}

/// The verdict on a new flow, with its grounds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// Whether it passes.
    pub allowed: bool,
    /// Whether it passes only once its handshake was read, and the flow judged anew; never of one that was read.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub holds: bool,
    /// Why, as the kernel says it.
    pub reason: Reason,
    /// The rule that decided, where one did; of an audited flow, the one that would deny it.
    pub rule: Option<RuleName>,
    /// The name by which it is allowed, or was until it expired; or by which it is denied.
    pub name: Option<DnsName>,
    /// The grounds, as a sentence.
    pub text: String,
    /// What to change for the opposite; only of a denial, be it audited.
    pub mend: Option<String>,
}

/// The verdict on a new flow.
pub fn decide(model: &Model<'_>, query: &Query<'_>) -> Decision {
    match query {
        Query::From(flow) => outbound::decide(model, flow),
        Query::To(flow) => inbound::decide(model, flow),
    }
}

impl Decision {
    fn allow(reason: Reason, text: impl Into<String>) -> Self {
        Self { allowed: true, holds: false, reason, rule: None, name: None, text: text.into(), mend: None }
    }

    fn deny(reason: Reason, text: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            allowed: false,
            holds: false,
            reason,
            rule: None,
            name: None,
            text: text.into(),
            mend: Some(mend.into()),
        }
    }

    /// It waits until its handshake was judged.
    fn holding(self, more: &str) -> Self {
        Self { holds: true, ..self.and(more) }
    }

    fn by(self, rule: RuleName) -> Self {
        Self { rule: Some(rule), ..self }
    }

    /// More of the grounds.
    fn and(self, more: &str) -> Self {
        Self { text: format!("{}; {more}", self.text), ..self }
    }

    fn named(self, name: &DnsName) -> Self {
        Self { name: Some(name.clone()), ..self }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", sentence::Service { protocol: self.protocol, port: self.port }, self.address)
    }
}
