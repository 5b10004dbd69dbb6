//! The node's own way to what it cannot be without: its routers and its DNS servers. A change of networks that takes one of them
//! over is taken back before anybody is cut off.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::desired::Desired;
use super::gate::Gate;
use crate::admin::ControlError;
use crate::sys::netlink::Netlink;

/// By which device each is reached; those that are not reached are left out.
#[derive(Debug, Default)]
pub(super) struct Ways(BTreeMap<IpAddr, u32>);

impl Ways {
    /// As they are now. What cannot be asked is not compared.
    pub(super) async fn of(gate: &Gate) -> Self {
        let routers = gate.default_routes().into_iter().filter_map(|route| route.gateway);
        let servers = gate.upstreams.iter().map(|upstream| upstream.address.ip());
        let Ok(netlink) = Netlink::open() else { return Self::default() };
        let mut ways = BTreeMap::new();
        for address in routers.chain(servers) {
            if let Ok(Some(index)) = netlink.device_towards(address).await {
                ways.insert(address, index);
            }
        }
        Self(ways)
    }

    /// Refuses a change after which one is reached by another device, or not at all. One that is on a network's VLAN by now is
    /// where it is meant to be.
    pub(super) async fn refuse_loss(&self, gate: &Gate, next: &Desired) -> Result<(), ControlError> {
        let now = Self::of(gate).await;
        let on_a_vlan = |address: IpAddr| {
            let mut subnets = next.resources.networks().filter(|it| it.vlan.is_some()).flat_map(|it| &it.subnets);
            subnets.any(|subnet| subnet.cidr.contains(address))
        };
        let moved = |(address, index): &(&IpAddr, &u32)| now.0.get(*address) != Some(*index) && !on_a_vlan(**address);
        match self.0.iter().find(moved) {
            None => Ok(()),
            Some((address, _)) => Err(ControlError::refused(
                format!("with it the node would no longer reach {address}, its router or DNS server, as it does"),
                "use a subnet without it, or `gateway: External`; everything is as it was",
            )),
        }
    }
}
