//! Table `inet tidegate` as text for `nft -f`: filled in one transaction, whatever was in it before; where only workloads
//! came or went, by their elements alone.
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

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

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

/// The sets of workloads' addresses, by family.
const SETS: [(&str, &str, bool); 2] = [("workloads4", "ipv4_addr", true), ("workloads6", "ipv6_addr", false)];

/// The table as it shall be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// All but the elements of its sets.
    pub rules: String,
    /// Their elements: addresses of workloads that may meet between networks.
    pub workloads: BTreeSet<IpAddr>,
}

impl Ruleset {
    /// What a desired state needs.
    pub fn of(desired: &Desired) -> Self {
        let mut rules = Rules(format!("{DELETE}table inet tidegate {{\n"));
        rules.masquerade(desired);
        rules.forwarding(desired);
        rules.entering(desired);
        rules.0.push_str("}\n");
        let workloads = if is_between(desired) { workloads(desired) } else { BTreeSet::new() };
        Self { rules: rules.0, workloads }
    }

    /// The transaction that makes the table, whatever was in it.
    pub fn text(&self) -> String {
        self.rules.clone() + &elements("add", self.workloads.iter())
    }

    /// The transaction that makes it of a table that differs in workloads only.
    pub fn text_after(&self, before: &Self) -> String {
        let gone = elements("delete", before.workloads.difference(&self.workloads));
        gone + &elements("add", self.workloads.difference(&before.workloads))
    }
}

fn elements<'a>(verb: &str, addresses: impl Iterator<Item = &'a IpAddr>) -> String {
    let addresses: Vec<&IpAddr> = addresses.collect();
    let mut text = String::new();
    for (set, _, ipv4) in SETS {
        let own = addresses.iter().filter(|address| address.is_ipv4() == ipv4).map(ToString::to_string);
        let own = own.collect::<Vec<_>>().join(", ");
        if !own.is_empty() {
            text.push_str(&format!("{verb} element {FAMILY} {TABLE} {set} {{ {own} }}\n"));
        }
    }
    text
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
        let networks = || desired.networks.values().filter(|network| network.gateway == Gateway::Node);
        let translated = desired.node.nat.map(|ifindex| format!("oif != {ifindex} "));
        self.chain("postrouting", "type nat hook postrouting priority srcnat; policy accept;", |rules| {
            for network in networks().filter(|network| network.snat.translates()) {
                for subnet in &network.subnets {
                    let family = family(subnet.cidr.is_ipv4());
                    let elsewhere = translated.as_deref().unwrap_or_default();
                    let own = network.snat.own().find(|own| own.is_ipv4() == subnet.cidr.is_ipv4());
                    if let (Some(own), Some(uplink), None) = (own, desired.node.uplink, &translated) {
                        rules.line(format!("{family} saddr {} oif {uplink} snat {family} to {own}", subnet.cidr));
                    }
                    rules.line(format!(
                        "{family} saddr {} oifname != \"{}*\" {elsewhere}masquerade",
                        subnet.cidr,
                        names::BRIDGE_PREFIX
                    ));
                }
            }
        });
    }

    fn forwarding(&mut self, desired: &Desired) {
        let between = is_between(desired);
        if between {
            self.between();
        }
        let other_bridge = if between { "between_networks" } else { "to_networks" };
        self.chain("forwarding", "type filter hook forward priority filter - 10; policy accept;", |rules| {
            rules.line(format!("iifname \"{}*\" goto from_networks", names::BRIDGE_PREFIX));
            rules.line(format!("oifname \"{}*\" goto to_networks", names::BRIDGE_PREFIX));
        });
        self.chain("from_networks", "", |rules| {
            for network in desired.networks.values().filter(|network| network.adopt.is_none()) {
                let bridge = names::bridge(&network.name);
                rules.line(format!("iifname \"{bridge}\" oifname \"{bridge}\" accept"));
            }
            for network in desired.networks.values().filter(|network| network.gateway == Gateway::Node) {
                let bridge = names::bridge(&network.name);
                for (ipv4, subnets) in by_family([network]) {
                    let jump = format!("oifname \"{}*\" goto {other_bridge}", names::BRIDGE_PREFIX);
                    let from = format!("iifname \"{bridge}\" {} saddr {{ {subnets} }}", family(ipv4));
                    rules.line(format!("{from} {jump}"));
                    rules.line(format!("{from} accept"));
                }
            }
            rules.line("drop");
        });
        self.chain("to_networks", "", |rules| {
            for (ipv4, subnets) in by_family(desired.networks.values().filter(|it| it.gateway == Gateway::Node)) {
                rules.line(format!("{} saddr {{ {subnets} }} drop", family(ipv4)));
            }
            for network in desired.networks.values().filter(|network| network.gateway == Gateway::Node) {
                rules.line(format!("oifname \"{}\" accept", names::bridge(&network.name)));
            }
            rules.line("drop");
        });
    }

    /// From a network's bridge to another's.
    fn between(&mut self) {
        for (set, kind, _) in SETS {
            self.0.push_str(&format!("  set {set} {{ type {kind}; }}\n"));
        }
        self.chain("between_networks", "", |rules| {
            rules.line("ip saddr @workloads4 ip daddr @workloads4 accept");
            rules.line("ip6 saddr @workloads6 ip6 daddr @workloads6 accept");
            rules.line("drop");
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

/// Addresses of the workloads whose network this node routes for.
fn workloads(desired: &Desired) -> BTreeSet<IpAddr> {
    let routed = |name| desired.networks.get(name).is_some_and(|network| network.gateway == Gateway::Node);
    let own = desired.workloads.values().filter(|workload| routed(&workload.network));
    let addresses = own.flat_map(|workload| &workload.addresses).map(|own| own.address);
    addresses.filter(|address| !is_link_local(*address)).collect()
}

/// The subnets of these networks, one list for each family that there is.
fn by_family<'a>(networks: impl IntoIterator<Item = &'a Network>) -> impl Iterator<Item = (bool, String)> {
    let subnets: Vec<_> = networks.into_iter().flat_map(|network| &network.subnets).map(|subnet| subnet.cidr).collect();
    [true, false].into_iter().filter_map(move |ipv4| {
        let own = subnets.iter().filter(|cidr| cidr.is_ipv4() == ipv4).map(ToString::to_string);
        let own = own.collect::<Vec<_>>().join(", ");
        (!own.is_empty()).then_some((ipv4, own))
    })
}
