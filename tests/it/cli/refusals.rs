//! The log names what was refused: who sent it, from where, and why. It names instances at debug
//! only.

use std::fs;

use dicom_ul::pdu::{Pdu, write_pdu};
use rustix::process::Signal;

use super::serve::Node;
use super::*;
use crate::util::http;
use crate::util::scripted::{
    DataSet, IMPLICIT_VR_LITTLE_ENDIAN, ScriptedPeer, VERIFICATION, connected, find_command, request, retrieve_command,
    store_command,
};

const SECONDARY_CAPTURE: &str = "1.2.840.10008.5.1.4.1.1.7";
const STUDY_ROOT_FIND: &str = "1.2.840.10008.5.1.4.1.2.2.1";
const CONTEXTS: &[(&str, &[&str])] = &[
    (VERIFICATION, &[IMPLICIT_VR_LITTLE_ENDIAN]),
    (SECONDARY_CAPTURE, &[IMPLICIT_VR_LITTLE_ENDIAN]),
    (STUDY_ROOT_FIND, &[IMPLICIT_VR_LITTLE_ENDIAN]),
];

const STUDY_ROOT_MOVE: &str = "1.2.840.10008.5.1.4.1.2.2.2";
const STUDY_ROOT_GET: &str = "1.2.840.10008.5.1.4.1.2.2.3";

/// Stores an object whose command and data set may differ.
fn store(peer: &mut ScriptedPeer, announced: &str, instance: &str, comment: &str) -> u16 {
    let data_set = DataSet::instance(SECONDARY_CAPTURE, "1.2.3", "1.2.3.4", instance).text(0x0020, 0x4000, comment);
    peer.send_message(3, &store_command(1, SECONDARY_CAPTURE, announced), Some(&data_set.0));
    peer.receive_message().status()
}

/// Returns the lines of the log of a node that refuses an object and gets another content of one.
fn log(more: &[&str]) -> Vec<serde_json::Value> {
    let place = Place::new();
    let node = Node::start(&place, more);
    let mut peer = node.associate(CONTEXTS);
    assert_eq!(store(&mut peer, "1.2.3.4.1", "1.2.3.4.1", "first"), 0);
    assert_eq!(store(&mut peer, "1.2.3.4.1", "1.2.3.4.1", "second"), 0);
    assert_ne!(store(&mut peer, "1.2.3.4.8", "1.2.3.4.9", ""), 0);
    peer.release();
    let (code, lines) = node.stop(Signal::TERM);
    assert_eq!(code, Some(0));
    lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn with<'l>(log: &'l [serde_json::Value], level: &str, message: &str) -> Vec<&'l serde_json::Value> {
    let is_meant = |line: &&serde_json::Value| {
        line["level"] == level && line["message"].as_str().is_some_and(|said| said.contains(message))
    };
    log.iter().filter(is_meant).collect()
}

#[test]
fn refused_and_contradicting_objects_are_told_with_their_sender_and_reason() {
    let quiet = log(&[]);
    let [refused] = with(&quiet, "INFO", "an object was refused")[..] else { panic!("{quiet:#?}") };
    assert_eq!(refused["sender"], "SCRIPT at 127.0.0.1");
    assert!(refused["message"].as_str().unwrap().contains("another SOP Instance UID"), "{refused}");
    let [conflict] = with(&quiet, "WARN", "other content")[..] else { panic!("{quiet:#?}") };
    assert_eq!(conflict["sender"], "SCRIPT at 127.0.0.1");
    assert!(conflict["message"].as_str().unwrap().contains("both are kept"), "{conflict}");
    assert!(!quiet.iter().any(|line| line.to_string().contains("1.2.3.4.")), "UIDs are for debug: {quiet:#?}");

    let verbose = log(&["-v"]);
    let uid = |message| with(&verbose, "DEBUG", message)[0]["sop_instance_uid"].clone();
    assert_eq!(uid("an object was refused"), "1.2.3.4.8");
    assert_eq!(uid("other content"), "1.2.3.4.1");
}

#[test]
fn a_peer_without_the_right_for_a_service_leaves_a_trace() {
    let place = Place::new();
    let settings = "[[peer]]\nae_title = \"SCRIPT\"\nservices = [\"echo\"]\n";
    fs::write(place.path("dcmdex.toml"), settings).unwrap();
    let mut node = Node::start(&place, &[]);
    let mut peer = ScriptedPeer::connect(([127, 0, 0, 1], node.port).into());
    peer.associate(&request(CONTEXTS));
    peer.release();
    let line = node.wait_for("the peer asked for services that it may not use");
    assert!(line["message"].as_str().unwrap().ends_with(": find, store"), "{line}");
    let line = node.wait_for("association ended");
    assert_eq!((&line["contexts"], &line["contexts_not_supported"]), (&1.into(), &0.into()), "{line}");
}

