//! Workloads' host sides in the kernel: closed before they come up, taken over after a restart, looked after.

use std::collections::BTreeMap;
use std::time::Duration;

use policy::Node;
use policy::tables::{NameId, RuleId};
use tokio::time::sleep;

use super::desired::Desired;
use super::enforcement::{Enforcement, Port, State, network_number};
use super::reload::in_place;
use crate::egress::attach::AttachError;
use crate::egress::tables::TableError;
use crate::egress::tables::node::Listener;
use crate::segmentation::Status;
use crate::segmentation::names::HOST_PREFIX;
use crate::sys::interface;
use crate::workload::{Mac, Workload, WorkloadId};

/// Host sides whose programs are looked at in one go, and the pause behind it: a thousand take a tenth of a second.
const KEPT_AT_ONCE: usize = 32;
const BETWEEN: Duration = Duration::from_millis(2);

/// Host sides that get links each second: the kernel takes some 30 ms for each, with all network configuration held up.
const LINKED_AT_ONCE: usize = 3;

/// Why a host side is not closed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SealError {
    /// Its entry.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The programs.
    #[error(transparent)]
    Attach(#[from] AttachError),
}

impl Enforcement {
    /// The entry first, then the programs: what is not decided yet is dropped.
    pub(crate) fn seal(&self, ifindex: u32, workload: &Workload, bridge_mac: Mac) -> Result<(), SealError> {
        let port = Port { ifindex, bridge_mac };
        let state = &mut *self.state();
        state.ports.insert(workload.id, port);
        self.look_again(state)?;
        let same = state.placed.entry(ifindex).is_some_and(|entry| entry.id == workload.id);
        if state.unknown_past && same {
            // A restart: it keeps its entry, and its flows go on, until the policies are in force again.
            return Ok(self.tables.attach(ifindex)?);
        }
        // After a change that failed half way, its addresses may stand for a workload that is gone: it waits for the next.
        let policy = state.compiled.policy(&workload.subject()).filter(|_| !state.unknown_past);
        if state.unknown_past {
            state.meanwhile.sealed.insert(workload.id);
        }
        self.place(state, workload, port, policy)?;
        self.tables.attach(ifindex)?;
        self.leave_former(state, workload.id, ifindex)
    }

    /// A workload can make the node remake its host side as often as it likes, by deleting its own: what the tables have
    /// of the former ones goes at once, or they would be full one day.
    fn leave_former(&self, state: &mut State, workload: WorkloadId, present: u32) -> Result<(), SealError> {
        let former: Vec<u32> = state.placed.of_workload(workload).filter(|ifindex| *ifindex != present).collect();
        for former in former {
            tracing::debug!(former, present, workload = workload.0, "a workload has a new host side");
            state.placed.forget(former);
            self.tables.forget_device(former)?;
            // On one that is still there, whatever its name is now, the programs stay and pass nothing.
            if interface::name(former).is_err() {
                self.tables.detach(former)?;
            }
        }
        Ok(())
    }

    /// The link is gone; what the tables hold of it goes with the workload.
    pub(crate) fn unseal(&self, ifindex: u32) -> Result<(), AttachError> {
        self.tables.detach(ifindex)
    }

    /// After a restart: the host sides that segmentation found.
    pub(crate) fn adopt(&self, desired: &Desired, status: &Status) -> Result<(), SealError> {
        for port in &status.ports {
            if let Some(workload) = desired.workloads.values().find(|workload| workload.id == port.workload) {
                let known = self.tables.workload(port.ifindex)?.is_some_and(|entry| entry.id == workload.id);
                self.state().ports.insert(workload.id, Port { ifindex: port.ifindex, bridge_mac: port.bridge_mac });
                // One that the tables know keeps its entry, and its flows go on, until the policies are in force again.
                let closed = match known {
                    true => self.tables.attach(port.ifindex).map_err(SealError::from),
                    false => self.seal(port.ifindex, workload, port.bridge_mac),
                };
                // One device must not keep the whole node without a gateway; the upkeep tries again every second.
                if let Err(error) = closed {
                    tracing::error!(%error, workload = workload.id.0, "a workload's programs are not in place");
                }
            }
        }
        Ok(())
    }

    /// Workloads of an earlier daemon that are not there any more leave nothing in the tables.
    pub(crate) fn forget_strangers(&self, desired: &Desired) -> Result<(), SealError> {
        let known = |id| desired.workloads.values().any(|workload| workload.id == id);
        for (ifindex, entry) in self.tables.workloads()? {
            if !known(entry.id) {
                let others = interface::name(ifindex).is_ok_and(|name| !name.as_str().starts_with(HOST_PREFIX));
                if others {
                    self.tables.detach(ifindex)?; // of a bridge that is adopted no longer
                }
                self.state().placed.forget_workload(entry.id);
                self.tables.forget_workload(entry.id)?;
            }
        }
        Ok(())
    }

