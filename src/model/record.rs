//! The record of one instance: the values that were read from its object.

use std::fmt;
use std::sync::Arc;

use super::attribute::{ATTRIBUTE_COUNT, AttributeId};

/// The values that the index keeps of one SOP Instance, as UTF-8 text.
///
/// The text of a value has this form:
///
/// - Insignificant padding is trimmed (PS3.5 6.2).
/// - Several values are joined by `\`.
/// - Binary numbers are decimal text.
/// - Legacy forms of dates and times are corrected (see [`super::value`]).
/// - A sequence is the array of its items in the DICOM JSON Model (PS3.18 F.2).
/// - An absent attribute and one of zero length are both the empty text, since PS3.4 C.2.2.2.7
///   treats them alike.
///
/// A scan makes 100,000 records per second. About eight of the ninety values of a slice differ from
/// those of the slice before. So a record can hold only the values that differ and share the others
/// ([`Common`]). Sharing changes no value.
#[derive(Clone)]
pub struct InstanceRecord {
    values: RecordValues,
    /// `None` if no declared unit has a value.
    declared: Option<Box<DeclaredValues>>,
    faults: Vec<String>,
}

#[derive(Clone)]
enum RecordValues {
    All(Box<All>),
    Differing { common: Common, own: Own },
}

/// One text buffer with one span for each attribute. A separate allocation for each value would
/// cost more than reading the header.
#[derive(Clone)]
struct All {
    text: String,
    spans: [TextSpan; ATTRIBUTE_COUNT],
}

/// The values of a record that differ from the shared ones.
#[derive(Clone)]
struct Own {
    text: String,
    /// Each attribute occurs at most once.
    spans: Vec<(AttributeId, TextSpan)>,
    /// One bit for each attribute in `spans`. Most look-ups are for other attributes.
    which: u128,
}

const _: () = assert!(ATTRIBUTE_COUNT <= u128::BITS as usize);

impl Own {
    fn with_capacity(text: usize, spans: usize) -> Self {
        Self { text: String::with_capacity(text), spans: Vec::with_capacity(spans), which: 0 }
    }

    fn span(&self, id: AttributeId) -> Option<TextSpan> {
        if self.which & 1 << id as u32 == 0 {
            return None;
        }
        self.spans.iter().find(|(own, _)| *own == id).map(|(_, span)| *span)
    }
}

/// The values of declared units, by unit number.
#[derive(Clone, Debug, Default)]
struct DeclaredValues {
    text: String,
    spans: Vec<TextSpan>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct TextSpan {
    start: u32,
    length: u32,
}

impl TextSpan {
    /// Returns the span of what `write` appends to the text.
    fn of(text: &mut String, write: impl FnOnce(&mut String)) -> Self {
        let start = text.len();
        write(text);
        let length = text.len().checked_sub(start).expect("the writer only appends");
        Self {
            start: u32::try_from(start).expect("the header limit keeps a record under 4 GiB"),
            length: u32::try_from(length).expect("the header limit keeps a record under 4 GiB"),
        }
    }

    fn text(self, of: &str) -> &str {
        let start = self.start as usize;
        of.get(start..start + self.length as usize).unwrap_or_default()
    }
}

/// Values that several records share.
#[derive(Clone)]
pub struct Common(Arc<All>);

impl Common {
    /// Returns a shared value. It is valid for a record that does not set its own.
    #[must_use]
    pub fn value(&self, id: AttributeId) -> &str {
        self.0.spans[id as usize].text(&self.0.text)
    }

