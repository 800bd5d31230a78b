//! What is different in an index on a PostgreSQL server: several writers, a server that ends, and
//! values that it would refuse.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Instant;

use dcmdex::db::transfer::copy_to_engine;
use dcmdex::db::{
    ConflictEntry, Correction, CorrectionChange, Error, EventChanges as _, EventSearch as _, Finding, StudyProblem,
    StudyReport,
};
use dcmdex::model::attribute::AttributeId::*;
use dcmdex::model::find::MatchingKey;
use dcmdex::model::level::QueryRetrieveLevel::{Image, Patient, Series, Study};

use super::engines::try_to_store;
use super::*;
use crate::util::certificates::Authority;
use crate::util::postgres::{Pooler, PostgresServer, database_of, server};

fn with_key(level: QueryRetrieveLevel, key: (AttributeId, &str), returned: &[AttributeId]) -> FindRequest {
    let matching_keys = vec![MatchingKey { attribute: key.0, matching: matching(key.0, key.1) }];
    FindRequest { matching_keys, ..request(level, returned) }
}

fn instances(index: &Path) -> u64 {
    Reader::open(index).unwrap().status().unwrap().instances
}

#[test]
fn values_that_the_server_refuses_are_stored_and_found() {
    let index = server().database();
    let writer = writer(&index);
    let long: String = (0..2_400).map(|number| format!("{:04x}", number * 7919 % 65_521)).collect();
    let long_uid = format!("1.2.{}", "3.".repeat(2_000));
    let values = [
        (PatientID, long.as_str()),
        (PatientName, "A\0B^C"),
        (PatientComments, "\u{1}\0\u{2}"),
        (AccessionNumber, "X\0Y"),
        (SeriesNumber, "x"),
        (StudyDate, "2024\0"),
        (InstanceNumber, "7\0"),
    ];
    let odd = record(&long_uid, "1.2\\1.3", "1.2.3\0.4", &values);
    assert_eq!(store(&writer, odd, location(Place::Managed, "/o", "a")), StoreOutcome::New);
    let usual = record("1.9", "1.9.1", "1.9.1.1", &[(PatientID, &long[..9_000])]);
    assert_eq!(store(&writer, usual, location(Place::Managed, "/o", "b")), StoreOutcome::New);
    let returned = [PatientID, PatientName, PatientComments, AccessionNumber, StudyInstanceUID];
    for (level, key) in [
        (Study, (PatientID, long.as_str())),
        (Study, (AccessionNumber, "X*")),
        (Study, (StudyInstanceUID, long_uid.as_str())),
        (Patient, (PatientComments, "*\0*")),
        (Series, (SeriesNumber, "x")),
        (Image, (SOPInstanceUID, "1.2.3\0.4")),
    ] {
        let returned = if level == Patient { &returned[..3] } else { &returned };
        let found = find(&index, &with_key(level, key, returned));
        let expected = [&long, "A\0B^C", "\u{1}\0\u{2}", "X\0Y", &long_uid];
        assert_eq!(found, [&expected[..returned.len()]], "{level} {}", key.0);
    }
    assert_eq!(find(&index, &request(Image, &[InstanceNumber])).concat(), ["7\0", "1"]);
    assert_sound(&index);
}

/// Stores these instances, each with a new object. One that is refused because the server is gone
/// is sent again, as peers do. Returns how many were stored.
fn store_all(writer: &Writer, uids: impl Iterator<Item = (String, String)>) -> u64 {
    let mut count = 0;
    for (study, uid) in uids {
        let stored = loop {
            let of = record(&study, &format!("{study}.1"), &uid, &[(PatientID, &study)]);
            match try_to_store(&writer.handle(), Received::new(of, location(Place::Managed, "/objects", &uid))) {
                Err(Error::ServerGone { .. } | Error::InDoubt { .. }) => {}
                stored => break stored.unwrap(),
            }
        };
        assert!(!matches!(stored.outcome, StoreOutcome::KeptFirst));
        count += 1;
    }
    count
}

