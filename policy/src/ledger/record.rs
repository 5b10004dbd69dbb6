//! How an answer enters a workload's book, and how what has expired leaves it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use config::names::DnsName;

use super::slots::{self, Candidate, Slot};
use super::{Changes, GRACE, LearnError, Ledger, MAXIMUM_TTL, MINIMUM_TTL, SECOND, SlotWrite};
use crate::tables::NameId;

/// When each address of an answer expires.
pub(super) fn latest(now: u64, answers: &[(IpAddr, u32)]) -> BTreeMap<IpAddr, u64> {
    let mut expiries = BTreeMap::new();
    for &(address, ttl) in answers {
        let expires = now.saturating_add(u64::from(ttl.clamp(MINIMUM_TTL, MAXIMUM_TTL) + GRACE) * SECOND);
        let known = expiries.entry(address).or_insert(expires);
        *known = expires.max(*known);
    }
    expiries
}

impl Ledger {
    /// Takes in all addresses of a name, or none.
    pub(super) fn record<C: Ord>(
        &mut self,
        now: u64,
        workload: u32,
        name: &DnsName,
        answers: &BTreeMap<IpAddr, u64>,
        class_of: &mut impl FnMut(&DnsName) -> Option<C>,
    ) -> Result<(), LearnError> {
        if answers.is_empty() {
            return Ok(());
        }
        let known = self.names.id(name);
        if known.is_none() && self.names.len() >= self.limits.names {
            return Err(LearnError::Names(self.names.len()));
        }
        while let Err(error) = self.room(workload, known, answers) {
            if !self.expire_one(workload, now) {
                return Err(error);
            }
        }
        let id = known.unwrap_or_else(|| self.names.number(name));
        for (&address, &expires) in answers {
            let book = self.books.entry(workload).or_default();
            // A second later is not worth a write to the kernel: the grace is many.
            if book.expiry(address, id).is_some_and(|known| expires < known.saturating_add(SECOND)) {
                continue;
            }
            self.addresses += usize::from(!book.holds(address));
            if book.put(address, id, expires) {
                self.names.refer(id);
            }
            self.settle(now, workload, address, Some(id), class_of);
        }
        Ok(())
    }

    /// Whether the bounds of the workload and of the node have room for all of the answer.
    fn room(&self, workload: u32, name: Option<NameId>, answers: &BTreeMap<IpAddr, u64>) -> Result<(), LearnError> {
        let book = self.books.get(&workload);
        let (addresses, pairs) = book.map_or((0, 0), |book| (book.addresses(), book.pairs()));
        let known = |address: &IpAddr| book.is_some_and(|book| book.holds(*address));
        let paired =
            |address: &IpAddr| book.is_some_and(|book| name.is_some_and(|name| book.expiry(*address, name).is_some()));
        let new_addresses = answers.keys().filter(|address| !known(address)).count();
        let new_pairs = answers.keys().filter(|address| !paired(address)).count();
        if new_addresses > 0 && addresses + new_addresses > self.limits.addresses_per_workload {
            return Err(LearnError::WorkloadAddresses(addresses));
        }
        if new_pairs > 0 && pairs + new_pairs > self.limits.pairs_per_workload {
            return Err(LearnError::WorkloadPairs(pairs));
        }
        if new_addresses > 0 && self.addresses + new_addresses > self.limits.addresses {
            return Err(LearnError::Addresses(self.addresses));
        }
        Ok(())
    }

    /// Chooses an address's slots again, and keeps its names within their bound. First goes the soonest to expire of those
    /// that open nothing or that another name of their class outlives; if there is none, the soonest of all but the new.
    pub(super) fn settle<C: Ord>(
        &mut self,
        now: u64,
        workload: u32,
        address: IpAddr,
        new: Option<NameId>,
        class_of: &mut impl FnMut(&DnsName) -> Option<C>,
    ) {
        let Some(book) = self.books.get_mut(&workload) else { return };
        let mut class = |name| self.names.text(name).and_then(&mut *class_of);
        let mut names: Vec<Candidate<C>> = book
            .names_at(address)
            .map(|(name, expires_ns)| Candidate { class: class(name), slot: Slot { name, expires_ns } })
            .collect();
        let bound = self.limits.names_per_address.max(slots::SLOTS);
        while let Some(victim) = slots::victim(&mut names, bound, new) {
            let lost = victim.lasting && now < victim.slot.expires_ns;
            self.counters.names_dropped += u64::from(lost);
            book.take(address, victim.slot.name);
            self.names.drop_reference(victim.slot.name);
        }
        let (chosen, dropped) = slots::choose(now, names);
        self.counters.classes_dropped += dropped;
        if book.set_slots(address, chosen) {
            self.pending.insert((workload, address));
        }
    }

    /// Gives up the workload's pair that expired first, if that was not after `horizon`; whether there was one.
    pub(super) fn expire_one(&mut self, workload: u32, horizon: u64) -> bool {
        let Some(book) = self.books.get_mut(&workload) else { return false };
        let Some((address, name)) = book.first_expired(horizon) else { return false };
        let before = book.slots(address);
        let gone = book.take(address, name);
        self.addresses -= usize::from(gone);
        if gone || book.slots(address) != before {
            self.pending.insert((workload, address));
        }
        self.names.drop_reference(name);
        true
    }

    /// The writes that the kernel still lacks, of one workload or of all.
    pub(super) fn drain(&mut self, workload: Option<u32>) -> Changes {
        let lowest = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let highest = IpAddr::V6(Ipv6Addr::from(u128::MAX));
        let (first, last) = (workload.unwrap_or(0), workload.unwrap_or(u32::MAX));
        let due: Vec<(u32, IpAddr)> = self.pending.range((first, lowest)..=(last, highest)).copied().collect();
        let mut changes = Changes::default();
        for (workload, address) in due {
            self.pending.remove(&(workload, address));
            match self.books.get(&workload).and_then(|book| book.slots(address)) {
                Some(slots) if slots.iter().any(Option::is_some) => {
                    for slot in slots.iter().flatten() {
                        let text = self.names.take_unwritten(slot.name);
                        changes.names.extend(text.map(|text| (slot.name, text)));
                    }
                    changes.slots.push(SlotWrite { workload, address, slots });
                }
                Some(_) | None => changes.removed.push((workload, address)),
            }
        }
        changes
    }
}
