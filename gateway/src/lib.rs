//! Tidegate's daemon.

pub mod admin;
pub mod egress;
pub mod features;
pub mod service;
pub mod settings;
pub mod store;
pub mod sys;
pub mod telemetry;
pub mod edge;
pub mod settings;
pub mod sys;
pub mod workload;
