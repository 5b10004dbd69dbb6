//! Names, marks and Ethernet addresses of the links that segmentation makes.
//!
//! | link | name | mark (alias) |
//! |---|---|---|
//! | a network's bridge | `tgb-NETWORK`, or `tgb` and 12 hex digits of a hash where that is longer than 15 bytes | `tidegate network/NETWORK` |
//! | a network's VLAN sub-interface | `tgv-NETWORK`, or as above | `tidegate network/NETWORK` |
//! | host side of a workload's pair | `tgw` and the workload's number | `tidegate workload/NAMESPACE/NAME` |
//!
//! Only links with a mark are ever changed or deleted. A link is made first and marked at once after; one that was
//! left unmarked between the two is known by its name together with the Ethernet address derived from it.
//! Addresses are locally administered and derived from the node's seed too, so that two nodes that carry the same
//! network on one VLAN do not use the same ones.

use config::names::{InterfaceName, Name};

use crate::workload::{Mac, Workload, WorkloadId};

/// Begins the alias of every link that is ours.
pub const MARK: &str = "tidegate ";

/// Whether an alias says that the link belongs to a network or workload of this flow. Other parts of the gateway have
/// links too (`tg0`), and look after them.
pub fn is_ours(alias: &str) -> bool {
    alias.strip_prefix(MARK).is_some_and(|rest| rest.starts_with("network/") || rest.starts_with("workload/"))
}

/// All bridges of networks begin so; nft rules count on it.
pub const BRIDGE_PREFIX: &str = "tgb";

/// All host sides of workloads begin so.
pub const HOST_PREFIX: &str = "tgw";

/// A network's bridge.
pub fn bridge(network: &Name) -> InterfaceName {
    link(BRIDGE_PREFIX, network)
}

/// A network's VLAN sub-interface.
pub fn vlan(network: &Name) -> InterfaceName {
    link("tgv", network)
}

/// The host side of a workload's pair.
pub fn host(workload: WorkloadId) -> InterfaceName {
    interface(format!("{HOST_PREFIX}{}", workload.0))
}

/// The mark of a network's links.
pub fn network_mark(network: &Name) -> String {
    format!("{MARK}network/{network}")
}

/// The mark of a workload's host side.
pub fn workload_mark(workload: &Workload) -> String {
    format!("{MARK}workload/{}/{}", workload.namespace, workload.name)
}

/// The Ethernet address of a link that is ours by its name: of a bridge, or of the host side of a pair.
pub fn link_mac(seed: &str, link: &InterfaceName) -> Mac {
    mac(&[seed, "link", link.as_str()])
}

/// The Ethernet address that a new workload gets; `attempt` counts up when it is taken.
pub fn workload_mac(seed: &str, workload: WorkloadId, attempt: u32) -> Mac {
    mac(&[seed, "workload", &workload.0.to_string(), &attempt.to_string()])
}

/// This machine's seed: `/etc/machine-id`, or else its host name; see the module.
pub fn node_seed() -> String {
    ["/etc/machine-id", "/proc/sys/kernel/hostname"]
        .iter()
        .filter_map(|file| std::fs::read_to_string(file).ok())
        .map(|text| text.trim().to_owned())
        .find(|text| !text.is_empty())
        .unwrap_or_default()
}

fn link(prefix: &str, network: &Name) -> InterfaceName {
    const LONGEST: usize = 15;
    let plain = format!("{prefix}-{network}");
    interface(if plain.len() <= LONGEST { plain } else { format!("{prefix}{:012x}", hash(&[network.as_str()]) >> 16) })
}

fn interface(text: String) -> InterfaceName {
    InterfaceName::try_from(text).expect("made of at most 15 letters, digits and dashes")
}

fn mac(parts: &[&str]) -> Mac {
    let [a, b, c, d, e, ..] = hash(parts).to_be_bytes();
    Mac([0x02, a, b, c, d, e])
}

/// FNV-1a (64 bits) with a last mixing step: small, and the same in every release, which these names must be.
fn hash(parts: &[&str]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0]));
    let hash =
        bytes.fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    (hash ^ hash >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_never_change() {
        let short: Name = "tenant-a".parse().unwrap();
        let long: Name = "a-network-with-a-long-name".parse().unwrap();
        assert_eq!(bridge(&short).as_str(), "tgb-tenant-a");
        assert_eq!(vlan(&short).as_str(), "tgv-tenant-a");
        assert_eq!(bridge(&long).as_str(), "tgb3e5e1df4a4e6");
        assert_eq!(vlan(&long).as_str(), "tgv3e5e1df4a4e6");
        assert_eq!(host(WorkloadId(u32::MAX)).as_str(), "tgw4294967295");
        assert_eq!(link_mac("seed", &bridge(&short)).to_string(), "02:0f:60:aa:32:a1");
    }

    #[test]
    fn two_nodes_have_different_addresses() {
        let link = host(WorkloadId(1));
        assert_ne!(link_mac("a", &link), link_mac("b", &link));
        assert_ne!(workload_mac("a", WorkloadId(1), 0), workload_mac("a", WorkloadId(1), 1));
    }
}
