//! What takes the way past the stack, and what is translated at the uplink, against a plain model of both.
//!
//! A [`scenario`] is a node with routed networks over time: terms change (whose source is translated, to what, whether
//! packets skip the stack), workloads and hosts send, and what comes by the uplink answers them, speaks of errors, or was
//! never asked for. Verdicts are those of the first proof's reference; [`nat`] is the model of mappings; which route a packet
//! takes stands in [`uplink::route`]. What leaves goes through both programs that it meets, and is compared octet by octet,
//! checksums by sums over the whole ([`frame`]).

use std::collections::{BTreeMap, BTreeSet};

use policy::Ledger;
use policy::reason::Reason;

use self::expect::Expect;
use self::nat::{Nat, Tuple};
use self::scenario::{Scenario, Step};
use self::uplink::Uplink;
use crate::programs::{Programs, Run};
use crate::reference::{Action, Reference, Rules};
use crate::{FRAMES_EACH, TRIES, counts};

mod expect;
mod frame;
mod nat;
mod scenario;
mod uplink;

#[test]
fn what_skips_the_stack_and_what_is_translated_is_as_documented() {
    let frames = counts(40_000, 5_000_000);
    let first = std::env::var("TIDEGATE_SEED").map_or(0, |seed| seed.parse().unwrap());
    let mut programs = Programs::with(|limits| {
        (limits.nat_mappings, limits.nat_mappings_per_network) = (1024, nat::QUOTA as u32);
    });
    let uplink = Uplink::new(&programs);
    let mut seen: BTreeMap<What, u64> = BTreeMap::new();
    for seed in (first..).take(frames / FRAMES_EACH) {
        let scenario = Scenario::draw(seed, FRAMES_EACH);
        match judged(&mut programs, &uplink, &scenario) {
            Ok(all) => all.into_iter().for_each(|(what, count)| *seen.entry(what).or_default() += count),
            Err(difference) => {
                panic!("TIDEGATE_SEED={seed}: {}", smallest(&mut programs, &uplink, scenario, difference))
            }
        }
    }
    println!("{frames} frames: {seen:?}");
    assert!(seen[&What::Unsure] * 10 < frames as u64, "too many frames were too near to an idle time");
    for what in What::ALL {
        assert!(seen.contains_key(&what), "no frame came to {what:?}");
    }
}

/// What became of a frame that this proof is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    /// Past the stack, by a next hop that was known.
    Out,
    /// Past the stack, while the kernel looks for the next hop.
    Resolved,
    /// Past the stack into the workload.
    In,
    /// Either of these as the packet before it, by its shortcut.
    Again,
    /// From the uplink to the stack, for a host or what only the stack does.
    PassedOn,
    /// A workload's allowed packet that the stack takes.
    LeftToStack,
    /// A source was translated by a mapping that was there.
    Known,
    /// A flow got a port.
    New,
    /// A destination was translated back.
    Back,
    /// A fragment was translated.
    Piece,
    /// An ICMP error was translated on its way out.
    ErrorOut,
    /// And on its way in.
    ErrorIn,
    /// What came to the uplink was left as it was.
    Untouched,
    /// Nothing was free.
    Exhausted,
    /// The quota was full.
    Quota,
    /// There was no address to leave with.
    NoAddress,
    /// Nothing was said: some clock was too near to an idle time.
    Unsure,
}

impl What {
    const ALL: [Self; 17] = [
        Self::Out,
        Self::Resolved,
        Self::In,
        Self::Again,
        Self::PassedOn,
        Self::LeftToStack,
        Self::Known,
        Self::New,
        Self::Back,
        Self::Piece,
        Self::ErrorOut,
        Self::ErrorIn,
        Self::Untouched,
        Self::Exhausted,
        Self::Quota,
        Self::NoAddress,
        Self::Unsure,
    ];
}

/// One run: both sides.
pub(super) struct Trial<'a> {
    pub(super) programs: &'a mut Programs,
    uplink: &'a Uplink,
    pub(super) run: Run,
    pub(super) reference: Reference,
    pub(super) nat: Nat,
    /// Flows, by their type of service, whose mapping the program keeps beside their next hop.
    pub(super) at_hand: BTreeSet<(Tuple, u8)>,
    /// How many were taken.
    pub(super) shortcuts: u64,
    pub(super) seen: BTreeMap<What, u64>,
}

/// What was seen, or how both differ.
fn judged(programs: &mut Programs, uplink: &Uplink, scenario: &Scenario) -> Result<BTreeMap<What, u64>, String> {
    for _ in 0..TRIES {
        let mut trial = Trial {
            run: programs.begin(),
            programs,
            uplink,
            reference: Reference::default(),
            nat: Nat::default(),
            at_hand: BTreeSet::new(),
            shortcuts: uplink.shortcuts(),
            seen: BTreeMap::new(),
        };
        let outcome = trial.go(scenario);
        let Trial { run, seen, .. } = trial;
        let disturbed = programs.is_disturbed(&run);
        programs.end(run);
        uplink.clear();
        match outcome {
            _ if disturbed => {}
            Ok(()) => return Ok(seen),
            Err(difference) => return Err(difference),
        }
    }
    panic!("the machine is too slow: {TRIES} runs of one scenario were held up for seconds");
}

