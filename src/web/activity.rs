//! What a connection is doing: the requests in flight on it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Options;

/// What a connection is doing.
pub(super) struct Activity(pub(super) Mutex<State>);

/// What [`Activity`] holds.
pub(super) struct State {
    pub(super) in_flight: usize,
    /// When the last response was out, or the connection accepted.
    pub(super) since: Instant,
    /// Whether there was a request.
    pub(super) begun: bool,
}

/// A request whose response is not out yet.
pub(super) struct InFlight(Arc<Activity>);

impl Activity {
    pub(super) fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn begin(this: &Arc<Self>) -> InFlight {
        let mut state = this.lock();
        state.in_flight += 1;
        state.begun = true;
        drop(state);
        InFlight(Arc::clone(this))
    }

    /// How long the connection may go on without a request; nothing while there is one.
    pub(super) fn left(&self, options: &Options) -> Option<Duration> {
        let state = self.lock();
        let limit = if state.begun { options.idle_timeout } else { options.head_timeout };
        (state.in_flight == 0).then(|| limit.saturating_sub(state.since.elapsed()))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.in_flight -= 1;
        state.since = Instant::now();
    }
}
