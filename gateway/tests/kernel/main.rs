//! The kernel programs through the real door: on frames by `BPF_PROG_TEST_RUN`, and on real flows between network
//! namespaces. Needs root; everything lives in namespaces and on a bpf file system of its own.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod admin;
mod answers;
mod attaching;
mod audit;
mod conformance;
mod echo;
mod errors;
mod fast;
mod flows;
mod frames;
mod from_service;
mod from_workload;
mod hold;
mod live;
mod nat;
mod nat_frames;
mod nat_live;
mod nat_own;
mod pressure;
mod reject;
mod restart;
mod service;
mod shortcut;
mod sight;
mod to_workload;
mod world;
