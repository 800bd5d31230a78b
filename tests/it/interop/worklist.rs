//! The worklist with software of others. A modality is played by pynetdicom, a RIS by `mllp_send`
//! of the hl7 package. The wlmscpfs of DCMTK answers beside dcmdex on the same items.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::cli::Place;
use crate::cli::worklist::{order, send, start};
use crate::util::peers::{self, Server};

const WORKLIST: &str = "1.2.840.10008.5.1.4.31";
const EXPLICIT_VR_LITTLE_ENDIAN: &str = "1.2.840.10008.1.2.1";

/// What pynetdicom gets for each of these questions: the last status, and the answers.
fn found(port: u16, title: &str, questions: &[Value]) -> Option<Vec<(String, Vec<Value>)>> {
    let question = json!({"class": WORKLIST, "syntax": EXPLICIT_VR_LITTLE_ENDIAN, "extended": [], "keys": questions});
    let mut find = peers::python_peer("find.py")?;
    let said = peers::run(find.args(["127.0.0.1", &port.to_string(), title, &question.to_string()]));
    assert!(said.status.success(), "{}", said.stderr);
    let (mut found, mut answers) = (Vec::new(), Vec::new());
    for line in said.stdout.lines().skip(1) {
        let mut response: Value = serde_json::from_str(line).unwrap();
        let status = response["status"].as_str().unwrap().to_owned();
        if status.starts_with("FF0") {
            answers.push(response["values"].take());
        } else {
            found.push((status, std::mem::take(&mut answers)));
        }
    }
    assert_eq!(found.len(), questions.len(), "{}", said.stdout);
    Some(found)
}

