//! Resources in a shorthand, so that a table of cases fits on a page.

use std::collections::BTreeSet;

use config::names::{DnsName, DomainPattern, Name};
use config::resource::{
    AllowRule, Backend, CidrRule, ClusterEgressPolicy, Default as Fallback, DeniedNames, DenyRule, EgressPolicy,
    ExposedApp, Labels, Mode, NAMESPACE_NAME_LABEL, NameRule, Namespace, OnDeny, PortRange, Ports, Protocol, Route,
    SetName, Tls, Verify,
};
use ipnetwork::IpNetwork;
use policy::Subject;

pub(crate) fn name(text: &str) -> Name {
    Name::try_from(text.to_owned()).unwrap()
}

pub(crate) fn dns(text: &str) -> DnsName {
    DnsName::try_from(text.to_owned()).unwrap()
}

pub(crate) fn labels(text: &str) -> Labels {
    text.split_whitespace().map(|pair| pair.split_once('=').unwrap()).map(|(k, v)| (k.into(), v.into())).collect()
}

pub(crate) fn subject(namespace: &str, own: &str) -> Subject {
    Subject { namespace: name(namespace), labels: labels(own), ports: BTreeSet::new() }
}

pub(crate) fn namespace(text: &str, egress_default: Fallback, ingress_default: Fallback) -> Namespace {
    let labels = labels(&format!("{NAMESPACE_NAME_LABEL}={text} kind={text}"));
    Namespace {
        name: name(text),
        labels,
        network: name("tenant-a"),
        egress_default,
        ingress_default,
        on_deny: OnDeny::Reject,
        query_types: None,
    }
}

/// An app that exposes one port of what the labels select.
pub(crate) fn app(space: &str, selector: &str, port: u16) -> ExposedApp {
    let backends = vec![Backend { selector: labels(selector).into(), port }];
    ExposedApp {
        namespace: name(space),
        name: name("web"),
        hosts: vec![dns("web.example.com")],
        tls: Tls::Passthrough,
        routes: vec![Route { path: "/".into(), backends }],
    }
}

/// `deny 10.0.0.0/8 $feed $_admin/drop !10.1.0.0/16 tcp/443 udp/8000-8010 icmp/echo`, `allow *.example.com tcp/443`,
/// `allow a.example tcp/443 @tls` (`@usual`: without `verify`; nothing: `verify: None`), `deny *.ads.example`,
/// `resolve a.example`; a line each.
pub(crate) fn policy(namespace: &str, own: &str, selector: &str, rules: &str) -> EgressPolicy {
    let Lists { deny, allow, pass } = lists(rules);
    assert!(pass.is_empty(), "only the admin tier passes on");
    EgressPolicy {
        namespace: name(namespace),
        name: name(own),
        selector: labels(selector).into(),
        mode: Mode::Enforce,
        deny,
        allow,
    }
}

/// The same for the admin tier, with `pass 10.0.0.0/8 tcp/443` too.
pub(crate) fn admin(own: &str, namespaces: &str, selector: &str, rules: &str) -> ClusterEgressPolicy {
    let Lists { deny, allow, pass } = lists(rules);
    let (namespace_selector, selector) = (labels(namespaces).into(), labels(selector).into());
    ClusterEgressPolicy { name: name(own), namespace_selector, selector, mode: Mode::Enforce, deny, allow, pass }
}

#[derive(Default)]
struct Lists {
    deny: Vec<DenyRule>,
    allow: Vec<AllowRule>,
    pass: Vec<CidrRule>,
}

fn lists(rules: &str) -> Lists {
    let mut lists = Lists::default();
    for line in rules.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (verb, words) = line.split_once(' ').unwrap();
        let rule = Words::new(words);
        match verb {
            "deny" if rule.patterns.is_empty() => lists.deny.push(DenyRule::Cidrs(rule.cidrs())),
            "deny" => lists.deny.push(DenyRule::Names(DeniedNames { names: rule.patterns, ports: rule.ports })),
            "pass" => lists.pass.push(rule.cidrs()),
            "allow" if rule.patterns.is_empty() => lists.allow.push(AllowRule::Cidrs(rule.cidrs())),
            "allow" => {
                let Words { patterns: names, ports, verify, .. } = rule;
                lists.allow.push(AllowRule::Names(NameRule { names, ports, verify }));
            }
            "resolve" => lists.allow.push(AllowRule::Resolve(rule.patterns)),
            other => panic!("no such verb: {other}"),
        }
    }
    lists
}

struct Words {
    cidrs: Vec<IpNetwork>,
    sets: Vec<SetName>,
    except: Vec<IpNetwork>,
    patterns: Vec<DomainPattern>,
    ports: Ports,
    verify: Option<Verify>,
}

impl Words {
    fn new(words: &str) -> Self {
        let mut own = Self {
            cidrs: Vec::new(),
            sets: Vec::new(),
            except: Vec::new(),
            patterns: Vec::new(),
            ports: Ports::All,
            verify: Some(Verify::None),
        };
        let mut ranges = Vec::new();
        for word in words.split_whitespace() {
            if let Some(except) = word.strip_prefix('!') {
                own.except.push(except.parse().unwrap());
            } else if let Some(set) = word.strip_prefix('$') {
                own.sets.push(match set.strip_prefix("_admin/") {
                    Some(set) => SetName::Admin(name(set)),
                    None => SetName::Own(name(set)),
                });
            } else if let Some(verify) = word.strip_prefix('@') {
                own.verify = match verify {
                    "tls" => Some(Verify::Tls),
                    "usual" => None,
                    other => panic!("nothing is verified by {other}"),
                };
            } else if let Some(range) = port_range(word) {
                ranges.push(range);
            } else if let Ok(cidr) = word.parse() {
                own.cidrs.push(cidr);
            } else {
                own.patterns.push(DomainPattern::try_from(word).unwrap());
            }
        }
        if !ranges.is_empty() {
            own.ports = Ports::Some(ranges);
        }
        own
    }

    fn cidrs(self) -> CidrRule {
        assert!(self.patterns.is_empty(), "a rule by address takes no names");
        CidrRule { cidrs: self.cidrs, sets: self.sets, except: self.except, ports: self.ports }
    }
}

fn port_range(word: &str) -> Option<PortRange> {
    let (protocol, ports) = word.split_once('/')?;
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        "icmp" => Protocol::Icmp,
        "icmpv6" => Protocol::Icmpv6,
        _ => return None,
    };
    if let Some(echo) = protocol.echo() {
        assert_eq!(ports, "echo", "nothing else opens a flow");
        return Some(PortRange { protocol, first: echo, last: echo });
    }
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    Some(PortRange { protocol, first: first.parse().unwrap(), last: last.parse().unwrap() })
}
