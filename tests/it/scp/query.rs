//! The C-FIND conversation. The tests of `qr` cover the matching.

use std::sync::Arc;
use std::time::Duration;

use dicom_dictionary_std::tags;

use dcmdex::db::open::{Writer, WriterOptions};
use dcmdex::db::{Arrivals, Durability, FileOutcome, ScannedDirectory, ScannedFile};
use dcmdex::dimse::command_set::{self, CommandField};
use dcmdex::model::attribute::AttributeId;
use dcmdex::model::location::Place;
use dcmdex::model::record::InstanceRecord;
use dicom_ul::pdu::{AbortRQSource, Pdu, PresentationContextResultReason as ContextResult, UserVariableItem};
use tempfile::TempDir;

use crate::util::node::TestNode;
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

/// Length of the comment in each answer of a large query. It is long, so that a few answers fill
/// all buffers.
const COMMENT_LENGTH: usize = 10_000;

/// Starts a node whose index holds one study with `instances` instances.
pub(crate) fn node_with(instances: usize, change: impl FnOnce(&mut crate::util::node::Settings)) -> TestNode {
    node_of(instances, |_, _| {}, change)
}

/// Starts the same node with further values for each instance.
fn node_of(
    instances: usize,
    more: impl Fn(usize, &mut InstanceRecord),
    change: impl FnOnce(&mut crate::util::node::Settings),
) -> TestNode {
    let directory = Arc::new(TempDir::new().unwrap());
    let options = WriterOptions { durability: Durability::Os, ..WriterOptions::default() };
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
        more(number, &mut record);
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
    let scanned = ScannedDirectory { files, complete: true, ..ScannedDirectory::new(Place::InPlace, "/archive") };
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

/// Builds a query for every instance, with the long comment in each answer.
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

/// Receives all responses up to the last one.
fn answers(peer: &mut ScriptedPeer) -> (Vec<Received>, Received) {
    let mut pending = Vec::new();
    loop {
        let response = peer.receive_message();
        assert_eq!(response.field(), CommandField::C_FIND_RSP);
        assert_eq!(response.command.text(tags::AFFECTED_SOP_CLASS_UID), Ok(STUDY_ROOT));
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
    let mut peer = node.associate(CONTEXTS);
    for message_id in 1..=5 {
        ask(&mut peer, message_id, &all_studies());
        let (pending, last) = answers(&mut peer);
        let [study] = pending.as_slice() else { panic!("{pending:?}") };
        let identifier = study.data_set.as_deref().unwrap();
        assert!(contains(identifier, "Test^Person") && contains(identifier, "1.2.3"));
        assert_eq!(last.status(), SUCCESS);
        assert_eq!(last.command.unsigned_short(tags::MESSAGE_ID_BEING_RESPONDED_TO), Ok(message_id));
    }
    peer.echo(3);
    peer.release();
}

#[test]
fn every_answer_of_a_large_result_arrives_once_and_in_order() {
    let node = node_with(2000, |_| {});
    let mut peer = node.associate(CONTEXTS);
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
    let mut peer = node.associate(CONTEXTS);
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
    let mut peer = node.associate(CONTEXTS);
    ask(&mut peer, 7, &all_instances());
    peer.send_message(1, &cancel_command(8), None);
    let (pending, last) = answers(&mut peer);
    assert_eq!((pending.len(), last.status()), (300, SUCCESS));
    peer.send_message(1, &cancel_command(7), None);
    peer.echo(3);
    peer.release();
}

#[test]
fn a_query_hears_its_cancel_after_those_for_other_messages() {
    let (node, endless) = endless();
    let mut peer = node.associate(CONTEXTS);
    ask(&mut peer, 9, &endless);
    for message_id in [7, 8, 9] {
        peer.send_message(1, &cancel_command(message_id), None);
    }
    let (pending, last) = answers(&mut peer);
    assert_eq!((pending.len(), last.status()), (0, CANCELLED));
    peer.echo(3);
}

#[test]
fn what_comes_ahead_of_its_time_is_served_after_the_query() {
    let node = node_with(300, |_| {});
    let mut peer = node.associate(CONTEXTS);
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
        let mut peer = node.associate(CONTEXTS);
        ask(&mut peer, 1, &all_instances());
        assert_eq!(peer.receive_message().status(), PENDING);
        match way {
            0 => drop(peer),
            1 => peer.send_pdu(&Pdu::AbortRQ { source: AbortRQSource::ServiceUser }),
            _ => peer.send_pdu(&Pdu::ReleaseRQ),
        }
    }
    let mut peer = node.associate(CONTEXTS);
    ask(&mut peer, 1, &all_studies());
    assert_eq!(answers(&mut peer).1.status(), SUCCESS);
    peer.release();
    node.stop();
}

#[test]
fn a_peer_that_takes_no_answers_is_cut_off() {
    let node = node_with(5000, |settings| settings.options.write_timeout = Duration::from_millis(100));
    let mut peer = node.associate(CONTEXTS);
    ask(&mut peer, 1, &all_instances());
    // Nothing is read until the node has given up; stopping waits for that.
    node.stop();
    let mut received = 0;
    while let Some(bytes) = peer.receive_bytes() {
        received += bytes.len();
    }
    assert!(received < 5000 * COMMENT_LENGTH, "{received} bytes");
}

/// Whether the whole write-ahead log can be copied back. It cannot while a query reads an older
/// state.
fn log_is_free(index: &std::path::Path) -> bool {
    #[expect(clippy::disallowed_methods, reason = "what another program would see")]
    let connection = rusqlite::Connection::open(index).unwrap();
    connection.busy_timeout(Duration::ZERO).unwrap();
    let busy: i64 = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).unwrap();
    busy == 0
}

