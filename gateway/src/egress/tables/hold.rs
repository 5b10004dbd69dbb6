//! Flows that wait for a verdict on their handshake (`bpf/hold.h`): what the inspector is given of them, and what it says.

use std::io;
use std::net::SocketAddr;

use policy::reason::Reason;
use policy::tables::NameId;
use rustls::crypto::aws_lc_rs;
use siphasher::sip::SipHasher13;

use super::layout as l;
use super::{InTable, TableError, Tables};
use crate::sys::bpf_plain::Plain;
use crate::sys::bpf_test_run::run_without_packet;
use crate::workload::WorkloadId;

/// A workload's share of the inspector's queue: units of a frame and of 2 KiB of it, in 17 ms.
pub(super) const SHARE: u32 = 256;
/// Octets in front of a held frame.
pub const HEAD: usize = size_of::<l::Held>();

const MAGIC: u32 = 0x7467_6874;
const RETURN_MAGIC: [u8; 2] = [0x74, 0x67];
const VERIFIED: u8 = 3;
const DENIED: u8 = 2;
const SHOWN: u8 = 4;

/// What stands in front of a held frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The workload's device.
    pub ifindex: u32,
    /// Whose it is.
    pub workload: WorkloadId,
    /// TCP's sequence number of the first octet that the workload sends.
    pub first: u32,
    /// When its flow was opened, in nanoseconds of CLOCK_BOOTTIME: no other flow of the same addresses has that time.
    pub opened_ns: u64,
    /// When the frame was put into the queue, by the same clock.
    pub held_ns: u64,
}

/// One held flow, from the workload's view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HeldFlow {
    /// Whose it is.
    pub workload: WorkloadId,
    /// The workload's side.
    pub local: SocketAddr,
    /// The other side.
    pub remote: SocketAddr,
    /// IP protocol number: TCP or UDP.
    pub protocol: u8,
    /// As of [`Head`].
    pub opened_ns: u64,
}

/// What is said of a held flow. By which rule it passes, the kernel's program finds again at its next packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Why; the flow passes if its reason does.
    pub reason: Reason,
    /// The name that the handshake asks for.
    pub name: Option<NameId>,
    /// Of TCP, what was read.
    pub read: Option<Read>,
}

/// What was read of a TCP stream that shows a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    /// The sequence number behind it: until the far end has that, repetitions come to the inspector.
    pub end: u32,
    /// Its ClientHello's [`Tables::fingerprint`].
    pub shown: u64,
}

/// What a flow was when its verdict came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It waited for it, and has it.
    Now,
    /// It was verified before by the same ClientHello, or is of UDP, and goes on.
    Before,
    /// It was verified before by another ClientHello, and goes on.
    ByAnother,
    /// It is gone, or denied.
    Gone,
    /// It is being given one at this moment by the kernel's program.
    Busy,
}

/// A key that nobody knows, for [`Tables::fingerprint`].
pub(super) fn new_key() -> io::Result<[u64; 2]> {
    let mut key = [0; 16];
    let random = aws_lc_rs::default_provider().secure_random;
    random.fill(&mut key).map_err(|_| io::Error::other("no random octets"))?;
    let (first, second) = key.split_at(8);
    Ok([first, second].map(|half| half.iter().fold(0, |all, octet| all << 8 | u64::from(*octet))))
}

impl Head {
    /// The head and the frame behind it; `None` for what the kernel itself sent to the device.
    pub fn split(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let held = l::Held::decode(bytes).filter(|held| held.magic == MAGIC)?;
        let head = Self {
            ifindex: held.ifindex,
            workload: WorkloadId(held.workload),
            first: held.first,
            opened_ns: held.opened_ns,
            held_ns: held.held_ns,
        };
        Some((head, &bytes[HEAD..]))
    }

    /// The source MAC by which the program on the TAP knows where a frame belongs.
    pub fn return_mac(&self) -> [u8; 6] {
        let mut mac = [0; 6];
        mac[..2].copy_from_slice(&RETURN_MAGIC);
        mac[2..].copy_from_slice(&self.ifindex.to_ne_bytes());
        mac
    }
}

impl Tables {
    /// Writes a verdict into its flow, if that waits for one.
    pub fn settle(&self, flow: &HeldFlow, verdict: &Verdict) -> Result<Settled, TableError> {
        let said = l::Settlement {
            key: l::FlowKey {
                workload: flow.workload.0,
                local: l::address(flow.local.ip()),
                remote: l::address(flow.remote.ip()),
                local_port: flow.local.port().to_be_bytes(),
                remote_port: flow.remote.port().to_be_bytes(),
                protocol: flow.protocol,
                pad: [0; 3],
            },
            key_pad: 0,
            opened_ns: flow.opened_ns,
            name: verdict.name.map_or(0, |name| name.0),
            reason: verdict.reason as u8,
            hold: match (verdict.reason.passes(), verdict.read) {
                (false, _) => DENIED,
                (true, None) => VERIFIED,
                (true, Some(_)) => SHOWN,
            },
            pad: [0; 2],
            end: verdict.read.map_or(0, |read| read.end),
            pad_again: 0,
            shown: verdict.read.map_or(0, |read| read.shown),
        };
        let answer = run_without_packet(self.programs.settler(), said.bytes()).in_table("flows")?;
        match answer {
            0 => Ok(Settled::Now),
            1 => Ok(Settled::Gone),
            2 => Ok(Settled::Before),
            3 => Ok(Settled::ByAnother),
            4 => Ok(Settled::Busy),
            other => Err(io::Error::other(format!("the program answered {other}"))).in_table("flows"),
        }
    }

    /// By what the kernel's program knows the octets of a ClientHello's records again (`bpf/sight.h`).
    pub fn fingerprint(&self, octets: &[u8]) -> u64 {
        let [first, second] = self.key;
        SipHasher13::new_with_keys(first, second).hash(octets)
    }

    /// Flows that the kernel's program verified by itself, since the maps were made.
    pub fn verified_at_sight(&self) -> Result<u64, TableError> {
        Ok(self.sights.get(0).in_table("sights")?.iter().sum())
    }

    /// Says where held frames go; `None`: nowhere, and what is to be held is dropped.
    pub fn set_inspector(&self, tap: Option<u32>) -> Result<(), TableError> {
        let settings = self.read_settings()?;
        let next = l::Settings { inspector: tap.unwrap_or(0), ..settings };
        self.settings.set(&0, &next).in_table("settings")
    }

    /// The device that held frames go to.
    pub fn inspector(&self) -> Option<u32> {
        self.read_settings().ok().map(|settings| settings.inspector).filter(|ifindex| *ifindex != 0)
    }
}
