//! Wall-clock time as an input, so that tests can set it.

use std::time::{SystemTime, UNIX_EPOCH};

/// Source of the current time.
#[derive(Clone, Copy, Debug)]
pub enum Clock {
    /// The clock of the system.
    System,
    /// A fixed time, in milliseconds since 1970-01-01 00:00 UTC.
    Fixed(i64),
}

impl Clock {
    /// Returns milliseconds since 1970-01-01 00:00 UTC. Earlier times are negative.
    #[must_use]
    pub fn now_ms(self) -> i64 {
        match self {
            Self::Fixed(ms) => ms,
            #[expect(clippy::disallowed_methods, reason = "this is the one home of the wall clock")]
            Self::System => unix_ms(SystemTime::now()),
        }
    }
}

/// Converts a time to milliseconds since 1970-01-01 00:00 UTC, rounded down. Earlier times are
/// negative.
#[must_use]
pub fn unix_ms(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
        // The distance is rounded up.
        Err(before) => {
            let distance = before.duration().as_nanos().div_ceil(NANOSECONDS_OF_MS);
            i64::try_from(distance).map_or(i64::MIN, |ms| -ms)
        }
    }
}

const NANOSECONDS_OF_MS: u128 = 1_000_000;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_before_1970_are_rounded_down_too() {
        let before = |duration| unix_ms(UNIX_EPOCH - duration);
        assert_eq!(before(Duration::from_secs(86_400)), -86_400_000);
        assert_eq!(before(Duration::from_millis(500)), -500);
        assert_eq!(before(Duration::from_nanos(1)), -1);
        assert_eq!(before(Duration::from_nanos(1_000_001)), -2);
        assert_eq!(unix_ms(UNIX_EPOCH + Duration::from_nanos(1_999_999)), 1);
    }
}
