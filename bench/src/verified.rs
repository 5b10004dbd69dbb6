//! Connections whose first bytes must name an allowed host: routing that does not look, the [`proxies`] that read each
//! handshake and copy all that follows, and a workload whose rule verifies the name.
//!
//! A client sends a recorded ClientHello, the sink answers one byte, and both reset the connection. One thread has both
//! ends, so that nobody has to be woken but who stands between them; what the whole machine computes is divided by the
//! number of connections, and what plain routing takes in the same turn is taken off.

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use integration::manifests::policy;
use integration::peers::dns::{Unbound, Zones};
use integration::peers::query::Kind;
use integration::sys::packet::BURST;
use integration::sys::socket::{connect_resetting, reset_when_dropped};

use crate::bulk::pages;
use crate::flood::Flood;
use crate::in_turns;
use crate::lane::{Gateway, Lane, SINK};
use crate::processor::Moment;
use crate::proxies;
use crate::report::{Measurement, Subject};
use crate::statistics::quantile;

/// Whom the client asks for.
pub(crate) const NAME: &str = "api.example.com";
/// Where.
pub(crate) const PORT: u16 = 443;

/// Of curl with OpenSSL 3.0, for [`NAME`].
const HELLO: &[u8] = include_bytes!("../../fuzz/corpus/client_hello/curl");

/// Of Chromium 148, for the same: with a post-quantum key share it takes two segments.
const LONG_HELLO: &[u8] = include_bytes!("../../fuzz/corpus/client_hello/chromium");

const BOUND: Duration = Duration::from_secs(10);
/// The last byte of a slice of bulk; all others are 1.
const LAST: u8 = 2;

const SINGLE: Subject = Subject {
    title: "CPU of the whole machine for a connection, one at a time",
    key: "cpuPerVerifiedConnectionUs",
    unit: 1.0,
    suffix: "µs",
};
const ADDED: Subject = Subject {
    title: "CPU added to plain routing's for a verified connection, one at a time",
    key: "cpuAddedPerVerifiedConnectionUs",
    unit: 1.0,
    suffix: "µs",
};
const MANY: Subject = Subject {
    title: "CPU of the whole machine for a connection, sixteen at once",
    key: "cpuPerVerifiedConnection16Us",
    unit: 1.0,
    suffix: "µs",
};
const ADDED_TO_MANY: Subject = Subject {
    title: "CPU added to plain routing's for a verified connection, sixteen at once",
    key: "cpuAddedPerVerifiedConnection16Us",
    unit: 1.0,
    suffix: "µs",
};
const LONG: Subject = Subject {
    title: "CPU of the whole machine for a connection whose hello takes two segments, one at a time",
    key: "cpuPerLongVerifiedConnectionUs",
    unit: 1.0,
    suffix: "µs",
};
const ADDED_TO_LONG: Subject = Subject {
    title: "CPU added to plain routing's for a verified connection whose hello takes two segments, one at a time",
    key: "cpuAddedPerLongVerifiedConnectionUs",
    unit: 1.0,
    suffix: "µs",
};
/// What connections show, and how many are open at the same time.
const CONNECTIONS: [(&[u8], usize, Subject, Subject); 3] =
    [(HELLO, 1, SINGLE, ADDED), (HELLO, 16, MANY, ADDED_TO_MANY), (LONG_HELLO, 1, LONG, ADDED_TO_LONG)];
const BULK: Subject = Subject {
    title: "CPU of the whole machine for a gigabyte on a verified connection",
    key: "cpuPerVerifiedGigabyteMs",
    unit: 1.0,
    suffix: "ms",
};
const WAIT: Subject = Subject {
    title: "from writing the hello until the sink has read it, p50 of each turn",
    key: "firstPayloadP50Us",
    unit: 1.0,
    suffix: "µs",
};
const LONGEST_WAIT: Subject =
    Subject { title: "the same, p99 of each turn", key: "firstPayloadP99Us", unit: 1.0, suffix: "µs" };

const BESIDE_FLOOD: Subject = Subject {
    title: "from writing a workload's hello until the sink has read it, p99 of each turn, beside another workload's flood",
    key: "firstPayloadBesideFloodP99Us",
    unit: 1.0,
    suffix: "µs",
};
const FLOODED: [&str; 3] = ["alone", "denied packets", "held packets"];
/// Not allowed by any rule.
const DENIED_PORT: u16 = 7;
/// The first of two datagrams of a QUIC client's hello.
const HALF_A_HELLO: &[u8] = include_bytes!("../../fuzz/corpus/quic_initial/aioquic-long-1");

