//! The conformance cases of upstream Kubernetes, for the tests that have them. They are not part of this tree: they lie
//! in the folder that `TIDEGATE_NETPOL_CASES` names, or in `../shared/netpol` beside the checkout.
//!
//! 1. [`Cases`] finds and reads the folder.
//! 2. [`Case`] is one case; [`Case::steps`] plays its actions and gives the [`Cluster`] after each step.
//! 3. [`Cluster::tables`] is who should reach whom there, and [`Cell::agrees`] compares.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use config::names::Name;
use config::resource::{
    Default as Fallback, Labels, NAMESPACE_NAME_LABEL, NamedPort, Namespace, NetworkPolicy, OnDeny, Protocol, Resource,
};
use serde_json::Value;

use crate::kernel;

/// The folder of the cases.
#[derive(Clone, Debug)]
pub struct Cases(PathBuf);

/// One case.
#[derive(Clone, Debug)]
pub struct Case {
    /// `cyclonus/action/001`
    pub id: String,
    json: Value,
}

/// Namespaces, workloads and policies after a step, and what upstream expects of them.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Labels by namespace.
    spaces: BTreeMap<String, Labels>,
    /// By `namespace/name`.
    pub pods: BTreeMap<String, Pod>,
    /// YAML by namespace and name.
    policies: BTreeMap<(String, String), String>,
    step: Value,
}

/// One workload.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Its namespace.
    pub namespace: Name,
    /// Its labels.
    pub labels: Labels,
    /// Its ports' names.
    pub ports: BTreeSet<NamedPort>,
    /// Its IPv4 address.
    pub v4: Ipv4Addr,
    /// Its IPv6 address.
    pub v6: Ipv6Addr,
}

/// Who should reach whom on one port.
#[derive(Clone, Debug)]
pub struct Table {
    /// The protocol.
    pub protocol: Protocol,
    /// The port.
    pub port: u16,
    /// Sender, receiver and the expectation; nobody who sends to themself.
    pub cells: Vec<(String, String, Cell)>,
}

/// What upstream expects of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell(char);

impl Cell {
    /// Whether it is so: `.` passes, `E` is denied to the sender alone, `I` at the receiver alone, `B` at both; of `X`
    /// upstream does not say where.
    pub fn agrees(self, leaves: bool, enters: bool) -> bool {
        match self.0 {
            '.' => leaves && enters,
            'E' => !leaves && enters,
            'I' => leaves && !enters,
            'B' => !leaves && !enters,
            'X' => !(leaves && enters),
            other => panic!("no such expectation: {other}"),
        }
    }

    /// The same of the receiver alone, where the sender is not judged by its policies; `None` where upstream does not
    /// say.
    pub fn enters(self) -> Option<bool> {
        match self.0 {
            '.' | 'E' => Some(true),
            'I' | 'B' => Some(false),
            _ => None,
        }
    }
}

impl Cases {
    /// `None`: there are none here, and `test` is counted as skipped.
    pub fn find(test: &str) -> Option<Self> {
        let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/netpol");
        let folder = std::env::var_os("TIDEGATE_NETPOL_CASES").map_or_else(beside, PathBuf::from);
        if folder.join("cases.json").is_file() {
            return Some(Self(folder));
        }
        kernel::skip(test, "the upstream cases are not here; TIDEGATE_NETPOL_CASES names their folder");
        None
    }

