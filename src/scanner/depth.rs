//! How many files a scan reads at the same time.
//!
//! A file server needs many questions at a time, and a busy node needs few. So a scan begins with
//! few readers. It takes twice as many while files wait, the processors have time, and more readers
//! have brought more files.

use std::time::{Duration, Instant};

/// Time between two decisions. Larger: a short scan never gets more readers. Smaller: chance
/// decides.
const INTERVAL: Duration = Duration::from_millis(250);

/// Share of all processors above which a scan does not wait for its storage.
const BUSY: f64 = 0.4;

/// Gain in files per second that twice as many readers must bring. Eight times as many bring half
/// of the ideal then.
const LEAST_GAIN: f64 = 1.5;

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

/// What the readers have done.
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

/// Decides how many readers there are.
#[derive(Debug)]
pub(super) struct Depth {
    readers: usize,
    most: usize,
    last: Option<DepthSample>,
    /// Files per second before the last growth.
    before: Option<f64>,
}

impl Depth {
    pub(super) const fn new(jobs: Jobs) -> Self {
        Self { readers: jobs.first, most: jobs.most, last: None, before: None }
    }

    /// Whether a sample may change anything.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.readers < self.most && self.last.is_none_or(|last| now - last.at >= INTERVAL)
    }

    /// Takes a sample. Returns how many more readers are to start.
    pub(super) fn take(&mut self, sample: DepthSample) -> usize {
        let Some(last) = self.last.replace(sample) else { return 0 };
        let seconds = (sample.at - last.at).as_secs_f64();
        let rate = sample.files.saturating_sub(last.files) as f64 / seconds;
        let busy = sample.processor.saturating_sub(last.processor).as_secs_f64() / seconds;
        if !sample.some_wait || !last.some_wait || rate == 0.0 || busy > BUSY {
            return 0;
        }
        if self.before.is_some_and(|before| rate < before * LEAST_GAIN) {
            // The last growth was in vain, so there is no other one.
            self.most = self.readers;
            return 0;
        }
        self.before = Some(rate);
        let more = self.readers.min(self.most - self.readers);
        self.readers += more;
        more
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The readers after some seconds, if a storage gives `rate(readers)` files per second and
    /// takes this share of the processors.
    fn found(rate: impl Fn(usize) -> f64, busy: f64, some_wait: bool) -> usize {
        let mut depth = Depth::new(Jobs::growing_from(16));
        let (begun, mut readers, mut files) = (Instant::now(), 16, 0.0);
        for step in 1..40_u32 {
            files += rate(readers) * INTERVAL.as_secs_f64();
            let at = begun + INTERVAL * step;
            if depth.is_due(at) {
                let processor = (INTERVAL * step).mul_f64(busy);
                readers += depth.take(DepthSample { at, processor, files: files as u64, some_wait });
            }
        }
        readers
    }

    #[test]
    fn a_slow_file_server_gets_as_many_readers_as_help() {
        assert_eq!(found(|readers| readers as f64 * 160.0, 0.3, true), 128);
        // It answers forty questions at a time.
        assert_eq!(found(|readers| readers.min(40) as f64 * 160.0, 0.3, true), 64);
    }

    #[test]
    fn other_scans_keep_their_readers() {
        // A disk with one arm: the first growth brings little.
        assert_eq!(found(|readers| 100.0 + readers as f64, 0.1, true), 32);
        // The processors are busy, the walk is slower than the readers, and a server does not
        // answer.
        assert_eq!(found(|_| 80_000.0, 0.8, true), 16);
        assert_eq!(found(|readers| readers as f64 * 160.0, 0.3, false), 16);
        assert_eq!(found(|_| 0.0, 0.0, true), 16);
    }
}
