//! The tables of the conformance statement (PS3.2) that say what queries can do, made by asking the code that does it.

use std::fmt::Write as _;

use dicom_core::{Tag, VR};

use super::error::{Failure, FindError};
use super::identifier::IdentifierError;
use super::negotiation::NegotiatedOptions;
use super::retrieve::RetrieveError;
use crate::db::{self, can_answer, can_answer_declared};
use crate::model::attribute::{ATTRIBUTES, Attribute, AttributeId, KeyType, LetterCase, Source};
use crate::model::charset::CharacterSets;
use crate::model::declared::{DeclaredSet, Kept, Step};
use crate::model::level::{InformationModel, QueryRetrieveLevel};
use crate::model::matching::{
    KeyElement, KeyValue, MatchPolicy, Matching, MatchingError, NameMatching, QuotationMarks, SeveralValues,
};
use crate::qr::identifier::SPECIFIC_CHARACTER_SET;
use crate::qr::parse::{is_only_answered, level_in};

/// The defined terms of PS3.3 C.12.1.1.2, tables C.12-2 to C.12-5.
const DEFINED_TERMS: &[&str] = &[
    "ISO_IR 6",
    "ISO_IR 100",
    "ISO_IR 101",
    "ISO_IR 109",
    "ISO_IR 110",
    "ISO_IR 144",
    "ISO_IR 127",
    "ISO_IR 126",
    "ISO_IR 138",
    "ISO_IR 148",
    "ISO_IR 203",
    "ISO_IR 13",
    "ISO_IR 166",
    "ISO 2022 IR 6",
    "ISO 2022 IR 100",
    "ISO 2022 IR 101",
    "ISO 2022 IR 109",
    "ISO 2022 IR 110",
    "ISO 2022 IR 144",
    "ISO 2022 IR 127",
    "ISO 2022 IR 126",
    "ISO 2022 IR 138",
    "ISO 2022 IR 148",
    "ISO 2022 IR 203",
    "ISO 2022 IR 13",
    "ISO 2022 IR 166",
    "ISO 2022 IR 87",
    "ISO 2022 IR 159",
    "ISO 2022 IR 149",
    "ISO 2022 IR 58",
    "ISO_IR 192",
    "GB18030",
    "GBK",
];

/// Each generated section: its name in the document, and its text in Markdown.
#[must_use]
pub fn sections() -> Vec<(&'static str, String)> {
    vec![
        ("attributes PATIENT", attributes(QueryRetrieveLevel::Patient)),
        ("attributes STUDY", attributes(QueryRetrieveLevel::Study)),
        ("attributes SERIES", attributes(QueryRetrieveLevel::Series)),
        ("attributes IMAGE", attributes(QueryRetrieveLevel::Image)),
        ("matching by example", matching_examples()),
        ("extended negotiation", extended_negotiation()),
        ("character sets", character_sets()),
        ("C-FIND status codes", statuses()),
        ("C-GET and C-MOVE status codes", retrieval_statuses()),
    ]
}

/// The attributes of a level: PS3.4 tables C.6-1 to C.6-5.
fn attributes(level: QueryRetrieveLevel) -> String {
    let mut text = String::from(
        "| Attribute | Tag | VR | Patient Root | Study Root | Matching | Answered at |\n|---|---|---|---|---|---|---|\n",
    );
    // Specific Character Set says how the keys are written; it is none.
    let is_key = |attribute: &&Attribute| attribute.level == level && attribute.tag != SPECIFIC_CHARACTER_SET;
    let mut rows: Vec<_> = ATTRIBUTES.iter().filter(is_key).collect();
    rows.sort_by_key(|attribute| (key_order(attribute.key), attribute.tag));
    for attribute in rows {
        let answered: Vec<_> = QueryRetrieveLevel::ALL
            .into_iter()
            .filter(|level| can_answer(attribute, *level))
            .map(QueryRetrieveLevel::as_str)
            .collect();
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} |",
            attribute.keyword,
            attribute.tag,
            attribute.vr.to_string(),
            key_type(InformationModel::PatientRoot, attribute),
            key_type(InformationModel::StudyRoot, attribute),
            matching_types(attribute),
            answered.join(", "),
        );
    }
    text
}

