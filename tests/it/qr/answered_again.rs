//! A key that was returned at one level finds the same entity at the next, whatever characters it
//! has. Texts of several values are found through every index (PS3.4 C.2.2.3).

use std::ops::ControlFlow;

use dcmdex::db::Arrivals;
use dcmdex::db::open::Reader;
use dcmdex::model::attribute::AttributeId::{self, *};
use dcmdex::model::level::InformationModel::PatientRoot;
use dcmdex::model::level::QueryRetrieveLevel::{self, Image, Patient, Series, Study};
use dcmdex::model::status::Status;
use dcmdex::qr::{self, Hierarchy, NegotiatedOptions, Options, QueryStop, RetrieveError, keys};
use tempfile::TempDir;

use crate::db;

/// Values that break the rules, each in its own study.
const ODD: &[(&str, &[(AttributeId, &str)])] = &[
    ("1.2.1", &[(PatientID, "A\\B"), (PatientName, "JONES^A\\SMITH^B"), (StudyDescription, "CT\\CHEST")]),
    ("1.2.2", &[(PatientID, "DOM\\user*"), (AccessionNumber, "X1\\Y2"), (StudyDate, "20200101\\20210101")]),
    ("1.2.3", &[(PatientID, "A"), (BodyPartExamined, "CHEST\\HEAD"), (PatientSex, "F\\M"), (StudyID, "7\\8")]),
    ("1.2\\1.3", &[(PatientID, "B"), (PatientName, "JONES^C"), (SeriesDate, "20200101\\20210101")]),
];

/// Builds an index of these values, with enough others that a wrong plan would show.
fn index() -> (TempDir, Reader) {
    let directory = TempDir::new().unwrap();
    let index = directory.path().join("index.db");
    let writer = db::writer(&index);
    let others = (0..20).map(|number| {
        let (uid, id) = (format!("1.9.{number}"), format!("P{number}"));
        let values = [(PatientID, id.as_str()), (PatientName, "MILLER^X"), (StudyDate, "20190101"), (Modality, "CT")];
        db::record(&uid, &format!("{uid}.1"), &format!("{uid}.1.1"), &values)
    });
    let odd = ODD.iter().map(|(uid, values)| db::record(uid, &format!("{uid}.1"), &format!("{uid}.1.1"), values));
    let files = others.chain(odd).enumerate().map(|(at, record)| db::file(&format!("{at}.dcm"), record)).collect();
    writer.handle().scanned(db::scanned("/archive", files)).unwrap();
    writer.close().unwrap();
    db::assert_sound(&index);
    (directory, Reader::open(&index).unwrap())
}

fn find(reader: &mut Reader, level: QueryRetrieveLevel, of: &[String], options: &Options) -> Vec<Vec<String>> {
    let identifier = keys::identifier(level, of.iter().map(String::as_str)).unwrap();
    let query = qr::parse(PatientRoot, &identifier, NegotiatedOptions::default(), options).unwrap();
    let stop = QueryStop::new(reader);
    let mut answers = Vec::new();
    let uniques: Vec<_> = [PatientID, StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID]
        .iter()
        .filter_map(|id| query.request.return_keys.iter().position(|key| key.attribute == *id))
        .collect();
    qr::run(reader, &query, &stop, |answer| {
        answers.push(uniques.iter().map(|at| answer.values[*at].to_owned()).collect());
        ControlFlow::Continue(())
    })
    .unwrap();
    answers
}

fn keys_of(values: &[String]) -> Vec<String> {
    let names = ["PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"];
    values.iter().zip(names).map(|(value, name)| format!("{name}={value}")).collect()
}

#[test]
fn the_unique_keys_of_an_answer_find_the_entity_at_every_level_below() {
    let (_directory, mut reader) = index();
    // One value for each unique key is what strict hierarchical queries have: no list of UIDs, and
    // no wild card.
    let strict = Options { hierarchy: Hierarchy::Strict, ..Options::default() };
    for (options, is_strict) in [(Options::default(), false), (strict, true)] {
        let has_one = |(uid, values): &&(&str, &[(AttributeId, &str)])| {
            !is_strict || !uid.contains('\\') && !values[0].1.contains('*')
        };
        for (study, _) in ODD.iter().filter(has_one) {
            let patients = find(&mut reader, Patient, &["PatientID".into()], &options);
            let mut reached = 0;
            for patient in patients.iter().filter(|patient| !is_strict || !patient[0].contains('*')) {
                let of_patient = [keys_of(patient), vec!["StudyInstanceUID".into()]].concat();
                for answered in find(&mut reader, Study, &of_patient, &options) {
                    if answered[1] != *study || answered[0] != patient[0] {
                        continue;
                    }
                    let of_study = [keys_of(&answered), vec!["SeriesInstanceUID".into()]].concat();
                    let series = find(&mut reader, Series, &of_study, &options);
                    assert_eq!(series.len(), 1, "{study}");
                    let of_series = [keys_of(&series[0]), vec!["SOPInstanceUID".into()]].concat();
                    let images = find(&mut reader, Image, &of_series, &options);
                    assert_eq!(
                        images,
                        [[answered.as_slice(), &[format!("{study}.1"), format!("{study}.1.1")]].concat()]
                    );
                    let again = find(&mut reader, Image, &keys_of(&images[0]), &options);
                    assert_eq!(again, images);
                    reached += 1;
                }
            }
            assert_eq!(reached, 1, "{study}");
        }
    }
}

