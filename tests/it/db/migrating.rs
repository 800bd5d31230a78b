//! An index of an earlier version has the same content after its migration as a new one.
//!
//! `fixtures/schema/v1_objects.sql` is an index that the program of schema version 1 made of
//! [`OBJECTS`], in this order.

use dcmdex::db::Arrivals;
use dcmdex::model::attribute::AttributeId::*;

use super::*;

type Values = &'static [(AttributeId, &'static str)];

/// Study, series, instance and directory of each object, and its other values.
pub(super) const OBJECTS: &[(u8, u8, u8, u8, Values)] = &[
    // Two persons under one Patient ID, in studies of their own.
    (1, 1, 1, 0, &[(PatientID, "1"), (PatientName, "SMITH^ANNE"), (PatientSex, "F"), (PatientBirthDate, "19800101")]),
    (2, 2, 2, 0, &[(PatientID, "1"), (PatientName, "MILLER^BOB"), (PatientSex, "M"), (PatientBirthDate, "19500101")]),
    // Without Patient ID and birth date, one of them with a sex.
    (3, 3, 3, 0, &[(PatientID, ""), (PatientName, "Anonymized")]),
    (4, 4, 4, 0, &[(PatientID, ""), (PatientName, "Anonymized"), (PatientSex, "M")]),
    (5, 5, 5, 1, &[(PatientID, ""), (PatientName, "Anonymized")]),
    // One patient whose studies say more and less; the objects of the second study complete each
    // other.
    (6, 6, 6, 0, &[(PatientID, "P"), (PatientName, "JONES"), (PatientComments, "left-handed, and more")]),
    (7, 7, 7, 0, &[(PatientID, "P"), (PatientName, "JONES^MARY"), (PatientComments, "left-handed")]),
    (7, 8, 8, 0, &[(PatientID, "P"), (PatientName, "JONES"), (PatientBirthDate, "19700101")]),
    (7, 8, 9, 1, &[(PatientID, "P"), (PatientName, "JONES"), (PatientSex, "F")]),
    // A study under three patients.
    (8, 9, 10, 0, &[(PatientID, "B"), (PatientName, "SMITH^B"), (PatientSex, "M")]),
    (8, 9, 11, 0, &[(PatientID, "A"), (PatientName, "ZZZ")]),
    (8, 10, 12, 1, &[(PatientID, "C"), (PatientName, "SMITH^C")]),
    (9, 11, 13, 1, &[(PatientID, "B"), (PatientName, "SMITH^BERTA"), (PatientSex, "F")]),
    // Issuers: named otherwise, and not at all.
    (10, 12, 14, 0, &[(PatientID, "I"), (PatientName, "KIM")]),
    (11, 13, 15, 0, &[(PatientID, "I"), (IssuerOfPatientID, "X"), (PatientName, "KIM^X")]),
    (12, 14, 16, 0, &[(PatientID, "I"), (IssuerOfPatientID, "W"), (PatientName, "KIM^W")]),
    (12, 14, 17, 1, &[(PatientID, "I"), (IssuerOfPatientID, "X"), (PatientName, "KIM^X")]),
    (12, 15, 18, 1, &[(PatientID, "I"), (PatientName, "KIM^NOBODY")]),
    (13, 16, 19, 1, &[(PatientID, "I"), (IssuerOfPatientID, "X"), (PatientName, "KIM^X"), (PatientSex, "O")]),
    // The longer value is none of its VR.
    (14, 17, 20, 0, &[(StudyDate, "20200131 000"), (StudyTime, "10"), (SeriesDate, "2020013100")]),
    (14, 17, 21, 0, &[(StudyDate, "20200131"), (StudyTime, "103000"), (SeriesDate, "20200131")]),
    (14, 18, 22, 1, &[(PatientBirthDate, "1 Jan 1970"), (StudyDescription, "x")]),
    (14, 18, 23, 1, &[(PatientBirthDate, "19700101"), (StudyDescription, "xy")]),
    // Nothing odd.
    (15, 19, 24, 2, &[(PatientID, "Q"), (PatientName, "Müller^Éva"), (PatientBirthDate, "19400404")]),
    (15, 19, 25, 2, &[(PatientID, "Q"), (PatientName, "Müller^Éva"), (PatientBirthDate, "19400404")]),
    (16, 20, 26, 2, &[(PatientID, "Q"), (PatientName, "Müller^Éva"), (PatientBirthDate, "19400404")]),
    (16, 20, 27, 2, &[(PatientID, "Q"), (PatientName, "Müller^Éva"), (PatientBirthDate, "19400404")]),
];

/// Fills an index with [`OBJECTS`].
pub(super) fn fill(index: &Path) {
    let writer = writer(index);
    for (study, series, instance, directory, values) in OBJECTS {
        let uids = [format!("1.9.{study}"), format!("1.8.{series}"), format!("1.2.3.{instance}")];
        let object = file(&format!("{instance}.dcm"), record(&uids[0], &uids[1], &uids[2], values));
        writer.handle().scanned(scanned(&format!("/d{directory}"), vec![object])).unwrap();
    }
    writer.close().unwrap();
}

#[test]
fn an_index_of_version_1_says_after_its_migration_what_a_new_one_says() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (dir.path().join("old.db"), dir.path().join("new.db"));
    {
        #[expect(clippy::disallowed_methods, reason = "the test makes the index of another version")]
        let connection = rusqlite::Connection::open(&old).unwrap();
        connection.execute_batch(include_str!("../../../fixtures/schema/v1_objects.sql")).unwrap();
    }
    writer(&old).close().unwrap();
    fill(&new);
    let (migrated, expected) = (super::model_based::dump(&old), super::model_based::dump(&new));
    for (title, rows) in &migrated {
        assert_eq!(rows, &expected[title], "{title}");
    }
    assert_sound(&old);
}