#[test]
fn two_writers_of_the_same_studies_do_not_hinder_each_other() {
    let index = server().database();
    let writers = [writer(&index), writer(&index)];
    // Each thread takes the studies in another order, and both writers get half of the instances.
    std::thread::scope(|scope| {
        for thread in 0..8_usize {
            let writer = &writers[thread % 2];
            scope.spawn(move || {
                let uid = |at: usize| {
                    let study = (at * (thread + 1) + thread) % 5;
                    (format!("1.2.{study}"), format!("1.2.{study}.{}.{at}", thread / 2))
                };
                store_all(writer, (0..25).map(uid))
            });
        }
    });
    // Two threads stored the same instances, one on each writer.
    let of_threads = |thread: usize| (0..25).map(move |at| ((at * (thread + 1) + thread) % 5, thread / 2, at));
    let distinct: std::collections::BTreeSet<_> = (0..8).flat_map(of_threads).collect();
    assert_eq!(instances(&index), distinct.len() as u64);
    let of_study = find(&index, &request(Study, &[NumberOfStudyRelatedInstances]));
    let sum: u64 = of_study.concat().iter().map(|count| count.parse::<u64>().unwrap()).sum();
    assert_eq!((of_study.len(), sum), (5, distinct.len() as u64));
    assert_sound(&index);
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    assert_eq!(server().sql(&database_of(&index), deadlocks), "0");
}

#[test]
fn a_writer_sees_what_another_one_did_to_a_study_that_it_knows() {
    let index = server().database();
    let [one, other] = [writer(&index), writer(&index)];
    let stores = |writer: &Writer, number: u64, directory: &str| {
        let of = record("1.2", "1.2.1", &format!("1.2.1.{number}"), &[]);
        store(writer, of, location(Place::Managed, directory, &number.to_string()))
    };
    for (writer, number) in [(&one, 1), (&other, 2), (&one, 3), (&one, 4), (&other, 5)] {
        assert_eq!(stores(writer, number, "/old/a"), StoreOutcome::New);
    }
    let of_study = request(Study, &[NumberOfStudyRelatedInstances]);
    assert_eq!(find(&index, &of_study), [["5"]]);
    assert_eq!(other.handle().storage_moved("/old".into(), "/new".into()).unwrap(), 1);
    // It is the file that the index knows.
    assert_eq!(stores(&one, 1, "/new/a"), StoreOutcome::Identical { uncompared: None });

    let of_scan = |writer: &Writer, directory: ScannedDirectory| {
        writer.handle().scanned(directory).unwrap();
        writer.handle().flush().unwrap();
    };
    let found = || scanned("/disk", vec![file("f", record("1.3", "1.3.1", "1.3.1.1", &[]))]);
    of_scan(&one, found());
    of_scan(&other, ScannedDirectory { vanished: vec!["f".into()], ..scanned("/disk", Vec::new()) });
    assert_eq!(instances(&index), 5);
    of_scan(&one, found());
    assert_eq!(instances(&index), 6);
    assert_sound(&index);
}

#[test]
fn processes_that_begin_at_once_make_the_tables_once() {
    let index = server().database();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| drop(writer(&index)));
        }
    });
    assert_eq!(instances(&index), 0);
}

/// A writer whose commits survive a crash of the server.
#[test]
fn a_writer_that_begins_waits_for_no_transaction_of_another_one() {
    let index = server().database();
    drop(writer(&index));
    let database = database_of(&index);
    server().sql(&database, &format!("ALTER DATABASE {database} SET lock_timeout = '5s'"));
    // These are the locks of a removal.
    let removal = server().hold(&database, "LOCK TABLE removed_file, removed_instance IN ROW EXCLUSIVE MODE");
    drop(writer(&index));
    drop(removal);
    // An index that a table is missing from gets it again.
    server().sql(&database, "DROP TABLE exchanged_disk");
    drop(writer(&index));
    assert_eq!(server().sql(&database, "SELECT count(*) FROM exchanged_disk"), "0");
}

fn durable(index: &Path) -> Writer {
    let options = WriterOptions { durability: Durability::Full, clock: Clock::Fixed(1_000), ..Default::default() };
    Writer::open(index, options).unwrap()
}

#[test]
fn what_was_acknowledged_survives_the_kill_of_the_server() {
    let server = PostgresServer::start(&["fsync=on"]);
    let index = server.database();
    let (acknowledged, refused) = stored_while(&index, || {
        for round in 1..=3 {
            // Some objects come before each kill.
            wait_for_instances(&index, round * 40);
            server.kill();
        }
        while Reader::open(&index).is_err() {}
    });
    assert_eq!((instances(&index), refused), (acknowledged.len() as u64, 0), "all of them, each once");
    assert_sound(&index);
}

