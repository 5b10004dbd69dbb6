//! Plans as they are printed, against files in `golden/`. `TIDEGATE_BLESS=1` writes them anew.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use config::resource::{Gateway, Network, OwnAddresses, Snat, Subnet, Vlan, VlanProtocol, WorkloadTraffic};

use super::*;
use crate::segmentation::observe::Table;
use crate::segmentation::ruleset::Ruleset;
use crate::sys::netlink::{
    ConnectedRoute, ForwardingEntry, Kind, LinkAddress, LinkSettings, Neighbour, PortFlags, VlanTag,
};
use crate::workload::{Address, Mac, Workload};

fn golden(name: &str, plan: &Plan) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/segmentation/plan/golden").join(name);
    let text = plan.to_string();
    if std::env::var_os("TIDEGATE_BLESS").is_some() {
        std::fs::write(&file, &text).unwrap();
    }
    let wanted = std::fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(text, wanted, "{}; if it is meant so: TIDEGATE_BLESS=1", file.display());
}

pub(super) fn network() -> Network {
    let subnet = |cidr: &str, gateway: &str| Subnet {
        cidr: cidr.parse().unwrap(),
        gateway: Some(gateway.parse().unwrap()),
        range: None,
        exclude: Vec::new(),
    };
    Network {
        adopt: None,
        reservations: Vec::new(),
        hold: None,
        name: "tenant-a".parse().unwrap(),
        vlan: Some(Vlan {
            parent: "eth1".parse().unwrap(),
            id: 100.try_into().unwrap(),
            protocol: VlanProtocol::Dot1q,
        }),
        subnets: vec![subnet("10.100.0.0/24", "10.100.0.1"), subnet("fd00:100::/64", "fd00:100::1")],
        gateway: Gateway::Node,
        snat: Snat::Masquerade,
        workload_traffic: WorkloadTraffic::Open,
        dns: None,
        mtu: None,
    }
}

pub(super) fn workload(id: u32, network: &Network) -> Workload {
    let mac = Mac([2, 0, 0, 0, 0, id as u8]);
    let mut workload = Workload {
        id: WorkloadId(id),
        namespace: "shop".parse().unwrap(),
        name: format!("web-{id}").parse().unwrap(),
        labels: BTreeMap::new(),
        ports: Default::default(),
        network: network.name.clone(),
        netns: format!("/run/netns/web-{id}").into(),
        host_interface: names::host(WorkloadId(id)),
        guest_interface: "eth0".parse().unwrap(),
        mac,
        addresses: Vec::new(),
        cni: None,
        adopted: false,
        left: None,
    };
    let own = [format!("10.100.0.{}", id + 9), format!("fd00:100::{}", id + 9), workload.link_local().to_string()];
    let address = |text: &String| Address { address: text.parse().unwrap(), handle: "198.18.0.1".parse().unwrap() };
    workload.addresses = own.iter().map(address).collect();
    workload
}

pub(super) fn desired(networks: &[Network], workloads: &[Workload]) -> Desired {
    Desired {
        networks: networks.iter().map(|network| (network.name.clone(), network.clone())).collect(),
        workloads: workloads.iter().map(|workload| (workload.id, workload.clone())).collect(),
        node: crate::segmentation::Node {
            seed: "seed".to_owned(),
            edge: vec!["0.0.0.0:443".parse().unwrap(), "[2001:db8::1]:8443".parse().unwrap()],
            nat: None,
            uplink: Some(2),
        },
    }
}

pub(super) fn link(index: u32, name: &str, kind: Kind) -> Link {
    Link {
        index,
        name: name.parse().unwrap(),
        kind,
        alias: None,
        mac: Some(Mac([2, 0, 0, 0, 1, index as u8])),
        mtu: 1500,
        up: true,
        master: None,
        port: None,
        settings: LinkSettings {
            arp_ignore: Some(0),
            disable_ipv6: Some(0),
            accept_ra: Some(1),
            autoconf: Some(1),
            accept_dad: Some(1),
        },
        far_end: None,
    }
}

