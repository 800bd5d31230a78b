//! The pace of requests that cost a peer nothing.
//!
//! A C-ECHO-RQ has no data set and is answered at once. So hundreds of associations that send one
//! after the other take all processors. Above 64 associations, each gets an equal part of 2,000
//! responses a second. With fewer associations nothing is paced.

use std::time::{Duration, Instant};

/// Associations at one time that are not paced. Lower: a site with many modalities may be paced.
/// Higher: that many peers can keep the processors busy.
const UNPACED_ASSOCIATIONS: usize = 64;

/// Requests without a data set that are answered in a second, of all associations together. Lower:
/// honest requests wait. Higher: they leave less time for others.
const ANSWERED_PER_SECOND: f64 = 2000.0;

/// Requests that an association may send without a pause.
const AT_ONCE: f64 = 10.0;

/// The pace of one association.
#[derive(Debug)]
pub(super) struct Pace {
    /// Requests that are still answered at once. Negative: those that had to wait.
    left: f64,
    /// When `left` was right.
    at: Instant,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { left: AT_ONCE, at: now }
    }

    /// Counts a request, and returns how long its response has to wait. `associations` are those
    /// that are open now, this one among them.
    pub(super) fn wait(&mut self, now: Instant, associations: usize) -> Option<Duration> {
        let passed = now.saturating_duration_since(std::mem::replace(&mut self.at, now));
        if associations <= UNPACED_ASSOCIATIONS {
            self.left = AT_ONCE;
            return None;
        }
        let rate = ANSWERED_PER_SECOND / associations as f64;
        self.left = passed.as_secs_f64().mul_add(rate, self.left).min(AT_ONCE) - 1.0;
        (self.left < 0.0).then(|| Duration::from_secs_f64(-self.left / rate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Number of requests that are answered in a second when each follows the last response at
    /// once.
    fn answered_in_a_second(associations: usize) -> usize {
        let begun = Instant::now();
        let (mut pace, mut now) = (Pace::new(begun), begun);
        let mut answered = 0;
        while now < begun + Duration::from_secs(1) && answered < 100_000 {
            now += pace.wait(now, associations).unwrap_or_default() + Duration::from_micros(50);
            answered += 1;
        }
        answered
    }

    #[test]
    fn few_associations_are_answered_as_fast_as_they_ask() {
        assert!(answered_in_a_second(1) > 15_000);
        assert!(answered_in_a_second(UNPACED_ASSOCIATIONS) > 15_000);
    }

    #[test]
    fn each_of_many_associations_has_its_part() {
        for associations in [UNPACED_ASSOCIATIONS + 1, 600, 2000] {
            let part = ANSWERED_PER_SECOND / associations as f64;
            let answered = answered_in_a_second(associations) as f64;
            assert!((part..=part + AT_ONCE + 2.0).contains(&answered), "{associations}: {answered}");
        }
    }

    #[test]
    fn a_request_now_and_then_never_waits() {
        let begun = Instant::now();
        let mut pace = Pace::new(begun);
        for second in 0..100 {
            assert_eq!(pace.wait(begun + Duration::from_secs(second), 1500), None);
        }
    }
}
