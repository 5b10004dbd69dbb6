//! Flows that pass only under a certain name, as the head of `hold.h` tells it: what becomes of their packets before their
//! handshake is judged and behind it, what the inspector is given of them, and what it says.

use config::names::{DnsName, DomainPattern};
use config::resource::{
    AllowRule, CidrRule, DeniedNames, DenyRule, EgressPolicy, Mode, NameRule, PortRange, Ports, Protocol, Selector,
    Verify,
};
use gateway::egress::attach::Program;
use gateway::egress::tables::hold::{HEAD, Head};
use policy::reason::Reason;
use policy::{Decision, Outbound, Query, Shown, Unshown, decide};

use crate::draw::Draw;
use crate::flows::{Ends, Passage, ends_of};
use crate::reading::{ACK, Content, FIN, Packet, RST, Reading, SYN, Transport, UDP, URG, read};
use crate::reference::{Reference, Rules, target};
use crate::scenario::Shot;
use crate::sight::Seen;
use crate::text::{dns, name};
use crate::world::{Lookup, SECOND, World, address, any_name};

/// What a flow's handshake has to do with its packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    /// Nothing.
    Never,
    /// It is to be read first.
    Awaits,
    /// It was judged, and nothing passes.
    Denied(Reason),
    /// It named this, or nobody, and passes.
    Verified(Option<DnsName>),
    /// The same, read by the program: the far end has not acknowledged it.
    Shown(DnsName, Seen),
}

/// What becomes of a packet of an open flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It passes as any packet of an open flow.
    Ordinary,
    /// That, in its direction; it is counted.
    Is(Reason),
    /// It goes to the inspector, and counts when it comes back.
    Inspected,
}

/// What became of a flow, where its handshake counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Met {
    /// It was read, and passes.
    Passes,
    /// It was read, and is denied.
    Refused,
    /// It was read, and decided again: it lives on.
    LivesOn,
    /// The same: it ends.
    Ends,
    /// The same: the name that it showed is denied.
    EndsByName,
    /// It waits, and was decided again: it waits on.
    WaitsOn,
    /// The same: it need not be read any more.
    WaitsNoMore,
    /// The same: it ends.
    WaitedInVain,
    /// It was not read, and now would have to be.
    Unread,
    /// It was read by the program.
    AtSight,
    /// The same, again.
    AtSightAgain,
    /// The far end has what the program read.
    Acknowledged,
}

impl Met {
    pub(crate) const ALL: [Self; 12] = [
        Self::Passes,
        Self::Refused,
        Self::LivesOn,
        Self::Ends,
        Self::EndsByName,
        Self::WaitsOn,
        Self::WaitsNoMore,
        Self::WaitedInVain,
        Self::Unread,
        Self::AtSight,
        Self::AtSightAgain,
        Self::Acknowledged,
    ];

    /// A flow was decided again.
    pub(crate) fn again(hold: &Hold, decision: &Decision) -> Option<Self> {
        Some(match (hold, decision.allowed, decision.holds) {
            (Hold::Verified(_) | Hold::Shown(..), true, _) => Self::LivesOn,
            (Hold::Verified(_) | Hold::Shown(..), false, _) if decision.reason == Reason::DeniedByName => {
                Self::EndsByName
            }
            (Hold::Verified(_) | Hold::Shown(..), false, _) => Self::Ends,
            (Hold::Awaits, true, true) => Self::WaitsOn,
            (Hold::Awaits, true, false) => Self::WaitsNoMore,
            (Hold::Awaits, false, _) => Self::WaitedInVain,
            (Hold::Never, true, true) => Self::Unread,
            (Hold::Never | Hold::Denied(_), ..) => return None,
        })
    }
}

/// The inspector has read one of the flows that wait.
#[derive(Clone, Debug)]
pub(crate) struct Look {
    /// Which of them: so many were opened later, if so many were.
    newer: usize,
    names: Showing,
}

#[derive(Clone, Debug)]
enum Showing {
    /// One of the names that the workload resolved to the address, by any number.
    Resolved(u64),
    Any(DnsName),
    Nothing(Unshown),
}

/// What it says.
pub(crate) struct Said {
    pub(crate) ends: Ends,
    pub(crate) decision: Decision,
    pub(crate) name: Option<DnsName>,
}

impl Hold {
    /// Of a new flow.
    pub(crate) fn of(decision: &Decision) -> Self {
        if decision.holds { Self::Awaits } else { Self::Never }
    }

