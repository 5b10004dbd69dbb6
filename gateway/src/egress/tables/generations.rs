//! Policies: a generation of prefixes and rules is written beside the one in use, and the old one is retired after the
//! last workload was switched. Numbers are never used again, so that a half-written generation opens nothing.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use policy::tables::{ClassId, Generation, NamesFirst, PolicyId, RuleEntry};
use policy::tiers::Tier;

use super::layout as l;
use super::{InTable, TableError, Tables};

/// Length of the part in front of a trie's address: the generation or the network.
const NUMBER_BITS: u32 = 32;

/// Flags of a rule, see `gateway/bpf/tables.h`.
const RULE_ADMIN: u8 = 1;
const RULE_ADMIN_NAMES: u8 = 2;
const RULE_ALL_NAMES: u8 = 4;
const RULE_AUDIT_ADMIN: u8 = 8;

/// What a generation is in the kernel, sorted.
struct Lines {
    classes4: Vec<(l::Class4Key, u32)>,
    classes6: Vec<(l::Class6Key, u32)>,
    rules: Vec<(l::RuleKey, l::Rule)>,
}

impl Tables {
    /// Writes a generation beside those in use. If a table is full, what was written is taken back.
    pub fn write_generation(&self, generation: &Generation) -> Result<(), TableError> {
        let lines = lines(generation);
        let written = self
            .classes4
            .set_all(&lines.classes4)
            .in_table("classes4")
            .and_then(|()| self.classes6.set_all(&lines.classes6).in_table("classes6"))
            .and_then(|()| self.rules.set_all(&lines.rules).in_table("rules"));
        if written.is_err() {
            self.remove_lines(&lines)?;
        }
        written
    }

    /// Writes more rules of policies in use: those of the classes that stand for names.
    pub fn write_rules(&self, rules: &[RuleEntry]) -> Result<(), TableError> {
        let mut lines: Vec<_> = rules.iter().map(rule_line).collect();
        lines.sort_unstable();
        self.rules.set_all(&lines).in_table("rules")
    }

    /// Removes a generation: its prefixes, and the rules and names' classes of `policies`. For when the last workload
    /// was switched away from them.
    pub fn retire(&self, generation: &Generation, policies: &BTreeSet<PolicyId>) -> Result<(), TableError> {
        let mut lines = lines(generation);
        lines.rules.retain(|(key, _)| policies.contains(&PolicyId(key.policy)));
        self.remove_lines(&lines)?;
        self.remove_policies(|policy| policies.contains(&policy))
    }

    /// Removes every generation and policy but these. For after a restart, when what was retired last is not known;
    /// walks the tables whole.
    pub fn retire_all_but(&self, generations: &BTreeSet<u32>, policies: &BTreeSet<PolicyId>) -> Result<(), TableError> {
        let classes4 = self.classes4.dump().in_table("classes4")?.into_iter().map(|(key, _)| key);
        let old: Vec<_> = classes4.filter(|key| !generations.contains(&key.generation)).collect();
        self.classes4.remove_all(&old).in_table("classes4")?;
        let classes6 = self.classes6.dump().in_table("classes6")?.into_iter().map(|(key, _)| key);
        let old: Vec<_> = classes6.filter(|key| !generations.contains(&key.generation)).collect();
        self.classes6.remove_all(&old).in_table("classes6")?;
        self.remove_policies(|policy| !policies.contains(&policy))
    }

    fn remove_lines(&self, lines: &Lines) -> Result<(), TableError> {
        self.classes4.remove_all(&keys(&lines.classes4)).in_table("classes4")?;
        self.classes6.remove_all(&keys(&lines.classes6)).in_table("classes6")?;
        self.rules.remove_all(&keys(&lines.rules)).in_table("rules")
    }

    fn remove_policies(&self, old: impl Fn(PolicyId) -> bool) -> Result<(), TableError> {
        let rules = self.rules.dump().in_table("rules")?.into_iter().map(|(key, _)| key);
        let rules: Vec<_> = rules.filter(|key| old(PolicyId(key.policy))).collect();
        self.rules.remove_all(&rules).in_table("rules")?;
        let names = self.name_classes.dump().in_table("name_classes")?.into_iter().map(|(key, _)| key);
        let names: Vec<_> = names.filter(|key| old(PolicyId(key.policy))).collect();
        self.name_classes.remove_all(&names).in_table("name_classes")
    }
}

/// Network address and prefix length as the address tables have them: a number of 32 bits in front, always whole.
pub(super) fn prefix(network: &IpNetwork) -> (u32, l::Address) {
    let bits = u32::from(network.prefix()) + if network.is_ipv4() { 96 } else { 0 };
    (NUMBER_BITS + bits, l::address(network.network()))
}

fn keys<K: Copy, V>(entries: &[(K, V)]) -> Vec<K> {
    entries.iter().map(|(key, _)| *key).collect()
}

fn lines(generation: &Generation) -> Lines {
    let mut lines = Lines { classes4: Vec::new(), classes6: Vec::new(), rules: Vec::new() };
    let prefixes = generation.tries().flat_map(|(number, prefixes)| prefixes.iter().map(move |own| (number, own)));
    for (number, (network, ClassId(class))) in prefixes {
        let prefix_length = NUMBER_BITS + u32::from(network.prefix());
        match network.network() {
            IpAddr::V4(ip) => {
                lines.classes4.push((l::Class4Key { prefix_length, generation: number, address: ip.octets() }, *class));
            }
            IpAddr::V6(ip) => {
                lines.classes6.push((l::Class6Key { prefix_length, generation: number, address: ip.octets() }, *class));
            }
        }
    }
    lines.rules.extend(generation.rules.iter().map(rule_line));
    lines.classes4.sort_unstable_by_key(|(key, _)| (key.generation, key.address, key.prefix_length));
    lines.classes6.sort_unstable_by_key(|(key, _)| (key.generation, key.address, key.prefix_length));
    lines.rules.sort_unstable();
    lines
}

fn rule_line(rule: &RuleEntry) -> (l::RuleKey, l::Rule) {
    let (prefix_length, protocol, port) = match rule.protocol {
        None => (64, 0, 0),
        Some(protocol) => (72 + u32::from(rule.ports.length), protocol, rule.ports.port),
    };
    let key =
        l::RuleKey { prefix_length, policy: rule.policy.0, class: rule.class.0, protocol, port: port.to_be_bytes() };
    let admin = if rule.tier == Tier::Admin { RULE_ADMIN } else { 0 };
    let names = match rule.names {
        NamesFirst::None => 0,
        NamesFirst::Admin => RULE_ADMIN_NAMES,
        NamesFirst::All => RULE_ALL_NAMES,
    };
    let above = if rule.audit.is_some_and(|audit| audit.tier == Tier::Admin) { RULE_AUDIT_ADMIN } else { 0 };
    let audit = rule.audit.map_or(0, |audit| audit.rule.0);
    (key, l::Rule { action: rule.action as u8, flags: admin | names | above, pad: [0; 2], rule: rule.rule.0, audit })
}
