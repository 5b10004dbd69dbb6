//! Names that are true: a flow is what its handshake asks for, and not what somebody else resolved to the same address.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use integration::manifests::{policy, two_tenants};
use integration::peers::query::Kind;
use integration::peers::quic::{QuicClient, QuicServer};
use integration::peers::tls;
use integration::process::Said;
use integration::site::{API, CDN, DNS, Web};
use integration::sys::process::Halted;
use integration::traffic::Target;
use integration::wait::{patience, wait_until};
use integration::{Pod, Site};

/// `api` may be reached at 443, `shared` and `cdn` only looked up; all of them have a certificate there.
fn stage() -> (Site, Web, Pod) {
    let site = Site::start();
    let web = Web::start(&site.world, &site.internet.namespace);
    let rules = "  allow:\n    - dnsNames: [api.example.com]\n      ports: [ { protocol: TCP, port: 443 }, { protocol: UDP, port: 443 } ]\n    \
                 - resolve: [shared.example.com, cdn.example.com]\n";
    site.netctl().apply(&(two_tenants() + &policy("shop", "shop-egress", rules)));
    let pod = site.attach("shop", "web-1", &["app=web"]);
    (site, web, pod)
}

fn curl(pod: &Pod, web: &Web, words: &str) -> Said {
    let authority = web.authority.certificate();
    pod.run(&format!("curl -sS --max-time {} --cacert {} {words}", 15 * patience(), authority.display()))
}

/// The last flow that asked for a name, or for none.
fn last(site: &Site, sni: Option<&str>) -> serde_json::Value {
    let mut found = serde_json::Value::Null;
    wait_until(&format!("a flow that asks for {sni:?}"), Duration::from_secs(5), || {
        let flows = site.netctl().json(&["flows", "-n", "shop"]);
        let flows = flows["flows"].as_array().expect("a list").iter().rev();
        let mut judged = flows.filter(|flow| flow["event"] != "open" && flow["sni"].as_str() == sni);
        found = judged.next().cloned().unwrap_or_default();
        !found.is_null()
    });
    found
}

#[test]
fn of_two_names_at_one_address_the_allowed_one_is_reached() {
    let (site, web, pod) = stage();
    for family in ["-4", "-6"] {
        for version in ["--tlsv1.2 --tls-max 1.2", "--tlsv1.3"] {
            let said = curl(&pod, &web, &format!("{family} {version} https://api.example.com/"));
            assert!(said.stdout.contains("api from") || said.stdout.contains("from"), "{family} {version}: {said:?}");
            let flow = last(&site, Some("api.example.com"));
            assert_eq!((flow["verdict"].as_str(), flow["reason"].as_str()), (Some("allowed"), Some("allowed-by-name")));
            let said = curl(&pod, &web, &format!("{family} {version} https://shared.example.com/"));
            assert!(!said.success() && said.stderr.contains("reset"), "{family} {version}: {said:?}");
            let flow = last(&site, Some("shared.example.com"));
            assert_eq!((flow["verdict"].as_str(), flow["reason"].as_str()), (Some("denied"), Some("sni-mismatch")));
        }
    }
    let spoofed = curl(&pod, &web, &format!("--resolve api.example.com:443:{} https://api.example.com/", CDN.v4()));
    assert!(!spoofed.success(), "{spoofed:?}");
    assert_eq!(pod.look_up(DNS.v4(), "api.example.com", Kind::A), API.v4());
}

