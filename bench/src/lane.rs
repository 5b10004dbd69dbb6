//! Three worlds of one shape. The client is a port of a bridge in the node, the sink is behind the node's uplink:
//!
//! ```text
//! client eth0 ── port, bridge 10.100.0.1, node, eth0 192.0.2.2 ── 192.0.2.1 eth0 sink, 203.0.113.30
//! ```
//! The rules are the same in nftables and in Tidegate: [`RULES`] prefixes with a range of TCP ports and one of UDP ports
//! each; the sink's is one of them. Nothing is masqueraded but in the lanes of [`crate::nat`], where everything is.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use integration::daemon::{Daemon, Settings};
use integration::frame::Mac;
use integration::manifests::{allow_cidrs, namespace, policy};
use integration::namespace::Namespace;
use integration::process::output_with_input;
use integration::site::{Pod, pod};
use integration::traffic::Target;
use integration::wait::wait_for;
use integration::world::World;

/// Prefixes in each rule set.
pub(crate) const RULES: u8 = 64;
/// Where the sink accepts TCP connections that are closed at once.
pub(crate) const TCP_PORT: u16 = 5200;
/// Where it reads what comes.
pub(crate) const BULK_PORT: u16 = 5201;
/// First of the UDP ports that are allowed, and where packets go.
pub(crate) const UDP_PORT: u16 = 9000;
/// The sink.
pub(crate) const SINK: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 30);

/// The node on the sink's link.
const NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

/// A client that is no workload.
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 100, 0, 2);

const LAST_UDP_PORT: u16 = 9063;

/// One way from a client to a sink.
pub(crate) struct Lane {
    pub(crate) name: &'static str,
    pub(crate) client: Namespace,
    pub(crate) node: Namespace,
    pub(crate) sink: Namespace,
    pub(crate) address: Ipv4Addr,
    pub(crate) mac: Mac,
    daemon: Option<Daemon>,
    world: World,
}

impl Lane {
    /// The kernel's routing alone.
    pub(crate) fn plain() -> Self {
        Self::routed("plain routing", |_| {})
    }

    /// Routing, and a forward chain that drops what is neither of a known connection nor in the set.
    pub(crate) fn nftables() -> Self {
        Self::routed("nftables", |node| {
            let said = output_with_input(node.command("nft").args(["-f", "-"]), &nft_rules());
            assert!(said.success(), "nft: {}", said.stderr);
        })
    }

    /// The same, and the node's address for whatever leaves.
    pub(crate) fn masquerading_nftables() -> Self {
        Self::routed("nftables", |node| {
            let chain = "type nat hook postrouting priority srcnat; ip saddr 10.100.0.0/24 oifname eth0 masquerade;";
            let rules = format!("{}table ip out {{ chain out {{ {chain} }}; }}\n", nft_rules());
            let said = output_with_input(node.command("nft").args(["-f", "-"]), &rules);
            assert!(said.success(), "nft: {}", said.stderr);
        })
    }

    /// The same rules with ipset and iptables.
    pub(crate) fn masquerading_iptables() -> Self {
        Self::routed("iptables + ipset", |node| {
            let said = output_with_input(node.command("ipset").args(["restore"]), &ipset_rules());
            assert!(said.success(), "ipset: {}", said.stderr);
            for line in [
                "iptables -P FORWARD DROP",
                "iptables -A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT",
                "iptables -A FORWARD -m set --match-set allowed dst,dst -j ACCEPT",
                "iptables -t nat -A POSTROUTING -s 10.100.0.0/24 -o eth0 -j MASQUERADE",
            ] {
                node.ok(line);
            }
        })
    }

    /// A workload of a running gateway.
    pub(crate) fn tidegate() -> Self {
        Self::workload("None")
    }

    /// A workload of a network with source NAT.
    pub(crate) fn masquerading_tidegate() -> Self {
        Self::workload("Masquerade")
    }

    fn workload(snat: &str) -> Self {
        let gateway = Gateway::start_with("    - { cidr: 10.100.0.0/24, gateway: 10.100.0.1 }\n", snat, "");
        Self::of(gateway, &tidegate_rules())
    }

