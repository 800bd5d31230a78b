//! Who sent which object, when, what has changed since, and whether it is available.

use std::net::IpAddr;
use std::sync::Arc;

use dcmdex::db::transfer::copy_to_engine;
use dcmdex::db::{Admin, Arrivals, ReceivedFrom, Search};
use dcmdex::model::attribute::AttributeId::{
    InstanceAvailability, InstanceNumber, Rows, SOPInstanceUID, StudyInstanceUID,
};
use dcmdex::model::checksum::Checksum;
use dcmdex::model::find::ArrivalKeys;
use dcmdex::model::level::QueryRetrieveLevel::{Image, Patient, Series, Study};
use rusqlite::Connection;

use super::*;
use crate::util::postgres::{PostgresServer, database_of, server};

const HOUR: i64 = 60 * 60 * 1000;
const DAY: i64 = 24 * HOUR;

/// Starts a writer at this time.
fn writer_at(index: &Path, now_ms: i64) -> Writer {
    let options = WriterOptions { durability: Durability::Os, clock: Clock::Fixed(now_ms), ..WriterOptions::default() };
    Writer::open(index, options).unwrap()
}

fn receive(writer: &Writer, study: &str, instance: &str, title: &str) {
    let uid = format!("{study}.{instance}");
    let place = location(Place::Managed, &format!("/objects/{study}"), &uid);
    let address = Some("192.0.2.7".parse::<IpAddr>().unwrap());
    let sender = Arc::new(ReceivedFrom { calling_ae_title: title.to_owned(), address });
    let record = record(study, &format!("{study}.1"), &uid, &[]);
    let (send, receive) = std::sync::mpsc::channel();
    writer
        .handle()
        .store(Received { sender, ..Received::new(record, place) }, Box::new(move |result| send.send(result).unwrap()));
    assert_eq!(receive.recv().unwrap().unwrap().outcome, StoreOutcome::New);
}

fn scan_at(index: &Path, now_ms: i64, directory: &str, files: Vec<ScannedFile>) {
    let writer = writer_at(index, now_ms);
    writer.handle().begin_scan("[]".to_owned()).unwrap();
    writer.handle().scanned(scanned(directory, files)).unwrap();
    writer.handle().flush().unwrap();
    writer.close().unwrap();
}

/// Runs a test with an index in a file and with one in a database. Each has a directory of its own.
fn for_both_engines(test: impl Fn(&Path, &Path)) {
    let dir = tempfile::tempdir().unwrap();
    for (index, name) in [(dir.path().join("index.db"), "file"), (server().database(), "database")] {
        let own = dir.path().join(name);
        std::fs::create_dir(&own).unwrap();
        test(&index, &own);
    }
}

/// Returns the UIDs that the keys match at a level.
fn found(index: &Path, level: QueryRetrieveLevel, arrival: ArrivalKeys) -> Vec<String> {
    let uid = if level == Image { SOPInstanceUID } else { StudyInstanceUID };
    let answers = find(index, &FindRequest { arrival, ..request(level, &[uid]) });
    let mut uids: Vec<_> = answers.into_iter().map(|values| values[0].clone()).collect();
    uids.sort();
    uids
}

fn since(since: i64) -> ArrivalKeys {
    ArrivalKeys { since: Some(since), ..ArrivalKeys::default() }
}

fn received(from: i64, to: i64) -> ArrivalKeys {
    ArrivalKeys { received_ms: Some((from, to)), ..ArrivalKeys::default() }
}

fn sent_by(title: &str) -> ArrivalKeys {
    ArrivalKeys { sender: Some(title.to_owned()), ..ArrivalKeys::default() }
}

fn last_change(index: &Path) -> i64 {
    i64::try_from(Reader::open(index).unwrap().status().unwrap().last_change).unwrap()
}

