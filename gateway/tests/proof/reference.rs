//! The three lists of `tidegate.bpf.c`'s header comment, line by line and slowly: frames are read by [`crate::reading`],
//! new flows judged by `policy::decide`, open ones kept by [`crate::flows`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use gateway::egress::attach::Program;
use gateway::egress::tables::flows::Origin as Opener;
use gateway::workload::Mac;
use policy::reason::Reason;
use policy::{Decision, Inbound, Ledger, Model, Origin, Outbound, Query, Resolved, Shown, Subject, Target, decide};

use crate::flows::{Ends, Flows, Fragment, Known, Passage, Ports, Unsure, ends_of, quoted_ends};
use crate::held::{Hold, Met};
use crate::reading::{ACK, Content, FIN, ICMP, Icmp, Meaning, Packet, Piece, RST, Reading, SYN, TCP, Transport, read};
use crate::scenario::{Entrance, Shot};
use crate::sight;
use crate::{held, rejection, segment};

/// One of the node's workloads.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) subject: Subject,
    pub(crate) mac: Mac,
    /// With their handles.
    pub(crate) own: [(IpAddr, IpAddr); 3],
    pub(crate) network: usize,
    pub(crate) sealed: bool,
    pub(crate) external: bool,
    pub(crate) epoch: u32,
    pub(crate) quota: usize,
    /// `onDeny: Reject`
    pub(crate) rejects: bool,
    /// This node routes for it, so that its packets may skip the stack.
    pub(crate) routed: bool,
    /// What it sends to the world has another source.
    pub(crate) translated: bool,
}

/// What is known besides frames.
pub(crate) struct Rules<'a> {
    pub(crate) model: &'a Model<'a>,
    pub(crate) ledger: &'a Ledger,
    pub(crate) members: &'a [Member],
    /// The ledger's number of each member.
    pub(crate) ids: &'a [u32],
    /// On the clock of the model.
    pub(crate) now: u64,
}

/// What a program does with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Drop,
    Pass,
    /// Redirected: into the service namespace, out of it, to the inspector, or back as an answer.
    Redirect,
    /// Dropped, and its sender is told.
    Reject,
}

/// All that outlives a frame.
#[derive(Debug, Default)]
pub(crate) struct Reference {
    pub(crate) flows: Flows,
    /// The edge's connections.
    served: BTreeSet<Ends>,
    /// How often that happened.
    pub(crate) met: BTreeMap<Met, u64>,
}

type Verdict = Result<Reason, Unsure>;

impl Reference {
    pub(crate) fn judge(&mut self, shot: &Shot, rules: &Rules<'_>) -> Result<(Reason, Action), Unsure> {
        let mut answered = false;
        let reason = match shot.program {
            Program::FromWorkload => self.workload_sends(shot, rules, &mut answered)?,
            Program::ToWorkload => self.workload_receives(shot, rules)?,
            Program::FromService => self.service_sends(&shot.frame, rules),
            Program::FromUplink | Program::ToUplink | Program::FromTap | Program::FromTrunk => {
                unreachable!("its frames are in tests of its own")
            }
        };
        let redirected = answered
            || shot.program == Program::FromService
            || matches!(reason, Reason::Dns | Reason::Edge)
            || held::is_inspected(shot, reason);
        let action = match (reason.passes(), redirected) {
            (false, _) if rejection::is_told(shot, reason, rules.members) => Action::Reject,
            (false, _) => Action::Drop,
            (true, true) => Action::Redirect,
            (true, false) => Action::Pass,
        };
        Ok((reason, action))
    }

