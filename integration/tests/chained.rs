//! The CNI plugin behind others that make the interface: by hand, and by Podman.

use integration::manifests::{allow_cidrs, namespace, policy_for};
use integration::namespace::Namespace;
use integration::peers::cni::{Container, Plugin};
use integration::peers::podman::Podman;
use integration::site::{ECHO, OTHER};
use integration::traffic::Target;
use integration::wait::wait_until;
use integration::{Site, site};
use serde_json::{Value, json};
use std::time::Duration;

/// The plugins that make interfaces: a bridge, and a pair without one. Both masquerade nothing; the internet knows the way back.
fn makers(site: &Site) -> [Value; 2] {
    let ipam = |subnet: &str| {
        let folder = site.world.folder().join("leases");
        json!({ "type": "host-local", "dataDir": folder, "ranges": [[{ "subnet": subnet }]], "routes": [{ "dst": "0.0.0.0/0" }] })
    };
    [
        json!({ "type": "bridge", "bridge": "cni-test", "isGateway": true, "ipam": ipam("172.31.5.0/24") }),
        json!({ "type": "ptp", "ipam": ipam("172.31.6.0/24") }),
    ]
}

fn stage() -> Site {
    let site = Site::start();
    site.node.sysctl("ipv4/ip_forward", "1");
    for subnet in ["172.31.5.0/24", "172.31.6.0/24"] {
        site.internet.namespace.ip(&format!("route add {subnet} via 192.0.2.2"));
    }
    let network = "---\napiVersion: tidegate.dev/v1alpha1\nkind: Network\nmetadata: { name: others }\n\
                   spec: { adopt: { cniNetwork: others } }\n";
    let rules = allow_cidrs(&[&format!("{}/32", ECHO.v4())], "[ { protocol: TCP, port: 7 } ]");
    let web = policy_for("apps", "web", "{ matchLabels: { app: web } }", &rules);
    site.netctl().apply(&(network.to_owned() + &namespace("apps", "others") + &web));
    site
}

fn allowed() -> Target {
    Target::Tcp((ECHO.v4(), 7).into())
}

fn denied() -> Target {
    Target::Tcp((OTHER.v4(), 7).into())
}

fn workloads(site: &Site) -> Vec<Value> {
    let list = site.netctl().json(&["get", "workloads", "-A"]);
    list["items"].as_array().cloned().unwrap_or_default()
}

#[test]
fn what_another_plugin_made_is_closed_and_judged() {
    let mut site = stage();
    for (number, maker) in makers(&site).into_iter().enumerate() {
        let what = maker["type"].as_str().expect("a plugin's name").to_owned();
        let common = json!({ "cniVersion": "1.0.0", "name": "others" });
        let maker = Plugin::of_debian(&site.node, maker).with(common.clone());
        let ours = Plugin::new(site.netctl().socket(), "apps").with(common).with(json!({ "labels": { "app": "web" } }));
        let inside = site.world.namespace(&format!("pod-{number}"), None);
        let arguments = format!("IgnoreUnknown=1;K8S_POD_NAME=web-{number}");
        let pod = Container { id: format!("pod-{number}"), netns: inside.path().to_owned(), arguments };
        let made = maker.ok("ADD", &pod);
        inside.must_reach(denied());

        let behind = ours.with(json!({ "prevResult": made }));
        let result = behind.ok("ADD", &pod);
        assert_eq!(result, made, "{what}: what was made is answered as it was");
        let web = site::pod("apps", &format!("web-{number}"), inside.clone());
        web.must_reach(allowed());
        web.must_not_reach(denied());
        assert_eq!(behind.ok("ADD", &pod), made, "again");
        assert_eq!(behind.with(json!({ "prevResult": result })).ok("CHECK", &pod), Value::Null);
        let found = workloads(&site);
        assert_eq!(found.len(), 1, "{what}: {found:?}");
        assert_eq!(found[0]["status"]["addresses"], json!([web.v4.to_string()]));

        // Without the daemon it goes on, and comes back to the same.
        let mut kept = web.open((ECHO.v4(), 7).into());
        kept.must_echo();
        site.daemon.kill();
        site.daemon.restart();
        kept.must_echo();
        web.must_not_reach(denied());

        // Taken away in reverse: an interface that is still there passes nothing.
        assert_eq!(behind.ok("DEL", &pod), Value::Null);
        assert!(workloads(&site).is_empty());
        web.must_not_reach(allowed());
        assert_eq!(maker.ok("DEL", &pod), Value::Null);
        assert_eq!(behind.ok("DEL", &pod), Value::Null, "again");
    }
}

#[test]
fn what_cannot_be_chained_is_refused() {
    let site = stage();
    let [maker, _] = makers(&site);
    let maker = Plugin::of_debian(&site.node, maker).with(json!({ "cniVersion": "1.0.0", "name": "elsewhere" }));
    let inside: Namespace = site.world.namespace("pod", None);
    let pod = Container { id: "pod".to_owned(), netns: inside.path().to_owned(), arguments: String::new() };
    let made = maker.ok("ADD", &pod);
    let ours = Plugin::new(site.netctl().socket(), "apps").with(json!({ "cniVersion": "1.0.0", "prevResult": made }));
    let other_network = ours.with(json!({ "name": "elsewhere" })).call("ADD", Some(&pod)).unwrap_err();
    assert!(other_network["msg"].to_string().contains("does not adopt the CNI network elsewhere"), "{other_network}");
    assert_eq!(other_network["code"], 7);
    let first = Plugin::new(site.netctl().socket(), "apps").with(json!({ "name": "others" }));
    let first = first.call("ADD", Some(&pod)).unwrap_err();
    assert!(first["msg"].to_string().contains("makes none"), "{first}");
    inside.ip("link set eth0 name eth7");
    let nothing = ours.with(json!({ "name": "others" })).call("ADD", Some(&pod)).unwrap_err();
    assert!(nothing["msg"].to_string().contains("there is no eth0 inside"), "{nothing}");
    assert!(workloads(&site).is_empty());
}

#[test]
fn podman_runs_the_chain() {
    let site = stage();
    let podman = Podman::new(&site.world, &site.node);
    let [maker, _] = makers(&site);
    let ours = json!({ "type": "tidegate-cni", "socket": site.netctl().socket(), "namespace": "apps", "labels": { "app": "web" } });
    podman.network("others", &[maker, ours]);
    let connects = |name: &str, to: &str| {
        podman.start(name, "others", &["--rm"], &["nc", "-w", "2", to, "7", "-e", "true"]).status
    };
    assert_eq!(connects("allowed", &ECHO.v4().to_string()), 0, "from the first instruction on");
    assert_ne!(connects("denied", &OTHER.v4().to_string()), 0);
    wait_until("they are gone", Duration::from_secs(10), || workloads(&site).is_empty());
    let started = podman.start("web", "others", &["-d"], &["sleep", "600"]);
    assert!(started.success(), "{}", started.stderr);
    podman.namespace("web").must_reach(allowed());
    podman.namespace("web").must_not_reach(denied());
    podman.ok(&["restart", "-t", "0", "web"]);
    podman.namespace("web").must_reach(allowed());
    podman.namespace("web").must_not_reach(denied());
    podman.ok(&["rm", "-f", "-t", "0", "web"]);
    assert!(workloads(&site).is_empty());
}
