//! C-STORE: which objects are kept or refused, and the responses.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dicom_dictionary_std::tags;

use dcmdex::db::{Admin, Arrivals, DuplicatePolicy, IndexStatus, KnownPolicy, Search};
use dcmdex::dimse::command_set::{self, CommandField};
use dcmdex::dimse::pdata::put_message;
use dcmdex::model::checksum::Checksum;
use dcmdex::model::location::Place;
use dicom_ul::pdu::{AbortRQServiceProviderReason, AbortRQSource, Pdu};

use super::retrieval::getter;
use crate::db;
use crate::util::node::{Keep, TestNode};
use crate::util::scripted::{
    DataSet, EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, Received, ScriptedPeer, VERIFICATION, store_command,
};

const SECONDARY_CAPTURE: &str = "1.2.840.10008.5.1.4.1.1.7";
const CONTEXTS: &[(&str, &[&str])] =
    &[(SECONDARY_CAPTURE, &[IMPLICIT_VR_LITTLE_ENDIAN]), (VERIFICATION, &[IMPLICIT_VR_LITTLE_ENDIAN])];

const OUT_OF_RESOURCES: u16 = 0xA700;
const DOES_NOT_MATCH: u16 = 0xA900;
const CANNOT_UNDERSTAND: u16 = 0xC000;
const DUPLICATE: u16 = 0x0111;

fn object(instance: &str) -> DataSet {
    DataSet::instance(SECONDARY_CAPTURE, "1.2.3", "1.2.3.4", instance)
}

fn with_pixels(instance: &str, value: u8, length: usize) -> DataSet {
    object(instance).bytes(0x7FE0, 0x0010, &vec![value; length])
}

fn store(peer: &mut ScriptedPeer, instance: &str, data_set: &DataSet) -> Received {
    peer.send_message(1, &store_command(7, SECONDARY_CAPTURE, instance), Some(&data_set.0));
    let response = peer.receive_message();
    assert_eq!(response.field(), CommandField::C_STORE_RSP);
    assert_eq!(response.command.unsigned_short(tags::MESSAGE_ID_BEING_RESPONDED_TO), Ok(7));
    assert_eq!(response.command.text(tags::AFFECTED_SOP_INSTANCE_UID), Ok(instance));
    response
}

pub(crate) fn status(node: &TestNode) -> IndexStatus {
    node.reader().status().unwrap()
}

/// Returns the object files below the storage directory, finished or not. It first waits until
/// incoming links are gone, which is soon after the responses.
pub(crate) fn files(node: &TestNode) -> Vec<PathBuf> {
    node.wait_for_incoming_links();
    files_below(node.storage())
}

/// Waits until the storage directory of a running node has no object, finished or not.
fn wait_until_no_file(node: &TestNode) {
    while !files(node).is_empty() {
        std::thread::yield_now();
    }
}

fn files_below(directory: PathBuf) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![directory];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => left.push(path),
                false if [".lock", ".index", ".journal", ".storage"].iter().any(|own| path.ends_with(own)) => {}
                // Gone since it was listed, or known by its other name.
                false
                    if fs::metadata(&path)
                        .is_ok_and(|it| it.nlink() == 1 || !path.parent().unwrap().ends_with(".incoming")) =>
                {
                    found.push(path);
                }
                false => {}
            }
        }
    }
    found
}

/// Returns the data set of a file that the node wrote.
fn data_set_of(path: &Path) -> Vec<u8> {
    let bytes = fs::read(path).unwrap();
    let length = u32::from_le_bytes(bytes[140..144].try_into().unwrap()) as usize;
    bytes[144 + length..].to_vec()
}

#[test]
fn an_instance_is_kept_byte_for_byte_and_indexed_before_success() {
    let node = TestNode::start();
    let mut peer = node.associate(CONTEXTS);
    // Larger than all buffers on its way.
    let sent = with_pixels("1.2.3.4.5", 0xA5, 3_000_001);
    assert_eq!(store(&mut peer, "1.2.3.4.5", &sent).status(), 0);
    let locations = node.reader().locations("1.2.3.4.5").unwrap();
    let [location] = locations.as_slice() else { panic!("{locations:?}") };
    let path = location.path().unwrap();
    assert_eq!(path, node.storage().canonicalize().unwrap().join("1.2.3/1.2.3.4/1.2.3.4.5.dcm"));
    assert!(data_set_of(&path) == sent.0);
    assert_eq!(location.size, fs::metadata(&path).unwrap().len());
    let read = dicom_object::OpenFileOptions::new().open_file(&path).unwrap();
    assert_eq!(read.meta().transfer_syntax(), IMPLICIT_VR_LITTLE_ENDIAN);
    assert_eq!(read.meta().source_application_entity_title.as_deref().map(str::trim), Some("SCRIPT"));
    peer.release();
}

#[test]
fn a_defect_in_the_index_is_answered_and_the_next_instance_kept_without_a_restart() {
    let node = TestNode::start();
    let index = node.directory().path().join("index.db");
    fail::cfg(format!("arrive {} 1.2.3.4.9", index.display()), "panic(a defect)").unwrap();
    let mut peer = node.associate(CONTEXTS);
    for number in 0..3 {
        let uid = format!("1.2.3.4.{number}");
        assert_eq!(store(&mut peer, &uid, &object(&uid)).status(), 0);
        let response = store(&mut peer, "1.2.3.4.9", &object("1.2.3.4.9"));
        assert_eq!((response.status(), response.error_comment()), (OUT_OF_RESOURCES, "the index does not take it now"));
    }
    peer.release();
    assert_eq!((status(&node).instances, files(&node).len()), (3, 3));
    // What was acknowledged before and after is the same to the next process.
    let directory = node.directory();
    node.stop();
    let node = TestNode::with(|settings| settings.directory = directory);
    assert_eq!(status(&node).instances, 3);
}

