//! `dcmdex copy --dicomdir`: the keys of the directory records, and the files of the file-set.

use std::fs;

use dicom_core::value::DataSetSequence;
use dicom_core::{DataElement, PrimitiveValue, Tag, VR, dicom_value};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject, open_file};

use super::*;
use crate::util::objects;

const IMPLICIT: &str = "1.2.840.10008.1.2";

/// An object of a SOP Class in the study `1.2.<number>`, with further elements.
fn object(class: &str, number: u32, elements: Vec<DataElement<InMemDicomObject>>) -> InMemDicomObject {
    let text = |tag, vr, text: String| DataElement::new(tag, vr, PrimitiveValue::from(text));
    let common = [
        text(tags::SOP_CLASS_UID, VR::UI, class.to_owned()),
        text(tags::SOP_INSTANCE_UID, VR::UI, format!("1.2.{number}.1.1")),
        text(tags::STUDY_DATE, VR::DA, "20240131".to_owned()),
        text(tags::STUDY_TIME, VR::TM, "101112".to_owned()),
        text(tags::MODALITY, VR::CS, "SR".to_owned()),
        text(tags::PATIENT_ID, VR::LO, "P1".to_owned()),
        text(tags::STUDY_INSTANCE_UID, VR::UI, format!("1.2.{number}")),
        text(tags::SERIES_INSTANCE_UID, VR::UI, format!("1.2.{number}.1")),
    ];
    InMemDicomObject::from_element_iter(common.into_iter().chain(elements))
}

fn write(place: &Place, object: InMemDicomObject, number: u32) {
    let meta = FileMetaTableBuilder::new().transfer_syntax(IMPLICIT);
    let path = place.path(format!("archive/{number}.dcm"));
    object.with_meta(meta).unwrap().write_to_file(path).unwrap();
}

fn code(meaning: &str) -> DataElement<InMemDicomObject> {
    let item = InMemDicomObject::from_element_iter([
        DataElement::new(tags::CODE_VALUE, VR::SH, dicom_value!(Str, "18748-4")),
        DataElement::new(tags::CODING_SCHEME_DESIGNATOR, VR::SH, dicom_value!(Str, "LN")),
        DataElement::new(tags::CODE_MEANING, VR::LO, PrimitiveValue::from(meaning)),
    ]);
    DataElement::new(tags::CONCEPT_NAME_CODE_SEQUENCE, VR::SQ, DataSetSequence::from(vec![item]))
}

fn items(tag: Tag, items: Vec<InMemDicomObject>) -> DataElement<InMemDicomObject> {
    DataElement::new(tag, VR::SQ, DataSetSequence::from(items))
}

/// A content item with a relationship.
fn content(relationship: &str) -> InMemDicomObject {
    InMemDicomObject::from_element_iter([
        DataElement::new(tags::RELATIONSHIP_TYPE, VR::CS, PrimitiveValue::from(relationship)),
        code("of an item"),
    ])
}

/// Copies the whole archive with a DICOMDIR. Returns what the command tells, and the records of
/// instances by their file.
fn copied(place: &Place, by: &str) -> (String, Vec<InMemDicomObject>) {
    place.run(["scan", "--index", "x.db", "archive"]).expect(0);
    let told = place.run(["copy", "--index", "x.db", "--to", "cd", "--dicomdir", "--by", by]).expect(0).stderr;
    let directory = open_file(place.path("cd/DICOMDIR")).unwrap();
    let records = directory.element(tags::DIRECTORY_RECORD_SEQUENCE).unwrap().items().unwrap().to_vec();
    (told, records)
}

fn value(record: &InMemDicomObject, tag: Tag) -> String {
    record.element(tag).unwrap().to_str().unwrap().trim_end_matches([' ', '\0']).to_owned()
}

fn of_type<'r>(records: &'r [InMemDicomObject], kind: &str) -> Vec<&'r InMemDicomObject> {
    records.iter().filter(|record| value(record, tags::DIRECTORY_RECORD_TYPE) == kind).collect()
}

