//! Routes: those of connected subnets on the node, and a workload's way out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Netlink, NetlinkError};

/// A route that the kernel made for the subnet of an address, in table main.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectedRoute {
    /// The link.
    pub index: u32,
    /// The subnet.
    pub subnet: IpNetwork,
}

/// A default route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DefaultRoute {
    /// Its metric, the lowest of which counts.
    pub metric: u32,
    /// The link; of several next hops the first's.
    pub index: u32,
    /// The router, if it has an address of the route's family.
    pub gateway: Option<IpAddr>,
}

impl Netlink {
    /// The connected routes of both families; the kernel filters, so that a node with a full routing table pays little.
    pub async fn connected_routes(&self) -> Result<Vec<ConnectedRoute>, NetlinkError> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            message.header.table = RouteHeader::RT_TABLE_MAIN;
            message.header.protocol = RouteProtocol::Kernel;
            message.header.kind = RouteType::Unicast;
            let message = RouteNetlinkMessage::GetRoute(message);
            let found = self.dump(message, || "list connected routes".to_owned()).await?;
            routes.extend(found.into_iter().filter_map(parse));
        }
        Ok(routes)
    }

    /// The default routes in table main: IPv4's before IPv6's, the lowest metric first. Walks the whole table, as the
    /// kernel does not look for lengths of prefixes.
    pub async fn default_routes(&self) -> Result<Vec<DefaultRoute>, NetlinkError> {
        let mut all = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            message.header.table = RouteHeader::RT_TABLE_MAIN;
            message.header.kind = RouteType::Unicast;
            let message = RouteNetlinkMessage::GetRoute(message);
            let found = self.dump(message, || "look for the default route".to_owned()).await?;
            let mut routes: Vec<_> = found.into_iter().filter_map(default_route).collect();
            routes.sort_by_key(|route| route.metric);
            all.extend(routes);
        }
        Ok(all)
    }

    /// The device by which the node itself reaches an address; `None` where there is no way, or it is its own.
    pub async fn device_towards(&self, to: IpAddr) -> Result<Option<u32>, NetlinkError> {
        let mut message = RouteMessage::default();
        message.header.address_family = family_of(to);
        message.header.destination_prefix_length = if to.is_ipv4() { 32 } else { 128 };
        message.attributes.push(RouteAttribute::Destination(to.into()));
        let doing = || format!("look for the way to {to}");
        let found = match self.ask(RouteNetlinkMessage::GetRoute(message), NLM_F_REQUEST, doing).await {
            Err(error) if error.is_absent() || error.errno() == Some(libc::ENETUNREACH) => return Ok(None),
            found => found?,
        };
        let device = |message| {
            let RouteNetlinkMessage::NewRoute(message) = message else { return None };
            let unicast = message.header.kind == RouteType::Unicast;
            let index = message.attributes.iter().find_map(|of| match of {
                RouteAttribute::Oif(index) => Some(*index),
                _ => None,
            });
            index.filter(|_| unicast)
        };
        Ok(found.into_iter().find_map(device))
    }

    /// Puts a connected route back that somebody deleted; `own` is this node's address in the subnet.
    pub async fn add_connected_route(&self, index: u32, link: &str, own: IpNetwork) -> Result<(), NetlinkError> {
        let subnet = subnet_of(own);
        let mut message = build(index, Some(subnet));
        message.header.protocol = RouteProtocol::Kernel;
        message.header.scope = if own.is_ipv4() { RouteScope::Link } else { RouteScope::Universe };
        match own.ip() {
            IpAddr::V4(source) => message.attributes.push(RouteAttribute::PrefSource(RouteAddress::Inet(source))),
            // The kernel's own metric for connected IPv6 subnets.
            IpAddr::V6(_) => message.attributes.push(RouteAttribute::Priority(256)),
        }
        self.put_route(message, || format!("put the route to {subnet} back on {link}")).await
    }

    /// Sets the default route of the gateway's family.
    pub async fn set_default_route(&self, index: u32, link: &str, gateway: IpAddr) -> Result<(), NetlinkError> {
        let mut message = build(index, None);
        message.header.address_family = family_of(gateway);
        message.attributes.push(RouteAttribute::Gateway(gateway.into()));
        self.put_route(message, || format!("set the default route by {gateway} on {link}")).await
    }

    /// Makes one IPv4 address directly reachable on a link.
    pub async fn set_host_route(&self, index: u32, link: &str, to: Ipv4Addr) -> Result<(), NetlinkError> {
        let mut message = build(index, Some(IpNetwork::from(IpAddr::V4(to))));
        message.header.scope = RouteScope::Link;
        self.put_route(message, || format!("set the route to {to} on {link}")).await
    }

    async fn put_route(&self, message: RouteMessage, doing: impl Fn() -> String) -> Result<(), NetlinkError> {
        self.change(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_REPLACE, doing).await
    }
}

