//! Is the VLAN really there? A trunk to a switch, with hosts, a router, and a VLAN that the switch does not carry.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use integration::frame::{Mac, arp, ethernet, icmpv6, neighbour_advertisement};
use integration::kernel;
use integration::manifests::{namespace, vlan_network};
use integration::namespace::Namespace;
use integration::site::Internet;
use integration::switch::Switch;
use integration::wait::wait_until;
use integration::world::World;
use integration::{Pod, Site};
use serde_json::Value;

/// The daemon looks once a second, and asks three times in the beginning.
const TOLD: Duration = Duration::from_secs(15);

const STRANGER: Mac = Mac([0, 0x11, 0x22, 0x33, 0x44, 0x55]);

fn segment(site: &Site, network: &str) -> Value {
    site.netctl().json(&["get", "network", network])["status"]["segment"].clone()
}

#[track_caller]
fn becomes(site: &Site, network: &str, state: &str, message: &str) {
    let is_so = || {
        let segment = segment(site, network);
        segment["state"] == state && segment["message"].as_str().unwrap_or_default().contains(message)
    };
    wait_until(&format!("{network} is {state}: {message} (it is {})", segment(site, network)), TOLD, is_so);
}

fn conflicts(site: &Site) -> String {
    site.netctl().json(&["status"])["conditions"].to_string()
}

/// A frame of LLDP: this chassis, this system, and VLANs with names (IEEE 802.1Q, annex D).
fn lldp(system: &str, vlans: &[u16]) -> Vec<u8> {
    let tlv = |kind: u8, value: &[u8]| [&[kind << 1, value.len() as u8], value].concat();
    let named = |id: &u16| {
        let [high, low] = id.to_be_bytes();
        tlv(127, &[0, 0x80, 0xc2, 3, high, low, 1, b'v'])
    };
    let vlans: Vec<u8> = vlans.iter().flat_map(named).collect();
    let head = [tlv(1, &[4, 2, 0, 0, 0, 0, 9]), tlv(2, b"\x05port7"), tlv(3, &[0, 120])].concat();
    let to = [1, 0x80, 0xc2, 0, 0, 0x0e];
    [&to[..], &[2, 0, 0, 0, 0, 9, 0x88, 0xcc], &head, &tlv(5, system.as_bytes()), &vlans, &[0, 0]].concat()
}

#[test]
#[ignore = "needs 8021q: second kernel"]
fn a_vlan_is_seen_silent_or_in_conflict_and_a_switch_is_believed() {
    assert!(kernel::has_vlans(), "this kernel lacks 8021q; the test belongs to the second kernel");
    let world = World::new();
    let node = world.namespace("node", None);
    let internet = Internet::start(&world, &node);
    let switch = Switch::new(&world, &node, &[100, 200]);
    let host = switch.host(&world, "host", 100, &["10.100.0.250/24"]);
    let router: Namespace = switch.host(&world, "router", 200, &["10.200.0.1/24", "fd00:200::1/64"]);
    let daemon = integration::daemon::Daemon::start(&world, &node, &Site::settings());
    let site = Site { daemon, internet, node, world };
    let external = vlan_network("tenant-b", 200, "").replace("gateway: Node", "gateway: External");
    let missing = vlan_network("tenant-c", 201, "");
    site.netctl().apply(&(vlan_network("tenant-a", 100, "") + &external + &missing + &namespace("shop", "tenant-a")));

    becomes(&site, "tenant-b", "Seen", "its router answers");
    let own = router.ip_json("link show dev eth0")[0]["address"].as_str().expect("a MAC").to_owned();
    becomes(&site, "tenant-b", "Seen", &own);
    becomes(&site, "tenant-c", "Silent", "nobody is heard on VLAN 201 of trunk0");
    let quiet = segment(&site, "tenant-a")["state"].clone();
    assert!(quiet == "Silent" || quiet == "Seen", "{quiet}");
    let asks = (Mac([2, 9, 9, 9, 9, 9]), Ipv4Addr::new(10, 100, 0, 250));
    host.send_frame("eth0", &arp(1, asks, (Mac([0; 6]), Ipv4Addr::new(10, 100, 0, 77)), asks.0));
    becomes(&site, "tenant-a", "Seen", "hosts are heard");
    let shown = site.netctl().ok(&["get", "networks"]);
    assert!(shown.contains("SEGMENT") && shown.contains("Silent") && shown.contains("trunk0.201"), "{shown}");

    // What was forgotten on the switch.
    switch.namespace.send_frame("trunk", &lldp("sw-1", &[1, 100, 200]));
    becomes(&site, "tenant-c", "Silent", "switch sw-1 does not name it");
    switch.namespace.ok("bridge vlan add dev trunk vid 201");
    switch.namespace.send_frame("trunk", &lldp("sw-1", &[1, 100, 200, 201]));
    becomes(&site, "tenant-c", "Seen", "switch sw-1 carries it");
    let late = switch.host(&site.world, "late", 201, &[]);
    let advertise = |host: &Namespace, address: Ipv6Addr| {
        let all = Mac([0x33, 0x33, 0, 0, 0, 1]);
        let to = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        let packet = icmpv6(address, to, neighbour_advertisement(address, STRANGER));
        host.send_frame("eth0", &ethernet(all, STRANGER, 0x86dd, &packet));
    };
    advertise(&late, "fd00:201::9".parse().expect("an address"));
    becomes(&site, "tenant-c", "Seen", "hosts are heard");

    // The gateway of a network that this node routes for: another node of ours may have it, nobody else.
    assert!(!conflicts(&site).contains("vlan/"));
    let claim =
        |mac: Mac, address: Ipv4Addr| host.send_frame("eth0", &arp(1, (mac, address), (Mac([0; 6]), address), mac));
    claim(Mac([2, 9, 9, 9, 9, 9]), Ipv4Addr::new(10, 100, 0, 1));
    becomes(&site, "tenant-a", "Seen", "hosts are heard");
    claim(STRANGER, Ipv4Addr::new(10, 100, 0, 1));
    becomes(&site, "tenant-a", "Conflict", "00:11:22:33:44:55 has 10.100.0.1 too");
    assert!(conflicts(&site).contains("vlan/tenant-a"));

    // And a workload's address, of either family, whoever claims it.
    let pod: Pod = site.attach("shop", "web-1", &[]);
    let says = |what: String| segment(&site, "tenant-a")["message"].as_str().is_some_and(|text| text.contains(&what));
    wait_until("its address is another's", TOLD, || {
        claim(Mac([2, 9, 9, 9, 9, 9]), pod.v4);
        says(format!("has {} too", pod.v4))
    });
    wait_until("so is its other one", TOLD, || {
        advertise(&host, pod.v6);
        says(format!("has {} too", pod.v6))
    });

    // Nothing is left at the trunk.
    site.netctl().ok(&["detach", "web-1", "-n", "shop"]);
    site.netctl().ok(&["delete", "namespace", "shop"]);
    for network in ["tenant-a", "tenant-b", "tenant-c"] {
        site.netctl().ok(&["delete", "network", network]);
    }
    wait_until("nobody listens", TOLD, || !site.node.ok("tc filter show dev trunk0 ingress").contains("from_trunk"));
    assert!(!conflicts(&site).contains("vlan/"));
}
