//! Files that somebody may still be writing. They wait until they have been still for a while.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::Stat;

use super::work::Marks;
use crate::model::clock::Clock;

/// Most files that are remembered between two looks. One more is read at once. A file takes some
/// 200 bytes.
const REMEMBERED_FILES: usize = 65_536;

/// Time after which a remembered file is forgotten, because nobody looks at it any more.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3600);

/// Age up to which a file that cannot be read is looked at twice. The clock of a file server may
/// differ from ours, and then a half-written file looks old.
const SECOND_READ_MS: i64 = 60 * 60 * 1000;

/// Keeps a scan from reading files that changed a moment ago. Clones share what they remember.
///
/// The time of change decides. Where it lies in the future, two looks decide: the file must have
/// stayed the same between them. So neither a wrong clock nor a jump of it holds a file up.
#[derive(Clone, Debug)]
pub struct Settling {
    after: Duration,
    clock: Clock,
    seen: Arc<Mutex<HashMap<PathBuf, SeenFile>>>,
}

/// A file as an earlier look saw it.
#[derive(Debug)]
struct SeenFile {
    marks: Marks,
    changed_ms: i64,
    since: Instant,
}

impl Settling {
    /// Lets files wait until they have not changed for this time.
    #[must_use]
    pub fn new(after: Duration, clock: Clock) -> Self {
        Self { after, clock, seen: Arc::default() }
    }

    /// Time for which a file must not have changed.
    #[must_use]
    pub const fn after(&self) -> Duration {
        self.after
    }

    /// Whether a file may still be written.
    pub(super) fn is_changing(&self, path: impl FnOnce() -> PathBuf, stat: &Stat) -> bool {
        let age_ms = self.age_ms(stat);
        if age_ms < 0 {
            return !self.has_stayed(path(), stat);
        }
        u128::from(age_ms.unsigned_abs()) < self.after.as_millis()
    }

    /// Whether a file that could not be read must be looked at once more before it counts as
    /// failed.
    pub(super) fn wants_second_read(&self, path: impl FnOnce() -> PathBuf, stat: &Stat) -> bool {
        (0..SECOND_READ_MS).contains(&self.age_ms(stat)) && !self.has_stayed(path(), stat)
    }

    /// Forgets files that nobody looked at for a long time.
    pub(super) fn tidy(&self) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|_, seen| seen.since.elapsed() < FORGOTTEN_AFTER);
    }

    fn age_ms(&self, stat: &Stat) -> i64 {
        self.clock.now_ms().saturating_sub(changed_ms(stat).max(Marks::of(stat).mtime_ms))
    }

    /// Whether an earlier look saw the file as it is now, long enough ago.
    fn has_stayed(&self, path: PathBuf, stat: &Stat) -> bool {
        let (marks, changed_ms) = (Marks::of(stat), changed_ms(stat));
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = seen.get(&path)
            && (known.marks, known.changed_ms) == (marks, changed_ms)
        {
            return known.since.elapsed() >= self.after;
        }
        if seen.len() >= REMEMBERED_FILES && !seen.contains_key(&path) {
            return true;
        }
        seen.insert(path, SeenFile { marks, changed_ms, since: Instant::now() });
        false
    }
}

/// When the file or its entry changed last, in milliseconds since 1970 UTC. A rename and a copy of
/// times change it, too.
fn changed_ms(stat: &Stat) -> i64 {
    // The types of these fields differ between systems.
    #[expect(clippy::allow_attributes, reason = "whether the conversions do anything depends on the system")]
    #[allow(clippy::useless_conversion, clippy::unnecessary_fallible_conversions, reason = "see above")]
    let (seconds, nanoseconds) =
        (i64::try_from(stat.st_ctime).unwrap_or(i64::MAX), i64::try_from(stat.st_ctime_nsec).unwrap_or(0));
    seconds.saturating_mul(1000).saturating_add(nanoseconds / 1_000_000)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    fn stat_of_new_file() -> (Stat, i64) {
        let file = tempfile::tempfile().unwrap();
        let stat = rustix::fs::fstat(file.as_fd()).unwrap();
        let now = changed_ms(&stat);
        (stat, now)
    }

    fn settling(now_ms: i64) -> Settling {
        Settling::new(Duration::from_secs(5), Clock::Fixed(now_ms))
    }

    #[test]
    fn a_file_waits_until_it_has_not_changed_for_the_time() {
        let (stat, now) = stat_of_new_file();
        let path = || PathBuf::from("/a");
        for (age_ms, changes) in [(0, true), (4_999, true), (5_000, false), (3_600_000, false)] {
            assert_eq!(settling(now + age_ms).is_changing(path, &stat), changes, "{age_ms}");
        }
    }

    #[test]
    fn a_file_from_the_future_is_read_when_it_stays_the_same() {
        let (stat, now) = stat_of_new_file();
        let path = || PathBuf::from("/a");
        let patient = settling(now - 3_600_000);
        assert!(patient.is_changing(path, &stat) && patient.is_changing(path, &stat));
        let quick = Settling { after: Duration::ZERO, ..patient };
        assert!(!quick.is_changing(path, &stat));
        let mut grown = stat;
        grown.st_size += 1;
        assert!(quick.is_changing(path, &grown));
    }

    #[test]
    fn a_file_that_fails_is_looked_at_twice_only_while_it_is_young() {
        let (stat, now) = stat_of_new_file();
        let path = || PathBuf::from("/a");
        assert!(settling(now + 6_000).wants_second_read(path, &stat));
        assert!(!settling(now + SECOND_READ_MS).wants_second_read(path, &stat));
        let quick = Settling { after: Duration::ZERO, ..settling(now + 6_000) };
        assert!(quick.wants_second_read(path, &stat) && !quick.wants_second_read(path, &stat));
    }
}