#[expect(clippy::disallowed_methods, reason = "the test looks at the views as other programs do")]
fn row(index: &Path, sql: &str) -> Vec<rusqlite::types::Value> {
    let connection = Connection::open(index).unwrap();
    let mut statement = connection.prepare(sql).unwrap();
    let width = statement.column_count();
    statement.query_row([], |row| (0..width).map(|at| row.get(at)).collect()).unwrap()
}

const NOON: i64 = 20_000 * DAY + 12 * HOUR;

/// Fills an index by three senders and a scan.
fn fill(index: &Path) {
    let noon = NOON;
    for (now_ms, study, title) in [(noon, "1.1", "CT1"), (noon + DAY, "1.2", "CT2"), (noon + DAY, "1.3", "MR[1]")] {
        let writer = writer_at(index, now_ms);
        receive(&writer, study, "1", title);
        writer.close().unwrap();
    }
    scan_at(index, noon, "/a", vec![file("a", record("1.4", "1.4.1", "1.4.1.1", &[]))]);
}

/// Finds what came by each of those.
fn assert_found_by_arrival(index: &Path) {
    let today = received(20_001 * DAY, 20_002 * DAY);
    assert_eq!(found(index, Study, today.clone()), ["1.2", "1.3"]);
    assert_eq!(found(index, Study, received(i64::MIN, 20_001 * DAY)), ["1.1", "1.4"]);
    assert_eq!(found(index, Series, today.clone()), ["1.2", "1.3"]);
    assert_eq!(found(index, Image, today.clone()), ["1.2.1", "1.3.1"]);
    assert_eq!(find(index, &FindRequest { arrival: today, ..request(Patient, &[]) }).len(), 1);
    assert!(find(index, &FindRequest { arrival: received(0, 1), ..request(Patient, &[]) }).is_empty());
    assert_eq!(found(index, Study, sent_by("CT1")), ["1.1"]);
    assert_eq!(found(index, Study, sent_by("CT?")), ["1.1", "1.2"]);
    assert_eq!(found(index, Study, sent_by("*[1]")), ["1.3"]);
    assert_eq!(found(index, Study, sent_by("*")), ["1.1", "1.2", "1.3"]);
    let both = ArrivalKeys { sender: Some("CT*".into()), ..received(20_001 * DAY, i64::MAX) };
    assert_eq!(found(index, Study, both), ["1.2"]);
    assert_sound(index);
}

#[test]
fn instances_in_a_database_are_found_by_when_they_came_and_who_sent_them() {
    let index = server().database();
    fill(&index);
    assert_found_by_arrival(&index);
}

#[test]
fn a_copy_knows_when_instances_came_and_gives_higher_numbers_to_changes() {
    let dir = tempfile::tempdir().unwrap();
    let [first, back] = ["index.db", "back.db"].map(|name| dir.path().join(name));
    let database = server().database();
    fill(&first);
    for (from, to) in [(&first, &database), (&database, &back)] {
        let last = last_change(from);
        let copied = copy_to_engine(from, to, WriterOptions::default()).unwrap();
        assert_eq!(copied.left_behind, <[&str; 0]>::default());
        assert_found_by_arrival(to);
        assert_eq!(found(to, Study, since(last)), ["1.1", "1.2", "1.3", "1.4"]);
    }
    for copy in [&database, &back] {
        receive(&writer_at(copy, NOON + 2 * DAY), "1.5", "1", "CT3");
        assert_eq!(found(copy, Study, sent_by("CT3")), ["1.5"]);
    }
}

