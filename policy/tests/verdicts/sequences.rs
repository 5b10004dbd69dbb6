//! One change after the other: after each, the tables say what `decide` says, and hold no more than if they were compiled
//! from nothing; during each, a workload meets what was, or what will be, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use config::Prefixes;
use config::resource::{Gateway, Resource, ResourceKey, SetSource};
use policy::compile::Compiled;
use policy::reason::Reason;
use policy::tables::{ClassId, PolicyId, PolicyRef, Step};
use policy::{Inbound, Model, Origin, Outbound, Query, Resident, Shown, Subject, Target, compile, decide};

use crate::draw::Draw;
use crate::kernel::{Kernel, Verdict, Workload};
use crate::world::{self, World};

const SEQUENCES: u64 = 600;
const CHANGES: usize = 12;
const WORKLOADS: usize = 10;
const TARGETS: usize = 12;

/// What a workload is asked for: sent there, or coming from there.
type Flow = (usize, Target, bool);

/// A node whose resources and workloads change.
struct Story {
    world: World,
    present: BTreeSet<usize>,
    compiled: Compiled,
    kernel: Kernel,
    /// What each workload was switched to.
    switched: BTreeMap<usize, PolicyRef>,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    joined: usize,
    sets: usize,
    left: usize,
    advanced: usize,
    taken_back: usize,
    touched: usize,
    moved: usize,
    kept: usize,
    writes: usize,
    portions: usize,
}

#[test]
fn a_sequence_says_what_one_compilation_says() {
    let mut counts = Counts::default();
    for seed in 0..SEQUENCES {
        let mut draw = Draw(seed);
        let mut story = Story {
            world: World::draw(&mut draw),
            present: BTreeSet::new(),
            compiled: Compiled::new(1, PolicyId(1)).in_portions_of(1 + draw.below(8) as usize),
            kernel: Kernel::default(),
            switched: BTreeMap::new(),
            counts: std::mem::take(&mut counts),
        };
        for change in 0..CHANGES {
            story.change(&mut draw, &format!("seed {seed}, change {change}"));
        }
        counts = story.counts;
    }
    println!("{counts:?}");
    let Counts { joined, sets, left, advanced, taken_back, touched, moved, kept, writes, portions } = counts;
    for (what, count) in [
        ("workloads joined", joined),
        ("changes of sets that mattered", sets),
        ("workloads left", left),
        ("resources changed", advanced),
        ("changes taken back", taken_back),
        ("policies touched", touched),
        ("subjects moved", moved),
        ("policies kept through a change of resources", kept),
        ("prefixes written", writes),
        ("portions of a first half behind its first", portions),
    ] {
        assert!(count > 50, "{count} {what}");
    }
}

