//! C-FIND: the conversation. What matches is the business of the tests of `qr`.

use std::sync::Arc;
use std::time::Duration;

use dcmdex::db::{Durability, FileOutcome, ScannedDirectory, ScannedFile, Writer, WriterOptions};
use dcmdex::dimse::command_set::{self, CommandField};
use dcmdex::model::attribute::AttributeId;
use dcmdex::model::location::Place;
use dcmdex::model::record::InstanceRecord;
use dicom_ul::pdu::{AbortRQSource, Pdu, PresentationContextResultReason as ContextResult, UserVariableItem};
use tempfile::TempDir;

use crate::util::node::TestNode;
use crate::util::peers;
use crate::util::scripted::{
    DataSet, EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, Received, ScriptedPeer, VERIFICATION,
    cancel_command, echo_command, find_command, request,
};

const STUDY_ROOT: &str = "1.2.840.10008.5.1.4.1.2.2.1";
const CONTEXTS: &[(&str, &[&str])] =
    &[(STUDY_ROOT, &[IMPLICIT_VR_LITTLE_ENDIAN]), (VERIFICATION, &[IMPLICIT_VR_LITTLE_ENDIAN])];

const SUCCESS: u16 = 0;
const PENDING: u16 = 0xFF00;
const PENDING_WITHOUT_OPTIONAL_KEYS: u16 = 0xFF01;
const CANCELLED: u16 = 0xFE00;
const OUT_OF_RESOURCES: u16 = 0xA700;
const IDENTIFIER_DOES_NOT_MATCH: u16 = 0xA900;

/// Characters of the comment that each answer of a large query repeats, so that few answers fill all buffers.
const COMMENT_LENGTH: usize = 10_000;

/// A node whose index holds one study of so many instances.
fn node_with(instances: usize, change: impl FnOnce(&mut crate::util::node::Settings)) -> TestNode {
    let directory = Arc::new(TempDir::new().unwrap());
    let options = WriterOptions { durability: Durability::Normal, ..WriterOptions::default() };
    let writer = Writer::open(&directory.path().join("index.db"), options).unwrap();
    let comment = "x".repeat(COMMENT_LENGTH);
    let files = (1..=instances).map(|number| {
        let mut record = InstanceRecord::new();
        let instance = format!("1.2.3.4.{number}");
        for (id, value) in [
            (AttributeId::PatientID, "P1"),
            (AttributeId::PatientName, "Test^Person"),
            (AttributeId::PatientComments, comment.as_str()),
            (AttributeId::StudyInstanceUID, "1.2.3"),
            (AttributeId::StudyDate, "20240229"),
            (AttributeId::SeriesInstanceUID, "1.2.3.4"),
            (AttributeId::Modality, "CT"),
            (AttributeId::SOPInstanceUID, instance.as_str()),
            (AttributeId::SOPClassUID, "1.2.840.10008.5.1.4.1.1.2"),
            (AttributeId::InstanceNumber, number.to_string().as_str()),
        ] {
            record.set(id, value);
        }
        ScannedFile {
            file_name: format!("{number}.dcm").into(),
            size: 1,
            mtime_ms: 1,
            known: false,
            reread: false,
            outcome: FileOutcome::Instance(Box::new(record)),
        }
    });
    let files = files.collect();
    let scanned = ScannedDirectory {
        place: Place::InPlace,
        directory: "/archive".into(),
        files,
        complete: true,
        vanished: Vec::new(),
        missing: Vec::new(),
        returned: Vec::new(),
    };
    writer.handle().scanned(scanned).unwrap();
    writer.close().unwrap();
    TestNode::with(|settings| {
        settings.directory = directory;
        change(settings);
    })
}

fn all_studies() -> DataSet {
    DataSet::default().text(0x0008, 0x0052, "STUDY").text(0x0010, 0x0010, "").text(0x0020, 0x000D, "")
}

/// Every instance, with the long comment in each answer.
fn all_instances() -> DataSet {
    DataSet::default()
        .uid(0x0008, 0x0018, "")
        .text(0x0008, 0x0052, "IMAGE")
        .text(0x0010, 0x4000, "")
        .uid(0x0020, 0x000D, "1.2.3")
        .uid(0x0020, 0x000E, "1.2.3.4")
}

