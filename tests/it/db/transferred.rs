//! A copy in another engine says what the index says.

use dcmdex::db::open::WriterHandle;
use dcmdex::db::transfer::{CopiedIndex, copy_to_engine};
use dcmdex::db::{DeliveryChanges, EventChanges, EventRecording, EventSearch, WaitingEvent};
use proptest::prelude::*;

use super::engines::{Engine, Sqlite, said};
use super::model_based::{Step, World, cases, step};
use super::*;
use crate::util::postgres::{database_of, server};

fn copied(from: &Path, to: &Path) -> Result<CopiedIndex, Error> {
    let recording = EventRecording::All;
    copy_to_engine(from, to, WriterOptions { clock: Clock::Fixed(1_000), recording, ..WriterOptions::default() })
}

/// A copy, which is only asked.
struct CopyOf(std::path::PathBuf);

impl Engine for CopyOf {
    type Reader = Reader;
    type Arrivals = WriterHandle;

    fn create() -> Self {
        unreachable!("a copy is made of another index")
    }

    fn reader(&self) -> Reader {
        Reader::open(&self.0).unwrap()
    }

    fn arrivals(&self) -> WriterHandle {
        unreachable!("nobody writes a copy here")
    }

    fn restart(&mut self) {}
}

proptest! {
    // Each case makes a database.
    #![proptest_config(ProptestConfig { cases: cases(12), max_shrink_iters: 500, ..ProptestConfig::default() })]

    #[test]
    fn a_copy_says_the_same_after_any_history_and_so_does_its_copy(steps in prop::collection::vec(step(), 1..25)) {
        let mut world = World::<Sqlite>::new();
        steps.into_iter().chain([Step::Scan { prune: false }]).for_each(|step| world.take(step));
        let (database, back) = (CopyOf(server().database()), CopyOf(world.engine.path().with_file_name("back.db")));
        copied(&world.engine.path(), &database.0).unwrap();
        prop_assert_eq!(said(&database), said(&world.engine));
        copied(&database.0, &back.0).unwrap();
        prop_assert_eq!(said(&back), said(&world.engine));
        for copy in [&database, &back] {
            prop_assert_eq!(copy.reader().check().unwrap().findings, []);
        }
    }
}

/// An index with two studies in several pieces, a scan, a file that is not indexed, and a name.
fn filled() -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("index.db");
    let writer = writer(&index);
    let arrivals = writer.handle();
    let scan = arrivals.begin_scan("[\"/a\"]".into()).unwrap();
    for (study, directory) in [("1.2", "/a"), ("1.3", "/a/b")] {
        let of =
            |at: usize| file(&at.to_string(), record(study, &format!("{study}.1"), &format!("{study}.1.{at}"), &[]));
        arrivals.scanned(scanned(directory, (0..3000).map(of).collect())).unwrap();
    }
    let failed = FileOutcome::NotIndexed { kind: NotIndexed::Failed, reason: "not-dicom", detail: "no".into() };
    let odd = ScannedFile { outcome: failed, ..file("odd", record("9", "9", "9", &[])) };
    arrivals.scanned(scanned("/a", vec![odd])).unwrap();
    arrivals.end_scan(scan, "{}".into()).unwrap();
    arrivals.mount_point("/a".into(), dcmdex::db::Mounted::Yes).unwrap();
    arrivals.mount_point("/a/b".into(), dcmdex::db::Mounted::Exchanged).unwrap();
    arrivals.note_watch("[\"/a\"]".into(), Some("{}".into())).unwrap();
    arrivals.name_index(Some("one".into())).unwrap();
    writer.close().unwrap();
    (dir, index)
}

#[test]
fn scans_watches_mounts_and_the_name_of_the_index_are_copied_too() {
    let (dir, index) = filled();
    let (database, back) = (server().database(), dir.path().join("back.db"));
    copied(&index, &database).unwrap();
    copied(&database, &back).unwrap();
    for copy in [&database, &back] {
        let (mut source, mut reader) = (Reader::open(&index).unwrap(), Reader::open(copy).unwrap());
        assert_eq!(reader.status().unwrap().scans, source.status().unwrap().scans);
        assert_eq!(reader.status().unwrap().failed, [("not-dicom".to_owned(), 1)]);
        assert_eq!(reader.watches().unwrap(), source.watches().unwrap());
        assert_eq!(reader.index_id().unwrap().as_deref(), Some("one"));
        let writer = writer(copy);
        assert_eq!(writer.handle().begin_scan("[]".into()).unwrap(), 2, "numbers of scans go on");
    }
}

