//! Tidegate's daemon.

pub mod segmentation;
pub mod settings;
pub mod sys;
pub mod workload;
