//! Requests and answers through the edge: routes, hosts, fields, bodies, connections.

use std::io::{Read, Write};
use std::process::Command;
use std::time::Instant;

use crate::backend::{Backend, respond};
use crate::client::read_answer;
use crate::observed::{access, access_line, eventually, metric};
use crate::programs::{nginx, random_file};
use crate::world::{World, sha256};

#[test]
fn routes_by_whole_segments_and_in_turn() {
    let world = World::new();
    let [a, b, c] = [2, 3, 4].map(|last| world.address(last, 8080));
    let _backends = [
        Backend::saying(a, "root a"),
        Backend::saying(b, "root b"),
        Backend::start(c, |seen, stream| respond(stream, "200 OK", &[], &seen.line)),
    ];
    world.serve([world.app(&[("/", &[a, b]), ("/api", &[c])])]);
    let mut said: Vec<_> = (0..4).map(|_| world.fetch("/apis", &[]).0).collect();
    said.sort();
    assert_eq!(said, ["root a", "root a", "root b", "root b"]);
    assert_eq!(world.fetch("/api/x?q=1%202", &[]).0, "GET /api/x?q=1%202 HTTP/1.1");
    assert_eq!(world.fetch("/api/../x", &["--path-as-is"]), ("bad request\n".into(), "400 2".into()));

    world.serve([world.app(&[("/api", &[c])])]);
    assert_eq!(world.fetch("/other", &[]), ("not found\n".into(), "404 2".into()));
    let line = access_line(&world.host, "no route for the path");
    assert_eq!((&line["path"], &line["code"], &line["app"]), (&"/other".into(), &404.into(), &"shop/web".into()));
    let line = access_line(&world.host, "/api/x");
    assert_eq!((&line["path"], &line["method"], &line["version"]), (&"/api/x".into(), &"GET".into(), &"h2".into()));
    assert_eq!(line["workload"], "shop/8080");
    let served = metric(r#"tidegate_edge_requests_total{app="shop/web",code="200"}"#).unwrap();
    assert!(served >= 5.0, "{served}");
    assert!(metric(r#"tidegate_edge_request_seconds_count{app="shop/web"}"#).unwrap() >= 7.0);
}

#[test]
fn the_host_must_be_of_the_connections_app() {
    let world = World::new();
    let backend = Backend::saying(world.address(2, 8080), "hello");
    let mut other = world.app(&[("/", &[backend.address])]);
    other.name = "other".parse().unwrap();
    other.hosts = vec![format!("other.{}", world.host).parse().unwrap()];
    world.serve([world.app(&[("/", &[backend.address])]), other]);
    for version in ["--http1.1", "--http2"] {
        let host = |name: String| world.fetch("/", &[version, "-H", &format!("host: {name}")]).1;
        assert!(host(format!("www.{}", world.host)).starts_with("200"));
        assert!(host(format!("{}:8443", world.host.to_uppercase())).starts_with("200"));
        assert!(host(format!("other.{}", world.host)).starts_with("421"));
        assert!(host("127.0.0.1".to_owned()).starts_with("421"));
    }
    assert_eq!(backend.seen().len(), 4);
}

#[test]
fn fields_of_one_hop_end_and_forwarding_is_told_truly() {
    let world = World::new();
    let backend = Backend::start(world.address(2, 8080), |_, stream| {
        let fields = [
            "connection: x-inner",
            "x-inner: 1",
            "keep-alive: timeout=9",
            "server: inner",
            "set-cookie: a=1",
            "set-cookie: b=2",
        ];
        respond(stream, "200 OK", &fields, "hello")
    });
    world.serve([world.app(&[("/", &[backend.address])])]);
    let claims = [
        "-H",
        "x-forwarded-for: 10.0.0.1",
        "-H",
        "forwarded: for=10.0.0.1",
        "-H",
        "x-real-ip: 10.0.0.1",
        "-H",
        "te: trailers",
        "-H",
        "accept: text/x",
        "-H",
        "cookie: a=1",
        "-i",
    ];
    for version in ["--http1.1", "--http2"] {
        let (answer, _) = world.fetch("/", &[&claims[..], &[version]].concat());
        let answer = answer.to_lowercase();
        assert!(answer.contains("set-cookie: a=1") && answer.contains("set-cookie: b=2"), "{answer}");
        assert!(answer.contains("server: inner"), "{answer}");
        assert!(!answer.contains("x-inner") && !answer.contains("timeout=9"), "{answer}");
        let seen = backend.seen().pop().unwrap();
        let client = "127.0.0.1";
        assert_eq!(seen.all("x-forwarded-for"), [client]);
        assert_eq!(seen.all("forwarded"), [format!("for={client};host=\"{}\";proto=https", world.host)]);
        assert_eq!((seen.all("x-forwarded-proto"), seen.all("x-forwarded-host")), (vec!["https"], vec![&*world.host]));
        assert_eq!((seen.all("host"), seen.all("accept")), (vec![&*world.host], vec!["text/x"]));
        assert_eq!(
            (seen.all("te"), seen.all("x-real-ip"), seen.all("cookie")),
            (vec!["trailers"], vec![], vec!["a=1"])
        );
    }
}

#[test]
fn backend_connections_are_kept() {
    let world = World::new();
    let backend = Backend::saying(world.address(2, 8080), "hello");
    world.serve([world.app(&[("/", &[backend.address])])]);
    for path in ["/1", "/2", "/3"] {
        assert_eq!(world.fetch(path, &[]).0, "hello");
        world.serve([world.app(&[("/", &[backend.address])])]);
    }
    assert_eq!(backend.peers().len(), 1, "one connection for three clients, through reloads");
    assert_eq!(world.edge().status().apps[0].endpoints[0].idle, 1);

    let url = format!("https://{}/", world.host);
    let output = world.curl("/", &["--http1.1", &url, &url]);
    assert_eq!(String::from_utf8_lossy(&output.stdout).matches("hello").count(), 3);
    assert_eq!(backend.peers().len(), 1);
}

#[test]
fn many_streams_on_one_connection() {
    let world = World::new();
    let (_nginx, root) = nginx(&world, world.address(2, 8080), &format!("listen {};", world.address(2, 8080)));
    std::fs::write(root.join("index.html"), "x".repeat(20_000)).unwrap();
    world.serve([world.app(&[("/", &[world.address(2, 8080)])])]);
    // nghttp takes the server name from the authority it is given.
    let output = Command::new("nghttp")
        .args(["-nv", "-m", "50", "--no-verify-peer", "-H", &format!(":authority: {}", world.host)])
        .arg(format!("https://{}/index.html", world.listen()))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text.matches(":status: 200").count(), 50, "{text}");

    let output = Command::new("curl")
        .args(["-sS", "--http2", "--parallel", "--parallel-max", "50", "--cacert"])
        .arg(world.ca.certificate())
        .args([
            "--connect-to",
            &format!("::{}", world.listen()),
            "-o",
            "/dev/null",
            "-w",
            "%{http_code} %{size_download}\n",
        ])
        .arg(format!("https://{}/index.html?[1-200]", world.host))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text.lines().filter(|line| *line == "200 20000").count(), 200, "{text}");
    let whole = || access(&world.host).iter().filter(|line| line["down"] == 20_000).count();
    eventually("a line for each whole answer", || whole() == 250);
}

#[test]
fn large_bodies_arrive_whole() {
    let world = World::new();
    let address = world.address(2, 8080);
    let (_nginx, root) = nginx(
        &world,
        address,
        &format!("listen {address}; location / {{ dav_methods PUT; create_full_put_path on; }}"),
    );
    world.serve([world.app(&[("/", &[address])])]);
    let original = world.folder.join("original");
    random_file(&original, 48);
    let sum = sha256(&original).unwrap();
    let (original, back) = (original.display().to_string(), world.folder.join("back"));
    for (version, chunked) in
        [("--http1.1", "x-a: b"), ("--http1.1", "transfer-encoding: chunked"), ("--http2", "x-a: b")]
    {
        let (_, code) = world.fetch("/upload", &[version, "-T", &original, "-H", chunked]);
        assert!(code.starts_with("20"), "{code}");
        assert_eq!(sha256(&root.join("upload")).unwrap(), sum, "up by {version}, {chunked}");
        world.fetch("/upload", &[version, "-o", &back.display().to_string()]);
        assert_eq!(sha256(&back).unwrap(), sum, "down by {version}");
        std::fs::remove_file(root.join("upload")).unwrap();
    }
    assert_eq!(access_line(&world.host, &format!(r#""up":{}"#, 48 << 20))["reason"], "served");
}

#[test]
fn an_expectation_is_answered_once_there_is_a_backend() {
    let world = World::new();
    let backend = Backend::saying(world.address(2, 8080), "hello");
    world.serve([world.app(&[("/", &[backend.address])])]);
    let mut stream = world.raw(&world.host, &[b"http/1.1"]);
    let head = format!("POST / HTTP/1.1\r\nhost: {}\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n", world.host);
    stream.write_all(head.as_bytes()).unwrap();
    assert_eq!(read_answer(&mut stream), "HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"data").unwrap();
    assert!(read_answer(&mut stream).ends_with("hello"));
    let seen = backend.seen().pop().unwrap();
    assert_eq!((seen.body.as_slice(), seen.all("expect")), (&b"data"[..], vec![]));

    world.serve([world.app(&[("/", &[])])]);
    stream.write_all(head.as_bytes()).unwrap();
    assert!(read_answer(&mut stream).starts_with("HTTP/1.1 503"), "no 100 for a request that nobody takes");
}

#[test]
fn trailers_pass_both_ways() {
    let world = World::new();
    let backend = Backend::start(world.address(2, 8080), |_, stream| {
        let answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 42\r\n\r\n";
        stream.write_all(answer.as_bytes()).is_ok()
    });
    world.serve([world.app(&[("/", &[backend.address])])]);
    let answer = world.say(&format!(
        "POST / HTTP/1.1\r\nhost: {}\r\nte: trailers\r\nconnection: te, close\r\ntransfer-encoding: chunked\r\ntrailer: x-up\r\n\r\n\
         2\r\nhi\r\n0\r\nx-up: 7\r\n\r\n",
        world.host
    ));
    assert!(answer.ends_with("5\r\nhello\r\n0\r\nx-sum: 42\r\n\r\n"), "{answer}");
    let seen = backend.seen().pop().unwrap();
    assert_eq!(String::from_utf8_lossy(&seen.body), "2\r\nhi\r\n0\r\nx-up: 7\r\n\r\n");
    assert_eq!(seen.all("transfer-encoding"), ["chunked"]);
    let (answer, _) = world.fetch("/", &["--http2", "-i"]);
    assert!(answer.contains("hello") && answer.contains("x-sum: 42"), "{answer}");
}

#[test]
fn a_body_of_a_get_is_not_lost() {
    let world = World::new();
    let backend = Backend::saying(world.address(2, 8080), "hello");
    world.serve([world.app(&[("/", &[backend.address])])]);
    for version in ["--http1.1", "--http2"] {
        world.fetch("/", &[version, "-X", "GET", "-H", "transfer-encoding: chunked", "-d", "query"]);
        assert!(String::from_utf8_lossy(&backend.seen().pop().unwrap().body).contains("query"), "{version}");
    }
}

#[test]
fn a_head_that_does_not_come_is_not_waited_for() {
    let world = World::new();
    let backend = Backend::saying(world.address(2, 8080), "hello");
    world.serve([world.app(&[("/", &[backend.address])])]);
    let (mut slow, began) = (world.raw(&world.host, &[b"http/1.1"]), Instant::now());
    slow.write_all(b"GET / HTTP/1.1\r\nhost:").unwrap();
    let mut rest = Vec::new();
    let _ = slow.read_to_end(&mut rest);
    assert!((1.5..8.0).contains(&began.elapsed().as_secs_f64()), "{:?}", began.elapsed());
    assert!(backend.seen().is_empty());

    let long = "x".repeat(70_000);
    let answer = world.say(&format!("GET / HTTP/1.1\r\nhost: {}\r\nx-long: {long}\r\n\r\n", world.host));
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    let many: String = (0..200).map(|n| format!("x-{n}: 1\r\n")).collect();
    let answer = world.say(&format!("GET / HTTP/1.1\r\nhost: {}\r\n{many}\r\n", world.host));
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    assert!(backend.seen().is_empty());
}

#[test]
fn answers_without_a_body_and_old_clients() {
    let world = World::new();
    let backend = Backend::start(world.address(2, 8080), |seen, stream| match seen.line.split(' ').next().unwrap() {
        "HEAD" => stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1234\r\n\r\n").is_ok(),
        "DELETE" => stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").is_ok(),
        _ => {
            stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nuntil the end").unwrap();
            false
        }
    });
    world.serve([world.app(&[("/", &[backend.address])])]);
    for version in ["--http1.1", "--http2"] {
        let (head, _) = world.fetch("/", &[version, "-I"]);
        assert!(head.contains("content-length: 1234"), "{head}");
        assert!(world.fetch("/", &[version, "-X", "DELETE"]).1.starts_with("204"));
        assert_eq!(world.fetch("/", &[version]).0, "until the end");
    }
    assert_eq!(world.fetch("/", &["--http1.0"]).0, "until the end");
    let connections: Vec<_> = backend.seen().iter().map(|seen| seen.connection).collect();
    assert_eq!(connections, [0, 0, 0, 1, 1, 1, 2], "kept but where the end of the connection is the end of the answer");
}

#[test]
fn ipv6_clients() {
    let world = World::new();
    let backend = Backend::saying(world.address(2, 8080), "hello");
    world.serve([world.app(&[("/", &[backend.address])])]);
    let to = format!("::{}", world.edge().addresses()[1]);
    assert_eq!(world.fetch("/", &["--connect-to", &to]).0, "hello", "{to}");
    let seen = backend.seen().pop().unwrap();
    assert_eq!(seen.all("x-forwarded-for"), ["::1"]);
    assert_eq!(seen.all("forwarded"), [format!("for=\"[::1]\";host=\"{}\";proto=https", world.host)]);
}
