//! What workloads may reach.

pub mod dns;
