//! Segmentation against the real kernel: the node of each test is a network namespace of its own.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod helper;
mod networks;
mod vlan;
mod watching;
mod workloads;
mod world;
