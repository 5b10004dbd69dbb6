//! The programs on a device, so that they stay when this process is killed.
//!
//! Where the kernel has tcx, a pinned link holds each program at the head of the device's list, and a new build's program
//! takes its place in one step. Elsewhere it is a filter of the clsact qdisc at a fixed priority and handle, replaced in
//! one step too. What somebody else removed, [`Tables::ensure_attached`] puts back.
//!
//! Pinned: `links/<ifindex>-<program>` (tcx only) and `programs/<program>`. One lock, around the loaded programs.

use std::collections::BTreeSet;
use std::error::Error;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle, qdisc_add_clsact};
use aya::programs::{LinkOrder, ProgramError, RawTracePoint, SchedClassifier, TcAttachType};
use aya::{Ebpf, programs};

use super::tables::Tables;
use crate::sys::bpf::detach_link;
use crate::sys::bpf_query::tcx_programs;
use crate::sys::bpf_test_run::{Answer, test_run, test_run_marked};
use crate::sys::interface;

/// `lo` of every network namespace.
const LOOPBACK: u32 = 1;
/// Before other people's filters, which would decide first otherwise.
const PRIORITY: u16 = 1;
const HANDLE: TcHandle = TcHandle::new(0, 0x7467);
/// How long a program is offered again whose verification signals interrupt. A count of tries was not enough: twenty
/// of a few milliseconds each were all interrupted on one busy machine.
const LOAD_PATIENCE: Duration = Duration::from_secs(30);

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
}

/// The program that the daemon runs itself, on frames that are to leave by a device.
const SENDER: &str = "send_frame";
/// Those that it runs without a frame.
const SWEEPER: &str = "sweep_now";
const SETTLER: &str = "settle_held";
/// Of frames that come back from the inspector (`bpf/tables.h`).
const MARK_RETURNED: u32 = 0x7467_6874;
/// `linux/pkt_cls.h`
const TC_ACT_UNSPEC: i32 = -1;

const ALL: [Program; 6] = [
    Program::FromWorkload,
    Program::ToWorkload,
    Program::FromService,
    Program::FromUplink,
    Program::ToUplink,
    Program::FromTap,
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
        }
    }

    const fn is_egress(self) -> bool {
        match self {
            Self::ToWorkload | Self::ToUplink => true,
            Self::FromWorkload | Self::FromService | Self::FromUplink | Self::FromTap => false,
        }
    }

    const fn direction(self) -> TcAttachType {
        match self {
            Self::FromWorkload | Self::FromService | Self::FromUplink | Self::FromTap => TcAttachType::Ingress,
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

/// The loaded programs.
#[derive(Debug)]
pub(crate) struct Programs {
    loaded: Mutex<Ebpf>,
    sweeper: OwnedFd,
    settler: OwnedFd,
    /// The kernel's numbers of [`ALL`], in that order.
    numbers: [u32; ALL.len()],
    tcx: bool,
    links: PathBuf,
}

impl Programs {
    /// Gives the object's programs to the kernel and pins them; answers the one that starts the sweeper, too.
    pub(crate) fn load(mut ebpf: Ebpf, folder: &Path) -> Result<(Self, OwnedFd), Box<dyn Error>> {
        load(classifier(&mut ebpf, SENDER)?)?;
        let mut numbers = [0; ALL.len()];
        for (program, number) in ALL.into_iter().zip(&mut numbers) {
            let path = folder.join("programs").join(program.name());
            let loaded = classifier(&mut ebpf, program.name())?;
            load(loaded)?;
            *number = loaded.info()?.id();
            // a pin cannot be replaced, and nothing hangs on it: links and filters hold their program themselves
            if path.exists() {
                fs::remove_file(&path)?;
            }
            loaded.pin(&path)?;
        }
        let starter = classifier(&mut ebpf, "start_sweeper")?;
        load(starter)?;
        let starter = starter.fd()?.as_fd().try_clone_to_owned()?;
        let (sweeper, settler) = (runner(&mut ebpf, SWEEPER)?, runner(&mut ebpf, SETTLER)?);
        let tcx = tcx_programs(LOOPBACK, false).is_ok();
        Ok((Self { loaded: Mutex::new(ebpf), sweeper, settler, numbers, tcx, links: folder.join("links") }, starter))
    }

    /// What takes stale entries out of one table.
    pub(crate) fn sweeper(&self) -> BorrowedFd<'_> {
        self.sweeper.as_fd()
    }

    /// What writes a verdict into a held flow.
    pub(crate) fn settler(&self) -> BorrowedFd<'_> {
        self.settler.as_fd()
    }

    fn lock(&self) -> MutexGuard<'_, Ebpf> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pin_path(&self, ifindex: u32, program: Program) -> PathBuf {
        self.links.join(format!("{ifindex}-{}", program.name()))
    }

    /// Puts the program there, in the place of an older one of ours.
    fn place(&self, ifindex: u32, device: &str, program: Program) -> Result<(), AttachError> {
        let mut ebpf = self.lock();
        let failed = |e: &(dyn Error + 'static)| AttachError::Program {
            program: program.name(),
            device: device.to_owned(),
            cause: chain(e),
        };
        let loaded = classifier(&mut ebpf, program.name()).map_err(|e| failed(&*e))?;
        if self.tcx {
            let path = self.pin_path(ifindex, program);
            if update_link(loaded, &path).is_ok() && self.is_listed(ifindex, program).map_err(|e| failed(&e))? {
                return Ok(());
            }
            detach_link(&path).map_err(|source| AttachError::Pin { path: path.clone(), source })?;
            return link(loaded, device, program, &path).map_err(|e| failed(&*e));
        }
        replace_filter(loaded, device, program).or_else(|_| add_filter(loaded, device, program)).map_err(|e| failed(&e))
    }

    /// Whether it had to be put back. One call of the kernel where nothing is amiss and links hold the programs.
    fn ensure(&self, ifindex: u32, program: Program) -> Result<bool, AttachError> {
        if self.tcx && self.is_listed(ifindex, program).unwrap_or(false) {
            return Ok(false);
        }
        let device = name_of(ifindex)?;
        if !self.tcx
            && classifier(&mut self.lock(), program.name())
                .is_ok_and(|loaded| replace_filter(loaded, &device, program).is_ok())
        {
            return Ok(false);
        }
        self.place(ifindex, &device, program)?;
        Ok(true)
    }

    fn is_listed(&self, ifindex: u32, program: Program) -> io::Result<bool> {
        Ok(tcx_programs(ifindex, program.is_egress())?.contains(&self.numbers[program as usize]))
    }

    fn take_away(&self, ifindex: u32, program: Program) -> Result<(), AttachError> {
        if self.tcx {
            let path = self.pin_path(ifindex, program);
            return detach_link(&path).map_err(|source| AttachError::Pin { path, source });
        }
        if let Ok(device) = interface::name(ifindex) {
            drop(filter(&device, program)); // dropping it removes the filter; one that is not there is no failure
        }
        Ok(())
    }

    /// Devices that a pinned link of one of these programs names.
    fn linked_devices(&self, programs: &[Program]) -> BTreeSet<u32> {
        let names = fs::read_dir(&self.links).into_iter().flatten().flatten().map(|entry| entry.file_name());
        let device = |name: std::ffi::OsString| {
            let (ifindex, program) = name.to_str()?.split_once('-')?;
            programs.iter().any(|known| known.name() == program).then(|| ifindex.parse().ok())?
        };
        names.filter_map(device).collect()
    }
}

