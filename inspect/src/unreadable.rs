//! Why no server name can be read from a flow.

use crate::client_hello::Malformed;
use crate::fields::Short;
use crate::pieces::Misfit;

/// Why a flow's first bytes name no server for certain. [`Self::word`] is what records and metrics say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Unreadable {
    /// The first bytes are of another protocol than TLS, or QUIC.
    #[error("the flow begins with neither TLS nor QUIC")]
    NotTls,
    /// A length, a vector, a frame or the server name breaks the format.
    #[error("the ClientHello is malformed")]
    MalformedHello,
    /// More bytes, pieces or packets than are kept of one flow.
    #[error("the ClientHello is longer, or in more pieces, than is read")]
    HelloTooLong,
    /// Two copies of the same bytes differ, or two connections in the flow ask for different names: which of them the
    /// server would take is not known.
    #[error("the flow's first bytes contradict each other")]
    ConflictingSegments,
    /// A QUIC packet of a version other than 1 and 2, whose keys are not known.
    #[error("the QUIC version is neither 1 nor 2")]
    UnknownQuicVersion,
    /// A QUIC packet that belongs to a connection whose beginning was not seen, or whose keys are no longer public.
    #[error("the QUIC packet is not the first of a connection")]
    QuicMidConnection,
}

impl Unreadable {
    /// Each one, for those who list them.
    pub const ALL: [Self; 6] = [
        Self::NotTls,
        Self::MalformedHello,
        Self::HelloTooLong,
        Self::ConflictingSegments,
        Self::UnknownQuicVersion,
        Self::QuicMidConnection,
    ];

    /// The fixed word for records and metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::NotTls => "not-tls",
            Self::MalformedHello => "malformed-hello",
            Self::HelloTooLong => "hello-too-long",
            Self::ConflictingSegments => "conflicting-segments",
            Self::UnknownQuicVersion => "unknown-quic-version",
            Self::QuicMidConnection => "quic-mid-connection",
        }
    }
}

impl From<Malformed> for Unreadable {
    fn from(malformed: Malformed) -> Self {
        match malformed {
            Malformed::NotTls => Self::NotTls,
            Malformed::Broken => Self::MalformedHello,
            Malformed::TooLong => Self::HelloTooLong,
        }
    }
}

impl From<Misfit> for Unreadable {
    fn from(misfit: Misfit) -> Self {
        match misfit {
            Misfit::Conflict => Self::ConflictingSegments,
            Misfit::TooMany => Self::HelloTooLong,
        }
    }
}

impl From<Short> for Unreadable {
    fn from(Short: Short) -> Self {
        Self::MalformedHello
    }
}
