//! What the whole machine computes.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A moment, and how long all processors had been idle by then.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    at: Instant,
    idle: Duration,
}

impl Moment {
    pub(crate) fn now() -> Self {
        Self { at: Instant::now(), idle: idle() }
    }

    /// How long processors have been busy since then, all together: with the kernel's own work, and with interrupts. The
    /// kernel counts idle time exactly (`CONFIG_NO_HZ_IDLE`) and tells it in hundredths of a second.
    pub(crate) fn busy_since(self) -> Duration {
        let processors = std::thread::available_parallelism().map_or(1, usize::from) as u32;
        (self.at.elapsed() * processors).saturating_sub(idle().saturating_sub(self.idle))
    }
}

/// proc_stat(5), `cpu`: what nobody ran in, `idle` and `iowait`, and what the machine did not get, `steal`.
fn idle() -> Duration {
    let text = fs::read_to_string("/proc/stat").expect("/proc/stat");
    let fields: Vec<u64> = text.split_whitespace().skip(1).take(8).map_while(|field| field.parse().ok()).collect();
    Duration::from_millis([3, 4, 7].into_iter().filter_map(|at| fields.get(at)).sum::<u64>() * 10)
}

/// What each process has computed by a moment, in the threads that it has then.
#[derive(Clone, Debug)]
pub(crate) struct Processes(BTreeMap<u32, Duration>);

impl Processes {
    /// All of them, without the kernel's own threads.
    pub(crate) fn now() -> Self {
        let entries = fs::read_dir("/proc").expect("/proc").flatten();
        let processes = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        // The kernel's threads have no program.
        let programs = processes.filter(|process| fs::read_link(format!("/proc/{process}/exe")).is_ok());
        Self(programs.map(|process| (process, process_time(process))).collect())
    }

    /// What one has computed since.
    pub(crate) fn since(&self, before: &Self, process: u32) -> Duration {
        let at = |moment: &Self| moment.0.get(&process).copied().unwrap_or_default();
        at(self).saturating_sub(at(before))
    }

    /// What all others have computed since.
    pub(crate) fn others_since(&self, before: &Self, but: &[u32]) -> Duration {
        let others = self.0.keys().filter(|process| !but.contains(process));
        others.map(|process| self.since(before, *process)).sum()
    }
}

/// proc_pid_schedstat: nanoseconds on a processor, for each thread.
fn process_time(process: u32) -> Duration {
    let threads = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let time = |thread: PathBuf| -> Option<u64> {
        fs::read_to_string(thread.join("schedstat")).ok()?.split_whitespace().next()?.parse().ok()
    };
    Duration::from_nanos(threads.filter_map(|thread| time(thread.path())).sum())
}

/// proc_pid_stat(5): what a process has computed, in its own code and in the kernel, in hundredths of a second.
pub(crate) fn process_times(process: u32) -> (Duration, Duration) {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).expect("the process's times");
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    let mut times = fields.map(|ticks| Duration::from_millis(10 * ticks.parse::<u64>().expect("a number of ticks")));
    (times.next().unwrap_or_default(), times.next().unwrap_or_default())
}
