//! Everything written to the index can be read from it, exactly once.

use dcmdex::db::open::Reader;
use dcmdex::db::{
    Admin, Arrivals, Error, FileOutcome, KnownFile, NotIndexed, Note, ScanLedger, ScannedFile, Search, StoreOutcome,
};
use dcmdex::model::attribute::{ATTRIBUTES, AttributeId::*, ValueSource};
use dcmdex::model::level::QueryRetrieveLevel::{Image, Patient, Series, Study};
use dcmdex::model::location::Place;

use super::*;

#[test]
fn every_kept_attribute_comes_back_as_it_went_in() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("index.db");
    let kept: Vec<_> = ATTRIBUTES
        .iter()
        .filter(|a| matches!(a.source, ValueSource::DataSet | ValueSource::TransferSyntax))
        .map(|a| a.id)
        .collect();
    // Two instances that differ in all that belongs to an instance.
    let values = |n: usize| -> Vec<(AttributeId, String)> {
        let own = |id: AttributeId| if id.attribute().level == Image { n } else { 0 };
        kept.iter().map(|&id| (id, format!("{id} \"{}\" é山", own(id)))).collect()
    };
    let writer = writer(&index);
    let mut files = Vec::new();
    for n in 0..2 {
        let values = values(n);
        let more: Vec<_> = values.iter().map(|(id, value)| (*id, value.as_str())).collect();
        files.push(file(&format!("f{n}"), record("1", "2", "3", &more)));
    }
    writer.handle().scanned(scanned("/a", files)).unwrap();
    assert_eq!(writer.handle().flush().unwrap().indexed, 2);
    let mut answers = find(&index, &request(Image, &kept));
    answers.sort();
    let mut expected: Vec<Vec<_>> = (0..2).map(|n| values(n).into_iter().map(|(_, value)| value).collect()).collect();
    expected.sort();
    assert_eq!(answers, expected);
    drop(writer);
    assert_sound(&index);
}

#[test]
fn the_views_say_what_the_program_says() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("index.db");
    let writer = writer(&index);
    let times = [("101112.123000", "7"), ("101113", "8"), ("about noon", "x9")];
    let files = times.iter().enumerate().map(|(n, (time, number))| {
        let uid = format!("1.2.3.{}", 100 + n);
        let more = [(ContentTime, *time), (InstanceNumber, *number), (ImageType, if n == 1 { "A\\B" } else { "C" })];
        file(&if n == 2 { "odd".to_owned() } else { format!("{uid}.dcm") }, record("1.5", "1.6", &uid, &more))
    });
    writer.handle().scanned(scanned("/archive/x", files.collect())).unwrap();
    drop(writer);
    let columns = [SOPInstanceUID, ContentTime, InstanceNumber, ImageType, SOPClassUID];
    let answers = find(&index, &request(Image, &columns));
    let shell = std::process::Command::new("sqlite3")
        .arg("-readonly")
        .args(["-separator", "|"])
        .arg(&index)
        .arg("SELECT sop_instance_uid, content_time, instance_number, image_type, sop_class_uid, path FROM instances")
        .output()
        .expect("the sqlite3 shell is installed by scripts/peers");
    assert!(shell.status.success(), "{}", String::from_utf8_lossy(&shell.stderr));
    let mut rows: Vec<_> = String::from_utf8(shell.stdout).unwrap().lines().map(str::to_owned).collect();
    rows.sort();
    let mut expected: Vec<_> = answers
        .iter()
        .map(|values| {
            let name = if values[0].ends_with("102") { "odd".to_owned() } else { format!("{}.dcm", values[0]) };
            format!("{}|/archive/x/{name}", values.join("|"))
        })
        .collect();
    expected.sort();
    assert_eq!(rows, expected);
}

