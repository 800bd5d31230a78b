//! The service that a well-behaved peer still gets beside many greedy, slow and stalled ones.
//!
//! No test measures time. These nodes never reach a timeout, so waiting for a stalled peer would
//! last for ever. `tools/bench/fairness.py` measures response times.

use std::collections::BTreeMap;

use dcmdex::access::peers::{Grant, Peers};
use dcmdex::scp::Options;
use dcmdex::ul::destination::Destination;
use dicom_ul::pdu::{
    AssociationRJServiceProviderPresentationReason as PresentationReason, AssociationRJSource, AssociationRQ, Pdu,
    RequestorRoles, UserVariableItem,
};

use crate::util::node::TestNode;
use crate::util::scripted::{
    DataSet, IMPLICIT_VR_LITTLE_ENDIAN, ScriptedPeer, VERIFICATION, find_command, request, retrieve_command,
    store_command,
};

const SECONDARY_CAPTURE: &str = "1.2.840.10008.5.1.4.1.1.7";
const STUDY_ROOT_FIND: &str = "1.2.840.10008.5.1.4.1.2.2.1";
const STUDY_ROOT_GET: &str = "1.2.840.10008.5.1.4.1.2.2.3";
const STUDY_ROOT_MOVE: &str = "1.2.840.10008.5.1.4.1.2.2.2";
const ECHO_CONTEXT: u8 = 1;
const STORE_CONTEXT: u8 = 3;
const FIND_CONTEXT: u8 = 5;
const GET_CONTEXT: u8 = 7;
const MOVE_CONTEXT: u8 = 9;

/// Number of blocking threads. The peers must not be able to occupy them all.
const THREADS: usize = 8;
const CONTEXTS: &[(&str, &[&str])] = &[
    (VERIFICATION, &[IMPLICIT_VR_LITTLE_ENDIAN]),
    (SECONDARY_CAPTURE, &[IMPLICIT_VR_LITTLE_ENDIAN]),
    (STUDY_ROOT_FIND, &[IMPLICIT_VR_LITTLE_ENDIAN]),
    (STUDY_ROOT_GET, &[IMPLICIT_VR_LITTLE_ENDIAN]),
    (STUDY_ROOT_MOVE, &[IMPLICIT_VR_LITTLE_ENDIAN]),
];

/// Builds a table of peers that may use all services from any address.
fn table(titles: &[&str]) -> Peers {
    let grant = Grant::default();
    let table: BTreeMap<_, _> = titles.iter().map(|title| (title.parse().unwrap(), grant.clone())).collect();
    Peers { table: Some(table), ..Peers::default() }
}

fn calling(title: &str) -> AssociationRQ {
    let mut request = AssociationRQ { calling_ae_title: title.into(), ..request(CONTEXTS) };
    let both = RequestorRoles { scu: true, scp: true };
    request.user_variables.push(UserVariableItem::ScuScpRoleSelectionSubItem(SECONDARY_CAPTURE.into(), both));
    request
}

/// Opens an association of this peer. `None` if the node rejects it for now.
fn associate(node: &TestNode, title: &str) -> Option<ScriptedPeer> {
    let mut peer = ScriptedPeer::connect(node.address());
    peer.send_pdu(&calling(title).into());
    match peer.receive() {
        Some(Pdu::AssociationAC(_)) => Some(peer),
        Some(Pdu::AssociationRJ(rejection)) => {
            let reason = PresentationReason::LocalLimitExceeded;
            assert_eq!(rejection.source, AssociationRJSource::ServiceProviderPresentation(reason));
            None
        }
        other => panic!("{other:?}"),
    }
}

/// Asserts that a modality and a workstation get their usual services.
fn is_served(node: &TestNode, title: &str, instance: &str) {
    let mut peer = associate(node, title).expect("an association for who has none");
    peer.echo(ECHO_CONTEXT);
    let data_set =
        DataSet::instance(SECONDARY_CAPTURE, "1.2.3", "1.2.3.4", instance).bytes(0x7FE0, 0x0010, &vec![1; 300_000]);
    peer.send_message(STORE_CONTEXT, &store_command(7, SECONDARY_CAPTURE, instance), Some(&data_set.0));
    assert_eq!(peer.receive_message().status(), 0);
    let identifier = DataSet::default().text(0x0008, 0x0052, "STUDY").uid(0x0020, 0x000D, "1.2.3");
    peer.send_message(FIND_CONTEXT, &find_command(9, STUDY_ROOT_FIND), Some(&identifier.0));
    assert_eq!(peer.receive_message().status(), 0xFF00);
    assert_eq!(peer.receive_message().status(), 0);
    peer.release();
}

