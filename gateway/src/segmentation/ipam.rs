//! Which addresses a workload gets: pure, from the subnets and what is taken.
//!
//! The next free address after the last one given, then from the start: an address that was just freed is the last to
//! be given again, so that caches elsewhere have time to forget it. Network address, broadcast address and gateway are
//! never given; in IPv6 the subnet's first address is the routers' anycast (RFC 4291, 2.6.1).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use config::names::Name;
use config::resource::{Labels, Network, Subnet};
use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use serde::{Deserialize, Serialize};

use crate::workload::{Address, Mac};

/// The address given last, by block. Kept by whoever keeps the leases; one entry a subnet or handle block.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor(BTreeMap<IpNetwork, IpAddr>);

/// No address is left.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IpamError {
    /// In the subnets of a network.
    #[error("network {network} has no free {family} address: {used} of {total} are used in {}; detach workloads, widen `range`, or add a subnet", blocks(.subnets))]
    NetworkFull {
        /// The network.
        network: Name,
        /// `IPv4` or `IPv6`
        family: &'static str,
        /// Given to workloads.
        used: u128,
        /// That could be given.
        total: u128,
        /// Of that family.
        subnets: Vec<IpNetwork>,
    },
    /// A wanted address that no workload of this network can have.
    #[error("{address} is not to be had in network {network}: {why}")]
    NotToBeHad {
        /// Wanted.
        address: IpAddr,
        /// The network.
        network: Name,
        /// What is in the way.
        why: &'static str,
    },
    /// All that is reserved for such workloads is in use.
    #[error(
        "network {network}: workloads with these labels have {total} {family} addresses reserved, and all are used; reserve more, or detach one"
    )]
    ReservedInUse {
        /// The network.
        network: Name,
        /// `IPv4` or `IPv6`
        family: &'static str,
        /// Reserved for them.
        total: u128,
    },
    /// The wanted Ethernet address is another workload's.
    #[error("{0} is the Ethernet address of another workload of this node")]
    MacTaken(Mac),
    /// In a block of handles.
    #[error(
        "no handle is free in {block}: {used} of {total} are used; detach workloads, or set a larger block in [node] handles_v4 or handles_v6"
    )]
    HandlesFull {
        /// The block.
        block: IpNetwork,
        /// Given.
        used: u128,
        /// That could be given.
        total: u128,
    },
}

/// Who is to get addresses.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// Its namespace.
    pub namespace: &'a Name,
    /// Its labels: what is reserved for them it gets.
    pub labels: &'a Labels,
    /// What it asks for, at most one of each family.
    pub wanted: &'a [IpAddr],
    /// What one of its name had before: preferred where it still can be had.
    pub former: &'a [IpAddr],
}

/// One address of each family that the network has. Of each: the wanted one, else one that is reserved for such a workload,
/// else the former one, else the next of the first subnet that has one. `taken`: addresses of this network in use.
pub fn allocate(
    network: &Network,
    taken: &BTreeSet<IpAddr>,
    claim: Claim<'_>,
    cursor: &mut Cursor,
) -> Result<Vec<IpAddr>, IpamError> {
    let mut given: Vec<IpAddr> = Vec::new();
    let mut moved = cursor.clone();
    for &address in claim.wanted {
        let why = match given.iter().any(|other| other.is_ipv4() == address.is_ipv4()) {
            true => Some("a workload has one address of each family"),
            false => hindrance(network, taken, claim, address),
        };
        if let Some(why) = why {
            return Err(IpamError::NotToBeHad { address, network: network.name.clone(), why });
        }
        given.push(address);
    }
    for (ipv4, family) in [(true, "IPv4"), (false, "IPv6")] {
        if given.iter().any(|address| address.is_ipv4() == ipv4) {
            continue;
        }
        let subnets: Vec<&Subnet> = network.subnets.iter().filter(|subnet| subnet.cidr.is_ipv4() == ipv4).collect();
        if subnets.is_empty() {
            continue;
        }
        if let Some(reserved) = reserved(network, taken, claim, ipv4, family)? {
            given.push(reserved);
            continue;
        }
        let to_be_had = |address: &&IpAddr| {
            let in_range = subnets.iter().any(|subnet| range_of(network, subnet).has(**address));
            address.is_ipv4() == ipv4 && in_range && !taken.contains(address)
        };
        if let Some(former) = claim.former.iter().find(to_be_had) {
            given.push(*former);
            continue;
        }
        let found = subnets.iter().find_map(|subnet| {
            let address = range_of(network, subnet).next_free(taken, moved.0.get(&subnet.cidr))?;
            Some((subnet.cidr, address))
        });
        let Some((block, address)) = found else {
            let ranges = || subnets.iter().map(|subnet| range_of(network, subnet));
            return Err(IpamError::NetworkFull {
                network: network.name.clone(),
                family,
                used: ranges().map(|range| range.used(taken)).sum(),
                total: ranges().map(|range| range.total()).sum(),
                subnets: subnets.iter().map(|subnet| subnet.cidr).collect(),
            });
        };
        moved.0.insert(block, address);
        given.push(address);
    }
    given.sort_by_key(IpAddr::is_ipv6);
    *cursor = moved;
    Ok(given)
}

