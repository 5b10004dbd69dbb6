//! WebSocket: the upgrade passes, bytes flow both ways, half-closing works, idle ones end.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use crate::backend::{Backend, Seen, respond};
use crate::client::{read_all, read_answer};
use crate::observed::access_line;
use crate::world::World;

fn echo(seen: &Seen, stream: &mut TcpStream) -> bool {
    if seen.all("upgrade") != ["websocket"] || seen.all("connection") != ["upgrade"] {
        return respond(stream, "400 Bad Request", &[], "no upgrade asked for");
    }
    let head = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
                sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nfirst ";
    stream.write_all(head.as_bytes()).unwrap();
    let mut bytes = [0; 1024];
    while let Ok(length @ 1..) = stream.read(&mut bytes) {
        stream.write_all(&bytes[..length]).unwrap();
    }
    false
}

fn world() -> (World, Backend) {
    let world = World::new();
    let backend = Backend::start(world.address(2, 8080), echo);
    world.serve([world.app(&[("/", &[backend.address])])]);
    (world, backend)
}

fn handshake(world: &World) -> String {
    format!(
        "GET /socket HTTP/1.1\r\nhost: {}\r\nconnection: keep-alive, Upgrade\r\nupgrade: WebSocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        world.host
    )
}

#[test]
fn a_websocket_echoes() {
    let (world, backend) = world();
    let mut socket = world.raw(&world.host, &[b"http/1.1"]);
    socket.write_all(handshake(&world).as_bytes()).unwrap();
    let head = read_answer(&mut socket).to_lowercase();
    assert!(head.starts_with("http/1.1 101"), "{head}");
    assert!(head.contains("upgrade: websocket") && head.contains("s3ppl"), "{head}");
    let mut bytes = [0; 6];
    socket.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"first ");
    for round in 0..100 {
        let frame = format!("frame {round:03} ").repeat(20);
        socket.write_all(frame.as_bytes()).unwrap();
        let mut back = vec![0; frame.len()];
        socket.read_exact(&mut back).unwrap();
        assert_eq!(back, frame.as_bytes());
    }
    assert_eq!(backend.seen()[0].all("sec-websocket-key"), ["dGhlIHNhbXBsZSBub25jZQ=="]);
    drop(socket);
    let line = access_line(&world.host, "/socket");
    assert_eq!((&line["code"], &line["up"], &line["down"]), (&101.into(), &20_000.into(), &20_006.into()));
}

#[test]
fn openssl_as_a_websocket_client() {
    let (world, _backend) = world();
    let mut client = Command::new("openssl")
        .args(["s_client", "-quiet", "-connect", &world.listen().to_string(), "-servername", &world.host])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (mut input, mut output) = (client.stdin.take().unwrap(), client.stdout.take().unwrap());
    input.write_all(handshake(&world).as_bytes()).unwrap();
    assert!(read_answer(&mut output).starts_with("HTTP/1.1 101"));
    input.write_all(b"ping").unwrap();
    let mut back = [0; 10];
    output.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"first ping");
    client.kill().unwrap();
    client.wait().unwrap();
}

#[test]
fn an_idle_websocket_ends() {
    let (world, _backend) = world();
    let mut socket = world.raw(&world.host, &[b"http/1.1"]);
    socket.write_all(handshake(&world).as_bytes()).unwrap();
    assert!(read_answer(&mut socket).starts_with("HTTP/1.1 101"));
    assert_eq!(read_all(&mut socket), "first ");
    access_line(&world.host, "idle for too long");
}

#[test]
fn a_websocket_ends_with_its_endpoint() {
    let (world, backend) = world();
    let mut socket = world.raw(&world.host, &[b"http/1.1"]);
    socket.write_all(handshake(&world).as_bytes()).unwrap();
    assert!(read_answer(&mut socket).starts_with("HTTP/1.1 101"));
    world.serve([world.app(&[("/", &[backend.address]), ("/more", &[])])]);
    let mut bytes = [0; 10];
    socket.write_all(b"ping").unwrap();
    socket.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"first ping", "another reload does not end it");
    world.serve([world.app(&[("/", &[])])]);
    assert_eq!(read_all(&mut socket), "");
    access_line(&world.host, "no longer what the configuration serves");
}

#[test]
fn a_refused_upgrade_is_an_ordinary_answer() {
    let world = World::new();
    let backend = Backend::start(world.address(2, 8080), |_, stream| respond(stream, "403 Forbidden", &[], "no"));
    world.serve([world.app(&[("/", &[backend.address])])]);
    let mut socket = world.raw(&world.host, &[b"http/1.1"]);
    socket.write_all(handshake(&world).as_bytes()).unwrap();
    assert!(read_answer(&mut socket).starts_with("HTTP/1.1 403"));
}
