//! The admin socket over real HTTP: who may use it, what it refuses, what it carries through, how it streams and ends.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its world fails")]

mod daemon;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::time::Duration;

use config::api::{ApplyRequest, ErrorBody, Explanation, File, ResourceList, WatchEvent};
use daemon::{Daemon, folder};
use gateway::admin::{AdminError, AdminSocket, MAX_CONNECTIONS};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::time::timeout;

const BOUND: Duration = Duration::from_secs(20);

#[tokio::test]
async fn requests_reach_the_daemon_and_answers_come_back() {
    let daemon = Daemon::start().await;
    let files = vec![File { name: "a.yaml".to_owned(), text: "kind: Network".to_owned() }];
    let request = ApplyRequest { files, dry_run: true, ..ApplyRequest::default() };
    let (status, body) = daemon.post("/v1/apply", &request).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(daemon.control.applied.lock().unwrap().as_slice(), [request]);
    let (status, body) =
        daemon.post("/v1/explain", &json!({"from": "shop/web", "to": "[2001:db8::1]:443", "protocol": "tcp"})).await;
    assert_eq!(status, 200, "{body}");
    let explanation: Explanation = serde_json::from_str(&body).unwrap();
    assert_eq!(explanation.verdict, "shop/web to [2001:db8::1]:443 over tcp");
    let patch = json!({"namespace": "shop", "name": "feed", "add": ["10.0.0.1", "fd00::/8"]});
    let (status, body) = daemon.post("/v1/patch/addressset", &patch).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(body, r#"{"namespace":"shop","name":"feed","prefixes":7,"added":2,"removed":0}"#);
    let (status, body) = daemon.get("/v1/resources/networks?name=tenant-a&brief=true").await;
    assert_eq!(status, 200, "{body}");
    let (status, body) = daemon.get("/v1/resources/networks?name=tenant-a").await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(serde_json::from_str::<ResourceList>(&body).unwrap().items.len(), 1);
}

#[tokio::test]
async fn refusals_have_a_message_and_a_mend() {
    let daemon = Daemon::start().await;
    for (path, status, part) in [
        ("/v1/nonsense", 404, "knows no GET /v1/nonsense"),
        ("/v2/status", 404, "knows no GET"),
        ("/v1/apply", 404, "knows no GET /v1/apply"),
        ("/v1/resources/pods", 400, "`pods` is no kind"),
        ("/v1/resources/networks?name=UPPER", 400, "is not a name"),
        ("/v1/resources/networks?name=tenant-z", 404, "there is no network tenant-z"),
        ("/v1/resources/networks?brief=yes", 400, "provided string was not `true` or `false`"),
        ("/v1/resources/networks?colour=red", 400, "`colour` is not known"),
        ("/v1/flows?verdict=maybe", 400, "`maybe` is not a verdict"),
        ("/v1/flows?limit=-1", 400, "invalid digit"),
        ("/v1/status", 500, "the disk is on fire"),
        ("/v1/doctor", 500, "failed in the middle"),
    ] {
        let (got, body) = daemon.get(path).await;
        let error: ErrorBody = serde_json::from_str(&body).unwrap();
        assert_eq!(got, status, "{path}: {body}");
        assert!(error.message.contains(part) && !error.mend.is_empty(), "{path}: {body}");
    }
    for (body, part) in [
        (json!({"files": [], "force": true}), "unknown field `force`"),
        (json!({"files": 3}), "invalid type"),
        (json!([]), "the request is not understood"),
    ] {
        let (status, answer) = daemon.post("/v1/apply", &body).await;
        assert_eq!(status, 400, "{answer}");
        assert!(answer.contains(part), "{answer}");
    }
    assert!(daemon.control.applied.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_body_over_the_bound_is_refused() {
    let daemon = Daemon::start().await;
    let files = vec![File { name: "big".to_owned(), text: "x".repeat(config::api::MAX_BODY) }];
    let (status, body) = daemon.post("/v1/apply", &ApplyRequest { files, ..ApplyRequest::default() }).await;
    assert_eq!(status, 413, "{body}");
}

#[tokio::test]
async fn watching_streams_lines_until_the_daemon_ends_them() {
    let daemon = Daemon::start().await;
    let mut lines = daemon.stream("/v1/resources/network?watch=true").await;
    let mut next = async || serde_json::from_str::<WatchEvent>(&lines.next_line().await.unwrap().unwrap()).unwrap();
    assert!(matches!(next().await, WatchEvent::Added(_)));
    assert_eq!(next().await, WatchEvent::Synced);
    let sender = daemon.control.watcher().await;
    sender.send(WatchEvent::Deleted(json!({"metadata": {"name": "tenant-a"}}))).await.unwrap();
    assert!(matches!(next().await, WatchEvent::Deleted(_)));
    drop(sender);
    daemon.control.forget_watchers();
    assert_eq!(lines.next_line().await.unwrap(), None);
}

#[tokio::test]
async fn a_client_that_leaves_a_stream_is_noticed() {
    let daemon = Daemon::start().await;
    let mut lines = daemon.stream("/v1/resources/network?watch=true").await;
    lines.next_line().await.unwrap().unwrap();
    let sender = daemon.control.watcher().await;
    drop(lines);
    timeout(BOUND, sender.closed()).await.expect("the stream's sender sees the client leave");
}

#[tokio::test]
async fn a_change_is_carried_through_when_the_client_hangs_up() {
    let daemon = Daemon::start().await;
    let mut stream = daemon.connect().await;
    let body = r#"{"namespace":"shop","name":"slow"}"#;
    let head = format!("POST /v1/detach HTTP/1.1\r\nHost: node\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    timeout(BOUND, daemon.control.detach_began.notified()).await.unwrap();
    drop(stream);
    daemon.control.detach_may_go_on.notify_one();
    timeout(BOUND, daemon.control.detach_done.notified()).await.expect("the detach is carried through");
}

#[tokio::test]
async fn only_so_many_connections_are_served_at_once() {
    let daemon = Daemon::start().await;
    let mut held = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        held.push(daemon.stream("/v1/resources/network?watch=true").await);
    }
    let mut waiting = daemon.connect().await;
    waiting.write_all(b"GET /v1/status HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n").await.unwrap();
    held.pop();
    let mut answer = String::new();
    timeout(BOUND, waiting.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 500"), "{answer}");
}

#[tokio::test]
async fn the_socket_is_private_and_goes_with_the_daemon() {
    let mut daemon = Daemon::start().await;
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&daemon.socket), 0o600);
    assert_eq!(mode(daemon.socket.parent().unwrap()), 0o700);
    let mut open = daemon.stream("/v1/resources/network?watch=true").await;
    open.next_line().await.unwrap().unwrap();
    timeout(BOUND, daemon.stop()).await.expect("an open stream does not hold the daemon's end back");
    assert!(!daemon.socket.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_user_is_turned_away_even_by_a_socket_that_all_may_open() {
    let daemon = Daemon::start().await;
    let dir = daemon.socket.parent().unwrap();
    fs::set_permissions(dir, Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&daemon.socket, Permissions::from_mode(0o666)).unwrap();
    let ask = |user: &str| {
        let mut curl = Command::new("setpriv");
        curl.args([
            "--reuid",
            user,
            "--clear-groups",
            "curl",
            "-s",
            "-m",
            "20",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "--unix-socket",
        ]);
        curl.arg(&daemon.socket).arg("http://node/v1/resources/networks");
        curl.output().unwrap()
    };
    let output = ask("65534");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "000", "{output:?}");
    assert!(!output.status.success());
    let output = ask("0");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "200", "{output:?}; these tests run as root");
}

#[tokio::test]
async fn a_live_daemon_is_left_alone_and_a_dead_ones_socket_is_replaced() {
    let daemon = Daemon::start().await;
    let dir = daemon.socket.parent().unwrap();
    let error = AdminSocket::bind(dir).unwrap_err();
    assert!(matches!(error, AdminError::AlreadyRunning { pid: Some(pid), .. } if pid == std::process::id()), "{error}");
    assert_eq!(daemon.get("/v1/resources/networks").await.0, 200, "the live daemon still answers");

    let dead = folder();
    drop(UnixListener::bind(dead.join("gateway.sock")).unwrap());
    assert!(dead.join("gateway.sock").exists());
    let socket = AdminSocket::bind(&dead).unwrap();
    assert!(std::os::unix::net::UnixStream::connect(socket.path()).is_ok());
    drop(socket);
    fs::remove_dir_all(dead).unwrap();
}

#[tokio::test]
async fn a_folder_that_is_a_link_or_anothers_is_refused() {
    let dir = folder();
    let link = dir.join("link");
    std::os::unix::fs::symlink(&dir, &link).unwrap();
    let other = dir.join("other");
    fs::create_dir(&other).unwrap();
    std::os::unix::fs::chown(&other, Some(65534), None).unwrap();
    for path in [link, other] {
        let error = AdminSocket::bind(&path).unwrap_err().to_string();
        assert!(error.contains("runtime_dir"), "{error}");
    }
    fs::remove_dir_all(dir).unwrap();
}

#[tokio::test]
async fn garbage_and_half_requests_do_no_harm() {
    let daemon = Daemon::start().await;
    for garbage in [
        &b"\x16\x03\x01\x00\xff\x00\x00"[..],
        b"GET\r\n\r\n",
        b"POST /v1/apply HTTP/1.1\r\nContent-Length: 10\r\n\r\n{",
    ] {
        let mut stream = daemon.connect().await;
        stream.write_all(garbage).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        timeout(BOUND, BufReader::new(stream).read_to_end(&mut answer)).await.unwrap().unwrap();
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    }
    assert_eq!(daemon.get("/v1/resources/networks").await.0, 200);
}
