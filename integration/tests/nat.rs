//! Source NAT by the kernel programs: what a server on the internet sees of masqueraded workloads, and what stays whole.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use integration::beyond::Beyond;
use integration::capture::Capture;
use integration::manifests::{allow_cidrs, namespace, network, policy};
use integration::process::output_with_input;
use integration::site::{ECHO, NODE4, NODE6};
use integration::traffic::{Connection, Target, any_like};
use integration::wait::wait_until;
use integration::world::World;
use integration::{Pod, Site};

const ECHO_PORT: u16 = 7;
const SERVER_PORT: u16 = 9000;
const BOUND: Duration = Duration::from_secs(10);
const RESERVED: &str = "cat /proc/sys/net/ipv4/ip_local_reserved_ports";

/// Two workloads of a masqueraded network that may reach ECHO and a host beyond it.
fn workloads(site: &Site) -> [Pod; 2] {
    let all = ["203.0.113.30/32", "2001:db8:113::30/128", "203.0.113.99/32", "2001:db8:113::99/128"];
    let manifests = network("tenant-a", 100, "") + &namespace("shop", "tenant-a");
    site.netctl().apply(&(manifests + &policy("shop", "echo", &allow_cidrs(&all, ""))));
    [site.attach("shop", "web-1", &[]), site.attach("shop", "web-2", &[])]
}

/// Others' rules drop whatever is forwarded.
fn forward_nothing(site: &Site) {
    let rules = "table inet others { chain f { type filter hook forward priority 0; policy drop; }; }";
    let said = output_with_input(site.node.command("nft").args(["-f", "-"]), rules);
    assert!(said.success(), "nft: {}", said.stderr);
}

fn is_nodes(source: SocketAddr) -> bool {
    let address = source.ip();
    (address == IpAddr::from(NODE4) || address == IpAddr::from(NODE6)) && (50_000..60_000).contains(&source.port())
}

#[test]
fn a_server_sees_the_node_and_each_workload_gets_its_own_answers() {
    let site = Site::start();
    let pods = workloads(&site);
    forward_nothing(&site);
    let seen = Capture::start(&site.internet.namespace, "eth0");
    for address in ECHO.both() {
        let at = SocketAddr::new(address, SERVER_PORT);
        let server = site.internet.namespace.bound(|| UdpSocket::bind(at));
        server.set_read_timeout(Some(BOUND)).expect("a timeout");
        let clients = pods.each_ref().map(|pod| {
            let client = pod.bound(|| UdpSocket::bind((any_like(address), 40_000)));
            client.set_read_timeout(Some(BOUND)).expect("a timeout");
            client
        });
        let mut buffer = [0; 64];
        let sources = clients.each_ref().map(|client| {
            client.send_to(b"who am I", at).expect("it is sent");
            let (_, source) = server.recv_from(&mut buffer).expect("it arrives");
            assert!(is_nodes(source), "{source}");
            source
        });
        assert_ne!(sources[0], sources[1]);
        for (number, source) in sources.iter().enumerate() {
            server.send_to(&[number as u8], source).expect("the answer is sent");
        }
        for (number, client) in clients.iter().enumerate() {
            let (length, from) = client.recv_from(&mut buffer).expect("the answer arrives");
            assert_eq!((&buffer[..length], from), (&[number as u8][..], at));
        }

        let server = site.internet.namespace.bound(|| TcpListener::bind(at));
        let connections =
            pods.each_ref().map(|pod| pod.enter(|| TcpStream::connect_timeout(&at, BOUND)).expect("it connects"));
        for _ in &connections {
            let (_, source) = server.accept().expect("it is there");
            assert!(is_nodes(source), "{source}");
        }
        pods.iter().for_each(|pod| pod.must_reach(Target::new("ping", address, 0)));
    }
    // whatever left, nothing had a workload's address
    for pod in &pods {
        assert_eq!((seen.count(&pod.v4.octets()), seen.count(&pod.v6.octets())), (0, 0));
    }
    let status = site.netctl().json(&["status"]);
    let maps = status["maps"].as_array().cloned().unwrap_or_default();
    let mappings = maps.iter().find(|map| map["name"] == "mappings").map(|map| map["entries"].as_u64());
    assert!(mappings.flatten().is_some_and(|entries| entries >= 8), "{status:#}");
}

#[test]
fn a_smaller_mtu_beyond_the_node_is_told_to_the_workload() {
    let site = Site::start();
    let [web, _] = workloads(&site);
    Beyond::of(&site).must_tell_its_mtu(&web);
}

#[test]
fn a_killed_daemon_cuts_no_translated_flow_and_translates_new_ones() {
    let mut site = Site::start();
    let pods = workloads(&site);
    forward_nothing(&site);
    let mut open: Vec<Connection> = ECHO
        .both()
        .iter()
        .flat_map(|ip| pods.each_ref().map(|pod| pod.open(SocketAddr::new(*ip, ECHO_PORT))))
        .collect();
    open.iter_mut().for_each(Connection::must_echo);
    site.daemon.kill();
    open.iter_mut().for_each(Connection::must_echo);
    for protocol in ["tcp", "udp", "ping"] {
        for address in ECHO.both() {
            pods[0].must_reach(Target::new(protocol, address, ECHO_PORT));
        }
    }
    let sent = pods[0].counter("Tcp", "RetransSegs");
    site.daemon.restart();
    open.iter_mut().for_each(Connection::must_echo);
    assert_eq!(pods[0].counter("Tcp", "RetransSegs"), sent, "segments of open flows were lost");
}

