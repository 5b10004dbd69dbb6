//! The cases of upstream Kubernetes through the real programs: each connection leaves its sender's device and enters its
//! receiver's, in both families. The whole of them with `TIDEGATE_LONG`; otherwise each eighth case.

use std::collections::BTreeMap;
use std::net::IpAddr;

use config::resource::{Gateway, Network, Protocol, Snat, WorkloadTraffic};
use gateway::egress::attach::Program;
use gateway::egress::tables::workloads::{PortAddresses, WorkloadEntry};
use gateway::settings::Limits;
use gateway::workload::{Address, Mac, WorkloadId};
use integration::conformance::{Cases, Cluster, Pod, Table};
use policy::compile::Compiled;
use policy::tables::{PolicyId, PolicyRef};
use policy::{Model, Resident, Subject};

use super::frames::*;
use super::world::*;

const TC_ACT_SHOT: i32 = 2;

/// Answered by the gateway itself, whatever the server: what leaves is not judged by policies.
const DNS: u16 = 53;

/// The devices of all workloads that any case has, and what is in force for them.
struct Bed {
    node: Node,
    /// Device and number, by the workload's name.
    devices: BTreeMap<String, (u32, u8)>,
    network: Network,
    epoch: u32,
    /// What is in the tables.
    compiled: Compiled,
}

fn subject(pod: &Pod) -> Subject {
    Subject { namespace: pod.namespace.clone(), labels: pod.labels.clone(), ports: pod.ports.clone() }
}

fn mac(number: u8) -> Mac {
    Mac([2, 0, 0, 0, 1, number])
}

impl Bed {
    fn new() -> Self {
        let node = Node::with(Limits { flows: 65_536, learned: 1024, ..Limits::default() });
        node.tables.retire(&generation(1), &policies(&[EGRESS, INGRESS])).unwrap();
        let network = Network {
            name: "tenant-a".parse().unwrap(),
            adopt: None,
            reservations: Vec::new(),
            hold: None,
            vlan: None,
            subnets: Vec::new(),
            gateway: Gateway::Node,
            snat: Snat::None,
            workload_traffic: WorkloadTraffic::Open,
            dns: None,
            mtu: None,
        };
        let compiled = Compiled::new(2, PolicyId(1000));
        Self { node, devices: BTreeMap::new(), network, epoch: 1, compiled }
    }

    fn device(&mut self, name: &str) -> (u32, u8) {
        if let Some(known) = self.devices.get(name) {
            return *known;
        }
        let number = u8::try_from(self.devices.len()).unwrap() + 10;
        ip(&format!("link add p{number} type veth peer name q{number}"));
        ip(&format!("link set p{number} up"));
        let made = (ifindex(&format!("p{number}")), number);
        self.devices.insert(name.to_owned(), made);
        made
    }

    /// Puts the policies of this step in force for all workloads.
    fn install(&mut self, cluster: &Cluster, ipv6: bool) {
        let node = policy::Node::default();
        let (namespaces, own) = (cluster.namespaces(&self.network.name), cluster.policies(ipv6));
        let resident = |pod: &Pod| Resident { subject: subject(pod), addresses: vec![pod.v4.into(), pod.v6.into()] };
        let model = Model::new(&namespaces, [&self.network], [], [], &node)
            .with_network_policies(&own)
            .with_residents(cluster.pods.values().map(resident));
        self.epoch += 1;
        let step = self.compiled.advance(&model, cluster.pods.values().map(subject));
        self.node.tables.apply(&step).unwrap();
        let mut switched = Vec::new();
        for (name, pod) in &cluster.pods {
            let (device, number) = self.device(name);
            let entry = self.entry(number, self.compiled.policy(&subject(pod)).unwrap());
            self.node.tables.switch(device, &entry).unwrap();
            switched.push((device, entry, addresses(pod, number)));
        }
        let ports = switched.iter().map(|(ifindex, entry, own)| PortAddresses {
            ifindex: *ifindex,
            entry: *entry,
            addresses: own,
        });
        self.node.tables.set_addresses(&ports.collect::<Vec<_>>()).unwrap();
        let gone = self.compiled.settle();
        self.node.tables.apply(&gone).unwrap();
        self.node.tables.remove_rules(&[step.dead, gone.dead].concat()).unwrap();
    }