#[test]
fn times_and_sizes_come_back_however_they_stand_to_those_of_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("index.db");
    let writer = writer(&index);
    // Acquisition, content and creation time: as many seconds later, otherwise later, of another
    // form, absent, no times.
    let times = [
        ["101112", "101113", "101114"],
        ["101113", "101114", "101115"],
        ["101114", "101116", "101116"],
        ["101115", "101116.5", "101117"],
        ["", "101117", "101118"],
        ["101112", "101113", "101114"],
        ["noon", "noon", "noon"],
    ];
    let sizes = [1000, 1000, 999, 5_000_000_000, 1, 0, 1001_u64];
    let ids = [AcquisitionTime, ContentTime, InstanceCreationTime];
    let files = std::iter::zip(times, sizes).enumerate().map(|(n, (times, size))| {
        let values: Vec<_> = std::iter::zip(ids, times).collect();
        ScannedFile { size, ..file(&format!("f{n}"), record("1.5", "1.6", &format!("1.2.3.{n}"), &values)) }
    });
    writer.handle().scanned(scanned("/a", files.collect())).unwrap();
    writer.handle().flush().unwrap();
    let mut answers =
        find(&index, &request(Image, &[SOPInstanceUID, AcquisitionTime, ContentTime, InstanceCreationTime]));
    answers.sort();
    assert_eq!(answers.iter().map(|answer| &answer[1..]).collect::<Vec<_>>(), times);
    let mut reader = Reader::open(&index).unwrap();
    let known = reader.directory_files("/a".as_ref()).unwrap();
    for (n, size) in sizes.into_iter().enumerate() {
        assert_eq!(known[std::ffi::OsStr::new(&format!("f{n}"))].size, size);
        assert_eq!(reader.locations(&format!("1.2.3.{n}")).unwrap()[0].size, size);
    }
    #[expect(clippy::disallowed_methods, reason = "as somebody with a tool of their own does")]
    let view = rusqlite::Connection::open(&index).unwrap();
    let mut rows = view
        .prepare("SELECT acquisition_time, content_time, instance_creation_time, size FROM instances ORDER BY sop_instance_uid")
        .unwrap();
    let rows: Vec<([String; 3], i64)> = rows
        .query_map([], |row| Ok(([row.get(0)?, row.get(1)?, row.get(2)?], row.get(3)?)))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    let expected: Vec<_> =
        std::iter::zip(times.map(|times| times.map(str::to_owned)), sizes.map(|size| size.cast_signed())).collect();
    assert_eq!(rows, expected);
    // The first one is read again and has other values; the instance group stays.
    let values: Vec<_> = std::iter::zip(ids, ["101200", "101201", "101202"]).collect();
    let changed = ScannedFile { known: true, ..file("f0", record("1.5", "1.6", "1.2.3.0", &values)) };
    writer.handle().scanned(scanned("/a", vec![changed])).unwrap();
    writer.handle().flush().unwrap();
    let mut after =
        find(&index, &request(Image, &[SOPInstanceUID, AcquisitionTime, ContentTime, InstanceCreationTime]));
    after.sort();
    assert_eq!(after[0][1..], ["101200", "101201", "101202"]);
    assert_eq!(after[1..], answers[1..]);
    drop(writer);
    assert_sound(&index);
}

#[test]
fn a_second_file_of_an_instance_is_a_copy_and_counts_once() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("index.db");
    let writer = writer(&index);
    let handle = writer.handle();
    handle.scanned(scanned("/a", vec![file("x", record("1", "2", "3", &[]))])).unwrap();
    handle.scanned(scanned("/b", vec![file("y", record("1", "2", "3", &[]))])).unwrap();
    let tally = handle.flush().unwrap();
    assert_eq!((tally.indexed, tally.copies, tally.conflicts), (1, 1, 0));
    let mut reader = Reader::open(&index).unwrap();
    let paths: Vec<_> = reader.locations("3").unwrap().iter().map(|l| l.path().unwrap()).collect();
    assert_eq!(paths, [std::path::Path::new("/a/x"), std::path::Path::new("/b/y")]);
    assert_eq!(find(&index, &request(Study, &[NumberOfStudyRelatedInstances])), [["1"]]);
    let known = KnownFile { size: 1000, mtime_ms: 5_000, note: None, missing: false, lacks_declared: false };
    assert_eq!(reader.directory_files("/b".as_ref()).unwrap()[std::ffi::OsStr::new("y")], known);
    drop((writer, handle));
    assert_sound(&index);
}

