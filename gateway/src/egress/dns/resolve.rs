//! One question from permission to answer, on the node's runtime.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use config::names::DnsName;
use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::RecordType;
use ipnetwork::{Ipv4Network, Ipv6Network};
use tokio::runtime::Handle;
use tracing::debug;

use super::answer::{self, Extended};
use super::edit::Cuts;
use super::health::Health;
use super::lookups::{Lookups, Source};
use super::outcome::Outcome;
use super::question::Question;
use super::quota::{Quota, Turn};
use super::rate::Rate;
use super::upstream::{Response, Unanswered};
use super::{Limits, Permit, Resolution, chain, edit};

/// What every listener shares.
pub(super) struct Resolver {
    node: Handle,
    resolution: Arc<dyn Resolution>,
    lookups: Arc<Lookups>,
    handles: (Ipv4Network, Ipv6Network),
    queries: Arc<Quota>,
    rate: Rate,
}

impl Resolver {
    pub(super) fn new(node: Handle, resolution: Arc<dyn Resolution>, limits: &Limits, queries: Arc<Quota>) -> Self {
        Self {
            node,
            resolution,
            lookups: Lookups::new(limits.cache, limits.lookups_per_second),
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

    /// Resolves on the node's runtime and calls `then` there with the answer, or with `None` where none is due.
    pub(super) fn start<F>(
        self: &Arc<Self>,
        asker: IpAddr,
        question: Question,
        turn: Turn,
        then: impl FnOnce(Question, Option<Vec<u8>>) -> F + Send + 'static,
    ) where
        F: Future<Output = ()> + Send,
    {
        let resolver = Arc::clone(self);
        self.node.spawn(async move {
            let start = Instant::now();
            let (answer, outcome, source) = resolver.resolve(asker, &question).await;
            let cache = source.map_or("-", Source::word);
            debug!(%asker, name = %question.query.name(), kind = %question.query.query_type(), outcome = outcome.word(), cache, "DNS query");
            outcome.count_since(start);
            then(question, answer).await;
            drop(turn);
        });
    }

    /// The answer, its outcome, and where it is from if it was looked up.
    async fn resolve(&self, asker: IpAddr, question: &Question) -> (Option<Vec<u8>>, Outcome, Option<Source>) {
        let Some(account) = self.resolution.account(asker) else { return (None, Outcome::UnknownAsker, None) };
        if !self.rate.take(account, 1, Instant::now()) {
            return (Some(self.held_back(account, question)), Outcome::RateLimited, None);
        }
        let kind = question.query.query_type();
        let permit = match &question.name {
            Some(name) => self.resolution.permit(asker, name, kind.into()),
            None => self.resolution.permit_unnamed(asker, kind.into()),
        };
        match permit {
            Permit::Unknown => (None, Outcome::UnknownAsker, None),
            Permit::Refused { why } => {
                (Some(answer::no_such_name(question, Extended::Prohibited, &why)), Outcome::Refused, None)
            }
            Permit::Allowed { upstreams, device } => {
                let (found, source) = self.lookups.ask((asker, account), question, upstreams, device).await;
                let (bytes, outcome) = match found {
                    Ok(response) => self.pass_on(asker, question, response),
                    Err(Unanswered::TooMany) => (self.held_back(account, question), Outcome::RateLimited),
                    Err(unanswered) => (unanswered_as_failure(question, &unanswered), Outcome::UpstreamFailed),
                };
                (Some(bytes), outcome, Some(source))
            }
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

fn unanswered_as_failure(question: &Question, unanswered: &Unanswered) -> Vec<u8> {
    let extended = match unanswered {
        Unanswered::NoServer | Unanswered::Refused | Unanswered::Silent => Extended::NoReachableAuthority,
        Unanswered::Network(_) => Extended::NetworkError,
        Unanswered::TooMany => Extended::Other,
    };
    answer::failed(question, extended, &unanswered.to_string())
}
