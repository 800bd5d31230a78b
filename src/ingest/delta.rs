//! Parses an object relative to the one before it in the same series. Such objects differ in a few
//! values. Equal values are not decoded again, and they are in memory once.

use super::fault::Faults;
use super::parsed::{Parsed, RawValue, Verdict, push_value};
use super::wanted::Slot;
use crate::encoding::charset::CharacterSets;
use crate::ingest::limits::FIRST_READ;
use crate::ingest::outcome::{IDENTIFYING, Outcome};
use crate::ingest::parsed::Spare;
use crate::model::attribute::{ATTRIBUTES, AttributeId};
use crate::model::record::{Common, InstanceRecord};
use crate::model::uid::is_acceptable_uid;

/// Number of series that are remembered. The files of several series may be mixed in one directory.
const SERIES: usize = 4;

/// Maximum number of values in which an object may differ. If more differ, it becomes the object to
/// compare with, because a record searches its own values one by one.
const MAX_DIFFERENT: usize = 24;

/// Maximum bytes of the wanted values of a remembered object, raw and as text. Nearly all have 2
/// KB. Every thread remembers objects, so larger ones could fill the memory.
const MAX_RAW: usize = 4 << 10;

/// The last objects of a few series, and memory that is reused from object to object.
#[derive(Debug)]
pub(super) struct DeltaParser {
    bases: Vec<DeltaBase>,
    /// Index of the base to replace next.
    oldest: usize,
    spare: Spare,
    buffer: Box<[u8; FIRST_READ]>,
}

impl Default for DeltaParser {
    fn default() -> Self {
        Self { bases: Vec::new(), oldest: 0, spare: Spare::default(), buffer: Box::new([0; FIRST_READ]) }
    }
}

/// An object without faults, with its values in ascending order.
struct DeltaBase {
    raw: Vec<u8>,
    values: Vec<RawValue>,
    character_sets: CharacterSets,
    common: Common,
}

impl DeltaParser {
    /// Returns memory for the next parser.
    pub(super) fn spare(&mut self) -> Spare {
        std::mem::take(&mut self.spare)
    }

    /// Returns memory for the first bytes of a file.
    pub(super) fn buffer(&mut self) -> &mut [u8; FIRST_READ] {
        &mut self.buffer
    }

    /// Returns the same result as [`Outcome::of`].
    pub(super) fn outcome(&mut self, mut parsed: Parsed) -> Outcome {
        // Private blocks differ from object to object. Objects with declared values are therefore
        // not compared.
        if parsed.declared.is_some() {
            return Outcome::of(parsed);
        }
        let at = self.bases.iter().position(|base| base.is_of_series(&parsed));
        if let Some(base) = at.and_then(|at| self.bases.get(at))
            && let Some(record) = base.record(&parsed)
        {
            let Parsed { mut raw, mut values, .. } = parsed;
            // Memory of an object with unusual values is freed, not reused.
            if raw.capacity() <= MAX_RAW {
                raw.clear();
                values.clear();
                self.spare = Spare { raw, values };
            }
            return Outcome::Instance(record);
        }
        let mut outcome = Outcome::decoded(&mut parsed);
        if let Outcome::Instance(record) = &mut outcome
            && record.faults().is_empty()
            && let Some(base) = DeltaBase::of(parsed, record)
        {
            let at = at.unwrap_or_else(|| {
                self.oldest = (self.oldest + 1) % SERIES;
                self.oldest
            });
            match self.bases.get_mut(at) {
                Some(place) => *place = base,
                None => self.bases.push(base),
            }
        }
        outcome
    }
}

impl DeltaBase {
    fn of(mut parsed: Parsed, record: &mut InstanceRecord) -> Option<Self> {
        let ascending = parsed.values.is_sorted_by(|one, next| one.tag < next.tag);
        if !ascending || parsed.raw.len() > MAX_RAW || record.text_bytes() > MAX_RAW {
            return None;
        }
        let character_sets = parsed.character_sets();
        let common = record.share()?;
        parsed.raw.shrink_to_fit();
        parsed.values.shrink_to_fit();
        Some(Self { raw: parsed.raw, values: parsed.values, character_sets, common })
    }

    fn is_of_series(&self, parsed: &Parsed) -> bool {
        let own = self.values.iter().find(|value| value.slot == SERIES_SLOT);
        let other = parsed.values.iter().find(|value| value.slot == SERIES_SLOT);
        own.zip(other).is_some_and(|(own, other)| own.bytes(&self.raw) == other.bytes(&parsed.raw))
    }

    /// Builds the record of a similar object. `None` if the object is not similar, or if this
    /// cannot be decided.
    fn record(&self, parsed: &Parsed) -> Option<Box<InstanceRecord>> {
        if parsed.verdict != Verdict::Object || !parsed.faults().is_empty() {
            return None;
        }
        let mut record = Box::new(InstanceRecord::like(&self.common));
        let mut faults = Faults::default();
        let mut known = self.values.iter().peekable();
        let mut last_tag = None;
        let mut different = 0;
        for value in &parsed.values {
            // If an element occurs twice, the last one counts. This case is left to `Outcome::of`.
            if last_tag.is_some_and(|last| last >= value.tag) {
                return None;
            }
            last_tag = Some(value.tag);
            while let Some(gone) = known.next_if(|known| known.tag < value.tag) {
                if gone.character_set {
                    return None;
                }
                set(&mut record, gone.slot, |_| ());
                different += 1;
            }
            let bytes = value.bytes(&parsed.raw);
            if let Some(known) = known.next_if(|known| known.tag == value.tag)
                && (known.slot, known.vr, known.big_endian) == (value.slot, value.vr, value.big_endian)
                && known.bytes(&self.raw) == bytes
            {
                continue;
            }
            // With another character set, all text would be decoded differently.
            if value.character_set {
                return None;
            }
            set(&mut record, value.slot, |out| push_value(out, value, bytes, &self.character_sets, &mut faults));
            different += 1;
            if different > MAX_DIFFERENT {
                return None;
            }
        }
        for gone in known {
            if gone.character_set {
                return None;
            }
            set(&mut record, gone.slot, |_| ());
        }
        let syntax = parsed.transfer_syntax();
        if syntax != self.common.value(AttributeId::AvailableTransferSyntaxUID) {
            record.set(AttributeId::AvailableTransferSyntaxUID, syntax);
        }
        // Only `Outcome::of` handles faults.
        if !faults.as_slice().is_empty() {
            return None;
        }
        // Objects of some SOP Classes are not instances.
        if record.value(AttributeId::SOPClassUID) != self.common.value(AttributeId::SOPClassUID) {
            return None;
        }
        if !IDENTIFYING.into_iter().all(|id| is_acceptable_uid(record.value(id))) {
            return None;
        }
        record.shrink_to_fit();
        Some(record)
    }
}

