//! Bad inputs of each kind: refused whole, with what is wrong and the mend, and nothing changed.

use std::fs;
use std::process::Command;

use integration::daemon::{Netctl, binary};
use integration::manifests::{allow_cidrs, namespace, network, policy, two_tenants};
use integration::process::output;
use integration::world::World;
use integration::{Pod, Site};

const HEAD: &str = "apiVersion: tidegate.dev/v1alpha1\n";

fn resources(site: &Site) -> [String; 4] {
    ["networks", "namespaces", "egresspolicies", "exposedapps"]
        .map(|kind| site.netctl().ok(&["get", kind, "-o", "name"]))
}

#[test]
fn bad_manifests_are_refused_whole_with_place_and_mend() {
    let site = Site::start();
    site.netctl().apply(&(two_tenants() + &policy("shop", "p", &allow_cidrs(&["203.0.113.30/32"], ""))));
    let before = resources(&site);
    let good = network("tenant-c", 77, "");
    let cases: &[(&str, String, &[&str])] = &[
        ("an unknown field", network("x", 5, "  colour: blue\n"), &["colour"]),
        ("an unknown kind", format!("{HEAD}kind: Netwrk\nmetadata: {{ name: x }}\nspec: {{}}\n"), &["Netwrk"]),
        ("text that is no YAML", "kind: [\n".to_owned(), &[":"]),
        ("a wrong address", network("x", 5, "").replace("10.5.0.0/24", "10.5.0.0/42"), &["10.5.0.0/42"]),
        ("host bits", network("x", 5, "").replace("10.5.0.0/24", "10.5.0.7/24"), &["10.5.0.7/24"]),
        ("a VLAN out of range", network("x", 5, "  vlan: { parent: trunk0, id: 4095 }\n"), &["4095", "4094"]),
        ("a missing network", namespace("lost", "nowhere"), &["nowhere"]),
        ("overlapping subnets", network("x", 100, ""), &["overlap"]),
        ("a policy without a namespace that exists", policy("nobody", "p", "  allow: []\n"), &["nobody"]),
        (
            "a bad port",
            policy("shop", "q", &allow_cidrs(&["10.0.0.0/8"], "[ { protocol: TCP, port: 70000 } ]")),
            &["70000"],
        ),
        (
            "a bad pattern",
            policy("shop", "q", "  allow:\n    - dnsNames: [\"a.*.example.com\"]\n      verify: None\n"),
            &["a.*.example.com"],
        ),
        (
            "verification of what has no TLS",
            policy(
                "shop",
                "q",
                "  allow:\n    - dnsNames: [a.example.com]\n      verify: TLS\n      ports: [ { protocol: SCTP, port: 9 } ]\n",
            ),
            &["verify", "SCTP"],
        ),
        ("a mode", policy("shop", "q", "  mode: Watch\n  allow: []\n"), &["Watch", "Audit"]),
        (
            "a set of nothing",
            format!("{HEAD}kind: AddressSet\nmetadata: {{ name: x }}\nspec: {{}}\n"),
            &["where its prefixes come from"],
        ),
        (
            "adoption of more",
            network("x", 5, "  adopt: { bridge: docker0 }\n"),
            &["`subnets` beside `adopt`", "leave it out"],
        ),
    ];
    for (what, bad, words) in cases {
        let said = site.netctl().try_apply(&format!("{good}{}", with_separator(bad)));
        let text = said.stdout.clone() + &said.stderr;
        assert_eq!(said.status, 1, "{what} is refused: {text}");
        for word in *words {
            assert!(said.stderr.contains(word), "{what}: the message names `{word}`: {text}");
        }
        assert_eq!(resources(&site), before, "{what}: nothing is taken, the good ones included");
    }
    let all_at_once = network("x", 5, "  colour: blue\n  shape: round\n");
    let said = site.netctl().try_apply(&all_at_once);
    assert!(said.stderr.contains("colour") && said.stderr.contains("shape"), "every problem at once: {}", said.stderr);
}