    /// A workload of that gateway's, of the namespace `bench`, with these policies.
    pub(crate) fn of(gateway: Gateway, rules: &str) -> Self {
        let Gateway { daemon, node, sink, world } = gateway;
        daemon.netctl().apply(&(namespace("bench", "tenant") + rules));
        let client = world.namespace("client", None);
        let path = client.path().to_str().expect("a path of the world is text").to_owned();
        daemon.netctl().ok(&["attach", "client", "-n", "bench", "--netns", &path]);
        let workload = pod("bench", "client", client.clone());
        Self {
            name: "Tidegate",
            client,
            node,
            sink,
            address: workload.v4,
            mac: workload.mac,
            daemon: Some(daemon),
            world,
        }
    }

    /// No node at all: the client's link ends at the sink. What is left is the sender's and the receiver's own cost.
    pub(crate) fn direct() -> Self {
        let world = World::new();
        let [node, sink, client] = ["node", "sink", "client"].map(|role| world.namespace(role, None));
        world.link((&client, Pod::INTERFACE), (&sink, "eth0"));
        let address = format!("addr add {SINK}/32 dev lo");
        sink.ip_lines([&*address, "addr add 10.100.0.1/24 dev eth0"]);
        client.ip_lines(["addr add 10.100.0.2/24 dev eth0", "route add default via 10.100.0.1"]);
        let mac = mac_of(&client);
        Self { name: "no node", client, node, sink, address: CLIENT, mac, daemon: None, world }
    }

    pub(crate) fn routed(name: &'static str, rules: impl FnOnce(&Namespace)) -> Self {
        let (world, node, sink) = node_and_sink();
        let client = world.namespace("client", None);
        world.link((&client, Pod::INTERFACE), (&node, "port0"));
        node.ip_lines([
            "link add bridge0 type bridge",
            "link set port0 master bridge0",
            "addr add 10.100.0.1/24 dev bridge0",
            "link set bridge0 up",
        ]);
        client.ip_lines(["addr add 10.100.0.2/24 dev eth0", "route add default via 10.100.0.1"]);
        node.sysctl("ipv4/ip_forward", "1");
        rules(&node);
        let mac = mac_of(&client);
        Self { name, client, node, sink, address: CLIENT, mac, daemon: None, world }
    }

    /// Where the daemon pinned its programs; `None` in a lane without.
    pub(crate) fn programs(&self) -> Option<PathBuf> {
        self.daemon.as_ref().and_then(|_| programs(&self.world))
    }

    /// The node's end of the client's link.
    pub(crate) fn host_side(&self) -> u32 {
        let link = self.client.ip_json("link show dev eth0");
        link[0]["link_index"].as_u64().and_then(|index| index.try_into().ok()).expect("the other end of a pair")
    }

    /// The world's folder.
    pub(crate) fn folder(&self) -> PathBuf {
        self.world.folder().join("bench")
    }

    /// Another workload with the same rules.
    pub(crate) fn another(&self, name: &str) -> Pod {
        let daemon = self.daemon.as_ref().expect("a lane with a daemon");
        let netns = self.world.namespace(name, None);
        let path = netns.path().to_str().expect("a path of the world is text").to_owned();
        daemon.netctl().ok(&["attach", name, "-n", "bench", "--netns", &path]);
        pod("bench", name, netns)
    }

    /// The MAC that the client sends to, learned by asking for something that passes.
    pub(crate) fn next_hop(&self) -> Mac {
        self.next_hop_of(&self.client)
    }

    /// The same, of another workload.
    pub(crate) fn next_hop_of(&self, client: &Namespace) -> Mac {
        wait_for("the client's next hop", Duration::from_secs(5), || {
            client.attempt(Target::Udp((SINK, UDP_PORT).into()), Duration::from_millis(50));
            let entries = client.ip_json("neigh show 10.100.0.1");
            entries[0]["lladdr"].as_str()?.parse().ok()
        })
    }

    /// The MAC that the sink answers to, and its own.
    pub(crate) fn sinks_next_hop(&self) -> (Mac, Mac) {
        let mac = |value: &serde_json::Value| value.as_str().and_then(|text| text.parse().ok());
        wait_for("the sink's next hop", Duration::from_secs(5), || {
            self.sink.attempt(Target::Udp((NODE, UDP_PORT).into()), Duration::from_millis(50));
            let next = self.sink.ip_json(&format!("neigh show {NODE}"));
            let link = self.sink.ip_json("link show dev eth0");
            Some((mac(&next[0]["lladdr"])?, mac(&link[0]["address"])?))
        })
    }
}

