//! Response Identifiers, byte for byte, and as dicom-object reads them.

use dcmdex::encoding::syntax::Encoding;
use dcmdex::model::attribute::AttributeId;
use dcmdex::model::find::FindAnswer;
use dcmdex::model::level::{InformationModel, QueryRetrieveLevel};
use dcmdex::qr::{self, NegotiatedOptions, Options, Query, ResponseWriter, keys};
use dicom_core::header::HasLength;
use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;
use dicom_encoding::{TransferSyntax, TransferSyntaxIndex};
use dicom_object::InMemDicomObject;
use dicom_object::mem::InMemElement;
use dicom_transfer_syntax_registry::TransferSyntaxRegistry;

fn query(level: QueryRetrieveLevel, of: &[&str], character_set: &str) -> Query {
    let mut identifier = keys::identifier(level, of.iter().copied()).unwrap();
    identifier.character_set = character_set.to_owned();
    qr::parse(InformationModel::StudyRoot, &identifier, NegotiatedOptions::default(), &Options::default()).unwrap()
}

/// Builds an answer with these values. Other return keys have no value.
fn answer(query: &Query, character_set: &str, values: &[(AttributeId, &str)]) -> FindAnswer {
    let value = |id| values.iter().find(|(of, _)| *of == id).map_or("", |(_, value)| *value).to_owned();
    FindAnswer {
        values: query.request.return_keys.iter().map(|key| value(key.attribute)).collect(),
        character_set: character_set.to_owned(),
        ..FindAnswer::default()
    }
}

pub(super) fn transfer_syntax(encoding: Encoding) -> &'static TransferSyntax {
    let uid = match encoding {
        Encoding::ImplicitLittle => "1.2.840.10008.1.2",
        Encoding::ExplicitLittle => "1.2.840.10008.1.2.1",
        Encoding::ExplicitBig => "1.2.840.10008.1.2.2",
    };
    TransferSyntaxRegistry.get(uid).unwrap()
}