#[test]
fn what_is_known_of_a_directory_is_that_of_one_moment() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("index.db");
    let writer = writer(&index);
    let write = |name: &str, uid: &str| {
        writer.handle().scanned(scanned("/a", vec![file(name, record("1", "2", uid, &[]))])).unwrap();
        writer.handle().flush().unwrap();
    };
    write("x", "3");
    let mut reader = Reader::open(&index).unwrap();
    let now = reader.directory_now("/a".as_ref()).unwrap();
    write("y", "4");
    assert_eq!(now.files().unwrap().into_keys().collect::<Vec<_>>(), ["x"]);
    assert_eq!(reader.directory_files("/a".as_ref()).unwrap().len(), 2);
}

#[test]
fn the_same_uid_with_other_content_is_a_conflict_and_the_first_one_stays() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("index.db");
    let writer = writer(&index);
    let handle = writer.handle();
    handle.scanned(scanned("/a", vec![file("x", record("1", "2", "3", &[]))])).unwrap();
    let other = record("1", "2", "3", &[(InstanceNumber, "9")]);
    handle.scanned(scanned("/b", vec![file("y", other)])).unwrap();
    let tally = handle.flush().unwrap();
    assert_eq!((tally.indexed, tally.copies, tally.conflicts), (1, 1, 1));
    assert_eq!(find(&index, &request(Image, &[InstanceNumber])), [["1"]]);
    let status = Reader::open(&index).unwrap().status().unwrap();
    assert_eq!(status.conflicts, [("instance-with-other-content".to_owned(), 1)]);
}

#[test]
fn a_study_under_two_patients_is_found_under_both_and_answered_once() {
    use dcmdex::model::find::MatchingKey;
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("index.db");
    let writer = writer(&index);
    let handle = writer.handle();
    let files = vec![file("x", record("1", "2", "3", &[])), file("y", record("1", "2", "4", &[(PatientID, "P2")]))];
    handle.scanned(scanned("/a", files)).unwrap();
    assert_eq!(handle.flush().unwrap().conflicts, 1);
    for patient in ["P1", "P2"] {
        let mut asked = request(Study, &[StudyInstanceUID, PatientID, NumberOfStudyRelatedInstances]);
        let matching = matching(PatientID, patient);
        asked.matching_keys.push(MatchingKey { attribute: PatientID, matching });
        assert_eq!(find(&index, &asked), [["1", patient, "2"]]);
    }
    assert_eq!(find(&index, &request(Study, &[StudyInstanceUID])), [["1"]]);
    assert_eq!(
        find(&index, &request(Patient, &[PatientID, NumberOfPatientRelatedStudies])),
        [["P1", "1"], ["P2", "1"]]
    );
    drop((writer, handle));
    assert_sound(&index);
}

