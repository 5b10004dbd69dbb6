//! A daemon that plays back `recorded/` over HTTP on a Unix socket.
//!
//! `recorded/routes`: `METHOD PATH STATUS FILE [what the body must contain]`, the first that fits counts. In the recorded
//! files `@-90@` is the time 90 seconds ago, so that ages are always the same; [`Playback::with_marks`] undoes it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use config::api::{self, Timestamp};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::UnixListener;

pub(crate) struct Playback {
    folder: PathBuf,
    shared: Arc<Shared>,
}

struct Shared {
    routes: Vec<Route>,
    asked: Mutex<Vec<String>>,
    marks: BTreeMap<String, String>,
}

struct Route {
    method: String,
    path: String,
    status: u16,
    text: String,
    contains: String,
}

static NEXT: AtomicU32 = AtomicU32::new(0);

impl Playback {
    pub(crate) fn start() -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("tidegate-netctl-{}-{number}", process::id()));
        fs::create_dir_all(&folder).unwrap();
        let mut marks = BTreeMap::new();
        let routes = routes(&mut marks);
        let shared = Arc::new(Shared { routes, asked: Mutex::default(), marks });
        let listener = std::os::unix::net::UnixListener::bind(folder.join("gateway.sock")).unwrap();
        listener.set_nonblocking(true).unwrap();
        let serving = Arc::clone(&shared);
        thread::spawn(move || serve(listener, &serving));
        Self { folder, shared }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.join("gateway.sock")
    }

    /// What was asked since the last time.
    pub(crate) fn take_asked(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.asked.lock().unwrap())
    }

    /// Times that were made from marks as marks again.
    pub(crate) fn with_marks(&self, text: &str) -> String {
        self.shared.marks.iter().fold(text.to_owned(), |text, (time, mark)| text.replace(time, mark))
    }
}

impl Drop for Playback {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn routes(marks: &mut BTreeMap<String, String>) -> Vec<Route> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recorded");
    let now = SystemTime::now();
    let list = fs::read_to_string(folder.join("routes")).unwrap();
    let parse = |line: &str| {
        let mut fields = line.splitn(5, ' ').map(str::to_owned);
        let (method, path) = (fields.next().unwrap(), fields.next().unwrap());
        let (status, file) = (fields.next().unwrap().parse().unwrap(), fields.next().unwrap());
        let text = fs::read_to_string(folder.join(&file)).unwrap();
        let parts: Vec<_> = text.split('@').collect();
        let mut text = String::new();
        for (index, part) in parts.into_iter().enumerate() {
            match part.strip_prefix('-').and_then(|seconds| seconds.parse().ok()) {
                Some(seconds) if index % 2 == 1 => {
                    let time = Timestamp::from(now - Duration::from_secs(seconds)).to_string();
                    text.push_str(&time);
                    marks.insert(time, format!("@{part}@"));
                }
                _ => text.push_str(part),
            }
        }
        check(&path, status, &text).unwrap_or_else(|error| panic!("recorded/{file}: {error}"));
        Route { method, path, status, text, contains: fields.next().unwrap_or_default() }
    };
    list.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(parse).collect()
}

fn serve(listener: std::os::unix::net::UnixListener, shared: &Arc<Shared>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = UnixListener::from_std(listener).unwrap();
        while let Ok((stream, _)) = listener.accept().await {
            let shared = Arc::clone(shared);
            let service = service_fn(move |request| answer(Arc::clone(&shared), request));
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (method, path) = (request.method().to_string(), request.uri().to_string());
    let body = String::from_utf8(request.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap();
    let asked = format!("{method} {path} {body}");
    shared.asked.lock().unwrap().push(asked.trim_end().to_owned());
    let fits = |route: &&Route| route.method == method && route.path == path && body.contains(&route.contains);
    let (status, text) = match shared.routes.iter().find(fits) {
        Some(route) => (route.status, route.text.clone()),
        None => (599, format!(r#"{{"message":"nothing is recorded for {method} {path}"}}"#)),
    };
    Ok(Response::builder().status(status).body(Full::new(text.into())).unwrap())
}

/// The recorded text is what the API's types write: nothing missing, nothing more.
fn check(path: &str, status: u16, text: &str) -> Result<(), String> {
    let path = path.trim_start_matches("/v1/");
    if status >= 400 {
        return same::<api::ErrorBody>(text);
    }
    if path.contains("watch=true") {
        return text.lines().try_for_each(same::<api::WatchEvent>);
    }
    if path.contains("follow=true") {
        return text.lines().try_for_each(same::<api::Flow>);
    }
    match path.split(['?', '/']).next().unwrap() {
        "apply" | "confirm" | "rollback" | "delete" => same::<api::ApplyResponse>(text),
        "diff" => same::<api::DiffResponse>(text),
        "plan" => same::<api::PlanResponse>(text),
        "resources" if path.starts_with("resources/workload") => {
            let list: api::ResourceList = serde_json::from_str(text).map_err(|error| error.to_string())?;
            list.items.iter().try_for_each(|item| same::<api::Workload>(&item.to_string()))
        }
        "resources" => same::<api::ResourceList>(text),
        "patch" => same::<api::PatchSetResponse>(text),
        "attach" => same::<api::Workload>(text),
        "explain" => same::<api::Explanation>(text),
        "flows" => same::<api::FlowList>(text),
        "status" => same::<api::Status>(text),
        "doctor" => same::<api::Doctor>(text),
        "detach" => same::<Value>(text),
        other => Err(format!("no type is known for {other}")),
    }
}

fn same<T: DeserializeOwned + Serialize>(text: &str) -> Result<(), String> {
    let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let typed: T = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let again = serde_json::to_value(typed).map_err(|error| error.to_string())?;
    if value == again { Ok(()) } else { Err(format!("the type writes {again:#}")) }
}
