//! Dates and times (PS3.5 6.2, VRs DA, TM, DT), compared by what they mean.
//!
//! A value names a span of time: `2024` is a whole year, `1030` a whole minute, `103000.5` a tenth
//! of a second. A stored value counts as the first moment of its span. A key matches if that moment
//! lies within the span of the key (PS3.4 C.2.2.2.1 and C.2.2.2.5). So dates, times and moments are
//! ordered numbers here, and a span is a pair of them.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::ops::RangeInclusive;

use super::calendar::{self, DAY_MS, civil, days_before};
use crate::encoding::padding::without_padding;

/// A day as the number `YYYYMMDD`. The order of the numbers is the order of the days.
pub type Day = u32;

/// A time of day in microseconds since midnight. Each minute counts 61 seconds, so a leap second
/// (`SS` = 60 in PS3.5 6.2) has its own number. The order of the numbers is the order of the times.
pub type TimeOfDay = u64;

/// A moment in UTC, in microseconds since 1970. Each minute counts 61 seconds, as in [`TimeOfDay`].
pub type Moment = i64;

/// The first day that a DA value can name.
const FIRST_DAY: Day = 10_101;

/// The last day that a DA value can name.
pub const LAST_DAY: Day = 99_991_231;

/// The last time of day. It is a leap second.
pub const LAST_TIME: TimeOfDay = DAY - MICROSECOND;

const MICROSECOND: u64 = 1;
const SECOND: u64 = 1_000_000;
/// A minute of a [`Moment`].
pub(super) const MINUTE: u64 = 61 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// Returns the days that a DA value names.
///
/// `YYYYMMDD` names one day. The legacy `YYYY.MM.DD` of ACR-NEMA is accepted too, and so are
/// `YYYYMM` and `YYYY`, which users type. Any other text gives `None`, and so does a day that is
/// not in the calendar.
#[must_use]
pub fn days(text: &str) -> Option<RangeInclusive<Day>> {
    days_of(without_padding(text).as_bytes())
}

fn days_of(bytes: &[u8]) -> Option<RangeInclusive<Day>> {
    let (year, rest) = number(bytes, 4)?;
    if year == 0 {
        return None;
    }
    let dotted = rest.first() == Some(&b'.');
    let Some((month, rest)) = component(rest, dotted)? else {
        return Some(year * 10_000 + 101..=year * 10_000 + 1231);
    };
    if !(1..=12).contains(&month) {
        return None;
    }
    let Some((day, rest)) = component(rest, dotted)? else {
        let first = year * 10_000 + month * 100 + 1;
        return Some(first..=first - 1 + days_in_month(year, month));
    };
    if !rest.is_empty() || !(1..=days_in_month(year, month)).contains(&day) {
        return None;
    }
    let day = year * 10_000 + month * 100 + day;
    Some(day..=day)
}

/// Returns the times of day that a TM value names.
///
/// The forms are `HH`, `HHMM`, `HHMMSS`, `HHMMSS.F` to `HHMMSS.FFFFFF`, and the same with colons as
/// in ACR-NEMA. PS3.5 6.2 allows six digits of a second. Some writers give more, and the further
/// digits are cut off. Any other text gives `None`.
#[must_use]
pub fn times(text: &str) -> Option<RangeInclusive<TimeOfDay>> {
    times_of(without_padding(text).as_bytes())
}

fn times_of(bytes: &[u8]) -> Option<RangeInclusive<TimeOfDay>> {
    let colons = bytes.get(2) == Some(&b':');
    let (hour, rest) = number(bytes, 2)?;
    if hour > 23 {
        return None;
    }
    let start = u64::from(hour) * HOUR;
    if rest.is_empty() {
        return Some(start..=start + HOUR - MICROSECOND);
    }
    let (minute, rest) = number(separator(rest, colons, b':')?, 2)?;
    if minute > 59 {
        return None;
    }
    let start = start + u64::from(minute) * MINUTE;
    if rest.is_empty() {
        return Some(start..=start + MINUTE - MICROSECOND);
    }
    let (second, rest) = number(separator(rest, colons, b':')?, 2)?;
    if second > 60 {
        return None;
    }
    let start = start + u64::from(second) * SECOND;
    let (fraction, precision) = fraction(rest)?;
    Some(start + fraction..=start + fraction + precision - MICROSECOND)
}

