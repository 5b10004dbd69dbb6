//! When to look again: where notices point, soon but not at once (they come in bursts), and at everything every now and
//! then.
//!
//! A look is taken [`SETTLE`] after the first notice; after one that took long, the next waits [`REST`] times as long as
//! it took, at most [`LONGEST_REST`], so that a node whose links change all the time does not look all the time.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use crate::sys::netlink::watch::{Notice, Watch};

/// Between the first notice and the look.
pub(super) const SETTLE: Duration = Duration::from_millis(100);
/// Between two looks at everything.
pub(super) const EVERY: Duration = Duration::from_secs(5);
/// Rest after a look, in lengths of it.
pub(super) const REST: u32 = 4;
/// So that what others delete is still put back within a second.
pub(super) const LONGEST_REST: Duration = Duration::from_millis(400);
/// Different notices that one look may be about; more are about everything.
const MOST: usize = 1_024;

/// Calls for looks for ever: at what notices name, or at everything where none are given; a look answers whether it was
/// at everything.
pub(super) async fn run(
    mut notices: Watch,
    mut concerns: impl FnMut(&Notice) -> bool,
    mut look: impl AsyncFnMut(Option<BTreeSet<Notice>>) -> bool,
    mut asked: watch::Receiver<u64>,
) {
    let mut rest = Duration::ZERO;
    let mut whole = Instant::now() + EVERY;
    loop {
        let mut named = BTreeSet::new();
        tokio::select! {
            () = sleep_until(whole) => {}
            _ = asked.changed() => {}
            found = notices.changed() => match found {
                Ok(found) => {
                    named.extend(found.into_iter().filter(&mut concerns));
                    if named.is_empty() {
                        continue;
                    }
                    sleep(SETTLE.max(rest)).await;
                    while let Some(Ok(more)) = notices.changed().now_or_never() {
                        named.extend(more.into_iter().filter(&mut concerns));
                        if named.len() > MOST {
                            named = BTreeSet::from([Notice::Lost]);
                            break;
                        }
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "netlink notices cannot be read; looking every {EVERY:?} instead");
                    sleep_until(whole).await;
                }
            },
        }
        let begun = Instant::now();
        let everything = look(Some(named).filter(|named| !named.is_empty())).await;
        rest = (begun.elapsed() * REST).min(LONGEST_REST);
        if everything {
            whole = Instant::now() + EVERY;
        }
    }
}
