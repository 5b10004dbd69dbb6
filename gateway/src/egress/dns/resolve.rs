//! One question from permission to answer: at once, wherever it is read, if what it needs is kept; else in a task.

use std::net::IpAddr;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::names::{DnsName, InterfaceName};
use config::upstream::Upstream;
use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::RecordType;
use ipnetwork::{Ipv4Network, Ipv6Network};
use tokio::runtime::Handle;
use tracing::debug;

use super::answer::{self, Extended};
use super::edit::Cuts;
use super::health::Health;
use super::lookups::{Lookups, Source};
use super::node_sockets::NodeSockets;
use super::outcome::Outcome;
use super::question::Question;
use super::quota::{Quota, Turn};
use super::rate::Rate;
use super::upstream::{Response, Unanswered};
use super::{Limits, Permit, Resolution, chain, edit, kept};
use crate::sys::bpf::boot_time;

/// What every listener shares.
pub(super) struct Resolver {
    tasks: Handle,
    resolution: Arc<dyn Resolution>,
    lookups: Arc<Lookups>,
    handles: (Ipv4Network, Ipv6Network),
    queries: Arc<Quota>,
    rate: Rate,
}

/// A question that is admitted and permitted, and that servers are to be asked.
#[derive(Debug)]
pub(super) struct ToAsk {
    since: Instant,
    account: u32,
    upstreams: Arc<[Upstream]>,
    device: Option<InterfaceName>,
}

impl Resolver {
    /// Servers are asked by tasks of the current runtime, on sockets that are made on `node`.
    pub(super) fn new(node: Handle, resolution: Arc<dyn Resolution>, limits: &Limits, queries: Arc<Quota>) -> Self {
        let (sockets, roots) = (NodeSockets::new(node), limits.tls_roots.clone());
        Self {
            tasks: Handle::current(),
            resolution,
            lookups: Lookups::new(sockets, limits.cache, limits.lookups_per_second, roots),
            handles: (limits.handles_v4, limits.handles_v6),
            queries,
            rate: Rate::new(limits.queries_per_second),
        }
    }

    pub(super) fn health(&self) -> Health {
        self.lookups.health()
    }

    /// Admits one more query of `asker`; `None` is counted.
    pub(super) fn admit(&self, asker: IpAddr) -> Option<Turn> {
        let turn = self.queries.take(asker);
        if turn.is_none() {
            Outcome::Overload.count();
        }
        turn
    }

    /// The answer, if servers need not be asked: `Ok(None)` where none is due.
    pub(super) fn at_once(self: &Arc<Self>, asker: IpAddr, question: &Question) -> Result<Option<Vec<u8>>, ToAsk> {
        let since = Instant::now();
        let end = |answer, outcome: Outcome, source| {
            note(asker, question, outcome, source, since);
            Ok(answer)
        };
        let Some(account) = self.resolution.account(asker) else { return end(None, Outcome::UnknownAsker, None) };
        if !self.rate.take(account, 1, Instant::now()) {
            return end(Some(self.held_back(account, question)), Outcome::RateLimited, None);
        }
        let kind = question.query.query_type();
        let rules = self.resolution.rules();
        let permit = match &question.name {
            Some(name) => self.resolution.permit(asker, name, kind.into()),
            None => self.resolution.permit_unnamed(asker, kind.into()),
        };
        match permit {
            Permit::Unknown => end(None, Outcome::UnknownAsker, None),
            Permit::Refused { why } => {
                end(Some(answer::no_such_name(question, Extended::Prohibited, &why)), Outcome::Refused, None)
            }
            Permit::RefusedType { why } => {
                end(Some(answer::no_data(question, Extended::Prohibited, &why)), Outcome::Refused, None)
            }
            Permit::Allowed { upstreams, device } => {
                // a device's number is another one in another namespace
                let kept =
                    device.is_none().then(|| self.lookups.kept(&self.tasks, asker, question, &upstreams)).flatten();
                match kept {
                    Some((found, quiet)) => {
                        let (bytes, outcome) = self.conclude((asker, account), question, found);
                        if let (Outcome::Answered, Some(rules)) = (outcome, rules) {
                            self.keep(asker, question, &bytes, (rules, quiet));
                        }
                        end(Some(bytes), outcome, Some(Source::Cache))
                    }
                    None => Err(ToAsk { since, account, upstreams, device }),
                }
            }
        }
    }

    /// Asks in a task and calls `then` there with the answer.
    pub(super) fn start<F>(
        self: &Arc<Self>,
        asker: IpAddr,
        question: Question,
        turn: Turn,
        asking: ToAsk,
        then: impl FnOnce(Question, Vec<u8>) -> F + Send + 'static,
    ) where
        F: Future<Output = ()> + Send,
    {
        let resolver = Arc::clone(self);
        self.tasks.spawn(async move {
            let ToAsk { since, account, upstreams, device } = asking;
            let (found, source) = resolver.lookups.ask((asker, account), &question, upstreams, device).await;
            let (bytes, outcome) = resolver.conclude((asker, account), &question, found);
            note(asker, &question, outcome, Some(source), since);
            then(question, bytes).await;
            drop(turn);
        });
    }

