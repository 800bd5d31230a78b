//! Every attribute of the table over the network. It is stored by C-STORE, then matched and
//! returned at its level by C-FIND.

use std::collections::BTreeMap;

use dcmdex::db::Admin;
use dcmdex::encoding::syntax::Encoding;
use dcmdex::model::attribute::{ATTRIBUTES, Attribute, AttributeId, ValueSource};
use dcmdex::model::level::QueryRetrieveLevel;
use dcmdex::model::matching::KeyValue;
use dcmdex::qr::{Identifier, Retrievable};
use dicom_core::{Tag, VR};

use crate::util::node::{Keep, TestNode};
use crate::util::scripted::{DataSet, IMPLICIT_VR_LITTLE_ENDIAN, ScriptedPeer, find_command, store_command};

const PATIENT_ROOT: &str = "1.2.840.10008.5.1.4.1.2.1.1";
const CT: &str = "1.2.840.10008.5.1.4.1.1.2";
const MR: &str = "1.2.840.10008.5.1.4.1.1.4";
const CONTEXTS: &[(&str, &[&str])] = &[
    (PATIENT_ROOT, &[IMPLICIT_VR_LITTLE_ENDIAN]),
    (CT, &[IMPLICIT_VR_LITTLE_ENDIAN]),
    (MR, &[IMPLICIT_VR_LITTLE_ENDIAN]),
];

const CODE_VALUE: Tag = Tag(0x0008, 0x0100);

/// Returns the value of an attribute in the object with this number, in the form in which it is
/// returned.
fn text(attribute: &Attribute, number: u8) -> String {
    match (attribute.id, attribute.vr) {
        (AttributeId::SOPClassUID, _) => [CT, MR, "1.2.3"][usize::from(number) - 1].to_owned(),
        (AttributeId::SpecificCharacterSet, _) => "ISO_IR 100".to_owned(),
        (AttributeId::TimezoneOffsetFromUTC, _) => format!("+0{number}00"),
        (_, VR::UI) => format!("1.2.{}.{number}", u16::from(attribute.id as u8) + 3),
        (_, VR::DA) => format!("2024010{number}"),
        (_, VR::TM) => format!("10110{number}"),
        (_, VR::DT) => format!("2024010{number}101112"),
        (_, VR::AS) => format!("00{number}Y"),
        (_, VR::IS | VR::US) => number.to_string(),
        (_, VR::DS) => format!("{number}.5"),
        (_, VR::PN) => format!("N\u{e9}me{}^{number}", attribute.id as u8),
        (_, VR::SQ) => format!("CODE{number}"),
        (_, VR::CS) => format!("VALUE {number}"),
        _ => format!("Valu\u{e9} {number} of {}", attribute.id as u8),
    }
}

/// Appends the value as an element in Implicit VR Little Endian. A sequence has one item with a
/// code.
fn element(data_set: DataSet, attribute: &Attribute, text: &str) -> DataSet {
    let Tag(group, number) = attribute.tag;
    match attribute.vr {
        VR::SQ => {
            let code = DataSet::default().text(CODE_VALUE.0, CODE_VALUE.1, text);
            let item = DataSet::default().bytes(0xFFFE, 0xE000, &code.0);
            data_set.bytes(group, number, &item.0)
        }
        VR::US => data_set.bytes(group, number, &text.parse::<u16>().unwrap().to_le_bytes()),
        VR::UI => data_set.uid(group, number, text),
        _ => {
            // ISO_IR 100: a character is its byte.
            let mut bytes: Vec<u8> = text.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
            if bytes.len() % 2 == 1 {
                bytes.push(b' ');
            }
            data_set.bytes(group, number, &bytes)
        }
    }
}

fn sorted() -> Vec<&'static Attribute> {
    let mut sorted: Vec<_> = ATTRIBUTES.iter().collect();
    sorted.sort_by_key(|attribute| attribute.tag);
    sorted
}

