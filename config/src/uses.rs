//! Which policies name which address sets.

use crate::resource::{AddressSet, AllowRule, CidrRule, DenyRule, Kind, Resource, ResourceKey, SetName};
use crate::set::Resources;

/// A rule names a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetUse<'a> {
    /// The policy.
    pub policy: ResourceKey,
    /// Where in it, as `spec.deny[0].sets[1]`.
    pub path: String,
    /// As it is written there.
    pub written: &'a SetName,
    /// The set that is meant.
    pub set: ResourceKey,
}

/// Every use, by policy. Other kinds, of which there may be thousands, are not looked at.
pub fn set_uses(resources: &Resources) -> impl Iterator<Item = SetUse<'_>> {
    let with_rules =
        [Kind::ClusterEgressPolicy, Kind::EgressPolicy].into_iter().flat_map(|kind| resources.of_kind(kind));
    with_rules.flat_map(|resource| lists(resource).into_iter().map(move |list| (resource, list))).flat_map(
        |(resource, (list, rules))| {
            let rules = (0usize..).zip(rules).filter_map(|(index, rule)| Some((index, rule?)));
            let named = rules.filter(|(_, rule)| !rule.sets.is_empty());
            named.flat_map(move |(index, rule)| {
                let policy = resource.key();
                rule.sets.iter().enumerate().map(move |(place, written)| SetUse {
                    path: format!("spec.{list}[{index}].sets[{place}]"),
                    set: AddressSet::key(policy.namespace.as_ref(), written),
                    policy: policy.clone(),
                    written,
                })
            })
        },
    )
}

/// The lists of rules of a policy; a rule by name is `None`.
fn lists(resource: &Resource) -> Vec<(&'static str, Vec<Option<&CidrRule>>)> {
    match resource {
        Resource::ClusterEgressPolicy(policy) => vec![
            ("deny", policy.deny.iter().map(of_deny).collect()),
            ("allow", policy.allow.iter().map(of_allow).collect()),
            ("pass", policy.pass.iter().map(Some).collect()),
        ],
        Resource::EgressPolicy(policy) => vec![
            ("deny", policy.deny.iter().map(of_deny).collect()),
            ("allow", policy.allow.iter().map(of_allow).collect()),
        ],
        Resource::Network(_)
        | Resource::Namespace(_)
        | Resource::AddressSet(_)
        | Resource::NetworkPolicy(_)
        | Resource::ExposedApp(_) => Vec::new(),
    }
}

fn of_allow(rule: &AllowRule) -> Option<&CidrRule> {
    match rule {
        AllowRule::Cidrs(rule) => Some(rule),
        AllowRule::Resolve(_) | AllowRule::Names(_) => None,
    }
}

fn of_deny(rule: &DenyRule) -> Option<&CidrRule> {
    match rule {
        DenyRule::Cidrs(rule) => Some(rule),
        DenyRule::Names(_) => None,
    }
}
