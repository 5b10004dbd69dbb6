//! Real sockets: in the workload, and behind it, where each answer's checksum is made or looked at.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

use super::super::live::{Net, udp};
use super::*;

/// Whether the device makes checksums (`SIOCETHTOOL`, ethtool's `tx`), in this thread's namespace.
fn offload(device: &str, on: bool) {
    const SIOCETHTOOL: libc::c_ulong = 0x8946;
    const ETHTOOL_STXCSUM: u32 = 0x17;
    let mut value = [ETHTOOL_STXCSUM, u32::from(on)];
    // SAFETY: plain memory, all zeros are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name.iter_mut().zip(device.bytes()).for_each(|(to, from)| *to = from as libc::c_char);
    request.ifr_ifru.ifru_data = value.as_mut_ptr().cast();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    // SAFETY: a request with a device's name and a value of two words, which live through the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    assert_eq!(result, 0, "{device}: {}", std::io::Error::last_os_error());
}

fn net() -> Net {
    let net = Net::new();
    net.node.tables.set_answer_rules(Some(RULES)).unwrap();
    net
}

/// Asks with these words and holds what comes against what is kept.
fn asks(socket: &UdpSocket, server: &str, kept: &Kept, ask: &Ask) {
    let (question, mut buffer) = (ask.message(), [0; 2048]);
    let most = seconds_left(kept);
    socket.send_to(&question, SocketAddr::new(addr(server), 53)).unwrap();
    let (length, from) = socket.recv_from(&mut buffer).unwrap();
    assert_eq!(from, SocketAddr::new(addr(server), 53));
    let least = seconds_left(kept);
    assert!((least..=most).any(|left| buffer[..length] == reply(&question, kept, left)));
}

#[test]
fn a_socket_takes_the_answer_whoever_makes_checksums() {
    let net = net();
    for ask in [Ask::default(), Ask { opt: Some((1232, 0)), name: "API.example.com", ..Ask::default() }] {
        let kept = keep_closed(&net.node, &ask, &["192.0.2.1", "192.0.2.2"]);
        for on in [true, false] {
            net.workload.run(|| offload("eth0", on));
            for (own, server) in BOTH {
                asks(&udp(&net.workload, SocketAddr::new(addr(own), 0)), server, &kept, &ask);
            }
        }
    }
}

/// The workload's addresses are those of a namespace behind it (containers in a container). On the way there the answer's
/// checksum is finished by the stack, and looked at by the socket.
#[test]
fn an_answer_that_the_workload_forwards_has_its_checksum() {
    let net = net();
    let inner = Namespace::new();
    net.workload.ip(&format!("link add in type veth peer name eth0 netns {}", inner.path()));
    for key in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
        net.workload.sysctl(key, "1");
    }
    for command in [
        &format!("addr del {OWN4}/24 dev eth0"),
        &format!("-6 addr del {OWN6}/64 dev eth0"),
        "addr add 192.168.7.1/24 dev in",
        "addr add fd00:7::1/64 dev in nodad",
        "link set in up",
        &format!("route add {GATEWAY4} dev eth0"),
        &format!("route replace default via {GATEWAY4}"),
        &format!("-6 route add {GATEWAY6} dev eth0"),
        &format!("-6 route replace default via {GATEWAY6}"),
        &format!("neigh replace {GATEWAY4} lladdr {GATEWAY_MAC} dev eth0 nud permanent"),
        &format!("neigh replace {GATEWAY6} lladdr {GATEWAY_MAC} dev eth0 nud permanent"),
    ] {
        net.workload.ip(command);
    }
    for command in [
        "link set eth0 up",
        "addr add 192.168.7.2/24 dev eth0",
        "addr add fd00:7::2/64 dev eth0 nodad",
        &format!("addr add {OWN4}/32 dev eth0"),
        &format!("addr add {OWN6}/128 dev eth0 nodad"),
        &format!("route add default via 192.168.7.1 src {OWN4}"),
        &format!("-6 route add default via fd00:7::1 src {OWN6}"),
    ] {
        inner.ip(command);
    }
    inner.wait_for_link("eth0");
    net.workload.wait_for_link("in");
    net.workload.ip(&format!("route add {OWN4}/32 via 192.168.7.2"));
    net.workload.ip(&format!("-6 route add {OWN6}/128 via fd00:7::2"));
    let ask = Ask { opt: Some((1232, 0)), ..Ask::default() };
    let kept = keep_closed(&net.node, &ask, &["192.0.2.1"]);
    for (client, forwarder) in [(true, true), (true, false), (false, true), (false, false)] {
        inner.run(|| offload("eth0", client));
        net.workload.run(|| ["eth0", "in"].into_iter().for_each(|device| offload(device, forwarder)));
        for (own, server) in BOTH {
            asks(&udp(&inner, SocketAddr::new(addr(own), 0)), server, &kept, &ask);
        }
    }
}
