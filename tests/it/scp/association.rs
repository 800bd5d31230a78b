//! Association establishment, release, abort, limits and timeouts (PS3.8).

use std::time::Duration;

use dicom_dictionary_std::tags;

use dcmdex::dimse::command_set::{self, CommandField};
use dicom_ul::pdu::{
    AbortRQServiceProviderReason as Reason, AbortRQSource, AssociationRJ, AssociationRJResult,
    AssociationRJServiceProviderPresentationReason as PresentationReason, AssociationRJServiceUserReason as UserReason,
    AssociationRJSource, AssociationRQ, Pdu, PresentationContextResultReason as ContextResult,
};

use crate::util::node::TestNode;
use crate::util::scripted::{
    EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, ScriptedPeer, VERIFICATION, echo_command, request,
};

const ECHO: &[(&str, &[&str])] = &[(VERIFICATION, &[IMPLICIT_VR_LITTLE_ENDIAN])];

fn provider_abort(reason: Reason) -> Option<Pdu> {
    Some(Pdu::AbortRQ { source: AbortRQSource::ServiceProvider(reason) })
}

const USER_ABORT: Option<Pdu> = Some(Pdu::AbortRQ { source: AbortRQSource::ServiceUser });

#[test]
fn an_association_lives_through_many_messages_and_is_released() {
    let node = TestNode::start();
    let mut peer = node.associate(ECHO);
    for _ in 0..50 {
        peer.echo(1);
    }
    peer.release();
}

#[test]
fn an_unknown_called_title_is_rejected_for_good_unless_any_is_accepted() {
    let calls_somebody_else = AssociationRQ { called_ae_title: "SOMEBODY".into(), ..request(ECHO) };
    let node = TestNode::start();
    let mut peer = ScriptedPeer::connect(node.address());
    peer.send_pdu(&calls_somebody_else.clone().into());
    let expected = AssociationRJ {
        result: AssociationRJResult::Permanent,
        source: AssociationRJSource::ServiceUser(UserReason::CalledAETitleNotRecognized),
    };
    assert_eq!(peer.receive(), Some(Pdu::AssociationRJ(expected)));
    assert_eq!(peer.receive(), None);

    let node = TestNode::with(|settings| settings.options.called_ae_title = dcmdex::access::policy::CalledAeTitle::Any);
    ScriptedPeer::connect(node.address()).associate(&calls_somebody_else);
}

#[test]
fn an_abstract_syntax_that_is_not_served_is_refused_and_the_rest_goes_on() {
    let node = TestNode::start();
    let mut peer = ScriptedPeer::connect(node.address());
    let accept = peer.associate(&request(&[
        ("1.2.840.10008.5.1.1.9", &[IMPLICIT_VR_LITTLE_ENDIAN]),
        (VERIFICATION, &[EXPLICIT_VR_LITTLE_ENDIAN]),
    ]));
    let results: Vec<_> = accept.presentation_contexts.iter().map(|context| context.reason.clone()).collect();
    assert_eq!(results, [ContextResult::AbstractSyntaxNotSupported, ContextResult::Acceptance]);
    peer.echo(3);
    peer.release();
}

#[test]
fn one_association_too_many_is_rejected_for_now_and_accepted_later() {
    let node = TestNode::with(|settings| settings.options.max_associations = 2);
    let mut first = node.associate(ECHO);
    let second = node.associate(ECHO);
    let mut third = ScriptedPeer::connect(node.address());
    third.send_pdu(&request(ECHO).into());
    let expected = AssociationRJ {
        result: AssociationRJResult::Transient,
        source: AssociationRJSource::ServiceProviderPresentation(PresentationReason::LocalLimitExceeded),
    };
    assert_eq!(third.receive(), Some(Pdu::AssociationRJ(expected)));
    first.echo(1);
    second.release();
    node.associate(ECHO).echo(1);
}

#[test]
fn an_unknown_request_is_refused_and_the_association_lives_on() {
    let node = TestNode::start();
    let mut peer = node.associate(ECHO);
    let mut command = echo_command(9);
    command.set_unsigned_short(tags::COMMAND_FIELD, 0x0140); // N-CREATE-RQ
    command.set_unsigned_short(tags::COMMAND_DATA_SET_TYPE, command_set::DATA_SET_PRESENT);
    peer.send_message(1, &command, Some(&[0; 40_000]));
    let response = peer.receive_message();
    assert_eq!((response.field(), response.status()), (CommandField(0x8140), 0x0211));
    assert_eq!(response.command.unsigned_short(tags::MESSAGE_ID_BEING_RESPONDED_TO), Ok(9));
    peer.echo(1);
    peer.release();
}

#[test]
fn a_sop_class_that_is_not_that_of_the_context_is_refused() {
    let node = TestNode::start();
    let mut peer = node.associate(ECHO);
    let mut command = echo_command(2);
    command.set_uid(tags::AFFECTED_SOP_CLASS_UID, "1.2.840.10008.5.1.4.1.1.2");
    peer.send_message(1, &command, None);
    let response = peer.receive_message();
    assert_eq!(response.status(), 0x0122);
    assert!(!response.error_comment().is_empty());
    peer.echo(1);
}

