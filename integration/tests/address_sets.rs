//! Address sets with real sockets: both tiers, single changes, files that change, go bad and come back.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use integration::daemon::Settings;
use integration::manifests::{allow_cidrs, cluster_policy, policy, two_tenants};
use integration::site::{API, ECHO, Host, OTHER};
use integration::traffic::Target;
use integration::wait::wait_until;
use integration::world::World;
use integration::{Pod, Site};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(10);
const PORT: u16 = 7;

fn tcp(host: Host) -> Target {
    Target::new("tcp", host.v4(), PORT)
}

/// An address set; `namespace` is empty for one of the administrators.
fn set(namespace: &str, name: &str, spec: &str) -> String {
    let namespace = if namespace.is_empty() { String::new() } else { format!(", namespace: {namespace}") };
    format!(
        "---\napiVersion: tidegate.dev/v1alpha1\nkind: AddressSet\nmetadata: {{ name: {name}{namespace} }}\nspec: {spec}\n"
    )
}

fn prefixes(site: &Site, words: &[&str]) -> u64 {
    let shown = site.netctl().json(&[&["get", "addressset"], words].concat());
    shown["status"]["prefixes"].as_u64().unwrap_or_else(|| panic!("{shown:#}"))
}

fn explained(site: &Site, to: &str) -> Value {
    let said = site.netctl().run(&["explain", "--from", "shop/web-1", "--to", to, "-o", "json"]);
    serde_json::from_str(&said.stdout).unwrap_or_else(|_| panic!("{to}: {}", said.stderr))
}

/// One datagram from always the same port, so that it belongs to always the same flow; whether it was echoed.
fn asks(pod: &Pod, of: IpAddr, port: u16) -> bool {
    pod.enter(|| {
        let socket = UdpSocket::bind(("0.0.0.0", port)).expect("a port of the workload");
        socket.set_read_timeout(Some(Duration::from_millis(700))).expect("a deadline");
        socket.send_to(b"tidegate", SocketAddr::new(of, PORT)).is_ok() && socket.recv_from(&mut [0; 64]).is_ok()
    })
}

/// Puts a whole file in the place of another at once, as well-behaved feeds do.
fn put(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    fs::write(&beside, text).expect("a file beside it");
    fs::rename(&beside, path).expect("the file's place");
}

#[test]
fn rules_of_both_tiers_name_sets_and_single_prefixes_come_and_go() {
    let site = Site::start();
    let sets = set("", "drop", "{ cidrs: [ 203.0.113.66/32 ] }")
        + &set("shop", "hosts", "{ cidrs: [ 203.0.113.0/24, \"2001:db8:113::/64\" ] }");
    let rules =
        "  deny:\n    - sets: [ _admin/drop ]\n  allow:\n    - sets: [ hosts ]\n      except: [ 203.0.113.10/32 ]\n";
    site.netctl().apply(&(two_tenants() + &sets + &policy("shop", "web", rules)));
    let web = site.attach("shop", "web-1", &[]);
    web.must_reach(tcp(ECHO));
    web.must_reach(Target::new("udp", ECHO.v6(), PORT));
    web.must_not_reach(tcp(API));
    let said = explained(&site, "203.0.113.30:7");
    assert!(said["verdict"].as_str().unwrap_or_default().ends_with("203.0.113.0/24 of AddressSet `hosts`"), "{said:#}");

    // An open flow ends with the next packet after the answer, and others stay.
    assert!(asks(&web, ECHO.v4(), 40_000));
    let mut other = web.open((OTHER.v4(), PORT).into());
    other.must_echo();
    let said = site.netctl().json(&["patch", "addressset", "drop", "--add", "203.0.113.30"]);
    assert_eq!((&said["added"], &said["removed"], &said["prefixes"]), (&1.into(), &0.into(), &2.into()));
    assert!(!asks(&web, ECHO.v4(), 40_000), "the flow that the set now denies is still open");
    web.must_not_reach(tcp(ECHO));
    other.must_echo();
    let said = explained(&site, "203.0.113.30:7");
    assert_eq!(said["rule"], "egresspolicy/shop/web deny[0]");
    assert!(
        said["verdict"].as_str().unwrap_or_default().contains("203.0.113.30/32 of AddressSet `_admin/drop`"),
        "{said:#}"
    );
    let said = site.netctl().json(&["patch", "aset/_admin/drop", "--remove", "203.0.113.30/32", "10.0.0.0/8"]);
    assert_eq!((&said["removed"], &said["notThere"][0]), (&1.into(), &"10.0.0.0/8".into()));
    web.must_reach(tcp(ECHO));
    other.must_echo();

    // The same set in the admin tier, under its plain name.
    site.netctl().apply(&cluster_policy("base", "{}", "  deny:\n    - sets: [ drop ]\n"));
    site.netctl().ok(&["patch", "addressset", "drop", "--add", "203.0.113.31/32"]);
    assert!(!other.echoes_within(Duration::from_secs(2)), "a set of the admin tier ends open flows");
    assert_eq!(explained(&site, "203.0.113.31:7")["rule"], "clusteregresspolicy/base deny[0]");

    let refused = |words: &[&str], why: &str| {
        let said = site.netctl().run(words);
        assert!(said.status == 1 && said.stderr.contains(why), "{words:?}: {} {}", said.status, said.stderr);
    };
    refused(&["delete", "addressset", "drop"], "clusteregresspolicy/base, egresspolicy/shop/web are still built on it");
    refused(&["patch", "addressset", "drop", "--add", "10.0.0.1/8"], "bits set behind its length");
    refused(
        &["patch", "addressset", "drop", "--add", "10.0.0.1", "--remove", "10.0.0.1/32"],
        "both come in and go out",
    );
    refused(&["patch", "addressset", "hosts", "--add", "10.0.0.1"], "there is no addressset/hosts");
    let said = site.netctl().try_apply(&policy("shop", "q", "  allow:\n    - sets: [ drop ]\n"));
    assert!(
        said.stderr.contains("there is no AddressSet `drop` in namespace `shop`; write `_admin/drop`"),
        "{}",
        said.stderr
    );
    let both = set("shop", "hosts", "{ cidrs: [] }") + &policy("shop", "web", rules);
    site.netctl().with_file(&both, |file| site.netctl().ok(&["delete", "-f", file]));
    web.must_not_reach(tcp(ECHO));
    assert_eq!(site.netctl().ok(&["get", "addresssets", "-o", "name"]), "addressset/drop\n");
}

