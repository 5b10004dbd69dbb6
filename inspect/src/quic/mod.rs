//! The beginning of a QUIC connection, version 1 (RFC 9000, RFC 9001) or 2 (RFC 9369), as its client sends it.
//!
//! 1. [`header`] cuts a datagram into packets.
//! 2. [`initial`] opens an Initial packet with the keys that its destination connection ID gives. A client keeps that ID
//!    until it has an answer; after a Retry it begins anew with the server's, and the keys follow it.
//! 3. [`frames`] finds the CRYPTO frames, whose bytes are put in order for each [`connection`].
//!
//! A client may send a server whatever it likes beside the packets that are read here, so that nothing is left out that a
//! server might read otherwise: an Initial packet that does not open, a second connection with another name, a packet
//! number used twice with more CRYPTO bytes, another version, each ends the reading. Packets without a ClientHello (0-RTT,
//! Handshake, short header) are skipped once the flow has an Initial packet.

mod connection;
mod frames;
mod header;
mod initial;

use self::connection::Connection;
use self::header::Packet;
pub use self::header::destination_id;
use self::initial::Initial;
use crate::client_hello::{ClientHello, MAX_BYTES};
use crate::machine::Followed;
use crate::unreadable::Unreadable;

/// Connections that are kept of one flow.
const MAX_CONNECTIONS: usize = 4;
/// Packets that are looked at in one flow.
const MAX_PACKETS: usize = 256;
/// Bytes kept of one flow beside CRYPTO streams and what was read in them: packet numbers and connection IDs.
pub(crate) const MAX_BESIDE: usize = MAX_PACKETS * size_of::<u64>() + MAX_CONNECTIONS * header::MAX_ID;

/// The datagrams of one flow, from its first.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    connections: Vec<Connection>,
    packets: usize,
}

impl Flow {
    /// Takes the next datagram; `Some` once every connection that the flow has begun has shown the same ClientHello's name.
    pub(crate) fn push(&mut self, datagram: &[u8]) -> Result<Option<ClientHello>, Unreadable> {
        let mut rest = datagram;
        let mut stray = None;
        while !rest.is_empty() {
            self.packets += 1;
            if self.packets > MAX_PACKETS {
                return Err(Unreadable::HelloTooLong);
            }
            let (packet, behind) = header::split(rest)?;
            match packet {
                Packet::Initial(initial) => self.take(&initial)?,
                Packet::Later => stray = stray.or(Some(Unreadable::QuicMidConnection)),
                Packet::NotQuic => stray = stray.or(Some(Unreadable::NotTls)),
            }
            rest = behind;
        }
        match stray {
            Some(stray) if self.connections.is_empty() => Err(stray),
            Some(_) | None => self.shown(),
        }
    }

    /// What a later datagram of the shown flow is. A client's Initial packets go on under the first one's keys, whatever
    /// ID the server has given it meanwhile (RFC 9001 §5.2).
    pub(crate) fn follow(&mut self, datagram: &[u8]) -> Followed {
        let mut rest = datagram;
        while !rest.is_empty() {
            self.packets += 1;
            let split = if self.packets > MAX_PACKETS { Err(Unreadable::HelloTooLong) } else { header::split(rest) };
            let (packet, behind) = match split {
                Ok(split) => split,
                Err(unreadable) => return Followed::Failed(unreadable),
            };
            if let Packet::Initial(initial) = packet {
                let own = |connection: &&mut Connection| connection.owns(&initial) || connection.opens(&initial);
                match self.connections.iter_mut().find(own).map(|connection| connection.take(&initial)) {
                    Some(Ok(())) => {}
                    Some(Err(unreadable)) => return Followed::Failed(unreadable),
                    None => return Followed::Another,
                }
            }
            rest = behind;
        }
        Followed::Same
    }

    /// Bytes kept.
    pub(crate) fn held(&self) -> usize {
        self.connections.iter().map(Connection::held).sum()
    }

    fn take(&mut self, initial: &Initial<'_>) -> Result<(), Unreadable> {
        if let Some(connection) = self.connections.iter_mut().find(|connection| connection.owns(initial)) {
            connection.take(initial)?;
        } else {
            let connection = Connection::begin(initial)?;
            if self.connections.len() == MAX_CONNECTIONS {
                return Err(Unreadable::HelloTooLong);
            }
            self.connections.push(connection);
        }
        let bytes: usize = self.connections.iter().map(Connection::crypto_bytes).sum();
        if bytes > MAX_BYTES { Err(Unreadable::HelloTooLong) } else { Ok(()) }
    }

    fn shown(&self) -> Result<Option<ClientHello>, Unreadable> {
        let mut hellos = self.connections.iter().map(Connection::hello);
        let Some(Some(first)) = hellos.next() else {
            return Ok(None);
        };
        let others: Option<Vec<&ClientHello>> = hellos.collect();
        match others {
            None => Ok(None),
            Some(others) if others.iter().all(|other| *other == first) => Ok(Some(first.clone())),
            Some(_) => Err(Unreadable::ConflictingSegments),
        }
    }
}
