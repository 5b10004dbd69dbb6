//! Every metric, with its unit, and the functions that count. Nothing else in the daemon names a metric, which clippy
//! sees to; a test compares this table with what is scraped.
//!
//! | metric | labels | what |
//! |---|---|---|
//! | `tidegate_build_info` | version | 1 |
//! | `tidegate_workloads` | | attached workloads |
//! | `tidegate_flows_total` | direction, verdict, reason | flows opened or refused (events; see the lost ones) |
//! | `tidegate_flows_open` | | entries of the flow table |
//! | `tidegate_flow_events_lost_total` | | events that found the ring full |
//! | `tidegate_packets_total` | verdict, reason | packets, by the kernel's own counters |
//! | `tidegate_bytes_total` | verdict, reason | bytes, by the kernel's own counters |
//! | `tidegate_rejections_total` | outcome | denied packets whose sender was to be told: `reset`, `icmp`; not told: `over-budget`, `failed` |
//! | `tidegate_fast_path_packets_total` | stack, way | allowed packets that may skip the node's stack: skipped it or not, and how or why |
//! | `tidegate_dns_queries_total` | outcome | queries of workloads; `answered-in-kernel` and `failed-in-kernel` by the kernel's own counters |
//! | `tidegate_dns_query_seconds` | outcome | from a query to its answer, where it was looked up |
//! | `tidegate_dns_upstream_failures_total` | | upstream servers that did not answer when they were asked |
//! | `tidegate_dns_cache_lookups_total` | result | permitted queries by where the answer is from: `hit`, `miss`, `joined` where the same was being asked already, and `kernel` |
//! | `tidegate_dns_cache_prefetches_total` | | kept answers asked for again before their time was over |
//! | `tidegate_dns_cache_evictions_total` | | kept answers that had to go before their time was over, for want of room |
//! | `tidegate_dns_cache_bytes` | | what kept answers take |
//! | `tidegate_dns_learned_addresses` | | live (workload, address) pairs |
//! | `tidegate_dns_over_bounds_total` | what | what found no room: `answer` (SERVFAIL), a `name` or a `class` of names at an address |
//! | `tidegate_inspections_total` | outcome | flows whose handshake was to be read: `passes`, `denied`, `refused` (a further QUIC connection, another ClientHello), `gone`, `failed`; packets of a flow that contradict it: `contradicted`; frames that found no room: `over-bounds`; read by the kernel's program: `at-sight` |
//! | `tidegate_held_flows` | | flows of whose handshake some bytes are here, and not all |
//! | `tidegate_held_bytes` | | what is kept of them |
//! | `tidegate_hold_seconds` | part | how long first payload was held: in the `queue`, and until its flow was `judged` |
//! | `tidegate_edge_connections_open` | | client connections |
//! | `tidegate_edge_connections_total` | app, reason | connections passed through, and those that came to no request |
//! | `tidegate_edge_requests_total` | app, code | requests that ended, whatever their end; 499: the client left before an answer |
//! | `tidegate_edge_request_seconds` | app | from the request's head to the answer's end |
//! | `tidegate_edge_certificate_not_after_seconds` | app | when the served certificate ends, since 1970 |
//! | `tidegate_reconcile_steps_total` | | steps taken to bring links, addresses and rules about |
//! | `tidegate_reconcile_errors_total` | | runs that failed and were undone, and looks at the node that failed |
//! | `tidegate_reconcile_repairs_total` | | things put back that others removed or changed |
//! | `tidegate_reconcile_seconds` | | time of a run of steps |
//! | `tidegate_map_entries` | map | entries of a kernel table |
//! | `tidegate_map_max_entries` | map | entries that a kernel table can take |
//! | `tidegate_store_commits_total` | outcome | commits of desired state: `done`, `failed` |

#![expect(clippy::disallowed_macros, reason = "the one place that names metrics")]

use std::sync::Arc;
use std::time::Duration;

