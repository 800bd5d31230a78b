//! Activity of a connection: its requests in flight, and whether their responses move.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Options;

/// Bytes that a client must take at once to count as moving. A client that opens its HTTP/2 window
/// by a few bytes does not count, and a client that only answers pings does not either.
const MOVING_BYTES: usize = 1 << 10;

/// Activity of a connection.
pub(super) struct Activity(Mutex<ActivityState>);

/// State of an [`Activity`].
struct ActivityState {
    in_flight: usize,
    /// Requests in flight whose next bytes are ready and wait for the client.
    waiting: usize,
    /// When a request began or ended, or the client last took bytes of a response.
    moved: Instant,
    /// Whether there was a request.
    begun: bool,
}

/// A request whose response has not gone out yet.
pub(super) struct InFlight {
    activity: Arc<Activity>,
    is_waiting: bool,
}

/// Time that a connection has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// No request is in flight. The next one has this time to arrive.
    Idle(Duration),
    /// All responses wait for the client, which has this time to take more of them.
    Stalled(Duration),
    /// The node works on a request.
    Working,
}

impl Activity {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(ActivityState { in_flight: 0, waiting: 0, moved: Instant::now(), begun: false })))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, ActivityState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn begin(this: &Arc<Self>) -> InFlight {
        let mut state = this.lock();
        state.in_flight += 1;
        state.begun = true;
        state.moved = Instant::now();
        drop(state);
        InFlight { activity: Arc::clone(this), is_waiting: false }
    }

    /// Notes that the client took bytes. When a response counts as out, its last bytes may still be
    /// on their way.
    pub(super) fn wrote(&self, bytes: usize) {
        let mut state = self.lock();
        if bytes >= MOVING_BYTES && state.begun {
            state.moved = Instant::now();
        }
    }

    /// Returns how long the connection may go on in its present state.
    pub(super) fn left(&self, options: &Options) -> Left {
        let state = self.lock();
        let left = |limit: Duration| limit.saturating_sub(state.moved.elapsed());
        match (state.in_flight, state.begun) {
            (0, false) => Left::Idle(left(options.head_timeout)),
            (0, true) => Left::Idle(left(options.idle_timeout)),
            (all, _) if state.waiting == all => Left::Stalled(left(options.write_timeout)),
            _ => Left::Working,
        }
    }
}

impl InFlight {
    /// Sets whether the response waits for the client.
    pub(super) fn waits_for_client(&mut self, is_waiting: bool) {
        let mut state = self.activity.lock();
        state.moved = Instant::now();
        match (self.is_waiting, is_waiting) {
            (false, true) => state.waiting += 1,
            (true, false) => state.waiting -= 1,
            _ => {}
        }
        drop(state);
        self.is_waiting = is_waiting;
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut state = self.activity.lock();
        state.in_flight -= 1;
        state.waiting -= usize::from(self.is_waiting);
        state.moved = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_idle_or_stalled_or_worked_on() {
        let options = Options { write_timeout: Duration::ZERO, ..Options::new() };
        let activity = Activity::new();
        assert!(matches!(activity.left(&options), Left::Idle(left) if left <= options.head_timeout));
        let (mut one, other) = (Activity::begin(&activity), Activity::begin(&activity));
        one.waits_for_client(true);
        one.waits_for_client(true);
        assert_eq!(activity.left(&options), Left::Working, "the other one is being made");
        drop(other);
        assert_eq!(activity.left(&options), Left::Stalled(Duration::ZERO));
        one.waits_for_client(false);
        assert_eq!(activity.left(&options), Left::Working);
        drop(one);
        assert!(matches!(activity.left(&options), Left::Idle(left) if left > options.head_timeout));
    }
}
