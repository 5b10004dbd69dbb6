//! The cases of upstream Kubernetes, by `decide` and by the kernel's lookups over the compiled tables, in both families.

use std::collections::BTreeMap;
use std::net::IpAddr;

use config::resource::{Gateway, Network, Snat, WorkloadTraffic};
use integration::conformance::{Cases, Cell, Cluster, Pod, Table};
use policy::tables::PolicyId;
use policy::{Inbound, Model, Node, Origin, Outbound, Query, Resident, Shown, Subject, Target, compile, decide};

use crate::kernel::{Kernel, Workload};
use crate::text::name;

/// Whatever the server, DNS is answered by the gateway itself.
const DNS: u16 = 53;

/// The node's network. That it is open must make no difference where a policy isolates.
fn network(workload_traffic: WorkloadTraffic) -> Network {
    Network {
        name: name("tenant-a"),
        adopt: None,
        reservations: Vec::new(),
        hold: None,
        vlan: None,
        subnets: Vec::new(),
        gateway: Gateway::Node,
        snat: Snat::None,
        workload_traffic,
        dns: None,
        mtu: None,
    }
}

fn subject(pod: &Pod) -> Subject {
    Subject { namespace: pod.namespace.clone(), labels: pod.labels.clone(), ports: pod.ports.clone() }
}

fn address(pod: &Pod, ipv6: bool) -> IpAddr {
    if ipv6 { pod.v6.into() } else { pod.v4.into() }
}

/// Asks for every cell; answers how many there were, and those that are otherwise.
fn play(cluster: &Cluster, ipv6: bool, traffic: WorkloadTraffic) -> (usize, Vec<String>) {
    let (network, node) = (network(traffic), Node::default());
    let (namespaces, policies) = (cluster.namespaces(&network.name), cluster.policies(ipv6));
    let residents = cluster
        .pods
        .values()
        .map(|pod| Resident { subject: subject(pod), addresses: vec![pod.v4.into(), pod.v6.into()] });
    let model = Model::new(&namespaces, [&network], [], [], &node);
    let model = model.with_network_policies(&policies).with_residents(residents);
    let subjects: BTreeMap<&str, Subject> = cluster.pods.iter().map(|(at, pod)| (at.as_str(), subject(pod))).collect();
    let compiled = compile(&model, &subjects.values().cloned().collect(), 7, PolicyId(100));
    let kernel = Kernel::load(&compiled.generation());
    let workload = |at: &str| Workload { id: 0, policy: compiled.policy(&subjects[at]).unwrap() };

    let (mut answers, mut differing) = (0, Vec::new());
    for Table { protocol, port, cells } in cluster.tables(ipv6) {
        let number = protocol.number();
        for (from, to, cell) in cells {
            let (source, target) = (address(&cluster.pods[&from], ipv6), address(&cluster.pods[&to], ipv6));
            let target = Target { address: target, protocol: number, port };
            let origin = Origin::Segment { network: &network.name };
            let out =
                Outbound { from: &subjects[from.as_str()], to: target, resolved: &[], shown: Shown::NotYet, now: 0 };
            let into =
                Inbound { to: &subjects[to.as_str()], from: origin.clone(), remote: source, protocol: number, port };
            let decided = [decide(&model, &Query::From(out)), decide(&model, &Query::To(into))].map(|it| it.allowed);
            let compiled = [
                kernel.egress(workload(&from), target, &node, 0).reason.passes(),
                kernel.ingress(workload(&to), &origin, source, number, port, true).reason.passes(),
            ];
            answers += 1;
            for (who, [leaves, enters]) in [("decide", decided), ("the tables", compiled)] {
                if !agrees(cell, port, leaves, enters) {
                    let protocol = protocol.as_str();
                    differing.push(format!(
                        "{from} to {to} {protocol}/{port}: upstream {cell:?}, {who}: leaves {leaves}, enters {enters}"
                    ));
                }
            }
        }
    }
    (answers, differing)
}

/// Port 53 always leaves, into the service namespace; what enters is judged as ever.
fn agrees(cell: Cell, port: u16, leaves: bool, enters: bool) -> bool {
    match port {
        DNS => leaves && cell.enters().is_none_or(|wanted| wanted == enters),
        _ => cell.agrees(leaves, enters),
    }
}

#[test]
fn upstream_cases_are_decided_and_compiled_as_upstream_has_them() {
    let test = "upstream_cases_are_decided_and_compiled_as_upstream_has_them";
    let Some(cases) = Cases::find(test) else { return };
    let world = cases.world();
    let (mut steps, mut answers, mut failed) = (0, 0, Vec::new());
    let all = cases.all();
    for case in &all {
        for (number, cluster) in case.steps(&world).iter().enumerate() {
            steps += 1;
            for (ipv6, traffic) in [(false, WorkloadTraffic::Open), (true, WorkloadTraffic::Isolated)] {
                let (asked, differing) = play(cluster, ipv6, traffic);
                answers += asked;
                failed.extend(differing.iter().take(3).map(|line| format!("{} step {number}: {line}", case.id)));
            }
        }
    }
    println!("{} cases, {steps} steps, {answers} answers of two families", all.len());
    assert_eq!((all.len(), steps), (295, 331));
    assert!(failed.is_empty(), "{} differ:\n{}", failed.len(), failed[..failed.len().min(40)].join("\n"));
}
