//! Held flows meet policy: one thread reads who they ask for ([`crate::egress::verify`]), and here it is decided.
//!
//! 1. The policies in force decide ([`policy::decide()`]) by the name that the handshake shows, and by what this workload
//!    resolved when the flow was opened.
//! 2. Of what passes, the name gets its number and its class in the kernel, so that the flow ends with the rule.
//! 3. The verdict is written into the flow, whose next packet the kernel decides again by itself: what has changed since 1
//!    counts.
//! 4. It is told: log, metrics, `netctl flows`.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{io, thread};

use config::api::ConditionState;
use config::names::DnsName;
use inspect::Unreadable;
use policy::reason::Reason;
use policy::tables::NameId;
use policy::{Decision, Model, Outbound, Query, Resolved, Shown, Subject, Target, Unshown};

use super::desired::Desired;
use super::gate::Gate;
use super::report;
use crate::egress::dns;
use crate::egress::tables::hold::{HeldFlow, Read, Settled, Verdict};
use crate::egress::verify::{self, Inspector, Judge, Outcome, Stream, Time};
use crate::sys::bpf::boot_time;
use crate::telemetry::metrics;
use crate::workload::{Workload, WorkloadId};

/// What it is called in `status`.
const WHAT: &str = "inspector";
/// The same, where it stands still; and for how long at least.
const PACE: &str = "inspections";
const STILL: Duration = Duration::from_secs(3);
/// Between two tries to open the device.
const AGAIN: Duration = Duration::from_secs(1);
/// How long a name's number is kept for a flow that was just given it: by then who reads the flows sees it there.
const LENT: Duration = Duration::from_secs(10);

/// Names' numbers that flows were given, and when.
type Lent = VecDeque<(Instant, NameId)>;

/// The running thread.
pub(crate) struct Verifying {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Verifying {
    /// Starts it, for this thread's network namespace.
    pub(crate) fn start(gate: &Arc<Gate>, dns: &Arc<dns::Server>) -> io::Result<Self> {
        let stop = Arc::<AtomicBool>::default();
        let (gate, dns, stopped) = (Arc::clone(gate), Arc::clone(dns), Arc::clone(&stop));
        let thread = thread::Builder::new().name("inspector".to_owned()).spawn(move || run(&gate, &dns, &stopped))?;
        Ok(Self { stop, thread })
    }

    /// Ends it. What is held stays held, and is asked for again when the workload repeats it.
    pub(crate) fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        if self.thread.join().is_err() {
            tracing::error!("the inspector has ended before");
        }
    }
}

fn run(gate: &Gate, dns: &dns::Server, stop: &AtomicBool) {
    let mut lent = Lent::new();
    while !stop.load(Ordering::Relaxed) {
        // who sends what is read here must not be able to end the thread
        let served = catch_unwind(AssertUnwindSafe(|| serve(gate, dns, stop, &mut lent)));
        gate.inspected_ms.store(0, Ordering::Relaxed);
        match served.unwrap_or_else(|_| Err(io::Error::other("the reader has failed"))) {
            Ok(()) => {}
            Err(error) => {
                gate.raise(
                    WHAT,
                    ConditionState::Degraded,
                    format!("held flows cannot be read: {error}; what must be verified by name is refused"),
                    "load the module tun, and let the daemon open /dev/net/tun; it is tried again every second",
                );
                thread::park_timeout(AGAIN);
            }
        }
    }
}

fn serve(gate: &Gate, dns: &dns::Server, stop: &AtomicBool, lent: &mut Lent) -> io::Result<()> {
    let mut inspector = Inspector::open()?;
    let tap = inspector.ifindex();
    gate.enforcement.tables.attach_tap(tap).map_err(io::Error::other)?;
    gate.enforcement.tables.set_inspector(Some(tap)).map_err(io::Error::other)?;
    gate.clear(WHAT);
    while !stop.load(Ordering::Relaxed) {
        let desired = gate.now();
        let node = gate.enforcement.node();
        let model = desired.model(&node);
        let known = desired.workloads.values().map(|workload| (workload.id, (&**workload, workload.subject())));
        let workloads = known.collect();
        let mut judge = ByPolicy { gate, stop, desired: &desired, model: &model, workloads, dns, lent };
        inspector.serve(&mut judge)?;
    }
    Ok(())
}

/// Puts back the program on the device, if somebody removed it, and says if nobody reads.
pub(crate) fn keep(gate: &Gate) {
    let last = gate.inspected_ms.load(Ordering::Relaxed);
    let still = Duration::from_millis(milliseconds().saturating_sub(last));
    if last > 0 && still > STILL {
        let text = "held flows are not read: the reader stands still; what must be verified by name waits".to_owned();
        gate.raise(PACE, ConditionState::Degraded, text, "if it lasts, restart the daemon: no open flow is cut");
    } else {
        gate.clear(PACE);
    }
    let Some(tap) = gate.enforcement.tables.inspector() else { return };
    match gate.enforcement.tables.ensure_tap_attached(tap) {
        Ok(put_back) => metrics::reconcile_repairs(u64::from(put_back)),
        Err(error) => tracing::warn!(%error, "the inspector's program"),
    }
}

