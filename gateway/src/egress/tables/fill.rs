//! Counters, and how full the tables are.

use policy::reason::Reason;

use super::{InTable, TableError, Tables};
use crate::sys::bpf::Map;

/// Packets that ended with one reason, on all CPUs, since the maps were made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// Why.
    pub reason: Reason,
    /// Frames.
    pub packets: u64,
    /// Bytes with the Ethernet header.
    pub bytes: u64,
}

/// Events that were not told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// The ring was full: the daemon did not read.
    pub ring_full: u64,
    /// A workload had more in a second than its share.
    pub over_budget: u64,
}

/// What became of a denied packet whose sender was to be told; `enum rejection` of `bpf/reject.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// A TCP reset was sent.
    Reset = 0,
    /// ICMP's "administratively prohibited" was sent.
    Icmp = 1,
    /// The workload had its share of this second.
    OverBudget = 2,
    /// The kernel did not make the answer.
    Failed = 3,
}

impl Rejection {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::Reset, Self::Icmp, Self::OverBudget, Self::Failed];

    /// As metrics have it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::Icmp => "icmp",
            Self::OverBudget => "over-budget",
            Self::Failed => "failed",
        }
    }
}

/// Entries of a table, and what it can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// Name of the table.
    pub table: &'static str,
    /// Entries now.
    pub entries: u64,
    /// Entries at most.
    pub max: u64,
}

impl Tables {
    /// Packets and bytes by reason, also of those that never came.
    pub fn counters(&self) -> Result<Vec<Count>, TableError> {
        let count = |reason: &Reason| {
            let cpus = self.counters.get(*reason as u32).in_table("counters")?;
            let packets = cpus.iter().map(|c| c.packets).sum();
            Ok(Count { reason: *reason, packets, bytes: cpus.iter().map(|c| c.bytes).sum() })
        };
        Reason::ALL.iter().map(count).collect()
    }

    /// Events that were not told.
    pub fn losses(&self) -> Result<Losses, TableError> {
        let sum = |index| Ok(self.losses.get(index).in_table("losses")?.iter().sum());
        Ok(Losses { ring_full: sum(0)?, over_budget: sum(1)? })
    }

    /// Denied packets whose sender was to be told, since the maps were made.
    pub fn rejections(&self) -> Result<[(Rejection, u64); 4], TableError> {
        let mut counts = Rejection::ALL.map(|outcome| (outcome, 0));
        for (outcome, count) in &mut counts {
            *count = self.rejections.get(*outcome as u32).in_table("rejections")?.iter().sum();
        }
        Ok(counts)
    }

    /// How full the tables are that refuse more when full. Walks them: for a scrape or a status, not for each packet.
    pub fn fill(&self) -> Result<Vec<Fill>, TableError> {
        let flows = self.usage.dump().in_table("usage")?.iter().map(|(_, usage)| u64::from(usage.flows)).sum();
        let mappings =
            self.nat_usage.dump().in_table("nat_usage")?.iter().map(|(_, usage)| u64::from(usage.flows)).sum();
        Ok(vec![
            Fill { table: "mappings", entries: mappings, max: self.mappings.max_entries().into() },
            Fill { table: "flows", entries: flows, max: self.flows.max_entries().into() },
            walk(&self.workloads)?,
            walk(&self.addresses)?,
            walk(&self.handles)?,
            walk(&self.classes4)?,
            walk(&self.classes6)?,
            walk(&self.rules)?,
            walk(&self.learned)?,
            walk(&self.name_classes)?,
            walk(&self.names)?,
            walk(&self.exposed)?,
            walk(&self.node_addresses)?,
            walk(&self.node_listeners)?,
            walk(&self.segments)?,
            walk(&self.subnets)?,
            walk(&self.routed)?,
            walk(&self.masqueraded)?,
            walk(&self.egress_addresses)?,
            walk(&self.own_addresses)?,
        ])
    }
}

fn walk<K: aya::Pod, V: aya::Pod>(map: &Map<K, V>) -> Result<Fill, TableError> {
    let entries = map.dump().in_table(map.name())?.len() as u64;
    Ok(Fill { table: map.name(), entries, max: map.max_entries().into() })
}
