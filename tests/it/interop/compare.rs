//! Sends the same queries to dcmdex, to dcmqrscp of DCMTK and to Orthanc, which hold the same
//! objects.
//!
//! Every difference in the answers must be in a list, with the clause of PS3.4 that explains it.
//! Any other difference fails the test. A listed difference that no longer occurs fails it too.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::util::node::TestNode;
use crate::util::peers::{self, Server, dcmtk, free_port, orthanc, python_peer};

const PATIENT_ROOT: &str = "1.2.840.10008.5.1.4.1.2.1.1";
const STUDY_ROOT: &str = "1.2.840.10008.5.1.4.1.2.2.1";
const PATIENT_STUDY_ONLY: &str = "1.2.840.10008.5.1.4.1.2.3.1";

const CT_STUDY: &str = "2.25.222357566655179818184128349088455852959";

/// A query: its name, the Information Model, and the keys.
type Question = (&'static str, &'static str, Value);

fn questions() -> Vec<Question> {
    let series = format!("{CT_STUDY}.1");
    let of = |level: &str, keys: Value| {
        let mut keys = keys;
        keys["QueryRetrieveLevel"] = level.into();
        keys
    };
    let patient = |name, keys| (name, PATIENT_ROOT, of("PATIENT", keys));
    let study = |name, keys| (name, STUDY_ROOT, of("STUDY", keys));
    let in_study = |name, level, keys| {
        let mut keys: Value = of(level, keys);
        keys["StudyInstanceUID"] = CT_STUDY.into();
        (name, STUDY_ROOT, keys)
    };
    vec![
        patient("all patients", json!({"PatientID": "", "PatientName": "", "PatientBirthDate": "", "PatientSex": ""})),
        patient("patient by ID", json!({"PatientID": "4004", "PatientName": ""})),
        patient("patient by ID pattern", json!({"PatientID": "?D-1*", "PatientName": ""})),
        patient("name in other case", json!({"PatientID": "", "PatientName": "smith*"})),
        patient("family name alone", json!({"PatientID": "", "PatientName": "Smith"})),
        patient("name without accents", json!({"PatientID": "", "PatientName": "MULLER*"})),
        patient(
            "name with accents",
            json!({"SpecificCharacterSet": "ISO_IR 192", "PatientID": "", "PatientName": "Müller*"}),
        ),
        patient(
            "ideographic name",
            json!({"SpecificCharacterSet": "ISO_IR 192", "PatientID": "", "PatientName": "*=山田*"}),
        ),
        patient("part of a name", json!({"PatientID": "", "PatientName": "*ong*"})),
        patient("birth date range", json!({"PatientID": "", "PatientBirthDate": "19500101-19991231"})),
        patient(
            "counters of patients",
            json!({"PatientID": "", "NumberOfPatientRelatedStudies": "", "NumberOfPatientRelatedSeries": "",
                   "NumberOfPatientRelatedInstances": ""}),
        ),
        (
            "studies of a patient",
            PATIENT_ROOT,
            of("STUDY", json!({"PatientID": "HD-1001", "StudyInstanceUID": "", "StudyID": "", "StudyDate": ""})),
        ),
        (
            "series of a study, hierarchical",
            PATIENT_ROOT,
            of(
                "SERIES",
                json!({"PatientID": "HD-1001", "StudyInstanceUID": CT_STUDY, "SeriesInstanceUID": "", "Modality": "",
                       "SeriesNumber": ""}),
            ),
        ),
        study(
            "all studies",
            json!({"StudyInstanceUID": "", "StudyDate": "", "StudyTime": "", "AccessionNumber": "", "StudyID": "",
                   "StudyDescription": "", "PatientID": "", "PatientName": "", "ReferringPhysicianName": ""}),
        ),
        study("date", json!({"StudyInstanceUID": "", "StudyDate": "20240105"})),
        study("date range", json!({"StudyInstanceUID": "", "StudyDate": "20240101-20240229"})),
        study("from a date on", json!({"StudyInstanceUID": "", "StudyDate": "20240101-"})),
        study("up to a date", json!({"StudyInstanceUID": "", "StudyDate": "-20231231"})),
        study(
            "date and time range",
            json!({"StudyInstanceUID": "", "StudyDate": "20230101-20241231", "StudyTime": "080000-110000"}),
        ),
        study("time to the minute", json!({"StudyInstanceUID": "", "StudyTime": "1015"})),
        study("accession number", json!({"StudyInstanceUID": "", "AccessionNumber": "A2023-101"})),
        study("accession number in other case", json!({"StudyInstanceUID": "", "AccessionNumber": "a2023-101"})),
        study("list of UID", json!({"StudyInstanceUID": format!("{CT_STUDY}\\1.2.3"), "StudyID": ""})),
        study("description in other case", json!({"StudyInstanceUID": "", "StudyDescription": "ct thorax*"})),
        study("underscore", json!({"StudyInstanceUID": "", "StudyDescription": "CT_*"})),
        study("modality in study", json!({"StudyInstanceUID": "", "ModalitiesInStudy": "CT"})),
        study("modalities of all studies", json!({"StudyInstanceUID": "", "ModalitiesInStudy": ""})),
        study(
            "counters of studies",
            json!({"StudyInstanceUID": "", "NumberOfStudyRelatedSeries": "", "NumberOfStudyRelatedInstances": ""}),
        ),
        study("modality of a series", json!({"StudyInstanceUID": "", "Modality": "MR"})),
        study("study of a patient", json!({"StudyInstanceUID": "", "PatientID": "HD-1001"})),
        study("study that is not there", json!({"StudyInstanceUID": "1.2.3"})),
        study("reversed range", json!({"StudyInstanceUID": "", "StudyDate": "20241231-20230101"})),
        in_study(
            "series of a study",
            "SERIES",
            json!({"SeriesInstanceUID": "", "Modality": "", "SeriesNumber": "", "SeriesDescription": "",
                   "NumberOfSeriesRelatedInstances": ""}),
        ),
        in_study("number with leading zero", "SERIES", json!({"SeriesInstanceUID": "", "SeriesNumber": "02"})),
        in_study(
            "sequence",
            "SERIES",
            json!({"SeriesInstanceUID": "", "RequestAttributesSequence": [{"ScheduledProcedureStepID": "STEP1"}]}),
        ),
        ("series without study", STUDY_ROOT, of("SERIES", json!({"SeriesInstanceUID": "", "Modality": "CT"}))),
        in_study(
            "instances of a series",
            "IMAGE",
            json!({"SeriesInstanceUID": series, "SOPInstanceUID": "", "InstanceNumber": "", "SOPClassUID": "", "Rows": null}),
        ),
        in_study(
            "instance by number",
            "IMAGE",
            json!({"SeriesInstanceUID": series, "SOPInstanceUID": "", "InstanceNumber": "3"}),
        ),
        (
            "patients of Patient/Study Only",
            PATIENT_STUDY_ONLY,
            of("PATIENT", json!({"PatientID": "", "PatientName": ""})),
        ),
        (
            "studies of Patient/Study Only",
            PATIENT_STUDY_ONLY,
            of("STUDY", json!({"PatientID": "HD-1001", "StudyInstanceUID": "", "StudyID": ""})),
        ),
        ("no level", STUDY_ROOT, json!({"StudyInstanceUID": ""})),
        ("a level that is none", STUDY_ROOT, of("ROOM", json!({"StudyInstanceUID": ""}))),
        ("a level that the model has not", STUDY_ROOT, of("PATIENT", json!({"PatientID": ""}))),
    ]
}

