//! Desired state as `netctl get` shows it: Kubernetes-shaped JSON, each resource with its `status`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use config::Prefixes;
use config::api::{self, Kind, ResourceName, ResourceQuery, Timestamp};
use config::names::Name;
use config::resource::{self, AddressSet, Adopt, ExposedApp, Network, Resource, SetSource, selects};
use serde_json::{Value, json};

use super::desired::{Desired, set_key};
use crate::edge::AppStatus;
use crate::segmentation::ipam;
use crate::store::Contents;
use crate::workload::{Workload, WorkloadId};

/// What resources are shown with.
pub(crate) struct View<'a> {
    pub(crate) desired: &'a Desired,
    pub(crate) contents: &'a Contents,
    /// Links that are not as they should be, by `network/NAME` or `workload/NAMESPACE/NAME`, with the reason.
    pub(crate) broken: &'a BTreeMap<String, String>,
    /// Who is heard on networks' VLANs.
    pub(crate) segments: &'a BTreeMap<Name, api::Segment>,
    pub(crate) apps: &'a [AppStatus],
    /// Open flows of a workload.
    pub(crate) flows: &'a dyn Fn(WorkloadId) -> u64,
}

impl View<'_> {
    /// The resources that the query means, ordered by namespace and name.
    pub(crate) fn list(&self, query: &ResourceQuery) -> Vec<(ResourceName, Value)> {
        let meant = |name: &ResourceName| {
            name.kind == query.kind
                && query.namespace.as_ref().is_none_or(|ns| name.namespace.as_ref() == Some(ns))
                && query.name.as_ref().is_none_or(|own| name.name == *own)
        };
        let resources = self.desired.resources.iter().map(|resource| (ResourceName::from(resource.key()), resource));
        let resources = resources.filter(|(name, _)| meant(name));
        let resources = resources.map(|(name, resource)| {
            let shown = self.resource(&name, resource, query.brief);
            (name, shown)
        });
        let workloads = self.desired.workloads.values().map(|workload| (workload_name(workload), workload));
        let workloads = workloads.filter(|(name, _)| meant(name));
        resources.chain(workloads.map(|(name, workload)| (name, self.workload(workload)))).collect()
    }

    fn resource(&self, name: &ResourceName, resource: &Resource, brief: bool) -> Value {
        let mut shown = match resource {
            Resource::AddressSet(set) if brief => briefly(set),
            _ => resource.to_json(),
        };
        if let Some(kept) = self.contents.resources.get(name) {
            shown["metadata"]["creationTimestamp"] = json!(kept.created);
        }
        shown["status"] = match resource {
            Resource::Network(network) => self.network(network),
            Resource::Namespace(namespace) => {
                let workloads = self.desired.workloads.values().filter(|w| w.namespace == namespace.name).count();
                json!({ "workloads": workloads, "ready": true })
            }
            Resource::AddressSet(set) => self.address_set(set),
            Resource::ClusterEgressPolicy(policy) => {
                let selected = self.desired.workloads.values().filter(|w| {
                    let namespace = self.desired.resources.namespace(&w.namespace);
                    namespace.is_some_and(|namespace| policy.selects(namespace, &w.labels))
                });
                json!({ "workloads": selected.count(), "ready": true })
            }
            Resource::EgressPolicy(policy) => {
                let own = self.desired.workloads.values().filter(|w| w.namespace == policy.namespace);
                json!({ "workloads": own.filter(|w| selects(&policy.selector, &w.labels)).count(), "ready": true })
            }
            Resource::NetworkPolicy(policy) => {
                let own = self.desired.workloads.values().filter(|w| w.namespace == policy.namespace);
                json!({ "workloads": own.filter(|w| selects(&policy.selector, &w.labels)).count(), "ready": true })
            }
            Resource::ExposedApp(app) => self.app(app),
        };
        shown
    }

    fn network(&self, network: &Network) -> Value {
        let (used, total) = usage(self.desired, network);
        let broken = self.broken.get(&format!("network/{}", network.name));
        let mut shown = json!({
            "bridge": match &network.adopt {
                None => Some(crate::segmentation::names::bridge(&network.name)),
                Some(Adopt::Bridge(bridge)) => Some(bridge.clone()),
                Some(Adopt::CniNetwork(_)) => None,
            },
            "used": used,
            "total": total,
            "held": self.desired.held.values().filter(|held| held.network == network.name).count(),
            "workloads": self.desired.workloads_on(&network.name).count(),
            "ready": broken.is_none(),
        });
        if let Some(segment) = self.segments.get(&network.name) {
            shown["segment"] = json!(segment);
        }
        with_message(shown, broken)
    }

    fn address_set(&self, set: &AddressSet) -> Value {
        let key = set_key(set);
        let users = config::set_uses(&self.desired.resources).filter(|own| own.set == key);
        let users: BTreeSet<String> = users.map(|own| ResourceName::from(own.policy).to_string()).collect();
        let broken = self.broken.get(&ResourceName::from(key.clone()).to_string());
        let mut shown = json!({
            "prefixes": self.desired.prefixes(set).len(),
            "policies": users,
            "ready": broken.is_none(),
        });
        if let Some(at) = self.desired.files.get(&key).and_then(|loaded| loaded.at) {
            shown["loaded"] = json!(at);
        }
        with_message(shown, broken)
    }

    fn app(&self, app: &ExposedApp) -> Value {
        let label = format!("{}/{}", app.namespace, app.name);
        let Some(status) = self.apps.iter().find(|status| status.app == label) else {
            return json!({ "backends": 0, "readyBackends": 0, "ready": false, "message": "not served yet" });
        };
        let problem = status.problems.first();
        let mut shown = json!({
            "backends": status.endpoints.len(),
            "readyBackends": status.endpoints.iter().filter(|endpoint| !endpoint.set_aside).count(),
            "ready": problem.is_none(),
        });
        if let Some(certificate) = &status.certificate {
            shown["certificateExpires"] = json!(timestamp(certificate.not_after));
        }
        with_message(shown, problem)
    }

    /// An attached workload.
    pub(crate) fn workload(&self, workload: &Workload) -> Value {
        serde_json::to_value(self.attached(workload)).unwrap_or_default()
    }

    /// The same, as the API's own type.
    pub(crate) fn attached(&self, workload: &Workload) -> api::Workload {
        let broken = self.broken.get(&format!("workload/{}/{}", workload.namespace, workload.name));
        let resources = &self.desired.resources;
        let selecting = resources.policies_selecting(&workload.namespace, &workload.labels);
        let admin = resources.cluster_policies_selecting(&workload.namespace, &workload.labels);
        let isolating = resources.network_policies_selecting(&workload.namespace, &workload.labels);
        api::Workload {
            api_version: resource::API_VERSION.to_owned(),
            kind: Kind::Workload,
            metadata: api::WorkloadMetadata {
                namespace: workload.namespace.clone(),
                name: workload.name.clone(),
                labels: workload.labels.clone(),
                creation_timestamp: self.contents.workloads.get(&workload.id).map(|kept| kept.created),
            },
            spec: api::WorkloadSpec {
                netns: workload.netns.clone(),
                interface: workload.guest_interface.clone(),
                ports: workload.ports.iter().cloned().collect(),
                cni: workload.cni.clone(),
                adopted: workload.adopted,
            },
            status: api::WorkloadStatus {
                id: workload.id.0,
                network: workload.network.clone(),
                addresses: routable(workload).collect(),
                mac: workload.mac.to_string(),
                host_interface: workload.host_interface.clone(),
                ready: broken.is_none(),
                message: broken.cloned().unwrap_or_default(),
                policies: selecting.map(|policy| policy.name.clone()).collect(),
                cluster_policies: admin.map(|policy| policy.name.clone()).collect(),
                network_policies: isolating.map(|policy| policy.name.clone()).collect(),
                flows: (self.flows)(workload.id),
            },
        }
    }
}

