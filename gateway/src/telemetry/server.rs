//! `GET /metrics` (Prometheus text), `/healthz` (200 as long as the process answers), `/readyz` (200, or 503 with what is
//! waited for), over HTTP/1.1 without TLS: `[metrics] listen` is on the loopback unless it is set otherwise.
//!
//! At most [`MAX_CONNECTIONS`] connections, each with [`REQUEST_TIME`] for a request; further ones wait in the backlog.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};

use super::readiness::Readiness;

/// Connections that are served at once.
pub const MAX_CONNECTIONS: usize = 32;
/// For a request and its answer.
pub const REQUEST_TIME: Duration = Duration::from_secs(10);
/// A connection that is kept alive is closed after this.
const CONNECTION_TIME: Duration = Duration::from_secs(300);
/// How often histograms are folded when nobody scrapes.
const UPKEEP: Duration = Duration::from_secs(5);
/// Before accepting again when the process has no descriptor left.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// The address could not be listened on.
#[derive(Debug, thiserror::Error)]
#[error("listening on {address} for metrics: {source}; set [metrics] listen to a free address of this node")]
pub struct ListenError {
    address: SocketAddr,
    source: io::Error,
}

/// The bound listener.
#[derive(Debug)]
pub struct TelemetryServer {
    listener: TcpListener,
    metrics: PrometheusHandle,
    readiness: Readiness,
}

impl TelemetryServer {
    /// Listens on the address.
    pub async fn bind(
        address: SocketAddr,
        metrics: PrometheusHandle,
        readiness: Readiness,
    ) -> Result<Self, ListenError> {
        let listener = TcpListener::bind(address).await.map_err(|source| ListenError { address, source })?;
        Ok(Self { listener, metrics, readiness })
    }

    /// The address, with the port that the kernel chose for port 0.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `shutdown` is done.
    pub async fn serve(self, shutdown: impl Future<Output = ()> + Send) {
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        let mut upkeep = interval(UPKEEP);
        tokio::pin!(shutdown);
        loop {
            let accept = async {
                match Arc::clone(&slots).acquire_owned().await {
                    Ok(slot) => self.listener.accept().await.map(|(stream, _)| (stream, slot)),
                    Err(_) => pending().await,
                }
            };
            let accepted = tokio::select! {
                () = &mut shutdown => break,
                accepted = accept => accepted,
                Some(_) = connections.join_next() => continue,
                _ = upkeep.tick() => {
                    self.metrics.run_upkeep();
                    continue;
                }
            };
            match accepted {
                Ok((stream, slot)) => {
                    let serving = serve_connection(stream, self.metrics.clone(), self.readiness.clone());
                    connections.spawn(async move {
                        let _ = timeout(CONNECTION_TIME, serving).await;
                        drop(slot);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the metrics listener cannot accept; close some connections");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                }
            }
        }
        connections.shutdown().await;
    }
}

async fn serve_connection(stream: TcpStream, metrics: PrometheusHandle, readiness: Readiness) {
    let service = service_fn(move |request| {
        let answer = answer(&request, &metrics, &readiness);
        async move { Ok::<_, Infallible>(answer) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(REQUEST_TIME);
    if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a metrics connection ended early");
    }
}

fn answer<B>(request: &Request<B>, metrics: &PrometheusHandle, readiness: &Readiness) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are spoken here\n".to_owned());
    }
    match request.uri().path() {
        "/metrics" => {
            let mut response = text(StatusCode::OK, metrics.render());
            let content_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            response.headers_mut().insert(CONTENT_TYPE, content_type);
            response
        }
        "/healthz" => text(StatusCode::OK, "ok\n".to_owned()),
        "/readyz" => match readiness.pending().as_slice() {
            [] => text(StatusCode::OK, "ready\n".to_owned()),
            pending => text(StatusCode::SERVICE_UNAVAILABLE, format!("waiting for {}\n", pending.join(", "))),
        },
        _ => text(StatusCode::NOT_FOUND, "/metrics, /healthz and /readyz are here\n".to_owned()),
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

#[cfg(test)]
mod tests;
