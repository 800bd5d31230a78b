//! Watched directories, of `serve` and of `scan --follow`.

use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::process::Stdio;
use std::time::{Duration, UNIX_EPOCH};

use rustix::process::Signal;
use serde_json::Value;

use super::scan::assert_documented;
use super::serve::Node;
use super::*;
use crate::util::objects;

/// Messages of a look at everything and of a look at changes.
const LOOKS: [&str; 2] = ["looked at a watched directory", "looked at changes"];

/// Writes the settings of a node that watches a directory.
fn watch(place: &Place, keys: &str) {
    fs::create_dir_all(place.path("archive")).unwrap();
    // Looks that find nothing new are logged at debug.
    let log = "[log]\nfilter = \"info,dcmdex::cli::serve::watch_thread=debug\"";
    fs::write(place.path("dcmdex.toml"), format!("{log}\n[[watch]]\npath = \"archive\"\n{keys}\n")).unwrap();
}

fn write(place: &Place, inside: &str, study: u32, instance: u32) {
    let path = place.path(inside);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    objects::write(&path, study, 1, instance);
}

fn number(line: &Value, field: &str) -> u64 {
    line[field].as_u64().unwrap_or_else(|| panic!("{field}: {line}"))
}

/// Waits for looks until one fits. No file may count as failed in any of them.
fn wait_for_look(node: &mut Node, fits: impl Fn(&Value) -> bool) -> Value {
    loop {
        let look = node.wait_for_any(&LOOKS);
        assert_eq!(number(&look, "failed"), 0, "{look}");
        if fits(&look) {
            return look;
        }
    }
}

fn studies(place: &Place) -> usize {
    place.run(["find", "--format", "ndjson", "StudyInstanceUID"]).stdout.lines().count()
}

fn status(place: &Place) -> Value {
    place.run(["status", "--json"]).expect(0).json().remove(0)
}

#[test]
fn a_node_finds_what_comes_and_goes_by_polling() {
    let place = Place::new();
    watch(&place, "every = \"1s\"\nevents = false");
    let mut node = Node::start(&place, &[]);
    wait_for_look(&mut node, |look| look["found"] == 0);
    write(&place, "archive/a/1", 1, 1);
    write(&place, "archive/b/1", 2, 1);
    let look = wait_for_look(&mut node, |look| number(look, "pending") > 0);
    assert_eq!((number(&look, "indexed"), studies(&place)), (0, 0), "a new file waits");
    while studies(&place) < 2 {
        wait_for_look(&mut node, |look| number(look, "indexed") > 0);
    }
    fs::remove_dir_all(place.path("archive/a")).unwrap();
    wait_for_look(&mut node, |look| number(look, "removed") == 1);
    assert_eq!(studies(&place), 1);

    let state = status(&place)["watches"][0].clone();
    assert_documented("watch", &state);
    assert_documented("look", &state["last"]);
    assert_eq!((&state["plan"], &state["by"], &state["overdue"]), (&"every 1s".into(), &"serve".into(), &false.into()));
    assert_eq!(state["events"], "polling (events = off)");
    let shown = place.run(["status"]).expect(0).stdout;
    assert!(shown.contains("/archive: every 1s, changes by polling (events = off)"), "{shown}");

    // SIGHUP ends a watch that is no longer in the file.
    fs::write(place.path("dcmdex.toml"), "").unwrap();
    node.signal(Signal::HUP);
    node.wait_for("peers and certificates read again");
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
    assert_eq!(status(&place)["watches"], serde_json::json!([]));
}

/// Nice values of the threads of a process, by name.
fn nice_values(pid: u32) -> Vec<(String, i32)> {
    let of_thread = |task: fs::DirEntry| {
        let stat = fs::read_to_string(task.path().join("stat")).ok()?;
        let (name, fields) = stat.split_once('(')?.1.rsplit_once(')')?;
        // proc_pid_stat(5): the nice value is field 19, and the name is field 2.
        Some((name.to_owned(), fields.split_whitespace().nth(16)?.parse().ok()?))
    };
    fs::read_dir(format!("/proc/{pid}/task")).unwrap().filter_map(|task| of_thread(task.unwrap())).collect()
}

