//! Traffic of a namespace: one attempt at a target, open connections, echo servers.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::namespace::Namespace;
use crate::sys::socket;
use crate::wait::{patience, wait_for};

/// How long an answer may take that must come.
pub const MUST_COME: Duration = Duration::from_secs(5);
/// How long nothing must come for an attempt to count as silent; shorter than a SYN's first retransmission.
pub const STAYS_AWAY: Duration = Duration::from_millis(500);

/// Something to be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A TCP connection.
    Tcp(SocketAddr),
    /// A datagram that is echoed.
    Udp(SocketAddr),
    /// An ICMP or ICMPv6 echo.
    Ping(IpAddr),
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The target answered.
    Reached,
    /// A reset, or ICMP's "port unreachable" or "no route", came back.
    Refused,
    /// ICMP's "host unreachable" or "administratively prohibited" came back.
    Prohibited,
    /// Nothing came back.
    Silent,
}

impl Target {
    /// From `tcp`, `udp` or `ping`, an address, and a port that `ping` leaves unread.
    pub fn new(protocol: &str, address: IpAddr, port: u16) -> Self {
        match protocol {
            "tcp" => Self::Tcp((address, port).into()),
            "udp" => Self::Udp((address, port).into()),
            "ping" => Self::Ping(address),
            other => panic!("no such protocol: {other}"),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(to) => write!(f, "tcp {to}"),
            Self::Udp(to) => write!(f, "udp {to}"),
            Self::Ping(to) => write!(f, "ping {to}"),
        }
    }
}

impl Namespace {
    /// Tries a target once, waiting that long (stretched by [`patience`]).
    pub fn attempt(&self, target: Target, bound: Duration) -> Outcome {
        self.attempt_within(target, bound * patience())
    }

    fn attempt_within(&self, target: Target, bound: Duration) -> Outcome {
        self.enter(|| match target {
            Target::Tcp(to) => outcome(TcpStream::connect_timeout(&to, bound)),
            Target::Udp(to) => exchange(&udp(to), b"tidegate", bound),
            Target::Ping(to) => {
                exchange(&echo_socket(to), &[if to.is_ipv4() { 8 } else { 128 }, 0, 0, 0, 0, 0, 0, 1], bound)
            }
        })
    }

    /// Whether somebody inside accepts TCP connections at this own address.
    pub fn listens(&self, at: SocketAddr) -> bool {
        self.enter(|| TcpStream::connect_timeout(&at, Duration::from_millis(500) * patience()).is_ok())
    }

    /// Panics unless the target answers.
    #[track_caller]
    pub fn must_reach(&self, target: Target) {
        let seen = self.attempt(target, MUST_COME);
        assert_eq!(seen, Outcome::Reached, "{} to {target}", self.name());
    }

    /// Panics if the target answers. That an attempt is denied may be told: by a reset, or as prohibited.
    #[track_caller]
    pub fn must_not_reach(&self, target: Target) {
        let seen = self.denied(target);
        let reset = matches!(target, Target::Tcp(_)) && seen == Outcome::Refused;
        assert!(
            reset || matches!(seen, Outcome::Silent | Outcome::Prohibited),
            "{} to {target}: {seen:?}",
            self.name()
        );
    }

    /// Panics unless it is told at once that the attempt is denied.
    #[track_caller]
    pub fn must_be_told(&self, target: Target) {
        let told = if matches!(target, Target::Tcp(_)) { Outcome::Refused } else { Outcome::Prohibited };
        assert_eq!(self.attempt(target, MUST_COME), told, "{} to {target}", self.name());
    }

    /// Panics unless the attempt stays without any answer.
    #[track_caller]
    pub fn must_hear_nothing(&self, target: Target) {
        assert_eq!(self.denied(target), Outcome::Silent, "{} to {target}", self.name());
    }

    /// What never comes is waited for in full each time: twice as long is enough for a slow machine.
    fn denied(&self, target: Target) -> Outcome {
        self.attempt_within(target, STAYS_AWAY * patience().min(2))
    }

    /// Opens a connection to an echo server that stays open.
    #[track_caller]
    pub fn open(&self, to: SocketAddr) -> Connection {
        let stream = self.enter(|| TcpStream::connect_timeout(&to, MUST_COME * patience()));
        let stream = stream.unwrap_or_else(|error| panic!("{} to tcp {to}: {error}", self.name()));
        stream.set_nodelay(true).expect("TCP_NODELAY");
        Connection { stream, sent: 0 }
    }

    /// A socket that `bind` makes inside. One that was closed there may be held for a moment still, by a command that
    /// another test of this process just starts: until the address is free, it is tried again.
    #[track_caller]
    pub fn bound<S: Send>(&self, bind: impl Fn() -> io::Result<S> + Sync) -> S {
        let what = format!("{}: the address is free", self.name());
        wait_for(&what, MUST_COME, || match self.enter(&bind) {
            Ok(socket) => Some(socket),
            Err(error) if error.kind() == ErrorKind::AddrInUse => None,
            Err(error) => panic!("{}: no socket: {error}", self.name()),
        })
    }

