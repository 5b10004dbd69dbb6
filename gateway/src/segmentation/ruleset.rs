//! Table `inet tidegate` as text for `nft -f`: filled in one transaction, whatever was in it before. Networks and workloads are
//! elements of its sets: a packet costs the same however many there are, and where only those came or went the table is
//! changed by them alone.
//!
//! - `postrouting`: networks with `snat: Masquerade` take this node's address wherever they leave by another link than
//!   a network's bridge and the one where the kernel programs translate. Those with an address of their own take that at
//!   the uplink where no program does it, and elsewhere, where no answer would come to it, this node's.
//! - `forwarding`: what comes from a bridge must come from a subnet of that network; nothing is routed from or to a
//!   network with an External router, and nothing from elsewhere with an address of a routed network: policies know
//!   workloads by their addresses. A bridge that no rule names is closed, so the table is put before a new network's
//!   bridge and long before an old one's is gone. Bridged frames, which br_netfilter may show here with the bridge as
//!   both links, pass. Between two networks only workloads meet: their policies decide at both ends, while other hosts
//!   of a VLAN have none, and would see another tenant's through this node.
//! - `entering`: from a bridge, the node itself answers only at the edge's listeners, and with ND and ICMP errors. This
//!   is a backstop: workloads are already held by their own programs, other hosts of a VLAN only by this.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use config::resource::{Gateway, Network};

use super::desired::Desired;
use super::names;
use crate::workload::is_link_local;

/// Family of the table.
pub(super) const FAMILY: &str = "inet";
/// Its name.
pub(super) const TABLE: &str = "tidegate";

/// The ruleset that deletes the table, there or not.
pub(super) const DELETE: &str = "table inet tidegate {}\ndelete table inet tidegate\n";

/// The table's sets, by name, and of what they are. Those with `4` and `6` are of one family.
const SETS: [(&str, &str); 12] = [
    // addresses of workloads that may meet between networks
    ("workloads4", "set workloads4 { type ipv4_addr; }"),
    ("workloads6", "set workloads6 { type ipv6_addr; }"),
    // each network's bridge, as where a frame comes from and goes to
    ("within", "set within { type ifname . ifname; }"),
    // bridges of routed networks
    ("routed", "set routed { type ifname; }"),
    // their subnets, with the bridge and without
    ("sources4", "set sources4 { type ifname . ipv4_addr; flags interval; }"),
    ("sources6", "set sources6 { type ifname . ipv6_addr; flags interval; }"),
    ("subnets4", "set subnets4 { type ipv4_addr; flags interval; }"),
    ("subnets6", "set subnets6 { type ipv6_addr; flags interval; }"),
    // subnets whose source is translated, and by which address if it is the network's own
    ("masqueraded4", "set masqueraded4 { type ipv4_addr; flags interval; }"),
    ("masqueraded6", "set masqueraded6 { type ipv6_addr; flags interval; }"),
    ("own4", "map own4 { type ipv4_addr : ipv4_addr; flags interval; }"),
    ("own6", "map own6 { type ipv6_addr : ipv6_addr; flags interval; }"),
];

/// The table as it shall be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// All but the elements of its sets.
    pub rules: String,
    /// Their elements, by set.
    pub elements: Elements,
}

/// Elements by the set that they are in, as `nft` takes them.
pub type Elements = BTreeMap<&'static str, BTreeSet<String>>;

impl Ruleset {
    /// What a desired state needs.
    pub fn of(desired: &Desired) -> Self {
        let mut rules = Rules(format!("{DELETE}table inet tidegate {{\n"));
        for (_, declaration) in SETS {
            rules.0.push_str(&format!("  {declaration}\n"));
        }
        rules.masquerade(desired);
        rules.forwarding();
        rules.entering(desired);
        rules.0.push_str("}\n");
        Self { rules: rules.0, elements: elements(desired) }
    }

    /// The transaction that makes the table, whatever was in it.
    pub fn text(&self) -> String {
        self.rules.clone() + &statements("add", &self.elements, &Elements::new())
    }

    /// The transaction that makes it of a table that differs in elements only.
    pub fn text_after(&self, before: &Self) -> String {
        statements("delete", &before.elements, &self.elements) + &statements("add", &self.elements, &before.elements)
    }
}

/// One statement for each set with elements that it has not in `but`.
fn statements(verb: &str, elements: &Elements, but: &Elements) -> String {
    let mut text = String::new();
    for (set, own) in elements {
        let other = but.get(set);
        let own = own.iter().filter(|element| other.is_none_or(|other| !other.contains(*element)));
        let own = own.map(String::as_str).collect::<Vec<_>>().join(", ");
        if !own.is_empty() {
            text.push_str(&format!("{verb} element {FAMILY} {TABLE} {set} {{ {own} }}\n"));
        }
    }
    text
}

