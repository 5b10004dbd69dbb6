//! Random frames: mostly what hosts send, follow-ups of what was sent before, and every way of being wrong.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use gateway::egress::attach::Program;
use gateway::workload::Mac;

use crate::draw::Draw;
use crate::packets::Wire;
use crate::reading::{ACK, FIN, ICMP, ICMPV6, RST, SCTP, SYN, TCP, UDP};
use crate::reference::Member;
use crate::scenario::{Device, Entrance, Shot};
use crate::sight;
use crate::world::World;

pub(crate) const GATEWAY: Mac = Mac([2, 0, 0, 0, 0, 0xfe]);
const BROADCAST: Mac = Mac([0xff; 6]);

/// Two ends that have been heard of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conversation {
    workload: usize,
    local: IpAddr,
    remote: IpAddr,
    protocol: u8,
    local_port: u16,
    remote_port: u16,
    id: u16,
}

pub(crate) fn draw_shot(draw: &mut Draw, world: &World, members: &[Member], memory: &mut Vec<Conversation>) -> Shot {
    let talk = match memory.as_slice() {
        known if !known.is_empty() && draw.below(5) > 0 => {
            let recent = known.len().saturating_sub(8);
            if draw.one_in(2) { draw.of(&known[recent..]) } else { draw.of(known) }
        }
        _ => {
            let talk = conversation(draw, world, members);
            memory.push(talk);
            talk
        }
    };
    let own = &members[talk.workload];
    let mut shot = match draw.below(20) {
        0..=1 => served(draw, world, own, talk, memory),
        2..=10 => outgoing(draw, own, talk, members),
        _ => incoming(draw, own, talk, members),
    };
    if draw.one_in(200) {
        shot.device = Device::Unknown;
    }
    spoil(draw, &mut shot.frame);
    shot
}

/// A new conversation of a workload: what it sends first, and what both sides do then.
pub(crate) fn draw_exchange(
    draw: &mut Draw,
    world: &World,
    members: &[Member],
    memory: &mut Vec<Conversation>,
) -> [Vec<Shot>; 2] {
    let talk = conversation(draw, world, members);
    memory.push(talk);
    let own = &members[talk.workload];
    let first = draw.some(2, |draw| outgoing(draw, own, talk, members));
    let then = draw.some(4, |draw| of_either(draw, own, talk, members));
    [first, then]
}

/// One more packet of each of the last conversations.
pub(crate) fn draw_again(draw: &mut Draw, members: &[Member], memory: &[Conversation]) -> Vec<Shot> {
    let last = memory.iter().rev().take(8);
    last.map(|talk| of_either(draw, &members[talk.workload], *talk, members)).collect()
}

fn of_either(draw: &mut Draw, own: &Member, talk: Conversation, members: &[Member]) -> Shot {
    if draw.one_in(3) { incoming(draw, own, talk, members) } else { outgoing(draw, own, talk, members) }
}

fn conversation(draw: &mut Draw, world: &World, members: &[Member]) -> Conversation {
    let mut workload = if draw.one_in(40) { 6 } else { draw.below(6) as usize };
    let mut target = world.target(draw);
    if !world.lookups.is_empty() && draw.one_in(4) {
        let lookup = draw.of(&world.lookups);
        (workload, target.address) = (lookup.workload as usize, lookup.address);
    }
    let named = draw.one_in(2);
    if named {
        target = world.named_target(draw, workload); // where handshakes may have to be read
    }
    let remote = if !named && draw.one_in(8) { special(draw, members) } else { target.address };
    let own = &members[workload].own;
    let local = match remote {
        IpAddr::V4(_) => own[0].0,
        IpAddr::V6(ip) if ip.is_unicast_link_local() || draw.one_in(10) => own[2].0,
        IpAddr::V6(_) => own[1].0,
    };
    let protocol = match target.protocol {
        1 | 58 if remote.is_ipv4() => ICMP,
        1 | 58 => ICMPV6,
        47 => draw.of(&[47, 50, 4, 41, 2, 255]),
        other => other,
    };
    let some_port = |draw: &mut Draw| draw.of(&[0, 1, 53, 80, 443, 4000, 4001, 8000, 8010, 65535]);
    let (mut local_port, mut remote_port) = (some_port(draw), target.port);
    if !named && draw.one_in(3) {
        (local_port, remote_port) = (remote_port, local_port); // so that it is the workload that serves
    }
    Conversation { workload, local, remote, protocol, local_port, remote_port, id: draw.below(4) as u16 }
}

