//! Tidegate's verdicts: resources and time in, verdicts and kernel tables out. Pure: no tokio, aya or netlink; the clock is an argument.

pub mod reason;
pub mod tables;
