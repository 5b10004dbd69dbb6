//! DNS answers that the kernel gives again (`bpf/answers.h`): to whom, under which rules, and until when.

use std::io;
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use policy::tables::ClassId;

use super::layout as l;
use super::{InTable, TableError, Tables, nanoseconds, next_stamp};
use crate::sys::bpf::boot_time;
use crate::workload::WorkloadId;

/// Octets of a name that is kept, as a message has it.
pub const NAME: usize = 128;
/// Octets behind the question of an answer that is kept.
pub const TAIL: usize = 508;
/// TTLs of one.
pub const TTLS: usize = 16;
/// Addresses of one.
pub const ADDRESSES: usize = 8;

/// What stands in a question, as far as the answer depends on it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Asked {
    /// In lower case, as a message has it, its root included: at most [`NAME`] octets.
    pub name: Box<[u8]>,
    /// As in the IANA registry.
    pub kind: u16,
    /// The header's: RD, AD and CD, no others.
    pub flags: u16,
    /// Whether there is an OPT record, and its DO bit.
    pub dnssec_ok: Option<bool>,
}

/// An answer to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// To what.
    pub asked: Asked,
    /// The header's.
    pub flags: u16,
    /// Records of the three sections behind the question.
    pub counts: [u16; 3],
    /// All that is behind the question, whose name its pointers may mean: 1 to [`TAIL`] octets.
    pub tail: Box<[u8]>,
    /// Where in `tail` the TTLs are: at most [`TTLS`].
    pub ttls: Vec<u16>,
    /// From then on the daemon is asked, as time since boot.
    pub ask: Duration,
    /// When its least TTL ends.
    pub expires: Duration,
}

/// What the kernel must have learned for an answer to leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// A name of this class of the workload's policy, each of which opens the same, at each of the addresses.
    pub class: ClassId,
    /// At most [`ADDRESSES`].
    pub addresses: Vec<IpAddr>,
    /// For so long, as time since boot.
    pub until: Duration,
}

/// What became of questions in the kernel; `enum answered` of `bpf/answers.h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answered {
    /// Answered there.
    pub sent: u64,
    /// Dropped, as the kernel did not make the answer.
    pub failed: u64,
}

impl Tables {
    /// Has the kernel answer this question of the workload, as long as these rules are in force and what it opens is open.
    /// What is longer than the table's bounds is [`io::ErrorKind::InvalidInput`].
    pub fn keep_answer(
        &self,
        workload: WorkloadId,
        rules: NonZeroU64,
        kept: &Kept,
        opened: Option<&Opened>,
    ) -> Result<(), TableError> {
        let entry = question(workload, &kept.asked).zip(answer(rules, kept, opened));
        let (question, answer) = entry.ok_or(io::ErrorKind::InvalidInput.into()).in_table("answers")?;
        self.answers.set(&question, &answer).in_table("answers")
    }

    /// From now on the kernel answers only what was kept under these rules; `None`: nothing.
    pub fn set_answer_rules(&self, rules: Option<NonZeroU64>) -> Result<(), TableError> {
        let number = rules.map_or(0, NonZeroU64::get);
        self.answer_rules_given.fetch_max(number, Relaxed);
        self.answer_rules.set(&0, &number).in_table("answer_rules")
    }

    /// A number that [`Self::set_answer_rules`] was never given, on this boot of the node, as the tables hold nothing longer.
    pub fn next_answer_rules(&self) -> Result<NonZeroU64, TableError> {
        let standing = self.answer_rules.get(&0).in_table("answer_rules")?.unwrap_or(0);
        let last = self.answer_rules_given.load(Relaxed).max(standing);
        let now = nanoseconds(boot_time()); // later than any of an earlier daemon
        Ok(NonZeroU64::MIN.saturating_add(now.max(last)))
    }

    /// What became of questions in the kernel, since the maps were made.
    pub fn answered(&self) -> Result<Answered, TableError> {
        let sum = |index| Ok(self.answered.get(index).in_table("answered")?.iter().sum());
        Ok(Answered { sent: sum(0)?, failed: sum(1)? })
    }
}

fn question(workload: WorkloadId, asked: &Asked) -> Option<l::Question> {
    let mut name = [0; NAME];
    name.get_mut(..asked.name.len())?.copy_from_slice(&asked.name);
    Some(l::Question {
        workload: workload.0,
        kind: asked.kind.to_be_bytes(),
        flags: asked.flags.to_be_bytes(),
        opt: asked.dnssec_ok.map_or(0, |dnssec_ok| 1 + u8::from(dnssec_ok)),
        length: asked.name.len() as u8,
        pad: [0; 6],
        name,
    })
}

fn answer(rules: NonZeroU64, kept: &Kept, opened: Option<&Opened>) -> Option<l::Answer> {
    let (mut octets, mut ttl) = ([0; TAIL], [0; TTLS]);
    octets.get_mut(..kept.tail.len())?.copy_from_slice(&kept.tail);
    ttl.get_mut(..kept.ttls.len())?.copy_from_slice(&kept.ttls);
    let inside = |at: &u16| usize::from(*at) + 4 <= kept.tail.len();
    if kept.tail.is_empty() || !kept.ttls.iter().all(inside) {
        return None;
    }
    let addresses = opened.map_or(&[][..], |opened| &opened.addresses);
    let mut address = [[0; 16]; ADDRESSES];
    let places = address.get_mut(..addresses.len())?;
    places.iter_mut().zip(addresses).for_each(|(place, address)| *place = l::address(*address));
    let stamp = next_stamp();
    Some(l::Answer {
        stamp,
        class: opened.map_or(0, |opened| opened.class.0),
        pad: 0,
        addresses: addresses.len() as u8,
        ttls: kept.ttls.len() as u8,
        length: kept.tail.len() as u16,
        rules: rules.get(),
        ask_ns: nanoseconds(kept.ask),
        expires_ns: nanoseconds(kept.expires),
        opens_ns: opened.map_or(0, |opened| nanoseconds(opened.until)),
        address,
        ttl,
        flags: kept.flags.to_be_bytes(),
        counts: kept.counts.map(u16::to_be_bytes),
        octets,
        stamp_again: stamp,
    })
}