#[test]
fn a_network_does_not_take_the_nodes_own_subnet() {
    let site = Site::start();
    let taking = network("x", 5, "").replace("10.5.0.0/24", "192.0.2.0/25").replace("10.5.0.1", "192.0.2.1");
    let said = site.netctl().try_apply(&taking);
    assert_eq!(said.status, 1, "{}", said.stdout);
    assert!(said.stderr.contains("192.0.2.2/24") && said.stderr.contains("eth0"), "{}", said.stderr);
    assert!(site.node.ip("route get 192.0.2.1").contains("dev eth0"), "the uplink's router is reached as before");
}

#[test]
fn what_others_build_on_is_not_deleted_and_they_are_named() {
    let site = Site::start();
    site.netctl().apply(&two_tenants());
    for (kind, name, user) in [("network", "tenant-a", "namespace/shop"), ("namespace", "shop", "egresspolicy/shop/p")]
    {
        site.netctl().apply(&policy("shop", "p", &allow_cidrs(&["203.0.113.30/32"], "")));
        let said = site.netctl().run(&["delete", kind, name]);
        assert_eq!(said.status, 1, "{}", said.stdout);
        assert!(said.stderr.contains(user) && said.stderr.contains("still built on it"), "{}", said.stderr);
    }
}

#[test]
fn a_workload_with_another_way_out_is_attached_only_knowingly() {
    let site = Site::start();
    site.netctl().apply(&two_tenants());
    let netns = site.world.namespace("two-ways", None);
    let path = netns.path().to_str().expect("a path").to_owned();
    site.world.link((&netns, "eth0"), (&site.internet.namespace, "back0"));
    netns.ip("link set eth0 up");
    let line = ["attach", "two-ways", "-n", "shop", "--netns", &path, "--interface", "tide0"];
    let said = site.netctl().run(&line);
    assert_eq!(said.status, 1, "{}", said.stdout);
    assert!(said.stderr.contains("eth0") && said.stderr.contains("--beside-others"), "{}", said.stderr);
    assert_eq!(site.netctl().ok(&["get", "workloads", "-A", "-o", "name"]), "", "nothing was attached");
    site.netctl().ok(&[&line[..], &["--beside-others"]].concat());
    assert!(netns.ip("-o link").contains("tide0"));
}

fn with_separator(text: &str) -> String {
    if text.starts_with("---") { text.to_owned() } else { format!("---\n{text}") }
}

#[test]
fn attachments_that_cannot_be_are_refused_and_undone() {
    let site = Site::start();
    site.netctl().apply(&two_tenants());
    let before = site.node.ip("-o link");
    let own = site.node.path().to_str().expect("a path").to_owned();
    for (what, netns, tenant) in [
        ("a path that is not there", "/run/netns/nothing-there", "shop"),
        ("a file that is no namespace", "/etc/hostname", "shop"),
        ("the node's own namespace", own.as_str(), "shop"),
        ("a namespace that is not there", own.as_str(), "nobody"),
    ] {
        let said = site.netctl().run(&["attach", "bad", "-n", tenant, "--netns", netns]);
        assert_eq!(said.status, 1, "{what}: {}{}", said.stdout, said.stderr);
        assert!(!said.stderr.trim().is_empty(), "{what}: a message");
    }
    assert_eq!(site.node.ip("-o link"), before, "refused attachments leave no links");

    let web = site.attach("shop", "web-1", &[]);
    let path = web.path().to_str().expect("a path");
    let again = site.netctl().run(&["attach", "web-1", "-n", "shop", "--netns", path]);
    assert_eq!(again.status, 0, "the same attachment again changes nothing: {}", again.stderr);
    assert!(again.stdout.contains(&web.v4.to_string()), "{}", again.stdout);
    let other = site.world.namespace("other", None);
    let other = other.path().to_str().expect("a path");
    let taken = site.netctl().run(&["attach", "web-1", "-n", "shop", "--netns", other]);
    assert_eq!(taken.status, 1, "a name is taken once: {}", taken.stdout);
    assert!(web.run(&format!("ip link show dev {}", Pod::INTERFACE)).success(), "the first attachment is untouched");
    let absent = site.netctl().run(&["detach", "web-9", "-n", "shop"]);
    assert_eq!(absent.status, 1);
    let in_use = site.netctl().run(&["delete", "network", "tenant-a"]);
    assert_eq!(in_use.status, 1, "a network in use stays: {}", in_use.stdout);
    assert!(in_use.stderr.contains("shop") || in_use.stderr.contains("web-1"), "{}", in_use.stderr);
}

