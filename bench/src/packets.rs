//! 64-byte packets (60 and the frame check) past the sender's queueing, counted where the other end's device receives
//! them: from the client to the sink, and the answers back.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use integration::frame::{ethernet, udp};
use integration::namespace::Namespace;
use integration::process::output_with_input;
use integration::sys::packet::{BURST, PacketSocket};
use integration::wait::wait_for;

use crate::lane::{Lane, SINK, UDP_PORT};
use crate::report::Subject;

/// From the client to the sink.
pub(crate) const OUT: Subject =
    Subject { title: "64-byte packets a second", key: "packetsPerSecond", unit: 1e3, suffix: "k/s" };
/// From the sink to the client, of the same flows.
pub(crate) const BACK: Subject =
    Subject { title: "64-byte answers a second", key: "answersPerSecond", unit: 1e3, suffix: "k/s" };

/// What the node adds to what [`OUT`] takes without one.
pub(crate) const ALONE: Subject = Subject {
    title: "forwarding alone: a 64-byte packet's time, without what sender and receiver take",
    key: "forwardingNs",
    unit: 1.0,
    suffix: "ns",
};

/// Payload that makes 60 bytes with Ethernet, IPv4 and UDP headers.
const PAYLOAD: [u8; 18] = [0; 18];

/// Sends as many packets as the way takes; [`BURST`] flows.
pub(crate) struct Sender<'a> {
    to: &'a Namespace,
    socket: PacketSocket,
    frames: Vec<Vec<u8>>,
}

impl<'a> Sender<'a> {
    /// From the client to the sink.
    pub(crate) fn out(lane: &'a Lane) -> Self {
        let next_hop = lane.next_hop();
        let frame = |number: u16| {
            let packet = udp((lane.address.into(), port(number)), (SINK.into(), UDP_PORT + number % 64), &PAYLOAD);
            ethernet(next_hop, lane.mac, 0x0800, &packet)
        };
        Self::new(&lane.client, &lane.sink, "dport", frame)
    }

    /// Answers to what [`Self::out`] sends; it must have sent shortly before.
    pub(crate) fn back(lane: &'a Lane) -> Self {
        let (next_hop, own) = lane.sinks_next_hop();
        let frame = |number: u16| {
            let packet = udp((SINK.into(), UDP_PORT + number % 64), (lane.address.into(), port(number)), &PAYLOAD);
            ethernet(next_hop, own, 0x0800, &packet)
        };
        Self::new(&lane.sink, &lane.client, "sport", frame)
    }

    /// Answers to what the node translates: to the addresses and ports that arrive.
    pub(crate) fn back_translated(lane: &'a Lane) -> Self {
        let (next_hop, own) = lane.sinks_next_hop();
        let clients_next_hop = lane.next_hop();
        let arrivals = lane.sink.enter(|| PacketSocket::open("eth0", true)).expect("a raw socket at the sink");
        let sender = lane.client.enter(|| PacketSocket::open("eth0", false)).expect("a raw socket at the client");
        let source = |number: u16| {
            let mut payload = PAYLOAD;
            payload[..2].copy_from_slice(&number.to_be_bytes());
            payload[2..].fill(0xa5);
            let to = (SINK.into(), UDP_PORT + number % 64);
            let packet = udp((lane.address.into(), port(number)), to, &payload);
            sender.send(&ethernet(clients_next_hop, lane.mac, 0x0800, &packet)).expect("one packet is sent");
            wait_for("the packet at the sink", Duration::from_secs(5), || {
                let frame = arrivals.receive(Duration::from_millis(500)).expect("the sink's link")?;
                let arrived = !frame.outgoing && frame.bytes.get(42..60) == Some(&payload[..]);
                arrived.then(|| {
                    let address = Ipv4Addr::new(frame.bytes[26], frame.bytes[27], frame.bytes[28], frame.bytes[29]);
                    (IpAddr::from(address), u16::from_be_bytes([frame.bytes[34], frame.bytes[35]]))
                })
            })
        };
        let frame = |number: u16| {
            let packet = udp((SINK.into(), UDP_PORT + number % 64), source(number), &PAYLOAD);
            ethernet(next_hop, own, 0x0800, &packet)
        };
        Self::new(&lane.sink, &lane.client, "sport", frame)
    }

    fn new(from: &Namespace, to: &'a Namespace, ports: &str, frame: impl Fn(u16) -> Vec<u8>) -> Self {
        let frames: Vec<Vec<u8>> = (0..BURST as u16).map(frame).collect();
        assert!(frames.iter().all(|frame| frame.len() == 60));
        let socket = from.enter(|| PacketSocket::open("eth0", false)).expect("a raw socket on the sender's link");
        socket.bypass_queue().expect("PACKET_QDISC_BYPASS");
        drop_on_arrival(to, ports);
        Self { to, socket, frames }
    }

    /// Packets a second that arrived during one slice.
    pub(crate) fn slice(&self, slice: Duration) -> f64 {
        let before = self.to.received_frames("eth0");
        let begin = Instant::now();
        while begin.elapsed() < slice {
            // A full queue is what is being measured: the next burst tries again.
            let _sent = self.socket.send_burst(&self.frames);
        }
        let took = begin.elapsed().as_secs_f64();
        (self.to.received_frames("eth0") - before) as f64 / took
    }
}

/// From rates, the last of them without a node: nanoseconds that each of the others adds, slice by slice.
pub(crate) fn alone(rates: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let Some((without, others)) = rates.split_last() else { return Vec::new() };
    let added = |lane: &Vec<f64>| lane.iter().zip(without).map(|(rate, without)| 1e9 / rate - 1e9 / without).collect();
    others.iter().map(added).collect()
}

/// The client's.
fn port(number: u16) -> u16 {
    20_000 + number
}

/// Datagrams end at the receiver's device, before its stack spends time on them.
pub(crate) fn drop_on_arrival(at: &Namespace, ports: &str) {
    let rules = format!(
        "table netdev arrival {{ chain ingress {{ type filter hook ingress device eth0 priority 0; \
         ip protocol udp udp {ports} {UDP_PORT}-{} drop; }}; }}",
        UDP_PORT + 63
    );
    let said = output_with_input(at.command("nft").args(["-f", "-"]), &rules);
    assert!(said.success(), "nft: {}", said.stderr);
}
