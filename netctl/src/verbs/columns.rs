//! The columns of each kind, out of a resource's JSON; what is not there is shown as `<none>`.

use config::api::{Kind, Timestamp};
use serde_json::Value;

use crate::output::time;

/// The header.
pub(super) fn header(kind: Kind, wide: bool) -> Vec<&'static str> {
    let (narrow, more): (&[_], &[_]) = match kind {
        Kind::Network => (
            &["NAME", "VLAN", "SEGMENT", "SUBNETS", "USED/TOTAL", "WORKLOADS", "GATEWAY", "READY", "AGE"],
            &["BRIDGE", "MTU", "SNAT", "TRAFFIC"],
        ),
        Kind::Namespace => (&["NAME", "NETWORK", "EGRESS", "INGRESS", "WORKLOADS", "READY", "AGE"], &["LABELS"]),
        Kind::AddressSet => (&["NAME", "PREFIXES", "SOURCE", "READY", "AGE"], &["POLICIES", "LOADED"]),
        Kind::ClusterEgressPolicy => (
            &["NAME", "NAMESPACES", "SELECTOR", "MODE", "DENY", "ALLOW", "PASS", "WORKLOADS", "READY", "AGE"],
            &["CIDRS", "SETS", "DNS NAMES"],
        ),
        Kind::EgressPolicy => (
            &["NAME", "SELECTOR", "MODE", "ALLOW", "DENY", "WORKLOADS", "READY", "AGE"],
            &["CIDRS", "SETS", "DNS NAMES"],
        ),
        Kind::NetworkPolicy => (&["NAME", "SELECTOR", "TYPES", "WORKLOADS", "READY", "AGE"], &["INGRESS", "EGRESS"]),
        Kind::ExposedApp => (&["NAME", "HOSTS", "TLS", "BACKENDS", "READY", "AGE"], &["PATHS", "CERTIFICATE EXPIRES"]),
        Kind::Workload => (
            &["NAME", "ADDRESSES", "NETWORK", "READY", "AGE"],
            &["MAC", "INTERFACE", "HOST INTERFACE", "NETNS", "POLICIES", "FLOWS", "LABELS"],
        ),
    };
    narrow.iter().chain(more.iter().filter(|_| wide)).copied().collect()
}

/// The cells of one resource under [`header`].
pub(super) fn row(kind: Kind, item: &Value, now: Timestamp, wide: bool) -> Vec<String> {
    let name = text(item, "/metadata/name");
    let (ready, age) = (ready(item), age(item, now));
    let mut cells = match kind {
        Kind::Network => {
            let used = format!("{}/{}", text(item, "/status/used"), text(item, "/status/total"));
            let adopted = item.pointer("/spec/adopt").is_some();
            let gateway = if adopted { String::new() } else { or(text(item, "/spec/gateway"), "Node") };
            vec![
                name,
                vlan(item),
                or(text(item, "/status/segment/state"), "-"),
                join(item, "/spec/subnets", "/cidr"),
                if used == "/" { String::new() } else { used.trim_end_matches("/0").to_owned() },
                text(item, "/status/workloads"),
                gateway,
                ready,
                age,
            ]
        }
        Kind::Namespace => {
            let (egress, ingress) = (text(item, "/spec/egressDefault"), text(item, "/spec/ingressDefault"));
            let workloads = text(item, "/status/workloads");
            vec![name, text(item, "/spec/network"), or(egress, "Deny"), or(ingress, "Deny"), workloads, ready, age]
        }
        Kind::AddressSet => {
            vec![name, text(item, "/status/prefixes"), or(text(item, "/spec/file"), "<cidrs>"), ready, age]
        }
        Kind::ClusterEgressPolicy => {
            let namespaces = or(selector(item, "/spec/namespaceSelector"), "<all>");
            let workloads = or(selector(item, "/spec/selector"), "<all>");
            let [deny, allow, pass] = ["/spec/deny", "/spec/allow", "/spec/pass"].map(|list| count(item, list));
            vec![
                name,
                namespaces,
                workloads,
                mode(item),
                deny,
                allow,
                pass,
                text(item, "/status/workloads"),
                ready,
                age,
            ]
        }
        Kind::EgressPolicy => {
            let selector = or(selector(item, "/spec/selector"), "<all>");
            let (allow, deny) = (count(item, "/spec/allow"), count(item, "/spec/deny"));
            vec![name, selector, mode(item), allow, deny, text(item, "/status/workloads"), ready, age]
        }
        Kind::NetworkPolicy => {
            let selector = or(selector(item, "/spec/podSelector"), "<all>");
            vec![name, selector, join(item, "/spec/policyTypes", ""), text(item, "/status/workloads"), ready, age]
        }
        Kind::ExposedApp => {
            let backends = format!("{}/{}", text(item, "/status/readyBackends"), text(item, "/status/backends"));
            let tls = or(text(item, "/spec/tls/mode"), "Edge");
            vec![
                name,
                join(item, "/spec/hosts", ""),
                tls,
                if backends == "/" { String::new() } else { backends },
                ready,
                age,
            ]
        }
        Kind::Workload => vec![name, join(item, "/status/addresses", ""), text(item, "/status/network"), ready, age],
    };
    if wide {
        cells.extend(more(kind, item));
    }
    cells
}