/// Addresses of a network that workloads can have.
pub fn total(network: &Network, ipv4: bool) -> u128 {
    let subnets = network.subnets.iter().filter(|subnet| subnet.cidr.is_ipv4() == ipv4);
    let free = subnets.map(|subnet| range_of(network, subnet).total()).fold(0, u128::saturating_add);
    let reserved = network.reservations.iter().flat_map(|reservation| &reservation.addresses);
    let own =
        reserved.filter(|(first, _)| first.is_ipv4() == ipv4).map(|(first, last)| number(*last) - number(*first) + 1);
    own.fold(free, u128::saturating_add)
}

/// Why a workload cannot have the address that it wants.
fn hindrance(network: &Network, taken: &BTreeSet<IpAddr>, claim: Claim<'_>, address: IpAddr) -> Option<&'static str> {
    let Some(subnet) = network.subnets.iter().find(|subnet| subnet.cidr.contains(address)) else {
        return Some("it lies in none of its subnets");
    };
    let within = |(first, last): &(IpAddr, IpAddr)| (*first..=*last).contains(&address);
    let holder = network.reservations.iter().find(|reservation| reservation.addresses.iter().any(within));
    match holder {
        _ if whole(subnet).excludes(address) => Some("it is the subnet's own, or the gateway's"),
        _ if subnet.exclude.iter().any(within) => Some("it is excluded"),
        Some(holder) if !holder.is_for(claim.namespace, claim.labels) => Some("it is reserved for other workloads"),
        _ if taken.contains(&address) => Some("another workload has it"),
        _ => None,
    }
}

/// What is reserved for it, if anything is in that family; the former one of these, or the first that is free.
fn reserved(
    network: &Network,
    taken: &BTreeSet<IpAddr>,
    claim: Claim<'_>,
    ipv4: bool,
    family: &'static str,
) -> Result<Option<IpAddr>, IpamError> {
    let own = network.reservations.iter().filter(|reservation| reservation.is_for(claim.namespace, claim.labels));
    let spans: Vec<Range> = own
        .flat_map(|reservation| &reservation.addresses)
        .filter(|(first, _)| first.is_ipv4() == ipv4)
        .map(|(first, last)| Range { ipv4, first: number(*first), last: number(*last), without: Vec::new() })
        .collect();
    if spans.is_empty() {
        return Ok(None);
    }
    let former = claim.former.iter().copied().find(|it| !taken.contains(it) && spans.iter().any(|span| span.has(*it)));
    let free = || spans.iter().find_map(|span| span.next_free(taken, None));
    former.or_else(free).map(Some).ok_or_else(|| IpamError::ReservedInUse {
        network: network.name.clone(),
        family,
        total: spans.iter().map(Range::total).sum(),
    })
}

/// A handle of its family for each address. `taken`: handles in use on the node. The service namespace's own addresses
/// are left out: the last 256 of the IPv4 block, and of the IPv6 block's first /112.
pub fn allocate_handles(
    addresses: &[IpAddr],
    (v4, v6): (Ipv4Network, Ipv6Network),
    taken: &BTreeSet<IpAddr>,
    cursor: &mut Cursor,
) -> Result<Vec<Address>, IpamError> {
    let mut taken = taken.clone();
    let mut moved = cursor.clone();
    let mut given = Vec::new();
    for &address in addresses {
        let (block, range) = match address {
            IpAddr::V4(_) => (IpNetwork::V4(v4), handles_v4(v4)),
            IpAddr::V6(_) => (IpNetwork::V6(v6), handles_v6(v6)),
        };
        let full = || IpamError::HandlesFull { block, used: range.used(&taken), total: range.total() };
        let handle = range.next_free(&taken, moved.0.get(&block)).ok_or_else(full)?;
        taken.insert(handle);
        moved.0.insert(block, handle);
        given.push(Address { address, handle });
    }
    *cursor = moved;
    Ok(given)
}

/// Addresses `first..=last`, as numbers, but for a few.
struct Range {
    ipv4: bool,
    first: u128,
    last: u128,
    /// Inside `first..=last`.
    without: Vec<(u128, u128)>,
}

impl Range {
    fn next_free(&self, taken: &BTreeSet<IpAddr>, after: Option<&IpAddr>) -> Option<IpAddr> {
        if self.first > self.last {
            return None;
        }
        let after = after.map(|address| number(*address)).filter(|n| (self.first..self.last).contains(n));
        let start = after.map_or(self.first, |n| n + 1);
        self.search(start, self.last, taken).or_else(|| self.search(self.first, start.checked_sub(1)?, taken))
    }

    /// Walks over taken addresses only, so that the size of the block does not matter.
    fn search(&self, from: u128, to: u128, taken: &BTreeSet<IpAddr>) -> Option<IpAddr> {
        let mut candidate = from;
        while candidate <= to {
            if let Some((_, end)) = self.without.iter().find(|(a, b)| (*a..=*b).contains(&candidate)) {
                candidate = end.checked_add(1)?;
            } else if taken.contains(&self.address(candidate)) {
                candidate = candidate.checked_add(1)?;
            } else {
                return Some(self.address(candidate));
            }
        }
        None
    }

    fn excludes(&self, address: IpAddr) -> bool {
        self.without.iter().any(|(a, b)| (*a..=*b).contains(&number(address)))
    }

    /// Whether it is one of them.
    fn has(&self, address: IpAddr) -> bool {
        let inside = (self.first..=self.last).contains(&number(address));
        address.is_ipv4() == self.ipv4 && inside && !self.excludes(address)
    }

    fn used(&self, taken: &BTreeSet<IpAddr>) -> u128 {
        let inside =
            |n: &u128| (self.first..=self.last).contains(n) && !self.without.iter().any(|(a, b)| (*a..=*b).contains(n));
        taken.iter().filter(|a| a.is_ipv4() == self.ipv4).map(|a| number(*a)).filter(inside).count() as u128
    }

    fn total(&self) -> u128 {
        let without: u128 = self.without.iter().map(|(a, b)| b - a + 1).sum();
        let all = self.last.checked_sub(self.first).map_or(0, |difference| difference.saturating_add(1));
        all.saturating_sub(without)
    }

    fn address(&self, number: u128) -> IpAddr {
        if self.ipv4 { IpAddr::V4(Ipv4Addr::from(number as u32)) } else { IpAddr::V6(Ipv6Addr::from(number)) }
    }

    /// Without these, where they lie inside; overlapping ones are merged.
    fn leaving_out(mut self, mut out: Vec<(u128, u128)>) -> Self {
        out.sort_unstable();
        for (a, b) in out {
            let (a, b) = (a.max(self.first), b.min(self.last));
            match self.without.last_mut() {
                _ if a > b => {}
                Some(before) if a <= before.1 => before.1 = before.1.max(b),
                _ => self.without.push((a, b)),
            }
        }
        self
    }
}

/// What is given to those who want no certain one.
fn range_of(network: &Network, subnet: &Subnet) -> Range {
    let all = whole(subnet);
    let (first, last) = subnet.range.map_or((all.first, all.last), |(a, b)| (number(a), number(b)));
    let reserved = network.reservations.iter().flat_map(|reservation| &reservation.addresses);
    let others = subnet.exclude.iter().chain(reserved.filter(|(first, _)| subnet.cidr.contains(*first)));
    let mut without = all.without.clone();
    without.extend(others.map(|(first, last)| (number(*first), number(*last))));
    Range { first, last, without: Vec::new(), ..all }.leaving_out(without)
}

/// All that a workload may have.
fn whole(subnet: &Subnet) -> Range {
    let (network, broadcast) = (number(subnet.cidr.network()), number(subnet.cidr.broadcast()));
    let ipv4 = subnet.cidr.is_ipv4();
    let mut out: Vec<(u128, u128)> =
        subnet.gateway.iter().map(|gateway| (number(*gateway), number(*gateway))).collect();
    // /31 and /32 (RFC 3021), /127 and /128 (RFC 6164) have no special addresses.
    if broadcast - network > 1 {
        out.push((network, network));
        if ipv4 {
            out.push((broadcast, broadcast));
        }
    }
    Range { ipv4, first: network, last: broadcast, without: Vec::new() }.leaving_out(out)
}

fn handles_v4(block: Ipv4Network) -> Range {
    let (first, last) = (u128::from(u32::from(block.network())), u128::from(u32::from(block.broadcast())));
    let own = (last.saturating_sub(255), last);
    Range { ipv4: true, first, last, without: Vec::new() }.leaving_out(vec![(first, first), own])
}

fn handles_v6(block: Ipv6Network) -> Range {
    let (first, last) = (u128::from(block.network()), u128::from(block.broadcast()));
    let own = (first | 0xff00, first | 0xffff);
    Range { ipv4: false, first, last, without: Vec::new() }.leaving_out(vec![(first, first), own])
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

fn blocks(subnets: &[IpNetwork]) -> String {
    subnets.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
