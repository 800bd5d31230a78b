//! Dates and times as people write them: `2024-01-31`, `2024-01`, `2024`, `2024-01-31T08:00`,
//! `today`, `today-7d`, `7d`, `2024-01-01..2024-06-30`.
//!
//! This is the only place that knows these forms. Each becomes a value of the Standard, and
//! [`datetime`] says what that means. Values that are already in the form of the Standard stay as
//! they are.

use dicom_core::VR;

use super::calendar::{DAY_MS, HOUR_MS, civil, days_before, days_in};
use super::datetime::{self, Day};

/// Maximum number before a unit, as in `7d`.
const MAX_COUNT: i64 = 1_000_000;

/// Returns the value of a key of DA or DT in the form of the Standard (PS3.4 C.2.2.2.5).
///
/// `today` is the number of days since 1970-01-01. Text that is no date as people write it is
/// returned unchanged: it may be a form that only the matcher knows.
#[must_use]
pub fn in_dicom_form(vr: VR, text: &str, today: i64) -> String {
    let each: Vec<String> = text.split('\\').map(|value| value_in_dicom_form(vr, value.trim(), today)).collect();
    each.join("\\")
}

fn value_in_dicom_form(vr: VR, text: &str, today: i64) -> String {
    let point = |text: &str| point(vr, text.trim(), today);
    // An end of a range may be left out.
    let end = |text: &str| if text.trim().is_empty() { Some(String::new()) } else { point(text) };
    let range = |low: &str, high: &str| match (end(low)?, end(high)?) {
        (low, high) if low.is_empty() && high.is_empty() => None,
        (low, high) => Some(format!("{low}-{high}")),
    };
    let last_days = |text: &str| Distance::read(text)?.day_before(today).map(|day| format!("{}-", day_text(day)));
    let hyphens = text.match_indices('-').map(|(at, _)| at);
    let read = match text.split_once("..") {
        Some((low, high)) => range(low, high),
        None => point(text)
            .or_else(|| last_days(text))
            // A hyphen may separate the parts of a date, or the two ends of a range.
            .or_else(|| hyphens.into_iter().find_map(|at| range(text.get(..at)?, text.get(at + 1..)?))),
    };
    read.unwrap_or_else(|| text.to_owned())
}

/// Returns the span of time that a text names, in UTC: from the first value to before the second,
/// in milliseconds since 1970. An end that is left out is the smallest or largest number.
///
/// `7d` begins seven times 24 hours before `now_ms`.
#[must_use]
pub fn span_ms(text: &str, now_ms: i64) -> Option<(i64, i64)> {
    if let Some(distance) = Distance::read(text) {
        return Some((distance.ms_before(now_ms)?, i64::MAX));
    }
    let today = now_ms.div_euclid(DAY_MS);
    let named = |text: &str| {
        let span = datetime::moments(&point(VR::DT, text, today)?)?;
        Some((datetime::unix_ms(*span.start()), datetime::unix_ms(*span.end() + 1)))
    };
    let Some((from, to)) = text.split_once("..") else { return named(text) };
    let from = if from.is_empty() { i64::MIN } else { named(from)?.0 };
    let to = if to.is_empty() { i64::MAX } else { named(to)?.1 };
    Some((from, to))
}

/// Returns the day that a text names. `None` if it names none, or more than one.
#[must_use]
pub fn day(text: &str, today: i64) -> Option<Day> {
    datetime::one_day(&point(VR::DA, text, today)?)
}

/// Reads one date or moment, and returns it in the form of the Standard, as `YYYYMMDD`, `YYYYMM`,
/// `YYYY` or `YYYYMMDDHHMM`.
fn point(vr: VR, text: &str, today: i64) -> Option<String> {
    match text {
        "today" => return Some(day_text(today)),
        "yesterday" => return Some(day_text(today - 1)),
        _ => {}
    }
    if let Some(distance) = text.strip_prefix("today-") {
        return Distance::read(distance)?.day_before(today).map(day_text);
    }
    let digits = match text.split_once('T') {
        None => without('-', &[4, 7], text),
        Some((date, time)) => {
            without('-', &[4, 7], date) + &without(':', &[2, 5], time.strip_suffix('Z').unwrap_or(time))
        }
    };
    let is_valid = match vr {
        VR::DA => datetime::days(&digits).is_some(),
        _ => datetime::moments(&digits).is_some(),
    };
    is_valid.then_some(digits)
}

/// Removes a separator that stands at these places and nowhere else. Any other text stays as it is.
fn without(separator: char, places: &[usize], text: &str) -> String {
    let mut found = text.match_indices(separator).map(|(at, _)| at);
    let is_separated = places.iter().take_while(|at| text.len() > **at).all(|at| found.next() == Some(*at));
    if is_separated && found.next().is_none() { text.replace(separator, "") } else { text.to_owned() }
}

/// A length of time before now or today: `24h`, `7d`, `2w`, `3m`, `1y`.
#[derive(Clone, Copy, Debug)]
enum Distance {
    Hours(i64),
    Days(i64),
    Months(i64),
}

