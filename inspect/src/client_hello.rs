//! Reads the server name out of a TLS ClientHello (RFC 8446 §4.1.2, RFC 6066 §3) without answering it.
//!
//! Pure and bounded: bytes come split anywhere, each is looked at once, and none past [`MAX_BYTES`] is looked at. Over TCP
//! the message is in TLS records ([`Reader`], [`Records`]); a QUIC CRYPTO stream carries it bare ([`message`]).

use crate::fields::{Fields, Short};

/// Bytes of TLS records, or of a bare handshake message, that a ClientHello may take.
pub const MAX_BYTES: usize = 64 * 1024;

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;
const HOST_NAME: u8 = 0;
/// RFC 8446 §5.1
const MAX_FRAGMENT: usize = 1 << 14;

/// What is known of a ClientHello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientHello {
    /// The `host_name` of the server_name extension, as sent.
    pub server_name: Option<String>,
    /// Whether there is an encrypted_client_hello extension (RFC 9849). One that hides another name and one that is there
    /// to look alike (GREASE) cannot be told apart.
    pub ech: bool,
}

impl ClientHello {
    /// Bytes kept.
    pub(crate) fn held(&self) -> usize {
        self.server_name.as_ref().map_or(0, String::len)
    }
}

/// Why the bytes are no ClientHello.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The first record is of another protocol.
    #[error("the first bytes are not TLS")]
    NotTls,
    /// A length, a vector or a type breaks the format.
    #[error("the ClientHello is malformed")]
    Broken,
    /// More than [`MAX_BYTES`].
    #[error("the ClientHello is longer than 64 KiB")]
    TooLong,
}

impl From<Short> for Malformed {
    fn from(Short: Short) -> Self {
        Self::Broken
    }
}

/// Collects a connection's first bytes.
#[derive(Debug, Default)]
pub struct Reader {
    raw: Vec<u8>,
    records: Records,
}

impl Reader {
    /// Takes the next bytes; `Some` once the ClientHello is whole.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Option<ClientHello>, Malformed> {
        self.raw.extend_from_slice(bytes);
        self.records.read(&self.raw)
    }

    /// Every byte pushed, to be read again.
    pub fn into_bytes(self) -> Vec<u8> {
        self.raw
    }
}

/// Reads the records of a stream that somebody else keeps.
#[derive(Debug, Default)]
pub struct Records {
    next_record: usize,
    handshake: Vec<u8>,
    ended: Option<Result<ClientHello, Malformed>>,
}

impl Records {
    /// Reads on in `stream`, which is everything from its start: what was given before, and more. `Some` once the
    /// ClientHello is whole. The answer depends on the bytes only, not on how they were split, and is the last one.
    pub fn read(&mut self, stream: &[u8]) -> Result<Option<ClientHello>, Malformed> {
        if self.ended.is_none() {
            self.ended = self.next(&stream[..stream.len().min(MAX_BYTES)]).transpose();
        }
        if self.ended.is_some() {
            self.handshake = Vec::new();
        }
        self.ended.clone().transpose()
    }

    /// Bytes of the stream that are in whole records which were read.
    pub(crate) fn end(&self) -> usize {
        self.next_record
    }

    /// Bytes kept.
    pub fn held(&self) -> usize {
        let hello = self.ended.as_ref().and_then(|ended| ended.as_ref().ok()).map_or(0, ClientHello::held);
        self.handshake.len() + hello
    }

    fn next(&mut self, stream: &[u8]) -> Result<Option<ClientHello>, Malformed> {
        while let Some(fragment) = self.whole_record(stream)? {
            self.handshake.extend_from_slice(fragment);
            self.next_record += 5 + fragment.len();
            if let Some(hello) = message(&self.handshake)? {
                return Ok(Some(hello));
            }
        }
        if stream.len() == MAX_BYTES { Err(Malformed::TooLong) } else { Ok(None) }
    }

    fn whole_record<'a>(&self, stream: &'a [u8]) -> Result<Option<&'a [u8]>, Malformed> {
        let bytes = stream.get(self.next_record..).unwrap_or_default();
        if bytes.first().is_some_and(|&kind| kind != HANDSHAKE) || bytes.get(1).is_some_and(|&major| major != 3) {
            // Nothing may come between the records of one message (RFC 8446 §5.1).
            return Err(if self.next_record == 0 { Malformed::NotTls } else { Malformed::Broken });
        }
        let &[_, _, _, high, low, ref rest @ ..] = bytes else {
            return Ok(None);
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length == 0 || length > MAX_FRAGMENT {
            return Err(Malformed::Broken);
        }
        Ok(rest.get(..length))
    }
}

/// Reads a handshake message without records; `None` as long as it is not whole. What follows it is not looked at.
pub fn message(handshake: &[u8]) -> Result<Option<ClientHello>, Malformed> {
    if handshake.first().is_some_and(|&kind| kind != CLIENT_HELLO) {
        return Err(Malformed::Broken);
    }
    let &[_, a, b, c, ref body @ ..] = handshake else {
        return Ok(None);
    };
    let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
    if 4 + length > MAX_BYTES {
        return Err(Malformed::TooLong);
    }
    body.get(..length).map(parse).transpose()
}

fn parse(body: &[u8]) -> Result<ClientHello, Malformed> {
    let mut hello = Fields(body);
    hello.take(2 + 32)?;
    if hello.vector8()?.0.len() > 32 {
        return Err(Malformed::Broken);
    }
    let suites = hello.vector16()?.0.len();
    if suites < 2 || suites % 2 != 0 || hello.vector8()?.0.is_empty() {
        return Err(Malformed::Broken);
    }
    let (mut server_name, mut ech) = (None, false);
    if !hello.is_empty() {
        let mut extensions = hello.vector16()?;
        while !extensions.is_empty() {
            let kind = extensions.u16()?;
            let data = extensions.vector16()?;
            ech |= kind == ENCRYPTED_CLIENT_HELLO;
            if kind == SERVER_NAME && server_name.replace(host_name(data)?).is_some() {
                return Err(Malformed::Broken);
            }
        }
    }
    if hello.is_empty() { Ok(ClientHello { server_name, ech }) } else { Err(Malformed::Broken) }
}

/// RFC 6066 §3 allows one name of each type and defines one type only.
fn host_name(mut extension: Fields<'_>) -> Result<String, Malformed> {
    let mut list = extension.vector16()?;
    let kind = list.u8()?;
    let name = list.vector16()?.0;
    if kind != HOST_NAME || name.is_empty() || !list.is_empty() || !extension.is_empty() {
        return Err(Malformed::Broken);
    }
    String::from_utf8(name.to_vec()).map_err(|_| Malformed::Broken)
}

#[cfg(test)]
mod tests;
