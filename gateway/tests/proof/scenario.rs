//! What happens on a node: policies come and go, workloads look names up, time passes, frames come and go.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use config::names::Name;
use config::resource::{DenyRule, Mode};
use gateway::egress::attach::Program;
use gateway::workload::Mac;
use ipnetwork::IpNetwork;

use crate::draw::Draw;
use crate::frames::{Conversation, draw_again, draw_exchange, draw_shot};
use crate::held::{self, Look};
use crate::reference::Member;
use crate::sight;
use crate::text::name;
use crate::world::World;

/// Workloads of the node: the subjects of [`World`].
pub(crate) const WORKLOADS: usize = 7;
/// The second of the two namespaces' workloads may be in a network of its own.
const BANK: std::ops::Range<usize> = 3..6;

#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) phases: Vec<Phase>,
}

/// One state of all policies, and what happens under it.
#[derive(Clone, Debug)]
pub(crate) struct Phase {
    pub(crate) world: World,
    /// `bank` has its own network.
    pub(crate) apart: bool,
    /// By network: a router on the VLAN routes.
    pub(crate) external: [bool; 2],
    pub(crate) quota: usize,
    /// By network, though namespaces say it.
    pub(crate) rejects: [bool; 2],
    pub(crate) steps: Vec<Step>,
}

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Frame(Shot),
    /// Seconds.
    Pause(u64),
    /// The inspector says something.
    Look(Look),
}

/// One frame at one program.
#[derive(Clone, Debug)]
pub(crate) struct Shot {
    pub(crate) program: Program,
    pub(crate) device: Device,
    pub(crate) entered_by: Entrance,
    pub(crate) frame: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Device {
    Workload(usize),
    Unknown,
}

/// Where a frame to a workload came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entrance {
    Node,
    Workload(usize),
    /// The VLAN of a network.
    Segment(usize),
    /// A device that is nobody's in particular.
    Stranger,
}

impl Device {
    pub(crate) fn workload(self) -> Option<usize> {
        match self {
            Self::Workload(index) => Some(index),
            Self::Unknown => None,
        }
    }
}

impl Scenario {
    pub(crate) fn draw(seed: u64, frames: usize) -> Self {
        let mut draw = Draw(seed);
        let mut memory: Vec<Conversation> = Vec::new();
        let mut phases: Vec<Phase> = Vec::new();
        let mut left = frames;
        while left > 0 {
            let mut phase = Phase::draw_after(&mut draw, phases.last());
            let members = phase.members(1);
            let again = draw_again(&mut draw, &members, &memory);
            phase.steps.extend(again.into_iter().take(left).map(Step::Frame));
            let mut own = (15 + draw.below(60)) as usize;
            while own > 0 && phase.frames() < left {
                own -= 1;
                if draw.one_in(40) {
                    phase.steps.push(Step::Pause(draw.of(&[7, 25, 65, 200])));
                }
                if draw.one_in(7) {
                    phase.steps.push(Step::Look(Look::draw(&mut draw)));
                }
                if draw.one_in(20) {
                    let [first, then] = draw_exchange(&mut draw, &phase.world, &members, &mut memory);
                    let look = (!draw.one_in(4)).then(|| Step::Look(Look::draw(&mut draw)));
                    phase.steps.extend(first.into_iter().map(Step::Frame).chain(look));
                    phase.steps.extend(then.into_iter().map(Step::Frame));
                }
                if draw.one_in(20) {
                    phase.steps.extend(sight::visit(&mut draw, &phase.world, &members).into_iter().map(Step::Frame));
                }
                let shot = draw_shot(&mut draw, &phase.world, &members, &mut memory);
                phase.steps.push(Step::Frame(shot));
            }
            left = left.saturating_sub(phase.frames());
            phases.push(phase);
        }
        Self { phases }
    }

    /// Scenarios that lack something of this one, the largest pieces first.
    pub(crate) fn smaller(&self) -> Vec<Self> {
        let with_less = with_less(&self.phases, |phase| &mut phase.steps);
        let mut smaller: Vec<Self> = with_less.into_iter().map(|phases| Self { phases }).collect();
        for (index, phase) in self.phases.iter().enumerate() {
            for world in phase.world.smaller() {
                let mut simpler = self.clone();
                simpler.phases[index].world = world;
                smaller.push(simpler);
            }
        }
        smaller
    }
}

/// The phases without one of them, whose steps go on in the one before, and without some of the steps; the largest pieces first.
pub(crate) fn with_less<P: Clone, S>(phases: &[P], steps: impl Fn(&mut P) -> &mut Vec<S>) -> Vec<Vec<P>> {
    let mut smaller = Vec::new();
    for index in 1..phases.len() {
        let mut fewer = phases.to_vec();
        let mut gone = fewer.remove(index);
        steps(&mut fewer[index - 1]).append(steps(&mut gone));
        smaller.push(fewer);
    }
    for index in 0..phases.len() {
        let count = steps(&mut phases[index].clone()).len();
        let mut size = count;
        while size > 0 {
            for at in (0..count).step_by(size) {
                let mut fewer = phases.to_vec();
                steps(&mut fewer[index]).drain(at..(at + size).min(count));
                smaller.push(fewer);
            }
            size /= 2;
        }
    }
    smaller
}

