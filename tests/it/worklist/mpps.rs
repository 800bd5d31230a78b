//! Modality Performed Procedure Step (PS3.4 F.7).

use dcmdex::db::WorklistSearch;
use dcmdex::dimse::command_set::{self, CommandSet};
use dicom_core::Tag;
use dicom_dictionary_std::tags;

use super::*;
use crate::util::engine::with_each_index;

const MPPS: &str = "1.2.840.10008.3.1.2.3.3";
const BOTH: &[(&str, &[&str])] = &[(WORKLIST, &[IMPLICIT_VR_LITTLE_ENDIAN]), (MPPS, &[IMPLICIT_VR_LITTLE_ENDIAN])];
const ERROR_ID: Tag = Tag(0x0000, 0x0903);

fn command(field: CommandField, uid: &str) -> CommandSet {
    let mut command = CommandSet::new();
    let is_create = field == CommandField::N_CREATE_RQ;
    let (class, instance) = match is_create {
        true => (tags::AFFECTED_SOP_CLASS_UID, tags::AFFECTED_SOP_INSTANCE_UID),
        false => (tags::REQUESTED_SOP_CLASS_UID, tags::REQUESTED_SOP_INSTANCE_UID),
    };
    command.set_uid(class, MPPS);
    command.set_unsigned_short(tags::COMMAND_FIELD, field.0);
    command.set_unsigned_short(tags::MESSAGE_ID, 9);
    command.set_unsigned_short(tags::COMMAND_DATA_SET_TYPE, command_set::DATA_SET_PRESENT);
    if !uid.is_empty() {
        command.set_uid(instance, uid);
    }
    command
}

fn created(study: &str, step: &str) -> DataSet {
    let item = DataSet::default().uid(0x0020, 0x000D, study).text(0x0040, 0x0009, step);
    let item = DataSet::default().bytes(0xFFFE, 0xE000, &item.0);
    DataSet::default().text(0x0040, 0x0241, "CT1").text(0x0040, 0x0252, "IN PROGRESS").bytes(0x0040, 0x0270, &item.0)
}

fn status(text: &str) -> DataSet {
    DataSet::default().text(0x0040, 0x0252, text)
}

fn do_step(peer: &mut ScriptedPeer, field: CommandField, uid: &str, data: &DataSet) -> Received {
    peer.send_message(3, &command(field, uid), Some(&data.0));
    let response = peer.receive_message();
    assert_eq!(response.field(), field.response());
    assert_eq!(response.command.text(tags::AFFECTED_SOP_INSTANCE_UID), Ok(uid));
    response
}

fn state(node: &TestNode) -> String {
    let (_, list, _) = worklist(node, &["list", "--all", "--json"], b"");
    let item: Value = serde_json::from_str(list.lines().next().unwrap()).unwrap();
    item["state"].as_str().unwrap().to_owned()
}

fn one() -> Value {
    let mut item = order(1, step("CT", "CT1", "20991231", "0900"));
    item["StudyInstanceUID"] = "1.2.3".into();
    item["ScheduledProcedureStepSequence"][0]["ScheduledProcedureStepID"] = "S1".into();
    item
}

fn a_performed_step_starts_and_ends_its_item() {
    let node = node_with(&[one()], |_| {});
    let mut peer = node.associate(BOTH);
    assert_eq!(do_step(&mut peer, CommandField::N_CREATE_RQ, "1.9.1", &created("1.2.3", "S1")).status(), 0);
    assert_eq!(state(&node), "started");
    assert_eq!(found(&mut peer, &[], &[((0x0040, 0x0020), "STARTED")]), ["A001"], "it is still in the list");
    assert_eq!(do_step(&mut peer, CommandField::N_SET_RQ, "1.9.1", &status("COMPLETED")).status(), 0);
    assert_eq!(state(&node), "done");
    assert_eq!(found(&mut peer, &[], &[]), [""; 0]);
    // PS3.4 table F.7.2-2.
    let late = do_step(&mut peer, CommandField::N_SET_RQ, "1.9.1", &status("DISCONTINUED"));
    assert_eq!(late.status(), 0x0110);
    assert_eq!(late.command.unsigned_short(ERROR_ID), Ok(0xA710));
    assert_eq!(late.error_comment(), "Performed Procedure Step Object may no longer be updated");
    let steps = node.reader().performed_steps().unwrap();
    assert_eq!((steps.len(), steps[0].status.as_str(), steps[0].station_ae_title.as_str()), (1, "COMPLETED", "CT1"));
    let (code, list, _) = worklist(&node, &["steps"], b"");
    assert!(code == 0 && list.contains("COMPLETED") && list.contains("CT1"), "{list}");
}

