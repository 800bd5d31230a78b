//! A program that follows an index by its change numbers has what the index has.

use std::collections::BTreeMap;

use dcmdex::db::{EventChanges, EventSearch};
use dcmdex::model::attribute::AttributeId::*;
use dcmdex::model::find::ArrivalKeys;
use dcmdex::model::level::QueryRetrieveLevel::{Image, Patient, Series, Study};
use proptest::prelude::*;

use super::engines::{Engine, Postgres, Sqlite, stored};
use super::model_based::{Step, World, cases, step_or_operation};
use super::*;
use crate::util::postgres::PostgresServer;

/// What is asked at each level: the values that are of the level itself.
const LEVELS: [(QueryRetrieveLevel, &[AttributeId]); 4] = [
    (
        Patient,
        &[
            PatientID,
            IssuerOfPatientID,
            PatientName,
            PatientBirthDate,
            PatientSex,
            PatientComments,
            NumberOfPatientRelatedStudies,
            NumberOfPatientRelatedSeries,
            NumberOfPatientRelatedInstances,
            InstanceAvailability,
        ],
    ),
    (
        Study,
        &[
            StudyInstanceUID,
            StudyDescription,
            PatientID,
            PatientName,
            PatientSex,
            ModalitiesInStudy,
            NumberOfStudyRelatedSeries,
            NumberOfStudyRelatedInstances,
            InstanceAvailability,
        ],
    ),
    (Series, &[SeriesInstanceUID, Modality, NumberOfSeriesRelatedInstances, InstanceAvailability]),
    (Image, &[SOPInstanceUID, InstanceNumber, InstanceAvailability]),
];

/// Answers of all levels, by what names their entities.
type Answers = BTreeMap<String, Vec<String>>;

/// A program that keeps the answers, and asks only for what has changed.
#[derive(Default)]
struct Follower {
    known: Answers,
    last: i64,
}

fn last_change(engine: &impl Engine) -> i64 {
    i64::try_from(engine.reader().status().unwrap().last_change).unwrap()
}

fn answers(engine: &impl Engine, since: Option<i64>) -> Answers {
    let mut answers = Answers::new();
    for (level, returned) in LEVELS {
        let arrival = ArrivalKeys { since, ..ArrivalKeys::default() };
        let asked = FindRequest { wants_key: true, arrival, ..request(level, returned) };
        let found = engine.reader().find(&asked, |answer| {
            let key = answer.key.as_ref().unwrap();
            let name = if level == Patient { format!("{:?}", key.order) } else { format!("{:?}", key.uids) };
            answers.insert(format!("{level} {name}"), answer.values.to_vec());
            ControlFlow::Continue(())
        });
        found.unwrap();
    }
    answers
}

impl Follower {
    /// Asks for what has changed, and forgets what the index does not have any more.
    fn follow(&mut self, engine: &impl Engine) -> Answers {
        let last = last_change(engine);
        let changed = answers(engine, Some(self.last));
        self.last = last;
        self.known.extend(changed.clone());
        let all = answers(engine, None);
        self.known.retain(|name, _| all.contains_key(name));
        changed
    }

    fn assert_up_to_date(&self, engine: &impl Engine) -> Result<(), TestCaseError> {
        prop_assert_eq!(&self.known, &answers(engine, None));
        Ok(())
    }
}

fn follow_through<E: Engine>(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let (mut world, mut follower) = (World::<E>::new(), Follower::default());
    for step in steps.into_iter().chain([Step::Scan { prune: false }, Step::Scan { prune: true }]) {
        world.take(step);
        follower.follow(&world.engine);
        follower.assert_up_to_date(&world.engine)?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(24), max_shrink_iters: 5_000, ..ProptestConfig::default() })]

    #[test]
    fn who_follows_an_index_file_has_what_it_has(steps in prop::collection::vec(step_or_operation(), 1..25)) {
        follow_through::<Sqlite>(steps)?;
    }
}

proptest! {
    // Each case makes a database.
    #![proptest_config(ProptestConfig { cases: cases(8), max_shrink_iters: 500, ..ProptestConfig::default() })]

    #[test]
    fn who_follows_a_database_has_what_it_has(steps in prop::collection::vec(step_or_operation(), 1..25)) {
        follow_through::<Postgres>(steps)?;
    }
}

/// Stores an instance of a series of a study of one patient.
fn store_one(engine: &impl Engine, study: &str, series: &str) {
    let uid = format!("{series}.1");
    let place = location(Place::Managed, &format!("/objects/{study}"), &uid);
    let values = [(PatientID, "P1"), (PatientName, "SMITH^ANNE"), (Modality, "CT")];
    stored(&engine.arrivals(), Received::new(record(study, series, &uid, &values), place));
}

