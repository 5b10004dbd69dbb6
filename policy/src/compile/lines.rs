//! The rules of one (policy, class) to lines of the port trie.
//!
//! The port space of each protocol is cut where a rule begins or ends. In each piece the admin tier wins over the
//! namespace's, a deny over every allow of its tier, an allow that verifies nothing over one that does, and the first-listed
//! rule of the winning kind is named. What a deny by name of the winning tier, or of the one above, reads handshakes of is
//! verified as well. Equal pieces are joined, and cut again into prefixes; what the line without protocol already answers is
//! left out.

use std::collections::BTreeMap;
use std::sync::Arc;

use config::resource::{DeniedNames, HTTPS, NameRule, Ports, Protocol};

use crate::tables::{Action, Audit, ClassId, NamesFirst, PolicyId, PortPrefix, RuleEntry, RuleId};
use crate::tiers::Tier;

/// What one rule says of ports.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line<'a> {
    pub(super) action: Action,
    pub(super) tier: Tier,
    /// A deny that is recorded and not applied.
    pub(super) audited: bool,
    /// Its place among all rules; the lower is named.
    pub(super) order: u32,
    pub(super) rule: RuleId,
    pub(super) ports: &'a Ports,
    /// Where it allows names: which of its ports it verifies.
    pub(super) verifies: Option<&'a NameRule>,
}

/// What a policy answers beside its rules by address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// Where none of them speaks.
    pub(super) otherwise: Action,
    /// A rule of the admin tier allows names: such a name comes before all that the namespace says.
    pub(super) admin_names: bool,
    /// Nothing isolates but audited policies: the first of them.
    pub(super) isolation: Option<RuleId>,
    /// The denies by name that read handshakes, audited or not: one for each tier and list of ports.
    pub(super) reads: Vec<(Tier, Arc<DeniedNames>)>,
    /// What the namespace's rules allow by name is verified: not where it passes without them, because only audited
    /// policies isolate.
    pub(super) verifies: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Answer {
    action: Action,
    rule: RuleId,
    tier: Tier,
    names: NamesFirst,
    audit: Option<Audit>,
    verify: bool,
    shown: bool,
}

/// A port of a protocol, or what stands for all protocols that have no answer of their own.
#[derive(Clone, Copy)]
enum At {
    Elsewhere,
    Port(Protocol, u16),
}

const ALL_PORTS: PortPrefix = PortPrefix { port: 0, length: 0 };
const PORTS: u32 = 1 << 16;

