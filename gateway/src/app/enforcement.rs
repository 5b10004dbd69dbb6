//! Policy in the kernel: one generation after the other, and what DNS teaches in between.
//!
//! Owns one lock, around [`State`]: a change of policy and an answer of DNS exclude each other, so that no answer is
//! learned for rules that are on their way out. It is held for table writes only, never across an await.
//!
//! A change ([`Enforcement::install`]):
//! 1. the next generation is written beside the present one;
//! 2. the names that workloads resolved get their classes under the new policies, and slots that serve both;
//! 3. each workload is switched by one write of its entry, with a new epoch: open flows are decided again;
//! 4. slots are chosen for the new policies alone, and the old generation goes.
//!
//! At no instant is a workload under a mixture: a failed write before 3 leaves the old state in force.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use config::names::DnsName;
use config::resource::{Gateway, WorkloadTraffic};
use policy::ledger::{Changes, Ledger};
use policy::tables::{ClassId, PolicyId, PolicyRef, RuleId, RuleName};
use policy::{Compiled, Node, Resolve, Resolved};

use super::desired::Desired;
use super::endpoints;
use crate::egress::tables::{Tables, TablesError, WorkloadEntry};
use crate::workload::{Workload, WorkloadId};

/// The door from desired state to the kernel's tables.
pub(crate) struct Enforcement {
    tables: Arc<Tables>,
    flow_quota: u32,
    state: Mutex<State>,
}

struct State {
    compiled: Compiled,
    ledger: Ledger,
    askers: HashMap<IpAddr, Asker>,
}

/// Who stands behind a handle.
#[derive(Clone, Copy)]
struct Asker {
    workload: WorkloadId,
    policy: PolicyId,
}

/// Where a workload's host side is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Port {
    pub(crate) ifindex: u32,
    /// The bridge's address: what frames from the service namespace come from.
    pub(crate) gateway_mac: crate::workload::Mac,
    /// The network's number in the kernel's tables: its bridge's index.
    pub(crate) network: u32,
}
