//! Addresses that are the node's, somebody else's business, or everybody's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::time::Duration;

use integration::Pod;
use integration::capture::Capture;
use integration::frame::{Mac, ether_type, ethernet, udp};
use integration::manifests::{allow_cidrs, cidr_rule, policy};
use integration::site::{API, ECHO, NODE4, NODE6};
use integration::traffic::{Outcome, Target};

use super::{BRIEF, ECHO_PORT, everything, only_echo, stage};

#[test]
fn every_address_of_the_node_is_closed() {
    let stage = stage(&everything());
    let web_2 = stage.site.attach("shop", "web-2", &[]);
    let _server = stage.site.node.echo_server(&[([0u16; 8], ECHO_PORT).into()]);
    for address in [IpAddr::from(NODE4), NODE6.into()] {
        stage.site.internet.namespace.must_reach(Target::new("tcp", address, ECHO_PORT));
    }
    web_2.must_reach(Target::new("udp", ECHO.v4(), ECHO_PORT));

    let links = stage.web.ip_json("link show dev eth0");
    let scope = links[0]["ifindex"].as_u64().and_then(|index| u32::try_from(index).ok()).expect("an index");
    let mut targets: Vec<SocketAddr> = Vec::new();
    for link in stage.site.node.ip_json("addr").as_array().expect("a list of links") {
        for entry in link["addr_info"].as_array().into_iter().flatten() {
            let address = entry["local"].as_str().and_then(|text| text.parse().ok()).expect("an address");
            targets.push(match address {
                IpAddr::V6(ip) if ip.is_unicast_link_local() => SocketAddrV6::new(ip, ECHO_PORT, 0, scope).into(),
                // its own loopback is the workload's, not the node's
                address if address.is_loopback() => continue,
                address => (address, ECHO_PORT).into(),
            });
        }
    }
    assert!(targets.iter().filter(|target| target.is_ipv6()).count() >= 5, "{targets:?}");
    // the service namespace's ends, handles of both workloads, where the edge is seen, the subnets' anycast addresses
    let further = [
        "198.18.255.254",
        "fd74:6769::ffff",
        "198.18.0.1",
        "198.18.0.2",
        "fd74:6769::1",
        "fd74:6769::2",
        "169.254.77.1",
        "fd00:100::",
        "fd00:200::",
        "2001:db8:ff::",
    ];
    targets.extend(further.map(|text| SocketAddr::new(text.parse().expect("an address"), ECHO_PORT)));
    targets.push(SocketAddrV6::new(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x77), ECHO_PORT, 0, scope).into());
    for target in targets {
        let tried = [Target::Tcp(target), Target::Udp(target)].map(|target| stage.web.attempt(target, BRIEF));
        assert!(tried.iter().all(|seen| *seen != Outcome::Reached), "{target} answered: {tried:?}");
    }
}

#[test]
fn the_nodes_loopback_is_not_reached_by_hand_made_frames() {
    let stage = stage(&everything());
    let inside = Capture::start(&stage.site.node, "lo");
    let outside = stage.outside();
    for (own, far) in stage.ways() {
        stage.send(&udp((own, 4000), (far, ECHO_PORT), b"to the world"));
    }
    outside.must_see(b"to the world");
    for (own, to) in [
        (IpAddr::from(stage.web.v4), IpAddr::from(Ipv4Addr::LOCALHOST)),
        (stage.web.v4.into(), Ipv4Addr::new(127, 8, 8, 8).into()),
        (stage.web.v4.into(), Ipv4Addr::UNSPECIFIED.into()),
        (stage.web.v6.into(), Ipv6Addr::LOCALHOST.into()),
        (stage.web.v6.into(), Ipv6Addr::UNSPECIFIED.into()),
    ] {
        stage.site.must_drop_as("malformed", || stage.send(&udp((own, 4000), (to, ECHO_PORT), b"to the node's own")));
    }
    inside.must_not_see(b"to the node's own", BRIEF);
}

