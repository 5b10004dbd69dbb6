//! `kind: Namespace`: a tenant's workloads, the network they are on, and what holds where no policy speaks.

use std::collections::BTreeSet;

use crate::names::Name;
use crate::query_type::QueryType;
use crate::resource::Labels;

/// `kind: Namespace`: a tenant's group of workloads on one network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Its name.
    pub name: Name,
    /// Labels, with `kubernetes.io/metadata.name` always there.
    pub labels: Labels,
    /// `spec.network`
    pub network: Name,
    /// What a workload may send where no policy isolates it.
    pub egress_default: Default,
    /// What may reach a workload where no policy isolates it.
    pub ingress_default: Default,
    /// Whether who sent what is denied is told.
    pub on_deny: OnDeny,
    /// What its workloads may ask DNS for; `None`: every type.
    pub query_types: Option<BTreeSet<QueryType>>,
}

/// `egressDefault`, `ingressDefault`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Default {
    /// Everything that no rule denies.
    Allow,
    /// Nothing but what a rule allows.
    Deny,
}

/// `onDeny`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDeny {
    /// A reset for TCP, else ICMP's "administratively prohibited": to its workloads, and to others of their network.
    Reject,
    /// Nobody is told.
    Drop,
}