#[test]
fn a_slow_peer_gets_every_answer_and_does_not_hold_up_the_index() {
    let node = node_with(3000, |_| {});
    let mut peer = node.associate(CONTEXTS);
    ask(&mut peer, 1, &all_instances());
    assert_eq!(peer.receive_message().status(), PENDING);
    // The peer takes nothing more for now. What others write meanwhile gets out of the log all the
    // same.
    let writer = Writer::open(&node.index(), WriterOptions::default()).unwrap();
    writer.handle().begin_scan("[]".to_owned()).unwrap();
    drop(writer);
    while !log_is_free(&node.index()) {
        std::thread::yield_now();
    }
    let names: Vec<_> =
        std::fs::read_dir(node.index().parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().ends_with(".tmp")), "{names:?}");
    let (pending, last) = answers(&mut peer);
    assert_eq!((pending.len(), last.status()), (2999, SUCCESS));
    let mut distinct: Vec<_> = pending.iter().map(|answer| answer.data_set.clone()).collect();
    distinct.dedup();
    assert_eq!(distinct.len(), 2999);
    peer.echo(3);
}

#[test]
fn a_find_command_whose_output_is_not_read_does_not_hold_up_the_index() {
    use std::io::{BufRead as _, BufReader};
    let node = node_with(3000, |_| {});
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_dcmdex"));
    command.args(["find", "--level", "IMAGE", "--format", "ndjson", "SOPInstanceUID", "PatientComments", "--index"]);
    let mut find = command.arg(node.index()).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(find.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("1.2.3.4."));
    let writer = Writer::open(&node.index(), WriterOptions::default()).unwrap();
    writer.handle().begin_scan("[]".to_owned()).unwrap();
    drop(writer);
    while !log_is_free(&node.index()) {
        std::thread::yield_now();
    }
    let mut distinct: Vec<_> = lines.map(Result::unwrap).collect();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), 2999);
    assert!(find.wait().unwrap().success());
}

#[test]
fn a_slow_peer_can_cancel_what_waits_for_it() {
    let node = node_with(3000, |_| {});
    let mut peer = node.associate(CONTEXTS);
    let writer = Writer::open(&node.index(), WriterOptions::default()).unwrap();
    writer.handle().begin_scan("[]".to_owned()).unwrap();
    drop(writer);
    ask(&mut peer, 1, &all_instances());
    assert_eq!(peer.receive_message().status(), PENDING);
    while !log_is_free(&node.index()) {
        std::thread::yield_now();
    }
    // The query is over, but for the peer.
    peer.send_message(1, &cancel_command(1), None);
    let (pending, last) = answers(&mut peer);
    assert_eq!(last.status(), CANCELLED);
    assert!(pending.len() < 2999, "{} answers", pending.len());
    peer.echo(3);
}

