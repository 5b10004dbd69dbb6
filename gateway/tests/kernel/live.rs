//! Real flows: a workload and a far host in namespaces of their own, the node routing between them over a bridge, as
//! segmentation sets it up.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use gateway::egress::tables::workloads::WorkloadEntry;
use gateway::workload::Mac;
use policy::reason::Reason::{self, *};
use policy::tables::PolicyId;

use super::world::*;

const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(10);

/// The node of [`Node::new`] with its workload behind a bridge, and FAR behind the device `up`.
pub(crate) struct Net {
    pub(crate) node: Node,
    pub(crate) workload: Namespace,
    pub(crate) far: Namespace,
}

impl Net {
    pub(crate) fn new() -> Self {
        let node = Node::new();
        let (workload, far) = (Namespace::new(), Namespace::new());
        for key in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
            std::fs::write(format!("/proc/sys/{key}"), "1").unwrap();
        }
        ip("link add br0 type bridge mcast_snooping 0 forward_delay 0");
        ip(&format!("link set br0 address {GATEWAY_MAC} up"));
        ip("link set w1 master br0");
        node.tables.attach(node.device).unwrap();
        ip(&format!("link set w1p netns {} name eth0", workload.path()));
        ip(&format!("link add far type veth peer name eth0 netns {}", far.path()));
        ip("link set far up");
        for (device, addresses) in [("br0", [GATEWAY4, GATEWAY6]), ("far", ["10.9.0.1", "fd00:9::1"])] {
            ip(&format!("addr add {}/24 dev {device}", addresses[0]));
            ip(&format!("addr add {}/64 dev {device} nodad", addresses[1]));
        }
        workload.ip(&format!("link set eth0 address {MAC}"));
        for (host, own, gateway) in
            [(&workload, [OWN4, OWN6], [GATEWAY4, GATEWAY6]), (&far, [FAR4, FAR6], ["10.9.0.1", "fd00:9::1"])]
        {
            host.sysctl("net/ipv6/conf/eth0/addr_gen_mode", "1");
            host.sysctl("net/ipv6/conf/eth0/accept_dad", "0");
            host.ip("link set eth0 up");
            host.ip(&format!("addr add {}/24 dev eth0", own[0]));
            host.ip(&format!("addr add {}/64 dev eth0 nodad", own[1]));
            host.ip(&format!("route add default via {}", gateway[0]));
            host.ip(&format!("-6 route add default via {}", gateway[1]));
            host.wait_for_link("eth0");
        }
        workload.ip(&format!("addr add {OWN_LINK_LOCAL}/64 dev eth0 nodad"));
        Self { node, workload, far }
    }

    fn count(&self, reason: Reason) -> u64 {
        self.node.counts()[&(reason as u8)]
    }
}

fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(addr(ip), port)
}

pub(crate) fn listen(there: &Namespace, address: SocketAddr) -> TcpListener {
    bound(there, || TcpListener::bind(address))
}

/// A command that another test starts just now has this test's sockets until it runs: one that was closed here may hold
/// its address still.
fn bound<S: Send>(there: &Namespace, bind: impl Fn() -> std::io::Result<S> + Sync) -> S {
    let mut bound = None;
    wait_until("the address is free", || {
        bound = there.run(&bind).ok();
        bound.is_some()
    });
    bound.unwrap()
}

pub(crate) fn udp(there: &Namespace, address: SocketAddr) -> UdpSocket {
    let socket = bound(there, || UdpSocket::bind(address));
    socket.set_read_timeout(Some(LONG)).unwrap();
    socket
}

pub(crate) fn connect(from: &Namespace, to: SocketAddr, patience: Duration) -> std::io::Result<TcpStream> {
    let stream = from.run(|| TcpStream::connect_timeout(&to, patience))?;
    stream.set_read_timeout(Some(patience)).unwrap();
    Ok(stream)
}

/// Sends a word and reads it at the other end.
pub(crate) fn carries(from: &mut TcpStream, to: &mut TcpStream) -> bool {
    let mut word = [0; 4];
    from.write_all(b"word").unwrap();
    to.read_exact(&mut word).is_ok() && word == *b"word"
}

