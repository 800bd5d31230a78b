//! C-FIND over the network, on the index of the bundled archive. Conversations are compared byte
//! for byte, and SCUs of other vendors are run.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use dcmdex::encoding::syntax::Encoding;
use dcmdex::model::matching::{KeyElement, KeyValue};
use dcmdex::qr::{Hierarchy, Identifier};
use dicom_core::Tag;
use dicom_dictionary_std::tags;
use dicom_object::open_file;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::util::node::{Settings, TestNode};
use crate::util::peers::{self, dcmtk, python_peer};
use crate::util::scripted::{
    DataSet, EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, ScriptedPeer, find_command,
};
use crate::util::snapshot::assert_snapshot;

const PATIENT_ROOT: &str = "1.2.840.10008.5.1.4.1.2.1.1";
const STUDY_ROOT: &str = "1.2.840.10008.5.1.4.1.2.2.1";
const EXPLICIT_VR_BIG_ENDIAN: &str = "1.2.840.10008.1.2.2";

const CT_STUDY: &str = "2.25.222357566655179818184128349088455852959";

/// Starts a node on the index of `fixtures/archive`.
fn archive_node() -> TestNode {
    archive_node_with(|_| {})
}

fn archive_node_with(change: impl FnOnce(&mut Settings)) -> TestNode {
    let directory = Arc::new(TempDir::new().unwrap());
    let scan = Command::new(env!("CARGO_BIN_EXE_dcmdex"))
        .current_dir(directory.path())
        .args(["scan", "--index", "index.db"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/archive"))
        .output()
        .unwrap();
    // 1: the archive has files that nobody can read.
    assert_eq!(scan.status.code(), Some(1), "{}", String::from_utf8_lossy(&scan.stderr));
    TestNode::with(|settings| {
        settings.directory = directory;
        change(settings);
    })
}

/// Describes a data set: its bytes and their meaning.
fn described(bytes: &[u8], encoding: Encoding) -> String {
    fn elements(of: &[KeyElement], indent: usize, text: &mut String) {
        for element in of {
            let _ = write!(text, "{:indent$}{} {}", "", element.tag, element.vr.to_string());
            match &element.value {
                KeyValue::Text(value) => {
                    let _ = writeln!(text, " [{value}]");
                }
                KeyValue::Items(items) => {
                    let _ = writeln!(text);
                    for item in items {
                        let _ = writeln!(text, "{:indent$}  item", "");
                        elements(item, indent + 4, text);
                    }
                }
            }
        }
    }
    let mut text = String::new();
    for line in bytes.chunks(32) {
        let words: Vec<_> =
            line.chunks(4).map(|word| word.iter().map(|byte| format!("{byte:02X}")).collect::<String>()).collect();
        let _ = writeln!(text, "    {}", words.join(" "));
    }
    elements(&Identifier::decode(bytes, encoding, "").unwrap().elements, 4, &mut text);
    text
}

/// Sends a query and writes down the messages of both sides.
fn converse(
    peer: &mut ScriptedPeer,
    context: u8,
    sop_class: &str,
    encoding: Encoding,
    identifier: &[u8],
    out: &mut String,
) {
    let _ = writeln!(out, "> C-FIND-RQ {sop_class}\n{}", described(identifier, encoding));
    peer.send_message(context, &find_command(7, sop_class), Some(identifier));
    loop {
        let response = peer.receive_message();
        let _ = write!(out, "< C-FIND-RSP {:04X}", response.status());
        if let Ok(Some(comment)) = response.command.optional_text(tags::ERROR_COMMENT) {
            let _ = write!(out, " \"{comment}\"");
        }
        if let Some(offending) = response.command.value(tags::OFFENDING_ELEMENT) {
            let _ = write!(out, " offending {offending:02X?}");
        }
        let _ = writeln!(out);
        let Some(data_set) = response.data_set else { break };
        let _ = writeln!(out, "{}", described(&data_set, encoding));
    }
    let _ = writeln!(out);
}

/// Compares with tests/it/transcripts/find.snap. See [`assert_snapshot`] for how to rewrite it.
#[test]
fn conversations_are_as_written_down() {
    let node = archive_node();
    let contexts: &[(&str, &[&str])] = &[
        (STUDY_ROOT, &[IMPLICIT_VR_LITTLE_ENDIAN]),
        (STUDY_ROOT, &[EXPLICIT_VR_LITTLE_ENDIAN]),
        (PATIENT_ROOT, &[IMPLICIT_VR_LITTLE_ENDIAN]),
    ];
    let mut peer = node.associate(contexts);
    let implicit = Encoding::ImplicitLittle;
    let mut out = String::new();
    let mut tell = |title: &str, context, sop_class, encoding, identifier: &[u8]| {
        let _ = writeln!(out, "# {title}\n");
        converse(&mut peer, context, sop_class, encoding, identifier, &mut out);
    };
    let studies = DataSet::default()
        .text(0x0008, 0x0005, "ISO_IR 100")
        .text(0x0008, 0x0020, "20230101-20231231")
        .text(0x0008, 0x0052, "STUDY")
        .text(0x0008, 0x0061, "CT")
        .bytes(0x0010, 0x0010, b"M\xDCL*")
        .text(0x0010, 0x0020, "")
        .text(0x0020, 0x000D, "")
        .text(0x0020, 0x1208, "");
    tell("a study by name, date and modality", 1, STUDY_ROOT, implicit, &studies.0);
    let names = DataSet::default()
        .text(0x0008, 0x0005, "ISO_IR 100")
        .text(0x0008, 0x0052, "PATIENT")
        .text(0x0010, 0x0010, "")
        .text(0x0010, 0x0020, "");
    tell("all patients, their names in what the request cannot spell", 5, PATIENT_ROOT, implicit, &names.0);
    let series = DataSet::default()
        .text(0x0008, 0x0052, "SERIES")
        .text(0x0008, 0x0060, "")
        .uid(0x0020, 0x000D, CT_STUDY)
        .uid(0x0020, 0x000E, "")
        .text(0x0020, 0x0011, "2")
        .text(0x0040, 0x0275, "");
    tell("a series of a study, by number", 5, PATIENT_ROOT, implicit, &series.0);
    let step = DataSet::default().text(0x0040, 0x0009, "STEP*");
    let item = DataSet::default().bytes(0xFFFE, 0xE000, &step.0);
    let items =
        DataSet::default().text(0x0008, 0x0052, "SERIES").uid(0x0020, 0x000E, "").bytes(0x0040, 0x0275, &item.0);
    tell("a series by an attribute in a sequence", 1, STUDY_ROOT, implicit, &items.0);
    let unsupported = DataSet::default()
        .text(0x0008, 0x0052, "STUDY")
        .text(0x0009, 0x0010, "ACME")
        .text(0x0009, 0x1001, "X")
        .text(0x0020, 0x0010, "999")
        .text(0x0032, 0x000A, "");
    tell("a key that is not supported", 1, STUDY_ROOT, implicit, &unsupported.0);
    let reversed = DataSet::default().text(0x0008, 0x0020, "20241231-20240101").text(0x0008, 0x0052, "STUDY");
    tell("a reversed range", 1, STUDY_ROOT, implicit, &reversed.0);
    tell("no level", 1, STUDY_ROOT, implicit, &DataSet::default().text(0x0010, 0x0010, "").0);
    tell("a level that Study Root has not", 1, STUDY_ROOT, implicit, &names.0);
    let invalid = DataSet::default().text(0x0008, 0x0020, "2024-x").text(0x0008, 0x0052, "STUDY");
    tell("a range with an end that is none", 1, STUDY_ROOT, implicit, &invalid.0);
    let explicit = b"\x08\0\x52\0CS\x06\0STUDY \x10\0\x10\0PN\x06\0=\xE5\xB1\xB1* \x08\0\x05\0CS\x0A\0ISO_IR 192";
    tell("explicit VR, a name in Kanji", 3, STUDY_ROOT, Encoding::ExplicitLittle, explicit);
    peer.release();

    assert_snapshot("transcripts", "find", &out);
}

/// Returns the values of one attribute in the answers that findscu gets.
fn found_by_findscu(node: &TestNode, model: &str, level: &str, keys: &[&str], shown: Tag) -> Option<Vec<String>> {
    let mut findscu = dcmtk("findscu")?;
    let directory = TempDir::new().unwrap();
    findscu.current_dir(directory.path()).args(["-v", "-X", model, "-aec", "DCMDEX"]);
    let level = format!("QueryRetrieveLevel={level}");
    for key in keys.iter().chain([&level.as_str()]) {
        findscu.args(["-k", key]);
    }
    let said = peers::run(findscu.args(["127.0.0.1", &node.port()])).expect_success();
    assert!(said.contains("Received Final Find Response (Success)"), "{said}");
    let mut files: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let text = |path| open_file(path).unwrap().element(shown).unwrap().to_str().unwrap().trim().to_owned();
    Some(files.into_iter().map(text).collect())
}

/// Option of findscu for a model, a level, keys, the attribute to compare, and its expected values.
type Case<'a> = (&'a str, &'a str, &'a [&'a str], Tag, &'a [&'a str]);

#[test]
fn findscu_is_answered_at_every_level_of_both_models() {
    let node = archive_node();
    let patients = tags::PATIENT_ID;
    let cases: &[Case] = &[
        ("-P", "PATIENT", &["PatientID"], patients, &["4004", "HD-1001", "SE-3003", "TK-2002"]),
        ("-P", "PATIENT", &["PatientName=smith", "PatientID"], patients, &["4004"]),
        ("-P", "PATIENT", &["PatientName=*o*", "PatientID"], patients, &["4004", "SE-3003", "TK-2002"]),
        ("-P", "PATIENT", &["PatientID=?D-1001"], patients, &["HD-1001"]),
        ("-P", "PATIENT", &["PatientID", "NumberOfPatientRelatedInstances=14"], patients, &["HD-1001"]),
        ("-P", "STUDY", &["PatientID=HD-1001", "StudyID"], tags::STUDY_ID, &["117", "101"]),
        (
            "-P",
            "SERIES",
            &["PatientID=4004", "SeriesDescription"],
            tags::SERIES_DESCRIPTION,
            &["Hand dp", "Hand lateral"],
        ),
        ("-S", "STUDY", &["StudyDate=2024", "StudyID"], tags::STUDY_ID, &["202", "201", "007"]),
        ("-S", "STUDY", &["StudyDate=20240101-20240229", "StudyID"], tags::STUDY_ID, &["201", "007"]),
        ("-S", "STUDY", &["StudyTime=1015", "StudyID"], tags::STUDY_ID, &["007"]),
        ("-S", "STUDY", &["ModalitiesInStudy=SR\\RTDOSE", "StudyID"], tags::STUDY_ID, &["202", "117"]),
        ("-S", "STUDY", &["Modality=MR", "StudyID"], tags::STUDY_ID, &["007"]),
        ("-S", "STUDY", &["StudyDescription=ct THORAX", "StudyID"], tags::STUDY_ID, &["101"]),
        ("-S", "SERIES", &["Modality=RT*", "SeriesNumber"], tags::SERIES_NUMBER, &["1", "2", "3"]),
        (
            "-S",
            "IMAGE",
            &["SeriesDescription=T2 ax", "InstanceNumber"],
            tags::INSTANCE_NUMBER,
            &["1", "2", "3", "4", "5", "6"],
        ),
        (
            "-S",
            "IMAGE",
            &["SOPInstanceUID=2.25.222357566655179818184128349088455852959.1.10\\1.2.3", "InstanceNumber"],
            tags::INSTANCE_NUMBER,
            &["10"],
        ),
        ("-P", "IMAGE", &["PatientID=HD-1001", "Modality=CT", "InstanceNumber=3"], tags::INSTANCE_NUMBER, &["3"]),
        ("-O", "PATIENT", &["PatientID"], patients, &["4004", "HD-1001", "SE-3003", "TK-2002"]),
        ("-O", "STUDY", &["PatientID=4004", "StudyID"], tags::STUDY_ID, &["999"]),
        ("-S", "STUDY", &["AccessionNumber=a2023-101"], tags::ACCESSION_NUMBER, &[]),
    ];
    for (model, level, keys, shown, expected) in cases {
        let keys: Vec<&str> = keys.to_vec();
        let Some(found) = found_by_findscu(&node, model, level, &keys, *shown) else { return };
        assert_eq!(found, *expected, "{model} {level} {keys:?}");
    }
}

/// Returns what pynetdicom gets: the negotiated options, and the responses.
fn found_by_pynetdicom(node: &TestNode, question: &Value) -> Option<(Value, Vec<Value>)> {
    let mut find = python_peer("find.py")?;
    let said = peers::run(find.args(["127.0.0.1", &node.port(), "DCMDEX", &question.to_string()]));
    let mut lines = said.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    assert!(said.status.success(), "{}", said.stderr);
    let agreed = lines.next().unwrap()["agreed"].clone();
    Some((agreed, lines.collect()))
}

fn question(syntax: &str, extended: &[u8], keys: &Value) -> Value {
    json!({"class": PATIENT_ROOT, "syntax": syntax, "extended": extended, "keys": keys})
}

#[test]
fn pynetdicom_is_answered_in_every_transfer_syntax_and_script() {
    let node = archive_node();
    for syntax in [IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN] {
        for (set, name, found) in [
            ("ISO_IR 100", "müller", "Müller^Änne"),
            ("ISO_IR 192", "MULLER^AN*", "Müller^Änne"),
            ("ISO_IR 192", "=山田", "Yamada^Tarou=山田^太郎=やまだ^たろう"),
            ("ISO_IR 192", "홍^?동", "Hong^Gildong=洪^吉洞=홍^길동"),
            ("GB18030", "洪", "Hong^Gildong=洪^吉洞=홍^길동"),
            ("ISO_IR 6", "yamada", "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        ] {
            let keys = json!({
                "SpecificCharacterSet": set, "QueryRetrieveLevel": "PATIENT", "PatientName": name, "PatientID": "",
            });
            let Some((_, responses)) = found_by_pynetdicom(&node, &question(syntax, &[], &keys)) else { return };
            let statuses: Vec<_> = responses.iter().map(|response| &response["status"]).collect();
            assert_eq!(statuses, ["FF00", "0000"], "{syntax} {set} {name}");
            assert_eq!(responses[0]["values"]["PatientName"], found, "{syntax} {set} {name}");
        }
    }
}

#[test]
fn pynetdicom_gets_items_numbers_and_counters() {
    let node = archive_node();
    let keys = json!({
        "QueryRetrieveLevel": "SERIES", "StudyInstanceUID": CT_STUDY, "SeriesInstanceUID": "", "Modality": "",
        "NumberOfSeriesRelatedInstances": "", "NumberOfStudyRelatedInstances": "", "ModalitiesInStudy": "",
        "RequestAttributesSequence": [{"RequestedProcedureID": "A2023*", "ScheduledProcedureStepID": ""}],
    });
    let Some((agreed, responses)) = found_by_pynetdicom(&node, &question(EXPLICIT_VR_LITTLE_ENDIAN, &[], &keys)) else {
        return;
    };
    assert_eq!(agreed, json!([]));
    assert_eq!(responses.len(), 2, "{responses:?}");
    let values = &responses[0]["values"];
    assert_eq!(values["NumberOfSeriesRelatedInstances"], "10");
    assert_eq!(values["NumberOfStudyRelatedInstances"], "11");
    assert_eq!(values["ModalitiesInStudy"], "CT");
    let expected = json!([{"ScheduledProcedureStepID": "STEP1", "RequestedProcedureID": "A2023-101"}]);
    assert_eq!(values["RequestAttributesSequence"], expected);

    let keys = json!({
        "QueryRetrieveLevel": "IMAGE", "StudyInstanceUID": CT_STUDY, "InstanceNumber": "3", "Rows": "", "NumberOfFrames": "",
        "SOPInstanceUID": "",
    });
    let (_, responses) = found_by_pynetdicom(&node, &question(EXPLICIT_VR_BIG_ENDIAN, &[], &keys)).unwrap();
    assert_eq!(responses.len(), 2, "{responses:?}");
    assert_eq!(responses[0]["values"]["Rows"], "16");
    assert_eq!(responses[0]["values"]["NumberOfFrames"], "");
}

#[test]
fn pynetdicom_gets_what_it_negotiates() {
    let node = archive_node();
    let ask = |extended: &[u8], keys: Value| {
        let (agreed, responses) = found_by_pynetdicom(&node, &question(EXPLICIT_VR_LITTLE_ENDIAN, extended, &keys))?;
        let ids: Vec<_> =
            responses.iter().filter_map(|response| response["values"]["StudyID"].as_str()).map(str::to_owned).collect();
        Some((agreed, ids))
    };
    let all = [1, 1, 1, 1, 1, 1, 1];
    let fuzzy = json!({"QueryRetrieveLevel": "STUDY", "PatientName": "john smith", "StudyID": ""});
    let Some(found) = ask(&all, fuzzy.clone()) else { return };
    assert_eq!(found, (json!([1, 1, 1, 0, 0, 1, 1]), vec!["999".to_owned()]));
    assert_eq!(ask(&[1, 0, 0], fuzzy).unwrap(), (json!([1, 0, 0]), vec![]));

    let together = json!({"QueryRetrieveLevel": "STUDY", "ModalitiesInStudy": "RTPLAN\\RTDOSE", "StudyID": ""});
    assert_eq!(ask(&all, together).unwrap().1, ["117"]);
    let both = json!({"QueryRetrieveLevel": "STUDY", "ModalitiesInStudy": "RTPLAN\\CT", "StudyID": ""});
    assert_eq!(ask(&all, both.clone()).unwrap().1, [""; 0]);
    assert_eq!(ask(&[], both).unwrap().1, ["117", "101"]);

    let span = json!({"QueryRetrieveLevel": "STUDY", "StudyDate": "20230314-20230321", "StudyTime": "0900-1402", "StudyID": ""});
    assert_eq!(ask(&all, span.clone()).unwrap().1, ["117"], "the other began before the first moment");
    let span_of_days = json!({
        "QueryRetrieveLevel": "STUDY", "StudyDate": "20230314-20240105", "StudyTime": "0800-1000", "StudyID": "",
    });
    assert_eq!(ask(&all, span_of_days.clone()).unwrap().1, ["117", "101"], "a whole year, from one moment to another");
    assert_eq!(ask(&[], span_of_days).unwrap().1, ["101"], "each day between these times");

    let empty = json!({"QueryRetrieveLevel": "SERIES", "BodyPartExamined": "\"\"", "StudyID": ""});
    assert_eq!(ask(&all, empty).unwrap().1, ["202", "117", "117", "117"]);
}

// PS3.4 C.4.1.2.2.1, C.5.2.1.1: where queries have to be hierarchical, byte 1 makes them
// relational.
#[test]
fn pynetdicom_negotiates_relational_queries_at_every_level() {
    let node = archive_node_with(|settings| settings.query.hierarchy = Hierarchy::Strict);
    for (level, unique, answers) in [
        ("PATIENT", "PatientID", 1),
        ("STUDY", "StudyInstanceUID", 1),
        ("SERIES", "SeriesInstanceUID", 2),
        ("IMAGE", "SOPInstanceUID", 11),
    ] {
        // Keys above, of and below the level.
        let keys =
            json!({"QueryRetrieveLevel": level, "PatientSex": "", "StudyID": "101", "Modality": "CT", unique: ""});
        let Some((agreed, hierarchical)) = found_by_pynetdicom(&node, &question(IMPLICIT_VR_LITTLE_ENDIAN, &[], &keys))
        else {
            return;
        };
        assert_eq!((agreed, hierarchical.len()), (json!([]), 1), "{level}");
        assert_eq!(hierarchical[0]["status"], "A900", "{level}");
        let (agreed, relational) =
            found_by_pynetdicom(&node, &question(IMPLICIT_VR_LITTLE_ENDIAN, &[1], &keys)).unwrap();
        assert_eq!((agreed, relational.len()), (json!([1]), answers + 1), "{level}");
        assert_eq!(relational[answers]["status"], "0000", "{level}");
    }
}

#[test]
fn pynetdicom_is_told_what_is_wrong() {
    let node = archive_node();
    let keys = json!({"PatientName": "X"});
    let Some((_, responses)) = found_by_pynetdicom(&node, &question(IMPLICIT_VR_LITTLE_ENDIAN, &[], &keys)) else {
        return;
    };
    assert_eq!(responses.len(), 1);
    assert_eq!(responses[0]["status"], "A900");
    assert_eq!(responses[0]["offending"], "(0008,0052)");
    assert_eq!(responses[0]["comment"], "Query/Retrieve Level (0008,0052) is missing");
}
