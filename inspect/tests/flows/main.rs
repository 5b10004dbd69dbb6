//! Flows as clients send them, and as nobody should, through the crate's public door.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod corpus;
mod hellos;
mod initial;
mod quic;
mod random;
mod tcp;
mod vectors;

use inspect::{Hello, Progress};

/// What a flow shows whose ClientHello names `name`.
fn shown(name: &str) -> Progress {
    Progress::Shown(Hello { server_name: Some(name.parse().unwrap()), ech: false })
}
