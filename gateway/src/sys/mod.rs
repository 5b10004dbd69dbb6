//! The doors to the operating system: the only place with `unsafe`, one function a system call.

pub mod beneath;
pub mod listener;
pub mod pktinfo;
pub mod socket;
pub mod thread_netns;
//! The doors to the operating system. Only here are system calls made by hand, and only here is `unsafe`.
//!
//! | door | to |
//! |---|---|
//! | [`netlink`] | links, addresses, routes, neighbours of a network namespace, and notice of their changes |
//! | [`namespace_helper`] | the child process that alone may enter other network namespaces |
//! | [`netns`] | files that hold a network namespace open |
//! | [`sysctl`] | `/proc/sys/net` |
//! | [`nft`] | nf_tables, through the `nft` program |
//! | [`caps`] | this process's own capabilities |

pub mod caps;
pub mod namespace_helper;
pub mod netlink;
pub mod netns;
pub mod nft;
mod passing;
pub mod sysctl;
