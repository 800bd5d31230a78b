//! Several processes scan the same paths together.

use std::fs;
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::database::{count, settings, trees, unlike_nodes};
use super::*;
use crate::util::{objects, postgres};

/// Starts a worker of a shared scan whose leases hold for a second.
fn worker(place: &Place, index: &str, more: &[&str]) -> Child {
    let mut command = place.command();
    command.env("DCMDEX_SCAN__LEASE_SECONDS", "1").args(["scan", "--shared", "--json", "--index", index, "tree"]);
    command.args(more).stdout(Stdio::piped()).spawn().unwrap()
}

/// What a worker says that it has indexed.
fn indexed_by(worker: Child) -> u64 {
    let output = worker.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let told = String::from_utf8(output.stdout).unwrap();
    let lines = told.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines.filter_map(|line| line["indexed"].as_u64()).next_back().unwrap()
}

/// How often units of shared scans were taken.
fn taken(index: &str) -> u32 {
    let sql = "SELECT coalesce(sum(attempt), 0) FROM scan_unit";
    postgres::server().sql(&postgres::database_of(index.as_ref()), sql).parse().unwrap()
}

#[test]
fn workers_of_a_shared_scan_may_be_killed_and_stopped() {
    let (place, index) = (Place::new(), postgres::server().database().to_str().unwrap().to_owned());
    for number in 0..400_u32 {
        let directory = format!("tree/{}/{}", number / 100, number / 20);
        objects::write(&place.path(format!("{directory}/{number}.dcm")), number / 60, number / 30, number);
    }
    objects::write(&place.path("tree/beside.dcm"), 50, 50, 1000);
    fs::write(place.path("tree/1/Thumbs.db"), "no object").unwrap();
    // Two slow workers: one is stopped with its unit, and the other one is killed with its own.
    place.run(["scan", "--index", &index, "tree/beside.dcm"]).expect(0);
    let stopped = worker(&place, &index, &["--throttle", "20/s"]);
    while taken(&index) == 0 {}
    kill_process(Pid::from_child(&stopped), Signal::STOP).unwrap();
    let before = taken(&index);
    let mut killed = worker(&place, &index, &["--throttle", "20/s"]);
    while taken(&index) == before {}
    killed.kill().unwrap();
    killed.wait().unwrap();
    let by_last = indexed_by(worker(&place, &index, &[]));
    kill_process(Pid::from_child(&stopped), Signal::CONT).unwrap();
    let by_stopped = indexed_by(stopped);
    assert!(by_last + by_stopped <= 400, "nothing is counted twice: {by_last} and {by_stopped}");
    let database = postgres::database_of(index.as_ref());
    let units = postgres::server()
        .sql(&database, "SELECT count(*) FILTER (WHERE is_done) = count(*), max(attempt) FROM scan_unit");
    assert!(units.starts_with("t|") && !units.ends_with("|1"), "some were taken twice: {units}");
    // The same as one worker would have done.
    place.run(["scan", "--index", "alone.db", "tree"]).expect(0);
    let keys = [("patient", "PatientID"), ("study", "StudyInstanceUID"), ("image", "SOPInstanceUID")];
    for (level, key) in keys {
        let found = |index: &str| {
            let command = ["find", "--index", index, "--level", level, "--format", "csv", key, "InstanceAvailability"];
            let mut lines: Vec<String> = place.run(command).expect(0).stdout.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        assert_eq!(found(&index), found("alone.db"), "{level}");
    }
    let status = |index: &str| {
        let status = &place.run(["status", "--index", index, "--json"]).expect(0).json()[0];
        ["instances", "copies", "missing", "failed", "skipped"].map(|key| status[key].clone())
    };
    assert_eq!(status(&index), status("alone.db"));
    place.run(["check", "--index", &index, "--files"]).expect(0);
    let refused = place.run(["scan", "--shared", "--index", "alone.db", "tree"]).expect(2).stderr;
    assert!(refused.contains("a shared scan wants an index in PostgreSQL"), "{refused}");
}

#[test]
fn a_shared_scan_ends_without_a_root_that_nobody_has() {
    let (place, index) = trees();
    let settings = settings(&place, "node", &[("new", "tree/new")]);
    fs::create_dir_all(place.path("tree/new")).unwrap();
    fs::rename(place.path("one"), place.path("tree/one")).unwrap();
    fs::rename(place.path("two/1.dcm"), place.path("tree/beside.dcm")).unwrap();
    // What was known beside the parts is not counted again.
    for (counted, files) in [("indexed", 7), ("unchanged", 6)] {
        let mut worker = place.command();
        worker.env("DCMDEX_SCAN__LEASE_SECONDS", "1").args(["--config", &settings, "scan", "--shared", "--json"]);
        let scanned = super::run(worker.args(["--index", &index, "tree"])).expect(1).json();
        let left_out: Vec<_> = scanned.iter().filter(|line| line["event"] == "left-out").collect();
        assert_eq!((left_out.len(), &left_out[0]["part"]), (1, &"root new".into()), "{scanned:?}");
        assert_eq!(scanned.last().unwrap()[counted], files, "{scanned:?}");
    }
    assert_eq!(count(&place, &index, "IMAGE"), 7);
    // It is scanned as soon as something is there.
    fs::rename(place.path("two/2.dcm"), place.path("tree/new/2.dcm")).unwrap();
    let scan = ["--config", &settings, "scan", "--shared", "--json", "--index", &index, "tree"];
    assert_eq!(place.run(scan).expect(0).json().pop().unwrap()["indexed"], 1);
}

/// Has a worker begin a shared scan, and kills it when it has its first part.
fn begun(place: &Place, index: &str, more: &[&str]) {
    let mut command = place.command();
    command.env("DCMDEX_SCAN__LEASE_SECONDS", "1").args(["--config", "here/dcmdex.toml", "scan", "--shared"]);
    command.args(["--index", index, "--throttle", "1/s", "tree"]).args(more);
    let before = taken(index);
    let mut worker = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while taken(index) == before {}
    worker.kill().unwrap();
    worker.wait().unwrap();
}

#[test]
fn parts_that_a_worker_cannot_see_are_no_scanned_ones() {
    let (place, index, [here, there]) = unlike_nodes();
    let scan = |settings: &str, tree: &str, more: &[&str]| {
        let mut worker = place.command();
        worker.env("DCMDEX_SCAN__LEASE_SECONDS", "1").args(["--config", settings, "scan", "--shared", "--json"]);
        super::run(worker.args(["--index", &index, tree]).args(more))
    };
    let left_out = |lines: &[serde_json::Value]| {
        let parts = lines.iter().filter(|line| line["event"] == "left-out").map(|line| line["part"].to_string());
        parts.collect::<Vec<_>>()
    };
    place.run(["--config", &here, "scan", "--index", &index, "tree/one/0.dcm"]).expect(0);
    begun(&place, &index, &[]);
    let lines = scan(&there, "less", &[]).expect(1).json();
    assert_eq!(left_out(&lines), ["\"two of root all\""], "{lines:?}");
    let lines = scan(&here, "tree", &[]).expect(0).json();
    assert_eq!((left_out(&lines).len(), &lines.last().unwrap()["indexed"]), (0, &6.into()), "{lines:?}");
    assert_eq!(count(&place, &index, "IMAGE"), 12);
    // What the worker does not see is not gone.
    begun(&place, &index, &["--prune"]);
    let lines = scan(&there, "less", &["--prune"]).expect(1).json();
    assert_eq!((left_out(&lines).len(), &lines.last().unwrap()["removed"]), (1, &0.into()), "{lines:?}");
    assert_eq!(count(&place, &index, "IMAGE"), 12);
}

#[test]
fn processes_of_a_shared_scan_need_the_same_rules() {
    let (place, index) = trees();
    fs::create_dir(place.path("tree")).unwrap();
    fs::rename(place.path("one"), place.path("tree/one")).unwrap();
    place.run(["scan", "--index", &index, "two"]).expect(0);
    let mut slow = worker(&place, &index, &["--throttle", "1/s", "--exclude", "*.tmp"]);
    while taken(&index) == 0 {}
    let other = |rules: &[&str]| {
        let mut command = place.command();
        command.env("DCMDEX_SCAN__LEASE_SECONDS", "1").args(["scan", "--shared", "--index", &index, "tree"]);
        super::run(command.args(rules))
    };
    let told = other(&["--prune"]).expect(2).stderr;
    for part in ["scan.prune is false there and true here", "scan.exclude is [\"*.tmp\"] there and [] here"] {
        assert!(told.contains(part), "{told}");
    }
    // A scan that nobody goes on with is in nobody's way.
    slow.kill().unwrap();
    slow.wait().unwrap();
    while other(&["--prune"]).code == 2 {}
    assert_eq!(count(&place, &index, "IMAGE"), 12);
}

#[test]
fn a_full_shared_scan_reads_each_file_once() {
    let (place, index) = trees();
    fs::create_dir_all(place.path("tree")).unwrap();
    fs::rename(place.path("one"), place.path("tree/one")).unwrap();
    fs::rename(place.path("two/0.dcm"), place.path("tree/beside.dcm")).unwrap();
    let scan = |more: &[&str]| {
        let scan = ["scan", "--shared", "--json", "--index", &index, "tree"];
        place.run([&scan[..], more].concat()).expect(0).json().pop().unwrap()
    };
    let first = scan(&[]);
    let again = scan(&["--full"]);
    assert_eq!(again["read_file_bytes"], first["read_file_bytes"], "{again}");
}
