//! Random archives and random queries. `qr` and `db` are compared with a search of all records by
//! the slow matcher.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use dcmdex::db::memory::MemoryIndex;
use dcmdex::db::open::Reader;
use dcmdex::db::{Arrivals, Search, can_answer};
use dcmdex::encoding::charset;
use dcmdex::encoding::syntax::Encoding;
use dcmdex::model::attribute::AttributeId::{self, *};
use dcmdex::model::attribute::{ATTRIBUTES, Attribute, LetterCase, Multiplicity};
use dcmdex::model::clock::Clock;
use dcmdex::model::declared::DeclaredSet;
use dcmdex::model::level::InformationModel::{self, PatientRoot, PatientStudyOnly, StudyRoot};
use dcmdex::model::level::QueryRetrieveLevel::{self, Image, Patient, Series, Study};
use dcmdex::model::matching::{KeyElement, KeyValue, separates_values};
use dcmdex::model::record::InstanceRecord;
use dcmdex::qr::{self, FindError, Identifier, NegotiatedOptions, Options, QueryStop, ResponseWriter};
use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_object::InMemDicomObject;
use proptest::prelude::*;
use proptest::sample::select;

use super::matcher::{self, Rules};
use super::responses::transfer_syntax;
use crate::db;
use crate::util::postgres;

