//! Numbers that are never used twice, whatever becomes of the daemon: reserved in the store by the block, given out from
//! memory. A crash loses what is left of a block, and nothing else.

use crate::store::{Change, Counters, Store, StoreError};

/// Numbers reserved at a time; of 2³², that is enough for a million starts.
const BLOCK: u32 = 4_096;

/// Numbers that must be left before a change begins.
const ENOUGH: u32 = 1_024;

/// The numbers that may be given out.
#[derive(Debug)]
pub(crate) struct Numbers {
    pub(crate) next: Counters,
    reserved: Counters,
}

impl Numbers {
    /// Reserves the first block.
    pub(crate) fn reserve(store: &Store) -> Result<Self, StoreError> {
        let next = store.contents().counters;
        let mut numbers = Self { next, reserved: next };
        numbers.top_up(store)?;
        Ok(numbers)
    }

    /// Sees to it that there are enough for one change.
    pub(crate) fn top_up(&mut self, store: &Store) -> Result<(), StoreError> {
        let left = [
            self.reserved.workload.saturating_sub(self.next.workload),
            self.reserved.policy.saturating_sub(self.next.policy),
            self.reserved.tables.saturating_sub(self.next.tables),
        ];
        if left.into_iter().all(|left| left >= ENOUGH) {
            return Ok(());
        }
        let more = |number: u32| number.saturating_add(BLOCK);
        let reserved = Counters {
            workload: more(self.next.workload),
            policy: more(self.next.policy),
            tables: more(self.next.tables),
        };
        store.commit(&[Change::Count(reserved)])?;
        self.reserved = reserved;
        Ok(())
    }
}
