//! Attribute matching (PS3.4 C.2.2.2).
//!
//! A [`Matching`] is compiled once from the value of a key. It then tests each stored value that an
//! index yields. Compiling takes time proportional to the key, and testing takes time proportional
//! to the stored value. This also holds for a key with many wild cards.

mod by_character;
mod decimal;
mod name;
mod narrowing;
mod range_end;
mod sequence;
mod span;
mod wild_card;

use crate::encoding::vr::is_binary;
use crate::model::matching::narrowing::is_all_stars;
use crate::model::matching::span::Span;
use std::cell::RefCell;
use std::fmt;
use std::ops::RangeInclusive;

use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry};
use dicom_core::{Tag, VR};
use dicom_dictionary_std::StandardDataDictionary;

use self::by_character::CharacterPattern;
use self::decimal::Decimal;
use self::name::NameCondition;
pub use self::narrowing::{NameMatching, NamePart, Narrowing};
use self::range_end::{RangeEnd, Side};
pub use self::sequence::{joined_values, json_key};
use self::wild_card::WildCard;
use super::attribute::{Attribute, KeyType, LetterCase, Multiplicity};
use super::datetime::{self, Moment};
use super::person_name;
use super::uid::MAX_LENIENT_UID_LENGTH;

/// Maximum length of one value of a key, in bytes. The index keeps no longer value of an object. A
/// compiled pattern takes many times its own length in memory.
pub const MAX_KEY_VALUE_LENGTH: usize = 64 * 1024;

/// A condition on the value of an attribute. PS3.4 C.2.2.2 defines the matching types, and each has
/// a variant.
#[derive(Clone)]
pub enum Matching {
    /// Matches every entity, with or without a value (PS3.4 C.2.2.2.3).
    Universal,
    /// Matches the same value, compared by its meaning (PS3.4 C.2.2.2.1). A name is compared
    /// without case and accents. A number or a date is compared in whatever form it is written.
    SingleValue(SingleValue),
    /// Matches any UID of the list (PS3.4 C.2.2.2.2). The list may have one UID.
    ListOfUid(ListOfUid),
    /// Matches a pattern with `*` and `?` (PS3.4 C.2.2.2.4).
    WildCard(Pattern),
    /// Matches dates, times or moments between two ends, which are both included (PS3.4 C.2.2.2.5).
    Range(RangeCondition),
    /// Matches a sequence if one of its items fulfils all conditions (PS3.4 C.2.2.2.6).
    Sequence(SequenceMatching),
    /// Matches an attribute that is absent or without a value (PS3.4 C.2.2.2.7).
    EmptyValue,
    /// Matches if every condition matches: the stored value has all values of the key, in any order
    /// (PS3.4 C.2.2.2.8).
    MultipleValue(Vec<Matching>),
    /// Matches if any condition matches. Without the negotiation of PS3.4 C.2.2.2.8, several values
    /// in a key are undefined. Clients that send `CT\MR` expect this.
    AnyOf(Vec<Matching>),
}

/// The condition of [`Matching::SingleValue`].
#[derive(Clone)]
pub struct SingleValue {
    value: PreparedValue,
    stored: SplitRules,
}

/// The condition of [`Matching::ListOfUid`].
#[derive(Clone)]
pub struct ListOfUid {
    /// Sorted and without duplicates.
    uids: Vec<String>,
    stored: SplitRules,
}

/// The condition of [`Matching::WildCard`].
#[derive(Clone)]
pub struct Pattern {
    pattern: PatternKind,
    stored: SplitRules,
}

/// The condition of [`Matching::Range`].
#[derive(Clone)]
pub struct RangeCondition {
    span: Span,
    stored: SplitRules,
}

/// Rules to split a stored text into the values that are compared.
#[derive(Clone, Copy, Debug)]
struct SplitRules {
    vr: VR,
    reading: BackslashMeaning,
}

/// Meaning of a backslash in a stored text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BackslashMeaning {
    /// It is an ordinary character.
    Whole,
    /// It separates values.
    Separated,
    /// It may be either. The attribute should have one value, but some objects break this rule.
    WholeOrSeparated,
}

#[derive(Clone)]
enum PreparedValue {
    /// The text must be equal.
    Text(String),
    /// The text must be equal after [`person_name::fold`].
    Folded(String),
    Number(Decimal),
    /// A date, time or moment. `span` is the span that the key names. `text` is the key itself, for
    /// comparison with stored text that is not a date.
    Moment {
        span: Span,
        text: String,
    },
    Name(Box<NameCondition>),
}

#[derive(Clone)]
enum PatternKind {
    Text(WildCard),
    Folded(Box<FoldedPattern>),
    Name(Box<NameCondition>),
}

/// A pattern that is compared with folded text.
#[derive(Clone)]
struct FoldedPattern {
    folded: WildCard,
    /// The same pattern for texts that fold unevenly. Only a pattern with `?` needs it.
    by_character: Option<CharacterPattern>,
}

/// A range of dates and a range of times that together form one range of moments (PS3.4
/// C.2.2.2.5.4, combined date-time matching).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DateTimeRange {
    span: RangeInclusive<Moment>,
    unknown: UnknownRequired,
}

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
    /// How names without wild cards are compared.
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
    /// [`super::record::InstanceRecord`].
    Text(String),
    /// Items of a sequence.
    Items(Vec<Vec<KeyElement>>),
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

impl Matching {
    /// Compiles the condition of a key for a stored attribute.
    ///
    /// # Errors
    /// Fails if the value is not valid for the VR of the attribute.
    pub fn of_key(attribute: &Attribute, key: &KeyValue, policy: &MatchPolicy) -> Result<Self, MatchingError> {
        let matching = match key {
            KeyValue::Text(text) => Self::compile(attribute.into(), text, policy)?,
            KeyValue::Items(items) if attribute.vr == VR::SQ => Self::of_items(items, policy)?,
            // A key without a value is valid in any VR.
            KeyValue::Items(items) if items.is_empty() => Self::Universal,
            KeyValue::Items(_) => return Err(MatchingError::WrongKind(attribute.vr)),
        };
        let lenient = policy.unknown_required == UnknownRequired::Match && attribute.key == KeyType::Required;
        Ok(if lenient && !matches!(matching, Self::Universal | Self::EmptyValue) {
            Self::AnyOf(vec![matching, Self::EmptyValue])
        } else {
            matching
        })
    }

    /// Compiles the condition of a text key by PS3.4 C.2.2.2 for its VR.
    ///
    /// # Errors
    /// Fails if the text is not valid for the VR.
    pub fn compile(comparison: Comparison, key: &str, policy: &MatchPolicy) -> Result<Self, MatchingError> {
        let vr = comparison.vr;
        let key = trim(vr, key);
        if is_all_stars(key) {
            return Ok(Self::Universal);
        }
        if policy.quotation_marks == QuotationMarks::EmptyValue && key == "\"\"" && has_empty_value_matching(vr) {
            return Ok(Self::EmptyValue);
        }
        let stored = SplitRules::new(vr, comparison.multiplicity);
        let has_one_value = !separates_values(vr);
        let longest = if has_one_value { key.len() } else { key.split('\\').map(str::len).max().unwrap_or(0) };
        if longest > MAX_KEY_VALUE_LENGTH {
            return Err(MatchingError::TooLong);
        }
        match vr {
            VR::SQ => Err(MatchingError::WrongKind(vr)),
            _ if is_binary(vr) => Err(MatchingError::NotMatched(vr)),
            VR::UI => Ok(list_of_uid(key, stored)),
            // In these VRs a backslash is part of the value (PS3.5 6.2).
            _ if has_one_value => one_value(comparison, stored, key, policy, WildCards::Special),
            _ => several_values(comparison, stored, key, policy),
        }
    }

    /// Compiles the condition of a sequence key (PS3.4 C.2.2.2.6). No item and an empty item are
    /// universal.
    ///
    /// An element whose VR has no matching is unsupported, and it makes no condition (PS3.4
    /// C.2.2.1.3).
    ///
    /// # Errors
    /// Fails if there is more than one item, or if a value in the item is not valid.
    pub fn of_items(items: &[Vec<KeyElement>], policy: &MatchPolicy) -> Result<Self, MatchingError> {
        let elements = match items {
            [] => return Ok(Self::Universal),
            [item] => item,
            _ => return Err(MatchingError::SeveralItems),
        };
        let mut conditions = Vec::new();
        for element in elements {
            let matching = match Self::of_item_key(element, policy) {
                Err(MatchingError::NotMatched(_)) => continue,
                matching => matching?,
            };
            if !matches!(matching, Self::Universal) {
                conditions.push(ItemCondition { tag: element.tag, json_key: json_key(element.tag), matching });
            }
        }
        Ok(if conditions.is_empty() { Self::Universal } else { Self::Sequence(SequenceMatching { conditions }) })
    }

