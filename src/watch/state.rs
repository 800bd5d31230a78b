//! State of a watched directory: the last look, the ones before, and the next.
//!
//! The index keeps it as a JSON object, so that `dcmdex status` shows it and a restart goes on
//! with it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::scanner::Summary;

/// Looks of which the history keeps figures.
const HISTORY: usize = 10;

/// Minimum number of recorded looks before one can count as slow.
const ENOUGH_LOOKS: usize = 5;

/// Factor over the usual duration above which a look counts as slow.
const SLOW_FACTOR: f64 = 3.0;

/// Shortest look that can be slow. Below it a busy machine is reason enough.
const SHORTEST_SLOW: f64 = 2.0;

/// Files by which two looks may differ and still be alike.
const SLACK_FILES: u64 = 100;

/// The state of a watch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WatchState {
    /// The command that watches: `serve` or `scan`.
    pub by: String,
    /// When it looks, in words.
    pub plan: String,
    /// `inotify`, or `polling` with the reason.
    pub events: String,
    /// The last full look.
    pub last: Option<LookFigures>,
    /// End of the last full look that was neither interrupted nor failed, in milliseconds since
    /// 1970 UTC.
    pub last_success_ms: Option<i64>,
    /// When the next full look is due, in milliseconds since 1970 UTC.
    pub next_due_ms: Option<i64>,
    /// Files that may still be written and wait for a look.
    pub pending: u64,
    /// Whether the last full look was far slower than the ones before.
    pub is_slow: bool,
    /// Files that looks at single changes have indexed or updated since the last full look.
    pub indexed_since: u64,
    /// The last full looks that were neither interrupted nor failed, the newest last.
    pub history: Vec<LookCost>,
}

/// Results of a full look.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LookFigures {
    /// Its begin, in milliseconds since 1970 UTC.
    pub started_ms: i64,
    /// Its end, in milliseconds since 1970 UTC.
    pub finished_ms: i64,
    /// Its duration in seconds.
    pub elapsed_seconds: f64,
    /// Files found.
    pub found: u64,
    /// Files newly in the index.
    pub indexed: u64,
    /// Files read again.
    pub updated: u64,
    /// Entries deleted from the index.
    pub removed: u64,
    /// Files that could not be read.
    pub failed: u64,
    /// Files that are gone and whose entries stay.
    pub missing: u64,
    /// Entries kept because a disk may not be mounted.
    pub not_pruned: u64,
    /// Files whose content lies on tape.
    pub offline: u64,
    /// Whether it was stopped.
    pub interrupted: bool,
    /// Reason why it failed.
    pub error: Option<String>,
}

impl LookFigures {
    /// The figures of a scan.
    #[must_use]
    pub fn of(summary: &Summary, started_ms: i64, finished_ms: i64) -> Self {
        let offline = summary.skipped_by_reason.iter().find(|(reason, _)| *reason == "offline");
        Self {
            started_ms,
            finished_ms,
            elapsed_seconds: summary.elapsed.as_secs_f64(),
            found: summary.found,
            indexed: summary.indexed,
            updated: summary.updated,
            removed: summary.removed,
            failed: summary.failed,
            missing: summary.missing,
            not_pruned: summary.not_pruned,
            offline: offline.map_or(0, |(_, count)| count),
            interrupted: summary.interrupted,
            error: None,
        }
    }

    /// Whether it saw everything.
    #[must_use]
    pub const fn is_success(&self) -> bool {
        !self.interrupted && self.error.is_none()
    }

    /// Cost of the look. An interrupted look has a cost as well.
    #[must_use]
    pub const fn cost(&self) -> LookCost {
        LookCost { seconds: self.elapsed_seconds, found: self.found, read: self.indexed + self.updated }
    }
}

/// Cost of a look, in time of the wall clock and in files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LookCost {
    /// Duration in seconds.
    pub seconds: f64,
    /// Files found.
    pub found: u64,
    /// Files read.
    pub read: u64,
}

impl LookCost {
    /// Whether another look had a like number of files, and read a like number of them. To read a
    /// file costs a hundred times as much as to find it unchanged.
    fn is_like(&self, other: &Self) -> bool {
        let near = |one: u64, other: u64| {
            let (less, more) = (one.min(other), one.max(other));
            more <= less.saturating_mul(2).saturating_add(SLACK_FILES)
        };
        near(self.found, other.found) && near(self.read, other.read)
    }

