//! What the store keeps, and the changes to it. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use config::Prefixes;
use config::api::{ResourceName, Timestamp};
use config::prefixes::Difference;
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
    pub resources: Arc<BTreeMap<ResourceName, Arc<Kept<Value>>>>,
    /// The prefixes of address sets, which are not in `resources`: those of a file as they were put in force last.
    pub sets: BTreeMap<ResourceName, Prefixes>,
    /// The attached workloads. Their addresses and handles are the leases.
    pub workloads: Arc<BTreeMap<WorkloadId, Arc<Kept<Workload>>>>,
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
    /// An address set has these prefixes. One commit has one such change for a set.
    Prefixes(ResourceName, Prefixes),
    /// An address set that is there has these prefixes now, of which these came and went.
    PatchPrefixes(ResourceName, Prefixes, Difference),
    /// A resource is gone, with the prefixes that it had.
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
                    let kept = Arc::new(Kept { created, value: value.clone() });
                    Arc::make_mut(&mut next.resources).insert(name.clone(), kept);
                }
                Change::Remove(name) => {
                    Arc::make_mut(&mut next.resources).remove(name);
                    next.sets.remove(name);
                }
                Change::Prefixes(name, prefixes) | Change::PatchPrefixes(name, prefixes, _) => {
                    next.sets.insert(name.clone(), prefixes.clone());
                }
                Change::Attach(workload) => {
                    let created = next.workloads.get(&workload.id).map_or(now, |kept| kept.created);
                    let kept = Arc::new(Kept { created, value: workload.as_ref().clone() });
                    Arc::make_mut(&mut next.workloads).insert(workload.id, kept);
                }
                Change::Detach(id) => {
                    Arc::make_mut(&mut next.workloads).remove(id);
                }
                Change::Count(counters) => next.counters = next.counters.max(*counters),
            }
        }
        let after_workloads = next.workloads.last_key_value().map_or(0, |(id, _)| id.0.saturating_add(1));
        next.counters.workload = next.counters.workload.max(after_workloads);
        next
    }
}