fn read(bytes: &[u8], encoding: Encoding) -> InMemDicomObject {
    InMemDicomObject::read_dataset_with_ts(bytes, transfer_syntax(encoding)).unwrap()
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

// PS3.5 7.1, 6.2; PS3.4 C.4.1.1.3.2.
#[test]
fn an_answer_in_the_three_encodings_byte_for_byte() {
    let query =
        query(QueryRetrieveLevel::Study, &["PatientName", "StudyInstanceUID", "StudyDate", "AccessionNumber"], "");
    let answer = answer(
        &query,
        "",
        &[
            (AttributeId::PatientName, "Doe^J"),
            (AttributeId::StudyInstanceUID, "1.2.3"),
            (AttributeId::StudyDate, "20240229"),
        ],
    );
    let expected = [
        (
            Encoding::ExplicitLittle,
            "0800 2000 4441 0800 3230323430323239   0800 5000 5348 0000   0800 5200 4353 0600 535455445920
             0800 5400 4145 0400 4E4F4445   1000 1000 504E 0600 446F655E4A20   2000 0D00 5549 0600 312E322E3300",
        ),
        (
            Encoding::ImplicitLittle,
            "0800 2000 08000000 3230323430323239   0800 5000 00000000   0800 5200 06000000 535455445920
             0800 5400 04000000 4E4F4445   1000 1000 06000000 446F655E4A20   2000 0D00 06000000 312E322E3300",
        ),
        (
            Encoding::ExplicitBig,
            "0008 0020 4441 0008 3230323430323239   0008 0050 5348 0000   0008 0052 4353 0006 535455445920
             0008 0054 4145 0004 4E4F4445   0010 0010 504E 0006 446F655E4A20   0020 000D 5549 0006 312E322E3300",
        ),
    ];
    for (encoding, bytes) in expected {
        let mut writer = ResponseWriter::new(&query, encoding, "NODE");
        assert_eq!(writer.write(&answer), hex(bytes), "{encoding:?}");
        assert_eq!(writer.write(&answer), hex(bytes), "a second time");
    }
}

#[test]
fn every_encoding_is_read_back_by_dicom_object() {
    let of = [
        "PatientName",
        "Rows",
        "ImageType",
        "InstanceNumber",
        "SpecimenDescriptionSequence",
        "NumberOfFrames",
        "AvailableTransferSyntaxUID",
        "ConceptNameCodeSequence",
    ];
    let query = query(QueryRetrieveLevel::Image, &of, "ISO_IR 192");
    let specimens = r#"[{"00400551":{"vr":"LO","Value":["S1"]},"00400560":{"vr":"SQ"},
        "00280010":{"vr":"US","Value":[513]},"00189073":{"vr":"FD","Value":[1.5]},"00280009":{"vr":"AT","Value":["00181063"]},
        "00091001":{"vr":"UN","InlineBinary":"Zm9v"},"00400612":{"vr":"SQ","Value":[{"00080104":{"vr":"LO","Value":["Ärm"]}},{}]}}]"#;
    let answer = answer(
        &query,
        "",
        &[
            (AttributeId::PatientName, "Müller^Änne=山田"),
            (AttributeId::Rows, "512"),
            (AttributeId::ImageType, "ORIGINAL\\PRIMARY"),
            (AttributeId::InstanceNumber, "007"),
            (AttributeId::AvailableTransferSyntaxUID, "1.2.840.10008.1.2.1"),
            (AttributeId::SpecimenDescriptionSequence, specimens),
        ],
    );
    for encoding in Encoding::ALL {
        let bytes = ResponseWriter::new(&query, encoding, "").write(&answer).to_vec();
        let object = read(&bytes, encoding);
        let text = |tag: Tag| object.element(tag).unwrap().to_str().unwrap().into_owned();
        assert_eq!(text(tags::SPECIFIC_CHARACTER_SET), "ISO_IR 192");
        assert_eq!(text(tags::QUERY_RETRIEVE_LEVEL), "IMAGE");
        assert_eq!(text(tags::PATIENT_NAME), "Müller^Änne=山田");
        assert_eq!(text(tags::IMAGE_TYPE), "ORIGINAL\\PRIMARY");
        assert_eq!(text(tags::INSTANCE_NUMBER), "007");
        assert_eq!(object.element(tags::ROWS).unwrap().to_int::<u16>().unwrap(), 512);
        assert!(object.element(tags::NUMBER_OF_FRAMES).unwrap().is_empty());
        assert_eq!(object.element(tags::CONCEPT_NAME_CODE_SEQUENCE).unwrap().items().unwrap().len(), 0);
        let tags_in_order: Vec<_> = object.iter().map(|element: &InMemElement| element.header().tag).collect();
        assert!(tags_in_order.is_sorted(), "{tags_in_order:?}");

        let items = object.element(tags::SPECIMEN_DESCRIPTION_SEQUENCE).unwrap().items().unwrap();
        assert_eq!(items.len(), 1);
        let item = &items[0];
        assert_eq!(item.element(Tag(0x0040, 0x0551)).unwrap().to_str().unwrap(), "S1");
        assert_eq!(item.element(Tag(0x0028, 0x0010)).unwrap().to_int::<u16>().unwrap(), 513);
        assert_eq!(item.element(Tag(0x0018, 0x9073)).unwrap().to_float64().unwrap(), 1.5);
        assert_eq!(item.element(Tag(0x0009, 0x1001)).unwrap().to_bytes().unwrap()[..3], *b"foo");
        let nested = item.element(Tag(0x0040, 0x0612)).unwrap().items().unwrap();
        assert_eq!(nested.len(), 2);
        assert_eq!(nested[0].element(Tag(0x0008, 0x0104)).unwrap().to_str().unwrap(), "Ärm");
        if encoding != Encoding::ImplicitLittle {
            assert_eq!(item.element(Tag(0x0028, 0x0009)).unwrap().vr(), VR::AT);
        }
    }
}

/// Returns the Specific Character Set of the answer for a name. The request is in `requested`, and
/// the name is stored in `stored`.
fn chosen(requested: &str, stored: &str, name: &str) -> (Option<String>, String) {
    let query = query(QueryRetrieveLevel::Study, &["PatientName"], requested);
    let answer = answer(&query, stored, &[(AttributeId::PatientName, name)]);
    let bytes = ResponseWriter::new(&query, Encoding::ExplicitLittle, "").write(&answer).to_vec();
    let decoded = qr::Identifier::decode(&bytes, Encoding::ExplicitLittle, "").unwrap();
    let set = decoded.text(tags::SPECIFIC_CHARACTER_SET).map(str::to_owned);
    (set, decoded.text(tags::PATIENT_NAME).unwrap().to_owned())
}

