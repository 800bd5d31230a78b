//! Answers in the order of record keys: pages that go on where the one before ended.

use std::collections::BTreeSet;

use dcmdex::model::attribute::AttributeId::*;
use dcmdex::model::find::MatchingKey;
use dcmdex::model::level::QueryRetrieveLevel::{self, Image, Series, Study};
use dcmdex::model::record_key::{RecordKey, RecordOrder};

use super::*;

/// An index over studies of two patients, one of them under both.
fn index() -> (tempfile::TempDir, std::path::PathBuf) {
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("index.db");
    let writer = Writer::open(&path, WriterOptions::default()).unwrap();
    for study in 0..5 {
        for instance in 0..4 {
            let (uid, series) = (format!("1.2.{study}.{instance}.0"), format!("1.2.{study}.{}", instance % 2));
            let patient = if study == 4 && instance == 3 { "P1".to_owned() } else { format!("P{}", study % 2) };
            let record = record(&format!("1.2.{study}"), &series, &uid, &[(PatientID, &*patient)]);
            store(&writer, record, location(Place::Managed, "/objects", &uid));
        }
    }
    writer.close().unwrap();
    (directory, path)
}

/// All answers in pages of three: their UIDs.
fn pages(path: &Path, request: &FindRequest) -> Vec<String> {
    let mut reader = Reader::open(path).unwrap();
    let mut uids = Vec::new();
    let mut after: Option<RecordKey> = None;
    loop {
        let page =
            FindRequest { record: Some(RecordOrder { after: after.clone() }), limit: Some(3), ..request.clone() };
        let mut count = 0;
        reader
            .find(&page, |answer| {
                count += 1;
                uids.push(answer.values[0].to_owned());
                after = answer.record.map(|key| *key);
                ControlFlow::Continue(())
            })
            .unwrap();
        if count < 3 {
            return uids;
        }
    }
}

fn asked(level: QueryRetrieveLevel, uid: AttributeId, key: Option<(AttributeId, &str)>) -> FindRequest {
    let matching_keys =
        key.into_iter().map(|(attribute, text)| MatchingKey { attribute, matching: matching(attribute, text) });
    FindRequest { matching_keys: matching_keys.collect(), ..request(level, &[uid]) }
}

#[test]
fn pages_have_each_record_once_at_every_level_and_with_every_kind_of_key() {
    let (_directory, path) = index();
    for (level, uid, count) in
        [(Study, StudyInstanceUID, 5), (Series, SeriesInstanceUID, 10), (Image, SOPInstanceUID, 20)]
    {
        for key in [None, Some((PatientID, "P*")), Some((Modality, "CT"))] {
            let uids = pages(&path, &asked(level, uid, key));
            let different: BTreeSet<_> = uids.iter().collect();
            assert_eq!((uids.len(), different.len()), (count, count), "{level} {key:?}: {uids:?}");
        }
    }
    // A key that names few records has them sorted.
    let uids = pages(&path, &asked(Image, SOPInstanceUID, Some((StudyInstanceUID, "1.2.3"))));
    assert_eq!(uids.iter().collect::<BTreeSet<_>>().len(), 4, "{uids:?}");
}

#[test]
fn a_page_begins_with_a_range_of_an_index_and_sorts_nothing() {
    let (_directory, path) = index();
    let mut reader = Reader::open(&path).unwrap();
    for (level, uid) in [(Study, StudyInstanceUID), (Series, SeriesInstanceUID), (Image, SOPInstanceUID)] {
        let mut after = None;
        let first = FindRequest { record: Some(RecordOrder::default()), ..asked(level, uid, None) };
        reader
            .find(&first, |answer| {
                after = answer.record.map(|key| *key);
                ControlFlow::Break(())
            })
            .unwrap();
        let next = FindRequest { record: Some(RecordOrder { after }), ..asked(level, uid, Some((PatientSex, "M"))) };
        let plan = reader.explain(&next).unwrap();
        assert!(!plan.contains("TEMP B-TREE") && plan.contains("PRIMARY KEY"), "{level}: {plan}");
    }
}
