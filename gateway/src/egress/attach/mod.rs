//! The programs on a device, so that they stay when this process is killed.
//!
//! Where the kernel has tcx, a pinned link holds each program at the head of the device's list, and a new build's program
//! takes its place in one step. Elsewhere it is a filter of the clsact qdisc at a fixed priority and handle, replaced in
//! one step too. What somebody else removed, [`Tables::ensure_attached`] puts back.
//!
//! A workload's device has filters at first wherever it is: for each link that comes or goes the kernel waits for its readers
//! with the lock of all network configuration held, 15 ms at a time (`tcx_entry_sync` in include/net/tcx.h), and starting and
//! stopping a container would wait four times. Filters do not. When it has lived for a while and no others come, links take
//! their place: they are faster for each packet, and nobody removes them by mistake ([`Tables::settle_one`]).
//!
//! Pinned: `links/<ifindex>-<program>` (tcx only) and `programs/<program>`. One lock, around the loaded programs.

mod hooks;
mod programs;

use std::collections::BTreeSet;
use std::error::Error;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use aya::programs::TcAttachType;

pub(crate) use self::programs::Programs;
use self::programs::classifier;
use super::tables::Tables;
use crate::sys::bpf_test_run::{Answer, test_run, test_run_marked};
use crate::sys::interface;

/// A program and where on a device it belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// tc ingress of a workload's host side.
    FromWorkload,
    /// tc egress of a workload's host side.
    ToWorkload,
    /// tc ingress of tg0.
    FromService,
    /// tc ingress of the uplink.
    FromUplink,
    /// tc egress of the uplink.
    ToUplink,
    /// tc ingress of the inspector's TAP.
    FromTap,
    /// tc ingress of a VLAN parent.
    FromTrunk,
}

/// The program that the daemon runs itself, on frames that are to leave by a device.
const SENDER: &str = "send_frame";
/// Of frames that come back from the inspector (`bpf/tables.h`).
const MARK_RETURNED: u32 = 0x7467_6874;
/// `linux/pkt_cls.h`
const TC_ACT_UNSPEC: i32 = -1;

const ALL: [Program; 7] = [
    Program::FromWorkload,
    Program::ToWorkload,
    Program::FromService,
    Program::FromUplink,
    Program::ToUplink,
    Program::FromTap,
    Program::FromTrunk,
];

/// Both sides of the uplink: what is translated leaves last, so that its replies find the way back.
const UPLINK: [Program; 2] = [Program::FromUplink, Program::ToUplink];

/// Both sides of a workload's device: what it sends last, so that nothing is sent while replies are not looked at.
const WORKLOAD: [Program; 2] = [Program::ToWorkload, Program::FromWorkload];

impl Program {
    /// As it is called in the object, in `programs/`, and by `bpftool`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::FromWorkload => "from_workload",
            Self::ToWorkload => "to_workload",
            Self::FromService => "from_service",
            Self::FromUplink => "from_uplink",
            Self::ToUplink => "to_uplink",
            Self::FromTap => "from_tap",
            Self::FromTrunk => "from_trunk",
        }
    }

    const fn is_egress(self) -> bool {
        match self {
            Self::ToWorkload | Self::ToUplink => true,
            Self::FromWorkload | Self::FromService | Self::FromUplink | Self::FromTap | Self::FromTrunk => false,
        }
    }

    const fn direction(self) -> TcAttachType {
        match self {
            Self::FromWorkload | Self::FromService | Self::FromUplink | Self::FromTap | Self::FromTrunk => {
                TcAttachType::Ingress
            }
            Self::ToWorkload | Self::ToUplink => TcAttachType::Egress,
        }
    }
}

/// Why a program is not on a device.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// There is no such device here.
    #[error("device {ifindex}: {source}; it is gone, or in another network namespace")]
    Device {
        /// Its index.
        ifindex: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel refuses the program there.
    #[error(
        "program {program} at {device}: {cause}; the daemon needs CAP_NET_ADMIN, and the kernel tcx or the clsact qdisc"
    )]
    Program {
        /// Which.
        program: &'static str,
        /// Where.
        device: String,
        /// The chain of causes.
        cause: String,
    },
    /// A pin cannot be made or removed.
    #[error("pin {path}: {source}; the bpf file system must be writable for the daemon")]
    Pin {
        /// Where.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
}

