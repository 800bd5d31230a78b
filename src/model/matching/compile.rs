//! From the value of a key to its [`Matching`].

use dicom_core::VR;

use super::by_character::CharacterPattern;
use super::date_time::range_ends;
use super::decimal::Decimal;
use super::key::{
    Comparison, KeyElement, KeyValue, MAX_KEY_VALUE_LENGTH, MatchPolicy, MatchingError, QuotationMarks, SeveralValues,
    UnknownRequired, has_empty_value_matching, has_multiple_value_matching, item_comparison, separates_values, trim,
};
use super::name::NameCondition;
use super::narrowing::is_all_stars;
use super::range_end::RangeEnd;
use super::sequence::json_key;
use super::span::Span;
use super::value::{BackslashMeaning, FoldedPattern, PatternKind, PreparedValue, SplitRules};
use super::wild_card::WildCard;
use super::{ItemCondition, ListOfUid, Matching, Pattern, RangeCondition, SequenceMatching, SingleValue};
use crate::encoding::vr::{is_binary, is_number};
use crate::model::attribute::{Attribute, KeyType, LetterCase, Multiplicity};
use crate::model::person_name;
use crate::model::uid::MAX_LENIENT_UID_LENGTH;

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
        (vr, _) if is_number(vr) => {
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
        // One hyphen is that of the range.
        let names_offset = vr == VR::DT && (key.contains('+') || key.matches('-').count() > 1);
        let range = |low: Option<Span>, high: Option<Span>| match (low, high) {
            (None, None) => Matching::Universal,
            (low, high) => Matching::Range(RangeCondition { span: Span::between(vr, low, high), stored, names_offset }),
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
