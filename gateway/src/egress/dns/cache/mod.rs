//! Answers that are kept, for how long, and whose goes when there is no room. No clock, no socket, no lock.
//!
//! 1. A [`Key`] is a question within a [`View`], the servers that answer it: who asks other servers, or by another
//!    device, never sees these answers. What a client asked for in the header and its OPT record is part of it, so that
//!    an answer's flags, its OPT record and its signatures are what this client would have got.
//! 2. [`Cache::keep`] takes what came as long as its shortest TTL says, at most a day: answers, and by their SOA record
//!    also that there is none (RFC 2308); a failure for five seconds (RFC 9520). What has TTL 0 or is cut is not kept.
//! 3. [`Cache::look_up`] says how old it is ([`wire`] then takes that from the TTLs), and once in an entry's life that it
//!    is time to ask again: in its last tenth, if it was handed out twice.
//! 4. An entry belongs to the asker whose question brought it. When there is no room, whoever has most gives the entry
//!    that was not used for longest: random names of one workload push out its own, and leave each of n askers an n-th.
//!
//! Bytes are counted with keys, tables and what the allocator takes beside them, so that [`Cache::bytes`] is not less than
//! what is held, apart from one answer that is about to push out others, and from holes between allocations.

pub(super) mod wire;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::names::InterfaceName;
use config::upstream::Upstream;
use hickory_resolver::proto::op::Message;

use super::question::Question;
use super::upstream::{Response, Unanswered};

/// What a question came to, as it came.
pub(super) type Came = Result<Arc<[u8]>, Unanswered>;

/// Times that an entry is handed out before it is asked for again ahead of time.
const POPULAR: u32 = 2;
/// The last part of its life, in which that is done: one in so many.
const LAST_PART: u32 = 10;

/// What an allocation takes beside its bytes, reference counts included.
const ALLOCATION: usize = 32;
/// An entry without its name, servers, device, and answer. A hash table is at least 7/16 full once it has grown, and a B-tree half.
const ENTRY: usize = 3 * (size_of::<Arc<Key>>() + size_of::<Box<Entry>>() + 1)
    + 2 * size_of::<((IpAddr, u64), Arc<Key>)>()
    + size_of::<Key>()
    + size_of::<Entry>()
    + 6 * ALLOCATION;
/// An asker who has entries.
const HOLDER: usize = 2 * (size_of::<(IpAddr, usize)>() + size_of::<(usize, IpAddr)>()) + ALLOCATION;

/// Who is asked, and by which device; `None` is the node's own routes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct View {
    pub(super) servers: Arc<[Upstream]>,
    pub(super) device: Option<InterfaceName>,
    /// The device's number: one that was made anew under the same name may lead to another tenant.
    pub(super) link: u32,
}

/// A question whose answers are interchangeable, but for what [`reply`] changes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    view: View,
    /// As in a message, in lower case.
    name: Box<[u8]>,
    kind: u16,
    recursion_desired: bool,
    checking_disabled: bool,
    authentic_data: bool,
    /// Whether there was an OPT record, and its DO bit.
    dnssec_ok: Option<bool>,
}

/// A kept answer.
#[derive(Debug)]
pub(super) struct Hit {
    pub(super) came: Came,
    pub(super) age: Duration,
    /// To be asked again now, ahead of time. Said once in its life.
    pub(super) due: bool,
    /// For how long it is not to be asked again.
    pub(super) quiet: Duration,
}

/// The answers that are kept.
#[derive(Debug)]
pub(super) struct Cache {
    room: usize,
    used: usize,
    turn: u64,
    entries: HashMap<Arc<Key>, Box<Entry>>,
    /// The entries of each holder, those unused for longest first.
    unused: BTreeMap<(IpAddr, u64), Arc<Key>>,
    holders: BTreeMap<IpAddr, usize>,
    by_size: BTreeSet<(usize, IpAddr)>,
}

#[derive(Debug)]
struct Entry {
    came: Came,
    since: Instant,
    life: Duration,
    is_failure: bool,
    hits: u32,
    asked_ahead: bool,
    holder: IpAddr,
    /// When it was last used, in turns.
    used: u64,
    cost: usize,
}

impl View {
    /// A question for this view's servers.
    pub(super) fn key(self, question: &Question) -> Key {
        let mut name = wire::spelling(question.query.name());
        // Lengths are below 64, and no letters.
        name.make_ascii_lowercase();
        Key {
            view: self,
            name: name.into(),
            kind: question.query.query_type().into(),
            recursion_desired: question.recursion_desired,
            checking_disabled: question.checking_disabled,
            authentic_data: question.authentic_data,
            dnssec_ok: question.edns.map(|edns| edns.dnssec_ok),
        }
    }
}

impl Key {
    pub(super) fn view(&self) -> &View {
        &self.view
    }
}

