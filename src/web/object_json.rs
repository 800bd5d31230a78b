//! All attributes of an object in the DICOM JSON Model (PS3.18 annex F), written during a walk over
//! them.
//!
//! Long binary values, pixel data and very long texts are given by URI. A damaged object ends where
//! the damage begins, and everything before it is kept.

use std::collections::BTreeMap;

use dicom_core::VR;
use dicom_core::dictionary::{DataDictionary as _, DataDictionaryEntry as _, VirtualVr};
use dicom_dictionary_std::StandardDataDictionary;

use super::object_reader::Bytes;
use crate::encoding::charset::CharacterSets;
use crate::encoding::padding::without_trailing_padding;
use crate::encoding::structure::StructureError;
use crate::encoding::tag::{PIXEL_DATA, SPECIFIC_CHARACTER_SET, tag_of};
use crate::encoding::vr::is_binary;
use crate::encoding::walk::{Event, Walk, WalkError};
use crate::model::dicom_json::{push_element, push_key, push_stored, push_string};
use crate::pixels::frames::MAX_FRAGMENTS;

/// Maximum length of a binary value in the text itself.
const MAX_INLINE_BINARY: u32 = 1 << 10;

/// Maximum length of a text value in the text itself. Encapsulated XML and HL7 documents are
/// longer.
const MAX_INLINE_TEXT: u32 = 64 << 10;

/// Maximum length of the text of one object. Enhanced objects of a thousand frames have 5 MB.
const MAX_TEXT: usize = 64 << 20;

/// Length of the text of an element without a value.
const EMPTY_ELEMENT: usize = r#""00100010":{"vr":"PN"}"#.len();

const AVAILABLE_TRANSFER_SYNTAX: u32 = 0x0008_3002;
const PIXEL_DATA_GROUP: u32 = 0x7FE0;

/// Writes one object.
pub(super) struct ObjectJson<'o> {
    out: &'o mut String,
    levels: Vec<NestingLevel>,
    /// Start of the URIs of values. A path of tags and item numbers follows.
    bulk: &'o str,
    transfer_syntax: &'o str,
    /// Number of open sequences and items inside of one that is left out.
    skipped: usize,
    /// Number of elements of [`Self::add_own`] that are written.
    own: usize,
    /// Values that are given by URI. `None` if only the text is wanted.
    values: Option<Vec<BulkValue>>,
    /// Number of fragments whose places may still be noted.
    fragments_left: usize,
}

/// A value that is given by URI.
pub(super) struct BulkValue {
    pub(super) uri: String,
    pub(super) tag: u32,
    /// Whether it belongs to the data set itself, not to an item.
    pub(super) is_root: bool,
    pub(super) place: ValuePlace,
}

/// The place of the bytes of a value.
pub(super) enum ValuePlace {
    /// One run.
    Run((u64, u64)),
    /// Fragments, which together are the value.
    Fragments(Vec<(u64, u64)>),
    /// The frames of the object.
    Frames,
}

struct NestingLevel {
    kind: NestedKind,
    is_empty: bool,
    /// Tags of an item, or of the root, each with the place where its text starts.
    elements: Vec<(u32, usize)>,
    sets: CharacterSets,
    /// Part of the path that leads here.
    part: String,
    items: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum NestedKind {
    Sequence,
    Item,
}

impl<'o> ObjectJson<'o> {
    /// Appends an object. The URIs of its values begin with `bulk`.
    ///
    /// # Errors
    /// If the object cannot be read to its end. What was read before is appended all the same.
    pub(super) fn write(
        out: &'o mut String,
        walk: &mut Walk<Bytes>,
        transfer_syntax: &'o str,
        bulk: &'o str,
    ) -> Result<(), WalkError> {
        let (_, walked) = Self::write_all(out, walk, (transfer_syntax, bulk), None);
        walked?;
        if walk.is_cut() { Err(StructureError::Truncated.into()) } else { Ok(()) }
    }

    /// Returns the values of an object that are given by URI.
    pub(super) fn bulk_values(
        walk: &mut Walk<Bytes>,
        transfer_syntax: &str,
        bulk: &str,
    ) -> Result<Vec<BulkValue>, WalkError> {
        let mut text = String::new();
        let (values, walked) = ObjectJson::write_all(&mut text, walk, (transfer_syntax, bulk), Some(Vec::new()));
        walked.map(|()| values.unwrap_or_default())
    }

