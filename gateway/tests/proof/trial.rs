//! One scenario through both, step by step.

use std::collections::BTreeMap;
use std::net::IpAddr;

use gateway::egress::attach::Program;
use policy::reason::Reason;

use crate::flows::{Ends, Told};
use crate::held::{self, Met};
use crate::packets::{checksum, transport_checksum};
use crate::programs::{Done, Programs, Run};
use crate::reading::{Content, Packet, TCP, UDP, read};
use crate::reference::{Action, Member, Reference, Rules};
use crate::rejection;
use crate::scenario::{Phase, Scenario, Shot, Step};

/// How often what was compared.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) reasons: BTreeMap<Reason, u64>,
    pub(crate) met: BTreeMap<Met, u64>,
}

pub(crate) enum Outcome {
    Agreed(Seen),
    Differs(String),
    /// To be tried again.
    Disturbed,
}

impl Seen {
    pub(crate) fn add(&mut self, more: Self) {
        more.reasons.into_iter().for_each(|(reason, count)| *self.reasons.entry(reason).or_default() += count);
        more.met.into_iter().for_each(|(met, count)| *self.met.entry(met).or_default() += count);
    }
}

pub(crate) fn try_scenario(programs: &mut Programs, scenario: &Scenario) -> Outcome {
    let mut run = programs.begin();
    let mut reference = Reference::default();
    let mut reasons = BTreeMap::new();
    let mut result = Ok(());
    for (phase, epoch) in scenario.phases.iter().zip(1..) {
        result = try_phase(programs, &mut run, &mut reference, phase, epoch, &mut reasons);
        if result.is_err() || run.ledger.counters().classes_dropped > 0 {
            break; // more names at one address than slots: the ledger's own tests say which
        }
    }
    let disturbed = programs.is_disturbed(&run);
    programs.end(run);
    match result {
        _ if disturbed => Outcome::Disturbed,
        Ok(()) => Outcome::Agreed(Seen { reasons, met: reference.met }),
        Err(difference) => Outcome::Differs(difference),
    }
}

fn try_phase(
    programs: &mut Programs,
    run: &mut Run,
    reference: &mut Reference,
    phase: &Phase,
    epoch: u32,
    seen: &mut BTreeMap<Reason, u64>,
) -> Result<(), String> {
    let world = phase.world();
    let members = phase.members(epoch);
    programs.install(run, phase, &world, &members);
    if run.ledger.counters().classes_dropped > 0 {
        return Ok(());
    }
    let model = world.model();
    for step in &phase.steps {
        let shot = match step {
            Step::Pause(seconds) => {
                programs.pause(run, *seconds);
                continue;
            }
            Step::Look(look) => {
                let rules =
                    Rules { model: &model, ledger: &run.ledger, members: &members, ids: &run.ids, now: run.now };
                if let Some(said) = reference.look(look, &rules) {
                    programs.settle(run, &said).map_err(|what| format!("{what}: {:?}", said.ends))?;
                }
                continue;
            }
            Step::Frame(shot) => shot,
        };
        let rules = Rules { model: &model, ledger: &run.ledger, members: &members, ids: &run.ids, now: run.now };
        let Ok((reason, action)) = reference.judge(shot, &rules) else { continue };
        let done = programs.try_shot(run, shot, reason)?;
        if (done.reason, done.action) != (reason, action) {
            let own = shot.device.workload().map(|index| &members[index]);
            return Err(format!(
                "the documents say {reason:?} ({action:?}), the program says {:?} ({:?})\n{shot:?}\n{:?}\n{own:?}",
                done.reason,
                done.action,
                read(&shot.frame)
            ));
        }
        let checked = check_frame(shot, &done, &members).and_then(|()| programs.check_head(run, shot, &done));
        checked.map_err(|what| format!("{what}\n{shot:?}\nbecame {:?}", done.frame))?;
        *seen.entry(reason).or_default() += 1;
    }
    programs.check_counts(run)?;
    let (told, wanted) = (programs.flows(run), reference.flows.told());
    if told != wanted {
        let only = |a: &BTreeMap<Ends, Told>, b: &BTreeMap<Ends, Told>| -> Vec<String> {
            a.iter().filter(|(ends, flow)| b.get(*ends) != Some(*flow)).map(|flow| format!("{flow:?}")).collect()
        };
        return Err(format!("flows differ\nkernel: {:#?}\nmodel: {:#?}", only(&told, &wanted), only(&wanted, &told)));
    }
    for index in 0..members.len() {
        let (counted, open) = (programs.counted(run, index), reference.flows.of(index));
        if counted != open {
            return Err(format!("workload {index} has {open} flows, and {counted} count against its quota"));
        }
    }
    Ok(())
}