#[test]
fn a_changed_file_is_put_in_force_and_a_bad_one_is_not() {
    let mut site = Site::start();
    let file: PathBuf = site.files("shop").join("feed.txt");
    let manifests = two_tenants()
        + &set("shop", "feed", "{ file: feed.txt }")
        + &policy("shop", "web", "  allow:\n    - sets: [ feed ]\n");
    let said = site.netctl().try_apply(&manifests);
    assert!(said.status == 1 && said.stderr.contains("cannot read feed.txt"), "{}", said.stderr);
    fs::write(&file, "203.0.113.30 # echo\r\n203.0.113.31/8\n").unwrap();
    let said = site.netctl().try_apply(&manifests);
    assert!(said.stderr.contains("feed.txt:2: `203.0.113.31/8` has bits set behind its length"), "{}", said.stderr);
    fs::write(&file, "203.0.113.30 # echo\r\n203.0.113.31/32\n").unwrap();
    site.netctl().apply(&manifests);
    let web = site.attach("shop", "web-1", &[]);
    let mut open = web.open((ECHO.v4(), PORT).into());
    open.must_echo();
    assert!(asks(&web, OTHER.v4(), 40_000));

    // Wider, by another file in its place: nothing open is disturbed.
    web.must_not_reach(tcp(API));
    put(&file, "203.0.113.30\n203.0.113.31\n203.0.113.10\n");
    wait_until("the wider file is in force", PATIENCE, || prefixes(&site, &["feed", "-n", "shop"]) == 3);
    web.must_reach(tcp(API));
    open.must_echo();
    // Narrower, rewritten in place: the flow ends with its next packet.
    fs::write(&file, "203.0.113.30\n203.0.113.10\n").unwrap();
    wait_until("the narrower file is in force", PATIENCE, || prefixes(&site, &["feed", "-n", "shop"]) == 2);
    assert!(!asks(&web, OTHER.v4(), 40_000), "a flow that the file no longer lists is still open");
    open.must_echo();

    let condition = |site: &Site| {
        let status = site.netctl().json(&["status"]);
        let all = status["conditions"].as_array().cloned().unwrap_or_default();
        all.into_iter().find(|one| one["what"] == "addressset/shop/feed").map(|one| one["text"].to_string())
    };
    fs::write(&file, "203.0.113.30\nexample.com\n").unwrap();
    wait_until("the bad file is named", PATIENCE, || condition(&site).is_some_and(|it| it.contains("feed.txt:2: ")));
    let shown = site.netctl().json(&["get", "addressset", "feed", "-n", "shop"]);
    assert_eq!((&shown["status"]["ready"], &shown["status"]["prefixes"]), (&false.into(), &2.into()));
    web.must_reach(tcp(API));
    fs::remove_file(&file).unwrap();
    wait_until("the missing file is named", PATIENCE, || condition(&site).is_some_and(|it| it.contains("cannot read")));
    open.must_echo();

    // What was good last outlives the daemon, also where the file is still missing.
    site.daemon.kill();
    open.must_echo();
    site.daemon.restart();
    wait_until("it is named again", PATIENCE, || condition(&site).is_some());
    assert_eq!(prefixes(&site, &["feed", "-n", "shop"]), 2);
    web.must_reach(tcp(API));
    web.must_not_reach(tcp(OTHER));
    put(&file, "203.0.113.31\n");
    wait_until("all is well again", PATIENCE, || condition(&site).is_none());
    web.must_reach(tcp(OTHER));
    web.must_not_reach(tcp(API));
    let said = site.netctl().run(&["patch", "addressset", "feed", "-n", "shop", "--add", "203.0.113.10"]);
    assert!(said.stderr.contains("come from its file") && said.stderr.contains("shop/feed.txt"), "{}", said.stderr);
}

