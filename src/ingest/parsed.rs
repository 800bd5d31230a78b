//! What a header reader read.

use dicom_core::VR;

use super::fault::{Fault, Faults};
use super::json;
use super::limits::MAX_VALUE;
use super::wanted::{Slot, tag_of};
use crate::model::charset::CharacterSets;
use crate::model::value;

/// What kind of object the bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// A DICOM object, or what is left of one.
    Object,
    /// A Media Storage Directory (PS3.10 8.6): no instance, and not read further.
    Dicomdir,
    /// Not DICOM, and why.
    NotDicom(&'static str),
}

/// A wanted value as it stood in the data set.
#[derive(Debug, Clone, Copy)]
pub(super) struct RawValue {
    pub(super) slot: Slot,
    pub(super) tag: u32,
    pub(super) vr: VR,
    pub(super) big: bool,
    pub(super) character_set: bool,
    pub(super) start: u32,
    pub(super) length: u32,
}

impl RawValue {
    /// Its bytes, which are among those that were kept of the data set.
    pub(super) fn bytes<'r>(&self, raw: &'r [u8]) -> &'r [u8] {
        let start = self.start as usize;
        raw.get(start..start + self.length as usize).unwrap_or_default()
    }
}

/// Decodes a value and appends its text.
pub(super) fn push_value(
    out: &mut String,
    value: &RawValue,
    bytes: &[u8],
    character_sets: &CharacterSets,
    faults: &mut Faults,
) {
    let faithful = if value.vr == VR::SQ {
        let start = out.len();
        let faithful = json::push_items(out, bytes, character_sets);
        if out.len() - start > MAX_VALUE {
            out.truncate(start);
            faults.add(Fault::ValueTooLong { tag: tag_of(value.tag) });
        }
        faithful
    } else {
        value::push_text(out, value.vr, value.big, bytes, character_sets)
    };
    if !faithful {
        faults.add(Fault::TextNotInCharacterSet { tag: tag_of(value.tag) });
    }
}

/// The result of a [`HeaderParser`](super::HeaderParser).
#[derive(Debug)]
pub struct Parsed {
    pub(super) verdict: Verdict,
    pub(super) has_preamble: bool,
    pub(super) transfer_syntax: String,
    pub(super) media_storage_sop_class_uid: String,
    pub(super) media_storage_sop_instance_uid: String,
    pub(super) faults: Faults,
    pub(super) raw: Vec<u8>,
    pub(super) values: Vec<RawValue>,
}

impl Parsed {
    /// What kind of object the bytes are.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Whether there was a preamble with the prefix `DICM` (PS3.10 7.1).
    #[must_use]
    pub fn has_preamble(&self) -> bool {
        self.has_preamble
    }

    /// The UID of the transfer syntax that the object is really in.
    #[must_use]
    pub fn transfer_syntax(&self) -> &str {
        &self.transfer_syntax
    }

    /// Media Storage SOP Class UID (0002,0002), empty when absent.
    #[must_use]
    pub fn media_storage_sop_class_uid(&self) -> &str {
        &self.media_storage_sop_class_uid
    }

    /// Media Storage SOP Instance UID (0002,0003), empty when absent.
    #[must_use]
    pub fn media_storage_sop_instance_uid(&self) -> &str {
        &self.media_storage_sop_instance_uid
    }

    /// The faults met so far; decoding text may add some.
    #[must_use]
    pub fn faults(&self) -> &[Fault] {
        self.faults.as_slice()
    }

    /// Decodes the values, in the order of the data set.
    ///
    /// `sink` gets the slot of each value and a function that appends its text to a buffer.
    pub fn decode(&mut self, mut sink: impl FnMut(Slot, &mut dyn FnMut(&mut String))) {
        let character_sets = self.character_sets();
        let Self { faults, raw, values, .. } = self;
        for value in values.iter().filter(|value| value.slot != Slot::MAX) {
            sink(value.slot, &mut |out| push_value(out, value, value.bytes(raw), &character_sets, faults));
        }
    }

    /// The text of one wanted element, `None` when it is absent (or empty, or was left out with a fault).
    #[must_use]
    pub fn text(&mut self, slot: Slot) -> Option<String> {
        let mut found = None;
        self.decode(|at, push| {
            if at == slot {
                let mut text = String::new();
                push(&mut text);
                found = Some(text);
            }
        });
        found
    }

    pub(super) fn character_sets(&mut self) -> CharacterSets {
        let Some(value) = self.values.iter().rfind(|value| value.character_set) else {
            return CharacterSets::default();
        };
        let sets = CharacterSets::new(&String::from_utf8_lossy(value.bytes(&self.raw)));
        if !sets.recognised() {
            self.faults.add(Fault::CharacterSetUnknown);
        }
        sets
    }
}
