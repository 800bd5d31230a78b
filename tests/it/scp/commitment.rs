//! Storage Commitment: what the node promises, and how the report reaches the peer.

use std::fs;
use std::net::TcpListener;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use dcmdex::access::peers::{Grant, Peers};
use dcmdex::db::Search;
use dcmdex::deliver::scrub::Scrub;
use dcmdex::dimse::command_set::{self, CommandField, CommandSet};
use dcmdex::scp::CommitmentLimits;
use dcmdex::ul::destination::Destination;
use dicom_core::Tag;
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use dicom_transfer_syntax_registry::entries::IMPLICIT_VR_LITTLE_ENDIAN as IMPLICIT;
use dicom_ul::pdu::{AssociationRQ, Pdu, RequestorRoles, UserVariableItem};
use tempfile::TempDir;

use crate::util::node::{Keep, TestNode};
use crate::util::objects;
use crate::util::scripted::{
    DataSet, IMPLICIT_VR_LITTLE_ENDIAN, Received, ScriptedPeer, VERIFICATION, find_command, request, store_command,
};

pub(super) const COMMITMENT: &str = "1.2.840.10008.1.20.1";
const WELL_KNOWN_INSTANCE: &str = "1.2.840.10008.1.20.1.1";
const SECONDARY_CAPTURE: &str = "1.2.840.10008.5.1.4.1.1.7";
const STUDY_ROOT_FIND: &str = "1.2.840.10008.5.1.4.1.2.2.1";
const CONTEXTS: &[(&str, &[&str])] = &[
    (COMMITMENT, &[IMPLICIT_VR_LITTLE_ENDIAN]),
    (SECONDARY_CAPTURE, &[IMPLICIT_VR_LITTLE_ENDIAN]),
    (VERIFICATION, &[IMPLICIT_VR_LITTLE_ENDIAN]),
    (STUDY_ROOT_FIND, &[IMPLICIT_VR_LITTLE_ENDIAN]),
];

/// Cost of a transaction with one instance. One peer may have half of the total.
const ONE: usize = 257;

fn action(sop_instance: &str, action_type: u16) -> CommandSet {
    let mut command = CommandSet::new();
    command.set_uid(tags::REQUESTED_SOP_CLASS_UID, COMMITMENT);
    command.set_unsigned_short(tags::COMMAND_FIELD, CommandField::N_ACTION_RQ.0);
    command.set_unsigned_short(tags::MESSAGE_ID, 5);
    command.set_unsigned_short(tags::COMMAND_DATA_SET_TYPE, command_set::DATA_SET_PRESENT);
    command.set_uid(tags::REQUESTED_SOP_INSTANCE_UID, sop_instance);
    command.set_unsigned_short(tags::ACTION_TYPE_ID, action_type);
    command
}

fn event_response(request: &CommandSet) -> CommandSet {
    event_response_with(request, 0)
}

fn event_response_with(request: &CommandSet, status: u16) -> CommandSet {
    let mut command = CommandSet::new();
    command.set_unsigned_short(tags::COMMAND_FIELD, CommandField::N_EVENT_REPORT_RSP.0);
    let message_id = request.unsigned_short(tags::MESSAGE_ID).unwrap();
    command.set_unsigned_short(tags::MESSAGE_ID_BEING_RESPONDED_TO, message_id);
    command.set_unsigned_short(tags::COMMAND_DATA_SET_TYPE, command_set::NO_DATA_SET);
    command.set_unsigned_short(tags::STATUS, status);
    command
}

/// Builds a request for these instances, each with its SOP Class.
fn transaction(references: &[(&str, &str)]) -> DataSet {
    let mut items = DataSet::default();
    for (class, instance) in references {
        let item = DataSet::default().uid(0x0008, 0x1150, class).uid(0x0008, 0x1155, instance);
        items = items.bytes(0xFFFE, 0xE000, &item.0);
    }
    DataSet::default().uid(0x0008, 0x1195, "1.2.3.77").bytes(0x0008, 0x1199, &items.0)
}

