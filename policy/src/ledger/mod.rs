//! What each workload resolved: its own answers, until when they open something, and what of them the kernel holds.
//!
//! 1. A DNS answer is learned ([`Ledger::learn`]): every address of it gets the name, with an expiry.
//! 2. `slots` chooses what the kernel is told: an address has four slots, for one name of each class first.
//! 3. The caller writes the [`Changes`], for every name in a slot also its class under the workload's policy
//!    ([`crate::Compiled::name_class`]) before the slot, and only then lets the answer go. If a write fails it says so
//!    ([`Ledger::failed`]) and answers SERVFAIL; the next change brings the write again.
//! 4. [`Ledger::sweep`] takes away what has long expired. An expired name stays a while ([`LINGER`]): it opens nothing,
//!    and lets a drop say that it was a name whose time is over.
//! 5. `names` numbers the names. A number is free again only when no address and no flow of the kernel has it
//!    ([`Ledger::idle_names`], [`Ledger::release`]).
//!
//! **Expiry.** A name opens an address for `max(ttl, `[`MINIMUM_TTL`]`) + `[`GRACE`]: applications and their resolvers keep
//! answers a little longer than the TTL says, and a connection follows its lookup late. TTLs count up to [`MAXIMUM_TTL`];
//! the server should lower them to it in its answers. Looking up again prolongs, never shortens.
//!
//! **Bounds**, all in [`Limits`]. Whatever is full, nothing is opened and nothing live is taken away:
//! - addresses, and pairs of name and address, of one workload; addresses of the node; names of the node: learning is
//!   refused ([`LearnError`]) after what has expired of this workload was given up;
//! - names of one address: one that another name of its class outlives goes first, else the soonest to expire (counted);
//! - lookups that opened nothing: the last [`RECENT`] of each workload are kept, so that a policy applied a moment later
//!   finds them ([`Ledger::reslot`]) and `explain` can name them.
//!
//! A workload that looks up any number of names of one wildcard at one address holds [`Limits::names_per_address`] of
//! them; one whose name rotates through any number of addresses holds those that have not expired.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use config::names::DnsName;

use self::book::Book;
pub use self::bounds::{Counters, Fill, GRACE, LINGER, LearnError, Limits, MAXIMUM_TTL, MINIMUM_TTL, RECENT};
use self::names::NameTable;
pub use self::slots::{SLOTS, Slot, Slots};
use crate::decide::Resolved;
use crate::tables::NameId;

mod book;
mod bounds;
mod names;
mod record;
mod slots;

const SECOND: u64 = 1_000_000_000;

/// What the kernel is to be told, in this order: removals (they make room), names, slots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Addresses of which nothing is known any more, or nothing that opens them.
    pub removed: Vec<(u32, IpAddr)>,
    /// Names that slots will mention.
    pub names: Vec<(NameId, DnsName)>,
    /// Slots of an address, all of them.
    pub slots: Vec<SlotWrite>,
}

/// The slots of one address of one workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotWrite {
    /// The workload's number.
    pub workload: u32,
    /// The address that its lookups gave.
    pub address: IpAddr,
    /// By expiry, the latest first.
    pub slots: Slots,
}

/// Everything that is learned by DNS on this node. Times are CLOCK_BOOTTIME in nanoseconds.
#[derive(Clone, Debug)]
pub struct Ledger {
    limits: Limits,
    books: BTreeMap<u32, Book>,
    names: NameTable,
    addresses: usize,
    /// Addresses whose slots, or whose absence, the kernel does not know yet. Bounded by the addresses: what is removed
    /// and cannot be deleted stays here until it can.
    pending: BTreeSet<(u32, IpAddr)>,
    counters: Counters,
}

