//! What happens at a node's uplink: terms change, workloads and hosts send, answers, errors and strangers come.

use std::net::IpAddr;

use gateway::egress::attach::Program;

use super::nat::{Leaves, Nat, Terms, Tuple, has_port_pair};
use super::uplink::{NEXT, OURS};
use crate::draw::Draw;
use crate::frames::{Conversation, draw_shot, spoil, transport_of};
use crate::packets::Wire;
use crate::reading::{ICMP, ICMPV6, SCTP, TCP, UDP};
use crate::reference::Member;
use crate::scenario::{Device, Entrance, Phase as Policies, Shot, with_less};
use crate::world::World;

/// What the node's side may have on the wire: of the uplink, and two networks' own. IPv4, IPv6.
pub(super) struct Wires;

impl Wires {
    pub(super) const ALL: [[&str; 2]; 4] = [
        ["198.51.100.1", "2001:db8:1::1"],
        ["198.51.100.7", "2001:db8:1::7"],
        ["198.51.100.8", "2001:db8:1::8"],
        ["198.51.100.9", "2001:db8:1::9"],
    ];

    pub(super) fn parsed(which: usize) -> [IpAddr; 2] {
        Self::ALL[which].map(|text| text.parse().unwrap())
    }
}

/// Hosts of the two networks that are no workloads.
pub(super) const HOSTS: [[&str; 2]; 2] = [["10.0.0.9", "fd00::9"], ["10.0.0.12", "fd00::c"]];
/// Far ends that many flows go to.
const CROWDED: [&str; 2] = ["203.0.113.5", "2001:db8:9::5"];
/// Where strangers and routers are.
const STRANGERS: [[&str; 2]; 3] =
    [["203.0.113.5", "2001:db8:9::5"], ["10.0.0.15", "fd00::f"], ["10.0.1.9", "fd00::109"]];

#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(super) phases: Vec<Phase>,
}

/// One state of policies and of the uplink, and what happens under it.
#[derive(Clone, Debug)]
pub(super) struct Phase {
    pub(super) policies: Policies,
    /// By network.
    pub(super) leaves: [Leaves; 2],
    /// Whether the uplink has an IPv6 address.
    pub(super) main6: bool,
    pub(super) ports: u16,
    /// Whether packets go past the stack.
    pub(super) fast: bool,
    pub(super) steps: Vec<Step>,
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    /// A workload sends.
    Sends(Shot),
    /// A host of a network sends: it comes to the uplink by the stack.
    Leaves(Vec<u8>),
    /// Something comes by the uplink.
    Comes(Draft),
    /// The node tells somebody outside of an error.
    Tells(Draft),
    /// Seconds.
    Pause(u64),
}

/// A frame that hangs on what ports were given; it is made when its time has come.
#[derive(Clone, Debug)]
pub(super) struct Draft(u64);

impl Scenario {
    pub(super) fn draw(seed: u64, frames: usize) -> Self {
        let mut draw = Draw(seed ^ 0x7ea7_1e55);
        let ports = draw.of(&[16, 16, 64, 10_000]);
        let mut memory: Vec<Conversation> = Vec::new();
        let (mut phases, mut left) = (Vec::new(), frames);
        while left > 0 {
            let mut phase = Phase::draw(&mut draw, ports);
            let members = phase.members(1);
            let end = left.saturating_sub(40 + draw.below(80) as usize);
            while left > end {
                left -= 1;
                if draw.one_in(50) {
                    phase.steps.push(Step::Pause(draw.of(&[7, 25, 65, 200])));
                }
                let step = match draw.below(20) {
                    0..=4 => Step::Sends(ordinary(&mut draw, &phase.policies.world, &members, &mut memory)),
                    5..=10 => Step::Sends(crowding(&mut draw, &members)),
                    11 => Step::Leaves(of_host(&mut draw)),
                    12 => Step::Tells(Draft(draw.next())),
                    _ => Step::Comes(Draft(draw.next())),
                };
                // a known packet goes another way than a flow's first
                let again = if draw.one_in(5) { left.min(4) } else { 0 };
                left -= again;
                phase.steps.extend(std::iter::repeat_n(step, 1 + again));
            }
            phases.push(phase);
        }
        Self { phases }
    }

    /// Scenarios that lack something of this one, the largest pieces first.
    pub(super) fn smaller(&self) -> Vec<Self> {
        with_less(&self.phases, |phase| &mut phase.steps).into_iter().map(|phases| Self { phases }).collect()
    }
}

