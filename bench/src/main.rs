//! Side-by-side measurements: an enforced workload against plain routing and against the same rules in nftables.
//!
//! 1. [`lane`] builds three worlds of one shape: client, node, sink.
//! 2. [`packets`] sends 64-byte packets and answers, [`bulk`] TCP of one and of eight connections, [`connects`] opens and closes
//!    connections; each a slice of time at a time.
//! 3. [`nat`] sends packets and answers whose source is translated.
//! 4. [`flood`] sends packets beside another workload's denied ones; [`costs`] runs single packets through the loaded programs.
//! 5. [`attach`] times workloads that come to a node with few and with many others.
//! 6. [`prefixes`] loads a [`feed`] of a million prefixes, and changes them one by one through the [`api`], with a [`probe`].
//! 7. [`verified`] opens connections that must name an allowed host, beside the [`proxies`] that read handshakes.
//! 8. [`dns`] looks up names, beside `dnsmasq`, and connects at once to what it was answered.
//! 9. [`cni`] adds and takes away containers as an engine does, beside Debian's plugins.
//! 10. [`many`] makes 4 094 networks, beside `ip -batch`.
//! 11. [`statistics`] takes the ratio of lanes slice by slice, and the median of the ratios with its interval.
//! 12. [`report`] prints the table and writes JSON.
//!
//! Lanes take turns, slice by slice and in changing order, so that a slow moment of the machine hits all alike; still
//! only the ratios mean anything.

mod api;
mod attach;
mod bulk;
mod cni;
mod connects;
mod costs;
mod dns;
mod feed;
mod flood;
mod lane;
mod many;
mod nat;
mod packets;
mod prefixes;
mod probe;
mod processor;
mod proxies;
mod report;
mod statistics;
mod verified;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::TypedValueParser as _;
use clap::{Parser, ValueEnum};

use crate::lane::Lane;
use crate::report::{Measurement, Report};

/// Measures packets and bytes a second through plain routing, nftables and Tidegate.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Measures one thing by itself.
    #[arg(long, value_enum, default_value_t = Only::Egress)]
    only: Only,
    /// Workloads on the node when the last ones are attached.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(30..=1000).map(usize::from))]
    workloads: usize,
    /// Prefixes of the address set.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1_000..=1_000_000).map(|n| n as usize))]
    prefixes: usize,
    /// Loads of the whole address set, here and in nftables; turns with very many networks.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Changes of single prefixes.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(2..=10_000).map(usize::from))]
    changes: usize,
    /// Slices for each lane and measurement.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(3..=10_000))]
    slices: u32,
    /// Milliseconds of one slice.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(10..=60_000))]
    slice_ms: u64,
    /// Lookups that are followed by a connection.
    #[arg(long, default_value_t = 300_000, value_parser = clap::value_parser!(u32).range(2..=2_000_000))]
    lookups: u32,
    /// Networks made in one turn.
    #[arg(long, default_value_t = 4094, value_parser = clap::value_parser!(u16).range(10..=4094))]
    networks: u16,
    /// Where the numbers are written as JSON.
    #[arg(long, default_value = "target/bench.json")]
    json: PathBuf,
}

