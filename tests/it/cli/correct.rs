//! Identifiers of patients are corrected in answers, for what is there and what comes later, until
//! the correction is undone.

use std::fs;
use std::process::Stdio;

use dicom_core::Tag;
use dicom_dictionary_std::tags;
use rustix::process::Signal;

use super::faults;
use super::serve::Node;
use super::*;
use crate::util::archives;
use crate::util::http::request;
use crate::util::{objects, peers};

/// Writes an object of the study `1.2.<study>`, with a series of the same number.
fn write(place: &Place, name: &str, patient_id: &str, study: u32, instance: u32) {
    let path = place.path(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, object(patient_id, study, instance)).unwrap();
}

fn object(patient_id: &str, study: u32, instance: u32) -> Vec<u8> {
    let study = format!("1.2.{study}");
    objects::file(patient_id, &study, &format!("{study}.1"), &format!("{study}.1.{instance}"))
}

/// Scans two studies of the patient `OLD` and one of another patient. One object lies in a tar.
fn scanned(place: Place) -> Place {
    for (name, patient_id, study, instance) in
        [("tree/0", "OLD", 0, 0), ("tree/1", "OLD", 0, 1), ("tree/2", "OLD", 1, 2), ("tree/3", "OTHER", 2, 3)]
    {
        write(&place, name, patient_id, study, instance);
    }
    fs::write(place.path("tree/a.tar"), archives::tar(&[("m.dcm", &object("OLD", 0, 4))])).unwrap();
    place.run(["scan", "tree"]).expect(0);
    place
}

/// Patient ID and Patient's Name of all entities of a level, as `dcmdex find` answers them.
fn patients(place: &Place, level: &str) -> Vec<String> {
    place.run(["check", "--files"]).expect(0);
    let find = ["find", "--level", level, "--format", "csv", "PatientID", "PatientName"];
    let mut lines: Vec<String> = place.run(find).stdout.lines().skip(1).map(str::to_owned).collect();
    lines.sort();
    lines
}

const RULE: [&str; 6] = ["correct", "PatientID=OLD", "--set", "PatientID=NEW", "--set", "PatientName=Smith^Anne"];

/// Makes a correction.
fn correct(place: &Place, rule: &[&str]) -> String {
    place.run(rule.iter().copied().chain(["--yes"])).expect(0).stdout
}

fn what_is_corrected_is_said_first_and_is_as_before_after_an_undo(place: Place) {
    let place = scanned(place);
    let before = ["STUDY", "IMAGE"].map(|level| patients(&place, level));
    let told = place.run(RULE).expect(0).stdout;
    assert_eq!(
        told,
        "would correct 4 instances of 2 studies\n  PatientName: Test^Person becomes Smith^Anne\n  PatientID: OLD becomes \
         NEW\nnothing was changed; --yes does it\n"
    );
    assert_eq!(patients(&place, "STUDY"), before[0]);
    let done = correct(&place, &RULE);
    assert!(done.starts_with("correction 1: 4 instances of 2 studies\n"), "{done}");
    let (new, other) = ("NEW,Smith^Anne", "OTHER,Test^Person");
    assert_eq!(patients(&place, "PATIENT"), [new, other]);
    assert_eq!(patients(&place, "STUDY"), [new, new, other]);
    assert_eq!(patients(&place, "IMAGE"), [new, new, new, new, other]);
    let listed = place.run(["correct", "--list"]).expect(0).stdout;
    assert!(listed.starts_with("1: ") && listed.contains("PatientID=OLD becomes PatientID=NEW"), "{listed}");
    assert_eq!(place.run(["correct", "--undo", "1"]).expect(0).stdout.lines().count(), 4);
    assert_eq!(patients(&place, "STUDY").len(), 3);
    let undone = place.run(["correct", "--undo", "1", "--yes"]).expect(0).stdout;
    assert_eq!(undone, "correction 1 was undone: 4 instances of 2 studies are as before\n");
    assert_eq!(["STUDY", "IMAGE"].map(|level| patients(&place, level)), before);
    assert!(place.run(["correct", "--list"]).expect(0).stdout.contains("; undone "));
    for line in place.run(["correct", "--list", "--json"]).expect(0).json() {
        super::scan::assert_documented("correction", &line);
    }
}

