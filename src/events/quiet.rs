//! Detection of studies that changed and then had no change for the quiet period.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::db::ChangedStudy;

/// Studies that have changed and are not told yet.
pub(super) struct QuietStudies {
    quiet: Duration,
    /// By the number of the study's row.
    pending: HashMap<i64, PendingStudy>,
    /// The last change that was looked at.
    seen: u64,
}

struct PendingStudy {
    /// Its first change that was not told.
    first: u64,
    last: ChangedStudy,
    quiet_at: Instant,
}

impl QuietStudies {
    /// Begins with the changes after `told`.
    pub(super) fn new(quiet: Duration, told: u64) -> Self {
        Self { quiet, pending: HashMap::new(), seen: told }
    }

    /// The last change that was looked at.
    pub(super) const fn seen(&self) -> u64 {
        self.seen
    }

    /// Notes that studies have changed.
    pub(super) fn note(&mut self, changed: &[ChangedStudy], (now, now_ms): (Instant, i64)) {
        for study in changed {
            self.seen = self.seen.max(study.change);
            // A clock that was set must not keep a study back for longer than the quiet time.
            let age = Duration::from_millis(u64::try_from(now_ms - study.changed_ms).unwrap_or(0));
            let quiet_at = now + self.quiet.saturating_sub(age);
            let pending =
                self.pending.entry(study.study).or_insert(PendingStudy { first: study.change, last: *study, quiet_at });
            (pending.last, pending.quiet_at) = (*study, quiet_at);
        }
    }

    /// Takes the studies that are quiet, in the order of their changes. Also returns the change up
    /// to which all are told then.
    pub(super) fn take(&mut self, now: Instant) -> (Vec<ChangedStudy>, u64) {
        let is_quiet = |pending: &PendingStudy| pending.quiet_at <= now;
        let mut quiet: Vec<_> = self.pending.values().filter(|one| is_quiet(one)).map(|one| one.last).collect();
        quiet.sort_by_key(|study| (study.change, study.study));
        self.pending.retain(|_, pending| !is_quiet(pending));
        let untold = self.pending.values().map(|pending| pending.first).min();
        (quiet, untold.map_or(self.seen, |first| first.saturating_sub(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(study: i64, change: u64, changed_ms: i64) -> ChangedStudy {
        ChangedStudy { study, change, changed_ms }
    }

    #[test]
    fn a_study_is_quiet_when_its_time_has_passed_since_its_last_change() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut studies = QuietStudies::new(60 * second, 4);
        studies.note(&[changed(1, 5, 1_000), changed(2, 6, 1_000)], (start, 1_000));
        assert_eq!(studies.take(start + 59 * second), (vec![], 4));
        studies.note(&[changed(1, 9, 31_000)], (start + 30 * second, 31_000));
        assert_eq!(studies.seen(), 9);
        // The first change of study 1 is not told, so a restart has to begin before it.
        assert_eq!(studies.take(start + 60 * second), (vec![changed(2, 6, 1_000)], 4));
        assert_eq!(studies.take(start + 90 * second), (vec![changed(1, 9, 31_000)], 9));
    }

    #[test]
    fn a_change_of_yesterday_is_told_at_once_and_a_clock_in_the_future_does_not_keep_it() {
        let start = Instant::now();
        let mut studies = QuietStudies::new(Duration::from_secs(60), 0);
        studies.note(&[changed(1, 1, 0), changed(2, 2, 500_000_000)], (start, 86_400_000));
        assert_eq!(studies.take(start).0, [changed(1, 1, 0)]);
        assert_eq!(studies.take(start + Duration::from_secs(60)).0, [changed(2, 2, 500_000_000)]);
    }
}
