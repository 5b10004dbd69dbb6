//! What is heard of networks' VLANs on their trunks (`bpf/trunk.h`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use config::names::VlanId;
use config::resource::VlanProtocol;

use super::layout as l;
use super::{InTable, TableError, Tables};
use crate::workload::Mac;

/// Where a VLAN is: its parent's index, and its tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Trunk {
    /// Index of the parent.
    pub parent: u32,
    /// Of the tag.
    pub protocol: VlanProtocol,
    /// The VLAN.
    pub id: VlanId,
}

/// What was heard of one network's VLAN. Times are of CLOCK_BOOTTIME.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Anybody spoke there.
    pub heard: Option<Duration>,
    /// The network's router did.
    pub router: Option<(Duration, Mac)>,
    /// Somebody has an address of this node's, or means to take it: when, which, who.
    pub claimed: Option<(Duration, IpAddr, Mac)>,
}

impl Tables {
    /// VLANs to listen to, to the network's number. What was heard of one that stays is kept.
    pub fn set_trunks(&self, trunks: &BTreeMap<Trunk, u32>) -> Result<(), TableError> {
        let key = |trunk: &Trunk| {
            let protocol: u16 = match trunk.protocol {
                VlanProtocol::Dot1q => 0x8100,
                VlanProtocol::Dot1ad => 0x88a8,
            };
            l::TrunkKey { parent: trunk.parent, protocol: protocol.to_be_bytes(), id: trunk.id.into() }
        };
        let present: BTreeSet<u32> = self.heard.dump().in_table("heard")?.into_iter().map(|(key, _)| key).collect();
        let networks: BTreeSet<u32> = trunks.values().copied().collect();
        for network in networks.difference(&present) {
            let nothing = l::Heard {
                heard_ns: 0,
                answered_ns: 0,
                claimed_ns: 0,
                claimed: [0; 16],
                router: [0; 6],
                claimer: [0; 6],
                pad: 0,
            };
            self.heard.set(network, &nothing).in_table("heard")?;
        }
        let wanted = trunks.iter().map(|(trunk, network)| (key(trunk), *network)).collect();
        self.trunks.become_exactly(&wanted, |_, _| true).in_table("trunks")?;
        for network in present.difference(&networks) {
            self.heard.remove(network).in_table("heard")?;
        }
        let parents: BTreeSet<u32> = trunks.keys().map(|trunk| trunk.parent).collect();
        let known: BTreeSet<u32> = self.lldp.dump().in_table("lldp")?.into_iter().map(|(key, _)| key).collect();
        for parent in parents.difference(&known) {
            let nothing = l::Lldp { heard_ns: 0, length: 0, pad: 0, frame: [0; 512] };
            self.lldp.set(parent, &nothing).in_table("lldp")?;
        }
        for parent in known.difference(&parents) {
            self.lldp.remove(parent).in_table("lldp")?;
        }
        Ok(())
    }

    /// Addresses of networks, with the Ethernet address of who has them on this node; `None` is the network's router elsewhere.
    pub fn set_claims(&self, claims: &BTreeMap<(u32, IpAddr), Option<Mac>>) -> Result<(), TableError> {
        let claim = |((network, address), mac): (&(u32, IpAddr), &Option<Mac>)| {
            let key = l::ClaimKey { network: *network, address: l::address(*address) };
            (key, l::Owner { mac: mac.map_or([0; 6], |mac| mac.0), pad: [0; 2] })
        };
        self.claims.become_exactly(&claims.iter().map(claim).collect(), |_, _| true).in_table("claims")
    }

    /// What was heard, by network.
    pub fn heard(&self) -> Result<BTreeMap<u32, Heard>, TableError> {
        let at = |nanoseconds: u64| (nanoseconds > 0).then(|| Duration::from_nanos(nanoseconds));
        let heard = |(network, found): (u32, l::Heard)| {
            let heard = Heard {
                heard: at(found.heard_ns),
                router: at(found.answered_ns).map(|when| (when, Mac(found.router))),
                claimed: at(found.claimed_ns).map(|when| (when, l::ip(found.claimed), Mac(found.claimer))),
            };
            (network, heard)
        };
        Ok(self.heard.dump().in_table("heard")?.into_iter().map(heard).collect())
    }

    /// The last LLDP frame of each parent, and when it came.
    pub fn lldp(&self) -> Result<BTreeMap<u32, (Duration, Vec<u8>)>, TableError> {
        let found = self.lldp.dump().in_table("lldp")?.into_iter().filter(|(_, found)| found.heard_ns > 0);
        let frame = |(parent, found): (u32, l::Lldp)| {
            let length = (found.length as usize).min(found.frame.len());
            (parent, (Duration::from_nanos(found.heard_ns), found.frame[..length].to_vec()))
        };
        Ok(found.map(frame).collect())
    }
}