#[test]
fn a_node_that_is_started_again_knows_what_it_acknowledged() {
    let node = TestNode::start();
    let mut peer = node.associate(CONTEXTS);
    for number in 0..20 {
        let uid = format!("1.2.3.4.{number}");
        assert_eq!(store(&mut peer, &uid, &object(&uid)).status(), 0);
    }
    let directory = node.directory();
    node.stop();
    let node = TestNode::with(|settings| settings.directory = directory);
    assert_eq!(status(&node).instances, 20);
    for number in 0..20 {
        let locations = node.reader().locations(&format!("1.2.3.4.{number}")).unwrap();
        assert!(locations[0].path().unwrap().is_file());
    }
}

#[test]
fn metadata_only_keeps_the_row_and_no_bytes() {
    let node = TestNode::with(|settings| settings.keep = Keep::MetadataOnly);
    let mut peer = node.associate(CONTEXTS);
    let sent = with_pixels("1.2.3.4.5", 1, 1_000_000);
    assert_eq!(store(&mut peer, "1.2.3.4.5", &sent).status(), 0);
    assert_eq!(status(&node).instances, 1);
    let locations = node.reader().locations("1.2.3.4.5").unwrap();
    assert_eq!((locations[0].place, locations[0].path()), (Place::MetadataOnly, None));
    assert_eq!(locations[0].size, sent.0.len() as u64);
    assert!(!node.storage().exists());
}

#[test]
fn the_same_instance_again_is_a_success_and_changes_nothing() {
    let node = TestNode::start();
    let mut peer = node.associate(CONTEXTS);
    for _ in 0..3 {
        assert_eq!(store(&mut peer, "1.2.3.4.5", &with_pixels("1.2.3.4.5", 1, 1000)).status(), 0);
    }
    assert_eq!(status(&node).instances, 1);
    assert!(status(&node).conflicts.is_empty());
    assert_eq!(files(&node).len(), 1);
}

#[test]
fn other_content_under_a_known_uid_is_kept_beside_the_first() {
    let node = TestNode::start();
    let mut peer = node.associate(CONTEXTS);
    let sent = |value| with_pixels("1.2.3.4.5", value, 1000);
    // Only the pixels differ, which the index does not hold. What has come before is not kept
    // again.
    for (number, value) in [1, 2, 1, 3, 2, 3].into_iter().enumerate() {
        assert_eq!(store(&mut peer, "1.2.3.4.5", &sent(value)).status(), 0, "number {number}");
    }
    let known = node.reader().known_locations("1.2.3.4.5").unwrap();
    let kept: Vec<_> = known.iter().map(|known| data_set_of(&known.location.path().unwrap())).collect();
    assert!(kept == [1, 2, 3].map(|value| sent(value).0));
    assert_eq!(known.iter().map(|known| known.differs).collect::<Vec<_>>(), [false, true, true]);
    assert!(known.iter().zip(&kept).all(|(known, bytes)| known.checksum == Some(Checksum::of(bytes))));
    assert_eq!(files(&node).len(), 3);
    let status = status(&node);
    assert_eq!((status.instances, status.copies), (1, 2));
    assert_eq!(status.conflicts, [("instance-with-other-content".to_owned(), 2)]);
    // It is the first that is asked for by its UID.
    let [first] = node.reader().locations("1.2.3.4.5").unwrap().try_into().unwrap();
    assert!(data_set_of(&first.path().unwrap()) == sent(1).0);
}

#[test]
fn content_that_differs_in_its_series_is_kept_beside_the_first_and_recognised() {
    let node = TestNode::start();
    let mut peer = node.associate(CONTEXTS);
    let elsewhere = DataSet::instance(SECONDARY_CAPTURE, "1.2.3", "1.2.3.99", "1.2.3.4.5");
    for sent in [&object("1.2.3.4.5"), &elsewhere, &elsewhere, &object("1.2.3.4.5")] {
        assert_eq!(store(&mut peer, "1.2.3.4.5", sent).status(), 0);
    }
    assert_eq!(files(&node).len(), 2);
    assert_eq!(status(&node).conflicts, [("instance-with-other-content".to_owned(), 1)]);
}

#[test]
fn other_content_is_refused_where_the_first_is_to_be_kept() {
    let node = TestNode::with(|settings| settings.policy.duplicates = DuplicatePolicy::KeepFirst);
    let mut peer = node.associate(CONTEXTS);
    let first = with_pixels("1.2.3.4.5", 1, 1000);
    for (number, (value, expected)) in [(1, 0), (2, DUPLICATE), (1, 0), (3, DUPLICATE)].into_iter().enumerate() {
        let response = store(&mut peer, "1.2.3.4.5", &with_pixels("1.2.3.4.5", value, 1000));
        assert_eq!(response.status(), expected, "number {number}");
    }
    let [path] = files(&node).try_into().unwrap();
    assert!(data_set_of(&path) == first.0);
    assert_eq!(status(&node).instances, 1);
    let conflicts: u64 = status(&node).conflicts.iter().map(|(_, count)| count).sum();
    assert!(conflicts > 0);
}

#[test]
fn of_metadata_that_differ_none_is_taken_for_kept_that_is_not() {
    for (policy, expected) in
        [(DuplicatePolicy::KeepBoth, DUPLICATE), (DuplicatePolicy::KeepFirst, DUPLICATE), (DuplicatePolicy::Replace, 0)]
    {
        let node = TestNode::with(|settings| {
            (settings.keep, settings.policy.duplicates) = (Keep::MetadataOnly, policy);
        });
        let mut peer = node.associate(CONTEXTS);
        assert_eq!(store(&mut peer, "1.2.3.4.5", &object("1.2.3.4.5")).status(), 0);
        let other = object("1.2.3.4.5").text(0x0020, 0x0013, "99");
        assert_eq!(store(&mut peer, "1.2.3.4.5", &other).status(), expected, "{policy:?}");
        assert_eq!(store(&mut peer, "1.2.3.4.5", &object("1.2.3.4.5")).status(), 0, "{policy:?}");
    }
}

