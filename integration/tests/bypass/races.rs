//! What comes at the wrong moment, or too often.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use integration::Site;
use integration::capture::Capture;
use integration::manifests::{allow_cidrs, policy, two_tenants};
use integration::site::{ECHO, OTHER};
use integration::traffic::Target;
use integration::wait::{happens_within, wait_until};

use super::{ECHO_PORT, only_echo, stage};

#[test]
fn one_workloads_flood_does_not_close_anothers_door() {
    let mut settings = Site::settings();
    settings.more = "[limits]\nflows = 8192\nflows_per_workload = 512\n".to_owned();
    let site = Site::with(integration::world::World::new(), settings);
    site.netctl()
        .apply(&(two_tenants() + &policy("shop", "rules", &only_echo("")) + &policy("bank", "rules", &only_echo(""))));
    let flooder = site.attach("shop", "web-1", &[]);
    let neighbour = site.attach("shop", "web-2", &[]);
    let other = site.attach("bank", "ledger-1", &[]);
    let mut open = neighbour.open((ECHO.v4(), ECHO_PORT).into());
    open.must_echo();
    site.must_drop_as("quota-full", || {
        flooder.enter(|| {
            for _ in 0..2000 {
                let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
                socket.send_to(b"flood", (ECHO.v4(), 9999)).expect("a datagram");
            }
        });
    });
    flooder.must_not_reach(Target::new("tcp", ECHO.v4(), ECHO_PORT));
    open.must_echo();
    for pod in [&neighbour, &other] {
        for (protocol, address) in [("tcp", ECHO.v4()), ("tcp", ECHO.v6()), ("udp", ECHO.v4()), ("ping", ECHO.v6())] {
            pod.must_reach(Target::new(protocol, address, ECHO_PORT));
        }
    }
}

#[test]
fn the_first_packet_of_a_workload_is_judged() {
    let runs = if std::env::var_os("TIDEGATE_LONG").is_some() { 1000 } else { 25 };
    let site = Site::start();
    site.netctl().apply(&(two_tenants() + &policy("shop", "rules", &only_echo(""))));
    let mut former: Option<Capture> = None;
    for run in 0..runs {
        // One for each run, since a capture keeps so many frames only; the one before it goes on, for what comes late.
        let outside = Capture::start(&site.internet.namespace, "eth0");
        let name = format!("early-{run}");
        let namespace = site.world.namespace(&format!("shop-{name}"), None);
        let stop = AtomicBool::new(false);
        let good = format!("allowed of {run}.");
        std::thread::scope(|scope| {
            let sending = scope.spawn(|| {
                namespace.enter(|| {
                    let sockets = ["0.0.0.0:0", "[::]:0"].map(|any| UdpSocket::bind(any).expect("a socket"));
                    let mut sent = 0;
                    while !stop.load(Ordering::SeqCst) {
                        for (socket, way) in sockets.iter().zip([0, 1]) {
                            let there = SocketAddr::new(OTHER.both()[way], ECHO_PORT);
                            sent += u32::from(socket.send_to(b"too early", there).is_ok());
                            let _no_route_yet = socket.send_to(good.as_bytes(), (ECHO.both()[way], ECHO_PORT));
                        }
                        if sent > 500 {
                            happens_within(Duration::from_millis(1), || false);
                        }
                    }
                    sent
                })
            });
            let stopped = OnDrop(|| stop.store(true, Ordering::SeqCst));
            let path = namespace.path().to_str().expect("a path of the world is text");
            site.netctl().ok(&["attach", &name, "-n", "shop", "--netns", path]);
            outside.must_see(good.as_bytes());
            drop(stopped);
            assert!(sending.join().expect("the sender") > 0, "nothing was sent that could have been too early");
        });
        site.netctl().ok(&["detach", &name, "-n", "shop"]);
        for capture in former.iter().chain([&outside]) {
            assert_eq!(capture.count(b"too early"), 0, "run {run}: a packet came before the policy");
        }
        former = Some(outside);
    }
}

/// The numbers of datagrams that came.
fn numbers_in(capture: &Capture) -> Vec<u32> {
    let number = |bytes: &[u8]| {
        let at = bytes.windows(7).position(|window| window == b"number ")?;
        std::str::from_utf8(bytes.get(at + 7..at + 15)?).ok()?.parse().ok()
    };
    capture.frames().iter().filter_map(|frame| number(&frame.bytes)).collect()
}

#[test]
fn an_open_flow_ends_with_the_change_that_ends_it() {
    let changes = if std::env::var_os("TIDEGATE_LONG").is_some() { 100 } else { 8 };
    let stage = stage(&only_echo(""));
    let (numbers, stop) = (AtomicU32::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            stage.web.enter(|| {
                let socket = UdpSocket::bind("0.0.0.0:40000").expect("a socket");
                while !stop.load(Ordering::SeqCst) {
                    let number = numbers.fetch_add(1, Ordering::SeqCst);
                    let _closed = socket.send_to(format!("number {number:08}").as_bytes(), (ECHO.v4(), 9));
                    if number % 64 == 0 {
                        happens_within(Duration::from_millis(1), || false);
                    }
                }
            })
        });
        let _stops_also_on_a_panic = OnDrop(|| stop.store(true, Ordering::SeqCst));
        for change in 0..changes {
            let outside = stage.outside();
            stage.site.netctl().apply(&policy("shop", "rules", &only_echo("")));
            let begun = numbers.load(Ordering::SeqCst);
            let runs = || numbers_in(&outside).iter().any(|number| *number > begun);
            assert!(happens_within(Duration::from_secs(5), runs), "change {change}: the flow does not run");

            stage.site.netctl().apply(&policy("shop", "rules", &allow_cidrs(&["203.0.113.31/32"], "")));
            let ended = numbers.load(Ordering::SeqCst);
            wait_until("the sender goes on", Duration::from_secs(5), || numbers.load(Ordering::SeqCst) > ended + 128);
            let late: Vec<u32> = numbers_in(&outside).into_iter().filter(|number| *number >= ended).collect();
            assert!(late.is_empty(), "change {change}: {late:?} outlived the policy that allowed them");
        }
    });
}

struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
