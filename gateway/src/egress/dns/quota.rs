//! How many of something one asker, and all together, may have open.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A counter with two bounds. Its map has an entry only for who has something open, so that it is bounded too.
#[derive(Debug)]
pub(super) struct Quota {
    all: usize,
    each: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_asker: HashMap<IpAddr, usize>,
}

/// One thing open, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    quota: Arc<Quota>,
    asker: IpAddr,
}

impl Quota {
    pub(super) fn new(all: usize, each: usize) -> Arc<Self> {
        Arc::new(Self { all, each, taken: Mutex::default() })
    }

    /// `None` when either bound is reached.
    pub(super) fn take(self: &Arc<Self>, asker: IpAddr) -> Option<Turn> {
        let mut taken = self.lock();
        if taken.all >= self.all || taken.by_asker.get(&asker).is_some_and(|own| *own >= self.each) {
            return None;
        }
        taken.all += 1;
        *taken.by_asker.entry(asker).or_default() += 1;
        Some(Turn { quota: Arc::clone(self), asker })
    }

    /// A panic elsewhere cannot leave the counts half-written.
    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut taken = self.quota.lock();
        taken.all -= 1;
        if let Some(own) = taken.by_asker.get_mut(&self.asker) {
            *own -= 1;
            if *own == 0 {
                taken.by_asker.remove(&self.asker);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_bounds_hold_and_nothing_is_kept() {
        let quota = Quota::new(3, 2);
        let [a, b] = ["198.18.0.1", "198.18.0.2"].map(|text| text.parse::<IpAddr>().unwrap());
        let own = [quota.take(a).unwrap(), quota.take(a).unwrap()];
        assert!(quota.take(a).is_none(), "a's own bound");
        let other = quota.take(b).unwrap();
        assert!(quota.take(b).is_none(), "everybody's bound");
        drop((own, other));
        assert!(quota.lock().by_asker.is_empty() && quota.lock().all == 0);
    }
}