    /// `first`: of a TCP flow that waits, the number at which what is read begins; `agreed`: the far end has acknowledged it.
    pub(crate) fn fate(&self, protocol: u8, passage: Passage, first: u32, agreed: bool) -> Fate {
        let Passage { out, flags, data, whole, number, .. } = passage;
        let has = |flag| flags.is_some_and(|flags| flags & flag != 0);
        let refused = Fate::Is(Reason::NotVerified);
        match self {
            Self::Verified(_) if protocol == UDP && out && !whole => refused,
            Self::Never | Self::Verified(_) => Fate::Ordinary,
            Self::Shown(..) if !out => Fate::Ordinary,
            Self::Shown(..) if !whole || has(URG) || has(SYN) && data => refused,
            Self::Shown(_, seen) if data && seen.is(passage, first) => Fate::Ordinary,
            Self::Shown(_, seen) if data && (number.wrapping_sub(seen.end) as i32) < 0 => Fate::Inspected,
            Self::Shown(..) if data => refused,
            Self::Shown(..) if has(RST) => Fate::Ordinary,
            Self::Shown(..) if has(SYN) && (has(FIN) || number.wrapping_add(1) != first) => refused,
            Self::Shown(..) if ![first, first.wrapping_sub(1)].contains(&number) => refused,
            Self::Shown(..) => Fate::Ordinary,
            Self::Denied(_) if out && whole && has(RST) && !data => Fate::Is(Reason::KnownFlow),
            Self::Denied(reason) => Fate::Is(*reason),
            Self::Awaits if !whole || has(SYN) && data || !out && data => refused,
            Self::Awaits if protocol == UDP => {
                if out {
                    Fate::Inspected
                } else {
                    Fate::Is(Reason::Held)
                }
            }
            Self::Awaits if !out && has(ACK) && number != first => refused,
            Self::Awaits if !out => Fate::Is(Reason::Held),
            Self::Awaits if has(URG) || data && !agreed => refused,
            Self::Awaits if data => Fate::Inspected,
            Self::Awaits if has(RST) => Fate::Is(Reason::Held),
            Self::Awaits if has(SYN) && (has(FIN) || number.wrapping_add(1) != first) => refused,
            Self::Awaits if ![first, first.wrapping_sub(1)].contains(&number) => refused,
            Self::Awaits => Fate::Is(Reason::Held),
        }
    }

    /// What was shown, for a flow that is decided again.
    pub(crate) fn shown(&self) -> Shown<'_> {
        match self {
            Self::Never | Self::Awaits | Self::Denied(_) => Shown::NotYet,
            Self::Verified(Some(name)) | Self::Shown(name, _) => Shown::Name(name),
            Self::Verified(None) => Shown::Nothing(Unshown::NoName),
        }
    }
}

impl Fate {
    /// The reason, where that of an ordinary packet is this.
    pub(crate) fn reason(self, ordinary: Reason) -> Reason {
        match self {
            Self::Ordinary => ordinary,
            Self::Is(reason) => reason,
            Self::Inspected => Reason::Held,
        }
    }
}

impl Look {
    pub(crate) fn draw(draw: &mut Draw) -> Self {
        let names = match draw.below(8) {
            0 | 1 => Showing::Resolved(draw.next()),
            2 | 3 => Showing::Any(any_name(draw)),
            _ => Showing::Nothing(draw.of(&[Unshown::NoName, Unshown::NotTls, Unshown::Unreadable])),
        };
        Self { newer: draw.of(&[0, 0, 0, 1, 4]), names }
    }
}

/// Rules that want names to be shown, or refuse some, and workloads that looked names up: many flows wait.
pub(crate) fn crowd(draw: &mut Draw, world: &mut World) {
    for space in ["shop", "bank"] {
        let verify = draw.of(&[None, Some(Verify::Tls), Some(Verify::Tls)]);
        let one = any_name(draw);
        let names = vec![draw.of(&[DomainPattern::Below(dns("example")), DomainPattern::Exact(one)])];
        let mut allow = vec![AllowRule::Names(NameRule { names, ports: read_ports(draw), verify })];
        if draw.one_in(2) {
            let cidrs = ["0.0.0.0/0", "::/0"].map(|all| all.parse().unwrap()).to_vec();
            allow.push(AllowRule::Cidrs(CidrRule { cidrs, sets: vec![], except: vec![], ports: read_ports(draw) }));
        }
        let deny = draw.some(2, refused);
        let (namespace, mode) = (name(space), Mode::Enforce);
        let selector = Selector { labels: Default::default(), expressions: vec![] };
        world.policies.push(EgressPolicy { namespace, name: name("shown"), selector, mode, deny, allow });
    }
    for _ in 0..16 {
        let (at, ttl) = (draw.below(200) * SECOND, 100 + draw.below(300) as u32);
        let (workload, address) = (draw.below(6) as u32, address(draw));
        world.lookups.push(Lookup { at, workload, name: any_name(draw), address, ttl });
    }
}

/// One more name is refused, by whoever says anything of names.
pub(crate) fn refuse(draw: &mut Draw, world: &mut World) {
    for policy in &mut world.policies {
        policy.deny.push(refused(draw));
    }
}

/// No policy wants to see a name any more.
pub(crate) fn look_away(world: &mut World) {
    for policy in &mut world.policies {
        policy.deny.retain(|rule| !matches!(rule, DenyRule::Names(_)));
        for rule in &mut policy.allow {
            if let AllowRule::Names(names) = rule {
                names.verify = Some(Verify::None);
            }
        }
    }
}

fn refused(draw: &mut Draw) -> DenyRule {
    DenyRule::Names(DeniedNames { names: vec![DomainPattern::Exact(any_name(draw))], ports: read_ports(draw) })
}