/// Addresses that mean something to somebody.
fn special(draw: &mut Draw, members: &[Member]) -> IpAddr {
    let other = draw.below(members.len() as u64) as usize;
    let texts = [
        "169.254.77.1",
        "fe80::77",
        "169.254.169.254",
        "127.0.0.1",
        "0.0.0.0",
        "0.1.2.3",
        "255.255.255.255",
        "224.0.0.251",
        "239.1.1.1",
        "240.0.0.1",
        "::",
        "::1",
        "::ffff:10.0.0.1",
        "ff02::1",
        "ff02::fb",
        "ff05::2",
        "ff01::1",
        "ff00::1",
        "fe80::1",
        "2001:db8::1",
    ];
    if draw.one_in(3) {
        return draw.of(&members[other].own).0;
    }
    draw.of(&texts).parse().unwrap()
}

fn outgoing(draw: &mut Draw, own: &Member, talk: Conversation, members: &[Member]) -> Shot {
    let mut wire = Wire::new(talk.local, talk.remote, own.mac, GATEWAY);
    wire.group_mac();
    fill(draw, &mut wire, own, talk, true, members);
    if draw.one_in(40) {
        wire.from = draw.of(&[GATEWAY, BROADCAST, Mac([2, 9, 9, 9, 9, 9])]);
    }
    if draw.one_in(40) {
        wire.source = special(draw, members);
    }
    shot(Program::FromWorkload, talk.workload, Entrance::Stranger, draw, wire)
}

fn incoming(draw: &mut Draw, own: &Member, talk: Conversation, members: &[Member]) -> Shot {
    let mut wire = Wire::new(talk.remote, talk.local, GATEWAY, own.mac);
    fill(draw, &mut wire, own, talk, false, members);
    if draw.one_in(40) {
        wire.to = draw.of(&[GATEWAY, BROADCAST, Mac([2, 9, 9, 9, 9, 9])]);
    }
    if draw.one_in(40) {
        wire.destination = special(draw, members);
    }
    let entered_by = match draw.below(10) {
        0 => Entrance::Node,
        1..=2 => Entrance::Workload(draw.below(members.len() as u64) as usize),
        3..=5 => Entrance::Segment(draw.below(2) as usize),
        _ => Entrance::Stranger,
    };
    shot(Program::ToWorkload, talk.workload, entered_by, draw, wire)
}

/// From the service namespace to a handle.
fn served(draw: &mut Draw, world: &World, own: &Member, talk: Conversation, memory: &mut Vec<Conversation>) -> Shot {
    let edge: [IpAddr; 2] =
        [Ipv4Addr::new(169, 254, 77, 1).into(), Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x77).into()];
    let handle = own.own.iter().find(|(address, _)| *address == talk.local).unwrap().1;
    let remote = if draw.one_in(2) { edge[usize::from(talk.local.is_ipv6())] } else { talk.remote };
    let protocol = if draw.one_in(3) { talk.protocol } else { TCP };
    let remote_port = draw.of(&[53, 40000, 40001, talk.remote_port]);
    let exposed = world.exposed().into_iter().find(|(subject, _)| *subject as usize == talk.workload);
    let local_port = exposed.filter(|_| draw.one_in(2)).map_or(talk.local_port, |(_, port)| port);
    let talk = Conversation { remote, protocol, local_port, remote_port, ..talk };
    if draw.one_in(2) {
        memory.push(talk);
    }
    let mut wire = Wire::new(remote, if draw.one_in(20) { talk.local } else { handle }, GATEWAY, own.mac);
    wire.protocol = protocol;
    wire.payload = transport(draw, talk, false);
    pieces(draw, &mut wire);
    shot(Program::FromService, talk.workload, Entrance::Stranger, draw, wire)
}

fn shot(program: Program, workload: usize, entered_by: Entrance, draw: &mut Draw, wire: Wire) -> Shot {
    let pad = draw.below(3) > 0;
    Shot { program, device: Device::Workload(workload), entered_by, frame: wire.frame(pad) }
}

