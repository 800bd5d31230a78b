//! Decoding of Identifiers that dicom-object wrote.

use dcmdex::encoding::syntax::Encoding;
use dcmdex::model::matching::{KeyElement, KeyValue};
use dcmdex::qr::Identifier;
use dicom_core::value::DataSetSequence;
use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_object::InMemDicomObject;
use proptest::prelude::*;

use super::responses::transfer_syntax;

/// An element with tag, VR and values, or a sequence.
#[derive(Clone, Debug)]
enum Element {
    Text(Tag, VR, Vec<String>),
    Number(Tag, u16),
    Sequence(Tag, Vec<Vec<Element>>),
}

const CHARACTER_SETS: [&str; 4] = ["ISO_IR 100", "ISO_IR 192", "ISO_IR 144", "GB18030"];

fn element() -> impl Strategy<Value = Element> {
    let text = prop_oneof![
        (Just(Tag(0x0010, 0x0010)), Just(VR::PN), "[A-Z^=*?]{0,6}[A-Z]?"),
        (Just(Tag(0x0010, 0x0020)), Just(VR::LO), "[A-Z0-9_%*]{0,7}"),
        (Just(Tag(0x0008, 0x0060)), Just(VR::CS), "[A-Z]{0,3}"),
        (Just(Tag(0x0020, 0x000D)), Just(VR::UI), "1\\.[1-9]{1,3}"),
        (Just(Tag(0x0010, 0x4000)), Just(VR::LT), "[a-z ]{0,9}[a-z]"),
    ]
    .prop_map(|(tag, vr, text): (Tag, VR, String)| {
        Element::Text(tag, vr, if text.is_empty() { vec![] } else { vec![text] })
    });
    let list =
        prop::collection::vec("1\\.[1-9]{1,4}", 1..5).prop_map(|uids| Element::Text(Tag(0x0008, 0x0018), VR::UI, uids));
    let number = any::<u16>().prop_map(|number| Element::Number(Tag(0x0028, 0x0010), number));
    prop_oneof![4 => text, 1 => list, 1 => number].prop_recursive(3, 12, 3, |inner| {
        prop::collection::vec(prop::collection::vec(inner, 0..3), 0..3)
            .prop_map(|items| Element::Sequence(Tag(0x0008, 0x1032), items))
    })
}

fn object(elements: &[Element]) -> InMemDicomObject {
    let mut object = InMemDicomObject::new_empty();
    for element in elements {
        object.put(match element {
            Element::Text(tag, vr, values) => {
                DataElement::new(*tag, *vr, PrimitiveValue::Strs(values.iter().cloned().collect()))
            }
            Element::Number(tag, number) => DataElement::new(*tag, VR::US, PrimitiveValue::from(*number)),
            Element::Sequence(tag, items) => {
                let items: Vec<_> = items.iter().map(|item| self::object(item)).collect();
                DataElement::new(*tag, VR::SQ, DataSetSequence::from(items))
            }
        });
    }
    object
}

/// Returns the expected result of decoding: the elements in order of tags. If a tag occurs twice,
/// it is the last one.
fn expected(elements: &[Element]) -> Vec<KeyElement> {
    let mut found: std::collections::BTreeMap<Tag, KeyElement> = std::collections::BTreeMap::new();
    for element in elements {
        let element = match element {
            Element::Text(tag, vr, values) => {
                let text = values.join("\\");
                let text = if *vr == VR::PN { trimmed_name(&text) } else { text };
                KeyElement { tag: *tag, vr: *vr, value: KeyValue::Text(text) }
            }
            Element::Number(tag, number) => {
                KeyElement { tag: *tag, vr: VR::US, value: KeyValue::Text(number.to_string()) }
            }
            Element::Sequence(tag, items) => {
                let items = items.iter().map(|item| expected(item)).collect();
                KeyElement { tag: *tag, vr: VR::SQ, value: KeyValue::Items(items) }
            }
        };
        found.insert(element.tag, element);
    }
    found.into_values().collect()
}

/// Removes empty components and groups at the end. They have no meaning (PS3.5 6.2.1.1).
fn trimmed_name(name: &str) -> String {
    let groups: Vec<_> = name.split('=').map(|group| group.trim_end_matches('^')).collect();
    groups.join("=").trim_end_matches('=').to_owned()
}

proptest! {
    #[test]
    fn agree_with_dicom_object(elements in prop::collection::vec(element(), 0..6), which in 0..3_usize) {
        let encoding = Encoding::ALL[which];
        let mut bytes = Vec::new();
        object(&elements).write_dataset_with_ts(&mut bytes, transfer_syntax(encoding)).unwrap();
        let identifier = Identifier::decode(&bytes, encoding, "").unwrap();
        prop_assert!(identifier.elements == expected(&elements), "{:?}", identifier);
    }

    #[test]
    fn are_read_in_their_character_set(name in "[A-Zäößé]{1,6}|[Ж-Я]{1,6}|[一-三]{1,3}", which in 0..4_usize) {
        let set = CHARACTER_SETS[which];
        if let Some(bytes) = dcmdex::encoding::charset::encode(&name, set, dcmdex::encoding::charset::TextForm::PersonName) {
            let mut object = InMemDicomObject::new_empty();
            object.put(DataElement::new(Tag(0x0008, 0x0005), VR::CS, PrimitiveValue::from(set)));
            let mut data_set = Vec::new();
            object.write_dataset_with_ts(&mut data_set, transfer_syntax(Encoding::ImplicitLittle)).unwrap();
            data_set.extend([0x10, 0, 0x10, 0, bytes.len() as u8, 0, 0, 0]);
            data_set.extend(&bytes);
            let identifier = Identifier::decode(&data_set, Encoding::ImplicitLittle, "").unwrap();
            prop_assert_eq!(identifier.text(Tag(0x0010, 0x0010)), Some(name.as_str()));
        }
    }
}

#[test]
fn cut_anywhere_are_an_error_or_shorter() {
    let elements = [
        Element::Text(Tag(0x0010, 0x0010), VR::PN, vec!["SMITH^J*".into()]),
        Element::Sequence(
            Tag(0x0040, 0x0275),
            vec![vec![Element::Text(Tag(0x0040, 0x0009), VR::SH, vec!["X".into()])]],
        ),
    ];
    for encoding in Encoding::ALL {
        let mut bytes = Vec::new();
        object(&elements).write_dataset_with_ts(&mut bytes, transfer_syntax(encoding)).unwrap();
        for cut in 0..bytes.len() {
            if let Ok(identifier) = Identifier::decode(&bytes[..cut], encoding, "") {
                assert!(identifier.elements.len() < elements.len(), "{encoding:?} {cut}");
            }
        }
    }
}
