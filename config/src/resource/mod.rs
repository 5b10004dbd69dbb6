//! The resources, as validated values.
//!
//! One file a kind: `network`, `namespace`, `address_set`, `cluster_egress_policy`, `egress_policy`, `network_policy`,
//! `exposed_app`. `key` names kinds and resources, `labels` holds what selectors compare, `json` writes a resource back in
//! its Kubernetes form. Text becomes a resource in `decode`, and only there.

mod address_set;
mod cluster_egress_policy;
mod egress_policy;
mod exposed_app;
mod json;
mod key;
mod labels;
mod namespace;
mod network;
mod network_policy;

pub use address_set::{AddressSet, SetName, SetSource};
pub use cluster_egress_policy::ClusterEgressPolicy;
pub use egress_policy::{
    AllowRule, CidrRule, DeniedNames, DenyRule, EgressPolicy, HTTPS, Mode, NameRule, PortRange, Ports, Protocol, Verify,
};
pub use exposed_app::{Backend, Certificate, ExposedApp, Route, Tls, TlsVersion};
pub use key::{Kind, ResourceKey, Scope};
pub use labels::{Expression, Labels, NAMESPACE_NAME_LABEL, Requirement, Selector, check_label, selects};
pub use namespace::{Default, Namespace, OnDeny};
pub use network::{
    Adopt, DnsVia, Gateway, Network, NetworkDns, OwnAddresses, Reservation, Snat, Subnet, Vlan, VlanProtocol,
    WorkloadTraffic,
};
pub use network_policy::{NamedPort, NetworkPolicy, Peer, PeerPort, PeerRule, PolicyTypes, PortName};

/// The group and version of every resource of our own, see [`Kind::api_version`].
pub const API_VERSION: &str = "tidegate.dev/v1alpha1";

/// One resource, whatever its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    /// `kind: Network`
    Network(Network),
    /// `kind: Namespace`
    Namespace(Namespace),
    /// `kind: AddressSet`
    AddressSet(AddressSet),
    /// `kind: ClusterEgressPolicy`
    ClusterEgressPolicy(ClusterEgressPolicy),
    /// `kind: EgressPolicy`
    EgressPolicy(EgressPolicy),
    /// `kind: NetworkPolicy`
    NetworkPolicy(NetworkPolicy),
    /// `kind: ExposedApp`
    ExposedApp(ExposedApp),
}

impl Resource {
    /// What it is called.
    pub fn key(&self) -> ResourceKey {
        let (namespace, name) = match self {
            Self::Network(network) => (None, &network.name),
            Self::Namespace(namespace) => (None, &namespace.name),
            Self::AddressSet(set) => (set.namespace.as_ref(), &set.name),
            Self::ClusterEgressPolicy(policy) => (None, &policy.name),
            Self::EgressPolicy(policy) => (Some(&policy.namespace), &policy.name),
            Self::NetworkPolicy(policy) => (Some(&policy.namespace), &policy.name),
            Self::ExposedApp(app) => (Some(&app.namespace), &app.name),
        };
        ResourceKey { kind: self.kind(), namespace: namespace.cloned(), name: name.clone() }
    }

    /// Its kind.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Network(_) => Kind::Network,
            Self::Namespace(_) => Kind::Namespace,
            Self::AddressSet(_) => Kind::AddressSet,
            Self::ClusterEgressPolicy(_) => Kind::ClusterEgressPolicy,
            Self::EgressPolicy(_) => Kind::EgressPolicy,
            Self::NetworkPolicy(_) => Kind::NetworkPolicy,
            Self::ExposedApp(_) => Kind::ExposedApp,
        }
    }
}

macro_rules! from_kinds {
    ($($kind:ident),*) => {$(
        impl From<$kind> for Resource {
            fn from(resource: $kind) -> Self {
                Self::$kind(resource)
            }
        }
    )*};
}
from_kinds!(Network, Namespace, AddressSet, ClusterEgressPolicy, EgressPolicy, NetworkPolicy, ExposedApp);
