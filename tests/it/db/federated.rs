//! A folder of index files answers as one undivided index does.

use std::collections::BTreeSet;
use std::path::PathBuf;

use dcmdex::db::{Error, FailureEntry, ScanLedger};
use dcmdex::model::attribute::AttributeId::*;
use dcmdex::model::find::MatchingKey;
use dcmdex::model::level::QueryRetrieveLevel::{Image, Patient, Series, Study};
use proptest::prelude::*;

use super::model_based::cases;
use super::*;

/// The same objects in one index, and in a folder with several.
struct Divided {
    directory: tempfile::TempDir,
    writers: Vec<Writer>,
}

impl Divided {
    fn new(files: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let folder = directory.path().join("folder");
        std::fs::create_dir(&folder).unwrap();
        let mut paths = vec![directory.path().join("whole.db"), folder.join("main.db")];
        paths.extend((1..files).map(|file| folder.join(format!("part-{file}.db"))));
        let writers = paths.iter().map(|path| writer(path)).collect();
        Self { directory, writers }
    }

    fn whole(&self) -> PathBuf {
        self.directory.path().join("whole.db")
    }

    fn folder(&self) -> PathBuf {
        self.directory.path().join("folder")
    }

    /// Adds an object to the undivided index, and to one of the files.
    fn add(&self, to: usize, study: &str, series: &str, uid: &str, more: &[(AttributeId, &str)]) {
        for writer in [&self.writers[0], &self.writers[1 + to]] {
            let file = file(uid, record(study, series, uid, more));
            writer.handle().scanned(scanned(&format!("/archive/{study}"), vec![file])).unwrap();
            writer.handle().flush().unwrap();
        }
    }

    fn assert_same(&self, request: &FindRequest, what: &str) -> Vec<Vec<String>> {
        let (whole, divided) = (find(&self.whole(), request), find(&self.folder(), request));
        assert_eq!(divided, whole, "{what}");
        whole
    }
}

/// Studies of seven patients in four files. No two of them have the same date.
fn archive() -> Divided {
    let divided = Divided::new(4);
    for study in 0..24 {
        let (uid, patient) = (format!("1.2.{study}"), format!("P{}", study % 7));
        let date = format!("2024{:02}{:02}", 1 + study * 5 % 12, 1 + study);
        // One patient has another name in some studies, and one a description that says more.
        let name = if study % 4 == 1 { "Smythe^Jo".to_owned() } else { format!("Test^Person{}", study % 7) };
        let comments = if study % 5 == 2 { "seen before" } else { "" };
        for series in 0..1 + study % 3 {
            let series_uid = format!("{uid}.{series}");
            let modality = ["CT", "MR", "PT"][(study + series) % 3];
            for instance in 0..2 {
                let number = (2 - instance).to_string();
                let more = [
                    (PatientID, &*patient),
                    (PatientName, &*name),
                    (PatientComments, comments),
                    (StudyDate, &*date),
                    (Modality, modality),
                    (SeriesNumber, &*(9 - series).to_string()),
                    (InstanceNumber, &*number),
                ];
                divided.add(study * 7 % 4, &uid, &series_uid, &format!("{series_uid}.{instance}"), &more);
            }
        }
    }
    divided
}

/// Attributes that an answer of each level has, those of the levels above included.
fn returned(level: QueryRetrieveLevel) -> Vec<AttributeId> {
    let of_levels: [&[AttributeId]; 4] = [
        &[
            PatientName,
            PatientID,
            PatientComments,
            NumberOfPatientRelatedStudies,
            NumberOfPatientRelatedSeries,
            NumberOfPatientRelatedInstances,
            InstanceAvailability,
        ],
        &[StudyInstanceUID, StudyDate, NumberOfStudyRelatedSeries, NumberOfStudyRelatedInstances, ModalitiesInStudy],
        &[SeriesInstanceUID, SeriesNumber, Modality, NumberOfSeriesRelatedInstances],
        &[SOPInstanceUID, InstanceNumber],
    ];
    of_levels[..=level as usize].concat()
}

fn with_key(level: QueryRetrieveLevel, attribute: AttributeId, key: &str) -> FindRequest {
    let matching_keys = vec![MatchingKey { attribute, matching: matching(attribute, key) }];
    FindRequest { matching_keys, ..request(level, &returned(level)) }
}

