//! Source NAT on real flows: large segments, checksums that are left to the device, datagrams in pieces.

use std::time::Duration;

use gateway::egress::tables::nat::Translation;
use gateway::egress::tables::uplink::Way;

use super::fast::{at, closed_to_the_stack, past, way};
use super::live::{Net, bulk, carries, connect, listen, udp};
use super::nat_frames::{ENDS, WIRE4, WIRE6, sources};
use super::world::*;

/// A workload behind NAT, where the node's own firewall forwards nothing.
fn masqueraded() -> Net {
    let mut net = closed_to_the_stack();
    net.node.tables.set_node_addresses(&[GATEWAY4, GATEWAY6, WIRE4, WIRE6].map(addr).into()).unwrap();
    net.node.tables.set_masqueraded(&sources(NETWORK)).unwrap();
    let addresses = [("0.0.0.0/0", WIRE4), ("::/0", WIRE6)].map(|(to, own)| (to.parse().unwrap(), addr(own))).into();
    let translation = Translation { ifindex: Some(ifindex("far")), ports: Some(50_000..=59_999), addresses };
    net.node.tables.set_translation(&translation).unwrap();
    net.node.change(|entry| entry.masqueraded = true);
    // the far end knows no way to the workload
    for (own, _, _) in ENDS {
        net.far.ip(&format!("route add unreachable {own}"));
    }
    net
}

#[test]
fn segments_of_any_size_are_translated_in_both_directions() {
    let net = masqueraded();
    for (_, far, wire) in ENDS {
        let open = listen(&net.far, at(far, 80));
        let mut here = connect(&net.workload, at(far, 80), Duration::from_secs(10)).unwrap();
        let (mut there, from) = open.accept().unwrap();
        assert_eq!(from.ip(), addr(wire));
        assert!(carries(&mut here, &mut there) && carries(&mut there, &mut here));
        let before = past(&net.node);
        bulk(&mut here, &mut there);
        bulk(&mut there, &mut here);
        let after = past(&net.node);
        assert!(after.0 > before.0 + 20 && after.1 > before.1 + 20);
        assert_eq!(way(&net.node, Way::TooBig), 0, "segments fit");
    }
}

#[test]
fn datagrams_and_their_answers_have_right_checksums() {
    let net = masqueraded();
    for (own, far, wire) in ENDS {
        let (a, b) = (udp(&net.workload, at(own, 4000)), udp(&net.far, at(far, 5000)));
        let mut buffer = [0; 2000];
        for size in [1, 17, 1400] {
            a.send_to(&vec![7; size], at(far, 5000)).unwrap();
            let (length, from) = b.recv_from(&mut buffer).unwrap();
            assert_eq!((length, from.ip()), (size, addr(wire)));
            b.send_to(&buffer[..length], from).unwrap();
            assert_eq!(a.recv_from(&mut buffer).unwrap(), (size, at(far, 5000)));
        }
    }
}
