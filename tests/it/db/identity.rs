//! Whose values an answer has: those of the study's own objects, and patient values that one object
//! stated together.

use dcmdex::db::{Admin, Arrivals};
use dcmdex::model::attribute::AttributeId::*;
use dcmdex::model::find::MatchingKey;
use dcmdex::model::level::QueryRetrieveLevel::{Image, Patient, Series, Study};

use super::*;

type Values<'v> = &'v [(AttributeId, &'v str)];

/// An object with its own study, series and file, or with the given ones.
struct Object<'v> {
    study: u8,
    series: u8,
    instance: u8,
    values: Values<'v>,
}

const fn object(number: u8, values: Values<'_>) -> Object<'_> {
    Object { study: number, series: number, instance: number, values }
}

/// Builds an index of objects that arrive in this order, each in its own transaction.
fn index_of(objects: &[&Object<'_>]) -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("index.db");
    let writer = writer(&index);
    for Object { study, series, instance, values } in objects {
        let record = record(&format!("1.9.{study}"), &format!("1.8.{series}"), &format!("1.2.{instance}"), values);
        writer.handle().scanned(scanned("/a", vec![file(&instance.to_string(), record)])).unwrap();
        writer.handle().flush().unwrap();
    }
    writer.close().unwrap();
    assert_sound(&index);
    (dir, index)
}

fn answers(index: &Path, level: QueryRetrieveLevel, keys: Values<'_>, returned: &[AttributeId]) -> Vec<Vec<String>> {
    let mut asked = request(level, returned);
    asked.matching_keys =
        keys.iter().map(|&(attribute, key)| MatchingKey { attribute, matching: matching(attribute, key) }).collect();
    find(index, &asked)
}

fn contradictions(index: &Path) -> Vec<(String, u64)> {
    Reader::open(index).unwrap().status().unwrap().conflicts
}

/// Returns all orders: two of two, six of three.
fn orders<T>(of: &[T]) -> Vec<Vec<&T>> {
    if of.len() < 2 {
        return vec![of.iter().collect()];
    }
    let mut found = Vec::new();
    for at in 0..of.len() {
        let rest: Vec<&T> = of.iter().enumerate().filter(|(n, _)| *n != at).map(|(_, one)| one).collect();
        let positions: Vec<usize> = (0..rest.len()).collect();
        for order in orders(&positions) {
            found.push([&of[at]].into_iter().chain(order.into_iter().map(|n| rest[*n])).collect());
        }
    }
    found
}

const ANNE: Values<'static> =
    &[(PatientID, "1"), (PatientName, "SMITH^ANNE"), (PatientSex, "F"), (PatientBirthDate, "19800101")];
const BOB: Values<'static> =
    &[(PatientID, "1"), (PatientName, "MILLER^BOB"), (PatientSex, "M"), (PatientBirthDate, "19500101")];

#[test]
fn two_people_with_one_patient_id_are_each_answered_as_their_own_objects_say() {
    for order in orders(&[object(1, ANNE), object(2, BOB)]) {
        let (_dir, index) = index_of(&order);
        let returned = [StudyInstanceUID, PatientName, PatientSex, PatientBirthDate];
        let anne = ["1.9.1", "SMITH^ANNE", "F", "19800101"];
        let bob = ["1.9.2", "MILLER^BOB", "M", "19500101"];
        for level in [Study, Series, Image] {
            assert_eq!(answers(&index, level, &[(PatientName, "SMITH*")], &returned), [anne], "{level}");
            assert_eq!(answers(&index, level, &[(PatientName, "*BOB")], &returned), [bob], "{level}");
            assert_eq!(answers(&index, level, &[(StudyInstanceUID, "1.9.1")], &returned), [anne], "{level}");
            let mut both = answers(&index, level, &[(PatientID, "1")], &returned);
            both.sort();
            assert_eq!(both, [anne, bob], "{level}");
        }
        // A patient is one Patient ID, found by what any of its studies says, and answered with
        // what was said together.
        let returned = [PatientName, PatientSex, PatientBirthDate, NumberOfPatientRelatedStudies];
        let as_anne = ["SMITH^ANNE", "F", "19800101", "2"];
        let as_bob = ["MILLER^BOB", "M", "19500101", "2"];
        assert_eq!(answers(&index, Patient, &[(PatientName, "SMITH*")], &returned), [as_anne]);
        assert_eq!(answers(&index, Patient, &[(PatientSex, "M")], &returned), [as_bob]);
        assert_eq!(answers(&index, Patient, &[(StudyInstanceUID, "1.9.1")], &returned), [as_anne]);
        assert_eq!(answers(&index, Patient, &[], &returned), [as_bob]);
        let mixed = [(PatientSex, "F"), (PatientBirthDate, "19500101")];
        assert!(answers(&index, Patient, &mixed, &returned).is_empty());
        assert_eq!(contradictions(&index), [("patient-id-of-two-people".to_owned(), 1)]);
        assert_eq!(Reader::open(&index).unwrap().status().unwrap().patients, 1);
    }
}

#[test]
fn a_patient_id_of_two_people_is_listed_with_both_studies_and_counted_once_by_the_scan() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("index.db");
    let writer = writer(&index);
    let files =
        vec![file("1", record("1.9.1", "1.8.1", "1.2.1", ANNE)), file("2", record("1.9.2", "1.8.2", "1.2.2", BOB))];
    writer.handle().scanned(scanned("/a", files)).unwrap();
    assert_eq!(writer.handle().flush().unwrap().conflicts, 1);
    // A third study of the one, and a third person, are no further contradiction of this Patient
    // ID.
    let third = [(PatientID, "1"), (PatientName, "JONES^C"), (PatientBirthDate, "19700101")];
    let files =
        vec![file("3", record("1.9.3", "1.8.3", "1.2.3", ANNE)), file("4", record("1.9.4", "1.8.4", "1.2.4", &third))];
    writer.handle().scanned(scanned("/b", files)).unwrap();
    assert_eq!(writer.handle().flush().unwrap().conflicts, 0);
    let mut listed = Vec::new();
    let mut reader = Reader::open(&index).unwrap();
    reader
        .conflicts(|conflict| {
            let path = conflict.path.display().to_string();
            listed.push([conflict.kind, conflict.other_study_instance_uid, conflict.study_instance_uid, path]);
            ControlFlow::Continue(())
        })
        .unwrap();
    // In the order of birth dates.
    assert_eq!(listed, [["patient-id-of-two-people", "1.9.2", "1.9.4", "/b/4"]]);
    // The contradiction goes with the objects that make it.
    let gone = ScannedDirectory { vanished: vec!["2".into()], ..scanned("/a", Vec::new()) };
    writer.handle().scanned(gone).unwrap();
    let gone = ScannedDirectory { vanished: vec!["4".into()], ..scanned("/b", Vec::new()) };
    writer.handle().scanned(gone).unwrap();
    writer.close().unwrap();
    assert_eq!(contradictions(&index), []);
    assert_sound(&index);
}

#[test]
fn without_patient_id_and_birth_date_a_study_has_the_sex_that_its_own_objects_say() {
    let name = (PatientName, "Anonymized");
    let none = &[(PatientID, ""), name];
    let male = &[(PatientID, ""), name, (PatientSex, "M")];
    for order in orders(&[object(1, none), object(2, male), object(3, none)]) {
        let (_dir, index) = index_of(&order);
        let mut found = answers(&index, Study, &[], &[StudyInstanceUID, PatientSex]);
        found.sort();
        assert_eq!(found, [["1.9.1", ""], ["1.9.2", "M"], ["1.9.3", ""]]);
        assert_eq!(answers(&index, Study, &[(PatientSex, "M")], &[StudyInstanceUID]), [["1.9.2"]]);
        let patients = answers(&index, Patient, &[], &[PatientName, PatientSex, NumberOfPatientRelatedStudies]);
        assert_eq!(patients, [["Anonymized", "M", "3"]]);
        assert_eq!(contradictions(&index), []);
    }
}

#[test]
fn descriptions_without_an_issuer_are_of_the_first_one_whatever_came_first() {
    let of = |issuer, name| [(PatientID, "I"), (IssuerOfPatientID, issuer), (PatientName, name)];
    let (none, w, x) = (of("", "KIM"), of("W", "KIM^W"), of("X", "KIM^X"));
    for order in orders(&[object(1, &none), object(2, &w), object(3, &x)]) {
        let (_dir, index) = index_of(&order);
        let returned = [IssuerOfPatientID, PatientName, NumberOfPatientRelatedStudies];
        assert_eq!(answers(&index, Patient, &[], &returned), [["W", "KIM^W", "2"], ["X", "KIM^X", "1"]]);
        // The one without an issuer is of W: found by its own name.
        assert_eq!(answers(&index, Patient, &[(PatientName, "KIM^X")], &returned), [["X", "KIM^X", "1"]]);
        let issuers = answers(&index, Study, &[(PatientName, "KIM*")], &[StudyInstanceUID, IssuerOfPatientID]);
        assert_eq!(issuers.len(), 3);
        assert!(issuers.contains(&vec!["1.9.1".to_owned(), String::new()]));
        assert_eq!(Reader::open(&index).unwrap().status().unwrap().patients, 2);
    }
}

#[test]
fn a_value_that_is_valid_for_its_vr_counts_before_one_that_is_not() {
    let odd = &[(StudyDate, "20200131 000"), (PatientBirthDate, "1 January 1970")];
    let right = &[(StudyDate, "20200131"), (PatientBirthDate, "19700101")];
    let objects = [
        Object { study: 1, series: 1, instance: 1, values: odd },
        Object { study: 1, series: 1, instance: 2, values: right },
    ];
    for order in orders(&objects) {
        let (_dir, index) = index_of(&order);
        let found = answers(&index, Study, &[(StudyDate, "20200101-20201231")], &[StudyDate, PatientBirthDate]);
        assert_eq!(found, [["20200131", "19700101"]]);
    }
}

const A: Values<'static> = &[(PatientID, "A"), (PatientName, "ZZZ"), (StudyDate, "2020")];
const B: Values<'static> = &[(PatientID, "B"), (PatientName, "SMITH^B"), (StudyDate, "2020")];
const C: Values<'static> = &[(PatientID, "C"), (PatientName, "SMITH^C"), (StudyDate, "2020")];

#[test]
fn a_study_is_answered_under_the_first_of_its_patients_that_matches_whatever_came_first() {
    let objects = [A, B, C].map(|values| (values, values[0].1.as_bytes()[0]));
    let objects = objects.map(|(values, number)| Object { study: 1, series: 1, instance: number, values });
    for order in orders(&objects) {
        let (_dir, index) = index_of(&order);
        let returned = [StudyInstanceUID, PatientID, PatientName];
        let found = answers(&index, Study, &[(PatientName, "SMITH*")], &returned);
        assert_eq!(found, [["1.9.1", "B", "SMITH^B"]]);
        assert_eq!(answers(&index, Study, &[], &returned), [["1.9.1", "A", "ZZZ"]]);
        let series = answers(&index, Series, &[(PatientName, "SMITH*")], &[SeriesInstanceUID, PatientID]);
        assert_eq!(series, [["1.8.1", "B"]]);
        // Each instance is answered once, under the patient that it names.
        let mut instances = answers(&index, Image, &[], &[SOPInstanceUID, PatientID, PatientName]);
        instances.sort();
        let expected = [["1.2.65", "A", "ZZZ"], ["1.2.66", "B", "SMITH^B"], ["1.2.67", "C", "SMITH^C"]];
        assert_eq!(instances, expected);
    }
}

#[test]
fn under_each_patient_are_the_series_and_instances_whose_objects_name_that_patient() {
    let objects = [
        Object { study: 1, series: 1, instance: 1, values: A },
        Object { study: 1, series: 2, instance: 2, values: B },
        Object { study: 1, series: 3, instance: 3, values: A },
        Object { study: 1, series: 3, instance: 4, values: B },
    ];
    for order in [objects.iter().collect::<Vec<_>>(), objects.iter().rev().collect()] {
        let (_dir, index) = index_of(&order);
        let under = |patient: &str, level, returned: AttributeId| {
            let keys = [(PatientID, patient), (StudyInstanceUID, "1.9.1")];
            let mut found = answers(&index, level, &keys, &[returned, PatientName]);
            found.sort();
            found.into_iter().map(|values| values.join(" ")).collect::<Vec<_>>()
        };
        assert_eq!(under("A", Series, SeriesInstanceUID), ["1.8.1 ZZZ", "1.8.3 ZZZ"]);
        assert_eq!(under("B", Series, SeriesInstanceUID), ["1.8.2 SMITH^B", "1.8.3 SMITH^B"]);
        assert_eq!(under("A", Image, SOPInstanceUID), ["1.2.1 ZZZ", "1.2.3 ZZZ"]);
        assert_eq!(under("B", Image, SOPInstanceUID), ["1.2.2 SMITH^B", "1.2.4 SMITH^B"]);
        // Nor is one found by what names the other.
        for (key, uid, patients) in [
            (SeriesInstanceUID, "1.8.1", &["A"][..]),
            (SeriesInstanceUID, "1.8.2", &["B"]),
            (SeriesInstanceUID, "1.8.3", &["A", "B"]),
            (SOPInstanceUID, "1.2.3", &["A"]),
            (SOPInstanceUID, "1.2.4", &["B"]),
            (StudyInstanceUID, "1.9.1", &["A", "B"]),
        ] {
            let found = answers(&index, Patient, &[(key, uid)], &[PatientID]);
            assert_eq!(found.concat(), patients, "{uid}");
        }
        // Without a patient, each once.
        assert_eq!(answers(&index, Series, &[], &[SeriesInstanceUID, PatientID]).len(), 3);
        assert_eq!(answers(&index, Image, &[], &[SOPInstanceUID]).len(), 4);
    }
}

#[test]
fn the_newest_study_comes_first_also_under_a_further_patient_and_pages_go_on_where_they_ended() {
    let dated = |date| [(PatientID, "B"), (StudyDate, date)];
    let [newer, older, oldest, last] = ["20200101", "20190101", "20180101", "20170101"].map(dated);
    let objects = [
        Object { study: 1, series: 1, instance: 1, values: &[(PatientID, "A"), (StudyDate, "20200101")] },
        Object { study: 1, series: 1, instance: 2, values: &newer },
        object(3, &older),
        Object { study: 4, series: 4, instance: 4, values: &[(PatientID, "A"), (StudyDate, "20180101")] },
        Object { study: 4, series: 4, instance: 5, values: &oldest },
        object(6, &last),
    ];
    let (_dir, index) = index_of(&objects.iter().collect::<Vec<_>>());
    let mut asked = request(Study, &[StudyInstanceUID]);
    asked.matching_keys.push(MatchingKey { attribute: PatientID, matching: matching(PatientID, "B") });
    let all = [["1.9.1"], ["1.9.3"], ["1.9.4"], ["1.9.6"]];
    assert_eq!(find(&index, &asked), all);
    for (offset, answer) in (0..).zip(all) {
        let page = FindRequest { offset, limit: Some(1), ..asked.clone() };
        assert_eq!(find(&index, &page), [answer]);
    }
}

#[test]
fn a_patient_has_as_many_studies_in_the_view_as_in_an_answer() {
    let objects = [
        Object { study: 1, series: 1, instance: 1, values: A },
        Object { study: 1, series: 2, instance: 2, values: B },
        object(3, &[(PatientID, "B"), (PatientName, "SMITH^BERTA")]),
        object(4, C),
        object(5, ANNE),
        object(6, BOB),
    ];
    let (_dir, index) = index_of(&objects.iter().collect::<Vec<_>>());
    let returned = [
        PatientID,
        PatientName,
        NumberOfPatientRelatedStudies,
        NumberOfPatientRelatedSeries,
        NumberOfPatientRelatedInstances,
    ];
    let answered = answers(&index, Patient, &[], &returned);
    assert_eq!(answered[2][..3], ["B", "SMITH^B", "2"]);
    let columns: Vec<_> = returned.iter().map(|id| id.attribute().column).collect();
    #[expect(clippy::disallowed_methods, reason = "the test looks at the views themselves")]
    let connection = rusqlite::Connection::open(&index).unwrap();
    let sql = format!("SELECT {} FROM patients ORDER BY patient_id", columns.join(", "));
    let mut statement = connection.prepare(&sql).unwrap();
    let rows = statement.query_map([], |row| {
        (0..columns.len())
            .map(|at| {
                Ok(match row.get_ref(at)? {
                    rusqlite::types::ValueRef::Integer(number) => number.to_string(),
                    text => text.as_str()?.to_owned(),
                })
            })
            .collect::<rusqlite::Result<Vec<String>>>()
    });
    let rows: Vec<_> = rows.unwrap().collect::<rusqlite::Result<_>>().unwrap();
    assert_eq!(rows, answered);
    // The rows of the two views go together.
    let joined =
        "SELECT count(*) FROM studies s JOIN patients p ON p.patient = s.patient WHERE p.patient_id = s.patient_id";
    assert_eq!(connection.query_row(joined, [], |row| row.get::<_, i64>(0)).unwrap(), 5);
}

#[test]
fn a_study_answers_each_value_of_its_series_once() {
    let objects = [
        Object { study: 1, series: 1, instance: 1, values: &[(OperatorsName, "A\\B"), (Modality, "CT\\PT")] },
        Object { study: 1, series: 2, instance: 2, values: &[(OperatorsName, "B"), (Modality, "PT")] },
        Object { study: 1, series: 3, instance: 3, values: &[(InstitutionAddress, "x\\x"), (Modality, "")] },
    ];
    let (_dir, index) = index_of(&objects.iter().collect::<Vec<_>>());
    let found = answers(&index, Study, &[], &[OperatorsName, ModalitiesInStudy, InstitutionAddress]);
    // An address is one value, whatever is in it.
    assert_eq!(found, [["A\\B", "CT\\PT", "x\\x"]]);
}