/// What can be measured by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Only {
    /// All of it.
    Egress,
    /// 64-byte packets, out and back.
    Packets,
    /// TCP, one connection and eight.
    Bulk,
    /// New TCP connections.
    Connects,
    /// 64-byte packets whose source is translated, and their answers.
    Nat,
    /// Allowed packets beside a flood of denied ones.
    Flood,
    /// One packet in the programs.
    Costs,
    /// Attaching with few and with many workloads on the node.
    Attach,
    /// An address set of a million prefixes.
    Prefixes,
    /// Connections whose handshake must name an allowed host; not part of all.
    Verified,
    /// Names that are looked up; not part of all.
    Dns,
    /// Containers that an engine adds and takes away; not part of all.
    Cni,
    /// Very many networks, here and with VLANs under the second kernel; not part of all.
    Many,
    /// The part of it that runs under the second kernel.
    #[value(hide = true)]
    ManyVlans,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.only == Only::ManyVlans {
        many::print_vlans(arguments.networks, arguments.rounds);
        return ExitCode::SUCCESS;
    }
    let (slices, slice) = (arguments.slices, Duration::from_millis(arguments.slice_ms));
    let wanted = |part| [Only::Egress, part].contains(&arguments.only);
    let beside = [Only::Egress, Only::Packets, Only::Bulk, Only::Connects].contains(&arguments.only);
    let mut measurements = if beside { beside_peers(slices, slice, wanted) } else { Vec::new() };
    if wanted(Only::Nat) {
        measurements.extend(nat::measure(slices, slice));
    }
    let mut notes = Vec::new();
    if wanted(Only::Flood) {
        let (flood, rate) = beside_a_flood(slices, slice);
        measurements.push(flood);
        notes.push(format!("the flood: {:.0} k denied packets/s", rate / 1e3));
    }
    if arguments.only == Only::Verified {
        let (more, said) = verified::measure(slices, slice);
        measurements.extend(more);
        notes.extend(said);
    }
    if arguments.only == Only::Dns {
        let (more, said) = dns::measure(slices, slice, arguments.lookups);
        measurements.extend(more);
        notes.extend(said);
    }
    if arguments.only == Only::Cni {
        let (more, said) = cni::measure(slices, arguments.workloads);
        measurements.extend(more);
        notes.extend(said);
    }
    if arguments.only == Only::Many {
        let (more, said) = many::measure(arguments.networks, arguments.rounds);
        measurements.extend(more);
        notes.extend(said);
    }
    let costs = wanted(Only::Costs).then(|| costs::measure(&Lane::tidegate()));
    let attaching = wanted(Only::Attach).then(|| attach::measure(arguments.workloads));
    let prefixes = wanted(Only::Prefixes).then(|| {
        let Arguments { prefixes, workloads, rounds, changes, .. } = arguments;
        prefixes::measure(prefixes::Sizes { prefixes, workloads, rounds, changes, slices, slice })
    });
    let report = Report { slices, slice, measurements, notes, costs, attaching, prefixes };
    print!("{report}");
    match report.write(&arguments.json) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {}: {error}", arguments.json.display());
            ExitCode::FAILURE
        }
    }
}

/// What three lanes are compared in.
fn beside_peers(slices: u32, slice: Duration, wanted: impl Fn(Only) -> bool) -> Vec<Measurement> {
    let lanes = [Lane::plain(), Lane::nftables(), Lane::tidegate()];
    let names = lanes.each_ref().map(|lane| lane.name);
    let mut measurements = Vec::new();
    let direct = Lane::direct();
    let with_direct: Vec<&str> = names.into_iter().chain([direct.name]).collect();
    if wanted(Only::Packets) {
        let senders: Vec<packets::Sender> = lanes.iter().chain([&direct]).map(packets::Sender::out).collect();
        let rates = in_turns(slices, senders.len(), |lane| senders[lane].slice(slice));
        measurements.push(Measurement::new(packets::OUT, &with_direct, &rates));
        measurements.push(Measurement::new(packets::ALONE, &names, &packets::alone(&rates)));
        let senders: Vec<packets::Sender> = lanes.iter().map(packets::Sender::back).collect();
        let rates = in_turns(slices, names.len(), |lane| senders[lane].slice(slice));
        measurements.push(Measurement::new(packets::BACK, &names, &rates));
    }
    if wanted(Only::Bulk) {
        for (subject, connections) in bulk::SUBJECTS {
            let streams: Vec<_> = lanes.iter().map(|lane| bulk::Streams::open(lane, connections)).collect();
            let rates = in_turns(slices, names.len(), |lane| streams[lane].slice(slice));
            measurements.push(Measurement::new(subject, &names, &rates));
        }
    }
    if wanted(Only::Connects) {
        let clients: Vec<_> = lanes.iter().chain([&direct]).map(connects::Client::new).collect();
        let rates = in_turns(slices, clients.len(), |lane| clients[lane].slice(slice));
        measurements.push(Measurement::new(connects::SUBJECT, &with_direct, &rates));
        measurements.push(Measurement::new(connects::ALONE, &names, &packets::alone(&rates)));
    }
    measurements
}

/// One lane alone and beside a flood, and how many denied packets a second that was.
fn beside_a_flood(slices: u32, slice: Duration) -> (Measurement, f64) {
    let lane = Lane::tidegate();
    let other = lane.another("flooder");
    let sender = packets::Sender::out(&lane);
    let flood = flood::Flood::new(&lane, &other);
    let rates = in_turns(slices, flood::LANES.len(), |turn| match turn {
        0 => sender.slice(slice),
        _ => flood.beside(|| sender.slice(slice)),
    });
    (Measurement::new(flood::SUBJECT, &flood::LANES, &rates), flood.rate())
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
