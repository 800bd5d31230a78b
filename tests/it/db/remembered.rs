//! The caches of the writer between transactions must not affect the index. Concurrent changes must
//! not either.

use std::sync::{Arc, Barrier, mpsc};
use std::time::Duration;

use dcmdex::db::{Admin, Arrivals, Error, Search};
use dcmdex::model::attribute::AttributeId::*;
use dcmdex::model::find::MatchingKey;
use dcmdex::model::level::QueryRetrieveLevel::{Image, Study};

use super::*;

fn studies_of(index: &Path, patient: &str) -> Vec<Vec<String>> {
    let mut asked = request(Study, &[StudyInstanceUID]);
    asked.matching_keys.push(MatchingKey { attribute: PatientID, matching: matching(PatientID, patient) });
    let mut studies = find(index, &asked);
    studies.sort();
    studies
}

fn conflicts(index: &Path) -> Vec<String> {
    let mut files = Vec::new();
    Reader::open(index)
        .unwrap()
        .conflicts(|conflict| {
            files.push(format!("{} {}", conflict.kind, conflict.path.display()));
            ControlFlow::Continue(())
        })
        .unwrap();
    files.sort();
    files
}

#[test]
fn a_study_under_two_patients_is_noted_once_also_by_a_writer_that_has_just_begun() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("index.db");
    let first = writer(&index);
    first.handle().scanned(scanned("/a", vec![file("x", record("1", "2", "3", &[]))])).unwrap();
    first.close().unwrap();
    let second = writer(&index);
    let others = ["4", "5"].map(|uid| file(uid, record("1", "2", uid, &[(PatientID, "P2")])));
    second.handle().scanned(scanned("/b", others.into())).unwrap();
    assert_eq!(second.handle().flush().unwrap().conflicts, 1);
    second.close().unwrap();
    assert_eq!(conflicts(&index), ["study-under-two-patients /b/4"]);
}

#[test]
fn a_study_that_moved_to_another_patient_is_still_found_under_who_gets_more_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("index.db");
    let writer = writer(&index);
    let handle = writer.handle();
    // The second study keeps the patient.
    let files = vec![file("x", record("1", "2", "3", &[])), file("y", record("7", "8", "9", &[]))];
    handle.scanned(scanned("/a", files)).unwrap();
    let moved = ScannedFile { known: true, size: 2000, ..file("x", record("1", "2", "3", &[(PatientID, "P2")])) };
    handle.scanned(scanned("/a", vec![moved])).unwrap();
    handle.scanned(scanned("/b", vec![file("z", record("1", "2", "4", &[]))])).unwrap();
    handle.flush().unwrap();
    assert_eq!(studies_of(&index, "P2"), [["1"]]);
    assert_eq!(studies_of(&index, "P1"), [["1"], ["7"]]);
    // The further one is whose Patient ID sorts last.
    assert_eq!(conflicts(&index), ["study-under-two-patients /a/x"]);
    drop((writer, handle));
    assert_sound(&index);
}

#[test]
fn files_that_change_places_are_known_where_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("index.db");
    let writer = writer(&index);
    let uids = ["1.2.3", "1.2.4", "1.2.5"];
    let files = uids.map(|uid| file(&format!("f{uid}"), record("1", "2", uid, &[])));
    writer.handle().scanned(scanned("/a", files.into())).unwrap();
    // Each takes the name of the next.
    let turned = [0, 1, 2].map(|at| ScannedFile {
        known: true,
        mtime_ms: 9_000,
        ..file(&format!("f{}", uids[(at + 1) % 3]), record("1", "2", uids[at], &[]))
    });
    writer.handle().scanned(scanned("/a", turned.into())).unwrap();
    writer.handle().flush().unwrap();
    let mut reader = Reader::open(&index).unwrap();
    for at in 0..3 {
        let paths: Vec<_> = reader.locations(uids[at]).unwrap().iter().map(|l| l.path().unwrap()).collect();
        assert_eq!(paths, [Path::new("/a").join(format!("f{}", uids[(at + 1) % 3]))]);
    }
    assert_eq!(find(&index, &request(Study, &[NumberOfStudyRelatedInstances])), [["3"]]);
    drop(writer);
    assert_sound(&index);
}

