//! Tenants whose networks this node routes: their workloads meet as far as policies let them, and nobody else does.

use integration::manifests::{allow_cidrs, network, policy};
use integration::namespace::Namespace;
use integration::site::ECHO;
use integration::traffic::Target;
use integration::{Pod, Site};

/// A host of a tenant's segment that is no workload, as there are on a VLAN: joined to the bridge by hand.
fn stranger(site: &Site, tenant: &str, number: u16) -> Namespace {
    let host = site.world.namespace(&format!("host-{tenant}"), None);
    let port = format!("host{number}");
    site.world.link((&site.node, &port), (&host, "eth0"));
    site.node.ip(&format!("link set {port} master tgb-{tenant} up"));
    host.ip_lines([
        &*format!("addr add 10.{number}.0.250/24 dev eth0"),
        &*format!("addr add fd00:{number}::250/64 dev eth0 nodad"),
        "link set eth0 up",
        &*format!("route add default via 10.{number}.0.1"),
        &*format!("route add ::/0 via fd00:{number}::1"),
    ]);
    host
}

fn open_namespace(name: &str, network: &str) -> String {
    format!(
        "---\napiVersion: tidegate.dev/v1alpha1\nkind: Namespace\nmetadata: {{ name: {name} }}\n\
         spec: {{ network: {network}, ingressDefault: Allow }}\n"
    )
}

#[test]
fn hosts_of_two_segments_do_not_meet_through_the_node_and_workloads_do_by_policy() {
    let site = Site::start();
    let everything = allow_cidrs(&["0.0.0.0/0", "::/0"], "");
    site.netctl().apply(
        &(network("tenant-a", 100, "")
            + &network("tenant-b", 200, "")
            + &open_namespace("shop", "tenant-a")
            + &open_namespace("bank", "tenant-b")
            + &policy("shop", "all", &everything)),
    );
    let web: Pod = site.attach("shop", "web-1", &[]);
    let vault: Pod = site.attach("bank", "vault-1", &[]);
    let (at_a, at_b) = (stranger(&site, "tenant-a", 100), stranger(&site, "tenant-b", 200));

    web.must_reach(Target::new("ping", vault.v4.into(), 0));
    web.must_reach(Target::new("ping", vault.v6.into(), 0));
    vault.must_not_reach(Target::new("ping", web.v4.into(), 0));
    at_a.must_reach(Target::new("ping", ECHO.v4(), 0));

    for host in ["10.200.0.250", "fd00:200::250"] {
        let there = Target::new("ping", host.parse().expect("an address"), 0);
        at_a.must_not_reach(there);
        web.must_not_reach(there);
    }
    for (v4, v6) in [(vault.v4, vault.v6), (web.v4, web.v6)] {
        let from = if v4 == vault.v4 { &at_a } else { &at_b };
        from.must_not_reach(Target::new("ping", v4.into(), 0));
        from.must_not_reach(Target::new("ping", v6.into(), 0));
    }
}