/// A known and explained difference.
struct Accepted {
    question: &'static str,
    differences: &'static [&'static str],
    /// Clause of PS3.4 that allows or requires our behaviour, and our reason.
    why: &'static str,
}

/// Differences from both peers.
const BOTH: &[Accepted] = &[
    Accepted {
        question: "family name alone",
        differences: &["1 only ours"],
        why: "C.2.2.2.1 leaves the matching of names to the SCP; people type a family name",
    },
    Accepted {
        question: "name without accents",
        differences: &["1 only ours"],
        why: "C.2.2.2.1: names may be matched without regard to accents",
    },
    Accepted {
        question: "time to the minute",
        differences: &["1 only ours"],
        why: "C.2.2.2.1: times are compared by their meaning, not by their text",
    },
    Accepted {
        question: "description in other case",
        differences: &["1 only ours"],
        why: "C.2.2.2.4 has descriptive text compared with case; docs/conformance.md says that we do not",
    },
    Accepted {
        question: "number with leading zero",
        differences: &["1 only ours"],
        why: "C.2.2.2.1: a number is compared by its meaning",
    },
    Accepted {
        question: "a level that is none",
        differences: &["status A900, theirs C000"],
        why: "C.4.1.1.4: the Identifier does not match the SOP Class",
    },
];

