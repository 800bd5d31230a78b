//! Decodes the Identifier of a request: the bytes of a peer become keys (PS3.4 C.4.1.1.3, PS3.5
//! chapter 7).

use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry};
use dicom_core::{Tag, VR};
use dicom_dictionary_std::StandardDataDictionary;
use dicom_dictionary_std::tags;

use crate::encoding::charset::{CharacterSets, TextForm};
use crate::encoding::header::HeaderError;
use crate::encoding::padding::without_trailing_padding;
use crate::encoding::syntax::Encoding;
use crate::encoding::tag::{self, UNDEFINED, tag_of};
use crate::encoding::vr;
use crate::model::declared::{DeclaredSet, creator_tag, is_private_creator};
use crate::model::matching::{KeyElement, KeyValue};
use crate::model::value;

/// Maximum length of an Identifier in bytes. A list of 20,000 UIDs takes 1.3 MB, and more values
/// are not accepted.
pub const MAX_IDENTIFIER_LENGTH: usize = 3 * 1024 * 1024 / 2;

/// Maximum nesting depth of sequences. PS3.4 defines no key deeper than three.
pub const MAX_IDENTIFIER_DEPTH: usize = 16;

/// Maximum number of elements in an Identifier. Elements inside sequences count, and so do the
/// items.
///
/// Clients send up to about a hundred. A peer can send an element in eight bytes, but it takes many
/// times that memory.
pub const MAX_IDENTIFIER_ELEMENTS: usize = 10_000;

/// Maximum number of values of all elements of an Identifier. Each becomes a condition of some
/// hundred bytes, which is tested on every row that a search examines.
pub const MAX_IDENTIFIER_VALUES: usize = 20_000;

/// The data set of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identifier {
    /// Elements as sent, without group lengths.
    pub elements: Vec<KeyElement>,
    /// Specific Character Set (0008,0005). It is empty for the default repertoire.
    pub character_set: String,
}

/// Reason why the bytes are not a valid Identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentifierError {
    /// It has more than [`MAX_IDENTIFIER_LENGTH`] bytes.
    #[error("the identifier is longer than {MAX_IDENTIFIER_LENGTH} bytes")]
    TooLong,
    /// It has more than [`MAX_IDENTIFIER_ELEMENTS`] elements.
    #[error("the identifier has more than {MAX_IDENTIFIER_ELEMENTS} elements")]
    TooManyElements,
    /// It has more than [`MAX_IDENTIFIER_VALUES`] values.
    #[error("the identifier has more than {MAX_IDENTIFIER_VALUES} values")]
    TooManyValues,
    /// Its sequences are nested deeper than [`MAX_IDENTIFIER_DEPTH`].
    #[error("sequences are nested deeper than {MAX_IDENTIFIER_DEPTH}")]
    TooDeep,
    /// An element extends past the end of its data set, item or sequence.
    #[error("element {0} is cut off")]
    CutOff(Tag),
    /// The last bytes are too few for an element.
    #[error("the identifier is cut off")]
    Incomplete,
    /// The two bytes after a tag are not a VR.
    #[error("element {0} has no valid VR")]
    InvalidVr(Tag),
    /// A sequence contains something other than an item, or a delimiter has nothing to end.
    #[error("{0} is not allowed at this position")]
    Misplaced(Tag),
}

impl Identifier {
    /// Decodes the bytes of a data set.
    ///
    /// Text is decoded by its Specific Character Set. If the request has none,
    /// `assumed_character_set` applies, and empty means the default repertoire. Bytes that the set
    /// cannot decode are read as UTF-8 or Latin-1.
    ///
    /// # Errors
    /// Fails if the bytes do not follow the encoding, or if they exceed a limit.
    pub fn decode(bytes: &[u8], encoding: Encoding, assumed_character_set: &str) -> Result<Self, IdentifierError> {
        Self::decode_with(bytes, encoding, assumed_character_set, DeclaredSet::none())
    }

    /// Works as [`Self::decode`]. A private element without a VR of its own gets the VR of its
    /// declaration, if it has one.
    ///
    /// # Errors
    /// Fails as [`Self::decode`] does.
    pub fn decode_with(
        bytes: &[u8],
        encoding: Encoding,
        assumed_character_set: &str,
        declared: &DeclaredSet,
    ) -> Result<Self, IdentifierError> {
        let limits = (MAX_IDENTIFIER_ELEMENTS, MAX_IDENTIFIER_VALUES);
        Self::decode_within(bytes, encoding, assumed_character_set, declared, limits)
    }

