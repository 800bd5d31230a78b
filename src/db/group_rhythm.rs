//! Time that a group of arrivals waits for more, before it becomes durable.

use std::time::{Duration, Instant};

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
    /// Part of that time for which it waits at most, as a divisor.
    waits_for_part: u32,
    /// Objects of the last group, and those that came meanwhile.
    expected: usize,
    /// No group waits longer than this.
    until: Instant,
}

impl GroupRhythm {
    /// The rhythm before the first group. The next group waits if one took at least `waits_after`,
    /// and for that part of its time at most. Larger parts delay objects more where a sender has
    /// ended. Smaller ones divide senders into groups that wait for one another.
    pub(crate) fn new(waits_after: Duration, waits_for_part: u32) -> Self {
        Self { waits_after, waits_for_part, expected: 0, until: Instant::now() }
    }

    /// Notes a group that has taken so long to make `written` objects durable, while `queued` came.
    /// Their senders are told at `ended`.
    pub(crate) fn became_durable(&mut self, (taken, ended): (Duration, Instant), (written, queued): (usize, usize)) {
        self.expected = if taken < self.waits_after { 0 } else { written + queued };
        self.until = ended + (taken / self.waits_for_part).min(LONGEST_WAIT);
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
        let ended = Instant::now();
        let mut rhythm = GroupRhythm::new(Duration::from_millis(2), 2);
        assert_eq!(rhythm.wait_until(1), None);
        // One sender alone never waits.
        rhythm.became_durable((Duration::from_millis(8), ended), (1, 0));
        assert_eq!(rhythm.wait_until(1), None);
        // Eight were written, and eight came meanwhile: all sixteen can share the next one.
        rhythm.became_durable((Duration::from_millis(8), ended), (8, 8));
        assert_eq!(rhythm.wait_until(8), Some(ended + Duration::from_millis(4)));
        assert_eq!(rhythm.wait_until(16), None);
        // One of them has ended. It is waited for once.
        rhythm.became_durable((Duration::from_millis(8), ended), (15, 0));
        assert_eq!(rhythm.wait_until(15), None);
        // A server that came back after seconds is not waited for as long again.
        rhythm.became_durable((Duration::from_secs(8), ended), (8, 8));
        assert_eq!(rhythm.wait_until(8), Some(ended + Duration::from_millis(50)));
        // A flush that takes no time is not worth a wait.
        rhythm.became_durable((Duration::from_micros(200), ended), (8, 8));
        assert_eq!(rhythm.wait_until(8), None);
    }
}
