//! The kernel's lookups over the compiled tables say what `decide` says, in many random worlds.

use std::collections::BTreeSet;

use config::resource::Kind;
use policy::ledger::Limits;
use policy::reason::Reason;
use policy::tables::{PolicyId, RuleList};
use policy::{Compiled, Decision, Inbound, Ledger, Model, Origin, Outbound, Query, Shown, Target, compile, decide};

use crate::draw::Draw;
use crate::kernel::{Kernel, Verdict, Workload};
use crate::text::name;
use crate::world::{self, SECOND, World};

const WORLDS: u64 = 4_000;
const FLOWS_EACH: u64 = 60;

/// A flow in a world, at a time.
#[derive(Clone, Debug)]
enum Case {
    Egress { subject: usize, to: Target, now: u64 },
    Ingress { subject: usize, same: bool, node: bool, from: Target },
}

/// The reason, the deciding rule's kind of policy and list, and whether a set had the address.
type Way = (Reason, Option<(Kind, RuleList)>, bool);

#[test]
fn tables_say_what_decide_says() {
    let (mut seen, mut views, mut held) = (BTreeSet::new(), 0, 0);
    for seed in 0..WORLDS {
        let mut draw = Draw(seed);
        let world = World::draw(&mut draw);
        let model = world.model();
        let mut node = Simulation::new(&world);
        views += node.compiled.generation().views.len();
        for _ in 0..FLOWS_EACH {
            let subject = draw.below(world.subjects.len() as u64) as usize;
            let case = if draw.one_in(3) {
                Case::Ingress { subject, same: draw.one_in(2), node: draw.one_in(4), from: world.target(&mut draw) }
            } else {
                let named = draw.one_in(2);
                let to = if named { world.named_target(&mut draw, subject) } else { world.target(&mut draw) };
                Case::Egress { subject, to, now: (190 + draw.below(200)) * SECOND }
            };
            match node.compare(&world, &model, &case) {
                Ok((way, holds)) => {
                    seen.insert(way);
                    held += usize::from(holds);
                }
                Err(difference) => panic!("seed {seed}: {}", smallest(world, &case, difference)),
            }
        }
    }
    assert!(held > 1_000, "{held} flows held");
    let reasons: BTreeSet<Reason> = seen.iter().map(|(reason, ..)| *reason).collect();
    for reason in [
        Reason::AllowedByCidr,
        Reason::AllowedByName,
        Reason::AllowedByDefault,
        Reason::Audited,
        Reason::EdgeOnly,
        Reason::SameNetwork,
        Reason::Probe,
        Reason::Dns,
        Reason::NodeAddress,
        Reason::DeniedByCidr,
        Reason::DeniedByName,
        Reason::DeniedByDefault,
        Reason::NameExpired,
        Reason::Sealed,
    ] {
        assert!(reasons.contains(&reason), "no case came to {reason:?}");
    }
    for reason in [Reason::DeniedByCidr, Reason::AllowedByCidr, Reason::AllowedByName, Reason::Audited] {
        for kind in [Kind::ClusterEgressPolicy, Kind::EgressPolicy] {
            let found = seen.iter().any(|(own, rule, _)| *own == reason && rule.is_some_and(|(by, _)| by == kind));
            assert!(found, "no case came to {reason:?} by {kind}");
            let by_set =
                seen.iter().any(|(own, rule, set)| *set && *own == reason && rule.is_some_and(|(by, _)| by == kind));
            assert!(by_set || reason == Reason::AllowedByName, "no case came to {reason:?} by a set of a {kind}");
        }
    }
    let lists: BTreeSet<_> = seen.iter().filter_map(|(_, rule, _)| *rule).collect();
    let of_peers = [RuleList::Ingress, RuleList::Egress].map(|list| (Kind::NetworkPolicy, list));
    assert!(of_peers.iter().all(|list| lists.contains(list)), "rules of every list decided: {lists:?}");
    assert!(views > 100, "{views} views of their own");
}

/// Takes things away as long as the two still differ.
fn smallest(mut world: World, case: &Case, mut difference: String) -> String {
    while let Some((smaller, other)) = world.smaller().into_iter().find_map(|smaller| {
        Simulation::new(&smaller).compare(&smaller, &smaller.model(), case).err().map(|other| (smaller, other))
    }) {
        (world, difference) = (smaller, other);
    }
    format!("{difference}\n{case:?}\n{world:#?}\n{}", Simulation::new(&world).compiled.generation())
}

/// What the daemon and the kernel make of a world.
struct Simulation {
    compiled: Compiled,
    ledger: Ledger,
    kernel: Kernel,
}

