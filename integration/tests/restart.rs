//! The daemon's death and return under traffic.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use integration::daemon::Settings;
use integration::manifests::{allow_cidrs, cidr_rule, name_rule, policy, two_tenants};
use integration::peers::query::{Carrier, Kind};
use integration::site::{API, CDN, DNS, ECHO, OTHER};
use integration::sys::bpf::first_words;
use integration::traffic::{Connection, Target};
use integration::wait::wait_until;
use integration::world::World;
use integration::{Pod, Site};

const ECHO_PORT: u16 = 7;
const PATIENCE: Duration = Duration::from_secs(10);

fn shop_policy() -> String {
    let names = name_rule(&["api.example.com", "cdn.example.com"], "[ { protocol: TCP, port: 7 } ]");
    policy("shop", "shop-egress", &(allow_cidrs(&["203.0.113.30/32", "2001:db8:113::30/128"], "") + &names))
}

/// A workload with an open flow by address and one by name, in both families.
fn stage() -> (Site, Pod, Vec<Connection>) {
    let site = Site::start();
    site.netctl().apply(&(two_tenants() + &shop_policy()));
    let web = site.attach("shop", "web-1", &["app=web"]);
    web.look_up(DNS.v4(), "api.example.com", Kind::A);
    web.look_up(DNS.v4(), "api.example.com", Kind::Aaaa);
    let targets = ECHO.both().into_iter().chain(API.both());
    let mut flows: Vec<Connection> = targets.map(|address| web.open(SocketAddr::new(address, ECHO_PORT))).collect();
    flows.iter_mut().for_each(Connection::must_echo);
    (site, web, flows)
}

/// What must hold whether the daemon lives or not.
#[track_caller]
fn nothing_cut_and_nothing_opened(site: &Site, web: &Pod, flows: &mut [Connection]) {
    flows.iter_mut().for_each(Connection::must_echo);
    ECHO.both().into_iter().for_each(|address| web.must_reach(Target::new("tcp", address, ECHO_PORT)));
    API.both().into_iter().for_each(|address| web.must_reach(Target::new("tcp", address, ECHO_PORT)));
    OTHER.both().into_iter().for_each(|address| web.must_not_reach(Target::new("tcp", address, ECHO_PORT)));
    CDN.both().into_iter().for_each(|address| web.must_not_reach(Target::new("tcp", address, ECHO_PORT)));
    site.internet.namespace.must_not_reach(Target::new("ping", web.v4.into(), 0));
}

#[test]
fn a_killed_daemon_cuts_no_flow_and_opens_nothing() {
    let (mut site, web, mut flows) = stage();
    site.daemon.kill();
    nothing_cut_and_nothing_opened(&site, &web, &mut flows);
    assert_eq!(web.ask(DNS.v4(), "cdn.example.com", Kind::A, Carrier::Udp), None, "nobody answers names now");

    site.daemon.restart();
    nothing_cut_and_nothing_opened(&site, &web, &mut flows);
    wait_until("names are answered again", Duration::from_secs(5), || {
        web.ask(DNS.v4(), "cdn.example.com", Kind::A, Carrier::Udp).is_some_and(|answer| answer.addresses == [CDN.v4()])
    });
    web.must_reach(Target::new("tcp", CDN.v4(), ECHO_PORT));
}

/// A stub resolver asks twice before it gives up.
#[test]
fn no_lookup_is_lost_over_a_death_or_a_restart_beyond_a_retry() {
    let (mut site, web, _) = stage();
    let (over, answered) = (AtomicBool::new(false), AtomicU32::new(0));
    let ask = || web.ask(DNS.v4(), "api.example.com", Kind::A, Carrier::Udp);
    thread::scope(|scope| {
        let stub = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let answer = ask().or_else(ask).expect("an answer to the second question at the latest");
                assert_eq!((answer.code, answer.addresses), (0, vec![API.v4()]));
                answered.fetch_add(1, Ordering::Relaxed);
            }
        });
        let more = |what: &str| {
            let before = answered.load(Ordering::Relaxed);
            wait_until(what, PATIENCE, || stub.is_finished() || answered.load(Ordering::Relaxed) > before + 20);
        };
        more("lookups");
        site.daemon.kill();
        site.daemon.restart();
        more("lookups after a death");
        site.daemon.terminate();
        site.daemon.restart();
        more("lookups after a restart");
        over.store(true, Ordering::Relaxed);
        stub.join().expect("every lookup is answered");
    });
}

