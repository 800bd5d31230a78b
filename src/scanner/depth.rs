//! Number of files that a scan reads at the same time.
//!
//! A file server needs many questions at a time, and a busy node needs few. So a scan begins with
//! few readers. It takes twice as many while files wait, the scan itself needs little time of the
//! processors, and more readers have brought more files. If they have not, it goes back, and tries
//! again later.

use std::time::{Duration, Instant};

/// Time between two decisions. Larger: a short scan never gets more readers. Smaller: chance
/// decides.
const INTERVAL: Duration = Duration::from_millis(250);

/// Share of all processors above which a scan does not wait for its storage.
const BUSY: f64 = 0.4;

/// Share of the ideal gain in files per second that more readers must bring. Eight times as many
/// readers bring some half of the ideal then.
const LEAST_GAIN: f64 = 0.5;

/// Samples after which more readers were in vain. Larger: a disk seeks in vain for longer. Smaller:
/// chance decides, as when the files of the page cache come to an end.
const VAIN_SAMPLES: u32 = 4;

/// Time until more readers get another chance.
const REST: Duration = Duration::from_secs(60);

/// Maximum readers of a scan that finds its depth itself. Larger: more memory, some hundred
/// kilobytes for each reader.
const MOST: usize = 128;

/// Numbers of files that a scan reads at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Jobs {
    /// At the beginning.
    pub first: usize,
    /// At most.
    pub most: usize,
}

impl Jobs {
    /// Always so many.
    #[must_use]
    pub const fn fixed(jobs: usize) -> Self {
        Self { first: jobs, most: jobs }
    }

    /// Begins with so many, and takes more as the storage needs.
    #[must_use]
    pub fn growing_from(first: usize) -> Self {
        Self { first, most: first.max(MOST) }
    }
}

/// Sample of the work of the readers.
#[derive(Clone, Copy, Debug)]
pub(super) struct DepthSample {
    pub(super) at: Instant,
    /// Time that this process has taken of each processor, on average.
    pub(super) processor: Duration,
    /// Files that were looked at.
    pub(super) files: u64,
    /// Whether files wait for a reader.
    pub(super) some_wait: bool,
}

/// A change of the number of readers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DepthChange {
    None,
    More(usize),
    /// The readers that came last were in vain.
    Fewer(usize),
}

/// Work done with the current number of readers.
#[derive(Debug, Default)]
struct DepthTrial {
    files: f64,
    seconds: f64,
    samples: u32,
}

/// Decides how many readers there are.
#[derive(Debug)]
pub(super) struct Depth {
    readers: usize,
    most: usize,
    last: Option<DepthSample>,
    trial: DepthTrial,
    /// Readers and files per second before the last growth, until that has brought more files.
    before: Option<(usize, f64)>,
    rests_until: Option<Instant>,
}

impl Depth {
    pub(super) fn new(jobs: Jobs) -> Self {
        Self {
            readers: jobs.first,
            most: jobs.most,
            last: None,
            trial: DepthTrial::default(),
            before: None,
            rests_until: None,
        }
    }

