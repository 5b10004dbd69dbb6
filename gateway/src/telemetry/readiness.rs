//! What the daemon still waits for. `/readyz` and `netctl status` say it.
//!
//! One lock guards a short list; it is never held across a wait.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The list. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<Vec<&'static str>>>);

/// Something that is waited for; done when dropped.
#[derive(Debug)]
#[must_use = "it is done when dropped"]
pub struct Pending {
    readiness: Readiness,
    what: &'static str,
}

impl Readiness {
    /// Not ready until the answer is dropped. `what` is a noun: `kernel tables`.
    pub fn wait_for(&self, what: &'static str) -> Pending {
        self.list().push(what);
        Pending { readiness: self.clone(), what }
    }

    /// What is waited for; empty when ready.
    pub fn pending(&self) -> Vec<&'static str> {
        self.list().clone()
    }

    fn list(&self) -> MutexGuard<'_, Vec<&'static str>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let mut list = self.readiness.list();
        if let Some(index) = list.iter().position(|what| *what == self.what) {
            list.remove(index);
        }
    }
}
