//! What rules of policies are made of: prefixes with exceptions, sets, names, ports.

use ipnetwork::IpNetwork;

use super::address::{covers, prefix};
use super::later::Later;
use crate::document::field::Field;
use crate::document::fields::Fields;
use crate::names::{DomainPattern, NameError};
use crate::resource::{CidrRule, PortRange, Ports, Protocol, SetName};
use crate::wording::{quoted, wrong};

/// The fields of a rule by address.
pub(super) const BY_ADDRESS: [&str; 4] = ["cidrs", "sets", "except", "ports"];

/// `cidrs`, `sets`, `except` and `ports`.
pub(super) fn cidr_rule(fields: &Fields<'_>) -> Option<CidrRule> {
    let sets = match fields.optional("sets") {
        Some(field) => field.some_items("set").and_then(|items| Field::all(&items, |item| item.read(set_name))),
        None => (!fields.has("sets")).then(Vec::new),
    };
    let cidrs = match fields.has("sets") && !fields.has("cidrs") {
        true => Some(Vec::new()),
        false => fields
            .required("cidrs", "list the prefixes of the rule, or name AddressSets under `sets`")
            .and_then(|field| field.some_items("prefix"))
            .and_then(|items| prefixes(&items)),
    };
    let except = fields.optional("except").and_then(|field| field.items()).unwrap_or_default();
    let except: Vec<_> = except.into_iter().filter_map(|item| item.read(prefix).map(|prefix| (item, prefix))).collect();
    let ports = ports(fields);
    let (cidrs, sets) = (cidrs?, sets?);
    for (item, left_out) in &except {
        if cidrs.contains(left_out) {
            item.problem(format!("{left_out} is left out whole"), "take it out of `cidrs`");
        } else if sets.is_empty() && !cidrs.iter().any(|cidr| covers(*cidr, *left_out)) {
            item.problem(
                format!("{left_out} lies in none of `cidrs`"),
                "leave it out; `except` narrows its own rule only",
            );
        }
    }
    let except = except.into_iter().map(|(_, prefix)| prefix).collect();
    Some(CidrRule { cidrs, sets, except, ports: ports? })
}

/// A list of prefixes.
pub(super) fn prefixes(items: &[Field<'_>]) -> Option<Vec<IpNetwork>> {
    Field::all(items, |item| item.read(prefix))
}

/// `feed` of the policy's own namespace, `_admin/feed` of the administrators.
fn set_name(text: &str) -> Result<SetName, NameError> {
    match text.split_once('/') {
        None => text.parse().map(SetName::Own),
        Some((SetName::ADMIN, name)) => name.parse().map(SetName::Admin),
        Some(_) => Err(wrong(
            format!("{} is not a set that can be named here", quoted(text)),
            "write `NAME` for a set of the policy's own namespace, `_admin/NAME` for one of the administrators",
        )),
    }
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
    let named = item.any_fields()?.optional_with_value("protocol").and_then(|field| field.peek());
    let icmp_only = [Protocol::Icmp, Protocol::Icmpv6].into_iter().find(|protocol| named == Some(protocol.as_str()));
    if let Some(protocol) = icmp_only {
        return icmp(item, protocol);
    }
    let fields = item.fields(&["protocol", "port", "endPort"], &[])?;
    let protocol = match fields.optional("protocol") {
        Some(field) if field.peek().is_some_and(is_other_protocol) => {
            field.later(Later::OtherProtocol);
            return None;
        }
        Some(field) => field.choice(&Protocol::WITH_ICMP.map(|protocol| (protocol.as_str(), protocol))),
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

/// `type` and `code`; left out means an echo request, the only one that opens a flow.
fn icmp(item: &Field<'_>, protocol: Protocol) -> Option<PortRange> {
    let fields = item.fields(&["protocol", "type", "code"], &[])?;
    let [echo, _] = protocol.echo()?.to_be_bytes();
    let kind = match fields.optional("type") {
        Some(field) => {
            let kind: u8 = field.integer("an ICMP type", 0..=255)?;
            if kind != echo {
                let mend = match what_passes(protocol, kind) {
                    Some(what) => format!("leave it out: {what}"),
                    None => format!("write `type: {echo}`, an echo request"),
                };
                field.problem(format!("no flow is opened by type {kind} of {}", protocol.as_str()), mend);
                return None;
            }
            kind
        }
        None if fields.has("type") => return None,
        None => echo,
    };
    let code: u8 = match fields.optional("code") {
        Some(field) => {
            let code = field.integer("an ICMP code", 0..=255)?;
            if code != 0 {
                field.problem("an echo request has code 0", "write `code: 0`, or leave it out");
                return None;
            }
            code
        }
        None if fields.has("code") => return None,
        None => 0,
    };
    let both = u16::from_be_bytes([kind, code]);
    Some(PortRange { protocol, first: both, last: both })
}

/// What passes without a rule for it.
fn what_passes(protocol: Protocol, kind: u8) -> Option<&'static str> {
    match (protocol, kind) {
        (Protocol::Icmp, 0) | (Protocol::Icmpv6, 129) => Some("the answers to an echo request pass with it"),
        (Protocol::Icmp, 3 | 11 | 12) | (Protocol::Icmpv6, 1..=4) => {
            Some("errors that speak of an open flow pass with it")
        }
        (Protocol::Icmpv6, 130..=136 | 143) => Some("the segment's own control needs no rule, and leaves no segment"),
        _ => None,
    }
}

fn is_other_protocol(word: &str) -> bool {
    ["DCCP", "UDPLite", "GRE", "ESP", "AH", "IGMP"].iter().any(|other| other.eq_ignore_ascii_case(word))
}
