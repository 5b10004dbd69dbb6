//! What rules of policies are made of: prefixes with exceptions, names, ports.

use super::address::{covers, prefix};
use super::later::Later;
use crate::document::field::Field;
use crate::document::fields::Fields;
use crate::names::DomainPattern;
use crate::resource::{CidrRule, PortRange, Ports, Protocol};
use crate::wording::{quoted, wrong};

/// `cidrs`, `except` and `ports`.
pub(super) fn cidr_rule(fields: &Fields<'_>) -> Option<CidrRule> {
    let cidrs = fields.required("cidrs", "list the prefixes of the rule").and_then(|field| field.some_items("prefix"));
    let cidrs = cidrs.and_then(|items| Field::all(&items, |item| item.read(prefix)));
    let except = fields.optional("except").and_then(|field| field.items()).unwrap_or_default();
    let except: Vec<_> = except.into_iter().filter_map(|item| item.read(prefix).map(|prefix| (item, prefix))).collect();
    let ports = ports(fields);
    let cidrs = cidrs?;
    for (item, left_out) in &except {
        if cidrs.contains(left_out) {
            item.problem(format!("{left_out} is left out whole"), "take it out of `cidrs`");
        } else if !cidrs.iter().any(|cidr| covers(*cidr, *left_out)) {
            item.problem(
                format!("{left_out} lies in none of `cidrs`"),
                "leave it out; `except` narrows its own rule only",
            );
        }
    }
    Some(CidrRule { cidrs, except: except.into_iter().map(|(_, prefix)| prefix).collect(), ports: ports? })
}

/// A list of name patterns.
pub(super) fn names(field: &Field<'_>) -> Option<Vec<DomainPattern>> {
    Field::all(&field.some_items("name")?, |item| {
        item.read(|text| {
            if text.parse::<std::net::IpAddr>().is_ok() || prefix(text).is_ok() {
                return Err(wrong(format!("{} is not a name", quoted(text)), "addresses belong under `cidrs`"));
            }
            if text.contains(['/', ':', '@']) {
                let mend = "write the host name alone; ports belong under `ports`";
                return Err(wrong(format!("{} is more than a host name", quoted(text)), mend));
            }
            DomainPattern::try_from(text)
        })
    })
}

/// `ports`; left out or empty means every port of every protocol.
pub(super) fn ports(fields: &Fields<'_>) -> Option<Ports> {
    let Some(field) = fields.optional("ports") else { return (!fields.has("ports")).then_some(Ports::All) };
    let items = field.items()?;
    if items.is_empty() {
        return Some(Ports::All);
    }
    Field::all(&items, port_range).map(Ports::Some)
}

fn port_range(item: &Field<'_>) -> Option<PortRange> {
    let fields = item.fields(&["protocol", "port", "endPort"], &[])?;
    let protocol = match fields.optional("protocol") {
        Some(field) if field.peek().is_some_and(is_other_protocol) => {
            field.later(Later::OtherProtocol);
            return None;
        }
        Some(field) => field.choice(&Protocol::ALL.map(|protocol| (protocol.as_str(), protocol))),
        None => Some(Protocol::Tcp),
    };
    let port = fields.required("port", "write the port; for every port `port: 1, endPort: 65535`");
    let first = port.and_then(|field| field.integer("a port", 1..=65535));
    let last = match fields.optional("endPort") {
        Some(field) => {
            let last: Option<u16> = field.integer("a port", 1..=65535);
            if let (Some(first), Some(last)) = (first, last)
                && last < first
            {
                field.problem(format!("{last} is below `port`, {first}"), "write the higher port here");
            }
            last
        }
        None => first,
    };
    Some(PortRange { protocol: protocol?, first: first?, last: last? })
}

fn is_other_protocol(word: &str) -> bool {
    ["ICMP", "ICMPv4", "ICMPv6", "DCCP", "UDPLite", "GRE", "ESP", "AH", "IGMP"]
        .iter()
        .any(|other| other.eq_ignore_ascii_case(word))
}
