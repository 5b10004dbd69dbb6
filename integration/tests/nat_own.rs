//! Networks with egress addresses of their own: what the world sees of them, who answers for the addresses, and what is
//! left when they go.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use integration::beyond::Beyond;
use integration::capture::Capture;
use integration::manifests::{allow_cidrs, namespace, network, policy};
use integration::site::{ECHO, NODE4, NODE6};
use integration::sys::packet::Received;
use integration::traffic::{Connection, Target, any_like};
use integration::wait::wait_until;
use integration::{Pod, Site};

const BOUND: Duration = Duration::from_secs(10);
const SERVER_PORT: u16 = 9000;
/// On the uplink's subnets.
const OWN4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 20);
const OWN6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xff, 0, 0, 0, 0, 0x20);
const OWN: [IpAddr; 2] = [IpAddr::V4(OWN4), IpAddr::V6(OWN6)];
const NODES: [IpAddr; 2] = [IpAddr::V4(NODE4), IpAddr::V6(NODE6)];

fn own(addresses: [IpAddr; 2]) -> String {
    format!("  egress: {{ snat: [ {}, \"{}\" ] }}\n", addresses[0], addresses[1])
}

/// Network `tenant-b`, as this line of its spec says.
fn tenant_b(snat: &str) -> String {
    network("tenant-b", 200, snat)
}

/// `shop/web` in a masqueraded network, `bank/db` in one with its own addresses.
fn two_tenants(site: &Site) -> [Pod; 2] {
    let far = ["203.0.113.0/24", "2001:db8:113::/64"];
    let networks = network("tenant-a", 100, "") + &tenant_b(&own(OWN));
    let spaces = namespace("shop", "tenant-a") + &namespace("bank", "tenant-b");
    let policies = policy("shop", "out", &allow_cidrs(&far, "")) + &policy("bank", "out", &allow_cidrs(&far, ""));
    site.netctl().apply(&(networks + &spaces + &policies));
    [site.attach("shop", "web", &[]), site.attach("bank", "db", &[])]
}

/// Whom a server of the internet sees, and that its answer comes back.
#[track_caller]
fn seen(site: &Site, pod: &Pod, address: IpAddr) -> SocketAddr {
    let at = SocketAddr::new(address, SERVER_PORT);
    let server = site.internet.namespace.bound(|| UdpSocket::bind(at));
    let client = pod.bound(|| UdpSocket::bind((any_like(address), 40_000)));
    for socket in [&server, &client] {
        socket.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout");
    }
    let mut buffer = [0; 64];
    let mut from = None;
    // the pair in which who translates changes is lost
    wait_until("a datagram arrives, and its answer", BOUND, || {
        client.send_to(b"who am I", at).expect("it is sent");
        from = server.recv_from(&mut buffer).ok().map(|(_, source)| source);
        let Some(source) = from else { return false };
        server.send_to(b"you", source).expect("the answer is sent");
        let Ok((length, answered)) = client.recv_from(&mut buffer) else { return false };
        assert_eq!((&buffer[..length], answered), (&b"you"[..], at));
        true
    });
    from.expect("it came")
}

/// Prefix length of the address on that device, and whether the node's own connections leave it alone.
fn on_device(site: &Site, device: &str, address: IpAddr) -> Option<(u64, bool)> {
    let links = site.node.ip_json(&format!("addr show dev {device}"));
    let all = links[0]["addr_info"].as_array().cloned().unwrap_or_default();
    let found = all.into_iter().find(|entry| entry["local"] == address.to_string())?;
    Some((found["prefixlen"].as_u64()?, found["deprecated"] == true))
}

