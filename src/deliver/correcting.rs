//! Replaces the identifiers of a patient in a data set on its way out. The previous values go into
//! the Original Attributes Sequence (PS3.3 C.12.1.1.9).

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::db::CorrectedValues;
use crate::encoding::charset::{CharacterSets, TextForm};
use crate::encoding::syntax::Encoding;
use crate::encoding::tag::{
    ITEM, ITEM_DELIMITER, SEQUENCE_DELIMITER, SPECIFIC_CHARACTER_SET, UNDEFINED, tag_number, tag_of,
};
use crate::encoding::vr;
use crate::model::attribute::AttributeId;
use crate::model::calendar::moment_text;

pub(super) const ORIGINAL_ATTRIBUTES: u32 = 0x0400_0561;
const MODIFIED_ATTRIBUTES: u32 = 0x0400_0550;
const MODIFICATION_DATE_TIME: u32 = 0x0400_0562;
const MODIFYING_SYSTEM: u32 = 0x0400_0563;
const SOURCE_OF_PREVIOUS_VALUES: u32 = 0x0400_0564;
const REASON: u32 = 0x0400_0565;

/// Unicode, for a data set that declares no character set.
const UTF_8: &str = "ISO_IR 192";

/// Longest previous value that is kept, in bytes. A name has three groups of 64 characters.
const MAX_PREVIOUS: u32 = 4096;

/// The reason why a data set cannot be corrected. The texts name tags, never values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CorrectingError {
    /// The element is no short text.
    #[error("element {} is no text, so it cannot be corrected", tag_of(*.0))]
    NotText(u32),
    /// The character set of the data set lacks a character of the new value.
    #[error("the character set of the object cannot express the corrected element {}", tag_of(*.0))]
    NotEncodable(u32),
}

/// Treatment of an element of the data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It stays.
    Stays,
    /// It was replaced. Its value goes to the previous ones, in the place of an earlier one.
    Replaced,
    /// It goes, because it comes a second time and says nothing.
    Goes,
}

/// The correction of one data set.
#[derive(Debug)]
pub(super) struct Correcting {
    corrected: Arc<CorrectedValues>,
    to: Encoding,
    /// Number of values that were written.
    written: usize,
    /// The character sets of the data set. `None` until its first later element.
    sets: Option<CharacterSets>,
    /// Elements with their previous values, by their tags. If an element occurs twice, the last
    /// value counts.
    previous: BTreeMap<u32, Vec<u8>>,
    /// The element whose previous value comes now.
    noted: u32,
    has_original_attributes: bool,
}

impl Correcting {
    /// Begins the correction of a data set that is written in this encoding.
    pub(super) fn new(corrected: Arc<CorrectedValues>, to: Encoding) -> Self {
        Self {
            corrected,
            to,
            written: 0,
            sets: None,
            previous: BTreeMap::new(),
            noted: 0,
            has_original_attributes: false,
        }
    }

    /// Writes what comes before this element of the data set, and says what becomes of the element.
    pub(super) fn before(&mut self, tag: u32, length: u32, out: &mut Vec<u8>) -> Result<Fate, CorrectingError> {
        if tag > SPECIFIC_CHARACTER_SET && self.sets.is_none() {
            // The data set has no such element.
            self.character_set("", out);
        }
        while let Some((id, value)) = self.corrected.values.get(self.written) {
            let own = tag_number(id.attribute().tag);
            if own > tag {
                break;
            }
            self.push_value(*id, &value.clone(), out)?;
            self.written += 1;
            if own < tag {
                // It was absent.
                self.note_previous(own, id.attribute().vr.to_bytes(), 0);
                continue;
            }
            let is_short = length <= MAX_PREVIOUS;
            return if is_short { Ok(Fate::Replaced) } else { Err(CorrectingError::NotText(tag)) };
        }
        if tag > ORIGINAL_ATTRIBUTES && !self.has_original_attributes {
            self.to.push_header(out, ORIGINAL_ATTRIBUTES, *b"SQ", UNDEFINED);
            self.push_item(out);
            self.to.push_marker(out, SEQUENCE_DELIMITER, 0);
        }
        // Tags come in ascending order. In an object where they do not, no old value may remain.
        let is_old = self.corrected.values.iter().any(|(id, _)| tag_number(id.attribute().tag) == tag);
        Ok(match is_old {
            false => Fate::Stays,
            true if length == 0 || length > MAX_PREVIOUS || self.has_original_attributes => Fate::Goes,
            true => Fate::Replaced,
        })
    }

