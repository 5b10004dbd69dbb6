use std::time::Duration;

use policy::reason::Reason;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;

use super::*;
use crate::telemetry::metrics::{self, Direction, DnsOutcome, Outcome};

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

    metrics::flow(Direction::Egress, Reason::DeniedByDefault);
    metrics::packets(Reason::AllowedByName, 7, 4200);
    metrics::dns_query(DnsOutcome::Prohibited);
    metrics::dns_upstream(Duration::from_millis(3));
    metrics::edge_request("shop/web", 502, Duration::from_millis(20));
    metrics::reconcile_steps(Outcome::Done, 4);
    metrics::reconcile_run(Duration::from_millis(4), true);
    metrics::map_fill("flows", 3, 1024);
    metrics::workloads(2);

    let (status, text) = get(address, "GET /metrics").await;
    assert_eq!(status, "HTTP/1.1 200 OK");
    for line in [
        "# TYPE tidegate_flows_total counter",
        r#"tidegate_flows_total{direction="egress",verdict="denied",reason="denied-by-default"} 1"#,
        r#"tidegate_packets_total{verdict="allowed",reason="allowed-by-name"} 7"#,
        r#"tidegate_bytes_total{verdict="allowed",reason="allowed-by-name"} 4200"#,
        r#"tidegate_dns_queries_total{outcome="prohibited"} 1"#,
        r#"tidegate_dns_upstream_seconds_bucket{le="0.005"} 1"#,
        r#"tidegate_edge_requests_total{app="shop/web",code="502"} 1"#,
        r#"tidegate_reconcile_steps_total{outcome="done"} 4"#,
        "tidegate_reconcile_errors_total 1",
        r#"tidegate_map_max_entries{map="flows"} 1024"#,
        "tidegate_workloads 2",
        concat!(r#"tidegate_build_info{version=""#, env!("CARGO_PKG_VERSION"), r#""} 1"#),
    ] {
        assert!(text.lines().any(|have| have == line), "{line} is not in\n{text}");
    }
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
