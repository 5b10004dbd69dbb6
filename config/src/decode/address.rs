//! Addresses and prefixes, with the mend for the usual slips.

use std::net::{IpAddr, Ipv6Addr};

use ipnetwork::IpNetwork;

use crate::names::NameError;
use crate::wording::{quoted, wrong};

/// An address, without prefix length or zone.
pub(crate) fn address(text: &str) -> Result<IpAddr, NameError> {
    match text.parse() {
        Ok(IpAddr::V6(v6)) => match v6.to_ipv4_mapped() {
            Some(v4) => {
                Err(wrong(format!("{} is an IPv4 address in IPv6 clothes", quoted(text)), format!("write {v4}")))
            }
            None => Ok(IpAddr::V6(v6)),
        },
        Ok(v4) => Ok(v4),
        Err(_) => Err(wrong(format!("{} is not an IP address", quoted(text)), "write one as `10.0.0.1` or `fd00::1`")),
    }
}

/// A prefix with its length, host bits zero.
pub(super) fn prefix(text: &str) -> Result<IpNetwork, NameError> {
    if let Ok(address) = text.parse::<IpAddr>() {
        let mend = format!("write {address}/{} for this address alone, or the block's length", full(address));
        return Err(wrong(format!("{} has no prefix length", quoted(text)), mend));
    }
    let Ok(prefix) = text.parse::<IpNetwork>() else {
        let mend = if text.bytes().any(|b| b.is_ascii_alphabetic()) && !text.contains(':') {
            "write prefixes as `10.0.0.0/8`; names belong under `dnsNames`"
        } else {
            "write prefixes as `10.0.0.0/8` or `fd00::/8`"
        };
        return Err(wrong(format!("{} is not a prefix", quoted(text)), mend));
    };
    if prefix.ip() != prefix.network() {
        let mend = format!("write {}/{}, or {}/{}", prefix.network(), prefix.prefix(), prefix.ip(), full(prefix.ip()));
        return Err(wrong(format!("{} has bits set behind its length", quoted(text)), mend));
    }
    match prefix {
        IpNetwork::V6(v6) if v6.prefix() >= 96 && v6.network().to_ipv4_mapped().is_some() => {
            Err(wrong(format!("{} is an IPv4 prefix in IPv6 clothes", quoted(text)), "write it as IPv4"))
        }
        IpNetwork::V4(_) | IpNetwork::V6(_) => Ok(prefix),
    }
}

/// A prefix, or an address alone.
pub(crate) fn prefix_or_address(text: &str) -> Result<IpNetwork, NameError> {
    match text.parse::<IpAddr>() {
        Ok(_) => address(text).map(IpNetwork::from),
        Err(_) => prefix(text),
    }
}

/// Whether `inner` lies in `outer`, or is it.
pub(super) fn covers(outer: IpNetwork, inner: IpNetwork) -> bool {
    outer.prefix() <= inner.prefix() && outer.contains(inner.network())
}

/// Length of a single address.
pub(super) const fn full(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// Why workloads cannot have addresses of this block.
pub(super) fn unusable(subnet: IpNetwork) -> Option<&'static str> {
    let blocks: [(IpAddr, u8, &str); 9] = [
        (IpAddr::from([0, 0, 0, 0]), 8, "0.0.0.0/8 means this network"),
        (IpAddr::from([127, 0, 0, 0]), 8, "127.0.0.0/8 is loopback"),
        (IpAddr::from([169, 254, 0, 0]), 16, "169.254.0.0/16 is link-local"),
        (IpAddr::from([224, 0, 0, 0]), 4, "224.0.0.0/4 is multicast"),
        (IpAddr::from([240, 0, 0, 0]), 4, "240.0.0.0/4 is reserved"),
        (IpAddr::from(Ipv6Addr::UNSPECIFIED), 8, "::/8 is reserved"),
        (
            IpAddr::from(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)),
            10,
            "fe80::/10 is link-local, and on every interface anyway",
        ),
        (IpAddr::from(Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0)), 10, "fec0::/10 is no longer in use"),
        (IpAddr::from(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0)), 8, "ff00::/8 is multicast"),
    ];
    blocks.into_iter().find_map(|(address, length, why)| {
        let block = IpNetwork::new(address, length).ok()?;
        (covers(block, subnet) || covers(subnet, block)).then_some(why)
    })
}
