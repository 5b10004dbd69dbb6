//! When to look again: after notices that concern us, soon but not at once (they come in bursts), and every now and then.
//!
//! A look is taken [`SETTLE`] after the first notice; after one that took long, the next waits [`REST`] times as long as
//! it took, at most [`LONGEST_REST`], so that a node whose links change all the time does not look all the time.

use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::sys::netlink::watch::{Notice, Watch};

/// Between the first notice and the look.
pub(super) const SETTLE: Duration = Duration::from_millis(100);
/// Between two looks without any notice.
pub(super) const EVERY: Duration = Duration::from_secs(5);
/// Rest after a look, in lengths of it.
pub(super) const REST: u32 = 4;
/// So that what others delete is still put back within a second.
pub(super) const LONGEST_REST: Duration = Duration::from_millis(400);

/// Calls for a look by moving on the number in `due`, for ever.
pub(super) async fn run(
    mut notices: Watch,
    mut concerns: impl FnMut(&Notice) -> bool,
    mut look: impl AsyncFnMut(),
    mut asked: watch::Receiver<u64>,
) {
    let mut rest = Duration::ZERO;
    loop {
        let wake = tokio::time::sleep(EVERY);
        tokio::pin!(wake);
        loop {
            tokio::select! {
                () = &mut wake => break,
                _ = asked.changed() => break,
                found = notices.changed() => match found {
                    Ok(found) if !found.iter().any(&mut concerns) => {}
                    Ok(_) => break tokio::time::sleep(SETTLE.max(rest)).await,
                    Err(error) => {
                        tracing::warn!(%error, "netlink notices cannot be read; looking every {EVERY:?} instead");
                        break wake.await;
                    }
                },
            }
        }
        let begun = Instant::now();
        look().await;
        rest = (begun.elapsed() * REST).min(LONGEST_REST);
    }
}
