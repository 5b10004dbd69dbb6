//! What `tg1` has inside: addresses, routes and sysctls. Each was found by trying, on two kernels:
//!
//! - IPv4's `local default` lies in table local, IPv6's in table *main*: in local it would swallow the handles.
//!   No `ip rule` may ever be added here: it unmerges IPv4's tables for good, and then that route swallows them too.
//! - `local fe80::/64 dev tg1` in table local is for workloads that ask a resolver at a link-local address.
//! - IPv4's sysctls are inherited from the node, so what matters is written: reverse path filters off, no forwarding.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::TryStreamExt;
use ipnetwork::{Ipv4Network, Ipv6Network};

use super::links::{Netlink, failed};
use super::{Config, ServiceError, TG0, TG1};
use crate::sys::netlink::raw::{
    AddressAttribute, AddressFlags, AddressMessage, RouteMessage, RouteMessageBuilder, RouteScope, RouteType, io_error,
};
use crate::sys::sysctl::{Sysctl, has_ipv6};

/// Source of the edge's connections where the network's gateway is not this node.
pub const EDGE_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 77, 1);
/// The same for IPv6; link-local on `tg1`.
pub const EDGE_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x77);

const LOOPBACK: u32 = 1;
const TABLE_LOCAL: u32 = 255;
const TABLE_MAIN: u32 = 254;

/// `tg1`'s own address in the block of IPv4 handles, which no workload may get: 198.18.255.254 in 198.18.0.0/15,
/// the last host of a block smaller than /16.
pub fn service_v4(block: Ipv4Network) -> Ipv4Addr {
    let offset =
        if block.prefix() <= 16 { 0xfffe } else { u32::from(block.broadcast()) - u32::from(block.network()) - 1 };
    Ipv4Addr::from(u32::from(block.network()) + offset)
}

/// `tg1`'s own address in the block of IPv6 handles: fd74:6769::ffff in fd74:6769::/64, the last of a block smaller than /112.
pub fn service_v6(block: Ipv6Network) -> Ipv6Addr {
    let last = u128::from(block.broadcast());
    Ipv6Addr::from(u128::from(block.network()) | (last & 0xffff))
}

/// The wanted state.
#[derive(Debug)]
pub(super) struct Inside {
    addresses: Vec<(IpAddr, u8)>,
    ipv6: bool,
}

impl Inside {
    pub(super) fn new(config: &Config) -> Self {
        let ipv6 = has_ipv6();
        let mut addresses =
            vec![(IpAddr::V4(service_v4(config.handles_v4)), config.handles_v4.prefix()), (IpAddr::V4(EDGE_V4), 32)];
        if ipv6 {
            addresses.push((service_v6(config.handles_v6).into(), config.handles_v6.prefix()));
            addresses.push((EDGE_V6.into(), 64));
        }
        Self { addresses, ipv6 }
    }

    /// Whether the kernel speaks IPv6 at all.
    pub(super) fn ipv6(&self) -> bool {
        self.ipv6
    }

    /// Puts everything in place; must run on the namespace's thread. True if something was missing or too much.
    pub(super) async fn apply(&self, inside: &Netlink, tg1: u32) -> Result<bool, ServiceError> {
        let mut changed = self.sysctls()?;
        inside.up(LOOPBACK).await?;
        changed |= self.address(inside, tg1).await?;
        for route in self.routes(tg1) {
            changed |= add(inside, route).await?;
        }
        Ok(changed)
    }

    fn sysctls(&self) -> Result<bool, ServiceError> {
        let mut changed = Sysctl::named("ipv4/ip_unprivileged_port_start").ensure(0)?;
        for interface in ["all", "default", TG1] {
            for key in ["forwarding", "rp_filter", "send_redirects"] {
                changed |= Sysctl::named(format!("ipv4/conf/{interface}/{key}")).ensure(0)?;
            }
        }
        if self.ipv6 {
            for key in ["disable_ipv6", "accept_ra", "autoconf", "router_solicitations"] {
                changed |= Sysctl::named(format!("ipv6/conf/{TG1}/{key}")).ensure(0)?;
            }
        }
        Ok(changed)
    }

