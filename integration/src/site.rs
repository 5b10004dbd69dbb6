//! The standard world: one internet with real servers, one node with the gateway, and pods.
//!
//! ```text
//! internet: unbound, nginx, echo ── eth0 192.0.2.1 ── 192.0.2.2 eth0 node: gateway ── pods
//! ```
//! The internet has routes back to the tenants' subnets, so that masquerading is seen by its effect and not needed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::daemon::{Daemon, Netctl, Settings};
use crate::frame::Mac;
use crate::namespace::Namespace;
use crate::peers::certificates::Authority;
use crate::peers::dns::{Unbound, Zones};
use crate::peers::web::{Nginx, WebSite};
use crate::traffic::EchoServer;
use crate::wait::{wait_for, wait_until};
use crate::world::World;

/// A host of the internet, by its number: `203.0.113.n` and `2001:db8:113::n` (n in hexadecimal digits).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host(pub u8);

/// `unbound`, on port 53.
pub const DNS: Host = Host(53);
/// `api.example.com` and, at the same address, `shared.example.com`: `nginx` on 80 and 443, echo on 7.
pub const API: Host = Host(10);
/// `pop1.cdn-provider.net`, by two CNAMEs `cdn.example.com`: `nginx` on 443, echo on 7.
pub const CDN: Host = Host(20);
/// Echo on 7 and on 70; no name.
pub const ECHO: Host = Host(30);
/// Echo on 7; no name.
pub const OTHER: Host = Host(31);
/// `blocked.example.com`, which nobody may reach: `nginx` on 80, echo on 7.
pub const FORBIDDEN: Host = Host(66);
/// Every address of this block echoes TCP on port 9; `n<i>.many.example.com` is its address `i`.
pub const MANY: [u8; 3] = [198, 51, 100];

/// Names below `example.com` that lead back inside: to a workload's place in `tenant-a` and one in `tenant-b`, to the node in
/// `tenant-a`, by NAT64 to the second one, and to a cloud's metadata service. `hint.example.com` has the second one as a hint (HTTPS).
pub const INSIDE: [(&str, [&str; 2]); 5] = [
    ("sibling", ["10.100.0.99", "fd00:100::99"]),
    ("neighbour", ["10.200.0.2", "fd00:200::2"]),
    ("router", ["10.100.0.1", "fd00:100::1"]),
    ("translated", ["10.200.0.2", "64:ff9b::ac8:2"]),
    ("metadata", ["169.254.169.254", "fd00:ec2::254"]),
];

/// Records of `kinds.example.com`, as `dig +short` says them. The last one is of a type that nobody knows.
pub const KINDS: [(&str, &str); 7] = [
    ("MX", "10 api.example.com."),
    ("SRV", "1 2 7 api.example.com."),
    ("PTR", "api.example.com."),
    ("SVCB", "1 api.example.com. alpn=\"h2\" port=7"),
    ("TXT", "\"v=spf1 -all\""),
    ("CAA", "0 issue \"ca.example.com\""),
    ("TYPE65399", "\\# 4 0A000001"),
];

/// HTTPS record of `hidden.example.com`: priority 1, target `.`, `mandatory` (`alpn` and `ech`), `alpn`, `ipv4hint` and `ech`.
pub const HIDDEN: &str = "000100 0000000400010005 00010003026832 00040004CB00710A 00050004DEADBEEF";
/// The same without `ech`.
pub const SHOWN: &str = "000100 000000020001 00010003026832 00040004CB00710A";

/// The node's addresses on its uplink; `shop.example.com` and `lab.example.com`.
pub const NODE4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// As [`NODE4`].
pub const NODE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xff, 0, 0, 0, 0, 2);

impl Host {
    /// Its IPv4 address.
    pub const fn v4(self) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(203, 0, 113, self.0))
    }

    /// Its IPv6 address, which ends in the same digits.
    pub const fn v6(self) -> IpAddr {
        let number = self.0 as u16;
        let digits = number / 100 * 256 + number / 10 % 10 * 16 + number % 10;
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, digits))
    }

    /// Both addresses.
    pub const fn both(self) -> [IpAddr; 2] {
        [self.v4(), self.v6()]
    }
}

