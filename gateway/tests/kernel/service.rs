//! The service namespace with ordinary sockets in it: DNS-like questions to any server, and the edge's connections.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd};
use std::time::Duration;

use gateway::workload::{Mac, WorkloadId};
use policy::reason::Reason::*;

use super::live::{Net, bulk, carries, connect, listen, udp};
use super::world::*;

const LONG: Duration = Duration::from_secs(10);
const TG1_MAC: Mac = Mac([2, 0, 0, 0, 0x77, 1]);

/// A namespace behind tg0, set up as the design says: AnyIP for both families.
fn service(net: &Net) -> Namespace {
    let service = Namespace::new();
    ip(&format!("link add tg0 type veth peer name tg1 netns {}", service.path()));
    for command in [
        &format!("link set tg1 address {TG1_MAC} arp off up"),
        "addr add 198.19.255.254/15 dev tg1",
        "addr add fd74:6769::ffff/64 dev tg1 nodad",
        "addr add 169.254.77.1/32 dev tg1",
        "addr add fe80::77/64 dev tg1 nodad",
        "route add local default dev lo",
        "-6 route add local default dev lo table main",
        "-6 route add local fe80::/64 dev tg1 table local",
    ] {
        service.ip(command);
    }
    service.sysctl("net/ipv6/ip_nonlocal_bind", "1");
    ip("link set tg0 up");
    service.wait_for_link("tg1");
    let tg0 = ifindex("tg0");
    net.node.tables.attach_service(tg0).unwrap();
    net.node.tables.set_service(tg0, TG1_MAC).unwrap();
    net.node.tables.set_exposed(&[(WorkloadId(1), 8080, 6)].into()).unwrap();
    service
}

/// A TCP socket that may bind any address, bound and connected.
fn dial(service: &Namespace, source: IpAddr, to: SocketAddr) -> std::io::Result<TcpStream> {
    service.run(|| {
        let (family, level, option) = match source {
            IpAddr::V4(_) => (libc::AF_INET, libc::IPPROTO_IP, libc::IP_FREEBIND),
            IpAddr::V6(_) => (libc::AF_INET6, libc::IPPROTO_IPV6, 78 /* IPV6_FREEBIND */),
        };
        // SAFETY: plain arguments; the descriptor is owned at once.
        let stream = unsafe { TcpStream::from_raw_fd(libc::socket(family, libc::SOCK_STREAM, 0)) };
        let one = 1i32;
        // SAFETY: an int and its size.
        assert_eq!(unsafe { libc::setsockopt(stream.as_raw_fd(), level, option, (&raw const one).cast(), 4) }, 0);
        let timeout = libc::timeval { tv_sec: 10, tv_usec: 0 };
        // SAFETY: a timeval and its size.
        unsafe {
            libc::setsockopt(stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_SNDTIMEO, (&raw const timeout).cast(), 16)
        };
        for (call, address) in [(0, SocketAddr::new(source, 0)), (1, to)] {
            let (raw, length) = raw_address(address);
            // SAFETY: an address and its length.
            let result = unsafe {
                if call == 0 {
                    libc::bind(stream.as_raw_fd(), raw.as_ptr().cast(), length)
                } else {
                    libc::connect(stream.as_raw_fd(), raw.as_ptr().cast(), length)
                }
            };
            if result != 0 {
                return Err(std::io::Error::last_os_error());
            }
        }
        stream.set_read_timeout(Some(LONG)).unwrap();
        Ok(stream)
    })
}

fn raw_address(address: SocketAddr) -> ([u8; 28], u32) {
    let mut raw = [0; 28];
    raw[2..4].copy_from_slice(&address.port().to_be_bytes());
    match address.ip() {
        IpAddr::V4(ip) => {
            raw[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
            raw[4..8].copy_from_slice(&ip.octets());
            (raw, 16)
        }
        IpAddr::V6(ip) => {
            raw[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
            raw[8..24].copy_from_slice(&ip.octets());
            (raw, 28)
        }
    }
}

#[test]
fn questions_to_any_server_reach_ordinary_sockets_and_so_do_the_answers() {
    let net = Net::new();
    let service = service(&net);
    // bound to the server's address, as the DNS server answers from the address that was asked
    for (server, own, handle) in
        [("8.8.8.8", OWN4, "198.18.0.1"), ("2001:db8::53", OWN6, "fd74:6769::1:1"), (GATEWAY4, OWN4, "198.18.0.1")]
    {
        let there = SocketAddr::new(addr(server), 53);
        let answering = service.run(|| UdpSocket::bind(there).unwrap());
        answering.set_read_timeout(Some(LONG)).unwrap();
        let asking = udp(&net.workload, SocketAddr::new(addr(own), 0));
        asking.send_to(b"question", there).unwrap();
        let mut buffer = [0; 16];
        let (length, from) = answering.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..length], from.ip()), (&b"question"[..], addr(handle)));
        answering.send_to(b"answer", from).unwrap();
        let (length, from) = asking.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..length], from), (&b"answer"[..], there));

        let listener = service.run(|| TcpListener::bind(there).unwrap());
        let mut here = connect(&net.workload, there, LONG).unwrap();
        let (mut accepted, peer) = listener.accept().unwrap();
        accepted.set_read_timeout(Some(LONG)).unwrap();
        assert_eq!(peer.ip(), addr(handle));
        assert!(carries(&mut here, &mut accepted) && carries(&mut accepted, &mut here));
    }
    let scope = net.workload.run(|| ifindex("eth0"));
    let resolver = SocketAddrV6::new("fe80::1".parse::<Ipv6Addr>().unwrap(), 53, 0, scope);
    let any = service.run(|| UdpSocket::bind("[::]:53").unwrap());
    any.set_read_timeout(Some(LONG)).unwrap();
    net.workload.ip("neigh add fe80::1 lladdr 02:00:00:00:00:fe dev eth0 nud permanent");
    udp(&net.workload, SocketAddr::new(addr("::"), 0)).send_to(b"link-local", resolver).unwrap();
    let (_, from) = any.recv_from(&mut [0; 16]).unwrap();
    assert_eq!(from.ip(), addr("fd74:6769::1:2"), "a link-local asker has a handle of its own");
}

#[test]
fn the_edge_connects_by_handle_and_only_to_what_is_exposed() {
    let mut net = Net::new();
    net.node.change(|e| e.external = true);
    let service = service(&net);
    let cases =
        [(GATEWAY4, "198.18.0.1", OWN4), ("169.254.77.1", "198.18.0.1", OWN4), (GATEWAY6, "fd74:6769::1:1", OWN6)];
    for (source, handle, own) in cases {
        let app = listen(&net.workload, SocketAddr::new(addr(own), 8080));
        let _other = listen(&net.workload, SocketAddr::new(addr(own), 8081));
        let mut edge = dial(&service, addr(source), SocketAddr::new(addr(handle), 8080)).unwrap();
        let (mut inside, peer) = app.accept().unwrap();
        inside.set_read_timeout(Some(LONG)).unwrap();
        assert_eq!(peer.ip(), addr(source));
        bulk(&mut edge, &mut inside);
        bulk(&mut inside, &mut edge);
        let refused = net.node.counts()[&(NotExposed as u8)];
        let tried = std::thread::scope(|scope| {
            let trying = scope.spawn(|| dial(&service, addr(source), SocketAddr::new(addr(handle), 8081)).is_err());
            wait_until("another port is refused", || net.node.counts()[&(NotExposed as u8)] > refused);
            trying.join().unwrap()
        });
        assert!(tried);
    }
}