#[test]
fn a_changed_file_replaces_its_former_content_everywhere() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("index.db");
    let writer = writer(&index);
    let handle = writer.handle();
    let files = vec![file("x", record("1", "2", "3", &[])), file("y", record("1", "2", "4", &[]))];
    handle.scanned(scanned("/a", files)).unwrap();
    // Another instance of another study and modality under the same name, and a corrected patient
    // name.
    let moved = record("7", "8", "9", &[(Modality, "MR"), (PatientName, "Corrected^Name")]);
    let changed = ScannedFile { known: true, size: 2000, ..file("x", moved) };
    handle.scanned(scanned("/a", vec![changed])).unwrap();
    assert_eq!(handle.flush().unwrap().updated, 1);
    let columns = [StudyInstanceUID, ModalitiesInStudy, NumberOfStudyRelatedSeries, NumberOfStudyRelatedInstances];
    let mut studies = find(&index, &request(Study, &columns));
    studies.sort();
    assert_eq!(studies, [["1", "CT", "1", "1"], ["7", "MR", "1", "1"]]);
    assert_eq!(find(&index, &request(Patient, &[PatientName])), [["Corrected^Name"]]);
    // And then it is no instance any more.
    let broken = ScannedFile {
        known: true,
        outcome: FileOutcome::NotIndexed { kind: NotIndexed::Failed, reason: "truncated", detail: "cut short".into() },
        ..file("x", record("1", "2", "3", &[]))
    };
    handle.scanned(scanned("/a", vec![broken])).unwrap();
    handle.flush().unwrap();
    assert_eq!(find(&index, &request(Series, &[SeriesInstanceUID])), [["2"]]);
    let status = Reader::open(&index).unwrap().status().unwrap();
    assert_eq!(status.failed, [("truncated".to_owned(), 1)]);
    drop((writer, handle));
    assert_sound(&index);
}

#[test]
fn a_vanished_file_leaves_and_its_copy_takes_over() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("index.db");
    let writer = writer(&index);
    let handle = writer.handle();
    handle.scanned(scanned("/a", vec![file("x", record("1", "2", "3", &[(ContentTime, "101010.5")]))])).unwrap();
    handle.scanned(scanned("/b", vec![file("y", record("1", "2", "3", &[(ContentTime, "101010.5")]))])).unwrap();
    handle.scanned(ScannedDirectory { vanished: vec!["x".into()], ..scanned("/a", Vec::new()) }).unwrap();
    assert_eq!(handle.flush().unwrap().removed, 1);
    let paths: Vec<_> =
        Reader::open(&index).unwrap().locations("3").unwrap().iter().map(|l| l.path().unwrap()).collect();
    assert_eq!(paths, [std::path::Path::new("/b/y")]);
    assert_eq!(find(&index, &request(Image, &[ContentTime])), [["101010.5"]]);
    handle.scanned(ScannedDirectory { vanished: vec!["y".into()], ..scanned("/b", Vec::new()) }).unwrap();
    handle.flush().unwrap();
    assert_eq!(find(&index, &request(Patient, &[PatientID])), Vec::<Vec<String>>::new());
    drop((writer, handle));
    assert_sound(&index);
}

#[test]
fn receiving_twice_changes_nothing_and_receiving_otherwise_keeps_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("index.db");
    let writer = writer(&index);
    let place = || location(Place::Managed, "/objects/1/2", "3.dcm");
    assert_eq!(store(&writer, record("1", "2", "3", &[]), place()), StoreOutcome::New);
    assert_eq!(store(&writer, record("1", "2", "3", &[]), place()), StoreOutcome::Identical { uncompared: None });
    let other = record("1", "2", "3", &[(Rows, "512")]);
    let beside = location(Place::Managed, "/objects/1/2", "3-1.dcm");
    let stored = store_with(&writer, other, beside, DuplicatePolicy::KeepFirst, Compared::Other);
    assert_eq!(stored, StoreOutcome::KeptFirst);
    assert_eq!(find(&index, &request(Study, &[NumberOfStudyRelatedInstances])), [["1"]]);
    drop(writer);
    assert_sound(&index);
}