    fn workload_sends(&mut self, shot: &Shot, rules: &Rules<'_>, answered: &mut bool) -> Verdict {
        let Some(index) = shot.device.workload() else { return Ok(Reason::UnknownDevice) };
        let own = &rules.members[index];
        if own.sealed {
            return Ok(Reason::Sealed);
        }
        let frame = match read(&shot.frame) {
            Ok(frame) => frame,
            Err(reason) => return Ok(reason),
        };
        if frame.from != own.mac {
            return Ok(Reason::SpoofedMac);
        }
        let packet = match &frame.content {
            Content::Arp(message) => return Ok(segment::arp_from(message, own, answered)),
            Content::Ip(packet) => packet,
        };
        let reason = self.packet_from(&frame, packet, index, &shot.frame, rules, answered)?;
        self.remember(packet, index, own.epoch, reason, rules.now);
        Ok(reason)
    }

    fn packet_from(
        &mut self,
        frame: &Reading<'_>,
        packet: &Packet<'_>,
        index: usize,
        raw: &[u8],
        rules: &Rules<'_>,
        answered: &mut bool,
    ) -> Verdict {
        let own = &rules.members[index];
        let nobody = packet.source.is_unspecified() && segment::may_have_no_source(packet);
        if !own.has(packet.source) && !nobody {
            return Ok(Reason::SpoofedAddress);
        }
        if segment::is_dhcp_servers(packet) {
            return Ok(Reason::RogueServer);
        }
        if let Some(icmp) = packet.icmp() {
            match icmp.meaning {
                Meaning::Redirect => return Ok(Reason::RogueServer),
                Meaning::Discovery => return Ok(segment::discovery_from(packet, icmp, own, answered)),
                Meaning::Listeners => return Ok(segment::listeners_from(packet, icmp)),
                Meaning::Asks | Meaning::Answers | Meaning::Error | Meaning::Other => {}
            }
        }
        if segment::is_dhcp_clients(packet) {
            return Ok(Reason::SegmentControl);
        }
        if packet.is_for_many(frame.to) {
            return Ok(Reason::Multicast);
        }
        if let Some(verdict) = self.without_ports(packet, index, true, raw.len() as u64, rules) {
            return verdict;
        }
        let ends = ends_of(packet, index, true);
        let (passage, payload) = (Passage::of(packet, true, raw), sight::payload(packet, raw));
        if sight::named(payload).is_some() && rules.ledger.resolved(rules.ids[index], ends.remote).len() > sight::SLOTS
        {
            return Err(Unsure); // which of them the kernel has
        }
        let shown = self.flows.is_shown(&ends);
        if let Some(reason) = self.known(&ends, passage, rules)? {
            if shown && passage.length > 0 && reason == Reason::KnownFlow {
                self.note(Met::AtSightAgain);
            }
            let read = (reason == Reason::Held).then(|| self.at_sight(&ends, payload, passage, rules)).flatten();
            return Ok(read.unwrap_or(reason));
        }
        let whole = packet.piece == Piece::Whole;
        if is_answer(packet) {
            return Ok(Reason::Unsupported); // nobody asked
        }
        if self.served.contains(&ends) {
            return Ok(if whole { Reason::Edge } else { Reason::Unsupported });
        }
        let to = target(&ends);
        let decision = rules.sends(index, to);
        if decision.reason == Reason::Dns && !whole {
            return Ok(Reason::Unsupported);
        }
        Ok(self.open(ends, Opener::Egress, decision, passage, rules))
    }

    fn workload_receives(&mut self, shot: &Shot, rules: &Rules<'_>) -> Verdict {
        let Some(index) = shot.device.workload() else { return Ok(Reason::UnknownDevice) };
        let own = &rules.members[index];
        if own.sealed {
            return Ok(Reason::Sealed);
        }
        let frame = match read(&shot.frame) {
            Ok(frame) => frame,
            Err(reason) => return Ok(reason),
        };
        if frame.to.0[0] & 1 == 0 && frame.to != own.mac {
            return Ok(Reason::Misdirected);
        }
        let packet = match &frame.content {
            Content::Arp(message) => return Ok(segment::arp_to(message, own)),
            Content::Ip(packet) => packet,
        };
        let reason = self.packet_to(&frame, packet, index, shot, rules)?;
        self.remember(packet, index, own.epoch, reason, rules.now);
        Ok(reason)
    }