#[test]
fn a_file_that_is_being_written_is_not_taken_by_halves() {
    let site = Site::start();
    let file = site.files("_admin").join("drop.txt");
    let whole: Vec<String> = (0..200).map(|low| format!("198.18.7.{low}\n")).chain(["203.0.113.31\n".into()]).collect();
    fs::write(&file, whole.concat()).unwrap();
    let everything = policy("shop", "open", &allow_cidrs(&["0.0.0.0/0"], ""));
    let base = cluster_policy("base", "{}", "  deny:\n    - sets: [ drop ]\n");
    site.netctl().apply(&(two_tenants() + &everything + &set("", "drop", "{ file: drop.txt }") + &base));
    let web = site.attach("shop", "web-1", &[]);
    web.must_not_reach(tcp(OTHER));

    // The address that is denied stands in the last line, which comes late.
    let mut slow = OpenOptions::new().write(true).truncate(true).open(&file).unwrap();
    for line in whole.iter().take(20) {
        let (front, back) = line.split_at(line.len() / 2);
        for part in [front, back] {
            slow.write_all(part.as_bytes()).unwrap();
            thread::park_timeout(Duration::from_millis(50));
            assert_eq!(prefixes(&site, &["drop"]), 201, "half a file is in force");
        }
    }
    slow.write_all(whole[20..].concat().as_bytes()).unwrap();
    slow.write_all(b"203.0.113.10\n").unwrap();
    drop(slow);
    wait_until("the whole file is in force", PATIENCE, || prefixes(&site, &["drop"]) == 202);
    web.must_not_reach(tcp(OTHER));
    web.must_not_reach(tcp(API));
    web.must_reach(tcp(ECHO));
}

#[test]
fn a_hundred_thousand_prefixes() {
    let site = Site::start();
    let file = site.files("_admin").join("drop.txt");
    let listed = |number: u32| format!("{}\n", IpAddr::from((0x0b00_0000 + number * 37).to_be_bytes()));
    let mut text: String = (0..100_000).map(listed).collect();
    text.push_str("203.0.113.31\n2001:db8:113::31\n");
    put(&file, &text);
    let everything = policy("shop", "open", &allow_cidrs(&["0.0.0.0/0", "::/0"], ""));
    let base = cluster_policy("base", "{}", "  deny:\n    - sets: [ drop ]\n");
    let start = Instant::now();
    site.netctl().apply(&(two_tenants() + &everything + &set("", "drop", "{ file: drop.txt }") + &base));
    println!("100 002 prefixes applied in {:?}", start.elapsed());
    let web = site.attach("shop", "web-1", &[]);
    for address in OTHER.both() {
        web.must_not_reach(Target::new("tcp", address, PORT));
    }
    for address in ECHO.both() {
        web.must_reach(Target::new("tcp", address, PORT));
    }
    assert_eq!(explained(&site, "11.0.0.37:80")["rule"], "clusteregresspolicy/base deny[0]");
    let listed = site.netctl().ok(&["get", "addresssets"]);
    assert!(listed.contains("100002") && listed.len() < 500, "{listed}");

    text.push_str("203.0.113.30\n");
    put(&file, &text);
    wait_until("one more is in force", PATIENCE, || prefixes(&site, &["drop"]) == 100_003);
    web.must_not_reach(tcp(ECHO));
}

#[test]
fn more_than_the_kernel_can_hold_changes_nothing() {
    let more = "[limits]\nprefixes = 1000\n".to_owned();
    let site = Site::with(World::new(), Settings { more, ..Site::settings() });
    let file = site.files("_admin").join("feed.txt");
    put(&file, "203.0.113.30\n");
    let rules = policy("shop", "web", "  allow:\n    - sets: [ _admin/feed ]\n");
    site.netctl().apply(&(two_tenants() + &set("", "feed", "{ file: feed.txt }") + &rules));
    let web = site.attach("shop", "web-1", &[]);
    let mut open = web.open((ECHO.v4(), PORT).into());
    open.must_echo();

    let mut text = String::from("203.0.113.31\n");
    for number in 0..2_000u32 {
        writeln!(text, "{}", IpAddr::from((0x0b00_0000 + number * 3).to_be_bytes())).expect("a line");
    }
    put(&file, &text);
    let told = |word: &str| {
        let status = site.netctl().json(&["status"]);
        let all = status["conditions"].as_array().cloned().unwrap_or_default();
        all.iter().any(|one| one["what"] == "addressset/feed" && one["text"].to_string().contains(word))
    };
    wait_until("the full table is named", PATIENCE, || told("table `classes4`") && told("it is full"));
    assert_eq!(prefixes(&site, &["feed"]), 1);
    open.must_echo();
    web.must_not_reach(tcp(OTHER));
    put(&file, "203.0.113.31\n");
    wait_until("what fits is in force", PATIENCE, || !told(""));
    web.must_reach(tcp(OTHER));
    assert!(!open.echoes_within(Duration::from_secs(2)), "a flow that the file no longer lists is still open");
}
