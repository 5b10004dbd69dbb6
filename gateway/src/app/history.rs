//! What happened to flows lately: kept for `netctl flows`, and sent to those who follow.
//!
//! Owns one ring of [`KEPT`] entries (the oldest go) and one broadcast channel of [`FOLLOWED`] (a follower who is too
//! slow loses lines and is told how many).

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use config::api::{Flow, FlowQuery};
use tokio::sync::broadcast;

/// Events kept for `netctl flows` without `-f`.
const KEPT: usize = 8_192;

/// Events a follower may lag behind.
const FOLLOWED: usize = 4_096;

/// The recent past.
pub(crate) struct History {
    recent: Mutex<VecDeque<Flow>>,
    followers: broadcast::Sender<Flow>,
}

impl History {
    /// Nothing has happened.
    pub(crate) fn new() -> Self {
        Self { recent: Mutex::default(), followers: broadcast::Sender::new(FOLLOWED) }
    }

    /// One more event.
    pub(crate) fn push(&self, flow: Flow) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() == KEPT {
            recent.pop_front();
        }
        recent.push_back(flow.clone());
        drop(recent);
        // Without followers there is nobody to tell.
        let _ = self.followers.send(flow);
    }

    /// The events that the query asks for, oldest first.
    pub(crate) fn recent(&self, query: &FlowQuery) -> Vec<Flow> {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.iter().filter(|flow| meant(query, flow)).cloned().collect()
    }

    /// Events from now on.
    pub(crate) fn follow(&self) -> broadcast::Receiver<Flow> {
        self.followers.subscribe()
    }
}

/// Whether the query asks for this flow; its limit is the caller's matter.
pub(crate) fn meant(query: &FlowQuery, flow: &Flow) -> bool {
    query.namespace.as_ref().is_none_or(|namespace| flow.namespace.as_ref() == Some(namespace))
        && query.verdict.is_none_or(|verdict| flow.verdict == verdict)
}
