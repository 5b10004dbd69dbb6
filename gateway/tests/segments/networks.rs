//! Networks without VLAN: made, kept, refused, undone, deleted.

use config::resource::{Gateway, Snat};
use gateway::segmentation::Error;

use super::world::{Namespace, World, dual, eventually, network};

#[test]
fn a_network_is_made_and_then_nothing_is_left_to_do() {
    World::run(async |mut world| {
        world.apply(&[dual("tenant-a", 100)]).await.unwrap();
        assert_eq!(world.plan().await, "");
        let shown = world.node.ip("-d addr show tgb-tenant-a");
        for part in [
            "10.100.0.1/24",
            "fd00:100::1/64",
            "mcast_snooping 0",
            "stp_state 0",
            "alias tidegate network/tenant-a",
            "mtu 1500",
        ] {
            assert!(shown.contains(part), "{part} in {shown}");
        }
        assert!(!shown.contains("tentative") && !shown.contains("dadfailed"), "{shown}");
        assert_eq!(
            world.node.exec("cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding"),
            "1\n1\n"
        );
        assert!(world.node.exec("nft list set inet tidegate sources4").contains("\"tgb-tenant-a\" . 10.100.0.0/24"));
        world.apply(&[dual("tenant-a", 100)]).await.unwrap();
    });
}

#[test]
fn a_deleted_network_leaves_nothing_behind() {
    World::run(async |mut world| {
        world.apply(&[dual("tenant-a", 100), dual("a-network-with-a-long-name", 101)]).await.unwrap();
        let before = world.links();
        assert_eq!(before.len(), 2, "{before:?}");
        world.apply(&[dual("tenant-a", 100)]).await.unwrap();
        assert_eq!(world.links(), ["tgb-tenant-a"]);
        world.apply(&[]).await.unwrap();
        assert!(world.links().is_empty(), "{:?}", world.links());
        assert_eq!(world.node.exec("nft list ruleset"), "");
        assert_eq!(world.node.ip("route show").trim(), "");
        assert_eq!(world.plan().await, "");
    });
}

#[test]
fn between_two_networks_workloads_come_and_go_in_the_table_by_their_elements() {
    World::run(async |mut world| {
        world.apply(&[dual("tenant-a", 100), dual("tenant-b", 101)]).await.unwrap();
        let handles = |world: &World| {
            let listed = world.node.exec("nft -a list table inet tidegate");
            let chains = listed.lines().filter(|line| line.contains("chain ") && line.contains("# handle"));
            chains.map(str::to_owned).collect::<Vec<_>>()
        };
        let before = handles(&world);
        assert!(before.len() > 4, "{before:?}");
        let elements = |world: &World, set: &str| world.node.exec(&format!("nft list set inet tidegate {set}"));
        let (_a, a) = world.attach(1, "tenant-a").await;
        let (_b, _) = world.attach(2, "tenant-b").await;
        for (set, addresses) in
            [("workloads4", ["10.100.0.2", "10.101.0.2"]), ("workloads6", ["fd00:100::2", "fd00:101::2"])]
        {
            let listed = elements(&world, set);
            assert!(addresses.iter().all(|address| listed.contains(address)), "{listed}");
        }
        assert_eq!(world.plan().await, "");
        world.detach(a.id).await;
        assert!(!elements(&world, "workloads4").contains("10.100.0.2"));
        assert!(elements(&world, "workloads6").contains("fd00:101::2"));
        assert_eq!(handles(&world), before, "the table was not made anew");
        assert_eq!(world.plan().await, "");
        for harm in [
            "add element inet tidegate workloads4 { 10.9.9.9 }",
            "delete element inet tidegate workloads4 { 10.101.0.2 }",
        ] {
            world.node.exec(&format!("nft {harm}"));
            eventually(harm, || {
                let listed = elements(&world, "workloads4");
                listed.contains("10.101.0.2") && !listed.contains("10.9.9.9")
            })
            .await;
        }
    });
}

#[test]
fn an_external_network_has_no_address_and_no_ipv6() {
    World::run(async |mut world| {
        let mut external = dual("tenant-a", 100);
        (external.gateway, external.snat) = (Gateway::External, Snat::None);
        world.apply(&[external]).await.unwrap();
        let shown = world.node.ip("addr show tgb-tenant-a");
        assert!(!shown.contains("inet"), "{shown}");
        assert!(shown.contains("UP"), "{shown}");
        assert_eq!(world.node.exec("cat /proc/sys/net/ipv6/conf/tgb-tenant-a/disable_ipv6").trim(), "1");
        assert_eq!(world.node.exec("cat /proc/sys/net/ipv4/conf/tgb-tenant-a/arp_ignore").trim(), "8");
        assert_eq!(world.node.exec("cat /proc/sys/net/ipv4/ip_forward").trim(), "0");
        assert_eq!(world.plan().await, "");
    });
}

