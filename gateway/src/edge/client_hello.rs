//! Reads the server name out of a TLS ClientHello (RFC 8446 §4.1.2, RFC 6066 §3) without answering it.
//!
//! Pure and bounded: bytes are pushed as they come, split anywhere, each is looked at once, and at most [`MAX_BYTES`] are
//! kept so that whoever serves the connection reads them again.

/// Bytes of TLS records that a ClientHello may take.
pub(super) const MAX_BYTES: usize = 64 * 1024;

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;
/// RFC 8446 §5.1
const MAX_FRAGMENT: usize = 1 << 14;

/// What is known of a ClientHello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ClientHello {
    /// The `host_name` of the server_name extension, as sent.
    pub(super) server_name: Option<String>,
}

/// Why the bytes are no ClientHello.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
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

/// Collects a connection's first bytes.
#[derive(Debug, Default)]
pub(super) struct Reader {
    raw: Vec<u8>,
    next_record: usize,
    handshake: Vec<u8>,
}

impl Reader {
    /// Takes the next bytes; `Some` once the ClientHello is whole.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Option<ClientHello>, Malformed> {
        self.raw.extend_from_slice(bytes);
        while let Some(fragment) = whole_record(&self.raw[self.next_record..])? {
            self.handshake.extend_from_slice(fragment);
            self.next_record += 5 + fragment.len();
            if let Some(hello) = self.whole_message()? {
                return Ok(Some(hello));
            }
        }
        if self.raw.len() >= MAX_BYTES { Err(Malformed::TooLong) } else { Ok(None) }
    }

    /// Every byte pushed, to be read again.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.raw
    }

    fn whole_message(&self) -> Result<Option<ClientHello>, Malformed> {
        let &[kind, a, b, c, ref body @ ..] = self.handshake.as_slice() else {
            return Ok(None);
        };
        if kind != CLIENT_HELLO {
            return Err(Malformed::Broken);
        }
        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        if length > MAX_BYTES {
            return Err(Malformed::TooLong);
        }
        body.get(..length).map(parse).transpose()
    }
}

fn whole_record(bytes: &[u8]) -> Result<Option<&[u8]>, Malformed> {
    if bytes.first().is_some_and(|&kind| kind != HANDSHAKE) || bytes.get(1).is_some_and(|&major| major != 3) {
        return Err(Malformed::NotTls);
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
    let mut server_name = None;
    if !hello.0.is_empty() {
        let mut extensions = hello.vector16()?;
        while !extensions.0.is_empty() {
            let kind = extensions.u16()?;
            let data = extensions.vector16()?;
            if kind == SERVER_NAME && server_name.replace(host_name(data)?).is_some() {
                return Err(Malformed::Broken);
            }
        }
    }
    if hello.0.is_empty() { Ok(ClientHello { server_name }) } else { Err(Malformed::Broken) }
}

/// RFC 6066 §3 allows one name of each type and defines one type only.
fn host_name(mut extension: Fields<'_>) -> Result<String, Malformed> {
    let mut list = extension.vector16()?;
    let kind = list.take(1)?;
    let name = list.vector16()?.0;
    if kind != [HOST_NAME] || name.is_empty() || !list.0.is_empty() || !extension.0.is_empty() {
        return Err(Malformed::Broken);
    }
    String::from_utf8(name.to_vec()).map_err(|_| Malformed::Broken)
}

/// What is left of a structure.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed::Broken)?;
        self.0 = rest;
        Ok(taken)
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn vector8(&mut self) -> Result<Self, Malformed> {
        let length = usize::from(self.take(1)?[0]);
        self.take(length).map(Fields)
    }

    fn vector16(&mut self) -> Result<Self, Malformed> {
        let length = usize::from(self.u16()?);
        self.take(length).map(Fields)
    }
}

#[cfg(test)]
mod tests;