/// Where a world's gateway has pinned its programs.
pub(crate) fn programs(world: &World) -> Option<PathBuf> {
    let versions = std::fs::read_dir(world.bpffs()).ok()?;
    versions.flatten().map(|entry| entry.path().join("programs")).find(|path| path.exists())
}

/// A running gateway with the network `tenant`, between its workloads and the sink.
pub(crate) struct Gateway {
    pub(crate) daemon: Daemon,
    pub(crate) node: Namespace,
    pub(crate) sink: Namespace,
    pub(crate) world: World,
}

impl Gateway {
    /// `subnets` are lines of the network's spec.
    pub(crate) fn start(subnets: &str) -> Self {
        Self::start_with(subnets, "None", "")
    }

    /// The same with this source NAT, and with further lines of settings.
    pub(crate) fn start_with(subnets: &str, snat: &str, more: &str) -> Self {
        let (world, node, sink) = node_and_sink();
        let settings = Settings {
            upstreams: vec![SINK.into()],
            listen: vec![([127, 0, 0, 1], 443).into()],
            dns: String::new(),
            probes: None,
            more: more.to_owned(),
        };
        let daemon = Daemon::start(&world, &node, &settings);
        daemon.netctl().apply(&format!(
            "apiVersion: tidegate.dev/v1alpha1\nkind: Network\nmetadata: {{ name: tenant }}\nspec:\n  subnets:\n{subnets}  \
             gateway: Node\n  egress: {{ snat: {snat} }}\n"
        ));
        Self { daemon, node, sink, world }
    }
}

fn mac_of(client: &Namespace) -> Mac {
    let link = client.ip_json("link show dev eth0");
    link[0]["address"].as_str().and_then(|text| text.parse().ok()).expect("the client's MAC")
}

fn node_and_sink() -> (World, Namespace, Namespace) {
    let world = World::new();
    let (node, sink) = (world.namespace("node", None), world.namespace("sink", None));
    world.link((&sink, "eth0"), (&node, "eth0"));
    let address = format!("addr add {SINK}/32 dev lo");
    sink.ip_lines([&*address, "addr add 192.0.2.1/24 dev eth0", "route add 10.0.0.0/8 via 192.0.2.2"]);
    node.ip_lines(["addr add 192.0.2.2/24 dev eth0", "route add default via 192.0.2.1"]);
    (world, node, sink)
}

fn prefixes() -> Vec<String> {
    let others = (1..RULES).map(|number| format!("198.51.{number}.0/24"));
    others.chain([format!("{SINK}/32")]).collect()
}

fn tidegate_rules() -> String {
    let prefixes = prefixes();
    let prefixes: Vec<&str> = prefixes.iter().map(String::as_str).collect();
    let ports = format!(
        "[ {{ protocol: TCP, port: {TCP_PORT}, endPort: {BULK_PORT} }}, {{ protocol: UDP, port: {UDP_PORT}, endPort: {LAST_UDP_PORT} }} ]"
    );
    policy("bench", "allowed", &allow_cidrs(&prefixes, &ports))
}

/// As `ipset restore` takes it.
fn ipset_rules() -> String {
    let mut lines = "create allowed hash:net,port\n".to_owned();
    for prefix in prefixes() {
        let _infallible = write!(
            lines,
            "add allowed {prefix},tcp:{TCP_PORT}-{BULK_PORT}\nadd allowed {prefix},udp:{UDP_PORT}-{LAST_UDP_PORT}\n"
        );
    }
    lines
}

fn nft_rules() -> String {
    let mut elements = String::new();
    for prefix in prefixes() {
        let _infallible =
            write!(elements, "{prefix} . tcp . {TCP_PORT}-{BULK_PORT}, {prefix} . udp . {UDP_PORT}-{LAST_UDP_PORT}, ");
    }
    format!(
        "table ip bench {{\n  set allowed {{ type ipv4_addr . inet_proto . inet_service; flags interval; elements = {{ {elements} }} }}\n  \
         chain forward {{\n    type filter hook forward priority 0; policy drop;\n    ct state established,related accept\n    \
         ip daddr . meta l4proto . th dport @allowed accept\n  }}\n}}\n"
    )
}
