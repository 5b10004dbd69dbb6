//! The doors to the operating system: all `unsafe` of the daemon, one function a call.

pub mod bpf;
#[macro_use]
pub(crate) mod bpf_plain;
pub mod bpf_test_run;
