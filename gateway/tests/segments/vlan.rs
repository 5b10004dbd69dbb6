//! Tenant VLANs. On a kernel without 8021q only the refusal is tested; the second kernel runs the rest.

use config::resource::{Network, Vlan, VlanProtocol};

use super::world::{Namespace, World, dual, eventually};

fn on_vlan(mut network: Network, parent: &str, id: u16) -> Network {
    network.vlan =
        Some(Vlan { parent: parent.parse().unwrap(), id: id.try_into().unwrap(), protocol: VlanProtocol::Dot1q });
    network
}

/// A trunk `eth1` of the node, and its far end in a namespace of its own.
fn trunk(world: &World) -> Namespace {
    let far = Namespace::new();
    world.node.ip(&format!("link add eth1 type veth peer name far netns {}", far.name));
    far.ip("link set far up");
    far
}

#[test]
fn a_missing_parent_and_a_missing_feature_are_named() {
    World::run(async |mut world| {
        let refused = world.apply(&[on_vlan(dual("tenant-a", 100), "eth9", 100)]).await.unwrap_err().to_string();
        if !world.segmentation.supports_vlan().await.unwrap() {
            assert!(refused.contains("this kernel lacks 8021q"), "{refused}");
            world.apply(&[dual("tenant-a", 100)]).await.unwrap();
        } else {
            assert!(refused.contains("its VLAN parent `eth9` does not exist"), "{refused}");
        }
    });
}

#[test]
#[ignore = "needs 8021q: second kernel"]
fn a_vlan_is_made_kept_and_deleted() {
    World::run(async |mut world| {
        let _far = trunk(&world);
        world.apply(&[on_vlan(dual("tenant-a", 100), "eth1", 100)]).await.unwrap();
        assert_eq!(world.plan().await, "");
        let shown = world.node.ip("-d link show tgv-tenant-a");
        for part in
            ["vlan protocol 802.1Q id 100", "master tgb-tenant-a", "learning on", "alias tidegate network/tenant-a"]
        {
            assert!(shown.contains(part), "{part} in {shown}");
        }
        assert!(world.node.ip("link show eth1").contains("UP"));
        assert!(!world.node.ip("addr show tgv-tenant-a").contains("inet6"));
        world.apply(&[on_vlan(dual("tenant-a", 100), "eth1", 101)]).await.unwrap();
        assert!(world.node.ip("-d link show tgv-tenant-a").contains("id 101"));
        assert_eq!(world.segmentation.status().errors, Vec::<String>::new());
        world.node.ip("link del tgv-tenant-a");
        eventually("the VLAN is back", || world.links().contains(&"tgv-tenant-a".to_owned())).await;
        world.apply(&[dual("tenant-a", 100)]).await.unwrap();
        assert_eq!(world.links(), ["eth1", "tgb-tenant-a"]);
        world.apply(&[on_vlan(dual("tenant-a", 100), "eth1", 100)]).await.unwrap();
        world.apply(&[]).await.unwrap();
        assert_eq!(world.links(), ["eth1"]);
    });
}

#[test]
#[ignore = "needs 8021q: second kernel"]
fn a_vlan_that_another_program_has_is_refused() {
    World::run(async |mut world| {
        let _far = trunk(&world);
        world.node.ip("link add link eth1 name eth1.100 type vlan id 100");
        let refused = world.apply(&[on_vlan(dual("tenant-a", 100), "eth1", 100)]).await.unwrap_err().to_string();
        assert!(refused.contains("VLAN 100 on eth1 is already taken by link `eth1.100`"), "{refused}");
        let mut large = on_vlan(dual("tenant-a", 100), "eth1", 101);
        large.mtu = Some(9000);
        let refused = world.apply(&[large]).await.unwrap_err().to_string();
        assert!(refused.contains("MTU 9000 does not fit its VLAN parent eth1 with MTU 1500"), "{refused}");
    });
}

