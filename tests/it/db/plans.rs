//! The SQLite query plan of each kind of query. Losing an index fails a test instead of slowing
//! down an archive.
//!
//! See [`assert_snapshot`] for how to rewrite plans.snap.

use dcmdex::model::attribute::AttributeId::*;
use dcmdex::model::find::MatchingKey;
use dcmdex::model::level::QueryRetrieveLevel::{Image, Patient, Series, Study};

use super::*;
use crate::util::snapshot::assert_snapshot;

type Case = (&'static str, QueryRetrieveLevel, &'static [(AttributeId, &'static str)]);

const CASES: &[Case] = &[
    ("study by UID", Study, &[(StudyInstanceUID, "1.2.3")]),
    ("studies by list of UID", Study, &[(StudyInstanceUID, "1.2.3\\1.2.4")]),
    ("studies of a patient", Study, &[(PatientID, "PAT1")]),
    ("study by accession number", Study, &[(AccessionNumber, "A1")]),
    ("studies of a day", Study, &[(StudyDate, "20200101")]),
    ("studies of a time, with modality", Study, &[(StudyDate, "20200101-20200131"), (ModalitiesInStudy, "CT")]),
    ("studies by the beginning of a name", Study, &[(PatientName, "SMI*")]),
    ("studies by any part of a name", Study, &[(PatientName, "*MITH*")]),
    ("studies by a name, of a patient", Study, &[(PatientName, "SMI*"), (PatientID, "PAT1")]),
    ("studies by a name, of a day", Study, &[(PatientName, "*MITH*"), (StudyDate, "20200101")]),
    ("studies by the beginning of an ID", Study, &[(PatientID, "PAT*")]),
    ("studies by sex", Study, &[(PatientSex, "F")]),
    ("all studies", Study, &[]),
    ("studies by modality of a series", Study, &[(Modality, "CT")]),
    ("study by UID of a series", Study, &[(SeriesInstanceUID, "1.2.3")]),
    ("study by UID of an instance", Study, &[(SOPInstanceUID, "1.2.3")]),
    ("patient by ID", Patient, &[(PatientID, "PAT1")]),
    ("patients by the beginning of a name", Patient, &[(PatientName, "SMI*")]),
    ("all patients", Patient, &[]),
    ("patient by UID of a study", Patient, &[(StudyInstanceUID, "1.2.3")]),
    ("series of a study", Series, &[(StudyInstanceUID, "1.2.3")]),
    ("series by UID", Series, &[(SeriesInstanceUID, "1.2.3")]),
    ("all series", Series, &[]),
    ("instances of a series", Image, &[(StudyInstanceUID, "1.2.3"), (SeriesInstanceUID, "1.2.3")]),
    ("instance by UID", Image, &[(SOPInstanceUID, "1.2.3")]),
    ("instances by list of UID", Image, &[(SOPInstanceUID, "1.2.3\\1.2.4")]),
    ("all instances", Image, &[]),
];

/// Queries that run again if a study belongs to two patients.
const ASKED_AGAIN: &[&str] = &[
    "studies of a patient",
    "studies by the beginning of a name",
    "studies by sex",
    "patient by ID",
    "series of a study",
    "instances of a series",
    "instance by UID",
];

#[test]
fn every_query_has_the_plan_that_it_had() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("index.db");
    let writer = writer(&index);
    store(&writer, record("1.2.3", "1.2.3", "1.2.3", &[]), location(Place::Managed, "/objects", "1.2.3"));
    let mut plans = plans_of(&index, &|_| true);
    let other = record("1.2.3", "1.2.3", "1.2.4", &[(PatientID, "P2")]);
    store(&writer, other, location(Place::Managed, "/objects", "1.2.4"));
    plans.push_str("Where a study lies under two patients:\n\n");
    plans.push_str(&plans_of(&index, &|title| ASKED_AGAIN.contains(&title)));
    assert_snapshot("db", "plans", &plans);
}

fn plans_of(index: &Path, is_asked: &dyn Fn(&str) -> bool) -> String {
    let mut reader = Reader::open(index).unwrap();
    let mut plans = String::new();
    for (title, level, keys) in CASES.iter().filter(|(title, ..)| is_asked(title)) {
        let returned: &[AttributeId] = match level {
            Patient => &[PatientID, PatientName],
            Study => &[StudyInstanceUID, PatientID, NumberOfStudyRelatedInstances],
            Series => &[SeriesInstanceUID, StudyInstanceUID, NumberOfSeriesRelatedInstances],
            Image => &[SOPInstanceUID, InstanceNumber],
        };
        let mut asked = request(*level, returned);
        asked.matching_keys = keys
            .iter()
            .map(|&(attribute, key)| MatchingKey { attribute, matching: matching(attribute, key) })
            .collect();
        let explained = reader.explain(&asked).unwrap();
        let steps: Vec<_> = explained.lines().filter(|line| line.starts_with("  ")).collect();
        plans.push_str(&format!("{title}\n{}\n\n", steps.join("\n")));
    }
    plans
}
