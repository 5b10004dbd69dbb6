//! Who gets which addresses of a Network: `reservations`, `leases`, and what is excluded.

use std::net::IpAddr;
use std::time::Duration;

use super::address::address;
use super::selector;
use crate::document::field::Field;
use crate::document::fields::Fields;
use crate::names::NameError;
use crate::resource::{Reservation, Subnet};
use crate::wording::{quoted, wrong};

/// First and last.
type Span = (IpAddr, IpAddr);

/// `spec.leases`
pub(super) fn read_hold(field: &Field<'_>) -> Option<Duration> {
    let fields = field.fields(&["hold"], &[])?;
    fields.required("hold", "write how long, as `24h`")?.read(duration)
}

/// `spec.reservations`
pub(super) fn read_reservations(fields: &Fields<'_>, subnets: &[Subnet]) -> Option<Vec<Reservation>> {
    let Some(field) = fields.optional("reservations") else { return Some(Vec::new()) };
    let items = field.some_items("reservation")?;
    let read = Field::all(&items, |item| {
        let fields = item.fields(&["selector", "namespace", "addresses"], &[])?;
        let selector = fields.required("selector", "say whose labels match")?;
        let namespace = fields.optional("namespace").map(|field| field.parse());
        fields.required("addresses", "list addresses, as `[ 10.0.0.7, 10.0.0.20-10.0.0.29 ]`")?;
        let addresses = read_addresses(&fields, "addresses", |(first, last)| {
            let inside = subnets.iter().any(|subnet| subnet.cidr.contains(first) && subnet.cidr.contains(last));
            (!inside && !subnets.is_empty())
                .then(|| (format!("{first} is in no subnet of the network"), "use addresses of one subnet".to_owned()))
        });
        let namespace = match namespace {
            Some(read) => Some(read?),
            None => None,
        };
        Some(Reservation { selector: selector::read(&selector)?, namespace, addresses: addresses? })
    });
    let read = read?;
    let spans = |at: usize| read[at].addresses.iter();
    for (later, item) in items.iter().enumerate() {
        let overlaps = |a: &Span| (0..later).flat_map(spans).any(|b| a.0 <= b.1 && b.0 <= a.1);
        if let Some((first, last)) = spans(later).find(|span| overlaps(span)) {
            item.problem(format!("{first}-{last} overlaps a reservation above"), "reserve an address once");
        }
    }
    Some(read)
}

/// A list of addresses and ranges; `check` says what is wrong with one, and the mend.
pub(super) fn read_addresses(
    fields: &Fields<'_>,
    key: &'static str,
    check: impl Fn(Span) -> Option<(String, String)>,
) -> Option<Vec<Span>> {
    let Some(field) = fields.optional(key) else { return Some(Vec::new()) };
    let items = field.some_items("address")?;
    Field::all(&items, |item| {
        let span = item.read(span)?;
        if let Some((what, mend)) = check(span) {
            item.problem(what, mend);
        }
        Some(span)
    })
}

/// `10.0.0.7`, or `10.0.0.10-10.0.0.200`
pub(super) fn span(text: &str) -> Result<Span, NameError> {
    let Some((first, last)) = text.split_once('-') else {
        let only = address(text.trim())?;
        return Ok((only, only));
    };
    let (first, last) = (address(first.trim())?, address(last.trim())?);
    if first.is_ipv4() != last.is_ipv4() {
        return Err(wrong(format!("{} begins and ends in different families", quoted(text)), "use one family"));
    }
    if first > last {
        return Err(wrong(format!("{} ends before it begins", quoted(text)), format!("write {last}-{first}")));
    }
    Ok((first, last))
}

/// `90s`, `15m`, `24h`, `7d`
fn duration(text: &str) -> Result<Duration, NameError> {
    let form = || wrong(format!("{} is no length of time", quoted(text)), "write it as `90s`, `15m`, `24h` or `7d`");
    let at = text.len().checked_sub(1).filter(|at| text.is_char_boundary(*at)).ok_or_else(form)?;
    let unit: u64 = match &text[at..] {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(form()),
    };
    let number: u64 = text[..at].parse().map_err(|_| form())?;
    const LONGEST: u64 = 366 * 86_400;
    match number.checked_mul(unit) {
        Some(seconds) if (1..=LONGEST).contains(&seconds) => Ok(Duration::from_secs(seconds)),
        _ => Err(wrong(format!("{} is out of range", quoted(text)), "use 1s to 366d")),
    }
}

/// As it is written.
pub(crate) fn shown(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [(86_400, "d"), (3_600, "h"), (60, "m")];
    let unit = units.into_iter().find(|(unit, _)| seconds.is_multiple_of(*unit));
    unit.map_or_else(|| format!("{seconds}s"), |(unit, letter)| format!("{}{letter}", seconds / unit))
}
