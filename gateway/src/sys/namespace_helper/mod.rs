//! The namespace helper: the one process that may enter other network namespaces.
//!
//! The daemon gives CAP_SYS_ADMIN away after its start; what needs it is done by a child that can do three things and
//! nothing else:
//! 1. open `/proc/PID/ns/net` of a process and hand the file back;
//! 2. open a route netlink socket inside a namespace and hand it back;
//! 3. write a fixed list of settings ([`server`]) for one interface of a namespace.
//!
//! It refuses what is not a network namespace, and the node's own. Protocol: one JSON message a request and one an
//! answer over a `SOCK_SEQPACKET` pair, with the namespace's or the socket's descriptor by SCM_RIGHTS; requests are
//! numbered, so that an answer that comes too late is told from the next one.
//!
//! - [`HelperProcess::start`] starts the child (`gateway namespace-helper`, its end of the pair as descriptor
//!   [`DESCRIPTOR`]) while the daemon still has all capabilities; [`run`] is what the child does.
//! - [`NamespaceHelper`] is the daemon's side: one request at a time, each with a [`DEADLINE`]. The child ends when the
//!   pair is closed. If it dies earlier it is not started again, because the daemon may not give it its capability:
//!   requests then fail with [`HelperError::Dead`], and `status` says so.
//!
//! Queue: the pair's socket buffer, with one request under way.

mod client;
mod server;

use config::names::InterfaceName;
use serde::{Deserialize, Serialize};

pub use client::{DEADLINE, HelperError, HelperProcess, NamespaceHelper, OpenError};
pub use server::run;

/// Where the child finds its end of the pair.
pub const DESCRIPTOR: i32 = 3;

/// The hidden subcommand of `gateway` that calls [`run`].
pub const SUBCOMMAND: &str = "namespace-helper";

/// A request; [`Request::OpenProcessNamespace`] comes alone, the others with a namespace's descriptor.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum Request {
    /// Answered with the namespace's descriptor.
    OpenProcessNamespace {
        /// Process (or thread) id.
        process: u32,
    },
    /// Answered with the socket's descriptor.
    OpenRouteSocket,
    /// Answered when all are written.
    WriteSettings {
        /// In the namespace.
        interface: InterfaceName,
        /// Whether a router on the segment advertises itself.
        accept_router_advertisements: bool,
    },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    number: u64,
    request: Request,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Answered {
    number: u64,
    /// Why not; nothing when it is done.
    refused: Option<String>,
}
