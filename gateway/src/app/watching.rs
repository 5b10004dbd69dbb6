//! What runs beside the changes and keeps everything as it should be. Each is one task; none queues anything.
//!
//! | task | woken by | does |
//! |---|---|---|
//! | `events` | the kernel's ring | flows into history, log target `flow` and metrics |
//! | `upkeep` | every second | programs, tg0 and the uplink put back, learned names swept, reserved ports; metrics, idle names and node's addresses at every fourth |
//! | `sweeper` | a twelfth of the shortest idle time | stale flows and translations taken out, one table at a time |
//! | `segmentation` | its status changing | conditions, segments; workloads whose namespace is gone are detached |
//! | `adoption` | segmentation's status, or the state, changing; ten times a second while a port waits | ports of adopted bridges become workloads |
//! | `presence` | every second | who is heard on networks' VLANs |
//! | `sets` | four times a second | files of address sets that have changed, put in force |
//! | `node` | netlink notices | the node's addresses and the uplink's in the kernel; next hops asked for anew |

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use config::api::{ConditionState, DetachRequest};
use config::resource::Protocol;
use policy::{Listener, Node};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::gate::Gate;
use super::report::{self, Names};
use super::{adoption, attachment, egress_address, leases, nat, presence, reload, sets, uplink, verify};
use crate::segmentation::Status;
use crate::sys::netlink::Netlink;
use crate::sys::netlink::watch::{Notice, Watch};
use crate::telemetry::metrics;

/// Others' deletions are put back within this.
const UPKEEP: Duration = Duration::from_secs(1);

/// Tables are walked for their fill, counters read, and the node's addresses listed, of which notices tell as well, at
/// every so many upkeeps.
const MEASURED: u32 = 4;

/// Starts the tasks. They are to be ended before the runtime, whose clock they use.
pub(crate) fn start(gate: &Arc<Gate>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(events(Arc::clone(gate)));
    tasks.spawn(upkeep(Arc::clone(gate)));
    tasks.spawn(sweeper(Arc::clone(gate)));
    tasks.spawn(segmentation(Arc::clone(gate)));
    tasks.spawn(node(Arc::clone(gate)));
    tasks.spawn(sets::watch(Arc::clone(gate)));
    tasks.spawn(adoption::run(Arc::clone(gate)));
    tasks.spawn(presence::run(Arc::clone(gate)));
    tasks
}

async fn events(gate: Arc<Gate>) {
    let mut ring = match gate.enforcement.tables.events() {
        Ok(ring) => ring,
        Err(error) => {
            return gate.raise(
                "events",
                ConditionState::Degraded,
                error.to_string(),
                "flows are enforced, but not shown; restart the gateway",
            );
        }
    };
    let mut names = Names::of(&gate.now());
    let mut changed = gate.desired.subscribe();
    loop {
        let event = tokio::select! {
            event = ring.next() => event,
            _ = changed.changed() => {
                names = Names::of(&gate.now());
                continue;
            }
        };
        match event {
            Ok(event) => report::tell(&gate, report::event(&gate, &names, &event), event.reason),
            Err(error) => {
                return gate.raise(
                    "events",
                    ConditionState::Degraded,
                    format!("the kernel's events cannot be read: {error}"),
                    "flows are enforced, but not shown; restart the gateway",
                );
            }
        }
    }
}

