//! Side-by-side measurements: an enforced workload against plain routing and against the same rules in nftables.
//!
//! 1. [`lane`] builds three worlds of one shape: client, node, sink.
//! 2. [`packets`] sends 64-byte packets, [`bulk`] one TCP connection, a slice of time at a time.
//! 3. [`statistics`] takes the ratio of lanes slice by slice, and the median of the ratios with its interval.
//! 4. [`report`] prints the table and writes JSON.
//!
//! Lanes take turns, slice by slice and in changing order, so that a slow moment of the machine hits all alike; still
//! only the ratios mean anything.

mod bulk;
mod lane;
mod packets;
mod report;
mod statistics;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use crate::lane::Lane;
use crate::report::Report;

/// Measures packets and bytes a second through plain routing, nftables and Tidegate.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Slices for each lane and measurement.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(3..=10_000))]
    slices: u32,
    /// Milliseconds of one slice.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(10..=60_000))]
    slice_ms: u64,
    /// Where the numbers are written as JSON.
    #[arg(long, default_value = "target/bench.json")]
    json: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let slice = Duration::from_millis(arguments.slice_ms);
    let lanes = [Lane::plain(), Lane::nftables(), Lane::tidegate()];
    let names = lanes.each_ref().map(|lane| lane.name);

    let bulk: Vec<bulk::Stream> = lanes.iter().map(bulk::Stream::open).collect();
    let packets: Vec<packets::Sender> = lanes.iter().map(packets::Sender::new).collect();
    let by_packets = in_turns(arguments.slices, names.len(), |lane| packets[lane].slice(slice));
    let by_bytes = in_turns(arguments.slices, names.len(), |lane| bulk[lane].slice(slice));

    let report = Report::new(&names, arguments.slices, slice, &by_packets, &by_bytes);
    print!("{report}");
    match report.write(&arguments.json) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {}: {error}", arguments.json.display());
            ExitCode::FAILURE
        }
    }
}

/// Rates by lane, each with one value a round. The first round warms up and is not counted.
fn in_turns(rounds: u32, lanes: usize, mut measure: impl FnMut(usize) -> f64) -> Vec<Vec<f64>> {
    let mut rates = vec![Vec::new(); lanes];
    for round in 0..=rounds as usize {
        for turn in 0..lanes {
            let lane = (round + turn) % lanes;
            let rate = measure(lane);
            if round > 0 {
                rates[lane].push(rate);
            }
        }
    }
    rates
}
