//! Builds a client's Initial packets (RFC 9000 §17.2.2) and protects them as RFC 9001 §5 says.

use rustls::Side;
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::quic::Version;

/// An Initial packet to be.
#[derive(Clone, Copy)]
pub(crate) struct Initial<'a> {
    pub(crate) version: Version,
    pub(crate) destination: &'a [u8],
    /// Whose keys protect it, if it is not the destination.
    pub(crate) keys_of: Option<&'a [u8]>,
    pub(crate) token: &'a [u8],
    pub(crate) number: u64,
    /// 1–4.
    pub(crate) number_length: usize,
    /// Bytes that the packet has at least, by PADDING.
    pub(crate) at_least: usize,
    pub(crate) reserved_bits: u8,
    /// Without the bit that all packets of QUIC have (RFC 9287).
    pub(crate) is_greased: bool,
}

impl Default for Initial<'_> {
    fn default() -> Self {
        Self {
            version: Version::V1,
            destination: &[0x83, 0x94, 0xc8, 0xf0, 0x3e, 0x51, 0x57, 0x08],
            keys_of: None,
            token: &[],
            number: 0,
            number_length: 1,
            at_least: 1200,
            reserved_bits: 0,
            is_greased: false,
        }
    }
}

impl Initial<'_> {
    /// The protected packet with these frames.
    pub(crate) fn seal(&self, frames: &[u8]) -> Vec<u8> {
        let (number, kind): (u32, u8) = match self.version {
            Version::V2 => (0x6b33_43cf, 1),
            _ => (1, 0),
        };
        let long = if self.is_greased { 0x80 } else { 0xc0 };
        let mut header = vec![long | kind << 4 | self.reserved_bits << 2 | (self.number_length as u8 - 1)];
        header.extend(number.to_be_bytes());
        header.push(self.destination.len() as u8);
        header.extend(self.destination);
        header.push(0);
        header.extend(two_bytes(self.token.len()));
        if self.token.is_empty() {
            header.truncate(header.len() - 2);
            header.push(0);
        }
        header.extend(self.token);
        let behind_length = header.len() + 2 + self.number_length;
        let mut payload = frames.to_vec();
        payload.resize(payload.len().max(self.at_least.saturating_sub(behind_length + 16)), 0);
        header.extend(two_bytes(self.number_length + payload.len() + 16));
        let number_at = header.len();
        header.extend(&self.number.to_be_bytes()[8 - self.number_length..]);

        let suite = TLS13_AES_128_GCM_SHA256.tls13().unwrap().quic_suite().unwrap();
        let keys = suite.keys(self.keys_of.unwrap_or(self.destination), Side::Client, self.version).local;
        let tag = keys.packet.encrypt_in_place(self.number, &header, &mut payload).unwrap();
        let mut packet = [&header, &payload, tag.as_ref()].concat();
        let sample: [u8; 16] = packet[number_at + 4..number_at + 20].try_into().unwrap();
        let (first, rest) = packet.split_first_mut().unwrap();
        let number = &mut rest[number_at - 1..][..self.number_length];
        keys.header.encrypt_in_place(&sample, first, number).unwrap();
        packet
    }
}

/// A CRYPTO frame.
pub(crate) fn crypto(offset: usize, bytes: &[u8]) -> Vec<u8> {
    [&[6][..], &(0x8000_0000 | offset as u32).to_be_bytes(), &two_bytes(bytes.len()), bytes].concat()
}

/// A QUIC number in two bytes.
pub(crate) fn two_bytes(number: usize) -> [u8; 2] {
    (0x4000 | number as u16).to_be_bytes()
}
