//! A workload's host side is closed before it comes up: the kernel programs are attached, and its entry lets through what
//! its policies allow, or nothing while they are not known. Implements segmentation's [`Seal`] with the egress tables.

use std::sync::Arc;

use super::enforcement::Enforcement;
use crate::segmentation::Seal;
use crate::workload::{Mac, Workload};

/// The egress side of attaching.
pub(crate) struct Sealer(pub(crate) Arc<Enforcement>);

impl Seal for Sealer {
    fn seal(&self, host_ifindex: u32, workload: &Workload, bridge_mac: Mac) -> Result<(), String> {
        self.0.seal(host_ifindex, workload, bridge_mac).map_err(|error| error.to_string())
    }

    fn keep(&self, host_ifindex: u32, _workload: &Workload) -> Result<bool, String> {
        self.0.keep(host_ifindex).map_err(|error| error.to_string())
    }

    fn unseal(&self, host_ifindex: u32, workload: &Workload) {
        if let Err(error) = self.0.unseal(host_ifindex) {
            tracing::warn!(%error, host_ifindex, workload = workload.id.0, "the pins of a deleted link stay; no packet meets them");
        }
    }

    fn close(&self, ifindex: u32) -> Result<(), String> {
        self.0.tables.attach(ifindex).map_err(|error| error.to_string())
    }

    fn open(&self, ifindex: u32) {
        if let Err(error) = self.0.unseal(ifindex) {
            tracing::warn!(%error, ifindex, "the kernel programs cannot be taken from an interface that is adopted no longer");
        }
    }
}
