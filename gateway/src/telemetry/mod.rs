//! Logs, metrics and health.
//!
//! 1. [`logging`]: structured logs on standard error.
//! 2. [`metrics`]: every metric, with its unit, and the functions that count.
//! 3. [`readiness`]: what the daemon still waits for.
//! 4. [`server`]: `/metrics`, `/healthz` and `/readyz` over HTTP on `[metrics] listen`.
//!
//! Metrics keep one series per label value; labels are words of closed sets, and names of apps and networks, whose number
//! the configuration bounds. Addresses, DNS names and workloads are never labels.

pub mod logging;
pub mod metrics;
pub mod readiness;
pub mod server;
