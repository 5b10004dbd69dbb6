//! Tenant networks: links and addresses, what is put back, what is left behind, and VLANs that never mix.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use integration::capture::Capture;
use integration::frame::{Mac, arp, ethernet, tagged};
use integration::manifests::{allow_cidrs, namespace, network, policy, two_tenants, vlan_network};
use integration::namespace::Namespace;
use integration::site::{Internet, NODE4};
use integration::switch::Switch;
use integration::sys::packet::Received;
use integration::traffic::{Outcome, Target};
use integration::wait::wait_until;
use integration::world::World;
use integration::{Pod, Site, kernel};

fn everything(tenant: &str) -> String {
    policy(tenant, "all", &allow_cidrs(&["0.0.0.0/0", "::/0"], ""))
}

fn links(node: &Namespace) -> BTreeSet<String> {
    let links = node.ip_json("link");
    links.as_array().into_iter().flatten().filter_map(|link| link["ifname"].as_str().map(str::to_owned)).collect()
}

fn bridges(node: &Namespace) -> Vec<String> {
    let links = node.ip_json("link show type bridge");
    links.as_array().into_iter().flatten().filter_map(|link| link["ifname"].as_str().map(str::to_owned)).collect()
}

#[test]
fn a_workload_has_addresses_routes_and_nothing_else() {
    let site = Site::start();
    site.netctl().apply(&two_tenants());
    let web = site.attach("shop", "web-1", &["app=web"]);
    assert_eq!(web.v4.octets()[..3], [10, 100, 0]);
    assert!(web.v6.to_string().starts_with("fd00:100::"), "{}", web.v6);
    let mac = web.mac.0;
    assert_eq!(web.link_local.octets()[8..], [mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]]);
    let addresses = web.ip_json("addr show dev eth0")[0]["addr_info"].clone();
    assert_eq!(addresses.as_array().map(Vec::len), Some(3), "{addresses:#}");
    let tentative = addresses.as_array().into_iter().flatten().any(|address| address["tentative"] == true);
    assert!(!tentative, "addresses are usable at once: {addresses:#}");
    assert_eq!(web.ip_json("route show default")[0]["gateway"], "10.100.0.1");
    assert_eq!(web.ip_json("-6 route show default")[0]["gateway"], "fd00:100::1");
    for (name, value) in [("use_tempaddr", "0"), ("accept_ra", "0")] {
        assert_eq!(web.ok(&format!("cat /proc/sys/net/ipv6/conf/eth0/{name}")).trim(), value, "{name}");
    }
    let second = site.attach("shop", "web-2", &[]);
    assert_ne!((web.v4, web.v6, web.mac), (second.v4, second.v6, second.mac));
    let listed = site.netctl().ok(&["get", "workloads", "-n", "shop", "-o", "wide"]);
    assert!(listed.contains("web-1") && listed.contains(&web.v4.to_string()), "{listed}");
}

#[test]
fn a_sealed_workload_says_and_hears_nothing_before_its_policy() {
    let site = Site::start();
    site.netctl().apply(&(network("tenant-a", 100, "") + &namespace("shop", "tenant-a")));
    let first = site.attach("shop", "web-1", &[]);
    let overheard = Capture::start(&first, Pod::INTERFACE);
    let second = site.attach("shop", "web-2", &[]);
    second.must_not_reach(Target::new("tcp", first.v4.into(), 7));
    let from_second = |seen: &Received| !seen.outgoing && seen.bytes[6..12] == second.mac.0;
    let beyond_control = |seen: &Received| {
        let kind = [seen.bytes[12], seen.bytes[13]];
        kind == [8, 0] || (kind == [0x86, 0xdd] && seen.bytes[20] != 58 && seen.bytes[20] != 0)
    };
    let heard: Vec<_> =
        overheard.frames().into_iter().filter(|seen| from_second(seen) && beyond_control(seen)).collect();
    assert!(heard.is_empty(), "{heard:?}");
}

#[test]
fn a_plan_is_printed_and_done_and_then_empty() {
    let site = Site::start();
    let before = links(&site.node);
    let manifests = two_tenants();
    let plan = |site: &Site| site.netctl().with_file(&manifests, |file| site.netctl().ok(&["plan", "-f", file]));
    let printed = plan(&site);
    assert!(printed.contains("bridge") && printed.contains("10.100.0.1"), "{printed}");
    assert_eq!(links(&site.node), before, "a plan changes nothing");
    site.netctl().with_file(&manifests, |file| site.netctl().ok(&["apply", "--dry-run", "-f", file]));
    assert_eq!(links(&site.node), before, "a dry run changes nothing");

    site.netctl().apply(&manifests);
    wait_until("both networks have a bridge", Duration::from_secs(5), || bridges(&site.node).len() == 2);
    let again = plan(&site);
    assert!(!again.contains("bridge"), "nothing is left to do: {again}");
    site.netctl().apply(&manifests);
}

