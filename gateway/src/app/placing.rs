//! Workloads' entries and addresses in the kernel, and what is remembered of them: a change writes what is new, and reads
//! nothing.

use std::collections::{BTreeMap, BTreeSet};

use config::resource::{Gateway, OnDeny};
use policy::tables::{PolicyId, PolicyRef};

use super::desired::Desired;
use super::enforcement::{Enforcement, Port, State, network_number};
use crate::egress::tables::workloads::{PortAddresses, WorkloadEntry};
use crate::egress::tables::{TableError, Tables};
use crate::workload::{Address, Workload, WorkloadId};

/// What each host side has in the tables.
#[derive(Debug, Default)]
pub(super) struct Placed {
    by_port: BTreeMap<u32, Side>,
    /// A write failed: what the tables have is to be read again.
    lost: bool,
}

#[derive(Debug)]
struct Side {
    entry: WorkloadEntry,
    /// With the entry that they were written for.
    addresses: Option<(WorkloadEntry, Vec<Address>)>,
}

/// Which entries are written, though nothing in them has changed but the epoch.
pub(super) enum Anew<'a> {
    /// All of them.
    All,
    /// Those under these policies.
    Under(&'a BTreeSet<PolicyId>),
}

impl Placed {
    /// What an earlier daemon left.
    pub(super) fn of(tables: &Tables) -> Result<Self, TableError> {
        let mut addresses = tables.addresses()?;
        let side = |(ifindex, entry): (u32, WorkloadEntry)| {
            let addresses = addresses.remove(&ifindex).map(|own| (entry, own));
            (ifindex, Side { entry, addresses })
        };
        Ok(Self { by_port: tables.workloads()?.into_iter().map(side).collect(), lost: false })
    }

    /// The entry of a host side.
    pub(super) fn entry(&self, ifindex: u32) -> Option<&WorkloadEntry> {
        self.by_port.get(&ifindex).map(|side| &side.entry)
    }

    /// The host sides of a workload. More than one: it was made anew.
    pub(super) fn of_workload(&self, id: WorkloadId) -> impl Iterator<Item = u32> {
        self.by_port.iter().filter(move |(_, side)| side.entry.id == id).map(|(ifindex, _)| *ifindex)
    }

    /// The highest epoch that flows of this workload can have: they outlive its host side, and so do their verdicts.
    fn latest_epoch(&self, id: WorkloadId, ifindex: u32) -> u32 {
        match self.entry(ifindex).filter(|entry| entry.id == id) {
            Some(entry) => entry.epoch,
            None => {
                let own = self.by_port.values().filter(|side| side.entry.id == id);
                own.map(|side| side.entry.epoch).max().unwrap_or(0)
            }
        }
    }

    /// A host side that is gone from the tables.
    pub(super) fn forget(&mut self, ifindex: u32) {
        self.by_port.remove(&ifindex);
    }

    /// A workload that is gone from the tables.
    pub(super) fn forget_workload(&mut self, id: WorkloadId) {
        self.by_port.retain(|_, side| side.entry.id != id);
    }
}

impl Enforcement {
    /// Reads again what the tables have, if that is not known.
    pub(super) fn look_again(&self, state: &mut State) -> Result<(), TableError> {
        if state.placed.lost {
            state.placed = Placed::of(&self.tables)?;
        }
        Ok(())
    }