    fn packet_to(
        &mut self,
        frame: &Reading<'_>,
        packet: &Packet<'_>,
        index: usize,
        shot: &Shot,
        rules: &Rules<'_>,
    ) -> Verdict {
        let own = &rules.members[index];
        let router_side = own.external && shot.entered_by == Entrance::Segment(own.network);
        match packet.icmp() {
            Some(icmp) if icmp.meaning == Meaning::Discovery => {
                return Ok(segment::discovery_to(packet, icmp, own, router_side));
            }
            Some(icmp) if icmp.meaning == Meaning::Listeners => return Ok(segment::listeners_to(packet, icmp)),
            Some(_) | None => {}
        }
        if segment::is_dhcp_servers(packet) {
            let offered = router_side && segment::is_for_dhcp_client(packet);
            return Ok(if offered { Reason::SegmentControl } else { Reason::RogueServer });
        }
        if packet.is_for_many(frame.to) {
            return Ok(Reason::Multicast);
        }
        if !own.has(packet.destination) {
            return Ok(Reason::Misdirected);
        }
        if packet.source.is_unspecified() || own.has(packet.source) {
            return Ok(Reason::SpoofedAddress);
        }
        if packet.icmp().is_some_and(|icmp| icmp.meaning == Meaning::Redirect) {
            return Ok(Reason::RogueServer);
        }
        let bytes = shot.frame.len() as u64;
        if let Some(verdict) = self.without_ports(packet, index, false, bytes, rules) {
            return verdict;
        }
        let ends = ends_of(packet, index, false);
        let passage = Passage::of(packet, false, &shot.frame);
        let shown = self.flows.is_shown(&ends);
        if let Some(reason) = self.known(&ends, passage, rules)? {
            if shown && !self.flows.is_shown(&ends) && reason == Reason::KnownFlow {
                self.note(Met::Acknowledged);
            }
            return Ok(reason);
        }
        if is_answer(packet) {
            return Ok(Reason::Unsupported);
        }
        let opener = match shot.entered_by {
            Entrance::Node => Opener::Probe,
            Entrance::Workload(other) if rules.members[other].network == own.network => Opener::SameNetwork,
            Entrance::Segment(network) if network == own.network && is_on_link(network, packet.source) => {
                Opener::SameNetwork
            }
            Entrance::Workload(_) | Entrance::Segment(_) | Entrance::Stranger => Opener::Ingress,
        };
        let decision = rules.receives(&ends, opener);
        Ok(self.open(ends, opener, decision, passage, rules))
    }

    /// What has no ports of its own: later fragments and ICMP, apart from echoes.
    fn without_ports(
        &mut self,
        packet: &Packet<'_>,
        index: usize,
        out: bool,
        bytes: u64,
        rules: &Rules<'_>,
    ) -> Option<Verdict> {
        if let Piece::Later(id) = packet.piece {
            let epoch = rules.members[index].epoch;
            let follows = self.flows.follows_first(&fragment_of(packet, index, id), epoch, rules.now);
            return Some(follows.map(|follows| if follows { Reason::KnownFlow } else { Reason::FragmentUnknown }));
        }
        let icmp = packet.icmp()?;
        match icmp.meaning {
            Meaning::Asks | Meaning::Answers => None,
            Meaning::Error => Some(self.error(packet, icmp, index, out, bytes, rules)),
            Meaning::Other | Meaning::Discovery | Meaning::Listeners | Meaning::Redirect => {
                Some(Ok(Reason::Unsupported))
            }
        }
    }