#[test]
fn the_character_set_is_one_that_carries_every_character() {
    let set = |requested, stored, name| {
        let (set, read) = chosen(requested, stored, name);
        assert_eq!(read, name, "no character is lost");
        set.unwrap_or_default()
    };
    assert_eq!(set("ISO_IR 100", "ISO_IR 144", "Smith^John"), "");
    assert_eq!(set("ISO_IR 100", "ISO_IR 192", "Müller"), "ISO_IR 100");
    assert_eq!(set("ISO_IR 100", "ISO_IR 144", "Люкceмбypг"), "ISO_IR 144");
    assert_eq!(set("", "ISO_IR 144", "Люкceмбypг"), "ISO_IR 144");
    assert_eq!(set("ISO_IR 100", "ISO_IR 144", "山田"), "ISO_IR 192");
    assert_eq!(set("\\ISO 2022 IR 87", "ISO_IR 192", "Yamada^Tarou=山田^太郎=やまだ^たろう"), "\\ISO 2022 IR 87");
    assert_eq!(set("ISO_IR 144", "\\ISO 2022 IR 149", "Hong=洪^吉洞=홍^길동"), "\\ISO 2022 IR 149");
    assert_eq!(set("nonsense", "", "é"), "ISO_IR 192");
    assert_eq!(set("GB18030", "", "王😀"), "GB18030");
    assert_eq!(set("ISO_IR 6", "ISO_IR 6", "é"), "ISO_IR 192");
}

// PS3.4 C.4.1.1.3.2: a peer may know no other spelling than the Defined Terms.
#[test]
fn a_character_set_in_an_odd_spelling_is_answered_under_its_defined_term() {
    let russian = "Люкceмбypг";
    for spelled in ["iso_ir 144", "ISO-IR 144", "ISO_IR_144", "ISO IR 144"] {
        assert_eq!(chosen("", spelled, russian), (Some("ISO_IR 144".into()), russian.into()), "{spelled}");
        assert_eq!(chosen(spelled, "", russian), (Some("ISO_IR 144".into()), russian.into()), "{spelled}");
    }
    for (spelled, term, name) in [
        ("utf-8", "ISO_IR 192", "山"),
        ("ISO_IR 192\\ISO 2022 IR 87", "ISO_IR 192", "山"),
        ("GB18030\\ISO 2022 IR 58", "GB18030", "山"),
        ("ISO 2022 GBK", "GBK", "山"),
        ("ISO_IR 149", "\\ISO 2022 IR 149", "Hong=洪^吉洞=홍^길동"),
        ("ISO_IR 100\\ISO_IR 144", "ISO 2022 IR 100\\ISO 2022 IR 144", "Müller^Люк"),
        ("windows-1251", "ISO_IR 192", "Люк"),
    ] {
        assert_eq!(chosen("", spelled, name), (Some(term.into()), name.into()), "{spelled}");
    }
}

#[test]
fn the_text_of_items_counts_for_the_character_set_too() {
    let query = query(QueryRetrieveLevel::Study, &["ProcedureCodeSequence"], "ISO_IR 100");
    let json = r#"[{"00080005":{"vr":"CS","Value":["ISO_IR 144"]},"00080104":{"vr":"LO","Value":["Л"]}}]"#;
    let answer = answer(&query, "ISO_IR 144", &[(AttributeId::ProcedureCodeSequence, json)]);
    let bytes = ResponseWriter::new(&query, Encoding::ExplicitLittle, "").write(&answer).to_vec();
    let object = read(&bytes, Encoding::ExplicitLittle);
    assert_eq!(object.element(tags::SPECIFIC_CHARACTER_SET).unwrap().to_str().unwrap(), "ISO_IR 144");
    let item = &object.element(tags::PROCEDURE_CODE_SEQUENCE).unwrap().items().unwrap()[0];
    assert_eq!(item.element(tags::CODE_MEANING).unwrap().to_str().unwrap(), "Л");
    assert!(item.element(tags::SPECIFIC_CHARACTER_SET).is_err(), "the item is in the character set of the answer");
}

