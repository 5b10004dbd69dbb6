//! Random policies and random frames through the real programs, against `policy::decide` and a plain reading of frames.
//!
//! A [`scenario`] is a node over time: policies change, workloads look names up, time passes, frames come from
//! workloads, to them, and out of the service namespace, and the inspector says what it has read of flows that wait for it
//! ([`held`]). Each frame goes through its program in the kernel
//! (`BPF_PROG_TEST_RUN`), and through the [`reference`](mod@reference), which is written from the RFCs and the header
//! comment of `tidegate.bpf.c` and shares nothing with it. Compared are the reason, what became of the frame, and after
//! each phase every counter and every open flow. A difference prints its seed and the smallest scenario that shows it.
//!
//! What skips the stack and what is translated has a proof of its own beside it ([`way`]).
//!
//! 100 000 frames in both; ten million with `TIDEGATE_LONG`. Needs root, a namespace and a bpf file system of its own.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use policy::reason::Reason;

use crate::held::Met;
use crate::programs::Programs;
use crate::scenario::Scenario;
use crate::trial::{Outcome, Seen, try_scenario};

#[path = "../../../policy/tests/verdicts/draw.rs"]
mod draw;
mod flows;
mod frames;
mod held;
#[path = "../kernel/world.rs"]
#[expect(dead_code, reason = "the programs' own tests use the rest")]
mod node;
mod packets;
#[path = "../../../policy/tests/verdicts/peers.rs"]
mod peers;
mod programs;
mod reading;
mod reference;
mod rejection;
mod scenario;
mod segment;
mod sight;
#[path = "../../../policy/tests/verdicts/text.rs"]
#[expect(dead_code, reason = "the policy's own tests use the rest")]
mod text;
mod trial;
mod way;
#[path = "../../../policy/tests/verdicts/world.rs"]
#[expect(dead_code, reason = "the other tests use more of it")]
mod world;

const FRAMES_EACH: usize = 250;
/// Tries of one scenario that the machine holds up.
const TRIES: u32 = 20;

#[test]
fn the_programs_say_what_the_documents_say() {
    let frames = counts(60_000, 5_000_000);
    let first = std::env::var("TIDEGATE_SEED").map_or(0, |seed| seed.parse().unwrap());
    let mut programs = Programs::with(|_| {});
    let mut seen = Seen::default();
    for seed in (first..).take(frames / FRAMES_EACH) {
        let scenario = Scenario::draw(seed, FRAMES_EACH);
        match judged(&mut programs, &scenario) {
            Ok(more) => seen.add(more),
            Err(difference) => panic!("TIDEGATE_SEED={seed}: {}", smallest(&mut programs, scenario, difference)),
        }
    }
    let judged: u64 = seen.reasons.values().sum();
    println!("{judged} of {frames} frames: {seen:?}");
    assert!(judged * 10 > frames as u64 * 9, "too many frames were too near to an idle time");
    let unreachable = [
        Reason::Unknown,
        Reason::TableFull,   // a test of its own fills the table
        Reason::KernelError, // no helper fails here; tests of their own see to it
        Reason::HoldFull,    // no workload sends so much here; a test of its own does
        Reason::NoInspector, // there is one; the same test takes it away
        // of packets at the uplink: the other proof
        Reason::NatExhausted,
        Reason::NatQuota,
        Reason::NatNoAddress,
    ];
    for reason in Reason::ALL.iter().filter(|reason| !unreachable.contains(reason)) {
        assert!(seen.reasons.contains_key(reason), "no frame came to {reason:?}");
    }
    for met in Met::ALL {
        assert!(seen.met.contains_key(&met), "of no flow: {met:?}");
    }
}

/// So many frames, or with `TIDEGATE_LONG` so many; `TIDEGATE_FRAMES` says another number.
fn counts(usual: usize, long: usize) -> usize {
    let said = std::env::var("TIDEGATE_FRAMES").map(|frames| frames.parse().unwrap());
    said.unwrap_or(if std::env::var_os("TIDEGATE_LONG").is_some() { long } else { usual })
}

/// The reasons on which both agree, or how they differ.
fn judged(programs: &mut Programs, scenario: &Scenario) -> Result<Seen, String> {
    for _ in 0..TRIES {
        match try_scenario(programs, scenario) {
            Outcome::Agreed(seen) => return Ok(seen),
            Outcome::Differs(difference) => return Err(difference),
            Outcome::Disturbed => {}
        }
    }
    panic!("the machine is too slow: {TRIES} runs of one scenario were held up for seconds");
}

/// Takes things away as long as the two still differ.
fn smallest(programs: &mut Programs, mut scenario: Scenario, mut difference: String) -> String {
    while let Some((smaller, other)) = scenario
        .smaller()
        .into_iter()
        .find_map(|smaller| judged(programs, &smaller).err().map(|other| (smaller, other)))
    {
        (scenario, difference) = (smaller, other);
    }
    format!("{difference}\n{scenario:#?}")
}