    /// Compiles the condition of one element of an item.
    fn of_item_key(element: &KeyElement, policy: &MatchPolicy) -> Result<Self, MatchingError> {
        let comparison = item_comparison(element);
        match &element.value {
            KeyValue::Items(items) if comparison.vr == VR::SQ => Self::of_items(items, policy),
            KeyValue::Items(items) if items.is_empty() => Ok(Self::Universal),
            KeyValue::Items(_) => Err(MatchingError::WrongKind(comparison.vr)),
            KeyValue::Text(text) if text.is_empty() => Ok(Self::Universal),
            KeyValue::Text(text) => Self::compile(comparison, text, policy),
        }
    }

    /// Whether a stored value fulfils the condition. It has the form of
    /// [`super::record::InstanceRecord`], and an empty text stands for no value.
    #[must_use]
    pub fn matches(&self, stored: &str) -> bool {
        match self {
            Self::Universal => true,
            Self::SingleValue(single) => single.stored.any(stored, |value| single.value.matches(value)),
            Self::ListOfUid(list) => {
                list.stored.any(stored, |value| list.uids.binary_search_by(|uid| uid.as_str().cmp(value)).is_ok())
            }
            Self::WildCard(wild_card) => wild_card.stored.any(stored, |value| wild_card.pattern.matches(value)),
            Self::Range(range) => range.stored.any(stored, |value| range.span.contains(value)),
            Self::Sequence(sequence) => sequence.matches(stored),
            Self::EmptyValue => stored.is_empty(),
            Self::MultipleValue(all) => all.iter().all(|matching| matching.matches(stored)),
            Self::AnyOf(any) => any.iter().any(|matching| matching.matches(stored)),
        }
    }

    /// Returns the condition that an index can use to find candidates.
    #[must_use]
    pub fn narrowing(&self) -> Narrowing {
        match self {
            Self::Universal | Self::Sequence(_) => Narrowing::None,
            Self::EmptyValue => Narrowing::Equals(vec![String::new()]),
            Self::SingleValue(single) if single.stored.is_one() => single.value.narrowing(),
            Self::ListOfUid(list) if list.stored.is_one() => Narrowing::Equals(list.uids.clone()),
            Self::WildCard(wild_card) if wild_card.stored.is_one() => wild_card.pattern.narrowing(),
            Self::Range(range) if range.stored.is_one() => range.span.narrowing(),
            // The index keeps several values joined by backslashes. They must be split before they
            // can be compared.
            Self::SingleValue(_) | Self::ListOfUid(_) | Self::WildCard(_) | Self::Range(_) => Narrowing::None,
            Self::MultipleValue(all) => all
                .iter()
                .map(Self::narrowing)
                .find(|narrowing| *narrowing != Narrowing::None)
                .unwrap_or(Narrowing::None),
            Self::AnyOf(any) => any
                .iter()
                .map(|matching| match matching.narrowing() {
                    Narrowing::Equals(values) => Some(values),
                    _ => None,
                })
                .collect::<Option<Vec<_>>>()
                .map_or(Narrowing::None, |lists| Narrowing::Equals(lists.concat())),
        }
    }

    /// Builds the condition that an attribute has exactly this text. It is for a unique key that
    /// names one entity, and no character is special.
    #[must_use]
    pub fn whole(attribute: &Attribute, text: &str) -> Self {
        let value = PreparedValue::Text(trim(attribute.vr, text).to_owned());
        Self::SingleValue(SingleValue {
            value,
            stored: SplitRules { vr: attribute.vr, reading: BackslashMeaning::Whole },
        })
    }

    /// Whether a stored text with a backslash may match although [`Self::narrowing`] excludes it,
    /// because one of its values matches.
    ///
    /// The data dictionary allows the attribute one value only, so such texts are rare.
    #[must_use]
    pub fn looks_into_separated_values(&self) -> bool {
        match self {
            Self::SingleValue(SingleValue { stored, .. })
            | Self::ListOfUid(ListOfUid { stored, .. })
            | Self::WildCard(Pattern { stored, .. })
            | Self::Range(RangeCondition { stored, .. }) => stored.reading == BackslashMeaning::WholeOrSeparated,
            Self::MultipleValue(list) | Self::AnyOf(list) => list.iter().any(Self::looks_into_separated_values),
            Self::Universal | Self::Sequence(_) | Self::EmptyValue => false,
        }
    }

    /// Whether a person name may match that has a component group with this
    /// [`person_name::normal_form`].
    ///
    /// The group is one that [`Narrowing::NamePrefix`] found. `false` is certain, `true` is not.
    #[must_use]
    pub fn may_match_name_group(&self, normal: &str) -> bool {
        match self {
            Self::SingleValue(SingleValue { value: PreparedValue::Name(name), .. })
            | Self::WildCard(Pattern { pattern: PatternKind::Name(name), .. }) => name.may_match_group(normal),
            _ => true,
        }
    }

    /// Returns the name of the matching type, as in PS3.4 C.2.2.2.
    #[must_use]
    pub const fn type_name(&self) -> &'static str {
        match self {
            Self::Universal => "universal",
            Self::SingleValue(_) => "single value",
            Self::ListOfUid(_) => "list of UID",
            Self::WildCard(_) => "wild card",
            Self::Range(_) => "range",
            Self::Sequence(_) => "sequence",
            Self::EmptyValue => "empty value",
            Self::MultipleValue(_) => "multiple value",
            Self::AnyOf(_) => "any of several values",
        }
    }
}

/// Shows only the type, because keys hold patient data and requests appear in logs.
impl fmt::Debug for Matching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.type_name())
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
        VR::LT | VR::ST | VR::UT | VR::UC | VR::UR | VR::PN => text.trim_end_matches([' ', '\0']),
        _ => text.trim_matches([' ', '\0']),
    }
}

/// Whether a backslash separates values in this VR (PS3.5 6.2).
#[must_use]
pub fn separates_values(vr: VR) -> bool {
    !matches!(vr, VR::LT | VR::ST | VR::UT | VR::UR)
}

/// Whether wild cards in a value are special.
#[derive(Clone, Copy, PartialEq, Eq)]
enum WildCards {
    Special,
    /// In multiple value matching, wild cards are ordinary characters (PS3.4 C.2.2.2.8).
    Literal,
}

fn list_of_uid(key: &str, stored: SplitRules) -> Matching {
    let mut uids: Vec<String> =
        key.split('\\').map(|uid| trim(VR::UI, uid)).filter(|uid| !uid.is_empty()).map(str::to_owned).collect();
    if uids.len() > 1 && key.len() <= MAX_LENIENT_UID_LENGTH {
        // An object may, against the Standard, have the whole text as one UID. A client that
        // received it in an answer must find the entity by it.
        uids.push(key.to_owned());
    }
    uids.sort_unstable();
    uids.dedup();
    if uids.is_empty() || uids.iter().any(|uid| is_all_stars(uid)) {
        return Matching::Universal;
    }
    Matching::ListOfUid(ListOfUid { uids, stored })
}

fn several_values(
    comparison: Comparison,
    stored: SplitRules,
    key: &str,
    policy: &MatchPolicy,
) -> Result<Matching, MatchingError> {
    if !key.contains('\\') {
        return one_value(comparison, stored, key, policy, WildCards::Special);
    }
    // A name of delimiters only is empty (PS3.5 6.2.1.1).
    let is_empty = |value: &str| {
        value.is_empty() || comparison.vr == VR::PN && value.bytes().all(|byte| matches!(byte, b' ' | b'^' | b'='))
    };
    let values: Vec<&str> =
        key.split('\\').map(|value| trim(comparison.vr, value)).filter(|value| !is_empty(value)).collect();
    let all = policy.several_values == SeveralValues::AllOf
        && comparison.multiplicity == Multiplicity::Many
        && has_multiple_value_matching(comparison.vr)
        && values.len() > 1;
    let wild_cards = if all { WildCards::Literal } else { WildCards::Special };
    let mut list = Vec::with_capacity(values.len());
    for value in values {
        match one_value(comparison, stored, value, policy, wild_cards)? {
            Matching::Universal if all => {}
            Matching::Universal => return Ok(Matching::Universal),
            matching => list.push(matching),
        }
    }
    Ok(match list.len() {
        0 => Matching::Universal,
        1 => list.swap_remove(0),
        _ if all => Matching::MultipleValue(list),
        _ => Matching::AnyOf(list),
    })
}

