//! Dates as people write them: `2024-01-01`, `2024-01`, `2024`, `today-7d`,
//! `2024-01-01..2024-06-30`.

use dicom_core::VR;

use crate::model::calendar::{civil, days_before, days_in};
use crate::model::datetime;

/// Returns the value of a key of DA or DT in the form of the Standard (PS3.4 C.2.2.2.5).
///
/// `today` is the number of days since 1970-01-01. Text that is no date as people write it is
/// returned unchanged: it may be a form that only the matcher knows.
pub(super) fn in_dicom_form(vr: VR, text: &str, today: i64) -> String {
    let each: Vec<String> = text.split('\\').map(|value| value_in_dicom_form(vr, value.trim(), today)).collect();
    each.join("\\")
}

fn value_in_dicom_form(vr: VR, text: &str, today: i64) -> String {
    let date = |text: &str| date(vr, text.trim(), today);
    // An end of a range may be left out.
    let end = |text: &str| if text.trim().is_empty() { Some(String::new()) } else { date(text) };
    let range = |low: &str, high: &str| match (end(low)?, end(high)?) {
        (low, high) if low.is_empty() && high.is_empty() => None,
        (low, high) => Some(format!("{low}-{high}")),
    };
    let last_days = |text: &str| ago(text, today).map(|day| format!("{}-", day_text(day)));
    let hyphens = text.match_indices('-').map(|(at, _)| at);
    let read = match text.split_once("..") {
        Some((low, high)) => range(low, high),
        None => date(text)
            .or_else(|| last_days(text))
            // A hyphen may separate the parts of a date, or the two ends of a range.
            .or_else(|| hyphens.into_iter().find_map(|at| range(text.get(..at)?, text.get(at + 1..)?))),
    };
    read.unwrap_or_else(|| text.to_owned())
}

/// Reads one date, and returns it as `YYYYMMDD`, `YYYYMM` or `YYYY`.
fn date(vr: VR, text: &str, today: i64) -> Option<String> {
    match text {
        "today" => return Some(day_text(today)),
        "yesterday" => return Some(day_text(today - 1)),
        _ => {}
    }
    if let Some(distance) = text.strip_prefix("today-") {
        return ago(distance, today).map(day_text);
    }
    let bytes = text.as_bytes();
    let has_hyphens = match bytes.len() {
        7 => bytes.get(4) == Some(&b'-'),
        10 => bytes.get(4) == Some(&b'-') && bytes.get(7) == Some(&b'-'),
        _ => false,
    };
    let digits = if has_hyphens { text.replace('-', "") } else { text.to_owned() };
    let is_valid = match vr {
        VR::DA => datetime::days(&digits).is_some(),
        _ => datetime::moments(&digits).is_some(),
    };
    is_valid.then_some(digits)
}

/// The day that is `7d`, `2w`, `3m` or `1y` before today.
fn ago(text: &str, today: i64) -> Option<i64> {
    let (count, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let count: i64 = count.parse().ok().filter(|count| (1..=100_000).contains(count))?;
    let months_ago = |months: i64| {
        let (year, month, day) = civil(today);
        let number = year * 12 + month - 1 - months;
        let (year, month) = (number.div_euclid(12), number.rem_euclid(12) + 1);
        // The 31st becomes the last day of a shorter month.
        days_before(year, month, day.min(days_in(year, month)))
    };
    let day = match unit {
        "d" => today - count,
        "w" => today - 7 * count,
        "m" => months_ago(count),
        "y" => months_ago(12 * count),
        _ => return None,
    };
    (day >= days_before(1, 1, 1)).then_some(day)
}

fn day_text(day: i64) -> String {
    let (year, month, day) = civil(day);
    format!("{year:04}{month:02}{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

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
        for text in
            ["", "*", "gestern", "20241301", "2024-13", "20240201-20240231", "19000101-99999999", "..", "-", "0d"]
        {
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
        ] {
            assert_eq!(in_dicom_form(VR::DT, text, today()), expected, "{text}");
        }
    }
}
