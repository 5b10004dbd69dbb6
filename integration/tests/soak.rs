//! Names over a long time: addresses that change all the while, and names without end. Some seconds each, or as long as
//! `TIDEGATE_SOAK_SECONDS` says.

use std::collections::VecDeque;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

use integration::daemon::Settings;
use integration::manifests::{name_rule, policy, two_tenants};
use integration::peers::numbers::count_out;
use integration::peers::query::{Carrier, Kind};
use integration::traffic::Target;
use integration::wait::happens_within;
use integration::world::World;
use integration::{Pod, Site};

/// The server that counts addresses out, and what it counts.
const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 54));
const FIRST: Ipv4Addr = Ipv4Addr::new(198, 51, 101, 0);
const PORT: u16 = 9009;
const TTL: u32 = 5;
/// What an application may keep an address for behind its TTL.
const GRACE: Duration = Duration::from_secs(30);
/// Between two lookups.
const BETWEEN: Duration = Duration::from_millis(10);
/// So much may the daemon's memory move, in KiB.
const SLACK: u64 = 4096;

fn stage() -> (Site, Pod) {
    // few answers are kept, so that what grows is not them
    let more =
        "[limits]\ndns_queries_per_second = 1000000\ndns_lookups_per_second = 1000000\ndns_cache = 262144\n".to_owned();
    let site = Site::with(World::new(), Settings { upstreams: vec![SERVER], more, ..Site::settings() });
    let internet = &site.internet.namespace;
    internet.ip(&format!("addr add {SERVER}/32 dev lo"));
    internet.ip("route add local 198.51.100.0/22 dev lo");
    let listener = internet.enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))).expect("a listener");
    thread::spawn(move || listener.incoming().for_each(drop));
    let rules =
        format!("  allow:\n{}", name_rule(&["*.example.com"], &format!("[ {{ protocol: TCP, port: {PORT} }} ]")));
    site.netctl().apply(&(two_tenants() + &policy("shop", "shop-egress", &rules)));
    let pod = site.attach("shop", "web-1", &[]);
    (site, pod)
}

fn duration() -> Duration {
    let given = std::env::var("TIDEGATE_SOAK_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(given.unwrap_or(25))
}

/// Of the daemon, in KiB.
fn memory(site: &Site) -> u64 {
    let pid = site.daemon.process().expect("a daemon that runs").pid();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the daemon's status");
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok());
    resident.expect("the daemon's memory")
}

fn look_up(pod: &Pod, name: &str) -> Vec<IpAddr> {
    let answer = pod.ask(SERVER, name, Kind::A, Carrier::Udp).unwrap_or_else(|| panic!("no answer for {name}"));
    assert_eq!(answer.code, 0, "{name}");
    answer.addresses
}

#[test]
fn four_hundred_addresses_in_turn_are_open_when_they_are_answered_and_take_no_more_room() {
    let (site, pod) = stage();
    let block = FIRST..Ipv4Addr::from_bits(FIRST.to_bits() + 400);
    count_out(&site.internet.namespace, SERVER, block, 8, TTL);
    let (begin, end) = (Instant::now(), duration());
    let (mut kept, mut warm, mut asked) = (VecDeque::new(), None, 0u64);
    while begin.elapsed() < end {
        // many names, each kept for its TTL: the addresses go round and round
        let addresses = look_up(&pod, &format!("n{}.example.com", asked % 60));
        asked += 1;
        assert_eq!(addresses.len(), 8);
        kept.push_back((Instant::now(), addresses[asked as usize % 8]));
        pod.must_reach(Target::Tcp(SocketAddr::new(addresses[0], PORT)));
        while kept.front().is_some_and(|(since, _)| since.elapsed() > GRACE - Duration::from_secs(5)) {
            if let Some((_, address)) = kept.pop_front() {
                pod.must_reach(Target::Tcp(SocketAddr::new(address, PORT)));
            }
        }
        happens_within(BETWEEN, || false);
        if warm.is_none() && begin.elapsed() * 2 > end {
            warm = Some(memory(&site));
        }
    }
    let status = site.netctl().json(&["status"]);
    let learned = status["dns"]["learned"].as_u64().expect("a number");
    assert!(learned <= 400, "{learned} addresses are known");
    let (before, after) = (warm.expect("half of the time"), memory(&site));
    println!("{asked} lookups in {end:?}: {learned} addresses, {before} KiB at half of the time, {after} at its end");
    assert!(after < before + SLACK, "{before} KiB, then {after}");
}

#[test]
fn names_without_end_at_one_address_take_a_bounded_room_and_the_last_one_counts() {
    let (site, pod) = stage();
    count_out(&site.internet.namespace, SERVER, FIRST..Ipv4Addr::from_bits(FIRST.to_bits() + 1), 1, 3600);
    let names = if std::env::var_os("TIDEGATE_LONG").is_some() { 160_000 } else { 12_000 };
    let mut warm = 0;
    for number in 0..names {
        assert_eq!(look_up(&pod, &format!("number-{number}.example.com")), [IpAddr::V4(FIRST)]);
        if number == names / 2 {
            warm = memory(&site);
        }
    }
    pod.must_reach(Target::Tcp(SocketAddr::new(FIRST.into(), PORT)));
    let after = memory(&site);
    println!("{names} names at one address: {warm} KiB with half of them, {after} with all");
    assert!(after < warm + SLACK, "{warm} KiB, then {after}");
}
