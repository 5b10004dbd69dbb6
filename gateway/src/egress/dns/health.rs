//! How upstream servers did lately: which of them are asked first, and what `status` says of them. Time is an argument.
//!
//! Owns one lock, around a map of at most [`REMEMBERED`] servers; when it is full, the one heard of longest ago goes. A
//! server that fails is asked last for [`AVOIDED`], and then in its turn again, so that one that is well again is found. A
//! query that times out while others are answered is that name's fault, not the server's: no workload can make a server
//! that answers look dead.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use config::names::InterfaceName;
use config::upstream::Upstream;
use tokio::time::Instant;

/// How long a server that failed is asked last.
const AVOIDED: Duration = Duration::from_secs(10);
/// Least time between two warnings about one server.
const QUIET: Duration = Duration::from_secs(60);
/// How long a server that does not keep a name's spelling gets names as they are.
const PLAIN: Duration = Duration::from_secs(3600);
/// Servers remembered.
const REMEMBERED: usize = 256;
/// A server that failed so often without an answer between is taken to be away: one failure may be a name's.
const AWAY: u64 = 3;

/// A server, and the device it is reached by: tenants' servers may have the same address.
pub(super) type Server = (Upstream, Option<InterfaceName>);

/// What is known of servers. A clone is the same.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Mutex<HashMap<Server, Record>>>);

#[derive(Clone, Debug, Default)]
struct Record {
    answered: Option<Instant>,
    failing: Option<Failing>,
    warned: Option<Instant>,
    /// Since when it is known not to keep spellings.
    respells: Option<Instant>,
}

/// Questions that a server did not answer, one after another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failing {
    /// The first of them.
    pub since: Instant,
    /// The last.
    pub last: Instant,
    /// How many there were.
    pub times: u64,
    /// What went wrong with the last.
    pub why: String,
}

/// How a server did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Which.
    pub upstream: Upstream,
    /// The device it is reached by; `None` is the node's own routes.
    pub device: Option<InterfaceName>,
    /// Its last answer.
    pub answered: Option<Instant>,
    /// `None` while it answers.
    pub failing: Option<Failing>,
}

/// What somebody should be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Nothing,
    /// It did not answer, and that was not said lately.
    Fails,
    /// It had failed, and answers.
    AnswersAgain,
}

impl Failing {
    /// Whether the server is taken to be away.
    pub const fn is_away(&self) -> bool {
        self.times >= AWAY
    }
}

impl Health {
    /// All that were asked, by address.
    pub fn seen(&self) -> Vec<Seen> {
        let known = self.lock();
        let mut seen: Vec<Seen> = known
            .iter()
            .map(|((upstream, device), record)| Seen {
                upstream: upstream.clone(),
                device: device.clone(),
                answered: record.answered,
                failing: record.failing.clone(),
            })
            .collect();
        drop(known);
        seen.sort_by(|one, other| (&one.upstream, &one.device).cmp(&(&other.upstream, &other.device)));
        seen
    }

    /// The servers in order, those that failed lately last.
    pub(super) fn ordered(&self, servers: &[Upstream], device: Option<&InterfaceName>, now: Instant) -> Vec<Server> {
        let known = self.lock();
        let all = servers.iter().map(|server| (server.clone(), device.cloned()));
        let (well, ill): (Vec<Server>, Vec<Server>) = all.partition(|server| {
            let failing = known.get(server).and_then(|record| record.failing.as_ref());
            failing.is_none_or(|failing| now.saturating_duration_since(failing.last) > AVOIDED)
        });
        well.into_iter().chain(ill).collect()
    }

    pub(super) fn note_answer(&self, server: &Server, now: Instant) -> Told {
        let mut known = self.lock();
        let record = entry(&mut known, server);
        record.answered = Some(now);
        if record.failing.take().is_some() { Told::AnswersAgain } else { Told::Nothing }
    }

    /// It did not answer what it was asked at `start`.
    pub(super) fn note_failure(&self, server: &Server, start: Instant, now: Instant, why: &str) -> Told {
        let mut known = self.lock();
        let record = entry(&mut known, server);
        if record.answered.is_some_and(|answered| answered >= start) {
            return Told::Nothing;
        }
        let before = record.failing.take();
        record.failing = Some(Failing {
            since: before.as_ref().map_or(start, |failing| failing.since),
            last: now,
            times: before.map_or(0, |failing| failing.times).saturating_add(1),
            why: why.to_owned(),
        });
        if record.warned.is_some_and(|warned| now.saturating_duration_since(warned) <= QUIET) {
            return Told::Nothing;
        }
        record.warned = Some(now);
        Told::Fails
    }