fn elements(desired: &Desired) -> Elements {
    let mut elements = Elements::new();
    let mut add = |set: &'static str, element: String| {
        elements.entry(set).or_default().insert(element);
    };
    let of = |ipv4, set4, set6| if ipv4 { set4 } else { set6 };
    for network in desired.networks.values().filter(|network| network.adopt.is_none()) {
        let bridge = names::bridge(&network.name);
        add("within", format!("\"{bridge}\" . \"{bridge}\""));
        if network.gateway != Gateway::Node {
            continue;
        }
        add("routed", format!("\"{bridge}\""));
        for subnet in network.subnets.iter().map(|subnet| subnet.cidr) {
            let ipv4 = subnet.is_ipv4();
            add(of(ipv4, "sources4", "sources6"), format!("\"{bridge}\" . {subnet}"));
            add(of(ipv4, "subnets4", "subnets6"), subnet.to_string());
            if network.snat.translates() {
                add(of(ipv4, "masqueraded4", "masqueraded6"), subnet.to_string());
            }
            if let Some(own) = network.snat.own().find(|own| own.is_ipv4() == ipv4) {
                add(of(ipv4, "own4", "own6"), format!("{subnet} : {own}"));
            }
        }
    }
    if is_between(desired) {
        let routed = |network| desired.networks.get(network).is_some_and(|it: &Network| it.gateway == Gateway::Node);
        let own = desired.workloads.values().filter(|workload| routed(&workload.network));
        let addresses = own.flat_map(|workload| &workload.addresses).map(|own| own.address);
        for address in addresses.filter(|address| !is_link_local(*address)) {
            add(of(address.is_ipv4(), "workloads4", "workloads6"), address.to_string());
        }
    }
    elements
}

struct Rules(String);

impl Rules {
    fn line(&mut self, line: impl AsRef<str>) {
        self.0.push_str("    ");
        self.0.push_str(line.as_ref());
        self.0.push('\n');
    }

    fn chain(&mut self, name: &str, hook: &str, body: impl FnOnce(&mut Self)) {
        self.0.push_str(&format!("  chain {name} {{\n"));
        if !hook.is_empty() {
            self.line(hook);
        }
        body(self);
        self.0.push_str("  }\n");
    }

    fn masquerade(&mut self, desired: &Desired) {
        let translated = desired.node.nat.map(|ifindex| format!("oif != {ifindex} "));
        self.chain("postrouting", "type nat hook postrouting priority srcnat; policy accept;", |rules| {
            let uplink = desired.node.uplink.filter(|_| translated.is_none());
            for (family, number) in [("ip", 4), ("ip6", 6)] {
                if let Some(uplink) = uplink {
                    rules.line(format!("oif {uplink} snat {family} to {family} saddr map @own{number}"));
                }
                rules.line(format!(
                    "{family} saddr @masqueraded{number} oifname != \"{}*\" {}masquerade",
                    names::BRIDGE_PREFIX,
                    translated.as_deref().unwrap_or_default(),
                ));
            }
        });
    }

    fn forwarding(&mut self) {
        let to_bridge = format!("oifname \"{}*\"", names::BRIDGE_PREFIX);
        self.chain("between_networks", "", |rules| {
            rules.line("ip saddr @workloads4 ip daddr @workloads4 accept");
            rules.line("ip6 saddr @workloads6 ip6 daddr @workloads6 accept");
            rules.line("drop");
        });
        self.chain("from_a_subnet", "", |rules| {
            rules.line(format!("{to_bridge} goto between_networks"));
            rules.line("accept");
        });
        self.chain("from_networks", "", |rules| {
            rules.line("iifname . oifname @within accept");
            rules.line("iifname . ip saddr @sources4 goto from_a_subnet");
            rules.line("iifname . ip6 saddr @sources6 goto from_a_subnet");
            rules.line("drop");
        });
        self.chain("to_networks", "", |rules| {
            rules.line("ip saddr @subnets4 drop");
            rules.line("ip6 saddr @subnets6 drop");
            rules.line("oifname @routed accept");
            rules.line("drop");
        });
        self.chain("forwarding", "type filter hook forward priority filter - 10; policy accept;", |rules| {
            rules.line(format!("iifname \"{}*\" goto from_networks", names::BRIDGE_PREFIX));
            rules.line(format!("{to_bridge} goto to_networks"));
        });
    }

    fn entering(&mut self, desired: &Desired) {
        self.chain("entering", "type filter hook input priority filter - 10; policy accept;", |rules| {
            rules.line(format!("iifname \"{}*\" goto from_tenants", names::BRIDGE_PREFIX));
        });
        self.chain("from_tenants", "", |rules| {
            rules.line("ct state established,related accept");
            rules.line("icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept");
            for listener in &desired.node.edge {
                rules.line(listener_rule(listener));
            }
            rules.line("drop");
        });
    }
}

fn listener_rule(listener: &SocketAddr) -> String {
    let (ip, port) = (listener.ip(), listener.port());
    match (ip.is_unspecified(), ip.is_ipv4()) {
        (true, true) => format!("meta nfproto ipv4 tcp dport {port} accept"),
        (true, false) => format!("meta nfproto ipv6 tcp dport {port} accept"),
        (false, ipv4) => format!("{} daddr {ip} tcp dport {port} accept", family(ipv4)),
    }
}

fn family(ipv4: bool) -> &'static str {
    if ipv4 { "ip" } else { "ip6" }
}

/// Whether this node routes between networks.
fn is_between(desired: &Desired) -> bool {
    desired.networks.values().filter(|network| network.gateway == Gateway::Node).count() > 1
}
