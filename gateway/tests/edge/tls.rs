//! Versions, server names, client certificates and broken handshakes, as openssl and curl see them.

use std::io::{Read, Write};
use std::time::Instant;

use config::resource::TlsVersion;
use gateway::edge::Mode;

use crate::backend::Backend;
use crate::client::{read_all, read_answer};
use crate::observed::{access, access_line, metric};
use crate::pki::Authority;
use crate::world::World;

fn world() -> (World, Backend) {
    let world = World::new();
    let backend = Backend::saying(world.address(2, 8080), "hello");
    world.serve([world.app(&[("/", &[backend.address])])]);
    (world, backend)
}

#[test]
fn curl_speaks_both_versions_of_http() {
    let (world, backend) = world();
    assert_eq!(world.fetch("/", &["--http1.1"]), ("hello".into(), "200 1.1".into()));
    assert_eq!(world.fetch("/", &["--http2"]), ("hello".into(), "200 2".into()));
    assert_eq!(world.fetch("/", &["--no-alpn"]), ("hello".into(), "200 1.1".into()));
    assert!(backend.peers().iter().all(|peer| peer.ip() == crate::world::SOURCE));
}

#[test]
fn openssl_speaks_both_versions_of_tls() {
    let (world, _backend) = world();
    for (version, name) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let said = world.s_client(&format!("{version} -servername {} -verify_return_error", world.host));
        assert!(said.contains(&format!("New, {name}")) && said.contains("Verify return code: 0 (ok)"), "{said}");
    }
    for version in ["-tls1", "-tls1_1"] {
        let said = world.s_client(&format!("{version} -servername {} -cipher ALL:@SECLEVEL=0", world.host));
        assert!(said.contains("no peer certificate available"), "{said}");
    }
}

#[test]
fn a_minimum_version_is_kept() {
    let (world, backend) = world();
    let mut app = world.app(&[("/", &[backend.address])]);
    if let Mode::Edge { min_version, .. } = &mut app.mode {
        *min_version = TlsVersion::Tls13;
    }
    world.serve([app]);
    let said = world.s_client(&format!("-tls1_2 -servername {}", world.host));
    assert!(said.contains("alert protocol version"), "{said}");
    assert_eq!(world.fetch("/", &[]).1, "200 2");
    access_line(&world.host, "TLS was not agreed on");
}

#[test]
fn no_name_and_unknown_names_get_an_alert() {
    let (world, _backend) = world();
    let count = |reason: &str| {
        metric(&format!(r#"tidegate_edge_connections_total{{app="-",reason="{reason}"}}"#)).unwrap_or_default()
    };
    let before = (count("no-server-name"), count("unknown-server-name"));
    for arguments in ["-noservername", "-servername nobody.example"] {
        let said = world.s_client(arguments);
        assert!(said.contains("unrecognized name") && said.contains("no peer certificate available"), "{said}");
    }
    assert!(count("no-server-name") > before.0 && count("unknown-server-name") > before.1);
}

#[test]
fn other_application_protocols_are_refused() {
    let (world, _backend) = world();
    let said = world.s_client(&format!("-alpn ftp -servername {}", world.host));
    assert!(said.contains("no application protocol"), "{said}");
}

#[test]
fn a_client_hello_in_many_pieces() {
    let (world, _backend) = world();
    let mut tls = world.tls(&world.host, &[b"http/1.1"]);
    let mut tcp = world.tcp();
    tcp.set_nodelay(true).unwrap();
    let mut flight = Vec::new();
    tls.write_tls(&mut flight).unwrap();
    // As records of 9 bytes, each byte in a segment of its own.
    for piece in flight[5..].chunks(9) {
        for byte in [&[22, 3, 1, 0, piece.len() as u8], piece].concat() {
            tcp.write_all(&[byte]).unwrap();
        }
    }
    let mut stream = rustls::StreamOwned::new(tls, tcp);
    write!(stream, "GET / HTTP/1.1\r\nhost: {}\r\n\r\n", world.host).unwrap();
    assert!(read_answer(&mut stream).ends_with("hello"));
}

#[test]
fn a_slow_or_foreign_client_is_cut_off() {
    let (world, _backend) = world();
    let (mut silent, began) = (world.tcp(), Instant::now());
    silent.write_all(&[22, 3, 1]).unwrap();
    assert_eq!(read_all(&mut silent), "");
    assert!((0.9..5.0).contains(&began.elapsed().as_secs_f64()), "{:?}", began.elapsed());

    let mut plain = world.tcp();
    plain.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut alert = [0; 7];
    plain.read_exact(&mut alert).unwrap();
    assert_eq!(alert, [21, 3, 3, 0, 2, 2, 50], "decode_error");
}

#[test]
fn client_certificates_are_asked_for() {
    let (world, backend) = world();
    let clients = Authority::new(&world.folder, "clients");
    std::fs::copy(clients.certificate(), world.file("clients.pem")).unwrap();
    clients.issue(&world.folder.join("good"), "good.example", 30);
    world.ca.issue(&world.folder.join("foreign"), "foreign.example", 30);
    let mut app = world.app(&[("/", &[backend.address])]);

    // A connection made without one, before one is asked for, is not served under the new terms.
    let mut early = world.raw(&world.host, &[b"http/1.1"]);
    write!(early, "GET / HTTP/1.1\r\nhost: {}\r\n\r\n", world.host).unwrap();
    assert!(read_answer(&mut early).ends_with("hello"));
    if let Mode::Edge { client_ca, .. } = &mut app.mode {
        *client_ca = Some("clients.pem".to_owned());
    }
    world.serve([app]);
    let _ = write!(early, "GET /late HTTP/1.1\r\nhost: {}\r\n\r\n", world.host);
    let late = read_all(&mut early);
    assert!(late.is_empty() || late.starts_with("HTTP/1.1 421"), "{late}");

    let with = |stem: &str| {
        let path = |end: &str| world.folder.join(format!("{stem}.{end}")).display().to_string();
        world.curl("/", &["--cert", &path("pem"), "--key", &path("key")])
    };
    assert!(String::from_utf8_lossy(&with("good").stdout).starts_with("hello"));
    for refused in [world.curl("/", &[]), with("foreign")] {
        assert!(!refused.status.success());
        assert!(String::from_utf8_lossy(&refused.stderr).contains("alert"), "{refused:?}");
    }
    assert!(!access(&world.host).iter().any(|line| line["path"] == "/late" && line["code"] == 200));
}

#[test]
fn sessions_are_resumed() {
    let (world, _backend) = world();
    let session = world.folder.join("session").display().to_string();
    world.s_client(&format!("-tls1_2 -servername {} -sess_out {session}", world.host));
    let said = world.s_client(&format!("-tls1_2 -servername {} -sess_in {session}", world.host));
    assert!(said.contains("Reused, TLSv1.2"), "{said}");
}