#[test]
fn the_command_line_tells_usage_from_refusal() {
    let site = Site::start();
    for words in [
        &["frobnicate"][..],
        &["get"],
        &["attach", "x"],
        &["explain", "--from", "x"],
        &["get", "networks", "-o", "xml"],
    ] {
        assert_eq!(site.netctl().run(words).status, 2, "netctl {}", words.join(" "));
    }
    let absent = site.netctl().run(&["get", "network", "nothing"]);
    assert_eq!(absent.status, 1);
    assert!(absent.stdout.is_empty() && absent.stderr.contains("nothing"), "{}", absent.stderr);

    let nobody = Netctl::at(&site.world.folder().join("no.sock")).run(&["status"]);
    assert_eq!(nobody.status, 1);
    assert!(nobody.stderr.contains("no.sock"), "{}", nobody.stderr);

    site.netctl().apply(&two_tenants());
    site.attach("shop", "web-1", &[]);
    let denied = site.netctl().run(&["explain", "--from", "shop/web-1", "--to", "203.0.113.30:7"]);
    assert_eq!(denied.status, 3, "{}{}", denied.stdout, denied.stderr);

    let socket = site.netctl().socket().display().to_string();
    let broken =
        format!("set -o pipefail; {} --socket {socket} get namespaces -o yaml | head -c 1", binary("netctl").display());
    assert_eq!(output(Command::new("bash").args(["-c", &broken])).status, 0, "a broken pipe is success");
}

#[test]
fn the_socket_is_its_owners_alone() {
    use std::os::unix::fs::MetadataExt;
    let site = Site::start();
    let metadata = fs::metadata(site.netctl().socket()).expect("the socket");
    assert_eq!(metadata.mode() & 0o077, 0);
}

#[test]
fn bad_settings_are_refused_by_check_and_by_run() {
    let world = World::new();
    let file = world.folder().join("bad.toml");
    let cases = [
        ("an unknown key", "[node]\nuplnk = \"eth0\"\n", "uplnk"),
        ("no TOML", "[node\n", "bad.toml"),
        ("a wrong address", "[dns]\nupstreams = [\"10.0.0.300\"]\n", "10.0.0.300"),
    ];
    for (what, text, word) in cases {
        fs::write(&file, text).expect("bad.toml");
        for verb in ["check", "run"] {
            let said = output(Command::new(binary("gateway")).arg(verb).arg("--config").arg(&file));
            assert_eq!(said.status, 1, "{what}: gateway {verb}: {}{}", said.stdout, said.stderr);
            assert!((said.stdout + &said.stderr).contains(word), "{what}: gateway {verb} names {word}");
        }
    }
    let missing = output(Command::new(binary("gateway")).args(["check", "--config", "/nonexistent/gateway.toml"]));
    assert_eq!(missing.status, 1);
    assert_eq!(output(Command::new(binary("gateway")).arg("frobnicate")).status, 2);
}

#[test]
fn check_and_doctor_tell_what_this_kernel_has() {
    let site = Site::start();
    let check =
        site.node.command(binary("gateway")).arg("check").arg("--config").arg(site.daemon.configuration()).output();
    let check = check.expect("gateway check");
    let text = String::from_utf8_lossy(&check.stdout).into_owned() + &String::from_utf8_lossy(&check.stderr);
    assert!(check.status.success(), "{text}");
    let has_vlans = integration::kernel::has_vlans();
    assert!(text.contains("8021q"), "{text}");
    let doctor = site.netctl().run(&["doctor", "-o", "json"]);
    let report: serde_json::Value = serde_json::from_str(&doctor.stdout).expect("doctor -o json");
    let vlan = report["checks"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|check| check["name"].as_str().is_some_and(|name| name == "VLAN interfaces"));
    let vlan = vlan.unwrap_or_else(|| panic!("doctor speaks of VLANs: {report:#}"));
    assert_eq!(vlan["ok"], has_vlans, "{vlan:#}");
}

#[test]
fn a_second_gateway_on_the_same_folders_is_refused() {
    let site = Site::start();
    let second =
        output(site.node.command(binary("gateway")).arg("run").arg("--config").arg(site.daemon.configuration()));
    assert_eq!(second.status, 1, "{}{}", second.stdout, second.stderr);
    site.netctl().ok(&["status"]);
}