fn remove(engine: &impl Engine, takes_objects: bool, uids: &[&str]) -> i64 {
    let arrivals = engine.arrivals();
    let removal = arrivals.begin_removal(1, takes_objects).unwrap();
    arrivals.remove(removal, takes_objects, uids.iter().map(|uid| (*uid).to_owned()).collect()).unwrap();
    removal
}

fn names(changed: &Answers) -> Vec<&str> {
    changed.keys().map(|name| name.split(' ').next().unwrap()).collect()
}

fn assert_losses_are_found<E: Engine>(create: impl Fn() -> E) {
    for takes_objects in [false, true] {
        let (engine, mut follower) = (create(), Follower::default());
        for (study, series) in [("1.1", "1.1.1"), ("1.1", "1.1.2"), ("1.2", "1.2.1"), ("1.3", "1.3.1")] {
            store_one(&engine, study, series);
        }
        follower.follow(&engine);
        assert_eq!(names(&follower.follow(&engine)), <[&str; 0]>::default());
        // A series goes: its study and patient have lost it.
        remove(&engine, takes_objects, &["1.1.2.1"]);
        let changed = follower.follow(&engine);
        assert_eq!(names(&changed), ["PATIENT", "STUDY"]);
        follower.assert_up_to_date(&engine).unwrap();
        // A study goes: its patient has lost it, and no other study has changed.
        remove(&engine, takes_objects, &["1.2.1.1"]);
        assert_eq!(names(&follower.follow(&engine)), ["PATIENT"]);
        follower.assert_up_to_date(&engine).unwrap();
        // What comes back is told as what comes.
        engine.arrivals().lift_removed(vec!["1.2.1.1".to_owned()]).unwrap();
        store_one(&engine, "1.2", "1.2.1");
        assert_eq!(names(&follower.follow(&engine)), ["IMAGE", "PATIENT", "SERIES", "STUDY"]);
        follower.assert_up_to_date(&engine).unwrap();
    }
}

#[test]
fn what_a_study_and_a_patient_lose_is_found_in_a_file() {
    assert_losses_are_found(Sqlite::create);
}

/// Other databases of a server hold numbers back while they write, so this has a server of its own.
#[test]
fn what_a_study_and_a_patient_lose_is_found_in_a_database() {
    let server = PostgresServer::start(&["autovacuum=off"]);
    assert_losses_are_found(|| Postgres::on(&server));
}

fn assert_losses_are_told<E: Engine>(engine: &E)
where
    E::Reader: EventSearch,
    E::Arrivals: EventChanges,
{
    let (mut reader, arrivals) = (engine.reader(), engine.arrivals());
    arrivals.begin_telling().unwrap();
    let mut tell = || {
        let told = reader.told_change().unwrap().unwrap_or(0);
        let changed = reader.studies_changed_after(told).unwrap();
        let last = changed.iter().map(|study| study.change).max().unwrap_or(told);
        arrivals.tell_studies(changed, last, Clock::Fixed(9)).unwrap();
        let events = reader.events_after(0, 99).unwrap();
        let content = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        let events = events.into_iter().filter(|event| event.kind == "study-complete").map(|event| {
            let content = content(&event.content);
            format!("{} {} {}", event.study_instance_uid, content["series"], content["instances"])
        });
        events.collect::<Vec<_>>()
    };
    for series in ["1.1.1", "1.1.2"] {
        store_one(engine, "1.1", series);
    }
    store_one(engine, "1.2", "1.2.1");
    let mut expected = vec!["1.1 2 2", "1.2 1 1"];
    assert_eq!(tell(), expected);
    remove(engine, false, &["1.1.2.1"]);
    expected.push("1.1 1 1");
    assert_eq!(tell(), expected);
    assert_eq!(tell(), expected, "once");
    // Nobody is told of a study that is gone, nor of another study of its patient.
    remove(engine, false, &["1.1.1.1"]);
    assert_eq!(tell(), expected);
}

#[test]
fn what_a_study_loses_is_told_by_a_file() {
    assert_losses_are_told(&Sqlite::create());
}

/// It has a server of its own, as above.
#[test]
fn what_a_study_loses_is_told_by_a_database() {
    let server = PostgresServer::start(&["autovacuum=off"]);
    assert_losses_are_told(&Postgres::on(&server));
}
