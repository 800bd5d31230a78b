//! The table of peers: who may associate, and for which services.

use dcmdex::access::peers::Peers;
use dcmdex::access::peers::{Grant, ServiceSet};
use dcmdex::db::Admin;
use dicom_ul::pdu::{
    AssociationRJ, AssociationRJResult, AssociationRJServiceProviderPresentationReason as PresentationReason,
    AssociationRJServiceUserReason as UserReason, AssociationRJSource, AssociationRQ, Pdu,
    PresentationContextResultReason as ContextResult,
};

use crate::util::node::TestNode;
use crate::util::scripted::{DataSet, IMPLICIT_VR_LITTLE_ENDIAN, ScriptedPeer, VERIFICATION, request, store_command};

const STUDY_ROOT_FIND: &str = "1.2.840.10008.5.1.4.1.2.2.1";
const SECONDARY_CAPTURE: &str = "1.2.840.10008.5.1.4.1.1.7";
const ALL: &[(&str, &[&str])] = &[
    (VERIFICATION, &[IMPLICIT_VR_LITTLE_ENDIAN]),
    (SECONDARY_CAPTURE, &[IMPLICIT_VR_LITTLE_ENDIAN]),
    (STUDY_ROOT_FIND, &[IMPLICIT_VR_LITTLE_ENDIAN]),
];
const ECHO: &[(&str, &[&str])] = &[ALL[0]];

/// Title, addresses, services, associations.
pub(crate) type Entry<'a> = (&'a str, &'a [&'a str], &'a [&'static str], Option<usize>);

pub(crate) fn table(peers: &[Entry<'_>]) -> Peers {
    let entry = |&(title, addresses, services, max_associations): &Entry<'_>| {
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        let services: ServiceSet = services.iter().copied().collect();
        (title.parse().unwrap(), Grant { addresses, services, max_associations, ..Grant::default() })
    };
    Peers { table: Some(peers.iter().map(entry).collect()), ..Peers::default() }
}

const EVERYTHING: &[&str] = &["echo", "store", "find"];

fn calling(title: &str) -> AssociationRQ {
    AssociationRQ { calling_ae_title: title.into(), ..request(ALL) }
}

fn answer(node: &TestNode, request: AssociationRQ) -> (ScriptedPeer, Option<Pdu>) {
    let mut peer = ScriptedPeer::connect(node.address());
    peer.send_pdu(&request.into());
    let answer = peer.receive();
    (peer, answer)
}

fn rejected(result: AssociationRJResult, source: AssociationRJSource) -> Option<Pdu> {
    Some(Pdu::AssociationRJ(AssociationRJ { result, source }))
}

fn not_recognized() -> Option<Pdu> {
    let reason = UserReason::CallingAETitleNotRecognized;
    rejected(AssociationRJResult::Permanent, AssociationRJSource::ServiceUser(reason))
}

fn limit_exceeded() -> Option<Pdu> {
    let reason = PresentationReason::LocalLimitExceeded;
    rejected(AssociationRJResult::Transient, AssociationRJSource::ServiceProviderPresentation(reason))
}

#[test]
fn only_peers_of_the_table_are_let_in_and_only_from_their_addresses() {
    let node = TestNode::with(|settings| {
        settings.peers = table(&[
            ("CT1", &["127.0.0.0/8"], EVERYTHING, None),
            ("ANY", &[], EVERYTHING, None),
            ("AWAY", &["192.0.2.1"], EVERYTHING, None),
        ]);
    });
    for title in ["CT1", "ANY", " CT1 "] {
        assert!(matches!(answer(&node, calling(title)).1, Some(Pdu::AssociationAC(_))), "{title}");
    }
    for title in ["AWAY", "ct1", "CT2"] {
        assert_eq!(answer(&node, calling(title)).1, not_recognized(), "{title}");
    }
}

#[test]
fn an_empty_table_keeps_everybody_out() {
    let node = TestNode::with(|settings| settings.peers = table(&[]));
    assert_eq!(answer(&node, calling("CT1")).1, not_recognized());
}

#[test]
fn what_a_peer_may_not_ask_for_is_refused_when_it_is_proposed() {
    let node = TestNode::with(|settings| {
        settings.peers = table(&[
            ("STORES", &[], &["store"], None),
            ("ASKS", &[], &["find", "echo"], None),
            ("NOTHING", &[], &[], None),
        ]);
    });
    let (yes, no) = (ContextResult::Acceptance, ContextResult::UserRejection);
    for (title, expected) in [
        ("STORES", [no.clone(), yes.clone(), no.clone()]),
        ("ASKS", [yes.clone(), no.clone(), yes]),
        ("NOTHING", [no.clone(), no.clone(), no]),
    ] {
        let accept = ScriptedPeer::connect(node.address()).associate(&calling(title));
        let results: Vec<_> = accept.presentation_contexts.into_iter().map(|context| context.reason).collect();
        assert_eq!(results, expected, "{title}");
    }
}

#[test]
fn a_context_that_is_there_for_what_comes_back_does_not_let_a_peer_store() {
    let node = TestNode::with(|settings| settings.peers = table(&[("VIEWER", &[], &["get"], None)]));
    let mut peer = ScriptedPeer::connect(node.address());
    let accept = peer.associate(&calling("VIEWER"));
    assert_eq!(accept.presentation_contexts[1].reason, ContextResult::Acceptance);
    let data_set = DataSet::instance(SECONDARY_CAPTURE, "1.2.3", "1.2.3.4", "1.2.3.4.5");
    peer.send_message(3, &store_command(1, SECONDARY_CAPTURE, "1.2.3.4.5"), Some(&data_set.0));
    assert_eq!(peer.receive_message().status(), 0x0124);
    assert_eq!(node.reader().status().unwrap().instances, 0);
    peer.release();
}

#[test]
fn a_peer_that_has_its_associations_is_put_off_and_others_are_not() {
    let node = TestNode::with(|settings| {
        settings.options.max_associations_per_peer = 2;
        settings.peers = table(&[("BUSY", &[], EVERYTHING, Some(1)), ("OTHER", &[], EVERYTHING, None)]);
    });
    let first = answer(&node, calling("BUSY")).0;
    assert_eq!(answer(&node, calling("BUSY")).1, limit_exceeded());
    let _others: Vec<_> = (0..2).map(|_| answer(&node, calling("OTHER")).0).collect();
    assert_eq!(answer(&node, calling("OTHER")).1, limit_exceeded());
    first.release();
    assert!(matches!(answer(&node, calling("BUSY")).1, Some(Pdu::AssociationAC(_))));
}

#[test]
fn without_a_table_a_peer_is_an_address() {
    let node = TestNode::with(|settings| settings.options.max_associations_per_peer = 1);
    let first = answer(&node, calling("A")).0;
    assert_eq!(answer(&node, calling("B")).1, limit_exceeded());
    first.release();
    node.associate(ECHO).echo(1);
}

#[test]
fn a_new_table_holds_from_the_next_association_on() {
    let node = TestNode::start();
    let mut before = node.associate(ECHO);
    node.peers().replace(table(&[("CT1", &[], EVERYTHING, None)]));
    assert_eq!(answer(&node, calling("CT2")).1, not_recognized());
    assert!(matches!(answer(&node, calling("CT1")).1, Some(Pdu::AssociationAC(_))));
    before.echo(1);
    before.release();
}
