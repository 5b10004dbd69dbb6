//! `kind: AddressSet`: prefixes that rules name together, as feeds bring them.

use std::fmt;

use crate::names::Name;
use crate::prefixes::Prefixes;
use crate::resource::{Kind, ResourceKey};

/// `kind: AddressSet`. In a namespace it is that namespace's own; without one it is the administrators', whose policies
/// and those of every namespace may use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressSet {
    /// Namespace; `None` for one of the administrators'.
    pub namespace: Option<Name>,
    /// Name.
    pub name: Name,
    /// Where its prefixes come from.
    pub source: SetSource,
}

/// `spec` of an [`AddressSet`]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetSource {
    /// `cidrs`
    Cidrs(Prefixes),
    /// `file`, below the namespace's folder of `files_dir`, or below `_admin` without one; see [`feed`](crate::feed).
    File(String),
}

/// One of a rule's `sets`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SetName {
    /// `feed`: of the policy's namespace; in a ClusterEgressPolicy one of the administrators'.
    Own(Name),
    /// `_admin/feed`: one of the administrators', whoever names it.
    Admin(Name),
}

impl AddressSet {
    /// Of the set that a policy of this namespace means; `None` for the policies of the administrators.
    pub fn key(namespace: Option<&Name>, meant: &SetName) -> ResourceKey {
        let (namespace, name) = match meant {
            SetName::Own(name) => (namespace.cloned(), name.clone()),
            SetName::Admin(name) => (None, name.clone()),
        };
        ResourceKey { kind: Kind::AddressSet, namespace, name }
    }
}

impl SetName {
    /// The folder and prefix of the administrators: no namespace is called so.
    pub const ADMIN: &'static str = "_admin";

    /// The name alone.
    pub const fn name(&self) -> &Name {
        match self {
            Self::Own(name) | Self::Admin(name) => name,
        }
    }
}

impl fmt::Display for SetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(name) => write!(f, "{name}"),
            Self::Admin(name) => write!(f, "{}/{name}", Self::ADMIN),
        }
    }
}
