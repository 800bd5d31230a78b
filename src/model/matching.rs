//! Attribute matching (PS3.4 C.2.2.2).
//!
//! A [`Matching`] is compiled once from the value of a key. It then tests each stored value that an
//! index yields. Compiling takes time proportional to the key, and testing takes time proportional
//! to the stored value. This also holds for a key with many wild cards.

mod by_character;
mod compile;
mod date_time;
mod decimal;
mod key;
mod name;
mod narrowing;
mod range_end;
mod sequence;
mod span;
mod value;
mod wild_card;

use std::fmt;

use dicom_core::{Tag, VR};

pub use self::date_time::DateTimeRange;
pub(super) use self::key::multiplicity_of;
pub use self::key::{
    Comparison, KeyElement, KeyValue, MAX_KEY_VALUE_LENGTH, MatchPolicy, MatchingError, QuotationMarks, SeveralValues,
    UnknownRequired, is_matched_in_item, separates_values, trim,
};
pub use self::narrowing::{NameMatching, NamePart, Narrowing};
pub use self::sequence::{joined_values, json_key};
use self::span::Span;
use self::value::{BackslashMeaning, PatternKind, PreparedValue, SplitRules};
use super::datetime;

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
    /// Whether an end has an offset from UTC.
    names_offset: bool,
}

impl Matching {
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
            Self::Sequence(sequence) => sequence.matches(stored, ""),
            Self::EmptyValue => stored.is_empty(),
            Self::MultipleValue(all) => all.iter().all(|matching| matching.matches(stored)),
            Self::AnyOf(any) => any.iter().any(|matching| matching.matches(stored)),
        }
    }

    /// Whether a stored DT, or the DTs in the items of a sequence, fulfil the condition. `zone` is
    /// Timezone Offset From UTC (0008,0201) of the data set.
    ///
    /// A key with an offset takes a stored value without one to be in that zone (PS3.5 table
    /// 6.2-1). A key without an offset is compared with the value as it is written.
    #[must_use]
    pub fn matches_in_zone(&self, stored: &str, zone: &str) -> bool {
        match self {
            Self::MultipleValue(all) => all.iter().all(|matching| matching.matches_in_zone(stored, zone)),
            Self::AnyOf(any) => any.iter().any(|matching| matching.matches_in_zone(stored, zone)),
            Self::Sequence(sequence) => sequence.matches(stored, zone),
            one if one.names_offset() => {
                let values = stored.split('\\').map(|value| datetime::in_zone(value, zone));
                one.matches(&values.collect::<Vec<_>>().join("\\"))
            }
            one => one.matches(stored),
        }
    }

    /// Whether the key is a DT with an offset from UTC, or has one in its item.
    #[must_use]
    pub fn names_offset(&self) -> bool {
        match self {
            Self::SingleValue(SingleValue { value: PreparedValue::Moment { text, .. }, stored }) => {
                stored.vr == VR::DT && datetime::has_offset(text)
            }
            Self::Range(range) => range.names_offset,
            Self::MultipleValue(list) | Self::AnyOf(list) => list.iter().any(Self::names_offset),
            Self::Sequence(sequence) => sequence.conditions.iter().any(|condition| condition.matching.names_offset()),
            _ => false,
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
    /// [normal form](super::person_name::normal_form).
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
    fn matches(&self, stored: &str, zone: &str) -> bool {
        use serde::Deserialize as _;

        let mut deserializer = serde_json::Deserializer::from_str(stored);
        // The header reader already limits the depth of items. The limit of `serde_json` would be
        // lower.
        deserializer.disable_recursion_limit();
        // An empty or invalid value has no items, so nothing can match.
        let items = Vec::<serde_json::Value>::deserialize(&mut deserializer).unwrap_or_default();
        deserializer.end().is_ok() && items.iter().any(|item| self.in_zone(zone).matches(item))
    }

    /// The conditions, for items of a data set with this Timezone Offset From UTC (0008,0201).
    #[must_use]
    pub const fn in_zone<'m>(&'m self, zone: &'m str) -> ItemMatching<'m> {
        ItemMatching { sequence: self, zone }
    }
}

/// The conditions on items of one data set.
#[derive(Clone, Copy, Debug)]
pub struct ItemMatching<'m> {
    sequence: &'m SequenceMatching,
    zone: &'m str,
}

impl<'m> ItemMatching<'m> {
    /// Whether an item (an object of the DICOM JSON Model) fulfils all conditions. Only such items
    /// are returned.
    #[must_use]
    pub fn matches(&self, item: &serde_json::Value) -> bool {
        self.sequence.conditions.iter().all(|condition| {
            let element = item.get(condition.json_key.as_str());
            let values = element.and_then(|element| element.get("Value")).and_then(serde_json::Value::as_array);
            match &condition.matching {
                Matching::Sequence(nested) => {
                    values.is_some_and(|items| items.iter().any(|item| nested.in_zone(self.zone).matches(item)))
                }
                other => {
                    let stored = values.map(|values| joined_values(values)).unwrap_or_default();
                    other.matches_in_zone(&stored, self.zone)
                }
            }
        })
    }

    /// Returns the condition on a sequence inside the items, if there is one.
    #[must_use]
    pub fn nested(&self, tag: Tag) -> Option<Self> {
        self.sequence.conditions.iter().find_map(|condition| match &condition.matching {
            Matching::Sequence(nested) if condition.tag == tag => Some(nested.in_zone(self.zone)),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::attribute::{ATTRIBUTES, Attribute, AttributeId, LetterCase, Multiplicity, ValueSource};
    use super::super::person_name;
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

    // PS3.5 table 6.2-1.
    #[test]
    fn a_moment_is_in_the_zone_of_its_data_set_if_the_key_names_an_offset() {
        let stored = "20240101003000";
        for (key, zone, found) in [
            ("20231231233000+0000", "+0100", true),
            ("20240101003000+0000", "+0100", false),
            ("20231231232900+0000-20231231233100+0000", "+0100", true),
            ("20231231-0500", "+0100", true),
            ("-20231231233000+0000", "+0100", true),
            ("20240101+0000-", "+0100", false),
            ("20231231233000+0000\\1999", "+0100", true),
            ("20240101003000", "+0100", true),
            ("20240101-20240102", "+0100", true),
            ("20231231", "+0100", false),
            ("20240101003000+0000", "", true),
        ] {
            assert_eq!(one(VR::DT, key).matches_in_zone(stored, zone), found, "{key} {zone}");
        }
        assert!(one(VR::DT, "20240101002900+0000").matches_in_zone("20240101012900+0100", "-0500"), "its own counts");
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
        // Only stars match a name that is missing.
        accepts(VR::PN, "^*", &["^JOHN"]);
        refuses(VR::PN, "^*", &["", "^^", "="]);
        refuses(VR::PN, "*^*", &[""]);
        refuses(VR::PN, "=^*", &["SMITH"]);
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
                let sound = super::super::metaphone::Sound::of_word(word);
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
