//! Tidegate's verdicts: resources and time in, verdicts and kernel tables out. Pure: no tokio, aya or netlink; the
//! clock is an argument, and the same input always gives the same output.
//!
//! 1. [`model`]: a view of the validated resources, and who is selected by what; [`tiers`]: policies and their rules.
//! 2. [`peers`]: the workloads behind addresses, for rules that select workloads.
//! 3. [`decide`](mod@decide): the verdict, naive and obviously right. What `netctl explain` says, and what the rest is
//!    held against.
//! 4. [`compile`](mod@compile): the same verdicts as tables: prefixes to classes, and (policy, class, protocol, port) to a
//!    rule. They are kept, and a change is what it changes in them ([`tables::Step`]).
//! 5. [`ledger`]: which names each workload resolved to which addresses, until when, and what of it the kernel holds.
//! 6. [`tables`] and [`reason`]: the vocabulary shared with the kernel programs.
//!
//! The tests compile random resources, ask the tables the way the kernel does, and compare with `decide`.

pub mod compile;
pub mod decide;
pub mod ledger;
pub mod model;
pub mod peers;
pub mod reason;
pub mod tables;
pub mod tiers;

pub use compile::{Compiled, NameClass, compile};
pub use decide::name::{Grounds, Resolve};
pub use decide::{Decision, Inbound, Origin, Outbound, Query, Resolved, Shown, Target, Unshown, decide};
pub use ledger::Ledger;
pub use model::{Listener, Model, Node, Probes, Subject};
pub use peers::Resident;
