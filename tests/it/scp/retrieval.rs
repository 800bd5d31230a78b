//! C-GET and C-MOVE: the objects that arrive, the responses, and peers that misbehave.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use dcmdex::db::Search;
use dcmdex::dimse::command_set::{self, CommandField, CommandSet};
use dcmdex::ul::destination::Destination;
use dicom_core::Tag;
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use dicom_transfer_syntax_registry::entries::{
    EXPLICIT_VR_LITTLE_ENDIAN as EXPLICIT, IMPLICIT_VR_LITTLE_ENDIAN as IMPLICIT,
};
use dicom_ul::pdu::{
    AbortRQSource, AssociationRJ, AssociationRJResult, AssociationRJServiceUserReason, AssociationRJSource,
    AssociationRQ, Pdu, PresentationContextProposed, RequestorRoles, UserVariableItem,
};
use tempfile::TempDir;

use crate::util::known::known;
use crate::util::node::{Keep, Settings, TestNode};
use crate::util::objects;
use crate::util::scripted::{
    Anything, DataSet, EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, Received, ScriptedPeer, cancel_command,
    request, retrieve_command, store_command, store_response,
};

const PATIENT_GET: &str = "1.2.840.10008.5.1.4.1.2.1.3";
pub(super) const STUDY_GET: &str = "1.2.840.10008.5.1.4.1.2.2.3";
const STUDY_MOVE: &str = "1.2.840.10008.5.1.4.1.2.2.2";
pub(super) const SECONDARY_CAPTURE: &str = "1.2.840.10008.5.1.4.1.1.7";
const SUCCESS: u16 = 0;
const PENDING: u16 = 0xFF00;
const CANCELLED: u16 = 0xFE00;
const SOME_FAILED: u16 = 0xB000;
const ALL_FAILED: u16 = 0xA702;
const UNKNOWN_DESTINATION: u16 = 0xA801;
const DOES_NOT_MATCH: u16 = 0xA900;

/// Starts a node on the index of a directory.
pub(super) fn node_on(archive: &Path, change: impl FnOnce(&mut Settings)) -> TestNode {
    let directory = Arc::new(TempDir::new().unwrap());
    scan(&directory.path().join("index.db"), archive);
    TestNode::with(|settings| {
        settings.directory = directory;
        change(settings);
    })
}

pub(super) fn scan(index: &Path, archive: &Path) {
    let scan =
        Command::new(env!("CARGO_BIN_EXE_dcmdex")).arg("scan").arg("--index").arg(index).arg(archive).output().unwrap();
    assert!(matches!(scan.status.code(), Some(0 | 1)), "{}", String::from_utf8_lossy(&scan.stderr));
}

/// Builds an archive of CT objects `1.2.1.<series>.<instance>`, with `instances` of them in each
/// series.
fn archive(series: u32, instances: u32) -> TempDir {
    let directory = TempDir::new().unwrap();
    for series in 1..=series {
        for instance in 1..=instances {
            objects::write(&directory.path().join(format!("{series}/{instance}.dcm")), 1, series, instance);
        }
    }
    directory
}

/// Returns the data set of a file, without preamble, prefix and group 0002.
fn data_set_of(path: &Path) -> Vec<u8> {
    let bytes = fs::read(path).unwrap();
    let mut at = if bytes.get(128..132) == Some(b"DICM") { 132 } else { 0 };
    while bytes[at..].starts_with(&[2, 0]) {
        at += match &bytes[at + 4..at + 6] {
            b"OB" | b"UN" => 12 + u32::from_le_bytes(bytes[at + 8..at + 12].try_into().unwrap()) as usize,
            _ => 8 + usize::from(u16::from_le_bytes([bytes[at + 6], bytes[at + 7]])),
        };
    }
    bytes[at..].to_vec()
}

/// Builds a request for C-GET with these storage contexts. The requestor is their SCP.
pub(super) fn get_request(sop_class: &str, storage: &[(&str, &[&str])]) -> AssociationRQ {
    let mut contexts: Vec<(&str, &[&str])> = vec![(sop_class, &[IMPLICIT_VR_LITTLE_ENDIAN])];
    contexts.extend(storage);
    let mut request = request(&contexts);
    let mut classes: Vec<_> = storage.iter().map(|(class, _)| (*class).to_owned()).collect();
    classes.dedup();
    request.user_variables.extend(
        classes
            .into_iter()
            .map(|class| UserVariableItem::ScuScpRoleSelectionSubItem(class, RequestorRoles { scu: false, scp: true })),
    );
    request
}

pub(super) fn getter(node: &TestNode, sop_class: &str, storage: &[(&str, &[&str])]) -> ScriptedPeer {
    let mut peer = ScriptedPeer::connect(node.address());
    peer.associate(&get_request(sop_class, storage));
    peer
}

const CT: &[(&str, &[&str])] = &[(objects::SOP_CLASS, &[EXPLICIT_VR_LITTLE_ENDIAN])];

pub(super) fn identifier(level: &str) -> DataSet {
    DataSet::default().text(0x0008, 0x0052, level)
}

pub(super) fn study(uid: &str) -> DataSet {
    identifier("STUDY").uid(0x0020, 0x000D, uid)
}

pub(super) fn instances(uids: &[&str]) -> DataSet {
    DataSet::default().uid(0x0008, 0x0018, &uids.join("\\")).text(0x0008, 0x0052, "IMAGE")
}

/// Builds the keys of an instance. The tags must be in order: (0008,0018) comes before (0008,0052).
pub(super) fn instance(uid: &str) -> DataSet {
    instances(&[uid])
}

/// Result of a retrieval.
#[derive(Debug, Default)]
pub(super) struct Retrieved {
    /// SOP Instance UID, context and data set of each object.
    pub(super) objects: Vec<(String, u8, Vec<u8>)>,
    pending: Vec<[Option<u16>; 4]>,
    pub(super) status: u16,
    numbers: [Option<u16>; 4],
    pub(super) comment: String,
    failed: Vec<String>,
}

