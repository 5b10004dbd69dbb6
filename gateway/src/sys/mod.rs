//! The doors to the operating system: the only place with `unsafe`, one function a system call.

pub mod beneath;
pub mod listener;
pub mod pktinfo;
pub mod socket;
pub mod thread_netns;