#[test]
fn each_network_is_seen_with_its_address() {
    let site = Site::start();
    let wire = Capture::start(&site.internet.namespace, "eth0");
    let [web, db] = two_tenants(&site);
    for (which, far) in ECHO.both().into_iter().enumerate() {
        let (shop, bank) = (seen(&site, &web, far), seen(&site, &db, far));
        assert_eq!((shop.ip(), bank.ip()), (NODES[which], OWN[which]));
        assert!((50_000..60_000).contains(&bank.port()), "{bank}");
        for protocol in ["tcp", "ping"] {
            db.must_reach(Target::new(protocol, far, 7));
        }
    }
    assert_eq!(on_device(&site, "eth0", OWN4.into()), Some((32, true)));
    assert_eq!(on_device(&site, "eth0", OWN6.into()), Some((128, true)));
    // whatever left, nothing had a workload's address; and the segment was told who has the new ones
    assert_eq!((wire.count(&db.v4.octets()), wire.count(&db.v6.octets())), (0, 0));
    let own = OWN4.octets();
    wire.must_see(&[&own[..], &[0; 6], &own].concat());
    let advertises =
        |frame: &Received| frame.bytes.get(54) == Some(&136) && frame.bytes.get(62..78) == Some(&OWN6.octets());
    wait_until("a neighbour advertisement", BOUND, || wire.frames().iter().any(advertises));

    let shown = site.netctl().ok(&["get", "networks", "-o", "wide"]);
    assert!(shown.contains(&format!("{OWN4},{OWN6}")), "{shown}");
    let described = site.netctl().ok(&["describe", "network", "tenant-b"]);
    assert!(described.contains(&OWN4.to_string()) && described.contains(&OWN6.to_string()), "{described}");
    let ready = site.netctl().json(&["status"]);
    assert_eq!(ready["ready"], true, "{ready:#}");
    assert!(site.netctl().ok(&["doctor"]).contains("tenant-b"), "doctor names who has addresses of its own");
}

#[test]
fn addresses_go_with_what_they_are_for_and_flows_with_them() {
    let site = Site::start();
    let [_, db] = two_tenants(&site);
    let far = ECHO.v4();
    let first = seen(&site, &db, far);
    assert_eq!(first.ip(), OWN[0]);
    let other = [IpAddr::from([192, 0, 2, 21]), "2001:db8:ff::21".parse().expect("an address")];
    site.netctl().apply(&tenant_b(&own(other)));
    assert_eq!(seen(&site, &db, far).ip(), other[0], "the open flow's next packet has the new one");
    for device in OWN {
        assert_eq!(on_device(&site, "eth0", device), None);
    }
    site.netctl().apply(&tenant_b(""));
    assert_eq!(seen(&site, &db, far).ip(), NODES[0]);
    assert_eq!(on_device(&site, "eth0", other[0]), None);

    site.netctl().apply(&tenant_b(&own(OWN)));
    assert_eq!(seen(&site, &db, far).ip(), OWN[0]);
    assert_eq!(seen(&site, &db, ECHO.v6()).ip(), OWN[1]);
    site.netctl().ok(&["detach", "db", "-n", "bank"]);
    for (kind, name, space) in
        [("egresspolicy", "out", Some("bank")), ("namespace", "bank", None), ("network", "tenant-b", None)]
    {
        let mut words = vec!["delete", kind, name];
        words.extend(space.map(|space| ["-n", space]).into_iter().flatten());
        site.netctl().ok(&words);
    }
    for address in OWN {
        assert_eq!(on_device(&site, "eth0", address), None);
    }
    for address in NODES {
        assert!(on_device(&site, "eth0", address).is_some(), "the node's own stays");
    }
}

