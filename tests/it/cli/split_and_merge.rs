//! A split and a merge of index files that are killed, and merges that would lose something.

use std::fs;
use std::os::unix::fs::symlink;

use super::folder::{answers, folder, instances_of_files};
use super::index_files::sqlite;
use super::*;
use crate::util::{objects, peers};
use dcmdex::db::WorklistSearch;

const SPLIT: [&str; 7] =
    ["index", "split", "folder/main.db", "--into", "folder/new.db", "StudyInstanceUID=1.2.0", "--yes"];
const MERGE: [&str; 6] = ["index", "merge", "--into", "folder/main.db", "folder/cold.db", "--yes"];

/// Kills a command before each call that names or removes one of the files of a folder. All answers
/// stay, and the same command finishes the work.
fn killed_before_each_step(command: &[&str], expected: &[(&str, u64)]) {
    const CALLS: &str = "rename,renameat,renameat2,link,linkat,unlink,unlinkat";
    let Some(mut strace) = peers::program("/usr/bin/strace") else { return };
    let place = folder();
    let before = answers(&place);
    fs::rename(place.path("folder"), place.path("kept")).unwrap();
    let expected: Vec<_> = expected.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
    strace.current_dir(place.path("")).args(["-f", "-o", "calls", "-e", &format!("trace={CALLS}")]);
    // strace compares the first path of `rename` only.
    let renamed = ["main.db.splitting-compact", "main.db.merging-compact", "main.db.split-note.new"];
    for file in ["main.db", "cold.db", "new.db", "main.db.split-note"].into_iter().chain(renamed) {
        strace.arg("-P").arg(place.path("folder").join(file)).args(["-P", &format!("folder/{file}")]);
    }
    for step in 1.. {
        fs::create_dir(place.path("folder")).unwrap();
        for file in ["main.db", "cold.db"] {
            fs::copy(place.path("kept").join(file), place.path("folder").join(file)).unwrap();
        }
        let mut this = Command::new(strace.get_program());
        this.current_dir(place.path("")).args(strace.get_args());
        this.args(["-e", &format!("inject={CALLS}:signal=KILL:when={step}"), env!("CARGO_BIN_EXE_dcmdex")]);
        let done = this.args(command).output().unwrap();
        assert_eq!(answers(&place), before, "step {step}");
        // What was finished before the last step is refused.
        place.run(command.iter().copied());
        assert_eq!((answers(&place), instances_of_files(&place)), (before.clone(), expected.clone()), "step {step}");
        if done.status.code().is_some() {
            assert!(done.status.success(), "{done:?}");
            assert!(step > 3, "{}", fs::read_to_string(place.path("calls")).unwrap());
            return;
        }
        fs::remove_dir_all(place.path("folder")).unwrap();
    }
}

#[test]
fn a_split_that_is_killed_at_any_step() {
    killed_before_each_step(&SPLIT, &[("main.db", 3), ("cold.db", 6), ("new.db", 3)]);
}

#[test]
fn a_merge_that_is_killed_at_any_step() {
    killed_before_each_step(&MERGE, &[("main.db", 12)]);
}

fn refused(place: &Place, expected: &str) {
    let before = (answers(place), instances_of_files(place));
    for command in [&MERGE[..], &MERGE[..5]] {
        let said = place.run(command.iter().copied()).expect(2).stderr;
        assert!(said.contains(expected) && said.contains("nothing was changed"), "{said}");
    }
    assert_eq!((answers(place), instances_of_files(place)), before);
}

#[test]
fn a_merge_that_would_lose_something_is_refused() {
    let place = folder();
    let cold = place.path("folder/cold.db");
    // A node with a worklist and events has written it. The shell takes a leading dash for an
    // option.
    sqlite(&cold, concat!("\n", include_str!("../../../src/db/sqlite/schema/worklist.sql")));
    sqlite(&cold, concat!("\n", include_str!("../../../src/db/sqlite/schema/events.sql")));
    let step = "INSERT INTO performed_step (sop_instance_uid, status, attributes, created_ms, changed_ms) \
                VALUES ('1.2.3', 'IN PROGRESS', '{}', 0, 0)";
    for (made, unmade, said) in [
        (step, "DELETE FROM performed_step", "performed procedure steps"),
        (
            "INSERT INTO event_waiting VALUES ('a', 1, '', 0, 0, 0, '', 0)",
            "DELETE FROM event_waiting",
            "events that a receiver waits for",
        ),
        (
            "INSERT INTO event_cursor VALUES (0, 0)",
            "DELETE FROM event_cursor",
            "studies whose events are still to come",
        ),
        ("INSERT INTO arrival_journal VALUES (0, x'00', 1)", "DELETE FROM arrival_journal", "arrival journal"),
        (
            "UPDATE instance_group SET declared_set = 'x'",
            "UPDATE instance_group SET declared_set = ''",
            "values of other declared attributes",
        ),
    ] {
        sqlite(&cold, made);
        refused(&place, said);
        sqlite(&cold, unmade);
    }
    // History is named, and stays in the former file.
    sqlite(&cold, "INSERT INTO watch VALUES ('[]', '{}')");
    let done = place.run(MERGE).expect(0).stdout;
    assert!(done.contains("keeps for itself: what watched directories had last"), "{done}");
}

