//! Ranges of dates, of times and of moments.

use std::ops::RangeInclusive;

use dicom_core::VR;

use super::narrowing::Narrowing;
use crate::model::datetime::{self, Day, Moment, TimeOfDay};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Span {
    Days(RangeInclusive<Day>),
    Times(RangeInclusive<TimeOfDay>),
    Moments(RangeInclusive<Moment>),
}

impl Span {
    pub(super) fn parse(vr: VR, text: &str) -> Option<Self> {
        match vr {
            VR::DA => datetime::days(text).map(Self::Days),
            VR::TM => datetime::times(text).map(Self::Times),
            _ => datetime::moments(text).map(Self::Moments),
        }
    }

    /// Builds the span from the beginning of `low` to the end of `high`. A missing end is open. A
    /// reversed range is empty.
    pub(super) fn between(vr: VR, low: Option<Self>, high: Option<Self>) -> Self {
        match vr {
            VR::DA => {
                let start = low.and_then(|span| span.days().map(|days| *days.start())).unwrap_or(Day::MIN);
                let end = high.and_then(|span| span.days().map(|days| *days.end())).unwrap_or(Day::MAX);
                Self::Days(start..=end)
            }
            VR::TM => {
                let start = low.and_then(|span| span.times().map(|times| *times.start())).unwrap_or(TimeOfDay::MIN);
                let end = high.and_then(|span| span.times().map(|times| *times.end())).unwrap_or(TimeOfDay::MAX);
                Self::Times(start..=end)
            }
            _ => {
                let start = low.and_then(|span| span.moments().map(|span| *span.start())).unwrap_or(Moment::MIN);
                let end = high.and_then(|span| span.moments().map(|span| *span.end())).unwrap_or(Moment::MAX);
                Self::Moments(start..=end)
            }
        }
    }

    /// Whether the first moment of a stored value lies within the span. A stored date must name a
    /// single day.
    pub(super) fn contains(&self, stored: &str) -> bool {
        match self {
            Self::Days(span) => datetime::days(stored)
                .is_some_and(|stored| stored.start() == stored.end() && span.contains(stored.start())),
            Self::Times(span) => datetime::times(stored).is_some_and(|stored| span.contains(stored.start())),
            Self::Moments(span) => datetime::moments(stored).is_some_and(|stored| span.contains(stored.start())),
        }
    }

    pub(super) fn narrowing(&self) -> Narrowing {
        match self {
            Self::Days(span) => Narrowing::Between(
                datetime::day_text(*span.start()),
                datetime::day_text((*span.end()).min(datetime::LAST_DAY)),
            ),
            Self::Times(span) => Narrowing::Between(
                datetime::earliest_time_text(*span.start()),
                datetime::latest_time_text((*span.end()).min(datetime::LAST_TIME)),
            ),
            // With offsets from UTC, the order of the texts is not the order of the moments.
            Self::Moments(_) => Narrowing::None,
        }
    }

    pub(super) fn days(&self) -> Option<&RangeInclusive<Day>> {
        match self {
            Self::Days(span) => Some(span),
            Self::Times(_) | Self::Moments(_) => None,
        }
    }

    pub(super) fn times(&self) -> Option<&RangeInclusive<TimeOfDay>> {
        match self {
            Self::Times(span) => Some(span),
            Self::Days(_) | Self::Moments(_) => None,
        }
    }

    pub(super) fn moments(&self) -> Option<&RangeInclusive<Moment>> {
        match self {
            Self::Moments(span) => Some(span),
            Self::Days(_) | Self::Times(_) => None,
        }
    }
}