/// Builds a query that works for a minute on any processor of today and finds nothing.
fn endless() -> (TestNode, DataSet) {
    let text = "x".repeat(COMMENT_LENGTH);
    let more = |number: usize, record: &mut InstanceRecord| {
        record.set(AttributeId::ContainerIdentifier, &format!("{number}{text}"));
    };
    let node = node_of(2000, more, |_| {});
    let pattern = format!("*{}y*", "x?".repeat(COMMENT_LENGTH / 2 - 100));
    let identifier = DataSet::default()
        .uid(0x0008, 0x0018, "")
        .text(0x0008, 0x0052, "IMAGE")
        .uid(0x0020, 0x000D, "1.2.3")
        .uid(0x0020, 0x000E, "1.2.3.4")
        .text(0x0040, 0x0512, &pattern);
    (node, identifier)
}

#[test]
fn cancel_interrupts_a_query_that_finds_nothing() {
    let (node, endless) = endless();
    let mut peer = node.associate(CONTEXTS);
    ask(&mut peer, 9, &endless);
    peer.send_message(1, &cancel_command(9), None);
    let (pending, last) = answers(&mut peer);
    assert_eq!((pending.len(), last.status()), (0, CANCELLED));
    peer.echo(3);
}

#[test]
fn a_lost_peer_interrupts_a_query_that_finds_nothing() {
    let (node, endless) = endless();
    for way in 0..2 {
        let mut peer = node.associate(CONTEXTS);
        ask(&mut peer, 9, &endless);
        if way == 0 {
            drop(peer);
        } else {
            peer.send_pdu(&Pdu::AbortRQ { source: AbortRQSource::ServiceUser });
        }
    }
    // Stopping waits for what works.
    node.stop();
}

#[test]
fn a_query_that_takes_too_long_is_out_of_resources() {
    let node = node_with(5000, |settings| settings.options.query_time_limit = Duration::ZERO);
    let mut peer = node.associate(CONTEXTS);
    ask(&mut peer, 1, &all_instances());
    let (_, last) = answers(&mut peer);
    assert_eq!(last.status(), OUT_OF_RESOURCES);
    assert!(last.error_comment().contains("time limit"), "{}", last.error_comment());
    peer.echo(3);
}

#[test]
fn identifiers_that_say_nothing_are_refused_and_the_association_lives_on() {
    let node = node_with(1, |_| {});
    let mut peer = node.associate(CONTEXTS);
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
            assert_eq!(last.command.value(tags::OFFENDING_ELEMENT), Some(&[8, 0, 0x52, 0][..]), "{name}");
        }
        peer.echo(3);
    }
    let mut no_data_set = find_command(1, STUDY_ROOT);
    no_data_set.set_unsigned_short(tags::COMMAND_DATA_SET_TYPE, command_set::NO_DATA_SET);
    peer.send_message(1, &no_data_set, None);
    assert_eq!(answers(&mut peer).1.status(), IDENTIFIER_DOES_NOT_MATCH);
}

