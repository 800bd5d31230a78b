//! The modality worklist: how items come in, live, and are found.

mod adding;
mod changes;
mod corrections;
mod folder;
pub(crate) mod hl7;
mod mpps;
mod oracle;
mod query;
mod written;

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use dcmdex::db::open::{Reader, Writer, WriterOptions};
use dcmdex::db::transfer::copy_to_engine;
use dcmdex::db::{
    Durability, PerformedStep, WorklistAsked, WorklistChanges as _, WorklistProblem, WorklistRequest, WorklistRow,
    WorklistSearch as _, WorklistSource, WorklistTables,
};
use dcmdex::dimse::command_set::CommandField;
use dcmdex::encoding::syntax::Encoding;
use dcmdex::model::clock::Clock;
use dcmdex::model::matching::{KeyElement, KeyValue};
use dcmdex::qr::Identifier;
use dcmdex::worklist::{Intake, IntakeOptions, OrderFacts, WorklistItem, complete};
use dicom_core::Tag;
use dicom_dictionary_std::tags;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::util::engine::index_at;
use crate::util::node::{Settings, TestNode};
use crate::util::scripted::{DataSet, IMPLICIT_VR_LITTLE_ENDIAN, Received, ScriptedPeer, VERIFICATION, find_command};

const WORKLIST: &str = "1.2.840.10008.5.1.4.31";
const CONTEXTS: &[(&str, &[&str])] =
    &[(WORKLIST, &[IMPLICIT_VR_LITTLE_ENDIAN]), (VERIFICATION, &[IMPLICIT_VR_LITTLE_ENDIAN])];

/// An order for tomorrow, so that it never expires in a test.
fn order(number: u32, step: Value) -> Value {
    json!({
        "PatientName": format!("PATIENT^{number:03}"),
        "PatientID": format!("P{number:03}"),
        "AccessionNumber": format!("A{number:03}"),
        "RequestedProcedureDescription": "Head",
        "ScheduledProcedureStepSequence": [step],
    })
}

fn step(modality: &str, station: &str, date: &str, time: &str) -> Value {
    json!({
        "Modality": modality,
        "ScheduledStationAETitle": station,
        "ScheduledProcedureStepStartDate": date,
        "ScheduledProcedureStepStartTime": time,
    })
}

/// Puts items into the index, as a file of the command line would.
fn fill(index: &Path, items: &[Value]) {
    fill_at(index, items, Clock::System.now_ms());
}

/// The same at this moment, in milliseconds since 1970 UTC.
fn fill_at(index: &Path, items: &[Value], now_ms: i64) {
    let options = WriterOptions { durability: Durability::Os, ..WriterOptions::default() };
    let writer = Writer::open(index, options).unwrap();
    let intake = Intake::new(Box::new(writer.handle()), IntakeOptions::default());
    let drafts = items.iter().map(|item| {
        let item = WorklistItem::from_json(item.as_object().unwrap()).unwrap();
        complete(item, OrderFacts { now_ms, ..facts() }, &intake.options()).unwrap()
    });
    intake.put(drafts.collect()).unwrap();
    drop(intake);
    writer.close().unwrap();
}

fn facts() -> OrderFacts {
    OrderFacts {
        source: WorklistSource::Command,
        origin: String::new(),
        order_keys: Vec::new(),
        message_time: String::new(),
        now_ms: Clock::System.now_ms(),
    }
}

/// A node whose worklist has these items.
fn node_with(items: &[Value], change: impl FnOnce(&mut Settings)) -> TestNode {
    let directory = Arc::new(TempDir::new().unwrap());
    fill(&index_at(directory.path()), items);
    TestNode::with(|settings| {
        settings.directory = directory;
        change(settings);
    })
}

/// A worklist is copied to a database and back with its performed steps, problems and askers.
#[test]
fn a_worklist_is_copied_with_what_belongs_to_it() {
    let directory = TempDir::new().unwrap();
    let [first, back] = ["index.db", "back.db"].map(|name| directory.path().join(name));
    fill(&first, &[order(1, step("CT", "CT1", "20991231", "0800")), order(2, step("MR", "", "20991231", ""))]);
    let writer = Writer::open(&first, WriterOptions::default()).unwrap();
    let performed = PerformedStep {
        sop_instance_uid: "1.2.3".into(),
        status: "IN PROGRESS".into(),
        station_ae_title: "CT1".into(),
        attributes: "{}".into(),
        sender: "CT1".into(),
        created_ms: 1,
        changed_ms: 2,
    };
    let problem = |reason: &str| WorklistProblem {
        source: WorklistSource::Hl7,
        origin: "RIS".into(),
        reason: reason.into(),
        noted_ms: 5,
    };
    let problems = [problem("no patient"), problem("no order")];
    let work = move |tables: &mut dyn WorklistTables| {
        tables.put_performed_step(&performed)?;
        problems.iter().try_for_each(|problem| tables.note_problem(problem))?;
        tables.note_asked(&[WorklistAsked { item: 2, ae_title: "MR1".into(), asked_ms: 7 }])
    };
    writer.handle().change_worklist(Box::new(work)).unwrap();
    writer.close().unwrap();
    let database = crate::util::postgres::server().database();
    let said = |index: &Path| {
        let mut reader = Reader::open(index).unwrap();
        let of_items = (rows_of(&mut reader), reader.worklist_asked().unwrap(), reader.worklist_counts().unwrap());
        (of_items, reader.worklist_problems().unwrap(), reader.performed_steps().unwrap())
    };
    for (from, to) in [(&first, &database), (&database, &back)] {
        let copied = copy_to_engine(from, to, WriterOptions::default()).unwrap();
        assert_eq!(copied.left_behind, <[&str; 0]>::default());
        assert_eq!(said(to), said(&first));
        let mut copy = said(to);
        assert_eq!((copy.0.0.len(), copy.1.remove(0).reason.as_str()), (2, "no order"));
    }
    // New items get new numbers.
    fill(&database, &[order(3, step("CT", "CT1", "20991231", "0900"))]);
    assert_eq!(rows_of(&mut Reader::open(&database).unwrap()).iter().map(|row| row.id).max(), Some(3));
}