#[test]
fn a_deleted_network_leaves_nothing_behind() {
    let site = Site::start();
    let (before, rules) = (links(&site.node), site.node.ok("nft list ruleset"));
    let routes = |node: &Namespace| {
        let main = node.ip("-4 route show") + &node.ip("-6 route show");
        // The uplink's own link-local routes come with its duplicate address detection.
        main.lines().filter(|line| !line.starts_with("fe80")).map(str::to_owned).collect::<Vec<_>>()
    };
    let routes_before = routes(&site.node);
    site.netctl().apply(&(two_tenants() + &everything("shop")));
    let web = site.attach("shop", "web-1", &[]);
    assert!(links(&site.node).len() > before.len());
    site.netctl().ok(&["detach", "web-1", "-n", "shop"]);
    assert_eq!(web.run("ip link show dev eth0").status, 1, "nothing is left inside the workload");
    for resource in [
        ["egresspolicy", "all", "-n", "shop"],
        ["namespace", "shop", "-o", "name"],
        ["namespace", "bank", "-o", "name"],
    ] {
        let words: Vec<&str> = resource.iter().copied().filter(|word| !["-o", "name"].contains(word)).collect();
        site.netctl().ok(&[&["delete"], &words[..]].concat());
    }
    site.netctl().ok(&["delete", "network", "tenant-a"]);
    site.netctl().ok(&["delete", "network", "tenant-b"]);
    wait_until("the links are as before", Duration::from_secs(5), || links(&site.node) == before);
    wait_until("the routes are as before", Duration::from_secs(5), || routes(&site.node) == routes_before);
    assert_eq!(site.node.ok("nft list ruleset"), rules);
}

#[test]
fn what_others_delete_is_put_back() {
    let site = Site::start();
    site.netctl().apply(&(two_tenants() + &everything("shop")));
    let web = site.attach("shop", "web-1", &[]);
    let target = Target::new("tcp", integration::site::ECHO.v4(), 7);
    web.must_reach(target);

    let bridge = web_bridge(&site);
    site.node.ip(&format!("addr del 10.100.0.1/24 dev {bridge}"));
    site.node.ip(&format!("link set {bridge} down"));
    site.node.run("nft flush ruleset");
    wait_until("address, link and rules are back", Duration::from_secs(5), || {
        web.attempt(target, Duration::from_millis(300)) == Outcome::Reached
    });
    site.node.ip(&format!("link del {bridge}"));
    wait_until("the bridge is back", Duration::from_secs(5), || {
        web.attempt(target, Duration::from_millis(300)) == Outcome::Reached
    });
    let repairs = site.netctl().json(&["status"])["repairs"].as_u64();
    assert!(repairs.is_some_and(|count| count > 0), "repairs are counted: {repairs:?}");
}

#[test]
fn what_somebody_takes_from_a_workloads_device_is_put_back_at_any_age() {
    let site = Site::start();
    site.netctl().apply(&two_tenants());
    let _web = site.attach("shop", "web-1", &[]);
    let workload = site.netctl().json(&["get", "workload", "web-1", "-n", "shop"]);
    let device = workload["status"]["hostInterface"].as_str().expect("its host side").to_owned();
    let filters = || {
        let shown =
            |side| site.node.ok(&format!("tc filter show dev {device} {side}")).matches("direct-action").count();
        [shown("ingress"), shown("egress")]
    };
    let pins = || {
        let pins = std::fs::read_dir(site.world.bpffs().join("v5/links")).into_iter().flatten().flatten();
        pins.map(|pin| pin.path()).find(|pin| pin.to_string_lossy().ends_with("-from_workload"))
    };
    assert_eq!((filters(), pins()), ([1, 1], None));
    site.node.ok(&format!("tc qdisc del dev {device} clsact"));
    wait_until("filters are back", Duration::from_secs(5), || filters() == [1, 1]);
    if kernel::has_tcx() {
        wait_until("links hold them", Duration::from_secs(30), || filters() == [0, 0]);
        std::fs::remove_file(pins().expect("a pin")).expect("a pin can be removed");
        wait_until("a filter does for the lost link", Duration::from_secs(5), || filters() == [1, 0]);
        wait_until("a link holds it again", Duration::from_secs(30), || filters() == [0, 0] && pins().is_some());
    }
}

/// The bridge that has tenant a's gateway address.
fn web_bridge(site: &Site) -> String {
    let found = site.node.ip_json("addr show to 10.100.0.1");
    found[0]["ifname"].as_str().expect("the bridge of tenant a").to_owned()
}

