//! `netctl status`, `doctor` and the open flows of `flows`: what is, read where it is.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use config::api::{
    Check, ConditionState, Direction, DnsStatus, Doctor, EdgeApp, EdgeStatus, Endpoint, Flow, FlowEvent, MapFill,
    NetworkStatus, Status, Timestamp, Verdict,
};
use config::names::{DnsName, Name};
use config::resource::Tls;
use config::upstream::Upstream;
use policy::Decision;
use policy::reason::Reason;
use policy::tables::RuleName;

use super::desired::Desired;
use super::gate::Gate;
use super::uplink::FastPath;
use super::views::{timestamp, usage};
use super::{nat, nat_overlap, upstreams};
use crate::admin::ControlError;
use crate::egress::dns;
use crate::egress::events::{self, Event};
use crate::egress::tables::TableError;
use crate::egress::tables::flows::{self, Hold, Origin};
use crate::egress::tables::hold::HeldFlow;
use crate::features;
use crate::telemetry::metrics;
use crate::workload::{Workload, WorkloadId};

/// How the node is.
pub(crate) fn status(gate: &Gate) -> Result<Status, ControlError> {
    let desired = gate.now();
    let broken = gate.broken();
    let conditions = gate.conditions();
    let networks = desired.resources.networks().map(|network| {
        let (used, total) = usage(&desired, network);
        NetworkStatus {
            name: network.name.clone(),
            vlan: network.vlan.as_ref().map(|vlan| format!("{}.{}", vlan.parent, vlan.id)),
            segment: gate.segments().get(&network.name).cloned(),
            used,
            total,
            workloads: desired.workloads_on(&network.name).count() as u64,
            ready: !broken.contains_key(&format!("network/{}", network.name)),
        }
    });
    let fill = gate.enforcement.tables.fill().map_err(|error| unread(&error))?;
    let drops = gate.enforcement.tables.counters().map_err(|error| unread(&error))?;
    let answered = gate.enforcement.tables.answered().map_err(|error| unread(&error))?;
    Ok(Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: features::release(),
        started: gate.started,
        ready: conditions.is_empty(),
        generation: gate.store.contents().generation,
        conditions,
        networks: networks.collect(),
        workloads: desired.workloads.len() as u64,
        maps: fill.into_iter().map(|f| MapFill { name: f.table.to_owned(), entries: f.entries, max: f.max }).collect(),
        fast_path: gate.fast_path().to_string(),
        dns: DnsStatus {
            upstreams: gate.upstreams.iter().map(Upstream::with_port).collect(),
            servers: upstreams::servers(gate, &desired),
            learned: gate.enforcement.learned() as u64,
            queries: dns::outcomes()
                .map(|(outcome, count)| (outcome.word().to_owned(), count))
                .chain([("answered-in-kernel".to_owned(), answered.sent)])
                .collect(),
            held_back: held_back(gate, &desired),
        },
        edge: edge(gate, &desired),
        repairs: gate.segmentation.status().repairs + gate.enforcement.repairs(),
        drops: drops
            .into_iter()
            .filter(|count| !count.reason.passes() && count.packets > 0)
            .map(|count| (count.reason.word().to_owned(), count.packets))
            .collect(),
    })
}

fn held_back(gate: &Gate, desired: &Desired) -> Vec<String> {
    let held = gate.enforcement.held_back();
    let workloads = desired.workloads.values().filter(|workload| held.contains(&workload.id));
    workloads.map(|workload| format!("{}/{}", workload.namespace, workload.name)).collect()
}

fn edge(gate: &Gate, desired: &Desired) -> EdgeStatus {
    let status = gate.edge.status();
    let apps = desired.resources.apps().map(|app| {
        let served = status.apps.iter().find(|served| served.app == format!("{}/{}", app.namespace, app.name));
        let endpoints = served.map_or(&[][..], |served| &served.endpoints);
        let certificate = served.and_then(|served| served.certificate.as_ref());
        EdgeApp {
            namespace: app.namespace.clone(),
            name: app.name.clone(),
            hosts: app.hosts.iter().map(ToString::to_string).collect(),
            tls: match app.tls {
                Tls::Edge { .. } => "Edge".to_owned(),
                Tls::Passthrough => "Passthrough".to_owned(),
            },
            backends: endpoints.len() as u64,
            ready_backends: endpoints.iter().filter(|endpoint| !endpoint.set_aside).count() as u64,
            certificate_expires: certificate.map(|certificate| timestamp(certificate.not_after)),
        }
    });
    EdgeStatus { listeners: gate.edge.addresses().to_vec(), apps: apps.collect() }
}

