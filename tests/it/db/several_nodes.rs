//! Several nodes and scans that use one database.

use std::path::PathBuf;
use std::time::Duration;

use dcmdex::db::open::WriterHandle;
use dcmdex::db::postgres::PostgresAddress;
use dcmdex::db::{
    EventChanges as _, EventLimits, Mounted, NextUnit, ScanLedger as _, SharedScan, WorklistChanges as _,
};
use dcmdex::model::attribute::AttributeId::SOPInstanceUID;
use dcmdex::model::level::QueryRetrieveLevel::Image;

use super::*;
use crate::util::postgres::{database_of, server};

#[test]
fn a_clock_that_differs_from_that_of_the_server_is_told() {
    let index = server().database();
    let told = |after_ms: i64| {
        let clock = Clock::Fixed(Clock::System.now_ms() + after_ms);
        let writer = Writer::open(&index, WriterOptions { clock, ..WriterOptions::default() }).unwrap();
        writer.handle().announce("ONE", "host", None).unwrap()
    };
    assert_eq!(told(0), Vec::<String>::new());
    for (after_ms, side) in [(-3_600_000, "behind"), (3_600_000, "ahead of")] {
        let told = told(after_ms);
        assert!(told.len() == 1 && told[0].contains(&format!(" s {side} that of the database server")), "{told:?}");
    }
}

#[test]
fn a_worker_leaves_parts_of_a_scan_that_it_cannot_read_to_others() {
    let (dir, index) = (tempfile::tempdir().unwrap(), server().database());
    let path = |below: &str| dir.path().join(below);
    for below in ["tree/one/1", "tree/two/1", "other/one/1"] {
        std::fs::create_dir_all(path(below)).unwrap();
    }
    let worker = |roots: &[(&str, &str)]| {
        let roots: Vec<_> = roots.iter().map(|(name, below)| (*name, path(below))).collect();
        let roots = roots.iter().map(|(name, path)| (*name, path.as_path()));
        writer(&PostgresAddress::with_roots(&index, roots))
    };
    // The second root lies in the first one. Only one of the workers has it.
    let (whole, part) = (worker(&[("all", "tree"), ("two", "tree/two")]), worker(&[("all", "other")]));
    let (whole, part) = (whole.handle(), part.handle());
    let scan = whole.join_shared_scan(shared(path("tree"), [path("tree/one"), path("tree/two")])).unwrap();
    assert_eq!(part.join_shared_scan(shared(path("other"), [])).unwrap(), scan);
    let take = |handle: &WriterHandle| handle.take_unit(scan, LEASE, Vec::new()).unwrap();
    assert_eq!(take(&part), NextUnit::Leased(path("other/one")));
    part.leave_unit(true).unwrap();
    assert_eq!(take(&part), NextUnit::Elsewhere);
    assert_eq!(take(&whole), NextUnit::Leased(path("tree/two")));
    assert_eq!(take(&part), NextUnit::Wait { elsewhere: true });
    whole.leave_unit(true).unwrap();
    assert_eq!(take(&part), NextUnit::Elsewhere, "what lies beside the parts is read last");
    assert_eq!(take(&whole), NextUnit::Last { is_partly: false });
    assert_eq!(take(&part), NextUnit::Wait { elsewhere: true });
    whole.end_scan(scan, "{}".into()).unwrap();
    assert_eq!([take(&part), take(&whole)], [NextUnit::Finished, NextUnit::Finished]);
}

const LEASE: Duration = Duration::from_secs(60);

fn shared<const N: usize>(root: PathBuf, units: [PathBuf; N]) -> SharedScan {
    SharedScan { roots: vec![root], units: units.to_vec(), lease: LEASE, ..SharedScan::default() }
}