#[test]
fn a_change_is_made_in_place() {
    World::run(async |mut world| {
        world.apply(&[dual("tenant-a", 100)]).await.unwrap();
        let index = world.node.ip("-o link show tgb-tenant-a").split(':').next().unwrap().to_owned();
        let mut changed = network("tenant-a", &[("10.200.0.0/24", Some("10.200.0.1"))]);
        changed.mtu = Some(1400);
        changed.snat = Snat::None;
        world.desired.networks.insert(changed.name.clone(), changed.clone());
        let plan = world.plan().await;
        assert!(plan.contains("set tgb-tenant-a mtu 1400 (was 1500)"), "{plan}");
        assert!(plan.contains("take 10.100.0.1/24 from tgb-tenant-a"), "{plan}");
        world.apply(&[changed]).await.unwrap();
        let shown = world.node.ip("-o addr show tgb-tenant-a");
        assert!(shown.contains("10.200.0.1/24") && !shown.contains("10.100") && !shown.contains("inet6"), "{shown}");
        assert!(world.node.ip("-o link show tgb-tenant-a").starts_with(&format!("{index}: ")), "the same link");
        assert!(!world.node.exec("nft list set inet tidegate masqueraded4").contains("elements"));
    });
}

#[test]
fn another_programs_link_is_never_touched() {
    World::run(async |mut world| {
        world.node.ip("link add tgb-tenant-a type bridge");
        world.node.ip("link set tgb-tenant-a alias mine up");
        let refused = world.apply(&[dual("tenant-a", 100)]).await.unwrap_err().to_string();
        assert!(refused.contains("the link `tgb-tenant-a` exists and is not Tidegate's"), "{refused}");
        assert!(world.node.ip("link show tgb-tenant-a").contains("alias mine"));
        assert_eq!(world.node.exec("nft list ruleset"), "", "nothing was begun");
        world.node.ip("link delete tgb-tenant-a");
        world.apply(&[dual("tenant-a", 100)]).await.unwrap();
    });
}

#[test]
fn a_link_left_unmarked_by_a_death_is_taken_over() {
    World::run(async |mut world| {
        world.apply(&[dual("tenant-a", 100)]).await.unwrap();
        let mac = world.node.ip("link show tgb-tenant-a").split("ether ").nth(1).unwrap()[..17].to_owned();
        world.apply(&[]).await.unwrap();
        world.node.ip(&format!("link add tgb-tenant-a address {mac} type bridge"));
        world.apply(&[dual("tenant-a", 100)]).await.unwrap();
        assert_eq!(world.plan().await, "");
    });
}

#[test]
fn what_was_done_is_undone_when_a_step_fails() {
    World::run(async |mut world| {
        world.apply(&[dual("tenant-a", 100)]).await.unwrap();
        let (links, rules) = (world.links(), world.node.exec("nft list ruleset"));
        let impossible = network("tenant-b", &[("10.101.0.0/24", Some("10.101.0.1")), ("ff00::/8", Some("ff02::1"))]);
        let failed = world.apply(&[dual("tenant-a", 100), impossible]).await.unwrap_err();
        assert!(matches!(failed, Error::Apply(_)), "{failed}");
        let text = failed.to_string();
        assert!(text.contains("`add ff02::1/8 to tgb-tenant-b` failed") && text.contains("were undone"), "{text}");
        assert_eq!(world.links(), links);
        assert_eq!(world.node.exec("nft list ruleset"), rules);
    });
}

#[test]
fn forwarding_keeps_a_routers_advertisements_heeded() {
    World::run(async |mut world| {
        world.node.ip("link add uplink type bridge");
        world.node.exec("sysctl -qw net.ipv6.conf.uplink.accept_ra=1");
        world.apply(&[dual("tenant-a", 100)]).await.unwrap();
        assert_eq!(world.node.exec("cat /proc/sys/net/ipv6/conf/uplink/accept_ra").trim(), "2");
    });
}

#[test]
fn the_node_is_closed_to_tenants_but_for_the_edge() {
    World::run(async |mut world| {
        world.apply(&[dual("tenant-a", 100)]).await.unwrap();
        let (home, _) = world.attach(1, "tenant-a").await;
        let node = Namespace { name: world.node.name.clone() };
        assert!(!home.reaches(&node, "10.100.0.1"));
        assert!(!home.reaches(&node, "fd00:100::1"));
        std::mem::forget(node);
        let listening = world.node.inside(|| std::net::TcpListener::bind("0.0.0.0:443").unwrap()).join().unwrap();
        let asking = home.inside(|| std::net::TcpStream::connect("10.100.0.1:443").is_ok());
        assert!(asking.join().unwrap(), "{listening:?}");
    });
}
