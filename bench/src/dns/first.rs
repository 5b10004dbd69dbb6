//! A connection at once behind each lookup, to an address that nobody looked up before: were the answer faster than the
//! kernel's knowledge of the address, the SYN would be dropped, and be sent again.
//!
//! Two workloads ask at the same time, each from a thread that also accepts a connection for each that it opens. Names are
//! `n<i>.example.com`; instead of `unbound` a thread in the sink answers each with an address of its own, for a second.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use integration::manifests::policy;
use integration::namespace::Namespace;
use integration::peers::query::{self, Kind};
use integration::sys::socket::connect_resetting;
use integration::traffic::Target;

use super::ways::{self, address, own_addresses};
use crate::lane::{Gateway, Lane, SINK, TCP_PORT};
use crate::report::{Measurement, Subject};

const AGAIN: Subject = Subject {
    title: "SYNs sent again, of first connections to addresses that were answered just before",
    key: "firstConnectSynsSentAgain",
    unit: 1.0,
    suffix: "",
};
const LOOKUPS: Subject =
    Subject { title: "lookups, each with its connection", key: "firstConnectLookups", unit: 1.0, suffix: "" };
const BOUND: Duration = Duration::from_secs(5);
const HEADER: usize = 12;

/// Counts in so many lookups; also a line for people.
pub(super) fn measure(lookups: u32) -> ([Measurement; 2], String) {
    let gateway = Gateway::start_with(ways::SUBNETS, "None", ways::LIMITS);
    own_addresses(&gateway.sink);
    let names = gateway.sink.enter(|| UdpSocket::bind((SINK, 53))).expect("a socket of a DNS server");
    thread::spawn(move || answer_all(&names));
    let lane = Lane::of(gateway, &policy("bench", "names", &ways::rules()));
    let other = lane.another("other");
    let workloads: [&Namespace; 2] = [&lane.client, &other];
    // An address that no lookup gave is closed, or the count would say nothing.
    let unasked = Target::Tcp((address(lookups), TCP_PORT).into());
    workloads.iter().for_each(|workload| workload.must_not_reach(unasked));
    let listener = lane.sink.enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, TCP_PORT)));
    let listener = &listener.expect("a listener in the sink");
    let (before, begin) = (workloads.map(sent_again), Instant::now());
    let half = lookups / 2;
    thread::scope(|scope| {
        for (workload, first) in workloads.into_iter().zip([0, half]) {
            scope.spawn(move || workload.enter(|| connect_to_each(first..first + half, listener)));
        }
    });
    let took = begin.elapsed().as_secs_f64();
    let again: u64 = workloads.map(sent_again).iter().zip(before).map(|(after, before)| after - before).sum();
    let lookups = half * 2;
    let note = format!(
        "first connections: {again} SYNs sent again in {lookups} lookups of two workloads, {:.0} a second",
        f64::from(lookups) / took
    );
    let one = |subject, value| Measurement::new(subject, &["Tidegate"], &[vec![value]]);
    ([one(AGAIN, again as f64), one(LOOKUPS, f64::from(lookups))], note)
}

/// Segments that this namespace sent again; here there are no others than SYNs.
fn sent_again(workload: &Namespace) -> u64 {
    workload.counter("Tcp", "RetransSegs").max(workload.counter("TcpExt", "TCPSynRetrans"))
}

/// On a thread inside a workload.
fn connect_to_each(numbers: std::ops::Range<u32>, listener: &TcpListener) {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a UDP socket");
    socket.connect((SINK, 53)).expect("the server's address");
    socket.set_read_timeout(Some(BOUND)).expect("a read timeout");
    let mut buffer = [0; 512];
    for number in numbers {
        let question = query::question(number as u16, &format!("n{number}.example.com"), Kind::A);
        socket.send(&question).unwrap_or_else(|error| panic!("lookup {number}: {error}"));
        let length = socket.recv(&mut buffer).unwrap_or_else(|error| panic!("lookup {number}: {error}"));
        let (id, answer) = query::parse(&buffer[..length]);
        let expected = IpAddr::from(address(number));
        assert!(id == number as u16 && answer.addresses == [expected], "lookup {number}: {answer:?}");
        let opening = connect_resetting(SocketAddr::new(expected, TCP_PORT));
        let opening = opening.unwrap_or_else(|error| panic!("connection {number}: {error}"));
        // It may be the other thread's, which then accepts this one.
        drop((listener.accept().expect("a client's connection"), opening));
    }
}

/// Answers every question with the address of the name's number.
fn answer_all(socket: &UdpSocket) {
    let mut buffer = [0; 512];
    while let Ok((length, from)) = socket.recv_from(&mut buffer) {
        let answer = answer(&buffer[..length]).expect("a question for a name with a number");
        socket.send_to(&answer, from).expect("the node's question is answered");
    }
}

/// RFC 1035, 4.1: one A record, whose name points to the question's.
fn answer(question: &[u8]) -> Option<Vec<u8>> {
    let label = question.get(HEADER + 1..)?.get(1..usize::from(*question.get(HEADER)?))?;
    let number: u32 = str::from_utf8(label).ok()?.parse().ok()?;
    let name = question[HEADER..].iter().position(|byte| *byte == 0)?;
    // Behind the name stand type and class.
    let asked = question.get(HEADER..HEADER + name + 5)?;
    let header = [&question[..2], &[0x85, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]].concat();
    let record = [0xc0, HEADER as u8, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4];
    Some([&header, asked, &record, &address(number).octets()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_answered_with_the_address_of_its_number() {
        let question = query::question(7, "N70000.example.com", Kind::A);
        let (id, answer) = query::parse(&answer(&question).unwrap());
        assert_eq!((id, answer.code, answer.addresses), (7, 0, vec![IpAddr::from([100, 65, 17, 112])]));
    }
}
