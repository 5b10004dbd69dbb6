//! `netctl status`

use std::collections::BTreeMap;

use clap::Args;
use config::api::{Condition, ConditionState, DnsServer, EdgeStatus, Status as Answer, Timestamp};

use super::Done;
use crate::command::Format;
use crate::failure::Failure;
use crate::output::table::Table;
use crate::output::{Colour, Output, time};
use client::Client;

/// Its arguments.
#[derive(Debug, Args)]
pub(crate) struct Status {
    /// How to answer.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

impl Status {
    pub(crate) async fn run(self, client: &Client, output: &mut Output) -> Result<Done, Failure> {
        let answer: Answer = client.get("status").await?;
        if !output.for_programs(self.output, &answer)? {
            print(output, &answer)?;
        }
        Ok(Done::Well)
    }
}

fn print(output: &mut Output, status: &Answer) -> Result<(), Failure> {
    let (colour, word) = if status.ready { (Colour::Green, "ready") } else { (Colour::Red, "not ready") };
    output.coloured_line(colour, &format!("Tidegate {} is {word}", status.version))?;
    let up = time::age(status.started.age(time::now()));
    output.line(&format!(
        "kernel {}, up {up}, generation {}, {} workloads",
        status.kernel, status.generation, status.workloads
    ))?;
    for condition in &status.conditions {
        print_condition(output, condition)?;
    }
    if !status.networks.is_empty() {
        let mut table = Table::new(&["NETWORK", "VLAN", "SEGMENT", "USED/TOTAL", "WORKLOADS", "READY"]);
        for network in &status.networks {
            let vlan = network.vlan.clone().unwrap_or_else(|| "local".to_owned());
            let used = format!("{}/{}", network.used, network.total);
            let segment = network.segment.as_ref().map_or_else(|| "-".to_owned(), |it| format!("{:?}", it.state));
            let workloads = network.workloads.to_string();
            table.row(vec![network.name.to_string(), vlan, segment, used, workloads, yes(network.ready)]);
        }
        print_table(output, &table)?;
    }
    if !status.maps.is_empty() {
        let mut table = Table::new(&["KERNEL TABLE", "ENTRIES", "MAX", "FILL"]);
        for map in &status.maps {
            let fill = format!("{}%", map.entries.saturating_mul(100).checked_div(map.max).unwrap_or(0));
            table.row(vec![map.name.clone(), map.entries.to_string(), map.max.to_string(), fill]);
        }
        print_table(output, &table)?;
    }
    print_edge(output, &status.edge)?;
    output.line("")?;
    let upstreams = status.dns.upstreams.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let upstreams = if upstreams.is_empty() { "no upstream" } else { &upstreams };
    output.line(&format!(
        "dns: asks {upstreams}; {} learned addresses; {}",
        status.dns.learned,
        counts(&status.dns.queries)
    ))?;
    for server in &status.dns.servers {
        print_server(output, server)?;
    }
    if !status.dns.held_back.is_empty() {
        output.line(&format!("dns: held back, as they ask for too many names: {}", status.dns.held_back.join(", ")))?;
    }
    if !status.fast_path.is_empty() {
        output.line(&format!("fast path: {}", status.fast_path))?;
    }
    output.line(&format!("drops: {}", counts(&status.drops)))?;
    output.line(&format!("repairs: {}", status.repairs))?;
    Ok(())
}

fn print_condition(output: &mut Output, condition: &Condition) -> Result<(), Failure> {
    let colour = match condition.state {
        ConditionState::Failed => Colour::Red,
        ConditionState::Degraded | ConditionState::Notice => Colour::Yellow,
    };
    let since = time::age(condition.since.age(time::now()));
    output
        .coloured_line(colour, &format!("{}: {} for {since}: {}", condition.state, condition.what, condition.text))?;
    if !condition.mend.is_empty() {
        output.line(&format!("  mend: {}", condition.mend))?;
    }
    Ok(())
}

fn print_server(output: &mut Output, server: &DnsServer) -> Result<(), Failure> {
    let Some(failing) = &server.failing else { return Ok(()) };
    let ago = |time: Timestamp| time::age(time.age(time::now()));
    let by = server.device.as_ref().map(|device| format!(" by {device}")).unwrap_or_default();
    let answered = server.answered.map_or_else(|| "never".to_owned(), |time| format!("{} ago", ago(time)));
    Ok(output.line(&format!(
        "dns: {}{by} does not answer for {}, {} times, last {} ago: {}; its last answer: {answered}",
        server.address,
        ago(failing.since),
        failing.times,
        ago(failing.last),
        failing.why
    ))?)
}

fn print_edge(output: &mut Output, edge: &EdgeStatus) -> Result<(), Failure> {
    if edge.apps.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(&["APP", "HOSTS", "TLS", "BACKENDS", "CERTIFICATE EXPIRES"]);
    for app in &edge.apps {
        table.row(vec![
            format!("{}/{}", app.namespace, app.name),
            app.hosts.join(","),
            app.tls.clone(),
            format!("{}/{}", app.ready_backends, app.backends),
            app.certificate_expires.map(|time| time.to_string()).unwrap_or_default(),
        ]);
    }
    print_table(output, &table)?;
    let listeners = edge.listeners.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    Ok(output.line(&format!("the edge listens on {listeners}"))?)
}

fn print_table(output: &mut Output, table: &Table) -> Result<(), Failure> {
    output.line("")?;
    Ok(output.lines(&table.render())?)
}

/// `answered 10, prohibited 2`, zeros left out.
fn counts(counts: &BTreeMap<String, u64>) -> String {
    let some: Vec<_> =
        counts.iter().filter(|(_, count)| **count > 0).map(|(word, count)| format!("{word} {count}")).collect();
    if some.is_empty() { "none yet".to_owned() } else { some.join(", ") }
}

fn yes(ready: bool) -> String {
    if ready { "yes" } else { "no" }.to_owned()
}