    /// An ICMP error passes if what it quotes belongs to a flow of this workload, and it goes to who sent that.
    fn error(
        &mut self,
        packet: &Packet<'_>,
        icmp: Icmp<'_>,
        index: usize,
        out: bool,
        bytes: u64,
        rules: &Rules<'_>,
    ) -> Verdict {
        let Some(ends) = quoted_ends(packet, icmp, index, out) else { return Ok(Reason::IcmpErrorUnknown) };
        let passage = Passage::of_error(out, bytes);
        Ok(match self.known(&ends, passage, rules)? {
            Some(Reason::KnownFlow) => Reason::IcmpErrorOfFlow,
            Some(other) => other,
            None => Reason::IcmpErrorUnknown,
        })
    }

    /// Whether an open flow speaks for the packet. After a change of policy it is decided again: one by name lives as
    /// long as the policy allows the name, whatever became of the address. One that was not read, and now would be, ends.
    fn known(&mut self, ends: &Ends, passage: Passage, rules: &Rules<'_>) -> Result<Option<Reason>, Unsure> {
        let own = &rules.members[ends.workload];
        let (opener, name, hold) = match self.flows.find(ends, own.epoch, own.quota, passage, rules.now)? {
            Known::No => return Ok(None),
            Known::Current(reason) => return Ok(Some(reason)),
            Known::Old(opener, name, hold) => (opener, name, hold),
        };
        let decision = match opener {
            Opener::Egress => {
                let own = name.map(|name| Resolved { name, expires: u64::MAX });
                let known = rules.ledger.resolved(rules.ids[ends.workload], ends.remote);
                let resolved: Vec<_> = own.into_iter().chain(known).collect();
                rules.sends_by(ends.workload, target(ends), &resolved, hold.shown())
            }
            Opener::Ingress | Opener::SameNetwork | Opener::Probe => rules.receives(ends, opener),
        };
        Met::again(&hold, &decision).into_iter().for_each(|met| self.note(met));
        if !decision.allowed || decision.holds && hold != Hold::Awaits {
            self.flows.end(ends);
            return Ok(Some(Reason::Revoked));
        }
        Ok(Some(self.flows.renew(ends, own.epoch, decision, passage, rules.now)))
    }

    pub(crate) fn note(&mut self, met: Met) {
        *self.met.entry(met).or_default() += 1;
    }

    fn open(&mut self, ends: Ends, opener: Opener, decision: Decision, passage: Passage, rules: &Rules<'_>) -> Reason {
        let reason = decision.reason;
        if !decision.allowed || reason == Reason::Dns {
            return reason;
        }
        let opening = passage.flags.is_none_or(|flags| flags & (SYN | ACK | RST | FIN) == SYN);
        if decision.holds && ends.protocol == TCP && !(passage.whole && opening) {
            return Reason::NotVerified;
        }
        let own = &rules.members[ends.workload];
        if self.flows.of(ends.workload) >= own.quota {
            return Reason::QuotaFull;
        }
        self.flows.begin(ends, opener, own.epoch, decision, passage, rules.now)
    }

    fn remember(&mut self, packet: &Packet<'_>, index: usize, epoch: u32, reason: Reason, now: u64) {
        if let (Piece::First(id), true) = (packet.piece, reason.passes()) {
            self.flows.remember_first(fragment_of(packet, index, id), epoch, now);
        }
    }

    fn service_sends(&mut self, frame: &[u8], rules: &Rules<'_>) -> Reason {
        let packet = match read(frame) {
            Ok(Reading { content: Content::Ip(packet), .. }) => packet,
            Ok(Reading { content: Content::Arp(_), .. }) => return Reason::Unsupported,
            Err(reason) => return reason,
        };
        let (from, to) = match packet.transport {
            Transport::Tcp { source, destination, .. } | Transport::Udp { source, destination } => {
                (source, destination)
            }
            Transport::Sctp { .. } | Transport::Icmp(_) | Transport::Other | Transport::Headless => {
                return Reason::Unsupported;
            }
        };
        if packet.piece != Piece::Whole {
            return Reason::Unsupported;
        }
        let behind = |member: &Member| member.own.iter().find(|(_, handle)| *handle == packet.destination).copied();
        let mut found = rules.members.iter().enumerate().filter_map(|(index, m)| Some((index, m, behind(m)?.0)));
        let Some((index, member, local)) = found.next() else { return Reason::UnknownDevice };
        if member.sealed {
            return Reason::Sealed;
        }
        if from == 53 {
            return Reason::Dns;
        }
        let asked = Inbound {
            to: &member.subject,
            from: Origin::Edge,
            remote: packet.source,
            protocol: packet.protocol,
            port: to,
        };
        let decision = decide(rules.model, &Query::To(asked));
        if decision.allowed {
            let ports = Ports::Pair { local: to, remote: from };
            let (protocol, remote) = (packet.protocol, packet.source);
            self.served.insert(Ends { workload: index, protocol, local, remote, ports });
        }
        decision.reason
    }
}

