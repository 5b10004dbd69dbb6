//! Frames that a workload must not send, made by hand, and where they must not arrive.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use integration::capture::Capture;
use integration::frame::{
    Mac, arp, ether_type, ethernet, icmpv6, neighbour_advertisement, router_advertisement, tagged, udp,
};
use integration::manifests::{allow_cidrs, policy, two_tenants};
use integration::site::ECHO;
use integration::wait::wait_until;
use integration::{Pod, Site};

const BRIEF: Duration = Duration::from_millis(400);

struct Stage {
    site: Site,
    web: Pod,
    web_2: Pod,
}

/// Two workloads of one network that may send everything: what does not pass is stopped for what it is.
fn stage() -> Stage {
    let site = Site::start();
    site.netctl().apply(&(two_tenants() + &policy("shop", "all", &allow_cidrs(&["0.0.0.0/0", "::/0"], ""))));
    let web = site.attach("shop", "web-1", &[]);
    let web_2 = site.attach("shop", "web-2", &[]);
    Stage { site, web, web_2 }
}

impl Stage {
    fn send(&self, frame: &[u8]) {
        self.web.send_frame(Pod::INTERFACE, frame);
    }

    /// The MAC that the workload sends to for what leaves the segment.
    fn gateway_mac(&self) -> Mac {
        let find = || {
            self.web.must_reach(integration::traffic::Target::new("udp", ECHO.v4(), 7));
            let entries = self.web.ip_json("neigh show dev eth0");
            let entry = entries.as_array()?.iter().find(|entry| entry["dst"] == "10.100.0.1")?.clone();
            entry["lladdr"].as_str()?.parse().ok()
        };
        integration::wait::wait_for("the gateway's MAC", Duration::from_secs(5), find)
    }

    fn datagram(&self, from: IpAddr, to: IpAddr, marker: &str) -> Vec<u8> {
        udp((from, 4000), (to, 7), marker.as_bytes())
    }

    /// The drop counter of `netctl status`, by the reason's word.
    fn drops(&self, reason: &str) -> u64 {
        self.site.netctl().json(&["status"])["drops"][reason].as_u64().unwrap_or(0)
    }

    #[track_caller]
    fn counts(&self, reason: &str, before: u64) {
        wait_until(&format!("a drop is counted as {reason}"), Duration::from_secs(5), || self.drops(reason) > before);
    }
}

#[test]
fn a_foreign_source_address_or_mac_does_not_leave() {
    let stage = stage();
    let gateway = stage.gateway_mac();
    let outside = Capture::start(&stage.site.internet.namespace, "eth0");
    let own: [IpAddr; 2] = [stage.web.v4.into(), stage.web.v6.into()];
    let foreign: [IpAddr; 2] = [stage.web_2.v4.into(), stage.web_2.v6.into()];
    for ((own, foreign), to) in own.into_iter().zip(foreign).zip(ECHO.both()) {
        let kind = ether_type(own);
        let good = format!("good from {own}");
        stage.send(&ethernet(gateway, stage.web.mac, kind, &stage.datagram(own, to, &good)));
        outside.must_see(good.as_bytes());

        let before = stage.drops("spoofed-address");
        stage.send(&ethernet(gateway, stage.web.mac, kind, &stage.datagram(foreign, to, "spoofed address")));
        stage.counts("spoofed-address", before);
        let before = stage.drops("spoofed-mac");
        stage.send(&ethernet(gateway, Mac::made_up([9, 9]), kind, &stage.datagram(own, to, "spoofed mac")));
        stage.counts("spoofed-mac", before);
    }
    outside.must_not_see(b"spoofed", BRIEF);
}

