//! Answers without what this workload is not to have:
//!
//! - ECH: HTTPS and SVCB records lose the parameter by which a client would encrypt its ClientHello (RFC 9848), so that the
//!   name in it can be read; and its number in `mandatory`, which goes too if nothing else is in it;
//! - addresses beside the answer itself ("glue"), where no name may lead: their records are gone;
//! - signatures of record sets that were changed by that, which would not hold, and the AD bit with them.
//!
//! The message is edited as it came, as decoding and encoding it would not keep what nobody here knows.
//! Everything behind a cut moves, and names point back to others by their place (RFC 1035, 4.1.4). So every name that may be
//! compressed is written anew, label by label, and the place of each label is noted. A pointer to what was written becomes
//! one to its new place; one to what is gone becomes the labels themselves. Other data is copied.

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use hickory_resolver::proto::op::Message;
use hickory_resolver::proto::rr::RecordType;

/// Bytes of a DNS header (RFC 1035, 4.1.1).
const HEADER: usize = 12;
/// Where the header counts records, section by section.
const COUNTS: [usize; 3] = [6, 8, 10];
const ANSWER: usize = 0;
/// The AD bit, in the header's fourth byte (RFC 4035, 3.2.3).
const AUTHENTIC: u8 = 0x20;
/// Bytes of a name at most, its root included.
const NAME: usize = 255;
/// Pointers that are followed in one name: more than it has labels is no use.
const JUMPS: usize = 128;
/// The first place that a pointer cannot tell.
const FAR: usize = 0x4000;

const A: u16 = 1;
const AAAA: u16 = 28;
const RRSIG: u16 = 46;
const SVCB: u16 = 64;
const HTTPS: u16 = 65;

/// Parameters of HTTPS and SVCB records (RFC 9460, 14.3.2).
const MANDATORY: u16 = 0;
const IPV4_HINT: u16 = 4;
const ECH: u16 = 5;
const IPV6_HINT: u16 = 6;

/// The text goes to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer has what must be taken out of it, and cannot be")]
pub(super) struct Uneditable;

/// What is to be taken out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cuts<'a> {
    /// ECH parameters, everywhere.
    pub(super) ech: bool,
    /// Records with these addresses, hints included, behind the answer section.
    pub(super) glue: &'a [IpAddr],
}

/// A record, by places in its message.
struct Record {
    section: usize,
    owner: usize,
    /// Its type; what follows is class, TTL, and the length of its data.
    fixed: usize,
    kind: u16,
    data: Range<usize>,
}

/// A set of records, which is what a signature covers: owner in lower case, type and class.
type Set = (Vec<u8>, u16, [u8; 2]);

/// What that means in a message.
#[derive(Default)]
struct Changes {
    /// Sets of records that are not what was signed.
    sets: BTreeSet<Set>,
    /// Where records are, by their owner, that go.
    gone: BTreeSet<usize>,
}

/// Whether there are records that have ECH parameters: most answers have none.
pub(super) fn may_have_ech(message: &Message) -> bool {
    let sections = [&message.answers, &message.authorities, &message.additionals];
    sections.into_iter().flatten().any(|record| matches!(record.record_type(), RecordType::HTTPS | RecordType::SVCB))
}

/// The message without that; `None`: it has none of it, and stays as it is.
pub(super) fn without(bytes: &[u8], cuts: Cuts<'_>) -> Result<Option<Vec<u8>>, Uneditable> {
    let (questions, records) = read(bytes).ok_or(Uneditable)?;
    let changes = changes(bytes, &records, cuts).ok_or(Uneditable)?;
    if changes.sets.is_empty() {
        return Ok(None);
    }
    Edit::of(bytes, &questions, &records, cuts, &changes).map(Some).ok_or(Uneditable)
}

/// Places of questions, and records.
fn read(bytes: &[u8]) -> Option<(Vec<usize>, Vec<Record>)> {
    let (mut at, mut questions, mut records) = (HEADER, Vec::new(), Vec::new());
    for _question in 0..word(bytes, 4)? {
        questions.push(at);
        at = spelt(bytes, at)?.1 + 4;
    }
    for (section, count) in COUNTS.into_iter().enumerate() {
        for _record in 0..word(bytes, count)? {
            let fixed = spelt(bytes, at)?.1;
            let data = fixed + 10..fixed + 10 + usize::from(word(bytes, fixed + 8)?);
            bytes.get(data.clone())?;
            let end = data.end;
            records.push(Record { section, owner: at, fixed, kind: word(bytes, fixed)?, data });
            at = end;
        }
    }
    Some((questions, records))
}

