//! Segmentation: tenant networks on this node, by netlink.
//!
//! 1. [`desired`]: the networks and workloads that shall be, as plain values; [`ipam`] and [`attachment`] work out what a
//!    new workload gets.
//! 2. [`observe`]: one look at what is.
//! 3. [`plan`]: the [`step`]s between the two, pure and printable, or [`plan::Refusal`]s with their mend.
//! 4. [`apply`]: takes the steps; when one fails, takes those before it back.
//! 5. [`reconcile`]: the handle [`Segmentation`], with which networks are applied and workloads attached and detached.
//! 6. `keeper` does 2 to 4 for it, and again whenever `watch` or a timer says so; [`status`] says how things stand. `near` does
//!    it for one workload that comes or goes, and finds that what a notice names is as it shall be: neither costs more on a
//!    node with many workloads. What is detached goes in its own time: `departure`.
//!
//! Interfaces that others made, a container engine's bridge above all, are closed and sealed like these, and otherwise left
//! alone: [`adoption`], and [`guard`] for the moment before they are seen.
//!
//! [`names`] says how links are called and marked; only marked ones are ever touched. [`ruleset`] is the nf_tables side.
//! A workload's interface is closed by [`Seal`], which the composition implements with the kernel programs, before it
//! comes up: this flow knows nothing of policies.

pub mod adoption;
pub mod apply;
pub mod attachment;
mod departure;
pub mod desired;
pub mod guard;
pub mod ipam;
mod keeper;
pub mod names;
mod near;
pub mod observe;
pub mod plan;
pub mod reconcile;
pub mod ruleset;
pub mod status;
pub mod step;
mod table;
mod watch;

use crate::workload::{Mac, Workload};

pub use desired::{Desired, Node};
pub use plan::{Plan, Refusal};
pub use reconcile::{Attached, Error, Segmentation};
pub use status::{Port, Segment, Status};

/// What closes a workload's host side before it comes up, and forgets it when it is gone.
pub trait Seal: Send + Sync {
    /// Attaches the kernel programs to the host side with that index, such that nothing passes that the workload's
    /// policies do not allow (nothing at all while they are not known). Called before the link comes up: at attaching,
    /// and again, perhaps with another index, when the link had to be made or set up anew.
    /// `bridge_mac` is what the workload sees as its gateway.
    fn seal(&self, host_ifindex: u32, workload: &Workload, bridge_mac: Mac) -> Result<(), String>;

    /// Called for each connected host side with every look: puts the programs back if others took them away, and says
    /// whether it had to. Must be cheap when there is nothing to do.
    fn keep(&self, host_ifindex: u32, workload: &Workload) -> Result<bool, String>;

    /// The link with that index was deleted because the workload was detached. Not called for a link that went with its
    /// workload's namespace.
    fn unseal(&self, host_ifindex: u32, workload: &Workload);

    /// Attaches the kernel programs to an interface that others made, such that nothing passes until it is sealed.
    fn close(&self, ifindex: u32) -> Result<(), String>;

    /// Takes them from it; it may be gone.
    fn open(&self, ifindex: u32);
}