fn ask(peer: &mut ScriptedPeer, message_id: u16, identifier: &DataSet) {
    peer.send_message(1, &find_command(message_id, STUDY_ROOT), Some(&identifier.0));
}

/// All responses up to the last one.
fn answers(peer: &mut ScriptedPeer) -> (Vec<Received>, Received) {
    let mut pending = Vec::new();
    loop {
        let response = peer.receive_message();
        assert_eq!(response.field(), CommandField::C_FIND_RSP);
        assert_eq!(response.command.text(command_set::AFFECTED_SOP_CLASS_UID), Ok(STUDY_ROOT));
        if matches!(response.status(), PENDING | PENDING_WITHOUT_OPTIONAL_KEYS) {
            assert!(response.data_set.is_some());
            pending.push(response);
        } else {
            assert_eq!(response.data_set, None);
            return (pending, response);
        }
    }
}

fn contains(haystack: &[u8], needle: &str) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle.as_bytes())
}

#[test]
fn a_query_is_answered_and_the_association_lives_on() {
    let node = node_with(3, |_| {});
    let mut peer = ScriptedPeer::associated(node.address(), CONTEXTS);
    for message_id in 1..=5 {
        ask(&mut peer, message_id, &all_studies());
        let (pending, last) = answers(&mut peer);
        let [study] = pending.as_slice() else { panic!("{pending:?}") };
        let identifier = study.data_set.as_deref().unwrap();
        assert!(contains(identifier, "Test^Person") && contains(identifier, "1.2.3"));
        assert_eq!(last.status(), SUCCESS);
        assert_eq!(last.command.unsigned_short(command_set::MESSAGE_ID_BEING_RESPONDED_TO), Ok(message_id));
    }
    peer.echo(3);
    peer.release();
}

#[test]
fn every_answer_of_a_large_result_arrives_once_and_in_order() {
    let node = node_with(2000, |_| {});
    let mut peer = ScriptedPeer::associated(node.address(), CONTEXTS);
    ask(&mut peer, 1, &all_instances());
    let (pending, last) = answers(&mut peer);
    assert_eq!((pending.len(), last.status()), (2000, SUCCESS));
    let mut distinct: Vec<_> = pending.iter().map(|answer| answer.data_set.clone()).collect();
    distinct.dedup();
    assert_eq!(distinct.len(), 2000);
}

#[test]
fn cancel_ends_a_query_before_its_last_answer() {
    let node = node_with(5000, |_| {});
    let mut peer = ScriptedPeer::associated(node.address(), CONTEXTS);
    ask(&mut peer, 7, &all_instances());
    // 50 MB of answers: far more than fits anywhere while nobody reads.
    peer.send_message(1, &cancel_command(7), None);
    let (pending, last) = answers(&mut peer);
    assert_eq!(last.status(), CANCELLED);
    assert!(pending.len() < 5000, "{} answers", pending.len());
    peer.echo(3);
    peer.release();
}

#[test]
fn cancel_for_another_message_or_too_late_changes_nothing() {
    let node = node_with(300, |_| {});
    let mut peer = ScriptedPeer::associated(node.address(), CONTEXTS);
    ask(&mut peer, 7, &all_instances());
    peer.send_message(1, &cancel_command(8), None);
    let (pending, last) = answers(&mut peer);
    assert_eq!((pending.len(), last.status()), (300, SUCCESS));
    peer.send_message(1, &cancel_command(7), None);
    peer.echo(3);
    peer.release();
}

#[test]
fn what_comes_ahead_of_its_time_is_served_after_the_query() {
    let node = node_with(300, |_| {});
    let mut peer = ScriptedPeer::associated(node.address(), CONTEXTS);
    ask(&mut peer, 1, &all_instances());
    peer.send_message(3, &echo_command(2), None);
    ask(&mut peer, 3, &all_studies());
    peer.send_message(3, &echo_command(4), None);
    assert_eq!(answers(&mut peer).0.len(), 300);
    assert_eq!(peer.receive_message().field(), CommandField::C_ECHO_RSP);
    assert_eq!(answers(&mut peer).0.len(), 1);
    assert_eq!(peer.receive_message().field(), CommandField::C_ECHO_RSP);
}

