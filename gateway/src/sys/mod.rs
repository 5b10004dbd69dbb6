//! The doors to the operating system: the only place with `unsafe`, one function a system call.

#[macro_use]
pub(crate) mod bpf_plain;

pub mod beneath;
pub mod bpf;
pub mod bpf_query;
pub mod bpf_test_run;
pub mod caps;
pub mod interface;
pub mod listener;
pub mod lockdown;
pub mod mount;
pub mod namespace_helper;
pub mod netlink;
pub mod netns;
pub mod nft;
pub mod open_files;
mod passing;
pub mod pktinfo;
pub mod reserved_ports;
pub mod socket;
pub mod sysctl;
pub mod tap;

/// What a system call says that answers 0, or less and `errno`.
fn check(answer: impl Into<libc::c_long>) -> std::io::Result<()> {
    if answer.into() < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}
