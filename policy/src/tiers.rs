//! Egress policies of both tiers, and their rules in the order in which they are named.

use config::names::{DomainPattern, Name};
use config::resource::{AllowRule, CidrRule, ClusterEgressPolicy, EgressPolicy, Kind, NameRule};

use crate::tables::{RuleList, RuleName};

/// Who speaks first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// The node's administrator: what is denied or allowed here is final.
    Admin,
    /// The namespace.
    Namespace,
}

/// A policy that selects a workload, for what it sends.
#[derive(Clone, Copy, Debug)]
pub enum Policy<'a> {
    /// Of the admin tier.
    Admin(&'a ClusterEgressPolicy),
    /// Of the workload's namespace.
    Namespace(&'a EgressPolicy),
}

/// One rule of a policy.
#[derive(Clone, Copy, Debug)]
pub enum Rule<'a> {
    /// `deny`, by address.
    Deny(&'a CidrRule),
    /// `allow`, by address.
    Allow(&'a CidrRule),
    /// `allow`, by learned name.
    Names(&'a NameRule),
    /// `allow`, for looking up only.
    Resolve(&'a [DomainPattern]),
    /// `pass`: left to the namespace.
    Pass(&'a CidrRule),
}

impl<'a> Policy<'a> {
    /// Its tier.
    pub const fn tier(self) -> Tier {
        match self {
            Self::Admin(_) => Tier::Admin,
            Self::Namespace(_) => Tier::Namespace,
        }
    }

    /// What orders policies: rules are named in this order.
    pub const fn key(self) -> (Tier, Option<&'a Name>, &'a Name) {
        match self {
            Self::Admin(policy) => (Tier::Admin, None, &policy.name),
            Self::Namespace(policy) => (Tier::Namespace, Some(&policy.namespace), &policy.name),
        }
    }

    /// Whether it alone makes a workload isolated. One of the admin tier never does; nor does one with deny rules
    /// alone. One without any rule does: it allows nothing.
    pub fn isolates(self) -> bool {
        match self {
            Self::Admin(_) => false,
            Self::Namespace(policy) => !policy.allow.is_empty() || policy.deny.is_empty(),
        }
    }

    /// Its rules: denies first, then allows, each list as in the file.
    pub fn rules(self) -> impl Iterator<Item = (RuleName, Rule<'a>)> {
        let (deny, allow, pass): (&[_], &[_], &[_]) = match self {
            Self::Admin(policy) => (&policy.deny, &policy.allow, &policy.pass),
            Self::Namespace(policy) => (&policy.deny, &policy.allow, &[]),
        };
        let allows = allow.iter().map(|rule| match rule {
            AllowRule::Resolve(patterns) => Rule::Resolve(patterns),
            AllowRule::Cidrs(rule) => Rule::Allow(rule),
            AllowRule::Names(rule) => Rule::Names(rule),
        });
        let denies = deny.iter().map(Rule::Deny).enumerate().map(|(index, rule)| (RuleList::Deny, index, rule));
        let allows = allows.enumerate().map(|(index, rule)| (RuleList::Allow, index, rule));
        let passes = pass.iter().map(Rule::Pass).enumerate().map(|(index, rule)| (RuleList::Pass, index, rule));
        denies.chain(allows).chain(passes).map(move |(list, index, rule)| (self.rule_name(list, index), rule))
    }

    fn rule_name(self, list: RuleList, index: usize) -> RuleName {
        let (_, namespace, name) = self.key();
        RuleName {
            kind: match self {
                Self::Admin(_) => Kind::ClusterEgressPolicy,
                Self::Namespace(_) => Kind::EgressPolicy,
            },
            namespace: namespace.map(ToString::to_string),
            policy: name.to_string(),
            list,
            index: u32::try_from(index).unwrap_or(u32::MAX),
        }
    }
}