/// The lines of a class, complete: the one without protocol is always there.
pub(super) fn lines(policy: PolicyId, class: ClassId, rules: &[Line<'_>], standing: &Standing) -> Vec<RuleEntry> {
    let mut by_rank: Vec<&Line<'_>> = rules.iter().collect();
    by_rank.sort_by_key(|line| rank(line));
    let everywhere = by_rank.iter().copied().filter(|line| matches!(line.ports, Ports::All));
    let any = standing.answer(everywhere, At::Elsewhere);
    let entry = |protocol, ports, Answer { action, rule, tier, names, audit, verify, shown }| RuleEntry {
        policy,
        class,
        protocol,
        ports,
        action,
        rule,
        tier,
        names,
        audit,
        verify,
        shown,
    };
    let mut entries = vec![entry(None, ALL_PORTS, any)];
    for protocol in Protocol::WITH_ICMP {
        let pieces = pieces(protocol, &by_rank, standing);
        let blocks = fewest(&pieces, any);
        entries.extend(blocks.into_iter().map(|(ports, answer)| entry(Some(protocol.number()), ports, answer)));
    }
    entries
}

/// The lines of [`ClassId::ANY`]; undecided ones say nothing and are not written.
pub(super) fn default_lines(policy: PolicyId, standing: &Standing) -> Vec<RuleEntry> {
    match standing.otherwise {
        Action::Undecided => Vec::new(),
        Action::Allow | Action::Deny => lines(policy, ClassId::ANY, &[], standing),
    }
}

/// Nothing, where the lines answer only what [`ClassId::ANY`] answers anyway.
pub(super) fn unless_default(lines: Vec<RuleEntry>, default: &[RuleEntry]) -> Vec<RuleEntry> {
    let silent = |line: &RuleEntry| {
        (line.action, line.rule, line.audit) == (Action::Undecided, RuleId::DEFAULT, None) && line.protocol.is_none()
    };
    let alike = lines.len() == default.len()
        && lines.iter().zip(default).all(|(line, default)| RuleEntry { class: default.class, ..*line } == *default);
    match lines.as_slice() {
        [only] if default.is_empty() && silent(only) => Vec::new(),
        _ if alike => Vec::new(),
        _ => lines,
    }
}

impl Standing {
    /// The same for its classes of names.
    pub(super) fn of_names(&self) -> Self {
        Self { otherwise: Action::Undecided, admin_names: false, isolation: None, ..self.clone() }
    }

    fn audit(&self) -> Option<Audit> {
        self.isolation.map(|rule| Audit { rule, tier: Tier::Namespace })
    }

    /// Whether a deny by name, of the tier or of one above it, compares names of handshakes there.
    fn reads(&self, tier: Tier, at: At) -> bool {
        match at {
            At::Elsewhere => false,
            At::Port(protocol, port) => {
                self.reads.iter().any(|(own, rule)| *own <= tier && rule.reads(protocol.number(), port))
            }
        }
    }

    /// The answer where these rules speak, by rank.
    fn answer<'l, 'a: 'l>(&self, speaking: impl Iterator<Item = &'l Line<'a>> + Clone, at: At) -> Answer {
        let strict = speaking.clone().next();
        let applied = speaking.clone().find(|line| !line.audited).map(|first| {
            let unverified =
                |line: &&Line<'_>| line.tier == first.tier && line.action == Action::Allow && !line.is_verified(at);
            let verified = first.action == Action::Allow && first.is_verified(at);
            let other = if verified { speaking.clone().find(unverified) } else { None };
            other.unwrap_or(first)
        });
        let (action, rule, tier) = match applied {
            Some(line) => (line.action, line.rule, line.tier),
            None => (self.otherwise, RuleId::DEFAULT, Tier::Namespace),
        };
        let denying = strict.filter(|line| line.audited).map(|line| Audit { rule: line.rule, tier: line.tier });
        let isolation = if strict.is_none() { self.audit() } else { None };
        let above = denying.is_some_and(|audit| audit.tier == Tier::Admin);
        let names = match action {
            // Every name is asked anyway.
            Action::Undecided => NamesFirst::None,
            Action::Allow | Action::Deny if tier == Tier::Admin => NamesFirst::None,
            Action::Allow if isolation.is_some() => NamesFirst::All,
            Action::Allow | Action::Deny if self.admin_names => NamesFirst::Admin,
            Action::Allow | Action::Deny => NamesFirst::None,
        };
        // Where it is denied, only a name that comes first lets it pass, and only the admin tier stands above that.
        let recorded = action != Action::Deny || (above && names == NamesFirst::Admin);
        let audit = denying.or(isolation).filter(|_| recorded);
        let shown = action == Action::Allow && applied.is_some_and(|line| line.is_verified(at));
        let waits = shown && (tier == Tier::Admin || self.verifies);
        let verify = action == Action::Allow && (waits || self.reads(tier, at));
        Answer { action, rule, tier, names, audit, verify, shown }
    }
}

impl Line<'_> {
    fn is_verified(&self, at: At) -> bool {
        match at {
            At::Elsewhere => false,
            At::Port(protocol, port) => self.verifies.is_some_and(|rule| rule.verifies(protocol.number(), port)),
        }
    }
}

/// Tier by tier, in each denies before allows, then by order.
fn rank(line: &Line<'_>) -> (Tier, bool, u32) {
    (line.tier, line.action != Action::Deny, line.order)
}

