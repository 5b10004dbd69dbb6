//! Networks whose links others made: Docker's bridge with Docker, and a bridge made by hand.

use std::time::Duration;

use integration::Site;
use integration::kernel;
use integration::manifests::{allow_cidrs, namespace, policy_for};
use integration::namespace::Namespace;
use integration::peers::docker::{BRIDGE, Docker};
use integration::site::{API, DNS, ECHO, OTHER};
use integration::traffic::{Outcome, Target};
use integration::wait::wait_until;
use serde_json::Value;

/// A container is up, listed by its engine and judged by its policies within this.
const KNOWN: Duration = Duration::from_secs(10);

fn adopting(name: &str, bridge: &str) -> String {
    format!(
        "---\napiVersion: tidegate.dev/v1alpha1\nkind: Network\nmetadata: {{ name: {name} }}\n\
         spec: {{ adopt: {{ bridge: {bridge} }} }}\n"
    )
}

/// Who has `app=web` in `apps` may reach [`ECHO`] at TCP port 7 and `api.example.com`, and nothing else.
fn web_policy() -> String {
    let rules = allow_cidrs(&[&format!("{}/32", ECHO.v4())], "[ { protocol: TCP, port: 7 } ]")
        + "    - dnsNames: [ api.example.com ]\n      ports: [ { protocol: TCP, port: 7 } ]\n";
    policy_for("apps", "web", "{ matchLabels: { app: web } }", &rules)
}

fn workloads(site: &Site) -> Vec<Value> {
    let list = site.netctl().json(&["get", "workloads", "-A"]);
    list["items"].as_array().cloned().unwrap_or_default()
}