fn one_value(
    comparison: Comparison,
    stored: SplitRules,
    key: &str,
    policy: &MatchPolicy,
    wild_cards: WildCards,
) -> Result<Matching, MatchingError> {
    if wild_cards == WildCards::Special && is_all_stars(key) {
        return Ok(Matching::Universal);
    }
    let single = |value| Ok(Matching::SingleValue(SingleValue { value, stored }));
    let is_pattern = wild_cards == WildCards::Special && key.contains(['*', '?']);
    match (comparison.vr, comparison.letter_case) {
        (VR::DA | VR::TM | VR::DT, _) => date_or_time(stored, key),
        (VR::IS | VR::DS | VR::US | VR::SS | VR::UL | VR::SL | VR::UV | VR::SV | VR::FL | VR::FD, _) => {
            single(Decimal::parse(key).map_or_else(|| PreparedValue::Text(key.to_owned()), PreparedValue::Number))
        }
        (VR::AT | VR::AS, _) => single(PreparedValue::Text(key.to_owned())),
        (VR::PN, _) => Ok(match NameCondition::new(key, policy.names) {
            None => Matching::Universal,
            Some(name) if name.has_wild_card() => {
                Matching::WildCard(Pattern { pattern: PatternKind::Name(Box::new(name)), stored })
            }
            Some(name) => Matching::SingleValue(SingleValue { value: PreparedValue::Name(Box::new(name)), stored }),
        }),
        (_, LetterCase::Sensitive) if is_pattern => {
            let pattern = PatternKind::Text(WildCard::new(key, |literal, out| out.push_str(literal)));
            Ok(Matching::WildCard(Pattern { pattern, stored }))
        }
        (_, LetterCase::Folded) if is_pattern => {
            let pattern = PatternKind::Folded(Box::new(FoldedPattern {
                folded: WildCard::new(key, person_name::push_folded),
                by_character: key.contains('?').then(|| CharacterPattern::new(key, person_name::push_folded)),
            }));
            Ok(Matching::WildCard(Pattern { pattern, stored }))
        }
        (_, LetterCase::Sensitive) => single(PreparedValue::Text(key.to_owned())),
        (_, LetterCase::Folded) => single(PreparedValue::Folded(person_name::fold(key))),
    }
}

fn date_or_time(stored: SplitRules, key: &str) -> Result<Matching, MatchingError> {
    let vr = stored.vr;
    // `2024*` is not a valid key, but users often type it, and it has only one sensible meaning.
    let spelled = key.trim_end_matches(['*', ' ']);
    let single = Span::parse(vr, spelled);
    if let Some((low, high)) = range_ends(vr, key) {
        let range = |low: Option<Span>, high: Option<Span>| match (low, high) {
            (None, None) => Matching::Universal,
            (low, high) => Matching::Range(RangeCondition { span: Span::between(vr, low, high), stored }),
        };
        return match (low, high) {
            (RangeEnd::Invalid, _) | (_, RangeEnd::Invalid) => Err(MatchingError::InvalidRange(vr)),
            (low, high) => Ok(range(low.span(), high.span())),
        };
    }
    let value = match single {
        Some(span) => PreparedValue::Moment { span, text: spelled.to_owned() },
        None => PreparedValue::Text(key.to_owned()),
    };
    Ok(Matching::SingleValue(SingleValue { value, stored }))
}

impl DateTimeRange {
    /// Combines a date key and a time key. `None` unless both are ranges of the same form: closed,
    /// or open at the same end. Other keys are matched separately.
    #[must_use]
    pub fn new(date: &str, time: &str) -> Option<Self> {
        let dates = range_ends(VR::DA, trim(VR::DA, date))?;
        let times = range_ends(VR::TM, trim(VR::TM, time))?;
        let start = match (&dates.0, &times.0) {
            (RangeEnd::At(Span::Days(days)), RangeEnd::At(Span::Times(times))) => {
                datetime::moment(*days.start(), *times.start())
            }
            (RangeEnd::Open, RangeEnd::Open) => Moment::MIN,
            _ => return None,
        };
        let end = match (&dates.1, &times.1) {
            (RangeEnd::At(Span::Days(days)), RangeEnd::At(Span::Times(times))) => {
                datetime::moment(*days.end(), *times.end())
            }
            (RangeEnd::Open, RangeEnd::Open) => Moment::MAX,
            _ => return None,
        };
        Some(Self { span: start..=end, unknown: UnknownRequired::NoMatch })
    }

    /// Makes the range accept entities without a date as well (see [`UnknownRequired::Match`]).
    #[must_use]
    pub fn or_unknown(self) -> Self {
        Self { unknown: UnknownRequired::Match, ..self }
    }

    /// Whether a stored date and time lie within the range. A date without a time counts as its
    /// first moment.
    #[must_use]
    pub fn contains(&self, date: &str, time: &str) -> bool {
        if date.contains('\\') || time.contains('\\') {
            // The data dictionary does not allow several values here. If there are some, any of
            // them may match (PS3.4 C.2.2.3).
            return date.split('\\').any(|date| time.split('\\').any(|time| self.contains(date, time)));
        }
        if date.is_empty() && self.unknown == UnknownRequired::Match {
            return true;
        }
        let Some(days) = datetime::days(date).filter(|days| days.start() == days.end()) else { return false };
        let time = if time.is_empty() { Some(0) } else { datetime::times(time).map(|times| *times.start()) };
        time.is_some_and(|time| self.span.contains(&datetime::moment(*days.start(), time)))
    }
}

/// Splits a range key into its two ends (PS3.4 C.2.2.2.5). `None` if the key is not a range.
fn range_ends(vr: VR, key: &str) -> Option<(RangeEnd, RangeEnd)> {
    let split = |at: usize| {
        let (low, high) = (key.get(..at).unwrap_or_default(), key.get(at + 1..).unwrap_or_default());
        (RangeEnd::new(vr, Side::Low, low), RangeEnd::new(vr, Side::High, high))
    };
    if vr != VR::DT {
        return key.find('-').map(split);
    }
    // In DT a hyphen may also begin an offset from UTC. The key is a range only if both ends make
    // sense. `20240101120000-0500` would end in the year 500, so it is a moment in New York.
    let hyphens: Vec<usize> = key.match_indices('-').map(|(at, _)| at).take(4).collect();
    let candidates = || hyphens.iter().map(|at| split(*at));
    let makes_sense = |(low, high): &(RangeEnd, RangeEnd)| match (low, high) {
        (RangeEnd::Invalid, _) | (_, RangeEnd::Invalid) => false,
        (RangeEnd::At(Span::Moments(low)), RangeEnd::At(Span::Moments(high))) => low.start() <= high.end(),
        _ => true,
    };
    if let Some(found) = candidates().find(makes_sense) {
        return Some(found);
    }
    if Span::parse(vr, key).is_some() {
        return None;
    }
    // Otherwise the range is reversed or invalid.
    let is_valid =
        |(low, high): &(RangeEnd, RangeEnd)| !matches!((low, high), (RangeEnd::Invalid, _) | (_, RangeEnd::Invalid));
    candidates().find(is_valid).or_else(|| candidates().next())
}

