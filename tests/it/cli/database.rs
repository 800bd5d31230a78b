//! A PostgreSQL database is the index of each command.

use std::fs;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use dcmdex::db::WorklistSearch as _;
use rustix::process::Signal;

use super::faults::{OUT_OF_RESOURCES, STUDY_ROOT_FIND, SUCCESS, associated, store, studies, uid};
use super::serve::Node;
use super::*;
use crate::util::scripted::{DataSet, ScriptedPeer, find_command};
use crate::util::{archives, objects, peers, postgres};

/// Two trees of the same two studies, six instances each, and an empty database.
pub(super) fn trees() -> (Place, String) {
    let place = Place::new();
    for (tree, first) in [("one", 0), ("two", 6)] {
        for number in 0..6 {
            objects::write(&place.path(format!("{tree}/{number}.dcm")), number / 3, number / 2, first + number);
        }
    }
    (place, postgres::server().database().to_str().unwrap().to_owned())
}

pub(super) fn count(place: &Place, index: &str, level: &str) -> usize {
    let found = place.run(["find", "--index", index, "--level", level, "--format", "csv", "SOPInstanceUID"]);
    found.expect(0).stdout.lines().count() - 1
}

#[test]
fn a_node_stores_finds_and_sends_with_a_database() {
    let (place, index) = trees();
    place.run(["scan", "--index", &index, "one"]).expect(0);
    let node = Node::start(&place, &["--index", &index]);
    let port = node.port.to_string();
    let Some(mut storescu) = peers::dcmtk("storescu") else { return };
    storescu.current_dir(place.path("")).args(["-aec", "DCMDEX", "+sd", "127.0.0.1", &port, "two"]);
    peers::run(&mut storescu).expect_success();
    let mut findscu = peers::dcmtk("findscu").unwrap();
    findscu.args([
        "-v",
        "-S",
        "-aec",
        "DCMDEX",
        "-k",
        "QueryRetrieveLevel=STUDY",
        "-k",
        "NumberOfStudyRelatedInstances",
    ]);
    let found = peers::run(findscu.args(["127.0.0.1", &port])).expect_success();
    assert_eq!(found.matches("(Pending)").count(), 2, "{found}");
    fs::create_dir(place.path("got")).unwrap();
    let mut getscu = peers::dcmtk("getscu").unwrap();
    getscu.args(["-S", "+B", "-aec", "DCMDEX", "-od"]).arg(place.path("got"));
    let study = ["-k", "0008,0052=STUDY", "-k", "0020,000d=1.2.0", "127.0.0.1", &port];
    peers::run(getscu.args(study)).expect_success();
    assert_eq!(fs::read_dir(place.path("got")).unwrap().count(), 6, "those of the scan and those received");
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
    assert_eq!(count(&place, &index, "IMAGE"), 12);
    place.run(["check", "--index", &index, "--files"]).expect(0);
}

#[test]
fn a_node_takes_no_objects_of_another_for_its_own() {
    let (place, index) = trees();
    let received = |storage: &str, sent: &str| {
        let node = Node::start(&place, &["--index", &index, "--storage", storage]);
        if let Some(mut storescu) = peers::dcmtk("storescu").filter(|_| !sent.is_empty()) {
            storescu.current_dir(place.path("")).args(["-aec", "DCMDEX", "+sd", "127.0.0.1"]);
            peers::run(storescu.arg(node.port.to_string()).arg(sent)).expect_success();
        }
        assert_eq!(node.stop(Signal::TERM).0, Some(0));
    };
    received("a", "two");
    // A directory of the same study and series.
    received("b", "one/0.dcm");
    let paths_of = |storage: &str| {
        let found = place.run(["find", "--index", &index, "--level", "IMAGE", "--format", "csv", "path"]);
        found.expect(0).stdout.matches(&format!("/{storage}/")).count()
    };
    assert_eq!((paths_of("a"), paths_of("b")), (6, 1));
    // The disk of the first node is away.
    fs::rename(place.path("a"), place.path("away")).unwrap();
    received("b", "");
    assert_eq!((paths_of("a"), paths_of("b")), (6, 1));
    // A storage directory that has moved is followed.
    received("away", "");
    assert_eq!((paths_of("away"), paths_of("b")), (6, 1));
}