fn names(site: &Site) -> Vec<String> {
    let name = |item: Value| item["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let mut names: Vec<String> = workloads(site).into_iter().map(name).collect();
    names.sort_unstable();
    names
}

fn allowed() -> Target {
    Target::Tcp((ECHO.v4(), 7).into())
}

fn denied() -> Target {
    Target::Tcp((OTHER.v4(), 7).into())
}

fn conditions(site: &Site) -> String {
    site.netctl().json(&["status"])["conditions"].to_string()
}

#[test]
fn one_manifest_holds_the_containers_of_docker() {
    let mut site = Site::start();
    let docker = Docker::start(&site.world, &site.node);
    let resolver = DNS.v4().to_string();
    let early = docker.sleeper("early", &["--label", "app=web", "--dns", &resolver]);
    early.must_reach(denied());

    site.netctl().apply(&(adopting("docker", BRIDGE) + &namespace("apps", "docker") + &web_policy()));
    let named = |wanted: &[&str]| wait_until(&format!("{wanted:?} are workloads"), KNOWN, || names(&site) == *wanted);
    named(&["early"]);
    early.must_reach(allowed());
    early.must_not_reach(denied());
    let found = &workloads(&site)[0];
    assert_eq!((&found["metadata"]["labels"]["app"], &found["spec"]["adopted"]), (&"web".into(), &true.into()));
    assert_eq!(found["status"]["addresses"], serde_json::json!(["172.30.0.2"]));
    assert_eq!(found["status"]["ready"], true);

    // By name too, and only for who has asked.
    early.must_not_reach(Target::Tcp((API.v4(), 7).into()));
    let said = docker.ok(&["exec", "early", "nslookup", "api.example.com"]);
    assert!(said.contains(&API.v4().to_string()), "{said}");
    early.must_reach(Target::Tcp((API.v4(), 7).into()));
    let refused = docker.run(&["exec", "early", "nslookup", "cdn.example.com"]);
    assert!(!refused.success(), "{}", refused.stdout);

    // Nobody else may anything, from the first instruction on; nobody speaks with another's address.
    let other = docker.sleeper("other", &["--dns", &resolver]);
    named(&["early", "other"]);
    other.must_not_reach(allowed());
    for number in 0..3 {
        let target = OTHER.v4().to_string();
        let said = docker.container(
            &format!("quick-{number}"),
            &["--rm", "--label", "app=web"],
            &["nc", "-w", "1", &target, "7"],
        );
        assert!(!said.success(), "{}", said.stdout);
    }
    named(&["early", "other"]);
    site.must_drop_as("spoofed-address", || {
        other.ip("addr add 172.30.0.77/24 dev eth0");
        let socket = other.enter(|| std::net::UdpSocket::bind("172.30.0.77:0").expect("its second address"));
        socket.send_to(b"x", (ECHO.v4(), 7)).expect("a datagram that goes nowhere");
    });

    // Docker restarts it with another interface; it is the same workload by name.
    let before = site.netctl().json(&["get", "workload", "early", "-n", "apps"])["status"]["hostInterface"].clone();
    docker.ok(&["restart", "-t", "0", "early"]);
    wait_until("it has another port", KNOWN, || {
        let said = site.netctl().run(&["get", "workload", "early", "-n", "apps", "-o", "json"]);
        said.success()
            && serde_json::from_str::<Value>(&said.stdout).is_ok_and(|it| it["status"]["hostInterface"] != before)
    });
    let early = docker.namespace("early");
    early.must_reach(allowed());
    early.must_not_reach(denied());

    // A connection outlives the daemon, and what comes meanwhile is closed afterwards.
    let mut kept = early.open((ECHO.v4(), 7).into());
    kept.must_echo();
    site.daemon.kill();
    kept.must_echo();
    early.must_not_reach(denied());
    let late = docker.sleeper("late", &["--label", "app=web"]);
    site.daemon.restart();
    kept.must_echo();
    wait_until("it is a workload", KNOWN, || names(&site) == ["early", "late", "other"]);
    late.must_reach(allowed());
    late.must_not_reach(denied());
    let refused = site.netctl().run(&["detach", "late", "-n", "apps"]);
    assert!(refused.stderr.contains("docker0") && !refused.success(), "{}", refused.stderr);

    docker.ok(&["rm", "-f", "early", "other"]);
    wait_until("they are no workloads", KNOWN, || names(&site) == ["late"]);

    // Given back: everything is as before.
    site.netctl().ok(&["delete", "egresspolicy", "web", "-n", "apps"]);
    late.must_not_reach(allowed());
    site.netctl().ok(&["delete", "namespace", "apps"]);
    site.netctl().ok(&["delete", "network", "docker"]);
    wait_until("it is nobody's", KNOWN, || names(&site).is_empty());
    wait_until("it is open", KNOWN, || late.attempt(denied(), Duration::from_secs(1)) == Outcome::Reached);
    let left = site.node.ok("tc filter show dev docker0 ingress");
    assert_eq!(left, "", "nothing is left");
}

/// A bridge with an address, and a container on it, made by hand.
fn by_hand(site: &Site, name: &str, number: u8) -> Namespace {
    if !site.node.run("ip link show dev br-hand").success() {
        site.node.ip("link add br-hand address 02:00:00:00:31:01 type bridge");
        site.node.ip("addr add 172.31.0.1/24 dev br-hand");
        site.node.ip("link set br-hand up");
        site.node.sysctl("ipv4/ip_forward", "1");
        site.internet.namespace.ip("route add 172.31.0.0/24 via 192.0.2.2");
    }
    let inside = site.world.namespace(name, None);
    site.node.ip(&format!("link add hand-{name} type veth peer name eth0 netns {}", inside.name()));
    site.node.ip(&format!("link set hand-{name} master br-hand up"));
    if number > 0 {
        dress(&inside, number);
    }
    inside
}

fn dress(inside: &Namespace, number: u8) {
    inside.ip(&format!("addr add 172.31.0.{number}/24 dev eth0"));
    inside.ip("link set eth0 up");
    inside.ip("route add default via 172.31.0.1");
}

#[test]
fn ports_of_a_bridge_without_an_engine_are_workloads_by_their_names() {
    let site = Site::start();
    let missing = site.netctl().try_apply(&adopting("hand", "br-hand"));
    assert!(missing.stderr.contains("there is no bridge `br-hand`"), "{}", missing.stderr);
    let (one, two) = (by_hand(&site, "one", 11), by_hand(&site, "two", 12));
    one.must_reach(denied());

    // Without a namespace all ports are closed, and it is said.
    site.netctl().apply(&adopting("hand", "br-hand"));
    wait_until("it is said why", KNOWN, || conditions(&site).contains("hand-one: no Namespace is on network hand"));
    one.must_not_reach(denied());
    let open = "---\napiVersion: tidegate.dev/v1alpha1\nkind: Namespace\nmetadata: { name: apps }\n\
                spec: { network: hand, egressDefault: Allow, ingressDefault: Deny }\n";
    site.netctl().apply(open);
    wait_until("they are workloads", KNOWN, || names(&site) == ["hand-one", "hand-two"]);
    one.must_reach(denied());
    wait_until("nothing is wrong", KNOWN, || !conditions(&site).contains("adoption"));

    // Two of them meet: `workloadTraffic` says whether.
    let echo = two.echo_server(&["172.31.0.12:7".parse().expect("an address")]);
    one.must_reach(Target::Tcp("172.31.0.12:7".parse().expect("an address")));
    site.netctl().apply(&adopting("hand", "br-hand").replace("} }", "}, workloadTraffic: Isolated }"));
    one.must_not_reach(Target::Tcp("172.31.0.12:7".parse().expect("an address")));
    drop(echo);

    // One that comes without an address waits for it; one with another's stays closed.
    let three = by_hand(&site, "three", 0);
    wait_until("it waits", KNOWN, || conditions(&site).contains("eth0 inside has no address yet"));
    dress(&three, 13);
    wait_until("it is one", KNOWN, || names(&site).contains(&"hand-three".to_owned()));
    three.must_reach(denied());
    let thief = by_hand(&site, "thief", 12);
    wait_until("it is said", KNOWN, || conditions(&site).contains("172.31.0.12 is workload apps/hand-two's already"));
    thief.must_not_reach(denied());
    two.must_reach(denied());

    // Another namespace on the network: nobody knows whose new ports are, and the old ones stay where they are.
    site.netctl().apply(&namespace("more", "hand"));
    by_hand(&site, "four", 14);
    wait_until("it is said", KNOWN, || conditions(&site).contains("several Namespaces are on network hand"));
    assert!(names(&site).contains(&"hand-two".to_owned()));
    site.netctl().ok(&["delete", "namespace", "more"]);
    wait_until("it is one", KNOWN, || names(&site).contains(&"hand-four".to_owned()));

    // A port that leads to no container is closed; a tunnel or card is left alone.
    site.node.ip("tuntap add hand-tap mode tap");
    site.node.ip("link set hand-tap master br-hand up");
    wait_until("it is said", KNOWN, || conditions(&site).contains("hand-tap: it leads into no network namespace"));
    site.node.ip("link del hand-tap");

    // Programs that others take away come back.
    let attached = || site.node.ok("tc filter show dev hand-one ingress").contains("from_workload");
    if attached() {
        site.node.ok("tc filter del dev hand-one ingress");
        wait_until("they are back", KNOWN, attached);
    }

    // Its bridge goes away, and comes back.
    site.node.ip("link del br-hand");
    wait_until("it is said", KNOWN, || conditions(&site).contains("there is no bridge `br-hand`"));
    site.node.ip("link add br-hand address 02:00:00:00:31:01 type bridge");
    site.node.ip("addr add 172.31.0.1/24 dev br-hand");
    site.node.ip("link set br-hand up");
    site.node.ip("link set hand-one master br-hand");
    one.must_reach(denied());
}

#[test]
fn a_port_is_closed_before_anybody_has_seen_it_where_the_kernel_can_tell_its_bridge() {
    kernel::load_module("nft_meta_bridge");
    let mut site = Site::start();
    let one = by_hand(&site, "one", 11);
    let open = "---\napiVersion: tidegate.dev/v1alpha1\nkind: Namespace\nmetadata: { name: apps }\n\
                spec: { network: hand, egressDefault: Allow, ingressDefault: Allow }\n";
    site.netctl().apply(&(adopting("hand", "br-hand") + open));
    wait_until("it is a workload", KNOWN, || names(&site) == ["hand-one"]);
    one.must_reach(denied());

    let words = "nft add table bridge probe; add chain bridge probe c; add rule bridge probe c meta ibrname lo drop";
    let guarded = site.node.run(words).success();
    site.node.run("nft delete table bridge probe");
    assert_eq!(conditions(&site).contains("bridge guard"), !guarded, "it is said where it is not so");
    let table = || site.node.run("nft list table bridge tidegate");
    if guarded {
        site.node.ok("nft delete table bridge tidegate");
        wait_until("it is put back", KNOWN, || table().stdout.contains("br-hand"));

        // Nobody is there to see it.
        site.daemon.kill();
        let late = by_hand(&site, "late", 12);
        let neighbour = "172.31.0.11:7".parse().expect("an address");
        let _echo = one.echo_server(&[neighbour]);
        late.must_not_reach(denied());
        late.must_not_reach(Target::Tcp("172.31.0.1:7".parse().expect("an address")));
        late.must_not_reach(Target::Tcp(neighbour));
        let asked = one.ok("ip neighbour show 172.31.0.12");
        assert!(asked.is_empty(), "not even its question of ARP got there: {asked}");
        one.must_reach(denied());
        site.daemon.restart();
        wait_until("it is a workload", KNOWN, || names(&site) == ["hand-late", "hand-one"]);
        late.must_reach(denied());
        late.must_reach(Target::Tcp(neighbour));
    }
    site.netctl().ok(&["delete", "namespace", "apps"]);
    site.netctl().ok(&["delete", "network", "hand"]);
    wait_until("nothing is left", KNOWN, || !table().success() && !conditions(&site).contains("bridge guard"));
}
