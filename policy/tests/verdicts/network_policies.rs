//! What a NetworkPolicy means, case by case, by `decide` and by the compiled tables.

use std::net::IpAddr;

use config::Resources;
use policy::reason::Reason;
use policy::tables::PolicyId;
use policy::{
    Decision, Grounds, Inbound, Model, Node, Origin, Outbound, Probes, Query, Resident, Resolve, Shown, Subject,
    Target, compile, decide,
};

use crate::kernel::{Kernel, Workload};
use crate::text::{dns, labels, name};

/// Namespaces `shop` and `bank` with a default of Allow, on one network that the node routes; then policies.
const NODE_ROUTES: &str = "
apiVersion: tidegate.dev/v1alpha1
kind: Network
metadata: { name: tenant-a }
spec: { subnets: [ { cidr: 10.0.0.0/16, gateway: 10.0.0.1 } ] }
---
apiVersion: tidegate.dev/v1alpha1
kind: Namespace
metadata: { name: shop, labels: { team: sales } }
spec: { network: tenant-a, egressDefault: Allow, ingressDefault: Allow }
---
apiVersion: tidegate.dev/v1alpha1
kind: Namespace
metadata: { name: bank }
spec: { network: tenant-a, egressDefault: Allow, ingressDefault: Allow }
---
";

/// `NAMESPACE LABELS | PORTS | ADDRESSES` of each workload.
const WORKLOADS: &str = "
    shop app=web  | http=8080/TCP dns=5353/UDP | 10.0.1.1 fd00::1:1
    shop app=jobs |                            | 10.0.1.2 fd00::1:2
    bank app=web  | http=9090/TCP              | 10.0.2.1 fd00::2:1
    bank app=db   | http=8080/UDP              | 10.0.2.2 fd00::2:2
    bank          |                            | 10.0.2.3 fd00::2:3";

struct Site {
    resources: Resources,
    node: Node,
    residents: Vec<Resident>,
}

impl Site {
    fn new(resources: &str, workloads: &str, probes: Probes) -> Self {
        let parsed = config::parse("site.yaml", resources).unwrap_or_else(|problems| panic!("{problems:#?}"));
        let resources: Resources = parsed.into_iter().map(|parsed| parsed.resource).collect();
        assert_eq!(config::check(&resources), []);
        let workloads = workloads.lines().map(str::trim).filter(|line| !line.is_empty());
        Self { resources, node: Node { probes, ..Node::default() }, residents: workloads.map(resident).collect() }
    }

    fn with(policies: &str) -> Self {
        Self::new(&format!("{NODE_ROUTES}{policies}"), WORKLOADS, Probes::Selected)
    }