const DCMQRSCP: &[Accepted] = &[
    Accepted {
        question: "name in other case",
        differences: &["1 only ours"],
        why: "C.2.2.2.1: names may be matched without regard to case; people type them so",
    },
    Accepted {
        question: "ideographic name",
        differences: &["1 only ours"],
        why: "C.2.2.2.1, PS3.5 6.1.2.3: dcmqrscp compares bytes, and the object is in another character set than the request",
    },
    Accepted {
        question: "counters of patients",
        differences: &[
            "NumberOfPatientRelatedInstances: not answered",
            "NumberOfPatientRelatedSeries: not answered",
            "NumberOfPatientRelatedStudies: not answered",
        ],
        why: "C.6.1.1.2: optional keys",
    },
    Accepted {
        question: "modality in study",
        differences: &["5 only theirs", "ModalitiesInStudy: not answered"],
        why: "C.6.2.1.2: optional key, which dcmqrscp passes over",
    },
    Accepted {
        question: "modalities of all studies",
        differences: &["ModalitiesInStudy: not answered"],
        why: "C.6.2.1.2: optional key",
    },
    Accepted {
        question: "counters of studies",
        differences: &["NumberOfStudyRelatedInstances: not answered", "NumberOfStudyRelatedSeries: not answered"],
        why: "C.6.2.1.2: optional keys",
    },
    Accepted {
        question: "modality of a series",
        differences: &["5 only theirs"],
        why: "C.4.1.2.2.1: a key below the level; Horos means ModalitiesInStudy with it",
    },
    Accepted {
        question: "series of a study",
        differences: &["NumberOfSeriesRelatedInstances: not answered", "SeriesDescription: not answered"],
        why: "C.6.1.1.4: optional keys",
    },
    Accepted {
        question: "sequence",
        differences: &["1 only theirs", "RequestAttributesSequence: not answered"],
        why: "C.2.2.2.6: an optional key, which dcmqrscp passes over",
    },
    Accepted {
        question: "series without study",
        differences: &["2 only ours", "status 0000, theirs C000"],
        why: "C.4.1.2.2.1: answered as a relational query without negotiation (find.hierarchy = \"lenient\")",
    },
    Accepted {
        question: "instances of a series",
        differences: &["Rows: not answered", "SOPClassUID: not answered"],
        why: "C.6.1.1.5: optional keys",
    },
    Accepted {
        question: "a level that the model has not",
        differences: &["status A900, theirs C000"],
        why: "C.4.1.1.4: the Identifier does not match the SOP Class",
    },
];

const LOST_CHARACTERS: &str = "C.4.1.1.3.2: Orthanc answers in its default character set and loses what that has not";