use config::api::Direction;
use metrics::{SharedString, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use policy::ledger::Counters;
use policy::reason::Reason;

use crate::egress::tables::answers::Answered;
use crate::egress::tables::fill::Rejection;
use crate::egress::tables::uplink::Way;

/// Upper bounds of the time histograms, seconds.
const SECONDS: &[f64] = &[0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Why metrics could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("metrics cannot be set up: {0}; call this once in a process")]
pub struct MetricsError(String);

/// Sets up the process's recorder and describes every metric.
pub fn start() -> Result<PrometheusHandle, MetricsError> {
    let failed = |error: &dyn std::fmt::Display| MetricsError(error.to_string());
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)
        .map_err(|error| failed(&error))?
        .build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).map_err(|error| failed(&error))?;
    describe();
    gauge!("tidegate_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    Ok(handle)
}

fn describe() {
    describe_gauge!("tidegate_build_info", "The running version, always 1.");
    describe_gauge!("tidegate_workloads", Unit::Count, "Attached workloads.");
    describe_counter!("tidegate_flows_total", Unit::Count, "Flows opened or refused, by verdict and reason.");
    describe_gauge!("tidegate_flows_open", Unit::Count, "Entries of the flow table.");
    describe_counter!("tidegate_flow_events_lost_total", Unit::Count, "Flow events that found the ring full.");
    describe_counter!("tidegate_packets_total", Unit::Count, "Packets of workloads by verdict and reason.");
    describe_counter!("tidegate_bytes_total", Unit::Bytes, "Bytes of workloads by verdict and reason.");
    describe_counter!(
        "tidegate_rejections_total",
        Unit::Count,
        "Denied packets whose sender was to be told, by how that went."
    );
    describe_counter!(
        "tidegate_fast_path_packets_total",
        Unit::Count,
        "Packets that may skip the node's stack, by whether they did and how or why not."
    );
    describe_counter!("tidegate_dns_queries_total", Unit::Count, "DNS queries of workloads by outcome.");
    describe_histogram!(
        "tidegate_dns_query_seconds",
        Unit::Seconds,
        "From a query to its answer by outcome, where it was looked up."
    );
    describe_counter!(
        "tidegate_dns_upstream_failures_total",
        Unit::Count,
        "Upstream servers that did not answer when they were asked."
    );
    describe_counter!(
        "tidegate_dns_cache_lookups_total",
        Unit::Count,
        "Permitted DNS queries by where the answer is from."
    );
    describe_counter!(
        "tidegate_dns_cache_prefetches_total",
        Unit::Count,
        "Kept DNS answers asked for again before their time was over."
    );
    describe_counter!(
        "tidegate_dns_cache_evictions_total",
        Unit::Count,
        "Kept DNS answers that went for want of room."
    );
    describe_gauge!("tidegate_dns_cache_bytes", Unit::Bytes, "What kept DNS answers take.");
    describe_gauge!("tidegate_dns_learned_addresses", Unit::Count, "Live (workload, address) pairs learned from DNS.");
    describe_counter!("tidegate_dns_over_bounds_total", Unit::Count, "What DNS said and found no room, by what it is.");
    describe_counter!("tidegate_inspections_total", Unit::Count, "Held flows by what became of them.");
    describe_gauge!("tidegate_held_flows", Unit::Count, "Held flows that have not shown enough yet.");
    describe_gauge!("tidegate_held_bytes", Unit::Bytes, "What is kept of held flows.");
    describe_histogram!("tidegate_hold_seconds", Unit::Seconds, "How long first payload was held, by part.");
    describe_gauge!("tidegate_edge_connections_open", Unit::Count, "Open client connections at the edge.");
    describe_counter!(
        "tidegate_edge_connections_total",
        Unit::Count,
        "Connections passed through, or ended without a request, by app and reason."
    );
    describe_counter!("tidegate_edge_requests_total", Unit::Count, "Requests to exposed apps, by app and status code.");
    describe_histogram!("tidegate_edge_request_seconds", Unit::Seconds, "From a request's head to its answer's end.");
    describe_gauge!(
        "tidegate_edge_certificate_not_after_seconds",
        Unit::Seconds,
        "When an app's certificate ends, since 1970."
    );
    describe_counter!("tidegate_reconcile_steps_total", Unit::Count, "Steps taken on the node.");
    describe_counter!(
        "tidegate_reconcile_errors_total",
        Unit::Count,
        "Runs that failed and were undone, and looks at the node that failed."
    );
    describe_counter!("tidegate_reconcile_repairs_total", Unit::Count, "Links, rules and filters put back.");
    describe_histogram!("tidegate_reconcile_seconds", Unit::Seconds, "Time of a run of steps.");
    describe_gauge!("tidegate_map_entries", Unit::Count, "Entries of a kernel table.");
    describe_gauge!("tidegate_map_max_entries", Unit::Count, "Entries that a kernel table can take.");
    describe_counter!("tidegate_store_commits_total", Unit::Count, "Commits of desired state by outcome.");
}

