//! The DNS server over a real kernel, a real upstream and real clients.

#![allow(clippy::unwrap_used, reason = "a test's world stops the test when it cannot be made")]

mod corpus;
#[path = "../service_world/mod.rs"]
mod service_world;
mod world;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::proto::op::{Message, ResponseCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, UdpSocket};
use world::{NOBODY, Node, SOON, UPSTREAM, V4, V6, framed, query, read_one};

#[test]
fn whatever_ipv4_server_is_asked_answers() {
    whatever_server_is_asked_answers(V4, &["8.8.8.8", "10.0.0.1", "169.254.20.10", "198.18.255.254"]);
}

#[test]
fn whatever_ipv6_server_is_asked_answers() {
    whatever_server_is_asked_answers(V6, &["2001:db8::53", "fe80::53%tg0"]);
}

fn whatever_server_is_asked_answers(asker: &str, servers: &[&str]) {
    let node = Node::new();
    node.serve(async |node| {
        for server in servers {
            for transport in ["+notcp", "+tcp"] {
                for (kind, address) in [("A", "203.0.113.10"), ("AAAA", "2001:db8:1::10"), ("TXT", "hello")] {
                    let shown = node.dig(&format!("-b {asker} {transport} @{server} WWW.Example.com {kind}")).await;
                    assert!(
                        shown.contains("status: NOERROR") && shown.contains(address),
                        "{server} {transport} {kind}\n{shown}"
                    );
                    let (address, _scope) = server.split_once('%').unwrap_or((server, ""));
                    assert!(shown.contains(&format!("SERVER: {address}")), "{shown}");
                }
            }
        }
        let learned = node.notes.learned(asker, "www.example.com");
        for (address, ttl) in [("203.0.113.10", 60), ("2001:db8:1::10", 90)] {
            let own = learned.iter().filter(|(learned, _)| learned == address).map(|(_, ttl)| *ttl).max();
            assert!(own.is_some_and(|own| (1..=ttl).contains(&own)), "{learned:?}");
        }
        assert!(node.notes.learned("198.18.0.11", "www.example.com").is_empty(), "another workload learns nothing");
    });
}

/// The same without `dig`, quick enough for a kernel in emulation; a connected socket hears only whom it asked.
#[test]
fn sockets_of_both_families_hear_whom_they_asked() {
    let node = Node::new();
    node.serve(async |node| {
        let scope: u32 = node.service.tg0_ifindex();
        let servers = ["8.8.8.8:53".to_owned(), "[2001:db8::53]:53".to_owned(), format!("[fe80::53%{scope}]:53")];
        for (id, server) in (1..).zip(servers) {
            let server: SocketAddr = server.parse().unwrap();
            let source = SocketAddr::new(if server.is_ipv4() { V4 } else { V6 }.parse().unwrap(), 0);
            let udp = UdpSocket::bind(source).await.unwrap();
            udp.connect(server).await.unwrap();
            udp.send(&query(id, "app.example.com.")).await.unwrap();
            let mut buffer = [0; 1500];
            let length = tokio::time::timeout(2 * SOON, udp.recv(&mut buffer)).await.unwrap().unwrap();
            let by_udp = Message::from_vec(&buffer[..length]).unwrap();

            let socket = if server.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.unwrap();
            socket.bind(source).unwrap();
            let mut tcp = tokio::time::timeout(2 * SOON, socket.connect(server)).await.unwrap().unwrap();
            tcp.write_all(&framed(id, "app.example.com.")).await.unwrap();
            let by_tcp = read_one(&mut tcp).await;
            for answer in [by_udp, by_tcp] {
                assert_eq!((answer.metadata.id, answer.answers.len()), (id, 4), "{server} {answer}");
            }
        }
    });
}

#[test]
fn refused_names_do_not_exist_and_say_why() {
    let node = Node::new();
    node.serve(async |node| {
        for transport in ["+notcp", "+tcp"] {
            let shown = node.dig(&format!("{transport} @8.8.8.8 secret.example.org")).await;
            assert!(shown.contains("status: NXDOMAIN"), "{shown}");
            assert!(shown.contains("EDE: 18 (Prohibited): (no rule of shop/shop-egress allows this name)"), "{shown}");
            let soa = shown.lines().find(|line| line.contains("SOA")).unwrap_or_default();
            assert!(
                soa.starts_with("secret.example.org.") && soa.contains("\t5\tIN") && soa.ends_with(" 5"),
                "{shown}"
            );
        }
        let plain = node.dig("+noedns @8.8.8.8 secret.example.org").await;
        assert!(plain.contains("status: NXDOMAIN") && !plain.contains("OPT PSEUDOSECTION"), "{plain}");
        let root = node.dig("@8.8.8.8 . NS").await;
        assert!(root.contains("status: NXDOMAIN"), "{root}");
        let escaped = node.dig(r"@8.8.8.8 'www\.example.com'").await;
        assert!(escaped.contains("status: NXDOMAIN") && escaped.contains("EDE: 18"), "a dot inside a label\n{escaped}");
    });
}