    fn model(&self) -> Model<'_> {
        let it = &self.resources;
        Model::new(it.namespaces(), it.networks(), it.policies(), it.apps(), &self.node)
            .with_network_policies(it.network_policies())
            .with_residents(self.residents.clone())
    }

    /// The verdict on leaving and on entering, on which `decide` and the tables agree.
    fn ask(&self, from: usize, to: usize, protocol: u8, port: u16) -> [Decision; 2] {
        let (sender, receiver) = (&self.residents[from], &self.residents[to]);
        let target = |ipv6| receiver.addresses.iter().copied().find(|it| it.is_ipv6() == ipv6).unwrap();
        let source = |ipv6| sender.addresses.iter().copied().find(|it| it.is_ipv6() == ipv6).unwrap();
        let [four, six] = [false, true].map(|ipv6| {
            let to = Target { address: target(ipv6), protocol, port };
            [self.leaving(from, to), self.entering(receiver, from, source(ipv6), protocol, port)]
        });
        let said = |both: &[Decision; 2]| both.clone().map(|it| (it.reason, it.rule));
        assert_eq!(said(&four), said(&six), "both families are judged alike");
        four
    }

    fn leaving(&self, from: usize, to: Target) -> Decision {
        let subject = &self.residents[from].subject;
        let flow = Outbound { from: subject, to, resolved: &[], shown: Shown::NotYet, now: 0 };
        let decision = decide(&self.model(), &Query::From(flow));
        self.compare(&decision, |kernel, own| kernel.egress(own, to, &self.node, 0), subject);
        decision
    }

    fn entering(&self, to: &Resident, from: usize, remote: IpAddr, protocol: u8, port: u16) -> Decision {
        let model = self.model();
        let network = |subject: &Subject| model.network(model.namespace(subject).unwrap()).unwrap().name.clone();
        let (own, other) = (network(&to.subject), network(&self.residents[from].subject));
        let origin = if own == other { Origin::Segment { network: &other } } else { Origin::Outside };
        let flow = Inbound { to: &to.subject, from: origin.clone(), remote, protocol, port };
        let decision = decide(&model, &Query::To(flow));
        let ask = |kernel: &Kernel, entry| kernel.ingress(entry, &origin, remote, protocol, port, own == other);
        self.compare(&decision, ask, &to.subject);
        decision
    }

    fn compare(
        &self,
        decision: &Decision,
        ask: impl Fn(&Kernel, Workload) -> crate::kernel::Verdict,
        subject: &Subject,
    ) {
        let subjects = self.residents.iter().map(|own| own.subject.clone()).collect();
        let compiled = compile(&self.model(), &subjects, 1, PolicyId(1));
        let kernel = Kernel::load(&compiled.generation());
        let verdict = ask(&kernel, Workload { id: 0, policy: compiled.policy(subject).unwrap() });
        let rule = compiled.rule_name(verdict.rule).cloned();
        assert_eq!((verdict.reason, rule), (decision.reason, decision.rule.clone()), "{decision:?}");
    }

    /// Checks lines of `FROM TO tcp/80 | how it leaves | how it enters`, workloads by number.
    fn check(&self, cases: &str) {
        for case in cases.lines().map(str::trim).filter(|case| !case.is_empty()) {
            let columns: Vec<&str> = case.split('|').map(str::trim).collect();
            let words: Vec<&str> = columns[0].split_whitespace().collect();
            let (protocol, port) = words[2].split_once('/').unwrap();
            let protocol = ["tcp", "udp", "sctp"].into_iter().zip([6, 17, 132]).find(|(word, _)| *word == protocol);
            let both = self.ask(
                words[0].parse().unwrap(),
                words[1].parse().unwrap(),
                protocol.unwrap().1,
                port.parse().unwrap(),
            );
            let said = both.map(|it| match it.rule {
                Some(rule) => format!("{} {rule}", it.reason.word()),
                None => it.reason.word().to_owned(),
            });
            assert_eq!(said, [columns[1], columns[2]], "{case}");
        }
    }
}

fn resident(line: &str) -> Resident {
    let columns: Vec<&str> = line.split('|').collect();
    let (namespace, own) = columns[0].trim().split_once(' ').unwrap_or((columns[0].trim(), ""));
    let words = |column: &str| column.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    Resident {
        subject: Subject {
            namespace: name(namespace),
            labels: labels(own),
            ports: words(columns[1]).iter().map(|port| port.parse().unwrap()).collect(),
        },
        addresses: words(columns[2]).iter().map(|address| address.parse().unwrap()).collect(),
    }
}

const TO_WEB: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: to-web, namespace: shop }
spec:
  podSelector: { matchLabels: { app: web } }
  ingress:
    - from: [ { podSelector: { matchLabels: { app: jobs } } } ]
      ports: [ { port: http }, { port: dns, protocol: UDP } ]
    - from: [ { namespaceSelector: { matchLabels: { kubernetes.io/metadata.name: bank } }, podSelector: { matchLabels: { app: db } } } ]
      ports: [ { port: 9000, endPort: 9010 } ]
";

#[test]
fn a_policy_isolates_what_it_selects_and_nothing_else() {
    let site = Site::with(TO_WEB);
    site.check(
        "1 0 tcp/8080 | allowed-by-default | allowed-by-cidr shop/to-web ingress[0]
         1 0 udp/5353 | allowed-by-default | allowed-by-cidr shop/to-web ingress[0]
         1 0 tcp/5353 | allowed-by-default | denied-by-default
         1 0 udp/8080 | allowed-by-default | denied-by-default
         1 0 tcp/9000 | allowed-by-default | denied-by-default
         3 0 tcp/9005 | allowed-by-default | allowed-by-cidr shop/to-web ingress[1]
         3 0 tcp/9011 | allowed-by-default | denied-by-default
         3 0 sctp/9005 | allowed-by-default | denied-by-default
         2 0 tcp/9005 | allowed-by-default | denied-by-default
         0 1 tcp/80   | allowed-by-default | same-network
         2 1 tcp/80   | allowed-by-default | same-network
         0 2 tcp/80   | allowed-by-default | same-network",
    );
    let model = site.model();
    let open = site.residents.iter().map(|own| model.is_open(&own.subject));
    assert_eq!(open.collect::<Vec<_>>(), [false, true, true, true, true], "the policy wins over the network");
}

