//! Links of workloads that are detached, until they are gone.
//!
//! A link that goes has the kernel wait for all its readers, some tens of milliseconds (`netdev_run_todo` in net/core/dev.c).
//! Nobody waits with it: its programs pass nothing any longer, and one task deletes what is left, one link after the other, by a
//! socket of its own. A daemon that dies before finds it by its mark.
//!
//! Owns the list of them, no longer than there were workloads.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use super::keeper::Keeper;
use crate::sys::netlink::Netlink;
use crate::workload::Workload;

/// By index of the host side.
#[derive(Debug, Default)]
pub(super) struct Departures(watch::Sender<BTreeMap<u32, Workload>>);

impl Departures {
    /// From now on this link is as good as gone.
    pub(super) fn begin(&self, index: u32, workload: Workload) {
        self.0.send_modify(|links| drop(links.insert(index, workload)));
    }

    pub(super) fn contains(&self, index: u32) -> bool {
        self.0.borrow().contains_key(&index)
    }

    /// Waits until there is none of those.
    pub(super) async fn over(&self, concerns: impl Fn(&Workload) -> bool) {
        let mut links = self.0.subscribe();
        // It fails where the sender is gone, and the sender is ours.
        let _over = links.wait_for(|links| !links.values().any(&concerns)).await;
    }
}

impl Keeper {
    /// Deletes what departs, for ever.
    pub(super) async fn see_off(self: Arc<Self>, netlink: Netlink) {
        let mut links = self.departures.0.subscribe();
        loop {
            let next = links.borrow_and_update().iter().next().map(|(index, workload)| (*index, workload.clone()));
            let Some((index, workload)) = next else {
                if links.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let deleted = netlink.delete_link(index, &workload.host_interface).await;
            let gone = deleted.as_ref().map_or_else(|error| error.is_absent(), |()| true);
            if gone {
                self.seal.unseal(index, &workload);
            }
            self.departures.0.send_modify(|links| drop(links.remove(&index)));
            if let (false, Err(error)) = (gone, deleted) {
                tracing::warn!(%error, workload = workload.id.0, "the link of a detached workload is still there; it is closed, and removing it is tried again");
                self.look.send_modify(|number| *number += 1);
            }
        }
    }
}
