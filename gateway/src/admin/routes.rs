//! The routes.
//!
//! 1. `POST /v1/apply` [`config::api::ApplyRequest`] → [`config::api::ApplyResponse`]
//!    `POST /v1/confirm`, `/v1/rollback` [`config::api::TrialRequest`] → [`config::api::ApplyResponse`]
//! 2. `POST /v1/diff` [`config::api::FilesRequest`] → [`config::api::DiffResponse`]
//! 3. `POST /v1/plan` [`config::api::FilesRequest`] → [`config::api::PlanResponse`]
//! 4. `GET /v1/resources/<kind>?namespace=&name=&brief=` → [`config::api::ResourceList`]; 404 when a name is asked for and not
//!    there; with `watch=true` lines of [`config::api::WatchEvent`]
//! 5. `POST /v1/delete` [`config::api::DeleteRequest`] → [`config::api::ApplyResponse`]
//! 6. `POST /v1/attach` [`config::api::AttachRequest`] → [`config::api::Workload`]
//! 7. `POST /v1/detach` [`config::api::DetachRequest`] → `{}`
//! 8. `POST /v1/explain` [`config::api::ExplainRequest`] → [`config::api::Explanation`]
//! 9. `GET /v1/flows?namespace=&verdict=&limit=` → [`config::api::FlowList`]; with `follow=true` lines of
//!    [`config::api::Flow`]
//! 10. `GET /v1/status` → [`config::api::Status`]
//! 11. `GET /v1/doctor` → [`config::api::Doctor`]
//! 12. `POST /v1/patch/addressset` [`config::api::PatchSetRequest`] → [`config::api::PatchSetResponse`]
//! 13. `POST /v1/cni/add` [`config::api::CniAddRequest`], `cni/check` [`config::api::Attachment`] →
//!     [`config::api::Connected`]; `cni/del` [`config::api::Attachment`], `cni/gc` [`config::api::CniGcRequest`], `cni/status`
//!     [`config::api::CniStatusRequest`] → `{}`
//!
//! Lines are JSON objects that end in a newline (`application/x-ndjson`). Values of a query are names and words; nothing
//! in them needs percent-encoding, and none is undone.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use config::api::{ErrorBody, FlowQuery, Kind, MAX_BODY, ResourceQuery};
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::control::{Control, ControlError};
use super::{ANSWER_TIME, REQUEST_TIME};

type Body = UnsyncBoxBody<Bytes, Infallible>;
type Answered = Result<Response<Body>, ControlError>;

/// Answers one request; every outcome is an answer.
pub(super) async fn answer(
    control: Arc<dyn Control>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let what = format!("{} {}", request.method(), request.uri().path());
    let answered = match read(request).await {
        Ok(asked) => carried_through(control, asked).await,
        Err(error) => Err(error),
    };
    Ok(answered.unwrap_or_else(|error| {
        if error.status >= 500 {
            tracing::warn!(what, %error, "an admin request failed");
        }
        refusal(&error)
    }))
}

struct Asked {
    method: Method,
    path: String,
    query: Query,
    body: Bytes,
}

async fn read(request: Request<Incoming>) -> Result<Asked, ControlError> {
    let (head, body) = request.into_parts();
    let query = Query::parse(head.uri.query().unwrap_or_default());
    let body = match timeout(REQUEST_TIME, Limited::new(body, MAX_BODY).collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let message = format!("the request is larger than {MAX_BODY} bytes");
            return Err(ControlError { status: 413, message, mend: "apply the manifests in parts".to_owned() });
        }
        Ok(Err(error)) => {
            return Err(ControlError::bad_request(format!("the request was cut short: {error}"), "send it again"));
        }
        Err(_) => {
            let message = format!("the request did not arrive within {} s", REQUEST_TIME.as_secs());
            return Err(ControlError { status: 408, message, mend: "send it again".to_owned() });
        }
    };
    Ok(Asked { method: head.method, path: head.uri.path().to_owned(), query, body })
}

/// In a task of its own, so that neither the deadline nor a client that hangs up stops a change in its middle.
async fn carried_through(control: Arc<dyn Control>, asked: Asked) -> Answered {
    let task = tokio::spawn(async move { route(control.as_ref(), asked).await });
    match timeout(ANSWER_TIME, task).await {
        Ok(Ok(answered)) => answered,
        Ok(Err(error)) => {
            tracing::error!(%error, "an admin request panicked");
            Err(ControlError::failed("the daemon failed in the middle of this", "see the daemon's log, and report it"))
        }
        Err(_) => Err(ControlError {
            status: 504,
            message: format!("no answer within {} s", ANSWER_TIME.as_secs()),
            mend: "the daemon is still at it; look at `netctl status` in a while".to_owned(),
        }),
    }
}