#[test]
fn events_are_copied_with_what_receivers_have_got() {
    let dir = tempfile::tempdir().unwrap();
    let [first, back] = ["index.db", "back.db"].map(|name| dir.path().join(name));
    let database = server().database();
    let recording = |index: &Path| {
        let options = WriterOptions { recording: EventRecording::All, ..WriterOptions::default() };
        Writer::open(index, options).unwrap()
    };
    let writer = recording(&first);
    let handle = writer.handle();
    handle.keep_receivers(vec!["ris".into(), "emr".into()]).unwrap();
    for study in ["1.2", "1.3"] {
        store(&writer, record(study, "1.4", study, &[]), location(Place::Managed, "/o", study));
    }
    // The writer of a copy sees this conflict as well, and does not tell it again.
    let other = location(Place::Managed, "/o", "1.3 again");
    store_with(&writer, record("1.3", "1.4", "1.3", &[]), other, DuplicatePolicy::KeepBoth, Compared::Other);
    let events = Reader::open(&first).unwrap().events_after(0, 9).unwrap();
    let dead = WaitingEvent {
        receiver: "ris".into(),
        event: events[0].clone(),
        attempts: 7,
        next_ms: 1,
        until_ms: 2,
        failure: "status 500".into(),
        is_dead: true,
    };
    let changes = DeliveryChanges { position: Some(events[1].id), waiting: vec![dead], ..Default::default() };
    assert!(handle.note_deliveries("ris".into(), "", changes).unwrap());
    drop(handle);
    writer.close().unwrap();
    let said = |index: &Path| {
        let mut reader = Reader::open(index).unwrap();
        (reader.events_after(0, 9).unwrap(), reader.event_progress().unwrap(), reader.failed_events().unwrap())
    };
    for (from, to) in [(&first, &database), (&database, &back)] {
        assert_eq!(copied(from, to).unwrap().left_behind, <[&str; 0]>::default());
        assert_eq!(said(to), said(&first));
    }
    for copy in [&database, &back] {
        let writer = recording(copy);
        store(&writer, record("1.5", "1.4", "1.5", &[]), location(Place::Managed, "/o", "1.5"));
        writer.close().unwrap();
        let last = said(copy).0.pop().unwrap();
        assert!(
            last.study_instance_uid == "1.5" && last.id > events[1].id && last.change > events[1].change,
            "{last:?}"
        );
    }
}

#[test]
fn a_copy_needs_an_empty_target_and_an_index_that_fits() {
    let (dir, index) = filled();
    let database = server().database();
    copied(&index, &database).unwrap();
    assert!(matches!(copied(&index, &database), Err(Error::HasContent { .. })));
    assert!(matches!(copied(&database, &index), Err(Error::HasContent { .. })));
    let folder = dir.path().join("folder");
    std::fs::create_dir(&folder).unwrap();
    for name in ["main.db", "2024.db"] {
        drop(writer(&folder.join(name)));
    }
    assert!(matches!(copied(&folder, &server().database()), Err(Error::SeveralFiles { .. })));
    let removing = writer(&index);
    let removal = removing.handle().begin_removal(1, false).unwrap();
    removing.handle().remove(removal, false, vec!["1.2.1.1".into()]).unwrap();
    let error = copied(&index, &server().database()).unwrap_err();
    assert!(error.to_string().contains("removed instances"), "{error}");
}

#[test]
fn what_is_removed_while_a_copy_begins_ends_the_copy() {
    let (_dir, index) = filled();
    let point = format!("copy {}", index.display());
    let removed = index.clone();
    fail::cfg_callback(&point, move || {
        let writer = writer(&removed);
        let removal = writer.handle().begin_removal(1, false).unwrap();
        writer.handle().remove(removal, false, vec!["1.2.1.1".into()]).unwrap();
        writer.close().unwrap();
    })
    .unwrap();
    let database = server().database();
    let error = copied(&index, &database).unwrap_err();
    fail::remove(&point);
    assert!(error.to_string().contains("removed instances"), "{error}");
    assert!(Reader::open(&database).is_err());
}

#[test]
fn a_copy_that_was_broken_off_is_refused_until_it_is_made_again() {
    let (_dir, index) = filled();
    let database = server().database();
    drop(writer(&database));
    let name = database_of(&database);
    // The copier waits for the table of scans, when it has written the instances.
    let held = server().hold(&name, "LOCK TABLE scan IN EXCLUSIVE MODE");
    let mut copier = std::process::Command::new(env!("CARGO_BIN_EXE_dcmdex"));
    let mut copier = copier.arg("copy-index").args([&index, &database]).spawn().unwrap();
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
    while server().sql(&name, waiting) == "0" {
        assert!(copier.try_wait().unwrap().is_none(), "it ended early");
    }
    assert!(matches!(copied(&index, &database), Err(Error::InUse { .. })), "one copies at a time");
    copier.kill().unwrap();
    copier.wait().unwrap();
    drop(held);
    server().disconnect_all(&name);
    assert_ne!(server().sql(&name, "SELECT count(*) FROM instance"), "0");
    let refused = Reader::open(&database).unwrap_err();
    assert!(refused.to_string().contains("unfinished copy"), "{refused}");
    assert!(matches!(Writer::open(&database, WriterOptions::default()), Err(Error::Unfinished { .. })));
    copied(&index, &database).unwrap();
    assert_eq!(Reader::open(&database).unwrap().status().unwrap().instances, 6000);
}

#[test]
fn a_copy_that_lacks_something_is_not_used() {
    let (_dir, index) = filled();
    let database = server().database();
    drop(writer(&database));
    let name = database_of(&database);
    server().sql(&name, "CREATE RULE lost AS ON INSERT TO watch DO INSTEAD NOTHING");
    let error = copied(&index, &database).unwrap_err();
    assert!(matches!(error, Error::OtherCopy { .. }), "{error}");
    assert!(matches!(Reader::open(&database), Err(Error::Unfinished { .. })));
}