impl Story {
    fn change(&mut self, draw: &mut Draw, at: &str) {
        let number = draw.below(WORKLOADS as u64) as usize;
        let flows = self.flows(draw);
        match draw.below(5) {
            4 if !self.world.sets.is_empty() => {
                let world = self.world.clone();
                let changed = other_prefixes(&mut self.world, draw);
                let all: Vec<(ResourceKey, &Prefixes)> = world::sets_of(&self.world).collect();
                let sets = all.iter().filter(|(key, _)| changed.contains(key)).map(|(key, own)| (key, *own));
                let step = self.compiled.change_sets(sets);
                if draw.one_in(4) {
                    self.world = world;
                    self.taken_back(draw, &flows, &step, at);
                    return;
                }
                self.first_half(&flows, &step, Some(&step.touched), at);
                self.counts.sets += usize::from(!step.prefixes.is_empty());
            }
            0 => {
                let before = self.switched.clone();
                let (world, present) = (self.world.clone(), self.present.clone());
                alter(&mut self.world, draw);
                if draw.one_in(2) {
                    flip(&mut self.present, number);
                }
                let subjects: Vec<Subject> = self.present.iter().map(|own| self.subject(*own)).collect();
                let step = self.compiled.advance(&model(&self.world, &self.present), subjects);
                if draw.one_in(3) {
                    (self.world, self.present) = (world, present);
                    self.taken_back(draw, &flows, &step, at);
                    return;
                }
                self.first_half(&flows, &step, None, at);
                self.switch_all();
                self.counts.advanced += 1;
                self.counts.kept +=
                    before.iter().filter(|(own, policy)| self.switched.get(own) == Some(policy)).count();
            }
            _ if self.present.contains(&number) => {
                self.present.remove(&number);
                self.switched.remove(&number);
                let step = self.compiled.leave(&model(&self.world, &BTreeSet::new()), &resident(&self.world, number));
                self.first_half(&flows, &step, Some(&step.touched), at);
                self.switch_moved(&step);
                self.counts.left += 1;
            }
            _ => {
                let step = self.compiled.join(&model(&self.world, &BTreeSet::new()), &resident(&self.world, number));
                if draw.one_in(4) {
                    self.taken_back(draw, &flows, &step, at);
                    return;
                }
                self.first_half(&flows, &step, Some(&step.touched), at);
                self.present.insert(number);
                self.switched.extend(self.compiled.policy(&self.subject(number)).map(|policy| (number, policy)));
                self.switch_moved(&step);
                self.counts.joined += 1;
            }
        }
        self.compare(draw, at);
        let verdicts = self.verdicts(&flows);
        let mut next = Some(self.compiled.settle());
        while let Some(step) = next {
            self.write(&step, usize::MAX, |own, _| assert_eq!(own.verdicts(&flows), verdicts, "{at}: settling"));
            next = self.compiled.more();
        }
        self.settled(at);
    }

    /// The old policies answer as ever, but for groups whose content changes: there an answer is the old or the new one.
    fn first_half(&mut self, flows: &[Flow], step: &Step, touched: Option<&BTreeSet<PolicyId>>, at: &str) {
        let before = self.verdicts(flows);
        let untouched: Vec<bool> = flows
            .iter()
            .map(|(own, _, _)| {
                let policy = self.switched.get(own);
                policy
                    .is_none_or(|it| touched.is_none_or(|all| !all.contains(&it.egress) && !all.contains(&it.ingress)))
            })
            .collect();
        let mut seen = Vec::new();
        self.write(step, usize::MAX, |own, _| seen.push(own.verdicts(flows)));
        while let Some(more) = self.compiled.more() {
            self.write(&more, usize::MAX, |own, _| seen.push(own.verdicts(flows)));
            self.counts.portions += 1;
        }
        let after = self.verdicts(flows);
        for now in seen {
            for (index, verdict) in now.into_iter().enumerate() {
                assert!(verdict == before[index] || verdict == after[index], "{at}: {:?} is in between", flows[index]);
                assert!(!untouched[index] || verdict == before[index], "{at}: {:?} has changed", flows[index]);
            }
        }
        self.counts.touched += step.touched.len();
        self.counts.moved += step.moved.len();
    }

    /// Some of the writes come through, and then none: all is as before.
    fn taken_back(&mut self, draw: &mut Draw, flows: &[Flow], step: &Step, at: &str) {
        let before = self.verdicts(flows);
        let mut failed = step.clone();
        let mut dead = std::mem::take(&mut failed.dead);
        while draw.one_in(2) {
            let Some(more) = self.compiled.more() else { break };
            self.write(&failed, usize::MAX, |_, _| ());
            failed = more;
            dead.append(&mut failed.dead);
        }
        let until = draw.below(failed.prefixes.len() as u64 + 1) as usize;
        self.write(&failed, until, |_, _| ());
        let mut next = Some(self.compiled.take_back());
        while let Some(back) = next {
            self.write(&back, usize::MAX, |_, _| ());
            next = self.compiled.more();
        }
        self.kernel.remove_rules(&dead);
        assert_eq!(self.verdicts(flows), before, "{at}: taken back");
        self.settled(at);
        self.counts.taken_back += 1;
    }

