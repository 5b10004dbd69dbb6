//! Many questions, by `dnsperf` in the client's namespace.
//!
//! What a lookup costs is what the whole machine computes, without what `dnsperf` and `unbound` do, at a rate that both sides
//! bear: left are the daemon and the kernel. Work of the kernel that it does in the time of `dnsperf` or `unbound`, such as taking
//! in what they send, is left out on both sides; the whole machine's figure has it. What processes compute that have no part
//! in it is left out of all.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use integration::process::output;
use integration::sys::process::{Whose, cpu_time};

use super::ways::{KEPT, Way, ZONES};
use super::without_first;
use crate::in_turns;
use crate::processor::{Moment, Processes};
use crate::report::{Measurement, Subject};

/// For people.
pub(crate) const PEERS_NOTE: &str =
    "dnsmasq writes its set when an answer comes from beyond only: for a name that it keeps it does nothing but answer";

/// `dnsperf` runs for so long at least, as its start is part of it.
const LEAST: Duration = Duration::from_secs(1);
/// For questions that all are to be answered.
const LONGEST: Duration = Duration::from_secs(120);
/// Sockets of `dnsperf`, and questions that it has open at full speed.
const CLIENTS: &str = "8";
const OPEN: &str = "64";
/// More than anybody answers in a second.
const FASTEST: u32 = 100_000;
/// An A record behind a compressed name, in bytes.
const RECORD: f64 = 16.0;

/// One kind of names.
struct Kind {
    /// Questions a second when CPU is compared.
    rate: u32,
    /// Whether a name is asked for only once.
    new: bool,
    cost: Subject,
    whole: Subject,
    own: Subject,
    speed: Subject,
}

/// Of one slice, each for one lookup: microseconds of CPU.
struct Cost {
    /// Without `dnsperf` and `unbound`.
    cost: f64,
    /// With them.
    whole: f64,
    /// Of the daemon's process.
    own: f64,
}

const fn cpu(title: &'static str, key: &'static str) -> Subject {
    Subject { title, key, unit: 1.0, suffix: "µs" }
}

const fn speed(title: &'static str, key: &'static str) -> Subject {
    Subject { title, key, unit: 1e3, suffix: "k/s" }
}

const KINDS: [Kind; 2] = [
    Kind {
        rate: 10_000,
        new: false,
        cost: cpu("CPU for a lookup that is kept: daemon and kernel, 10 000 a second", "cpuPerKeptLookupUs"),
        whole: cpu("the same, with dnsperf and unbound", "machineCpuPerKeptLookupUs"),
        own: cpu("the same, of the daemon's process", "daemonCpuPerKeptLookupUs"),
        speed: speed("lookups a second that are kept, 64 open", "keptLookupsPerSecond"),
    },
    Kind {
        rate: 2_000,
        new: true,
        cost: cpu("CPU for a lookup of a new name: daemon and kernel, 2 000 a second", "cpuPerNewLookupUs"),
        whole: cpu("the same, with dnsperf and unbound", "machineCpuPerNewLookupUs"),
        own: cpu("the same, of the daemon's process", "daemonCpuPerNewLookupUs"),
        speed: speed("lookups a second of new names, 64 open", "newLookupsPerSecond"),
    },
];

/// Both kinds of names, each by all ways in turns.
pub(super) fn measure(ways: &[Way], slices: u32, slice: Duration) -> Vec<Measurement> {
    let time = slice.max(LEAST);
    let names: Vec<&str> = ways.iter().map(|way| way.name).collect();
    let mut loads: Vec<Load> = ways.iter().map(|way| Load { way, asked: 0, new: false }).collect();
    let mut measurements = Vec::new();
    for kind in &KINDS {
        loads.iter_mut().for_each(|load| load.new = kind.new);
        let (mut whole, mut own) = (vec![Vec::new(); ways.len()], vec![Vec::new(); ways.len()]);
        let costs = in_turns(slices, loads.len(), |turn| {
            let cost = loads[turn].cost(kind.rate, time);
            whole[turn].push(cost.whole);
            own[turn].push(cost.own);
            cost.cost
        });
        let [whole, own] = [whole, own].map(|values| without_first(&values));
        let speeds = in_turns(slices, loads.len(), |turn| loads[turn].speed(time));
        for (subject, values) in [(kind.cost, costs), (kind.whole, whole), (kind.own, own), (kind.speed, speeds)] {
            measurements.push(Measurement::new(subject, &names, &values));
        }
    }
    measurements
}

/// Has all these names looked up once; `questions` as `dnsperf` reads them.
pub(super) fn learn(way: &Way, questions: &str) {
    let load = Load { way, asked: 0, new: true };
    let said = load.ask(&load.file(questions), LONGEST, &["-q", OPEN]);
    assert_eq!(said.completed as usize, questions.lines().count(), "{}: each was answered", way.name);
}

