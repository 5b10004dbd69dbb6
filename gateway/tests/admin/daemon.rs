//! A daemon that consists of its admin socket only, and a client that speaks HTTP to it.

use std::fs;
use std::path::PathBuf;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use config::api::{
    ApplyRequest, ApplyResponse, AttachRequest, Attachment, CniAddRequest, CniGcRequest, CniStatusRequest, Connected,
    DeleteRequest, DetachRequest, DiffResponse, Doctor, ExplainRequest, Explanation, FilesRequest, Flow, FlowList,
    FlowQuery, PatchSetRequest, PatchSetResponse, PlanResponse, ResourceList, ResourceQuery, Status, TrialRequest,
    WatchEvent, Workload,
};
use gateway::admin::{AdminSocket, Control, ControlError, Reply};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;

pub(crate) struct Daemon {
    pub(crate) control: Arc<Recorder>,
    pub(crate) socket: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    serving: Option<JoinHandle<()>>,
}

#[derive(Default)]
pub(crate) struct Recorder {
    pub(crate) applied: Mutex<Vec<ApplyRequest>>,
    watchers: Mutex<Vec<mpsc::Sender<WatchEvent>>>,
    watched: Notify,
    pub(crate) detach_began: Notify,
    pub(crate) detach_may_go_on: Notify,
    pub(crate) detach_done: Notify,
}

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A fresh folder; the caller removes it.
pub(crate) fn folder() -> PathBuf {
    let path =
        std::env::temp_dir().join(format!("tidegate-admin-{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    fs::create_dir_all(&path).unwrap();
    path
}

impl Daemon {
    pub(crate) async fn start() -> Self {
        let socket = AdminSocket::bind(&folder()).unwrap();
        let (path, control) = (socket.path().to_owned(), Arc::new(Recorder::default()));
        let (stop, stopped) = oneshot::channel();
        let serving =
            tokio::spawn(socket.serve(Arc::clone(&control) as Arc<dyn Control>, async { drop(stopped.await) }));
        Self { control, socket: path, stop: Some(stop), serving: Some(serving) }
    }

    pub(crate) async fn stop(&mut self) {
        drop(self.stop.take());
        self.serving.take().unwrap().await.unwrap();
    }

    pub(crate) async fn connect(&self) -> UnixStream {
        UnixStream::connect(&self.socket).await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        self.ask("GET", path, "").await
    }

    pub(crate) async fn post(&self, path: &str, body: &impl serde::Serialize) -> (u16, String) {
        self.ask("POST", path, &serde_json::to_string(body).unwrap()).await
    }

    async fn ask(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let (mut reader, mut writer) = self.connect().await.into_split();
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        let (sent, answer) = tokio::join!(async { writer.write_all(request.as_bytes()).await }, async {
            let mut answer = String::new();
            reader.read_to_string(&mut answer).await.map(|_| answer)
        });
        drop(sent);
        let answer = answer.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// The lines of a streamed answer, chunk sizes left out.
    pub(crate) async fn stream(&self, path: &str) -> JsonLines {
        let mut stream = self.connect().await;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: node\r\n\r\n").as_bytes()).await.unwrap();
        let mut lines = BufReader::new(stream).lines();
        assert_eq!(lines.next_line().await.unwrap().unwrap(), "HTTP/1.1 200 OK");
        while !lines.next_line().await.unwrap().unwrap().is_empty() {}
        JsonLines(lines)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.socket.parent().unwrap());
    }
}

pub(crate) struct JsonLines(Lines<BufReader<UnixStream>>);

impl JsonLines {
    pub(crate) async fn next_line(&mut self) -> std::io::Result<Option<String>> {
        loop {
            match self.0.next_line().await? {
                Some(line) if line == "0" => return Ok(None),
                Some(line) if !line.starts_with('{') => {}
                line => return Ok(line),
            }
        }
    }
}

impl Recorder {
    /// The side of the daemon of the stream that was opened last.
    pub(crate) async fn watcher(&self) -> mpsc::Sender<WatchEvent> {
        loop {
            if let Some(sender) = self.watchers.lock().unwrap().last() {
                return sender.clone();
            }
            self.watched.notified().await;
        }
    }

    pub(crate) fn forget_watchers(&self) {
        self.watchers.lock().unwrap().clear();
    }
}

fn network() -> Value {
    json!({"apiVersion": config::api::API_VERSION, "kind": "Network", "metadata": {"name": "tenant-a"}})
}

fn unused<T>() -> Reply<'static, T> {
    Box::pin(async { Err(ControlError::failed("not part of these tests", "-")) })
}

impl Control for Recorder {
    fn apply(&self, request: ApplyRequest) -> Reply<'_, ApplyResponse> {
        self.applied.lock().unwrap().push(request);
        Box::pin(async { Ok(ApplyResponse::default()) })
    }

    fn confirm(&self, _: TrialRequest) -> Reply<'_, ApplyResponse> {
        unused()
    }

    fn rollback(&self, _: TrialRequest) -> Reply<'_, ApplyResponse> {
        unused()
    }

    fn diff(&self, _: FilesRequest) -> Reply<'_, DiffResponse> {
        unused()
    }

    fn plan(&self, _: FilesRequest) -> Reply<'_, PlanResponse> {
        unused()
    }

    fn list(&self, query: ResourceQuery) -> Reply<'_, ResourceList> {
        let there = query.name.is_none_or(|name| name.as_str() == "tenant-a");
        Box::pin(async move { Ok(ResourceList { items: if there { vec![network()] } else { Vec::new() } }) })
    }

    fn watch(&self, _: ResourceQuery) -> Reply<'_, mpsc::Receiver<WatchEvent>> {
        Box::pin(async {
            let (sender, receiver) = mpsc::channel(8);
            for event in [WatchEvent::Added(network()), WatchEvent::Synced] {
                sender.send(event).await.map_err(|error| ControlError::failed(error.to_string(), "-"))?;
            }
            self.watchers.lock().unwrap().push(sender);
            self.watched.notify_one();
            Ok(receiver)
        })
    }

    fn delete(&self, _: DeleteRequest) -> Reply<'_, ApplyResponse> {
        unused()
    }

    fn patch_set(&self, request: PatchSetRequest) -> Reply<'_, PatchSetResponse> {
        Box::pin(async move {
            Ok(PatchSetResponse {
                namespace: request.namespace,
                name: request.name,
                prefixes: 7,
                added: request.add.len() as u64,
                removed: request.remove.len() as u64,
                already_there: Vec::new(),
                not_there: Vec::new(),
            })
        })
    }

    fn attach(&self, _: AttachRequest) -> Reply<'_, Workload> {
        unused()
    }

    fn detach(&self, _: DetachRequest) -> Reply<'_, ()> {
        Box::pin(async {
            self.detach_began.notify_one();
            self.detach_may_go_on.notified().await;
            self.detach_done.notify_one();
            Ok(())
        })
    }

    fn cni_add(&self, _: CniAddRequest) -> Reply<'_, Connected> {
        unused()
    }

    fn cni_del(&self, _: Attachment) -> Reply<'_, ()> {
        unused()
    }

    fn cni_check(&self, _: Attachment) -> Reply<'_, Connected> {
        unused()
    }

    fn cni_gc(&self, _: CniGcRequest) -> Reply<'_, ()> {
        unused()
    }

    fn cni_status(&self, _: CniStatusRequest) -> Reply<'_, ()> {
        unused()
    }

    fn explain(&self, request: ExplainRequest) -> Reply<'_, Explanation> {
        Box::pin(async move {
            Ok(Explanation {
                allowed: true,
                verdict: format!("{} to {} over {}", request.from, request.to, request.protocol),
                reason: "allowed-by-cidr".to_owned(),
                rule: None,
                name: None,
                answers: Vec::new(),
                steps: Vec::new(),
                mend: String::new(),
            })
        })
    }

    fn flows(&self, _: FlowQuery) -> Reply<'_, FlowList> {
        Box::pin(async { Ok(FlowList::default()) })
    }

    fn follow_flows(&self, _: FlowQuery) -> Reply<'_, mpsc::Receiver<Flow>> {
        unused()
    }

    fn status(&self) -> Reply<'_, Status> {
        Box::pin(async { Err(ControlError::failed("the disk is on fire", "put it out")) })
    }

    fn doctor(&self) -> Reply<'_, Doctor> {
        Box::pin(async { panic!("a fault in the composition") })
    }
}
