//! Packets of a shape in which a port, an address or a way could hide.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use integration::Pod;
use integration::capture::Capture;
use integration::frame::{ethernet, fragment, tagged, tcp, udp, with_extension, with_options};
use integration::manifests::allow_cidrs;
use integration::site::{ECHO, OTHER};
use integration::traffic::Target;

use super::{BRIEF, ECHO_PORT, everything, only_echo, stage};

#[test]
fn no_tag_carries_a_frame_elsewhere() {
    let stage = stage(&everything());
    let second = stage.site.attach("shop", "web-2", &[]);
    let inside = Capture::start(&second, Pod::INTERFACE);
    let datagram = |marker: &str| udp((stage.web.v4.into(), 4000), (second.v4.into(), 7), marker.as_bytes());
    let frame = |marker: &str| ethernet(second.mac, stage.web.mac, 0x0800, &datagram(marker));
    stage.web.send_frame(Pod::INTERFACE, &frame("without a tag"));
    inside.must_see(b"without a tag");

    let mut service = tagged(&frame("inside a tag"), 100);
    service[12..14].copy_from_slice(&[0x88, 0xa8]);
    let double = tagged(&tagged(&frame("inside a tag"), 200), 100);
    let mut stacked = double.clone();
    stacked[12..14].copy_from_slice(&[0x88, 0xa8]);
    for tricky in [tagged(&frame("inside a tag"), 0), tagged(&frame("inside a tag"), 1), service, double, stacked] {
        stage.site.must_drop_as("tagged", || stage.web.send_frame(Pod::INTERFACE, &tricky));
    }
    inside.must_not_see(b"inside a tag", BRIEF);
}

#[test]
fn no_source_route_is_followed() {
    let stage = stage(&everything());
    let outside = stage.outside();
    for (own, far) in stage.ways() {
        stage.send(&udp((own, 4000), (far, ECHO_PORT), format!("straight to {far}").as_bytes()));
        outside.must_see(format!("straight to {far}").as_bytes());
    }
    let (own, far) = stage.ways()[0];
    let packet = udp((own, 4000), (far, ECHO_PORT), b"by a detour");
    let [a, b, c, d] = Ipv4Addr::new(203, 0, 113, 31).octets();
    for kind in [131, 137, 7] {
        // loose and strict source route, record route
        stage.site.must_drop_as("unsupported", || stage.send(&with_options(&packet, &[kind, 7, 4, a, b, c, d, 0])));
    }
    let (own, far) = stage.ways()[1];
    let packet = udp((own, 4000), (far, ECHO_PORT), b"by a detour");
    for kind in [0, 2, 4] {
        let mut route = [0; 24];
        (route[2], route[3]) = (kind, 1);
        route[8..].copy_from_slice(&match OTHER.v6() {
            IpAddr::V6(via) => via.octets(),
            IpAddr::V4(_) => unreachable!("an IPv6 address"),
        });
        stage.site.must_drop_as("unsupported", || stage.send(&with_extension(&packet, 43, &route)));
    }
    outside.must_not_see(b"by a detour", BRIEF);
}

#[test]
fn fragments_hide_no_port() {
    let stage = stage(&only_echo("[ { protocol: TCP, port: 7 }, { protocol: UDP, port: 7 } ]"));
    let outside = stage.outside();
    for (own, far) in stage.ways() {
        let send =
            |packet: &[u8], id, part: std::ops::Range<usize>, more| stage.send(&fragment(packet, id, part, more));
        let allowed = udp((own, 4000), (far, ECHO_PORT), format!("{:-<24}to the port for {far}", "").as_bytes());
        let head = allowed.len() - if own.is_ipv4() { 20 } else { 40 };
        send(&allowed, 1, 0..16, true);
        send(&allowed, 1, 16..head, false);
        outside.must_see(format!("to the port for {far}").as_bytes());

        let denied = udp((own, 4000), (far, 70), b"--------to another port, in pieces");
        stage.site.must_drop_as("denied-by-default", || send(&denied, 2, 0..16, true));
        stage.site.must_drop_as("fragment-unknown", || send(&denied, 2, 16..42, false));
        // the later fragments first, and behind a first one that is allowed
        stage.site.must_drop_as("fragment-unknown", || send(&denied, 3, 16..42, false));
        send(&allowed, 4, 0..16, true);
        stage.site.must_drop_as("denied-by-default", || send(&denied, 4, 0..16, true));

        let syn = tcp((own, 4000), (far, ECHO_PORT), 2);
        stage.site.must_drop_as("malformed", || send(&syn, 5, 0..8, true));
        stage.site.must_drop_as("malformed", || send(&syn, 5, 8..20, false));
        send(&syn, 6, 0..20, true);
        stage.site.must_drop_as("malformed", || send(&syn, 6, 16..20, false));
    }
    outside.must_not_see(b"to another port", BRIEF);
}

