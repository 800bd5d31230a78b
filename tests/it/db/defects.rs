//! A program defect in the writer of the index. It fails only the command that met it, and the
//! writer goes on.

use std::fs;
use std::sync::mpsc::{Receiver, channel};

use dcmdex::db::open::WriterHandle;
use dcmdex::db::{Arrivals, Error, Stored};
use dcmdex::model::attribute::AttributeId::{PatientID, SOPInstanceUID};
use dcmdex::model::level::QueryRetrieveLevel::Image;
use dcmdex::model::location::Place;

use super::*;

fn queue(writer: &Writer, uid: &str, patient: &str) -> Receiver<Result<Stored, Error>> {
    queue_with(&writer.handle(), uid, patient)
}

fn queue_with(writer: &WriterHandle, uid: &str, patient: &str) -> Receiver<Result<Stored, Error>> {
    let (send, receive) = channel();
    let on_done = move |result| send.send(result).unwrap();
    let (record, location) = (record("1.2", "1.3", uid, &[(PatientID, patient)]), location(Place::Managed, "/a", uid));
    writer.store(Received { compared: Compared::Same, ..Received::new(record, location) }, Box::new(on_done));
    receive
}

fn outcome(answer: &Receiver<Result<Stored, Error>>) -> Result<StoreOutcome, Error> {
    answer.recv().unwrap().map(|stored| stored.outcome)
}

/// Does this whenever the instance is entered into the index.
fn at_arrival(index: &Path, uid: &str, action: &str) {
    fail::cfg(format!("arrive {} {uid}", index.display()), action).unwrap();
}

fn instances(index: &Path) -> Vec<String> {
    let mut uids: Vec<_> = find(index, &request(Image, &[SOPInstanceUID])).into_iter().flatten().collect();
    uids.sort();
    uids
}

#[test]
fn a_defect_costs_the_instance_that_met_it_and_not_those_of_its_group() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("index.db");
    // The first one waits in its transaction until all others are queued. So these are one group.
    at_arrival(&index, "1.4.0", "pause");
    at_arrival(&index, "1.4.3", "panic(a defect)");
    at_arrival(&index, "1.4.5", "panic(a defect)");
    let writer = Writer::open(&index, WriterOptions::default()).unwrap();
    let first = queue(&writer, "1.4.0", "WAITS");
    let patients = ["A", "A", "DEFECT", "B", "DEFECT", "B"];
    let group: Vec<_> = (1..).zip(patients).map(|(n, patient)| queue(&writer, &format!("1.4.{n}"), patient)).collect();
    at_arrival(&index, "1.4.0", "off");
    assert_eq!(outcome(&first).unwrap(), StoreOutcome::New);
    for (answer, patient) in group.iter().zip(patients) {
        match outcome(answer) {
            Ok(outcome) => assert_eq!((outcome, patient == "DEFECT"), (StoreOutcome::New, false)),
            Err(error) => assert!(matches!(error, Error::WriterPanicked) && patient == "DEFECT", "{error}"),
        }
    }
    // Again and again.
    for n in 7..10 {
        assert!(matches!(outcome(&queue(&writer, "1.4.3", "DEFECT")), Err(Error::WriterPanicked)));
        assert_eq!(outcome(&queue(&writer, &format!("1.4.{n}"), "A")).unwrap(), StoreOutcome::New);
    }
    // Scans go on, too.
    writer.handle().scanned(scanned("/b", vec![file("f", record("1.2", "1.3", "1.4.9.1", &[]))])).unwrap();
    assert_eq!(writer.handle().flush().unwrap().indexed, 1);
    writer.close().unwrap();
    let expected = ["1.4.0", "1.4.1", "1.4.2", "1.4.4", "1.4.6", "1.4.7", "1.4.8", "1.4.9", "1.4.9.1"];
    assert_eq!(instances(&index), expected);
    assert_sound(&index);
}

#[test]
fn where_the_index_cannot_be_opened_again_what_arrives_is_refused_until_it_can() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("index.db");
    at_arrival(&index, "1.4.2", "panic(a defect)");
    let writer = Writer::open(&index, WriterOptions::default()).unwrap();
    assert_eq!(outcome(&queue(&writer, "1.4.1", "A")).unwrap(), StoreOutcome::New);
    let elsewhere = dir.path().join("elsewhere");
    fs::rename(&index, &elsewhere).unwrap();
    assert!(outcome(&queue(&writer, "1.4.2", "DEFECT")).is_err());
    assert!(outcome(&queue(&writer, "1.4.3", "A")).is_err());
    assert!(writer.handle().begin_scan("[]".to_owned()).is_err());
    assert!(!index.exists(), "no new index in place of the old one");
    fs::rename(&elsewhere, &index).unwrap();
    assert_eq!(outcome(&queue(&writer, "1.4.3", "A")).unwrap(), StoreOutcome::New);
    writer.close().unwrap();
    assert_eq!(instances(&index), ["1.4.1", "1.4.3"]);
    assert_sound(&index);
}

#[test]
fn a_column_of_the_wrong_type_is_an_error_and_no_empty_text() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("index.db");
    let writer = writer(&index);
    store(&writer, record("1.2", "1.2.1", "1.2.3", &[]), location(Place::Managed, "/objects", "a"));
    writer.close().unwrap();
    #[expect(clippy::disallowed_methods, reason = "the test writes what no version of the program does")]
    let connection = rusqlite::Connection::open(&index).unwrap();
    for column in ["uid_prefix", "declared_set", "file_prefix"] {
        connection.execute(&format!("UPDATE instance_group SET {column} = x'31'"), []).unwrap();
    }
    let mut reader = Reader::open(&index).unwrap();
    let found = reader.known_locations("1.2.3");
    assert!(matches!(found, Err(Error::Statement(_))), "{found:?}");
    let found =
        reader.find(&request(QueryRetrieveLevel::Image, &[AttributeId::SOPInstanceUID]), |_| ControlFlow::Continue(()));
    assert!(matches!(found, Err(Error::Statement(_))), "{found:?}");
}

#[test]
fn an_index_that_is_taken_away_between_two_group_commits_acknowledges_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (index, away) = (dir.path().join("index.db"), dir.path().join("away.db"));
    let writer = Writer::open(&index, WriterOptions::default()).unwrap();
    // The second one waits while the first one is written, and the index goes in its transaction.
    let (waits, second) = channel();
    let handle = writer.handle();
    fail::cfg_callback(format!("arrive {} 1.4.0", index.display()), move || {
        waits.send(queue_with(&handle, "1.4.1", "A")).unwrap();
    })
    .unwrap();
    let (from, to) = (index.clone(), away.clone());
    fail::cfg_callback(format!("arrive {} 1.4.1", index.display()), move || fs::rename(&from, &to).unwrap()).unwrap();
    assert_eq!(outcome(&queue(&writer, "1.4.0", "A")).unwrap(), StoreOutcome::New);
    let in_doubt = outcome(&second.recv().unwrap());
    assert!(matches!(in_doubt, Err(Error::InDoubt { committed: true, .. })), "{in_doubt:?}");
    assert!(matches!(outcome(&queue(&writer, "1.4.2", "A")), Err(Error::Replaced { .. })));
    fs::rename(&away, &index).unwrap();
    assert_eq!(outcome(&queue(&writer, "1.4.3", "A")).unwrap(), StoreOutcome::New);
    for uid in ["1.4.0", "1.4.1"] {
        at_arrival(&index, uid, "off");
    }
    writer.close().unwrap();
    assert_eq!(instances(&index), ["1.4.0", "1.4.1", "1.4.3"]);
}