impl Distance {
    fn read(text: &str) -> Option<Self> {
        let (count, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
        let count: i64 = count.parse().ok().filter(|count| (1..=MAX_COUNT).contains(count))?;
        match unit {
            "h" => Some(Self::Hours(count)),
            "d" => Some(Self::Days(count)),
            "w" => Some(Self::Days(7 * count)),
            "m" => Some(Self::Months(count)),
            "y" => Some(Self::Months(12 * count)),
            _ => None,
        }
    }

    /// Returns the day that lies so far before another. Hours lead to no day.
    fn day_before(self, today: i64) -> Option<i64> {
        let day = match self {
            Self::Hours(_) => return None,
            Self::Days(days) => today - days,
            Self::Months(months) => {
                let (year, month, day) = civil(today);
                let number = year * 12 + month - 1 - months;
                let (year, month) = (number.div_euclid(12), number.rem_euclid(12) + 1);
                // The 31st becomes the last day of a shorter month.
                days_before(year, month, day.min(days_in(year, month)))
            }
        };
        (day >= days_before(1, 1, 1)).then_some(day)
    }

    /// Returns the moment that lies so far before another.
    fn ms_before(self, now_ms: i64) -> Option<i64> {
        match self {
            Self::Hours(hours) => Some(now_ms - hours * HOUR_MS),
            Self::Days(_) | Self::Months(_) => {
                let day = self.day_before(now_ms.div_euclid(DAY_MS))?;
                Some(day * DAY_MS + now_ms.rem_euclid(DAY_MS))
            }
        }
    }
}

fn day_text(day: i64) -> String {
    datetime::day_text(datetime::day_of(day))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-29T01:00:00Z.
    const NOW: i64 = 1_795_914_000_000;

    fn today() -> i64 {
        days_before(2026, 3, 31)
    }

    #[test]
    fn dates_are_read_as_people_write_them() {
        for (text, expected) in [
            ("2024-01-31", "20240131"),
            ("2024-01", "202401"),
            ("2024", "2024"),
            ("20240131", "20240131"),
            ("2024-2025", "2024-2025"),
            ("20240101-20240630", "20240101-20240630"),
            ("2024-01-01-2024-06-30", "20240101-20240630"),
            ("2024-01-01..2024-06-30", "20240101-20240630"),
            ("2024-01..2024-06", "202401-202406"),
            ("2024..", "2024-"),
            ("..2024-01-31", "-20240131"),
            ("-2024-01-31", "-20240131"),
            ("20240101-", "20240101-"),
            ("today", "20260331"),
            ("yesterday", "20260330"),
            ("today-7d", "20260324"),
            ("today-7d..", "20260324-"),
            ("today-7d-today", "20260324-20260331"),
            ("today-7d..yesterday", "20260324-20260330"),
            ("7d", "20260324-"),
            ("2w", "20260317-"),
            ("today-1m", "20260228"),
            ("today-1y", "20250331"),
            (r"2024-01-31\2024-02-01", r"20240131\20240201"),
        ] {
            assert_eq!(in_dicom_form(VR::DA, text, today()), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_date_is_left_to_the_matcher() {
        for text in [
            "",
            "*",
            "gestern",
            "20241301",
            "2024-13",
            "20240201-20240231",
            "19000101-99999999",
            "..",
            "-",
            "0d",
            "24h",
        ] {
            assert_eq!(in_dicom_form(VR::DA, text, today()), text, "{text}");
        }
    }

    #[test]
    fn a_hyphen_in_a_moment_may_begin_an_offset() {
        for (text, expected) in [
            ("20240101120000-0500", "20240101120000-0500"),
            ("2024-01-31", "20240131"),
            ("2024-01-31..2024-02-01", "20240131-20240201"),
            ("today-1d..", "20260330-"),
            ("2024-01-31T08:00..", "202401310800-"),
        ] {
            assert_eq!(in_dicom_form(VR::DT, text, today()), expected, "{text}");
        }
    }

    #[test]
    fn times_are_read_as_people_write_them() {
        let today = NOW - HOUR_MS;
        for (text, range) in [
            ("today", (today, today + DAY_MS)),
            ("yesterday", (today - DAY_MS, today)),
            ("today-7d..yesterday", (today - 7 * DAY_MS, today)),
            ("2026-11-29", (today, today + DAY_MS)),
            ("20261129", (today, today + DAY_MS)),
            ("2026-11", (today - 28 * DAY_MS, today + 2 * DAY_MS)),
            ("2026-11-28..2026-11-29", (today - DAY_MS, today + DAY_MS)),
            ("2026-11-29..", (today, i64::MAX)),
            ("..2026-11-28", (i64::MIN, today)),
            ("2026-11-29T01:00", (NOW, NOW + 60_000)),
            ("2026-11-29T01:00:30", (NOW + 30_000, NOW + 31_000)),
            ("2026-11-29T01:00:00Z..", (NOW, i64::MAX)),
            ("2h", (NOW - 2 * HOUR_MS, i64::MAX)),
            ("7d", (NOW - 7 * DAY_MS, i64::MAX)),
            ("2w", (NOW - 14 * DAY_MS, i64::MAX)),
            ("1m", (NOW - 31 * DAY_MS, i64::MAX)),
        ] {
            assert_eq!(span_ms(text, NOW), Some(range), "{text}");
        }
        for text in ["", "tomorrow", "2026-02-29", "2026-13-01", "26-1-1", "2026-11-29T25:00", "-1d", "0h", "*"] {
            assert_eq!(span_ms(text, NOW), None, "{text}");
        }
    }

    #[test]
    fn one_day_is_read_as_people_write_it() {
        for (text, expected) in
            [("2024-01-31", Some(20_240_131)), ("today", Some(20_260_331)), ("2024", None), ("x", None)]
        {
            assert_eq!(day(text, today()), expected, "{text}");
        }
    }
}