#[test]
fn a_writer_ends_while_somebody_is_reading() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("index.db");
    let writer = writer(&index);
    let files = ["3", "4"].map(|uid| file(uid, record("1", "2", uid, &[])));
    writer.handle().scanned(scanned("/a", files.into())).unwrap();
    writer.handle().flush().unwrap();
    let mut reader = Reader::open(&index).unwrap();
    let mut writer = Some(writer);
    let answers = reader.find(&request(Image, &[SOPInstanceUID]), |_| {
        // In the middle of the answers, with more in the log than they are of.
        if let Some(writer) = writer.take() {
            writer.handle().scanned(scanned("/b", vec![file("5", record("1", "2", "5", &[]))])).unwrap();
            let (closed, told) = mpsc::channel();
            std::thread::spawn(move || closed.send(writer.close()));
            let result = told.recv_timeout(Duration::from_secs(30)).expect("the writer waits for the reader");
            result.unwrap();
        }
        ControlFlow::Continue(())
    });
    assert_eq!(answers.unwrap(), 2);
    assert_eq!(find(&index, &request(Image, &[SOPInstanceUID])).len(), 3);
}

#[test]
fn an_index_can_be_made_by_several_at_once() {
    for _ in 0..20 {
        let dir = tempfile::tempdir().unwrap();
        let index = dir.path().join("index.db");
        let barrier = Arc::new(Barrier::new(4));
        let threads = [1, 2, 3, 4].map(|n| {
            let (barrier, index) = (Arc::clone(&barrier), index.clone());
            std::thread::spawn(move || {
                barrier.wait();
                let writer = writer(&index);
                let uid = format!("1.2.{n}");
                writer.handle().scanned(scanned("/a", vec![file(&uid, record("1", "2", &uid, &[]))])).unwrap();
                writer.close().unwrap();
            })
        });
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(find(&index, &request(Study, &[NumberOfStudyRelatedInstances])), [["4"]]);
    }
}

#[test]
fn a_reader_says_when_a_file_is_no_index() {
    let dir = tempfile::tempdir().unwrap();
    let other = dir.path().join("notes.txt");
    std::fs::write(&other, "these are notes, and more than sixteen bytes of them. ".repeat(100)).unwrap();
    assert!(matches!(Reader::open(&other), Err(Error::NotAnIndex { .. })));
    // SQLite takes this one for an empty database.
    std::fs::write(&other, "1").unwrap();
    assert!(matches!(Reader::open(&other), Err(Error::NotAnIndex { .. })));
    assert!(matches!(Writer::open(&other, WriterOptions::default()), Err(Error::NotAnIndex { .. })));
    assert_eq!(std::fs::read(&other).unwrap(), b"1");
}

#[test]
fn a_database_of_another_program_is_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let other = dir.path().join("other.db");
    let made = std::process::Command::new("sqlite3")
        .arg(&other)
        .arg("CREATE TABLE t (a); INSERT INTO t VALUES (1);")
        .status()
        .expect("the sqlite3 shell is installed by scripts/peers");
    assert!(made.success());
    let before = std::fs::read(&other).unwrap();
    assert!(matches!(Writer::open(&other, WriterOptions::default()), Err(Error::NotAnIndex { .. })));
    assert!(std::fs::read(&other).unwrap() == before, "the database has changed");
}

#[test]
fn a_correction_in_one_series_and_a_file_of_another_give_the_same_whatever_the_writer_remembers() {
    let described = |series: &str, uid: &str, text: &str| record("1", series, uid, &[(StudyDescription, text)]);
    let answers = [false, true].map(|anew| {
        let dir = tempfile::tempdir().unwrap();
        let index = dir.path().join("index.db");
        let mut writer = writer(&index);
        let files = vec![file("x", described("2", "3", "Long one")), file("y", described("4", "5", "Long one"))];
        writer.handle().scanned(scanned("/a", files)).unwrap();
        let corrected = ScannedFile { known: true, size: 2000, ..file("y", described("4", "5", "Short")) };
        writer.handle().scanned(scanned("/a", vec![corrected])).unwrap();
        if anew {
            writer.close().unwrap();
            writer = super::writer(&index);
        }
        writer.handle().scanned(scanned("/b", vec![file("z", described("2", "6", "Long one"))])).unwrap();
        writer.handle().flush().unwrap();
        find(&index, &request(Study, &[StudyDescription]))
    });
    assert_eq!(answers[0], answers[1]);
}