#[test]
fn an_object_completes_an_instance_of_which_only_the_metadata_was_known() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("index.db");
    let writer = writer(&index);
    assert_eq!(store(&writer, record("1", "2", "3", &[]), location(Place::MetadataOnly, "", "")), StoreOutcome::New);
    assert_eq!(find(&index, &request(Series, &[InstanceAvailability])), [["UNAVAILABLE"]]);
    let place = location(Place::Managed, "/objects/1/2", "3.dcm");
    assert_eq!(store(&writer, record("1", "2", "3", &[]), place), StoreOutcome::Completed);
    assert_eq!(
        find(&index, &request(Study, &[InstanceAvailability, NumberOfStudyRelatedInstances])),
        [["ONLINE", "1"]]
    );
    drop(writer);
    assert_sound(&index);
}

// PS3.4 C.4.1.1.3.2: the availability of the least available instance below.
#[test]
fn an_entity_is_as_available_as_the_least_available_of_its_instances() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("index.db");
    let writer = writer(&index);
    let kept = |study: &str, series: &str, uid: &str| {
        let record = record(study, series, uid, &[(PatientID, study)]);
        assert_eq!(store(&writer, record, location(Place::Managed, "/objects", uid)), StoreOutcome::New);
    };
    kept("1", "1.1", "1.1.1");
    kept("2", "2.1", "2.1.1");
    let record = record("1", "1.2", "1.2.1", &[(PatientID, "1")]);
    assert_eq!(store(&writer, record, location(Place::MetadataOnly, "", "")), StoreOutcome::New);
    drop(writer);
    let (online, unavailable) = ("ONLINE", "UNAVAILABLE");
    for (level, key, expected) in [
        (Patient, PatientID, vec![["1", unavailable], ["2", online]]),
        (Study, StudyInstanceUID, vec![["1", unavailable], ["2", online]]),
        (Series, SeriesInstanceUID, vec![["1.1", online], ["1.2", unavailable], ["2.1", online]]),
        (Image, SOPInstanceUID, vec![["1.1.1", online], ["1.2.1", unavailable], ["2.1.1", online]]),
    ] {
        let mut found = find(&index, &request(level, &[key, InstanceAvailability]));
        found.sort();
        assert_eq!(found, expected, "{level}");
    }
    assert_sound(&index);
}

#[test]
fn an_object_that_was_lost_and_comes_again_is_marked_as_before() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("index.db");
    let writer = writer(&index);
    for expected in [StoreOutcome::New, StoreOutcome::Completed] {
        let place = location(Place::Managed, "/objects/1/2", "3.04.dcm");
        // Nothing lies under its name, also the second time.
        let stored =
            store_with(&writer, record("1", "2", "3.04", &[]), place, DuplicatePolicy::KeepFirst, Compared::Nothing);
        assert_eq!(stored, expected);
        let status = Reader::open(&index).unwrap().status().unwrap();
        assert_eq!(status.conflicts, [("invalid-uid".to_owned(), 1)], "{expected:?}");
    }
}

#[test]
fn what_is_noted_of_an_object_goes_when_another_replaces_it_and_comes_with_that() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("index.db");
    let writer = writer(&index);
    let noted = || {
        let status = Reader::open(&index).unwrap().status().unwrap();
        (status.files_with_faults, status.conflicts)
    };
    let conflict = |kind: &str| (kind.to_owned(), 1);
    let faulty = |number: &str| {
        let mut faulty = record("1", "2", "3.04", &[(InstanceNumber, number)]);
        faulty.add_fault("bad-vr: one".to_owned());
        faulty
    };
    let replace = |record, name: &str| {
        let place = location(Place::Managed, "/objects/1/2", name);
        store_with(&writer, record, place, DuplicatePolicy::Replace, Compared::Other)
    };
    assert_eq!(replace(faulty("1"), "a.dcm"), StoreOutcome::New);
    assert_eq!(noted(), (1, vec![conflict("invalid-uid")]));
    for (name, record, faults) in [("b.dcm", record("1", "2", "3.04", &[]), 0), ("c.dcm", faulty("2"), 1)] {
        assert!(matches!(replace(record, name), StoreOutcome::Replaced { .. }));
        assert_eq!(noted(), (faults, vec![conflict("instance-with-other-content"), conflict("invalid-uid")]), "{name}");
    }
}