    fn write_all(
        out: &'o mut String,
        walk: &mut Walk<Bytes>,
        (transfer_syntax, bulk): (&'o str, &'o str),
        values: Option<Vec<BulkValue>>,
    ) -> (Option<Vec<BulkValue>>, Result<(), WalkError>) {
        out.push('{');
        walk.open_unknown_sequences();
        let root = NestingLevel::new(NestedKind::Item, CharacterSets::default(), String::new());
        let (levels, fragments_left) = (vec![root], MAX_FRAGMENTS);
        let mut this = Self { out, levels, bulk, transfer_syntax, skipped: 0, own: 0, values, fragments_left };
        let walked = this.walk(walk);
        this.add_own(u32::MAX);
        while let Some(level) = this.levels.pop() {
            this.close(level);
        }
        (this.values, walked)
    }

    fn walk(&mut self, walk: &mut Walk<Bytes>) -> Result<(), WalkError> {
        let start = self.out.len();
        loop {
            let event = walk.next()?;
            if self.out.len() - start > MAX_TEXT {
                return Err(WalkError::TooLong(0));
            }
            if self.skipped > 0 {
                match event {
                    Event::Sequence { .. } | Event::Item => self.skipped += 1,
                    Event::SequenceEnd | Event::ItemEnd => self.skipped -= 1,
                    Event::End => return Ok(()),
                    Event::Value { .. } | Event::Fragments { .. } => {}
                }
                continue;
            }
            match event {
                Event::End => return Ok(()),
                Event::Value { tag, vr, length, offset } => self.value(walk, (tag, vr), (offset, length))?,
                Event::Fragments { tag, vr, .. } => {
                    if self.begin(tag) {
                        let place = self.fragments(walk, tag)?;
                        self.uri(tag, vr, place);
                    }
                }
                Event::Sequence { tag } => {
                    if self.begin(tag) {
                        push_key(self.out, tag, VR::SQ);
                        let sets = self.sets();
                        self.levels.push(NestingLevel::new(NestedKind::Sequence, sets, format!("{tag:08X}")));
                    } else {
                        self.skipped = 1;
                    }
                }
                Event::Item => self.item(),
                Event::ItemEnd | Event::SequenceEnd => {
                    if let Some(level) = self.levels.pop() {
                        self.close(level);
                    }
                }
            }
        }
    }

    fn sets(&self) -> CharacterSets {
        self.levels.last().map(|level| level.sets.clone()).unwrap_or_default()
    }

    fn item(&mut self) {
        let sets = self.sets();
        let Some(sequence) = self.levels.last_mut() else { return };
        sequence.items += 1;
        let part = sequence.items.to_string();
        self.out.push_str(if sequence.is_empty { ",\"Value\":[{" } else { ",{" });
        sequence.is_empty = false;
        self.levels.push(NestingLevel::new(NestedKind::Item, sets, part));
    }

    fn close(&mut self, level: NestingLevel) {
        put_in_order(self.out, &level.elements);
        self.out.push_str(match level.kind {
            NestedKind::Item => "}",
            NestedKind::Sequence if level.is_empty => "}",
            NestedKind::Sequence => "]}",
        });
    }

    /// Whether an element is written. In that case its separator is written too.
    fn begin(&mut self, tag: u32) -> bool {
        if self.levels.len() == 1 {
            self.add_own(tag);
        }
        // Group lengths (PS3.5 7.2), and groups that belong to no data set, are left out.
        let is_none = tag & 0xFFFF == 0 || tag >> 16 < 0x0008;
        match self.levels.last_mut() {
            Some(level) if !is_none => {
                level.begin(tag, self.out);
                true
            }
            Some(_) | None => false,
        }
    }

    /// Adds elements that every object has besides its own attributes, in the order of tags. These
    /// are the character set of this text (PS3.18 F.2.2), and the transfer syntax of the stored
    /// object.
    fn add_own(&mut self, before: u32) {
        let own =
            [(SPECIFIC_CHARACTER_SET, VR::CS, "ISO_IR 192"), (AVAILABLE_TRANSFER_SYNTAX, VR::UI, self.transfer_syntax)];
        for (tag, vr, text) in own.into_iter().skip(self.own).take_while(|(tag, ..)| *tag < before) {
            let Some(root) = self.levels.first_mut() else { return };
            root.begin(tag, self.out);
            push_stored(self.out, tag, vr, text);
            self.own += 1;
        }
    }

