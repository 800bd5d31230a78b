//! The result of a header reader.

use std::collections::HashMap;
use std::sync::Arc;

use dicom_core::{Tag, VR};

use super::fault::{Fault, Faults};
use super::json;
use super::limits::MAX_VALUE;
use crate::encoding::charset::CharacterSets;
use crate::encoding::syntax::Encoding;
use crate::encoding::tag::tag_of;
use crate::ingest::wanted::{CREATOR, FIRST_DECLARED, Slot};
use crate::model::declared::{DeclaredSet, Unit, creator_tag};
use crate::model::value;

/// Returns the kind of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// A DICOM object, or a part of one.
    Object,
    /// A Media Storage Directory (PS3.10 8.6). It is not an instance and is not read further.
    Dicomdir,
    /// Not DICOM, with the reason.
    NotDicom(&'static str),
}

/// A wanted value with its bytes as in the data set.
#[derive(Debug, Clone, Copy)]
pub(super) struct RawValue {
    pub(super) slot: Slot,
    pub(super) tag: u32,
    pub(super) vr: VR,
    pub(super) big_endian: bool,
    pub(super) character_set: bool,
    pub(super) start: u32,
    pub(super) length: u32,
}

impl RawValue {
    /// Returns its bytes. `raw` holds the bytes of all values.
    pub(super) fn bytes<'r>(&self, raw: &'r [u8]) -> &'r [u8] {
        let start = self.start as usize;
        raw.get(start..start + self.length as usize).unwrap_or_default()
    }
}

/// Empty buffers with spare capacity, for the wanted values of a parser.
#[derive(Debug, Default)]
pub(super) struct Spare {
    pub(super) raw: Vec<u8>,
    pub(super) values: Vec<RawValue>,
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
        value::push_text(out, value.vr, value.big_endian, bytes, character_sets)
    };
    if !faithful {
        faults.add(Fault::TextNotInCharacterSet { tag: tag_of(value.tag) });
    }
}

/// Facts about the end of an object, from the elements behind the last wanted one. Offsets count
/// from the start of the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LeastEnd {
    /// The object has at least this many bytes if it is whole.
    pub(super) end: u64,
    /// The place up to which its elements were met.
    pub(super) here: u64,
    /// Pixel data whose fragments go on there or have their delimiter.
    pub(super) unended: Option<Tag>,
}

/// The result of a [`HeaderParser`](super::HeaderParser).
#[derive(Debug)]
pub struct Parsed {
    pub(super) verdict: Verdict,
    pub(super) has_preamble: bool,
    pub(super) data_set_offset: u64,
    pub(super) transfer_syntax: String,
    pub(super) encoding: Encoding,
    pub(super) least_end: Option<LeastEnd>,
    pub(super) first_behind: Option<Tag>,
    pub(super) media_storage_sop_class_uid: String,
    pub(super) media_storage_sop_instance_uid: String,
    pub(super) faults: Faults,
    pub(super) raw: Vec<u8>,
    pub(super) values: Vec<RawValue>,
    pub(super) declared: Option<Arc<DeclaredSet>>,
}

impl Parsed {
    /// Returns the kind of object.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Whether there was a preamble with the prefix `DICM` (PS3.10 7.1).
    #[must_use]
    pub fn has_preamble(&self) -> bool {
        self.has_preamble
    }

    /// Returns the offset of the data set (deflated or not), in bytes from the start of the object.
    /// Preamble, prefix and File Meta Information come before it, if they exist.
    #[must_use]
    pub fn data_set_offset(&self) -> u64 {
        self.data_set_offset
    }

    /// Returns the UID of the transfer syntax that the object really has.
    #[must_use]
    pub fn transfer_syntax(&self) -> &str {
        &self.transfer_syntax
    }

    /// Returns how the elements of the data set are encoded. For a deflated data set it is the
    /// encoding after inflating. Compressed objects must be in Explicit VR Little Endian (PS3.5
    /// A.4), and some are not.
    #[must_use]
    pub(crate) fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Returns the fault of an object that has only this many bytes, as far as the elements behind
    /// the last wanted one tell.
    pub(super) fn end_fault(&self, length: u64) -> Option<Fault> {
        let LeastEnd { end, here, unended } = self.least_end?;
        if end > length {
            return Some(Fault::Truncated { offset: length });
        }
        unended.filter(|_| here >= length).map(|tag| Fault::MissingDelimiter { tag })
    }

    /// Adds [`Fault::Truncated`] if an element behind the last wanted one does not fit in an object
    /// of this many bytes. One byte of the last value may lack: some writers forget the padding.
    ///
    /// Compressed pixel data that end behind a whole fragment may lack only their delimiter. This
    /// is [`Fault::MissingDelimiter`].
    pub fn note_length(&mut self, length: u64) {
        if let Some(fault) = self.end_fault(length) {
            self.faults.add(fault);
        }
    }