#[test]
fn quic_is_judged_by_the_same_name_each_connection_of_a_socket_by_its_own() {
    let (site, web, pod) = stage();
    let pair = web.authority.issue("quic", &["api.example.com", "shared.example.com"]);
    let at = API.both().map(|address| SocketAddr::new(address, 443));
    let _server = QuicServer::start(&site.internet.namespace, &at, &pair);
    for (far, kind) in at.into_iter().zip([Kind::A, Kind::Aaaa]) {
        let client = QuicClient::new(&pod, far.ip(), &web.authority.certificate());
        let unknown = client.ask(far, "api.example.com", 10);
        assert!(unknown.is_err(), "nobody has resolved it yet: {unknown:?}");
        for name in ["api.example.com", "shared.example.com"] {
            assert_eq!(pod.look_up(DNS.v4(), name, kind), far.ip());
        }
        let client = QuicClient::new(&pod, far.ip(), &web.authority.certificate());
        assert_eq!(client.ask(far, "api.example.com", 100_000).as_deref(), Ok("api.example.com 100000"));
        let flow = last(&site, Some("api.example.com"));
        assert_eq!((flow["protocol"].as_str(), flow["reason"].as_str()), (Some("udp"), Some("allowed-by-name")));
        let other = client.ask(far, "shared.example.com", 10);
        assert!(other.is_err(), "another name, by the socket that was verified: {other:?}");
        let flow = last(&site, Some("shared.example.com"));
        assert_eq!((flow["verdict"].as_str(), flow["reason"].as_str()), (Some("denied"), Some("sni-mismatch")));
        assert_eq!(
            client.ask(far, "api.example.com", 10).as_deref(),
            Ok("api.example.com 10"),
            "the first one goes on"
        );
        let fresh = QuicClient::new(&pod, far.ip(), &web.authority.certificate());
        assert!(fresh.ask(far, "shared.example.com", 10).is_err());
    }
}

/// A client of rustls whose bytes leave in these pieces, each in a segment of its own: those that are lost may be sent again
/// together.
fn in_pieces(pod: &Pod, web: &Web, name: &str, far: SocketAddr, at: &[usize]) -> std::io::Result<()> {
    shake_hands(pod, web, name, far, |hello| {
        let from = [0].into_iter().chain(at.iter().copied());
        from.zip(at.iter().copied().chain([hello.len()])).map(|(from, end)| hello[from..end].to_vec()).collect()
    })
}

/// A client whose ClientHello is in two records, which the inspector alone reads.
fn in_records(pod: &Pod, web: &Web, name: &str, far: SocketAddr) -> std::io::Result<()> {
    shake_hands(pod, web, name, far, |hello| {
        let record = |piece: &[u8]| [&hello[..3], &(piece.len() as u16).to_be_bytes(), piece].concat();
        let (first, second) = hello[5..].split_at(40);
        vec![[record(first), record(second)].concat()]
    })
}

fn shake_hands(
    pod: &Pod,
    web: &Web,
    name: &str,
    far: SocketAddr,
    cut: impl FnOnce(&[u8]) -> Vec<Vec<u8>> + Send,
) -> std::io::Result<()> {
    pod.enter(|| {
        let mut socket = TcpStream::connect_timeout(&far, Duration::from_secs(5))?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut tls = tls::client(&web.authority.certificate(), name);
        let mut hello = Vec::new();
        tls.write_tls(&mut hello)?;
        for piece in cut(&hello) {
            socket.write_all(&piece)?;
        }
        while tls.is_handshaking() {
            while tls.wants_write() {
                tls.write_tls(&mut socket)?;
            }
            if tls.read_tls(&mut socket)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            tls.process_new_packets().map_err(std::io::Error::other)?;
        }
        Ok(())
    })
}

#[test]
fn however_a_handshake_is_cut_the_verdict_is_the_same() {
    let (_site, web, pod) = stage();
    for name in ["api.example.com", "shared.example.com"] {
        assert_eq!(pod.look_up(DNS.v4(), name, Kind::A), API.v4());
    }
    let far = SocketAddr::new(API.v4(), 443);
    let every_octet: Vec<usize> = (1..200).collect();
    let cuts = (1..230).step_by(6).map(|at| vec![at]).chain([every_octet, vec![1, 2, 3, 5, 9, 43, 120]]);
    for at in cuts {
        in_pieces(&pod, &web, "api.example.com", far, &at).unwrap_or_else(|error| panic!("cut at {at:?}: {error}"));
        let other = in_pieces(&pod, &web, "shared.example.com", far, &at);
        assert!(other.is_err(), "cut at {at:?}");
    }
}

