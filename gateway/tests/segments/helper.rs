//! The helper process, and the daemon with no more capabilities than it keeps.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use gateway::segmentation::{Desired, Node, Segmentation};
use gateway::sys::caps;
use gateway::sys::namespace_helper::{HelperError, HelperProcess, NamespaceHelper};
use gateway::sys::netns::Netns;
use gateway::workload::WorkloadId;

use super::world::{Namespace, Sealed, dual, network, workload_for};

fn start() -> HelperProcess {
    HelperProcess::start_program(Path::new(env!("CARGO_BIN_EXE_gateway"))).unwrap()
}

fn with_helper(test: impl AsyncFnOnce(NamespaceHelper)) {
    let process = start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { test(process.connect().unwrap()).await });
}

#[test]
fn sockets_come_from_inside_and_settings_go_there() {
    let home = Namespace::new();
    home.ip("link add eth0 type bridge");
    with_helper(async |helper| {
        let netns = helper.open_namespace(&home.path()).await.unwrap();
        let links = helper.netlink_inside(&netns).await.unwrap().links().await.unwrap();
        assert!(links.iter().any(|link| link.name.as_str() == "eth0"), "{links:?}");
        for (advertised, value) in [(true, "2"), (false, "0")] {
            helper.write_settings(&netns, &"eth0".parse().unwrap(), advertised).await.unwrap();
            assert_eq!(home.exec("cat /proc/sys/net/ipv6/conf/eth0/accept_ra").trim(), value);
        }
        let refused = helper.write_settings(&netns, &"eth7".parse().unwrap(), false).await.unwrap_err();
        assert!(refused.to_string().contains("net/ipv6/conf/eth7/accept_ra"), "{refused}");
    });
}

#[test]
fn the_nodes_own_namespace_is_refused() {
    with_helper(async |helper| {
        let own = Netns::current().unwrap();
        let refused = helper.netlink_inside(&own).await.unwrap_err();
        assert!(matches!(&refused, HelperError::Refused(why) if why.contains("the node's own")), "{refused}");
        let refused = helper.write_settings(&own, &"lo".parse().unwrap(), true).await.unwrap_err();
        assert!(matches!(&refused, HelperError::Refused(why) if why.contains("the node's own")), "{refused}");
    });
}

#[test]
fn other_files_are_no_namespaces() {
    for path in ["/dev/null", "/proc/self/ns/mnt", "/etc"] {
        let fd = OwnedFd::from(std::fs::File::open(path).unwrap());
        assert!(Netns::from_fd(fd).is_err(), "{path}");
    }
}

#[test]
fn the_helper_keeps_three_capabilities_and_ends_with_the_daemon() {
    let process = start();
    let id = process.process();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let home = Namespace::new();
    runtime.block_on(async {
        let helper = process.connect().unwrap();
        // Once it has answered, it has given the others up.
        let netns = helper.open_namespace(&home.path()).await.unwrap();
        helper.netlink_inside(&netns).await.unwrap();
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let kept = caps::HELPER.iter().fold(0u64, |mask, &capability| mask | 1 << capability as u8);
        for set in ["CapPrm", "CapEff", "CapBnd"] {
            assert!(status.contains(&format!("{set}:\t{kept:016x}")), "{set}: {status}");
        }
        assert!(status.contains("NoNewPrivs:\t1"));
        assert_eq!(helper.ended(), None);
    });
    drop(runtime);
    assert!(!Path::new(&format!("/proc/{id}")).exists());
}

#[test]
fn the_daemons_capabilities_are_enough() {
    let (node, home, container) = (Namespace::new(), Namespace::new(), Namespace::new());
    // A process that may do more than the daemon: its namespace opens to those who may trace it only.
    let mut process = Command::new("ip").args(["netns", "exec", &container.name, "sleep", "1000"]).spawn().unwrap();
    let by_process = PathBuf::from(format!("/proc/{}/ns/net", process.id()));
    let entered = || Netns::open(&by_process).unwrap().identity() == Netns::open(&container.path()).unwrap().identity();
    while !entered() {
        std::thread::yield_now();
    }
    let (paths, by_path) = ([home.path(), by_process.clone()], home.path());
    let work = node.inside(move || {
        let helper = start();
        caps::keep(caps::DAEMON).unwrap();
        let forbidden = Netns::open(&by_process).unwrap_err();
        assert!(forbidden.is_forbidden(), "{forbidden}");
        assert!(Netns::open(&by_path).unwrap().enter().is_err(), "CAP_SYS_ADMIN is gone");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let segmentation = Segmentation::open(helper.connect().unwrap(), Arc::new(Sealed::quiet())).unwrap();
            let mut desired = Desired {
                networks: BTreeMap::from([("tenant-a".parse().unwrap(), dual("tenant-a", 100))]),
                node: Node { seed: "test".to_owned(), edge: Vec::new(), ..Node::default() },
                ..Desired::default()
            };
            segmentation.apply(&desired).await.unwrap();
            for (id, path) in (1..).zip(&paths) {
                let workload = workload_for(&desired, id, "tenant-a", path);
                segmentation.attach(&workload).await.unwrap();
                desired.workloads.insert(workload.id, workload);
            }
            assert_eq!(segmentation.plan(&desired).await.unwrap().to_string(), "");
            segmentation.detach(WorkloadId(1)).await.unwrap();
            desired.networks.insert("tenant-b".parse().unwrap(), network("tenant-b", &[]));
            desired.workloads.remove(&WorkloadId(1));
            segmentation.apply(&desired).await.unwrap();
        });
    });
    let result = work.join();
    process.kill().unwrap();
    process.wait().unwrap();
    result.unwrap();
    assert!(container.ip("addr show eth0").contains("10.100.0.3/24"));
    assert!(!home.ip("link show").contains("eth0"));
}