#[test]
fn metadata_that_take_the_place_of_an_object_leave_no_file() {
    let node = TestNode::start();
    let directory = node.directory();
    let mut peer = node.associate(CONTEXTS);
    assert_eq!(store(&mut peer, "1.2.3.4.5", &object("1.2.3.4.5")).status(), 0);
    assert_eq!(files(&node).len(), 1);
    drop(peer);
    drop(node);
    let node = TestNode::with(|settings| {
        settings.directory = directory;
        settings.keep = Keep::MetadataOnly;
        settings.policy.duplicates = DuplicatePolicy::Replace;
    });
    let mut peer = node.associate(CONTEXTS);
    let other = object("1.2.3.4.5").text(0x0020, 0x0013, "99");
    assert_eq!(store(&mut peer, "1.2.3.4.5", &other).status(), 0);
    assert!(files(&node).is_empty());
    let [location] = node.reader().locations("1.2.3.4.5").unwrap().try_into().unwrap();
    assert_eq!(location.place, Place::MetadataOnly);
}

#[test]
fn other_content_takes_the_place_of_the_first_where_that_is_the_policy() {
    let node = TestNode::with(|settings| settings.policy.duplicates = DuplicatePolicy::Replace);
    let mut peer = node.associate(CONTEXTS);
    for value in [1, 2, 3, 2] {
        let sent = with_pixels("1.2.3.4.5", value, 1000);
        assert_eq!(store(&mut peer, "1.2.3.4.5", &sent).status(), 0);
        let found = files(&node);
        let [path] = found.as_slice() else { panic!("{found:?}") };
        assert!(data_set_of(path) == sent.0);
        let locations = node.reader().locations("1.2.3.4.5").unwrap();
        assert_eq!(locations[0].path().unwrap(), path.canonicalize().unwrap());
    }
}

#[test]
fn an_object_whose_file_was_lost_is_taken_again() {
    let node = TestNode::start();
    let mut peer = node.associate(CONTEXTS);
    let sent = with_pixels("1.2.3.4.5", 1, 1000);
    store(&mut peer, "1.2.3.4.5", &sent);
    fs::remove_dir_all(node.storage().join("1.2.3")).unwrap();
    assert_eq!(store(&mut peer, "1.2.3.4.5", &sent).status(), 0);
    let locations = node.reader().locations("1.2.3.4.5").unwrap();
    assert!(data_set_of(&locations[0].path().unwrap()) == sent.0);
}

#[test]
fn a_data_set_that_cannot_be_kept_costs_one_status_and_leaves_nothing() {
    let node = TestNode::start();
    let mut peer = node.associate(CONTEXTS);
    let nested = |levels| {
        let mut data_set = DataSet::default().uid(0x0008, 0x0016, SECONDARY_CAPTURE).uid(0x0008, 0x0018, "1.2.3.4.5");
        for _ in 0..levels {
            data_set = data_set.header(0x0008, 0x1140, u32::MAX).header(0xFFFE, 0xE000, u32::MAX);
        }
        data_set
    };
    let cut = DataSet(object("1.2.3.4.5").0[..100].to_vec());
    let cases = [
        ("garbage", DataSet((0..5000_u32).map(|n| ((n * 7919) >> 3) as u8).collect()), CANNOT_UNDERSTAND),
        ("text", DataSet(b"GET / HTTP/1.1\r\n\r\n".repeat(100)), CANNOT_UNDERSTAND),
        ("nothing", DataSet::default(), CANNOT_UNDERSTAND),
        ("cut inside an element", cut, CANNOT_UNDERSTAND),
        ("10,000 nested sequences", nested(10_000), CANNOT_UNDERSTAND),
        ("a value of 4 GiB", object("1.2.3.4.5").header(0x0020, 0x4000, 0xFFFF_FFFE), CANNOT_UNDERSTAND),
        (
            "no study",
            DataSet::default().uid(0x0008, 0x0016, SECONDARY_CAPTURE).uid(0x0008, 0x0018, "1.2.3.4.5"),
            CANNOT_UNDERSTAND,
        ),
        ("another instance", object("1.2.3.4.6"), DOES_NOT_MATCH),
        (
            "another class",
            DataSet::instance("1.2.840.10008.5.1.4.1.1.2", "1.2.3", "1.2.3.4", "1.2.3.4.5"),
            DOES_NOT_MATCH,
        ),
    ];
    for (name, data_set, expected) in cases {
        let response = store(&mut peer, "1.2.3.4.5", &data_set);
        assert_eq!(response.status(), expected, "{name}: {:?}", response.error_comment());
        assert!(!response.error_comment().is_empty(), "{name}");
        peer.echo(3);
    }
    assert_eq!(files(&node), [""; 0].map(PathBuf::from));
    assert_eq!(status(&node).instances, 0);
    assert_eq!(store(&mut peer, "1.2.3.4.5", &object("1.2.3.4.5")).status(), 0);
}

#[test]
fn offending_elements_are_named() {
    let node = TestNode::start();
    let mut peer = node.associate(CONTEXTS);
    let response = store(&mut peer, "1.2.3.4.5", &object("1.2.3.4.6"));
    assert_eq!(response.command.value(tags::OFFENDING_ELEMENT), Some(&[8, 0, 0x18, 0][..]));
    let no_series = DataSet::default()
        .uid(0x0008, 0x0016, SECONDARY_CAPTURE)
        .uid(0x0008, 0x0018, "1.2.3.4.5")
        .uid(0x0020, 0x000D, "1.2.3");
    let response = store(&mut peer, "1.2.3.4.5", &no_series);
    assert_eq!(response.command.value(tags::OFFENDING_ELEMENT), Some(&[0x20, 0, 0x0E, 0][..]));
}