    fn conclude(
        &self,
        (asker, account): (IpAddr, u32),
        question: &Question,
        found: Result<Response, Unanswered>,
    ) -> (Vec<u8>, Outcome) {
        match found {
            Ok(response) => self.pass_on(asker, question, response),
            Err(Unanswered::TooMany) => (self.held_back(account, question), Outcome::RateLimited),
            Err(unanswered) => (unanswered_as_failure(question, &unanswered), Outcome::UpstreamFailed),
        }
    }

    fn held_back(&self, account: u32, question: &Question) -> Vec<u8> {
        self.resolution.held_back(account);
        unanswered_as_failure(question, &Unanswered::TooMany)
    }

    /// Learns, then hands the answer out.
    fn pass_on(&self, asker: IpAddr, question: &Question, mut response: Response) -> (Vec<u8>, Outcome) {
        let answers = &response.message.answers;
        let addresses = chain::mentioned(answers);
        let forbidden = chain::forbidden(&addresses, self.handles);
        let why = forbidden.map(|address| format!("the answer has {address}, which no name may have"));
        if let Some(why) = why.or_else(|| self.resolution.misled(asker, &addresses)) {
            return (answer::no_such_name(question, Extended::Filtered, &why), Outcome::Filtered);
        }
        let glue = self.closed_glue(asker, &response.message);
        let cuts = Cuts { ech: self.hides_ech(asker, question, &response.message), glue: &glue };
        if cuts.ech || !cuts.glue.is_empty() {
            match edit::without(&response.bytes, cuts) {
                Ok(Some(bytes)) => response.bytes = bytes,
                Ok(None) => {}
                Err(why) => {
                    return (answer::failed(question, Extended::Other, &why.to_string()), Outcome::Uneditable);
                }
            }
        }
        if response.message.metadata.response_code == ResponseCode::NoError
            && matches!(question.query.query_type(), RecordType::A | RecordType::AAAA | RecordType::ANY)
            && let Some(name) = &question.name
            && let Err(why) = self.learn(asker, name, question, &response)
        {
            return (answer::failed(question, Extended::Other, &why), Outcome::NotLearned);
        }
        (answer::relayed(question, response.bytes), Outcome::Answered)
    }

    /// What was asked for again is for the kernel to answer from now on, as long as what decided about it holds.
    fn keep(&self, asker: IpAddr, question: &Question, bytes: &[u8], (rules, quiet): (NonZeroU64, Duration)) {
        let (Some(name), Some(asked)) = (&question.name, &question.asked) else { return };
        let Some(kept) = kept::kept(asked, bytes, quiet, boot_time()) else { return };
        let addresses = match question.query.query_type() {
            RecordType::A | RecordType::AAAA => {
                let Ok(message) = Message::from_vec(bytes) else { return };
                chain::addresses(&message.answers, question.query.name())
            }
            _ => Vec::new(),
        };
        self.resolution.keep(asker, rules, name, &addresses, &kept);
    }

    fn hides_ech(&self, asker: IpAddr, question: &Question, message: &Message) -> bool {
        edit::may_have_ech(message) && self.resolution.reads_handshakes(asker, question.name.as_ref())
    }

    /// Addresses behind the answer section where no name may lead: a server may name itself there, so that the answer stays.
    fn closed_glue(&self, asker: IpAddr, message: &Message) -> Vec<IpAddr> {
        let mut glue = chain::mentioned(&message.authorities);
        glue.extend(chain::mentioned(&message.additionals));
        let is_closed = |addresses: &[IpAddr]| {
            chain::forbidden(addresses, self.handles).is_some() || self.resolution.misled(asker, addresses).is_some()
        };
        if glue.is_empty() || !is_closed(&glue) {
            return Vec::new();
        }
        glue.retain(|address| is_closed(&[*address]));
        glue
    }

    fn learn(&self, asker: IpAddr, name: &DnsName, question: &Question, response: &Response) -> Result<(), String> {
        let addresses = chain::addresses(&response.message.answers, question.query.name());
        if addresses.is_empty() { Ok(()) } else { self.resolution.learn(asker, name, &addresses) }
    }
}

/// `source`: where the answer is from if it was looked up.
fn note(asker: IpAddr, question: &Question, outcome: Outcome, source: Option<Source>, since: Instant) {
    let cache = source.map_or("-", Source::word);
    debug!(%asker, name = %question.query.name(), kind = %question.query.query_type(), outcome = outcome.word(), cache, "DNS query");
    outcome.count_since(since);
}

fn unanswered_as_failure(question: &Question, unanswered: &Unanswered) -> Vec<u8> {
    let extended = match unanswered {
        Unanswered::NoServer | Unanswered::Refused | Unanswered::Silent => Extended::NoReachableAuthority,
        Unanswered::Network(_) => Extended::NetworkError,
        Unanswered::TooMany => Extended::Other,
    };
    answer::failed(question, extended, &unanswered.to_string())
}