/// The answers of a protocol's ports: (first port, answer), ascending from port 0, neighbours different.
fn pieces(protocol: Protocol, by_rank: &[&Line<'_>], standing: &Standing) -> Vec<(u32, Answer)> {
    let mut edges: BTreeMap<u32, Vec<(bool, usize)>> = BTreeMap::from([(0, Vec::new())]);
    let mut put = |first: u32, behind: u32, rule: usize| {
        edges.entry(first).or_default().push((true, rule));
        edges.entry(behind).or_default().push((false, rule));
    };
    for (rule, line) in by_rank.iter().enumerate() {
        match line.ports {
            Ports::All => put(0, PORTS, rule),
            Ports::Some(ranges) => {
                for range in ranges.iter().filter(|range| range.protocol == protocol && range.first <= range.last) {
                    put(u32::from(range.first), u32::from(range.last) + 1, rule);
                }
            }
        }
    }
    let read = standing.reads.iter().map(|(_, rule)| &rule.ports);
    let verified = by_rank.iter().filter(|line| line.verifies.is_some()).map(|_| &Ports::All);
    for ports in read.chain(verified) {
        for cut in cuts(protocol, ports) {
            edges.entry(cut).or_default();
        }
    }
    edges.remove(&PORTS);

    let mut open: BTreeMap<usize, usize> = BTreeMap::new();
    let mut pieces: Vec<(u32, Answer)> = Vec::new();
    for (port, events) in edges {
        let (begins, ends): (Vec<_>, Vec<_>) = events.into_iter().partition(|(begins, _)| *begins);
        for (_, rule) in begins {
            *open.entry(rule).or_default() += 1;
        }
        for (_, rule) in ends {
            match open.get_mut(&rule) {
                Some(count) if *count > 1 => *count -= 1,
                Some(_) | None => drop(open.remove(&rule)),
            }
        }
        let answer = standing.answer(open.keys().map(|&rule| by_rank[rule]), At::Port(protocol, port as u16));
        if pieces.last().is_none_or(|(_, last)| *last != answer) {
            pieces.push((port, answer));
        }
    }
    pieces
}

/// Where reading of handshakes may begin or end: without ports around [`HTTPS`].
fn cuts(protocol: Protocol, ports: &Ports) -> Vec<u32> {
    match ports {
        Ports::All => vec![u32::from(HTTPS), u32::from(HTTPS) + 1],
        Ports::Some(ranges) => {
            let own = ranges.iter().filter(|range| range.protocol == protocol);
            own.flat_map(|range| [u32::from(range.first), u32::from(range.last) + 1]).collect()
        }
    }
}

/// The blocks of a protocol: either only those that differ from the line without protocol, or the answer of most ports
/// for all of them and the rest beside it, whichever is fewer. So ports 1–65535 are two lines and not sixteen.
fn fewest(pieces: &[(u32, Answer)], any: Answer) -> Vec<(PortPrefix, Answer)> {
    let mut over_any = Vec::new();
    prefixes(pieces, 0, 0, any, &mut over_any);
    let ends = pieces.iter().skip(1).map(|(port, _)| *port).chain([PORTS]);
    let mut widths: BTreeMap<Answer, u32> = BTreeMap::new();
    for ((first, answer), end) in pieces.iter().zip(ends) {
        *widths.entry(*answer).or_default() += end - first;
    }
    let Some((most, _)) = widths.into_iter().max_by_key(|(_, width)| *width) else { return over_any };
    let mut over_most = vec![(ALL_PORTS, most)];
    prefixes(pieces, 0, 0, most, &mut over_most);
    if over_most.len() < over_any.len() { over_most } else { over_any }
}

/// The widest prefixes that answer something else than `inherited`, within the block at `first` of `length` bits.
fn prefixes(
    pieces: &[(u32, Answer)],
    first: u32,
    length: u8,
    inherited: Answer,
    blocks: &mut Vec<(PortPrefix, Answer)>,
) {
    let Some((own, rest)) = pieces.split_first() else { return };
    let behind = first + (PORTS >> length);
    if rest.first().is_none_or(|(port, _)| *port >= behind) {
        if own.1 != inherited {
            blocks.push((PortPrefix { port: first as u16, length }, own.1));
        }
        return;
    }
    let middle = first + (PORTS >> (length + 1));
    let upper = pieces.partition_point(|(port, _)| *port <= middle) - 1;
    prefixes(pieces, first, length + 1, inherited, blocks);
    prefixes(&pieces[upper..], middle, length + 1, inherited, blocks);
}
