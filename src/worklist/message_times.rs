//! When the last messages of an item were made, as their sender says (MSH-7).

use std::ops::RangeInclusive;

use crate::model::datetime::{self, Moment};
use crate::model::local_time::local_moments;

/// Times of the messages about an order, and about its patient. One about the patient says nothing
/// of the order, and may overtake one that does.
///
/// As a text they are the time of the order, which is a DT value. Where a later message was about
/// the patient alone, `|` and its time follow. Either may be empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MessageTimes<'t> {
    pub(super) order: &'t str,
    pub(super) patient: &'t str,
}

impl<'t> MessageTimes<'t> {
    pub(super) fn of(text: &'t str) -> Self {
        let (order, patient) = text.split_once('|').unwrap_or((text, text));
        Self { order, patient }
    }

    /// Whether this order is older than another, as far as both are known.
    pub(super) fn is_before(&self, other: &Self) -> bool {
        is_older(self.order, other.order)
    }

    /// Returns the text with this time of the patient.
    pub(super) fn with_patient(&self, patient: &str) -> String {
        format!("{}|{patient}", self.order)
    }
}

/// Whether a message is older than another, as far as both say when they were made. One of a day
/// alone may be of any moment of that day.
pub(super) fn is_older(one: &str, other: &str) -> bool {
    moments(one).zip(moments(other)).is_some_and(|(one, other)| one.end() < other.start())
}

/// The moments that a DT value names. Without an offset from UTC it is a local time.
fn moments(text: &str) -> Option<RangeInclusive<Moment>> {
    let moments = datetime::moments(text)?;
    Some(if datetime::has_offset(text) { moments } else { local_moments(&moments) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_patient_have_times_of_their_own() {
        let known = MessageTimes::of("20261130100000|20261130100500");
        for (text, is_before, is_patient_older) in
            [("20261130095959", true, true), ("20261130100200", false, true), ("20261130100501", false, false)]
        {
            let times = MessageTimes::of(text);
            assert_eq!(times.is_before(&known), is_before, "{text}");
            assert_eq!(is_older(times.patient, known.patient), is_patient_older, "{text}");
        }
    }
}