/// Returns the contents of a report: the event, the committed instances, and the failed ones with
/// reasons.
fn reported(report: &Received) -> (u16, Vec<String>, Vec<(String, u16)>) {
    assert_eq!(report.field(), CommandField::N_EVENT_REPORT_RQ);
    assert_eq!(report.command.text(tags::AFFECTED_SOP_CLASS_UID), Ok(COMMITMENT));
    assert_eq!(report.command.text(tags::AFFECTED_SOP_INSTANCE_UID), Ok(WELL_KNOWN_INSTANCE));
    let bytes = report.data_set.as_deref().unwrap();
    let data_set = InMemDicomObject::read_dataset_with_ts(bytes, &IMPLICIT.erased()).unwrap();
    let text = |item: &InMemDicomObject, element| {
        item.element(Tag(0x0008, element)).unwrap().to_str().unwrap().trim_end_matches('\0').to_owned()
    };
    assert_eq!(text(&data_set, 0x1195), "1.2.3.77");
    let items = |element| {
        let sequence = data_set.element_opt(Tag(0x0008, element)).unwrap();
        sequence.map_or_else(Vec::new, |sequence| sequence.items().unwrap().to_vec())
    };
    let committed = items(0x1199).iter().map(|item| text(item, 0x1155)).collect();
    let failed = items(0x1198);
    let reason = |item: &InMemDicomObject| item.element(Tag(0x0008, 0x1197)).unwrap().to_int::<u16>().unwrap();
    let failed = failed.iter().map(|item| (text(item, 0x1155), reason(item)));
    (report.command.unsigned_short(tags::EVENT_TYPE_ID).unwrap(), committed, failed.collect())
}

fn store(peer: &mut ScriptedPeer, instance: &str) {
    let data_set = DataSet::instance(SECONDARY_CAPTURE, "1.2.3", "1.2.3.4", instance);
    peer.send_message(3, &store_command(7, SECONDARY_CAPTURE, instance), Some(&data_set.0));
    assert_eq!(peer.receive_message().status(), 0);
}

/// Sends the request on context 1, and receives the response and the report.
pub(super) fn commit(peer: &mut ScriptedPeer, references: &[(&str, &str)]) -> (u16, Vec<String>, Vec<(String, u16)>) {
    peer.send_message(1, &action(WELL_KNOWN_INSTANCE, 1), Some(&transaction(references).0));
    let response = peer.receive_message();
    assert_eq!((response.field(), response.status()), (CommandField::N_ACTION_RSP, 0));
    let report = peer.receive_message();
    peer.send_message(report.context_id, &event_response(&report.command), None);
    reported(&report)
}

#[test]
fn what_is_kept_and_sound_is_committed_and_all_else_has_its_reason() {
    let node = TestNode::start();
    let mut peer = node.associate(CONTEXTS);
    for instance in ["1.2.3.4.1", "1.2.3.4.2", "1.2.3.4.3"] {
        store(&mut peer, instance);
    }
    let good = [(SECONDARY_CAPTURE, "1.2.3.4.1"), (SECONDARY_CAPTURE, "1.2.3.4.2")];
    assert_eq!(commit(&mut peer, &good), (1, vec!["1.2.3.4.1".into(), "1.2.3.4.2".into()], vec![]));
    let path = |uid: &str| node.reader().locations(uid).unwrap()[0].path().unwrap();
    fs::remove_file(path("1.2.3.4.2")).unwrap();
    fs::write(path("1.2.3.4.3"), b"overwritten").unwrap();
    let mixed = [
        (SECONDARY_CAPTURE, "1.2.3.4.1"),
        (SECONDARY_CAPTURE, "1.2.3.4.2"),
        (SECONDARY_CAPTURE, "1.2.3.4.3"),
        (SECONDARY_CAPTURE, "1.9.9"),
        (objects::SOP_CLASS, "1.2.3.4.1"),
    ];
    let (event, committed, failed) = commit(&mut peer, &mixed);
    assert_eq!((event, committed), (2, vec!["1.2.3.4.1".to_owned()]));
    let expected = [("1.2.3.4.2", 0x0112), ("1.2.3.4.3", 0x0110), ("1.9.9", 0x0112), ("1.2.3.4.1", 0x0119)];
    assert_eq!(failed, expected.map(|(uid, reason)| (uid.to_owned(), reason)));
    peer.release();
}

