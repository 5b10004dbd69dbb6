//! What is: one look at the node's links and what hangs on them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use config::names::InterfaceName;
use config::resource::Network;

use super::adoption::{Closed, FoundPort};
use super::desired::Shape;
use super::guard::GuardState;
use super::names;
use super::ruleset::Ruleset;
use crate::sys::netlink::{ConnectedRoute, ForwardingEntry, Link, LinkAddress, Neighbour, Netlink, NetlinkError};
use crate::sys::sysctl::{Sysctl, SysctlError};
use crate::workload::{Workload, WorkloadId};

/// One look at the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Every link of the node.
    pub links: Vec<Link>,
    /// Every address.
    pub addresses: Vec<LinkAddress>,
    /// Routes to the subnets of addresses.
    pub routes: Vec<ConnectedRoute>,
    /// Permanent neighbours.
    pub neighbours: Vec<Neighbour>,
    /// Static entries of the bridges' forwarding tables.
    pub forwarding: Vec<ForwardingEntry>,
    /// `net.ipv4.ip_forward`; `None` where the kernel has no IPv4 (never) or no such setting.
    pub ipv4_forward: Option<i32>,
    /// `net.ipv6.conf.all.forwarding`; `None` on a kernel without IPv6.
    pub ipv6_forward: Option<i32>,
    /// Whether the kernel can make VLAN sub-interfaces.
    pub vlans: bool,
    /// Our table in nf_tables.
    pub table: Table,
    /// Workloads without a host side whose namespace is gone, or is another one now.
    pub gone: BTreeSet<WorkloadId>,
    /// Interfaces of others that the kernel programs are on, by index.
    pub closed: BTreeMap<u32, Closed>,
    /// Ports of adopted bridges that are no workloads.
    pub found: Vec<FoundPort>,
    /// The table that guards adopted bridges.
    pub guard: GuardState,
}

/// The state of table `inet tidegate`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Table {
    /// There is none.
    #[default]
    Absent,
    /// There is one, and it is as this ruleset made it.
    As(Arc<Ruleset>),
    /// There is one, and nobody knows what made it what it is.
    Other,
}

/// The node could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// By netlink.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// By `/proc/sys`.
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    /// By `nft`.
    #[error(transparent)]
    Nft(#[from] crate::sys::nft::NftError),
}

impl Observed {
    /// Looks at everything but the table and the workloads' namespaces, which the caller knows better.
    pub(super) async fn take(netlink: &Netlink) -> Result<Self, ObserveError> {
        Ok(Self {
            links: netlink.links().await?,
            addresses: netlink.addresses().await?,
            routes: netlink.connected_routes().await?,
            neighbours: netlink.permanent_neighbours().await?,
            forwarding: netlink.forwarding_entries().await?,
            ipv4_forward: Sysctl::ipv4_forward().read()?,
            ipv6_forward: Sysctl::ipv6_forward().read()?,
            vlans: netlink.supports_vlan().await?,
            ..Self::default()
        })
    }

    /// Looks at a network only, and at one workload of it, however many others there are: `None` unless the network is in
    /// place. Of neighbours and forwarding entries only those of the workload are looked for. Whether another link has an
    /// address in a subnet of the network is a matter for the look at everything that such an address calls for.
    pub(super) async fn near(
        netlink: &Netlink,
        network: &Network,
        workload: Option<&Workload>,
    ) -> Result<Option<Self>, ObserveError> {
        let mut links = Vec::new();
        let vlan = network.vlan.iter().flat_map(|vlan| [names::vlan(&network.name), vlan.parent.clone()]);
        for name in [names::bridge(&network.name)].into_iter().chain(vlan) {
            let Some(link) = netlink.link(&name).await? else { return Ok(None) };
            links.push(link);
        }
        let bridge = links[0].index;
        let (mut neighbours, mut forwarding) = (Vec::new(), Vec::new());
        if let Some(workload) = workload
            && let Some(host) = netlink.link(&workload.host_interface).await?
        {
            for own in workload.addresses.iter().filter(|own| network.routes(own.address.is_ipv4())) {
                neighbours.extend(netlink.permanent_neighbour(bridge, own.address).await?);
            }
            if host.master == Some(bridge) {
                forwarding.extend(netlink.forwarding_entry(host.index, workload.mac).await?);
            }
            links.push(host);
        }
        let mut addresses = Vec::new();
        for link in &links {
            addresses.extend(netlink.addresses_of(link.index).await?);
        }
        Ok(Some(Self {
            links,
            addresses,
            routes: netlink.connected_routes().await?,
            neighbours,
            forwarding,
            ipv4_forward: Sysctl::ipv4_forward().read()?,
            ipv6_forward: Sysctl::ipv6_forward().read()?,
            vlans: true,
            ..Self::default()
        }))
    }

    /// The link of that name.
    pub fn link(&self, name: &InterfaceName) -> Option<&Link> {
        self.links.iter().find(|link| link.name == *name)
    }

    /// The link of that index.
    pub fn link_at(&self, index: u32) -> Option<&Link> {
        self.links.iter().find(|link| link.index == index)
    }
}

/// The namespaces where workloads were attached since this process began, by their number (`SO_NETNS_COOKIE`).
pub(super) type Homes = BTreeMap<WorkloadId, u64>;

/// Whether a path names a process, and so another namespace once that process is gone.
pub(super) fn is_reusable(path: &std::path::Path) -> bool {
    path.starts_with(PathBuf::from("/proc"))
}
