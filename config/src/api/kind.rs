//! Kinds and resource names, and the words for them on the command line.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::names::{Name, NameError};

/// What the admin API can list. Written as in manifests (`EgressPolicy`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// A tenant's layer-2 segment.
    Network,
    /// A tenant's group of workloads.
    Namespace,
    /// What workloads may reach.
    EgressPolicy,
    /// What is served by the edge.
    ExposedApp,
    /// Made by attaching, never applied.
    Workload,
}

impl Kind {
    /// All kinds, in the order of `netctl get all`.
    pub const ALL: &[Self] = &[Self::Network, Self::Namespace, Self::EgressPolicy, Self::ExposedApp, Self::Workload];

    /// As in manifests.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Network => "Network",
            Self::Namespace => "Namespace",
            Self::EgressPolicy => "EgressPolicy",
            Self::ExposedApp => "ExposedApp",
            Self::Workload => "Workload",
        }
    }

    /// The word in `egresspolicy/shop/shop-egress` and in the API's paths.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Namespace => "namespace",
            Self::EgressPolicy => "egresspolicy",
            Self::ExposedApp => "exposedapp",
            Self::Workload => "workload",
        }
    }

    /// The plural, as kubectl writes it.
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Network => "networks",
            Self::Namespace => "namespaces",
            Self::EgressPolicy => "egresspolicies",
            Self::ExposedApp => "exposedapps",
            Self::Workload => "workloads",
        }
    }

    /// The short name.
    pub const fn short(self) -> &'static str {
        match self {
            Self::Network => "net",
            Self::Namespace => "ns",
            Self::EgressPolicy => "ep",
            Self::ExposedApp => "app",
            Self::Workload => "wl",
        }
    }

    /// Whether resources of the kind stand in a namespace.
    pub const fn namespaced(self) -> bool {
        match self {
            Self::Network | Self::Namespace => false,
            Self::EgressPolicy | Self::ExposedApp | Self::Workload => true,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Kind {
    type Err = NameError;

    /// Singular, plural or short name, in any case.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let lower = text.to_ascii_lowercase();
        let known = |kind: &&Self| lower == kind.word() || lower == kind.plural() || lower == kind.short();
        Self::ALL.iter().find(known).copied().ok_or_else(|| NameError {
            problem: format!("`{text}` is not a kind"),
            mend: format!("use one of {}", Self::ALL.iter().map(|kind| kind.plural()).collect::<Vec<_>>().join(", ")),
        })
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

    /// `KIND/NAME`, or `KIND/NAMESPACE/NAME` for a kind that stands in a namespace.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let mut parts = text.splitn(3, '/');
        let kind: Kind = parts.next().unwrap_or_default().parse()?;
        match (parts.next(), parts.next()) {
            (Some(name), None) => Ok(Self { kind, namespace: None, name: name.parse()? }),
            (Some(namespace), Some(name)) if kind.namespaced() => {
                Ok(Self { kind, namespace: Some(namespace.parse()?), name: name.parse()? })
            }
            (Some(_), Some(_)) => Err(NameError {
                problem: format!("`{text}` names a namespace, and a {kind} has none"),
                mend: format!("write {kind}/NAME"),
            }),
            (None, _) => {
                Err(NameError { problem: format!("`{text}` has no name"), mend: format!("write {kind}/NAME") })
            }
        }
    }
}
