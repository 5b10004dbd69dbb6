//! Passthrough: the client speaks TLS with the backend itself.

use std::io::Write;
use std::process::Command;

use gateway::edge::{App, Mode};

use crate::client::read_all;
use crate::observed::access_line;
use crate::pki::serial;
use crate::programs::{Program, nginx};
use crate::world::World;

impl World {
    fn passthrough(&self, backends: &[std::net::SocketAddr]) -> App {
        App { mode: Mode::Passthrough, ..self.app(&[("/", backends)]) }
    }

    /// A pair of the backend's own, in files that the edge never reads.
    fn own_pair(&self) -> (String, String) {
        let stem = self.folder.join("own");
        self.ca.issue(&stem, &self.host, 20);
        (format!("{}.pem", stem.display()), format!("{}.key", stem.display()))
    }
}

#[test]
fn nginx_shows_its_own_certificate() {
    let world = World::new();
    let (certificate, key) = world.own_pair();
    let address = world.address(2, 8443);
    let server = format!("listen {address} ssl http2; ssl_certificate {certificate}; ssl_certificate_key {key};");
    let (_nginx, root) = nginx(&world, address, &server);
    std::fs::write(root.join("index.html"), "own").unwrap();
    world.serve([world.passthrough(&[address])]);
    assert_eq!(world.fetch("/", &["--http2"]), ("own".into(), "200 2".into()));
    assert_eq!(world.fetch("/", &["--http1.1"]), ("own".into(), "200 1.1".into()));
    let shown = world.folder.join("shown");
    std::fs::write(&shown, world.s_client(&format!("-servername {}", world.host))).unwrap();
    assert_eq!(serial(&shown), serial(certificate.as_ref()));
    assert_ne!(serial(&shown), serial(&world.file("web.pem")));
    let line = access_line(&world.host, "connection");
    assert_eq!((&line["reason"], &line["workload"]), (&"served".into(), &"shop/8443".into()));
    assert!(line["up"].as_u64().unwrap() > 200 && line["down"].as_u64().unwrap() > 200, "{line}");
}

#[test]
fn openssl_at_both_ends_with_half_a_close() {
    let world = World::new();
    let (certificate, key) = world.own_pair();
    let address = world.address(2, 8443);
    let mut server = Command::new("openssl");
    server.args(["s_server", "-accept", &address.to_string(), "-cert", &certificate, "-key", &key, "-rev", "-quiet"]);
    let _server = Program::start(&mut server, address);
    world.serve([world.passthrough(&[address])]);
    let mut stream = world.raw(&world.host, &[]);
    stream.write_all(b"abcdef\n").unwrap();
    let mut back = [0; 7];
    std::io::Read::read_exact(&mut stream, &mut back).unwrap();
    assert_eq!(&back, b"fedcba\n");
    stream.conn.send_close_notify();
    stream.flush().unwrap();
    stream.sock.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(read_all(&mut stream), "");
    access_line(&world.host, "served");
}

#[test]
fn idle_and_revoked_connections_end() {
    let world = World::new();
    let (certificate, key) = world.own_pair();
    let address = world.address(2, 8443);
    let mut server = Command::new("openssl");
    server.args(["s_server", "-accept", &address.to_string(), "-cert", &certificate, "-key", &key, "-quiet"]);
    let _server = Program::start(&mut server, address);
    world.serve([world.passthrough(&[address])]);
    let mut idle = world.raw(&world.host, &[]);
    assert_eq!(read_all(&mut idle), "");
    access_line(&world.host, "idle for too long");
    let mut revoked = world.raw(&world.host, &[]);
    world.serve([world.passthrough(&[])]);
    assert_eq!(read_all(&mut revoked), "");
    access_line(&world.host, "no longer what the configuration serves");
}

#[test]
fn without_a_backend_the_client_gets_an_alert() {
    let world = World::new();
    for (backends, reason) in
        [(&[][..], "no workload matches the route"), (&[world.address(9, 8443)][..], "no endpoint accepts connections")]
    {
        world.serve([world.passthrough(backends)]);
        let said = world.s_client(&format!("-servername {}", world.host));
        assert!(said.contains("alert internal error"), "{said}");
        access_line(&world.host, reason);
    }
}
