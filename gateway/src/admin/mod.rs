//! The admin server: JSON over HTTP/1.1 on a Unix socket that only root and the daemon's own user may use.
//! Its types are [`config::api`]; what a request does is the composition's, behind [`Control`].
//!
//! 1. [`AdminSocket::bind`]: the runtime folder made private (0700), the lock taken, a dead daemon's socket replaced, the
//!    new one made 0600. A live daemon's socket is refused.
//! 2. [`AdminSocket::serve`]: accept, ask the kernel who the peer is (SO_PEERCRED), serve HTTP.
//! 3. `routes.rs`: the routes, as a numbered list.
//!
//! | bound | value | when reached |
//! |---|---|---|
//! | connections at once | [`MAX_CONNECTIONS`] | the next one waits in the socket's backlog |
//! | request body | [`config::api::MAX_BODY`] | 413 |
//! | time to send a request's head, then its body | [`REQUEST_TIME`] each | closed, 408 |
//! | time to answer | [`ANSWER_TIME`] | 504; what was begun is carried through |
//! | stream's queue | the composition's channel | the composition's choice: end the stream |
//! | end at shutdown | [`SHUTDOWN_TIME`] | open streams are cut |
//!
//! Every request runs in a task of its own: a client that hangs up in the middle of `apply` leaves no half-made change.

mod control;
mod routes;
mod server;
mod socket;

use std::time::Duration;

pub use control::{Control, ControlError, Reply};
pub use socket::{AdminError, AdminSocket};

/// Connections that are served at once.
pub const MAX_CONNECTIONS: usize = 64;
/// For the head of a request, and again for its body.
pub const REQUEST_TIME: Duration = Duration::from_secs(10);
/// For the answer, streams excepted.
pub const ANSWER_TIME: Duration = Duration::from_secs(60);
/// For open requests when the daemon ends.
pub const SHUTDOWN_TIME: Duration = Duration::from_secs(3);
