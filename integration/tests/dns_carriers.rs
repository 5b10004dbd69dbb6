//! DNS servers that are asked by TCP or TLS, over connections that are kept.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;

use integration::daemon::Settings;
use integration::manifests::{name_rule, namespace, network, policy};
use integration::peers::certificates::Authority;
use integration::peers::dns::{Unbound, Zones};
use integration::peers::query::{Carrier, Kind};
use integration::site::{API, DNS, Host};
use integration::world::World;
use integration::{Pod, Site};

const SERVER: Host = Host(54);
const SERVER_FAILURE: u8 = 2;

/// A site whose daemon trusts an authority, and a server with a certificate for `dns.example.com` at its port 853, and for
/// nobody at 53, where it takes no datagrams.
struct Stage {
    site: Site,
    theirs: Unbound,
    roots: PathBuf,
}

impl Stage {
    fn new() -> Self {
        let world = World::new();
        let authority = Authority::new(&world.folder().join("roots"));
        let dns = format!("tls_roots = \"{}\"\n", authority.certificate().display());
        let site = Site::with(world, Settings { dns, ..Site::settings() });
        for address in [format!("{}/32", SERVER.v4()), format!("{}/128", SERVER.v6())] {
            site.internet.namespace.ip(&format!("addr add {address} dev lo"));
        }
        let pair = authority.issue("dns", &["dns.example.com"]);
        let more = format!(
            "  do-udp: no\n  tls-port: 853\n  tls-service-key: \"{}\"\n  tls-service-pem: \"{}\"\n",
            pair.key.display(),
            pair.certificate.display()
        );
        let mut zones = Zones::default();
        for number in 0..40 {
            zones.add("example.com", &format!("n{number}"), &format!("60 A {}", API.v4()));
        }
        let listens = [53, 853].map(|port| SERVER.both().map(|address| (address, port).into())).concat();
        let folder = site.world.folder().join("unbound-2");
        let theirs = Unbound::with(&site.internet.namespace, &folder, &listens, &zones, &more);
        Self { site, theirs, roots: authority.certificate() }
    }

    /// The workload of a tenant whose server this is.
    fn pod(&self, name: &str, upstream: &str) -> Pod {
        let dns = format!("  dns: {{ upstreams: [ \"{upstream}\" ] }}\n");
        let names = name_rule(&["*.example.com"], "[ { protocol: TCP, port: 7 } ]");
        let rules = policy("shop", "shop-egress", &format!("  allow:\n{names}"));
        self.site.netctl().apply(&(network("tenant-a", 100, &dns) + &namespace("shop", "tenant-a") + &rules));
        self.site.attach("shop", name, &[])
    }

    fn server(&self) -> serde_json::Value {
        let status = self.site.netctl().json(&["status"]);
        let servers = status["dns"]["servers"].as_array().cloned().unwrap_or_default();
        let theirs =
            |server: &&serde_json::Value| server["address"].as_str().is_some_and(|address| address.contains("://"));
        servers.iter().find(theirs).cloned().unwrap_or_default()
    }

    fn fails(&self, why: &str) {
        let shown = self.server();
        assert!(shown["failing"]["why"].as_str().is_some_and(|told| told.contains(why)), "{why}: {shown}");
    }

    /// Connections to the server that are open, of this family and to this port.
    fn connections(&self, family: &str, port: u16) -> usize {
        self.site.node.ok(&format!("ss {family} -Htn state established dport = :{port}")).lines().count()
    }
}

fn finds(pod: &Pod, number: u32) -> Option<IpAddr> {
    let answer = pod.ask(DNS.v4(), &format!("n{number}.example.com"), Kind::A, Carrier::Udp).expect("an answer");
    (answer.code != SERVER_FAILURE).then(|| pod.look_up(DNS.v4(), &format!("n{number}.example.com"), Kind::A))
}

#[test]
fn a_server_is_asked_by_tls_or_tcp_over_one_connection_and_a_new_one_when_that_ends() {
    let mut stage = Stage::new();
    let (four, six) = (SERVER.v4(), SERVER.v6());
    for (name, upstream, family, port) in [
        ("web-1", format!("tls://{four}#dns.example.com"), "-4", 853),
        ("web-2", format!("tls://[{six}]#dns.example.com"), "-6", 853),
        ("web-3", format!("tcp://{four}"), "-4", 53),
    ] {
        let pod = stage.pod(name, &upstream);
        for number in 0..10 {
            assert_eq!(finds(&pod, number), Some(API.v4()), "{upstream}");
        }
        assert_eq!(stage.connections(family, port), 1, "{upstream}");
        let shown = stage.server();
        assert!(shown["answered"].is_string() && shown["failing"].is_null(), "{upstream}: {shown}");
        stage.theirs.replace();
        assert_eq!(finds(&pod, 20), Some(API.v4()), "{upstream}: the server was another one");
        stage.site.netctl().ok(&["detach", name, "-n", "shop"]);
    }
}

#[test]
fn a_certificate_for_another_name_or_by_another_authority_is_not_taken() {
    let mut stage = Stage::new();
    for (name, upstream, why) in [
        ("web-1", format!("tls://{}#other.example.com", SERVER.v4()), "not valid for name"),
        ("web-2", format!("tls://{}", SERVER.v4()), "not valid for name"),
    ] {
        let pod = stage.pod(name, &upstream);
        assert_eq!(finds(&pod, 1), None, "{upstream}");
        stage.fails(why);
        stage.site.netctl().ok(&["detach", name, "-n", "shop"]);
    }
    assert!(stage.theirs.questions().is_empty(), "nothing was asked");

    let pod = stage.pod("web-3", &format!("tls://{}#dns.example.com", SERVER.v4()));
    assert_eq!(finds(&pod, 2), Some(API.v4()), "as it should be");
    let other = Authority::new(&stage.site.world.folder().join("others"));
    fs::copy(other.certificate(), &stage.roots).unwrap();
    assert_eq!(finds(&pod, 3), Some(API.v4()), "by the connection that stands");
    stage.theirs.replace();
    assert_eq!(finds(&pod, 4), None, "the roots are read again");
    stage.fails("invalid peer certificate");
    fs::write(&stage.roots, "nothing").unwrap();
    assert_eq!(finds(&pod, 5), None);
    stage.fails("it holds no certificate");
}