    async fn address(&self, inside: &Netlink, tg1: u32) -> Result<bool, ServiceError> {
        let looking = "look at the addresses of tg1";
        let found: Vec<AddressMessage> = inside
            .0
            .address()
            .get()
            .set_link_index_filter(tg1)
            .execute()
            .try_collect()
            .await
            .map_err(failed(looking))?;
        let (stays, goes): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|message| self.addresses.iter().any(|wanted| is(message, *wanted)));
        let mut changed = !goes.is_empty();
        for message in goes {
            inside.0.address().del(message).execute().await.map_err(failed("remove an address of tg1"))?;
        }
        for &(address, length) in &self.addresses {
            if stays.iter().any(|message| is(message, (address, length))) {
                continue;
            }
            let mut request = inside.0.address().add(tg1, address, length);
            let message = request.message_mut();
            message.attributes.retain(|attribute| !matches!(attribute, AddressAttribute::Broadcast(_)));
            if address.is_ipv6() {
                message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
            }
            request.execute().await.map_err(failed("give tg1 its addresses"))?;
            changed = true;
        }
        Ok(changed)
    }

    fn routes(&self, tg1: u32) -> Vec<RouteMessage> {
        let any_v4 = RouteMessageBuilder::<Ipv4Addr>::new()
            .output_interface(LOOPBACK)
            .table_id(TABLE_LOCAL)
            .scope(RouteScope::Host);
        let mut routes = vec![any_v4.kind(RouteType::Local).build()];
        if self.ipv6 {
            let any_v6 = RouteMessageBuilder::<Ipv6Addr>::new().output_interface(LOOPBACK).table_id(TABLE_MAIN);
            let link_local = RouteMessageBuilder::<Ipv6Addr>::new().output_interface(tg1).table_id(TABLE_LOCAL);
            let segment = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0);
            routes.push(any_v6.kind(RouteType::Local).build());
            routes.push(link_local.destination_prefix(segment, 64).kind(RouteType::Local).build());
        }
        routes
    }
}

/// Keeps the node's own stack away from `tg0`: what no program takes off it (while none is attached yet) is neither
/// forwarded nor spoken to. For a thread of the node's namespace. True if something was changed.
pub(super) fn quieten_node_side() -> Result<bool, ServiceError> {
    let mut changed = Sysctl::named(format!("ipv4/conf/{TG0}/forwarding")).ensure(0)?;
    if has_ipv6() {
        changed |= Sysctl::named(format!("ipv6/conf/{TG0}/disable_ipv6")).ensure(1)?;
    }
    Ok(changed)
}

fn is(message: &AddressMessage, (address, length): (IpAddr, u8)) -> bool {
    message.header.prefix_len == length
        && message
            .attributes
            .iter()
            .any(|attribute| matches!(attribute, AddressAttribute::Address(own) if *own == address))
}

async fn add(inside: &Netlink, route: RouteMessage) -> Result<bool, ServiceError> {
    match inside.0.route().add(route).execute().await {
        Ok(()) => Ok(true),
        Err(error) => match io_error(error) {
            there if there.raw_os_error() == Some(libc::EEXIST) => Ok(false),
            source => Err(ServiceError::Netlink { doing: "add the AnyIP routes", source }),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_addresses_lie_in_their_blocks() {
        for (block, own) in
            [("198.18.0.0/15", "198.18.255.254"), ("10.0.0.0/16", "10.0.255.254"), ("10.9.8.0/24", "10.9.8.254")]
        {
            assert_eq!(service_v4(block.parse().unwrap()).to_string(), own);
        }
        for (block, own) in [("fd74:6769::/64", "fd74:6769::ffff"), ("fd00::100/120", "fd00::1ff")] {
            assert_eq!(service_v6(block.parse().unwrap()).to_string(), own);
        }
    }
}
