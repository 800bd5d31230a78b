//! Uses dicom-object as the oracle. It reads intact files correctly and completely.

use dicom_core::value::{PrimitiveValue, Value};
use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;
use dicom_object::mem::{InMemDicomObject, InMemElement};
use dicom_object::{FileMetaTableBuilder, OpenFileOptions};

use super::*;

/// Computes the values that the index should keep from those of dicom-object.
fn expected(element: &InMemElement, vr: VR) -> String {
    let text = match element.value() {
        Value::Primitive(PrimitiveValue::Tags(tags)) => {
            tags.iter().map(|Tag(group, element)| format!("{group:04X}{element:04X}")).collect::<Vec<_>>().join("\\")
        }
        // PS3.5 6.2.2: what is known of a tag still holds when a device wrote UN.
        Value::Primitive(PrimitiveValue::U8(bytes)) if vr == VR::US => {
            bytes.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]]).to_string()).collect::<Vec<_>>().join("\\")
        }
        Value::Primitive(PrimitiveValue::U8(bytes)) => bytes.iter().map(|byte| char::from(*byte)).collect(),
        Value::Primitive(value) => value.to_str().into_owned(),
        other => panic!("no primitive value: {other:?}"),
    };
    let multiple = !matches!(vr, VR::LT | VR::ST | VR::UT);
    let values: Vec<&str> = if multiple { text.split('\\').collect() } else { vec![&text] };
    let trimmed: Vec<String> = values
        .iter()
        .map(|value| {
            let value = value.trim_end_matches([' ', '\0']);
            match vr {
                VR::LT | VR::ST | VR::UT | VR::UC => value.to_owned(),
                VR::PN => {
                    let groups: Vec<_> = value.split('=').map(|group| group.trim_end_matches(['^', ' '])).collect();
                    groups.join("=").trim_end_matches('=').to_owned()
                }
                VR::DA => value.replace('.', ""),
                VR::TM => value.replace(':', ""),
                _ => value.trim_start_matches(' ').to_owned(),
            }
        })
        .collect();
    trimmed.join("\\")
}

/// Returns the tag and text of each primitive element below the items of a sequence.
fn leaves(items: &[InMemDicomObject], path: &str, out: &mut Vec<(String, String)>) {
    for (index, item) in items.iter().enumerate() {
        for element in item {
            let Tag(group, number) = element.header().tag;
            let path = format!("{path}/{index}/{group:04X}{number:04X}");
            match element.value() {
                Value::Sequence(sequence) => leaves(sequence.items(), &path, out),
                Value::Primitive(PrimitiveValue::Empty) => {}
                Value::Primitive(_) if matches!(element.vr(), VR::OB | VR::OW | VR::UN) => {}
                Value::Primitive(_) => {
                    let text = expected(element, element.vr());
                    if !text.is_empty() {
                        out.push((path, text));
                    }
                }
                Value::PixelSequence(_) => {}
            }
        }
    }
}

fn json_leaves(items: &serde_json::Value, path: &str, out: &mut Vec<(String, String)>) {
    for (index, item) in items.as_array().unwrap().iter().enumerate() {
        for (tag, element) in item.as_object().unwrap() {
            let path = format!("{path}/{index}/{tag}");
            let Some(values) = element.get("Value") else { continue };
            if element["vr"] == "SQ" {
                json_leaves(values, &path, out);
                continue;
            }
            let texts: Vec<String> = values
                .as_array()
                .unwrap()
                .iter()
                .map(|value| match value {
                    serde_json::Value::Null => String::new(),
                    serde_json::Value::String(text) => text.clone(),
                    serde_json::Value::Object(name) => {
                        let group = |key| name.get(key).and_then(|group| group.as_str()).unwrap_or_default();
                        let groups = [group("Alphabetic"), group("Ideographic"), group("Phonetic")];
                        groups.join("=").trim_end_matches('=').to_owned()
                    }
                    number => number.to_string(),
                })
                .collect();
            out.push((path, texts.join("\\")));
        }
    }
}

#[track_caller]
fn assert_agrees(record: &InstanceRecord, object: &InMemDicomObject, name: &str) {
    // dicom-object decodes with the first character set only.
    let one_charset = !record.value(AttributeId::SpecificCharacterSet).contains('\\');
    for attribute in ATTRIBUTES.iter().filter(|attribute| attribute.source == ValueSource::DataSet) {
        let value = record.value(attribute.id);
        let Ok(element) = object.element(attribute.tag) else {
            assert_eq!(value, "", "{name}: {} is absent", attribute.keyword);
            continue;
        };
        if !one_charset && attribute.vr == VR::PN {
            continue;
        }
        if attribute.vr == VR::SQ {
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            if !value.is_empty() {
                json_leaves(&serde_json::from_str(value).unwrap(), "", &mut ours);
            }
            leaves(element.items().unwrap_or_default(), "", &mut theirs);
            let number = |text: &str| text.parse::<f64>().map_or(text.to_owned(), |number| number.to_string());
            for leaf in ours.iter_mut().chain(&mut theirs) {
                leaf.1 = number(&leaf.1);
            }
            assert_eq!(ours, theirs, "{name}: {}", attribute.keyword);
        } else {
            assert_eq!(value, expected(element, attribute.vr), "{name}: {}", attribute.keyword);
        }
    }
}

#[test]
fn every_wanted_attribute_of_every_sound_file_agrees() {
    let mut compared = 0;
    for (path, _) in table() {
        let Outcome::Instance(record) = read_file(&File::open(&path).unwrap(), Wanted::index()) else { continue };
        let Ok(object) = OpenFileOptions::new().read_until(tags::PIXEL_DATA).open_file(&path) else { continue };
        assert_agrees(&record, &object, &path.display().to_string());
        assert_eq!(
            record.value(AttributeId::AvailableTransferSyntaxUID),
            object.meta().transfer_syntax(),
            "{}",
            path.display()
        );
        compared += 1;
    }
    assert!(compared > 60, "only {compared} files compared");
}

#[test]
fn every_transfer_syntax_gives_the_same_record() {
    let mut compared = 0;
    for (path, _) in table() {
        let Outcome::Instance(original) = read_file(&File::open(&path).unwrap(), Wanted::index()) else { continue };
        let Ok(object) = OpenFileOptions::new().read_until(tags::PIXEL_DATA).open_file(&path) else { continue };
        let meta = object.meta().clone();
        let object = object.into_inner();
        for syntax in ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"] {
            let name = format!("{} in {syntax}", path.display());
            let builder = FileMetaTableBuilder::new()
                .transfer_syntax(syntax)
                .media_storage_sop_class_uid(meta.media_storage_sop_class_uid())
                .media_storage_sop_instance_uid(meta.media_storage_sop_instance_uid());
            let Ok(file) = object.clone().with_meta(builder) else { continue };
            let mut bytes = Vec::new();
            if file.write_all(&mut bytes).is_err() {
                continue;
            }
            let record = instance(whole(&bytes));
            assert_agrees(&record, &object, &name);
            assert_eq!(record.faults(), original.faults(), "{name}");
            assert_eq!(record.value(AttributeId::AvailableTransferSyntaxUID), syntax, "{name}");
            compared += 1;
        }
    }
    assert!(compared > 200, "only {compared} variants compared");
}
