//! `kind: ClusterEgressPolicy`: what the node's administrator decides before the namespaces' own policies are asked.

use crate::names::Name;
use crate::resource::{AllowRule, CidrRule, DenyRule, Labels, Mode, Namespace, Selector, selects};

/// `kind: ClusterEgressPolicy`. It never isolates: what none of its rules denies or allows is left to the namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterEgressPolicy {
    /// Name.
    pub name: Name,
    /// `spec.namespaceSelector`; an empty one selects every namespace.
    pub namespace_selector: Selector,
    /// `spec.selector`, of workloads in those namespaces; an empty one selects every one.
    pub selector: Selector,
    /// `spec.mode`
    pub mode: Mode,
    /// `spec.deny`: no namespace can allow it.
    pub deny: Vec<DenyRule>,
    /// `spec.allow`: final, no policy of a namespace denies it.
    pub allow: Vec<AllowRule>,
    /// `spec.pass`: left to the namespace. It changes no verdict, as what is neither denied nor allowed is left to it
    /// anyway; `explain` names the rule.
    pub pass: Vec<CidrRule>,
}

impl ClusterEgressPolicy {
    /// Whether it selects a workload with these labels in that namespace.
    pub fn selects(&self, namespace: &Namespace, labels: &Labels) -> bool {
        selects(&self.namespace_selector, &namespace.labels) && selects(&self.selector, labels)
    }
}
