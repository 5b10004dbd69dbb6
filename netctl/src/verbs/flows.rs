//! `netctl flows`

use std::io::Write;

use clap::{Args, ValueEnum};
use config::api::{Direction, Flow, FlowEvent, FlowList, Verdict};
use config::names::Name;

use super::Done;
use crate::failure::Failure;
use crate::output::table::Table;
use crate::output::{Colour, Output, time};
use client::Client;

/// Its arguments.
#[derive(Debug, Args)]
pub(crate) struct Flows {
    /// Stay, and show verdicts as they fall.
    #[arg(short, long)]
    follow: bool,
    /// Only workloads of this namespace.
    #[arg(short, long, value_name = "NS")]
    namespace: Option<Name>,
    /// Only these.
    #[arg(long, value_name = "allowed|audited|denied")]
    verdict: Option<Verdict>,
    /// At most this many, the newest.
    #[arg(long, value_name = "N", conflicts_with = "follow")]
    limit: Option<u32>,
    /// How to answer; json with --follow is one object a line.
    #[arg(short, long, value_enum, default_value_t)]
    output: Shape,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Shape {
    /// For people.
    #[default]
    Table,
    /// The admin API's JSON.
    Json,
}

impl Flows {
    pub(crate) async fn run(self, client: &Client, output: &mut Output) -> Result<Done, Failure> {
        let pairs = [
            self.namespace.as_ref().map(|namespace| format!("namespace={namespace}")),
            self.verdict.map(|verdict| format!("verdict={verdict}")),
            self.limit.map(|limit| format!("limit={limit}")),
            self.follow.then(|| "follow=true".to_owned()),
        ];
        let query = pairs.into_iter().flatten().collect::<Vec<_>>().join("&");
        let path = format!("flows{}{query}", if query.is_empty() { "" } else { "?" });
        if self.follow {
            return follow(client, output, &path, self.output).await;
        }
        let list: FlowList = client.get(&path).await?;
        match self.output {
            Shape::Json => output.json(&list)?,
            Shape::Table => print(output, &list)?,
        }
        Ok(Done::Well)
    }
}

/// The flows as a table.
pub(super) fn table<'a>(flows: impl IntoIterator<Item = &'a Flow>) -> Table {
    let mut table = Table::new(&HEADER);
    flows.into_iter().for_each(|flow| table.row(row(flow)));
    table
}

const HEADER: [&str; 10] = ["TIME", "EVENT", "VERDICT", "WORKLOAD", "PEER", "PROTO", "NAME", "REASON", "RULE", "BYTES"];

fn print(output: &mut Output, list: &FlowList) -> Result<(), Failure> {
    let text = table(&list.flows).render();
    let mut lines = text.lines();
    lines.by_ref().take(1).try_for_each(|line| output.line(line))?;
    for (line, flow) in lines.zip(&list.flows) {
        coloured(output, flow, line)?;
    }
    if list.lost > 0 {
        output.flush()?;
        // When nobody reads standard error there is nobody to tell.
        let _ = writeln!(std::io::stderr(), "{} events were lost since the gateway started", list.lost);
    }
    Ok(())
}

async fn follow(client: &Client, output: &mut Output, path: &str, shape: Shape) -> Result<Done, Failure> {
    let mut events = client.stream::<Flow>(path).await?;
    let mut table = Table::new(&HEADER);
    // Room for what comes, so that the columns seldom move.
    let typical = [13, 7, 7, 20, 24, 6, 20, 17, 30].map(|width| "-".repeat(width));
    let _ = table.later_row(typical.to_vec());
    if shape == Shape::Table {
        output.lines(&table.render())?;
        output.flush()?;
    }
    while let Some(flow) = events.next().await? {
        match shape {
            Shape::Json => output.json_line(&flow)?,
            Shape::Table => {
                let line = table.later_row(row(&flow));
                coloured(output, &flow, &line)?;
                output.flush()?;
            }
        }
    }
    Ok(Done::Well)
}

fn row(flow: &Flow) -> Vec<String> {
    let workload = match (&flow.namespace, &flow.workload) {
        (Some(namespace), Some(workload)) => format!("{namespace}/{workload}"),
        _ => flow.local.to_string(),
    };
    let arrow = match flow.direction {
        Direction::Egress => "->",
        Direction::Ingress => "<-",
    };
    vec![
        time::of_day(flow.time),
        flow.event.to_string(),
        flow.verdict.to_string(),
        workload,
        format!("{arrow} {}", flow.remote),
        flow.protocol.clone(),
        flow.name.clone().or_else(|| flow.sni.clone()).unwrap_or_default(),
        flow.reason.clone(),
        flow.rule.clone().unwrap_or_default(),
        flow.bytes.to_string(),
    ]
}

fn coloured(output: &mut Output, flow: &Flow, line: &str) -> Result<(), Failure> {
    match (flow.event, flow.verdict) {
        (_, Verdict::Denied) => output.coloured_line(Colour::Red, line)?,
        (_, Verdict::Audited) => output.coloured_line(Colour::Yellow, line)?,
        (FlowEvent::Opened, Verdict::Allowed) => output.coloured_line(Colour::Green, line)?,
        (FlowEvent::Open | FlowEvent::Dropped | FlowEvent::Revoked | FlowEvent::Closed, Verdict::Allowed) => {
            output.line(line)?
        }
    }
    Ok(())
}
