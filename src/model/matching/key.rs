//! Keys of an Identifier, and the rules that decide how their values are compared.

use std::fmt;

use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry};
use dicom_core::{Tag, VR};
use dicom_dictionary_std::StandardDataDictionary;
use dicom_dictionary_std::tags;

use super::narrowing::NameMatching;
use crate::encoding::multiplicity::has_one_value;
use crate::encoding::padding::{without_padding, without_trailing_padding};
use crate::encoding::vr::is_binary;
use crate::model::attribute::{Attribute, LetterCase, Multiplicity};

/// Maximum length of one value of a key, in bytes. The index keeps no longer value of an object. A
/// compiled pattern takes many times its own length in memory.
pub const MAX_KEY_VALUE_LENGTH: usize = 64 * 1024;

/// Properties of an attribute that decide how its values are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// Value representation.
    pub vr: VR,
    /// Whether a backslash in a stored value separates values.
    pub multiplicity: Multiplicity,
    /// Whether case, accents and width matter. Person names are always folded (PS3.4 C.2.2.2.1).
    pub letter_case: LetterCase,
}

/// Rules of matching that depend on negotiation and configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct MatchPolicy {
    /// Meaning of several values in a key. It does not apply to UIDs.
    pub several_values: SeveralValues,
    /// Meaning of a key that is two quotation marks.
    pub quotation_marks: QuotationMarks,
    /// Comparison of names without wild cards.
    pub names: NameMatching,
    /// Whether an entity without a value for a required key matches.
    pub unknown_required: UnknownRequired,
}

/// Meaning of several values in a key. Several UIDs are always a list (PS3.4 C.2.2.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SeveralValues {
    /// The stored value must match any of them. The Standard does not define this, but clients
    /// expect it.
    #[default]
    AnyOf,
    /// The stored value must have all of them, for the VRs of PS3.4 C.2.2.2.8. This is multiple
    /// value matching, which is negotiated.
    AllOf,
}

/// Meaning of a key that is two quotation marks (`""`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum QuotationMarks {
    /// The two characters themselves.
    #[default]
    Literal,
    /// The absence of a value. This is empty value matching, which is negotiated (PS3.4 C.2.2.2.7).
    EmptyValue,
}

/// Whether an entity without a value for a required key matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum UnknownRequired {
    /// It does not match. PS3.4 C.2.2.1.2 requires the opposite, but then a search by accession
    /// number finds every study without one. No deployed node does that.
    #[default]
    NoMatch,
    /// It matches (PS3.4 C.2.2.1.2).
    Match,
}

/// Value of a key in an Identifier.
#[derive(Clone, PartialEq, Eq)]
pub enum KeyValue {
    /// Values of an attribute that is not a sequence, in the form of
    /// [`InstanceRecord`](crate::model::record::InstanceRecord).
    Text(String),
    /// Items of a sequence.
    Items(Vec<Vec<KeyElement>>),
}

impl KeyValue {
    /// Whether there is a text, in the value itself or in an item at any depth.
    #[must_use]
    pub fn has_text(&self) -> bool {
        match self {
            Self::Text(text) => !text.is_empty(),
            Self::Items(items) => items.iter().flatten().any(|element| element.value.has_text()),
        }
    }
}

/// One element of an Identifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyElement {
    /// Tag.
    pub tag: Tag,
    /// Value representation.
    pub vr: VR,
    /// Value.
    pub value: KeyValue,
}

/// Reason why the value of a key cannot be matched. The message never contains the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MatchingError {
    /// The text is a range, but one end is not a value of the VR.
    #[error("not a range of {}", .0.to_string())]
    InvalidRange(VR),
    /// The key has more than one item, and PS3.4 C.2.2.2.6 allows only one.
    #[error("the sequence key has more than one item")]
    SeveralItems,
    /// The key is a sequence but the attribute is not, or the reverse.
    #[error("the value is not a value of {}", .0.to_string())]
    WrongKind(VR),
    /// The value is longer than [`MAX_KEY_VALUE_LENGTH`].
    #[error("the value is longer than {MAX_KEY_VALUE_LENGTH} bytes")]
    TooLong,
    /// The Standard defines no matching for this VR.
    #[error("the Standard defines no matching for {}", .0.to_string())]
    NotMatched(VR),
}

