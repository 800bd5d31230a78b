//! Limits how much a scan reads per second, because other programs use the same storage.

use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Stop, watchdog};

/// Longest sleep between two checks for a stop request.
const NAP: Duration = Duration::from_millis(50);

/// Burst after a pause, in seconds of the rate.
const BURST_SECONDS: f64 = 0.1;

/// Maximum reads of a scan per second. `None` is no limit. As text: `500/s` (files), `20MB/s`
/// (bytes), or both with a comma between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// Files opened. A stat of an unchanged file does not count.
    pub files: Option<u64>,
    /// Bytes read. For a file, that is its header, not its size.
    pub bytes: Option<u64>,
}

/// A text that is no rate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a rate: write `500/s` for files, `20MB/s` for bytes, or both with a comma between")]
pub struct RateError(String);

const UNITS: [(&str, u64); 8] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
];

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let mut rate = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let wrong = || RateError(part.to_owned());
            let amount = part.strip_suffix("/s").ok_or_else(wrong)?.trim();
            let unit = UNITS.iter().find_map(|(unit, bytes)| Some((amount.strip_suffix(unit)?.trim(), *bytes)));
            let (number, limit, times) = match unit {
                Some((number, bytes)) => (number, &mut rate.bytes, bytes),
                None => (amount, &mut rate.files, 1),
            };
            let number = number.parse::<u64>().ok().and_then(|number| number.checked_mul(times));
            match number.filter(|number| *number > 0 && limit.is_none()) {
                Some(number) => *limit = Some(number),
                None => return Err(wrong()),
            }
        }
        Ok(rate)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.files, self.bytes) {
            (None, None) => Ok(()),
            (Some(files), None) => write!(f, "{files}/s"),
            (None, Some(bytes)) => write!(f, "{bytes}B/s"),
            (Some(files), Some(bytes)) => write!(f, "{files}/s,{bytes}B/s"),
        }
    }
}

/// Applies a [`Rate`] to all readers of a scan together.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    files: Option<Bucket>,
    bytes: Option<Bucket>,
}

impl Throttle {
    pub(super) fn new(rate: Rate) -> Self {
        Self { files: rate.files.map(Bucket::new), bytes: rate.bytes.map(Bucket::new) }
    }

    /// Waits until the reader may open a file.
    pub(super) fn file(&self, stop: &Stop) {
        if let Some(bucket) = &self.files {
            wait(bucket.take(1), stop);
        }
    }

    /// Whether bytes are limited.
    pub(super) const fn counts_bytes(&self) -> bool {
        self.bytes.is_some()
    }

    /// Waits until the rate allows the bytes that were read.
    pub(super) fn bytes(&self, bytes: u64, stop: &Stop) {
        if let Some(bucket) = &self.bytes {
            wait(bucket.take(bytes), stop);
        }
    }
}

fn wait(mut time: Duration, stop: &Stop) {
    if time.is_zero() {
        return;
    }
    watchdog::while_resting(|| {
        while !time.is_zero() && !stop.is_asked() {
            let nap = time.min(NAP);
            std::thread::sleep(nap);
            time -= nap;
        }
    });
}

/// A token bucket that can go below zero. A caller that takes more than there is must wait until
/// the bucket has earned it.
#[derive(Debug)]
struct Bucket {
    per_second: f64,
    state: Mutex<(f64, Instant)>,
}

impl Bucket {
    fn new(per_second: u64) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        let per_second = per_second as f64;
        Self { per_second, state: Mutex::new((0.0, Instant::now())) }
    }

    fn take(&self, amount: u64) -> Duration {
        self.take_at(amount, Instant::now())
    }

    fn take_at(&self, amount: u64, now: Instant) -> Duration {
        // After a panic the state is still valid.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (tokens, last) = &mut *state;
        let earned = now.saturating_duration_since(*last).as_secs_f64() * self.per_second;
        *tokens = (*tokens + earned).min(self.per_second * BURST_SECONDS);
        *last = now;
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        let amount = amount as f64;
        *tokens -= amount;
        Duration::try_from_secs_f64(-*tokens / self.per_second).unwrap_or(Duration::ZERO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_and_written() {
        let rate = |text: &str| text.parse::<Rate>();
        assert_eq!(rate("").unwrap(), Rate::default());
        assert_eq!(rate("500/s").unwrap(), Rate { files: Some(500), bytes: None });
        assert_eq!(rate("20MB/s").unwrap(), Rate { files: None, bytes: Some(20_000_000) });
        assert_eq!(rate("1 MiB/s, 7/s").unwrap(), Rate { files: Some(7), bytes: Some(1 << 20) });
        for text in ["500", "0/s", "MB/s", "-1/s", "5/s,6/s", "1.5MB/s", "99999999999999GB/s", "5/m"] {
            assert!(rate(text).is_err(), "{text}");
        }
        for text in ["500/s", "2000B/s", "7/s,1B/s", ""] {
            assert_eq!(rate(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_taken_is_paid_for_in_time() {
        let bucket = Bucket::new(100);
        let begin = bucket.state.lock().unwrap().1;
        let mut now = begin;
        for _ in 0..250 {
            now += bucket.take_at(1, now);
        }
        assert_eq!((now - begin).as_millis(), 2500);
        // Several callers share the debt.
        assert_eq!(bucket.take_at(10, now).as_millis(), 100);
        assert_eq!(bucket.take_at(10, now).as_millis(), 200);
        // A pause earns at most a tenth of a second.
        now += Duration::from_secs(60);
        assert_eq!(bucket.take_at(10, now), Duration::ZERO);
        assert_eq!(bucket.take_at(10, now).as_millis(), 100);
    }
}