impl Ledger {
    /// Nothing is known.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            books: BTreeMap::new(),
            names: NameTable::default(),
            addresses: 0,
            pending: BTreeSet::new(),
            counters: Counters::default(),
        }
    }

    /// What the kernel's tables hold, after a restart. Slots with a number that has no name, and what is beyond the
    /// bounds, are given up: the next [`Ledger::sweep`] brings the writes.
    pub fn restore(
        limits: Limits,
        names: impl IntoIterator<Item = (NameId, DnsName)>,
        learned: impl IntoIterator<Item = (u32, IpAddr, Slots)>,
    ) -> Self {
        let mut ledger = Self::new(limits);
        ledger.names = names.into_iter().filter(|(id, _)| id.0 != 0).collect();
        for (workload, address, slots) in learned {
            let known: Vec<Slot> = slots.into_iter().flatten().filter(|slot| ledger.names.has(slot.name)).collect();
            let book = ledger.books.entry(workload).or_default();
            let room = ledger.addresses < limits.addresses
                && book.addresses() < limits.addresses_per_workload
                && book.pairs() + known.len() <= limits.pairs_per_workload;
            if known.len() < slots.iter().flatten().count() || !room || known.is_empty() {
                ledger.pending.insert((workload, address));
            }
            if room && !known.is_empty() {
                ledger.addresses += 1;
                for slot in &known {
                    if book.put(address, slot.name, slot.expires_ns) {
                        ledger.names.refer(slot.name);
                    }
                }
                book.set_slots(address, slots::from_sorted(&known));
            }
        }
        ledger.books.retain(|_, book| !book.is_empty());
        ledger
    }

    /// A workload got an answer: addresses with their TTLs in seconds. `class_of` says which class a name has for this
    /// workload's policy, if it opens anything there; one that does not is only remembered as a recent lookup.
    ///
    /// All of the answer is learned or, on an error, nothing of it.
    pub fn learn<C: Ord>(
        &mut self,
        now: u64,
        workload: u32,
        name: &DnsName,
        answers: &[(IpAddr, u32)],
        mut class_of: impl FnMut(&DnsName) -> Option<C>,
    ) -> Result<Changes, LearnError> {
        let answers = record::latest(now, answers);
        if class_of(name).is_none() {
            let book = self.books.entry(workload).or_default();
            answers.into_iter().for_each(|(address, expires)| book.remember(name, address, expires));
            return Ok(self.drain(Some(workload)));
        }
        if let Err(error) = self.record(now, workload, name, &answers, &mut class_of) {
            self.counters.refused += 1;
            return Err(error);
        }
        Ok(self.drain(Some(workload)))
    }

    /// The workload has another policy: choose its slots again, and take in recent lookups that now open something.
    /// For a change without a gap call this before the switch with pairs of the old and the new class, then after it with
    /// the new class.
    pub fn reslot<C: Ord>(
        &mut self,
        now: u64,
        workload: u32,
        mut class_of: impl FnMut(&DnsName) -> Option<C>,
    ) -> Changes {
        let Some(book) = self.books.get_mut(&workload) else { return Changes::default() };
        for (name, address, expires) in book.take_recent(|name| class_of(name).is_some()) {
            if now < expires
                && self.record(now, workload, &name, &BTreeMap::from([(address, expires)]), &mut class_of).is_err()
            {
                self.counters.refused += 1;
            }
        }
        let held: Vec<IpAddr> = self.books.get(&workload).into_iter().flat_map(Book::held).collect();
        for address in held {
            self.settle(now, workload, address, None, &mut class_of);
        }
        self.drain(Some(workload))
    }

    /// Forgets what expired [`LINGER`] ago, and brings every write that failed before.
    pub fn sweep(&mut self, now: u64) -> Changes {
        let horizon = now.saturating_sub(u64::from(LINGER) * SECOND);
        let workloads: Vec<u32> = self.books.keys().copied().collect();
        for workload in workloads {
            while self.expire_one(workload, horizon) {}
        }
        self.books.retain(|_, book| {
            book.forget_recent(horizon);
            !book.is_empty()
        });
        self.drain(None)
    }

    /// The workload is gone.
    pub fn forget(&mut self, workload: u32) -> Changes {
        if let Some(book) = self.books.remove(&workload) {
            self.addresses -= book.addresses();
            book.names().for_each(|name| self.names.drop_reference(name));
            self.pending.extend(book.held().map(|address| (workload, address)));
        }
        self.drain(Some(workload))
    }

    /// These changes did not reach the kernel; later ones bring them again.
    pub fn failed(&mut self, changes: &Changes) {
        changes.names.iter().for_each(|(id, _)| self.names.unwritten(*id));
        self.pending.extend(changes.slots.iter().map(|write| (write.workload, write.address)));
        self.pending.extend(&changes.removed);
    }

    /// The number of a name that a flow is about to have, whether any address has it or not, and its text if the kernel has
    /// none for that number yet. It is not released before it is [given back](Ledger::give_back).
    pub fn lend(&mut self, name: &DnsName) -> Result<(NameId, Option<DnsName>), LearnError> {
        if self.names.id(name).is_none() && self.names.len() >= self.limits.names {
            return Err(LearnError::Names(self.names.len()));
        }
        let id = self.names.number(name);
        self.names.refer(id);
        Ok((id, self.names.take_unwritten(id)))
    }

    /// A number that was lent: from now on a flow of the kernel has it, or nobody.
    pub fn give_back(&mut self, id: NameId) {
        self.names.drop_reference(id);
    }

    /// The kernel lacks the text of this number, though it was handed out.
    pub fn unwritten(&mut self, id: NameId) {
        self.names.unwritten(id);
    }

    /// Names that no address has any more. Flows of the kernel may: look there *after* asking this and after the changes
    /// so far are written, then [`Ledger::release`] those that none has.
    pub fn idle_names(&self) -> Vec<NameId> {
        self.names.idle().collect()
    }

    /// Frees the numbers of these names, as far as they are idle still; the kernel's entries of those returned are to be
    /// deleted.
    pub fn release(&mut self, names: impl IntoIterator<Item = NameId>) -> Vec<NameId> {
        names.into_iter().filter(|name| self.names.release(*name)).collect()
    }

    /// The text of a name's number.
    pub fn name(&self, id: NameId) -> Option<&DnsName> {
        self.names.text(id)
    }

    /// All numbered names, those that only flows may still have included.
    pub fn names(&self) -> impl Iterator<Item = (NameId, &DnsName)> {
        self.names.all()
    }

    /// The workloads of which something is known.
    pub fn workloads(&self) -> impl Iterator<Item = u32> {
        self.books.keys().copied()
    }

    /// What one workload resolved to one address, expired and recent ones included: the latest expiry first, as in the
    /// kernel's slots.
    pub fn resolved(&self, workload: u32, address: IpAddr) -> Vec<Resolved> {
        let Some(book) = self.books.get(&workload) else { return Vec::new() };
        let mut resolved: Vec<Resolved> = book
            .names_at(address)
            .filter_map(|(name, expires)| Some(Resolved { name: self.names.text(name)?.clone(), expires }))
            .collect();
        resolved.extend(book.recent_at(address).map(|(name, expires)| Resolved { name: name.clone(), expires }));
        resolved.sort_by_key(|known| std::cmp::Reverse(known.expires));
        resolved
    }

    /// The addresses that one workload resolved a name to, with their expiry.
    pub fn addresses_of(&self, workload: u32, name: &DnsName) -> Vec<(IpAddr, u64)> {
        let Some(book) = self.books.get(&workload) else { return Vec::new() };
        let id = self.names.id(name);
        let held = book.listing().filter(|(_, held, _)| Some(*held) == id);
        let held = held.map(|(address, _, expires)| (address, expires));
        held.chain(book.recent().filter(|(own, _, _)| *own == name).map(|(_, address, expires)| (address, expires)))
            .collect()
    }

    /// Everything that opens, or opened, an address: workload, address, name, expiry.
    pub fn listing(&self) -> impl Iterator<Item = (u32, IpAddr, &DnsName, u64)> {
        self.books.iter().flat_map(|(workload, book)| {
            book.listing()
                .filter_map(|(address, name, expires)| Some((*workload, address, self.names.text(name)?, expires)))
        })
    }

    /// How much is known.
    pub fn fill(&self) -> Fill {
        Fill {
            workloads: self.books.len(),
            addresses: self.addresses,
            pairs: self.books.values().map(Book::pairs).sum(),
            names: self.names.len(),
            recent: self.books.values().map(|book| book.recent().count()).sum(),
        }
    }

    /// What went beyond a bound.
    pub fn counters(&self) -> Counters {
        self.counters
    }
}
