//! A DNS server of a few lines for names that no zone file could hold: all of their addresses are counted out.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use crate::namespace::Namespace;

const HEADER: usize = 12;
const A: [u8; 2] = [0, 1];

/// Starts it on port 53 of an address inside; it answers every question for A records with the `each` addresses that come
/// next in `block`, over and over, and all others with none. It lives as long as this process.
pub fn count_out(inside: &Namespace, at: IpAddr, block: Range<Ipv4Addr>, each: u32, ttl: u32) {
    let socket = inside.enter(|| UdpSocket::bind(SocketAddr::new(at, 53))).expect("a socket of a DNS server");
    let next = AtomicU32::new(0);
    thread::spawn(move || {
        let mut buffer = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let first = next.fetch_add(each, Ordering::Relaxed);
            if let Some(answer) = answer(&buffer[..length], &block, first..first + each, ttl) {
                let _gone_already = socket.send_to(&answer, from);
            }
        }
    });
}

/// RFC 1035, 4.1: records whose names point to the question's.
fn answer(question: &[u8], block: &Range<Ipv4Addr>, numbers: Range<u32>, ttl: u32) -> Option<Vec<u8>> {
    let name = question.get(HEADER..)?.iter().position(|byte| *byte == 0)?;
    let asked = question.get(HEADER..HEADER + name + 5)?;
    let (first, size) = (block.start.to_bits(), block.end.to_bits() - block.start.to_bits());
    let numbers = if asked[name + 1..name + 3] == A { numbers } else { 0..0 };
    let count = numbers.len() as u8;
    let mut bytes = [&question[..2], &[0x85, 0x80, 0, 1, 0, count, 0, 0, 0, 0], asked].concat();
    for number in numbers {
        bytes.extend([0xc0, HEADER as u8, 0, 1, 0, 1]);
        bytes.extend(ttl.to_be_bytes());
        bytes.extend([0, 4]);
        bytes.extend(Ipv4Addr::from_bits(first + number % size).octets());
    }
    Some(bytes)
}
