//! Egress: what a workload may send and receive, decided in the kernel.
//!
//! 1. `bpf/tidegate.bpf.c` holds the three programs and, in its header, the precedence lists they follow.
//! 2. [`tables`] is the one door to what they read and write: pinned maps, typed.
//! 3. [`attach`] puts the programs on a device, so that they stay when this process dies, and puts them back.
//! 4. [`events`] hears of new flows and drops.
//! 5. [`verify`] reads what held flows ask for.
//! 6. [`dns`] answers workloads' lookups; what they learn is opened by the composition.
//!
//! A learned name opens something in this order: `write_rules` for its class, `write_name_class`, `write_name`, `learn`.
//! A change of policy goes through the door in this order: `apply` what the next policies need, `write_name_class` for
//! names in use, `switch` each workload concerned (one write, with its epoch gone up), `apply` what goes, and a second
//! later `remove_rules`. At no instant is more open than under the old or the new state.

pub mod attach;
pub mod dns;
pub mod events;
pub mod tables;
pub mod verify;
