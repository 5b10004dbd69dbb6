//! What one packet costs in the programs, by `BPF_PROG_TEST_RUN`: the daemon's own loaded programs, tables and policy, in
//! the lane of [`Lane::tidegate`], without sending anything.
//!
//! Single runs, each after a system call, find cold caches and have the clock in them. Where a run changes neither the
//! frame nor the tables it is repeated in the kernel too, as packets in a row are.

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use aya::programs::ProgramInfo;
use gateway::sys::bpf_test_run::test_run;
use integration::frame::{Mac, ethernet, udp};
use serde_json::{Value, json};

use crate::lane::{Lane, SINK, UDP_PORT};
use crate::statistics::{Median, median};

/// Single runs for each path.
const RUNS: u16 = 2_000;
/// Runs in a row, and how often.
const ROW: u32 = 1_000;
const ROWS: u16 = 200;
/// Runs that fill a workload's share of events and answers before those without are measured.
const WARM: u16 = 1_500;
/// Not allowed by the lane's rules.
const DENIED_PORT: u16 = 7;

const NEW_FLOW: &str = "new flow, not told";

const DROP: i32 = 2;
const REDIRECT: i32 = 7;
pub(crate) const STACK: i32 = -1;

/// The programs' costs.
pub(crate) struct Costs {
    ways: Vec<Way>,
    programs: Vec<(&'static str, u32, u32)>,
}

/// Nanoseconds of a packet's way.
struct Way {
    name: &'static str,
    single: Median,
    in_a_row: Option<Median>,
}

/// A loaded program.
pub(crate) struct Program {
    name: &'static str,
    descriptor: OwnedFd,
    /// As the verifier left it, and how many it walked.
    instructions: (u32, u32),
}

/// Runs every path in this lane.
pub(crate) fn measure(lane: &Lane) -> Costs {
    let folder = lane.programs().expect("a lane with programs");
    let [out, back, uplink] = ["from_workload", "to_workload", "from_uplink"].map(|name| Program::open(&folder, name));
    let gateway = lane.next_hop();
    let device = lane.host_side();
    let frame = |to: Mac, from: Mac, source: (_, u16), destination: (_, u16)| {
        ethernet(to, from, 0x0800, &udp(source, destination, &[0; 18]))
    };
    let (client, sink) = (lane.address.into(), SINK.into());
    let sends = |port: u16, to: u16, hop: Mac| frame(hop, lane.mac, (client, port), (sink, to));
    let answers = |port: u16, to: Mac, from: Mac| frame(to, from, (sink, UDP_PORT), (client, port));
    let elsewhere = Mac([2, 0, 0, 0, 0xee, 1]);
    let (node, sinks) = lane.sinks_next_hop();
    let at_uplink = lane.node.ip_json("link show dev eth0")[0]["ifindex"].as_u64().expect("the uplink") as u32;

    lane.node.enter(|| {
        let mut ways = Vec::new();
        let mut way = |name: &'static str, program: &Program, device, action, frame: &dyn Fn(u16) -> Vec<u8>| {
            let run = |number| program.run(&frame(number), device, action, 1);
            let single = median(&(0..RUNS).map(run).collect::<Vec<_>>());
            let repeatable = action != REDIRECT && name != NEW_FLOW;
            let row = |_| program.run(&frame(0), device, action, ROW);
            let in_a_row = repeatable.then(|| median(&(0..ROWS).map(row).collect::<Vec<_>>()));
            ways.push(Way { name, single, in_a_row });
        };
        // Shares of events and of answers are of a second each: what is over them costs no more than these.
        let first = |number| sends(10_000 + number, UDP_PORT, elsewhere);
        for number in 0..WARM {
            out.run(&first(number), device, STACK, 1);
        }
        way(NEW_FLOW, &out, device, STACK, &|n| sends(20_000 + n, UDP_PORT, elsewhere));
        way("open flow, to the stack", &out, device, STACK, &|_| sends(20_000, UDP_PORT, elsewhere));
        way("open flow, past the stack", &out, device, REDIRECT, &|_| sends(20_000, UDP_PORT, gateway));
        way("its answer, by the stack", &back, device, STACK, &|_| answers(20_000, lane.mac, gateway));
        way("its answer, past the stack", &uplink, at_uplink, REDIRECT, &|_| answers(20_000, node, sinks));
        for number in 0..WARM {
            test_run(out.descriptor.as_fd(), &sends(30_000 + number, DENIED_PORT, gateway), device, 0, 1)
                .expect("a run");
        }
        way("denied, not told", &out, device, DROP, &|n| sends(40_000 + n, DENIED_PORT, gateway));
        way("another's address", &out, device, DROP, &|n| frame(gateway, lane.mac, (SINK.into(), n), (sink, UDP_PORT)));
        let programs = [out, back, uplink].iter().map(|it| (it.name, it.instructions.0, it.instructions.1)).collect();
        Costs { ways, programs }
    })
}

impl Program {
    pub(crate) fn open(folder: &Path, name: &'static str) -> Self {
        let info = ProgramInfo::from_pin(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let descriptor = info.fd().expect("the pinned program").as_fd().try_clone_to_owned().expect("it twice");
        let translated = info.size_translated().unwrap_or(0) / 8;
        Self { name, descriptor, instructions: (translated, info.verified_instruction_count().unwrap_or(0)) }
    }

    /// Nanoseconds of a run, the mean of so many.
    pub(crate) fn run(&self, frame: &[u8], device: u32, action: i32, times: u32) -> f64 {
        let answer = test_run(self.descriptor.as_fd(), frame, device, 0, times).expect("BPF_PROG_TEST_RUN");
        assert_eq!(answer.action, action, "{}", self.name);
        answer.took.as_nanos() as f64
    }
}

impl Costs {
    pub(crate) fn json(&self) -> Value {
        let cost = |it: &Median| json!({ "medianNs": it.value, "lowNs": it.low, "highNs": it.high });
        let way = |way: &Way| {
            (way.name.to_owned(), json!({ "single": cost(&way.single), "inARow": way.in_a_row.as_ref().map(cost) }))
        };
        let paths: serde_json::Map<String, Value> = self.ways.iter().map(way).collect();
        let programs: serde_json::Map<String, Value> = self
            .programs
            .iter()
            .map(|(name, size, walked)| ((*name).to_owned(), json!({ "instructions": size, "verified": walked })))
            .collect();
        json!({ "paths": paths, "programs": programs })
    }
}

impl fmt::Display for Costs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\none packet in the programs, ns by BPF_PROG_TEST_RUN, medians")?;
        writeln!(f, "  {:<28} {:>6}  {:>8}", "", "single", "in a row")?;
        for Way { name, single, in_a_row } in &self.ways {
            let row = in_a_row.map_or("-".to_owned(), |it| format!("{:.0}", it.value));
            writeln!(f, "  {name:<28} {:>6.0}  {row:>8}", single.value)?;
        }
        for (name, size, walked) in &self.programs {
            writeln!(f, "  {name:<28} {size:>6} instructions, of which the verifier walked {walked}")?;
        }
        Ok(())
    }
}