// PS3.4 C.2.2.2.6.
#[test]
fn only_matching_items_are_answered_and_of_them_only_what_is_asked_for() {
    let of = ["ProcedureCodeSequence.CodeValue=B", "ProcedureCodeSequence.CodingSchemeVersion"];
    let query = query(QueryRetrieveLevel::Study, &of, "");
    let json = r#"[{"00080100":{"vr":"SH","Value":["A"]},"00080104":{"vr":"LO","Value":["a"]}},
        {"00080100":{"vr":"SH","Value":["B"]},"00080104":{"vr":"LO","Value":["b"]}}]"#;
    let answer = answer(&query, "", &[(AttributeId::ProcedureCodeSequence, json)]);
    let bytes = ResponseWriter::new(&query, Encoding::ExplicitLittle, "").write(&answer).to_vec();
    let object = read(&bytes, Encoding::ExplicitLittle);
    let items = object.element(tags::PROCEDURE_CODE_SEQUENCE).unwrap().items().unwrap();
    assert_eq!(items.len(), 1);
    let found: Vec<_> =
        items[0].iter().map(|element| (element.header().tag, element.to_str().unwrap().into_owned())).collect();
    assert_eq!(found, [(tags::CODE_VALUE, "B".to_owned()), (tags::CODING_SCHEME_VERSION, String::new())]);
}

#[test]
fn a_study_answers_the_items_of_all_its_series() {
    let query = query(QueryRetrieveLevel::Study, &["RequestAttributesSequence.CodeValue=?"], "");
    let json = r#"[{"00080100":{"vr":"SH","Value":["A"]}},{"00080100":{"vr":"SH","Value":["B"]}},{}]"#;
    for (stored, items) in [(json, 2), ("[]", 0), ("", 0), ("no array", 0)] {
        let answer = answer(&query, "", &[(AttributeId::RequestAttributesSequence, stored)]);
        let bytes = ResponseWriter::new(&query, Encoding::ImplicitLittle, "").write(&answer).to_vec();
        let object = read(&bytes, Encoding::ImplicitLittle);
        assert_eq!(
            object.element(tags::REQUEST_ATTRIBUTES_SEQUENCE).unwrap().items().unwrap().len(),
            items,
            "{stored}"
        );
    }
}

#[test]
fn numbers_in_items_are_answered_as_they_were_written() {
    let query = query(QueryRetrieveLevel::Study, &["ProcedureCodeSequence"], "");
    // Both as the index has them: a number, and a text that no number gives back.
    let json = r#"[{"00189073":{"vr":"DS","Value":["1E400"]}},{"00189073":{"vr":"DS","Value":["1.50","-0",12,1.5]}}]"#;
    let answer = answer(&query, "", &[(AttributeId::ProcedureCodeSequence, json)]);
    let bytes = ResponseWriter::new(&query, Encoding::ExplicitLittle, "").write(&answer).to_vec();
    let object = read(&bytes, Encoding::ExplicitLittle);
    let items = object.element(tags::PROCEDURE_CODE_SEQUENCE).unwrap().items().unwrap();
    let texts: Vec<_> = items
        .iter()
        .map(|item| item.element(tags::ACQUISITION_DURATION).unwrap().to_raw_str().unwrap().trim_end().to_owned())
        .collect();
    assert_eq!(texts, ["1E400", "1.50\\-0\\12\\1.5"]);
}

#[test]
fn items_that_lie_as_deep_as_they_may_are_answered() {
    let query = query(QueryRetrieveLevel::Study, &["ProcedureCodeSequence"], "");
    let mut json = r#"[{"00080100":{"vr":"SH","Value":["DEEP"]}}]"#.to_owned();
    // Each level counts twice in MAX_DEPTH.
    for _ in 1..dcmdex::ingest::limits::MAX_DEPTH / 2 {
        json = format!(r#"[{{"00081110":{{"vr":"SQ","Value":{json}}}}}]"#);
    }
    let answer = answer(&query, "", &[(AttributeId::ProcedureCodeSequence, &json)]);
    let bytes = ResponseWriter::new(&query, Encoding::ExplicitLittle, "").write(&answer).to_vec();
    assert!(bytes.windows(4).any(|window| window == b"DEEP"));
}

#[test]
fn a_value_too_long_for_its_vr_is_sent_as_unknown() {
    let query = query(QueryRetrieveLevel::Study, &["StudyDescription"], "");
    let long = "x".repeat(70_001);
    let answer = answer(&query, "", &[(AttributeId::StudyDescription, &long)]);
    for encoding in Encoding::ALL {
        let bytes = ResponseWriter::new(&query, encoding, "").write(&answer).to_vec();
        let object = read(&bytes, encoding);
        let element = object.element(tags::STUDY_DESCRIPTION).unwrap();
        let value = element.to_bytes().unwrap();
        assert_eq!((value.len(), &value[..70_001]), (70_002, long.as_bytes()), "{encoding:?}");
    }
}
