//! A query, read and checked.

use config::names::DnsName;
use hickory_resolver::proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_resolver::proto::rr::{DNSClass, Name, RecordType};

use super::outcome::Outcome;
use super::{answer, kept};
use crate::egress::tables::answers::Asked;

/// Bytes of a DNS header (RFC 1035, 4.1.1).
const HEADER: usize = 12;

/// One question of class IN, and what its answer must respect.
#[derive(Clone, Debug)]
pub(super) struct Question {
    /// The client's id.
    pub(super) id: u16,
    /// Name in the client's spelling, and type.
    pub(super) query: Query,
    /// The name as policies know it; `None` for what they cannot name.
    pub(super) name: Option<DnsName>,
    pub(super) recursion_desired: bool,
    pub(super) checking_disabled: bool,
    pub(super) authentic_data: bool,
    /// What the client's OPT record said; `None` without one (RFC 6891).
    pub(super) edns: Option<ClientEdns>,
    /// The same as the kernel reads it, if it does.
    pub(super) asked: Option<Asked>,
}

impl Question {
    /// The daemon's own, in the name of a workload.
    pub(super) fn own(name: &DnsName, kind: RecordType) -> Option<Self> {
        let wire = Name::from_ascii(format!("{name}.")).ok()?;
        Some(Self {
            id: 0,
            query: Query::query(wire, kind),
            name: Some(name.clone()),
            recursion_desired: true,
            checking_disabled: false,
            authentic_data: false,
            edns: None,
            asked: None,
        })
    }
}

/// The part of a client's OPT record that matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClientEdns {
    pub(super) payload: u16,
    pub(super) dnssec_ok: bool,
}

/// What a message turned out to be.
#[derive(Debug)]
pub(super) enum Read {
    /// A question to resolve.
    Question(Question),
    /// Answered without asking anybody.
    Answer(Vec<u8>, Outcome),
    /// Nothing that may be answered.
    Drop,
}

/// Reads a message from a workload.
pub(super) fn read(bytes: &[u8]) -> Read {
    let Some(&[high, low, flags, ..]) = bytes.first_chunk::<HEADER>() else { return Read::Drop };
    if flags & 0x80 != 0 {
        return Read::Drop;
    }
    let id = u16::from_be_bytes([high, low]);
    let Ok(message) = Message::from_vec(bytes) else {
        return Read::Answer(
            answer::header_only(id, OpCode::from_u8(flags >> 3 & 0xf), ResponseCode::FormErr),
            Outcome::Malformed,
        );
    };
    let no = |code, outcome| Read::Answer(answer::header_only(id, message.metadata.op_code, code), outcome);
    if message.metadata.op_code != OpCode::Query || message.metadata.message_type != MessageType::Query {
        return no(ResponseCode::NotImp, Outcome::Unsupported);
    }
    let [query] = message.queries.as_slice() else { return no(ResponseCode::FormErr, Outcome::Malformed) };
    let question = Question {
        id,
        query: query.clone(),
        name: name_of(query.name()),
        recursion_desired: message.metadata.recursion_desired,
        checking_disabled: message.metadata.checking_disabled,
        authentic_data: message.metadata.authentic_data,
        edns: message
            .edns
            .as_ref()
            .map(|edns| ClientEdns { payload: edns.max_payload(), dnssec_ok: edns.flags().dnssec_ok }),
        asked: kept::asked(bytes),
    };
    if message.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
        return Read::Answer(answer::plain(&question, ResponseCode::BADVERS), Outcome::Unsupported);
    }
    let asks_records =
        !matches!(query.query_type(), RecordType::AXFR | RecordType::IXFR | RecordType::OPT | RecordType::TSIG);
    if query.query_class() != DNSClass::IN || !asks_records {
        return Read::Answer(answer::plain(&question, ResponseCode::NotImp), Outcome::Unsupported);
    }
    Read::Question(question)
}

/// A wire name as policies know it. Each label is looked at by itself: a dot inside a label must not become a border.
fn name_of(name: &Name) -> Option<DnsName> {
    let mut text = String::with_capacity(name.len());
    for label in name.iter() {
        if !label.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')) {
            return None;
        }
        if !text.is_empty() {
            text.push('.');
        }
        text.extend(label.iter().map(|byte| char::from(byte.to_ascii_lowercase())));
    }
    DnsName::try_from(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(labels: &[&[u8]]) -> Option<String> {
        name_of(&Name::from_labels(labels.iter().copied()).unwrap()).map(String::from)
    }

    #[test]
    fn names_become_what_policies_know_or_nothing() {
        assert_eq!(named(&[b"API", b"Example", b"com"]).as_deref(), Some("api.example.com"));
        assert_eq!(named(&[b"_dmarc", b"example", b"com"]).as_deref(), Some("_dmarc.example.com"));
        assert_eq!(named(&[b"evil.example", b"com"]), None, "a dot inside a label");
        assert_eq!(named(&[b"a b", b"com"]), None);
        assert_eq!(named(&[b"*", b"example", b"com"]), None);
        assert_eq!(named(&[]), None, "the root");
    }

    #[test]
    fn what_is_no_question_is_answered_or_dropped() {
        assert!(matches!(read(b"short"), Read::Drop));
        assert!(matches!(read(&[0, 1, 0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0]), Read::Drop), "a response is never answered");
        let code = |bytes: &[u8]| match read(bytes) {
            Read::Answer(answer, _) => {
                (u16::from_be_bytes([answer[0], answer[1]]), answer[2] & 0x80 != 0, answer[3] & 0xf)
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(code(&[7, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]), (0x701, true, 1), "a question is promised and missing");
        assert_eq!(code(&[7, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]), (0x701, true, 1), "no question");
        assert_eq!(code(&[7, 1, 0x28, 0, 0, 0, 0, 0, 0, 0, 0, 0]), (0x701, true, 4), "UPDATE");
        assert_eq!(code(&[7, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 3]), (0x701, true, 4), "class CH");
        assert_eq!(code(&[7, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 252, 0, 1]), (0x701, true, 4), "AXFR");
    }
}
