//! Answers made here, and the last touch to those that come from upstream.

use std::str::FromStr;

use hickory_resolver::proto::op::{Edns, Message, OpCode, ResponseCode};
use hickory_resolver::proto::rr::rdata::SOA;
use hickory_resolver::proto::rr::rdata::opt::EdnsOption;
use hickory_resolver::proto::rr::{Name, RData, Record};
use tracing::error;

use super::question::Question;

/// Largest UDP answer in bytes, so that none is ever fragmented (RFC 9715).
pub(super) const UDP_LIMIT: u16 = 1232;
/// Largest UDP answer to a client that sends no OPT record (RFC 1035, 2.3.4).
const UDP_PLAIN: u16 = 512;
/// Seconds that a refusal may be remembered: a widened policy is seen soon.
const NEGATIVE_TTL: u32 = 5;
/// Bytes of an extended error's text.
const TEXT: usize = 128;
/// The option's code (RFC 8914).
const EXTENDED_ERROR: u16 = 15;

/// Extended errors that are used (RFC 8914, 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Extended {
    Other = 0,
    Filtered = 17,
    Prohibited = 18,
    NoReachableAuthority = 22,
    NetworkError = 23,
}

/// Twelve bytes: for a message that could not be read or is no query.
pub(super) fn header_only(id: u16, op_code: OpCode, code: ResponseCode) -> Vec<u8> {
    encode(&Message::error_msg(id, op_code, code))
}

/// The question again, with a code.
pub(super) fn plain(question: &Question, code: ResponseCode) -> Vec<u8> {
    encode(&reply(question, code, None))
}

/// SERVFAIL, and why.
pub(super) fn failed(question: &Question, extended: Extended, text: &str) -> Vec<u8> {
    encode(&reply(question, ResponseCode::ServFail, Some((extended, text))))
}

/// NXDOMAIN with a short negative TTL (RFC 2308, 5), and why.
pub(super) fn no_such_name(question: &Question, extended: Extended, text: &str) -> Vec<u8> {
    negative(question, ResponseCode::NXDomain, extended, text)
}

/// No records of that type, with the same TTL, and why.
pub(super) fn no_data(question: &Question, extended: Extended, text: &str) -> Vec<u8> {
    negative(question, ResponseCode::NoError, extended, text)
}

fn negative(question: &Question, code: ResponseCode, extended: Extended, text: &str) -> Vec<u8> {
    let mut message = reply(question, code, Some((extended, text)));
    let [server, person] =
        ["tidegate.invalid.", "nobody.invalid."].map(|name| Name::from_str(name).unwrap_or_default());
    let soa = SOA::new(server, person, 1, 3600, 600, 86400, NEGATIVE_TTL);
    message.add_authority(Record::from_rdata(question.query.name().clone(), NEGATIVE_TTL, RData::SOA(soa)));
    encode(&message)
}

/// An upstream's bytes under the client's id.
pub(super) fn relayed(question: &Question, mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(id) = bytes.first_chunk_mut::<2>() {
        *id = question.id.to_be_bytes();
    }
    bytes
}

/// Cuts an answer that is too long for UDP down to its header, with TC set: the client asks again over TCP.
pub(super) fn fit_udp(question: &Question, bytes: Vec<u8>) -> Vec<u8> {
    let limit = question.edns.map_or(UDP_PLAIN, |edns| edns.payload.clamp(UDP_PLAIN, UDP_LIMIT));
    if bytes.len() <= usize::from(limit) {
        return bytes;
    }
    let mut message = reply(question, ResponseCode::from(0, bytes.get(3).map_or(0, |flags| flags & 0xf)), None);
    message.metadata.truncation = true;
    encode(&message)
}

fn reply(question: &Question, code: ResponseCode, extended: Option<(Extended, &str)>) -> Message {
    let mut message = Message::error_msg(question.id, OpCode::Query, code);
    message.metadata.recursion_desired = question.recursion_desired;
    message.metadata.recursion_available = true;
    message.metadata.checking_disabled = question.checking_disabled;
    message.add_query(question.query.clone());
    if let Some(client) = question.edns {
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_LIMIT).set_dnssec_ok(client.dnssec_ok);
        if let Some((extended, text)) = extended {
            let mut option = (extended as u16).to_be_bytes().to_vec();
            option.extend_from_slice(&text.as_bytes()[..text.floor_char_boundary(TEXT)]);
            edns.options_mut().insert(EdnsOption::Unknown(EXTENDED_ERROR, option));
        }
        message.set_edns(edns);
    }
    message
}

/// What is encoded here is a few fields that were decoded before: a failure is a defect, and the client gets a bare SERVFAIL.
fn encode(message: &Message) -> Vec<u8> {
    message.to_vec().unwrap_or_else(|error| {
        error!(%error, "an answer could not be encoded");
        let [high, low] = message.metadata.id.to_be_bytes();
        vec![high, low, 0x80, 0x02, 0, 0, 0, 0, 0, 0, 0, 0]
    })
}