const ORTHANC: &[Accepted] = &[
    Accepted { question: "all patients", differences: &["PatientName: other value"], why: LOST_CHARACTERS },
    Accepted { question: "ideographic name", differences: &["PatientName: other value"], why: LOST_CHARACTERS },
    Accepted { question: "part of a name", differences: &["PatientName: other value"], why: LOST_CHARACTERS },
    Accepted {
        question: "all studies",
        differences: &["PatientName: other value", "StudyDescription: other value"],
        why: LOST_CHARACTERS,
    },
    Accepted {
        question: "modality of a series",
        differences: &["1 only ours"],
        why: "C.4.1.2.2.1: a key below the level; Horos means ModalitiesInStudy with it",
    },
    Accepted {
        question: "sequence",
        differences: &["1 only theirs", "RequestAttributesSequence: other value"],
        why: "C.2.2.2.6: only series with an item that matches, and of it only what was asked for",
    },
    Accepted {
        question: "patients of Patient/Study Only",
        differences: &["4 only ours", "status 0000, theirs no context"],
        why: "C.6.3: retired, and not accepted by Orthanc",
    },
    Accepted {
        question: "studies of Patient/Study Only",
        differences: &["2 only ours", "status 0000, theirs no context"],
        why: "C.6.3: retired, and not accepted by Orthanc",
    },
    Accepted {
        question: "no level",
        differences: &["status A900, theirs C000"],
        why: "C.4.1.1.4: the Identifier does not match the SOP Class",
    },
    Accepted {
        question: "a level that the model has not",
        differences: &["4 only theirs", "status A900, theirs 0000"],
        why: "C.6.2.1: Study Root has no PATIENT level; Orthanc answers as in Patient Root",
    },
];

pub(crate) fn dcmqrscp(directory: &Path) -> Option<(Server, u16)> {
    let mut program = dcmtk("dcmqrscp")?;
    let storage = directory.join("dcmqrscp");
    fs::create_dir(&storage).unwrap();
    let configuration = directory.join("dcmqrscp.cfg");
    let text = format!(
        "MaxPDUSize = 16384\nMaxAssociations = 16\nHostTable BEGIN\nHostTable END\nVendorTable BEGIN\nVendorTable END\n\
         AETable BEGIN\nPEER {} RW (200, 1024mb) ANY\nAETable END\n",
        storage.display()
    );
    fs::write(&configuration, text).unwrap();
    let port = free_port();
    program.arg("-c").arg(&configuration).arg(port.to_string());
    Some((Server::start(&mut program, &[port]), port))
}

pub(crate) fn orthanc_server(directory: &Path) -> Option<(Server, u16)> {
    let mut program = orthanc()?;
    let storage = directory.join("orthanc");
    let configuration = directory.join("orthanc.json");
    let port = free_port();
    let text = json!({
        "Name": "PEER", "StorageDirectory": storage, "IndexDirectory": storage, "HttpServerEnabled": false, "Plugins": [],
        "DicomServerEnabled": true, "DicomAet": "PEER", "DicomPort": port, "DicomAlwaysAllowStore": true,
        "DicomAlwaysAllowFind": true, "UnknownSopClassAccepted": true, "LimitFindResults": 0, "LimitFindInstances": 0,
    });
    fs::write(&configuration, text.to_string()).unwrap();
    Some((Server::start(program.arg(&configuration), &[port]), port))
}

/// Sends the bundled archive. Files that are not DICOM are skipped.
fn fill(called: &str, port: u16) -> Option<()> {
    let mut send = dcmtk("dcmsend")?;
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/archive");
    send.args(["-aec", called, "--no-halt", "+sd", "+r", "--scan-pattern", "*", "127.0.0.1", &port.to_string()]);
    peers::run(send.arg(archive));
    Some(())
}