#[test]
fn what_is_no_handshake_is_refused_with_a_reason_of_its_own() {
    let (site, web, pod) = stage();
    pod.look_up(DNS.v4(), "api.example.com", Kind::A);
    let far = SocketAddr::new(API.v4(), 443);
    let says = |bytes: &[u8]| {
        pod.enter(|| {
            let mut socket = TcpStream::connect_timeout(&far, Duration::from_secs(5)).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            socket.write_all(bytes).unwrap();
            socket.read(&mut [0; 64])
        })
    };
    site.must_drop_as("not-tls", || {
        let told = says(b"GET / HTTP/1.1\r\nHost: api.example.com\r\n\r\n");
        assert_eq!(told.unwrap_err().kind(), ErrorKind::ConnectionReset, "and not a timeout");
    });
    let nameless = curl(&pod, &web, &format!("https://{}/", API.v4()));
    assert!(!nameless.success() && nameless.stderr.contains("reset"), "{nameless:?}");
    assert_eq!(last(&site, None)["reason"], "no-sni");
}

#[test]
fn without_its_reader_held_flows_wait_and_all_others_go_on() {
    let (mut site, web, pod) = stage();
    let open = "  allow:\n    - dnsNames: [api.example.com]\n      verify: None\n      ports: [ { protocol: TCP, port: 7 } ]\n";
    site.netctl().apply(&policy("shop", "echo", open));
    let far = SocketAddr::new(pod.look_up(DNS.v4(), "api.example.com", Kind::A), 443);
    in_pieces(&pod, &web, "api.example.com", far, &[]).expect("verified");
    let mut kept = pod.open(SocketAddr::new(API.v4(), 7));
    let device = || site.node.ip("-o link show tg-inspect");
    let before = device();
    site.daemon.kill();
    kept.must_echo();
    pod.must_reach(Target::new("tcp", API.v4(), 7));
    in_pieces(&pod, &web, "api.example.com", far, &[]).expect("the kernel's program reads it by itself");
    assert!(in_records(&pod, &web, "api.example.com", far).is_err(), "nobody has read it: closed");
    assert!(in_pieces(&pod, &web, "shared.example.com", far, &[]).is_err(), "closed");
    let before = before.split(':').next().unwrap().to_owned();
    site.daemon.restart();
    assert_eq!(site.node.ip("-o link show tg-inspect").split(':').next().unwrap(), before, "the same device");
    let again = in_records(&pod, &web, "api.example.com", far);
    again.expect("the new daemon reads it, and knows what the workload resolved before");
}

#[test]
fn a_reader_that_stands_still_is_said_and_holds_up_new_flows_only() {
    let (site, web, pod) = stage();
    let far = SocketAddr::new(pod.look_up(DNS.v4(), "api.example.com", Kind::A), 443);
    in_pieces(&pod, &web, "api.example.com", far, &[]).expect("verified");
    let condition = || {
        let status = site.netctl().json(&["status"]);
        status["conditions"].as_array().is_some_and(|all| all.iter().any(|one| one["what"] == "inspections"))
    };
    assert!(!condition());
    let process = site.daemon.process().expect("a daemon that runs").pid();
    let halted = Halted::named(process, "inspector").expect("the thread that reads");
    assert!(in_records(&pod, &web, "api.example.com", far).is_err(), "nobody has read it: closed");
    in_pieces(&pod, &web, "api.example.com", far, &[]).expect("the kernel's program reads it by itself");
    assert_eq!(pod.look_up(DNS.v4(), "api.example.com", Kind::A), API.v4());
    wait_until("it is said", Duration::from_secs(10), condition);
    drop(halted);
    in_records(&pod, &web, "api.example.com", far).expect("it reads on");
    wait_until("it is taken back", Duration::from_secs(10), || !condition());
}

#[test]
fn every_name_that_was_resolved_is_known_after_the_daemons_death() {
    let (mut site, web, pod) = stage();
    let rules = "  allow:\n    - dnsNames: [\"*.example.com\"]\n      ports: [ { protocol: TCP, port: 443 } ]\n";
    site.netctl().apply(&policy("shop", "shop-egress", rules));
    let far = SocketAddr::new(API.v4(), 443);
    let names = ["api.example.com", "shared.example.com"];
    for name in names {
        assert_eq!(pod.look_up(DNS.v4(), name, Kind::A), API.v4());
    }
    site.daemon.kill();
    site.daemon.restart();
    for name in names {
        in_pieces(&pod, &web, name, far, &[]).unwrap_or_else(|error| panic!("{name}: {error}"));
        in_records(&pod, &web, name, far).unwrap_or_else(|error| panic!("{name}, in records: {error}"));
    }
    assert!(in_pieces(&pod, &web, "cdn.example.com", far, &[]).is_err(), "allowed, and at another address");
}