/// The policies of one state.
struct ByPolicy<'a> {
    gate: &'a Gate,
    stop: &'a AtomicBool,
    desired: &'a Arc<Desired>,
    model: &'a Model<'a>,
    workloads: HashMap<WorkloadId, (&'a Workload, Subject)>,
    dns: &'a dns::Server,
    lent: &'a mut Lent,
}

impl Judge for ByPolicy<'_> {
    fn judge(&mut self, flow: &HeldFlow, shown: &verify::Shown, stream: Option<Stream<'_>>, time: Time) -> Outcome {
        let Some((workload, subject)) = self.workloads.get(&flow.workload) else { return Outcome::Gone };
        let workload = *workload;
        let sni = match shown {
            verify::Shown::Hello(hello) => hello.server_name.as_ref(),
            verify::Shown::Unreadable(_) | verify::Shown::Late => None,
        };
        let decision = self.decide(subject, flow, as_policy_has_it(shown), None);
        if let Some(name) = sni.filter(|_| decision.reason == Reason::SniMismatch && time != Time::Last)
            && self.is_worth_asking(workload, subject, flow, name, time)
        {
            return Outcome::Later;
        }
        let tables = &self.gate.enforcement.tables;
        let read = stream.map(|stream| Read { end: stream.end, shown: tables.fingerprint(stream.hello) });
        let verdict = match sni.filter(|_| decision.allowed).map(|name| self.lend(flow.workload, name)).transpose() {
            Ok(name) => Verdict { reason: decision.reason, name, read },
            Err(error) => {
                tracing::warn!(%error, sni = sni.map(tracing::field::display), "a verified flow's name has no number");
                return Outcome::Failed;
            }
        };
        let outcome = match tables.settle(flow, &verdict) {
            Ok(Settled::Now) if decision.allowed => Outcome::Passes,
            // the same octets again, which the kernel's program or an earlier run of this daemon has read
            Ok(Settled::Before) if decision.allowed && read.is_some() => return Outcome::Passes,
            // another connection of a UDP flow
            Ok(Settled::Before) if decision.allowed => Outcome::Passes,
            Ok(Settled::Now) => Outcome::Denied,
            Ok(Settled::Before | Settled::ByAnother) => Outcome::Refused,
            Ok(Settled::Gone) => return Outcome::Gone,
            Ok(Settled::Busy) => return Outcome::Failed,
            Err(error) => {
                tracing::warn!(%error, "a verdict cannot be written");
                return Outcome::Failed;
            }
        };
        report::tell(self.gate, report::judged(workload, flow, &decision, sni), decision.reason);
        outcome
    }

    fn is_current(&self) -> bool {
        self.gate.inspected_ms.store(milliseconds(), Ordering::Relaxed);
        !self.stop.load(Ordering::Relaxed) && Arc::ptr_eq(self.desired, &*self.gate.desired.borrow())
    }
}

impl ByPolicy<'_> {
    /// Of what a workload resolved, only so many names are kept for an address, and fewer outlive the daemon. Where the name
    /// would pass had the workload resolved it to this address, it is asked for once more, in the workload's name.
    fn is_worth_asking(
        &self,
        workload: &Workload,
        subject: &Subject,
        flow: &HeldFlow,
        name: &DnsName,
        time: Time,
    ) -> bool {
        let as_if = Resolved { name: name.clone(), expires: u64::MAX };
        let own = workload.addresses.iter().find(|own| own.address == flow.local.ip());
        let Some(own) = own.filter(|_| self.decide(subject, flow, Shown::Name(name), Some(as_if)).allowed) else {
            return false;
        };
        if time == Time::First {
            self.dns.ask_for(own.handle, name, flow.remote.is_ipv6());
        }
        true
    }

    fn decide(&self, from: &Subject, flow: &HeldFlow, shown: Shown<'_>, also: Option<Resolved>) -> Decision {
        let mut resolved = self.gate.enforcement.resolved(flow.workload, flow.remote.ip());
        resolved.extend(also);
        let to = Target { address: flow.remote.ip(), protocol: flow.protocol, port: flow.remote.port() };
        let query = Query::From(Outbound { from, to, resolved: &resolved, shown, now: flow.opened_ns });
        policy::decide(self.model, &query)
    }

    fn lend(&mut self, workload: WorkloadId, name: &DnsName) -> Result<NameId, String> {
        let now = Instant::now();
        let over = |(since, _): &(Instant, NameId)| now.duration_since(*since) >= LENT;
        while self.lent.front().is_some_and(over) {
            if let Some((_, id)) = self.lent.pop_front() {
                self.gate.enforcement.give_back(id);
            }
        }
        let id = self.gate.enforcement.lend(workload, name)?;
        self.lent.push_back((now, id));
        Ok(id)
    }
}

fn milliseconds() -> u64 {
    boot_time().as_millis() as u64
}

fn as_policy_has_it(shown: &verify::Shown) -> Shown<'_> {
    match shown {
        verify::Shown::Hello(hello) => hello.server_name.as_ref().map_or(Shown::Nothing(Unshown::NoName), Shown::Name),
        verify::Shown::Unreadable(Unreadable::NotTls) => Shown::Nothing(Unshown::NotTls),
        verify::Shown::Unreadable(_) | verify::Shown::Late => Shown::Nothing(Unshown::Unreadable),
    }
}
