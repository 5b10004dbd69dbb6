//! Processes: where a child starts, and signals by id.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

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