    /// DNS and the edge's replies go there.
    pub(crate) fn serve_namespace(&self, tg0: u32, tg1_mac: Mac) -> Result<(), SealError> {
        self.tables.set_service(tg0, tg1_mac)?;
        Ok(self.tables.attach_service(tg0)?)
    }

    /// VLAN sides of the networks.
    pub(crate) fn note_segments(&self, status: &Status) -> Result<(), TableError> {
        let segments: BTreeMap<u32, u32> =
            status.segments.iter().map(|segment| (segment.ifindex, network_number(&segment.network))).collect();
        self.tables.set_segments(&segments)
    }

    /// Puts back a workload's programs if somebody removed them; whether it had to.
    pub(crate) fn keep(&self, ifindex: u32) -> Result<bool, AttachError> {
        self.tables.ensure_attached(ifindex)
    }

    /// The same for every host side that links hold, and tg0; how many had to be put back. Where tcx links go, netlink says
    /// nothing. It takes its time: on a node with many workloads nothing else waits for it. Then some get links.
    pub(crate) async fn keep_all(&self, tg0: u32) -> Result<u64, AttachError> {
        let ports: Vec<u32> = self.state().ports.values().map(|port| port.ifindex).collect();
        let mut repaired = u64::from(self.tables.ensure_service_attached(tg0)?);
        for some in ports.chunks(KEPT_AT_ONCE) {
            repaired += in_place(|| self.keep_some(some))?;
            sleep(BETWEEN).await;
        }
        for _ in 0..LINKED_AT_ONCE {
            if !in_place(|| self.tables.settle_one())? {
                break;
            }
        }
        self.repairs.fetch_add(repaired, std::sync::atomic::Ordering::Relaxed);
        Ok(repaired)
    }

    fn keep_some(&self, ports: &[u32]) -> Result<u64, AttachError> {
        let mut repaired = 0;
        for ifindex in ports.iter().filter(|ifindex| !self.tables.is_young(**ifindex)) {
            match self.tables.ensure_attached(*ifindex) {
                Ok(put_back) => repaired += u64::from(put_back),
                // Segmentation sees that too, and makes the link anew.
                Err(AttachError::Device { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(repaired)
    }

    /// Programs put back by [`Self::keep_all`] since the daemon started.
    pub(crate) fn repairs(&self) -> u64 {
        self.repairs.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// What is known of the node.
    pub(crate) fn node(&self) -> Node {
        self.state().node.clone()
    }

    /// The node has these addresses and listeners now. True if that is news; then open flows are decided again: one to an
    /// address that has moved here must not go on to the node itself.
    pub(crate) fn set_node(&self, node: Node) -> Result<bool, TableError> {
        let state = &mut *self.state();
        if state.node == node && !state.node_unknown {
            return Ok(false);
        }
        self.hold_answers()?;
        state.node_unknown = true;
        self.tables.set_node_addresses(&node.addresses)?;
        let listener =
            |l: &policy::Listener| Listener { address: l.address, port: l.port, protocol: l.protocol.number() };
        self.tables.set_node_listeners(&node.listeners.iter().map(listener).collect())?;
        self.decide_again(state)?;
        state.node = node;
        state.node_unknown = false;
        self.give_answers(state)?;
        Ok(true)
    }

    /// How a rule is called: `egresspolicy/shop/shop-egress allow[2]`, `clusteregresspolicy/base deny[0]`.
    pub(crate) fn rule(&self, id: RuleId) -> Option<String> {
        self.state().compiled.rule_name(id).map(|name| name.qualified())
    }

    /// A learned name.
    pub(crate) fn name(&self, id: Option<NameId>) -> Option<String> {
        self.state().ledger.name(id?).map(ToString::to_string)
    }

    /// Learned (workload, address) pairs.
    pub(crate) fn learned(&self) -> usize {
        self.state().ledger.fill().addresses
    }

    /// What DNS said and found no room for, since the daemon started.
    pub(crate) fn over_bounds(&self) -> policy::ledger::Counters {
        self.state().ledger.counters()
    }

    /// Events that found the ring full, since the tables were made.
    pub(crate) fn lost_events(&self) -> u64 {
        self.tables.losses().map_or(0, |losses| losses.ring_full)
    }
}
