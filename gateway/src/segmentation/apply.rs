//! Taking the steps of a plan, and taking them back in reverse when one fails.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use config::names::InterfaceName;
use ipnetwork::IpNetwork;

use super::Seal;
use super::adoption::Closed;
use super::guard::GuardMemory;
use super::observe::Homes;
use super::plan::Part;
use super::step::{Inside, Step};
use super::table::TableMemory;
use crate::sys::namespace_helper::{HelperError, NamespaceHelper, OpenError};
use crate::sys::netlink::{ForwardingEntry, Guest, Neighbour, Netlink, NetlinkError};
use crate::sys::netns::{Identity, Netns};
use crate::sys::nft::{Nft, NftError};
use crate::sys::sysctl::SysctlError;
use crate::workload::WorkloadId;

/// A plan that was not carried out.
#[derive(Debug, thiserror::Error)]
#[error("`{step}` failed: {source}{}", outcome(*.undone, .left))]
pub struct ApplyError {
    /// The step that failed, as it is printed.
    pub step: String,
    /// Why.
    #[source]
    pub source: StepError,
    /// How many earlier steps were taken back.
    pub undone: usize,
    /// Steps that could not be taken back, with the reason.
    pub left: Vec<String>,
}

/// Why one step failed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// By netlink.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// By `/proc/sys`.
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    /// By `nft`.
    #[error(transparent)]
    Nft(#[from] NftError),
    /// By the helper process.
    #[error(transparent)]
    Helper(#[from] HelperError),
    /// The workload's namespace cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The namespace given is the node's.
    #[error("{} is the node's own network namespace; give that of a workload", path.display())]
    OwnNamespace {
        /// As given.
        path: PathBuf,
    },
    /// The link inside is not the one that was made.
    #[error(
        "`{link}` inside the workload's namespace is not the interface made for it; detach the workload and attach it again"
    )]
    OtherGuest {
        /// Its name.
        link: InterfaceName,
    },
    /// The same with an interface of others.
    #[error("cannot close the interface: {0}")]
    Close(String),
    /// The kernel programs could not be put in place.
    #[error("cannot close the workload's interface before it comes up: {0}")]
    Seal(String),
}

/// Takes steps. Made for one run: it holds workloads' namespaces open, and knows links by their index once it has met
/// them, so that a name which somebody gave to another link meanwhile misleads no step.
pub(super) struct Executor<'a> {
    pub(super) netlink: &'a Netlink,
    pub(super) helper: &'a NamespaceHelper,
    pub(super) nft: &'a Nft,
    pub(super) seal: &'a dyn Seal,
    pub(super) node: Identity,
    pub(super) memory: Memory<'a>,
    rooms: BTreeMap<WorkloadId, Room>,
    indexes: BTreeMap<InterfaceName, u32>,
}

/// What steps change of what is remembered.
pub(super) struct Memory<'a> {
    pub(super) table: &'a mut TableMemory,
    pub(super) guard: &'a mut GuardMemory,
    pub(super) homes: &'a mut Homes,
    pub(super) closed: &'a mut BTreeMap<u32, Closed>,
}

struct Room {
    netns: Netns,
    netlink: Netlink,
}

impl<'a> Executor<'a> {
    pub(super) fn new(
        netlink: &'a Netlink,
        helper: &'a NamespaceHelper,
        nft: &'a Nft,
        seal: &'a dyn Seal,
        node: Identity,
        memory: Memory<'a>,
    ) -> Self {
        Self { netlink, helper, nft, seal, node, memory, rooms: BTreeMap::new(), indexes: BTreeMap::new() }
    }

    /// Takes all steps of the parts and adds them to `done`. If one fails, all of `done` is taken back.
    pub(super) async fn run(&mut self, parts: &[Part], done: &mut Vec<Step>) -> Result<(), ApplyError> {
        for step in parts.iter().flat_map(|part| &part.steps) {
            tracing::debug!(%step, "segmentation");
            if let Err(source) = self.take(step).await {
                let (undone, left) = self.take_back(done).await;
                return Err(ApplyError { step: step.to_string(), source, undone, left });
            }
            done.push(step.clone());
        }
        Ok(())
    }