/// Two million bytes, whole and in order.
pub(crate) fn bulk(from: &mut TcpStream, to: &mut TcpStream) {
    let sent: Vec<u8> = (0..2_000_000u32).map(|i| (i / 7) as u8).collect();
    let mut received = vec![0; sent.len()];
    std::thread::scope(|scope| {
        scope.spawn(|| from.write_all(&sent).unwrap());
        to.read_exact(&mut received).unwrap();
    });
    assert!(received == sent);
}

#[test]
fn allowed_flows_run_and_others_never_arrive() {
    let net = Net::new();
    for far in [FAR4, FAR6] {
        let open = listen(&net.far, at(far, 80));
        let _closed = listen(&net.far, at(far, 8888));
        let mut here = connect(&net.workload, at(far, 80), LONG).unwrap();
        let (mut there, peer) = open.accept().unwrap();
        there.set_read_timeout(Some(LONG)).unwrap();
        assert!(carries(&mut here, &mut there) && carries(&mut there, &mut here));
        assert_eq!(peer.ip(), addr(if far == FAR4 { OWN4 } else { OWN6 }));
        let denied = net.count(DeniedByDefault);
        assert!(connect(&net.workload, at(far, 8888), SHORT).is_err());
        assert!(net.count(DeniedByDefault) > denied);

        let own: IpAddr = addr(if far == FAR4 { OWN4 } else { OWN6 });
        let (a, b) = (udp(&net.workload, SocketAddr::new(own, 4000)), udp(&net.far, at(far, 5000)));
        a.send_to(b"ask", at(far, 5000)).unwrap();
        let mut buffer = [0; 8];
        let (length, from) = b.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..length], from.ip()), (&b"ask"[..], own));
        b.send_to(b"answer", from).unwrap();
        assert_eq!(a.recv(&mut buffer).unwrap(), 6);

        let inbound = listen(&net.workload, SocketAddr::new(own, 8080));
        let mut outside = connect(&net.far, SocketAddr::new(own, 8080), LONG).unwrap();
        let (mut inside, _) = inbound.accept().unwrap();
        assert!(carries(&mut outside, &mut inside) && carries(&mut inside, &mut outside));
        let _hidden = listen(&net.workload, SocketAddr::new(own, 8081));
        assert!(connect(&net.far, SocketAddr::new(own, 8081), SHORT).is_err());
    }
}

#[test]
fn bulk_over_many_segments_is_whole() {
    let net = Net::new();
    let open = listen(&net.far, at(FAR6, 80));
    let mut here = connect(&net.workload, at(FAR6, 80), LONG).unwrap();
    let (mut there, _) = open.accept().unwrap();
    bulk(&mut here, &mut there);
    bulk(&mut there, &mut here);
}

#[test]
fn a_policy_narrowed_under_an_open_flow_ends_it_at_once() {
    let mut net = Net::new();
    let open = listen(&net.far, at(FAR4, 80));
    let mut here = connect(&net.workload, at(FAR4, 80), LONG).unwrap();
    let (mut there, _) = open.accept().unwrap();
    there.set_read_timeout(Some(LONG)).unwrap();
    assert!(carries(&mut here, &mut there));
    net.node.tables.write_generation(&nothing(2)).unwrap();
    net.node.change(|e| (e.generation, e.egress_policy) = (2, PolicyId(110)));
    there.set_read_timeout(Some(SHORT)).unwrap();
    assert!(!carries(&mut here, &mut there));
    assert_eq!(net.count(Revoked), 1);
    assert!(connect(&net.workload, at(FAR4, 80), SHORT).is_err());
}

