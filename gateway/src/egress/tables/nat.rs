//! Source NAT at the uplink (`bpf/nat.h`): where, for whom, with which addresses and ports, and the open mappings.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ipnetwork::IpNetwork;

use super::layout as l;
use super::{InTable, TableError, Tables};

/// How long a closed connection's port is given to nobody else, as a socket stays in TIME_WAIT
/// (`TCP_TIMEWAIT_LEN` of `include/net/tcp.h`).
pub(super) const HOLD: Duration = Duration::from_secs(60);

/// A packet that met the former address may still make a mapping of it: one look at once, and one when that is past.
pub(super) const LOOKS_FOR_STRAYS: u8 = 2;

/// What is translated, and to what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Translation {
    /// The uplink; `None` translates nothing.
    pub ifindex: Option<u32>,
    /// Ports (and ids of echo) that flows get.
    pub ports: Option<RangeInclusive<u16>>,
    /// The uplink's address for each destination: the longest prefix counts.
    pub addresses: BTreeMap<IpNetwork, IpAddr>,
}

/// A flow that is translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// IP protocol number.
    pub protocol: u8,
    /// Address and port, or id of echo, before translation.
    pub own: (IpAddr, u16),
    /// What the far end sees.
    pub wire: (IpAddr, u16),
    /// The far end.
    pub remote: (IpAddr, u16),
    /// The number of its network.
    pub network: u32,
}

impl Tables {
    /// Translates there, by these. Mappings of addresses that are no longer the node's end
    /// ([`Tables::set_node_addresses`]); all others stay.
    pub fn set_translation(&self, translation: &Translation) -> Result<(), TableError> {
        let main = |ipv4: bool| {
            let whole = translation.addresses.iter().find(|(to, _)| to.prefix() == 0 && to.is_ipv4() == ipv4);
            whole.map_or([0; 16], |(_, address)| l::address(*address))
        };
        let ports = translation.ports.as_ref().filter(|_| translation.ifindex.is_some());
        let wanted = translation.addresses.iter().map(|(to, address)| (key(to), l::address(*address))).collect();
        self.egress_addresses.become_exactly(&wanted, |_, _| true).in_table("egress_addresses")?;
        self.change_nat(|nat| {
            nat.ifindex = translation.ifindex.unwrap_or(0);
            nat.first_port = ports.map_or(0, |ports| *ports.start());
            nat.ports = ports.map_or(0, |ports| (*ports.end() - *ports.start()).saturating_add(1));
            nat.main4 = main(true);
            nat.main6 = main(false);
        })
    }

    /// The device where addresses are translated, as last set.
    pub fn nat_device(&self) -> Option<u32> {
        let nat = self.nat.get(&0).ok().flatten();
        nat.map(|nat| nat.ifindex).filter(|ifindex| *ifindex != 0)
    }

    /// Makes these the sources that are translated, with the number of their network.
    pub fn set_masqueraded(&self, sources: &BTreeMap<IpNetwork, u32>) -> Result<(), TableError> {
        let wanted = sources.iter().map(|(subnet, network)| (key(subnet), *network)).collect();
        self.masqueraded.become_exactly(&wanted, |_, _| true).in_table("masqueraded")?;
        let networks: BTreeSet<u32> = sources.values().copied().collect();
        // a network that is gone may still have mappings: its count goes after them
        let idle = |network: &u32, usage: &l::Usage| usage.flows == 0 && !networks.contains(network);
        self.nat_usage.become_exactly(&BTreeMap::new(), idle).in_table("nat_usage")
    }