#[test]
fn a_uid_with_a_control_character_is_not_taken_for_the_one_without() {
    let node = TestNode::start();
    let mut peer = node.associate(CONTEXTS);
    for odd in ['\0', '\u{1B}', '\t', '\n', '\u{7F}'] {
        let instance = DataSet::instance(SECONDARY_CAPTURE, "1.2.3", "1.2.3.4", &format!("1.2.3{odd}.4.5"));
        assert_eq!(store(&mut peer, "1.2.3.4.5", &instance).status(), CANNOT_UNDERSTAND, "{odd:?}");
        for (study, series) in [(format!("1.2{odd}.3"), "1.2.3.4".into()), ("1.2.3".into(), format!("1.2{odd}.3.4"))] {
            let sent = DataSet::instance(SECONDARY_CAPTURE, &study, &series, "1.2.3.4.5");
            assert_eq!(store(&mut peer, "1.2.3.4.5", &sent).status(), CANNOT_UNDERSTAND, "{odd:?}");
        }
    }
    assert_eq!(status(&node).instances, 0);
    assert!(files(&node).is_empty());
}

#[test]
fn commands_that_do_not_fit_are_refused_and_the_association_lives_on() {
    let node = TestNode::start();
    let mut peer = node.associate(CONTEXTS);
    let refused = |peer: &mut ScriptedPeer, command, data_set: Option<&[u8]>| {
        peer.send_message(1, command, data_set);
        let response = peer.receive_message();
        assert!(!response.error_comment().is_empty());
        peer.echo(3);
        response.status()
    };
    let data_set = object("1.2.3.4.5").0;
    let other_class = store_command(1, "1.2.840.10008.5.1.4.1.1.2", "1.2.3.4.5");
    assert_eq!(refused(&mut peer, &other_class, Some(&data_set)), 0x0122);
    let no_instance = store_command(1, SECONDARY_CAPTURE, "");
    assert_eq!(refused(&mut peer, &no_instance, Some(&data_set)), 0x0117);
    // No request could name an object with a wild card or a backslash in its UID.
    let bad = [&*"1".repeat(200), "1.2.3.*", "1.2.3.?", "1.2.3\\1.2.4"];
    let bad = bad.map(|uid| store_command(1, SECONDARY_CAPTURE, uid));
    for command in &bad {
        assert_eq!(refused(&mut peer, command, Some(&data_set)), 0x0117);
    }
    let mut no_data_set = store_command(1, SECONDARY_CAPTURE, "1.2.3.4.5");
    no_data_set.set_unsigned_short(tags::COMMAND_DATA_SET_TYPE, command_set::NO_DATA_SET);
    assert_eq!(refused(&mut peer, &no_data_set, None), CANNOT_UNDERSTAND);
    assert_eq!(status(&node).instances, 0);
}

#[test]
fn uids_that_break_the_rules_stay_inside_the_storage_directory() {
    let node = TestNode::start();
    let mut peer = node.associate(CONTEXTS);
    for uid in ["..", "../../../x", "/abs", "a/b", "1.02", "CON", "1.2.;touch x"] {
        let data_set = DataSet::instance(SECONDARY_CAPTURE, uid, uid, uid);
        assert_eq!(store(&mut peer, uid, &data_set).status(), 0, "{uid}");
    }
    let storage = node.storage().canonicalize().unwrap();
    for uid in ["..", "../../../x", "/abs", "a/b", "1.02", "CON", "1.2.;touch x"] {
        let path = node.reader().locations(uid).unwrap()[0].path().unwrap();
        assert!(path.starts_with(&storage) && path.canonicalize().unwrap() == path, "{path:?}");
    }
    // Nothing but index, log and storage directory beside it.
    let beside = fs::read_dir(node.storage().parent().unwrap()).unwrap();
    for entry in beside {
        let name = entry.unwrap().file_name();
        assert!(name == "objects" || name.to_str().unwrap().starts_with("index.db"), "{name:?}");
    }
}

// PS3.4 table B.2-1. The sender has the whole object, and can send it again.
#[test]
fn an_object_that_ends_inside_its_pixel_data_is_refused() {
    let node = TestNode::start();
    let mut peer = node.associate(CONTEXTS);
    let mut cut = with_pixels("1.2.3.4.7", 1, 1000);
    cut.0.truncate(cut.0.len() - 100);
    let refused = store(&mut peer, "1.2.3.4.7", &cut);
    assert_eq!(refused.status(), CANNOT_UNDERSTAND);
    assert!(refused.error_comment().starts_with("truncated at byte"), "{}", refused.error_comment());
    assert_eq!(status(&node).instances, 0);
    assert_eq!(store(&mut peer, "1.2.3.4.7", &with_pixels("1.2.3.4.7", 1, 1000)).status(), 0);
}

/// Returns an object with this in its tail, behind everything that the index keeps.
fn with_tail(instance: &str, tail: impl FnOnce(DataSet) -> DataSet) -> DataSet {
    tail(object(instance))
}

