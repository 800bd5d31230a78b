//! Declared attributes: scanned, received, searched, returned, and added to an existing index.

use std::fs;
use std::sync::Arc;

use dcmdex::config::{Config, Sources};
use dcmdex::db::Admin;
use dcmdex::encoding::syntax::Encoding;
use dcmdex::model::matching::KeyValue;
use dcmdex::qr::{self, Identifier};
use dicom_core::Tag;
use serde_json::{Value, json};

use super::{Place, on_each_engine};
use crate::util::node::TestNode;
use crate::util::peers::{self, dcmtk, python_peer};
use crate::util::scripted::{
    DataSet, EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, find_command, store_command,
};

const STUDY_ROOT: &str = "1.2.840.10008.5.1.4.1.2.2.1";
const CT: &str = "1.2.840.10008.5.1.4.1.1.2";

const DECLARED: &str = r#"
[[attribute]]
path = "0019xx10"
creator = "ACME 1.1"
level = "SERIES"
vr = "DS"
name = "AcmeDose"

[[attribute]]
path = "0021xx01"
creator = "ACME NUMBERS"
level = "IMAGE"
vr = "US"
name = "AcmeCount"

[[attribute]]
path = "ContrastBolusAgent"
level = "STUDY"

[[attribute]]
path = "ReferencedImageSequence[*].ReferencedSOPInstanceUID"
level = "IMAGE"
name = "Localizer"

[[attribute]]
path = "ReferencedImageSequence[*].PurposeOfReferenceCodeSequence[*].CodeValue"
level = "IMAGE"
name = "LocalizerPurpose"

[[attribute]]
path = "0021xx50[*].0021xx02"
creator = "ACME NUMBERS"
level = "SERIES"
vr = "LO"
name = "AcmeStep"

[[attribute]]
path = "RequestAttributesSequence[*].ScheduledProcedureStepID"
level = "SERIES"
name = "StepID"
"#;

/// The value of a sequence in Implicit VR Little Endian.
pub(super) fn sequence(items: &[DataSet]) -> Vec<u8> {
    items.iter().flat_map(|item| DataSet::default().bytes(0xFFFE, 0xE000, &item.0).0).collect()
}

/// Builds the object with this number. It has its own study, and its private elements have their
/// own blocks.
fn object(number: u8) -> DataSet {
    let block = 0x10 + u16::from(number);
    let uid = |depth: &str| format!("1.2.{number}{depth}");
    let purpose =
        |code: &str| sequence(&[DataSet::default().text(0x0008, 0x0100, code).text(0x0008, 0x0104, "left out")]);
    let reference = |uid: &str, code: &str| {
        DataSet::default().uid(0x0008, 0x1150, CT).uid(0x0008, 0x1155, uid).bytes(0x0040, 0xA170, &purpose(code))
    };
    let references =
        sequence(&[reference(&format!("1.2.9.{number}"), "121311"), reference(&format!("1.2.8.{number}"), "121329")]);
    let step = DataSet::default()
        .text(0x0021, block, "ACME NUMBERS")
        .text(0x0021, block << 8 | 0x02, &format!("STEP {number}"))
        .text(0x0021, block << 8 | 0x03, "not declared");
    let request = DataSet::default().text(0x0040, 0x0009, &format!("SPS{number}"));
    DataSet::default()
        .uid(0x0008, 0x0016, CT)
        .uid(0x0008, 0x0018, &uid(".1.1"))
        .text(0x0008, 0x0060, "CT")
        .bytes(0x0008, 0x1140, &references)
        .text(0x0010, 0x0020, &format!("P{number}"))
        .text(0x0018, 0x0010, &format!("AGENT {number}"))
        // Somebody else has the element, too, in the block before.
        .text(0x0019, block - 1, "OTHER")
        .text(0x0019, block, "ACME 1.1")
        .text(0x0019, (block - 1) << 8 | 0x10, "99")
        .text(0x0019, block << 8 | 0x10, &format!("{number}.50"))
        .uid(0x0020, 0x000D, &uid(""))
        .uid(0x0020, 0x000E, &uid(".1"))
        .text(0x0020, 0x0013, "1")
        .text(0x0021, block, "ACME NUMBERS")
        .bytes(0x0021, block << 8 | 0x01, &u16::from(number).to_le_bytes())
        .bytes(0x0021, block << 8 | 0x50, &sequence(&[step]))
        .bytes(0x0040, 0x0275, &sequence(&[request]))
}