/// Attributes of the archives with their possible values. Each VR and level has at least one.
const POOLS: &[(AttributeId, &[&str])] = &[
    (
        PatientName,
        &[
            "Smith^John",
            "SMITH",
            "Smithson^Ann^^DR",
            "Müller^Éva",
            "MULLER^EVA",
            "Yamada^Tarou=山田^太郎=やまだ^たろう",
            "=山田",
            "Straße^Ærø",
            "O'Brien^50%_x",
            "Meyer^Hans-Peter",
            "MAIER^J",
            "JONES^A\\SMITH^B",
            "สำราญ^ß",
            "ﾀﾞﾀ^e\u{301}va",
        ],
    ),
    (PatientBirthDate, &["19700101", "19991231", "2000", "nonsense"]),
    (PatientBirthTime, &["10", "103000", "235960"]),
    (PatientSex, &["F", "M", "F\\M"]),
    (OtherPatientIDs, &["A", "A\\B", "b"]),
    (OtherPatientNames, &["Smith^Jane\\Jones^A", "山田"]),
    (PatientComments, &["a\\b", "Größe 50%"]),
    (StudyDate, &["20240101", "20240229", "20231231", "20231231\\20240229"]),
    (StudyTime, &["10", "1030", "103000.5", "103000.1234567", "235959"]),
    (AccessionNumber, &["A1", "a1", "A_1", "A%1", "A1\\B2"]),
    (StudyID, &["1", "01"]),
    (StudyDescription, &["CT Schädel", "ct schadel", "Æon 2", "CT\\Schädel"]),
    (ReferringPhysicianName, &["Smith^Q", "Müller"]),
    (AdmittingDiagnosesDescription, &["x\\y", "Y"]),
    (PatientSize, &["1.75", "1.750", "2"]),
    (PatientAge, &["045Y", "001D", "045Y\\001D"]),
    (
        ProcedureCodeSequence,
        &[
            r#"[{"00080100":{"vr":"SH","Value":["A"]},"00080104":{"vr":"LO","Value":["Knie"]},"00404005":{"vr":"DT","Value":["20240101003000"]}},{"00080100":{"vr":"SH","Value":["B"]}}]"#,
            r#"[{"00080100":{"vr":"SH","Value":["B"]},"00080104":{"vr":"LO","Value":["knie"]}}]"#,
        ],
    ),
    (Modality, &["CT", "MR", "SR"]),
    (SeriesNumber, &["1", "01", "2"]),
    (SeriesDescription, &["axial", "AXIAL 2"]),
    (SeriesDate, &["20240101", "20240301"]),
    (SeriesTime, &["10", "103000.5", "10\\1130"]),
    (BodyPartExamined, &["HEAD", "HEAD NECK"]),
    (OperatorsName, &["Meyer^A\\Smith^B", "Meyer"]),
    (FrameOfReferenceUID, &["1.2.3", "1.2.4"]),
    (
        RequestAttributesSequence,
        &[
            r#"[{"00080100":{"vr":"SH","Value":["A"]}},{"00080100":{"vr":"SH","Value":["a\\b"]}}]"#,
            r#"[{"00080100":{"vr":"SH","Value":["C"]},"00404005":{"vr":"DT","Value":["20240101003000+0100"]}},{"00404005":{"vr":"DT","Value":["2024"]}}]"#,
            r#"[{"00080100":{"vr":"SH","Value":["A"]},"00091010":{"vr":"LO","Value":["p"]},"00400008":{"vr":"SQ","Value":[{"00080100":{"vr":"SH","Value":["B"]}},{"00080100":{"vr":"SH","Value":["C"]}}]}}]"#,
        ],
    ),
    (InstanceNumber, &["1", "2", "10", "007"]),
    (SOPClassUID, &["1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"]),
    (ImageType, &["ORIGINAL\\PRIMARY", "DERIVED"]),
    (Rows, &["512", "1024"]),
    (ContentDate, &["20240101", "20240102"]),
    (ContentTime, &["101500", "101500.25", "101500.1234567"]),
    (AcquisitionDateTime, &["20240101101500", "2024", "20240101101500+0200", "20240101081500+0000"]),
    (ConceptNameCodeSequence, &[r#"[{"00080100":{"vr":"SH","Value":["A"]}}]"#]),
];

/// Time zones of studies.
const ZONES: [&str; 2] = ["+0200", "-0500"];

const COMPUTED: &[AttributeId] = &[
    NumberOfPatientRelatedStudies,
    NumberOfPatientRelatedSeries,
    NumberOfPatientRelatedInstances,
    NumberOfStudyRelatedSeries,
    NumberOfStudyRelatedInstances,
    NumberOfSeriesRelatedInstances,
    ModalitiesInStudy,
    SOPClassesInStudy,
];

type Values = Vec<(AttributeId, String)>;

#[derive(Clone, Debug)]
struct Entity {
    values: Values,
    /// Patient values in the objects of a study, if they differ from those of other studies.
    of_patient: Option<Values>,
    children: Vec<Entity>,
}

fn values(level: QueryRetrieveLevel) -> impl Strategy<Value = Values> {
    let of_level: Vec<_> = POOLS.iter().filter(|(id, _)| id.attribute().level == level).collect();
    let each: Vec<_> = of_level
        .into_iter()
        .map(|(id, pool)| {
            prop::option::weighted(0.8, select(*pool)).prop_map(|value| (*id, value.unwrap_or("").to_owned()))
        })
        .collect();
    let zone = if level == Study { prop::option::of(select(&ZONES[..])).boxed() } else { Just(None).boxed() };
    (each, zone).prop_map(|(values, zone): (Values, _)| {
        let zone = zone.map(|zone| (TimezoneOffsetFromUTC, zone.to_owned()));
        values.into_iter().filter(|(_, value)| !value.is_empty()).chain(zone).collect()
    })
}

fn entity(level: QueryRetrieveLevel) -> BoxedStrategy<Entity> {
    let children = match level {
        Image => Just(Vec::new()).boxed(),
        Patient => prop::collection::vec(entity(Study), 1..3).boxed(),
        Study => prop::collection::vec(entity(Series), 1..3).boxed(),
        Series => prop::collection::vec(entity(Image), 1..3).boxed(),
    };
    let of_patient = match level {
        Study => prop::option::weighted(0.4, values(Patient)).boxed(),
        Patient | Series | Image => Just(None).boxed(),
    };
    (values(level), of_patient, children)
        .prop_map(|(values, of_patient, children)| Entity { values, of_patient, children })
        .boxed()
}

/// Returns every instance with all values that it has or inherits.
fn instances(archive: &[Entity]) -> Vec<BTreeMap<AttributeId, String>> {
    fn add(
        entity: &Entity,
        level: usize,
        uid: &str,
        inherited: &BTreeMap<AttributeId, String>,
        out: &mut Vec<BTreeMap<AttributeId, String>>,
    ) {
        let mut values = inherited.clone();
        if let Some(of_patient) = &entity.of_patient {
            values.retain(|id, _| *id == PatientID);
            values.extend(of_patient.iter().cloned());
        }
        values.extend(entity.values.iter().cloned());
        values.insert([PatientID, StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID][level], uid.to_owned());
        if level == 0 && uid.ends_with('2') {
            // An object that breaks the rule.
            values.insert(PatientID, format!("{uid}\\X"));
        }
        if entity.children.is_empty() {
            values.insert(AvailableTransferSyntaxUID, "1.2.840.10008.1.2.1".into());
            values.entry(SOPClassUID).or_insert_with(|| "1.2.840.10008.5.1.4.1.1.7".into());
            out.push(values);
            return;
        }
        for (at, child) in entity.children.iter().enumerate() {
            add(child, level + 1, &format!("{uid}.{}", at + 1), &values, out);
        }
    }
    let mut out = Vec::new();
    for (at, patient) in archive.iter().enumerate() {
        add(patient, 0, &format!("1.{}", at + 1), &BTreeMap::new(), &mut out);
    }
    out
}

type Instance = BTreeMap<AttributeId, String>;

fn value(instance: &Instance, id: AttributeId) -> &str {
    instance.get(&id).map_or("", String::as_str)
}

fn unique(level: QueryRetrieveLevel) -> AttributeId {
    match level {
        Patient => PatientID,
        Study => StudyInstanceUID,
        Series => SeriesInstanceUID,
        Image => SOPInstanceUID,
    }
}

/// Joins the values of several texts without duplicates, in order of first occurrence.
fn each_once<'t>(texts: impl IntoIterator<Item = &'t str>) -> String {
    let mut values: Vec<&str> = Vec::new();
    for value in texts.into_iter().flat_map(|text| text.split('\\')) {
        if !values.contains(&value) {
            values.push(value);
        }
    }
    values.join("\\")
}

/// Returns the value of an attribute for the entity of its level that the instance belongs to.
fn value_of(archive: &[Instance], instance: &Instance, id: AttributeId) -> String {
    let of = |level| {
        let key = unique(level);
        archive.iter().filter(move |other| value(other, key) == value(instance, key))
    };
    let count = |level, what| {
        let distinct: BTreeSet<_> = of(level).map(|other| value(other, unique(what)).to_owned()).collect();
        distinct.len().to_string()
    };
    let distinct = |id| {
        let distinct: BTreeSet<_> = of(Study).map(|other| value(other, id)).filter(|value| !value.is_empty()).collect();
        each_once(distinct)
    };
    match id {
        NumberOfPatientRelatedStudies => count(Patient, Study),
        NumberOfPatientRelatedSeries => count(Patient, Series),
        NumberOfPatientRelatedInstances => count(Patient, Image),
        NumberOfStudyRelatedSeries => count(Study, Series),
        NumberOfStudyRelatedInstances => count(Study, Image),
        NumberOfSeriesRelatedInstances => count(Series, Image),
        ModalitiesInStudy => distinct(Modality),
        SOPClassesInStudy => distinct(SOPClassUID),
        other => value(instance, other).to_owned(),
    }
}

/// A key of a query: a text, or an item.
#[derive(Clone, Debug)]
enum Key {
    Text(AttributeId, String),
    Item(AttributeId, ItemKey),
}

/// Keys of an item.
#[derive(Clone, Debug, Default)]
struct ItemKey {
    /// Code Value.
    code: Option<String>,
    /// Code Meaning.
    meaning: Option<String>,
    /// Scheduled Procedure Step Start DateTime.
    moment: Option<String>,
    /// Code Value in an item of Scheduled Protocol Code Sequence.
    nested: Option<String>,
    /// A private element with a value. It is not supported.
    has_private: bool,
    /// Its own Specific Character Set, which is not a key.
    has_character_set: bool,
}

impl Key {
    fn id(&self) -> AttributeId {
        match self {
            Self::Text(id, _) | Self::Item(id, ..) => *id,
        }
    }

    fn element(&self) -> KeyElement {
        let attribute = self.id().attribute();
        let value = match self {
            Self::Text(_, text) => KeyValue::Text(text.clone()),
            Self::Item(_, item) => KeyValue::Items(vec![item.elements()]),
        };
        KeyElement { tag: attribute.tag, vr: attribute.vr, value }
    }

    /// Whether the value matches. `None` if the key must be refused.
    fn matches(&self, stored: &str, rules: Rules) -> Option<bool> {
        match self {
            Self::Text(id, key) => matcher::matches(id.attribute(), key, stored, rules),
            Self::Item(_, item) if item.is_universal() => Some(true),
            Self::Item(_, item) => Some(items(stored).iter().any(|stored| item.matches(stored, rules))),
        }
    }

    fn matches_item(&self, item: &serde_json::Value, rules: Rules) -> bool {
        match self {
            Self::Text(..) => true,
            Self::Item(_, key) => key.matches(item, rules),
        }
    }
}

impl ItemKey {
    fn elements(&self) -> Vec<KeyElement> {
        let text = |tag, vr, text: &str| KeyElement { tag, vr, value: KeyValue::Text(text.to_owned()) };
        let mut elements = Vec::new();
        elements.extend(self.has_character_set.then(|| text(CHARACTER_SET, VR::CS, "ISO_IR 192")));
        elements.extend(self.code.as_ref().map(|code| text(CODE_VALUE, VR::SH, code)));
        elements.extend(self.meaning.as_ref().map(|meaning| text(CODE_MEANING, VR::LO, meaning)));
        elements.extend(self.moment.as_ref().map(|moment| text(MOMENT, VR::DT, moment)));
        elements.extend(self.has_private.then(|| text(PRIVATE, VR::UN, "not p")));
        elements.extend(self.nested.as_ref().map(|nested| KeyElement {
            tag: PROTOCOL_CODES,
            vr: VR::SQ,
            value: KeyValue::Items(vec![vec![text(CODE_VALUE, VR::SH, nested), text(PRIVATE, VR::UN, "not p")]]),
        }));
        elements
    }

    fn is_universal(&self) -> bool {
        [&self.code, &self.meaning, &self.moment, &self.nested].into_iter().all(is_universal)
    }

    fn matches(&self, item: &serde_json::Value, rules: Rules) -> bool {
        let fits = |item: &serde_json::Value, key: &Option<String>, json_key: &str, letter_case| {
            let stored = item[json_key]["Value"][0].as_str().unwrap_or_default();
            let like = Attribute { letter_case, multiplicity: Multiplicity::Many, ..*clone_of(AccessionNumber) };
            key.as_ref().is_none_or(|key| matcher::matches(&like, key, stored, rules) == Some(true))
        };
        let nested = item["00400008"]["Value"].as_array().map_or([].as_slice(), Vec::as_slice);
        fits(item, &self.code, "00080100", LetterCase::Sensitive)
            && fits(item, &self.meaning, "00080104", LetterCase::Folded)
            && self.moment.as_ref().is_none_or(|key| {
                let stored = item["00404005"]["Value"][0].as_str().unwrap_or_default();
                matcher::matches(AcquisitionDateTime.attribute(), key, stored, rules) == Some(true)
            })
            && (is_universal(&self.nested)
                || nested.iter().any(|item| fits(item, &self.nested, "00080100", LetterCase::Sensitive)))
    }
}

fn is_universal(text: &Option<String>) -> bool {
    text.as_ref().is_none_or(|text| {
        text.chars().all(|c| matches!(c, '*' | ' ')) || text.split('\\').all(|v| v.trim().is_empty())
    })
}

/// Returns a row of the table that can be changed.
fn clone_of(id: AttributeId) -> Box<Attribute> {
    let Attribute { id, tag, keyword, column, vr, multiplicity, level, key, source, letter_case } = *id.attribute();
    Box::new(Attribute { id, tag, keyword, column, vr, multiplicity, level, key, source, letter_case })
}

const CODE_VALUE: Tag = Tag(0x0008, 0x0100);
const CODE_MEANING: Tag = Tag(0x0008, 0x0104);
const MOMENT: Tag = Tag(0x0040, 0x4005);
const PROTOCOL_CODES: Tag = Tag(0x0040, 0x0008);
const CHARACTER_SET: Tag = Tag(0x0008, 0x0005);
const PRIVATE: Tag = Tag(0x0009, 0x1010);

fn items(stored: &str) -> Vec<serde_json::Value> {
    serde_json::from_str(stored).unwrap_or_default()
}

/// Generates a key that resembles a value.
fn key_like(value: &'static str) -> BoxedStrategy<String> {
    (0..7_usize, 0..6_usize)
        .prop_map(move |(how, at)| {
            let chars: Vec<char> = value.chars().collect();
            let (head, tail): (String, String) = {
                let at = at.min(chars.len());
                (chars[..at].iter().collect(), chars[at..].iter().collect())
            };
            match how {
                0 => value.to_owned(),
                1 => format!("{head}*"),
                2 => format!("*{tail}"),
                3 => chars.iter().enumerate().map(|(n, c)| if n == at { '?' } else { *c }).collect(),
                4 => format!("{value}\\{value}x"),
                5 => value.to_uppercase(),
                _ => head,
            }
        })
        .boxed()
}

/// Keys for a moment in an item.
const MOMENTS: &[&str] = &[
    "20231231223000+0000",
    "20231231222900+0000-20231231223100+0000",
    "20240101053000+0000",
    "20240101003000",
    "20240101+0000-",
    "2024",
    "",
];

fn key() -> BoxedStrategy<Key> {
    let stored = select(POOLS).prop_flat_map(|(id, pool)| {
        let vr = id.attribute().vr;

        if vr == VR::SQ {
            let code = prop::option::of(select(&["A", "B", "a", "?", "*", "C", ""][..]));
            let meaning = prop::option::weighted(0.3, select(&["KNIE", "K*", "x", ""][..]));
            let nested = prop::option::weighted(0.3, select(&["B", "?", "X", ""][..]));
            let moment = prop::option::weighted(0.3, select(MOMENTS));
            return (code, meaning, moment, nested, any::<[bool; 2]>())
                .prop_map(move |(code, meaning, moment, nested, [has_private, has_character_set])| {
                    let texts = [code, meaning, moment, nested].map(|text| text.map(str::to_owned));
                    let [code, meaning, moment, nested] = texts;
                    Key::Item(id, ItemKey { code, meaning, moment, nested, has_private, has_character_set })
                })
                .boxed();
        }
        let like = select(pool).prop_flat_map(key_like);
        let range = (select(pool), select(pool)).prop_map(|(low, high)| format!("{low}-{high}"));
        let text = match vr {
            VR::DA | VR::TM => prop_oneof![2 => like, 2 => range, 1 => matcher::key_text(vr)].boxed(),
            VR::DT => prop_oneof![like.clone(), like, range].boxed(),
            // dicom-object writes no other characters than ASCII into these.
            VR::AS | VR::CS => like.boxed(),
            _ => prop_oneof![4 => like, 1 => matcher::key_text(vr)].boxed(),
        };
        // A third of the keys only ask for a value.
        prop_oneof![1 => Just(String::new()), 2 => text].prop_map(move |text| Key::Text(id, text)).boxed()
    });
    let uid = (select(&[PatientID, StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID][..]), 1..3_u8, 1..3_u8)
        .prop_map(|(id, one, other)| {
            let depth = id.attribute().level as usize;
            let uid = |number: u8| format!("1.{number}{}", ".1".repeat(depth));
            // A Patient ID as it is answered.
            let odd = if id == PatientID && other == 2 { "\\X" } else { "" };
            Key::Text(id, format!("{}\\{}{odd}", uid(one), uid(other)))
        });
    let computed = (select(COMPUTED), select(&["", "1", "02", "CT", "C*", "CT\\MR", "1.2.840.10008.5.1.4.1.1.2"][..]))
        .prop_map(|(id, text)| Key::Text(id, text.to_owned()));
    prop_oneof![6 => stored, 1 => uid, 1 => computed].boxed()
}

#[derive(Clone, Debug)]
struct Question {
    model: InformationModel,
    level: QueryRetrieveLevel,
    keys: Vec<Key>,
    encoding: Encoding,
    rules: Rules,
    combined_date_time: bool,
}

fn question() -> impl Strategy<Value = Question> {
    let model_and_level = select(
        &[
            (PatientRoot, Patient),
            (PatientRoot, Study),
            (PatientRoot, Series),
            (PatientRoot, Image),
            (StudyRoot, Study),
            (StudyRoot, Series),
            (StudyRoot, Image),
            (PatientStudyOnly, Patient),
            (PatientStudyOnly, Study),
        ][..],
    );
    let range = |id, pool: &'static [&'static str]| {
        (select(pool), 0..3_u8, select(pool)).prop_map(move |(low, form, high)| {
            Key::Text(id, [format!("{low}-{high}"), format!("{low}-"), format!("-{high}")][usize::from(form)].clone())
        })
    };
    let date_and_time = select(
        &[
            (PatientBirthDate, PatientBirthTime),
            (StudyDate, StudyTime),
            (SeriesDate, SeriesTime),
            (ContentDate, ContentTime),
        ][..],
    )
    .prop_flat_map(move |(date, time)| {
        (
            range(
                date,
                &["19700101", "20231231", "20240101", "20240102", "20240229", "20240301", "20240231", "99999999"],
            ),
            range(time, &["10", "1015", "1030", "103001", "240000"]),
        )
    })
    .prop_map(|(date, time)| vec![date, time]);
    let keys = (prop_oneof![3 => Just(Vec::new()), 1 => date_and_time], prop::collection::vec(key(), 0..5)).prop_map(
        |(mut keys, more)| {
            keys.extend(more);
            let mut seen = BTreeSet::new();
            keys.retain(|key| seen.insert(key.id()));
            keys
        },
    );
    (model_and_level, keys, select(&Encoding::ALL[..]), matcher::rules(), any::<bool>()).prop_map(
        |((model, level), keys, encoding, rules, combined_date_time)| Question {
            model,
            level,
            keys,
            encoding,
            rules,
            combined_date_time,
        },
    )
}

