//! Response Identifiers: answers of C-FIND (PS3.4 C.4.1.1.3.2) and items of a worklist become bytes
//! for a peer.
//!
//! The parts that all answers of a query share are built once. Every answer is written into the
//! same buffer, because a busy node writes thousands per second.

use std::borrow::Cow;

use data_encoding::BASE64;
use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;
use serde_json::Value;

use super::Retrievable;
use super::identifier::vr_in_dictionary;
use crate::encoding::charset::{CharacterSets, TextForm};
use crate::encoding::data_set::push_element;
use crate::encoding::syntax::Encoding;
use crate::encoding::tag::{ITEM, parse_tag, tag_number};
use crate::encoding::vr::word_length;
use crate::model::attribute::AttributeId;
use crate::model::availability::ObjectAvailability;
use crate::model::find::{FindAnswer, ItemKey};
use crate::model::matching::{ItemMatching, joined_values, json_key};
use crate::qr::answered::{AnsweredContent, AnsweredElement, AnsweredSequence};
use crate::qr::parse::Query;
use crate::qr::repository::push_file_access;
use crate::qr::stored_items::stored_items;

/// Unicode in UTF-8. It can encode every character.
const UTF_8: &str = "ISO_IR 192";

/// Maximum number of character sets of stored objects that are kept ready. An archive uses a
/// handful.
const KEPT_CHARACTER_SETS: usize = 16;

/// Writes the answers to one query, in the transfer syntax of its presentation context.
#[derive(Debug)]
pub struct ResponseWriter {
    encoding: Encoding,
    /// Sorted by tag.
    fields: Vec<Field>,
    /// Character set of the request, if it is known here.
    requested: Option<NamedSets>,
    /// Values of Specific Character Set of stored objects that answers needed so far, as the
    /// objects have them, and their sets.
    stored: Vec<(String, NamedSets)>,
    out: Vec<u8>,
}

#[derive(Debug)]
struct NamedSets {
    /// The value of Specific Character Set. Empty for the default repertoire.
    terms: String,
    sets: CharacterSets,
}

#[derive(Debug)]
struct Field {
    tag: Tag,
    content: ResponseContent,
}

#[derive(Debug)]
enum ResponseContent {
    /// A whole element that is the same in every answer.
    Constant(Vec<u8>),
    /// Retrieve AE Title as a whole element: one for entities that are ONLINE, one for others. The
    /// return key with the number `availability_at` decides.
    RetrieveAeTitle { availability_at: usize, online: Vec<u8>, other: Vec<u8> },
    /// Record Key of the answer.
    RecordKey,
    /// Place of the file of the answer.
    FileAccess,
    /// The value of the return key with this number.
    Value { at: usize, vr: VR },
    /// Items that the index keeps.
    Sequence(AnsweredSequence),
}

/// Some text has a character that the current character set cannot encode.
struct NotEncodable;

