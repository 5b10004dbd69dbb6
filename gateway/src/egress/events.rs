//! New flows and drops, as the kernel tells them through a ring of 1 MiB. A full ring loses the new ones, and a workload
//! has so many a second; both are counted ([`super::tables::fill::Losses`]). One stream at a time: two would share out
//! the events between them.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use aya::maps::{MapData, RingBuf};
use policy::reason::Reason;
use policy::tables::{NameId, RuleId};
use tokio::io::unix::AsyncFd;

use super::tables::layout as l;
use super::tables::{InTable, TableError, Tables};
use crate::sys::bpf::open_ring;
use crate::sys::bpf_plain::Plain;
use crate::workload::WorkloadId;

/// `EVENT_VERIFIED` of `bpf/tables.h`.
const VERIFIED: u8 = 3;

/// Where a packet was going.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From a workload.
    FromWorkload,
    /// To a workload.
    ToWorkload,
    /// From the service namespace to a workload.
    FromService,
}

/// A new flow ([`Reason::passes`]) or a dropped packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When, since boot.
    pub time: Duration,
    /// Whose; `None` if the device has no entry.
    pub workload: Option<WorkloadId>,
    /// At which device.
    pub ifindex: u32,
    /// Where to.
    pub direction: Direction,
    /// The workload's side, as the packet had it.
    pub local: IpAddr,
    /// The other side.
    pub remote: IpAddr,
    /// The workload's port, or the id of an echo it asks.
    pub local_port: u16,
    /// The other port, or the id of an echo asked by the other side.
    pub remote_port: u16,
    /// IP protocol number, 0 if there was none.
    pub protocol: u8,
    /// Why.
    pub reason: Reason,
    /// The rule that decided.
    pub rule: RuleId,
    /// The learned name that decided.
    pub name: Option<NameId>,
    /// Whether the handshake asked for that name.
    pub verified: bool,
}

/// The ring, read in order.
pub struct Events {
    ring: AsyncFd<RingBuf<MapData>>,
}

impl Tables {
    /// The events from here on, those that wait in the ring first. Needs a tokio runtime.
    pub fn events(&self) -> Result<Events, TableError> {
        Ok(Events { ring: open_ring(&self.folder().join("maps/events")).in_table("events")? })
    }
}

impl Events {
    /// The next event; waits for one.
    pub async fn next(&mut self) -> io::Result<Event> {
        loop {
            let mut ready = self.ring.readable_mut().await?;
            while let Some(item) = ready.get_inner_mut().next() {
                if let Some(event) = decode(&item) {
                    return Ok(event);
                }
            }
            ready.clear_ready();
        }
    }
}

/// `None` for what this build does not know: a newer program's reason.
fn decode(bytes: &[u8]) -> Option<Event> {
    let raw = l::Event::decode(bytes)?;
    let direction = match raw.direction {
        1 => Direction::FromWorkload,
        2 => Direction::ToWorkload,
        3 => Direction::FromService,
        _ => return None,
    };
    Some(Event {
        time: Duration::from_nanos(raw.time_ns),
        workload: (raw.workload != 0).then_some(WorkloadId(raw.workload)),
        ifindex: raw.ifindex,
        direction,
        local: l::ip(raw.local),
        remote: l::ip(raw.remote),
        local_port: u16::from_be_bytes(raw.local_port),
        remote_port: u16::from_be_bytes(raw.remote_port),
        protocol: raw.protocol,
        reason: Reason::from_number(raw.reason)?,
        rule: RuleId(raw.rule),
        name: (raw.name != 0).then_some(NameId(raw.name)),
        verified: raw.kind == VERIFIED,
    })
}