// The same, for what stands behind the attributes of the index.
#[test]
fn an_object_that_ends_inside_a_sequence_or_fragment_is_refused() {
    const UNDEFINED: u32 = u32::MAX;
    let node = TestNode::start();
    let mut peer = node.associate(CONTEXTS);
    let beams = |whole: DataSet| whole.header(0x300A, 0x00B0, UNDEFINED).header(0xFFFE, 0xE000, UNDEFINED);
    let pixels = |whole: DataSet| whole.header(0x7FE0, 0x0010, UNDEFINED).bytes(0xFFFE, 0xE000, b"");
    let cut = [
        with_tail("1.2.3.4.1", |it| beams(it).text(0x300A, 0x00C2, "Beam 1")),
        with_tail("1.2.3.4.1", |it| beams(it).text(0x300A, 0x00C2, "Beam 1").bytes(0xFFFE, 0xE00D, b"")),
        with_tail("1.2.3.4.1", |it| it.header(0x300A, 0x00B0, 100).bytes(0xFFFE, 0xE000, b"")),
        with_tail("1.2.3.4.1", |it| beams(it).header(0x300A, 0x00C2, 50)),
        with_tail("1.2.3.4.1", |it| pixels(it).header(0xFFFE, 0xE000, 100).text(0x0010, 0x0010, "a")),
        DataSet([&object("1.2.3.4.1").0[..], b"\x0a\x30\xb0\0\x08"].concat()),
    ];
    for cut in &cut {
        let refused = store(&mut peer, "1.2.3.4.1", cut);
        assert_eq!(refused.status(), CANNOT_UNDERSTAND, "{cut:?}");
        assert!(refused.error_comment().starts_with("truncated at byte"), "{}", refused.error_comment());
    }
    assert_eq!(status(&node).instances, 0);
    let whole = [
        with_tail("1.2.3.4.1", |it| beams(it).bytes(0xFFFE, 0xE00D, b"").bytes(0xFFFE, 0xE0DD, b"")),
        with_tail("1.2.3.4.2", |it| pixels(it).bytes(0xFFFE, 0xE000, b"pixels").bytes(0xFFFE, 0xE0DD, b"")),
        // Some writers fill the last sector, or append bytes that are no elements.
        DataSet([&with_pixels("1.2.3.4.3", 1, 10).0[..], &[0; 300]].concat()),
        DataSet([&with_pixels("1.2.3.4.4", 1, 10).0[..], &[0xAB; 300]].concat()),
    ];
    for (at, whole) in whole.iter().enumerate() {
        assert_eq!(store(&mut peer, &format!("1.2.3.4.{}", at + 1), whole).status(), 0, "{whole:?}");
    }
    assert_eq!((status(&node).instances, status(&node).files_with_faults), (4, 0));
    // Whether the last fragments lack or only their delimiter cannot be told. They are kept, and it
    // is noted.
    let unended = with_tail("1.2.3.4.5", |it| pixels(it).bytes(0xFFFE, 0xE000, b"pixels"));
    assert_eq!(store(&mut peer, "1.2.3.4.5", &unended).status(), 0);
    assert_eq!((status(&node).instances, status(&node).files_with_faults), (5, 1));
}

// PS3.7 9.1: Verification has no C-STORE.
#[test]
fn a_context_of_another_service_takes_no_object() {
    let node = TestNode::start();
    let mut peer = node.associate(CONTEXTS);
    let data_set = DataSet::instance(VERIFICATION, "1.2.3", "1.2.3.4", "1.2.3.4.5");
    peer.send_message(3, &store_command(1, VERIFICATION, "1.2.3.4.5"), Some(&data_set.0));
    assert_eq!(peer.receive_message().status(), 0x0122);
    assert_eq!(status(&node).instances, 0);
    assert_eq!(store(&mut peer, "1.2.3.4.6", &object("1.2.3.4.6")).status(), 0);
}

// PS3.7 D.3.3.4.
#[test]
fn a_peer_that_is_the_scp_of_a_class_and_not_its_scu_stores_nothing() {
    const STUDY_ROOT_GET: &str = "1.2.840.10008.5.1.4.1.2.2.3";
    let node = TestNode::start();
    let mut peer = getter(&node, STUDY_ROOT_GET, &[(SECONDARY_CAPTURE, &[IMPLICIT_VR_LITTLE_ENDIAN])]);
    peer.send_message(3, &store_command(7, SECONDARY_CAPTURE, "1.2.3.4.5"), Some(&object("1.2.3.4.5").0));
    let refused = peer.receive_message();
    assert_eq!(refused.status(), 0x0122);
    assert!(refused.error_comment().contains("role of SCU"), "{}", refused.error_comment());
    assert_eq!(status(&node).instances, 0);
}

#[test]
fn private_classes_and_transfer_syntaxes_are_kept_as_they_come() {
    const PRIVATE_CLASS: &str = "1.3.12.2.1107.5.9.1";
    const GE_IMPLICIT_BIG_ENDIAN_PIXELS: &str = "1.2.840.113619.5.2";
    let node = TestNode::start();
    let contexts: &[(&str, &[&str])] = &[(PRIVATE_CLASS, &[GE_IMPLICIT_BIG_ENDIAN_PIXELS])];
    let mut peer = node.associate(contexts);
    let data_set = DataSet::instance(PRIVATE_CLASS, "1.2", "1.3", "1.4").bytes(0x7FE0, 0x0010, &[1, 2, 3, 4]);
    peer.send_message(1, &store_command(1, PRIVATE_CLASS, "1.4"), Some(&data_set.0));
    assert_eq!(peer.receive_message().status(), 0);
    let path = node.reader().locations("1.4").unwrap()[0].path().unwrap();
    assert_eq!(data_set_of(&path), data_set.0);
    let bytes = fs::read(path).unwrap();
    assert!(bytes.windows(18).any(|window| window == GE_IMPLICIT_BIG_ENDIAN_PIXELS.as_bytes()));
}

#[test]
fn a_sender_that_is_cut_off_anywhere_leaves_nothing_behind() {
    // With an arrival journal, an object is in memory until it is complete.
    let node = TestNode::with(|settings| settings.journal_bytes = 0);
    let uid = "1.2.3.4.5";
    let mut message = Vec::new();
    let data_set = with_pixels(uid, 1, 700_000);
    put_message(&mut message, 1, &store_command(1, SECONDARY_CAPTURE, uid), Some(&data_set.0), 16_384);
    for cut in (0..message.len()).step_by(20_011).chain([message.len() - 1]) {
        node.associate(CONTEXTS).send(&message[..cut]);
    }
    let abort = |mut peer: ScriptedPeer| {
        peer.send_pdu(&Pdu::AbortRQ { source: AbortRQSource::ServiceUser });
        assert_eq!(peer.receive(), None);
    };
    let end = |mut peer: ScriptedPeer| {
        peer.shut_down_sending();
        while peer.receive().is_some() {}
    };
    let endings: [&dyn Fn(ScriptedPeer); 3] = [&abort, &ScriptedPeer::reset, &end];
    let boundaries = pdu_boundaries(&message);
    for &cut in &boundaries {
        for ending in endings {
            let mut peer = node.associate(CONTEXTS);
            peer.send(&message[..cut]);
            ending(peer);
        }
    }
    // While the node runs: a start would clear away what was left.
    wait_until_no_file(&node);
    // And when there certainly was a file.
    for ending in endings {
        let mut peer = node.associate(CONTEXTS);
        peer.send(&message[..boundaries[36]]);
        while files(&node).is_empty() {
            std::thread::yield_now();
        }
        ending(peer);
        wait_until_no_file(&node);
    }
    assert_none_after_stop(node);
}

