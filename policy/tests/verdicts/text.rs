//! Resources in a shorthand, so that a table of cases fits on a page.

use std::collections::BTreeSet;

use config::names::{DnsName, DomainPattern, Name};
use config::resource::{
    AllowRule, Backend, CidrRule, Default as Fallback, EgressPolicy, ExposedApp, Labels, NameRule, Namespace,
    PortRange, Ports, Protocol, Route, Tls,
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
    Namespace { name: name(text), labels: Labels::new(), network: name("tenant-a"), egress_default, ingress_default }
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

/// `deny 10.0.0.0/8 !10.1.0.0/16 tcp/443 udp/8000-8010`, `allow *.example.com tcp/443`, `resolve a.example`; a line each.
pub(crate) fn policy(namespace: &str, own: &str, selector: &str, rules: &str) -> EgressPolicy {
    let mut policy = EgressPolicy {
        namespace: name(namespace),
        name: name(own),
        selector: labels(selector).into(),
        deny: Vec::new(),
        allow: Vec::new(),
    };
    for line in rules.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (verb, words) = line.split_once(' ').unwrap();
        let rule = Words::new(words);
        match verb {
            "deny" => policy.deny.push(rule.cidrs()),
            "allow" if rule.patterns.is_empty() => policy.allow.push(AllowRule::Cidrs(rule.cidrs())),
            "allow" => policy.allow.push(AllowRule::Names(NameRule { names: rule.patterns, ports: rule.ports })),
            "resolve" => policy.allow.push(AllowRule::Resolve(rule.patterns)),
            other => panic!("no such verb: {other}"),
        }
    }
    policy
}

struct Words {
    cidrs: Vec<IpNetwork>,
    except: Vec<IpNetwork>,
    patterns: Vec<DomainPattern>,
    ports: Ports,
}

impl Words {
    fn new(words: &str) -> Self {
        let mut own = Self { cidrs: Vec::new(), except: Vec::new(), patterns: Vec::new(), ports: Ports::All };
        let mut ranges = Vec::new();
        for word in words.split_whitespace() {
            if let Some(except) = word.strip_prefix('!') {
                own.except.push(except.parse().unwrap());
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
        CidrRule { cidrs: self.cidrs, except: self.except, ports: self.ports }
    }
}

fn port_range(word: &str) -> Option<PortRange> {
    let (protocol, ports) = word.split_once('/')?;
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        _ => return None,
    };
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    Some(PortRange { protocol, first: first.parse().unwrap(), last: last.parse().unwrap() })
}