impl ResponseWriter {
    /// Prepares the answers to a query. `retrieve_ae_title` is the value of (0008,0054), and it may
    /// be empty.
    #[must_use]
    pub fn new(query: &Query, encoding: Encoding, retrieve_ae_title: &str) -> Self {
        let element = |tag: Tag, vr: VR, text: &str| {
            let mut element = Vec::new();
            push_element(encoding, &mut element, tag, vr, text.as_bytes());
            element
        };
        let level = element(tags::QUERY_RETRIEVE_LEVEL, VR::CS, query.request.level.as_str());
        let retrieve = AttributeId::RetrieveAETitle.attribute().tag;
        let title = element(retrieve, VR::AE, retrieve_ae_title);
        let mut availability = query.request.return_keys.iter().map(|key| key.attribute);
        let title = match availability.position(|id| id == AttributeId::InstanceAvailability) {
            Some(availability_at) if query.retrievable == Retrievable::KeptHere => ResponseContent::RetrieveAeTitle {
                availability_at,
                online: title,
                other: element(retrieve, VR::AE, ""),
            },
            Some(_) | None => ResponseContent::Constant(title),
        };
        let mut fields = vec![
            Field { tag: tags::QUERY_RETRIEVE_LEVEL, content: ResponseContent::Constant(level) },
            Field { tag: retrieve, content: title },
        ];
        fields.extend(query.answered_elements().into_iter().map(|AnsweredElement { tag, content }| {
            let content = match content {
                AnsweredContent::Creator(creator) => ResponseContent::Constant(element(tag, VR::LO, &creator)),
                AnsweredContent::Value { at, vr } => ResponseContent::Value { at, vr },
                AnsweredContent::Sequence(sequence) => ResponseContent::Sequence(sequence),
            };
            Field { tag, content }
        }));
        if let Some(repository) = query.repository {
            if repository.record_key {
                fields.push(Field { tag: tags::RECORD_KEY, content: ResponseContent::RecordKey });
            }
            if repository.file_access {
                fields.push(Field { tag: tags::FILE_ACCESS_SEQUENCE, content: ResponseContent::FileAccess });
            }
        }
        fields.sort_by_key(|field| field.tag);
        fields.dedup_by_key(|field| field.tag);
        let requested = NamedSets::known(&query.character_set);
        Self { encoding, fields, requested, stored: Vec::new(), out: Vec::new() }
    }

    /// Encodes one answer. The bytes are valid until the next call.
    ///
    /// Specific Character Set is the first one that has every character. The order is none (all is
    /// ASCII), that of the request, that of the stored objects, UTF-8. No character is ever
    /// replaced.
    pub fn write(&mut self, answer: &FindAnswer) -> &[u8] {
        let mut out = std::mem::take(&mut self.out);
        if self.try_write(&mut out, answer, None).is_err() {
            let stored = self.stored_sets(&answer.character_set).and_then(|at| self.stored.get(at));
            let stored = stored.map(|(_, sets)| sets);
            write_in_first_that_fits([self.requested.as_ref(), stored], |sets| {
                self.try_write(&mut out, answer, Some(sets))
            });
        }
        self.out = out;
        &self.out
    }

    /// Returns the number of a stored object's character set among those that are kept ready.
    fn stored_sets(&mut self, value: &str) -> Option<usize> {
        if let Some(at) = self.stored.iter().position(|(kept, _)| kept == value) {
            return Some(at);
        }
        let sets = NamedSets::known(value)?;
        if self.stored.len() >= KEPT_CHARACTER_SETS {
            self.stored.clear();
        }
        self.stored.push((value.to_owned(), sets));
        Some(self.stored.len() - 1)
    }

    fn try_write(&self, out: &mut Vec<u8>, answer: &FindAnswer, sets: Option<&NamedSets>) -> Result<(), NotEncodable> {
        let encoder = Encoder::begin(self.encoding, sets, out);
        for field in &self.fields {
            let value = |at: usize| answer.values.text(at);
            match &field.content {
                ResponseContent::Constant(element) => out.extend(element),
                ResponseContent::RetrieveAeTitle { availability_at, online, other } => {
                    out.extend(if value(*availability_at) == ObjectAvailability::Online.as_str() {
                        online
                    } else {
                        other
                    });
                }
                ResponseContent::RecordKey => {
                    let key = answer.record.as_ref().map(ToString::to_string).unwrap_or_default();
                    push_element(self.encoding, out, field.tag, VR::OB, key.as_bytes());
                }
                ResponseContent::FileAccess => push_file_access(out, self.encoding, answer),
                ResponseContent::Value { at, vr } => encoder.push_text(out, field.tag, *vr, value(*at))?,
                ResponseContent::Sequence(AnsweredSequence { at, wanted, condition }) => {
                    let matching = condition.as_ref().map(|condition| condition.on(answer));
                    encoder.push_sequence(out, field.tag, &stored_items(value(*at)), wanted, matching)?;
                }
            }
        }
        Ok(())
    }
}