/// Asserts that nothing was kept or indexed after the stop. The next node must find nothing either,
/// after it has removed half received files.
fn assert_none_after_stop(node: TestNode) {
    let (directory, storage) = (node.directory(), node.storage());
    node.stop();
    assert_eq!(files_below(storage), [""; 0].map(PathBuf::from));
    let node = TestNode::with(|settings| settings.directory = directory);
    assert_eq!((status(&node).instances, files(&node).len()), (0, 0));
}

#[test]
fn a_sender_that_stalls_in_a_message_is_cut_off_and_leaves_nothing_behind() {
    let node = TestNode::with(|settings| settings.options.read_timeout = Duration::from_millis(100));
    let uid = "1.2.3.4.5";
    let mut message = Vec::new();
    let data_set = with_pixels(uid, 1, 700_000);
    put_message(&mut message, 1, &store_command(1, SECONDARY_CAPTURE, uid), Some(&data_set.0), 16_384);
    let boundaries = pdu_boundaries(&message);
    // After the command, between two fragments with and without a file, in the middle of one,
    // before the last byte.
    for stall in [boundaries[1], boundaries[2], boundaries[40], boundaries[40] + 3, 600_000, message.len() - 1] {
        let mut peer = node.associate(CONTEXTS);
        peer.send(&message[..stall]);
        let reason = AbortRQServiceProviderReason::ReasonNotSpecified;
        let abort = Pdu::AbortRQ { source: AbortRQSource::ServiceProvider(reason) };
        assert_eq!(peer.receive(), Some(abort), "{stall}");
        // The node waits for the peer to close the connection (PS3.8 9.2.3, Sta13), as long as
        // ARTIM runs.
        drop(peer);
        wait_until_no_file(&node);
    }
    assert_none_after_stop(node);
}

/// Returns the offsets at which PDUs begin.
fn pdu_boundaries(bytes: &[u8]) -> Vec<usize> {
    let (mut boundaries, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        boundaries.push(at);
        at += 6 + u32::from_be_bytes(bytes[at + 2..at + 6].try_into().unwrap()) as usize;
    }
    boundaries
}

#[test]
fn when_objects_cannot_be_written_the_sender_is_told_to_try_again() {
    let node = TestNode::start();
    let mut peer = node.associate(CONTEXTS);
    fs::remove_dir(node.storage().join(".incoming")).unwrap();
    let small = store(&mut peer, "1.2.3.4.5", &object("1.2.3.4.5"));
    assert_eq!(small.status(), OUT_OF_RESOURCES);
    assert!(!small.error_comment().contains('/'), "{}", small.error_comment());
    assert_eq!(store(&mut peer, "1.2.3.4.5", &with_pixels("1.2.3.4.5", 1, 2_000_000)).status(), OUT_OF_RESOURCES);
    peer.echo(3);
    fs::create_dir(node.storage().join(".incoming")).unwrap();
    assert_eq!(store(&mut peer, "1.2.3.4.5", &object("1.2.3.4.5")).status(), 0);
}

#[test]
fn an_instance_in_flight_is_finished_before_the_node_stops() {
    // With an arrival journal, an object is in memory until it is complete.
    let node = TestNode::with(|settings| settings.journal_bytes = 0);
    let mut peer = node.associate(CONTEXTS);
    peer.echo(3);
    let mut message = Vec::new();
    let data_set = with_pixels("1.2.3.4.5", 1, 1_500_000);
    put_message(&mut message, 1, &store_command(1, SECONDARY_CAPTURE, "1.2.3.4.5"), Some(&data_set.0), 16_384);
    let (first, rest) = message.split_at(message.len() / 2);
    peer.send(first);
    // Enough that a file is begun: then the node is in this message.
    while files(&node).is_empty() {
        std::thread::yield_now();
    }
    // Another association is told at once that the node stops; ours is in a message and goes on.
    let mut idle = node.associate(CONTEXTS);
    let index = node.index();
    let directory = node.directory();
    node.order_to_stop();
    let abort = Some(Pdu::AbortRQ { source: AbortRQSource::ServiceUser });
    assert_eq!(idle.receive(), abort);
    peer.send(rest);
    assert_eq!(peer.receive_message().status(), 0);
    assert_eq!(peer.receive(), abort);
    drop((peer, idle));
    node.stop();
    let mut reader = dcmdex::db::open::Reader::open(&index).unwrap();
    assert_eq!(reader.status().unwrap().instances, 1);
    drop(directory);
}