impl Tables {
    /// Puts both programs on a workload's host side. Write its entry first ([`Tables::switch`]): a device without one
    /// passes nothing. Where the programs are already, they are replaced in one step.
    pub fn attach(&self, ifindex: u32) -> Result<(), AttachError> {
        let device = name_of(ifindex)?;
        WORKLOAD.iter().try_for_each(|program| self.programs.place(ifindex, &device, *program))
    }

    /// Puts back what somebody removed from a workload's device; whether there was anything to put back.
    pub fn ensure_attached(&self, ifindex: u32) -> Result<bool, AttachError> {
        let mut repaired = false;
        for program in WORKLOAD {
            repaired |= self.programs.ensure(ifindex, program)?;
        }
        Ok(repaired)
    }

    /// Whether filters hold a workload's programs though the kernel has tcx: where one goes, netlink says so.
    pub fn is_young(&self, ifindex: u32) -> bool {
        self.programs.is_young(ifindex)
    }

    /// Has links hold the programs of the next workload whose time has come; `false` where there is none.
    pub fn settle_one(&self) -> Result<bool, AttachError> {
        match self.programs.grown_up().map(|ifindex| self.hold_by_links(ifindex)) {
            None => Ok(false),
            Some(Err(AttachError::Device { .. })) => Ok(true), // it is gone
            Some(held) => held.map(|()| true),
        }
    }

    /// The same with this workload's device, at once. Needs tcx.
    pub fn hold_by_links(&self, ifindex: u32) -> Result<(), AttachError> {
        self.programs.hold_by_links(ifindex)
    }

    /// Takes both programs from a workload's device, which may be gone: from then on everything passes there.
    pub fn detach(&self, ifindex: u32) -> Result<(), AttachError> {
        WORKLOAD.iter().try_for_each(|program| self.programs.take_away(ifindex, *program))
    }

    /// Puts the program on tg0.
    pub fn attach_service(&self, tg0: u32) -> Result<(), AttachError> {
        self.programs.place(tg0, &name_of(tg0)?, Program::FromService)
    }

    /// Puts back what somebody removed from tg0; whether there was anything to put back.
    pub fn ensure_service_attached(&self, tg0: u32) -> Result<bool, AttachError> {
        self.programs.ensure(tg0, Program::FromService)
    }

    /// Takes the program from tg0.
    pub fn detach_service(&self, tg0: u32) -> Result<(), AttachError> {
        self.programs.take_away(tg0, Program::FromService)
    }

    /// Puts the program on the inspector's TAP.
    pub fn attach_tap(&self, tap: u32) -> Result<(), AttachError> {
        self.programs.place(tap, &name_of(tap)?, Program::FromTap)
    }

    /// Puts back what somebody removed from the TAP; whether there was anything to put back.
    pub fn ensure_tap_attached(&self, tap: u32) -> Result<bool, AttachError> {
        self.programs.ensure(tap, Program::FromTap)
    }

    /// Takes the program from a TAP, which may be gone.
    pub fn detach_tap(&self, tap: u32) -> Result<(), AttachError> {
        self.programs.take_away(tap, Program::FromTap)
    }

    /// Puts both programs on the uplink. They let through what is of no workload ([`Tables::set_uplink`] says for whom) and
    /// of no masqueraded network ([`Tables::set_translation`]).
    pub fn attach_uplink(&self, uplink: u32) -> Result<(), AttachError> {
        let device = name_of(uplink)?;
        UPLINK.iter().try_for_each(|program| self.programs.place(uplink, &device, *program))
    }

    /// Puts back what somebody removed from the uplink; whether there was anything to put back.
    pub fn ensure_uplink_attached(&self, uplink: u32) -> Result<bool, AttachError> {
        let mut repaired = false;
        for program in UPLINK {
            repaired |= self.programs.ensure(uplink, program)?;
        }
        Ok(repaired)
    }

    /// Takes both programs from a device that was the uplink, and may be gone.
    pub fn detach_uplink(&self, uplink: u32) -> Result<(), AttachError> {
        UPLINK.iter().try_for_each(|program| self.programs.take_away(uplink, *program))
    }

    /// Listens at a VLAN parent; puts back what somebody removed, and says whether it had to.
    pub fn ensure_trunk_attached(&self, parent: u32) -> Result<bool, AttachError> {
        self.programs.ensure(parent, Program::FromTrunk)
    }

