//! Source NAT's part of the node (`bpf/nat.h`): which addresses the uplink has for whom, and ports that are kept from the
//! node's own sockets while some network is masqueraded.
//!
//! Addresses are chosen as the kernel's masquerade does: on the uplink's own subnets the address there, else the one
//! that shares a subnet with the default router (IPv4), or is of the destination's kind (IPv6, RFC 6724): unique local
//! for unique local.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use config::resource::Network;
use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};

use super::desired::Desired;
use super::enforcement::{Enforcement, masqueraded, network_number};
use super::gate::Gate;
use crate::egress::tables::TableError;
use crate::egress::tables::nat::Translation;
use crate::sys::netlink::{DefaultRoute, LinkAddress};
use crate::sys::reserved_ports::{PortSet, ReserveError, reserve};
use crate::workload::is_link_local;

/// Below the state folder: the ports that are reserved on the node only because of us.
const RESERVED: &str = "reserved-ports";

/// What is translated at this device.
pub(super) fn translation(gate: &Gate, uplink: u32, addresses: &[LinkAddress], routes: &[DefaultRoute]) -> Translation {
    Translation {
        ifindex: Some(uplink),
        ports: Some(gate.settings.egress.snat_ports.range().clone()),
        addresses: egress_addresses(uplink, addresses, routes),
    }
}

fn egress_addresses(uplink: u32, addresses: &[LinkAddress], routes: &[DefaultRoute]) -> BTreeMap<IpNetwork, IpAddr> {
    let own = addresses.iter();
    let own = own.filter(|it| it.index == uplink && it.lasting && !it.ours && !is_link_local(it.address.ip()));
    let own: Vec<IpNetwork> = own.map(|it| it.address).collect();
    let mut chosen = BTreeMap::new();
    for ipv4 in [true, false] {
        let mut family = own.iter().filter(|address| address.is_ipv4() == ipv4);
        let gateway =
            routes.iter().find(|route| route.index == uplink && route.gateway.is_some_and(|by| by.is_ipv4() == ipv4));
        let near =
            gateway.and_then(|route| family.clone().find(|own| route.gateway.is_some_and(|by| own.contains(by))));
        let global = family.clone().find(|own| !is_unique_local(own.ip()));
        if let Some(main) = near.or(global).or_else(|| family.next()) {
            chosen.insert(everything(ipv4), main.ip());
        }
    }
    if let Some(local) = own.iter().find(|own| is_unique_local(own.ip())) {
        chosen.insert(unique_local(), local.ip());
    }
    for address in own {
        chosen.entry(crate::sys::netlink::subnet_of(address)).or_insert(address.ip());
    }
    chosen
}

fn everything(ipv4: bool) -> IpNetwork {
    match ipv4 {
        true => IpNetwork::V4(Ipv4Network::new_checked(Ipv4Addr::UNSPECIFIED, 0).expect("0 is a length")),
        false => IpNetwork::V6(Ipv6Network::new_checked(Ipv6Addr::UNSPECIFIED, 0).expect("0 is a length")),
    }
}

/// fc00::/7 (RFC 4193)
fn unique_local() -> IpNetwork {
    IpNetwork::V6(Ipv6Network::new_checked(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7).expect("7 is a length"))
}

fn is_unique_local(address: IpAddr) -> bool {
    unique_local().contains(address)
}

/// Whether some network is translated.
pub(super) fn is_needed(desired: &Desired) -> bool {
    desired.resources.networks().any(|network| network.snat.translates())
}

/// What networks leave with that have addresses of their own, by their number.
pub(super) fn own_addresses(desired: &Desired) -> BTreeMap<u32, Vec<IpAddr>> {
    let own = |network: &Network| (network_number(&network.name), network.snat.own().collect::<Vec<_>>());
    desired.resources.networks().map(own).filter(|(_, own)| !own.is_empty()).collect()
}

/// Keeps the range from the node's sockets as long as some network of this state is translated.
pub(super) fn keep_ports(gate: &Gate, desired: &Desired) -> Result<(), ReserveError> {
    let wanted =
        if is_needed(desired) { PortSet::of(gate.settings.egress.snat_ports.range()) } else { PortSet::none() };
    if reserve(&wanted, &gate.settings.node.state_dir.join(RESERVED))? {
        tracing::info!(ports = %wanted, "net.ipv4.ip_local_reserved_ports");
    }
    Ok(())
}

impl Enforcement {
    /// Before a new state's links are there: the sources of the present one and of the next are translated, so that none
    /// leaves the node as it is meanwhile. [`Enforcement::install`] leaves the next one's.
    pub(super) fn masquerade_also(&self, next: &Desired) -> Result<(), TableError> {
        let present = self.state().desired.clone();
        let mut sources = masqueraded(&present);
        sources.extend(masqueraded(next));
        // a network that is there already changes over with its policies, when the node has the address
        let mut own = own_addresses(next);
        for network in present.resources.networks() {
            own.remove(&network_number(&network.name));
        }
        own.extend(own_addresses(&present));
        self.tables.set_own_addresses(&own)?;
        self.tables.set_masqueraded(&sources)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(index: u32, text: &str) -> LinkAddress {
        LinkAddress { index, address: text.parse().unwrap(), lasting: true, ours: false }
    }

    fn by(index: u32, gateway: &str) -> DefaultRoute {
        DefaultRoute { metric: 0, index, gateway: Some(gateway.parse().unwrap()) }
    }

    fn chosen(addresses: &[LinkAddress], routes: &[DefaultRoute], to: &str) -> Option<String> {
        let to: IpAddr = to.parse().unwrap();
        let table = egress_addresses(2, addresses, routes);
        let best = table.iter().filter(|(net, _)| net.contains(to)).max_by_key(|(net, _)| net.prefix());
        best.map(|(_, address)| address.to_string())
    }

    #[test]
    fn a_destination_gets_the_address_that_the_kernel_would_take() {
        let passing = LinkAddress { lasting: false, ..on(2, "192.0.2.77/24") };
        let addresses = [
            on(1, "10.0.0.1/8"),
            passing,
            LinkAddress { ours: true, ..on(2, "192.0.2.78/32") },
            on(2, "198.51.100.2/24"),
            on(2, "192.0.2.2/24"),
            on(2, "fe80::1/64"),
            on(2, "fd00:7::2/64"),
            on(2, "2001:db8::2/64"),
        ];
        let routes = [by(1, "10.0.0.254"), by(2, "192.0.2.1"), by(2, "fe80::99")];
        let to = |far: &str| chosen(&addresses, &routes, far).unwrap();
        assert_eq!(to("203.0.113.1"), "192.0.2.2", "beside the default router");
        assert_eq!(to("198.51.100.9"), "198.51.100.2", "on the link");
        assert_eq!(to("2001:db8:5::1"), "2001:db8::2");
        assert_eq!(to("fd00:9::1"), "fd00:7::2", "of the same kind");
        assert_eq!(to("2001:db8::7"), "2001:db8::2");
    }

    #[test]
    fn a_family_without_address_has_none() {
        assert_eq!(chosen(&[on(2, "fe80::1/64"), on(2, "192.0.2.2/24")], &[], "2001:db8::1"), None);
        assert_eq!(chosen(&[on(2, "192.0.2.2/24")], &[], "203.0.113.1").unwrap(), "192.0.2.2");
    }
}