/// Writes a file in Implicit VR Little Endian below `archive`.
pub(super) fn write_file(place: &Place, name: &str, data_set: &DataSet) {
    let mut bytes = vec![0; 128];
    bytes.extend_from_slice(b"DICM\x02\0\0\0UL\x04\0\x1A\0\0\0\x02\0\x10\0UI\x12\x001.2.840.10008.1.2\0");
    bytes.extend_from_slice(&data_set.0);
    let path = place.path("archive").join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn declare(place: &Place, text: &str) {
    fs::write(place.path("dcmdex.toml"), text).unwrap();
}

fn options(place: &Place) -> qr::Options {
    let sources = Sources { file: Some(place.path("dcmdex.toml")), ..Sources::default() };
    Config::load(&sources, &place.path("")).unwrap().find
}

/// Returns the values of the last key in the answers of `dcmdex find`, sorted.
fn found(place: &Place, level: &str, keys: &[&str]) -> Vec<String> {
    let mut arguments = vec!["find", "--index", "index.db", "--format", "ndjson", "--level", level];
    arguments.extend(keys);
    let run = place.run(arguments);
    let said = if run.code == 0 { run.stderr.is_empty() } else { run.stderr.starts_with("nothing matched") };
    assert!(run.code <= 1 && said, "{run:?}");
    let name = keys.last().unwrap().split('=').next().unwrap();
    let mut values: Vec<_> = run.json().iter().map(|answer| answer[name].as_str().unwrap().to_owned()).collect();
    values.retain(|value| !value.is_empty());
    values.sort();
    values
}

fn expect_all_to_be_there(place: &Place) {
    assert_eq!(found(place, "SERIES", &["AcmeDose"]), ["1.50", "2.50", "3.50"]);
    assert_eq!(found(place, "SERIES", &["AcmeDose=2.5", "SeriesInstanceUID"]), ["1.2.2.1"], "by value, not by letter");
    assert_eq!(found(place, "SERIES", &["AcmeDose=99", "SeriesInstanceUID"]), [""; 0], "that is another's element");
    assert_eq!(found(place, "IMAGE", &["acmecount=3", "SOPInstanceUID"]), ["1.2.3.1.1"]);
    assert_eq!(found(place, "STUDY", &["ContrastBolusAgent=AGENT ?", "ContrastBolusAgent"]).len(), 3);
    assert_eq!(found(place, "STUDY", &["ContrastBolusAgent=agent 1", "StudyInstanceUID"]), [""; 0]);
    assert_eq!(found(place, "IMAGE", &["Localizer=1.2.9.2", "Localizer"]), ["1.2.9.2\\1.2.8.2"]);
    assert_eq!(
        found(place, "IMAGE", &["LocalizerPurpose=1213*", "PatientID=P1", "LocalizerPurpose"]),
        ["121311\\121329"]
    );
    // Both in one item.
    let both = |uid: &str| ["LocalizerPurpose=121329".to_owned(), format!("Localizer={uid}")];
    let keys = both("1.2.8.1");
    assert_eq!(found(place, "IMAGE", &[&keys[0], &keys[1], "SOPInstanceUID"]), ["1.2.1.1.1"]);
    let keys = both("1.2.9.1");
    assert_eq!(found(place, "IMAGE", &[&keys[0], &keys[1], "SOPInstanceUID"]), [""; 0]);
    assert_eq!(found(place, "SERIES", &["AcmeStep=STEP 2", "AcmeStep"]), ["STEP 2"]);
    assert_eq!(found(place, "SERIES", &["StepID=SPS[13]", "StepID"]), [""; 0]);
    assert_eq!(found(place, "SERIES", &["StepID=SPS*", "StepID"]), ["SPS1", "SPS2", "SPS3"]);
    // Below the level that is asked for: some series, some instance.
    assert_eq!(found(place, "STUDY", &["AcmeDose=3.5", "StudyInstanceUID"]), ["1.2.3"]);
    assert_eq!(found(place, "PATIENT", &["AcmeCount=1", "PatientID"]), ["P1"]);
    assert_eq!(found(place, "STUDY", &["AcmeDose"]), ["1.50", "2.50", "3.50"], "a study answers for its series");
    // Above it.
    assert_eq!(found(place, "IMAGE", &["ContrastBolusAgent=AGENT 3", "AcmeCount"]), ["3"]);
    let check = place.run(["check", "--index", "index.db"]).expect(0);
    assert!(check.stderr.is_empty(), "{check:?}");
}

fn declared_attributes_are_scanned_and_searched(place: Place) {
    declare(&place, DECLARED);
    for number in 1..=3 {
        write_file(&place, &format!("{number}/a.dcm"), &object(number));
    }
    place.run(["scan", "--index", "index.db", "archive"]).expect(0);
    expect_all_to_be_there(&place);
    // What is not declared in a sequence is not kept.
    let whole = place.run(["find", "--index", "index.db", "--level", "IMAGE", "PatientID=P1", "0008,1140"]).expect(2);
    assert!(whole.stderr.contains("only what is declared: Localizer, LocalizerPurpose"), "{whole:?}");
    let shown = place.run(["config", "conformance"]).expect(0).stdout;
    assert!(
        shown.contains("| AcmeDose | 0019xx10 | ACME 1.1 | DS | SERIES | O | single value, universal |"),
        "{shown}"
    );
    assert!(shown.contains("| StepID | RequestAttributesSequence > ScheduledProcedureStepID |"), "{shown}");
    let shown = place.run(["config", "show"]).expect(0).stdout;
    assert!(shown.contains("[[attribute]]") && shown.contains("creator = \"ACME 1.1\""), "{shown}");
}

fn summary(place: &Place) -> (Option<Value>, Value) {
    let run = place.run(["scan", "--index", "index.db", "--json", "archive"]).expect(0);
    let mut lines = run.json();
    let lacking = lines.iter().find(|line| line["event"] == "lacking").cloned();
    (lacking, lines.pop().unwrap())
}

fn what_was_indexed_before_is_filled_by_the_next_scan_which_says_how_long_that_takes(place: Place) {
    for number in 1..=3 {
        write_file(&place, &format!("{number}/a.dcm"), &object(number));
    }
    // Beside: one study whose files disagree. Reading them again must not change whose value
    // counts.
    let disagreeing = |number: u8, description: &str| {
        DataSet::default()
            .uid(0x0008, 0x0016, CT)
            .uid(0x0008, 0x0018, &format!("1.2.7.1.{number}"))
            .text(0x0008, 0x1030, description)
            .text(0x0010, 0x0020, "P7")
            .uid(0x0020, 0x000D, "1.2.7")
            .uid(0x0020, 0x000E, "1.2.7.1")
    };
    write_file(&place, "7/1.dcm", &disagreeing(1, "the longer description"));
    write_file(&place, "7/2.dcm", &disagreeing(2, "short"));
    let (lacking, first) = summary(&place);
    assert_eq!((lacking, &first["indexed"]), (None, &json!(5)));
    let description = ["StudyInstanceUID=1.2.7", "StudyDescription"];
    assert_eq!(found(&place, "STUDY", &description), ["the longer description"]);

    declare(&place, DECLARED);
    let (lacking, filled) = summary(&place);
    let lacking = lacking.unwrap();
    assert_eq!(lacking["instances"], 5);
    assert!(lacking["estimated_seconds"].as_f64().is_some_and(|seconds| seconds >= 0.0), "{lacking}");
    assert_eq!((&filled["updated"], &filled["unchanged"]), (&json!(5), &json!(0)), "{filled}");
    expect_all_to_be_there(&place);
    assert_eq!(found(&place, "STUDY", &description), ["the longer description"]);
    let (lacking, again) = summary(&place);
    assert_eq!((lacking, &again["unchanged"]), (None, &json!(5)));

    // With less declared there is nothing to do; with more there is.
    declare(&place, "");
    assert_eq!(summary(&place).0, None);
    declare(&place, &format!("{DECLARED}\n[[attribute]]\npath = \"KVP\"\nlevel = \"SERIES\"\n"));
    assert_eq!(summary(&place).0.unwrap()["instances"], 5);
    declare(&place, DECLARED);
    assert_eq!(summary(&place).0, None);
    // A file that cannot be read again stays as it was known.
    declare(&place, &format!("{DECLARED}\n[[attribute]]\npath = \"PatientState\"\nlevel = \"STUDY\"\n"));
    let file = place.path("archive/1/a.dcm");
    let modified = fs::metadata(&file).unwrap().modified().unwrap();
    let length = fs::metadata(&file).unwrap().len();
    fs::write(&file, vec![7; usize::try_from(length).unwrap()]).unwrap();
    fs::File::options().write(true).open(&file).unwrap().set_modified(modified).unwrap();
    let told = place.run(["scan", "--index", "index.db", "archive"]).expect(1).stdout;
    assert!(told.contains("5 indexed instances lack declared attributes and are read again"), "{told}");
    assert!(told.contains("a.dcm: not-dicom"), "{told}");
    assert_eq!(found(&place, "SERIES", &["AcmeDose"]), ["1.50", "2.50", "3.50"]);
}

fn store(node: &TestNode, number: u8) {
    let mut peer = node.associate(&[(CT, &[IMPLICIT_VR_LITTLE_ENDIAN])]);
    peer.send_message(1, &store_command(1, CT, &format!("1.2.{number}.1.1")), Some(&object(number).0));
    assert_eq!(peer.receive_message().status(), 0);
    peer.release();
}

/// Decodes an answer. In implicit VR only the declaration tells that the private element is a
/// sequence.
fn decoded(data_set: &[u8]) -> Identifier {
    let place = Place::new();
    declare(&place, DECLARED);
    Identifier::decode_with(data_set, Encoding::ImplicitLittle, "", &options(&place).declared).unwrap()
}

fn ask(node: &TestNode, keys: &DataSet) -> Vec<(u16, Identifier)> {
    let mut peer = node.associate(&[(STUDY_ROOT, &[IMPLICIT_VR_LITTLE_ENDIAN])]);
    peer.send_message(1, &find_command(1, STUDY_ROOT), Some(&keys.0));
    let mut answers = Vec::new();
    loop {
        let response = peer.receive_message();
        let Some(data_set) = &response.data_set else {
            assert_eq!(response.status(), 0);
            peer.release();
            return answers;
        };
        answers.push((response.status(), decoded(data_set)));
    }
}

#[test]
fn declared_attributes_are_received_matched_and_answered_over_the_network() {
    let place = Place::new();
    declare(&place, DECLARED);
    let node = TestNode::with(|settings| settings.query = options(&place));
    for number in 1..=3 {
        store(&node, number);
    }
    // The block of the request is not that of any object; a number in implicit VR is read by its
    // declared VR.
    let series = DataSet::default()
        .text(0x0008, 0x0052, "SERIES")
        .text(0x0019, 0x0042, "ACME 1.1")
        .text(0x0019, 0x4210, "2.5")
        .uid(0x0020, 0x000E, "");
    let [(status, answer)] = ask(&node, &series).try_into().unwrap();
    assert_eq!(status, 0xFF00);
    assert_eq!(answer.text(Tag(0x0020, 0x000E)), Some("1.2.2.1"));
    assert_eq!(answer.text(Tag(0x0019, 0x0042)), Some("ACME 1.1"));
    assert_eq!(answer.text(Tag(0x0019, 0x4210)), Some("2.50"));
    let image = DataSet::default()
        .uid(0x0008, 0x0018, "")
        .text(0x0008, 0x0052, "IMAGE")
        .text(0x0021, 0x0010, "ACME NUMBERS")
        .bytes(0x0021, 0x1001, &3_u16.to_le_bytes());
    let [(status, answer)] = ask(&node, &image).try_into().unwrap();
    assert_eq!((status, answer.text(Tag(0x0008, 0x0018))), (0xFF00, Some("1.2.3.1.1")));
    // Another creator's element is not supported.
    let other = DataSet::default()
        .text(0x0008, 0x0052, "SERIES")
        .text(0x0019, 0x0010, "OTHER")
        .text(0x0019, 0x1010, "99")
        .uid(0x0020, 0x000E, "");
    let answers = ask(&node, &other);
    assert_eq!(answers.len(), 3);
    assert!(answers.iter().all(|(status, answer)| *status == 0xFF01 && answer.text(Tag(0x0019, 0x1010)).is_none()));
    // A private element in the items of a private sequence; the answer names the creator in the
    // item as well.
    let item = DataSet::default().text(0x0021, 0x0030, "ACME NUMBERS").text(0x0021, 0x3002, "STEP 3");
    let step = DataSet::default()
        .text(0x0008, 0x0052, "SERIES")
        .uid(0x0020, 0x000E, "")
        .text(0x0021, 0x0010, "ACME NUMBERS")
        .bytes(0x0021, 0x1050, &sequence(&[item]));
    let [(status, answer)] = ask(&node, &step).try_into().unwrap();
    assert_eq!((status, answer.text(Tag(0x0020, 0x000E))), (0xFF00, Some("1.2.3.1")));
    let items = answer.elements.iter().find(|element| element.tag == Tag(0x0021, 0x1050)).unwrap();
    let KeyValue::Items(items) = &items.value else { panic!("no items") };
    let texts: Vec<_> = items[0]
        .iter()
        .map(|element| match &element.value {
            KeyValue::Text(text) => text.as_str(),
            KeyValue::Items(_) => "",
        })
        .collect();
    assert_eq!(texts, ["ACME NUMBERS", "STEP 3"]);
    // Two in one sequence, both in one item.
    let purpose = sequence(&[DataSet::default().text(0x0008, 0x0100, "121329")]);
    let item = DataSet::default().uid(0x0008, 0x1155, "1.2.8.2").bytes(0x0040, 0xA170, &purpose);
    let reference = DataSet::default().uid(0x0008, 0x0018, "").text(0x0008, 0x0052, "IMAGE").bytes(
        0x0008,
        0x1140,
        &sequence(&[item]),
    );
    let [(status, answer)] = ask(&node, &reference).try_into().unwrap();
    assert_eq!((status, answer.text(Tag(0x0008, 0x0018))), (0xFF00, Some("1.2.2.1.1")));

    let said = dcmtk("findscu").map(|mut findscu| {
        // The dictionary of findscu has not the private element, so it wants the bytes of its
        // value: 1.5 and a space.
        findscu.args(["-v", "-S", "-aec", "DCMDEX", "-k", "QueryRetrieveLevel=SERIES", "-k", "SeriesInstanceUID"]);
        findscu.args(["-k", "(0019,0010)=ACME 1.1", "-k", r"(0019,1010)=31\2e\35\20", "127.0.0.1", &node.port()]);
        peers::run(&mut findscu).expect_success()
    });
    if let Some(said) = said {
        assert!(said.contains("Find Response: 1 (Pending)") && !said.contains("Find Response: 2"), "{said}");
        assert!(said.contains("1.2.1.1") && said.contains("1.50"), "{said}");
    }
    let Some(mut find) = python_peer("find.py") else { return };
    let question = json!({
        "class": STUDY_ROOT, "syntax": EXPLICIT_VR_LITTLE_ENDIAN, "extended": [],
        "keys": {
            "QueryRetrieveLevel": "IMAGE", "SOPInstanceUID": "", "ContrastBolusAgent": "AGENT [1]*",
            "0021,0010 LO": "ACME NUMBERS", "0021,1001 US": null,
        },
    });
    let said = peers::run(find.args(["127.0.0.1", &node.port(), "DCMDEX", &question.to_string()])).expect_success();
    assert_eq!(said.lines().count(), 2, "a bracket is a bracket: {said}");
    let question = question.to_string().replace("AGENT [1]*", "AGENT 2*");
    let Some(mut find) = python_peer("find.py") else { return };
    let said = peers::run(find.args(["127.0.0.1", &node.port(), "DCMDEX", &question])).expect_success();
    let answer: Value = serde_json::from_str(said.lines().nth(1).unwrap()).unwrap();
    assert_eq!(answer["status"], "FF00");
    assert_eq!(answer["values"]["ContrastBolusAgent"], "AGENT 2");
    assert_eq!(answer["values"]["0021,1001"], "2");
}

fn what_is_declared_stays_when_another_file_of_the_same_object_takes_the_first_place(place: Place) {
    declare(&place, DECLARED);
    for number in 1..=3 {
        write_file(&place, &format!("{number}/a.dcm"), &object(number));
        write_file(&place, &format!("copies/{number}.dcm"), &object(number));
    }
    assert_eq!(summary(&place).1["copies"], 3);
    for number in 1..=3 {
        fs::remove_dir_all(place.path(format!("archive/{number}"))).unwrap();
    }
    place.run(["scan", "--index", "index.db", "--prune", "archive"]).expect(0);
    expect_all_to_be_there(&place);
    assert_eq!(summary(&place).0, None);
}

fn a_declared_attribute_of_the_patient_is_that_of_the_studys_own_objects_under_each_of_its_patients(place: Place) {
    declare(&place, "[[attribute]]\npath = \"PatientBreedDescription\"\nlevel = \"PATIENT\"\nname = \"Breed\"\n");
    let object = |study: u8, instance: u8, patient: &str, breed: &str| {
        DataSet::default()
            .uid(0x0008, 0x0016, CT)
            .uid(0x0008, 0x0018, &format!("1.2.{study}.1.{instance}"))
            .text(0x0010, 0x0020, patient)
            .text(0x0010, 0x2292, breed)
            .uid(0x0020, 0x000D, &format!("1.2.{study}"))
            .uid(0x0020, 0x000E, &format!("1.2.{study}.1"))
    };
    write_file(&place, "1", &object(1, 1, "A", "Beagle"));
    write_file(&place, "2", &object(1, 2, "B", "Collie"));
    write_file(&place, "3", &object(3, 3, "B", "Dalmatian"));
    place.run(["scan", "--index", "index.db", "archive"]).expect(0);
    assert_eq!(found(&place, "STUDY", &["Breed=Beagle", "PatientID", "StudyInstanceUID"]), ["1.2.1"]);
    assert_eq!(found(&place, "STUDY", &["Breed=Collie", "PatientID"]), ["B"]);
    assert_eq!(found(&place, "STUDY", &["PatientID=B", "Breed"]), ["Collie", "Dalmatian"]);
    assert_eq!(found(&place, "IMAGE", &["Breed=Collie", "SOPInstanceUID"]), ["1.2.1.1.2"]);
    // A patient is found by what the objects of any of its studies say, and answered with that.
    for breed in ["Collie", "Dalmatian"] {
        assert_eq!(found(&place, "PATIENT", &["PatientID=B", &format!("Breed={breed}")]), [breed]);
    }
    assert_eq!(found(&place, "PATIENT", &["Breed=Beagle", "PatientID"]), ["A"]);
}

// PS3.5 table 6.2-1, DT.
fn a_declared_moment_is_in_the_zone_of_its_object(place: Place) {
    declare(
        &place,
        "[[attribute]]\npath = \"StartAcquisitionDateTime\"\nlevel = \"SERIES\"\n[[attribute]]\n\
         path = \"ReferencedImageSequence[*].ReferencedDateTime\"\nlevel = \"IMAGE\"\nname = \"Seen\"\n",
    );
    for (study, zone, second) in [(1, "+0100", "20240101"), (2, "", "2024"), (3, "-0500", "20240101003000+0000")] {
        let items = ["20240101003000", second].map(|text| DataSet::default().text(0x0040, 0xA13A, text));
        let object = DataSet::default()
            .uid(0x0008, 0x0016, CT)
            .uid(0x0008, 0x0018, &format!("1.2.{study}.1.1"))
            .bytes(0x0008, 0x1140, &sequence(&items))
            .text(0x0008, 0x0201, zone)
            .text(0x0010, 0x0020, "P1")
            .text(0x0018, 0x9516, "20240101003000")
            .uid(0x0020, 0x000D, &format!("1.2.{study}"))
            .uid(0x0020, 0x000E, &format!("1.2.{study}.1"));
        write_file(&place, &study.to_string(), &object);
    }
    place.run(["scan", "--index", "index.db", "archive"]).expect(0);
    for (key, studies) in [
        ("20231231233000+0000", &["1.2.1"][..]),
        ("20231231232900+0000-20231231233100+0000", &["1.2.1"]),
        ("20240101003000+0000", &["1.2.2"]),
        ("20240101053000+0000", &["1.2.3"]),
        ("20240101003000", &["1.2.1", "1.2.2", "1.2.3"]),
    ] {
        let of_series = format!("StartAcquisitionDateTime={key}");
        assert_eq!(found(&place, "SERIES", &[&of_series, "StudyInstanceUID"]), studies, "{key}");
        // Below the level that is asked for, and above it.
        assert_eq!(found(&place, "STUDY", &[&of_series, "StudyInstanceUID"]), studies, "{key}");
        assert_eq!(found(&place, "PATIENT", &[&of_series, "PatientID"]), ["P1"], "{key}");
        assert_eq!(found(&place, "IMAGE", &[&of_series, "StudyInstanceUID"]), studies, "{key}");
    }
    let seen = |key: &str| found(&place, "IMAGE", &[&format!("Seen={key}"), "StudyInstanceUID"]);
    assert_eq!(seen("20231231233000+0000"), ["1.2.1"]);
    assert_eq!(seen("20240101003000+0000"), ["1.2.2", "1.2.3"], "an offset of its own counts");
    assert_eq!(seen("20240101053000+0000"), ["1.2.3"]);
    // Only items that match are answered, and no attribute that was not asked for.
    for (key, answered) in [("20240101053000+0000", "20240101003000"), ("20240101003000+0000", "20240101003000+0000")] {
        let (study, seen) = ("StudyInstanceUID=1.2.3", format!("Seen={key}"));
        let asked = ["find", "--index", "index.db", "--level", "IMAGE", "--format", "dicom-json", study, &seen];
        let answers: Value = serde_json::from_str(&place.run(asked).expect(0).stdout).unwrap();
        let expected = json!([{ "0040A13A": { "vr": "DT", "Value": [answered] } }]);
        assert_eq!(answers[0]["00081140"]["Value"], expected);
        assert_eq!(answers[0].get("00080201"), None);
    }
}

fn members_of_archives_are_filled_by_a_scan_too(place: Place) {
    for number in 1..=3 {
        write_file(&place, &format!("{number}/a.dcm"), &object(number));
    }
    let mut tar = std::process::Command::new("tar");
    assert!(tar.current_dir(place.path("archive")).args(["cf", "all.tar", "1", "2", "3"]).status().unwrap().success());
    for number in 1..=3 {
        fs::remove_dir_all(place.path(format!("archive/{number}"))).unwrap();
    }
    assert_eq!(summary(&place).1["indexed"], 3);
    assert_eq!(summary(&place).1["unchanged"], 3);
    declare(&place, DECLARED);
    let (lacking, filled) = summary(&place);
    assert_eq!((&lacking.unwrap()["instances"], &filled["updated"]), (&json!(3), &json!(3)), "{filled}");
    expect_all_to_be_there(&place);
    let (lacking, again) = summary(&place);
    assert_eq!((lacking, &again["unchanged"]), (None, &json!(3)));
}

#[test]
fn objects_of_the_node_are_filled_by_a_scan_too() {
    let place = Place::new();
    let directory = Arc::new(tempfile::tempdir().unwrap());
    let node = TestNode::with(|settings| settings.directory = Arc::clone(&directory));
    store(&node, 1);
    node.stop();
    fs::create_dir(place.path("archive")).unwrap();
    declare(
        &place,
        &format!(
            "index = {:?}\nstorage = {:?}\n{DECLARED}",
            directory.path().join("index.db"),
            directory.path().join("objects")
        ),
    );
    let run = place.run(["scan", "--json", "archive"]).expect(0);
    let lines = run.json();
    let lacking = lines.iter().find(|line| line["event"] == "lacking").unwrap();
    assert_eq!((&lacking["instances"], &lacking["estimated_seconds"]), (&json!(1), &Value::Null));
    assert_eq!(lines.last().unwrap()["updated"], 1, "{lines:?}");
    let node = TestNode::with(|settings| {
        settings.directory = Arc::clone(&directory);
        settings.query = options(&place);
    });
    let study =
        DataSet::default().text(0x0008, 0x0052, "STUDY").text(0x0018, 0x0010, "AGENT 1").uid(0x0020, 0x000D, "");
    assert_eq!(ask(&node, &study).len(), 1);
    assert!(node.reader().check().unwrap().findings.is_empty());
}

#[test]
fn declarations_that_cannot_be_used_are_told_with_their_line() {
    let place = Place::new();
    declare(&place, "[[attribute]]\npath = \"ContrastBolusAgnt\"\nlevel = \"SERIES\"\n");
    let told = place.run(["find", "--index", "index.db"]).expect(2).stderr;
    assert!(told.contains("dcmdex.toml:1") && told.contains("did you mean `ContrastBolusAgent`?"), "{told}");
}

on_each_engine!(
    declared_attributes_are_scanned_and_searched,
    what_was_indexed_before_is_filled_by_the_next_scan_which_says_how_long_that_takes,
    what_is_declared_stays_when_another_file_of_the_same_object_takes_the_first_place,
    a_declared_attribute_of_the_patient_is_that_of_the_studys_own_objects_under_each_of_its_patients,
    a_declared_moment_is_in_the_zone_of_its_object,
    members_of_archives_are_filled_by_a_scan_too,
);
