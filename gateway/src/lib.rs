//! Tidegate's daemon: the three flows, what they stand on, and where they meet ([`app`]).

#[macro_use]
pub mod sys;

pub mod admin;
pub mod app;
pub mod edge;
pub mod egress;
pub mod features;
pub mod files;
pub mod segmentation;
pub mod service;
pub mod settings;
pub mod store;
pub mod telemetry;
pub mod workload;