/// Keys that a peer may send by mistake or in malice. Each gets the right answer, or a refusal with
/// a reason.
#[test]
fn odd_keys_get_the_right_answer_or_a_clear_refusal() {
    let odd = ["O'Brien\"; DROP TABLE patient; --", "50%_[x]^a", "P_1", "PX1", "plain"];
    let more = |number: usize, record: &mut InstanceRecord| {
        let uid = format!("1.2.3.{number}");
        record.set(AttributeId::PatientID, odd[number - 1]);
        record.set(AttributeId::PatientName, if number == 5 { "Müller^Ä" } else { "Test" });
        record.set(AttributeId::StudyInstanceUID, &uid);
        record.set(AttributeId::SeriesInstanceUID, &format!("{uid}.1"));
    };
    let node = node_of(odd.len(), more, |_| {});
    let mut peer = node.associate(CONTEXTS);
    let study = || DataSet::default().text(0x0008, 0x0052, "STUDY");
    let id = |text: &str| study().text(0x0010, 0x0020, text).uid(0x0020, 0x000D, "");
    let name = |set: &str, bytes: &[u8]| {
        DataSet::default().text(0x0008, 0x0005, set).text(0x0008, 0x0052, "STUDY").bytes(0x0010, 0x0010, bytes)
    };
    let uids = |count: usize| (0..count).map(|n| format!("1.2.3.{n}")).collect::<Vec<_>>().join("\\");
    let long_uids: String = (0..10_000).map(|n| format!("1.2.{}.{n:05}\\", "9".repeat(54))).collect();
    let nested = |depth: usize| {
        let mut inner = DataSet::default().uid(0x0008, 0x1155, "1.2");
        for _ in 0..depth {
            let item = DataSet::default().header(0xFFFE, 0xE000, inner.0.len() as u32);
            inner = DataSet::default().bytes(0x0008, 0x1110, &[item.0, inner.0].concat());
        }
        DataSet([study().0, inner.0, DataSet::default().uid(0x0020, 0x000D, "").0].concat())
    };
    const REFUSED: u16 = IDENTIFIER_DOES_NOT_MATCH;
    let cases = [
        ("quotation marks and SQL", id(odd[0]), SUCCESS, 1),
        ("a quotation mark", id("'"), SUCCESS, 0),
        ("two", id("\"\""), SUCCESS, 0),
        ("percent", id("%"), SUCCESS, 0),
        ("percent in a pattern", id("50%*"), SUCCESS, 1),
        ("underscore", id("P_1"), SUCCESS, 1),
        ("underscore in a pattern", id("P_*"), SUCCESS, 1),
        ("bracket", id("[a-z]*"), SUCCESS, 0),
        ("bracket in a pattern", id("*[x]*"), SUCCESS, 1),
        // Stored values are read without it, too.
        ("NUL in the middle", id("pla\0in"), SUCCESS, 1),
        ("NUL at the end", id("plain\0"), SUCCESS, 1),
        ("control characters", id("\x1b\n\r*"), SUCCESS, 0),
        ("10,000 UIDs", study().uid(0x0020, 0x000D, &uids(10_000)), SUCCESS, 5),
        ("10,000 UIDs of 64 characters", study().uid(0x0020, 0x000D, &(long_uids + "1.2.3.4")), SUCCESS, 1),
        ("more UIDs than are taken", study().uid(0x0020, 0x000D, &uids(20_001)), 0xC001, 0),
        ("a megabyte", study().text(0x0010, 0x4000, &"x".repeat(1_000_000)), REFUSED, 0),
        (
            "a megabyte of stars",
            study().text(0x0010, 0x4000, &"*".repeat(1_000_000)).uid(0x0020, 0x000D, ""),
            SUCCESS,
            5,
        ),
        ("thousands of wild cards", id(&"*a?".repeat(10_000)), SUCCESS, 0),
        ("thousands of values", id(&"x\\".repeat(10_000)), SUCCESS, 0),
        ("sequences in each other", nested(3), SUCCESS, 0),
        ("too many of them", nested(17), 0xC001, 0),
        ("a range of no dates", study().text(0x0008, 0x0020, "abc-def"), REFUSED, 0),
        ("no date", study().text(0x0008, 0x0020, "yesterday"), SUCCESS, 0),
        ("no UID", study().uid(0x0020, 0x000D, "not a uid"), SUCCESS, 0),
        ("no number", study().text(0x0020, 0x1208, "many").uid(0x0020, 0x000D, ""), SUCCESS, 0),
        ("half of a binary number", study().bytes(0x0028, 0x0010, &[1]).uid(0x0020, 0x000D, ""), SUCCESS, 0),
        ("Latin-1 that says it is UTF-8", name("ISO_IR 192", b"M\xFCLLER*"), SUCCESS, 1),
        ("UTF-8 that says it is ASCII", name("ISO_IR 6", "müller*".as_bytes()), SUCCESS, 1),
        ("no known character set", name("ISO_IR 999", b"MULLER^A"), SUCCESS, 1),
        ("an escape into nowhere", name("\\ISO 2022 IR 87", b"\x1B$ZTEST\x1B$B;3"), SUCCESS, 0),
        ("two-byte characters that say they are Latin", name("ISO_IR 100", "山".as_bytes()), SUCCESS, 0),
    ];
    for (case, identifier, status, found) in cases {
        ask(&mut peer, 1, &identifier);
        let (pending, last) = answers(&mut peer);
        let comment = last.command.text(tags::ERROR_COMMENT).unwrap_or_default();
        let pending = pending.len();
        assert_eq!(
            (last.status(), pending, comment.is_empty()),
            (status, found, status == SUCCESS),
            "{case}: {comment}"
        );
        if status == REFUSED {
            assert!(last.command.value(tags::OFFENDING_ELEMENT).is_some(), "{case}");
        }
    }
    peer.echo(3);
}

#[test]
fn a_class_that_is_not_that_of_the_context_is_refused() {
    let node = node_with(1, |_| {});
    let mut peer = node.associate(CONTEXTS);
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
        ("1.2.840.10008.5.1.4.32.2", &[IMPLICIT_VR_LITTLE_ENDIAN]),
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
