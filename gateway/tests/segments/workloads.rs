//! Workloads attached, connected, detached, gone.

use config::resource::{Gateway, Snat, WorkloadTraffic};
use gateway::segmentation::Error;

use super::world::{Namespace, World, dual, eventually, network};

#[test]
fn a_workload_is_connected_in_both_families() {
    World::run(async |mut world| {
        world.apply(&[dual("tenant-a", 100)]).await.unwrap();
        let (a, web) = world.attach(1, "tenant-a").await;
        let (b, _) = world.attach(2, "tenant-a").await;
        assert_eq!(world.plan().await, "");
        assert_eq!(*world.seal.was_down.lock().unwrap(), [true, true], "sealed before it comes up");

        let shown = a.ip("-d addr show eth0");
        let link_local = web.link_local().to_string();
        for part in ["10.100.0.2/24", "fd00:100::2/64", &link_local, &web.mac.to_string()] {
            assert!(shown.contains(part), "{part} in {shown}");
        }
        assert!(!shown.contains("tentative"), "{shown}");
        assert!(a.ip("route").contains("default via 10.100.0.1"));
        assert!(a.ip("-6 route").contains("default via fd00:100::1"));
        assert!(a.ip("link show lo").contains("UP"));
        for (key, value) in [("accept_ra", "0"), ("use_tempaddr", "0"), ("accept_dad", "0"), ("autoconf", "0")] {
            assert_eq!(a.exec(&format!("cat /proc/sys/net/ipv6/conf/eth0/{key}")).trim(), value, "{key}");
        }
        let port = world.node.ip("-d link show tgw1");
        for part in
            ["master tgb-tenant-a", "learning off", "flood off", "mcast_flood on", "alias tidegate workload/shop/web-1"]
        {
            assert!(port.contains(part), "{part} in {port}");
        }
        assert!(!world.node.ip("addr show tgw1").contains("inet6"));
        assert!(
            world
                .node
                .exec("bridge fdb show br tgb-tenant-a")
                .contains(&format!("{} dev tgw1 sticky master tgb-tenant-a static", web.mac))
        );
        assert!(
            world.node.ip("neigh show dev tgb-tenant-a").contains(&format!("10.100.0.2 lladdr {} PERMANENT", web.mac))
        );

        assert!(a.reaches(&b, "10.100.0.3"));
        assert!(a.reaches(&b, "fd00:100::3"));
        assert!(world.node.reaches(&b, "10.100.0.3"));
        assert!(world.node.reaches(&b, "fd00:100::3"));
    });
}

#[test]
fn traffic_leaves_masqueraded_and_comes_back() {
    World::run(async |mut world| {
        let outside = Namespace::new();
        world.node.ip(&format!("link add up0 type veth peer name up1 netns {}", outside.name));
        world.node.ip("addr add 192.0.2.1/24 dev up0");
        world.node.ip("addr add 2001:db8::1/64 dev up0 nodad");
        world.node.ip("link set up0 up");
        outside.ip("addr add 192.0.2.2/24 dev up1");
        outside.ip("addr add 2001:db8::2/64 dev up1 nodad");
        outside.ip("link set up1 up");
        world.apply(&[dual("tenant-a", 100)]).await.unwrap();
        let (a, _) = world.attach(1, "tenant-a").await;
        // Outside has no route back to the tenant.
        assert!(a.reaches(&outside, "192.0.2.2"));
        assert!(a.reaches(&outside, "2001:db8::2"));
    });
}

#[test]
fn isolated_workloads_do_not_hear_each_other() {
    World::run(async |mut world| {
        let mut isolated = dual("tenant-a", 100);
        isolated.workload_traffic = WorkloadTraffic::Isolated;
        world.apply(&[isolated]).await.unwrap();
        let (a, _) = world.attach(1, "tenant-a").await;
        let (b, _) = world.attach(2, "tenant-a").await;
        let port = world.node.ip("-d link show tgw1");
        assert!(
            port.contains("isolated on") && port.contains("mcast_flood off") && port.contains("bcast_flood off"),
            "{port}"
        );
        assert!(!a.reaches(&b, "10.100.0.3"));
        assert!(world.node.reaches(&b, "10.100.0.3"), "the node finds it without asking");
        assert!(world.node.reaches(&b, "fd00:100::3"));
    });
}