impl Rules<'_> {
    /// The verdict on a new flow of a workload.
    fn sends(&self, index: usize, to: Target) -> Decision {
        let mut resolved = self.ledger.resolved(self.ids[index], to.address);
        loop {
            let decision = self.sends_by(index, to, &resolved, Shown::NotYet);
            match &decision.name {
                // the tables do not tell a name that is denied from one that nothing allows
                Some(denied) if decision.reason == Reason::DeniedByName => resolved.retain(|own| own.name != *denied),
                Some(_) | None => return decision,
            }
        }
    }

    pub(crate) fn sends_by(&self, index: usize, to: Target, resolved: &[Resolved], shown: Shown<'_>) -> Decision {
        let flow = Outbound { from: &self.members[index].subject, to, resolved, shown, now: self.now };
        decide(self.model, &Query::From(flow))
    }

    /// The verdict on a new flow to a workload.
    fn receives(&self, ends: &Ends, opener: Opener) -> Decision {
        let own = &self.members[ends.workload];
        let network = crate::scenario::network_name(own.network);
        let from = match opener {
            Opener::Probe => Origin::Node,
            Opener::SameNetwork => Origin::Segment { network: &network },
            Opener::Ingress | Opener::Egress => Origin::Outside,
        };
        let port = match ends.ports {
            Ports::Pair { local, .. } => local,
            Ports::AskedHere(_) | Ports::AskedThere(_) => echo(ends.protocol),
            Ports::None => 0,
        };
        decide(
            self.model,
            &Query::To(Inbound { to: &own.subject, from, remote: ends.remote, protocol: ends.protocol, port }),
        )
    }
}

impl Member {
    pub(crate) fn has(&self, address: IpAddr) -> bool {
        self.own.iter().any(|(own, _)| *own == address)
    }
}

/// Where a workload of an External network sees the edge.
pub(crate) fn is_edge_address(address: IpAddr) -> bool {
    address == Ipv4Addr::new(169, 254, 77, 1) || address == Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x77)
}

pub(crate) fn is_on_link(network: usize, address: IpAddr) -> bool {
    crate::scenario::subnets(network).iter().any(|subnet| subnet.contains(address))
}

fn is_answer(packet: &Packet<'_>) -> bool {
    packet.icmp().is_some_and(|icmp| icmp.meaning == Meaning::Answers)
}

/// Type and code of an echo request, where a rule has a port.
fn echo(protocol: u8) -> u16 {
    if protocol == ICMP { 8 << 8 } else { 128 << 8 }
}

pub(crate) fn target(ends: &Ends) -> Target {
    let port = match ends.ports {
        Ports::Pair { remote, .. } => remote,
        Ports::AskedHere(_) | Ports::AskedThere(_) => echo(ends.protocol),
        Ports::None => 0,
    };
    Target { address: ends.remote, protocol: ends.protocol, port }
}

fn fragment_of(packet: &Packet<'_>, workload: usize, id: u32) -> Fragment {
    let (source, destination) = (packet.source, packet.destination);
    Fragment { workload, source, destination, protocol: packet.protocol, id }
}
