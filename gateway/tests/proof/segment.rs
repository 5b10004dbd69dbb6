//! The segment's own control, line 4 of both lists: ARP (RFC 826), neighbour discovery (RFC 4861), listeners (RFC 3810),
//! DHCP (RFC 2131, 8415), and who may not speak there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use gateway::workload::Mac;
use policy::reason::Reason;

use crate::reading::{Icmp, Meaning, Packet, number};
use crate::reference::{Member, is_edge_address, is_on_link};

const SOLICIT_ROUTER: u8 = 133;
const ADVERTISE_ROUTER: u8 = 134;
const SOLICIT: u8 = 135;
const ADVERTISE: u8 = 136;

struct Arp {
    asks: bool,
    sender_mac: Mac,
    sender: Ipv4Addr,
    target: Ipv4Addr,
}

fn read_arp(message: &[u8]) -> Result<Arp, Reason> {
    let m = message.first_chunk::<28>().ok_or(Reason::Malformed)?;
    if m[..6] != [0, 1, 8, 0, 6, 4] {
        return Err(Reason::Malformed);
    }
    let asks = match number(m, 6) {
        1 => true,
        2 => false,
        _ => return Err(Reason::Unsupported),
    };
    let sender_mac = Mac([m[8], m[9], m[10], m[11], m[12], m[13]]);
    let (sender, target) = (Ipv4Addr::new(m[14], m[15], m[16], m[17]), Ipv4Addr::new(m[24], m[25], m[26], m[27]));
    Ok(Arp { asks, sender_mac, sender, target })
}

/// A probe has no sender (RFC 5227).
pub(crate) fn arp_from(message: &[u8], own: &Member, answered: &mut bool) -> Reason {
    let arp = match read_arp(message) {
        Ok(arp) => arp,
        Err(reason) => return reason,
    };
    if arp.sender_mac != own.mac {
        return Reason::SpoofedMac;
    }
    let probe = arp.asks && arp.sender.is_unspecified();
    if !probe && !own.has(arp.sender.into()) {
        return Reason::SpoofedAddress;
    }
    *answered = arp.asks && own.external && is_edge_address(arp.target.into());
    Reason::SegmentControl
}

pub(crate) fn arp_to(message: &[u8], own: &Member) -> Reason {
    match read_arp(message) {
        Err(reason) => reason,
        Ok(arp) if own.has(arp.sender.into()) => Reason::SpoofedAddress,
        Ok(_) => Reason::SegmentControl,
    }
}

pub(crate) fn may_have_no_source(packet: &Packet<'_>) -> bool {
    match packet.icmp() {
        Some(icmp) if packet.source.is_ipv6() => match icmp.meaning {
            Meaning::Listeners => true,
            Meaning::Discovery => matches!(icmp.kind, SOLICIT_ROUTER | SOLICIT),
            _ => false,
        },
        _ => packet.source.is_ipv4() && is_dhcp_clients(packet),
    }
}

fn on_the_link(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

fn group_of_the_link(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(ip) if ip.segments()[0] == 0xff02)
}

pub(crate) fn is_dhcp_clients(packet: &Packet<'_>) -> bool {
    match (packet.udp(), packet.destination) {
        (Some((68, 67)), IpAddr::V4(to)) => to.is_broadcast(),
        (Some((546, 547)), IpAddr::V6(_)) => group_of_the_link(packet.destination) && on_the_link(packet.source),
        _ => false,
    }
}

/// What a server sends, or claims to.
pub(crate) fn is_dhcp_servers(packet: &Packet<'_>) -> bool {
    let (server, client) = if packet.source.is_ipv4() { (67, 68) } else { (547, 546) };
    packet.udp().is_some_and(|(from, to)| from == server || to == client)
}

/// From a server's port to a client's: nothing else of a server is for a workload.
pub(crate) fn is_for_dhcp_client(packet: &Packet<'_>) -> bool {
    packet.udp() == Some(if packet.source.is_ipv4() { (67, 68) } else { (547, 546) })
}

pub(crate) fn listeners_from(packet: &Packet<'_>, icmp: Icmp<'_>) -> Reason {
    if icmp.kind == 130 {
        return Reason::RogueServer;
    }
    let source = on_the_link(packet.source) || packet.source.is_unspecified();
    if packet.hops == 1 && group_of_the_link(packet.destination) && source {
        Reason::SegmentControl
    } else {
        Reason::Malformed
    }
}