    /// Takes steps back, last first: how many, and those that could not be.
    pub(super) async fn take_back(&mut self, done: &[Step]) -> (usize, Vec<String>) {
        let made: BTreeSet<&InterfaceName> = done.iter().filter_map(made_by).collect();
        let (mut undone, mut left) = (0, Vec::new());
        for step in done.iter().rev() {
            // What hangs on a link made in this run goes with it.
            let hangs = made_by(step).is_none() && step.link().is_some_and(|link| made.contains(link));
            let Some(undo) = step.undo().filter(|_| !hangs) else { continue };
            match self.take(&undo).await {
                Ok(()) => undone += 1,
                Err(StepError::Netlink(error)) if error.is_absent() => undone += 1,
                Err(error) => left.push(format!("{undo}: {error}")),
            }
        }
        (undone, left)
    }

    async fn take(&mut self, step: &Step) -> Result<(), StepError> {
        let netlink = self.netlink;
        match step {
            Step::AddBridge { link, mac, mtu } => netlink.add_bridge(link, *mac, *mtu).await?,
            Step::AddVlan { link, parent, tag, mtu } => {
                netlink.add_vlan(link, self.index(parent).await?, *tag, *mtu).await?;
            }
            Step::AddPair { link, mac, mtu, inside } => {
                let netns = &self.room(inside).await?.netns;
                let guest = Guest { name: &inside.link, mac: inside.mac, netns: std::os::fd::AsFd::as_fd(netns) };
                netlink.add_veth(link, *mac, *mtu, guest).await?;
            }
            Step::Mark { link, mark, .. } => netlink.set_alias(self.index(link).await?, link, mark).await?,
            Step::DeleteLink { link, mark } => self.delete(link, mark.as_deref()).await?,
            Step::SetMac { link, to, .. } => netlink.set_mac(self.index(link).await?, link, *to).await?,
            Step::SetMtu { link, to, .. } => netlink.set_mtu(self.index(link).await?, link, *to).await?,
            Step::QuietenBridge { link } => netlink.quieten_bridge(self.index(link).await?, link).await?,
            Step::SetMaster { link, bridge, .. } => {
                let master = match bridge {
                    Some(bridge) => Some(self.index(bridge).await?),
                    None => None,
                };
                netlink.set_master(self.index(link).await?, link, master).await?;
            }
            Step::SetPort { link, to, .. } => netlink.set_port(self.index(link).await?, link, *to).await?,
            Step::SetUp { link, up } => netlink.set_up(self.index(link).await?, link, *up).await?,
            Step::Write { key, to, .. } => key.write(*to)?,
            Step::AddAddress { link, address } => {
                netlink.add_address(self.index(link).await?, link.as_str(), *address).await?;
            }
            Step::DeleteAddress { link, address } => {
                gone(netlink.delete_address(self.index(link).await?, link.as_str(), *address).await)?;
            }
            Step::AddOwnAddress { link, address } => {
                netlink.add_own_address(self.index(link).await?, link.as_str(), *address).await?;
            }
            Step::DeleteOwnAddress { link, address } => {
                let address = IpNetwork::from(*address);
                gone(netlink.delete_address(self.index(link).await?, link.as_str(), address).await)?;
            }
            Step::AddRoute { link, address } => {
                netlink.add_connected_route(self.index(link).await?, link.as_str(), *address).await?;
            }
            Step::AddForwarding { link, mac } => {
                let entry = ForwardingEntry { port: self.index(link).await?, mac: *mac, sticky: true };
                netlink.add_forwarding_entry(link.as_str(), entry).await?;
            }
            Step::DeleteForwarding { link, mac } => {
                let entry = ForwardingEntry { port: self.index(link).await?, mac: *mac, sticky: true };
                gone(netlink.delete_forwarding_entry(link.as_str(), entry).await)?;
            }
            Step::AddNeighbour { link, address, mac } => {
                let neighbour = Neighbour { index: self.index(link).await?, address: *address, mac: *mac };
                netlink.add_neighbour(link.as_str(), neighbour).await?;
            }
            Step::DeleteNeighbour { link, address, mac } => {
                let neighbour = Neighbour { index: self.index(link).await?, address: *address, mac: *mac };
                gone(netlink.delete_neighbour(link.as_str(), neighbour).await)?;
            }
            Step::Configure { inside } => self.configure(inside).await?,
            Step::Seal { link, workload, bridge_mac } => {
                let index = self.index(link).await?;
                self.seal.seal(index, workload, *bridge_mac).map_err(StepError::Seal)?;
                if workload.adopted {
                    let closed = Closed { workload: Some(workload.id), chained: workload.cni.is_some() };
                    self.memory.closed.insert(index, closed);
                }
            }
            Step::Close { link } => {
                let index = self.index(link).await?;
                self.seal.close(index).map_err(StepError::Close)?;
                self.memory.closed.insert(index, Closed { workload: None, chained: false });
            }
            Step::Open { link } => {
                let index = self.index(link).await?;
                self.seal.open(index);
                self.memory.closed.remove(&index);
            }
            Step::PutGuard { to, .. } => self.memory.guard.load(self.nft, Some(to)).await?,
            Step::DeleteGuard { .. } => self.memory.guard.load(self.nft, None).await?,
            Step::PutTable { ruleset, .. } => self.memory.table.load(self.nft, Some(ruleset)).await?,
            Step::ChangeTable { to, was } => self.memory.table.change(self.nft, to, was).await?,
            Step::DeleteTable { .. } => self.memory.table.load(self.nft, None).await?,
        }
        Ok(())
    }