#[test]
fn an_index_moves_from_a_file_to_a_database_and_back() {
    let (place, index) = trees();
    place.run(["scan", "--index", "one.db", "one", "two"]).expect(0);
    let copied = place.run(["copy-index", "one.db", &index]).expect(0).stdout;
    assert!(copied.contains("2 studies, 4 series, 12 instances; read again, and the same"), "{copied}");
    assert!(!copied.contains("the copy does not have"), "{copied}");
    assert_eq!(count(&place, &index, "IMAGE"), 12);
    // Nothing has to be read again.
    let scanned = place.run(["scan", "--index", &index, "--json", "one", "two"]).expect(0).json().pop().unwrap();
    assert_eq!((&scanned["unchanged"], &scanned["indexed"]), (&12.into(), &0.into()), "{scanned}");
    let back = place.run(["copy-index", "--json", &index, "back.db"]).expect(0).json();
    assert_eq!((&back[0]["instances"], &back[0]["left_behind"]), (&12.into(), &serde_json::json!([])));
    assert_eq!(count(&place, "back.db", "IMAGE"), 12);
    let refused = place.run(["copy-index", "one.db", "back.db"]).expect(2).stderr;
    assert!(refused.contains("both files"), "{refused}");
    let refused = place.run(["copy-index", &index, "back.db"]).expect(2).stderr;
    assert!(refused.contains("there is something at back.db"), "{refused}");
}

#[test]
fn no_index_is_copied_into_the_empty_one_of_a_node_that_runs() {
    let (place, index) = trees();
    place.run(["scan", "--index", "one.db", "one"]).expect(0);
    let node = Node::start(&place, &["--index", &index, "--metadata-only"]);
    let refused = place.run(["copy-index", "one.db", &index]).expect(2).stderr;
    assert!(refused.contains("in use"), "{refused}");
    let mut peer = associated(&node);
    assert_eq!(store(&mut peer, 0, 1000), SUCCESS);
    peer.release();
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
    assert_eq!(count(&place, &index, "IMAGE"), 1);
}

