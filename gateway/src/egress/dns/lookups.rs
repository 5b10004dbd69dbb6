//! The way to an answer: what is kept, else one question upstream for everybody who asks it at the time.
//!
//! Owns one lock, around the [`Cache`] and the map of open questions. The map has at most one entry for each admitted query
//! and for each of the [`AHEAD`] that are asked ahead of time. Who asks first asks the servers, and the others wait for it by
//! a watch; should it give up, the next one asks in its place.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use config::names::InterfaceName;
use config::upstream::Upstream as Server;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::cache::{Cache, Came, Key, View, reply};
use super::health::Health;
use super::node_sockets::NodeSockets;
use super::question::Question;
use super::rate::{Rate, cost};
use super::upstream::{Response, Unanswered, Upstream};
use crate::telemetry::metrics;

/// Questions asked ahead of time at one time.
const AHEAD: usize = 64;

/// Kept answers, open questions, and the servers behind them.
#[derive(Debug)]
pub(super) struct Lookups {
    upstream: Upstream,
    rate: Rate,
    /// `None`: everything is asked upstream.
    known: Option<Mutex<Known>>,
}

#[derive(Debug)]
struct Known {
    cache: Cache,
    open: HashMap<Arc<Key>, watch::Receiver<Option<Landed>>>,
    ahead: usize,
}

/// What came, and when.
#[derive(Clone, Debug)]
struct Landed {
    came: Came,
    at: Instant,
}

/// Where an answer is from. The words are the metrics' and stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// It was kept.
    Cache,
    /// The servers were asked.
    Upstream,
    /// They were being asked already.
    Joined,
}

impl Source {
    /// The label `result`.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Cache => "hit",
            Self::Upstream => "miss",
            Self::Joined => "joined",
        }
    }
}

impl Lookups {
    /// `room` is in bytes; with 0 nothing is kept and nothing shared. `rate`: how often a second one workload makes servers
    /// be asked.
    pub(super) fn new(sockets: Arc<NodeSockets>, room: usize, rate: u32, tls_roots: PathBuf) -> Arc<Self> {
        let known = || Mutex::new(Known { cache: Cache::new(room), open: HashMap::new(), ahead: 0 });
        let upstream = Upstream::new(sockets, tls_roots);
        Arc::new(Self { upstream, rate: Rate::new(rate), known: (room > 0).then(known) })
    }

    pub(super) fn health(&self) -> Health {
        self.upstream.health.clone()
    }

    /// What is kept of these servers, if it is, and for how long it need not be asked for again; by the node's own routes,
    /// wherever it is called. What is to be asked ahead of time is asked by a task of `tasks`.
    pub(super) fn kept(
        self: &Arc<Self>,
        tasks: &Handle,
        asker: IpAddr,
        question: &Question,
        servers: &Arc<[Server]>,
    ) -> Option<(Result<Response, Unanswered>, Duration)> {
        let known = self.known.as_ref()?;
        let key = Arc::new(View { servers: Arc::clone(servers), device: None, link: 0 }.key(question));
        let (Landed { came, at }, ahead, quiet) = self.hit(&mut lock(known), &key)?;
        ask_ahead(tasks, ahead, asker, question);
        metrics::dns_cache_lookup(Source::Cache.word());
        Some((reply(came, question, at.elapsed()), quiet))
    }

    /// The answer to a workload's question by these servers, as old as it may be; the workload is its handle and its number.
    pub(super) async fn ask(
        self: &Arc<Self>,
        (asker, account): (IpAddr, u32),
        question: &Question,
        servers: Arc<[Server]>,
        device: Option<InterfaceName>,
    ) -> (Result<Response, Unanswered>, Source) {
        let Some(known) = &self.known else {
            if !self.affords(account, question) {
                return (Err(Unanswered::TooMany), Source::Upstream);
            }
            let answer = self.upstream.ask(question, &servers, device.as_ref()).await;
            return (answer, Source::Upstream);
        };
        let link = match &device {
            Some(device) => self.upstream.sockets.number_of(device.clone()).await.unwrap_or(0),
            None => 0,
        };
        let key = Arc::new(View { servers, device, link }.key(question));
        let (source, Landed { came, at }) = loop {
            match self.find(known, &key) {
                Found::Kept(landed, ahead) => {
                    ask_ahead(&Handle::current(), ahead, asker, question);
                    break (Source::Cache, landed);
                }
                Found::Joined(mut landing) => {
                    let landed = landing.wait_for(Option::is_some).await.map(|landed| landed.clone());
                    if let Ok(Some(landed)) = landed {
                        break (Source::Joined, landed);
                    }
                }
                Found::Nothing(_) if !self.affords(account, question) => {
                    return (Err(Unanswered::TooMany), Source::Upstream);
                }
                Found::Nothing(open) => {
                    metrics::dns_cache_lookup(Source::Upstream.word());
                    return (open.ask(asker, question).await, Source::Upstream);
                }
            }
        };
        metrics::dns_cache_lookup(source.word());
        (reply(came, question, at.elapsed()), source)
    }