#[test]
fn every_level_is_answered_in_the_order_of_an_undivided_index() {
    let divided = archive();
    for level in [Patient, Study, Series, Image] {
        assert!(divided.assert_same(&request(level, &returned(level)), &level.to_string()).len() >= 7);
        for (attribute, key) in [
            (PatientID, "P3"),
            (PatientID, "P*"),
            (PatientName, "smythe*"),
            (PatientName, "*PERSON2"),
            (PatientComments, "seen before"),
            (StudyDate, "20240601-"),
            (StudyInstanceUID, "1.2.5\\1.2.6\\9"),
            (ModalitiesInStudy, "MR"),
            (Modality, "PT"),
            (SOPInstanceUID, "1.2.8.1.0"),
            (NumberOfStudyRelatedInstances, "4"),
            (NumberOfPatientRelatedStudies, "4"),
            (InstanceAvailability, "ONLINE"),
        ] {
            divided.assert_same(&with_key(level, attribute, key), &format!("{level} {attribute} {key}"));
        }
    }
}

#[test]
fn pages_are_cut_after_the_merge() {
    let divided = archive();
    for level in [Patient, Study, Series] {
        for (offset, limit) in [(0, 1), (1, 3), (3, 5), (20, 9), (99, 5), (0, 0)] {
            let page = FindRequest { offset, limit: Some(limit), ..request(level, &returned(level)) };
            divided.assert_same(&page, &format!("{level} {offset} {limit}"));
        }
    }
}

