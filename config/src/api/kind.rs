//! Kinds and resource names as the API has them: [`resource::Kind`] and one more, the workload, which is listed and never
//! applied. Conversions between the two are here, and so is the reading of what people type.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::names::{Name, NameError};
use crate::resource::{self, ResourceKey, Scope, SetName};
use crate::wording::{closest, one_of, quoted, wrong};

/// What the admin API can list. Written as in manifests (`EgressPolicy`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// A tenant's layer-2 segment.
    Network,
    /// A tenant's group of workloads.
    Namespace,
    /// Prefixes that rules name together.
    AddressSet,
    /// What no namespace decides for itself.
    ClusterEgressPolicy,
    /// What workloads may reach.
    EgressPolicy,
    /// The same and what may reach them, as Kubernetes says it.
    NetworkPolicy,
    /// What is served by the edge.
    ExposedApp,
    /// Made by attaching, never applied.
    Workload,
}

impl Kind {
    /// All kinds, in the order of `netctl get all`.
    pub const ALL: [Self; 8] = [
        Self::Network,
        Self::Namespace,
        Self::AddressSet,
        Self::ClusterEgressPolicy,
        Self::EgressPolicy,
        Self::NetworkPolicy,
        Self::ExposedApp,
        Self::Workload,
    ];

    /// The kind of resource; `None` for workloads.
    pub const fn of_resource(self) -> Option<resource::Kind> {
        match self {
            Self::Network => Some(resource::Kind::Network),
            Self::Namespace => Some(resource::Kind::Namespace),
            Self::AddressSet => Some(resource::Kind::AddressSet),
            Self::ClusterEgressPolicy => Some(resource::Kind::ClusterEgressPolicy),
            Self::EgressPolicy => Some(resource::Kind::EgressPolicy),
            Self::NetworkPolicy => Some(resource::Kind::NetworkPolicy),
            Self::ExposedApp => Some(resource::Kind::ExposedApp),
            Self::Workload => None,
        }
    }

    /// As in manifests.
    pub const fn as_str(self) -> &'static str {
        match self.of_resource() {
            Some(kind) => kind.as_str(),
            None => "Workload",
        }
    }

    /// The word in `egresspolicy/shop/shop-egress` and in the API's paths.
    pub const fn singular(self) -> &'static str {
        match self.of_resource() {
            Some(kind) => kind.singular(),
            None => "workload",
        }
    }

    /// The plural, as kubectl writes it.
    pub const fn plural(self) -> &'static str {
        match self.of_resource() {
            Some(kind) => kind.plural(),
            None => "workloads",
        }
    }

    /// The short name.
    pub const fn short(self) -> &'static str {
        match self.of_resource() {
            Some(kind) => kind.short(),
            None => "wl",
        }
    }

    const fn words(self) -> [&'static str; 3] {
        [self.plural(), self.singular(), self.short()]
    }

    /// Where resources of the kind stand.
    pub const fn scope(self) -> Scope {
        match self.of_resource() {
            Some(kind) => kind.scope(),
            None => Scope::Namespace,
        }
    }

    /// Whether resources of the kind may stand in a namespace.
    pub const fn is_namespaced(self) -> bool {
        self.scope().has_namespaces()
    }
}

impl From<resource::Kind> for Kind {
    fn from(kind: resource::Kind) -> Self {
        match kind {
            resource::Kind::Network => Self::Network,
            resource::Kind::Namespace => Self::Namespace,
            resource::Kind::AddressSet => Self::AddressSet,
            resource::Kind::ClusterEgressPolicy => Self::ClusterEgressPolicy,
            resource::Kind::EgressPolicy => Self::EgressPolicy,
            resource::Kind::NetworkPolicy => Self::NetworkPolicy,
            resource::Kind::ExposedApp => Self::ExposedApp,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.singular())
    }
}

impl FromStr for Kind {
    type Err = NameError;

    /// Singular, plural or short name, in any case.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let lower = text.to_ascii_lowercase();
        if let Some(kind) = Self::ALL.into_iter().find(|kind| kind.words().contains(&lower.as_str())) {
            return Ok(kind);
        }
        let mend = match closest(&lower, Self::ALL.iter().flat_map(|kind| kind.words())) {
            Some(close) => format!("did you mean `{close}`?"),
            None => format!("use {}", one_of(&Self::ALL.map(Self::plural))),
        };
        Err(wrong(format!("{} is no kind", quoted(text)), mend))
    }
}

/// A resource by its name: `network/tenant-a`, `egresspolicy/shop/shop-egress`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResourceName {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; `None` for node-wide kinds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Name>,
    /// Its name.
    pub name: Name,
}

impl From<ResourceKey> for ResourceName {
    fn from(ResourceKey { kind, namespace, name }: ResourceKey) -> Self {
        Self { kind: kind.into(), namespace, name }
    }
}

impl TryFrom<ResourceName> for ResourceKey {
    type Error = NameError;

    /// Fails for workloads, and where a namespace is missing or too much.
    fn try_from(resource: ResourceName) -> Result<Self, NameError> {
        let Some(kind) = resource.kind.of_resource() else {
            let mend = "workloads are made by `netctl attach` and end by `netctl detach`";
            return Err(wrong(format!("`{resource}` is no resource of a manifest"), mend));
        };
        match (kind.scope(), &resource.namespace) {
            (Scope::Namespace | Scope::Either, Some(_)) | (Scope::Node | Scope::Either, None) => {
                Ok(Self { kind, namespace: resource.namespace, name: resource.name })
            }
            (Scope::Namespace, None) => {
                Err(wrong(format!("`{resource}` is not complete"), format!("write {}/NAMESPACE/NAME", kind.singular())))
            }
            (Scope::Node, Some(_)) => Err(no_namespace(&resource.to_string(), resource.kind)),
        }
    }
}

impl fmt::Display for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{}/{namespace}/{}", self.kind, self.name),
            None => write!(f, "{}/{}", self.kind, self.name),
        }
    }
}

impl FromStr for ResourceName {
    type Err = NameError;

    /// `KIND/NAME`, or `KIND/NAMESPACE/NAME` for a kind that stands in a namespace; `_admin` as the namespace of an
    /// address set is none.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let mut parts = text.splitn(3, '/');
        let kind: Kind = parts.next().unwrap_or_default().parse()?;
        match (parts.next(), parts.next()) {
            (Some(name), None) => Ok(Self { kind, namespace: None, name: name.parse()? }),
            (Some(SetName::ADMIN), Some(name)) if kind.scope() == Scope::Either => {
                Ok(Self { kind, namespace: None, name: name.parse()? })
            }
            (Some(namespace), Some(name)) if kind.is_namespaced() => {
                Ok(Self { kind, namespace: Some(namespace.parse()?), name: name.parse()? })
            }
            (Some(_), Some(_)) => Err(no_namespace(text, kind)),
            (None, _) => Err(wrong(format!("{} has no name", quoted(text)), format!("write {kind}/NAME"))),
        }
    }
}

fn no_namespace(text: &str, kind: Kind) -> NameError {
    wrong(format!("{} names a namespace, and a {kind} has none", quoted(text)), format!("write {kind}/NAME"))
}