/// Stores objects from four threads until `disturb` ends. Returns the acknowledged instances, and
/// how many were refused.
fn stored_while(index: &Path, disturb: impl FnOnce()) -> (Vec<String>, u64) {
    let (writer, is_over) = (durable(index), AtomicBool::new(false));
    let store = |thread: usize| {
        let (mut acknowledged, mut refused) = (Vec::new(), 0);
        for at in (0_usize..).take_while(|_| !is_over.load(SeqCst)) {
            let (study, uid) = (format!("1.2.{}", at % 3), format!("1.2.{thread}.{at}"));
            let of = record(&study, &format!("{study}.1"), &uid, &[(PatientID, &study)]);
            let (send, receive) = std::sync::mpsc::channel();
            let on_done = Box::new(move |result: Result<dcmdex::db::Stored, Error>| send.send(result.is_ok()).unwrap());
            writer.handle().store(Received::new(of, location(Place::Managed, "/objects", &uid)), on_done);
            if receive.recv().unwrap() { acknowledged.push(uid) } else { refused += 1 }
        }
        (acknowledged, refused)
    };
    std::thread::scope(|scope| {
        let store = &store;
        let threads: Vec<_> = (0..4).map(|thread| scope.spawn(move || store(thread))).collect();
        disturb();
        is_over.store(true, SeqCst);
        let stored = threads.into_iter().map(|thread| thread.join().unwrap());
        stored.fold((Vec::new(), 0), |(all, count), (some, refused)| ([all, some].concat(), count + refused))
    })
}

fn wait_for_instances(index: &Path, count: u64) {
    while Reader::open(index).and_then(|mut reader| reader.status()).map_or(0, |s| s.instances) < count {}
}

/// Rounds of a failover: `DCMDEX_TEST_FAILOVERS`, or one (docs/reliability.md has a long run).
fn failovers() -> usize {
    #[expect(clippy::disallowed_methods, reason = "a switch of this test, no setting of the program")]
    let rounds = std::env::var("DCMDEX_TEST_FAILOVERS").ok();
    rounds.map_or(1, |rounds| rounds.parse().unwrap())
}

#[test]
fn what_was_acknowledged_survives_the_loss_of_the_primary_with_a_synchronous_standby() {
    for _ in 0..failovers() {
        let primary = PostgresServer::start(&["synchronous_standby_names=*"]);
        let standby = primary.standby();
        let name = database_of(&primary.database());
        let (index, after) = (primary.address_with(&standby, &name), standby.address(&name));
        let (acknowledged, refused) = stored_while(&index, || {
            wait_for_instances(&index, 40);
            let killed = Instant::now();
            primary.kill_for_good();
            standby.promote();
            let before = instances(&after);
            wait_for_instances(&after, before + 1);
            println!("acknowledged again {} ms after the kill of the primary", killed.elapsed().as_millis());
            wait_for_instances(&after, before + 40);
        });
        let mut reader = Reader::open(&after).unwrap();
        let lost = acknowledged.iter().filter(|uid| reader.locations(uid).unwrap().is_empty()).count();
        assert_eq!(lost, 0, "of {} that were acknowledged, with {refused} refused", acknowledged.len());
        assert_sound(&after);
    }
}

#[test]
fn a_pooler_is_refused_if_it_shares_sessions() {
    let index = server().database();
    drop(writer(&index));
    let name = database_of(&index);
    let by_session = Pooler::start(server(), "session");
    let writer = durable(&by_session.address(&name));
    assert_eq!(store_all(&writer, [("1.2".to_owned(), "1.2.1".to_owned())].into_iter()), 1);
    drop(writer);
    let by_transaction = Pooler::start(server(), "transaction");
    let opened = Writer::open(&by_transaction.address(&name), WriterOptions::default());
    let error = opened.unwrap_err().to_string();
    assert!(error.contains("pooler") && error.contains("pool_mode = session"), "{error}");
    assert_eq!(instances(&index), 1);
}

