//! How connections end that are no longer served, idle, or alive when the edge stops.

use std::io::{Read, Write};
use std::sync::Mutex;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use gateway::edge::Timeouts;

use crate::backend::{Backend, respond};
use crate::client::{Raw, read_all, read_answer};
use crate::observed::eventually;
use crate::world::{World, edge_mode};

const GOAWAY: u8 = 7;
const PING: u8 = 6;

/// Opens an HTTP/2 connection (RFC 9113 §3.4) without a request.
fn http2(world: &World) -> Raw {
    let mut stream = world.raw(&world.host, &[b"h2"]);
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    stream
}

/// The types of all frames to the end; pings are answered.
fn frames(stream: &mut Raw) -> Vec<u8> {
    let (mut types, mut head) = (Vec::new(), [0; 9]);
    while stream.read_exact(&mut head).is_ok() {
        let mut body = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        stream.read_exact(&mut body).unwrap();
        types.push(head[3]);
        if head[3] == PING {
            head[4] = 1;
            let _ = stream.write_all(&[&head[..], &body].concat());
        }
    }
    types
}

#[test]
fn an_idle_http2_connection_says_goodbye() {
    let world = World::new();
    world.serve([world.app(&[("/", &[])])]);
    let (mut stream, began) = (http2(&world), Instant::now());
    assert!(frames(&mut stream).contains(&GOAWAY));
    assert!((2.5..7.0).contains(&began.elapsed().as_secs_f64()), "{:?}", began.elapsed());
    eventually("its place is free", || world.edge().status().connections == 0);
}

#[test]
fn shutdown_says_goodbye_on_http2() {
    let mut world = World::new();
    world.serve([world.app(&[("/", &[])])]);
    let mut stream = http2(&world);
    let edge = world.edge.take().unwrap();
    let shutdown = world.runtime.spawn(async move { edge.shutdown(Duration::from_secs(5)).await });
    assert!(frames(&mut stream).contains(&GOAWAY));
    assert_eq!(world.runtime.block_on(shutdown).unwrap(), 0);
}

#[test]
fn a_removed_app_ends_its_connections_and_others_live() {
    let mut world = World::new();
    let backend = Backend::saying(world.address(2, 8080), "hello");
    let app = world.app(&[("/", &[backend.address])]);
    let mut other = app.clone();
    other.name = "other".parse().unwrap();
    other.hosts = vec![format!("other.{}", world.host).parse().unwrap()];
    world.issue("other", other.hosts[0].as_str());
    other.mode = edge_mode("other");
    world.serve([app, other.clone()]);
    let mut gone = world.raw(&world.host, &[b"http/1.1"]);
    let mut stays = world.raw(other.hosts[0].as_str(), &[b"http/1.1"]);
    world.serve([other.clone()]);
    let mut bytes = Vec::new();
    let _ = gone.read_to_end(&mut bytes);
    assert!(bytes.is_empty(), "closed without an answer");
    write!(stays, "GET / HTTP/1.1\r\nhost: {}\r\n\r\n", other.hosts[0]).unwrap();
    assert!(read_answer(&mut stays).ends_with("hello"));

    let edge = world.edge.take().unwrap();
    assert_eq!(
        world.runtime.block_on(edge.shutdown(Duration::from_secs(5))),
        0,
        "an idle connection is no reason to wait"
    );
}

#[test]
fn shutdown_lets_requests_end_and_cuts_the_rest() {
    // nothing else ends a request meanwhile
    let mut world = World::with(Timeouts::default());
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let backend = Backend::start(world.address(2, 8080), move |seen, stream| {
        if seen.line.contains("/never") {
            let _ = stream.read(&mut [0]);
            return false;
        }
        wait.lock().unwrap().recv().unwrap();
        respond(stream, "200 OK", &[], "hello")
    });
    world.serve([world.app(&[("/", &[backend.address])])]);
    let ask = |path: &str| {
        let mut stream = world.raw(&world.host, &[b"http/1.1"]);
        write!(stream, "GET {path} HTTP/1.1\r\nhost: {}\r\n\r\n", world.host).unwrap();
        stream
    };
    let (mut ends, mut never) = (ask("/ends"), ask("/never"));
    eventually("both are under way", || backend.seen().len() == 2);
    let listen = world.listen();
    let edge = world.edge.take().unwrap();
    let shutdown = world.runtime.spawn(async move { edge.shutdown(Duration::from_secs(3)).await });
    eventually("nothing is accepted any longer", || std::net::TcpStream::connect(listen).is_err());
    go.send(()).unwrap();
    assert!(read_all(&mut ends).ends_with("hello"));
    assert_eq!(world.runtime.block_on(shutdown).unwrap(), 1);
    assert_eq!(read_all(&mut never), "");
}