#[test]
fn a_vlan_is_refused_by_name_where_the_kernel_lacks_it() {
    if kernel::has_vlans() {
        return kernel::skip("a_vlan_is_refused_by_name_where_the_kernel_lacks_it", "this kernel has 8021q");
    }
    let site = Site::start();
    site.world.link((&site.node, "trunk0"), (&site.internet.namespace, "switch0"));
    let before = links(&site.node);
    let said = site.netctl().try_apply(&vlan_network("tenant-a", 100, ""));
    assert_eq!(said.status, 1, "{}{}", said.stdout, said.stderr);
    assert!(said.stderr.contains("8021q"), "the missing feature is named: {}", said.stderr);
    assert_eq!(links(&site.node), before);
    site.netctl().apply(&two_tenants());
    let doctor = site.netctl().run(&["doctor"]);
    assert!((doctor.stdout + &doctor.stderr).contains("8021q"));
}

struct Trunked {
    site: Site,
    switch: Switch,
    hosts: [Namespace; 2],
    pods: [Pod; 2],
}

/// Tenant a on VLAN 100 and tenant b on VLAN 200, a workload and a host of the switch in each.
fn trunked() -> Trunked {
    assert!(kernel::has_vlans(), "this kernel lacks 8021q; the test belongs to the second kernel");
    let world = World::new();
    let node = world.namespace("node", None);
    let internet = Internet::start(&world, &node);
    let switch = Switch::new(&world, &node, &[100, 200]);
    let hosts = [
        switch.host(&world, "host-a", 100, &["10.100.0.250/24", "fd00:100::250/64"]),
        switch.host(&world, "host-b", 200, &["10.200.0.250/24", "fd00:200::250/64"]),
    ];
    let daemon = integration::daemon::Daemon::start(&world, &node, &Site::settings());
    let site = Site { daemon, internet, node, world };
    let networks = vlan_network("tenant-a", 100, "") + &vlan_network("tenant-b", 200, "");
    let namespaces = namespace("shop", "tenant-a") + &namespace("bank", "tenant-b");
    site.netctl().apply(&(networks + &namespaces + &everything("shop") + &everything("bank")));
    let pods = [site.attach("shop", "web-1", &[]), site.attach("bank", "ledger-1", &[])];
    Trunked { site, switch, hosts, pods }
}

#[test]
#[ignore = "needs 8021q: second kernel"]
fn frames_of_one_vlan_are_never_seen_on_another_after_the_daemons_death_too() {
    let mut world = trunked();
    let trunk = Capture::start(&world.switch.namespace, "trunk");
    let others = world.hosts.each_ref().map(|host| Capture::start(host, "eth0"));
    exchange(&world);
    world.site.daemon.kill();
    exchange(&world);
    world.site.daemon.restart();
    exchange(&world);

    let tags: BTreeSet<Option<u16>> = trunk.frames().iter().map(|seen| seen.vlan).collect();
    assert!(tags.contains(&Some(100)) && tags.contains(&Some(200)), "{tags:?}");
    for (index, vlan) in [100, 200].into_iter().enumerate() {
        let own = world.pods[index].mac;
        let wrong = trunk.frames().into_iter().filter(|seen| from(seen, own) && seen.vlan != Some(vlan)).count();
        assert_eq!(wrong, 0, "frames of VLAN {vlan}'s workload with another tag");
        let strayed = others[1 - index].frames().into_iter().filter(|seen| from(seen, own)).count();
        assert_eq!(strayed, 0, "frames of VLAN {vlan}'s workload on the other VLAN");
        assert!(others[index].frames().iter().any(|seen| from(seen, own)), "its own VLAN hears it");
    }
}

/// A frame that nobody has a use for, with a marker.
fn marked(to: Mac, from: Mac, marker: &str) -> Vec<u8> {
    const LOCAL_EXPERIMENTAL: u16 = 0x88b5; // IEEE 802
    ethernet(to, from, LOCAL_EXPERIMENTAL, format!("{marker:-<60}").as_bytes())
}