/// Writes items of the DICOM JSON Model as whole data sets, in the transfer syntax of a
/// presentation context.
#[derive(Debug)]
pub struct ItemWriter {
    encoding: Encoding,
    wanted: Vec<ItemKey>,
    requested: Option<NamedSets>,
    /// Answers have this set, whatever the request and the item have.
    forced: Option<NamedSets>,
    out: Vec<u8>,
}

impl ItemWriter {
    /// Prepares answers with the `wanted` attributes of each item.
    ///
    /// With a `forced` character set, all answers have it. Characters that it does not have become
    /// question marks then.
    #[must_use]
    pub fn new(encoding: Encoding, wanted: Vec<ItemKey>, requested: &str, forced: Option<&str>) -> Self {
        let (requested, forced) = (NamedSets::known(requested), forced.and_then(NamedSets::known));
        Self { encoding, wanted, requested, forced, out: Vec::new() }
    }

    /// Encodes one item. The bytes are valid until the next call.
    ///
    /// Without a forced character set, Specific Character Set is chosen as for the answers of a
    /// [`ResponseWriter`].
    pub fn write(&mut self, item: &Value, stored: &str) -> &[u8] {
        let mut out = std::mem::take(&mut self.out);
        if self.try_write(&mut out, item, None).is_err() {
            match &self.forced {
                Some(sets) => {
                    let readable = only_characters_of(item, &sets.sets);
                    let _ = self.try_write(&mut out, &readable, Some(sets));
                }
                None => {
                    let stored = NamedSets::known(stored);
                    write_in_first_that_fits([self.requested.as_ref(), stored.as_ref()], |sets| {
                        self.try_write(&mut out, item, Some(sets))
                    });
                }
            }
        }
        self.out = out;
        &self.out
    }

    fn try_write(&self, out: &mut Vec<u8>, item: &Value, sets: Option<&NamedSets>) -> Result<(), NotEncodable> {
        let encoder = Encoder::begin(self.encoding, sets, out);
        encoder.push_item(out, item, &self.wanted, None)
    }
}

/// Replaces characters that these sets cannot encode by question marks. A component group of a name
/// that would be nothing else is left out, if another group is readable.
fn only_characters_of(value: &Value, sets: &CharacterSets) -> Value {
    match value {
        Value::String(text) => {
            let can = |c: char| c.is_ascii() || sets.encode(c.encode_utf8(&mut [0; 4]), TextForm::Text).is_some();
            Value::String(text.chars().map(|c| if can(c) { c } else { '?' }).collect())
        }
        Value::Array(values) => values.iter().map(|value| only_characters_of(value, sets)).collect(),
        Value::Object(members) => {
            let is_name = members.contains_key("Alphabetic");
            let readable = members.iter().map(|(name, value)| (name.clone(), only_characters_of(value, sets)));
            let kept =
                readable.filter(|(name, value)| !is_name || name == "Alphabetic" || members.get(name) == Some(value));
            Value::Object(kept.collect())
        }
        other => other.clone(),
    }
}

impl NamedSets {
    /// Returns the sets that a value of Specific Character Set stands for, under their Defined
    /// Terms (PS3.4 C.4.1.1.3.2). A reader of the answer may know no other spelling.
    ///
    /// `None` without a value, since ASCII is enough then, and if DICOM has no term for the set.
    fn known(value: &str) -> Option<Self> {
        let terms = CharacterSets::defined_terms(value).filter(|_| !value.is_empty())?;
        Some(Self { sets: CharacterSets::new(&terms), terms })
    }
}