/// A kind of damage to the bytes of a file.
type Damage = fn(&mut Vec<u8>);

const DAMAGES: [(&str, Damage); 4] = [
    ("cut to half", |bytes| bytes.truncate(bytes.len() / 2)),
    ("one byte changed", |bytes| *bytes.last_mut().unwrap() ^= 1),
    ("garbage appended", |bytes| bytes.extend([0; 64])),
    ("emptied", Vec::clear),
];

#[test]
fn a_damaged_object_is_not_committed_however_it_was_damaged() {
    let node = TestNode::start();
    let mut peer = node.associate(CONTEXTS);
    for (at, (what, damage)) in DAMAGES.into_iter().enumerate() {
        let uid = format!("1.2.3.4.{at}");
        let sent = DataSet::instance(SECONDARY_CAPTURE, "1.2.3", "1.2.3.4", &uid).bytes(0x7FE0, 0x0010, &[7; 3000]);
        peer.send_message(3, &store_command(7, SECONDARY_CAPTURE, &uid), Some(&sent.0));
        assert_eq!(peer.receive_message().status(), 0);
        assert_eq!(commit(&mut peer, &[(SECONDARY_CAPTURE, &uid)]), (1, vec![uid.clone()], vec![]), "{what}");
        let path = node.reader().locations(&uid).unwrap()[0].path().unwrap();
        let mut bytes = fs::read(&path).unwrap();
        damage(&mut bytes);
        fs::write(&path, bytes).unwrap();
        let refused = (2, vec![], vec![(uid.clone(), 0x0110)]);
        assert_eq!(commit(&mut peer, &[(SECONDARY_CAPTURE, &uid)]), refused, "{what}");
        // It is not forgotten.
        assert_eq!(commit(&mut peer, &[(SECONDARY_CAPTURE, &uid)]), refused, "{what}");
    }
    peer.release();
}

#[test]
fn a_file_in_place_that_is_not_as_it_was_indexed_is_not_committed() {
    let node = TestNode::start();
    let archive = TempDir::new().unwrap();
    let mut peer = node.associate(CONTEXTS);
    let long_ago = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    let of_patient = |patient: &str| {
        let mut bytes = objects::file(patient, "1.2.1", "1.2.1.1", "1.2.1.1.1");
        bytes.resize(bytes.len() + 1000, 0);
        bytes
    };
    let path = archive.path().join("a.dcm");
    let changes: [(&str, Vec<u8>); 4] = [
        ("cut to 60 %", of_patient("P1")[..of_patient("P1").len() * 6 / 10].to_vec()),
        ("longer", [of_patient("P1"), vec![0; 64]].concat()),
        ("of another patient", of_patient("P2")),
        ("as it was", of_patient("P1")),
    ];
    for (what, changed) in changes {
        fs::write(&path, of_patient("P1")).unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_modified(long_ago).unwrap();
        crate::db::scan_on_disk(&node.index(), archive.path(), &["a.dcm"]);
        fs::write(&path, changed).unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        let restored = what == "as it was";
        if restored {
            file.set_modified(long_ago).unwrap();
        }
        let (event, committed, failed) = commit(&mut peer, &[(objects::SOP_CLASS, "1.2.1.1.1")]);
        assert_eq!((event, committed.len(), failed.len()), if restored { (1, 1, 0) } else { (2, 0, 1) }, "{what}");
    }
    peer.release();
}

#[test]
fn a_scrub_finds_what_is_damaged_and_what_is_gone() {
    let node = TestNode::start();
    let mut peer = node.associate(CONTEXTS);
    for instance in ["1.2.3.4.1", "1.2.3.4.2", "1.2.3.4.3", "1.2.3.4.4"] {
        store(&mut peer, instance);
    }
    let path = |uid: &str| node.reader().locations(uid).unwrap()[0].path().unwrap();
    fs::remove_file(path("1.2.3.4.2")).unwrap();
    let mut bytes = fs::read(path("1.2.3.4.3")).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(path("1.2.3.4.3"), bytes).unwrap();
    let scrub = Scrub { index: node.index(), bytes_per_second: 1, verified: Arc::default() };
    let mut pauses = 0;
    let tally = scrub.round(&mut |_| {
        pauses += 1;
        ControlFlow::Continue(())
    });
    let tally = tally.unwrap();
    assert_eq!((tally.sound, tally.damaged, tally.gone), (2, 1, 1));
    assert!(tally.bytes > 0 && pauses == 3, "{tally:?}, {pauses}");
    // It ends when it is told to.
    let stopped = scrub.round(&mut |_| ControlFlow::Break(())).unwrap();
    assert_eq!(stopped.sound + stopped.damaged, 0);
}

