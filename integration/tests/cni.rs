//! The CNI plugin: by hand as an engine calls it, and by Podman and crun.

use std::path::Path;
use std::thread;
use std::time::Duration;

use integration::manifests::{allow_cidrs, policy_for, two_tenants};
use integration::namespace::Namespace;
use integration::peers::cni::{Container, Plugin};
use integration::peers::podman::{Podman, crun};
use integration::site::{API, ECHO, OTHER};
use integration::traffic::Target;
use integration::wait::wait_until;
use integration::{Site, site};
use serde_json::{Value, json};

/// A site whose tenants' workloads with `app=web` may reach [`ECHO`] at TCP port 7, and nothing else.
fn stage() -> Site {
    let site = Site::start();
    let rules = allow_cidrs(&[&format!("{}/32", ECHO.v4())], "[ { protocol: TCP, port: 7 } ]");
    let web = "{ matchLabels: { app: web } }";
    site.netctl().apply(&(two_tenants() + &policy_for("shop", "web", web, &rules)));
    site
}

fn plugin(site: &Site) -> Plugin {
    Plugin::new(site.netctl().socket(), "shop").with(json!({ "labels": { "app": "web" } }))
}

fn container(site: &Site, id: &str) -> (Container, Namespace) {
    let namespace = site.world.namespace(id, None);
    let arguments = format!("IgnoreUnknown=1;K8S_POD_NAME={id}");
    (Container { id: format!("{id}-0123456789abcdef"), netns: namespace.path().to_owned(), arguments }, namespace)
}