#[test]
fn a_study_with_parts_in_two_files_is_answered_once() {
    let divided = archive();
    let more = |series: &'static str, number: &'static str| {
        vec![
            (PatientID, "P3"),
            (PatientName, "Test^Person3"),
            (StudyDate, "20240404"),
            (SeriesNumber, series),
            (InstanceNumber, number),
        ]
    };
    // Study 3 is in the second file. A reader that is open sees what comes later.
    let mut reader = Reader::open(&divided.folder()).unwrap();
    let mut count = || reader.find(&request(Study, &[StudyInstanceUID]), |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(count(), 24);
    divided.add(3, "1.2.3", "1.2.3.7", "1.2.3.7.0", &more("3", "1"));
    divided.add(3, "1.2.3", "1.2.3.0", "1.2.3.0.5", &[&more("9", "5")[..], &[(StudyDescription, "Head")]].concat());
    assert_eq!(count(), 24);
    for level in [Patient, Study, Series, Image] {
        divided.assert_same(&request(level, &returned(level)), &level.to_string());
        for (attribute, key) in [(PatientID, "P3"), (StudyInstanceUID, "1.2.3"), (SeriesNumber, "3")] {
            divided.assert_same(&with_key(level, attribute, key), &format!("{level} {attribute} {key}"));
        }
    }
    let described = divided.assert_same(&request(Image, &[SOPInstanceUID, StudyDescription]), "study values");
    assert_eq!(described.iter().filter(|values| values[1] == "Head").count(), 4, "of each instance of the study");
    let [whole, divided] =
        [divided.whole(), divided.folder()].map(|path| Reader::open(&path).unwrap().status().unwrap());
    assert_eq!((divided.studies, divided.series, divided.instances), (whole.studies, whole.series, whole.instances));
}

/// One file has less of the patient of a study than another one.
#[test]
fn the_patient_of_a_study_in_two_files_is_that_of_all_its_objects() {
    let divided = Divided::new(2);
    let says: [[&[(AttributeId, &str)]; 2]; 3] = [
        [&[(PatientName, "SMITH")], &[(PatientName, "SMITH^JOHN"), (PatientSex, "M")]],
        [&[(PatientName, "LEE^ANN"), (PatientBirthDate, "19700101")], &[(PatientName, "LEE")]],
        [&[], &[(PatientName, "AB^C"), (PatientComments, "seen before")]],
    ];
    for (study, of_files) in says.iter().enumerate() {
        for (file, more) in of_files.iter().enumerate() {
            let (study_uid, patient) = (format!("1.2.{study}"), format!("P{study}"));
            let series = format!("{study_uid}.{file}");
            let date = format!("2024010{}", 1 + study);
            let more = [&[(PatientID, &*patient), (StudyDate, &*date)], *more].concat();
            divided.add(file, &study_uid, &series, &format!("{series}.1"), &more);
        }
    }
    let more = [PatientSex, PatientBirthDate];
    for level in [Patient, Study, Series, Image] {
        divided.assert_same(&request(level, &[&returned(level)[..], &more].concat()), &level.to_string());
    }
}

/// What an object says of its patient: Patient ID, issuer, name, birth date, sex and comments.
type SaidOfPatient = [&'static str; 6];

fn said_of_patient() -> impl Strategy<Value = SaidOfPatient> {
    let ids = prop::sample::select(vec![("A", ""), ("A", "X"), ("B", ""), ("", "")]);
    let names = prop::sample::select(vec!["", "SMITH", "SMITH^ANNE", "Miller^Bob"]);
    let dates = prop::sample::select(vec!["", "19800101", "1 Jan 1950"]);
    let more = (prop::sample::select(vec!["", "F", "M"]), prop::sample::select(vec!["", "seen before"]));
    (ids, names, dates, more)
        .prop_map(|((id, issuer), name, birth_date, (sex, comments))| [id, issuer, name, birth_date, sex, comments])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(12), max_shrink_iters: 300, ..ProptestConfig::default() })]

    /// Objects of few studies come to any of three files, and say what they like of their patient.
    #[test]
    fn patients_of_studies_in_several_files_are_those_of_an_undivided_index(
        objects in prop::collection::vec((0..3_usize, 0..3_u8, 0..2_u8, said_of_patient()), 2..10)
    ) {
        let divided = Divided::new(3);
        for (at, (to, study, series, said)) in objects.iter().enumerate() {
            let of_patient = [PatientID, IssuerOfPatientID, PatientName, PatientBirthDate, PatientSex, PatientComments];
            let date = format!("2024010{}", 1 + study);
            // Instances of one number have no order among themselves.
            let number = at.to_string();
            let more =
                [(StudyDate, &*date), (SeriesNumber, ["1", "2"][usize::from(*series)]), (InstanceNumber, &*number)];
            let more: Vec<_> = of_patient.into_iter().zip(said.iter().copied()).chain(more).collect();
            let (study, series) = (format!("1.2.{study}"), format!("1.2.{study}.{series}"));
            divided.add(*to, &study, &series, &format!("{series}.{at}"), &more);
        }
        let patient = [IssuerOfPatientID, PatientBirthDate, PatientSex];
        for level in [Patient, Study, Series, Image] {
            let asked = request(level, &[&returned(level)[..], &patient].concat());
            let (whole, folder) = (find(&divided.whole(), &asked), find(&divided.folder(), &asked));
            prop_assert_eq!(folder, whole, "{}", level);
            for (attribute, key) in [(PatientID, "A"), (StudyInstanceUID, "1.2.1"), (SeriesNumber, "2")] {
                if (level, attribute) == (Patient, SeriesNumber) {
                    // A key below the study matches it if it matches the part in one file.
                    continue;
                }
                let matching_keys = vec![MatchingKey { attribute, matching: matching(attribute, key) }];
                let asked = FindRequest { matching_keys, ..asked.clone() };
                let (whole, folder) = (find(&divided.whole(), &asked), find(&divided.folder(), &asked));
                prop_assert_eq!(folder, whole, "{} {}", level, key);
            }
        }
    }
}

#[test]
fn a_query_of_several_files_ends_when_it_is_told_to() {
    let divided = archive();
    let mut reader = Reader::open(&divided.folder()).unwrap();
    let asked = request(Image, &[SOPInstanceUID]);
    assert_ends_when_told(&mut reader, &asked, find(&divided.whole(), &asked).len() as u64);
}

