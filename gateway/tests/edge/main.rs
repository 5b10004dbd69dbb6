//! The edge on loopback, with real clients (curl, openssl, nghttp, raw TLS) and real backends (nginx, openssl, raw
//! sockets). Certificates are made by `openssl`. Every world has loopback addresses of its own, so that tests run side by
//! side.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod backend;
mod certificates;
mod client;
mod endings;
mod failures;
mod http;
mod observed;
mod passthrough;
mod pki;
mod programs;
mod smuggling;
mod tls;
mod upgrades;
mod world;