#[test]
fn a_modality_of_pynetdicom_finds_its_item_and_reports_its_step() {
    let place = Place::new();
    let (node, hl7) = start(&place);
    assert!(send(&hl7, &order(1)).contains("MSA|AA"));
    let step = json!([{"Modality": "CT", "ScheduledStationAETitle": "CT1", "ScheduledProcedureStepID": ""}]);
    let keys = json!({"PatientName": "", "StudyInstanceUID": "", "ScheduledProcedureStepSequence": step});
    let keys = [keys];
    let Some(answered) = found(node.port, "DCMDEX", &keys) else { return };
    let (status, answers) = &answered[0];
    assert_eq!((status.as_str(), answers.len(), &answers[0]["PatientName"]), ("0000", 1, &json!("Doe^Jane")));
    let study = answers[0]["StudyInstanceUID"].as_str().unwrap();
    let step = answers[0]["ScheduledProcedureStepSequence"][0]["ScheduledProcedureStepID"].as_str().unwrap();
    let performed =
        json!([{"StudyInstanceUID": study, "ScheduledProcedureStepID": step, "ReferencedStudySequence": []}]);
    let begun = json!({
        "ScheduledStepAttributesSequence": performed, "PerformedProcedureStepID": "P1", "PerformedStationAETitle": "CT1",
        "PerformedProcedureStepStartDate": "20991231", "PerformedProcedureStepStartTime": "0900", "Modality": "CT",
        "PerformedProcedureStepStatus": "IN PROGRESS", "PatientName": "Doe^Jane", "PatientID": "P1",
    });
    let ended = json!({
        "PerformedProcedureStepStatus": "COMPLETED", "PerformedProcedureStepEndDate": "20991231",
        "PerformedProcedureStepEndTime": "0930", "PerformedSeriesSequence": [{"SeriesInstanceUID": "1.2.9"}],
    });
    let steps = json!([
        ["create", "1.2.3.100", begun],
        ["create", "1.2.3.100", begun],
        ["set", "1.2.3.100", ended],
        ["set", "1.2.3.100", ended],
    ]);
    let mut mpps = peers::python_peer("mpps.py").unwrap();
    let said =
        peers::run(mpps.args(["127.0.0.1", &node.port.to_string(), "DCMDEX", &steps.to_string()])).expect_success();
    let statuses: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let statuses: Vec<_> = statuses.iter().map(|line| line["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["0000", "0111", "0000", "0110"], "{said}");
    let list = place.run(["worklist", "list", "--all", "--json"]).expect(0).json();
    assert_eq!(list[0]["state"], "done");
    let steps = place.run(["worklist", "steps", "--json"]).expect(0).json();
    assert_eq!((&steps[0]["status"], &steps[0]["sender"]), (&json!("COMPLETED"), &json!("PYNETDICOM")));
    assert!(found(node.port, "DCMDEX", &keys).unwrap()[0].1.is_empty(), "it is over");
}

#[test]
fn mllp_send_of_the_hl7_package_sends_orders() {
    let place = Place::new();
    let (_node, hl7) = start(&place);
    let port = hl7.rsplit(':').next().unwrap();
    let send = |file: &Path, more: &[&str]| {
        let mut mllp_send = peers::python_peer("mllp_send.py")?;
        let file = file.to_str().unwrap();
        Some(peers::run(mllp_send.args(["--port", port, "--file", file]).args(more).arg("127.0.0.1")).expect_success())
    };
    // Two messages on one connection, as the protocol frames them.
    let framed: String = (1..=2).map(|number| format!("\x0B{}\x1C\r", order(number))).collect();
    fs::write(place.path("framed"), framed).unwrap();
    let Some(said) = send(&place.path("framed"), &[]) else { return };
    assert!(said.contains("MSA|AA|1") && said.contains("MSA|AA|2"), "{said:?}");
    // Messages in a text file, with line feeds.
    let loose: String = (3..=4).map(|number| order(number).replace('\r', "\r\n")).collect();
    fs::write(place.path("loose"), loose).unwrap();
    let said = send(&place.path("loose"), &["--loose"]).unwrap();
    assert!(said.contains("MSA|AA|3") && said.contains("MSA|AA|4"), "{said:?}");
    let list = place.run(["worklist", "list", "--json"]).expect(0).json();
    let mut numbers: Vec<_> = list.iter().map(|item| item["accession_number"].as_str().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, ["A1", "A2", "A3", "A4"]);
}

/// Items as users of wlmscpfs have them. Number, patient, and the step: modality, station, date,
/// time and performing physician.
const ITEMS: [(u32, &str, [&str; 5]); 4] = [
    (1, "Doe^Jane", ["CT", "CT1", "20991231", "0900", "Doc^Dora"]),
    (2, "Doe^John", ["CT", "CT2", "20991231", "103000", "Doc^Dirk"]),
    (3, "Roe^Richard", ["MR", "MR1", "21000101", "0815", ""]),
    (4, "doe^lower", ["US", "US1\\US2", "21000102", "2359", "Doc^Dora"]),
];

/// Writes the items as dump2dcm makes them. `None` if it is not there.
fn write_items(folder: &Path) -> Option<()> {
    fs::create_dir_all(folder).unwrap();
    for (number, patient, [modality, station, date, time, physician]) in ITEMS {
        let dump = format!(
            "(0008,0005) CS ISO_IR 100\n(0008,0050) SH A{number}\n(0010,0010) PN {patient}\n(0010,0020) LO P{number}\n\
             (0010,0030) DA 19700101\n(0010,0040) CS F\n(0020,000d) UI 1.2.3.{number}\n(0032,1060) LO Thorax\n\
             (0040,0100) SQ\n(fffe,e000) na\n(0008,0060) CS {modality}\n(0040,0001) AE {station}\n(0040,0002) DA {date}\n\
             (0040,0003) TM {time}\n(0040,0006) PN {physician}\n(0040,0007) LO Chest\n(0040,0009) SH S{number}\n\
             (0040,0010) SH NAME1\n(0040,0011) SH ROOM1\n(fffe,e00d) na\n(fffe,e0dd) na\n(0040,1001) SH R{number}\n"
        );
        let text = folder.join(format!("{number}.dump"));
        fs::write(&text, dump).unwrap();
        peers::run(peers::dcmtk("dump2dcm")?.args([&text, &folder.join(format!("{number}.wl"))])).expect_success();
    }
    Some(())
}

/// A question with these keys at the root and of the step, as JSON.
fn keys(root: &str, step: &str) -> Value {
    let json = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let mut keys = json!({"AccessionNumber": "", "ScheduledProcedureStepSequence": [json(step)]});
    for (keyword, value) in json(root).as_object().unwrap() {
        keys[keyword] = value.clone();
    }
    keys
}

/// For each question, the last status and the numbers of the items that are found.
fn numbers(port: u16, title: &str, questions: &[Value]) -> Option<Vec<String>> {
    let in_words = |(status, answers): (String, Vec<Value>)| {
        let mut numbers: Vec<_> = answers.iter().map(|values| values["AccessionNumber"].as_str().unwrap()).collect();
        numbers.sort_unstable();
        format!("{status} {}", numbers.join(" "))
    };
    Some(found(port, title, questions)?.into_iter().map(in_words).collect())
}

/// Keys at the root and keys of the step, with what both answer.
const SAME: [(&str, &str, &str); 15] = [
    ("{}", r#"{"Modality": ""}"#, "0000 A1 A2 A3 A4"),
    ("{}", r#"{"Modality": "CT"}"#, "0000 A1 A2"),
    ("{}", r#"{"ScheduledStationAETitle": "CT1"}"#, "0000 A1"),
    // Several stations: each is found.
    ("{}", r#"{"ScheduledStationAETitle": "US2"}"#, "0000 A4"),
    ("{}", r#"{"ScheduledProcedureStepStartDate": "20991231"}"#, "0000 A1 A2"),
    ("{}", r#"{"ScheduledProcedureStepStartDate": "20991231-21000101"}"#, "0000 A1 A2 A3"),
    // Both ranges are one.
    (
        "{}",
        r#"{"ScheduledProcedureStepStartDate": "20991231-21000101", "ScheduledProcedureStepStartTime": "1000-0830"}"#,
        "0000 A2 A3",
    ),
    ("{}", r#"{"ScheduledProcedureStepStartTime": "0800-0930"}"#, "0000 A1 A3"),
    (r#"{"PatientName": "Doe^J*"}"#, r#"{"Modality": ""}"#, "0000 A1 A2"),
    (r#"{"PatientID": "P2"}"#, r#"{"Modality": ""}"#, "0000 A2"),
    (r#"{"AccessionNumber": "A3"}"#, r#"{"Modality": ""}"#, "0000 A3"),
    (r#"{"RequestedProcedureID": "R2"}"#, r#"{"Modality": ""}"#, "0000 A2"),
    (r#"{"PatientBirthDate": "19700101"}"#, r#"{"Modality": ""}"#, "0000 A1 A2 A3 A4"),
    (r#"{"PatientBirthDate": "19800101"}"#, r#"{"Modality": ""}"#, "0000 "),
    ("{}", r#"{"ScheduledPerformingPhysicianName": "Doc^D*"}"#, "0000 A1 A2 A4"),
];

/// Where both differ: what dcmdex answers, and what wlmscpfs does. docs/worklist.md gives the
/// clauses.
const DIFFERENT: [(&str, &str, &str, &str); 9] = [
    ("{}", r#"{"Modality": "C*"}"#, "0000 A1 A2", "0000 "),
    ("{}", r#"{"Modality": "CT\\MR"}"#, "0000 A1 A2 A3", "A900 "),
    (r#"{"PatientName": "DOE*"}"#, r#"{"Modality": ""}"#, "0000 A1 A2 A4", "0000 "),
    (r#"{"PatientName": "Doe"}"#, r#"{"Modality": ""}"#, "0000 A1 A2 A4", "0000 "),
    ("{}", r#"{"ScheduledProcedureStepStartDate": "2099-12-31"}"#, "0000 A1 A2", "A900 "),
    (r#"{"PatientID": "P?"}"#, r#"{"Modality": ""}"#, "0000 A1 A2 A3 A4", "0000 "),
    (r#"{"RequestedProcedureDescription": "Foot"}"#, r#"{"Modality": ""}"#, "0000 ", "0000 A1 A2 A3 A4"),
    ("{}", r#"{"ScheduledProcedureStepID": "S3"}"#, "0000 A3", "0000 A1 A2 A3 A4"),
    ("{}", r#"{"ScheduledProcedureStepLocation": "NONE"}"#, "0000 ", "0000 A1 A2 A3 A4"),
];

#[test]
fn dcmdex_and_wlmscpfs_answer_alike_on_the_same_items() {
    let Some(mut wlmscpfs) = peers::dcmtk("wlmscpfs") else { return };
    let place = Place::new();
    if write_items(&place.path("wl")).is_none() || write_items(&place.path("dcmtk/DCMTK")).is_none() {
        return;
    }
    fs::write(place.path("dcmtk/DCMTK/lockfile"), "").unwrap();
    let port = peers::free_port();
    let _server = Server::start(wlmscpfs.arg("-dfp").arg(place.path("dcmtk")).arg(port.to_string()), &[port]);
    let (node, _) = start(&place);
    // The folder is read every two seconds.
    let all = keys(SAME[0].0, SAME[0].1);
    loop {
        let Some(found) = numbers(node.port, "DCMDEX", std::slice::from_ref(&all)) else { return };
        if found == [SAME[0].2] {
            break;
        }
    }
    let same = SAME.map(|(root, step, expected)| (root, step, expected, expected));
    let cases: Vec<_> = same.into_iter().chain(DIFFERENT).collect();
    let questions: Vec<_> = cases.iter().map(|(root, step, ..)| keys(root, step)).collect();
    let (ours, others) =
        (numbers(node.port, "DCMDEX", &questions).unwrap(), numbers(port, "DCMTK", &questions).unwrap());
    for ((found, theirs), (root, step, expected, other)) in ours.iter().zip(&others).zip(cases) {
        assert_eq!(found, expected, "dcmdex: {root} {step}");
        assert_eq!(theirs, other, "wlmscpfs: {root} {step}");
    }
}