/// Returns the numbers of remaining, completed, failed and warning sub-operations.
fn numbers(command: &CommandSet) -> [Option<u16>; 4] {
    [
        tags::NUMBER_OF_REMAINING_SUBOPERATIONS,
        tags::NUMBER_OF_COMPLETED_SUBOPERATIONS,
        tags::NUMBER_OF_FAILED_SUBOPERATIONS,
        tags::NUMBER_OF_WARNING_SUBOPERATIONS,
    ]
    .map(|tag| command.optional_unsigned_short(tag).unwrap())
}

impl Retrieved {
    fn end(&mut self, response: &Received) {
        self.status = response.status();
        self.numbers = numbers(&response.command);
        self.comment = response.command.optional_text(tags::ERROR_COMMENT).unwrap().unwrap_or_default().into();
        if let Some(bytes) = &response.data_set {
            let data_set = InMemDicomObject::read_dataset_with_ts(bytes.as_slice(), &IMPLICIT.erased()).unwrap();
            let list = data_set.element(Tag(0x0008, 0x0058)).unwrap().to_multi_str().unwrap();
            self.failed = list.iter().map(|uid| uid.trim_end_matches('\0').to_owned()).collect();
        }
    }
}

/// Requests a retrieval with message ID 9.
fn ask(peer: &mut ScriptedPeer, sop_class: &str, destination: Option<&str>, identifier: &DataSet) {
    peer.send_message(1, &retrieve_command(9, sop_class, destination), Some(&identifier.0));
}

/// Requests a retrieval and answers the n-th C-STORE-RQ with `answer(n)`. Returns everything that
/// arrives.
pub(super) fn get(
    peer: &mut ScriptedPeer,
    sop_class: &str,
    identifier: &DataSet,
    answer: impl Fn(usize) -> u16,
) -> Retrieved {
    ask(peer, sop_class, None, identifier);
    let mut retrieved = Retrieved::default();
    loop {
        let message = peer.receive_message();
        if message.field() == CommandField::C_STORE_RQ {
            let uid = message.command.text(tags::AFFECTED_SOP_INSTANCE_UID).unwrap().to_owned();
            let status = answer(retrieved.objects.len());
            peer.send_message(message.context_id, &store_response(&message.command, status), None);
            retrieved.objects.push((uid, message.context_id, message.data_set.unwrap()));
            continue;
        }
        assert_eq!(message.field(), CommandField::C_GET_RSP);
        assert_eq!(message.command.unsigned_short(tags::MESSAGE_ID_BEING_RESPONDED_TO), Ok(9));
        if message.status() == PENDING {
            retrieved.pending.push(numbers(&message.command));
        } else {
            retrieved.end(&message);
            return retrieved;
        }
    }
}