impl Phase {
    fn draw(draw: &mut Draw, ports: u16) -> Self {
        let mut policies = Policies::draw(draw);
        policies.external = [false, draw.one_in(4)];
        if draw.below(5) > 0 {
            // little is denied, so that much leaves
            policies.world.policies.clear();
            policies.world.cluster_policies.clear();
            for namespace in &mut policies.world.namespaces {
                namespace.egress_default = config::resource::Default::Allow;
            }
            policies.quota = 1000;
        }
        policies.world.node.addresses.extend((0..Wires::ALL.len()).flat_map(Wires::parsed));
        let leaves = |draw: &mut Draw, own: usize| match draw.below(6) {
            0 => Leaves::AsItIs,
            1..=3 => Leaves::WithTheNodes,
            _ => Leaves::With(Wires::parsed(if draw.one_in(4) { 3 } else { own })),
        };
        let mut leaves = [leaves(draw, 1), leaves(draw, 2)];
        if leaves[0] == leaves[1] && leaves[0].own().next().is_some() {
            leaves[1] = Leaves::WithTheNodes; // an own address is one network's
        }
        if policies.external[1] {
            leaves[1] = Leaves::AsItIs;
        }
        Self { policies, leaves, main6: !draw.one_in(6), ports, fast: !draw.one_in(6), steps: Vec::new() }
    }

    pub(super) fn members(&self, epoch: u32) -> Vec<Member> {
        let mut members = self.policies.members(epoch);
        for member in &mut members {
            member.routed = !member.external;
            member.translated = member.routed && self.leaves[member.network] != Leaves::AsItIs;
        }
        members
    }

    pub(super) fn main(&self) -> [Option<IpAddr>; 2] {
        let [four, six] = Wires::parsed(0);
        [Some(four), self.main6.then_some(six)]
    }

    pub(super) fn terms(&self) -> Terms {
        Terms { networks: [(1, self.leaves[0]), (2, self.leaves[1])].into(), main: self.main(), ports: self.ports }
    }
}

/// What workloads send, with everything that may be wrong with it.
fn ordinary(draw: &mut Draw, world: &World, members: &[Member], memory: &mut Vec<Conversation>) -> Shot {
    loop {
        let shot = draw_shot(draw, world, members, memory);
        if shot.program == Program::FromWorkload {
            return shot;
        }
    }
}

/// One of many flows to one far end, small and large.
fn crowding(draw: &mut Draw, members: &[Member]) -> Shot {
    let workload = draw.of(&[0, 0, 0, 1, 3]);
    let many = draw.of(&[2, 2, 20]);
    let family = draw.below(2) as usize;
    let own = &members[workload];
    let remote = match draw.below(16) {
        0 => draw.of(&[["10.0.0.31", "fd00::1f"], ["10.0.0.16", "fd00::10"]])[family],
        _ => CROWDED[family],
    };
    let mut wire = Wire::new(own.own[family].0, remote.parse().unwrap(), own.mac, crate::frames::GATEWAY);
    wire.protocol = draw.of(&[UDP, UDP, UDP, UDP, TCP, TCP, SCTP]);
    wire.hops = draw.of(&[64, 64, 64, 255, 2, 1]);
    let ports = (1 + draw.below(many) as u16, 5000);
    let size = draw.of(&[0, 4, 40, 1252, 1272, 1452, 1473]);
    wire.payload = transport_of(draw, wire.protocol, ports, 0, true, size);
    if draw.one_in(4) {
        wire.protocol = if draw.one_in(4) { TCP } else { UDP };
        wire.payload = transport_of(draw, wire.protocol, ports, 0, true, 40);
        wire.id = 7;
        wire.fragment = Some(draw.of(&[(0, true), (0, true), (1480, false), (64, true)]));
    }
    Shot {
        program: Program::FromWorkload,
        device: Device::Workload(workload),
        entered_by: Entrance::Stranger,
        frame: wire.frame(true),
    }
}

fn of_host(draw: &mut Draw) -> Vec<u8> {
    let (network, family) = (draw.below(2) as usize, draw.below(2) as usize);
    let mut wire =
        Wire::new(HOSTS[network][family].parse().unwrap(), draw.of(&STRANGERS)[family].parse().unwrap(), OURS, NEXT);
    wire.protocol = draw.of(&[UDP, TCP, SCTP, 47, if family == 0 { ICMP } else { ICMPV6 }]);
    let ports = (1 + draw.below(6) as u16, 5000);
    let (id, asks) = (draw.below(3) as u16, !draw.one_in(5));
    wire.payload = transport_of(draw, wire.protocol, ports, id, asks, 4);
    if draw.one_in(6) {
        wire.fragment = Some(draw.of(&[(0, true), (64, false)]));
    }
    wire.frame(true)
}

impl Draft {
    /// A frame that comes by the uplink.
    pub(super) fn comes(&self, nat: &Nat, members: &[Member]) -> Vec<u8> {
        let draw = &mut Draw(self.0);
        let mapping = pick(draw, nat);
        let mut frame = match (draw.below(20), mapping) {
            (0..=10, Some((tuple, wire))) => answer(draw, &tuple, wire).frame(true),
            (11..=13, Some((tuple, wire))) => error(draw, &tuple, tuple.own, wire, false).frame(true),
            (14..=15, Some((tuple, wire))) => {
                let mut piece = answer(draw, &tuple, wire);
                piece.id = draw.below(3) as u16;
                piece.fragment = Some(draw.of(&[(0, true), (64, false)]));
                piece.frame(true)
            }
            (16, _) => unasked(draw, &HOSTS.concat()),
            (17, _) => unasked(draw, &Wires::ALL.concat()),
            _ => {
                let own = members[draw.below(members.len() as u64) as usize].own;
                unasked(draw, &own.map(|(address, _)| address.to_string()).each_ref().map(String::as_str))
            }
        };
        if draw.one_in(40) {
            frame[5] ^= 1;
        }
        spoil(draw, &mut frame);
        frame
    }

