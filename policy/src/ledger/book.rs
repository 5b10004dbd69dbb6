//! What one workload resolved.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use config::names::DnsName;

use super::RECENT;
use super::slots::Slots;
use crate::tables::NameId;

/// One workload's addresses with their names, and its last lookups that opened nothing.
#[derive(Clone, Debug, Default)]
pub(super) struct Book {
    held: BTreeMap<IpAddr, Held>,
    by_expiry: BTreeSet<(u64, IpAddr, NameId)>,
    recent: VecDeque<Recent>,
}

#[derive(Clone, Debug, Default)]
struct Held {
    names: BTreeMap<NameId, u64>,
    slots: Slots,
}

#[derive(Clone, Debug)]
struct Recent {
    name: DnsName,
    address: IpAddr,
    expires: u64,
}

impl Book {
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty() && self.recent.is_empty()
    }

    pub(super) fn addresses(&self) -> usize {
        self.held.len()
    }

    pub(super) fn pairs(&self) -> usize {
        self.by_expiry.len()
    }

    pub(super) fn holds(&self, address: IpAddr) -> bool {
        self.held.contains_key(&address)
    }

    pub(super) fn held(&self) -> impl Iterator<Item = IpAddr> {
        self.held.keys().copied()
    }

    pub(super) fn expiry(&self, address: IpAddr, name: NameId) -> Option<u64> {
        self.held.get(&address)?.names.get(&name).copied()
    }

    pub(super) fn names_at(&self, address: IpAddr) -> impl Iterator<Item = (NameId, u64)> {
        self.held.get(&address).into_iter().flat_map(|held| &held.names).map(|(name, expires)| (*name, *expires))
    }

    /// One item for each reference to a name.
    pub(super) fn names(&self) -> impl Iterator<Item = NameId> {
        self.by_expiry.iter().map(|(_, _, name)| *name)
    }

    pub(super) fn listing(&self) -> impl Iterator<Item = (IpAddr, NameId, u64)> {
        self.held
            .iter()
            .flat_map(|(address, held)| held.names.iter().map(|(name, expires)| (*address, *name, *expires)))
    }

    /// Sets a name's expiry; whether the name is new at this address.
    pub(super) fn put(&mut self, address: IpAddr, name: NameId, expires: u64) -> bool {
        let before = self.held.entry(address).or_default().names.insert(name, expires);
        if let Some(before) = before {
            self.by_expiry.remove(&(before, address, name));
        }
        self.by_expiry.insert((expires, address, name));
        before.is_none()
    }

    /// Takes a name from an address; whether the address is gone with it.
    pub(super) fn take(&mut self, address: IpAddr, name: NameId) -> bool {
        let Some(held) = self.held.get_mut(&address) else { return false };
        if let Some(expires) = held.names.remove(&name) {
            self.by_expiry.remove(&(expires, address, name));
        }
        let left: Vec<_> = held.slots.into_iter().flatten().filter(|slot| slot.name != name).collect();
        held.slots = super::slots::from_sorted(&left);
        if held.names.is_empty() {
            self.held.remove(&address);
            return true;
        }
        false
    }

    /// The pair that expires first, if that is not after `horizon`.
    pub(super) fn first_expired(&self, horizon: u64) -> Option<(IpAddr, NameId)> {
        self.by_expiry.first().filter(|(expires, _, _)| *expires <= horizon).map(|(_, address, name)| (*address, *name))
    }

    pub(super) fn slots(&self, address: IpAddr) -> Option<Slots> {
        self.held.get(&address).map(|held| held.slots)
    }

    /// Whether that is a change.
    pub(super) fn set_slots(&mut self, address: IpAddr, slots: Slots) -> bool {
        let Some(held) = self.held.get_mut(&address) else { return false };
        std::mem::replace(&mut held.slots, slots) != slots
    }

    /// Notes a lookup that opened nothing; the oldest of more than [`RECENT`] goes.
    pub(super) fn remember(&mut self, name: &DnsName, address: IpAddr, expires: u64) {
        self.recent.retain(|known| known.address != address || known.name != *name);
        if self.recent.len() >= RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(Recent { name: name.clone(), address, expires });
    }

    pub(super) fn recent(&self) -> impl Iterator<Item = (&DnsName, IpAddr, u64)> {
        self.recent.iter().map(|known| (&known.name, known.address, known.expires))
    }

    pub(super) fn recent_at(&self, address: IpAddr) -> impl Iterator<Item = (&DnsName, u64)> {
        self.recent().filter(move |(_, own, _)| *own == address).map(|(name, _, expires)| (name, expires))
    }

    /// Takes out the recent lookups of these names.
    pub(super) fn take_recent(&mut self, mut wanted: impl FnMut(&DnsName) -> bool) -> Vec<(DnsName, IpAddr, u64)> {
        let (taken, left): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.recent).into_iter().partition(|known| wanted(&known.name));
        self.recent = left;
        taken.into_iter().map(|known| (known.name, known.address, known.expires)).collect()
    }

    pub(super) fn forget_recent(&mut self, horizon: u64) {
        self.recent.retain(|known| known.expires > horizon);
    }
}