#[test]
fn no_chain_of_headers_hides_a_port() {
    let stage = stage(&everything());
    let outside = stage.outside();
    let (own, far) = stage.ways()[1];
    stage.send(&udp((own, 4000), (far, ECHO_PORT), b"plainly"));
    outside.must_see(b"plainly");
    let packet = udp((own, 4000), (far, ECHO_PORT), b"behind headers");
    let options = [0, 0, 1, 4, 0, 0, 0, 0];
    let chain =
        |kinds: &[u8]| kinds.iter().rev().fold(packet.clone(), |inner, kind| with_extension(&inner, *kind, &options));
    let mut long = vec![0];
    long.extend([60; 10]);
    for kinds in [&[0][..], &[60], &[43], &[51], &[135], &[139], &[140], &[0, 60], &[60, 0], &[44, 60], &long] {
        stage.site.must_drop_as("unsupported", || stage.send(&chain(kinds)));
    }
    let mut nothing = packet.clone();
    nothing[6] = 59;
    stage.site.must_drop_as("unsupported", || stage.send(&nothing));
    outside.must_not_see(b"behind headers", BRIEF);
}

#[test]
fn no_ipv4_address_hides_in_ipv6() {
    let stage = stage(&allow_cidrs(&[&format!("{}/32", ECHO.v4())], ""));
    // a socket's mapped address is IPv4 on the wire, and judged so
    let mapped = |host: IpAddr| match host {
        IpAddr::V4(ip) => Target::Tcp(SocketAddr::new(ip.to_ipv6_mapped().into(), ECHO_PORT)),
        IpAddr::V6(_) => unreachable!("an IPv4 address"),
    };
    stage.web.must_reach(mapped(ECHO.v4()));
    stage.web.must_not_reach(mapped(OTHER.v4()));

    let outside = stage.outside();
    stage.send(&udp((stage.web.v4.into(), 4000), (ECHO.v4(), ECHO_PORT), b"as IPv4"));
    outside.must_see(b"as IPv4");
    let to = |text: &str| -> IpAddr { text.parse().expect("an address") };
    let own = IpAddr::from(stage.web.v6);
    let hidden = |from: IpAddr, to: IpAddr| udp((from, 4000), (to, ECHO_PORT), b"inside IPv6");
    let web4 = IpAddr::from(stage.web.v4.to_ipv6_mapped());
    for (from, to) in [(own, to("::ffff:203.0.113.30")), (web4, ECHO.v6()), (web4, to("::ffff:203.0.113.30"))] {
        stage.site.must_drop_as("malformed", || stage.send(&hidden(from, to)));
    }
    for text in ["::203.0.113.30", "64:ff9b::203.0.113.30", "2002:cb00:711e::1"] {
        stage.site.must_drop_as("denied-by-default", || stage.send(&hidden(own, to(text))));
    }
    for protocol in [4, 41] {
        let mut tunnel = udp((stage.web.v4.into(), 4000), (OTHER.v4(), ECHO_PORT), b"inside IPv6");
        tunnel[9] = protocol;
        stage.site.must_drop_as("denied-by-default", || stage.send(&tunnel));
    }
    outside.must_not_see(b"inside IPv6", BRIEF);
}