    async fn index(&mut self, link: &InterfaceName) -> Result<u32, StepError> {
        if let Some(index) = self.indexes.get(link) {
            return Ok(*index);
        }
        let absent = || NetlinkError::NoLink { doing: format!("change {link}"), link: link.to_string() };
        let index = self.netlink.link(link).await?.ok_or_else(absent)?.index;
        self.indexes.insert(link.clone(), index);
        Ok(index)
    }

    /// Deletes a link if it still has the mark that was seen; `None` is for one made a moment ago.
    async fn delete(&mut self, link: &InterfaceName, mark: Option<&str>) -> Result<(), StepError> {
        self.indexes.remove(link);
        match self.netlink.link(link).await? {
            Some(found) if mark.is_none() || found.alias.as_deref() == mark => {
                Ok(gone(self.netlink.delete_link(found.index, link).await)?)
            }
            Some(_) | None => Ok(()),
        }
    }

    async fn room(&mut self, inside: &Inside) -> Result<&Room, StepError> {
        if !self.rooms.contains_key(&inside.workload) {
            let netns = self.helper.open_namespace(&inside.netns).await?;
            if netns.identity() == self.node {
                return Err(StepError::OwnNamespace { path: inside.netns.clone() });
            }
            let netlink = self.helper.netlink_inside(&netns).await?;
            self.memory.homes.insert(inside.workload, netlink.cookie());
            self.rooms.insert(inside.workload, Room { netns, netlink });
        }
        Ok(&self.rooms[&inside.workload])
    }

    async fn configure(&mut self, inside: &Inside) -> Result<(), StepError> {
        let helper = self.helper;
        let Room { netns, netlink } = self.room(inside).await?;
        let lo: InterfaceName = "lo".parse().expect("a literal name");
        if let Some(found) = netlink.link(&lo).await?.filter(|found| !found.up) {
            netlink.set_up(found.index, &lo, true).await?;
        }
        let link = &inside.link;
        let found = netlink.link(link).await?.filter(|found| found.mac == Some(inside.mac));
        let found = found.ok_or_else(|| StepError::OtherGuest { link: link.clone() })?;
        helper.write_settings(netns, link, inside.router_advertisements).await?;
        if found.mtu != inside.mtu {
            netlink.set_mtu(found.index, link, inside.mtu).await?;
        }
        netlink.set_up(found.index, link, true).await?;
        for &address in &inside.addresses {
            netlink.add_address(found.index, link.as_str(), address).await?;
        }
        for &gateway in &inside.gateways {
            netlink.set_default_route(found.index, link.as_str(), gateway).await?;
            if let Some(mac) = inside.gateway_mac {
                let neighbour = Neighbour { index: found.index, address: gateway, mac };
                netlink.add_neighbour(link.as_str(), neighbour).await?;
            }
        }
        if let Some(address) = inside.on_link {
            netlink.set_host_route(found.index, link.as_str(), address).await?;
        }
        Ok(())
    }
}

/// What was to be deleted may have gone with an earlier step, or with its workload.
fn gone(deleted: Result<(), NetlinkError>) -> Result<(), NetlinkError> {
    match deleted {
        Err(error) if error.is_absent() => Ok(()),
        other => other,
    }
}

fn made_by(step: &Step) -> Option<&InterfaceName> {
    match step {
        Step::AddBridge { link, .. } | Step::AddVlan { link, .. } | Step::AddPair { link, .. } => Some(link),
        _ => None,
    }
}

fn outcome(undone: usize, left: &[String]) -> String {
    let before = match undone {
        0 => "; nothing was changed before it".to_owned(),
        1 => "; the 1 step before it was undone".to_owned(),
        n => format!("; the {n} steps before it were undone"),
    };
    if left.is_empty() { before } else { format!("{before}, but not: {}", left.join("; ")) }
}