    /// Writes as the daemon does; each address has its old or its new class all the time.
    fn write(&mut self, step: &Step, until: usize, mut look: impl FnMut(&Self, usize)) {
        self.kernel.add_rules(&step.lines);
        let probes: BTreeSet<(u32, IpAddr)> = step
            .prefixes
            .iter()
            .flat_map(|write| {
                let (first, last) = (write.network.network(), write.network.broadcast());
                [(write.view, first), (write.view, last)]
            })
            .collect();
        let classes = |kernel: &Kernel| -> Vec<ClassId> {
            probes.iter().map(|(view, address)| kernel.class_in(*view, *address)).collect()
        };
        let before = classes(&self.kernel);
        let mut after = self.kernel.clone();
        step.prefixes.iter().for_each(|write| after.write_prefix(write));
        let after = classes(&after);
        for (index, write) in step.prefixes.iter().take(until).enumerate() {
            self.kernel.write_prefix(write);
            for ((now, probe), (before, after)) in
                classes(&self.kernel).into_iter().zip(&probes).zip(before.iter().zip(&after))
            {
                assert!(
                    now == *before || now == *after,
                    "{probe:?} has class {now:?} after write {index} of {step:#?}"
                );
            }
            look(self, index);
            self.counts.writes += 1;
        }
        self.kernel.remove_rules(&step.dead);
    }

    fn switch_all(&mut self) {
        let policy = |own: &usize| Some((*own, self.compiled.policy(&self.subject(*own))?));
        self.switched = self.present.iter().filter_map(policy).collect();
    }

    fn switch_moved(&mut self, step: &Step) {
        let moved = self.switched.keys().copied().filter(|own| step.moved.contains(&self.subject(*own)));
        for own in moved.collect::<Vec<_>>() {
            self.switched.extend(self.compiled.policy(&self.subject(own)).map(|policy| (own, policy)));
        }
        for (own, policy) in &self.switched {
            assert_eq!(self.compiled.policy(&self.subject(*own)), Some(*policy), "nobody else has another policy");
        }
    }

    /// The kernel has what is compiled, and not more than what a compilation from nothing makes.
    fn settled(&self, at: &str) {
        let own = self.compiled.generation();
        assert_eq!(self.kernel.contents(), Kernel::load(&own).contents(), "{at}");
        let subjects = self.present.iter().map(|own| self.subject(*own)).collect();
        let anew = compile(&model(&self.world, &self.present), &subjects, 1, PolicyId(1)).generation();
        let sizes = |it: &policy::tables::Generation| {
            let prefixes: BTreeSet<_> =
                it.tries().map(|(_, own)| own.iter().map(|it| it.0).collect::<Vec<_>>()).collect();
            (prefixes, it.rules.len(), it.rule_names.clone())
        };
        let (own, anew) = (sizes(&own), sizes(&anew));
        assert_eq!(
            own.0.iter().filter(|it| !it.is_empty()).collect::<Vec<_>>(),
            anew.0.iter().filter(|it| !it.is_empty()).collect::<Vec<_>>(),
            "{at}"
        );
        assert_eq!(own.1, anew.1, "{at}: lines");
        assert!(anew.2.iter().all(|(_, name)| own.2.values().any(|own| own == name)), "{at}: names of rules");
    }

    /// Holds every workload's answers against `decide`.
    fn compare(&self, draw: &mut Draw, at: &str) {
        let model = model(&self.world, &self.present);
        for (own, target, out) in self.flows(draw) {
            let subject = self.subject(own);
            let elsewhere = crate::text::name("tenant-x");
            let decision = if out {
                decide(
                    &model,
                    &Query::From(Outbound { from: &subject, to: target, resolved: &[], shown: Shown::NotYet, now: 0 }),
                )
            } else {
                let from = Origin::Segment { network: &elsewhere };
                let Target { address: remote, protocol, port } = target;
                decide(&model, &Query::To(Inbound { to: &subject, from, remote, protocol, port }))
            };
            match self.verdict((own, target, out)) {
                None => assert_eq!(decision.reason, Reason::Sealed, "{at}: {subject:?} {target}"),
                Some(verdict) => {
                    let rule = self.compiled.rule_name(verdict.rule);
                    let wanted = (decision.reason, decision.rule.as_ref(), decision.holds);
                    let got = (verdict.reason, rule, verdict.hold);
                    assert_eq!(
                        got,
                        wanted,
                        "{at}: {subject:?} {target} out {out}\n{:#?}\n{}",
                        self.world,
                        self.compiled.generation()
                    );
                }
            }
        }
    }