fn workloads(site: &Site) -> Vec<String> {
    let list = site.netctl().json(&["get", "workloads", "-A"]);
    let items = list["items"].as_array().cloned().unwrap_or_default();
    let name = |item: &Value| item["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    items.iter().map(name).collect()
}

fn allowed() -> Target {
    Target::Tcp((ECHO.v4(), 7).into())
}

fn denied() -> Target {
    Target::Tcp((OTHER.v4(), 7).into())
}

#[test]
fn a_container_is_added_checked_and_taken_away() {
    let site = stage();
    let (plugin, (container, namespace)) = (plugin(&site), container(&site, "web-1"));
    assert_eq!(plugin.call("STATUS", None), Ok(Value::Null));
    let result = plugin.ok("ADD", &container);
    let pod = site::pod("shop", "web-1", namespace);
    assert_eq!(result["cniVersion"], "1.1.0");
    assert_eq!(
        result["interfaces"][2],
        json!({ "name": "eth0", "mac": pod.mac.to_string(), "sandbox": container.netns })
    );
    let [v4, v6] = [format!("{}/24", pod.v4), format!("{}/64", pod.v6)];
    assert_eq!(result["ips"][0], json!({ "address": v4, "gateway": "10.100.0.1", "interface": 2 }));
    assert_eq!(result["ips"][1], json!({ "address": v6, "gateway": "fd00:100::1", "interface": 2 }));
    assert_eq!(result["routes"][1], json!({ "dst": "::/0", "gw": "fd00:100::1" }));
    assert_eq!(result["dns"]["nameservers"], json!(["10.100.0.1", "fd00:100::1"]));
    let workload = site.netctl().json(&["get", "workload", "web-1", "-n", "shop"]);
    let host = workload["status"]["hostInterface"].as_str().expect("its host side");
    for (index, name) in ["tgb-tenant-a", host].into_iter().enumerate() {
        let link = site.node.ip_json(&format!("link show dev {name}"));
        assert_eq!(result["interfaces"][index], json!({ "name": name, "mac": link[0]["address"] }));
    }
    pod.must_reach(allowed());
    pod.must_not_reach(denied());

    let checking = plugin.with(json!({ "prevResult": result }));
    assert_eq!(checking.ok("CHECK", &container), Value::Null);
    assert_eq!(plugin.code("CHECK", Some(&container)), 7, "without what was answered then");
    pod.ip(&format!("addr del {v4} dev eth0"));
    assert_eq!(checking.code("CHECK", Some(&container)), 7);

    assert_eq!(plugin.ok("DEL", &container), Value::Null);
    assert_eq!(workloads(&site), [""; 0]);
    let gone = || !pod.run("ip link show dev eth0").success();
    wait_until("the interface went with it", Duration::from_secs(5), gone);
    assert_eq!(plugin.ok("DEL", &container), Value::Null, "again");
    assert_eq!(checking.code("CHECK", Some(&container)), 7);
}

#[test]
fn an_engine_may_repeat_itself_and_names_may_come_again() {
    let site = stage();
    let (plugin, (first, inside)) = (plugin(&site), container(&site, "web-1"));
    let result = plugin.ok("ADD", &first);
    assert_eq!(plugin.ok("ADD", &first), result);

    // A pod of the same name, in a sandbox of its own, as long as the first one is there.
    let again = site.world.namespace("again", None);
    let second = Container { id: "another".to_owned(), netns: again.path().to_owned(), ..first.clone() };
    assert_eq!(plugin.code("ADD", Some(&second)), 11);
    drop(inside);
    integration::sys::netns::release(&first.netns).unwrap();
    wait_until("its engine may try again", Duration::from_secs(5), || plugin.call("ADD", Some(&second)).is_ok());
    assert_eq!(plugin.ok("DEL", &first), Value::Null, "late");
    assert_eq!(workloads(&site), ["web-1"], "what was deleted late was the first one");
    site::pod("shop", "web-1", again).must_reach(allowed());

    // Names of Podman are not always names.
    for (number, said) in ["Hungry_Turing", "hungry-turing", "", "___"].into_iter().enumerate() {
        let (mut other, _namespace) = container(&site, &format!("c{number}"));
        other.arguments = format!("K8S_POD_NAME={said}");
        plugin.ok("ADD", &other);
    }
    let mut names = workloads(&site);
    names.sort_unstable();
    assert_eq!(names, ["c2-012345678", "c3-012345678", "hungry-turing", "hungry-turing-c0-012345678", "web-1"]);
}

#[test]
fn without_the_daemon_nothing_is_added_and_what_is_taken_away_is_caught_up() {
    let mut site = stage();
    let (plugin, (first, _inside), (second, _other)) =
        (plugin(&site), container(&site, "web-1"), container(&site, "web-2"));
    plugin.ok("ADD", &first);
    site.daemon.kill();
    assert_eq!(plugin.code("ADD", Some(&second)), 11);
    assert_eq!(plugin.call("STATUS", None).unwrap_err()["code"], 50);
    assert_eq!(plugin.ok("DEL", &first), Value::Null);
    assert_eq!(plugin.ok("DEL", &second), Value::Null, "that never was");
    site.daemon.restart();
    assert_eq!(workloads(&site), [""; 0]);
    site.daemon.terminate();
    site.daemon.restart();
    plugin.ok("ADD", &first);
    assert_eq!(workloads(&site), ["web-1"], "what was caught up once is over");

    // It may die before what it has detached is gone.
    plugin.ok("DEL", &first);
    site.daemon.kill();
    site.daemon.restart();
    assert_eq!(workloads(&site), [""; 0]);
    assert!(!site.node.ok("ip -o link show type veth").contains("tgw"), "nothing is left");
}

#[test]
fn what_an_engine_has_forgotten_is_collected() {
    let site = stage();
    let plugin = plugin(&site);
    let containers: Vec<_> = ["web-1", "web-2", "web-3"].iter().map(|name| container(&site, name)).collect();
    containers.iter().for_each(|(container, _)| drop(plugin.ok("ADD", container)));
    site.attach("shop", "by-hand", &[]);
    let other = plugin.with(json!({ "name": "other" }));
    let (elsewhere, _inside) = container(&site, "web-4");
    other.ok("ADD", &elsewhere);
    assert_eq!(plugin.call("GC", None).unwrap_err()["code"], 7, "who is valid must be said");
    let valid = json!([{ "containerID": containers[1].0.id, "ifname": "eth0" }]);
    assert_eq!(plugin.with(json!({ "cni.dev/valid-attachments": valid })).call("GC", None), Ok(Value::Null));
    let mut names = workloads(&site);
    names.sort_unstable();
    assert_eq!(names, ["by-hand", "web-2", "web-4"]);
}

#[test]
fn what_cannot_be_done_is_said_by_its_code() {
    let site = stage();
    let (plugin, (web, _inside)) = (plugin(&site), container(&site, "web-1"));
    let version = plugin.call("VERSION", None).unwrap();
    assert_eq!(version["supportedVersions"], json!(["1.1.0", "1.0.0", "0.4.0", "0.3.1", "0.3.0"]));
    for (what, keys, code) in [
        ("a version of tomorrow", json!({ "cniVersion": "2.0.0" }), 1),
        ("no namespace", json!({ "namespace": null }), 7),
        ("a namespace that is not there", json!({ "namespace": "nowhere" }), 7),
        ("labels that are none", json!({ "labels": { "app": "-" } }), 7),
        ("ports that are none", json!({ "ports": ["http=many"] }), 7),
        ("another plugin before", json!({ "prevResult": { "cniVersion": "1.1.0" } }), 7),
        ("no name", json!({ "name": "" }), 7),
        ("labels of another kind", json!({ "labels": 7 }), 6),
        ("an address of another network", json!({ "runtimeConfig": { "ips": ["10.7.0.1/24"] } }), 7),
        ("the gateway's address", json!({ "runtimeConfig": { "ips": ["10.100.0.1"] } }), 7),
        ("everybody's Ethernet address", json!({ "runtimeConfig": { "mac": "ff:ff:ff:ff:ff:ff" } }), 7),
    ] {
        assert_eq!(plugin.with(keys).code("ADD", Some(&web)), code, "{what}");
    }
    assert_eq!(plugin.code("ADD", None), 4);
    assert_eq!(plugin.code("PURGE", Some(&web)), 4);
    let unknown = plugin.with(json!({ "namespace": "nowhere" }));
    assert_eq!(unknown.call("STATUS", None).unwrap_err()["code"], 50);
    let gone = Container { netns: "/run/netns/never-was".into(), ..web.clone() };
    assert_eq!(plugin.code("ADD", Some(&gone)), 3);
    assert_eq!(workloads(&site), [""; 0], "nothing is left of any of them");

    let old = plugin.with(json!({ "cniVersion": "0.4.0" })).ok("ADD", &web);
    assert_eq!((&old["ips"][0]["version"], &old["ips"][1]["version"]), (&json!("4"), &json!("6")));
}

#[test]
fn addresses_may_be_asked_for() {
    let site = stage();
    let (plugin, (web, namespace)) = (plugin(&site), container(&site, "web-1"));
    let keys = json!({ "runtimeConfig": { "ips": ["10.100.0.77/24", "fd00:100::77"], "mac": "02:00:5e:10:00:07" } });
    let asked = plugin.with(keys);
    asked.ok("ADD", &web);
    let pod = site::pod("shop", "web-1", namespace);
    assert_eq!((pod.v4.to_string(), pod.v6.to_string()), ("10.100.0.77".to_owned(), "fd00:100::77".to_owned()));
    assert_eq!(pod.mac.to_string(), "02:00:5e:10:00:07");
    pod.must_reach(allowed());
    let (other, inside) = container(&site, "web-2");
    assert_eq!(asked.code("ADD", Some(&other)), 7, "another has them");
    let netns = inside.path().to_str().unwrap();
    let said = site.netctl().run(&["attach", "web-2", "-n", "shop", "--netns", netns, "--address", "10.100.0.77"]);
    assert!(said.stderr.contains("another workload has it"), "{}", said.stderr);
    site.netctl().ok(&["attach", "web-2", "-n", "shop", "--netns", netns, "--address", "10.100.0.78"]);
    assert_eq!(site::pod("shop", "web-2", inside).v4.to_string(), "10.100.0.78");
}

#[test]
fn podman_runs_restarts_and_removes_containers() {
    let site = stage();
    let podman = Podman::new(&site.world, &site.node);
    let socket = site.netctl().socket();
    let kind = "tidegate-cni";
    podman.network("shop", &[json!({
        "type": kind, "socket": socket, "namespace": "shop", "labels": { "app": "web" }, "capabilities": { "ips": true, "mac": true },
    })]);
    // The very first instruction is connect().
    let echo = ECHO.v4().to_string();
    let connects =
        |name: &str, to: &str| podman.start(name, "shop", &["--rm"], &["nc", "-w", "2", to, "7", "-e", "true"]).status;
    assert_eq!(connects("first", &echo), 0);
    assert_ne!(connects("second", &OTHER.v4().to_string()), 0);
    assert_eq!(workloads(&site), [""; 0]);

    let started = podman.start("web", "shop", &["-d", "--ip", "10.100.0.99"], &["sleep", "600"]);
    assert!(started.success(), "{}", started.stderr);
    assert_eq!(podman.ok(&["inspect", "-f", "{{.NetworkSettings.Networks.shop.IPAddress}}", "web"]), "10.100.0.99");
    podman.namespace("web").must_reach(allowed());
    let resolver = podman.ok(&["exec", "web", "cat", "/etc/resolv.conf"]);
    assert!(resolver.contains("nameserver 10.100.0.1"), "{resolver}");
    podman.ok(&["restart", "-t", "0", "web"]);
    assert_eq!(workloads(&site), ["web"]);
    podman.namespace("web").must_reach(allowed());
    podman.namespace("web").must_not_reach(denied());
    podman.ok(&["stop", "-t", "0", "web"]);
    assert_eq!(workloads(&site), [""; 0]);
    podman.ok(&["start", "web"]);
    podman.namespace("web").must_reach(allowed());
    podman.ok(&["rm", "-f", "-t", "0", "web"]);
    assert_eq!(workloads(&site), [""; 0]);
}

#[test]
fn a_running_container_is_attached_by_its_name_or_a_process() {
    let site = stage();
    let podman = Podman::new(&site.world, &site.node);
    let (_service, socket) = podman.serve();
    let started =
        podman.start("web", "none", &["-d", "--label", "app=web", "--label", "of podman=-"], &["sleep", "600"]);
    assert!(started.success(), "{}", started.stderr);
    let by_name = ["attach", "web", "-n", "shop", "--container", "web", "--engine", socket.to_str().unwrap()];
    site.netctl().ok(&by_name);
    let pid = podman.ok(&["inspect", "-f", "{{.State.Pid}}", "web"]);
    let inside = Namespace::at(Path::new(&format!("/proc/{pid}/ns/net")));
    inside.must_reach(allowed());
    inside.must_not_reach(denied());
    let workload = site.netctl().json(&["get", "workload", "web", "-n", "shop"]);
    assert_eq!(workload["metadata"]["labels"], json!({ "app": "web" }));
    site.netctl().ok(&["detach", "web", "-n", "shop"]);
    site.netctl().ok(&["attach", "again", "-n", "shop", "--pid", &pid, "--label", "app=web"]);
    inside.must_reach(allowed());

    let says = |words: &[&str], what: &str| {
        let said = site.netctl().run(words);
        assert!(!said.success() && said.stderr.contains(what), "{words:?}: {}", said.stderr);
    };
    podman.ok(&["stop", "-t", "0", "web"]);
    wait_until("what is gone is detached", Duration::from_secs(10), || workloads(&site).is_empty());
    says(&by_name, "container web does not run");
    says(&["attach", "web", "-n", "shop", "--container", "db", "--engine", socket.to_str().unwrap()], "db");
    says(
        &["attach", "web", "-n", "shop", "--container", "web", "--engine", "/run/no.sock"],
        "no container engine answers",
    );
    says(&["attach", "web", "-n", "shop", "--container", "web", "--pid", &pid], "cannot be used with");
    says(&["attach", "web", "-n", "shop"], "--netns <PATH>|--pid <PID>|--container <NAME>");
}

#[test]
fn podman_starts_fifty_at_once() {
    const MANY: usize = 50;
    let site = stage();
    let podman = Podman::new(&site.world, &site.node);
    let network = json!({ "type": "tidegate-cni", "socket": site.netctl().socket(), "namespace": "shop", "labels": { "app": "web" } });
    podman.network("shop", &[network]);
    let name = |number: usize| format!("web-{number}");
    thread::scope(|scope| {
        for number in 0..MANY {
            let podman = &podman;
            scope.spawn(move || {
                let started = podman.start(&name(number), "shop", &["-d"], &["sleep", "600"]);
                assert!(started.success(), "{}", started.stderr);
            });
        }
    });
    assert_eq!(workloads(&site).len(), MANY);
    for number in [0, MANY / 2, MANY - 1] {
        podman.namespace(&name(number)).must_reach(allowed());
        podman.namespace(&name(number)).must_not_reach(denied());
    }
    podman.ok(&["rm", "-f", "-a", "-t", "0"]);
    assert_eq!(workloads(&site), [""; 0]);
    assert_eq!(site.node.ok("ip -o link show type veth").lines().filter(|line| line.contains("tgw")).count(), 0);
}

#[test]
fn crun_by_hand_is_connected_before_its_first_instruction() {
    let site = stage();
    let (plugin, (web, namespace)) = (plugin(&site), container(&site, "web-1"));
    plugin.ok("ADD", &web);
    let connects = |name: &str, to: &str| {
        crun(&site.world, name, namespace.path(), &["/bin/nc", "-w", "2", to, "7", "-e", "true"]).status
    };
    assert_eq!(connects("allowed", &ECHO.v4().to_string()), 0);
    assert_ne!(connects("denied", &API.v4().to_string()), 0);
    plugin.ok("DEL", &web);
}