/// Returns the moments that a DT value names, in UTC.
///
/// The offset from UTC (`&ZZXX`) is applied. A value without an offset is taken as UTC. Any other
/// text gives `None`.
#[must_use]
pub fn moments(text: &str) -> Option<RangeInclusive<Moment>> {
    let bytes = without_padding(text).as_bytes();
    let (local, offset_minutes) = match bytes.iter().rposition(|byte| matches!(byte, b'+' | b'-')) {
        Some(at) => (bytes.get(..at)?, offset(bytes.get(at..)?)?),
        None => (bytes, 0),
    };
    if local.contains(&b':') || local.iter().position(|byte| *byte == b'.').is_some_and(|at| at < 14) {
        return None;
    }
    let (date, time) = local.split_at(local.len().min(8));
    let days = days_of(date)?;
    let times = if time.is_empty() { 0..=DAY - MICROSECOND } else { times_of(time)? };
    if !time.is_empty() && days.start() != days.end() {
        return None;
    }
    let (first, last) = (moment(*days.start(), *times.start()), moment(*days.end(), *times.end()));
    let shift = offset_minutes * (MINUTE as i64);
    Some(first - shift..=last - shift)
}

/// Returns a DT value with the offset from UTC of its data set (0008,0201), unless it has one of
/// its own (PS3.5 table 6.2-1). A text that is no offset changes nothing.
#[must_use]
pub fn in_zone<'a>(text: &'a str, zone: &str) -> Cow<'a, str> {
    let (value, zone) = (without_padding(text), without_padding(zone));
    if value.is_empty() || has_offset(value) || offset(zone.as_bytes()).is_none() {
        return Cow::Borrowed(text);
    }
    Cow::Owned(format!("{value}{zone}"))
}

/// Whether a DT value has an offset from UTC.
#[must_use]
pub fn has_offset(text: &str) -> bool {
    text.contains(['+', '-'])
}

/// Returns the moment at this time of this day, in UTC.
#[must_use]
pub fn moment(day: Day, time: TimeOfDay) -> Moment {
    days_since_1970(day) * (DAY as i64) + time as i64
}

/// Returns the day that a DA value names. `None` if it names none, or more than one.
#[must_use]
pub fn one_day(text: &str) -> Option<Day> {
    days(text).filter(|days| days.start() == days.end()).map(|days| *days.start())
}

/// Returns the number of days from 1970-01-01 to a day.
#[must_use]
pub fn days_since_1970(day: Day) -> i64 {
    let day = i64::from(day);
    days_before(day / 10_000, day / 100 % 100, day % 100)
}

/// Returns the day that lies so many days after 1970-01-01. Before the year 1 it is the first day,
/// and after the year 9999 the last.
#[must_use]
pub fn day_of(days: i64) -> Day {
    let (year, month, day) = civil(days);
    let number = year * 10_000 + month * 100 + day;
    Day::try_from(number).map_or(FIRST_DAY, |day| day.clamp(FIRST_DAY, LAST_DAY))
}

/// Returns a time of day in microseconds since midnight, in minutes of 60 seconds. `None` for a
/// leap second.
#[must_use]
pub fn clock_microseconds(time: TimeOfDay) -> Option<u64> {
    let (minutes, within) = (time / MINUTE, time % MINUTE);
    (within < 60 * SECOND).then_some(minutes * 60 * SECOND + within)
}

/// Returns a moment in milliseconds since 1970 UTC. A leap second is the second after it.
#[must_use]
pub fn unix_ms(moment: Moment) -> i64 {
    let (day, time) = (moment.div_euclid(DAY as i64), moment.rem_euclid(DAY as i64) as u64);
    let (minutes, within) = (time / MINUTE, time % MINUTE);
    let ms = minutes * 60_000 + within / (SECOND / 1000);
    day * DAY_MS + ms as i64
}

/// Formats a day as `YYYYMMDD`.
#[must_use]
pub fn day_text(day: Day) -> String {
    format!("{day:08}")
}

/// Returns a lower bound in byte order for stored TM texts.
///
/// It is the smallest TM text that means this time or a later one: trailing components that are
/// zero are left out.
#[must_use]
pub fn earliest_time_text(time: TimeOfDay) -> String {
    let mut text = microsecond_text(time);
    let kept = if time.is_multiple_of(HOUR) {
        2
    } else if (time % HOUR).is_multiple_of(MINUTE) {
        4
    } else if time.is_multiple_of(SECOND) {
        6
    } else {
        text.trim_end_matches('0').len()
    };
    text.truncate(kept);
    text
}

