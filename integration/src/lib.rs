//! Worlds of network namespaces in which Tidegate's real binaries are tried against real peers.
//!
//! 1. [`world`] makes namespaces, links and a folder, and takes all of it away again.
//! 2. [`namespace`] runs commands and code inside one of them, [`traffic`] sends and listens there,
//!    [`frame`] and [`capture`] speak raw Ethernet.
//! 3. [`peers`] are the others: a DNS server, web servers, echo servers, certificates.
//! 4. [`daemon`] is the gateway under test and its command line, [`site`] puts one node, one internet and pods together,
//!    [`switch`] adds a trunk with VLANs, [`beyond`] a host behind a small MTU, [`manifests`] holds the resources that the tests apply,
//!    [`conformance`] finds cases that others wrote.
//! 5. [`vm`] boots a second kernel over this file system and runs a list of tests there; [`roster`] is that list.
//!
//! Whatever cannot be built is a failed test: functions here panic and say what they tried. Every wait has a bound
//! ([`wait`]), every process is ended by its id, and only [`sys`] calls the kernel directly.

pub mod beyond;
pub mod capture;
pub mod conformance;
pub mod daemon;
pub mod frame;
pub mod kernel;
pub mod manifests;
pub mod namespace;
pub mod peers;
pub mod process;
pub mod roster;
pub mod site;
pub mod switch;
pub mod sys;
pub mod traffic;
pub mod vm;
pub mod wait;
pub mod world;

pub use site::{Pod, Site};
