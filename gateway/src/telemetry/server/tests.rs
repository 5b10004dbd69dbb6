use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use config::api::Direction;
use policy::reason::Reason;

use crate::egress::tables::answers::Answered;
use crate::egress::tables::fill::Rejection;
use crate::egress::tables::uplink::Way;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;

use super::*;
use crate::telemetry::metrics;

async fn get(address: SocketAddr, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(format!("{request} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

/// One test, because a process has one recorder.
#[tokio::test]
async fn metrics_health_and_readiness_are_served() {
    let handle = metrics::start().unwrap();
    assert!(metrics::start().unwrap_err().to_string().contains("once"));
    let readiness = Readiness::default();
    let tables = readiness.wait_for("kernel tables");
    let server = TelemetryServer::bind(([127, 0, 0, 1], 0).into(), handle, readiness.clone()).await.unwrap();
    let address = server.local_address().unwrap();
    let taken = TelemetryServer::bind(address, server.metrics.clone(), readiness.clone()).await.unwrap_err();
    assert!(taken.to_string().contains("[metrics] listen"), "{taken}");
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(server.serve(async { drop(stopped.await) }));

    everything();

    let (status, text) = get(address, "GET /metrics").await;
    assert_eq!(status, "HTTP/1.1 200 OK");
    for line in [
        "# TYPE tidegate_flows_total counter",
        r#"tidegate_flows_total{direction="egress",verdict="denied",reason="denied-by-default"} 1"#,
        r#"tidegate_packets_total{verdict="allowed",reason="allowed-by-name"} 7"#,
        r#"tidegate_bytes_total{verdict="allowed",reason="allowed-by-name"} 4200"#,
        r#"tidegate_rejections_total{outcome="reset"} 6"#,
        r#"tidegate_fast_path_packets_total{stack="taken",way="too-big"} 9"#,
        r#"tidegate_dns_queries_total{outcome="unknown-asker"} 1"#,
        r#"tidegate_dns_queries_total{outcome="answered-in-kernel"} 8"#,
        r#"tidegate_dns_query_seconds_bucket{outcome="answered",le="0.0025"} 0"#,
        r#"tidegate_dns_query_seconds_bucket{outcome="answered",le="0.005"} 1"#,
        r#"tidegate_dns_cache_lookups_total{result="joined"} 1"#,
        r#"tidegate_dns_cache_lookups_total{result="kernel"} 8"#,
        "tidegate_dns_cache_evictions_total 2",
        r#"tidegate_dns_over_bounds_total{what="answer"} 3"#,
        "tidegate_edge_connections_open 1",
        r#"tidegate_edge_connections_total{app="-",reason="no-server-name"} 1"#,
        r#"tidegate_edge_requests_total{app="shop/web",code="502"} 1"#,
        "tidegate_reconcile_steps_total 4",
        "tidegate_reconcile_errors_total 1",
        r#"tidegate_map_max_entries{map="flows"} 1024"#,
        "tidegate_workloads 2",
        concat!(r#"tidegate_build_info{version=""#, env!("CARGO_PKG_VERSION"), r#""} 1"#),
    ] {
        assert!(text.lines().any(|have| have == line), "{line} is not in\n{text}");
    }
    assert_eq!(emitted(&text), documented());
    assert_eq!(get(address, "GET /healthz").await.0, "HTTP/1.1 200 OK");
    let (status, text) = get(address, "GET /readyz").await;
    assert_eq!((status.as_str(), text.as_str()), ("HTTP/1.1 503 Service Unavailable", "waiting for kernel tables\n"));
    drop(tables);
    assert_eq!(get(address, "GET /readyz").await.0, "HTTP/1.1 200 OK");
    assert_eq!(get(address, "POST /metrics").await.0, "HTTP/1.1 405 Method Not Allowed");
    assert_eq!(get(address, "GET /").await.0, "HTTP/1.1 404 Not Found");
    stop.send(()).unwrap();
    serving.await.unwrap();
}

/// Counts everything there is to count.
fn everything() {
    let app = Arc::from("shop/web");
    metrics::workloads(2);
    metrics::flow(Direction::Egress, Reason::DeniedByDefault);
    metrics::flows_open(3);
    metrics::flow_events_lost(1);
    metrics::packets(Reason::AllowedByName, 7, 4200);
    metrics::rejections(Rejection::Reset, 6);
    metrics::fast_path(Way::TooBig, 9);
    metrics::dns_query("unknown-asker");
    metrics::dns_query_time("answered", Duration::from_millis(3));
    metrics::dns_answered(Answered { sent: 8, failed: 0 });
    metrics::dns_upstream_failure();
    metrics::dns_cache_lookup("joined");
    metrics::dns_cache_prefetch();
    metrics::dns_cache_evictions(2);
    metrics::dns_cache_bytes(4096);
    metrics::dns_learned(5);
    metrics::dns_over_bounds(policy::ledger::Counters { refused: 3, ..Default::default() });
    metrics::inspection("passes");
    metrics::inspections_at_sight(4);
    metrics::held(2, 4096);
    metrics::hold_queued(Duration::from_micros(40));
    metrics::hold_inspected(Duration::from_micros(90));
    metrics::edge_connection_begins();
    metrics::edge_connection_begins();
    metrics::edge_connection_ends();
    metrics::edge_connection(&Arc::from("-"), "no-server-name");
    metrics::edge_request(&app, 502, Duration::from_millis(20));
    metrics::edge_certificate(&app, 1_800_000_000);
    metrics::reconcile_run(4, Duration::from_millis(4), true);
    metrics::reconcile_repairs(1);
    metrics::map_fill("flows", 3, 1024);
    metrics::store_commit(true);
}

type Labels = BTreeSet<String>;

/// Names and labels in the table of the module's documentation.
fn documented() -> BTreeMap<String, Labels> {
    let rows = include_str!("../metrics.rs").lines().filter_map(|line| line.strip_prefix("//! | `"));
    rows.map(|row| {
        let (name, rest) = row.split_once("` |").unwrap();
        let labels = rest.split('|').next().unwrap().split(',').map(str::trim);
        (name.to_owned(), labels.filter(|label| !label.is_empty()).map(str::to_owned).collect())
    })
    .collect()
}

/// Names and labels of everything in a scrape; a histogram by its own name, without the bounds of its buckets.
fn emitted(text: &str) -> BTreeMap<String, Labels> {
    let histograms: Vec<&str> =
        text.lines().filter_map(|l| l.strip_prefix("# TYPE ")?.strip_suffix(" histogram")).collect();
    let described: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split(' ').next()).collect();
    let mut all = BTreeMap::<String, Labels>::new();
    for sample in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let series = sample.rsplit_once(' ').unwrap().0;
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let parent = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
        let name = parent.filter(|parent| histograms.contains(parent)).unwrap_or(name);
        assert!(described.contains(name), "{name} has no description");
        let keys = labels.split("\",").filter_map(|label| label.split_once('=')).map(|(key, _)| key.to_owned());
        all.entry(name.to_owned()).or_default().extend(keys.filter(|key| key != "le"));
    }
    all
}