fn a_step_that_chose_the_wrong_item_gives_it_back() {
    let node = node_with(&[one()], |_| {});
    let mut peer = node.associate(BOTH);
    let reason = DataSet::default().text(0x0008, 0x0100, "110514").text(0x0008, 0x0102, "DCM");
    let reason = DataSet::default().bytes(0xFFFE, 0xE000, &reason.0);
    let wrong = status("DISCONTINUED").bytes(0x0040, 0x0281, &reason.0);
    for (uid, ending, expected) in [("1.9.1", &wrong, "scheduled"), ("1.9.2", &status("DISCONTINUED"), "discontinued")]
    {
        assert_eq!(do_step(&mut peer, CommandField::N_CREATE_RQ, uid, &created("1.2.3", "")).status(), 0);
        assert_eq!(do_step(&mut peer, CommandField::N_SET_RQ, uid, ending).status(), 0);
        assert_eq!(state(&node), expected);
    }
}

fn what_is_no_performed_step_is_refused_with_its_status() {
    let node = node_with(&[one()], |_| {});
    let mut peer = node.associate(BOTH);
    let mut refused = |field, uid, data: &DataSet| do_step(&mut peer, field, uid, data).status();
    let (create, set) = (CommandField::N_CREATE_RQ, CommandField::N_SET_RQ);
    assert_eq!(refused(create, "1.9.1", &status("COMPLETED")), 0x0106, "it is created IN PROGRESS");
    assert_eq!(refused(create, "1.9.1", &DataSet::default().text(0x0040, 0x0241, "CT1")), 0x0120);
    assert_eq!(refused(create, "1.9.1", &status("")), 0x0121);
    assert_eq!(refused(create, "1.9.x", &created("1.2.3", "S1")), 0x0117);
    assert_eq!(refused(set, "1.9.9", &status("COMPLETED")), 0x0112);
    assert_eq!(refused(create, "1.9.1", &created("1.2.3", "S1")), 0);
    assert_eq!(refused(create, "1.9.1", &created("1.2.3", "S1")), 0x0111);
    assert_eq!(refused(set, "1.9.1", &status("FINISHED")), 0x0106);
    assert_eq!(refused(set, "1.9.1", &DataSet(vec![1, 2, 3])), 0x0106);
    assert_eq!(state(&node), "started");
}

// PS3.7 10.1.5.1.4, table 10.1-7.
fn a_step_that_is_created_without_a_uid_gets_one() {
    let node = node_with(&[one()], |_| {});
    let mut peer = node.associate(BOTH);
    let request = command(CommandField::N_CREATE_RQ, "");
    let mut create = || {
        peer.send_message(3, &request, Some(&created("1.2.3", "S1").0));
        let response = peer.receive_message();
        assert_eq!(response.status(), 0);
        response.command.text(tags::AFFECTED_SOP_INSTANCE_UID).unwrap().to_owned()
    };
    let (uid, other) = (create(), create());
    assert!(uid.starts_with("2.25.") && uid != other, "{uid} {other}");
    for (uid, expected) in [(&uid, "started"), (&other, "done")] {
        assert_eq!(do_step(&mut peer, CommandField::N_SET_RQ, uid, &status("COMPLETED")).status(), 0);
        assert_eq!(state(&node), expected);
    }
}

/// Several performed steps may be of one scheduled step (PS3.3 7.3.1.9).
fn an_item_ends_with_the_last_of_its_performed_steps() {
    let node = node_with(&[one()], |_| {});
    let mut peer = node.associate(BOTH);
    for uid in ["1.9.1", "1.9.2"] {
        assert_eq!(do_step(&mut peer, CommandField::N_CREATE_RQ, uid, &created("1.2.3", "S1")).status(), 0);
    }
    for (uid, ending, expected) in [("1.9.1", "DISCONTINUED", "started"), ("1.9.2", "COMPLETED", "done")] {
        assert_eq!(do_step(&mut peer, CommandField::N_SET_RQ, uid, &status(ending)).status(), 0);
        assert_eq!(state(&node), expected, "{uid}");
    }
}

with_each_index! {
    a_step_that_is_created_without_a_uid_gets_one,
    a_performed_step_starts_and_ends_its_item,
    an_item_ends_with_the_last_of_its_performed_steps,
    a_step_that_chose_the_wrong_item_gives_it_back,
    what_is_no_performed_step_is_refused_with_its_status,
}