/// Whether PS3.4 C.2.2.2.7 defines empty value matching for this VR.
fn has_empty_value_matching(vr: VR) -> bool {
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
fn has_multiple_value_matching(vr: VR) -> bool {
    matches!(vr, VR::AE | VR::AS | VR::AT | VR::CS | VR::LO | VR::PN | VR::SH | VR::UC)
}

/// Whether an element of an item has a VR that can be matched (PS3.4 C.2.2.2).
#[must_use]
pub fn is_matched_in_item(element: &KeyElement) -> bool {
    !is_binary(item_comparison(element).vr)
}

/// Returns how an attribute inside an item is compared. An attribute that is not in the table is
/// compared with its case. Code Meaning is descriptive text and is folded.
fn item_comparison(element: &KeyElement) -> Comparison {
    const CODE_MEANING: Tag = Tag(0x0008, 0x0104);
    let letter_case = match Attribute::by_tag(element.tag) {
        Some(attribute) => attribute.letter_case,
        None if element.tag == CODE_MEANING => LetterCase::Folded,
        None => LetterCase::Sensitive,
    };
    // As at the root, a standard attribute is matched by the VR of the dictionary, whatever VR the
    // key has.
    let vr = match StandardDataDictionary.by_tag(element.tag).map(|entry| entry.vr().relaxed()) {
        Some(vr) if element.tag.group().is_multiple_of(2) && vr != VR::UN => vr,
        Some(_) | None => element.vr,
    };
    Comparison { vr, multiplicity: Multiplicity::Many, letter_case }
}

impl SplitRules {
    fn new(vr: VR, multiplicity: Multiplicity) -> Self {
        let reading = match multiplicity {
            _ if !separates_values(vr) => BackslashMeaning::Whole,
            Multiplicity::Many => BackslashMeaning::Separated,
            // The whole text is one UID, even if it is malformed.
            Multiplicity::One if vr == VR::UI => BackslashMeaning::Whole,
            Multiplicity::One => BackslashMeaning::WholeOrSeparated,
        };
        Self { vr, reading }
    }

    /// Whether the test holds for any value of a stored text (PS3.4 C.2.2.3).
    fn any(self, text: &str, mut test: impl FnMut(&str) -> bool) -> bool {
        let separated = |test: &mut dyn FnMut(&str) -> bool| text.split('\\').any(|value| test(trim(self.vr, value)));
        match self.reading {
            BackslashMeaning::Whole => test(trim(self.vr, text)),
            BackslashMeaning::Separated => separated(&mut test),
            BackslashMeaning::WholeOrSeparated => {
                test(trim(self.vr, text)) || (text.contains('\\') && separated(&mut test))
            }
        }
    }

    fn is_one(self) -> bool {
        self.reading != BackslashMeaning::Separated
    }
}

impl PreparedValue {
    fn matches(&self, stored: &str) -> bool {
        match self {
            Self::Text(text) => text == stored,
            Self::Folded(folded) => with_folded(stored, |stored| folded == stored),
            Self::Number(number) => Decimal::parse(stored).is_some_and(|stored| *number == stored),
            Self::Moment { span, text } => span.contains(stored) || text == stored,
            Self::Name(name) => name.matches(stored),
        }
    }

    fn narrowing(&self) -> Narrowing {
        match self {
            Self::Text(text) => Narrowing::Equals(vec![text.clone()]),
            Self::Folded(_) | Self::Number(_) => Narrowing::None,
            Self::Moment { span, text } => match span.narrowing() {
                Narrowing::Between(first, last) if first == last && first == *text => Narrowing::Equals(vec![first]),
                Narrowing::Between(first, last) if first == last => Narrowing::Equals(vec![first, text.clone()]),
                Narrowing::Between(first, last) => Narrowing::Between(first.min(text.clone()), last.max(text.clone())),
                other => other,
            },
            Self::Name(name) => name.narrowing(),
        }
    }
}

impl PatternKind {
    fn matches(&self, stored: &str) -> bool {
        match self {
            Self::Text(pattern) => pattern.matches(stored),
            Self::Folded(pattern) => pattern.matches(stored),
            Self::Name(name) => name.matches(stored),
        }
    }

    fn narrowing(&self) -> Narrowing {
        match self {
            Self::Text(pattern) => match pattern.prefix() {
                prefix if prefix.is_empty() => Narrowing::None,
                prefix => Narrowing::Prefix(prefix),
            },
            Self::Folded(_) => Narrowing::None,
            Self::Name(name) => name.narrowing(),
        }
    }
}

impl FoldedPattern {
    fn matches(&self, stored: &str) -> bool {
        match &self.by_character {
            Some(pattern) if person_name::folds_unevenly(stored) => {
                pattern.matches(|each| person_name::for_each_character(stored, each))
            }
            Some(_) | None => with_folded(stored, |stored| self.folded.matches(stored)),
        }
    }
}

/// Calls `look` with the folded form of a text. The buffer is reused, because this runs once for
/// each row that a search examines.
fn with_folded<T>(text: &str, look: impl FnOnce(&str) -> T) -> T {
    thread_local! {
        static BUFFER: RefCell<String> = const { RefCell::new(String::new()) };
    }
    BUFFER.with_borrow_mut(|buffer| {
        buffer.clear();
        person_name::push_folded(text, buffer);
        look(buffer)
    })
}

/// Conditions on the attributes of one item. A sequence matches if one of its items fulfils all of
/// them.
#[derive(Clone, Debug)]
pub struct SequenceMatching {
    conditions: Vec<ItemCondition>,
}

/// A condition on one attribute of an item.
#[derive(Clone, Debug)]
struct ItemCondition {
    tag: Tag,
    /// The tag as a key of the DICOM JSON Model.
    json_key: String,
    matching: Matching,
}

impl SequenceMatching {
    fn matches(&self, stored: &str) -> bool {
        use serde::Deserialize as _;

        let mut deserializer = serde_json::Deserializer::from_str(stored);
        // The header reader already limits the depth of items. The limit of `serde_json` would be
        // lower.
        deserializer.disable_recursion_limit();
        // An empty or invalid value has no items, so nothing can match.
        let items = Vec::<serde_json::Value>::deserialize(&mut deserializer).unwrap_or_default();
        deserializer.end().is_ok() && items.iter().any(|item| self.matches_item(item))
    }

    /// Whether an item (an object of the DICOM JSON Model) fulfils all conditions. Only such items
    /// are returned.
    #[must_use]
    pub fn matches_item(&self, item: &serde_json::Value) -> bool {
        self.conditions.iter().all(|condition| {
            let element = item.get(condition.json_key.as_str());
            let values = element.and_then(|element| element.get("Value")).and_then(serde_json::Value::as_array);
            match &condition.matching {
                Matching::Sequence(nested) => {
                    values.is_some_and(|items| items.iter().any(|item| nested.matches_item(item)))
                }
                other => other.matches(&values.map(|values| joined_values(values)).unwrap_or_default()),
            }
        })
    }

    /// Returns the condition on a sequence inside the items, if there is one.
    #[must_use]
    pub fn nested(&self, tag: Tag) -> Option<&Self> {
        self.conditions.iter().find_map(|condition| match &condition.matching {
            Matching::Sequence(nested) if condition.tag == tag => Some(nested),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::attribute::{ATTRIBUTES, AttributeId, ValueSource};
    use super::*;

    fn with(vr: VR, multiplicity: Multiplicity, letter_case: LetterCase, key: &str, policy: &MatchPolicy) -> Matching {
        Matching::compile(Comparison { vr, multiplicity, letter_case }, key, policy).unwrap()
    }

    fn one(vr: VR, key: &str) -> Matching {
        with(vr, Multiplicity::One, LetterCase::Sensitive, key, &MatchPolicy::default())
    }

    fn many(vr: VR, key: &str) -> Matching {
        with(vr, Multiplicity::Many, LetterCase::Sensitive, key, &MatchPolicy::default())
    }

    #[track_caller]
    fn accepts(vr: VR, key: &str, values: &[&str]) {
        for value in values {
            assert!(one(vr, key).matches(value), "{key} is to match {value}");
        }
    }

    #[track_caller]
    fn refuses(vr: VR, key: &str, values: &[&str]) {
        for value in values {
            assert!(!one(vr, key).matches(value), "{key} is not to match {value}");
        }
    }

    // PS3.4 C.2.2.2.3 and the first note of C.2.2.2.4.
    #[test]
    fn no_value_and_a_lone_star_are_universal_for_every_vr() {
        for vr in [VR::AE, VR::CS, VR::DA, VR::DT, VR::IS, VR::LO, VR::LT, VR::PN, VR::TM, VR::UI, VR::US, VR::AT] {
            for key in ["", "*", "**", " * ", "  ", "*\0"] {
                assert!(matches!(one(vr, key), Matching::Universal), "{} {key:?}", vr.to_string());
                accepts(vr, key, &["", "anything"]);
            }
        }
        for name in ["*=*", "*=*=*", "^^", "=", "==", "*=="] {
            assert!(matches!(one(VR::PN, name), Matching::Universal), "{name}");
        }
        assert!(matches!(one(VR::DA, "-"), Matching::Universal));
    }

    // PS3.4 C.2.2.2.1.
    #[test]
    fn text_is_matched_with_its_case_and_without_its_padding() {
        accepts(VR::CS, " CT ", &["CT", "CT "]);
        refuses(VR::CS, "CT", &["ct", "CTA", ""]);
        accepts(VR::LO, "P1\0", &["P1"]);
        refuses(VR::LT, "a", &[" a"]);
        accepts(VR::LO, "a", &[" a"]);
        refuses(VR::SH, "A1", &["A"]);
    }

    #[test]
    fn descriptive_text_is_folded() {
        let folded = |key| with(VR::LO, Multiplicity::One, LetterCase::Folded, key, &MatchPolicy::default());
        assert!(folded("schädel ct").matches("Schadel CT"));
        assert!(folded("SCH*").matches("schädel"));
        assert!(!folded("SCH").matches("schädel"));
        assert!(folded("stra?e*").matches("Straße 1") && folded("stra??e*").matches("Straße 1"));
    }

    // PS3.4 C.2.2.2.2.
    #[test]
    fn uids_are_a_list_and_have_no_wild_cards() {
        accepts(VR::UI, "1.2\\1.3\0\\1.1", &["1.1", "1.2", "1.3\0"]);
        refuses(VR::UI, "1.2\\1.3", &["1.3\\1.2", "1.23", ""]);
        // An object may have this against the Standard. A client that received it in an answer
        // finds the object by it.
        accepts(VR::UI, "1.2\\1.3", &["1.2\\1.3"]);
        refuses(VR::UI, "1.2", &["1.2\\1.3"]);
        refuses(VR::UI, "1.2*", &["1.2", "1.23"]);
        assert_eq!(
            one(VR::UI, "1.2\\1.1\\1.2").narrowing(),
            Narrowing::Equals(vec!["1.1".into(), "1.2".into(), "1.2\\1.1\\1.2".into()])
        );
        assert!(many(VR::UI, "1.3").matches("1.2\\1.3"));
    }

    // PS3.4 C.2.2.2.4.
    #[test]
    fn star_and_question_mark_are_the_only_wild_cards() {
        accepts(VR::LO, "P_*", &["P_1", "P_"]);
        refuses(VR::LO, "P_*", &["PX1", "P"]);
        accepts(VR::LO, "100%?", &["100%!", "100%山"]);
        refuses(VR::LO, "a.c", &["abc"]);
        refuses(VR::LO, "[A-Z]*", &["A"]);
        accepts(VR::CS, "*C?*", &["XCTY", "CT"]);
        refuses(VR::CS, "*C?*", &["C", "ct"]);
        accepts(VR::LO, "it's\"*", &["it's\";DROP"]);
    }

    #[test]
    fn wild_cards_are_plain_characters_where_the_vr_has_none() {
        accepts(VR::IS, "1*", &["1*"]);
        refuses(VR::IS, "1*", &["12"]);
        refuses(VR::AS, "0?5Y", &["045Y"]);
    }

    // PS3.4 C.2.2.2.1: numbers are compared by meaning.
    #[test]
    fn numbers_are_matched_by_value() {
        accepts(VR::IS, "1", &["01", "+1", " 1 "]);
        accepts(VR::DS, "1.50", &["1.5", "15e-1"]);
        accepts(VR::US, "0512", &["512"]);
        refuses(VR::IS, "1", &["10", "-1", "", "x"]);
    }

    // PS3.4 C.2.2.2.1: dates and times are compared by meaning.
    #[test]
    fn dates_and_times_are_matched_by_meaning() {
        accepts(VR::DA, "20240229", &["20240229", "2024.02.29"]);
        accepts(VR::DA, "2024.02.29", &["20240229"]);
        accepts(VR::TM, "1030", &["1030", "103000", "103059.5", "10:30"]);
        refuses(VR::TM, "103000", &["10", "103001", ""]);
        accepts(VR::TM, "10", &["1059"]);
        accepts(VR::DT, "20240101120000+0100", &["20240101110000", "20240101060000-0500"]);
    }

    #[test]
    fn what_is_no_date_is_matched_as_written() {
        accepts(VR::DA, "GARBAGE", &["GARBAGE"]);
        accepts(VR::DA, "20241301", &["20241301"]);
        refuses(VR::DA, "2024", &["202x", "20241301"]);
        accepts(VR::DA, "2024", &["2024", "20240105"]);
        refuses(VR::DA, "-20991231", &["2024", "00000000", "20241301"]);
    }

    #[test]
    fn part_of_a_date_is_the_range_of_its_days() {
        accepts(VR::DA, "2024", &["20240101", "20241231"]);
        accepts(VR::DA, "202402*", &["20240229"]);
        refuses(VR::DA, "202402", &["20240301", "20230228"]);
    }

    // PS3.4 C.2.2.2.5.
    #[test]
    fn a_range_includes_both_its_ends_at_their_precision() {
        accepts(VR::DA, "20240101-20240131", &["20240101", "20240115", "20240131", "2024.01.31"]);
        refuses(VR::DA, "20240101-20240131", &["20231231", "20240201", ""]);
        accepts(VR::DA, "20240101 - 20240131", &["20240101"]);
        accepts(VR::DA, "-20240131", &["19000101", "20240131"]);
        accepts(VR::DA, "20240101-", &["20240101", "99991231"]);
        accepts(VR::DA, "2023-202402", &["20230101", "20240229"]);
        accepts(VR::TM, "1000-1030", &["100000", "1030", "103059.999999", "10"]);
        refuses(VR::TM, "1000-1030", &["0959", "103100", ""]);
        accepts(VR::TM, "-10", &["00", "105959"]);
        accepts(VR::DT, "20240101-20240102", &["20240101", "20240102235959", "20240103003000+0100"]);
        refuses(VR::DT, "20240101-20240102", &["20240102235959-0100"]);
    }

    // PS3.4 C.2.2.2.5.4, with the example of its note.
    #[test]
    fn ranges_of_date_and_time_are_one_range_when_combined() {
        let range = DateTimeRange::new("20060705-20060707", "1000-1800").unwrap();
        for (date, time) in [("20060705", "100000"), ("20060706", "2359"), ("20060706", ""), ("20060707", "180059")] {
            assert!(range.contains(date, time), "{date} {time}");
        }
        for (date, time) in
            [("20060705", "0959"), ("20060705", ""), ("20060707", "1801"), ("", "1200"), ("20060706", "x")]
        {
            assert!(!range.contains(date, time), "{date} {time}");
        }
        assert!(DateTimeRange::new("20060705-", "1000 -").unwrap().contains("20060706", "0100"));
        assert!(DateTimeRange::new("-20060705", "-10").unwrap().contains("20060705", "1059"));
        for (date, time) in [("20060705", "1000-"), ("20060705-", "-1000"), ("2006-", "1000-1100"), ("x-", "10-")] {
            assert_eq!(DateTimeRange::new(date, time), None, "{date} {time}");
        }
    }

    #[test]
    fn a_reversed_range_matches_nothing() {
        refuses(VR::DA, "20240131-20240101", &["20240115", "20240131", "20240101"]);
        refuses(VR::TM, "22-04", &["23", "03", "12"]);
        refuses(VR::DT, "20240131-20240101", &["20240115"]);
    }

    #[test]
    fn a_hyphen_in_a_moment_is_a_range_where_that_makes_sense() {
        accepts(VR::DT, "20240101120000-0500", &["20240101170000"]);
        refuses(VR::DT, "20240101120000-0500", &["20240101120000"]);
        accepts(VR::DT, "20240101120000-0500-20240101120000+0000", &[]);
        accepts(VR::DT, "20240101120000-0500-20240101180000", &["20240101173000"]);
        accepts(VR::DT, "20240101-0500-", &["20240101050000", "2025"]);
        accepts(VR::DT, "-20240101-0500", &["20240102045959", "2023"]);
        accepts(VR::DT, "2023-2024", &["20240601"]);
    }

    #[test]
    fn a_value_longer_than_any_that_is_kept_is_refused() {
        let comparison = Comparison { vr: VR::LO, multiplicity: Multiplicity::One, letter_case: LetterCase::Folded };
        let longest = "*?".repeat(MAX_KEY_VALUE_LENGTH / 2);
        let of = |key: &str| Matching::compile(comparison, key, &MatchPolicy::default());
        assert!(of(&longest).is_ok_and(|matching| !matching.matches("x")));
        assert!(of(&format!("{longest}\\{longest}")).is_ok());
        assert_eq!(of(&format!("x{longest}")).err(), Some(MatchingError::TooLong));
    }

    #[test]
    fn a_range_with_an_end_that_is_none_is_refused() {
        for (vr, key) in
            [(VR::DA, "2024-1"), (VR::DA, "a-b"), (VR::TM, "10-99"), (VR::DT, "20240101-x"), (VR::DA, "1-2-3")]
        {
            let comparison = Comparison { vr, multiplicity: Multiplicity::One, letter_case: LetterCase::Sensitive };
            let refused = Matching::compile(comparison, key, &MatchPolicy::default());
            assert_eq!(refused.err(), Some(MatchingError::InvalidRange(vr)), "{key}");
        }
    }

    // PS3.4 C.2.2.2.1: case and accents of names are the SCP's choice.
    #[test]
    fn names_are_matched_whatever_their_case_accents_and_width() {
        accepts(VR::PN, "muller^jurgen", &["MÜLLER^Jürgen", "Ｍｕｌｌｅｒ^Jurgen", "Müller ^ Jürgen ^^"]);
        accepts(VR::PN, "MÜL*", &["Muller^X"]);
        refuses(VR::PN, "muller^jurgen", &["muller", "muller^jurgenx", ""]);
    }

    #[test]
    fn fewer_components_find_names_that_begin_with_them() {
        accepts(VR::PN, "SMITH", &["SMITH", "SMITH^JOHN", "SMITH^JOHN^Q", "Smith^^Q"]);
        refuses(VR::PN, "SMITH", &["SMITHSON^JOHN", "SMITH JONES", "JOHN^SMITH"]);
        accepts(VR::PN, "SMITH^JOHN", &["SMITH^JOHN^^DR"]);
        let exactly = MatchPolicy { names: NameMatching::Exact, ..MatchPolicy::default() };
        let strict = with(VR::PN, Multiplicity::One, LetterCase::Folded, "SMITH^", &exactly);
        assert!(strict.matches("Smith") && strict.matches("Smith^^") && !strict.matches("Smith^John"));
    }

    // PS3.5 6.2.1.1: empty components at the end may be left out.
    #[test]
    fn a_pattern_counts_components_that_are_left_out() {
        accepts(VR::PN, "SMITH^*", &["SMITH", "SMITH^JOHN"]);
        accepts(VR::PN, "SMITH^*^*", &["SMITH", "SMITH^JOHN", "SMITH^JOHN^Q"]);
        refuses(VR::PN, "SMITH^?*", &["SMITH"]);
        refuses(VR::PN, "SMITH?", &["SMITH"]);
        refuses(VR::PN, "S*H", &["SMITH^JOHN"]);
        accepts(VR::PN, "S*H^*", &["SMITH^JOHN", "SMITH"]);
    }

    // PS3.5 6.2.1.2, PS3.4 C.2.2.2.4 note 3.
    #[test]
    fn names_are_matched_by_component_group() {
        let yamada = "Yamada^Tarou=山田^太郎=やまだ^たろう";
        for key in ["yamada", "山田", "やまだ^たろう", "山*", "=山田", "Yamada=山田", "==やまだ", "*=山田^*", "山?^*"]
        {
            accepts(VR::PN, key, &[yamada]);
        }
        for key in ["yamada=山本", "=yamada", "やま", "山", "Yamada^Tarou=山田^太郎=x", "*=?"] {
            refuses(VR::PN, key, &[yamada]);
        }
        refuses(VR::PN, "=山田", &["Yamada", ""]);
    }

    #[test]
    fn a_question_mark_is_one_character_in_any_script() {
        accepts(VR::PN, "김?중", &["Kim^Heejoong=김희중"]);
        accepts(VR::PN, "M?ller", &["Müller", "Mu\u{308}ller"]);
        refuses(VR::PN, "M?ller", &["Mueller", "Müller^X"]);
        accepts(VR::PN, "Stra?e", &["Straße"]);
        accepts(VR::PN, "Stra??e", &["Straße"]);
        accepts(VR::PN, "ส?ราญ", &["สำราญ", "Samran=สำราญ"]);
        accepts(VR::PN, "ส?ราญ^?", &["สำราญ^ß"]);
        refuses(VR::PN, "ส??ราญ", &["สำราญ"]);
        accepts(VR::PN, "م?حمد", &["مـحمد", "مَحمد"]);
        accepts(VR::PN, "ヤマ?", &["ﾔﾏﾀﾞ"]);
        refuses(VR::PN, "ヤマ??", &["ﾔﾏﾀﾞ"]);
    }

    #[test]
    fn fuzzy_names_are_words_in_any_order() {
        let fuzzy = MatchPolicy { names: NameMatching::Fuzzy, ..MatchPolicy::default() };
        let name = |key| with(VR::PN, Multiplicity::One, LetterCase::Folded, key, &fuzzy);
        assert!(name("john smith").matches("Smith^John^Q"));
        assert!(name("jo* SMI").matches("Smith-Jones^John"));
        assert!(!name("john smith").matches("Smith^Mary"));
        assert!(name("太郎").matches("Yamada^Tarou=山田^太郎"));
        // Whole words may also match by their sound.
        assert!(name("maier").matches("Meyer^Ann") && name("jon smyth").matches("SMITH^John"));
        assert!(!name("maier").matches("Meyers^Ann") && !name("smyt*").matches("Smith"));
    }

    // PS3.4 C.2.2.2.1.1 adds matches and removes none.
    #[test]
    fn wild_cards_keep_their_meaning_in_fuzzy_matching() {
        let fuzzy = MatchPolicy { names: NameMatching::Fuzzy, ..MatchPolicy::default() };
        let name = |key| with(VR::PN, Multiplicity::One, LetterCase::Folded, key, &fuzzy);
        for key in ["*MITH*", "S*TH*", "*^J?HN", "SM*^J*", "J?HN", "S*TH J*", "smi?h", "*th JOHN", "sm*"] {
            assert!(name(key).matches("SMITH^JOHN"), "{key}");
        }
        assert!(
            name("S*TH").matches("SMITH")
                && name("S*^R*TH").matches("Sam^Ruth")
                && name("S*TH").matches("Sam=Ruth^Smith")
        );
        for key in ["*MITS*", "S?TH", "SM*^K*", "sm* mary"] {
            assert!(!name(key).matches("SMITH^JOHN"), "{key}");
        }
        // A key without a word cannot be matched fuzzily.
        assert!(!name("-").matches("SMITH") && name("-").matches("-"));
    }

    // PS3.4 C.2.2.3: any of the stored values may match.
    #[test]
    fn any_value_of_several_matches() {
        assert!(many(VR::CS, "MR").matches("CT\\MR"));
        assert!(many(VR::PN, "jones").matches("Smith^A\\Jones^B"));
        assert!(!many(VR::CS, "CT\\\\MR").matches("US"));
        for vr in [VR::LT, VR::ST, VR::UT, VR::UR] {
            refuses(vr, "b", &["a\\b"]);
            accepts(vr, "a\\b", &["a\\b"]);
        }
    }

    // PS3.4 C.2.2.3, applied to objects that break PS3.6.
    #[test]
    fn an_attribute_of_one_value_that_has_several_is_found_by_any_and_by_all() {
        for (vr, stored, keys) in [
            (VR::LO, "A\\B", &["A\\B", "A", "B", "?", "A*B", "*\\B"][..]),
            (VR::PN, "JONES^A\\SMITH^B", &["JONES^A\\SMITH^B", "jones", "smith^b", "SM*", "*^B"]),
            (VR::DA, "20200101\\20210101", &["20200101\\20210101", "20210101", "2021-", "-2020"]),
            (VR::CS, "CHEST\\HEAD", &["CHEST\\HEAD", "HEAD", "H*"]),
            (VR::IS, "1\\02", &["1\\02", "2"]),
        ] {
            for key in keys {
                accepts(vr, key, &[stored]);
            }
        }
        refuses(VR::LO, "AB", &["A\\B"]);
        refuses(VR::PN, "JONES^B", &["JONES^A\\SMITH^B"]);
        let range = DateTimeRange::new("2021-", "10-").unwrap();
        assert!(range.contains("2020\\20210101", "11\\12") && !range.contains("20200101\\20200102", "11"));
    }

    #[test]
    fn a_whole_text_is_matched_as_it_is() {
        let whole = Matching::whole(AttributeId::PatientID.attribute(), " A\\B* ");
        assert!(whole.matches("A\\B*") && !whole.matches("A") && !whole.matches("A\\BC"));
        assert_eq!(whole.narrowing(), Narrowing::Equals(vec!["A\\B*".into()]));
        assert!(!whole.looks_into_separated_values());
    }

    #[test]
    fn several_values_in_a_key_match_any_unless_negotiated() {
        accepts(VR::CS, "CT\\MR", &["CT", "MR"]);
        refuses(VR::CS, "CT\\MR", &["US", ""]);
        assert_eq!(one(VR::CS, "CT\\MR\\").narrowing(), Narrowing::Equals(vec!["CT".into(), "MR".into()]));
        accepts(VR::CS, "CT\\*", &["US", ""]);
        accepts(VR::DA, "20240101\\2025-", &["20240101", "20260101"]);
    }

    // PS3.4 C.2.2.2.8.
    #[test]
    fn several_values_in_a_key_match_all_when_negotiated() {
        let all = MatchPolicy { several_values: SeveralValues::AllOf, ..MatchPolicy::default() };
        let both = with(VR::CS, Multiplicity::Many, LetterCase::Sensitive, "CT\\PT", &all);
        assert!(both.matches("PT\\CT") && both.matches("CT\\SR\\PT") && !both.matches("CT"));
        let single = with(VR::CS, Multiplicity::One, LetterCase::Sensitive, "CT\\PT", &all);
        assert!(single.matches("CT"), "not defined for attributes of one value");
        let date = with(VR::DA, Multiplicity::Many, LetterCase::Sensitive, "20240101\\20240102", &all);
        assert!(date.matches("20240101"), "not defined for dates");
    }

    // PS3.4 C.2.2.2.7.
    #[test]
    fn quotation_marks_match_no_value_when_negotiated() {
        let empty = MatchPolicy { quotation_marks: QuotationMarks::EmptyValue, ..MatchPolicy::default() };
        let key = with(VR::LO, Multiplicity::One, LetterCase::Sensitive, "\"\"", &empty);
        assert!(key.matches("") && !key.matches("\"\"") && !key.matches("x"));
        assert!(!with(VR::IS, Multiplicity::One, LetterCase::Sensitive, "\"\"", &empty).matches(""));
        accepts(VR::LO, "\"\"", &["\"\""]);
    }

    // PS3.4 C.2.2.1.2.
    #[test]
    fn an_unknown_required_value_matches_only_when_told_to() {
        let key = KeyValue::Text("A1".into());
        let attribute = AttributeId::AccessionNumber.attribute();
        assert!(!Matching::of_key(attribute, &key, &MatchPolicy::default()).unwrap().matches(""));
        let literal = MatchPolicy { unknown_required: UnknownRequired::Match, ..MatchPolicy::default() };
        let lenient = Matching::of_key(attribute, &key, &literal).unwrap();
        assert!(lenient.matches("") && lenient.matches("A1") && !lenient.matches("A2"));
        assert_eq!(lenient.narrowing(), Narrowing::Equals(vec!["A1".into(), String::new()]));
        let optional = Matching::of_key(AttributeId::AdmissionID.attribute(), &key, &literal).unwrap();
        assert!(!optional.matches(""));
    }

    fn element(tag: Tag, vr: VR, text: &str) -> KeyElement {
        KeyElement { tag, vr, value: KeyValue::Text(text.into()) }
    }

    // PS3.4 C.2.2.1.3: an unsupported element makes no condition, and the other conditions stay.
    #[test]
    fn an_element_without_a_type_of_matching_does_not_count_in_an_item() {
        let stored = r#"[{"00400009":{"vr":"SH","Value":["S1"]},"00081140":{"vr":"SQ","Value":[{"00081150":{"vr":"UI","Value":["1.2"]}}]}}]"#;
        let step = |id: &str| element(Tag(0x0040, 0x0009), VR::SH, id);
        let private = element(Tag(0x0009, 0x1001), VR::UN, "x");
        let matches =
            |item: Vec<KeyElement>| Matching::of_items(&[item], &MatchPolicy::default()).unwrap().matches(stored);
        assert!(matches(vec![private.clone(), step("S1")]) && !matches(vec![private.clone(), step("S2")]));
        assert!(matches(vec![private.clone()]));
        let within = |uid: &str| KeyElement {
            tag: Tag(0x0008, 0x1140),
            vr: VR::SQ,
            value: KeyValue::Items(vec![vec![private.clone(), element(Tag(0x0008, 0x1150), VR::UI, uid)]]),
        };
        assert!(matches(vec![within("1.2"), step("S?")]) && !matches(vec![within("1.3"), step("S1")]));
    }

    #[test]
    fn an_element_of_an_item_is_matched_by_its_own_vr() {
        let stored = r#"[{"00400002":{"vr":"DA","Value":["20240115"]}}]"#;
        let items = [vec![element(Tag(0x0040, 0x0002), VR::LO, "20240101-20240131")]];
        assert!(Matching::of_items(&items, &MatchPolicy::default()).unwrap().matches(stored));
        let nothing = KeyValue::Items(Vec::new());
        let name = Matching::of_key(AttributeId::PatientName.attribute(), &nothing, &MatchPolicy::default());
        assert!(matches!(name, Ok(Matching::Universal)));
    }

    // PS3.4 C.2.2.2.6.
    #[test]
    fn all_keys_of_an_item_have_to_match_in_one_item() {
        let value = Tag(0x0008, 0x0100);
        let scheme = Tag(0x0008, 0x0102);
        let stored = r#"[{"00080100":{"vr":"SH","Value":["A"]},"00080102":{"vr":"SH","Value":["DCM"]}},
            {"00080100":{"vr":"SH","Value":["B"]},"00080102":{"vr":"SH","Value":["SRT"]}}]"#;
        let item = |code: &str, of: &str| vec![vec![element(value, VR::SH, code), element(scheme, VR::SH, of)]];
        let matches =
            |items: &[Vec<KeyElement>]| Matching::of_items(items, &MatchPolicy::default()).unwrap().matches(stored);
        assert!(matches(&item("A", "DCM")) && matches(&item("B", "")) && matches(&item("?", "S*")));
        assert!(!matches(&item("A", "SRT")) && !matches(&item("C", "")));
        assert!(matches(&[]) && matches(&[vec![]]) && matches(&item("", "*")));
        let twice = [item("A", "").concat(), item("B", "").concat()];
        assert_eq!(Matching::of_items(&twice, &MatchPolicy::default()).err(), Some(MatchingError::SeveralItems));
    }

    #[test]
    fn sequences_are_matched_within_sequences() {
        let code = Tag(0x0040, 0x0008);
        let nested = vec![vec![KeyElement {
            tag: code,
            vr: VR::SQ,
            value: KeyValue::Items(vec![vec![element(Tag(0x0008, 0x0104), VR::LO, "kopf*")]]),
        }]];
        let matching = Matching::of_items(&nested, &MatchPolicy::default()).unwrap();
        let stored = |meaning: &str| {
            format!(r#"[{{"00400008":{{"vr":"SQ","Value":[{{"00080104":{{"vr":"LO","Value":["{meaning}"]}}}}]}}}}]"#)
        };
        assert!(matching.matches(&stored("Kopf CT")) && !matching.matches(&stored("Thorax")));
        for broken in ["", "[]", "[{}]", "{", "[null]", "\"x\"", r#"[{"00400008":{"vr":"SQ"}}]"#] {
            assert!(!matching.matches(broken), "{broken}");
        }
    }

    #[test]
    fn names_and_numbers_in_items_are_matched_as_elsewhere() {
        let items =
            vec![vec![element(Tag(0x0040, 0x0006), VR::PN, "山田"), element(Tag(0x0020, 0x0013), VR::IS, "01")]];
        let matching = Matching::of_items(&items, &MatchPolicy::default()).unwrap();
        assert!(matching.matches(
            r#"[{"00400006":{"vr":"PN","Value":[{"Alphabetic":"Yamada","Ideographic":"山田^太郎"}]},"00200013":{"vr":"IS","Value":[1]}}]"#
        ));
    }

    #[test]
    fn a_key_shows_no_value_when_printed() {
        let shown = format!("{:?} {}", one(VR::PN, "SECRET"), MatchingError::InvalidRange(VR::DA));
        assert!(!shown.contains("SECRET"), "{shown}");
    }

    #[test]
    fn narrowing_uses_what_an_index_can() {
        assert_eq!(one(VR::LO, "P1").narrowing(), Narrowing::Equals(vec!["P1".into()]));
        assert_eq!(one(VR::LO, "P1?*").narrowing(), Narrowing::Prefix("P1".into()));
        assert_eq!(one(VR::LO, "*1").narrowing(), Narrowing::None);
        assert_eq!(one(VR::PN, "Müll*").narrowing(), Narrowing::NamePrefix("mull".into()));
        assert_eq!(one(VR::PN, "SMITH^*").narrowing(), Narrowing::NamePrefix("smith".into()));
        assert_eq!(one(VR::PN, "=山田").narrowing(), Narrowing::NamePrefix("山田".into()));
        let part = |key, text: &str, starts, ends| {
            assert_eq!(
                one(VR::PN, key).narrowing(),
                Narrowing::NamePart(NamePart { text: text.into(), starts, ends }),
                "{key}"
            );
        };
        part("*MITH*", "mith", false, false);
        part("?-van der berg*^*", "berg", true, false);
        part("*SMITH^J*", "smith", false, true);
        part("*^JOHN*", "john", true, false);
        part("*^JOHN", "john", true, true);
        part("*^JOHN^*", "john", true, true);
        part("*JOH?", "joh", false, false);
        part("?OHN", "ohn", false, true);
        part("*A^?*^BCD ?*", "bcd", true, true);
        assert!(one(VR::PN, "SMITH^J*").may_match_name_group("smith^john"));
        assert!(!one(VR::PN, "SMITH^J*").may_match_name_group("smith^ann"));
        assert!(!one(VR::PN, "SMITH").may_match_name_group("smithson"));
        assert!(one(VR::PN, "STRA?E*").may_match_name_group("strasse"));
        let fuzzy = MatchPolicy { names: NameMatching::Fuzzy, ..MatchPolicy::default() };
        let word = |prefix: &str, sounds: &[&str]| Narrowing::NameWord {
            prefix: prefix.into(),
            sounds: sounds.iter().map(|code| (*code).to_owned()).collect(),
        };
        let fuzzily = |key| with(VR::PN, Multiplicity::One, LetterCase::Sensitive, key, &fuzzy).narrowing();
        assert_eq!(fuzzily("J Smith"), word("smith", &["SM0", "XMT"]));
        let part = |text: &str, starts, ends| Narrowing::NamePart(NamePart { text: text.into(), starts, ends });
        assert_eq!(fuzzily("Smi*"), part("smi", true, false));
        assert_eq!(fuzzily("*MITH* Jo"), part("mith", false, false));
        assert_eq!(fuzzily("S*TH"), part("th", false, true));
        assert_eq!(fuzzily("?* ?"), Narrowing::None);
        assert_eq!(one(VR::DA, "20240105").narrowing(), Narrowing::Equals(vec!["20240105".into()]));
        assert_eq!(one(VR::DA, "20240105-").narrowing(), Narrowing::Between("20240105".into(), "99991231".into()));
        assert_eq!(one(VR::TM, "1030-11").narrowing(), Narrowing::Between("1030".into(), "115960.999999:".into()));
        assert_eq!(many(VR::CS, "CT").narrowing(), Narrowing::None);
    }

    fn words(name: &str) -> Vec<String> {
        let groups = person_name::normal_groups(name);
        groups.iter().flat_map(|group| person_name::words(group)).map(str::to_owned).collect()
    }

    fn admits(matching: &Matching, narrowing: &Narrowing, stored: &str) -> bool {
        match narrowing {
            Narrowing::None => true,
            Narrowing::Equals(values) => values.iter().any(|value| value == stored),
            Narrowing::Between(first, last) => first.as_str() <= stored && stored <= last.as_str(),
            Narrowing::Prefix(prefix) => stored.starts_with(prefix.as_str()),
            Narrowing::NamePrefix(prefix) => person_name::normal_groups(stored)
                .iter()
                .any(|group| group.starts_with(prefix.as_str()) && matching.may_match_name_group(group)),
            Narrowing::NamePart(NamePart { text, starts, ends }) => words(stored).iter().any(|word| {
                word.contains(text.as_str())
                    && (!starts || word.starts_with(text.as_str()))
                    && (!ends || word.ends_with(text.as_str()))
                    && (!(*starts && *ends) || word == text)
            }),
            Narrowing::NameWord { prefix, sounds } => words(stored).iter().any(|word| {
                let sound = super::super::sound::Sound::of_word(word);
                word.starts_with(prefix.as_str())
                    || sound.is_some_and(|sound| sound.codes().any(|code| sounds.iter().any(|other| other == code)))
            }),
        }
    }

    fn text_of(vr: VR) -> BoxedStrategy<String> {
        match vr {
            VR::DA => "(19|20)[0-9]{2}(\\.?(0[1-9]|1[0-3])(\\.?(0[1-9]|3[0-2]))?)?".boxed(),
            VR::TM => "[01][0-9](:?[0-5][0-9](:?[0-6][0-9](\\.[0-9]{1,6})?)?)?".boxed(),
            VR::DT => "20[0-9]{2}(0[1-9]([0-2][1-9]([01][0-9]([0-5][0-9])?)?)?)?([+-]0[0-5]00)?".boxed(),
            VR::IS | VR::DS | VR::US => "[-+]?[0-2]{0,2}(\\.[0-2])?".boxed(),
            VR::PN => "[ABßæÉ山ﾀﾞสำ\u{AD}ﬁ ^=-]{0,8}".boxed(),
            VR::UI => "1\\.[12]{1,2}".boxed(),
            _ => "[ABßæÉ山ﾀﾞ %_^'\"]{0,6}".boxed(),
        }
    }

    fn key_of(vr: VR) -> BoxedStrategy<String> {
        let text = text_of(vr);
        match vr {
            VR::DA | VR::TM | VR::DT => prop_oneof![
                3 => text.clone(),
                1 => (text.clone(), text.clone()).prop_map(|(low, high)| format!("{low} - {high}")),
                1 => text.clone().prop_map(|low| format!("{low}-")),
                1 => text.prop_map(|high| format!("-{high}")),
            ]
            .boxed(),
            VR::PN => "[abßÉ山ﾀﾞสำ\u{AD}ﬁ ^=*?-]{0,8}".boxed(),
            VR::LO => "[ABßé山ﾀﾞ %_^'\"*?]{0,6}".boxed(),
            _ => text,
        }
    }

    /// Returns a stored value in the form that reading an object gives it: see
    /// [`crate::model::value`].
    fn as_read(vr: VR, text: &str) -> String {
        let mut read = String::new();
        crate::model::value::push_one(&mut read, vr, text);
        read
    }

    fn attribute_key_and_stored() -> impl Strategy<Value = (&'static Attribute, String, String)> {
        let text: Vec<_> =
            ATTRIBUTES.iter().filter(|a| a.vr != VR::SQ && a.source != ValueSource::AlwaysEmpty).collect();
        proptest::sample::select(text)
            .prop_flat_map(|attribute| (Just(attribute), key_of(attribute.vr), text_of(attribute.vr)))
    }

    proptest! {
        /// Tests the contract of [`Narrowing`] for every attribute: an index that uses it loses no
        /// match, and `Equals` is exact.
        #[test]
        fn narrowing_loses_no_match((attribute, key, stored) in attribute_key_and_stored(), quoted in any::<bool>(), fuzzy in any::<bool>()) {
            let policy = MatchPolicy {
                names: if fuzzy { NameMatching::Fuzzy } else { NameMatching::LeadingComponents },
                unknown_required: if quoted { UnknownRequired::Match } else { UnknownRequired::NoMatch },
                ..MatchPolicy::default()
            };
            if let Ok(matching) = Matching::of_key(attribute, &KeyValue::Text(key.clone()), &policy) {
                for stored in [stored.as_str(), key.as_str(), ""] {
                    let stored = as_read(attribute.vr, stored);
                    let narrowing = matching.narrowing();
                    let is_separated = stored.contains('\\') && matching.looks_into_separated_values();
                    if is_separated {
                        // `looks_into_separated_values` covers this value.
                    } else if matching.matches(&stored) {
                        prop_assert!(admits(&matching, &narrowing, &stored), "{} {key:?} {stored:?} {narrowing:?}", attribute.keyword);
                    } else if matches!(narrowing, Narrowing::Equals(_)) {
                        prop_assert!(!admits(&matching, &narrowing, &stored), "{} {key:?} {stored:?}", attribute.keyword);
                    }
                }
            }
        }

        #[test]
        fn no_key_and_no_value_is_too_odd(key in any::<String>(), stored in any::<String>()) {
            for attribute in ATTRIBUTES {
                if let Ok(matching) = Matching::of_key(attribute, &KeyValue::Text(key.clone()), &MatchPolicy::default()) {
                    prop_assert_eq!(matching.matches(&stored), matching.matches(&stored));
                    prop_assert_eq!(matching.narrowing(), matching.narrowing());
                }
            }
        }
    }
}