#[test]
fn a_chain_is_learned_under_the_asked_name() {
    let node = Node::new();
    node.serve(async |node| {
        let shown = node.dig("@8.8.8.8 app.example.com").await;
        for part in ["mid.example.com.", "edge.example.net.", "203.0.113.20", "203.0.113.21"] {
            assert!(shown.contains(part), "{part}\n{shown}");
        }
        let want = [("203.0.113.20".to_owned(), 20), ("203.0.113.21".to_owned(), 20)];
        assert_eq!(node.notes.learned(V4, "app.example.com"), want, "with the least TTL on the way");
        assert_eq!(node.notes.learned.lock().unwrap().len(), 2);
    });
}

#[test]
fn long_answers_are_cut_and_come_by_tcp() {
    let node = Node::new();
    node.serve(async |node| {
        for size in ["+bufsize=4096", "+bufsize=1232", "+noedns"] {
            let cut = node.dig(&format!("+ignore {size} @8.8.8.8 many.example.com")).await;
            assert!(cut.contains("flags: qr tc") && cut.contains("ANSWER: 0"), "{size}\n{cut}");
            let whole = node.dig(&format!("{size} @8.8.8.8 many.example.com")).await;
            assert!(whole.contains("ANSWER: 120") && whole.contains("(TCP)"), "{size}\n{whole}");
        }
        assert_eq!(node.notes.pairs(), 120);
    });
}

#[test]
fn every_type_passes_as_it_is() {
    let node = Node::new();
    node.serve(async |node| {
        let odd = node.dig("@8.8.8.8 odd.example.com TYPE65280").await;
        assert!(odd.contains(r"\# 4 0A0B0C0D"), "{odd}");
        let https = node.dig("@8.8.8.8 www.example.com HTTPS").await;
        assert!(https.contains("ipv4hint=203.0.113.10"), "{https}");
        assert!(node.notes.learned(V4, "www.example.com").is_empty(), "a hint opens nothing");
        let secured = node.dig("+dnssec @8.8.8.8 www.example.com").await;
        assert!(secured.contains("flags: do"), "{secured}");
        let nothing = node.dig("@8.8.8.8 nothing.example.com").await;
        assert!(
            nothing.contains("status: NXDOMAIN") && nothing.contains("admin.example.com"),
            "the upstream's own answer\n{nothing}"
        );
        let version = node.dig("+edns=1 +noednsneg @8.8.8.8 www.example.com").await;
        assert!(version.contains("status: BADVERS"), "{version}");
        for unserved in ["version.bind CH TXT", "example.com AXFR +notcp"] {
            let shown = node.dig(&format!("@8.8.8.8 {unserved}")).await;
            assert!(shown.contains("NOTIMP") || shown.contains("failed"), "{unserved}\n{shown}");
        }
    });
}

#[test]
fn one_kept_answer_has_ech_only_for_whom_no_handshake_is_read() {
    let node = Node::new();
    node.serve(async |node| {
        for transport in ["+notcp", "+tcp"] {
            for (asker, shown) in [
                ("198.18.0.11", "\\# 34 00010000000004000100050001000302683200040004CB00710A 00050004DEADBEEF"),
                (V4, "\\# 24 0001000000000200010001000302683200040004CB00710A"),
            ] {
                let said =
                    node.dig(&format!("-b {asker} {transport} +unknownformat @8.8.8.8 hidden.example.com HTTPS")).await;
                let flat = said.replace([' ', '\t'], "");
                assert!(flat.contains(&shown.replace(' ', "")), "{asker} {transport}\n{said}");
            }
        }
    });
}

#[test]
fn an_answer_leaves_only_when_it_is_learned() {
    let node = Node::new();
    node.serve(async |node| {
        node.notes.shut();
        let mut asking = node.spawn(&format!("dig +tries=1 +time=60 -b {V4} @8.8.8.8 www.example.com"));
        node.until_learning(1).await;
        assert!(asking.try_wait().unwrap().is_none(), "answered before it was learned");
        node.notes.open();
        let shown = tokio::task::block_in_place(|| asking.wait_with_output()).unwrap().stdout;
        assert!(String::from_utf8_lossy(&shown).contains("203.0.113.10"));

        *node.notes.failing.lock().unwrap() = Some("the table of learned addresses is full".to_owned());
        for transport in ["+notcp", "+tcp"] {
            let shown = node.dig(&format!("{transport} @8.8.8.8 www.example.com")).await;
            assert!(
                shown.contains("status: SERVFAIL") && shown.contains("the table of learned addresses is full"),
                "{shown}"
            );
            assert!(!shown.contains("203.0.113.10"), "{shown}");
        }
    });
}

