//! Takes the protection off a client's Initial packet (RFC 9001 §5). Its keys keep nothing secret: they come from the
//! connection ID in its header.

use rustls::Side;
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::quic::{DirectionalKeys, Version};

use crate::unreadable::Unreadable;

const NUMBER_LENGTH: u8 = 3;
const RESERVED: u8 = 0x0c;
/// The sample for the header's protection begins where a packet number of the longest form would end.
const LONGEST_NUMBER: usize = 4;

/// An Initial packet as it was sent.
#[derive(Debug)]
pub(super) struct Initial<'a> {
    pub(super) version: Version,
    pub(super) destination: &'a [u8],
    /// From its first byte to its last.
    pub(super) packet: &'a [u8],
    /// Where the packet number begins.
    pub(super) number_at: usize,
}

/// An Initial packet without protection.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) number: u64,
    /// The frames.
    pub(super) payload: Vec<u8>,
}

/// The keys of the client's packets. Version and suite are known, so that only a build without QUIC has none.
pub(super) fn client_keys(version: Version, destination: &[u8]) -> Option<DirectionalKeys> {
    let suite = TLS13_AES_128_GCM_SHA256.tls13()?.quic_suite()?;
    Some(suite.keys(destination, Side::Server, version).remote)
}

impl Initial<'_> {
    /// Opens the packet; `largest` is the largest packet number that the connection has had.
    pub(super) fn open(&self, keys: &DirectionalKeys, largest: Option<u64>) -> Result<Opened, Unreadable> {
        let mut packet = self.packet.to_vec();
        let (header, protected) = packet.split_at_mut(self.number_at);
        let sample_length = keys.header.sample_len();
        let Some((number, behind)) = protected.split_at_mut_checked(LONGEST_NUMBER) else {
            return Err(Unreadable::MalformedHello);
        };
        let sample = behind.get(..sample_length).ok_or(Unreadable::MalformedHello)?;
        // Of the four bytes only as many as the number has are changed.
        keys.header.decrypt_in_place(sample, &mut header[0], number).map_err(|_| Unreadable::MalformedHello)?;
        let first = header[0];
        let length = usize::from(first & NUMBER_LENGTH) + 1;
        let truncated = number[..length].iter().fold(0, |number: u64, &byte| number << 8 | u64::from(byte));
        let number = whole_number(truncated, length, largest);
        let (header, payload) = packet.split_at_mut(self.number_at + length);
        let payload =
            keys.packet.decrypt_in_place(number, header, payload).map_err(|_| Unreadable::QuicMidConnection)?;
        // RFC 9000 §17.2 and §12.4: a server ends a connection for either.
        if first & RESERVED != 0 || payload.is_empty() {
            return Err(Unreadable::MalformedHello);
        }
        Ok(Opened { number, payload: payload.to_vec() })
    }
}

/// RFC 9000 §A.3: of the numbers that end so, the nearest to the next one expected.
fn whole_number(truncated: u64, length: usize, largest: Option<u64>) -> u64 {
    let expected = largest.map_or(0, |largest| largest + 1);
    let window = 1 << (8 * length);
    let candidate = expected & !(window - 1) | truncated;
    if candidate + window / 2 <= expected && candidate < (1 << 62) - window {
        candidate + window
    } else if candidate > expected + window / 2 && candidate >= window {
        candidate - window
    } else {
        candidate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_near_the_expected_one() {
        assert_eq!(whole_number(0x9b32, 2, Some(0xa82f_30ea)), 0xa82f_9b32, "the example of RFC 9000 §A.3");
        assert_eq!(whole_number(2, 1, None), 2);
        assert_eq!(whole_number(255, 1, None), 255, "nothing is below zero");
        assert_eq!(whole_number(1, 1, Some(255)), 257);
        assert_eq!(whole_number(255, 1, Some(256)), 255);
        let last = (1 << 62) - 1;
        assert_eq!(whole_number(0, 4, Some(last)), 1 << 62, "past the last number, where no packet opens");
    }
}