/// Takes steps away as long as the two still differ.
fn smallest(programs: &mut Programs, uplink: &Uplink, mut scenario: Scenario, mut difference: String) -> String {
    while let Some((smaller, other)) = scenario
        .smaller()
        .into_iter()
        .find_map(|smaller| judged(programs, uplink, &smaller).err().map(|other| (smaller, other)))
    {
        (scenario, difference) = (smaller, other);
    }
    let mut text = difference;
    for phase in &scenario.phases {
        text.push_str(&format!("\n{:?} {:?} ports {} fast {}", phase.leaves, phase.main(), phase.ports, phase.fast));
        phase.steps.iter().for_each(|step| text.push_str(&format!("\n  {step:?}")));
    }
    text
}

impl Trial<'_> {
    fn go(&mut self, scenario: &Scenario) -> Result<(), String> {
        for (phase, epoch) in scenario.phases.iter().zip(1..) {
            let (world, members, terms) = (phase.policies.world(), phase.members(epoch), phase.terms());
            self.programs.install(&mut self.run, &phase.policies, &world, &members);
            if self.run.ledger.counters().classes_dropped > 0 {
                return Ok(()); // more names at one address than slots: the ledger's own tests say which
            }
            self.uplink.install(self.programs, phase, &members);
            self.nat.follow(&terms);
            let model = world.model();
            // nothing is learned between two phases
            let ledger = std::mem::replace(&mut self.run.ledger, Ledger::new(Default::default()));
            let ids = self.run.ids.clone();
            let mut done = Ok(());
            for (number, step) in phase.steps.iter().enumerate() {
                let now = self.run.now;
                let rules = Rules { model: &model, ledger: &ledger, members: &members, ids: &ids, now };
                done = self.step(step, &Expect { rules: &rules, terms: &terms, fast: phase.fast });
                if let Err(what) = &mut done {
                    *what = format!("step {number} of phase {epoch}: {what}\n{step:?}");
                    break;
                }
            }
            self.run.ledger = ledger;
            done.and_then(|()| self.compare_states(members.len()))?;
        }
        Ok(())
    }

    fn step(&mut self, step: &Step, expect: &Expect<'_>) -> Result<(), String> {
        if let Step::Pause(seconds) = step {
            self.programs.pause(&mut self.run, *seconds);
            self.uplink.pause(self.programs, *seconds);
            return Ok(());
        }
        if self.nat.is_unsure(expect.rules.now).is_err() {
            self.note(What::Unsure);
            return Ok(());
        }
        match step {
            Step::Sends(shot) => self.sends(shot, expect),
            Step::Leaves(frame) => self.leaves(frame, expect),
            Step::Comes(draft) => self.comes(&draft.comes(&self.nat, expect.rules.members), expect),
            Step::Tells(draft) => self.leaves(&draft.tells(&self.nat), expect),
            Step::Pause(_) => Ok(()),
        }
    }

    fn compare_states(&mut self, workloads: usize) -> Result<(), String> {
        self.programs.check_counts(&self.run)?;
        if self.programs.flows(&self.run) != self.reference.flows.told() {
            return Err(format!(
                "flows differ: {:?}\n{:?}",
                self.programs.flows(&self.run),
                self.reference.flows.told()
            ));
        }
        for index in 0..workloads {
            let (counted, open) = (self.programs.counted(&self.run, index), self.reference.flows.of(index));
            if counted != open {
                return Err(format!("workload {index} has {open} flows, and {counted} count against its quota"));
            }
        }
        let kernel = Uplink::mappings(self.programs);
        let model: BTreeMap<_, _> =
            self.nat.mappings.iter().map(|(tuple, own)| (*tuple, (own.wire, own.network))).collect();
        if kernel != model {
            return Err(format!("mappings differ: {kernel:?}\n{model:?}"));
        }
        for network in [1, 2] {
            let (counted, open) = (self.programs.tables.mappings_of(network).unwrap(), self.nat.of(network));
            if counted as usize != open {
                return Err(format!("network {network} has {open} mappings, and {counted} count against its quota"));
            }
        }
        Ok(())
    }

    /// Whether the last packet took a shortcut: then nothing but its flow was looked at.
    pub(super) fn took_shortcut(&mut self) -> bool {
        let before = std::mem::replace(&mut self.shortcuts, self.uplink.shortcuts());
        let taken = self.shortcuts != before;
        if taken {
            self.note(What::Again);
        }
        taken
    }

    pub(super) fn note(&mut self, what: What) {
        *self.seen.entry(what).or_default() += 1;
    }

    /// What a refusal of source NAT is counted as here.
    pub(super) fn note_refusal(&mut self, reason: Reason) {
        match reason {
            Reason::NatExhausted => self.note(What::Exhausted),
            Reason::NatQuota => self.note(What::Quota),
            Reason::NatNoAddress => self.note(What::NoAddress),
            _ => {}
        }
    }
}

/// The words for a frame that went otherwise than expected.
pub(super) fn otherwise(wanted: (Option<Reason>, Action), found: (Option<Reason>, Action)) -> Result<(), String> {
    if wanted == found { Ok(()) } else { Err(format!("the documents say {wanted:?}, the program {found:?}")) }
}
