//! Ends of ranges (PS3.4 C.2.2.2.5), including impossible dates and times with a clear meaning.
//!
//! Viewers send `20240201-20240231` for a month and `000000-240000` for a day. Refusing such a
//! range helps nobody. So an impossible end is moved to the nearest valid day or time. An end
//! without a clear meaning, such as month 13, stays invalid.

use dicom_core::VR;

use crate::model::datetime::{self, Day, LAST_DAY, LAST_TIME, Moment, TimeOfDay};
use crate::model::matching::span::Span;

/// One end of a range.
pub(super) enum RangeEnd {
    Open,
    At(Span),
    Invalid,
}

/// Lower or upper end of a range.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Low,
    High,
}

impl RangeEnd {
    pub(super) fn new(vr: VR, side: Side, text: &str) -> Self {
        let text = text.trim_matches([' ', '*']);
        if text.is_empty() {
            return Self::Open;
        }
        if let Some(span) = Span::parse(vr, text) {
            return Self::At(span);
        }
        match vr {
            VR::DA => day(side, text),
            VR::TM => time(side, text),
            _ => moment(side, text),
        }
    }

    pub(super) fn span(self) -> Option<Span> {
        match self {
            Self::At(span) => Some(span),
            Self::Open | Self::Invalid => None,
        }
    }
}

fn day(side: Side, text: &str) -> RangeEnd {
    // The end is a moment where a date is expected. Its date is used.
    if let Some((date, time)) = text.split_at_checked(8)
        && !time.is_empty()
        && datetime::moments(text).is_some()
    {
        return Span::parse(VR::DA, date).map_or(RangeEnd::Invalid, RangeEnd::At);
    }
    let undotted = match text.as_bytes() {
        [_, _, _, _, b'.', _, _, b'.', _, _] => text.replace('.', ""),
        _ => text.to_owned(),
    };
    nearest_day(side, &undotted).map_or(RangeEnd::Invalid, |day| RangeEnd::At(Span::Days(day..=day)))
}

/// Moves an impossible date to the nearest day. A low end becomes the first day after it, and a
/// high end the last day before it.
///
/// An end before the first day becomes 0. An end after the last day becomes the day after the last
/// one.
fn nearest_day(side: Side, text: &str) -> Option<Day> {
    if text.len() != 8 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (year, month, day): (u32, u32, u32) =
        (text.get(..4)?.parse().ok()?, text.get(4..6)?.parse().ok()?, text.get(6..)?.parse().ok()?);
    // Months are counted across years. The day 0 is before the first day of a month, and a day
    // above 31 is after the last one.
    let month = match (month, day) {
        (0, 0) => 0,
        (99, 99) => 13,
        (1..=12, 0..=31 | 99) => month,
        _ => return None,
    };
    let (year, month) = match side {
        Side::Low if day == 0 => (year, month.max(1)),
        Side::Low if month >= 12 => (year + 1, 1),
        Side::Low => (year, month + 1),
        Side::High if day > 0 => (year, month.min(12)),
        Side::High if month <= 1 => (year.saturating_sub(1), 12),
        Side::High => (year, month - 1),
    };
    match year {
        0 => Some(Day::MIN),
        // `YYYYMM` names all days of the month.
        1..=9999 => {
            let days = datetime::days(&format!("{year:04}{month:02}"))?;
            Some(if side == Side::Low { *days.start() } else { *days.end() })
        }
        _ => Some(LAST_DAY + 1),
    }
}

fn time(side: Side, text: &str) -> RangeEnd {
    // The end is a moment where a time is expected. Its time is used.
    if let Some((_, time)) = text.split_at_checked(8)
        && datetime::moments(text).is_some()
        && let Some(span) = Span::parse(VR::TM, time)
    {
        return RangeEnd::At(span);
    }
    if is_end_of_day(text) { RangeEnd::At(Span::Times(end_of_day(side))) } else { RangeEnd::Invalid }
}

/// Whether a text is `24`, `2400`, `240000` or `24:00:00`, without a fraction or with a fraction of
/// zeros.
fn is_end_of_day(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("24") else { return false };
    let (clock, fraction) = rest.split_once('.').unwrap_or((rest, "0"));
    matches!(clock, "" | "00" | "0000" | ":00" | ":00:00")
        && (!rest.contains('.') || clock.len() >= 4)
        && !fraction.is_empty()
        && fraction.bytes().all(|byte| byte == b'0')
}

/// Returns midnight at the end of a day. It is later than every time of day.
fn end_of_day(side: Side) -> std::ops::RangeInclusive<TimeOfDay> {
    match side {
        Side::Low => LAST_TIME + 1..=LAST_TIME + 1,
        Side::High => LAST_TIME..=LAST_TIME,
    }
}

