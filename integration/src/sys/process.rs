//! Processes: where a child starts, and signals by id.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::{check, mount, netns};

/// The signals that worlds send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM
    Terminate,
    /// SIGKILL
    Kill,
    /// SIGHUP
    Reload,
    /// SIGSTOP
    Stop,
    /// SIGCONT
    Continue,
}

/// Lets the command start in that network namespace, and with that file as its `/etc/resolv.conf`. The mounts stay the
/// caller's otherwise, so that pins on the bpf file system are seen by all.
///
/// # Errors
/// When the path of `resolv_conf` has a NUL.
pub fn start_in(command: &mut Command, namespace: File, resolv_conf: Option<&Path>) -> io::Result<()> {
    let overlay = resolv_conf.map(mount::path).transpose()?;
    let prepare = move || {
        netns::enter(&namespace)?;
        match &overlay {
            Some(file) => mount::overlay_file(file, c"/etc/resolv.conf"),
            None => Ok(()),
        }
    };
    // SAFETY: between fork and exec this makes system calls only, with memory that was allocated before.
    unsafe { command.pre_exec(prepare) };
    Ok(())
}

/// Lets the command start in a session of its own: it outlives the caller and its terminal.
pub fn detach(command: &mut Command) {
    let prepare = || {
        // SAFETY: setsid takes nothing and touches no memory.
        check(unsafe { libc::setsid() }).map(drop)
    };
    // SAFETY: one system call between fork and exec.
    unsafe { command.pre_exec(prepare) };
}

/// Sends a signal to one process.
///
/// # Errors
/// When there is no such process.
pub fn send(pid: u32, signal: Signal) -> io::Result<()> {
    let number = match signal {
        Signal::Terminate => libc::SIGTERM,
        Signal::Kill => libc::SIGKILL,
        Signal::Reload => libc::SIGHUP,
        Signal::Stop => libc::SIGSTOP,
        Signal::Continue => libc::SIGCONT,
    };
    let pid = libc::pid_t::try_from(pid).ok().filter(|pid| *pid > 1).ok_or(io::ErrorKind::InvalidInput)?;
    // SAFETY: kill touches no memory; a pid above 1 names one process, never a group.
    check(unsafe { libc::kill(pid, number) }).map(drop)
}

/// One thread of another process that does not run, until this is dropped (see ptrace(2)). The thread that made it must
/// drop it.
#[derive(Debug)]
pub struct Halted(libc::pid_t);

impl Halted {
    /// Halts the thread of that process that has this name.
    ///
    /// # Errors
    /// When there is none, or it may not be traced.
    pub fn named(pid: u32, name: &str) -> io::Result<Self> {
        for entry in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            let path = entry?.path();
            if std::fs::read_to_string(path.join("comm"))?.trim_end() == name {
                let number = path.file_name().and_then(|name| name.to_str()?.parse().ok());
                return Self::of(number.ok_or(io::ErrorKind::InvalidData)?);
            }
        }
        Err(io::ErrorKind::NotFound.into())
    }

    fn of(thread: libc::pid_t) -> io::Result<Self> {
        let none = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: neither request reads or writes memory here.
        check(unsafe { libc::ptrace(libc::PTRACE_SEIZE, thread, none, none) } as libc::c_int)?;
        let halted = Self(thread);
        // SAFETY: as above.
        check(unsafe { libc::ptrace(libc::PTRACE_INTERRUPT, thread, none, none) } as libc::c_int)?;
        let mut status = 0;
        // SAFETY: the status is a live integer.
        check(unsafe { libc::waitpid(thread, &raw mut status, libc::__WALL) })?;
        Ok(halted)
    }
}

impl Drop for Halted {
    fn drop(&mut self) {
        let none = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: the request reads and writes no memory here; a thread that is gone is an error that nobody needs.
        let _gone_already = unsafe { libc::ptrace(libc::PTRACE_DETACH, self.0, none, none) };
    }
}

/// Of whom CPU time is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// This process, all its threads, those that ended included.
    Own,
    /// Processes that this one started and whose end it saw.
    Children,
}

/// CPU time until now, in programs and in the kernel (see getrusage(2)).
pub fn cpu_time(whose: Whose) -> Duration {
    let whose = match whose {
        Whose::Own => libc::RUSAGE_SELF,
        Whose::Children => libc::RUSAGE_CHILDREN,
    };
    // SAFETY: an all-zero rusage is one.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the place is a live rusage of this function's.
    check(unsafe { libc::getrusage(whose, &raw mut usage) }).expect("getrusage knows both");
    let span = |time: libc::timeval| Duration::new(time.tv_sec.cast_unsigned(), time.tv_usec as u32 * 1000);
    span(usage.ru_utime) + span(usage.ru_stime)
}

/// Keeps the calling thread on one processor.
///
/// # Errors
/// When there is no such processor.
pub fn pin_thread(processor: usize) -> io::Result<()> {
    // SAFETY: an all-zero cpu_set_t is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    if processor >= libc::CPU_SETSIZE as usize {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: the index was checked against the set's size.
    unsafe { libc::CPU_SET(processor, &mut set) };
    // SAFETY: the set is a valid cpu_set_t of the size given; 0 is the calling thread.
    check(unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) }).map(drop)
}
