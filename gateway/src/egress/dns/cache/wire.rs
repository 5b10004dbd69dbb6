//! What time and the asker change in an answer as it came: TTLs and the question's spelling. Everything else is left alone.

use std::time::Duration;

use hickory_resolver::proto::rr::Name;

/// Bytes of a DNS header (RFC 1035, 4.1.1).
const HEADER: usize = 12;
/// Longest TTL that is handed out, in seconds: a longer one is cut to it (RFC 2181, 8, lets us).
const DAY: u32 = 86_400;
/// How long a failure is kept (RFC 9520, 3.2: one second to five minutes). Always the same, so that names are back soon
/// after their servers are.
pub(super) const FAILURE: Duration = Duration::from_secs(5);

const NO_ERROR: u8 = 0;
const SERVER_FAILURE: u8 = 2;
const NO_SUCH_NAME: u8 = 3;
const SOA: u16 = 6;
const OPT: u16 = 41;
const ANY: u16 = 255;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Section {
    Answer,
    Authority,
    Additional,
}

/// A record that has a TTL: all but OPT, where other things are in its place (RFC 6891, 6.1.3).
struct Record {
    section: Section,
    kind: u16,
    /// Where its TTL is.
    at: usize,
    /// What it says, as far as it counts.
    seconds: u32,
}

/// A name as a message has it, in its own spelling and without compression.
pub(in crate::egress::dns) fn spelling(name: &Name) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(name.len() + 1);
    for label in name.iter() {
        bytes.push(u8::try_from(label.len()).unwrap_or(u8::MAX));
        bytes.extend_from_slice(label);
    }
    bytes.push(0);
    bytes
}

/// How long an answer to a question of type `kind` may be kept; `None` is not at all. A negative one needs an SOA record
/// that says so (RFC 2308, 5).
pub(in crate::egress::dns) fn life(bytes: &[u8], kind: u16) -> Option<Duration> {
    let &[_, _, flags, code] = bytes.first_chunk()?;
    // Another operation, or cut.
    if flags & 0x7a != 0 {
        return None;
    }
    let records = records(bytes)?;
    let answered =
        records.iter().any(|record| record.section == Section::Answer && (record.kind == kind || kind == ANY));
    let denied = records.iter().any(|record| record.section == Section::Authority && record.kind == SOA);
    let keep = match code & 0xf {
        NO_ERROR => answered || denied,
        NO_SUCH_NAME => denied,
        SERVER_FAILURE => return Some(FAILURE),
        _ => false,
    };
    let shortest = records.iter().map(|record| record.seconds).min()?;
    (keep && shortest > 0).then_some(Duration::from_secs(shortest.into()))
}

/// Whether it is the answer of a server that failed.
pub(super) fn is_failure(bytes: &[u8]) -> bool {
    bytes.get(3).is_some_and(|code| code & 0xf == SERVER_FAILURE)
}

/// Where the TTLs of a message are; `None` for what is no message.
pub(in crate::egress::dns) fn ttls(bytes: &[u8]) -> Option<Vec<usize>> {
    Some(records(bytes)?.into_iter().map(|record| record.at).collect())
}

/// Makes an answer that came `age` ago one to this spelling of its question (a client may compare that with what it sent),
/// with the TTLs that are left.
pub(in crate::egress::dns) fn hand_out(bytes: &mut [u8], spelling: &[u8], age: Duration) {
    let one_question = bytes.get(4..6) == Some(&[0, 1]);
    if let Some(asked) = bytes.get_mut(HEADER..HEADER + spelling.len())
        && one_question
        && asked.eq_ignore_ascii_case(spelling)
    {
        asked.copy_from_slice(spelling);
    }
    let age = u32::try_from(age.as_secs()).unwrap_or(u32::MAX);
    for record in records(bytes).unwrap_or_default() {
        let left = record.seconds.saturating_sub(age);
        if let Some(ttl) = bytes.get_mut(record.at..record.at + 4) {
            ttl.copy_from_slice(&left.to_be_bytes());
        }
    }
}

/// `None` for what is no message.
fn records(bytes: &[u8]) -> Option<Vec<Record>> {
    let word = |at: usize| bytes.get(at..)?.first_chunk().copied().map(u16::from_be_bytes);
    let long = |at: usize| bytes.get(at..)?.first_chunk().copied().map(u32::from_be_bytes);
    let mut at = HEADER;
    for _question in 0..word(4)? {
        at = after_name(bytes, at)? + 4;
    }
    let mut records = Vec::new();
    for (section, count) in [(Section::Answer, 6), (Section::Authority, 8), (Section::Additional, 10)] {
        for _record in 0..word(count)? {
            let fixed = after_name(bytes, at)?;
            let (kind, ttl, length) = (word(fixed)?, long(fixed + 4)?, usize::from(word(fixed + 8)?));
            at = fixed + 10 + length;
            bytes.get(..at)?;
            let seconds = match (section, kind) {
                (_, OPT) => continue,
                // Its last field bounds how long the name may be taken to be missing.
                (Section::Authority, SOA) => counted(ttl).min(counted(long(at - 4)?)),
                _ => counted(ttl),
            };
            records.push(Record { section, kind, at: fixed + 4, seconds });
        }
    }
    Some(records)
}

/// A TTL has 31 bits; with the highest one set it counts as 0 (RFC 2181, 8).
fn counted(ttl: u32) -> u32 {
    if i32::try_from(ttl).is_ok() { ttl.min(DAY) } else { 0 }
}

/// The place behind a name, which ends with its root or a pointer (RFC 1035, 4.1.4).
fn after_name(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *bytes.get(at)? {
            0 => return Some(at + 1),
            pointer if pointer >= 0xc0 => return Some(at + 2),
            length => at += usize::from(length) + 1,
        }
    }
}
