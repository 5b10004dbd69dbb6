//! How a query ended: one record for each, in metrics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::telemetry::metrics;

/// The end of one query. The words are the metrics' and stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The upstream's answer was sent, whatever it says.
    Answered,
    /// The policy does not allow the name.
    Refused,
    /// Nobody has this handle.
    UnknownAsker,
    /// No DNS query.
    Malformed,
    /// An operation, class or type that is not served.
    Unsupported,
    /// No upstream answered.
    UpstreamFailed,
    /// The kernel's table did not take the addresses.
    NotLearned,
    /// The answer had an address that no name may have.
    Filtered,
    /// The answer had what must be taken out of it, and could not be.
    Uneditable,
    /// The asker, or all of them, had too many open.
    Overload,
    /// The asker asked too many in a second.
    RateLimited,
}

/// Queries by outcome since the daemon started, in the order of [`Outcome::ALL`].
static COUNTS: [AtomicU64; Outcome::ALL.len()] = [const { AtomicU64::new(0) }; Outcome::ALL.len()];

/// How queries ended, since the daemon started.
pub fn outcomes() -> impl Iterator<Item = (Outcome, u64)> {
    Outcome::ALL.iter().zip(&COUNTS).map(|(outcome, count)| (*outcome, count.load(Ordering::Relaxed)))
}

impl Outcome {
    /// Every outcome.
    pub const ALL: &[Self] = &[
        Self::Answered,
        Self::Refused,
        Self::UnknownAsker,
        Self::Malformed,
        Self::Unsupported,
        Self::UpstreamFailed,
        Self::NotLearned,
        Self::Filtered,
        Self::Uneditable,
        Self::Overload,
        Self::RateLimited,
    ];

    /// The label `outcome`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Refused => "refused",
            Self::UnknownAsker => "unknown-asker",
            Self::Malformed => "malformed",
            Self::Unsupported => "unsupported",
            Self::UpstreamFailed => "upstream-failed",
            Self::NotLearned => "not-learned",
            Self::Filtered => "filtered",
            Self::Uneditable => "uneditable",
            Self::Overload => "overload",
            Self::RateLimited => "rate-limited",
        }
    }

    /// Counts a query.
    pub(super) fn count(self) {
        COUNTS[self as usize].fetch_add(1, Ordering::Relaxed);
        metrics::dns_query(self.word());
    }

    /// Counts it, with its time.
    pub(super) fn count_since(self, start: Instant) {
        self.count();
        metrics::dns_query_time(self.word(), start.elapsed());
    }
}