#[test]
fn an_address_of_somebody_is_refused_and_left_alone() {
    let site = Site::start();
    let _pods = two_tenants(&site);
    let refuse = |addresses: [IpAddr; 2], says: &str| {
        let said = site.netctl().try_apply(&tenant_b(&own(addresses)));
        assert!(!said.success() && said.stderr.contains(says), "{says}: {}{}", said.stdout, said.stderr);
        assert!(on_device(&site, "eth0", OWN[0]).is_some(), "the earlier state stays");
    };
    refuse([[192, 0, 2, 1].into(), OWN[1]], "192.0.2.1 is not free");
    refuse([OWN[0], "2001:db8:ff::1".parse().expect("an address")], "2001:db8:ff::1 is not free");
    refuse([NODE4.into(), OWN[1]], "snat: Masquerade");
    site.node.ip("addr add 192.0.2.30/32 dev eth0");
    refuse([[192, 0, 2, 30].into(), OWN[1]], "is on eth0 already");
    refuse([[10, 100, 0, 9].into(), OWN[1]], "lies in 10.100.0.0/24 of Network `tenant-a`");
    site.netctl().apply(&tenant_b(""));
    assert_eq!(on_device(&site, "eth0", OWN[0]), None);
    assert_eq!(on_device(&site, "eth0", [192, 0, 2, 30].into()), Some((32, false)), "nobody's but who put it there");
}

#[test]
fn a_deleted_address_is_put_back_and_a_killed_daemon_cuts_nothing() {
    let mut site = Site::start();
    let [_, db] = two_tenants(&site);
    site.node.ip(&format!("addr del {OWN4}/32 dev eth0"));
    site.node.ip(&format!("addr del {OWN6}/128 dev eth0"));
    for address in OWN {
        wait_until("it is put back", BOUND, || on_device(&site, "eth0", address).is_some());
    }
    for (far, address) in ECHO.both().into_iter().zip(OWN) {
        assert_eq!(seen(&site, &db, far).ip(), address);
    }
    let mut open: Vec<Connection> = ECHO.both().iter().map(|ip| db.open(SocketAddr::new(*ip, 7))).collect();
    open.iter_mut().for_each(Connection::must_echo);
    site.daemon.kill();
    open.iter_mut().for_each(Connection::must_echo);
    assert_eq!(seen(&site, &db, ECHO.v4()).ip(), OWN[0]);
    site.daemon.restart();
    open.iter_mut().for_each(Connection::must_echo);
    assert_eq!(seen(&site, &db, ECHO.v6()).ip(), OWN[1]);
}

#[test]
fn a_smaller_mtu_beyond_the_node_is_told_to_the_workload() {
    let site = Site::start();
    let [_, db] = two_tenants(&site);
    Beyond::of(&site).must_tell_its_mtu(&db);
}

#[test]
fn without_the_programs_the_nodes_rules_give_it_and_another_device_has_its_own() {
    let site = Site::start();
    let [web, db] = two_tenants(&site);
    let internet = &site.internet.namespace;
    site.world.link((internet, "side0"), (&site.node, "side0"));
    internet.ip_lines(["addr add 192.0.3.1/24 dev side0"]);
    site.node.ip_lines(["addr add 192.0.3.2/24 dev side0", "route add 203.0.113.30/32 via 192.0.3.1"]);
    assert_eq!(seen(&site, &db, ECHO.v4()).ip(), IpAddr::from([192, 0, 3, 2]));
    site.node.ip("route del 203.0.113.30/32");
    assert_eq!(seen(&site, &db, ECHO.v4()).ip(), OWN[0]);

    site.node.ip("xfrm policy add src 10.99.0.0/24 dst 10.98.0.0/24 dir out action block");
    let rules = || site.node.ok("nft list table inet tidegate");
    wait_until("the node's rules take over", BOUND, || rules().contains("snat ip to ip saddr map @own4"));
    for (which, far) in ECHO.both().into_iter().enumerate() {
        assert_eq!(seen(&site, &db, far).ip(), OWN[which]);
        assert_eq!(seen(&site, &web, far).ip(), NODES[which]);
    }
    assert!(on_device(&site, "eth0", OWN[0]).is_some());
    site.node.ip("xfrm policy flush");
    wait_until("the programs take over again", BOUND, || !rules().contains("snat ip to"));
    assert_eq!(seen(&site, &db, ECHO.v4()).ip(), OWN[0]);
}
