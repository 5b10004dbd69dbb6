//! One question at a time until its answer is there: for names that everybody keeps, and for names that are new, at an address
//! that very many names lead to and at others.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use integration::peers::query::{self, Kind};

use super::load;
use super::ways::{KEPT, Way, ZONES};
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
const NEW_MIDDLE: Subject = Subject {
    title: "from a question until its answer, of a new name: p50 of each turn",
    key: "newLookupP50Us",
    ..MIDDLE
};
const NEW_LONGEST: Subject = Subject { title: "the same, p99 of each turn", key: "newLookupP99Us", ..MIDDLE };
/// Names at the address of the first zone.
const CROWD: u32 = 160_000;
const BOUND: Duration = Duration::from_secs(5);

/// The median and the 99th hundredth of each turn.
pub(super) fn measure(ways: [&Way; 3], slices: u32, slice: Duration) -> [Measurement; 2] {
    in_both(slices, [MIDDLE, LONGEST], ways.map(|way| way.name), |turn| {
        let names = (0..KEPT).cycle().map(|number| format!("n{number}.example.com"));
        times(ways[turn], slice, names)
    })
}

/// The same for new names, by one way.
pub(super) fn measure_new(way: &Way, slices: u32, slice: Duration) -> [Measurement; 2] {
    let crowd: String = (0..CROWD).map(|number| format!("n{number}.z0.many.example.com A\n")).collect();
    load::learn(way, &crowd);
    let mut asked = 0;
    in_both(slices, [NEW_MIDDLE, NEW_LONGEST], ["an address of its own", "one of 160 000 names"], |turn| {
        let names = std::iter::repeat_with(|| {
            asked += 1;
            let zone = if turn == 0 { 1 + asked % (ZONES - 1) } else { 0 };
            format!("single{asked}.z{zone}.many.example.com")
        });
        times(way, slice, names)
    })
}

fn in_both<const N: usize>(
    slices: u32,
    subjects: [Subject; 2],
    names: [&'static str; N],
    mut times: impl FnMut(usize) -> Vec<f64>,
) -> [Measurement; 2] {
    let mut longest = vec![Vec::new(); N];
    let middle = in_turns(slices, N, |turn| {
        let times = times(turn);
        longest[turn].push(quantile(&times, 0.99));
        quantile(&times, 0.5)
    });
    let [of_middle, of_longest] = subjects;
    [Measurement::new(of_middle, &names, &middle), Measurement::new(of_longest, &names, &without_first(&longest))]
}

/// Microseconds of each lookup during one slice.
fn times(way: &Way, slice: Duration, names: impl Iterator<Item = String>) -> Vec<f64> {
    let (mut times, mut buffer) = (Vec::with_capacity(1 << 16), [0; 512]);
    let socket = way.lane.client.enter(|| UdpSocket::bind(("0.0.0.0", 0))).expect("a UDP socket");
    socket.connect((way.server, 53)).expect("the server's address");
    socket.set_read_timeout(Some(BOUND)).expect("a read timeout");
    let begin = Instant::now();
    for (number, name) in names.enumerate() {
        let question = query::question(number as u16, &name, Kind::A);
        let asked = Instant::now();
        if asked - begin > slice {
            break;
        }
        socket.send(&question).unwrap_or_else(|error| panic!("{}: {error}", way.name));
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