    /// The usual duration of such a look, if it took far longer than that.
    #[must_use]
    pub fn usual_if_slow(&self, history: &[Self]) -> Option<Duration> {
        let mut alike: Vec<f64> = history.iter().filter(|other| self.is_like(other)).map(|look| look.seconds).collect();
        alike.sort_unstable_by(f64::total_cmp);
        let median = *alike.get(alike.len() / 2).filter(|_| alike.len() >= ENOUGH_LOOKS)?;
        let is_slow = self.seconds >= SHORTEST_SLOW && self.seconds > SLOW_FACTOR * median;
        is_slow.then(|| Duration::try_from_secs_f64(median).unwrap_or_default())
    }
}

impl WatchState {
    /// Reads the state that the index has. A text of another program version may lack keys.
    ///
    /// # Errors
    /// Fails if it is no such object.
    pub fn from_json(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// The text for the index.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("numbers and texts can be written as JSON")
    }

    /// Takes a full look into account. Returns the usual duration if it was far slower.
    pub fn take(&mut self, look: LookFigures) -> Option<Duration> {
        let mut slower_than = None;
        if look.is_success() {
            let cost = look.cost();
            slower_than = cost.usual_if_slow(&self.history);
            self.is_slow = slower_than.is_some();
            self.history.push(cost);
            let surplus = self.history.len().saturating_sub(HISTORY);
            self.history.drain(..surplus);
            self.last_success_ms = Some(look.finished_ms);
            self.indexed_since = 0;
        }
        self.last = Some(look);
        slower_than
    }

    /// Whether the next look is late, so that nobody may be watching.
    #[must_use]
    pub fn is_overdue(&self, now_ms: i64) -> bool {
        // A look that is due waits for one that runs, and that may be a long one.
        const GRACE_MS: i64 = 15 * 60 * 1000;
        self.next_due_ms.is_some_and(|due| now_ms.saturating_sub(due) > GRACE_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(seconds: f64, found: u64, read: u64) -> LookFigures {
        LookFigures { elapsed_seconds: seconds, found, indexed: read, ..LookFigures::default() }
    }

    fn after(looks: impl IntoIterator<Item = LookFigures>) -> WatchState {
        let mut state = WatchState::default();
        for look in looks {
            state.take(look);
        }
        state
    }

    #[test]
    fn a_look_far_slower_than_the_median_of_like_ones_is_slow() {
        let mut state = after((0..10).map(|_| look(4.0, 1_600_000, 10)));
        assert_eq!(state.clone().take(look(11.9, 1_600_000, 10)), None);
        assert_eq!(state.take(look(12.1, 1_600_000, 10)), Some(Duration::from_secs(4)));
        assert!(state.is_slow);
        assert_eq!(state.take(look(4.0, 1_600_000, 10)), None);
        assert!(!state.is_slow);
    }

    #[test]
    fn a_look_that_read_far_more_is_not_compared() {
        let mut state = after((0..10).map(|_| look(4.0, 1_600_000, 10)));
        assert_eq!(state.take(look(400.0, 1_700_000, 100_000)), None);
        let mut young = after((0..4).map(|_| look(4.0, 1_600_000, 10)));
        assert_eq!(young.take(look(400.0, 1_600_000, 10)), None);
        let mut small = after((0..10).map(|_| look(0.01, 50, 0)));
        assert_eq!(small.take(look(1.9, 50, 0)), None);
    }

    #[test]
    fn a_failed_look_changes_neither_history_nor_success() {
        let mut state = after([LookFigures { finished_ms: 7, ..look(1.0, 5, 0) }]);
        state.take(LookFigures { finished_ms: 9, error: Some("gone".into()), ..LookFigures::default() });
        assert_eq!((state.history.len(), state.last_success_ms), (1, Some(7)));
        assert_eq!(state.last.unwrap().error.as_deref(), Some("gone"));
    }

    #[test]
    fn the_state_survives_the_index_and_lacks_what_is_not_there() {
        let state = after((0..20).map(|at| look(f64::from(at), 5, 0)));
        assert_eq!(state.history.len(), HISTORY);
        assert_eq!(WatchState::from_json(&state.to_json()).unwrap(), state);
        assert_eq!(WatchState::from_json("{\"by\":\"serve\",\"later\":1}").unwrap().by, "serve");
        assert!(WatchState::from_json("[").is_err());
    }
}
