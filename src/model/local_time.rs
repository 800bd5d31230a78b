//! Times of day on this machine. DICOM and HL7 have local times without an offset from UTC.

use chrono::{DateTime, Local, LocalResult, NaiveDate, TimeZone as _};

/// Returns the local date (`YYYYMMDD`) and time (`HHMMSS`) of a moment in milliseconds since 1970
/// UTC.
#[must_use]
pub fn local_date_and_time(ms: i64) -> (String, String) {
    let moment = DateTime::from_timestamp_millis(ms).unwrap_or_default().with_timezone(&Local);
    (moment.format("%Y%m%d").to_string(), moment.format("%H%M%S").to_string())
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
    let number = |text: Option<&str>| text?.parse::<u32>().ok();
    let year = date.get(..4)?.parse().ok()?;
    let day = NaiveDate::from_ymd_opt(year, number(date.get(4..6))?, number(date.get(6..8))?)?;
    let part = |from: usize| match time.get(from..from + 2) {
        Some(digits) => digits.parse::<u32>().ok(),
        None => Some(0),
    };
    let local = day.and_hms_opt(part(0)?, part(2)?, part(4)?.min(59))?;
    match Local.from_local_datetime(&local) {
        LocalResult::Single(moment) | LocalResult::Ambiguous(moment, _) => Some(moment.timestamp_millis()),
        LocalResult::None => match Local.from_local_datetime(&(local + chrono::Duration::hours(1))) {
            LocalResult::Single(moment) | LocalResult::Ambiguous(moment, _) => Some(moment.timestamp_millis()),
            LocalResult::None => None,
        },
    }
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
