//! A network's own egress address is nobody else's: before the node takes it, the uplink's segment is asked who has it, and
//! when the node has it, the segment is told, so that nobody goes on sending to a former holder.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use config::names::InterfaceName;
use tokio::time::{Instant, sleep};

use super::desired::Desired;
use super::gate::Gate;
use crate::admin::ControlError;
use crate::sys::interface;
use crate::sys::netlink::{LinkAddress, Netlink, NetlinkError};
use crate::workload::Mac;

/// How often it is asked (PROBE_NUM of RFC 5227, section 1.1): one question may be lost.
const QUESTIONS: u32 = 3;
/// How long an answer to each is waited for; to all of them, RFC 4862's RetransTimer.
const WAIT: Duration = Duration::from_millis(334);
/// Between two looks whether one is there.
const EVERY: Duration = Duration::from_millis(50);

/// Refuses a state with an egress address that is new in it and that another host answers for.
pub(super) async fn refuse_taken(gate: &Gate, before: &Desired, next: &Desired) -> Result<(), ControlError> {
    let of = |state: &Desired| -> BTreeSet<IpAddr> {
        state.resources.networks().flat_map(|network| network.snat.own().collect::<Vec<_>>()).collect()
    };
    let new: BTreeSet<IpAddr> = of(next).difference(&of(before)).copied().collect();
    let (Some(uplink), false) = (gate.uplink_device(), new.is_empty()) else { return Ok(()) };
    let taken = taken(uplink, &new).await.map_err(|error| {
        ControlError::failed(format!("nobody knows whether the egress addresses are free: {error}"), NOTHING)
    })?;
    let Some((address, mac)) = taken else { return Ok(()) };
    Err(ControlError::refused(
        format!(
            "{address} is not free: {mac} answers for it on the uplink; use another address, or take it from that host"
        ),
        NOTHING,
    ))
}

const NOTHING: &str = "nothing was changed";

/// One of these that somebody answers for on that device, and who. What the node has itself is segmentation's to judge.
async fn taken(uplink: u32, addresses: &BTreeSet<IpAddr>) -> Result<Option<(IpAddr, Mac)>, NetlinkError> {
    let netlink = Netlink::open()?;
    let link = interface::name(uplink).unwrap_or_else(|_| format!("device {uplink}"));
    let own: BTreeSet<IpAddr> = netlink.addresses().await?.iter().map(|own| own.address.ip()).collect();
    let asked: Vec<IpAddr> = addresses.difference(&own).copied().collect();
    if asked.is_empty() {
        return Ok(None);
    }
    for _ in 0..QUESTIONS {
        let found = answer(&netlink, uplink, &link, &asked).await;
        for address in &asked {
            match netlink.forget(uplink, &link, *address).await {
                Err(error) if !error.is_absent() => return Err(error),
                _ => {}
            }
        }
        if let Some(found) = found? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Asks once, and waits for an answer.
async fn answer(
    netlink: &Netlink,
    uplink: u32,
    link: &str,
    asked: &[IpAddr],
) -> Result<Option<(IpAddr, Mac)>, NetlinkError> {
    for address in asked {
        netlink.ask_for(uplink, link, *address).await?;
    }
    let until = Instant::now() + WAIT;
    while Instant::now() < until {
        sleep(EVERY).await;
        for address in asked {
            if let Some(mac) = netlink.who_answers(uplink, *address).await? {
                return Ok(Some((*address, mac)));
            }
        }
    }
    Ok(None)
}

/// Tells the uplink's segment of egress addresses that are there since the last call: an ARP announcement (RFC 5227,
/// section 2.3), an unsolicited neighbour advertisement (RFC 4861, section 7.2.6).
pub(super) async fn announce(gate: &Gate, addresses: &[LinkAddress]) {
    let ours: BTreeSet<(u32, IpAddr)> =
        addresses.iter().filter(|own| own.ours).map(|own| (own.index, own.address.ip())).collect();
    let former = std::mem::replace(&mut *gate.announced(), ours.clone());
    for (index, address) in ours.difference(&former) {
        if let Err(error) = announce_one(gate, *index, *address).await {
            tracing::warn!(%address, %error, "the uplink's neighbours were not told; a former holder's may go on until they ask");
        }
    }
}

async fn announce_one(gate: &Gate, index: u32, address: IpAddr) -> Result<(), String> {
    let name = interface::name(index).map_err(|error| error.to_string())?;
    let name = InterfaceName::try_from(name).map_err(|error| error.to_string())?;
    let link = Netlink::open().map_err(|e| e.to_string())?.link(&name).await.map_err(|e| e.to_string())?;
    // a device without Ethernet addresses has nobody to tell
    let Some(mac) = link.and_then(|link| link.mac) else { return Ok(()) };
    let frame = match address {
        IpAddr::V4(own) => arp_announcement(mac, own),
        IpAddr::V6(own) => advertisement(mac, own),
    };
    gate.enforcement.tables.send_frame(&frame, index).map_err(|error| error.to_string())
}

fn arp_announcement(mac: Mac, own: Ipv4Addr) -> Vec<u8> {
    const REQUEST: [u8; 8] = [0, 1, 8, 0, 6, 4, 0, 1];
    let own = own.octets();
    [&[0xff; 6][..], &mac.0, &[8, 6], &REQUEST, &mac.0, &own, &[0; 6], &own].concat()
}

fn advertisement(mac: Mac, own: Ipv6Addr) -> Vec<u8> {
    const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    const ROUTER_AND_OVERRIDE: u8 = 0xa0;
    const ICMPV6: u8 = 58;
    let target = own.octets();
    let message = [&[136, 0, 0, 0, ROUTER_AND_OVERRIDE, 0, 0, 0][..], &target, &[2, 1], &mac.0].concat();
    let length = u16::try_from(message.len()).unwrap_or(0).to_be_bytes();
    let pseudo = [&target[..], &ALL_NODES.octets(), &[0, 0], &length, &[0, 0, 0, ICMPV6], &message].concat();
    let header = [&[0x60, 0, 0, 0][..], &length, &[ICMPV6, 255], &target, &ALL_NODES.octets()].concat();
    let mut frame = [&[0x33, 0x33, 0, 0, 0, 1][..], &mac.0, &[0x86, 0xdd], &header, &message].concat();
    let checksum = 14 + 40 + 2;
    frame[checksum..checksum + 2].copy_from_slice(&internet_checksum(&pseudo).to_be_bytes());
    frame
}

/// RFC 1071, of an even number of octets.
pub(super) fn internet_checksum(octets: &[u8]) -> u16 {
    let words = octets.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 7]);

    #[test]
    fn an_announcement_asks_for_the_address_that_it_has() {
        let frame = arp_announcement(MAC, Ipv4Addr::new(192, 0, 2, 7));
        assert_eq!(frame.len(), 42);
        assert_eq!((&frame[28..32], &frame[38..42]), (&[192, 0, 2, 7][..], &[192, 0, 2, 7][..]));
        assert_eq!((&frame[6..12], &frame[22..28]), (&MAC.0[..], &MAC.0[..]));
    }

    #[test]
    fn an_advertisement_has_a_right_checksum() {
        let own: Ipv6Addr = "2001:db8:ffff:ffff:ffff:ffff:ffff:fff7".parse().unwrap();
        let frame = advertisement(MAC, own);
        assert_eq!(frame.len(), 14 + 40 + 32);
        let pseudo = [&frame[22..54], &[0, 0, 0, 32, 0, 0, 0, 58], &frame[54..]].concat();
        assert_eq!(internet_checksum(&pseudo), 0);
        assert_eq!(frame[21], 255);
    }
}