#[test]
fn many_associations_at_once_store_what_they_are_told_they_stored() {
    let node = Arc::new(TestNode::start());
    let threads: Vec<_> = (0..8)
        .map(|thread| {
            let node = Arc::clone(&node);
            std::thread::spawn(move || {
                let mut peer = node.associate(CONTEXTS);
                for number in 0..25 {
                    // Every instance is sent by two of them.
                    let uid = format!("1.2.3.4.{}.{number}", thread / 2);
                    assert_eq!(store(&mut peer, &uid, &with_pixels(&uid, 1, 20_000)).status(), 0);
                }
                peer.release();
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(status(&node).instances, 100);
    assert_eq!(files(&node).len(), 100);
    assert!(status(&node).conflicts.is_empty());
}

pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/real").join(name)
}

#[test]
fn explicit_contexts_of_one_class_in_two_syntaxes_are_told_apart() {
    let node = TestNode::start();
    let contexts: &[(&str, &[&str])] = &[
        (SECONDARY_CAPTURE, &[EXPLICIT_VR_LITTLE_ENDIAN]),
        (SECONDARY_CAPTURE, &[IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN]),
    ];
    let mut peer = node.associate(contexts);
    peer.send_message(3, &store_command(1, SECONDARY_CAPTURE, "1.2.3.4.5"), Some(&object("1.2.3.4.5").0));
    assert_eq!(peer.receive_message().status(), 0);
    let path = node.reader().locations("1.2.3.4.5").unwrap()[0].path().unwrap();
    let read = dicom_object::OpenFileOptions::new().open_file(path).unwrap();
    assert_eq!(read.meta().transfer_syntax(), IMPLICIT_VR_LITTLE_ENDIAN);
}

#[test]
fn an_object_is_kept_when_the_file_that_the_index_names_is_gone() {
    let node = TestNode::with(|settings| settings.policy.known = KnownPolicy::TrustArchive);
    let archive = node.directory().path().join("archive");
    fs::create_dir(&archive).unwrap();
    let scan = |uid: &str, sent: &DataSet| {
        let name = format!("{uid}.dcm");
        fs::write(archive.join(&name), [&[0; 128], b"DICM".as_slice(), &sent.0].concat()).unwrap();
        db::scan_on_disk(&node.index(), &archive, &[&name]);
    };
    let places = |uid: &str| -> Vec<PathBuf> {
        node.reader().locations(uid).unwrap().iter().map(|location| location.path().unwrap()).collect()
    };
    let mut peer = node.associate(CONTEXTS);
    let [there, gone, other, emptied, exchanged, cut] = [1, 2, 3, 4, 5, 6].map(|at| format!("1.2.3.4.{at}"));
    let [there, gone, other, emptied, exchanged, cut] = [&*there, &*gone, &*other, &*emptied, &*exchanged, &*cut];
    for uid in [there, gone, other, emptied, exchanged, cut] {
        scan(uid, &object(uid));
    }
    let file = |uid: &str| archive.join(format!("{uid}.dcm"));
    fs::write(file(emptied), []).unwrap();
    fs::copy(file(there), file(exchanged)).unwrap();
    // Nor can one be sent that is shorter than when it was scanned.
    let whole = fs::read(file(cut)).unwrap();
    fs::write(file(cut), &whole[..whole.len() - 2]).unwrap();
    for uid in [gone, other] {
        fs::remove_file(archive.join(format!("{uid}.dcm"))).unwrap();
    }
    // One that is there need not be kept twice, where the archive is trusted.
    assert_eq!(store(&mut peer, there, &object(there)).status(), 0);
    assert_eq!(places(there), [archive.join("1.2.3.4.1.dcm")]);
    assert!(files(&node).is_empty(), "{:?}", files(&node));
    // Alike, as far as one can tell, and not alike.
    assert_eq!(store(&mut peer, gone, &object(gone)).status(), 0);
    assert_eq!(store(&mut peer, other, &object(other).text(0x0020, 0x0013, "99")).status(), 0);
    let mut kept = files(&node);
    kept.sort();
    assert_eq!([places(gone), places(other)].concat(), kept);
    assert_eq!(kept.len(), 2);
    // A file of that name is not enough.
    for uid in [emptied, exchanged, cut] {
        assert_eq!(store(&mut peer, uid, &object(uid)).status(), 0);
        let [place] = places(uid).try_into().unwrap();
        assert!(data_set_of(&place) == object(uid).0, "{uid}");
    }
    assert_eq!(status(&node).instances, 6);
}

#[test]
fn other_pixels_than_those_of_a_file_in_the_archive_are_a_conflict() {
    let node = TestNode::start();
    let archive = node.directory().path().join("archive");
    fs::create_dir(&archive).unwrap();
    // The object as the node itself would have written it, in somebody's archive.
    let (uid, first) = ("1.2.3.4.1", with_pixels("1.2.3.4.1", 1, 1000));
    let elsewhere = TestNode::start();
    let mut peer = ScriptedPeer::associated(elsewhere.address(), CONTEXTS);
    assert_eq!(store(&mut peer, uid, &first).status(), 0);
    let [written] = files(&elsewhere).try_into().unwrap();
    let file = archive.join("a.dcm");
    fs::copy(&written, &file).unwrap();
    db::scan_on_disk(&node.index(), &archive, &["a.dcm"]);

    let mut peer = node.associate(CONTEXTS);
    assert_eq!(store(&mut peer, uid, &first).status(), 0);
    assert_eq!(status(&node).conflicts, []);
    assert_eq!(store(&mut peer, uid, &with_pixels(uid, 2, 1000)).status(), 0);
    assert_eq!(status(&node).conflicts, [("instance-with-other-content".to_owned(), 1)]);
    // Both are ours now, beside the file: the one that it holds, and the other.
    let known = node.reader().known_locations(uid).unwrap();
    let kept: Vec<_> = known.iter().map(|it| (it.differs, data_set_of(&it.location.path().unwrap()))).collect();
    assert!(kept == [(false, first.0.clone()), (false, first.0.clone()), (true, with_pixels(uid, 2, 1000).0)]);
    assert_eq!(known[0].location.path().unwrap(), file);
    assert_eq!(files(&node).len(), 2);
    for value in [1, 2] {
        assert_eq!(store(&mut peer, uid, &with_pixels(uid, value, 1000)).status(), 0);
    }
    assert_eq!(files(&node).len(), 2);
}

#[test]
fn an_object_that_a_scan_has_found_is_kept_all_the_same_and_takes_over_when_the_file_goes() {
    let node = TestNode::start();
    let archive = node.directory().path().join("stick");
    fs::create_dir(&archive).unwrap();
    let (uid, sent) = ("1.2.3.4.1", with_pixels("1.2.3.4.1", 1, 1000));
    fs::write(archive.join("a.dcm"), [&[0; 128], b"DICM".as_slice(), &sent.0].concat()).unwrap();
    db::scan_on_disk(&node.index(), &archive, &["a.dcm"]);
    let mut peer = node.associate(CONTEXTS);
    for _ in 0..2 {
        assert_eq!(store(&mut peer, uid, &sent).status(), 0);
    }
    let [own] = files(&node).try_into().unwrap();
    let places = || -> Vec<_> {
        node.reader().locations(uid).unwrap().iter().map(|location| location.path().unwrap()).collect()
    };
    assert_eq!(places(), [archive.join("a.dcm"), own.clone()]);
    assert_eq!((status(&node).conflicts, status(&node).copies), (vec![], 1));
    // A scan finds that the stick is gone.
    fs::remove_file(archive.join("a.dcm")).unwrap();
    let writer = db::writer(&node.index());
    let mut gone = db::scanned(archive.to_str().unwrap(), Vec::new());
    gone.missing.push("a.dcm".into());
    writer.handle().scanned(gone).unwrap();
    writer.close().unwrap();
    assert_eq!(places(), [own]);
    db::assert_sound(&node.index());
    // What has been sent again is not kept again.
    assert_eq!(store(&mut peer, uid, &sent).status(), 0);
    assert_eq!(files(&node).len(), 1);
}

#[test]
fn of_instances_that_several_send_at_once_nothing_is_lost_whatever_they_send() {
    const SENDERS: usize = 8;
    const INSTANCES: usize = 6;
    const ROUNDS: usize = 8;
    for policy in [DuplicatePolicy::KeepBoth, DuplicatePolicy::KeepFirst, DuplicatePolicy::Replace] {
        let node = Arc::new(TestNode::with(|settings| settings.policy.duplicates = policy));
        // Of one length or not, alike for the index or not.
        let contents = |uid: &str| {
            let other_number = object(uid).text(0x0020, 0x0013, "7").bytes(0x7FE0, 0x0010, &[3; 2000]);
            [with_pixels(uid, 1, 2000), with_pixels(uid, 2, 2000), other_number]
        };
        let threads: Vec<_> = (0..SENDERS)
            .map(|sender| {
                let node = Arc::clone(&node);
                std::thread::spawn(move || {
                    let mut peer = node.associate(CONTEXTS);
                    for round in 0..ROUNDS {
                        for instance in 0..INSTANCES {
                            let uid = format!("1.2.3.4.{instance}");
                            let content = &contents(&uid)[(sender * 5 + round * 3 + instance) % 7 % 3];
                            let status = store(&mut peer, &uid, content).status();
                            let refused = policy == DuplicatePolicy::KeepFirst && status == DUPLICATE;
                            assert!(status == 0 || refused, "{policy:?}: {status:04X}");
                        }
                    }
                    peer.release();
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let mut named = Vec::new();
        for instance in 0..INSTANCES {
            let uid = format!("1.2.3.4.{instance}");
            let known = node.reader().known_locations(&uid).unwrap();
            let paths: Vec<_> = known.iter().map(|known| known.location.path().unwrap()).collect();
            let kept: BTreeSet<_> = paths.iter().map(|path| data_set_of(path)).collect();
            let sent: BTreeSet<_> = contents(&uid).into_iter().map(|content| content.0).collect();
            assert!(kept.len() == paths.len() && kept.is_subset(&sent), "{policy:?} {uid}");
            assert_eq!(kept.len(), if policy == DuplicatePolicy::KeepBoth { 3 } else { 1 }, "{policy:?} {uid}");
            named.extend(paths);
        }
        let mut found = files(&node);
        found.sort();
        named.sort();
        assert_eq!(named, found, "{policy:?}");
    }
}

#[test]
fn an_object_that_lost_bytes_on_disk_is_taken_again() {
    for left in [0, 200, 700] {
        let node = TestNode::start();
        let mut peer = node.associate(CONTEXTS);
        let sent = with_pixels("1.2.3.4.5", 1, 1000);
        assert_eq!(store(&mut peer, "1.2.3.4.5", &sent).status(), 0);
        let [path] = files(&node).try_into().unwrap();
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(left).unwrap();
        assert_eq!(store(&mut peer, "1.2.3.4.5", &sent).status(), 0);
        let [location] = node.reader().locations("1.2.3.4.5").unwrap().try_into().unwrap();
        assert!(data_set_of(&location.path().unwrap()) == sent.0, "{left}");
        assert_eq!(files(&node), [location.path().unwrap()], "{left}");
    }
}

#[test]
fn an_object_of_which_a_byte_changed_is_taken_again_and_is_no_conflict() {
    let node = TestNode::start();
    let mut peer = node.associate(CONTEXTS);
    let sent = with_pixels("1.2.3.4.5", 1, 1000);
    assert_eq!(store(&mut peer, "1.2.3.4.5", &sent).status(), 0);
    let [path] = files(&node).try_into().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    assert_eq!(store(&mut peer, "1.2.3.4.5", &sent).status(), 0);
    let [location] = node.reader().locations("1.2.3.4.5").unwrap().try_into().unwrap();
    assert!(data_set_of(&location.path().unwrap()) == sent.0);
    assert_eq!(files(&node), [location.path().unwrap()]);
    assert_eq!(status(&node).conflicts, []);
}

#[test]
fn an_object_under_another_name_that_was_lost_is_taken_again() {
    let node = TestNode::with(|settings| settings.policy.duplicates = DuplicatePolicy::Replace);
    let mut peer = node.associate(CONTEXTS);
    let [first, second] = [1, 2].map(|value| with_pixels("1.2.3.4.5", value, 1000));
    assert_eq!(store(&mut peer, "1.2.3.4.5", &first).status(), 0);
    assert_eq!(store(&mut peer, "1.2.3.4.5", &second).status(), 0);
    let [path] = files(&node).try_into().unwrap();
    fs::remove_file(path).unwrap();
    assert_eq!(store(&mut peer, "1.2.3.4.5", &second).status(), 0);
    let [location] = node.reader().locations("1.2.3.4.5").unwrap().try_into().unwrap();
    assert!(data_set_of(&location.path().unwrap()) == second.0);
}