    /// Whether both share the same memory. Equal values are not enough.
    #[must_use]
    pub fn shares_memory_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl InstanceRecord {
    /// Creates an empty record.
    #[must_use]
    pub fn new() -> Self {
        let all = All { text: String::with_capacity(768), spans: [TextSpan::default(); ATTRIBUTE_COUNT] };
        Self { values: RecordValues::All(Box::new(all)), declared: None, faults: Vec::new() }
    }

    /// Creates a record with the shared values. Setting a value overrides the shared one.
    #[must_use]
    pub fn like(common: &Common) -> Self {
        let own = Own::with_capacity(192, 12);
        Self { values: RecordValues::Differing { common: common.clone(), own }, declared: None, faults: Vec::new() }
    }

    /// Makes all current values of this record shareable. Returns `None` if it already shares
    /// values with others.
    pub fn share(&mut self) -> Option<Common> {
        let RecordValues::All(all) = &mut self.values else { return None };
        let mut all = std::mem::replace(all, Box::new(All { text: String::new(), spans: [TextSpan::default(); _] }));
        all.text.shrink_to_fit();
        let common = Common(Arc::from(all));
        let own = Own::with_capacity(0, 0);
        self.values = RecordValues::Differing { common: common.clone(), own };
        Some(common)
    }

    /// Returns the shared values, and the attributes that this record sets itself.
    #[must_use]
    pub fn common(&self) -> Option<(&Common, impl Iterator<Item = AttributeId>)> {
        match &self.values {
            RecordValues::All(_) => None,
            RecordValues::Differing { common, own } => Some((common, own.spans.iter().map(|(id, _)| *id))),
        }
    }

    /// Returns the value of an attribute. It is empty if the attribute is absent or empty.
    #[must_use]
    pub fn value(&self, id: AttributeId) -> &str {
        match &self.values {
            RecordValues::All(all) => all.spans[id as usize].text(&all.text),
            RecordValues::Differing { common, own } => match own.span(id) {
                Some(span) => span.text(&own.text),
                None => common.value(id),
            },
        }
    }

    /// Returns the value of the declared unit with this number
    /// ([`super::declared::DeclaredSet::units`]). It is empty if the element is absent or empty.
    #[must_use]
    pub fn declared(&self, unit: usize) -> &str {
        let declared = self.declared.as_ref();
        declared.and_then(|own| Some(own.spans.get(unit)?.text(&own.text))).unwrap_or_default()
    }

    /// Whether the declared attributes were read too, even if all of them are empty. A record that
    /// was rebuilt from the index has not read them.
    #[must_use]
    pub fn has_declared(&self) -> bool {
        self.declared.is_some()
    }

    /// Notes that the declared attributes were read.
    pub fn note_declared(&mut self) {
        self.declared.get_or_insert_default();
    }

    /// Returns the number of declared units that may have a value.
    fn units(&self) -> usize {
        self.declared.as_ref().map_or(0, |declared| declared.spans.len())
    }

    /// Whether both have the same values of declared units.
    #[must_use]
    pub fn declares_as(&self, other: &Self) -> bool {
        (0..self.units().max(other.units())).all(|unit| self.declared(unit) == other.declared(unit))
    }

    /// Sets the value of a declared unit, as [`Self::set_with`] does.
    ///
    /// # Panics
    /// Panics as [`Self::set`] does.
    pub fn set_declared_with(&mut self, unit: usize, write: impl FnOnce(&mut String)) {
        let declared = self.declared.get_or_insert_default();
        if declared.spans.len() <= unit {
            declared.spans.resize(unit + 1, TextSpan::default());
        }
        declared.spans[unit] = TextSpan::of(&mut declared.text, write);
    }

    /// Sets the value of an attribute.
    ///
    /// # Panics
    /// Panics if all values together exceed 4 GiB. The limits of the header reader keep them under
    /// 16 MiB.
    pub fn set(&mut self, id: AttributeId, value: &str) {
        self.set_with(id, |text| text.push_str(value));
    }

    /// Sets the value of an attribute to the text that `write` appends. The buffer already holds
    /// other values, so `write` must only append.
    ///
    /// # Panics
    /// Panics as [`Self::set`] does.
    pub fn set_with(&mut self, id: AttributeId, write: impl FnOnce(&mut String)) {
        match &mut self.values {
            RecordValues::All(all) => all.spans[id as usize] = TextSpan::of(&mut all.text, write),
            RecordValues::Differing { own, .. } => {
                let span = TextSpan::of(&mut own.text, write);
                own.which |= 1 << id as u32;
                match own.spans.iter_mut().find(|(own, _)| *own == id) {
                    Some((_, known)) => *known = span,
                    None => own.spans.push((id, span)),
                }
            }
        }
    }

    /// Frees spare memory. Thousands of records wait in queues.
    pub fn shrink_to_fit(&mut self) {
        match &mut self.values {
            RecordValues::All(all) => all.text.shrink_to_fit(),
            RecordValues::Differing { own, .. } => {
                own.text.shrink_to_fit();
                own.spans.shrink_to_fit();
            }
        }
    }

    /// Adds a fault of the data set that did not prevent reading it.
    ///
    /// The text begins with a stable word for counting and a colon (`bad-vr: element (0028,0010)
    /// has no valid VR`). It names tags and offsets, never values.
    pub fn add_fault(&mut self, fault: String) {
        self.faults.push(fault);
    }

    /// Returns the bytes of text that the record holds itself. Its memory is little more.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        let values = match &self.values {
            RecordValues::All(all) => all.text.len(),
            RecordValues::Differing { own, .. } => own.text.len(),
        };
        let declared = self.declared.as_ref().map_or(0, |declared| declared.text.len());
        values + declared + self.faults.iter().map(String::len).sum::<usize>()
    }

