//! Flows whose first bytes are not enough yet, and those that were judged a moment ago, as frames of these are still in the
//! queue. All of it is bounded: what finds no room is dropped, and the workload sends it again.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use inspect::Inspection;

use super::Pending;
use crate::egress::tables::hold::HeldFlow;
use crate::egress::tables::nanoseconds;
use crate::workload::WorkloadId;

/// Flows of one workload that wait.
const FLOWS: usize = 1_024;
/// Octets of one workload that wait.
const BYTES: usize = 4 << 20;
/// Octets of all that wait.
const ALL_BYTES: usize = 64 << 20;
/// How long a judged flow is known: longer than a far end takes to acknowledge what it was sent, and than QUIC's handshake.
const KNOWN_FOR: Duration = Duration::from_secs(10);
/// QUIC connections of one flow that are known.
const CONNECTIONS: usize = 8;
/// Octets of all judged flows, with [`BESIDE`] for each.
const KNOWN_BYTES: usize = 64 << 20;
/// What a known flow takes beside what was read of it.
const BESIDE: usize = 512;

/// There is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused;

/// What waits: a flow, or one of several QUIC connections of a flow that has passed, by its connection ID.
pub(super) type Key = (HeldFlow, Vec<u8>);

#[derive(Debug, Default)]
pub(super) struct Waiting {
    pending: HashMap<Key, Pending>,
    shares: HashMap<WorkloadId, Share>,
    bytes: usize,
    /// Flows that passed a moment ago, with what was read of each connection that they have begun.
    known: HashMap<HeldFlow, Vec<Inspection>>,
    known_bytes: usize,
    /// The known flows by age, with the time until which they are.
    by_age: VecDeque<(u64, HeldFlow)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Share {
    flows: usize,
    bytes: usize,
}

impl Waiting {
    /// Flows that wait.
    pub(super) fn flows(&self) -> usize {
        self.pending.len()
    }

    /// Octets that wait.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes a flow out.
    pub(super) fn take(&mut self, key: &Key) -> Option<Pending> {
        let entry = self.pending.remove(key)?;
        let (flow, _) = key;
        let bytes = entry.bytes();
        self.bytes -= bytes;
        if let Some(share) = self.shares.get_mut(&flow.workload) {
            share.flows -= 1;
            share.bytes -= bytes;
            if share.flows == 0 {
                self.shares.remove(&flow.workload);
            }
        }
        Some(entry)
    }

    /// Lets a flow wait. If there is no room, all that is kept of it is given up: its stream begins anew with what the
    /// workload sends again.
    pub(super) fn put(&mut self, key: Key, entry: Pending) -> Result<(), Refused> {
        let bytes = entry.bytes();
        let (flow, _) = &key;
        let share = self.shares.get(&flow.workload).copied().unwrap_or_default();
        if share.flows >= FLOWS || share.bytes + bytes > BYTES || self.bytes + bytes > ALL_BYTES {
            return Err(Refused);
        }
        self.shares.insert(flow.workload, Share { flows: share.flows + 1, bytes: share.bytes + bytes });
        self.bytes += bytes;
        self.pending.insert(key, entry);
        Ok(())
    }

    /// Whether one of those that wait has shown all, and is to be judged again.
    pub(super) fn is_undecided(&self) -> bool {
        self.pending.values().any(|entry| entry.shown.is_some())
    }

    /// Takes out what has waited long enough.
    pub(super) fn due(&mut self, now: u64) -> Vec<(Key, Pending)> {
        let due = self.pending.iter().filter(|(_, entry)| entry.is_due(now));
        let due: Vec<Key> = due.map(|(key, _)| key.clone()).collect();
        due.into_iter().filter_map(|key| self.take(&key).map(|entry| (key, entry))).collect()
    }

    /// By what a frame of this flow is to wait.
    pub(super) fn key(&self, flow: &HeldFlow, payload: &[u8]) -> Key {
        let connection = self.known.get(flow).and_then(|_| inspect::destination_id(payload));
        (*flow, connection.map(<[u8]>::to_vec).unwrap_or_default())
    }

    /// What was read of a flow that passed a moment ago.
    pub(super) fn known(&mut self, flow: &HeldFlow) -> Option<&mut Vec<Inspection>> {
        self.known.get_mut(flow)
    }

    /// Notes that a flow passed, and by what; the oldest are forgotten.
    pub(super) fn note(&mut self, flow: HeldFlow, read: Inspection, now: u64) {
        if let Some(known) = self.known.get_mut(&flow) {
            // who begins more connections in one flow has the first ones read anew
            if known.len() >= CONNECTIONS {
                self.known_bytes = self.known_bytes.saturating_sub(known.remove(0).held());
            }
            self.known_bytes += read.held();
            known.push(read);
            return;
        }
        while self.known_bytes >= KNOWN_BYTES || self.by_age.front().is_some_and(|(until, _)| *until <= now) {
            let Some((_, oldest)) = self.by_age.pop_front() else { break };
            self.forget(&oldest);
        }
        let until = now + nanoseconds(KNOWN_FOR);
        self.by_age.push_back((until, flow));
        self.known_bytes += BESIDE + read.held();
        self.known.insert(flow, vec![read]);
    }

    fn forget(&mut self, flow: &HeldFlow) {
        if let Some(known) = self.known.remove(flow) {
            let bytes = BESIDE + known.iter().map(Inspection::held).sum::<usize>();
            self.known_bytes = self.known_bytes.saturating_sub(bytes);
        }
    }
}
