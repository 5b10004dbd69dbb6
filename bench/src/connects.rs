//! TCP connections that are opened and closed, one after the other.
//!
//! The client closes with a RST (`SO_LINGER` 0), so that its ports are free again at once and the sink keeps nothing. One
//! thread has both ends: a thread that accepted would have to be woken for each, which takes as long as the connection itself.

use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

use integration::namespace::Namespace;
use integration::sys::socket::connect_resetting;

use crate::lane::{Lane, SINK, TCP_PORT};
use crate::report::Subject;

/// What is measured.
pub(crate) const SUBJECT: Subject =
    Subject { title: "new TCP connections a second", key: "connectionsPerSecond", unit: 1e3, suffix: "k/s" };

/// What the node adds to what [`SUBJECT`] takes without one.
pub(crate) const ALONE: Subject = Subject {
    title: "forwarding alone: a connection's time, without what client and server take",
    key: "connectionForwardingUs",
    unit: 1e3,
    suffix: "µs",
};

/// Opens connections from a lane's client to its sink.
pub(crate) struct Client<'a> {
    lane: &'a Lane,
    listener: TcpListener,
}

/// Accepts connections in a sink, and closes them.
pub(crate) fn listen(sink: &Namespace) {
    let listener = sink.enter(|| TcpListener::bind((SINK, TCP_PORT))).expect("a listener in the sink");
    thread::spawn(move || listener.incoming().for_each(drop));
}

impl<'a> Client<'a> {
    pub(crate) fn new(lane: &'a Lane) -> Self {
        let listener = lane.sink.enter(|| TcpListener::bind((SINK, TCP_PORT))).expect("a listener in the sink");
        Self { lane, listener }
    }

    /// Connections a second during one slice.
    pub(crate) fn slice(&self, slice: Duration) -> f64 {
        let to = SocketAddr::from((SINK, TCP_PORT));
        let (opened, took) = self.lane.client.enter(|| {
            let begin = Instant::now();
            let mut opened = 0u32;
            while begin.elapsed() < slice {
                let opening = connect_resetting(to).unwrap_or_else(|error| panic!("{}: {error}", self.lane.name));
                let accepted = self.listener.accept().expect("the client's connection");
                drop((opening, accepted));
                opened += 1;
            }
            (opened, begin.elapsed().as_secs_f64())
        });
        f64::from(opened) / took
    }
}