    /// Starts an echo server on these addresses, for TCP and for UDP.
    #[track_caller]
    pub fn echo_server(&self, addresses: &[SocketAddr]) -> EchoServer {
        let stop = Arc::new(AtomicBool::new(false));
        for address in addresses {
            let tcp = self.bound(|| TcpListener::bind(address));
            let udp = self.bound(|| UdpSocket::bind(address));
            let (stop_tcp, stop_udp) = (Arc::clone(&stop), Arc::clone(&stop));
            thread::spawn(move || accept(&tcp, &stop_tcp));
            thread::spawn(move || echo_datagrams(&udp, &stop_udp));
        }
        EchoServer { stop }
    }
}

/// Echo servers; they end when dropped.
#[derive(Debug)]
pub struct EchoServer {
    stop: Arc<AtomicBool>,
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// An open TCP connection to an echo server.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    sent: u64,
}

impl Connection {
    /// Sends a word and waits for its echo; whether it came. After a `false` the connection counts as cut.
    pub fn echoes_within(&mut self, bound: Duration) -> bool {
        self.sent += 1;
        let word = self.sent.to_be_bytes();
        self.stream.set_read_timeout(Some(bound * patience())).expect("a read timeout");
        let mut back = [0u8; 8];
        self.stream.write_all(&word).is_ok() && self.stream.read_exact(&mut back).is_ok() && back == word
    }

    /// Panics unless a word comes back.
    #[track_caller]
    pub fn must_echo(&mut self) {
        assert!(self.echoes_within(MUST_COME), "an open connection does not echo: {:?}", self.stream);
    }

    /// The stream itself.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }
}

fn outcome<T>(result: std::io::Result<T>) -> Outcome {
    match result {
        Ok(_) => Outcome::Reached,
        Err(error) if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => Outcome::Silent,
        Err(error) => match error.kind() {
            ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset | ErrorKind::NetworkUnreachable => {
                Outcome::Refused
            }
            ErrorKind::HostUnreachable | ErrorKind::PermissionDenied => Outcome::Prohibited,
            _ => panic!("an attempt could not be made: {error}"),
        },
    }
}

/// A connected datagram socket; where the address cannot be routed at all, the send fails as the connect would.
fn udp(to: SocketAddr) -> std::io::Result<UdpSocket> {
    let any = any_like(to.ip());
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(to)?;
    Ok(socket)
}

fn echo_socket(to: IpAddr) -> std::io::Result<UdpSocket> {
    std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647")?;
    let socket = socket::icmp_echo(to.is_ipv6())?;
    socket.connect((to, 0))?;
    Ok(socket)
}

fn exchange(socket: &std::io::Result<UdpSocket>, message: &[u8], bound: Duration) -> Outcome {
    let socket = match socket {
        Ok(socket) => socket,
        Err(error) => return outcome::<()>(Err(std::io::Error::from(error.kind()))),
    };
    let end = Instant::now() + bound;
    socket.set_read_timeout(Some((bound / 3).max(Duration::from_millis(10)))).expect("a read timeout");
    loop {
        let answer = socket.send(message).and_then(|_| socket.recv(&mut [0u8; 1500]));
        match outcome(answer) {
            Outcome::Silent if Instant::now() < end => {}
            seen => return seen,
        }
    }
}

fn accept(listener: &TcpListener, stop: &Arc<AtomicBool>) {
    let bound = Duration::from_millis(200);
    listener.set_nonblocking(false).expect("a blocking listener");
    // accept(2) honours the receive timeout of its socket: the loop sees `stop` within that time.
    let socket = std::os::fd::AsFd::as_fd(listener).try_clone_to_owned().expect("the listener twice");
    TcpStream::from(socket).set_read_timeout(Some(bound)).expect("an accept timeout");
    while !stop.load(Ordering::Relaxed) {
        if let Ok((stream, _)) = listener.accept() {
            let stop = Arc::clone(stop);
            thread::spawn(move || echo_stream(stream, &stop));
        }
    }
}

fn echo_stream(mut stream: TcpStream, stop: &AtomicBool) {
    stream.set_read_timeout(Some(Duration::from_millis(200))).expect("a read timeout");
    let _nagle_stays = stream.set_nodelay(true);
    let mut buffer = [0u8; 4096];
    while !stop.load(Ordering::Relaxed) {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => {
                if stream.write_all(&buffer[..length]).is_err() {
                    return;
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => {}
            Err(_) => return,
        }
    }
}

fn echo_datagrams(socket: &UdpSocket, stop: &AtomicBool) {
    socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a read timeout");
    let mut buffer = [0u8; 2048];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let _nobody_there = socket.send_to(&buffer[..length], from);
        }
    }
}

/// The unspecified address of the same family.
pub fn any_like(address: IpAddr) -> IpAddr {
    if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}
