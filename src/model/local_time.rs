//! Times of day on this machine. DICOM and HL7 have local times without an offset from UTC.

use std::ops::RangeInclusive;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};

use super::datetime::{MINUTE, Moment, unix_ms};

/// Returns the local date (`YYYYMMDD`) and time (`HHMMSS`) of a moment in milliseconds since 1970
/// UTC.
#[must_use]
pub fn local_date_and_time(ms: i64) -> (String, String) {
    let moment = Timestamp::from_millisecond(ms).unwrap_or_default().to_zoned(TimeZone::system());
    (moment.strftime("%Y%m%d").to_string(), moment.strftime("%H%M%S").to_string())
}

/// Returns the moment of a local date (`YYYYMMDD`) and time (`HH`, `HHMM` or `HHMMSS`, further
/// digits are ignored), in milliseconds since 1970 UTC.
///
/// A time that a change of the clocks skips is the moment an hour later. Of one that occurs twice
/// it is the first. `None` if the texts are no date and time.
#[must_use]
pub fn local_ms(date: &str, time: &str) -> Option<i64> {
    if date.len() != 8 || !date.is_ascii() || !time.is_ascii() {
        return None;
    }
    let number = |text: &str| text.parse::<i8>().ok();
    let part = |from: usize| time.get(from..from + 2).map_or(Some(0), number);
    let (year, month, day) = (date.get(..4)?.parse().ok()?, number(date.get(4..6)?)?, number(date.get(6..8)?)?);
    let local = DateTime::new(year, month, day, part(0)?, part(2)?, part(4)?.min(59), 0).ok()?;
    let moment = TimeZone::system().to_ambiguous_timestamp(local).compatible().ok()?;
    Some(moment.as_millisecond())
}

/// Returns the moments that local times may mean, which are given as if they were in UTC.
///
/// A time that occurs twice when the clocks change may mean either moment.
#[must_use]
pub fn local_moments(shown: &RangeInclusive<Moment>) -> RangeInclusive<Moment> {
    let (greatest, _) = offset_minutes(*shown.start());
    let (_, least) = offset_minutes(*shown.end());
    let minute = MINUTE as i64;
    shown.start() - greatest * minute..=shown.end() - least * minute
}

/// The greatest and the least offset from UTC that this local time may have here.
fn offset_minutes(shown: Moment) -> (i64, i64) {
    let moment = Timestamp::from_millisecond(unix_ms(shown)).unwrap_or_default();
    let local = moment.to_zoned(TimeZone::UTC).datetime();
    let (one, other) = match TimeZone::system().to_ambiguous_timestamp(local).offset() {
        AmbiguousOffset::Unambiguous { offset } => (offset, offset),
        AmbiguousOffset::Gap { before, after } | AmbiguousOffset::Fold { before, after } => (before, after),
    };
    let minutes = |offset: Offset| i64::from(offset.seconds().div_euclid(60));
    (minutes(one.max(other)), minutes(one.min(other)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_local_time_comes_back_as_the_same_moment() {
        // At noon no clock changes, whatever the time zone of the machine.
        let noon = local_ms("20260715", "120000").unwrap();
        assert_eq!(local_date_and_time(noon), ("20260715".into(), "120000".into()));
        assert_eq!(local_ms("20260715", "12"), Some(noon));
        assert_eq!(local_ms("20260715", "123015.25"), Some(noon + 30 * 60_000 + 15_000));
        assert_eq!(local_ms("20260716", "12"), Some(noon + 86_400_000));
    }

    #[test]
    fn what_is_no_date_has_no_moment() {
        for (date, time) in [("", ""), ("2026", "12"), ("20261301", "12"), ("20260229", ""), ("20260715", "25")] {
            assert_eq!(local_ms(date, time), None, "{date} {time}");
        }
    }
}
