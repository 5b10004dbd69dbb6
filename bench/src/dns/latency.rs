//! One question at a time, for names that everybody keeps: until its answer is there.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use integration::peers::query::{self, Kind};

use super::ways::{KEPT, Way};
use super::without_first;
use crate::in_turns;
use crate::report::{Measurement, Subject};
use crate::statistics::quantile;

const MIDDLE: Subject = Subject {
    title: "from a question until its answer, of a name that is kept: p50 of each turn",
    key: "keptLookupP50Us",
    unit: 1.0,
    suffix: "µs",
};
const LONGEST: Subject = Subject { title: "the same, p99 of each turn", key: "keptLookupP99Us", ..MIDDLE };
const BOUND: Duration = Duration::from_secs(5);

/// The median and the 99th hundredth of each turn.
pub(super) fn measure(ways: [&Way; 3], slices: u32, slice: Duration) -> [Measurement; 2] {
    let names = ways.map(|way| way.name);
    let mut longest = vec![Vec::new(); ways.len()];
    let middle = in_turns(slices, ways.len(), |turn| {
        let times = times(ways[turn], slice);
        longest[turn].push(quantile(&times, 0.99));
        quantile(&times, 0.5)
    });
    [Measurement::new(MIDDLE, &names, &middle), Measurement::new(LONGEST, &names, &without_first(&longest))]
}

/// Microseconds of each lookup during one slice.
fn times(way: &Way, slice: Duration) -> Vec<f64> {
    let questions: Vec<Vec<u8>> =
        (0..KEPT).map(|number| query::question(number as u16, &format!("n{number}.example.com"), Kind::A)).collect();
    let (mut times, mut buffer) = (Vec::with_capacity(1 << 16), [0; 512]);
    let socket = way.lane.client.enter(|| UdpSocket::bind(("0.0.0.0", 0))).expect("a UDP socket");
    socket.connect((way.server, 53)).expect("the server's address");
    socket.set_read_timeout(Some(BOUND)).expect("a read timeout");
    let begin = Instant::now();
    for question in questions.iter().cycle() {
        let asked = Instant::now();
        if asked - begin > slice {
            break;
        }
        socket.send(question).unwrap_or_else(|error| panic!("{}: {error}", way.name));
        let length = socket.recv(&mut buffer).unwrap_or_else(|error| panic!("{}: {error}", way.name));
        times.push(asked.elapsed().as_secs_f64() * 1e6);
        let (id, answer) = query::parse(&buffer[..length]);
        assert!(
            question[..2] == id.to_be_bytes() && answer.code == 0 && answer.addresses.len() == 1,
            "{}: {answer:?}",
            way.name
        );
    }
    times
}