#[test]
fn nobody_is_told_a_wrong_neighbour() {
    let stage = stage();
    let inside = Capture::start(&stage.web_2, Pod::INTERFACE);
    let gateway4 = Ipv4Addr::new(10, 100, 0, 1);
    let gateway6: Ipv6Addr = "fd00:100::1".parse().unwrap();
    let liar = stage.web.mac;

    let before = stage.drops("spoofed-address");
    stage.send(&arp(2, (liar, gateway4), (Mac::BROADCAST, gateway4), liar));
    stage.counts("spoofed-address", before);
    let before = stage.drops("spoofed-address");
    stage.send(&arp(1, (liar, stage.web_2.v4), (Mac::BROADCAST, stage.web_2.v4), liar));
    stage.counts("spoofed-address", before);

    let all_nodes: Ipv6Addr = "ff02::1".parse().unwrap();
    let advertisement = neighbour_advertisement(gateway6, liar);
    let packet = icmpv6(stage.web.link_local, all_nodes, advertisement.clone());
    let before = stage.drops("spoofed-address");
    stage.send(&ethernet(Mac::of_group(all_nodes), liar, 0x86dd, &packet));
    stage.counts("spoofed-address", before);

    let lies = |frames: &[integration::sys::packet::Received]| {
        let told = |bytes: &[u8]| integration::frame::holds(bytes, &gateway4.octets()) && bytes[12..14] == [8, 6];
        frames.iter().filter(|seen| !seen.outgoing && seen.bytes[6..12] == liar.0 && told(&seen.bytes)).count()
    };
    assert_eq!(lies(&inside.frames()), 0, "a lie about the gateway reached another workload");
    inside.must_not_see(&advertisement[8..24], Duration::ZERO);
}

#[test]
fn no_workload_plays_router_or_dhcp_server_and_none_tags() {
    let stage = stage();
    let inside = Capture::start(&stage.web_2, Pod::INTERFACE);
    let all_nodes: Ipv6Addr = "ff02::1".parse().unwrap();
    let router = icmpv6(stage.web.link_local, all_nodes, router_advertisement(stage.web.mac));
    let before = stage.drops("rogue-server");
    stage.send(&ethernet(Mac::of_group(all_nodes), stage.web.mac, 0x86dd, &router));
    stage.counts("rogue-server", before);

    let offer = udp((stage.web.v4.into(), 67), (Ipv4Addr::BROADCAST.into(), 68), b"rogue offer");
    let before = stage.drops("rogue-server");
    stage.send(&ethernet(Mac::BROADCAST, stage.web.mac, 0x0800, &offer));
    stage.counts("rogue-server", before);

    let datagram = stage.datagram(stage.web.v4.into(), stage.web_2.v4.into(), "in a tag");
    let frame = ethernet(stage.web_2.mac, stage.web.mac, 0x0800, &datagram);
    let before = stage.drops("tagged");
    stage.send(&tagged(&frame, 200));
    stage.counts("tagged", before);

    inside.must_not_see(b"in a tag", Duration::ZERO);
    inside.must_not_see(b"rogue offer", BRIEF);
    assert!(!inside.frames().iter().any(|seen| seen.bytes.get(54) == Some(&134)), "a router advertisement arrived");
}

#[test]
fn what_is_no_packet_is_dropped_and_counted() {
    let stage = stage();
    let gateway = stage.gateway_mac();
    let good = stage.datagram(stage.web.v4.into(), ECHO.v4(), "malformed");
    let outside = Capture::start(&stage.site.internet.namespace, "eth0");

    let mut longer_than_itself = good.clone();
    longer_than_itself[2..4].copy_from_slice(&1400u16.to_be_bytes());
    let mut short_header = good.clone();
    short_header[0] = 0x44;
    let to_loopback = stage.datagram(stage.web.v4.into(), Ipv4Addr::LOCALHOST.into(), "malformed");
    for packet in [longer_than_itself, short_header, to_loopback, good[..12].to_vec()] {
        let before = stage.drops("malformed");
        stage.send(&ethernet(gateway, stage.web.mac, 0x0800, &packet));
        stage.counts("malformed", before);
    }
    let before = stage.drops("unsupported");
    stage.send(&ethernet(gateway, stage.web.mac, 0x88cc, b"a protocol of the link, malformed"));
    stage.counts("unsupported", before);
    outside.must_not_see(b"malformed", BRIEF);
}