fn read_ports(draw: &mut Draw) -> Ports {
    let range = |protocol, first, last| PortRange { protocol, first, last };
    let both = |first, last| vec![range(Protocol::Tcp, first, last), range(Protocol::Udp, first, last)];
    draw.of(&[Ports::All, Ports::Some(both(443, 443)), Ports::Some(both(80, 8000))])
}

impl Reference {
    /// The flow is judged by what its handshake shows, and by what the workload had resolved when it was opened. `None`:
    /// none waits.
    pub(crate) fn look(&mut self, look: &Look, rules: &Rules<'_>) -> Option<Said> {
        let (ends, opened) = self.flows.awaiting(look.newer)?;
        let resolved = rules.ledger.resolved(rules.ids[ends.workload], ends.remote);
        let (name, unshown) = match &look.names {
            Showing::Resolved(_) if resolved.is_empty() => (None, Unshown::NoName),
            Showing::Resolved(number) => {
                (Some(resolved[*number as usize % resolved.len()].name.clone()), Unshown::NoName)
            }
            Showing::Any(name) => (Some(name.clone()), Unshown::NoName),
            Showing::Nothing(why) => (None, *why),
        };
        let shown = name.as_ref().map_or(Shown::Nothing(unshown), Shown::Name);
        let from = &rules.members[ends.workload].subject;
        let flow = Outbound { from, to: target(&ends), resolved: &resolved, shown, now: opened };
        let decision = decide(rules.model, &Query::From(flow));
        let name = name.filter(|_| decision.allowed);
        self.note(if decision.allowed { Met::Passes } else { Met::Refused });
        let hold = if decision.allowed { Hold::Verified(name.clone()) } else { Hold::Denied(decision.reason) };
        self.flows.judged(&ends, decision.reason, hold);
        Some(Said { ends, decision, name })
    }
}

/// Whether what passes as held is for the inspector.
pub(crate) fn is_inspected(shot: &Shot, reason: Reason) -> bool {
    let Ok(frame) = read(&shot.frame) else { return false };
    let Content::Ip(packet) = &frame.content else { return false };
    shot.program == Program::FromWorkload && reason == Reason::Held && (packet.protocol == UDP || packet.data > 0)
}

/// A frame that passes, as it leaves its program: of a SYN that is held, NOPs stand in the place of a Fast Open option
/// (RFC 7413, sections 4.1.1 and 5).
pub(crate) fn as_it_leaves(shot: &Shot, reason: Reason) -> Vec<u8> {
    let mut frame = shot.frame.clone();
    let held = shot.program == Program::FromWorkload && reason == Reason::Held;
    let Some((at, end)) = read(&shot.frame).ok().filter(|_| held).and_then(|frame| syn_options(&frame, &shot.frame))
    else {
        return frame;
    };
    let sum = at - 4..at - 2;
    let mut here = at;
    while here + 1 < end {
        let (kind, length) = (frame[here], usize::from(frame[here + 1]));
        match kind {
            0 => break,
            1 => here += 1,
            _ if length < 2 || here + length > end => break,
            34 | 254 if kind == 34 || length >= 4 && frame[here + 2..here + 4] == [0xf9, 0x89] => {
                frame[here..here + length].fill(1);
                let old = u16::from_be_bytes([frame[sum.start], frame[sum.start + 1]]);
                // RFC 1624, equation 3
                let new = !folded(u64::from(!old) + words(&complement(&shot.frame[at..end])) + words(&frame[at..end]));
                frame[sum].copy_from_slice(&new.to_be_bytes());
                break;
            }
            _ => here += length,
        }
    }
    frame
}

/// Where the options of a segment with SYN begin and end in its frame.
fn syn_options(reading: &Reading<'_>, frame: &[u8]) -> Option<(usize, usize)> {
    match &reading.content {
        Content::Ip(Packet { transport: Transport::Tcp { flags, .. }, at, .. }) if flags & SYN != 0 => {
            Some((at + 20, at + usize::from(frame[at + 12] >> 4) * 4))
        }
        Content::Ip(_) | Content::Arp(_) => None,
    }
}

fn complement(octets: &[u8]) -> Vec<u8> {
    octets.iter().map(|octet| !octet).collect()
}

fn words(octets: &[u8]) -> u64 {
    octets.chunks(2).map(|two| u64::from(two[0]) << 8 | u64::from(*two.get(1).unwrap_or(&0))).sum()
}

fn folded(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The flow of a frame of a workload.
pub(crate) fn ends(frame: &[u8], workload: usize) -> Option<Ends> {
    match read(frame).ok()?.content {
        Content::Ip(packet) => Some(ends_of(&packet, workload, true)),
        Content::Arp(_) => None,
    }
}

/// The inspector gets the frame as it was, with a head.
pub(crate) fn check(frame: &[u8], given: &[u8]) -> Result<Head, String> {
    match Head::split(given) {
        Some((head, inner)) if inner == frame && given.len() == frame.len() + HEAD => Ok(head),
        Some(_) => Err("the inspector gets another frame".to_owned()),
        None => Err("no head is in front of what the inspector gets".to_owned()),
    }
}