    fn flows(&self, draw: &mut Draw) -> Vec<Flow> {
        let mut all = Vec::new();
        for own in &self.present {
            all.extend((0..TARGETS).map(|_| (*own, self.world.target(draw), draw.one_in(2))));
        }
        all
    }

    fn verdicts(&self, flows: &[Flow]) -> Vec<Option<Verdict>> {
        flows.iter().map(|flow| self.verdict(*flow)).collect()
    }

    fn verdict(&self, (own, target, out): Flow) -> Option<Verdict> {
        let entry = Workload { id: own as u32, policy: *self.switched.get(&own)? };
        if out {
            return Some(self.kernel.egress(entry, target, &self.world.node, 0));
        }
        let elsewhere = crate::text::name("tenant-x");
        let from = Origin::Segment { network: &elsewhere };
        Some(self.kernel.ingress(entry, &from, target.address, target.protocol, target.port, false))
    }

    fn subject(&self, number: usize) -> Subject {
        resident(&self.world, number).subject
    }
}

fn model<'a>(world: &'a World, present: &BTreeSet<usize>) -> Model<'a> {
    Model::new(&world.namespaces, &world.networks, &world.policies, [], &world.node)
        .with_cluster_policies(&world.cluster_policies)
        .with_network_policies(&world.network_policies)
        .with_sets(world::sets_of(world))
        .with_residents(present.iter().map(|own| resident(world, *own)))
}

/// Some subjects have two workloads. What a router of its own routes has the addresses of others.
fn resident(world: &World, number: usize) -> Resident {
    let subject = world.subjects[number % world.subjects.len()].clone();
    let overlap = world.networks[1].gateway == Gateway::External && subject.namespace.as_str() == "bank";
    let low = if overlap { number.saturating_sub(2) } else { number + 1 } as u16;
    let addresses = vec![IpAddr::from([10, 0, 0, low as u8]), IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, low])];
    Resident { subject, addresses }
}

/// Some of the resources become others.
fn alter(world: &mut World, draw: &mut Draw) {
    let other = World::draw(draw);
    match draw.below(9) {
        0 => world.policies = other.policies,
        1 => world.cluster_policies = other.cluster_policies,
        2 => world.network_policies = other.network_policies,
        3 => world.namespaces = other.namespaces,
        4 => world.networks = other.networks,
        7 => world.sets = other.sets,
        5 => drop(world.policies.pop()),
        6 => {
            let unused = |own: &config::resource::EgressPolicy| world.policies.iter().all(|it| it.name != own.name);
            let more = other.policies.into_iter().find(unused);
            world.policies.extend(more);
        }
        _ => {
            if let Some(own) = world.policies.first_mut() {
                own.allow = other.policies.into_iter().flat_map(|it| it.allow).collect();
            }
        }
    }
    world.node.addresses.extend(draw.one_in(9).then(|| world::address(draw)));
}

/// Prefixes come into some sets and leave them.
fn other_prefixes(world: &mut World, draw: &mut Draw) -> BTreeSet<ResourceKey> {
    let mut changed = BTreeSet::new();
    for set in &mut world.sets {
        let SetSource::Cidrs(own) = &mut set.source else { continue };
        let gone: Vec<_> = own.iter().filter(|_| draw.one_in(3)).collect();
        let come = draw.some(3, world::prefix);
        *own = own.changed(&come, &gone);
        changed.insert(Resource::from(set.clone()).key());
    }
    changed
}

fn flip(present: &mut BTreeSet<usize>, number: usize) {
    if !present.remove(&number) {
        present.insert(number);
    }
}
