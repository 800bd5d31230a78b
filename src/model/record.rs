//! What was read of one instance.

use std::fmt;
use std::sync::Arc;

use super::attribute::{ATTRIBUTE_COUNT, AttributeId};

/// The values that the index keeps of one SOP Instance, as UTF-8 text.
///
/// Values are trimmed of insignificant padding (PS3.5 6.2); several values are joined by `\`; binary numbers are decimal
/// text; legacy forms of dates and times are put right (see [`super::value`]); a sequence is the array of its items in the
/// DICOM JSON Model (PS3.18 F.2). An absent attribute and one of zero length are both the empty text: PS3.4 C.2.2.2.7
/// treats them alike.
///
/// A scan makes 100,000 of these a second, and of ninety values in a slice some eight differ from those of the slice before:
/// so a record can hold only these, and share the rest with others ([`Common`]). Whether it does changes no value.
#[derive(Clone)]
pub struct InstanceRecord {
    values: Values,
    /// Nothing where no declared unit has a value.
    declared: Option<Box<DeclaredValues>>,
    faults: Vec<String>,
}

#[derive(Clone)]
enum Values {
    All(Box<All>),
    Differing { common: Common, own: Own },
}

/// One text buffer and one span for each attribute: an allocation for each value would cost more than reading the header.
#[derive(Clone)]
struct All {
    text: String,
    spans: [Span; ATTRIBUTE_COUNT],
}

/// The values in which a record differs from those that it shares.
#[derive(Clone)]
struct Own {
    text: String,
    /// Each attribute at most once.
    spans: Vec<(AttributeId, Span)>,
    /// Which attributes these are, a bit each: most questions are about others.
    which: u128,
}

const _: () = assert!(ATTRIBUTE_COUNT <= u128::BITS as usize);

impl Own {
    fn with_capacity(text: usize, spans: usize) -> Self {
        Self { text: String::with_capacity(text), spans: Vec::with_capacity(spans), which: 0 }
    }

    fn span(&self, id: AttributeId) -> Option<Span> {
        if self.which & 1 << id as u32 == 0 {
            return None;
        }
        self.spans.iter().find(|(own, _)| *own == id).map(|(_, span)| *span)
    }
}

/// The values of declared units, by number.
#[derive(Clone, Debug, Default)]
struct DeclaredValues {
    text: String,
    spans: Vec<Span>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Span {
    start: u32,
    length: u32,
}

impl Span {
    /// What `write` appends to the text.
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

/// Values that records have in common.
#[derive(Clone)]
pub struct Common(Arc<All>);

impl Common {
    /// A value that holds for each of the records unless it says otherwise.
    #[must_use]
    pub fn value(&self, id: AttributeId) -> &str {
        self.0.spans[id as usize].text(&self.0.text)
    }

    /// Whether these are not only equal but the same in memory.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl InstanceRecord {
    /// An empty record.
    #[must_use]
    pub fn new() -> Self {
        let all = All { text: String::with_capacity(768), spans: [Span::default(); ATTRIBUTE_COUNT] };
        Self { values: Values::All(Box::new(all)), declared: None, faults: Vec::new() }
    }

    /// A record with these values, until others are set.
    #[must_use]
    pub fn like(common: &Common) -> Self {
        let own = Own::with_capacity(192, 12);
        Self { values: Values::Differing { common: common.clone(), own }, declared: None, faults: Vec::new() }
    }

    /// Makes all values of this record, as they are now, ones that others can have in common with it. `None` for one that
    /// has them in common with others already.
    pub fn share(&mut self) -> Option<Common> {
        let Values::All(all) = &mut self.values else { return None };
        let mut all = std::mem::replace(all, Box::new(All { text: String::new(), spans: [Span::default(); _] }));
        all.text.shrink_to_fit();
        let common = Common(Arc::from(all));
        let own = Own::with_capacity(0, 0);
        self.values = Values::Differing { common: common.clone(), own };
        Some(common)
    }

