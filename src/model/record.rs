//! What was read of one instance.

use std::fmt;

use super::attribute::{ATTRIBUTE_COUNT, AttributeId};

/// The values that the index keeps of one SOP Instance, as UTF-8 text.
///
/// Values are trimmed of insignificant padding (PS3.5 6.2); several values are joined by `\`; binary numbers are decimal
/// text; legacy forms of dates and times are put right (see [`super::value`]); a sequence is the array of its items in the
/// DICOM JSON Model (PS3.18 F.2). An absent attribute and one of zero length are both the empty text: PS3.4 C.2.2.2.7
/// treats them alike.
///
/// One text buffer and one span for each attribute: a scan makes 100,000 of these a second, and an allocation for each
/// value would cost more than reading the header.
#[derive(Clone, PartialEq, Eq)]
pub struct InstanceRecord {
    text: String,
    spans: [Span; ATTRIBUTE_COUNT],
    faults: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Span {
    start: u32,
    length: u32,
}

impl InstanceRecord {
    /// An empty record.
    #[must_use]
    pub fn new() -> Self {
        Self { text: String::with_capacity(768), spans: [Span::default(); ATTRIBUTE_COUNT], faults: Vec::new() }
    }

    /// The value of an attribute; empty where it is absent or empty.
    #[must_use]
    pub fn value(&self, id: AttributeId) -> &str {
        let span = self.spans[id as usize];
        let start = span.start as usize;
        self.text.get(start..start + span.length as usize).unwrap_or_default()
    }

    /// Sets the value of an attribute.
    ///
    /// # Panics
    /// When all values together pass 4 GiB; the header reader's limits keep them under 16 MiB.
    pub fn set(&mut self, id: AttributeId, value: &str) {
        self.set_with(id, |text| text.push_str(value));
    }

    /// Sets the value of an attribute to what `write` appends to the buffer that it is given (which is not empty: only
    /// append).
    ///
    /// # Panics
    /// As [`Self::set`].
    pub fn set_with(&mut self, id: AttributeId, write: impl FnOnce(&mut String)) {
        let start = self.text.len();
        write(&mut self.text);
        let length = self.text.len().checked_sub(start).expect("the writer only appends");
        self.spans[id as usize] = Span {
            start: u32::try_from(start).expect("the header limit keeps a record under 4 GiB"),
            length: u32::try_from(length).expect("the header limit keeps a record under 4 GiB"),
        };
    }

    /// Gives back memory that was set aside for more values: records wait in queues by the thousand.
    pub fn shrink_to_fit(&mut self) {
        self.text.shrink_to_fit();
    }

    /// Notes a fault of the data set that did not prevent reading it. The text begins with a stable word for counting and
    /// a colon (`bad-vr: element (0028,0010) has no valid VR`); it names tags and offsets, never values.
    pub fn add_fault(&mut self, fault: String) {
        self.faults.push(fault);
    }

    /// Bytes of text that it holds; what it takes in memory is little more.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        self.text.len() + self.faults.iter().map(String::len).sum::<usize>()
    }

    /// What was wrong with the data set, in the order met.
    #[must_use]
    pub fn faults(&self) -> &[String] {
        &self.faults
    }
}

impl Default for InstanceRecord {
    fn default() -> Self {
        Self::new()
    }
}

/// Shows which attributes have a value, never the values: records end up in test output and logs.
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
    fn debug_output_shows_no_values() {
        let mut record = InstanceRecord::new();
        record.set(AttributeId::PatientName, "Secret^Person");
        let shown = format!("{record:?}");
        assert!(shown.contains("PatientName") && !shown.contains("Secret"));
    }
}
