//! Tidegate's resources: text in, validated values or a full list of problems out. Pure.

pub mod api;
pub mod names;
pub mod resource;