async fn upkeep(gate: Arc<Gate>) {
    let mut tick = interval(UPKEEP);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut turns = (0..MEASURED).cycle();
    loop {
        tick.tick().await;
        let measured = turns.next() == Some(0);
        service(&gate).await;
        let kept = gate.enforcement.keep_all(gate.service.tg0_ifindex()).await;
        let kept = kept.map(metrics::reconcile_repairs);
        reload::in_place(|| verify::keep(&gate));
        settle(&gate, "kernel programs", kept.map_err(|error| error.to_string()));
        reload::in_place(|| {
            settle(&gate, "learned names", gate.enforcement.sweep().map_err(|error| error.to_string()));
            if measured {
                settle(&gate, "idle names", gate.enforcement.release_names().map_err(|error| error.to_string()));
                settle(&gate, "kernel tables", measure(&gate));
            }
        });
        if measured {
            leases::expire(&gate).await;
            look_at_node(&gate).await;
        }
        look_at_uplink(&gate, false).await;
        let kept = reload::in_place(|| nat::keep_ports(&gate, &gate.now()));
        settle(&gate, "reserved ports", kept.map_err(|error| error.to_string()));
        let ended = reload::in_place(|| gate.enforcement.tables.end_strays());
        settle(&gate, "source NAT", ended.map_err(|error| error.to_string()));
    }
}

/// Beside the upkeep, as it takes its time; where it does not come to it, the kernel's timer does it.
async fn sweeper(gate: Arc<Gate>) {
    loop {
        let swept = reload::in_place(|| gate.enforcement.tables.sweep_next());
        let wait = *swept.as_ref().unwrap_or(&UPKEEP);
        settle(&gate, "stale flows", swept.map(drop).map_err(|error| error.to_string()));
        sleep(wait).await;
    }
}

/// The way past the node's stack, and where addresses are translated. `first`: before segmentation has begun.
pub(crate) async fn look_at_uplink(gate: &Gate, first: bool) {
    let looked = uplink::look(gate, first).await;
    settle(gate, "uplink", looked.map(metrics::reconcile_repairs));
}

/// tg0 and what is inside, put back as a whole.
async fn service(gate: &Gate) {
    let put_right = match gate.service.ensure().await {
        Ok(ensured) if ensured.remade => {
            metrics::reconcile_repairs(1);
            gate.enforcement.serve_namespace(ensured.tg0_ifindex, gate.service.tg1_mac()).map_err(|e| e.to_string())
        }
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    };
    settle(gate, "service namespace", put_right);
}

fn measure(gate: &Gate) -> Result<(), String> {
    let fill = gate.enforcement.tables.fill().map_err(|error| error.to_string())?;
    for table in &fill {
        metrics::map_fill(table.table, table.entries, table.max);
        if table.table == "flows" {
            metrics::flows_open(table.entries);
        }
    }
    for count in gate.enforcement.tables.counters().map_err(|error| error.to_string())? {
        metrics::packets(count.reason, count.packets, count.bytes);
    }
    for (way, packets) in gate.enforcement.tables.ways().map_err(|error| error.to_string())? {
        metrics::fast_path(way, packets);
    }
    for (outcome, packets) in gate.enforcement.tables.rejections().map_err(|error| error.to_string())? {
        metrics::rejections(outcome, packets);
    }
    let at_sight = gate.enforcement.tables.verified_at_sight().map_err(|error| error.to_string())?;
    metrics::inspections_at_sight(at_sight);
    metrics::dns_answered(gate.enforcement.tables.answered().map_err(|error| error.to_string())?);
    metrics::flow_events_lost(gate.enforcement.lost_events());
    metrics::dns_learned(gate.enforcement.learned() as u64);
    metrics::dns_over_bounds(gate.enforcement.over_bounds());
    metrics::workloads(gate.now().workloads.len() as u64);
    let full: Vec<&str> = fill.iter().filter(|table| table.entries >= table.max).map(|table| table.table).collect();
    match full.is_empty() {
        true => Ok(()),
        false => Err(format!("full: {}; what would need an entry is refused", full.join(", "))),
    }
}

fn settle(gate: &Gate, what: &'static str, result: Result<(), String>) {
    match result {
        Ok(()) => gate.clear(what),
        Err(error) => gate.raise(what, ConditionState::Degraded, error, "it is tried again every second"),
    }
}

async fn segmentation(gate: Arc<Gate>) {
    let mut status = gate.segmentation.subscribe();
    loop {
        let now = status.borrow_and_update().clone();
        note_segmentation(&gate, &now);
        detach_gone(&gate, &now).await;
        if status.changed().await.is_err() {
            return;
        }
    }
}

