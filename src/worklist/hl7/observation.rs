//! Weight and height of a patient in OBX segments (HL7 chapter 7). They come among all kinds of
//! observations, so the identifier tells what they are.

use super::message::{Delimiters, Hl7Segment, unescaped};

/// Quantity that was observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Observation {
    /// Patient's Weight (0010,1030), in kilograms.
    Weight,
    /// Patient's Size (0010,1020), in metres.
    Height,
}

impl Observation {
    /// Identifiers in OBX-3: codes of LOINC, and texts.
    fn identifiers(self) -> &'static [&'static str] {
        match self {
            Self::Weight => &["29463-7", "3141-9", "3142-7", "8335-2", "BODY WEIGHT", "WEIGHT"],
            Self::Height => &["8302-2", "3137-7", "3138-5", "8301-4", "BODY HEIGHT", "HEIGHT"],
        }
    }

    /// Units in OBX-6, of UCUM and as people write them, and what they are in the unit of DICOM.
    fn units(self) -> &'static [(&'static str, f64)] {
        match self {
            Self::Weight => {
                &[("kg", 1.0), ("g", 0.001), ("lb", 0.453_592_37), ("lbs", 0.453_592_37), ("[lb_av]", 0.453_592_37)]
            }
            Self::Height => &[("m", 1.0), ("cm", 0.01), ("mm", 0.001), ("in", 0.0254), ("[in_i]", 0.0254)],
        }
    }

    /// Whether a segment has this observation.
    pub(super) fn is_in(self, segment: &Hl7Segment, delimiters: Delimiters) -> bool {
        // Identifier and text, and both again in another coding system.
        [1, 2, 4, 5].into_iter().any(|component| {
            let text = segment.text(3, Some(component), None, delimiters);
            self.identifiers().iter().any(|known| known.eq_ignore_ascii_case(text.trim()))
        })
    }

    /// Returns the value in the unit of DICOM. `None` without a number, or without a unit that is
    /// known: doses depend on it.
    pub(super) fn value(self, text: &str, segment: &Hl7Segment, delimiters: Delimiters) -> Option<String> {
        let unit = unescaped(segment.part(6, 1, None, delimiters), delimiters);
        let (_, factor) = self.units().iter().find(|(known, _)| known.eq_ignore_ascii_case(unit.trim()))?;
        let number: f64 = text.trim().parse().ok().filter(|number| *number > 0.0 && *number < 10_000.0)?;
        let value = format!("{:.3}", number * factor);
        Some(value.trim_end_matches('0').trim_end_matches('.').to_owned())
    }
}
