//! The frames that an Initial packet may have (RFC 9000 §12.4): CRYPTO is read, the others are skipped.

use crate::fields::Fields;
use crate::unreadable::Unreadable;

const PADDING: u64 = 0x00;
const PING: u64 = 0x01;
const ACK: u64 = 0x02;
const ACK_WITH_ECN: u64 = 0x03;
const CRYPTO: u64 = 0x06;
const CONNECTION_CLOSE: u64 = 0x1c;
/// No stream has a byte past it.
const LAST_OFFSET: u64 = (1 << 62) - 1;

/// A CRYPTO frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Crypto<'a> {
    pub(super) offset: u64,
    pub(super) bytes: &'a [u8],
}

/// What is left of a packet's payload.
pub(super) struct Frames<'a>(Fields<'a>);

impl<'a> Frames<'a> {
    pub(super) fn new(payload: &'a [u8]) -> Self {
        Self(Fields(payload))
    }

    /// The next CRYPTO frame; `None` at the end.
    pub(super) fn next_crypto(&mut self) -> Result<Option<Crypto<'a>>, Unreadable> {
        let fields = &mut self.0;
        while !fields.is_empty() {
            match fields.varint()? {
                PADDING | PING => {}
                ACK => skip_ack(fields)?,
                ACK_WITH_ECN => {
                    skip_ack(fields)?;
                    skip_numbers(fields, 3)?;
                }
                CRYPTO => {
                    let offset = fields.varint()?;
                    let bytes = fields.vector_varint()?;
                    if offset + bytes.len() as u64 > LAST_OFFSET {
                        return Err(Unreadable::MalformedHello);
                    }
                    return Ok(Some(Crypto { offset, bytes }));
                }
                CONNECTION_CLOSE => {
                    skip_numbers(fields, 2)?;
                    fields.vector_varint()?;
                }
                _ => return Err(Unreadable::MalformedHello),
            }
        }
        Ok(None)
    }
}

/// Largest, delay, count of ranges, first range; then a gap and a length for each range (RFC 9000 §19.3).
fn skip_ack(fields: &mut Fields<'_>) -> Result<(), Unreadable> {
    skip_numbers(fields, 2)?;
    let ranges = fields.varint()?;
    // Each takes two bytes at least, so that a false count ends with the packet.
    skip_numbers(fields, 1)?;
    for _ in 0..ranges {
        skip_numbers(fields, 2)?;
    }
    Ok(())
}

fn skip_numbers(fields: &mut Fields<'_>, count: usize) -> Result<(), Unreadable> {
    for _ in 0..count {
        fields.varint()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cryptos(payload: &[u8]) -> Result<Vec<Crypto<'_>>, Unreadable> {
        let mut frames = Frames::new(payload);
        std::iter::from_fn(|| frames.next_crypto().transpose()).collect()
    }

    #[test]
    fn crypto_among_the_others() {
        let payload = [
            &[0x00, 0x01][..],
            &[0x02, 0x40, 0x09, 0x00, 0x02, 0x01, 0x00, 0x00, 0x01, 0x01],
            &[0x06, 0x05, 0x02, b'a', b'b'],
            &[0x03, 0x09, 0x00, 0x00, 0x01, 0x07, 0x08, 0x09],
            &[0x40, 0x06, 0x00, 0x01, b'c'],
            &[0x1c, 0x01, 0x06, 0x03, b'b', b'y', b'e'],
            &[0x06, 0x00, 0x00, 0x00],
        ]
        .concat();
        let found = cryptos(&payload).unwrap();
        let expected = [(5, &b"ab"[..]), (0, b"c"), (0, b"")].map(|(offset, bytes)| Crypto { offset, bytes });
        assert_eq!(found, expected);
    }

    #[test]
    fn what_an_initial_packet_must_not_have() {
        for payload in [&[0x04, 0, 0][..], &[0x08, 0], &[0x1d, 0, 0], &[0x1e], &[0x05], &[0x7f, 0xff]] {
            assert_eq!(cryptos(payload), Err(Unreadable::MalformedHello), "{payload:?}");
        }
    }

    #[test]
    fn frames_that_are_cut_off() {
        let false_count = [0x02, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0];
        let past_the_last_offset = [0x06, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, b'a'];
        for payload in [&false_count[..], &past_the_last_offset, &[0x06], &[0x06, 0, 2, b'a'], &[0x1c, 0, 0, 1]] {
            assert_eq!(cryptos(payload), Err(Unreadable::MalformedHello), "{payload:?}");
        }
    }
}