fn store(peer: &mut ScriptedPeer, class: &str, instance: &str, data_set: &DataSet) {
    let context = if class == CT { 3 } else { 5 };
    peer.send_message(context, &store_command(9, class, instance), Some(&data_set.0));
    assert_eq!(peer.receive_message().status(), 0);
}

/// Returns the answers to a query, with the status of each pending response.
fn find(peer: &mut ScriptedPeer, keys: &DataSet) -> Vec<(u16, Identifier)> {
    peer.send_message(1, &find_command(1, PATIENT_ROOT), Some(&keys.0));
    let mut answers = Vec::new();
    loop {
        let response = peer.receive_message();
        let Some(data_set) = &response.data_set else {
            assert_eq!(response.status(), 0);
            return answers;
        };
        answers.push((response.status(), Identifier::decode(data_set, Encoding::ImplicitLittle, "").unwrap()));
    }
}

/// Builds a query at a level with further elements, which may come in any order.
fn keys(level: QueryRetrieveLevel, of: impl IntoIterator<Item = (Tag, DataSet)>) -> DataSet {
    let mut elements: BTreeMap<Tag, DataSet> = of.into_iter().collect();
    elements.insert(Tag(8, 5), DataSet::default().text(8, 5, "ISO_IR 100"));
    elements.insert(Tag(8, 0x52), DataSet::default().text(8, 0x52, level.as_str()));
    DataSet(elements.into_values().flat_map(|element| element.0).collect())
}

fn key(attribute: &Attribute, text: &str) -> (Tag, DataSet) {
    (attribute.tag, element(DataSet::default(), attribute, text))
}

/// Returns the value of an attribute in an answer. For a sequence it is the code of its items.
/// `None` if the attribute is absent.
fn answered(identifier: &Identifier, attribute: &Attribute) -> Option<String> {
    let element = identifier.elements.iter().find(|element| element.tag == attribute.tag)?;
    Some(match &element.value {
        KeyValue::Text(text) => text.clone(),
        KeyValue::Items(items) => {
            let codes = items.iter().flatten().filter(|element| element.tag == CODE_VALUE);
            let texts = codes.map(|element| match &element.value {
                KeyValue::Text(text) => text.as_str(),
                KeyValue::Items(_) => panic!("a sequence as code"),
            });
            texts.collect::<Vec<_>>().join("\\")
        }
    })
}

/// PS3.4 tables C.6-1 to C.6-5, and the further keys that clients request.
#[test]
fn every_attribute_is_kept_matched_and_answered_at_its_level() {
    let node = TestNode::start();
    let mut peer = node.associate(CONTEXTS);
    for (number, class) in [(1, CT), (2, MR)] {
        let read = sorted().into_iter().filter(|attribute| attribute.source == ValueSource::DataSet);
        let data_set =
            read.fold(DataSet::default(), |data_set, attribute| element(data_set, attribute, &text(attribute, number)));
        store(&mut peer, class, &text(AttributeId::SOPInstanceUID.attribute(), number), &data_set);
    }
    for attribute in ATTRIBUTES.iter().filter(|attribute| attribute.source == ValueSource::DataSet) {
        let only_answered = matches!(attribute.id, AttributeId::TimezoneOffsetFromUTC);
        if attribute.id == AttributeId::SpecificCharacterSet {
            continue; // it says how all the others are written
        }
        let unique = ATTRIBUTES
            .iter()
            .find(|other| other.level == attribute.level && other.key == dcmdex::model::attribute::KeyType::Unique)
            .unwrap();
        for number in [1, 2] {
            let wanted = text(attribute, number);
            let mut asked = vec![key(unique, ""), key(attribute, &wanted)];
            if only_answered {
                asked = vec![key(unique, &text(unique, number)), key(attribute, "")];
            }
            let answers = find(&mut peer, &keys(attribute.level, asked));
            let keyword = attribute.keyword;
            let [(status, answer)] = answers.as_slice() else { panic!("{keyword}: {} answers", answers.len()) };
            assert_eq!(*status, 0xFF00, "{keyword}");
            assert_eq!(answered(answer, attribute), Some(wanted), "{keyword}");
            assert_eq!(answered(answer, unique), Some(text(unique, number)), "{keyword}");
        }
        if !only_answered {
            let other = keys(attribute.level, [key(unique, ""), key(attribute, &text(attribute, 3))]);
            assert_eq!(find(&mut peer, &other).len(), 0, "{} matches anything", attribute.keyword);
        }
    }
    peer.release();
}

