//! Other hostile input on an open port.

use dcmdex::dimse::pdata::put_message;
use dicom_ul::pdu::{Pdu, write_pdu};

use crate::util::node::TestNode;
use crate::util::scripted::{IMPLICIT_VR_LITTLE_ENDIAN, ScriptedPeer, VERIFICATION, echo_command, request};

const ECHO: &[(&str, &[&str])] = &[(VERIFICATION, &[IMPLICIT_VR_LITTLE_ENDIAN])];

/// A-ABORT with source service user. PS3.8 table 9-10 requires it for anything but an
/// A-ASSOCIATE-RQ in Sta2.
const ABORT: [u8; 10] = [7, 0, 0, 0, 0, 4, 0, 0, 0, 0];

#[test]
fn what_is_no_association_request_is_aborted_and_the_next_peer_served() {
    let node = TestNode::start();
    let mut tls_hello = vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xFC, 3, 3];
    tls_hello.resize(517, 0xAB);
    let cases: [(&str, Vec<u8>); 8] = [
        ("HTTP", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()),
        ("TLS", tls_hello),
        ("SSH", b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()),
        ("A-ASSOCIATE-RQ of 4 GiB", vec![1, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 1]),
        ("A-ASSOCIATE-RQ just too long", vec![1, 0, 0, 4, 0, 1, 0, 1]),
        ("empty A-ASSOCIATE-RQ", vec![1, 0, 0, 0, 0, 0]),
        ("A-RELEASE-RQ", vec![5, 0, 0, 0, 0, 4, 0, 0, 0, 0]),
        ("A-RELEASE-RQ of another length", vec![5, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0]),
    ];
    for (name, bytes) in cases {
        let mut peer = ScriptedPeer::connect(node.address());
        peer.send(&bytes);
        assert_eq!(peer.receive_bytes(), Some(ABORT.to_vec()), "{name}");
        peer.shut_down_sending();
        assert_eq!(peer.receive_bytes(), None, "{name}");
    }
    node.associate(ECHO).echo(1);
}

#[test]
fn two_million_sub_items_are_refused_by_their_length() {
    let node = TestNode::start();
    let mut bytes = vec![1, 0];
    let items = 2_000_000_u32;
    bytes.extend((68 + 4 * items).to_be_bytes());
    bytes.extend([0, 1, 0, 0]);
    bytes.resize(6 + 68, b' ');
    bytes.extend([0x77, 0, 0, 0].repeat(items as usize));
    let mut peer = ScriptedPeer::connect(node.address());
    peer.send(&bytes);
    // Refused by the header alone; the connection may be closed before all of it is sent, so the
    // A-ABORT may be lost.
    if let Some(answer) = peer.receive_bytes() {
        assert_eq!(answer, ABORT);
    }
    node.associate(ECHO).echo(1);
}

#[test]
fn as_many_sub_items_as_fit_do_no_harm() {
    let node = TestNode::start();
    let mut bytes = vec![1, 0];
    let items = (256 * 1024 - 68) / 4;
    bytes.extend((68 + 4 * items as u32).to_be_bytes());
    bytes.extend([0, 1, 0, 0]);
    bytes.resize(6 + 68, b' ');
    for kind in [0x20, 0x50, 0x10] {
        let mut bytes = bytes.clone();
        bytes.extend([kind, 0, 0, 0].repeat(items));
        let mut peer = ScriptedPeer::connect(node.address());
        peer.send(&bytes);
        assert_eq!(peer.receive_bytes(), Some(ABORT.to_vec()), "item {kind:02X}");
    }
    node.associate(ECHO).echo(1);
}

#[test]
fn two_hundred_contexts_are_more_than_there_are_ids() {
    let node = TestNode::start();
    let contexts = [ECHO[0]; 128];
    let mut request = request(&contexts);
    request.presentation_contexts.extend(request.presentation_contexts.clone().into_iter().take(72));
    let mut peer = ScriptedPeer::connect(node.address());
    peer.send_pdu(&request.into());
    assert_eq!(peer.receive_bytes(), Some(ABORT.to_vec()));
}

#[test]
fn a_connection_cut_at_any_byte_of_a_conversation_does_no_harm() {
    let node = TestNode::start();
    let mut conversation = Vec::new();
    write_pdu(&mut conversation, &request(ECHO).into()).unwrap();
    put_message(&mut conversation, 1, &echo_command(1), None, 0);
    write_pdu(&mut conversation, &Pdu::ReleaseRQ).unwrap();
    for cut in 0..conversation.len() {
        ScriptedPeer::connect(node.address()).send(&conversation[..cut]);
    }
    node.associate(ECHO).echo(1);
}

#[test]
fn silent_connections_keep_nobody_out() {
    let node = TestNode::with(|settings| settings.options.max_associations = 1);
    let silent: Vec<_> = (0..200).map(|_| ScriptedPeer::connect(node.address())).collect();
    let mut peer = node.associate(ECHO);
    peer.echo(1);
    peer.release();
    drop(silent);
}