/// Protocol and payload of a packet of the conversation.
fn fill(draw: &mut Draw, wire: &mut Wire, own: &Member, talk: Conversation, out: bool, members: &[Member]) {
    wire.protocol = talk.protocol;
    match draw.below(30) {
        0 => arp(draw, wire, own, out, members),
        1 if talk.local.is_ipv6() => discovery(draw, wire, own, out, members),
        2 if talk.local.is_ipv6() => listeners(draw, wire, own, out),
        3 => dhcp(draw, wire, own, out),
        4..=6 => error(draw, wire, talk, out),
        _ => {
            wire.payload = transport(draw, talk, out);
            if talk.protocol == ICMP || talk.protocol == ICMPV6 {
                wire.hops = draw.of(&[64, 64, 255, 1]);
            }
            pieces(draw, wire);
        }
    }
}

fn transport(draw: &mut Draw, talk: Conversation, out: bool) -> Vec<u8> {
    let ports = if out { (talk.local_port, talk.remote_port) } else { (talk.remote_port, talk.local_port) };
    let size = draw.of(&[0, 0, 4, 8, 40]);
    let asks = draw.one_in(2);
    let mut payload = transport_of(draw, talk.protocol, ports, talk.id, asks, size);
    if talk.protocol == TCP && draw.one_in(3) {
        payload.truncate(20);
        payload.extend(sight::hello(draw));
    }
    if talk.protocol == TCP && draw.one_in(6) {
        let fast_open: &[u8] = &[34, 2, 1, 1];
        let cookie: &[u8] = &[1, 34, 10, 1, 2, 3, 4, 5, 6, 7, 8, 0];
        let experiment: &[u8] = &[2, 4, 5, 0xb4, 254, 4, 0xf9, 0x89];
        let others: &[u8] = &[2, 4, 5, 0xb4, 254, 4, 0xe2, 0xd4];
        let options = draw.of(&[fast_open, cookie, cookie, experiment, others, &[3, 9, 7, 34], &[0, 34, 2, 1]]);
        payload[12] = (((20 + options.len()) / 4) << 4) as u8;
        payload.splice(20..20, options.iter().copied());
    }
    if matches!(talk.protocol, ICMP | ICMPV6) && draw.one_in(5) {
        payload[0] = draw.below(256) as u8;
    }
    payload
}

/// A transport of this protocol, between these ports or with this id of an echo, and so many octets of data.
pub(crate) fn transport_of(
    draw: &mut Draw,
    protocol: u8,
    (source, destination): (u16, u16),
    id: u16,
    asks: bool,
    size: usize,
) -> Vec<u8> {
    let ports = [source.to_be_bytes(), destination.to_be_bytes()].concat();
    let data = vec![0x61; size];
    match protocol {
        TCP => {
            let flags = match draw.below(12) {
                0..=3 => SYN,
                4..=5 => ACK,
                6 => SYN | ACK,
                7 => FIN | ACK,
                8 => RST,
                9 => RST | ACK,
                10 => ACK | 8,
                _ => draw.below(256) as u8,
            };
            // a SYN of 1 makes a stream of 2
            let (sequence, acknowledged) = (draw.of(&[1, 1, 1, 2, 2, 9]), draw.of(&[2, 2, 2, 2, 2, 9]));
            [&ports[..], &[0, 0, 0, sequence, 0, 0, 0, acknowledged, 0x50, flags, 1, 0, 0, 0, 0, 0], &data].concat()
        }
        SCTP => [&ports[..], &[0, 0, 0, 1, 0, 0, 0, 0], &data].concat(),
        UDP => [&ports[..], &(8 + data.len() as u16).to_be_bytes(), &[0, 0], &data].concat(),
        ICMP | ICMPV6 => {
            let kind = match (protocol, asks) {
                (ICMP, true) => 8,
                (ICMP, false) => 0,
                (_, true) => 128,
                (_, false) => 129,
            };
            [&[kind, 0, 0, 0][..], &id.to_be_bytes(), &[0, 1], &data].concat()
        }
        _ => vec![0x62; draw.of(&[0, 4, 16, 40])],
    }
}

/// Fragments, options and extension headers.
fn pieces(draw: &mut Draw, wire: &mut Wire) {
    wire.id = draw.below(3) as u16;
    match draw.below(60) {
        0..=3 => wire.fragment = Some((0, true)),
        4..=7 => {
            wire.fragment = Some((draw.of(&[8, 16, 24, 64, 1480, 65528]), draw.one_in(2)));
            wire.payload = vec![0x63; draw.of(&[0, 1, 8, 32])];
        }
        8 => wire.fragment = Some((0, false)),
        9 => wire.options = draw.of(&[vec![131, 7, 4, 10, 9, 9, 9, 0], vec![1, 1, 1, 1], vec![148, 4, 0, 0]]),
        10..=11 => {
            let kind = draw.of(&[0, 43, 51, 59, 60, 135, 139, 140]);
            let size = draw.of(&[8, 8, 16, 72]);
            wire.extensions.push((kind, size));
        }
        12 => wire.payload.truncate(draw.below(24) as usize),
        _ => {}
    }
}