#[test]
fn an_instance_that_is_named_again_and_again_is_looked_at_and_reported_once() {
    // Nor does it count more than once.
    let node =
        TestNode::with(|settings| settings.commitment = CommitmentLimits { verifying: 1, references: 2 * (ONE + 1) });
    let mut peer = node.associate(CONTEXTS);
    store(&mut peer, "1.2.3.4.1");
    let mut references = vec![(SECONDARY_CAPTURE, "1.2.3.4.1"); 1_000];
    references.push((SECONDARY_CAPTURE, "1.9.9"));
    references.push((SECONDARY_CAPTURE, "1.2.3.4.1"));
    let (event, committed, failed) = commit(&mut peer, &references);
    assert_eq!((event, committed, failed), (2, vec!["1.2.3.4.1".to_owned()], vec![("1.9.9".to_owned(), 0x0112)]));
    peer.release();
}

#[test]
fn requests_that_wait_for_their_turn_hold_up_nobody_and_there_is_an_end_to_them() {
    // No turn for anybody, and room for more requests than the node has threads for what blocks.
    let limits = CommitmentLimits { verifying: 0, references: 2 * 608 * ONE };
    let node = TestNode::with(|settings| settings.commitment = limits);
    let ask = |peer: &mut ScriptedPeer| {
        let one = transaction(&[(SECONDARY_CAPTURE, "1.2.3.4.1")]);
        peer.send_message(1, &action(WELL_KNOWN_INSTANCE, 1), Some(&one.0));
        peer.receive_message()
    };
    for _ in 0..38 {
        let mut peer = node.associate(CONTEXTS);
        for _ in 0..16 {
            assert_eq!(ask(&mut peer).status(), 0);
        }
        // They outlive it.
        peer.release();
    }
    let mut peer = node.associate(CONTEXTS);
    let response = ask(&mut peer);
    assert_eq!((response.field(), response.status()), (CommandField::N_ACTION_RSP, 0x0213));
    assert_eq!(response.error_comment(), "too many instances wait already; ask again later");
    peer.echo(5);
    store(&mut peer, "1.2.3.4.1");
    let identifier = DataSet::default().text(0x0008, 0x0052, "STUDY").uid(0x0020, 0x000D, "1.2.3");
    peer.send_message(7, &find_command(9, STUDY_ROOT_FIND), Some(&identifier.0));
    assert_eq!(peer.receive_message().status(), 0xFF00);
    assert_eq!(peer.receive_message().status(), 0);
    peer.release();
}

#[test]
fn a_transaction_that_is_reported_makes_room_for_the_next() {
    let node = TestNode::with(|settings| settings.commitment = CommitmentLimits { verifying: 1, references: 2 * ONE });
    let mut peer = node.associate(CONTEXTS);
    store(&mut peer, "1.2.3.4.1");
    let one = [(SECONDARY_CAPTURE, "1.2.3.4.1")];
    for _ in 0..5 {
        assert_eq!(commit(&mut peer, &one), (1, vec!["1.2.3.4.1".into()], vec![]));
    }
    let two = transaction(&[(SECONDARY_CAPTURE, "1.2.3.4.1"), (SECONDARY_CAPTURE, "1.2.3.4.2")]);
    peer.send_message(1, &action(WELL_KNOWN_INSTANCE, 1), Some(&two.0));
    assert_eq!(peer.receive_message().status(), 0x0213);
    // That of an association that is gone is given up where nobody is known to report to: then
    // there is room, too.
    peer.send_message(1, &action(WELL_KNOWN_INSTANCE, 1), Some(&transaction(&one).0));
    assert_eq!(peer.receive_message().status(), 0);
    peer.reset();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    loop {
        let mut peer = node.associate(CONTEXTS);
        peer.send_message(1, &action(WELL_KNOWN_INSTANCE, 1), Some(&transaction(&one).0));
        match peer.receive_message().status() {
            0x0213 => assert!(std::time::Instant::now() < deadline, "no room"),
            status => return assert_eq!(status, 0),
        }
        peer.release();
    }
}