/// Computed attributes are in no object. They are compared after three objects in two studies of
/// one patient.
#[test]
fn every_computed_attribute_is_exact_at_its_level() {
    let node = TestNode::start();
    let mut peer = node.associate(CONTEXTS);
    for (class, modality, region, study, series, instance) in [
        (CT, "CT", "T-D3000", "1.2.1", "1.2.1.1", "1.2.1.1.1"),
        (CT, "CT", "T-D3000", "1.2.1", "1.2.1.1", "1.2.1.1.2"),
        (MR, "MR", "T-D4000", "1.2.1", "1.2.1.2", "1.2.1.2.1"),
        (MR, "MR", "T-D3000", "1.2.1", "1.2.1.3", "1.2.1.3.1"),
        (MR, "MR", "T-D9200", "1.2.2", "1.2.2.1", "1.2.2.1.1"),
    ] {
        let item = DataSet::default().bytes(0xFFFE, 0xE000, &DataSet::default().text(8, 0x0100, region).0);
        let data_set = DataSet::default()
            .uid(0x0008, 0x0016, class)
            .uid(0x0008, 0x0018, instance)
            .text(0x0008, 0x0060, modality)
            .bytes(0x0008, 0x2218, &item.0)
            .text(0x0010, 0x0020, "P1")
            .uid(0x0020, 0x000D, study)
            .uid(0x0020, 0x000E, series);
        store(&mut peer, class, instance, &data_set);
    }
    let both_classes = format!("{CT}\\{MR}");
    let expected: &[(AttributeId, &[&str])] = &[
        (AttributeId::NumberOfPatientRelatedStudies, &["2"]),
        (AttributeId::NumberOfPatientRelatedSeries, &["4"]),
        (AttributeId::NumberOfPatientRelatedInstances, &["5"]),
        (AttributeId::ModalitiesInStudy, &["CT\\MR", "MR"]),
        (AttributeId::SOPClassesInStudy, &[&both_classes, MR]),
        (AttributeId::AnatomicRegionsInStudyCodeSequence, &["T-D3000\\T-D4000", "T-D9200"]),
        (AttributeId::NumberOfStudyRelatedSeries, &["3", "1"]),
        (AttributeId::NumberOfStudyRelatedInstances, &["4", "1"]),
        (AttributeId::NumberOfSeriesRelatedInstances, &["2", "1", "1", "1"]),
        (AttributeId::InstanceAvailability, &["ONLINE"; 5]),
        (AttributeId::RetrieveAETitle, &[""; 5]),
        (AttributeId::AvailableTransferSyntaxUID, &[IMPLICIT_VR_LITTLE_ENDIAN; 5]),
        (AttributeId::StudyStatusID, &["", ""]),
        (AttributeId::InterpretationStatusID, &["", ""]),
    ];
    for (id, values) in expected {
        let attribute = id.attribute();
        let answers = find(&mut peer, &keys(attribute.level, [key_of_any_vr(attribute)]));
        let found: Vec<_> = answers.iter().map(|(_, answer)| answered(answer, attribute).unwrap()).collect();
        assert_eq!(found, *values, "{id}");
        assert!(answers.iter().all(|(status, _)| *status == 0xFF00), "{id}");
    }
    let not_in_objects = ATTRIBUTES.iter().filter(|attribute| attribute.source != ValueSource::DataSet);
    for attribute in not_in_objects {
        assert!(expected.iter().any(|(id, _)| *id == attribute.id), "{} has to be here too", attribute.keyword);
    }
    // As matching keys.
    for (id, value, answers) in [
        (AttributeId::NumberOfPatientRelatedStudies, "2", 1),
        (AttributeId::NumberOfPatientRelatedInstances, "4", 0),
        (AttributeId::ModalitiesInStudy, "MR", 2),
        (AttributeId::ModalitiesInStudy, "C?", 1),
        (AttributeId::SOPClassesInStudy, CT, 1),
        (AttributeId::NumberOfStudyRelatedSeries, "3", 1),
        (AttributeId::NumberOfSeriesRelatedInstances, "1", 3),
        (AttributeId::AvailableTransferSyntaxUID, "1.2.3", 0),
        (AttributeId::AnatomicRegionsInStudyCodeSequence, "T-D4000", 1),
        (AttributeId::AnatomicRegionsInStudyCodeSequence, "T-D*", 2),
        (AttributeId::AnatomicRegionsInStudyCodeSequence, "T-D1000", 0),
    ] {
        let attribute = id.attribute();
        let found = find(&mut peer, &keys(attribute.level, [key(attribute, value)]));
        assert_eq!(found.len(), answers, "{id} = {value}");
    }
    peer.release();
    assert!(node.reader().check().unwrap().findings.is_empty());
}