impl Simulation {
    fn new(world: &World) -> Self {
        let model = world.model();
        let subjects = &world.subjects;
        let compiled = compile(&model, &subjects.iter().cloned().collect(), 7, PolicyId(100));
        assert_eq!(compiled.next_numbers().0 as usize, 8 + compiled.generation().views.len());
        let mut kernel = Kernel::load(&compiled.generation());
        for (id, port) in world.exposed() {
            kernel.expose(id, port);
        }
        let mut node = Self { compiled, ledger: Ledger::new(Limits::default()), kernel };
        let mut lookups = world.lookups.clone();
        lookups.sort_by_key(|lookup| lookup.at);
        for lookup in lookups {
            let Some(policy) = node.compiled.policy(&subjects[lookup.workload as usize]) else {
                continue;
            };
            let compiled = &mut node.compiled;
            let mut rules = Vec::new();
            let class_of = |asked: &_| {
                let made = compiled.name_class(policy.egress, asked)?;
                rules.extend(made.new_rules);
                Some(made.class)
            };
            let answer = [(lookup.address, lookup.ttl)];
            let changes = node.ledger.learn(lookup.at, lookup.workload, &lookup.name, &answer, class_of).unwrap();
            node.kernel.add_rules(&rules);
            for (id, name) in &changes.names {
                let all: Vec<_> = compiled.policies().map(|(_, policy)| policy).collect();
                for policy in all {
                    if let Some(made) = compiled.name_class(policy.egress, name) {
                        node.kernel.add_rules(&made.new_rules);
                        node.kernel.set_name_class(policy.egress, *id, made.class);
                    }
                }
            }
            node.kernel.write(&changes);
        }
        assert_eq!(node.ledger.counters().classes_dropped, 0, "worlds are too small for this");
        node
    }

    /// The reason on which both agree with the rule that decided, as its policy's kind and its list, and whether the flow
    /// waits; or how they differ.
    fn compare(&mut self, world: &World, model: &Model<'_>, case: &Case) -> Result<(Way, bool), String> {
        let subjects = &world.subjects;
        let mut loosely = false;
        let (wanted, got) = match case {
            Case::Egress { subject, to, now } => {
                let from = &subjects[*subject];
                loosely = world::audits_denied_names(model, from);
                let resolved = self.ledger.resolved(*subject as u32, to.address);
                let flow = Outbound { from, to: *to, resolved: &resolved, shown: Shown::NotYet, now: *now };
                let wanted = decide(model, &Query::From(flow));
                let by_address = matches!(wanted.reason, Reason::AllowedByCidr | Reason::AllowedByDefault);
                let policy = self.compiled.policy(from);
                if by_address && !policy.is_some_and(|policy| self.compiled.opens(policy, to.address)) {
                    return Err(format!(
                        "decide says {wanted:?}\nand no port of {} is open without a name",
                        to.address
                    ));
                }
                (wanted, self.workload(world, *subject).map(|own| self.kernel.egress(own, *to, &world.node, *now)))
            }
            Case::Ingress { subject, same, node, from } => {
                let elsewhere = name("tenant-x");
                let tenant = if *same { world.network_of(*subject) } else { &elsewhere };
                let origin = if *node { Origin::Node } else { Origin::Segment { network: tenant } };
                let to = &subjects[*subject];
                let flow = Inbound {
                    to,
                    from: origin.clone(),
                    remote: from.address,
                    protocol: from.protocol,
                    port: from.port,
                };
                let wanted = decide(model, &Query::To(flow));
                let own = self.workload(world, *subject);
                let ask = |own| self.kernel.ingress(own, &origin, from.address, from.protocol, from.port, *same);
                (wanted, own.map(ask))
            }
        };
        match got {
            None if wanted.reason == Reason::Sealed => Ok(((wanted.reason, None, false), false)),
            None => Err(format!("decide says {wanted:?}, and there is no policy")),
            Some(got) if self.agree(&wanted, got, loosely) => {
                let by_set = wanted.text.contains(" of AddressSet `");
                Ok(((wanted.reason, wanted.rule.map(|rule| (rule.kind, rule.list)), by_set), wanted.holds))
            }
            Some(got) => Err(format!("decide says {wanted:?}\nthe tables say {got:?}")),
        }
    }

    /// Of an expired name only the reason is compared: the kernel names any of several. It does not tell a name that is
    /// denied from one that nothing allows. `loosely`: what an audited policy says of names is not in the kernel's tables,
    /// only that such a flow waits.
    fn agree(&self, wanted: &Decision, got: Verdict, loosely: bool) -> bool {
        let rule = self.compiled.rule_name(got.rule);
        let name = got.name.and_then(|name| self.ledger.name(name));
        let alike = match wanted.reason {
            Reason::DeniedByName => matches!(got.reason, Reason::DeniedByDefault | Reason::NameExpired),
            Reason::NameExpired => got.reason == Reason::NameExpired,
            reason => got.reason == reason && wanted.rule.as_ref() == rule && wanted.name.as_ref() == name,
        };
        wanted.allowed == got.reason.passes()
            && wanted.mend.is_some() == (!wanted.allowed || wanted.reason == Reason::Audited)
            && (loosely || alike)
            && (got.hold || !wanted.holds)
            && (loosely || got.hold == wanted.holds)
    }

    fn workload(&self, world: &World, subject: usize) -> Option<Workload> {
        let policy = self.compiled.policy(&world.subjects[subject])?;
        Some(Workload { id: subject as u32, policy })
    }
}