impl Tables {
    /// Puts both programs on a workload's host side. Write its entry first ([`Tables::switch`]): a device without one
    /// passes nothing. The kernel waits for its readers twice (20–30 ms on a busy machine); where the programs are already,
    /// they are replaced in one step.
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

fn classifier<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier, Box<dyn Error>> {
    Ok(named(ebpf, name)?.try_into()?)
}

fn named<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut programs::Program, String> {
    ebpf.program_mut(name).ok_or_else(|| format!("no program {name} in the object"))
}

fn runner(ebpf: &mut Ebpf, name: &str) -> Result<OwnedFd, Box<dyn Error>> {
    let program: &mut RawTracePoint = named(ebpf, name)?.try_into()?;
    patiently(|| program.load())?;
    Ok(program.fd()?.as_fd().try_clone_to_owned()?)
}

fn load(program: &mut SchedClassifier) -> Result<(), ProgramError> {
    patiently(|| program.load())
}

/// Gives one program to the kernel. A signal to this thread (a stopped and continued process is one) ends the verifier
/// half way with `EAGAIN` (`do_check` in kernel/bpf/verifier.c): it is asked again, for at most [`LOAD_PATIENCE`].
fn patiently(mut load: impl FnMut() -> Result<(), ProgramError>) -> Result<(), ProgramError> {
    let begin = Instant::now();
    loop {
        match load() {
            Err(ProgramError::LoadError { io_error, .. })
                if io_error.raw_os_error() == Some(libc::EAGAIN) && begin.elapsed() < LOAD_PATIENCE =>
            {
                thread::yield_now();
            }
            other => return other,
        }
    }
}

/// The pinned link's program becomes this one, in one step. Fails if the link's device is gone.
fn update_link(program: &mut SchedClassifier, pin: &Path) -> Result<(), Box<dyn Error>> {
    let link = SchedClassifierLink::try_from(FdLink::from(PinnedLink::from_pin(pin)?))?;
    let id = program.attach_to_link(link)?;
    program.take_link(id)?; // closes this process's handle; the pin holds the link
    Ok(())
}

fn link(program: &mut SchedClassifier, device: &str, which: Program, pin: &Path) -> Result<(), Box<dyn Error>> {
    let order = TcAttachOptions::TcxOrder(LinkOrder::first());
    let id = program.attach_with_options(device, which.direction(), order)?;
    FdLink::try_from(program.take_link(id)?)?.pin(pin)?;
    Ok(())
}

/// Our filter at a device, as aya names it. Dropping it removes the filter.
fn filter(device: &str, which: Program) -> io::Result<SchedClassifierLink> {
    SchedClassifierLink::attached(device, which.direction(), PRIORITY, HANDLE, None)
}

/// In one step; fails if there is no filter of ours.
fn replace_filter(program: &mut SchedClassifier, device: &str, which: Program) -> Result<(), ProgramError> {
    let there = filter(device, which).map_err(ProgramError::IOError)?;
    let id = program.attach_to_link(there)?;
    std::mem::forget(program.take_link(id)?);
    Ok(())
}

fn add_filter(program: &mut SchedClassifier, device: &str, which: Program) -> Result<(), ProgramError> {
    let _there_already = qdisc_add_clsact(device);
    let options = TcAttachOptions::Netlink(NlOptions { priority: PRIORITY, handle: HANDLE, classid: None });
    let id = program.attach_with_options(device, which.direction(), options)?;
    std::mem::forget(program.take_link(id)?);
    Ok(())
}
