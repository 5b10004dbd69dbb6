//! The way to an answer: what is kept, else one question upstream for everybody who asks it at the time.
//!
//! Owns one lock, around the [`Cache`] and the map of open questions. The map has at most one entry for each admitted query
//! and for each of the [`AHEAD`] that are asked ahead of time. A question's task is its own: askers wait for it by a
//! watch, and one who gives up takes it from nobody.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use config::names::InterfaceName;
use tokio::sync::watch;

use super::cache::{Cache, Came, Key, View, reply};
use super::question::Question;
use super::upstream::{Response, Unanswered, Upstream};
use crate::sys::interface;
use crate::telemetry::metrics;

/// Questions asked ahead of time at one time.
const AHEAD: usize = 64;

/// Kept answers, open questions, and the servers behind them.
#[derive(Debug)]
pub(super) struct Lookups {
    upstream: Upstream,
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
    /// `room` is in bytes; with 0 nothing is kept and nothing shared.
    pub(super) fn new(room: usize) -> Arc<Self> {
        let known = || Mutex::new(Known { cache: Cache::new(room), open: HashMap::new(), ahead: 0 });
        Arc::new(Self { upstream: Upstream::default(), known: (room > 0).then(known) })
    }

    /// The answer to `asker`'s question by these servers, as old as it may be. For the node's runtime, in its namespace.
    pub(super) async fn ask(
        self: &Arc<Self>,
        asker: IpAddr,
        question: &Question,
        servers: Arc<[SocketAddr]>,
        device: Option<InterfaceName>,
    ) -> (Result<Response, Unanswered>, Source) {
        let Some(known) = &self.known else {
            let answer = self.upstream.ask(question, &servers, device.as_ref()).await;
            return (answer, Source::Upstream);
        };
        let link = device.as_ref().and_then(|device| interface::index(device.as_str()).ok()).unwrap_or(0);
        let key = Arc::new(View { servers, device, link }.key(question));
        let (source, landed) = match self.find(known, asker, question, &key) {
            Found::Kept { came, since } => (Source::Cache, Some(Landed { came, at: since })),
            Found::Open(source, mut landing) => {
                let landed = landing.wait_for(Option::is_some).await;
                (source, landed.ok().and_then(|landed| landed.clone()))
            }
        };
        metrics::dns_cache_lookup(source.word());
        let Some(Landed { came, at }) = landed else {
            return (Err(Unanswered::Network("the question was given up".to_owned())), source);
        };
        (reply(came, question, at.elapsed()), source)
    }

    fn find(self: &Arc<Self>, known: &Mutex<Known>, asker: IpAddr, question: &Question, key: &Arc<Key>) -> Found {
        let known = &mut *lock(known);
        let now = Instant::now();
        let may_ask_ahead = known.ahead < AHEAD && !known.open.contains_key(key);
        if let Some(hit) = known.cache.look_up(key, now, may_ask_ahead) {
            if hit.due {
                known.ahead += 1;
                metrics::dns_cache_prefetch();
                self.begin(known, asker, question, key, true);
            }
            return Found::Kept { came: hit.came, since: now.checked_sub(hit.age).unwrap_or(now) };
        }
        match known.open.get(key) {
            Some(landing) => Found::Open(Source::Joined, landing.clone()),
            None => Found::Open(Source::Upstream, self.begin(known, asker, question, key, false)),
        }
    }

    fn begin(
        self: &Arc<Self>,
        known: &mut Known,
        asker: IpAddr,
        question: &Question,
        key: &Arc<Key>,
        ahead: bool,
    ) -> watch::Receiver<Option<Landed>> {
        let (lands, landing) = watch::channel(None);
        known.open.insert(Arc::clone(key), landing.clone());
        let open = Open { lookups: Arc::clone(self), key: Arc::clone(key), ahead };
        let question = question.clone();
        tokio::spawn(async move {
            let landed = open.ask(asker, &question).await;
            drop(open);
            lands.send_replace(Some(landed));
        });
        landing
    }
}

enum Found {
    Kept { came: Came, since: Instant },
    Open(Source, watch::Receiver<Option<Landed>>),
}

/// An open question, until it is dropped: whatever its end, nobody joins it then.
struct Open {
    lookups: Arc<Lookups>,
    key: Arc<Key>,
    ahead: bool,
}

impl Open {
    /// Asks the servers and keeps what comes.
    async fn ask(&self, asker: IpAddr, question: &Question) -> Landed {
        let View { servers, device, .. } = self.key.view();
        let answer = self.lookups.upstream.ask(question, servers, device.as_ref()).await;
        let came: Came = answer.map(|response| response.bytes.into());
        let at = Instant::now();
        if let Some(known) = &self.lookups.known {
            let known = &mut *lock(known);
            let evicted = known.cache.keep(&self.key, asker, &came, at);
            metrics::dns_cache_evictions(evicted);
            metrics::dns_cache_bytes(known.cache.bytes() as u64);
        }
        Landed { came, at }
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
