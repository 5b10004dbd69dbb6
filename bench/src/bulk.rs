//! One TCP connection that writes as fast as it can, counted where it is read.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::lane::{Lane, SINK, TCP_PORT};

const CHUNK: usize = 128 * 1024;
const CONNECT_BOUND: Duration = Duration::from_secs(5);

/// A connection from the lane's client to its sink.
pub(crate) struct Stream {
    stream: TcpStream,
    read: Arc<AtomicU64>,
}

impl Stream {
    pub(crate) fn open(lane: &Lane) -> Self {
        let listener = lane.sink.enter(|| TcpListener::bind((SINK, TCP_PORT))).expect("a listener in the sink");
        let read = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&read);
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("the client's connection");
            let mut buffer = vec![0u8; CHUNK];
            while let Ok(length @ 1..) = stream.read(&mut buffer) {
                counter.fetch_add(length as u64, Ordering::Relaxed);
            }
        });
        let stream = lane.client.enter(|| TcpStream::connect_timeout(&(SINK, TCP_PORT).into(), CONNECT_BOUND));
        let stream = stream.unwrap_or_else(|error| panic!("{}: {error}", lane.name));
        stream.set_write_timeout(Some(CONNECT_BOUND)).expect("a write timeout");
        Self { stream, read }
    }

    /// Bytes a second that were read during one slice.
    pub(crate) fn slice(&self, slice: Duration) -> f64 {
        let chunk = vec![0u8; CHUNK];
        let before = self.read.load(Ordering::Relaxed);
        let begin = Instant::now();
        while begin.elapsed() < slice {
            (&self.stream).write_all(&chunk).expect("the connection takes bytes");
        }
        let took = begin.elapsed().as_secs_f64();
        (self.read.load(Ordering::Relaxed) - before) as f64 / took
    }
}