#[test]
fn with_an_external_router_advertisements_are_heeded_and_the_edge_is_on_link() {
    World::run(async |mut world| {
        let mut external = network("tenant-a", &[("10.100.0.0/24", None), ("fd00:100::/64", Some("fd00:100::1"))]);
        (external.gateway, external.snat) = (Gateway::External, Snat::None);
        world.apply(&[external]).await.unwrap();
        let (a, _) = world.attach(1, "tenant-a").await;
        let (b, _) = world.attach(2, "tenant-a").await;
        assert_eq!(a.exec("cat /proc/sys/net/ipv6/conf/eth0/accept_ra").trim(), "2");
        assert!(a.ip("route").contains("169.254.77.1 dev eth0"), "{}", a.ip("route"));
        assert!(a.ip("-6 route").contains("default via fd00:100::1"));
        assert!(a.reaches(&b, "10.100.0.2"), "no gateway: .1 is a workload's too");
        assert!(a.reaches(&b, "fd00:100::3"));
        assert_eq!(world.plan().await, "");
    });
}

#[test]
fn a_namespace_with_ipv6_switched_off_gets_it_back() {
    World::run(async |mut world| {
        world.apply(&[dual("tenant-a", 100)]).await.unwrap();
        let home = Namespace::new();
        home.exec("sysctl -qw net.ipv6.conf.default.disable_ipv6=1 net.ipv6.conf.all.disable_ipv6=1");
        let workload = world.prepare(1, "tenant-a", &home.path());
        world.segmentation.attach(&workload).await.unwrap();
        assert!(home.ip("addr show eth0").contains("fd00:100::2/64"));
    });
}

#[test]
fn a_failed_seal_leaves_nothing() {
    World::run(async |mut world| {
        world.apply(&[dual("tenant-a", 100)]).await.unwrap();
        let home = Namespace::new();
        let workload = world.prepare(1, "tenant-a", &home.path());
        *world.seal.fail.lock().unwrap() = true;
        let failed = world.segmentation.attach(&workload).await.unwrap_err().to_string();
        assert!(
            failed.contains("no programs today") && failed.contains("`seal tgw1 for shop/web-1` failed"),
            "{failed}"
        );
        assert_eq!(world.links(), ["tgb-tenant-a"]);
        assert!(!home.ip("link show").contains("eth0"));
        assert_eq!(world.plan().await, "");
        *world.seal.fail.lock().unwrap() = false;
        world.segmentation.attach(&workload).await.unwrap();
    });
}

#[test]
fn bad_namespaces_are_refused_by_name() {
    World::run(async |mut world| {
        world.apply(&[dual("tenant-a", 100)]).await.unwrap();
        for (path, why) in [
            (world.node.path(), "is the node's own network namespace"),
            ("/run/netns/there-is-none".into(), "cannot open the network namespace /run/netns/there-is-none"),
            ("/etc/hostname".into(), "/etc/hostname is not a network namespace"),
            ("/proc/self/ns/mnt".into(), "is not a network namespace"),
        ] {
            let workload = world.prepare(1, "tenant-a", &path);
            let refused = world.segmentation.attach(&workload).await.unwrap_err().to_string();
            assert!(refused.contains(why), "{refused}");
        }
        let home = Namespace::new();
        home.ip("link add eth0 type bridge");
        let workload = world.prepare(1, "tenant-a", &home.path());
        let refused = world.segmentation.attach(&workload).await.unwrap_err().to_string();
        assert!(refused.contains("File exists"), "{refused}");
        assert_eq!(world.links(), ["tgb-tenant-a"]);
    });
}

