//! Segmentation against the real kernel: the node of each test is a network namespace of its own.
//!
//! On an emulated machine load the modules first, which takes minutes when each is asked for by itself:
//! `modprobe -a 8021q bridge veth nft_chain_nat nft_masq nft_ct`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod helper;
mod networks;
mod vlan;
mod watching;
mod workloads;
mod world;