#[test]
fn two_peers_that_take_all_associations_they_get_leave_some_to_a_third() {
    let node = TestNode::with(|settings| {
        settings.peers = table(&["GREEDY1", "GREEDY2", "HONEST"]);
        settings.options.max_associations = 30;
    });
    let mut held = Vec::new();
    for title in ["GREEDY1", "GREEDY2", "GREEDY1", "GREEDY2"] {
        held.extend(std::iter::from_fn(|| associate(&node, title)));
    }
    assert!((15..30).contains(&held.len()), "{}", held.len());
    is_served(&node, "HONEST", "1.2.3.4.1");
}

#[test]
fn one_peer_has_at_most_some_dozens_of_associations() {
    let default = Options::new("DCMDEX".parse().unwrap());
    let node = TestNode::with(|settings| settings.peers = table(&["GREEDY", "HONEST"]));
    let held: Vec<_> = std::iter::from_fn(|| associate(&node, "GREEDY")).collect();
    assert_eq!(held.len(), default.max_associations_per_peer);
    assert!(held.len() * 8 < default.max_associations);
    is_served(&node, "HONEST", "1.2.3.4.1");
}

// All of 127.0.0.0/8 is this machine on Linux only.
#[cfg(target_os = "linux")]
#[test]
fn one_address_does_not_hold_all_places_of_connections_without_an_association() {
    let node = TestNode::with(|settings| settings.options.max_unassociated_connections = 40);
    // They say nothing, or not all of it.
    let beginning = [1, 0, 0, 0, 1];
    let _silent: Vec<_> = (0..100)
        .map(|number| {
            let mut peer = ScriptedPeer::connect_from([127, 0, 0, 1], node.address());
            if number % 2 == 0 {
                peer.send(&beginning);
            }
            peer
        })
        .collect();
    for number in 2..10 {
        let mut honest = ScriptedPeer::connect_from([127, 0, 0, number], node.address());
        honest.associate(&request(CONTEXTS));
        honest.echo(ECHO_CONTEXT);
        honest.release();
    }
}

#[test]
fn unfinished_messages_of_one_peer_do_not_take_the_memory_of_another() {
    let node = TestNode::with(|settings| settings.peers = table(&["GREEDY", "HONEST"]));
    // More than the node has for what arrives: Identifiers, heads of objects and objects that do
    // not end.
    let identifier = DataSet::default().text(0x0008, 0x0018, &"1.2.3\\".repeat(240_000)).0;
    let head = DataSet::default().text(0x0008, 0x0016, SECONDARY_CAPTURE).bytes(0x0010, 0x4000, &vec![b'x'; 60_000]).0;
    let mut greedy: Vec<ScriptedPeer> = std::iter::from_fn(|| associate(&node, "GREEDY")).collect();
    for (number, peer) in greedy.iter_mut().enumerate() {
        let (context, command, data_set) = match number % 2 {
            0 => (FIND_CONTEXT, find_command(9, STUDY_ROOT_FIND), &identifier),
            _ => (STORE_CONTEXT, store_command(7, SECONDARY_CAPTURE, "1.2.3.4.9"), &head),
        };
        let mut bytes = Vec::new();
        dcmdex::dimse::pdata::put_message(&mut bytes, context, &command, Some(data_set), 128 << 10);
        // All but its end.
        bytes.truncate(bytes.len() - 10);
        peer.send(&bytes);
    }
    is_served(&node, "HONEST", "1.2.3.4.1");
    // Nor is the same peer shut out: it sends its usual messages.
    for mut gone in greedy.split_off(60) {
        gone.shut_down_sending();
        while gone.receive_bytes().is_some() {}
    }
    // Each has lost its connection. The node gives its place back in the same moment, or soon
    // after.
    while associate(&node, "GREEDY").is_none() {}
    is_served(&node, "GREEDY", "1.2.3.4.2");
}

#[test]
fn an_identifier_that_finds_no_memory_is_refused_and_the_association_goes_on() {
    let node = TestNode::start();
    let identifier = DataSet::default().text(0x0008, 0x0018, &"1.2.3\\".repeat(240_000)).0;
    let mut bytes = Vec::new();
    let command = find_command(9, STUDY_ROOT_FIND);
    dcmdex::dimse::pdata::put_message(&mut bytes, FIND_CONTEXT, &command, Some(&identifier), 128 << 10);
    let mut held: Vec<_> = (0..60).map(|_| node.associate(CONTEXTS)).collect();
    for peer in &mut held {
        peer.send(&bytes[..bytes.len() - 10]);
    }
    // The end of each comes only after the beginning of all.
    let mut refused = 0;
    for peer in &mut held {
        peer.send(&bytes[bytes.len() - 10..]);
        let response = loop {
            let response = peer.receive_message();
            if response.status() != 0xFF00 {
                break response;
            }
        };
        if response.status() == 0xA700 {
            assert_eq!(response.error_comment(), "this peer has too much under way; ask again later");
            refused += 1;
        }
        peer.echo(ECHO_CONTEXT);
    }
    assert!((1..60).contains(&refused), "{refused}");
}

