//! What others change is put back; a restart changes nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::world::{World, dual, eventually, must};

#[test]
fn what_others_delete_is_put_back_within_a_second() {
    World::run(async |mut world| {
        world.apply(&[dual("tenant-a", 100)]).await.unwrap();
        let (a, web) = world.attach(1, "tenant-a").await;
        let (b, _) = world.attach(2, "tenant-a").await;
        let mut slowest = Duration::ZERO;
        for (harm, mended) in [
            ("ip link set tgb-tenant-a down", "ip -o link show up dev tgb-tenant-a"),
            ("ip addr del 10.100.0.1/24 dev tgb-tenant-a", "ip -o addr show dev tgb-tenant-a to 10.100.0.1"),
            ("ip route del 10.100.0.0/24 dev tgb-tenant-a", "ip route show 10.100.0.0/24"),
            ("ip -6 route del fd00:100::/64 dev tgb-tenant-a", "ip -6 route show fd00:100::/64"),
            ("ip neigh del 10.100.0.2 dev tgb-tenant-a", "ip neigh show nud permanent 10.100.0.2"),
            ("ip link set tgw1 down", "ip -o link show up dev tgw1"),
            ("ip link set tgw1 nomaster", "ip -o link show master tgb-tenant-a dev tgw1"),
            ("nft delete table inet tidegate", "nft list tables inet"),
            ("nft flush chain inet tidegate from_tenants", "nft list chain inet tidegate from_tenants"),
            ("ip link set tgb-tenant-a mtu 1400", "ip -o link show tgb-tenant-a | grep mtu.1500"),
            ("ip link set tgw1 mtu 1400", "ip -o link show tgw1 | grep mtu.1500"),
            ("ip link set tgb-tenant-a address 02:00:00:00:00:99", "ip -o link show tgb-tenant-a | grep -v 00:00:99"),
            ("ip link set tgb-tenant-a type bridge stp_state 1", "ip -d link show tgb-tenant-a | grep stp_state.0"),
            (
                "ip link set tgb-tenant-a type bridge mcast_snooping 1",
                "ip -d link show tgb-tenant-a | grep mcast_snooping.0",
            ),
            ("ip addr add 10.66.0.1/24 dev tgb-tenant-a", "ip -o addr show dev tgb-tenant-a | grep -v 10.66"),
            ("bridge link set dev tgw1 learning on", "bridge -d link show dev tgw1 | grep learning.off"),
            ("bridge link set dev tgw1 flood on", "bridge -d link show dev tgw1 | grep .flood.off"),
            ("bridge link set dev tgw1 hairpin on", "bridge -d link show dev tgw1 | grep hairpin.off"),
            (&format!("bridge fdb del {} dev tgw1 master static", web.mac), "bridge fdb show br tgb-tenant-a"),
            (
                &format!("bridge fdb replace {} dev tgw1 master static", web.mac),
                "bridge fdb show br tgb-tenant-a | grep tgw1.*sticky",
            ),
            ("ip link del tgw1", "ip -o link show up master tgb-tenant-a dev tgw1"),
            ("ip link del tgb-tenant-a", "ip -o link show up dev tgb-tenant-a"),
        ] {
            let repairs = world.segmentation.status().repairs;
            let begun = Instant::now();
            must(&["ip", "netns", "exec", &world.node.name, "sh", "-c", harm]);
            eventually(harm, || world.segmentation.status().repairs > repairs).await;
            slowest = slowest.max(begun.elapsed());
            assert!(!world.node.shell(mended).trim().is_empty(), "{harm}");
            let mut rounds = 0;
            while !world.plan().await.is_empty() {
                tokio::time::sleep(Duration::from_millis(20)).await;
                rounds += 1;
                assert!(rounds < 200, "{harm}: {}", world.plan().await);
            }
        }
        eprintln!("slowest repair: {slowest:?}");
        assert!(world.node.exec("bridge fdb show br tgb-tenant-a").contains(&format!("{} dev tgw1", web.mac)));
        assert!(a.reaches(&b, "10.100.0.3") && a.reaches(&b, "fd00:100::3"));
        assert!(world.segmentation.status().errors.is_empty());
        let calls = world.seal.calls.lock().unwrap().clone();
        assert!(calls.len() > 2 && calls.last().unwrap().1.0 <= 2, "sealed again: {calls:?}");
    });
}

