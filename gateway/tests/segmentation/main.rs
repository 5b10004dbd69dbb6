//! Segmentation against the real kernel: the node of each test is a network namespace of its own.

mod helper;
mod networks;
mod vlan;
mod watching;
mod workloads;
mod world;
