//! When the last messages of an item were made, as their sender says (MSH-7).

/// Times of the messages about an order, and about its patient. One about the patient says nothing
/// of the order, and may overtake one that does.
///
/// As a text they are `YYYYMMDDHHMMSS` of the order. Where a later message was about the patient
/// alone, `|` and its time follow. Either may be empty.
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

/// Whether a message is older than another, as far as both say when they were made.
pub(super) fn is_older(one: &str, other: &str) -> bool {
    !one.is_empty() && !other.is_empty() && one < other
}