/// What this kernel and node offer, and what falls short now.
pub(crate) fn doctor(gate: &Gate) -> Doctor {
    let features = features::checks(&gate.settings, gate.vlan).into_iter();
    let mut checks: Vec<Check> = features
        // The daemon has given up what it needed for its start only.
        .filter(|check| check.name != features::PRIVILEGES)
        .map(|check| Check {
            name: check.name.to_owned(),
            ok: check.ok,
            required: check.weight == features::Weight::Required,
            found: check.found,
            mend: check.mend,
        })
        .collect();
    checks.push(fast_path(&gate.fast_path()));
    if nat::is_needed(&gate.now()) {
        checks.push(source_nat(gate));
        checks.extend(nat_overlap::checks(gate.settings.egress.snat_ports.range()));
    }
    checks.extend(gate.conditions().into_iter().map(|condition| Check {
        name: condition.what,
        ok: false,
        required: condition.state > ConditionState::Notice,
        found: condition.text,
        mend: condition.mend,
    }));
    Doctor { checks }
}

fn fast_path(now: &FastPath) -> Check {
    let mend = now.mend().to_owned();
    Check { name: "fast path".to_owned(), ok: mend.is_empty(), required: false, found: now.to_string(), mend }
}

fn source_nat(gate: &Gate) -> Check {
    let own = |network: &config::resource::Network| {
        let addresses: Vec<String> = network.snat.own().map(|address| address.to_string()).collect();
        (!addresses.is_empty()).then(|| format!("; {} leaves with {}", network.name, addresses.join(" and ")))
    };
    let own: String = gate.now().resources.networks().filter_map(own).collect();
    let found = match gate.nat_device() {
        Some((device, _)) => format!("by the kernel programs at {device}, by nftables elsewhere{own}"),
        None => {
            format!(
                "by nftables and connection tracking; the kernel programs have no uplink: {}{own}",
                gate.fast_path()
            )
        }
    };
    let mend = if gate.nat_device().is_some() { "" } else { gate.fast_path().mend() };
    Check { name: "source NAT".to_owned(), ok: mend.is_empty(), required: false, found, mend: mend.to_owned() }
}

/// The entries of the flow table.
pub(crate) fn open_flows(gate: &Gate) -> Result<Vec<Flow>, ControlError> {
    let names = Names::of(&gate.now());
    let flows = gate.enforcement.tables.flows().map_err(|error| unread(&error))?;
    let passing = flows.into_iter().filter(|flow| flow.hold != Hold::Denied);
    Ok(passing.map(|flow| open(gate, &names, &flow)).collect())
}

/// Workloads by number, for events that carry only the number.
pub(crate) struct Names(BTreeMap<WorkloadId, Arc<Workload>>);

impl Names {
    pub(crate) fn of(desired: &Desired) -> Self {
        Self(desired.workloads.values().map(|workload| (workload.id, Arc::clone(workload))).collect())
    }

    fn of_workload(&self, id: WorkloadId) -> (Option<Name>, Option<Name>) {
        self.0.get(&id).map(|workload| (workload.namespace.clone(), workload.name.clone())).unzip()
    }
}

fn open(gate: &Gate, names: &Names, entry: &flows::Flow) -> Flow {
    let workload = names.of_workload(entry.workload);
    Flow {
        time: at(entry.last_seen),
        event: FlowEvent::Open,
        verdict: verdict(entry.reason),
        reason: if entry.hold == Hold::Awaits { Reason::Held } else { entry.reason }.word().to_owned(),
        rule: gate.enforcement.rule(entry.rule),
        namespace: workload.0,
        workload: workload.1,
        direction: match entry.origin {
            Origin::Egress => Direction::Egress,
            Origin::Ingress | Origin::SameNetwork | Origin::Probe => Direction::Ingress,
        },
        protocol: protocol(entry.protocol),
        local: endpoint(entry.local, entry.local_port, entry.protocol),
        remote: endpoint(entry.remote, entry.remote_port, entry.protocol),
        name: gate.enforcement.name(entry.name),
        sni: gate.enforcement.name(entry.name.filter(|_| entry.hold == Hold::Verified)),
        bytes: entry.sent.1 + entry.received.1,
        packets: entry.sent.0 + entry.received.0,
    }
}