#[test]
fn each_worker_brings_the_parts_that_only_it_sees() {
    let index = server().database();
    let (first, second) = (writer(&index), writer(&index));
    let (first, second) = (first.handle(), second.handle());
    let scan = first.join_shared_scan(shared("/d".into(), ["/d/a".into(), "/d/b/1".into()])).unwrap();
    let take = |handle: &WriterHandle, unseen: &[&str]| {
        let unseen = unseen.iter().map(PathBuf::from).collect();
        handle.take_unit(scan, LEASE, unseen).unwrap()
    };
    let leased = |path: &str| NextUnit::Leased(path.into());
    for path in ["/d/a", "/d/b/1"] {
        assert_eq!(take(&first, &[]), leased(path));
        first.leave_unit(true).unwrap();
    }
    assert_eq!(take(&first, &[]), NextUnit::Last { is_partly: false });
    // The second one has a disk below a part, and a directory that the first one cannot read.
    let seen = SharedScan {
        mounted: vec!["/d/a/disk".into()],
        ..shared("/d".into(), ["/d/a/1".into(), "/d/b".into(), "/d/c".into()])
    };
    assert_eq!(second.join_shared_scan(seen).unwrap(), scan);
    assert!(matches!(first.end_scan(scan, "{}".into()), Err(Error::LeaseLost)), "it has not seen all of the scan");
    assert_eq!(take(&first, &["/d/a/disk", "/d/c"]), NextUnit::Elsewhere);
    for path in ["/d/a/disk", "/d/c"] {
        assert_eq!(take(&second, &[]), leased(path));
        assert_eq!(take(&first, &["/d/a/disk", "/d/c"]), NextUnit::Wait { elsewhere: true });
        second.leave_unit(true).unwrap();
    }
    // If the second one goes, the first one ends the scan without it, and says so.
    let left_out = first.leave_out_units(scan, vec!["/d/a/disk".into(), "/d/c".into()]).unwrap();
    assert_eq!(left_out, ["/d/a/disk", "/d/c"]);
    assert_eq!(take(&first, &[]), NextUnit::Last { is_partly: true });
    first.end_scan(scan, "{}".into()).unwrap();
    assert_eq!(take(&first, &[]), NextUnit::Finished);
    // The next scan knows nothing of that.
    let again = second.join_shared_scan(shared("/d".into(), ["/d/a".into()])).unwrap();
    assert_ne!(again, scan);
    assert_eq!(take(&first, &[]), NextUnit::Finished, "its parts are gone, and it has ended");
    assert_eq!(second.take_unit(again, LEASE, Vec::new()).unwrap(), leased("/d/a"));
}

#[test]
fn a_storage_directory_is_refused_at_the_path_of_another_one() {
    let index = server().database();
    let writer = writer(&index);
    let claim = |id: &str, host: &str, path: &str| writer.handle().claim_storage(id, host, Path::new(path));
    let id = claim("", "one", "/data").unwrap().unwrap();
    assert_eq!(claim(&id, "renamed", "/data").unwrap().unwrap(), id, "the same directory");
    let refused = |id: &str, host: &str, path: &str| claim(id, host, path).unwrap_err().to_string();
    let told = refused("", "two", "/data");
    assert!(told.contains("has the path /data in the index, and renamed has it"), "{told}");
    assert!(told.contains(&format!("write {id} into /data/.storage")), "{told}");
    let other = claim("", "two", "/other").unwrap().unwrap();
    assert_ne!(other, id);
    // The claim holds for as long as the index names objects there.
    let of = record("1.2", "1.2.1", "1.2.1.1", &[]);
    store(&writer, of, location(Place::Managed, "/data/1.2/1.2.1", "1.2.1.1.dcm"));
    let aged = "UPDATE storage_directory SET claimed = now() - interval '1 day'";
    server().sql(&database_of(&index), aged);
    refused("", "two", "/data");
    refused("", "renamed", "/data");
    claim("", "three", "/other").unwrap();
    // A copy of the directory has its id.
    writer.handle().announce("ONE", "renamed", Some(Path::new("/data"))).unwrap();
    let told = refused(&id, "two", "/data");
    assert!(told.contains("a node on renamed has it, or a copy of it"), "{told}");
    claim(&id, "renamed", "/data").unwrap();
}

#[test]
fn a_node_that_empties_its_trash_leaves_that_of_another_one() {
    let index = server().database();
    let writer = writer(&index);
    for node in ["/one", "/one-b"] {
        let of = record("1.2", "1.2.1", &format!("1.2.{}", node.len()), &[]);
        store(&writer, of, location(Place::Managed, node, "object"));
    }
    let handle = writer.handle();
    let removal = handle.begin_removal(7, true).unwrap();
    let uids = ["1.2.4", "1.2.6"].map(str::to_owned).to_vec();
    handle.remove(removal, true, uids).unwrap();
    let mut reader = Reader::open(&index).unwrap();
    // Each node moves its own object, and then one of them deletes its own for good.
    handle.trashed(reader.files_for_trash(None, 9).unwrap()).unwrap();
    assert_eq!(handle.emptied(removal, Path::new("/one"), 8).unwrap(), 1);
    let told = reader.removals().unwrap().remove(0);
    assert_eq!((told.in_trash, told.emptied_ms), (1, None));
    assert_eq!(reader.files_of_removal(removal, "", 9).unwrap()[0].location.directory, Path::new("/one-b"));
    assert_eq!(handle.emptied(removal, Path::new("/one-b"), 9).unwrap(), 0);
    assert_eq!(reader.removals().unwrap()[0].emptied_ms, Some(9));
}