    fn entry(&self, number: u8, policy: PolicyRef) -> WorkloadEntry {
        WorkloadEntry {
            id: WorkloadId(number.into()),
            network: NETWORK,
            epoch: self.epoch,
            generation: policy.generation,
            egress_policy: policy.egress,
            ingress_policy: policy.ingress,
            open: policy.open,
            probes: policy.probes,
            flow_quota: 8_192,
            mac: mac(number),
            ..entry(number.into())
        }
    }

    /// Whether the first packet of a connection leaves its sender, and whether it enters its receiver.
    fn tries(
        &self,
        cluster: &Cluster,
        [from, to]: [&str; 2],
        ipv6: bool,
        (protocol, port): (Protocol, u16),
    ) -> [bool; 2] {
        let [(source, one), (target, other)] = [from, to].map(|name| self.devices[name]);
        let [sender, receiver] = [from, to].map(|name| address(&cluster.pods[name], ipv6).to_string());
        let payload = match protocol {
            Protocol::Tcp => tcp(4000, port, SYN),
            Protocol::Udp => udp(4000, port),
            Protocol::Sctp => sctp(4000, port),
            Protocol::Icmp | Protocol::Icmpv6 => panic!("the cases have ports"),
        };
        let kind = if ipv6 { 0x86dd } else { 0x0800 };
        let frame = ethernet(mac(one), mac(other), kind, &plain(&sender, &receiver, protocol.number(), &payload));
        let passes = |program, device, entered_by| {
            self.node.tables.try_frame(program, &frame, device, entered_by).unwrap().action != TC_ACT_SHOT
        };
        [passes(Program::FromWorkload, source, 0), passes(Program::ToWorkload, target, source)]
    }
}

fn address(pod: &Pod, ipv6: bool) -> IpAddr {
    if ipv6 { pod.v6.into() } else { pod.v4.into() }
}

fn addresses(pod: &Pod, number: u8) -> [Address; 2] {
    let handle = |address: IpAddr, handle: String| Address { address, handle: addr(&handle) };
    [handle(pod.v4.into(), format!("198.18.1.{number}")), handle(pod.v6.into(), format!("fd74:6769::1:{number}"))]
}

#[test]
fn upstream_cases_pass_through_the_programs_as_upstream_has_them() {
    let Some(cases) = Cases::find("upstream_cases_pass_through_the_programs_as_upstream_has_them") else { return };
    let each = if std::env::var_os("TIDEGATE_LONG").is_some() { 1 } else { 8 };
    let world = cases.world();
    let mut bed = Bed::new();
    let (mut answers, mut open, mut failed) = (0, 0, Vec::new());
    for case in cases.all().iter().step_by(each) {
        for (number, cluster) in case.steps(&world).iter().enumerate() {
            for ipv6 in [false, true] {
                bed.install(cluster, ipv6);
                for Table { protocol, port, cells } in cluster.tables(ipv6) {
                    for (from, to, cell) in cells {
                        let [leaves, enters] = bed.tries(cluster, [&from, &to], ipv6, (protocol, port));
                        let agrees = match port {
                            DNS => cell.enters().is_none_or(|wanted| wanted == enters),
                            _ => cell.agrees(leaves, enters),
                        };
                        answers += 1;
                        open += usize::from(leaves && enters);
                        if !agrees {
                            let protocol = protocol.as_str();
                            let place = format!("{} step {number}: {from} to {to} {protocol}/{port}", case.id);
                            failed.push(format!("{place}: upstream {cell:?}, leaves {leaves}, enters {enters}"));
                        }
                    }
                }
            }
        }
    }
    println!("{answers} answers, {open} of them open");
    assert!(answers > 20_000 && open > 1_000, "{answers} answers, {open} open");
    assert!(failed.is_empty(), "{} differ:\n{}", failed.len(), failed[..failed.len().min(40)].join("\n"));
}