#[test]
fn addresses_that_no_name_may_have_are_filtered() {
    let node = Node::new();
    node.serve(async |node| {
        for (name, why) in [
            ("rebind.example.com A", "127.0.0.1, which no name may have"),
            ("hinted.example.com HTTPS", "no rule of shop/shop-egress speaks of 169.254.169.254"),
        ] {
            let shown = node.dig(&format!("@8.8.8.8 {name}")).await;
            assert!(
                shown.contains("status: NXDOMAIN")
                    && shown.contains("EDE: 17 (Filtered)")
                    && shown.contains(why)
                    && !shown.contains("203.0.113.66"),
                "{shown}"
            );
        }
        assert!(node.notes.learned.lock().unwrap().is_empty());
    });
}

#[test]
fn glue_that_leads_inside_is_left_out_and_the_answer_stays() {
    let node = Node::new();
    node.serve(async |node| {
        for transport in ["+notcp", "+tcp"] {
            let shown = node.dig(&format!("{transport} @8.8.8.8 mail.example.com MX")).await;
            assert!(shown.contains("status: NOERROR") && shown.contains("10 rebind.example.com."), "{shown}");
            assert!(shown.contains("203.0.113.10") && shown.contains("203.0.113.66"), "glue that may be\n{shown}");
            assert!(!shown.contains("127.0.0.1\n"), "{shown}");
        }
    });
}

#[test]
fn dead_upstreams_are_said_and_passed_over() {
    let node = Node::new();
    node.serve(async |node| {
        let silent = UdpSocket::bind("192.0.2.53:5300").await.unwrap();
        let [silent, closed, good] =
            [silent.local_addr().unwrap(), "192.0.2.53:5301".parse().unwrap(), "192.0.2.53:53".parse().unwrap()];
        let cases: [(&[SocketAddr], &str); 5] = [
            (&[closed], "EDE: 23 (Network Error)"),
            (&[silent], "EDE: 22 (No Reachable Authority)"),
            (&[], "EDE: 22 (No Reachable Authority)"),
            (&[silent, good], "203.0.113.10"),
            (&[closed, good], "203.0.113.10"),
        ];
        for (upstreams, want) in cases {
            *node.notes.upstreams.lock().unwrap() = upstreams.to_vec();
            let shown = node.dig("@8.8.8.8 www.example.com").await;
            let time = shown
                .lines()
                .find_map(|line| line.strip_prefix(";; Query time: ")?.strip_suffix(" msec")?.parse().ok());
            let time = Duration::from_millis(time.unwrap_or(u64::MAX));
            assert!(shown.contains(want) && time < SOON, "{upstreams:?} {time:?}\n{shown}");
            assert_eq!(want.starts_with("EDE"), shown.contains("status: SERVFAIL"), "{shown}");
        }
    });
}

#[test]
fn an_unknown_asker_gets_nothing_and_is_counted() {
    let metrics = gateway::telemetry::metrics::start().unwrap();
    let node = Node::new();
    node.serve(async |node| {
        for transport in ["+notcp", "+tcp"] {
            let shown = node.dig(&format!("-b {NOBODY} +time=1 {transport} @8.8.8.8 www.example.com")).await;
            assert!(!shown.contains("status:"), "{shown}");
        }
        let known = node.dig("@8.8.8.8 www.example.com").await;
        assert!(known.contains("NOERROR"), "{known}");
        let text = metrics.render();
        let count = |outcome: &str| {
            text.lines()
                .find(|line| line.starts_with("tidegate_dns_queries_total") && line.contains(outcome))
                .map(str::to_owned)
        };
        assert!(
            count("unknown-asker").is_some()
                && count("answered").is_some()
                && text.contains("tidegate_dns_query_seconds"),
            "{text}"
        );
    });
}

