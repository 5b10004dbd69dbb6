//! Who tries what in the demo, and what is expected by which rule of `config/examples/`.

use std::net::IpAddr;

use integration::namespace::Namespace;
use integration::site::{API, ECHO, FORBIDDEN, NODE4, OTHER};
use integration::traffic::Target;

use crate::stage::Stage;

/// What somebody tries.
#[derive(Clone, Debug)]
pub(crate) enum Attempt {
    /// `curl https://NAME/`, resolved by the pod's own resolver.
    Https(&'static str),
    /// `curl http://NAME/`.
    Http(&'static str),
    /// A bare target.
    Bare(Target),
    /// `curl https://NAME/` at the API's address, whoever looked that up.
    AtApi(&'static str),
    /// `curl https://NAME/` from the internet to the node's edge.
    Edge(&'static str),
}

/// How it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Reached,
    NameRefused,
    Refused,
    NoAnswer,
    Other,
}

/// One line of the table.
pub(crate) struct Line<'a> {
    /// `shop/web-1`
    pub(crate) from: String,
    pub(crate) inside: &'a Namespace,
    pub(crate) attempt: Attempt,
    /// What the target is, beside its address.
    pub(crate) note: &'static str,
    pub(crate) expected: End,
    /// What `explain` must name: a rule, or the reason where no rule speaks; `None` where the workload is not the one
    /// that asks.
    pub(crate) by: Option<&'static str>,
}

const SHOP_DENY: &str = "egresspolicy/shop/shop-egress deny[0]";
const SHOP_NAMES: &str = "egresspolicy/shop/shop-egress allow[0]";
const SHOP_ECHO: &str = "egresspolicy/shop/shop-egress allow[1]";
const LAB_NAMES: &str = "egresspolicy/lab/lab-egress allow[1]";
const LAB_ECHO: &str = "egresspolicy/lab/lab-egress allow[2]";
const DEFAULT: &str = "denied-by-default";

/// All lines, in the order of the table. The order counts: `web-1` looks the API up before `web-2` tries its address.
pub(crate) fn lines(stage: &Stage) -> Vec<Line<'_>> {
    use Attempt::{AtApi, Bare, Edge, Http, Https};
    let [web_1, web_2, console, bench] = &stage.pods;
    let tcp = |address: IpAddr, port| Bare(Target::new("tcp", address, port));
    let metadata = IpAddr::from([169, 254, 169, 254]);
    let mut lines = Vec::new();
    let mut from_pod = |pod: &'_ integration::Pod, attempt, note, expected, by| {
        let index = stage.pods.iter().position(|found| found.full_name() == pod.full_name()).unwrap_or(0);
        lines.push(Line { from: pod.full_name(), inside: &stage.pods[index], attempt, note, expected, by: Some(by) });
    };
    from_pod(web_1, Https("api.example.com"), "allowed by name", End::Reached, SHOP_NAMES);
    from_pod(web_1, Https("cdn.example.com"), "an alias of an alias", End::Reached, SHOP_NAMES);
    from_pod(web_1, Https("shared.example.com"), "another name of the API's address", End::NameRefused, DEFAULT);
    from_pod(web_1, AtApi("shared.example.com"), "the same, at that very address", End::Refused, DEFAULT);
    from_pod(web_1, Http("blocked.example.com"), "", End::NameRefused, DEFAULT);
    from_pod(web_1, tcp(FORBIDDEN.v4(), 80), "the same by address", End::Refused, DEFAULT);
    from_pod(web_1, tcp(FORBIDDEN.v6(), 80), "the same by address", End::Refused, DEFAULT);
    from_pod(web_2, tcp(API.v4(), 443), "web-1's lookup is not web-2's", End::Refused, DEFAULT);
    from_pod(web_1, tcp(ECHO.v4(), 7), "allowed by address", End::Reached, SHOP_ECHO);
    from_pod(web_1, tcp(ECHO.v6(), 7), "allowed by address", End::Reached, SHOP_ECHO);
    from_pod(web_1, Bare(Target::new("udp", ECHO.v4(), 7)), "allowed by address", End::Reached, SHOP_ECHO);
    from_pod(web_1, Bare(Target::Ping(ECHO.v4())), "its rule names ports", End::Refused, DEFAULT);
    from_pod(web_1, tcp(metadata, 80), "a cloud's metadata service", End::Refused, SHOP_DENY);
    from_pod(web_1, tcp(console.v4.into(), 8443), "the other tenant", End::Refused, DEFAULT);
    from_pod(web_1, tcp(web_2.v4.into(), 8080), "a port for the edge alone", End::Refused, DEFAULT);
    from_pod(console, Https("cdn.example.com"), "allowed by name", End::Reached, LAB_NAMES);
    from_pod(console, Https("api.example.com"), "the other tenant's name", End::NameRefused, DEFAULT);
    from_pod(bench, tcp(OTHER.v4(), 7), "allowed by address", End::Reached, LAB_ECHO);
    from_pod(bench, tcp(ECHO.v4(), 7), "excepted from the block", End::Refused, DEFAULT);

    let internet = &stage.site.internet.namespace;
    let mut from_outside = |from: &str, inside, attempt, note, expected| {
        lines.push(Line { from: from.to_owned(), inside, attempt, note, expected, by: None });
    };
    from_outside("internet", internet, Edge("shop.example.com"), "TLS ends at the edge", End::Reached);
    from_outside("internet", internet, Edge("lab.example.com"), "TLS ends at lab/console-1", End::Reached);
    from_outside("internet", internet, tcp(web_1.v4.into(), 8080), "past the edge", End::NoAnswer);
    if let Some(trunk) = &stage.trunk {
        let [host_a, host_b] = &trunk.hosts;
        from_outside("host on VLAN 100", host_a, tcp(web_1.v4.into(), 8080), "past the edge", End::NoAnswer);
        from_outside("host on VLAN 200", host_b, tcp(web_1.v4.into(), 8080), "the other VLAN", End::Refused);
    }
    lines
}

impl Attempt {
    /// The target as the table shows it.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Https(name) | Self::AtApi(name) | Self::Edge(name) => format!("https://{name}"),
            Self::Http(name) => format!("http://{name}"),
            Self::Bare(target) => target.to_string(),
        }
    }

    /// What `netctl explain` is asked for: target and protocol.
    pub(crate) fn explained(&self) -> (String, &'static str) {
        match self {
            Self::Https(name) | Self::AtApi(name) => (format!("{name}:443"), "tcp"),
            Self::Http(name) => (format!("{name}:80"), "tcp"),
            Self::Edge(_) => (format!("{NODE4}:443"), "tcp"),
            Self::Bare(Target::Tcp(to)) => (to.to_string(), "tcp"),
            Self::Bare(Target::Udp(to)) => (to.to_string(), "udp"),
            Self::Bare(Target::Ping(to)) => (to.to_string(), "icmp"),
        }
    }
}

impl End {
    /// As the table shows it.
    pub(crate) fn shown(self) -> &'static str {
        match self {
            Self::Reached => "reached",
            Self::NameRefused => "name refused",
            Self::Refused => "refused",
            Self::NoAnswer => "no answer",
            Self::Other => "unreachable",
        }
    }
}
