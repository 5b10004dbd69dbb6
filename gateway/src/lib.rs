//! Tidegate's daemon.

#[macro_use]
pub mod sys;

pub mod egress;
pub mod settings;
pub mod workload;