#[test]
fn a_peer_that_answers_no_report_does_not_keep_others_from_asking() {
    // No turn for anybody: nothing is ever done with what was asked.
    let limits = CommitmentLimits { verifying: 0, references: 40 * ONE };
    let node = TestNode::with(|settings| settings.commitment = limits);
    let one = transaction(&[(SECONDARY_CAPTURE, "1.2.3.4.1")]);
    let ask = |peer: &mut ScriptedPeer| {
        peer.send_message(1, &action(WELL_KNOWN_INSTANCE, 1), Some(&one.0));
        peer.receive_message().status()
    };
    let grant = Grant::default();
    let titles = ["GREEDY", "HONEST"].map(|title| (title.parse().unwrap(), grant.clone()));
    node.peers().replace(Peers { table: Some(titles.into()), ..Peers::default() });
    let associate = |title: &str| {
        let mut peer = ScriptedPeer::connect(node.address());
        peer.associate(&AssociationRQ { calling_ae_title: title.into(), ..request(CONTEXTS) });
        peer
    };
    let mut greedy: Vec<_> = (0..4).map(|_| associate("GREEDY")).collect();
    let accepted = greedy.iter_mut().flat_map(|peer| (0..10).map(|_| ask(peer)).collect::<Vec<_>>());
    assert_eq!(accepted.filter(|status| *status == 0).count(), 20);
    let mut honest = associate("HONEST");
    for _ in 0..10 {
        assert_eq!(ask(&mut honest), 0);
    }
}

#[test]
fn a_report_that_is_not_answered_in_time_goes_out_on_another_association() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let node = TestNode::with(|settings| {
        settings.retrieve.response_timeout = std::time::Duration::from_millis(50);
        let address = listener.local_addr().unwrap().to_string().parse().unwrap();
        settings.peers.destinations.insert("SCRIPT".parse().unwrap(), Destination::plain(address));
    });
    let mut peer = node.associate(CONTEXTS);
    store(&mut peer, "1.2.3.4.1");
    let one = transaction(&[(SECONDARY_CAPTURE, "1.2.3.4.1")]);
    peer.send_message(1, &action(WELL_KNOWN_INSTANCE, 1), Some(&one.0));
    assert_eq!(peer.receive_message().status(), 0);
    let first = peer.receive_message();
    let (mut called, asked) = ScriptedPeer::accept(&listener);
    called.accept_contexts(&asked, |proposed| proposed.transfer_syntaxes.last().cloned());
    let second = called.receive_message();
    assert_eq!(reported(&second), reported(&first));
    called.send_message(second.context_id, &event_response(&second.command), None);
    // The first association is none the worse for it, whether its answer comes yet or not.
    peer.echo(5);
    peer.send_message(first.context_id, &event_response(&first.command), None);
    peer.echo(5);
    peer.release();
}

#[test]
fn a_report_that_the_peer_refuses_goes_out_again() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let node = TestNode::with(|settings| {
        let address = listener.local_addr().unwrap().to_string().parse().unwrap();
        settings.peers.destinations.insert("SCRIPT".parse().unwrap(), Destination::plain(address));
    });
    let mut peer = node.associate(CONTEXTS);
    store(&mut peer, "1.2.3.4.1");
    let one = transaction(&[(SECONDARY_CAPTURE, "1.2.3.4.1")]);
    peer.send_message(1, &action(WELL_KNOWN_INSTANCE, 1), Some(&one.0));
    assert_eq!(peer.receive_message().status(), 0);
    let first = peer.receive_message();
    peer.send_message(first.context_id, &event_response_with(&first.command, 0x0213), None);
    // At once on another association, and there after the first pause.
    for status in [0x0110, 0] {
        let (mut called, asked) = ScriptedPeer::accept(&listener);
        called.accept_contexts(&asked, |proposed| proposed.transfer_syntaxes.last().cloned());
        let again = called.receive_message();
        assert_eq!(reported(&again), reported(&first));
        assert_eq!(dcmdex::scp::pending_reports(&node.index()).unwrap(), 1);
        called.send_message(again.context_id, &event_response_with(&again.command, status), None);
        assert_eq!(called.receive(), Some(Pdu::ReleaseRQ));
        called.send_pdu(&Pdu::ReleaseRP);
    }
    while dcmdex::scp::pending_reports(&node.index()).unwrap() > 0 {
        std::thread::yield_now();
    }
    peer.release();
}