#[test]
fn instances_are_found_by_when_they_came_and_who_sent_them() {
    let dir = tempfile::tempdir().unwrap();
    let (index, noon) = (dir.path().join("index.db"), NOON);
    fill(&index);
    assert_found_by_arrival(&index);
    let values = "SELECT received_ms, changed_ms, arrival, sender, sender_address, scan, checksum FROM instances \
                  WHERE study_instance_uid = ";
    assert_eq!(
        format!("{:?}", row(&index, &format!("{values}'1.1'"))),
        format!(
            "[Integer({noon}), Integer({noon}), Text(\"c-store\"), Text(\"CT1\"), Text(\"192.0.2.7\"), Null, Null]"
        )
    );
    assert_eq!(
        format!("{:?}", row(&index, &format!("{values}'1.4'"))),
        format!("[Integer({noon}), Integer({noon}), Text(\"scan\"), Text(\"\"), Text(\"\"), Integer(1), Null]")
    );
}

/// For new declared attributes, objects of our own storage are read again. This read does not
/// change their expected checksums.
#[test]
fn an_object_that_is_read_again_keeps_its_checksum() {
    let directory = tempfile::tempdir().unwrap();
    let index = directory.path().join("index.db");
    let (place, checksum) = (location(Place::Managed, "/objects", "3.dcm"), Checksum::of(b"what was received"));
    let writer = writer_at(&index, HOUR);
    let (send, receive) = std::sync::mpsc::channel();
    let received = Received { checksum: Some(checksum), ..Received::new(record("1", "2", "3", &[]), place) };
    writer.handle().store(received, Box::new(move |result| send.send(result).unwrap()));
    receive.recv().unwrap().unwrap();
    let again = ScannedFile { known: true, reread: true, ..file("3.dcm", record("1", "2", "3", &[(Rows, "512")])) };
    writer.handle().scanned(ScannedDirectory { place: Place::Managed, ..scanned("/objects", vec![again]) }).unwrap();
    writer.close().unwrap();
    let known = Reader::open(&index).unwrap().known_locations("3").unwrap();
    assert_eq!(known.iter().map(|known| known.checksum).collect::<Vec<_>>(), [Some(checksum)]);
    assert_eq!(row(&index, "SELECT rows FROM instances").len(), 1);
}

#[test]
fn one_source_that_goes_on_is_one_arrival() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("index.db");
    let writer = writer_at(&index, 1_000);
    for instance in 1..=5 {
        receive(&writer, "1.1", &instance.to_string(), "CT1");
        receive(&writer, "1.2", &instance.to_string(), "CT2");
    }
    writer.close().unwrap();
    let counts = "SELECT (SELECT count(*) FROM arrival), (SELECT count(*) FROM instance_group)";
    assert_eq!(format!("{:?}", row(&index, counts)), "[Integer(2), Integer(2)]");
}

#[test]
fn nothing_that_has_changed_since_is_missed_and_no_number_comes_again() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("index.db");
    assert_all_changes_are_found(&index);
    let values = "SELECT received_ms, changed_ms FROM instances WHERE study_instance_uid = '1.2'";
    assert_eq!(format!("{:?}", row(&index, values)), "[Integer(2), Integer(2)]");
}

/// Other databases of a server hold numbers back while they write, so this has a server of its own.
#[test]
fn nothing_that_has_changed_in_a_database_since_is_missed() {
    let server = PostgresServer::start(&["autovacuum=off"]);
    assert_all_changes_are_found(&server.database());
}

/// A change that is not committed yet has a lower number than one that is.
#[test]
fn what_is_committed_late_is_found_too() {
    let server = PostgresServer::start(&["autovacuum=off"]);
    let index = server.database();
    let writer = writer_at(&index, 1);
    receive(&writer, "1.1", "1", "A");
    let name = database_of(&index);
    let late =
        server.hold(&name, "BEGIN; UPDATE shelf SET (change, change_block) = (SELECT number, 0 FROM change_number)");
    receive(&writer, "1.2", "1", "A");
    let told = last_change(&index);
    assert_eq!(found(&index, Study, since(told)), ["1.2"]);
    drop(late);
    receive(&writer, "1.3", "1", "A");
    assert_eq!(found(&index, Study, since(told)), ["1.2", "1.3"]);
}