/// The internet's DNS and echo servers, running.
#[derive(Debug)]
pub struct Internet {
    /// Its DNS server.
    pub unbound: Unbound,
    /// Its echo servers.
    pub echo: EchoServer,
    /// Where they are.
    pub namespace: Namespace,
}

/// The internet's web server, for tests that need more than echoes.
#[derive(Debug)]
pub struct Web {
    /// The server.
    pub nginx: Nginx,
    /// Who signs its certificates.
    pub authority: Authority,
}

/// The standard world, running.
#[derive(Debug)]
pub struct Site {
    /// The gateway.
    pub daemon: Daemon,
    /// The others.
    pub internet: Internet,
    /// Where the gateway is.
    pub node: Namespace,
    /// The world, last to go.
    pub world: World,
}

/// One attached workload, in its namespace.
#[derive(Clone, Debug)]
pub struct Pod {
    /// `shop`
    pub tenant: String,
    /// `web-1`
    pub name: String,
    /// Its IPv4 address.
    pub v4: Ipv4Addr,
    /// Its IPv6 address; unspecified where its network has none.
    pub v6: Ipv6Addr,
    /// Its link-local address.
    pub link_local: Ipv6Addr,
    /// Its Ethernet address.
    pub mac: Mac,
    namespace: Namespace,
}

impl Deref for Pod {
    type Target = Namespace;
    fn deref(&self) -> &Namespace {
        &self.namespace
    }
}

impl Pod {
    /// `shop/web-1`
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.tenant, self.name)
    }

    /// Its interface.
    pub const INTERFACE: &str = "eth0";
}

impl Site {
    /// A world of this process, with the gateway running and no resources.
    pub fn start() -> Self {
        Self::with(World::new(), Self::settings())
    }

    /// As [`Self::start`], in that world and with these settings.
    pub fn with(world: World, settings: Settings) -> Self {
        let node = world.namespace("node", None);
        let internet = Internet::start(&world, &node);
        let daemon = Daemon::start(&world, &node, &settings);
        Self { daemon, internet, node, world }
    }

    /// What the gateway is told unless a test says otherwise.
    pub fn settings() -> Settings {
        let listen = vec![SocketAddr::from((NODE4, 443)), SocketAddr::from((NODE6, 443))];
        Settings { upstreams: DNS.both().to_vec(), listen, dns: String::new(), probes: None, more: String::new() }
    }

    /// Where the daemon has pinned a table of the kernel.
    pub fn table(&self, name: &str) -> PathBuf {
        let versions = std::fs::read_dir(self.world.bpffs()).expect("the daemon's pins");
        let mut maps = versions.flatten().map(|version| version.path().join("maps").join(name));
        maps.find(|map| map.exists()).unwrap_or_else(|| panic!("there is no table {name}"))
    }

    /// The command line.
    pub fn netctl(&self) -> &Netctl {
        self.daemon.netctl()
    }

    /// Does what must be dropped, and panics unless a drop is counted by that word.
    #[track_caller]
    pub fn must_drop_as(&self, reason: &str, work: impl FnOnce()) {
        let count = || self.netctl().json(&["status"])["drops"][reason].as_u64().unwrap_or(0);
        let before = count();
        work();
        wait_until(&format!("a drop is counted as {reason}"), Duration::from_secs(5), || count() > before);
    }

    /// Makes a namespace `TENANT-NAME` and attaches it as that workload.
    #[track_caller]
    pub fn attach(&self, tenant: &str, name: &str, labels: &[&str]) -> Pod {
        let namespace = self.world.namespace(&format!("{tenant}-{name}"), Some(&DNS.v4().to_string()));
        self.attach_in(tenant, name, namespace, labels, &[])
    }

