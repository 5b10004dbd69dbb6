//! An app's certificate over time: what is served now, and how the last try to replace it went.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::crypto::CryptoProvider;

use super::certificate::{self, CertificateError, Loaded, Stamps, Wanted};
use crate::files::FilesDir;

/// One app's certificate. Its lock is held for copying a pointer only.
#[derive(Debug)]
pub(super) struct Identity {
    /// Which files, and for whom.
    pub(super) wanted: Wanted,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    loaded: Option<Arc<Loaded>>,
    stamps: Stamps,
    error: Option<String>,
}

impl Identity {
    /// From files just loaded. The terms of `before` are kept if nothing in them changed, so that its connections live on.
    pub(super) fn new(wanted: Wanted, mut loaded: Loaded, stamps: Stamps, before: Option<&Self>) -> Self {
        keep_terms(&mut loaded, before.and_then(Self::loaded).as_deref());
        Self { wanted, state: Mutex::new(State { loaded: Some(Arc::new(loaded)), stamps, error: None }) }
    }

    /// Serves nothing until the files are mended.
    pub(super) fn closed(wanted: Wanted, error: &CertificateError) -> Self {
        let state = State { loaded: None, stamps: Stamps::default(), error: Some(error.to_string()) };
        Self { wanted, state: Mutex::new(state) }
    }

    /// What is served.
    pub(super) fn loaded(&self) -> Option<Arc<Loaded>> {
        self.state().loaded.clone()
    }

    /// Why the files as they lie there now are not what is served.
    pub(super) fn error(&self) -> Option<String> {
        self.state().error.clone()
    }

    /// Whether the files are no longer those that are served.
    pub(super) fn stale(&self, files: &FilesDir) -> bool {
        let now = certificate::stamps(files, &self.wanted);
        let state = self.state();
        state.error.is_some() || state.stamps != now
    }

    /// Loads the files again. A bad set keeps the old one; its error is returned when it is not the one already known.
    pub(super) fn reload(&self, files: &FilesDir, provider: &Arc<CryptoProvider>, now: i64) -> Option<Reload> {
        let result = certificate::load(files, &self.wanted, provider, now);
        let mut state = self.state();
        match result {
            Ok((mut loaded, stamps)) => {
                keep_terms(&mut loaded, state.loaded.as_deref());
                let loaded = Arc::new(loaded);
                *state = State { loaded: Some(loaded.clone()), stamps, error: None };
                Some(Reload::Taken(loaded))
            }
            Err(error) => {
                let text = error.to_string();
                let news = state.error.as_ref() != Some(&text);
                state.error = Some(text.clone());
                news.then_some(Reload::Refused(text))
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a reload brought.
pub(super) enum Reload {
    /// New files are served.
    Taken(Arc<Loaded>),
    /// The old ones are, because of this.
    Refused(String),
}

fn keep_terms(loaded: &mut Loaded, before: Option<&Loaded>) {
    if let Some(before) = before
        && before.terms == loaded.terms
    {
        loaded.terms = before.terms.clone();
    }
}