    /// Writes the entries of these workloads that are others now, and those that are to be written anew, each with an
    /// epoch that no flow of it has. A workload whose policies are not compiled is sealed.
    pub(super) fn switch<'w>(
        &self,
        state: &mut State,
        desired: &Desired,
        workloads: impl IntoIterator<Item = &'w Workload>,
        anew: &Anew<'_>,
    ) -> Result<(), TableError> {
        self.look_again(state)?;
        let mut entries = BTreeMap::new();
        if let Anew::Under(policies) = anew
            && !policies.is_empty()
        {
            let under = |entry: &WorkloadEntry| {
                [entry.egress_policy, entry.ingress_policy].iter().any(|it| policies.contains(it))
            };
            let sides = state.placed.by_port.iter().filter(|(_, side)| under(&side.entry));
            entries.extend(sides.map(|(ifindex, side)| (*ifindex, raised(side.entry))));
        }
        let mut readdressed = Vec::new();
        for workload in workloads {
            let Some(port) = state.ports.get(&workload.id) else { continue };
            let entry = self.entry(state, workload, *port, desired, state.compiled.policy(&workload.subject()));
            let present = state.placed.entry(port.ifindex);
            if present != Some(&entry) || matches!(anew, Anew::All) {
                entries.insert(port.ifindex, raised(entry));
            }
            readdressed.push((port.ifindex, workload));
        }
        let written = self.tables.switch_all(&entries);
        state.placed.lost |= written.is_err();
        written?;
        for (ifindex, entry) in entries {
            let side = state.placed.by_port.entry(ifindex).or_insert(Side { entry, addresses: None });
            side.entry = entry;
        }
        // Addresses come after the entries: until they are there, everything that a workload sends counts as spoofed.
        readdressed.into_iter().try_for_each(|(ifindex, workload)| self.readdress(state, ifindex, workload))
    }

    /// Closes a new host side, or opens it as far as the policies of its subject are known.
    pub(super) fn place(
        &self,
        state: &mut State,
        workload: &Workload,
        port: Port,
        policy: Option<PolicyRef>,
    ) -> Result<(), TableError> {
        self.look_again(state)?;
        let entry = raised(self.entry(state, workload, port, &state.desired, policy));
        let written = self.tables.switch(port.ifindex, &entry);
        state.placed.lost |= written.is_err();
        written?;
        state.placed.by_port.entry(port.ifindex).or_insert(Side { entry, addresses: None }).entry = entry;
        self.readdress(state, port.ifindex, workload)
    }

    /// Makes the tables have exactly these workloads' addresses, whatever they had.
    pub(super) fn readdress_all(&self, state: &mut State, desired: &Desired) -> Result<(), TableError> {
        let mut sides = Vec::new();
        for workload in desired.workloads.values() {
            let Some(port) = state.ports.get(&workload.id) else { continue };
            let Some(entry) = state.placed.entry(port.ifindex) else { continue };
            sides.push(PortAddresses { ifindex: port.ifindex, entry: *entry, addresses: &workload.addresses });
        }
        let written = self.tables.set_addresses(&sides);
        state.placed.lost |= written.is_err();
        written?;
        for PortAddresses { ifindex, entry, addresses } in sides {
            if let Some(side) = state.placed.by_port.get_mut(&ifindex) {
                side.addresses = Some((entry, addresses.to_vec()));
            }
        }
        Ok(())
    }

    fn readdress(&self, state: &mut State, ifindex: u32, workload: &Workload) -> Result<(), TableError> {
        let Some(side) = state.placed.by_port.get_mut(&ifindex) else { return Ok(()) };
        let now = PortAddresses { ifindex, entry: side.entry, addresses: &workload.addresses };
        let said = |entry: &WorkloadEntry| (entry.id, entry.mac, entry.gateway_mac, entry.bridge.is_some());
        let former = side.addresses.as_ref();
        if former.is_some_and(|(entry, own)| said(entry) == said(&side.entry) && *own == workload.addresses) {
            return Ok(());
        }
        let former = former.map(|(entry, addresses)| PortAddresses { ifindex, entry: *entry, addresses });
        let written = self.tables.move_addresses(former, &now);
        state.placed.lost |= written.is_err();
        written?;
        side.addresses = Some((side.entry, workload.addresses.clone()));
        Ok(())
    }

    /// A workload's entry, with the epoch that its flows have at most.
    fn entry(
        &self,
        state: &State,
        workload: &Workload,
        port: Port,
        desired: &Desired,
        policy: Option<PolicyRef>,
    ) -> WorkloadEntry {
        let network = desired.resources.network(&workload.network);
        let namespace = desired.resources.namespace(&workload.namespace);
        WorkloadEntry {
            id: workload.id,
            network: network_number(&workload.network),
            epoch: state.placed.latest_epoch(workload.id, port.ifindex),
            generation: policy.map_or(0, |policy| policy.generation),
            egress_policy: policy.map_or(PolicyId(0), |policy| policy.egress),
            ingress_policy: policy.map_or(PolicyId(0), |policy| policy.ingress),
            sealed: policy.is_none(),
            external: network.is_some_and(|network| network.gateway == Gateway::External),
            open: policy.is_some_and(|policy| policy.open),
            probes: policy.is_some_and(|policy| policy.probes),
            rejects: namespace.is_some_and(|namespace| namespace.on_deny == OnDeny::Reject),
            flow_quota: self.flow_quota,
            mac: workload.mac,
            gateway_mac: port.bridge_mac,
            bridge: network.and_then(super::uplink::bridge_of),
            masqueraded: network.is_some_and(|network| network.snat.translates()),
        }
    }
}

fn raised(entry: WorkloadEntry) -> WorkloadEntry {
    WorkloadEntry { epoch: entry.epoch.wrapping_add(1), ..entry }
}
