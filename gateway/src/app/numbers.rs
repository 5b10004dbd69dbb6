//! Numbers that are never used twice, whatever becomes of the daemon: reserved in the store by the block, given out from
//! memory. A crash loses what is left of a block, and nothing else.

use crate::store::{Change, Counters, Store, StoreError};

/// Numbers reserved at a time, beyond what is needed at once; of 2³², that is enough for a million starts.
const BLOCK: u32 = 4_096;

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
        numbers.top_up(store, 0, 0)?;
        Ok(numbers)
    }

    /// Sees to it that one change finds enough: a number of each kind, and of policies and tables as many as it may
    /// make.
    pub(crate) fn top_up(&mut self, store: &Store, policies: usize, tables: usize) -> Result<(), StoreError> {
        let [policies, tables] = [policies, tables].map(|needed| u32::try_from(needed).unwrap_or(u32::MAX).max(1));
        let left = |next: u32, reserved: u32, needed: u32| reserved.saturating_sub(next) >= needed;
        if left(self.next.workload, self.reserved.workload, 1)
            && left(self.next.policy, self.reserved.policy, policies)
            && left(self.next.tables, self.reserved.tables, tables)
        {
            return Ok(());
        }
        let more = |number: u32, needed: u32| number.saturating_add(needed).saturating_add(BLOCK);
        let reserved = Counters {
            workload: more(self.next.workload, 1),
            policy: more(self.next.policy, policies),
            tables: more(self.next.tables, tables),
        };
        store.commit(&[Change::Count(reserved)])?;
        self.reserved = reserved;
        Ok(())
    }
}