    /// The values that it has in common with others, and the attributes in which it may differ from them.
    #[must_use]
    pub fn common(&self) -> Option<(&Common, impl Iterator<Item = AttributeId>)> {
        match &self.values {
            Values::All(_) => None,
            Values::Differing { common, own } => Some((common, own.spans.iter().map(|(id, _)| *id))),
        }
    }

    /// The value of an attribute; empty where it is absent or empty.
    #[must_use]
    pub fn value(&self, id: AttributeId) -> &str {
        match &self.values {
            Values::All(all) => all.spans[id as usize].text(&all.text),
            Values::Differing { common, own } => match own.span(id) {
                Some(span) => span.text(&own.text),
                None => common.value(id),
            },
        }
    }

    /// The value of the declared unit with this number ([`super::declared::DeclaredSet::units`]); empty where it is absent or
    /// empty.
    #[must_use]
    pub fn declared(&self, unit: usize) -> &str {
        let declared = self.declared.as_ref();
        declared.and_then(|own| Some(own.spans.get(unit)?.text(&own.text))).unwrap_or_default()
    }

    /// Whether it was read with what is declared, whatever that said; a record that was put together from what the index
    /// knows was not.
    #[must_use]
    pub fn has_declared(&self) -> bool {
        self.declared.is_some()
    }

    /// Notes that it was read with what is declared.
    pub fn note_declared(&mut self) {
        self.declared.get_or_insert_default();
    }

    /// The declared units that may have a value.
    fn units(&self) -> usize {
        self.declared.as_ref().map_or(0, |declared| declared.spans.len())
    }

    /// Sets the value of a declared unit, as [`Self::set_with`] does.
    ///
    /// # Panics
    /// As [`Self::set`].
    pub fn set_declared_with(&mut self, unit: usize, write: impl FnOnce(&mut String)) {
        let declared = self.declared.get_or_insert_default();
        if declared.spans.len() <= unit {
            declared.spans.resize(unit + 1, Span::default());
        }
        declared.spans[unit] = Span::of(&mut declared.text, write);
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
        match &mut self.values {
            Values::All(all) => all.spans[id as usize] = Span::of(&mut all.text, write),
            Values::Differing { own, .. } => {
                let span = Span::of(&mut own.text, write);
                own.which |= 1 << id as u32;
                match own.spans.iter_mut().find(|(own, _)| *own == id) {
                    Some((_, known)) => *known = span,
                    None => own.spans.push((id, span)),
                }
            }
        }
    }

    /// Gives back memory that was set aside for more values: records wait in queues by the thousand.
    pub fn shrink_to_fit(&mut self) {
        match &mut self.values {
            Values::All(all) => all.text.shrink_to_fit(),
            Values::Differing { own, .. } => {
                own.text.shrink_to_fit();
                own.spans.shrink_to_fit();
            }
        }
    }

    /// Notes a fault of the data set that did not prevent reading it. The text begins with a stable word for counting and
    /// a colon (`bad-vr: element (0028,0010) has no valid VR`); it names tags and offsets, never values.
    pub fn add_fault(&mut self, fault: String) {
        self.faults.push(fault);
    }

    /// Bytes of text that it holds for itself; what it takes in memory is little more.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        let values = match &self.values {
            Values::All(all) => all.text.len(),
            Values::Differing { own, .. } => own.text.len(),
        };
        let declared = self.declared.as_ref().map_or(0, |declared| declared.text.len());
        values + declared + self.faults.iter().map(String::len).sum::<usize>()
    }

    /// What was wrong with the data set, in the order met.
    #[must_use]
    pub fn faults(&self) -> &[String] {
        &self.faults
    }
}

/// Records are equal that say the same, whatever they share.
impl PartialEq for InstanceRecord {
    fn eq(&self, other: &Self) -> bool {
        self.faults == other.faults
            && super::attribute::ATTRIBUTES.iter().all(|a| self.value(a.id) == other.value(a.id))
            && (0..self.units().max(other.units())).all(|unit| self.declared(unit) == other.declared(unit))
    }
}

impl Eq for InstanceRecord {}

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
        assert!(same.is(&common));
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