/// The subnet that an address with a length stands in.
pub(crate) fn subnet_of(address: IpNetwork) -> IpNetwork {
    match address {
        IpNetwork::V4(v4) => IpNetwork::V4(ipnetwork::Ipv4Network::new(v4.network(), v4.prefix()).unwrap_or(v4)),
        IpNetwork::V6(v6) => IpNetwork::V6(ipnetwork::Ipv6Network::new(v6.network(), v6.prefix()).unwrap_or(v6)),
    }
}

fn family_of(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn build(index: u32, to: Option<IpNetwork>) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    message.attributes.push(RouteAttribute::Oif(index));
    if let Some(to) = to {
        message.header.address_family = family_of(to.ip());
        message.header.destination_prefix_length = to.prefix();
        message.attributes.push(RouteAttribute::Destination(to.ip().into()));
    }
    message
}

fn default_route(message: RouteNetlinkMessage) -> Option<DefaultRoute> {
    let RouteNetlinkMessage::NewRoute(message) = message else { return None };
    if message.header.destination_prefix_length != 0 || message.header.kind != RouteType::Unicast {
        return None;
    }
    let (mut metric, mut index, mut gateway) = (0, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(found) => index = Some(*found),
            RouteAttribute::Gateway(found) => gateway = gateway.or(address(found)),
            RouteAttribute::MultiPath(hops) => {
                let Some(hop) = hops.first() else { continue };
                index = index.or(Some(hop.interface_index));
                let by = hop
                    .attributes
                    .iter()
                    .find_map(|of| if let RouteAttribute::Gateway(a) = of { address(a) } else { None });
                gateway = gateway.or(by);
            }
            RouteAttribute::Priority(found) => metric = *found,
            RouteAttribute::Table(table) if *table != u32::from(RouteHeader::RT_TABLE_MAIN) => return None,
            _ => {}
        }
    }
    Some(DefaultRoute { metric, index: index?, gateway })
}

fn address(found: &RouteAddress) -> Option<IpAddr> {
    match found {
        RouteAddress::Inet(ip) => Some((*ip).into()),
        RouteAddress::Inet6(ip) => Some((*ip).into()),
        _ => None,
    }
}

fn parse(message: RouteNetlinkMessage) -> Option<ConnectedRoute> {
    let RouteNetlinkMessage::NewRoute(message) = message else { return None };
    let header = &message.header;
    if header.protocol != RouteProtocol::Kernel || header.kind != RouteType::Unicast {
        return None;
    }
    let (mut index, mut to) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(found) => index = Some(*found),
            RouteAttribute::Destination(RouteAddress::Inet(found)) => to = Some(IpAddr::V4(*found)),
            RouteAttribute::Destination(RouteAddress::Inet6(found)) => to = Some(IpAddr::V6(*found)),
            RouteAttribute::Table(table) if *table != u32::from(RouteHeader::RT_TABLE_MAIN) => return None,
            _ => {}
        }
    }
    let any = match header.address_family {
        AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        _ => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let subnet = IpNetwork::new(to.unwrap_or(any), header.destination_prefix_length).ok()?;
    Some(ConnectedRoute { index: index?, subnet })
}
