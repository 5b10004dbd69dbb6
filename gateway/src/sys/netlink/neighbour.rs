//! Permanent neighbours of a link, whether somebody answers for an address, and static entries of a bridge's forwarding table.

use std::net::IpAddr;

use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::RouteType;
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Netlink, NetlinkError};
use crate::workload::Mac;

/// A permanent neighbour: an address that needs no ARP or ND.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The link.
    pub index: u32,
    /// Who.
    pub address: IpAddr,
    /// Where.
    pub mac: Mac,
}

/// A static entry of a bridge's forwarding table: this address is behind this port, whatever frames say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForwardingEntry {
    /// The port.
    pub port: u32,
    /// Who is behind it.
    pub mac: Mac,
    /// Whether it stays at its port whoever sends from that address elsewhere: a static one alone moves (`br_fdb_update` in
    /// net/bridge/br_fdb.c).
    pub sticky: bool,
}

impl Netlink {
    /// All permanent neighbours of the namespace.
    pub async fn permanent_neighbours(&self) -> Result<Vec<Neighbour>, NetlinkError> {
        let mut found = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = NeighbourMessage::default();
            message.header.family = family;
            let message = RouteNetlinkMessage::GetNeighbour(message);
            found.extend(self.dump(message, || "list neighbours".to_owned()).await?);
        }
        Ok(found.into_iter().filter_map(parse_neighbour).collect())
    }

    /// The permanent neighbour with that address on a link.
    pub async fn permanent_neighbour(&self, index: u32, address: IpAddr) -> Result<Option<Neighbour>, NetlinkError> {
        let mut message = NeighbourMessage::default();
        let (family, destination) = destination(address);
        (message.header.family, message.header.ifindex) = (family, index);
        message.attributes = vec![NeighbourAttribute::Destination(destination)];
        let found = self.one(message, || format!("look for neighbour {address}")).await?;
        Ok(found.and_then(parse_neighbour))
    }

    /// Adds a permanent neighbour, or changes it.
    pub async fn add_neighbour(&self, link: &str, neighbour: Neighbour) -> Result<(), NetlinkError> {
        let Neighbour { address, mac, .. } = neighbour;
        let message = RouteNetlinkMessage::NewNeighbour(build_neighbour(neighbour));
        self.change(message, NLM_F_CREATE | NLM_F_REPLACE, || format!("add neighbour {address} at {mac} to {link}"))
            .await
    }

    /// Takes a neighbour away.
    pub async fn delete_neighbour(&self, link: &str, neighbour: Neighbour) -> Result<(), NetlinkError> {
        let address = neighbour.address;
        let message = RouteNetlinkMessage::DelNeighbour(build_neighbour(neighbour));
        self.change(message, 0, || format!("take neighbour {address} from {link}")).await
    }

    /// Asks on a link, by ARP or ND, who has the address. [`Netlink::who_answers`] tells what came of it.
    pub async fn ask_for(&self, index: u32, link: &str, address: IpAddr) -> Result<(), NetlinkError> {
        let mut message = asked_neighbour(index, address);
        message.header.flags = NeighbourFlags::Use;
        let message = RouteNetlinkMessage::NewNeighbour(message);
        self.change(message, NLM_F_CREATE, || format!("ask who has {address} at {link}")).await
    }

    /// Where the address was found to be, `None` as long as nobody has answered. What was asked is forgotten with
    /// [`Netlink::forget`].
    pub async fn who_answers(&self, index: u32, address: IpAddr) -> Result<Option<Mac>, NetlinkError> {
        let mut message = NeighbourMessage::default();
        message.header.family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let message = RouteNetlinkMessage::GetNeighbour(message);
        let found = self.dump(message, || "list neighbours".to_owned()).await?;
        Ok(found.into_iter().find_map(|message| {
            let RouteNetlinkMessage::NewNeighbour(message) = message else { return None };
            let known = matches!(
                message.header.state,
                NeighbourState::Reachable | NeighbourState::Stale | NeighbourState::Delay | NeighbourState::Probe
            );
            let same = message.header.ifindex == index && address_of(&message) == Some(address);
            if known && same { mac_of(&message) } else { None }
        }))
    }

    /// Forgets what is known of a neighbour.
    pub async fn forget(&self, index: u32, link: &str, address: IpAddr) -> Result<(), NetlinkError> {
        let message = RouteNetlinkMessage::DelNeighbour(asked_neighbour(index, address));
        self.change(message, 0, || format!("forget neighbour {address} at {link}")).await
    }

    /// All static, not local, forwarding entries of all bridges.
    pub async fn forwarding_entries(&self) -> Result<Vec<ForwardingEntry>, NetlinkError> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Bridge;
        let message = RouteNetlinkMessage::GetNeighbour(message);
        let found = self.dump(message, || "list forwarding entries".to_owned()).await?;
        Ok(found.into_iter().filter_map(parse_entry).collect())
    }

    /// The static, not local, entry for an Ethernet address in the forwarding table of a port's bridge, at whatever port.
    pub async fn forwarding_entry(&self, port: u32, mac: Mac) -> Result<Option<ForwardingEntry>, NetlinkError> {
        let mut message = NeighbourMessage::default();
        (message.header.family, message.header.ifindex) = (AddressFamily::Bridge, port);
        message.header.flags = NeighbourFlags::Controller;
        message.attributes = vec![NeighbourAttribute::LinkLayerAddress(mac.0.to_vec())];
        let found = self.one(message, || format!("look for forwarding entry {mac}")).await?;
        Ok(found.and_then(parse_entry))
    }

    async fn one(
        &self,
        message: NeighbourMessage,
        doing: impl Fn() -> String,
    ) -> Result<Option<RouteNetlinkMessage>, NetlinkError> {
        match self.ask(RouteNetlinkMessage::GetNeighbour(message), NLM_F_REQUEST, doing).await {
            Ok(found) => Ok(found.into_iter().next()),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Adds a static forwarding entry to the port's bridge.
    pub async fn add_forwarding_entry(&self, port: &str, entry: ForwardingEntry) -> Result<(), NetlinkError> {
        let message = RouteNetlinkMessage::NewNeighbour(build_entry(entry));
        let doing = || format!("add forwarding entry {} to {port}", entry.mac);
        self.change(message, NLM_F_CREATE | NLM_F_REPLACE, doing).await
    }

    /// Takes a forwarding entry away.
    pub async fn delete_forwarding_entry(&self, port: &str, entry: ForwardingEntry) -> Result<(), NetlinkError> {
        let message = RouteNetlinkMessage::DelNeighbour(build_entry(entry));
        self.change(message, 0, || format!("take forwarding entry {} from {port}", entry.mac)).await
    }
}

fn build_neighbour(neighbour: Neighbour) -> NeighbourMessage {
    let mut message = asked_neighbour(neighbour.index, neighbour.address);
    message.header.state = NeighbourState::Permanent;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(neighbour.mac.0.to_vec()));
    message
}

