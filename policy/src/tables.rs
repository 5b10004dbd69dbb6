//! What a policy becomes for the kernel: prefixes to classes, and (policy, class, protocol, port) to a rule.
//!
//! Every table here is resolved in advance: the longest match is the whole answer, and the packet path never
//! compares two rules. A change is two [`Step`]s: what the next policies need is added, and, once workload after workload
//! was switched to them, what nobody refers to goes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use config::resource::Kind;
use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::model::Subject;
use crate::tiers::Tier;

/// A compiled policy. Never used again for other rules, so that a half-written change can open nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PolicyId(pub u32);

/// What a workload's entry has of policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PolicyRef {
    /// The number of the view whose prefixes its addresses are looked up in.
    pub generation: u32,
    /// For what it sends.
    pub egress: PolicyId,
    /// For what is sent to it.
    pub ingress: PolicyId,
    /// Whether its whole network may reach it: `workloadTraffic: Open`, and no NetworkPolicy isolates it.
    pub open: bool,
    /// Whether the node itself may open connections to it.
    pub probes: bool,
}

/// The set of rules that an address (or a name) belongs to. 0 is "in none of them".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClassId(pub u32);

impl ClassId {
    /// The class of an address that no prefix covers.
    pub const ANY: Self = Self(0);
}

/// One rule, stable over recompilations and restarts: derived from its name, see [`RuleName`]. 0 is "no rule".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RuleId(pub u32);

impl RuleId {
    /// The default of a namespace decided, not a rule.
    pub const DEFAULT: Self = Self(0);
}

/// A learned DNS name's number in the kernel's tables. 0 is "no name".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NameId(pub u32);

/// Where a rule stands: `shop/shop-egress allow[2]`, `base deny[0]` of the admin tier, `shop/tried isolation`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RuleName {
    /// Kind of the policy.
    pub kind: Kind,
    /// Its namespace; `None` of the admin tier's.
    pub namespace: Option<String>,
    /// Name of the policy.
    pub policy: String,
    /// The list of the policy that it stands in.
    pub list: RuleList,
    /// Position in that list, from 0.
    pub index: u32,
}

/// The list of a policy that a rule stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuleList {
    /// `spec.deny`
    Deny,
    /// `spec.allow`
    Allow,
    /// `spec.pass`
    Pass,
    /// `spec.ingress` of a `NetworkPolicy`
    Ingress,
    /// `spec.egress` of a `NetworkPolicy`
    Egress,
    /// No list: the isolation that an audited policy would cause.
    Isolation,
}

impl RuleName {
    /// The tier of its policy.
    pub const fn tier(&self) -> Tier {
        if self.namespace.is_none() { Tier::Admin } else { Tier::Namespace }
    }

    /// With its kind: `egresspolicy/shop/shop-egress allow[2]`, `clusteregresspolicy/base deny[0]`.
    pub fn qualified(&self) -> String {
        format!("{}/{self}", self.kind.singular())
    }
}

impl fmt::Display for RuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        match self.list {
            RuleList::Isolation => write!(f, "{} {}", self.policy, self.list),
            list => write!(f, "{} {list}[{}]", self.policy, self.index),
        }
    }
}

impl fmt::Display for RuleList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Deny => "deny",
            Self::Allow => "allow",
            Self::Pass => "pass",
            Self::Ingress => "ingress",
            Self::Egress => "egress",
            Self::Isolation => "isolation",
        })
    }
}

/// What the port lookup answers. The numbers are the kernel's (`gateway/bpf/tables.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Action {
    /// No rule speaks: names are asked next, then the default denies.
    Undecided = 0,
    /// Allowed.
    Allow = 1,
    /// Denied; no name opens it.
    Deny = 2,
}

/// Which learned names are asked before the answer for an address holds. The numbers are the kernel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum NamesFirst {
    /// None; but where the action is [`Action::Undecided`], every name is asked.
    None = 0,
    /// Those that a rule of the admin tier allows.
    Admin = 1,
    /// Every name: none of them is known where only an audited policy isolates.
    All = 2,
}

