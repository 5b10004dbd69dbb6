//! What the kernel can answer by itself, as `bpf/answers.h` reads questions and makes answers of what is here.

use std::time::Duration;

use policy::ledger::MINIMUM_TTL;

use super::cache::wire;
use crate::egress::tables::answers::{Asked, Kept, NAME, TAIL, TTLS};

/// Bytes of a DNS header (RFC 1035, 4.1.1).
const HEADER: usize = 12;
/// Bytes of a type and a class.
const TYPE_CLASS: usize = 4;
/// The header's flags: what a question may have, what an answer must not have, and which of its bits says that it is one.
const RD_AD_CD: u16 = 0x0130;
const NO_ANSWER: u16 = 0x7a00;
const RESPONSE: u16 = 0x8000;
const NO_ERROR: u16 = 0;
const NO_SUCH_NAME: u16 = 3;
const IN: u16 = 1;
const ANY: u16 = 255;
/// Bytes of an answer to who sends no OPT record (RFC 1035, 2.3.4).
const PLAIN: usize = 512;
/// An answer for less is not worth its place.
const SHORTEST: Duration = Duration::from_secs(1);

/// What is asked, if the message is one question of class IN and no more than the kernel reads.
pub fn asked(message: &[u8]) -> Option<Asked> {
    let flags = word(message, 2)?;
    let counts = [word(message, 4)?, word(message, 6)?, word(message, 8)?];
    if flags & !RD_AD_CD != 0 || counts != [1, 0, 0] {
        return None;
    }
    let behind = message.get(HEADER..)?;
    let (name, rest) = behind.split_at_checked(after_labels(behind)?)?;
    let (end, rest) = rest.split_at_checked(TYPE_CLASS)?;
    let dnssec_ok = match (word(message, 10)?, rest) {
        (0, []) => None,
        (1, [0, 0, 41, _, _, 0, 0, dnssec @ (0 | 0x80), 0, 0, 0]) => Some(*dnssec != 0),
        _ => return None,
    };
    let known = name.len() > 1 && name.len() <= NAME && word(end, 2)? == IN;
    known.then(|| Asked { name: name.to_ascii_lowercase().into(), kind: word(end, 0).unwrap_or(ANY), flags, dnssec_ok })
}

/// An answer that was just handed out to that question, for the kernel to give again; `None` where it must not, or where
/// that is not worth it. `quiet`: so long servers need not be asked. `now`: time since boot.
///
/// Its TTLs are all what is left of the least; from [`MINIMUM_TTL`] on, the daemon is asked: what it learns then is open
/// for longer than the TTL says.
pub fn kept(asked: &Asked, message: &[u8], quiet: Duration, now: Duration) -> Option<Kept> {
    let flags = word(message, 2)?;
    let is_answer = flags & (RESPONSE | NO_ANSWER) == RESPONSE && matches!(flags & 0xf, NO_ERROR | NO_SUCH_NAME);
    let begin = HEADER + asked.name.len();
    let behind = begin + TYPE_CLASS;
    let is_asked = word(message, 4)? == 1
        && message.get(HEADER..begin)?.eq_ignore_ascii_case(&asked.name)
        && (word(message, begin)?, word(message, begin + 2)?) == (asked.kind, IN);
    let fits = asked.dnssec_ok.is_some() || message.len() <= PLAIN;
    if !is_answer || !is_asked || !fits || asked.kind == ANY {
        return None;
    }
    let tail = message.get(behind..).filter(|tail| (1..=TAIL).contains(&tail.len()))?;
    let life = wire::life(message, asked.kind)?;
    let quiet = quiet.min(life.saturating_sub(Duration::from_secs(MINIMUM_TTL.into())));
    let ttls = wire::ttls(message)?;
    let ttls: Option<Vec<u16>> = ttls.into_iter().map(|at| u16::try_from(at.checked_sub(behind)?).ok()).collect();
    let ttls = ttls.filter(|ttls| ttls.len() <= TTLS && quiet >= SHORTEST)?;
    Some(Kept {
        asked: asked.clone(),
        flags,
        counts: [word(message, 6)?, word(message, 8)?, word(message, 10)?],
        tail: tail.into(),
        ttls,
        ask: now + quiet,
        expires: now + life,
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_be_bytes)
}

/// The place behind a name without pointers.
fn after_labels(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match *bytes.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += usize::from(length) + 1,
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests;