#[test]
fn detaching_leaves_nothing() {
    World::run(async |mut world| {
        world.apply(&[dual("tenant-a", 100)]).await.unwrap();
        let (home, workload) = world.attach(1, "tenant-a").await;
        let twice = world.segmentation.attach(&workload).await.unwrap_err();
        assert!(matches!(twice, Error::Attached(_)), "{twice}");
        world.detach(workload.id).await;
        assert_eq!(world.links(), ["tgb-tenant-a"]);
        assert!(!home.ip("link show").contains("eth0"));
        assert_eq!(world.node.ip("neigh show dev tgb-tenant-a nud permanent"), "");
        assert_eq!(world.seal.gone.lock().unwrap().len(), 1);
        assert_eq!(world.plan().await, "");
        assert!(matches!(world.segmentation.detach(workload.id).await, Err(Error::NotAttached(_))));
    });
}

#[test]
fn networks_in_use_are_not_pulled_away() {
    World::run(async |mut world| {
        world.apply(&[dual("tenant-a", 100)]).await.unwrap();
        let (_home, workload) = world.attach(1, "tenant-a").await;
        let refused = world.apply(&[]).await.unwrap_err().to_string();
        assert!(refused.contains("workload shop/web-1 still attached; detach them first"), "{refused}");
        let refused = world.apply(&[dual("tenant-a", 101)]).await.unwrap_err().to_string();
        assert!(refused.contains("its address 10.100.0.2 lies in no subnet"), "{refused}");
        let mut external = dual("tenant-a", 100);
        (external.gateway, external.snat) = (Gateway::External, Snat::None);
        let refused = world.apply(&[external]).await.unwrap_err().to_string();
        assert!(refused.contains("spec.gateway cannot change while workloads are attached"), "{refused}");
        world.detach(workload.id).await;
        world.apply(&[]).await.unwrap();
        assert!(world.links().is_empty());
    });
}

#[test]
fn the_mtu_follows_inside_too() {
    World::run(async |mut world| {
        world.apply(&[dual("tenant-a", 100)]).await.unwrap();
        let (home, _) = world.attach(1, "tenant-a").await;
        let mut smaller = dual("tenant-a", 100);
        smaller.mtu = Some(1400);
        world.apply(&[smaller]).await.unwrap();
        assert!(home.ip("link show eth0").contains("mtu 1400"));
        assert!(world.node.ip("link show tgw1").contains("mtu 1400"));
    });
}

#[test]
fn a_workload_whose_namespace_dies_is_told_and_can_be_detached() {
    World::run(async |mut world| {
        world.apply(&[dual("tenant-a", 100)]).await.unwrap();
        let (home, workload) = world.attach(1, "tenant-a").await;
        drop(home);
        eventually("the workload is gone", || world.segmentation.status().gone.contains(&workload.id)).await;
        eventually("nothing is left", || world.links() == ["tgb-tenant-a"]).await;
        assert_eq!(world.node.ip("neigh show dev tgb-tenant-a nud permanent"), "");
        world.detach(workload.id).await;
        eventually("it is forgotten", || world.segmentation.status().gone.is_empty()).await;
    });
}

#[test]
fn a_dead_helper_is_reported_and_attaching_refused() {
    World::run(async |mut world| {
        world.apply(&[dual("tenant-a", 100)]).await.unwrap();
        let home = Namespace::new();
        let workload = world.prepare(1, "tenant-a", &home.path());
        let children = std::fs::read_to_string("/proc/thread-self/children").unwrap();
        super::world::must(&["kill", "-9", children.split_whitespace().next().unwrap()]);
        eventually("the helper is dead", || world.segmentation.status().helper_ended.is_some()).await;
        let refused = world.segmentation.attach(&workload).await.unwrap_err();
        assert!(matches!(refused, Error::Helper(_)), "{refused}");
    });
}