#[test]
fn a_peer_that_goes_away_in_the_middle_of_its_answers_harms_nobody() {
    let node = node_with(5000, |_| {});
    for way in 0..3 {
        let mut peer = ScriptedPeer::associated(node.address(), CONTEXTS);
        ask(&mut peer, 1, &all_instances());
        assert_eq!(peer.receive_message().status(), PENDING);
        match way {
            0 => drop(peer),
            1 => peer.send_pdu(&Pdu::AbortRQ { source: AbortRQSource::ServiceUser }),
            _ => peer.send_pdu(&Pdu::ReleaseRQ),
        }
    }
    let mut peer = ScriptedPeer::associated(node.address(), CONTEXTS);
    ask(&mut peer, 1, &all_studies());
    assert_eq!(answers(&mut peer).1.status(), SUCCESS);
    peer.release();
    node.stop();
}

#[test]
fn a_peer_that_takes_no_answers_is_cut_off() {
    let node = node_with(5000, |settings| settings.options.write_timeout = Duration::from_millis(100));
    let mut peer = ScriptedPeer::associated(node.address(), CONTEXTS);
    ask(&mut peer, 1, &all_instances());
    // Nothing is read until the node has given up; stopping waits for that.
    node.stop();
    let mut received = 0;
    while let Some(bytes) = peer.receive_bytes() {
        received += bytes.len();
    }
    assert!(received < 5000 * COMMENT_LENGTH, "{received} bytes");
}

#[test]
fn a_query_that_takes_too_long_is_out_of_resources() {
    let node = node_with(5000, |settings| settings.options.query_time_limit = Duration::ZERO);
    let mut peer = ScriptedPeer::associated(node.address(), CONTEXTS);
    ask(&mut peer, 1, &all_instances());
    let (_, last) = answers(&mut peer);
    assert_eq!(last.status(), OUT_OF_RESOURCES);
    assert!(last.error_comment().contains("time limit"), "{}", last.error_comment());
    peer.echo(3);
}

#[test]
fn identifiers_that_say_nothing_are_refused_and_the_association_lives_on() {
    let node = node_with(1, |_| {});
    let mut peer = ScriptedPeer::associated(node.address(), CONTEXTS);
    let mut nested = DataSet::default();
    for _ in 0..10_000 {
        nested = nested.header(0x0008, 0x1140, u32::MAX).header(0xFFFE, 0xE000, u32::MAX);
    }
    let cases = [
        ("no level", DataSet::default().text(0x0010, 0x0010, ""), IDENTIFIER_DOES_NOT_MATCH),
        ("unknown level", DataSet::default().text(0x0008, 0x0052, "FRAME"), IDENTIFIER_DOES_NOT_MATCH),
        ("level of another model", DataSet::default().text(0x0008, 0x0052, "PATIENT"), IDENTIFIER_DOES_NOT_MATCH),
        ("empty", DataSet::default(), IDENTIFIER_DOES_NOT_MATCH),
        ("cut", DataSet(all_studies().0[..10].to_vec()), 0xC001),
        ("nested", nested, 0xC001),
        ("4 GiB", all_studies().header(0x0020, 0x4000, 0xFFFF_FFFE), 0xC001),
        ("too long", all_studies().bytes(0x0020, 0x4000, &vec![b'x'; dcmdex::qr::MAX_IDENTIFIER_LENGTH]), 0xC001),
    ];
    for (name, identifier, expected) in cases {
        ask(&mut peer, 1, &identifier);
        let (pending, last) = answers(&mut peer);
        assert!(pending.is_empty(), "{name}");
        assert_eq!(last.status(), expected, "{name}: {:?}", last.error_comment());
        assert!(!last.error_comment().is_empty(), "{name}");
        if expected == IDENTIFIER_DOES_NOT_MATCH {
            assert_eq!(last.command.value(command_set::OFFENDING_ELEMENT), Some(&[8, 0, 0x52, 0][..]), "{name}");
        }
        peer.echo(3);
    }
    let mut no_data_set = find_command(1, STUDY_ROOT);
    no_data_set.set_unsigned_short(command_set::COMMAND_DATA_SET_TYPE, command_set::NO_DATA_SET);
    peer.send_message(1, &no_data_set, None);
    assert_eq!(answers(&mut peer).1.status(), IDENTIFIER_DOES_NOT_MATCH);
}