fn asked_neighbour(index: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    let (family, address) = destination(address);
    message.header.family = family;
    message.header.ifindex = index;
    message.header.kind = RouteType::Unicast;
    message.attributes = vec![NeighbourAttribute::Destination(address)];
    message
}

fn destination(address: IpAddr) -> (AddressFamily, NeighbourAddress) {
    match address {
        IpAddr::V4(ip) => (AddressFamily::Inet, NeighbourAddress::Inet(ip)),
        IpAddr::V6(ip) => (AddressFamily::Inet6, NeighbourAddress::Inet6(ip)),
    }
}

fn build_entry(entry: ForwardingEntry) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = entry.port;
    // `bridge fdb add … master static sticky`: in the bridge's table, static, not local (net/bridge/br_fdb.c).
    message.header.state = NeighbourState::Noarp;
    message.header.flags = NeighbourFlags::Controller;
    message.header.flags.set(NeighbourFlags::Sticky, entry.sticky);
    message.attributes = vec![NeighbourAttribute::LinkLayerAddress(entry.mac.0.to_vec())];
    message
}

fn parse_neighbour(message: RouteNetlinkMessage) -> Option<Neighbour> {
    let RouteNetlinkMessage::NewNeighbour(message) = message else { return None };
    if message.header.state != NeighbourState::Permanent {
        return None;
    }
    Some(Neighbour { index: message.header.ifindex, address: address_of(&message)?, mac: mac_of(&message)? })
}

fn address_of(message: &NeighbourMessage) -> Option<IpAddr> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => Some(IpAddr::V4(*ip)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => Some(IpAddr::V6(*ip)),
        _ => None,
    })
}

fn parse_entry(message: RouteNetlinkMessage) -> Option<ForwardingEntry> {
    let RouteNetlinkMessage::NewNeighbour(message) = message else { return None };
    let ours = message.header.family == AddressFamily::Bridge
        && message.header.state == NeighbourState::Noarp
        && !message.header.flags.contains(NeighbourFlags::Own);
    let sticky = message.header.flags.contains(NeighbourFlags::Sticky);
    if ours { Some(ForwardingEntry { port: message.header.ifindex, mac: mac_of(&message)?, sticky }) } else { None }
}

fn mac_of(message: &NeighbourMessage) -> Option<Mac> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => bytes.as_slice().try_into().ok().map(Mac),
        _ => None,
    })
}
