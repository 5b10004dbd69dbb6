//! Times and bounds of what is learned.

/// Seconds. A shorter TTL counts as this one.
pub const MINIMUM_TTL: u32 = 5;
/// Seconds. A longer TTL counts as this one.
pub const MAXIMUM_TTL: u32 = 86_400;
/// Seconds that a name opens an address beyond its TTL.
pub const GRACE: u32 = 30;
/// Seconds that an expired name is still known, to be named as the reason of a drop.
pub const LINGER: u32 = 300;
/// Lookups that opened nothing, kept for each workload.
pub const RECENT: usize = 256;

/// How much may be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Addresses of all workloads: the size of the kernel's table `learned`.
    pub addresses: usize,
    /// Names of all workloads: the size of the kernel's table `names`.
    pub names: usize,
    /// Addresses of one workload.
    pub addresses_per_workload: usize,
    /// Pairs of name and address of one workload.
    pub pairs_per_workload: usize,
    /// Names of one address of one workload; at least the kernel's four.
    pub names_per_address: usize,
}

/// Why an answer was not learned. It must not leave: the workload would meet a closed door behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LearnError {
    /// The workload's own bound.
    #[error("the workload holds {0} learned addresses; let it ask for fewer names, or wait until some expire")]
    WorkloadAddresses(usize),
    /// The workload's own bound.
    #[error(
        "the workload holds {0} learned pairs of name and address; let it ask for fewer names, or wait until some expire"
    )]
    WorkloadPairs(usize),
    /// The node's bound.
    #[error("the node holds {0} learned addresses; raise `[limits] learned`")]
    Addresses(usize),
    /// The node's bound. Releasing idle names and learning again may help.
    #[error("the node holds {0} learned names; release idle ones, or raise `[limits] learned`")]
    Names(usize),
}

/// How much is known, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fill {
    /// Workloads that resolved something.
    pub workloads: usize,
    /// Pairs of workload and address.
    pub addresses: usize,
    /// Triples of workload, address and name.
    pub pairs: usize,
    /// Numbered names, idle ones included.
    pub names: usize,
    /// Lookups that opened nothing and are remembered.
    pub recent: usize,
}

/// What went beyond a bound, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Answers not learned.
    pub refused: u64,
    /// Live names that an address had no room for.
    pub names_dropped: u64,
    /// Live classes of names that found no slot.
    pub classes_dropped: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            addresses: 65_536,
            names: 65_536,
            addresses_per_workload: 4_096,
            pairs_per_workload: 8_192,
            names_per_address: 16,
        }
    }
}