#[test]
fn faults_of_what_was_received_without_its_object_count_for_each_until_that_comes() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("index.db");
    let writer = writer(&index);
    let with_faults = || Reader::open(&index).unwrap().status().unwrap().files_with_faults;
    let faulty = |uid: &str| {
        let mut faulty = record("1", "2", uid, &[]);
        faulty.add_fault("bad-vr: one".to_owned());
        faulty
    };
    // Of one of them there is a file as well.
    writer.handle().scanned(scanned("/a", vec![file("x", record("1", "2", "3.1", &[]))])).unwrap();
    for uid in ["3.1", "3.2"] {
        let _new_or_not = store(&writer, faulty(uid), location(Place::MetadataOnly, "", ""));
    }
    assert_eq!(with_faults(), 2);
    let object = location(Place::Managed, "/objects/1/2", "3.2.dcm");
    assert_eq!(store(&writer, record("1", "2", "3.2", &[]), object), StoreOutcome::Completed);
    assert_eq!(with_faults(), 1);
}

#[test]
fn two_writers_of_one_index_do_not_harm_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("index.db");
    let writers = [writer(&index), writer(&index)];
    for n in 0..40 {
        let uid = format!("1.9.{n}");
        // Both send every instance, now one of them first and now the other.
        for writer in [&writers[n % 2], &writers[1 - n % 2]] {
            let _either = store(writer, record("1", "2", &uid, &[]), location(Place::Managed, "/objects/1/2", &uid));
        }
    }
    assert_eq!(find(&index, &request(Study, &[NumberOfStudyRelatedInstances])), [["40"]]);
    drop(writers);
    assert_sound(&index);
}

#[test]
fn what_is_no_index_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("none.db");
    assert!(matches!(Reader::open(&missing), Err(Error::Missing { .. })));
    assert!(!missing.exists());
    let other = dir.path().join("notes.txt");
    std::fs::write(&other, "these are notes, and more than sixteen bytes of them").unwrap();
    assert!(matches!(Writer::open(&other, WriterOptions::default()), Err(Error::NotAnIndex { .. })));
    assert!(std::fs::read_to_string(&other).unwrap().starts_with("these are notes"));
}

#[test]
fn the_ledger_remembers_why_a_file_is_not_indexed() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("index.db");
    let writer = writer(&index);
    let failed = |name: &str| ScannedFile {
        outcome: FileOutcome::NotIndexed { kind: NotIndexed::Failed, reason: "not-dicom", detail: "text".into() },
        ..file(name, record("1", "2", "3", &[]))
    };
    writer
        .handle()
        .scanned(scanned("/a", vec![failed("x"), failed("y"), file("z", record("1", "2", "3", &[]))]))
        .unwrap();
    writer.handle().flush().unwrap();
    let known = Reader::open(&index).unwrap().directory_files("/a".as_ref()).unwrap();
    let note = |name: &str| known[std::ffi::OsStr::new(name)].note.clone();
    let expected = Note { kind: NotIndexed::Failed, reason: "not-dicom".into(), detail: "text".into() };
    assert_eq!(note("x").as_deref(), Some(&expected));
    assert_eq!(note("y").as_deref(), Some(&expected));
    assert_eq!(note("z"), None);
}

