//! DNS for a client: Debian's `dnsmasq`, which puts addresses into a set of nftables (`--nftset`), against a workload whose
//! policy allows names. Both ask the same [`unbound`](ways) beyond.
//!
//! 1. [`ways`] builds a node with each of them, and one where the client asks the server beyond by itself.
//! 2. [`load`] has `dnsperf` ask: names that are kept, and names that are new each time; at one rate for what the machine
//!    computes, and at full speed for lookups a second.
//! 3. [`latency`] asks one question at a time for a name that is kept, and for a new one: at an address of 160 000 names, too.
//! 4. [`first`] connects at once to what a lookup gave, and counts the SYNs that had to be sent again.

mod first;
mod latency;
mod load;
mod ways;

use std::time::Duration;

use crate::report::Measurement;

/// Measures it all; also lines for people. `lookups`: how many are followed by a connection.
pub(crate) fn measure(slices: u32, slice: Duration, lookups: u32) -> (Vec<Measurement>, Vec<String>) {
    let direct = ways::direct();
    let ways = [ways::dnsmasq(), ways::tidegate()];
    ways.iter().for_each(ways::Way::opens_what_it_answers);
    let mut measurements = load::measure(&ways, slices, slice);
    let [dnsmasq, tidegate] = &ways;
    measurements.extend(latency::measure([&direct, dnsmasq, tidegate], slices, slice));
    measurements.extend(latency::measure_new(tidegate, slices, slice));
    drop((direct, ways));
    let (more, first) = first::measure(lookups);
    measurements.extend(more);
    (measurements, vec![ways::RAISED.to_owned(), load::PEERS_NOTE.to_owned(), first])
}

/// Values of all ways without those of the first turn, which warms up.
fn without_first(values: &[Vec<f64>]) -> Vec<Vec<f64>> {
    values.iter().map(|way| way[1..].to_vec()).collect()
}