/// Returns an upper bound in byte order for stored TM texts.
///
/// No TM text that means this time or an earlier one is larger. Every TM text that means a later
/// time is larger. The bound itself is not a valid time, because further digits of the second may
/// follow.
#[must_use]
pub fn latest_time_text(time: TimeOfDay) -> String {
    // A colon sorts after all digits.
    microsecond_text(time) + ":"
}

/// Formats a time as `HHMMSS.FFFFFF`.
fn microsecond_text(time: TimeOfDay) -> String {
    let mut text = String::with_capacity(14);
    let (hour, minute) = (time / HOUR, time % HOUR / MINUTE);
    let (second, fraction) = (time % MINUTE / SECOND, time % SECOND);
    // Writing to a String cannot fail.
    let _ = write!(text, "{hour:02}{minute:02}{second:02}.{fraction:06}");
    text
}

/// Reads a number from the first `length` bytes, which must all be digits. Returns it and the rest.
fn number(bytes: &[u8], length: usize) -> Option<(u32, &[u8])> {
    let (digits, rest) = bytes.split_at_checked(length)?;
    let mut value = 0;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value * 10 + u32::from(digit - b'0');
    }
    Some((value, rest))
}

/// Reads the next two-digit component of a date. At the end of the text it returns `Some(None)`.
#[expect(clippy::option_option, reason = "malformed and absent are different answers")]
fn component(bytes: &[u8], dotted: bool) -> Option<Option<(u32, &[u8])>> {
    if bytes.is_empty() {
        return Some(None);
    }
    number(separator(bytes, dotted, b'.')?, 2).map(Some)
}

/// Returns the bytes after the separator. If a separator is expected, it must be there.
fn separator(bytes: &[u8], expected: bool, separator: u8) -> Option<&[u8]> {
    if expected { bytes.strip_prefix(&[separator]) } else { Some(bytes) }
}

/// Reads `.F` to `.FFFFFF`. Returns its microseconds, and the microseconds in one unit of its last
/// digit. Further digits are less than a microsecond and are cut off.
fn fraction(bytes: &[u8]) -> Option<(u64, u64)> {
    if bytes.is_empty() {
        return Some((0, SECOND));
    }
    let digits = bytes.strip_prefix(b".")?;
    if digits.is_empty() {
        return None;
    }
    let (counted, finer) = digits.split_at(digits.len().min(6));
    if !finer.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let (value, _) = number(counted, counted.len())?;
    let unit = 10_u64.pow(6 - counted.len() as u32);
    Some((u64::from(value) * unit, unit))
}

/// Reads an offset from UTC, `+ZZXX` or `-ZZXX`, in minutes. The range is -1200 to +1400 (PS3.5
/// 6.2).
fn offset(bytes: &[u8]) -> Option<i64> {
    let (sign, digits) = match bytes.split_first()? {
        (b'+', digits) => (1, digits),
        (b'-', digits) => (-1, digits),
        _ => return None,
    };
    let (hours, rest) = number(digits, 2)?;
    let (minutes, rest) = number(rest, 2)?;
    let total = sign * i64::from(hours * 60 + minutes);
    (rest.is_empty() && minutes < 60 && (-12 * 60..=14 * 60).contains(&total)).then_some(total)
}