fn error(draw: &mut Draw, wire: &mut Wire, talk: Conversation, out: bool) {
    let six = talk.local.is_ipv6();
    // what the other side of this packet sent
    let (from, to) = if out { (talk.remote, talk.local) } else { (talk.local, talk.remote) };
    let mut inner = Wire::new(from, to, GATEWAY, GATEWAY);
    inner.protocol = talk.protocol;
    inner.payload = transport(draw, talk, !out);
    match draw.below(12) {
        0 => inner.fragment = Some((0, true)),
        1 => inner.fragment = Some((64, false)),
        2 => std::mem::swap(&mut inner.source, &mut inner.destination),
        3 => inner.options = vec![1, 1, 1, 1],
        _ => {}
    }
    let mut quote = inner.packet();
    let shortest = if six { 48 } else { 28 };
    quote.truncate(if draw.one_in(3) { shortest } else { 200 });
    wire.protocol = if six { ICMPV6 } else { ICMP };
    let kind = if six { draw.of(&[1, 2, 3, 4]) } else { draw.of(&[3, 11, 12]) };
    wire.payload = [&[kind, draw.below(3) as u8, 0, 0, 0, 0, 0, 0][..], &quote].concat();
    if !out && draw.one_in(3) {
        // a router on the way
        wire.source = if six {
            Ipv6Addr::new(0xfd00, 0xff, 0, 0, 0, 0, 0, 1).into()
        } else {
            Ipv4Addr::new(10, 255, 0, 1).into()
        };
    }
    if draw.one_in(12) {
        wire.fragment = Some((0, true));
    }
    if draw.one_in(12) {
        wire.claimed = Some(draw.of(&[8, 12, 20, 36, 47]));
    }
}

fn arp(draw: &mut Draw, wire: &mut Wire, own: &Member, out: bool, members: &[Member]) {
    let other = draw.below(members.len() as u64) as usize;
    let four = |member: &Member| match member.own[0].0 {
        IpAddr::V4(ip) => ip,
        IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    };
    let somebody = [four(own), four(own), four(&members[other]), Ipv4Addr::UNSPECIFIED, Ipv4Addr::new(169, 254, 77, 1)];
    let mac = if out { own.mac } else { GATEWAY };
    let mac = if draw.one_in(8) { members[other].mac } else { mac };
    let mut head = [0, 1, 8, 0, 6, 4, 0, draw.of(&[1, 1, 2, 3])];
    if draw.one_in(12) {
        head[draw.below(6) as usize] ^= 1;
    }
    let (sender, target) = (draw.of(&somebody), draw.of(&somebody));
    wire.raw = Some((0x0806, [&head[..], &mac.0, &sender.octets(), &[0; 6], &target.octets()].concat()));
    wire.to = if draw.one_in(2) { BROADCAST } else { wire.to };
}

fn discovery(draw: &mut Draw, wire: &mut Wire, own: &Member, out: bool, members: &[Member]) {
    let other = &members[draw.below(members.len() as u64) as usize];
    let edge: IpAddr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x77).into();
    let kind = draw.of(&[133, 134, 135, 135, 136, 136, 137]);
    let target = draw.of(&[own.own[1].0, own.own[2].0, other.own[1].0, edge]);
    let IpAddr::V6(target) = target else { return };
    let flags = draw.of(&[0, 0x20, 0x60, 0xa0]);
    let body = match kind {
        135 | 136 => [&[flags, 0, 0, 0][..], &target.octets()].concat(),
        134 => vec![64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0],
        137 => vec![0; 36],
        _ => vec![0; 4],
    };
    let mac = if out { own.mac } else { GATEWAY };
    let mac = if draw.one_in(8) { other.mac } else { mac };
    let option = match draw.below(8) {
        0 => vec![],
        1 => vec![14, 1, 1, 2, 3, 4, 5, 6],
        2 => vec![14, 0, 0, 0, 0, 0, 0, 0],
        3 => vec![1, 2, 0, 0, 0, 0, 0, 0],
        4 => [&[2, 1][..], &mac.0, &[14, 1, 0, 0, 0, 0, 0, 0]].concat().repeat(draw.of(&[1, 4, 5])),
        _ => [&[draw.of(&[1, 2]), 1][..], &mac.0].concat(),
    };
    wire.protocol = ICMPV6;
    wire.hops = if draw.one_in(8) { 64 } else { 255 };
    let code = u8::from(draw.one_in(30));
    wire.payload = [&[kind, code, 0, 0][..], &body, &option].concat();
    if draw.one_in(20) {
        wire.payload.truncate(8 + draw.below(20) as usize);
    }
    let groups = ["ff02::1", "ff02::2", "ff02::1:ff00:1", "ff05::1"];
    if draw.below(3) > 0 {
        wire.destination = draw.of(&groups).parse().unwrap();
        wire.group_mac();
    }
    match draw.below(6) {
        0 => wire.source = Ipv6Addr::UNSPECIFIED.into(),
        1 | 2 if out => wire.source = own.own[2].0,
        1 => wire.source = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xff).into(),
        _ => {}
    }
    if draw.one_in(20) {
        wire.fragment = Some((0, draw.one_in(2)));
    }
}