const SERIES_SLOT: Slot = AttributeId::SeriesInstanceUID as Slot;

/// Sets the attribute of a slot, if the slot has one.
fn set(record: &mut InstanceRecord, slot: Slot, write: impl FnOnce(&mut String)) {
    if let Some(attribute) = ATTRIBUTES.get(usize::from(slot)) {
        record.set_with(attribute.id, write);
    }
}

impl std::fmt::Debug for DeltaBase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Base").field("values", &self.values.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ingest::{HeaderParser, Wanted};

    const TAGS: [(u32, &[u8; 2]); 10] = [
        (0x0008_0005, b"CS"),
        (0x0008_0016, b"UI"),
        (0x0008_0018, b"UI"),
        (0x0008_0033, b"TM"),
        (0x0008_103E, b"LO"),
        (0x0010_0010, b"PN"),
        (0x0020_000D, b"UI"),
        (0x0020_000E, b"UI"),
        (0x0020_0013, b"IS"),
        (0x0028_0010, b"US"),
    ];
    const TEXTS: [&[u8]; 8] = [b"", b"1 ", b"12", b"A\\B ", b"\xe4\xf6", b"101500", b"ISO_IR 100", b"ISO_IR 192"];

    /// Builds a data set of the wanted elements in this order. Each is absent or has one of a few
    /// texts.
    fn parsed(choice: &[(usize, usize)]) -> Parsed {
        let mut bytes = Vec::new();
        for &(element, text) in choice {
            let ((tag, vr), text) = (TAGS[element], TEXTS[text]);
            bytes.extend(((tag >> 16) as u16).to_le_bytes());
            bytes.extend((tag as u16).to_le_bytes());
            bytes.extend(vr);
            bytes.extend((text.len() as u16).to_le_bytes());
            bytes.extend(text);
        }
        let mut parser = HeaderParser::for_data_set(Wanted::index(), "1.2.840.10008.1.2.1");
        parser.feed(&bytes);
        parser.finish()
    }

    /// Generates objects that are mostly complete and ascending. Some have the faults of real ones:
    /// absent elements, repeated elements, or elements out of order.
    fn object() -> impl Strategy<Value = Vec<(usize, usize)>> {
        let texts = proptest::collection::vec(proptest::sample::select(vec![1, 1, 1, 2, 2, 0, 3, 4, 5, 6, 7]), 10);
        let odd = proptest::collection::vec((0_usize..10, 0_usize..8), 0..2);
        (texts, odd, any::<bool>()).prop_map(|(texts, odd, sorted)| {
            let mut all: Vec<_> = texts
                .into_iter()
                .enumerate()
                .map(|(element, text)| match element {
                    0 => (0, if text % 2 == 0 { 6 } else { 7 }),
                    1 | 2 | 6 | 7 => (element, if text == 2 { 2 } else { 1 }),
                    _ => (element, text),
                })
                .filter(|(element, text)| *text != 3 || *element == 4)
                .collect();
            all.extend(odd);
            if sorted {
                all.sort_unstable();
                all.dedup_by_key(|one| one.0);
            }
            all
        })
    }

    fn told(outcome: &Outcome) -> String {
        match outcome {
            Outcome::Instance(record) => {
                let values = ATTRIBUTES.iter().map(|a| record.value(a.id)).collect::<Vec<_>>();
                format!("{values:?} {:?}", record.faults())
            }
            other => format!("{other:?}"),
        }
    }

    proptest! {
        #[test]
        fn what_came_before_changes_nothing(objects in proptest::collection::vec(object(), 1..24)) {
            let mut delta = DeltaParser::default();
            for object in objects {
                let alone = Outcome::of(parsed(&object));
                let after_others = delta.outcome(parsed(&object));
                prop_assert_eq!(told(&after_others), told(&alone));
            }
        }
    }

    #[test]
    fn slices_of_a_series_share_what_they_have_in_common() {
        let slice =
            |number| (0..10).map(move |element| (element, if element == 2 || element == 8 { number } else { 1 }));
        let mut delta = DeltaParser::default();
        let records: Vec<_> = (1..=2)
            .map(|number| {
                let choice: Vec<_> = slice(number).filter(|(element, _)| *element != 0).collect();
                match delta.outcome(parsed(&choice)) {
                    Outcome::Instance(record) => record,
                    other => panic!("{other:?}"),
                }
            })
            .collect();
        let (first, _) = records[0].common().unwrap();
        let (second, own) = records[1].common().unwrap();
        assert!(first.shares_memory_with(second));
        assert_eq!(own.collect::<Vec<_>>(), [AttributeId::SOPInstanceUID, AttributeId::InstanceNumber]);
    }
}