    /// Begins the element of a previous value.
    pub(super) fn note_previous(&mut self, tag: u32, letters: [u8; 2], length: u32) {
        let mut element = Vec::new();
        self.to.push_header(&mut element, tag, letters, length + length % 2);
        self.previous.insert(tag, element);
        self.noted = tag;
    }

    /// Adds bytes to the previous value that was begun last.
    pub(super) fn push_previous(&mut self, bytes: &[u8]) {
        self.previous.entry(self.noted).or_default().extend_from_slice(bytes);
    }

    /// Learns the value of Specific Character Set. Returns whether it was replaced.
    pub(super) fn character_set(&mut self, value: &str, out: &mut Vec<u8>) -> Fate {
        let is_plain = self.corrected.values.iter().all(|(_, value)| value.is_ascii());
        if is_plain || !value.trim_matches([' ', '\0', '\\']).is_empty() {
            self.sets = Some(CharacterSets::new(value));
            return Fate::Stays;
        }
        self.push_text(SPECIFIC_CHARACTER_SET, *b"CS", UTF_8.as_bytes(), out);
        self.note_previous(SPECIFIC_CHARACTER_SET, *b"CS", 0);
        self.sets = Some(CharacterSets::new(UTF_8));
        Fate::Goes
    }

    fn push_value(&self, id: AttributeId, value: &str, out: &mut Vec<u8>) -> Result<(), CorrectingError> {
        let (tag, vr) = (tag_number(id.attribute().tag), id.attribute().vr);
        let encoded = self.sets.as_ref().and_then(|sets| sets.encode(value, TextForm::of(vr)));
        self.push_text(tag, vr.to_bytes(), &encoded.ok_or(CorrectingError::NotEncodable(tag))?, out);
        Ok(())
    }

    /// Writes a short element with a text.
    fn push_text(&self, tag: u32, letters: [u8; 2], text: &[u8], out: &mut Vec<u8>) {
        let padding = text.len() % 2;
        // A value of these elements has a few hundred bytes.
        self.to.push_header(out, tag, letters, u32::try_from(text.len() + padding).unwrap_or(0));
        out.extend_from_slice(text);
        out.extend(std::iter::repeat_n(vr::padding(letters), padding));
    }

    /// Writes the item with the previous values.
    pub(super) fn push_item(&mut self, out: &mut Vec<u8>) {
        self.has_original_attributes = true;
        let to = self.to;
        to.push_marker(out, ITEM, UNDEFINED);
        to.push_header(out, MODIFIED_ATTRIBUTES, *b"SQ", UNDEFINED);
        to.push_marker(out, ITEM, UNDEFINED);
        self.previous.values().for_each(|element| out.extend_from_slice(element));
        to.push_marker(out, ITEM_DELIMITER, 0);
        to.push_marker(out, SEQUENCE_DELIMITER, 0);
        let moment = moment_text(self.corrected.made_ms).replace(['-', ':', 'T'], "").replace('Z', "+0000");
        self.push_text(MODIFICATION_DATE_TIME, *b"DT", moment.as_bytes(), out);
        self.push_text(MODIFYING_SYSTEM, *b"LO", self.corrected.system.as_bytes(), out);
        self.push_text(SOURCE_OF_PREVIOUS_VALUES, *b"LO", b"", out);
        self.push_text(REASON, *b"CS", b"CORRECT", out);
        to.push_marker(out, ITEM_DELIMITER, 0);
    }
}