fn moment(side: Side, text: &str) -> RangeEnd {
    let (local, offset) = text.find(['+', '-']).map_or((text, ""), |at| text.split_at(at));
    let Some((date, time)) = local.split_at_checked(8) else { return RangeEnd::Invalid };
    if is_end_of_day(time) && !time.contains(':') {
        let Some(span) = datetime::moments(&format!("{date}{offset}")) else { return RangeEnd::Invalid };
        let midnight: Moment = span.end() + 1;
        let at = if side == Side::Low { midnight } else { *span.end() };
        return RangeEnd::At(Span::Moments(at..=at));
    }
    if !time.is_empty() && Span::parse(VR::TM, time).is_none() {
        return RangeEnd::Invalid;
    }
    let at = match nearest_day(side, date) {
        None => return RangeEnd::Invalid,
        Some(Day::MIN) => Some(Moment::MIN..=Moment::MIN),
        Some(day) if day > LAST_DAY => Some(Moment::MAX..=Moment::MAX),
        Some(day) => datetime::moments(&format!("{}{offset}", datetime::day_text(day))),
    };
    at.map_or(RangeEnd::Invalid, |span| RangeEnd::At(Span::Moments(span)))
}

#[cfg(test)]
mod tests {
    use super::super::{Comparison, MatchPolicy, Matching};
    use super::*;
    use crate::model::attribute::{LetterCase, Multiplicity};

    fn matching(vr: VR, key: &str) -> Option<Matching> {
        let comparison = Comparison { vr, multiplicity: Multiplicity::One, letter_case: LetterCase::Sensitive };
        Matching::compile(comparison, key, &MatchPolicy::default()).ok()
    }

    #[track_caller]
    fn check(vr: VR, key: &str, found: &[&str], not_found: &[&str]) {
        let matching = matching(vr, key).unwrap_or_else(|| panic!("{key} is a range"));
        for value in found {
            assert!(matching.matches(value), "{key} is to match {value}");
        }
        for value in not_found {
            assert!(!matching.matches(value), "{key} is not to match {value}");
        }
    }

    #[test]
    fn days_that_no_month_has_are_moved_into_the_range() {
        check(VR::DA, "20240201-20240231", &["20240201", "20240229"], &["20240301", "20240131"]);
        check(VR::DA, "20240231-20240331", &["20240301", "20240331"], &["20240229"]);
        check(VR::DA, "20231231-20240100", &["20231231"], &["20240101"]);
        check(VR::DA, "20240100-20240199", &["20240101", "20240131"], &["20231231", "20240201"]);
        check(VR::DA, "2024.02.01-2024.02.31", &["20240229"], &["20240301"]);
        check(VR::DA, "20240000-20249999", &["20240101", "20241231"], &["20231231", "20250101"]);
        check(VR::DA, "20231199-20240100", &["20231201", "20231231"], &["20231130", "20240101"]);
    }

    #[test]
    fn the_first_and_the_last_of_all_days_are_no_limit() {
        check(VR::DA, "00000000-20250101", &["19000101", "20250101"], &["20250102", ""]);
        check(VR::DA, "19000101-99999999", &["19000101", "99991231"], &["18991231"]);
        check(VR::DT, "00000000-99999999", &["2024", "20240101120000"], &[]);
        check(VR::DA, "00000000-99999999", &["00010101", "99991231"], &[""]);
        check(VR::DA, "99999999-", &[], &["99991231"]);
        check(VR::DA, "-00000000", &[], &["00010101"]);
    }

    #[test]
    fn twenty_four_hours_are_the_end_of_the_day() {
        for key in ["000000-240000", "0000-2400", "00-24", "000000.000000-240000.000000", "00:00:00-24:00:00"] {
            check(VR::TM, key, &["000000", "235959.999999", "12"], &[""]);
        }
        check(VR::TM, "2200-2400", &["220000", "235960"], &["215959"]);
        check(VR::TM, "240000-", &[], &["235960", "00"]);
        check(VR::DT, "20240101000000-20240101240000", &["20240101235959"], &["20240102"]);
        check(VR::DT, "20240101240000-", &["20240102"], &["20240101235959"]);
    }

    #[test]
    fn a_moment_stands_for_its_date_or_its_time() {
        check(VR::TM, "20240101100000-20240101180000", &["100000", "180000.5"], &["095959", "180001"]);
        check(VR::DA, "20240101000000-20240131235959", &["20240101", "20240131"], &["20231231", "20240201"]);
        check(VR::DT, "20240201-20240231", &["20240201", "20240229235959"], &["20240301"]);
        check(VR::DT, "20240201-20240231+0100", &["20240229225959"], &["20240229230000"]);
    }

    #[test]
    fn an_end_without_a_plain_meaning_is_none() {
        for (vr, key) in [
            (VR::DA, "20241301-20241401"),
            (VR::DA, "20240140-"),
            (VR::DA, "2024-13"),
            (VR::DA, "20240001-"),
            (VR::DA, "20249931-"),
            (VR::DA, "2024-01-01"),
            (VR::DA, "gestern-heute"),
            (VR::TM, "10-25"),
            (VR::TM, "10-240001"),
            (VR::TM, "10-24.0"),
            (VR::TM, "10-2460"),
            (VR::DT, "20241301-20241302"),
            (VR::DT, "20240101-20240101250000"),
        ] {
            assert!(matching(vr, key).is_none(), "{key}");
        }
    }
}
