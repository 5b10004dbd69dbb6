//! Addresses that wait for a workload of the same name: `spec.leases.hold` of its network.
//!
//! A workload that is detached stays in the store with the time of its leaving, and with it its addresses, its Ethernet address
//! and its handles. They go when one of its name comes, when its time is over, when nothing is held on the network any longer,
//! and, the oldest first, when the network has no others.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use config::api::{Timestamp, WorkloadName};
use config::resource::Network;

use super::desired::Desired;
use super::gate::Gate;
use super::reload::in_place;
use crate::store::Change;
use crate::workload::Workload;

/// Those that left, by name.
pub(crate) type Held = Arc<BTreeMap<WorkloadName, Arc<Workload>>>;

/// What the store keeps of one that leaves: nothing, or all but its being there.
pub(crate) fn leave(next: &mut Desired, workload: &Workload) -> Change {
    let network = next.resources.network(&workload.network);
    if workload.adopted || network.is_none_or(|network| network.hold.is_none()) {
        return Change::Detach(workload.id);
    }
    let held = Workload { left: Some(SystemTime::now().into()), cni: None, ..workload.clone() };
    Arc::make_mut(&mut next.held).insert(name(workload), Arc::new(held.clone()));
    Change::Attach(Box::new(held))
}

/// Who held what a newcomer has: the former one of its name, and whose addresses it got because there were no others.
pub(crate) fn come(next: &mut Desired, workload: &Workload) -> Vec<Change> {
    let has = |held: &Workload| {
        let shares = |own: &crate::workload::Address| workload.addresses.iter().any(|it| it.address == own.address);
        held.network == workload.network && held.addresses.iter().any(shares)
    };
    let over = |held: &Workload| name(held) == name(workload) || has(held);
    forget(next, over)
}

/// Takes away what nobody waits for any longer.
pub(crate) async fn expire(gate: &Gate) {
    let now = SystemTime::now().into();
    if !gate.now().held.values().any(|held| is_over(&gate.now(), held, now)) {
        return;
    }
    let _turn = gate.changing.lock().await;
    let mut next = Desired::clone(&gate.now());
    let before = next.clone();
    let gone = forget(&mut next, |held| is_over(&before, held, now));
    match in_place(|| gate.store.commit(&gone)) {
        Ok(_) => drop(gate.desired.send_replace(Arc::new(next))),
        Err(error) => tracing::warn!(%error, "leases that are over are still held; it is tried again"),
    }
}

fn is_over(desired: &Desired, held: &Workload, now: Timestamp) -> bool {
    let hold = desired.resources.network(&held.network).and_then(|network: &Network| network.hold);
    let since = held.left.map_or(Duration::ZERO, |left| left.age(now));
    hold.is_none_or(|hold| since >= hold)
}

fn forget(next: &mut Desired, over: impl Fn(&Workload) -> bool) -> Vec<Change> {
    let gone: Vec<(WorkloadName, Change)> = next
        .held
        .iter()
        .filter(|(_, held)| over(held))
        .map(|(name, held)| (name.clone(), Change::Detach(held.id)))
        .collect();
    gone.into_iter()
        .map(|(name, change)| {
            Arc::make_mut(&mut next.held).remove(&name);
            change
        })
        .collect()
}

fn name(workload: &Workload) -> WorkloadName {
    WorkloadName { namespace: workload.namespace.clone(), name: workload.name.clone() }
}