fn listeners(draw: &mut Draw, wire: &mut Wire, own: &Member, out: bool) {
    let kind = draw.of(&[130, 131, 132, 143]);
    wire.protocol = ICMPV6;
    wire.hops = if draw.one_in(6) { 64 } else { 1 };
    wire.payload = [&[kind, 0, 0, 0][..], &[0; 24]].concat();
    wire.extensions = if draw.one_in(6) { vec![] } else { vec![(0, draw.of(&[8, 8, 8, 64, 72]))] };
    wire.destination = draw.of(&["ff02::1", "ff02::16", "ff05::16"]).parse().unwrap();
    wire.group_mac();
    wire.source = match draw.below(4) {
        0 => Ipv6Addr::UNSPECIFIED.into(),
        1 | 2 if out => own.own[2].0,
        _ => wire.source,
    };
}

fn dhcp(draw: &mut Draw, wire: &mut Wire, own: &Member, out: bool) {
    let six = wire.source.is_ipv6();
    let (server, client) = if six { (547u16, 546u16) } else { (67, 68) };
    let asks = draw.one_in(2) == out;
    let (mut from, mut to) = if asks { (client, server) } else { (server, client) };
    match draw.below(6) {
        0 => from = 4000,
        1 => to = 4000,
        _ => {}
    }
    wire.protocol = UDP;
    wire.payload = [from.to_be_bytes(), to.to_be_bytes(), 12u16.to_be_bytes(), [0, 0], [1, 2], [3, 4]].concat();
    if draw.below(3) > 0 {
        wire.destination = if six {
            "ff02::1:2".parse().unwrap()
        } else {
            wire.to = BROADCAST;
            Ipv4Addr::BROADCAST.into()
        };
        wire.group_mac();
        if out {
            wire.source = match (six, draw.one_in(2)) {
                (true, _) => own.own[2].0,
                (false, true) => Ipv4Addr::UNSPECIFIED.into(),
                (false, false) => wire.source,
            };
        }
    }
    if draw.one_in(10) {
        wire.fragment = Some((0, true));
    }
}

/// Now and then a frame is not what it was meant to be.
pub(crate) fn spoil(draw: &mut Draw, frame: &mut Vec<u8>) {
    match draw.below(60) {
        0..=1 => {
            let at = draw.below(frame.len().min(64) as u64) as usize;
            frame[at] ^= 1 << draw.below(8);
        }
        2 => {
            let at = draw.below(frame.len().min(64) as u64) as usize;
            frame[at] = draw.below(256) as u8;
        }
        3 => frame.truncate(34 + draw.below(40) as usize),
        4 => {
            let tag = draw.of(&[[0x81, 0], [0x88, 0xa8], [0x91, 0]]);
            let tags = [&tag[..], &[0, 100]].concat().repeat(draw.of(&[1, 2]));
            frame.splice(12..12, tags);
        }
        5 => frame[12..14].copy_from_slice(&draw.of(&[[0x88, 0xcc], [0x80, 0x35], [0, 38], [0x86, 0xdd], [8, 0]])),
        _ => {}
    }
    // the kernel's test run takes no shorter ones; real ones are sent by the integration tests
    let shortest = match frame[12..14] {
        [8, 0] => 34,
        [0x86, 0xdd] => 54,
        _ => 15,
    };
    frame.resize(frame.len().max(shortest), 0);
}