fn changes(bytes: &[u8], records: &[Record], cuts: Cuts<'_>) -> Option<Changes> {
    let mut changes = Changes::default();
    for record in records {
        let parameters = if is_service(record.kind) {
            let (_, first) = spelt(bytes, record.data.start + 2)?;
            parameters(bytes, first..record.data.end)?
        } else {
            Vec::new()
        };
        let has_ech = cuts.ech && parameters.iter().any(|(key, _)| *key == ECH);
        let is_glue = record.section != ANSWER
            && addresses(bytes, record, &parameters).iter().any(|address| cuts.glue.contains(address));
        if is_glue {
            changes.gone.insert(record.owner);
        }
        if has_ech || is_glue {
            changes.sets.insert(set(bytes, record, record.kind)?);
        }
    }
    Some(changes)
}

/// The addresses that a record gives.
fn addresses(bytes: &[u8], record: &Record, parameters: &[(u16, Range<usize>)]) -> Vec<IpAddr> {
    let v4 = |place: &Range<usize>| chunks::<4>(bytes, place).map(|octets| Ipv4Addr::from(*octets).into()).collect();
    let v6 = |place: &Range<usize>| chunks::<16>(bytes, place).map(|octets| Ipv6Addr::from(*octets).into()).collect();
    match record.kind {
        A => v4(&record.data),
        AAAA => v6(&record.data),
        _ => {
            let hints = parameters.iter().flat_map(|(key, value)| -> Vec<IpAddr> {
                match *key {
                    IPV4_HINT => v4(value),
                    IPV6_HINT => v6(value),
                    _ => Vec::new(),
                }
            });
            hints.collect()
        }
    }
}

fn chunks<'a, const N: usize>(bytes: &'a [u8], place: &Range<usize>) -> std::slice::Iter<'a, [u8; N]> {
    bytes.get(place.clone()).unwrap_or_default().as_chunks::<N>().0.iter()
}

fn set(bytes: &[u8], record: &Record, kind: u16) -> Option<Set> {
    let class = *bytes.get(record.fixed + 2..)?.first_chunk()?;
    Some((spelt(bytes, record.owner)?.0, kind, class))
}

const fn is_service(kind: u16) -> bool {
    matches!(kind, SVCB | HTTPS)
}

/// Keys and places of values.
fn parameters(bytes: &[u8], within: Range<usize>) -> Option<Vec<(u16, Range<usize>)>> {
    let (mut at, mut parameters) = (within.start, Vec::new());
    while at < within.end {
        let value = at + 4..at + 4 + usize::from(word(bytes, at + 2)?);
        let end = value.end;
        parameters.push((word(bytes, at)?, value));
        at = end;
    }
    (at == within.end).then_some(parameters)
}

/// A name in lower case and without compression, and the place behind it. Pointers lead backwards only, so that each ends.
fn spelt(bytes: &[u8], start: usize) -> Option<(Vec<u8>, usize)> {
    let (mut name, mut at, mut first, mut behind) = (Vec::new(), start, start, None);
    let mut jumps = 0;
    loop {
        match Label::read(bytes, at)? {
            Label::Root => {
                name.push(0);
                return (name.len() <= NAME).then_some((name, behind.unwrap_or(at + 1)));
            }
            Label::Text(label) => {
                name.extend(bytes[label.clone()].iter().map(u8::to_ascii_lowercase));
                at = label.end;
            }
            Label::Pointer(to) => {
                jumps += 1;
                if to >= first || jumps > JUMPS {
                    return None;
                }
                behind.get_or_insert(at + 2);
                (at, first) = (to, to);
            }
        }
        if name.len() > NAME {
            return None;
        }
    }
}

/// What is at a place of a name.
enum Label {
    Root,
    /// With the byte of its length.
    Text(Range<usize>),
    Pointer(usize),
}

impl Label {
    fn read(bytes: &[u8], at: usize) -> Option<Self> {
        match *bytes.get(at)? {
            0 => Some(Self::Root),
            length @ 1..=63 => {
                let label = at..at + 1 + usize::from(length);
                bytes.get(label.clone()).is_some().then_some(Self::Text(label))
            }
            64..=191 => None,
            192.. => Some(Self::Pointer(usize::from(word(bytes, at)?) % FAR)),
        }
    }
}

/// What a record's data begins with, if names in it may be compressed (RFC 1035, 3.3, and RFC 3597, 4): so many bytes, and
/// so many names.
fn compressible(bytes: &[u8], record: &Record) -> Option<(usize, usize)> {
    Some(match record.kind {
        // NS, MD, MF, CNAME, MB, MG, MR, PTR, NXT, DNAME
        2..=5 | 7..=9 | 12 | 30 | 39 => (0, 1),
        // SOA, MINFO, RP
        6 | 14 | 17 => (0, 2),
        // MX, AFSDB, RT, KX
        15 | 18 | 21 | 36 | SVCB | HTTPS => (2, 1),
        // SIG
        24 => (18, 1),
        // PX
        26 => (2, 2),
        // SRV
        33 => (6, 1),
        // NAPTR: three strings come first.
        35 => {
            let mut before = 4;
            for _string in 0..3 {
                before += 1 + usize::from(*bytes.get(record.data.start + before)?);
            }
            (before, 1)
        }
        _ => (0, 0),
    })
}

