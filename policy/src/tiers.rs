//! Egress policies of both tiers, and their rules in the order in which they are named.

use config::names::{DomainPattern, Name};
use config::resource::{
    AllowRule, CidrRule, ClusterEgressPolicy, DeniedNames, DenyRule, EgressPolicy, Kind, Mode, NameRule,
};

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
    /// `deny`, by name.
    DenyNames(&'a DeniedNames),
    /// `allow`, by address.
    Allow(&'a CidrRule),
    /// `allow`, by learned name.
    Names(&'a NameRule),
    /// `allow`, for looking up only.
    Resolve(&'a [DomainPattern]),
    /// `pass`: left to the namespace.
    Pass(&'a CidrRule),
    /// The isolation that an audited policy would cause; no rule of the file.
    Isolation,
}

/// What policies with `mode: Audit` count for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// What is applied: they deny and isolate nothing.
    Applied,
    /// As if they were enforced.
    Strict,
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

    /// Whether what it denies is recorded only.
    pub fn is_audited(self) -> bool {
        let mode = match self {
            Self::Admin(policy) => policy.mode,
            Self::Namespace(policy) => policy.mode,
        };
        mode == Mode::Audit
    }

    /// Whether its denies and its isolation count.
    pub fn counts(self, reading: Reading) -> bool {
        reading == Reading::Strict || !self.is_audited()
    }

    /// Whether it alone makes a workload isolated. One of the admin tier never does; nor does one with deny rules
    /// alone. One without any rule does: it allows nothing.
    pub fn isolates(self) -> bool {
        match self {
            Self::Admin(_) => false,
            Self::Namespace(policy) => !policy.allow.is_empty() || policy.deny.is_empty(),
        }
    }

    /// Its rules: denies first, then allows, each list as in the file; at the end the isolation that is audited.
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
        let denies = deny.iter().map(|rule| match rule {
            DenyRule::Cidrs(rule) => Rule::Deny(rule),
            DenyRule::Names(rule) => Rule::DenyNames(rule),
        });
        let denies = denies.enumerate().map(|(index, rule)| (RuleList::Deny, index, rule));
        let allows = allows.enumerate().map(|(index, rule)| (RuleList::Allow, index, rule));
        let passes = pass.iter().map(Rule::Pass).enumerate().map(|(index, rule)| (RuleList::Pass, index, rule));
        let isolation = (self.is_audited() && self.isolates()).then_some((RuleList::Isolation, 0, Rule::Isolation));
        let rules = denies.chain(allows).chain(passes).chain(isolation);
        rules.map(move |(list, index, rule)| (self.rule_name(list, index), rule))
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
