//! Tidegate's daemon.

pub mod edge;
pub mod settings;
pub mod sys;
pub mod workload;