/// A deny, or an isolation, that is recorded and not applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Audit {
    /// The rule that would deny.
    pub rule: RuleId,
    /// Its tier. One of the admin tier stands above every name, one of the namespace below the admin tier's; the
    /// isolation, which has [`NamesFirst::All`], below all.
    pub tier: Tier,
}

/// A prefix of the port space: the upper `length` bits (0–16) of `port` count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortPrefix {
    /// First port of the block, host byte order.
    pub port: u16,
    /// Bits that count, 0 to 16.
    pub length: u8,
}

/// One line of the rule trie. `protocol: None` covers every protocol (and then `ports` is the whole space).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleEntry {
    /// The compiled policy.
    pub policy: PolicyId,
    /// The class of the far address or name.
    pub class: ClassId,
    /// IP protocol number (6, 17, …), or all.
    pub protocol: Option<u8>,
    /// Destination ports.
    pub ports: PortPrefix,
    /// The answer.
    pub action: Action,
    /// Who gave it.
    pub rule: RuleId,
    /// The tier of that rule; the default is the namespace's.
    pub tier: Tier,
    /// What comes before it.
    pub names: NamesFirst,
    /// What would deny where this lets pass.
    pub audit: Option<Audit>,
    /// What this lets pass waits until its handshake was judged: a deny by name covers the port or, in the class of a
    /// name, only rules that verify it allow it.
    pub verify: bool,
    /// In the class of a name: once a handshake was read, this speaks of the name that it shows, and of no other.
    pub shown: bool,
}

/// What the kernel is to be told in one half of a change. The lines come first, then the prefixes one by one in their
/// order; then, in the first half, workloads are switched. The dead lines go when no packet can be on its way to them.
#[derive(Clone, Debug, Default)]
pub struct Step {
    /// To be written; none of them is under a (policy, class) that is in the tables already.
    pub lines: Vec<RuleEntry>,
    /// In an order in which each address has its old or its new class after each write.
    pub prefixes: Vec<PrefixWrite>,
    /// Lines of classes and policies that nothing mentions any more.
    pub dead: Vec<RuleEntry>,
    /// Policies that are gone, with all that the tables have of them.
    pub gone: BTreeSet<PolicyId>,
    /// Policies whose groups have another content: open flows under them are to be decided again.
    pub touched: BTreeSet<PolicyId>,
    /// Subjects that have other policies now, apart from one that just came.
    pub moved: BTreeSet<Subject>,
}

/// One write into a view's prefixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixWrite {
    /// The view.
    pub view: u32,
    /// The prefix.
    pub network: IpNetwork,
    /// Its class from now on; `None` takes it out.
    pub class: Option<ClassId>,
}

/// Everything that the kernel has of one state of all policies, apart from what is learned by DNS.
#[derive(Clone, Debug, Default)]
pub struct Generation {
    /// The view of all networks that this node routes.
    pub number: u32,
    /// Its prefixes and their classes, each prefix once; a covering prefix is already folded into these.
    pub prefixes: Vec<(IpNetwork, ClassId)>,
    /// The same for networks whose addresses may mean other workloads than elsewhere; the classes are the same.
    pub views: Vec<View>,
    /// The rule trie's lines of all policies.
    pub rules: Vec<RuleEntry>,
    /// Names of the rules that `rules` mentions, or that a learned name may bring in, for events and `explain`.
    pub rule_names: BTreeMap<RuleId, RuleName>,
}

/// The prefixes of one network, under a number of its own.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// That of the view.
    pub number: u32,
    /// As [`Generation::prefixes`].
    pub prefixes: Vec<(IpNetwork, ClassId)>,
}

impl Generation {
    /// Every number with its prefixes.
    pub fn tries(&self) -> impl Iterator<Item = (u32, &[(IpNetwork, ClassId)])> {
        let views = self.views.iter().map(|view| (view.number, view.prefixes.as_slice()));
        std::iter::once((self.number, self.prefixes.as_slice())).chain(views)
    }
}
