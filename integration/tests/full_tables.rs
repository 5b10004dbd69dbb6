//! Tables of the kernel without room: what would need an entry is refused and named, what is there goes on, and with room
//! again it works again.

use std::time::Duration;

use integration::manifests::{allow_cidrs, name_rule, network, policy, two_tenants};
use integration::peers::query::{Carrier, Kind};
use integration::site::{DNS, ECHO, OTHER};
use integration::sys::bpf::Filling;
use integration::traffic::Target;
use integration::wait::wait_until;
use integration::world::World;
use integration::{Pod, Site};

const SERVER_FAILURE: u8 = 2;
const PATIENCE: Duration = Duration::from_secs(10);

fn to(host: integration::site::Host) -> Target {
    Target::new("tcp", host.v4(), 7)
}

fn shop_policy() -> String {
    policy("shop", "shop-egress", &allow_cidrs(&["203.0.113.30/32"], ""))
}

fn stage() -> (Site, Pod) {
    let site = Site::start();
    site.netctl().apply(&(two_tenants() + &shop_policy()));
    let web = site.attach("shop", "web-1", &[]);
    web.must_reach(to(ECHO));
    (site, web)
}

/// Old connections, new ones, and what is denied.
fn goes_on(web: &Pod) {
    web.must_reach(to(ECHO));
    web.must_not_reach(to(OTHER));
}

#[test]
fn no_workload_is_attached_half_and_the_others_go_on() {
    let (site, web) = stage();
    let mut connection = web.open((ECHO.v4(), 7).into());
    let late = site.world.namespace("late", None);
    let path = late.path().to_str().expect("a path of the world is text").to_owned();
    let attach = ["attach", "late", "-n", "shop", "--netns", &path];
    for name in ["workloads", "addresses", "handles"] {
        let filling = Filling::of(&site.table(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let said = site.netctl().run(&attach);
        assert_eq!(said.status, 1, "{name}: {}{}", said.stdout, said.stderr);
        assert!(said.stderr.contains(&format!("`{name}`")) && said.stderr.contains("full"), "{}", said.stderr);
        wait_until(&format!("status names {name}"), PATIENCE, || site.netctl().run(&["status"]).stdout.contains(name));
        goes_on(&web);
        connection.must_echo();
        assert!(!site.netctl().ok(&["get", "workloads", "-n", "shop"]).contains("late"));
        drop(filling);
    }
    wait_until("there is room", PATIENCE, || !site.netctl().run(&["status"]).stdout.contains("full"));
    site.netctl().ok(&attach);
    late.must_reach(to(ECHO));
    late.must_not_reach(to(OTHER));
}

#[test]
fn a_change_that_does_not_fit_leaves_the_last_state() {
    let (site, web) = stage();
    let filling = Filling::of(&site.table("subnets")).expect("a full table");
    let said = site.netctl().try_apply(&network("tenant-c", 50, ""));
    assert_eq!(said.status, 1, "{}", said.stdout);
    assert!(said.stderr.contains("`subnets`"), "{}", said.stderr);
    assert!(!site.netctl().ok(&["get", "networks"]).contains("tenant-c"));
    assert!(!site.node.run("ip link show tgb-tenant-c").success(), "its bridge is gone again");
    goes_on(&web);
    drop(filling);
    site.netctl().apply(&network("tenant-c", 50, ""));
    goes_on(&web);
}

#[test]
fn flows_that_cannot_be_counted_are_refused() {
    let (site, web) = stage();
    let filling = Filling::of(&site.table("usage")).expect("a full table");
    let late = site.attach("shop", "late", &[]);
    site.must_drop_as("table-full", || late.must_not_reach(to(ECHO)));
    goes_on(&web);
    drop(filling);
    late.must_reach(to(ECHO));
}

#[test]
fn a_name_that_cannot_be_learned_is_not_answered() {
    let mut settings = Site::settings();
    settings.more = "[limits]\nlearned = 2\n".to_owned();
    let site = Site::with(World::new(), settings);
    let rules = "  allow:\n".to_owned() + &name_rule(&["*.many.example.com"], "[ { protocol: TCP, port: 9 } ]");
    site.netctl().apply(&(two_tenants() + &policy("shop", "shop-egress", &rules)));
    let web = site.attach("shop", "web-1", &[]);
    let mut learned = Vec::new();
    let mut refused = 0;
    for number in 1..=6 {
        let name = format!("n{number}.many.example.com");
        let answer = web.ask(DNS.v4(), &name, Kind::A, Carrier::Udp).expect("an answer");
        match answer.code {
            0 => learned.extend(answer.addresses),
            SERVER_FAILURE => refused += 1,
            other => panic!("{name}: {other}"),
        }
    }
    assert!(!learned.is_empty() && refused >= 3, "{learned:?}, {refused} refused");
    for address in learned {
        web.must_reach(Target::new("tcp", address, 9));
    }
    wait_until("it is counted", PATIENCE, || {
        let text = site.node.ok("curl -sS --max-time 5 http://127.0.0.1:9464/metrics");
        let counter = "tidegate_dns_over_bounds_total{what=\"answer\"} ";
        text.lines().any(|line| line.starts_with(counter) && !line.ends_with(" 0"))
    });
}