#[test]
fn policies_of_both_kinds_add_up_and_denies_win() {
    let site = Site::with(
        "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: a, namespace: shop }
spec:
  podSelector: {}
  policyTypes: [ Egress ]
  egress:
    - to: [ { namespaceSelector: {}, podSelector: { matchLabels: { app: db } } } ]
      ports: [ { port: 80 } ]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: b, namespace: shop }
spec:
  podSelector: {}
  policyTypes: [ Egress ]
  egress:
    - to: [ { namespaceSelector: {} } ]
      ports: [ { port: http }, { port: http, protocol: UDP } ]
---
apiVersion: tidegate.dev/v1alpha1
kind: EgressPolicy
metadata: { name: a, namespace: shop }
spec:
  selector: { matchLabels: { app: jobs } }
  deny: [ { cidrs: [ 10.0.2.0/24, 'fd00::2:0/120' ], ports: [ { port: 9090 } ] } ]
  allow: [ { cidrs: [ 10.0.2.0/24, 'fd00::2:0/120' ], ports: [ { port: 22 } ] } ]
",
    );
    site.check(
        "0 3 tcp/80   | allowed-by-cidr shop/a egress[0] | same-network
         0 2 tcp/80   | denied-by-default                | same-network
         0 2 tcp/9090 | allowed-by-cidr shop/b egress[0] | same-network
         0 3 tcp/9090 | denied-by-default                | same-network
         0 3 udp/8080 | allowed-by-cidr shop/b egress[0] | same-network
         0 3 tcp/8080 | denied-by-default                | same-network
         0 1 tcp/8080 | denied-by-default                | same-network
         1 0 tcp/8080 | allowed-by-cidr shop/b egress[0] | same-network
         1 2 tcp/9090 | denied-by-cidr shop/a deny[0]    | same-network
         1 2 tcp/22   | allowed-by-cidr shop/a allow[0]  | same-network
         0 2 tcp/22   | denied-by-default                | same-network
         2 0 tcp/22   | allowed-by-default               | same-network",
    );
}

#[test]
fn blocks_mean_workloads_and_except_narrows_its_own_block() {
    let site = Site::with(
        "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: blocks, namespace: bank }
spec:
  podSelector: { matchLabels: { app: db } }
  ingress:
    - from:
        - ipBlock: { cidr: 10.0.0.0/16, except: [ 10.0.1.0/24 ] }
        - ipBlock: { cidr: 10.0.1.2/32 }
        - ipBlock: { cidr: 'fd00::/16', except: [ 'fd00::1:1/128' ] }
",
    );
    site.check(
        "2 3 tcp/1 | allowed-by-default | allowed-by-cidr bank/blocks ingress[0]
         1 3 tcp/1 | allowed-by-default | allowed-by-cidr bank/blocks ingress[0]
         0 3 tcp/1 | allowed-by-default | denied-by-default",
    );
}

/// Both networks have a router of their own and the same addresses; in each, `app=a` may reach `app=b`.
#[test]
fn an_address_is_each_tenants_own() {
    let tenant = |number: u8, peer: &str| {
        format!(
            "
apiVersion: tidegate.dev/v1alpha1
kind: Network
metadata: {{ name: net{number} }}
spec: {{ gateway: External, subnets: [ {{ cidr: 10.0.0.0/16 }}, {{ cidr: 'fd00::/64' }} ], egress: {{ snat: None }} }}
---
apiVersion: tidegate.dev/v1alpha1
kind: Namespace
metadata: {{ name: t{number} }}
spec: {{ network: net{number}, egressDefault: Allow, ingressDefault: Allow }}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{ name: p, namespace: t{number} }}
spec:
  podSelector: {{ matchLabels: {{ app: b }} }}
  ingress: [ {{ from: [ {{ namespaceSelector: {{}}, podSelector: {{ matchLabels: {{ app: {peer} }} }} }} ] }} ]
---
"
        )
    };
    // In the second tenant the addresses of a and c are those of c and a in the first.
    let workloads = "
        t1 app=a | | 10.0.0.1 fd00::1
        t1 app=b | | 10.0.0.2 fd00::2
        t1 app=c | | 10.0.0.3 fd00::3
        t2 app=c | | 10.0.0.1 fd00::1
        t2 app=b | | 10.0.0.2 fd00::2
        t2 app=a | | 10.0.0.3 fd00::3";
    let site = Site::new(&(tenant(1, "a") + &tenant(2, "a")), workloads, Probes::Selected);
    site.check(
        "0 1 tcp/80 | allowed-by-default | allowed-by-cidr t1/p ingress[0]
         2 1 tcp/80 | allowed-by-default | denied-by-default
         5 4 tcp/80 | allowed-by-default | allowed-by-cidr t2/p ingress[0]
         3 4 tcp/80 | allowed-by-default | denied-by-default",
    );
    let subjects = site.residents.iter().map(|own| own.subject.clone()).collect();
    let compiled = compile(&site.model(), &subjects, 5, PolicyId(1));
    assert_eq!(compiled.generation().tries().map(|(number, _)| number).collect::<Vec<_>>(), [5, 6, 7]);
    assert!(compiled.generation().prefixes.is_empty(), "what the node routes is not spoken of");
}

