//! Kinds and resources as people name them: `egresspolicy/shop/shop-egress`, `networks`, `ns`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::names::{Name, NameError};
use crate::wording::{closest, one_of, quoted, wrong};

/// A kind of resource, in the order in which they build on each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// A tenant's segment.
    Network,
    /// A tenant's workloads.
    Namespace,
    /// What workloads may reach.
    EgressPolicy,
    /// What the edge serves.
    ExposedApp,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Network, Self::Namespace, Self::EgressPolicy, Self::ExposedApp];

    /// As `kind:` has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Network => "Network",
            Self::Namespace => "Namespace",
            Self::EgressPolicy => "EgressPolicy",
            Self::ExposedApp => "ExposedApp",
        }
    }

    /// `egresspolicy`
    pub const fn singular(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Namespace => "namespace",
            Self::EgressPolicy => "egresspolicy",
            Self::ExposedApp => "exposedapp",
        }
    }

    /// `egresspolicies`
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Network => "networks",
            Self::Namespace => "namespaces",
            Self::EgressPolicy => "egresspolicies",
            Self::ExposedApp => "exposedapps",
        }
    }

    /// `egp`
    pub const fn short(self) -> &'static str {
        match self {
            Self::Network => "net",
            Self::Namespace => "ns",
            Self::EgressPolicy => "egp",
            Self::ExposedApp => "app",
        }
    }

    const fn words(self) -> [&'static str; 3] {
        [self.plural(), self.singular(), self.short()]
    }

    /// Whether its resources lie in a namespace.
    pub const fn is_namespaced(self) -> bool {
        match self {
            Self::Network | Self::Namespace => false,
            Self::EgressPolicy | Self::ExposedApp => true,
        }
    }
}

/// A word that names no kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} is no kind; {mend}", quoted(word))]
pub struct UnknownKind {
    /// What was written.
    pub word: String,
    /// What can be.
    pub mend: String,
}

impl FromStr for Kind {
    type Err = UnknownKind;
    /// Takes the plural, singular and short name, in any case.
    fn from_str(word: &str) -> Result<Self, UnknownKind> {
        let lower = word.to_ascii_lowercase();
        if let Some(kind) = Self::ALL.into_iter().find(|kind| kind.words().contains(&lower.as_str())) {
            return Ok(kind);
        }
        let mend = match closest(&lower, Self::ALL.iter().flat_map(|kind| kind.words())) {
            _ if ["workloads", "workload", "wl"].contains(&lower.as_str()) => {
                "workloads are made by `netctl attach` and end by `netctl detach`".to_owned()
            }
            Some(close) => format!("did you mean `{close}`?"),
            None => format!("use {}", one_of(&Self::ALL.map(Self::plural))),
        };
        Err(UnknownKind { word: word.to_owned(), mend })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a resource is called. As text `network/tenant-a` or `egresspolicy/shop/shop-egress`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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

impl FromStr for ResourceKey {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let mut parts = text.split('/');
        let kind: Kind = parts
            .next()
            .unwrap_or_default()
            .parse()
            .map_err(|e: UnknownKind| wrong(format!("{} is no kind", quoted(&e.word)), e.mend))?;
        let names = parts.map(str::parse).collect::<Result<Vec<Name>, _>>()?;
        match (kind.is_namespaced(), <[Name; 2]>::try_from(names)) {
            (true, Ok([namespace, name])) => Ok(Self { kind, namespace: Some(namespace), name }),
            (false, Err(mut names)) if names.len() == 1 => Ok(Self { kind, namespace: None, name: names.remove(0) }),
            (true, _) => Err(wrong(
                format!("{} is not complete", quoted(text)),
                format!("write {}/NAMESPACE/NAME", kind.singular()),
            )),
            (false, _) => {
                Err(wrong(format!("{} names no {kind}", quoted(text)), format!("write {}/NAME", kind.singular())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_named_as_kubectl_users_type_them() {
        for kind in Kind::ALL {
            for word in kind.words().into_iter().chain([kind.as_str()]) {
                assert_eq!(word.parse(), Ok(kind));
                assert_eq!(word.to_uppercase().parse(), Ok(kind));
            }
        }
        let told = |word: &str| word.parse::<Kind>().unwrap_err().to_string();
        assert_eq!(told("netwrok"), "`netwrok` is no kind; did you mean `network`?");
        assert_eq!(told("pods"), "`pods` is no kind; use `networks`, `namespaces`, `egresspolicies` or `exposedapps`");
        assert_eq!(told("wl"), "`wl` is no kind; workloads are made by `netctl attach` and end by `netctl detach`");
    }

    #[test]
    fn keys_read_what_they_write() {
        for text in ["network/tenant-a", "namespace/shop", "egresspolicy/shop/shop-egress", "exposedapp/shop/web"] {
            assert_eq!(text.parse::<ResourceKey>().unwrap().to_string(), text);
        }
        assert_eq!("egp/shop/x".parse::<ResourceKey>().unwrap().to_string(), "egresspolicy/shop/x");
        assert_eq!(
            "egp/x".parse::<ResourceKey>().unwrap_err().to_string(),
            "`egp/x` is not complete; write egresspolicy/NAMESPACE/NAME"
        );
        for text in ["", "network", "network/", "network/a/b", "egp/a/b/c", "app/shop/Web"] {
            assert!(text.parse::<ResourceKey>().is_err(), "{text}");
        }
    }

    #[test]
    fn keys_sort_in_the_order_of_building() {
        let key = |text: &str| text.parse::<ResourceKey>().unwrap();
        assert!(key("network/z") < key("namespace/a"));
        assert!(key("namespace/z") < key("egp/a/a"));
        assert!(key("egp/a/z") < key("egp/b/a"));
    }
}