#[test]
fn a_mount_at_a_root_is_known_to_its_machine() {
    let (dir, index) = (tempfile::tempdir().unwrap(), server().database());
    let index = PostgresAddress::with_roots(&index, [("ct", dir.path())]);
    let writer = writer(&index);
    let mount_points = || Reader::open(&index).unwrap().mount_points().unwrap();
    for (path, mounted) in [(dir.path().to_owned(), Mounted::Yes), (dir.path().join("disk"), Mounted::Yes)] {
        writer.handle().mount_point(path, mounted).unwrap();
    }
    writer.handle().flush().unwrap();
    assert_eq!(mount_points(), [dir.path().to_owned(), dir.path().join("disk")].into());
    // It was mounted under another name, or on another machine.
    let sql = "UPDATE mount_point SET path = 'elsewhere:/mnt'::bytea WHERE path NOT LIKE '/%'";
    server().sql(&database_of(&index), sql);
    assert_eq!(mount_points(), [dir.path().join("disk")].into());
}

#[test]
fn files_that_were_entered_under_two_names_get_one() {
    let dir = tempfile::tempdir().unwrap();
    crate::util::objects::write(&dir.path().join("a.dcm"), 1, 1, 1);
    for named_first in [false, true] {
        let unnamed = server().database();
        let named = PostgresAddress::with_roots(&unnamed, [("ct", dir.path())]);
        let order = if named_first { [&named, &unnamed] } else { [&unnamed, &named] };
        order.into_iter().for_each(|index| scan_on_disk(index, dir.path(), &["a.dcm"]));
        let mut reader = Reader::open(&named).unwrap();
        let uid = find(&named, &request(Image, &[SOPInstanceUID])).concat().concat();
        assert_eq!(reader.locations(&uid).unwrap().len(), 2);
        let writer = writer(&named);
        drop(reader);
        let moved = writer.handle().relocate(dir.path().to_owned(), dir.path().to_owned()).unwrap();
        assert_eq!((moved.directories, moved.merged, &moved.taken), (1, 1, &Vec::new()), "{named_first}");
        assert_eq!(Reader::open(&named).unwrap().locations(&uid).unwrap().len(), 1);
        assert_eq!(Reader::open(&named).unwrap().directory_files(dir.path()).unwrap().len(), 1);
        assert_eq!(Reader::open(&unnamed).unwrap().directory_files(dir.path()).unwrap().len(), 0);
        assert_sound(&named);
    }
}

#[test]
fn a_node_whose_clock_is_ahead_deletes_nothing_before_its_time() {
    const DAY_MS: i64 = 86_400_000;
    let index = server().database();
    let ahead_ms = Clock::System.now_ms() + 365 * DAY_MS;
    let options = WriterOptions { clock: Clock::Fixed(ahead_ms), ..WriterOptions::default() };
    let writer = Writer::open(&index, options).unwrap();
    let (of, at) = (record("1.2", "1.2.1", "1.2.3", &[]), location(Place::Managed, "/o", "a"));
    store(&writer, of, at);
    let handle = writer.handle();
    for _ in 0..3 {
        handle.tell_damaged(vec!["1.2.3".into()], Clock::System).unwrap();
    }
    let sql = "INSERT INTO performed_step (uid_key, sop_instance_uid, status, station_ae_title, attributes, sender, \
               created_ms, changed_ms) SELECT gen_random_uuid(), '1.2', 'COMPLETED', '', '{}', '', t.now, t.now \
               FROM (SELECT (extract(epoch FROM now()) * 1000)::bigint - $1 AS now) t";
    for days in [1, 8] {
        server().sql(&database_of(&index), &sql.replace("$1", &(days * DAY_MS).to_string()));
    }
    let count = |table: &str| server().sql(&database_of(&index), &format!("SELECT count(*) FROM {table}"));
    let forget = |days: i64| {
        let limits = EventLimits { keep_after_ms: ahead_ms - days * DAY_MS, max_events: 1000 };
        assert_eq!(handle.drop_events(limits).unwrap(), 0);
        let before_ms = ahead_ms - days * DAY_MS;
        handle.change_worklist(Box::new(move |tables| tables.forget_before(before_ms).map(drop))).unwrap();
        (count("event"), count("performed_step"))
    };
    assert_eq!(forget(7), ("3".into(), "1".into()));
    assert_eq!(forget(-1), ("1".into(), "0".into()), "the last event stays");
}