/// The attributes that the configuration declares: standard and private ones, and those in sequences.
#[must_use]
pub fn declared_attributes(declared: &DeclaredSet) -> String {
    if declared.attributes().is_empty() {
        return "None.\n".to_owned();
    }
    let mut text = String::from(
        "| Name | Path | Private creator | VR | Level | Key type | Matching | Answered at |\n|---|---|---|---|---|---|---|---|\n",
    );
    for attribute in declared.attributes() {
        let path: Vec<_> = attribute.path.iter().map(ToString::to_string).collect();
        let mut creators: Vec<&str> = attribute
            .path
            .iter()
            .filter_map(|step| match step {
                Step::Private { creator, .. } => Some(creator.as_str()),
                Step::Public(_) => None,
            })
            .collect();
        creators.dedup();
        let comparison = match attribute.kept {
            Kept::Unit(number) if path.len() == 1 => declared.units().get(number).map(|unit| unit.comparison()),
            Kept::Unit(_) | Kept::InTable(_) => None,
        };
        let matching = match comparison {
            Some(comparison) if comparison.vr != VR::SQ => types_of(|key| match key {
                KeyValue::Text(key) => Matching::compile(comparison, key, &negotiated_policy()),
                KeyValue::Items(_) => Err(MatchingError::WrongKind(comparison.vr)),
            }),
            Some(_) | None => "sequence, universal".to_owned(),
        };
        let answered: Vec<_> = QueryRetrieveLevel::ALL
            .into_iter()
            .filter(|level| match attribute.kept {
                Kept::Unit(number) => {
                    declared.units().get(number).is_some_and(|unit| can_answer_declared(unit, *level))
                }
                Kept::InTable(id) => can_answer(id.attribute(), *level),
            })
            .map(QueryRetrieveLevel::as_str)
            .collect();
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | O | {matching} | {} |",
            attribute.name,
            path.join(" > "),
            creators.join(", "),
            attribute.vr.to_string(),
            attribute.level,
            answered.join(", "),
        );
    }
    text
}

fn key_order(key: KeyType) -> u8 {
    match key {
        KeyType::Unique => 0,
        KeyType::Required => 1,
        KeyType::Optional => 2,
    }
}

/// The key type in a model. In Study Root, Patient ID identifies no entity and is a required key (PS3.4 table C.6-5).
fn key_type(model: InformationModel, attribute: &Attribute) -> &'static str {
    let moved = level_in(model, attribute) != attribute.level;
    match attribute.key {
        KeyType::Unique if moved => "R",
        KeyType::Unique => "U",
        KeyType::Required => "R",
        KeyType::Optional => "O",
    }
}

/// The types of matching that keys of an attribute can get, found by trying.
fn matching_types(attribute: &Attribute) -> String {
    if attribute.source == Source::AlwaysEmpty {
        return "none; answered with zero length".to_owned();
    }
    if is_only_answered(attribute.id) || attribute.keyword == "RetrieveAETitle" {
        return "none; answered only".to_owned();
    }
    let types = types_of(|key| Matching::of_key(attribute, key, &negotiated_policy()));
    let folded = attribute.vr != VR::SQ && attribute.letter_case == LetterCase::Folded;
    format!("{types}{}", if folded { "; case and accents do not count" } else { "" })
}

fn negotiated_policy() -> MatchPolicy {
    MatchPolicy {
        several_values: SeveralValues::AllOf,
        quotation_marks: QuotationMarks::EmptyValue,
        ..MatchPolicy::default()
    }
}

/// The types of matching that a way to make a condition can give.
fn types_of(make: impl Fn(&KeyValue) -> Result<Matching, MatchingError>) -> String {
    let item = vec![KeyElement { tag: Tag(0x0008, 0x0100), vr: VR::SH, value: KeyValue::Text("A".to_owned()) }];
    let mut keys: Vec<KeyValue> =
        ["1", "A*", "20200101-20200102", "10-11", "\"\"", "A\\B"].map(|key| KeyValue::Text(key.to_owned())).into();
    keys.push(KeyValue::Items(vec![item]));
    let mut types: Vec<&str> = Vec::new();
    for key in &keys {
        match make(key) {
            Ok(matching) if !types.contains(&matching.type_name()) && is_named_by_standard(&matching) => {
                types.push(matching.type_name());
            }
            Ok(_) | Err(_) => {}
        }
    }
    format!("{}, universal", types.join(", "))
}