#[test]
fn the_metadata_address_is_closed_until_a_rule_names_it() {
    let metadata: [IpAddr; 2] =
        [Ipv4Addr::new(169, 254, 169, 254).into(), "fd00:ec2::254".parse().expect("an address")];
    let stage = stage(&only_echo(""));
    stage
        .site
        .internet
        .namespace
        .ip_lines(["addr add 169.254.169.254/32 dev lo", "addr add fd00:ec2::254/128 dev lo nodad"]);
    let _server = stage.site.internet.namespace.echo_server(&metadata.map(|address| (address, 80).into()));
    let tries = metadata.map(|address| Target::new("tcp", address, 80));
    tries.into_iter().for_each(|target| stage.web.must_not_reach(target));

    let named = ["169.254.169.254/32", "fd00:ec2::254/128"];
    stage.site.netctl().apply(&policy("shop", "rules", &allow_cidrs(&named, "")));
    tries.into_iter().for_each(|target| stage.web.must_reach(target));
    let denied = format!("  deny:\n{}{}", cidr_rule(&named, ""), everything());
    stage.site.netctl().apply(&policy("shop", "rules", &denied));
    tries.into_iter().for_each(|target| stage.web.must_not_reach(target));
    stage.web.must_reach(Target::new("tcp", API.v4(), ECHO_PORT));
}

#[test]
fn nothing_is_said_to_everybody() {
    let stage = stage(&everything());
    let web_2 = stage.site.attach("shop", "web-2", &[]);
    let (inside, outside) = (Capture::start(&web_2, Pod::INTERFACE), stage.outside());
    let heard = stage.site.node.bound(|| UdpSocket::bind(("0.0.0.0", 4321)));
    heard.set_read_timeout(Some(Duration::from_secs(5))).expect("a deadline");
    let own = IpAddr::from(stage.web.v4);
    let send = |to_mac: Mac, from: IpAddr, to: IpAddr, marker: &[u8]| {
        let datagram = udp((from, 4000), (to, 4321), marker);
        stage.web.send_frame(Pod::INTERFACE, &ethernet(to_mac, stage.web.mac, ether_type(to), &datagram));
    };
    let far = stage.site.internet.namespace.bound(|| UdpSocket::bind("0.0.0.0:0"));
    far.send_to(b"heard", (NODE4, 4321)).expect("a datagram to the node");
    assert_eq!(heard.recv(&mut [0; 64]).expect("the node's socket hears"), 5);
    send(web_2.mac, own, web_2.v4.into(), b"to one");
    inside.must_see(b"to one");

    let all_nodes: Ipv6Addr = "ff02::1".parse().expect("a group");
    let mdns = Ipv4Addr::new(224, 0, 0, 251);
    for (mac, from, to) in [
        (Mac::BROADCAST, own, IpAddr::from(Ipv4Addr::BROADCAST)),
        (Mac::BROADCAST, own, Ipv4Addr::new(10, 100, 0, 255).into()),
        (Mac::BROADCAST, own, web_2.v4.into()),
        (Mac([1, 0, 0x5e, 0, 0, 0xfb]), own, mdns.into()),
        (stage.gateway, own, mdns.into()),
        (web_2.mac, own, mdns.into()),
        (Mac::of_group(all_nodes), stage.web.link_local.into(), all_nodes.into()),
        (Mac::of_group(all_nodes), stage.web.v6.into(), web_2.v6.into()),
        (web_2.mac, stage.web.v6.into(), all_nodes.into()),
    ] {
        stage.site.must_drop_as("multicast", || send(mac, from, to, b"to everybody"));
    }
    // broadcast addresses of links that only the node is on: for the node these are its own
    for to in [[10, 100, 0, 255], [10, 200, 0, 255], [192, 0, 2, 255], [10, 100, 0, 0], [192, 0, 2, 0]] {
        send(stage.gateway, own, Ipv4Addr::from(to).into(), b"to everybody");
    }
    inside.must_not_see(b"to everybody", BRIEF);
    outside.must_not_see(b"to everybody", Duration::ZERO);
    heard.set_read_timeout(Some(BRIEF)).expect("a deadline");
    assert!(heard.recv(&mut [0; 64]).is_err(), "the node heard a broadcast of a workload");
}
