//! A host behind the standard world's internet, on a link with a smaller MTU than the node's.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use crate::namespace::Namespace;
use crate::site::{Host, Pod, Site};
use crate::traffic::{Target, any_like};
use crate::wait::wait_until;

/// Its addresses.
pub const BEYOND: Host = Host(99);

const MTU: usize = 1300;
const LARGER: usize = 1400;
const PORT: u16 = 9000;
const BOUND: Duration = Duration::from_secs(10);

/// The host, and the way to it.
#[derive(Debug)]
pub struct Beyond {
    namespace: Namespace,
}

impl Beyond {
    /// Puts it behind the site's internet.
    pub fn of(site: &Site) -> Self {
        let internet = &site.internet.namespace;
        let namespace = site.world.namespace("beyond", None);
        site.world.link((internet, "beyond0"), (&namespace, "eth0"));
        internet.ip_lines([
            &*format!("link set beyond0 mtu {MTU}"),
            "addr add 192.0.9.1/24 dev beyond0",
            "addr add 2001:db8:9::1/64 dev beyond0 nodad",
            &format!("route add {}/32 via 192.0.9.2", BEYOND.v4()),
            &format!("route add {}/128 via 2001:db8:9::2", BEYOND.v6()),
        ]);
        namespace.ip_lines([
            &*format!("link set eth0 mtu {MTU}"),
            "addr add 192.0.9.2/24 dev eth0",
            "addr add 2001:db8:9::2/64 dev eth0 nodad",
            &format!("addr add {}/32 dev lo", BEYOND.v4()),
            &format!("addr add {}/128 dev lo nodad", BEYOND.v6()),
            "route add default via 192.0.9.1",
        ]);
        namespace.ip("-6 route add default via 2001:db8:9::1");
        internet.sysctl("ipv4/ip_forward", "1");
        internet.sysctl("ipv6/conf/all/forwarding", "1");
        Self { namespace }
    }

    /// The workload, which may reach it, learns the path's MTU; datagrams that are cut to it come there, and back.
    pub fn must_tell_its_mtu(&self, to: &Pod) {
        for address in BEYOND.both() {
            let at = SocketAddr::new(address, PORT);
            let _echo = self.namespace.echo_server(&[at]);
            to.must_reach(Target::new("udp", address, PORT));
            let client = to.enter(|| UdpSocket::bind((any_like(address), 0))).expect("a socket");
            client.set_read_timeout(Some(Duration::from_millis(500))).expect("a timeout");
            wait_until("the workload knows the path's MTU", BOUND, || {
                let _may_be_refused = client.send_to(&[7; LARGER], at);
                to.ip(&format!("route get {address}")).contains(&format!("mtu {MTU}"))
            });
            wait_until("a large datagram is echoed", BOUND, || {
                let _may_be_refused = client.send_to(&[7; LARGER], at);
                client.recv(&mut [0; 2 * LARGER]).is_ok_and(|length| length == LARGER)
            });
        }
    }
}