/// Returns the bytes of the Identifier. dicom-object writes them in UTF-8.
fn identifier_bytes(question: &Question) -> Vec<u8> {
    fn object(elements: &[KeyElement]) -> InMemDicomObject {
        let mut made = InMemDicomObject::new_empty();
        for element in elements {
            made.put(match &element.value {
                KeyValue::Items(items) => {
                    let items: Vec<_> = items.iter().map(|item| object(item)).collect();
                    DataElement::new(element.tag, VR::SQ, dicom_core::value::DataSetSequence::from(items))
                }
                KeyValue::Text(text) if element.vr == VR::UN => {
                    DataElement::new(element.tag, element.vr, PrimitiveValue::from(text.clone().into_bytes()))
                }
                KeyValue::Text(text) if element.vr == VR::US => {
                    // A binary key has a number or none.
                    let number: Option<u16> = text.parse().ok();
                    let value = number.map_or(PrimitiveValue::Empty, PrimitiveValue::from);
                    DataElement::new(element.tag, element.vr, value)
                }
                KeyValue::Text(text) => {
                    let values =
                        if text.is_empty() { Vec::new() } else { text.split('\\').map(str::to_owned).collect() };
                    DataElement::new(element.tag, element.vr, PrimitiveValue::Strs(values.into()))
                }
            });
        }
        made
    }
    let mut elements: Vec<_> = question.keys.iter().map(Key::element).collect();
    let text = |tag, text: &str| KeyElement { tag, vr: VR::CS, value: KeyValue::Text(text.into()) };
    elements.push(text(Tag(0x0008, 0x0005), "ISO_IR 192"));
    elements.push(text(Tag(0x0008, 0x0052), question.level.as_str()));
    let mut bytes = Vec::new();
    object(&elements).write_dataset_with_ts(&mut bytes, transfer_syntax(question.encoding)).unwrap();
    bytes
}

