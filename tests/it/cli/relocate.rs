//! Indexed files get the new path of their directory.

use std::fs;

use rustix::process::Signal;

use super::serve::Node;
use super::*;
use crate::util::archives::{self};
use crate::util::objects;

fn scanned(place: &Place, tree: &str, files: u32) {
    for file in 0..files {
        objects::write(&place.path(format!("{tree}/{}/{file}.dcm", file / 4)), file / 8, file / 4, file);
    }
    place.run(["scan", tree]).expect(0);
}

fn paths(place: &Place) -> String {
    place.run(["find", "--level", "IMAGE", "--format", "csv", "path"]).expect(0).stdout
}

/// What the summary of a scan counts.
fn count(place: &Place, tree: &str, what: &str) -> u64 {
    let scanned = place.run(["scan", tree, "--json"]).expect(0);
    scanned.json().last().unwrap()[what].as_u64().unwrap()
}

#[test]
fn a_moved_archive_is_unchanged_at_its_new_path() {
    let place = Place::new();
    fs::create_dir_all(place.path("old/sub")).unwrap();
    let member = objects::file("P9", "1.2.99", "1.2.99.1", "1.2.99.1.1");
    fs::write(place.path("old/sub/a.tar"), archives::tar(&[("m.dcm", &member)])).unwrap();
    scanned(&place, "old", 20);
    fs::rename(place.path("old"), place.path("new")).unwrap();
    let told = place.run(["relocate", "old", "new", "--dry-run"]).expect(0).stdout;
    assert!(told.contains("21 instances would get a path at"), "{told}");
    assert_eq!(paths(&place).matches("/old/").count(), 21);
    // A node works meanwhile.
    let node = Node::start(&place, &[]);
    let done = place.run(["relocate", "old", "new"]).expect(0).stdout;
    assert!(done.contains("21 instances got a path at"), "{done}");
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
    assert_eq!((paths(&place).matches("/old/").count(), paths(&place).matches("/new/").count()), (0, 21));
    place.run(["check", "--files"]).expect(0);
    assert_eq!(count(&place, "new", "indexed"), 0);
    assert_eq!(count(&place, "new", "unchanged"), 21);
    let roots = place.run(["status", "--json"]).expect(0).json()[0]["roots"].clone();
    assert_eq!(roots, serde_json::json!([place.path("new").to_str().unwrap()]));
    let unknown = place.run(["relocate", "old", "new"]).expect(2);
    assert!(unknown.stderr.contains("knows nothing at or below"), "{unknown:?}");
}

#[test]
fn a_path_may_move_below_or_above_itself() {
    let place = Place::new();
    // One of the new paths is the old path of another directory.
    for (file, directory) in [(0, "data"), (1, "data/data"), (2, "data/data/x")] {
        objects::write(&place.path(format!("{directory}/{file}.dcm")), file, file, file);
    }
    place.run(["scan", "data"]).expect(0);
    fs::rename(place.path("data"), place.path("away")).unwrap();
    fs::create_dir(place.path("data")).unwrap();
    fs::rename(place.path("away"), place.path("data/data")).unwrap();
    place.run(["relocate", "data", "data/data"]).expect(0);
    place.run(["check", "--files"]).expect(0);
    fs::rename(place.path("data/data"), place.path("away")).unwrap();
    fs::remove_dir(place.path("data")).unwrap();
    fs::rename(place.path("away"), place.path("data")).unwrap();
    place.run(["relocate", "data/data", "data"]).expect(0);
    place.run(["check", "--files"]).expect(0);
}

#[test]
fn it_never_goes_onto_other_files_and_takes_the_place_of_copies() {
    let place = Place::new();
    scanned(&place, "old", 8);
    // The user scanned the new place first.
    fs::create_dir_all(place.path("new")).unwrap();
    fs::rename(place.path("old"), place.path("new/archive")).unwrap();
    fs::create_dir(place.path("old")).unwrap();
    place.run(["scan", "new"]).expect(0);
    let merged = place.run(["relocate", "old", "new/archive", "--dry-run"]);
    // The scan has found the move by itself, so nothing is at the old path.
    assert!(merged.code == 2 || merged.stdout.contains("known there already"), "{merged:?}");
    // Other files at the new path.
    let place = Place::new();
    scanned(&place, "old", 8);
    objects::write(&place.path("new/0/other.dcm"), 70, 70, 70);
    place.run(["scan", "new"]).expect(0);
    let refused = place.run(["relocate", "old", "new"]).expect(2);
    assert!(refused.stderr.contains("the index knows other files at"), "{refused:?}");
    place.run(["check", "--files"]).expect(0);
    let nowhere = place.run(["relocate", "old", "nowhere"]).expect(2);
    assert!(nowhere.stderr.contains("is its disk mounted?"), "{nowhere:?}");
}

#[test]
fn copies_at_the_new_path_give_way() {
    let place = Place::new();
    scanned(&place, "old", 8);
    run(place.command_of("cp").args(["-rp", "old", "new"])).expect(0);
    place.run(["scan", "new"]).expect(0);
    fs::remove_dir_all(place.path("old")).unwrap();
    let done = place.run(["relocate", "old", "new"]).expect(0).stdout;
    assert!(done.contains("2 were known there already"), "{done}");
    place.run(["check", "--files"]).expect(0);
    assert_eq!(count(&place, "new", "unchanged"), 8);
    assert_eq!(place.run(["status", "--json"]).expect(0).json()[0]["copies"], 0);
}

#[test]
fn paths_that_are_no_utf_8_are_moved_as_well() {
    use std::os::unix::ffi::OsStrExt as _;
    let place = Place::new();
    for (number, name) in [b"a\xff".as_slice(), b"b"].into_iter().enumerate() {
        let number = u32::try_from(number).unwrap();
        let directory = place.path("old").join(std::ffi::OsStr::from_bytes(name));
        objects::write(&directory.join("1.dcm"), number, number, number);
    }
    place.run(["scan", "old"]).expect(0);
    let new = place.path(std::ffi::OsStr::from_bytes(b"n\xfe"));
    for (from, to) in [(place.path("old"), new.clone()), (new, place.path("again"))] {
        fs::rename(&from, &to).unwrap();
        run(place.command().arg("relocate").arg(&from).arg(&to)).expect(0);
        place.run(["check", "--files"]).expect(0);
    }
    assert_eq!(count(&place, "again", "unchanged"), 2);
}

#[test]
fn a_relocation_that_is_killed_leaves_all_paths_or_none_changed() {
    const KILLS: u32 = 12;
    let place = Place::new();
    scanned(&place, "old", 400);
    let begun = std::time::Instant::now();
    place.run(["relocate", "old", "new", "--unseen"]).expect(0);
    let whole = begun.elapsed();
    for at in 1..=KILLS {
        let is_new = paths(&place).contains("/new/");
        let (from, to) = if is_new { ("new", "old") } else { ("old", "new") };
        let mut command = place.command();
        command.args(["relocate", from, to, "--unseen"]);
        super::backup::killed(command, whole * at / KILLS);
        place.run(["check"]).expect(0);
        let paths = paths(&place);
        let counts = (paths.matches("/old/").count(), paths.matches("/new/").count());
        assert!(counts == (400, 0) || counts == (0, 400), "{counts:?}");
    }
}