/// Addresses leased and addresses there are: of the IPv4 ranges, or of the IPv6 ones where there is no IPv4. Of a network that
/// others made, the workloads, and none.
pub(crate) fn usage(desired: &Desired, network: &Network) -> (u64, u64) {
    if network.adopt.is_some() {
        return (desired.workloads_on(&network.name).count() as u64, 0);
    }
    let v4 = network.subnets.iter().any(|subnet| subnet.cidr.is_ipv4());
    let used = desired.workloads_on(&network.name).flat_map(routable).filter(|address| address.is_ipv4() == v4).count();
    (used as u64, u64::try_from(ipam::total(network, v4)).unwrap_or(u64::MAX))
}

fn routable(workload: &Workload) -> impl Iterator<Item = IpAddr> {
    workload.addresses.iter().map(|own| own.address).filter(|address| !crate::workload::is_link_local(*address))
}

/// A set without the prefixes that it lists.
fn briefly(set: &AddressSet) -> Value {
    match &set.source {
        SetSource::Cidrs(_) => {
            let without = AddressSet { source: SetSource::Cidrs(Prefixes::new()), ..set.clone() };
            let mut shown = Resource::from(without).to_json();
            shown["spec"] = json!({});
            shown
        }
        SetSource::File(_) => Resource::from(set.clone()).to_json(),
    }
}

fn workload_name(workload: &Workload) -> ResourceName {
    ResourceName { kind: Kind::Workload, namespace: Some(workload.namespace.clone()), name: workload.name.clone() }
}

fn with_message(mut status: Value, message: Option<&String>) -> Value {
    if let Some(message) = message {
        status["message"] = json!(message);
    }
    status
}

/// Of seconds since 1970.
pub(crate) fn timestamp(seconds: i64) -> Timestamp {
    Timestamp::from_millis(u64::try_from(seconds).unwrap_or(0).saturating_mul(1_000))
}