#[test]
fn the_node_reaches_what_a_network_policy_selects() {
    for (probes, passes) in
        [(Probes::Selected, [true, false]), (Probes::All, [true, true]), (Probes::Never, [false, false])]
    {
        let site = Site::new(&format!("{NODE_ROUTES}{TO_WEB}"), WORKLOADS, probes);
        let model = site.model();
        let probed = [0, 1].map(|number: usize| {
            let to = &site.residents[number].subject;
            let flow = Inbound { to, from: Origin::Node, remote: "10.0.0.1".parse().unwrap(), protocol: 6, port: 1 };
            let decision = decide(&model, &Query::To(flow));
            assert_eq!(decision.reason == Reason::Probe, decision.allowed);
            decision.allowed
        });
        assert_eq!(probed, passes, "{probes:?}");
    }
}

#[test]
fn a_rule_for_port_53_lets_every_name_be_looked_up() {
    let rules = [
        ("[]", "refused"),
        ("[ {} ]", "shop/p egress[0]"),
        ("[ { ports: [ { port: 80 } ] }, { ports: [ { port: 53, protocol: UDP } ] } ]", "shop/p egress[1]"),
        ("[ { to: [ { podSelector: {} } ], ports: [ { port: 53 } ] } ]", "shop/p egress[0]"),
        ("[ { to: [ { podSelector: {} } ] } ]", "refused"),
        ("[ { to: [ { podSelector: {} } ], ports: [ { port: 1, endPort: 100 } ] } ]", "refused"),
        ("[ { to: [ { ipBlock: { cidr: 0.0.0.0/0 } } ] } ]", "shop/p egress[0]"),
        ("[ { to: [ { ipBlock: { cidr: 0.0.0.0/0, except: [ 10.0.0.0/8 ] } } ] } ]", "refused"),
        ("[ { ports: [ { port: 53, protocol: SCTP } ] } ]", "refused"),
        ("[ { ports: [ { protocol: UDP } ] } ]", "shop/p egress[0]"),
    ];
    for (rules, wanted) in rules {
        let site = Site::with(&format!(
            "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{ name: p, namespace: shop }}
spec: {{ podSelector: {{}}, policyTypes: [ Egress ], egress: {rules} }}
"
        ));
        let (model, asked) = (site.model(), dns("www.example.com"));
        let subject = &site.residents[0].subject;
        let answer = decide::name::may_resolve(&model, subject, &asked);
        let said = match &answer {
            Resolve::Allowed { by: Grounds::Rule(rule) } => rule.to_string(),
            Resolve::Allowed { by: Grounds::NotIsolated } => "not isolated".to_owned(),
            Resolve::Refused => "refused".to_owned(),
        };
        assert_eq!(said, wanted, "{rules}");
        let compiled = compile(&model, &[subject.clone()].into(), 1, PolicyId(1));
        let policy = compiled.policy(subject).unwrap().egress;
        assert_eq!(compiled.may_resolve(policy, &asked), answer, "{rules}");
        assert_eq!(compiled.resolves_everything(policy), answer != Resolve::Refused, "{rules}");
    }
}

#[test]
fn sentences() {
    let site = Site::with(TO_WEB);
    let mut page = String::new();
    for (from, protocol, port) in
        [(1, 6, 8080), (1, 6, 80), (3, 6, 9000), (2, 6, 80), (2, 132, 80), (2, 1, 0), (4, 6, 80)]
    {
        let [_, into] = site.ask(from, 0, protocol, port);
        page += &format!("{from} {protocol}/{port}\n  {}: {}\n", into.reason.word(), into.text);
        page += &into.mend.map(|mend| format!("  mend: {mend}\n")).unwrap_or_default();
    }
    let to = &site.residents[0];
    let far = site.entering(to, 1, "192.0.2.7".parse().unwrap(), 17, 5353);
    page += &format!("far\n  {}: {}\n  mend: {}\n", far.reason.word(), far.text, far.mend.unwrap());
    crate::golden::compare("network-policy-sentences.txt", &page);
}