fn days_in_month(year: u32, month: u32) -> u32 {
    calendar::days_in(i64::from(year), i64::from(month)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_names_a_day_a_month_or_a_year() {
        assert_eq!(days("20240229"), Some(20240229..=20240229));
        assert_eq!(days("2024.02.29"), Some(20240229..=20240229));
        assert_eq!(days("202402"), Some(20240201..=20240229));
        assert_eq!(days("2023.02"), Some(20230201..=20230228));
        assert_eq!(days("2024 "), Some(20240101..=20241231));
        for bad in ["", "0000", "20230229", "20241301", "20240100", "2024010", "2024-01-01", "20.24.01.01", "2024010１"]
        {
            assert_eq!(days(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_time_names_all_moments_within_its_precision() {
        let at = |hour, minute, second, micro| hour * HOUR + minute * MINUTE + second * SECOND + micro;
        assert_eq!(times("10"), Some(at(10, 0, 0, 0)..=at(10, 59, 60, 999_999)));
        assert_eq!(times("1030"), Some(at(10, 30, 0, 0)..=at(10, 30, 60, 999_999)));
        assert_eq!(times("10:30:15"), Some(at(10, 30, 15, 0)..=at(10, 30, 15, 999_999)));
        assert_eq!(times("103015.25"), Some(at(10, 30, 15, 250_000)..=at(10, 30, 15, 259_999)));
        // .NET writes seven digits.
        assert_eq!(times("103015.1234567"), Some(at(10, 30, 15, 123_456)..=at(10, 30, 15, 123_456)));
        assert_eq!(times("103015.0000000").unwrap(), at(10, 30, 15, 0)..=at(10, 30, 15, 0));
        assert_eq!(moments("20240229103015.1234567+0100"), moments("20240229093015.123456"));
        assert_eq!(times("235960.000001"), Some(at(23, 59, 60, 1)..=at(23, 59, 60, 1)));
        for bad in [
            "",
            "1",
            "24",
            "1060",
            "103061",
            "10301",
            "103015.",
            "103015.1234567x",
            "103015.x",
            "10:3015",
            "1030:15",
            "aa",
        ] {
            assert_eq!(times(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_leap_second_comes_after_59_and_before_the_next_minute() {
        let start = |text| *times(text).unwrap().start();
        assert!(start("105959.999999") < start("105960") && start("105960.999999") < start("110000"));
    }

    #[test]
    fn an_offset_from_utc_is_taken_into_account() {
        let start = |text| *moments(text).unwrap().start();
        assert_eq!(start("20240101120000+0100"), start("20240101110000"));
        assert_eq!(start("20231231233000-0030"), start("20240101"));
        assert_eq!(start("20240301000000+1400"), start("20240229100000.000000+0000"));
        for bad in
            ["20240101+1500", "20240101-1201", "20240101+01", "2024.01.01", "20240101 12", "20240101+0160", "+0100"]
        {
            assert_eq!(moments(bad), None, "{bad}");
        }
    }

    // PS3.5 table 6.2-1.
    #[test]
    fn a_moment_without_an_offset_takes_that_of_its_data_set() {
        for (text, zone, expected) in [
            ("20240101003000", "+0100", "20240101003000+0100"),
            ("2024 ", "-0500 ", "2024-0500"),
            ("20240101003000-0200", "+0100", "20240101003000-0200"),
            ("20240101003000", "", "20240101003000"),
            ("20240101003000", "CET", "20240101003000"),
            ("20240101003000", "+9900", "20240101003000"),
            ("", "+0100", ""),
        ] {
            assert_eq!(in_zone(text, zone), expected, "{text} {zone}");
        }
    }

    #[test]
    fn moments_of_days_follow_the_calendar() {
        let start = |text| *moments(text).unwrap().start();
        for (before, after) in [
            ("20231231", "20240101"),
            ("20240228", "20240229"),
            ("20240229", "20240301"),
            ("19000228", "19000301"),
            ("20000229", "20000301"),
            ("19991231", "20000101"),
            ("00041231", "00050101"),
        ] {
            assert_eq!(start(after) - start(before), DAY as i64, "{before} {after}");
        }
        assert_eq!(moments("2024").unwrap().end() + 1, start("2025"));
    }

    #[test]
    fn time_texts_bound_all_spellings_in_byte_order() {
        let start = |text| *times(text).unwrap().start();
        assert_eq!(earliest_time_text(start("000000")), "00");
        assert_eq!(earliest_time_text(start("100000.0")), "10");
        assert_eq!(earliest_time_text(start("1030")), "1030");
        assert_eq!(earliest_time_text(start("103020")), "103020");
        assert_eq!(earliest_time_text(start("100000.5")), "100000.5");
        assert_eq!(earliest_time_text(start("200500.050")), "200500.05");
        assert_eq!(earliest_time_text(start("10")), "10");
        assert_eq!(latest_time_text(*times("1030").unwrap().end()), "103060.999999:");
        let all = [
            "00",
            "0000",
            "000000.0000000",
            "10",
            "1000",
            "100000",
            "100000.0",
            "100000.0000001",
            "1001",
            "103000",
            "103000.123456",
            "103000.1234567",
            "103000.123457",
            "1059",
            "20",
            "235960.999999",
            "235960.9999999",
        ];
        for text in all {
            for bound in all {
                assert_eq!(
                    text >= earliest_time_text(start(bound)).as_str(),
                    start(text) >= start(bound),
                    "{text} {bound}"
                );
                assert_eq!(
                    text <= latest_time_text(start(bound)).as_str(),
                    start(text) <= start(bound),
                    "{text} {bound}"
                );
            }
        }
    }
}