    /// An error of the node's own, or of a router behind it, about what came for a flow.
    pub(super) fn tells(&self, nat: &Nat) -> Vec<u8> {
        let draw = &mut Draw(self.0);
        let Some((tuple, wire)) = pick(draw, nat) else { return of_host(draw) };
        error(draw, &tuple, tuple.own, wire, true).frame(true)
    }
}

fn pick(draw: &mut Draw, nat: &Nat) -> Option<(Tuple, (IpAddr, u16))> {
    let number = draw.below(1 << 32) as usize;
    let all = &nat.mappings;
    let chosen = all.iter().nth(number % all.len().max(1))?;
    Some((*chosen.0, chosen.1.wire))
}

fn toward(source: IpAddr, destination: IpAddr) -> Wire {
    Wire::new(source, destination, NEXT, OURS)
}

/// What the far end of a flow says to it; now and then to its neighbour's port, or from another.
fn answer(draw: &mut Draw, tuple: &Tuple, wire: (IpAddr, u16)) -> Wire {
    let mut packet = toward(tuple.far.0, wire.0);
    packet.protocol = tuple.protocol;
    let (mut from, mut to) = (tuple.far.1, wire.1);
    match draw.below(12) {
        0 => to = to.wrapping_add(1),
        1 if has_port_pair(tuple.protocol) => from ^= 1,
        _ => {}
    }
    packet.hops = draw.of(&[64, 64, 64, 2, 1]);
    let size = draw.of(&[0, 4, 8, 1400, 1480]);
    packet.payload = transport_of(draw, tuple.protocol, (from, to), to, false, size);
    packet
}

/// An ICMP error about a flow's packet: one that left (from a router of the world), or one that came (`told`, from inside).
fn error(draw: &mut Draw, tuple: &Tuple, own: (IpAddr, u16), wire: (IpAddr, u16), told: bool) -> Wire {
    let six = own.0.is_ipv6();
    let router: IpAddr = draw.of(&STRANGERS)[usize::from(six)].parse().unwrap();
    let (inner_from, inner_to) = if told { (tuple.far, own) } else { (wire, tuple.far) };
    let mut inner = Wire::new(inner_from.0, inner_to.0, NEXT, OURS);
    inner.protocol = tuple.protocol;
    let size = draw.of(&[0, 4, 40]);
    inner.payload =
        transport_of(draw, tuple.protocol, (inner_from.1, inner_to.1), own_id(told, own, wire), !told, size);
    match draw.below(12) {
        0 => inner.fragment = Some((0, true)),
        1 => inner.fragment = Some((64, false)),
        2 => std::mem::swap(&mut inner.source, &mut inner.destination),
        _ => {}
    }
    let mut quote = inner.packet();
    if draw.one_in(3) {
        quote.truncate(if six { 48 } else { 28 });
    }
    let source = match (told, draw.below(3)) {
        (true, 0) => Wires::parsed(0)[usize::from(six)],
        (true, _) => own.0,
        (false, _) => draw.of(&[router, tuple.far.0]),
    };
    let mut packet = toward(source, if told { tuple.far.0 } else { wire.0 });
    packet.protocol = if six { ICMPV6 } else { ICMP };
    packet.hops = draw.of(&[64, 64, 64, 2, 1]);
    let kind = if six { draw.of(&[1, 2, 3, 4]) } else { draw.of(&[3, 11, 12]) };
    packet.payload = [&[kind, 0, 0, 0, 0, 0, 5, 0][..], &quote].concat();
    packet
}

fn own_id(told: bool, own: (IpAddr, u16), wire: (IpAddr, u16)) -> u16 {
    if told { own.1 } else { wire.1 }
}

/// To one of these addresses, from anybody.
fn unasked(draw: &mut Draw, to: &[&str]) -> Vec<u8> {
    let to: IpAddr = draw.of(to).parse().unwrap();
    let six = to.is_ipv6();
    let mut packet = toward(draw.of(&STRANGERS)[usize::from(six)].parse().unwrap(), to);
    packet.protocol = draw.of(&[UDP, TCP, SCTP, 47, if six { ICMPV6 } else { ICMP }]);
    packet.hops = draw.of(&[64, 64, 2, 1]);
    let ports = (5000, draw.of(&[1, 2, 4000, 50_000, 50_001, 50_010]));
    let (id, asks) = (draw.below(3) as u16, draw.one_in(2));
    packet.payload = transport_of(draw, packet.protocol, ports, id, asks, 4);
    packet.frame(true)
}