/// A message on its way.
struct Edit<'a> {
    old: &'a [u8],
    cuts: Cuts<'a>,
    new: Vec<u8>,
    /// Where labels of the old message, or pointers, are in the new one: what is read there is the same name.
    labels: HashMap<usize, u16>,
}

impl<'a> Edit<'a> {
    fn of(
        old: &'a [u8],
        questions: &[usize],
        records: &[Record],
        cuts: Cuts<'a>,
        changes: &Changes,
    ) -> Option<Vec<u8>> {
        let mut edit = Self { old, cuts, new: Vec::with_capacity(old.len()), labels: HashMap::new() };
        edit.copy(0..HEADER)?;
        let mut at = HEADER;
        for question in questions {
            at = edit.name(*question)? + 4;
            edit.copy(at - 4..at)?;
        }
        for record in records {
            at = record.data.end;
            let is_unsigned =
                record.kind == RRSIG && changes.sets.contains(&set(old, record, word(old, record.data.start)?)?);
            if is_unsigned || changes.gone.contains(&record.owner) {
                edit.count_less(COUNTS[record.section])?;
                continue;
            }
            edit.record(record)?;
        }
        edit.copy(at..old.len())?;
        *edit.new.get_mut(3)? &= !AUTHENTIC;
        (edit.new.len() <= usize::from(u16::MAX)).then_some(edit.new)
    }

    fn record(&mut self, record: &Record) -> Option<()> {
        self.name(record.owner)?;
        self.copy(record.fixed..record.data.start)?;
        let start = self.new.len();
        let (before, names) = compressible(self.old, record)?;
        let mut at = record.data.start + before;
        self.copy(record.data.start..at)?;
        for _name in 0..names {
            at = self.name(at)?;
        }
        let rest = at..record.data.end;
        if is_service(record.kind) {
            self.parameters(rest)?
        } else {
            self.copy(rest)?
        }
        let length = u16::try_from(self.new.len() - start).ok()?;
        self.new.get_mut(start - 2..start)?.copy_from_slice(&length.to_be_bytes());
        Some(())
    }

    /// All but ECH, which `mandatory` does not ask for any more, if it was there.
    fn parameters(&mut self, within: Range<usize>) -> Option<()> {
        let parameters = parameters(self.old, within)?;
        let has_ech = self.cuts.ech && parameters.iter().any(|(key, _)| *key == ECH);
        for (key, value) in parameters {
            match key {
                ECH if has_ech => {}
                MANDATORY if has_ech => self.mandatory(value)?,
                _ => self.copy(value.start - 4..value.end)?,
            }
        }
        Some(())
    }

    fn mandatory(&mut self, value: Range<usize>) -> Option<()> {
        let (keys, []) = self.old.get(value)?.as_chunks::<2>() else { return None };
        let kept: Vec<u8> = keys.iter().filter(|key| **key != ECH.to_be_bytes()).flatten().copied().collect();
        if !kept.is_empty() {
            self.new.extend(MANDATORY.to_be_bytes());
            self.new.extend(u16::try_from(kept.len()).ok()?.to_be_bytes());
            self.new.extend(kept);
        }
        Some(())
    }

    /// Writes the name at a place of the old message; answers the place behind it.
    fn name(&mut self, start: usize) -> Option<usize> {
        // From here on it is known to have an end.
        let (_, behind) = spelt(self.old, start)?;
        let (mut at, mut elsewhere) = (start, false);
        loop {
            if let Some(place) = self.labels.get(&at).filter(|_| elsewhere) {
                self.new.extend((place | 0xc000).to_be_bytes());
                return Some(behind);
            }
            if let Some(place) = u16::try_from(self.new.len()).ok().filter(|place| usize::from(*place) < FAR) {
                self.labels.entry(at).or_insert(place);
            }
            match Label::read(self.old, at)? {
                Label::Root => {
                    self.new.push(0);
                    return Some(behind);
                }
                Label::Text(label) => {
                    self.copy(label.clone())?;
                    at = label.end;
                }
                Label::Pointer(to) => (at, elsewhere) = (to, true),
            }
        }
    }

    fn copy(&mut self, range: Range<usize>) -> Option<()> {
        self.new.extend_from_slice(self.old.get(range)?);
        Some(())
    }

    fn count_less(&mut self, at: usize) -> Option<()> {
        let less = word(&self.new, at)?.checked_sub(1)?;
        self.new.get_mut(at..at + 2)?.copy_from_slice(&less.to_be_bytes());
        Some(())
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_be_bytes)
}