fn assert_all_changes_are_found(index: &Path) {
    let mut last = 0;
    let mut next = |index: &Path| {
        let change = last_change(index);
        assert!(change > last, "{change} follows {last}");
        std::mem::replace(&mut last, change)
    };
    scan_at(index, 1, "/a", vec![file("a", record("1.1", "1.1.1", "1.1.1.1", &[]))]);
    assert_eq!(found(index, Study, since(next(index))), ["1.1"]);
    // Two writers.
    let (one, other) = (writer_at(index, 2), writer_at(index, 3));
    receive(&one, "1.2", "1", "A");
    assert_eq!(found(index, Study, since(next(index))), ["1.2"]);
    receive(&other, "1.3", "1", "A");
    assert_eq!(found(index, Study, since(next(index))), ["1.3"]);
    drop((one, other));
    // One is corrected: it keeps its arrival.
    let corrected = ScannedFile { known: true, ..file("a", record("1.1", "1.1.1", "1.1.1.1", &[(Rows, "7")])) };
    scan_at(index, 9, "/a", vec![corrected]);
    assert_eq!(found(index, Image, since(next(index))), ["1.1.1.1"]);
    assert_eq!(found(index, Study, received(1, 2)), ["1.1"]);
    // What is missing is not as it was; then what changed last goes, and its number with it.
    for prune in [false, true] {
        let writer = writer_at(index, 10);
        let mut gone = scanned("/a", Vec::new());
        gone.missing.push("a".into());
        writer.handle().scanned(gone).unwrap();
        writer.handle().resolve_missing(vec!["/a".into()], Vec::new(), prune).unwrap();
        writer.close().unwrap();
        let expected: &[&str] = if prune { &[] } else { &["1.1"] };
        assert_eq!(found(index, Study, since(next(index))), expected);
    }
    let writer = writer_at(index, 11);
    receive(&writer, "1.5", "1", "A");
    writer.close().unwrap();
    assert_eq!(found(index, Study, since(next(index))), ["1.5"]);
    assert_eq!(found(index, Study, since(0)), ["1.2", "1.3", "1.5"]);
    assert_sound(index);
}

#[test]
fn numbers_grow_whoever_writes_next_and_however_long() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("index.db");
    let writers = [writer_at(&index, 1), writer_at(&index, 2)];
    let mut last = 0;
    // Longer than a block of numbers, one alone, and each in turn.
    for (run, changes) in [70, 1, 1, 1, 64, 2, 130].into_iter().enumerate() {
        for change in 0..changes {
            // One study that changes again and again, and one that comes.
            receive(&writers[run % 2], "1.1", &format!("{run}.{change}"), "A");
            let after_first = last_change(&index);
            assert!(after_first > last, "{after_first} follows {last}");
            let new = format!("1.2.{run}.{change}");
            receive(&writers[run % 2], &new, "1", "A");
            assert_eq!(found(&index, Study, since(after_first)), [new.as_str()]);
            assert_eq!(found(&index, Study, since(last)), ["1.1", new.as_str()]);
            last = last_change(&index);
            assert!(found(&index, Study, since(last)).is_empty());
        }
    }
    assert_sound(&index);
}

