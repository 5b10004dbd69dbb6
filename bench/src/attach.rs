//! From `netctl attach` until the workload's first connection is through, with few and with many workloads on the node; and
//! what else a node with many costs: changing a policy, detaching, starting the daemon, its memory, and its CPU time when
//! nothing happens.
//!
//! Each workload has a namespace of its own, with a policy of its own: nothing is shared between them.

use std::fmt::{self, Write as _};
use std::fs;
use std::time::{Duration, Instant};

use integration::manifests::{allow_cidrs, namespace, policy};
use integration::traffic::Target;
use integration::wait::happens_within;
use serde_json::{Value, json};

use crate::connects;
use crate::lane::{Gateway, SINK, TCP_PORT};
use crate::processor::process_times;
use crate::statistics::{Median, median};

/// Where samples are taken: numbers of workloads on the node.
const FEW: usize = 10;
const SAMPLES: usize = 20;
/// Namespaces and policies of one file, which may hold 1 000 documents.
pub(crate) const TENANTS_AT_ONCE: usize = 250;

/// Changes of a policy.
const CHANGES: usize = 10;
/// Nothing happens for this long.
const QUIET: Duration = Duration::from_secs(30);

/// What attaching took, in milliseconds, and what a node with many costs.
pub(crate) struct Attaching {
    many: usize,
    at_few: Median,
    at_many: Median,
    apply: Median,
    detach: Median,
    /// From starting the daemon until it answers, with the workloads attached, in milliseconds.
    start: f64,
    /// Of the daemon, in MiB.
    memory: f64,
    /// The daemon's CPU seconds in a minute without events.
    idle: f64,
}

/// Attaches `many` workloads, and measures the first and the last of them.
pub(crate) fn measure(many: usize) -> Attaching {
    let mut gateway = Gateway::start("    - { cidr: 10.96.0.0/14, gateway: 10.96.0.1 }\n");
    let mut manifests = String::new();
    for number in 0..many {
        if number % TENANTS_AT_ONCE == 0 && number > 0 {
            gateway.daemon.netctl().apply(&std::mem::take(&mut manifests));
        }
        let tenant = format!("ns-{number}");
        let _infallible = write!(manifests, "{}{}", namespace(&tenant, "tenant"), rules(number, number));
    }
    gateway.daemon.netctl().apply(&manifests);
    connects::listen(&gateway.sink);
    let times: Vec<f64> = (0..many).map(|number| attach(&gateway, number)).collect();
    let at = |last: usize| median(&times[last - SAMPLES.min(last)..last]);
    let (at_few, at_many) = (at(FEW + SAMPLES / 2), at(many));
    let (memory, idle) = at_rest(&gateway);
    let apply: Vec<f64> =
        (0..CHANGES).map(|turn| timed(|| drop(gateway.daemon.netctl().apply(&rules(0, turn))))).collect();
    assert_eq!(gateway.daemon.terminate(), Some(0), "the daemon ends by itself");
    let start = timed(|| gateway.daemon.restart());
    let detach: Vec<f64> = (many - SAMPLES..many)
        .map(|number| {
            let words = ["detach", &format!("w-{number}"), "-n", &format!("ns-{number}")];
            timed(|| drop(gateway.daemon.netctl().ok(&words)))
        })
        .collect();
    Attaching { many, at_few, at_many, apply: median(&apply), detach: median(&detach), start, memory, idle }
}

/// What a workload's policy allows: the sink, and an address of a number's own.
fn rules(number: usize, own: usize) -> String {
    let own = format!("198.18.{}.{}/32", own / 256, own % 256);
    let rules = allow_cidrs(&[&format!("{SINK}/32"), &own], &format!("[ {{ protocol: TCP, port: {TCP_PORT} }} ]"));
    policy(&format!("ns-{number}"), "allowed", &rules)
}

/// Milliseconds.
fn timed(work: impl FnOnce()) -> f64 {
    let begin = Instant::now();
    work();
    begin.elapsed().as_secs_f64() * 1e3
}

/// The daemon's memory, and its CPU seconds in a minute.
fn at_rest(gateway: &Gateway) -> (f64, f64) {
    let process = gateway.daemon.process().expect("a daemon that runs").pid();
    let before = cpu_seconds(process);
    // Nothing is waited for but the time.
    happens_within(QUIET, || false);
    let used = cpu_seconds(process) - before;
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("the daemon's status");
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next());
    let kib: f64 = resident.and_then(|number| number.parse().ok()).expect("the daemon's memory");
    (kib / 1024.0, used * 60.0 / QUIET.as_secs_f64())
}

fn cpu_seconds(process: u32) -> f64 {
    let (user, system) = process_times(process);
    (user + system).as_secs_f64()
}

fn attach(gateway: &Gateway, number: usize) -> f64 {
    let (tenant, name) = (format!("ns-{number}"), format!("w-{number}"));
    let netns = gateway.world.namespace(&name, None);
    let path = netns.path().to_str().expect("a path of the world is text").to_owned();
    let begin = Instant::now();
    gateway.daemon.netctl().ok(&["attach", &name, "-n", &tenant, "--netns", &path]);
    netns.must_reach(Target::Tcp((SINK, TCP_PORT).into()));
    begin.elapsed().as_secs_f64() * 1e3
}

impl Attaching {
    pub(crate) fn json(&self) -> Value {
        let one = |m: &Median| json!({ "p50Ms": m.value, "lowMs": m.low, "highMs": m.high });
        json!({
            "few": FEW, "many": self.many, "atFew": one(&self.at_few), "atMany": one(&self.at_many),
            "apply": one(&self.apply), "detach": one(&self.detach), "startMs": self.start,
            "memoryMib": self.memory, "idleCpuSecondsPerMinute": self.idle,
        })
    }
}

impl fmt::Display for Attaching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nattach until the first connection is through, p50 of {SAMPLES}")?;
        for (workloads, time) in [(FEW, &self.at_few), (self.many, &self.at_many)] {
            writeln!(f, "  at {workloads:>5} workloads {:>8.1} ms ({:.1}–{:.1})", time.value, time.low, time.high)?;
        }
        writeln!(f, "  ratio {:.2}", self.at_many.value / self.at_few.value)?;
        writeln!(f, "with {} workloads", self.many)?;
        for (what, time) in [("change of a policy", &self.apply), ("detach", &self.detach)] {
            writeln!(f, "  {what:<20} {:>8.1} ms ({:.1}–{:.1})", time.value, time.low, time.high)?;
        }
        writeln!(f, "  {:<20} {:>8.1} ms", "start of the daemon", self.start)?;
        writeln!(f, "  {:<20} {:>8.1} MiB", "memory", self.memory)?;
        writeln!(f, "  {:<20} {:>8.2} CPU seconds a minute", "at rest", self.idle)
    }
}