    /// Works as [`Self::decode`], for requests other than queries. They may have `max_elements`
    /// elements and as many values.
    ///
    /// # Errors
    /// Fails as [`Self::decode`] does.
    pub fn decode_up_to(
        bytes: &[u8],
        encoding: Encoding,
        assumed_character_set: &str,
        max_elements: usize,
    ) -> Result<Self, IdentifierError> {
        Self::decode_within(bytes, encoding, assumed_character_set, DeclaredSet::none(), (max_elements, max_elements))
    }

    fn decode_within(
        bytes: &[u8],
        encoding: Encoding,
        assumed_character_set: &str,
        declared: &DeclaredSet,
        (elements_left, values_left): (usize, usize),
    ) -> Result<Self, IdentifierError> {
        if bytes.len() > MAX_IDENTIFIER_LENGTH {
            return Err(IdentifierError::TooLong);
        }
        let mut reader = IdentifierReader { bytes, at: 0, elements_left, values_left, declared, creators: Vec::new() };
        let raw = reader.data_set(encoding, Some(bytes.len()), 0)?;
        let character_set = character_set(&raw).unwrap_or_default();
        let assumed = if character_set.is_empty() { assumed_character_set } else { &character_set };
        let sets = CharacterSets::new(assumed);
        Ok(Self { elements: decode_elements(raw, &sets), character_set })
    }

    /// Returns the text of an element. `None` if it is absent or a sequence.
    #[must_use]
    pub fn text(&self, tag: Tag) -> Option<&str> {
        self.elements.iter().find(|element| element.tag == tag).and_then(|element| match &element.value {
            KeyValue::Text(text) => Some(text.as_str()),
            KeyValue::Items(_) => None,
        })
    }
}

/// An element with its undecoded value.
struct RawElement<'a> {
    tag: Tag,
    vr: VR,
    value: IdentifierValue<'a>,
}