/// Attached workloads now.
pub fn workloads(count: u64) {
    gauge!("tidegate_workloads").set(as_f64(count));
}

/// A flow was opened or refused.
pub fn flow(direction: Direction, reason: Reason) {
    let direction = match direction {
        Direction::Egress => "egress",
        Direction::Ingress => "ingress",
    };
    counter!("tidegate_flows_total", "direction" => direction, "verdict" => verdict(reason), "reason" => reason.word())
        .increment(1);
}

/// Entries of the flow table now.
pub fn flows_open(count: u64) {
    gauge!("tidegate_flows_open").set(as_f64(count));
}

/// Events lost since the tables were made, as the kernel counts them.
pub fn flow_events_lost(total: u64) {
    counter!("tidegate_flow_events_lost_total").absolute(total);
}

/// The kernel's counters of a reason since the tables were made.
pub fn packets(reason: Reason, packets: u64, bytes: u64) {
    counter!("tidegate_packets_total", "verdict" => verdict(reason), "reason" => reason.word()).absolute(packets);
    counter!("tidegate_bytes_total", "verdict" => verdict(reason), "reason" => reason.word()).absolute(bytes);
}

/// The kernel's counter of told senders since the tables were made.
pub fn rejections(outcome: Rejection, packets: u64) {
    counter!("tidegate_rejections_total", "outcome" => outcome.word()).absolute(packets);
}

/// The kernel's counter of a way since the tables were made.
pub fn fast_path(way: Way, packets: u64) {
    let stack = if way.skips_stack() { "skipped" } else { "taken" };
    counter!("tidegate_fast_path_packets_total", "stack" => stack, "way" => way.word()).absolute(packets);
}

/// A held flow was judged, or a frame of it found no room: the word of `egress::verify::Outcome`, or `over-bounds`.
pub fn inspection(outcome: &'static str) {
    counter!("tidegate_inspections_total", "outcome" => outcome).increment(1);
}

/// Flows whose handshake the kernel's program has read, all of them so far.
pub fn inspections_at_sight(flows: u64) {
    counter!("tidegate_inspections_total", "outcome" => "at-sight").absolute(flows);
}

/// Flows that wait for more of their handshake, and what is kept of them in bytes.
pub fn held(flows: usize, bytes: usize) {
    gauge!("tidegate_held_flows").set(as_f64(flows as u64));
    gauge!("tidegate_held_bytes").set(as_f64(bytes as u64));
}

/// How long a held frame was in the queue.
pub fn hold_queued(time: Duration) {
    histogram!("tidegate_hold_seconds", "part" => "queue").record(time.as_secs_f64());
}

/// How long a flow was held from its first frame until its frames were given back.
pub fn hold_inspected(time: Duration) {
    histogram!("tidegate_hold_seconds", "part" => "judged").record(time.as_secs_f64());
}

/// A workload's query has come to its end, the word of `egress::dns::Outcome`.
pub fn dns_query(outcome: &'static str) {
    counter!("tidegate_dns_queries_total", "outcome" => outcome).increment(1);
}

/// The kernel's counters of queries since the tables were made: it answered these itself.
pub fn dns_answered(answered: Answered) {
    let Answered { sent, failed } = answered;
    counter!("tidegate_dns_queries_total", "outcome" => "answered-in-kernel").absolute(sent);
    counter!("tidegate_dns_queries_total", "outcome" => "failed-in-kernel").absolute(failed);
    counter!("tidegate_dns_cache_lookups_total", "result" => "kernel").absolute(sent);
}

/// A query that was looked up has come to its end after this time; count it with [`dns_query`] too.
pub fn dns_query_time(outcome: &'static str, time: Duration) {
    histogram!("tidegate_dns_query_seconds", "outcome" => outcome).record(time.as_secs_f64());
}