    /// Whether a sample may change anything.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        (self.readers < self.most || self.before.is_some())
            && self.rests_until.is_none_or(|until| now >= until)
            && self.last.is_none_or(|last| now - last.at >= INTERVAL)
    }

    /// Takes a sample.
    pub(super) fn take(&mut self, sample: DepthSample) -> DepthChange {
        let Some(last) = self.last.replace(sample) else { return DepthChange::None };
        let seconds = (sample.at - last.at).as_secs_f64();
        let files = sample.files.saturating_sub(last.files) as f64;
        let busy = sample.processor.saturating_sub(last.processor).as_secs_f64() / seconds;
        if !sample.some_wait || !last.some_wait || files == 0.0 || busy > BUSY {
            return DepthChange::None;
        }
        self.trial.files += files;
        self.trial.seconds += seconds;
        self.trial.samples += 1;
        let rate = self.trial.files / self.trial.seconds;
        if let Some((fewer, before)) = self.before {
            let ideal = self.readers as f64 / fewer as f64;
            if rate < before * (1.0 + (ideal - 1.0) * LEAST_GAIN) {
                return if self.trial.samples < VAIN_SAMPLES {
                    DepthChange::None
                } else {
                    self.go_back(fewer, sample.at)
                };
            }
            self.before = None;
        }
        if self.readers == self.most {
            return DepthChange::None;
        }
        self.before = Some((self.readers, rate));
        self.trial = DepthTrial::default();
        let more = self.readers.min(self.most - self.readers);
        self.readers += more;
        DepthChange::More(more)
    }

    fn go_back(&mut self, fewer: usize, now: Instant) -> DepthChange {
        let surplus = self.readers - fewer;
        let (readers, most) = (fewer, self.most);
        *self = Self { rests_until: Some(now + REST), ..Self::new(Jobs { first: readers, most }) };
        DepthChange::Fewer(surplus)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The readers at the end of each second, if a storage gives `rate(second, readers)` files per
    /// second and takes this share of the processors.
    fn found(rate: impl Fn(u32, usize) -> f64, busy: f64, some_wait: bool) -> Vec<usize> {
        let mut depth = Depth::new(Jobs::growing_from(16));
        let (begun, mut readers, mut files, mut ends) = (Instant::now(), 16, 0.0, Vec::new());
        for step in 1..=400_u32 {
            files += rate(step / 4, readers) * INTERVAL.as_secs_f64();
            let at = begun + INTERVAL * step;
            if depth.is_due(at) {
                let processor = (INTERVAL * step).mul_f64(busy);
                match depth.take(DepthSample { at, processor, files: files as u64, some_wait }) {
                    DepthChange::None => {}
                    DepthChange::More(more) => readers += more,
                    DepthChange::Fewer(surplus) => readers -= surplus,
                }
            }
            if step % 4 == 0 {
                ends.push(readers);
            }
        }
        ends
    }

    #[test]
    fn a_slow_file_server_gets_as_many_readers_as_help() {
        assert_eq!(found(|_, readers| readers as f64 * 160.0, 0.3, true)[10], 128);
        // It answers forty questions at a time.
        assert_eq!(found(|_, readers| readers.min(40) as f64 * 160.0, 0.3, true)[10], 32);
    }

    #[test]
    fn other_scans_keep_their_readers() {
        // A disk with one arm: the growth brings little.
        let seeks = found(|_, readers| 100.0 + readers as f64, 0.1, true);
        assert!(seeks.iter().filter(|readers| **readers != 16).count() <= 4, "{seeks:?}");
        // The processors are busy, the walk is slower than the readers, and a server does not
        // answer.
        for found in [
            found(|_, _| 80_000.0, 0.8, true),
            found(|_, readers| readers as f64 * 160.0, 0.3, false),
            found(|_, _| 0.0, 0.0, true),
        ] {
            assert!(found.iter().all(|readers| *readers == 16), "{found:?}");
        }
    }

    #[test]
    fn a_poor_moment_does_not_end_the_growth_for_ever() {
        // Files of the page cache come first.
        let cold = found(|second, readers| if second < 1 { 50_000.0 } else { readers as f64 * 160.0 }, 0.1, true);
        assert_eq!((cold[10], cold.last()), (16, Some(&128)), "{cold:?}");
    }

    #[test]
    fn the_last_growth_may_be_a_small_one() {
        let mut depth = Depth::new(Jobs { first: 96, most: 128 });
        let begun = Instant::now();
        let changes: Vec<_> = (0..8_u32)
            .map(|step| {
                let files = if step < 2 { step * 96 } else { 96 + (step - 1) * 128 };
                let at = begun + INTERVAL * step;
                depth.take(DepthSample { at, processor: Duration::ZERO, files: files.into(), some_wait: true })
            })
            .collect();
        assert_eq!(
            changes.iter().filter(|change| **change != DepthChange::None).collect::<Vec<_>>(),
            [&DepthChange::More(32)]
        );
        assert!(!depth.is_due(begun + REST));
    }
}
