//! Policies: prefixes to classes, and their lines, written and taken out step by step ([`policy::compile`]). Numbers are
//! never used again, so that a step that is half written opens nothing.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use policy::tables::{ClassId, NameId, NamesFirst, PolicyId, PrefixWrite, RuleEntry, Step};
use policy::tiers::Tier;

use super::layout as l;
use super::{InTable, TableError, Tables};

/// Length of the part in front of a trie's address: the view or the network.
const NUMBER_BITS: u32 = 32;

/// Flags of a rule, see `gateway/bpf/tables.h`.
const RULE_ADMIN: u8 = 1;
const RULE_ADMIN_NAMES: u8 = 2;
const RULE_ALL_NAMES: u8 = 4;
const RULE_AUDIT_ADMIN: u8 = 8;
const RULE_VERIFY: u8 = 16;
const RULE_SHOWN: u8 = 32;

/// Prefixes of views whose numbers are used no more.
#[derive(Debug)]
pub struct Former {
    v4: Vec<l::Class4Key>,
    v6: Vec<l::Class6Key>,
}

impl Tables {
    /// Writes a step's lines, then its prefixes in their order. If a table is full, what was written stays: it changes no
    /// answer, and the step that takes this one back removes it.
    pub fn apply(&self, step: &Step) -> Result<(), TableError> {
        self.write_rules(&step.lines)?;
        let (mut come4, mut gone4, mut come6, mut gone6) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for write in &step.prefixes {
            match (class_key(write), write.class) {
                (ClassKey::V4(key), Some(ClassId(class))) => come4.push((key, class)),
                (ClassKey::V6(key), Some(ClassId(class))) => come6.push((key, class)),
                (ClassKey::V4(key), None) => gone4.push(key),
                (ClassKey::V6(key), None) => gone6.push(key),
            }
        }
        // What comes is before what goes, and no address is of both families.
        self.classes4.set_all(&come4).in_table("classes4")?;
        self.classes6.set_all(&come6).in_table("classes6")?;
        self.classes4.remove_all(&gone4).in_table("classes4")?;
        self.classes6.remove_all(&gone6).in_table("classes6")
    }

    /// Writes more rules of policies in use: those of the classes that stand for names.
    pub fn write_rules(&self, rules: &[RuleEntry]) -> Result<(), TableError> {
        let mut lines: Vec<_> = rules.iter().map(rule_line).collect();
        lines.sort_unstable();
        self.rules.set_all(&lines).in_table("rules")
    }

    /// Takes rules out, for when no packet can be on its way to them.
    pub fn remove_rules(&self, rules: &[RuleEntry]) -> Result<(), TableError> {
        let mut keys: Vec<_> = rules.iter().map(|rule| rule_line(rule).0).collect();
        keys.sort_unstable();
        self.rules.remove_all(&keys).in_table("rules")
    }

    /// Takes out what names are in policies that are gone.
    pub fn remove_name_classes(&self, gone: &[(PolicyId, NameId)]) -> Result<(), TableError> {
        let keys: Vec<_> =
            gone.iter().map(|(policy, name)| l::NameClassKey { policy: policy.0, name: name.0 }).collect();
        self.name_classes.remove_all(&keys).in_table("name_classes")
    }

    /// Every prefix that is there, of whatever view. Walks the tables, which takes longer than to fill them: for after a
    /// restart, before anything is written.
    pub fn former(&self) -> Result<Former, TableError> {
        Ok(Former {
            v4: self.classes4.dump().in_table("classes4")?.into_iter().map(|(key, _)| key).collect(),
            v6: self.classes6.dump().in_table("classes6")?.into_iter().map(|(key, _)| key).collect(),
        })
    }

    /// Removes what was there before, and every policy but these.
    pub fn retire_former(&self, former: &Former, policies: &BTreeSet<PolicyId>) -> Result<(), TableError> {
        self.classes4.remove_all(&former.v4).in_table("classes4")?;
        self.classes6.remove_all(&former.v6).in_table("classes6")?;
        self.remove_policies(|policy| !policies.contains(&policy))
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

enum ClassKey {
    V4(l::Class4Key),
    V6(l::Class6Key),
}

fn class_key(write: &PrefixWrite) -> ClassKey {
    let (generation, prefix_length) = (write.view, NUMBER_BITS + u32::from(write.network.prefix()));
    match write.network.network() {
        IpAddr::V4(ip) => ClassKey::V4(l::Class4Key { prefix_length, generation, address: ip.octets() }),
        IpAddr::V6(ip) => ClassKey::V6(l::Class6Key { prefix_length, generation, address: ip.octets() }),
    }
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
    let verify = if rule.verify { RULE_VERIFY } else { 0 };
    let shown = if rule.shown { RULE_SHOWN } else { 0 };
    let audit = rule.audit.map_or(0, |audit| audit.rule.0);
    (
        key,
        l::Rule {
            action: rule.action as u8,
            flags: admin | names | above | verify | shown,
            pad: [0; 2],
            rule: rule.rule.0,
            audit,
        },
    )
}