/// A node with nothing of ours.
pub(super) fn bare() -> Observed {
    Observed {
        links: vec![link(1, "lo", Kind::Other), link(2, "eth0", Kind::Other), link(3, "eth1", Kind::Other)],
        ipv4_forward: Some(0),
        ipv6_forward: Some(0),
        vlans: true,
        ..Observed::default()
    }
}

/// A node where that network and its first workload are as they shall be.
fn settled(desired: &Desired) -> Observed {
    let mut observed = bare();
    let of_network = Some("tidegate network/tenant-a".to_owned());
    let mut bridge = link(10, "tgb-tenant-a", Kind::Bridge { stp: false, snooping: false });
    bridge.alias = of_network.clone();
    bridge.mac = Some(names::link_mac("seed", &bridge.name));
    bridge.settings = LinkSettings {
        arp_ignore: Some(1),
        disable_ipv6: Some(0),
        accept_ra: Some(0),
        autoconf: Some(0),
        accept_dad: Some(0),
    };
    let tag = VlanTag { id: 100.try_into().unwrap(), protocol: VlanProtocol::Dot1q };
    let mut vlan = link(11, "tgv-tenant-a", Kind::Vlan { parent: 3, tag });
    (vlan.alias, vlan.master, vlan.settings.disable_ipv6) = (of_network, Some(10), Some(1));
    let flags = PortFlags {
        learning: true,
        unicast_flood: true,
        multicast_flood: true,
        broadcast_flood: true,
        isolated: false,
        hairpin: false,
    };
    vlan.port = Some(flags);
    let mut host = link(12, "tgw1", Kind::Veth);
    host.alias = Some("tidegate workload/shop/web-1".to_owned());
    (host.master, host.settings.disable_ipv6) = (Some(10), Some(1));
    host.port = Some(PortFlags { learning: false, unicast_flood: false, ..flags });
    observed.links.extend([bridge, vlan, host]);
    let own = ["10.100.0.1/24", "fd00:100::1/64", "fe80::1/64"];
    observed.addresses = own
        .iter()
        .map(|a| LinkAddress { index: 10, address: a.parse().unwrap(), lasting: true, ours: false })
        .collect();
    let subnets = ["10.100.0.0/24", "fd00:100::/64", "fe80::/64"];
    observed.routes = subnets.iter().map(|s| ConnectedRoute { index: 10, subnet: s.parse().unwrap() }).collect();
    let web = workload(1, &network());
    observed.neighbours =
        web.addresses.iter().map(|a| Neighbour { index: 10, address: a.address, mac: web.mac }).collect();
    observed.forwarding = vec![ForwardingEntry { port: 12, mac: web.mac, sticky: true }];
    (observed.ipv4_forward, observed.ipv6_forward) = (Some(1), Some(1));
    observed.table = Table::As(Arc::new(Ruleset::of(desired)));
    observed
}

#[test]
fn where_the_programs_translate_the_table_does_not() {
    let mut desired = desired(&[network()], &[]);
    let text = Ruleset::of(&desired).text();
    assert!(text.contains("ip saddr @masqueraded4 oifname != \"tgb*\" masquerade"), "{text}");
    for element in ["masqueraded4 { 10.100.0.0/24 }", "masqueraded6 { fd00:100::/64 }"] {
        assert!(text.contains(&format!("add element inet tidegate {element}\n")), "{text}");
    }
    desired.node.nat = Some(7);
    let text = Ruleset::of(&desired).text();
    for family in ["ip saddr @masqueraded4", "ip6 saddr @masqueraded6"] {
        assert!(text.contains(&format!("{family} oifname != \"tgb*\" oif != 7 masquerade")), "{text}");
    }
}

