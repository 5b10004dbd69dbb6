//! Bulk TCP from a workload's namespace to the far side, one stream, counted by the receiver.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::packets::Way;
use crate::sys;

/// The port that the receiver listens on.
pub(crate) const PORT: u16 = 5201;

/// A receiver that reads and forgets, and a sender that waits to be told when.
pub(crate) struct Stream {
    received: Arc<AtomicU64>,
    running: Arc<AtomicBool>,
    sender: thread::Thread,
}

impl Stream {
    /// Opens the connection; nothing is sent yet. The threads end with the process.
    pub(crate) fn open(way: &Way) -> io::Result<Self> {
        let received = Arc::new(AtomicU64::new(0));
        let running = Arc::new(AtomicBool::new(false));
        let listener = in_namespace(&way.server, || TcpListener::bind(("0.0.0.0", PORT)))?;
        let counter = Arc::clone(&received);
        thread::spawn(move || receive(&listener, &counter));
        let to = SocketAddr::from((way.to, PORT));
        let connection = in_namespace(&way.client, move || TcpStream::connect_timeout(&to, Duration::from_secs(5)))?;
        let go = Arc::clone(&running);
        let sender = thread::spawn(move || send(connection, &go)).thread().clone();
        Ok(Self { received, running, sender })
    }

    /// Sends for `length` and answers bytes received a second.
    pub(crate) fn slice(&self, length: Duration) -> f64 {
        let (start, before) = (Instant::now(), self.received.load(Ordering::Relaxed));
        self.running.store(true, Ordering::Release);
        self.sender.unpark();
        thread::park_timeout(length);
        self.running.store(false, Ordering::Release);
        (self.received.load(Ordering::Relaxed) - before) as f64 / start.elapsed().as_secs_f64()
    }
}

fn receive(listener: &TcpListener, received: &AtomicU64) -> io::Result<()> {
    let (mut connection, _) = listener.accept()?;
    let mut buffer = vec![0u8; 1 << 18];
    loop {
        match connection.read(&mut buffer)? {
            0 => return Ok(()),
            n => received.fetch_add(n as u64, Ordering::Relaxed),
        };
    }
}

fn send(mut connection: TcpStream, running: &AtomicBool) -> io::Result<()> {
    let buffer = vec![0u8; 1 << 18];
    loop {
        while !running.load(Ordering::Acquire) {
            thread::park();
        }
        connection.write_all(&buffer)?;
    }
}

fn in_namespace<T: Send + 'static>(path: &Path, work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    let path = path.to_owned();
    let thread = thread::spawn(move || sys::enter(&path).and_then(|()| work()));
    thread.join().map_err(|_| io::Error::other("a thread panicked"))?
}
