//! From `netctl attach` until the workload's first connection is through, with few and with many workloads on the node.
//!
//! Each workload has a namespace of its own, with a policy of its own: nothing is shared between them.

use std::fmt::{self, Write as _};
use std::time::Instant;

use integration::manifests::{allow_cidrs, namespace, policy};
use integration::traffic::Target;
use serde_json::{Value, json};

use crate::connects;
use crate::lane::{Gateway, SINK, TCP_PORT};
use crate::statistics::{Median, median};

/// Where samples are taken: numbers of workloads on the node.
const FEW: usize = 10;
const SAMPLES: usize = 20;
/// Namespaces and policies of one file, which may hold 1 000 documents.
pub(crate) const TENANTS_AT_ONCE: usize = 250;

/// What attaching took, in milliseconds.
pub(crate) struct Attaching {
    many: usize,
    at_few: Median,
    at_many: Median,
}

/// Attaches `many` workloads, and measures the first and the last of them.
pub(crate) fn measure(many: usize) -> Attaching {
    let gateway = Gateway::start("    - { cidr: 10.96.0.0/14, gateway: 10.96.0.1 }\n");
    let mut manifests = String::new();
    for number in 0..many {
        if number % TENANTS_AT_ONCE == 0 && number > 0 {
            gateway.daemon.netctl().apply(&std::mem::take(&mut manifests));
        }
        let tenant = format!("ns-{number}");
        let own = format!("198.18.{}.{}/32", number / 256, number % 256);
        let rules = allow_cidrs(&[&format!("{SINK}/32"), &own], &format!("[ {{ protocol: TCP, port: {TCP_PORT} }} ]"));
        let _infallible = write!(manifests, "{}{}", namespace(&tenant, "tenant"), policy(&tenant, "allowed", &rules));
    }
    gateway.daemon.netctl().apply(&manifests);
    connects::listen(&gateway.sink);
    let times: Vec<f64> = (0..many).map(|number| attach(&gateway, number)).collect();
    let at = |last: usize| median(&times[last - SAMPLES.min(last)..last]);
    Attaching { many, at_few: at(FEW + SAMPLES / 2), at_many: at(many) }
}

fn attach(gateway: &Gateway, number: usize) -> f64 {
    let (tenant, name) = (format!("ns-{number}"), format!("w-{number}"));
    let netns = gateway.world.namespace(&name, None);
    let path = netns.path().to_str().expect("a path of the world is text").to_owned();
    let begin = Instant::now();
    gateway.daemon.netctl().ok(&["attach", &name, "-n", &tenant, "--netns", &path]);
    netns.must_reach(Target::Tcp((SINK, TCP_PORT).into()));
    begin.elapsed().as_secs_f64() * 1e3
}

impl Attaching {
    pub(crate) fn json(&self) -> Value {
        let one = |m: &Median| json!({ "p50Ms": m.value, "lowMs": m.low, "highMs": m.high });
        json!({ "few": FEW, "many": self.many, "atFew": one(&self.at_few), "atMany": one(&self.at_many) })
    }
}

impl fmt::Display for Attaching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nattach until the first connection is through, p50 of {SAMPLES}")?;
        for (workloads, time) in [(FEW, &self.at_few), (self.many, &self.at_many)] {
            writeln!(f, "  at {workloads:>5} workloads {:>8.1} ms ({:.1}–{:.1})", time.value, time.low, time.high)?;
        }
        writeln!(f, "  ratio {:.2}", self.at_many.value / self.at_few.value)
    }
}