/// Of the names that an audited policy denies the kernel's tables know only that a flow waits for them: what would be denied
/// stands in the daemon's log.
fn without_audited_names(world: &mut World) {
    let of_names = |rule: &DenyRule| matches!(rule, DenyRule::Names(_));
    for policy in world.policies.iter_mut().filter(|policy| policy.mode == Mode::Audit) {
        policy.deny.retain(|rule| !of_names(rule));
    }
    for policy in world.cluster_policies.iter_mut().filter(|policy| policy.mode == Mode::Audit) {
        policy.deny.retain(|rule| !of_names(rule));
    }
}

impl Phase {
    /// Half of all changes change little, so that flows outlive them.
    fn draw_after(draw: &mut Draw, before: Option<&Self>) -> Self {
        let Some(before) = before.filter(|_| draw.one_in(2)) else { return Self::draw(draw) };
        let mut phase = Self { steps: Vec::new(), ..before.clone() };
        match draw.below(6) {
            0 => {}
            4 => held::look_away(&mut phase.world),
            3 => held::refuse(draw, &mut phase.world),
            1 => phase.world.lookups.clear(),
            2 => {
                let other = World::draw(draw);
                phase.world.policies = other.policies;
                held::crowd(draw, &mut phase.world);
            }
            _ => {
                let fewer = before.world.smaller();
                phase.world = if fewer.is_empty() { phase.world } else { draw.of(&fewer) };
            }
        }
        without_audited_names(&mut phase.world);
        phase
    }

    pub(crate) fn draw(draw: &mut Draw) -> Self {
        let mut world = World { network_policies: Vec::new(), ..World::draw(draw) };
        if !draw.one_in(3) {
            held::crowd(draw, &mut world);
        }
        without_audited_names(&mut world);
        Self {
            world,
            apart: draw.one_in(3),
            external: [draw.one_in(3), draw.one_in(3)],
            quota: if draw.one_in(3) { 1 + draw.below(4) as usize } else { 1000 },
            rejects: [draw.one_in(2), draw.one_in(2)],
            steps: Vec::new(),
        }
    }

    fn frames(&self) -> usize {
        self.steps.iter().filter(|step| matches!(step, Step::Frame(_))).count()
    }

    /// The resources of this phase's namespaces, `bank` in its network. Network policies have their own cases
    /// (`tests/kernel/conformance.rs`).
    pub(crate) fn world(&self) -> World {
        let mut world = self.world.clone();
        if let Some(bank) = world.namespaces.get_mut(1) {
            bank.network = network_name(usize::from(self.apart));
        }
        world
    }

    pub(crate) fn members(&self, epoch: u32) -> Vec<Member> {
        let member = |(index, subject): (usize, &policy::Subject)| {
            let network = usize::from(self.apart && BANK.contains(&index));
            Member {
                subject: subject.clone(),
                mac: mac_of(index),
                own: addresses_of(index),
                network,
                sealed: !self.world.namespaces.iter().any(|space| space.name == subject.namespace),
                external: self.external[network],
                epoch,
                quota: self.quota,
                rejects: self.rejects[network],
                routed: false,
                translated: false,
            }
        };
        self.world.subjects.iter().enumerate().map(member).collect()
    }
}

pub(crate) fn network_name(network: usize) -> Name {
    name(["tenant-a", "tenant-b"][network])
}

pub(crate) fn subnets(network: usize) -> Vec<IpNetwork> {
    let texts = [["10.0.0.0/28", "fd00::/124"], ["10.0.0.0/29", "fd00::/120"]][network];
    texts.map(|text| text.parse().unwrap()).to_vec()
}

pub(crate) fn mac_of(index: usize) -> Mac {
    Mac([2, 0, 0, 0, 1, index as u8])
}

/// IPv4, IPv6 and link-local, with their handles.
pub(crate) fn addresses_of(index: usize) -> [(IpAddr, IpAddr); 3] {
    let last = index as u8 + 1;
    let six = |head: [u16; 4], tail: u16| {
        IpAddr::from(Ipv6Addr::new(head[0], head[1], head[2], head[3], 0, 0, tail, u16::from(last)))
    };
    let four = |a, b| IpAddr::from(Ipv4Addr::new(a, b, 0, last));
    [
        (four(10, 0), four(198, 18)),
        (six([0xfd00, 0, 0, 0], 0), six([0xfd74, 0x6769, 0, 0], 1)),
        (six([0xfe80, 0, 0, 0], 0), six([0xfd74, 0x6769, 0, 0], 2)),
    ]
}
