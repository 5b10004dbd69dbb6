use config::resource::{Snat, Subnet, VlanProtocol, WorkloadTraffic};

use super::*;

const NOW: Duration = Duration::from_secs(1_000);
const LONG: Duration = Duration::from_secs(60);
const STRANGER: Mac = Mac([0, 0x11, 0x22, 3, 4, 5]);

fn network(gateway: Gateway) -> (Network, Vlan) {
    let vlan = Vlan { parent: "eth1".parse().unwrap(), id: 100.try_into().unwrap(), protocol: VlanProtocol::Dot1q };
    let subnet = Subnet {
        cidr: "10.0.0.0/24".parse().unwrap(),
        gateway: Some("10.0.0.1".parse().unwrap()),
        range: None,
        exclude: Vec::new(),
    };
    let network = Network {
        name: "a".parse().unwrap(),
        adopt: None,
        reservations: Vec::new(),
        hold: None,
        vlan: Some(vlan.clone()),
        subnets: vec![subnet],
        gateway,
        snat: Snat::None,
        workload_traffic: WorkloadTraffic::Open,
        dns: None,
        mtu: None,
    };
    (network, vlan)
}

fn ago(seconds: u64) -> Duration {
    NOW - Duration::from_secs(seconds)
}

fn state(gateway: Gateway, heard: Heard, switch: Option<&[u16]>, asked: Duration) -> (SegmentState, String) {
    let (network, vlan) = network(gateway);
    let switch = switch.map(|ids| lldp::Neighbour { name: "sw-1".to_owned(), vlans: ids.iter().copied().collect() });
    let segment = judge(&network, &vlan, Some(&heard), switch.as_ref(), asked, NOW);
    (segment.state, segment.message)
}

const NOTHING: Heard = Heard { heard: None, router: None, claimed: None };

#[test]
fn who_was_heard_lately_is_seen_and_else_it_is_silent_after_a_while() {
    let heard = |seconds| Heard { heard: Some(ago(seconds)), ..NOTHING };
    assert_eq!(state(Gateway::Node, NOTHING, None, Duration::ZERO).0, SegmentState::Asking);
    let silent = state(Gateway::Node, NOTHING, None, LONG);
    assert_eq!(silent, (SegmentState::Silent, "nobody is heard on VLAN 100 of eth1".to_owned()));
    assert_eq!(state(Gateway::Node, heard(3), None, LONG).0, SegmentState::Seen);
    assert_eq!(state(Gateway::Node, heard(300), None, LONG).0, SegmentState::Silent);
    let (state_, message) = state(Gateway::External, heard(3), None, LONG);
    assert_eq!((state_, message.as_str()), (SegmentState::Seen, "hosts are heard; its router does not answer"));
    let router = Heard { router: Some((ago(3), STRANGER)), ..heard(3) };
    assert_eq!(state(Gateway::External, router, None, LONG).1, "its router answers, 00:11:22:03:04:05");
}

#[test]
fn a_switch_that_names_its_vlans_is_believed() {
    assert_eq!(
        state(Gateway::Node, NOTHING, Some(&[1, 100]), LONG),
        (SegmentState::Seen, "switch sw-1 carries it".to_owned())
    );
    let (state_, message) = state(Gateway::Node, NOTHING, Some(&[1, 20]), LONG);
    assert_eq!(state_, SegmentState::Silent);
    assert_eq!(message, "nobody is heard on VLAN 100 of eth1; switch sw-1 does not name it");
    assert_eq!(state(Gateway::Node, NOTHING, Some(&[]), LONG).1, "nobody is heard on VLAN 100 of eth1");
}

#[test]
fn whoever_has_an_address_of_this_node_is_a_conflict_but_for_another_node_with_the_same_gateway() {
    let claimed = |address: &str, mac, seconds| Heard {
        claimed: Some((ago(seconds), address.parse().unwrap(), mac)),
        heard: Some(ago(1)),
        router: None,
    };
    let node = Mac([2, 9, 8, 7, 6, 5]);
    let told = |heard| state(Gateway::Node, heard, None, LONG).0;
    assert_eq!(told(claimed("10.0.0.1", STRANGER, 3)), SegmentState::Conflict);
    assert_eq!(told(claimed("10.0.0.1", STRANGER, 300)), SegmentState::Seen);
    assert_eq!(told(claimed("10.0.0.1", node, 3)), SegmentState::Seen);
    assert_eq!(told(claimed("10.0.0.9", node, 3)), SegmentState::Conflict, "a workload's address is its own");
}