#[test]
fn the_record_of_a_report_has_what_a_reader_lists_it_by() {
    let place = Place::new();
    fs::create_dir(place.path("archive")).unwrap();
    let observer = |moment: &str| {
        let moment = DataElement::new(tags::VERIFICATION_DATE_TIME, VR::DT, PrimitiveValue::from(moment));
        InMemDicomObject::from_element_iter([moment])
    };
    let report = vec![
        DataElement::new(tags::SPECIFIC_CHARACTER_SET, VR::CS, dicom_value!(Str, "ISO_IR 100")),
        DataElement::new(tags::CONTENT_DATE, VR::DA, dicom_value!(Str, "20240202")),
        DataElement::new(tags::CONTENT_TIME, VR::TM, dicom_value!(Str, "1213")),
        DataElement::new(tags::INSTANCE_NUMBER, VR::IS, dicom_value!(Str, "7")),
        code("Befund für Ärzte"),
        items(
            tags::VERIFYING_OBSERVER_SEQUENCE,
            vec![observer("20240203"), observer("20240205"), observer("20240204")],
        ),
        DataElement::new(tags::COMPLETION_FLAG, VR::CS, dicom_value!(Str, "COMPLETE")),
        DataElement::new(tags::VERIFICATION_FLAG, VR::CS, dicom_value!(Str, "VERIFIED")),
        items(
            tags::CONTENT_SEQUENCE,
            vec![content("CONTAINS"), content("HAS CONCEPT MOD"), content("HAS OBS CONTEXT")],
        ),
    ];
    write(&place, object(uids::BASIC_TEXT_SR_STORAGE, 1, report), 1);
    let (_, records) = copied(&place, "copy");
    let [report] = of_type(&records, "SR DOCUMENT")[..] else { panic!("{records:?}") };
    let expected = [
        (tags::CONTENT_DATE, "20240202"),
        (tags::CONTENT_TIME, "1213"),
        (tags::INSTANCE_NUMBER, "7"),
        (tags::COMPLETION_FLAG, "COMPLETE"),
        (tags::VERIFICATION_FLAG, "VERIFIED"),
        (tags::VERIFICATION_DATE_TIME, "20240205"),
        (tags::SPECIFIC_CHARACTER_SET, "ISO_IR 100"),
    ];
    for (tag, expected) in expected {
        assert_eq!(value(report, tag), expected, "{tag}");
    }
    let concept = &report.element(tags::CONCEPT_NAME_CODE_SEQUENCE).unwrap().items().unwrap()[0];
    assert_eq!(value(concept, tags::CODE_MEANING), "Befund für Ärzte");
    let content = report.element(tags::CONTENT_SEQUENCE).unwrap().items().unwrap();
    assert_eq!(content.len(), 1, "only what modifies the title");
    assert_eq!(value(&content[0], tags::RELATIONSHIP_TYPE), "HAS CONCEPT MOD");
}

#[test]
fn keys_of_type_1_without_a_value_get_one_or_the_object_is_left_out() {
    let place = Place::new();
    fs::create_dir(place.path("archive")).unwrap();
    // The object has a date of its series only, and nothing else that a record needs.
    let bare: &[(u16, u16, &[u8; 2], &str)] = &[(0x0008, 0x0021, b"DA", "20200229")];
    let file = objects::with_elements(&objects::file("", "1.2.1", "1.2.1.1", "1.2.1.1.1"), bare);
    fs::write(place.path("archive/1.dcm"), file).unwrap();
    fs::write(place.path("archive/2.dcm"), objects::file_numbered("P2", "1.2.2", "1.2.2.1", "1.2.2.1.1", "")).unwrap();
    fs::write(place.path("archive/3.dcm"), objects::file_numbered("P2", "1.2.2", "1.2.2.1", "1.2.2.1.2", "1")).unwrap();
    let label = DataElement::new(tags::RT_PLAN_LABEL, VR::SH, dicom_value!(Str, "Boost"));
    write(&place, object(uids::RT_PLAN_STORAGE, 4, vec![label]), 4);
    write(&place, object(uids::RT_STRUCTURE_SET_STORAGE, 5, Vec::new()), 5);
    write(&place, object(uids::RT_DOSE_STORAGE, 6, Vec::new()), 6);
    let dose = DataElement::new(tags::DOSE_SUMMATION_TYPE, VR::CS, dicom_value!(Str, "PLAN"));
    write(&place, object(uids::RT_DOSE_STORAGE, 7, vec![dose]), 7);
    let (told, records) = copied(&place, "copy");
    assert!(told.contains("6 have made values in the DICOMDIR; 1 are not in the DICOMDIR"), "{told}");
    let type_1: &[(&str, &[Tag])] = &[
        ("PATIENT", &[tags::PATIENT_ID]),
        ("STUDY", &[tags::STUDY_DATE, tags::STUDY_TIME, tags::STUDY_ID, tags::STUDY_INSTANCE_UID]),
        ("SERIES", &[tags::MODALITY, tags::SERIES_INSTANCE_UID, tags::SERIES_NUMBER]),
        ("IMAGE", &[tags::INSTANCE_NUMBER]),
        ("RT PLAN", &[tags::INSTANCE_NUMBER, tags::RT_PLAN_LABEL]),
        ("RT STRUCTURE SET", &[tags::INSTANCE_NUMBER, tags::STRUCTURE_SET_LABEL]),
        ("RT DOSE", &[tags::INSTANCE_NUMBER, tags::DOSE_SUMMATION_TYPE]),
    ];
    for (kind, keys) in type_1 {
        let records = of_type(&records, kind);
        assert!(!records.is_empty(), "{kind}");
        for record in records {
            for key in *keys {
                assert_ne!(value(record, *key), "", "{kind} {key}");
            }
        }
    }
    assert_eq!(value(of_type(&records, "RT PLAN")[0], tags::RT_PLAN_LABEL), "Boost");
    let dates: Vec<_> = of_type(&records, "STUDY").iter().map(|study| value(study, tags::STUDY_DATE)).collect();
    assert!(dates.contains(&"20200229".to_owned()), "the date of the series: {dates:?}");
    let numbers: Vec<_> = of_type(&records, "IMAGE").iter().map(|image| value(image, tags::INSTANCE_NUMBER)).collect();
    assert_eq!(numbers.iter().filter(|number| *number == "2").count(), 1, "1 is taken: {numbers:?}");
    let manifest = fs::read_to_string(place.path("cd/manifest.csv")).unwrap();
    assert!(manifest.contains("DICOMDIR leaves it out: it has no DoseSummationType"), "{manifest}");
    assert!(manifest.contains("DICOMDIR has made values for it: "), "{manifest}");
}

