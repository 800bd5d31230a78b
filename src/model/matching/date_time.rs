//! Ranges of dates, times and moments (PS3.4 C.2.2.2.5).

use std::ops::RangeInclusive;

use dicom_core::VR;

use super::key::{UnknownRequired, trim};
use super::range_end::{RangeEnd, Side};
use super::span::Span;
use crate::model::datetime::{self, Moment};

/// A range of dates and a range of times that together form one range of moments (PS3.4
/// C.2.2.2.5.4, combined date-time matching).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DateTimeRange {
    span: RangeInclusive<Moment>,
    unknown: UnknownRequired,
}

impl DateTimeRange {
    /// Combines a date key and a time key. `None` unless both are ranges of the same form: closed,
    /// or open at the same end. Other keys are matched separately.
    #[must_use]
    pub fn new(date: &str, time: &str) -> Option<Self> {
        let dates = range_ends(VR::DA, trim(VR::DA, date))?;
        let times = range_ends(VR::TM, trim(VR::TM, time))?;
        let start = match (&dates.0, &times.0) {
            (RangeEnd::At(Span::Days(days)), RangeEnd::At(Span::Times(times))) => {
                datetime::moment(*days.start(), *times.start())
            }
            (RangeEnd::Open, RangeEnd::Open) => Moment::MIN,
            _ => return None,
        };
        let end = match (&dates.1, &times.1) {
            (RangeEnd::At(Span::Days(days)), RangeEnd::At(Span::Times(times))) => {
                datetime::moment(*days.end(), *times.end())
            }
            (RangeEnd::Open, RangeEnd::Open) => Moment::MAX,
            _ => return None,
        };
        Some(Self { span: start..=end, unknown: UnknownRequired::NoMatch })
    }

    /// Makes the range accept entities without a date as well (see [`UnknownRequired::Match`]).
    #[must_use]
    pub fn or_unknown(self) -> Self {
        Self { unknown: UnknownRequired::Match, ..self }
    }

    /// Whether a stored date and time lie within the range. A date without a time counts as its
    /// first moment.
    #[must_use]
    pub fn contains(&self, date: &str, time: &str) -> bool {
        if date.contains('\\') || time.contains('\\') {
            // The data dictionary does not allow several values here. If there are some, any of
            // them may match (PS3.4 C.2.2.3).
            return date.split('\\').any(|date| time.split('\\').any(|time| self.contains(date, time)));
        }
        if date.is_empty() && self.unknown == UnknownRequired::Match {
            return true;
        }
        let Some(day) = datetime::one_day(date) else { return false };
        let time = if time.is_empty() { Some(0) } else { datetime::times(time).map(|times| *times.start()) };
        time.is_some_and(|time| self.span.contains(&datetime::moment(day, time)))
    }
}

/// Splits a range key into its two ends (PS3.4 C.2.2.2.5). `None` if the key is not a range.
pub(super) fn range_ends(vr: VR, key: &str) -> Option<(RangeEnd, RangeEnd)> {
    let split = |at: usize| {
        let (low, high) = (key.get(..at).unwrap_or_default(), key.get(at + 1..).unwrap_or_default());
        (RangeEnd::new(vr, Side::Low, low), RangeEnd::new(vr, Side::High, high))
    };
    if vr != VR::DT {
        return key.find('-').map(split);
    }
    // In DT a hyphen may also begin an offset from UTC. The key is a range only if both ends make
    // sense. `20240101120000-0500` would end in the year 500, so it is a moment in New York.
    let hyphens: Vec<usize> = key.match_indices('-').map(|(at, _)| at).take(4).collect();
    let candidates = || hyphens.iter().map(|at| split(*at));
    let makes_sense = |(low, high): &(RangeEnd, RangeEnd)| match (low, high) {
        (RangeEnd::Invalid, _) | (_, RangeEnd::Invalid) => false,
        (RangeEnd::At(Span::Moments(low)), RangeEnd::At(Span::Moments(high))) => low.start() <= high.end(),
        _ => true,
    };
    if let Some(found) = candidates().find(makes_sense) {
        return Some(found);
    }
    if Span::parse(vr, key).is_some() {
        return None;
    }
    // Otherwise the range is reversed or invalid.
    let is_valid =
        |(low, high): &(RangeEnd, RangeEnd)| !matches!((low, high), (RangeEnd::Invalid, _) | (_, RangeEnd::Invalid));
    candidates().find(is_valid).or_else(|| candidates().next())
}
