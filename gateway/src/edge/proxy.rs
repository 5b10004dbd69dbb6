//! One request: its host and route checked, an endpoint leased, the answer relayed.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hyper::body::{Body, Incoming};
use hyper::header::{CONNECTION, HeaderValue, UPGRADE};
use hyper::http::uri::PathAndQuery;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode, Uri, Version};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, sleep_until};

use super::accept::no_connection;
use super::bodies::{Download, Progress, Relay, Upload};
use super::headers::{self, lists};
use super::http::Connection;
use super::outcome::Outcome;
use super::reason::Reason;
use super::routes::{Backends, NoRoute};
use super::target::{self, Target};
use super::tunnel;
use super::upstream::Lease;

type TrySendError = hyper::client::conn::TrySendError<Request<Upload>>;

/// Answers a request; whatever goes wrong is an answer too.
pub(super) async fn answer(
    connection: Arc<Connection>,
    request: Request<Incoming>,
) -> Result<Response<Download>, Infallible> {
    connection.activity.touch();
    connection.used.store(true, Ordering::Relaxed);
    let target = target::read(&request);
    let host = target.as_ref().map_or("-", |target| target.host.as_str());
    let mut outcome = Outcome::request(connection.client, connection.app.clone(), host, &request);
    let answered = match target {
        Ok(target) => forward(&connection, request, &target, &mut outcome).await,
        Err(reason) => Err(reason),
    };
    connection.activity.touch();
    Ok(match answered {
        Ok(Answer::Body(response, lease)) => {
            outcome.answers(response.status());
            response.map(|body| Download::Backend(Relay::new(body, lease, outcome, connection)))
        }
        Ok(Answer::Switched { response, client, backend, lease }) => {
            outcome.answers(response.status());
            tokio::spawn(relay_websocket(client, backend, lease, outcome, connection));
            response.map(|_| Download::Own { text: None, outcome: None })
        }
        Err(reason) => {
            let response = reason.answer();
            outcome.answers(response.status());
            response.map(|text| Download::Own { text: Some(text), outcome: Some((outcome, reason)) })
        }
    })
}

enum Answer {
    Body(Response<Incoming>, Lease),
    Switched { response: Response<Incoming>, client: OnUpgrade, backend: OnUpgrade, lease: Lease },
}

async fn forward(
    connection: &Arc<Connection>,
    mut request: Request<Incoming>,
    target: &Target,
    outcome: &mut Outcome,
) -> Result<Answer, Reason> {
    let table = connection.shared.table();
    let served = connection.served(&table).ok_or(Reason::Revoked)?;
    if !served.app.hosts.contains(&target.host) {
        return Err(Reason::Misdirected);
    }
    if request.method() == Method::CONNECT {
        return Err(Reason::Tunnel);
    }
    let backends = served.routes.find(request.uri().path()).map_err(|no_route| match no_route {
        NoRoute::Unknown => Reason::NoRoute,
        NoRoute::Ambiguous => Reason::BadRequest("`.` or `..` segments in the path"),
    })?;

    let websocket = is_websocket(&request).then(|| hyper::upgrade::on(&mut request));
    let progress = Arc::new(Progress::new());
    let request = towards_backend(request, target, websocket.is_some(), connection, &progress, outcome)?;
    let (mut response, lease) = exchange(connection, backends, request, &progress, outcome).await?;

    let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    headers::towards_client(response.headers_mut(), switches);
    *response.version_mut() = Version::HTTP_11;
    match (switches, websocket) {
        (false, _) => Ok(Answer::Body(response, lease)),
        (true, Some(client)) => {
            let backend = hyper::upgrade::on(&mut response);
            Ok(Answer::Switched { response, client, backend, lease })
        }
        // A backend must not switch to what nobody asked for.
        (true, None) => Err(Reason::BackendBroke),
    }
}

/// RFC 6455 §4.1. Other upgrades (h2c above all) would let a client speak past the edge; they are not passed on.
fn is_websocket(request: &Request<Incoming>) -> bool {
    request.version() == Version::HTTP_11
        && request.method() == Method::GET
        && request.body().is_end_stream()
        && lists(request.headers(), &CONNECTION, "upgrade")
        && request.headers().get_all(UPGRADE).into_iter().all(is_websocket_token)
        && request.headers().contains_key(UPGRADE)
}

