//! Tidegate's daemon.

pub mod admin;
pub mod features;
pub mod settings;
pub mod store;
pub mod telemetry;
pub mod egress;
pub mod service;
pub mod settings;
pub mod sys;
pub mod workload;