    fn affords(&self, account: u32, question: &Question) -> bool {
        self.rate.take(account, cost(question), Instant::now())
    }

    fn find(self: &Arc<Self>, known: &Mutex<Known>, key: &Arc<Key>) -> Found {
        let known = &mut *lock(known);
        if let Some((landed, ahead, _)) = self.hit(known, key) {
            return Found::Kept(landed, ahead);
        }
        match known.open.get(key) {
            Some(landing) => Found::Joined(landing.clone()),
            None => Found::Nothing(self.open(known, key, false)),
        }
    }

    /// What is kept, the question that is to be asked, without waiting for it, so that it stays so, and how long none is.
    fn hit(self: &Arc<Self>, known: &mut Known, key: &Arc<Key>) -> Option<(Landed, Option<Open>, Duration)> {
        let now = Instant::now();
        let hit = known.cache.look_up(key, now, known.ahead < AHEAD)?;
        known.ahead += usize::from(hit.due);
        let ahead = hit.due.then(|| self.open(known, key, true));
        Some((Landed { came: hit.came, at: now.checked_sub(hit.age).unwrap_or(now) }, ahead, hit.quiet))
    }

    fn open(self: &Arc<Self>, known: &mut Known, key: &Arc<Key>, ahead: bool) -> Open {
        let (lands, landing) = watch::channel(None);
        known.open.insert(Arc::clone(key), landing);
        Open { lookups: Arc::clone(self), key: Arc::clone(key), ahead, lands }
    }
}

fn ask_ahead(tasks: &Handle, ahead: Option<Open>, asker: IpAddr, question: &Question) {
    if let Some(open) = ahead {
        metrics::dns_cache_prefetch();
        let question = question.clone();
        tasks.spawn(async move { open.ask(asker, &question).await });
    }
}

enum Found {
    /// The second is to be asked, without waiting for it.
    Kept(Landed, Option<Open>),
    Joined(watch::Receiver<Option<Landed>>),
    /// Now it is the caller's to ask.
    Nothing(Open),
}

/// An open question, until it is dropped (not under the lock): whatever its end, nobody joins it then.
struct Open {
    lookups: Arc<Lookups>,
    key: Arc<Key>,
    ahead: bool,
    lands: watch::Sender<Option<Landed>>,
}

impl Open {
    /// Asks the servers, keeps what comes, and tells those who wait.
    async fn ask(self, asker: IpAddr, question: &Question) -> Result<Response, Unanswered> {
        let View { servers, device, .. } = self.key.view();
        let answer = self.lookups.upstream.ask(question, servers, device.as_ref()).await;
        let came = answer.as_ref().map(|response| response.bytes.as_slice().into()).map_err(Clone::clone);
        let landed = Landed { came, at: Instant::now() };
        if let Some(known) = &self.lookups.known {
            let known = &mut *lock(known);
            let evicted = known.cache.keep(&self.key, asker, &landed.came, landed.at);
            if evicted > 0 {
                metrics::dns_cache_evictions(evicted);
            }
            metrics::dns_cache_bytes(known.cache.bytes() as u64);
        }
        self.lands.send_replace(Some(landed));
        answer
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(known) = &self.lookups.known {
            let known = &mut *lock(known);
            known.open.remove(&self.key);
            known.ahead -= usize::from(self.ahead);
        }
    }
}

/// A panic elsewhere leaves at worst an entry that is miscounted, and never one of another question.
fn lock(known: &Mutex<Known>) -> MutexGuard<'_, Known> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}