#[test]
fn of_two_contents_of_an_instance_both_have_to_be_sound() {
    let node = TestNode::start();
    let mut peer = node.associate(CONTEXTS);
    let uids = ["1.2.3.4.1", "1.2.3.4.2", "1.2.3.4.3"];
    for uid in uids {
        store(&mut peer, uid);
        let other = DataSet::instance(SECONDARY_CAPTURE, "1.2.3", "1.2.3.4", uid).bytes(0x7FE0, 0x0010, &[7; 3000]);
        peer.send_message(3, &store_command(7, SECONDARY_CAPTURE, uid), Some(&other.0));
        assert_eq!(peer.receive_message().status(), 0);
    }
    let all = uids.map(|uid| (SECONDARY_CAPTURE, uid));
    assert_eq!(commit(&mut peer, &all), (1, uids.map(str::to_owned).into(), vec![]));
    let path = |uid: &str, at: usize| node.reader().known_locations(uid).unwrap()[at].location.path().unwrap();
    fs::remove_file(path(uids[0], 1)).unwrap();
    fs::write(path(uids[1], 1), b"overwritten").unwrap();
    fs::write(path(uids[2], 0), b"overwritten").unwrap();
    let failed = [(uids[0], 0x0112), (uids[1], 0x0110), (uids[2], 0x0110)].map(|(uid, why)| (uid.to_owned(), why));
    assert_eq!(commit(&mut peer, &all), (2, vec![], failed.into()));
    peer.release();
}

#[test]
fn a_report_comes_after_a_restart() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address: std::net::SocketAddr = listener.local_addr().unwrap();
    let known = move |settings: &mut crate::util::node::Settings| {
        let destination = Destination::plain(address.to_string().parse().unwrap());
        settings.peers.destinations.insert("SCRIPT".parse().unwrap(), destination);
    };
    // No turn for anybody: the node ends before it has looked at anything.
    let node = TestNode::with(|settings| {
        known(settings);
        settings.commitment = CommitmentLimits { verifying: 0, ..CommitmentLimits::default() };
    });
    let mut peer = node.associate(CONTEXTS);
    store(&mut peer, "1.2.3.4.1");
    let request = transaction(&[(SECONDARY_CAPTURE, "1.2.3.4.1"), (SECONDARY_CAPTURE, "1.9.9")]);
    peer.send_message(1, &action(WELL_KNOWN_INSTANCE, 1), Some(&request.0));
    assert_eq!(peer.receive_message().status(), 0);
    peer.release();
    assert_eq!(dcmdex::scp::pending_reports(&node.index()).unwrap(), 1);
    let directory = node.directory();
    node.stop();
    let node = TestNode::with(|settings| {
        known(settings);
        settings.directory = directory;
    });
    let (mut called, asked) = ScriptedPeer::accept(&listener);
    called.accept_contexts(&asked, |_| Some(IMPLICIT_VR_LITTLE_ENDIAN.into()));
    let report = called.receive_message();
    assert_eq!(reported(&report), (2, vec!["1.2.3.4.1".to_owned()], vec![("1.9.9".to_owned(), 0x0112)]));
    called.send_message(report.context_id, &event_response(&report.command), None);
    // It is over, and nothing is left of it.
    assert_eq!(called.receive(), Some(Pdu::ReleaseRQ));
    called.send_pdu(&Pdu::ReleaseRP);
    while dcmdex::scp::pending_reports(&node.index()).unwrap() > 0 {
        std::thread::yield_now();
    }
}

