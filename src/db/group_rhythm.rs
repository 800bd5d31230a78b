//! Time that a group of arrivals waits for more, before it becomes durable.

use std::time::{Duration, Instant};

/// Part of the time of a group for which the next one waits for objects that are expected, as a
/// divisor. Larger: less delay where a sender has ended. Smaller: fewer flushes where many senders
/// wait.
const WAITS_FOR_PART: u32 = 2;

/// Longest wait of a group, after one that took unusually long.
const LONGEST_WAIT: Duration = Duration::from_millis(50);

/// When the next group is complete.
///
/// A sender waits for its answer before it sends again. So its next object comes soon after a
/// group, and too late for a group that begins with what came during that one. Without a wait,
/// senders part into two groups, and each group waits for the other.
#[derive(Debug)]
pub(crate) struct GroupRhythm {
    /// Time of a group from which on the next one waits.
    waits_after: Duration,
    /// Objects of the last group, and those that came meanwhile.
    expected: usize,
    /// No group waits longer than this.
    until: Instant,
}

impl GroupRhythm {
    /// The rhythm before the first group. The next group waits if one took at least `waits_after`.
    pub(crate) fn new(waits_after: Duration) -> Self {
        Self { waits_after, expected: 0, until: Instant::now() }
    }

    /// Notes a group that has made `written` objects durable, while `queued` came.
    pub(crate) fn became_durable(&mut self, (begun, ended): (Instant, Instant), (written, queued): (usize, usize)) {
        let taken = ended.saturating_duration_since(begun);
        self.expected = if taken < self.waits_after { 0 } else { written + queued };
        self.until = ended + (taken / WAITS_FOR_PART).min(LONGEST_WAIT);
    }

    /// Time until which a group of so many objects may wait for one more. `None` if it is complete.
    pub(crate) fn wait_until(&self, gathered: usize) -> Option<Instant> {
        (gathered < self.expected).then_some(self.until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_waits_for_those_that_shared_the_last_flush_and_for_nobody_else() {
        let begun = Instant::now();
        let ended = begun + Duration::from_millis(8);
        let mut rhythm = GroupRhythm::new(Duration::from_millis(2));
        assert_eq!(rhythm.wait_until(1), None);
        // One sender alone never waits.
        rhythm.became_durable((begun, ended), (1, 0));
        assert_eq!(rhythm.wait_until(1), None);
        // Eight were written, and eight came meanwhile: all sixteen can share the next one.
        rhythm.became_durable((begun, ended), (8, 8));
        assert_eq!(rhythm.wait_until(8), Some(ended + Duration::from_millis(4)));
        assert_eq!(rhythm.wait_until(16), None);
        // One of them has ended. It is waited for once.
        rhythm.became_durable((begun, ended), (15, 0));
        assert_eq!(rhythm.wait_until(15), None);
        // A server that came back after seconds is not waited for as long again.
        rhythm.became_durable((begun, begun + Duration::from_secs(8)), (8, 8));
        assert_eq!(rhythm.wait_until(8), Some(begun + Duration::from_millis(8_050)));
        // A flush that takes no time is not worth a wait.
        rhythm.became_durable((begun, begun + Duration::from_micros(200)), (8, 8));
        assert_eq!(rhythm.wait_until(8), None);
    }
}
