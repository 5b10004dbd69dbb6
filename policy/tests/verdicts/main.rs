//! The crate through its public door: semantics, golden tables, and the tables held against the verdicts.

#![expect(clippy::unwrap_used, reason = "all of this crate is tests, its builders included")]

mod admin;
mod audit;
mod conformance;
mod draw;
mod equivalence;
mod golden;
mod kernel;
mod ledger;
mod naive;
mod network_policies;
mod peers;
mod resolving;
mod scale;
mod semantics;
mod sequences;
mod sets;
mod text;
mod verify;
mod world;