#[test]
fn stale_flows_are_swept_by_the_daemon_and_without_it_by_the_kernel() {
    let settings = Settings { more: "[limits]\nother_idle_s = 1\n".to_owned(), ..Site::settings() };
    let mut site = Site::with(World::new(), settings);
    let words = |site: &Site, table: &str| first_words(&site.table(table)).expect("a table of the daemon's");
    let sweeps = |site: &Site| (words(site, "swept")[1], words(site, "sweeper")[2]);
    let (by_daemon, _) = sweeps(&site);
    wait_until("the daemon sweeps", PATIENCE, || sweeps(&site).0 > by_daemon + 6);
    site.daemon.kill();
    let (by_daemon, by_kernel) = sweeps(&site);
    wait_until("the kernel's timer sweeps", PATIENCE, || sweeps(&site).1 > by_kernel + 6);
    assert_eq!(sweeps(&site).0, by_daemon);
    site.daemon.restart();
    wait_until("the daemon sweeps again", PATIENCE, || sweeps(&site).0 > by_daemon);
}

#[test]
fn traffic_goes_on_through_many_deaths() {
    let (mut site, web, mut flows) = stage();
    let deaths = if std::env::var_os("TIDEGATE_LONG").is_some() { 12 } else { 3 };
    let retransmitted = web.counter("Tcp", "RetransSegs");
    for death in 0..deaths {
        if death % 2 == 0 {
            site.daemon.kill()
        } else {
            assert_eq!(site.daemon.terminate(), Some(0))
        }
        flows.iter_mut().for_each(Connection::must_echo);
        site.daemon.restart();
        flows.iter_mut().for_each(Connection::must_echo);
    }
    assert_eq!(web.counter("Tcp", "RetransSegs"), retransmitted, "segments of open flows were lost");
    nothing_cut_and_nothing_opened(&site, &web, &mut flows);
}

#[test]
fn a_restarted_daemon_knows_what_it_knew() {
    let (mut site, web, mut flows) = stage();
    let listed = |site: &Site| {
        ["networks", "namespaces", "egresspolicies", "workloads"]
            .map(|kind| site.netctl().ok(&["get", kind, "-o", "name"]))
    };
    let before = listed(&site);
    site.daemon.kill();
    site.daemon.restart();
    assert_eq!(listed(&site), before);
    let explained = site.netctl().json(&["explain", "--from", "shop/web-1", "--to", "api.example.com:7"]);
    assert_eq!(explained["allowed"], true, "{explained:#}");
    // A narrowed policy still reaches flows that were opened before the restart.
    let narrowed = format!("  allow:\n{}", cidr_rule(&["203.0.113.30/32"], ""));
    site.netctl().apply(&policy("shop", "shop-egress", &narrowed));
    flows[0].must_echo();
    for cut in &mut flows[1..] {
        assert!(!cut.echoes_within(Duration::from_millis(600)));
    }
    web.must_not_reach(Target::new("tcp", API.v4(), ECHO_PORT));
}

#[test]
fn a_torn_store_is_mended_or_refused_and_never_taken_for_empty() {
    let (mut site, web, mut flows) = stage();
    site.daemon.kill();
    let state = site.world.folder().join("state");
    let database = std::fs::read_dir(&state)
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "redb"));
    let database = database.expect("the store's file");
    let length = std::fs::metadata(&database).unwrap().len();
    let file = std::fs::File::options().write(true).open(&database).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[0xa5; 4096], length / 2).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[0x5a; 512], 64).unwrap();
    drop(file);
    site.daemon.restart();
    let names = site.netctl().ok(&["get", "egresspolicies", "-n", "shop", "-o", "name"]);
    assert!(names.contains("shop-egress"), "desired state is there after a torn write: {names}");
    nothing_cut_and_nothing_opened(&site, &web, &mut flows);
}

/// CAP_DAC_READ_SEARCH, CAP_NET_BIND_SERVICE, CAP_NET_ADMIN, CAP_PERFMON, CAP_BPF: `gateway/src/sys/caps.rs`.
const DAEMON: u64 = 1 << 2 | 1 << 10 | 1 << 12 | 1 << 38 | 1 << 39;

#[test]
fn no_thread_of_the_daemon_keeps_more_rights_than_it_needs() {
    let site = Site::start();
    let process = site.daemon.process().expect("a running daemon").pid();
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).expect("its threads");
    for thread in threads.flatten() {
        let status = std::fs::read_to_string(thread.path().join("status")).expect("a thread's status");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("the kernel's field");
            u64::from_str_radix(line.trim(), 16).expect("a mask")
        };
        assert_eq!(field("CapEff:"), DAEMON, "{status}");
        assert_eq!(field("CapBnd:"), DAEMON, "{status}");
    }
}