#[test]
#[ignore = "needs 8021q: second kernel"]
fn tenants_reach_their_own_vlan_and_no_other() {
    World::run(async |mut world| {
        let far = trunk(&world);
        for id in [100, 200] {
            far.ip(&format!("link add link far name far.{id} type vlan id {id}"));
            far.ip(&format!("link set far.{id} up"));
        }
        far.ip("addr add 10.100.0.250/24 dev far.100");
        far.ip("addr add fd00:100::250/64 dev far.100 nodad");
        let networks = [on_vlan(dual("tenant-a", 100), "eth1", 100), on_vlan(dual("tenant-b", 200), "eth1", 200)];
        world.apply(&networks).await.unwrap();
        let (a, _) = world.attach(1, "tenant-a").await;
        let (b, _) = world.attach(2, "tenant-b").await;
        assert!(a.reaches(&far, "10.100.0.250"));
        assert!(far.reaches(&a, "10.100.0.2"));
        assert!(a.reaches(&far, "fd00:100::250"));
        assert!(far.reaches(&a, "fd00:100::2"));
        // The same address on the other VLAN: nobody there.
        b.ip("addr add 10.100.0.9/24 dev eth0");
        b.ip("route del default");
        assert!(!b.reaches(&far, "10.100.0.250"));
        let heard = far.exec("cat /sys/class/net/far.200/statistics/rx_packets");
        assert_ne!(heard.trim(), "0", "its ARP went out on VLAN 200");
    });
}

#[test]
#[ignore = "needs 8021q: second kernel"]
fn parents_and_tags_of_any_sort() {
    World::run(async |mut world| {
        let _far = trunk(&world);
        world.node.ip("link add bond0 type bond");
        world.node.ip("link add br9 type bridge");
        world.node.ip("link add link eth1 name eth1.500 type vlan protocol 802.1ad id 500");
        let before = world.links();
        for (parent, protocol, shown) in [
            ("eth1", VlanProtocol::Dot1ad, "vlan protocol 802.1ad id 100"),
            ("bond0", VlanProtocol::Dot1q, "vlan protocol 802.1Q id 100"),
            ("br9", VlanProtocol::Dot1q, "vlan protocol 802.1Q id 100"),
            // a customer's tag inside a provider's
            ("eth1.500", VlanProtocol::Dot1q, "vlan protocol 802.1Q id 100"),
        ] {
            let mut network = on_vlan(dual("tenant-a", 100), parent, 100);
            network.vlan.as_mut().unwrap().protocol = protocol;
            world.apply(&[network]).await.unwrap();
            let link = world.node.ip("-d link show tgv-tenant-a");
            assert!(link.contains(shown) && link.contains(&format!("tgv-tenant-a@{parent}")), "{parent}: {link}");
            assert_eq!(world.plan().await, "", "{parent}");
            world.apply(&[]).await.unwrap();
            assert_eq!(world.links(), before, "{parent}");
        }
    });
}

#[test]
#[ignore = "needs 8021q: second kernel"]
fn a_parent_goes_down_goes_away_changes_its_name_and_comes_back() {
    World::run(async |mut world| {
        let far = trunk(&world);
        world.apply(&[on_vlan(dual("tenant-a", 100), "eth1", 100)]).await.unwrap();
        let (_a, _) = world.attach(1, "tenant-a").await;
        let present = |world: &World| world.links().contains(&"tgv-tenant-a".to_owned());
        let missing = |world: &World| {
            let refusals = world.segmentation.status().refusals;
            refusals.iter().any(|refusal| refusal.to_string().contains("its VLAN parent `eth1` does not exist"))
        };
        world.node.ip("link set eth1 down");
        eventually("it is up again", || !world.node.exec("ip -o link show up dev eth1").is_empty()).await;

        world.node.ip("link del eth1");
        eventually("its absence is told", || missing(&world)).await;
        assert!(!present(&world));
        // the workload stays where it is
        assert!(world.node.ip("-o link show master tgb-tenant-a").contains("tgw1"));
        let again = trunk(&world);
        eventually("the VLAN is back", || present(&world) && !missing(&world)).await;
        assert_eq!(world.plan().await, "");

        world.node.ip("link set eth1 down");
        world.node.ip("link set eth1 name eth7");
        eventually("the name is missed", || missing(&world)).await;
        assert!(present(&world), "what is there goes on");
        world.node.ip("link set eth7 down");
        world.node.ip("link set eth7 name eth1");
        eventually("it is known again", || !missing(&world)).await;
        eventually("and up", || !world.node.exec("ip -o link show up dev eth1").is_empty()).await;
        for harm in ["mtu 1400", "down", "nomaster"] {
            world.node.ip(&format!("link set tgv-tenant-a {harm}"));
            let right = |world: &World| {
                let link = world.node.ip("-o link show tgv-tenant-a");
                link.contains("mtu 1500") && link.contains(",UP") && link.contains("master tgb-tenant-a")
            };
            eventually(harm, || right(&world)).await;
        }
        drop((far, again));
    });
}