#[test]
fn the_numbers_and_lists_of_several_files_are_those_of_an_undivided_index() {
    let divided = archive();
    for (at, name) in [(1, "/z/b"), (2, "/z/a"), (3, "/z/c")] {
        for writer in [&divided.writers[0], &divided.writers[1 + at]] {
            let outcome =
                FileOutcome::NotIndexed { kind: NotIndexed::Failed, reason: "not-dicom", detail: "no".into() };
            let failed = ScannedFile { outcome, ..file("odd", record("9", "9", "9", &[])) };
            writer.handle().scanned(scanned(name, vec![failed])).unwrap();
            writer.handle().flush().unwrap();
        }
    }
    let status = |path: &Path| {
        let status = Reader::open(path).unwrap().status().unwrap();
        dcmdex::db::IndexStatus { last_change: 0, size_bytes: 0, ..status }
    };
    assert_eq!(status(&divided.folder()), status(&divided.whole()));
    let mut reader = Reader::open(&divided.folder()).unwrap();
    let mut failures = Vec::new();
    let listed = reader.failures(|failure: FailureEntry| {
        failures.push(failure.path);
        ControlFlow::Continue(())
    });
    listed.unwrap();
    assert_eq!(failures, ["/z/a/odd", "/z/b/odd", "/z/c/odd"].map(PathBuf::from));
    assert_sound(&divided.folder());
    let mut whole = Reader::open(&divided.whole()).unwrap();
    assert_eq!(reader.held_transfer_syntaxes().unwrap(), whole.held_transfer_syntaxes().unwrap());
    let mut pages = |place| reader.directories_below(place, Path::new("/"), Path::new("/"), 9).unwrap();
    assert_eq!(
        pages(Place::InPlace),
        whole.directories_below(Place::InPlace, Path::new("/"), Path::new("/"), 9).unwrap()
    );
    let uids: BTreeSet<String> =
        find(&divided.whole(), &request(Image, &[SOPInstanceUID])).concat().into_iter().collect();
    for uid in uids {
        assert_eq!(reader.locations(&uid).unwrap(), whole.locations(&uid).unwrap());
    }
}

#[test]
fn what_needs_one_file_names_it() {
    let divided = archive();
    let error = Reader::open(&divided.folder()).unwrap().removals().unwrap_err();
    let main = divided.folder().join("main.db");
    assert!(error.to_string().ends_with(&format!("--index {}", main.display())), "{error}");
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(Reader::open(empty.path()), Err(Error::IsADirectory { .. })));
}

#[test]
fn new_studies_go_to_the_file_that_is_named_for_them() {
    let directory = tempfile::tempdir().unwrap();
    let files = ["main.db", "2024.db", "st-mary-s.db"].map(|name| directory.path().join(name));
    files.iter().for_each(|file| drop(writer(file)));
    let writer = writer(directory.path());
    let of = |number: u32, more: &[(AttributeId, &str)]| {
        let uid = format!("1.3.{number}");
        store(&writer, record(&uid, &uid, &format!("{uid}.1"), more), location(Place::Managed, "/objects", &uid))
    };
    let date = (StudyDate, "20240101");
    for (number, more) in [
        (0, &[][..]),
        (1, &[date]),
        (2, &[date, (InstitutionName, "St. Mary's")]),
        (3, &[(StudyDate, "20230101"), (InstitutionName, "General Hospital")]),
    ] {
        assert_eq!(of(number, more), StoreOutcome::New);
        assert!(matches!(of(number, more), StoreOutcome::Identical { .. }));
    }
    // Its study is known in another file than that of its year.
    store(&writer, record("1.3.0", "1.3.0", "1.3.0.2", &[date]), location(Place::Managed, "/objects", "2"));
    let studies = |file: &PathBuf| find(file, &request(Study, &[StudyInstanceUID])).concat();
    assert_eq!(files.each_ref().map(studies), [vec!["1.3.0", "1.3.3"], vec!["1.3.1"], vec!["1.3.2"]]);
    let mut reader = Reader::open(directory.path()).unwrap();
    assert_eq!(reader.find(&request(Study, &[]), |_| ControlFlow::Continue(())).unwrap(), 4);
    writer.close().unwrap();
    assert_sound(directory.path());
}

#[test]
fn a_study_of_two_patients_in_two_files_counts_as_in_an_undivided_index() {
    let divided = Divided::new(2);
    for (to, study, series, patient) in
        [(0, "1.2.1", "1.2.1.1", "A"), (1, "1.2.1", "1.2.1.2", "B"), (1, "1.2.2", "1.2.2.1", "B")]
    {
        let values = [(PatientID, patient), (PatientName, patient)];
        divided.add(to, study, series, &format!("{series}.1"), &values);
    }
    for level in [Patient, Study, Series, Image] {
        for patient in ["A", "B"] {
            divided.assert_same(&with_key(level, PatientID, patient), &format!("{level} {patient}"));
        }
    }
}