#[test]
fn every_object_arrives_byte_for_byte_as_it_lies() {
    let node = node_on(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures"), |_| {});
    let known = known(&node);
    let mut kinds: Vec<_> =
        known.values().map(|known| (known.class.as_str(), known.transfer_syntax.as_str())).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let syntaxes: Vec<_> = kinds.iter().map(|(_, transfer_syntax)| [*transfer_syntax]).collect();
    let storage: Vec<_> = kinds.iter().zip(&syntaxes).map(|((class, _), syntax)| (*class, syntax.as_slice())).collect();
    let mut peer = getter(&node, STUDY_GET, &storage);
    let uids: Vec<_> = known.keys().map(String::as_str).collect();
    let retrieved = get(&mut peer, STUDY_GET, &instances(&uids), |_| SUCCESS);
    assert_eq!((retrieved.status, retrieved.failed.as_slice()), (SUCCESS, &[][..]), "{}", retrieved.comment);
    assert_eq!(retrieved.objects.len(), known.len());
    assert!(known.len() > 90 && kinds.len() > 20, "{} instances of {} kinds", known.len(), kinds.len());
    for (uid, context_id, data_set) in &retrieved.objects {
        let expected = &known[uid];
        let (class, syntax) = storage[usize::from(context_id / 2) - 1];
        assert_eq!((class, syntax[0]), (expected.class.as_str(), expected.transfer_syntax.as_str()));
        let mut lies = data_set_of(&expected.path);
        if lies.len() % 2 == 1 {
            // PS3.8 E.1.
            lies.push(0);
        }
        assert!(*data_set == lies, "{}", expected.path.display());
    }
    peer.release();
}

/// Stores an object, `1.2.3.4.5` of the study `1.2.3`, and retrieves its study.
fn stored_and_got(node: &TestNode, sent: &DataSet) -> Retrieved {
    let contexts: &[(&str, &[&str])] = &[(SECONDARY_CAPTURE, &[IMPLICIT_VR_LITTLE_ENDIAN])];
    let mut peer = node.associate(contexts);
    peer.send_message(1, &store_command(7, SECONDARY_CAPTURE, "1.2.3.4.5"), Some(&sent.0));
    assert_eq!(peer.receive_message().status(), SUCCESS);
    peer.release();
    let mut peer = getter(node, STUDY_GET, contexts);
    let retrieved = get(&mut peer, STUDY_GET, &study("1.2.3"), |_| SUCCESS);
    peer.release();
    retrieved
}

#[test]
fn a_received_object_comes_back_as_it_was_sent() {
    let node = TestNode::start();
    // Larger than all buffers on its way, private elements, odd length.
    let sent = DataSet::instance(SECONDARY_CAPTURE, "1.2.3", "1.2.3.4", "1.2.3.4.5")
        .bytes(0x0021, 0x0010, b"ACME")
        .bytes(0x0021, 0x1001, b"odd")
        .bytes(0x7FE0, 0x0010, &vec![0x5A; 3_000_001]);
    let retrieved = stored_and_got(&node, &sent);
    assert_eq!(retrieved.status, SUCCESS);
    assert!(retrieved.objects[0].2 == sent.0);
}

#[test]
fn members_of_archives_are_sent_as_they_lie_there() {
    let files = archive(3, 2);
    let packed = TempDir::new().unwrap();
    for (options, name, series) in [("-cf", "one.tar", "1"), ("-czf", "two.tar.gz", "2"), ("-cf", "three.tar", "3")] {
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(files.path()).arg(options).arg(packed.path().join(name)).arg(series);
        assert!(tar.status().unwrap().success());
    }
    let node = node_on(packed.path(), |_| {});
    // One of the archives is not the one that was indexed any more.
    fs::write(packed.path().join("three.tar"), b"something else").unwrap();
    let mut peer = getter(&node, STUDY_GET, CT);
    let retrieved = get(&mut peer, STUDY_GET, &study("1.2.1"), |_| SUCCESS);
    assert_eq!((retrieved.status, retrieved.numbers), (SOME_FAILED, [None, Some(4), Some(2), Some(0)]));
    for (uid, _, data_set) in &retrieved.objects {
        let (series, instance) = uid.strip_prefix("1.2.1.").unwrap().split_once('.').unwrap();
        assert!(*data_set == data_set_of(&files.path().join(format!("{series}/{instance}.dcm"))), "{uid}");
    }
    peer.release();
    // Rewritten as well.
    let mut peer = getter(&node, STUDY_GET, &[(objects::SOP_CLASS, &[IMPLICIT_VR_LITTLE_ENDIAN])]);
    assert_eq!(get(&mut peer, STUDY_GET, &instance("1.2.1.2.1"), |_| SUCCESS).status, SUCCESS);
    peer.release();
}

#[test]
fn members_of_a_compressed_archive_are_sent_in_the_order_in_which_they_lie() {
    let files = archive(1, 9);
    let packed = TempDir::new().unwrap();
    let order = [7, 3, 9, 1, 5, 2, 8, 6, 4];
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(files.path()).arg("-czf").arg(packed.path().join("one.tar.gz"));
    assert!(tar.args(order.map(|number| format!("1/{number}.dcm"))).status().unwrap().success());
    let node = node_on(packed.path(), |_| {});
    let mut peer = getter(&node, STUDY_GET, CT);
    let retrieved = get(&mut peer, STUDY_GET, &study("1.2.1"), |_| SUCCESS);
    assert_eq!((retrieved.status, retrieved.numbers), (SUCCESS, [None, Some(9), Some(0), Some(0)]));
    let came: Vec<_> = retrieved.objects.iter().map(|(uid, ..)| uid.as_str()).collect();
    // The first one tells that there is an order; those before it come in a second pass.
    assert_eq!(came, [1, 5, 2, 8, 6, 4, 7, 3, 9].map(|number| format!("1.2.1.1.{number}")));
    for (number, (.., data_set)) in [1, 5, 2, 8, 6, 4, 7, 3, 9].into_iter().zip(&retrieved.objects) {
        assert!(*data_set == data_set_of(&files.path().join(format!("1/{number}.dcm"))), "{number}");
    }
    peer.release();
}

#[test]
fn each_level_brings_what_lies_below_it() {
    let archive = archive(3, 2);
    let node = node_on(archive.path(), |_| {});
    let mut peer = getter(&node, PATIENT_GET, CT);
    let mut brought = |identifier: &DataSet| {
        let retrieved = get(&mut peer, PATIENT_GET, identifier, |_| SUCCESS);
        assert_eq!(retrieved.status, SUCCESS);
        assert_eq!(retrieved.numbers, [None, Some(retrieved.objects.len() as u16), Some(0), Some(0)]);
        retrieved.objects.into_iter().map(|(uid, ..)| uid).collect::<Vec<_>>()
    };
    assert_eq!(brought(&identifier("PATIENT").text(0x0010, 0x0020, "P1")).len(), 6);
    assert_eq!(brought(&study("1.2.1")).len(), 6);
    let series = |uids| identifier("SERIES").uid(0x0020, 0x000E, uids);
    assert_eq!(brought(&series("1.2.1.2")), ["1.2.1.2.1", "1.2.1.2.2"]);
    assert_eq!(brought(&series("1.2.1.2\\1.2.1.3")).len(), 4);
    assert_eq!(brought(&instances(&["1.2.1.1.1", "1.2.1.3.2", "1.9.9"])), ["1.2.1.1.1", "1.2.1.3.2"]);
    // A UID that is not ours: nothing to be done, and that was done.
    assert_eq!(brought(&study("1.9.9")), [""; 0]);
    // Right UID, other patient.
    let other = identifier("STUDY").text(0x0010, 0x0020, "P2").uid(0x0020, 0x000D, "1.2.1");
    assert_eq!(brought(&other), [""; 0]);
    peer.release();
}

#[test]
fn the_numbers_of_sub_operations_add_up() {
    let archive = archive(1, 4);
    let node = node_on(archive.path(), |_| {});
    let mut peer = getter(&node, STUDY_GET, CT);
    // The second fails, the third is a warning (coercion of data elements).
    let answers = [SUCCESS, 0xA700, 0xB000, SUCCESS];
    let retrieved = get(&mut peer, STUDY_GET, &study("1.2.1"), |number| answers[number]);
    assert_eq!(
        retrieved.pending,
        [
            [Some(3), Some(1), Some(0), Some(0)],
            [Some(2), Some(1), Some(1), Some(0)],
            [Some(1), Some(1), Some(1), Some(1)],
        ]
    );
    assert_eq!(retrieved.status, SOME_FAILED);
    assert_eq!(retrieved.numbers, [None, Some(2), Some(1), Some(1)]);
    assert_eq!(retrieved.failed, ["1.2.1.1.2"]);
    let retrieved = get(&mut peer, STUDY_GET, &study("1.2.1"), |_| 0xC000);
    assert_eq!((retrieved.status, retrieved.numbers), (ALL_FAILED, [None, Some(0), Some(4), Some(0)]));
    assert_eq!(retrieved.failed.len(), 4);
    let retrieved = get(&mut peer, STUDY_GET, &study("1.2.1"), |_| 0xB000);
    assert_eq!((retrieved.status, retrieved.numbers), (SOME_FAILED, [None, Some(0), Some(0), Some(4)]));
    peer.release();
}

#[test]
fn what_is_gone_or_changed_is_a_failed_sub_operation_unless_there_is_a_copy() {
    let archive = archive(1, 5);
    let at = |number: u32| archive.path().join(format!("1/{number}.dcm"));
    // The fifth has a copy.
    fs::create_dir(archive.path().join("copies")).unwrap();
    fs::copy(at(5), archive.path().join("copies/5.dcm")).unwrap();
    let node = node_on(archive.path(), |_| {});
    fs::remove_file(at(1)).unwrap();
    fs::write(at(2), objects::file("P1", "1.2.1", "1.2.1.1", "1.2.77")).unwrap();
    fs::write(at(3), b"no object any more").unwrap();
    fs::remove_file(at(5)).unwrap();
    let mut peer = getter(&node, STUDY_GET, CT);
    let retrieved = get(&mut peer, STUDY_GET, &study("1.2.1"), |_| SUCCESS);
    assert_eq!(retrieved.status, SOME_FAILED);
    assert_eq!(retrieved.numbers, [None, Some(2), Some(3), Some(0)]);
    assert_eq!(retrieved.failed, ["1.2.1.1.1", "1.2.1.1.2", "1.2.1.1.3"]);
    assert!(!retrieved.comment.is_empty() && !retrieved.comment.contains('/'), "{}", retrieved.comment);
    assert!(retrieved.objects[1].2 == data_set_of(&archive.path().join("copies/5.dcm")));
    peer.release();
}

/// Starts a node and stores objects with pixel data of these lengths.
fn node_with_received(lengths: &[usize]) -> TestNode {
    let node = TestNode::start();
    let mut peer = node.associate(SC);
    for (at, length) in lengths.iter().enumerate() {
        let uid = format!("1.2.3.4.{at}");
        let sent = DataSet::instance(SECONDARY_CAPTURE, "1.2.3", "1.2.3.4", &uid);
        let sent = sent.bytes(0x7FE0, 0x0010, &vec![0x5A; *length]);
        peer.send_message(1, &store_command(7, SECONDARY_CAPTURE, &uid), Some(&sent.0));
        assert_eq!(peer.receive_message().status(), SUCCESS);
    }
    peer.release();
    // The name of an arriving object is removed after its Success. That changes the times of the
    // file, and a result of its verification then holds no longer.
    node.wait_for_incoming_links();
    node
}

const SC: &[(&str, &[&str])] = &[(SECONDARY_CAPTURE, &[IMPLICIT_VR_LITTLE_ENDIAN])];

/// Changes the last byte of an object.
fn damage(node: &TestNode, uid: &str) {
    let path = node.reader().locations(uid).unwrap()[0].path().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
}

#[test]
fn a_small_damaged_object_is_a_failed_sub_operation_and_nothing_of_it_is_sent() {
    let node = node_with_received(&[1000, 1000, 1000]);
    damage(&node, "1.2.3.4.1");
    for explicit in [false, true] {
        // As it lies, and rewritten.
        let syntaxes: &[&str] = if explicit { &[EXPLICIT_VR_LITTLE_ENDIAN] } else { &[IMPLICIT_VR_LITTLE_ENDIAN] };
        let mut peer = getter(&node, STUDY_GET, &[(SECONDARY_CAPTURE, syntaxes)]);
        let retrieved = get(&mut peer, STUDY_GET, &study("1.2.3"), |_| SUCCESS);
        assert_eq!(retrieved.status, SOME_FAILED);
        assert_eq!(retrieved.failed, ["1.2.3.4.1"]);
        assert_eq!(retrieved.objects.len(), 2);
        peer.release();
    }
}

#[test]
fn a_large_damaged_object_is_never_completed_and_known_as_such_the_next_time() {
    let node = node_with_received(&[3_000_000, 1000]);
    damage(&node, "1.2.3.4.0");
    let mut peer = getter(&node, STUDY_GET, SC);
    ask(&mut peer, STUDY_GET, None, &instance("1.2.3.4.0"));
    let (mut last, mut completed) = (0, false);
    while let Some(bytes) = peer.receive_bytes() {
        last = bytes[0];
        // Type, length, length of the item, context, and the control header: data and last
        // fragment.
        completed |= last == 0x04 && bytes.get(11) == Some(&2);
    }
    assert_eq!((last, completed), (0x07, false), "an A-ABORT is the last that comes");
    let mut peer = getter(&node, STUDY_GET, SC);
    let retrieved = get(&mut peer, STUDY_GET, &study("1.2.3"), |_| SUCCESS);
    assert_eq!((retrieved.status, retrieved.failed), (SOME_FAILED, vec!["1.2.3.4.0".to_owned()]));
    peer.release();
}

#[test]
fn in_place_of_a_damaged_object_a_copy_is_sent() {
    let node = node_with_received(&[1000]);
    let own = node.reader().locations("1.2.3.4.0").unwrap()[0].path().unwrap();
    let archive = TempDir::new().unwrap();
    fs::copy(own, archive.path().join("a.dcm")).unwrap();
    crate::db::scan_on_disk(&node.index(), archive.path(), &["a.dcm"]);
    damage(&node, "1.2.3.4.0");
    let mut peer = getter(&node, STUDY_GET, SC);
    let retrieved = get(&mut peer, STUDY_GET, &study("1.2.3"), |_| SUCCESS);
    assert_eq!(retrieved.status, SUCCESS);
    assert!(retrieved.objects[0].2 == data_set_of(&archive.path().join("a.dcm")));
    peer.release();
}

#[test]
fn a_file_in_place_that_names_another_patient_now_is_not_sent() {
    let archive = TempDir::new().unwrap();
    let path = archive.path().join("a.dcm");
    let long_ago = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    fs::write(&path, objects::file("P1", "1.2.1", "1.2.1.1", "1.2.1.1.1")).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_modified(long_ago).unwrap();
    let node = node_on(archive.path(), |_| {});
    fs::write(&path, objects::file("P2", "1.2.1", "1.2.1.1", "1.2.1.1.1")).unwrap();
    let mut peer = getter(&node, STUDY_GET, CT);
    let retrieved = get(&mut peer, STUDY_GET, &study("1.2.1"), |_| SUCCESS);
    assert_eq!((retrieved.status, retrieved.objects.len()), (ALL_FAILED, 0));
    peer.release();
}

#[test]
fn an_uncompressed_object_is_rewritten_for_a_peer_that_does_not_take_it_as_it_lies() {
    let node = node_on(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/real"), |_| {});
    let mut rewritten = 0;
    for (uid, known) in known(&node) {
        let others = [IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN];
        let Some(other) = others.into_iter().find(|other| *other != known.transfer_syntax) else { continue };
        let mut peer = getter(&node, STUDY_GET, &[(&known.class, &[other])]);
        let retrieved = get(&mut peer, STUDY_GET, &instance(&uid), |_| SUCCESS);
        peer.release();
        if known.is_compressed() {
            // See `decompression`.
            continue;
        }
        let Ok(file) = dicom_object::open_file(&known.path) else { continue };
        if retrieved.status == ALL_FAILED {
            // Damaged: said before the first byte is sent.
            assert!(
                retrieved.comment.starts_with("cannot be rewritten"),
                "{}: {}",
                known.path.display(),
                retrieved.comment
            );
            continue;
        }
        let syntax = if other == IMPLICIT_VR_LITTLE_ENDIAN { IMPLICIT.erased() } else { EXPLICIT.erased() };
        let read = InMemDicomObject::read_dataset_with_ts(retrieved.objects[0].2.as_slice(), &syntax).unwrap();
        for element in &*file {
            let tag = element.header().tag;
            let arrived = read.element_opt(tag).unwrap();
            if tag.element() == 0 {
                assert!(arrived.is_none(), "group length {tag}");
                continue;
            }
            let arrived = arrived.unwrap_or_else(|| panic!("{tag} is missing, {}", known.path.display()));
            if element.value().primitive().is_some() && arrived.vr() == element.vr() {
                assert_eq!(
                    arrived.to_bytes().unwrap(),
                    element.to_bytes().unwrap(),
                    "{tag} of {}",
                    known.path.display()
                );
            }
        }
        rewritten += 1;
    }
    assert!(rewritten > 30, "{rewritten}");
}

#[test]
fn an_identifier_that_names_nothing_is_refused() {
    let archive = archive(1, 1);
    let node = node_on(archive.path(), |_| {});
    let mut peer = getter(&node, STUDY_GET, CT);
    for bad in [
        identifier("STUDY"),
        study(""),
        study("1.*"),
        identifier("PATIENT").text(0x0010, 0x0020, "P1"),
        identifier("FRAME").uid(0x0020, 0x000D, "1.2.1"),
        DataSet::default().uid(0x0020, 0x000D, "1.2.1"),
    ] {
        let retrieved = get(&mut peer, STUDY_GET, &bad, |_| SUCCESS);
        assert_eq!((retrieved.status, retrieved.numbers), (DOES_NOT_MATCH, [None; 4]));
        assert!(!retrieved.comment.is_empty());
    }
    // No data set at all, and one that is none.
    let mut command = retrieve_command(9, STUDY_GET, None);
    command.set_unsigned_short(tags::COMMAND_DATA_SET_TYPE, command_set::NO_DATA_SET);
    peer.send_message(1, &command, None);
    assert_eq!(peer.receive_message().status(), DOES_NOT_MATCH);
    let retrieved = get(&mut peer, STUDY_GET, &DataSet(vec![1, 2, 3]), |_| SUCCESS);
    assert_eq!(retrieved.status & 0xF000, 0xC000);
    peer.release();
}

#[test]
fn more_instances_than_the_limit_are_refused() {
    let archive = archive(1, 3);
    let node = node_on(archive.path(), |settings| settings.retrieve.max_instances = 2);
    let mut peer = getter(&node, STUDY_GET, CT);
    assert_eq!(get(&mut peer, STUDY_GET, &study("1.2.1"), |_| SUCCESS).status, 0xA701);
    assert_eq!(get(&mut peer, STUDY_GET, &instances(&["1.2.1.1.1", "1.2.1.1.3"]), |_| SUCCESS).status, SUCCESS);
    peer.release();
}

#[test]
fn objects_that_were_let_go_fail_with_their_reason() {
    let node = TestNode::with(|settings| settings.keep = Keep::MetadataOnly);
    let sent = DataSet::instance(SECONDARY_CAPTURE, "1.2.3", "1.2.3.4", "1.2.3.4.5");
    let retrieved = stored_and_got(&node, &sent);
    assert_eq!((retrieved.status, retrieved.failed), (ALL_FAILED, vec!["1.2.3.4.5".to_owned()]));
    assert_eq!(retrieved.comment, "only its metadata are kept");
}

#[test]
fn without_the_role_of_an_scp_nothing_can_be_sent() {
    let archive = archive(1, 1);
    let node = node_on(archive.path(), |_| {});
    let contexts: &[(&str, &[&str])] =
        &[(STUDY_GET, &[IMPLICIT_VR_LITTLE_ENDIAN]), (objects::SOP_CLASS, &[EXPLICIT_VR_LITTLE_ENDIAN])];
    let mut peer = node.associate(contexts);
    let retrieved = get(&mut peer, STUDY_GET, &study("1.2.1"), |_| SUCCESS);
    assert_eq!((retrieved.status, retrieved.objects.len()), (ALL_FAILED, 0));
    assert!(retrieved.comment.contains("presentation context"), "{}", retrieved.comment);
    peer.release();
}

#[test]
fn a_cancel_ends_a_get_after_the_object_at_hand() {
    let archive = archive(1, 50);
    let node = node_on(archive.path(), |_| {});
    let mut peer = getter(&node, STUDY_GET, CT);
    ask(&mut peer, STUDY_GET, None, &study("1.2.1"));
    let object = peer.receive_message();
    assert_eq!(object.field(), CommandField::C_STORE_RQ);
    peer.send_message(1, &cancel_command(9), None);
    peer.send_message(object.context_id, &store_response(&object.command, SUCCESS), None);
    let last = peer.receive_message();
    assert_eq!((last.field(), last.status()), (CommandField::C_GET_RSP, CANCELLED));
    assert_eq!(numbers(&last.command), [Some(49), Some(1), Some(0), Some(0)]);
    // The association is as good as new.
    assert_eq!(get(&mut peer, STUDY_GET, &instance("1.2.1.1.7"), |_| SUCCESS).objects.len(), 1);
    peer.release();
}

// PS3.4 table C.4-3: FE00 says that sub-operations were terminated.
#[test]
fn a_cancel_with_the_last_object_changes_nothing() {
    let archive = archive(1, 1);
    let node = node_on(archive.path(), |_| {});
    let mut peer = getter(&node, STUDY_GET, CT);
    ask(&mut peer, STUDY_GET, None, &study("1.2.1"));
    let object = peer.receive_message();
    // Those for other messages change nothing either, however many they are.
    for message_id in [7, 8, 9] {
        peer.send_message(1, &cancel_command(message_id), None);
    }
    peer.send_message(object.context_id, &store_response(&object.command, SUCCESS), None);
    let last = peer.receive_message();
    assert_eq!((last.field(), last.status()), (CommandField::C_GET_RSP, SUCCESS));
    assert_eq!(numbers(&last.command), [None, Some(1), Some(0), Some(0)]);
    peer.release();
}

#[test]
fn a_peer_that_does_not_answer_an_object_is_not_waited_for_for_ever() {
    let archive = archive(1, 2);
    let node = node_on(archive.path(), |settings| settings.retrieve.response_timeout = Duration::from_millis(200));
    let mut peer = getter(&node, STUDY_GET, CT);
    ask(&mut peer, STUDY_GET, None, &study("1.2.1"));
    assert_eq!(peer.receive_message().field(), CommandField::C_STORE_RQ);
    assert_eq!(peer.receive(), Some(Pdu::AbortRQ { source: AbortRQSource::ServiceUser }));
    assert_eq!(peer.receive(), None);
}

#[test]
fn a_file_that_shrinks_while_it_is_sent_ends_the_association_and_not_the_node() {
    let archive = TempDir::new().unwrap();
    let path = archive.path().join("large.dcm");
    let mut bytes = objects::file("P1", "1.2.1", "1.2.1.1", "1.2.1.1.1");
    bytes.extend([0xE0, 0x7F, 0x10, 0, b'O', b'W', 0, 0]);
    bytes.extend(20_000_000_u32.to_le_bytes());
    bytes.extend(vec![7; 20_000_000]);
    fs::write(&path, &bytes).unwrap();
    let node = node_on(archive.path(), |_| {});
    let mut peer = getter(&node, STUDY_GET, CT);
    ask(&mut peer, STUDY_GET, None, &study("1.2.1"));
    // Its beginning is on the way, the rest is more than the buffers of both sides hold.
    assert_eq!(peer.receive_bytes().unwrap()[0], 0x04);
    fs::File::options().write(true).open(&path).unwrap().set_len(1_000_000).unwrap();
    let mut last = 0;
    while let Some(bytes) = peer.receive_bytes() {
        last = bytes[0];
    }
    assert_eq!(last, 0x07, "an A-ABORT is the last that comes");
    node.associate(&[(STUDY_GET, &[IMPLICIT_VR_LITTLE_ENDIAN])]).release();
}

// ---- C-MOVE -------------------------------------------------------------------------------------

/// Starts a node with the destination `DEST`. Returns the socket on which the destination listens.
fn node_with_destination(archive: &Path, change: impl FnOnce(&mut Settings)) -> (TestNode, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string().parse().unwrap();
    let node = node_on(archive, |settings| {
        settings.peers.destinations.insert("DEST".parse().unwrap(), Destination::plain(address));
        change(settings);
    });
    (node, listener)
}

fn mover(node: &TestNode) -> ScriptedPeer {
    node.associate(&[(STUDY_MOVE, &[IMPLICIT_VR_LITTLE_ENDIAN])])
}

/// Requests a C-MOVE and waits for its end.
fn move_to(peer: &mut ScriptedPeer, destination: &str, identifier: &DataSet) -> Retrieved {
    ask(peer, STUDY_MOVE, Some(destination), identifier);
    moved(peer)
}

fn moved(peer: &mut ScriptedPeer) -> Retrieved {
    let mut retrieved = Retrieved::default();
    loop {
        let message = peer.receive_message();
        assert_eq!(message.field(), CommandField::C_MOVE_RSP);
        if message.status() == PENDING {
            retrieved.pending.push(numbers(&message.command));
        } else {
            retrieved.end(&message);
            return retrieved;
        }
    }
}

fn first_syntax(proposed: &PresentationContextProposed) -> Option<String> {
    proposed.transfer_syntaxes.first().cloned()
}

/// Accepts the association of a C-MOVE with all proposed contexts.
fn accept(listener: &TcpListener) -> ScriptedPeer {
    let (mut peer, request) = ScriptedPeer::accept(listener);
    peer.accept_contexts(&request, first_syntax);
    peer
}

/// Requests a C-MOVE and accepts its association.
fn moving(node: &TestNode, listener: &TcpListener) -> (ScriptedPeer, ScriptedPeer) {
    let mut peer = mover(node);
    ask(&mut peer, STUDY_MOVE, Some("DEST"), &study("1.2.1"));
    (peer, accept(listener))
}

/// Receives objects until the association is released. Returns their commands.
fn take_all(peer: &mut ScriptedPeer, answer: impl Fn(usize) -> u16) -> Vec<Received> {
    let mut taken = Vec::new();
    loop {
        match peer.receive_anything() {
            Anything::Message(message) => {
                assert_eq!(message.field(), CommandField::C_STORE_RQ);
                peer.send_message(message.context_id, &store_response(&message.command, answer(taken.len())), None);
                taken.push(message);
            }
            Anything::Pdu(bytes) => {
                assert_eq!(bytes[0], 0x05, "A-RELEASE-RQ");
                peer.send_pdu(&Pdu::ReleaseRP);
                return taken;
            }
            Anything::End => return taken,
        }
    }
}

#[test]
fn a_move_sends_the_objects_to_the_destination_and_names_who_asked() {
    let archive = archive(2, 3);
    let (node, listener) = node_with_destination(archive.path(), |_| {});
    let destination = thread::spawn(move || {
        let (mut peer, request) = ScriptedPeer::accept(&listener);
        assert_eq!((request.calling_ae_title.trim(), request.called_ae_title.trim()), ("DCMDEX", "DEST"));
        peer.accept_contexts(&request, first_syntax);
        take_all(&mut peer, |_| SUCCESS)
    });
    let mut peer = mover(&node);
    let retrieved = move_to(&mut peer, "DEST", &study("1.2.1"));
    assert_eq!((retrieved.status, retrieved.numbers), (SUCCESS, [None, Some(6), Some(0), Some(0)]));
    assert!(retrieved.pending.iter().all(|numbers| numbers[0].unwrap() + numbers[1].unwrap() == 6));
    let taken = destination.join().unwrap();
    assert_eq!(taken.len(), 6);
    for object in &taken {
        assert_eq!(object.command.text(tags::MOVE_ORIGINATOR_APPLICATION_ENTITY_TITLE), Ok("SCRIPT"));
        assert_eq!(object.command.unsigned_short(tags::MOVE_ORIGINATOR_MESSAGE_ID), Ok(9));
    }
    let first = &taken[0];
    let uid = first.command.text(tags::AFFECTED_SOP_INSTANCE_UID).unwrap();
    assert!(first.data_set.as_deref() == Some(&data_set_of(&known(&node)[uid].path)[..]));
    peer.release();
}

#[test]
fn a_destination_may_leave_out_what_is_not_significant_in_its_answer() {
    let archive = archive(1, 2);
    let (node, listener) = node_with_destination(archive.path(), |_| {});
    let destination = thread::spawn(move || {
        let (mut peer, request) = ScriptedPeer::accept(&listener);
        let item = |kind: u8, content: &[u8]| {
            let length = u16::try_from(content.len()).unwrap().to_be_bytes();
            [&[kind, 0, length[0], length[1]], content].concat()
        };
        // PS3.8 9.3.3.2: of what is rejected the transfer syntax is not significant. Here it is not
        // there, as is the application context.
        let mut body = vec![0, 1, 0, 0];
        body.resize(68, b' ');
        for (at, proposed) in request.presentation_contexts.iter().enumerate() {
            let content = match at {
                0 => [vec![proposed.id, 0, 0, 0], item(0x40, proposed.transfer_syntaxes[0].as_bytes())].concat(),
                at => vec![proposed.id, 0, 3 + u8::try_from(at).unwrap(), 0],
            };
            body.extend(item(0x21, &content));
        }
        body.extend(item(0x50, &item(0x54, b"\0\x031.2\0\0\0")));
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        peer.send(&[&[2, 0], &length[..], &body].concat());
        take_all(&mut peer, |_| SUCCESS).len()
    });
    let mut peer = mover(&node);
    let retrieved = move_to(&mut peer, "DEST", &study("1.2.1"));
    assert_eq!((retrieved.status, retrieved.numbers), (SUCCESS, [None, Some(2), Some(0), Some(0)]));
    assert_eq!(destination.join().unwrap(), 2);
    peer.release();
}

#[test]
fn an_unknown_destination_is_a801() {
    let archive = archive(1, 1);
    let (node, _listener) = node_with_destination(archive.path(), |_| {});
    let mut peer = mover(&node);
    for title in ["NOBODY", "dest", "../DEST", "A\\B"] {
        assert_eq!(move_to(&mut peer, title, &study("1.2.1")).status, UNKNOWN_DESTINATION, "{title}");
    }
    peer.release();
}

#[test]
fn a_destination_that_cannot_be_reached_or_refuses_fails_all() {
    let archive = archive(1, 3);
    let (node, listener) = node_with_destination(archive.path(), |settings| {
        settings.options.artim_timeout = Duration::from_millis(300);
    });
    let mut peer = mover(&node);
    let all_failed = |retrieved: Retrieved| {
        assert_eq!((retrieved.status, retrieved.numbers), (ALL_FAILED, [None, Some(0), Some(3), Some(0)]));
        assert_eq!(retrieved.failed.len(), 3);
        retrieved.comment
    };
    // Rejects.
    let rejecting = thread::spawn(move || {
        let (mut peer, _) = ScriptedPeer::accept(&listener);
        peer.send_pdu(&Pdu::AssociationRJ(AssociationRJ {
            result: AssociationRJResult::Permanent,
            source: AssociationRJSource::ServiceUser(AssociationRJServiceUserReason::CallingAETitleNotRecognized),
        }));
        listener
    });
    assert_eq!(all_failed(move_to(&mut peer, "DEST", &study("1.2.1"))), "the destination rejected the association");
    let listener = rejecting.join().unwrap();
    // Accepts nothing of what is proposed.
    let choosy = thread::spawn(move || {
        let (mut peer, request) = ScriptedPeer::accept(&listener);
        peer.accept_contexts(&request, |_| None);
        assert!(take_all(&mut peer, |_| SUCCESS).is_empty());
        listener
    });
    assert!(all_failed(move_to(&mut peer, "DEST", &study("1.2.1"))).contains("context"));
    let listener = choosy.join().unwrap();
    // Says nothing.
    let comment = all_failed(move_to(&mut peer, "DEST", &study("1.2.1")));
    assert!(comment.contains("time"), "{comment}");
    // Is not there.
    drop(listener);
    assert!(all_failed(move_to(&mut peer, "DEST", &study("1.2.1"))).contains("no connection"));
    peer.release();
}

#[test]
fn a_destination_that_aborts_midway_gets_the_rest_on_a_second_association() {
    let archive = archive(1, 5);
    let (node, listener) = node_with_destination(archive.path(), |_| {});
    let destination = thread::spawn(move || {
        let mut peer = accept(&listener);
        let object = peer.receive_message();
        peer.send_message(object.context_id, &store_response(&object.command, SUCCESS), None);
        peer.receive_message();
        peer.send_pdu(&Pdu::AbortRQ { source: AbortRQSource::ServiceUser });
        drop(peer);
        let mut peer = accept(&listener);
        take_all(&mut peer, |_| SUCCESS).len()
    });
    let mut peer = mover(&node);
    let retrieved = move_to(&mut peer, "DEST", &study("1.2.1"));
    assert_eq!((retrieved.status, retrieved.numbers), (SOME_FAILED, [None, Some(4), Some(1), Some(0)]));
    assert_eq!(retrieved.failed, ["1.2.1.1.2"]);
    assert_eq!(destination.join().unwrap(), 3);
    peer.release();
}

#[test]
fn a_destination_that_stalls_is_given_up() {
    let archive = archive(1, 3);
    let (node, listener) = node_with_destination(archive.path(), |settings| {
        settings.retrieve.response_timeout = Duration::from_millis(200);
    });
    let destination = thread::spawn(move || {
        let mut peer = accept(&listener);
        peer.receive_message();
        // No answer; the node aborts.
        assert!(matches!(peer.receive(), Some(Pdu::AbortRQ { .. })));
    });
    let mut peer = mover(&node);
    let retrieved = move_to(&mut peer, "DEST", &study("1.2.1"));
    assert_eq!((retrieved.status, retrieved.numbers), (ALL_FAILED, [None, Some(0), Some(3), Some(0)]));
    destination.join().unwrap();
    peer.release();
}

#[test]
fn a_cancel_ends_a_move_after_the_object_at_hand() {
    let archive = archive(1, 20);
    let (node, listener) = node_with_destination(archive.path(), |_| {});
    let (mut peer, mut destination) = moving(&node, &listener);
    let object = destination.receive_message();
    peer.send_message(1, &cancel_command(9), None);
    // The node has read the cancel before it reads anything later from the same peer: a second
    // command, ahead of its time.
    let mut again = retrieve_command(10, STUDY_MOVE, Some("NOBODY"));
    again.set_unsigned_short(tags::COMMAND_DATA_SET_TYPE, command_set::NO_DATA_SET);
    peer.send_message(1, &again, None);
    destination.send_message(object.context_id, &store_response(&object.command, SUCCESS), None);
    let rest = take_all(&mut destination, |_| SUCCESS).len();
    let retrieved = moved(&mut peer);
    assert_eq!(retrieved.status, CANCELLED);
    assert_eq!(retrieved.numbers, [Some(19 - rest as u16), Some(1 + rest as u16), Some(0), Some(0)]);
    assert!(rest < 19);
    assert_eq!(peer.receive_message().status(), DOES_NOT_MATCH, "the second one, without an Identifier");
    peer.release();
}

#[test]
fn who_goes_away_ends_the_move() {
    let archive = archive(1, 20);
    let (node, listener) = node_with_destination(archive.path(), |_| {});
    let (peer, mut destination) = moving(&node, &listener);
    destination.receive_message();
    drop(peer);
    // Nothing more is sent; the connection ends.
    assert!(destination.receive_bytes().is_none());
}

#[test]
fn more_presentation_contexts_than_one_association_has_take_several() {
    let archive = TempDir::new().unwrap();
    for number in 0..150 {
        let uid = format!("1.2.1.1.{number}");
        let class = format!("1.2.3.999.{number}");
        let mut bytes = DataSet::instance(&class, "1.2.1", "1.2.1.1", &uid).0;
        let mut meta = b"\x02\0\x10\0UI\x12\0".to_vec();
        meta.extend(b"1.2.840.10008.1.2\0");
        let mut file = vec![0; 128];
        file.extend(b"DICM\x02\0\0\0UL\x04\0");
        file.extend((meta.len() as u32).to_le_bytes());
        file.append(&mut meta);
        file.append(&mut bytes);
        fs::write(archive.path().join(format!("{number}.dcm")), file).unwrap();
    }
    let (node, listener) = node_with_destination(archive.path(), |_| {});
    let destination = thread::spawn(move || {
        let mut taken = Vec::new();
        for _ in 0..3 {
            let (mut peer, request) = ScriptedPeer::accept(&listener);
            assert!(request.presentation_contexts.len() <= 128);
            peer.accept_contexts(&request, first_syntax);
            taken.push(take_all(&mut peer, |_| SUCCESS).len());
        }
        taken
    });
    let mut peer = mover(&node);
    let retrieved = move_to(&mut peer, "DEST", &study("1.2.1"));
    assert_eq!((retrieved.status, retrieved.numbers), (SUCCESS, [None, Some(150), Some(0), Some(0)]));
    assert_eq!(destination.join().unwrap().iter().sum::<usize>(), 150);
    peer.release();
}
