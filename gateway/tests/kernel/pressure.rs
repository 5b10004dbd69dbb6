//! Tables that lose their oldest, pushed past their size: what is lost is denied, and heals where the documents say so.

use gateway::egress::attach::Program;
use gateway::workload::{Mac, WorkloadId};
use policy::reason::Reason::*;

use super::frames::*;
use super::world::*;

const HANDLE4: &str = "198.18.0.1";

/// Entries of a pinned table.
fn entries(node: &Node, table: &'static str) -> usize {
    let path = node.tables.folder().join("maps").join(table);
    gateway::sys::bpf::Map::<[u8; 44], [u8; 16]>::open(&path, table).unwrap().dump().unwrap().len()
}

#[test]
fn an_edge_connection_that_was_pushed_out_heals_with_its_next_packet() {
    let node = Node::new();
    node.tables.set_service(ifindex("w1p"), Mac([2, 7, 7, 7, 7, 7])).unwrap();
    node.tables.set_exposed(&[(WorkloadId(1), 8080, 6)].into()).unwrap();
    let asks = |number: u32| {
        let edge = format!("10.2.{}.1", number >> 14);
        let port = 20_000 + (number & 0x3fff) as u16;
        let frame = into(&plain(&edge, HANDLE4, TCP, &tcp(port, 8080, ACK)));
        (frame, out(&plain(OWN4, &edge, TCP, &tcp(8080, port, ACK))))
    };
    let (first, answer) = asks(0);
    assert_eq!(node.serves(&first), Edge);
    // An entry that was looked at counts as young.
    for number in 1..140_000 {
        node.tables.try_frame(Program::FromService, &asks(number).0, 0, 0).unwrap();
    }
    assert_eq!(node.sends(&answer), DeniedByDefault, "pushed out, it is an ordinary packet");
    assert_eq!(node.serves(&first), Edge);
    assert_eq!(node.sends(&answer), Edge, "healed");
}

#[test]
fn fragments_whose_first_was_pushed_out_are_dropped() {
    let node = Node::new();
    let piece = |id: u16, source: &str, at: (u16, bool)| {
        let knobs = Knobs { id, fragment: Some(at), ..Knobs::default() };
        out(&packet(source, FAR4, UDP, knobs, &[&udp(4000, 5000)[..], &[0; 52]].concat()))
    };
    assert_eq!(node.sends(&piece(7, OWN4, (0, true))), AllowedByCidr);
    let later = piece(7, OWN4, (64, false));
    for id in 100..60_100 {
        node.tables.try_frame(Program::FromWorkload, &piece(id, OWN4, (0, true)), node.device, 0).unwrap();
    }
    assert!(entries(&node, "fragments") <= 16_384);
    assert_eq!(node.sends(&later), FragmentUnknown);
    assert_eq!(node.sends(&piece(7, OWN4, (0, true))), KnownFlow, "the flow itself is where it was");
    assert_eq!(node.sends(&later), KnownFlow);
}
