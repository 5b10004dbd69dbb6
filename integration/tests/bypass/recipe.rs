//! The intent of a well-known recipe, as one manifest.

use integration::manifests::allow_cidrs;
use integration::site::{ECHO, NODE4, NODE6, OTHER};
use integration::traffic::Target;

use super::{ECHO_PORT, Stage, stage};

/// A recipe for hosts without Tidegate that is found in many places: rules that let a container's traffic return from
/// the chain that is meant to restrict it.
fn recipe(with_drop: bool) -> String {
    let drop = if with_drop { "ip saddr 10.77.0.2 drop" } else { "" };
    format!(
        "table inet recipe {{\n  chain forward {{ type filter hook forward priority 0; policy accept; jump user; }}\n  \
         chain user {{\n    ip saddr 10.77.0.2 ip daddr {} tcp dport 7 return\n    {drop}\n  }}\n}}\n",
        ECHO.v4()
    )
}

#[test]
fn one_manifest_closes_what_the_recipe_leaves_open() {
    let ports = "[ { protocol: TCP, port: 7 } ]";
    let stage = stage(&allow_cidrs(&[&format!("{}/32", ECHO.v4())], ports));
    let Stage { site, web, .. } = &stage;
    let _server = site.node.echo_server(&[([0u16; 8], ECHO_PORT).into()]);
    let wanted = Target::new("tcp", ECHO.v4(), ECHO_PORT);
    let by_forward = [Target::new("tcp", OTHER.v4(), ECHO_PORT), Target::new("tcp", ECHO.v4(), 70)];
    let by_ipv6 = Target::new("tcp", OTHER.v6(), ECHO_PORT);

    let plain = site.world.namespace("plain", None);
    site.world.link((&site.node, "plain0"), (&plain, "eth0"));
    site.node.ip_lines(["addr add 10.77.0.1/24 dev plain0", "addr add fd00:77::1/64 dev plain0 nodad"]);
    plain.ip_lines([
        "addr add 10.77.0.2/24 dev eth0",
        "addr add fd00:77::2/64 dev eth0 nodad",
        "route add default via 10.77.0.1",
        "route add ::/0 via fd00:77::1",
    ]);
    let install = |with_drop| {
        let file = site.world.folder().join("recipe.nft");
        std::fs::write(&file, format!("table inet recipe\ndelete table inet recipe\n{}", recipe(with_drop)))
            .expect("a file");
        site.node.ok(&format!("nft -f {}", file.display()));
    };
    let node_of = |gateway: &str| Target::new("tcp", gateway.parse().expect("an address"), ECHO_PORT);

    install(false);
    for target in by_forward.into_iter().chain([wanted, by_ipv6, node_of("10.77.0.1"), node_of("fd00:77::1")]) {
        plain.must_reach(target); // it restricts nothing
    }
    install(true);
    by_forward.into_iter().for_each(|target| plain.must_not_reach(target));
    for target in [wanted, by_ipv6, node_of("10.77.0.1"), node_of("fd00:77::1")] {
        plain.must_reach(target); // nor IPv6, nor the node itself
    }

    web.must_reach(wanted);
    for target in by_forward.into_iter().chain([by_ipv6, node_of("10.100.0.1"), node_of("fd00:100::1")]) {
        web.must_not_reach(target);
    }
    web.must_not_reach(Target::new("tcp", NODE4.into(), ECHO_PORT));
    web.must_not_reach(Target::new("tcp", NODE6.into(), ECHO_PORT));
}
