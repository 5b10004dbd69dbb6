//! The kernel programs' lookups over the compiled tables, word for word as `verdict.h` has them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use policy::ledger::{Changes, Slots};
use policy::model::Node;
use policy::reason::Reason;
use policy::tables::{
    Action, Audit, ClassId, Generation, NameId, NamesFirst, PolicyId, PolicyRef, PrefixWrite, RuleEntry, RuleId,
};
use policy::tiers::Tier;
use policy::{Origin, Target};

/// What the kernel has in its maps.
#[derive(Clone, Default)]
pub(crate) struct Kernel {
    /// By generation.
    prefixes: BTreeMap<u32, Vec<(IpNetwork, ClassId)>>,
    rules: BTreeMap<(PolicyId, ClassId), Vec<RuleEntry>>,
    name_classes: BTreeMap<(PolicyId, NameId), ClassId>,
    learned: BTreeMap<(u32, IpAddr), Slots>,
    /// Workload and TCP port.
    exposed: BTreeSet<(u32, u16)>,
}

/// A workload's entry.
#[derive(Clone, Copy)]
pub(crate) struct Workload {
    pub(crate) id: u32,
    pub(crate) policy: PolicyRef,
}

/// Which of the names are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    None,
    Admin,
    All,
}

/// What a program answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) reason: Reason,
    pub(crate) rule: RuleId,
    pub(crate) name: Option<NameId>,
    /// It passes only once its handshake was judged.
    pub(crate) hold: bool,
}

impl Kernel {
    /// Takes a generation, and holds it against what the tables promise.
    pub(crate) fn load(generation: &Generation) -> Self {
        let mut kernel = Self::default();
        for (number, prefixes) in generation.tries() {
            let mut known = BTreeSet::new();
            assert!(prefixes.iter().all(|(prefix, _)| known.insert(*prefix)), "a prefix is there twice");
            assert!(kernel.prefixes.insert(number, prefixes.to_vec()).is_none(), "{number} is there twice");
        }
        kernel.add_rules(&generation.rules);
        for ((policy, class), lines) in &kernel.rules {
            assert!(lines.iter().any(|line| line.protocol.is_none()), "{policy:?} {class:?} is not complete");
        }
        kernel
    }

    /// Takes lines out, those that it does not have too.
    pub(crate) fn remove_rules(&mut self, rules: &[RuleEntry]) {
        for rule in rules {
            if let Some(lines) = self.rules.get_mut(&(rule.policy, rule.class)) {
                lines.retain(|known| (known.protocol, known.ports) != (rule.protocol, rule.ports));
                if lines.is_empty() {
                    self.rules.remove(&(rule.policy, rule.class));
                }
            }
        }
    }

    pub(crate) fn write_prefix(&mut self, write: &PrefixWrite) {
        let prefixes = self.prefixes.entry(write.view).or_default();
        prefixes.retain(|(known, _)| *known != write.network);
        prefixes.extend(write.class.map(|class| (write.network, class)));
    }

    /// All prefixes and lines, in order.
    pub(crate) fn contents(&self) -> (BTreeSet<(u32, IpNetwork, ClassId)>, Vec<RuleEntry>) {
        let of = |(view, own): (&u32, &Vec<(IpNetwork, ClassId)>)| {
            own.iter().map(|(network, class)| (*view, *network, *class)).collect::<Vec<_>>()
        };
        let mut rules: Vec<RuleEntry> = self.rules.values().flatten().copied().collect();
        rules.sort_by_key(|it| (it.policy, it.class, it.protocol, it.ports));
        (self.prefixes.iter().flat_map(of).collect(), rules)
    }

    /// The class of an address in a view.
    pub(crate) fn class_in(&self, view: u32, address: IpAddr) -> ClassId {
        let prefixes = self.prefixes.get(&view).into_iter().flatten();
        let matching = prefixes.filter(|(prefix, _)| prefix.contains(address));
        matching.max_by_key(|(prefix, _)| prefix.prefix()).map_or(ClassId::ANY, |(_, class)| *class)
    }

    pub(crate) fn expose(&mut self, workload: u32, port: u16) {
        self.exposed.insert((workload, port));
    }

    pub(crate) fn add_rules(&mut self, rules: &[RuleEntry]) {
        for rule in rules {
            let lines = self.rules.entry((rule.policy, rule.class)).or_default();
            assert!(
                lines.iter().all(|known| (known.protocol, known.ports) != (rule.protocol, rule.ports)),
                "two lines with one key: {rule}"
            );
            lines.push(*rule);
        }
    }

    pub(crate) fn set_name_class(&mut self, policy: PolicyId, name: NameId, class: ClassId) {
        self.name_classes.insert((policy, name), class);
    }

    pub(crate) fn write(&mut self, changes: &Changes) {
        for key in &changes.removed {
            self.learned.remove(key);
        }
        for write in &changes.slots {
            self.learned.insert((write.workload, write.address), write.slots);
        }
    }

    pub(crate) fn learned(&self) -> impl Iterator<Item = (u32, IpAddr, Slots)> {
        self.learned.iter().map(|((workload, address), slots)| (*workload, *address, *slots))
    }

