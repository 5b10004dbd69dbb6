//! Backends that are down, absent, slow or broken; clients that leave; the edge's own end.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::backend::{Backend, respond};
use crate::client::{read_all, read_answer};
use crate::observed::access_line;
use crate::programs::random_file;
use crate::world::World;

#[test]
fn down_is_502_none_is_503_and_the_log_says_why() {
    let world = World::new();
    let down = world.address(9, 8080);
    world.serve([world.app(&[("/", &[down]), ("/none", &[])])]);
    for version in ["--http1.1", "--http2"] {
        let (body, code) = world.fetch("/", &[version]);
        assert_eq!((body.as_str(), &code[..3]), ("the app cannot be reached\n", "502"));
        let (body, code) = world.fetch("/none", &[version]);
        assert_eq!((body.as_str(), &code[..3]), ("not available now\n", "503"));
    }
    // The answer arrives although the client is still sending.
    let original = world.folder.join("original");
    random_file(&original, 8);
    let upload = ["--http1.1", "-H", "expect:", "-T", &original.display().to_string()];
    assert_eq!(world.fetch("/none/", &upload), ("not available now\n".into(), "503 1.1".into()));
    let line = access_line(&world.host, "no endpoint accepts connections");
    assert_eq!((&line["code"], &line["workload"]), (&502.into(), &"shop/8080".into()));
    assert_eq!(access_line(&world.host, "no workload matches the route")["code"], 503);
    assert!(world.edge().status().apps[0].endpoints[0].set_aside);
}

#[test]
fn another_endpoint_is_tried_and_the_one_that_is_down_set_aside() {
    let world = World::new();
    let backend = Backend::saying(world.address(2, 8080), "hello");
    world.serve([world.app(&[("/", &[world.address(9, 8081), backend.address])])]);
    for _ in 0..4 {
        assert_eq!(world.fetch("/", &["-d", "body"]), ("hello".into(), "200 2".into()));
    }
    assert!(backend.seen().iter().all(|seen| seen.body == b"body"));
    let endpoints = &world.edge().status().apps[0].endpoints;
    assert!(endpoints.iter().find(|endpoint| endpoint.address.ends_with(":8081")).unwrap().set_aside);
}

#[test]
fn slow_is_504_and_its_connection_is_not_used_again() {
    let world = World::new();
    let backend = Backend::start(world.address(2, 8080), |seen, stream| {
        if seen.line.contains("/slow") {
            let mut until_closed = [0];
            return stream.read(&mut until_closed).is_ok_and(|length| length > 0);
        }
        respond(stream, "200 OK", &[], "hello")
    });
    world.serve([world.app(&[("/", &[backend.address])])]);
    let began = Instant::now();
    assert_eq!(world.fetch("/slow", &[]), ("the app did not answer in time\n".into(), "504 2".into()));
    assert!((0.9..5.0).contains(&began.elapsed().as_secs_f64()), "{:?}", began.elapsed());
    assert_eq!(world.fetch("/", &[]).0, "hello");
    assert_eq!(backend.seen().iter().map(|seen| seen.connection).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(access_line(&world.host, "did not begin to answer in time")["path"], "/slow");
}

#[test]
fn a_slow_upload_is_not_a_slow_backend() {
    let world = World::new();
    let backend = Backend::saying(world.address(2, 8080), "hello");
    world.serve([world.app(&[("/", &[backend.address])])]);
    let mut stream = world.raw(&world.host, &[b"http/1.1"]);
    write!(stream, "POST / HTTP/1.1\r\nhost: {}\r\ncontent-length: 2\r\n\r\na", world.host).unwrap();
    stream.flush().unwrap();
    // Longer than the first byte's time, shorter than the idle time.
    let (_keep, never) = mpsc::channel::<()>();
    let _ = never.recv_timeout(Duration::from_millis(1800));
    stream.write_all(b"b").unwrap();
    assert!(read_answer(&mut stream).ends_with("hello"));

    write!(stream, "POST / HTTP/1.1\r\nhost: {}\r\ncontent-length: 2\r\n\r\na", world.host).unwrap();
    let answer = read_all(&mut stream);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
}

#[test]
fn answers_that_break_off() {
    let world = World::new();
    let backend = Backend::start(world.address(2, 8080), |seen, stream| {
        let text = match seen.line.split(' ').nth(1).unwrap() {
            "/close" => "",
            "/garbage" => "SSH-2.0-OpenSSH\r\n\r\n",
            "/switch" => "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
            "/short" => "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
            _ => "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nstop",
        };
        stream.write_all(text.as_bytes()).unwrap();
        if seen.line.contains("/stop") {
            let _ = stream.read(&mut [0]);
        }
        false
    });
    world.serve([world.app(&[("/", &[backend.address])])]);
    for path in ["/close", "/garbage", "/switch"] {
        assert_eq!(world.fetch(path, &[]), ("the app cannot be reached\n".into(), "502 2".into()), "{path}");
    }
    assert_eq!(backend.seen().len(), 3, "what was sent is not sent again");
    for version in ["--http1.1", "--http2"] {
        let output = world.curl("/short", &[version]);
        assert!(!output.status.success(), "a short answer must not look whole: {output:?}");
    }
    assert_eq!(access_line(&world.host, "broke the connection off")["code"], 502);
    assert_eq!(access_line(&world.host, r#""path":"/short"#)["reason"], "the backend broke the connection off");
    let output = world.curl("/stop", &[]);
    assert!(!output.status.success());
    assert_eq!(
        access_line(&world.host, r#""path":"/stop"#)["reason"],
        "the backend stopped in the middle of its answer"
    );
}

#[test]
fn a_kept_connection_that_the_backend_closes_costs_nothing() {
    let world = World::new();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let backend = Backend::start(world.address(2, 8080), move |_, stream| {
        counted.fetch_add(1, Ordering::Relaxed);
        respond(stream, "200 OK", &[], "hello");
        false
    });
    world.serve([world.app(&[("/", &[backend.address])])]);
    for number in 1..=20 {
        assert_eq!(world.fetch("/", &["-d", "body"]).0, "hello");
        assert_eq!(count.load(Ordering::Relaxed), number);
    }
}

#[test]
fn a_client_that_leaves_frees_the_backend() {
    let world = World::new();
    let (told, closed) = mpsc::channel();
    let told = Mutex::new(told);
    let backend = Backend::start(world.address(2, 8080), move |_, stream| {
        told.lock().unwrap().send("asked").unwrap();
        let _ = stream.read(&mut [0]);
        told.lock().unwrap().send("closed").unwrap();
        false
    });
    world.serve([world.app(&[("/", &[backend.address])])]);
    let mut stream = world.raw(&world.host, &[b"http/1.1"]);
    write!(stream, "GET /left HTTP/1.1\r\nhost: {}\r\n\r\n", world.host).unwrap();
    assert_eq!(closed.recv_timeout(Duration::from_secs(5)), Ok("asked"));
    drop(stream);
    assert_eq!(closed.recv_timeout(Duration::from_secs(5)), Ok("closed"));
    let line = access_line(&world.host, "/left");
    assert_eq!((&line["code"], &line["reason"]), (&499.into(), &"the client went away".into()));
}