/// An answer: the text of each attribute, and the number of items of each sequence.
type Answer = BTreeMap<AttributeId, String>;

/// Returns the expected answers. `None` if the query must be refused.
fn expected(archive: &[Instance], question: &Question) -> Option<Vec<Answer>> {
    let level = question.level;
    // A key that means nothing is refused whatever there is to match.
    for key in &question.keys {
        key.matches("", question.rules)?;
    }
    let combined = if question.combined_date_time { combined(question) } else { Vec::new() };
    let (above, below): (Vec<_>, Vec<_>) = question.keys.iter().partition(|key| key.id().attribute().level <= level);
    let rules_for = |instance: &Instance| {
        let zone = ZONES.into_iter().find(|zone| *zone == value(instance, TimezoneOffsetFromUTC));
        Rules { zone: zone.unwrap_or_default(), ..question.rules }
    };
    let fits = |instance: &Instance, keys: &[&Key]| {
        keys.iter().all(|key| {
            let text = value_of(archive, instance, key.id());
            match combined.iter().find(|pair| pair.date == key.id() || pair.time == key.id()) {
                Some(pair) => pair.contains(value(instance, pair.date), value(instance, pair.time)),
                None => key.matches(&text, rules_for(instance)) == Some(true),
            }
        })
    };
    let mut seen = BTreeSet::new();
    let mut answers = Vec::new();
    let mut instances: Vec<&Instance> = archive.iter().collect();
    if level == Patient {
        // A patient is answered with what the matching objects of one of its studies say. The most
        // values win, and then the values that sort first.
        let of_patient: Vec<_> = ATTRIBUTES.iter().filter(|a| a.level == Patient && a.is_stored()).collect();
        instances.sort_by_key(|instance| {
            let said: Vec<_> = of_patient.iter().map(|attribute| value(instance, attribute.id).to_owned()).collect();
            (Reverse(said.iter().filter(|value| !value.is_empty()).count()), said)
        });
    }
    for instance in instances {
        let entity = value(instance, unique(level)).to_owned();
        if seen.contains(&entity) || !fits(instance, &above) || !fits(instance, &below) {
            continue;
        }
        seen.insert(entity);
        let mut answer = Answer::new();
        for key in question.keys.iter().filter(|key| can_answer(key.id().attribute(), level)) {
            let id = key.id();
            let stored: BTreeSet<String> = if id.attribute().level <= level {
                [value_of(archive, instance, id)].into()
            } else {
                // A study answers what its series say.
                let study = value(instance, StudyInstanceUID);
                let of_study = archive.iter().filter(|other| value(other, StudyInstanceUID) == study);
                of_study.map(|other| value(other, id).to_owned()).filter(|value| !value.is_empty()).collect()
            };
            let text = match key {
                // A text that may hold a backslash is one value.
                Key::Text(..) if id.attribute().level > level && separates_values(id.attribute().vr) => {
                    each_once(stored.iter().map(String::as_str))
                }
                Key::Text(..) => stored.into_iter().collect::<Vec<_>>().join("\\"),
                Key::Item(..) => {
                    let items = stored.iter().flat_map(|stored| items(stored));
                    items.filter(|item| key.matches_item(item, rules_for(instance))).count().to_string()
                }
            };
            answer.insert(id, text);
        }
        for above in
            QueryRetrieveLevel::ALL.into_iter().filter(|above| *above < level && question.model.has_level(*above))
        {
            answer.insert(unique(above), value(instance, unique(above)).to_owned());
        }
        // A question about nothing of its level is answered with its unique key.
        let asks_for_level = question.keys.iter().any(|key| {
            let own = key.id().attribute().level;
            own == level || own == Patient && question.model == StudyRoot && level == Study
        });
        if !asks_for_level {
            answer.insert(unique(level), value(instance, unique(level)).to_owned());
        }
        answers.push(answer);
    }
    answers.sort();
    Some(answers)
}