fn key_of_any_vr(attribute: &Attribute) -> (Tag, DataSet) {
    (attribute.tag, DataSet::default().bytes(attribute.tag.0, attribute.tag.1, &[]))
}

/// PS3.4 C.4.1.1.3.2.
#[test]
fn our_own_title_is_answered_for_what_is_kept_here_and_that_of_another_node_always() {
    let at_every_level = |node: &TestNode| {
        let mut peer = node.associate(CONTEXTS);
        let answer = |level: &QueryRetrieveLevel| {
            let asked = [key_of_any_vr(AttributeId::PatientID.attribute())];
            let answers = find(&mut peer, &keys(*level, asked));
            answers
                .iter()
                .map(|(status, answer)| {
                    assert_eq!(*status, 0xFF00);
                    // What only serves to find it is not answered.
                    assert_eq!(answered(answer, AttributeId::InstanceAvailability.attribute()), None);
                    answered(answer, AttributeId::RetrieveAETitle.attribute()).unwrap()
                })
                .collect::<Vec<_>>()
        };
        QueryRetrieveLevel::ALL.iter().map(answer).collect::<Vec<_>>()
    };
    let store_one = |node: &TestNode, series: &str, instance: &str| {
        let mut peer = node.associate(CONTEXTS);
        store(&mut peer, CT, instance, &DataSet::instance(CT, "1.2", series, instance));
        peer.release();
    };
    let ours = |settings: &mut crate::util::node::Settings| {
        settings.query.retrieve_ae_title = "DCMDEX".into();
        settings.query.retrievable = Retrievable::KeptHere;
    };
    let node = TestNode::with(ours);
    store_one(&node, "1.2.1", "1.2.1.1");
    assert_eq!(at_every_level(&node), [["DCMDEX"]; 4]);
    let directory = node.directory();
    node.stop();
    // One instance of the study comes without being kept.
    let node = TestNode::with(|settings| {
        ours(settings);
        settings.directory = directory;
        settings.keep = Keep::MetadataOnly;
    });
    store_one(&node, "1.2.2", "1.2.2.1");
    let partly = [vec![""], vec![""], vec!["DCMDEX", ""], vec!["DCMDEX", ""]];
    assert_eq!(at_every_level(&node), partly);
    let directory = node.directory();
    node.stop();
    let node = TestNode::with(|settings| {
        settings.query.retrieve_ae_title = "PACS".into();
        settings.directory = directory;
    });
    assert_eq!(at_every_level(&node), [vec!["PACS"], vec!["PACS"], vec!["PACS"; 2], vec!["PACS"; 2]]);
}
