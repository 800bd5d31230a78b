//! When a directory is looked at again.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::civil::Time;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};

use crate::model::calendar::DAY_SECONDS;

/// Shortest time between two looks.
const SHORTEST: Duration = Duration::from_secs(1);

/// Longest time between two looks.
const LONGEST: Duration = Duration::from_secs(366 * DAY_SECONDS);

/// When a directory is looked at: at intervals, at a time of each day, or both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WatchPlan {
    /// Time between the beginnings of two looks.
    pub every: Option<Interval>,
    /// Time of day, in the time zone of the machine.
    pub at: Option<DailyTime>,
}

impl fmt::Display for WatchPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.every, self.at) {
            (Some(every), Some(at)) => write!(f, "every {every} and at {at}"),
            (Some(every), None) => write!(f, "every {every}"),
            (None, Some(at)) => write!(f, "at {at}"),
            (None, None) => f.write_str("never"),
        }
    }
}

/// A time that people write as `15m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval(Duration);

impl Interval {
    /// The time.
    #[must_use]
    pub const fn time(self) -> Duration {
        self.0
    }
}

/// A text that is no interval or no time of day.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct PlanError(&'static str);

impl FromStr for Interval {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Self, PlanError> {
        const FORM: PlanError =
            PlanError("it is a whole number with a unit, as in 30s, 15m, 2h or 1d, from 1s to 366d");
        let unit = text.chars().next_back().ok_or(FORM)?;
        let seconds_of_unit = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => DAY_SECONDS,
            _ => return Err(FORM),
        };
        let number: u64 = text.strip_suffix(unit).and_then(|number| number.parse().ok()).ok_or(FORM)?;
        let time = Duration::from_secs(number.checked_mul(seconds_of_unit).ok_or(FORM)?);
        if (SHORTEST..=LONGEST).contains(&time) { Ok(Self(time)) } else { Err(FORM) }
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let units = [(DAY_SECONDS, 'd'), (3600, 'h'), (60, 'm'), (1, 's')];
        let (of_unit, unit) =
            units.into_iter().find(|(of_unit, _)| seconds.is_multiple_of(*of_unit)).unwrap_or((1, 's'));
        write!(f, "{}{unit}", seconds / of_unit)
    }
}

/// A time of day such as `02:00`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DailyTime(Time);

impl FromStr for DailyTime {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Self, PlanError> {
        const FORM: PlanError = PlanError("it is a time of day, as in 02:00");
        let (hour, minute) = text.split_once(':').ok_or(FORM)?;
        let is_number = |text: &str| text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = |text: &str| is_number(text).then(|| text.parse::<i8>().ok()).flatten().ok_or(FORM);
        Time::new(number(hour)?, number(minute)?, 0, 0).map(Self).map_err(|_| FORM)
    }
}

impl fmt::Display for DailyTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0.hour(), self.0.minute())
    }
}

impl DailyTime {
    /// Returns the next moment after `ms` at which it is this time of day. Where the clocks change
    /// and the time does not occur, it is as much later.
    #[must_use]
    pub fn next_after(self, ms: i64, zone: &TimeZone) -> i64 {
        self.near(ms, zone, 1)
    }

    /// Returns the last moment at or before `ms` at which it was this time of day.
    #[must_use]
    pub fn last_before(self, ms: i64, zone: &TimeZone) -> i64 {
        self.near(ms, zone, -1)
    }

    /// The next moment, or the last one with a negative `step`.
    fn near(self, ms: i64, zone: &TimeZone, step: i64) -> i64 {
        let far = if step > 0 { i64::MAX } else { i64::MIN };
        let Ok(now) = Timestamp::from_millisecond(ms) else { return far };
        let today = now.to_zoned(zone.clone()).date();
        let days = [0, 1, 2].map(|days| today.checked_add((days * step).days()));
        let moments =
            days.into_iter().flatten().filter_map(|date| date.to_datetime(self.0).to_zoned(zone.clone()).ok());
        moments
            .map(|moment| moment.timestamp().as_millisecond())
            .find(|moment| if step > 0 { *moment > ms } else { *moment <= ms })
            .unwrap_or(far)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_written_as_people_do() {
        for (text, seconds, shown) in
            [("30s", 30, "30s"), ("15m", 900, "15m"), ("90m", 5400, "90m"), ("2h", 7200, "2h"), ("24h", 86_400, "1d")]
        {
            let interval: Interval = text.parse().unwrap();
            assert_eq!((interval.time().as_secs(), interval.to_string().as_str()), (seconds, shown));
        }
        for text in ["", "15", "m", "0s", "-1m", "1.5h", "15 m", "99999999999999999999d", "400d", "1w", "5é"] {
            assert!(text.parse::<Interval>().is_err(), "{text}");
        }
    }

    #[test]
    fn times_of_day_are_those_of_a_clock() {
        assert_eq!("02:00".parse::<DailyTime>().unwrap().to_string(), "02:00");
        for text in ["", "2:00", "24:00", "12:60", "12", "+1:00", "ab:cd"] {
            assert!(text.parse::<DailyTime>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_next_time_of_day_is_in_the_zone_of_the_machine() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let at: DailyTime = "02:00".parse().unwrap();
        // 02:00 with two hours east is midnight UTC.
        assert_eq!(at.next_after(0, &zone), 86_400_000);
        assert_eq!(at.next_after(-1, &zone), 0);
        assert_eq!(at.last_before(0, &zone), 0);
        assert_eq!(at.last_before(-1, &zone), -86_400_000);
    }
}