/// A lane, and where its sink accepts.
struct Way<'a> {
    lane: &'a Lane,
    hello: &'static [u8],
    listener: TcpListener,
}

/// What a slice of connections took.
struct Slice {
    /// Microseconds of CPU for each.
    cost: f64,
    /// Microseconds from each hello's writing to its reading.
    waits: Vec<f64>,
}

/// Measures them all; also lines for people.
pub(crate) fn measure(slices: u32, slice: Duration) -> (Vec<Measurement>, Vec<String>) {
    let (proxied, missing) = proxies::start();
    let plain = Lane::plain();
    let (verified, _names) = verified();
    let lanes: Vec<&Lane> = [&plain].into_iter().chain(proxied.iter().map(|it| &it.lane)).chain([&verified]).collect();
    let names: Vec<&str> = lanes.iter().map(|lane| lane.name).collect();
    let mut measurements = Vec::new();
    for (hello, at_once, whole, added) in CONNECTIONS {
        let ways: Vec<Way> = lanes.iter().map(|lane| Way::new(lane, hello)).collect();
        let mut waits = vec![Vec::new(); ways.len()];
        let costs = in_turns(slices, ways.len(), |lane| {
            let slice = ways[lane].slice(at_once, slice);
            waits[lane].push(slice.waits);
            slice.cost
        });
        measurements.push(Measurement::of_last(whole, &names, &costs));
        measurements.push(Measurement::of_last(added, &names[1..], &beyond_first(&costs)));
        if whole.key == SINGLE.key {
            for (subject, share) in [(WAIT, 0.5), (LONGEST_WAIT, 0.99)] {
                // the first turn warms up
                let at = |turns: &Vec<Vec<f64>>| turns[1..].iter().map(|turn| quantile(turn, share)).collect();
                measurements.push(Measurement::of_last(subject, &names, &waits.iter().map(at).collect::<Vec<_>>()));
            }
        }
    }
    let streams: Vec<Stream> = lanes.iter().map(|lane| Stream::open(lane)).collect();
    let costs = in_turns(slices, streams.len(), |lane| streams[lane].slice(slice));
    measurements.push(Measurement::of_last(BULK, &names, &costs));
    let (flood, note) = beside_a_flood(&verified, slices, slice);
    measurements.push(flood);
    let skipped = missing.iter().map(|name| format!("SKIPPED: {name} is not installed (`./bootstrap bench`)"));
    (measurements, skipped.chain([note]).collect())
}

/// A workload that may reach the sink by its name only, which it has looked up; and the server that knows it.
pub(crate) fn verified() -> (Lane, Unbound) {
    let gateway = Gateway::start("    - { cidr: 10.100.0.0/24, gateway: 10.100.0.1 }\n");
    let mut zones = Zones::default();
    zones.add("example.com", "api", &format!("86400 A {SINK}"));
    let names = Unbound::start(&gateway.sink, &gateway.world.folder().join("unbound"), &[SINK.into()], &zones);
    let rules = format!(
        "  allow:\n    - dnsNames: [{NAME}]\n      ports: [ {{ protocol: TCP, port: {PORT} }}, {{ protocol: UDP, port: {PORT} }} ]\n"
    );
    let lane = Lane::of(gateway, &policy("bench", "names", &rules));
    lane.client.look_up(SINK.into(), NAME, Kind::A);
    (lane, names)
}

/// What one workload's handshakes that never end cost another's. A flood of denied packets stands beside, which costs the
/// machine as much and the inspector nothing.
fn beside_a_flood(lane: &Lane, slices: u32, slice: Duration) -> (Measurement, String) {
    let other = lane.another("flooder");
    other.look_up(SINK.into(), NAME, Kind::A);
    let (hop, way, rate) = (lane.next_hop_of(&other), Way::new(lane, HELLO), Cell::new((0.0, 0)));
    let first_port = Cell::new(10_000);
    let costs = in_turns(slices, FLOODED.len(), |turn| {
        let work = || quantile(&way.slice(1, slice).waits, 0.99);
        // what was held for long is denied: each turn has flows of its own
        first_port.set(first_port.get() + BURST as u16);
        let flood = |port| Flood::of(&other, hop, first_port.get(), port, HALF_A_HELLO);
        match turn {
            0 => work(),
            1 => flood(DENIED_PORT).beside(work),
            _ => {
                let flood = flood(PORT);
                let p99 = flood.beside(work);
                rate.set((rate.get().0 + flood.rate(), rate.get().1 + 1));
                p99
            }
        }
    });
    let (sum, count) = rate.get();
    let note = format!("the flood: {:.0} k packets/s of handshakes that never end", sum / f64::from(count) / 1e3);
    (Measurement::new(BESIDE_FLOOD, &FLOODED, &costs), note)
}

