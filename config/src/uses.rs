//! Which policies name which address sets.

use crate::resource::{AddressSet, AllowRule, CidrRule, Resource, ResourceKey, SetName};
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

/// Every use, by policy.
pub fn set_uses(resources: &Resources) -> impl Iterator<Item = SetUse<'_>> {
    resources.iter().flat_map(|resource| {
        let policy = resource.key();
        let lists = lists(resource).into_iter();
        let rules = lists.flat_map(|(list, rules)| (0usize..).zip(rules).map(move |(index, rule)| (list, index, rule)));
        rules.flat_map(move |(list, index, rule)| {
            let policy = policy.clone();
            rule.into_iter().flat_map(|rule| &rule.sets).enumerate().map(move |(place, written)| SetUse {
                path: format!("spec.{list}[{index}].sets[{place}]"),
                set: AddressSet::key(policy.namespace.as_ref(), written),
                policy: policy.clone(),
                written,
            })
        })
    })
}

/// The lists of rules of a policy; a rule by name is `None`.
fn lists(resource: &Resource) -> Vec<(&'static str, Vec<Option<&CidrRule>>)> {
    match resource {
        Resource::ClusterEgressPolicy(policy) => vec![
            ("deny", policy.deny.iter().map(Some).collect()),
            ("allow", policy.allow.iter().map(of_allow).collect()),
            ("pass", policy.pass.iter().map(Some).collect()),
        ],
        Resource::EgressPolicy(policy) => vec![
            ("deny", policy.deny.iter().map(Some).collect()),
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
