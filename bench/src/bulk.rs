//! TCP connections that write as fast as they can, counted where they are read.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::lane::{BULK_PORT, Lane, SINK};
use crate::report::Subject;

/// What is measured, and with how many connections.
pub(crate) const SUBJECTS: [(Subject, usize); 2] = [
    (Subject { title: "bulk TCP, one connection", key: "bulkBytesPerSecond", unit: 1e6, suffix: "MB/s" }, 1),
    (Subject { title: "bulk TCP, eight connections", key: "bulkBytesPerSecond8", unit: 1e6, suffix: "MB/s" }, 8),
];

const CHUNK: usize = 128 * 1024;
const PAGE: usize = 4096;
const CONNECT_BOUND: Duration = Duration::from_secs(5);

/// Connections from the lane's client to its sink.
pub(crate) struct Streams {
    streams: Vec<TcpStream>,
    read: Arc<AtomicU64>,
}

impl Streams {
    pub(crate) fn open(lane: &Lane, connections: usize) -> Self {
        let listener = lane.sink.enter(|| TcpListener::bind((SINK, BULK_PORT))).expect("a listener in the sink");
        let read = Arc::new(AtomicU64::new(0));
        let open = || {
            let stream = lane.client.enter(|| TcpStream::connect_timeout(&(SINK, BULK_PORT).into(), CONNECT_BOUND));
            let stream = stream.unwrap_or_else(|error| panic!("{}: {error}", lane.name));
            stream.set_write_timeout(Some(CONNECT_BOUND)).expect("a write timeout");
            let (accepted, _) = listener.accept().expect("the client's connection");
            let counter = Arc::clone(&read);
            thread::spawn(move || count(accepted, &counter));
            stream
        };
        Self { streams: (0..connections).map(|_| open()).collect(), read }
    }

    /// Bytes a second that were read during one slice.
    pub(crate) fn slice(&self, slice: Duration) -> f64 {
        let before = self.read.load(Ordering::Relaxed);
        let begin = Instant::now();
        thread::scope(|scope| {
            for mut stream in &self.streams {
                scope.spawn(move || {
                    let mut memory = Vec::new();
                    let chunk = pages(&mut memory);
                    while begin.elapsed() < slice {
                        stream.write_all(chunk).expect("the connection takes bytes");
                    }
                });
            }
        });
        let took = begin.elapsed().as_secs_f64();
        (self.read.load(Ordering::Relaxed) - before) as f64 / took
    }
}

fn count(mut stream: TcpStream, counter: &AtomicU64) {
    let mut memory = Vec::new();
    let chunk = pages(&mut memory);
    while let Ok(length @ 1..) = stream.read(chunk) {
        counter.fetch_add(length as u64, Ordering::Relaxed);
    }
}

/// Whole pages of memory that have been written to. What an allocator gives to the threads of one lane may lie worse than what
/// those of another got, and copying costs more than all else here: whichever lane came third had half of the others' rate.
pub(crate) fn pages(memory: &mut Vec<u8>) -> &mut [u8] {
    memory.resize(CHUNK + PAGE, 1);
    let start = memory.as_ptr().align_offset(PAGE);
    &mut memory[start..start + CHUNK]
}
