//! What the store keeps, and the changes to it. Pure.

use std::collections::BTreeMap;

use config::api::{ResourceName, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::workload::{Workload, WorkloadId};

/// Everything that is kept.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Contents {
    /// Counts commits, from 0 for a store that never had one.
    pub generation: u64,
    /// Numbers that must never be used twice.
    pub counters: Counters,
    /// The resources in their Kubernetes form, without `status`.
    pub resources: BTreeMap<ResourceName, Kept<Value>>,
    /// The attached workloads. Their addresses and handles are the leases.
    pub workloads: BTreeMap<WorkloadId, Kept<Workload>>,
}

/// The lowest number of each sort that was never given out. The first one given out is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// [`WorkloadId`]
    pub workload: u32,
    /// `policy::tables::PolicyId`
    pub policy: u32,
    /// The generation of the kernel's tables.
    pub tables: u32,
}

/// A value and when it first came.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kept<T> {
    /// When.
    pub created: Timestamp,
    /// What.
    pub value: T,
}

/// One change of a commit. Later ones win over earlier ones.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A resource is there as given; its time of creation stays if it was there.
    Put(ResourceName, Value),
    /// A resource is gone.
    Remove(ResourceName),
    /// A workload is there as given.
    Attach(Box<Workload>),
    /// A workload is gone, and its leases with it.
    Detach(WorkloadId),
    /// Numbers were given out. A counter never goes back: the higher value stays.
    Count(Counters),
}

impl Default for Counters {
    fn default() -> Self {
        Self { workload: 1, policy: 1, tables: 1 }
    }
}

impl Counters {
    /// Numbers that a lost commit cannot have used: restoring an older state skips this many.
    const GAP: u32 = 1 << 16;

    /// The higher of each.
    pub fn max(self, other: Self) -> Self {
        Self {
            workload: self.workload.max(other.workload),
            policy: self.policy.max(other.policy),
            tables: self.tables.max(other.tables),
        }
    }

    /// Past whatever commits after these counters can have used.
    pub(super) fn skip(self) -> Self {
        let past = |counter: u32| counter.saturating_add(Self::GAP);
        Self { workload: past(self.workload), policy: past(self.policy), tables: past(self.tables) }
    }
}

impl Contents {
    /// The contents after the changes, one generation later.
    pub(super) fn with(&self, changes: &[Change], now: Timestamp) -> Self {
        let mut next = self.clone();
        next.generation += 1;
        for change in changes {
            match change {
                Change::Put(name, value) => {
                    let created = next.resources.get(name).map_or(now, |kept| kept.created);
                    next.resources.insert(name.clone(), Kept { created, value: value.clone() });
                }
                Change::Remove(name) => {
                    next.resources.remove(name);
                }
                Change::Attach(workload) => {
                    let created = next.workloads.get(&workload.id).map_or(now, |kept| kept.created);
                    next.workloads.insert(workload.id, Kept { created, value: workload.as_ref().clone() });
                }
                Change::Detach(id) => {
                    next.workloads.remove(id);
                }
                Change::Count(counters) => next.counters = next.counters.max(*counters),
            }
        }
        let after_workloads = next.workloads.last_key_value().map_or(0, |(id, _)| id.0.saturating_add(1));
        next.counters.workload = next.counters.workload.max(after_workloads);
        next
    }
}
