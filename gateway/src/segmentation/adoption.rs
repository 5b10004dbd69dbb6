//! Interfaces that others made: ports of adopted bridges, and what CNI plugins made before ours in a chain.
//!
//! A port of an adopted bridge is closed when it is seen, by the kernel programs without an entry, and told of in
//! [`Status::found`](super::Status): the composition makes a workload of it, which seals it. Nothing of it is set up, renamed
//! or deleted here; when its bridge is adopted no longer, the programs are taken off. What a container has inside is asked
//! of the kernel from here, by the number that this namespace knows the container's by.

use std::net::IpAddr;
use std::sync::{Arc, PoisonError};

use config::names::{InterfaceName, Name};
use config::resource::{Adopt, Network};

use super::desired::Desired;
use super::keeper::{Keeper, State};
use super::observe::{ObserveError, Observed};
use crate::sys::netlink::watch::{Notice, Watch};
use crate::sys::netlink::{FarEnd, Kind, Link, Netlink, NetlinkError};
use crate::workload::{Mac, Workload, WorkloadId};

/// A port of an adopted bridge that is no workload yet. It passes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundPort {
    /// The network that adopts its bridge.
    pub network: Name,
    /// Its name.
    pub link: InterfaceName,
    /// Its index.
    pub index: u32,
    /// What is inside; `None` where it leads into no network namespace (a TAP, a pair within the node).
    pub guest: Option<FoundGuest>,
}

/// A container's side of an interface that others made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundGuest {
    /// Its name inside.
    pub name: InterfaceName,
    /// Its Ethernet address.
    pub mac: Mac,
    /// What it has by now.
    pub addresses: Vec<IpAddr>,
}

/// An interface of others that the kernel programs are on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    /// Whose entry it has; nothing passes without.
    pub workload: Option<WorkloadId>,
    /// Made by other CNI plugins: it stays closed until they delete it.
    pub chained: bool,
}

/// The bridge that a network adopts.
pub(super) fn bridge_of(network: &Network) -> Option<&InterfaceName> {
    match network.adopt.as_ref()? {
        Adopt::Bridge(bridge) => Some(bridge),
        Adopt::CniNetwork(_) => None,
    }
}

/// Whether a port is to be a workload: the others, cards and tunnels, are the segment's way to other nodes.
pub(super) fn is_closable(port: &Link) -> bool {
    matches!(port.kind, Kind::Veth | Kind::Tap)
}

/// What a workload on this interface sees as its gateway: the bridge, or the interface itself.
pub(super) fn gateway_mac(link: &Link, links: &[Link]) -> Option<Mac> {
    let master = link.master.and_then(|index| links.iter().find(|link| link.index == index));
    master.unwrap_or(link).mac
}

impl Keeper {
    /// Completes a look: which interfaces of others are closed, and what is behind those that are no workloads yet.
    pub(super) async fn look_at_adopted(
        &self,
        state: &mut State,
        desired: &Desired,
        observed: &mut Observed,
    ) -> Result<(), ObserveError> {
        let adopted: Vec<(&Name, &InterfaceName)> =
            desired.networks.values().filter_map(|network| Some((&network.name, bridge_of(network)?))).collect();
        let index = |name: &InterfaceName| observed.links.iter().find(|link| link.name == *name).map(|link| link.index);
        *self.adopted.write().unwrap_or_else(PoisonError::into_inner) =
            adopted.iter().filter_map(|(_, bridge)| index(bridge)).collect();
        observed.guard = state.guard.look(&self.nft, !adopted.is_empty()).await?;
        let links = &observed.links;
        state.closed.retain(|index, _| {
            let there = links.iter().any(|link| link.index == *index);
            if !there {
                self.seal.open(*index);
            }
            there
        });
        let sealed = |index: u32| state.closed.get(&index).and_then(|closed| closed.workload);
        for workload in desired.workloads.values().filter(|workload| workload.adopted) {
            let link = links.iter().find(|link| link.name == workload.host_interface);
            let is_there = match link {
                None => false,
                Some(link) if sealed(link.index) == Some(workload.id) => true,
                Some(link) => match link.far_end {
                    None => false,
                    Some(end) => self.netlink.across(end).await?.is_some_and(|guest| guest.mac == Some(workload.mac)),
                },
            };
            if !is_there {
                observed.gone.insert(workload.id);
            }
        }
        for (network, bridge) in adopted {
            let Some(bridge) = links.iter().find(|link| link.name == *bridge) else { continue };
            for port in links.iter().filter(|link| link.master == Some(bridge.index) && is_closable(link)) {
                let known = |id: &WorkloadId| desired.workloads.contains_key(id) && !observed.gone.contains(id);
                if sealed(port.index).is_some_and(|id| known(&id)) {
                    continue;
                }
                observed.found.push(FoundPort {
                    network: network.clone(),
                    link: port.name.clone(),
                    index: port.index,
                    guest: match port.far_end {
                        Some(end) => guest(&self.netlink, end).await?,
                        None => None,
                    },
                });
            }
        }
        observed.closed.clone_from(&state.closed);
        Ok(())
    }