#[test]
fn an_own_egress_address_is_the_rules_at_the_uplink_only_and_where_no_program_is() {
    let mut desired = desired(&[owner()], &[]);
    desired.node.uplink = Some(7);
    let text = Ruleset::of(&desired).text();
    let own = [("ip", 4, "10.100.0.0/24 : 192.0.2.7"), ("ip6", 6, "fd00:100::/64 : 2001:db8::7")];
    for (family, number, own) in own {
        assert!(text.contains(&format!("oif 7 snat {family} to {family} saddr map @own{number}\n")), "{text}");
        assert!(
            text.contains(&format!("{family} saddr @masqueraded{number} oifname != \"tgb*\" masquerade")),
            "{text}"
        );
        assert!(text.contains(&format!("add element inet tidegate own{number} {{ {own} }}\n")), "{text}");
    }
    desired.node.nat = Some(7);
    assert!(!Ruleset::of(&desired).text().contains("snat "));
}

#[test]
fn a_network_that_comes_is_elements_of_the_table() {
    let before = Ruleset::of(&desired(&[network()], &[]));
    let other = Network { name: "tenant-b".parse().unwrap(), subnets: Vec::new(), ..network() };
    let after = Ruleset::of(&desired(&[network(), other], &[]));
    assert_eq!(after.rules, before.rules);
    let [bridge, within] = ["routed { \"tgb-tenant-b\" }", "within { \"tgb-tenant-b\" . \"tgb-tenant-b\" }"];
    let statements =
        |verb: &str| format!("{verb} element inet tidegate {bridge}\n{verb} element inet tidegate {within}\n");
    assert_eq!(after.text_after(&before), statements("add"));
    assert_eq!(before.text_after(&after), statements("delete"));
    assert_eq!(before.text_after(&before), "");
}

fn owner() -> Network {
    let own = OwnAddresses { ipv4: "192.0.2.7".parse().ok(), ipv6: "2001:db8::7".parse().ok() };
    Network { snat: Snat::Own(own), ..network() }
}

/// What is done about egress addresses, as it is printed.
fn egress(desired: &Desired, addresses: &[(u32, &str, bool)]) -> String {
    let address = |&(index, text, ours): &(u32, &str, bool)| LinkAddress {
        index,
        address: text.parse().unwrap(),
        lasting: true,
        ours,
    };
    let mut observed = bare();
    observed.addresses = addresses.iter().map(address).collect();
    let mut plan = Plan::new(desired, &observed).only(|subject| *subject == Subject::Egress);
    plan.refusals.retain(|refusal| !refusal.to_string().contains("VLAN"));
    plan.to_string()
}

#[test]
fn egress_addresses_stand_on_the_uplink_and_only_ours_are_touched() {
    let mut wanted = desired(&[owner()], &[]);
    let (four, six) = ((2, "192.0.2.7/32", true), (2, "2001:db8::7/128", true));
    let host = (2, "192.0.2.2/24", false);
    assert_eq!(
        egress(&wanted, &[host]),
        "add egress address 192.0.2.7 to eth0\nadd egress address 2001:db8::7 to eth0\n"
    );
    assert_eq!(egress(&wanted, &[host, four, six]), "");
    assert_eq!(egress(&wanted, &[host, six]), "add egress address 192.0.2.7 to eth0\n", "somebody took it away");
    // another device is the uplink now
    wanted.node.uplink = Some(3);
    assert_eq!(
        egress(&wanted, &[host, four, (3, "2001:db8::7/128", true)]),
        "take egress address 192.0.2.7 from eth0\nadd egress address 192.0.2.7 to eth1\n"
    );
    // none is known for a while: what stands, stays
    wanted.node.uplink = None;
    assert_eq!(egress(&wanted, &[host, four, six]), "");
    let nowhere = egress(&wanted, &[host, six]);
    assert!(nowhere.starts_with("refused: network tenant-a: there is no uplink to have 192.0.2.7 on"), "{nowhere}");
    // somebody's own, on whatever device
    wanted.node.uplink = Some(2);
    let taken = egress(&wanted, &[host, (3, "192.0.2.7/24", false), six]);
    assert!(taken.contains("192.0.2.7, with which it is to leave, is on eth1 already"), "{taken}");
    assert!(!taken.contains("take egress"), "{taken}");
    // what nobody wants any more goes, apart from what is not ours
    let nobody = desired(&[network()], &[]);
    assert_eq!(
        egress(&nobody, &[host, four, six, (2, "192.0.2.8/32", false)]),
        "take egress address 192.0.2.7 from eth0\ntake egress address 2001:db8::7 from eth0\n"
    );
}