#[test]
fn in_metadata_only_mode_nothing_is_committed() {
    let node = TestNode::with(|settings| settings.keep = Keep::MetadataOnly);
    let mut peer = node.associate(CONTEXTS);
    store(&mut peer, "1.2.3.4.1");
    let (event, committed, failed) = commit(&mut peer, &[(SECONDARY_CAPTURE, "1.2.3.4.1")]);
    assert_eq!((event, committed, failed), (2, vec![], vec![("1.2.3.4.1".to_owned(), 0x0112)]));
    peer.release();
}

#[test]
fn files_of_the_archive_count_when_they_are_there() {
    let archive = TempDir::new().unwrap();
    objects::write(&archive.path().join("1.dcm"), 1, 1, 1);
    let directory = Arc::new(TempDir::new().unwrap());
    scan(&directory.path().join("index.db"), archive.path());
    let node = TestNode::with(|settings| settings.directory = directory);
    let mut peer = node.associate(CONTEXTS);
    let references = [(objects::SOP_CLASS, "1.2.1.1.1")];
    assert_eq!(commit(&mut peer, &references), (1, vec!["1.2.1.1.1".into()], vec![]));
    peer.release();
}

fn scan(index: &Path, archive: &Path) {
    let scan = Command::new(env!("CARGO_BIN_EXE_dcmdex")).arg("scan").arg("--index").arg(index).arg(archive).output();
    assert_eq!(scan.unwrap().status.code(), Some(0));
}

#[test]
fn a_report_finds_a_peer_that_has_released_its_association() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string().parse().unwrap();
    let node = TestNode::with(|settings| {
        settings.peers.destinations.insert("SCRIPT".parse().unwrap(), Destination::plain(address));
    });
    let mut peer = node.associate(CONTEXTS);
    store(&mut peer, "1.2.3.4.1");
    // In one write: the node reads the release right after the request.
    peer.send_message(1, &action(WELL_KNOWN_INSTANCE, 1), Some(&transaction(&[(SECONDARY_CAPTURE, "1.2.3.4.1")]).0));
    assert_eq!(peer.receive_message().status(), 0);
    // The report may be on this association already; who does not answer it gets it again.
    peer.send_pdu(&Pdu::ReleaseRQ);
    let (mut caller, request) = ScriptedPeer::accept(&listener);
    assert_eq!((request.calling_ae_title.trim(), request.called_ae_title.trim()), ("DCMDEX", "SCRIPT"));
    let role =
        UserVariableItem::ScuScpRoleSelectionSubItem(COMMITMENT.into(), RequestorRoles { scu: false, scp: true });
    assert!(request.user_variables.contains(&role), "{:?}", request.user_variables);
    caller.accept_contexts(&request, |_| Some(IMPLICIT_VR_LITTLE_ENDIAN.into()));
    let report = caller.receive_message();
    assert_eq!(reported(&report), (1, vec!["1.2.3.4.1".into()], vec![]));
    caller.send_message(report.context_id, &event_response(&report.command), None);
    assert_eq!(caller.receive(), Some(Pdu::ReleaseRQ));
    caller.send_pdu(&Pdu::ReleaseRP);
}

#[test]
fn requests_that_are_none_are_refused() {
    let node = TestNode::start();
    let mut peer = node.associate(CONTEXTS);
    let good = transaction(&[(SECONDARY_CAPTURE, "1.2.3")]);
    let mut ask = |context, command: &CommandSet, data_set: &DataSet| {
        peer.send_message(context, command, Some(&data_set.0));
        let response = peer.receive_message();
        assert_eq!(response.field(), CommandField::N_ACTION_RSP);
        response.status()
    };
    assert_eq!(ask(1, &action("1.2.3", 1), &good), 0x0112);
    assert_eq!(ask(1, &action(WELL_KNOWN_INSTANCE, 2), &good), 0x0123);
    assert_eq!(ask(3, &action(WELL_KNOWN_INSTANCE, 1), &good), 0x0118);
    let bad = [
        DataSet::default(),
        DataSet(vec![1, 2, 3]),
        DataSet::default().uid(0x0008, 0x1195, "1.2.3.77"),
        transaction(&[]),
        transaction(&[("", "1.2.3")]),
        DataSet::default().bytes(0x0008, 0x1199, &[]),
    ];
    for data_set in bad {
        assert_eq!(ask(1, &action(WELL_KNOWN_INSTANCE, 1), &data_set), 0x0115);
    }
    peer.release();
}
