//! Tidegate's daemon.

pub mod settings;
pub mod workload;