    fn value(
        &mut self,
        walk: &mut Walk<Bytes>,
        (tag, vr): (u32, VR),
        (offset, length): (u64, u32),
    ) -> Result<(), WalkError> {
        if tag == SPECIFIC_CHARACTER_SET {
            let bytes = walk.value(tag, 1 << 10)?;
            let is_root = self.levels.len() == 1;
            if let Some(level) = self.levels.last_mut() {
                level.sets = CharacterSets::new(without_trailing_padding(&String::from_utf8_lossy(&bytes)));
            }
            if is_root {
                self.add_own(tag + 1);
            }
            return Ok(());
        }
        if !self.begin(tag) {
            return Ok(());
        }
        let vr = known_vr(tag, vr);
        let has_bytes = is_binary(vr);
        let limit = if has_bytes { MAX_INLINE_BINARY } else { MAX_INLINE_TEXT };
        if length > limit || has_bytes && tag >> 16 == PIXEL_DATA_GROUP {
            self.uri(tag, vr, ValuePlace::Run((offset, u64::from(length))));
            return Ok(());
        }
        match walk.value(tag, u64::from(limit)) {
            Ok(bytes) => {
                let sets = self.sets();
                push_element(self.out, tag, vr, false, &bytes, &sets);
                Ok(())
            }
            Err(error) => {
                // The separator is written already, so this writes an empty element.
                push_stored(self.out, tag, vr, "");
                Err(error)
            }
        }
    }

    /// Returns the place of a value in fragments. The fragments of frames are found elsewhere.
    fn fragments(&mut self, walk: &mut Walk<Bytes>, tag: u32) -> Result<ValuePlace, WalkError> {
        if self.values.is_none() || tag == PIXEL_DATA && self.levels.len() == 1 {
            return Ok(ValuePlace::Frames);
        }
        let places = walk.fragments(tag, self.fragments_left)?;
        self.fragments_left -= places.len();
        Ok(ValuePlace::Fragments(places))
    }

    /// Writes a value that is elsewhere (PS3.18 F.2.2).
    fn uri(&mut self, tag: u32, vr: VR, place: ValuePlace) {
        push_key(self.out, tag, vr);
        let mut uri = self.bulk.to_owned();
        for level in self.levels.iter().skip(1) {
            uri.push_str(&level.part);
            uri.push('/');
        }
        uri.push_str(&format!("{tag:08X}"));
        self.out.push_str(",\"BulkDataURI\":");
        push_string(self.out, &uri);
        self.out.push('}');
        let is_root = self.levels.len() == 1;
        if let Some(values) = &mut self.values {
            values.push(BulkValue { uri, tag, is_root, place });
        }
    }
}

/// The VR of an element, which may be known where its writer wrote UN (PS3.5 6.2.2). The walk opens
/// sequences. One that it cannot read stays UN.
fn known_vr(tag: u32, vr: VR) -> VR {
    match StandardDataDictionary.by_tag(tag_of(tag)).map(|entry| entry.vr()) {
        Some(VirtualVr::Exact(known)) if vr == VR::UN && known != VR::SQ => known,
        _ => vr,
    }
}

impl NestingLevel {
    fn new(kind: NestedKind, sets: CharacterSets, part: String) -> Self {
        Self { kind, is_empty: true, elements: Vec::new(), sets, part, items: 0 }
    }

    /// Begins an element with the separator before it.
    fn begin(&mut self, tag: u32, out: &mut String) {
        if !std::mem::replace(&mut self.is_empty, false) {
            out.push(',');
        }
        self.elements.push((tag, out.len()));
    }
}

/// Puts the elements of an item in the order of their tags (PS3.18 F.2.2), each once. Of one that
/// occurs twice the last value counts, as in the index. Nearly all objects have that order.
fn put_in_order(out: &mut String, elements: &[(u32, usize)]) {
    let Some((_, first)) = elements.first() else { return };
    if elements.is_sorted_by(|one, next| one.0 < next.0) {
        return;
    }
    let text = out.split_off(*first);
    let ends = elements.iter().skip(1).map(|(_, start)| start - 1).chain([first + text.len()]);
    let texts = elements
        .iter()
        .zip(ends)
        .filter_map(|((tag, start), end)| text.get(start - first..end - first).map(|text| (*tag, text)));
    let mut kept: BTreeMap<u32, &str> = BTreeMap::new();
    for (tag, text) in texts {
        let known = kept.entry(tag).or_insert(text);
        if text.len() > EMPTY_ELEMENT {
            *known = text;
        }
    }
    kept.values().enumerate().for_each(|(at, text)| {
        if at > 0 {
            out.push(',');
        }
        out.push_str(text);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_come_in_their_order_and_the_last_value_of_one_counts() {
        let mut out = "[{".to_owned();
        let mut level = NestingLevel::new(NestedKind::Item, CharacterSets::default(), String::new());
        for (tag, text) in [(0x0010_0020, "A"), (0x0010_0010, "B"), (0x0010_0020, "C"), (0x0010_0010, "")] {
            level.begin(tag, &mut out);
            push_stored(&mut out, tag, VR::LO, text);
        }
        put_in_order(&mut out, &level.elements);
        let expected = r#"[{"00100010":{"vr":"LO","Value":["B"]},"00100020":{"vr":"LO","Value":["C"]}"#;
        assert_eq!(out, expected);
    }
}