#[test]
#[ignore = "needs 8021q: second kernel"]
fn hopping_poisoned_learning_and_floods_of_addresses_stay_on_their_own_vlan() {
    let world = trunked();
    let [a, b] = &world.pods;
    let inside = [a, b].map(|pod| Capture::start(pod, Pod::INTERFACE));
    let hosts = world.hosts.each_ref().map(|host| Capture::start(host, "eth0"));
    let stranger = Mac([2, 9, 9, 9, 9, 9]);

    // from a workload: other tags, two tags, and no tag of its own choosing leaves
    for to in [Mac::BROADCAST, b.mac] {
        let plain = marked(to, a.mac, "hop-out");
        for tags in [&[200][..], &[100, 200], &[200, 100], &[0], &[0, 200]] {
            let frame = tags.iter().rev().fold(plain.clone(), |frame, tag| tagged(&frame, *tag));
            a.send_frame(Pod::INTERFACE, &frame);
        }
    }
    // from the trunk, as another node or a bad switch would send it: a tag within a tag, none, and priority only
    let wire = |frame: &[u8]| world.switch.namespace.send_frame("trunk", frame);
    for to in [Mac::BROADCAST, a.mac, b.mac] {
        let plain = marked(to, stranger, "hop-in");
        wire(&tagged(&tagged(&plain, 200), 100));
        wire(&tagged(&tagged(&plain, 100), 200));
        wire(&tagged(&plain, 0));
        wire(&plain);
    }
    // a workload's Ethernet address on the wire, on its own VLAN and the other: the bridge learns nothing that moves it
    for vlan in [100, 200] {
        wire(&tagged(&marked(Mac::BROADCAST, a.mac, "poison"), vlan));
        wire(&tagged(&marked(Mac::BROADCAST, b.mac, "poison"), vlan));
    }
    // many source addresses
    let known = || world.site.node.ok("bridge fdb show").lines().count();
    let before = known();
    for number in 0..256u16 {
        let [high, low] = number.to_be_bytes();
        a.send_frame(Pod::INTERFACE, &marked(Mac::BROADCAST, Mac([2, 7, 7, 7, high, low]), "flood"));
    }
    assert!(known() <= before + 8, "a workload's frames taught the bridge {} addresses", known() - before);
    exchange(&world);

    let everywhere = || hosts.iter().chain(&inside);
    let beyond_it = || hosts.iter().chain(&inside[1..]);
    assert_eq!(everywhere().map(|capture| capture.count(b"hop-in")).sum::<usize>(), 0, "from the trunk");
    for marker in ["hop-out", "flood"] {
        assert_eq!(beyond_it().map(|capture| capture.count(marker.as_bytes())).sum::<usize>(), 0, "{marker}");
    }
}

fn from(seen: &Received, mac: Mac) -> bool {
    seen.bytes[6..12] == mac.0
}

/// Each workload speaks to its own VLAN's host in both families, tries the other's, and broadcasts.
fn exchange(world: &Trunked) {
    let peers: [[IpAddr; 2]; 2] = [["10.100.0.250", "fd00:100::250"], ["10.200.0.250", "fd00:200::250"]]
        .map(|texts| texts.map(|text| text.parse().expect("an address")));
    for (index, pod) in world.pods.iter().enumerate() {
        for address in peers[index] {
            pod.must_reach(Target::new("ping", address, 0));
        }
        // The other tenant's host answers to the other tenant's gateway only: nothing comes back by way of this VLAN.
        let shout = arp(1, (pod.mac, pod.v4), (Mac::BROADCAST, pod.v4), pod.mac);
        pod.send_frame(Pod::INTERFACE, &shout);
        let own: [IpAddr; 2] = [pod.v4.into(), pod.v6.into()];
        own.into_iter().for_each(|address| {
            let seen = world.hosts[1 - index].attempt(Target::new("ping", address, 0), Duration::from_millis(300));
            assert_ne!(seen, Outcome::Reached, "a host of the other VLAN reaches {address}");
        });
    }
}

#[test]
#[ignore = "needs 8021q: second kernel"]
fn workloads_on_vlans_reach_the_internet_by_their_policy() {
    let world = trunked();
    let echo = integration::site::ECHO;
    for pod in &world.pods {
        for address in echo.both() {
            pod.must_reach(Target::new("tcp", address, 7));
        }
    }
    let narrowed = policy("shop", "all", &allow_cidrs(&["203.0.113.31/32"], ""));
    world.site.netctl().apply(&narrowed);
    world.pods[0].must_not_reach(Target::new("tcp", echo.v4(), 7));
    world.pods[1].must_reach(Target::new("tcp", echo.v4(), 7));
    assert!(links(&world.site.node).len() > 4);
    assert!(world.site.node.ip("addr").contains(&NODE4.to_string()));
}

#[test]
#[ignore = "needs 8021q: second kernel"]
fn a_vlan_network_leaves_no_sub_interface_behind() {
    let world = World::new();
    let node = world.namespace("node", None);
    let internet = Internet::start(&world, &node);
    let _switch = Switch::new(&world, &node, &[100]);
    let daemon = integration::daemon::Daemon::start(&world, &node, &Site::settings());
    let site = Site { daemon, internet, node, world };
    let before = links(&site.node);
    site.netctl().apply(&vlan_network("tenant-a", 100, ""));
    let vlans = site.node.ip_json("-d link show type vlan");
    assert_eq!(vlans[0]["linkinfo"]["info_data"]["id"], 100, "{vlans:#}");
    site.netctl().ok(&["delete", "network", "tenant-a"]);
    wait_until("the links are as before", Duration::from_secs(5), || links(&site.node) == before);
}