#[test]
fn bounds_hold_for_each_asker() {
    let mut node = Node::new();
    node.limits.queries_per_asker = 2;
    node.limits.connections_per_asker = 1;
    node.serve(async |node| {
        let slow = UdpSocket::bind("192.0.2.53:5300").await.unwrap();
        *node.notes.upstreams.lock().unwrap() = vec![slow.local_addr().unwrap()];
        let ask = |n: u32| node.spawn(&format!("dig +tries=1 +time=60 -b {V4} @8.8.8.8 {n}.wild.example.com"));
        let waiting = [ask(1), ask(2)];
        let mut heard = BTreeSet::new();
        while heard.len() < 2 {
            heard.insert(slow.recv_from(&mut [0; 512]).await.unwrap().1);
        }
        let third = node.dig("+time=1 @8.8.8.8 www.example.com").await;
        assert!(!third.contains("status:"), "dropped\n{third}");
        let by_tcp = node.dig("+tcp @8.8.8.8 www.example.com").await;
        assert!(by_tcp.contains("SERVFAIL") && by_tcp.contains("too many queries"), "{by_tcp}");
        let other = node.spawn("dig +tries=1 +time=60 -b 198.18.0.11 @8.8.8.8 www.example.com");
        let relaying = tokio::spawn(relay(slow)); // to what is asked again, too
        for asking in waiting.into_iter().chain([other]) {
            let shown = tokio::task::block_in_place(|| asking.wait_with_output()).unwrap().stdout;
            assert!(String::from_utf8_lossy(&shown).contains("NOERROR"));
        }
        relaying.abort();
        *node.notes.upstreams.lock().unwrap() = vec![UPSTREAM.parse().unwrap()];

        let first = connect().await;
        let second = connect().await;
        let (mut first, mut second) = (first, second);
        second.write_all(&framed(2, "www.example.com.")).await.unwrap_or(());
        assert!(matches!(second.read(&mut [0; 2]).await, Ok(0) | Err(_)), "a second connection is closed");
        first.write_all(&framed(1, "www.example.com.")).await.unwrap();
        assert_eq!(read_one(&mut first).await.metadata.id, 1);
    });
}

/// Has the real server answer what comes there.
async fn relay(server: UdpSocket) {
    let mut bytes = [0; 512];
    loop {
        let (length, from) = server.recv_from(&mut bytes).await.unwrap();
        let beyond = UdpSocket::bind("192.0.2.53:0").await.unwrap();
        beyond.send_to(&bytes[..length], UPSTREAM).await.unwrap();
        let length = beyond.recv(&mut bytes).await.unwrap();
        server.send_to(&bytes[..length], from).await.unwrap();
    }
}

async fn connect() -> tokio::net::TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(V4.parse().unwrap(), 0)).unwrap();
    socket.connect("8.8.8.8:53".parse().unwrap()).await.unwrap()
}

#[test]
fn pipelined_queries_in_pieces_are_all_answered() {
    let node = Node::new();
    node.serve(async |_| {
        let mut stream = connect().await;
        let all: Vec<u8> = (0..200).flat_map(|id| framed(id, &format!("n{id}.wild.example.com."))).collect();
        let (mut reader, mut writer) = stream.split();
        let write = async {
            for piece in all.chunks(7) {
                writer.write_all(piece).await.unwrap();
            }
            writer.shutdown().await.unwrap();
        };
        let read = async {
            let mut seen = [false; 200];
            let mut rest = Vec::new();
            reader.read_to_end(&mut rest).await.unwrap();
            let mut rest = rest.as_slice();
            while let Some((length, after)) = rest.split_first_chunk::<2>() {
                let (bytes, after) = after.split_at(usize::from(u16::from_be_bytes(*length)));
                let message = Message::from_vec(bytes).unwrap();
                assert_eq!(message.answers.len(), 1);
                seen[usize::from(message.metadata.id)] = true;
                rest = after;
            }
            seen.iter().filter(|seen| **seen).count()
        };
        let ((), seen) = tokio::join!(write, read);
        assert_eq!(seen, 200);
    });
}

#[test]
fn thousands_of_queries_at_once() {
    let mut node = Node::new();
    node.limits.lookups_per_second = 100_000;
    node.serve(async |node| {
        let asks = (0..16u16).map(|client| {
            tokio::spawn(async move {
                let (source, server) = if client % 2 == 0 { (V4, "8.8.8.8:53") } else { (V6, "[2001:db8::53]:53") };
                let socket = UdpSocket::bind(SocketAddr::new(source.parse::<IpAddr>().unwrap(), 0)).await.unwrap();
                socket.connect(server.parse::<SocketAddr>().unwrap()).await.unwrap();
                let mut left: Vec<u16> = (0..250).collect();
                let mut buffer = [0; 1500];
                let end = Instant::now() + 2 * SOON;
                while !left.is_empty() {
                    assert!(Instant::now() < end, "{} of client {client} unanswered", left.len());
                    for window in left.clone().chunks(50) {
                        for id in window {
                            socket.send(&query(*id, &format!("c{client}-{id}.wild.example.com."))).await.unwrap();
                        }
                        while let Ok(length) = tokio::time::timeout(SOON / 10, socket.recv(&mut buffer)).await {
                            let message = Message::from_vec(&buffer[..length.unwrap()]).unwrap();
                            assert_eq!(
                                (message.metadata.response_code, message.answers.len()),
                                (ResponseCode::NoError, 1)
                            );
                            left.retain(|id| *id != message.metadata.id);
                            if window.iter().all(|id| !left.contains(id)) {
                                break;
                            }
                        }
                    }
                }
            })
        });
        for ask in asks.collect::<Vec<_>>() {
            ask.await.unwrap();
        }
        assert_eq!(node.notes.pairs(), 4000);
    });
}