/// One event of the kernel as `flows` shows it.
pub(crate) fn event(gate: &Gate, names: &Names, event: &Event) -> Flow {
    let workload = event.workload.map_or((None, None), |id| names.of_workload(id));
    Flow {
        time: at(event.time),
        event: match event.reason {
            Reason::Revoked => FlowEvent::Revoked,
            reason if reason.passes() => FlowEvent::Opened,
            _ => FlowEvent::Dropped,
        },
        verdict: verdict(event.reason),
        reason: event.reason.word().to_owned(),
        rule: gate.enforcement.rule(event.rule),
        namespace: workload.0,
        workload: workload.1,
        direction: match event.direction {
            events::Direction::FromWorkload => Direction::Egress,
            events::Direction::ToWorkload | events::Direction::FromService => Direction::Ingress,
        },
        protocol: protocol(event.protocol),
        local: endpoint(event.local, event.local_port, event.protocol),
        remote: endpoint(event.remote, event.remote_port, event.protocol),
        name: gate.enforcement.name(event.name),
        sni: gate.enforcement.name(event.name.filter(|_| event.verified)),
        bytes: 0,
        packets: 0,
    }
}

/// A held flow that was judged, as `flows` shows it.
pub(crate) fn judged(workload: &Workload, held: &HeldFlow, decision: &Decision, sni: Option<&DnsName>) -> Flow {
    Flow {
        time: SystemTime::now().into(),
        event: if decision.allowed { FlowEvent::Opened } else { FlowEvent::Dropped },
        verdict: verdict(decision.reason),
        reason: decision.reason.word().to_owned(),
        rule: decision.rule.as_ref().map(RuleName::qualified),
        namespace: Some(workload.namespace.clone()),
        workload: Some(workload.name.clone()),
        direction: Direction::Egress,
        protocol: protocol(held.protocol),
        local: endpoint(held.local.ip(), held.local.port(), held.protocol),
        remote: endpoint(held.remote.ip(), held.remote.port(), held.protocol),
        name: decision.name.as_ref().map(ToString::to_string),
        sni: sni.map(ToString::to_string),
        bytes: 0,
        packets: 0,
    }
}

/// Told to the log, metrics, history and followers.
pub(crate) fn tell(gate: &Gate, flow: Flow, reason: Reason) {
    let from = flow.namespace.as_ref().zip(flow.workload.as_ref()).map(|(ns, name)| format!("{ns}/{name}"));
    metrics::flow(flow.direction, reason);
    let (verdict, reason, rule) = (flow.verdict, &flow.reason, flow.rule.as_deref());
    let (name, sni) = (flow.name.as_deref(), flow.sni.as_deref());
    match verdict {
        Verdict::Allowed => {
            tracing::debug!(target: "flow", workload = from, local = %flow.local, remote = %flow.remote, protocol = flow.protocol, %verdict, reason, rule, name, sni);
        }
        Verdict::Denied | Verdict::Audited => {
            tracing::info!(target: "flow", workload = from, local = %flow.local, remote = %flow.remote, protocol = flow.protocol, %verdict, reason, rule, name, sni);
        }
    }
    gate.history.push(flow);
}

fn verdict(reason: Reason) -> Verdict {
    match reason {
        Reason::Audited => Verdict::Audited,
        passing if passing.passes() => Verdict::Allowed,
        _ => Verdict::Denied,
    }
}

fn protocol(number: u8) -> String {
    match number {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "icmpv6".to_owned(),
        132 => "sctp".to_owned(),
        other => other.to_string(),
    }
}

fn endpoint(address: IpAddr, port: u16, protocol: u8) -> Endpoint {
    Endpoint { address, port: matches!(protocol, 6 | 17 | 132).then_some(port) }
}

/// A time since boot on the wall clock.
fn at(since_boot: Duration) -> Timestamp {
    let ago = crate::sys::bpf::boot_time().saturating_sub(since_boot);
    SystemTime::now().checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH).into()
}

fn unread(error: &TableError) -> ControlError {
    ControlError::failed(error.to_string(), "`netctl doctor` shows what the kernel offers")
}
