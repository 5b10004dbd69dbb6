//! When something last moved, for idle deadlines that cost one store a move.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// The last move on a connection.
#[derive(Debug)]
pub(super) struct Activity {
    start: Instant,
    last_ms: AtomicU64,
}

impl Activity {
    /// Moved now.
    pub(super) fn new() -> Self {
        Self { start: Instant::now(), last_ms: AtomicU64::new(0) }
    }

    /// Moves now.
    pub(super) fn touch(&self) {
        let elapsed = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(elapsed, Ordering::Relaxed);
    }

    /// The last move.
    pub(super) fn last(&self) -> Instant {
        self.start + Duration::from_millis(self.last_ms.load(Ordering::Relaxed))
    }

    /// Returns once nothing has moved for `limit`.
    pub(super) async fn idle(&self, limit: Duration) {
        loop {
            let deadline = self.last() + limit;
            if deadline <= Instant::now() {
                return;
            }
            sleep_until(deadline).await;
        }
    }
}

/// Counts what is under way, as long as the guards live.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicUsize);

/// One of the things counted; dropping it takes it away again.
pub(super) struct Counted<T: AsRef<Count>>(T);

impl Count {
    /// How many there are.
    pub(super) fn now(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl<T: AsRef<Count>> Counted<T> {
    /// One more, unless there are `limit` already.
    pub(super) fn below(limit: usize, counter: T) -> Option<Self> {
        let more = |now: usize| (now < limit).then_some(now + 1);
        counter.as_ref().0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Self(counter))
    }

    /// What counts it.
    pub(super) fn owner(&self) -> &T {
        &self.0
    }
}

impl<T: AsRef<Count>> Drop for Counted<T> {
    fn drop(&mut self) {
        self.0.as_ref().0.fetch_sub(1, Ordering::Relaxed);
    }
}