/// What keys of some attributes find, and what they do not, found by trying.
fn matching_examples() -> String {
    use AttributeId::{AccessionNumber, PatientID, PatientName, StudyDate, StudyDescription, StudyTime};
    let plain = MatchPolicy::default();
    let fuzzy = MatchPolicy { names: NameMatching::Fuzzy, ..plain };
    let examples: [(AttributeId, &str, &MatchPolicy, &[&str]); 18] = [
        (PatientID, "A", &plain, &["A", "A\\B", "AB"]),
        (PatientID, "A\\B", &plain, &["A", "B", "A\\B", "C"]),
        (StudyDescription, "CHEST", &plain, &["ct\\chest", "chest ct"]),
        (AccessionNumber, "A?", &plain, &["A1", "A", "A12"]),
        (PatientName, "SMITH", &plain, &["SMITH^JOHN", "JONES^A\\SMITH^B", "SMITHSON^JOHN"]),
        (PatientName, "Stra?e", &plain, &["Straße", "Strasse"]),
        (PatientName, "ส?ราญ", &plain, &["สำราญ"]),
        (PatientName, "*MITH*", &plain, &["SMITH^JOHN", "SMYTHE^JOHN"]),
        (PatientName, "*MITH*", &fuzzy, &["SMITH^JOHN", "SMYTHE^JOHN"]),
        (PatientName, "S*TH", &fuzzy, &["SMITH^JOHN", "SMYTHE^JOHN"]),
        (PatientName, "john smyth", &fuzzy, &["SMITH^JOHN", "SMITH^MARY"]),
        (StudyDate, "20240201-20240231", &plain, &["20240229", "20240301"]),
        (StudyDate, "00000000-20240131", &plain, &["19000101", "20240201"]),
        (StudyDate, "19000101-99999999", &plain, &["20240101"]),
        (StudyDate, "20241301-20241331", &plain, &[]),
        (StudyTime, "000000-240000", &plain, &["000000", "235959.999999"]),
        (StudyTime, "20240101100000-20240101180000", &plain, &["1200", "1900"]),
        (StudyTime, "10-25", &plain, &[]),
    ];
    let mut text = String::from("| Attribute | Key | Finds | Does not find |\n|---|---|---|---|\n");
    for (id, key, policy, stored) in examples {
        let name = id.attribute().keyword;
        let negotiated = if policy.names == NameMatching::Fuzzy { ", fuzzy" } else { "" };
        let Ok(matching) = Matching::of_key(id.attribute(), &KeyValue::Text(key.to_owned()), policy) else {
            let _ = writeln!(text, "| {name}{negotiated} | `{key}` | refused: A900 | |");
            continue;
        };
        let (found, other): (Vec<_>, Vec<_>) = stored.iter().partition(|stored| matching.matches(stored));
        let list = |texts: &[&&str]| texts.iter().map(|text| format!("`{text}`")).collect::<Vec<_>>().join(", ");
        let _ = writeln!(text, "| {name}{negotiated} | `{key}` | {} | {} |", list(&found), list(&other));
    }
    text
}

fn is_named_by_standard(matching: &Matching) -> bool {
    !matches!(matching, Matching::AnyOf(_) | Matching::Universal)
}

/// PS3.4 table C.5-3.
fn extended_negotiation() -> String {
    const BYTES: [&str; 7] = [
        "Relational queries",
        "Combined date-time matching",
        "Fuzzy semantic matching of person names",
        "Timezone query adjustment",
        "Enhanced multi-frame image conversion",
        "Empty value matching",
        "Multiple value matching",
    ];
    let (_, answer) = NegotiatedOptions::answer(&[1; BYTES.len()]);
    let mut text = String::from("| Byte | Behaviour | Answer when asked for |\n|---|---|---|\n");
    for (at, (behaviour, answer)) in BYTES.iter().zip(answer).enumerate() {
        let _ = writeln!(text, "| {} | {behaviour} | {answer} |", at + 1);
    }
    text
}

fn character_sets() -> String {
    let (known, unknown): (Vec<_>, Vec<_>) = DEFINED_TERMS.iter().partition(|term| {
        // Code extensions without a first value stand for the default repertoire.
        let value = if term.starts_with("ISO 2022") { format!("\\{term}") } else { (**term).to_owned() };
        CharacterSets::new(&value).recognised()
    });
    let list = |terms: &[&&str]| terms.iter().map(|term| format!("`{term}`")).collect::<Vec<_>>().join(", ");
    let mut text = format!("Supported: {}.\n", list(&known));
    if !unknown.is_empty() {
        let _ = writeln!(text, "\nNot supported: {}.", list(&unknown));
    }
    text
}