#[test]
fn ports_are_kept_from_the_nodes_sockets_and_given_back() {
    let mut site = Site::start();
    site.node.sysctl("ipv4/ip_local_reserved_ports", "8080,50000-50010");
    let reserved = |site: &Site, expected: &str| {
        wait_until(&format!("reserved: {expected}"), BOUND, || site.node.ok(RESERVED).trim() == expected);
    };
    let _pods = workloads(&site);
    reserved(&site, "8080,50000-59999");
    site.daemon.kill();
    site.daemon.restart();
    reserved(&site, "8080,50000-59999");

    let _socket = site.node.bound(|| TcpListener::bind(("127.0.0.1", 55_555)));
    let rules = "table ip others { chain out { type nat hook postrouting priority 100; oifname eth0 masquerade; }; }";
    assert!(output_with_input(site.node.command("nft").args(["-f", "-"]), rules).success());
    let doctor = site.netctl().run(&["doctor"]);
    for part in ["sockets in the range of source NAT", "tcp 55555", "others' source NAT", "ip others out"] {
        assert!(doctor.stdout.contains(part), "{part}: {}", doctor.stdout);
    }

    for name in ["web-1", "web-2"] {
        site.netctl().ok(&["detach", name, "-n", "shop"]);
    }
    site.netctl().apply(&(network("tenant-a", 100, "  egress: { snat: None }\n")));
    reserved(&site, "8080,50000-50010");
}

#[test]
fn without_the_fast_path_and_by_another_device_the_source_is_the_nodes() {
    let settings =
        integration::daemon::Settings { more: "[egress]\nfast_path = false\n".to_owned(), ..Site::settings() };
    let site = Site::with(World::new(), settings);
    let [web, _] = workloads(&site);
    // the kernel's masquerade keeps a port: none of the programs' range
    web.sysctl("ipv4/ip_local_port_range", "20000 40000");
    let internet = &site.internet.namespace;
    let at = SocketAddr::new(ECHO.v4(), SERVER_PORT);
    let server = internet.bound(|| TcpListener::bind(at));
    let source = || {
        let _connection = web.enter(|| TcpStream::connect_timeout(&at, BOUND)).expect("it connects");
        server.accept().expect("it is there").1
    };
    assert!(is_nodes(source()));

    // what does not leave by the uplink is masqueraded by the node's own rules
    site.world.link((internet, "side0"), (&site.node, "side0"));
    internet.ip_lines(["addr add 192.0.3.1/24 dev side0"]);
    site.node.ip_lines(["addr add 192.0.3.2/24 dev side0", "route add 203.0.113.30/32 via 192.0.3.1"]);
    assert_eq!(source().ip(), IpAddr::from([192, 0, 3, 2]));
    site.node.ip("route del 203.0.113.30/32");

    // and that is all that there is where nobody translates
    site.node.ip("xfrm policy add src 10.99.0.0/24 dst 10.98.0.0/24 dir out action block");
    wait_until("the kernel's own masquerade takes over", BOUND, || {
        let source = source();
        assert_eq!(source.ip(), IpAddr::from(NODE4));
        !is_nodes(source)
    });
}

#[test]
fn it_follows_the_uplinks_name_to_another_device() {
    let site = Site::start();
    let [web, _] = workloads(&site);
    let internet = &site.internet.namespace;
    let at = SocketAddr::new(ECHO.v4(), SERVER_PORT);
    let server = internet.bound(|| TcpListener::bind(at));
    let source = || {
        let _connection = web.enter(|| TcpStream::connect_timeout(&at, Duration::from_secs(1))).ok()?;
        Some(server.accept().expect("it is there").1)
    };
    assert!(source().is_some_and(is_nodes));
    site.world.link((internet, "side0"), (&site.node, "side0"));
    internet.ip_lines(["addr add 192.0.3.1/24 dev side0"]);
    let seen = ["eth0", "side0"].map(|device| Capture::start(internet, device));
    site.node.ip_lines([
        "link set eth0 down",
        "link set eth0 name old0",
        "link set side0 down",
        "link set side0 name eth0",
        "link set eth0 up",
        "addr add 192.0.3.2/24 dev eth0",
        "route add default via 192.0.3.1 dev eth0",
    ]);
    wait_until("it translates there", BOUND, || {
        source().is_some_and(|from| {
            assert_eq!(from.ip(), IpAddr::from([192, 0, 3, 2]), "{from}");
            (50_000..60_000).contains(&from.port())
        })
    });
    for capture in &seen {
        assert_eq!(capture.count(&web.v4.octets()), 0, "a tenant's address left the node");
    }
}

/// Far sooner than the mapping's idle time: whoever gets the address next gets no answers to what another sent.
#[test]
fn a_detached_workloads_mappings_end_with_it() {
    let site = Site::start();
    let [web, _] = workloads(&site);
    let mappings = || {
        let text = site.node.ok("curl -sS --max-time 5 http://127.0.0.1:9464/metrics");
        let line = text.lines().find_map(|line| line.strip_prefix("tidegate_map_entries{map=\"mappings\"} "));
        line.and_then(|count| count.parse::<f64>().ok()).expect("the mappings are counted")
    };
    for address in ECHO.both() {
        web.must_reach(Target::new("udp", address, ECHO_PORT));
    }
    wait_until("the mappings are counted", BOUND, || mappings() >= 2.0);
    site.netctl().ok(&["detach", "web-1", "-n", "shop"]);
    wait_until("they end", BOUND * 3, || mappings() == 0.0);
}