    /// The same in a namespace that is there, with names for ports, as `http=8080/TCP`.
    pub fn attach_in(&self, tenant: &str, name: &str, namespace: Namespace, labels: &[&str], ports: &[&str]) -> Pod {
        let path = namespace.path().to_str().expect("a path of the world is text").to_owned();
        let mut words = vec!["attach", name, "-n", tenant, "--netns", &path];
        labels.iter().for_each(|label| words.extend(["--label", label]));
        ports.iter().for_each(|port| words.extend(["--port", port]));
        self.netctl().ok(&words);
        pod(tenant, name, namespace)
    }

    /// The folder for a tenant's certificates, made if it is missing.
    pub fn files(&self, tenant: &str) -> PathBuf {
        let folder = self.world.folder().join("files").join(tenant);
        std::fs::create_dir_all(&folder).expect("a folder for a tenant's files");
        folder
    }
}

/// Reads a workload's addresses from inside.
#[track_caller]
pub fn pod(tenant: &str, name: &str, namespace: Namespace) -> Pod {
    let found = wait_for("the workload's link is up", Duration::from_secs(5), || {
        let links = namespace.ip_json(&format!("addr show dev {}", Pod::INTERFACE));
        let link = links.get(0)?.clone();
        let up = link["operstate"] == "UP";
        up.then_some(link)
    });
    let addresses = found["addr_info"].as_array().cloned().unwrap_or_default();
    let of = |family: &str, scope: &str| {
        let entry = addresses.iter().find(|entry| entry["family"] == family && entry["scope"] == scope);
        entry.and_then(|entry| entry["local"].as_str()).map(str::to_owned)
    };
    let v6 = |scope| of("inet6", scope).and_then(|text| text.parse().ok()).unwrap_or(Ipv6Addr::UNSPECIFIED);
    let v4 = of("inet", "global").and_then(|text| text.parse().ok()).unwrap_or(Ipv4Addr::UNSPECIFIED);
    let mac = found["address"].as_str().and_then(|text| text.parse().ok()).expect("a MAC");
    let (tenant, name) = (tenant.to_owned(), name.to_owned());
    Pod { tenant, name, v4, v6: v6("global"), link_local: v6("link"), mac, namespace }
}

impl Internet {
    /// Joins the internet to the node's uplink, gives both their addresses and routes, and starts the servers.
    pub fn start(world: &World, node: &Namespace) -> Self {
        let namespace = world.namespace("internet", Some(&DNS.v4().to_string()));
        join(world, &namespace, node);
        let unbound = Unbound::start(&namespace, &world.folder().join("unbound"), &DNS.both(), &zones());
        let echo = namespace.echo_server(&echo_addresses());
        Self { unbound, echo, namespace }
    }
}

/// Serves the internet's echoes again, in the namespace held open at `path`: for a world that outlives its process.
/// The process that served them may still hold the ports for a moment.
pub fn serve_echoes_in(path: &Path) -> EchoServer {
    let namespace = Namespace::at(path);
    let first = echo_addresses()[0];
    wait_until("the ports of the echo hosts are free", Duration::from_secs(5), || {
        namespace.enter(|| std::net::TcpListener::bind(first).is_ok())
    });
    namespace.echo_server(&echo_addresses())
}

impl Web {
    /// Starts it.
    pub fn start(world: &World, internet: &Namespace) -> Self {
        let authority = Authority::new(&world.folder().join("authority"));
        let nginx = start_nginx(world, internet, &authority);
        Self { nginx, authority }
    }
}

fn join(world: &World, internet: &Namespace, node: &Namespace) {
    world.link((internet, "eth0"), (node, "eth0"));
    let hosts = [DNS, API, CDN, ECHO, OTHER, FORBIDDEN];
    let own = hosts.map(|host| format!("addr add {}/32 dev lo\naddr add {}/128 dev lo nodad", host.v4(), host.v6()));
    let [a, b, c] = MANY;
    let further = [
        format!("route add local {a}.{b}.{c}.0/24 dev lo"),
        "addr add 192.0.2.1/24 dev eth0".to_owned(),
        "addr add 2001:db8:ff::1/64 dev eth0 nodad".to_owned(),
        format!("route add 10.0.0.0/8 via {NODE4}"),
        format!("route add fd00::/8 via {NODE6}"),
    ];
    internet.ip_lines(own.iter().chain(&further).map(String::as_str));
    let address4 = format!("addr add {NODE4}/24 dev eth0");
    let address6 = format!("addr add {NODE6}/64 dev eth0 nodad");
    node.ip_lines([&*address4, &address6, "route add default via 192.0.2.1", "route add default via 2001:db8:ff::1"]);
}