#[test]
fn what_hinders_an_egress_address_hinders_no_workload() {
    let mut desired = desired(&[owner()], &[workload(1, &owner())]);
    desired.node.uplink = None;
    let plan = Plan::new(&desired, &bare());
    let told: Vec<String> = plan.refusals.iter().map(ToString::to_string).collect();
    assert!(told.len() == 2 && told.iter().all(|text| text.contains("there is no uplink")), "{told:?}");
    assert!(!plan.refusals.iter().any(|refusal| refusal.hinders(&owner().name, "shop/web-1")));
    assert!(plan.steps().any(|step| matches!(step, Step::AddPair { .. })), "the workload is connected all the same");
}

#[test]
fn from_nothing() {
    let network = network();
    let desired = desired(std::slice::from_ref(&network), &[workload(1, &network)]);
    golden("from-nothing.txt", &Plan::new(&desired, &bare()));
}

#[test]
fn with_an_external_router() {
    let mut network = network();
    (network.gateway, network.snat, network.mtu) = (Gateway::External, Snat::None, Some(1400));
    network.subnets[0].gateway = None;
    let desired = desired(std::slice::from_ref(&network), &[workload(1, &network)]);
    golden("external.txt", &Plan::new(&desired, &bare()));
}

#[test]
fn nothing_to_do() {
    let network = network();
    let desired = desired(std::slice::from_ref(&network), &[workload(1, &network)]);
    assert_eq!(Plan::new(&desired, &settled(&desired)), Plan::default());
}

#[test]
fn everything_has_drifted() {
    let network = network();
    let desired = desired(std::slice::from_ref(&network), &[workload(1, &network)]);
    let mut observed = settled(&desired);
    let [.., bridge, vlan, host] = observed.links.as_mut_slice() else { panic!() };
    bridge.kind = Kind::Bridge { stp: true, snooping: true };
    (bridge.mac, bridge.mtu, bridge.up) = (None, 1400, false);
    bridge.settings.accept_ra = Some(1);
    (vlan.master, vlan.port, vlan.settings.disable_ipv6) = (None, None, Some(0));
    host.port = host.port.map(|flags| PortFlags { learning: true, ..flags });
    observed.addresses[0].address = "10.7.7.7/24".parse().unwrap();
    observed.routes.retain(|route| route.subnet.is_ipv4());
    observed.neighbours[0].mac = Mac([6; 6]);
    observed.neighbours[1].address = "fd00:100::99".parse::<IpAddr>().unwrap();
    observed.forwarding[0].mac = Mac([6; 6]);
    observed.table = Table::Other;
    golden("drifted.txt", &Plan::new(&desired, &observed));
}

#[test]
fn a_host_side_that_is_down_goes_through_the_whole_order() {
    let network = network();
    let desired = desired(std::slice::from_ref(&network), &[workload(1, &network)]);
    let mut observed = settled(&desired);
    observed.links.last_mut().unwrap().up = false;
    golden("host-side-down.txt", &Plan::new(&desired, &observed));
}

#[test]
fn everything_is_deleted() {
    let before = desired(&[network()], &[workload(1, &network())]);
    let observed = settled(&before);
    golden("deleted.txt", &Plan::new(&desired(&[], &[]), &observed));
}

