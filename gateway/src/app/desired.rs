//! What the node should be: resources and attached workloads. A value; a change makes the next one.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use config::api::WorkloadName;
use config::names::Name;
use config::resource::{AddressSet, Gateway, Kind, Network, Resource, ResourceKey, SetSource, Subnet};
use config::{Prefixes, Resources};
use policy::{Model, Node};

use super::enforcement::resident;
use super::leases::Held;
use super::sets::Loaded;
use crate::service::{EDGE_V4, EDGE_V6};
use crate::workload::{Address, Workload};

/// What the node should be. A copy shares what it does not change.
#[derive(Clone, Debug, Default)]
pub(crate) struct Desired {
    /// What was applied.
    pub(crate) resources: Resources,
    /// The prefixes of the address sets that come from files.
    pub(crate) files: BTreeMap<ResourceKey, Loaded>,
    /// What was attached.
    pub(crate) workloads: Arc<BTreeMap<WorkloadName, Arc<Workload>>>,
    /// What was, and has addresses that wait for one of its name.
    pub(crate) held: Held,
}

impl Desired {
    /// The policy crate's view.
    pub(crate) fn model<'a>(&'a self, node: &'a Node) -> Model<'a> {
        self.resources_model(node).with_residents(self.workloads.values().map(|workload| resident(workload)))
    }

    /// The same without workloads: for what a single one of them needs.
    pub(crate) fn resources_model<'a>(&'a self, node: &'a Node) -> Model<'a> {
        let resources = &self.resources;
        Model::new(resources.namespaces(), resources.networks(), resources.policies(), resources.apps(), node)
            .with_cluster_policies(resources.cluster_policies())
            .with_network_policies(resources.network_policies())
            .with_sets(resources.address_sets().map(|set| (set_key(set), self.prefixes(set))))
    }

    /// Whether nothing is different in the other state but the prefixes of address sets that are in both.
    pub(crate) fn differs_in_sets_only(&self, other: &Self) -> bool {
        let sets = |desired: &Self| -> Vec<ResourceKey> { desired.resources.address_sets().map(set_key).collect() };
        let other_kind = |resource: &&Resource| !matches!(resource, Resource::AddressSet(_));
        let same_resources = || {
            sets(self) == sets(other)
                && self.resources.iter().filter(other_kind).eq(other.resources.iter().filter(other_kind))
        };
        self.workloads == other.workloads && same_resources()
    }

    /// What is in force of an address set.
    pub(crate) fn prefixes<'a>(&'a self, set: &'a AddressSet) -> &'a Prefixes {
        static NONE: LazyLock<Prefixes> = LazyLock::new(Prefixes::new);
        match &set.source {
            SetSource::Cidrs(prefixes) => prefixes,
            SetSource::File(_) => self.files.get(&set_key(set)).map_or(&NONE, |loaded| &loaded.prefixes),
        }
    }

    /// Gives a set that is there these prefixes, wherever it has them from.
    pub(crate) fn set_prefixes(&mut self, key: &ResourceKey, prefixes: Prefixes) {
        let Some(Resource::AddressSet(set)) = self.resources.get(key) else { return };
        match &set.source {
            SetSource::Cidrs(_) => {
                let changed = AddressSet { source: SetSource::Cidrs(prefixes), ..set.clone() };
                self.resources.insert(changed);
            }
            SetSource::File(_) => {
                let own = self.files.entry(key.clone());
                own.or_insert(Loaded { prefixes: Prefixes::new(), stamp: None, at: None }).prefixes = prefixes;
            }
        }
    }

    /// Workloads of a network.
    pub(crate) fn workloads_on<'a>(&'a self, network: &'a Name) -> impl Iterator<Item = &'a Workload> {
        self.workloads.values().map(|workload| &**workload).filter(move |workload| workload.network == *network)
    }

    /// The workload that a packet of `from` to this address reaches on this node: one of its own network, or one of any
    /// network that this node routes for (their subnets do not overlap).
    pub(crate) fn workload_at<'a>(&'a self, from: &'a Workload, address: IpAddr) -> Option<&'a Workload> {
        let has = |workload: &&Workload| workload.addresses.iter().any(|own| own.address == address);
        let own = self.workloads_on(&from.network).find(has);
        let routed = |name: &Name| self.resources.network(name).is_some_and(|n| n.gateway == Gateway::Node);
        own.or_else(|| {
            let all = self.workloads.values().map(|workload| &**workload);
            all.filter(|w| routed(&from.network) && routed(&w.network)).find(has)
        })
    }

    /// Where the edge reaches a workload, and from which address: IPv4 where it has one. `None` without a network.
    pub(crate) fn way_to(&self, workload: &Workload) -> Option<(IpAddr, IpAddr)> {
        let network = self.resources.network(&workload.network)?;
        let routable = |a: &&Address| !matches!(a.address, IpAddr::V6(v6) if v6.is_unicast_link_local());
        let address = workload.addresses.iter().filter(routable).min_by_key(|a| a.address.is_ipv6())?;
        Some((edge_source(network, address.address)?, address.handle))
    }
}

/// What a set is called.
pub(crate) fn set_key(set: &AddressSet) -> ResourceKey {
    ResourceKey { kind: Kind::AddressSet, namespace: set.namespace.clone(), name: set.name.clone() }
}

/// What a workload sees edge connections come from: its gateway, or the fixed address where a router of the VLAN has
/// the gateway's.
fn edge_source(network: &Network, address: IpAddr) -> Option<IpAddr> {
    match network.gateway {
        Gateway::External if address.is_ipv4() => Some(EDGE_V4.into()),
        Gateway::External => Some(EDGE_V6.into()),
        Gateway::Node => subnet_of(network, address)?.gateway,
    }
}

fn subnet_of(network: &Network, address: IpAddr) -> Option<&Subnet> {
    network.subnets.iter().find(|subnet| subnet.cidr.contains(address))
}