/// A frame that passes is as it was, apart from Fast Open; one for the service namespace, or out of it, has another address, MAC and checksums
/// and is otherwise as it was.
pub(crate) fn check_frame(shot: &Shot, done: &Done, members: &[Member]) -> Result<(), String> {
    let into_service = matches!(done.reason, Reason::Dns | Reason::Edge);
    match done.action {
        Action::Drop => return Ok(()),
        Action::Reject => return rejection::check(&shot.frame, &done.frame),
        Action::Redirect if into_service => {}
        Action::Redirect if done.reason == Reason::Held => return held::check(&shot.frame, &done.frame).map(drop),
        Action::Redirect => return check_answer(&done.frame),
        Action::Pass if done.frame == held::as_it_leaves(shot, done.reason) => return Ok(()),
        Action::Pass => return Err("the frame was changed".to_owned()),
    }
    let (Ok(before), Ok(after)) = (read(&shot.frame), read(&done.frame)) else {
        return Err("the frame cannot be read any more".to_owned());
    };
    let (Content::Ip(before), Content::Ip(after)) = (before.content, after.content) else {
        return Err("no packet".to_owned());
    };
    let own = members.iter().flat_map(|member| member.own);
    let mut pairs: BTreeMap<IpAddr, IpAddr> = own.clone().collect();
    let wanted = if shot.program == Program::FromService {
        pairs = own.map(|(address, handle)| (handle, address)).collect();
        (before.source, pairs[&before.destination])
    } else {
        (pairs[&before.source], before.destination)
    };
    if (after.source, after.destination) != wanted {
        return Err(format!("addresses: {wanted:?}"));
    }
    let (mut a, mut b) = (blank(&shot.frame, &before), blank(&done.frame, &after));
    a.drain(..12);
    b.drain(..12);
    if a != b {
        return Err("more was changed than addresses and checksums".to_owned());
    }
    let (was, is) = (is_right(&shot.frame, &before), is_right(&done.frame, &after));
    if was == is { Ok(()) } else { Err(format!("checksums: {was:?} became {is:?}")) }
}

/// The frame without addresses and checksums.
fn blank(frame: &[u8], packet: &Packet<'_>) -> Vec<u8> {
    let mut frame = frame.to_vec();
    if packet.source.is_ipv4() {
        frame[24..34].fill(0);
    } else {
        frame[22..54].fill(0);
    }
    let sum = packet.at + if packet.protocol == UDP { 6 } else { 16 };
    frame[sum..sum + 2].fill(0);
    frame
}

/// Whether the IPv4 header's and the transport's checksum are right; `None` where a sender left it out.
fn is_right(frame: &[u8], packet: &Packet<'_>) -> (bool, Option<bool>) {
    let (header, end) = if packet.source.is_ipv4() {
        (checksum(&frame[14..34]) == 0, 14 + usize::from(u16::from_be_bytes([frame[16], frame[17]])))
    } else {
        (true, 54 + usize::from(u16::from_be_bytes([frame[18], frame[19]])))
    };
    let payload = &frame[packet.at..end];
    let left_out = packet.protocol == UDP && payload[6..8] == [0, 0];
    let right = transport_checksum(packet.source, packet.destination, packet.protocol, payload) == 0;
    debug_assert!(packet.protocol == UDP || packet.protocol == TCP);
    (header, (!left_out).then_some(right))
}

/// An answer for the edge's address: ARP, or an advertisement whose checksum is right.
fn check_answer(frame: &[u8]) -> Result<(), String> {
    match read(frame).map(|frame| frame.content) {
        Ok(Content::Arp(message)) if message[6..8] == [0, 2] => Ok(()),
        Ok(Content::Ip(packet)) if packet.icmp().is_some_and(|icmp| icmp.kind == 136) => {
            let sum = transport_checksum(packet.source, packet.destination, 58, &frame[packet.at..]);
            if sum == 0 { Ok(()) } else { Err("the answer's checksum is wrong".to_owned()) }
        }
        other => Err(format!("no answer: {other:?}")),
    }
}
