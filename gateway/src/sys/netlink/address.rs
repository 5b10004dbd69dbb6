//! Addresses of links.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope, CacheInfo};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{FarEnd, Netlink, NetlinkError};

/// An address and the link it stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkAddress {
    /// The link.
    pub index: u32,
    /// The address with the length of its subnet.
    pub address: IpNetwork,
    /// Whether new connections to the world may have it as source: of global scope, checked, not deprecated, and neither
    /// secondary (IPv4) nor temporary (IPv6), which have the same flag.
    pub lasting: bool,
    /// Whether it has our mark ([`MARK`]).
    pub ours: bool,
}

/// Who installed an address (`IFA_PROTO`, Linux 5.18; numbers from 4 on are for programs, `linux/if_addr.h`): ours by
/// [`Netlink::add_own_address`].
const MARK: u8 = 0x74;

impl Netlink {
    /// All addresses of the namespace, link-local ones included.
    pub async fn addresses(&self) -> Result<Vec<LinkAddress>, NetlinkError> {
        let message = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let found = self.dump(message, || "list addresses".to_owned()).await?;
        Ok(found.into_iter().filter_map(parse).collect())
    }

    /// The addresses of one link; the kernel looks at no other.
    pub async fn addresses_of(&self, index: u32) -> Result<Vec<LinkAddress>, NetlinkError> {
        let mut message = AddressMessage::default();
        message.header.index = index;
        let message = RouteNetlinkMessage::GetAddress(message);
        let found = self.dump(message, || format!("list addresses of link {index}")).await?;
        Ok(found.into_iter().filter_map(parse).filter(|own| own.index == index).collect())
    }

    /// The addresses of the other end of a pair ([`Netlink::across`]); none where it is gone.
    pub async fn addresses_across(&self, end: FarEnd) -> Result<Vec<LinkAddress>, NetlinkError> {
        let mut message = AddressMessage::default();
        message.header.index = end.index;
        message.attributes.push(AddressAttribute::TargetNetNsId(end.namespace));
        let message = RouteNetlinkMessage::GetAddress(message);
        match self.dump(message, || format!("list addresses of link {} of a container", end.index)).await {
            Ok(found) => Ok(found.into_iter().filter_map(parse).filter(|own| own.index == end.index).collect()),
            Err(error) if matches!(error.errno(), Some(libc::ENODEV | libc::EINVAL)) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Adds an address, without duplicate address detection; one that is there already is made to be like it.
    pub async fn add_address(&self, index: u32, link: &str, address: IpNetwork) -> Result<(), NetlinkError> {
        let message = RouteNetlinkMessage::NewAddress(build(index, address));
        self.change(message, NLM_F_CREATE | NLM_F_REPLACE, || format!("add {address} to {link}")).await
    }

    /// Adds an address alone, with our mark. It must not be there yet. No connection of the node's own gets it as source:
    /// to choose from, it is deprecated from the beginning (RFC 6724, rule 3).
    pub async fn add_own_address(&self, index: u32, link: &str, address: IpAddr) -> Result<(), NetlinkError> {
        let mut message = build(index, IpNetwork::from(address));
        let mut lifetime = CacheInfo::default();
        (lifetime.ifa_preferred, lifetime.ifa_valid) = (0, u32::MAX);
        message.attributes.push(AddressAttribute::CacheInfo(lifetime));
        message.attributes.push(AddressAttribute::Protocol(MARK.into()));
        let message = RouteNetlinkMessage::NewAddress(message);
        self.change(message, NLM_F_CREATE | NLM_F_EXCL, || format!("add {address} to {link}")).await
    }

    /// Takes an address away.
    pub async fn delete_address(&self, index: u32, link: &str, address: IpNetwork) -> Result<(), NetlinkError> {
        let message = RouteNetlinkMessage::DelAddress(build(index, address));
        self.change(message, 0, || format!("take {address} from {link}")).await
    }
}

fn build(index: u32, address: IpNetwork) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.prefix_len = address.prefix();
    message.header.scope = AddressScope::Universe;
    message.attributes = vec![AddressAttribute::Address(address.ip()), AddressAttribute::Local(address.ip())];
    match address {
        IpNetwork::V4(v4) => {
            message.header.family = AddressFamily::Inet;
            if v4.prefix() < 31 {
                message.attributes.push(AddressAttribute::Broadcast(v4.broadcast()));
            }
        }
        IpNetwork::V6(_) => {
            message.header.family = AddressFamily::Inet6;
            message.header.flags = AddressHeaderFlags::Nodad;
        }
    }
    message
}

fn parse(message: RouteNetlinkMessage) -> Option<LinkAddress> {
    let RouteNetlinkMessage::NewAddress(message) = message else { return None };
    // IFA_LOCAL is the address itself; on a link without far end IPv6 has IFA_ADDRESS only.
    let local =
        message.attributes.iter().find_map(|a| if let AddressAttribute::Local(ip) = a { Some(*ip) } else { None });
    let any =
        message.attributes.iter().find_map(|a| if let AddressAttribute::Address(ip) = a { Some(*ip) } else { None });
    let address = IpNetwork::new(local.or(any)?, message.header.prefix_len).ok()?;
    let passing = AddressHeaderFlags::Secondary
        | AddressHeaderFlags::Dadfailed
        | AddressHeaderFlags::Deprecated
        | AddressHeaderFlags::Tentative;
    let lasting = message.header.scope == AddressScope::Universe && !message.header.flags.intersects(passing);
    let mark = |attribute: &AddressAttribute| *attribute == AddressAttribute::Protocol(MARK.into());
    let ours = message.attributes.iter().any(mark);
    Some(LinkAddress { index: message.header.index, address, lasting, ours })
}