/// Writes in the first character set that has every character: one of these, or UTF-8. The order is
/// that of the request, that of the stored objects, UTF-8.
fn write_in_first_that_fits(
    sets: [Option<&NamedSets>; 2],
    mut write: impl FnMut(&NamedSets) -> Result<(), NotEncodable>,
) {
    let utf_8 = NamedSets { terms: UTF_8.to_owned(), sets: CharacterSets::new(UTF_8) };
    // UTF-8 has every character of a Rust string.
    let _ = sets.into_iter().flatten().chain([&utf_8]).any(|sets| write(sets).is_ok());
}

/// Encodes elements in one transfer syntax and one character set.
struct Encoder<'a> {
    encoding: Encoding,
    /// `None` means ASCII only.
    sets: Option<&'a CharacterSets>,
}

impl<'a> Encoder<'a> {
    /// Begins a data set. `out` then holds its Specific Character Set, if it has one.
    fn begin(encoding: Encoding, sets: Option<&'a NamedSets>, out: &mut Vec<u8>) -> Self {
        out.clear();
        if let Some(sets) = sets.filter(|sets| !sets.terms.is_empty()) {
            push_element(encoding, out, tags::SPECIFIC_CHARACTER_SET, VR::CS, sets.terms.as_bytes());
        }
        Self { encoding, sets: sets.map(|sets| &sets.sets) }
    }

    /// Appends an element with a value in the form of [`crate::model::record::InstanceRecord`].
    fn push_text(&self, out: &mut Vec<u8>, tag: Tag, vr: VR, text: &str) -> Result<(), NotEncodable> {
        let bytes = match vr {
            VR::US => self.numbers(text, |text| text.parse().ok().map(u16::to_le_bytes)),
            VR::SS => self.numbers(text, |text| text.parse().ok().map(i16::to_le_bytes)),
            VR::UL => self.numbers(text, |text| text.parse().ok().map(u32::to_le_bytes)),
            VR::SL => self.numbers(text, |text| text.parse().ok().map(i32::to_le_bytes)),
            VR::UV => self.numbers(text, |text| text.parse().ok().map(u64::to_le_bytes)),
            VR::SV => self.numbers(text, |text| text.parse().ok().map(i64::to_le_bytes)),
            VR::FL => self.numbers(text, |text| text.parse().ok().map(f32::to_le_bytes)),
            VR::FD => self.numbers(text, |text| text.parse().ok().map(f64::to_le_bytes)),
            VR::AT => self.tags(text),
            _ if text.is_ascii() => Cow::Borrowed(text.as_bytes()),
            _ => {
                let encoded = self.sets.and_then(|sets| sets.encode(text, TextForm::of(vr)));
                Cow::Owned(encoded.ok_or(NotEncodable)?)
            }
        };
        push_element(self.encoding, out, tag, vr, &bytes);
        Ok(())
    }