#[test]
fn files_of_a_file_set_have_meta_information_of_their_own_object() {
    let place = Place::new();
    fs::create_dir(place.path("archive")).unwrap();
    let elements = |number: u32| vec![DataElement::new(tags::INSTANCE_NUMBER, VR::IS, PrimitiveValue::from(number))];
    let whole = object(uids::CT_IMAGE_STORAGE, 1, elements(1));
    write(&place, whole, 1);
    let mut bare = Vec::new();
    let syntax = dicom_transfer_syntax_registry::entries::IMPLICIT_VR_LITTLE_ENDIAN.erased();
    object(uids::CT_IMAGE_STORAGE, 2, elements(1)).write_dataset_with_ts(&mut bare, &syntax).unwrap();
    fs::write(place.path("archive/2.dcm"), &bare).unwrap();
    // De-identifiers leave the former UID there.
    let other = objects::file("P3", "1.2.3", "1.2.3.1", "1.2.3.1.1");
    let at = other.windows(9).position(|window| window == b"1.2.3.1.1").unwrap();
    fs::write(place.path("archive/3.dcm"), [&other[..at], b"1.2.3.1.9", &other[at + 9..]].concat()).unwrap();
    let (told, records) = copied(&place, "hard-link");
    assert!(told.starts_with("3 files"), "{told}");
    let images = of_type(&records, "IMAGE");
    assert_eq!(images.len(), 3);
    for image in images {
        let file = value(image, tags::REFERENCED_FILE_ID).replace('\\', "/");
        let object = open_file(place.path("cd").join(&file)).unwrap();
        let uid = value(image, tags::REFERENCED_SOP_INSTANCE_UID_IN_FILE);
        assert_eq!(value(&object, tags::SOP_INSTANCE_UID), uid);
        assert_eq!(object.meta().media_storage_sop_instance_uid.trim_end_matches('\0'), uid);
        assert_eq!(object.meta().transfer_syntax(), value(image, tags::REFERENCED_TRANSFER_SYNTAX_UID_IN_FILE));
        if let Some(mut dcmftest) = crate::util::peers::dcmtk("dcmftest") {
            let judged = crate::util::peers::run(dcmftest.arg(place.path("cd").join(&file))).expect_success();
            assert!(judged.starts_with("yes"), "{judged}");
        }
    }
    let manifest = fs::read_to_string(place.path("cd/manifest.csv")).unwrap();
    assert_eq!((manifest.matches(",hard-link,").count(), manifest.matches(",copy,").count()), (1, 2), "{manifest}");
}