pub(crate) fn listeners_to(packet: &Packet<'_>, icmp: Icmp<'_>) -> Reason {
    if icmp.kind == 130 && packet.hops == 1 { Reason::SegmentControl } else { Reason::Multicast }
}

/// Hop limit 255 proves that no router was on the way.
fn is_discovery(packet: &Packet<'_>, icmp: Icmp<'_>) -> bool {
    let has_target = matches!(icmp.kind, SOLICIT | ADVERTISE);
    packet.hops == 255 && icmp.code == 0 && (!has_target || icmp.message.len() >= 24)
}

fn target(icmp: Icmp<'_>) -> Option<IpAddr> {
    matches!(icmp.kind, SOLICIT | ADVERTISE)
        .then(|| IpAddr::from(Ipv6Addr::from(*icmp.message[8..].first_chunk::<16>().unwrap())))
}

/// Type, length in eights, value: at most eight of them. A link-layer address in one is `own`, if that is given.
fn check_options(mut rest: &[u8], own: Option<Mac>) -> Result<(), Reason> {
    for _ in 0..8 {
        if rest.is_empty() {
            return Ok(());
        }
        let size = rest.get(1).map_or(0, |eights| usize::from(*eights) * 8);
        if size == 0 || size > rest.len() {
            return Err(Reason::Malformed);
        }
        if matches!(rest[0], 1 | 2) {
            if size != 8 {
                return Err(Reason::Malformed);
            }
            if own.is_some_and(|mac| rest[2..8] != mac.0) {
                return Err(Reason::SpoofedMac);
            }
        }
        rest = &rest[size..];
    }
    if rest.is_empty() { Ok(()) } else { Err(Reason::Malformed) }
}

pub(crate) fn discovery_from(packet: &Packet<'_>, icmp: Icmp<'_>, own: &Member, answered: &mut bool) -> Reason {
    if !is_discovery(packet, icmp) {
        return Reason::Malformed;
    }
    if icmp.kind == ADVERTISE_ROUTER {
        return Reason::RogueServer;
    }
    let (to, dad) = (packet.destination, packet.source.is_unspecified());
    if dad && !group_of_the_link(to) {
        return Reason::Malformed;
    }
    let stays = group_of_the_link(to) || on_the_link(to) || on_the_link(packet.source) || is_on_link(own.network, to);
    if !stays {
        return Reason::Unsupported;
    }
    if let Some(target) = target(icmp) {
        let advertises = icmp.kind == ADVERTISE;
        if advertises && icmp.message[4] & 0x80 != 0 {
            return Reason::RogueServer;
        }
        *answered = !advertises && own.external && is_edge_address(target);
        if (advertises || dad) && !*answered && !own.has(target) {
            return Reason::SpoofedAddress;
        }
    }
    let options = if target(icmp).is_some() { 24 } else { 8 };
    match check_options(&icmp.message[options..], Some(own.mac)) {
        Ok(()) => Reason::SegmentControl,
        Err(reason) => {
            *answered = false;
            reason
        }
    }
}

pub(crate) fn discovery_to(packet: &Packet<'_>, icmp: Icmp<'_>, own: &Member, router_side: bool) -> Reason {
    if !is_discovery(packet, icmp) {
        return Reason::Malformed;
    }
    match icmp.kind {
        ADVERTISE_ROUTER if !(router_side && on_the_link(packet.source)) => return Reason::RogueServer,
        SOLICIT_ROUTER => return Reason::Multicast, // a workload is no router
        _ => {}
    }
    // as with ARP: someone else's claim to an address of this workload would only break it
    let claims = target(icmp).filter(|_| icmp.kind == ADVERTISE || packet.source.is_unspecified());
    if own.has(packet.source) || claims.is_some_and(|claimed| own.has(claimed)) {
        return Reason::SpoofedAddress;
    }
    let options = if icmp.kind == ADVERTISE_ROUTER { 16 } else { 24 };
    match icmp.message.get(options..).map(|rest| check_options(rest, None)) {
        Some(Ok(())) => Reason::SegmentControl,
        Some(Err(reason)) => reason,
        None => Reason::Malformed,
    }
}
