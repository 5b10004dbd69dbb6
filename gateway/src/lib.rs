//! Tidegate's daemon.

pub mod egress;
pub mod service;
pub mod settings;
pub mod sys;
pub mod workload;
