//! The edge's own thread, once a second: certificate files that have changed are loaded, idle backend connections that are
//! too old are closed.
//!
//! Files are looked at rather than watched by inotify: a Kubernetes secret changes by a link two folders up, and an
//! `openat2` a file and second costs nothing. It is a thread because files may block. It ends when the edge is dropped.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use super::identity::Reload;
use super::shared::{Shared, unix_now};
use super::table::Ends;
use crate::telemetry::metrics;

const PERIOD: Duration = Duration::from_secs(1);

/// Dropping it ends the thread.
pub(super) struct Watch {
    _stop: mpsc::Sender<()>,
}

impl Watch {
    /// Starts the thread.
    pub(super) fn start(shared: Arc<Shared>) -> std::io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        thread::Builder::new().name("edge-watch".to_owned()).spawn(move || {
            while stopped.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
                round(&shared);
            }
        })?;
        Ok(Self { _stop: stop })
    }
}

fn round(shared: &Shared) {
    let table = shared.table();
    for app in table.apps() {
        let Ends::Here(identity) = &app.ends else { continue };
        if !identity.stale(&shared.files) {
            continue;
        }
        match identity.reload(&shared.files, &shared.provider, unix_now()) {
            Some(Reload::Taken(loaded)) => {
                metrics::edge_certificate(&app.label, loaded.not_after);
                tracing::info!(app = %app.label, "certificate files loaded");
                for warning in &loaded.warnings {
                    tracing::warn!(app = %app.label, "{warning}");
                }
                // Connections look again whether their terms still hold.
                shared.table.send_modify(|_| ());
            }
            Some(Reload::Refused(error)) => {
                tracing::warn!(app = %app.label, "changed certificate files are not taken into use: {error}");
            }
            None => {}
        }
    }
    for upstream in table.upstreams() {
        upstream.sweep(shared.timeouts.pooled);
    }
}