#[test]
fn a_workload_that_comes_or_goes_makes_nobody_look_at_the_others() {
    World::run(async |mut world| {
        world.apply(&[dual("tenant-a", 100)]).await.unwrap();
        let (_a, _) = world.attach(1, "tenant-a").await;
        let seal = Arc::clone(&world.seal);
        let looks = || seal.kept.load(Ordering::Relaxed);
        // What the first workload made is over; the look at everything that the timer calls for is four seconds away.
        let (mut before, mut begun) = (looks(), Instant::now());
        while before == 0 || begun.elapsed() < Duration::from_secs(1) {
            tokio::time::sleep(Duration::from_millis(20)).await;
            if looks() != before {
                (before, begun) = (looks(), Instant::now());
            }
        }
        let home = super::world::Namespace::new();
        let workload = world.prepare(2, "tenant-a", &home.path());
        world.segmentation.attach(&workload).await.unwrap();
        world.segmentation.detach(workload.id).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        if begun.elapsed() < Duration::from_secs(4) {
            assert_eq!(looks(), before, "its notices made somebody look at everything");
        }
        // What others do to it is put right all the same.
        world.node.ip("link set tgw1 down");
        eventually("it is up again", || !world.node.exec("ip -o link show up dev tgw1").is_empty()).await;
        eventually("the look that put it right ends", || looks() > before).await;
    });
}

#[test]
fn quiet_changes_are_found_by_the_timer() {
    World::run(async |mut world| {
        world.apply(&[dual("tenant-a", 100)]).await.unwrap();
        let key = "/proc/sys/net/ipv6/conf/tgb-tenant-a/accept_ra";
        world.node.exec("sysctl -qw net.ipv6.conf.tgb-tenant-a.accept_ra=1");
        eventually("it is set back", || world.node.exec(&format!("cat {key}")).trim() == "0").await;
    });
}

#[test]
fn a_restart_changes_nothing_and_knows_its_workloads() {
    World::run(async |mut world| {
        world.apply(&[dual("tenant-a", 100)]).await.unwrap();
        let (a, workload) = world.attach(1, "tenant-a").await;
        let before = world.node.ip("-o link show");
        let world = world.restart();
        let status = world.segmentation.restore(world.desired.clone()).await;
        assert!(status.errors.is_empty() && status.refusals.is_empty(), "{status:?}");
        assert_eq!(world.node.ip("-o link show"), before);
        assert_eq!(status.ports.len(), 1);
        assert_eq!(world.plan().await, "");
        // It is the same namespace still: put back, not given up.
        world.node.ip("link del tgw1");
        eventually("it is there again", || world.links().contains(&"tgw1".to_owned())).await;
        eventually("and up", || a.ip("addr show eth0").contains("10.100.0.2/24")).await;
        assert!(!world.segmentation.status().gone.contains(&workload.id));
    });
}

#[test]
fn another_namespace_at_the_same_path_is_not_the_workload() {
    World::run(async |mut world| {
        world.apply(&[dual("tenant-a", 100)]).await.unwrap();
        let (home, workload) = world.attach(1, "tenant-a").await;
        let name = home.name.clone();
        drop(home);
        super::world::must(&["ip", "netns", "add", &name]);
        let again = super::world::Namespace { name };
        eventually("it is gone", || world.segmentation.status().gone.contains(&workload.id)).await;
        assert!(!again.ip("link show").contains("eth0"));
    });
}