#[test]
fn a_merge_brings_nothing_back_that_was_removed() {
    for file in ["folder/main.db", "folder/cold.db"] {
        let place = folder();
        // Both files have a study of one instance.
        for tree in ["one", "two"] {
            objects::write(&place.path(format!("{tree}/more.dcm")), 90, 0, 0);
        }
        place.run(["scan", "--index", "folder/main.db", "one"]).expect(0);
        place.run(["scan", "--index", "folder/cold.db", "two"]).expect(0);
        place.run(["remove", "--index", file, "StudyInstanceUID=1.2.90", "--yes"]).expect(0);
        refused(&place, "instances that were removed from the other file");
    }
}

#[test]
fn a_merge_brings_no_objects_for_an_open_order() {
    let place = folder();
    // The other file has the study.
    let order = r#"{"PatientID": "P1", "StudyInstanceUID": "1.2.2", "Modality": "CT"}"#;
    fs::write(place.path("item.json"), order).unwrap();
    place.run(["worklist", "add", "--index", "folder", "item.json"]).expect(0);
    std::thread::sleep(std::time::Duration::from_millis(2));
    place.run(MERGE).expect(0);
    let mut reader = dcmdex::db::open::Reader::open(&place.path("folder/main.db")).unwrap();
    let arrived = |reader: &mut dyn WorklistSearch| reader.worklist_arrivals(i64::MIN).unwrap().len();
    assert_eq!(arrived(&mut reader), 0);
    objects::write(&place.path("one/new.dcm"), 2, 4, 90);
    place.run(["scan", "--index", "folder/main.db", "one"]).expect(0);
    assert_eq!(arrived(&mut reader), 1);
}

#[test]
fn a_merge_keeps_what_is_known_of_the_bytes_of_copies() {
    let place = folder();
    fs::create_dir(place.path("two/more")).unwrap();
    fs::copy(place.path("two/6.dcm"), place.path("two/more/6.dcm")).unwrap();
    place.run(["scan", "--index", "folder/cold.db", "two"]).expect(0);
    sqlite(&place.path("folder/cold.db"), "UPDATE copy SET differs = 1");
    let conflicts = || place.run(["status", "--index", "folder", "--json"]).expect(0).json()[0]["conflicts"].clone();
    let before = conflicts();
    place.run(MERGE).expect(0);
    assert_eq!(sqlite(&place.path("folder/main.db"), "SELECT count(*) FROM copy WHERE differs").trim(), "1");
    assert_eq!(conflicts(), before);
}

#[test]
fn no_event_tells_of_merged_studies() {
    let place = folder();
    let main = place.path("folder/main.db");
    sqlite(&main, concat!("\n", include_str!("../../../src/db/sqlite/schema/events.sql")));
    sqlite(&main, "INSERT INTO event_cursor SELECT 0, max(change) FROM instance_group");
    place.run(MERGE).expect(0);
    let untold = "SELECT count(*) FROM instance_group WHERE change > (SELECT change FROM event_cursor)";
    assert_eq!(sqlite(&main, untold).trim(), "0");
}

#[test]
fn a_merged_file_that_was_a_link_leaves_none() {
    let place = folder();
    fs::create_dir(place.path("disk")).unwrap();
    fs::rename(place.path("folder/cold.db"), place.path("disk/cold.db")).unwrap();
    let _empty_log_record = fs::remove_file(place.path("folder/cold.db-turn"));
    symlink(place.path("disk/cold.db"), place.path("folder/cold.db")).unwrap();
    let before = answers(&place);
    let done = place.run(MERGE).expect(0).stdout;
    assert!(done.contains("disk/cold.db.before-"), "{done}");
    assert_eq!((answers(&place), instances_of_files(&place)), (before, vec![("main.db".to_owned(), 12)]));
}