    pub(crate) fn egress(&self, workload: Workload, to: Target, node: &Node, now: u64) -> Verdict {
        let no_rule = |reason| Verdict { reason, rule: RuleId::DEFAULT, name: None, hold: false };
        if to.port == 53 && (to.protocol == 6 || to.protocol == 17) {
            return no_rule(Reason::Dns);
        }
        if node.addresses.contains(&to.address) && !node.listens(to.address, to.protocol, to.port) {
            return no_rule(Reason::NodeAddress);
        }
        let policy = workload.policy.egress;
        let answer = self.by_address(policy, self.class(workload, to.address), to.protocol, to.port);
        let asked = answer.map_or(Asked::All, |line| match (line.action, line.names) {
            (Action::Undecided, _) => Asked::All,
            (_, NamesFirst::Admin) => Asked::Admin,
            (_, NamesFirst::None) => Asked::None,
            (_, NamesFirst::All) => Asked::All,
        });
        let (named, by_admin) = self.by_name(workload, to, now, asked);
        let audit = answer.and_then(|line| line.audit);
        let audited = |audit: Audit, passing: Verdict| Verdict { reason: Reason::Audited, rule: audit.rule, ..passing };
        let undecided = answer.is_none_or(|line| line.action == Action::Undecided);
        if named.reason == Reason::AllowedByName {
            let above = audit.filter(|audit| audit.tier == Tier::Admin || (undecided && !by_admin));
            return above.map_or(named, |audit| audited(audit, named));
        }
        match answer.map(|line| (line.action, line.rule, line.verify)) {
            Some((Action::Deny, rule, _)) => Verdict { reason: Reason::DeniedByCidr, rule, name: None, hold: false },
            Some((Action::Allow, rule, hold)) => {
                let reason = if rule == RuleId::DEFAULT { Reason::AllowedByDefault } else { Reason::AllowedByCidr };
                let passing = Verdict { reason, rule, name: None, hold };
                audit.map_or(passing, |audit| audited(audit, passing))
            }
            Some((Action::Undecided, ..)) | None => named,
        }
    }

    pub(crate) fn ingress(
        &self,
        workload: Workload,
        from: &Origin<'_>,
        remote: IpAddr,
        protocol: u8,
        port: u16,
        same: bool,
    ) -> Verdict {
        let no_rule = |reason| Verdict { reason, rule: RuleId::DEFAULT, name: None, hold: false };
        if *from == Origin::Node {
            return no_rule(if workload.policy.probes { Reason::Probe } else { Reason::DeniedByDefault });
        }
        if protocol == 6 && self.exposed.contains(&(workload.id, port)) {
            return no_rule(Reason::EdgeOnly);
        }
        let answer = self.by_address(workload.policy.ingress, self.class(workload, remote), protocol, port);
        match answer.map(|line| (line.action, line.rule)) {
            Some((Action::Deny, rule)) => Verdict { reason: Reason::DeniedByCidr, rule, name: None, hold: false },
            Some((Action::Allow, rule)) if rule != RuleId::DEFAULT => {
                Verdict { reason: Reason::AllowedByCidr, rule, name: None, hold: false }
            }
            _ if same && workload.policy.open => no_rule(Reason::SameNetwork),
            Some((Action::Allow, _)) => no_rule(Reason::AllowedByDefault),
            Some((Action::Undecided, _)) | None => no_rule(Reason::DeniedByDefault),
        }
    }

    /// The line of a name's class, as for an open flow that is decided again.
    pub(crate) fn line(&self, policy: PolicyId, class: ClassId, protocol: u8, port: u16) -> Option<&RuleEntry> {
        let matching = self.rules.get(&(policy, class)).into_iter().flatten().filter(|line| {
            let block = u32::from(line.ports.port)..u32::from(line.ports.port) + (0x1_0000 >> line.ports.length);
            line.protocol.is_none_or(|own| own == protocol && block.contains(&u32::from(port)))
        });
        matching.max_by_key(|line| line.protocol.map_or(64, |_| 72 + line.ports.length))
    }

    /// The verdict, and whether a rule of the admin tier gave it.
    fn by_name(&self, workload: Workload, to: Target, now: u64, asked: Asked) -> (Verdict, bool) {
        let nothing = Verdict { reason: Reason::DeniedByDefault, rule: RuleId::DEFAULT, name: None, hold: false };
        if asked == Asked::None {
            return (nothing, false);
        }
        let slots = self.learned.get(&(workload.id, to.address)).copied().unwrap_or_default();
        let mut best: Option<(Tier, Verdict)> = None;
        let mut expired = None;
        for slot in slots.into_iter().flatten() {
            let Some(class) = self.name_classes.get(&(workload.policy.egress, slot.name)) else { continue };
            let line = self.line(workload.policy.egress, *class, to.protocol, to.port);
            let Some(line) = line.filter(|line| line.action == Action::Allow) else { continue };
            if asked == Asked::Admin && line.tier != Tier::Admin {
                continue;
            }
            let found = |reason, hold| Verdict { reason, rule: line.rule, name: Some(slot.name), hold };
            if slot.expires_ns <= now {
                expired = expired.or(Some(found(Reason::NameExpired, false)));
            } else if best.is_none_or(|(tier, best)| (line.tier, line.verify) < (tier, best.hold)) {
                best = Some((line.tier, found(Reason::AllowedByName, line.verify)));
            }
        }
        match best {
            Some((tier, verdict)) => (verdict, tier == Tier::Admin),
            None => (expired.unwrap_or(nothing), false),
        }
    }

    fn by_address(&self, policy: PolicyId, class: ClassId, protocol: u8, port: u16) -> Option<&RuleEntry> {
        let own = self.line(policy, class, protocol, port);
        if own.is_none() && class != ClassId::ANY { self.line(policy, ClassId::ANY, protocol, port) } else { own }
    }

    fn class(&self, workload: Workload, address: IpAddr) -> ClassId {
        self.class_in(workload.policy.generation, address)
    }
}