/// All rows of the worklist.
fn rows_of(reader: &mut Reader) -> Vec<WorklistRow> {
    let mut rows = Vec::new();
    let all = reader.worklist(&WorklistRequest::default(), &mut |row| {
        rows.push(row);
        std::ops::ControlFlow::Continue(())
    });
    all.unwrap();
    rows
}

/// Runs `dcmdex worklist` on the index of a node.
fn worklist(node: &TestNode, arguments: &[&str], input: &[u8]) -> (i32, String, String) {
    let index = node.index();
    let mut command = Command::new(env!("CARGO_BIN_EXE_dcmdex"));
    // Those of the tests are no settings.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("DCMDEX_")) {
        command.env_remove(name);
    }
    let mut child = command
        .arg("worklist")
        .args(arguments)
        .args(["--index", index.to_str().unwrap()])
        .env("DCMDEX_WORKLIST__ENABLED", "true")
        // The server of the tests flushes nothing, and a command would warn of that.
        .env("DCMDEX_STORE__DURABILITY", "os")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let written = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    // A command that does not read its input has ended before.
    assert!(written.is_ok() || !arguments.contains(&"-"));
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// A key at the root and its value. The attributes of the step stand in `step`.
fn identifier(root: &[((u16, u16), &str)], step: &[((u16, u16), &str)]) -> Vec<u8> {
    let mut elements: Vec<_> = root.to_vec();
    elements.sort_unstable();
    let mut set = DataSet::default();
    let inner = step.iter().fold(DataSet::default(), |set, ((group, element), text)| set.text(*group, *element, text));
    let mut step_is_written = false;
    for ((group, element), text) in elements {
        if (group, element) > (0x0040, 0x0100) && !step_is_written {
            step_is_written = true;
            set = with_step(set, &inner);
        }
        set = set.text(group, element, text);
    }
    if step_is_written { set.0 } else { with_step(set, &inner).0 }
}

fn with_step(set: DataSet, inner: &DataSet) -> DataSet {
    let item = DataSet::default().bytes(0xFFFE, 0xE000, &inner.0);
    set.bytes(0x0040, 0x0100, &item.0)
}

/// Asks, and returns the answers and the last response.
fn ask(peer: &mut ScriptedPeer, identifier: &[u8]) -> (Vec<Received>, Received) {
    peer.send_message(1, &find_command(7, WORKLIST), Some(identifier));
    let mut pending = Vec::new();
    loop {
        let response = peer.receive_message();
        assert_eq!(response.field(), CommandField::C_FIND_RSP);
        if matches!(response.status(), 0xFF00 | 0xFF01) {
            pending.push(response);
        } else {
            return (pending, response);
        }
    }
}

/// The accession numbers of the answers, in their order.
fn found(peer: &mut ScriptedPeer, root: &[((u16, u16), &str)], step: &[((u16, u16), &str)]) -> Vec<String> {
    let mut root = root.to_vec();
    if !root.iter().any(|(tag, _)| *tag == (0x0008, 0x0050)) {
        root.push(((0x0008, 0x0050), ""));
    }
    let (pending, last) = ask(peer, &identifier(&root, step));
    assert_eq!(last.status(), 0, "{}", last.command.text(tags::ERROR_COMMENT).unwrap_or(""));
    pending.iter().map(|answer| text(&decoded(answer).elements, 0x0008, 0x0050)).collect()
}

fn decoded(answer: &Received) -> Identifier {
    Identifier::decode(answer.data_set.as_deref().unwrap(), Encoding::ImplicitLittle, "").unwrap()
}

fn text(elements: &[KeyElement], group: u16, element: u16) -> String {
    match elements.iter().find(|found| found.tag == Tag(group, element)).map(|found| &found.value) {
        Some(KeyValue::Text(text)) => text.clone(),
        Some(KeyValue::Items(_)) => panic!("a sequence"),
        None => panic!("({group:04X},{element:04X}) is not among the answers"),
    }
}

/// The elements of the scheduled procedure step of an answer.
fn step_of(answer: &Identifier) -> Vec<KeyElement> {
    let found = answer.elements.iter().find(|found| found.tag == Tag(0x0040, 0x0100));
    match found.map(|found| &found.value) {
        Some(KeyValue::Items(items)) => items[0].clone(),
        _ => panic!("no scheduled procedure step"),
    }
}