    /// Listens there no longer; it may be gone.
    pub fn detach_trunk(&self, parent: u32) -> Result<(), AttachError> {
        self.programs.take_away(parent, Program::FromTrunk)
    }

    /// Parents of VLANs where links of an earlier run listen.
    pub fn linked_trunks(&self) -> BTreeSet<u32> {
        self.programs.linked_devices(&[Program::FromTrunk])
    }

    /// Whether links hold the programs (tcx), or filters of clsact.
    pub fn has_tcx(&self) -> bool {
        self.programs.tcx
    }

    /// Runs a program on one Ethernet frame, as if it came through `ifindex` after entering the node at `entered_by`
    /// (0: the node itself). Tables and counters change as by a real packet.
    pub fn try_frame(&self, program: Program, frame: &[u8], ifindex: u32, entered_by: u32) -> io::Result<Answer> {
        self.repeat_frame(program, frame, ifindex, entered_by, 1)
    }

    /// [`Self::try_frame`] of what a workload sent and the inspector gave back.
    pub fn try_returned(&self, frame: &[u8], ifindex: u32) -> io::Result<Answer> {
        test_run_marked(self.runnable(Program::FromWorkload.name())?.as_fd(), frame, (ifindex, 0), MARK_RETURNED, 1)
    }

    fn runnable(&self, name: &str) -> io::Result<OwnedFd> {
        let mut ebpf = self.programs.lock();
        let loaded = classifier(&mut ebpf, name).map_err(|e| io::Error::other(e.to_string()))?;
        loaded.fd().map_err(io::Error::other)?.as_fd().try_clone_to_owned()
    }

    /// Sends an Ethernet frame by a device. Needs no raw socket, and so no capability for one.
    pub fn send_frame(&self, frame: &[u8], ifindex: u32) -> io::Result<()> {
        match test_run(self.runnable(SENDER)?.as_fd(), frame, ifindex, 0, 1)?.action {
            TC_ACT_UNSPEC => Ok(()),
            _ => Err(io::Error::other("the device did not take the frame")),
        }
    }

    /// [`Self::try_frame`], `repeat` times on the same frame: for the mean time of a run.
    pub fn repeat_frame(
        &self,
        program: Program,
        frame: &[u8],
        ifindex: u32,
        entered_by: u32,
        repeat: u32,
    ) -> io::Result<Answer> {
        test_run(self.runnable(program.name())?.as_fd(), frame, ifindex, entered_by, repeat)
    }

    /// This build's programs in the place of an earlier run's. Pins of devices that are gone are removed.
    pub(crate) fn replace_programs(&self) -> Result<(), AttachError> {
        let entries = self.workloads().unwrap_or_default();
        let tg0 = self.tg0_ifindex();
        self.replace_uplink_program()?;
        let mut devices =
            self.programs.linked_devices(&[Program::FromWorkload, Program::ToWorkload, Program::FromService]);
        devices.extend(entries.keys());
        devices.extend(tg0);
        for ifindex in devices {
            let service = tg0 == Some(ifindex);
            let replaced = match (interface::name(ifindex).is_ok(), service) {
                (true, true) => self.attach_service(ifindex),
                (true, false) => self.attach(ifindex),
                (false, true) => self.detach_service(ifindex),
                (false, false) => self.detach(ifindex),
            };
            match replaced {
                // it went away between the question and the answer
                Err(_) if interface::name(ifindex).is_err() => {}
                other => other?,
            }
        }
        Ok(())
    }

    fn replace_uplink_program(&self) -> Result<(), AttachError> {
        let there = |ifindex: &u32| interface::name(*ifindex).is_ok();
        let uplinks: BTreeSet<u32> = [self.uplink(), self.nat_device()].into_iter().flatten().filter(there).collect();
        for former in self.programs.linked_devices(&UPLINK).difference(&uplinks) {
            self.detach_uplink(*former)?;
        }
        for ifindex in uplinks {
            match self.attach_uplink(ifindex) {
                // it went away between the question and the answer
                Err(_) if interface::name(ifindex).is_err() => {}
                attached => attached?,
            }
        }
        Ok(())
    }
}

/// An error with its causes: "a: b: c".
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        text = format!("{text}: {e}");
        cause = e.source();
    }
    text
}

fn name_of(ifindex: u32) -> Result<String, AttachError> {
    interface::name(ifindex).map_err(|source| AttachError::Device { ifindex, source })
}