#[test]
fn no_index_is_copied_into_a_database_that_holds_only_a_worklist() {
    let (place, index) = trees();
    place.run(["scan", "--index", "one.db", "one"]).expect(0);
    fs::write(place.path("item.json"), r#"{"PatientID": "P1", "AccessionNumber": "A1", "Modality": "CT"}"#).unwrap();
    place.run(["worklist", "add", "--index", &index, "item.json"]).expect(0);
    let refused = place.run(["copy-index", "one.db", &index]).expect(2).stderr;
    assert!(refused.contains("there is something at"), "{refused}");
    let kept = place.run(["worklist", "list", "--index", &index]).expect(0).stdout;
    assert!(kept.contains("A1"), "{kept}");
}

#[test]
fn an_open_order_for_a_study_that_was_there_before_is_copied() {
    let (place, index) = trees();
    place.run(["scan", "--index", "one.db", "one"]).expect(0);
    let order = r#"{"PatientID": "P1", "StudyInstanceUID": "1.2.0", "Modality": "CT"}"#;
    fs::write(place.path("item.json"), order).unwrap();
    place.run(["worklist", "add", "--index", "one.db", "item.json"]).expect(0);
    thread::sleep(Duration::from_millis(2));
    place.run(["copy-index", "one.db", &index]).expect(0);
    place.run(["copy-index", &index, "back.db"]).expect(0);
    for copy in [index.as_str(), "one.db", "back.db"] {
        let path = if copy == index { index.clone().into() } else { place.path(copy) };
        let mut reader = dcmdex::db::open::Reader::open(&path).unwrap();
        assert_eq!(reader.worklist_arrivals(i64::MIN).unwrap(), [], "{copy}");
        assert_eq!(place.run(["worklist", "list", "--index", copy, "--json"]).expect(0).json().len(), 1);
    }
}

/// Asks for studies. Returns the status of the first response.
fn find_status(peer: &mut ScriptedPeer) -> u16 {
    let asked = DataSet::default().text(0x0008, 0x0052, "STUDY").uid(0x0020, 0x000D, "");
    peer.send_message(3, &find_command(1, STUDY_ROOT_FIND), Some(&asked.0));
    peer.receive_message().status()
}

#[test]
fn peers_are_told_that_the_server_is_gone_and_the_node_goes_on_when_it_is_back() {
    let (place, server) = (Place::new(), postgres::PostgresServer::start(&["fsync=on"]));
    let index = server.database().to_str().unwrap().to_owned();
    let node = Node::start(&place, &["--index", &index]);
    let mut peer = associated(&node);
    assert_eq!(store(&mut peer, 0, 1000), SUCCESS);
    server.kill_and_hold();
    assert_eq!(store(&mut peer, 1, 1000), OUT_OF_RESOURCES);
    let status = find_status(&mut peer);
    assert!(matches!(status, 0xA700 | 0xC000..0xD000), "{status:04X}");
    server.let_start();
    assert_eq!(store(&mut peer, 1, 1000), SUCCESS);
    assert_eq!(studies(&mut peer), 1);
    peer.release();
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
    assert_eq!(count(&place, &index, "IMAGE"), 2);
}

/// The end of a command that waits for a table of the server, until the statements of sessions with
/// this condition are cancelled.
fn ended_by(place: &Place, arguments: &[&str], database: &str, condition: &str) -> Run {
    let server = postgres::server();
    let _held = server.hold(database, "SET statement_timeout = 0; LOCK TABLE study IN ACCESS EXCLUSIVE MODE");
    let waiting = place.command().args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let of_database = "FROM pg_stat_activity WHERE datname = current_database()";
    while server.sql(database, &format!("SELECT count(*) {of_database} AND wait_event_type = 'Lock'")) == "0" {}
    // Longer than the limit that a statement has.
    thread::sleep(Duration::from_millis(400));
    server.sql(database, &format!("SELECT pg_cancel_backend(pid) {of_database} AND {condition}"));
    let output = waiting.wait_with_output().unwrap();
    let [stdout, stderr] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    Run { code: output.status.code().unwrap(), stdout, stderr }
}

#[test]
fn a_query_that_the_server_cancels_is_an_error() {
    let (place, index) = trees();
    place.run(["scan", "--index", &index, "one"]).expect(0);
    fs::write(place.path("x.csv"), "before").unwrap();
    let database = postgres::database_of(index.as_ref());
    let find = ["find", "--index", &index, "--format", "csv", "StudyInstanceUID"];
    for arguments in [&find[..], &["export", "--index", &index, "--out", "x.csv"]] {
        let cancelled = ended_by(&place, arguments, &database, "wait_event_type = 'Lock'").expect(2);
        assert!(cancelled.stderr.contains("canceling statement due to user request"), "{cancelled:?}");
    }
    assert_eq!(fs::read_to_string(place.path("x.csv")).unwrap(), "before");
    // A query may take long, whatever the server says of statements.
    postgres::server().sql(&database, &format!("ALTER DATABASE {database} SET statement_timeout = '300ms'"));
    let found = ended_by(&place, &find, &database, "wait_event = 'PgSleep'").expect(0);
    assert_eq!(found.stdout.lines().count(), 3, "{found:?}");
}

#[test]
fn the_index_is_told_without_the_roots_of_the_settings() {
    let (place, index) = trees();
    let (settings, one) = (settings(&place, "a", &[("one", "one")]), place.path("one"));
    let scan = ["scan", "--json", one.to_str().unwrap()];
    for command in [&scan[..], &["check", "--json"], &["status", "--json"], &["status"]] {
        let arguments = ["--config", &settings].into_iter().chain(command.iter().copied()).chain(["--index", &index]);
        let told = place.run(arguments).expect(0).stdout;
        assert!(told.contains("postgresql://") && !told.contains("dcmdex_root"), "{told}");
    }
}

/// The settings of a node with these roots, in a directory of its own.
pub(super) fn settings(place: &Place, node: &str, roots: &[(&str, &str)]) -> String {
    let directory = place.path(node);
    fs::create_dir_all(&directory).unwrap();
    let of = |(name, path): &(&str, &str)| {
        format!("[[root]]\nname = \"{name}\"\npath = \"{}\"\n", place.path(path).display())
    };
    let file = directory.join("dcmdex.toml");
    fs::write(&file, roots.iter().map(of).collect::<String>()).unwrap();
    file.to_str().unwrap().to_owned()
}

/// A database and the settings of two nodes. Both have the first tree, each at a place of its own.
/// Only the first node has the second tree, and has scanned both.
fn two_nodes() -> (Place, String, [String; 2]) {
    let (place, index) = trees();
    fs::create_dir_all(place.path("elsewhere/first")).unwrap();
    for number in 0..6 {
        let name = format!("{number}.dcm");
        fs::hard_link(place.path("one").join(&name), place.path("elsewhere/first").join(&name)).unwrap();
    }
    let here = settings(&place, "here", &[("first", "one"), ("second", "two")]);
    let there = settings(&place, "there", &[("first", "elsewhere/first"), ("second", "nowhere")]);
    place.run(["--config", &here, "scan", "--index", &index, "one", "two"]).expect(0);
    (place, index, [here, there])
}

/// Two nodes with a tree of two directories at places of their own. The second one lacks one of
/// them, although it has their root.
pub(super) fn unlike_nodes() -> (Place, String, [String; 2]) {
    let (place, index) = trees();
    for (tree, there) in [("one", Some("less/one")), ("two", None)] {
        let whole = place.path("tree").join(tree);
        fs::create_dir_all(place.path("tree")).unwrap();
        fs::rename(place.path(tree), &whole).unwrap();
        let Some(there) = there.map(|there| place.path(there)) else { continue };
        fs::create_dir_all(&there).unwrap();
        for number in 0..6 {
            let name = format!("{number}.dcm");
            fs::hard_link(whole.join(&name), there.join(&name)).unwrap();
        }
    }
    let nodes = [("here", "tree"), ("there", "less")].map(|(node, path)| settings(&place, node, &[("all", path)]));
    (place, index, nodes)
}

#[test]
fn nodes_with_other_mounts_find_and_send_what_they_have() {
    let (place, index, [here, there]) = two_nodes();
    let found = |settings: &str, key: &str| {
        let command = ["--config", settings, "find", "--index", &index, "--level", "image", "--format", "csv", key];
        place.run(command).expect(0).stdout
    };
    let available = |settings: &str| {
        let found = found(settings, "InstanceAvailability");
        ["ONLINE", "UNAVAILABLE"].map(|word| found.lines().filter(|line| line.contains(word)).count())
    };
    assert_eq!((available(&here), available(&there)), ([12, 0], [6, 6]));
    // A scan of the other node knows the files, and does not miss those that it does not have.
    let scan = ["--config", &there, "scan", "--index", &index, "--json", "--prune", "elsewhere"];
    let scanned = place.run(scan).expect(0).json().pop().unwrap();
    assert_eq!((&scanned["unchanged"], &scanned["missing"]), (&6.into(), &0.into()), "{scanned}");
    place.run(["--config", &there, "check", "--index", &index]).expect(0);
    assert_eq!(available(&here), [12, 0]);
    let node = Node::start_with(place.command().args(["--config", &there, "serve", "--port", "0", "--index", &index]));
    let Some(mut getscu) = peers::dcmtk("getscu") else { return };
    fs::create_dir(place.path("got")).unwrap();
    getscu.args(["-S", "+B", "-aec", "DCMDEX", "-od"]).arg(place.path("got"));
    getscu.args(["-k", "0008,0052=STUDY", "-k", "0020,000d=1.2.0", "127.0.0.1", &node.port.to_string()]);
    // It says that some sub-operations failed.
    peers::run(&mut getscu);
    assert_eq!(fs::read_dir(place.path("got")).unwrap().count(), 3, "those of the first tree");
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
}

#[test]
fn an_index_is_not_copied_to_a_file_by_a_node_that_lacks_its_roots() {
    let (place, index, [here, _]) = two_nodes();
    let told = place.run(["copy-index", &index, "back.db"]).expect(2).stderr;
    assert!(told.contains("roots that the settings do not name: first, second"), "{told}");
    assert!(!place.path("back.db").exists());
    let roots = fs::read_to_string(&here).unwrap();
    fs::write(&here, format!("index = {index:?}\n{roots}")).unwrap();
    place.run(["--config", &here, "copy-index", &index, "back.db"]).expect(0);
    let found = place.run(["find", "--index", "back.db", "--paths0"]).expect(0).stdout;
    let of = |tree: &str| found.split('\0').filter(|path| Path::new(path).starts_with(place.path(tree))).count();
    assert_eq!([of("one"), of("two")], [6, 6], "{found}");
}

#[test]
fn what_was_scanned_before_its_root_had_a_name_gets_that_name() {
    let (place, index) = trees();
    let scan = |more: &[&str]| place.run([&["scan", "--index", &index, "--json", "one"], more].concat());
    scan(&[]).expect(0);
    let settings = settings(&place, "node", &[("ct", "one")]);
    let (named, path) = (["--config", &settings], place.path("one").display().to_string());
    let refused = scan(&named).expect(2).stderr;
    assert!(refused.contains(&format!("files at {path} that now are at root ct")), "{refused}");
    assert!(refused.contains(&format!("run `dcmdex relocate {path} {path}`")), "{refused}");
    let relocate = |old: &str, new: &str| place.run([&named[..], &["relocate", "--index", &index, old, new]].concat());
    let told = relocate("one", "one").expect(0).stdout;
    assert!(told.contains("1 directories with the first files of 6 instances got a path"), "{told}");
    assert_eq!(scan(&named).expect(0).json().pop().unwrap()["unchanged"], 6);
    fs::remove_file(place.path("one/0.dcm")).unwrap();
    let pruned = scan(&[&named[..], &["--prune"]].concat()).expect(0).json().pop().unwrap();
    assert_eq!((&pruned["removed"], count(&place, &index, "IMAGE")), (&1.into(), 5), "{pruned}");
    place.run([&named[..], &["check", "--index", &index, "--files"]].concat()).expect(0);
    let told = relocate("one", "one").expect(2).stderr;
    assert!(told.contains("knows nothing at or below"), "{told}");
}

#[test]
fn a_root_inside_of_another_one_needs_its_name_on_each_node() {
    let (place, index, [_, there]) = unlike_nodes();
    fs::create_dir_all(place.path("less/two")).unwrap();
    for number in 0..6 {
        let name = format!("{number}.dcm");
        fs::hard_link(place.path("tree/two").join(&name), place.path("less/two").join(&name)).unwrap();
    }
    // The second node enters what the first one has as a root of its own.
    let here = settings(&place, "here", &[("all", "tree"), ("two", "tree/two")]);
    let scan =
        |settings: &str, tree: &str| place.run(["--config", settings, "scan", "--index", &index, "--json", tree]);
    scan(&there, "less").expect(0);
    let refused = scan(&here, "tree").expect(2).stderr;
    let (two, less) = (place.path("tree/two"), place.path("less/two"));
    assert!(refused.contains(&format!("run `dcmdex relocate /@all/two {}`", two.display())), "{refused}");
    let relocate = ["--config", &here, "relocate", "--index", &index, "/@all/two", "tree/two"];
    place.run(relocate).expect(0);
    assert_eq!(scan(&here, "tree").expect(0).json().pop().unwrap()["unchanged"], 12);
    // From now on it has to name that root.
    let told = format!(
        "another node has root two at two of root all; hint: name it here too, as a [[root]] with the path {}",
        less.display()
    );
    let refused = scan(&there, "less").expect(2).stderr;
    assert!(refused.contains(&told), "{refused}");
    let node = Node::start_with(place.command().args(["--config", &there, "serve", "--port", "0", "--index", &index]));
    assert!(node.at_start.iter().any(|line| line.contains("WARN") && line.contains(&told)), "{:?}", node.at_start);
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
    let there = settings(&place, "there", &[("all", "less"), ("two", "less/two")]);
    assert_eq!(scan(&there, "less").expect(0).json().pop().unwrap()["unchanged"], 12);
    assert_eq!(count(&place, &index, "IMAGE"), 12);
}

#[test]
fn files_that_have_moved_get_their_new_path_in_a_database() {
    let (place, index) = trees();
    fs::write(place.path("one/note.txt"), "no object").unwrap();
    let member = objects::file("P9", "1.2.99", "1.2.99.1", "1.2.99.1.1");
    fs::write(place.path("one/a.tar"), archives::tar(&[("m.dcm", &member)])).unwrap();
    let scan = |tree: &str| place.run(["scan", "--index", &index, "--json", tree]).expect(1).json().pop().unwrap();
    let before = scan("one");
    assert_eq!((&before["indexed"], &before["failed"]), (&7.into(), &1.into()), "{before}");
    fs::create_dir(place.path("new")).unwrap();
    fs::rename(place.path("one"), place.path("new/one")).unwrap();
    let relocate = || place.run(["relocate", "--index", &index, "one", "new/one"]);
    let node = Node::start(&place, &["--index", &index]);
    let refused = relocate().expect(2).stderr;
    assert!(refused.contains("is in use: end the node"), "{refused}");
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
    let told = relocate().expect(0).stdout;
    assert!(told.contains("2 directories with the first files of 7 instances got a path"), "{told}");
    let after = scan("new/one");
    assert_eq!((&after["indexed"], &after["read_file_bytes"]), (&0.into(), &0.into()), "{after}");
    assert_eq!((&after["found"], &after["failed"]), (&before["found"], &before["failed"]), "{after}");
    let found = place.run(["find", "--index", &index, "--paths0"]).expect(0).stdout;
    let moved = place.path("new/one").to_str().unwrap().to_owned();
    assert!(found.split_terminator('\0').all(|path| path.starts_with(&moved)), "{found}");
    place.run(["check", "--index", &index, "--files"]).expect(0);
}

#[test]
fn what_one_node_removes_stays_removed_for_a_node_with_other_mounts() {
    let (place, index, [here, there]) = two_nodes();
    let run = |settings: &str, command: &[&str]| {
        place.run([&["--config", settings][..], &command[..1], &["--index", &index], &command[1..]].concat()).expect(0)
    };
    run(&here, &["remove", "StudyInstanceUID=1.2.0", "--yes"]);
    assert_eq!(count(&place, &index, "IMAGE"), 6);
    let scanned = run(&there, &["scan", "--json", "elsewhere"]).json().pop().unwrap();
    assert_eq!((&scanned["indexed"], &scanned["unchanged"]), (&0.into(), &3.into()), "{scanned}");
    assert_eq!(count(&place, &index, "IMAGE"), 6);
    // Undoing brings back the files that this node has, and those of the other node by its next
    // scan.
    place.run(["--config", &there, "remove", "--index", &index, "--undo", "1", "--yes"]);
    assert_eq!(count(&place, &index, "IMAGE"), 9);
    run(&here, &["scan", "one", "two"]);
    assert_eq!(count(&place, &index, "IMAGE"), 12);
    run(&here, &["check", "--files"]);
}

#[test]
fn objects_that_another_node_received_go_to_the_trash_of_that_node() {
    let (place, index) = (Place::new(), postgres::server().database().to_str().unwrap().to_owned());
    let node = Node::start(&place, &["--index", &index, "--storage", "one"]);
    let mut peer = associated(&node);
    assert_eq!(store(&mut peer, 0, 1000), SUCCESS);
    peer.release();
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
    fs::create_dir(place.path("two")).unwrap();
    let remove =
        |storage: &str, more: &[&str]| place.run([&["remove", "--index", &index, "--storage", storage], more].concat());
    remove("two", &["StudyInstanceUID=1.2.3", "--objects", "--yes"]).expect(0);
    let object = place.path(format!("one/1.2.3/1.2.3.4/{}.dcm", uid(0)));
    let waiting = || {
        let removal = remove("two", &["--list", "--json"]).expect(0).json().remove(0);
        [removal["for_trash"].as_u64(), removal["in_trash"].as_u64()]
    };
    assert_eq!((object.exists(), waiting()), (true, [Some(1), Some(0)]));
    // The node that has the object moves it at its next start.
    let node = Node::start(&place, &["--index", &index, "--storage", "one"]);
    while waiting() != [Some(0), Some(1)] {}
    assert!(!object.exists());
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
    // It stays there until somebody empties that trash, or brings the object back from it.
    let told = remove("two", &["--empty", "0", "--yes"]).expect(0).stdout;
    assert!(
        told.contains("0 objects were deleted for good") && told.contains("1 objects are in the trash of"),
        "{told}"
    );
    let told = remove("two", &["--undo", "1", "--yes"]).expect(1).stdout;
    assert!(told.contains("1 instances have objects in another storage directory"), "{told}");
    assert_eq!(waiting(), [Some(0), Some(1)]);
    remove("one", &["--undo", "1", "--yes"]).expect(0);
    assert_eq!((count(&place, &index, "IMAGE"), object.exists()), (1, true));
}

/// Has a node store an object in `storage`. Returns the path of the object below that directory.
fn stored(place: &Place, serve: &[&str], storage: &str) -> String {
    let node = Node::start_with(place.command().args(serve).args(["--port", "0", "--storage", storage]));
    let mut peer = associated(&node);
    assert_eq!(store(&mut peer, 0, 1000), SUCCESS);
    peer.release();
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
    format!("1.2.3/1.2.3.4/{}.dcm", uid(0))
}

/// The same, and leaves the directory as a kill leaves it that comes right after the response.
fn stored_before_a_kill(place: &Place, serve: &[&str], storage: &str) -> String {
    let object = stored(place, serve, storage);
    let incoming = place.path(storage).join(format!(".incoming/0,1.2.3,1.2.3.4,{}", uid(0)));
    fs::hard_link(place.path(storage).join(&object), incoming).unwrap();
    object
}

#[test]
fn an_acknowledged_object_is_kept_if_its_storage_directory_moves_after_a_kill() {
    for index in ["one.db", postgres::server().database().to_str().unwrap()] {
        let place = Place::new();
        let object = stored_before_a_kill(&place, &["serve", "--index", index], "before");
        fs::rename(place.path("before"), place.path("after")).unwrap();
        let node = Node::start(&place, &["--index", index, "--storage", "after"]);
        assert_eq!(node.stop(Signal::TERM).0, Some(0));
        assert!(place.path("after").join(&object).exists(), "{index}");
        place.run(["check", "--index", index, "--files"]).expect(0);
    }
}

#[test]
fn a_storage_directory_is_refused_if_its_root_has_another_name() {
    let (place, index) = (Place::new(), postgres::server().database().to_str().unwrap().to_owned());
    fs::create_dir_all(place.path("disk/objects")).unwrap();
    let of_root = |name: &str| settings(&place, name, &[(name, "disk")]);
    let serve = |settings: &str| ["--config", settings, "serve", "--index", &index].map(str::to_owned);
    let (before, renamed, none) = (of_root("ct"), of_root("mr"), settings(&place, "none", &[]));
    let object = stored_before_a_kill(&place, &serve(&before).each_ref().map(String::as_str), "disk/objects");
    let objects = ["--port", "0", "--storage", "disk/objects"];
    for (settings, now) in
        [(renamed, "objects of root mr".to_owned()), (none, place.path("disk/objects").display().to_string())]
    {
        let serve = serve(&settings);
        let refused = place.run(serve.iter().map(String::as_str).chain(objects)).expect(2).stderr;
        assert!(
            refused.contains(&format!("at objects of root ct, and with these settings they would be at {now}")),
            "{refused}"
        );
        assert!(place.path("disk/objects").join(&object).exists());
    }
    let node = Node::start_with(place.command().args(serve(&before)).args(objects));
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
    assert!(place.path("disk/objects").join(&object).exists());
    place.run(["--config", &before, "check", "--index", &index, "--files"]).expect(0);
}

#[test]
fn a_node_makes_no_storage_directory_where_the_disk_of_a_root_may_be_missing() {
    let (place, index) = (Place::new(), postgres::server().database().to_str().unwrap().to_owned());
    fs::create_dir(place.path("disk")).unwrap();
    let settings = settings(&place, "node", &[("ct", "disk")]);
    let serve = ["--config", &settings, "serve", "--index", &index, "--port", "0", "--storage", "disk/objects"];
    let refused = place.run(serve).expect(2).stderr;
    assert!(refused.contains("a node makes none below a root"), "{refused}");
    assert_eq!(fs::read_dir(place.path("disk")).unwrap().count(), 0);
    fs::create_dir(place.path("disk/objects")).unwrap();
    let node = Node::start_with(place.command().args(serve));
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
}

#[test]
fn objects_are_not_taken_for_those_at_the_same_path_of_another_machine() {
    let (place, index) = (Place::new(), postgres::server().database().to_str().unwrap().to_owned());
    let object = stored(&place, &["serve", "--index", &index], "storage");
    // Another machine has another disk there.
    fs::rename(place.path("storage"), place.path("disk")).unwrap();
    fs::create_dir(place.path("storage")).unwrap();
    let run = |command: &[&str]| place.run([command, &["--index", &index, "--storage", "storage"]].concat());
    let refused = run(&["serve", "--port", "0"]).expect(2).stderr;
    assert!(refused.contains("another storage directory has the path") && refused.contains("[[root]]"), "{refused}");
    run(&["remove", "StudyInstanceUID=1.2.3", "--objects", "--yes"]).expect(0);
    let removal = run(&["remove", "--list", "--json"]).expect(0).json().remove(0);
    assert_eq!((&removal["for_trash"], &removal["in_trash"]), (&1.into(), &0.into()), "{removal}");
    let refused = run(&["remove", "--undo", "1", "--yes"]).expect(2).stderr;
    assert!(refused.contains("another storage directory has the path"), "{refused}");
    // The machine that has the object moves it at its next start, and brings it back.
    fs::rename(place.path("storage"), place.path("other")).unwrap();
    fs::rename(place.path("disk"), place.path("storage")).unwrap();
    let node = Node::start(&place, &["--index", &index, "--storage", "storage"]);
    while place.path("storage").join(&object).exists() {}
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
    run(&["remove", "--undo", "1", "--yes"]).expect(0);
    assert_eq!((count(&place, &index, "IMAGE"), place.path("storage").join(&object).exists()), (1, true));
}

#[test]
fn a_rule_of_free_space_takes_only_studies_with_objects_on_its_disk() {
    let (place, index) = (Place::new(), postgres::server().database().to_str().unwrap().to_owned());
    for (storage, numbers) in [("one", 0..2), ("two", 2..3)] {
        let node = Node::start(&place, &["--index", &index, "--storage", storage]);
        let Some(mut storescu) = peers::dcmtk("storescu") else { return };
        storescu.current_dir(place.path("")).args(["-aec", "DCMDEX", "+sd", "127.0.0.1", &node.port.to_string()]);
        for number in numbers {
            objects::write(&place.path(format!("for-{storage}/{number}.dcm")), number, number, number);
        }
        peers::run(storescu.arg(format!("for-{storage}"))).expect_success();
        assert_eq!(node.stop(Signal::TERM).0, Some(0));
    }
    fs::create_dir(place.path("empty")).unwrap();
    let chosen = |storage: &str| {
        let command = ["remove", "--index", &index, "--storage", storage, "--objects", "--no-undo"];
        place.run([&command[..], &["PatientID=*", "--until-free", "900000T"]].concat())
    };
    let told = chosen("empty").expect(1).stdout;
    assert!(told.contains("nothing matches"), "{told}");
    for (storage, count) in [("one", 2), ("two", 1)] {
        let told = chosen(storage).expect(0).stdout;
        assert!(told.contains(&format!("{count} instances of {count} studies: {count} received objects")), "{told}");
    }
}

#[test]
fn entries_of_a_root_stay_if_another_directory_is_in_its_place() {
    let (place, index) = trees();
    let settings = settings(&place, "node", &[("ct", "all/ct")]);
    fs::create_dir(place.path("all")).unwrap();
    fs::rename(place.path("one"), place.path("all/ct")).unwrap();
    fs::rename(place.path("two"), place.path("all/other")).unwrap();
    let scan = |more: &[&str]| {
        let scan = ["--config", &settings, "scan", "--index", &index, "--json", "all"];
        place.run([&scan[..], more].concat()).json().pop().unwrap()
    };
    assert_eq!(scan(&[])["indexed"], 12);
    // The directory below the mount point of a disk that is not mounted.
    fs::rename(place.path("all/ct"), place.path("disk")).unwrap();
    fs::create_dir(place.path("all/ct")).unwrap();
    fs::write(place.path("all/ct/NOT_MOUNTED.txt"), "mount the disk here").unwrap();
    let scanned = scan(&["--prune"]);
    assert_eq!((&scanned["removed"], &scanned["not_pruned"]), (&0.into(), &6.into()), "{scanned}");
    assert_eq!(count(&place, &index, "IMAGE"), 12);
    // Files that were deleted from a root that is there are gone.
    fs::remove_dir_all(place.path("all/ct")).unwrap();
    fs::rename(place.path("disk"), place.path("all/ct")).unwrap();
    fs::remove_file(place.path("all/ct/0.dcm")).unwrap();
    assert_eq!(scan(&["--prune"])["removed"], 1);
    assert_eq!(count(&place, &index, "IMAGE"), 11);
}

#[test]
fn a_node_warns_of_a_standby_that_may_lack_what_was_acknowledged() {
    let primary = postgres::PostgresServer::start(&["fsync=on"]);
    let _standby = primary.standby();
    let (place, index) = (Place::new(), primary.database().to_str().unwrap().to_owned());
    let node = Node::start(&place, &["--index", &index]);
    let warned = |what: &str| node.at_start.iter().any(|line| line.contains("WARN") && line.contains(what));
    assert!(warned("durability is full") && warned("synchronous_standby_names is empty"), "{:?}", node.at_start);
    assert!(!warned("fsync is off"), "{:?}", node.at_start);
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
}

#[test]
fn nodes_of_one_title_are_told() {
    let (place, index) = (Place::new(), postgres::server().database().to_str().unwrap().to_owned());
    let node = |storage: &str, title: &str| {
        Node::start(&place, &["--index", &index, "--storage", storage, "--ae-title", title])
    };
    let warned = |node: &Node| node.at_start.iter().any(|line| line.contains("has the AE title ONE too"));
    let one = node("one", "ONE");
    let (other, same) = (node("other", "OTHER"), node("same", "ONE"));
    assert_eq!([&one, &other, &same].map(warned), [false, false, true], "{:?}", same.at_start);
    for node in [same, one, other] {
        assert_eq!(node.stop(Signal::TERM).0, Some(0));
    }
    let again = node("again", "ONE");
    assert!(!warned(&again), "the others have ended: {:?}", again.at_start);
    assert_eq!(again.stop(Signal::TERM).0, Some(0));
}