    /// Encodes binary numbers. The result is empty if the text is not a number.
    fn numbers<const N: usize>(&self, text: &str, parse: impl Fn(&str) -> Option<[u8; N]>) -> Cow<'static, [u8]> {
        let numbers: Option<Vec<[u8; N]>> = text.split('\\').map(|number| parse(number.trim())).collect();
        let mut bytes = numbers.unwrap_or_default();
        if self.encoding.is_big() {
            bytes.iter_mut().for_each(|number| number.reverse());
        }
        Cow::Owned(bytes.concat())
    }

    fn tags(&self, text: &str) -> Cow<'static, [u8]> {
        let mut bytes = Vec::new();
        for tag in text.split('\\') {
            match parse_tag(tag.trim()) {
                Some(tag) => self.encoding.push_tag(&mut bytes, tag_number(tag)),
                None => return Cow::Owned(Vec::new()),
            }
        }
        Cow::Owned(bytes)
    }

    /// Appends the items (of the DICOM JSON Model, PS3.18 F.2) that match.
    ///
    /// Each item has the elements that the request asks for. If the request names none, it has all
    /// elements (PS3.4 C.2.2.2.6).
    fn push_sequence(
        &self,
        out: &mut Vec<u8>,
        tag: Tag,
        items: &[Value],
        wanted: &[ItemKey],
        matching: Option<ItemMatching<'_>>,
    ) -> Result<(), NotEncodable> {
        self.encoding.push_tag(out, tag_number(tag));
        if self.encoding.is_explicit() {
            out.extend(b"SQ\0\0");
        }
        let sequence_start = self.push_open_length(out);
        for item in items {
            if matching.is_some_and(|matching| !matching.matches(item)) {
                continue;
            }
            self.encoding.push_tag(out, ITEM);
            let item_start = self.push_open_length(out);
            self.push_item(out, item, wanted, matching)?;
            self.close_length(out, item_start);
        }
        self.close_length(out, sequence_start);
        Ok(())
    }

    fn push_item(
        &self,
        out: &mut Vec<u8>,
        item: &Value,
        wanted: &[ItemKey],
        matching: Option<ItemMatching<'_>>,
    ) -> Result<(), NotEncodable> {
        let Some(members) = item.as_object() else { return Ok(()) };
        let mut elements: Vec<(Tag, Option<&Value>, &[ItemKey])> = if wanted.is_empty() {
            members.iter().filter_map(|(key, element)| Some((parse_tag(key)?, Some(element), [].as_slice()))).collect()
        } else {
            wanted.iter().map(|key| (key.tag, members.get(&json_key(key.tag)), key.items.as_slice())).collect()
        };
        // The item now has the character set of the answer.
        elements.retain(|(tag, ..)| *tag != tags::SPECIFIC_CHARACTER_SET && tag.element() != 0);
        elements.sort_by_key(|(tag, ..)| *tag);
        for (tag, element, wanted) in elements {
            self.push_member(out, tag, element, wanted, matching.and_then(|matching| matching.nested(tag)))?;
        }
        Ok(())
    }

    fn push_member(
        &self,
        out: &mut Vec<u8>,
        tag: Tag,
        element: Option<&Value>,
        wanted: &[ItemKey],
        matching: Option<ItemMatching<'_>>,
    ) -> Result<(), NotEncodable> {
        let member = |name: &str| element.and_then(|element| element.get(name));
        let vr = member("vr").and_then(Value::as_str).and_then(|vr| vr.parse().ok());
        let vr = vr.unwrap_or_else(|| vr_in_dictionary(tag));
        let values = member("Value").and_then(Value::as_array).map_or([].as_slice(), Vec::as_slice);
        if vr == VR::SQ {
            return self.push_sequence(out, tag, values, wanted, matching);
        }
        if let Some(binary) = member("InlineBinary").and_then(Value::as_str) {
            // The index writes this text itself. If it is damaged, the element has no value.
            let bytes = BASE64.decode(binary.as_bytes()).unwrap_or_default();
            push_element(self.encoding, out, tag, vr, &self.swapped(vr, bytes));
            return Ok(());
        }
        self.push_text(out, tag, vr, &joined_values(values))
    }

    /// Converts binary values to the byte order of the answer. In the DICOM JSON Model they are
    /// little endian (PS3.18 F.2.7).
    fn swapped(&self, vr: VR, mut bytes: Vec<u8>) -> Vec<u8> {
        let unit = word_length(vr.to_bytes());
        if self.encoding.is_big() {
            bytes.chunks_exact_mut(unit).for_each(<[u8]>::reverse);
        }
        bytes
    }

    fn push_open_length(&self, out: &mut Vec<u8>) -> usize {
        out.extend([0; 4]);
        out.len()
    }

    fn close_length(&self, out: &mut [u8], start: usize) {
        let length = self.encoding.u32_bytes(length_of(out.len() - start));
        if let Some(place) = start.checked_sub(4).and_then(|at| out.get_mut(at..start)) {
            place.copy_from_slice(&length);
        }
    }
}

/// Converts a length. Values come from the index, and the limits of reading keep them far below 4
/// GiB. A length that is too large stays a length: the next number means that it is undefined.
fn length_of(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX - 1)
}
