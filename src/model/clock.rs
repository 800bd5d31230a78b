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
        Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |ms| -ms - 1),
    }
}
