//! A tenant that uses up the node's ports of source NAT.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use integration::daemon::Settings;
use integration::manifests::{policy, two_tenants};
use integration::site::ECHO;
use integration::world::World;
use integration::{Pod, Site};

use super::only_echo;

const BOUND: Duration = Duration::from_secs(5);
const SERVER_PORT: u16 = 9000;
const PORTS: usize = 256;

/// From a port of its own for each number.
fn send_all(pod: &Pod, to: SocketAddr, numbers: std::ops::Range<u16>) -> Vec<(u16, UdpSocket)> {
    let any = if to.is_ipv4() { "0.0.0.0" } else { "::" };
    let send = |number: u16| {
        let socket = pod.bound(|| UdpSocket::bind((any, 20_000 + number)));
        socket.send_to(&number.to_be_bytes(), to).expect("it leaves the workload");
        socket.set_read_timeout(Some(BOUND)).expect("a timeout");
        (number, socket)
    };
    numbers.map(send).collect()
}

/// The numbers that arrive, by source.
fn arrivals(server: &UdpSocket) -> BTreeMap<SocketAddr, u16> {
    let mut seen = BTreeMap::new();
    let mut word = [0; 2];
    while let Ok((2, from)) = server.recv_from(&mut word) {
        let number = u16::from_be_bytes(word);
        assert_eq!(*seen.entry(from).or_insert(number), number, "{from} is two flows");
    }
    seen
}

#[test]
fn exhausted_ports_are_neither_shared_nor_taken_from_another_tenant() {
    let more = format!("[egress]\nsnat_ports = \"50000-{}\"\n", 49_999 + PORTS);
    let site = Site::with(World::new(), Settings { more, ..Site::settings() });
    let rules = only_echo("");
    site.netctl().apply(&(two_tenants() + &policy("shop", "rules", &rules) + &policy("bank", "rules", &rules)));
    let (web, ledger) = (site.attach("shop", "web-1", &[]), site.attach("bank", "ledger-1", &[]));
    for address in ECHO.both() {
        let at = SocketAddr::new(address, SERVER_PORT);
        let server = site.internet.namespace.bound(|| UdpSocket::bind(at));
        server.set_read_timeout(Some(Duration::from_millis(500))).expect("a timeout");
        let mut sockets = BTreeMap::new();
        site.must_drop_as("nat-exhausted", || sockets.extend(send_all(&web, at, 0..400)));
        let mut sources = arrivals(&server);
        assert!((PORTS / 2..PORTS).contains(&sources.len()), "{} of {PORTS}", sources.len());

        sockets.extend(send_all(&ledger, at, 1000..1010));
        let others = arrivals(&server);
        assert_eq!(others.len(), 10, "another tenant's flows get ports");
        assert!(others.keys().all(|source| !sources.contains_key(source)), "and none that is in use");
        sources.extend(others);
        for (source, number) in &sources {
            server.send_to(&number.to_be_bytes(), source).expect("an answer");
        }
        for number in sources.values() {
            let mut word = [0; 2];
            let (length, from) = sockets[number].recv_from(&mut word).expect("its answer");
            assert_eq!((length, from, u16::from_be_bytes(word)), (2, at, *number), "nobody else's");
        }
    }
}
