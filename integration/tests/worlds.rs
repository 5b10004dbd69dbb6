//! The worlds themselves: what the other tests take for granted, without a gateway.

use std::net::SocketAddr;
use std::time::Duration;

use integration::capture::Capture;
use integration::peers::query::{Carrier, Kind};
use integration::site::{API, CDN, DNS, ECHO, Internet, MANY, OTHER, Web};
use integration::switch::Switch;
use integration::traffic::{Outcome, Target};
use integration::world::World;
use integration::{frame, kernel};

#[test]
fn the_internet_answers() {
    let world = World::new();
    let node = world.namespace("node", None);
    let internet = Internet::start(&world, &node);
    let web = Web::start(&world, &internet.namespace);

    for address in ECHO.both() {
        node.must_reach(Target::new("tcp", address, 7));
        node.must_reach(Target::new("udp", address, 7));
        node.must_reach(Target::new("ping", address, 0));
        let mut connection = node.open(SocketAddr::new(address, 7));
        connection.must_echo();
        connection.must_echo();
    }
    let [a, b, c] = MANY;
    node.must_reach(Target::Tcp(SocketAddr::from(([a, b, c, 77], 9))));
    assert_eq!(node.attempt(Target::new("tcp", OTHER.v4(), 1), Duration::from_secs(2)), Outcome::Refused);

    for server in DNS.both() {
        assert_eq!(node.look_up(server, "api.example.com", Kind::A), API.v4());
        assert_eq!(node.look_up(server, "cdn.example.com", Kind::Aaaa), CDN.v6());
    }
    let missing = node.ask(DNS.v4(), "nothing.example.com", Kind::A, Carrier::Tcp).expect("an answer");
    assert_eq!(missing.code, 3);
    let big = |carrier| node.ask(DNS.v4(), "big.example.com", Kind::A, carrier).expect("an answer");
    assert!(big(Carrier::Udp).truncated);
    assert_eq!(big(Carrier::Tcp).addresses.len(), 120);
    assert!(internet.unbound.questions().iter().any(|line| line.contains("api.example.com. A IN")));

    let authority = web.authority.certificate();
    let secure =
        format!("curl -sS --max-time 5 --cacert {} --resolve api.example.com:443:{}", authority.display(), API.v4());
    let body = node.ok(&format!("{secure} --http2 https://api.example.com/"));
    assert!(body.starts_with("api.example.com from 192.0.2.2"), "{body}");
}

#[test]
fn a_namespace_has_its_own_resolver_and_counters() {
    let world = World::new();
    let node = world.namespace("node", Some(&DNS.v4().to_string()));
    let _internet = Internet::start(&world, &node);
    let said = node.ok("getent ahostsv4 cdn.example.com");
    assert!(said.starts_with(&CDN.v4().to_string()), "{said}");
    assert_eq!(node.counter("TcpExt", "TCPSynRetrans"), 0);
    assert!(node.received_frames("eth0") > 0);
}

#[test]
fn a_capture_sees_frames_made_by_hand() {
    let world = World::new();
    let (a, b) = (world.namespace("a", None), world.namespace("b", None));
    world.link((&a, "eth0"), (&b, "eth0"));
    let capture = Capture::start(&b, "eth0");
    let sender = frame::Mac::made_up([0, 1]);
    let packet = frame::udp(("10.0.0.1".parse().unwrap(), 1), ("10.0.0.2".parse().unwrap(), 2), b"by hand");
    a.send_frame("eth0", &frame::ethernet(frame::Mac::BROADCAST, sender, 0x0800, &packet));
    capture.must_see(b"by hand");
    a.send_frame("eth0", &frame::tagged(&frame::ethernet(frame::Mac::BROADCAST, sender, 0x0800, b"in a tag"), 7));
    capture.must_see(b"in a tag");
    let seen = capture.frames().into_iter().find(|seen| frame::holds(&seen.bytes, b"in a tag")).unwrap();
    assert_eq!(seen.vlan, Some(7));
}

#[test]
fn a_world_takes_itself_away() {
    let (name, folder) = {
        let world = World::new();
        let inside = world.namespace("host", Some("192.0.2.1"));
        std::mem::forget(inside.start("sleeper", inside.command("sleep").arg("1000")));
        (world.name().to_owned(), world.folder().to_owned())
    };
    assert!(!folder.exists());
    assert!(!std::path::Path::new("/run/netns").join(format!("{name}-host")).exists());
    assert!(!std::path::Path::new("/etc/netns").join(format!("{name}-host")).exists());
    assert!(!kernel::release().is_empty());
}

#[test]
#[ignore = "needs 8021q: second kernel"]
fn a_switch_keeps_vlans_apart() {
    assert!(kernel::has_vlans(), "the second kernel has 8021q");
    let world = World::new();
    let node = world.namespace("node", None);
    let switch = Switch::new(&world, &node, &[100, 200]);
    let a = switch.host(&world, "host-a", 100, &["10.100.0.9/24"]);
    let b = switch.host(&world, "host-b", 200, &["10.100.0.10/24"]);
    node.ip("link add link trunk0 name trunk0.100 type vlan id 100");
    node.ip("addr add 10.100.0.1/24 dev trunk0.100");
    node.ip("link set trunk0.100 up");
    node.must_reach(Target::new("ping", "10.100.0.9".parse().unwrap(), 0));
    a.must_reach(Target::new("ping", "10.100.0.1".parse().unwrap(), 0));
    assert_ne!(
        b.attempt(Target::new("ping", "10.100.0.1".parse().unwrap(), 0), Duration::from_secs(1)),
        Outcome::Reached
    );
}
