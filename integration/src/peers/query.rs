//! A DNS client of a few lines (RFC 1035), independent of the daemon's: for lookups that are followed at once by
//! something else, where starting `dig` would take too long.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use crate::namespace::Namespace;
use crate::traffic::any_like;
use crate::wait::patience;

const BOUND: Duration = Duration::from_secs(5);

/// The record type asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// IPv4 addresses.
    A = 1,
    /// IPv6 addresses.
    Aaaa = 28,
}

/// How the question is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// A datagram; a truncated answer is not asked again.
    Udp,
    /// A connection.
    Tcp,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// RFC 1035, section 4.1.1: 0 is no error, 2 server failure, 3 no such name.
    pub code: u8,
    /// TC: the answer did not fit.
    pub truncated: bool,
    /// Addresses in the answer section.
    pub addresses: Vec<IpAddr>,
    /// Length of the message in bytes.
    pub length: usize,
}

impl Namespace {
    /// Asks a server from inside; `None` when no answer came in time.
    pub fn ask(&self, server: IpAddr, name: &str, kind: Kind, carrier: Carrier) -> Option<Answer> {
        self.enter(|| ask(server, name, kind, carrier))
    }

    /// Asks by UDP and answers the first address; panics when there is none.
    #[track_caller]
    pub fn look_up(&self, server: IpAddr, name: &str, kind: Kind) -> IpAddr {
        let answer = self.ask(server, name, kind, Carrier::Udp);
        let first = answer.as_ref().and_then(|answer| answer.addresses.first().copied());
        first.unwrap_or_else(|| panic!("{}: {name} {kind:?} from {server}: {answer:?}", self.name()))
    }
}

/// As [`Namespace::ask`], on a thread that is inside already.
pub fn ask(server: IpAddr, name: &str, kind: Kind, carrier: Carrier) -> Option<Answer> {
    static ID: AtomicU16 = AtomicU16::new(1);
    let id = ID.fetch_add(1, Ordering::Relaxed);
    let question = question(id, name, kind);
    let to = SocketAddr::from((server, 53));
    let bytes = match carrier {
        Carrier::Udp => by_udp(to, &question),
        Carrier::Tcp => by_tcp(to, &question),
    };
    let answer = parse(&bytes?);
    (answer.0 == id).then_some(answer.1)
}

fn by_udp(to: SocketAddr, question: &[u8]) -> Option<Vec<u8>> {
    let any = any_like(to.ip());
    let socket = UdpSocket::bind((any, 0)).expect("a UDP socket");
    socket.connect(to).ok()?;
    socket.set_read_timeout(Some(BOUND * patience())).expect("a read timeout");
    socket.send(question).ok()?;
    let mut buffer = vec![0u8; 4096];
    let length = socket.recv(&mut buffer).ok()?;
    buffer.truncate(length);
    Some(buffer)
}

fn by_tcp(to: SocketAddr, question: &[u8]) -> Option<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&to, BOUND * patience()).ok()?;
    stream.set_read_timeout(Some(BOUND * patience())).expect("a read timeout");
    stream.write_all(&[&(question.len() as u16).to_be_bytes()[..], question].concat()).ok()?;
    let mut length = [0u8; 2];
    stream.read_exact(&mut length).ok()?;
    let mut bytes = vec![0u8; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut bytes).ok()?;
    Some(bytes)
}

/// The message that asks for a name, with an OPT record that offers 4096 bytes.
pub fn question(id: u16, name: &str, kind: Kind) -> Vec<u8> {
    let mut bytes = [&id.to_be_bytes()[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 1]].concat();
    for label in name.trim_end_matches('.').split('.') {
        bytes.push(label.len() as u8);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.extend_from_slice(&[0, 0, kind as u8, 0, 1]);
    // RFC 6891.
    bytes.extend_from_slice(&[0, 0, 41, 0x10, 0, 0, 0, 0, 0, 0, 0]);
    bytes
}

/// A message's id, and what it answers; panics where it is none.
pub fn parse(bytes: &[u8]) -> (u16, Answer) {
    let word = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let mut at = 12;
    for _question in 0..word(4) {
        at = after_name(bytes, at) + 4;
    }
    let mut addresses = Vec::new();
    for _record in 0..word(6) {
        at = after_name(bytes, at);
        let (kind, length) = (word(at), usize::from(word(at + 8)));
        let data = &bytes[at + 10..at + 10 + length];
        match kind {
            1 => addresses.push(IpAddr::from(<[u8; 4]>::try_from(data).expect("four bytes in an A record"))),
            28 => addresses.push(IpAddr::from(<[u8; 16]>::try_from(data).expect("sixteen bytes in an AAAA record"))),
            _ => {}
        }
        at += 10 + length;
    }
    (word(0), Answer { code: bytes[3] & 15, truncated: bytes[2] & 2 != 0, addresses, length: bytes.len() })
}

fn after_name(bytes: &[u8], mut at: usize) -> usize {
    loop {
        match bytes[at] {
            0 => return at + 1,
            length if length >= 0xc0 => return at + 2,
            length => at += usize::from(length) + 1,
        }
    }
}