/// A date range and a time range that form one range (C.2.2.2.5.4): the texts of its ends.
struct Combined {
    date: AttributeId,
    time: AttributeId,
    first: Option<String>,
    last: Option<String>,
}

impl Combined {
    fn contains(&self, dates: &str, times: &str) -> bool {
        dates.split('\\').any(|date| times.split('\\').any(|time| self.contains_one(date, time)))
    }

    fn contains_one(&self, date: &str, time: &str) -> bool {
        let day = matcher::date_bounds(date).filter(|(first, last)| first == last).map(|(day, _)| day);
        let time =
            if time.is_empty() { Some("000000.000000".into()) } else { matcher::time_bounds(time).map(|(t, _)| t) };
        let (Some(day), Some(time)) = (day, time) else { return false };
        let moment = day + &time;
        self.first.as_ref().is_none_or(|first| *first <= moment)
            && self.last.as_ref().is_none_or(|last| moment <= *last)
    }
}

fn combined(question: &Question) -> Vec<Combined> {
    let pairs = [
        (StudyDate, StudyTime),
        (SeriesDate, SeriesTime),
        (PatientBirthDate, PatientBirthTime),
        (ContentDate, ContentTime),
    ];
    let text = |id| {
        question.keys.iter().find_map(|key| match key {
            Key::Text(of, text) if *of == id => Some(text.clone()),
            Key::Text(..) | Key::Item(..) => None,
        })
    };
    let mut found = Vec::new();
    for (date, time) in pairs {
        let (Some(dates), Some(times)) = (text(date), text(time)) else { continue };
        // Several values are a list, and no range.
        if [&dates, &times].iter().any(|values| values.contains('\\')) {
            continue;
        }
        let (Some((d1, d2)), Some((t1, t2))) = (dates.split_once('-'), times.split_once('-')) else { continue };
        let end = |text: &str| text.trim_matches([' ', '*']).to_owned();
        let [d1, d2, t1, t2] = [d1, d2, t1, t2].map(end);
        if d1.is_empty() != t1.is_empty() || d2.is_empty() != t2.is_empty() {
            continue;
        }
        let end = |date: &str, time: &str, is_low| {
            Some(matcher::range_end(VR::DA, date, is_low)? + &matcher::range_end(VR::TM, time, is_low)?)
        };
        let first = (!d1.is_empty()).then(|| end(&d1, &t1, true));
        let last = (!d2.is_empty()).then(|| end(&d2, &t2, false));
        // An end that means nothing has been refused before.
        found.push(Combined { date, time, first: first.flatten(), last: last.flatten() });
    }
    found
}

