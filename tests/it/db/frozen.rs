//! A frozen index is one file that only answers.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use dcmdex::db::Error;
use dcmdex::db::open::{checksum_of, freeze, frozen, thaw};
use dcmdex::model::attribute::AttributeId::*;
use dcmdex::model::level::QueryRetrieveLevel::{Image, Patient, Study};

use super::*;

fn filled(directory: &Path) -> PathBuf {
    let index = directory.join("cold.db");
    let writer = writer(&index);
    let uids: Vec<String> = (0..300).map(|number| format!("1.2.{}.1.{number}", number / 10)).collect();
    let files = uids.iter().enumerate().map(|(at, uid)| file(uid, record(&format!("1.2.{}", at / 10), "1", uid, &[])));
    writer.handle().scanned(scanned("/archive", files.collect())).unwrap();
    writer.close().unwrap();
    index
}

fn names_in(directory: &Path) -> BTreeSet<String> {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn it_answers_as_before_and_nothing_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let index = filled(directory.path());
    let asked = [
        request(Image, &[SOPInstanceUID, StudyInstanceUID]),
        request(Study, &[StudyInstanceUID, NumberOfStudyRelatedInstances]),
        request(Patient, &[PatientID, NumberOfPatientRelatedStudies]),
    ];
    let before = asked.each_ref().map(|request| find(&index, request));
    let noted = freeze(&index, 5).unwrap();
    assert_eq!(frozen(&index).unwrap().as_ref(), Some(&noted));
    assert_eq!(freeze(&index, 6).unwrap(), noted, "a second time changes nothing");
    let names = names_in(directory.path());
    assert_eq!(names, BTreeSet::from(["cold.db".to_owned(), "cold.db-frozen".to_owned()]));
    for _ in 0..100 {
        for (request, before) in asked.iter().zip(&before) {
            assert_eq!(&find(&index, request), before);
        }
    }
    assert_sound(&index);
    assert_eq!(names_in(directory.path()), names);
    assert_eq!(checksum_of(&index).unwrap(), (noted.size, noted.checksum));
}

#[test]
fn nobody_writes_it_until_it_is_thawed() {
    let directory = tempfile::tempdir().unwrap();
    let index = filled(directory.path());
    freeze(&index, 5).unwrap();
    let refused = Writer::open(&index, WriterOptions::default()).unwrap_err();
    assert!(matches!(refused, Error::Frozen { .. }) && refused.to_string().contains("index thaw"), "{refused}");
    thaw(&index).unwrap();
    let writer = writer(&index);
    store(&writer, record("1.3", "1.3.1", "1.3.1.1", &[]), location(Place::Managed, "/objects", "a"));
    writer.close().unwrap();
    assert_eq!(find(&index, &request(Image, &[SOPInstanceUID])).len(), 301);
    assert_sound(&index);
}

#[test]
fn a_folder_whose_main_file_is_frozen_says_what_can_be_done() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["2020.db", "2021.db"] {
        writer(&directory.path().join(name)).close().unwrap();
    }
    let first = directory.path().join("2020.db");
    freeze(&first, 5).unwrap();
    let refused = |index: &Path| Writer::open(index, WriterOptions::default()).unwrap_err().to_string();
    let main = directory.path().join("main.db");
    let hint = format!("`dcmdex index new {}` makes another main file", main.display());
    assert!(refused(directory.path()).contains(&hint), "{}", refused(directory.path()));
    writer(&main).close().unwrap();
    writer(directory.path()).close().unwrap();
    freeze(&main, 5).unwrap();
    let hint = format!("hint: `dcmdex index thaw {}`", main.display());
    assert!(refused(directory.path()).ends_with(&hint), "{}", refused(directory.path()));
}

#[test]
fn an_index_in_use_is_not_frozen() {
    let directory = tempfile::tempdir().unwrap();
    let index = filled(directory.path());
    let mut reader = Reader::open(&index).unwrap();
    reader.status().unwrap();
    assert!(matches!(freeze(&index, 5), Err(Error::InUse { .. })));
    drop(reader);
    let writer = writer(&index);
    assert!(matches!(freeze(&index, 5), Err(Error::InUse { .. })));
    writer.close().unwrap();
    freeze(&index, 5).unwrap();
}

#[test]
fn another_file_in_its_place_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let index = filled(directory.path());
    freeze(&index, 5).unwrap();
    fs::OpenOptions::new().append(true).open(&index).unwrap().set_len(8192).unwrap();
    for refused in [Reader::open(&index).map(drop), Writer::open(&index, WriterOptions::default()).map(drop)] {
        assert!(matches!(refused, Err(Error::NotAsFrozen { .. })), "{refused:?}");
    }
}

#[test]
fn a_kill_leaves_the_former_file_or_the_frozen_one() {
    let directory = tempfile::tempdir().unwrap();
    let index = filled(directory.path());
    let asked = request(Image, &[SOPInstanceUID]);
    let before = find(&index, &asked);
    for step in ["written", "renamed"] {
        fail::cfg(format!("freeze {step} {}", fs::canonicalize(&index).unwrap().display()), "1*return").unwrap();
        assert!(freeze(&index, 5).is_err(), "{step}");
        assert_eq!(frozen(&index).unwrap(), None, "{step}");
        assert_eq!(find(&index, &asked), before, "{step}");
        // It can still be written.
        writer(&index).close().unwrap();
    }
    freeze(&index, 5).unwrap();
    assert_eq!(find(&index, &asked), before);
    assert_eq!(names_in(directory.path()).len(), 2);
}

/// Readers of a frozen index take no locks. Whoever thaws it does not know of them.
#[test]
fn a_reader_keeps_what_it_opened_when_the_index_is_thawed_and_written() {
    let directory = tempfile::tempdir().unwrap();
    let index = filled(directory.path());
    freeze(&index, 5).unwrap();
    let asked = request(Image, &[SOPInstanceUID]);
    let before = find(&index, &asked);
    let mut reader = Reader::open(&index).unwrap();
    reader.status().unwrap();
    thaw(&index).unwrap();
    let uids: Vec<String> = (300..3000).map(|number| format!("1.2.{}.1.{number}", number / 10)).collect();
    let files = uids.iter().enumerate().map(|(at, uid)| file(uid, record(&format!("1.3.{at}"), "1", uid, &[])));
    let writer = writer(&index);
    writer.handle().scanned(scanned("/more", files.collect())).unwrap();
    writer.close().unwrap();
    assert_eq!(found_by(&mut reader, &asked), before);
    assert_eq!(find(&index, &asked).len(), before.len() + uids.len());
}

#[test]
fn an_index_that_was_not_thawed_to_its_end_is_frozen() {
    let directory = tempfile::tempdir().unwrap();
    let index = filled(directory.path());
    let noted = freeze(&index, 5).unwrap();
    fail::cfg(format!("thaw renamed {}", fs::canonicalize(&index).unwrap().display()), "1*return").unwrap();
    assert!(thaw(&index).is_err());
    assert_eq!(frozen(&index).unwrap(), Some(noted.clone()));
    assert_eq!(checksum_of(&index).unwrap(), (noted.size, noted.checksum));
    assert_eq!(names_in(directory.path()).len(), 2);
    thaw(&index).unwrap();
    assert_eq!(names_in(directory.path()), BTreeSet::from(["cold.db".to_owned()]));
}
