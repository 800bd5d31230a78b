//! Random scans, arrivals and removals against a map of what should be there.

use std::collections::{BTreeMap, BTreeSet};

use dcmdex::model::attribute::AttributeId::*;
use dcmdex::model::level::QueryRetrieveLevel::{Image, Series, Study};
use dcmdex::model::location::Place;
use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    /// A file appears, or changes: directory, name, and the instance in it.
    Scan { directory: u8, name: u8, instance: u8 },
    /// A file is gone.
    Vanish { directory: u8, name: u8 },
    /// An instance is received.
    Receive { instance: u8 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3_u8, 0..6_u8, 0..12_u8).prop_map(|(directory, name, instance)| Step::Scan { directory, name, instance }),
        2 => (0..3_u8, 0..6_u8).prop_map(|(directory, name)| Step::Vanish { directory, name }),
        1 => (0..12_u8).prop_map(|instance| Step::Receive { instance }),
    ]
}

/// Twelve instances in four series of two studies.
fn uids(instance: u8) -> (String, String, String) {
    let series = instance / 3;
    (format!("1.{}", series / 2), format!("1.2.{series}"), format!("1.2.{series}.{}", 1000 + u32::from(instance)))
}

fn instance_record(instance: u8) -> Box<InstanceRecord> {
    let (study, series, uid) = uids(instance);
    let modality = if instance / 3 == 1 { "MR" } else { "CT" };
    record(&study, &series, &uid, &[(Modality, modality), (InstanceNumber, &instance.to_string())])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_index_is_always_what_the_files_are(steps in prop::collection::vec(step(), 1..40)) {
        let dir = tempfile::tempdir().unwrap();
        let index = dir.path().join("index.db");
        let writer = writer(&index);
        let mut files: BTreeMap<(u8, u8), u8> = BTreeMap::new();
        let mut received: BTreeSet<u8> = BTreeSet::new();
        for step in steps {
            match step {
                Step::Scan { directory, name, instance } => {
                    let known = files.insert((directory, name), instance).is_some();
                    let found = ScannedFile { known, ..file(&format!("f{name}"), instance_record(instance)) };
                    writer.handle().scanned(scanned(&format!("/d{directory}"), vec![found])).unwrap();
                }
                Step::Vanish { directory, name } => {
                    if files.remove(&(directory, name)).is_some() {
                        let gone = ScannedDirectory {
                            vanished: vec![format!("f{name}").into()],
                            ..scanned(&format!("/d{directory}"), Vec::new())
                        };
                        writer.handle().scanned(gone).unwrap();
                    }
                }
                Step::Receive { instance } => {
                    // What is known in place is not stored again, so that it goes when its file goes.
                    let outcome = store(
                        &writer,
                        instance_record(instance),
                        location(Place::Managed, "/objects", &uids(instance).2),
                    );
                    if outcome == StoreOutcome::New {
                        received.insert(instance);
                    }
                }
            }
        }
        writer.handle().flush().unwrap();
        drop(writer);

        let present: BTreeSet<u8> = files.values().copied().chain(received).collect();
        let expected: BTreeSet<_> = present.iter().map(|&instance| uids(instance)).collect();
        let answers = find(&index, &request(Image, &[StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID]));
        let found: BTreeSet<_> = answers.iter().map(|a| (a[0].clone(), a[1].clone(), a[2].clone())).collect();
        prop_assert_eq!(answers.len(), found.len());
        prop_assert_eq!(found, expected.clone());

        let mut per_series: BTreeMap<String, usize> = BTreeMap::new();
        let mut per_study: BTreeMap<String, (BTreeSet<String>, usize)> = BTreeMap::new();
        for (study, series, _) in expected {
            *per_series.entry(series.clone()).or_default() += 1;
            let entry = per_study.entry(study).or_default();
            entry.0.insert(series);
            entry.1 += 1;
        }
        let counted = find(&index, &request(Series, &[SeriesInstanceUID, NumberOfSeriesRelatedInstances]));
        let counted: BTreeMap<_, _> = counted.iter().map(|a| (a[0].clone(), a[1].parse().unwrap())).collect();
        prop_assert_eq!(counted, per_series);
        let columns = [StudyInstanceUID, NumberOfStudyRelatedSeries, NumberOfStudyRelatedInstances];
        let counted = find(&index, &request(Study, &columns));
        let counted: BTreeMap<_, (usize, usize)> =
            counted.iter().map(|a| (a[0].clone(), (a[1].parse().unwrap(), a[2].parse().unwrap()))).collect();
        let expected: BTreeMap<_, _> = per_study.into_iter().map(|(study, (series, n))| (study, (series.len(), n))).collect();
        prop_assert_eq!(counted, expected);
        assert_sound(&index);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// Objects that disagree about their patient, study and series give the same answers in any order.
    #[test]
    fn the_order_of_arrival_does_not_show(
        said in prop::collection::vec(("[AB]", "[a-c]{0,3}", "[0-9]{0,2}", "(CT|MR)?"), 2..8),
        order in any::<prop::sample::Index>(),
    ) {
        let content = |turn: usize| {
            let dir = tempfile::tempdir().unwrap();
            let index = dir.path().join("index.db");
            let writer = writer(&index);
            for step in 0..said.len() {
                let number = (step + turn) % said.len();
                let (patient, description, date, modality) = &said[number];
                let values = [
                    (PatientID, patient.as_str()),
                    (StudyDescription, description),
                    (SeriesDate, date),
                    (Modality, modality),
                    (InstanceNumber, "1"),
                ];
                let uid = format!("1.2.3.{number}");
                let place = location(Place::Managed, "/objects", &uid);
                assert_eq!(store(&writer, record("1.2", "1.2.3", &uid, &values), place), StoreOutcome::New);
            }
            drop(writer);
            assert_sound(&index);
            let columns = [PatientID, StudyDescription, SeriesDate, Modality, ModalitiesInStudy];
            let mut answers = find(&index, &request(Series, &columns));
            answers.extend(find(&index, &request(Study, &columns[..2])));
            answers
        };
        prop_assert_eq!(content(0), content(order.index(said.len())));
    }
}