fn is_websocket_token(value: &HeaderValue) -> bool {
    value.as_bytes().eq_ignore_ascii_case(b"websocket")
}

fn towards_backend(
    request: Request<Incoming>,
    target: &Target,
    websocket: bool,
    connection: &Arc<Connection>,
    progress: &Arc<Progress>,
    outcome: &Outcome,
) -> Result<Request<Upload>, Reason> {
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    parts.uri = Uri::try_from(path.as_str()).map_err(|_| Reason::BadRequest("the path cannot be read"))?;
    parts.version = Version::HTTP_11;
    parts.extensions.clear();
    let chunked = !body.is_end_stream() && body.size_hint().exact().is_none();
    headers::towards_backend(&mut parts.headers, connection.client.ip(), &target.authority, chunked, websocket);
    let upload = Upload::new(body, progress.clone(), outcome.traffic(), connection.clone());
    Ok(Request::from_parts(parts, upload))
}

/// Sends the request to the first endpoint that takes it. It is tried elsewhere only as long as nothing of it was sent.
async fn exchange(
    connection: &Connection,
    backends: &Backends,
    mut request: Request<Upload>,
    progress: &Progress,
    outcome: &mut Outcome,
) -> Result<(Response<Incoming>, Lease), Reason> {
    let mut reason = Reason::NoEndpoint;
    for upstream in backends.candidates() {
        outcome.tries(&upstream);
        // An idle connection may have been closed by the backend meanwhile; then a fresh one to the same endpoint follows.
        for fresh in [false, true] {
            let mut lease = match upstream.lease(&connection.shared, fresh).await {
                Ok(lease) => lease,
                Err(error) => {
                    reason = no_connection(&upstream.endpoint.workload, &error);
                    break;
                }
            };
            progress.activity.touch();
            let sent = lease.sender.try_send_request(request);
            match first_byte(sent, progress, connection).await? {
                Ok(response) => return Ok((response, lease)),
                Err(mut error) => {
                    tracing::debug!(workload = upstream.endpoint.workload, error = %error.error(), "no answer");
                    reason = Reason::BackendBroke;
                    request = error.take_message().ok_or(reason)?;
                    if !lease.reused {
                        break;
                    }
                }
            }
        }
    }
    Err(reason)
}

/// Waits for the answer's head as long as the request's body moves, and for the first-byte time after it last did; while
/// the next move is the client's, for the idle time.
async fn first_byte(
    sent: impl Future<Output = Result<Response<Incoming>, TrySendError>>,
    progress: &Progress,
    connection: &Connection,
) -> Result<Result<Response<Incoming>, TrySendError>, Reason> {
    let timeouts = &connection.shared.timeouts;
    let mut sent = pin!(sent);
    loop {
        let deadline = progress.activity.last() + timeouts.first_byte;
        tokio::select! {
            result = &mut sent => return Ok(result),
            () = sleep_until(deadline.max(Instant::now() + timeouts.first_byte / 60)) => {}
        }
        let quiet = progress.activity.last().elapsed();
        if progress.waits_for_client() {
            if quiet >= timeouts.idle {
                return Err(Reason::ClientStalled);
            }
        } else if quiet >= timeouts.first_byte {
            return Err(Reason::FirstByteTimedOut);
        }
    }
}

/// `lease` keeps the connection's place among those in use.
async fn relay_websocket(
    client: OnUpgrade,
    backend: OnUpgrade,
    lease: Lease,
    outcome: Outcome,
    connection: Arc<Connection>,
) {
    let shared = &connection.shared;
    match tokio::try_join!(client, backend) {
        Ok((client, backend)) => {
            let endpoint = lease.endpoint().clone();
            let revoked = shared.becomes(|table| {
                connection.served(table).is_none() || !table.serves(&connection.host, &connection.app, &endpoint)
            });
            tunnel::run(TokioIo::new(client), TokioIo::new(backend), outcome, shared, revoked).await;
        }
        Err(error) => {
            tracing::debug!(%error, "an upgrade came to nothing");
            outcome.end(Reason::ClientGone);
        }
    }
}