/// An A-ASSOCIATE-RQ that ends with so many User Identity Sub-Items of a type that PS3.7 D.3.3.7.1
/// does not have.
fn request_with_unknown_identities(count: usize) -> Vec<u8> {
    const SUB_ITEM: &[u8] = b"\x58\0\0\x06\0\0\0\0\0\0";
    const FIRST_ITEM: usize = 74;
    let mut bytes = Vec::new();
    write_pdu(&mut bytes, &Pdu::AssociationRQ(request(CONTEXTS))).unwrap();
    let item_at =
        |bytes: &[u8], at: usize| (bytes[at], usize::from(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]])));
    let mut user_information = FIRST_ITEM;
    while let (kind, length) = item_at(&bytes, user_information)
        && kind != 0x50
    {
        user_information += 4 + length;
    }
    bytes.extend(SUB_ITEM.repeat(count));
    let length = u16::try_from(bytes.len() - user_information - 4).unwrap();
    bytes[user_information + 2..user_information + 4].copy_from_slice(&length.to_be_bytes());
    let length = u32::try_from(bytes.len() - 6).unwrap();
    bytes[2..6].copy_from_slice(&length.to_be_bytes());
    bytes
}

// The library that reads the request had a line for each, and a rejected peer may send as many
// requests as it likes.
#[test]
fn what_an_association_request_has_that_nobody_knows_leaves_no_line() {
    let place = Place::new();
    let node = Node::start(&place, &[]);
    let mut peer = ScriptedPeer::connect(([127, 0, 0, 1], node.port).into());
    peer.send(&request_with_unknown_identities(6000));
    assert!(matches!(peer.receive(), Some(Pdu::AssociationAC(_))));
    peer.release();
    let (code, lines) = node.stop(Signal::TERM);
    assert_eq!(code, Some(0));
    assert!(lines.len() < 20, "{} lines, the last: {:?}", lines.len(), lines.last());
}

#[test]
fn refused_queries_and_retrievals_are_told_with_their_peer_and_reason_and_without_values() {
    const CONTEXTS: &[(&str, &[&str])] = &[
        (STUDY_ROOT_FIND, &[IMPLICIT_VR_LITTLE_ENDIAN]),
        (STUDY_ROOT_MOVE, &[IMPLICIT_VR_LITTLE_ENDIAN]),
        (STUDY_ROOT_GET, &[IMPLICIT_VR_LITTLE_ENDIAN]),
    ];
    let place = Place::new();
    let node = Node::start(&place, &["-v"]);
    let mut peer = ScriptedPeer::associated(([127, 0, 0, 1], node.port).into(), CONTEXTS);
    let study = |level: &str| DataSet::default().text(0x0008, 0x0052, level);
    let secret = |level: &str| study(level).text(0x0010, 0x0020, "SECRET").0;
    let mut ask = |context, command, identifier: Vec<u8>| {
        peer.send_message(context, &command, Some(&identifier));
        peer.receive_message().status()
    };
    // A level that Study Root does not have.
    assert_eq!(ask(1, find_command(1, STUDY_ROOT_FIND), secret("PATIENT")), 0xA900);
    let moved = study("STUDY").uid(0x0020, 0x000D, "1.2.3").0;
    assert_eq!(ask(3, retrieve_command(2, STUDY_ROOT_MOVE, Some("NOBODY")), moved), 0xA801);
    // Without the unique key.
    assert_eq!(ask(5, retrieve_command(3, STUDY_ROOT_GET, None), secret("STUDY")), 0xA900);
    // Answered, so it leaves no line.
    assert_eq!(ask(1, find_command(4, STUDY_ROOT_FIND), study("STUDY").text(0x0010, 0x0020, "NONE").0), 0);
    peer.release();
    let (code, lines) = node.stop(Signal::TERM);
    assert_eq!(code, Some(0));
    let log: Vec<serde_json::Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let refused = with(&log, "INFO", "was not served");
    let said: Vec<_> = refused.iter().map(|line| line["message"].as_str().unwrap()).collect();
    let expected = [
        "C-FIND-RQ was not served (A900): Study Root has no level PATIENT",
        "C-MOVE-RQ was not served (A801): unknown Move Destination",
        "C-GET-RQ was not served (A900): the unique key (0020,000D) needs a value without wild cards",
    ];
    assert_eq!(said, expected);
    assert!(refused.iter().all(|line| line["sender"] == "SCRIPT at 127.0.0.1"), "{refused:#?}");
    assert!(!lines.iter().any(|line| line.contains("SECRET") || line.contains("NOBODY")), "{lines:#?}");
}

#[test]
fn another_protocol_on_the_port_is_named() {
    use std::io::{Read as _, Write as _};

    let place = Place::new();
    let mut node = Node::start(&place, &[]);
    for (first, said) in
        [(&b"\x16\x03\x01\x02\x00\x01\x00"[..], "speaks TLS"), (b"GET / HTTP/1.1\r\n\r\n", "speaks HTTP")]
    {
        let mut stream = connected(("127.0.0.1", node.port));
        stream.write_all(first).unwrap();
        let line = node.wait_for("no association");
        assert!(line["message"].as_str().unwrap().contains(said), "{line}");
        // The node answers with an A-ABORT or closes.
        let _ = stream.read(&mut [0; 16]);
    }
}

#[test]
fn what_is_no_object_is_told_when_it_comes_over_http() {
    let place = Place::new();
    let mut node = Node::start(&place, &["--http-port", "0"]);
    let address = node.listening["http_address"].as_str().unwrap().parse().unwrap();
    let headers = [("Content-Type", "application/dicom"), ("Accept", "application/dicom+json")];
    http::request(address, "POST", "/dicom-web/studies", &headers, b"no object").expect(409);
    let line = node.wait_for("an object was refused");
    assert_eq!(line["sender"], "a client over HTTP at 127.0.0.1");
    assert!(line["message"].as_str().unwrap().contains("a part is no object of DICOM"), "{line}");
}
