//! Waiting for a level, with a bound.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Waits until `level` holds; panics with `what` when it does not within `bound` (stretched by [`patience`]).
#[track_caller]
pub fn wait_until(what: &str, bound: Duration, mut level: impl FnMut() -> bool) {
    wait_for(what, bound, || level().then_some(()));
}

/// Waits until `level` gives a value; panics with `what` when it does not within `bound` (stretched by [`patience`]).
#[track_caller]
pub fn wait_for<T>(what: &str, bound: Duration, level: impl FnMut() -> Option<T>) -> T {
    match poll(bound, level) {
        Some(value) => value,
        None => panic!("{what}: not within {bound:?} (patience {})", patience()),
    }
}

/// Whether `level` holds at some time within `bound`: for levels that are expected to stay away.
pub fn happens_within(bound: Duration, mut level: impl FnMut() -> bool) -> bool {
    poll(bound, || level().then_some(())).is_some()
}

/// What every bound is multiplied by: 1, or what `TIDEGATE_PATIENCE` says where the machine is emulated.
pub fn patience() -> u32 {
    static PATIENCE: OnceLock<u32> = OnceLock::new();
    *PATIENCE.get_or_init(|| std::env::var("TIDEGATE_PATIENCE").ok().and_then(|text| text.parse().ok()).unwrap_or(1))
}

fn poll<T>(bound: Duration, mut level: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + bound * patience();
    loop {
        if let Some(value) = level() {
            return Some(value);
        }
        if Instant::now() >= end {
            return None;
        }
        pause();
    }
}

#[expect(clippy::disallowed_methods, reason = "the interval at which a level is looked at; its bound is the caller's")]
fn pause() {
    std::thread::sleep(Duration::from_millis(15));
}