/// Runs the whole path, from request bytes to response bytes.
fn asked(reader: &mut impl Search, question: &Question) -> Option<Vec<Answer>> {
    let encoding = question.encoding;
    let identifier = Identifier::decode(&identifier_bytes(question), encoding, "").unwrap();
    let rules = question.rules;
    let negotiated = NegotiatedOptions {
        relational_queries: true,
        combined_date_time: question.combined_date_time,
        fuzzy_names: rules.fuzzy,
        empty_value: rules.empty_value,
        multiple_value: rules.multiple_value,
    };
    let query = match qr::parse(question.model, &identifier, negotiated, &Options::default()) {
        Ok(query) => query,
        Err(FindError::InvalidKey(..)) => return None,
        Err(other) => panic!("{other}"),
    };
    let stop = QueryStop::new(reader);
    let mut writer = ResponseWriter::new(&query, encoding, "");
    let mut answers = Vec::new();
    qr::run(reader, &query, &stop, |answer| {
        let bytes = writer.write(&answer).to_vec();
        let response = Identifier::decode(&bytes, encoding, "").unwrap();
        let mut answer = Answer::new();
        for element in &response.elements {
            let Some(attribute) = Attribute::by_tag(element.tag) else { continue };
            if matches!(attribute.id, SpecificCharacterSet | RetrieveAETitle) {
                continue;
            }
            let text = match &element.value {
                KeyValue::Text(text) => text.clone(),
                KeyValue::Items(items) => items.len().to_string(),
            };
            answer.insert(attribute.id, text);
        }
        answers.push(answer);
        ControlFlow::Continue(())
    })
    .unwrap();
    answers.sort();
    Some(answers)
}

