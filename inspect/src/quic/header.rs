//! Cuts a datagram into packets by their long headers (RFC 9000 §17.2, RFC 9369 §3.2).

use rustls::quic::Version;

use super::initial::Initial;
use crate::fields::{Fields, Short};
use crate::unreadable::Unreadable;

const LONG: u8 = 0x80;
/// Set in every packet of both versions, unless greased (RFC 9287).
const FIXED: u8 = 0x40;
const VERSION_1: u32 = 1;
const VERSION_2: u32 = 0x6b33_43cf;
const VERSION_NEGOTIATION: u32 = 0;
/// Bytes of a connection ID (RFC 9000 §17.2).
pub(super) const MAX_ID: usize = 20;

/// A packet at the front of a datagram.
#[derive(Debug)]
pub(super) enum Packet<'a> {
    /// May carry a ClientHello.
    Initial(Initial<'a>),
    /// Carries none: 0-RTT, Handshake, Retry, or with a short header.
    Later,
    /// Of another protocol, or filling.
    NotQuic,
}

/// The types of long headers.
enum Kind {
    Initial,
    /// 0-RTT or Handshake.
    Protected,
    Retry,
}

/// The destination connection ID of a datagram whose first packet has a long header, whatever its version (RFC 8999 §5.1).
pub fn destination_id(datagram: &[u8]) -> Option<&[u8]> {
    let mut fields = Fields(datagram);
    let long = fields.u8().ok()? & LONG != 0;
    fields.u32().ok()?;
    id(&mut fields).ok().filter(|_| long)
}

/// The first packet of `datagram` and what comes behind it. A packet without a length takes the rest.
pub(super) fn split(datagram: &[u8]) -> Result<(Packet<'_>, &[u8]), Unreadable> {
    let mut fields = Fields(datagram);
    let first = fields.u8()?;
    if first & LONG == 0 {
        return Ok((if first & FIXED == 0 { Packet::NotQuic } else { Packet::Later }, &[]));
    }
    let (number, version) = match fields.u32() {
        Ok(VERSION_NEGOTIATION) => return Err(Unreadable::QuicMidConnection),
        Ok(number @ VERSION_1) => (number, Version::V1),
        Ok(number @ VERSION_2) => (number, Version::V2),
        Ok(_) if first & FIXED != 0 => return Err(Unreadable::UnknownQuicVersion),
        Ok(_) | Err(Short) => return Ok((Packet::NotQuic, &[])),
    };
    let destination = id(&mut fields)?;
    id(&mut fields)?;
    let kind = kind(number, first);
    match kind {
        Kind::Initial => {
            fields.vector_varint()?;
        }
        Kind::Protected => {}
        Kind::Retry => return Ok((Packet::Later, &[])),
    }
    let length = usize::try_from(fields.varint()?).map_err(|_| Short)?;
    let number_at = datagram.len() - fields.0.len();
    fields.take(length)?;
    let (packet, behind) = datagram.split_at(number_at + length);
    match kind {
        Kind::Initial => Ok((Packet::Initial(Initial { version, destination, packet, number_at }), behind)),
        Kind::Protected | Kind::Retry => Ok((Packet::Later, behind)),
    }
}

fn id<'a>(fields: &mut Fields<'a>) -> Result<&'a [u8], Unreadable> {
    let id = fields.vector8()?.0;
    if id.len() > MAX_ID { Err(Unreadable::MalformedHello) } else { Ok(id) }
}

/// RFC 9000 §17.2 table 5; RFC 9369 §3.2 counts from one further.
fn kind(version: u32, first: u8) -> Kind {
    let bits = first >> 4 & 3;
    match if version == VERSION_2 { bits.wrapping_sub(1) & 3 } else { bits } {
        0 => Kind::Initial,
        1 | 2 => Kind::Protected,
        _ => Kind::Retry,
    }
}