#[test]
fn the_node_is_closed_in_both_families_apart_from_its_listeners() {
    let net = Net::new();
    for (gateway, far_side) in [(GATEWAY4, "10.9.0.1"), (GATEWAY6, "fd00:9::1")] {
        let addresses = [GATEWAY4, GATEWAY6, "10.9.0.1", "fd00:9::1"].map(addr).into();
        net.node.tables.set_node_addresses(&addresses).unwrap();
        let _here = TcpListener::bind(at(gateway, 80)).unwrap();
        let edge = TcpListener::bind(at(far_side, 443)).unwrap();
        let _other = TcpListener::bind(at(far_side, 80)).unwrap();
        let closed = net.count(NodeAddress);
        assert!(connect(&net.workload, at(gateway, 80), SHORT).is_err());
        assert!(connect(&net.workload, at(far_side, 80), SHORT).is_err(), "allowed by CIDR, but the node's own");
        assert!(net.count(NodeAddress) >= closed + 2);
        let listener = gateway::egress::tables::node::Listener { address: None, port: 443, protocol: 6 };
        net.node.tables.set_node_listeners(&[listener].into()).unwrap();
        let mut there = connect(&net.workload, at(far_side, 443), LONG).unwrap();
        let (mut accepted, _) = edge.accept().unwrap();
        assert!(carries(&mut there, &mut accepted) && carries(&mut accepted, &mut there));
        net.node.tables.set_node_listeners(&[].into()).unwrap();
    }
}

#[test]
fn a_sealed_workload_hears_and_says_nothing() {
    let net = Net::new();
    let passed =
        || net.node.counts().iter().filter(|(reason, _)| (1..32).contains(*reason)).map(|(_, n)| n).sum::<u64>();
    let sealed =
        net.node.tables.workload(net.node.device).unwrap().map(|e| WorkloadEntry { sealed: true, ..e }).unwrap();
    net.node.tables.switch(net.node.device, &sealed).unwrap();
    let a = udp(&net.workload, at(OWN4, 4000));
    a.send_to(b"ask", at(FAR4, 5000)).unwrap();
    wait_until("its ARP is dropped", || net.count(Sealed) > 0);
    let (before, dropped) = (passed(), net.count(Sealed));
    wait_until("more is dropped", || net.count(Sealed) > dropped);
    assert_eq!(passed(), before);
    net.node.switch();
    wait_until("it speaks now", || {
        a.send_to(b"ask", at(FAR4, 5000)).unwrap();
        net.count(AllowedByCidr) > 0
    });
}

#[test]
fn a_played_mac_or_address_goes_nowhere() {
    let net = Net::new();
    net.workload.ip("addr add 10.1.0.77/24 dev eth0");
    net.workload.ip("addr add fd00:1::77/64 dev eth0 nodad");
    for (own, far) in [("10.1.0.77", FAR4), ("fd00:1::77", FAR6)] {
        let spoofed = net.count(SpoofedAddress);
        udp(&net.workload, at(own, 4000)).send_to(b"ask", at(far, 5000)).unwrap();
        wait_until("the address is refused", || net.count(SpoofedAddress) > spoofed);
    }
    net.workload.ip(&format!("link set eth0 address {}", Mac([2, 0, 0, 0, 0, 0x55])));
    udp(&net.workload, at(OWN4, 4000)).send_to(b"ask", at(FAR4, 5000)).unwrap();
    wait_until("the MAC is refused", || net.count(SpoofedMac) > 0);
}

#[test]
fn path_mtu_errors_come_through() {
    let net = Net::new();
    // the far link carries less than the workload's: the node says so by ICMP, and the workload must hear it
    ip("link set far mtu 1300");
    net.far.ip("link set eth0 mtu 1300");
    for far in [FAR4, FAR6] {
        let own = if far == FAR4 { OWN4 } else { OWN6 };
        let (a, b) = (udp(&net.workload, at(own, 4000)), udp(&net.far, at(far, 5000)));
        let before = net.count(IcmpErrorOfFlow);
        a.send_to(&[7; 1400], at(far, 5000)).unwrap();
        wait_until("the error passes", || net.count(IcmpErrorOfFlow) > before);
        // now the workload fragments by itself, and its fragments pass
        let mut buffer = [0; 2000];
        b.set_read_timeout(Some(SHORT)).unwrap();
        wait_until("the datagram arrives in pieces", || {
            let _ = a.send_to(&[7; 1400], at(far, 5000));
            b.recv(&mut buffer).is_ok_and(|length| length == 1400)
        });
    }
}
