//! Requests whose length can be read in two ways: none of them reaches a backend in a form that another could misread, and
//! what hides behind them is never served.

use crate::backend::Backend;
use crate::observed::access_line;
use crate::world::World;

fn world() -> (World, Backend) {
    let world = World::new();
    let backend = Backend::saying(world.address(2, 8080), "hello");
    world.serve([world.app(&[("/", &[backend.address])])]);
    (world, backend)
}

/// Sends fields and a body that hides a request for `/hidden`.
fn smuggle(world: &World, version: &str, fields: &str, body: &str) -> String {
    let hidden = format!("GET /hidden HTTP/1.1\r\nhost: {}\r\n\r\n", world.host);
    world.say(&format!("POST / HTTP/{version}\r\nhost: {}\r\n{fields}\r\n{body}{hidden}", world.host))
}

#[test]
fn lengths_that_contradict_each_other_are_refused() {
    let (world, backend) = world();
    for (version, fields) in [
        ("1.1", "content-length: 3\r\ncontent-length: 4\r\n"),
        ("1.1", "content-length: 3, 4\r\n"),
        ("1.1", "content-length: +3\r\n"),
        ("1.1", "content-length: -1\r\n"),
        ("1.1", "content-length: 0x3\r\n"),
        ("1.1", "content-length: 99999999999999999999\r\n"),
        ("1.1", "transfer-encoding: identity\r\n"),
        ("1.1", "transfer-encoding: chunked, identity\r\n"),
        ("1.1", "transfer-encoding: xchunked\r\n"),
        ("1.1", "transfer-encoding : chunked\r\n"),
        ("1.1", " transfer-encoding: chunked\r\n"),
        ("1.1", "x: y\r\n\ttransfer-encoding: chunked\r\n"),
        ("1.0", "transfer-encoding: chunked\r\n"),
        ("1.1", "content-length: 3\r\ntransfer-encoding: identity\r\n"),
        ("1.1", "x-nul: a\0b\r\n"),
        ("1.1", "host: other.example\r\n"),
    ] {
        let answer = smuggle(&world, version, fields, "0\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 400"), "{fields:?}: {answer}");
        assert_eq!(answer.matches("HTTP/1.").count(), 1, "{fields:?}: {answer}");
    }
    assert!(backend.seen().is_empty(), "{:?}", backend.seen());
    access_line(&world.host, "the request cannot be read");
}

/// RFC 9112 §6.1: the transfer coding counts, the length goes, and the connection ends after the answer.
#[test]
fn a_length_beside_a_transfer_coding_never_arrives() {
    let (world, backend) = world();
    for fields in [
        "content-length: 5\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 5\r\n",
        "content-length: 5\r\nconnection: content-length\r\ntransfer-encoding: chunked\r\n",
    ] {
        let answer = smuggle(&world, "1.1", fields, "2\r\nhi\r\n0\r\n\r\n");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{fields:?}: {answer}");
        let seen = backend.seen().pop().unwrap();
        assert_eq!((seen.all("content-length"), seen.all("transfer-encoding")), (vec![], vec!["chunked"]));
        assert_eq!(String::from_utf8_lossy(&seen.body), "2\r\nhi\r\n0\r\n\r\n");
    }
    assert!(backend.seen().iter().all(|seen| !seen.line.contains("hidden")));
}

#[test]
fn broken_chunks_do_not_become_requests() {
    let (world, backend) = world();
    for body in [
        "2;\n\nhi\r\n0\r\n\r\n",
        "2\nhi\r\n0\r\n\r\n",
        "-2\r\nhi\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nhi",
        "2\r\nhiX\r\n0\r\n\r\n",
    ] {
        let answer = smuggle(&world, "1.1", "transfer-encoding: chunked\r\n", body);
        assert!(!answer.contains("HTTP/1.1 200") || !answer.contains("hidden"), "{body:?}: {answer}");
    }
    assert!(backend.seen().iter().all(|seen| !seen.line.contains("hidden")), "{:?}", backend.seen());
}

#[test]
fn neither_tunnels_nor_other_upgrades() {
    let (world, backend) = world();
    let answer =
        world.say(&format!("CONNECT {0}:443 HTTP/1.1\r\nhost: {0}:443\r\nconnection: close\r\n\r\n", world.host));
    assert!(answer.starts_with("HTTP/1.1 501"), "{answer}");
    assert!(backend.seen().is_empty());

    let answer = world.say(&format!(
        "GET / HTTP/1.1\r\nhost: {}\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n\
         connection: upgrade, http2-settings, close\r\n\r\n",
        world.host
    ));
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let seen = backend.seen().pop().unwrap();
    for field in ["upgrade", "http2-settings", "connection"] {
        assert_eq!(seen.all(field), Vec::<&str>::new(), "{field}");
    }
}