fn more(kind: Kind, item: &Value) -> Vec<String> {
    match kind {
        Kind::Network => vec![
            text(item, "/status/bridge"),
            text(item, "/spec/mtu"),
            or(text(item, "/spec/egress/snat"), &join(item, "/spec/egress/snat", "")),
            or(text(item, "/spec/workloadTraffic"), "Open"),
        ],
        Kind::Namespace => vec![labels(item, "/metadata/labels")],
        Kind::AddressSet => vec![join(item, "/status/policies", ""), text(item, "/status/loaded")],
        Kind::ClusterEgressPolicy | Kind::EgressPolicy => {
            let of = |key: &str| {
                let rules = item.pointer("/spec/allow").and_then(Value::as_array).into_iter().flatten();
                rules.map(|rule| join(rule, key, "")).filter(|text| !text.is_empty()).collect::<Vec<_>>().join(",")
            };
            vec![of("/cidrs"), of("/sets"), of("/dnsNames")]
        }
        Kind::NetworkPolicy => vec![count(item, "/spec/ingress"), count(item, "/spec/egress")],
        Kind::ExposedApp => vec![join(item, "/spec/routes", "/path"), text(item, "/status/certificateExpires")],
        Kind::Workload => vec![
            text(item, "/status/mac"),
            text(item, "/spec/interface"),
            text(item, "/status/hostInterface"),
            text(item, "/spec/netns"),
            policies(item),
            text(item, "/status/flows"),
            labels(item, "/metadata/labels"),
        ],
    }
}

fn mode(item: &Value) -> String {
    or(text(item, "/spec/mode"), "Enforce")
}

/// The policies that select a workload, those of the admin tier first.
fn policies(item: &Value) -> String {
    let lists = ["/status/clusterPolicies", "/status/policies", "/status/networkPolicies"];
    lists.map(|list| join(item, list, "")).into_iter().filter(|names| !names.is_empty()).collect::<Vec<_>>().join(",")
}

/// A scalar; empty when it is not there.
pub(super) fn text(item: &Value, pointer: &str) -> String {
    match item.pointer(pointer) {
        None | Some(Value::Null | Value::Array(_) | Value::Object(_)) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Bool(value)) => value.to_string(),
        Some(Value::Number(number)) => number.to_string(),
    }
}

/// `k=v,k=v`
pub(super) fn labels(item: &Value, pointer: &str) -> String {
    let pairs = item.pointer(pointer).and_then(Value::as_object).into_iter().flatten();
    pairs.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect::<Vec<_>>().join(",")
}

/// `k=v,k in (a,b),k notin (a,b),k,!k`, as kubectl writes selectors.
fn selector(item: &Value, pointer: &str) -> String {
    let labels = labels(item, &format!("{pointer}/matchLabels"));
    let expressions = item.pointer(&format!("{pointer}/matchExpressions")).and_then(Value::as_array);
    let expression = |it: &Value| {
        let key = text(it, "/key");
        match text(it, "/operator").as_str() {
            "Exists" => key,
            "DoesNotExist" => format!("!{key}"),
            operator => format!("{key} {} ({})", operator.to_lowercase(), join(it, "/values", "")),
        }
    };
    let all = Some(labels).filter(|labels| !labels.is_empty()).into_iter();
    all.chain(expressions.into_iter().flatten().map(expression)).collect::<Vec<_>>().join(",")
}

fn age(item: &Value, now: Timestamp) -> String {
    match text(item, "/metadata/creationTimestamp").parse::<Timestamp>() {
        Ok(created) => time::age(created.age(now)),
        Err(_) => String::new(),
    }
}

fn ready(item: &Value) -> String {
    match item.pointer("/status/ready").and_then(Value::as_bool) {
        Some(true) => "yes".to_owned(),
        Some(false) => "no".to_owned(),
        None => String::new(),
    }
}

fn vlan(item: &Value) -> String {
    if let Some(adopt) = item.pointer("/spec/adopt") {
        return format!("adopts {}{}", text(adopt, "/bridge"), text(adopt, "/cniNetwork"));
    }
    match item.pointer("/spec/vlan") {
        None | Some(Value::Null) => "local".to_owned(),
        Some(vlan) => {
            let protocol = if text(vlan, "/protocol") == "802.1ad" { " (802.1ad)" } else { "" };
            format!("{}.{}{protocol}", text(vlan, "/parent"), text(vlan, "/id"))
        }
    }
}

/// The scalars at `inner` of each element, joined by commas.
fn join(item: &Value, pointer: &str, inner: &str) -> String {
    let elements = item.pointer(pointer).and_then(Value::as_array).into_iter().flatten();
    elements.map(|element| text(element, inner)).collect::<Vec<_>>().join(",")
}

fn count(item: &Value, pointer: &str) -> String {
    item.pointer(pointer).and_then(Value::as_array).map_or(0, Vec::len).to_string()
}

fn or(text: String, default: &str) -> String {
    if text.is_empty() { default.to_owned() } else { text }
}