#[test]
fn requests_sent_ahead_are_answered_in_order() {
    let node = TestNode::start();
    let mut peer = node.associate(ECHO);
    for message_id in 1..=20 {
        peer.send_message(1, &echo_command(message_id), None);
    }
    for message_id in 1..=20 {
        let response = peer.receive_message();
        assert_eq!(response.command.unsigned_short(tags::MESSAGE_ID_BEING_RESPONDED_TO), Ok(message_id));
    }
    peer.release();
}

#[test]
fn what_is_not_expected_in_an_association_aborts_it() {
    let node = TestNode::start();
    let cases: [(&str, Vec<u8>, Option<Pdu>); 8] = [
        ("second A-ASSOCIATE-RQ", pdu_bytes(&request(ECHO).into()), provider_abort(Reason::UnexpectedPdu)),
        ("A-RELEASE-RP", vec![6, 0, 0, 0, 0, 4, 0, 0, 0, 0], provider_abort(Reason::UnexpectedPdu)),
        ("unknown PDU", vec![0x47, 0, 0, 0, 0, 0], provider_abort(Reason::UnrecognizedPdu)),
        ("P-DATA-TF too long", vec![4, 0, 0, 2, 0, 1], provider_abort(Reason::InvalidPduParameter)),
        ("P-DATA-TF of 4 GiB", vec![4, 0, 0xFF, 0xFF, 0xFF, 0xFF], provider_abort(Reason::InvalidPduParameter)),
        ("PDV length 0", vec![4, 0, 0, 0, 0, 6, 0, 0, 0, 0, 1, 3], provider_abort(Reason::InvalidPduParameter)),
        (
            "context that was not accepted",
            {
                let mut bytes = Vec::new();
                dcmdex::dimse::pdata::put_message(&mut bytes, 77, &echo_command(1), None, 0);
                bytes
            },
            provider_abort(Reason::InvalidPduParameter),
        ),
        (
            "response that nobody asked for",
            {
                let mut command = echo_command(1);
                command.set_unsigned_short(tags::COMMAND_FIELD, CommandField::C_ECHO_RSP.0);
                let mut bytes = Vec::new();
                dcmdex::dimse::pdata::put_message(&mut bytes, 1, &command, None, 0);
                bytes
            },
            USER_ABORT,
        ),
    ];
    for (name, bytes, expected) in cases {
        let mut peer = node.associate(ECHO);
        peer.send(&bytes);
        assert_eq!(peer.receive(), expected, "{name}");
        peer.shut_down_sending();
        assert_eq!(peer.receive(), None, "{name}");
    }
    node.associate(ECHO).echo(1);
}

#[test]
fn a_peer_that_never_asks_for_an_association_is_disconnected() {
    let node = TestNode::with(|settings| settings.options.artim_timeout = Duration::from_millis(50));
    let mut silent = ScriptedPeer::connect(node.address());
    assert_eq!(silent.receive(), None);
    let mut half = ScriptedPeer::connect(node.address());
    half.send(&pdu_bytes(&request(ECHO).into())[..50]);
    assert_eq!(half.receive(), None);
}

#[test]
fn an_association_without_messages_is_aborted_after_the_idle_time() {
    let node = TestNode::with(|settings| settings.options.idle_timeout = Duration::from_millis(50));
    let mut peer = node.associate(ECHO);
    assert_eq!(peer.receive(), provider_abort(Reason::ReasonNotSpecified));
    peer.shut_down_sending();
    assert_eq!(peer.receive(), None);
}

#[test]
fn a_pdu_that_does_not_end_is_aborted_after_the_read_time() {
    let node = TestNode::with(|settings| settings.options.read_timeout = Duration::from_millis(50));
    let mut peer = node.associate(ECHO);
    peer.send(&[4, 0, 0, 0, 0, 50, 0]);
    assert_eq!(peer.receive(), provider_abort(Reason::ReasonNotSpecified));
}

#[test]
fn a_half_closed_connection_still_gets_its_answer() {
    let node = TestNode::start();
    let mut peer = node.associate(ECHO);
    peer.send_message(1, &echo_command(1), None);
    peer.shut_down_sending();
    assert_eq!(peer.receive_message().status(), 0);
    assert_eq!(peer.receive(), None);
}

#[test]
fn stopping_aborts_idle_associations_and_ends() {
    let node = TestNode::start();
    let mut peer = node.associate(ECHO);
    peer.echo(1);
    let _never_associates = ScriptedPeer::connect(node.address());
    node.order_to_stop();
    assert_eq!(peer.receive(), USER_ABORT);
    node.stop();
    assert_eq!(peer.receive(), None);
}

fn pdu_bytes(pdu: &Pdu) -> Vec<u8> {
    let mut bytes = Vec::new();
    dicom_ul::pdu::write_pdu(&mut bytes, pdu).unwrap();
    bytes
}
