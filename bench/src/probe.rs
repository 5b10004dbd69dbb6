//! Since when a prefix is obeyed: a stream of datagrams, each with the time at which it was sent.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use integration::namespace::Namespace;
use integration::process::output;
use integration::site::Pod;

use crate::lane::UDP_PORT;

/// Between two datagrams: how fine the times are.
const EVERY: Duration = Duration::from_micros(250);

/// Datagrams of one flow, many a millisecond, each with the time at which it was sent.
pub(crate) struct Probe {
    begin: Instant,
    to: Arc<AtomicU32>,
    seen: Arc<Seen>,
    ended: Arc<AtomicBool>,
}

/// What arrived, by the time at which it was sent, nanoseconds.
#[derive(Default)]
struct Seen {
    last: AtomicU64,
    /// The first one not before `since`.
    first: AtomicU64,
    since: AtomicU64,
}

impl Probe {
    pub(crate) fn start(client: &Pod, sink: &Namespace) -> Self {
        sink.ip("route add local 100.64.0.0/16 dev lo");
        let (to, seen, ended) = (Arc::default(), Arc::default(), Arc::default());
        let own = Self { begin: Instant::now(), to, seen, ended };
        let receiver = sink.enter(|| UdpSocket::bind(("0.0.0.0", UDP_PORT))).expect("a socket in the sink");
        receiver.set_read_timeout(Some(Duration::from_millis(100))).expect("a deadline");
        let (seen, ended) = (Arc::clone(&own.seen), Arc::clone(&own.ended));
        thread::spawn(move || {
            let mut payload = [0; 8];
            while !ended.load(Ordering::Relaxed) {
                if let Ok((8, _)) = receiver.recv_from(&mut payload) {
                    let sent = u64::from_le_bytes(payload);
                    seen.last.fetch_max(sent, Ordering::SeqCst);
                    if sent >= seen.since.load(Ordering::SeqCst) {
                        seen.first.fetch_min(sent, Ordering::SeqCst);
                    }
                }
            }
        });
        let sender = client.enter(|| UdpSocket::bind("0.0.0.0:0")).expect("a socket of the workload");
        let (to, ended, begin) = (Arc::clone(&own.to), Arc::clone(&own.ended), own.begin);
        thread::spawn(move || {
            never_waits();
            while !ended.load(Ordering::Relaxed) {
                let to = SocketAddr::from((Ipv4Addr::from(to.load(Ordering::Relaxed)), UDP_PORT));
                // What is denied may come back as an error.
                let _refused = sender.send_to(&(begin.elapsed().as_nanos() as u64).to_le_bytes(), to);
                thread::park_timeout(EVERY);
            }
        });
        own
    }

    pub(crate) fn aim(&self, at: Ipv4Addr) {
        self.to.store(at.into(), Ordering::Relaxed);
    }

    pub(crate) fn now(&self) -> u64 {
        self.begin.elapsed().as_nanos() as u64
    }

    /// The time from which [`Self::first`] counts: now.
    pub(crate) fn watch(&self) -> u64 {
        let now = self.now();
        self.seen.since.store(now, Ordering::SeqCst);
        self.seen.first.store(u64::MAX, Ordering::SeqCst);
        now
    }

    /// When the first datagram since [`Self::watch`] was sent that arrived.
    pub(crate) fn first(&self) -> Option<u64> {
        Some(self.seen.first.load(Ordering::SeqCst)).filter(|sent| *sent < u64::MAX)
    }

    /// When the latest datagram that arrived was sent.
    pub(crate) fn last(&self) -> u64 {
        self.seen.last.load(Ordering::SeqCst)
    }
}

/// Gives the calling thread a CPU whenever it wants one (SCHED_FIFO): a gap between its datagrams would count as time that
/// the gateway took.
fn never_waits() {
    let own = fs::read_link("/proc/thread-self").expect("the thread's folder");
    let number = own.file_name().and_then(|name| name.to_str()).expect("its number").to_owned();
    let said = output(Command::new("chrt").args(["--fifo", "--pid", "1", &number]));
    assert!(said.success(), "chrt: {}", said.stderr);
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}