/// Returns the answers of a node to all queries.
fn ask(called: &str, port: u16, questions: &[Question]) -> Option<Vec<Value>> {
    let list: Vec<_> = questions.iter().map(|(_, class, keys)| json!({"class": class, "keys": keys})).collect();
    let mut find = python_peer("find_many.py")?;
    let said = peers::run(find.args(["127.0.0.1", &port.to_string(), called, &Value::from(list).to_string()]));
    assert!(said.status.success(), "{}", said.stderr);
    Some(said.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

/// Groups answers by the unique key of the level.
fn by_unique_key<'a>(answers: &'a Value, keys: &Value) -> BTreeMap<&'a str, &'a Value> {
    let unique = match keys["QueryRetrieveLevel"].as_str() {
        Some("PATIENT") => "PatientID",
        Some("SERIES") => "SeriesInstanceUID",
        Some("IMAGE") => "SOPInstanceUID",
        _ => "StudyInstanceUID",
    };
    let all = answers["answers"].as_array().unwrap();
    let by_key: BTreeMap<_, _> = all.iter().map(|answer| (answer[unique].as_str().unwrap(), answer)).collect();
    assert_eq!(by_key.len(), all.len(), "one answer for each entity (C.4.1.3.1.2): {answers}");
    by_key
}

fn differences(keys: &Value, ours: &Value, theirs: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let status = |answers: &Value| answers["status"].as_str().unwrap().to_owned();
    if status(ours) != status(theirs) {
        found.insert(format!("status {}, theirs {}", status(ours), status(theirs)));
    }
    let (ours, theirs) = (by_unique_key(ours, keys), by_unique_key(theirs, keys));
    let only_ours = ours.keys().filter(|key| !theirs.contains_key(*key)).count();
    let only_theirs = theirs.keys().filter(|key| !ours.contains_key(*key)).count();
    found.extend((only_ours > 0).then(|| format!("{only_ours} only ours")));
    found.extend((only_theirs > 0).then(|| format!("{only_theirs} only theirs")));
    for (key, ours) in &ours {
        let Some(theirs) = theirs.get(key) else { continue };
        for keyword in keys.as_object().unwrap().keys().filter(|keyword| *keyword != "SpecificCharacterSet") {
            match (ours.get(keyword), theirs.get(keyword)) {
                (ours, theirs) if ours == theirs => {}
                (Some(_), None) => {
                    found.insert(format!("{keyword}: not answered"));
                }
                _ => {
                    found.insert(format!("{keyword}: other value"));
                }
            }
        }
    }
    found
}

fn compare(name: &str, port: u16, accepted: &[Accepted]) {
    let questions = questions();
    let node = TestNode::start();
    let ours = fill("DCMDEX", node.address().port()).and_then(|()| ask("DCMDEX", node.address().port(), &questions));
    let Some(ours) = ours else { return };
    let theirs = fill("PEER", port).and_then(|()| ask("PEER", port, &questions)).unwrap();
    assert_eq!((ours.len(), theirs.len()), (questions.len(), questions.len()));
    let mut wrong = Vec::new();
    for ((question, _, keys), (ours, theirs)) in questions.iter().zip(ours.iter().zip(&theirs)) {
        let found = differences(keys, ours, theirs);
        let entry = BOTH.iter().chain(accepted).find(|accepted| accepted.question == *question);
        let known: BTreeSet<String> =
            entry.into_iter().flat_map(|entry| entry.differences).map(|text| (*text).to_owned()).collect();
        assert!(entry.is_none_or(|entry| entry.why.contains("C.")), "{question}: the clause is missing");
        if found != known {
            wrong.push(format!("{question}: found {found:?}, accepted {known:?}"));
        }
    }
    assert!(wrong.is_empty(), "{name} answers differently:\n{}", wrong.join("\n"));
    assert!(
        BOTH.iter().chain(accepted).all(|entry| questions.iter().any(|(question, ..)| *question == entry.question))
    );
}

#[test]
fn dcmqrscp_answers_the_same_but_for_what_is_listed() {
    let directory = TempDir::new().unwrap();
    let Some((_server, port)) = dcmqrscp(directory.path()) else { return };
    compare("dcmqrscp", port, DCMQRSCP);
}

#[test]
fn orthanc_answers_the_same_but_for_what_is_listed() {
    let directory = TempDir::new().unwrap();
    let Some((_server, port)) = orthanc_server(directory.path()) else { return };
    compare("Orthanc", port, ORTHANC);
}