/// What each lane takes more than the first.
fn beyond_first(costs: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let more = |lane: &Vec<f64>| lane.iter().zip(&costs[0]).map(|(cost, first)| cost - first).collect();
    costs[1..].iter().map(more).collect()
}

impl<'a> Way<'a> {
    fn new(lane: &'a Lane, hello: &'static [u8]) -> Self {
        let listener = lane.sink.enter(|| TcpListener::bind((SINK, PORT))).expect("a listener in the sink");
        Self { lane, hello, listener }
    }

    fn slice(&self, at_once: usize, slice: Duration) -> Slice {
        self.lane.client.enter(|| {
            let (moment, begin) = (Moment::now(), Instant::now());
            let mut waits = Vec::new();
            while begin.elapsed() < slice {
                self.connect(at_once, &mut waits);
            }
            Slice { cost: moment.busy_since().as_secs_f64() * 1e6 / waits.len() as f64, waits }
        })
    }

    /// So many connections, each from its opening to its reset.
    fn connect(&self, at_once: usize, waits: &mut Vec<f64>) {
        let name = self.lane.name;
        let open =
            |_| connect_resetting(SocketAddr::from((SINK, PORT))).unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut clients: Vec<TcpStream> = (0..at_once).map(open).collect();
        let begin = Instant::now();
        for client in &mut clients {
            client.write_all(self.hello).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        let accepted: Vec<TcpStream> = (0..at_once).map(|_| greet(&self.listener, self.hello, begin, waits)).collect();
        for client in &mut clients {
            client.read_exact(&mut [0]).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        drop((clients, accepted));
    }
}

/// Accepts a connection, reads its hello and answers one byte.
fn greet(listener: &TcpListener, said: &[u8], begin: Instant, waits: &mut Vec<f64>) -> TcpStream {
    let (mut stream, _) = listener.accept().expect("a connection from the client");
    reset_when_dropped(&stream).expect("SO_LINGER");
    let mut hello = vec![0; said.len()];
    stream.read_exact(&mut hello).expect("the client's hello");
    waits.push(begin.elapsed().as_secs_f64() * 1e6);
    assert_eq!(hello, said, "it comes as it was sent");
    stream.write_all(&[1]).expect("the sink answers");
    stream
}

/// A connection that was verified, and carries as much as it can.
struct Stream {
    name: &'static str,
    client: TcpStream,
    sink: TcpStream,
}

impl Stream {
    fn open(lane: &Lane) -> Self {
        let listener = lane.sink.enter(|| TcpListener::bind((SINK, PORT))).expect("a listener in the sink");
        let client = lane.client.enter(|| TcpStream::connect_timeout(&(SINK, PORT).into(), BOUND));
        let mut client = client.unwrap_or_else(|error| panic!("{}: {error}", lane.name));
        client.set_write_timeout(Some(BOUND)).expect("a write timeout");
        client.write_all(HELLO).expect("the hello");
        let sink = greet(&listener, HELLO, Instant::now(), &mut Vec::new());
        client.read_exact(&mut [0]).expect("the sink's answer");
        Self { name: lane.name, client, sink }
    }

    /// Milliseconds of CPU for each gigabyte that was read during one slice.
    fn slice(&self, slice: Duration) -> f64 {
        let moment = Moment::now();
        let begin = Instant::now();
        let read = std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let (mut read, mut memory) = (0, Vec::new());
                let chunk = pages(&mut memory);
                while let length @ 1.. = (&self.sink).read(chunk).expect("the sink reads") {
                    read += length;
                    if chunk[length - 1] == LAST {
                        return read;
                    }
                }
                panic!("{}: the connection ended", self.name)
            });
            let mut memory = Vec::new();
            let chunk = pages(&mut memory);
            while begin.elapsed() < slice {
                (&self.client).write_all(chunk).unwrap_or_else(|error| panic!("{}: {error}", self.name));
            }
            (&self.client).write_all(&[LAST]).expect("the last byte of a slice");
            reader.join().expect("the reader")
        });
        moment.busy_since().as_secs_f64() * 1e3 / (read as f64 / 1e9)
    }
}
