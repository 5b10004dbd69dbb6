//! The loaded programs, and which way each is on its devices.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use aya::programs::{ProgramError, RawTracePoint, SchedClassifier};
use aya::{Ebpf, programs};

use super::hooks::{add_filter, link, remove_filter, replace_filter, update_link};
use super::{ALL, AttachError, Program, SENDER, WORKLOAD, chain, name_of};
use crate::sys::bpf::detach_link;
use crate::sys::bpf_query::tcx_programs;
use crate::sys::interface;

/// `lo` of every network namespace.
const LOOPBACK: u32 = 1;
/// How long a program is offered again whose verification signals interrupt. A count of tries was not enough: twenty
/// of a few milliseconds each were all interrupted on one busy machine.
const LOAD_PATIENCE: Duration = Duration::from_secs(30);

/// Those that it runs without a frame.
const SWEEPER: &str = "sweep_now";
const SETTLER: &str = "settle_held";

/// What is younger may be gone soon: containers of jobs live for seconds.
const YOUNG: Duration = Duration::from_secs(10);
/// While workloads come, nobody is to wait for links.
const QUIET: Duration = Duration::from_secs(2);

/// The loaded programs.
#[derive(Debug)]
pub(crate) struct Programs {
    loaded: Mutex<Ebpf>,
    sweeper: OwnedFd,
    settler: OwnedFd,
    /// The kernel's numbers of [`ALL`], in that order.
    numbers: [u32; ALL.len()],
    pub(super) tcx: bool,
    /// Where the kernel has tcx: workloads' devices that filters still hold, and since when.
    young: Mutex<BTreeMap<u32, Instant>>,
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
        let (loaded, young, links) = (Mutex::new(ebpf), Mutex::default(), folder.join("links"));
        Ok((Self { loaded, sweeper, settler, numbers, tcx, young, links }, starter))
    }

    /// What takes stale entries out of one table.
    pub(crate) fn sweeper(&self) -> BorrowedFd<'_> {
        self.sweeper.as_fd()
    }

    /// What writes a verdict into a held flow.
    pub(crate) fn settler(&self) -> BorrowedFd<'_> {
        self.settler.as_fd()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Ebpf> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pin_path(&self, ifindex: u32, program: Program) -> PathBuf {
        self.links.join(format!("{ifindex}-{}", program.name()))
    }

    /// Puts the program there, in the place of an older one of ours.
    pub(super) fn place(&self, ifindex: u32, device: &str, program: Program) -> Result<(), AttachError> {
        let mut ebpf = self.lock();
        let failed = |e: &(dyn Error + 'static)| program_failed(program, device, e);
        let loaded = classifier(&mut ebpf, program.name()).map_err(|e| failed(&*e))?;
        if self.tcx {
            let path = self.pin_path(ifindex, program);
            let of_a_workload = WORKLOAD.contains(&program);
            if update_link(loaded, &path).is_ok() && self.is_listed(ifindex, program).map_err(|e| failed(&e))? {
                if of_a_workload {
                    remove_filter(device, program); // of one who died before it did
                }
                return Ok(());
            }
            detach_link(&path).map_err(|source| AttachError::Pin { path: path.clone(), source })?;
            if !of_a_workload {
                return link(loaded, device, program, &path).map_err(|e| failed(&*e));
            }
            self.young().entry(ifindex).or_insert_with(Instant::now);
        }
        replace_filter(loaded, device, program).or_else(|_| add_filter(loaded, device, program)).map_err(|e| failed(&e))
    }

    /// Whether it had to be put back. One call of the kernel where nothing is amiss and links hold the programs.
    pub(super) fn ensure(&self, ifindex: u32, program: Program) -> Result<bool, AttachError> {
        if self.tcx && self.is_listed(ifindex, program).unwrap_or(false) {
            return Ok(false);
        }
        let device = name_of(ifindex)?;
        let held_by_filter = !self.tcx || self.is_young(ifindex);
        if held_by_filter
            && classifier(&mut self.lock(), program.name())
                .is_ok_and(|loaded| replace_filter(loaded, &device, program).is_ok())
        {
            return Ok(false);
        }
        self.place(ifindex, &device, program)?;
        Ok(true)
    }

    /// Links hold a workload's programs from now on, and not filters: which took the former's place a little after it, so that
    /// a frame may have been judged twice meanwhile, and alike.
    pub(super) fn hold_by_links(&self, ifindex: u32) -> Result<(), AttachError> {
        self.young().remove(&ifindex);
        let device = name_of(ifindex)?;
        for program in WORKLOAD {
            let mut ebpf = self.lock();
            if !self.is_listed(ifindex, program).unwrap_or(false) {
                let failed = |e: &(dyn Error + 'static)| program_failed(program, &device, e);
                let loaded = classifier(&mut ebpf, program.name()).map_err(|e| failed(&*e))?;
                link(loaded, &device, program, &self.pin_path(ifindex, program)).map_err(|e| failed(&*e))?;
            }
            remove_filter(&device, program);
        }
        Ok(())
    }

    /// The workload's device that filters have held for longest, if none has come for [`QUIET`] and it for [`YOUNG`].
    pub(super) fn grown_up(&self) -> Option<u32> {
        let young = self.young();
        let quiet = young.values().all(|since| since.elapsed() >= QUIET);
        let (ifindex, since) = young.iter().min_by_key(|(_, since)| **since)?;
        (quiet && since.elapsed() >= YOUNG).then_some(*ifindex)
    }

    pub(super) fn is_young(&self, ifindex: u32) -> bool {
        self.young().contains_key(&ifindex)
    }

    fn is_listed(&self, ifindex: u32, program: Program) -> io::Result<bool> {
        Ok(tcx_programs(ifindex, program.is_egress())?.contains(&self.numbers[program as usize]))
    }

    pub(super) fn take_away(&self, ifindex: u32, program: Program) -> Result<(), AttachError> {
        if self.tcx {
            let path = self.pin_path(ifindex, program);
            detach_link(&path).map_err(|source| AttachError::Pin { path, source })?;
        }
        let held_by_filter = !self.tcx || self.young().remove(&ifindex).is_some();
        if let Ok(device) = interface::name(ifindex)
            && (held_by_filter || WORKLOAD.contains(&program))
        {
            remove_filter(&device, program);
        }
        Ok(())
    }

    fn young(&self) -> MutexGuard<'_, BTreeMap<u32, Instant>> {
        self.young.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Devices that a pinned link of one of these programs names.
    pub(super) fn linked_devices(&self, programs: &[Program]) -> BTreeSet<u32> {
        let names = fs::read_dir(&self.links).into_iter().flatten().flatten().map(|entry| entry.file_name());
        let device = |name: std::ffi::OsString| {
            let (ifindex, program) = name.to_str()?.split_once('-')?;
            programs.iter().any(|known| known.name() == program).then(|| ifindex.parse().ok())?
        };
        names.filter_map(device).collect()
    }
}

pub(super) fn classifier<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier, Box<dyn Error>> {
    Ok(named(ebpf, name)?.try_into()?)
}

fn program_failed(program: Program, device: &str, cause: &(dyn Error + 'static)) -> AttachError {
    AttachError::Program { program: program.name(), device: device.to_owned(), cause: chain(cause) }
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