#[test]
fn an_instance_that_comes_again_in_another_study_stays_in_its_first() {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("folder");
    std::fs::create_dir(&folder).unwrap();
    for name in ["main.db", "2024.db"] {
        drop(writer(&folder.join(name)));
    }
    let (one, several) = (writer(&directory.path().join("one.db")), writer(&folder));
    let outcomes = [&one, &several].map(|writer| {
        let first = record("1.3.1", "1.3.1.1", "1.3.9", &[(StudyDate, "20240101")]);
        assert_eq!(store(writer, first, location(Place::Managed, "/objects", "1")), StoreOutcome::New);
        let second = record("1.3.2", "1.3.2.1", "1.3.9", &[(StudyDate, "19990101"), (StudyDescription, "again")]);
        let outcome = store(writer, second, location(Place::Managed, "/objects", "2"));
        // The rest of that study is a study of its own.
        let third = record("1.3.2", "1.3.2.1", "1.3.10", &[(StudyDate, "19990101")]);
        assert_eq!(store(writer, third, location(Place::Managed, "/objects", "3")), StoreOutcome::New);
        outcome
    });
    assert_eq!(outcomes[1], outcomes[0]);
    assert_ne!(outcomes[0], StoreOutcome::New);
    one.close().unwrap();
    several.close().unwrap();
    let asked = request(Image, &[SOPInstanceUID, StudyInstanceUID]);
    assert_eq!(find(&folder, &asked), find(&directory.path().join("one.db"), &asked));
    let conflicts = |path: &Path| Reader::open(path).unwrap().status().unwrap().conflicts;
    assert_eq!(conflicts(&folder), conflicts(&directory.path().join("one.db")));
    assert_eq!(conflicts(&folder).len(), 1);
    assert_sound(&folder);
}

#[test]
fn a_study_of_two_files_is_reported_once() {
    let divided = Divided::new(2);
    let named = [(PatientID, "P"), (PatientName, "N"), (StudyDate, "20240101"), (Modality, "CT")];
    divided.add(0, "1.2.1", "1.2.1.1", "1.2.1.1.1", &named);
    divided.add(1, "1.2.1", "1.2.1.2", "1.2.1.2.1", &[&named[..3], &[(AccessionNumber, "A1")]].concat());
    divided.add(1, "1.2.2", "1.2.2.1", "1.2.2.1.1", &named[..2]);
    let reports = |path: &Path| {
        let mut studies = Vec::new();
        let mut reader = Reader::open(path).unwrap();
        let all = reader.studies_with_problems(|study| {
            studies.push(study);
            ControlFlow::Continue(())
        });
        all.unwrap();
        studies.sort_by(|one, other| one.study_instance_uid.cmp(&other.study_instance_uid));
        studies
    };
    let (whole, folder) = (reports(&divided.whole()), reports(&divided.folder()));
    assert_eq!(folder, whole);
    assert_eq!((whole[0].series, whole[0].accession_number.as_str()), (2, "A1"));
}

#[test]
fn what_one_file_misses_is_available_where_another_has_it() {
    let divided = Divided::new(2);
    let both = |to: usize| [&divided.writers[0], &divided.writers[1 + to]];
    let add = |to: usize, directory: &str, uid: &str| {
        for writer in both(to) {
            let number = uid.rsplit('.').next().unwrap();
            let values = [(PatientID, "P"), (PatientName, "N"), (SeriesNumber, "1"), (InstanceNumber, number)];
            let found = vec![file(uid, record("1.2.1", "1.2.1.1", uid, &values))];
            writer.handle().scanned(scanned(directory, found)).unwrap();
            writer.handle().flush().unwrap();
        }
    };
    let miss = |to: usize, directory: &str, uid: &str| {
        for writer in both(to) {
            let mut gone = scanned(directory, Vec::new());
            gone.missing.push(uid.into());
            writer.handle().scanned(gone).unwrap();
            writer.handle().flush().unwrap();
        }
    };
    add(0, "/a", "1.2.1.1.1");
    add(0, "/a", "1.2.1.1.2");
    add(1, "/b", "1.2.1.1.1");
    let same = |expected: &str| {
        for (level, uid) in [(Image, SOPInstanceUID), (Series, SeriesInstanceUID), (Study, StudyInstanceUID)] {
            let found = divided.assert_same(&request(level, &[uid, InstanceAvailability]), &level.to_string());
            assert_eq!(found[0][1], expected, "{level}");
        }
        divided.assert_same(&request(Patient, &[PatientID, InstanceAvailability]), "patient");
    };
    same("ONLINE");
    miss(0, "/a", "1.2.1.1.1");
    same("ONLINE");
    miss(1, "/b", "1.2.1.1.1");
    same("UNAVAILABLE");
}