enum IdentifierValue<'a> {
    Bytes(&'a [u8], Encoding),
    Items(Vec<Vec<RawElement<'a>>>),
}

const ITEM: Tag = tag_of(tag::ITEM);
const ITEM_DELIMITER: Tag = tag_of(tag::ITEM_DELIMITER);
const SEQUENCE_DELIMITER: Tag = tag_of(tag::SEQUENCE_DELIMITER);
const DELIMITER_GROUP: u16 = tag::DELIMITER_GROUP as u16;

/// Reads by recursion. [`MAX_IDENTIFIER_DEPTH`] bounds it.
struct IdentifierReader<'a> {
    bytes: &'a [u8],
    at: usize,
    elements_left: usize,
    values_left: usize,
    declared: &'a DeclaredSet,
    /// Private creators of the root, with the tag of the block that each reserves.
    creators: Vec<(Tag, &'a [u8])>,
}

/// The header of an element or marker.
struct IdentifierHeader {
    tag: Tag,
    /// `None` for an item, a delimiter, and an element in implicit VR.
    vr: Option<VR>,
    length: u32,
}

impl<'a> IdentifierReader<'a> {
    /// Reads the elements up to `end`. Without an end, it reads up to an item delimiter.
    fn data_set(
        &mut self,
        encoding: Encoding,
        end: Option<usize>,
        depth: usize,
    ) -> Result<Vec<RawElement<'a>>, IdentifierError> {
        let mut elements = Vec::new();
        loop {
            if end.is_some_and(|end| self.at >= end) {
                return Ok(elements);
            }
            let header = self.header(encoding, end)?;
            match header.tag {
                ITEM_DELIMITER if end.is_none() => return Ok(elements),
                Tag(DELIMITER_GROUP, _) => return Err(IdentifierError::Misplaced(header.tag)),
                _ => {}
            }
            self.count()?;
            let element = self.element(encoding, &header, end, depth)?;
            if depth == 0
                && is_private_creator(header.tag)
                && let IdentifierValue::Bytes(bytes, _) = &element.value
            {
                self.creators.push((header.tag, bytes));
            }
            // Group lengths carry no information (PS3.5 7.2).
            if header.tag.element() != 0 {
                elements.push(element);
            }
        }
    }

    fn element(
        &mut self,
        encoding: Encoding,
        header: &IdentifierHeader,
        end: Option<usize>,
        depth: usize,
    ) -> Result<RawElement<'a>, IdentifierError> {
        let tag = header.tag;
        let in_dictionary = if depth == 0 { self.vr_of_root(tag) } else { vr_in_dictionary(tag) };
        // UN does not tell the real VR (PS3.5 6.2.2).
        let vr = match header.vr {
            Some(VR::UN) | None => in_dictionary,
            Some(vr) => vr,
        };
        let undefined = header.length == UNDEFINED;
        // PS3.5 6.2.2, note 5: UN of undefined length is a sequence in Implicit VR Little Endian. A
        // sequence in UN of defined length has the same encoding.
        let within = if header.vr == Some(VR::UN) { Encoding::ImplicitLittle } else { encoding };
        if undefined || vr == VR::SQ {
            let end = if undefined { None } else { Some(self.end_of(tag, header.length, end)?) };
            return Ok(RawElement {
                tag,
                vr: VR::SQ,
                value: IdentifierValue::Items(self.items(within, end, depth + 1)?),
            });
        }
        let after = self.end_of(tag, header.length, end)?;
        let bytes = self.bytes.get(self.at..after).ok_or(IdentifierError::CutOff(tag))?;
        self.at = after;
        if !matches!(TextForm::of(vr), TextForm::Text) {
            // Bytes of two-byte characters can look like backslashes. This overestimates the count,
            // which does no harm.
            let values = 1 + bytes.iter().filter(|byte| **byte == b'\\').count();
            self.values_left = self.values_left.checked_sub(values).ok_or(IdentifierError::TooManyValues)?;
        }
        Ok(RawElement { tag, vr, value: IdentifierValue::Bytes(bytes, within) })
    }

    /// Returns the VR of a root element that has no VR of its own.
    fn vr_of_root(&self, tag: Tag) -> VR {
        let creator = creator_tag(tag).and_then(|tag| self.creators.iter().find(|(known, _)| *known == tag));
        // A private element without a private creator cannot be a declared one.
        let unit = creator.and_then(|(_, creator)| self.declared.unit(tag, std::str::from_utf8(creator).ok()));
        unit.map_or_else(|| vr_in_dictionary(tag), |unit| unit.vr)
    }

    /// Reads the items up to `end`. Without an end, it reads up to a sequence delimiter.
    fn items(
        &mut self,
        encoding: Encoding,
        end: Option<usize>,
        depth: usize,
    ) -> Result<Vec<Vec<RawElement<'a>>>, IdentifierError> {
        if depth > MAX_IDENTIFIER_DEPTH {
            return Err(IdentifierError::TooDeep);
        }
        let mut items = Vec::new();
        loop {
            if end.is_some_and(|end| self.at >= end) {
                return Ok(items);
            }
            let header = self.header(encoding, end)?;
            match header.tag {
                ITEM => {}
                SEQUENCE_DELIMITER if end.is_none() => return Ok(items),
                other => return Err(IdentifierError::Misplaced(other)),
            }
            self.count()?;
            let end = match header.length {
                UNDEFINED => None,
                length => Some(self.end_of(ITEM, length, end)?),
            };
            items.push(self.data_set(encoding, end, depth)?);
        }
    }

    fn header(&mut self, encoding: Encoding, end: Option<usize>) -> Result<IdentifierHeader, IdentifierError> {
        let limit = end.unwrap_or(self.bytes.len());
        let rest = self.bytes.get(self.at..limit).unwrap_or_default();
        let header = encoding.header(rest).map_err(|error| match error {
            HeaderError::Incomplete => IdentifierError::Incomplete,
            HeaderError::BadVr(tag) => IdentifierError::InvalidVr(tag_of(tag)),
        })?;
        self.at += header.size;
        let vr = if header.explicit { vr::of(header.vr) } else { None };
        Ok(IdentifierHeader { tag: tag_of(header.tag), vr, length: header.length })
    }

    /// Returns the end of a value of this length. The end must lie within the enclosing data set,
    /// item or sequence.
    fn end_of(&self, tag: Tag, length: u32, end: Option<usize>) -> Result<usize, IdentifierError> {
        let limit = end.unwrap_or(self.bytes.len());
        usize::try_from(length)
            .ok()
            .and_then(|length| self.at.checked_add(length))
            .filter(|after| *after <= limit)
            .ok_or(IdentifierError::CutOff(tag))
    }

    fn count(&mut self) -> Result<(), IdentifierError> {
        self.elements_left = self.elements_left.checked_sub(1).ok_or(IdentifierError::TooManyElements)?;
        Ok(())
    }
}

