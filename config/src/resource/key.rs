//! Kinds and resources, and every word for them. Those who type such words are read in [`api::kind`](crate::api::kind).

use std::fmt;

use serde::{Deserialize, Serialize};

use super::API_VERSION;
use crate::names::Name;

/// A kind of resource, in the order in which they build on each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// A tenant's segment.
    Network,
    /// A tenant's workloads.
    Namespace,
    /// Prefixes that rules name together.
    AddressSet,
    /// What no namespace decides for itself.
    ClusterEgressPolicy,
    /// What workloads may reach.
    EgressPolicy,
    /// What may reach workloads, and what they may reach, as Kubernetes says it.
    NetworkPolicy,
    /// What the edge serves.
    ExposedApp,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::Network,
        Self::Namespace,
        Self::AddressSet,
        Self::ClusterEgressPolicy,
        Self::EgressPolicy,
        Self::NetworkPolicy,
        Self::ExposedApp,
    ];

    /// As `apiVersion:` has it.
    pub const fn api_version(self) -> &'static str {
        match self {
            Self::Network
            | Self::Namespace
            | Self::AddressSet
            | Self::ClusterEgressPolicy
            | Self::EgressPolicy
            | Self::ExposedApp => API_VERSION,
            Self::NetworkPolicy => "networking.k8s.io/v1",
        }
    }

    /// As `kind:` has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Network => "Network",
            Self::Namespace => "Namespace",
            Self::AddressSet => "AddressSet",
            Self::ClusterEgressPolicy => "ClusterEgressPolicy",
            Self::EgressPolicy => "EgressPolicy",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::ExposedApp => "ExposedApp",
        }
    }

    /// `egresspolicy`
    pub const fn singular(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Namespace => "namespace",
            Self::AddressSet => "addressset",
            Self::ClusterEgressPolicy => "clusteregresspolicy",
            Self::EgressPolicy => "egresspolicy",
            Self::NetworkPolicy => "networkpolicy",
            Self::ExposedApp => "exposedapp",
        }
    }

    /// `egresspolicies`
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Network => "networks",
            Self::Namespace => "namespaces",
            Self::AddressSet => "addresssets",
            Self::ClusterEgressPolicy => "clusteregresspolicies",
            Self::EgressPolicy => "egresspolicies",
            Self::NetworkPolicy => "networkpolicies",
            Self::ExposedApp => "exposedapps",
        }
    }

    /// `egp`
    pub const fn short(self) -> &'static str {
        match self {
            Self::Network => "net",
            Self::Namespace => "ns",
            Self::AddressSet => "aset",
            Self::ClusterEgressPolicy => "cegp",
            Self::EgressPolicy => "egp",
            Self::NetworkPolicy => "netpol",
            Self::ExposedApp => "app",
        }
    }

    /// Where its resources lie.
    pub const fn scope(self) -> Scope {
        match self {
            Self::Network | Self::Namespace | Self::ClusterEgressPolicy => Scope::Node,
            Self::AddressSet => Scope::Either,
            Self::EgressPolicy | Self::NetworkPolicy | Self::ExposedApp => Scope::Namespace,
        }
    }
}

/// Where the resources of a kind lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// In no namespace.
    Node,
    /// In a namespace.
    Namespace,
    /// In a namespace, or in none: then they are the administrators'.
    Either,
}

impl Scope {
    /// Whether a resource of the kind may lie in a namespace.
    pub const fn has_namespaces(self) -> bool {
        match self {
            Self::Node => false,
            Self::Namespace | Self::Either => true,
        }
    }

    /// Whether a resource of the kind may lie in none.
    pub const fn has_node_wide(self) -> bool {
        match self {
            Self::Node | Self::Either => true,
            Self::Namespace => false,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a resource is called, in the order in which resources build on each other. As text `network/tenant-a` or
/// `egresspolicy/shop/shop-egress`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceKey {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace, for kinds that have one.
    pub namespace: Option<Name>,
    /// Its name.
    pub name: Name,
}

impl ResourceKey {
    /// Of a [`Network`](super::Network).
    pub const fn network(name: Name) -> Self {
        Self { kind: Kind::Network, namespace: None, name }
    }

    /// Of a [`Namespace`](super::Namespace).
    pub const fn namespace(name: Name) -> Self {
        Self { kind: Kind::Namespace, namespace: None, name }
    }
}

impl fmt::Display for ResourceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{}/{namespace}/{}", self.kind.singular(), self.name),
            None => write!(f, "{}/{}", self.kind.singular(), self.name),
        }
    }
}
