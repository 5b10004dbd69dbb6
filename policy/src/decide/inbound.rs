//! What is sent to a workload.

use config::resource::{Default as Fallback, Namespace, Network, NetworkPolicy};

use super::outbound::TCP;
use super::sentence::{self, Service};
use super::{Decision, Inbound, Origin};
use crate::model::{self, Model, Probes};
use crate::peers;
use crate::reason::Reason;
use crate::tables::RuleList;

/// The verdict on a new flow to a workload. Malformed frames (1), replies of known flows (2) and the segment's control
/// (4) are the kernel's alone; their numbers are kept.
///
/// 0. A workload without a namespace is sealed.
/// 3. From the edge: to an exposed port only. From the node: as `[node] probes` says. From others: to no exposed port.
/// 6. The `ingress` rules of network policies.
/// 7. From the same network, if its `workloadTraffic` is Open and no network policy isolates the workload.
/// 8. Where a network policy isolates it, nothing more; else `ingressDefault`.
pub(super) fn decide(model: &Model<'_>, flow: &Inbound<'_>) -> Decision {
    let service = Service { protocol: flow.protocol, port: flow.port };
    let Some(namespace) = model.namespace(flow.to) else {
        return sentence::sealed(flow.to); // 0
    };
    match flow.from {
        Origin::Edge if flow.protocol == TCP && model.exposes(flow.to, flow.port) => {
            Decision::allow(Reason::Edge, format!("an ExposedApp of `{}` exposes {service}", namespace.name)) // 3
        }
        Origin::Edge => sentence::not_exposed(namespace, service), // 3
        Origin::Node if model.may_probe(flow.to) => Decision::allow(Reason::Probe, may_probe(model)), // 3
        Origin::Node => sentence::no_probes(model.node().probes),  // 3
        Origin::Segment { .. } | Origin::Outside if flow.protocol == TCP && model.exposes(flow.to, flow.port) => {
            sentence::edge_only(namespace, service) // 3
        }
        Origin::Segment { network } => {
            let shared = model.network(namespace).filter(|own| own.name == *network);
            by_policies(model, flow, namespace, shared) // 6, 7, 8
        }
        Origin::Outside => by_policies(model, flow, namespace, None), // 6, 8
    }
}

fn may_probe(model: &Model<'_>) -> &'static str {
    match model.node().probes {
        Probes::All => "the node may probe its workloads (`[node] probes = true`)",
        Probes::Selected | Probes::Never => "the node may probe a workload that a NetworkPolicy selects",
    }
}

fn by_policies(model: &Model<'_>, flow: &Inbound<'_>, namespace: &Namespace, shared: Option<&Network>) -> Decision {
    let service = Service { protocol: flow.protocol, port: flow.port };
    let mut isolating = model.network_policies(flow.to);
    isolating.retain(|policy| policy.types.ingress);
    let view = model.view(flow.to);
    for policy in &isolating {
        for (name, rule) in model::peer_rules(policy, RuleList::Ingress) {
            let meant = model.means(policy, rule, view, flow.remote);
            if meant && peers::opens(rule, Some(flow.to), flow.protocol, flow.port) {
                let text = format!("rule `{name}` allows {service} from {}", flow.remote);
                return Decision::allow(Reason::AllowedByCidr, text).by(name); // 6
            }
        }
    }
    if !isolating.is_empty() {
        return isolated(model, flow, namespace, &isolating); // 8
    }
    match shared {
        Some(network) if model.is_open(flow.to) => {
            let text = format!("`workloadTraffic` of network `{}` is Open", network.name);
            Decision::allow(Reason::SameNetwork, text) // 7
        }
        Some(_) | None => by_default(namespace, shared, service), // 8
    }
}

/// Nothing spoke for it: say what came nearest.
fn isolated(model: &Model<'_>, flow: &Inbound<'_>, namespace: &Namespace, isolating: &[&NetworkPolicy]) -> Decision {
    let service = Service { protocol: flow.protocol, port: flow.port };
    let view = model.view(flow.to);
    let nearest = isolating.iter().find_map(|policy| {
        let mut rules = model::peer_rules(policy, RuleList::Ingress);
        let (name, _) = rules.find(|(_, rule)| model.means(policy, rule, view, flow.remote))?;
        Some(format!("rule `{name}` means {}, but not {service}", flow.remote))
    });
    let names: Vec<String> = isolating.iter().map(|policy| policy.name.to_string()).collect();
    sentence::ingress_isolated(namespace, &names, flow.remote, model.resident(view, flow.remote), service, nearest)
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
