//! The edge on loopback, with real clients (curl, openssl, nghttp, raw TLS) and real backends (nginx, openssl, raw
//! sockets). Certificates are made by `openssl`. Every world has loopback addresses of its own, so that tests run side by
//! side.

mod backend;
mod certificates;
mod client;
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