    /// Makes these the addresses that networks, by number, leave with in the place of the uplink's; at most one of each
    /// family. Nothing leaves with one that is not the node's ([`Tables::set_node_addresses`]).
    pub fn set_own_addresses(&self, own: &BTreeMap<u32, Vec<IpAddr>>) -> Result<(), TableError> {
        let entry = |network: u32, address: IpAddr| {
            (l::OwnKey { network, ipv6: address.is_ipv6().into() }, l::address(address))
        };
        let wanted: BTreeMap<l::OwnKey, l::Address> =
            own.iter().flat_map(|(network, all)| all.iter().map(|address| entry(*network, *address))).collect();
        let present: BTreeMap<_, _> = self.own_addresses.dump().in_table("own_addresses")?.into_iter().collect();
        if present == wanted {
            return Ok(());
        }
        self.strays.store(LOOKS_FOR_STRAYS, Ordering::Relaxed);
        self.own_addresses.become_exactly(&wanted, |_, _| true).in_table("own_addresses")?;
        self.end_strays()
    }

    /// After a change of networks' own addresses: ends mappings that have another one, or one that is another network's.
    /// To be called again later, once a second; does nothing when there is nothing to look for.
    pub fn end_strays(&self) -> Result<(), TableError> {
        let looks = self.strays.load(Ordering::Relaxed);
        if looks == 0 {
            return Ok(());
        }
        let own: BTreeMap<_, _> = self.own_addresses.dump().in_table("own_addresses")?.into_iter().collect();
        let addresses: BTreeSet<l::Address> = own.values().copied().collect();
        self.end_where(|tuple, mapping| {
            let key = l::OwnKey { network: mapping.network, ipv6: l::ip(tuple.source).is_ipv6().into() };
            match own.get(&key) {
                Some(address) => *address != mapping.wire.address,
                None => addresses.contains(&mapping.wire.address),
            }
        })?;
        self.strays.store(looks - 1, Ordering::Relaxed);
        Ok(())
    }

    /// All open mappings, stale ones that were not swept yet included.
    pub fn mappings(&self) -> Result<Vec<Mapping>, TableError> {
        let mapping = |(t, m): (l::Tuple, l::Mapping)| Mapping {
            protocol: t.protocol,
            own: (l::ip(t.source), u16::from_be_bytes(t.source_port)),
            wire: (l::ip(m.wire.address), u16::from_be_bytes(m.wire.port)),
            remote: (l::ip(t.destination), u16::from_be_bytes(t.destination_port)),
            network: m.network,
        };
        Ok(self.mappings.dump().in_table("mappings")?.into_iter().map(mapping).collect())
    }

    /// How many mappings a network has.
    pub fn mappings_of(&self, network: u32) -> Result<u32, TableError> {
        Ok(self.nat_usage.get(&network).in_table("nat_usage")?.map_or(0, |usage| usage.flows))
    }

    /// Ends the mappings of these sources: whoever has the addresses next gets no replies to what they sent.
    pub fn end_mappings(&self, sources: &BTreeSet<IpAddr>) -> Result<(), TableError> {
        let sources: BTreeSet<l::Address> = sources.iter().map(|source| l::address(*source)).collect();
        self.end_where(|tuple, _| sources.contains(&tuple.source))
    }

    fn end_where(&self, ends: impl Fn(&l::Tuple, &l::Mapping) -> bool) -> Result<(), TableError> {
        for (tuple, mapping) in self.mappings.dump().in_table("mappings")? {
            if ends(&tuple, &mapping) {
                // the kernel's timer takes it away and gives its place back; until then it is nobody's
                self.mappings.set(&tuple, &l::Mapping { over: 1, ..mapping }).in_table("mappings")?;
            }
        }
        self.ask_again()
    }

    pub(super) fn change_nat(&self, change: impl FnOnce(&mut l::Nat)) -> Result<(), TableError> {
        let missing = || TableError { table: "nat", source: std::io::ErrorKind::NotFound.into() };
        let before = self.nat.get(&0).in_table("nat")?.ok_or_else(missing)?;
        let mut nat = before;
        change(&mut nat);
        if nat == before {
            return Ok(());
        }
        self.nat.set(&0, &nat).in_table("nat")?;
        self.ask_again()
    }
}

fn key(network: &IpNetwork) -> l::PrefixKey {
    let bits = if network.is_ipv4() { 96 } else { 0 };
    l::PrefixKey { prefix_length: bits + u32::from(network.prefix()), address: l::address(network.network()) }
}
