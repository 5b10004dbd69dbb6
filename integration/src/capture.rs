//! What passes an interface, taken from a raw socket on a thread of its own.
//!
//! Bound: [`LIMIT`] frames are kept; a capture that would keep more panics when it is read.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::frame::holds;
use crate::namespace::Namespace;
use crate::sys::packet::{PacketSocket, Received};
use crate::wait::{happens_within, wait_until};

/// Frames that a capture keeps.
pub const LIMIT: usize = 200_000;

/// A running capture; it ends when dropped.
#[derive(Debug)]
pub struct Capture {
    frames: Arc<Mutex<Vec<Received>>>,
    stop: Arc<AtomicBool>,
    place: String,
}

impl Capture {
    /// Begins on that interface. Frames from now on are seen.
    #[track_caller]
    pub fn start(namespace: &Namespace, interface: &str) -> Self {
        let place = format!("{} {interface}", namespace.name());
        let socket = namespace.enter(|| PacketSocket::open(interface, true));
        let socket = socket.unwrap_or_else(|error| panic!("capture on {place}: {error}"));
        let (frames, stop) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let (into, until) = (Arc::clone(&frames), Arc::clone(&stop));
        thread::spawn(move || collect(&socket, &into, &until));
        Self { frames, stop, place }
    }

    /// All frames so far.
    pub fn frames(&self) -> Vec<Received> {
        let frames = self.frames.lock().unwrap_or_else(PoisonError::into_inner).clone();
        assert!(frames.len() < LIMIT, "capture on {}: more than {LIMIT} frames", self.place);
        frames
    }

    /// How many frames so far hold the marker.
    pub fn count(&self, marker: &[u8]) -> usize {
        self.frames().iter().filter(|frame| holds(&frame.bytes, marker)).count()
    }

    /// Waits for a frame with the marker.
    #[track_caller]
    pub fn must_see(&self, marker: &[u8]) {
        let what = format!("{}: a frame with {:?}", self.place, String::from_utf8_lossy(marker));
        wait_until(&what, Duration::from_secs(5), || self.count(marker) > 0);
    }

    /// Panics if a frame with the marker comes within `bound`.
    #[track_caller]
    pub fn must_not_see(&self, marker: &[u8], bound: Duration) {
        let seen = happens_within(bound, || self.count(marker) > 0);
        assert!(!seen, "{}: a frame with {:?} came", self.place, String::from_utf8_lossy(marker));
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn collect(socket: &PacketSocket, into: &Mutex<Vec<Received>>, until: &AtomicBool) {
    while !until.load(Ordering::Relaxed) {
        match socket.receive(Duration::from_millis(100)) {
            Ok(Some(frame)) => {
                let mut frames = into.lock().unwrap_or_else(PoisonError::into_inner);
                if frames.len() < LIMIT {
                    frames.push(frame);
                }
            }
            Ok(None) => {}
            Err(_interface_gone) => return,
        }
    }
}
