//! Which server name a client asks for, read from the first bytes of its flow. No IO, no clock.
//!
//! Somebody else holds a new flow's packets back and shows their payloads to an [`Inspection`], which says after each:
//! more is needed, the name is [shown](Progress::Shown), or the flow is [unreadable](Progress::Failed).
//!
//! 1. TCP: [`segments`] puts the client's bytes in order, [`client_hello`] reads the TLS records and the message in them.
//! 2. UDP: `quic` opens the Initial packets, whose keys are public (RFC 9001 §5.2), and puts their CRYPTO frames in order;
//!    [`client_hello`] reads the same message without records.
//!
//! What is concluded is what every server would read. Wherever two receivers may take different bytes for the stream
//! (overlapping segments that differ, two connections in one flow, a packet that does not open), the flow is unreadable
//! and never "probably this name". What is kept for one flow is bounded by [`MAX_HELD`] bytes.
//!
//! What only the caller can see to:
//! - A packet that a server would not take must not be shown here, and must not go on: a wrong checksum, a timestamp out of
//!   date, urgent data (RFC 6093: receivers take it out of the stream).
//! - [`Progress::Shown`] is true of the bytes that were shown. As long as the server may not have them, others in their
//!   place must not pass, nor any before [`Inspection::begins_at`].
//! - A QUIC connection that begins later in the same flow is asked about anew.

pub mod client_hello;
mod fields;
mod machine;
mod pieces;
mod quic;
pub mod segments;
mod unreadable;

pub use self::machine::{Followed, Hello, Inspection, MAX_HELD, Progress};
pub use self::quic::destination_id;
pub use self::unreadable::Unreadable;
