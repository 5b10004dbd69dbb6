//! What both sides of the uplink have in common: what is known besides a packet, how packets are told apart, and whether a
//! frame became what it should.

use std::net::IpAddr;

use gateway::egress::attach::Program;
use policy::reason::Reason;

use super::frame::{Change, compare};
use super::nat::{Passing, Terms, Tuple, has_port_pair};
use super::scenario::HOSTS;
use super::uplink::{Route, route};
use super::{Trial, otherwise};
use crate::flows::flags_of;
use crate::frames::GATEWAY;
use crate::reading::{Content, Meaning, Packet, Reading, SCTP, TCP, Transport, UDP, meaning, number, quoted, read};
use crate::reference::{Action, Member, Rules};

/// What is known besides the packet.
pub(super) struct Expect<'a> {
    pub(super) rules: &'a Rules<'a>,
    pub(super) terms: &'a Terms,
    /// Whether packets skip the stack.
    pub(super) fast: bool,
}

/// What a workload sends or hears of by a frame that is not padding, a tag or ARP.
pub(super) fn packet_in<'r, 'f>(frame: &'r Reading<'f>) -> Option<&'r Packet<'f>> {
    match &frame.content {
        Content::Ip(packet) => Some(packet),
        Content::Arp(_) => None,
    }
}

impl Expect<'_> {
    /// The number of the network whose source this is, if that network is translated.
    pub(super) fn network(&self, source: IpAddr) -> Option<u32> {
        let member = self.member(source).map(|(_, member)| member);
        let number = match member {
            Some(member) => member.translated.then_some(member.network as u32 + 1),
            None => {
                let of = |hosts: &[&str; 2]| hosts.iter().any(|host| host.parse() == Ok(source));
                HOSTS.iter().position(of).map(|network| network as u32 + 1)
            }
        };
        number.filter(|number| self.terms.translates(*number))
    }

    pub(super) fn member(&self, address: IpAddr) -> Option<(usize, &Member)> {
        self.rules.members.iter().enumerate().find(|(_, member)| member.has(address))
    }

    /// Whether an allowed packet of a workload skips the stack.
    pub(super) fn skips(&self, frame: &Reading<'_>, packet: &Packet<'_>, own: &Member, size: usize) -> bool {
        let by_uplink = match route(packet.destination) {
            Route::Uplink(mtu) => size <= mtu,
            Route::Elsewhere => false,
        };
        own.routed
            && self.fast
            && frame.to == GATEWAY
            && !on_the_link(packet.source)
            && !on_the_link(packet.destination)
            && packet.hops > 1
            && by_uplink
    }

    pub(super) fn passing(&self, packet: &Packet<'_>) -> Passing {
        Passing { flags: flags_of(packet), noted: true, now: self.rules.now }
    }
}

pub(super) fn on_the_link(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

pub(super) fn icmp_of(packet: &Packet<'_>) -> Option<Meaning> {
    packet.icmp().map(|icmp| icmp.meaning)
}

/// Ports of a packet, and the raw id of an echo on the side that asks.
pub(super) fn ports_of(packet: &Packet<'_>) -> (u16, u16) {
    match packet.transport {
        Transport::Tcp { source, destination, .. }
        | Transport::Udp { source, destination }
        | Transport::Sctp { source, destination } => (source, destination),
        Transport::Icmp(icmp) => match icmp.meaning {
            Meaning::Asks => (number(icmp.message, 4), 0),
            Meaning::Answers => (0, number(icmp.message, 4)),
            _ => (0, 0),
        },
        Transport::Other | Transport::Headless => (0, 0),
    }
}

/// The flow of a packet that leaves.
pub(super) fn tuple_out(packet: &Packet<'_>) -> Tuple {
    let (own, far) = ports_of(packet);
    Tuple { protocol: packet.protocol, own: (packet.source, own), far: (packet.destination, far) }
}

/// What is written over a packet for an address and a port.
pub(super) fn rewritten(protocol: u8, (address, port): (IpAddr, u16)) -> Option<(IpAddr, Option<u16>)> {
    let has_port = has_port_pair(protocol) || protocol == 1 || protocol == 58;
    Some((address, has_port.then_some(port)))
}

/// Address, and port or id.
pub(super) type End = (IpAddr, u16);

/// Protocol and both ends of a packet that an ICMP error quotes: its source's, its destination's.
pub(super) fn quoted_pair(packet: &Packet<'_>) -> Option<(u8, End, End)> {
    let six = packet.source.is_ipv6();
    let quote = quoted(packet.icmp()?, six)?;
    let (first, second) = (number(&quote.head, 0), number(&quote.head, 2));
    let ports = match quote.protocol {
        TCP | UDP | SCTP => (first, second),
        same if same == packet.protocol => match meaning(quote.head[0], six) {
            Meaning::Asks => (number(&quote.head, 4), 0),
            Meaning::Answers => (0, number(&quote.head, 4)),
            _ => return None,
        },
        _ => (0, 0),
    };
    Some((quote.protocol, (quote.source, ports.0), (quote.destination, ports.1)))
}

impl Trial<'_> {
    pub(super) fn at_uplink(
        &mut self,
        program: Program,
        frame: &[u8],
        expected: Option<Reason>,
    ) -> Result<(Option<Reason>, Action, Vec<u8>), String> {
        self.uplink.try_frame(self.programs, &mut self.run, program, frame, expected)
    }

    pub(super) fn untouched(&mut self, program: Program, frame: &[u8]) -> Result<(), String> {
        let (counted, action, after) = self.at_uplink(program, frame, None)?;
        otherwise((None, Action::Pass), (counted, action))?;
        if after == frame { Ok(()) } else { Err(format!("{program:?} changed the frame to {after:?}")) }
    }

    pub(super) fn becomes(&mut self, program: Program, frame: &[u8], change: &Change) -> Result<(), String> {
        let (counted, action, after) = self.at_uplink(program, frame, None)?;
        otherwise((None, Action::Pass), (counted, action))?;
        compare(frame, &after, change)
    }
}

/// Their checksums cover the addresses, and are not ours to mend: DCCP, UDP-Lite.
pub(super) fn unsupported(protocol: u8) -> Option<Reason> {
    matches!(protocol, 33 | 136).then_some(Reason::Unsupported)
}

/// The port, or id, that a frame left with.
pub(super) fn given_port(frame: &[u8]) -> u16 {
    let Ok(reading) = read(frame) else { return 0 };
    packet_in(&reading).map_or(0, |packet| ports_of(packet).0)
}

/// IPv4's type of service, IPv6's traffic class.
pub(super) fn service_of(frame: &[u8]) -> u8 {
    if frame[14] >> 4 == 4 { frame[15] } else { frame[14] << 4 | frame[15] >> 4 }
}