#[test]
fn looks_give_way_to_peers_on_a_busy_processor() {
    let place = Place::new();
    watch(&place, "every = \"1s\"\nevents = false");
    let mut node = Node::start(&place, &[]);
    wait_for_look(&mut node, |look| look["found"] == 0);
    let threads = nice_values(node.id());
    let nice =
        |name: &str| threads.iter().find(|(of, _)| of == name).unwrap_or_else(|| panic!("{name}: {threads:?}")).1;
    assert_eq!(nice("watch"), (nice("index writer") + 10).min(19));
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
}

#[test]
fn a_node_finds_what_the_kernel_reports_long_before_the_next_look() {
    let place = Place::new();
    watch(&place, "every = \"1d\"");
    write(&place, "archive/old/1", 1, 1);
    let mut node = Node::start(&place, &[]);
    let listens = node.wait_for_any(&["watches a directory"]);
    if listens["events"] != "inotify" {
        println!("skipped: {}", listens["events"]);
        return;
    }
    wait_for_look(&mut node, |look| number(look, "indexed") == 1);
    write(&place, "archive/old/2", 1, 2);
    write(&place, "archive/new/deep/1", 2, 1);
    // Names that a scan skips are no changes either.
    write(&place, "archive/__MACOSX/1", 3, 1);
    let look = wait_for_look(&mut node, |look| number(look, "indexed") > 0);
    assert_eq!((look["message"].as_str(), number(&look, "indexed")), (Some("looked at changes"), 2));
    assert_eq!(studies(&place), 2);
    // What was made since is seen, too: the kernel reports new directories.
    write(&place, "archive/new/deep/2", 2, 2);
    wait_for_look(&mut node, |look| number(look, "indexed") == 1);
    // A removal brings the next look forward.
    fs::remove_dir_all(place.path("archive/new")).unwrap();
    wait_for_look(&mut node, |look| number(look, "removed") == 2);
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
    let status = status(&place);
    assert_eq!(status["watches"][0]["plan"], "every 1d");
    assert_eq!(status["scans"].as_array().unwrap().len(), 1, "all looks of a day are one scan: {status}");
    assert_eq!((&status["scans"][0]["summary"]["by"], &status["instances"]), (&"watch".into(), &2.into()));
}

#[test]
fn a_file_that_grows_slowly_never_counts_as_failed() {
    let place = Place::new();
    watch(&place, "every = \"1s\"");
    write(&place, "whole", 1, 1);
    let whole = fs::read(place.path("whole")).unwrap();
    let mut node = Node::start(&place, &[]);
    let mut file = fs::File::create(place.path("archive/grows")).unwrap();
    let step = whole.len().div_ceil(4);
    for part in whole.chunks(step) {
        file.write_all(part).unwrap();
        wait_for_look(&mut node, |look| number(look, "pending") == 1);
    }
    drop(file);
    while studies(&place) == 0 {
        wait_for_look(&mut node, |look| number(look, "indexed") == 1);
    }
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
}

#[test]
fn a_root_that_vanishes_keeps_its_files_until_it_is_back() {
    let place = Place::new();
    watch(&place, "every = \"1s\"\nevents = false");
    write(&place, "archive/a/1", 1, 1);
    let mut node = Node::start(&place, &[]);
    while studies(&place) == 0 {
        wait_for_look(&mut node, |look| number(look, "indexed") == 1);
    }
    fs::rename(place.path("archive"), place.path("gone")).unwrap();
    let failed = node.wait_for("a watched directory cannot be looked at");
    assert!(failed["error"].as_str().unwrap().ends_with("it does not exist"), "{failed}");
    assert_eq!(studies(&place), 1);
    let last = status(&place)["watches"][0]["last"].clone();
    assert!(last["error"].as_str().unwrap().contains("does not exist"), "{last}");
    // An empty directory in its place is a disk that is not mounted.
    fs::create_dir(place.path("archive")).unwrap();
    node.wait_for("files below a watched directory are missing");
    assert_eq!(studies(&place), 1);
    fs::remove_dir(place.path("archive")).unwrap();
    fs::rename(place.path("gone"), place.path("archive")).unwrap();
    wait_for_look(&mut node, |look| number(look, "found") == 1);
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
    assert_eq!(status(&place)["missing"], 0);
}

