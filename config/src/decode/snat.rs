//! `spec.egress.snat` of a Network: a word, an address, or one address for each family.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::address::{address, full, prefix, unusable};
use crate::document::field::Field;
use crate::document::fields::Fields;
use crate::resource::{Gateway, OwnAddresses, Snat, Subnet};
use crate::wording::{quoted, wrong};

/// `subnets` is `None` where they could not be read.
pub(super) fn read(fields: &Fields<'_>, gateway: Option<Gateway>, subnets: Option<&[Subnet]>) -> Option<Snat> {
    let default = match gateway {
        Some(Gateway::Node) | None => Snat::Masquerade,
        Some(Gateway::External) => Snat::None,
    };
    let Some(egress) = fields.optional("egress") else { return Some(default) };
    let Some(snat) = egress.fields(&["snat"], &[])?.optional("snat") else { return Some(default) };
    let chosen = match (snat.is_list(), snat.peek()) {
        (true, _) => Snat::Own(read_own(&snat, &snat.some_items("address")?, subnets)?),
        (false, Some(text)) if text.contains(['.', ':']) => {
            Snat::Own(read_own(&snat, std::slice::from_ref(&snat), subnets)?)
        }
        (false, _) => snat.choice(&[("Masquerade", Snat::Masquerade), ("None", Snat::None)])?,
    };
    if chosen.translates() && gateway == Some(Gateway::External) {
        let what = match chosen {
            Snat::Own(_) => "`snat` to an address under `gateway: External`: this node does not route for the network",
            Snat::Masquerade | Snat::None => {
                "`snat: Masquerade` under `gateway: External`: this node does not route for the network"
            }
        };
        snat.problem(what, "write `snat: None` or leave it out");
    }
    Some(chosen)
}

fn read_own(snat: &Field<'_>, items: &[Field<'_>], subnets: Option<&[Subnet]>) -> Option<OwnAddresses> {
    let mut own = OwnAddresses::default();
    let mut whole = true;
    for item in items {
        let before = match read_address(item) {
            Some(IpAddr::V4(v4)) => own.ipv4.replace(v4).is_some(),
            Some(IpAddr::V6(v6)) => own.ipv6.replace(v6).is_some(),
            None => {
                whole = false;
                false
            }
        };
        if before {
            item.problem(
                "a second address of one family",
                "keep one: a network leaves with one address of each family",
            );
            whole = false;
        }
    }
    if !whole {
        return None;
    }
    for (family, has, ipv4) in [("IPv4", own.ipv4.is_some(), true), ("IPv6", own.ipv6.is_some(), false)] {
        let Some(subnets) = subnets else { break };
        let subnet = subnets.iter().find(|subnet| subnet.cidr.is_ipv4() == ipv4);
        match (subnet, has) {
            (Some(subnet), false) => {
                let mend = format!("list an {family} address beside the other, or take the subnet out");
                snat.problem(format!("no {family} address, and {} is to leave with one", subnet.cidr), mend);
            }
            (None, true) => {
                let mend = format!("leave it out, or add an {family} subnet");
                snat.problem(format!("an {family} address, and the network has no {family} subnet"), mend);
            }
            (Some(_), true) | (None, false) => {}
        }
    }
    Some(own)
}

fn read_address(item: &Field<'_>) -> Option<IpAddr> {
    item.read(|text| {
        if let Ok(block) = prefix(text) {
            let mend = match block.prefix() == full(block.ip()) {
                true => format!("write {}", block.ip()),
                false => "write one address of it".to_owned(),
            };
            return Err(wrong(format!("{} has a prefix length", quoted(text)), mend));
        }
        let own = address(text)?;
        match unusable(IpNetwork::from(own)) {
            Some(why) => Err(wrong(format!("nothing can leave with {own}: {why}"), "use a unicast address")),
            None => Ok(own),
        }
    })
}