fn objects_of_a_study_without_a_patient_id_get_one(place: Place) {
    for (name, patient_id, instance) in [("tree/0", "OLD", 0), ("tree/1", "", 1)] {
        write(&place, name, patient_id, 0, instance);
    }
    place.run(["scan", "tree"]).expect(0);
    let rule = ["correct", "StudyInstanceUID=1.2.0", "PatientID=\"\"", "--set", "PatientID=P9"];
    let done = correct(&place, &rule);
    assert!(done.starts_with("correction 1: 1 instances of 1 studies\n"), "{done}");
    assert_eq!(patients(&place, "IMAGE"), ["OLD,Test^Person", "P9,Test^Person"]);
    // By itself it would mean all objects without one.
    let refused = place.run(["correct", "PatientID=\"\"", "--set", "PatientID=P9"]).expect(2).stderr;
    assert!(refused.contains("PatientID needs one whole value"), "{refused}");
}

#[test]
fn keys_and_values_that_make_no_rule_are_refused() {
    let place = scanned(Place::new());
    let refused = |arguments: &[&str]| place.run(arguments.iter().copied()).expect(2).stderr;
    let new = ["--set", "PatientID=NEW"];
    assert!(refused(&["correct", "PatientName=X", new[0], new[1]]).contains("needs a StudyInstanceUID"));
    assert!(refused(&["correct", "PatientID=O*", new[0], new[1]]).contains("one whole value"));
    assert!(refused(&["correct", "PatientID=", new[0], new[1]]).contains("PatientID=\"\" stands for none"));
    assert!(refused(&["correct", "PatientID=OLD"]).contains("--set PatientID=VALUE"));
    assert!(refused(&["correct", "PatientID=OLD", "--set", "StudyDate=20240101"]).contains("cannot be corrected"));
    assert!(refused(&["correct", "PatientID=OLD", "--set", "PatientBirthDate=1.1.2000"]).contains("not valid"));
    assert!(refused(&["correct", "--undo", "7"]).contains("there is no correction 7"));
    assert_eq!(place.run(["correct", "--list"]).expect(0).stdout, "nothing is corrected\n");
    // What matches nothing now is a rule for what comes later.
    let json = place.run(["correct", "PatientID=NONE", new[0], new[1], "--json"]).expect(1).json().remove(0);
    super::scan::assert_documented("corrected", &json);
    assert_eq!((&json["instances"], &json["dry_run"]), (&0.into(), &true.into()));
}

/// Asks by findscu. Returns Patient ID and Patient's Name of each answer.
fn asked(place: &Place, node: &Node, model: &str, keys: &[&str]) -> Option<Vec<[String; 2]>> {
    let mut findscu = peers::dcmtk("findscu")?;
    let directory = place.path("answers");
    fs::create_dir(&directory).unwrap();
    findscu.current_dir(&directory).args(["-X", model, "-aec", "DCMDEX", "-k", "PatientName"]);
    for key in keys {
        findscu.args(["-k", key]);
    }
    peers::run(findscu.args(["127.0.0.1", &node.port.to_string()])).expect_success();
    let text = |path: &Path, tag: Tag| {
        let object = dicom_object::open_file(path).unwrap();
        object.element(tag).unwrap().to_str().unwrap().trim().to_owned()
    };
    let files = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path());
    let found = files.map(|path| [tags::PATIENT_ID, tags::PATIENT_NAME].map(|tag| text(&path, tag))).collect();
    fs::remove_dir_all(directory).unwrap();
    Some(found)
}

fn a_node_answers_with_corrected_values_at_all_levels_and_matches_them(place: Place) {
    let place = scanned(place);
    let node = Node::start(&place, &["--http-port", "0"]);
    let patient_id = "PatientID=NEW";
    assert!(asked(&place, &node, "-S", &["QueryRetrieveLevel=STUDY", patient_id]).is_none_or(|found| found.is_empty()));
    // Another process makes the correction while the node works.
    correct(&place, &RULE);
    for (model, level, count) in [("-P", "PATIENT", 1), ("-S", "STUDY", 2), ("-P", "SERIES", 2), ("-P", "IMAGE", 4)] {
        let level = format!("QueryRetrieveLevel={level}");
        for keys in [&[level.as_str(), patient_id][..], &[&level, "PatientID", "PatientName=smith*"]] {
            let Some(found) = asked(&place, &node, model, keys) else { return };
            assert_eq!(found, vec![["NEW", "Smith^Anne"]; count], "{keys:?}");
        }
        let old = asked(&place, &node, model, &[&level, "PatientID=OLD"]).unwrap();
        assert!(old.is_empty(), "{level}: {old:?}");
    }
    let web = node.listening["http_address"].as_str().unwrap().parse().unwrap();
    let studies = request(web, "GET", "/dicom-web/studies?PatientID=NEW", &[], b"").expect(200).json();
    let names: Vec<_> =
        studies.as_array().unwrap().iter().map(|study| &study["00100010"]["Value"][0]["Alphabetic"]).collect();
    assert_eq!(names, ["Smith^Anne", "Smith^Anne"]);
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
}