#[test]
fn a_scan_that_follows_goes_on_and_ends_in_order() {
    let place = Place::new();
    write(&place, "archive/1", 1, 1);
    let mut command = place.command();
    command.args(["scan", "--json", "--follow", "--every", "1s", "archive"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    assert_eq!(lines.next().unwrap()["event"], "started");
    let mut indexed = 0;
    while indexed < 1 {
        let event = lines.next().unwrap();
        match event["event"].as_str().unwrap() {
            "summary" => indexed += number(&event, "indexed"),
            "pending" => assert_documented("pending", &event),
            "listens" => assert_documented("listens", &event),
            _ => {}
        }
    }
    write(&place, "archive/2", 1, 2);
    while indexed < 2 {
        let event = lines.next().unwrap();
        assert_ne!(event["event"], "failed", "{event}");
        indexed += if event["event"] == "summary" { number(&event, "indexed") } else { 0 };
    }
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::TERM).unwrap();
    lines.for_each(drop);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(status(&place)["instances"], 2);
    let wrong = place.run(["scan", "--follow", "--every", "soon", "archive"]).expect(2);
    assert!(wrong.stderr.contains("30s, 15m, 2h or 1d"), "{wrong:?}");
}

#[test]
fn a_file_on_tape_is_left_there_unless_it_is_asked_for() {
    let place = Place::new();
    fs::create_dir(place.path("archive")).unwrap();
    // Like a stub of storage management: a size, and no blocks.
    let stub = fs::File::create(place.path("archive/stub")).unwrap();
    stub.set_len(1 << 20).unwrap();
    stub.set_modified(UNIX_EPOCH + Duration::from_secs(86_400)).unwrap();
    // Small enough to lie in the inode of many file systems.
    let small = fs::File::create(place.path("archive/small")).unwrap();
    small.set_len(4096).unwrap();
    small.set_modified(UNIX_EPOCH + Duration::from_secs(86_400)).unwrap();
    let young = fs::File::create(place.path("archive/young")).unwrap();
    young.set_len(1 << 20).unwrap();
    write(&place, "archive/object", 1, 1);

    let scan = |more: &[&str], code| {
        let arguments = [&["scan", "--json"], more, &["archive"]].concat();
        place.run(arguments).expect(code).json().pop().unwrap()
    };
    let summary = scan(&[], 1);
    if summary["failed"] == 3 {
        println!("skipped: this file system has no tape behind it");
        return;
    }
    assert_eq!(summary["skipped_by_reason"], serde_json::json!({ "offline": 1 }));
    assert_eq!((number(&summary, "indexed"), number(&summary, "failed")), (1, 2));
    // Asked again, it is still there. What is called back is read.
    assert_eq!(scan(&[], 1)["skipped_by_reason"]["offline"], 1);
    let recalled = scan(&["--recall"], 1);
    assert_eq!((number(&recalled, "skipped"), number(&recalled, "failed")), (0, 3));
    objects::write(&place.path("archive/stub"), 2, 1, 1);
    assert_eq!(number(&scan(&[], 1), "indexed") + studies(&place) as u64, 3);
}

#[test]
fn directories_may_be_watched_inside_each_other() {
    let place = Place::new();
    fs::create_dir_all(place.path("archive/new")).unwrap();
    let watches = "[[watch]]\npath = \"archive\"\nevery = \"2s\"\n[[watch]]\npath = \"archive/new\"\nevery = \"1s\"\n";
    fs::write(place.path("dcmdex.toml"), watches).unwrap();
    // A link that leads back is no loop.
    std::os::unix::fs::symlink(place.path("archive"), place.path("archive/new/loop")).unwrap();
    write(&place, "archive/1", 1, 1);
    write(&place, "archive/new/1", 2, 1);
    let mut node = Node::start(&place, &[]);
    while studies(&place) < 2 {
        wait_for_look(&mut node, |look| number(look, "indexed") > 0);
    }
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
    let status = status(&place);
    assert_eq!((&status["instances"], &status["copies"], &status["missing"]), (&2.into(), &0.into(), &0.into()));
    assert_eq!(status["watches"].as_array().unwrap().len(), 2);
}