fn fill(index: &Path, archive: &[Instance]) {
    let writer = db::writer(index);
    fill_by(&writer.handle(), archive);
    writer.close().unwrap();
}

/// Parts an archive over the files of a folder, each study in one of them.
fn fill_folder(folder: &Path, archive: &[Instance], files: usize) {
    std::fs::create_dir(folder).unwrap();
    for file in 0..files {
        let studies: Vec<&String> = archive.iter().filter_map(|instance| instance.get(&StudyInstanceUID)).collect();
        let place = |uid: &String| studies.iter().position(|known| *known == uid).unwrap_or_default() % files;
        let is_here = |instance: &&Instance| instance.get(&StudyInstanceUID).is_some_and(|uid| place(uid) == file);
        let part: Vec<Instance> = archive.iter().filter(is_here).cloned().collect();
        fill(&folder.join(format!("{file}.db")), &part);
    }
}

fn fill_by(arrivals: &impl Arrivals, archive: &[Instance]) {
    for (at, instance) in archive.iter().enumerate() {
        let mut record = InstanceRecord::new();
        for (id, value) in instance {
            record.set(*id, value);
        }
        let file = db::file(&format!("{at}.dcm"), Box::new(record));
        arrivals.scanned(db::scanned("/archive", vec![file])).unwrap();
    }
}

