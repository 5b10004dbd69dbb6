//! What is sent to a workload.

use config::resource::{Default as Fallback, Namespace, Network, WorkloadTraffic};

use super::outbound::TCP;
use super::sentence::{self, Service};
use super::{Decision, Inbound, Origin};
use crate::model::Model;
use crate::reason::Reason;

/// The verdict on a new flow to a workload. Malformed frames (1), replies of known flows (2) and the segment's control
/// (4) are the kernel's alone; their numbers are kept.
///
/// 0. A workload without a namespace is sealed.
/// 3. From the edge: to an exposed port only. From the node: with `[node] probes` only. From others: to no exposed port.
/// 6. Ingress policies: none yet.
/// 7. From the same network, if its `workloadTraffic` is Open.
/// 8. `ingressDefault`.
pub(super) fn decide(model: &Model<'_>, flow: &Inbound<'_>) -> Decision {
    let service = Service { protocol: flow.protocol, port: flow.port };
    let Some(namespace) = model.namespace(flow.to) else {
        return sentence::sealed(flow.to); // 0
    };
    let network = model.network(namespace);
    match flow.from {
        Origin::Edge if flow.protocol == TCP && model.exposes(flow.to, flow.port) => {
            Decision::allow(Reason::Edge, format!("an ExposedApp of `{}` exposes {service}", namespace.name)) // 3
        }
        Origin::Edge => sentence::not_exposed(namespace, service), // 3
        Origin::Node if model.node().probes => {
            Decision::allow(Reason::Probe, "the node may probe its workloads (`[node] probes = true`)") // 3
        }
        Origin::Node => sentence::no_probes(), // 3
        Origin::Segment { .. } | Origin::Outside if flow.protocol == TCP && model.exposes(flow.to, flow.port) => {
            sentence::edge_only(namespace, service) // 3
        }
        Origin::Segment { network: from } if network.is_some_and(|own| own.name == *from && open(own)) => {
            Decision::allow(Reason::SameNetwork, format!("`workloadTraffic` of network `{from}` is Open")) // 7
        }
        Origin::Segment { network: from } => {
            by_default(namespace, network.filter(|own| own.name == *from), service) // 8
        }
        Origin::Outside => by_default(namespace, None, service), // 8
    }
}

fn open(network: &Network) -> bool {
    match network.workload_traffic {
        WorkloadTraffic::Open => true,
        WorkloadTraffic::Isolated => false,
    }
}

fn by_default(namespace: &Namespace, shared: Option<&Network>, service: Service) -> Decision {
    match namespace.ingress_default {
        Fallback::Allow => {
            let text =
                format!("no policy isolates the workload, and `ingressDefault` of `{}` is Allow", namespace.name);
            Decision::allow(Reason::AllowedByDefault, text)
        }
        Fallback::Deny => sentence::ingress_default(namespace, shared, service),
    }
}