#[test]
fn a_tenants_own_server_is_asked_through_its_device() {
    let node = Node::new();
    let mut servers = Vec::new();
    for (tenant, www) in [("a", "203.0.113.101"), ("b", "203.0.113.102")] {
        let netns = format!("{}{tenant}", node.world.name);
        let world = &node.world;
        world.run(&format!("ip netns add {netns} && ip link add up{tenant} type veth peer name eth0 netns {netns}"));
        world.run(&format!("ip link set up{tenant} up && ip addr add 10.53.0.1/24 dev up{tenant} && ip route add 10.53.0.53 dev up{tenant} metric 5{}", servers.len()));
        world.run(&format!(
            "ip netns exec {netns} sh -c 'ip link set lo up; ip link set eth0 up; ip addr add 10.53.0.53/24 dev eth0'"
        ));
        servers.push((world::unbound(world, &netns, "10.53.0.53", www), Netns(netns)));
    }
    *node.notes.upstreams.lock().unwrap() = vec!["10.53.0.53:53".parse().unwrap()];
    node.serve(async |node| {
        for (device, want) in [("upa", "203.0.113.101"), ("upb", "203.0.113.102")] {
            *node.notes.device.lock().unwrap() = Some(device.parse().unwrap());
            let shown = node.dig("@8.8.8.8 www.example.com").await;
            assert!(shown.contains(want), "{device}\n{shown}");
            let long = node.dig("@8.8.8.8 many.example.com").await;
            assert!(long.contains("ANSWER: 120"), "{device}, TCP\n{long}");
        }
    });
}

struct Netns(String);

impl Drop for Netns {
    fn drop(&mut self) {
        drop(Command::new("ip").args(["netns", "del", &self.0]).output());
    }
}

#[test]
fn the_libcs_resolver_finds_names_past_refused_ones() {
    let node = Node::new();
    let file = node.world.dir.join("resolv.conf");
    std::fs::write(
        &file,
        "nameserver 8.8.8.8\nsearch shop.svc.cluster.local example.com\noptions ndots:5 timeout:3 attempts:1\n",
    )
    .unwrap();
    node.serve(async |node| {
        node.world.run(&format!("ip route replace default dev tg0 src {V4}"));
        let run = |command: &str| {
            let whole = format!("unshare -m sh -c 'mount --bind {} /etc/resolv.conf && {command}'", file.display());
            tokio::task::block_in_place(|| node.world.try_run(&whole))
        };
        for command in [
            "getent ahosts www",
            "getent ahosts www.example.com",
            "python3 -c \"import socket; print(socket.getaddrinfo(\\\"www\\\", 443))\"",
        ] {
            let output = run(command);
            let shown = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
            assert!(shown.contains("203.0.113.10") && shown.contains("2001:db8:1::10"), "{command}\n{shown}");
        }
        assert_eq!(run("getent ahosts secret.example.org").status.code(), Some(2), "not found");
    });
}

#[test]
fn a_new_daemon_takes_the_port_at_once() {
    let node = Node::new();
    let mut left_open = Vec::new();
    node.serve(async |node| {
        let mut stream = connect().await;
        stream.write_all(&framed(1, "www.example.com.")).await.unwrap();
        read_one(&mut stream).await;
        left_open.push(stream.into_std().unwrap());
        drop(node.dig("+tcp @8.8.8.8 www.example.com").await);
    });
    let Node { world, service, notes, limits, _upstream } = node;
    drop(service);
    let service = world.inside(|| gateway::service::Service::start(&world.config()).unwrap());
    let again = Node { world, service, notes: Arc::clone(&notes), limits, _upstream };
    again.world.be_host_again();
    again.serve(async |node| {
        let shown = node.dig("+tcp @8.8.8.8 www.example.com").await;
        assert!(shown.contains("203.0.113.10"), "{shown}");
    });
}