    /// Returns Media Storage SOP Class UID (0002,0002). It is empty if absent.
    #[must_use]
    pub fn media_storage_sop_class_uid(&self) -> &str {
        &self.media_storage_sop_class_uid
    }

    /// Returns Media Storage SOP Instance UID (0002,0003). It is empty if absent.
    #[must_use]
    pub fn media_storage_sop_instance_uid(&self) -> &str {
        &self.media_storage_sop_instance_uid
    }

    /// Returns the faults met so far. Decoding text may add some.
    #[must_use]
    pub fn faults(&self) -> &[Fault] {
        self.faults.as_slice()
    }

    /// Decodes the values, in the order of the data set.
    ///
    /// `sink` gets the slot of each value, and a function that appends its text to a buffer.
    pub fn decode(&mut self, mut sink: impl FnMut(Slot, &mut dyn FnMut(&mut String))) {
        let character_sets = self.character_sets();
        let Self { faults, raw, values, declared, .. } = self;
        for value in
            values.iter().filter(|value| value.slot < FIRST_DECLARED || declared.is_none() && value.slot < CREATOR)
        {
            sink(value.slot, &mut |out| push_value(out, value, value.bytes(raw), &character_sets, faults));
        }
    }

    /// Decodes the values of declared units, in the order of the data set.
    ///
    /// `sink` gets the number of each unit, and a function that appends its text to a buffer.
    pub fn decode_declared(&mut self, mut sink: impl FnMut(usize, &mut dyn FnMut(&mut String))) {
        let Some(declared) = self.declared.clone() else { return };
        if !self.values.iter().any(|value| (FIRST_DECLARED..CREATOR).contains(&value.slot)) {
            return;
        }
        let sets = self.character_sets();
        let Self { faults, raw: bytes, values, .. } = self;
        let bytes_of = |value: &RawValue| {
            let start = value.start as usize;
            bytes.get(start..start + value.length as usize).unwrap_or_default()
        };
        let creators: HashMap<Tag, String> = values
            .iter()
            .filter(|value| value.slot == CREATOR)
            .map(|value| {
                let mut creator = String::new();
                value::push_text(&mut creator, VR::LO, value.big_endian, bytes_of(value), &sets);
                (tag_of(value.tag), creator)
            })
            .collect();
        for value in values.iter().filter(|value| (FIRST_DECLARED..CREATOR).contains(&value.slot)) {
            let tag = tag_of(value.tag);
            let creator = creator_tag(tag).and_then(|tag| creators.get(&tag)).map(String::as_str);
            // Several creators may have this element. The creator of this block decides.
            let Some(unit) = declared.unit(tag, creator) else { continue };
            let bytes = bytes_of(value);
            sink(unit.number, &mut |out| {
                let start = out.len();
                if !push_unit(out, unit, value, bytes, &sets) {
                    faults.add(Fault::TextNotInCharacterSet { tag });
                }
                if out.len() - start > MAX_VALUE {
                    out.truncate(start);
                    faults.add(Fault::ValueTooLong { tag });
                }
            });
        }
    }

    /// Returns the text of one wanted element. `None` if it is absent, empty, or left out with a
    /// fault.
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

    /// Returns SOP Class UID and SOP Instance UID of a header that was parsed with
    /// [`Wanted::sop_uids`](super::Wanted::sop_uids). The data set says them, or the File Meta
    /// Information if it does not. Programs that rewrite data sets leave the UIDs of the meta
    /// information behind, and C-STORE does not see these at all.
    #[must_use]
    pub fn sop_uids(&mut self) -> (String, String) {
        let [class, instance] = [0, 1].map(|slot| self.text(slot).filter(|uid| !uid.is_empty()));
        let class = class.unwrap_or_else(|| self.media_storage_sop_class_uid().to_owned());
        (class, instance.unwrap_or_else(|| self.media_storage_sop_instance_uid().to_owned()))
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

/// Appends the value of a unit. Returns false if its character set could not decode it.
fn push_unit(out: &mut String, unit: &Unit, value: &RawValue, bytes: &[u8], sets: &CharacterSets) -> bool {
    match (unit.vr == VR::SQ, value.vr == VR::SQ) {
        (true, true) if unit.items.is_empty() => json::push_items(out, bytes, sets),
        (true, true) => {
            let mut cut = Vec::with_capacity(bytes.len().min(1 << 10));
            json::cut_down(bytes, &unit.items, sets, &mut cut);
            json::push_items(out, &cut, sets)
        }
        (false, false) => value::push_text(out, value.vr, value.big_endian, bytes, sets),
        // The kind of element in the object is not the declared one.
        (true, false) | (false, true) => true,
    }
}