impl From<&Attribute> for Comparison {
    fn from(attribute: &Attribute) -> Self {
        Self { vr: attribute.vr, multiplicity: attribute.multiplicity, letter_case: attribute.letter_case }
    }
}

/// Shows the kind of value, not the value.
impl fmt::Debug for KeyValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "Text({} bytes)", text.len()),
            Self::Items(items) => f.debug_tuple("Items").field(items).finish(),
        }
    }
}

/// Removes insignificant padding (PS3.5 6.2).
///
/// This is leading and trailing spaces, and NUL at the end. In PN and the VRs of longer text,
/// leading spaces are significant and stay.
#[must_use]
pub fn trim(vr: VR, text: &str) -> &str {
    match vr {
        VR::LT | VR::ST | VR::UT | VR::UC | VR::UR | VR::PN => without_trailing_padding(text),
        _ => without_padding(text),
    }
}

/// Whether a backslash separates values in this VR (PS3.5 6.2).
#[must_use]
pub fn separates_values(vr: VR) -> bool {
    !matches!(vr, VR::LT | VR::ST | VR::UT | VR::UR)
}

/// Whether PS3.4 C.2.2.2.7 defines empty value matching for this VR.
pub(super) fn has_empty_value_matching(vr: VR) -> bool {
    matches!(
        vr,
        VR::AE
            | VR::CS
            | VR::DA
            | VR::DT
            | VR::LO
            | VR::LT
            | VR::PN
            | VR::SH
            | VR::ST
            | VR::TM
            | VR::UC
            | VR::UR
            | VR::UT
    )
}

/// Whether PS3.4 C.2.2.2.8 defines multiple value matching for this VR.
pub(super) fn has_multiple_value_matching(vr: VR) -> bool {
    matches!(vr, VR::AE | VR::AS | VR::AT | VR::CS | VR::LO | VR::PN | VR::SH | VR::UC)
}

/// Returns how many values an attribute may have (PS3.6). `tag` is that of a standard attribute.
pub(in crate::model) fn multiplicity_of(tag: Option<Tag>, vr: VR) -> Multiplicity {
    let is_one = !separates_values(vr) || (has_multiple_value_matching(vr) && tag.is_some_and(has_one_value));
    if is_one { Multiplicity::One } else { Multiplicity::Many }
}

/// Whether an element of an item has a VR that can be matched (PS3.4 C.2.2.2).
#[must_use]
pub fn is_matched_in_item(element: &KeyElement) -> bool {
    !is_binary(item_comparison(element).vr)
}

/// Returns how an attribute inside an item is compared. Code Meaning is descriptive text and is
/// folded.
pub(super) fn item_comparison(element: &KeyElement) -> Comparison {
    // As at the root, a standard attribute is matched by the VR of the dictionary, whatever VR the
    // key has.
    let vr = match StandardDataDictionary.by_tag(element.tag).map(|entry| entry.vr().relaxed()) {
        Some(vr) if element.tag.group().is_multiple_of(2) && vr != VR::UN => vr,
        Some(_) | None => element.vr,
    };
    let letter_case = match Attribute::by_tag(element.tag) {
        Some(attribute) => attribute.letter_case,
        None if element.tag == tags::CODE_MEANING => LetterCase::Folded,
        None => LetterCase::of_vr(vr),
    };
    let is_standard = element.tag.group().is_multiple_of(2);
    Comparison { vr, multiplicity: multiplicity_of(is_standard.then_some(element.tag), vr), letter_case }
}
