//! A client's HTTP connection once TLS stands: HTTP/2 or HTTP/1.1 as agreed on by ALPN, until it ends, is idle, is no
//! longer served under the terms it was made under, or the edge drains.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use config::names::DnsName;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

use super::activity::Activity;
use super::certificate::Terms;
use super::client_stream::ClientStream;
use super::outcome::Outcome;
use super::proxy;
use super::reason::Reason;
use super::shared::{Phase, Place, Shared};
use super::table::{Ends, Served, Table};

/// Bytes of a request's head, on either version.
const MAX_HEAD: u32 = 64 * 1024;
const MAX_BUFFER: usize = 256 * 1024;
const MAX_STREAMS: u32 = 128;
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// How long an idle connection may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(5);

/// A client's connection, as its requests see it. It keeps its place as long as one of them lives.
pub(super) struct Connection {
    pub(super) shared: Arc<Shared>,
    pub(super) client: SocketAddr,
    /// The server name of the ClientHello.
    pub(super) host: DnsName,
    /// The app that had this host.
    pub(super) app: Arc<str>,
    /// The last move of any of its requests.
    pub(super) activity: Activity,
    /// Whether there has been a request.
    pub(super) used: AtomicBool,
    terms: Arc<Terms>,
    _place: Place,
}

impl Connection {
    /// A connection whose handshake is done.
    pub(super) fn new(
        shared: Arc<Shared>,
        client: SocketAddr,
        host: DnsName,
        app: Arc<str>,
        terms: Arc<Terms>,
        place: Place,
    ) -> Self {
        let (activity, used) = (Activity::new(), AtomicBool::new(false));
        Self { shared, client, host, app, activity, used, terms, _place: place }
    }

    /// The app it is for, as long as it is served under the terms that this client agreed to.
    pub(super) fn served<'a>(&self, table: &'a Table) -> Option<&'a Arc<Served>> {
        table.app(&self.host).filter(|served| match &served.ends {
            Ends::Here(identity) => {
                served.label == self.app
                    && identity.loaded().is_some_and(|loaded| Arc::ptr_eq(&loaded.terms, &self.terms))
            }
            Ends::Backend => false,
        })
    }
}

/// Serves it to its end. `outcome` is recorded if no request comes, or one that cannot be read.
pub(super) async fn serve(tls: TlsStream<ClientStream>, connection: Arc<Connection>, outcome: Outcome) {
    let is_http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
    let io = TokioIo::new(tls);
    let service = service_fn({
        let connection = connection.clone();
        move |request| proxy::answer(connection.clone(), request)
    });
    let (timer, head) = (TokioTimer::new(), connection.shared.timeouts.head);
    let reason = if is_http2 {
        let http = http2::Builder::new(TokioExecutor::new())
            .timer(timer)
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEAD)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .serve_connection(io, service);
        drive(http, http2::Connection::graceful_shutdown, &connection).await
    } else {
        let http = http1::Builder::new()
            .timer(timer)
            .header_read_timeout(head)
            .max_header_size(MAX_HEAD as usize)
            .max_buf_size(MAX_BUFFER)
            .serve_connection(io, service)
            .with_upgrades();
        drive(http, http1::UpgradeableConnection::graceful_shutdown, &connection).await
    };
    if connection.used.load(Ordering::Relaxed) && !matches!(reason, Reason::BadRequest(_)) {
        outcome.dismiss();
    } else {
        outcome.end(reason);
    }
}

async fn drive<C>(http: C, finish: fn(Pin<&mut C>), connection: &Connection) -> Reason
where
    C: Future<Output = hyper::Result<()>>,
{
    let (shared, idle) = (&connection.shared, connection.shared.timeouts.idle);
    tokio::pin!(http);
    let finishing = async {
        tokio::select! {
            () = shared.reaches(Phase::Draining) => {}
            () = shared.becomes(|table| connection.served(table).is_none()) => {}
        }
    };
    let ended = async {
        tokio::select! {
            () = shared.reaches(Phase::Ended) => Reason::Stopped,
            () = connection.activity.idle(idle) => Reason::Idle,
        }
    };
    tokio::pin!(finishing, ended);
    let mut finished = false;
    loop {
        tokio::select! {
            result = &mut http => return closed(result),
            () = &mut finishing, if !finished => {
                finished = true;
                finish(http.as_mut());
            }
            reason = &mut ended => {
                if reason == Reason::Idle {
                    finish(http.as_mut());
                    let _ = timeout(GOODBYE, http).await;
                }
                return reason;
            }
        }
    }
}

fn closed(result: hyper::Result<()>) -> Reason {
    match result {
        Ok(()) => Reason::Served,
        Err(error) => {
            tracing::debug!(%error, "a client's connection ended");
            if error.is_parse() {
                Reason::BadRequest("the request cannot be read")
            } else if error.is_timeout() {
                Reason::Idle
            } else {
                Reason::ClientGone
            }
        }
    }
}