/// PS3.4 table C.4-1, as [`FindError::failure`] fills it in.
fn statuses() -> String {
    let tag = Tag(0x0010, 0x0010);
    let errors = [
        (FindError::TooManyMatches(0), "a configured limit of answers was reached; as many were sent"),
        (FindError::TimeLimit, "the query took longer than its time limit"),
        (FindError::MissingLevel, "Query/Retrieve Level is absent"),
        (FindError::UnknownLevel, "Query/Retrieve Level is none of the defined terms"),
        (
            FindError::LevelNotInModel { level: QueryRetrieveLevel::Patient, model: InformationModel::StudyRoot },
            "the Information Model has no such level",
        ),
        (FindError::UniqueKeyAbove(tag), "strict hierarchical queries only: a unique key above the level is not given"),
        (FindError::KeyOfOtherLevel(tag), "strict hierarchical queries only: a key of another level"),
        (
            FindError::InvalidKey(tag, MatchingError::SeveralItems),
            "a range with an end that has no meaning, or a sequence key with several items",
        ),
        (FindError::Identifier(IdentifierError::TooDeep), "the Identifier is no data set, or passes a limit"),
        (FindError::Index(db::Error::Interrupted), "the index could not answer"),
        (FindError::Cancelled, "C-CANCEL, or the association is gone"),
    ];
    let mut text = String::from("| Status | Meaning | Offending Element | Error Comment |\n|---|---|---|---|\n");
    text.push_str("| 0000 | no more matches | | |\n");
    text.push_str("| FF00 | a match; every key is supported | | |\n");
    text.push_str("| FF01 | a match; one or more optional keys are not supported | | |\n");
    push_failures(&mut text, tag, errors.iter().map(|(error, meaning)| (error.failure(), *meaning)));
    text
}

/// Rows of a table of statuses; `key` stands for whichever key it is.
fn push_failures<'m>(text: &mut String, key: Tag, failures: impl Iterator<Item = (Failure, &'m str)>) {
    for (failure, meaning) in failures {
        let offending = match failure.offending_elements.as_slice() {
            [] => String::new(),
            [one] if *one == key => "the key".to_owned(),
            several => several.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        };
        let comment = if failure.status == super::error::STATUS_CANCEL { "" } else { "yes" };
        let _ = writeln!(text, "| {:04X} | {meaning} | {offending} | {comment} |", failure.status);
    }
}

/// PS3.4 tables C.4-2 and C.4-3, as [`RetrieveError::failure`] fills them in.
fn retrieval_statuses() -> String {
    let tag = Tag(0x0010, 0x0010);
    let errors: [(RetrieveError, &str); 8] = [
        (RetrieveError::TooManyInstances(0), "more instances than `retrieve.max_instances`"),
        (FindError::TimeLimit.into(), "finding the instances took longer than `network.query_time_limit_seconds`"),
        (FindError::MissingLevel.into(), "Query/Retrieve Level is absent"),
        (
            FindError::LevelNotInModel { level: QueryRetrieveLevel::Patient, model: InformationModel::StudyRoot }
                .into(),
            "the Information Model has no such level",
        ),
        (RetrieveError::NoUniqueKey(tag), "the unique key of the level is absent, empty or has a wild card"),
        (RetrieveError::SeveralValues(tag), "a list where one value is allowed"),
        (FindError::Identifier(IdentifierError::TooDeep).into(), "the Identifier is no data set, or passes a limit"),
        (FindError::Index(db::Error::Interrupted).into(), "the index could not answer"),
    ];
    let mut text = String::from("| Status | Meaning | Offending Element | Error Comment |\n|---|---|---|---|\n");
    text.push_str("| 0000 | every sub-operation succeeded; also where the archive has no such instance | | |\n");
    text.push_str("| FF00 | sub-operations go on | | |\n");
    text.push_str("| B000 | some sub-operations failed or ended with a warning | | why the first one failed |\n");
    text.push_str("| A702 | every sub-operation failed | | why the first one failed |\n");
    text.push_str("| A801 | C-MOVE: the Move Destination is not configured | | yes |\n");
    text.push_str("| FE00 | C-CANCEL; what was being sent was sent to its end | | |\n");
    push_failures(&mut text, tag, errors.iter().map(|(error, meaning)| (error.failure(), *meaning)));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_types_of_matching_are_those_of_the_vr() {
        let of = |keyword| matching_types(Attribute::by_keyword(keyword).unwrap());
        assert_eq!(of("StudyDate"), "single value, range, empty value, universal");
        assert_eq!(of("StudyInstanceUID"), "list of UID, universal");
        assert_eq!(of("ModalitiesInStudy"), "single value, wild card, empty value, multiple value, universal");
        assert_eq!(of("ProcedureCodeSequence"), "sequence, universal");
        assert_eq!(of("InstanceNumber"), "single value, universal");
        assert_eq!(of("StudyStatusID"), "none; answered with zero length");
        assert!(of("PatientName").starts_with("single value, wild card, empty value, universal"));
    }

    #[test]
    fn patient_id_is_no_unique_key_in_study_root() {
        let id = Attribute::by_keyword("PatientID").unwrap();
        assert_eq!(key_type(InformationModel::PatientRoot, id), "U");
        assert_eq!(key_type(InformationModel::StudyRoot, id), "R");
    }
}