/// Changes a query to what its bytes can express. A binary key cannot hold text, and several values
/// have no padding.
fn as_sent(mut question: Question) -> Question {
    for key in &mut question.keys {
        if let Key::Text(id, text) = key {
            let vr = id.attribute().vr;
            if vr == VR::US {
                *text = text.parse::<u16>().map(|number| number.to_string()).unwrap_or_default();
            }
        }
    }
    question
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, max_shrink_iters: 300, ..ProptestConfig::default() })]

    /// Each of a hundred archives gets twenty queries.
    #[test]
    fn every_question_gets_the_answers_that_a_slow_search_finds(
        archive in prop::collection::vec(entity(Patient), 1..4),
        questions in prop::collection::vec(question().prop_map(as_sent), 20),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let index = directory.path().join("index.db");
        let archive = instances(&archive);
        fill(&index, &archive);
        let mut memory = MemoryIndex::new(Arc::clone(DeclaredSet::none()), Clock::System);
        fill_by(&memory, &archive);
        let folder = directory.path().join("folder");
        fill_folder(&folder, &archive, 3);
        let mut reader = Reader::open(&index).unwrap();
        let mut folder = Reader::open(&folder).unwrap();
        for question in &questions {
            let expected = expected(&archive, question);
            prop_assert_eq!(&asked(&mut folder, question), &expected, "in three files: {:?}", question);
            prop_assert_eq!(&asked(&mut reader, question), &expected, "{:?}", question);
            prop_assert_eq!(&asked(&mut memory, question), &expected, "in memory: {:?}", question);
        }
    }
}

proptest! {
    // Each case makes a database.
    #![proptest_config(ProptestConfig { cases: db::cases(8), max_shrink_iters: 100, ..ProptestConfig::default() })]

    #[test]
    fn every_question_gets_the_same_answers_from_a_database(
        archive in prop::collection::vec(entity(Patient), 1..4),
        questions in prop::collection::vec(question().prop_map(as_sent), 20),
    ) {
        let (archive, index) = (instances(&archive), postgres::server().database());
        fill(&index, &archive);
        let mut reader = Reader::open(&index).unwrap();
        for question in &questions {
            prop_assert_eq!(&asked(&mut reader, question), &expected(&archive, question), "{:?}", question);
        }
    }
}

#[test]
fn archives_of_many_scripts_are_answered_without_loss() {
    let directory = tempfile::tempdir().unwrap();
    let index = directory.path().join("index.db");
    let names = ["Müller^Jürgen", "Люкceмбypг", "Wang^XiaoDong=王^小東", "Hong^Gildong=洪^吉洞=홍^길동", "ﾔﾏﾀﾞ^ﾀﾛｳ"];
    let archive: Vec<Instance> = names
        .iter()
        .enumerate()
        .map(|(at, name)| {
            let uid = format!("1.{at}");
            let ids = [PatientID, StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID, SOPClassUID];
            let mut values: Instance = ids.into_iter().map(|id| (id, uid.clone())).collect();
            values.insert(PatientName, (*name).to_owned());
            values
        })
        .collect();
    fill(&index, &archive);
    for requested in ["", "ISO_IR 100", "ISO_IR 192", "\\ISO 2022 IR 87", "GB18030"] {
        for (at, name) in names.iter().enumerate() {
            let encoded = charset::encode(name, requested, charset::TextForm::PersonName);
            // Those that the request cannot spell are asked for by all.
            let key = encoded.unwrap_or_else(|| b"*".to_vec());
            let mut bytes = Vec::new();
            for (tag, value) in [
                ([0x08, 0, 0x05, 0], requested.as_bytes()),
                ([0x08, 0, 0x52, 0], b"PATIENT "),
                ([0x10, 0, 0x10, 0], key.as_slice()),
            ] {
                bytes.extend(tag);
                bytes.extend((value.len() as u32).to_le_bytes());
                bytes.extend(value);
            }
            let identifier = Identifier::decode(&bytes, Encoding::ImplicitLittle, "").unwrap();
            let query = qr::parse(PatientRoot, &identifier, NegotiatedOptions::default(), &Options::default()).unwrap();
            let mut reader = Reader::open(&index).unwrap();
            let stop = QueryStop::new(&reader);
            let mut writer = ResponseWriter::new(&query, Encoding::ExplicitLittle, "");
            let mut found = Vec::new();
            qr::run(&mut reader, &query, &stop, |answer| {
                let response = Identifier::decode(writer.write(&answer), Encoding::ExplicitLittle, "").unwrap();
                found.push(response.text(Tag(0x0010, 0x0010)).unwrap().to_owned());
                ControlFlow::Continue(())
            })
            .unwrap();
            assert!(found.contains(&(*name).to_owned()), "{requested} {at} {found:?}");
        }
    }
}