#[test]
fn what_is_missing_is_unavailable_unless_a_copy_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("index.db");
    let availability = |level| -> Vec<String> {
        find(&index, &request(level, &[InstanceAvailability])).into_iter().map(|values| values[0].clone()).collect()
    };
    let files = |names: [(&str, &str); 2]| {
        names.map(|(name, uid)| file(name, record("1.1", "1.1.1", uid, &[(InstanceNumber, &uid[6..])]))).into()
    };
    // The second has a copy elsewhere, the third instance is alone in a directory.
    scan_at(&index, 1, "/a", files([("a", "1.1.1.1"), ("b", "1.1.1.2")]));
    scan_at(&index, 1, "/b", files([("b", "1.1.1.2"), ("c", "1.1.1.3")]));
    assert_eq!(availability(Image), ["ONLINE"; 3]);
    let miss = |directory: &str, name: &str| {
        let writer = writer_at(&index, 2);
        let mut gone = scanned(directory, Vec::new());
        gone.missing.push(name.into());
        writer.handle().scanned(gone).unwrap();
        writer.close().unwrap();
    };
    miss("/b", "b");
    for level in [Image, Series, Study, Patient] {
        assert!(availability(level).iter().all(|it| it == "ONLINE"), "{level}");
    }
    miss("/a", "a");
    assert_eq!(availability(Image), ["UNAVAILABLE", "ONLINE", "ONLINE"]);
    for level in [Series, Study, Patient] {
        assert_eq!(availability(level), ["UNAVAILABLE"], "{level}");
    }
    // It is back.
    let writer = writer_at(&index, 3);
    let mut back = scanned("/a", Vec::new());
    back.returned.push("a".into());
    writer.handle().scanned(back).unwrap();
    writer.close().unwrap();
    assert_eq!(availability(Study), ["ONLINE"]);
}

#[test]
fn what_lies_on_a_disk_that_is_not_mounted_is_offline_unless_a_copy_is_there() {
    for_both_engines(|index, dir| {
        let disk = dir.join("disk");
        let inside = disk.join("ct");
        let availability = |level| -> Vec<String> {
            find(index, &request(level, &[InstanceAvailability])).into_iter().map(|values| values[0].clone()).collect()
        };
        let file_of = |name: &str, uid: &str| file(name, record("1.1", "1.1.1", uid, &[(InstanceNumber, &uid[6..])]));
        scan_at(index, 1, inside.to_str().unwrap(), vec![file_of("a", "1.1.1.1"), file_of("b", "1.1.1.2")]);
        scan_at(index, 1, "/elsewhere", vec![file_of("b", "1.1.1.2")]);
        assert_eq!(availability(Study), ["ONLINE"]);
        let writer = writer_at(index, 2);
        writer.handle().mount_point(disk.clone(), dcmdex::db::Mounted::Yes).unwrap();
        // A mount point that is mounted makes nothing offline.
        writer.handle().mount_point("/proc".into(), dcmdex::db::Mounted::Yes).unwrap();
        writer.handle().flush().unwrap();
        writer.close().unwrap();
        assert_eq!(availability(Image), ["OFFLINE", "ONLINE"]);
        for level in [Series, Study, Patient] {
            assert_eq!(availability(level), ["OFFLINE"], "{level}");
        }
        // What is gone counts for less than what can be brought back.
        let writer = writer_at(index, 3);
        let mut gone = scanned(inside.to_str().unwrap(), Vec::new());
        gone.missing.push("a".into());
        writer.handle().scanned(gone).unwrap();
        writer.close().unwrap();
        assert_eq!(availability(Study), ["UNAVAILABLE"]);
    });
}

#[test]
fn what_lies_below_a_scanned_directory_that_is_gone_is_offline() {
    for_both_engines(|index, dir| {
        let archive = dir.join("archive");
        let availability = || find(index, &request(Study, &[InstanceAvailability]));
        std::fs::create_dir(&archive).unwrap();
        let inside = archive.join("ct");
        scan_at(index, 1, inside.to_str().unwrap(), vec![file("a", record("1.1", "1.1.1", "1.1.1.1", &[]))]);
        let writer = writer_at(index, 2);
        writer.handle().begin_scan(serde_json::json!([archive.to_str()]).to_string()).unwrap();
        writer.close().unwrap();
        assert_eq!(availability(), [["ONLINE"]], "nobody looks for single files and directories");
        std::fs::remove_dir(&archive).unwrap();
        assert_eq!(availability(), [["OFFLINE"]]);
        std::fs::create_dir(&archive).unwrap();
        assert_eq!(availability(), [["ONLINE"]]);
    });
}
