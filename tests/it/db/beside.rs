//! A scan in its own process and arrivals at the same time, on one index.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use dcmdex::model::attribute::AttributeId::*;
use dcmdex::model::level::QueryRetrieveLevel::{Image, Series, Study};
use dcmdex::model::location::Place;

use super::*;
use crate::util::objects;

const ROUNDS: u32 = 4;
const FILES: u32 = 250;

#[test]
fn what_is_scanned_and_what_is_received_at_once_is_all_there_and_counted_once() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    let (index, tree) = (root.join("index.db"), root.join("tree"));
    let writer = writer(&index);
    let mut received = 0;
    for round in 0..ROUNDS {
        for n in 0..FILES {
            let instance = round * FILES + n;
            objects::write(&tree.join(format!("{round}/{}/{n}", n % 50)), 1, 1 + n % 2, instance);
        }
        let mut scan = Command::new(env!("CARGO_BIN_EXE_dcmdex"))
            .args(["scan", "--index"])
            .arg(&index)
            .arg(&tree)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // Other instances of a study that the scan is about, until it has ended.
        loop {
            let uid = format!("1.2.1.9.{received}");
            let record = record("1.2.1", "1.2.1.9", &uid, &[(Modality, "MR")]);
            assert_eq!(store(&writer, record, location(Place::Managed, "/objects", &uid)), StoreOutcome::New);
            received += 1;
            if let Some(status) = scan.try_wait().unwrap() {
                assert!(status.success());
                break;
            }
        }
    }
    drop(writer);
    let scanned = ROUNDS * FILES;
    let answers = find(&index, &request(Image, &[SOPInstanceUID]));
    let uids: BTreeSet<_> = answers.iter().map(|values| values[0].clone()).collect();
    assert_eq!((answers.len(), uids.len()), ((scanned + received) as usize, (scanned + received) as usize));
    let counted = find(&index, &request(Study, &[NumberOfStudyRelatedSeries, NumberOfStudyRelatedInstances]));
    assert_eq!(counted, [["3".to_owned(), (scanned + received).to_string()]]);
    let mut series = find(&index, &request(Series, &[SeriesInstanceUID, NumberOfSeriesRelatedInstances]));
    series.sort();
    let half = (scanned / 2).to_string();
    let expected = [("1.2.1.1", half.clone()), ("1.2.1.2", half), ("1.2.1.9", received.to_string())];
    assert_eq!(series, expected.map(|(uid, count)| [uid.to_owned(), count]));
    assert_sound(&index);
}
