//! The others: real servers in the worlds' namespaces.

pub mod certificates;
pub mod cni;
pub mod dns;
pub mod docker;
pub mod numbers;
pub mod podman;
pub mod query;
pub mod quic;
pub mod tls;
pub mod web;