/// What segmentation says, as conditions, and its VLAN sides in the kernel.
pub(crate) fn note_segmentation(gate: &Gate, status: &Status) {
    let troubles = status.refusals.iter().map(ToString::to_string).chain(status.errors.iter().cloned());
    let troubles: Vec<String> = troubles.chain(status.helper_ended.clone()).collect();
    match troubles.is_empty() {
        true => gate.clear("segmentation"),
        false => gate.raise(
            "segmentation",
            ConditionState::Degraded,
            troubles.join("\n"),
            "it is tried again when the node's links change, and by a timer",
        ),
    }
    match &status.unguarded {
        None => gate.clear("bridge guard"),
        Some(words) => gate.raise(
            "bridge guard",
            ConditionState::Degraded,
            format!("a new port of an adopted bridge is open for the milliseconds until it is seen: {words}"),
            "load `nft_meta_bridge` (`modprobe nft_meta_bridge`), or boot a kernel that has it, and restart the gateway",
        ),
    }
    settle(gate, "segments", gate.enforcement.note_segments(status).map_err(|error| error.to_string()));
}

async fn detach_gone(gate: &Gate, status: &Status) {
    if status.gone.is_empty() {
        return;
    }
    let _turn = gate.changing.lock().await;
    let desired = gate.now();
    for workload in desired.workloads.values().filter(|workload| status.gone.contains(&workload.id)) {
        let request = DetachRequest { namespace: workload.namespace.clone(), name: workload.name.clone() };
        match attachment::detach(gate, &request).await {
            Ok(_) => {
                tracing::info!(namespace = %request.namespace, name = %request.name, "its network namespace is gone: detached, its addresses are free")
            }
            Err(error) => {
                tracing::warn!(namespace = %request.namespace, name = %request.name, %error, "its network namespace is gone, and it cannot be detached")
            }
        }
    }
}

async fn node(gate: Arc<Gate>) {
    let mut watch = match Watch::open() {
        Ok(watch) => watch,
        Err(error) => {
            return unwatched(&gate, &error);
        }
    };
    loop {
        match watch.changed().await {
            Ok(mut notices) => {
                notices.retain(|notice| !uplink::is_of_a_workload(notice));
                uplink::note_changes(&gate, &notices);
                if notices.iter().any(|n| matches!(n, Notice::Address { .. } | Notice::Link { .. } | Notice::Lost)) {
                    look_at_node(&gate).await;
                    look_at_uplink(&gate, false).await;
                }
            }
            Err(error) => {
                return unwatched(&gate, &error);
            }
        }
    }
}

/// Netlink's notices do not come; [`upkeep`] looks all the same.
fn unwatched(gate: &Gate, error: &std::io::Error) {
    let text = format!("cannot watch the node's addresses: {error}");
    gate.raise("node", ConditionState::Degraded, text, "they are looked at every four seconds instead");
}

/// The node's own addresses are closed to workloads, whatever a policy says.
pub(crate) async fn look_at_node(gate: &Gate) {
    let addresses = match Netlink::open() {
        Ok(netlink) => netlink.addresses().await,
        Err(error) => Err(error),
    };
    let told = match addresses {
        Ok(found) => {
            let addresses: BTreeSet<_> = found.iter().map(|address| address.address.ip()).collect();
            let listener = |at: &std::net::SocketAddr| Listener {
                address: Some(at.ip()).filter(|ip| !ip.is_unspecified()),
                protocol: Protocol::Tcp,
                port: at.port(),
            };
            let listeners = gate.edge.addresses().iter().map(listener).collect();
            let node = Node { addresses, listeners, probes: gate.settings.node.probes() };
            let told = gate.enforcement.set_node(node).map(|_| ()).map_err(|error| error.to_string());
            egress_address::announce(gate, &found).await;
            told
        }
        Err(error) => Err(error.to_string()),
    };
    settle(gate, "node addresses", told);
}