#[test]
fn a_class_that_is_not_that_of_the_context_is_refused() {
    let node = node_with(1, |_| {});
    let mut peer = ScriptedPeer::associated(node.address(), CONTEXTS);
    for context in [1, 3] {
        let command = find_command(1, "1.2.840.10008.5.1.4.1.2.1.1");
        peer.send_message(context, &command, Some(&all_studies().0));
        assert_eq!(peer.receive_message().status(), 0x0122);
    }
    peer.echo(3);
}

#[test]
fn only_syntaxes_that_are_read_are_accepted_for_queries() {
    let node = node_with(1, |_| {});
    let mut peer = ScriptedPeer::connect(node.address());
    let accept = peer.associate(&request(&[
        (STUDY_ROOT, &["1.2.840.10008.1.2.1.99", EXPLICIT_VR_LITTLE_ENDIAN]),
        (STUDY_ROOT, &["1.2.840.10008.1.2.1.99"]),
        (STUDY_ROOT, &["1.2.840.10008.1.2.2"]),
        ("1.2.840.10008.5.1.4.31", &[IMPLICIT_VR_LITTLE_ENDIAN]),
    ]));
    let results: Vec<_> = accept.presentation_contexts.iter().map(|context| context.reason.clone()).collect();
    assert_eq!(
        results,
        [
            ContextResult::Acceptance,
            ContextResult::TransferSyntaxesNotSupported,
            ContextResult::Acceptance,
            ContextResult::AbstractSyntaxNotSupported,
        ]
    );
    assert_eq!(accept.presentation_contexts[0].transfer_syntax, EXPLICIT_VR_LITTLE_ENDIAN);
}

#[test]
fn extended_negotiation_is_answered_with_what_there_is() {
    let node = node_with(1, |_| {});
    let mut request = request(CONTEXTS);
    let asked = UserVariableItem::SopClassExtendedNegotiationSubItem(STUDY_ROOT.into(), vec![1; 7]);
    request.user_variables.push(asked);
    let mut peer = ScriptedPeer::connect(node.address());
    let accept = peer.associate(&request);
    // Not: timezone query adjustment (byte 4), enhanced multi-frame image conversion (byte 5).
    let expected = UserVariableItem::SopClassExtendedNegotiationSubItem(STUDY_ROOT.into(), vec![1, 1, 1, 0, 0, 1, 1]);
    assert!(accept.user_variables.contains(&expected), "{:?}", accept.user_variables);
}

#[test]
fn findscu_of_dcmtk_is_answered() {
    let Some(mut findscu) = peers::dcmtk("findscu") else { return };
    let node = node_with(12, |_| {});
    let arguments = ["-v", "-S", "-aec", "DCMDEX", "-k", "QueryRetrieveLevel=STUDY", "-k", "PatientName=TEST*"];
    let counters = ["-k", "StudyInstanceUID", "-k", "NumberOfStudyRelatedInstances"];
    let said = peers::run(findscu.args(arguments).args(counters).args(["127.0.0.1", &node.port()])).expect_success();
    assert!(said.contains("Test^Person") && said.contains("[12"), "{said}");
    assert!(said.contains("Received Final Find Response (Success)"), "{said}");
}

#[test]
fn findscu_that_cancels_is_told_so() {
    let Some(mut findscu) = peers::dcmtk("findscu") else { return };
    let node = node_with(5000, |_| {});
    let arguments = ["-v", "-S", "--cancel", "3", "-aec", "DCMDEX", "-k", "QueryRetrieveLevel=IMAGE"];
    let keys = [
        "-k",
        "StudyInstanceUID=1.2.3",
        "-k",
        "SeriesInstanceUID=1.2.3.4",
        "-k",
        "SOPInstanceUID",
        "-k",
        "PatientComments",
    ];
    let said = peers::run(findscu.args(arguments).args(keys).args(["127.0.0.1", &node.port()])).expect_success();
    assert!(said.contains("Received Final Find Response (Cancel"), "{}", &said[said.len().saturating_sub(2000)..]);
}
