//! What a flood of denied packets costs everybody else: allowed packets a second of one workload, alone and while another
//! one sends what is denied as fast as it can, from another thread.
//! Part of the loss is what two senders on two CPUs take from each other anyway.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use integration::frame::{Mac, ethernet, udp};
use integration::site::Pod;
use integration::sys::packet::{BURST, PacketSocket};

use crate::lane::{Lane, SINK};
use crate::report::Subject;

/// What is measured.
pub(crate) const SUBJECT: Subject = Subject {
    title: "64-byte packets a second beside a flood of denied ones",
    key: "packetsBesideFlood",
    unit: 1e3,
    suffix: "k/s",
};
/// Alone, and beside the flood.
pub(crate) const LANES: [&str; 2] = ["alone", "beside flood"];

const DENIED_PORT: u16 = 7;

/// Another workload of the lane, that floods.
pub(crate) struct Flood {
    socket: PacketSocket,
    frames: Vec<Vec<u8>>,
    sent: AtomicU64,
    took: AtomicU64,
}

impl Flood {
    /// From this workload to what the lane's rules deny.
    pub(crate) fn new(lane: &Lane, from: &Pod) -> Self {
        Self::of(from, lane.next_hop(), 20_000, DENIED_PORT, &[0; 18])
    }

    /// From [`BURST`] ports of this workload, of which this is the first, to a port of the sink.
    pub(crate) fn of(from: &Pod, hop: Mac, first: u16, port: u16, payload: &[u8]) -> Self {
        let frame = |number: u16| {
            let packet = udp((from.v4.into(), first + number), (SINK.into(), port), payload);
            ethernet(hop, from.mac, 0x0800, &packet)
        };
        let socket = from.enter(|| PacketSocket::open("eth0", false)).expect("a raw socket on the sender's link");
        socket.bypass_queue().expect("PACKET_QDISC_BYPASS");
        Self {
            socket,
            frames: (0..BURST as u16).map(frame).collect(),
            sent: AtomicU64::new(0),
            took: AtomicU64::new(0),
        }
    }

    /// Works while the flood runs.
    pub(crate) fn beside<R>(&self, work: impl FnOnce() -> R) -> R {
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let begin = Instant::now();
                let mut sent = 0;
                while !over.load(Ordering::Relaxed) {
                    sent += self.socket.send_burst(&self.frames).unwrap_or(0) as u64;
                }
                self.sent.fetch_add(sent, Ordering::Relaxed);
                self.took.fetch_add(begin.elapsed().as_micros() as u64, Ordering::Relaxed);
            });
            let done = work();
            over.store(true, Ordering::Relaxed);
            done
        })
    }

    /// Packets a second, over all slices.
    pub(crate) fn rate(&self) -> f64 {
        self.sent.load(Ordering::Relaxed) as f64 / (self.took.load(Ordering::Relaxed).max(1) as f64 / 1e6)
    }
}
