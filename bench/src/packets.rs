//! 64-byte packets (60 and the frame check) past the client's queueing, counted where the sink's device receives them.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use integration::frame::{ethernet, udp};
use integration::process::output_with_input;
use integration::sys::packet::{BURST, PacketSocket};

use crate::lane::{Lane, SINK, UDP_PORT};
use crate::report::Subject;

/// What is measured.
pub(crate) const SUBJECT: Subject =
    Subject { title: "64-byte packets a second", key: "packetsPerSecond", unit: 1e3, suffix: "k/s" };

/// Payload that makes 60 bytes with Ethernet, IPv4 and UDP headers.
const PAYLOAD: [u8; 18] = [0; 18];

/// Sends as many packets as the way takes; [`BURST`] flows.
pub(crate) struct Sender<'a> {
    lane: &'a Lane,
    socket: PacketSocket,
    frames: Vec<Vec<u8>>,
}

impl<'a> Sender<'a> {
    pub(crate) fn new(lane: &'a Lane) -> Self {
        let next_hop = lane.next_hop();
        let from = IpAddr::from(lane.address);
        let frame = |number: u16| {
            let packet = udp((from, 20_000 + number), (SINK.into(), UDP_PORT + number % 64), &PAYLOAD);
            ethernet(next_hop, lane.mac, 0x0800, &packet)
        };
        let frames: Vec<Vec<u8>> = (0..BURST as u16).map(frame).collect();
        assert!(frames.iter().all(|frame| frame.len() == 60));
        let socket =
            lane.client.enter(|| PacketSocket::open("eth0", false)).expect("a raw socket on the client's link");
        socket.bypass_queue().expect("PACKET_QDISC_BYPASS");
        drop_at_the_sink(lane);
        Self { lane, socket, frames }
    }

    /// Packets a second that arrived during one slice.
    pub(crate) fn slice(&self, slice: Duration) -> f64 {
        let before = self.lane.sink.received_frames("eth0");
        let begin = Instant::now();
        while begin.elapsed() < slice {
            // A full queue is what is being measured: the next burst tries again.
            let _sent = self.socket.send_burst(&self.frames);
        }
        let took = begin.elapsed().as_secs_f64();
        (self.lane.sink.received_frames("eth0") - before) as f64 / took
    }
}

/// Datagrams end at the sink's device, before its stack spends time on them.
fn drop_at_the_sink(lane: &Lane) {
    let rules = format!(
        "table netdev sink {{ chain ingress {{ type filter hook ingress device eth0 priority 0; \
         ip protocol udp udp dport {UDP_PORT}-{} drop; }}; }}",
        UDP_PORT + 63
    );
    let said = output_with_input(lane.sink.command("nft").args(["-f", "-"]), &rules);
    assert!(said.success(), "nft: {}", said.stderr);
}