/// Returns the VR of a tag in the dictionary. An unknown tag gives UN.
pub(super) fn vr_in_dictionary(tag: Tag) -> VR {
    StandardDataDictionary.by_tag(tag).map_or(VR::UN, |entry| entry.vr().relaxed())
}

/// Returns Specific Character Set, if it is among the elements.
fn character_set(elements: &[RawElement<'_>]) -> Option<String> {
    elements.iter().find(|element| element.tag == tags::SPECIFIC_CHARACTER_SET).map(|element| match &element.value {
        IdentifierValue::Bytes(bytes, _) => without_trailing_padding(&String::from_utf8_lossy(bytes)).to_owned(),
        IdentifierValue::Items(_) => String::new(),
    })
}

fn decode_elements(raw: Vec<RawElement<'_>>, sets: &CharacterSets) -> Vec<KeyElement> {
    raw.into_iter()
        .map(|element| KeyElement {
            tag: element.tag,
            vr: element.vr,
            value: match element.value {
                IdentifierValue::Items(items) => {
                    KeyValue::Items(items.into_iter().map(|item| decode_item(item, sets)).collect())
                }
                IdentifierValue::Bytes(bytes, encoding) => {
                    let mut text = String::new();
                    value::push_text(&mut text, element.vr, encoding.is_big(), bytes, sets);
                    if text.is_empty()
                        && !bytes.is_empty()
                        && (vr::is_binary_number(element.vr) || element.vr == VR::AT)
                    {
                        // The value has too few bytes for a number. An empty key would match
                        // everything, so this becomes a value that no number is equal to.
                        text.push('?');
                    }
                    KeyValue::Text(text)
                }
            },
        })
        .collect()
}

fn decode_item(item: Vec<RawElement<'_>>, inherited: &CharacterSets) -> Vec<KeyElement> {
    // An item may have its own character set. Everything inside the item inherits it (PS3.3
    // C.12.1.1.2).
    let own = character_set(&item).filter(|terms| !terms.is_empty()).map(|terms| CharacterSets::new(&terms));
    decode_elements(item, own.as_ref().unwrap_or(inherited))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::encoding::vr::has_long_length;

    /// Encodes one element with correct padding.
    fn element(encoding: Encoding, tag: Tag, vr: VR, value: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        encoding.push_tag(&mut out, tag::tag_number(tag));
        if encoding.is_explicit() {
            out.extend(vr.to_string().as_bytes());
            if has_long_length(vr) {
                out.extend([0, 0]);
                out.extend(encoding.u32_bytes(value.len() as u32));
            } else {
                encoding.push_u16(&mut out, value.len() as u16);
            }
        } else {
            out.extend(encoding.u32_bytes(value.len() as u32));
        }
        out.extend(value);
        out
    }

    fn marker(encoding: Encoding, tag: Tag, length: u32) -> Vec<u8> {
        let mut out = Vec::new();
        encoding.push_tag(&mut out, tag::tag_number(tag));
        out.extend(encoding.u32_bytes(length));
        out
    }

    fn text(tag: Tag, vr: VR, text: &str) -> KeyElement {
        KeyElement { tag, vr, value: KeyValue::Text(text.into()) }
    }

    const NAME: Tag = tags::PATIENT_NAME;
    const CODES: Tag = tags::PROCEDURE_CODE_SEQUENCE;
    const CODE: Tag = tags::CODE_VALUE;

    #[test]
    fn the_three_encodings_say_the_same() {
        for encoding in Encoding::ALL {
            let rows: &[u8] = if encoding.is_big() { &[2, 0] } else { &[0, 2] };
            let bytes = [
                element(encoding, Tag(0x0008, 0x0000), VR::UL, &[1, 0, 0, 0]),
                element(encoding, Tag(0x0008, 0x0005), VR::CS, b"ISO_IR 100"),
                element(encoding, Tag(0x0008, 0x0052), VR::CS, b"STUDY "),
                element(encoding, NAME, VR::PN, b"M\xFCller^* "),
                element(encoding, Tag(0x0020, 0x000D), VR::UI, b"1.2\\1.3\0"),
                element(encoding, Tag(0x0028, 0x0010), VR::US, rows),
            ]
            .concat();
            let identifier = Identifier::decode(&bytes, encoding, "").unwrap();
            assert_eq!(identifier.character_set, "ISO_IR 100");
            let expected = [
                text(Tag(0x0008, 0x0005), VR::CS, "ISO_IR 100"),
                text(Tag(0x0008, 0x0052), VR::CS, "STUDY"),
                text(NAME, VR::PN, "Müller^*"),
                text(Tag(0x0020, 0x000D), VR::UI, "1.2\\1.3"),
                text(Tag(0x0028, 0x0010), VR::US, "512"),
            ];
            assert!(identifier.elements == expected, "{encoding:?} {identifier:?}");
        }
    }

    #[test]
    fn sequences_may_have_lengths_or_delimiters() {
        for encoding in Encoding::ALL {
            let code = element(encoding, CODE, VR::SH, b"A ");
            let defined =
                element(encoding, CODES, VR::SQ, &[marker(encoding, ITEM, code.len() as u32), code.clone()].concat());
            let mut header = element(encoding, CODES, VR::SQ, &[]);
            let length_at = header.len() - 4;
            header.splice(length_at.., [0xFF; 4]);
            let undefined = [
                header,
                marker(encoding, ITEM, UNDEFINED),
                code.clone(),
                marker(encoding, ITEM_DELIMITER, 0),
                marker(encoding, SEQUENCE_DELIMITER, 0),
            ]
            .concat();
            let after = element(encoding, NAME, VR::PN, b"X ");
            let expected = [
                KeyElement { tag: CODES, vr: VR::SQ, value: KeyValue::Items(vec![vec![text(CODE, VR::SH, "A")]]) },
                text(NAME, VR::PN, "X"),
            ];
            for sequence in [defined, undefined] {
                let identifier = Identifier::decode(&[sequence, after.clone()].concat(), encoding, "").unwrap();
                assert!(identifier.elements == expected, "{identifier:?}");
            }
        }
    }

    // PS3.3 C.12.1.1.2.
    #[test]
    fn an_item_may_have_its_own_character_set() {
        let encoding = Encoding::ImplicitLittle;
        let meaning = |bytes: &[u8]| element(encoding, Tag(0x0008, 0x0104), VR::LO, bytes);
        let item = [element(encoding, tags::SPECIFIC_CHARACTER_SET, VR::CS, b"ISO_IR 144"), meaning(b"\xBB ")].concat();
        let bytes = [
            element(encoding, tags::SPECIFIC_CHARACTER_SET, VR::CS, b"ISO_IR 100"),
            element(encoding, CODES, VR::SQ, &[marker(encoding, ITEM, item.len() as u32), item].concat()),
            element(encoding, NAME, VR::PN, b"\xE9 "),
        ]
        .concat();
        let identifier = Identifier::decode(&bytes, encoding, "").unwrap();
        assert_eq!(identifier.text(NAME), Some("é"));
        let KeyValue::Items(items) = &identifier.elements[1].value else { panic!("no items") };
        assert!(items[0][1] == text(Tag(0x0008, 0x0104), VR::LO, "Л"));
    }

    // PS3.5 6.2.2.
    #[test]
    fn unknown_tells_nothing() {
        let encoding = Encoding::ExplicitBig;
        let inner = element(Encoding::ImplicitLittle, CODE, VR::SH, b"A ");
        let bytes = [
            element(encoding, NAME, VR::UN, b"X "),
            element(
                encoding,
                CODES,
                VR::UN,
                &[marker(Encoding::ImplicitLittle, ITEM, inner.len() as u32), inner].concat(),
            ),
        ]
        .concat();
        let identifier = Identifier::decode(&bytes, encoding, "").unwrap();
        assert!(identifier.elements[0] == text(NAME, VR::PN, "X"));
        assert!(identifier.elements[1].value == KeyValue::Items(vec![vec![text(CODE, VR::SH, "A")]]));
    }

    #[test]
    fn a_request_without_a_character_set_gets_the_assumed_one() {
        let bytes = element(Encoding::ImplicitLittle, NAME, VR::PN, b"\xBB ");
        let name = |assumed| {
            Identifier::decode(&bytes, Encoding::ImplicitLittle, assumed).unwrap().text(NAME).map(str::to_owned)
        };
        assert_eq!(name("ISO_IR 144").as_deref(), Some("Л"));
        assert_eq!(name("").as_deref(), Some("»"), "read as Latin-1 for want of better knowledge");
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        let encoding = Encoding::ImplicitLittle;
        let refused = |bytes: &[u8]| Identifier::decode(bytes, encoding, "").unwrap_err();
        let mut long = element(encoding, NAME, VR::PN, b"AB");
        long[4] = 3;
        assert_eq!(refused(&long), IdentifierError::CutOff(NAME));
        long[4..8].copy_from_slice(&0xFFFF_FFFE_u32.to_le_bytes());
        assert_eq!(refused(&long), IdentifierError::CutOff(NAME));
        assert_eq!(refused(&[0x10, 0, 0x10]), IdentifierError::Incomplete);
        let item_too_long = element(encoding, CODES, VR::SQ, &marker(encoding, ITEM, 8));
        assert_eq!(refused(&item_too_long), IdentifierError::CutOff(ITEM));
        let no_item = element(encoding, CODES, VR::SQ, &element(encoding, NAME, VR::PN, b""));
        assert_eq!(refused(&no_item), IdentifierError::Misplaced(NAME));
        assert_eq!(refused(&marker(encoding, ITEM_DELIMITER, 0)), IdentifierError::Misplaced(ITEM_DELIMITER));
        assert_eq!(
            Identifier::decode(&[0x10, 0, 0x10, 0, b'?', b'?', 0, 0], Encoding::ExplicitLittle, "").unwrap_err(),
            IdentifierError::InvalidVr(NAME)
        );
    }

    #[test]
    fn nesting_and_numbers_are_limited() {
        let encoding = Encoding::ImplicitLittle;
        let nested = |depth: usize| {
            let mut bytes = Vec::new();
            for _ in 0..depth {
                bytes.extend(marker(encoding, CODES, UNDEFINED));
                bytes.extend(marker(encoding, ITEM, UNDEFINED));
            }
            for _ in 0..depth {
                bytes.extend(marker(encoding, ITEM_DELIMITER, 0));
                bytes.extend(marker(encoding, SEQUENCE_DELIMITER, 0));
            }
            Identifier::decode(&bytes, encoding, "").err()
        };
        assert_eq!(nested(MAX_IDENTIFIER_DEPTH), None);
        assert_eq!(nested(MAX_IDENTIFIER_DEPTH + 1), Some(IdentifierError::TooDeep));
        assert_eq!(nested(30_000), Some(IdentifierError::TooDeep));
        let many = element(encoding, NAME, VR::PN, b"").repeat(MAX_IDENTIFIER_ELEMENTS + 1);
        assert_eq!(Identifier::decode(&many, encoding, "").err(), Some(IdentifierError::TooManyElements));
        let uids = |number: usize| element(encoding, Tag(0x0020, 0x000D), VR::UI, &b"1.2\\".repeat(number)[1..]);
        assert!(Identifier::decode(&uids(MAX_IDENTIFIER_VALUES - 1), encoding, "").is_ok());
        let error = Identifier::decode(&uids(MAX_IDENTIFIER_VALUES), encoding, "").err();
        assert_eq!(error, Some(IdentifierError::TooManyValues));
        let items = element(encoding, CODES, VR::SQ, &marker(encoding, ITEM, 0).repeat(MAX_IDENTIFIER_ELEMENTS));
        assert_eq!(Identifier::decode(&items, encoding, "").err(), Some(IdentifierError::TooManyElements));
        let long = vec![0; MAX_IDENTIFIER_LENGTH + 1];
        assert_eq!(Identifier::decode(&long, encoding, "").err(), Some(IdentifierError::TooLong));
    }

    proptest! {
        #[test]
        fn each_element_that_is_read_has_a_header(bytes in proptest::collection::vec(any::<u8>(), 0..200), which in 0..3_usize) {
            if let Ok(read) = Identifier::decode(&bytes, Encoding::ALL[which], "") {
                prop_assert!(read.elements.len() * 8 <= bytes.len());
            }
        }

        #[test]
        fn a_changed_identifier_has_no_more_elements_than_headers(at in 0..100_usize, value: u8, cut in 0..100_usize, which in 0..3_usize) {
            let encoding = Encoding::ALL[which];
            let code = element(encoding, CODE, VR::SH, b"A ");
            let mut bytes = [
                element(encoding, tags::SPECIFIC_CHARACTER_SET, VR::CS, b"\\ISO 2022 IR 87"),
                element(encoding, CODES, VR::SQ, &[marker(encoding, ITEM, code.len() as u32), code].concat()),
                element(encoding, NAME, VR::PN, b"\x1B$B;3ED\x1B(B "),
            ]
            .concat();
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
            bytes.truncate(cut);
            if let Ok(read) = Identifier::decode(&bytes, encoding, "") {
                prop_assert!(read.elements.len() * 8 <= bytes.len());
            }
        }
    }
}