    /// It does not keep the spelling of names.
    pub(super) fn note_respelling(&self, server: &Server, now: Instant) {
        entry(&mut self.lock(), server).respells = Some(now);
    }

    /// Whether it may be expected to keep it.
    pub(super) fn keeps_spelling(&self, server: &Server, now: Instant) -> bool {
        let respells = self.lock().get(server).and_then(|record| record.respells);
        respells.is_none_or(|since| now.saturating_duration_since(since) > PLAIN)
    }

    /// A panic elsewhere cannot leave the map half-written.
    fn lock(&self) -> MutexGuard<'_, HashMap<Server, Record>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn entry<'a>(all: &'a mut HashMap<Server, Record>, server: &Server) -> &'a mut Record {
    let heard_of = |record: &Record| record.answered.max(record.failing.as_ref().map(|failing| failing.last));
    if all.len() >= REMEMBERED
        && !all.contains_key(server)
        && let Some(oldest) = all.iter().min_by_key(|(_, record)| heard_of(record)).map(|(server, _)| server.clone())
    {
        all.remove(&oldest);
    }
    all.entry(server.clone()).or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> Upstream {
        Upstream::plain(([192, 0, 2, last]).into())
    }

    fn order(health: &Health, now: Instant) -> Vec<u8> {
        let servers = [address(1), address(2), address(3)];
        let ordered = health.ordered(&servers, None, now);
        ordered
            .iter()
            .map(|(server, _)| match server.address.ip() {
                std::net::IpAddr::V4(v4) => v4.octets()[3],
                std::net::IpAddr::V6(_) => 0,
            })
            .collect()
    }

    #[test]
    fn who_is_ill_is_asked_last_and_comes_back() {
        let (health, begin) = (Health::default(), Instant::now());
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        let first = (address(1), None);
        assert_eq!(order(&health, at(0)), [1, 2, 3]);
        assert_eq!(health.note_failure(&first, at(0), at(1), "request timed out"), Told::Fails);
        assert_eq!(order(&health, at(2)), [2, 3, 1]);
        assert_eq!(order(&health, at(11)), [2, 3, 1]);
        assert_eq!(order(&health, at(12)), [1, 2, 3], "in its turn again");
        assert_eq!(health.note_failure(&first, at(12), at(13), "no route"), Told::Nothing, "said a moment ago");
        assert_eq!(order(&health, at(14)), [2, 3, 1]);
        let failing = |health: &Health| health.seen().into_iter().find_map(|seen| seen.failing);
        let expected = Failing { since: at(0), last: at(13), times: 2, why: "no route".to_owned() };
        assert_eq!(failing(&health), Some(expected.clone()));
        assert!(!expected.is_away());
        assert_eq!(health.note_failure(&first, at(80), at(81), "no route"), Told::Fails);
        assert!(failing(&health).is_some_and(|failing| failing.is_away() && failing.since == at(0)));

        assert_eq!(health.note_answer(&first, at(82)), Told::AnswersAgain);
        assert_eq!(order(&health, at(82)), [1, 2, 3]);
        assert_eq!(health.note_answer(&first, at(83)), Told::Nothing);
        assert_eq!(failing(&health), None);
        assert_eq!(health.seen()[0].answered, Some(at(83)));
    }

    #[test]
    fn a_name_that_nobody_answers_is_not_the_servers_fault() {
        let (health, begin) = (Health::default(), Instant::now());
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        health.note_answer(&(address(1), None), at(5));
        assert_eq!(health.note_failure(&(address(1), None), at(3), at(7), "request timed out"), Told::Nothing);
        assert_eq!(order(&health, at(7)), [1, 2, 3]);
        let device = Some("tg-a".parse().unwrap());
        health.note_failure(&(address(1), device), at(5), at(7), "request timed out");
        assert_eq!(order(&health, at(7)), [1, 2, 3], "another server behind another device");
    }

    #[test]
    fn the_one_heard_of_longest_ago_is_forgotten() {
        let (health, begin) = (Health::default(), Instant::now());
        for number in 0..=256u16 {
            let server = (Upstream::from(std::net::SocketAddr::from(([10, 0, 0, 1], number))), None);
            health.note_answer(&server, begin + Duration::from_secs(number.into()));
        }
        let seen = health.seen();
        assert_eq!((seen.len(), seen[0].upstream.address.port()), (256, 1));
    }
}