/// What came `age` ago, for whoever asks this question: TTLs that are left, the client's spelling. The id is not touched.
pub(super) fn reply(came: Came, question: &Question, age: Duration) -> Result<Response, Unanswered> {
    let mut bytes = came?.to_vec();
    wire::hand_out(&mut bytes, &wire::spelling(question.query.name()), age);
    match Message::from_vec(&bytes) {
        Ok(message) => Ok(Response { message, bytes }),
        Err(error) => Err(Unanswered::Network(error.to_string())),
    }
}

impl Cache {
    /// `room` is in bytes.
    pub(super) fn new(room: usize) -> Self {
        Self {
            room,
            used: 0,
            turn: 0,
            entries: HashMap::new(),
            unused: BTreeMap::new(),
            holders: BTreeMap::new(),
            by_size: BTreeSet::new(),
        }
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.used
    }

    /// What is kept, unless its time is over. [`Hit::due`] only if the caller `may_ask_ahead`.
    pub(super) fn look_up(&mut self, key: &Key, now: Instant, may_ask_ahead: bool) -> Option<Hit> {
        let entry = self.entries.get_mut(key)?;
        if !entry.is_alive(now) {
            self.remove(key);
            return None;
        }
        let age = now.saturating_duration_since(entry.since);
        let quiet = (entry.life - entry.life / LAST_PART).saturating_sub(age);
        entry.hits = entry.hits.saturating_add(1);
        let due = may_ask_ahead && entry.hits >= POPULAR && !entry.asked_ahead && !entry.is_failure && quiet.is_zero();
        entry.asked_ahead |= due;
        self.turn += 1;
        if let Some(known) = self.unused.remove(&(entry.holder, entry.used)) {
            self.unused.insert((entry.holder, self.turn), known);
        }
        entry.used = self.turn;
        Some(Hit { came: entry.came.clone(), age, due, quiet })
    }

    /// Keeps what `asker`'s question came to, if it may be kept and there is room; answers how many others went for it.
    /// A failure does not replace an answer whose time is not over.
    pub(super) fn keep(&mut self, key: &Arc<Key>, asker: IpAddr, came: &Came, now: Instant) -> u64 {
        let Some(life) = life(came, key.kind) else { return 0 };
        let is_failure = came.as_ref().map_or(true, |bytes| wire::is_failure(bytes));
        if is_failure && self.entries.get(key).is_some_and(|entry| entry.is_alive(now)) {
            return 0;
        }
        self.remove(key);
        let cost = cost(key, came);
        if cost + HOLDER > self.room {
            return 0;
        }
        self.turn += 1;
        let entry = Entry {
            came: came.clone(),
            since: now,
            life,
            is_failure,
            hits: 0,
            asked_ahead: false,
            holder: asker,
            used: self.turn,
            cost,
        };
        self.entries.insert(Arc::clone(key), Box::new(entry));
        self.unused.insert((asker, self.turn), Arc::clone(key));
        self.hold(asker, self.holders.get(&asker).copied().unwrap_or(HOLDER) + cost);
        let mut evicted = 0;
        while self.used > self.room && self.evict() {
            evicted += 1;
        }
        evicted
    }

    /// The entry that was not used for longest goes, of the holder who has most.
    fn evict(&mut self) -> bool {
        let oldest = self.by_size.last().and_then(|(_, most)| self.unused.range((*most, 0)..).next());
        let Some(key) = oldest.map(|(_, key)| Arc::clone(key)) else { return false };
        self.remove(&key);
        true
    }

    fn remove(&mut self, key: &Key) {
        let Some(entry) = self.entries.remove(key) else { return };
        self.unused.remove(&(entry.holder, entry.used));
        let held = self.holders.get(&entry.holder).copied().unwrap_or(HOLDER);
        self.hold(entry.holder, held.saturating_sub(entry.cost));
    }

    /// Notes what `asker` has now; one who has no entry is forgotten.
    fn hold(&mut self, asker: IpAddr, bytes: usize) {
        if let Some(before) = self.holders.remove(&asker) {
            self.by_size.remove(&(before, asker));
            self.used -= before;
        }
        if bytes > HOLDER {
            self.holders.insert(asker, bytes);
            self.by_size.insert((bytes, asker));
            self.used += bytes;
        }
    }
}

impl Entry {
    fn is_alive(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) < self.life
    }
}

fn life(came: &Came, kind: u16) -> Option<Duration> {
    match came {
        Ok(bytes) => wire::life(bytes, kind),
        // That costs nobody anything.
        Err(Unanswered::NoServer | Unanswered::TooMany) => None,
        Err(Unanswered::Refused | Unanswered::Silent | Unanswered::Network(_)) => Some(wire::FAILURE),
    }
}

fn cost(key: &Key, came: &Came) -> usize {
    let servers = size_of_val(&*key.view.servers);
    let device = key.view.device.as_ref().map_or(0, |device| device.as_str().len());
    let answer = match came {
        Ok(bytes) => bytes.len(),
        Err(Unanswered::Network(text)) => text.len(),
        Err(Unanswered::NoServer | Unanswered::Refused | Unanswered::Silent | Unanswered::TooMany) => 0,
    };
    ENTRY + key.name.len() + servers + device + answer
}