fn start_nginx(world: &World, internet: &Namespace, authority: &Authority) -> Nginx {
    let at = |host: Host, port| host.both().map(|address| SocketAddr::new(address, port)).to_vec();
    let secure = |label: &str, host: Host, names: &[&str]| WebSite {
        listen: at(host, 443),
        label: label.to_owned(),
        tls: Some(authority.issue(label, names)),
    };
    let sites = [
        WebSite { listen: at(API, 80), label: "api".to_owned(), tls: None },
        secure("api.example.com", API, &["api.example.com", "shared.example.com"]),
        secure("cdn.example.com", CDN, &["cdn.example.com"]),
        WebSite { listen: at(FORBIDDEN, 80), label: "blocked".to_owned(), tls: None },
    ];
    Nginx::start(internet, &world.folder().join("nginx"), &sites)
}

fn zones() -> Zones {
    let mut zones = Zones::default();
    for (name, host) in [("api", API), ("shared", API), ("blocked", FORBIDDEN)] {
        zones.add("example.com", name, &format!("60 A {}", host.v4()));
        zones.add("example.com", name, &format!("60 AAAA {}", host.v6()));
    }
    for name in ["shop", "lab"] {
        zones.add("example.com", name, &format!("60 A {NODE4}"));
        zones.add("example.com", name, &format!("60 AAAA {NODE6}"));
    }
    for (name, addresses) in INSIDE {
        for (kind, address) in ["A", "AAAA"].into_iter().zip(addresses) {
            zones.add("example.com", name, &format!("60 {kind} {address}"));
        }
    }
    zones.add("example.com", "hint", "60 HTTPS 1 . ipv4hint=10.200.0.2");
    let hidden = HIDDEN.replace(' ', "");
    zones.add("example.com", "hidden", &format!("60 TYPE65 \\# {} {hidden}", hidden.len() / 2));
    zones.add("example.com", "hidden", &format!("60 A {}", API.v4()));
    for (kind, data) in KINDS {
        zones.add("example.com", "kinds", &format!("60 {kind} {data}"));
    }
    zones.add("example.com", "cdn", "60 CNAME edge.cdn-provider.net.");
    zones.add("example.com", "img.cdn", &format!("60 A {}", CDN.v4()));
    zones.add("example.com", "brief", &format!("1 A {}", ECHO.v4()));
    zones.add("example.com", "alias", "60 CNAME blocked.example.com.");
    let [a, b, c] = MANY;
    for number in 1..=254 {
        zones.add("example.com", &format!("n{number}.many"), &format!("60 A {a}.{b}.{c}.{number}"));
        // More than fits a datagram of 1 232 bytes.
        if number <= 120 {
            zones.add("example.com", "big", &format!("60 A {a}.{b}.{c}.{number}"));
        }
    }
    zones.add("cdn-provider.net", "edge", "60 CNAME pop1");
    zones.add("cdn-provider.net", "pop1", &format!("60 A {}", CDN.v4()));
    zones.add("cdn-provider.net", "pop1", &format!("60 AAAA {}", CDN.v6()));
    zones
}

fn echo_addresses() -> Vec<SocketAddr> {
    let named = [API, CDN, ECHO, OTHER, FORBIDDEN].into_iter().flat_map(Host::both);
    let further = ECHO.both().map(|address| SocketAddr::new(address, 70));
    named.map(|address| SocketAddr::new(address, 7)).chain(further).chain([SocketAddr::from(([0u16; 8], 9))]).collect()
}