/// An upstream server did not answer.
pub fn dns_upstream_failure() {
    counter!("tidegate_dns_upstream_failures_total").increment(1);
}

/// A permitted query has its answer from there, the word of `egress::dns::lookups::Source`.
pub fn dns_cache_lookup(result: &'static str) {
    counter!("tidegate_dns_cache_lookups_total", "result" => result).increment(1);
}

/// A kept answer is asked for again before its time is over.
pub fn dns_cache_prefetch() {
    counter!("tidegate_dns_cache_prefetches_total").increment(1);
}

/// Kept answers went for want of room.
pub fn dns_cache_evictions(count: u64) {
    counter!("tidegate_dns_cache_evictions_total").increment(count);
}

/// What kept answers take now.
pub fn dns_cache_bytes(bytes: u64) {
    gauge!("tidegate_dns_cache_bytes").set(as_f64(bytes));
}

/// Live learned pairs now.
pub fn dns_learned(count: u64) {
    gauge!("tidegate_dns_learned_addresses").set(as_f64(count));
}

/// What the ledger of learned names had no room for since the start.
pub fn dns_over_bounds(counters: Counters) {
    let Counters { refused, names_dropped, classes_dropped } = counters;
    for (what, count) in [("answer", refused), ("name", names_dropped), ("class", classes_dropped)] {
        counter!("tidegate_dns_over_bounds_total", "what" => what).absolute(count);
    }
}

/// A client connected to the edge.
pub fn edge_connection_begins() {
    gauge!("tidegate_edge_connections_open").increment(1.0);
}

/// A client's connection is no more.
pub fn edge_connection_ends() {
    gauge!("tidegate_edge_connections_open").decrement(1.0);
}

/// How a connection ended that was passed through or came to no request; the app (`shop/web`) is `-` where none is known.
pub fn edge_connection(app: &Arc<str>, reason: &'static str) {
    let app = SharedString::from(Arc::clone(app));
    counter!("tidegate_edge_connections_total", "app" => app, "reason" => reason).increment(1);
}

/// A request of an app (`shop/web`) was answered with this status code after this time.
pub fn edge_request(app: &Arc<str>, code: u16, time: Duration) {
    let app = SharedString::from(Arc::clone(app));
    counter!("tidegate_edge_requests_total", "app" => app.clone(), "code" => code.to_string()).increment(1);
    histogram!("tidegate_edge_request_seconds", "app" => app).record(time.as_secs_f64());
}

/// When the certificate that an app serves ends, in seconds since 1970.
pub fn edge_certificate(app: &Arc<str>, not_after: i64) {
    let app = SharedString::from(Arc::clone(app));
    gauge!("tidegate_edge_certificate_not_after_seconds", "app" => app).set(not_after as f64);
}

/// A run of steps ended after this time, with so many steps taken; the failed one is not counted.
pub fn reconcile_run(steps: u64, time: Duration, failed: bool) {
    counter!("tidegate_reconcile_steps_total").increment(steps);
    counter!("tidegate_reconcile_errors_total").increment(u64::from(failed));
    histogram!("tidegate_reconcile_seconds").record(time.as_secs_f64());
}

/// Something that others removed was put back.
pub fn reconcile_repairs(count: u64) {
    counter!("tidegate_reconcile_repairs_total").increment(count);
}

/// Fill of a kernel table now.
pub fn map_fill(map: &'static str, entries: u64, max: u64) {
    gauge!("tidegate_map_entries", "map" => map).set(as_f64(entries));
    gauge!("tidegate_map_max_entries", "map" => map).set(as_f64(max));
}

/// A commit of desired state was done, or it failed.
pub fn store_commit(done: bool) {
    let outcome = if done { "done" } else { "failed" };
    counter!("tidegate_store_commits_total", "outcome" => outcome).increment(1);
}

const fn verdict(reason: Reason) -> &'static str {
    match reason {
        Reason::Audited => "audited",
        _ if reason.passes() => "allowed",
        _ => "denied",
    }
}

/// Prometheus values are floating point; counts above 2^53 lose their last digits.
fn as_f64(count: u64) -> f64 {
    count as f64
}