    /// A file of the folder.
    pub fn read(&self, file: &str) -> Value {
        let path = self.0.join(file);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// Every case.
    pub fn all(&self) -> Vec<Case> {
        let cases = self.read("cases.json");
        items(&cases).map(|json| Case { id: text(&json["id"]), json: json.clone() }).collect()
    }

    /// The world that cases begin in, unless they bring their own.
    pub fn world(&self) -> Value {
        self.read("world.json")
    }
}

impl Case {
    /// The cluster after each step.
    pub fn steps(&self, world: &Value) -> Vec<Cluster> {
        let mut cluster = match self.json.get("world") {
            Some(own) => own_world(own),
            None => standard_world(world),
        };
        let step = |step: &Value| {
            items(&step["actions"]).for_each(|action| cluster.act(action, world));
            cluster.step = step.clone();
            cluster.clone()
        };
        items(&self.json["steps"]).map(step).collect()
    }
}

impl Cluster {
    /// The namespaces, on this network; by Kubernetes' default everything is open.
    pub fn namespaces(&self, network: &Name) -> Vec<Namespace> {
        let space = |(name, labels): (&String, &Labels)| {
            let mut labels = labels.clone();
            labels.insert(NAMESPACE_NAME_LABEL.to_owned(), name.clone());
            let open = Fallback::Allow;
            let (name, network) = (parse(name), network.clone());
            Namespace {
                name,
                labels,
                network,
                egress_default: open,
                ingress_default: open,
                on_deny: OnDeny::Reject,
                query_types: None,
            }
        };
        self.spaces.iter().map(space).collect()
    }

    /// The policies, as they are written for this family.
    pub fn policies(&self, ipv6: bool) -> Vec<NetworkPolicy> {
        let all: Vec<_> = self.policies.values().map(|yaml| policy(&self.filled(yaml, ipv6))).collect();
        let mut listed: Vec<_> =
            items(&self.step["policies"]).map(|yaml| policy(&self.filled(&text(yaml), ipv6))).collect();
        listed.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        assert_eq!(all, listed, "the actions lead to the policies that upstream has then");
        all
    }

    /// What upstream expects for this family.
    pub fn tables(&self, ipv6: bool) -> Vec<Table> {
        let own = if ipv6 && self.step.get("expected_v6").is_some() { "expected_v6" } else { "expected" };
        let lists = [("pods", own), ("pods_full", "expected_full")];
        let lists = lists.into_iter().filter_map(|(pods, key)| Some((pods, self.step.get(key)?.as_object()?)));
        let table = |pods: &str, (service, rows): (&String, &Value)| {
            let (protocol, port) = service.split_once('/').expect("TCP/80");
            let protocol = Protocol::ALL.into_iter().find(|own| own.as_str() == protocol).expect("a protocol");
            let names: Vec<String> = items(&self.step[pods]).map(text).collect();
            let mut cells = Vec::new();
            for (from, row) in names.iter().zip(items(rows)) {
                let row = text(row);
                assert_eq!(row.chars().count(), names.len());
                let others = names.iter().zip(row.chars()).filter(|(to, _)| *to != from);
                cells.extend(others.map(|(to, cell)| (from.clone(), to.clone(), Cell(cell))));
            }
            Table { protocol, port: port.parse().expect("a port"), cells }
        };
        lists
            .flat_map(|(pods, tables)| tables.iter().map(move |entry| table(pods, entry)).collect::<Vec<_>>())
            .collect()
    }

    fn act(&mut self, action: &Value, world: &Value) {
        let (space, pod) = (text(&action["namespace"]), text(&action["pod"]));
        match text(&action["op"]).as_str() {
            "create-policy" | "update-policy" => {
                let yaml = text(&action["policy"]);
                let read = policy(&self.filled(&yaml, false));
                self.policies.insert((read.namespace.to_string(), read.name.to_string()), yaml);
            }
            "delete-policy" => drop(self.policies.remove(&(space, text(&action["name"])))),
            "create-namespace" | "set-namespace-labels" => drop(self.spaces.insert(space, labels(&action["labels"]))),
            "delete-namespace" => {
                self.pods.retain(|_, pod| pod.namespace.as_str() != space);
                drop(self.spaces.remove(&space));
            }
            "create-pod" => {
                let place = format!("{space}/{pod}");
                let made = standard_pod(world, &place, labels(&action["labels"]));
                self.pods.insert(place, made);
            }
            "delete-pod" => drop(self.pods.remove(&format!("{space}/{pod}"))),
            "set-pod-labels" => {
                let pod = self.pods.get_mut(&format!("{space}/{pod}")).expect("a pod");
                pod.labels = labels(&action["labels"]);
            }
            other => panic!("no such action: {other}"),
        }
    }

