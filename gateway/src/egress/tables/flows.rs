//! What is open: the flow table, read. Only the kernel writes it.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use policy::reason::Reason;
use policy::tables::{NameId, RuleId};

use super::layout as l;
use super::{InTable, TableError, Tables};
use crate::sys::bpf_test_run::run_without_packet;
use crate::workload::WorkloadId;

/// The tables that [`Tables::sweep_next`] takes in turn (sweep.h).
const SWEPT: u32 = 3;

/// Who opened a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The workload.
    Egress,
    /// Somebody elsewhere.
    Ingress,
    /// Another workload or host of the same network.
    SameNetwork,
    /// The node.
    Probe,
}

/// What is known of a flow's handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Nobody asks for it.
    Never,
    /// It is waited for; no payload passes.
    Awaits,
    /// It was read, and nothing passes.
    Denied,
    /// It was read, and the flow passes.
    Verified,
}

/// One open flow, from the workload's view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Whose it is.
    pub workload: WorkloadId,
    /// The workload's address.
    pub local: IpAddr,
    /// The other side's.
    pub remote: IpAddr,
    /// The workload's port; of an ICMP echo that it asks, the id.
    pub local_port: u16,
    /// The other side's port; of an ICMP echo that the other side asks, the id.
    pub remote_port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Who opened it.
    pub origin: Origin,
    /// Why it was allowed.
    pub reason: Reason,
    /// By which rule.
    pub rule: RuleId,
    /// By which learned name; of a verified flow, the one that its handshake asked for.
    pub name: Option<NameId>,
    /// Whether its handshake is, or was, read.
    pub hold: Hold,
    /// When it was opened, since boot.
    pub opened: Duration,
    /// When its last packet passed, since boot.
    pub last_seen: Duration,
    /// Frames and bytes sent by the workload; a GSO frame counts once.
    pub sent: (u64, u64),
    /// Frames and bytes received by it.
    pub received: (u64, u64),
}

/// What was done about stale flows and translations, by the daemon and by the kernel's timer, which does it where the
/// daemon does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sweeps {
    /// Tables walked by the daemon since the maps were made.
    pub by_daemon: u64,
    /// Tables walked by the timer.
    pub by_timer: u64,
    /// Entries taken away by either.
    pub reclaimed: u64,
    /// How long the daemon's last walk took, and the timer's.
    pub took: [Duration; 2],
}

impl Tables {
    /// All open flows, stale ones that were not swept yet included.
    pub fn flows(&self) -> Result<Vec<Flow>, TableError> {
        Ok(self.flows.dump().in_table("flows")?.into_iter().filter_map(flow).collect())
    }

    /// How many flows a workload has open.
    pub fn open_flows(&self, workload: WorkloadId) -> Result<u32, TableError> {
        Ok(self.usage.get(&workload.0).in_table("usage")?.map_or(0, |usage| usage.flows))
    }

    /// Takes stale entries out of the next of the tables that have such, and answers when the one behind it is due. Packets
    /// do not wait for it, other than for the kernel's timer.
    pub fn sweep_next(&self) -> Result<Duration, TableError> {
        let done = run_without_packet(self.programs.sweeper(), &[]).and_then(|answer| match answer {
            0 => Ok(()),
            other => Err(io::Error::other(format!("the program answered {other}"))),
        });
        done.in_table("swept")?;
        Ok(Duration::from_nanos(self.read_settings()?.sweep_ns) / SWEPT)
    }

    /// What was taken away so far.
    pub fn sweeps(&self) -> Result<Sweeps, TableError> {
        let timer = self.sweeper.get(&0).in_table("sweeper")?.map(|s| (s.runs, s.reclaimed, s.took_ns));
        let daemon = self.swept.get(&0).in_table("swept")?.map(|s| (s.runs, s.reclaimed, s.took_ns));
        let [daemon, timer] = [daemon, timer].map(Option::unwrap_or_default);
        Ok(Sweeps {
            by_daemon: daemon.0,
            by_timer: timer.0,
            reclaimed: daemon.1 + timer.1,
            took: [daemon.2, timer.2].map(Duration::from_nanos),
        })
    }
}

fn flow((key, value): (l::FlowKey, l::Flow)) -> Option<Flow> {
    let origin = match value.origin {
        1 => Origin::Egress,
        2 => Origin::Ingress,
        3 => Origin::SameNetwork,
        4 => Origin::Probe,
        _ => return None,
    };
    Some(Flow {
        workload: WorkloadId(key.workload),
        local: l::ip(key.local),
        remote: l::ip(key.remote),
        local_port: u16::from_be_bytes(key.local_port),
        remote_port: u16::from_be_bytes(key.remote_port),
        protocol: key.protocol,
        origin,
        reason: Reason::from_number(value.reason)?,
        rule: RuleId(value.rule),
        name: (value.name != 0).then_some(NameId(value.name)),
        hold: match value.hold {
            0 => Hold::Never,
            1 => Hold::Awaits,
            2 => Hold::Denied,
            _ => Hold::Verified,
        },
        opened: Duration::from_nanos(value.opened_ns),
        last_seen: Duration::from_nanos(value.last_seen_ns),
        sent: (value.packets_out, value.bytes_out),
        received: (value.packets_in, value.bytes_in),
    })
}