#[test]
fn a_vlan_moves_and_then_goes() {
    let mut network = network();
    let observed = settled(&desired(&[network.clone()], &[workload(1, &network)]));
    network.vlan.as_mut().unwrap().id = 200.try_into().unwrap();
    golden("vlan-moved.txt", &Plan::new(&desired(&[network.clone()], &[workload(1, &network)]), &observed));
    network.vlan = None;
    golden("vlan-gone.txt", &Plan::new(&desired(&[network.clone()], &[workload(1, &network)]), &observed));
}

#[test]
fn refusals() {
    let named = |name: &str, change: &dyn Fn(&mut Network)| {
        let mut network = network();
        network.name = name.parse().unwrap();
        change(&mut network);
        network
    };
    let parent =
        |parent: &'static str| move |n: &mut Network| n.vlan.as_mut().unwrap().parent = parent.parse().unwrap();
    let networks = [
        named("no-parent", &parent("eth7")),
        named("too-large", &|network| network.mtu = Some(9000)),
        named("taken-id", &|network| network.vlan.as_mut().unwrap().id = 7.try_into().unwrap()),
        named("taken", &|network| network.vlan = None),
        named("other", &|network| {
            network.vlan = None;
            network.subnets.truncate(1);
        }),
        named("uplink", &|network| {
            network.vlan = None;
            network.subnets[0].cidr = "192.0.2.0/25".parse().unwrap();
        }),
        named("beside-uplink", &|network| {
            network.vlan = None;
            network.gateway = Gateway::External;
            network.subnets[0].cidr = "192.0.2.0/25".parse().unwrap();
        }),
    ];
    let mut missing = workload(2, &networks[0]);
    missing.network = "nowhere".parse().unwrap();
    let workloads = [workload(1, &networks[4]), missing];
    let mut observed = bare();
    observed.links.push(link(20, "tgb-taken", Kind::Bridge { stp: false, snooping: false }));
    observed.addresses.push(LinkAddress {
        index: 3,
        address: "192.0.2.129/24".parse().unwrap(),
        lasting: true,
        ours: false,
    });
    let tag = VlanTag { id: 7.try_into().unwrap(), protocol: VlanProtocol::Dot1q };
    observed.links.push(link(21, "eth1.7", Kind::Vlan { parent: 3, tag }));
    let mut plan = Plan::new(&desired(&networks, &workloads), &observed);
    plan.parts.clear();
    golden("refusals.txt", &plan);
    observed.vlans = false;
    let refusals = Plan::new(&desired(&networks[..1], &[]), &observed).refusals;
    assert!(matches!(refusals.as_slice(), [Refusal::NoVlans { .. }]), "{refusals:?}");
}

#[test]
fn a_workload_whose_namespace_is_gone_has_no_steps_and_leaves_none() {
    let network = network();
    let desired = desired(std::slice::from_ref(&network), &[workload(1, &network)]);
    let mut observed = settled(&desired);
    observed.links.pop();
    observed.gone.insert(WorkloadId(1));
    let plan = Plan::new(&desired, &observed);
    assert_eq!(plan.gone, BTreeSet::from([WorkloadId(1)]));
    let steps: Vec<_> = plan.steps().collect();
    assert!(steps.iter().all(|step| matches!(step, Step::DeleteNeighbour { .. })) && steps.len() == 3, "{steps:?}");
}

#[test]
fn changes_under_running_workloads_are_named() {
    let before = desired(&[network()], &[workload(1, &network())]);
    let mut after = before.clone();
    let changed = after.networks.values_mut().next().unwrap();
    changed.gateway = Gateway::External;
    changed.subnets[0].gateway = Some("10.100.0.254".parse().unwrap());
    changed.mtu = Some(1400);
    let told: Vec<String> = forbidden_changes(&before, &after).iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].starts_with(
        "network tenant-a: spec.gateway cannot change while workloads are attached (workload shop/web-1)"
    ));
    after.workloads.clear();
    assert!(forbidden_changes(&before, &after).is_empty());
}