/// Questions of one client.
struct Load<'a> {
    way: &'a Way,
    /// New names so far.
    asked: u32,
    new: bool,
}

/// What `dnsperf` said.
struct Said {
    completed: f64,
    seconds: f64,
}

impl Load<'_> {
    fn cost(&mut self, rate: u32, time: Duration) -> Cost {
        let questions = self.questions((f64::from(rate) * time.as_secs_f64()) as u32);
        let file = self.file(&questions);
        let (unbound, daemon) = (self.way.unbound.pid(), self.way.daemon.expect("a way with a daemon"));
        let before = Processes::now();
        let (ours, children) = (cpu_time(Whose::Own), cpu_time(Whose::Children));
        let moment = Moment::now();
        let said = self.ask(&file, time, &["-Q", &rate.to_string()]);
        let busy = moment.busy_since();
        let ours = cpu_time(Whose::Own) - ours + cpu_time(Whose::Children) - children;
        let after = Processes::now();
        let own = after.since(&before, daemon);
        let whole = busy.saturating_sub(after.others_since(&before, &[std::process::id(), daemon, unbound]));
        let peers = ours + after.since(&before, unbound);
        assert!(
            said.completed > 0.9 * f64::from(rate) * time.as_secs_f64(),
            "{}: {} lookups in {time:?}, not {rate} a second: the rates must be the same",
            self.way.name,
            said.completed
        );
        let [cost, whole, own] =
            [whole.saturating_sub(peers), whole, own].map(|spent| spent.as_secs_f64() * 1e6 / said.completed);
        Cost { cost, whole, own }
    }

    /// Lookups a second.
    fn speed(&mut self, time: Duration) -> f64 {
        let questions = self.questions((f64::from(FASTEST) * time.as_secs_f64()) as u32);
        let file = self.file(&questions);
        let said = self.ask(&file, time, &["-q", OPEN]);
        said.completed / said.seconds
    }

    /// As `dnsperf` reads them: so many new ones, or all that are kept.
    fn questions(&mut self, count: u32) -> String {
        let mut text = String::new();
        if self.new {
            for number in self.asked..self.asked + count {
                let _infallible = writeln!(text, "n{number}.z{}.many.example.com A", number % ZONES);
            }
            self.asked += count;
        } else {
            for number in 0..KEPT {
                let _infallible = writeln!(text, "n{number}.example.com A");
            }
        }
        text
    }

    fn file(&self, questions: &str) -> PathBuf {
        let file = self.way.lane.folder().join("questions");
        fs::create_dir_all(self.way.lane.folder()).expect("a folder for questions");
        fs::write(&file, questions).expect("a file of questions");
        file
    }

    /// Runs `dnsperf`, and looks at every answer by what it counted.
    fn ask(&self, file: &Path, time: Duration, how: &[&str]) -> Said {
        let mut command = self.way.lane.client.command("dnsperf");
        command.arg("-s").arg(self.way.server.to_string()).arg("-d").arg(file).args(["-c", CLIENTS]).args(how);
        command.arg("-l").arg(time.as_secs_f64().to_string());
        // A name that came twice would be kept.
        command.args(if self.new { &["-n", "1"][..] } else { &[] });
        let said = output(&mut command);
        assert!(said.success(), "dnsperf: {}{}", said.stdout, said.stderr);
        let value = |what: &str| -> f64 {
            let rest = said.stdout.lines().find_map(|line| line.trim().strip_prefix(what));
            let word = rest.and_then(|rest| rest.split_whitespace().next());
            let value = word.and_then(|word| word.trim_end_matches(',').parse().ok());
            value.unwrap_or_else(|| panic!("dnsperf does not say {what:?}: {}{}", said.stdout, said.stderr))
        };
        let completed = value("Queries completed:");
        let answers_have = value_after(&said.stdout, "response ") - value_after(&said.stdout, "request ");
        assert!(
            value("Response codes:       NOERROR") == completed
                && answers_have >= RECORD
                && value("Queries lost:") == 0.0,
            "{}: not every question was answered with an address: {}{}",
            self.way.name,
            said.stdout,
            said.stderr
        );
        Said { completed, seconds: value("Run time (s):") }
    }
}

fn value_after(text: &str, what: &str) -> f64 {
    let word = text.split_once(what).and_then(|(_, rest)| rest.split([',', '\n']).next());
    word.and_then(|word| word.trim().parse().ok()).unwrap_or_else(|| panic!("dnsperf does not say {what:?}: {text}"))
}