/// Sends an object of patient OLD to a node that is started for it. `None` without DCMTK.
fn receive_one(place: &Place) -> Option<()> {
    let node = Node::start(place, &[]);
    write(place, "sent", "OLD", 7, 8);
    let mut storescu = peers::dcmtk("storescu")?;
    let port = node.port.to_string();
    peers::run(storescu.args(["-aec", "DCMDEX", "127.0.0.1", &port]).arg(place.path("sent"))).expect_success();
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
    Some(())
}

fn what_comes_later_is_corrected_and_keeps_what_it_says(place: Place) {
    let place = scanned(place);
    correct(&place, &RULE);
    write(&place, "tree/new", "OLD", 0, 9);
    place.run(["scan", "tree", "--full"]).expect(0);
    let Some(()) = receive_one(&place) else { return };
    let new = "NEW,Smith^Anne";
    assert_eq!(patients(&place, "IMAGE"), [&[new; 6][..], &["OTHER,Test^Person"]].concat());
    // The object is kept as it came, and a second scan finds nothing changed.
    let kept = fs::read(place.path("dcmdex-data/objects/1.2.7/1.2.7.1/1.2.7.1.8.dcm")).unwrap();
    assert!(kept.windows(3).any(|bytes| bytes == b"OLD"));
    let summary = place.run(["scan", "tree", "--json"]).expect(0).json().pop().unwrap();
    assert_eq!((&summary["indexed"], &summary["updated"], &summary["conflicts"]), (&0.into(), &0.into(), &0.into()));
    place.run(["correct", "--undo", "1", "--yes"]).expect(0);
    assert_eq!(patients(&place, "IMAGE").iter().filter(|patient| *patient == "OLD,Test^Person").count(), 6);
}

#[test]
fn a_lost_index_that_is_built_again_has_the_corrections() {
    let place = scanned(Place::new());
    let Some(()) = receive_one(&place) else { return };
    correct(&place, &RULE);
    correct(&place, &["correct", "StudyInstanceUID=1.2.2", "--set", "PatientSex=O"]);
    place.run(["correct", "--undo", "2", "--yes"]).expect(0);
    for suffix in ["", "-turn"] {
        fs::remove_file(place.path(format!("dcmdex-data/index.db{suffix}"))).unwrap();
    }
    let rebuilt = place.run(["rebuild"]).expect(0).stdout;
    assert!(rebuilt.contains("2 corrections were brought back"), "{rebuilt}");
    place.run(["scan", "tree"]).expect(0);
    assert_eq!(patients(&place, "STUDY"), [&["NEW,Smith^Anne"; 3][..], &["OTHER,Test^Person"]].concat());
    let rules = place.run(["correct", "--list", "--json"]).expect(0).json();
    assert_eq!(rules.iter().map(|rule| rule["undone_ms"].is_null()).collect::<Vec<_>>(), [true, false]);
    // A second run has nothing to do.
    assert!(!place.run(["rebuild"]).expect(0).stdout.contains("corrections"));
}

/// A node has received a study, and has been corrected twice since a backup.
fn corrected_since_a_backup() -> Place {
    let place = Place::new();
    let node = Node::start(&place, &[]);
    let mut peer = faults::associated(&node);
    assert_eq!(faults::store(&mut peer, 0, 10), faults::SUCCESS);
    peer.release();
    assert_eq!(node.stop(Signal::TERM).0, Some(0));
    correct(&place, &["correct", "StudyInstanceUID=1.2.3", "--set", "PatientSex=O"]);
    place.run(["backup", "backup.db"]).expect(0);
    correct(&place, &["correct", "StudyInstanceUID=1.2.3", "--set", "PatientID=RIGHT"]);
    place.run(["correct", "--undo", "1", "--yes"]).expect(0);
    place
}