    /// Closes new ports of adopted bridges at once, for ever: where nothing guards them they are open until then, and a look may
    /// be under way for long.
    pub(super) async fn close_at_sight(self: Arc<Self>, mut notices: Watch, netlink: Netlink) {
        let is_adopted = |bridge: u32| self.adopted.read().unwrap_or_else(PoisonError::into_inner).contains(&bridge);
        // Notices that cannot be read are told by the watch; a look closes what is not closed here.
        while let Ok(found) = notices.changed().await {
            if self.adopted.read().unwrap_or_else(PoisonError::into_inner).is_empty() {
                continue;
            }
            for notice in found {
                let Notice::Link { index } = notice else { continue };
                if self.own().contains_key(&index) {
                    continue;
                }
                if let Ok(Some(link)) = netlink.link_at(index).await
                    && link.master.is_some_and(is_adopted)
                    && is_closable(&link)
                    && let Err(error) = self.seal.close(index)
                {
                    tracing::warn!(%error, port = %link.name, "a new port of an adopted bridge cannot be closed at once");
                }
            }
        }
    }

    /// The interface of a container that others made, by the container's namespace: the node's side of it, and what it has.
    pub(super) async fn made_by_others(
        &self,
        netns: &std::path::Path,
        interface: &InterfaceName,
    ) -> Result<(InterfaceName, FoundGuest), String> {
        let namespace = self.helper.open_namespace(netns).await.map_err(|error| error.to_string())?;
        let inside = self.helper.netlink_inside(&namespace).await.map_err(|error| error.to_string())?;
        let there = inside.link(interface).await.map_err(|error| error.to_string())?;
        let there = there.ok_or_else(|| format!("there is no {interface} inside {}", netns.display()))?;
        for link in self.netlink.links().await.map_err(|error| error.to_string())? {
            let Some(end) = link.far_end.filter(|end| end.index == there.index) else { continue };
            // Another container's may have that number too.
            if there.far_end.is_none_or(|back| back.index != link.index) {
                continue;
            }
            if let Some(guest) = guest(&self.netlink, end).await.map_err(|error| error.to_string())?
                && Some(guest.mac) == there.mac
            {
                return Ok((link.name, guest));
            }
        }
        Err(format!("{interface} inside {} is no end of a pair whose other end is on this node", netns.display()))
    }

    /// The programs of a workload that is no longer wanted stay on an interface of others, without an entry.
    pub(super) async fn leave_closed(&self, state: &mut State, workload: &Workload) {
        for closed in state.closed.values_mut().filter(|closed| closed.workload == Some(workload.id)) {
            closed.workload = None;
        }
        self.own_mut().retain(|_, subject| *subject != super::plan::Subject::Workload(workload.id));
        self.status.send_modify(|status| {
            status.ports.retain(|port| port.workload != workload.id);
            status.gone.remove(&workload.id);
        });
        self.look.send_modify(|number| *number += 1);
    }
}

async fn guest(netlink: &Netlink, end: FarEnd) -> Result<Option<FoundGuest>, NetlinkError> {
    let Some(link) = netlink.across(end).await? else { return Ok(None) };
    let Some(mac) = link.mac else { return Ok(None) };
    let addresses = netlink.addresses_across(end).await?.into_iter().map(|own| own.address.ip()).collect();
    Ok(Some(FoundGuest { name: link.name, mac, addresses }))
}