async fn route(control: &dyn Control, asked: Asked) -> Answered {
    let Asked { method, path, query, body } = asked;
    let path = path.strip_prefix("/v1/").unwrap_or_default();
    match (method.as_str(), path) {
        ("POST", "apply") => json(&control.apply(decode(&body)?).await?),
        ("POST", "confirm") => json(&control.confirm(decode(&body)?).await?),
        ("POST", "rollback") => json(&control.rollback(decode(&body)?).await?),
        ("POST", "diff") => json(&control.diff(decode(&body)?).await?),
        ("POST", "plan") => json(&control.plan(decode(&body)?).await?),
        ("POST", "delete") => json(&control.delete(decode(&body)?).await?),
        ("POST", "patch/addressset") => json(&control.patch_set(decode(&body)?).await?),
        ("POST", "attach") => json(&control.attach(decode(&body)?).await?),
        ("POST", "detach") => done(control.detach(decode(&body)?).await),
        ("POST", "cni/add") => json(&control.cni_add(decode(&body)?).await?),
        ("POST", "cni/check") => json(&control.cni_check(decode(&body)?).await?),
        ("POST", "cni/del") => done(control.cni_del(decode(&body)?).await),
        ("POST", "cni/gc") => done(control.cni_gc(decode(&body)?).await),
        ("POST", "cni/status") => done(control.cni_status(decode(&body)?).await),
        ("POST", "explain") => json(&control.explain(decode(&body)?).await?),
        ("GET", "flows") => flows(control, query).await,
        ("GET", "status") => json(&control.status().await?),
        ("GET", "doctor") => json(&control.doctor().await?),
        ("GET", other) => match other.strip_prefix("resources/") {
            Some(kind) => resources(control, kind, query).await,
            None => Err(unknown(&method, path)),
        },
        _ => Err(unknown(&method, path)),
    }
}

async fn resources(control: &dyn Control, kind: &str, mut query: Query) -> Answered {
    let kind: Kind = kind.parse().map_err(in_query)?;
    let (namespace, name) = (query.take("namespace")?, query.take("name")?);
    let asked = ResourceQuery { kind, namespace, name, brief: query.take("brief")?.unwrap_or(false) };
    let watch = query.take("watch")?.unwrap_or(false);
    query.done()?;
    if watch {
        return Ok(lines(control.watch(asked).await?));
    }
    let list = control.list(asked.clone()).await?;
    match asked.name {
        Some(name) if list.items.is_empty() => {
            let place = asked.namespace.map(|namespace| format!(" in namespace {namespace}")).unwrap_or_default();
            let mend = format!("see `netctl get {}{}`", kind.plural(), if kind.is_namespaced() { " -A" } else { "" });
            Err(ControlError::not_found(format!("there is no {kind} {name}{place}"), mend))
        }
        _ => json(&list),
    }
}

async fn flows(control: &dyn Control, mut query: Query) -> Answered {
    let asked =
        FlowQuery { namespace: query.take("namespace")?, verdict: query.take("verdict")?, limit: query.take("limit")? };
    let follow = query.take("follow")?.unwrap_or(false);
    query.done()?;
    if follow {
        return Ok(lines(control.follow_flows(asked).await?));
    }
    json(&control.flows(asked).await?)
}

/// `a=b&c=d`, each at most once.
struct Query(BTreeMap<String, String>);

impl Query {
    fn parse(text: &str) -> Self {
        let pairs =
            text.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        Self(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
    }

    fn take<T: FromStr<Err: Display>>(&mut self, key: &str) -> Result<Option<T>, ControlError> {
        self.0.remove(key).filter(|value| !value.is_empty()).map(|value| value.parse().map_err(in_query)).transpose()
    }

    fn done(self) -> Result<(), ControlError> {
        match self.0.into_keys().next() {
            Some(key) => Err(ControlError::bad_request(
                format!("`{key}` is not known here"),
                "use a netctl of the daemon's version",
            )),
            None => Ok(()),
        }
    }
}

fn in_query(error: impl Display) -> ControlError {
    ControlError::bad_request(error.to_string(), "see `netctl help`")
}

fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, ControlError> {
    serde_json::from_slice(body).map_err(|error| {
        ControlError::bad_request(
            format!("the request is not understood: {error}"),
            "use a netctl of the daemon's version",
        )
    })
}

fn unknown(method: &Method, path: &str) -> ControlError {
    ControlError::not_found(format!("the daemon knows no {method} /v1/{path}"), "use a netctl of the daemon's version")
}

fn done(result: Result<(), ControlError>) -> Answered {
    result.and_then(|()| json(&serde_json::json!({})))
}

fn json(value: &impl Serialize) -> Answered {
    let text = serde_json::to_vec(value)
        .map_err(|error| ControlError::failed(format!("the answer cannot be written: {error}"), "report it"))?;
    Ok(response(StatusCode::OK, "application/json", Full::new(Bytes::from(text)).boxed_unsync()))
}

fn refusal(error: &ControlError) -> Response<Body> {
    let body = ErrorBody { message: error.message.clone(), mend: error.mend.clone() };
    let text = serde_json::to_vec(&body).unwrap_or_default();
    let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response(status, "application/json", Full::new(Bytes::from(text)).boxed_unsync())
}

fn lines<T: Serialize + Send + 'static>(receiver: mpsc::Receiver<T>) -> Response<Body> {
    let frames = stream::unfold(receiver, |mut receiver| async {
        let mut line = serde_json::to_vec(&receiver.recv().await?).ok()?;
        line.push(b'\n');
        Some((Ok(Frame::data(Bytes::from(line))), receiver))
    });
    response(StatusCode::OK, "application/x-ndjson", StreamBody::new(frames).boxed_unsync())
}

fn response(status: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(content_type));
    response
}