    /// `${HOST:y/b}` is that pod alone; LOW8, LOW4 and NET4 are blocks around it.
    fn filled(&self, yaml: &str, ipv6: bool) -> String {
        let mut filled = String::new();
        let mut rest = yaml;
        while let Some((before, behind)) = rest.split_once("${") {
            let (word, after) = behind.split_once('}').expect("a closed placeholder");
            let (shape, pod) = word.split_once(':').expect("SHAPE:POD");
            let pod = &self.pods[pod];
            let (bits, full): (u128, u32) =
                if ipv6 { (pod.v6.to_bits(), 128) } else { (u128::from(pod.v4.to_bits()), 32) };
            let length = match shape {
                "HOST" => full,
                "LOW8" => full - 8,
                "LOW4" => full - 4,
                "NET4" => 4,
                other => panic!("no such placeholder: {other}"),
            };
            let bits = bits >> (full - length) << (full - length);
            let address = if ipv6 {
                IpAddr::V6(Ipv6Addr::from_bits(bits))
            } else {
                IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(bits).expect("32 bits")))
            };
            filled += &format!("{before}{address}/{length}");
            rest = after;
        }
        filled + rest
    }
}

fn standard_world(world: &Value) -> Cluster {
    let spaces = world["namespaces"].as_object().expect("namespaces");
    let pods = world["pods"].as_object().expect("pods").iter().filter(|(_, pod)| pod["from_the_start"] == true);
    Cluster {
        spaces: spaces.iter().map(|(name, own)| (name.clone(), labels(own))).collect(),
        pods: pods.map(|(at, pod)| (at.clone(), standard_pod(world, at, labels(&pod["labels"])))).collect(),
        policies: BTreeMap::new(),
        step: Value::Null,
    }
}

fn standard_pod(world: &Value, at: &str, labels: Labels) -> Pod {
    let pod = &world["pods"][at];
    let (namespace, _) = at.split_once('/').expect("NAMESPACE/POD");
    let (v4, v6) = (text(&pod["ipv4"]).parse().expect("an address"), text(&pod["ipv6"]).parse().expect("an address"));
    Pod { namespace: parse(namespace), labels, ports: named_ports(&world["ports"]), v4, v6 }
}

/// A world of a case's own has no addresses.
fn own_world(world: &Value) -> Cluster {
    let spaces = world["namespaces"].as_object().expect("namespaces");
    let pod = |(number, pod): (u8, &Value)| {
        let (namespace, v4) = (text(&pod["ns"]), Ipv4Addr::new(10, 50, 0, number));
        let v6 = Ipv6Addr::new(0xfd50, 0, 0, 0, 0, 0, 0, number.into());
        let (labels, ports) = (labels(&pod["labels"]), named_ports(&pod["ports"]));
        (format!("{namespace}/{}", text(&pod["name"])), Pod { namespace: parse(&namespace), labels, ports, v4, v6 })
    };
    Cluster {
        spaces: spaces.iter().map(|(name, own)| (name.clone(), labels(own))).collect(),
        pods: (10..).zip(items(&world["pods"])).map(pod).collect(),
        policies: BTreeMap::new(),
        step: Value::Null,
    }
}

fn named_ports(ports: &Value) -> BTreeSet<NamedPort> {
    let named = items(ports).filter(|port| !text(&port["name"]).is_empty());
    named.map(|port| serde_json::from_value(port.clone()).expect("a named port")).collect()
}

fn policy(yaml: &str) -> NetworkPolicy {
    let mut read = config::parse("case.yaml", yaml).unwrap_or_else(|problems| panic!("{problems:#?}\n{yaml}"));
    match read.pop().map(|parsed| parsed.resource) {
        Some(Resource::NetworkPolicy(policy)) if read.is_empty() => policy,
        _ => panic!("one NetworkPolicy: {yaml}"),
    }
}

fn labels(json: &Value) -> Labels {
    let mut labels: Labels = serde_json::from_value(json.clone()).expect("labels");
    labels.remove(NAMESPACE_NAME_LABEL);
    labels
}

fn parse(name: &str) -> Name {
    name.parse().expect("a name")
}

fn items(json: &Value) -> impl Iterator<Item = &Value> {
    json.as_array().into_iter().flatten()
}

fn text(json: &Value) -> String {
    json.as_str().unwrap_or_default().to_owned()
}