/// Stores `instances` instances of the study 1.2.9. Each has `pixels` bytes of pixel data.
fn fill(node: &TestNode, instances: usize, comment: &str, pixels: usize) {
    let mut peer = associate(node, "HONEST").unwrap();
    for number in 1..=instances {
        let uid = format!("1.2.9.4.{number}");
        let data_set = DataSet::default()
            .uid(0x0008, 0x0016, SECONDARY_CAPTURE)
            .uid(0x0008, 0x0018, &uid)
            .text(0x0010, 0x0020, "P9")
            .text(0x0010, 0x4000, comment)
            .uid(0x0020, 0x000D, "1.2.9")
            .uid(0x0020, 0x000E, "1.2.9.4")
            .bytes(0x7FE0, 0x0010, &vec![1; pixels]);
        peer.send_message(STORE_CONTEXT, &store_command(7, SECONDARY_CAPTURE, &uid), Some(&data_set.0));
        assert_eq!(peer.receive_message().status(), 0);
    }
    peer.release();
}

fn study(uid: &str) -> DataSet {
    DataSet::default().text(0x0008, 0x0052, "STUDY").uid(0x0020, 0x000D, uid)
}

fn crowded(change: impl FnOnce(&mut crate::util::node::Settings)) -> TestNode {
    TestNode::with(|settings| {
        settings.peers = table(&["GREEDY1", "GREEDY2", "GREEDY3", "HONEST"]);
        settings.blocking_threads = THREADS;
        change(settings);
    })
}

const GREEDY: [&str; 3] = ["GREEDY1", "GREEDY2", "GREEDY3"];

#[test]
fn retrievals_whose_peers_do_not_read_hold_no_thread() {
    let node = crowded(|_| {});
    fill(&node, 8, "", 900_000);
    let mut stalled = Vec::new();
    for title in GREEDY.iter().cycle().take(4 * THREADS) {
        let mut peer = associate(&node, title).unwrap();
        peer.send_message(GET_CONTEXT, &retrieve_command(9, STUDY_ROOT_GET, None), Some(&study("1.2.9").0));
        stalled.push(peer);
    }
    // All of them have begun: the first bytes are there, and nobody takes more.
    for peer in &mut stalled {
        assert!(peer.receive_bytes().is_some());
    }
    is_served(&node, "HONEST", "1.2.3.4.1");
    // Those that go on after all get the rest.
    let mut slow = stalled.pop().unwrap();
    drop(stalled);
    for _ in 0..2 {
        assert!(slow.receive_bytes().is_some());
    }
}

#[test]
fn retrievals_to_a_destination_that_hangs_hold_no_thread() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let node = crowded(|settings| {
        let destination = Destination::plain(address.to_string().parse().unwrap());
        settings.peers.destinations.insert("HANGS".parse().unwrap(), destination);
        settings.retrieve.response_timeout = std::time::Duration::from_secs(300);
    });
    fill(&node, 20, "", 1_000);
    let mut asked = Vec::new();
    let mut hanging = Vec::new();
    for title in GREEDY.iter().cycle().take(4 * THREADS) {
        let mut peer = associate(&node, title).unwrap();
        let command = retrieve_command(9, STUDY_ROOT_MOVE, Some("HANGS"));
        peer.send_message(MOVE_CONTEXT, &command, Some(&study("1.2.9").0));
        asked.push(peer);
        let (mut destination, request) = ScriptedPeer::accept(&listener);
        destination.accept_contexts(&request, |proposed| proposed.transfer_syntaxes.first().cloned());
        // The first object comes, and is not answered.
        destination.receive_message();
        hanging.push(destination);
    }
    is_served(&node, "HONEST", "1.2.3.4.1");
}

#[test]
fn queries_whose_peers_do_not_read_hold_neither_a_thread_nor_a_turn() {
    let node = crowded(|_| {});
    fill(&node, 500, &"x".repeat(10_000), 2);
    let everything = DataSet::default()
        .uid(0x0008, 0x0018, "")
        .text(0x0008, 0x0052, "IMAGE")
        .text(0x0010, 0x4000, "")
        .uid(0x0020, 0x000D, "1.2.9")
        .uid(0x0020, 0x000E, "1.2.9.4");
    let mut slow = Vec::new();
    for title in GREEDY.iter().cycle().take(3 * THREADS) {
        let mut peer = associate(&node, title).unwrap();
        // More answers than the connection takes, and nobody takes them.
        peer.send_message(FIND_CONTEXT, &find_command(9, STUDY_ROOT_FIND), Some(&everything.0));
        assert_eq!(peer.receive_message().status() & 0xFF00, 0xFF00);
        slow.push(peer);
    }
    is_served(&node, "HONEST", "1.2.3.4.1");
    // And they get every answer when they read on.
    let mut answers = 1;
    let mut peer = slow.pop().unwrap();
    loop {
        match peer.receive_message().status() {
            0 => break,
            status => assert_eq!(status & 0xFF00, 0xFF00),
        }
        answers += 1;
    }
    assert_eq!(answers, 500);
}
