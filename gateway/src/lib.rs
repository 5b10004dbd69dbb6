//! Tidegate's daemon.

pub mod features;
pub mod settings;
pub mod workload;