#[test]
fn directories_below_a_root_come_in_pages_whatever_their_names() {
    use std::os::unix::ffi::OsStrExt;
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("index.db");
    let writer = writer(&index);
    let not_utf8 = std::ffi::OsStr::from_bytes(b"/a/\xff");
    let inside = ["/a/0", "/a/b", "/a/b/c", "/a/~"].map(std::ffi::OsString::from);
    let inside: Vec<_> = inside.into_iter().chain([not_utf8.to_owned()]).map(std::path::PathBuf::from).collect();
    let outside = ["/a", "/a.b", "/a0", "/b", "/ab/c"].map(std::path::PathBuf::from);
    for (at, directory) in inside.iter().chain(&outside).enumerate() {
        let files = vec![file("x", record("1", "2", &format!("3.{at}"), &[]))];
        let scanned = ScannedDirectory {
            place: Place::InPlace,
            directory: directory.clone(),
            files,
            complete: true,
            vanished: Vec::new(),
            missing: Vec::new(),
            returned: Vec::new(),
        };
        writer.handle().scanned(scanned).unwrap();
    }
    writer.handle().flush().unwrap();
    let mut reader = Reader::open(&index).unwrap();
    for limit in [1, 2, 3, 100] {
        let (mut found, mut after) = (Vec::new(), std::path::PathBuf::from("/a"));
        loop {
            let page = reader.directories_below(Place::InPlace, "/a".as_ref(), &after, limit).unwrap();
            assert!(page.len() <= limit);
            let Some(last) = page.last() else { break };
            after.clone_from(last);
            found.extend(page);
        }
        assert_eq!(found, inside, "pages of {limit}");
    }
    assert_eq!(reader.directories_below(Place::InPlace, "/".as_ref(), "/".as_ref(), 100).unwrap().len(), 10);
}

/// There are more instances than the small table of look-ups holds, so ranges of it have moved into
/// the large one.
#[test]
fn every_instance_of_a_large_archive_is_found_by_its_uid() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("index.db");
    let writer = writer(&index);
    let handle = writer.handle();
    let total = 80_000;
    for series in 0..total / 1000 {
        let files = (0..1000).map(|n| {
            let uid = format!("1.2.{series}.{n}");
            file(&uid, record("1.1", &format!("1.2.{series}"), &uid, &[]))
        });
        handle.scanned(scanned(&format!("/a/{series}"), files.collect())).unwrap();
    }
    assert_eq!(handle.flush().unwrap().indexed, total);
    let mut reader = Reader::open(&index).unwrap();
    for n in (0..total).step_by(997) {
        assert_eq!(reader.locations(&format!("1.2.{}.{}", n / 1000, n % 1000)).unwrap().len(), 1, "{n}");
    }
    assert!(reader.locations("1.2.3.1000").unwrap().is_empty());
    // The same again from elsewhere: all are known.
    let again = (0..1000).map(|n| file(&format!("x{n}"), record("1.1", "1.2.7", &format!("1.2.7.{n}"), &[])));
    handle.scanned(scanned("/b", again.collect())).unwrap();
    let tally = handle.flush().unwrap();
    assert_eq!((tally.indexed, tally.copies), (0, 1000));
    drop((writer, handle));
    assert_sound(&index);
}

/// A node and other scans wait for a transaction, and its rows wait in memory.
#[test]
fn a_scan_that_is_faster_than_the_writer_fills_no_transaction_without_end() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("index.db");
    let units = (0..300).map(|series| {
        let files = (0..100).map(|n| {
            let uid = format!("1.2.{series}.{n}");
            file(&uid, record("1.2", &format!("1.2.{series}"), &uid, &[]))
        });
        scanned(&format!("/a/{series}"), files.collect())
    });
    // All are made before the first is sent, so that the writer does not keep up.
    let units = units.collect::<Vec<_>>();
    let writer = writer(&index);
    for unit in units {
        writer.handle().scanned(unit).unwrap();
    }
    assert_eq!(writer.handle().flush().unwrap().indexed, 30_000);
    drop(writer);
    #[expect(clippy::disallowed_methods, reason = "the test looks at the views as other programs do")]
    let connection = rusqlite::Connection::open(&index).unwrap();
    let largest: i64 = connection
        .query_row("SELECT max(n) FROM (SELECT count(*) AS n FROM instances GROUP BY change)", [], |row| row.get(0))
        .unwrap();
    assert!(largest <= 8_192 + 100, "{largest} rows in one transaction");
}