#[test]
fn a_restored_index_has_the_corrections_that_were_made_or_undone_since() {
    let place = corrected_since_a_backup();
    let now = patients(&place, "STUDY");
    assert_eq!(now, ["RIGHT,Test^Person"]);
    let told = place.run(["restore", "backup.db"]).expect(0).stdout;
    assert!(told.contains("kept:    2 corrections"), "{told}");
    let restored = place.run(["restore", "backup.db", "--yes"]).expect(0).stdout;
    assert!(restored.contains("2 corrections were brought back"), "{restored}");
    assert_eq!(patients(&place, "STUDY"), now);
    let rules = place.run(["correct", "--list", "--json"]).expect(0).json();
    assert_eq!(rules.iter().map(|rule| rule["undone_ms"].is_null()).collect::<Vec<_>>(), [false, true]);
    let beside = fs::read_dir(place.path("dcmdex-data")).unwrap().map(|entry| entry.unwrap().file_name());
    let left: Vec<_> = beside.filter(|name| name.to_string_lossy().contains("restoring")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_node_says_at_its_start_that_its_index_lacks_corrections() {
    let place = corrected_since_a_backup();
    let started = || {
        let mut node = Node::start(&place, &[]);
        let log = std::mem::take(&mut node.at_start).join("\n");
        assert_eq!(node.stop(Signal::TERM).0, Some(0));
        log
    };
    assert!(!started().contains("corrections"));
    // Somebody copies the backup without `restore`.
    fs::copy(place.path("backup.db"), place.path("dcmdex-data/index.db")).unwrap();
    let log = started();
    assert!(log.contains("the index lacks corrections that lie beside") && log.contains("\"corrections\":2"), "{log}");
    place.run(["rebuild"]).expect(0);
    assert_eq!(patients(&place, "STUDY"), ["RIGHT,Test^Person"]);
    // A file that lacks rules of the index gets them.
    let kept = place.path("dcmdex-data/objects/.corrections.json");
    let before = fs::read_to_string(&kept).unwrap();
    fs::write(&kept, before.lines().next().unwrap()).unwrap();
    assert!(started().contains("the file beside the received objects lacked"));
    assert_eq!(fs::read_to_string(&kept).unwrap(), before);
    fs::write(&kept, "no rule").unwrap();
    assert!(started().contains("cannot compare the corrections"));
}

#[test]
fn a_correction_that_is_killed_is_made_or_not() {
    const KILLS: u32 = 10;
    let place = Place::new();
    for file in 0..300 {
        write(&place, &format!("tree/{file}"), "OLD", file / 2, file);
    }
    place.run(["scan", "tree"]).expect(0);
    let begun = std::time::Instant::now();
    correct(&place, &RULE);
    let whole = begun.elapsed();
    let mut holds = true;
    let mut number = 1;
    for at in 0..=KILLS {
        let undo = number.to_string();
        let arguments =
            if holds { vec!["correct", "--undo", &undo, "--yes"] } else { [&RULE[..], &["--yes"]].concat() };
        let mut child = place.command().args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(whole * at / KILLS);
        let _ended = child.kill();
        child.wait().unwrap();
        let rules = place.run(["correct", "--list", "--json"]).expect(0).json();
        let open: Vec<_> = rules.iter().filter(|rule| rule["undone_ms"].is_null()).collect();
        holds = !open.is_empty();
        number = open.last().map_or(0, |rule| rule["correction"].as_u64().unwrap());
        let expected = if holds { "NEW,Smith^Anne" } else { "OLD,Test^Person" };
        assert_eq!(patients(&place, "STUDY"), vec![expected; 150]);
    }
}

fn the_audit_trail_has_the_rule_and_the_studies(place: Place) {
    let place = scanned(place);
    fs::write(place.path("dcmdex.toml"), "[audit]\ndirectory = \"audit\"\n").unwrap();
    correct(&place, &RULE);
    place.run(["correct", "--undo", "1", "--yes"]).expect(0);
    let trail = fs::read_to_string(place.path("audit/audit-00000001.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> = trail.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().all(|line| line["event"] == "corrected" && line["service"] == "correct"), "{trail}");
    assert_eq!(
        lines[0]["query"]["keys"],
        serde_json::json!(["PatientID=OLD", "set PatientID=NEW", "set PatientName=Smith^Anne"])
    );
    assert_eq!(lines[1]["query"]["keys"][0], "undone=1");
    let studies = |line: &serde_json::Value| {
        let studies = line["studies"].as_array().unwrap().iter();
        studies.map(|study| format!("{} {}", study["study_instance_uid"], study["patient_id"])).collect::<Vec<_>>()
    };
    assert_eq!(studies(&lines[0]), ["\"1.2.0\" \"OLD\"", "\"1.2.1\" \"OLD\""]);
    assert_eq!(studies(&lines[1]), ["\"1.2.0\" \"NEW\"", "\"1.2.1\" \"NEW\""]);
}

on_each_engine!(
    what_is_corrected_is_said_first_and_is_as_before_after_an_undo,
    a_node_answers_with_corrected_values_at_all_levels_and_matches_them,
    what_comes_later_is_corrected_and_keeps_what_it_says,
    the_audit_trail_has_the_rule_and_the_studies,
    objects_of_a_study_without_a_patient_id_get_one,
);