#[test]
fn the_unique_keys_of_an_answer_retrieve_the_entity_and_no_other() {
    let (_directory, mut reader) = index();
    let mut retrieved = |level, of: &[String]| {
        let identifier = keys::identifier(level, of.iter().map(String::as_str)).unwrap();
        let request = qr::parse_retrieval(PatientRoot, &identifier, false, Hierarchy::Lenient)?;
        let found = qr::instances(&mut reader, &request, 100)?;
        Ok::<_, RetrieveError>(found.iter_from(0).map(|found| found.sop_instance_uid.to_owned()).collect::<Vec<_>>())
    };
    for (study, values) in ODD {
        let patient = values[0].1.to_owned();
        let all = [patient, (*study).to_owned(), format!("{study}.1"), format!("{study}.1.1")];
        for (at, level) in [Patient, Study, Series, Image].into_iter().enumerate() {
            let found = retrieved(level, &keys_of(&all[..=at])).unwrap();
            assert_eq!(found, [all[3].as_str()], "{level} {study}");
        }
    }
    // No such patients: a list and a pattern are not allowed (PS3.4 C.4.2.2.1).
    for ids in ["PatientID=P1\\P2", "PatientID=P*"] {
        let refused = retrieved(Patient, &[ids.to_owned()]).unwrap_err();
        assert_eq!(refused.failure().status, Status::IDENTIFIER_DOES_NOT_MATCH_SOP_CLASS, "{ids}");
    }
    assert_eq!(retrieved(Patient, &["PatientID=NOBODY".to_owned()]).unwrap(), [""; 0]);
}

#[test]
fn any_of_several_values_is_found_at_every_level() {
    let (_directory, mut reader) = index();
    for (key, studies) in [
        ("PatientID=B", &["1.2.1", "1.2\\1.3"][..]),
        ("PatientID=A\\B", &["1.2.1", "1.2.3", "1.2\\1.3"]),
        ("PatientID=us*", &["1.2.2"]),
        ("PatientID=DOM*", &["1.2.2"]),
        ("PatientName=SMITH", &["1.2.1"]),
        ("PatientName=SMITH^B", &["1.2.1"]),
        ("PatientName=SM*", &["1.2.1"]),
        ("PatientName=*ITH*", &["1.2.1"]),
        ("PatientName=JONES", &["1.2.1", "1.2\\1.3"]),
        ("PatientName=JONES^A\\SMITH^B", &["1.2.1"]),
        ("StudyDescription=chest", &["1.2.1"]),
        ("StudyDescription=CT\\CHEST", &["1.2.1"]),
        ("StudyDescription=CT*CHEST", &["1.2.1"]),
        ("AccessionNumber=Y2", &["1.2.2"]),
        ("AccessionNumber=Y*", &["1.2.2"]),
        ("AccessionNumber=X1\\Y2", &["1.2.2"]),
        ("StudyDate=20210101", &["1.2.2"]),
        ("StudyDate=2021-", &["1.2.2"]),
        ("StudyDate=20200101\\20210101", &["1.2.2"]),
        ("StudyID=8", &["1.2.3"]),
        ("PatientSex=M", &["1.2.3"]),
        ("BodyPartExamined=HEAD", &["1.2.3"]),
        ("BodyPartExamined=HE*", &["1.2.3"]),
        ("SeriesDate=2021-", &["1.2\\1.3"]),
        ("StudyInstanceUID=1.2\\1.3", &["1.2\\1.3"]),
        ("StudyInstanceUID=1.2", &[]),
    ] {
        for level in [Study, Series, Image] {
            let uids = ["StudyInstanceUID".to_owned(), key.to_owned()];
            let mut found: Vec<_> = find(&mut reader, level, &uids, &Options::default())
                .into_iter()
                .map(|answer| answer[1].clone())
                .collect();
            found.sort();
            assert_eq!(found, studies, "{key} {level}");
        }
        let mut patients = find(&mut reader, Patient, &["PatientID".into(), key.to_owned()], &Options::default());
        patients.dedup();
        assert_eq!(patients.len(), studies.len(), "{key}");
    }
}
