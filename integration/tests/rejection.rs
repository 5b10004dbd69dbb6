//! Who sent what is denied is told at once, if it is inside; where `onDeny` is Drop, and outside, nobody hears anything.

use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use integration::manifests::{allow_cidrs, namespace, network, network_policy, policy, two_tenants};
use integration::site::{ECHO, OTHER};
use integration::traffic::Target;
use integration::{Pod, Site};

/// Of the echo servers.
const ECHO_PORT: u16 = 7;

/// The same target address in both families, by TCP, UDP and an echo.
fn every_way(to: integration::site::Host, port: u16) -> impl Iterator<Item = Target> {
    ["tcp", "udp", "ping"].into_iter().flat_map(move |protocol| to.both().map(|ip| Target::new(protocol, ip, port)))
}

fn quiet(namespace: &str, tenant: &str) -> String {
    format!(
        "---\napiVersion: tidegate.dev/v1alpha1\nkind: Namespace\nmetadata: {{ name: {namespace} }}\n\
         spec: {{ network: {tenant}, onDeny: Drop }}\n"
    )
}

#[test]
fn a_workload_is_told_what_is_denied_unless_its_namespace_drops() {
    let site = Site::start();
    site.netctl().apply(&two_tenants());
    let web = site.attach("shop", "web-1", &[]);
    for target in every_way(OTHER, ECHO_PORT) {
        web.must_be_told(target);
    }
    let node: SocketAddr = "10.100.0.1:22".parse().expect("an address");
    web.must_be_told(Target::Tcp(node));

    site.netctl().apply(&quiet("shop", "tenant-a"));
    for target in every_way(OTHER, ECHO_PORT) {
        web.must_hear_nothing(target);
    }
    site.netctl().apply(&namespace("shop", "tenant-a"));
    for target in every_way(OTHER, ECHO_PORT) {
        web.must_be_told(target);
    }
}

/// The denied segments here are as large as the kernel makes them.
#[test]
fn a_connection_that_a_change_ends_is_reset_in_the_midst_of_sending() {
    let site = Site::start();
    let allowed = policy("shop", "shop-egress", &allow_cidrs(&["203.0.113.30/32", "2001:db8:113::30/128"], ""));
    for to in ECHO.both() {
        site.netctl().apply(&(two_tenants() + &allowed));
        let name = if to.is_ipv4() { "web-4" } else { "web-6" };
        let web: Pod = site.attach("shop", name, &[]);
        let mut connection = web.open((to, ECHO_PORT).into());
        connection.must_echo();
        let mut stream = connection.stream().try_clone().expect("the stream twice");
        let sending = std::thread::spawn(move || {
            let end = Instant::now() + Duration::from_secs(60);
            loop {
                match stream.write_all(&[7; 1 << 16]) {
                    Ok(()) => assert!(Instant::now() < end, "nobody ended it"),
                    Err(error) => return (error.kind(), Instant::now()),
                }
            }
        });
        // The echoes are read, so that it goes on.
        let mut reading = connection.stream().try_clone().expect("the stream twice");
        let drain =
            std::thread::spawn(move || std::io::copy(&mut reading, &mut std::io::sink()).err().map(|e| e.kind()));
        site.netctl().apply(&policy("shop", "shop-egress", &allow_cidrs(&["203.0.113.31/32"], "")));
        let applied = Instant::now();
        let (kind, ended) = sending.join().expect("the sender");
        assert!(matches!(kind, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{to}: {kind:?}");
        assert!(ended < applied + Duration::from_secs(5), "{to}: {:?} after the change", ended - applied);
        drop(drain.join());
    }
}

#[test]
fn a_neighbour_is_told_and_the_world_outside_is_not() {
    let site = Site::start();
    let all = policy("shop", "all", &allow_cidrs(&["0.0.0.0/0", "::/0"], ""));
    let closed = network_policy("shop", "closed", "  podSelector: {}\n  policyTypes: [ Ingress ]\n");
    site.netctl().apply(&(network("tenant-a", 100, "") + &namespace("shop", "tenant-a") + &all + &closed));
    let (web, other) = (site.attach("shop", "web-1", &[]), site.attach("shop", "web-2", &[]));
    let _echo = other.echo_server(&["[::]:7".parse().expect("an address")]);
    for protocol in ["tcp", "udp", "ping"] {
        for to in [other.v4.into(), other.v6.into()] {
            let target = Target::new(protocol, to, 7);
            web.must_be_told(target);
            site.internet.namespace.must_hear_nothing(target);
        }
    }
}