#[test]
fn a_database_that_cannot_be_the_index_is_told() {
    let opened = |index: &Path| Reader::open(index).unwrap_err().to_string();
    let empty = server().database();
    assert!(opened(&empty).starts_with("there is no index at postgresql://"), "{}", opened(&empty));
    drop(writer(&empty));
    server().sql(&database_of(&empty), "UPDATE dcmdex_index SET schema_version = 99");
    assert!(opened(&empty).contains("schema 99"), "{}", opened(&empty));
    let read_only = server().database();
    drop(writer(&read_only));
    let database = database_of(&read_only);
    server().sql(&database, &format!("ALTER DATABASE {database} SET default_transaction_read_only = on"));
    let error = Writer::open(&read_only, WriterOptions::default()).unwrap_err().to_string();
    assert!(error.contains("takes no changes") && error.contains("target_session_attrs"), "{error}");
    // The server is there, and says so.
    let address = server().address("nosuch");
    let (of_database, of_user) = (opened(&address), opened(Path::new(&user_of(&address, "nosuch"))));
    for (error, said) in [
        (&of_database, r#"database "nosuch" does not exist; hint: make it with `createdb"#),
        (&of_user, r#"role "nosuch" does not exist; hint: make the user with `createuser"#),
    ] {
        assert!(error.contains(&format!(", answered: {said}")), "{error}");
    }
    // A user who owns nothing there.
    server().sql("postgres", "CREATE ROLE guest LOGIN");
    let of_guest = PathBuf::from(user_of(&server().database(), "guest"));
    let refused = Writer::open(&of_guest, WriterOptions::default()).unwrap_err();
    let cause = std::error::Error::source(&refused).unwrap().to_string();
    assert!(cause.contains("permission denied") && cause.contains("the owner of the database"), "{cause}");
    let nowhere = PathBuf::from("postgresql://nobody@127.0.0.1:1/archive?connect_timeout=1");
    assert!(opened(&nowhere).contains("postgresql://127.0.0.1:1/archive, is not there"), "{}", opened(&nowhere));
    let secret = PathBuf::from("postgresql://u:secret@127.0.0.1:1/archive");
    assert!(!opened(&secret).contains("secret"), "{}", opened(&secret));
}

#[test]
fn what_only_sqlite_has_is_refused_by_name() {
    let index = server().database();
    let writer = writer(&index);
    let error = Reader::open(&index).unwrap().scan_roots().unwrap_err();
    assert!(error.to_string().contains("a list of scanned paths wants an SQLite index"), "{error}");
    let error = writer.handle().flush_log().unwrap_err();
    assert!(matches!(error, Error::WantsSqlite { .. }), "{error}");
    assert!(dcmdex::db::open::copy_index(&index, Path::new("/nowhere")).is_err());
}

/// Numbers of transactions begin anew in another server, or lower after a restore.
#[test]
fn numbers_of_changes_grow_in_a_database_that_was_restored() {
    let server = PostgresServer::start(&["autovacuum=off"]);
    let index = server.database();
    drop(writer(&index));
    let last = || Reader::open(&index).unwrap().last_change().unwrap();
    let mut before = last();
    for history in ["'7/00000001'", "split_part(history, '/', 1) || '/00000009'"] {
        server.sql(&database_of(&index), &format!("UPDATE dcmdex_index SET history = {history}"));
        drop(writer(&index));
        assert!(last() >= before + (1 << 28), "{} follows {before}", last());
        before = last();
        drop(writer(&index));
        assert!(last() - before < 1_000, "{} follows {before}", last());
    }
    // The timeline of the server is two later. The one between them may have given numbers.
    let history = "split_part(history, '/', 1) || '/FFFFFFFF'";
    server.sql(&database_of(&index), &format!("UPDATE dcmdex_index SET history = {history}"));
    drop(writer(&index));
    assert!(last() >= before + (2 << 28), "{} follows {before}", last());
}

#[test]
fn a_correction_is_made_once_if_the_answer_of_the_server_is_lost() {
    let index = server().database();
    let writer = writer(&index);
    store(&writer, record("1.2", "1.2.1", "1.2.3", &[(PatientID, "OLD")]), location(Place::Managed, "/o", "a"));
    let patients = || find(&index, &request(Patient, &[PatientID])).concat();
    let correct = |change: CorrectionChange| {
        fail::cfg(format!("committed {}", database_of(&index)), "1*return").unwrap();
        let (number, effect) = writer.handle().correct(change).unwrap();
        assert_eq!(effect.instances, 1);
        number
    };
    let rule = Correction {
        number: 0,
        made_ms: 7,
        system: String::new(),
        keys: vec![(PatientID, "OLD".into())],
        values: vec![(PatientID, "NEW".into())],
        undone_ms: None,
    };
    let version = || server().sql(&database_of(&index), "SELECT schema_version FROM dcmdex_index");
    assert_eq!(version(), "2");
    let number = correct(CorrectionChange::Make(rule.clone()));
    let rules = Reader::open(&index).unwrap().corrections().unwrap();
    assert_eq!(rules, [Correction { number, ..rule }]);
    assert_eq!((patients(), version()), (vec!["NEW".into()], "3".into()), "programs before corrections refuse it");
    correct(CorrectionChange::Undo { correction: rules[0].clone(), undone_ms: 8 });
    assert_eq!((patients(), version()), (vec!["OLD".into()], "2".into()));
}

#[test]
fn a_copy_says_that_it_lacks_events_of_studies_that_have_changed() {
    let (dir, index) = (tempfile::tempdir().unwrap(), server().database());
    let writer = writer(&index);
    writer.handle().begin_telling().unwrap();
    let left_behind = |name: &str| {
        let copied = copy_to_engine(&index, &dir.path().join(name), WriterOptions::default()).unwrap();
        copied.left_behind
    };
    assert_eq!(left_behind("before.db"), Vec::<&str>::new());
    store(&writer, record("1.2", "1.2.1", "1.2.3", &[]), location(Place::Managed, "/o", "a"));
    assert_eq!(left_behind("changed.db"), ["that studies have changed whose events are still to come"]);
    let mut reader = Reader::open(&index).unwrap();
    let (changed, last) = (reader.studies_changed_after(0).unwrap(), reader.last_change().unwrap());
    writer.handle().tell_studies(changed, last, Clock::System).unwrap();
    assert_eq!(left_behind("told.db"), Vec::<&str>::new());
}

/// Makes the tables as the first version had them.
fn database_of_version_1() -> PathBuf {
    let index = server().database();
    let first = include_str!("../../../src/db/postgres/schema.sql");
    let sql = format!("{first}; INSERT INTO dcmdex_index (schema_version) VALUES (1)");
    server().sql(&database_of(&index), &sql);
    index
}

#[test]
fn a_database_of_the_version_before_is_told_to_readers_and_migrated_once_by_writers() {
    let index = database_of_version_1();
    let error = Reader::open(&index).unwrap_err().to_string();
    assert!(error.contains("the older schema 1"), "{error}");
    std::thread::scope(|scope| {
        let begun: Vec<_> = (0..4).map(|_| scope.spawn(|| writer(&index))).collect();
        begun.into_iter().for_each(|begun| drop(begun.join().unwrap()));
    });
    let migrated = writer(&index);
    assert_eq!(store_all(&migrated, [("1.2".to_owned(), "1.2.3".to_owned())].into_iter()), 1);
    assert_eq!(instances(&index), 1);
    assert_sound(&index);
}

#[test]
fn a_database_is_not_migrated_while_a_program_of_the_version_before_writes_it() {
    let index = database_of_version_1();
    let old = server().hold(&database_of(&index), "SET application_name = 'dcmdex'");
    let refused = Writer::open(&index, WriterOptions::default()).unwrap_err();
    assert!(matches!(refused, Error::InUse { .. }), "{refused}");
    assert!(matches!(Reader::open(&index), Err(Error::OlderSchema { .. })), "nothing has changed");
    drop(old);
    drop(writer(&index));
    assert_eq!(instances(&index), 0);
}

/// The same address with another user.
fn user_of(address: &Path, user: &str) -> String {
    address.to_str().unwrap().replace("user=postgres", &format!("user={user}"))
}

#[test]
fn the_owner_of_a_database_needs_no_other_rights() {
    server().sql("postgres", "CREATE ROLE site LOGIN");
    server().sql("postgres", "CREATE DATABASE of_site OWNER site");
    let address = user_of(&server().address("of_site"), "site");
    let (index, uids) = (PathBuf::from(address), [("1.2".to_owned(), "1.2.3".to_owned())]);
    assert_eq!(store_all(&writer(&index), uids.into_iter()), 1);
    assert_sound(&index);
}

/// Two studies of one patient without a Patient ID, and two people in an archive file.
fn fill_more(index: &Path) {
    let writer = writer(index);
    let twins = ["M", "F"].map(|sex| [(PatientName, "TWIN^A"), (PatientBirthDate, "19700101"), (PatientSex, sex)]);
    let people = [("WEST^ADA", "19500101"), ("EAST^BO", "19800101")]
        .map(|(name, birth_date)| [(PatientName, name), (PatientBirthDate, birth_date), (PatientID, "Z")]);
    for (at, values) in twins.iter().chain(&people).enumerate() {
        let uid = |root: &str| format!("{root}.{}", 90 + at);
        let member = file(&format!("m{at}"), record(&uid("1.9"), &uid("1.8"), &uid("1.2.3"), values));
        let members = ScannedDirectory { place: Place::Archive, ..scanned("/d9/z.zip", vec![member]) };
        writer.handle().scanned(members).unwrap();
    }
    writer.close().unwrap();
}

#[test]
fn a_report_on_a_database_says_what_one_on_a_file_says() {
    let dir = tempfile::tempdir().unwrap();
    let (file, database) = (dir.path().join("index.db"), server().database());
    let said = |index: &Path| {
        super::migrating::fill(index);
        fill_more(index);
        let mut studies = BTreeMap::new();
        let mut add = |study: StudyReport| {
            studies.insert(study.study_instance_uid.clone(), study);
            ControlFlow::Continue(())
        };
        let mut reader = Reader::open(index).unwrap();
        reader.studies_with_problems(&mut add).unwrap();
        let mut conflicts = Vec::new();
        let mut add = |conflict| {
            conflicts.push(conflict);
            ControlFlow::Continue(())
        };
        reader.conflicts(&mut add).unwrap();
        conflicts.sort_by_key(|found: &ConflictEntry| (found.kind.clone(), found.study_instance_uid.clone()));
        (studies, conflicts, reader.status().unwrap().conflicts)
    };
    let ((expected, conflicts, counts), told) = (said(&file), said(&database));
    assert_eq!(told.0, expected);
    assert_eq!((&told.1, &told.2), (&conflicts, &counts));
    for kind in ["study-under-two-patients", "patient-id-of-two-people"] {
        assert!(conflicts.iter().any(|conflict| conflict.kind == kind), "{kind}");
    }
    for problem in [StudyProblem::TwoPeople, StudyProblem::SeveralPatients, StudyProblem::PatientDescribedDifferently] {
        assert!(expected.values().any(|study| study.problems.contains_key(&problem)), "{problem:?}");
    }
    assert!(expected["1.9.90"].problems.contains_key(&StudyProblem::PatientDescribedDifferently), "without an ID");
    let of_archive = conflicts.iter().find(|conflict| conflict.study_instance_uid == "1.9.93").unwrap();
    assert_eq!(of_archive.path, Path::new("/d9/z.zip!/m3"));
}

#[test]
fn a_check_finds_what_does_not_agree() {
    let index = server().database();
    let writer = writer(&index);
    store_all(&writer, (0..3).map(|at| ("1.2".to_owned(), format!("1.2.{at}"))));
    drop(writer);
    server().sql(&database_of(&index), "UPDATE shelf SET instance_count = 7");
    let report = Reader::open(&index).unwrap().check().unwrap();
    let checks: Vec<_> = report.findings.iter().map(|Finding { check, .. }| *check).collect();
    assert_eq!(checks, ["instances of a shelf", "instances of a study"]);
}

#[test]
fn the_certificate_of_the_server_is_verified_if_the_address_says_so() {
    let (authority, other) = (Authority::new("authority"), Authority::new("other"));
    let server = PostgresServer::encrypted(&authority.identity("server"));
    let address = |host: &str, parameters: &str| {
        PathBuf::from(format!("postgresql://postgres@{host}:{}/postgres?{parameters}", server.port))
    };
    let opens = |index: PathBuf| Reader::open(&index).map(drop);
    drop(writer(&address("127.0.0.1", "sslmode=require")));
    let verified = |authority: &Authority| format!("sslmode=verify-full&sslrootcert={}", authority.file().display());
    opens(address("127.0.0.1", &verified(&authority))).unwrap();
    for (host, authority) in [("127.0.0.1", &other), ("localhost", &authority)] {
        let error = opens(address(host, &verified(authority))).unwrap_err();
        assert!(matches!(error, Error::ServerGone { .. }), "{host}: {error}");
    }
    let plain = opens(crate::util::postgres::server().address("postgres"));
    assert!(matches!(plain, Err(Error::Missing { .. })), "a socket of this machine needs none");
}
