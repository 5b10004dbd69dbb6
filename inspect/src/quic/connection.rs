//! One connection that a flow has begun: its keys, its packet numbers and its CRYPTO stream.

use std::fmt;

use rustls::quic::{DirectionalKeys, Version};

use super::frames::Frames;
use super::initial::{self, Initial, Opened};
use crate::client_hello::{self, ClientHello};
use crate::pieces::Pieces;
use crate::unreadable::Unreadable;

/// A connection, by its version and the destination connection ID of its Initial packets.
pub(super) struct Connection {
    version: Version,
    destination: Vec<u8>,
    keys: DirectionalKeys,
    numbers: Vec<u64>,
    crypto: Pieces,
    hello: Option<ClientHello>,
}

impl Connection {
    /// Opens a connection's first packet.
    pub(super) fn begin(initial: &Initial<'_>) -> Result<Self, Unreadable> {
        let version = initial.version;
        let destination = initial.destination.to_vec();
        let keys = initial::client_keys(version, &destination).ok_or(Unreadable::UnknownQuicVersion)?;
        let (numbers, crypto, hello) = (Vec::new(), Pieces::default(), None);
        let mut connection = Self { version, destination, keys, numbers, crypto, hello };
        connection.take(initial)?;
        Ok(connection)
    }

    /// Whether the packet says that it is of this connection.
    pub(super) fn owns(&self, initial: &Initial<'_>) -> bool {
        matches!((self.version, initial.version), (Version::V1, Version::V1) | (Version::V2, Version::V2))
            && self.destination == initial.destination
    }

    /// Whether the packet opens under this connection's keys.
    pub(super) fn opens(&self, initial: &Initial<'_>) -> bool {
        matches!((self.version, initial.version), (Version::V1, Version::V1) | (Version::V2, Version::V2))
            && initial.open(&self.keys, self.numbers.iter().max().copied()).is_ok()
    }

    /// Opens a packet and takes its CRYPTO frames.
    pub(super) fn take(&mut self, initial: &Initial<'_>) -> Result<(), Unreadable> {
        let Opened { number, payload } = initial.open(&self.keys, self.numbers.iter().max().copied())?;
        let is_repeated = self.numbers.contains(&number);
        if !is_repeated {
            self.numbers.push(number);
        }
        let mut frames = Frames::new(&payload);
        while let Some(frame) = frames.next_crypto()? {
            let offset = usize::try_from(frame.offset).unwrap_or(usize::MAX);
            let is_new = self.crypto.insert(offset, frame.bytes)?;
            // A server takes one packet of each number, and which one is not known.
            if is_new && is_repeated {
                return Err(Unreadable::ConflictingSegments);
            }
        }
        if self.hello.is_none() {
            self.hello = client_hello::message(self.crypto.contiguous())?;
        }
        Ok(())
    }

    /// The ClientHello, once it is whole.
    pub(super) fn hello(&self) -> Option<&ClientHello> {
        self.hello.as_ref()
    }

    /// Bytes of the CRYPTO stream that are kept.
    pub(super) fn crypto_bytes(&self) -> usize {
        self.crypto.held()
    }

    /// Bytes kept.
    pub(super) fn held(&self) -> usize {
        let hello = self.hello.as_ref().map_or(0, ClientHello::held);
        self.crypto.held() + hello + self.numbers.len() * size_of::<u64>() + self.destination.len()
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("version", &self.version).field("destination", &self.destination).finish()
    }
}
