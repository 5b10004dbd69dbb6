//! Every metric, with its unit, and the functions that count. Nothing else in the daemon names a metric.
//!
//! | metric | labels | what |
//! |---|---|---|
//! | `tidegate_build_info` | version | 1 |
//! | `tidegate_workloads` | | attached workloads |
//! | `tidegate_flows_total` | direction, verdict, reason | flows opened or refused (events; see the lost ones) |
//! | `tidegate_flows_open` | | entries of the flow table |
//! | `tidegate_flow_events_lost_total` | | events that found the ring full |
//! | `tidegate_packets_total`, `tidegate_bytes_total` | verdict, reason | the kernel's own counters |
//! | `tidegate_dns_queries_total` | outcome | queries of workloads |
//! | `tidegate_dns_upstream_seconds` | | time of an upstream answer |
//! | `tidegate_dns_learned_addresses` | | live (workload, address) pairs |
//! | `tidegate_edge_connections_open` | | TLS connections |
//! | `tidegate_edge_handshakes_total` | outcome | TLS handshakes |
//! | `tidegate_edge_requests_total` | app, code | answered requests |
//! | `tidegate_edge_request_seconds` | app | from the request's head to the answer's end |
//! | `tidegate_reconcile_steps_total` | outcome | steps applied to the node |
//! | `tidegate_reconcile_errors_total` | | runs that failed and were undone |
//! | `tidegate_reconcile_repairs_total` | | things put back that others removed |
//! | `tidegate_reconcile_seconds` | | time of a run |
//! | `tidegate_map_entries`, `tidegate_map_max_entries` | map | fill of the kernel's tables |
//! | `tidegate_store_commits_total` | outcome | commits of desired state |

use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use policy::reason::Reason;

/// Upper bounds of the time histograms, seconds.
const SECONDS: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Why metrics could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("metrics cannot be set up: {0}; call this once in a process")]
pub struct MetricsError(String);

/// Who opened a flow, seen from the workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The workload.
    Egress,
    /// The other side.
    Ingress,
}

/// What became of a workload's DNS query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DnsOutcome {
    /// Answered with addresses that the kernel knows.
    Answered,
    /// Answered by the upstream with nothing to learn (NODATA, NXDOMAIN, other types).
    Empty,
    /// The workload's policies do not let it look the name up.
    Prohibited,
    /// The upstream did not answer, or answered with an error.
    UpstreamFailed,
    /// An answer could not be learned, so it was not given.
    NotLearned,
    /// The query was malformed or of a kind that is not spoken.
    Malformed,
    /// Nobody knows who asked.
    UnknownAsker,
    /// Too many at once.
    Overloaded,
}

/// How a TLS handshake at the edge ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake {
    /// Terminated here.
    Terminated,
    /// Passed on by SNI.
    PassedThrough,
    /// No app serves the name.
    UnknownHost,
    /// The client did not do its part.
    Failed,
    /// It took too long.
    TimedOut,
}

/// Whether something was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was.
    Done,
    /// It was not.
    Failed,
    /// It was, and was undone because a later step failed.
    Undone,
}

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
    describe_counter!("tidegate_dns_queries_total", Unit::Count, "DNS queries of workloads by outcome.");
    describe_histogram!("tidegate_dns_upstream_seconds", Unit::Seconds, "Time of an upstream DNS answer.");
    describe_gauge!("tidegate_dns_learned_addresses", Unit::Count, "Live (workload, address) pairs learned from DNS.");
    describe_gauge!("tidegate_edge_connections_open", Unit::Count, "Open TLS connections at the edge.");
    describe_counter!("tidegate_edge_handshakes_total", Unit::Count, "TLS handshakes at the edge by outcome.");
    describe_counter!(
        "tidegate_edge_requests_total",
        Unit::Count,
        "Requests answered by the edge, by app and status code."
    );
    describe_histogram!("tidegate_edge_request_seconds", Unit::Seconds, "From a request's head to its answer's end.");
    describe_counter!("tidegate_reconcile_steps_total", Unit::Count, "Steps applied to the node by outcome.");
    describe_counter!("tidegate_reconcile_errors_total", Unit::Count, "Runs that failed and were undone.");
    describe_counter!("tidegate_reconcile_repairs_total", Unit::Count, "Links, rules and filters put back.");
    describe_histogram!("tidegate_reconcile_seconds", Unit::Seconds, "Time of a run.");
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

/// A workload's query has its answer.
pub fn dns_query(outcome: DnsOutcome) {
    counter!("tidegate_dns_queries_total", "outcome" => outcome.word()).increment(1);
}

/// An upstream answered after this time.
pub fn dns_upstream(time: Duration) {
    histogram!("tidegate_dns_upstream_seconds").record(time.as_secs_f64());
}

/// Live learned pairs now.
pub fn dns_learned(count: u64) {
    gauge!("tidegate_dns_learned_addresses").set(as_f64(count));
}

/// Open TLS connections now.
pub fn edge_connections(count: u64) {
    gauge!("tidegate_edge_connections_open").set(as_f64(count));
}

/// A handshake ended.
pub fn edge_handshake(outcome: Handshake) {
    let word = match outcome {
        Handshake::Terminated => "terminated",
        Handshake::PassedThrough => "passed-through",
        Handshake::UnknownHost => "unknown-host",
        Handshake::Failed => "failed",
        Handshake::TimedOut => "timed-out",
    };
    counter!("tidegate_edge_handshakes_total", "outcome" => word).increment(1);
}

/// A request of an app (`shop/web`) was answered with this status code after this time.
pub fn edge_request(app: &str, code: u16, time: Duration) {
    counter!("tidegate_edge_requests_total", "app" => app.to_owned(), "code" => code.to_string()).increment(1);
    histogram!("tidegate_edge_request_seconds", "app" => app.to_owned()).record(time.as_secs_f64());
}

/// Steps of a run ended so.
pub fn reconcile_steps(outcome: Outcome, count: u64) {
    counter!("tidegate_reconcile_steps_total", "outcome" => outcome.word()).increment(count);
}

/// A run ended after this time.
pub fn reconcile_run(time: Duration, failed: bool) {
    histogram!("tidegate_reconcile_seconds").record(time.as_secs_f64());
    counter!("tidegate_reconcile_errors_total").increment(u64::from(failed));
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

/// A commit of desired state ended so.
pub fn store_commit(outcome: Outcome) {
    counter!("tidegate_store_commits_total", "outcome" => outcome.word()).increment(1);
}

impl DnsOutcome {
    /// All of them, for `netctl status`.
    pub const ALL: &[Self] = &[
        Self::Answered,
        Self::Empty,
        Self::Prohibited,
        Self::UpstreamFailed,
        Self::NotLearned,
        Self::Malformed,
        Self::UnknownAsker,
        Self::Overloaded,
    ];

    /// The word in metrics and in `netctl status`: stable.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Empty => "empty",
            Self::Prohibited => "prohibited",
            Self::UpstreamFailed => "upstream-failed",
            Self::NotLearned => "not-learned",
            Self::Malformed => "malformed",
            Self::UnknownAsker => "unknown-asker",
            Self::Overloaded => "overloaded",
        }
    }
}

impl Outcome {
    const fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Undone => "undone",
        }
    }
}

const fn verdict(reason: Reason) -> &'static str {
    if reason.passes() { "allowed" } else { "denied" }
}

/// Prometheus values are floating point; counts above 2^53 lose their last digits.
fn as_f64(count: u64) -> f64 {
    count as f64
}
