//! Where the flows meet: the daemon from its start to its end.
//!
//! Files: [`desired`] is what the node should be; [`manifests`] make the next of it; [`reload`] carries one change through
//! all flows; [`attachment`] does that for a workload that comes or goes, for container engines by [`cni`], for ports of adopted bridges by [`adoption`] with what [`engines`] say; [`sets`] for the prefixes of address sets, long
//! ones by [`loading`]; [`leases`] wait for workloads that come again; [`enforcement`] is policy in the kernel's tables, with [`portions`] of what takes long and
//! [`placing`] for workloads' entries; [`names`] is what DNS adds to
//! it, [`verify`] judges held flows by the name in their handshake, [`rebinding`] is where names may not lead, and [`slots`] carries that through a change of policy; [`seal`] and [`ports`] close a new workload's host side;
//! [`numbers`] are never used twice; [`endpoints`] is the edge's side;
//! [`uplink`] is the way past the node's stack and [`nat`] what is translated there,
//! [`nat_overlap`] who else uses its ports, [`egress_address`] whether a network's own address is free, [`presence`] whether its VLAN is there; [`watching`] keeps
//! it all as it should be; [`control`] answers the admin socket with [`views`], [`report`], [`explain`] and [`history`];
//! [`trial`] takes back what nobody confirms, [`management`] what would cut the node off; [`gate`] holds it together.
//!
//! The start, in the order in which rights are given up:
//! 1. `start::prepare`, one thread, all rights: settings, the kernel's features, the bpf file system, the service namespace,
//!    the namespace helper. Then every capability goes that is not named in [`crate::sys::caps::DAEMON`].
//! 2. `start::serve`, on the runtime: the admin socket's lock, the store, the kernel's tables with what they held.
//! 3. The stored state is put in force: links, then policies, then certificates. What cannot be done is a condition in
//!    `status` and is tried again; the rest runs.
//! 4. DNS, metrics and the admin socket answer. Ready.
//! 5. SIGTERM or SIGINT: the edge drains, and the programs, tables and links stay as they are.

mod adoption;
mod answers;
mod attachment;
mod cni;
mod control;
mod desired;
mod egress_address;
mod endpoints;
mod enforcement;
mod engines;
mod explain;
mod gate;
mod history;
mod leases;
mod loading;
mod management;
mod manifests;
mod names;
mod nat;
mod nat_overlap;
mod numbers;
mod placing;
mod portions;
mod ports;
mod presence;
mod rebinding;
mod reload;
mod report;
mod seal;
mod sets;
mod slots;
mod start;
mod trial;
mod uplink;
mod upstreams;
mod verify;
mod views;
mod watching;

pub use start::{StartError, check, run};