    /// Returns the faults of the data set, in the order in which they were met.
    #[must_use]
    pub fn faults(&self) -> &[String] {
        &self.faults
    }
}

/// Two records are equal if their values and faults are equal. Sharing does not matter.
impl PartialEq for InstanceRecord {
    fn eq(&self, other: &Self) -> bool {
        self.faults == other.faults
            && super::attribute::ATTRIBUTES.iter().all(|a| self.value(a.id) == other.value(a.id))
            && self.declares_as(other)
    }
}

impl Eq for InstanceRecord {}

impl Default for InstanceRecord {
    fn default() -> Self {
        Self::new()
    }
}

/// Shows which attributes have a value, but never the values, because records appear in test output
/// and logs.
impl fmt::Debug for InstanceRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let present = super::attribute::ATTRIBUTES.iter().filter(|a| !self.value(a.id).is_empty()).map(|a| a.keyword);
        f.debug_struct("InstanceRecord")
            .field("present", &present.collect::<Vec<_>>())
            .field("faults", &self.faults)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_can_be_set_twice_and_the_last_one_counts() {
        let mut record = InstanceRecord::new();
        assert_eq!(record.value(AttributeId::PatientID), "");
        record.set(AttributeId::PatientID, "A");
        record.set(AttributeId::PatientName, "山田^太郎");
        record.set(AttributeId::PatientID, "BB");
        assert_eq!(record.value(AttributeId::PatientID), "BB");
        assert_eq!(record.value(AttributeId::PatientName), "山田^太郎");
    }

    #[test]
    fn a_record_like_another_says_the_same_until_a_value_is_set() {
        let mut first = InstanceRecord::new();
        first.set(AttributeId::PatientID, "A");
        first.set(AttributeId::InstanceNumber, "1");
        let alone = first.clone();
        let common = first.share().unwrap();
        assert_eq!(first, alone);
        assert!(first.share().is_none());
        let mut second = InstanceRecord::like(&common);
        assert_eq!(second, first);
        second.set(AttributeId::InstanceNumber, "20");
        second.set(AttributeId::PatientID, "");
        second.set(AttributeId::InstanceNumber, "2");
        assert_eq!((second.value(AttributeId::InstanceNumber), second.value(AttributeId::PatientID)), ("2", ""));
        assert_eq!((first.value(AttributeId::InstanceNumber), first.value(AttributeId::PatientID)), ("1", "A"));
        assert_ne!(second, first);
        let (same, own) = second.common().unwrap();
        assert!(same.shares_memory_with(&common));
        assert_eq!(own.collect::<Vec<_>>(), [AttributeId::InstanceNumber, AttributeId::PatientID]);
    }

    #[test]
    fn debug_output_shows_no_values() {
        let mut record = InstanceRecord::new();
        record.set(AttributeId::PatientName, "Secret^Person");
        let shown = format!("{record:?}");
        assert!(shown.contains("PatientName") && !shown.contains("Secret"));
    }
}
