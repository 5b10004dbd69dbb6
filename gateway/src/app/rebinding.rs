//! Where a name may lead a workload: not to what stands inside of the node, unless the workload's policies speak of the address.
//!
//! Who owns a name says what it means, and a tenant allows names of others. So an answer is not believed that means another
//! network's subnet, an address of the node where the edge does not listen, a link-local address, or a cloud's metadata
//! service, be it by way of NAT64 or 6to4 (DNS rebinding, server-side request forgery). A rule by address, or a default that allows, says that it is meant.

use std::cmp::Reverse;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use config::resource::Network;
use ipnetwork::IpNetwork;

use super::enforcement::{Asker, State};
use crate::egress::dns::translated;

/// Where clouds answer who asks with the machine's own rights, beside 169.254.169.254 and others of 169.254.0.0/16: Alibaba
/// Cloud, Azure, Oracle Cloud, Amazon EC2, Google Cloud, as their manuals say.
const METADATA: [IpAddr; 5] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];

/// The subnets of all networks, as ranges that do not overlap, in order.
#[derive(Debug, Default)]
pub(super) struct Territory(Vec<(IpAddr, IpAddr)>);

impl FromIterator<IpNetwork> for Territory {
    fn from_iter<I: IntoIterator<Item = IpNetwork>>(subnets: I) -> Self {
        let range = |subnet: IpNetwork| (subnet.network(), subnet.broadcast());
        let mut ranges: Vec<(IpAddr, IpAddr)> = subnets.into_iter().map(range).collect();
        // The widest of those that begin alike comes first; prefixes lie in one another or apart.
        ranges.sort_unstable_by_key(|(first, last)| (*first, Reverse(*last)));
        ranges.dedup_by(|next, before| next.1 <= before.1);
        Self(ranges)
    }
}

impl Territory {
    pub(super) fn of<'n>(networks: impl Iterator<Item = &'n Network>) -> Self {
        networks.flat_map(|network| &network.subnets).map(|subnet| subnet.cidr).collect()
    }

    fn has(&self, address: IpAddr) -> bool {
        let behind = self.0.partition_point(|(first, _)| *first <= address);
        self.0[..behind].last().is_some_and(|(_, last)| address <= *last)
    }
}

/// Why no name may lead this workload to the address.
pub(super) fn misled(state: &State, asker: &Asker, address: IpAddr) -> Option<String> {
    let whose = whose(state, asker, address).or_else(|| whose(state, asker, translated(address)?))?;
    let meant = state.compiled.opens(asker.policy, address);
    (!meant).then(|| format!("the answer has {address}, {whose}; if that is meant, allow the address under `cidrs`"))
}

fn whose(state: &State, asker: &Asker, address: IpAddr) -> Option<&'static str> {
    let node = &state.node;
    if METADATA.contains(&address) {
        return Some("a cloud's metadata service");
    }
    if matches!(address, IpAddr::V4(v4) if v4.is_link_local()) {
        return Some("a link-local address");
    }
    if node.addresses.contains(&address) {
        let edge = node.listeners.iter().any(|listener| listener.is_at(address));
        return (!edge).then_some("one of the node's own");
    }
    let own = asker.subnets.iter().any(|subnet: &IpNetwork| subnet.contains(address));
    (!own && state.tenants.has(address)).then_some("of another network's subnet")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets_that_overlap_or_not_are_found_and_nothing_beside_them() {
        let cidrs = ["10.0.0.0/16", "10.0.0.0/8", "10.255.0.0/16", "11.0.0.0/24", "fd00:1::/64", "0.0.0.0/32"];
        let territory: Territory = cidrs.iter().map(|cidr| cidr.parse::<IpNetwork>().unwrap()).collect();
        for inside in ["10.0.0.0", "10.1.2.3", "10.255.255.255", "11.0.0.255", "fd00:1::ffff", "0.0.0.0"] {
            assert!(territory.has(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["9.255.255.255", "11.0.1.0", "fd00:2::", "::", "0.0.0.1", "255.255.255.255"] {
            assert!(!territory.has(outside.parse().unwrap()), "{outside}");
        }
        assert!(!Territory::default().has("10.0.0.1".parse().unwrap()));
    }
}
